//! Segments in a row: the cold read path of a partition.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::block::DecodedBlock;
use crate::clock::Timestamp;
use crate::codec::Codecs;
use crate::error::Result;
use crate::segment::format::HEADER;
use crate::segment::reader::Segment;

/// The segments of a partition by base offset: an immutable set, replaced as a whole.
///
/// Whoever reads holds what it reads from: a segment taken out of the chain, even unlinked, stays readable until
/// its last cursor goes.
#[derive(Debug, Default)]
pub(crate) struct Chain(RwLock<Arc<[Arc<Segment>]>>);

/// A place in the chain: of a block, or where the next one will be.
#[derive(Debug, Clone)]
pub(crate) struct ColdCursor {
    pub(crate) segment: Arc<Segment>,
    pub(crate) position: u64,
}

impl Chain {
    /// The chain of these segments, put in order.
    pub(crate) fn new(mut segments: Vec<Arc<Segment>>) -> Self {
        segments.sort_by_key(|s| s.base_offset());
        Chain(RwLock::new(segments.into()))
    }

    /// The segments as they are now.
    pub(crate) fn segments(&self) -> Arc<[Arc<Segment>]> {
        Arc::clone(&self.0.read())
    }

    /// The base offset of the first segment.
    #[cfg(test)]
    pub(crate) fn first_offset(&self) -> Option<u64> {
        self.0.read().first().map(|s| s.base_offset())
    }

    /// Adds a segment at the end.
    pub(crate) fn push(&self, segment: Arc<Segment>) {
        let mut segments = self.0.write();
        debug_assert!(segments.last().is_none_or(|last| last.base_offset() < segment.base_offset()));
        *segments = segments.iter().cloned().chain([segment]).collect();
    }

    /// Takes the first `n` segments out and returns them.
    pub(crate) fn remove_first(&self, n: usize) -> Vec<Arc<Segment>> {
        let mut segments = self.0.write();
        let (gone, kept) = segments.split_at(n.min(segments.len()));
        let (gone, kept) = (gone.to_vec(), kept.into());
        *segments = kept;
        gone
    }

    /// Puts `with` in place of the segments whose base offset lies in `from..to`, and returns those.
    #[cfg_attr(not(test), expect(dead_code, reason = "for compaction"))]
    pub(crate) fn replace(&self, from: u64, to: u64, with: Vec<Arc<Segment>>) -> Vec<Arc<Segment>> {
        let mut segments = self.0.write();
        let (gone, mut kept): (Vec<_>, Vec<_>) =
            segments.iter().cloned().partition(|s| (from..to).contains(&s.base_offset()));
        kept.extend(with);
        kept.sort_by_key(|s| s.base_offset());
        *segments = kept.into();
        gone
    }

    /// The block that holds `offset`, or else the first after it; `None` at the end of what is written.
    pub(crate) fn seek(&self, offset: u64) -> Result<Option<ColdCursor>> {
        let segments = self.segments();
        let at = segments.partition_point(|s| s.base_offset() <= offset).saturating_sub(1);
        for segment in &segments[at..] {
            if let Some(position) = segment.find(offset)? {
                return Ok(Some(ColdCursor { segment: Arc::clone(segment), position }));
            }
        }
        Ok(None)
    }

    /// The first block whose largest timestamp is at or after `target`.
    pub(crate) fn find_time(&self, target: Timestamp) -> Result<Option<ColdCursor>> {
        for segment in self.segments().iter() {
            if let Some(position) = segment.find_time(target)? {
                return Ok(Some(ColdCursor { segment: Arc::clone(segment), position }));
            }
        }
        Ok(None)
    }

    /// The leader epoch of the record at `offset`; `None` where no block of it proves itself.
    pub(crate) fn epoch_of(&self, offset: u64) -> Result<Option<u32>> {
        let segments = self.segments();
        let at = segments.partition_point(|s| s.base_offset() <= offset).checked_sub(1);
        let Some(segment) = at.map(|at| &segments[at]) else { return Ok(None) };
        let mut epoch = None;
        segment.headers_from(offset, |header| {
            epoch = (header.base_offset <= offset).then_some(header.epoch);
            false
        })?;
        Ok(epoch)
    }

    /// The block at the cursor, which moves on behind it; `None` at the end of what is written, where the same
    /// cursor may ask again later. On an error the cursor stays.
    pub(crate) fn next(&self, cursor: &mut ColdCursor, codecs: &Codecs) -> Result<Option<DecodedBlock>> {
        loop {
            // Taken before the read: where that finds nothing, all blocks below this offset are behind the cursor.
            // Taken after it, a block appended in between, and then a roll, would be passed over.
            let reached = cursor.segment.next_offset();
            if let Some((block, next)) = cursor.segment.read(cursor.position, codecs)? {
                cursor.position = next;
                return Ok(Some(block));
            }
            if !self.cross(cursor, reached)? {
                return Ok(None);
            }
        }
    }

    /// Moves the cursor behind a block that cannot be read; false, and no move, where none follows.
    #[cfg_attr(not(test), expect(dead_code, reason = "for verification"))]
    pub(crate) fn skip(&self, cursor: &mut ColdCursor) -> Result<bool> {
        let reached = cursor.segment.next_offset();
        if let Some(position) = cursor.segment.skip(cursor.position)? {
            cursor.position = position;
            return Ok(true);
        }
        self.cross(cursor, reached)
    }

    /// Moves the cursor to the first block at or after `offset`, by offset and not by segment: compaction may have
    /// put others in place of the segment that the cursor holds, and of those after it.
    fn cross(&self, cursor: &mut ColdCursor, offset: u64) -> Result<bool> {
        match self.seek(offset)? {
            Some(next) => {
                *cursor = next;
                Ok(true)
            }
            None => {
                // An empty active segment may follow: waiting there, the cursor lets go of the one before.
                let last = self.segments().last().cloned();
                if let Some(last) =
                    last.filter(|l| l.base_offset() >= offset && l.next_offset() == l.base_offset())
                {
                    *cursor = ColdCursor { segment: last, position: HEADER as u64 };
                }
                Ok(false)
            }
        }
    }
}
