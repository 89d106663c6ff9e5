//! What other threads may do with a consumer: wake it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::consumer::progress::Progress;
use crate::partition::watermarks::Signal;

/// Wakes a consumer from any thread, and looks how it fares; cheap to clone, and may outlive it.
///
/// ```
/// use std::time::Duration;
/// use tapelog::{ErrorKind, Log};
///
/// let mut consumer = Log::in_memory()?.consumer().build()?;
/// let handle = consumer.handle();
/// let waker = std::thread::spawn(move || handle.wakeup());
/// let error = consumer.poll(Duration::MAX).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Wakeup);
/// waker.join().unwrap();
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct ConsumerHandle {
    shared: Arc<Shared>,
    /// Where it shows how far it has come, if it does.
    progress: Option<Arc<Progress>>,
}

#[derive(Default)]
struct Shared {
    /// Rung by partitions, by the group, and by a wake-up.
    signal: Arc<Signal>,
    woken: AtomicBool,
}

impl ConsumerHandle {
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        ConsumerHandle { shared: Arc::default(), progress: Some(progress) }
    }

    /// Has the poll that waits now, or else the next one, fail with `Wakeup`, once.
    /// (Kafka: `KafkaConsumer.wakeup`.)
    pub fn wakeup(&self) {
        self.shared.woken.store(true, Ordering::Release);
        self.shared.signal.ring();
    }

    /// How long ago a poll returned records last, or found none, by the log's clock; `None` while there is nothing that the
    /// consumer could read: what is paused does not count.
    ///
    /// A poll that waits returns as soon as there is something, so that this stays small where polls come often. It grows
    /// while nobody polls, or while a partition cannot be read. Of a share consumer it is always `None`.
    #[must_use]
    pub fn starved_for(&self) -> Option<Duration> {
        let progress = self.progress.as_ref()?;
        progress.starved_for(progress.clock.roughly_now())
    }

    pub(crate) fn signal(&self) -> &Arc<Signal> {
        &self.shared.signal
    }

    /// Whether there was a wake-up that no poll has told yet; asking is telling.
    pub(crate) fn take_wakeup(&self) -> bool {
        // The load alone is what every poll pays.
        self.shared.woken.load(Ordering::Acquire) && self.shared.woken.swap(false, Ordering::AcqRel)
    }
}

impl std::fmt::Debug for ConsumerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConsumerHandle")
    }
}
