//! The small things that everything else stands on, whatever their bytes, with their checksums made right: the root file, header,
//! index and trailer of a segment, its name, the header of a slot.
#![no_main]
#![allow(dead_code, unexpected_cfgs, unreachable_pub)] // of the library only what this needs

include!("floor.rs");

#[path = "../../../src/segment/format.rs"]
mod format;
#[path = "../../../src/segment/index.rs"]
mod index;
#[path = "../../../src/log/root.rs"]
mod root;
#[path = "../../../src/storage/slot.rs"]
mod slot;
/// Where the library has them.
mod segment {
    pub(crate) use crate::{format, index};
}

use libfuzzer_sys::fuzz_target;
use root::RootFile;
use segment::format::{HEADER, SegmentMeta, TRAILER, Trailer, parse_file_name};
use segment::index::{ENTRY, Index};
use slot::SlotHeader;

/// Makes the checksum of `bytes` right, which stands in their last four.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
}

fn root_file(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 16 {
        let len = bytes.len() as u32;
        bytes[..8].copy_from_slice(b"TAPELOG\0");
        bytes[12..16].copy_from_slice(&len.to_le_bytes());
        seal(&mut bytes);
    }
    if let Ok(said) = RootFile::decode(&bytes) {
        assert_eq!(RootFile::decode(&said.encode()).expect("what this version writes"), said);
        let _ = root::choose(Ok(said.clone()), Ok(said));
    }
}

/// A header, entries of an index, a trailer.
fn segment_file(bytes: &[u8]) {
    let Some((mut header, rest)) = bytes.split_first_chunk::<HEADER>().map(|(h, rest)| (*h, rest)) else {
        return;
    };
    header[..8].copy_from_slice(b"TLS1\x01\0\0\0");
    seal(&mut header);
    let Ok(meta) = SegmentMeta::decode(&header) else { return };
    assert_eq!(SegmentMeta::decode(&meta.encode()), Ok(meta));
    assert_eq!(parse_file_name(&meta.file_name()), Some((meta.base_offset, meta.generation)));
    let Some((index, trailer)) = rest.split_last_chunk::<TRAILER>() else { return };
    let mut trailer = *trailer;
    trailer[..8].copy_from_slice(b"TLE1\x01\0\0\0");
    trailer[8..16].copy_from_slice(&meta.salt.to_le_bytes());
    trailer[48..52].copy_from_slice(&((index.len() / ENTRY) as u32).to_le_bytes());
    trailer[52..56].copy_from_slice(&crc32fast::hash(index).to_le_bytes());
    seal(&mut trailer);
    let position = bytes::u64_at(&trailer, 16);
    let Some(len) = position.checked_add((index.len() / ENTRY * ENTRY + TRAILER) as u64) else { return };
    let Some(trailer) = Trailer::decode(&trailer, &meta, len, ENTRY as u64) else { return };
    let Some(mut index) = Index::decode(index, meta.base_offset, &trailer) else { return };
    for entry in index.entries() {
        let (_, position) = index.lookup(entry.offset);
        assert_eq!(position, entry.position);
        let _ = (index.lookup_time(entry.max_timestamp), index.before(position), index.stretch_end(position));
    }
    let _ = index.epochs();
    let footer = index.encode(meta.salt, trailer.end).expect("what was read");
    assert_eq!(footer[..footer.len() - TRAILER].len(), index.entries().len() * ENTRY);
    index.truncate(position / 2, None);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => root_file(bytes),
        1 => segment_file(bytes),
        2 => {
            if let Some((base, generation)) = std::str::from_utf8(bytes).ok().and_then(parse_file_name) {
                assert_eq!(format!("{base:020}-{generation:06}.log").as_bytes(), bytes);
            }
        }
        _ => {
            let _ = (SlotHeader::parse(bytes, 7, 4096), slot::is_damaged(bytes, 7, 4096));
            let words = |at: usize| bytes.get(at..at + 8).map_or(1, |word| bytes::u64_at(word, 0));
            let header = SlotHeader {
                len: words(0) as u32,
                topic_id: words(8),
                partition: words(16) as u32,
                epoch: words(24) as u32,
                base_offset: words(32),
                incarnation: words(40),
                salt: words(48),
            };
            let written = header.encode(7, 4096);
            assert!(!slot::is_damaged(&written, 7, 4096));
            assert!(SlotHeader::parse(&written, 8, 4096).is_none(), "a slot of another file");
            if let Some(read) = SlotHeader::parse(&written, 7, 4096) {
                assert_eq!(read.encode(7, 4096), written);
            }
        }
    }
});
