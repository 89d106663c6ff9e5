//! The cooperative sticky assignor.

use crate::plans::{Case, run};
use tapelog::assignor::CooperativeSticky;

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

#[test]
fn c_01_to_c_06_cooperative() {
    run(&CooperativeSticky, CASES);
}
