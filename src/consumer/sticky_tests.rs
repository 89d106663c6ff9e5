//! Tests of the sticky assignors: valid, even and sticky, whatever the group looks like.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::consumer::assignor::{Assignor, GroupFacts, MemberFacts};
use crate::consumer::sticky::*;
use crate::topic_partition::TopicPartition;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit
    }
}

/// A group of random members and topics; all subscribe alike where `alike`.
fn group(random: &mut Random, alike: bool) -> GroupFacts {
    let mut facts = GroupFacts::new();
    let topics: Vec<String> = (0..1 + random.below(5)).map(|t| format!("topic{t}")).collect();
    for topic in &topics {
        facts = facts.topic(topic.as_str(), random.below(9) as u32);
    }
    for member in 0..1 + random.below(7) {
        let mut wanted: Vec<&String> = topics.iter().filter(|_| alike || random.below(3) > 0).collect();
        if wanted.is_empty() {
            wanted.push(&topics[0]);
        }
        facts = facts.member(MemberFacts::new(format!("m{member}")).subscribe(wanted.into_iter().cloned()));
    }
    facts
}

/// The same group with what a plan gave each.
fn after(facts: &GroupFacts, plan: &BTreeMap<String, Vec<TopicPartition>>, generation: u32) -> GroupFacts {
    let mut next = facts.clone();
    for member in &mut next.members {
        member.owned = plan.get(&member.id).cloned().unwrap_or_default();
        member.generation = Some(generation);
    }
    next
}

fn check(facts: &GroupFacts, plan: &BTreeMap<String, Vec<TopicPartition>>, what: &str) {
    let mut seen = BTreeSet::new();
    for member in &facts.members {
        for tp in &plan[&member.id] {
            assert!(seen.insert(tp.clone()), "{what}: {tp} twice");
            assert!(member.subscriptions.contains(tp.topic()), "{what}: {tp} to one who did not ask");
        }
    }
    for (topic, count) in &facts.topics {
        let wanted = facts.members.iter().any(|m| m.subscriptions.contains(topic));
        for partition in 0..*count {
            let there = seen.contains(&TopicPartition::new(topic.as_str(), partition));
            assert_eq!(there, wanted, "{what}: {topic}-{partition}");
        }
    }
    if facts.members.iter().all(|m| m.subscriptions == facts.members[0].subscriptions) {
        let shares = || plan.values().map(Vec::len);
        assert!(shares().max().unwrap() - shares().min().unwrap() <= 1, "{what}: {plan:?}");
    }
}

/// With equal subscriptions the count of partitions kept is the largest that an even plan allows.
fn check_kept(before: &GroupFacts, plan: &BTreeMap<String, Vec<TopicPartition>>, what: &str) {
    let total: usize = plan.values().map(Vec::len).sum();
    let (least, above) = (total / plan.len(), total % plan.len());
    let mut owned: Vec<usize> = before.members.iter().map(|m| m.owned.len()).collect();
    owned.sort_unstable_by(|a, b| b.cmp(a));
    let may = |rank: usize| if rank < above { least + 1 } else { least };
    let most: usize = owned.iter().enumerate().map(|(rank, owned)| (*owned).min(may(rank))).sum();
    let kept: usize =
        before.members.iter().map(|m| m.owned.iter().filter(|tp| plan[&m.id].contains(tp)).count()).sum();
    assert_eq!(kept, most, "{what}");
}

#[test]
fn plans_are_valid_even_and_keep_what_they_can() {
    for seed in 1..=3_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let alike = seed % 2 == 0;
        let mut facts = group(&mut random, alike);
        let mut plan = Sticky.assign(&facts);
        check(&facts, &plan, &format!("seed {seed}"));
        for round in 1..4 {
            facts = after(&facts, &plan, round);
            match random.below(3) {
                0 if facts.members.len() > 1 => {
                    let at = random.below(facts.members.len() as u64) as usize;
                    facts.members.remove(at);
                }
                1 => {
                    let like = facts.members[0].subscriptions.clone();
                    facts = facts.member(MemberFacts::new(format!("new{round}")).subscribe(like));
                }
                _ => {
                    let _ = facts.topics.values_mut().map(|count| *count += 1).count();
                }
            }
            plan = Sticky.assign(&facts);
            let what = format!("seed {seed} round {round}");
            check(&facts, &plan, &what);
            if alike {
                check_kept(&facts, &plan, &what);
            }
            let again = Sticky.assign(&after(&facts, &plan, round + 1));
            let sets =
                |plan: &BTreeMap<String, Vec<TopicPartition>>| -> BTreeMap<String, BTreeSet<TopicPartition>> {
                    plan.iter().map(|(id, tps)| (id.clone(), tps.iter().cloned().collect())).collect()
                };
            if alike {
                assert_eq!(sets(&again), sets(&plan), "{what}: nothing changed, so nothing moves");
            }
        }
    }
}

/// Round after round, no partition goes from one owner to another within a round, and the end is that of `Sticky`.
#[test]
fn cooperation_ends_within_four_rounds() {
    for seed in 1..=1_500u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let first = group(&mut random, seed % 2 == 0);
        let mut facts = after(&first, &Sticky.assign(&first), 1);
        facts =
            facts.member(MemberFacts::new("late").subscribe(first.members[0].subscriptions.iter().cloned()));
        let mut rounds = 0;
        loop {
            let owner: HashMap<_, _> = facts
                .members
                .iter()
                .flat_map(|m| m.owned.iter().map(move |tp| (tp.clone(), m.id.clone())))
                .collect();
            let plan = CooperativeSticky.assign(&facts);
            for (id, tps) in &plan {
                for tp in tps {
                    let kept = owner.get(tp).is_none_or(|before| before == id);
                    assert!(kept, "seed {seed}: {tp} goes from one to another in one round");
                }
            }
            let done = facts.members.iter().all(|m| {
                m.owned.iter().collect::<BTreeSet<_>>() == plan[&m.id].iter().collect::<BTreeSet<_>>()
            });
            if done {
                check(&facts, &plan, &format!("seed {seed}"));
                break;
            }
            rounds += 1;
            assert!(rounds <= 4, "seed {seed}");
            facts = after(&facts, &plan, rounds + 1);
        }
    }
}
