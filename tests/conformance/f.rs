//! Commits and fencing.

use std::sync::mpsc;
use std::time::Duration;

use crate::o::{NOW, log_with, poll, produce, tp};
use tapelog::{ErrorKind, TopicConfig};

#[test]
fn f_01_commits_from_outside_need_an_empty_group() {
    let (log, _) = log_with(1, 5);
    let group = log.consumer_group("g").unwrap();
    let mut alone = group.consumer().assign([tp(0)]).unwrap();
    alone.commit_offsets([(tp(0), 1)]).unwrap();
    let member = group.subscribe(["t"]).unwrap();
    let error = alone.commit_offsets([(tp(0), 2)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownMemberId);
    drop(member);
    alone.commit_offsets([(tp(0), 3)]).unwrap();
    assert_eq!(group.committed(&tp(0)).unwrap(), Some(3));

    // Who was a member of a group that is empty now.
    let clock = std::sync::Arc::new(tapelog::clock::ManualClock::default());
    let log = tapelog::Log::builder().clock(clock.clone()).in_memory().unwrap();
    log.create_topic("t", TopicConfig::new()).unwrap();
    let group = log.consumer_group("g").unwrap();
    let mut late = group.consumer().max_poll_interval(Duration::from_secs(1)).subscribe(["t"]).unwrap();
    late.poll(NOW).unwrap();
    clock.advance(Duration::from_secs(1));
    let error = late.commit_offsets([(tp(0), 0)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitFailed);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("UNKNOWN_MEMBER_ID"));
}

/// Who commits is told by its handle: a wrong member, instance or generation is a handle that lost its seat, or a
/// record of another stay.
#[test]
fn f_03_wrong_members_instances_and_generations() {
    let (log, _) = log_with(1, 5);
    let group = log.consumer_group("g").unwrap();
    let mut other = log.consumer_group("other").unwrap().subscribe(["t"]).unwrap();
    let foreign = other.poll(NOW).unwrap();
    let mut stale = group.consumer().instance_id("i").subscribe(["t"]).unwrap();
    stale.poll(NOW).unwrap();
    let mut member = group.consumer().instance_id("i").subscribe(["t"]).unwrap();
    let records = member.poll(NOW).unwrap();
    let mut stranger = group.consumer().assign([tp(0)]).unwrap();
    let commit = |consumer: &mut tapelog::Consumer| consumer.commit_offsets([(tp(0), 2)]).unwrap_err().kind();
    assert_eq!(commit(&mut stranger), ErrorKind::UnknownMemberId);
    assert_eq!(commit(&mut stale), ErrorKind::FencedInstanceId);
    let generation = member.commit_record(&foreign.iter().next().unwrap()).unwrap_err();
    assert_eq!(generation.kind(), ErrorKind::CommitFailed);
    member.commit_record(&records.iter().next().unwrap()).unwrap();
    assert_eq!(group.committed(&tp(0)).unwrap(), Some(1));
}

#[test]
fn f_05_a_partition_on_its_way_cannot_be_committed_yet() {
    let (log, _) = log_with(2, 5);
    let group = log.consumer_group("g").unwrap().assignor(tapelog::assignor::Sticky);
    let mut a = group.subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut a).len(), 5);
    let mut b = group.subscribe(["t"]).unwrap();
    assert!(poll(&mut b).is_empty());
    assert_eq!(group.describe().unwrap().state, tapelog::consumer::GroupState::Reconciling);
    let early = b.commit_offsets([(tp(1), 1)]).unwrap_err();
    assert_eq!((early.kind(), early.is_retriable()), (ErrorKind::RebalanceInProgress, true));
    assert_eq!((early.topic(), early.partition()), (Some("t"), Some(1)));
    poll(&mut a);
    assert_eq!(a.commit_offsets([(tp(1), 1)]).unwrap_err().kind(), ErrorKind::CommitFailed, "gone");
    a.commit_offsets([(tp(0), 1)]).unwrap(); // who keeps a partition goes on with it
    b.poll(NOW).unwrap();
    b.commit_offsets([(tp(1), 1)]).unwrap();
}

#[test]
fn f_07_a_replaced_static_member() {
    let (log, _) = log_with(1, 5);
    let group = log.consumer_group("g").unwrap();
    let mut old = group.consumer().instance_id("i").auto_commit(Duration::ZERO).subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut old).len(), 5);
    let mut new = group.consumer().instance_id("i").subscribe(["t"]).unwrap();
    assert_eq!(old.commit().unwrap_err().kind(), ErrorKind::FencedInstanceId);
    let (told, called) = mpsc::channel();
    old.commit_async(move |result| told.send(result).unwrap());
    let result = called.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::FencedInstanceId);
    assert_eq!(old.poll(NOW).unwrap_err().kind(), ErrorKind::FencedInstanceId);
    old.close().unwrap();
    assert_eq!(group.committed(&tp(0)).unwrap(), None);
    assert_eq!(poll(&mut new).len(), 5);
}

#[test]
fn f_09_the_committed_offset_is_the_next_to_read() {
    let (log, partition) = log_with(1, 5);
    let group = log.consumer_group("g").unwrap();
    let mut consumer = group.subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut consumer), [0, 1, 2, 3, 4]);
    assert_eq!(consumer.position(&tp(0)).unwrap(), 5);
    consumer.commit().unwrap();
    assert_eq!(consumer.committed(&tp(0)).unwrap(), Some(5));
    consumer.close().unwrap();
    produce(&partition, 3);
    let mut consumer = group.subscribe(["t"]).unwrap();
    let records = consumer.poll(NOW).unwrap();
    let first = records.iter().next().unwrap();
    assert_eq!(first.offset(), 5);
    consumer.commit_record(&first).unwrap();
    assert_eq!(consumer.committed(&tp(0)).unwrap(), Some(6));
}

#[test]
fn f_11_metadata() {
    let (log, _) = log_with(1, 20);
    let mut consumer = log.consumer_group("g").unwrap().consumer().assign([tp(0)]).unwrap();
    for (offset, metadata) in [(5, Some("foo")), (10, Some("bar")), (5, None), (6, Some(""))] {
        let metadata = metadata.map(str::to_owned);
        consumer.commit_with_metadata([(tp(0), offset, metadata.clone())]).unwrap();
        assert_eq!(consumer.committed_with_metadata(&tp(0)).unwrap(), Some((offset, metadata)));
        assert_eq!(consumer.committed(&tp(0)).unwrap(), Some(offset));
    }
    let long = consumer.commit_with_metadata([(tp(0), 7, Some("m".repeat(4097)))]);
    assert_eq!(long.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(consumer.committed(&tp(0)).unwrap(), Some(6));
}

#[test]
fn f_13_asynchronous_commits_are_called_back_in_order() {
    let (log, _) = log_with(1, 5);
    let mut consumer =
        log.consumer_group("g").unwrap().consumer().max_poll_records(1).assign([tp(0)]).unwrap();
    let (told, called) = mpsc::channel();
    for n in 1..=5 {
        assert_eq!(poll(&mut consumer).len(), 1);
        let told = told.clone();
        consumer.commit_async(move |result| told.send((n, result.is_ok())).unwrap());
    }
    for n in 1..=5 {
        assert_eq!(called.recv_timeout(Duration::from_secs(10)).unwrap(), (n, true));
    }
    assert_eq!(consumer.committed(&tp(0)).unwrap(), Some(5));
}

#[test]
fn f_15_commits_of_single_partitions() {
    let (log, _) = log_with(2, 5);
    let mut consumer = log.consumer_group("g").unwrap().consumer().assign([tp(0), tp(1)]).unwrap();
    let positions = |c: &mut tapelog::Consumer| [c.position(&tp(0)).unwrap(), c.position(&tp(1)).unwrap()];
    let before = positions(&mut consumer);
    consumer.commit_offsets([(tp(0), 3)]).unwrap();
    assert_eq!(consumer.committed(&tp(0)).unwrap(), Some(3));
    assert_eq!(consumer.committed(&tp(1)).unwrap(), None);
    assert_eq!(positions(&mut consumer), before);
}

#[test]
fn f_17_closing_commits_where_that_is_automatic() {
    let (log, _) = log_with(2, 1000);
    let group = log.consumer_group("g").unwrap();
    let mut consumer = group.consumer().auto_commit(Duration::from_secs(5)).subscribe(["t"]).unwrap();
    consumer.poll(NOW).unwrap();
    consumer.seek(&tp(0), 300).unwrap();
    consumer.seek(&tp(1), 500).unwrap();
    consumer.close().unwrap();
    assert_eq!(group.committed(&tp(0)).unwrap(), Some(300));
    assert_eq!(group.committed(&tp(1)).unwrap(), Some(500));
}

#[test]
fn f_19_a_new_subscription_commits_what_it_gives_up() {
    let (log, _) = log_with(2, 1000);
    log.create_topic("other", TopicConfig::new()).unwrap();
    let group = log.consumer_group("g").unwrap();
    let mut consumer = group.consumer().auto_commit(Duration::from_secs(5)).subscribe(["t"]).unwrap();
    consumer.poll(NOW).unwrap();
    consumer.seek(&tp(0), 300).unwrap();
    consumer.seek(&tp(1), 500).unwrap();
    consumer.subscribe(["other"]).unwrap();
    consumer.poll(NOW).unwrap();
    assert_eq!(consumer.assignment()[0].topic(), "other");
    assert_eq!(group.committed(&tp(0)).unwrap(), Some(300));
    assert_eq!(group.committed(&tp(1)).unwrap(), Some(500));
}

#[test]
fn f_21_without_a_group() {
    let (log, _) = log_with(1, 5);
    let mut consumer = log.consumer().assign([tp(0)]).unwrap();
    let records = consumer.poll(NOW).unwrap();
    assert_eq!(records.len(), 5);
    let first = records.iter().next().unwrap();
    let calls = [
        consumer.commit(),
        consumer.commit_record(&first),
        consumer.commit_offsets([(tp(0), 1)]),
        consumer.committed(&tp(0)).map(drop),
        log.consumer().subscribe(["t"]).map(drop),
        log.consumer_group("").map(drop),
    ];
    for call in calls {
        assert_eq!(call.unwrap_err().kind(), ErrorKind::InvalidGroupId);
    }
    let automatic = log.consumer().auto_commit(Duration::from_secs(5)).build();
    assert_eq!(automatic.unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[test]
fn f_23_nothing_is_committed_before_there_is_a_position() {
    let (log, _) = log_with(1, 5);
    let mut consumer = log.consumer_group("g").unwrap().consumer().assign([tp(0)]).unwrap();
    consumer.commit().unwrap();
    assert_eq!(consumer.committed(&tp(0)).unwrap(), None);
}
