//! Records into columns and back, which must be the same; and then columns of which some bytes were changed.
#![no_main]
#![allow(dead_code, unexpected_cfgs, unreachable_pub)] // of the library only what this needs

include!("floor.rs");

use clock::Timestamp;
use frame::{FrameView, commit_word};
use libfuzzer_sys::fuzz_target;
use record::Record;

/// Bytes that are taken one after another, and zeros where they end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// As many records as the input has, as frames.
fn frames(mut input: Input<'_>) -> Vec<u8> {
    let (mut frames, mut offset, mut time) = (Vec::new(), 0u64, 0i64);
    while !input.0.is_empty() {
        let shape = input.byte();
        let (key, value) = (usize::from(shape & 7), usize::from(input.byte() % 64));
        let (key, value) = (input.take(key), input.take(value));
        offset += u64::from(input.byte() % 4);
        time = time.wrapping_add(i64::from(input.byte() as i8) << (shape & 48));
        let headers = [("h", key)];
        let mut record = Record::default();
        record.key = (shape & 8 != 0).then_some(key);
        record.value = (shape & 128 == 0).then_some(value);
        record.headers = if shape & 64 == 0 { &[] } else { &headers };
        let Some(len) = frame::frame_len(&record, false) else { return frames };
        let at = frames.len();
        frames.resize(at + len, 0);
        let tag = frame::write(&mut frames[at..], &record, offset, Timestamp::from_nanos(time), 0, None);
        let word = commit_word(len as u32, tag);
        frames[at..at + 8].copy_from_slice(&word.to_le_bytes());
        offset += 1;
    }
    frames
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let changes = usize::from(input.byte() % 5);
    let changes = input.take(4 * changes);
    let frames = frames(input);
    let mut columns = columns::encode(&frames).expect("frames as this version writes them");
    let mut back = vec![0xA5; frames.len()];
    columns::decode(&columns, &mut back).expect("columns as this version writes them");
    assert!(back == frames, "other records come back");
    for change in changes.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % columns.len();
        match change[2] % 4 {
            0 => columns[at] ^= 1 << (change[3] % 8),
            1 => columns[at] = change[3],
            2 => columns.insert(at, change[3]),
            _ if columns.len() > 1 => drop(columns.remove(at)),
            _ => {}
        }
    }
    if columns::decode(&columns, &mut back).is_ok() {
        let mut rest = &back[..];
        while let Ok(frame) = FrameView::parse(rest) {
            std::hint::black_box(read(frame));
            rest = &rest[frame.len()..];
        }
    }
});
