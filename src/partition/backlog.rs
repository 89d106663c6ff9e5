//! What of a partition is still to be read: how much, and how old.

use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::partition::core::PartitionCore;
use crate::partition::cursor::Cursor;

impl PartitionCore {
    /// How many bytes the frames of the records at offsets `from..limit` take. Segments that lie between are counted as a
    /// whole; of one that `from` lies in, headers of blocks are read; of a block that it lies in, the records.
    pub(crate) fn bytes_between(&self, from: u64, limit: u64) -> Result<u64> {
        loop {
            match self.try_bytes_between(from.max(self.start_offset()), limit) {
                // Deleted since it was looked at: the start has risen.
                Err(e) if e.kind() == ErrorKind::OffsetOutOfRange && from < self.start_offset() => {}
                bytes => return bytes,
            }
        }
    }

    fn try_bytes_between(&self, from: u64, limit: u64) -> Result<u64> {
        let (mut at, mut bytes) = (from, 0);
        // Of blocks that are not counted whole: which records.
        let mut cut = Vec::new();
        for segment in self.chain.segments().iter() {
            let end = segment.end();
            if end.next_offset <= at || at >= limit {
                continue;
            }
            if segment.base_offset() >= at && end.next_offset <= limit {
                bytes += end.frame_bytes;
                at = end.next_offset;
                continue;
            }
            let counted = segment.headers_from(at, |header| {
                let (first, next) = (header.base_offset, header.last_offset + 1);
                if first >= limit {
                    return false;
                }
                if first < at || next > limit {
                    cut.push((first.max(at), next.min(limit)));
                } else {
                    bytes += u64::from(header.raw_len);
                }
                at = next;
                true
            });
            counted.map_err(|e| self.here(e))?;
        }
        // What is in the tail alone.
        cut.push((at, limit));
        for (from, to) in cut.into_iter().filter(|(from, to)| from < to) {
            let mut cursor = Cursor::new(from);
            while let Some(run) = self.fetch(&mut cursor, to, usize::MAX, usize::MAX)? {
                bytes += run.bytes().len() as u64;
            }
        }
        Ok(bytes)
    }

    /// When the first record at or after `from`, and below `limit`, came.
    pub(crate) fn time_of_next(&self, from: u64, limit: u64) -> Result<Option<Timestamp>> {
        let mut cursor = Cursor::new(from.max(self.start_offset()));
        while cursor.position() < limit {
            match self.fetch(&mut cursor, limit, 1, 1) {
                Ok(Some(run)) => {
                    if let Some(frame) = run.frames().find(|frame| !frame.is_control()) {
                        return Ok(Some(frame.timestamp()));
                    }
                }
                Ok(None) => break,
                // Deleted since it was looked at.
                Err(e)
                    if e.kind() == ErrorKind::OffsetOutOfRange && cursor.position() < self.start_offset() =>
                {
                    cursor.seek(self.start_offset());
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}
