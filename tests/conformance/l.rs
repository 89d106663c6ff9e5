//! The log itself: append, read, roll, limits, lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tapelog::clock::ManualClock;
use tapelog::topic::TimestampType;
use tapelog::{Clock, ErrorKind, Log, Record, Result, Timestamp, TopicConfig, TopicPartition};

/// The frame of a record with an 8-byte value and nothing else.
const S: u64 = 40;

#[test]
fn l_01_sequential_offsets() -> Result<()> {
    let log = Log::in_memory()?;
    let partition = log.create_topic("t", TopicConfig::new())?.partition(0)?;
    for i in 0..50u64 {
        partition.append(Record::new(&(2 * i).to_le_bytes()))?;
    }
    for i in 0..50u64 {
        let mut reader = partition.reader(i)?;
        let record = reader.try_next()?.unwrap();
        assert_eq!((record.offset(), record.key()), (i, None));
        assert_eq!(record.value(), Some(&(2 * i).to_le_bytes()[..]));
    }
    assert!(partition.reader(50)?.try_next()?.is_none(), "the end is no error");
    Ok(())
}

#[test]
fn l_07_a_record_larger_than_the_limit_comes_alone() -> Result<()> {
    let log = Log::in_memory()?;
    let partition = log.create_topic("t", TopicConfig::new())?.partition(0)?;
    partition.append(Record::new("small"))?;
    partition.append(Record::new(&vec![1; 10_240]))?;
    partition.append(Record::new("small"))?;
    let mut consumer = log.consumer().max_poll_bytes(10_240).assign([TopicPartition::new("t", 0)])?;
    for expected in 0..3 {
        let records = consumer.poll(Duration::ZERO)?;
        let offsets: Vec<u64> = records.iter().map(|r| r.offset()).collect();
        assert_eq!(offsets, [expected]);
    }
    Ok(())
}

#[test]
fn l_11_segments_roll_by_size() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    for log in [Log::in_memory()?, Log::open(dir.path())?] {
        let config = TopicConfig::new().segment_bytes(10 * (S - 1));
        let partition = log.create_topic("t", config)?.partition(0)?;
        for i in 0..11u64 {
            partition.append(Record::new(&i.to_le_bytes()))?;
        }
        assert_eq!(partition.segments(), [0, 9], "nine fit");
    }
    Ok(())
}

#[test]
fn l_13_an_append_larger_than_a_segment_is_refused_whole() -> Result<()> {
    let log = Log::in_memory()?;
    let batch = [Record::new(b"12345678"), Record::new(b"12345678"), Record::new(b"12345678")];
    let exact = log.create_topic("exact", TopicConfig::new().segment_bytes(3 * S))?.partition(0)?;
    assert_eq!(exact.append_batch(&batch)?.offsets(), 0..3);
    let less = log.create_topic("less", TopicConfig::new().segment_bytes(3 * S - 1))?.partition(0)?;
    let error = less.append_batch(&batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordBatchTooLarge);
    assert_eq!((error.topic(), error.partition()), (Some("less"), Some(0)));
    assert_eq!((less.end_offset(), less.segments().len()), (0, 0), "nothing was written");
    Ok(())
}

#[test]
fn l_45_null_is_not_empty() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let partition = log.create_topic("t", TopicConfig::new())?.partition(0)?;
    partition.append(Record::tombstone("k"))?;
    partition.append(Record::new("").key(""))?;
    log.close(Duration::from_secs(30))?;
    let log = Log::open(dir.path())?;
    let records = log.topic("t")?.partition(0)?.reader(0)?.read(10)?;
    let seen: Vec<_> = records.iter().map(|r| (r.key(), r.value())).collect();
    assert_eq!(seen, [(Some(&b"k"[..]), None), (Some(&b""[..]), Some(&b""[..]))]);
    Ok(())
}

#[test]
fn l_57_a_second_open_is_locked_and_changes_nothing() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let partition = log.create_topic("t", TopicConfig::new())?.partition(0)?;
    partition.append(Record::new("a"))?;
    log.sync()?;
    let listing = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        (names, std::fs::read(dir.path().join("root")).unwrap())
    };
    let before = listing();
    let error = Log::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("LOCK"), "names the lock: {error}");
    assert_eq!(listing(), before);
    assert_eq!(partition.append(Record::new("b"))?.offset(), 1);
    Ok(())
}

#[test]
fn l_47_the_log_stamps_where_the_topic_says_so() -> Result<()> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    let log = Log::builder().clock(Arc::clone(&clock)).in_memory()?;
    let stamped = TopicConfig::new().timestamp_type(TimestampType::Append);
    let stamped = log.create_topic("stamped", stamped)?.partition(0)?;
    let created = log.create_topic("created", TopicConfig::new())?.partition(0)?;
    for _ in 0..10 {
        for partition in [&stamped, &created] {
            partition.append(Record::new("x").timestamp(Timestamp::from_millis(1)))?;
        }
    }
    // A clock that is set back does not take the log's time with it.
    clock.set(Timestamp::from_millis(500));
    stamped.append(Record::new("x"))?;
    assert_eq!(created.append(Record::new("x"))?.timestamp(), Timestamp::from_millis(500));
    let times = |p: &tapelog::Partition| -> Result<Vec<i64>> {
        Ok(p.reader(0)?.read(100)?.iter().map(|r| r.timestamp().as_millis()).collect())
    };
    assert_eq!(times(&stamped)?, [1_000; 11]);
    assert_eq!(times(&created)?[..10], [1; 10]);
    Ok(())
}

/// A clock of the user's that panicked in the middle of an append left the lock free and frames behind that no offset
/// counted.
#[test]
fn a_clock_that_panics_leaves_the_partition_whole() -> Result<()> {
    struct Broken(AtomicBool);
    impl Clock for Broken {
        fn now(&self) -> Timestamp {
            assert!(!self.0.load(Ordering::Relaxed), "the clock broke");
            Timestamp::from_millis(7)
        }
    }
    let clock = Arc::new(Broken(AtomicBool::new(false)));
    let log = Log::builder().clock(Arc::clone(&clock)).in_memory()?;
    let partition = log.create_topic("t", TopicConfig::new())?.partition(0)?;
    let stamped = Record::new("given").timestamp(Timestamp::from_millis(1));
    let mut batch = vec![stamped; 40];
    batch.push(Record::new("asks"));
    clock.0.store(true, Ordering::Relaxed);
    let broke = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| partition.append_batch(&batch)));
    assert!(broke.is_err());
    clock.0.store(false, Ordering::Relaxed);
    assert_eq!(partition.end_offset(), 0);
    assert_eq!(partition.append(Record::new("after"))?.offset(), 0);
    let records = partition.reader(0)?.read(100)?;
    assert_eq!(
        records.iter().map(|r| (r.offset(), r.value())).collect::<Vec<_>>(),
        [(0, Some(&b"after"[..]))]
    );
    Ok(())
}
