//! Positions, reset, seek, poll.

#![allow(clippy::unwrap_used)] // helpers of tests may panic

use std::time::Duration;

use tapelog::{
    Consumer, ConsumerBuilder, ErrorKind, Log, OffsetReset, Partition, Record, TopicConfig, TopicPartition,
};

pub(crate) const NOW: Duration = Duration::ZERO;

pub(crate) fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// A log in memory with a topic `t`, and so many records in its partition 0.
pub(crate) fn log_with(partitions: u32, records: u64) -> (Log, Partition) {
    let log = Log::in_memory().unwrap();
    let topic = log.create_topic("t", TopicConfig::new().partitions(partitions)).unwrap();
    let partition = topic.partition(0).unwrap();
    produce(&partition, records);
    (log, partition)
}

pub(crate) fn produce(partition: &Partition, records: u64) {
    for _ in 0..records {
        let value = format!("record {}", partition.end_offset());
        partition.append(Record::new(&value)).unwrap();
    }
}

/// The offsets that one poll returns, which must be consecutive.
pub(crate) fn poll(consumer: &mut Consumer) -> Vec<u64> {
    let records = consumer.poll(NOW).unwrap();
    let offsets: Vec<u64> = records.iter().map(|r| r.offset()).collect();
    assert!(offsets.windows(2).all(|two| two[0] + 1 == two[1]), "{offsets:?}");
    offsets
}

fn assigned(builder: ConsumerBuilder) -> Consumer {
    builder.assign([tp(0)]).unwrap()
}

#[test]
fn o_01_without_a_reset_policy_it_fails() {
    let (log, _) = log_with(1, 2);
    let mut consumer = assigned(log.consumer().offset_reset(OffsetReset::None));
    let error = consumer.poll(NOW).unwrap_err();
    assert_eq!((error.kind(), error.topic(), error.partition()), (ErrorKind::NoOffset, Some("t"), Some(0)));
    consumer.seek(&tp(0), 3).unwrap();
    for _ in 0..2 {
        let error = consumer.poll(NOW).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::OffsetOutOfRange, Some(3)));
        assert_eq!(error.offset_range(), Some((0, 2)));
        assert_eq!((error.topic(), error.partition()), (Some("t"), Some(0)));
        assert_eq!(consumer.position(&tp(0)).unwrap(), 3);
    }
    consumer.seek(&tp(0), 1).unwrap();
    assert_eq!(poll(&mut consumer), [1]);
}

#[test]
fn o_03_out_of_range_with_reset_earliest() {
    let (log, _) = log_with(1, 10);
    let mut consumer = assigned(log.consumer());
    assert_eq!(poll(&mut consumer).len(), 10);
    consumer.seek(&tp(0), 11).unwrap();
    assert_eq!(poll(&mut consumer)[0], 0);
}

#[test]
fn o_05_out_of_range_with_reset_latest() {
    let (log, partition) = log_with(1, 10);
    let mut consumer = assigned(log.consumer().offset_reset(OffsetReset::Latest));
    consumer.seek(&tp(0), 27).unwrap();
    assert!(poll(&mut consumer).is_empty());
    produce(&partition, 10);
    assert_eq!(poll(&mut consumer), (10..20).collect::<Vec<_>>());
}

#[test]
fn o_07_what_is_committed_comes_before_the_reset_policy() {
    let (log, _) = log_with(1, 10);
    let group = log.consumer_group("g").unwrap();
    let by = OffsetReset::By(Duration::from_secs(1));
    for reset in [OffsetReset::Earliest, OffsetReset::Latest, OffsetReset::None, by] {
        let mut consumer = assigned(group.consumer().offset_reset(reset));
        consumer.commit_offsets([(tp(0), 4)]).unwrap();
        assert_eq!(poll(&mut consumer)[0], 4, "{reset:?}");
    }
    for (reset, position) in [(OffsetReset::Earliest, 0), (OffsetReset::Latest, 10)] {
        let mut consumer = assigned(group.consumer().offset_reset(reset));
        consumer.commit_offsets([(tp(0), 11)]).unwrap();
        assert_eq!(consumer.position(&tp(0)).unwrap(), position, "{reset:?}");
    }
    let mut consumer = assigned(group.consumer().offset_reset(OffsetReset::None));
    let error = consumer.poll(NOW).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::OffsetOutOfRange, Some(11)));
}

#[test]
fn o_09_seek() {
    let codecs = [None, Some(tapelog::Compression::Lz4)];
    for codec in codecs {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path().join("d")).unwrap();
        let config = codec.map_or(TopicConfig::new(), |codec| TopicConfig::new().compression(codec));
        let partition = log.create_topic("t", config).unwrap().partition(0).unwrap();
        produce(&partition, 50);
        let mut consumer = assigned(log.consumer().max_poll_records(1));
        consumer.seek_to_end([&tp(0)]).unwrap();
        assert_eq!(consumer.position(&tp(0)).unwrap(), 50);
        assert!(poll(&mut consumer).is_empty());
        consumer.seek_to_beginning([&tp(0)]).unwrap();
        assert_eq!(consumer.position(&tp(0)).unwrap(), 0);
        assert_eq!(poll(&mut consumer), [0]);
        consumer.seek(&tp(0), 25).unwrap();
        assert_eq!(consumer.position(&tp(0)).unwrap(), 25);
        assert_eq!(poll(&mut consumer), [25]);
        drop(consumer);
        log.clone().close(Duration::from_secs(10)).unwrap();
        drop((log, partition));
        // The same from the cold log.
        let log = Log::open(dir.path().join("d")).unwrap();
        let mut consumer = assigned(log.consumer().max_poll_records(1));
        consumer.seek(&tp(0), 25).unwrap();
        assert_eq!(poll(&mut consumer), [25]);
        consumer.seek_to_beginning([&tp(0)]).unwrap();
        assert_eq!(poll(&mut consumer), [0]);
    }
}

#[test]
fn o_11_a_partition_that_is_not_assigned() {
    let (log, _) = log_with(1, 1);
    let mut consumer = log.consumer().build().unwrap();
    let p = &tp(0);
    let calls = [
        consumer.seek(p, 0),
        consumer.seek_to_end([p]),
        consumer.seek_to_beginning([p]),
        consumer.position(p).map(drop),
        consumer.pause([p]),
        consumer.resume([p]),
    ];
    for call in calls {
        let error = call.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IllegalState);
        assert!(error.to_string().contains("No current assignment for partition t-0"), "{error}");
    }
}

#[test]
fn o_13_pause_and_resume() {
    let (log, partition) = log_with(1, 5);
    let mut consumer = assigned(log.consumer());
    assert_eq!(poll(&mut consumer).len(), 5);
    consumer.pause([&tp(0)]).unwrap();
    assert_eq!(consumer.paused(), [tp(0)]);
    produce(&partition, 5);
    assert!(consumer.poll(Duration::from_millis(100)).unwrap().is_empty());
    consumer.resume(&consumer.paused()).unwrap();
    assert_eq!(poll(&mut consumer), (5..10).collect::<Vec<_>>());
}

#[test]
fn o_15_max_poll_records() {
    let (log, _) = log_with(1, 10_000);
    let mut consumer = assigned(log.consumer().max_poll_records(2));
    for first in (0..10_000).step_by(2) {
        assert_eq!(poll(&mut consumer), [first, first + 1]);
    }
    assert!(poll(&mut consumer).is_empty());
}

#[test]
fn o_17_lag_and_lead() {
    let (log, partition) = log_with(1, 1000);
    let mut consumer = assigned(log.consumer().max_poll_records(10));
    assert_eq!(poll(&mut consumer).len(), 10);
    assert_eq!((consumer.lag(&tp(0)).unwrap(), consumer.lead(&tp(0)).unwrap()), (990, 10));
    consumer.pause([&tp(0)]).unwrap();
    produce(&partition, 1);
    assert_eq!(consumer.lag(&tp(0)).unwrap(), 991);
    consumer.seek(&tp(0), 5000).unwrap();
    assert_eq!(consumer.lag(&tp(0)).unwrap(), 0);
    assert_eq!(consumer.lag(&tp(1)).unwrap_err().kind(), ErrorKind::IllegalState);
}

#[test]
fn o_19_offsets_without_an_assignment() {
    let (log, _) = log_with(1, 10_000);
    let consumer = log.consumer().build().unwrap();
    assert_eq!(consumer.end_offsets([tp(0)]).unwrap()[&tp(0)], 10_000);
    assert_eq!(consumer.beginning_offsets([tp(0)]).unwrap()[&tp(0)], 0);
    let error = consumer.end_offsets([tp(1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
}

#[test]
fn o_21_subscribe_and_assign_exclude_each_other() {
    let (log, _) = log_with(1, 1);
    let group = log.consumer_group("g").unwrap();
    let mut consumer = group.subscribe(["t"]).unwrap();
    assert_eq!(consumer.assign([tp(0)]).unwrap_err().kind(), ErrorKind::IllegalState);
    consumer.unsubscribe().unwrap();
    consumer.assign([tp(0)]).unwrap();
    assert_eq!(consumer.subscribe(["t"]).unwrap_err().kind(), ErrorKind::IllegalState);
    consumer.unsubscribe().unwrap();
    consumer.subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut consumer), [0]);
}

#[test]
fn o_23_wakeup() {
    let (log, partition) = log_with(1, 0);
    let mut consumer = assigned(log.consumer());
    let handle = consumer.handle();
    let waker = std::thread::spawn(move || handle.wakeup());
    assert_eq!(consumer.poll(Duration::MAX).unwrap_err().kind(), ErrorKind::Wakeup);
    waker.join().unwrap();
    assert!(poll(&mut consumer).is_empty());

    produce(&partition, 3);
    consumer.handle().wakeup();
    consumer.handle().wakeup();
    assert_eq!(consumer.poll(Duration::MAX).unwrap_err().kind(), ErrorKind::Wakeup);
    assert_eq!(poll(&mut consumer), [0, 1, 2]);
}

#[test]
fn o_25_one_thread_at_a_time() {
    // What takes `&mut self` cannot be called twice at once; that it can be handed over is checked here.
    fn is_send<T: Send>() {}
    is_send::<Consumer>();
    is_send::<ConsumerBuilder>();
}

#[test]
fn o_27_names_that_no_topic_can_have() {
    let (log, _) = log_with(1, 0);
    let name = ";3# ads,{234";
    let place = || TopicPartition::new(name, 0);
    let mut consumer = log.consumer().build().unwrap();
    let calls = [
        log.topic(name).map(drop),
        log.create_topic(name, TopicConfig::new()).map(drop),
        consumer.assign([place()]),
        consumer.end_offsets([place()]).map(drop),
        log.consumer_group("g").unwrap().subscribe([name]).map(drop),
    ];
    for call in calls {
        assert_eq!(call.unwrap_err().kind(), ErrorKind::InvalidTopic);
    }
}
