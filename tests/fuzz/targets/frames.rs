//! Frames, whatever the bytes: one after another as in a block, and as the hot tail leaves them.
#![no_main]
#![allow(dead_code, unexpected_cfgs, unreachable_pub)] // of the library only what this needs

include!("floor.rs");

use frame::FrameView;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(frame) = FrameView::parse(rest) {
        std::hint::black_box(read(frame));
        let _ = (frame.verify(0), frame.verify(frame::mix(7, bytes.len() - rest.len())));
        assert_eq!((frame.bytes().len(), frame.len() % 8), (frame.len(), 0));
        rest = &rest[frame.len()..];
    }
    if let Some(frame) = FrameView::header_of(bytes) {
        std::hint::black_box((frame.offset(), frame.timestamp(), frame.producer(), frame.is_control()));
    }
});
