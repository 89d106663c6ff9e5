//! The hot tail that a process left when it died: what its chunks hold, and the writing of that behind the segments.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::FrameView;
use crate::partition::drain::{Sink, SinkContext};
use crate::partition::plan::HotGap;
use crate::storage::runs::{Run, Runs, SlotReader};
use crate::storage::staged::{StagedChunk, helper};

/// So many bytes of the hot tail are worth a thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// A chunk of the hot tail.
pub(super) struct HotChunk {
    chunk: StagedChunk,
    runs: Runs,
}

impl HotChunk {
    /// The offsets of whole appends that follow on one another.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().map(|run| (run.offsets.start, run.offsets.end))
    }

    /// What in it does not prove itself, and in which file.
    pub(super) fn gap(&self) -> Option<(HotGap, PathBuf)> {
        let gap = self.runs.gap.as_ref()?;
        let behind = gap.behind.as_ref().map(|run| run.offsets.start);
        Some((HotGap { from: gap.from, behind }, self.chunk.path().to_path_buf()))
    }
}

/// Looks through the chunks that hold what lies behind the end of the segments, which `find_end` finds meanwhile; what that
/// answers comes back with them.
///
/// Until that end is known a further thread begins with the newest chunks, which are least likely to be in the segments.
/// `staged` is in the order of its offsets, and so is what it holds.
pub(super) fn look_beside<T>(
    mut staged: Vec<StagedChunk>,
    find_end: impl FnOnce() -> Result<(T, u64)>,
) -> Result<(T, Vec<HotChunk>)> {
    let found: Vec<OnceLock<Result<Runs>>> = staged.iter().map(|_| OnceLock::new()).collect();
    // The first chunk that must be looked at, and the one behind the last that nobody has begun with.
    let (first, behind) = (AtomicUsize::new(0), AtomicUsize::new(staged.len()));
    let look = || {
        let mut reader = SlotReader::default();
        let last = |behind: usize| (behind > first.load(Ordering::Relaxed)).then(|| behind - 1);
        while let Ok(behind) = behind.fetch_update(Ordering::Relaxed, Ordering::Relaxed, last) {
            let _ = found[behind - 1].set(reader.runs(&staged[behind - 1]));
        }
    };
    let ended = thread::scope(|scope| {
        let bytes = staged.iter().map(|chunk| chunk.len).sum::<usize>();
        // Without a further thread it only takes longer.
        let helper = (bytes >= WORTH_A_THREAD).then(|| helper(scope, look)).flatten();
        let ended = find_end();
        let needed = ended.as_ref().map_or(staged.len(), |(_, end)| written(&staged, *end));
        first.store(needed, Ordering::Relaxed);
        look();
        let _ = helper.map(thread::ScopedJoinHandle::join);
        ended
    });
    let (answer, _) = ended?;
    let first = first.into_inner();
    let chunks = staged.drain(first..).zip(found.into_iter().skip(first)).map(|(chunk, runs)| {
        let runs = runs.into_inner().unwrap_or_else(|| SlotReader::default().runs(&chunk))?;
        Ok(HotChunk { chunk, runs })
    });
    Ok((answer, chunks.collect::<Result<_>>()?))
}

/// How many chunks need not be read: no chunk goes beyond where another one begins, and what lies below `end` is in the
/// segments.
fn written(staged: &[StagedChunk], end: u64) -> usize {
    staged.windows(2).take_while(|pair| pair[1].base_offset <= end).count()
}

/// Writes the hot records `offsets` behind what the segments hold.
pub(super) fn replay(
    sink: &mut Sink,
    ctx: &SinkContext<'_>,
    offsets: Range<u64>,
    hot: &[HotChunk],
) -> Result<()> {
    let mut reader = SlotReader::default();
    let mut next = offsets.start;
    for (chunk, run) in hot.iter().flat_map(|hot| hot.runs.iter().map(|run| (&hot.chunk, run))) {
        if next < offsets.end && run.offsets.contains(&next) {
            take(sink, ctx, chunk, reader.read(chunk, run)?, run, next)?;
            next = run.offsets.end;
        }
    }
    sink.write(ctx)
}

/// Gives the records of a run to `sink`, from offset `next` on. Each is verified there.
fn take(
    sink: &mut Sink,
    ctx: &SinkContext<'_>,
    chunk: &StagedChunk,
    bytes: &[u8],
    run: &Run,
    next: u64,
) -> Result<()> {
    let mut at = 0;
    // What the segments hold already.
    for offset in run.offsets.start..next {
        let frame = FrameView::header_of(&bytes[at..]).filter(|frame| frame.offset() == offset);
        at += frame.ok_or_else(|| changed(chunk, offset))?.len();
    }
    while at < bytes.len() {
        let taken = sink.take(ctx, &bytes[at..], (chunk.salt, run.bytes.start + at), chunk.epoch);
        at += taken.map_err(|e| match e.kind() {
            ErrorKind::CorruptRecord => changed(chunk, e.offset().unwrap_or(next)),
            _ => e,
        })?;
    }
    Ok(())
}

/// A frame that proved itself when the chunk was read before does not do so now.
fn changed(chunk: &StagedChunk, offset: u64) -> Error {
    let message = "the hot tail changed while it was replayed";
    Error::new(ErrorKind::CorruptRecord, message).at_path(chunk.path()).at_offset(offset)
}
