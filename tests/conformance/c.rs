//! The cooperative sticky assignor.

use std::sync::{Arc, Mutex};

use crate::o::{NOW, log_with, produce, tp};
use crate::plans::{Case, rows};
use tapelog::assignor::CooperativeSticky;
use tapelog::consumer::{GroupState, Rebalance};
use tapelog::{Consumer, RebalanceListener, Result, TopicPartition};

const CASES: &[Case] = &[
    Case {
        row: "C-01",
        topics: "topic:3",
        members: &["consumer1: topic | 1 topic-0 topic-1 topic-2", "consumer2: topic | 1"],
        plan: &["consumer1: topic-0 topic-1", "consumer2:"],
    },
    Case {
        row: "C-02",
        topics: "topic1:2 topic2:2",
        members: &[
            "consumer1: topic1 topic2 | 1 topic1-0 topic2-0",
            "consumer2: topic1 topic2 | 1 topic1-1 topic2-1",
            "consumer3: topic1 topic2 | 1",
        ],
        plan: &["consumer1: topic1-0", "consumer2: topic1-1 topic2-1", "consumer3:"],
    },
    Case {
        row: "C-03",
        topics: "topic:3",
        members: &[
            "consumer1: topic | 1 topic-0 topic-1",
            "consumer2: topic | 1 topic-0 topic-2",
            "consumer3: topic | 1",
        ],
        plan: &["consumer1: topic-1", "consumer2: topic-2", "consumer3:"],
    },
    Case {
        row: "C-04",
        topics: "topic:4",
        members: &[
            "consumer1: topic | 1 topic-0 topic-1",
            "consumer2: topic | 1 topic-0 topic-2",
            "consumer3: topic | 1",
        ],
        plan: &["consumer1: topic-1 topic-3", "consumer2: topic-2", "consumer3:"],
    },
    Case {
        row: "C-05",
        topics: "topic1:3",
        members: &[
            "consumer1: topic1 | 1 topic1-0",
            "consumer2: topic1 | 1 topic1-1",
            "consumer3: topic1 | 1",
        ],
        plan: &["consumer1: topic1-0", "consumer2: topic1-1", "consumer3: topic1-2"],
    },
    Case {
        row: "C-06",
        topics: "topic1:3 topic2:4",
        members: &[
            "consumer1: topic1 topic2 | 1 topic1-0 topic1-2 topic2-1 topic2-3",
            "consumer2: topic1 topic2 | 1 topic1-1 topic2-0 topic2-2",
            "consumer3: topic1 topic2 | 1",
            "consumer4: topic1 topic2 | 1",
        ],
        plan: &["consumer1: topic1-0 topic2-1", "consumer2: topic2-0 topic1-1", "consumer3:", "consumer4:"],
    },
];

rows!(CooperativeSticky, CASES, c_01 c_02 c_03 c_04 c_05 c_06);

/// What was revoked, call by call.
#[derive(Default, Clone)]
struct Revoked(Arc<Mutex<Vec<Vec<TopicPartition>>>>);

impl RebalanceListener for Revoked {
    fn on_revoked(&mut self, _: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.0.lock().unwrap().push(partitions.to_vec());
        Ok(())
    }
}

/// What one poll returns, as (partition, offset).
fn poll(consumer: &mut Consumer) -> Vec<(u32, u64)> {
    consumer.poll(NOW).unwrap().iter().map(|r| (r.partition(), r.offset())).collect()
}

#[test]
fn c_17_only_what_moves_is_revoked_and_the_rest_is_read_throughout() {
    let (log, _) = log_with(3, 0);
    let topic = log.topic("t").unwrap();
    let partitions: Vec<_> = (0..3).map(|number| topic.partition(number).unwrap()).collect();
    let group = log.consumer_group("g").unwrap();
    let revoked = Revoked::default();
    let mut one = group.consumer().listener(revoked.clone()).subscribe(["t"]).unwrap();
    one.poll(NOW).unwrap();
    assert_eq!(one.assignment(), [tp(0), tp(1), tp(2)]);
    let before = group.describe().unwrap().generation;

    // Round 1: what moves belongs to nobody; what stays is read by the very poll that lets go.
    let mut two = group.subscribe(["t"]).unwrap();
    two.poll(NOW).unwrap();
    assert!(two.assignment().is_empty());
    partitions.iter().for_each(|partition| produce(partition, 1));
    assert_eq!(poll(&mut one), [(0, 0), (1, 0)]);
    assert_eq!(one.assignment(), [tp(0), tp(1)]);
    assert_eq!(*revoked.0.lock().unwrap(), [[tp(2)]]);
    let first = group.describe().unwrap().generation;

    // Round 2.
    assert_eq!(poll(&mut two), [(2, 0)]);
    assert_eq!((one.assignment(), two.assignment()), (vec![tp(0), tp(1)], vec![tp(2)]));
    let after = group.describe().unwrap();
    assert_eq!((after.state, after.generation), (GroupState::Stable, first));
    assert_eq!(after.generation, before + 2, "the join, and the partition that became free");
    partitions.iter().for_each(|partition| produce(partition, 1));
    assert_eq!((poll(&mut one), poll(&mut two)), (vec![(0, 1), (1, 1)], vec![(2, 1)]));
    assert_eq!(revoked.0.lock().unwrap().len(), 1);
}
