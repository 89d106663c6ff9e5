//! The round-robin assignor.

use crate::plans::{Case, rows};
use tapelog::assignor::RoundRobin;

const CASES: &[Case] = &[
    Case { row: "RR-01", topics: "", members: &["consumer: topic"], plan: &["consumer:"] },
    Case {
        row: "RR-02",
        topics: "topic:3",
        members: &["consumer: topic"],
        plan: &["consumer: topic-0 topic-1 topic-2"],
    },
    Case {
        row: "RR-03",
        topics: "topic1:1 topic2:2",
        members: &["consumer: topic1 topic2"],
        plan: &["consumer: topic1-0 topic2-0 topic2-1"],
    },
    Case {
        row: "RR-04",
        topics: "topic:1",
        members: &["consumer1: topic", "consumer2: topic"],
        plan: &["consumer1: topic-0", "consumer2:"],
    },
    Case {
        row: "RR-05",
        topics: "topic:2",
        members: &["consumer1: topic", "consumer2: topic"],
        plan: &["consumer1: topic-0", "consumer2: topic-1"],
    },
    Case {
        row: "RR-06",
        topics: "topic1:3 topic2:2",
        members: &["consumer1: topic1", "consumer2: topic1 topic2", "consumer3: topic1"],
        plan: &["consumer1: topic1-0", "consumer2: topic1-1 topic2-0 topic2-1", "consumer3: topic1-2"],
    },
    Case {
        row: "RR-07",
        topics: "topic1:3 topic2:3",
        members: &["consumer1: topic1 topic2", "consumer2: topic1 topic2"],
        plan: &["consumer1: topic1-0 topic1-2 topic2-1", "consumer2: topic1-1 topic2-0 topic2-2"],
    },
    Case {
        row: "RR-08",
        topics: "topic1:3 topic2:3",
        members: &["consumer-b@instance1: topic1 topic2", "consumer-a@instance2: topic1 topic2"],
        plan: &["consumer-a: topic1-1 topic2-0 topic2-2", "consumer-b: topic1-0 topic1-2 topic2-1"],
    },
    Case {
        row: "RR-09",
        topics: "topic1:3 topic2:3",
        members: &["consumer-b@instance1: topic1 topic2", "consumer-a: topic1 topic2"],
        plan: &["consumer-a: topic1-1 topic2-0 topic2-2", "consumer-b: topic1-0 topic1-2 topic2-1"],
    },
    Case {
        row: "RR-10",
        topics: "topic1:3 topic2:3",
        members: &[
            "consumer1@instance1: topic1 topic2",
            "consumer2@instance2: topic1 topic2",
            "consumer3@instance3: topic1 topic2",
            "consumer4: topic1 topic2",
        ],
        plan: &[
            "consumer1: topic1-0 topic2-1",
            "consumer2: topic1-1 topic2-2",
            "consumer3: topic1-2",
            "consumer4: topic2-0",
        ],
    },
    Case {
        row: "RR-11",
        topics: "topic1:5 topic2:5",
        members: &[
            "consumer1@instance1: topic1 topic2",
            "consumer2@instance2: topic1 topic2",
            "consumer3@instance3: topic1 topic2",
        ],
        plan: &[
            "consumer1: topic1-0 topic1-3 topic2-1 topic2-4",
            "consumer2: topic1-1 topic1-4 topic2-2",
            "consumer3: topic1-2 topic2-0 topic2-3",
        ],
    },
    Case {
        row: "RR-12",
        topics: "topic1:2 topic2:1 topic3:2 topic4:1 topic5:2",
        members: &[
            "consumer1: topic1 topic2 topic3 topic4 topic5",
            "consumer2: topic1 topic3 topic5",
            "consumer3: topic1 topic3 topic5",
            "consumer4: topic1 topic2 topic3 topic4 topic5",
        ],
        plan: &[
            "consumer1: topic1-0 topic3-0 topic5-0",
            "consumer2: topic1-1 topic3-1 topic5-1",
            "consumer3:",
            "consumer4: topic2-0 topic4-0",
        ],
    },
];

rows!(RoundRobin, CASES, rr_01 rr_02 rr_03 rr_04 rr_05 rr_06 rr_07 rr_08 rr_09 rr_10 rr_11 rr_12);
