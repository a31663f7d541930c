//! Finds and reads the rows a question needs, from segments and from the write buffer alike. The only way rows leave
//! the store; every question names its tenant's snapshot, its window and its filters here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::{TimestampNanosecondType, UInt32Type};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use parquet::arrow::arrow_reader::{ArrowPredicate, ArrowPredicateFn, RowFilter};
use portcullis_model::NameSet;

use crate::error::{Result, StoreError};
use crate::memory::MemoryView;
use crate::schema::Table;
use crate::segment::index::Granule;
use crate::segment::read::{ReaderCache, SegmentReader};
use crate::segment::sort::column_to_rows;
use crate::segment::{Segment, bloom};

/// Rows one thread reads at a time.
const UNIT_ROWS: usize = 65_536;

/// Stops work whose caller is gone or whose time is over.
#[derive(Debug, Clone)]
pub(crate) struct Cancel {
    gone: Arc<AtomicBool>,
    deadline: Instant,
}

impl Cancel {
    /// Work that ends at `deadline`, or when the guard is dropped.
    pub(crate) fn until(deadline: Instant) -> (Self, CancelGuard) {
        let gone = Arc::new(AtomicBool::new(false));
        (Self { gone: Arc::clone(&gone), deadline }, CancelGuard(gone))
    }

    /// Fails when the work must stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(StoreError::Cancelled);
        }
        if Instant::now() >= self.deadline { Err(StoreError::Deadline) } else { Ok(()) }
    }

    /// Time left at `now`.
    pub(crate) fn time_left(&self, now: Instant) -> std::time::Duration {
        self.deadline.saturating_duration_since(now)
    }

    /// The same work with an earlier end.
    pub(crate) fn with_deadline_at_most(&self, deadline: Instant) -> Self {
        Self { gone: Arc::clone(&self.gone), deadline: self.deadline.min(deadline) }
    }
}

/// Cancels when dropped.
#[derive(Debug)]
pub(crate) struct CancelGuard(Arc<AtomicBool>);

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Test = dyn Fn(&RecordBatch) -> std::result::Result<BooleanArray, ArrowError> + Send + Sync;

/// A condition on rows; conditions are tried in order, each only on rows that passed the ones before.
#[derive(Clone)]
pub(crate) struct Stage {
    /// Columns it looks at, ascending.
    pub(crate) columns: Vec<usize>,
    /// The condition, over a batch of exactly these columns.
    pub(crate) test: Arc<Test>,
}

impl Stage {
    /// A condition on one column.
    pub(crate) fn on(
        column: usize,
        test: impl Fn(&ArrayRef) -> std::result::Result<BooleanArray, ArrowError> + Send + Sync + 'static,
    ) -> Self {
        Self { columns: vec![column], test: Arc::new(move |batch| test(batch.column(0))) }
    }

    /// A condition on a text column that rarely repeats.
    pub(crate) fn on_text(column: usize, test: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::on(column, move |array| {
            let texts = array.as_string_view();
            Ok(BooleanArray::new(BooleanBuffer::collect_bool(texts.len(), |row| test(texts.value(row))), None))
        })
    }

    /// A condition on a text column that repeats: asked once per distinct text where that is cheap to see.
    pub(crate) fn on_words(column: usize, test: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::on(column, move |array| {
            let texts = array.as_string_view();
            let mut known: Option<(u128, bool)> = None;
            let result = BooleanBuffer::collect_bool(texts.len(), |row| {
                let view = texts.views()[row];
                match known {
                    Some((same, answer)) if same == view => answer,
                    _ => {
                        let answer = test(texts.value(row));
                        known = Some((view, answer));
                        answer
                    }
                }
            });
            Ok(BooleanArray::new(result, None))
        })
    }
}

/// What a question needs of a table.
#[derive(Clone)]
pub(crate) struct Filter {
    /// First instant inside, nanoseconds.
    pub(crate) start: i64,
    /// First instant outside.
    pub(crate) end: i64,
    /// Services.
    pub(crate) services: NameSet,
    /// Metrics, for tables of metric points.
    pub(crate) metrics: NameSet,
    /// Only these traces.
    pub(crate) traces: Option<Vec<[u8; 16]>>,
    /// Further conditions.
    pub(crate) stages: Vec<Stage>,
}

impl Filter {
    /// Every row of a window.
    pub(crate) fn window(start: i64, end: i64) -> Self {
        Self { start, end, services: NameSet::All, metrics: NameSet::All, traces: None, stages: Vec::new() }
    }
}

/// A consistent look at one table of one tenant.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// The table.
    pub(crate) table: Table,
    /// Live segments.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Write buffers, newest last.
    pub(crate) memory: Vec<MemoryView>,
    /// Open segments.
    pub(crate) readers: Arc<ReaderCache>,
    /// Threads that read.
    pub(crate) workers: Arc<rayon_core::ThreadPool>,
}

/// Something one thread reads.
enum Unit {
    Segment(SegmentUnit),
    Memory { view: usize, batch: usize, rows: usize },
}

struct SegmentUnit {
    reader: Arc<SegmentReader>,
    group: usize,
    ranges: Vec<Range<usize>>,
    rows: usize,
    exact: bool,
}

/// Rows found without reading them, and what must be read.
pub(crate) struct Plan {
    units: Vec<Unit>,
    snapshot: Snapshot,
    filter: Arc<Filter>,
    hashes: Vec<u64>,
}

impl Snapshot {
    /// Finds the stretches of rows that may fit.
    pub(crate) fn plan(self, filter: Filter, cancel: &Cancel) -> Result<Plan> {
        let hashes = filter.traces.iter().flatten().map(|id| bloom::hash(*id)).collect();
        let mut plan = Plan { units: Vec::new(), snapshot: self, filter: Arc::new(filter), hashes };
        let candidates: Vec<Arc<Segment>> =
            plan.snapshot.segments.iter().filter(|s| s.overlaps(plan.filter.start, plan.filter.end)).cloned().collect();
        for segment in candidates {
            cancel.check()?;
            let reader = plan.snapshot.readers.get(&segment)?;
            plan.add_segment(&reader);
        }
        for (number, view) in plan.snapshot.memory.iter().enumerate() {
            if view.rows.min_time < plan.filter.end && view.rows.max_time >= plan.filter.start {
                let window = plan.filter.start..plan.filter.end;
                // The rows inside the window, not those of the whole batch: scans cut their window until few are left.
                let inside = |rows: &RecordBatch| {
                    let times = rows.column(plan.snapshot.table.time_column()).as_primitive::<TimestampNanosecondType>();
                    times.values().iter().filter(|at| window.contains(at)).count()
                };
                let batches = view.rows.batches.iter().map(inside).enumerate().filter(|(_, rows)| *rows > 0);
                plan.units.extend(batches.map(|(batch, rows)| Unit::Memory { view: number, batch, rows }));
            }
        }
        Ok(plan)
    }
}

impl Snapshot {
    /// As [`Snapshot::plan`], but stretches of one service that fit as a whole are answered at once: the service and the
    /// latest time of the stretch.
    pub(crate) fn plan_services(self, filter: Filter, cancel: &Cancel) -> Result<(Plan, BTreeMap<String, i64>)> {
        let mut plan = self.plan(filter, cancel)?;
        let mut known: BTreeMap<String, i64> = BTreeMap::new();
        if !plan.filter.stages.is_empty() {
            return Ok((plan, known));
        }
        let mut readers: Vec<Arc<SegmentReader>> = Vec::new();
        plan.units.retain(|unit| match unit {
            Unit::Segment(unit) => {
                if !readers.iter().any(|r| Arc::ptr_eq(r, &unit.reader)) {
                    readers.push(Arc::clone(&unit.reader));
                }
                false
            }
            Unit::Memory { .. } => true,
        });
        for reader in readers {
            let index = &reader.index.index;
            let mut first_row = 0;
            for granule in &index.granules {
                let rows = first_row..first_row + granule.rows as usize;
                first_row = rows.end;
                let (services, metrics) = (index.services_of(granule), index.metrics_of(granule));
                if !plan.may_fit(&reader, granule, services, metrics) {
                    continue;
                }
                let inside = granule.min_time >= plan.filter.start && granule.max_time < plan.filter.end;
                if inside && services.0 == services.1 {
                    let last = known.entry(services.0.to_owned()).or_insert(granule.max_time);
                    *last = granule.max_time.max(*last);
                } else {
                    for (group, range) in reader.locate(rows) {
                        plan.add_range(&reader, group, range, false);
                    }
                }
            }
        }
        Ok((plan, known))
    }
}

fn overlaps(set: &NameSet, (first, last): (&str, &str)) -> bool {
    match set.names() {
        None => true,
        Some(names) => names.iter().any(|name| first <= name.as_str() && name.as_str() <= last),
    }
}

fn exact(set: &NameSet, (first, last): (&str, &str)) -> bool {
    set.is_all() || first == last
}

impl Plan {
    fn add_segment(&mut self, reader: &Arc<SegmentReader>) {
        let index = &reader.index.index;
        let mut first_row = 0;
        for granule in &index.granules {
            let rows = first_row..first_row + granule.rows as usize;
            first_row = rows.end;
            let (services, metrics) = (index.services_of(granule), index.metrics_of(granule));
            if !self.may_fit(reader, granule, services, metrics) {
                continue;
            }
            let whole = granule.min_time >= self.filter.start
                && granule.max_time < self.filter.end
                && exact(&self.filter.services, services)
                && exact(&self.filter.metrics, metrics)
                && self.filter.traces.is_none();
            for (group, range) in reader.locate(rows) {
                self.add_range(reader, group, range, whole);
            }
        }
    }

    fn may_fit(&self, reader: &SegmentReader, granule: &Granule, services: (&str, &str), metrics: (&str, &str)) -> bool {
        granule.min_time < self.filter.end
            && granule.max_time >= self.filter.start
            && overlaps(&self.filter.services, services)
            && overlaps(&self.filter.metrics, metrics)
            && (self.filter.traces.is_none() || reader.index.may_hold_trace(granule, &self.hashes))
    }

    fn add_range(&mut self, reader: &Arc<SegmentReader>, group: usize, range: Range<usize>, exact: bool) {
        if let Some(Unit::Segment(unit)) = self.units.last_mut()
            && Arc::ptr_eq(&unit.reader, reader)
            && unit.group == group
            && unit.exact == exact
            && unit.rows + range.len() <= UNIT_ROWS
        {
            unit.rows += range.len();
            match unit.ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => unit.ranges.push(range),
            }
            return;
        }
        let rows = range.len();
        self.units.push(Unit::Segment(SegmentUnit { reader: Arc::clone(reader), group, ranges: vec![range], rows, exact }));
    }

    /// Rows that must be looked at, at most.
    pub(crate) fn rows(&self) -> usize {
        self.units.iter().map(Unit::rows).sum()
    }

    /// Parts of the write buffer among what must be looked at.
    pub(crate) fn parts(&self) -> usize {
        self.units.iter().filter(|unit| matches!(unit, Unit::Memory { .. })).count()
    }

    /// Fitting rows of one part as they are in the buffer, and the texts that their words are numbers of.
    pub(crate) fn part(&self, part: usize) -> Result<Option<(RecordBatch, &StringViewArray)>> {
        let mut parts = self.units.iter().filter_map(|unit| match unit {
            Unit::Memory { view, batch, .. } => Some((&self.snapshot.memory[*view], *batch)),
            Unit::Segment(_) => None,
        });
        let Some((view, batch)) = parts.nth(part) else { return Ok(None) };
        let rows = self.fitting_memory(view, &view.rows.batches[batch])?;
        Ok(rows.map(|rows| (rows, view.words.as_ref())))
    }

    /// Counts fitting rows; stretches that fit as a whole are not read.
    pub(crate) fn count(&self, threads: usize, cancel: &Cancel) -> Result<u64> {
        let columns = [self.snapshot.table.time_column()];
        let counts = self.fold(
            threads,
            cancel,
            &columns,
            || 0_u64,
            |count, unit_rows, batch| {
                *count += batch.map_or(unit_rows as u64, |b| b.num_rows() as u64);
                Ok(ControlFlow::Continue(()))
            },
            true,
        )?;
        Ok(counts.into_iter().sum())
    }

    /// Reads fitting rows on several threads; every thread folds what it reads into its own state. Columns come
    /// ascending by position. `Break` ends all threads early.
    pub(crate) fn read<S: Send>(
        &self,
        threads: usize,
        cancel: &Cancel,
        columns: &[usize],
        begin: impl Fn() -> S + Sync,
        step: impl Fn(&mut S, &RecordBatch) -> Result<ControlFlow<()>> + Sync,
    ) -> Result<Vec<S>> {
        let step = |state: &mut S, _: usize, batch: Option<&RecordBatch>| {
            batch.map_or(Ok(ControlFlow::Continue(())), |b| step(state, b))
        };
        self.fold(threads, cancel, columns, begin, step, false)
    }

    /// With one thread the caller's own reads, and `step` may wait for others. With more the store's workers read and
    /// `step` must not wait: units of all questions take turns on them, so a long question does not hold up a short one.
    fn fold<S: Send>(
        &self,
        threads: usize,
        cancel: &Cancel,
        columns: &[usize],
        begin: impl Fn() -> S + Sync,
        step: impl Fn(&mut S, usize, Option<&RecordBatch>) -> Result<ControlFlow<()>> + Sync,
        skip_exact: bool,
    ) -> Result<Vec<S>> {
        let next = AtomicUsize::new(0);
        let one_unit = |state: &mut S| -> Result<ControlFlow<()>> {
            let Some(unit) = self.units.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(ControlFlow::Break(())) };
            if skip_exact && unit.exact() && self.filter.stages.is_empty() {
                return step(state, unit.rows(), None);
            }
            self.read_unit(unit, columns, cancel, &mut |batch| step(state, 0, Some(batch)))
        };
        if threads <= 1 {
            let mut state = begin();
            while one_unit(&mut state)?.is_continue() {}
            return Ok(vec![state]);
        }
        let turns = Turns { one_unit: &one_unit, stop: AtomicBool::new(false), done: Mutex::new(Vec::new()) };
        let hands = threads.min(self.units.len().max(1)).min(1 + self.rows() / (UNIT_ROWS / 2));
        self.snapshot.workers.in_place_scope_fifo(|scope| {
            for _ in 0..hands {
                turns.take(scope, begin());
            }
        });
        turns.done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }

    fn read_unit(
        &self,
        unit: &Unit,
        columns: &[usize],
        cancel: &Cancel,
        visit: &mut dyn FnMut(&RecordBatch) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        cancel.check()?;
        match unit {
            Unit::Memory { view, batch, .. } => {
                let view = &self.snapshot.memory[*view];
                match self.filter_memory(view, &view.rows.batches[*batch], columns)? {
                    Some(rows) => visit(&rows),
                    None => Ok(ControlFlow::Continue(())),
                }
            }
            Unit::Segment(unit) => {
                let filter = self.row_filter(&unit.reader, unit.exact);
                for batch in unit.reader.read(unit.group, &unit.ranges, columns, filter)? {
                    cancel.check()?;
                    let batch = batch?;
                    if batch.num_rows() > 0 && visit(&batch)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// The conditions the index could not settle.
    fn base_stages(&self) -> Vec<Stage> {
        let table = self.snapshot.table;
        let (start, end) = (self.filter.start, self.filter.end);
        let mut stages = vec![Stage::on(table.time_column(), move |array| {
            let times = array.as_primitive::<TimestampNanosecondType>().values();
            Ok(BooleanArray::new(BooleanBuffer::collect_bool(times.len(), |row| times[row] >= start && times[row] < end), None))
        })];
        let sets = [(Some(table.service_column()), &self.filter.services), (table.metric_column(), &self.filter.metrics)];
        for (column, set) in sets {
            if let (Some(column), Some(names)) = (column, set.names()) {
                let names = names.clone();
                stages.push(Stage::on_words(column, move |word| names.contains(word)));
            }
        }
        if let (Some(column), Some(ids)) = (table.trace_column(), &self.filter.traces) {
            let ids: BTreeSet<[u8; 16]> = ids.iter().copied().collect();
            stages.push(Stage::on(column, move |array| {
                let traces = array.as_fixed_size_binary();
                let fits =
                    |row| traces.is_valid(row) && <[u8; 16]>::try_from(traces.value(row)).is_ok_and(|id| ids.contains(&id));
                Ok(BooleanArray::new(BooleanBuffer::collect_bool(traces.len(), fits), None))
            }));
        }
        stages
    }

    fn row_filter(&self, reader: &SegmentReader, exact: bool) -> Option<RowFilter> {
        let base = if exact { Vec::new() } else { self.base_stages() };
        let predicates: Vec<Box<dyn ArrowPredicate>> = base
            .into_iter()
            .chain(self.filter.stages.iter().cloned())
            .map(|stage| {
                let test = Arc::clone(&stage.test);
                Box::new(ArrowPredicateFn::new(reader.mask(&stage.columns), move |batch| test(&batch))) as Box<dyn ArrowPredicate>
            })
            .collect();
        (!predicates.is_empty()).then(|| RowFilter::new(predicates))
    }

    fn filter_memory(&self, view: &MemoryView, batch: &RecordBatch, columns: &[usize]) -> Result<Option<RecordBatch>> {
        let rows = self.fitting_memory(view, batch)?;
        rows.map(|rows| project_memory(self.snapshot.table, view, &rows, columns)).transpose()
    }

    /// Rows of the buffer that pass every condition, as they are there.
    fn fitting_memory(&self, view: &MemoryView, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let table = self.snapshot.table;
        let Some(mut rows) = self.base_memory(view, batch)? else { return Ok(None) };
        for stage in &self.filter.stages {
            let mask = (stage.test)(&project_memory(table, view, &rows, &stage.columns)?)?;
            rows = filter_record_batch(&rows, &mask)?;
            if rows.num_rows() == 0 {
                return Ok(None);
            }
        }
        Ok(Some(rows))
    }

    /// Rows of the buffer within window, services, metrics and traces. Words are compared by number.
    fn base_memory(&self, view: &MemoryView, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let table = self.snapshot.table;
        let times = batch.column(table.time_column()).as_primitive::<TimestampNanosecondType>().values();
        let (start, end) = (self.filter.start, self.filter.end);
        let mut mask =
            BooleanArray::new(BooleanBuffer::collect_bool(times.len(), |row| times[row] >= start && times[row] < end), None);
        let sets = [(Some(table.service_column()), &self.filter.services), (table.metric_column(), &self.filter.metrics)];
        for (column, set) in sets {
            if let (Some(column), false) = (column, set.is_all()) {
                let fits: Vec<bool> = view.words.iter().map(|word| word.is_some_and(|w| set.contains(w))).collect();
                let numbers = batch.column(column).as_primitive::<UInt32Type>().values();
                let fitting = BooleanBuffer::collect_bool(numbers.len(), |row| fits[numbers[row] as usize]);
                mask = and(&mask, &BooleanArray::new(fitting, None))?;
            }
        }
        if let (Some(column), Some(ids)) = (table.trace_column(), &self.filter.traces) {
            let traces = batch.column(column).as_fixed_size_binary();
            let fits = |row| traces.is_valid(row) && ids.iter().any(|id| id == traces.value(row));
            mask = and(&mask, &BooleanArray::new(BooleanBuffer::collect_bool(traces.len(), fits), None))?;
        }
        match mask.true_count() {
            0 => Ok(None),
            all if all == batch.num_rows() => Ok(Some(batch.clone())),
            _ => Ok(Some(filter_record_batch(batch, &mask)?)),
        }
    }
}

/// Work on one unit at a time, each unit queued behind the units of other questions.
struct Turns<'a, S, F> {
    one_unit: &'a F,
    stop: AtomicBool,
    done: Mutex<Vec<Result<S>>>,
}

impl<S: Send, F: Fn(&mut S) -> Result<ControlFlow<()>> + Sync> Turns<'_, S, F> {
    fn take<'scope>(&'scope self, scope: &rayon_core::ScopeFifo<'scope>, mut state: S)
    where
        S: 'scope,
    {
        scope.spawn_fifo(move |scope| {
            if self.stop.load(Ordering::Relaxed) {
                return self.end(Ok(state));
            }
            match (self.one_unit)(&mut state) {
                Ok(ControlFlow::Continue(())) => self.take(scope, state),
                Ok(ControlFlow::Break(())) => {
                    self.stop.store(true, Ordering::Relaxed);
                    self.end(Ok(state));
                }
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    self.end(Err(error));
                }
            }
        });
    }

    fn end(&self, result: Result<S>) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(result);
    }
}

impl Unit {
    fn rows(&self) -> usize {
        match self {
            Self::Segment(unit) => unit.rows,
            Self::Memory { rows, .. } => *rows,
        }
    }

    fn exact(&self) -> bool {
        matches!(self, Self::Segment(unit) if unit.exact)
    }
}

/// Columns of the buffer in the form every scan yields.
fn project_memory(table: Table, view: &MemoryView, rows: &RecordBatch, columns: &[usize]) -> Result<RecordBatch> {
    let schema = Arc::new(table.row_schema().project(columns)?);
    let arrays =
        columns.iter().map(|at| column_to_rows(table, *at, rows.column(*at), &view.words)).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

    use super::*;
    use crate::convert::OtlpRequest;
    use crate::memory::MemoryTable;
    use crate::settings::RecordLimits;

    #[test]
    fn a_plan_counts_the_rows_of_the_buffer_that_are_in_its_window() {
        let log_records = (1..=1000_u64).map(|at| LogRecord { time_unix_nano: at, ..LogRecord::default() }).collect();
        let scope = ScopeLogs { log_records, ..ScopeLogs::default() };
        let request =
            ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() }] };
        let mut buffer = MemoryTable::default();
        buffer.insert(OtlpRequest::Logs(request).convert(&RecordLimits::default(), 1_000_000).unwrap()).unwrap();
        let memory = vec![buffer.view(Table::Logs).unwrap().unwrap()];
        let workers = Arc::new(rayon_core::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let snapshot = Snapshot { table: Table::Logs, segments: Vec::new(), memory, readers: Arc::default(), workers };
        let (cancel, _guard) = Cancel::until(Instant::now() + Duration::from_mins(1));
        for (start, end, inside) in [(0, 5_000, 1000), (1, 501, 500), (400, 401, 1), (1000, 1001, 1), (1001, 5_000, 0)] {
            let plan = snapshot.clone().plan(Filter::window(start, end), &cancel).unwrap();
            assert_eq!(plan.rows(), inside, "{start}..{end}");
        }
    }
}
