//! The range assignor.

use crate::plans::{Case, rows};
use tapelog::assignor::Range;

const CASES: &[Case] = &[
    Case { row: "R-01", topics: "", members: &["c1:"], plan: &["c1:"] },
    Case { row: "R-02", topics: "", members: &["consumer1: topic1"], plan: &["consumer1:"] },
    Case {
        row: "R-03",
        topics: "topic1:3",
        members: &["consumer1: topic1"],
        plan: &["consumer1: topic1-0 topic1-1 topic1-2"],
    },
    Case {
        row: "R-04",
        topics: "topic1:1 topic2:2",
        members: &["consumer1: topic1 topic2"],
        plan: &["consumer1: topic1-0 topic2-0 topic2-1"],
    },
    Case {
        row: "R-05",
        topics: "topic1:1",
        members: &["consumer1: topic1", "consumer2: topic1"],
        plan: &["consumer1: topic1-0", "consumer2:"],
    },
    Case {
        row: "R-06",
        topics: "topic1:2",
        members: &["consumer1: topic1", "consumer2: topic1"],
        plan: &["consumer1: topic1-0", "consumer2: topic1-1"],
    },
    Case {
        row: "R-07",
        topics: "topic1:3 topic2:2",
        members: &["consumer1: topic1", "consumer2: topic1 topic2", "consumer3: topic1"],
        plan: &["consumer1: topic1-0", "consumer2: topic1-1 topic2-0 topic2-1", "consumer3: topic1-2"],
    },
    Case {
        row: "R-08",
        topics: "topic1:3 topic2:3",
        members: &["consumer1: topic1 topic2", "consumer2: topic1 topic2"],
        plan: &["consumer1: topic1-0 topic1-1 topic2-0 topic2-1", "consumer2: topic1-2 topic2-2"],
    },
    Case {
        row: "R-09",
        topics: "topic1:3 topic2:3",
        members: &["consumer-b@instance1: topic1 topic2", "consumer-a@instance2: topic1 topic2"],
        plan: &["consumer-a: topic1-2 topic2-2", "consumer-b: topic1-0 topic1-1 topic2-0 topic2-1"],
    },
    Case {
        row: "R-10",
        topics: "topic1:3 topic2:3",
        members: &["consumer-b@instance1: topic1 topic2", "consumer-a: topic1 topic2"],
        plan: &["consumer-a: topic1-2 topic2-2", "consumer-b: topic1-0 topic1-1 topic2-0 topic2-1"],
    },
    Case {
        row: "R-11",
        topics: "topic1:5 topic2:4",
        members: &[
            "consumer1@instance1: topic1 topic2",
            "consumer2@instance2: topic1 topic2",
            "consumer3@instance3: topic1 topic2",
            "consumer4: topic1 topic2",
        ],
        plan: &[
            "consumer1: topic1-0 topic1-1 topic2-0",
            "consumer2: topic1-2 topic2-1",
            "consumer3: topic1-3 topic2-2",
            "consumer4: topic1-4 topic2-3",
        ],
    },
    Case {
        row: "R-12",
        topics: "t1:6 t2:7 t3:2",
        members: &["c1: t1 t2 t3", "c2: t1 t2 t3", "c3: t1 t2 t3"],
        plan: &[
            "c1: t1-0 t1-1 t2-0 t2-1 t2-2 t3-0",
            "c2: t1-2 t1-3 t2-3 t2-4 t3-1",
            "c3: t1-4 t1-5 t2-5 t2-6",
        ],
    },
];

rows!(Range, CASES, r_01 r_02 r_03 r_04 r_05 r_06 r_07 r_08 r_09 r_10 r_11 r_12);
