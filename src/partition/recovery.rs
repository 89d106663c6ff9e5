//! Bringing a partition back: facts from its files and from the hot tail, a plan, and the doing of the plan.
//!
//! The plan is a pure function ([`plan`]) of what the segments and the proved hot frames say:
//!
//! | | the segments, in order of their offsets | then |
//! |---|---|---|
//! | A | none | the log begins with the first hot frame, if that has offset 0 |
//! | B | all end whole | the log ends with the last of them |
//! | C | one has a torn place (at or above what was flushed) | the log ends before it; what follows in that file, and all later files, are set aside |
//! | D | the last append of the last kept one is unfinished | the log ends before that append |
//! | M | one has neither a whole header nor a whole first block, or ends before the next begins, or the first is missing, and none from there on was flushed | as C: the power went before the first flush |
//! | E | damage below what was flushed, or records missing between two | it stays as it is and is reported; what follows is kept |
//!
//! How much of a segment that is not known to have been flushed is verified for that, besides its headers:
//!
//! | | after the process stopped | payloads |
//! |---|---|---|
//! | I | the machine went on, as `witness.rs` proves, and what was written is flushed before the log is open | those of the last 16 MiB of the partition; of older segments that were sealed not even the headers |
//! | J | as I, but more than the end of the last write is amiss | all of that segment |
//! | K | the machine stopped, or it cannot be known | all |
//! | L | as I, but the flush fails | none: the open fails, and the next one is K |
//!
//! and then, wherever that end is:
//!
//! | | the hot frames | then |
//! |---|---|---|
//! | F | go on exactly at the end | they are replayed, whole appends only; what C or D cut off and they cover was never lost, and is not reported |
//! | G | begin beyond the end | they cannot be reached: reported, not replayed |
//! | H | end below it, or there are none | nothing is left to do |

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crate::clock::{Clock, Timestamp};
use crate::codec::Codecs;
use crate::error::Result;
use crate::partition::core::Opened;
use crate::partition::drain::{Sink, SinkContext};
use crate::partition::power_cut::{end_before_gaps, set_stillborn_aside};
use crate::partition::settings::Settings;
use crate::segment::chain::Chain;
use crate::segment::format::parse_file_name;
use crate::segment::reader::Segment;
use crate::segment::scan::{Damage, SegmentScan, SegmentScanOptions, is_unborn, scan};
use crate::segment::writer::SegmentWriter;
use crate::storage::directory::Directory;
use crate::storage::slot;
use crate::storage::staged::{ProvedFrames, StagedChunk};

/// So much at the end of a partition is always verified: more than any one write, so that it holds all that the last of
/// them can have torn.
const LAST_WRITES: u64 = 16 << 20;

/// So many bytes of the hot tail are worth a thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// What happened to a part of a log while it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryAction {
    /// Records of the hot tail were written to segment files: normal after an unclean stop.
    Replayed,
    /// Bytes at the end of a segment that do not prove themselves were set aside: a torn write.
    TornTail,
    /// An append whose second half is missing was set aside.
    UnfinishedAppend,
    /// Bytes below the flushed floor do not prove themselves: they were left in place and cannot be read.
    Damaged,
    /// Records of the hot tail that do not follow on what the segments hold were left out.
    Unreachable,
    /// Files of a topic that the catalog does not know were set aside.
    UnknownTopic,
}

/// One thing that recovery of a partition did.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) action: RecoveryAction,
    pub(crate) offsets: Option<Range<u64>>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) bytes: Option<Range<u64>>,
    pub(crate) kept_in: Option<PathBuf>,
    pub(crate) reason: String,
}

impl Note {
    /// Of records, wherever they are.
    fn of(action: RecoveryAction, offsets: Range<u64>, reason: String) -> Note {
        Note { action, offsets: Some(offsets), file: None, bytes: None, kept_in: None, reason }
    }
}

/// What recovery of a partition did.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) replayed: u64,
    pub(crate) items: Vec<Note>,
}

/// What recovery needs to know.
pub(crate) struct Recovering<'a> {
    pub(crate) directory: &'a Arc<Directory>,
    pub(crate) codecs: &'a Codecs,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) clean: bool,
    /// Where it is proved that only the process stopped: the mount that the log was and is on.
    pub(crate) survived_on: Option<u64>,
    pub(crate) epoch: u32,
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
    /// Below this all records were deleted.
    pub(crate) start: u64,
    pub(crate) folder: &'a Path,
    pub(crate) settings: &'a Settings,
    /// Where to set bytes aside, seen from the directory.
    pub(crate) quarantine: &'a Path,
}

/// What the plan needs to know of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) base_offset: u64,
    /// The offset after the last whole block, and after the last whole append.
    pub(crate) end: u64,
    pub(crate) complete: u64,
    /// Whether a torn place follows.
    pub(crate) torn: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How many segments are kept; later files are set aside.
    pub(crate) keep: usize,
    /// Whether an unfinished append at the end of the last kept one goes.
    pub(crate) drop_unfinished: bool,
    /// Where the segments end then.
    pub(crate) end: u64,
    /// The hot records to replay; empty where there are none that go on.
    pub(crate) replay: (u64, u64),
    /// Hot records that cannot be reached.
    pub(crate) unreachable: Option<(u64, u64)>,
}

/// Decides, from facts alone, what becomes of a partition. `hot` are the offsets of the hot frames that prove
/// themselves and follow on one another; below `start` records were deleted, and the log never ends before.
pub(crate) fn plan(segments: &[SegmentFacts], hot: &[(u64, u64)], start: u64) -> Plan {
    // C: nothing after the first torn place is part of the log. A file that ends within an append and has
    // another behind it is torn as well: an append never spans segments.
    let broken = |i: usize| {
        let s = &segments[i];
        s.torn || (s.complete != s.end && i + 1 < segments.len())
    };
    let keep = (0..segments.len()).find(|i| broken(*i)).map_or(segments.len(), |i| i + 1);
    let (end, drop_unfinished) = match segments[..keep].last() {
        None => (start, false),
        Some(last) => (last.complete.max(start), last.complete != last.end), // D
    };
    let mut replay = (end, end);
    let mut unreachable = None;
    for &(from, to) in hot {
        if to <= replay.1 {
            continue; // H
        }
        if from <= replay.1 {
            replay.1 = to; // F
        } else {
            unreachable.get_or_insert((from, to)).1 = to; // G
        }
    }
    Plan { keep, drop_unfinished, end, replay, unreachable }
}

/// Brings one partition back. What the answer calls unflushed is for the caller to flush, with that of other partitions.
///
/// `staged` is in the order of its offsets.
pub(crate) fn recover_partition(
    r: &Recovering<'_>,
    mut staged: Vec<StagedChunk>,
) -> Result<(Opened, Recovered)> {
    let mut done = Recovered::default();
    let mut scans = scan_all(r, &mut done)?;
    let facts: Vec<SegmentFacts> = scans
        .iter()
        .map(|s| SegmentFacts {
            base_offset: s.meta.base_offset,
            end: s.end.next_offset,
            complete: s.complete.next_offset,
            torn: s.torn.is_some(),
        })
        .collect();
    drop_written(&mut staged, plan(&facts, &[], r.start).end);
    let mut hot = Vec::with_capacity(staged.len());
    let mut gaps = Vec::new();
    for found in hot_chunks(&staged)? {
        hot.extend(found.whole);
        if let Some(gap) = found.gap {
            hot.extend(gap.behind);
            gaps.push(gap);
        }
    }
    let plan = plan(&facts, &hot, r.start);

    for scan in &scans[..plan.keep] {
        done.items.extend(scan.damaged.iter().map(|damage| damaged_note(r, scan, damage)));
    }
    done.items.extend(missing(r, &scans[..plan.keep]));
    let covered = plan.replay.1;
    for stray in scans.drain(plan.keep..) {
        set_file_aside(r, &stray, covered, &mut done)?;
    }
    if let Some(last) = scans.last_mut() {
        set_tail_aside(r, last, plan.drop_unfinished, covered, &mut done)?;
        if plan.drop_unfinished {
            last.drop_unfinished();
        }
    }
    for Gap { from, behind, file } in gaps {
        // A last frame that the power cut off is none that was promised; one that a process left whole is.
        let known_to = behind.map(|(from, _)| from).or(r.survived_on.map(|_| from + 1)).unwrap_or(0);
        if known_to > covered.max(from) {
            let reason = "records of the hot tail do not prove themselves";
            let note = Note::of(RecoveryAction::Damaged, from.max(covered)..known_to, reason.into());
            done.items.push(Note { file: Some(file), ..note });
        }
    }
    if let Some((from, to)) = plan.unreachable {
        let reason = format!("the log ends at offset {covered} and these records do not go on there");
        done.items.push(Note::of(RecoveryAction::Unreachable, from..to, reason));
    }

    let opened = assemble(r, scans, &plan, &staged, &mut done)?;
    Ok((opened, done))
}

/// Scans the segments of the partition, as much of each as needs to be looked at.
fn scan_all(r: &Recovering<'_>, done: &mut Recovered) -> Result<Vec<SegmentScan>> {
    if !r.directory.exists(r.folder)? {
        return Ok(Vec::new());
    }
    let mut names: Vec<(u64, u32, String)> = Vec::new();
    for entry in r.directory.list(r.folder)? {
        let Some(name) = entry.name.to_str() else { continue };
        if let Some((base_offset, generation)) = parse_file_name(name) {
            names.push((base_offset, generation, name.to_owned()));
        }
    }
    names.sort();
    // A file that was made and never written holds nothing; the next one of its name must not find it there.
    while let Some((_, _, name)) = names.last() {
        if !is_unborn(r.directory, r.folder, name)? {
            break;
        }
        let path = r.folder.join(name);
        if r.clean {
            // A log that was closed leaves no such file: this one was something else.
            let to =
                free_name(r.directory, r.quarantine, format!("{:016x}-{}-{name}", r.topic_id, r.partition));
            r.directory.create_dir_all(r.quarantine)?;
            r.directory.rename(&path, &to)?;
            let to = r.directory.root().join(to);
            let note = Note { kept_in: Some(to), ..lost(r, name, "the segment is empty") };
            done.items.push(note);
        } else {
            r.directory.remove_file(&path)?;
        }
        names.pop();
    }
    // Wholly below the start: what a process that deleted records did not come to.
    let gone = names.windows(2).take_while(|two| two[1].0 <= r.start).count();
    for (_, _, name) in names.drain(..gone) {
        r.directory.remove_file(&r.folder.join(name))?;
    }
    let after_power_cut = !r.clean && r.survived_on.is_none();
    if after_power_cut {
        // A flush may have failed before: then what is in memory may be what is not on the disk.
        for (_, _, name) in &names {
            r.directory.open(&r.folder.join(name), false)?.forget_cached()?;
        }
        set_stillborn_aside(r, &mut names, done)?;
    }
    let mut scans = Vec::with_capacity(names.len());
    // From the newest back: a flush covers all segments before the one it marks, so that once a mark is seen
    // the older ones were flushed whole and their trailers can be believed.
    let mut flushed = r.clean;
    let mut last_writes = LAST_WRITES;
    for (_, _, name) in names.iter().rev() {
        let (floor, verify_last) = match () {
            () if flushed => (u64::MAX, 0),
            () if survived(r, name)? => (0, last_writes), // I
            () => (0, u64::MAX),                          // K
        };
        let options = SegmentScanOptions { floor, verify_last, believe_marks: true };
        let mut scan = scan(r.directory, r.folder, name, (r.topic_id, r.partition), options)?;
        if flushed && !scans.is_empty() {
            scan.call_torn_damaged();
        }
        flushed |= scan.durable_mark > 0;
        last_writes = last_writes.saturating_sub(scan.end.position);
        scans.push(scan);
    }
    scans.reverse();
    if after_power_cut {
        end_before_gaps(&mut scans);
    }
    Ok(scans)
}

/// Whether all that was written to a segment is there, but for the end of a write that was cut off: if the flush goes
/// through that ends every open. Where pages could not be written it fails, and they may be gone (L).
fn survived(r: &Recovering<'_>, file_name: &str) -> Result<bool> {
    let path = r.directory.path(&r.folder.join(file_name))?;
    let mount = r.directory.place(&path).map(|place| place.mount);
    Ok(r.survived_on.is_some() && mount == r.survived_on)
}

/// Leaves out the chunks that need not be read: no chunk goes beyond where another one begins, and what lies below `end`
/// is in the segments.
fn drop_written(staged: &mut Vec<StagedChunk>, end: u64) {
    let written = staged.windows(2).take_while(|pair| pair[1].base_offset <= end).count();
    staged.drain(..written);
}

/// What a staged chunk holds.
struct HotChunk {
    /// The offsets of the whole appends that it begins with; `None` where there is none.
    whole: Option<(u64, u64)>,
    gap: Option<Gap>,
}

/// Frames of a staged chunk that do not prove themselves.
struct Gap {
    from: u64,
    /// The offsets of the whole appends behind them; `None` where there is none.
    behind: Option<(u64, u64)>,
    file: PathBuf,
}

/// What each staged chunk holds, found on as many threads as there are processors.
fn hot_chunks(staged: &[StagedChunk]) -> Result<Vec<HotChunk>> {
    let find = |chunks: &[StagedChunk]| -> Result<Vec<HotChunk>> {
        let (mut memory, mut more) = (Vec::new(), Vec::new());
        chunks.iter().map(|chunk| hot_chunk(chunk, &mut memory, &mut more)).collect()
    };
    if staged.iter().map(|chunk| chunk.len).sum::<usize>() < WORTH_A_THREAD {
        return find(staged);
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut shares = staged.chunks(staged.len().div_ceil(processors));
    let first = shares.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> =
            shares.map(|share| (share, helper().spawn_scoped(scope, move || find(share)).ok())).collect();
        let mut chunks = find(first)?;
        for (share, helper) in others {
            // Without a further thread it only takes longer.
            let found = helper.and_then(|helper| helper.join().ok()).unwrap_or_else(|| find(share));
            chunks.extend(found?);
        }
        Ok(chunks)
    })
}

fn helper() -> thread::Builder {
    thread::Builder::new().name("tapelog-recover".into())
}

fn hot_chunk(chunk: &StagedChunk, memory: &mut Vec<u8>, more: &mut Vec<u8>) -> Result<HotChunk> {
    let bytes = chunk.read(memory)?;
    let run = hot_run(chunk.frames(bytes), chunk.base_offset);
    let gap = chunk.behind_damage(bytes, run.at, run.next, more)?.map(|(_, rest)| {
        let first = rest.clone().next().map(|(_, frame)| frame.offset());
        let behind = first.and_then(|first| hot_run(rest, first).whole);
        Gap { from: run.next, behind, file: chunk.path().to_path_buf() }
    });
    Ok(HotChunk { whole: run.whole, gap })
}

/// What frames of a staged chunk hold, from offset `from` on.
struct HotRun {
    /// The offsets of the whole appends; `None` where there is none.
    whole: Option<(u64, u64)>,
    /// The offset and the place behind the last frame.
    next: u64,
    at: usize,
}

fn hot_run(frames: ProvedFrames<'_>, from: u64) -> HotRun {
    let (mut next, mut whole, mut at) = (from, from, slot::HEADER);
    for (place, frame) in frames {
        if frame.offset() != next {
            break;
        }
        next += 1;
        at = place + frame.len();
        if !frame.more() {
            whole = next;
        }
    }
    HotRun { whole: (whole > from).then_some((from, whole)), next, at }
}

/// What is not there although nothing that is there is damaged.
fn missing(r: &Recovering<'_>, scans: &[SegmentScan]) -> Vec<Note> {
    let mut notes = Vec::new();
    for pair in scans.windows(2) {
        let (ends, goes_on) = (pair[0].end.next_offset, pair[1].meta.base_offset);
        if ends < goes_on {
            let what = "the next segment goes on at a later offset than this one ends";
            notes.push(Note { offsets: Some(ends..goes_on), ..lost(r, &pair[0].file_name, what) });
        }
    }
    if let Some(last) = scans.last()
        && r.clean
        && !last.sealed
        && last.torn.is_none()
        && last.damaged.is_empty()
    {
        notes.push(lost(
            r,
            &last.file_name,
            "the log was closed, and the end of its last segment is missing",
        ));
    }
    notes
}

pub(crate) fn lost(r: &Recovering<'_>, file_name: &str, reason: &str) -> Note {
    Note {
        action: RecoveryAction::Damaged,
        offsets: None,
        file: Some(r.directory.root().join(r.folder).join(file_name)),
        bytes: None,
        kept_in: None,
        reason: reason.into(),
    }
}

fn damaged_note(r: &Recovering<'_>, scan: &SegmentScan, damage: &Damage) -> Note {
    Note {
        action: RecoveryAction::Damaged,
        offsets: damage.header.map(|h| h.base_offset..h.last_offset + 1),
        file: Some(r.directory.root().join(r.folder).join(&scan.file_name)),
        bytes: Some(damage.from..damage.to),
        kept_in: None,
        reason: match damage.from {
            0 => "the header does not prove itself; name and blocks tell what it said",
            _ => "bytes that were flushed do not prove themselves",
        }
        .into(),
    }
}

/// Moves a segment that is no part of the log any more to the quarantine, unless hot frames cover all it held.
fn set_file_aside(r: &Recovering<'_>, scan: &SegmentScan, covered: u64, done: &mut Recovered) -> Result<()> {
    let from = r.folder.join(&scan.file_name);
    if scan.end.next_offset <= covered && scan.torn.is_none() {
        return r.directory.remove_file(&from);
    }
    let to = aside_name(r, scan, 0);
    r.directory.create_dir_all(r.quarantine)?;
    r.directory.rename(&from, &to)?;
    done.items.push(Note {
        action: RecoveryAction::TornTail,
        offsets: Some(scan.meta.base_offset.max(covered)..scan.end.next_offset.max(covered)),
        file: Some(r.directory.root().join(from)),
        bytes: Some(0..scan.file_len),
        kept_in: Some(r.directory.root().join(to)),
        reason: "an earlier segment of the partition ends in a torn write".into(),
    });
    Ok(())
}

/// Copies to the quarantine what follows the end of the last segment, unless hot frames cover it.
fn set_tail_aside(
    r: &Recovering<'_>,
    scan: &SegmentScan,
    unfinished: bool,
    covered: u64,
    done: &mut Recovered,
) -> Result<()> {
    let (end, action, reason) = if unfinished {
        (scan.complete, RecoveryAction::UnfinishedAppend, "the append has no end")
    } else if scan.torn.is_some() {
        (scan.end, RecoveryAction::TornTail, "a write was cut off")
    } else {
        return Ok(());
    };
    // What was cut off was covered if the hot frames go on at least as far as it is known to have gone.
    let known_to = scan.torn.and_then(|t| t.header).map_or(end.next_offset + 1, |h| h.last_offset + 1);
    let known_to = known_to.max(if unfinished { scan.end.next_offset } else { 0 });
    if covered >= known_to {
        return Ok(());
    }
    let from = r.folder.join(&scan.file_name);
    let file = r.directory.open(&from, false)?;
    let to = aside_name(r, scan, end.position);
    r.directory.create_dir_all(r.quarantine)?;
    let mut at = end.position;
    let mut buf = vec![0; 1 << 20];
    let kept = r.directory.create(&to)?;
    loop {
        let n = file.read_at_most(&mut buf, at)?;
        // What follows is space that was reserved.
        if n == 0 || (at > end.position && buf[..n].iter().all(|b| *b == 0)) {
            break;
        }
        kept.write_all_at(&buf[..n], at - end.position)?;
        at += n as u64;
    }
    kept.sync()?;
    r.directory.sync_dir(r.quarantine)?;
    done.items.push(Note {
        action,
        offsets: Some(covered..known_to),
        file: Some(r.directory.root().join(from)),
        bytes: Some(end.position..at),
        kept_in: Some(r.directory.root().join(to)),
        reason: reason.into(),
    });
    Ok(())
}

/// A name in the quarantine that says where the bytes came from and is not taken.
fn aside_name(r: &Recovering<'_>, scan: &SegmentScan, position: u64) -> PathBuf {
    free_name(
        r.directory,
        r.quarantine,
        format!("{:016x}-{}-{}-{position}", r.topic_id, r.partition, scan.file_name),
    )
}

/// A name in the quarantine that is not taken.
pub(crate) fn free_name(directory: &Directory, quarantine: &Path, mut name: String) -> PathBuf {
    while directory.exists(&quarantine.join(&name)).unwrap_or(false) {
        name.push('+');
    }
    quarantine.join(name)
}

/// Opens the segments that are kept and replays the hot frames after them.
fn assemble(
    r: &Recovering<'_>,
    scans: Vec<SegmentScan>,
    plan: &Plan,
    staged: &[StagedChunk],
    done: &mut Recovered,
) -> Result<Opened> {
    let replays = plan.replay.1 > plan.replay.0;
    let mut segments = Vec::with_capacity(scans.len());
    let mut writer = None;
    let mut last_timestamp = Timestamp::MIN;
    for (i, scan) in scans.iter().enumerate() {
        if let Some((timestamp, _)) = scan.end.max_timestamp {
            last_timestamp = last_timestamp.max(timestamp);
        }
        if i + 1 < scans.len() {
            segments.push(Segment::open(r.directory, r.folder, scan)?);
        } else {
            let last = SegmentWriter::continue_at(r.directory, r.folder, scan, r.settings.segment_bytes)?;
            segments.push(Arc::clone(last.segment()));
            writer = Some(last);
        }
    }
    let chain = Chain::new(segments);
    let ctx = SinkContext {
        chain: &chain,
        directory: r.directory,
        codecs: r.codecs,
        settings: r.settings,
        clock: r.clock,
    };
    let mut sink = Sink::new(r.folder.to_path_buf(), r.topic_id, r.partition, writer, plan.end);
    if replays {
        last_timestamp = last_timestamp.max(replay(&mut sink, &ctx, plan.replay, staged)?);
        done.replayed = plan.replay.1 - plan.replay.0;
        let reason = "records of the hot tail were written to their segment".into();
        done.items.push(Note::of(RecoveryAction::Replayed, plan.replay.0..plan.replay.1, reason));
    }
    let writer = sink.into_writer();
    let segments = chain.segments();
    // What a process that was killed had written may be in the page cache only, and so may what was replayed.
    let unflushed = if r.clean && !replays { Vec::new() } else { segments.to_vec() };
    Ok(Opened {
        start: segments.first().map_or(0, |s| s.base_offset()).max(r.start),
        end: plan.replay.1,
        epoch: r.epoch,
        writer,
        segment_bases: segments.iter().map(|s| s.base_offset()).collect(),
        segment_used: segments.last().map_or(0, |s| s.end().frame_bytes),
        chain,
        last_timestamp,
        durable: plan.replay.1,
        unflushed,
    })
}

/// Writes the hot records `from..to` behind what the segments hold; returns their largest timestamp.
///
/// While a chunk is written the next one is read and verified.
fn replay(
    sink: &mut Sink,
    ctx: &SinkContext<'_>,
    (from, to): (u64, u64),
    staged: &[StagedChunk],
) -> Result<Timestamp> {
    let mut next = from;
    let mut largest = Timestamp::MIN;
    let (mut ahead, mut spare) = (None, Vec::new());
    for (i, chunk) in staged.iter().enumerate() {
        if next >= to {
            break;
        }
        let proved = ahead.take().unwrap_or_else(|| chunk.prove(std::mem::take(&mut spare)))?;
        thread::scope(|scope| -> Result<()> {
            let following = staged.get(i + 1).filter(|following| following.len >= WORTH_A_THREAD);
            let helper = following.and_then(|following| {
                // Without a further thread it only takes longer.
                let memory = std::mem::take(&mut spare);
                helper().spawn_scoped(scope, || following.prove(memory)).ok()
            });
            for run in proved.runs() {
                let (mut first, mut end) = (None, 0);
                for (at, frame) in proved.frames(run) {
                    if frame.offset() == next && next < to {
                        first.get_or_insert(at);
                        end = at + frame.len();
                        largest = largest.max(frame.timestamp());
                        next += 1;
                    } else if first.is_some() {
                        break;
                    }
                }
                let mut at = first.unwrap_or(end);
                while at < end {
                    at += sink.take(ctx, &proved.bytes()[at..end], (chunk.salt, at), chunk.epoch)?;
                }
            }
            ahead = helper.and_then(|helper| helper.join().ok());
            Ok(())
        })?;
        spare = proved.into_memory();
    }
    sink.write(ctx)?;
    Ok(largest)
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
