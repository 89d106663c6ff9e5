//! Kafka's sticky assignors: as even as can be, and of that which members have, they keep as much as can be.
//!
//! Rules and tie-breaks are those of `AbstractStickyAssignor`, `StickyAssignor` and `CooperativeStickyAssignor`
//! (KIP-54, KIP-429). Where Kafka goes through a hash table, the order is that of Java's, so that the same facts
//! give the same plan here and there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::consumer::assignor::{Assignor, GroupFacts, MemberFacts};
use crate::topic_partition::TopicPartition;

/// Kafka's sticky assignor: shares differ by one partition at most (where subscriptions allow it), and no more
/// partitions move than that takes.
///
/// A partition that two members claim from the same generation stays with neither; from different ones, the later
/// counts. In a group every member moves to the plan on its own, so that nothing stops for those who keep what they
/// have. [`CooperativeSticky`] does the same in two plans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sticky;

impl Assignor for Sticky {
    fn name(&self) -> &str {
        "sticky"
    }

    fn assign(&self, facts: &GroupFacts) -> BTreeMap<String, Vec<TopicPartition>> {
        plan(facts).0
    }
}

/// Kafka's cooperative sticky assignor, a group's default: the plan of [`Sticky`], but a partition that goes from one member to
/// another is first left out, and given in the next plan, when its owner has let go of it.
///
/// ```
/// use tapelog::TopicPartition;
/// use tapelog::assignor::{Assignor, CooperativeSticky, GroupFacts, MemberFacts};
///
/// let all = (0..3).map(|p| TopicPartition::new("ticks", p));
/// let facts = GroupFacts::new()
///     .topic("ticks", 3)
///     .member(MemberFacts::new("a").subscribe(["ticks"]).owned(1, all))
///     .member(MemberFacts::new("b").subscribe(["ticks"]));
/// let plan = CooperativeSticky.assign(&facts);
/// assert_eq!((plan["a"].len(), plan["b"].len()), (2, 0));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CooperativeSticky;

impl Assignor for CooperativeSticky {
    fn name(&self) -> &str {
        "cooperative-sticky"
    }

    fn assign(&self, facts: &GroupFacts) -> BTreeMap<String, Vec<TopicPartition>> {
        let (mut plan, moving) = plan(facts);
        let moving = moving.unwrap_or_else(|| moving_in(facts, &plan));
        for partitions in plan.values_mut() {
            partitions.retain(|tp| !moving.contains(tp));
        }
        plan
    }
}

type Plan = BTreeMap<String, Vec<TopicPartition>>;

/// The plan, and which partitions change hands in it where that was found on the way.
fn plan(facts: &GroupFacts) -> (Plan, Option<HashSet<TopicPartition>>) {
    if facts.members.is_empty() {
        return (Plan::new(), None);
    }
    let claims = Claims::of(facts);
    let first = &facts.members[0].subscriptions;
    if facts.members.iter().all(|member| member.subscriptions == *first) {
        let (plan, moving) = Even::new(facts, claims).build();
        (plan, Some(moving))
    } else {
        (General::new(facts, claims).build(), None)
    }
}

/// What members gain that others lose.
fn moving_in(facts: &GroupFacts, plan: &Plan) -> HashSet<TopicPartition> {
    let (mut gained, mut lost) = (HashSet::new(), HashSet::new());
    for member in &facts.members {
        let (owned, planned): (HashSet<_>, HashSet<_>) =
            (member.owned.iter().collect(), plan.get(&member.id).into_iter().flatten().collect());
        gained.extend(planned.difference(&owned).map(|tp| (*tp).clone()));
        lost.extend(owned.difference(&planned).map(|tp| (*tp).clone()));
    }
    gained.retain(|tp| lost.contains(tp));
    gained
}

/// The generation of a member that has none.
const NONE: i64 = -1;

fn generation(member: &MemberFacts) -> i64 {
    member.generation.map_or(NONE, i64::from)
}

/// Who may keep what of that which the members say they own.
struct Claims<'a> {
    /// By member, in the order of Java's table.
    owned: Vec<(&'a MemberFacts, Vec<TopicPartition>)>,
    /// Claimed by two of the same generation.
    disputed: HashSet<TopicPartition>,
}

impl<'a> Claims<'a> {
    fn of(facts: &'a GroupFacts) -> Self {
        let mut members: Vec<&MemberFacts> = facts.members.iter().collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        java_order(&mut members, |member| hash_of(&member.id));
        let mut owned: Vec<_> = members.iter().map(|member| (*member, Vec::new())).collect();
        let (mut owner, mut disputed) = (HashMap::<&TopicPartition, usize>::new(), HashSet::new());
        for (at, member) in members.iter().enumerate() {
            let exists =
                |tp: &&TopicPartition| facts.topics.get(tp.topic()).is_some_and(|n| tp.partition() < *n);
            for tp in member.owned.iter().filter(exists) {
                let Some(other) = owner.get(tp).copied() else {
                    owned[at].1.push(tp.clone());
                    owner.insert(tp, at);
                    continue;
                };
                let (this, that) = (generation(member), generation(members[other]));
                if this < that {
                    continue;
                }
                owned[other].1.retain(|theirs| theirs != tp);
                owner.insert(tp, at);
                if this == that {
                    disputed.insert(tp.clone());
                } else {
                    owned[at].1.push(tp.clone());
                }
            }
        }
        Claims { owned, disputed }
    }
}

/// The plan where all subscribe to the same: each gets the same number, some one more.
struct Even<'a> {
    claims: Claims<'a>,
    all: Vec<TopicPartition>,
    plan: Plan,
    /// The least that a member gets, the most, and how many get more than the least.
    least: usize,
    most: usize,
    above: usize,
}

impl<'a> Even<'a> {
    fn new(facts: &'a GroupFacts, claims: Claims<'a>) -> Self {
        let wanted = &facts.members[0].subscriptions;
        let topics = facts.topics.iter().filter(|(topic, _)| wanted.contains(*topic));
        let all: Vec<_> = topics.flat_map(|(topic, count)| partitions_of(topic, *count)).collect();
        let members = facts.members.len();
        let (least, above) = (all.len() / members, all.len() % members);
        let plan = facts.members.iter().map(|member| (member.id.clone(), Vec::new())).collect();
        Even { claims, all, plan, least, most: all_or_one_more(least, above), above }
    }

    fn build(mut self) -> (Plan, HashSet<TopicPartition>) {
        let mut changing = std::mem::take(&mut self.claims.disputed);
        let (mut below, mut at_least) = (Vec::new(), Vec::new());
        let mut above = 0;
        let mut kept = HashSet::new();
        for (member, mut owned) in std::mem::take(&mut self.claims.owned) {
            owned.retain(|tp| member.subscriptions.contains(tp.topic()));
            owned.sort_by(|a, b| a.partition().cmp(&b.partition()).then_with(|| a.topic().cmp(b.topic())));
            let keep = if owned.len() < self.least {
                below.push(member.id.as_str());
                owned.len()
            } else if owned.len() >= self.most && above < self.above {
                above += 1;
                if above == self.above {
                    at_least.clear();
                }
                self.most
            } else {
                if above < self.above {
                    at_least.push(member.id.as_str());
                }
                self.least
            };
            changing.extend(owned.drain(keep..));
            kept.extend(owned.iter().cloned());
            self.plan.insert(member.id.clone(), owned);
        }
        below.sort_unstable();
        at_least.sort_unstable();
        let moving = self.deal(&kept, &changing, below, at_least.into());
        (self.plan, moving)
    }

    /// Gives what nobody keeps to those who have too little, in turns, and then to those who may have one more.
    fn deal<'m>(
        &mut self,
        kept: &HashSet<TopicPartition>,
        changing: &HashSet<TopicPartition>,
        mut below: Vec<&'m str>,
        mut at_least: VecDeque<&'m str>,
    ) -> HashSet<TopicPartition> {
        let (mut moving, mut turn) = (HashSet::new(), 0);
        for tp in self.all.iter().filter(|tp| !kept.contains(tp)) {
            if turn >= below.len() {
                turn = 0;
            }
            let Some(member) = below.get(turn).copied().or_else(|| at_least.pop_front()) else { break };
            let partitions = self.plan.entry(member.to_owned()).or_default();
            partitions.push(tp.clone());
            if changing.contains(tp) {
                moving.insert(tp.clone());
            }
            if below.is_empty() {
                continue;
            }
            if partitions.len() == self.least {
                below.remove(turn);
                at_least.push_back(member);
            } else {
                turn += 1;
            }
        }
        moving
    }
}

fn all_or_one_more(least: usize, above: usize) -> usize {
    if above == 0 { least } else { least + 1 }
}

/// The plan where subscriptions differ: what is free goes to whoever has least, then partitions are moved as long as
/// that makes it more even.
struct General<'a> {
    facts: &'a GroupFacts,
    /// Who could read a topic; topics in the order in which they are dealt.
    topics: Vec<(&'a str, Vec<usize>)>,
    /// Members in the order of their ids, and what they have.
    members: Vec<&'a MemberFacts>,
    assigned: Vec<Vec<TopicPartition>>,
    owner: HashMap<TopicPartition, usize>,
    /// Members that can still gain or lose something, those with least first.
    ranking: BTreeSet<(usize, usize)>,
    /// Who had a partition in an earlier generation than the last.
    previous: HashMap<TopicPartition, usize>,
    movements: Movements,
}

impl<'a> General<'a> {
    fn new(facts: &'a GroupFacts, claims: Claims<'a>) -> Self {
        let mut members: Vec<&MemberFacts> = facts.members.iter().collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let index: HashMap<&str, usize> =
            members.iter().enumerate().map(|(i, m)| (m.id.as_str(), i)).collect();
        let mut topics: Vec<(&str, Vec<usize>)> = facts
            .topics
            .keys()
            .map(|topic| {
                let wants = |i: &usize| members[*i].subscriptions.contains(topic);
                (topic.as_str(), (0..members.len()).filter(wants).collect())
            })
            .collect();
        topics.sort_by(|a, b| a.1.len().cmp(&b.1.len()).then_with(|| a.0.cmp(b.0)));
        let mut assigned = vec![Vec::new(); members.len()];
        for (member, owned) in claims.owned {
            assigned[index[member.id.as_str()]] = owned;
        }
        let newest = members.iter().map(|member| generation(member)).max().unwrap_or(NONE);
        let mut previous = HashMap::<TopicPartition, usize>::new();
        for (i, member) in members.iter().enumerate().filter(|(_, member)| generation(member) < newest) {
            for tp in &member.owned {
                let known = previous.get(tp).map(|other| generation(members[*other]));
                if known.is_none_or(|known| generation(member) > known) {
                    previous.insert(tp.clone(), i);
                }
            }
        }
        General {
            facts,
            topics,
            members,
            assigned,
            owner: HashMap::new(),
            ranking: BTreeSet::new(),
            previous,
            movements: Movements::default(),
        }
    }

    fn build(mut self) -> Plan {
        let mut revoked = false;
        for (member, owned) in self.members.iter().zip(&mut self.assigned) {
            let before = owned.len();
            owned.retain(|tp| member.subscriptions.contains(tp.topic()));
            revoked |= owned.len() < before;
        }
        for (i, owned) in self.assigned.iter().enumerate() {
            self.owner.extend(owned.iter().map(|tp| (tp.clone(), i)));
            self.ranking.insert((owned.len(), i));
        }
        let fresh = self.ranking.last().is_some_and(|(most, _)| *most == 0);
        let all = self.topics.iter().flat_map(|(topic, _)| partitions_of(topic, self.facts.topics[*topic]));
        let mut all: Vec<_> = all.collect();
        let mut free: Vec<_> = all.iter().filter(|tp| !self.owner.contains_key(tp)).cloned().collect();
        free.iter().for_each(|tp| self.deal(tp));

        // Only what two could read can be moved, and only members who could gain or lose take part.
        let shared: HashSet<&str> =
            self.topics.iter().filter(|(_, readers)| readers.len() >= 2).map(|(topic, _)| *topic).collect();
        all.retain(|tp| shared.contains(tp.topic()));
        free.retain(|tp| shared.contains(tp.topic()));
        for i in 0..self.members.len() {
            let has_all = self.assigned[i].len() >= self.most_of(i);
            if has_all && self.assigned[i].iter().all(|tp| !shared.contains(tp.topic())) {
                self.ranking.remove(&(self.assigned[i].len(), i));
            }
        }
        let before = (self.assigned.clone(), self.score());
        if !revoked {
            self.even_out(&free);
        }
        let moved = self.even_out(&all);
        if !fresh && moved && self.score() >= before.1 {
            self.assigned = before.0;
        }
        self.members.iter().map(|member| member.id.clone()).zip(self.assigned).collect()
    }

    fn readers(&self, topic: &str) -> &[usize] {
        self.topics.iter().find(|(name, _)| *name == topic).map_or(&[], |(_, readers)| readers)
    }

    /// How many partitions a member could have.
    fn most_of(&self, i: usize) -> usize {
        self.wanted(i).map(|(_, count)| count as usize).sum()
    }

    /// The topics that a member subscribes to and that there are.
    fn wanted(&self, i: usize) -> impl Iterator<Item = (&'a str, u32)> {
        let subscriptions = &self.members[i].subscriptions;
        let there = self.facts.topics.iter().filter(|(topic, _)| subscriptions.contains(*topic));
        there.map(|(topic, count)| (topic.as_str(), *count))
    }

    /// The member with least that may have the partition.
    fn poorest(&self, tp: &TopicPartition) -> Option<usize> {
        self.ranking.iter().map(|(_, i)| *i).find(|i| self.members[*i].subscriptions.contains(tp.topic()))
    }

    fn deal(&mut self, tp: &TopicPartition) {
        if let Some(i) = self.poorest(tp) {
            self.ranking.remove(&(self.assigned[i].len(), i));
            self.assigned[i].push(tp.clone());
            self.ranking.insert((self.assigned[i].len(), i));
            self.owner.insert(tp.clone(), i);
        }
    }

    /// Moves partitions as long as that makes the plan more even; tells whether one moved.
    fn even_out(&mut self, partitions: &[TopicPartition]) -> bool {
        let mut moved = false;
        loop {
            let mut again = false;
            for tp in partitions {
                if self.is_even() {
                    break;
                }
                let Some(&owner) = self.owner.get(tp) else { continue };
                let has = |i: usize| self.assigned[i].len();
                let previous = self.previous.get(tp).copied().filter(|before| has(owner) > has(*before) + 1);
                let better = || self.readers(tp.topic()).iter().any(|other| has(owner) > has(*other) + 1);
                let to = previous.or_else(|| if better() { self.poorest(tp) } else { None });
                if let Some(to) = to {
                    self.hand_over(tp, to);
                    again = true;
                }
            }
            moved |= again;
            if !again {
                return moved;
            }
        }
    }

    fn hand_over(&mut self, tp: &TopicPartition, to: usize) {
        let Some(&from) = self.owner.get(tp) else { return };
        // Where one went the other way before, that one goes back: fewer change hands in all.
        let tp = self.movements.rather(tp, from, to);
        let Some(&from) = self.owner.get(&tp) else { return };
        self.ranking.remove(&(self.assigned[from].len(), from));
        self.ranking.remove(&(self.assigned[to].len(), to));
        self.movements.note(&tp, from, to);
        self.assigned[from].retain(|theirs| *theirs != tp);
        self.assigned[to].push(tp.clone());
        self.owner.insert(tp, to);
        self.ranking.insert((self.assigned[to].len(), to));
        self.ranking.insert((self.assigned[from].len(), from));
    }

    /// Whether nobody could get a partition of someone who has more.
    fn is_even(&self) -> bool {
        let (Some((least, _)), Some((most, _))) = (self.ranking.first(), self.ranking.last()) else {
            return true;
        };
        if least + 1 >= *most {
            return true;
        }
        self.ranking.iter().all(|&(count, i)| {
            count == self.most_of(i)
                || self.wanted(i).all(|(topic, partitions)| {
                    partitions_of(topic, partitions).all(|tp| {
                        self.owner
                            .get(&tp)
                            .is_none_or(|owner| *owner == i || count >= self.assigned[*owner].len())
                    })
                })
        })
    }

    /// How uneven it is: the sum of the differences between any two who take part.
    fn score(&self) -> usize {
        let counts: Vec<usize> = self.ranking.iter().map(|(count, _)| *count).collect();
        counts.iter().enumerate().flat_map(|(i, a)| counts[i + 1..].iter().map(move |b| a.abs_diff(*b))).sum()
    }
}

/// What was moved from whom to whom.
#[derive(Default)]
struct Movements {
    of: HashMap<TopicPartition, (usize, usize)>,
}

impl Movements {
    /// The partition to be moved in place of `tp`, so that two of one topic are not exchanged.
    fn rather(&self, tp: &TopicPartition, from: usize, to: usize) -> TopicPartition {
        let from = self.of.get(tp).map_or(from, |(first, _)| *first);
        let back = self.of.iter().filter(|(other, way)| other.topic() == tp.topic() && **way == (to, from));
        let mut back: Vec<_> = back.map(|(other, _)| other.clone()).collect();
        back.sort();
        java_order(&mut back, |tp| (961 + 31 * tp.partition()).wrapping_add(hash_of(tp.topic())));
        back.into_iter().next().unwrap_or_else(|| tp.clone())
    }

    fn note(&mut self, tp: &TopicPartition, from: usize, to: usize) {
        let first = self.of.remove(tp).map_or(from, |(first, _)| first);
        if first != to {
            self.of.insert(tp.clone(), (first, to));
        }
    }
}

fn partitions_of(topic: &str, count: u32) -> impl Iterator<Item = TopicPartition> + use<> {
    let name: Arc<str> = topic.into();
    (0..count).map(move |partition| TopicPartition::new(Arc::clone(&name), partition))
}

/// Java's `String.hashCode`.
fn hash_of(s: &str) -> u32 {
    s.encode_utf16().fold(0, |hash: u32, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)))
}

/// The order in which a Java `HashMap` of these keys, put there in the order they have, is gone through.
fn java_order<T>(keys: &mut [T], hash: impl Fn(&T) -> u32) {
    let mut buckets = 16usize;
    while keys.len() > buckets / 4 * 3 {
        buckets *= 2;
    }
    let bucket = |key: &T| {
        let hash = hash(key);
        (hash ^ (hash >> 16)) as usize & (buckets - 1)
    };
    keys.sort_by_key(bucket);
}

#[cfg(test)]
#[path = "sticky_tests.rs"]
mod tests;
