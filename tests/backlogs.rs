//! What is still to be read, and since when: backlogs, polls that wait for more than a record, and starvation.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::sync::Arc;
use std::time::Duration;

use tapelog::clock::ManualClock;
use tapelog::consumer::Backlog;
use tapelog::{
    Consumer, ConsumerGroup, ErrorKind, Log, Partition, Record, Timestamp, TopicConfig, TopicPartition,
};

const NOW: Duration = Duration::ZERO;
/// What the frame of a record with no key and a value of at most 8 bytes takes.
const FRAME: u64 = 40;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

struct House {
    clock: Arc<ManualClock>,
    log: Log,
    group: ConsumerGroup,
}

impl House {
    fn new(partitions: u32) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let log = Log::builder().clock(clock.clone()).in_memory().unwrap();
        log.create_topic("t", TopicConfig::new().partitions(partitions)).unwrap();
        let group = log.consumer_group("g").unwrap();
        House { clock, log, group }
    }

    fn partition(&self, number: u32) -> Partition {
        self.log.topic("t").unwrap().partition(number).unwrap()
    }

    /// Appends a record a second.
    fn produce(&self, number: u32, count: u64) {
        for _ in 0..count {
            self.partition(number).append(Record::new("8 bytes.")).unwrap();
            self.clock.advance(secs(1));
        }
    }
}

fn facts(backlog: Backlog) -> (u64, u64, Option<Duration>) {
    (backlog.records, backlog.bytes, backlog.age)
}

#[test]
fn a_frame_is_as_long_as_these_tests_say() {
    let house = House::new(1);
    house.produce(0, 1);
    assert_eq!(house.log.consumer_group("g").unwrap().lag().unwrap().len(), 0, "nobody asked for it");
    let mut consumer = house.group.subscribe(["t"]).unwrap();
    consumer.seek_to_beginning(&[]).unwrap();
    consumer.poll(NOW).unwrap();
    consumer.seek(&tp(0), 0).unwrap();
    assert_eq!(facts(consumer.backlog(&tp(0)).unwrap()), (1, FRAME, Some(secs(1))));
}

#[test]
fn of_a_group_and_of_each_partition() {
    let house = House::new(3);
    house.produce(0, 4);
    house.produce(1, 2);
    let mut consumer = house.group.subscribe(["t"]).unwrap();
    let all = |group: &ConsumerGroup| group.backlog().unwrap();
    let found = all(&house.group);
    assert_eq!(facts(found[&tp(0)]), (4, 4 * FRAME, Some(secs(6))));
    assert_eq!(facts(found[&tp(1)]), (2, 2 * FRAME, Some(secs(2))));
    assert_eq!(facts(found[&tp(2)]), (0, 0, None));
    assert_eq!(facts(found.into_values().sum()), (6, 6 * FRAME, Some(secs(6))));

    let records = consumer.poll(NOW).unwrap();
    assert_eq!(records.len(), 6);
    assert_eq!(facts(all(&house.group)[&tp(0)]), (4, 4 * FRAME, Some(secs(6))), "nothing is committed");
    assert_eq!(facts(consumer.backlog(&tp(0)).unwrap()), (0, 0, None));
    consumer.commit_offsets([(tp(0), 3)]).unwrap();
    assert_eq!(facts(all(&house.group)[&tp(0)]), (1, FRAME, Some(secs(3))));
    house.clock.advance(secs(10));
    assert_eq!(facts(all(&house.group)[&tp(0)]), (1, FRAME, Some(secs(13))));
    consumer.commit().unwrap();
    assert_eq!(facts(all(&house.group).into_values().sum()), (0, 0, None));
}

#[test]
fn exact_after_pause_trim_and_seek() {
    let house = House::new(1);
    let mut consumer = house.group.consumer().max_poll_records(1).subscribe(["t"]).unwrap();
    house.produce(0, 10);
    consumer.poll(NOW).unwrap();
    consumer.pause([&tp(0)]).unwrap();
    house.produce(0, 5);
    consumer.poll(NOW).unwrap();
    assert_eq!(facts(consumer.backlog(&tp(0)).unwrap()), (14, 14 * FRAME, Some(secs(14))));
    house.partition(0).delete_records(6).unwrap();
    assert_eq!(facts(consumer.backlog(&tp(0)).unwrap()), (9, 9 * FRAME, Some(secs(9))));
    assert_eq!(house.group.backlog().unwrap()[&tp(0)], consumer.backlog(&tp(0)).unwrap());
    house.partition(0).delete_records(15).unwrap();
    assert_eq!(facts(consumer.backlog(&tp(0)).unwrap()), (0, 0, None));
    consumer.resume([&tp(0)]).unwrap();
    consumer.seek(&tp(0), 1_000).unwrap();
    assert_eq!(facts(consumer.backlog(&tp(0)).unwrap()), (0, 0, None), "beyond the end");
    let future = Record::new("x").timestamp(Timestamp::MAX);
    house.partition(0).append(future).unwrap();
    assert_eq!(facts(house.group.backlog().unwrap()[&tp(0)]), (1, FRAME, Some(NOW)));
}

// ---- min_bytes

fn choosy(house: &House, min_bytes: u64) -> Consumer {
    let builder = house.group.consumer().min_bytes(min_bytes as usize);
    let mut consumer = builder.subscribe(["t"]).unwrap();
    assert_eq!(consumer.poll(NOW).unwrap().len(), 0);
    consumer
}

#[test]
fn a_poll_that_waits_returns_when_enough_is_there() {
    let house = House::new(2);
    let mut consumer = choosy(&house, 3 * FRAME);
    let waits = |mut consumer: Consumer| {
        std::thread::spawn(move || {
            let records = consumer.poll(Duration::MAX).unwrap();
            (records.len(), consumer)
        })
    };
    house.produce(0, 1);
    house.produce(1, 1);
    let poll = waits(consumer);
    house.produce(0, 1);
    let (count, back) = poll.join().unwrap();
    assert_eq!(count, 3, "over all partitions together");
    consumer = back;
    // Enough is what it says, from what is left: the same again.
    house.produce(1, 2);
    let poll = waits(consumer);
    house.produce(1, 1);
    assert_eq!(poll.join().unwrap().0, 3);
}

#[test]
fn without_time_it_returns_what_there_is() {
    let house = House::new(1);
    let mut consumer = choosy(&house, 3 * FRAME);
    house.produce(0, 2);
    assert_eq!(consumer.poll(NOW).unwrap().len(), 2);
    house.produce(0, 2);
    assert_eq!(consumer.poll(Duration::from_millis(1)).unwrap().len(), 2, "its time is over");
    assert_eq!(consumer.poll(Duration::from_millis(1)).unwrap().len(), 0);
}

#[test]
fn a_wake_up_or_trouble_ends_the_wait_and_loses_nothing() {
    let house = House::new(2);
    let mut consumer = choosy(&house, 3 * FRAME);
    house.produce(0, 2);
    consumer.handle().wakeup();
    assert_eq!(consumer.poll(Duration::MAX).unwrap_err().kind(), ErrorKind::Wakeup);
    assert_eq!(consumer.position(&tp(0)).unwrap(), 0);
    // A partition whose position is out of range is heard at once.
    let mut strict = house.log.consumer().min_bytes(1000).offset_reset(tapelog::OffsetReset::None);
    strict = strict.max_poll_records(10);
    let mut strict = strict.assign([tp(0), tp(1)]).unwrap();
    strict.seek(&tp(0), 0).unwrap();
    strict.seek(&tp(1), 77).unwrap();
    assert_eq!(strict.poll(Duration::MAX).unwrap().len(), 2);
    assert_eq!(strict.poll(Duration::MAX).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
}

#[test]
fn a_full_poll_is_enough() {
    let house = House::new(1);
    let builder = house.group.consumer().min_bytes(1_000_000).max_poll_records(4);
    let mut consumer = builder.subscribe(["t"]).unwrap();
    house.produce(0, 6);
    assert_eq!(consumer.poll(Duration::MAX).unwrap().len(), 4);
    assert_eq!(consumer.poll(NOW).unwrap().len(), 2);
}

#[test]
fn what_is_paused_is_not_there() {
    let house = House::new(2);
    let mut consumer = choosy(&house, 2 * FRAME);
    house.produce(0, 1);
    house.produce(1, 1);
    consumer.pause([&tp(1)]).unwrap();
    assert_eq!(consumer.poll(Duration::from_millis(1)).unwrap().len(), 1);
    house.produce(0, 1);
    consumer.resume([&tp(1)]).unwrap();
    assert_eq!(consumer.poll(Duration::MAX).unwrap().len(), 2);
}

/// What waited for more goes with its partition: the next owner reads it, and nothing was committed for it.
#[test]
fn who_loses_a_partition_while_it_waits_has_read_nothing() {
    let house = House::new(1);
    let builder = house.group.consumer().min_bytes(1000).auto_commit(NOW);
    let mut first = builder.subscribe(["t"]).unwrap();
    first.poll(NOW).unwrap();
    house.produce(0, 3);
    let handle = first.handle();
    let waits = std::thread::spawn(move || (first.poll(Duration::MAX).unwrap_err().kind(), first));
    handle.wakeup();
    let (woken, first) = waits.join().unwrap();
    assert_eq!(woken, ErrorKind::Wakeup);
    first.close().unwrap();
    assert_eq!(house.group.subscribe(["t"]).unwrap().poll(NOW).unwrap().len(), 3);
}

#[test]
fn more_than_a_poll_returns_cannot_be_asked_for() {
    let house = House::new(1);
    let builder = house.group.consumer().max_poll_bytes(100).min_bytes(101);
    assert_eq!(builder.build().unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert!(house.group.consumer().min_bytes(0).build().is_ok());
}

// ---- starvation

#[test]
fn starvation_is_told_while_there_is_something_to_read() {
    let house = House::new(2);
    let mut consumer = house.group.consumer().max_poll_records(2).subscribe(["t"]).unwrap();
    let handle = consumer.handle();
    let starved = |handle: &tapelog::consumer::ConsumerHandle| {
        let member = house.group.describe().unwrap().members[0].starved_for;
        assert_eq!(member, handle.starved_for());
        member
    };
    assert_eq!(consumer.poll(NOW).unwrap().len(), 0);
    house.clock.advance(secs(50));
    assert_eq!(starved(&handle), None, "there is nothing");
    house.produce(0, 3);
    assert_eq!(starved(&handle), Some(secs(53)), "since a poll found nothing");
    assert_eq!(consumer.poll(NOW).unwrap().len(), 2);
    assert_eq!(starved(&handle), Some(NOW));
    house.clock.advance(secs(7));
    assert_eq!(starved(&handle), Some(secs(7)));
    consumer.pause([&tp(0)]).unwrap();
    assert_eq!(starved(&handle), None, "what is paused does not count");
    consumer.resume([&tp(0)]).unwrap();
    assert_eq!(starved(&handle), Some(secs(7)));
    assert_eq!(consumer.poll(NOW).unwrap().len(), 1);
    assert_eq!(starved(&handle), None);
    consumer.seek(&tp(0), 0).unwrap();
    assert_eq!(starved(&handle), Some(NOW));
    // What fails feeds nobody.
    house.clock.advance(secs(1));
    handle.wakeup();
    consumer.poll(NOW).unwrap_err();
    assert_eq!(starved(&handle), Some(secs(1)));
    drop(consumer);
    assert_eq!(handle.starved_for(), None);
}
