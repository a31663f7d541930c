//! Which raw PromQL queries learn the value of a label whose name says it is a secret. Guards values that answers would
//! redact: conditions, groups, joins and rewritten labels could tell them piece by piece. Must not look at values.

use portcullis_model::secret_name;
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::token::T_COUNT_VALUES;
use promql_parser::parser::{AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector};

use crate::QueryError;
use crate::parse::{Node, parse, visit};

/// Whether a label's name says that its value is a secret, by the rule that redacts answers.
pub fn is_secret_label(name: &str) -> bool {
    secret_name::strength(name.as_bytes()).is_some()
}

/// Refuses a query that matches, groups, joins, copies or writes a label whose name says it is a secret.
///
/// Whether the label is there may be asked (`token=""`, `token!=""`, `=~".+"`), and it may be left out (`without`,
/// `ignoring`). Writing such a label is refused too: compared with the real one it would tell whether a guess is right.
///
/// # Errors
/// [`QueryError::SecretLabel`] with the label and what it was to be used for; errors of reading the query.
pub fn refuse_secret_labels(raw: &str) -> Result<(), QueryError> {
    let (expr, _) = parse(raw)?;
    let mut found = None;
    visit(&expr, &mut |node| {
        if found.is_none() {
            found = match node {
                Node::Selector(selector) => in_selector(selector),
                Node::Call(call) => in_call(call),
                Node::Aggregate(aggregate) => in_aggregate(aggregate),
                Node::Binary(binary) => in_binary(binary),
            };
        }
    });
    match found {
        Some((label, using)) => Err(QueryError::SecretLabel { label: crate::error::shown(&label), using }),
        None => Ok(()),
    }
}

type Finding = Option<(String, &'static str)>;

fn first_secret<'a>(names: impl IntoIterator<Item = &'a str>, using: &'static str) -> Finding {
    names.into_iter().find(|name| is_secret_label(name)).map(|name| (name.to_owned(), using))
}

fn in_selector(selector: &VectorSelector) -> Finding {
    let matchers = selector.matchers.matchers.iter().chain(selector.matchers.or_matchers.iter().flatten());
    first_secret(matchers.filter(|matcher| !asks_presence(matcher)).map(|matcher| matcher.name.as_str()), "a condition on")
}

/// Whether a condition only tells whether the label is there.
fn asks_presence(matcher: &Matcher) -> bool {
    match &matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => matcher.value.is_empty(),
        MatchOp::Re(_) | MatchOp::NotRe(_) => matches!(matcher.value.as_str(), "" | ".+" | ".*"),
    }
}

/// Labels that functions read or write are named in string arguments; which argument is a label and which a text does
/// not matter, except for the replacement and the expression of `label_replace` and the separator of `label_join`.
fn in_call(call: &Call) -> Finding {
    let texts: Vec<Option<&str>> = call.args.args.iter().map(|argument| text(argument)).collect();
    let at = |index: usize| texts.get(index).copied().flatten();
    match call.func.name {
        "label_replace" => first_secret(at(1).into_iter().chain(at(3)), "label_replace() on"),
        "label_join" => first_secret(at(1).into_iter().chain(texts.iter().skip(3).copied().flatten()), "label_join() on"),
        _ => first_secret(texts.iter().copied().flatten(), "a function of"),
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::StringLiteral(literal) => Some(&literal.val),
        Expr::Paren(inner) => text(&inner.expr),
        _ => None,
    }
}

fn in_aggregate(aggregate: &AggregateExpr) -> Finding {
    let grouped = match &aggregate.modifier {
        Some(LabelModifier::Include(by)) => first_secret(by.labels.iter().map(String::as_str), "grouping by"),
        _ => None,
    };
    grouped.or_else(|| {
        let written = aggregate.param.as_deref().and_then(text).filter(|_| aggregate.op.id() == T_COUNT_VALUES);
        first_secret(written, "count_values() into")
    })
}

fn in_binary(binary: &BinaryExpr) -> Finding {
    let modifier = binary.modifier.as_ref()?;
    let on = match &modifier.matching {
        Some(LabelModifier::Include(on)) => first_secret(on.labels.iter().map(String::as_str), "a join on"),
        _ => None,
    };
    let copied = match &modifier.card {
        VectorMatchCardinality::ManyToOne(include) | VectorMatchCardinality::OneToMany(include) => {
            first_secret(include.labels.iter().map(String::as_str), "a join that copies")
        }
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => None,
    };
    on.or(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_would_tell_a_value_is_refused_and_says_what_it_was() {
        for (raw, words) in [
            (r#"up{password="x"}"#, "a condition on the label 'password'"),
            (r#"up{api_key=~"a.*"}"#, "a condition on the label 'api_key'"),
            (r#"up{token!~"a.*"}"#, "'token'"),
            (r#"sum(rate(x{job="a", "db.password"!="b"}[5m]))"#, "'db.password'"),
            (r#"max_over_time((up{sessionToken="x"})[5m:1m])"#, "'sessionToken'"),
            ("count by (instance, token) (up)", "grouping by the label 'token'"),
            ("topk(1, up) by (API_KEY)", "'API_KEY'"),
            ("up and on (password) down", "a join on the label 'password'"),
            ("up * on (job) group_left (client_secret) info", "a join that copies the label 'client_secret'"),
            (r#"label_replace(up, "x", "$1", "password", "(.).*")"#, "label_replace() on the label 'password'"),
            (r#"up and label_replace(up, "password", "guess", "", "")"#, "label_replace() on"),
            (r#"label_join(up, "x", "", "job", "authToken")"#, "label_join() on the label 'authToken'"),
            (r#"label_join(up, "secret", "", "job")"#, "label_join() on"),
            (r#"count_values("password", up)"#, "count_values() into the label 'password'"),
            (r#"absent(up{cookie="a"})"#, "'cookie'"),
            (r#"up{pass="x"}"#, "'pass'"),
            (r#"up{session_id="x"}"#, "'session_id'"),
            (r#"up{"пароль"="x"}"#, "'пароль'"),
        ] {
            let error = refuse_secret_labels(raw).expect_err(raw).to_string();
            assert!(error.contains(words), "{raw}: {error}");
        }
    }

    #[test]
    fn presence_leaving_out_and_other_labels_pass() {
        for raw in [
            r#"up{password!=""}"#,
            r#"up{password=~".+", job="a"}"#,
            r#"up{token=""}"#,
            "sum without (password) (up)",
            "up * ignoring (token) down",
            r#"label_replace(up, "a", "password", "b", "token")"#,
            r#"label_join(up, "a", "token", "b")"#,
            "password{job=\"a\"}",
            "sum by (token_type, max_tokens) (x)",
            r#"count_values("version", build_info)"#,
        ] {
            assert!(refuse_secret_labels(raw).is_ok(), "{raw}: {:?}", refuse_secret_labels(raw));
        }
        assert!(matches!(refuse_secret_labels("up{"), Err(QueryError::Syntax { .. })));
    }
}
