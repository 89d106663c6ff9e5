//! Administration: topics, settings, offsets of groups, files.

use std::path::Path;
use std::time::Duration;

use crate::o::{NOW, log_with, poll, produce, tp};
use std::sync::Arc;
use tapelog::admin::{DumpedBatch, DumpedEntry, dump_segment};
use tapelog::clock::ManualClock;
use tapelog::consumer::ResetTo;
use tapelog::topic::{SettingSource, SyncPolicy};
use tapelog::{Compression, ErrorKind, Log, Record, Timestamp, TopicConfig};

#[test]
fn a_01_partitions_are_created_and_added() {
    let log = Log::in_memory().unwrap();
    log.validate_create_topic("t", &TopicConfig::new()).unwrap();
    assert!(log.topics().is_empty(), "that was to validate only");
    let topic = log.create_topic("t", TopicConfig::new()).unwrap();
    for error in [
        log.create_topic("t", TopicConfig::new()).unwrap_err(),
        log.validate_create_topic("t", &TopicConfig::new()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::TopicAlreadyExists);
    }
    for error in [
        log.create_topic("u", TopicConfig::new().partitions(0)).unwrap_err(),
        log.validate_create_topic("u", &TopicConfig::new().partitions(0)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidPartitions);
    }
    assert_eq!(
        log.validate_create_topic("__u", &TopicConfig::new()).unwrap_err().kind(),
        ErrorKind::InvalidTopic
    );
    topic.validate_add_partitions(3).unwrap();
    assert_eq!(topic.partitions(), 1);
    topic.add_partitions(3).unwrap();
    assert_eq!(topic.partitions(), 3);
    // Less, as many, none (-22 cannot be said), too many.
    for count in [1, 3, 0, u32::MAX] {
        assert_eq!(topic.validate_add_partitions(count).unwrap_err().kind(), ErrorKind::InvalidPartitions);
        assert_eq!(topic.add_partitions(count).unwrap_err().kind(), ErrorKind::InvalidPartitions);
        assert_eq!(topic.partitions(), 3);
    }
    assert_eq!(log.topic("unknown").unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
    log.delete_topic("t").unwrap();
    for error in
        [topic.add_partitions(4).unwrap_err(), topic.validate_alter(&TopicConfig::new()).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
    }
}

#[test]
fn a_03_a_topic_that_is_created_again_is_another_topic() {
    let (log, _) = log_with(1, 10);
    let id = log.topic("t").unwrap().id();
    let group = log.consumer_group("g").unwrap();
    let mut consumer = group.subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut consumer).len(), 10);
    consumer.commit().unwrap();
    assert_eq!(group.committed(&tp(0)).unwrap(), Some(10));
    log.delete_topic("t").unwrap();
    if let Ok(records) = consumer.poll(NOW) {
        assert!(records.is_empty());
    }
    let topic = log.create_topic("t", TopicConfig::new()).unwrap();
    assert_ne!(topic.id(), id);
    assert_eq!(topic.partition(0).unwrap().end_offset(), 0);
    assert_eq!(group.committed(&tp(0)).unwrap(), None, "old commits do not apply");
    produce(&topic.partition(0).unwrap(), 3);
    // The first poll may still be about the old one.
    let mut read = Vec::new();
    for _ in 0..3 {
        if let Ok(records) = consumer.poll(NOW) {
            read.extend(records.iter().map(|r| r.offset()));
        }
    }
    assert_eq!(read, [0, 1, 2]);
}

#[test]
fn a_05_settings_change_while_the_topic_runs_all_or_none() {
    let log = Log::in_memory().unwrap();
    let topic = log.create_topic("t", TopicConfig::new().segment_bytes(200)).unwrap();
    let set = || {
        let settings = topic.describe().settings.into_iter();
        let own = settings.filter(|s| s.source == SettingSource::Topic);
        own.map(|s| format!("{}={}", s.name, s.value)).collect::<Vec<_>>()
    };
    let all = topic.describe().settings;
    let names: Vec<_> = all.iter().map(|s| s.name).collect();
    let expected =
        ["compression", "segment_bytes", "max_record_bytes", "sync_policy", "timestamp_type", "block_linger"];
    assert_eq!((names, all[2].value.as_str()), (expected.to_vec(), "1048576"));
    assert_eq!((all[2].source, set()), (SettingSource::Default, vec!["segment_bytes=200".to_owned()]));

    // One of them cannot be: none is changed.
    let bad = TopicConfig::new().segment_bytes(400).sync_policy(SyncPolicy::EveryRecords(0));
    assert_eq!(topic.validate_alter(&bad).unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert_eq!(topic.alter(bad).unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert_eq!(set(), ["segment_bytes=200"]);

    let change = TopicConfig::new().max_record_bytes(40).compression(Compression::Lz4);
    topic.validate_alter(&change).unwrap();
    assert_eq!(set(), ["segment_bytes=200"]);
    let partition = topic.partition(0).unwrap();
    partition.append(Record::new("123456789")).unwrap();
    topic.alter(change).unwrap();
    assert_eq!(set(), ["compression=lz4", "segment_bytes=200", "max_record_bytes=40"]);
    // From the next append on.
    assert_eq!(partition.append(Record::new("123456789")).unwrap_err().kind(), ErrorKind::RecordTooLarge);
    assert_eq!(partition.append(Record::new("12345678")).unwrap().offset(), 1);
}

#[test]
fn a_05_a_setting_that_is_unset_follows_the_default_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let config = TopicConfig::new().partitions(2).segment_bytes(200).max_record_bytes(40);
    let topic = log.create_topic("t", config).unwrap();
    let set = |topic: &tapelog::Topic| {
        let settings = topic.describe().settings.into_iter();
        let own = settings.filter(|s| s.source == SettingSource::Topic);
        own.map(|s| format!("{}={}", s.name, s.value)).collect::<Vec<_>>()
    };
    // One of them is none: all stay.
    for wrong in ["retention", "partitions", ""] {
        let error = topic.unset(["segment_bytes", wrong]).unwrap_err();
        assert_eq!((error.kind(), error.topic()), (ErrorKind::InvalidConfig, Some("t")));
    }
    assert_eq!(set(&topic), ["segment_bytes=200", "max_record_bytes=40"]);

    let partition = topic.partition(0).unwrap();
    let long = || Record::new("a value of more than eight bytes");
    assert_eq!(partition.append(long()).unwrap_err().kind(), ErrorKind::RecordTooLarge);
    topic.unset(["max_record_bytes", "compression"]).unwrap();
    assert_eq!(set(&topic), ["segment_bytes=200"]);
    partition.append(long()).unwrap();
    // Every setting can be, and what was unset stays so.
    let names: Vec<_> = topic.describe().settings.iter().map(|s| s.name).collect();
    topic.unset(names).unwrap();
    log.close(Duration::from_secs(30)).unwrap();
    let log = Log::open(dir.path()).unwrap();
    let topic = log.topic("t").unwrap();
    assert_eq!((set(&topic), topic.describe().segment_bytes, topic.partitions()), (vec![], 1 << 30, 2));
    assert_eq!(topic.unset(["block_linger"]).map_err(|e| e.kind()), Ok(()));
}

#[test]
fn a_07_offsets_of_a_group_are_reset_in_every_way() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(3_600_000)));
    let log = Log::builder().clock(Arc::clone(&clock)).in_memory().unwrap();
    let topic = log.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    produce(&topic.partition(0).unwrap(), 200);
    let group = log.consumer_group("g").unwrap();
    let to_100 = || group.plan_reset([tp(0)], ResetTo::Offset(100)).unwrap().apply().unwrap();
    let minute = ResetTo::Ago(Duration::from_secs(60));
    for (to, expected) in [
        (ResetTo::ShiftBy(-50), 50),
        (ResetTo::ShiftBy(50), 150),
        (ResetTo::ShiftBy(-150), 0),
        (ResetTo::ShiftBy(150), 200),
        (ResetTo::Offset(1), 1),
        (ResetTo::Offset(201), 200),
        (ResetTo::Earliest, 0),
        (ResetTo::Latest, 200),
        (ResetTo::Current, 100),
        (minute.clone(), 0),
        (ResetTo::Time(Timestamp::from_millis(3_600_000)), 0),
        (ResetTo::Time(Timestamp::from_millis(3_600_001)), 200),
        (ResetTo::Each([(tp(0), 42)].into()), 42),
        (ResetTo::Each([(tp(0), 4200)].into()), 200),
    ] {
        to_100();
        let plan = group.plan_reset([tp(0)], to.clone()).unwrap();
        assert_eq!(*plan.offsets(), [(tp(0), expected)].into(), "{to:?}");
        assert_eq!(group.committed(&tp(0)).unwrap(), Some(100), "a dry run stores nothing");
        plan.apply().unwrap();
        assert_eq!(group.committed(&tp(0)).unwrap(), Some(expected), "{to:?}");
    }
    // On an empty partition: the end.
    assert_eq!(group.plan_reset([tp(1)], minute).unwrap().offsets()[&tp(1)], 0);
    let unknown = group.plan_reset([tp(2)], ResetTo::Latest).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::UnknownTopicOrPartition);
    // Not while the group is live.
    to_100();
    let plan = group.plan_reset([tp(0)], ResetTo::Earliest).unwrap();
    let mut member = group.subscribe(["t"]).unwrap();
    member.poll(NOW).unwrap();
    assert_eq!(plan.clone().apply().unwrap_err().kind(), ErrorKind::GroupNotEmpty);
    assert_eq!(group.committed(&tp(0)).unwrap(), Some(100));
    drop(member);
    plan.apply().unwrap();
    assert_eq!(poll(&mut group.subscribe(["t"]).unwrap())[0], 0);
}

/// The segment files of partition 0 of topic `t`, in order.
fn segments(log: &Log, dir: &Path) -> Vec<std::path::PathBuf> {
    let folder = dir.join(format!("topics/t.{:016x}/0", log.topic("t").unwrap().id()));
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

fn batches(path: &Path) -> Vec<DumpedBatch> {
    let batch = |entry| match entry {
        DumpedEntry::Batch(batch) => batch,
        other => panic!("{other:?}"),
    };
    dump_segment(path).unwrap().map(|entry| batch(entry.unwrap())).collect()
}

#[test]
fn a_09_a_segment_is_dumped_batch_by_batch() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = Log::open(dir.path()).unwrap();
    let config = TopicConfig::new().compression(Compression::Lz4).segment_bytes(3 * 1032);
    let topic = log.create_topic("t", config).unwrap();
    let partition = topic.partition(0).unwrap();
    for i in 0..5 {
        let record = Record::new(&[7; 1000]);
        partition.append(record.timestamp(Timestamp::from_millis(10 - i))).unwrap();
        log.sync().unwrap();
    }
    // A copy of a live directory, under another name.
    let copy = |n: usize| {
        let to = copies.path().join(format!("copy-{n}"));
        std::fs::copy(&segments(&log, dir.path())[n], &to).unwrap();
        to
    };
    let (first, second) = (copy(0), copy(1));
    let dump = dump_segment(&first).unwrap();
    assert_eq!((dump.topic_id(), dump.partition_number(), dump.base_offset()), (topic.id(), 0, 0));
    assert_eq!((dump.is_sealed(), dump.index_ok()), (true, Some(true)));
    let dump = dump_segment(&second).unwrap();
    assert_eq!((dump.base_offset(), dump.is_sealed(), dump.index_ok()), (3, false, None));

    let found: Vec<_> = batches(&first).into_iter().chain(batches(&second)).collect();
    assert_eq!(found.len(), 5);
    for (i, batch) in (0..).zip(&found) {
        assert_eq!((batch.base_offset, batch.last_offset, batch.records), (i, i, 1));
        let time = Timestamp::from_millis(10 - i64::try_from(i).unwrap());
        assert_eq!((batch.base_timestamp, batch.max_timestamp), (time, time));
        assert_eq!((batch.compression(), batch.crc_ok), (Some(Compression::Lz4), true));
        assert_eq!((batch.producer, batch.frame_bytes, batch.leader_epoch), (None, 1032, 1));
        assert!(batch.bytes < 1032);
    }

    // A bad payload is told as such; a bad header is a gap, and what follows is found.
    let damaged = |at: u64| {
        let mut bytes = std::fs::read(&first).unwrap();
        bytes[usize::try_from(at).unwrap()] ^= 1;
        let path = copies.path().join("damaged");
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let ends = found[0].position + found[0].bytes;
    let bad = batches(&damaged(ends - 9));
    assert_eq!(bad.iter().map(|b| b.crc_ok).collect::<Vec<_>>(), [false, true, true]);
    let gap: Vec<_> = dump_segment(damaged(found[1].position + 40)).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(gap[1], DumpedEntry::Damage(found[1].position..found[2].position));
    assert_eq!(gap[2], DumpedEntry::Batch(found[2].clone()));
    let len = std::fs::metadata(&first).unwrap().len();
    assert_eq!(dump_segment(damaged(len - 64 - 20)).unwrap().index_ok(), Some(false));
    // Cut off in the middle of the last batch.
    let bytes = std::fs::read(&first).unwrap();
    let cut = copies.path().join("cut");
    std::fs::write(&cut, &bytes[..usize::try_from(found[2].position + 170).unwrap()]).unwrap();
    assert_eq!(batches(&cut).iter().map(|b| b.crc_ok).collect::<Vec<_>>(), [true, true, false]);
    // What is no segment is told so.
    for (bytes, kind) in [(&b"short"[..], ErrorKind::ForeignFile), (&[b'x'; 100], ErrorKind::ForeignFile)] {
        std::fs::write(&cut, bytes).unwrap();
        assert_eq!(dump_segment(&cut).unwrap_err().kind(), kind);
    }
}
