//! Offsets by time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::o::{log_with, poll, tp};
use tapelog::clock::ManualClock;
use tapelog::topic::TimestampType;
use tapelog::{ErrorKind, Log, OffsetReset, Record, Timestamp, TopicConfig};

fn at(timestamp: i64) -> Timestamp {
    Timestamp::from_nanos(timestamp)
}

#[test]
fn t_03_offsets_for_times() {
    let (log, _) = log_with(2, 0);
    let topic = log.topic("t").unwrap();
    for partition in 0..2 {
        for n in 0..100 {
            let record = Record::new("x").timestamp(at(n));
            topic.partition(partition).unwrap().append(record).unwrap();
        }
    }
    let consumer = log.consumer().build().unwrap();
    let found = consumer.offsets_for_times([(tp(0), at(0)), (tp(1), at(20))]).unwrap();
    assert_eq!(found[&tp(0)], Some((0, at(0))));
    assert_eq!(found[&tp(1)], Some((20, at(20))));
    assert_eq!(consumer.offsets_for_times([(tp(0), at(100))]).unwrap()[&tp(0)], None);
    let error = consumer.offsets_for_times([(tp(0), at(-1))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// The index that is sparse is looked into by a test of its own name in `partition`.
#[test]
fn t_01_from_the_middle_of_a_segment() {
    let run = |log: &Log| {
        let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
        for offset in 0..50 {
            partition.append(Record::new("x").timestamp(at(offset * 10))).unwrap();
        }
        partition.delete_records(40).unwrap();
    };
    each_way(run, |log| {
        let partition = log.topic("t").unwrap().partition(0).unwrap();
        for (time, offset) in [(399, 40), (401, 41), (420, 42), (421, 43), (430, 43), (431, 44)] {
            let found = Some((offset, at(offset as i64 * 10)));
            assert_eq!(partition.offset_for_time(at(time)).unwrap(), found, "time {time}");
        }
        assert_eq!(partition.offset_for_time(at(491)).unwrap(), None);
    });
}

/// The one segment file of partition 0 of the topic `t`.
fn segment_of_t(dir: &Path) -> PathBuf {
    let list = |dir: PathBuf| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("t.");
    let topic = list(dir.join("topics")).find(named).unwrap();
    let files: Vec<_> = list(topic.join("0")).collect();
    assert_eq!(files.len(), 1);
    files[0].clone()
}

/// Whatever part of it is noise: entries, trailer, or both.
#[test]
fn t_25_an_index_of_noise_costs_time_and_nothing_else() {
    for (from_end, len) in [(128, 64), (64, 64), (160, 160)] {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
        for i in 0..100 {
            partition.append(Record::new(&[7; 10_000]).timestamp(at(i * 10))).unwrap();
        }
        drop(partition);
        log.close(Duration::from_secs(30)).unwrap();
        let segment = segment_of_t(dir.path());
        let mut bytes = std::fs::read(&segment).unwrap();
        let from = bytes.len() - from_end;
        bytes[from..from + len].fill(0x5A);
        std::fs::write(&segment, bytes).unwrap();
        let log = Log::open(dir.path()).unwrap();
        let partition = log.topic("t").unwrap().partition(0).unwrap();
        for i in 0..100 {
            assert_eq!(partition.offset_for_time(at(i * 10)).unwrap(), Some((i as u64, at(i * 10))));
            let next = (i < 99).then_some((i as u64 + 1, at(i * 10 + 10)));
            assert_eq!(partition.offset_for_time(at(i * 10 + 1)).unwrap(), next);
        }
    }
}

#[test]
fn t_07_first_in_offset_order_not_the_smallest_time() {
    let (log, partition) = log_with(1, 0);
    for timestamp in [10, 30, 20, 40] {
        partition.append(Record::new("x").timestamp(at(timestamp))).unwrap();
    }
    let mut consumer = log.consumer().assign([tp(0)]).unwrap();
    assert_eq!(consumer.offsets_for_times([(tp(0), at(20))]).unwrap()[&tp(0)], Some((1, at(30))));
    consumer.seek_to_time(&tp(0), at(20)).unwrap();
    assert_eq!(poll(&mut consumer), [1, 2, 3]);
    consumer.seek_to_time(&tp(0), at(41)).unwrap();
    assert_eq!(consumer.position(&tp(0)).unwrap(), 4);
}

#[test]
fn t_05_an_empty_log() {
    let (log, partition) = log_with(1, 0);
    assert_eq!(partition.offset_for_time(at(0)).unwrap(), None);
    assert_eq!(partition.max_timestamp().unwrap(), None);
    assert_eq!((partition.start_offset(), partition.end_offset()), (0, 0));
    let consumer = log.consumer().build().unwrap();
    assert_eq!(consumer.offsets_for_times([(tp(0), at(0))]).unwrap()[&tp(0)], None);
}

#[test]
fn t_09_the_first_of_the_largest_timestamps() {
    let (_log, partition) = log_with(1, 0);
    for timestamp in [10, 11, 10] {
        partition.append(Record::new("x").timestamp(at(timestamp))).unwrap();
    }
    assert_eq!(partition.max_timestamp().unwrap(), Some((1, at(11))));
    partition.append(Record::new("x").timestamp(at(11))).unwrap();
    assert_eq!(partition.max_timestamp().unwrap(), Some((1, at(11))));
}

#[test]
fn t_11_largest_timestamp_of_a_topic_with_append_time() {
    let clock = Arc::new(ManualClock::new(at(100)));
    let log = Log::builder().clock(Arc::clone(&clock)).in_memory().unwrap();
    let config = TopicConfig::new().timestamp_type(TimestampType::Append).partitions(2);
    let topic = log.create_topic("t", config).unwrap();
    let (one, three) = (topic.partition(0).unwrap(), topic.partition(1).unwrap());
    let early = || Record::new("x").timestamp(at(1));
    one.append_batch(&[early(), early(), early()]).unwrap();
    assert_eq!(one.max_timestamp().unwrap(), Some((0, at(100))));
    for _ in 0..3 {
        clock.advance(Duration::from_nanos(1));
        three.append(early()).unwrap();
    }
    assert_eq!(three.max_timestamp().unwrap(), Some((2, at(103))));
}

/// The same in memory, hot, and cold after a reopen.
fn each_way(run: impl Fn(&Log), again: impl Fn(&Log)) {
    let log = Log::in_memory().unwrap();
    run(&log);
    again(&log);
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    run(&log);
    again(&log);
    log.close(Duration::from_secs(30)).unwrap();
    again(&Log::open(dir.path()).unwrap());
}

#[test]
fn t_13_earliest_and_latest_after_delete_records() {
    let run = |log: &Log| {
        // Five frames of 40 bytes to a segment.
        let topic = log.create_topic("t", TopicConfig::new().segment_bytes(200)).unwrap();
        let partition = topic.partition(0).unwrap();
        (0..15).for_each(|_| drop(partition.append(Record::new("12345678")).unwrap()));
        assert_eq!(partition.delete_records(6).unwrap(), 6);
    };
    each_way(run, |log| {
        let partition = log.topic("t").unwrap().partition(0).unwrap();
        assert_eq!((partition.start_offset(), partition.end_offset()), (6, 15));
        assert_eq!(partition.segments(), [5, 10]);
        let mut consumer = log.consumer().assign([tp(0)]).unwrap();
        assert_eq!(poll(&mut consumer), (6..15).collect::<Vec<_>>());
        // Below the start: an error of who reads himself, the reset policy of who consumes.
        let error = partition.reader(5).unwrap_err();
        assert_eq!((error.kind(), error.offset_range()), (ErrorKind::OffsetOutOfRange, Some((6, 15))));
        consumer.seek(&tp(0), 3).unwrap();
        assert_eq!(poll(&mut consumer)[0], 6);
        let mut strict = log.consumer().offset_reset(OffsetReset::None).assign([tp(0)]).unwrap();
        strict.seek(&tp(0), 3).unwrap();
        let error = strict.poll(Duration::ZERO).unwrap_err();
        assert_eq!((error.kind(), error.offset_range()), (ErrorKind::OffsetOutOfRange, Some((6, 15))));
        // Below the start there is nothing to delete, beyond the end neither.
        assert_eq!(partition.delete_records(2).unwrap(), 6);
        let error = partition.delete_records(16).unwrap_err();
        assert_eq!((error.kind(), error.offset_range()), (ErrorKind::OffsetOutOfRange, Some((6, 15))));
    });
}

#[test]
fn l_27_delete_records_takes_whole_segments() {
    let topic = Log::in_memory().unwrap().create_topic("t", TopicConfig::new().segment_bytes(200)).unwrap();
    let partition = topic.partition(0).unwrap();
    (0..15).for_each(|_| drop(partition.append(Record::new("12345678")).unwrap()));
    for (before, segments) in [(1, 3), (6, 2), (15, 1)] {
        assert_eq!(partition.delete_records(before).unwrap(), before);
        assert_eq!((partition.start_offset(), partition.segments().len()), (before, segments));
    }
    assert_eq!(partition.append(Record::new("next")).unwrap().offset(), 15);
}

#[test]
fn t_15_the_search_begins_at_the_start() {
    let run = |log: &Log| {
        let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
        for i in 0..100 {
            partition.append(Record::new("x").timestamp(at(i))).unwrap();
        }
        partition.delete_records(30).unwrap();
    };
    each_way(run, |log| {
        let partition = log.topic("t").unwrap().partition(0).unwrap();
        assert_eq!(partition.offset_for_time(at(20)).unwrap(), Some((30, at(30))));
        assert_eq!(partition.offset_for_time(at(31)).unwrap(), Some((31, at(31))));
        assert_eq!(partition.max_timestamp().unwrap(), Some((99, at(99))));
    });
}

/// A log in memory gives the memory of deleted records to those that come.
#[test]
fn deleted_records_make_room_in_memory() {
    let log = Log::builder().memory_limit(1 << 20).in_memory().unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    let value = [7; 10_000];
    for _ in 0..1_000 {
        if let Err(error) = partition.append(Record::new(&value)) {
            assert_eq!(error.kind(), ErrorKind::NoMemory);
            partition.delete_records(partition.end_offset()).unwrap();
            partition.append(Record::new(&value)).unwrap();
        }
    }
    assert_eq!(partition.end_offset(), 1_000);
    assert!(partition.start_offset() > 0);
}
