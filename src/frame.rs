//! The bytes of one record, the same in a chunk of the hot tail and inside a block.
//!
//! All integers are little-endian; a frame starts 8-aligned and is a multiple of 8 long.
//!
//! ```text
//!  0        4        8                16               24   25       28       32
//!  ├────────┼────────┼────────────────┼────────────────┼────┼────────┼────────┤
//!  │ length │  tag   │     offset     │   timestamp    │flag│key len │val len │   the fixed header
//!  └────────┴────────┴────────────────┴────────────────┴────┴────────┴────────┘
//!  └── commit word ──┘
//!  32  producer part, 16 bytes, if PRODUCER:  id u64 │ sequence u32 │ epoch u16 │ attributes u16
//!   .  headers, if HEADERS:  bytes u32 │ count u32 │ count x (name len u32 │ value len u32 │ name │ value)
//!   .  key
//!   .  zeros up to the next multiple of 8
//!   .  value, so 8-aligned
//!   .  zeros up to the next multiple of 8
//! ```
//!
//! `length` counts the whole frame. `tag` is the CRC-32 of bytes 16..length, begun with a mix of offset and
//! length as its initial state; in a chunk it is mixed with the chunk's salt and the frame's position there
//! ([`mix`]), so that a frame proves its place too. Bit lengths: the key's is 24, the value's 32.

use crate::bytes::{u32_at, u64_at};
use crate::clock::Timestamp;
#[cfg(target_arch = "x86_64")]
use crate::fold::Fold;
use crate::record::Record;

/// No record has an offset from here on: what says so is damaged, or made to have sums run over.
pub(crate) const MAX_OFFSET: u64 = 1 << 63;
/// Bytes before key and value of a record with neither producer nor headers.
pub(crate) const FIXED: usize = 32;
/// Bytes of the optional producer part.
const PRODUCER_PART: usize = 16;
/// Bytes before the first header.
const HEADERS_PREFIX: usize = 8;
/// Where the bytes begin that the checksum runs over.
pub(crate) const SUMMED: usize = 16;
/// The longest key: its length field has 24 bits.
pub(crate) const MAX_KEY: usize = (1 << 24) - 1;

/// The flag byte of a frame.
pub(crate) mod flags {
    /// The record has a key.
    pub(crate) const KEY: u8 = 1;
    /// The record has a value.
    pub(crate) const VALUE: u8 = 1 << 1;
    /// The producer part is there.
    pub(crate) const PRODUCER: u8 = 1 << 2;
    /// Headers are there.
    pub(crate) const HEADERS: u8 = 1 << 3;
    /// The append that this frame belongs to goes on with the next frame.
    pub(crate) const MORE: u8 = 1 << 4;
    /// A segment begins with this frame.
    pub(crate) const FIRST_OF_SEGMENT: u8 = 1 << 5;
    /// What this version understands; a frame with another bit is of a newer format.
    pub(crate) const KNOWN: u8 = KEY | VALUE | PRODUCER | HEADERS | MORE | FIRST_OF_SEGMENT;
}

/// Attributes in the producer part.
pub(crate) mod attributes {
    /// Part of a transaction.
    pub(crate) const TRANSACTIONAL: u16 = 1;
    /// A transaction marker, not a record of the user's.
    pub(crate) const CONTROL: u16 = 1 << 1;
}

/// Who sent a frame: the optional producer part (Kafka: KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerPart {
    pub(crate) id: u64,
    pub(crate) epoch: u16,
    pub(crate) sequence: u32,
    pub(crate) attributes: u16,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("frame length {0} does not fit where it stands")]
    Length(u32),
    #[error("frame flags {0:#04x} are of a newer format")]
    Flags(u8),
    #[error("frame parts overrun its length")]
    Parts,
    #[error("frame does not match its checksum")]
    Checksum,
}

/// Rounds up to the next multiple of 8.
pub(crate) const fn align8(n: usize) -> usize {
    (n + 7) & !7
}

/// How long the frame of `record` is, or `None` where it cannot be written: a key of 16 MiB or more, or
/// parts that do not fit 32-bit lengths.
#[inline]
pub(crate) fn frame_len(record: &Record<'_>, with_producer: bool) -> Option<usize> {
    let key = record.key.map_or(0, <[u8]>::len);
    let value = record.value.map_or(0, <[u8]>::len);
    if key > MAX_KEY || value > u32::MAX as usize {
        return None;
    }
    let mut at = FIXED;
    if with_producer {
        at += PRODUCER_PART;
    }
    if !record.headers.is_empty() {
        at = at.checked_add(HEADERS_PREFIX)?.checked_add(headers_len(record.headers)?)?;
    }
    let len = align8(align8(at.checked_add(key)?).checked_add(value)?);
    (len <= u32::MAX as usize).then_some(len)
}

/// [`frame_len`] of a record that is a value of `len` bytes and nothing else.
pub(crate) fn value_frame_len(len: usize) -> Option<usize> {
    let frame = len.checked_add(FIXED + 7)? & !7;
    (frame <= u32::MAX as usize).then_some(frame)
}

fn headers_len(headers: &[(&str, &[u8])]) -> Option<usize> {
    headers.iter().try_fold(0usize, |sum, (name, value)| {
        sum.checked_add(8)?.checked_add(name.len())?.checked_add(value.len())
    })
}

/// Writes the frame of `record` into `out`, which is exactly [`frame_len`] long, all but the commit word, and
/// returns the checksum that belongs there.
pub(crate) fn write(
    out: &mut [u8],
    record: &Record<'_>,
    offset: u64,
    timestamp: Timestamp,
    extra_flags: u8,
    producer: Option<ProducerPart>,
) -> u32 {
    fill(out, record, offset, timestamp, extra_flags, producer);
    checksum_of(out)
}

/// The checksum of a frame that was filled; what stands in its commit word does not matter.
///
/// CRC-32 is computed 16 bytes at a time. What it runs over begins at a multiple of that, and the offset before it is
/// its beginning: half of all frames leave nothing over.
#[inline]
pub(crate) fn checksum_of(frame: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(sum_begins(u64_at(frame, 8), frame.len()));
    crc.update(&frame[SUMMED..]);
    crc.finalize()
}

/// [`checksum_of`] a short frame, for processors that can.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "pclmulqdq,avx")]
pub(crate) fn checksum_folded(frame: &[u8]) -> u32 {
    Fold::of(sum_begins(u64_at(frame, 8), frame.len()), &frame[SUMMED..])
}

/// What the checksum of a frame begins with.
#[inline]
pub(crate) fn sum_begins(offset: u64, len: usize) -> u32 {
    mix(offset, len)
}

/// Bytes 16..32 of the fixed header of a record's frame, as words: the timestamp, and `more` with the flags of key and value and
/// both lengths.
#[inline(always)] // what the caller knows of the record is no branch then
pub(crate) fn fixed_words(record: &Record<'_>, timestamp: Timestamp, more: u8) -> [u64; 2] {
    let flag = more
        | (u8::from(record.key.is_some()) * flags::KEY)
        | (u8::from(record.value.is_some()) * flags::VALUE);
    // Lengths were checked by `frame_len`.
    #[allow(clippy::cast_possible_truncation)]
    let len = |part: Option<&[u8]>| u64::from(part.map_or(0, <[u8]>::len) as u32);
    let lens = (len(record.value) << 32) | (len(record.key) << 8) | u64::from(flag);
    [timestamp.as_nanos().cast_unsigned(), lens]
}

/// The same for a record that is a value of `len` bytes and nothing else.
pub(crate) fn fixed_words_of_value(len: usize, timestamp: Timestamp, more: u8) -> [u64; 2] {
    // The length was checked by `value_frame_len`.
    #[allow(clippy::cast_possible_truncation)]
    let lens = (u64::from(len as u32) << 32) | u64::from(more | flags::VALUE);
    [timestamp.as_nanos().cast_unsigned(), lens]
}

/// Writes the frame of `record` into `out`, which is exactly [`frame_len`] long, all but the commit word.
fn fill(
    out: &mut [u8],
    record: &Record<'_>,
    offset: u64,
    timestamp: Timestamp,
    extra_flags: u8,
    producer: Option<ProducerPart>,
) {
    let key = record.key.unwrap_or_default();
    let value = record.value.unwrap_or_default();
    let flag = extra_flags
        | (u8::from(producer.is_some()) * flags::PRODUCER)
        | (u8::from(!record.headers.is_empty()) * flags::HEADERS);
    let [time, lens] = fixed_words(record, timestamp, flag);
    let len = out.len();
    let value_at = len - align8(value.len());
    // Padding is less than a word: what may hold some is zeroed whole before it is filled, which is a store
    // of fixed size, where zeroing what is left over would be a call.
    out[value_at - 8..value_at].fill(0);
    out[len - 8..].fill(0);
    out[8..16].copy_from_slice(&offset.to_le_bytes());
    out[16..24].copy_from_slice(&time.to_le_bytes());
    out[24..32].copy_from_slice(&lens.to_le_bytes());
    let mut at = FIXED;
    if let Some(p) = producer {
        out[at..at + 8].copy_from_slice(&p.id.to_le_bytes());
        out[at + 8..at + 12].copy_from_slice(&p.sequence.to_le_bytes());
        out[at + 12..at + 14].copy_from_slice(&p.epoch.to_le_bytes());
        out[at + 14..at + 16].copy_from_slice(&p.attributes.to_le_bytes());
        at += PRODUCER_PART;
    }
    if !record.headers.is_empty() {
        at = write_headers(out, at, record.headers);
    }
    out[at..at + key.len()].copy_from_slice(key);
    debug_assert_eq!(align8(at + key.len()), value_at);
    out[value_at..value_at + value.len()].copy_from_slice(value);
}

/// The word at `at` of `bytes`, with zeros for what lies behind their end.
#[inline]
pub(crate) fn word_of(bytes: &[u8], at: usize) -> u64 {
    if let Some(word) = bytes.get(at..at + 8) {
        return u64_at(word, 0);
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let len = rest.len();
    if len >= 4 {
        // Two reads that overlap: no byte for itself.
        u64::from(u32_at(rest, 0)) | (u64::from(u32_at(rest, len - 4)) << (8 * (len - 4)))
    } else if len > 0 {
        let byte = |at: usize| u64::from(rest[at]) << (8 * at);
        byte(0) | byte(len / 2) | byte(len - 1)
    } else {
        0
    }
}

#[allow(clippy::cast_possible_truncation)] // lengths were checked by `frame_len`
fn write_headers(out: &mut [u8], start: usize, headers: &[(&str, &[u8])]) -> usize {
    let mut at = start + HEADERS_PREFIX;
    for (name, value) in headers {
        out[at..at + 4].copy_from_slice(&(name.len() as u32).to_le_bytes());
        out[at + 4..at + 8].copy_from_slice(&(value.len() as u32).to_le_bytes());
        at += 8;
        out[at..at + name.len()].copy_from_slice(name.as_bytes());
        at += name.len();
        out[at..at + value.len()].copy_from_slice(value);
        at += value.len();
    }
    let bytes = (at - start - HEADERS_PREFIX) as u32;
    out[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&(headers.len() as u32).to_le_bytes());
    at
}

/// What a tag is XORed with in a chunk: a frame of another chunk, or of another place in this one, never
/// proves itself here.
#[inline]
pub(crate) fn mix(salt: u64, position: usize) -> u32 {
    let x =
        (salt ^ (position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    #[allow(clippy::cast_possible_truncation)]
    let folded = (x ^ (x >> 32)) as u32;
    folded
}

/// The first 8 bytes of a frame.
pub(crate) const fn commit_word(len: u32, tag: u32) -> u64 {
    (len as u64) | ((tag as u64) << 32)
}

/// One frame, read in place.
///
/// Made by [`FrameView::trusted`] over bytes that this process wrote, or by [`FrameView::parse`], which checks
/// every length first; after either no accessor can fail.
#[derive(Clone, Copy)]
pub(crate) struct FrameView<'a>(&'a [u8]);

impl<'a> FrameView<'a> {
    /// The frame that begins at `bytes[0]`, where `bytes` hold frames of our own writing.
    #[inline]
    pub(crate) fn trusted(bytes: &'a [u8]) -> Self {
        FrameView::split(bytes).0
    }

    /// The frame that begins at `bytes[0]`, if it can be one there by its length: what its header says can be read then,
    /// and nothing else of it.
    #[inline]
    pub(crate) fn header_of(bytes: &'a [u8]) -> Option<Self> {
        let len = u32_at(bytes.first_chunk::<FIXED>()?, 0) as usize;
        let view = FrameView(bytes.get(..len).filter(|frame| frame.len() >= FIXED && len.is_multiple_of(8))?);
        (view.flags() & flags::PRODUCER == 0 || len >= FIXED + PRODUCER_PART).then_some(view)
    }

    /// The frame that begins at `bytes[0]`, and what comes after it; else as [`FrameView::trusted`].
    #[inline]
    pub(crate) fn split(bytes: &'a [u8]) -> (Self, &'a [u8]) {
        let (frame, rest) = bytes.split_at(u32_at(bytes, 0) as usize);
        // Once, and not once more for every field.
        assert!(frame.len() >= FIXED, "no frame begins here");
        (FrameView(frame), rest)
    }

    /// The frame that begins at `bytes[0]`, its structure checked, its checksum not.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        if bytes.len() < FIXED {
            return Err(FrameError::Length(0));
        }
        let len32 = u32_at(bytes, 0);
        let len = len32 as usize;
        if len < FIXED || !len.is_multiple_of(8) || len > bytes.len() {
            return Err(FrameError::Length(len32));
        }
        let view = FrameView(&bytes[..len]);
        if view.flags() & !flags::KNOWN != 0 {
            return Err(FrameError::Flags(view.flags()));
        }
        let plain = view.flags() & (flags::PRODUCER | flags::HEADERS) == 0;
        let key_at = if plain { Some(FIXED) } else { view.check_key_at() };
        key_at.and_then(|at| view.check_parts(at)).ok_or(FrameError::Parts)?;
        Ok(view)
    }

    /// Whether key and value, from `key_at` on, fill the frame exactly.
    #[inline]
    fn check_parts(self, key_at: usize) -> Option<()> {
        let value_at = align8(key_at.checked_add(self.key_len())?);
        let end = align8(value_at.checked_add(self.value_len())?);
        let null_key = self.flags() & flags::KEY == 0 && self.key_len() != 0;
        let null_value = self.flags() & flags::VALUE == 0 && self.value_len() != 0;
        (end == self.0.len() && !null_key && !null_value).then_some(())
    }

    /// Where the key begins, if what few frames have before it lies inside the frame.
    #[cold]
    fn check_key_at(self) -> Option<usize> {
        let len = self.0.len();
        let mut at = FIXED;
        if self.flags() & flags::PRODUCER != 0 {
            at = at.checked_add(PRODUCER_PART)?;
        }
        if self.flags() & flags::HEADERS != 0 {
            let first = at.checked_add(HEADERS_PREFIX)?;
            if first > len {
                return None;
            }
            let (bytes, count) = (u32_at(self.0, at) as usize, u32_at(self.0, at + 4));
            let end = first.checked_add(bytes)?;
            if end > len {
                return None;
            }
            let mut h = first;
            for _ in 0..count {
                if end - h < 8 {
                    return None;
                }
                let (name, value) = (u32_at(self.0, h) as usize, u32_at(self.0, h + 4) as usize);
                let name_at = h + 8;
                let value_at = name_at.checked_add(name)?;
                let next = value_at.checked_add(value)?;
                if next > end || std::str::from_utf8(&self.0[name_at..value_at]).is_err() {
                    return None;
                }
                h = next;
            }
            if h != end {
                return None;
            }
            at = end;
        }
        Some(at)
    }

    /// Whether the frame's tag is its checksum XOR `mixed` (0 inside a block, [`mix`] in a chunk).
    #[inline]
    pub(crate) fn verify(self, mixed: u32) -> Result<(), FrameError> {
        if self.tag() == checksum_of(self.0) ^ mixed { Ok(()) } else { Err(FrameError::Checksum) }
    }

    /// All bytes of the frame.
    #[inline]
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(crate) fn tag(self) -> u32 {
        u32_at(self.0, 4)
    }

    #[inline]
    pub(crate) fn offset(self) -> u64 {
        u64_at(self.0, 8)
    }

    #[allow(clippy::cast_possible_wrap)] // stored as the bits of an i64
    #[inline]
    pub(crate) fn timestamp(self) -> Timestamp {
        Timestamp::from_nanos(u64_at(self.0, 16) as i64)
    }

    #[inline]
    pub(crate) fn flags(self) -> u8 {
        self.0[24]
    }

    #[inline]
    fn key_len(self) -> usize {
        (u32_at(self.0, 24) >> 8) as usize
    }

    #[inline]
    fn value_len(self) -> usize {
        u32_at(self.0, 28) as usize
    }

    /// Whether the append that this frame belongs to goes on.
    #[inline]
    pub(crate) fn more(self) -> bool {
        self.flags() & flags::MORE != 0
    }

    /// Whether a segment begins with this frame.
    pub(crate) fn first_of_segment(self) -> bool {
        self.flags() & flags::FIRST_OF_SEGMENT != 0
    }

    #[inline]
    pub(crate) fn producer(self) -> Option<ProducerPart> {
        (self.flags() & flags::PRODUCER != 0).then(|| {
            let last = u32_at(self.0, FIXED + 12);
            #[allow(clippy::cast_possible_truncation)]
            ProducerPart {
                id: u64_at(self.0, FIXED),
                sequence: u32_at(self.0, FIXED + 8),
                epoch: last as u16,
                attributes: (last >> 16) as u16,
            }
        })
    }

    /// Whether this is a transaction marker, which no consumer sees.
    #[inline]
    pub(crate) fn is_control(self) -> bool {
        self.producer().is_some_and(|p| p.attributes & attributes::CONTROL != 0)
    }

    fn headers_at(self) -> usize {
        if self.flags() & flags::PRODUCER == 0 { FIXED } else { FIXED + PRODUCER_PART }
    }

    #[inline]
    fn key_at(self) -> usize {
        if self.flags() & (flags::PRODUCER | flags::HEADERS) == 0 { FIXED } else { self.key_after_more() }
    }

    /// Where the key begins in the few frames that have something before it.
    #[cold]
    fn key_after_more(self) -> usize {
        let at = self.headers_at();
        if self.flags() & flags::HEADERS == 0 {
            at
        } else {
            at + HEADERS_PREFIX + u32_at(self.0, at) as usize
        }
    }

    #[inline]
    pub(crate) fn key(self) -> Option<&'a [u8]> {
        let at = self.key_at();
        (self.flags() & flags::KEY != 0).then(|| &self.0[at..at + self.key_len()])
    }

    #[inline]
    pub(crate) fn value(self) -> Option<&'a [u8]> {
        let at = align8(self.key_at() + self.key_len());
        (self.flags() & flags::VALUE != 0).then(|| &self.0[at..at + self.value_len()])
    }

    /// What a frame is made of beside its fixed header; `None` where its padding is not zeros.
    pub(crate) fn parts(self) -> Option<Parts<'a>> {
        let (key_at, key_len) = (self.key_at(), self.key_len());
        let key_end = key_at + key_len;
        let value_at = align8(key_end);
        let value_end = value_at + self.value_len();
        // The last bytes of the word that ends at `end`: a shift by all of its bits is none of them.
        let is_zero =
            |from: usize, end: usize| from == end || u64_at(self.0, end - 8) >> (64 - 8 * (end - from)) == 0;
        let is_ours = align8(value_end) == self.0.len()
            && is_zero(key_end, value_at)
            && is_zero(value_end, self.0.len());
        is_ours.then(|| Parts {
            extra: &self.0[FIXED..key_at],
            key: &self.0[key_at..key_end],
            value: &self.0[value_at..value_end],
        })
    }

    pub(crate) fn headers(self) -> HeaderIter<'a> {
        if self.flags() & flags::HEADERS == 0 {
            return HeaderIter { left: 0, bytes: &[] };
        }
        let at = self.headers_at();
        HeaderIter { left: u32_at(self.0, at + 4), bytes: &self.0[at + HEADERS_PREFIX..self.key_at()] }
    }
}

/// The parts of a frame that are not in its fixed header.
pub(crate) struct Parts<'a> {
    /// The producer part and the headers, as they stand.
    pub(crate) extra: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Headers of a frame, in order.
#[derive(Clone)]
pub(crate) struct HeaderIter<'a> {
    left: u32,
    bytes: &'a [u8],
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (name, value) = (u32_at(self.bytes, 0) as usize, u32_at(self.bytes, 4) as usize);
        let (item, rest) = self.bytes[8..].split_at(name + value);
        self.bytes = rest;
        // Frames of our own hold what came as `&str`; parsed ones were checked.
        let name_str = std::str::from_utf8(&item[..name]).unwrap_or_default();
        Some((name_str, &item[name..]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}

/// Writes a whole frame with a pure checksum, as it stands inside a block.
#[cfg(test)]
pub(crate) fn to_vec(record: &Record<'_>, offset: u64, timestamp: Timestamp, extra_flags: u8) -> Vec<u8> {
    let len = frame_len(record, false).expect("fits");
    let mut out = vec![0; len];
    let tag = write(&mut out, record, offset, timestamp, extra_flags, None);
    out[..8].copy_from_slice(&commit_word(u32::try_from(len).expect("fits"), tag).to_le_bytes());
    out
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
