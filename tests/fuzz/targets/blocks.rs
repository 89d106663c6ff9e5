//! A block, whatever its bytes, with its checksums made right: its header, its codec, its columns, its frames.
#![no_main]
#![allow(dead_code, unexpected_cfgs, unreachable_pub)] // of the library only what this needs

include!("floor.rs");

use std::cell::LazyCell;

use block::{AlignedBuf, BlockHeader, DecodedBlock, HEADER};
use codec::Codecs;
use frame::FrameView;
use libfuzzer_sys::fuzz_target;

/// What claims more is what bombs are for: here it would only take time.
const MOST: usize = 1 << 16;

thread_local! {
    static CODECS: LazyCell<Codecs> = LazyCell::new(Codecs::default);
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() < HEADER {
        return;
    }
    let mut stored = AlignedBuf::zeroed(bytes.len());
    let block = stored.as_mut_slice();
    block.copy_from_slice(bytes);
    let (head, payload) = block.split_at_mut(HEADER);
    head[..5].copy_from_slice(b"TLB1\x01");
    head[96..100].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[148..152].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let crc = crc32fast::hash(&head[..156]);
    head[156..160].copy_from_slice(&crc.to_le_bytes());
    let head: &[u8; HEADER] = head.first_chunk().expect("long enough");
    let Ok(header) = BlockHeader::parse_anywhere(head) else { return };
    let end = header.end_position();
    assert!(end > header.position && end.is_multiple_of(8));
    std::hint::black_box((header.continues(), header.max_timestamp_offset()));
    let mut written = [0; HEADER];
    header.write(&mut written);
    assert!(BlockHeader::parse_anywhere(&written).is_ok(), "a header that was read cannot be read again");
    if header.raw_len as usize > MOST {
        return;
    }
    let Ok(decoded) = CODECS.with(|codecs| DecodedBlock::decode(header, stored, codecs)) else { return };
    let (mut rest, mut sound) = (decoded.frames(), true);
    while !rest.is_empty() {
        let (frame, behind) = FrameView::split(rest);
        std::hint::black_box(read(frame));
        sound &= frame.verify(0).is_ok() && frame.parts().is_some();
        rest = behind;
    }
    assert!(decoded.records() <= decoded.header().count as usize);
    if let (true, Some(columns)) = (sound, columns::encode(decoded.frames())) {
        let mut back = vec![0xA5; decoded.frames().len()];
        columns::decode(&columns, &mut back).expect("columns as this version writes them");
        assert!(back == decoded.frames(), "other records come back");
    }
});
