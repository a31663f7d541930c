//! When keys were last used. Noted in memory on each call, written in the background: at once for the first use, then at
//! most once a minute per key. Must never delay a call or make one fail.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use portcullis_model::Timestamp;
use portcullis_state::{Namespace, Store, StoreError};

/// Apart from the keys, so that a use does not look like a change of the keys.
const NAMESPACE: Namespace = "identity.key_usage";
/// How often the use of one key is written.
const WRITE_EVERY: Duration = Duration::from_mins(1);
const NEVER: i64 = i64::MIN;

/// The last use of one key as this process knows it.
#[derive(Debug)]
pub(crate) struct Usage {
    used_at: AtomicI64,
    written_at: AtomicI64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { used_at: AtomicI64::new(NEVER), written_at: AtomicI64::new(NEVER) }
    }
}

impl Usage {
    pub(crate) fn note(&self, now: Timestamp) {
        self.used_at.fetch_max(now.as_nanos(), Ordering::Relaxed);
    }

    /// The use that is to be written, if it is time.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let (used, written) = (self.used_at.load(Ordering::Relaxed), self.written_at.load(Ordering::Relaxed));
        let waited = used.saturating_sub(written) >= WRITE_EVERY.as_nanos() as i64;
        (used != NEVER && (written == NEVER || waited)).then(|| Timestamp::from_nanos(used))
    }

    /// Writes a use, unless another process wrote a later one.
    pub(crate) async fn write(&self, store: &dyn Store, id: &str, at: Timestamp) -> Result<(), StoreError> {
        if last_used(store, id).await?.is_none_or(|earlier| earlier < at) {
            store.put(NAMESPACE, id, at.as_nanos().to_string().as_bytes(), None).await?;
        }
        self.written_at.store(at.as_nanos(), Ordering::Relaxed);
        Ok(())
    }
}

/// When a key was last used, to the minute. `None` when it never was, or before this was noted.
pub(crate) async fn last_used(store: &dyn Store, id: &str) -> Result<Option<Timestamp>, StoreError> {
    let entry = store.get(NAMESPACE, id).await?;
    let nanos = entry.and_then(|e| std::str::from_utf8(&e.value).ok().and_then(|text| text.parse().ok()));
    Ok(nanos.map(Timestamp::from_nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::ManualClock;
    use portcullis_state::MemoryStore;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_first_use_is_written_at_once_and_then_once_a_minute() {
        let store = MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_seconds(0))));
        let usage = Usage::default();
        assert_eq!(usage.due(), None, "never used");
        let at = Timestamp::from_seconds;
        usage.note(at(100));
        usage.write(&store, "k", usage.due().unwrap()).await.unwrap();
        assert_eq!(last_used(&store, "k").await.unwrap(), Some(at(100)));
        usage.note(at(159));
        assert_eq!(usage.due(), None);
        usage.note(at(160));
        usage.note(at(120));
        assert_eq!(usage.due(), Some(at(160)), "the latest");

        let other_process = Usage::default();
        other_process.note(at(50));
        other_process.write(&store, "k", at(50)).await.unwrap();
        assert_eq!(last_used(&store, "k").await.unwrap(), Some(at(100)), "a later use stays");
        assert_eq!(last_used(&store, "other").await.unwrap(), None);
    }
}
