//! Tests of frames: what goes in comes out, and what is no frame is told from one.

use crate::frame::*;

#[test]
fn plain_record_costs_32_bytes() {
    let record = Record::new(&[7u8; 100]).key(b"12345678");
    assert_eq!(frame_len(&record, false), Some(32 + 8 + 104));
    assert_eq!(frame_len(&Record::default(), false), Some(32));
}

#[test]
fn round_trip_of_every_part() {
    let headers: &[(&str, &[u8])] = &[("a", b"1"), ("a", b""), ("", b"xyz")];
    let producer = ProducerPart { id: 9, epoch: 3, sequence: u32::MAX, attributes: attributes::CONTROL };
    for key in [None, Some(&b""[..]), Some(b"k"), Some(b"12345678")] {
        for value in [None, Some(&b""[..]), Some(b"v"), Some(&[9; 100])] {
            for headers in [&[][..], headers] {
                for producer in [None, Some(producer)] {
                    let record = Record { key, value, headers, ..Record::default() };
                    let len = frame_len(&record, producer.is_some()).unwrap();
                    let mut out = vec![0xEE; len];
                    let tag = write(&mut out, &record, 77, Timestamp::from_nanos(-5), flags::MORE, producer);
                    let word = commit_word(u32::try_from(len).unwrap(), tag);
                    out[..8].copy_from_slice(&word.to_le_bytes());
                    let view = FrameView::parse(&out).unwrap();
                    view.verify(0).unwrap();
                    assert_eq!(view.len(), FrameView::trusted(&out).len());
                    assert_eq!((view.key(), view.value(), view.producer()), (key, value, producer));
                    assert_eq!(view.headers().collect::<Vec<_>>(), headers);
                    assert_eq!((view.offset(), view.timestamp().as_nanos()), (77, -5));
                    assert!(view.more() && !view.first_of_segment());
                    assert_eq!(view.is_control(), producer.is_some());
                    if let Some(value) = view.value() {
                        let at = value.as_ptr() as usize - out.as_ptr() as usize;
                        assert_eq!(at % 8, 0, "values start 8-aligned");
                    }
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed_or_refused() {
    let record = Record::new("value").key("key").headers(&[("h", b"x")]);
    let good = to_vec(&record, 5, Timestamp::from_nanos(1), 0);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let seen = FrameView::parse(&bad).and_then(|f| f.verify(0));
        assert!(seen.is_err(), "bit {bit}");
    }
}

#[test]
fn no_bytes_make_parse_panic() {
    let record = Record::new("value").key("key").headers(&[("h", b"x")]);
    let good = to_vec(&record, 5, Timestamp::from_nanos(1), 0);
    for cut in 0..good.len() {
        assert!(FrameView::parse(&good[..cut]).is_err());
    }
    let mut state = 1u64;
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % bad.len();
            bad[at] = (state >> 56) as u8;
        }
        if let Ok(view) = FrameView::parse(&bad) {
            let _ = (view.key(), view.value(), view.headers().count(), view.producer());
        }
    }
}

#[test]
fn a_frame_proves_its_place() {
    assert_ne!(mix(1, 128), mix(2, 128));
    assert_ne!(mix(1, 128), mix(1, 136));
}
