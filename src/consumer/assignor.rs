//! Who reads which partition: pure plans, from the facts of a group to an assignment.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use crate::consumer::sticky::{CooperativeSticky, Sticky};
use crate::topic_partition::TopicPartition;

/// Distributes the partitions of a group's topics over its members.
///
/// A pure function: the same facts give the same plan. It is called when the group rebalances, never under a
/// lock of the log. Every member must be in the answer, with an empty list where it gets nothing; a partition
/// goes to one member at most, and to one that subscribes to its topic.
///
/// ```
/// use std::collections::BTreeMap;
/// use tapelog::TopicPartition;
/// use tapelog::assignor::{Assignor, GroupFacts, MemberFacts, Range};
///
/// /// Everything to the member with the smallest id: a hot standby.
/// struct First;
/// impl Assignor for First {
///     fn name(&self) -> &str { "first" }
///     fn assign(&self, facts: &GroupFacts) -> BTreeMap<String, Vec<TopicPartition>> {
///         let mut plan: BTreeMap<_, _> = facts.members.iter().map(|m| (m.id.clone(), Vec::new())).collect();
///         for (topic, partitions) in &facts.topics {
///             if let Some(m) = facts.subscribers(topic).iter().min_by_key(|m| &m.id) {
///                 let all = (0..*partitions).map(|p| TopicPartition::new(topic.as_str(), p));
///                 plan.entry(m.id.clone()).or_default().extend(all);
///             }
///         }
///         plan
///     }
/// }
///
/// let facts = GroupFacts::new()
///     .topic("ticks", 3)
///     .member(MemberFacts::new("a").subscribe(["ticks"]))
///     .member(MemberFacts::new("b").subscribe(["ticks"]));
/// assert_eq!(First.assign(&facts)["a"].len(), 3);
/// assert_eq!(Range.assign(&facts)["a"].len(), 2);
/// ```
pub trait Assignor: Send + Sync + 'static {
    /// The name that the group is described with.
    fn name(&self) -> &str;

    /// The partitions of each member, by member id.
    fn assign(&self, facts: &GroupFacts) -> BTreeMap<String, Vec<TopicPartition>>;
}

/// What an [`Assignor`] is told of a group: its members and the topics that exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupFacts {
    /// The members, in no order that means anything; ids are unique.
    pub members: Vec<MemberFacts>,
    /// The partition count of every topic that exists and that a member subscribes to.
    pub topics: BTreeMap<String, u32>,
}

impl GroupFacts {
    /// No members, no topics.
    #[must_use]
    pub fn new() -> Self {
        GroupFacts::default()
    }

    /// The same with a topic of so many partitions.
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>, partitions: u32) -> Self {
        self.topics.insert(name.into(), partitions);
        self
    }

    /// The same with one more member.
    #[must_use]
    pub fn member(mut self, member: MemberFacts) -> Self {
        self.members.push(member);
        self
    }

    /// The members in Kafka's order: those with an instance id first, by it; then the others, by member id.
    #[must_use]
    pub fn sorted_members(&self) -> Vec<&MemberFacts> {
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by(|a, b| a.order(b));
        members
    }

    /// The members that subscribe to `topic`, in the order of [`GroupFacts::sorted_members`].
    #[must_use]
    pub fn subscribers(&self, topic: &str) -> Vec<&MemberFacts> {
        let mut members = self.sorted_members();
        members.retain(|m| m.subscriptions.contains(topic));
        members
    }

    /// A plan in which every member is and none has anything.
    fn empty_plan(&self) -> BTreeMap<String, Vec<TopicPartition>> {
        self.members.iter().map(|m| (m.id.clone(), Vec::new())).collect()
    }
}

/// What an [`Assignor`] is told of one member of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberFacts {
    /// The id that the group gave the member when it joined.
    pub id: String,
    /// The name that a static member keeps over restarts.
    pub instance_id: Option<String>,
    /// The topics that it wants, existing or not.
    pub subscriptions: BTreeSet<String>,
    /// What it says that it owns from before.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it owned that; `None` for a member that is new.
    pub generation: Option<u32>,
}

impl MemberFacts {
    /// A member without subscriptions.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        MemberFacts { id: id.into(), ..MemberFacts::default() }
    }

    /// The same as a static member.
    #[must_use]
    pub fn instance_id(mut self, instance_id: impl Into<String>) -> Self {
        self.instance_id = Some(instance_id.into());
        self
    }

    /// The same with more subscriptions.
    #[must_use]
    pub fn subscribe<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.subscriptions.extend(topics.into_iter().map(Into::into));
        self
    }

    /// The same with partitions that it owned in `generation`.
    #[must_use]
    pub fn owned(mut self, generation: u32, partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        self.owned.extend(partitions);
        self.generation = Some(generation);
        self
    }

    fn order(&self, other: &Self) -> Ordering {
        let by_instance = match (&self.instance_id, &other.instance_id) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        by_instance.then_with(|| self.id.cmp(&other.id))
    }
}

/// Kafka's range assignor: of every topic, each subscriber gets a run of neighbouring partitions.
///
/// The runs are equally long but for the first subscribers, which get one more where the division leaves a
/// rest. Topics with the same partition count and the same subscribers are therefore assigned alike: who reads
/// partition 3 of one reads partition 3 of the other, which a join of the two needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range;

impl Assignor for Range {
    fn name(&self) -> &str {
        "range"
    }

    fn assign(&self, facts: &GroupFacts) -> BTreeMap<String, Vec<TopicPartition>> {
        let mut plan = facts.empty_plan();
        let members = facts.sorted_members();
        for (topic, partitions) in &facts.topics {
            let name: Arc<str> = topic.as_str().into();
            let mut left = *partitions;
            let subscribers: Vec<_> = members.iter().filter(|m| m.subscriptions.contains(topic)).collect();
            for (i, member) in subscribers.iter().enumerate() {
                // An equal share of what is left, rounded up: the rest goes to the first.
                let share = left.div_ceil((subscribers.len() - i) as u32);
                let start = partitions - left;
                let run = (start..start + share).map(|p| TopicPartition::new(Arc::clone(&name), p));
                plan.entry(member.id.clone()).or_default().extend(run);
                left -= share;
            }
        }
        plan
    }
}

/// Kafka's round-robin assignor: all partitions of all topics, in order, are dealt to the members in a ring.
///
/// A member that does not subscribe to a topic is passed over; where subscriptions differ, the outcome can be
/// far from even.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundRobin;

impl Assignor for RoundRobin {
    fn name(&self) -> &str {
        "roundrobin"
    }

    fn assign(&self, facts: &GroupFacts) -> BTreeMap<String, Vec<TopicPartition>> {
        let mut plan = facts.empty_plan();
        let ring = facts.sorted_members();
        let mut next = 0;
        for (topic, partitions) in &facts.topics {
            let name: Arc<str> = topic.as_str().into();
            for partition in 0..*partitions {
                // From where the ring stands, the first that subscribes; it stands still for a topic of nobody.
                let turns = (0..ring.len()).map(|step| (next + step) % ring.len());
                let Some(i) = turns.into_iter().find(|i| ring[*i].subscriptions.contains(topic)) else {
                    break;
                };
                let dealt = TopicPartition::new(Arc::clone(&name), partition);
                plan.entry(ring[i].id.clone()).or_default().push(dealt);
                next = i + 1;
            }
        }
        plan
    }
}

/// Which of the assignors that members name, each the one it likes best first, the group follows: of those that all
/// members name, the one that most like best; of equals, the one that the first member names first.
/// `None` where they have none in common. (Kafka: `ClassicGroup.selectProtocol`.)
pub(crate) fn select<'a>(members: &[Vec<&'a str>]) -> Option<&'a str> {
    let common = |name: &&str| members.iter().all(|names| names.contains(name));
    let best = |names: &Vec<&'a str>| names.iter().copied().find(common);
    let votes: Vec<&str> = members.iter().filter_map(best).collect();
    let mut candidates = members.first()?.iter().copied().filter(common).collect::<Vec<_>>();
    // A stable sort: the first member's order stays among equals.
    candidates.sort_by_key(|name| std::cmp::Reverse(votes.iter().filter(|vote| *vote == name).count()));
    candidates.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assignor_that_most_like_best_of_those_that_all_name() {
        let (range, round, own) = ("range", "roundrobin", "own");
        let cases: [(&[&[&str]], Option<&str>); 7] = [
            (&[], None),
            (&[&[range, round]], Some(range)),
            (&[&[range, round], &[round, range]], Some(range)),
            (&[&[range, round], &[round, range], &[round, range]], Some(round)),
            (&[&[own, range], &[range, round]], Some(range)),
            (&[&[own, range, round], &[own, round, range], &[round, range]], Some(round)),
            (&[&[range], &[round]], None),
        ];
        for (members, expected) in cases {
            let members: Vec<Vec<&str>> = members.iter().map(|names| names.to_vec()).collect();
            assert_eq!(select(&members), expected, "{members:?}");
        }
    }

    #[test]
    fn static_members_come_first_by_instance_then_others_by_id() {
        let facts = GroupFacts::new()
            .member(MemberFacts::new("d"))
            .member(MemberFacts::new("c").instance_id("2"))
            .member(MemberFacts::new("b").instance_id("10"))
            .member(MemberFacts::new("a"));
        let order: Vec<_> = facts.sorted_members().iter().map(|m| m.id.as_str()).collect();
        assert_eq!(order, ["b", "c", "a", "d"]);
    }

    #[test]
    fn a_topic_that_nobody_wants_is_left_alone() {
        let facts = GroupFacts::new()
            .topic("idle", 4)
            .topic("ticks", 3)
            .member(MemberFacts::new("a").subscribe(["ticks"]))
            .member(MemberFacts::new("b").subscribe(["ticks", "missing"]));
        for assignor in [&Range as &dyn Assignor, &RoundRobin] {
            let plan = assignor.assign(&facts);
            assert_eq!((plan["a"].len(), plan["b"].len()), (2, 1), "{}", assignor.name());
            assert!(assignor.assign(&GroupFacts::new().topic("ticks", 3)).is_empty());
        }
    }

    #[test]
    fn every_partition_once_and_shares_differ_by_one() {
        for members in 1..9 {
            for partitions in 0..40 {
                let mut facts = GroupFacts::new().topic("t", partitions);
                for m in 0..members {
                    facts = facts.member(MemberFacts::new(format!("m{m}")).subscribe(["t"]));
                }
                for assignor in [&Range as &dyn Assignor, &RoundRobin] {
                    let plan = assignor.assign(&facts);
                    let mut all: Vec<u32> = plan.values().flatten().map(TopicPartition::partition).collect();
                    all.sort_unstable();
                    assert_eq!(all, (0..partitions).collect::<Vec<_>>());
                    let shares = plan.values().map(Vec::len);
                    assert!(shares.clone().max().unwrap() - shares.min().unwrap() <= 1);
                }
            }
        }
    }
}
