//! How far a consumer has come, for who watches it from other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, Timestamp};
use crate::partition::core::PartitionCore;

/// What a partition shows as its position while nothing is read there: it is paused, gone, or not begun.
const NOT_READ: u64 = u64::MAX;

/// Where reading goes on in one partition.
pub(crate) struct Shown {
    core: Arc<PartitionCore>,
    position: AtomicU64,
}

impl Shown {
    pub(crate) fn new(core: &Arc<PartitionCore>) -> Self {
        Shown { core: Arc::clone(core), position: AtomicU64::new(NOT_READ) }
    }

    /// Sets the position; none where nothing is read.
    pub(crate) fn set(&self, position: Option<u64>) {
        self.position.store(position.unwrap_or(NOT_READ), Ordering::Relaxed);
    }
}

/// What one consumer shows.
pub(crate) struct Progress {
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether only what is durable may be read.
    durable_only: bool,
    /// When a poll last returned records, or found that there were none.
    fed: AtomicI64,
    parts: Mutex<Vec<Arc<Shown>>>,
}

impl Progress {
    pub(crate) fn new(durable_only: bool, clock: &Arc<dyn Clock>) -> Self {
        let fed = AtomicI64::new(clock.roughly_now().as_nanos());
        Progress { clock: Arc::clone(clock), durable_only, fed, parts: Mutex::default() }
    }

    /// Sets the partitions that are read.
    pub(crate) fn set(&self, parts: Vec<Arc<Shown>>) {
        let before = std::mem::replace(&mut *self.parts.lock(), parts);
        drop(before); // maybe the last that keeps a partition: not under the lock
    }

    /// A poll returned records, or found that there were none.
    pub(crate) fn feed(&self, now: Timestamp) {
        self.fed.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// How long before `now` that was; `None` while there is nothing to read.
    pub(crate) fn starved_for(&self, now: Timestamp) -> Option<Duration> {
        let has_more = |shown: &Arc<Shown>| {
            let end = shown.core.high_watermark();
            let limit = if self.durable_only { end.min(shown.core.durable_offset()) } else { end };
            limit > shown.position.load(Ordering::Relaxed)
        };
        let starves = self.parts.lock().iter().any(has_more);
        let fed = Timestamp::from_nanos(self.fed.load(Ordering::Relaxed));
        starves.then(|| now.saturating_since(fed))
    }
}
