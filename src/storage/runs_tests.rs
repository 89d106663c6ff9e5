//! What is found by one checksum over many frames is what each of them says for itself.

use crate::clock::Timestamp;
use crate::frame::{self, commit_word, flags};
use crate::record::Record;
use crate::storage::runs::*;
use crate::storage::staged::proved_frames;

const SALT: u64 = 0x0123_4567_89AB_CDEF;
const LOW: u64 = 500;

/// A slot of frames with values of these lengths; of those that are marked the append goes on with the next one.
fn slot(frames: &[(usize, bool)]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    for (offset, (len, more)) in (LOW..).zip(frames) {
        let more = if *more { flags::MORE } else { 0 };
        let value: Vec<u8> = (0..*len).map(|i| (i as u64 * 31 + offset) as u8).collect();
        let at = bytes.len();
        let mut frame = frame::to_vec(&Record::new(&value), offset, Timestamp::from_nanos(7), more);
        let tag = u32::from_le_bytes(frame[4..8].try_into().unwrap()) ^ mix(SALT, at);
        let word = commit_word(frame.len() as u32, tag);
        frame[..8].copy_from_slice(&word.to_le_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn each(bytes: &[u8]) -> Begun {
    Begun::new(LOW, HEADER).verify_each(proved_frames(bytes, SALT))
}

fn many(bytes: &[u8]) -> Option<Begun> {
    Begun::new(LOW, HEADER).verify_many(&mut bytes.to_vec(), SALT, &mut Verifier::default())
}

/// As it is, and with zeros behind it.
fn both_ends(mut bytes: Vec<u8>) -> [Vec<u8>; 2] {
    let bare = bytes.clone();
    bytes.extend([0; 64]);
    [bare, bytes]
}

#[test]
fn frames_that_are_whole_are_found_by_either_way() {
    let stretch = STRETCH;
    let slots: [&[(usize, bool)]; 7] = [
        &[],
        &[(0, false)],
        &[(0, true)],
        &[(100, false), (5, true), (9, true), (0, false), (3, true)],
        &[(stretch, false), (stretch - 32, false), (3 * stretch, true), (8, false), (stretch + 8, false)],
        &[(1000, false); 200],
        &[(40, true); 2000],
    ];
    for frames in slots {
        let whole = slot(frames);
        let appends = frames.iter().rposition(|(_, more)| !more).map_or(0, |last| last as u64 + 1);
        for bytes in both_ends(whole.clone()) {
            let found = many(&bytes).unwrap();
            assert_eq!(found, each(&bytes));
            assert_eq!((found.next, found.at), (LOW + frames.len() as u64, whole.len()));
            assert_eq!(found.run().map(|run| run.offsets), (appends > 0).then_some(LOW..LOW + appends));
        }
    }
}

/// Wherever a bit is wrong it says nothing, or what each frame says.
#[test]
fn one_checksum_never_says_more_than_each_frame() {
    let whole = slot(&[(20, false), (0, true), (13, false), (100, false), (1, false)]);
    for good in both_ends(whole) {
        let mut said = 0;
        for bit in 8 * HEADER..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let Some(found) = many(&bad) else { continue };
            assert_eq!(found, each(&bad), "bit {bit}");
            said += 1;
        }
        assert!(said > 0, "a frame that cannot be one ends it, as zeros do");
    }
}

#[test]
fn frames_of_another_slot_or_out_of_order_are_none() {
    let whole = slot(&[(20, false), (30, false)]);
    let moved = [&whole[..HEADER], &[0; 8], &whole[HEADER..]].concat();
    for (salt, low, place, bytes) in
        [(SALT ^ 1, LOW, HEADER, &whole), (SALT, LOW, HEADER + 8, &moved), (SALT, LOW + 1, HEADER, &whole)]
    {
        let found = Begun::new(low, place).verify_many(&mut bytes.clone(), salt, &mut Verifier::default());
        assert_eq!(found.and_then(|found| found.run()), None, "{salt:x}, {low}, {place}");
    }
    assert_eq!(many(&whole[..whole.len() - 8]).unwrap().next, LOW + 1, "the file ends within a frame");
}
