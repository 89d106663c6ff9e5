//! Sending: a record finds its partition and gets its offset, and a promise.

mod interceptor;
mod options;
pub(crate) mod partitioner;
mod promises;
mod quota;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use interceptor::{Acknowledgement, Interceptor, Outgoing};
pub use options::SendOptions;

pub use crate::partition::delivery::Delivered;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::frame_len;
use crate::log::Log;
use crate::log::catalog::is_internal;
use crate::log::core::{LogCore, TopicCore};
use crate::log::topic::Topic;
use crate::partition::core::Wait;
use crate::partition::delivery::{Acks, Delivery, Durability};
use crate::producer::interceptor::Interceptors;
use crate::producer::options::Promise;
use crate::producer::partitioner::{DefaultPartitioner, PartitionFacts, Partitioner};
use crate::producer::promises::Promises;
use crate::producer::quota::Quota;
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
            interceptors: Vec::new(),
            quota: None,
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
    interceptors: Vec<Arc<dyn Interceptor>>,
    quota: Option<u64>,
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

    /// Who sees every record before it is sent, may change or refuse it, and hears what became of it. Several are
    /// asked in the order in which they were given here.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// How many bytes of records, as frames, the producer sends in a second by the log's clock; as many as it likes
    /// by default.
    ///
    /// What was not sent in one second can be made up for in the next, and no later: a burst is one second's worth. A
    /// send beyond that waits up to `max_block`, and then gives `ThrottlingQuotaExceeded`; nothing is appended then. A
    /// record of more than a second's worth waits for a whole one, and is paid for by those after it. (Kafka:
    /// `producer_byte_rate`.)
    #[must_use]
    pub fn quota(mut self, bytes_per_sec: u64) -> Self {
        self.quota = Some(bytes_per_sec);
        self
    }

    /// The producer.
    ///
    /// # Errors
    /// `InvalidConfig` where settings contradict one another; `Closed`.
    pub fn build(self) -> Result<Producer> {
        self.log.check_open()?;
        let wait = Wait::For(self.max_block.unwrap_or(self.log.engine.max_block));
        let promise = Promise { acks: self.acks, durability: self.durability, wait };
        promise.check()?;
        let quota =
            self.quota.map(|rate| Quota::new(Arc::clone(&self.log.engine.clock), rate)).transpose()?;
        Ok(Producer {
            log: Log { core: self.log },
            partitioner: self.partitioner.unwrap_or_else(|| Arc::new(DefaultPartitioner::new())),
            interceptors: Interceptors::new(self.interceptors),
            quota,
            promise,
            open: Promises::default(),
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
    interceptors: Interceptors,
    quota: Option<Quota>,
    /// What a send asks for that says nothing else.
    promise: Promise,
    /// Promises for the disk that may be open.
    open: Promises,
}

/// What a send asks for, beside the record.
#[derive(Clone, Copy)]
struct Asked {
    promise: Promise,
    expected_end: Option<u64>,
}

impl Producer {
    /// Sends a record: to the partition that it names, else to the one that the partitioner says.
    ///
    /// Waits for room in the memory budget up to `max_block`, and for nothing else.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `InvalidTopic` for an internal topic; `RecordTooLarge` before anything is
    /// copied; `BufferExhausted` where no room came in time, `ThrottlingQuotaExceeded` where no quota did; `InvalidRecord`
    /// where an interceptor refused; `UserCode` where one panicked, or the partitioner did or answered out of range; `NoSpace`, `NoMemory`, `Storage`, `Closed` as the log stands. After an error nothing was appended.
    pub fn send(&self, topic: impl ToTopic, record: Record<'_>) -> Result<Delivery> {
        self.send_as(&topic, &record, Asked { promise: self.promise, expected_end: None })
    }

    /// Sends a record if there is room, and quota, at once.
    ///
    /// # Errors
    /// `BufferExhausted` or `ThrottlingQuotaExceeded` where there is none; else as [`Producer::send`].
    pub fn try_send(&self, topic: impl ToTopic, record: Record<'_>) -> Result<Delivery> {
        let promise = Promise { wait: Wait::No, ..self.promise };
        self.send_as(&topic, &record, Asked { promise, expected_end: None })
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
        let promise = Promise { wait: Wait::For(timeout), ..self.promise };
        self.send_as(&topic, &record, Asked { promise, expected_end: None })
    }

    /// Sends a record with options of its own, where they differ from the producer's.
    ///
    /// # Errors
    /// As [`Producer::send`]; `InvalidConfig` where the options contradict one another, or the producer's.
    pub fn send_with(
        &self,
        topic: impl ToTopic,
        record: Record<'_>,
        options: SendOptions,
    ) -> Result<Delivery> {
        let promise = options.over(self.promise);
        promise.check()?;
        self.send_as(&topic, &record, Asked { promise, expected_end: None })
    }

    /// Sends a record only if `expected_end` is the end offset of the partition that it goes to: nobody else appended
    /// since the caller looked. Mostly the record names its partition, for that is where the caller looked.
    ///
    /// ```
    /// use tapelog::{ErrorKind, Log, Record, TopicConfig};
    ///
    /// let log = Log::in_memory()?;
    /// let orders = log.create_topic("orders", TopicConfig::new())?;
    /// let producer = log.producer().build()?;
    /// let seen = orders.partition(0)?.end_offset();
    /// producer.send_if(&orders, seen, Record::new("first").partition(0))?;
    /// let error = producer.send_if(&orders, seen, Record::new("late").partition(0)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::UnexpectedEndOffset);
    /// # Ok::<(), tapelog::Error>(())
    /// ```
    ///
    /// # Errors
    /// `UnexpectedEndOffset` where somebody did, with nothing appended; else as [`Producer::send`].
    pub fn send_if(&self, topic: impl ToTopic, expected_end: u64, record: Record<'_>) -> Result<Delivery> {
        self.send_as(&topic, &record, Asked { promise: self.promise, expected_end: Some(expected_end) })
    }

    fn send_as(&self, topic: &impl ToTopic, record: &Record<'_>, asked: Asked) -> Result<Delivery> {
        let topic = topic.resolve(&self.log)?;
        if is_internal(topic.name()) {
            let message = "internal topics are not for sending";
            return Err(Error::new(ErrorKind::InvalidTopic, message).with_topic(topic.name()));
        }
        if self.interceptors.is_empty() {
            let number = self.place(&topic.core, record)?;
            return self.append(&topic.core, number, record, asked);
        }
        self.send_intercepted(&topic.core, record, asked)
    }

    #[cold]
    fn send_intercepted(&self, topic: &TopicCore, record: &Record<'_>, asked: Asked) -> Result<Delivery> {
        let mut outgoing = Outgoing::new(&topic.name, record);
        let mut number = None;
        let sent = self.interceptors.on_send(&mut outgoing).and_then(|()| {
            let headers = outgoing.header_pairs();
            let record = outgoing.record(&headers);
            let number = *number.insert(self.place(topic, &record)?);
            self.append(topic, number, &record, asked)
        });
        let number = number.or(outgoing.partition());
        self.interceptors.follow(&topic.name, number, &sent);
        sent
    }

    /// The partition that the record goes to.
    fn place(&self, topic: &TopicCore, record: &Record<'_>) -> Result<u32> {
        match record.partition {
            Some(number) => Ok(number),
            None => self.choose(topic, record),
        }
    }

    fn append(&self, topic: &TopicCore, number: u32, record: &Record<'_>, asked: Asked) -> Result<Delivery> {
        let Promise { acks, durability, wait } = asked.promise;
        let append = || {
            topic.with_partition(number, |core| {
                let appended = match asked.expected_end {
                    None => core.append_one(*record, wait)?,
                    end => core.append(std::slice::from_ref(record), wait, end)?,
                };
                let delivery = Delivery::new(core, appended, acks, durability.unwrap_or_default());
                if !delivery.is_done() {
                    self.open.add(core, appended.next_offset, frame_bytes(record));
                }
                Ok(delivery)
            })?
        };
        match &self.quota {
            None => append(),
            Some(quota) => {
                let bytes = frame_bytes(record);
                let here = |e: Error| e.with_partition(Arc::clone(&topic.name), number);
                let core = &self.log.core;
                let go_on = |signal: &_| {
                    core.wait_for_change(core.version(), signal);
                    core.check_open()
                };
                quota.acquire(bytes, wait, go_on).map_err(here)?;
                append().inspect_err(|_| quota.give_back(bytes))
            }
        }
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
        let message = match catch_unwind(AssertUnwindSafe(|| self.partitioner.partition(&facts))) {
            Ok(number) if number < partitions => return Ok(number),
            Ok(number) => format!("the partitioner chose partition {number} of {partitions}"),
            Err(_) => "the partitioner panicked".to_owned(),
        };
        Err(Error::new(ErrorKind::UserCode, message).with_topic(Arc::clone(&topic.name)))
    }

    /// How many records wait for the disk that was promised for them. A record whose promise holds when `send` returns
    /// is never among them.
    #[must_use]
    pub fn in_flight_records(&self) -> u64 {
        self.open.in_flight().0
    }

    /// How many bytes, as frames, [`Producer::in_flight_records`] take.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.open.in_flight().1
    }

    /// Waits until every promise made so far is kept.
    ///
    /// # Errors
    /// The first promise that cannot be kept, whether or not somebody waits for its delivery; `IllegalState`
    /// inside a callback.
    pub fn flush(&self) -> Result<()> {
        self.open.keep(Deadline::after(Duration::MAX))
    }

    /// Keeps every promise made so far, and ends.
    ///
    /// # Errors
    /// `TimedOut`, where the log goes on keeping them; else as [`Producer::flush`].
    pub fn close(self, timeout: Duration) -> Result<()> {
        self.open.keep(Deadline::after(timeout))
    }
}

/// How many bytes the record takes as a frame; of one that is too long to be appended none.
fn frame_bytes(record: &Record<'_>) -> u64 {
    frame_len(record, false).unwrap_or(0) as u64
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("promise", &self.promise).finish_non_exhaustive()
    }
}
