//! What an append returns: where the record is, at once, and a promise that can be waited for.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Deadline, Timestamp};
use crate::error::Result;
use crate::partition::core::{Appended, PartitionCore};
use crate::partition::watermarks::OnReached;
use crate::partition::write_behind::refuse_in_callback;

/// How many copies a delivery stands for. (Kafka: `acks`.) A log in one directory has one: there `Leader` and `All`
/// are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Acks {
    /// The record is in the log; nothing more is promised.
    None,
    /// The leader's copy keeps the asked-for durability.
    Leader,
    /// Every in-sync replica's copy does.
    #[default]
    All,
}

/// What each copy survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: what an in-memory log reports. It cannot be asked for.
    Memory,
    /// The death of the process at any instruction, from the moment the send returns.
    #[default]
    Process,
    /// The loss of power, once the delivery resolves.
    Disk,
}

/// A promise kept: where the records are, and what they survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// The partition within its topic.
    pub partition: u32,
    /// The offset of the record, or of the first one of a batch.
    pub offset: u64,
    /// The timestamp of the record, or of the last one of a batch.
    pub timestamp: Timestamp,
    /// How many copies the promise stood for.
    pub acks: Acks,
    /// What the copies survive: at least what was asked for, or `Memory`.
    pub durability: Durability,
}

/// What a send returns once the record is in the log, in order and visible: its place, and a promise.
///
/// With one directory the default promise, to survive the death of the process, is kept already; a stronger
/// one resolves later. Dropping a delivery waits for nothing.
///
/// ```
/// use tapelog::{Log, Record, TopicConfig};
///
/// let log = Log::in_memory()?;
/// let topic = log.create_topic("ticks", TopicConfig::new())?;
/// let delivery = topic.partition(0)?.append(Record::new("a"))?;
/// assert_eq!((delivery.partition(), delivery.offset()), (0, 0));
/// let delivered = delivery.wait()?;
/// assert_eq!(delivered.durability, tapelog::Durability::Memory);
/// # Ok::<(), tapelog::Error>(())
/// ```
pub struct Delivery {
    partition: u32,
    appended: Appended,
    acks: Acks,
    durability: Durability,
    /// Held only while the promise is open.
    open: Option<Arc<PartitionCore>>,
}

impl Delivery {
    /// The delivery of what `core` just appended.
    #[inline(always)]
    pub(crate) fn new(
        core: &Arc<PartitionCore>,
        appended: Appended,
        acks: Acks,
        durability: Durability,
    ) -> Self {
        let durable = core.engine().is_durable();
        let waits = durable && durability == Durability::Disk && acks != Acks::None;
        Delivery {
            partition: core.identity().tp.partition(),
            appended,
            acks,
            durability: match (durable, acks) {
                (false, _) => Durability::Memory,
                (true, Acks::None) => Durability::Process,
                (true, _) => durability,
            },
            open: waits.then(|| Arc::clone(core)),
        }
    }

    /// The partition that the record went to.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The record's offset; of a batch, the first one's.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.appended.base_offset
    }

    /// The offsets of all records of the append.
    #[must_use]
    pub fn offsets(&self) -> std::ops::Range<u64> {
        self.appended.base_offset..self.appended.next_offset
    }

    /// The record's timestamp; of a batch, the last one's.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.appended.timestamp
    }

    /// Whether the promise is kept.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.open.as_ref().is_none_or(|core| core.durable_offset() >= self.appended.next_offset)
    }

    fn delivered(&self) -> Delivered {
        Delivered {
            partition: self.partition,
            offset: self.appended.base_offset,
            timestamp: self.appended.timestamp,
            acks: self.acks,
            durability: self.durability,
        }
    }

    /// Waits until the promise is kept; for the disk, by flushing here where nobody else does.
    ///
    /// # Errors
    /// What keeps the promise from being kept; `IllegalState` inside a callback.
    pub fn wait(self) -> Result<Delivered> {
        if let Some(core) = &self.open {
            if !self.is_done() {
                refuse_in_callback("Delivery::wait")?;
            }
            core.wait_durable(self.appended.next_offset, Deadline::after(Duration::MAX))?;
        }
        Ok(self.delivered())
    }

    /// Waits as [`Delivery::wait`] does, but no longer than `timeout`.
    ///
    /// # Errors
    /// `TimedOut`, after which it can be waited for again; else as [`Delivery::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Delivered> {
        if let Some(core) = &self.open {
            if !self.is_done() {
                refuse_in_callback("Delivery::wait_timeout")?;
            }
            core.wait_durable(self.appended.next_offset, Deadline::after(timeout))?;
        }
        Ok(self.delivered())
    }

    /// Has `callback` called once the promise is kept, or cannot be: at once and here, where it is only that the
    /// process may die; for the disk, on the log's callback thread.
    ///
    /// Callbacks of one partition come in the order of their offsets. No lock is held: a callback may send, but
    /// on the callback thread it may not wait. A panic in it is contained there.
    pub fn on_complete(self, callback: impl FnOnce(Result<Delivered>) + Send + 'static) {
        self.follow(callback);
    }

    /// [`Delivery::on_complete`], and the delivery stays.
    pub(crate) fn follow(&self, callback: impl FnOnce(Result<Delivered>) + Send + 'static) {
        let delivered = self.delivered();
        let then: OnReached = Box::new(move |result| callback(result.map(|()| delivered)));
        match &self.open {
            Some(core) => core.when_durable(self.appended.next_offset, then),
            None => then(Ok(())),
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("partition", &self.partition)
            .field("offsets", &self.offsets())
            .field("done", &self.is_done())
            .finish_non_exhaustive()
    }
}
