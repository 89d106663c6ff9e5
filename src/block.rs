//! The bytes of many records on disk: a header, two checksums, and frames, compressed as one unit.
//!
//! All integers are little-endian; a block starts 8-aligned in its segment and is padded with zeros to a
//! multiple of 8.
//!
//! ```text
//!    0  magic            u32   "TLB1"
//!    4  version          u8    1
//!    5  codec            u8    0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd, 128 to 255 the user's
//!    6  attributes       u16   1 continues, 2 transactional, 4 control
//!    8  salt             u64   the segment's
//!   16  position         u64   of this block in its segment file
//!   24  topic id         u64
//!   32  partition        u32
//!   36  leader epoch     u32
//!   40  base offset      u64
//!   48  last offset      u64
//!   56  base timestamp   i64   of the first record
//!   64  max timestamp    i64   the largest
//!   72  durable mark     u64   the segment was flushed up to this position when the block was written
//!   80  producer id      u64   of all records, or u64::MAX
//!   88  delete horizon   i64   i64::MIN: none (compaction: when tombstones may go)
//!   96  stored length    u32   payload bytes as stored
//!  100  raw length       u32   payload bytes as frames
//!  104  record count     u32
//!  108  max delta        u32   offset of the first record with the largest timestamp, less the base offset
//!  112  base sequence    u32   of the producer's first record
//!  116  producer epoch   u16
//!  118  reserved         u16   0
//!  120  first open       u64   first offset of the oldest transaction open here, or u64::MAX
//!  128  reserved         20 bytes, 0
//!  148  payload checksum u32   CRC-32 of the stored payload
//!  152  columns length   u32   payload bytes before the codec where they are columns, 0 where they are frames
//!  156  header checksum  u32   CRC-32 of bytes 0..156
//!  160  payload, zeros up to the next multiple of 8
//! ```
//!
//! Payloads that a codec is to compress are turned into columns first, where that gains something (see `columns`).
//!
//! Salt and position make a stale, swapped or foreign block invalid where it stands. The header checksum is
//! verified before any field is believed, the payload's before a byte of it is decompressed.

use std::cell::RefCell;

use crate::bytes::{i64_at, put, u16_at, u32_at, u64_at};
use crate::clock::Timestamp;
use crate::codec::Codecs;
use crate::columns::{self, ColumnsError};
use crate::error::{Error, ErrorKind};
use crate::frame::{FrameError, FrameView, MAX_OFFSET, align8};

/// Bytes before the payload.
pub(crate) const HEADER: usize = 160;
/// "TLB1".
const MAGIC: u32 = u32::from_le_bytes(*b"TLB1");
const VERSION: u8 = 1;
/// A block closes once its frames reach this many bytes.
pub(crate) const TARGET: usize = 64 * 1024;
/// No block may claim more frame bytes than this: the largest record, with room to spare.
pub(crate) const MAX_RAW: usize = 64 * 1024 * 1024;

/// Bits of a block's attributes.
pub(crate) mod attributes {
    /// The append that ends this block goes on in the next one.
    pub(crate) const CONTINUES: u16 = 1;
    /// Has records of transactions.
    pub(crate) const TRANSACTIONAL: u16 = 1 << 1;
    /// Has transaction markers.
    pub(crate) const CONTROL: u16 = 1 << 2;
    /// What this version understands.
    pub(crate) const KNOWN: u16 = CONTINUES | TRANSACTIONAL | CONTROL;
}

/// What the first 160 bytes of a block say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) codec: u8,
    pub(crate) attributes: u16,
    pub(crate) salt: u64,
    pub(crate) position: u64,
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
    pub(crate) epoch: u32,
    pub(crate) base_offset: u64,
    pub(crate) last_offset: u64,
    pub(crate) base_timestamp: Timestamp,
    pub(crate) max_timestamp: Timestamp,
    pub(crate) max_delta: u32,
    pub(crate) durable_mark: u64,
    pub(crate) producer_id: u64,
    pub(crate) producer_epoch: u16,
    pub(crate) base_sequence: u32,
    pub(crate) first_open: u64,
    pub(crate) delete_horizon: i64,
    pub(crate) count: u32,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) columns_len: u32,
    pub(crate) payload_crc: u32,
}

/// Why bytes are not a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    #[error("no block begins here")]
    Magic,
    #[error("block header does not match its checksum")]
    HeaderChecksum,
    #[error("block is of format version {0}")]
    Version(u8),
    #[error("block has attributes {0:#06x} of a newer format")]
    Attributes(u16),
    #[error("block belongs to another segment or another place")]
    Place,
    #[error("block has impossible lengths or offsets")]
    Fields,
    #[error("block payload does not match its checksum")]
    PayloadChecksum,
    #[error("block payload is cut short")]
    Truncated,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Columns(#[from] ColumnsError),
    #[error("frames of the block disagree with its header")]
    Frames,
}

impl From<BlockError> for Error {
    fn from(e: BlockError) -> Error {
        let kind = match e {
            BlockError::Version(_) | BlockError::Attributes(_) | BlockError::Frame(FrameError::Flags(_)) => {
                ErrorKind::UnsupportedVersion
            }
            _ => ErrorKind::CorruptRecord,
        };
        Error::new(kind, e.to_string())
    }
}

/// Whether a block may begin with `bytes`: a quick look before the careful one.
pub(crate) fn begins_with_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC.to_le_bytes())
}

impl BlockHeader {
    /// How far it is from this block to the next.
    pub(crate) fn total_len(&self) -> u64 {
        (HEADER + align8(self.stored_len as usize)) as u64
    }

    /// How long the payload is without the codec.
    fn unpacked_len(&self) -> u32 {
        if self.columns_len == 0 { self.raw_len } else { self.columns_len }
    }

    /// Where the next block begins.
    pub(crate) fn end_position(&self) -> u64 {
        self.position + self.total_len()
    }

    /// Whether the append that ends this block goes on in the next.
    pub(crate) fn continues(&self) -> bool {
        self.attributes & attributes::CONTINUES != 0
    }

    /// The offset of the first record that carries the largest timestamp.
    pub(crate) fn max_timestamp_offset(&self) -> u64 {
        self.base_offset + u64::from(self.max_delta)
    }

    /// Writes the header to where `out` begins.
    pub(crate) fn write(&self, out: &mut [u8]) {
        out[..HEADER].fill(0);
        put(out, 0, &MAGIC.to_le_bytes());
        put(out, 4, &[VERSION, self.codec]);
        put(out, 6, &self.attributes.to_le_bytes());
        put(out, 8, &self.salt.to_le_bytes());
        put(out, 16, &self.position.to_le_bytes());
        put(out, 24, &self.topic_id.to_le_bytes());
        put(out, 32, &self.partition.to_le_bytes());
        put(out, 36, &self.epoch.to_le_bytes());
        put(out, 40, &self.base_offset.to_le_bytes());
        put(out, 48, &self.last_offset.to_le_bytes());
        put(out, 56, &self.base_timestamp.as_nanos().to_le_bytes());
        put(out, 64, &self.max_timestamp.as_nanos().to_le_bytes());
        put(out, 72, &self.durable_mark.to_le_bytes());
        put(out, 80, &self.producer_id.to_le_bytes());
        put(out, 88, &self.delete_horizon.to_le_bytes());
        put(out, 96, &self.stored_len.to_le_bytes());
        put(out, 100, &self.raw_len.to_le_bytes());
        put(out, 104, &self.count.to_le_bytes());
        put(out, 108, &self.max_delta.to_le_bytes());
        put(out, 112, &self.base_sequence.to_le_bytes());
        put(out, 116, &self.producer_epoch.to_le_bytes());
        put(out, 120, &self.first_open.to_le_bytes());
        put(out, 148, &self.payload_crc.to_le_bytes());
        put(out, 152, &self.columns_len.to_le_bytes());
        let crc = crc32fast::hash(&out[..156]);
        put(out, 156, &crc.to_le_bytes());
    }

    /// Reads and verifies a header; `salt` and `position` are what they must be here.
    pub(crate) fn parse(bytes: &[u8; HEADER], salt: u64, position: u64) -> Result<Self, BlockError> {
        let header = Self::parse_anywhere(bytes)?;
        if header.salt != salt || header.position != position {
            return Err(BlockError::Place);
        }
        Ok(header)
    }

    /// Reads and verifies a header wherever it may belong.
    pub(crate) fn parse_anywhere(bytes: &[u8; HEADER]) -> Result<Self, BlockError> {
        if u32_at(bytes, 0) != MAGIC {
            return Err(BlockError::Magic);
        }
        if u32_at(bytes, 156) != crc32fast::hash(&bytes[..156]) {
            return Err(BlockError::HeaderChecksum);
        }
        if bytes[4] != VERSION {
            return Err(BlockError::Version(bytes[4]));
        }
        let header = BlockHeader {
            codec: bytes[5],
            attributes: u16_at(bytes, 6),
            salt: u64_at(bytes, 8),
            position: u64_at(bytes, 16),
            topic_id: u64_at(bytes, 24),
            partition: u32_at(bytes, 32),
            epoch: u32_at(bytes, 36),
            base_offset: u64_at(bytes, 40),
            last_offset: u64_at(bytes, 48),
            base_timestamp: Timestamp::from_nanos(i64_at(bytes, 56)),
            max_timestamp: Timestamp::from_nanos(i64_at(bytes, 64)),
            durable_mark: u64_at(bytes, 72),
            producer_id: u64_at(bytes, 80),
            delete_horizon: i64_at(bytes, 88),
            stored_len: u32_at(bytes, 96),
            raw_len: u32_at(bytes, 100),
            columns_len: u32_at(bytes, 152),
            count: u32_at(bytes, 104),
            max_delta: u32_at(bytes, 108),
            base_sequence: u32_at(bytes, 112),
            producer_epoch: u16_at(bytes, 116),
            first_open: u64_at(bytes, 120),
            payload_crc: u32_at(bytes, 148),
        };
        if header.attributes & !attributes::KNOWN != 0 {
            return Err(BlockError::Attributes(header.attributes));
        }
        let fields_agree = header.last_offset >= header.base_offset
            && header.last_offset < MAX_OFFSET
            && u64::from(header.count) <= (header.last_offset - header.base_offset).saturating_add(1)
            && u64::from(header.max_delta) <= header.last_offset - header.base_offset
            && header.raw_len as usize <= MAX_RAW
            && header.raw_len.is_multiple_of(8)
            && header.columns_len <= header.raw_len
            && header.stored_len <= header.unpacked_len()
            && (header.codec != 0 || header.stored_len == header.unpacked_len())
            && header.position.is_multiple_of(8)
            && header.position.checked_add(header.total_len()).is_some();
        if fields_agree { Ok(header) } else { Err(BlockError::Fields) }
    }
}

/// Bytes that begin 8-aligned, so that what stands 8-aligned in a block is so in memory.
pub(crate) struct AlignedBuf {
    storage: Vec<u8>,
    start: usize,
    len: usize,
}

/// No more buffers than this are kept for the next blocks of a thread, which is what a poll of 500 records of 1 KiB holds and
/// more; and none that is larger.
const MAX_SPARE: usize = 16;
const MAX_SPARE_BYTES: usize = 2 * TARGET;

thread_local! {
    /// Memory of blocks that nobody reads any more, the last one used last: it is in the cache still, has its pages, and
    /// need not be zeroed. Of a thread, so that taking it needs no lock and the cache is that of the processor.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl AlignedBuf {
    /// `len` bytes of no certain content.
    pub(crate) fn recycled(len: usize) -> Self {
        let mut storage = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten().unwrap_or_default();
        if storage.len() < len + 7 {
            if storage.capacity() < len + 7 {
                // Not grown, since that would copy what nobody wants; a little large, as blocks differ a little.
                storage = Vec::with_capacity((len + 7).next_multiple_of(4096));
            }
            storage.resize(len + 7, 0);
        }
        let start = storage.as_ptr().align_offset(8).min(7);
        AlignedBuf { storage, start, len }
    }

    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let storage = vec![0; len + 7];
        let start = storage.as_ptr().align_offset(8).min(7);
        AlignedBuf { storage, start, len }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.len]
    }

    /// Keeps the memory for [`AlignedBuf::recycled`].
    fn recycle(&mut self) {
        let storage = std::mem::take(&mut self.storage);
        if (1..=MAX_SPARE_BYTES).contains(&storage.capacity()) {
            // A thread that ends has let go of its spares before.
            let _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < MAX_SPARE {
                    spare.push(storage);
                }
            });
        }
    }
}

/// A block read back, verified and decompressed: frames that were checked one by one.
pub(crate) struct DecodedBlock {
    header: BlockHeader,
    buf: AlignedBuf,
    frames_at: usize,
    records: usize,
}

impl DecodedBlock {
    /// Verifies and unpacks the block `stored`, header and payload, whose header has been parsed.
    ///
    /// Fails with [`BlockError`] as the source of a corrupt-record error, or with an unknown codec's.
    pub(crate) fn decode(
        header: BlockHeader,
        mut stored: AlignedBuf,
        codecs: &Codecs,
    ) -> Result<Self, Error> {
        let payload = stored
            .as_slice()
            .get(HEADER..HEADER + header.stored_len as usize)
            .ok_or(BlockError::Truncated)?;
        if crc32fast::hash(payload) != header.payload_crc {
            return Err(BlockError::PayloadChecksum.into());
        }
        let mut block = if header.codec == 0 && header.columns_len == 0 {
            DecodedBlock { header, buf: stored, frames_at: HEADER, records: 0 }
        } else {
            let mut buf = AlignedBuf::recycled(header.raw_len as usize);
            if header.codec >= 128 || header.columns_len > 0 {
                // Where something may be left out that is not a built-in codec's: no bytes of another block there.
                buf.as_mut_slice().fill(0);
            }
            if header.columns_len == 0 {
                codecs.decompress(header.codec, payload, buf.as_mut_slice())?;
            } else if header.codec == 0 {
                columns::decode(payload, buf.as_mut_slice()).map_err(BlockError::from)?;
            } else {
                let mut unpacked = vec![0; header.columns_len as usize];
                codecs.decompress(header.codec, payload, &mut unpacked)?;
                columns::decode(&unpacked, buf.as_mut_slice()).map_err(BlockError::from)?;
            }
            stored.recycle();
            DecodedBlock { header, buf, frames_at: 0, records: 0 }
        };
        block.records = block.check_frames()?;
        Ok(block)
    }

    /// Walks the frames once, so that later accessors cannot fail, and counts those that a reader may see.
    fn check_frames(&self) -> Result<usize, BlockError> {
        let mut rest = self.frames();
        let (mut count, mut controls, mut next) = (0u32, 0usize, self.header.base_offset);
        while !rest.is_empty() {
            let frame = FrameView::parse(rest)?;
            if frame.offset() < next || frame.offset() > self.header.last_offset {
                return Err(BlockError::Frames);
            }
            next = frame.offset() + 1;
            rest = &rest[frame.len()..];
            controls += usize::from(frame.is_control());
            count += 1;
        }
        if count == self.header.count { Ok(count as usize - controls) } else { Err(BlockError::Frames) }
    }

    pub(crate) fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// How many frames are records, and no transaction markers.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// The frames from one to another: positions in [`DecodedBlock::frames`].
    #[inline]
    pub(crate) fn bytes(&self, from: usize, to: usize) -> &[u8] {
        let first = self.buf.start + self.frames_at;
        &self.buf.storage[first + from..first + to]
    }

    /// The frames, back to back.
    pub(crate) fn frames(&self) -> &[u8] {
        self.bytes(0, self.header.raw_len as usize)
    }
}

impl Drop for DecodedBlock {
    fn drop(&mut self) {
        self.buf.recycle();
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
