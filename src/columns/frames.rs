//! Frames into columns, and back.

use crate::bytes::{put, u64_at};
use crate::columns::input::{ColumnsError, Input};
use crate::columns::{ints, strings};
use crate::frame::{FIXED, FrameView, MAX_KEY, align8, checksum_of, commit_word, flags};

/// The frames of a block in columns; `None` where a frame is not as this version writes it.
pub(crate) fn encode(frames: &[u8]) -> Option<Vec<u8>> {
    // As many as there are if all are as long as the first.
    let about =
        frames.len() / frames.first_chunk().map_or(FIXED, |len| u32::from_le_bytes(*len) as usize) + 1;
    let ints = || Vec::with_capacity(about);
    let (mut flags_of, mut gaps, mut timestamps) = (ints(), ints(), ints());
    let parts = || Vec::with_capacity(about);
    let (mut extras, mut keys, mut values) = (Vec::new(), parts(), parts());
    let (mut at, mut next) = (0, 0u64);
    while at < frames.len() {
        let frame = FrameView::trusted(&frames[at..]);
        let parts = frame.parts()?;
        flags_of.push(u64::from(frame.flags()));
        gaps.push(frame.offset().wrapping_sub(next));
        next = frame.offset().wrapping_add(1);
        timestamps.push(u64_at(frame.bytes(), 16));
        if !parts.extra.is_empty() {
            extras.resize(keys.len(), &[][..]);
            extras.push(parts.extra);
        }
        keys.push(parts.key);
        values.push(parts.value);
        at += frame.len();
    }
    let mut out = Vec::with_capacity(frames.len() / 4);
    ints::put_varint(&mut out, flags_of.len() as u64);
    ints::encode(&flags_of, &mut out);
    ints::encode(&gaps, &mut out);
    ints::encode(&timestamps, &mut out);
    if !extras.is_empty() {
        extras.resize(keys.len(), &[][..]);
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
            (u32::try_from(len), u32::try_from(value.len()), key.len() <= MAX_KEY)
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
#[path = "frames_tests.rs"]
mod tests;
