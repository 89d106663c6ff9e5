//! Many threads on one log, in a program of its own: what the race detector (`.ci/sanitizers`) runs, and `cargo test` for
//! what is read.
//!
//! It has its own `main`, since the harness of tests is not compiled for the detector, and what it does not see of another's
//! locks it takes for races. For the same reason threads meet here by locks and channels that are compiled with this.
//!
//! `TAPELOG_RACES=n` does all of it n times.

#![cfg_attr(not(unix), allow(dead_code, unused_imports))]
#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

#[path = "faults/report.rs"]
#[allow(dead_code, unused_imports)] // shared with the fault suite
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::spawn;
use std::time::Duration;

use crossbeam::channel::unbounded;
use tapelog::consumer::WaitStrategy;
use tapelog::{Compression, Log, Partition, Producer, Record, Topic, TopicConfig, TopicPartition};

use report::{Run, run};

const SOON: Duration = Duration::from_secs(120);
const WRITERS: u64 = 3;

/// The `n`th value of a writer: from this a reader knows what must follow.
fn value(writer: u64, n: u64) -> Vec<u8> {
    let len = if n.is_multiple_of(997) { 70_000 } else { 16 + (n * 31 % 400) as usize };
    writer.to_le_bytes().into_iter().chain(n.to_le_bytes()).cycle().take(len).collect()
}

/// Says what a value is, which must be one of ours as it was written.
fn read(bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (writer, n) = (word(0), word(8));
    assert!(bytes == value(writer, n), "record {n} of writer {writer} has other bytes");
    (writer, n)
}

/// In how many records each writer's follow each other, and that they do.
#[derive(Default)]
struct Order([u64; WRITERS as usize]);

impl Order {
    fn take(&mut self, bytes: &[u8]) {
        let (writer, n) = read(bytes);
        assert_eq!(n, self.0[writer as usize], "order of writer {writer}");
        self.0[writer as usize] += 1;
    }

    fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// A place for a log: the smallest memory that there is, so that what was written leaves it all the time.
fn open(dir: &tempfile::TempDir) -> Log {
    Log::builder().memory_budget(256 << 10).max_block(SOON).open(dir.path().join("log")).unwrap()
}

fn config(partitions: u32) -> TopicConfig {
    let small = TopicConfig::new().partitions(partitions).segment_bytes(300_000);
    small.compression(Compression::Lz4).block_linger(Duration::from_millis(1))
}

/// Reads a partition until all of `writers` records are there, by pieces of `some` records or one by one where that is 0.
fn follow(partition: &Partition, expected: u64, some: usize) -> u64 {
    let mut reader = partition.reader(0).unwrap();
    let mut order = Order::default();
    while order.total() < expected {
        if some == 0 {
            if let Some(record) = reader.try_next().unwrap() {
                order.take(record.value().unwrap());
            }
        } else {
            reader.read(some).unwrap().iter().for_each(|r| order.take(r.value().unwrap()));
        }
    }
    order.total()
}

/// Several append to one partition and to one each, some wait for the disk, one flushes all; readers follow in the hot tail,
/// fall behind it and catch up with it.
fn writers_readers_and_a_flush(partitions: u64, each: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(&dir));
    let topic = log.create_topic("t", config(partitions as u32)).unwrap();
    let all: Vec<Partition> = (0..partitions).map(|n| topic.partition(n as u32).unwrap()).collect();
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let partition = all[(writer % partitions) as usize].clone();
            spawn(move || {
                let mut n = 0;
                while n < each {
                    let values: Vec<_> = (n..each.min(n + 1 + n % 5)).map(|n| value(writer, n)).collect();
                    let records: Vec<_> = values.iter().map(Record::new).collect();
                    n += records.len() as u64;
                    let delivery = partition.append_batch(&records).unwrap();
                    if n.is_multiple_of(500) {
                        partition.wait_durable(delivery.offset(), SOON).unwrap();
                    }
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..partitions)
        .flat_map(|n| [0, 3, 1_000].map(|some| (n, some)))
        .map(|(n, some)| {
            let here = (0..WRITERS).filter(|writer| writer % partitions == n).count() as u64;
            let partition = all[n as usize].clone();
            spawn(move || follow(&partition, here * each, some))
        })
        .collect();
    let flusher = spawn({
        let (log, done) = (Arc::clone(&log), Arc::clone(&done));
        move || {
            while !done.load(Ordering::Acquire) {
                log.sync().unwrap();
            }
        }
    });
    writers.into_iter().for_each(|w| w.join().unwrap());
    let read: u64 = readers.into_iter().map(|r| r.join().unwrap()).sum();
    assert_eq!(read, 3 * WRITERS * each);
    done.store(true, Ordering::Release);
    flusher.join().unwrap();
    drop((all, topic));
    Arc::into_inner(log).unwrap().close(SOON).unwrap();
    read
}

/// One handle appends for itself: one by one, many at once, and in place. A reader spins on what it published, one consumer
/// spins and one sleeps.
fn an_appender_beside_readers(each: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let partition = log.create_topic("t", config(1)).unwrap().partition(0).unwrap();
    let consumers: Vec<_> = [WaitStrategy::Spin, WaitStrategy::Park]
        .into_iter()
        .map(|wait| {
            let builder = log.consumer().wait_strategy(wait);
            let mut consumer = builder.assign([TopicPartition::new("t", 0)]).unwrap();
            spawn(move || {
                let mut order = Order::default();
                while order.total() < each {
                    let records = consumer.poll(SOON).unwrap();
                    records.iter().for_each(|r| order.take(r.value().unwrap()));
                }
                order.total()
            })
        })
        .collect();
    let reader = spawn({
        let partition = partition.clone();
        move || follow(&partition, each, 0)
    });
    let mut appender = partition.appender().unwrap();
    let mut n = 0;
    while n < each {
        match n % 3 {
            0 => drop(appender.append(Record::new(&value(0, n))).unwrap()),
            1 => {
                let bytes = value(0, n);
                let mut claim = appender.claim(bytes.len()).unwrap();
                claim.copy_from_slice(&bytes);
                claim.commit().unwrap();
            }
            _ => {
                let values: Vec<_> = (n..each.min(n + 4)).map(|n| value(0, n)).collect();
                let records: Vec<_> = values.iter().map(Record::new).collect();
                n += records.len() as u64 - 1;
                appender.append_batch(&records).unwrap();
            }
        }
        n += 1;
    }
    let mut read = reader.join().unwrap();
    read += consumers.into_iter().map(|c| c.join().unwrap()).sum::<u64>();
    assert_eq!(read, 3 * each);
    drop((appender, partition));
    log.close(SOON).unwrap();
    read
}

/// Records go to another thread, which keeps some until the log is closed, and again until it is open and written to once
/// more: they stay as they were, and are let go of where they are.
fn records_that_outlive_their_log(each: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let (give, take) = unbounded();
    let mut give = Some(give);
    let (closed, is_closed) = unbounded();
    let keeper = spawn(move || {
        let (mut batches, mut owned) = (Vec::new(), Vec::new());
        for records in &take {
            let records: tapelog::Records = records;
            owned.extend(records.iter().step_by(7).map(|r| r.into_owned()));
            // Most go at once, on this thread.
            if batches.len() < 20 {
                batches.push(records);
            }
        }
        is_closed.iter().for_each(|()| {
            let held = batches.iter().flat_map(|b| b.iter().map(|r| read(r.value().unwrap())));
            assert!(held.count() > 0);
            owned.iter().for_each(|r| assert_eq!(read(r.value().unwrap()).0, 0));
        });
        owned.len() as u64
    });
    for round in 0..2 {
        let log = open(&dir);
        let partition = log.ensure_topic("t", config(1)).unwrap().partition(0).unwrap();
        let writer = spawn({
            let partition = partition.clone();
            move || {
                (0..each).for_each(|n| drop(partition.append(Record::new(&value(round, n))).unwrap()));
            }
        });
        let mut reader = partition.reader(round * each).unwrap();
        let mut seen = 0;
        while seen < each {
            let records = reader.read(20).unwrap();
            seen += records.len() as u64;
            if let Some(give) = give.as_ref().filter(|_| !records.is_empty()) {
                give.send(records).unwrap();
            }
        }
        give = None;
        writer.join().unwrap();
        drop((reader, partition));
        log.close(SOON).unwrap();
        closed.send(()).unwrap();
    }
    drop(closed);
    keeper.join().unwrap()
}

/// Members of a group come, read, commit and go, while producers send; each record is seen.
fn a_group(each: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(&dir));
    let topic: Topic = log.create_topic("t", config(4)).unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let producer: Arc<Producer> = Arc::new(log.producer().build().unwrap());
    let producers: Vec<_> = (0..2)
        .map(|writer| {
            let (producer, topic, told) = (Arc::clone(&producer), topic.clone(), Arc::clone(&told));
            spawn(move || {
                for n in 0..each {
                    let bytes = value(writer, n);
                    let delivery = producer.send(&topic, Record::new(&bytes).key(&n.to_le_bytes())).unwrap();
                    let told = Arc::clone(&told);
                    delivery.on_complete(move |result| {
                        result.unwrap();
                        told.fetch_add(1, Ordering::AcqRel);
                    });
                }
                producer.flush().unwrap();
            })
        })
        .collect();
    let (saw, seen) = unbounded();
    let done = Arc::new(AtomicBool::new(false));
    let members: Vec<_> = (0..3)
        .map(|member| {
            let group = log.consumer_group("g").unwrap();
            let (saw, done) = (saw.clone(), Arc::clone(&done));
            spawn(move || {
                let mut consumer = group.subscribe(["t"]).unwrap();
                let mut polls = 0;
                while !done.load(Ordering::Acquire) {
                    let records = consumer.poll(Duration::from_millis(1)).unwrap();
                    records.iter().for_each(|r| saw.send(read(r.value().unwrap())).unwrap());
                    if !records.is_empty() {
                        // Whoever lost a partition meanwhile has nothing to commit there.
                        let _ = consumer.commit();
                    }
                    polls += 1;
                    // One leaves now and then, and comes again.
                    if member == 0 && polls % 20 == 0 {
                        consumer.close().unwrap();
                        consumer = group.subscribe(["t"]).unwrap();
                    }
                }
                consumer.close().unwrap();
            })
        })
        .collect();
    drop(saw);
    let mut there = std::collections::HashSet::new();
    while there.len() < 2 * each as usize {
        there.insert(seen.recv_timeout(SOON).unwrap());
    }
    done.store(true, Ordering::Release);
    producers.into_iter().for_each(|p| p.join().unwrap());
    members.into_iter().for_each(|m| m.join().unwrap());
    drop((producer, topic));
    Arc::into_inner(log).unwrap().close(SOON).unwrap();
    assert_eq!(told.load(Ordering::Acquire), 2 * each, "each delivery is told of, before the log is closed");
    there.len() as u64
}

fn all(rounds: u64, run: &mut Run) {
    for _ in 0..rounds {
        run.tally.acked += writers_readers_and_a_flush(1, 1_000);
        run.tally.acked += writers_readers_and_a_flush(WRITERS, 1_000);
        run.tally.acked += an_appender_beside_readers(3_000);
        run.tally.acked += records_that_outlive_their_log(2_000);
        run.tally.acked += a_group(600);
        run.tally.cycles += 5;
    }
}

#[cfg(unix)]
fn main() {
    // As `cargo test` has it: a word is what to run, and `--list` is answered.
    let mut words = std::env::args().skip(1);
    let skips = |word: &str| word.starts_with(char::is_alphabetic) && !"races".contains(word);
    if words.any(|word| word == "--list" || skips(&word)) {
        return;
    }
    let rounds = std::env::var("TAPELOG_RACES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    run("18 races: writers, readers, appender, groups, owned records", |run| all(rounds, run));
}

#[cfg(not(unix))]
fn main() {}
