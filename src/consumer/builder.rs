//! Settings for a consumer about to be built.

use std::sync::Arc;
use std::time::Duration;

use crate::consumer::assignor::Assignor;
use crate::consumer::group::Group;
use crate::consumer::listener::RebalanceListener;
use crate::consumer::options::{Named, OffsetReset, Options, WaitStrategy};
use crate::consumer::poll::Consumer;
use crate::consumer::reading::Reading;
use crate::consumer::subscription::Pattern;
use crate::error::Result;
use crate::log::core::LogCore;
use crate::topic_partition::TopicPartition;

/// Settings for a [`Consumer`]: from [`Log::consumer`](crate::Log::consumer), without a group, or
/// [`ConsumerGroup::consumer`](crate::ConsumerGroup::consumer).
///
/// ```
/// use std::time::Duration;
/// use tapelog::{Log, OffsetReset, TopicConfig, TopicPartition, consumer::WaitStrategy};
///
/// let log = Log::in_memory()?;
/// log.create_topic("ticks", TopicConfig::new())?;
/// let consumer = log
///     .consumer()
///     .offset_reset(OffsetReset::By(Duration::from_secs(60)))
///     .wait_strategy(WaitStrategy::Spin)
///     .assign([TopicPartition::new("ticks", 0)])?;
/// assert_eq!(consumer.assignment().len(), 1);
/// # Ok::<(), tapelog::Error>(())
/// ```
#[must_use]
pub struct ConsumerBuilder {
    log: Arc<LogCore>,
    group: Option<Arc<Group>>,
    options: Options,
    listener: Option<Box<dyn RebalanceListener>>,
}

impl ConsumerBuilder {
    pub(crate) fn new(log: Arc<LogCore>, group: Option<Arc<Group>>) -> Self {
        ConsumerBuilder { log, group, options: Options::default(), listener: None }
    }

    /// Where to begin when nothing is committed; [`OffsetReset::Earliest`] unless set.
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.options.reset = reset;
        self
    }

    /// How a poll waits; [`WaitStrategy::Park`] unless set.
    pub fn wait_strategy(mut self, wait: WaitStrategy) -> Self {
        self.options.wait = wait;
        self
    }

    /// The most records that a poll returns; 500 unless set.
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.options.max_records = records;
        self
    }

    /// The most bytes of records, as frames, that a poll returns; 50 MiB unless set. A single larger record is
    /// returned alone.
    pub fn max_poll_bytes(mut self, bytes: usize) -> Self {
        self.options.max_bytes = bytes;
        self
    }

    /// How many bytes of records, as frames, are to be there before a poll that may wait returns: 1 unless set, which is the
    /// first record. It returns what there is, be it nothing, once its time is over, and earlier where there are as many
    /// records as it may return, or a partition is in trouble. (Kafka: `fetch.min.bytes`.)
    ///
    /// ```
    /// use std::time::Duration;
    /// use tapelog::{Log, Record, TopicConfig};
    ///
    /// let log = Log::in_memory()?;
    /// let ticks = log.create_topic("ticks", TopicConfig::new())?.partition(0)?;
    /// let group = log.consumer_group("risk")?;
    /// let mut consumer = group.consumer().min_bytes(100).subscribe(["ticks"])?;
    /// ticks.append(Record::new("150.23"))?;
    /// ticks.append(Record::new("150.24"))?;
    /// ticks.append(Record::new("150.25"))?;
    /// assert_eq!(consumer.poll(Duration::MAX)?.len(), 3);
    /// # Ok::<(), tapelog::Error>(())
    /// ```
    pub fn min_bytes(mut self, bytes: usize) -> Self {
        self.options.min_bytes = bytes;
        self
    }

    /// Has poll commit the positions, once `interval` has passed by the log's clock, and close, and whenever a
    /// partition is given up. Off unless set.
    ///
    /// A poll commits only what the polls before it returned: by asking for more, the caller says that it has
    /// finished with that.
    pub fn auto_commit(mut self, interval: Duration) -> Self {
        self.options.auto_commit = Some(interval);
        self
    }

    /// Whether to read only what survives the loss of power: below the partition's durable offset. It moves when
    /// somebody flushes: the topic's `SyncPolicy`, a delivery that is waited for, or `Log::sync`.
    pub fn durable_only(mut self, durable_only: bool) -> Self {
        self.options.durable_only = durable_only;
        self
    }

    /// Whom to tell of partitions that come and go.
    pub fn listener(mut self, listener: impl RebalanceListener) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Makes the consumer a static member, with a name of its own. (Kafka: `group.instance.id`, KIP-345.)
    ///
    /// To close or drop it is not to leave the group: who joins with the same name within `session_timeout` goes on
    /// in its place, with the same partitions and without a rebalance. If the consumer before is still in use, all
    /// its calls fail with `FencedInstanceId` from then on. [`Consumer::unsubscribe`] leaves at once.
    ///
    /// That holds over a restart of the process: where that died with its consumers in use, the `session_timeout` begins
    /// when the next one first looks at the group.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.options.instance_id = Some(id.into());
        self
    }

    /// How long a member may do nothing between two polls before its partitions go to others; 5 minutes unless set,
    /// by the log's clock. A commit counts as a sign of life, as does to be inside of a poll or of its listener.
    /// (Kafka: `max.poll.interval.ms`.)
    ///
    /// After half of that time, an [`Event`](crate::admin::Event) and
    /// [`MemberDescription::late`](crate::consumer::MemberDescription::late) warn of it.
    /// Who is late finds its commits refused with `CommitFailed`; its next poll tells the listener that all was
    /// lost, and joins again.
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.options.max_poll_interval = interval;
        self
    }

    /// How long the partitions of a static member wait for it once it was closed or dropped; 45 seconds unless set,
    /// by the log's clock. (Kafka: `session.timeout.ms`.)
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.options.session_timeout = timeout;
        self
    }

    /// An assignor that the member would follow, if those named before are not to be. The group follows one that
    /// all its members name: that which most of them like best. Who names none names the group's.
    /// (Kafka: `partition.assignment.strategy`.)
    pub fn assignor(mut self, assignor: impl Assignor) -> Self {
        self.options.assignors.0.push(Named::new(assignor));
        self
    }

    /// A consumer that shares these topics with the other members of its group.
    ///
    /// # Errors
    /// As [`ConsumerBuilder::build`] and [`Consumer::subscribe`].
    pub fn subscribe<T: Into<String>>(self, topics: impl IntoIterator<Item = T>) -> Result<Consumer> {
        let mut consumer = self.build()?;
        consumer.subscribe(topics)?;
        Ok(consumer)
    }

    /// A consumer that shares the topics whose names match, now or later, with the other members of its group.
    ///
    /// # Errors
    /// As [`ConsumerBuilder::build`] and [`Consumer::subscribe_pattern`].
    pub fn subscribe_pattern(self, pattern: Pattern) -> Result<Consumer> {
        let mut consumer = self.build()?;
        consumer.subscribe_pattern(pattern)?;
        Ok(consumer)
    }

    /// A consumer of these partitions.
    ///
    /// # Errors
    /// As [`ConsumerBuilder::build`] and [`Consumer::assign`].
    pub fn assign(self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<Consumer> {
        let mut consumer = self.build()?;
        consumer.assign(partitions)?;
        Ok(consumer)
    }

    /// A consumer of nothing yet.
    ///
    /// # Errors
    /// `InvalidConfig` where settings make no sense; `Closed`.
    pub fn build(self) -> Result<Consumer> {
        self.log.check_open()?;
        self.options.check(self.group.is_some())?;
        Ok(Consumer::new(Reading::new(self.log, self.group, self.options), self.listener))
    }
}

impl std::fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("group", &self.group.as_ref().map(|group| &group.name))
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
