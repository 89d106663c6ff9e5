//! Stories of forks: a process that forks goes on as if it had not, and its fork is told so, waits for nobody and
//! changes no file.

use std::collections::BTreeMap;
use std::io::{Read, pipe};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::error::{ErrorKind, Result};
use crate::log::Log;
use crate::log::catalog::TopicConfig;
use crate::log::opening::LogBuilder;
use crate::partition::delivery::Durability;
use crate::record::Record;
use crate::storage::chunk::fork;
use crate::topic_partition::TopicPartition;

const SOON: Duration = Duration::from_secs(20);

fn open(dir: &Path) -> Result<Log> {
    LogBuilder::default().memory_budget(1 << 20).open(dir)
}

/// Waits for a fork, which must have met nothing that it did not expect.
#[track_caller]
fn wait(child: Pid) {
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
}

#[track_caller]
fn forked<T>(result: Result<T>) {
    assert_eq!(result.err().map(|e| e.kind()), Some(ErrorKind::Forked));
}

/// Names and bytes of all files.
fn files(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else {
            into.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
}

/// A line for the table of the fault suite, which these belong to: only this crate may fork.
fn tell(test: &str) {
    println!(r#"{{"test":"{test}","seed":0,"cycles":1,"acked":0,"lost":0,"wrong":0,"panics":0,"secs":0.0}}"#);
}

/// What is appended stays where it is until somebody waits for it.
fn idle() -> TopicConfig {
    TopicConfig::new().partitions(2).block_linger(Duration::from_secs(3600))
}

#[test]
fn a_fork_is_told_so_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ours = dir.path().join("ours");
    let log = open(&ours).unwrap();
    let topic = log.create_topic("t", idle()).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(Record::new("before")).unwrap();
    let mut appender = topic.partition(1).unwrap().appender().unwrap();
    appender.append(Record::new("before")).unwrap();
    let producer = log.producer().durability(Durability::Disk).build().unwrap();
    let mut consumer = log.consumer_group("g").unwrap().subscribe(["t"]).unwrap();
    let held = consumer.poll(Duration::ZERO).unwrap();
    consumer.commit().unwrap();
    let mut reader = partition.reader(0).unwrap();
    reader.try_next().unwrap();
    // Nobody works on it: a fork at any other moment would have them stand still as well.
    log.sync().unwrap();
    partition.append(Record::new("not written")).unwrap();
    let delivery = producer.send(&topic, Record::new("sent").partition(0)).unwrap();
    let end = partition.end_offset();
    let mut before = BTreeMap::new();
    files(&ours, &mut before);

    // In the fork everything is moved to where it is dropped.
    let all = (log, topic, partition, appender, producer, delivery, consumer, held, reader);
    let mut all = Some(all);
    let child = fork(|| {
        let (log, topic, partition, mut appender, producer, delivery, mut consumer, held, mut reader) =
            all.take().unwrap();
        forked(partition.append(Record::new("fork")));
        forked(partition.append_batch(&[Record::new("fork"), Record::new("fork")]));
        forked(appender.append(Record::new("fork")));
        forked(appender.claim(10));
        forked(producer.send(&topic, Record::new("fork")));
        forked(delivery.wait_timeout(SOON));
        forked(partition.wait_written(end, SOON));
        forked(partition.wait_durable(end, SOON));
        forked(partition.wait_durable(end, Duration::MAX));
        forked(reader.try_next());
        forked(reader.read(1));
        forked(partition.reader(0).and_then(|mut reader| reader.try_next().map(drop)));
        forked(consumer.poll(SOON));
        forked(consumer.commit());
        forked(partition.delete_records(1));
        forked(log.topic("t"));
        forked(log.create_topic("u", TopicConfig::new()));
        forked(log.delete_topic("t"));
        forked(topic.alter(TopicConfig::new().max_record_bytes(5_000)));
        forked(log.sync());
        forked(log.verify());
        forked(log.clone().close(SOON));
        assert_eq!(open(&ours).err().map(|e| e.kind()), Some(ErrorKind::Locked));
        drop((held, consumer, appender, reader, delivery, producer, partition, topic, log));
    });
    wait(child);
    let mut after = BTreeMap::new();
    files(&ours, &mut after);
    assert!(before == after, "the fork changed a file");

    let (log, topic, partition, mut appender, producer, delivery, mut consumer, held, reader) =
        all.take().unwrap();
    assert_eq!(open(&ours).err().map(|e| e.kind()), Some(ErrorKind::Locked));
    delivery.wait().unwrap();
    assert_eq!(partition.append(Record::new("after")).unwrap().offset(), end);
    appender.append(Record::new("after")).unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    assert_eq!(consumer.committed(&TopicPartition::new("t", 0)).unwrap(), Some(1));
    drop((topic, partition, appender, producer, consumer, held, reader));
    log.close(SOON).unwrap();
    let log = open(&ours).unwrap();
    assert!(log.recovery_report().clean);
    let ends = [0, 1].map(|n| log.topic("t").unwrap().partition(n).unwrap().end_offset());
    assert_eq!(ends, [end + 1, 2]);
    tell("20 fork: told so, changes no file, waits for nobody");
}

/// The lock was still held by the fork, which shares it, when its parent had closed the log.
#[test]
fn a_log_closed_by_a_process_that_forked_can_be_opened_while_the_fork_lives() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let (mut goes_on, lives) = pipe().unwrap();
    let mut both = Some((log, lives));
    let child = fork(|| {
        let (log, lives) = both.take().unwrap();
        drop(lives);
        goes_on.read_to_end(&mut Vec::new()).unwrap();
        // Letting go of it now takes it from nobody.
        drop(log);
    });
    let (log, lives) = both.take().unwrap();
    log.close(SOON).unwrap();
    let log = open(dir.path()).unwrap();
    drop(lives);
    wait(child);
    assert_eq!(open(dir.path()).err().map(|e| e.kind()), Some(ErrorKind::Locked));
    drop(log);
    open(dir.path()).unwrap();
    tell("20 fork: its parent closes the log while it lives");
}

/// An in-memory log has no files that a fork could spoil; but nobody would serve who waits there.
#[test]
fn a_fork_is_told_so_of_a_log_in_memory() {
    let log = Log::in_memory().unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    partition.append(Record::new("one")).unwrap();
    let mut both = Some((log, partition));
    wait(fork(|| {
        let (log, partition) = both.take().unwrap();
        forked(partition.append(Record::new("two")));
        forked(log.create_topic("u", TopicConfig::new()));
        drop((log, partition));
    }));
    let (_log, partition) = both.take().unwrap();
    assert_eq!(partition.append(Record::new("two")).unwrap().offset(), 1);
}
