//! The sticky assignor.

use crate::plans::{Case, rows};
use tapelog::assignor::Sticky;

const CASES: &[Case] = &[
    Case {
        row: "S-01",
        topics: "topic:3",
        members: &["consumer: topic"],
        plan: &["consumer: topic-0 topic-1 topic-2"],
    },
    Case {
        row: "S-02",
        topics: "topic1:1 topic2:2",
        members: &["consumer: topic1 topic2"],
        plan: &["consumer: topic1-0 topic2-0 topic2-1"],
    },
    Case {
        row: "S-03",
        topics: "topic:2",
        members: &["consumer1: topic", "consumer2: topic"],
        plan: &["consumer1: topic-0", "consumer2: topic-1"],
    },
    Case {
        row: "S-04",
        topics: "topic1:3 topic2:2",
        members: &["consumer1: topic1", "consumer2: topic1 topic2", "consumer3: topic1"],
        plan: &["consumer1: topic1-0 topic1-2", "consumer2: topic2-0 topic2-1", "consumer3: topic1-1"],
    },
    Case {
        row: "S-05",
        topics: "topic1:3 topic2:3",
        members: &["consumer1: topic1 topic2", "consumer2: topic1 topic2"],
        plan: &["consumer1: topic1-0 topic1-2 topic2-1", "consumer2: topic1-1 topic2-0 topic2-2"],
    },
    Case {
        row: "S-06",
        topics: "topic1:2 topic2:3",
        members: &[
            "consumer1: topic1 topic2 | 1 topic1-0 topic2-1",
            "consumer2: topic1 topic2 | 1 topic1-1 topic2-2",
        ],
        plan: &["consumer1: topic1-0 topic2-1 topic2-0", "consumer2: topic1-1 topic2-2"],
    },
    Case {
        row: "S-07",
        topics: "topic1:2 topic2:2",
        members: &[
            "consumer1: topic1 topic2 | 1 topic1-0 topic2-0",
            "consumer2: topic1 topic2 | 1 topic1-1 topic2-1",
            "consumer3: topic1 topic2 | 1",
        ],
        plan: &["consumer1: topic1-0", "consumer2: topic1-1 topic2-1", "consumer3: topic2-0"],
    },
    Case {
        row: "S-08",
        topics: "topic1:2 topic2:3",
        members: &[
            "consumer1: topic1 topic2 | 1 topic1-0",
            "consumer2: topic1 topic2 | 1 topic1-1",
            "consumer3: topic1 topic2 | 1",
        ],
        plan: &["consumer1: topic1-0 topic2-1", "consumer2: topic1-1 topic2-2", "consumer3: topic2-0"],
    },
    Case {
        row: "S-09",
        topics: "topic:3",
        members: &["consumer1: topic | 1 topic-0 topic-1 topic-2", "consumer2: topic | 1"],
        plan: &["consumer1: topic-0 topic-1", "consumer2: topic-2"],
    },
    Case {
        row: "S-10",
        topics: "topic:3",
        members: &["consumer2: topic | 1 topic-2"],
        plan: &["consumer2: topic-2 topic-0 topic-1"],
    },
    Case {
        row: "S-11",
        topics: "topic1:3 topic2:4",
        members: &["consumer1: topic1 topic2", "consumer2: topic1 topic2"],
        plan: &["consumer1: topic1-0 topic1-2 topic2-1 topic2-3", "consumer2: topic1-1 topic2-0 topic2-2"],
    },
    Case {
        row: "S-12",
        topics: "topic1:3 topic2:4",
        members: &[
            "consumer1: topic1 topic2 | 1 topic1-0 topic1-2 topic2-1 topic2-3",
            "consumer2: topic1 topic2 | 1 topic1-1 topic2-0 topic2-2",
            "consumer3: topic1 topic2 | 1",
            "consumer4: topic1 topic2 | 1",
        ],
        plan: &[
            "consumer1: topic1-0 topic2-1",
            "consumer2: topic2-0 topic1-1",
            "consumer3: topic1-2 topic2-3",
            "consumer4: topic2-2",
        ],
    },
    Case {
        row: "S-13",
        topics: "topic1:3 topic2:4",
        members: &["consumer3: topic1 topic2 | 1 topic1-2 topic2-3", "consumer4: topic1 topic2 | 1 topic2-2"],
        plan: &["consumer3: topic1-2 topic2-3 topic1-0 topic2-1", "consumer4: topic2-2 topic1-1 topic2-0"],
    },
    Case {
        row: "S-14",
        topics: "topic:4",
        members: &[
            "consumer1: topic | 1 topic-0 topic-1",
            "consumer2: topic | 1 topic-2",
            "consumer3: topic | 1",
        ],
        plan: &["consumer1: topic-0 topic-1", "consumer2: topic-2", "consumer3: topic-3"],
    },
    Case {
        row: "S-15",
        topics: "topic:3",
        members: &[
            "consumer1: topic | 1 topic-0 topic-1",
            "consumer2: topic | 1 topic-0 topic-2",
            "consumer3: topic | 1",
        ],
        plan: &["consumer1: topic-1", "consumer2: topic-2", "consumer3: topic-0"],
    },
    Case {
        row: "S-16",
        topics: "topic:3 topic2:3 topic3:3",
        members: &[
            "consumer1: topic topic2 topic3 | 10 topic-0 topic2-0 topic3-0",
            "consumer2: topic topic2 topic3 | 9 topic-1 topic2-1 topic3-1",
            "consumer3: topic topic2 topic3 | 8 topic2-1 topic3-0 topic3-2",
        ],
        plan: &[
            "consumer1: topic-0 topic2-0 topic3-0",
            "consumer2: topic-1 topic2-1 topic3-1",
            "consumer3: topic3-2 topic-2 topic2-2",
        ],
    },
    Case {
        row: "S-17",
        topics: "topic1:2 topic2:1 topic3:2 topic4:1 topic5:2",
        members: &[
            "consumer1: topic1 topic2 topic3 topic4 topic5",
            "consumer2: topic1 topic3 topic5",
            "consumer3: topic1 topic3 topic5",
            "consumer4: topic1 topic2 topic3 topic4 topic5",
        ],
        plan: &[
            "consumer1: topic2-0 topic3-0",
            "consumer2: topic1-0 topic3-1",
            "consumer3: topic1-1 topic5-0",
            "consumer4: topic4-0 topic5-1",
        ],
    },
];

rows!(Sticky, CASES, s_01 s_02 s_03 s_04 s_05 s_06 s_07 s_08 s_09 s_10 s_11 s_12 s_13 s_14 s_15 s_16 s_17);
