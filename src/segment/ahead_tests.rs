//! The next segment's file, made ahead: that it is used, that nobody needs it, and that it leaves nothing behind.

use crate::segment::ahead::*;
use crate::segment::bench::{Bench, block_at, fill, folder, meta, offsets, ts};
use crate::storage::fault::{Fault, Op};

const SEGMENT: u64 = LAST_EXTENT;
const BLOCK: usize = 4 << 20;
/// When the first segment of a bench was made, and a moment later.
const BEGUN: u64 = 1;
const MOMENT: u64 = 1_000_000;

fn writer(bench: &Bench, base_offset: u64, ahead: Option<Reserved>) -> SegmentWriter {
    SegmentWriter::create(&bench.directory, folder(), meta(base_offset), SEGMENT, ahead).unwrap()
}

/// A segment with so many blocks of 4 MiB.
fn with_blocks(bench: &Bench, n: u64) -> SegmentWriter {
    let mut writer = writer(bench, 0, None);
    for offset in 0..n {
        writer.append_one(&block_at(&writer, &[offset], BLOCK, 0, false)).unwrap();
    }
    writer
}

fn look(ahead: &mut Ahead, bench: &Bench, writer: &SegmentWriter, now: u64) {
    ahead.look(&bench.directory, folder(), writer, ts(now));
}

fn names(bench: &Bench) -> Vec<String> {
    let entries = bench.directory.list(folder()).unwrap();
    entries.into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
}

#[test]
fn whoever_fills_a_segment_fast_finds_the_next_one_made() {
    let bench = Bench::new();
    let mut ahead = Ahead::default();
    look(&mut ahead, &bench, &with_blocks(&bench, 1), BEGUN + MOMENT);
    assert!(!ahead.wait(), "too early to tell");
    let first = with_blocks(&Bench::new(), 3);
    look(&mut ahead, &bench, &first, BEGUN + MOMENT);
    assert!(ahead.wait());
    assert_eq!(names(&bench), [meta(0).file_name()], "it has no name yet");

    let mut next = writer(&bench, 50, ahead.take());
    assert_eq!(bench.raw(50).metadata().unwrap().len(), SEGMENT);
    let reserved = bench.plan.count(Op::Allocate);
    fill(&mut next, 50, 20);
    assert_eq!(bench.plan.count(Op::Allocate), reserved, "nothing is left to be reserved");
    next.seal().unwrap();
    let plain = Bench::new();
    let mut same = writer(&plain, 50, None);
    fill(&mut same, 50, 20);
    same.seal().unwrap();
    let bytes = |bench: &Bench| {
        std::fs::read(bench.directory.root().join(folder()).join(meta(50).file_name())).unwrap()
    };
    assert!(bytes(&bench) == bytes(&plain), "the same file in the end");
    assert!(!ahead.wait(), "one is made for each segment");
}

#[test]
fn whatever_fails_ahead_harms_nobody() {
    for (op, errno) in [
        (Op::Create, Fault::EIO),
        (Op::Create, Fault::EMFILE),
        (Op::Stat, Fault::EIO),
        (Op::Allocate, Fault::ENOSPC),
        (Op::Allocate, Fault::EIO),
        (Op::Rename, Fault::EIO),
    ] {
        let bench = Bench::new();
        let first = with_blocks(&bench, 3);
        let mut ahead = Ahead::default();
        bench.plan.inject(Fault::nth(1).of(op).errno(errno));
        look(&mut ahead, &bench, &first, BEGUN + MOMENT);
        assert_eq!(ahead.wait(), op == Op::Rename, "{op:?}");
        look(&mut ahead, &bench, &first, BEGUN + MOMENT);
        let mut next = writer(&bench, 50, ahead.take());
        assert_eq!(bench.plan.fired(), 1, "{op:?}");
        fill(&mut next, 50, 3);
        assert_eq!(offsets(next.segment()), [50, 51, 52]);
        assert_eq!(names(&bench), [meta(0).file_name(), meta(50).file_name()]);
        bench.directory.latch().check().unwrap();
    }
}

#[test]
fn a_name_that_is_taken_stays_with_its_file() {
    let bench = Bench::new();
    let mut ahead = Ahead::default();
    look(&mut ahead, &bench, &with_blocks(&bench, 3), BEGUN + MOMENT);
    assert!(ahead.wait());
    let path = bench.directory.root().join(folder()).join(meta(50).file_name());
    std::fs::write(&path, b"another's").unwrap();
    let refused = SegmentWriter::create(&bench.directory, folder(), meta(50), SEGMENT, ahead.take());
    assert!(refused.is_err());
    assert_eq!(std::fs::read(path).unwrap(), b"another's");
}

#[test]
fn whoever_is_slow_has_nothing_made_and_whoever_becomes_slow_gives_it_up() {
    let bench = Bench::new();
    let first = with_blocks(&bench, 3);
    // 12 of 64 MiB: the whole would take 10 s where these take 1.9.
    let (fast, slow) = (BEGUN + 1_800_000_000, BEGUN + 2_000_000_000);
    let mut ahead = Ahead::default();
    let created = bench.plan.count(Op::Create);
    look(&mut ahead, &bench, &first, slow);
    assert!(!ahead.wait());
    assert_eq!(bench.plan.count(Op::Create), created);

    let mut ahead = Ahead::default();
    look(&mut ahead, &bench, &first, fast);
    assert!(ahead.wait());
    look(&mut ahead, &bench, &first, slow);
    assert!(ahead.take().is_none());
    assert_eq!(bench.plan.count(Op::Create), created + 1);
}

#[test]
fn a_short_segment_is_not_worth_a_thread() {
    let bench = Bench::new();
    let mut short = SegmentWriter::create(&bench.directory, folder(), meta(0), SEGMENT / 2, None).unwrap();
    for offset in 0..3 {
        short.append_one(&block_at(&short, &[offset], BLOCK, 0, false)).unwrap();
    }
    let mut ahead = Ahead::default();
    look(&mut ahead, &bench, &short, BEGUN + MOMENT);
    assert!(!ahead.wait());
}
