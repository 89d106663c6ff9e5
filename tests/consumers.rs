//! Consumers: fairness, limits, trouble, and being woken.

#![allow(clippy::unwrap_used)] // helpers of tests may panic

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tapelog::consumer::{GroupState, WaitStrategy};
use tapelog::{Consumer, Error, ErrorKind, Log, Record, Records, Result, Topic, TopicConfig, TopicPartition};

const NOW: Duration = Duration::ZERO;

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn topic(log: &Log, partitions: u32) -> Topic {
    log.create_topic("t", TopicConfig::new().partitions(partitions)).unwrap()
}

fn produce(topic: &Topic, partition: u32, records: u64) {
    let partition = topic.partition(partition).unwrap();
    for _ in 0..records {
        partition.append(Record::new(&partition.end_offset().to_le_bytes())).unwrap();
    }
}

/// What one poll returns, as (partition, offset).
fn poll(consumer: &mut Consumer) -> Vec<(u32, u64)> {
    consumer.poll(NOW).unwrap().iter().map(|r| (r.partition(), r.offset())).collect()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn partitions_take_turns() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 3);
    produce(&t, 0, 10_000);
    produce(&t, 1, 5);
    produce(&t, 2, 5);
    let mut consumer = log.consumer().max_poll_records(4).assign((0..3).map(tp)).unwrap();
    let partitions = |consumer: &mut Consumer| -> BTreeSet<u32> {
        poll(consumer).into_iter().map(|(partition, _)| partition).collect()
    };
    assert_eq!(partitions(&mut consumer), [0].into());
    assert_eq!(partitions(&mut consumer), [1].into());
    assert_eq!(partitions(&mut consumer), [2].into());
    let rest: BTreeSet<u32> = (0..3).flat_map(|_| partitions(&mut consumer)).collect();
    assert_eq!(rest, [0, 1, 2].into());
}

#[test]
fn max_poll_bytes_is_kept_except_by_a_single_larger_record() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 2);
    for partition in 0..2 {
        for size in [100, 100, 5000, 100] {
            t.partition(partition).unwrap().append(Record::new(&vec![0; size])).unwrap();
        }
    }
    let mut consumer = log.consumer().max_poll_bytes(1000).assign([tp(0), tp(1)]).unwrap();
    let mut seen: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for _ in 0..8 {
        let records = consumer.poll(NOW).unwrap();
        let bytes: usize = records.iter().filter_map(|r| r.value()).map(<[u8]>::len).sum();
        assert!(bytes <= 1000 || records.len() == 1);
        records.iter().for_each(|r| seen.entry(r.partition()).or_default().push(r.offset()));
    }
    assert_eq!(seen, BTreeMap::from([(0, vec![0, 1, 2, 3]), (1, vec![0, 1, 2, 3])]));
}

#[test]
fn a_partition_in_trouble_takes_its_turn_and_starves_nobody() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 2);
    let gone = log.create_topic("gone", TopicConfig::new()).unwrap();
    produce(&gone, 0, 2);
    let lost = TopicPartition::new("gone", 0);
    let mut consumer = log.consumer().max_poll_records(3).assign([tp(0), tp(1), lost.clone()]).unwrap();
    assert_eq!(poll(&mut consumer).len(), 2);
    log.delete_topic("gone").unwrap();
    (0..2).for_each(|p| produce(&t, p, 30));
    let (mut read, mut errors) = (Vec::new(), Vec::<Error>::new());
    for _ in 0..60 {
        match consumer.poll(NOW) {
            Ok(records) => read.extend(records.iter().map(|r| (r.partition(), r.offset()))),
            Err(error) => errors.push(error),
        }
    }
    read.sort_unstable();
    let expected: Vec<_> = (0..2).flat_map(|p| (0..30).map(move |offset| (p, offset))).collect();
    assert_eq!(read, expected);
    assert!(errors.len() > 3, "told once per turn");
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
        assert_eq!((error.topic(), error.partition(), error.offset()), (Some("gone"), Some(0), Some(2)));
    }
    // Waiting tells it as well, rather than for ever.
    assert_eq!(kind(consumer.poll(Duration::MAX)), ErrorKind::UnknownTopicOrPartition);
    consumer.assign([tp(0)]).unwrap();
    assert_eq!(consumer.position(&tp(0)).unwrap(), 30, "who stays keeps its position");
    assert!(poll(&mut consumer).is_empty());
    assert_eq!(kind(consumer.assign([tp(0), lost])), ErrorKind::UnknownTopicOrPartition);
    assert_eq!(consumer.assignment(), [tp(0)], "unchanged");
}

#[test]
fn durable_only_reads_what_survives_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("d")).unwrap();
    let t = topic(&log, 1);
    produce(&t, 0, 3);
    let mut consumer = log.consumer().durable_only(true).assign([tp(0)]).unwrap();
    t.partition(0).unwrap().wait_durable(3, Duration::MAX).unwrap();
    assert_eq!(poll(&mut consumer).len(), 3);
    produce(&t, 0, 2);
    assert!(poll(&mut consumer).is_empty());
    assert!(consumer.poll(Duration::from_millis(5)).unwrap().is_empty());
    // A position between the durable offset and the end is no error.
    consumer.seek(&tp(0), 4).unwrap();
    assert!(poll(&mut consumer).is_empty());
    consumer.seek(&tp(0), 3).unwrap();
    let (_, polled) = poll_while(consumer, || log.sync().unwrap());
    assert_eq!(polled.unwrap(), 2);
}

/// What a consumer that polls for ever, in a thread of its own, gets while something happens.
fn poll_while(mut consumer: Consumer, meanwhile: impl FnOnce()) -> (Consumer, Result<usize>) {
    let waiting = std::thread::spawn(move || {
        let polled = consumer.poll(Duration::MAX).map(|records| records.len());
        (consumer, polled)
    });
    meanwhile();
    waiting.join().unwrap()
}

#[test]
fn whoever_waits_is_woken_by_whatever_matters() {
    for wait in [WaitStrategy::Park, WaitStrategy::Yield, WaitStrategy::Spin] {
        let log = Log::in_memory().unwrap();
        let group = log.consumer_group("g").unwrap();
        let consumer = group.consumer().wait_strategy(wait).subscribe(["t"]).unwrap();
        // A topic comes, then a record.
        let (mut consumer, polled) = poll_while(consumer, || produce(&topic(&log, 2), 1, 1));
        assert_eq!(polled.unwrap(), 1);
        // Partitions come from a member that leaves; nothing was committed.
        let mut other = group.subscribe(["t"]).unwrap();
        assert!(consumer.poll(Duration::from_millis(1)).unwrap().is_empty());
        assert_eq!(poll(&mut other), [(1, 0)]);
        let (consumer, polled) = poll_while(consumer, || drop(other));
        assert_eq!(polled.unwrap(), 1);
        // The log closes.
        let (mut consumer, polled) =
            poll_while(consumer, || log.clone().close(Duration::from_secs(10)).unwrap());
        assert_eq!(kind(polled), ErrorKind::Closed);
        assert_eq!(kind(consumer.poll(NOW)), ErrorKind::Closed);
    }
}

#[test]
fn records_outlive_their_consumer_and_are_used_again() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 1);
    produce(&t, 0, 3);
    let mut consumer = log.consumer().max_poll_records(2).assign([tp(0)]).unwrap();
    let mut records = Records::new();
    assert_eq!(consumer.poll_into(&mut records, NOW).unwrap(), 2);
    assert_eq!(consumer.poll_into(&mut records, NOW).unwrap(), 1);
    drop((consumer, log, t));
    assert_eq!(records.iter().next().unwrap().value(), Some(&2u64.to_le_bytes()[..]));
}

#[test]
fn names_and_settings_that_cannot_be() {
    let log = Log::in_memory().unwrap();
    let group = log.consumer_group("g").unwrap();
    assert_eq!(kind(group.subscribe([";3# ads,{234"])), ErrorKind::InvalidTopic);
    assert_eq!(kind(group.consumer().max_poll_records(0).build()), ErrorKind::InvalidConfig);
    assert_eq!(kind(log.consumer().assign([tp(0)])), ErrorKind::UnknownTopicOrPartition);
    assert_eq!(kind(log.consumer_group("a\nb")), ErrorKind::InvalidGroupId);
    assert_eq!(group.describe().unwrap().state, GroupState::Dead, "nobody joined");
}

/// Cold and hot, one by one and many at a time: nothing is passed over or told twice, and what is kept stays as it was
/// read while the reader uses memory again.
#[test]
fn a_reader_changes_its_pace() {
    let dir = tempfile::tempdir().unwrap();
    let value = |n: u64| format!("{n:0>100}");
    let append = |partition: &tapelog::Partition, numbers: std::ops::Range<u64>| {
        for n in numbers {
            partition.append(Record::new(&value(n))).unwrap();
        }
    };
    let log = Log::open(dir.path()).unwrap();
    append(&log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap(), 0..5000);
    log.close(Duration::from_secs(20)).unwrap();
    let log = Log::open(dir.path()).unwrap();
    let partition = log.topic("t").unwrap().partition(0).unwrap();
    append(&partition, 5000..8000);

    let mut reader = partition.reader(7).unwrap();
    let (mut next, mut step, mut kept) = (7, 0, Vec::new());
    loop {
        for _ in 0..step % 5 {
            let Some(record) = reader.try_next().unwrap() else { break };
            assert_eq!((record.offset(), record.value()), (next, Some(value(next).as_bytes())));
            next += 1;
            assert_eq!(reader.position(), next);
        }
        let records = reader.read(1 + step % 7 * 100).unwrap();
        if records.is_empty() {
            break;
        }
        next += records.len() as u64;
        assert_eq!(reader.position(), next);
        kept.push(records);
        if step == 3 {
            append(&partition, 8000..8100);
        }
        step += 1;
    }
    assert_eq!(next, 8100);
    for record in kept.iter().flatten() {
        assert_eq!(record.value(), Some(value(record.offset()).as_bytes()));
    }
    log.close(Duration::from_secs(20)).unwrap();
}
