//! Tests of gathering: what is verified, and where a block ends.

use crate::block_builder::*;
use crate::bytes::put;
use crate::frame::{commit_word, flags, frame_len, mix, write};
use crate::record::Record;

const SALT: u64 = 77;
/// Where the first frame stands in its chunk.
const AT: usize = 64;
const PLACE: BlockPlace =
    BlockPlace { topic_id: 7, partition: 3, epoch: 2, salt: 99, position: 4096, durable_mark: 64 };

/// Appends of so many records each, as they stand in a chunk; each value is `len` bytes long.
fn appends(sizes: &[usize], len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let value = vec![5; len];
    let record = Record::new(&value);
    let len = frame_len(&record, false).unwrap();
    for size in sizes {
        for left in (0..*size).rev() {
            let at = bytes.len();
            bytes.resize(at + len, 0);
            let more = if left > 0 { flags::MORE } else { 0 };
            let offset = (at / len) as u64;
            let tag = write(&mut bytes[at..], &record, offset, Timestamp::from_nanos(1), more, None);
            put(&mut bytes, at, &commit_word(len as u32, tag ^ mix(SALT, AT + at)).to_le_bytes());
        }
    }
    bytes
}

fn gather(builder: &mut BlockBuilder, bytes: &[u8], from: usize) -> Result<usize, Error> {
    builder.gather(&bytes[from..], |at| mix(SALT, AT + from + at))
}

/// How many records each block gets, and whether it continues; every frame in them must prove itself.
fn blocks(bytes: &[u8]) -> Vec<(u32, bool)> {
    let (mut builder, mut at, mut found) = (BlockBuilder::default(), 0, Vec::new());
    while at < bytes.len() || !builder.is_empty() {
        at += gather(&mut builder, bytes, at).unwrap();
        if !builder.is_full() && at < bytes.len() {
            panic!("stopped at {at} for no reason");
        }
        let block = builder.take(PLACE, Compression::None).unwrap();
        let mut rest = &block.bytes[HEADER..];
        for offset in block.header.base_offset..=block.header.last_offset {
            let frame = FrameView::parse(rest).unwrap();
            frame.verify(0).unwrap();
            assert_eq!(frame.offset(), offset);
            rest = &rest[frame.len()..];
        }
        assert!(rest.is_empty());
        found.push((block.header.count, block.header.continues()));
    }
    found
}

#[test]
fn a_block_is_filled_and_no_frame_is_split() {
    // 1,008 bytes each: 65 fit, in several stretches.
    assert_eq!(blocks(&appends(&[1; 100], 976)), [(65, false), (35, false)]);
    assert_eq!(blocks(&appends(&[1; 64], 992)), [(64, false)], "to the last byte");
}

#[test]
fn an_append_that_does_not_fit_begins_a_block() {
    assert_eq!(blocks(&appends(&[40, 30, 30], 976)), [(40, false), (60, false)]);
    // Longer than a block: a run that holds nothing before it, and the next appends after it.
    assert_eq!(blocks(&appends(&[1, 70, 2], 976)), [(1, false), (65, true), (7, false)]);
    assert_eq!(blocks(&appends(&[65, 1], 976)), [(65, false), (1, false)]);
    assert_eq!(blocks(&appends(&[1, 2], 100_000)), [(1, false), (1, true), (1, false)], "longer frames");
}

#[test]
fn a_block_goes_on_with_what_comes_later() {
    let bytes = appends(&[1, 2, 1], 8);
    let mut builder = BlockBuilder::default();
    for (from, to) in [(0, 40), (40, 120), (120, 160)] {
        assert_eq!(gather(&mut builder, &bytes[..to], from).unwrap(), to - from);
        assert!(!builder.is_full());
    }
    assert_eq!(builder.take(PLACE, Compression::None).unwrap().header.count, 4);
}

/// A bit that fell over in memory must not reach a file under a fresh checksum.
#[test]
fn a_frame_that_changed_is_named_and_nothing_is_taken() {
    let good = appends(&[1, 3, 1], 8);
    let mut builder = BlockBuilder::default();
    assert_eq!(gather(&mut builder, &good[..40], 0).unwrap(), 40);
    for bit in 40 * 8..good.len() * 8 {
        let (frame, byte) = (bit / 8 / 40, bit / 8 % 40);
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // A length that changed leads elsewhere, and a flag may; of these below.
        if byte >= 4 && byte != 24 {
            let error = gather(&mut builder, &bad, 40).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CorruptRecord);
            let is_named = error.offset() == Some(frame as u64);
            assert_eq!(is_named, !(8..16).contains(&byte), "bit {bit}: {error:?}");
            assert_eq!((builder.len(), builder.next_offset()), (40, Some(1)), "bit {bit}");
        }
    }
    assert_eq!(gather(&mut builder, &good, 40).unwrap(), 160);
}

/// Where what changed is what says how far a frame goes, or what it begins, the frames before it are taken, and it is refused.
#[test]
fn a_length_or_a_flag_that_changed_ends_what_is_taken() {
    let good = appends(&[1, 1], 8);
    let lens = [0u32, 8, 24, 36, 80, 120, u32::MAX].map(|len| (40, len.to_le_bytes()));
    let flags = [0, 1, 2, 3, 4, 5, 6, 7].map(|bit| {
        let mut word = *good[64..].first_chunk().unwrap();
        word[0] ^= 1 << bit;
        (64, word)
    });
    for (at, word) in lens.into_iter().chain(flags) {
        let (mut bad, mut builder) = (good.clone(), BlockBuilder::default());
        put(&mut bad, at, &word);
        if let Ok(taken) = gather(&mut builder, &bad, 0) {
            assert_eq!((taken, builder.is_full()), (40, true), "{at}: {word:?}");
            assert_eq!(builder.take(PLACE, Compression::None).unwrap().header.count, 1);
            assert!(gather(&mut builder, &bad, 40).is_err(), "{at}: {word:?}");
        }
    }
}

#[test]
fn a_frame_of_another_place_is_refused() {
    let bytes = appends(&[1, 1, 1], 8);
    let mut builder = BlockBuilder::default();
    let moved = builder.gather(&bytes[40..], |at| mix(SALT, AT + at));
    assert_eq!(moved.unwrap_err().offset(), Some(1));
    assert!(builder.gather(&bytes, |at| mix(SALT + 1, AT + at)).is_err());
    assert_eq!(gather(&mut builder, &bytes, 0).unwrap(), 120);
}
