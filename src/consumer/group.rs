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
//! User code (assignors, listeners) runs with no lock held.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::consumer::assignor::{Assignor, CooperativeSticky, GroupFacts, MemberFacts};
use crate::consumer::committed::{Committed, Entry, at};
use crate::consumer::share::group::Shares;
use crate::error::{Error, ErrorKind, Result};
use crate::log::core::LogCore;
use crate::partition::watermarks::Signal;
use crate::topic_partition::TopicPartition;

/// All groups of a log, and what they committed: kept in the log's slot for this floor.
#[derive(Default)]
pub(crate) struct Groups {
    pub(crate) committed: Committed,
    pub(crate) shares: Shares,
    /// Never shrinks, so that two handles of one name always mean the same group.
    groups: Mutex<HashMap<String, Arc<Group>>>,
    epochs: AtomicU64,
    members: AtomicU64,
}

impl Groups {
    /// Those of `log`.
    pub(crate) fn of(log: &LogCore) -> Arc<Groups> {
        log.upper(Groups::default)
    }

    /// The group called `name`.
    pub(crate) fn group(&self, name: &str) -> Arc<Group> {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get(name) {
            return Arc::clone(group);
        }
        let group = Arc::new(Group::new(name));
        groups.insert(name.to_owned(), Arc::clone(&group));
        group
    }

    /// A number for one stay of a partition with one consumer; never 0, never given twice.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// An id for a member; ids sort in the order in which members come.
    pub(crate) fn next_member(&self) -> Arc<str> {
        format!("member-{:08}", self.members.fetch_add(1, Ordering::Relaxed) + 1).into()
    }

    /// Commits for a group: as one of its members, or from outside while it has none.
    pub(crate) fn commit(
        &self,
        log: &LogCore,
        group: &Group,
        member: Option<&str>,
        entries: &[Entry],
    ) -> Result<()> {
        self.committed.commit(log, &group.name, entries, || group.check_commit(member, entries))
    }
}

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
    /// These are the member's now; it has come as far as it can until `change` differs.
    Take { places: Vec<Place>, change: u64 },
}

/// One group.
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    /// Rises with whatever a member may have to act on: one load tells a poll that there is nothing.
    change: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// Whether anybody ever joined since the group was created or deleted.
    known: bool,
    members: BTreeMap<Arc<str>, Member>,
    assignor: Arc<dyn Assignor>,
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

/// A member as the group sees it. When it polled last will stand here, once silence has consequences.
struct Member {
    subscriptions: BTreeSet<String>,
    instance_id: Option<String>,
    signal: Arc<Signal>,
    target: BTreeSet<Place>,
}

/// What a description of the group is made from.
pub(crate) struct Snapshot {
    pub(crate) known: bool,
    pub(crate) generation: u32,
    pub(crate) settled: bool,
    pub(crate) assignor: Arc<dyn Assignor>,
    pub(crate) members: Vec<MemberSnapshot>,
    pub(crate) topics: BTreeMap<String, (u64, u32)>,
}

pub(crate) struct MemberSnapshot {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) subscriptions: Vec<String>,
    pub(crate) owned: Vec<TopicPartition>,
}

impl Group {
    fn new(name: &str) -> Self {
        Group {
            name: name.into(),
            change: AtomicU64::new(0),
            state: Mutex::new(State {
                known: false,
                members: BTreeMap::new(),
                assignor: Arc::new(CooperativeSticky),
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
        state.members.iter().filter(|(id, _)| but != Some(&**id)).for_each(|(_, m)| m.signal.ring());
    }

    pub(crate) fn set_assignor(&self, assignor: Arc<dyn Assignor>) {
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

    /// Adds a member, or changes what one subscribes to.
    pub(crate) fn join(
        &self,
        id: &Arc<str>,
        instance_id: Option<&String>,
        subscriptions: BTreeSet<String>,
        signal: &Arc<Signal>,
    ) {
        let mut state = self.state.lock();
        state.known = true;
        match state.members.get_mut(id) {
            Some(member) if member.subscriptions == subscriptions => return,
            Some(member) => member.subscriptions = subscriptions,
            None => {
                let member = Member {
                    subscriptions,
                    instance_id: instance_id.cloned(),
                    signal: Arc::clone(signal),
                    target: BTreeSet::new(),
                };
                state.members.insert(Arc::clone(id), member);
            }
        }
        state.generation += 1;
        state.version = None;
        self.changed(&state, None);
    }

    /// Removes a member and frees what it owns; the others share that out on their next polls.
    pub(crate) fn leave(&self, id: &str) {
        let mut state = self.state.lock();
        if state.members.remove(id).is_none() {
            return;
        }
        state.owned.retain(|_, owner| **owner != *id);
        state.generation += 1;
        state.version = None;
        if state.members.is_empty() {
            state.planned = state.generation;
        }
        self.changed(&state, None);
    }

    /// Brings the target up to date with members and topics.
    ///
    /// # Errors
    /// `UserCode` where the assignor panicked or its plan cannot be followed: the target then stays as it was.
    pub(crate) fn refresh(&self, log: &LogCore) -> Result<()> {
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
                    return Ok(());
                }
                (Arc::clone(&state.assignor), state.facts(), state.generation, state.topics.clone())
            };
            let plan = catch_unwind(AssertUnwindSafe(|| assignor.assign(&facts)))
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
            return Ok(());
        }
    }

    /// What member `id` has to do next.
    ///
    /// # Errors
    /// `UnknownMemberId` where it is no longer in the group.
    pub(crate) fn step(&self, id: &Arc<str>) -> Result<Step> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(member) = state.members.get(id) else { return Err(unknown_member(id)) };
        let foreign =
            state.owned.iter().filter(|(place, owner)| *owner == id && !member.target.contains(place));
        let foreign: Vec<_> = foreign.map(|(place, _)| place.clone()).collect();
        if !foreign.is_empty() {
            return Ok(Step::GiveUp(foreign));
        }
        let free: Vec<_> = member.target.iter().filter(|p| !state.owned.contains_key(p)).cloned().collect();
        state.owned.extend(free.iter().map(|place| (place.clone(), Arc::clone(id))));
        Ok(Step::Take { places: free, change: self.change() })
    }

    /// Frees what a member gave up. What the plan gave to nobody, since it was still owned, takes a new plan.
    pub(crate) fn release(&self, id: &Arc<str>, places: &[Place]) {
        let mut state = self.state.lock();
        let planned = |place| state.members.values().any(|member| member.target.contains(place));
        if state.planned == state.generation && !places.iter().all(planned) {
            state.generation += 1;
        }
        for place in places {
            if state.owned.get(place).is_some_and(|owner| owner == id) {
                state.owned.remove(place);
            }
        }
        self.changed(&state, Some(id));
    }

    /// Whether this commit may be made now.
    fn check_commit(&self, member: Option<&str>, entries: &[Entry]) -> Result<()> {
        let mut state = self.state.lock();
        match member {
            Some(id) if !state.members.contains_key(id) => return Err(unknown_member(id)),
            Some(id) => {
                for entry in entries {
                    let place = Place { tp: entry.tp.clone(), topic_id: entry.topic_id };
                    if state.owned.get(&place).is_none_or(|owner| **owner != *id) {
                        let message = "the member does not own the partition (any longer)";
                        return Err(at(Error::new(ErrorKind::CommitFailed, message), &entry.tp));
                    }
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

    pub(crate) fn snapshot(&self, log: &LogCore) -> Snapshot {
        let state = self.state.lock();
        let members = state.members.iter().map(|(id, member)| MemberSnapshot {
            id: id.to_string(),
            instance_id: member.instance_id.clone(),
            subscriptions: member.subscriptions.iter().cloned().collect(),
            owned: state.owned_by(id).map(|place| place.tp.clone()).collect(),
        });
        let members = members.collect();
        let moved = |(id, member): (&Arc<str>, &Member)| state.owned_by(id).eq(&member.target);
        Snapshot {
            known: state.known,
            generation: state.generation,
            settled: state.planned == state.generation && state.members.iter().all(moved),
            assignor: Arc::clone(&state.assignor),
            members,
            topics: state.topics_in(log),
        }
    }
}

impl State {
    fn owned_by<'a>(&'a self, id: &'a Arc<str>) -> impl Iterator<Item = &'a Place> {
        self.owned.iter().filter(move |(_, owner)| *owner == id).map(|(place, _)| place)
    }

    fn topics_in(&self, log: &LogCore) -> BTreeMap<String, (u64, u32)> {
        let wanted: BTreeSet<&String> = self.members.values().flat_map(|m| &m.subscriptions).collect();
        let found = wanted.into_iter().filter_map(|name| {
            let topic = log.topic(name).ok()?;
            Some((name.clone(), (topic.id, topic.partition_count())))
        });
        found.collect()
    }

    fn facts(&self) -> GroupFacts {
        let mut facts = GroupFacts::new();
        for (name, (_, partitions)) in &self.topics {
            facts = facts.topic(name.as_str(), *partitions);
        }
        for (id, member) in &self.members {
            let mut of_member = MemberFacts::new(&**id).subscribe(member.subscriptions.iter().cloned());
            of_member.instance_id.clone_from(&member.instance_id);
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

fn unknown_member(id: &str) -> Error {
    Error::new(ErrorKind::UnknownMemberId, format!("{id:?} is not in the group"))
}
