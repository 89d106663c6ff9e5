//! The payload of a block in columns, so that a codec finds together what is alike.
//!
//! Frames of one block differ little from each other, but not byte by byte: a price moves by a tick, an offset
//! by one, and between them stands the same text. Turned on its side, the block shows that. What can be computed
//! is not stored at all: lengths of frames, their padding, and their checksums, which the block's own checksum
//! stands for and which are computed again when the frames are put back together.
//!
//! ```text
//!  count of frames
//!  flags        column of integers (see `ints`), of each frame
//!  gaps         column, of each offset to the one before, less one; the first is the offset itself
//!  timestamps   column
//!  extra        strings (see `strings`), producer part and headers; only if a flag says that there are some
//!  keys         strings
//!  values       strings
//! ```
//!
//! Pure functions: bytes in, bytes out. Who calls [`encode`] has verified the checksums of the frames.

mod ints;
mod lanes;
mod strings;
mod text;

use crate::bytes::{put, u64_at};
use crate::frame::{FIXED, FrameView, align8, checksum_of, commit_word, flags};

/// Why bytes are not columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("columns hold {0}")]
pub(crate) struct ColumnsError(&'static str);

/// Bytes being read, none of them believed.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    const SHORT: ColumnsError = ColumnsError("less than they say");

    fn byte(&mut self) -> Result<u8, ColumnsError> {
        let (byte, rest) = self.0.split_first().ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ColumnsError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ColumnsError> {
        let mut v = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            v |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(v);
            }
        }
        Err(ColumnsError("a number that never ends"))
    }

    fn len_up_to(&mut self, most: usize) -> Result<usize, ColumnsError> {
        match usize::try_from(self.varint()?) {
            Ok(len) if len <= most => Ok(len),
            _ => Err(ColumnsError("more of something than there may be")),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], ColumnsError> {
        let len = self.len_up_to(self.0.len())?;
        self.take(len)
    }
}

/// The frames of a block in columns; `None` where a frame is not as this version writes it.
pub(crate) fn encode(frames: &[u8]) -> Option<Vec<u8>> {
    let (mut flags_of, mut gaps, mut timestamps) = (Vec::new(), Vec::new(), Vec::new());
    let (mut extras, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (mut at, mut next) = (0, 0u64);
    while at < frames.len() {
        let frame = FrameView::trusted(&frames[at..]);
        let parts = frame.parts()?;
        flags_of.push(u64::from(frame.flags()));
        gaps.push(frame.offset().wrapping_sub(next));
        next = frame.offset().wrapping_add(1);
        timestamps.push(u64_at(frame.bytes(), 16));
        extras.push(parts.extra);
        keys.push(parts.key);
        values.push(parts.value);
        at += frame.len();
    }
    let mut out = Vec::with_capacity(frames.len() / 4);
    ints::put_varint(&mut out, flags_of.len() as u64);
    ints::encode(&flags_of, &mut out);
    ints::encode(&gaps, &mut out);
    ints::encode(&timestamps, &mut out);
    if extras.iter().any(|extra| !extra.is_empty()) {
        strings::encode(&extras, &mut out);
    }
    strings::encode(&keys, &mut out);
    strings::encode(&values, &mut out);
    Some(out)
}

/// Puts frames back together in `frames`, which is exactly as long as they are.
pub(crate) fn decode(bytes: &[u8], frames: &mut [u8]) -> Result<(), ColumnsError> {
    let mut input = Input(bytes);
    let rows = input.len_up_to(frames.len() / FIXED)?;
    let flags_of = ints::decode(&mut input, rows)?;
    let gaps = ints::decode(&mut input, rows)?;
    let timestamps = ints::decode(&mut input, rows)?;
    let most = frames.len();
    let has_extra = |flag: u64| flag & u64::from(flags::PRODUCER | flags::HEADERS) != 0;
    let extras = if flags_of.iter().any(|flag| has_extra(*flag)) {
        Some(strings::decode(&mut input, rows, most)?)
    } else {
        None
    };
    let keys = strings::decode(&mut input, rows, most)?;
    let values = strings::decode(&mut input, rows, most)?;
    if !input.0.is_empty() {
        return Err(ColumnsError("more than they say"));
    }
    let (mut at, mut next) = (0usize, 0u64);
    for row in 0..rows {
        let extra = extras.as_ref().map_or(&[][..], |extras| extras.get(row));
        let (key, value) = (keys.get(row), values.get(row));
        let key_at = FIXED + extra.len();
        let value_at = align8(key_at + key.len());
        let len = align8(value_at + value.len());
        let frame = at.checked_add(len).and_then(|end| frames.get_mut(at..end)).ok_or(Input::SHORT)?;
        let offset = next.wrapping_add(gaps[row]);
        next = offset.wrapping_add(1);
        let flag = u8::try_from(flags_of[row]).map_err(|_| ColumnsError("flags that are none"))?;
        let (Ok(len32), Ok(value_len), true) =
            (u32::try_from(len), u32::try_from(value.len()), key.len() <= crate::frame::MAX_KEY)
        else {
            return Err(ColumnsError("a frame that is too long"));
        };
        frame.fill(0);
        put(frame, 8, &offset.to_le_bytes());
        put(frame, 16, &timestamps[row].to_le_bytes());
        let lengths = (u64::from(value_len) << 32) | ((key.len() as u64) << 8) | u64::from(flag);
        put(frame, 24, &lengths.to_le_bytes());
        put(frame, FIXED, extra);
        put(frame, key_at, key);
        put(frame, value_at, value);
        put(frame, 0, &commit_word(len32, 0).to_le_bytes());
        let tag = checksum_of(frame);
        put(frame, 4, &tag.to_le_bytes());
        at += len;
    }
    if at == frames.len() { Ok(()) } else { Err(Input::SHORT) }
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
