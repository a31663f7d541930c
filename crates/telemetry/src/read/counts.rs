//! Counts of log records by fields and time. Secrets go before groups are told apart, so neither a key nor the number and order
//! of groups says anything about one.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use arrow::array::{AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{TimestampNanosecondType, UInt8Type};
use portcullis_model::{Severity, Timestamp};
use portcullis_ports::{LogCount, LogCountAnswer, LogCountRequest, Total};

use super::logs::{ATTRIBUTES, RESOURCE, SERVICE, SEVERITY, SEVERITY_TEXT, TIME, filter, severity};
use super::{Confinement, attribute};
use crate::error::Result;
use crate::scan::Cancel;
use crate::schema::Table;
use crate::scrub::Scrub;
use crate::store::Store;

/// Groups counted at most; beyond it the answer says "at least".
const MOST_GROUPS: usize = 100_000;

/// A field records are counted by.
enum Field {
    Service,
    Severity,
    Attribute(String),
}

/// One group while it is counted.
#[derive(Default)]
struct Group {
    count: u64,
    buckets: BTreeMap<i64, u64>,
    // Rows come sorted by time, so most fall into the bucket of the row before.
    open: (i64, u64),
}

#[derive(Default)]
struct Counts {
    /// The group of what was stored, so that equal values are looked through once.
    known: HashMap<String, Option<usize>>,
    /// The group of what is shown.
    numbers: HashMap<String, usize>,
    groups: Vec<Group>,
    total: u64,
    overflow: bool,
}

/// What a row is counted by when no attribute is asked for: the views stand for their texts within one batch.
type Narrow = (u128, u128, u8);

/// Counts records.
pub(crate) fn counts(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    request: &LogCountRequest,
) -> Result<LogCountAnswer> {
    let plan = store.snapshot(&confinement.tenant, Table::Logs)?.plan(filter(confinement, &request.filter)?, cancel)?;
    let threads = store.settings().query_threads;
    if request.by.is_empty() && request.step.is_none() {
        let total = plan.count(threads, cancel)?;
        let whole = LogCount { key: BTreeMap::new(), count: total, over_time: Vec::new() };
        let groups = if total > 0 { vec![whole] } else { Vec::new() };
        return Ok(LogCountAnswer { total_groups: Total::Exact(groups.len() as u64), groups, total: Total::Exact(total) });
    }
    let counting = Counting {
        fields: request.by.iter().map(|name| field(name)).collect(),
        start: request.filter.window.start.as_nanos(),
        step: request.step.map(|step| i64::try_from(step.as_nanos()).unwrap_or(i64::MAX).max(1)),
        scrub: confinement.scrub.clone(),
    };
    let columns = [TIME, SEVERITY_TEXT, SEVERITY, SERVICE, RESOURCE, ATTRIBUTES];
    // Attributes are the widest columns; without a question about them they are not read.
    let columns = if counting.is_wide() { &columns[..] } else { &columns[..4] };
    let parts = plan.read(threads, cancel, columns, Counts::default, |counts, rows| {
        counting.add(counts, rows);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(merged(parts, &counting, request))
}

fn field(name: &str) -> Field {
    match name {
        "service" | "service.name" => Field::Service,
        "severity" => Field::Severity,
        other => Field::Attribute(other.to_owned()),
    }
}

struct Counting {
    fields: Vec<Field>,
    start: i64,
    step: Option<i64>,
    /// What must not be told by a count.
    scrub: Option<Scrub>,
}

impl Counting {
    fn is_wide(&self) -> bool {
        self.fields.iter().any(|f| matches!(f, Field::Attribute(_)))
    }

    fn add(&self, counts: &mut Counts, rows: &RecordBatch) {
        let times = rows.column(0).as_primitive::<TimestampNanosecondType>().values();
        let words = rows.column(1).as_string_view();
        let numbers = rows.column(2).as_primitive::<UInt8Type>().values();
        let services = rows.column(3).as_string_view();
        let wide = self.is_wide().then(|| (rows.column(4).as_string_view(), rows.column(5).as_string_view()));
        let mut known: hashbrown::HashMap<Narrow, Option<usize>> = hashbrown::HashMap::new();
        let mut key = String::new();
        for row in 0..rows.num_rows() {
            counts.total += 1;
            let mut find = || {
                let (service, severity) = (services.value(row), severity(numbers[row], words.value(row)));
                self.write_key(&mut key, row, service, severity, wide, None);
                match self.scrub.as_ref().filter(|_| wide.is_some()) {
                    None => counts.number(&key),
                    Some(scrub) => counts.number_of_shown(&key, || {
                        let mut shown = String::new();
                        self.write_key(&mut shown, row, service, severity, wide, Some(scrub));
                        shown
                    }),
                }
            };
            let number = if wide.is_some() {
                find()
            } else {
                *known.entry((services.views()[row], words.views()[row], numbers[row])).or_insert_with(find)
            };
            if let Some(number) = number {
                counts.groups[number].add(self.step.map(|step| (times[row] - self.start).div_euclid(step)));
            }
        }
    }

    fn write_key(
        &self,
        key: &mut String,
        row: usize,
        service: &str,
        severity: Option<Severity>,
        wide: Option<(&StringViewArray, &StringViewArray)>,
        scrub: Option<&Scrub>,
    ) {
        key.clear();
        for field in &self.fields {
            match (field, wide) {
                (Field::Service, _) => push_key(key, Some(service)),
                (Field::Severity, _) => push_key(key, severity.map(Severity::as_str)),
                (Field::Attribute(name), Some((resource, own))) => {
                    let stored = attribute(own.value(row), resource.value(row), name);
                    let clean = stored.as_deref().and_then(|value| scrub.and_then(|scrub| scrub.field(name, value)));
                    push_key(key, clean.as_deref().or(stored.as_deref()));
                }
                (Field::Attribute(_), None) => push_key(key, None),
            }
        }
    }
}

impl Counts {
    /// The group of a stored key, which is that of what it shows; nothing when there are too many.
    fn number_of_shown(&mut self, stored: &str, shown: impl FnOnce() -> String) -> Option<usize> {
        if let Some(number) = self.known.get(stored) {
            return *number;
        }
        let number = self.number(&shown());
        // Beyond the bound a value is looked through as often as it occurs.
        if self.known.len() < MOST_GROUPS {
            self.known.insert(stored.to_owned(), number);
        }
        number
    }

    /// The group of a key; nothing when there are too many.
    fn number(&mut self, key: &str) -> Option<usize> {
        if let Some(number) = self.numbers.get(key) {
            return Some(*number);
        }
        if self.groups.len() >= MOST_GROUPS {
            self.overflow = true;
            return None;
        }
        self.numbers.insert(key.to_owned(), self.groups.len());
        self.groups.push(Group::default());
        Some(self.groups.len() - 1)
    }
}

impl Group {
    fn add(&mut self, bucket: Option<i64>) {
        self.count += 1;
        let Some(bucket) = bucket else { return };
        if self.open.1 > 0 && self.open.0 != bucket {
            self.close();
        }
        self.open = (bucket, self.open.1 + 1);
    }

    fn close(&mut self) {
        if self.open.1 > 0 {
            *self.buckets.entry(self.open.0).or_default() += self.open.1;
            self.open.1 = 0;
        }
    }

    fn absorb(&mut self, mut other: Self) {
        other.close();
        self.count += other.count;
        for (bucket, count) in other.buckets {
            *self.buckets.entry(bucket).or_default() += count;
        }
    }
}

fn merged(parts: Vec<Counts>, counting: &Counting, request: &LogCountRequest) -> LogCountAnswer {
    let (mut total, mut overflow) = (0, false);
    let mut all: HashMap<String, Group> = HashMap::new();
    for part in parts {
        total += part.total;
        overflow |= part.overflow;
        let mut groups: Vec<Option<Group>> = part.groups.into_iter().map(Some).collect();
        for (key, number) in part.numbers {
            if let Some(group) = groups[number].take() {
                all.entry(key).or_default().absorb(group);
            }
        }
    }
    let count = all.len() as u64;
    let mut groups: Vec<(String, Group)> = all.into_iter().collect();
    groups.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| a.0.cmp(&b.0)));
    groups.truncate(request.top);
    let moment = |bucket: i64| Timestamp::from_nanos(counting.start + bucket * counting.step.unwrap_or(0));
    let groups = groups
        .into_iter()
        .map(|(key, group)| LogCount {
            key: decode_key(&key, &request.by),
            count: group.count,
            over_time: group.buckets.into_iter().map(|(bucket, n)| (moment(bucket), n)).collect(),
        })
        .collect();
    let total_groups = if overflow { Total::AtLeast(count) } else { Total::Exact(count) };
    LogCountAnswer { groups, total_groups, total: Total::Exact(total) }
}

/// Appends one value with its length, or the sign of its absence.
fn push_key(key: &mut String, value: Option<&str>) {
    use std::fmt::Write as _;
    match value {
        Some(value) => {
            let _ = write!(key, "{}:{value}", value.len());
        }
        None => key.push('-'),
    }
}

fn decode_key(key: &str, names: &[String]) -> BTreeMap<String, String> {
    let mut rest = key;
    let mut fields = BTreeMap::new();
    for name in names {
        if let Some(after) = rest.strip_prefix('-') {
            rest = after;
        } else if let Some((length, after)) = rest.split_once(':') {
            let length: usize = length.parse().unwrap_or(0);
            fields.insert(name.clone(), after.get(..length).unwrap_or("").to_owned());
            rest = after.get(length..).unwrap_or("");
        }
    }
    fields
}
