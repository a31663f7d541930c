//! Where a statement runs: on threads of its own. They have a stack for the deepest statement the limits allow, and a step of
//! the engine that does not yield holds up its own statement and nobody else.
//!
//! The caller is answered at the deadline whatever the engine does. The statement then ends at its next yield, and its place
//! among the statements stays taken until it has ended, so that abandoned ones cannot pile up.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{Result, StoreError};
use crate::store::Store;

/// Stack of each thread. A debug build fills 2 MiB with fifty levels of a statement, 43 KiB each; there may be 128 of those
/// (`depth.rs`), and 400 of the leaner ones of a plan (`growth.rs`). Only what is used is ever taken from the machine.
const STACK_BYTES: usize = 32 << 20;
/// Threads of one statement that read tables; one reads one scan.
const READERS: usize = 32;
/// How long an answer waits for the rest of its statement to end, so that who asks again at once finds the place free.
const LINGER: Duration = Duration::from_millis(500);

/// Runs `work` under its `turn`, and answers at `deadline` at the latest. Who drops this future ends the work as well.
pub(super) async fn run<T, W>(
    store: &Store,
    deadline: Instant,
    turn: impl Send + 'static,
    work: impl FnOnce() -> W + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    W: Future<Output = Result<T>> + 'static,
{
    let threads = store.settings().query_threads.max(1);
    let (reply, answer) = oneshot::channel();
    let (over, ended) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("store-sql".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            perform(threads, deadline, reply, work);
            // Only now is nothing of the statement left.
            drop(turn);
            drop(over);
        })
        .map_err(|e| StoreError::io("start a thread for", store.settings().directory.clone(), e))?;
    match tokio::time::timeout_at(deadline.into(), answer).await {
        Ok(Ok(outcome)) => {
            let _ended = tokio::time::timeout(LINGER, ended).await;
            outcome
        }
        Ok(Err(_)) => Err(StoreError::Invalid("the statement ended unexpectedly; write it in another way".into())),
        Err(_) => Err(StoreError::Deadline),
    }
}

/// Everything a statement does, up to the end of the last of its threads.
fn perform<T, W>(threads: usize, deadline: Instant, mut reply: oneshot::Sender<Result<T>>, work: impl FnOnce() -> W)
where
    W: Future<Output = Result<T>>,
{
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(READERS)
        .thread_name("store-sql-part")
        .thread_stack_size(STACK_BYTES)
        .enable_time()
        .build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the threads of a statement could not be started");
            drop(reply.send(Err(StoreError::Overloaded { retry_after_seconds: 1 })));
            return;
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            biased;
            () = reply.closed() => None,
            outcome = tokio::time::timeout_at(deadline.into(), work()) => Some(outcome.unwrap_or(Err(StoreError::Deadline))),
        }
    });
    if let Some(outcome) = outcome {
        drop(reply.send(outcome));
    }
    // Waits for the threads: tasks end at their next yield, scans when nobody takes their rows.
    drop(runtime);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{OwnedSemaphorePermit, Semaphore};

    use super::*;
    use crate::settings::StoreSettings;

    fn open(directory: &std::path::Path) -> Store {
        Store::open(StoreSettings::new(directory), Arc::new(portcullis_model::SystemClock)).unwrap()
    }

    async fn turn_of(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        Arc::clone(places).acquire_owned().await.unwrap()
    }

    #[tokio::test]
    async fn work_that_never_yields_is_left_at_the_deadline_and_keeps_its_place_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let (places, others) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let stuck = move || async move {
            let _ended = blocked.recv();
            Ok(())
        };
        let began = Instant::now();
        let outcome = run(&store, began + Duration::from_millis(200), turn_of(&places).await, stuck).await;
        assert!(matches!(outcome, Err(StoreError::Deadline)));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(places.available_permits(), 0, "it still runs, so its place is taken");
        let soon = Instant::now() + Duration::from_secs(20);
        let other = run(&store, soon, turn_of(&others).await, || async { Ok(7) }).await;
        assert_eq!(other.unwrap(), 7, "another one is answered meanwhile");
        release.send(()).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(20), turn_of(&places)).await.is_ok(), "its place is free again");
    }

    #[tokio::test]
    async fn who_goes_away_ends_the_work() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let places = Arc::new(Semaphore::new(1));
        let late = Instant::now() + Duration::from_hours(1);
        let endless = run(&store, late, turn_of(&places).await, || async {
            std::future::pending::<()>().await;
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(100), endless).await.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(20), turn_of(&places)).await.is_ok(), "its place is free again");
    }

    /// Takes at least 8 KiB of stack for each level.
    fn deep(levels: usize) -> usize {
        let frame = std::hint::black_box([1_u8; 8 << 10]);
        if levels == 0 { 0 } else { usize::from(frame[levels]) + deep(levels - 1) }
    }

    #[tokio::test]
    async fn every_thread_of_a_statement_has_a_deep_stack() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let turn = turn_of(&Arc::new(Semaphore::new(1))).await;
        let work = || async {
            let (task, reader) = (tokio::spawn(async { deep(500) }), tokio::task::spawn_blocking(|| deep(500)));
            Ok(deep(500) + task.await.unwrap() + reader.await.unwrap())
        };
        let levels = run(&store, Instant::now() + Duration::from_secs(20), turn, work).await;
        assert_eq!(levels.unwrap(), 1_500);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_gives_its_place_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let places = Arc::new(Semaphore::new(1));
        let soon = Instant::now() + Duration::from_secs(20);
        let outcome = run(&store, soon, turn_of(&places).await, || async {
            assert!(std::hint::black_box(false), "a defect of the engine");
            Ok(())
        });
        assert!(matches!(outcome.await, Err(StoreError::Invalid(_))));
        assert!(tokio::time::timeout(Duration::from_secs(20), turn_of(&places)).await.is_ok(), "its place is free again");
    }
}
