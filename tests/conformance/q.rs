//! Share groups, through the public door. The machine behind it has the same rows as unit tests, with the states in
//! between.

use std::sync::Arc;
use std::time::Duration;

use crate::o::{NOW, log_with, produce, tp};
use tapelog::clock::ManualClock;
use tapelog::share::{Acknowledge, AcknowledgeMode, ShareConfig, ShareConsumer, ShareGroup, ShareRecords};
use tapelog::{ErrorKind, Log, OffsetReset, Partition, Timestamp, TopicConfig};

fn config() -> ShareConfig {
    ShareConfig::new().offset_reset(OffsetReset::Earliest)
}

fn group(log: &Log, config: ShareConfig) -> ShareGroup {
    let group = log.share_group("q").unwrap();
    group.alter(config).unwrap();
    group
}

fn explicit(group: &ShareGroup) -> ShareConsumer {
    group.consumer().acknowledge_mode(AcknowledgeMode::Explicit).subscribe(["t"]).unwrap()
}

fn all(records: &ShareRecords) -> Vec<(u64, u16)> {
    records.iter().map(|r| (r.offset(), r.delivery_count())).collect()
}

fn range(group: &ShareGroup) -> (u64, u64) {
    let found = group.describe().unwrap().partitions[&tp(0)];
    (found.start_offset, found.end_offset)
}

/// A log whose clock stands still, with a topic of so many records.
fn still(records: u64) -> (Arc<ManualClock>, Log, Partition) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let log = Log::builder().clock(clock.clone()).in_memory().unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    produce(&partition, records);
    (clock, log, partition)
}

#[test]
fn q_01_records_are_acquired() {
    let (log, _) = log_with(1, 15);
    let group = group(&log, config());
    let mut first = group.consumer().max_poll_records(10).subscribe(["t"]).unwrap();
    assert_eq!(first.poll(NOW).unwrap().len(), 10);
    let mut second = group.subscribe(["t"]).unwrap();
    let records = second.poll(NOW).unwrap();
    assert_eq!(all(&records), (10..15).map(|offset| (offset, 1)).collect::<Vec<_>>());
    assert_eq!(range(&group), (0, 15));
}

#[test]
fn q_03_released_records_come_again() {
    let (log, _) = log_with(1, 15);
    let group = group(&log, config());
    let mut consumer = explicit(&group);
    let records = consumer.poll(NOW).unwrap();
    for record in &records {
        let release = matches!(record.offset(), 12 | 13);
        let acknowledge = if release { Acknowledge::Release } else { Acknowledge::Accept };
        consumer.acknowledge(&record, acknowledge).unwrap();
    }
    assert_eq!(range(&group), (12, 15));
    assert_eq!(all(&consumer.poll(NOW).unwrap()), [(12, 2), (13, 2)]);
}

#[test]
fn q_05_only_who_holds_a_record_settles_it() {
    let (log, _) = log_with(1, 5);
    let group = group(&log, config());
    let (mut first, mut second) = (explicit(&group), explicit(&group));
    let records = first.poll(NOW).unwrap();
    for acknowledge in [Acknowledge::Accept, Acknowledge::Release, Acknowledge::Reject] {
        let record = records.iter().next().unwrap();
        let error = second.acknowledge(&record, acknowledge).unwrap_err();
        assert_eq!(
            (error.kind(), error.topic(), error.offset()),
            (ErrorKind::InvalidRecordState, Some("t"), Some(0))
        );
    }
    assert_eq!(group.describe().unwrap().partitions[&tp(0)].acquired, 5);
    assert!(second.poll(NOW).unwrap().is_empty());
}

#[test]
fn q_07_locks_end_and_deliveries_are_limited() {
    let (clock, log, _partition) = still(1);
    let group = group(&log, config().max_delivery_count(2));
    let mut consumer = explicit(&group);
    for delivery in 1..=2 {
        let records = consumer.poll(NOW).unwrap();
        assert_eq!(all(&records), [(0, delivery)]);
        clock.advance(Duration::from_secs(30));
        let record = records.iter().next().unwrap();
        let error = consumer.acknowledge(&record, Acknowledge::Accept).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRecordState);
        assert_eq!(range(&group).0, u64::from(delivery == 2));
    }
    assert!(consumer.poll(NOW).unwrap().is_empty());
}

#[test]
fn q_09_illegal_transitions_change_nothing() {
    let all = [Acknowledge::Accept, Acknowledge::Release, Acknowledge::Reject];
    for first in all {
        for second in all {
            let (log, _) = log_with(1, 1);
            let group = group(&log, config());
            let mut consumer = explicit(&group);
            let records = consumer.poll(NOW).unwrap();
            let record = records.iter().next().unwrap();
            consumer.acknowledge(&record, first).unwrap();
            let before = group.describe().unwrap();
            let error = consumer.acknowledge(&record, second).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRecordState);
            assert_eq!(group.describe().unwrap(), before);
        }
    }
}

/// A log's start cannot be moved from outside yet: the row itself is
/// `consumer::share::state::tests::q_11_the_log_start_moves`. Here: what is finished moves the group's start.
#[test]
fn q_11_the_start_follows_what_is_finished() {
    let (log, _) = log_with(1, 37);
    let group = group(&log, config());
    let mut consumer = explicit(&group);
    let records = consumer.poll(NOW).unwrap();
    for record in &records {
        match record.offset() {
            2..=6 => consumer.acknowledge(&record, Acknowledge::Accept).unwrap(),
            12..=16 | 22..=26 => consumer.acknowledge(&record, Acknowledge::Release).unwrap(),
            27..=31 => consumer.acknowledge(&record, Acknowledge::Reject).unwrap(),
            _ => {}
        }
    }
    let found = group.describe().unwrap().partitions[&tp(0)];
    assert_eq!((found.start_offset, found.end_offset), (0, 37));
    assert_eq!((found.available, found.acquired, found.lag), (10, 17, 27));
    records.iter().take(2).for_each(|r| consumer.acknowledge(&r, Acknowledge::Accept).unwrap());
    assert_eq!(range(&group), (7, 37));
}
