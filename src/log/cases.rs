//! A story over real files for each letter of the table in `partition/plan.rs`; I to M are in `reopening`. And what an open
//! does about what no crash explains.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::log::catalog::TopicConfig;
use crate::log::core::LogCore;
use crate::log::corruption::OnCorruption;
use crate::log::opening::{LogBuilder, QUARANTINE};
use crate::log::topic::Topic;
use crate::partition::Partition;
use crate::partition::recovery::RecoveryAction::{self, Damaged, TornTail, UnfinishedAppend, Unreachable};
use crate::record::Record;
use crate::storage::fault::{Fault, FaultPlan, Machine, Op};

const SOON: Duration = Duration::from_secs(20);
const LEN: usize = 40_000;
/// Three records to a segment, one to a block.
const RECORDS: u64 = 9;

struct House {
    dir: tempfile::TempDir,
    plan: Arc<FaultPlan>,
}

impl House {
    fn new() -> House {
        House { dir: tempfile::tempdir().unwrap(), plan: FaultPlan::new() }
    }

    fn builder(&self) -> LogBuilder {
        LogBuilder::default().memory_budget(1 << 20).max_block(SOON).faults(&self.plan)
    }

    fn open(&self) -> Arc<LogCore> {
        self.builder().begin_in(self.dir.path(), true).unwrap()
    }

    /// Three segments, flushed or only written, and no stop yet.
    fn filled(flushed: bool) -> (House, Arc<LogCore>) {
        let house = House::new();
        let log = house.open();
        for offset in 0..RECORDS {
            t(&log).append(Record::new(&value(offset))).unwrap();
            t(&log).wait_written(offset + 1, SOON).unwrap();
            if flushed {
                t(&log).wait_durable(offset + 1, SOON).unwrap();
            }
        }
        (house, log)
    }

    fn killed(flushed: bool) -> House {
        let (house, log) = House::filled(flushed);
        log.crash();
        house
    }

    fn closed() -> House {
        let (house, log) = House::filled(false);
        log.close(SOON).unwrap();
        house
    }

    /// Not only the process stopped, and nothing of the hot tail had reached the disk.
    fn lose_the_hot_tail(&self) {
        for entry in fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().path()) {
            if entry.file_name().unwrap().to_string_lossy().starts_with("staging-") {
                zero(&entry, 4_096);
            }
        }
        self.plan.move_to(Machine { boot: Some([2; 16]), ..Machine::default() });
    }

    fn folder(&self, topic: &str) -> PathBuf {
        let topics = fs::read_dir(self.dir.path().join("topics")).unwrap().map(|e| e.unwrap().path());
        let prefix = format!("{topic}.");
        let is = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().starts_with(&prefix);
        topics.into_iter().find(is).unwrap().join("0")
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(self.folder("t")).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        all
    }

    fn has_quarantine(&self) -> bool {
        self.dir.path().join(QUARANTINE).exists()
    }
}

fn t(log: &Arc<LogCore>) -> Partition {
    let config = TopicConfig::new().segment_bytes(4 * LEN as u64).block_linger(Duration::ZERO);
    let core = log.create_topic("t", &config, true).unwrap();
    Topic { core, log: Arc::clone(log) }.partition(0).unwrap()
}

fn value(offset: u64) -> Vec<u8> {
    format!("{offset} ").bytes().cycle().take(LEN).collect()
}

/// The offsets that can be read, each of which holds what was appended; what cannot be read is an error, and not passed over.
fn readable(log: &Arc<LogCore>) -> Vec<u64> {
    let partition = t(log);
    let mut found = Vec::new();
    let mut next = partition.start_offset();
    while next < partition.end_offset() {
        match partition.reader(next).unwrap().try_next() {
            Ok(Some(record)) => {
                assert_eq!(record.value(), Some(&value(record.offset())[..]));
                found.push(record.offset());
                next = record.offset() + 1;
            }
            Ok(None) => break,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::CorruptRecord);
                next += 1;
            }
        }
    }
    found
}

fn losses(log: &Arc<LogCore>) -> Vec<(RecoveryAction, Option<std::ops::Range<u64>>)> {
    let losses = log.report.items.iter().filter(|i| i.action != RecoveryAction::Replayed);
    losses.map(|i| (i.action, i.offsets.clone())).collect()
}

fn all() -> Vec<u64> {
    (0..RECORDS).collect()
}

/// Where the blocks of a segment begin.
fn blocks(segment: &Path) -> Vec<u64> {
    let bytes = fs::read(segment).unwrap();
    let begins = |at: &usize| bytes[*at..].starts_with(b"TLB1");
    (64..bytes.len()).step_by(8).filter(begins).map(|at| at as u64).collect()
}

fn zero(file: &Path, from: u64) {
    let len = file.metadata().unwrap().len();
    zero_part(file, from, len - from);
}

fn zero_part(file: &Path, from: u64, len: u64) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(&vec![0; len as usize], from).unwrap();
}

#[test]
fn a_f_a_log_that_was_never_written_is_what_the_hot_tail_holds() {
    let house = House::new();
    let log = house.open();
    let partition = t(&log);
    house.plan.hold(Op::Write);
    (0..3).for_each(|offset| drop(partition.append(Record::new(&value(offset))).unwrap()));
    // Nothing has reached a segment.
    house.plan.inject(Fault::nth(1).of(Op::Write).forever());
    house.plan.release();
    log.crash();
    house.plan.clear();
    drop((partition, log));
    let log = house.open();
    assert_eq!((readable(&log), losses(&log), log.report.replayed), (vec![0, 1, 2], vec![], 3));
}

#[test]
fn b_h_whole_segments_and_no_hot_tail() {
    let house = House::killed(false);
    house.lose_the_hot_tail();
    let log = house.open();
    assert_eq!((readable(&log), losses(&log), log.report.replayed), (all(), vec![], 0));
}

/// There was nothing to replay, but what the process had written was not flushed when it died.
#[test]
fn h_what_a_dead_process_had_written_is_flushed_by_the_open() {
    let house = House::killed(false);
    let earlier: Vec<_> = house.segments()[..2].iter().map(|file| fs::read(file).unwrap()).collect();
    house.plan.inject(Fault::nth(1).of(Op::Sync).under("/t.").forever());
    assert!(house.builder().begin_in(house.dir.path(), true).is_err());
    house.plan.clear();
    let log = house.open();
    assert_eq!((readable(&log), log.report.replayed), (all(), 0));
    let now: Vec<_> = house.segments()[..2].iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(now == earlier, "only the last segment is written to");
}

/// All that follows a torn place is named and kept, what stood in the same file behind it as well.
#[test]
fn c_a_torn_place_ends_the_log() {
    let house = House::killed(false);
    house.lose_the_hot_tail();
    let middle = &house.segments()[1];
    zero_part(middle, blocks(middle)[1] + 8_000, 4_096);
    let log = house.open();
    assert_eq!(readable(&log), [0, 1, 2, 3]);
    assert_eq!(losses(&log), [(TornTail, Some(6..9)), (TornTail, Some(4..6))]);
    assert!(log.report.items.iter().all(|i| i.kept_in.as_ref().unwrap().exists()));
    assert_eq!(house.segments().len(), 2);
}

/// All of a torn write is kept, however long it is, and nothing of the space reserved behind it.
#[test]
fn c_what_is_set_aside_is_kept_byte_for_byte() {
    let house = House::new();
    let log = house.open();
    let core = log.create_topic("u", &TopicConfig::new().block_linger(Duration::ZERO), true).unwrap();
    let partition = Topic { core, log: Arc::clone(&log) }.partition(0).unwrap();
    (0..90).for_each(|offset| drop(partition.append(Record::new(&value(offset))).unwrap()));
    partition.wait_written(90, SOON).unwrap();
    log.crash();
    drop((partition, log));
    house.lose_the_hot_tail();
    let segment = house.folder("u").join("00000000000000000000-000000.log");
    let torn = blocks(&segment)[2];
    zero_part(&segment, torn + 8_000, 4_096);
    let file = fs::File::options().write(true).open(&segment).unwrap();
    file.set_len(segment.metadata().unwrap().len() + (3 << 20)).unwrap();
    let before = fs::read(&segment).unwrap();
    let log = house.open();
    let [item] = &log.report.items[..] else { panic!("{:?}", log.report) };
    assert_eq!((item.action, &item.offsets), (TornTail, &Some(2..90)));
    let bytes = item.bytes.clone().unwrap();
    let (from, to) = (bytes.start as usize, bytes.end as usize);
    assert!(bytes.start == torn && to - from > 2 << 20 && to < before.len(), "{bytes:?}");
    assert!(before[to..].iter().all(|b| *b == 0), "that is reserved space");
    assert!(fs::read(item.kept_in.as_ref().unwrap()).unwrap() == before[from..to]);
}

#[test]
fn c_f_what_the_hot_tail_covers_was_never_lost() {
    let house = House::killed(false);
    let middle = &house.segments()[1];
    zero(middle, blocks(middle)[1] + 8_000);
    let log = house.open();
    assert_eq!((readable(&log), losses(&log)), (all(), vec![]));
    assert!(log.report.replayed > 0 && !house.has_quarantine());
}

#[test]
fn d_an_append_without_an_end_was_none() {
    let house = House::new();
    let log = house.open();
    t(&log).append(Record::new(&value(0))).unwrap();
    let values: Vec<_> = (1..4).map(value).collect();
    let records: Vec<Record<'_>> = values.iter().map(Record::new).collect();
    t(&log).append_batch(&records).unwrap();
    t(&log).wait_written(4, SOON).unwrap();
    log.crash();
    drop(log);
    house.lose_the_hot_tail();
    let last = house.segments().pop().unwrap();
    zero(&last, *blocks(&last).last().unwrap());
    let log = house.open();
    assert_eq!(readable(&log), [0]);
    assert!(
        matches!(&losses(&log)[..], [(UnfinishedAppend, Some(lost))] if lost.start == 1),
        "{:?}",
        log.report
    );
}

#[test]
fn e_damage_below_what_was_flushed_costs_its_block() {
    let house = House::killed(true);
    house.lose_the_hot_tail();
    let last = &house.segments()[2];
    zero_part(last, blocks(last)[0] + 8_000, 4_096);
    let log = house.open();
    assert_eq!(readable(&log), [0, 1, 2, 3, 4, 5, 7, 8]);
    assert_eq!(losses(&log), [(Damaged, Some(6..7))]);
}

/// The flush that a later segment tells of covered the last block of an earlier one too: what is amiss there is damage to it,
/// and not the end of the log.
#[test]
fn e_a_segment_before_one_that_was_flushed_was_flushed_whole() {
    let house = House::killed(true);
    house.lose_the_hot_tail();
    let first = &house.segments()[0];
    zero_part(first, blocks(first)[2] + 8_000, 4_096);
    let log = house.open();
    // Who reads it is told.
    assert_eq!((readable(&log), losses(&log)), (vec![0, 1, 3, 4, 5, 6, 7, 8], vec![]));
}

/// Only the name of a file that was never flushed is taken by a loss of power: behind one that was flushed nothing is given up.
#[test]
fn e_a_first_segment_that_was_flushed_and_is_missing_is_damage() {
    let house = House::killed(true);
    house.lose_the_hot_tail();
    fs::remove_file(&house.segments()[0]).unwrap();
    let log = house.open();
    assert_eq!((readable(&log), losses(&log)), ((3..9).collect(), vec![(Damaged, Some(0..3))]));
}

/// The process died within an append: the hot tail holds all of its frames but the last.
#[test]
fn f_an_append_without_an_end_is_not_replayed() {
    let house = House::new();
    let log = house.open();
    let partition = t(&log);
    house.plan.hold(Op::Write);
    partition.append(Record::new(&value(0))).unwrap();
    let values: Vec<_> = (1..4).map(value).collect();
    partition.append_batch(&values.iter().map(Record::new).collect::<Vec<_>>()).unwrap();
    house.plan.inject(Fault::nth(1).of(Op::Write).forever());
    house.plan.release();
    log.crash();
    house.plan.clear();
    drop((partition, log));
    let files = fs::read_dir(house.dir.path()).unwrap().map(|e| e.unwrap().path());
    let staging = files.into_iter().find(|p| p.to_string_lossy().contains("staging-")).unwrap();
    let bytes = fs::read(&staging).unwrap();
    let at = (0..bytes.len()).step_by(8).find(|at| bytes[*at..].starts_with(&values[2])).unwrap();
    zero_part(&staging, at as u64 - 32, 8);
    let log = house.open();
    assert_eq!((readable(&log), losses(&log), log.report.replayed), (vec![0], vec![], 1));
    assert_eq!(t(&log).append(Record::new(&value(1))).unwrap().offset(), 1);
    log.close(SOON).unwrap();
    assert_eq!(readable(&house.open()), [0, 1]);
}

#[test]
fn g_hot_frames_that_do_not_go_on_are_told() {
    let house = House::new();
    let log = house.builder().memory_budget(256 << 10).begin_in(house.dir.path(), true).unwrap();
    for offset in 0..RECORDS {
        t(&log).append(Record::new(&value(offset))).unwrap();
        t(&log).wait_written(offset + 1, SOON).unwrap();
    }
    log.crash();
    drop(log);
    // The first records were written long ago, and the files of those are gone.
    fs::remove_dir_all(house.folder("t")).unwrap();
    let log = house.open();
    assert_eq!(t(&log).end_offset(), 0);
    assert!(
        matches!(&losses(&log)[..], [(Unreachable, Some(lost))] if lost.end == RECORDS),
        "{:?}",
        log.report
    );
}

/// The process stopped, not the machine; the first page of the last segment was lost all the same. The log did not open.
#[test]
fn m_a_lost_beginning_is_no_end_of_the_world_where_only_the_process_stopped() {
    for hot in [true, false] {
        let house = House::killed(false);
        zero_part(&house.segments()[2], 0, 4_096);
        if !hot {
            for entry in fs::read_dir(house.dir.path()).unwrap().map(|e| e.unwrap().path()) {
                if entry.file_name().unwrap().to_string_lossy().starts_with("staging-") {
                    zero(&entry, 4_096);
                }
            }
        }
        let log = house.open();
        assert!(log.report.page_cache_survived);
        if hot {
            assert_eq!((readable(&log), losses(&log)), (all(), vec![]));
            assert!(!house.has_quarantine());
        } else {
            assert_eq!((readable(&log), losses(&log)), ((0..6).collect(), vec![(TornTail, Some(6..9))]));
        }
    }
}

/// A power cut left a segment without a beginning, and the report did not say which offsets went with it.
#[test]
fn m_what_goes_with_a_lost_beginning_is_named_by_its_offsets() {
    let house = House::killed(false);
    house.lose_the_hot_tail();
    zero_part(&house.segments()[1], 0, 4_096);
    let log = house.open();
    assert_eq!(losses(&log), [(TornTail, Some(3..6)), (TornTail, Some(6..9))]);
}

/// One page held the end of a flushed segment: the last block of an append and the footer. The append had no end then, and
/// gigabytes behind it were set aside.
#[test]
fn e_a_flushed_segment_that_lost_its_end_is_not_the_end_of_the_log() {
    let house = House::new();
    let log = house.open();
    let values: Vec<_> = (0..3).map(value).collect();
    let records: Vec<Record<'_>> = values.iter().map(Record::new).collect();
    t(&log).append_batch(&records).unwrap();
    (3..RECORDS).for_each(|offset| drop(t(&log).append(Record::new(&value(offset))).unwrap()));
    log.close(SOON).unwrap();
    drop(log);
    let first = &house.segments()[0];
    zero(first, *blocks(first).last().unwrap());
    let log = house.open();
    assert_eq!(t(&log).end_offset(), RECORDS);
    assert!(readable(&log).ends_with(&[3, 4, 5, 6, 7, 8]));
    assert!(losses(&log).iter().all(|(action, _)| *action == Damaged) && log.report.has_losses());
    assert_eq!(house.segments().len(), 3);
}

/// The file of the first segment was deleted by somebody. The log began in the middle, without a word.
#[test]
fn e_a_partition_whose_first_segment_is_missing_says_so() {
    let house = House::closed();
    fs::remove_file(&house.segments()[0]).unwrap();
    let log = house.open();
    assert_eq!((readable(&log), losses(&log)), ((3..9).collect(), vec![(Damaged, Some(0..3))]));
}

/// A file of the catalog was exchanged for what it had been the day before, which proves itself from first to last byte.
#[test]
fn an_older_copy_of_a_file_is_noticed_after_a_close() {
    for topic in ["__topics", "t"] {
        let house = House::closed();
        let segment = fs::read_dir(house.folder(topic)).unwrap().map(|e| e.unwrap().path()).max().unwrap();
        let before = fs::read(&segment).unwrap();
        let log = house.open();
        assert!(!log.report.has_losses());
        let epoch = log.epoch;
        t(&log).append(Record::new(&value(RECORDS))).unwrap();
        log.create_topic("u", &TopicConfig::new(), false).unwrap();
        log.close(SOON).unwrap();
        drop(log);
        // The day after, unless a new segment was begun: then that one is gone.
        house.segments().into_iter().filter(|s| topic == "t" && *s > segment).for_each(|s| {
            fs::remove_file(s).unwrap();
        });
        fs::write(&segment, &before).unwrap();
        let log = house.open();
        let reasons: Vec<_> = log.report.items.iter().map(|i| i.reason.as_str()).collect();
        assert!(log.report.has_losses(), "{topic}: {reasons:?}");
        assert!(log.epoch > epoch, "offsets that are given again are of another epoch");
        log.close(SOON).unwrap();
        drop(log);
        assert!(!house.open().report.has_losses(), "it is told once");
    }
}

/// A process died while it removed the files of a topic that was deleted for good. The next open took what was left for a
/// stranger's, reported a loss and kept it in the quarantine.
#[test]
fn a_deletion_that_was_cut_short_is_finished_by_the_next_open() {
    let (house, log) = House::filled(true);
    house.plan.inject(Fault::nth(2).of(Op::Remove).forever());
    assert!(log.delete_topic("t").is_err());
    let folder = house.folder("t");
    assert!(folder.exists());
    log.crash();
    house.plan.clear();
    drop(log);
    let log = house.open();
    assert!(!folder.parent().unwrap().exists() && !house.has_quarantine());
    assert!(losses(&log).is_empty() && log.topic("t").is_err(), "{:?}", log.report);
}

/// Damage stays where it is, and what is around it can be read; or it is set aside, and readers go over it.
#[test]
fn on_corruption_refuses_or_sets_aside() {
    let damaged = || {
        let house = House::killed(true);
        let last = &house.segments()[2];
        zero_part(last, blocks(last)[1] + 8_000, 4_096);
        house
    };
    let around = [0, 1, 2, 3, 4, 5, 6, 8];
    let house = damaged();
    let before = house.segments().iter().map(|s| fs::read(s).unwrap()).collect::<Vec<_>>();
    let log = house.open();
    assert_eq!((readable(&log), losses(&log)), (around.to_vec(), vec![(Damaged, Some(7..8))]));
    assert_eq!(t(&log).reader(7).unwrap().try_next().unwrap_err().kind(), ErrorKind::CorruptRecord);
    assert!(!house.has_quarantine());
    for (segment, before) in house.segments().iter().zip(before) {
        let now = fs::read(segment).unwrap();
        let both = now.len().min(before.len());
        assert!(now[..both] == before[..both], "in place");
    }

    let house = damaged();
    let open = || house.builder().on_corruption(OnCorruption::Quarantine).begin_in(house.dir.path(), true);
    let log = open().unwrap();
    let item = log.report.items.iter().find(|i| i.action == Damaged).unwrap();
    assert_eq!((item.offsets.clone(), item.partition.as_ref().map(|p| p.partition())), (Some(7..8), Some(0)));
    assert!(item.kept_in.as_ref().unwrap().exists() && !log.report.clean);
    let mut reader = t(&log).reader(0).unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.try_next().unwrap() {
        found.push(record.offset());
    }
    assert_eq!(found, around, "no reader stumbles");
    assert_eq!(t(&log).end_offset(), RECORDS, "and no offset is given twice");
    drop(reader);
    log.close(SOON).unwrap();
    drop(log);
    let log = open().unwrap();
    assert!(log.report.clean && !log.report.has_losses(), "{:?}", log.report);
}

#[test]
fn on_corruption_of_a_file_that_says_nothing() {
    let garbage = |house: &House, topic: &str| {
        let all = fs::read_dir(house.folder(topic)).unwrap().map(|e| e.unwrap().path());
        let mut all: Vec<_> = all.collect();
        all.sort();
        let segment = &all[all.len() / 2];
        fs::write(segment, vec![7; fs::metadata(segment).unwrap().len() as usize]).unwrap();
    };
    let open = |house: &House, what| -> Result<Arc<LogCore>> {
        house.builder().on_corruption(what).begin_in(house.dir.path(), true)
    };
    let house = House::closed();
    garbage(&house, "t");
    for _ in 0..2 {
        let refused = open(&house, OnCorruption::Refuse).map(drop).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::CorruptRecord | ErrorKind::ForeignFile), "{refused:?}");
    }
    let log = open(&house, OnCorruption::Quarantine).unwrap();
    assert_eq!(readable(&log), [0, 1, 2, 6, 7, 8]);
    assert!(log.report.items.iter().any(|i| i.kept_in.as_ref().is_some_and(|kept| kept.exists())));
    assert!(losses(&log).iter().any(|(_, offsets)| *offsets == Some(3..6)), "{:?}", log.report);
    drop(log);
    // What the catalog says is nowhere else.
    let house = House::closed();
    garbage(&house, "__topics");
    for what in [OnCorruption::Refuse, OnCorruption::Quarantine] {
        assert!(open(&house, what).is_err());
        assert!(!house.has_quarantine());
    }
}
