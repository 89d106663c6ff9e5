//! Sending: a record finds its partition and gets its offset, and a promise.

pub(crate) mod partitioner;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use crate::partition::delivery::Delivered;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::log::catalog::is_internal;
use crate::log::core::{LogCore, TopicCore};
use crate::log::topic::Topic;
use crate::partition::core::{PartitionCore, Wait};
use crate::partition::delivery::{Acks, Delivery, Durability};
use crate::partition::write_behind::refuse_in_callback;
use crate::producer::partitioner::{DefaultPartitioner, PartitionFacts, Partitioner};
use crate::record::Record;

impl Log {
    /// Settings for a producer about to be built.
    #[must_use]
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder {
            log: Arc::clone(&self.core),
            partitioner: None,
            acks: Acks::All,
            durability: None,
            max_block: None,
        }
    }
}

/// Settings of a [`Producer`] about to be built.
///
/// ```
/// use tapelog::{Durability, Log, partitioner::RoundRobin};
///
/// let log = Log::in_memory()?;
/// let producer = log.producer().durability(Durability::Disk).partitioner(RoundRobin::new()).build()?;
/// # Ok::<(), tapelog::Error>(())
/// ```
pub struct ProducerBuilder {
    log: Arc<LogCore>,
    partitioner: Option<Arc<dyn Partitioner>>,
    acks: Acks,
    durability: Option<Durability>,
    max_block: Option<Duration>,
}

impl ProducerBuilder {
    /// How many copies a delivery stands for: [`Acks::All`] by default.
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// What each copy survives once a delivery resolves: [`Durability::Process`] by default.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Who chooses partitions: Kafka's rule by default
    /// ([`DefaultPartitioner`]).
    #[must_use]
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        self.partitioner = Some(Arc::new(partitioner));
        self
    }

    /// How long a send waits for room in the memory budget: as the log says, by default. (Kafka:
    /// `max.block.ms`.)
    #[must_use]
    pub fn max_block(mut self, wait: Duration) -> Self {
        self.max_block = Some(wait);
        self
    }

    /// The producer.
    ///
    /// # Errors
    /// `InvalidConfig` where settings contradict one another; `Closed`.
    pub fn build(self) -> Result<Producer> {
        self.log.check_open()?;
        check_promise(self.acks, self.durability)?;
        let max_block = self.max_block.unwrap_or(self.log.engine.max_block);
        Ok(Producer {
            log: Log { core: self.log },
            partitioner: self.partitioner.unwrap_or_else(|| Arc::new(DefaultPartitioner::new())),
            options: SendOptions { acks: self.acks, durability: self.durability, wait: Wait::For(max_block) },
            open: Mutex::default(),
        })
    }
}

impl std::fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerBuilder")
            .field("acks", &self.acks)
            .field("durability", &self.durability)
            .field("max_block", &self.max_block)
            .finish_non_exhaustive()
    }
}

/// Whether copies and durability can be asked for together.
fn check_promise(acks: Acks, durability: Option<Durability>) -> Result<()> {
    let wrong = |message: &str| Err(Error::new(ErrorKind::InvalidConfig, message));
    match (acks, durability) {
        (_, Some(Durability::Memory)) => {
            wrong("durability Memory is what an in-memory log reports, not a choice")
        }
        (Acks::None, Some(_)) => wrong("acks None promises nothing, so it goes with no durability"),
        _ => Ok(()),
    }
}

/// What one send asks for, where it differs from its producer.
#[derive(Debug, Clone, Copy)]
pub struct SendOptions {
    acks: Acks,
    durability: Option<Durability>,
    wait: Wait,
}

impl Default for SendOptions {
    fn default() -> Self {
        SendOptions { acks: Acks::All, durability: None, wait: Wait::For(Duration::from_secs(60)) }
    }
}

impl SendOptions {
    /// As a producer with default settings sends.
    #[must_use]
    pub fn new() -> Self {
        SendOptions::default()
    }

    /// How many copies the delivery stands for.
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// What each copy survives once the delivery resolves.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// How long the send may wait for room; zero: not at all.
    #[must_use]
    pub fn max_block(mut self, wait: Duration) -> Self {
        self.wait = if wait.is_zero() { Wait::No } else { Wait::For(wait) };
        self
    }
}

mod sealed {
    /// Keeps [`ToTopic`](super::ToTopic) to the types of this crate.
    pub trait Sealed {}
    impl Sealed for &crate::log::topic::Topic {}
    impl Sealed for &str {}
    impl Sealed for &String {}
}

/// What a record can be sent to: a [`Topic`], or its name. A topic at hand saves the look-up.
pub trait ToTopic: sealed::Sealed {
    #[doc(hidden)]
    fn resolve(&self, log: &Log) -> Result<Cow<'_, Topic>>;
}

impl ToTopic for &Topic {
    fn resolve(&self, log: &Log) -> Result<Cow<'_, Topic>> {
        if Arc::ptr_eq(&self.log, &log.core) {
            return Ok(Cow::Borrowed(self));
        }
        let message = "the topic belongs to another log than the producer";
        Err(Error::new(ErrorKind::InvalidArgument, message).with_topic(self.name()))
    }
}

impl ToTopic for &str {
    fn resolve(&self, log: &Log) -> Result<Cow<'_, Topic>> {
        log.topic(self).map(Cow::Owned)
    }
}

impl ToTopic for &String {
    fn resolve(&self, log: &Log) -> Result<Cow<'_, Topic>> {
        log.topic(self).map(Cow::Owned)
    }
}

/// Sends records to topics. It can be shared by threads; records of one thread to one partition keep their
/// order.
///
/// There is no linger: a record is in the log, and visible, when `send` returns. What the returned
/// [`Delivery`] stands for beyond that is set by [`Acks`] and [`Durability`], for the producer or per send.
///
/// ```
/// use tapelog::{Log, Record, TopicConfig};
///
/// let log = Log::in_memory()?;
/// let ticks = log.create_topic("ticks", TopicConfig::new().partitions(4))?;
/// let producer = log.producer().build()?;
/// let delivery = producer.send(&ticks, Record::new("150.23").key("AAPL"))?;
/// println!("partition {} offset {}", delivery.partition(), delivery.offset());
/// delivery.wait()?;
/// # Ok::<(), tapelog::Error>(())
/// ```
pub struct Producer {
    log: Log,
    partitioner: Arc<dyn Partitioner>,
    options: SendOptions,
    /// Partitions with promises for the disk that may be open: up to which offset.
    open: Mutex<OpenPromises>,
}

/// By topic id and partition: where, and up to which offset.
type OpenPromises = BTreeMap<(u64, u32), (Arc<PartitionCore>, u64)>;

impl Producer {
    /// Sends a record: to the partition that it names, else to the one that the partitioner says.
    ///
    /// Waits for room in the memory budget up to `max_block`, and for nothing else.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `InvalidTopic` for an internal topic; `RecordTooLarge` before anything is
    /// copied; `BufferExhausted` where no room came in time; `UserCode` where the partitioner answered out of
    /// range; `NoSpace`, `NoMemory`, `Storage`, `Closed` as the log stands. After an error nothing was appended.
    pub fn send(&self, topic: impl ToTopic, record: Record<'_>) -> Result<Delivery> {
        self.send_as(&topic, &record, self.options)
    }

    /// Sends a record if there is room at once.
    ///
    /// # Errors
    /// `BufferExhausted` where there is none; else as [`Producer::send`].
    pub fn try_send(&self, topic: impl ToTopic, record: Record<'_>) -> Result<Delivery> {
        self.send_as(&topic, &record, SendOptions { wait: Wait::No, ..self.options })
    }

    /// Sends a record, waiting for room no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub fn send_timeout(
        &self,
        topic: impl ToTopic,
        record: Record<'_>,
        timeout: Duration,
    ) -> Result<Delivery> {
        self.send_as(&topic, &record, SendOptions { wait: Wait::For(timeout), ..self.options })
    }

    /// Sends a record with options of its own, in place of the producer's.
    ///
    /// # Errors
    /// As [`Producer::send`]; `InvalidConfig` where the options contradict one another.
    pub fn send_with(
        &self,
        topic: impl ToTopic,
        record: Record<'_>,
        options: SendOptions,
    ) -> Result<Delivery> {
        check_promise(options.acks, options.durability)?;
        self.send_as(&topic, &record, options)
    }

    fn send_as(&self, topic: &impl ToTopic, record: &Record<'_>, options: SendOptions) -> Result<Delivery> {
        let topic = topic.resolve(&self.log)?;
        if is_internal(topic.name()) {
            let message = "internal topics are not for sending";
            return Err(Error::new(ErrorKind::InvalidTopic, message).with_topic(topic.name()));
        }
        let number = match record.partition {
            Some(number) => number,
            None => self.choose(&topic.core, record)?,
        };
        let (acks, durability) = (options.acks, options.durability.unwrap_or_default());
        topic.core.with_partition(number, |core| {
            let appended = core.append(std::slice::from_ref(record), options.wait, None)?;
            let delivery = Delivery::new(core, appended, acks, durability);
            if !delivery.is_done() {
                self.remember(core, appended.next_offset);
            }
            Ok(delivery)
        })?
    }

    fn choose(&self, topic: &TopicCore, record: &Record<'_>) -> Result<u32> {
        let partitions = topic.partition_count();
        let facts = PartitionFacts {
            topic: &topic.name,
            topic_id: topic.id,
            partitions,
            key: record.key,
            value: record.value,
            queue_depths: &|number| topic.with_partition(number, |core| core.unwritten_bytes()).unwrap_or(0),
        };
        let number = self.partitioner.partition(&facts);
        if number < partitions {
            return Ok(number);
        }
        let message = format!("the partitioner chose partition {number} of {partitions}");
        Err(Error::new(ErrorKind::UserCode, message).with_topic(Arc::clone(&topic.name)))
    }

    /// Notes that the disk was promised for everything in `core` below `target`.
    fn remember(&self, core: &Arc<PartitionCore>, target: u64) {
        let identity = core.identity();
        let mut open = self.open.lock();
        let entry = open
            .entry((identity.topic_id, identity.tp.partition()))
            .or_insert_with(|| (Arc::clone(core), target));
        entry.1 = entry.1.max(target);
    }

    /// Waits until every promise made so far is kept.
    ///
    /// # Errors
    /// The first promise that cannot be kept, whether or not somebody waits for its delivery; `IllegalState`
    /// inside a callback.
    pub fn flush(&self) -> Result<()> {
        self.flush_until(Deadline::after(Duration::MAX))
    }

    fn flush_until(&self, deadline: Deadline) -> Result<()> {
        let open = {
            let mut open = self.open.lock();
            if open.is_empty() {
                return Ok(());
            }
            // Refused before anything is taken: a later flush must find it.
            refuse_in_callback("flush")?;
            std::mem::take(&mut *open)
        };
        let mut first = Ok(());
        for (core, target) in open.into_values() {
            let kept = core.wait_durable(target, deadline);
            if kept.as_ref().is_err_and(|e| e.is_retriable()) {
                self.remember(&core, target);
            }
            first = first.and(kept);
        }
        first
    }

    /// Keeps every promise made so far, and ends.
    ///
    /// # Errors
    /// `TimedOut`; else as [`Producer::flush`].
    pub fn close(self, timeout: Duration) -> Result<()> {
        self.flush_until(Deadline::after(timeout))
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("options", &self.options).finish_non_exhaustive()
    }
}
