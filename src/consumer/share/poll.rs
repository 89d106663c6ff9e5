//! The share consumer: poll, acknowledge, commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Deadline;
use crate::consumer::groups::Groups;
use crate::consumer::handle::ConsumerHandle;
use crate::consumer::share::group::Group;
use crate::consumer::share::options::{AcknowledgeMode, ShareConfig};
use crate::consumer::share::part::{Haul, Held, Part};
use crate::consumer::share::records::{ShareRecord, ShareRecords};
use crate::consumer::share::state::{Acknowledge, MemberId};
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{check_topic_name, is_internal};
use crate::log::core::LogCore;
use crate::partition::cursor::Cursor;
use crate::partition::records::Records;

/// While others hold records a waiting poll looks at the clock so often: clocks can be set.
const LOOK_AT_CLOCK: Duration = Duration::from_millis(100);
/// And no more often than this, where a lock is about to end by a clock that stands still.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// Settings for a [`ShareConsumer`]: from [`ShareGroup::consumer`](crate::share::ShareGroup::consumer).
#[must_use]
pub struct ShareConsumerBuilder {
    log: Arc<LogCore>,
    group: Arc<Group>,
    mode: AcknowledgeMode,
    max_records: usize,
    max_bytes: usize,
}

impl ShareConsumerBuilder {
    pub(crate) fn new(log: Arc<LogCore>, group: Arc<Group>) -> Self {
        let mode = AcknowledgeMode::default();
        ShareConsumerBuilder { log, group, mode, max_records: 500, max_bytes: 50 << 20 }
    }

    /// Who says that a record is done; [`AcknowledgeMode::Implicit`] unless set.
    pub fn acknowledge_mode(mut self, mode: AcknowledgeMode) -> Self {
        self.mode = mode;
        self
    }

    /// The most records that a poll returns; 500 unless set. Few of them share the work of slow records better.
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.max_records = records;
        self
    }

    /// The most bytes of records, as frames, that a poll returns; 50 MiB unless set. A single larger record is
    /// returned alone.
    pub fn max_poll_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// A consumer that shares the records of these topics with the other members of the group, whether the topics
    /// exist yet or not.
    ///
    /// # Errors
    /// `InvalidConfig` where settings make no sense, or one of the topics is the group's dead-letter topic;
    /// `InvalidTopic`; `Closed`; what reading the group's state gives.
    pub fn subscribe<T: Into<String>>(self, topics: impl IntoIterator<Item = T>) -> Result<ShareConsumer> {
        self.log.check_open()?;
        if self.max_records == 0 || self.max_bytes == 0 {
            let message = "max_poll_records and max_poll_bytes must be at least 1";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let groups = Groups::of(&self.log);
        let mut consumer = ShareConsumer {
            member: groups.shares.next_member(),
            version: self.log.version(),
            log: self.log,
            groups,
            group: self.group,
            topics: BTreeSet::new(),
            parts: Vec::new(),
            turn: 0,
            handle: ConsumerHandle::default(),
            mode: self.mode,
            max_records: self.max_records,
            max_bytes: self.max_bytes,
        };
        consumer.subscribe(topics)?;
        Ok(consumer)
    }
}

impl std::fmt::Debug for ShareConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShareConsumerBuilder")
            .field("group", &self.group.name)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// A member of a share group: takes records, one by one, that no other member has, and says what became of them.
///
/// A record that was polled is locked for this member. It is done once it is accepted; it comes again, to whoever
/// polls, when it is released, when the lock ends, or when the consumer is dropped. Records of one key may be in
/// different hands at once: who needs their order takes a [`ConsumerGroup`](crate::ConsumerGroup).
///
/// Dropping a consumer gives back what it holds, and accepts nothing. So does [`ShareConsumer::close`]: commit first.
///
/// ```
/// use std::time::Duration;
/// use tapelog::share::{Acknowledge, ShareConfig};
/// use tapelog::{Log, OffsetReset, Record, TopicConfig};
///
/// let log = Log::in_memory()?;
/// let jobs = log.create_topic("jobs", TopicConfig::new())?.partition(0)?;
/// jobs.append(Record::new("one"))?;
/// jobs.append(Record::new("two"))?;
///
/// let group = log.share_group("workers")?;
/// group.alter(ShareConfig::new().offset_reset(OffsetReset::Earliest))?;
/// let mut worker = group.subscribe(["jobs"])?;
/// for record in &worker.poll(Duration::from_millis(100))? {
///     if record.value() == Some(b"two") && record.delivery_count() == 1 {
///         worker.acknowledge(&record, Acknowledge::Release)?;
///     }
/// }
/// let again = worker.poll(Duration::from_millis(100))?; // accepts "one"
/// assert_eq!(again.iter().map(|r| (r.offset(), r.delivery_count())).collect::<Vec<_>>(), [(1, 2)]);
/// worker.commit()?; // accepts "two"
/// # Ok::<(), tapelog::Error>(())
/// ```
pub struct ShareConsumer {
    log: Arc<LogCore>,
    groups: Arc<Groups>,
    group: Arc<Group>,
    member: MemberId,
    topics: BTreeSet<String>,
    parts: Vec<Mine>,
    /// Which part the next poll begins with.
    turn: usize,
    /// The state of the log's topics that was looked at last.
    version: u64,
    handle: ConsumerHandle,
    mode: AcknowledgeMode,
    max_records: usize,
    max_bytes: usize,
}

/// A partition as this member sees it.
struct Mine {
    part: Arc<Part>,
    cursor: Cursor,
    /// What the last poll delivered.
    held: Vec<Held>,
}

impl ShareConsumer {
    // ---- which topics ----------------------------------------------------------------------------------

    /// Works on these topics from now on, existing or not, in place of those before; what it holds of others is
    /// given back.
    ///
    /// # Errors
    /// `InvalidTopic`; `InvalidConfig` where one is the group's dead-letter topic; what reading the group's state
    /// gives.
    pub fn subscribe<T: Into<String>>(&mut self, topics: impl IntoIterator<Item = T>) -> Result<()> {
        self.log.check_open()?;
        let topics: BTreeSet<String> = topics.into_iter().map(Into::into).collect();
        for topic in &topics {
            check_topic_name(topic)?;
            if is_internal(topic) {
                let message = "internal topics are not for share groups";
                return Err(Error::new(ErrorKind::InvalidTopic, message).with_topic(topic.as_str()));
            }
        }
        self.group.join(&self.log, &self.groups.shares, self.member, topics.clone())?;
        self.topics = topics;
        self.find_parts(false)
    }

    /// The topics that it works on, in order.
    pub fn subscription(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(String::as_str)
    }

    fn find_parts(&mut self, late: bool) -> Result<()> {
        let version = self.log.version();
        let parts = self.group.open(&self.log, &self.groups.shares, &self.topics, late)?;
        let mut before = std::mem::take(&mut self.parts);
        for part in parts {
            let mine = match before.iter().position(|mine| Arc::ptr_eq(&mine.part, &part)) {
                Some(at) => before.swap_remove(at),
                None => Mine { part, cursor: Cursor::new(0), held: Vec::new() },
            };
            self.parts.push(mine);
        }
        before.iter().for_each(|mine| mine.part.leave(self.member));
        self.version = version;
        Ok(())
    }

    // ---- poll ------------------------------------------------------------------------------------------

    /// The next records that nobody else has, of one partition or more; waits up to `timeout` for the first.
    ///
    /// Accepts what the poll before delivered, except for what was acknowledged otherwise, and writes it down
    /// together with what it takes: who is killed while he works on a record has used up one of its deliveries. A record whose lock
    /// ended meanwhile is not accepted, and comes again. A record on its last delivery comes alone.
    ///
    /// # Errors
    /// `IllegalState` in [`AcknowledgeMode::Explicit`] while a record of the last poll is not acknowledged. A
    /// partition in trouble takes its turn: then the poll fails, naming topic, partition and offset, and the next
    /// polls read the others; so it does where the dead-letter topic cannot be written. `Wakeup` once after
    /// [`ConsumerHandle::wakeup`]; `Closed`.
    pub fn poll(&mut self, timeout: Duration) -> Result<ShareRecords> {
        self.log.check_open()?;
        self.finish_last_poll()?;
        let mut records = Records::new();
        let deadline = Deadline::after(timeout);
        loop {
            self.log.check_open()?;
            if self.handle.take_wakeup() {
                return Err(Error::new(ErrorKind::Wakeup, "the poll was woken"));
            }
            if self.log.version() != self.version {
                self.find_parts(true)?;
            }
            if let Err(error) = self.fill(&mut records) {
                self.unless_topics_changed(error)?;
                continue;
            }
            if !records.is_empty() || timeout.is_zero() || deadline.passed() {
                return Ok(ShareRecords { records });
            }
            self.park(deadline)?;
        }
    }

    fn finish_last_poll(&mut self) -> Result<()> {
        if self.mode == AcknowledgeMode::Explicit {
            let open = |mine: &Mine| {
                mine.held.iter().any(|held| held.left > 0 && mine.part.holds(self.member, held))
            };
            if self.parts.iter().any(open) {
                let message = "every record of the last poll is to be acknowledged before the next";
                return Err(Error::new(ErrorKind::IllegalState, message));
            }
            self.parts.iter_mut().for_each(|mine| mine.held.clear());
            return Ok(());
        }
        self.accept_rest();
        Ok(())
    }

    /// Accepts what was delivered and not settled; tells a place whose lock ended before.
    fn accept_rest(&mut self) -> Option<Error> {
        let mut lost = None;
        for Mine { part, held, .. } in &mut self.parts {
            for held in held.drain(..).filter(|held| held.left > 0) {
                if part.accept_rest(self.member, &held) < held.left {
                    let tp = &part.core.identity().tp;
                    let message = "the lock of a record ended before it was accepted; it comes again";
                    let error = Error::new(ErrorKind::InvalidRecordState, message);
                    let error = error.with_partition(Arc::clone(&tp.topic), tp.partition());
                    lost.get_or_insert(error.at_offset(held.first));
                }
            }
        }
        lost
    }

    /// Takes from the partitions in turn, and writes down what changed.
    fn fill(&mut self, records: &mut Records) -> Result<()> {
        let config = self.group.config();
        let (max_records, max_bytes) = (self.max_records, self.max_bytes);
        let mut haul = Haul { records, bytes: 0, max_records, max_bytes, full: false };
        let count = self.parts.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let Mine { part, cursor, held } = &mut self.parts[at];
            let taken = part.take(self.member, &config, cursor, &mut haul, held);
            let taken =
                taken.and_then(|()| part.bury(&self.log, &self.group.name, config.letters.as_deref()));
            if let Err(error) = taken {
                if haul.records.is_empty() {
                    self.turn = at + 1;
                    return Err(error);
                }
                // It will be first the next time, and can be told then.
                self.turn = at;
                break;
            }
            if haul.full {
                self.turn = at + 1;
                break;
            }
        }
        // Before anybody works on a record its delivery is counted for good.
        self.save().inspect_err(|_| {
            for Mine { part, held, .. } in &mut self.parts {
                held.drain(..).for_each(|held| part.unread(self.member, held.first, held.last));
            }
            records.clear();
        })
    }

    fn save(&self) -> Result<()> {
        self.parts.iter().try_for_each(|mine| mine.part.save(&self.log, &self.group.name))
    }

    /// Waits until there may be something to do. Whatever came since it was looked for is noticed: each
    /// registration looks again under its lock, and the bell stays rung until it is heard.
    fn park(&self, deadline: Deadline) -> Result<()> {
        let signal = self.handle.signal();
        let mut until = deadline;
        for mine in &self.parts {
            match mine.part.listen(signal) {
                Ok(false) => {}
                Ok(true) => return Ok(()),
                Err(error) => return self.unless_topics_changed(error),
            }
            if let Some(left) = mine.part.next_expiry() {
                until = until.min(Deadline::after(left.clamp(LEAST_WAIT, LOOK_AT_CLOCK)));
            }
        }
        if !self.log.wait_for_change(self.version, signal) {
            signal.wait(until);
        }
        Ok(())
    }

    /// An error of a partition, unless its topic may just have gone: then that is looked at first.
    fn unless_topics_changed(&self, error: Error) -> Result<()> {
        if self.log.version() == self.version { Err(error) } else { Ok(()) }
    }

    // ---- acknowledge -----------------------------------------------------------------------------------

    /// Says what became of a record that this consumer holds. Others see it at once; it survives the process from the
    /// next poll or [`ShareConsumer::commit`] on.
    ///
    /// # Errors
    /// `InvalidRecordState`, with nothing changed, where the consumer does not hold the record (any longer): it was
    /// settled before, its lock ended, it was delivered again, or somebody else polled it.
    pub fn acknowledge(&mut self, record: &ShareRecord<'_>, acknowledge: Acknowledge) -> Result<()> {
        let identity = record.identity();
        let place = (identity.topic_id, identity.tp.partition());
        let (offset, deliveries) = (record.offset(), record.delivery_count());
        let Some(mine) = self.parts.iter_mut().find(|mine| mine.part.place() == place) else {
            let message = "the consumer does not work on the record's topic (any longer)";
            return Err(Error::new(ErrorKind::InvalidRecordState, message)
                .with_partition(Arc::clone(&identity.tp.topic), identity.tp.partition())
                .at_offset(offset));
        };
        mine.part.acknowledge(self.member, offset, deliveries, acknowledge)?;
        if let Some(held) = mine.held.iter_mut().find(|held| (held.first..=held.last).contains(&offset)) {
            held.left = held.left.saturating_sub(1);
        }
        Ok(())
    }

    /// Has everything that was acknowledged survive this process; accepts, unless that is to be explicit, what the
    /// last poll delivered before. Dead letters are sent.
    ///
    /// # Errors
    /// `InvalidRecordState` where the lock of a record had ended, so that it comes again: the others are committed all
    /// the same. What keeps the log from it: the next poll or commit tries again.
    pub fn commit(&mut self) -> Result<()> {
        self.log.check_open()?;
        let lost = match self.mode {
            AcknowledgeMode::Implicit => self.accept_rest(),
            AcknowledgeMode::Explicit => None,
        };
        self.write_down()?;
        lost.map_or(Ok(()), Err)
    }

    fn write_down(&self) -> Result<()> {
        let config: Arc<ShareConfig> = self.group.config();
        for mine in &self.parts {
            mine.part.bury(&self.log, &self.group.name, config.letters.as_deref())?;
        }
        self.save()
    }

    /// Gives back what is not acknowledged, commits what is, and leaves the group.
    ///
    /// Nothing is accepted that was not said to be done: call [`ShareConsumer::commit`] before, once the last records
    /// are worked off.
    ///
    /// # Errors
    /// As [`ShareConsumer::commit`]; the consumer has left all the same.
    pub fn close(mut self) -> Result<()> {
        self.let_go();
        if self.log.check_open().is_err() {
            return Ok(());
        }
        self.write_down()
    }

    /// Wakes this consumer from other threads.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    fn let_go(&mut self) {
        self.parts.iter().for_each(|mine| mine.part.leave(self.member));
        self.group.leave(self.member);
    }
}

impl Drop for ShareConsumer {
    fn drop(&mut self) {
        // A fork is no member of the group.
        if self.log.is_forked() {
            return;
        }
        self.let_go();
    }
}

impl std::fmt::Debug for ShareConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShareConsumer")
            .field("group", &self.group.name)
            .field("member", &self.member)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}
