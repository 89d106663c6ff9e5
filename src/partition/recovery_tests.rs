//! The plan of a recovery, from facts alone.

use crate::partition::recovery::*;

fn whole(base_offset: u64, end: u64) -> SegmentFacts {
    SegmentFacts { base_offset, end, complete: end, torn: false }
}

#[test]
fn every_combination_of_ends_and_hot_frames() {
    // One or two segments, each whole, unfinished, torn, or both; hot frames before, at and beyond the end.
    for two in [false, true] {
        for first in 0..4 {
            for second in 0..4 {
                let bend = |mut s: SegmentFacts, how: u32| {
                    s.torn = how & 1 != 0;
                    s.complete = if how & 2 != 0 { s.end - 2 } else { s.end };
                    s
                };
                let mut segments = vec![bend(whole(0, 10), first)];
                if two {
                    segments.push(bend(whole(10, 20), second));
                }
                let cut = two && first != 0;
                let last = if cut || !two { first } else { second };
                let whole_end = if cut || !two { 10 } else { 20 };
                let end = if last & 2 != 0 { whole_end - 2 } else { whole_end };
                for hot in [
                    None,
                    Some((0, 5)),
                    Some((end - 3, end + 4)),
                    Some((end, end + 4)),
                    Some((end + 1, end + 4)),
                ] {
                    let plan = plan(&segments, &hot.into_iter().collect::<Vec<_>>(), 0);
                    assert_eq!(plan.keep, if cut || !two { 1 } else { 2 }, "C");
                    assert_eq!((plan.end, plan.drop_unfinished), (end, last & 2 != 0), "D");
                    let goes_on = hot.is_some_and(|(from, to)| from <= end && to > end);
                    assert_eq!(plan.replay, (end, if goes_on { end + 4 } else { end }), "F, H");
                    let beyond = hot.filter(|(from, _)| *from > end);
                    assert_eq!(plan.unreachable, beyond, "G");
                }
            }
        }
    }
}

#[test]
fn a_log_never_ends_before_its_start() {
    assert_eq!(plan(&[], &[(3, 9)], 7).replay, (7, 9));
    assert_eq!(plan(&[], &[], 7).end, 7);
    assert_eq!(plan(&[whole(0, 5)], &[(5, 6)], 7).replay, (7, 7));
    assert_eq!(plan(&[whole(0, 9)], &[(9, 12)], 7).replay, (9, 12));
}

#[test]
fn an_empty_partition_begins_with_the_hot_frames() {
    assert_eq!(plan(&[], &[(0, 3), (3, 7)], 0).replay, (0, 7));
    assert_eq!(plan(&[], &[(1, 3)], 0).unreachable, Some((1, 3)));
    // Old chunks that were written long ago, and the gap that their recycling left, do no harm.
    assert_eq!(plan(&[whole(0, 50)], &[(10, 20), (40, 60), (60, 61)], 0).replay, (50, 61));
}
