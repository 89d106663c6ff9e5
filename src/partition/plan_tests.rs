//! Every combination of facts, and what is promised whatever they are. The promises are said here in other words than in the
//! plan: offset by offset, by somebody who knows what stood where.

use std::collections::BTreeSet;

use crate::partition::plan::*;

/// What a stop, a loss of power or damage left of a segment of ten records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Whole,
    /// Its last append has no end.
    Unfinished,
    /// A torn place follows on its first seven records, of which nothing is known.
    Torn,
    /// The same, and a header behind it tells how far it went.
    TornKnown,
    TornUnfinished,
    /// Damage in the middle, below what was flushed.
    Damaged,
    /// Damage that took its last records, below what was flushed.
    EndDamaged,
    /// Its last pages were never written, and look like space that was reserved.
    Early,
    /// Only its header was lost.
    Headless,
    /// Its header and its first block were lost.
    Unborn,
}

use Left::*;

const LEFT: [Left; 10] =
    [Whole, Unfinished, Torn, TornKnown, TornUnfinished, Damaged, EndDamaged, Early, Headless, Unborn];
const LEN: u64 = 10;

fn facts_of(left: Left, base_offset: u64, marked: bool) -> SegmentFacts {
    let (seven, end) = (base_offset + 7, base_offset + LEN);
    let whole = SegmentFacts {
        base_offset,
        begun: true,
        end,
        complete: end,
        torn: false,
        known_to: end,
        damaged: false,
        ends_below_floor: false,
        marked,
        sealed: true,
    };
    let torn =
        SegmentFacts { end: seven, complete: seven, known_to: seven, torn: true, sealed: false, ..whole };
    match left {
        Whole => whole,
        Unfinished => SegmentFacts { complete: seven, sealed: false, ..whole },
        Torn => torn,
        TornKnown => SegmentFacts { known_to: end, ..torn },
        TornUnfinished => SegmentFacts { complete: base_offset + 5, ..torn },
        Damaged | Headless => SegmentFacts { damaged: true, ..whole },
        EndDamaged => SegmentFacts { damaged: true, ends_below_floor: true, torn: false, ..torn },
        Early => SegmentFacts { torn: false, ..torn },
        Unborn => SegmentFacts {
            begun: false,
            end: base_offset,
            complete: base_offset,
            known_to: base_offset,
            sealed: false,
            ..whole
        },
    }
}

/// All segments that there can be, in all conditions: none to three, the first at `first`.
fn every_partition(first: u64, mut see: impl FnMut(&[SegmentFacts])) {
    see(&[]);
    let kinds: Vec<(Left, bool)> = LEFT
        .iter()
        .flat_map(|left| [(*left, false), (*left, true)])
        // One without a beginning tells of no flush, or it is none of these.
        .filter(|(left, marked)| !(*left == Unborn && *marked))
        .collect();
    let of = |i: u64, (left, marked): (Left, bool)| facts_of(left, first + i * LEN, marked);
    for &a in &kinds {
        see(&[of(0, a)]);
        for &b in &kinds {
            see(&[of(0, a), of(1, b)]);
            for &c in &kinds {
                see(&[of(0, a), of(1, b), of(2, c)]);
            }
        }
    }
}

type HotTail = (Vec<(u64, u64)>, Vec<HotGap>);

/// Hot frames before an end, over it, right behind it, beyond it, none; with holes; and gaps in them.
fn every_hot_tail(end: u64) -> Vec<HotTail> {
    let back = end.saturating_sub(3);
    vec![
        (vec![], vec![]),
        (vec![(back, end)], vec![]),
        (vec![(back, end + 4)], vec![]),
        (vec![(end, end + 4)], vec![]),
        (vec![(end + 1, end + 4)], vec![]),
        (vec![(back, end + 2), (end + 2, end + 5)], vec![]),
        (vec![(end, end + 2), (end + 4, end + 6)], vec![HotGap { from: end + 2, behind: Some(end + 4) }]),
        (vec![(end, end + 2)], vec![HotGap { from: end + 2, behind: None }]),
        (vec![(0, 60)], vec![]),
    ]
}

/// How many of the segments were flushed to their ends, for all that anybody can know.
fn flushed(facts: &Facts<'_>) -> usize {
    let n = facts.segments.len();
    if facts.stop == Stop::Clean {
        return n;
    }
    (0..n).filter(|i| facts.segments[*i].marked).max().unwrap_or(0)
}

fn keeps_the_promises(facts: &Facts<'_>, plan: &Plan) {
    let (n, flushed) = (facts.segments.len(), flushed(facts));
    let (kept, gone) = facts.segments.split_at(plan.keep);
    let what = || format!("{facts:#?}\n{plan:#?}");

    // Flushed records are never lost: no file that was flushed goes.
    assert!(plan.keep >= flushed, "{}", what());

    // Nothing follows a torn place, an append without an end, a gap: but where all of it was flushed.
    for i in flushed.min(kept.len())..kept.len().saturating_sub(1) {
        let (s, next) = (&kept[i], &kept[i + 1]);
        assert!(!s.torn && s.complete == s.end, "{}", what());
        let gap = s.end < next.base_offset && !s.ends_below_floor;
        assert!(!(gap && facts.stop == Stop::Machine), "{}", what());
    }
    assert!(kept.iter().all(|s| s.begun), "{}", what());

    // It ends where an append ends, and not before its start.
    let ends: Vec<u64> = kept.last().iter().map(|s| s.complete).chain([facts.start]).collect();
    assert_eq!(Some(plan.end), ends.into_iter().max(), "{}", what());

    // What is replayed begins at the end, has no hole, and stops for want of the next offset only.
    let is_hot = |offset: u64| facts.hot.iter().any(|(from, to)| (*from..*to).contains(&offset));
    assert_eq!(plan.replay.0, plan.end, "{}", what());
    assert!((plan.replay.0..plan.replay.1).all(is_hot) && !is_hot(plan.replay.1), "{}", what());

    // Whatever anybody knows of, and that is not in the log now, is named in a note.
    let in_the_log = |offset: u64| {
        let in_a_file = offset < plan.end && kept.iter().any(|s| (s.base_offset..s.end).contains(&offset));
        in_a_file || (plan.replay.0..plan.replay.1).contains(&offset)
    };
    let ranges: Vec<_> = plan
        .aside
        .iter()
        .chain(&plan.hot_damage)
        .flatten()
        .cloned()
        .chain(plan.tail.clone())
        .chain(plan.missing.iter().map(|(_, range)| range.clone()))
        .chain(plan.unreachable.map(|(from, to)| from..to))
        .collect();
    let damaged = |offset: u64| {
        kept.iter().enumerate().any(|(i, s)| {
            let told = s.damaged || plan.torn_is_damage.contains(&i);
            told && (s.base_offset..s.base_offset + LEN).contains(&offset)
        })
    };
    for offset in facts.start..70 {
        let stood_in_a_file = facts.segments.iter().any(|s| {
            let amiss = !s.begun || s.torn;
            (s.base_offset..s.known_to.max(s.end + u64::from(amiss))).contains(&offset)
        });
        let named = ranges.iter().any(|range| range.contains(&offset)) || damaged(offset);
        if (stood_in_a_file || is_hot(offset)) && !in_the_log(offset) {
            assert!(named, "offset {offset} goes in silence: {}", what());
        }
        // And no note cries of what is there.
        assert!(!(in_the_log(offset) && ranges.iter().any(|r| r.contains(&offset))), "{offset}: {}", what());
    }
    // Holes between what is kept are told.
    let mut before = facts.start;
    for (i, s) in kept.iter().enumerate() {
        let hole = before < s.base_offset;
        assert_eq!(plan.missing.contains(&(i, before..s.base_offset)), hole, "{}", what());
        before = before.max(s.end);
    }
    // A file goes without a trace only where the hot frames hold all it held.
    for (s, lost) in gone.iter().zip(&plan.aside) {
        assert!(lost.is_some() || s.end.max(s.known_to) <= plan.replay.1, "{}", what());
    }
    assert_eq!((plan.aside.len(), plan.hot_damage.len()), (n - plan.keep, facts.gaps.len()));

    // The letters.
    let is = |case: Case| plan.cases.contains(&case);
    let cut = plan.keep < n || (n > 0 && kept.last().is_some_and(|s| s.torn));
    assert_eq!([Case::A, Case::B, Case::C, Case::M].into_iter().filter(|c| is(*c)).count(), 1, "{}", what());
    assert_eq!((is(Case::A), is(Case::B)), (n == 0, n > 0 && !cut), "{}", what());
    assert_eq!((is(Case::D), is(Case::F)), (plan.drop_unfinished, plan.replay.1 > plan.end), "{}", what());
    assert_eq!(is(Case::G), plan.unreachable.is_some(), "{}", what());
    assert_eq!(is(Case::H), !is(Case::F) && !is(Case::G), "{}", what());
    let missing = plan.end_is_missing || !plan.missing.is_empty() || !plan.torn_is_damage.is_empty();
    assert_eq!(is(Case::E), missing || kept.iter().any(|s| s.damaged), "{}", what());
    // A log that was closed is not cut for anything but noise at its very end.
    assert!(facts.stop != Stop::Clean || (plan.keep == n && !is(Case::M)), "{}", what());
}

#[test]
fn every_combination_of_facts() {
    let (mut seen, mut tried) = (BTreeSet::new(), 0);
    // I and J leave the same facts, and so do K and L: J had more of a segment verified, and L opens as K the next time.
    for stop in [Stop::Clean, Stop::Process, Stop::Machine] {
        // The log begins with the first segment, in the middle of it, behind it, or a segment is missing before it.
        for (first, start) in [(0, 0), (0, 5), (0, 12), (10, 0)] {
            every_partition(first, |segments| {
                // A flush comes before a close: no segment of a closed log is without a beginning and opens.
                let unborn = |s: &SegmentFacts| !s.begun;
                let flushed = segments.iter().rposition(|s| s.marked).unwrap_or(0);
                let of_none = segments[..flushed].iter().any(unborn);
                if of_none || (stop == Stop::Clean && segments.iter().any(unborn)) {
                    return; // the scan refuses them: they were flushed, and nothing of them is left
                }
                let alone = Facts { stop, segments, hot: &[], gaps: &[], start };
                for (hot, gaps) in every_hot_tail(plan(&alone).end) {
                    let facts = Facts { hot: &hot, gaps: &gaps, ..alone };
                    let plan = plan(&facts);
                    keeps_the_promises(&facts, &plan);
                    seen.extend(plan.cases);
                    tried += 1;
                }
            });
        }
    }
    for (flushed, survived) in [(true, true), (true, false), (false, true), (false, false)] {
        let look = look(flushed, survived, LAST_WRITES);
        // What a flush or the kernel answers for is not read again; all else is.
        assert_eq!(look.verify_last == u64::MAX, !flushed && !survived);
        assert_eq!(look.floor == u64::MAX, flushed, "only a flush makes a floor");
        seen.extend(look.case);
    }
    use Case::*;
    let all = [A, B, C, D, E, F, G, H, I, K, M];
    assert!(seen.into_iter().eq(all), "each row of the table occurs");
    assert!(tried > 400_000, "{tried}");
}

fn whole(base_offset: u64) -> SegmentFacts {
    facts_of(Whole, base_offset, false)
}

fn planned(stop: Stop, segments: &[SegmentFacts], hot: &[(u64, u64)], start: u64) -> Plan {
    plan(&Facts { stop, segments, hot, gaps: &[], start })
}

#[test]
fn a_log_never_ends_before_its_start() {
    let planned = |segments: &[_], hot: &[_]| planned(Stop::Process, segments, hot, 17);
    assert_eq!(planned(&[], &[(13, 19)]).replay, (17, 19));
    assert_eq!(planned(&[], &[]).end, 17);
    assert_eq!(planned(&[whole(0)], &[(15, 16)]).replay, (17, 17));
    assert_eq!(planned(&[whole(10)], &[(20, 22)]).replay, (20, 22));
}

#[test]
fn an_empty_partition_begins_with_the_hot_frames() {
    let planned = |segments: &[_], hot: &[_]| planned(Stop::Process, segments, hot, 0);
    assert_eq!(planned(&[], &[(0, 3), (3, 7)]).replay, (0, 7));
    assert_eq!(planned(&[], &[(1, 3)]).unreachable, Some((1, 3)));
    // Old chunks that were written long ago, and the gap that their recycling left, do no harm.
    let chunks = [(1, 2), (4, 16), (16, 17)];
    assert_eq!(planned(&[whole(0)], &chunks).replay, (10, 17));
}

/// A torn place told of blocks behind it, the hot frames covered the one that was torn and no more, and what the others held
/// went without a word.
#[test]
fn what_stood_behind_a_torn_place_is_named() {
    let torn = facts_of(TornKnown, 0, false);
    assert_eq!(planned(Stop::Machine, &[torn], &[(7, 9)], 0).tail, Some(9..10));
    assert_eq!(planned(Stop::Machine, &[torn], &[(7, 10)], 0).tail, None);
}

/// One page was lost that held the end of a flushed segment: the last block of an append, and the footer. The append had no end,
/// and all later segments were set aside.
#[test]
fn an_append_that_lost_its_end_to_damage_is_not_the_end_of_the_log() {
    let hurt = SegmentFacts { torn: true, ..facts_of(Unfinished, 0, false) };
    let marked = facts_of(Whole, 10, true);
    for stop in [Stop::Clean, Stop::Process, Stop::Machine] {
        let plan = planned(stop, &[hurt, marked], &[], 0);
        assert_eq!((plan.keep, plan.end, plan.torn_is_damage), (2, 20, vec![0]));
    }
}

/// One that a process left was whole once, and is lost; after a loss of power the last one may be one that was never promised.
#[test]
fn a_hot_frame_that_does_not_prove_itself_is_named() {
    let damage = |stop, from, behind| {
        let (segments, gaps) = ([whole(0)], [HotGap { from, behind }]);
        plan(&Facts { stop, segments: &segments, hot: &[(10, 12)], gaps: &gaps, start: 0 }).hot_damage
    };
    assert_eq!(damage(Stop::Process, 12, None), [Some(12..13)]);
    assert_eq!(damage(Stop::Machine, 12, None), [None]);
    assert_eq!(damage(Stop::Machine, 12, Some(15)), [Some(12..15)]);
    // What the segments or other frames hold of it is not lost.
    assert_eq!(damage(Stop::Process, 11, None), [None]);
    assert_eq!(damage(Stop::Process, 5, Some(12)), [None]);
    assert_eq!(damage(Stop::Process, 8, Some(15)), [Some(12..15)]);
}

/// Where the log ends before a gap, the gap is named with what follows it; and nothing is, where no file is cut.
#[test]
fn what_a_segment_held_up_to_the_next_one_is_named() {
    let cut = planned(Stop::Machine, &[facts_of(Early, 0, false), whole(10)], &[], 0);
    assert_eq!((cut.keep, cut.tail, cut.aside), (1, Some(7..10), vec![Some(10..20)]));
    let covered = planned(Stop::Machine, &[facts_of(Early, 0, false), whole(10)], &[(7, 10)], 0);
    assert_eq!((covered.tail, covered.aside), (None, vec![Some(10..20)]));
    let behind =
        planned(Stop::Machine, &[facts_of(Torn, 0, false), facts_of(Early, 10, false), whole(20)], &[], 0);
    assert_eq!((behind.keep, behind.aside), (1, vec![Some(10..20), Some(20..30)]));
    let damaged = SegmentFacts { known_to: 10, ..facts_of(EndDamaged, 0, true) };
    assert_eq!(planned(Stop::Machine, &[damaged], &[], 0).tail, None);
}

/// A log that was closed sealed its last segment. Where that seal is not there, damage tells why, or nothing does.
#[test]
fn a_closed_log_without_its_seal_lost_its_end() {
    let missing = |left| planned(Stop::Clean, &[facts_of(left, 0, false)], &[], 0).end_is_missing;
    assert!(missing(Early) && missing(Unfinished));
    assert!(!missing(Whole) && !missing(Torn) && !missing(EndDamaged));
    assert!(!planned(Stop::Process, &[facts_of(Early, 0, false)], &[], 0).end_is_missing);
}
