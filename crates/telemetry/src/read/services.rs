//! Which services sent which signals, and when last.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use arrow::array::AsArray;
use arrow::datatypes::TimestampNanosecondType;
use portcullis_model::{Service, Signal, TimeWindow, Timestamp};

use super::Confinement;
use crate::error::Result;
use crate::scan::Cancel;
use crate::schema::Table;
use crate::store::Store;

/// Services of a window.
pub(crate) fn services(store: &Store, cancel: &Cancel, confinement: &Confinement, window: TimeWindow) -> Result<Vec<Service>> {
    let mut found: BTreeMap<String, (BTreeSet<Signal>, i64)> = BTreeMap::new();
    for table in Table::ALL {
        let signal = match table {
            Table::Logs => Signal::Logs,
            Table::Traces => Signal::Traces,
            _ => Signal::Metrics,
        };
        for (name, last) in last_seen(store, cancel, confinement, table, window)? {
            let service = found.entry(name).or_insert((BTreeSet::new(), i64::MIN));
            service.0.insert(signal);
            service.1 = service.1.max(last);
        }
    }
    Ok(found
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, (signals, last))| Service {
            name,
            signals: signals.into_iter().collect(),
            last_seen: Some(Timestamp::from_nanos(last)),
        })
        .collect())
}

/// Services of one table and when they were seen last. Stretches of one service that lie in the window as a whole are
/// answered by the index; the others are read.
fn last_seen(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    table: Table,
    window: TimeWindow,
) -> Result<BTreeMap<String, i64>> {
    let filter = confinement.filter(table, window, None);
    let (plan, known) = store.snapshot(&confinement.tenant, table)?.plan_services(filter, cancel)?;
    let mut seen = known;
    let columns = [table.time_column().min(table.service_column()), table.time_column().max(table.service_column())];
    let time_first = columns[0] == table.time_column();
    let parts = plan.read(store.settings().query_threads, cancel, &columns, BTreeMap::<String, i64>::new, |seen, rows| {
        let (times, services) = if time_first { (rows.column(0), rows.column(1)) } else { (rows.column(1), rows.column(0)) };
        let (times, services) = (times.as_primitive::<TimestampNanosecondType>().values(), services.as_string_view());
        let mut row = 0;
        while row < rows.num_rows() {
            let name = services.value(row);
            let mut last = times[row];
            row += 1;
            while row < rows.num_rows() && services.value(row) == name {
                last = last.max(times[row]);
                row += 1;
            }
            match seen.get_mut(name) {
                Some(known) => *known = last.max(*known),
                None => {
                    seen.insert(name.to_owned(), last);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for (name, last) in parts.into_iter().flatten() {
        let known = seen.entry(name).or_insert(last);
        *known = last.max(*known);
    }
    Ok(seen)
}
