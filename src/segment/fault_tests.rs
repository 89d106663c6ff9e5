//! Segments on disks that are full or fail.

use std::path::Path;

use crate::error::ErrorKind;
use crate::segment::bench::{Bench, SEGMENT_BYTES, block_at, fill, folder, meta, offsets};
use crate::segment::writer::SegmentWriter;
use crate::storage::fault::{Fault, Op};

#[test]
fn whichever_call_finds_the_disk_full_the_bytes_are_the_same_in_the_end() {
    let clean = Bench::new();
    let expected = clean.sealed(0, 20);
    let expected_file =
        std::fs::read(clean.directory.root().join(folder()).join(meta(0).file_name())).unwrap();
    for k in 1.. {
        let bench = Bench::new();
        let mut writer = bench.writer(0);
        let fault = Fault::nth(k).errno(Fault::ENOSPC).after_bytes(30);
        bench.plan.inject(fault);
        for (i, block) in expected.iter().enumerate() {
            while let Err(e) = writer.append_one(block) {
                assert_eq!(e.kind(), ErrorKind::NoSpace);
                assert_eq!(writer.segment().next_offset(), i as u64, "nothing is published");
                assert_eq!(offsets(writer.segment()).len(), i);
            }
        }
        while let Err(e) = writer.seal() {
            assert_eq!(e.kind(), ErrorKind::NoSpace);
        }
        let path = bench.directory.root().join(folder()).join(meta(0).file_name());
        assert_eq!(std::fs::read(path).unwrap(), expected_file);
        bench.directory.latch().check().unwrap();
        if bench.plan.fired() == 0 {
            assert!(k > 20);
            break;
        }
    }
}

#[test]
fn blocks_that_are_written_together_are_published_all_or_none() {
    let bench = Bench::new();
    let expected = Bench::new().sealed(0, 20);
    let mut writer = bench.writer(0);
    let headers: Vec<_> = expected.iter().map(|block| block.header).collect();
    let bytes: Vec<_> = expected.iter().flat_map(|block| block.bytes.clone()).collect();
    let refused = writer.append(&headers[1..], &bytes[expected[0].bytes.len()..]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::IllegalState);
    assert!(writer.append(&headers, &bytes[8..]).is_err(), "bytes of other blocks");
    let before = bench.plan.count(Op::Write);
    bench.plan.inject(Fault::nth(1).of(Op::Write).errno(Fault::ENOSPC).after_bytes(1000));
    // Some of the blocks are in the file now, whole: nobody hears of them.
    while let Err(e) = writer.append(&headers, &bytes) {
        assert_eq!(e.kind(), ErrorKind::NoSpace);
        assert_eq!((writer.segment().next_offset(), writer.position()), (0, headers[0].position));
    }
    assert_eq!((bench.plan.fired(), bench.plan.count(Op::Write) - before), (1, 2), "a part, then all");
    assert_eq!(offsets(writer.segment()), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_keeps_nothing_it_could_not_use() {
    let bench = Bench::new();
    let mut writer = bench.writer(0);
    bench.plan.inject(Fault::nth(1).of(Op::Allocate).errno(Fault::ENOSPC).forever());
    let block = block_at(&writer, &[0], 100, 0, false);
    assert_eq!(writer.append_one(&block).unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(bench.plan.count(Op::Allocate), 2, "an extent, then just what is needed");
    assert_eq!(bench.raw(0).metadata().unwrap().len(), 64, "trimmed back");
    bench.plan.clear();
    writer.append_one(&block).unwrap();

    bench.plan.inject(Fault::nth(1).of(Op::Write).errno(Fault::ENOSPC));
    let created = SegmentWriter::create(&bench.directory, folder(), meta(9), SEGMENT_BYTES, None);
    assert_eq!(created.unwrap_err().kind(), ErrorKind::NoSpace);
    bench.writer(9); // nothing is in its way
}

#[test]
fn a_failed_write_or_flush_is_for_ever() {
    for op in [Op::Write, Op::Sync] {
        let bench = Bench::new();
        let mut writer = bench.writer(0);
        fill(&mut writer, 0, 1);
        bench.plan.inject(Fault::nth(1).of(op).errno(Fault::EIO));
        let block = block_at(&writer, &[1], 100, 0, false);
        let first = writer.append_one(&block).and_then(|()| writer.segment().flush()).unwrap_err();
        assert_eq!(first.kind(), ErrorKind::Storage);
        assert_eq!(bench.plan.fired(), 1);
        let syncs = bench.plan.count(Op::Sync);
        let again = writer.segment().flush().unwrap_err();
        assert_eq!(again.to_string(), first.to_string());
        assert!(writer.seal().is_err() && bench.directory.create(Path::new("x")).is_err());
        assert_eq!(bench.plan.count(Op::Sync), syncs, "never tried again");
        assert_eq!(writer.segment().flushed(), 0);
        assert!(!offsets(writer.segment()).is_empty(), "reading goes on");
    }
}

#[test]
fn zeros_ahead_of_a_flushed_block_are_tail_and_may_find_no_room() {
    let bench = Bench::new();
    let mut writer = bench.writer(0);
    fill(&mut writer, 0, 2);
    assert_eq!(bench.plan.count(Op::Write), 3, "the header and two blocks: nobody flushes, nothing is ahead");
    writer.segment().flush().unwrap();
    // A block long enough to leave the page that the header and the first two share.
    writer.append_one(&block_at(&writer, &[2], 5_000, 0, false)).unwrap();
    assert_eq!(bench.plan.count(Op::Write), 5, "a block, and zeros behind it");
    writer.segment().flush().unwrap();

    bench.plan.inject(Fault::nth(2).of(Op::Write).errno(Fault::ENOSPC));
    writer.append_one(&block_at(&writer, &[3], 30_000, 0, false)).unwrap();
    assert_eq!(bench.plan.fired(), 1, "it is the zeros that found no room");
    assert_eq!(offsets(writer.segment()), [0, 1, 2, 3]);
    bench.directory.latch().check().unwrap();
}
