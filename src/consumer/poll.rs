//! The consumer: poll, seek, commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Deadline, Stopwatch, Timestamp};
use crate::consumer::committed::at;
use crate::consumer::group::{Group, Place, Step};
use crate::consumer::handle::ConsumerHandle;
use crate::consumer::listener::{RebalanceListener, Told, tell};
use crate::consumer::options::WaitStrategy;
use crate::consumer::reading::Reading;
use crate::consumer::seat::Fate;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::check_topic_name;
use crate::log::core::LogCore;
use crate::log::keeper::Job;
use crate::partition::records::{ConsumerRecord, Records};
use crate::topic_partition::TopicPartition;

/// Who slept no longer than this looks again for as long before it sleeps the next time: to fall asleep and to be woken
/// costs both sides as much, and the one who appends some microseconds each time.
const BRISK: Duration = Duration::from_micros(30);

/// Reads partitions in order and, with a group, commits how far it has come.
///
/// The partitions are its own choice ([`Consumer::assign`]), or the group shares those of the topics that its
/// members subscribe to ([`Consumer::subscribe`]). Dropping a consumer leaves the group; it commits nothing,
/// calls no listener and waits for nothing. [`Consumer::close`] does it in order.
///
/// ```
/// use std::time::Duration;
/// use tapelog::{Log, Record, TopicConfig};
///
/// let log = Log::in_memory()?;
/// log.create_topic("ticks", TopicConfig::new())?.partition(0)?.append(Record::new("150.23"))?;
///
/// let mut consumer = log.consumer_group("risk")?.subscribe(["ticks"])?;
/// let records = consumer.poll(Duration::from_millis(100))?;
/// for record in &records {
///     println!("{:?} @{}", record.value(), record.offset());
///     consumer.commit_record(&record)?;
/// }
/// # assert_eq!(records.len(), 1);
/// # Ok::<(), tapelog::Error>(())
/// ```
pub struct Consumer {
    reading: Reading,
    listener: Option<Box<dyn RebalanceListener>>,
    handle: ConsumerHandle,
    /// Whether the partitions were chosen by `assign`.
    manual: bool,
    /// The state of the log's topics that was looked at last, and of the group.
    version: u64,
    change: Option<u64>,
    /// What was subscribed to, for the day on which the group has to be joined again.
    topics: BTreeSet<String>,
    /// Whether a listener had it closed.
    closed: bool,
    /// Whether records come so fast that the last sleep was not worth it.
    brisk: bool,
}

impl Consumer {
    pub(crate) fn new(reading: Reading, listener: Option<Box<dyn RebalanceListener>>) -> Self {
        let version = reading.log.version();
        let handle = ConsumerHandle::default();
        Consumer {
            reading,
            listener,
            handle,
            manual: false,
            version,
            change: None,
            topics: BTreeSet::new(),
            closed: false,
            brisk: false,
        }
    }

    // ---- which partitions ------------------------------------------------------------------------------

    /// Joins the group, or changes what is asked of it: partitions of these topics, existing or not.
    ///
    /// They come, and others go, during the polls that follow. No topics is [`Consumer::unsubscribe`].
    ///
    /// # Errors
    /// `InvalidGroupId` without a group, `IllegalState` after [`Consumer::assign`], `InvalidTopic`;
    /// `InconsistentGroupProtocol` where the consumer names no assignor that all other members name too;
    /// `FencedInstanceId` once another one took its place.
    pub fn subscribe<T: Into<String>>(&mut self, topics: impl IntoIterator<Item = T>) -> Result<()> {
        let topics: BTreeSet<String> = topics.into_iter().map(Into::into).collect();
        topics.iter().try_for_each(|topic| check_topic_name(topic))?;
        self.check_open()?;
        let group = Arc::clone(self.reading.needs_group()?);
        if self.manual {
            return Err(exclusive("subscribe", "assign"));
        }
        if topics.is_empty() {
            return self.unsubscribe();
        }
        match &self.reading.seat {
            Some(seat) => match group.subscribe(seat, topics.clone()) {
                // The next poll joins again.
                Err(_) if seat.fate() == Fate::TimedOut => {}
                subscribed => subscribed?,
            },
            None => self.join(&group, topics.clone())?,
        }
        self.topics = topics;
        Ok(())
    }

    fn join(&mut self, group: &Arc<Group>, topics: BTreeSet<String>) -> Result<()> {
        let reading = &mut self.reading;
        reading.groups.revive(&reading.log, group)?;
        let now = reading.log.engine.clock.roughly_now();
        let (id, signal) = (reading.groups.next_member(), self.handle.signal());
        reading.seat = Some(group.join(id, &reading.options, topics, signal, now)?);
        self.change = None;
        keep(&self.reading.log, group);
        Ok(())
    }

    /// Has the group make a new plan though nothing that it knows of has changed: for assignors that look at more
    /// than the facts. (Kafka: `enforceRebalance`.)
    ///
    /// # Errors
    /// `InvalidGroupId` without a group; `IllegalState` where the consumer is not subscribed; what its polls fail
    /// with.
    pub fn enforce_rebalance(&mut self) -> Result<()> {
        self.check_open()?;
        let group = self.reading.needs_group()?;
        match &self.reading.seat {
            Some(seat) => group.rebalance(seat),
            None => Err(Error::new(ErrorKind::IllegalState, "the consumer is not subscribed")),
        }
    }

    /// Chooses the partitions to read, in place of those chosen before; who stays keeps its position.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, with nothing changed; `IllegalState` while subscribed.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        self.check_open()?;
        if self.reading.seat.is_some() {
            return Err(exclusive("assign", "subscribe"));
        }
        let tps: BTreeSet<TopicPartition> = partitions.into_iter().collect();
        let cores = tps.iter().map(|tp| self.reading.resolve(tp)).collect::<Result<Vec<_>>>()?;
        let place = |tp: &TopicPartition, topic_id| Place { tp: tp.clone(), topic_id };
        let wanted: BTreeSet<Place> =
            cores.iter().map(|core| place(&core.identity().tp, core.identity().topic_id)).collect();
        self.reading.retain(|place| wanted.contains(place));
        let has: BTreeSet<Place> = self.reading.places().into_iter().collect();
        let new = cores.into_iter().filter(|core| {
            let identity = core.identity();
            !has.contains(&place(&identity.tp, identity.topic_id))
        });
        self.reading.add(new);
        self.manual = !self.reading.is_empty();
        Ok(())
    }

    /// Leaves the group, or lets go of the partitions that were assigned; other topics or partitions can then be
    /// chosen either way.
    ///
    /// # Errors
    /// Those of an automatic commit and of the listener; it has left all the same.
    pub fn unsubscribe(&mut self) -> Result<()> {
        let told = self.let_go();
        if let (Some(seat), Some(group)) = (self.reading.seat.take(), &self.reading.group) {
            group.leave(&seat);
            self.reading.groups.keep_seats(&self.reading.log, group);
        }
        self.manual = false;
        told
    }

    fn check_open(&self) -> Result<()> {
        if self.closed {
            return Err(Error::new(ErrorKind::Closed, "the listener closed the consumer"));
        }
        self.reading.log.check_open()
    }

    /// The partitions that the consumer reads now, in order.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.reading.assignment()
    }

    // ---- poll ------------------------------------------------------------------------------------------

    /// The next records, of one partition or more; waits up to `timeout` for the first.
    ///
    /// A time-out is no error: there are no records then. A partition begins at its committed offset, else
    /// where the reset policy says.
    ///
    /// # Errors
    /// A partition in trouble takes its turn: then the poll fails, naming topic, partition and offset; the
    /// position stays, so that the error comes again until the cause is gone or somebody seeks. The next polls
    /// read the others, from which nothing is ever dropped. `Wakeup` once after
    /// [`ConsumerHandle::wakeup`](crate::consumer::ConsumerHandle::wakeup); `Closed`; what the listener or
    /// an automatic commit failed with.
    pub fn poll(&mut self, timeout: Duration) -> Result<Records> {
        let mut records = Records::new();
        self.poll_into(&mut records, timeout)?;
        Ok(records)
    }

    /// As [`Consumer::poll`], in place of what `records` held: a loop that reuses it does not allocate. Tells how
    /// many records there are.
    ///
    /// # Errors
    /// As [`Consumer::poll`]; `records` is empty then.
    pub fn poll_into(&mut self, records: &mut Records, timeout: Duration) -> Result<usize> {
        records.clear();
        if let (Some(seat), Some(group)) = (&self.reading.seat, &self.reading.group) {
            group.look(self.reading.log.engine.clock.roughly_now());
            seat.enter();
        }
        let polled = self.poll_on(records, timeout);
        // It may have another seat by now.
        if let Some(seat) = &self.reading.seat {
            seat.exit(self.reading.log.engine.clock.roughly_now());
        }
        polled
    }

    fn poll_on(&mut self, records: &mut Records, timeout: Duration) -> Result<usize> {
        let mut deadline = None;
        let mut awake = None;
        loop {
            self.check_open()?;
            if self.handle.take_wakeup() {
                return Err(Error::new(ErrorKind::Wakeup, "the poll was woken"));
            }
            self.keep_seat()?;
            if self.reading.auto_commit_due().is_some_and(|due| due.is_zero()) {
                self.reading.auto_commit(None)?;
            }
            let followed = self.follow();
            if self.reading.closing {
                followed.and(self.close_here())?;
                continue;
            }
            followed?;
            if let Err(error) = self.reading.fill(records) {
                self.unless_topics_changed(error)?;
                continue;
            }
            if !records.is_empty() || timeout.is_zero() {
                return Ok(records.len());
            }
            let deadline = *deadline.get_or_insert_with(|| Deadline::after(timeout));
            if deadline.passed() {
                return Ok(0);
            }
            match self.reading.options.wait {
                WaitStrategy::Park
                    if self.brisk && !awake.get_or_insert_with(|| Deadline::after(BRISK)).passed() =>
                {
                    std::thread::yield_now();
                }
                WaitStrategy::Park => self.park(deadline)?,
                WaitStrategy::Yield => std::thread::yield_now(),
                WaitStrategy::Spin => std::hint::spin_loop(),
            }
        }
    }

    /// Waits until there may be something to do. Whatever came since it was looked for is noticed: each
    /// registration looks again under its lock, and the bell stays rung until it is heard.
    fn park(&mut self, deadline: Deadline) -> Result<()> {
        let signal = Arc::clone(self.handle.signal());
        let here =
            self.reading.listen(&signal).or_else(|error| self.unless_topics_changed(error).map(|()| true));
        if here? || self.reading.log.wait_for_change(self.version, &signal) {
            return Ok(());
        }
        let until = match self.reading.auto_commit_due() {
            // A clock that stands still must not make this a spin.
            Some(due) => deadline.min(Deadline::after(due.max(Duration::from_millis(1)))),
            None => deadline,
        };
        let asleep = Stopwatch::start();
        signal.wait(until);
        self.brisk = asleep.elapsed() <= BRISK;
        Ok(())
    }

    /// An error of a partition, unless its topic may just have gone: then the group is asked first.
    fn unless_topics_changed(&self, error: Error) -> Result<()> {
        if self.reading.log.version() == self.version { Err(error) } else { Ok(()) }
    }

    /// Sees to it that the consumer is the member that it thinks it is; joins again where it was silent for too long.
    fn keep_seat(&mut self) -> Result<()> {
        let Some(seat) = &self.reading.seat else { return Ok(()) };
        let fate = seat.fate();
        if fate == Fate::Seated {
            return Ok(());
        }
        let refused = seat.refusal();
        let told = self.lose_all();
        let (Fate::TimedOut, Some(group)) = (fate, self.reading.group.clone()) else { return Err(refused) };
        // Where that fails the next poll tries again.
        self.join(&group, self.topics.clone())?;
        if let Some(seat) = &self.reading.seat {
            seat.enter();
        }
        told
    }

    /// Lets go of what others have already.
    fn lose_all(&mut self) -> Result<()> {
        let lost = self.reading.assignment();
        let told = tell(&mut self.listener, &mut self.reading, Told::Lost, &lost);
        self.reading.retain(|_| false);
        told
    }

    /// Closes for a listener that asked for it.
    fn close_here(&mut self) -> Result<()> {
        self.closed = true;
        let told = self.let_go();
        self.stand_up();
        told
    }

    /// Follows changes of the topics and of the group.
    fn follow(&mut self) -> Result<()> {
        let version = self.reading.log.version();
        let (Some(seat), Some(group)) = (&self.reading.seat, &self.reading.group) else {
            if version != self.version {
                self.version = version;
                self.reading.find_gone();
            }
            return Ok(());
        };
        if version == self.version && self.change == Some(group.change()) {
            return Ok(());
        }
        let (seat, group) = (Arc::clone(seat), Arc::clone(group));
        let change = group.refresh(&self.reading.log)?;
        self.reading.groups.keep_seats(&self.reading.log, &group);
        let mut result = Ok(());
        loop {
            match group.step(&seat)? {
                Step::GiveUp(places) => {
                    let given_up = self.give_up(&places);
                    group.release(&seat, &places);
                    result = result.and(given_up);
                }
                Step::Take(places) => {
                    (self.version, self.change) = (version, Some(change));
                    return result.and(self.take(&places));
                }
            }
        }
    }

    /// Ends the reading of places, with all that belongs to it. A static member may have to give up what only its
    /// last consumer read: there is nothing to tell of that.
    fn give_up(&mut self, places: &[Place]) -> Result<()> {
        let tps = |places: &[&Place]| places.iter().map(|place| place.tp.clone()).collect::<Vec<_>>();
        let has: BTreeSet<Place> = self.reading.places().into_iter().collect();
        let places = places.iter().filter(|place| has.contains(place));
        let (there, gone): (Vec<_>, Vec<_>) = places.partition(|place| self.reading.exists(place));
        let committed = self.reading.auto_commit(Some(&there.iter().copied().collect()));
        let revoked = tell(&mut self.listener, &mut self.reading, Told::Revoked, &tps(&there));
        let lost = tell(&mut self.listener, &mut self.reading, Told::Lost, &tps(&gone));
        let places: BTreeSet<&Place> = there.into_iter().chain(gone).collect();
        self.reading.retain(|place| !places.contains(place));
        committed.and(revoked).and(lost)
    }

    fn take(&mut self, places: &[Place]) -> Result<()> {
        let mut tps = Vec::new();
        let has: BTreeSet<Place> = self.reading.places().into_iter().collect();
        for place in places.iter().filter(|place| !has.contains(place)) {
            // One that was deleted meanwhile is given up when the topics are looked at next.
            if let Ok(core) = self.reading.resolve(&place.tp)
                && core.identity().topic_id == place.topic_id
            {
                self.reading.add([core]);
                tps.push(place.tp.clone());
            }
        }
        tell(&mut self.listener, &mut self.reading, Told::Assigned, &tps)
    }

    /// Lets go of everything, in order.
    fn let_go(&mut self) -> Result<()> {
        let told = match self.reading.seat.as_ref().map(|seat| seat.fate()) {
            Some(Fate::Seated) => self.give_up(&self.reading.places()),
            Some(_) => self.lose_all(),
            None => self.reading.auto_commit(None),
        };
        self.reading.retain(|_| false);
        told
    }

    /// Leaves the group; a static member's seat is kept for whoever comes in its place.
    fn stand_up(&mut self) {
        let (Some(seat), Some(group)) = (self.reading.seat.take(), &self.reading.group) else { return };
        if seat.instance_id.is_none() {
            group.leave(&seat);
            return;
        }
        group.step_away(&seat, self.reading.log.engine.clock.roughly_now());
        self.reading.groups.keep_seats(&self.reading.log, group);
        keep(&self.reading.log, group);
    }

    /// Wakes this consumer from other threads.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// Commits where that is automatic, tells the listener, and leaves the group; a static member's partitions wait
    /// for its next consumer for the `session_timeout`.
    ///
    /// # Errors
    /// Those of the commit and of the listener; the consumer has left all the same.
    pub fn close(mut self) -> Result<()> {
        self.let_go()
    }

    // ---- positions -------------------------------------------------------------------------------------

    /// Has the next poll go on at `offset`. One that the partition does not hold is subject to the reset policy.
    ///
    /// # Errors
    /// `IllegalState` where the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, offset: u64) -> Result<()> {
        self.reading.seek(partition, offset)
    }

    /// Goes to the first record held of each of these partitions.
    ///
    /// # Errors
    /// `IllegalState` where one is not assigned; nothing has changed then.
    pub fn seek_to_beginning<'t>(
        &mut self,
        partitions: impl IntoIterator<Item = &'t TopicPartition>,
    ) -> Result<()> {
        self.reading.seek_all(partitions, |core, _| Ok(core.start_offset()))
    }

    /// Goes to the end of each of these partitions as it is now.
    ///
    /// # Errors
    /// `IllegalState` where one is not assigned; nothing has changed then.
    pub fn seek_to_end<'t>(
        &mut self,
        partitions: impl IntoIterator<Item = &'t TopicPartition>,
    ) -> Result<()> {
        self.reading.seek_all(partitions, |_, limit| Ok(limit))
    }

    /// Goes to the first record, in offset order, whose timestamp is not before `time`; to the end where there is
    /// none.
    ///
    /// # Errors
    /// `IllegalState` where the partition is not assigned; what reading its index gives.
    pub fn seek_to_time(&mut self, partition: &TopicPartition, time: Timestamp) -> Result<()> {
        self.reading.seek_all([partition], |core, limit| {
            Ok(core.offset_for_time(time)?.map_or(limit, |(offset, _)| offset))
        })
    }

    /// Reads nothing from these partitions until they are resumed, or come back after they were lost.
    ///
    /// # Errors
    /// `IllegalState` where one is not assigned; nothing has changed then.
    pub fn pause<'t>(&mut self, partitions: impl IntoIterator<Item = &'t TopicPartition>) -> Result<()> {
        self.reading.set_paused(partitions, true)
    }

    /// Reads on where [`Consumer::pause`] stopped.
    ///
    /// # Errors
    /// `IllegalState` where one is not assigned; nothing has changed then.
    pub fn resume<'t>(&mut self, partitions: impl IntoIterator<Item = &'t TopicPartition>) -> Result<()> {
        self.reading.set_paused(partitions, false)
    }

    /// The partitions that are paused, in order.
    #[must_use]
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.reading.paused()
    }

    /// The offset of the next record that a poll returns from the partition.
    ///
    /// # Errors
    /// `IllegalState` where it is not assigned; `NoOffset` or `OffsetOutOfRange` where the reset policy is
    /// needed and is to fail.
    pub fn position(&mut self, partition: &TopicPartition) -> Result<u64> {
        self.reading.position(partition)
    }

    /// How many records lie between the position and the end of the partition, or what may be read of it.
    /// (Kafka: the metric `records-lag`.)
    ///
    /// # Errors
    /// As [`Consumer::position`].
    pub fn lag(&mut self, partition: &TopicPartition) -> Result<u64> {
        Ok(self.reading.lead_and_lag(partition)?.1)
    }

    /// How many records lie between the first one held and the position. (Kafka: the metric `records-lead`.)
    ///
    /// # Errors
    /// As [`Consumer::position`].
    pub fn lead(&mut self, partition: &TopicPartition) -> Result<u64> {
        Ok(self.reading.lead_and_lag(partition)?.0)
    }

    // ---- commits ---------------------------------------------------------------------------------------

    /// Commits the positions of all partitions: **everything that poll has returned**, whether you have finished
    /// with it or not. Who handles records one by one wants [`Consumer::commit_record`].
    ///
    /// The offsets survive the death of the process when this returns.
    ///
    /// # Errors
    /// `InvalidGroupId` without a group; `CommitFailed` where a partition has gone to another member, or where the
    /// consumer was silent for so long that it is none any more; `RebalanceInProgress` where a partition is on its
    /// way to this one; `FencedInstanceId` once another consumer took its place;
    /// `UnknownMemberId` for a consumer that chose its partitions itself, while the group has members; what
    /// keeps an append from succeeding.
    pub fn commit(&mut self) -> Result<()> {
        self.reading.commit()
    }

    /// Commits that `record`, and all before it in its partition, is done: the next to read is the one after.
    ///
    /// # Errors
    /// `CommitFailed` where the partition, or its topic, is no longer that which the record was read from: a
    /// record of the past cannot set a group back. Else as [`Consumer::commit`].
    pub fn commit_record(&mut self, record: &ConsumerRecord<'_>) -> Result<()> {
        self.reading.commit_record(*record)
    }

    /// Commits these offsets, each **the next one to read**, all or none. They may go backwards.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; else as [`Consumer::commit`].
    pub fn commit_offsets(&mut self, offsets: impl IntoIterator<Item = (TopicPartition, u64)>) -> Result<()> {
        self.reading.commit_offsets(offsets.into_iter().map(|(tp, offset)| (tp, offset, None)))
    }

    /// As [`Consumer::commit_offsets`], each with a line of the caller's own, at most 4096 bytes.
    ///
    /// # Errors
    /// `InvalidArgument` where one is longer; else as [`Consumer::commit_offsets`].
    pub fn commit_with_metadata(
        &mut self,
        offsets: impl IntoIterator<Item = (TopicPartition, u64, Option<String>)>,
    ) -> Result<()> {
        self.reading.commit_offsets(offsets)
    }

    /// As [`Consumer::commit`], and has `callback` called with the outcome, on the log's callback thread, in the
    /// order of the commits.
    pub fn commit_async(&mut self, callback: impl FnOnce(Result<()>) + Send + 'static) {
        let result = self.reading.commit();
        self.reading.log.engine.call(Box::new(callback), result);
    }

    /// What the group committed in the partition, assigned or not: the next offset to read.
    ///
    /// # Errors
    /// `InvalidGroupId` without a group; `UnknownTopicOrPartition`.
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<u64>> {
        Ok(self.committed_with_metadata(partition)?.map(|(offset, _)| offset))
    }

    /// As [`Consumer::committed`], with what was committed beside it.
    ///
    /// # Errors
    /// As [`Consumer::committed`].
    pub fn committed_with_metadata(
        &self,
        partition: &TopicPartition,
    ) -> Result<Option<(u64, Option<String>)>> {
        self.reading.committed(partition)
    }

    // ---- what there is ---------------------------------------------------------------------------------

    /// The first offset that each of these partitions holds, assigned or not.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn beginning_offsets(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, u64>> {
        let of = |tp| self.reading.resolve(&tp).map(|core| (tp, core.start_offset()));
        partitions.into_iter().map(of).collect()
    }

    /// The end offset of each of these partitions, assigned or not.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn end_offsets(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, u64>> {
        let of = |tp| self.reading.resolve(&tp).map(|core| (tp, core.high_watermark()));
        partitions.into_iter().map(of).collect()
    }

    /// The first record, in offset order, whose timestamp is not before the one asked for: offset and timestamp.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `InvalidArgument` for a time before 1970 (as in Kafka, where it would be a code
    /// for something else); what reading the index gives.
    pub fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (TopicPartition, Timestamp)>,
    ) -> Result<BTreeMap<TopicPartition, Option<(u64, Timestamp)>>> {
        let of = |(tp, time): (TopicPartition, Timestamp)| {
            if time < Timestamp::from_nanos(0) {
                let message = format!("the time {time} is before 1970");
                return Err(at(Error::new(ErrorKind::InvalidArgument, message), &tp));
            }
            let found = self.reading.resolve(&tp)?.offset_for_time(time)?;
            Ok((tp, found))
        };
        times.into_iter().map(of).collect()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stand_up();
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.reading.group.as_ref().map(|group| &group.name))
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}

/// Has the log's keeper look after the group's members, from what is due now.
fn keep(log: &LogCore, group: &Arc<Group>) {
    let group: Arc<dyn Job> = Arc::clone(group) as _;
    log.keeper.keep(Arc::downgrade(&group));
}

fn exclusive(call: &str, other: &str) -> Error {
    let message = format!("{call} and {other} exclude each other: unsubscribe first");
    Error::new(ErrorKind::IllegalState, message)
}
