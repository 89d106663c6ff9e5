//! The consumer: poll, seek, commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Deadline, Stopwatch};
use crate::consumer::group::{Group, Place, Step};
use crate::consumer::handle::ConsumerHandle;
use crate::consumer::listener::{RebalanceListener, Told, tell};
use crate::consumer::options::WaitStrategy;
use crate::consumer::reading::Reading;
use crate::consumer::seat::Fate;
use crate::consumer::subscription::{Pattern, Subscription};
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::check_topic_name;
use crate::log::core::LogCore;
use crate::log::keeper::Job;
use crate::partition::records::Records;
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
    pub(super) reading: Reading,
    listener: Option<Box<dyn RebalanceListener>>,
    handle: ConsumerHandle,
    /// Whether the partitions were chosen by `assign`.
    manual: bool,
    /// The state of the log's topics that was looked at last, and of the group.
    version: u64,
    change: Option<u64>,
    /// What was subscribed to, for the day on which the group has to be joined again.
    asked: Subscription,
    /// Whether a listener had it closed.
    closed: bool,
    /// Whether records come so fast that the last sleep was not worth it.
    brisk: bool,
}

impl Consumer {
    pub(crate) fn new(reading: Reading, listener: Option<Box<dyn RebalanceListener>>) -> Self {
        let version = reading.log.version();
        let handle = ConsumerHandle::new(Arc::clone(&reading.progress));
        Consumer {
            reading,
            listener,
            handle,
            manual: false,
            version,
            change: None,
            asked: Subscription::Topics(BTreeSet::new()),
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
    /// `InvalidGroupId` without a group, `IllegalState` after [`Consumer::assign`] or
    /// [`Consumer::subscribe_pattern`], `InvalidTopic`;
    /// `InconsistentGroupProtocol` where the consumer names no assignor that all other members name too;
    /// `FencedInstanceId` once another one took its place.
    pub fn subscribe<T: Into<String>>(&mut self, topics: impl IntoIterator<Item = T>) -> Result<()> {
        let topics: BTreeSet<String> = topics.into_iter().map(Into::into).collect();
        topics.iter().try_for_each(|topic| check_topic_name(topic))?;
        if topics.is_empty() {
            self.check_subscription("subscribe", false)?;
            return self.unsubscribe();
        }
        self.ask(Subscription::Topics(topics))
    }

    /// As [`Consumer::subscribe`], for all topics whose names match: who is created later is found by the poll that comes
    /// next, or waits, and who is deleted is let go of. Internal topics never match.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tapelog::{Log, TopicConfig, consumer::Pattern};
    ///
    /// let log = Log::in_memory()?;
    /// log.create_topic("orders.eu", TopicConfig::new())?;
    /// let mut consumer = log.consumer_group("risk")?.subscribe_pattern(Pattern::glob("orders.*")?)?;
    /// consumer.poll(Duration::ZERO)?;
    /// assert_eq!(consumer.assignment().len(), 1);
    /// log.create_topic("orders.us", TopicConfig::new())?;
    /// consumer.poll(Duration::ZERO)?;
    /// assert_eq!(consumer.assignment().len(), 2);
    /// # Ok::<(), tapelog::Error>(())
    /// ```
    ///
    /// # Errors
    /// `IllegalState` after [`Consumer::assign`] or [`Consumer::subscribe`]; else as the latter.
    pub fn subscribe_pattern(&mut self, pattern: Pattern) -> Result<()> {
        self.ask(Subscription::Pattern(pattern))
    }

    /// Whether the consumer may ask the group by names, or by a pattern. (Kafka: `SubscriptionState`.)
    fn check_subscription(&self, call: &str, by_pattern: bool) -> Result<&Arc<Group>> {
        self.check_open()?;
        let group = self.reading.needs_group()?;
        if self.manual {
            return Err(exclusive(call, "assign"));
        }
        if self.reading.seat.is_some() && self.asked.pattern().is_some() != by_pattern {
            let other = if by_pattern { "subscribe" } else { "subscribe_pattern" };
            return Err(exclusive(call, other));
        }
        Ok(group)
    }

    fn ask(&mut self, asked: Subscription) -> Result<()> {
        let by_pattern = asked.pattern().is_some();
        let call = if by_pattern { "subscribe_pattern" } else { "subscribe" };
        let group = Arc::clone(self.check_subscription(call, by_pattern)?);
        match &self.reading.seat {
            Some(seat) => match group.subscribe(seat, asked.clone()) {
                // The next poll joins again.
                Err(_) if seat.fate() == Fate::TimedOut => {}
                subscribed => subscribed?,
            },
            None => self.join(&group, asked.clone())?,
        }
        self.asked = asked;
        Ok(())
    }

    fn join(&mut self, group: &Arc<Group>, asked: Subscription) -> Result<()> {
        let reading = &mut self.reading;
        let (groups, signal) = (&reading.groups, self.handle.signal());
        groups.revive(&reading.log, group)?;
        let seat = groups.join(&reading.log, group, &reading.options, asked, signal)?;
        seat.show(&reading.progress);
        reading.seat = Some(seat);
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
            self.reading.groups.leave(&self.reading.log, group, &seat);
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
        self.reading.log.engine.pool.origin().check()?;
        if let (Some(seat), Some(group)) = (&self.reading.seat, &self.reading.group) {
            group.look(self.reading.log.engine.clock.roughly_now());
            seat.enter();
        }
        let polled = self.poll_on(records, timeout);
        let now = self.reading.log.engine.clock.roughly_now();
        // It may have another seat by now.
        if let Some(seat) = &self.reading.seat {
            seat.exit(now);
        }
        if polled.is_ok() {
            self.reading.progress.feed(now);
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
            let over = timeout.is_zero() || deadline.is_some_and(Deadline::passed);
            if over || self.reading.has_enough() {
                if let Err(error) = self.reading.fill(records) {
                    self.unless_topics_changed(error)?;
                    continue;
                }
                if over || !records.is_empty() {
                    return Ok(records.len());
                }
            }
            let deadline = *deadline.get_or_insert_with(|| Deadline::after(timeout));
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
        self.reading.progress.feed(self.reading.log.engine.clock.roughly_now());
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
        self.join(&group, self.asked.clone())?;
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
            self.reading.groups.leave(&self.reading.log, group, &seat);
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
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // A fork is no member of the group.
        if self.reading.log.is_forked() {
            return;
        }
        self.stand_up();
        // A handle may live on, and must not keep partitions.
        self.reading.retain(|_| false);
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
