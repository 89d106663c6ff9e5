//! Where in a segment an offset or a time is found: sparse, in memory, and in the footer once sealed.
//!
//! An entry stands for a *stretch*: the block it names and the small ones after it, up to the next entry.
//! Little-endian in the footer:
//!
//! ```text
//!    0  offset         u64   base offset of the first block of the stretch
//!    8  position       u64   of that block in the file
//!   16  max timestamp  i64   the largest in this stretch and all before it
//!   24  leader epoch   u32   of all blocks of the stretch
//!   28  reserved       u32   0
//! ```
//!
//! An index is a hint: whoever uses it verifies the block that it leads to.

use crate::bytes::{i64_at, u32_at, u64_at};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::format::{Boundary, HEADER, Trailer};

/// Bytes of an entry in the footer.
pub(crate) const ENTRY: usize = 32;
/// A stretch takes in further blocks until it is this long.
const STRETCH: u64 = 4 * 1024;

/// One stretch of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) offset: u64,
    pub(crate) position: u64,
    pub(crate) max_timestamp: Timestamp,
    pub(crate) epoch: u32,
}

/// The places of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    base_offset: u64,
    entries: Vec<IndexEntry>,
    /// Offset and position of the last block, with an entry of its own or not.
    last: Option<(u64, u64)>,
}

impl Index {
    pub(crate) fn new(base_offset: u64) -> Self {
        Index { base_offset, entries: Vec::new(), last: None }
    }

    /// Adds a block: into the last stretch while that is short, else as the first of a new one.
    ///
    /// A block that does not come after all others is refused and changes nothing.
    pub(crate) fn append(&mut self, offset: u64, position: u64, max: Timestamp, epoch: u32) -> Result<()> {
        let in_order = match self.last {
            None => offset >= self.base_offset,
            Some((last_offset, last_position)) => offset > last_offset && position > last_position,
        };
        if !in_order {
            let message =
                format!("block at {position} does not come after the last of the index, {:?}", self.last);
            return Err(Error::new(ErrorKind::IllegalState, message).at_offset(offset));
        }
        self.last = Some((offset, position));
        match self.entries.last_mut() {
            Some(e) if e.epoch == epoch && position - e.position < STRETCH => {
                e.max_timestamp = e.max_timestamp.max(max);
            }
            previous => {
                let max_timestamp = previous.map_or(max, |e| e.max_timestamp.max(max));
                self.entries.push(IndexEntry { offset, position, max_timestamp, epoch });
            }
        }
        Ok(())
    }

    /// Offset and position to look for `offset` from: the greatest entry not above it, else the segment's base.
    pub(crate) fn lookup(&self, offset: u64) -> (u64, u64) {
        let after = self.entries.partition_point(|e| e.offset <= offset);
        self.place(after.checked_sub(1))
    }

    /// Offset and position to look from for the first record at or after `target`: the first stretch that
    /// reaches it. `None` where none does.
    ///
    /// Kafka looks for the greatest entry not above the target instead and scans on from there. Here that would be
    /// wrong where the largest timestamp stays the same over several stretches, and one read more elsewhere.
    pub(crate) fn lookup_time(&self, target: Timestamp) -> Option<(u64, u64)> {
        let at = self.entries.partition_point(|e| e.max_timestamp < target);
        (at < self.entries.len()).then(|| self.place(Some(at)))
    }

    /// The greatest entry that begins before `position`, else the segment's base.
    pub(crate) fn before(&self, position: u64) -> (u64, u64) {
        let at = self.entries.partition_point(|e| e.position < position);
        self.place(at.checked_sub(1))
    }

    /// Where the stretch ends that `position` lies in, if another begins after it.
    pub(crate) fn stretch_end(&self, position: u64) -> Option<u64> {
        let after = self.entries.partition_point(|e| e.position <= position);
        self.entries.get(after).map(|e| e.position)
    }

    fn place(&self, entry: Option<usize>) -> (u64, u64) {
        match entry.and_then(|i| self.entries.get(i)) {
            Some(e) => (e.offset, e.position),
            None => (self.base_offset, HEADER as u64),
        }
    }

    /// Each leader epoch and the first offset written in it.
    pub(crate) fn epochs(&self) -> Vec<(u32, u64)> {
        let mut epochs: Vec<(u32, u64)> = Vec::new();
        for e in &self.entries {
            if epochs.last().is_none_or(|(epoch, _)| *epoch != e.epoch) {
                epochs.push((e.epoch, e.offset));
            }
        }
        epochs
    }

    /// The stretches, in order.
    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Forgets the blocks from `position` on. The last stretch may go on claiming the largest timestamp of what it
    /// lost, which costs a look and hides nothing.
    pub(crate) fn truncate(&mut self, position: u64, last: Option<(u64, u64)>) {
        self.entries.retain(|e| e.position < position);
        self.last = last;
    }

    /// The footer of a segment that ends at `end`: index and trailer.
    pub(crate) fn encode(&self, salt: u64, end: Boundary) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.entries.len() * ENTRY + 64);
        for e in &self.entries {
            out.extend_from_slice(&e.offset.to_le_bytes());
            out.extend_from_slice(&e.position.to_le_bytes());
            out.extend_from_slice(&e.max_timestamp.as_nanos().to_le_bytes());
            out.extend_from_slice(&e.epoch.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
        }
        let entries = u32::try_from(self.entries.len())
            .map_err(|_| Error::new(ErrorKind::IllegalState, "segment has too many blocks for an index"))?;
        let trailer = Trailer { salt, end, entries, index_crc: crc32fast::hash(&out) };
        out.extend_from_slice(&trailer.encode());
        Ok(out)
    }

    /// The index in `bytes`, which end where the trailer begins; `None` for anything that cannot be right.
    pub(crate) fn decode(bytes: &[u8], base_offset: u64, trailer: &Trailer) -> Option<Self> {
        if bytes.len() != trailer.entries as usize * ENTRY || crc32fast::hash(bytes) != trailer.index_crc {
            return None;
        }
        let mut index = Index::new(base_offset);
        for b in bytes.chunks_exact(ENTRY) {
            let entry = IndexEntry {
                offset: u64_at(b, 0),
                position: u64_at(b, 8),
                max_timestamp: Timestamp::from_nanos(i64_at(b, 16)),
                epoch: u32_at(b, 24),
            };
            let rises = index.entries.last().is_none_or(|l| {
                l.offset < entry.offset
                    && l.position < entry.position
                    && l.max_timestamp <= entry.max_timestamp
            });
            let inside = (base_offset..trailer.end.next_offset).contains(&entry.offset)
                && (HEADER as u64..trailer.end.position).contains(&entry.position);
            if !rises || !inside {
                return None;
            }
            index.entries.push(entry);
        }
        index.last = index.entries.last().map(|e| (e.offset, e.position));
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    /// Kafka's entries say "up to this offset"; ours say "from this offset to the next entry". So (10,55),
    /// (20,65), (30,75) over base 45 are stretches that begin at 45, 56 and 66, and the place to look from is the
    /// stretch after Kafka's answer, or the one that ends with it: the same records are found.
    #[test]
    fn t_19_time_lookup() {
        let mut index = Index::new(45);
        for (i, (offset, max)) in [(45, 10), (56, 20), (66, 30)].into_iter().enumerate() {
            index.append(offset, 64 + i as u64 * STRETCH, ts(max), 0).unwrap();
        }
        assert_eq!(index.lookup_time(ts(9)), Some((45, 64)));
        assert_eq!(index.lookup_time(ts(25)), Some((66, 64 + 2 * STRETCH)));
        assert_eq!(index.lookup_time(ts(30)), Some((66, 64 + 2 * STRETCH)));
        assert_eq!(index.lookup_time(ts(31)), None);
    }

    #[test]
    fn a_largest_time_that_stays_leads_to_its_first_stretch() {
        let mut index = Index::new(0);
        for i in 0..5 {
            index.append(i, 64 + i * STRETCH, ts(7), 0).unwrap();
        }
        assert_eq!(index.lookup_time(ts(7)), Some((0, 64)));
    }

    #[test]
    fn t_21_offset_lookup_at_the_extremes() {
        let mut index = Index::new(45);
        assert_eq!(index.lookup(45), (45, 64));
        for i in 0..30 {
            index.append(46 + i, 64 + i * STRETCH, ts(0), 0).unwrap();
        }
        assert_eq!(index.lookup(45), (45, 64), "base when none");
        assert_eq!(index.lookup(75), (75, 64 + 29 * STRETCH));
        assert_eq!(index.lookup(u64::MAX), (75, 64 + 29 * STRETCH));
        assert_eq!(index.stretch_end(64), Some(64 + STRETCH));
        assert_eq!(index.stretch_end(64 + 29 * STRETCH), None);
        assert_eq!(index.before(64 + STRETCH), (46, 64));
    }

    #[test]
    fn t_23_out_of_order_is_refused_and_changes_nothing() {
        let mut index = Index::new(45);
        index.append(51, 64, ts(5), 0).unwrap();
        let before = index.clone();
        for (offset, position) in [(50, 99), (51, 99), (52, 64), (52, 8)] {
            let error = index.append(offset, position, ts(99), 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IllegalState);
            assert_eq!(index, before);
        }
        assert!(Index::new(45).append(44, 64, ts(0), 0).is_err(), "below the base");
    }

    #[test]
    fn small_blocks_share_an_entry_and_epochs_do_not() {
        let mut index = Index::new(0);
        for i in 0..100 {
            index.append(i, 64 + i * 200, ts(i as i64), u32::from(i >= 50)).unwrap();
        }
        assert_eq!(index.entries().len(), 6);
        assert_eq!(index.epochs(), [(0, 0), (1, 50)]);
        assert!(index.entries().windows(2).all(|w| w[0].max_timestamp < w[1].max_timestamp));
    }

    #[test]
    fn footer_round_trips_and_noise_is_refused() {
        let mut index = Index::new(10);
        for i in 0..20 {
            index.append(10 + i, 64 + i * STRETCH, ts(i as i64), 3).unwrap();
        }
        let end = Boundary {
            position: 64 + 20 * STRETCH,
            next_offset: 30,
            max_timestamp: Some((ts(19), 29)),
            frame_bytes: 0,
        };
        let bytes = index.encode(5, end).unwrap();
        let (entries, tail) = bytes.split_at(20 * ENTRY);
        let trailer = Trailer { salt: 5, end, entries: 20, index_crc: crc32fast::hash(entries) };
        assert_eq!(tail, trailer.encode());
        assert_eq!(Index::decode(entries, 10, &trailer).as_ref(), Some(&index));
        assert_eq!(Index::decode(&entries[..32], 10, &trailer), None);
        assert_eq!(Index::decode(&vec![7; entries.len()], 10, &trailer), None);
        // With a good checksum over impossible entries, too.
        let zeros = vec![0; entries.len()];
        let lying = Trailer { index_crc: crc32fast::hash(&zeros), ..trailer };
        assert_eq!(Index::decode(&zeros, 10, &lying), None);
        let short = Trailer { end: Boundary { position: 4096, ..end }, ..trailer };
        assert_eq!(Index::decode(entries, 10, &short), None);
    }
}
