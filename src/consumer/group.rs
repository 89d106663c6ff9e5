//! The coordinator of a group: who is in it, who should read what, and who does.
//!
//! On the model of KIP-848: the target is a pure function of members, subscriptions and partition counts; each
//! member moves towards it on its own poll, first letting go of what is no longer its own, then taking what
//! nobody owns. There is no barrier: what a member keeps, it goes on reading.
//!
//! ```text
//! join, leave, topics change ──► generation + 1 ──► some member's poll plans the target
//!                                                           │ rings all members
//!        each member's poll:  give up owned − target ◄──────┤
//!                             (commit, listener) ── release ┤ rings the others
//!                             take target − owned by anyone ◄┘
//! ```
//!
//! A member that was silent for too long is taken out by whoever looks first: the poll of another, a description,
//! or the log's keeper. Its consumer finds its [`Seat`] ended.
//!
//! User code (assignors, listeners) runs with no lock held.

#[path = "group_seats.rs"]
mod seats;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::consumer::assignor::{CooperativeSticky, GroupFacts, MemberFacts, select};
use crate::consumer::committed::{Entry, at};
use crate::consumer::expiry::Use;
use crate::consumer::options::{Assignors, Named, Options};
use crate::consumer::seat::{Fate, Seat};
use crate::consumer::states::GroupState;
use crate::consumer::subscription::{Pattern, Subscription};
use crate::error::{Error, ErrorKind, Result};
use crate::log::core::{LogCore, TopicCore};
use crate::log::keeper::Job;
use crate::partition::event::Event;
use crate::partition::watermarks::Signal;
use crate::partition::write_behind::Engine;
use crate::topic_partition::TopicPartition;

/// A partition of a topic with the topic's id: a topic created anew under an old name is another place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) tp: TopicPartition,
    pub(crate) topic_id: u64,
}

/// What a member has to do next to come closer to the target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Give these up, then ask again.
    GiveUp(Vec<Place>),
    /// All these are the member's now, old and new: it has come as far as the plan lets it.
    Take(Vec<Place>),
}

/// One group.
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    /// By which users are told of members.
    engine: Arc<Engine>,
    /// Rises with whatever a member may have to act on: one load tells a poll that there is nothing.
    change: AtomicU64,
    /// By when somebody has to look for members that are silent; never late, maybe early. Written under the lock.
    due: AtomicI64,
    /// Whether the seats of an earlier process were looked for.
    revived: AtomicBool,
    /// Whether there ever was a static member.
    has_static: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// Whether anybody ever joined since the group was created or deleted.
    known: bool,
    /// When the last member went.
    emptied: Option<Timestamp>,
    members: BTreeMap<Arc<str>, Member>,
    /// What members follow that name none.
    assignor: Named,
    /// Rises with every change of what a plan is made from.
    generation: u32,
    /// The generation that the targets are for.
    planned: u32,
    /// The state of the log's topics that `topics` was read from.
    version: Option<u64>,
    /// Id and partition count of the topics that exist and that a member subscribes to.
    topics: BTreeMap<String, (u64, u32)>,
    owned: BTreeMap<Place, Arc<str>>,
}

/// A member as the group sees it.
struct Member {
    seat: Arc<Seat>,
    asked: Subscription,
    /// Those that it would follow; the group's where it names none.
    assignors: Assignors,
    /// A static member whose consumer is closed: its seat is kept for the next one.
    away: bool,
    /// Its consumer was in an earlier process: nobody knows which assignors it would follow.
    revived: bool,
    target: BTreeSet<Place>,
}

impl Member {
    /// When it will be taken out if it is not heard from `now` on.
    fn due(&self, now: Timestamp) -> Timestamp {
        let allowed = if self.away { self.seat.session_timeout } else { self.seat.max_poll_interval };
        self.seat.due(allowed, now)
    }

    /// When somebody has to look at it next: before it is taken out its user is warned.
    fn look_due(&self, now: Timestamp) -> Timestamp {
        if self.away { self.due(now) } else { self.seat.warning_due(now).unwrap_or_else(|| self.due(now)) }
    }
}

/// What a description of the group is made from.
pub(crate) struct Snapshot {
    pub(crate) known: bool,
    pub(crate) generation: u32,
    pub(crate) stage: GroupState,
    pub(crate) assignor: Arc<str>,
    pub(crate) members: Vec<MemberSnapshot>,
    pub(crate) topics: BTreeMap<String, (u64, u32)>,
}

pub(crate) struct MemberSnapshot {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) subscriptions: Vec<String>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) owned: Vec<TopicPartition>,
    pub(crate) away: bool,
    pub(crate) silent_for: Duration,
    pub(crate) starved_for: Option<Duration>,
    pub(crate) late: bool,
}

impl Group {
    pub(crate) fn new(name: &str, engine: &Arc<Engine>) -> Self {
        Group {
            name: name.into(),
            engine: Arc::clone(engine),
            change: AtomicU64::new(0),
            due: AtomicI64::new(i64::MAX),
            revived: AtomicBool::new(false),
            has_static: AtomicBool::new(false),
            state: Mutex::new(State {
                known: false,
                emptied: None,
                members: BTreeMap::new(),
                assignor: Named::new(CooperativeSticky),
                generation: 0,
                planned: 0,
                version: None,
                topics: BTreeMap::new(),
                owned: BTreeMap::new(),
            }),
        }
    }

    pub(crate) fn change(&self) -> u64 {
        self.change.load(Ordering::Acquire)
    }

    /// Tells the members, `but` excepted, that there may be something to do.
    fn changed(&self, state: &State, but: Option<&str>) {
        self.change.fetch_add(1, Ordering::AcqRel);
        state.members.iter().filter(|(id, _)| but != Some(&**id)).for_each(|(_, m)| m.seat.signal.ring());
    }

    pub(crate) fn set_assignor(&self, assignor: Named) {
        let before = {
            let mut state = self.state.lock();
            if !state.members.is_empty() {
                state.generation += 1;
                self.changed(&state, None);
            }
            std::mem::replace(&mut state.assignor, assignor)
        };
        drop(before); // the user's: not under the lock
    }

    /// Takes in a member, or seats it in place of one with the same instance id.
    ///
    /// # Errors
    /// `InconsistentGroupProtocol` where it names no assignor that the others name.
    pub(crate) fn join(
        &self,
        id: Arc<str>,
        options: &Options,
        asked: Subscription,
        signal: &Arc<Signal>,
        now: Timestamp,
    ) -> Result<Arc<Seat>> {
        self.look(now);
        let mut assignors = options.assignors.clone();
        let mut state = self.state.lock();
        let same =
            |member: &Member| options.instance_id.is_some() && member.seat.instance_id == options.instance_id;
        let before =
            state.members.values().find(|member| same(member)).map(|member| Arc::clone(&member.seat));
        state.check_assignors(&assignors, before.as_deref())?;
        state.known = true;
        let id = before.as_ref().map_or(id, |before| Arc::clone(&before.id));
        let allowed = [options.max_poll_interval, options.session_timeout];
        let seat = Seat::new(Arc::clone(&id), options.instance_id.clone(), allowed, Arc::clone(signal), now);
        if let Some(member) = state.members.get_mut(&id) {
            member.seat.end(Fate::Replaced);
            if !member.away {
                self.engine.tell(Event::MemberReplaced {
                    group: self.name.to_string(),
                    member: id.to_string(),
                    instance_id: options.instance_id.clone().unwrap_or_default(),
                });
            }
            member.seat = Arc::clone(&seat);
            (member.away, member.revived) = (false, false);
            let renamed = member.assignors.names() != assignors.names();
            std::mem::swap(&mut member.assignors, &mut assignors); // the old ones are not dropped under the lock
            if member.asked != asked || renamed {
                member.asked = asked;
                self.replan(&mut state);
            }
        } else {
            let target = BTreeSet::new();
            let (away, revived) = (false, false);
            let member = Member { seat: Arc::clone(&seat), asked, assignors, away, revived, target };
            state.members.insert(id, member);
            self.replan(&mut state);
        }
        if seat.instance_id.is_some() {
            self.has_static.store(true, Ordering::Release);
        }
        self.schedule(&state, now);
        drop(state);
        Ok(seat)
    }

    /// Changes what a member subscribes to; where it is the same, nothing.
    ///
    /// # Errors
    /// What its seat is refused with.
    pub(crate) fn subscribe(&self, seat: &Arc<Seat>, asked: Subscription) -> Result<()> {
        let mut state = self.state.lock();
        let member = state.member(seat)?;
        if member.asked != asked {
            member.asked = asked;
            self.replan(&mut state);
        }
        Ok(())
    }

    /// Has a new plan made though nothing has changed.
    ///
    /// # Errors
    /// What the seat is refused with.
    pub(crate) fn rebalance(&self, seat: &Arc<Seat>) -> Result<()> {
        let mut state = self.state.lock();
        state.member(seat)?;
        self.replan(&mut state);
        Ok(())
    }

    /// Something has changed that plans are made from.
    fn replan(&self, state: &mut State) {
        state.generation += 1;
        state.version = None;
        if state.members.is_empty() {
            state.planned = state.generation;
        }
        self.changed(state, None);
    }

    /// Removes a member and frees what it owns; the others share that out on their next polls.
    pub(crate) fn leave(&self, seat: &Arc<Seat>, now: Timestamp) {
        let mut state = self.state.lock();
        let gone = match state.member(seat) {
            Ok(_) => self.remove(&mut state, &seat.id, Fate::Left, now),
            Err(_) => None,
        };
        drop(state);
        drop(gone);
    }

    /// The consumer of a static member is gone: its seat is kept for the next one.
    pub(crate) fn step_away(&self, seat: &Arc<Seat>, now: Timestamp) {
        let mut state = self.state.lock();
        if let Ok(member) = state.member(seat) {
            seat.exit(now);
            member.away = true;
            self.schedule(&state, now);
        }
    }

    fn remove(&self, state: &mut State, id: &Arc<str>, fate: Fate, now: Timestamp) -> Option<Member> {
        let member = state.members.remove(id)?;
        state.emptied = state.members.is_empty().then_some(now);
        member.seat.end(fate);
        state.owned.retain(|_, owner| owner != id);
        self.replan(state);
        Some(member)
    }

    /// Takes out the members that have been silent for too long by `now`, and warns of those that soon will have been.
    pub(crate) fn look(&self, now: Timestamp) {
        if now.as_nanos() < self.due.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.lock();
        let late: Vec<_> = state.members.iter().filter(|(_, m)| m.due(now) <= now).collect();
        let late: Vec<Arc<str>> = late.into_iter().map(|(id, _)| Arc::clone(id)).collect();
        let gone: Vec<_> =
            late.iter().filter_map(|id| self.remove(&mut state, id, Fate::TimedOut, now)).collect();
        let warned = state.members.values().filter(|member| !member.away && member.seat.warns(now));
        let warned: Vec<_> = warned.map(|member| Arc::clone(&member.seat)).collect();
        self.schedule(&state, now);
        drop(state);
        let of = |seat: &Seat| (self.name.to_string(), seat.id.to_string(), seat.silent_for(now));
        for seat in warned {
            let (group, member, silent_for) = of(&seat);
            self.engine.tell(Event::MemberLate { group, member, silent_for });
        }
        // What is the user's in them is let go of here: not under the lock.
        for gone in gone {
            let (group, member, silent_for) = of(&gone.seat);
            self.engine.tell(Event::MemberTimedOut { group, member, silent_for });
        }
    }

    /// Says when to look for silent members next. Who is inside of a poll may leave it at once, and has all its time
    /// from then on.
    fn schedule(&self, state: &State, now: Timestamp) {
        let due = state.members.values().map(|member| member.look_due(now)).min();
        self.due.store(due.unwrap_or(Timestamp::MAX).as_nanos(), Ordering::Release);
    }

    /// Brings the target up to date with members and topics; returns the `change` that it stands for. Who then takes
    /// all its steps has nothing to do until that differs. (Not: until it differs from what it is after the
    /// steps. Somebody may have let go of something in between, for which a plan is due.)
    ///
    /// # Errors
    /// `UserCode` where the assignor panicked or its plan cannot be followed: the target then stays as it was.
    pub(crate) fn refresh(&self, log: &LogCore) -> Result<u64> {
        loop {
            let (assignor, facts, generation, ids) = {
                let mut state = self.state.lock();
                let version = log.version();
                if state.version != Some(version) {
                    let topics = state.topics_in(log);
                    // A plan that is due anyway takes in the new topics.
                    if topics != state.topics && state.planned == state.generation {
                        state.generation += 1;
                    }
                    state.topics = topics;
                    state.version = Some(version);
                }
                if state.planned == state.generation {
                    return Ok(self.change());
                }
                (state.assignor(), state.facts(), state.generation, state.topics.clone())
            };
            let plan = catch_unwind(AssertUnwindSafe(|| assignor.assignor.assign(&facts)))
                .map_err(|_| Error::new(ErrorKind::UserCode, "the assignor panicked"))?;
            let mut targets = check_plan(&facts, plan, &ids)?;
            let mut state = self.state.lock();
            if state.generation != generation {
                continue; // the facts changed while the assignor looked at them
            }
            for (id, member) in &mut state.members {
                member.target = targets.remove(&**id).unwrap_or_default();
            }
            state.planned = generation;
            self.changed(&state, None);
            return Ok(self.change());
        }
    }

    /// What the member has to do next.
    ///
    /// # Errors
    /// What its seat is refused with.
    pub(crate) fn step(&self, seat: &Arc<Seat>) -> Result<Step> {
        let mut state = self.state.lock();
        state.member(seat)?;
        let state = &mut *state;
        let (id, member) = (&seat.id, &state.members[&seat.id]);
        let (kept, foreign): (Vec<_>, Vec<_>) =
            state.owned_by(id).cloned().partition(|place| member.target.contains(place));
        if !foreign.is_empty() {
            return Ok(Step::GiveUp(foreign));
        }
        let free: Vec<_> = member.target.iter().filter(|p| !state.owned.contains_key(p)).cloned().collect();
        state.owned.extend(free.iter().map(|place| (place.clone(), Arc::clone(id))));
        Ok(Step::Take([kept, free].concat()))
    }

    /// Frees what a member gave up. What the plan gave to nobody, since it was still owned, takes a new plan; and a plan
    /// that is being made may be about to do so.
    pub(crate) fn release(&self, seat: &Arc<Seat>, places: &[Place]) {
        let mut state = self.state.lock();
        if state.member(seat).is_err() {
            return; // what it owned went elsewhere with its seat
        }
        let planned = |place| state.members.values().any(|member| member.target.contains(place));
        if state.planned != state.generation || !places.iter().all(planned) {
            state.generation += 1;
        }
        for place in places {
            if state.owned.get(place).is_some_and(|owner| *owner == seat.id) {
                state.owned.remove(place);
            }
        }
        self.changed(&state, Some(&seat.id));
    }

    /// Whether this commit may be made now. It is a sign of life.
    pub(crate) fn check_commit(
        &self,
        seat: Option<&Arc<Seat>>,
        entries: &[Entry],
        now: Timestamp,
    ) -> Result<()> {
        let mut state = self.state.lock();
        match seat {
            Some(seat) => {
                let target = match state.member(seat) {
                    Ok(member) => member.target.clone(),
                    Err(e) if seat.fate() == Fate::TimedOut => {
                        return Err(
                            Error::new(ErrorKind::CommitFailed, "the commit comes too late").caused_by(e)
                        );
                    }
                    Err(e) => return Err(e),
                };
                seat.hear(now);
                for entry in entries {
                    let place = Place { tp: entry.tp.clone(), topic_id: entry.topic_id };
                    if state.owned.get(&place).is_some_and(|owner| *owner == seat.id) {
                        continue;
                    }
                    let (kind, message) = if target.contains(&place) {
                        (
                            ErrorKind::RebalanceInProgress,
                            "the partition is on its way to the member: poll first",
                        )
                    } else {
                        (ErrorKind::CommitFailed, "the member does not own the partition (any longer)")
                    };
                    return Err(at(Error::new(kind, message), &entry.tp));
                }
            }
            None if !state.members.is_empty() => {
                let message = "the group has members: only they commit for it";
                return Err(Error::new(ErrorKind::UnknownMemberId, message));
            }
            None => {}
        }
        state.known = true;
        Ok(())
    }

    /// Makes the group as if it had never been, if that may be done now.
    pub(crate) fn forget(&self, has_offsets: bool) -> Result<()> {
        let mut state = self.state.lock();
        if !state.members.is_empty() {
            let message = format!("group {:?} has {} members", self.name, state.members.len());
            return Err(Error::new(ErrorKind::GroupNotEmpty, message));
        }
        if !state.known && !has_offsets {
            return Err(Error::new(ErrorKind::GroupIdNotFound, format!("no group {:?}", self.name)));
        }
        state.known = false;
        (state.generation, state.planned) = (0, 0);
        Ok(())
    }

    /// What its committed offsets are there for while it has members; else when the last one went, if there was one.
    pub(crate) fn use_of_offsets(&self) -> (Option<Use>, Option<Timestamp>) {
        let state = self.state.lock();
        let found = match state.stage() {
            _ if state.members.is_empty() => None,
            GroupState::Stable => Some(Use::Reads(state.topics.values().map(|(id, _)| *id).collect())),
            _ => Some(Use::Moving),
        };
        (found, state.emptied)
    }

    pub(crate) fn snapshot(&self, log: &LogCore) -> Snapshot {
        let now = log.engine.clock.roughly_now();
        self.look(now);
        let state = self.state.lock();
        let topics = state.topics_in(log);
        let members = state.members.iter().map(|(id, member)| {
            let silent_for = member.seat.silent_for(now);
            MemberSnapshot {
                id: id.to_string(),
                instance_id: member.seat.instance_id.clone(),
                subscriptions: member.asked.names(&topics),
                pattern: member.asked.pattern().cloned(),
                owned: state.owned_by(id).map(|place| place.tp.clone()).collect(),
                away: member.away,
                silent_for,
                starved_for: member.seat.starved_for(now),
                late: !member.away && silent_for > member.seat.patience(),
            }
        });
        Snapshot {
            known: state.known,
            generation: state.generation,
            stage: state.stage(),
            assignor: state.assignor().name,
            members: members.collect(),
            topics,
        }
    }
}

impl Job for Group {
    fn due(&self) -> Option<Timestamp> {
        let due = self.due.load(Ordering::Acquire);
        (due != i64::MAX).then(|| Timestamp::from_nanos(due))
    }

    fn run(&self, now: Timestamp) {
        self.look(now);
    }
}

impl State {
    /// The member whose seat this is.
    fn member(&mut self, seat: &Arc<Seat>) -> Result<&mut Member> {
        let member = self.members.get_mut(&seat.id).filter(|member| Arc::ptr_eq(&member.seat, seat));
        member.ok_or_else(|| seat.refusal())
    }

    /// Where the group stands, if it is one at all.
    fn stage(&self) -> GroupState {
        let moved = |(id, member): (&Arc<str>, &Member)| self.owned_by(id).eq(&member.target);
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.planned != self.generation {
            GroupState::Assigning
        } else if self.members.iter().all(moved) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// The assignor that the group follows.
    fn assignor(&self) -> Named {
        let known = self.members.values().filter(|member| !member.revived);
        let lists: Vec<_> = known.map(|m| self.names(&m.assignors)).collect();
        let offered = self.members.values().flat_map(|member| &member.assignors.0);
        let mut offered = offered.chain([&self.assignor]);
        let found = select(&lists).and_then(|name| offered.find(|named| *named.name == *name));
        found.unwrap_or(&self.assignor).clone()
    }

    /// The names of the assignors that a member would follow.
    fn names<'a>(&'a self, assignors: &'a Assignors) -> Vec<&'a str> {
        if assignors.0.is_empty() { vec![&self.assignor.name] } else { assignors.names() }
    }

    /// Refuses a member that no plan could be made for together with the others, `but` excepted.
    fn check_assignors(&self, assignors: &Assignors, but: Option<&Seat>) -> Result<()> {
        let known = self.members.values().filter(|member| !member.revived);
        let others = known.filter(|member| but.is_none_or(|but| but.id != member.seat.id));
        let mut lists: Vec<_> = others.map(|member| self.names(&member.assignors)).collect();
        if lists.is_empty() {
            return Ok(());
        }
        let own = self.names(assignors);
        lists.push(own.clone());
        if select(&lists).is_some() {
            return Ok(());
        }
        let message = format!("no assignor of {own:?} is one that all other members name");
        Err(Error::new(ErrorKind::InconsistentGroupProtocol, message))
    }

    fn owned_by<'a>(&'a self, id: &'a Arc<str>) -> impl Iterator<Item = &'a Place> {
        self.owned.iter().filter(move |(_, owner)| *owner == id).map(|(place, _)| place)
    }

    fn topics_in(&self, log: &LogCore) -> BTreeMap<String, (u64, u32)> {
        let mut found: Vec<Arc<TopicCore>> = Vec::new();
        let mut patterns = Vec::new();
        for member in self.members.values() {
            match &member.asked {
                Subscription::Topics(names) => found.extend(names.iter().filter_map(|n| log.topic(n).ok())),
                Subscription::Pattern(pattern) => patterns.push(pattern),
            }
        }
        if !patterns.is_empty() {
            let matches = |topic: &Arc<TopicCore>| patterns.iter().any(|p| p.matches(&topic.name));
            found.extend(log.topics().into_iter().filter(matches));
        }
        found.iter().map(|topic| (topic.name.to_string(), (topic.id, topic.partition_count()))).collect()
    }

    fn facts(&self) -> GroupFacts {
        let mut facts = GroupFacts::new();
        for (name, (_, partitions)) in &self.topics {
            facts = facts.topic(name.as_str(), *partitions);
        }
        for (id, member) in &self.members {
            let mut of_member = MemberFacts::new(&**id).subscribe(member.asked.names(&self.topics));
            of_member.instance_id.clone_from(&member.seat.instance_id);
            let owned: Vec<_> = self.owned_by(id).map(|place| place.tp.clone()).collect();
            if !owned.is_empty() {
                of_member = of_member.owned(self.planned, owned);
            }
            facts = facts.member(of_member);
        }
        facts
    }
}

/// Refuses a plan that gives a partition twice, to a stranger, to one who did not ask, or that does not exist.
fn check_plan(
    facts: &GroupFacts,
    plan: BTreeMap<String, Vec<TopicPartition>>,
    ids: &BTreeMap<String, (u64, u32)>,
) -> Result<HashMap<String, BTreeSet<Place>>> {
    let refused = |what: String| Error::new(ErrorKind::UserCode, format!("the assignor's plan {what}"));
    let mut given = BTreeSet::new();
    let mut targets = HashMap::new();
    for (id, partitions) in plan {
        let Some(member) = facts.members.iter().find(|m| m.id == id) else {
            return Err(refused(format!("names {id:?}, which is no member")));
        };
        let mut target = BTreeSet::new();
        for tp in partitions {
            let known = ids.get(tp.topic()).filter(|(_, count)| tp.partition() < *count);
            let Some((topic_id, _)) = known else {
                return Err(at(refused("has a partition that does not exist".into()), &tp));
            };
            if !member.subscriptions.contains(tp.topic()) {
                return Err(at(refused(format!("gives {id:?} what it did not subscribe to")), &tp));
            }
            if !given.insert(tp.clone()) {
                return Err(at(refused("gives a partition twice".into()), &tp));
            }
            target.insert(Place { tp, topic_id: *topic_id });
        }
        targets.insert(id, target);
    }
    Ok(targets)
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
