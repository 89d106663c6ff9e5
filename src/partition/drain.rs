//! The work of the write-behind on one partition: frames of the hot tail become blocks of segment files.
//!
//! A [`Drain`] is what the holder of a partition's baton works with: the engine's thread, or a caller who
//! waits for the disk. Its [`Sink`], the half that makes blocks and segments, serves recovery as well. It
//! never skips and never goes back: a block that could not be written is kept and tried again first.

use std::path::PathBuf;
use std::sync::Arc;

use crate::block_builder::{BlockBuilder, BlockPlace};
use crate::clock::Clock;
use crate::codec::Codecs;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{FrameView, mix};
use crate::partition::settings::Settings;
use crate::segment::ahead::Ahead;
use crate::segment::chain::Chain;
use crate::segment::format::SegmentMeta;
use crate::segment::reader::Segment;
use crate::segment::writer::SegmentWriter;
use crate::storage::arena::random_nonzero;
use crate::storage::chunk::Chunk;
use crate::storage::directory::Directory;
use crate::storage::slot::HEADER as FRAMES_AT;
use crate::tail::Tail;

/// Closed blocks are written once they are this long together. The kernel takes as much for a page of a short write
/// as for two of a long one, and a page that two writes share costs it twice.
const GATHER: usize = 1 << 20;

/// What writing needs to know of the world.
pub(crate) struct SinkContext<'a> {
    pub(crate) chain: &'a Chain,
    pub(crate) directory: &'a Arc<Directory>,
    pub(crate) codecs: &'a Codecs,
    pub(crate) settings: &'a Settings,
    pub(crate) clock: &'a dyn Clock,
}

/// Makes blocks of frames, and segments of blocks.
pub(crate) struct Sink {
    folder: PathBuf,
    topic_id: u64,
    partition: u32,
    builder: BlockBuilder,
    builder_epoch: u32,
    /// The frame at this offset begins a segment that does not exist yet.
    roll_at: Option<u64>,
    writer: Option<SegmentWriter>,
    /// The file of the segment after that, for who is fast.
    ahead: Ahead,
    /// Segments with bytes that were not flushed.
    unflushed: Vec<Arc<Segment>>,
    /// The offset after the last record that is in a segment file.
    written: u64,
    /// The same, as far as appends are there whole.
    settled: u64,
}

impl Sink {
    /// Begins where a partition's segments end: `writer` goes on with the last of them.
    pub(crate) fn new(
        folder: PathBuf,
        topic_id: u64,
        partition: u32,
        writer: Option<SegmentWriter>,
        written: u64,
    ) -> Self {
        Sink {
            folder,
            topic_id,
            partition,
            builder: BlockBuilder::default(),
            builder_epoch: 0,
            roll_at: None,
            unflushed: writer.iter().map(|w| Arc::clone(w.segment())).collect(),
            writer,
            ahead: Ahead::default(),
            written,
            settled: written,
        }
    }

    /// The offset of the first frame that was not taken yet.
    pub(crate) fn next_offset(&self) -> u64 {
        self.builder.next_offset().unwrap_or(self.written)
    }

    /// Whether everything taken is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.builder.is_empty() && self.builder.closed().0.is_empty()
    }

    /// Takes frames that `frames` begin with, at most a block of them, and says how many bytes they are, if any; closes the
    /// block at hand where it is full, and writes where enough are closed. `frames` stand at `at` of a chunk with that
    /// salt, and end with an append.
    ///
    /// On an error no frame was taken.
    pub(crate) fn take(
        &mut self,
        ctx: &SinkContext<'_>,
        frames: &[u8],
        (salt, at): (u64, usize),
        epoch: u32,
    ) -> Result<usize> {
        let first_of_segment = FrameView::header_of(frames).filter(|first| first.first_of_segment());
        if first_of_segment.is_some() || self.builder.is_full() || self.builder_epoch != epoch {
            self.close(ctx)?;
            // Whatever is closed goes to the segment that ends before this frame.
            if first_of_segment.is_some() || self.builder.closed().1.len() >= GATHER {
                self.write_closed(ctx)?;
            }
        }
        if let Some(first) = first_of_segment {
            self.roll_at = Some(first.offset());
        }
        self.builder_epoch = epoch;
        // What came before a frame that changed is whole.
        self.builder
            .gather(frames, |from| mix(salt, at + from))
            .or_else(|e| self.write_closed(ctx).and(Err(e)))
    }

    /// Writes all that was taken, in blocks full or not.
    pub(crate) fn write(&mut self, ctx: &SinkContext<'_>) -> Result<()> {
        self.close(ctx)?;
        self.write_closed(ctx)
    }

    /// Closes the block at hand.
    fn close(&mut self, ctx: &SinkContext<'_>) -> Result<()> {
        if self.builder.is_empty() {
            return Ok(());
        }
        self.roll(ctx)?;
        let Some(writer) = &self.writer else {
            return Err(Error::new(ErrorKind::Internal, "no segment to write to"));
        };
        let place = BlockPlace {
            topic_id: self.topic_id,
            partition: self.partition,
            epoch: self.builder_epoch,
            salt: writer.salt(),
            position: writer.position() + self.builder.closed().1.len() as u64,
            durable_mark: writer.segment().flushed(),
        };
        self.builder.close(place, ctx.codecs, ctx.settings.compression);
        Ok(())
    }

    /// Writes the blocks that are closed. Where that fails they stay, to be tried again first.
    fn write_closed(&mut self, ctx: &SinkContext<'_>) -> Result<()> {
        let (blocks, bytes) = self.builder.closed();
        let (Some(last), Some(writer)) = (blocks.last(), &mut self.writer) else { return Ok(()) };
        writer.append(blocks, bytes)?;
        self.written = last.last_offset + 1;
        if let Some(whole) = blocks.iter().rfind(|block| !block.continues()) {
            self.settled = whole.last_offset + 1;
        }
        self.builder.forget_closed();
        self.ahead.look(ctx.directory, &self.folder, writer, ctx.clock.now());
        Ok(())
    }

    /// Seals the segment that ends here and makes the next, where one is due.
    fn roll(&mut self, ctx: &SinkContext<'_>) -> Result<()> {
        let base_offset = match (self.roll_at, &self.writer) {
            (Some(at), _) => at,
            (None, None) => self.builder.base_offset().unwrap_or(self.written),
            (None, Some(_)) => return Ok(()),
        };
        if let Some(writer) = &mut self.writer {
            // The process may have died between the header of this segment and its first block: there it is.
            if writer.segment().base_offset() == base_offset {
                self.roll_at = None;
                return Ok(());
            }
            writer.seal()?;
        }
        let meta = SegmentMeta {
            topic_id: self.topic_id,
            partition: self.partition,
            base_offset,
            generation: 0,
            salt: random_nonzero(),
            created: ctx.clock.now(),
        };
        ctx.directory.make_dirs(&self.folder)?;
        let (bytes, ahead) = (ctx.settings.segment_bytes, self.ahead.take());
        let writer = SegmentWriter::create(ctx.directory, &self.folder, meta, bytes, ahead)?;
        ctx.chain.push(Arc::clone(writer.segment()));
        self.unflushed.push(Arc::clone(writer.segment()));
        self.writer = Some(writer);
        self.roll_at = None;
        Ok(())
    }

    /// Segments that a flush must cover to make all that is written durable.
    pub(crate) fn unflushed(&self) -> &[Arc<Segment>] {
        &self.unflushed
    }

    /// Forgets the segments that were flushed to their end; the one being written to stays.
    pub(crate) fn forget_flushed(&mut self) {
        let current = self.writer.as_ref().map(|w| Arc::clone(w.segment()));
        self.unflushed
            .retain(|s| current.as_ref().is_some_and(|c| Arc::ptr_eq(c, s)) || s.flushed() < s.written());
    }

    /// Seals the last segment, so that the next open need not look at its blocks.
    /// False where it was sealed already, or there is none.
    pub(crate) fn seal(&mut self) -> Result<bool> {
        self.ahead.give_up();
        self.writer.as_mut().map_or(Ok(false), SegmentWriter::seal)
    }

    /// For tests: what is done for the next segment.
    #[cfg(test)]
    pub(crate) fn ahead(&mut self) -> &mut Ahead {
        &mut self.ahead
    }

    /// The writer of the last segment, for whoever goes on with it.
    pub(crate) fn into_writer(self) -> Option<SegmentWriter> {
        self.writer
    }
}

/// What a step did.
#[derive(Default)]
pub(crate) struct Progress {
    /// Frame bytes taken from the tail.
    pub(crate) bytes: usize,
    /// Chunks whose every frame is in a segment file now.
    pub(crate) released: Vec<Arc<Chunk>>,
    /// Whether every frame that was published when the step ended was taken.
    pub(crate) caught_up: bool,
    /// Whether all that was taken is written, too.
    pub(crate) drained: bool,
}

/// Where the write-behind of one partition stands.
pub(crate) struct Drain {
    sink: Sink,
    /// The chunk being read and the place of its next frame.
    cursor: Option<(Arc<Chunk>, usize)>,
    /// Chunks read to their end whose last frames the sink may not have written yet, and those frames' end.
    finished: Vec<(Arc<Chunk>, u64)>,
    /// Where the engine left it.
    visited: u64,
}

impl Drain {
    /// Drains into `sink`.
    pub(crate) fn new(sink: Sink) -> Self {
        Drain { visited: sink.settled, sink, cursor: None, finished: Vec::new() }
    }

    /// The offset after the last append that is wholly in a segment file.
    pub(crate) fn settled(&self) -> u64 {
        self.sink.settled
    }

    /// Whether somebody else has written since the engine was here last.
    pub(crate) fn moved_since_visit(&self) -> bool {
        self.sink.settled > self.visited
    }

    /// The engine was here.
    pub(crate) fn visit(&mut self) {
        self.visited = self.sink.settled;
    }

    pub(crate) fn sink(&mut self) -> &mut Sink {
        &mut self.sink
    }

    /// The chunk being read, and the place of its next frame.
    pub(crate) fn place(&self) -> Option<(Arc<Chunk>, usize)> {
        self.cursor.clone()
    }

    /// Stops looking at a chunk that was given up; everything in it is written.
    pub(crate) fn let_go(&mut self, base_offset: u64) {
        if self.cursor.as_ref().is_some_and(|(chunk, _)| chunk.base_offset() == base_offset) {
            self.cursor = None;
        }
    }

    /// Lets go of all chunks and files, written or not.
    pub(crate) fn discard(&mut self) {
        self.cursor = None;
        self.finished.clear();
        self.sink.writer = None;
        self.sink.ahead.give_up();
        self.sink.unflushed.clear();
    }

    /// Gives back the memory of blocks and the next file, for a partition that has nothing to write and will not have for a while.
    pub(crate) fn give_memory_back(&mut self) {
        self.sink.ahead.give_up();
        if self.sink.is_empty() {
            self.sink.builder = BlockBuilder::default();
        }
    }

    /// Moves up to about `quantum` bytes of frames into blocks. With `whole`, a block that is not full is
    /// written too; without, its frames wait for more.
    ///
    /// On an error nothing is lost: what could not be written is tried first by the next step.
    pub(crate) fn step(
        &mut self,
        ctx: &SinkContext<'_>,
        tail: &Tail,
        quantum: usize,
        whole: bool,
        progress: &mut Progress,
    ) -> Result<()> {
        let done = self.step_frames(ctx, tail, quantum, whole, progress);
        if done.as_ref().is_err_and(Error::passes) {
            // On a full disk that is the space others wait for.
            self.sink.ahead.give_up();
        }
        let written = self.sink.written;
        let is_written = |(_, end): &mut (Arc<Chunk>, u64)| *end <= written;
        progress.released.extend(self.finished.extract_if(.., is_written).map(|(chunk, _)| chunk));
        done
    }

    fn step_frames(
        &mut self,
        ctx: &SinkContext<'_>,
        tail: &Tail,
        quantum: usize,
        whole: bool,
        progress: &mut Progress,
    ) -> Result<()> {
        self.sink.write_closed(ctx)?;
        let mut taken = 0;
        while taken < quantum {
            let Some((chunk, at)) = self.cursor.take().or_else(|| self.find(tail)) else {
                progress.caught_up = true;
                break;
            };
            let committed = chunk.committed();
            if at < committed {
                let mut at = at;
                let before = at;
                let done = self.take_frames(ctx, &chunk, &mut at, committed, quantum, &mut taken);
                progress.bytes += at - before;
                self.cursor = Some((chunk, at));
                done?;
                continue;
            }
            // Sealed is stored after the last commit, so look again at what was committed.
            if chunk.sealed() && at == chunk.committed() {
                self.cursor = tail.next_after(chunk.base_offset()).map(|next| (next, FRAMES_AT));
                self.finished.push((chunk, self.sink.next_offset()));
                if self.cursor.is_some() {
                    continue;
                }
            } else {
                self.cursor = Some((chunk, at));
                if at < self.cursor.as_ref().map_or(0, |(chunk, _)| chunk.committed()) {
                    continue;
                }
            }
            progress.caught_up = true;
            break;
        }
        if whole && progress.caught_up {
            self.sink.close(ctx)?;
        }
        self.sink.write_closed(ctx)?;
        progress.drained = progress.caught_up && self.sink.is_empty();
        if progress.drained {
            self.sink.builder.slim();
        }
        Ok(())
    }

    /// The chunk that holds the next frame, and its place there; `None` where there is none yet.
    fn find(&self, tail: &Tail) -> Option<(Arc<Chunk>, usize)> {
        let next = self.sink.next_offset();
        let chunk = tail.find(next)?;
        let mut at = FRAMES_AT;
        let committed = chunk.committed();
        while at < committed {
            let frame = FrameView::trusted(published(&chunk, at, committed));
            if frame.offset() >= next {
                break;
            }
            at += frame.len();
        }
        // A chunk that was read to its end and sealed has been dealt with.
        (!chunk.sealed() || at < chunk.committed()).then_some((chunk, at))
    }

    fn take_frames(
        &mut self,
        ctx: &SinkContext<'_>,
        chunk: &Arc<Chunk>,
        at: &mut usize,
        committed: usize,
        quantum: usize,
        taken: &mut usize,
    ) -> Result<()> {
        while *at < committed && *taken < quantum {
            let frames = published(chunk, *at, committed);
            let len = self.sink.take(ctx, frames, (chunk.salt(), *at), chunk.epoch())?;
            *at += len;
            *taken += len;
        }
        Ok(())
    }
}

/// Bytes of a chunk up to what it said was committed; it never says less later.
fn published(chunk: &Chunk, from: usize, committed: usize) -> &[u8] {
    chunk.bytes(from, committed).unwrap_or_default()
}
