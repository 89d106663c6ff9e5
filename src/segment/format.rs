//! The fixed parts of a segment file, and its name.
//!
//! All integers are little-endian. The header, the first 64 bytes of the file:
//!
//! ```text
//!    0  magic            u32   "TLS1"
//!    4  version          u16   1
//!    6  flags            u16   0
//!    8  salt             u64   in every block of the file; never that of another file
//!   16  topic id         u64
//!   24  partition        u32
//!   28  generation       u32   0; raised by each compaction that rewrites the segment
//!   32  base offset      u64   no record here has a smaller one
//!   40  created          i64   timestamp
//!   48  reserved         12 bytes, 0
//!   60  header checksum  u32   CRC-32 of bytes 0..60
//! ```
//!
//! The trailer, the last 64 bytes of a sealed file; the index lies between `data end` and it:
//!
//! ```text
//!    0  magic            u32   "TLE1"
//!    4  version          u16   1
//!    6  flags            u16   0
//!    8  salt             u64   the segment's
//!   16  data end         u64   position after the last block, where the index begins
//!   24  next offset      u64   the last record's and one
//!   32  max timestamp    i64   the largest in the segment
//!   40  its offset       u64   of the first record that has it; u64::MAX: there is no record
//!   48  entry count      u32   of the index
//!   52  index checksum   u32   CRC-32 of the index
//!   56  frame words      u32   bytes of frames in the segment / 8, at most 2^32 - 1
//!   60  trailer checksum u32   CRC-32 of bytes 0..60
//! ```
//!
//! A file is called `{base offset, 20 digits}-{generation, 6 digits}.log`.

use crate::bytes::{i64_at, put, u16_at, u32_at, u64_at};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::frame::MAX_OFFSET;

/// Bytes before the first block.
pub(crate) const HEADER: usize = 64;
/// Bytes after the index.
pub(crate) const TRAILER: usize = 64;
const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"TLS1");
const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"TLE1");
const VERSION: u16 = 1;

/// What a segment is, from its creation on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentMeta {
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
    pub(crate) base_offset: u64,
    pub(crate) generation: u32,
    pub(crate) salt: u64,
    pub(crate) created: Timestamp,
}

/// How far a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// The position after the last block.
    pub(crate) position: u64,
    /// The last record's offset and one.
    pub(crate) next_offset: u64,
    /// The largest timestamp, and the offset of the first record that has it.
    pub(crate) max_timestamp: Option<(Timestamp, u64)>,
    /// Bytes of frames before compression: what the size of a segment counts.
    pub(crate) frame_bytes: u64,
}

impl Boundary {
    /// That of a segment without a block.
    pub(crate) fn empty(base_offset: u64) -> Self {
        Boundary { position: HEADER as u64, next_offset: base_offset, max_timestamp: None, frame_bytes: 0 }
    }
}

/// What the last 64 bytes of a sealed segment say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) salt: u64,
    pub(crate) end: Boundary,
    pub(crate) entries: u32,
    pub(crate) index_crc: u32,
}

/// Why bytes are not a segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("not a segment file")]
    Foreign,
    #[error("segment header does not match its checksum")]
    Checksum,
    #[error("segment is of format version {0}")]
    Version(u16),
    #[error("segment has flags {0:#06x} of a newer format")]
    Flags(u16),
}

impl From<FormatError> for Error {
    fn from(e: FormatError) -> Error {
        let kind = match e {
            FormatError::Foreign => ErrorKind::ForeignFile,
            FormatError::Checksum => ErrorKind::CorruptRecord,
            FormatError::Version(_) | FormatError::Flags(_) => ErrorKind::UnsupportedVersion,
        };
        Error::new(kind, e.to_string())
    }
}

fn close(mut out: [u8; 64]) -> [u8; 64] {
    let crc = crc32fast::hash(&out[..60]);
    put(&mut out, 60, &crc.to_le_bytes());
    out
}

/// Checks what header and trailer have in common.
fn open(bytes: &[u8; 64], magic: u32) -> Result<(), FormatError> {
    if u32_at(bytes, 0) != magic {
        return Err(FormatError::Foreign);
    }
    // Every version keeps magic, version and the checksum's place, so that damage is told from novelty.
    if u32_at(bytes, 60) != crc32fast::hash(&bytes[..60]) {
        return Err(FormatError::Checksum);
    }
    match (u16_at(bytes, 4), u16_at(bytes, 6)) {
        (VERSION, 0) => Ok(()),
        (VERSION, flags) => Err(FormatError::Flags(flags)),
        (version, _) => Err(FormatError::Version(version)),
    }
}

impl SegmentMeta {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        put(&mut out, 0, &SEGMENT_MAGIC.to_le_bytes());
        put(&mut out, 4, &VERSION.to_le_bytes());
        put(&mut out, 8, &self.salt.to_le_bytes());
        put(&mut out, 16, &self.topic_id.to_le_bytes());
        put(&mut out, 24, &self.partition.to_le_bytes());
        put(&mut out, 28, &self.generation.to_le_bytes());
        put(&mut out, 32, &self.base_offset.to_le_bytes());
        put(&mut out, 40, &self.created.as_nanos().to_le_bytes());
        close(out)
    }

    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, FormatError> {
        open(bytes, SEGMENT_MAGIC)?;
        if u64_at(bytes, 32) >= MAX_OFFSET {
            return Err(FormatError::Foreign);
        }
        Ok(SegmentMeta {
            salt: u64_at(bytes, 8),
            topic_id: u64_at(bytes, 16),
            partition: u32_at(bytes, 24),
            generation: u32_at(bytes, 28),
            base_offset: u64_at(bytes, 32),
            created: Timestamp::from_nanos(i64_at(bytes, 40)),
        })
    }

    /// The name of the segment's file.
    pub(crate) fn file_name(&self) -> String {
        format!("{:020}-{:06}.log", self.base_offset, self.generation)
    }
}

/// Base offset and generation of a segment's file name; `None` for a name that is not exactly one.
pub(crate) fn parse_file_name(name: &str) -> Option<(u64, u32)> {
    let (base, generation) = name.strip_suffix(".log")?.split_once('-')?;
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if base.len() != 20 || generation.len() < 6 || !digits(base) || !digits(generation) {
        return None;
    }
    let parsed = (base.parse().ok()?, generation.parse().ok()?);
    // One name per segment: no superfluous zeros.
    (format!("{:020}-{:06}.log", parsed.0, parsed.1) == name).then_some(parsed)
}

impl Trailer {
    pub(crate) fn encode(&self) -> [u8; TRAILER] {
        let (max_timestamp, its_offset) = self.end.max_timestamp.unwrap_or((Timestamp::MIN, u64::MAX));
        let mut out = [0; TRAILER];
        put(&mut out, 0, &TRAILER_MAGIC.to_le_bytes());
        put(&mut out, 4, &VERSION.to_le_bytes());
        put(&mut out, 8, &self.salt.to_le_bytes());
        put(&mut out, 16, &self.end.position.to_le_bytes());
        put(&mut out, 24, &self.end.next_offset.to_le_bytes());
        put(&mut out, 32, &max_timestamp.as_nanos().to_le_bytes());
        put(&mut out, 40, &its_offset.to_le_bytes());
        put(&mut out, 48, &self.entries.to_le_bytes());
        put(&mut out, 52, &self.index_crc.to_le_bytes());
        let words = u32::try_from(self.end.frame_bytes / 8).unwrap_or(u32::MAX);
        put(&mut out, 56, &words.to_le_bytes());
        close(out)
    }

    /// Reads the trailer of the segment `meta` in a file of `file_len` bytes; `None` for anything that is not it.
    pub(crate) fn decode(
        bytes: &[u8; TRAILER],
        meta: &SegmentMeta,
        file_len: u64,
        entry: u64,
    ) -> Option<Self> {
        open(bytes, TRAILER_MAGIC).ok()?;
        let its_offset = u64_at(bytes, 40);
        let max_timestamp = Timestamp::from_nanos(i64_at(bytes, 32));
        let trailer = Trailer {
            salt: u64_at(bytes, 8),
            end: Boundary {
                position: u64_at(bytes, 16),
                next_offset: u64_at(bytes, 24),
                max_timestamp: (its_offset != u64::MAX).then_some((max_timestamp, its_offset)),
                frame_bytes: u64::from(u32_at(bytes, 56)) * 8,
            },
            entries: u32_at(bytes, 48),
            index_crc: u32_at(bytes, 52),
        };
        let end = trailer.end;
        let index_len = u64::from(trailer.entries) * entry;
        let agrees = trailer.salt == meta.salt
            && end.position >= HEADER as u64
            && end.position.is_multiple_of(8)
            && end.position.checked_add(index_len + TRAILER as u64) == Some(file_len)
            && end.next_offset <= MAX_OFFSET
            && end.next_offset >= meta.base_offset
            && end.max_timestamp.is_none_or(|(_, o)| (meta.base_offset..end.next_offset).contains(&o));
        agrees.then_some(trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: SegmentMeta = SegmentMeta {
        topic_id: 7,
        partition: 3,
        base_offset: 1_000,
        generation: 2,
        salt: 99,
        created: Timestamp::from_nanos(5),
    };

    #[test]
    fn header_round_trips_and_every_flipped_bit_is_noticed() {
        let bytes = META.encode();
        assert_eq!(SegmentMeta::decode(&bytes), Ok(META));
        for bit in 0..512 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentMeta::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = META.encode();
        bytes[4] = 2;
        assert_eq!(SegmentMeta::decode(&bytes), Err(FormatError::Checksum));
        assert_eq!(SegmentMeta::decode(&close(bytes)), Err(FormatError::Version(2)));
        assert_eq!(Error::from(FormatError::Version(2)).kind(), ErrorKind::UnsupportedVersion);
        let mut bytes = META.encode();
        bytes[6] = 1;
        assert_eq!(SegmentMeta::decode(&close(bytes)), Err(FormatError::Flags(1)));
        assert_eq!(SegmentMeta::decode(&[0; 64]), Err(FormatError::Foreign));
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        assert_eq!(META.file_name(), "00000000000000001000-000002.log");
        assert_eq!(parse_file_name(&META.file_name()), Some((1_000, 2)));
        let largest = SegmentMeta { base_offset: u64::MAX, generation: u32::MAX, ..META };
        assert_eq!(parse_file_name(&largest.file_name()), Some((u64::MAX, u32::MAX)));
        for name in [
            "",
            "1-2.log",
            "00000000000000001000-2.log",
            "00000000000000001000-0000002.log",
            "00000000000000001000-000002.log.tmp",
            "+0000000000000001000-000002.log",
            "99999999999999999999-000002.log",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn trailer_round_trips_and_must_fit_its_file() {
        let end = Boundary {
            position: 640,
            next_offset: 1_010,
            max_timestamp: Some((Timestamp::MAX, 1_004)),
            frame_bytes: 4_096,
        };
        let trailer = Trailer { salt: 99, end, entries: 3, index_crc: 8 };
        let bytes = trailer.encode();
        let len = 640 + 3 * 32 + 64;
        assert_eq!(Trailer::decode(&bytes, &META, len, 32), Some(trailer));
        assert_eq!(Trailer::decode(&bytes, &META, len + 8, 32), None);
        assert_eq!(Trailer::decode(&bytes, &SegmentMeta { salt: 1, ..META }, len, 32), None);
        let empty = Trailer { end: Boundary::empty(1_000), entries: 0, ..trailer };
        assert_eq!(Trailer::decode(&empty.encode(), &META, 128, 32), Some(empty));
        for bit in 0..512 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&bad, &META, len, 32), None, "bit {bit}");
        }
    }
}
