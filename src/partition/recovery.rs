//! Bringing a partition back: facts from its files and from the hot tail, a plan (`plan`), and the doing of the plan.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::{Clock, Timestamp};
use crate::codec::Codecs;
use crate::error::Result;
use crate::partition::core::Opened;
use crate::partition::drain::{Sink, SinkContext};
use crate::partition::hot::{self, HotChunk};
use crate::partition::plan::{Facts, LAST_WRITES, Plan, SegmentFacts, Stop, look, plan};
use crate::partition::settings::Settings;
use crate::segment::chain::Chain;
use crate::segment::format::parse_file_name;
use crate::segment::reader::Segment;
use crate::segment::scan::{Damage, SegmentScan, SegmentScanOptions, Stillborn, is_unborn, scan, stillborn};
use crate::segment::writer::SegmentWriter;
use crate::storage::directory::Directory;
use crate::storage::staged::StagedChunk;

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

impl Recovering<'_> {
    fn stop(&self) -> Stop {
        match () {
            () if self.clean => Stop::Clean,
            () if self.survived_on.is_some() => Stop::Process,
            () => Stop::Machine,
        }
    }

    /// What is known where nothing is in the hot tail.
    fn facts<'a>(&self, segments: &'a [SegmentFacts]) -> Facts<'a> {
        Facts { stop: self.stop(), segments, hot: &[], gaps: &[], start: self.start }
    }
}

/// What lies under the name of a segment.
enum Found {
    Segment(Box<SegmentScan>),
    Stillborn(Stillborn),
}

impl Found {
    fn facts(&self) -> SegmentFacts {
        match self {
            Found::Segment(s) => SegmentFacts {
                base_offset: s.meta.base_offset,
                begun: true,
                end: s.end.next_offset,
                complete: s.complete.next_offset,
                torn: s.torn.is_some(),
                known_to: s.known_to,
                damaged: !s.damaged.is_empty(),
                ends_below_floor: s.end.position < s.floor,
                marked: s.durable_mark > 0,
                sealed: s.sealed,
            },
            Found::Stillborn(s) => SegmentFacts {
                base_offset: s.base_offset,
                begun: false,
                end: s.base_offset,
                complete: s.base_offset,
                torn: false,
                known_to: s.known_to,
                damaged: false,
                ends_below_floor: false,
                marked: false,
                sealed: false,
            },
        }
    }

    fn name_and_len(&self) -> (&str, u64) {
        match self {
            Found::Segment(s) => (&s.file_name, s.file_len),
            Found::Stillborn(s) => (&s.file_name, s.file_len),
        }
    }
}

/// Brings one partition back. What the answer calls unflushed is for the caller to flush, with that of other partitions.
///
/// `staged` is in the order of its offsets.
pub(crate) fn recover_partition(r: &Recovering<'_>, staged: Vec<StagedChunk>) -> Result<(Opened, Recovered)> {
    let mut done = Recovered::default();
    let ((mut found, segments), hot) = hot::look_beside(staged, || {
        let found = scan_all(r, &mut done)?;
        let segments: Vec<SegmentFacts> = found.iter().map(Found::facts).collect();
        let end = plan(&r.facts(&segments)).end;
        Ok(((found, segments), end))
    })?;
    let runs: Vec<(u64, u64)> = hot.iter().flat_map(HotChunk::runs).collect();
    let (gaps, gap_files): (Vec<_>, Vec<_>) = hot.iter().filter_map(HotChunk::gap).unzip();
    let plan = plan(&Facts { hot: &runs, gaps: &gaps, ..r.facts(&segments) });

    for (stray, lost) in found.drain(plan.keep..).zip(&plan.aside) {
        set_file_aside(r, &stray, lost.clone(), &mut done)?;
    }
    let kept = found.into_iter().filter_map(|found| match found {
        Found::Segment(scan) => Some(*scan),
        Found::Stillborn(_) => None, // none is ever kept
    });
    let mut scans: Vec<SegmentScan> = kept.collect();
    for &i in &plan.torn_is_damage {
        scans[i].call_torn_damaged();
    }
    for scan in &scans {
        done.items.extend(scan.damaged.iter().map(|damage| damaged_note(r, scan, damage)));
    }
    done.items.extend(missing(r, &scans, &plan));
    if let Some(last) = scans.last_mut() {
        if let Some(lost) = plan.tail.clone() {
            set_tail_aside(r, last, plan.drop_unfinished, lost, &mut done)?;
        }
        if plan.drop_unfinished {
            last.drop_unfinished();
        }
    }
    for (lost, file) in plan.hot_damage.iter().zip(gap_files) {
        if let Some(lost) = lost.clone() {
            let reason = "records of the hot tail do not prove themselves";
            let note = Note::of(RecoveryAction::Damaged, lost, reason.into());
            done.items.push(Note { file: Some(file), ..note });
        }
    }
    if let Some((from, to)) = plan.unreachable {
        let ends = plan.replay.1;
        let reason = format!("the log ends at offset {ends} and these records do not go on there");
        done.items.push(Note::of(RecoveryAction::Unreachable, from..to, reason));
    }

    let opened = assemble(r, &scans, &plan, &hot, &mut done)?;
    Ok((opened, done))
}

/// Scans the segments of the partition, as much of each as needs to be looked at.
fn scan_all(r: &Recovering<'_>, done: &mut Recovered) -> Result<Vec<Found>> {
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
    if !r.clean && r.survived_on.is_none() {
        // A flush may have failed before: then what is in memory may be what is not on the disk.
        for (_, _, name) in &names {
            r.directory.open(&r.folder.join(name), false)?.forget_cached()?;
        }
    }
    let owner = (r.topic_id, r.partition);
    let mut found = Vec::with_capacity(names.len());
    // From the newest back: a flush covers all segments before the one it marks, so that once a mark is seen
    // the older ones were flushed whole and their trailers can be believed.
    let mut flushed = r.clean;
    let mut last_writes = LAST_WRITES;
    for (_, _, name) in names.iter().rev() {
        // Of one that was flushed whatever is amiss is damage, for the scan to tell.
        if !flushed && let Some(stillborn) = stillborn(r.directory, r.folder, name, owner)? {
            found.push(Found::Stillborn(stillborn));
            continue;
        }
        let look = look(flushed, survived(r, name)?, last_writes);
        let (floor, verify_last) = (look.floor, look.verify_last);
        let options = SegmentScanOptions { floor, verify_last, believe_marks: true };
        let scan = scan(r.directory, r.folder, name, owner, options)?;
        flushed |= scan.durable_mark > 0;
        last_writes = last_writes.saturating_sub(scan.end.position);
        found.push(Found::Segment(Box::new(scan)));
    }
    found.reverse();
    Ok(found)
}

/// Whether all that was written to a segment is there, but for the end of a write that was cut off: if the flush goes
/// through that ends every open. Where pages could not be written it fails, and they may be gone (L).
fn survived(r: &Recovering<'_>, file_name: &str) -> Result<bool> {
    let path = r.directory.path(&r.folder.join(file_name))?;
    let mount = r.directory.place(&path).map(|place| place.mount);
    Ok(r.survived_on.is_some() && mount == r.survived_on)
}

/// What is not there although nothing that is there is damaged.
fn missing(r: &Recovering<'_>, scans: &[SegmentScan], plan: &Plan) -> Vec<Note> {
    let missing = plan.missing.iter().map(|(before, offsets)| {
        let (at, what) = match before.checked_sub(1) {
            Some(at) => (at, "the next segment goes on at a later offset than this one ends"),
            None => (0, "the partition begins at an earlier offset than this segment"),
        };
        Note { offsets: Some(offsets.clone()), ..lost(r, &scans[at].file_name, what) }
    });
    let mut notes: Vec<Note> = missing.collect();
    if let Some(last) = scans.last().filter(|_| plan.end_is_missing) {
        let what = "the log was closed, and the end of its last segment is missing";
        notes.push(lost(r, &last.file_name, what));
    }
    notes
}

fn lost(r: &Recovering<'_>, file_name: &str, reason: &str) -> Note {
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
fn set_file_aside(
    r: &Recovering<'_>,
    stray: &Found,
    lost: Option<Range<u64>>,
    done: &mut Recovered,
) -> Result<()> {
    let (name, len) = stray.name_and_len();
    let from = r.folder.join(name);
    if lost.is_none() {
        return r.directory.remove_file(&from);
    }
    let to = aside_name(r, name, 0);
    r.directory.create_dir_all(r.quarantine)?;
    r.directory.rename(&from, &to)?;
    done.items.push(Note {
        action: RecoveryAction::TornTail,
        offsets: lost,
        file: Some(r.directory.root().join(from)),
        bytes: Some(0..len),
        kept_in: Some(r.directory.root().join(to)),
        reason: match stray {
            Found::Segment(_) => "an earlier segment of the partition ends in a torn write or is not there",
            Found::Stillborn(_) => "the segment was never flushed, and its beginning is not there",
        }
        .into(),
    });
    Ok(())
}

/// Copies to the quarantine what follows the end of the last segment, and is `lost`.
fn set_tail_aside(
    r: &Recovering<'_>,
    scan: &SegmentScan,
    unfinished: bool,
    lost: Range<u64>,
    done: &mut Recovered,
) -> Result<()> {
    let (end, action, reason) = if unfinished {
        (scan.complete, RecoveryAction::UnfinishedAppend, "the append has no end")
    } else {
        (scan.end, RecoveryAction::TornTail, "a write was cut off")
    };
    let from = r.folder.join(&scan.file_name);
    let file = r.directory.open(&from, false)?;
    let to = aside_name(r, &scan.file_name, end.position);
    r.directory.create_dir_all(r.quarantine)?;
    let mut at = end.position;
    let rest = usize::try_from(scan.file_len.saturating_sub(at)).unwrap_or(usize::MAX);
    let mut buf = vec![0; rest.clamp(1, 1 << 20)];
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
        offsets: Some(lost),
        file: Some(r.directory.root().join(from)),
        bytes: Some(end.position..at),
        kept_in: Some(r.directory.root().join(to)),
        reason: reason.into(),
    });
    Ok(())
}

/// A name in the quarantine that says where the bytes came from and is not taken.
fn aside_name(r: &Recovering<'_>, file_name: &str, position: u64) -> PathBuf {
    let name = format!("{:016x}-{}-{file_name}-{position}", r.topic_id, r.partition);
    free_name(r.directory, r.quarantine, name)
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
    scans: &[SegmentScan],
    plan: &Plan,
    hot: &[HotChunk],
    done: &mut Recovered,
) -> Result<Opened> {
    let replays = plan.replay.1 > plan.replay.0;
    let mut segments = Vec::with_capacity(scans.len());
    let mut writer = None;
    for (i, scan) in scans.iter().enumerate() {
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
        hot::replay(&mut sink, &ctx, plan.replay.0..plan.replay.1, hot)?;
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
        last_timestamp: segments
            .iter()
            .filter_map(|s| Some(s.max_timestamp()?.0))
            .max()
            .unwrap_or(Timestamp::MIN),
        durable: plan.replay.1,
        unflushed,
    })
}
