//! What an open after an unclean stop looks at: all of it after a power cut, the end of it after the death of a process.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::log::catalog::TopicConfig;
use crate::log::core::LogCore;
use crate::log::opening::LogBuilder;
use crate::log::topic::Topic;
use crate::partition::Partition;
use crate::partition::recovery::RecoveryAction;
use crate::record::Record;
use crate::storage::fault::{Call, Fault, FaultPlan, Machine, Op};

const SOON: Duration = Duration::from_secs(20);
/// One to a block; together more than the end that is always verified.
const RECORDS: u64 = 600;
const LEN: usize = 40_000;
/// The block whose payload loses a page, far from the end.
const DAMAGED: usize = 40;

fn open(dir: &Path, plan: &Arc<FaultPlan>) -> Result<Arc<LogCore>> {
    LogBuilder::default().memory_budget(1 << 20).max_block(SOON).faults(plan).begin_in(dir, true)
}

fn t(log: &Arc<LogCore>) -> Partition {
    let core = log.create_topic("t", &TopicConfig::new(), true).unwrap();
    Topic { core, log: Arc::clone(log) }.partition(0).unwrap()
}

fn value(offset: u64) -> Vec<u8> {
    format!("{offset} ").bytes().cycle().take(LEN).collect()
}

/// A log that was written, not flushed, and killed.
fn killed(dir: &Path, plan: &Arc<FaultPlan>) -> PathBuf {
    let log = open(dir, plan).unwrap();
    let partition = t(&log);
    for offset in 0..RECORDS {
        partition.append(Record::new(&value(offset))).unwrap();
    }
    partition.wait_written(RECORDS, SOON).unwrap();
    log.crash();
    let topics = std::fs::read_dir(dir.join("topics")).unwrap();
    let topic = topics.map(|e| e.unwrap().path()).find(|p| !p.to_string_lossy().contains("__")).unwrap();
    topic.join("0/00000000000000000000-000000.log")
}

/// Where the blocks of a segment begin.
fn blocks(segment: &Path) -> Vec<u64> {
    let bytes = std::fs::read(segment).unwrap();
    let begins = |at: &usize| bytes[*at..].starts_with(b"TLB1");
    (64..bytes.len()).step_by(8).filter(begins).map(|at| at as u64).collect()
}

fn zero(segment: &Path, at: u64, len: usize) {
    std::fs::File::options().write(true).open(segment).unwrap().write_all_at(&vec![0; len], at).unwrap();
}

/// As a power cut leaves it: a page in the middle never reached the disk.
fn lose_a_page(segment: &Path) {
    zero(segment, blocks(segment)[DAMAGED] + 8_000, 4_096);
}

fn found_at_the_open(log: &Arc<LogCore>) {
    assert!(!log.report.page_cache_survived);
    let found: Vec<_> = log.report.items.iter().map(|i| (i.action, i.offsets.clone())).collect();
    assert_eq!(found[0], (RecoveryAction::TornTail, Some(DAMAGED as u64..RECORDS)), "{found:?}");
    assert_eq!(t(log).end_offset(), DAMAGED as u64);
}

/// Every record but the one that was damaged, which is an error and no wrong bytes.
fn found_by_the_reader(log: &Arc<LogCore>) {
    let mut reader = t(log).reader(0).unwrap();
    for offset in 0..RECORDS {
        if offset == DAMAGED as u64 {
            let error = reader.try_next().unwrap_err();
            assert_eq!((error.kind(), error.offset()), (ErrorKind::CorruptRecord, Some(offset)));
            reader = t(log).reader(offset + 1).unwrap();
            continue;
        }
        let record = reader.try_next().unwrap().unwrap();
        assert_eq!((record.offset(), record.value() == Some(&value(offset)[..])), (offset, true));
    }
    assert!(reader.try_next().unwrap().is_none());
}

#[test]
fn i_after_the_death_of_a_process_the_end_is_verified() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let segment = killed(dir.path(), &plan);
    lose_a_page(&segment);
    // The last write was cut off, and so is another within the end.
    let last = blocks(&segment)[RECORDS as usize - 1];
    zero(&segment, last + 20_000, LEN - 20_000);
    plan.record(true);
    let log = open(dir.path(), &plan).unwrap();
    assert!(log.report.page_cache_survived);
    assert!(!log.report.has_losses(), "the hot tail covers it: {:?}", log.report);
    assert!(log.report.replayed > 0);
    let calls: Vec<_> = plan.take_calls().into_iter().filter(|c| c.path == segment).collect();
    assert!(calls.iter().any(|c| c.op == Op::Sync), "the flush tells of pages that were lost");
    let payload = |c: &&Call| c.op == Op::Read && c.len as usize > LEN / 2 && c.at > 0 && c.at < last / 8;
    assert!(calls.iter().find(payload).is_none(), "payloads in the middle are left alone");
    found_by_the_reader(&log);
    // What the testimony said was said once: the next open has that of this one.
    log.crash();
    assert!(open(dir.path(), &plan).unwrap().report.page_cache_survived);
}

#[test]
fn i_a_directory_may_have_been_moved_and_is_no_copy() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let at = |name: &str| dir.path().join(name);
    killed(&at("a"), &plan);
    std::fs::rename(at("a"), at("b")).unwrap();
    let log = open(&at("b"), &plan).unwrap();
    assert!(log.report.page_cache_survived && !log.report.has_losses());
    log.crash();
    drop(log);
    std::fs::create_dir(at("c")).unwrap();
    for entry in std::fs::read_dir(at("b")).unwrap() {
        let entry = entry.unwrap();
        let to = at("c").join(entry.file_name());
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to).unwrap();
        } else {
            std::fs::rename(entry.path(), to).unwrap();
        }
    }
    let log = open(&at("c"), &plan).unwrap();
    assert!(!log.report.page_cache_survived && !log.report.has_losses());
}

#[test]
fn j_whatever_else_is_amiss_has_all_verified() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let segment = killed(dir.path(), &plan);
    lose_a_page(&segment);
    zero(&segment, blocks(&segment)[DAMAGED + 50], 160);
    let log = open(dir.path(), &plan).unwrap();
    assert!(log.report.page_cache_survived);
    assert_eq!(t(&log).end_offset(), DAMAGED as u64);
}

#[test]
fn k_after_a_stop_of_the_machine_all_is_verified() {
    let here = Machine::default();
    for (then, now) in [
        (here, Machine { boot: Some([2; 16]), ..here }),
        (here, Machine { boot: None, ..here }),
        (Machine { boot: None, ..here }, here),
        (Machine { boot: None, ..here }, Machine { boot: None, ..here }),
        (here, Machine { mount: 2, ..here }),
    ] {
        let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
        plan.move_to(then);
        lose_a_page(&killed(dir.path(), &plan));
        plan.move_to(now);
        found_at_the_open(&open(dir.path(), &plan).unwrap());
    }
}

#[test]
fn l_a_flush_that_fails_has_all_verified_by_the_next_open() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let segment = killed(dir.path(), &plan);
    lose_a_page(&segment);
    plan.inject(Fault::nth(1).of(Op::Sync).under("t."));
    assert_eq!(open(dir.path(), &plan).err().unwrap().kind(), ErrorKind::Storage);
    assert_eq!(plan.fired(), 1);
    found_at_the_open(&open(dir.path(), &plan).unwrap());
}

/// The kernel tells of pages that it could not write once only, and it told the process that is dead.
#[test]
fn l_a_flush_that_failed_before_the_kill_is_not_forgotten() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let log = open(dir.path(), &plan).unwrap();
    t(&log).append(Record::new("a")).unwrap();
    t(&log).wait_durable(1, SOON).unwrap();
    log.crash();
    drop(log);
    let log = open(dir.path(), &plan).unwrap();
    assert!(log.report.page_cache_survived, "flushes that succeeded are no matter");
    t(&log).append(Record::new("b")).unwrap();
    plan.inject(Fault::nth(1).of(Op::Sync));
    assert!(t(&log).wait_durable(2, SOON).is_err());
    log.crash();
    drop(log);
    let log = open(dir.path(), &plan).unwrap();
    assert!(!log.report.page_cache_survived && !log.report.has_losses(), "{:?}", log.report);
    assert_eq!(t(&log).end_offset(), 2);
}

/// Three segments that were written and never flushed, and a kill.
fn three_segments(dir: &Path, plan: &Arc<FaultPlan>) -> Vec<PathBuf> {
    let log = open(dir, plan).unwrap();
    let config = TopicConfig::new().segment_bytes(4 * LEN as u64).block_linger(Duration::ZERO);
    let core = log.create_topic("t", &config, true).unwrap();
    let partition = Topic { core, log: Arc::clone(&log) }.partition(0).unwrap();
    for offset in 0..9 {
        partition.append(Record::new(&value(offset))).unwrap();
        partition.wait_written(offset + 1, SOON).unwrap();
    }
    log.crash();
    let topics = std::fs::read_dir(dir.join("topics")).unwrap();
    let topic = topics.map(|e| e.unwrap().path()).find(|p| !p.to_string_lossy().contains("__")).unwrap();
    let mut segments: Vec<_> =
        std::fs::read_dir(topic.join("0")).unwrap().map(|e| e.unwrap().path()).collect();
    segments.sort();
    assert_eq!(segments.len(), 3);
    segments
}

/// Where each segment begins.
const BASES: [u64; 3] = [0, 3, 6];

/// What the power left of segments that were never flushed, after `harm`: where the log ends, and how many files were set
/// aside.
fn after_a_power_cut(harm: impl FnOnce(&[PathBuf])) -> (u64, usize, Arc<LogCore>, tempfile::TempDir) {
    let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let segments = three_segments(dir.path(), &plan);
    harm(&segments);
    // The hot tail went as well.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("staging-") {
            zero(&entry.path(), 4_096, entry.metadata().unwrap().len() as usize - 4_096);
        }
    }
    plan.move_to(Machine { boot: Some([2; 16]), ..Machine::default() });
    let log = open(dir.path(), &plan).unwrap();
    let aside = log.report.items.iter().filter(|item| item.kept_in.is_some()).count();
    let end = t(&log).end_offset();
    let mut reader = t(&log).reader(0).unwrap();
    for offset in 0..end {
        assert_eq!(reader.try_next().unwrap().unwrap().value(), Some(&value(offset)[..]));
    }
    (end, aside, log, dir)
}

/// The power went before the first flush and took the first page of a new segment: the log did not open any more.
#[test]
fn m_a_segment_without_a_beginning_ends_the_log() {
    let (end, aside, log, _dir) = after_a_power_cut(|segments| zero(&segments[1], 0, 4_096));
    assert_eq!((end, aside), (BASES[1], 2), "{:?}", log.report);
}

/// Only the header was lost, which says nothing that the blocks do not: no record goes with it.
#[test]
fn m_a_lost_header_costs_no_record() {
    let (end, aside, log, _dir) = after_a_power_cut(|segments| zero(&segments[1], 0, 64));
    assert_eq!((end, aside), (9, 0), "{:?}", log.report);
    assert!(log.report.items.iter().any(|item| item.reason.starts_with("the header")), "{:?}", log.report);
}

/// Its last pages were lost whole, as if they were space reserved: the log went on behind the gap with the next segment.
#[test]
fn m_a_segment_that_lost_its_end_ends_the_log() {
    let (end, aside, log, _dir) = after_a_power_cut(|segments| {
        let (last, len) =
            (*blocks(&segments[0]).last().unwrap(), std::fs::metadata(&segments[0]).unwrap().len());
        zero(&segments[0], last, (len - last) as usize);
    });
    assert_eq!(end, BASES[1] - 1, "{:?}", log.report);
    assert!(aside >= 2, "{:?}", log.report);
}

/// The name of the first segment was lost, those of the others were not: the partition began in the middle.
#[test]
fn m_a_partition_does_not_begin_in_the_middle() {
    let (end, aside, log, _dir) = after_a_power_cut(|segments| std::fs::remove_file(&segments[0]).unwrap());
    assert_eq!((end, t(&log).start_offset(), aside), (0, 0, 2), "{:?}", log.report);
}

/// A hot tail that is worth further threads, of which nothing was written; its segments are to be this long.
fn much_of_a_hot_tail(dir: &Path, plan: &Arc<FaultPlan>, segment_bytes: u64) -> u64 {
    let log = open_large(dir, plan).unwrap();
    let config = TopicConfig::new().segment_bytes(segment_bytes);
    let core = log.create_topic("t", &config, true).unwrap();
    let partition = Topic { core, log: Arc::clone(&log) }.partition(0).unwrap();
    plan.hold(Op::Write);
    let count = 5 * (1 << 20) / LEN as u64;
    for offset in 0..count {
        partition.append(Record::new(&value(offset))).unwrap();
    }
    plan.inject(Fault::nth(1).of(Op::Write).forever());
    plan.release();
    log.crash();
    plan.clear();
    count
}

fn open_large(dir: &Path, plan: &Arc<FaultPlan>) -> Result<Arc<LogCore>> {
    LogBuilder::default().memory_budget(8 << 20).max_block(SOON).faults(plan).begin_in(dir, true)
}

fn is_whole(log: &Arc<LogCore>, count: u64) {
    assert!(!log.report.has_losses(), "{:?}", log.report);
    let mut reader = t(log).reader(0).unwrap();
    for offset in 0..count {
        assert_eq!(reader.try_next().unwrap().unwrap().value(), Some(&value(offset)[..]), "{offset}");
    }
    assert!(reader.try_next().unwrap().is_none());
}

/// Where what is replayed cannot be written, at the first write, half-way or at the last, the open says why, and the next one
/// goes on.
#[test]
fn n_much_of_a_hot_tail_is_replayed_in_order_half_of_it_at_first() {
    let cases = [1 << 30, 2 << 20].into_iter().flat_map(|len| [1, 3, 4].map(|nth| (len, nth)));
    let faults = [(Fault::EIO, ErrorKind::Storage), (Fault::ENOSPC, ErrorKind::NoSpace)];
    for ((segment_bytes, nth), (errno, kind)) in cases.flat_map(|case| faults.map(|fault| (case, fault))) {
        let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
        let count = much_of_a_hot_tail(dir.path(), &plan, segment_bytes);
        plan.inject(Fault::nth(nth).of(Op::Write).errno(errno).under("t."));
        assert_eq!(open_large(dir.path(), &plan).err().unwrap().kind(), kind, "write {nth}");
        plan.clear();
        let log = open_large(dir.path(), &plan).unwrap();
        // The first write is the header of a segment: before it there is nothing to keep.
        let left = if nth == 1 { count..count + 1 } else { 1..count };
        assert!(left.contains(&log.report.replayed), "write {nth}: {:?}", log.report);
        is_whole(&log, count);
    }
}

/// While the segments cannot be looked through, the hot tail can: the open fails, and loses nothing.
#[test]
fn o_where_a_segment_cannot_be_read_the_hot_tail_stays() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let count = much_of_a_hot_tail(dir.path(), &plan, 1 << 30);
    plan.inject(Fault::nth(2).of(Op::Write).under("t."));
    assert!(open_large(dir.path(), &plan).is_err(), "now there is a segment, and hardly anything in it");
    plan.clear();
    plan.inject(Fault::nth(1).of(Op::Read).under("t.").forever());
    let error = open_large(dir.path(), &plan).err().unwrap();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::Storage, Some("t")), "{error}");
    plan.clear();
    is_whole(&open_large(dir.path(), &plan).unwrap(), count);
}

/// Headers of slots are read together with what lies between them, which may be nobody's: where that fails each is read alone.
#[test]
fn o_what_cannot_be_read_beside_the_headers_of_slots_costs_nothing() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let count = much_of_a_hot_tail(dir.path(), &plan, 1 << 30);
    // The first read of the staging file is of its testimony, the next of its own header.
    for nth in 3..6 {
        let before = plan.fired();
        plan.inject(Fault::nth(nth).of(Op::Read).under("staging-"));
        let log = open_large(dir.path(), &plan).unwrap();
        assert_eq!(plan.fired() - before, 1);
        plan.clear();
        is_whole(&log, count);
        log.crash();
    }
}

/// What is replayed is read twice, and verified both times: what it holds must be known before anything is changed.
#[test]
fn o_a_hot_tail_that_changes_while_it_is_replayed_is_no_shorter_log() {
    let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let count = much_of_a_hot_tail(dir.path(), &plan, 1 << 30);
    plan.inject(Fault::nth(2).of(Op::Write).under("t."));
    assert!(open_large(dir.path(), &plan).is_err(), "the topics are there, and hardly anything in this one");
    plan.clear();
    let before = plan.count(Op::Allocate);
    plan.hold(Op::Allocate);
    let (staging, undamaged) = std::thread::scope(|scope| {
        let opening = scope.spawn(|| open_large(dir.path(), &plan).err().unwrap());
        while plan.count(Op::Allocate) == before && !opening.is_finished() {
            std::thread::yield_now(); // until it makes room for the first blocks
        }
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let staging = files.into_iter().find(|p| p.to_string_lossy().contains("staging-")).unwrap();
        let bytes = std::fs::read(&staging).unwrap();
        let last = value(count - 1);
        let at = bytes.windows(LEN).position(|bytes| bytes == last).unwrap() + LEN / 2;
        zero(&staging, at as u64, 8);
        plan.release();
        let error = opening.join().unwrap();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::CorruptRecord, Some(count - 1)), "{error}");
        assert_eq!((error.path(), error.topic()), (Some(&*staging), Some("t")), "{error}");
        (staging, bytes)
    });
    std::fs::write(staging, undamaged).unwrap();
    is_whole(&open_large(dir.path(), &plan).unwrap(), count);
}
