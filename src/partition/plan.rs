//! What becomes of a partition that is opened: a decision table, from facts to a plan. No files here; `recovery` finds the
//! facts and does the plan.
//!
//! | | the segments, in order of their offsets | then |
//! |---|---|---|
//! | A | none | the log begins with the first hot frame, if that has offset 0 |
//! | B | all end whole | the log ends with the last of them |
//! | C | one has a torn place, or ends within an append and others follow, at or above what was flushed | the log ends before it; what follows in that file, and all later files, are set aside |
//! | D | the last append of the last kept one is unfinished | the log ends before that append |
//! | M | one has neither a whole header nor a whole first block; or, where the machine stopped, one ends before the next begins, or the first is missing; and none from there on was flushed | as C: it was never flushed, and a loss of power takes what it likes of that |
//! | E | damage below what was flushed, or records missing between two | it stays as it is and is reported; what follows is kept |
//!
//! How much of a segment that is not known to have been flushed is verified for that, besides its headers:
//!
//! | | after the process stopped | payloads |
//! |---|---|---|
//! | I | the machine went on, as `witness.rs` proves, and what was written is flushed before the log is open | those of the last 16 MiB of the partition; of older segments that were sealed not even the headers |
//! | J | as I, but more than the end of the last write is amiss (`scan.rs` sees it) | all of that segment |
//! | K | the machine stopped, or it cannot be known | all |
//! | L | as I, but the flush fails | none: the open fails, and the next one is K, for the testimony was taken back |
//!
//! and then, wherever that end is:
//!
//! | | the hot frames | then |
//! |---|---|---|
//! | F | go on exactly at the end | they are replayed, whole appends only; what C, D or M cut off and they cover was never lost, and is not reported |
//! | G | begin beyond the end | they cannot be reached: reported, not replayed |
//! | H | end below it, or there are none | nothing is left to do |

use std::ops::Range;

/// So much at the end of a partition is always verified: more than any one write, so that it holds all that the last of
/// them can have torn.
pub(crate) const LAST_WRITES: u64 = 16 << 20;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    A,
    B,
    C,
    D,
    E,
    F,
    G,
    H,
    I,
    K,
    M,
}

/// What stopped when the log was open last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nothing: it was closed.
    Clean,
    /// The process, as is proved.
    Process,
    /// The machine, perhaps.
    Machine,
}

/// What the plan needs to know of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) base_offset: u64,
    /// Whether its header or its first block proves itself.
    pub(crate) begun: bool,
    /// The offset after the last whole block, and after the last whole append.
    pub(crate) end: u64,
    pub(crate) complete: u64,
    /// Whether a torn place follows.
    pub(crate) torn: bool,
    /// The offset after the last record that any header in it tells of, behind a torn place too.
    pub(crate) known_to: u64,
    /// Whether there is damage below what was flushed, and whether that took the last blocks.
    pub(crate) damaged: bool,
    pub(crate) ends_below_floor: bool,
    /// Whether a block tells of a flush, which covered all segments before this one.
    pub(crate) marked: bool,
    pub(crate) sealed: bool,
}

impl SegmentFacts {
    /// The offset before which all ended that is known to have stood here.
    fn reached(&self) -> u64 {
        self.known_to.max(self.end + u64::from(self.torn || !self.begun))
    }
}

/// Frames of the hot tail that do not prove themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HotGap {
    pub(crate) from: u64,
    /// The offset of the first whole append behind them; `None` where there is none.
    pub(crate) behind: Option<u64>,
}

/// What is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) stop: Stop,
    pub(crate) segments: &'a [SegmentFacts],
    /// The offsets of the hot frames that prove themselves and follow on one another.
    pub(crate) hot: &'a [(u64, u64)],
    pub(crate) gaps: &'a [HotGap],
    /// Below this records were deleted, and the log never ends before.
    pub(crate) start: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The rows of the table that apply.
    pub(crate) cases: Vec<Case>,
    /// How many segments are kept.
    pub(crate) keep: usize,
    /// For each later file the offsets that are lost with it; `None` where hot frames cover them all.
    pub(crate) aside: Vec<Option<Range<u64>>>,
    /// Kept segments of which a torn place is damage, since what follows it was flushed.
    pub(crate) torn_is_damage: Vec<usize>,
    /// Offsets that are nowhere, though nothing that is there is damaged: before which of the kept segments.
    pub(crate) missing: Vec<(usize, Range<u64>)>,
    /// Whether the log was closed and the last segment does not end as a closed log leaves it.
    pub(crate) end_is_missing: bool,
    /// Whether an unfinished append at the end of the last kept one goes.
    pub(crate) drop_unfinished: bool,
    /// What is cut off behind the end of the last kept one and not covered by hot frames.
    pub(crate) tail: Option<Range<u64>>,
    /// Where the segments end then.
    pub(crate) end: u64,
    /// The hot records to replay; empty where there are none that go on.
    pub(crate) replay: (u64, u64),
    /// For each gap in the hot tail what is lost with it, where anything is.
    pub(crate) hot_damage: Vec<Option<Range<u64>>>,
    /// Hot records that cannot be reached.
    pub(crate) unreachable: Option<(u64, u64)>,
}

/// Decides, from facts alone, what becomes of a partition.
pub(crate) fn plan(facts: &Facts<'_>) -> Plan {
    let (segments, clean) = (facts.segments, facts.stop == Stop::Clean);
    let (keep, mut cases) = keep(facts);
    let last = segments[..keep].last();
    let drop_unfinished = last.is_some_and(|last| last.complete != last.end);
    if drop_unfinished {
        cases.push(Case::D);
    }
    let end = last.map_or(facts.start, |last| last.complete.max(facts.start));

    let flushed = flushed_whole(facts).min(keep);
    let torn_is_damage: Vec<usize> = (0..flushed).filter(|i| segments[*i].torn).collect();
    let mut missing: Vec<(usize, Range<u64>)> = Vec::new();
    let mut expected = facts.start;
    for (i, segment) in segments[..keep].iter().enumerate() {
        if expected < segment.base_offset {
            missing.push((i, expected..segment.base_offset));
        }
        expected = segment.end.max(expected);
    }
    let end_is_missing = clean && last.is_some_and(|last| !(last.sealed || last.torn || last.damaged));
    let damaged = segments[..keep].iter().any(|segment| segment.damaged);
    if damaged || end_is_missing || !(missing.is_empty() && torn_is_damage.is_empty()) {
        cases.push(Case::E);
    }

    let (mut replay, mut unreachable) = ((end, end), None);
    for &(from, to) in facts.hot {
        if to <= replay.1 {
            continue;
        }
        if from <= replay.1 {
            replay.1 = to;
        } else {
            unreachable.get_or_insert((from, to)).1 = to;
        }
    }
    let covered = replay.1;
    cases.extend((covered > end).then_some(Case::F));
    cases.extend(unreachable.map(|_| Case::G));
    cases.extend((covered == end && unreachable.is_none()).then_some(Case::H));

    let aside = (keep..segments.len()).map(|i| {
        // What stood behind its last block reached as far as the next one begins.
        let next = segments.get(i + 1).map_or(0, |next| next.base_offset);
        // And before the first one nothing is kept.
        let from = if i == 0 { covered } else { segments[i].base_offset.max(covered) };
        let to = segments[i].reached().max(next);
        (covered < to).then_some(from..to)
    });
    let tail = last.filter(|last| last.torn || drop_unfinished || keep < segments.len());
    let tail = tail.map(|last| last.reached().max(segments.get(keep).map_or(0, |next| next.base_offset)));
    let tail = tail.filter(|known_to| covered < *known_to).map(|known_to| covered..known_to);
    let hot_damage = facts.gaps.iter().map(|gap| {
        // A last frame that the power cut off is none that was promised; one that a process left whole is.
        let one = if facts.stop == Stop::Process { gap.from + 1 } else { 0 };
        let known_to = gap.behind.unwrap_or(one);
        (known_to > covered.max(gap.from)).then_some(gap.from.max(covered)..known_to)
    });
    Plan {
        aside: aside.collect(),
        hot_damage: hot_damage.collect(),
        cases,
        keep,
        torn_is_damage,
        missing,
        end_is_missing,
        drop_unfinished,
        tail,
        end,
        replay,
        unreachable,
    }
}

/// How many segments are kept, and why not more: A, B, C or M.
fn keep(facts: &Facts<'_>) -> (usize, Vec<Case>) {
    let segments = facts.segments;
    let Some(first) = segments.first() else { return (0, vec![Case::A]) };
    let power = facts.stop == Stop::Machine;
    // A log begins where the catalog says, unless the power took the name of its first file.
    if power && first.base_offset > facts.start && !segments.iter().any(|s| s.marked) {
        return (0, vec![Case::M]);
    }
    let flushed = flushed_whole(facts);
    for (i, segment) in segments.iter().enumerate().skip(flushed) {
        let next = segments.get(i + 1);
        if !segment.begun {
            return (i, vec![Case::M]);
        }
        // An append never spans segments.
        if segment.torn || (segment.complete != segment.end && next.is_some()) {
            return (i + 1, vec![Case::C]);
        }
        let early = next.is_some_and(|next| segment.end < next.base_offset);
        if power && early && !segment.ends_below_floor {
            return (i + 1, vec![Case::M]);
        }
    }
    (segments.len(), vec![Case::B])
}

/// How many segments, all of which others follow, were flushed to their ends: what is there behind the last block of one is no
/// torn write, but a footer or blocks that were damaged. It is never taken for the end of the log.
fn flushed_whole(facts: &Facts<'_>) -> usize {
    match facts.stop {
        Stop::Clean => facts.segments.len().saturating_sub(1),
        _ => facts.segments.iter().rposition(|segment| segment.marked).unwrap_or(0),
    }
}

/// How a segment is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) case: Option<Case>,
    /// Everything below this position was flushed, whatever the segment says.
    pub(crate) floor: u64,
    /// So many bytes before its last block's end are verified.
    pub(crate) verify_last: u64,
}

/// Decides how much of a segment is looked at: one that is known to be `flushed` whole, or that `survived` in the page cache,
/// or neither. Of the last writes of the partition `last_writes` bytes lie in it or before it.
pub(crate) fn look(flushed: bool, survived: bool, last_writes: u64) -> Look {
    match () {
        () if flushed => Look { case: None, floor: u64::MAX, verify_last: 0 },
        () if survived => Look { case: Some(Case::I), floor: 0, verify_last: last_writes },
        () => Look { case: Some(Case::K), floor: 0, verify_last: u64::MAX },
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
