//! Tests of draining: what is verified, and how far an append reaches.

use crate::clock::Timestamp;
use crate::frame::{commit_word, flags, frame_len, write};
use crate::partition::drain::*;
use crate::record::Record;

const SALT: u64 = 77;

/// Appends of so many records each, as they stand in a chunk; each frame is 40 bytes long.
fn appends(sizes: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let record = Record::new("12345678");
    for size in sizes {
        for left in (0..*size).rev() {
            let (at, len) = (bytes.len(), frame_len(&record, false).unwrap());
            bytes.resize(at + len, 0);
            let more = if left > 0 { flags::MORE } else { 0 };
            let offset = (at / len) as u64;
            let tag = write(&mut bytes[at..], &record, offset, Timestamp::from_nanos(1), more, None);
            let word = commit_word(len as u32, tag ^ mix(SALT, FRAMES_AT + at));
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}

/// Only as far as it matters is an append looked through: an append of 8 MiB is not read twice to learn that it
/// needs blocks of its own.
#[test]
fn an_append_is_verified_to_its_end_or_to_where_it_is_too_long() {
    let bytes = appends(&[3, 1, 2]);
    let len =
        |first: usize, most| verify_append(&bytes[first * 40..], SALT, FRAMES_AT + first * 40, most).unwrap();
    assert_eq!([len(0, usize::MAX), len(3, usize::MAX), len(4, usize::MAX)], [120, 40, 80]);
    assert_eq!([len(0, 120), len(0, 119), len(0, 80), len(0, 79), len(0, 0)], [120, 120, 120, 80, 40]);
    assert_eq!(verify_append(&bytes[..80], SALT, FRAMES_AT, usize::MAX).unwrap(), 80);
}

#[test]
fn a_frame_that_changed_in_the_middle_of_an_append_is_named() {
    let mut bytes = appends(&[3, 1]);
    bytes[40 + 35] ^= 1;
    let error = verify_append(&bytes, SALT, FRAMES_AT, usize::MAX).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::CorruptRecord, Some(1)));
    assert_eq!(verify_append(&bytes, SALT, FRAMES_AT, 0).unwrap(), 40, "what comes before it is whole");
    assert_eq!(verify_append(&bytes[120..], SALT, FRAMES_AT + 120, 0).unwrap(), 40);
    assert!(verify_append(&bytes[120..], SALT, FRAMES_AT, 0).is_err(), "of another place");
}
