//! Room in memory: how many bytes of requests and rows may be held, and waiting for some to be freed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::RETRY_AFTER_SECONDS;
use crate::error::{Result, StoreError};

/// The account.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    account: Arc<Account>,
}

#[derive(Debug, Default)]
struct Account {
    requests: AtomicUsize,
    buffers: AtomicUsize,
    freed: Notify,
}

/// Bytes reserved for a request; given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    account: Arc<Account>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.account.requests.fetch_sub(self.bytes, Ordering::AcqRel);
        self.account.freed.notify_waiters();
    }
}

impl Room {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), account: Arc::default() }
    }

    /// Reserves bytes, waiting at most `patience` for room.
    pub(super) async fn reserve(&self, bytes: usize, patience: Duration) -> Result<Reserved> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let freed = self.account.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(reserved) = self.try_reserve(bytes) {
                return Ok(reserved);
            }
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return Err(StoreError::Overloaded { retry_after_seconds: RETRY_AFTER_SECONDS });
            }
        }
    }

    fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let requests = &self.account.requests;
        let mut held = requests.load(Ordering::Acquire);
        loop {
            let buffers = self.account.buffers.load(Ordering::Acquire);
            // A request larger than all room is let in alone; the body limit bounds it.
            if held + buffers + bytes > self.limit && held + buffers > 0 {
                return None;
            }
            match requests.compare_exchange_weak(held, held + bytes, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Reserved { account: Arc::clone(&self.account), bytes }),
                Err(now) => held = now,
            }
        }
    }

    /// Says how many bytes the write buffers hold.
    pub(super) fn set_buffers(&self, bytes: usize) {
        let before = self.account.buffers.swap(bytes, Ordering::AcqRel);
        if bytes < before {
            self.account.freed.notify_waiters();
        }
    }

    /// Bytes of the write buffers.
    pub(super) fn buffers(&self) -> usize {
        self.account.buffers.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_room_refuses_and_a_freed_one_lets_in() {
        let room = Room::new(100);
        let first = room.reserve(80, Duration::ZERO).await.unwrap();
        let refused = room.reserve(30, Duration::from_millis(10)).await;
        assert!(matches!(refused, Err(StoreError::Overloaded { .. })));
        let (second, ()) = tokio::join!(room.reserve(30, Duration::from_secs(5)), async { drop(first) });
        assert!(second.is_ok());
        room.set_buffers(90);
        assert!(room.reserve(30, Duration::ZERO).await.is_err());
    }
}
