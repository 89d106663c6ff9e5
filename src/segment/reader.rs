//! What everybody shares of a segment: places, blocks, watermarks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::block::{self, AlignedBuf, BlockError, BlockHeader, DecodedBlock};
use crate::clock::Timestamp;
use crate::codec::Codecs;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::blocks::{Blocks, Step, Walk};
use crate::segment::format::{Boundary, HEADER, SegmentMeta};
use crate::segment::index::{ENTRY, Index};
use crate::segment::scan::{SegmentScan, read_trailer};
use crate::storage::directory::Directory;
use crate::storage::file::File;

/// No more than this is read before the header of a block has proved how long it is.
const MAX_GUESS: u64 = 256 * 1024;

/// A longer index is made anew rather than believed: it is a hint, and memory is not given for hints.
pub(crate) const MAX_FOOTER: usize = 64 * 1024 * 1024;

/// One segment file, readable while its writer appends.
///
/// The writer publishes a block in this order: bytes, index, `written`, `next_offset`. So whoever sees an offset
/// below `next_offset` finds its block below `written`, and its place in the index.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: File,
    directory: Arc<Directory>,
    folder: PathBuf,
    meta: SegmentMeta,
    written: AtomicU64,
    next_offset: AtomicU64,
    flushed: AtomicU64,
    /// Whether the file's name in its folder was flushed by this handle.
    name_flushed: AtomicBool,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// `None` until first needed.
    index: Option<Index>,
    /// Made from the blocks themselves, not read from the footer.
    proven: bool,
    max_timestamp: Option<(Timestamp, u64)>,
    frame_bytes: u64,
}

impl Segment {
    pub(crate) fn new(
        directory: Arc<Directory>,
        folder: &Path,
        file: File,
        meta: SegmentMeta,
        end: Boundary,
        index: Option<Index>,
    ) -> Self {
        Segment {
            file,
            directory,
            folder: folder.to_path_buf(),
            meta,
            written: AtomicU64::new(end.position),
            next_offset: AtomicU64::new(end.next_offset),
            flushed: AtomicU64::new(0),
            name_flushed: AtomicBool::new(false),
            state: RwLock::new(State {
                proven: index.is_some(),
                index,
                max_timestamp: end.max_timestamp,
                frame_bytes: end.frame_bytes,
            }),
        }
    }

    /// A segment that was scanned, for reading.
    pub(crate) fn open(directory: &Arc<Directory>, folder: &Path, scan: &SegmentScan) -> Result<Arc<Self>> {
        let file = directory.shared(&folder.join(&scan.file_name), false, scan.file_id)?;
        let index = scan.index.clone();
        let segment = Segment::new(Arc::clone(directory), folder, file, scan.meta, scan.end, index);
        segment.was_flushed(scan);
        Ok(Arc::new(segment))
    }

    /// Takes over what a scan knows to have been flushed.
    pub(crate) fn was_flushed(&self, scan: &SegmentScan) {
        self.flushed.store(scan.floor.min(scan.end.position), Ordering::Release);
    }

    pub(crate) fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    pub(crate) fn base_offset(&self) -> u64 {
        self.meta.base_offset
    }

    /// The last record's offset and one: the end of what is written.
    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset.load(Ordering::Acquire)
    }

    /// The position up to which blocks are written.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The position up to which they survive a power cut.
    pub(crate) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// The largest timestamp, and the offset of the first record that has it.
    pub(crate) fn max_timestamp(&self) -> Option<(Timestamp, u64)> {
        self.state.read().max_timestamp
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Takes the file's name away; whoever has the segment reads on.
    pub(crate) fn unlink(&self) -> Result<()> {
        // Who still reads it could not open it again.
        self.file.keep_open()?;
        self.directory.remove_file(&self.folder.join(self.meta.file_name()))
    }

    /// Each leader epoch and its first offset here.
    pub(crate) fn epochs(&self) -> Result<Vec<(u32, u64)>> {
        self.with_index(Index::epochs)
    }

    /// How far this segment goes.
    pub(crate) fn end(&self) -> Boundary {
        let state = self.state.read();
        Boundary {
            position: self.written(),
            next_offset: self.next_offset(),
            max_timestamp: state.max_timestamp,
            frame_bytes: state.frame_bytes,
        }
    }

    /// The position of the block that holds `offset`, or else of the first block after it; `None` at the end.
    ///
    /// Where damage may hold it, the position of the damage: reading there is the error that the reader must see.
    pub(crate) fn find(&self, offset: u64) -> Result<Option<u64>> {
        if offset >= self.next_offset() {
            return Ok(None);
        }
        self.search(
            |index| Some(index.lookup(offset)),
            |header| header.last_offset >= offset,
            |after| after.is_none_or(|h| h.base_offset > offset),
        )
    }

    /// The position of the first block whose largest timestamp is at or after `target`; damage is passed over.
    pub(crate) fn find_time(&self, target: Timestamp) -> Result<Option<u64>> {
        if self.max_timestamp().is_none_or(|(max, _)| max < target) {
            return Ok(None);
        }
        self.search(|index| index.lookup_time(target), |header| header.max_timestamp >= target, |_| false)
    }

    /// Shows headers of blocks in order, from the one that holds `offset`, or else the first after it, until `see` has
    /// enough; damage is passed over.
    pub(crate) fn headers_from(&self, offset: u64, mut see: impl FnMut(&BlockHeader) -> bool) -> Result<()> {
        let Some(position) = self.find(offset)? else { return Ok(()) };
        let mut walk = Walk::new(self.blocks(), position, self.base_offset());
        while let Some(step) = walk.step()? {
            if let Step::Block(header) = step
                && !see(&header)
            {
                break;
            }
        }
        Ok(())
    }

    /// Hops from where the index says to the first block that is `found`, or to damage that may `hide` it, given
    /// the block after it.
    fn search(
        &self,
        from: impl Fn(&Index) -> Option<(u64, u64)>,
        found: impl Fn(&BlockHeader) -> bool,
        hides: impl Fn(Option<&BlockHeader>) -> bool,
    ) -> Result<Option<u64>> {
        let (start, proven) = self.with_index_proven(&from)?;
        let (mut offset, mut position) = match start {
            Some(start) => start,
            None if proven => return Ok(None),
            None => (self.base_offset(), HEADER as u64),
        };
        if !proven && !self.begins_at(offset, position)? {
            // The index of the footer led astray. Blocks do not.
            self.rebuild()?;
            match self.with_index(&from)? {
                Some(start) => (offset, position) = start,
                None => return Ok(None),
            }
        }
        let mut walk = Walk::new(self.blocks(), position, offset);
        while let Some(step) = walk.step()? {
            match step {
                Step::Block(header) if found(&header) => return Ok(Some(header.position)),
                Step::Gap { from, next, .. } if hides(next.as_ref()) => return Ok(Some(from)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Whether a block begins at `position` with just this offset.
    fn begins_at(&self, offset: u64, position: u64) -> Result<bool> {
        if position == HEADER as u64 {
            return Ok(true); // where every search may begin
        }
        Ok(self.blocks().header(position, offset)?.is_ok_and(|h| h.base_offset == offset))
    }

    /// The block at `position`, verified, and where the next one begins; `None` at the end of what is written.
    ///
    /// # Errors
    /// Of kind [`ErrorKind::CorruptRecord`] or [`ErrorKind::UnsupportedCompressionType`], with file, position, and
    /// the offset where the header proves itself. The same call answers the same again; see [`Segment::skip`].
    pub(crate) fn read(&self, position: u64, codecs: &Codecs) -> Result<Option<(DecodedBlock, u64)>> {
        let written = self.written();
        if position >= written {
            return Ok(None);
        }
        let rest = written - position;
        let failed = |e: Error| e.at_path(self.path()).at_position(position);
        if rest < block::HEADER as u64 {
            return Err(failed(BlockError::Truncated.into()));
        }
        // Where the index knows the stretch, header and payload come in one read.
        let stretch =
            self.with_index(|index| index.stretch_end(position))?.map_or(rest, |end| end - position);
        let guess = if stretch <= MAX_GUESS { stretch.min(rest) } else { 0 }.max(block::HEADER as u64);
        let mut stored = AlignedBuf::recycled(len_of(guess));
        // A file that was cut under us costs the blocks it lost, not those before them.
        let got = match self.file.read_at_most(stored.as_mut_slice(), position) {
            // Nor do sectors that cannot be read.
            Err(_) if guess > block::HEADER as u64 => {
                stored = AlignedBuf::recycled(block::HEADER);
                self.file.read_at_most(stored.as_mut_slice(), position)?
            }
            read => read?,
        };
        if got < block::HEADER {
            return Err(failed(BlockError::Truncated.into()));
        }
        let mut head = [0; block::HEADER];
        head.copy_from_slice(&stored.as_slice()[..block::HEADER]);
        let header =
            self.blocks().parse(&head, position, self.base_offset()).map_err(|e| failed(e.into()))?;
        let failed = |e: Error| failed(e).at_offset(header.base_offset);
        if header.total_len() > rest {
            return Err(failed(BlockError::Truncated.into()));
        }
        if header.total_len() > got as u64 {
            let mut whole = AlignedBuf::recycled(len_of(header.total_len()));
            let (known, missing) = whole.as_mut_slice().split_at_mut(got);
            known.copy_from_slice(&stored.as_slice()[..got]);
            self.file
                .read_exact_at(missing, position + got as u64)
                .map_err(|e| e.at_offset(header.base_offset))?;
            stored = whole;
        }
        let block = DecodedBlock::decode(header, stored, codecs).map_err(failed)?;
        Ok(Some((block, header.end_position())))
    }

    /// Where to go on after a block that cannot be read: behind it where its header proves itself, else at the
    /// next one that does. `None` where nothing follows.
    pub(crate) fn skip(&self, position: u64) -> Result<Option<u64>> {
        let low = self.with_index(|index| index.before(position))?.0;
        let blocks = self.blocks();
        if position >= blocks.limit {
            return Ok(None);
        }
        if let Ok(header) = blocks.header(position, low)? {
            return Ok((header.end_position() < blocks.limit).then_some(header.end_position()));
        }
        Ok(blocks.resync(position + 8, low)?.map(|h| h.position))
    }

    /// Makes what is written now survive a power cut, the file's name included, and returns how far that is.
    ///
    /// Many threads may call it while the writer appends.
    pub(crate) fn flush(&self) -> Result<u64> {
        let written = self.written();
        self.file.sync()?;
        self.flush_name()?;
        Ok(self.flushed.fetch_max(written, Ordering::AcqRel).max(written))
    }

    fn flush_name(&self) -> Result<()> {
        if !self.name_flushed.load(Ordering::Acquire) {
            self.directory.sync_dir(&self.folder)?;
            self.directory.sync_names(&self.folder)?;
            // Only now: whoever flushes meanwhile does it twice rather than relying on it too early.
            self.name_flushed.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The same for many segments of one directory at once.
    pub(crate) fn flush_all(segments: &[Arc<Segment>]) -> Result<()> {
        let Some(first) = segments.first() else { return Ok(()) };
        let written: Vec<u64> = segments.iter().map(|segment| segment.written()).collect();
        let files: Vec<&File> = segments.iter().map(|segment| &segment.file).collect();
        let with_names = first.directory.flush(&files)?;
        for (segment, written) in segments.iter().zip(written) {
            if with_names {
                segment.name_flushed.store(true, Ordering::Release);
            }
            segment.flush_name()?;
            segment.flushed.fetch_max(written, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Flushes segments that were there when the log was opened.
    ///
    /// What another process wrote may have been lost before this one had anything open, and then the file system may have
    /// told of that whoever flushed it since, but the file tells who flushes it first: each is asked by itself, though
    /// there may be nothing left to write.
    pub(crate) fn flush_found(segments: &[Arc<Segment>]) -> Result<()> {
        let Some(first) = segments.first() else { return Ok(()) };
        let files: Vec<&File> = segments.iter().map(|segment| &segment.file).collect();
        if first.directory.write_back(&files) {
            segments.iter().for_each(|segment| segment.name_flushed.store(true, Ordering::Release));
        }
        segments.iter().try_for_each(|segment| segment.flush().map(drop))
    }

    /// Keeps the segment readable although its file is about to be deleted.
    pub(crate) fn keep_readable(&self) -> Result<()> {
        self.file.keep_open()
    }

    /// Tells readers of a block whose bytes are in the file.
    pub(crate) fn publish(&self, h: &BlockHeader) -> Result<()> {
        let mut state = self.state.write();
        let Some(index) = &mut state.index else {
            return Err(Error::new(ErrorKind::IllegalState, "segment is not open for appending"));
        };
        index.append(h.base_offset, h.position, h.max_timestamp, h.epoch)?;
        if state.max_timestamp.is_none_or(|(max, _)| h.max_timestamp > max) {
            state.max_timestamp = Some((h.max_timestamp, h.max_timestamp_offset()));
        }
        state.frame_bytes += u64::from(h.raw_len);
        self.written.store(h.end_position(), Ordering::Release);
        self.next_offset.store(h.last_offset + 1, Ordering::Release);
        Ok(())
    }

    /// Index and trailer as they belong behind the last block.
    pub(crate) fn footer(&self) -> Result<Vec<u8>> {
        let end = self.end();
        self.with_index(|index| index.encode(self.meta.salt, end))?
    }

    fn blocks(&self) -> Blocks<'_> {
        Blocks { file: &self.file, meta: &self.meta, limit: self.written(), data_end: u64::MAX }
    }

    fn with_index<R>(&self, f: impl Fn(&Index) -> R) -> Result<R> {
        Ok(self.with_index_proven(f)?.0)
    }

    fn with_index_proven<R>(&self, f: impl Fn(&Index) -> R) -> Result<(R, bool)> {
        loop {
            let state = self.state.read();
            if let Some(index) = &state.index {
                return Ok((f(index), state.proven));
            }
            drop(state);
            match self.read_footer() {
                Ok(Some(index)) => {
                    self.state.write().index.get_or_insert(index);
                }
                // One that cannot be right, or cannot be read: the blocks say the same.
                Ok(None) | Err(_) => self.rebuild()?,
            }
        }
    }

    /// The index of the footer, if it can be right.
    fn read_footer(&self) -> Result<Option<Index>> {
        let Some(trailer) = read_trailer(&self.file, &self.meta)? else { return Ok(None) };
        let len = (trailer.entries as usize).saturating_mul(ENTRY);
        if trailer.end.position != self.written() || len > MAX_FOOTER {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        if self.file.read_at_most(&mut bytes, trailer.end.position)? < bytes.len() {
            return Ok(None);
        }
        Ok(Index::decode(&bytes, self.base_offset(), &trailer))
    }

    /// Makes the index anew from the blocks.
    fn rebuild(&self) -> Result<()> {
        let mut index = Index::new(self.base_offset());
        let mut walk = Walk::new(self.blocks(), HEADER as u64, self.base_offset());
        while let Some(step) = walk.step()? {
            if let Step::Block(h) = step {
                index.append(h.base_offset, h.position, h.max_timestamp, h.epoch)?;
            }
        }
        let mut state = self.state.write();
        if !state.proven {
            state.index = Some(index);
            state.proven = true;
        }
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation)] // lengths of blocks: at most `MAX_RAW` and a header
fn len_of(bytes: u64) -> usize {
    bytes as usize
}
