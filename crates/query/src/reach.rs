//! How far back (and ahead) a PromQL query reads. Guards the look-back of a scope: ranges, subqueries, offsets and
//! `@` add up. Must not under-estimate; the server's staleness look-back (5 minutes by default) is not counted.

use std::time::{Duration, SystemTime};

use portcullis_model::Timestamp;
use promql_parser::parser::{AtModifier, Expr, Offset};

use crate::QueryError;
use crate::parse::parse;

/// The span of time a query reads samples from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Oldest instant read.
    pub earliest: Timestamp,
    /// Latest instant read.
    pub latest: Timestamp,
}

/// How far a raw query reads when it is evaluated from `start` to `end` (the same for an instant query).
///
/// `None` when it reads no series at all. A plain selector counts as reading at the evaluation time itself, although
/// Prometheus may take a sample up to its staleness look-back (5 minutes by default) older than that.
pub fn promql_reach(raw: &str, start: Timestamp, end: Timestamp) -> Result<Option<Reach>, QueryError> {
    let (expr, _) = parse(raw)?;
    Ok(reach(&expr, start, end))
}

/// The same for a parsed query.
pub(crate) fn reach(expr: &Expr, start: Timestamp, end: Timestamp) -> Option<Reach> {
    let window = Span { low: i128::from(start.as_nanos()), high: i128::from(end.as_nanos()) };
    let mut found = None;
    walk(expr, window, window, &mut found);
    found.map(|span| Reach { earliest: timestamp(span.low), latest: timestamp(span.high) })
}

fn timestamp(nanos: i128) -> Timestamp {
    let clamped = nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    Timestamp::from_nanos(i64::try_from(clamped).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX }))
}

/// Nanoseconds since the epoch, wide enough for any sum of durations the scan lets through.
#[derive(Clone, Copy)]
struct Span {
    low: i128,
    high: i128,
}

impl Span {
    fn moved(self, window: Self, at: Option<&AtModifier>, offset: Option<&Offset>) -> Self {
        let pinned = match at {
            None => self,
            Some(AtModifier::Start) => Self { low: window.low, high: window.low },
            Some(AtModifier::End) => Self { low: window.high, high: window.high },
            Some(AtModifier::At(instant)) => {
                let nanos = match instant.duration_since(SystemTime::UNIX_EPOCH) {
                    Ok(after) => nanos(after),
                    Err(before) => -nanos(before.duration()),
                };
                Self { low: nanos, high: nanos }
            }
        };
        let back = match offset {
            None => 0,
            Some(Offset::Pos(by)) => nanos(*by),
            Some(Offset::Neg(by)) => -nanos(*by),
        };
        Self { low: pinned.low - back, high: pinned.high - back }
    }

    fn stretched_back(self, by: Duration) -> Self {
        Self { low: self.low - nanos(by), high: self.high }
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 1024)
}

fn walk(expr: &Expr, evaluated: Span, window: Span, found: &mut Option<Span>) {
    let mut read = |span: Span| {
        *found = Some(found.map_or(span, |sum| Span { low: sum.low.min(span.low), high: sum.high.max(span.high) }));
    };
    match expr {
        Expr::VectorSelector(selector) => read(evaluated.moved(window, selector.at.as_ref(), selector.offset.as_ref())),
        Expr::MatrixSelector(matrix) => {
            let moved = evaluated.moved(window, matrix.vs.at.as_ref(), matrix.vs.offset.as_ref());
            read(moved.stretched_back(matrix.range));
        }
        Expr::Subquery(subquery) => {
            let moved = evaluated.moved(window, subquery.at.as_ref(), subquery.offset.as_ref());
            walk(&subquery.expr, moved.stretched_back(subquery.range), window, found);
        }
        Expr::Aggregate(aggregate) => {
            if let Some(parameter) = &aggregate.param {
                walk(parameter, evaluated, window, found);
            }
            walk(&aggregate.expr, evaluated, window, found);
        }
        Expr::Unary(unary) => walk(&unary.expr, evaluated, window, found),
        Expr::Binary(binary) => {
            walk(&binary.lhs, evaluated, window, found);
            walk(&binary.rhs, evaluated, window, found);
        }
        Expr::Paren(paren) => walk(&paren.expr, evaluated, window, found),
        Expr::Call(call) => call.args.args.iter().for_each(|argument| walk(argument, evaluated, window, found)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_000_000;
    const END: i64 = 1_003_600;

    fn seconds(raw: &str) -> Option<(i64, i64)> {
        let reach = promql_reach(raw, Timestamp::from_seconds(START), Timestamp::from_seconds(END)).unwrap();
        reach.map(|r| (r.earliest.as_nanos() / 1_000_000_000 - START, r.latest.as_nanos() / 1_000_000_000 - END))
    }

    #[test]
    fn everything_that_reaches_back_adds_up() {
        assert_eq!(seconds("up"), Some((0, 0)));
        assert_eq!(seconds("rate(up[5m])"), Some((-300, 0)));
        assert_eq!(seconds("rate(up[5m] offset 1h)"), Some((-3_900, -3_600)));
        assert_eq!(seconds("max_over_time(rate(up[5m] offset 1m)[10m:1m] offset 1h)"), Some((-4_560, -3_660)));
        assert_eq!(seconds("up - up offset 1d"), Some((-86_400, 0)));
        assert_eq!(seconds("up offset -1h"), Some((3_600, 3_600)));
        assert_eq!(seconds("up @ start()"), Some((0, -3_600)));
        assert_eq!(seconds("rate(up[5m] @ end())"), Some((3_300, 0)));
        assert_eq!(seconds("max_over_time((up @ 900000)[1h:1m])"), Some((-100_000, 900_000 - END)));
        assert_eq!(seconds("up @ -5"), Some((-5 - START, -5 - END)));
        assert_eq!(seconds("topk(scalar(up offset 2h), up)"), Some((-7_200, 0)));
        assert_eq!(seconds("vector(time())"), None);
    }

    #[test]
    fn a_hundred_years_do_not_overflow() {
        let raw = "max_over_time(max_over_time(up[100y] offset 100y)[100y:1h] offset 100y)";
        assert_eq!(
            promql_reach(raw, Timestamp::from_seconds(START), Timestamp::from_seconds(END)).unwrap().unwrap().earliest,
            Timestamp::from_nanos(i64::MIN)
        );
    }
}
