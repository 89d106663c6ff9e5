//! Many at once: threads that append, flush and read, and more partitions than there is memory for.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tapelog::{Compression, Log, Partition, Record, TopicConfig};

const SOON: Duration = Duration::from_secs(60);

/// The `n`th value of a writer: from this the reader knows what must follow.
fn value(writer: u64, n: u64) -> Vec<u8> {
    let len = if n.is_multiple_of(997) { 70_000 } else { 16 + (n * 31 % 400) as usize };
    writer.to_le_bytes().into_iter().chain(n.to_le_bytes()).cycle().take(len).collect()
}

/// Follows a partition from `from` until `done` and its end, checking every record; returns how many.
fn follow(partition: &Partition, from: u64, done: &AtomicBool, lag: usize) -> u64 {
    let mut reader = partition.reader(from).unwrap();
    let mut next = from;
    let mut of_writer = [None; 4];
    loop {
        let over = done.load(Ordering::Acquire);
        let end = partition.end_offset();
        let records = reader.read(lag).unwrap();
        for record in &records {
            assert_eq!(record.offset(), next);
            next += 1;
            let bytes = record.value().unwrap();
            let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            let (writer, n) = (word(0), word(8));
            assert!(bytes == value(writer, n), "offset {}", record.offset());
            if let Some(before) = of_writer[writer as usize].replace(n) {
                assert_eq!(n, before + 1, "order of writer {writer}");
            }
        }
        if over && next == end {
            return next - from;
        }
    }
}

/// Two write, one flushes, three read (one of them a little at a time, from far behind, so that it goes from cold to
/// hot and falls behind again), for a second each on one and on two partitions.
#[test]
fn threads_append_flush_and_read_at_once() {
    for partitions in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let builder = || Log::builder().memory_budget(512 << 10).max_block(SOON);
        let log = builder().open(dir.path()).unwrap();
        let config = TopicConfig::new()
            .partitions(partitions)
            .compression(Compression::Lz4)
            .segment_bytes(1 << 20)
            .block_linger(Duration::from_millis(1));
        let topic = log.create_topic("t", config).unwrap();
        let all: Vec<_> = (0..partitions).map(|n| topic.partition(n).unwrap()).collect();
        let end = Instant::now() + Duration::from_secs(1);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2u64)
                .map(|writer| {
                    let partition = &all[writer as usize % all.len()];
                    scope.spawn(move || {
                        let mut n = 0;
                        while Instant::now() < end {
                            let values: Vec<_> = (n..n + 1 + n % 5).map(|n| value(writer, n)).collect();
                            let records: Vec<_> = values.iter().map(Record::new).collect();
                            n += records.len() as u64;
                            let delivery = partition.append_batch(&records).unwrap();
                            if n.is_multiple_of(1_000) {
                                partition.wait_durable(delivery.offset(), SOON).unwrap();
                            }
                        }
                        n
                    })
                })
                .collect();
            let readers: Vec<_> = all
                .iter()
                .flat_map(|p| [(p, 1_000_000), (p, 100), (p, 3)])
                .map(|(p, lag)| {
                    scope.spawn({
                        let done = &done;
                        move || follow(p, 0, done, lag)
                    })
                })
                .collect();
            let flusher = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    log.sync().unwrap();
                }
            });
            let written: u64 = writers.into_iter().map(|w| w.join().unwrap()).sum();
            done.store(true, Ordering::Release);
            let read: u64 = readers.into_iter().map(|r| r.join().unwrap()).sum();
            flusher.join().unwrap();
            assert_eq!(read, written * 3);
            assert!(written > 1_000, "{written}");
        });
        let ends: Vec<u64> = all.iter().map(Partition::end_offset).collect();
        drop((all, topic, log));
        let log = builder().open(dir.path()).unwrap();
        assert!(!log.recovery_report().has_losses());
        for (number, end) in (0..).zip(ends) {
            let partition = log.topic("t").unwrap().partition(number).unwrap();
            assert_eq!(follow(&partition, 0, &AtomicBool::new(true), 1_000_000), end);
        }
    }
}

/// Two thousand partitions with a record each, in memory for two hundred, and more files than a process may have open by
/// default: those that are idle give theirs up.
#[test]
fn many_partitions_share_a_small_memory() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Log::builder().memory_budget(1 << 20).max_block(SOON).open(dir.path()).unwrap();
    let log = open();
    let topic = log.create_topic("t", TopicConfig::new().partitions(2_000)).unwrap();
    for round in 0..2u64 {
        for number in 0..2_000u32 {
            let delivery =
                topic.partition(number).unwrap().append(Record::new(&number.to_le_bytes())).unwrap();
            assert_eq!(delivery.offset(), round);
        }
    }
    let check = |topic: &tapelog::Topic| {
        for number in 0..2_000u32 {
            let records = topic.partition(number).unwrap().reader(0).unwrap().read(10).unwrap();
            assert_eq!(records.len(), 2);
            assert!(records.iter().all(|r| r.value() == Some(&number.to_le_bytes()[..])));
        }
    };
    check(&topic);
    drop((topic, log));
    let log = open();
    assert!(!log.recovery_report().has_losses());
    check(&log.topic("t").unwrap());
}

/// A reader that holds on to what it read pins memory that is metered apart, and stops nobody.
#[test]
fn readers_that_hold_on_stop_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::builder().memory_budget(512 << 10).max_block(SOON).open(dir.path()).unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    let mut held = Vec::new();
    for n in 0..3_000 {
        partition.append(Record::new(&value(0, n))).unwrap();
        if n < 1_000 && n.is_multiple_of(300) {
            held.push((n, partition.reader(n).unwrap().read(1).unwrap()));
        }
    }
    for (n, records) in &held {
        let record = records.iter().next().unwrap();
        assert_eq!((record.offset(), record.value()), (*n, Some(&value(0, *n)[..])));
    }
    assert_eq!(follow(&partition, 0, &AtomicBool::new(true), 500), 3_000);
}
