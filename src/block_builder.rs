//! Frames become blocks.
//!
//! Frames are copied from the hot tail once, to where their block will be written from, and verified there, many at once
//! by one checksum (see `verifier`).

use crate::block::{self, BlockHeader, HEADER, attributes};
use crate::bytes::u64_at;
use crate::clock::Timestamp;
use crate::codec::{Codecs, Compression};
use crate::columns;
use crate::error::{Error, ErrorKind};
use crate::frame::{self, FrameView, align8};
use crate::verifier::Verifier;

/// How many blocks are made without a try at columns after one that they did not make smaller.
const PATIENCE: u8 = 15;
/// How much is copied at a time: it is in the nearest cache still when its frames are looked at.
const STRETCH: usize = 16 << 10;

/// Where a block goes, and what is known of the place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockPlace {
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
    pub(crate) epoch: u32,
    pub(crate) salt: u64,
    pub(crate) position: u64,
    pub(crate) durable_mark: u64,
}

/// Gathers frames until a block is worth writing, and blocks until they are worth a system call. Reused, so that a
/// steady write-behind allocates nothing.
///
/// ```text
///   out  ┌─────────────┬─────────────┬────────┬───────────────────────┐
///        │ closed[0]   │ closed[1]   │ header │ frames gathered ...   │
///        └─────────────┴─────────────┴────────┴───────────────────────┘
///                                    └ start
/// ```
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    /// Blocks that are closed, back to back, then room for a header and the frames of the block at hand.
    out: Vec<u8>,
    /// Where the block at hand begins.
    start: usize,
    closed: Vec<BlockHeader>,
    /// Of the block at hand; none where it has no frame.
    gathered: Option<Gathered>,
    /// Whether what comes next belongs into another block.
    full: bool,
    /// What a codec made of the block at hand.
    packed: Vec<u8>,
    verifier: Verifier,
    /// How many blocks are made without trying columns.
    patience: u8,
}

/// What the frames of a block are together.
#[derive(Debug, Clone, Copy)]
struct Gathered {
    base_offset: u64,
    last_offset: u64,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    max_delta: u32,
    count: u32,
    producer_id: u64,
    producer_epoch: u16,
    base_sequence: u32,
    attributes: u16,
    ends_append: bool,
}

impl Gathered {
    /// Of a block that begins with `first`.
    fn begin(first: FrameView<'_>) -> Self {
        let (offset, timestamp, producer) = (first.offset(), first.timestamp(), first.producer());
        Gathered {
            base_offset: offset,
            last_offset: offset,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            max_delta: 0,
            count: 0,
            producer_id: producer.map_or(u64::MAX, |p| p.id),
            producer_epoch: producer.map_or(0, |p| p.epoch),
            base_sequence: producer.map_or(0, |p| p.sequence),
            attributes: 0,
            ends_append: false,
        }
    }

    /// Goes on over a frame, the first one too.
    #[inline]
    fn push(&mut self, frame: FrameView<'_>) {
        let (offset, timestamp) = (frame.offset(), frame.timestamp());
        self.last_offset = offset;
        self.count += 1;
        self.ends_append = !frame.more();
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.max_delta = u32::try_from(offset.wrapping_sub(self.base_offset)).unwrap_or(u32::MAX);
        }
        let producer = frame.producer();
        if producer.map_or(u64::MAX, |p| p.id) != self.producer_id {
            self.producer_id = u64::MAX;
        }
        if let Some(p) = producer {
            if p.attributes & frame::attributes::TRANSACTIONAL != 0 {
                self.attributes |= attributes::TRANSACTIONAL;
            }
            if p.attributes & frame::attributes::CONTROL != 0 {
                self.attributes |= attributes::CONTROL;
            }
        }
    }
}

impl BlockBuilder {
    /// Takes the frames that `frames` begin with, for as long as they belong into the block at hand, and says how many bytes
    /// they are; `mixed` tells what the tag of the frame at a position is mixed with (0: it is pure). `frames` end with an
    /// append; offsets must rise.
    ///
    /// An append that does not fit into what is left of the block is left for the next one, so that a run of blocks that
    /// continue holds nothing but its append. Where less than all was taken the block [is full](Self::is_full).
    ///
    /// Frames are copied a stretch at a time, and looked at and verified while they are in the cache. Fails where a frame is
    /// not what it was when it was appended, or none can begin; then it takes none.
    pub(crate) fn gather(&mut self, frames: &[u8], mixed: impl Fn(usize) -> u32) -> Result<usize, Error> {
        let room = block::TARGET.saturating_sub(self.len());
        if self.is_empty() {
            self.out.resize(self.start + HEADER, 0);
        }
        let base = self.out.len();
        // Up to where frames were taken, verified and copied.
        let (mut end, mut verified, mut copied) = (0, 0, 0);
        let mut gathered = self.gathered;
        // How it was before the append that is under way.
        let mut before_append = None;
        self.full = false;
        while end < frames.len() {
            let Some(frame) = FrameView::header_of(&frames[end..]) else {
                if end == 0 {
                    return Err(changed());
                }
                self.full = true;
                break;
            };
            if let Some(g) = &gathered {
                if end + frame.len() > room || frame.first_of_segment() {
                    self.full = true;
                    break;
                }
                if g.ends_append && frame.more() {
                    before_append = Some((end, gathered));
                }
            }
            if end + frame.len() > copied {
                self.verify(base, verified, end)?;
                verified = end;
                let to = (copied + STRETCH).min(room).min(frames.len()).max(end + frame.len());
                self.out.extend_from_slice(&frames[copied..to]);
                copied = to;
            }
            if let Some(head) = self.out[base + end..].first_chunk_mut() {
                self.verifier.push(head, frame.len(), frame.tag() ^ mixed(end), frame.offset());
            }
            gathered.get_or_insert_with(|| Gathered::begin(frame)).push(frame);
            end += frame.len();
        }
        self.verify(base, verified, end)?;
        if let Some((at, before)) = before_append
            && self.full
            && gathered.is_some_and(|g| !g.ends_append)
        {
            (end, gathered) = (at, before);
        }
        self.out.truncate(base + end);
        self.gathered = gathered;
        Ok(end)
    }

    /// Verifies the frames `from..to` behind `base`; where one is not whole, forgets all behind `base`, and names it.
    fn verify(&mut self, base: usize, from: usize, to: usize) -> Result<(), Error> {
        let frames = &mut self.out[base + from..base + to];
        if self.verifier.verify(frames) {
            return Ok(());
        }
        let mut rest = &frames[..];
        while let Some(frame) = FrameView::header_of(rest).filter(|frame| frame.verify(0).is_ok()) {
            rest = &rest[frame.len()..];
        }
        let offset = rest.get(8..16).map(|offset| u64_at(offset, 0));
        self.out.truncate(base);
        Err(offset.into_iter().fold(changed(), Error::at_offset))
    }

    /// Whether what comes next belongs into another block.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Bytes of frames in the block at hand.
    pub(crate) fn len(&self) -> usize {
        if self.is_empty() { 0 } else { self.out.len() - self.start - HEADER }
    }

    /// Whether the block at hand has no frame.
    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_none()
    }

    /// The blocks that were closed and their bytes.
    pub(crate) fn closed(&self) -> (&[BlockHeader], &[u8]) {
        (&self.closed, &self.out[..self.start])
    }

    /// Forgets the closed blocks; the one at hand stays.
    pub(crate) fn forget_closed(&mut self) {
        self.closed.clear();
        self.out.drain(..self.start);
        self.start = 0;
    }

    /// Gives memory back, for a partition that has nothing to write at the moment.
    pub(crate) fn slim(&mut self) {
        self.out.shrink_to(2 * block::TARGET);
    }

    /// The offset of the first record in the block at hand.
    pub(crate) fn base_offset(&self) -> Option<u64> {
        self.gathered.map(|g| g.base_offset)
    }

    /// The offset after the last record gathered.
    pub(crate) fn next_offset(&self) -> Option<u64> {
        let last = self.gathered.map(|g| g.last_offset).or(self.closed.last().map(|h| h.last_offset));
        last.map(|last| last + 1)
    }

    /// Closes the block at hand, which belongs to `place`; the next frame begins another.
    ///
    /// A codec that fails, panics or gains nothing leaves the block uncompressed.
    pub(crate) fn close(&mut self, place: BlockPlace, codecs: &Codecs, compression: Compression) {
        let Some(s) = self.gathered.take() else { return };
        self.full = false;
        let payload_at = self.start + HEADER;
        let raw_len = self.out.len() - payload_at;
        let (codec, columns_len) =
            if compression == Compression::None { (0, 0) } else { self.pack(codecs, compression) };
        let stored_len = self.out.len() - payload_at;
        let payload_crc = crc32fast::hash(&self.out[payload_at..]);
        self.out.resize(payload_at + align8(stored_len), 0);
        let continues = if s.ends_append { 0 } else { attributes::CONTINUES };
        #[allow(clippy::cast_possible_truncation)] // bounded by MAX_RAW
        let header = BlockHeader {
            codec,
            attributes: s.attributes | continues,
            salt: place.salt,
            position: place.position,
            topic_id: place.topic_id,
            partition: place.partition,
            epoch: place.epoch,
            base_offset: s.base_offset,
            last_offset: s.last_offset,
            base_timestamp: s.base_timestamp,
            max_timestamp: s.max_timestamp,
            max_delta: s.max_delta,
            durable_mark: place.durable_mark,
            producer_id: s.producer_id,
            producer_epoch: s.producer_epoch,
            base_sequence: s.base_sequence,
            first_open: u64::MAX,
            delete_horizon: i64::MIN,
            count: s.count,
            stored_len: stored_len as u32,
            raw_len: raw_len as u32,
            columns_len: columns_len as u32,
            payload_crc,
        };
        header.write(&mut self.out[self.start..]);
        self.closed.push(header);
        self.start = self.out.len();
    }

    /// Puts something smaller in place of the frames at hand, where there is something. Answers with the codec and how
    /// long the columns are that it was given; 0 where there is no such.
    fn pack(&mut self, codecs: &Codecs, compression: Compression) -> (u8, usize) {
        let payload_at = self.start + HEADER;
        let columns = self.columns();
        let payload = columns.as_deref().unwrap_or(&self.out[payload_at..]);
        self.packed.clear();
        let smaller = codecs.compress(compression, payload, &mut self.packed);
        let stored = if smaller { Some(&self.packed) } else { columns.as_ref() };
        if let Some(stored) = stored {
            self.out.truncate(payload_at);
            self.out.extend_from_slice(stored);
        }
        (if smaller { compression.id() } else { 0 }, columns.map_or(0, |columns| columns.len()))
    }

    /// The frames in columns, where those are smaller. Where they were not, the next blocks do not try.
    fn columns(&mut self) -> Option<Vec<u8>> {
        if self.patience > 0 {
            self.patience -= 1;
            return None;
        }
        let frames = &self.out[self.start + HEADER..];
        let columns = columns::encode(frames).filter(|c| c.len() <= frames.len() / 8 * 7);
        if columns.is_none() {
            self.patience = PATIENCE;
        }
        columns
    }
}

fn changed() -> Error {
    Error::new(ErrorKind::CorruptRecord, "a record changed in memory before it was written")
}

/// For tests: one block.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct EncodedBlock {
    pub(crate) header: BlockHeader,
    pub(crate) bytes: Vec<u8>,
}

#[cfg(test)]
impl BlockBuilder {
    /// For tests: takes one frame with a pure tag, whatever it is.
    pub(crate) fn push(&mut self, frame: &[u8]) {
        if self.is_empty() {
            self.out.resize(self.start + HEADER, 0);
        }
        self.out.extend_from_slice(frame);
        let frame = FrameView::trusted(frame);
        self.gathered.get_or_insert_with(|| Gathered::begin(frame)).push(frame);
    }

    /// For tests: closes the block at hand and takes it out; `None` where there is nothing.
    pub(crate) fn take(&mut self, place: BlockPlace, compression: Compression) -> Option<EncodedBlock> {
        self.close(place, &Codecs::default(), compression);
        let (headers, bytes) = self.closed();
        let block = headers.first().map(|header| EncodedBlock { header: *header, bytes: bytes.to_vec() });
        self.forget_closed();
        block
    }
}

#[cfg(test)]
#[path = "block_builder_tests.rs"]
mod tests;
