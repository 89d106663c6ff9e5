//! The one who appends to a segment.

use std::path::Path;
use std::sync::Arc;

use crate::block::BlockHeader;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::ahead::Reserved;
use crate::segment::format::{Boundary, SegmentMeta};
use crate::segment::index::Index;
use crate::segment::reader::Segment;
use crate::segment::scan::SegmentScan;
use crate::storage::directory::Directory;

/// The first extent that is reserved; each further one is twice as long. It is short, for most of many partitions are quiet.
const FIRST_EXTENT: u64 = 16 * 1024;
/// The longest extent.
pub(crate) const LAST_EXTENT: u64 = 64 * 1024 * 1024;
/// Reservations end at multiples of this.
const PAGE: u64 = 4096;
/// What is written ahead of a segment that is flushed block by block, at most.
static ZEROS: [u8; 128 * 1024] = [0; 128 * 1024];

/// Appends blocks to a segment and seals it. There is one per segment.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    segment: Arc<Segment>,
    /// Where the next block goes.
    position: u64,
    /// The file's length: blocks and what is reserved for more.
    allocated: u64,
    /// How much is reserved next.
    extent: u64,
    /// Up to here something was written: blocks, or zeros ahead of them.
    zeroed: u64,
    /// How many zeros are written next.
    ahead: u64,
    /// Reserving stops here, for a segment of its size will hardly need more: headers of blocks come on top of the frames that
    /// are counted, but what is reserved for nothing must be cut off, and on a busy disk that is waited for.
    enough: u64,
    /// A footer of an earlier open stands at `position`: it stays until something is appended, so that an open
    /// that appends nothing changes nothing.
    footer_stands: bool,
    sealed: bool,
}

impl SegmentWriter {
    /// Creates the file of a new segment, or takes the one that was made ahead, and writes its header; nothing is flushed.
    pub(crate) fn create(
        directory: &Arc<Directory>,
        folder: &Path,
        meta: SegmentMeta,
        segment_bytes: u64,
        ahead: Option<Reserved>,
    ) -> Result<Self> {
        let path = folder.join(meta.file_name());
        // One that cannot have its name is gone again.
        let ahead = ahead.and_then(|r| Some((directory.name_shared(r.file, &path).ok()?, r.len)));
        let (file, reserved) = match ahead {
            Some(ahead) => ahead,
            None => (directory.create_shared(&path)?, 0),
        };
        if let Err(e) = file.write_all_at(&meta.encode(), 0) {
            // A file without a header must not be in the way of the next attempt.
            let _ = directory.remove_file(&path);
            return Err(e);
        }
        let end = Boundary::empty(meta.base_offset);
        let index = Some(Index::new(meta.base_offset));
        let segment = Segment::new(Arc::clone(directory), folder, file, meta, end, index);
        let mut writer = Self::at_end_of(Arc::new(segment), segment_bytes);
        writer.allocated = writer.allocated.max(reserved);
        Ok(writer)
    }

    /// Opens a scanned segment again, to append at the scan's end. What lies behind it (torn bytes, reserved
    /// space) is cut off; keeping what is worth keeping was the caller's. Only a footer stays until the first
    /// block comes: an open dies, or ends, without having appended anything, and the footer is still true.
    pub(crate) fn continue_at(
        directory: &Arc<Directory>,
        folder: &Path,
        scan: &SegmentScan,
        segment_bytes: u64,
    ) -> Result<Self> {
        let file = directory.shared(&folder.join(&scan.file_name), true, scan.file_id)?;
        if scan.links > 1 {
            let message = "the file has another name as well (a hard link), and would change there when it is written to";
            return Err(Error::new(ErrorKind::ForeignFile, message).at_path(file.path()));
        }
        let end = scan.end;
        let index = scan.index.clone();
        let segment = Segment::new(Arc::clone(directory), folder, file, scan.meta, end, index);
        segment.was_flushed(scan);
        let mut writer = Self::at_end_of(Arc::new(segment), segment_bytes);
        writer.footer_stands = scan.sealed;
        if !scan.sealed {
            writer.cut()?;
        }
        Ok(writer)
    }

    /// Cuts off what lies behind the last block.
    fn cut(&mut self) -> Result<()> {
        // The index must be there before the footer that may hold it goes.
        self.segment.epochs()?;
        if self.segment.file.len()? != self.position {
            self.segment.file.set_len(self.position)?;
        }
        self.footer_stands = false;
        Ok(())
    }

    fn at_end_of(segment: Arc<Segment>, segment_bytes: u64) -> Self {
        let position = segment.written();
        let enough = segment_bytes.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        SegmentWriter {
            segment,
            position,
            allocated: position,
            extent: FIRST_EXTENT,
            zeroed: position,
            ahead: PAGE,
            enough,
            footer_stands: false,
            sealed: false,
        }
    }

    /// What every block of this segment must carry.
    pub(crate) fn salt(&self) -> u64 {
        self.segment.meta().salt
    }

    /// Where the next block goes.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// How long it will be, at least where nothing is compressed.
    pub(crate) fn enough(&self) -> u64 {
        self.enough
    }

    /// The side that readers share.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Appends blocks that were made for just this place: `bytes` are theirs, back to back, and written at once.
    ///
    /// On an error nothing is published; after [`ErrorKind::NoSpace`] the same call may be made again.
    pub(crate) fn append(&mut self, blocks: &[BlockHeader], bytes: &[u8]) -> Result<()> {
        let mut end = self.position;
        let mut next_offset = self.segment.next_offset();
        for h in blocks {
            let fits =
                !self.sealed && h.salt == self.salt() && h.position == end && h.base_offset >= next_offset;
            if !fits {
                return Err(self.illegal(end).at_offset(h.base_offset));
            }
            end = h.end_position();
            next_offset = h.last_offset + 1;
        }
        if end - self.position != bytes.len() as u64 {
            return Err(self.illegal(end));
        }
        if self.footer_stands {
            self.cut()?;
        }
        self.reserve(end)?;
        self.segment.file.write_all_at(bytes, self.position)?;
        self.allocated = self.allocated.max(end);
        self.write_ahead(end)?;
        for h in blocks {
            self.segment.publish(h)?;
            self.position = h.end_position();
        }
        Ok(())
    }

    /// For tests: appends one block.
    #[cfg(test)]
    pub(crate) fn append_one(&mut self, block: &crate::block_builder::EncodedBlock) -> Result<()> {
        self.append(std::slice::from_ref(&block.header), &block.bytes)
    }

    /// Writes zeros behind a block that ends at `end`, where flushes come after single blocks.
    ///
    /// Space that is only reserved costs the flush that first fills it another write of the file system's own, to note
    /// that it holds something now. The run doubles as it is used up, so that a file that is flushed now and then
    /// gets no more of it than it needs.
    fn write_ahead(&mut self, end: u64) -> Result<()> {
        if end <= self.zeroed {
            return Ok(());
        }
        let from = end.next_multiple_of(PAGE);
        self.zeroed = from;
        if self.segment.flushed() < self.position {
            return Ok(());
        }
        let len = self.ahead.min(self.allocated.saturating_sub(from));
        match ZEROS.get(..usize::try_from(len).unwrap_or(0)) {
            None | Some([]) => return Ok(()),
            Some(zeros) => match self.segment.file.write_all_at(zeros, from) {
                Ok(()) => {}
                // Where space cannot be reserved; nothing needs these.
                Err(e) if e.kind() == ErrorKind::NoSpace => return Ok(()),
                Err(e) => return Err(e),
            },
        }
        self.zeroed = from + len;
        self.ahead = (self.ahead * 2).min(ZEROS.len() as u64);
        Ok(())
    }

    /// Sees to it that the file is at least `end` long, by an extent where it is not. Behind what is enough, it grows by what
    /// is written.
    fn reserve(&mut self, end: u64) -> Result<()> {
        if end <= self.allocated || self.allocated >= self.enough {
            return Ok(());
        }
        let pages = end.next_multiple_of(PAGE);
        let extent = self.allocated.saturating_add(self.extent) / PAGE * PAGE;
        let extent = extent.min(self.enough).max(pages);
        let reserved = match self.allocate(extent) {
            // On a disk that is almost full, what this block needs may still be there.
            Err(e) if e.kind() == ErrorKind::NoSpace && pages < extent => self.allocate(pages),
            other => other,
        };
        reserved.map(|()| self.extent = (self.extent * 2).min(LAST_EXTENT))
    }

    fn allocate(&mut self, to: u64) -> Result<()> {
        let file = &self.segment.file;
        match file.allocate(self.allocated, to - self.allocated) {
            Ok(()) => {
                self.allocated = to;
                Ok(())
            }
            Err(e) => {
                // Some file systems keep what they could get: that is the space others wait for. An error here is
                // kept by the latch, and the first one is the one to tell.
                let _ = file.set_len(self.allocated);
                Err(e)
            }
        }
    }

    /// Gives reserved space back, for a segment that stays unsealed for long.
    #[cfg(test)]
    pub(crate) fn trim(&mut self) -> Result<()> {
        if !self.sealed && self.allocated > self.position {
            self.segment.file.set_len(self.position)?;
            (self.allocated, self.zeroed) = (self.position, self.position);
        }
        Ok(())
    }

    /// Writes the footer and gives reserved space back; nothing is flushed. Then no block can be appended.
    ///
    /// After [`ErrorKind::NoSpace`] it may be called again. False where the footer stood there already.
    pub(crate) fn seal(&mut self) -> Result<bool> {
        if self.sealed || self.footer_stands {
            self.sealed = true;
            return Ok(false);
        }
        let footer = self.segment.footer()?;
        let end = self.position + footer.len() as u64;
        if end > self.allocated {
            self.allocate(end)?;
        }
        // The length first: a process that dies in between leaves zeros behind the blocks, which are known for
        // reserved space, and not a footer that stands where none belongs.
        if self.segment.file.len().ok() != Some(end) {
            self.segment.file.set_len(end)?;
        }
        self.allocated = end;
        self.segment.file.write_all_at(&footer, self.position)?;
        self.sealed = true;
        Ok(true)
    }

    fn illegal(&self, position: u64) -> Error {
        let message = format!("block was made for another place than {position} in this segment");
        Error::new(ErrorKind::IllegalState, message).at_path(self.segment.path()).at_position(position)
    }
}
