//! Segments written, read, damaged and looked through.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::block;
use crate::codec::Codecs;
use crate::error::ErrorKind;
use crate::segment::bench::{
    Bench, CLEAN, DOUBTFUL, SEGMENT_BYTES, block_at, fill, folder, meta, offsets, ts,
};
use crate::segment::chain::{Chain, ColdCursor};
use crate::segment::format::HEADER;
use crate::segment::reader::Segment;
use crate::segment::scan::{SegmentScanOptions, is_unborn};
use crate::segment::writer::SegmentWriter;
use crate::storage::fault::Op;

#[test]
fn round_trip_while_written_continued_and_sealed() {
    let bench = Bench::new();
    let mut writer = bench.writer(10);
    let active = Arc::clone(writer.segment());
    assert_eq!((active.next_offset(), active.written(), active.max_timestamp()), (10, 64, None));
    assert_eq!(active.find(10).unwrap(), None);
    let first = fill(&mut writer, 10, 50);
    assert_eq!(offsets(&active), (10..60).collect::<Vec<_>>());
    assert_eq!(bench.raw(10).metadata().unwrap().len(), 16 << 10, "one extent");
    assert_eq!((active.flushed(), active.flush().unwrap()), (0, active.written()));
    assert_eq!(bench.plan.count(Op::Sync), 1);
    drop((writer, active));

    let scan = bench.scan(10, DOUBTFUL).unwrap();
    assert!(!scan.sealed && scan.tail_is_zero && scan.torn.is_none() && scan.damaged.is_empty());
    assert_eq!((scan.end.next_offset, scan.end.max_timestamp), (60, Some((ts(59), 59))));
    assert_eq!((scan.complete, scan.epochs.clone()), (scan.end, vec![(1, 10)]));
    let mut writer = SegmentWriter::continue_at(&bench.directory, folder(), &scan, SEGMENT_BYTES).unwrap();
    assert_eq!(writer.position(), first[49].header.end_position());
    fill(&mut writer, 60, 40);
    let end = writer.segment().end();
    writer.seal().unwrap();
    writer.seal().unwrap();
    assert_eq!(writer.append_one(&first[0]).unwrap_err().kind(), ErrorKind::IllegalState);

    for options in [CLEAN, DOUBTFUL] {
        let scan = bench.scan(10, options).unwrap();
        assert!(scan.sealed && scan.damaged.is_empty() && scan.torn.is_none());
        assert_eq!((scan.end, scan.index.is_some()), (end, options.floor == 0));
        let segment = Segment::open(&bench.directory, folder(), &scan).unwrap();
        assert_eq!(offsets(&segment), (10..100).collect::<Vec<_>>());
        assert_eq!(segment.epochs().unwrap(), [(1, 10)]);
        for offset in 0..100 {
            let at = segment.find(offset).unwrap().unwrap();
            let (block, _) = segment.read(at, &Codecs::default()).unwrap().unwrap();
            assert_eq!(block.header().base_offset, offset.max(10));
            assert_eq!(segment.find_time(ts(offset)).unwrap(), Some(at));
        }
        assert_eq!((segment.find(100).unwrap(), segment.find_time(ts(100)).unwrap()), (None, None));
    }

    // Sealed, and continued nevertheless: the footer goes.
    let scan = bench.scan(10, CLEAN).unwrap();
    let mut writer = SegmentWriter::continue_at(&bench.directory, folder(), &scan, SEGMENT_BYTES).unwrap();
    fill(&mut writer, 100, 1);
    writer.trim().unwrap();
    assert_eq!(bench.raw(10).metadata().unwrap().len(), writer.position());
    assert_eq!(offsets(&bench.open(10, DOUBTFUL)).len(), 91);
}

#[test]
fn big_blocks_and_holes_between_offsets() {
    let bench = Bench::new();
    let mut writer = bench.writer(0);
    for offsets in [[50, 51], [60, 61]] {
        let block = block_at(&writer, &offsets, 150_000, 0, false);
        writer.append_one(&block).unwrap();
    }
    let segment = writer.segment();
    let second = segment.find(60).unwrap().unwrap();
    assert_eq!(segment.find(55).unwrap(), Some(second), "the first after a hole");
    assert_eq!(segment.find(0).unwrap(), Some(64));
    let (block, next) = segment.read(second, &Codecs::default()).unwrap().unwrap();
    assert_eq!((block.frames().len() > 300_000, next), (true, segment.written()));
    let misplaced = block_at(&writer, &[61], 1, 0, false);
    assert_eq!(writer.append_one(&misplaced).unwrap_err().kind(), ErrorKind::IllegalState);
}

/// Kafka's LogSegmentTest: an index full of noise must cost time and nothing else.
#[test]
fn t_25_l_39_an_index_of_noise_is_made_anew() {
    for lie in [false, true] {
        let bench = Bench::new();
        bench.sealed(0, 100);
        let scan = bench.scan(0, CLEAN).unwrap();
        let raw = bench.raw(0);
        let at = scan.end.position;
        let entries = (scan.file_len - at - 64) as usize;
        assert!(entries > 2 * 32);
        if lie {
            // Entries in order and inside, under good checksums, and all of them wrong.
            let mut index = crate::segment::index::Index::new(0);
            for i in 0..entries as u64 / 32 {
                index.append(i * 7, 64 + 8 * i, ts(i * 7), i as u32).unwrap();
            }
            raw.write_all_at(&index.encode(scan.meta.salt, scan.end).unwrap(), at).unwrap();
        } else {
            raw.write_all_at(&vec![0x5A; entries], at).unwrap();
        }
        for i in 0..100 {
            let segment = bench.open(0, CLEAN); // each with an index of its own
            assert_eq!(offsets(&segment).len(), 100);
            let at = segment.find(i).unwrap().unwrap();
            let (block, _) = segment.read(at, &Codecs::default()).unwrap().unwrap();
            assert_eq!(block.header().base_offset, i);
            assert_eq!(segment.find_time(ts(i)).unwrap(), Some(at), "time {i}, lie {lie}");
        }
    }
}

#[test]
fn l_41_a_damaged_block_is_the_same_error_until_it_is_skipped() {
    let bench = Bench::new();
    let blocks = bench.sealed(0, 5);
    let bad = blocks[1].header.position;
    for (at, with_header) in [(bad + block::HEADER as u64 + 9, true), (bad + 50, false)] {
        bench.raw(0).write_all_at(&[0xFF], at).unwrap();
        let segment = bench.open(0, CLEAN);
        let chain = Chain::new(vec![Arc::clone(&segment)]);
        let mut cursor = chain.seek(0).unwrap().unwrap();
        let codecs = Codecs::default();
        assert!(chain.next(&mut cursor, &codecs).unwrap().is_some());
        for _ in 0..2 {
            let error = chain.next(&mut cursor, &codecs).map(drop).unwrap_err();
            assert_eq!((error.kind(), error.position()), (ErrorKind::CorruptRecord, Some(bad)));
            assert_eq!((error.path(), error.offset()), (Some(segment.path()), with_header.then_some(1)));
        }
        assert_eq!(segment.find(1).unwrap(), Some(bad), "damage is not passed over");
        assert_eq!(segment.find(2).unwrap(), Some(blocks[2].header.position));
        assert_eq!(segment.find_time(ts(2)).unwrap(), Some(blocks[2].header.position));
        assert!(chain.skip(&mut cursor).unwrap());
        assert_eq!(chain.next(&mut cursor, &codecs).unwrap().unwrap().header().base_offset, 2);

        // The scan tells the same: corruption, and everything after it kept.
        let scan = bench.scan(0, SegmentScanOptions { verify_last: u64::MAX, ..CLEAN }).unwrap();
        assert!(scan.sealed && scan.torn.is_none());
        assert_eq!((scan.damaged.len(), scan.end.next_offset), (1, 5));
        let d = scan.damaged[0];
        assert_eq!((d.from, d.to, d.below_floor), (bad, blocks[2].header.position, true));
        assert_eq!((d.header.is_some(), d.next.is_some()), (with_header, !with_header));
    }
}

#[test]
fn above_the_floor_the_log_ends_at_the_first_torn_place() {
    let bench = Bench::new();
    let mut writer = bench.writer(0);
    let blocks = fill(&mut writer, 0, 5);
    let bad = blocks[2].header.position;
    bench.raw(0).write_all_at(&[0; 200], bad).unwrap();
    let scan = bench.scan(0, DOUBTFUL).unwrap();
    assert_eq!((scan.end.position, scan.end.next_offset, scan.tail_is_zero), (bad, 2, false));
    let torn = scan.torn.unwrap();
    assert_eq!((torn.from, torn.to, torn.below_floor), (bad, blocks[3].header.position, false));
    assert_eq!(torn.next.unwrap().base_offset, 3);
    // A later mark says that it had been flushed: then it is corruption, and what follows is kept.
    let late = block_at(&writer, &[5], 10, blocks[3].header.position, false);
    writer.append_one(&late).unwrap();
    let scan = bench.scan(0, DOUBTFUL).unwrap();
    assert_eq!((scan.floor, scan.durable_mark), (torn.to, torn.to));
    assert_eq!((scan.end.next_offset, scan.damaged.len(), scan.torn), (6, 1, None));
    assert!(scan.tail_is_zero);
    let scan = bench.scan(0, SegmentScanOptions { believe_marks: false, ..DOUBTFUL }).unwrap();
    assert_eq!((scan.floor, scan.end.next_offset), (0, 2));
    // Damage across the floor: up to it corruption, from it on torn.
    let floor = bad + 8;
    let scan = bench.scan(0, SegmentScanOptions { floor, believe_marks: false, ..DOUBTFUL }).unwrap();
    assert_eq!((scan.damaged[0].from, scan.damaged[0].to, scan.end.position), (bad, floor, floor));
    assert_eq!(scan.torn.unwrap().from, floor);
    // Zeros below the floor are no end either.
    let floor = late.header.end_position() + 800;
    let scan = bench.scan(0, SegmentScanOptions { floor, ..DOUBTFUL }).unwrap();
    assert_eq!((scan.end.position, scan.end.next_offset, scan.damaged.len()), (floor, 6, 2));
    let mut writer = SegmentWriter::continue_at(&bench.directory, folder(), &scan, SEGMENT_BYTES).unwrap();
    fill(&mut writer, 9, 1);
    let segment = writer.segment();
    let damage = segment.find(7).unwrap().unwrap();
    assert!(segment.read(damage, &Codecs::default()).is_err());
    assert_eq!(segment.skip(damage).unwrap(), Some(floor));
    assert_eq!(segment.find(9).unwrap(), Some(floor));
}

#[test]
fn an_unfinished_append_is_a_fact_and_can_be_dropped() {
    let bench = Bench::new();
    let mut writer = bench.writer(0);
    fill(&mut writer, 0, 2);
    let complete = writer.segment().end();
    for offset in [2, 3] {
        let part = block_at(&writer, &[offset], 5_000, 0, true);
        writer.append_one(&part).unwrap();
    }
    let mut scan = bench.scan(0, DOUBTFUL).unwrap();
    assert!(scan.is_unfinished());
    assert_eq!((scan.end.next_offset, scan.complete), (4, complete));
    scan.drop_unfinished();
    assert_eq!((scan.end, scan.is_unfinished(), scan.tail_is_zero), (complete, false, false));
    let mut writer = SegmentWriter::continue_at(&bench.directory, folder(), &scan, SEGMENT_BYTES).unwrap();
    fill(&mut writer, 2, 3);
    assert_eq!(offsets(writer.segment()), [0, 1, 2, 3, 4]);
}

#[test]
fn truncated_at_every_length_or_flipped_anywhere_never_panics_and_never_lies() {
    let bench = Bench::new();
    let blocks = bench.sealed(0, 3);
    let raw = bench.raw(0);
    let whole = std::fs::read(bench.directory.root().join(folder()).join(meta(0).file_name())).unwrap();
    let look = |options: SegmentScanOptions| {
        let Ok(scan) = bench.scan(0, options) else { return None };
        let segment = Segment::open(&bench.directory, folder(), &scan).unwrap();
        let _ = (segment.find(1), segment.find_time(ts(2)), segment.epochs());
        let mut cursor = ColdCursor { segment, position: HEADER as u64 };
        let (chain, mut seen) = (Chain::new(vec![Arc::clone(&cursor.segment)]), Vec::new());
        loop {
            match chain.next(&mut cursor, &Codecs::default()) {
                Ok(Some(block)) => {
                    let original = &blocks[block.header().base_offset as usize].bytes;
                    assert!(original[block::HEADER..].starts_with(block.frames()));
                    seen.push(block.header().base_offset);
                }
                Ok(None) => return Some((scan, seen)),
                Err(_) if chain.skip(&mut cursor).unwrap() => {}
                Err(_) => return Some((scan, seen)),
            }
        }
    };
    for len in (0..whole.len()).rev() {
        raw.set_len(len as u64).unwrap();
        let Some((scan, seen)) = look(DOUBTFUL) else {
            assert!(len < HEADER);
            continue;
        };
        let kept = blocks.iter().take_while(|b| b.header.end_position() <= len as u64).count();
        assert_eq!((seen.len(), scan.end.next_offset), (kept, kept as u64), "{len}");
        let floor = SegmentScanOptions { floor: whole.len() as u64, ..DOUBTFUL };
        assert!(look(floor).unwrap().1.len() >= kept);
    }
    assert!(is_unborn(&bench.directory, folder(), &meta(0).file_name()).unwrap());
    raw.write_all_at(&whole, 0).unwrap();
    assert!(!is_unborn(&bench.directory, folder(), &meta(0).file_name()).unwrap());
    let data_end = blocks[2].header.end_position() as usize;
    for (byte, good) in whole.iter().enumerate() {
        raw.write_all_at(&[good ^ 0x10], byte as u64).unwrap();
        let all_flushed = SegmentScanOptions { verify_last: u64::MAX, ..CLEAN };
        match look(all_flushed) {
            None => assert!(byte < HEADER),
            Some((_, seen)) => {
                assert!(seen.len() >= if byte < data_end { 2 } else { 3 }, "byte {byte}: {seen:?}");
            }
        }
        raw.write_all_at(&[*good], byte as u64).unwrap();
    }
}

#[test]
fn foreign_files_and_newer_versions_are_told() {
    let bench = Bench::new();
    bench.sealed(0, 1);
    let raw = bench.raw(0);
    let kind_of = |base| bench.scan(base, DOUBTFUL).map(drop).unwrap_err().kind();
    let kind = || kind_of(0);
    let head = meta(0).encode();
    bench.sealed(9, 0);
    bench.raw(9).write_all_at(b"#!/bin/sh", 0).unwrap();
    assert_eq!(kind_of(9), ErrorKind::ForeignFile);
    let mut newer = meta(9).encode();
    newer[4] = 9;
    bench.raw(9).write_all_at(&newer, 0).unwrap();
    assert_eq!(kind_of(9), ErrorKind::CorruptRecord);
    let mut newer = head;
    newer[4] = 9;
    raw.write_all_at(&newer, 0).unwrap();
    let scan = bench.scan(0, DOUBTFUL).unwrap();
    assert_eq!((scan.end.next_offset, scan.meta.salt), (1, meta(0).salt), "its block tells what it said");
    assert_eq!((scan.damaged.len(), scan.damaged[0].from, scan.damaged[0].to), (1, 0, 64));
    let crc = crc32fast::hash(&newer[..60]).to_le_bytes();
    newer[60..].copy_from_slice(&crc);
    raw.write_all_at(&newer, 0).unwrap();
    assert_eq!(kind(), ErrorKind::UnsupportedVersion);
    raw.write_all_at(&meta(5).encode(), 0).unwrap();
    assert_eq!(kind(), ErrorKind::ForeignFile, "a name that does not agree");
    raw.write_all_at(&head, 0).unwrap();
    // A block of a newer format is not damage: nothing may be cut off.
    let mut block = [0; block::HEADER];
    raw.read_exact_at(&mut block, 64).unwrap();
    block[4] = 2;
    let crc = crc32fast::hash(&block[..156]).to_le_bytes();
    block[156..].copy_from_slice(&crc);
    raw.write_all_at(&block, 64).unwrap();
    assert_eq!(kind(), ErrorKind::UnsupportedVersion);
    let error = bench.open(0, CLEAN).read(64, &Codecs::default()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
}

/// A sparse file of 8 TiB must cost neither memory nor time.
#[test]
fn a_huge_sparse_file_is_looked_through_at_once() {
    let bench = Bench::new();
    let mut writer = bench.writer(0);
    fill(&mut writer, 0, 3);
    if bench.raw(0).set_len(8 << 40).is_err() {
        return; // not on this file system
    }
    let scan = bench.scan(0, DOUBTFUL).unwrap();
    assert_eq!((scan.end.next_offset, scan.tail_is_zero), (3, true));
}

#[test]
fn readers_and_flushers_beside_the_writer() {
    let bench = Bench::new();
    let mut writer = bench.writer(0);
    let chain = Chain::new(vec![Arc::clone(writer.segment())]);
    std::thread::scope(|scope| {
        let chain = &chain;
        let reader = || {
            let codecs = Codecs::default();
            let mut cursor = ColdCursor { segment: chain.segments()[0].clone(), position: HEADER as u64 };
            let mut next = 0;
            while next < 600 {
                match chain.next(&mut cursor, &codecs).unwrap() {
                    Some(block) => {
                        assert_eq!(block.header().base_offset, next);
                        next += 1;
                        let _ = chain.seek(next / 2).unwrap().unwrap();
                    }
                    None => std::thread::yield_now(),
                }
            }
        };
        scope.spawn(reader);
        scope.spawn(reader);
        for roll in 0..3 {
            fill(&mut writer, roll * 200, 200);
            assert_eq!(writer.segment().flush().unwrap(), writer.position());
            writer.seal().unwrap();
            if roll < 2 {
                writer = bench.writer((roll + 1) * 200);
                chain.push(Arc::clone(writer.segment()));
            }
        }
    });
}

#[test]
fn a_chain_finds_crosses_waits_and_outlives_its_segments() {
    let bench = Bench::new();
    bench.sealed(0, 10);
    bench.sealed(10, 10);
    let mut active = bench.writer(25);
    let codecs = Codecs::default();
    let segments = vec![bench.open(10, CLEAN), bench.open(0, CLEAN), Arc::clone(active.segment())];
    let chain = Chain::new(segments);
    assert_eq!(chain.first_offset(), Some(0));
    for offset in 0..20 {
        let mut cursor = chain.seek(offset).unwrap().unwrap();
        for expected in offset..20 {
            assert_eq!(chain.next(&mut cursor, &codecs).unwrap().unwrap().header().base_offset, expected);
        }
        assert!(chain.next(&mut cursor, &codecs).unwrap().is_none());
        assert_eq!(cursor.segment.base_offset(), 25, "waits where the next block comes");
        let at = chain.find_time(ts(offset)).unwrap().unwrap();
        assert_eq!((at.segment.base_offset(), offset), (offset / 10 * 10, offset));
    }
    assert!(chain.seek(20).unwrap().is_none() && chain.find_time(ts(20)).unwrap().is_none());
    let mut early = chain.seek(3).unwrap().unwrap();
    let mut waiting = chain.seek(19).unwrap().unwrap();
    chain.next(&mut waiting, &codecs).unwrap().unwrap();
    fill(&mut active, 25, 2);
    assert_eq!(chain.next(&mut waiting, &codecs).unwrap().unwrap().header().base_offset, 25);
    assert_eq!(chain.seek(20).unwrap().unwrap().segment.base_offset(), 25);

    // Retention takes the first one, whose reader goes on.
    let gone = chain.remove_first(1);
    bench.directory.remove_file(&folder().join(gone[0].meta().file_name())).unwrap();
    assert_eq!(chain.first_offset(), Some(10));
    drop(gone);
    for expected in (3..20).chain(25..27) {
        assert_eq!(chain.next(&mut early, &codecs).unwrap().unwrap().header().base_offset, expected);
    }
    assert_eq!(chain.seek(0).unwrap().unwrap().segment.base_offset(), 10);
    let replaced = chain.replace(10, 25, Vec::new());
    assert_eq!((replaced.len(), chain.segments().len()), (1, 1));
}
