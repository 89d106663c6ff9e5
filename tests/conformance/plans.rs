//! One row of an assignor's table, written as text, and what runs it.

use std::collections::BTreeMap;

use tapelog::TopicPartition;
use tapelog::assignor::{Assignor, GroupFacts, MemberFacts};

/// Facts and the plan that they must give; lists of partitions in their exact order.
pub(crate) struct Case {
    /// The number of the case.
    pub(crate) row: &'static str,
    /// `topic:partitions`, separated by spaces.
    pub(crate) topics: &'static str,
    /// `member: subscriptions` or `member@instance: subscriptions`; for one that was there before, ` | ` and the
    /// generation in which it owned `topic-partition ..`.
    pub(crate) members: &'static [&'static str],
    /// `member: topic-partition ..`.
    pub(crate) plan: &'static [&'static str],
}

impl Case {
    fn facts(&self) -> GroupFacts {
        let mut facts = GroupFacts::new();
        for topic in self.topics.split_whitespace() {
            let (name, partitions) = topic.split_once(':').expect("topic:partitions");
            facts = facts.topic(name, partitions.parse().expect("a number"));
        }
        for member in self.members {
            let (now, before) = member.split_once('|').map_or((*member, None), |(now, b)| (now, Some(b)));
            let (who, topics) = named(now);
            let (id, instance) = who.split_once('@').map_or((who, None), |(id, i)| (id, Some(i)));
            let mut member = MemberFacts::new(id).subscribe(topics);
            if let Some(instance) = instance {
                member = member.instance_id(instance);
            }
            if let Some((generation, owned)) =
                before.map(|b| b.trim().split_once(' ').unwrap_or((b.trim(), "")))
            {
                let owned = owned.split_whitespace().map(partition);
                member = member.owned(generation.parse().expect("a generation"), owned);
            }
            facts = facts.member(member);
        }
        facts
    }

    fn expected(&self) -> BTreeMap<String, Vec<TopicPartition>> {
        let of_member = |line: &&str| {
            let (id, partitions) = named(line);
            (id.to_owned(), partitions.into_iter().map(partition).collect())
        };
        self.plan.iter().map(of_member).collect()
    }
}

fn partition(name: &str) -> TopicPartition {
    let (topic, number) = name.rsplit_once('-').expect("topic-partition");
    TopicPartition::new(topic, number.parse().expect("a number"))
}

fn named(line: &str) -> (&str, Vec<&str>) {
    let (name, list) = line.split_once(':').expect("name: list");
    (name, list.split_whitespace().collect())
}

/// Runs the case, with the members in each order that rotating them gives: the order must not matter.
pub(crate) fn run(assignor: &dyn Assignor, cases: &[Case], test: &str) {
    let row = test.to_uppercase().replace('_', "-");
    let case = cases.iter().find(|case| case.row == row).expect("a case of the table");
    let mut facts = case.facts();
    for _ in 0..facts.members.len() {
        assert_eq!(assignor.assign(&facts), case.expected(), "{row}");
        facts.members.rotate_left(1);
    }
}

/// A test for each case of a table, named as the case is.
macro_rules! rows {
    ($assignor:expr, $cases:expr, $($test:ident)+) => {
        $(
            #[test]
            fn $test() {
                crate::plans::run(&$assignor, $cases, stringify!($test));
            }
        )+

        #[test]
        fn every_case_has_its_test() {
            assert_eq!([$(stringify!($test)),+].len(), $cases.len());
        }
    };
}

pub(crate) use rows;
