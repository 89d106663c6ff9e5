//! The header of a slot in a staging file, which is a chunk's too; bytes are little-endian.
//!
//! ```text
//!   0  magic         u32   "TLC1"   ┐ one word, zeroed first and stored last
//!   4  checksum      u32            ┘ CRC-32 of bytes 8..64, begun with the mix of the file's key and the slot's position
//!   8  version       u32   1
//!  12  slot length   u32   all of it, these 128 bytes too; whole granules, at most 1 GiB
//!  16  topic id      u64
//!  24  partition     u32
//!  28  leader epoch  u32
//!  32  base offset   u64   of the first frame
//!  40  incarnation   u64   of the open that wrote it
//!  48  salt          u64   random, never 0, never the slot's previous one
//!  56  reserved      u64   0
//!  64  reserved            64 bytes, 0, for readers in other processes
//! 128  frames, back to back; then a zero word, unless the last frame ends the slot
//! ```
//!
//! Positions count from the slot's first byte, so the first frame is at 128.

use crate::bytes::{put, u32_at, u64_at};
use crate::frame::mix;

/// Bytes before the first frame.
pub(crate) const HEADER: usize = 128;
/// Bytes of the header that recovery reads; the rest is for readers in other processes.
pub(crate) const RECOVERY_HEADER: usize = 64;
/// What slots are multiples of: a page, so that a slot of a quiet partition costs one.
pub(crate) const GRANULE: usize = 4 * 1024;
/// Slots up to this long are handed out from the end of a file, and longer ones from its beginning, so that the few
/// bytes of quiet partitions do not break up the room of busy ones.
pub(crate) const SMALL: usize = 64 * 1024;
/// No chunk is larger: positions fit 32 bits with room to spare, and a damaged length cannot ask for more.
pub(crate) const MAX_LEN: usize = 1 << 30;
/// "TLC1".
const MAGIC: u32 = u32::from_le_bytes(*b"TLC1");
const VERSION: u32 = 1;

/// What the header of a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotHeader {
    pub(crate) len: u32,
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
    pub(crate) epoch: u32,
    pub(crate) base_offset: u64,
    pub(crate) incarnation: u64,
    pub(crate) salt: u64,
}

impl SlotHeader {
    /// The header's bytes at `position` of the file with this `key`.
    pub(crate) fn encode(&self, key: u64, position: usize) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        put(&mut out, 0, &MAGIC.to_le_bytes());
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 12, &self.len.to_le_bytes());
        put(&mut out, 16, &self.topic_id.to_le_bytes());
        put(&mut out, 24, &self.partition.to_le_bytes());
        put(&mut out, 28, &self.epoch.to_le_bytes());
        put(&mut out, 32, &self.base_offset.to_le_bytes());
        put(&mut out, 40, &self.incarnation.to_le_bytes());
        put(&mut out, 48, &self.salt.to_le_bytes());
        let crc = slot_checksum(&out[8..RECOVERY_HEADER], key, position);
        put(&mut out, 4, &crc.to_le_bytes());
        out
    }

    /// Reads a header; `None` unless it proves itself at `position` of the file with this `key`.
    ///
    /// The key keeps record values that look like a header from being taken for one.
    pub(crate) fn parse(bytes: &[u8], key: u64, position: usize) -> Option<SlotHeader> {
        let bytes = bytes.get(..RECOVERY_HEADER)?;
        if u32_at(bytes, 0) != MAGIC
            || u32_at(bytes, 4) != slot_checksum(&bytes[8..], key, position)
            || u32_at(bytes, 8) != VERSION
        {
            return None;
        }
        let header = SlotHeader {
            len: u32_at(bytes, 12),
            topic_id: u64_at(bytes, 16),
            partition: u32_at(bytes, 24),
            epoch: u32_at(bytes, 28),
            base_offset: u64_at(bytes, 32),
            incarnation: u64_at(bytes, 40),
            salt: u64_at(bytes, 48),
        };
        let len = header.len as usize;
        (len > HEADER && len.is_multiple_of(8) && len <= MAX_LEN && header.salt != 0).then_some(header)
    }
}

/// Whether a slot begins here whose header was damaged: of magic and checksum one is right. Who writes a header stores both
/// in one word, last.
pub(crate) fn is_damaged(bytes: &[u8], key: u64, position: usize) -> bool {
    bytes
        .get(..RECOVERY_HEADER)
        .is_some_and(|b| (u32_at(b, 0) == MAGIC) != (u32_at(b, 4) == slot_checksum(&b[8..], key, position)))
}

fn slot_checksum(bytes: &[u8], key: u64, position: usize) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(mix(key, position));
    crc.update(bytes);
    crc.finalize()
}
