//! Traps with a name: what logs have fallen into, each told as it happens and with what comes of it here.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tapelog::admin::{Event, OnCorruption, RecoveryAction};
use tapelog::testing::{FaultPlan, Op, SimulatedDisk};
use tapelog::{
    Codec, Compression, Consumer, Durability, ErrorKind, Log, LogBuilder, OffsetReset, Partition, Record,
    TopicConfig, TopicPartition,
};

use crate::model::{SOON, TOPIC};

const NOW: Duration = Duration::ZERO;

fn builder() -> LogBuilder {
    Log::builder().memory_budget(256 << 10).max_block(SOON)
}

fn t(log: &Log) -> Partition {
    log.ensure_topic(TOPIC, TopicConfig::new().block_linger(NOW)).unwrap().partition(0).unwrap()
}

/// Appends a record, and has it written to its segment; not flushed.
fn written(partition: &Partition, value: &[u8]) {
    let offset = partition.append(Record::new(value)).unwrap().offset();
    partition.wait_written(offset + 1, SOON).unwrap();
}

fn values(partition: &Partition) -> Vec<Vec<u8>> {
    let mut reader = partition.reader(partition.start_offset()).unwrap();
    let mut out = Vec::new();
    while let Some(record) = reader.try_next().unwrap() {
        out.push(record.value().unwrap_or_default().to_vec());
    }
    out
}

fn segment(dir: &Path) -> PathBuf {
    let topics = fs::read_dir(dir.join("topics")).unwrap().map(|e| e.unwrap().path());
    let is_t = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().starts_with("t.");
    topics.into_iter().find(is_t).unwrap().join("0/00000000000000000000-000000.log")
}

/// Where the blocks of a segment begin.
fn blocks(segment: &Path) -> Vec<u64> {
    let bytes = fs::read(segment).unwrap();
    (64..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(b"TLB1")).map(|at| at as u64).collect()
}

fn zero(file: &Path, from: u64, to: u64) {
    let file = fs::File::options().write(true).open(file).unwrap();
    let to = to.min(file.metadata().unwrap().len());
    file.write_all_at(&vec![0; (to - from) as usize], from).unwrap();
}

/// As a power cut leaves the hot tail that was never flushed.
fn lose_the_hot_tail(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.file_name().unwrap().to_string_lossy().starts_with("staging-") {
            zero(&entry, 4_096, u64::MAX);
        }
    }
}

/// A `write` that is killed stops between two pages. The block of 60 KiB stood at no page's beginning, its header was whole, its
/// end was not. The hot tail has all of it: it is written again, and nobody is told of a loss, for there was none.
#[test]
fn a_block_of_60_kib_torn_by_kill_9_is_overwritten_and_nothing_is_reported_lost() {
    for pages in [1, 7, 14] {
        let dir = tempfile::tempdir().unwrap();
        let log = builder().open(dir.path()).unwrap();
        let expected = [vec![1; 777], (0..60 << 10).map(|i| (i * 7 % 251) as u8).collect()];
        expected.iter().for_each(|value| written(&t(&log), value));
        drop(log);
        let segment = segment(dir.path());
        let begins = blocks(&segment)[1];
        assert_ne!(begins % 4_096, 0);
        zero(&segment, begins.next_multiple_of(4_096) + pages * 4_096, u64::MAX);
        let log = builder().open(dir.path()).unwrap();
        let report = log.recovery_report();
        assert!(!report.has_losses() && report.replayed > 0, "{report:?}");
        assert_eq!(values(&t(&log)), expected);
        assert!(!dir.path().join("quarantine").exists());
        written(&t(&log), b"and on");
        log.close(SOON).unwrap();
        assert!(builder().verify(dir.path()).unwrap().is_sound());
    }
}

/// An append of more than a block is a run of blocks, and the power went between two of them: the first half of an append was
/// there, and nothing of it may be seen, ever. Where only the process died the hot tail has the other half.
#[test]
fn an_append_cut_between_two_blocks_of_its_run_is_there_whole_or_not_at_all() {
    for power in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let log = builder().open(dir.path()).unwrap();
        written(&t(&log), b"before");
        let batch: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; 30_000]).collect();
        let records: Vec<Record<'_>> = batch.iter().map(Record::new).collect();
        t(&log).append_batch(&records).unwrap();
        t(&log).wait_written(5, SOON).unwrap();
        drop(log);
        let segment = segment(dir.path());
        let begin = blocks(&segment);
        assert!(begin.len() > 2, "a run of several blocks");
        zero(&segment, begin[begin.len() - 1], u64::MAX);
        if power {
            lose_the_hot_tail(dir.path());
        }
        let log = builder().open(dir.path()).unwrap();
        let report = log.recovery_report();
        if power {
            assert_eq!(values(&t(&log)), [b"before"]);
            let item = &report.items.iter().find(|i| i.action == RecoveryAction::UnfinishedAppend).unwrap();
            assert_eq!(item.offsets.as_ref().map(|o| o.start), Some(1));
            assert!(item.kept_in.as_ref().unwrap().exists());
        } else {
            assert!(!report.has_losses(), "{report:?}");
            assert_eq!(values(&t(&log))[1..], batch);
        }
        written(&t(&log), b"behind");
        drop(log);
        assert_eq!(values(&t(&builder().open(dir.path()).unwrap())).last().unwrap(), b"behind");
    }
}

/// The power went, and took records; others were appended in their place, and the process was killed. The staging file of
/// before the power cut may still lie there, with frames of the same offsets. They never come back.
#[test]
fn staging_of_an_earlier_incarnation_never_replays() {
    for seed in 0..300 {
        let disk = SimulatedDisk::new();
        let log = builder().simulated_disk(&disk).open("/log").unwrap();
        let partition = t(&log);
        partition.append(Record::new("flushed")).unwrap();
        partition.wait_durable(1, SOON).unwrap();
        (1..8).for_each(|i| drop(partition.append(Record::new(&format!("first {i}"))).unwrap()));
        let left = disk.freeze().unwrap().power_cut_at_random(seed);
        let log = builder().simulated_disk(&left).open("/log").unwrap();
        let partition = t(&log);
        let end = partition.end_offset();
        partition.append(Record::new("second")).unwrap();
        let moment = left.freeze().unwrap();
        let killed = builder().simulated_disk(&moment.process_death()).open("/log").unwrap();
        let found = values(&t(&killed));
        let kept = (1..end).map(|i| format!("first {i}"));
        let expected: Vec<String> =
            ["flushed".to_owned()].into_iter().chain(kept).chain(["second".into()]).collect();
        assert!(found.iter().map(Vec::as_slice).eq(expected.iter().map(String::as_bytes)), "seed {seed}");
        // And the power again, which may bring the name of the old file back.
        let cut = builder().simulated_disk(&moment.power_cut_at_random(seed)).open("/log").unwrap();
        let found = values(&t(&cut));
        assert!(found.iter().zip(&expected).all(|(is, was)| is == was.as_bytes()), "seed {seed}: {found:?}");
        assert!(found.len() <= expected.len() && !found.is_empty(), "seed {seed}");
    }
}

fn consumer(log: &Log, reset: OffsetReset) -> Consumer {
    let group = log.consumer_group("g").unwrap();
    group.consumer().offset_reset(reset).assign([TopicPartition::new(TOPIC, 0)]).unwrap()
}

fn heard() -> (LogBuilder, Receiver<Event>) {
    let (tell, told) = channel();
    (builder().on_event(move |event| drop(tell.send(event.clone()))), told)
}

/// A group had read and committed ten records, and the power took seven of them but not the commit. Then others were appended,
/// more than ten. The group went on at ten and never saw those in between.
#[test]
fn a_commit_beyond_what_a_power_cut_left_is_reported_as_truncated_and_not_skipped() {
    let tp = TopicPartition::new(TOPIC, 0);
    let mut tried = 0;
    for (seed, more) in (0..2_000u64).flat_map(|seed| [(seed, 0), (seed, 20)]) {
        let disk = SimulatedDisk::new();
        let log = builder().simulated_disk(&disk).open("/log").unwrap();
        let partition = t(&log);
        (0..3).for_each(|_| drop(partition.append(Record::new("kept")).unwrap()));
        partition.wait_durable(3, SOON).unwrap();
        (3..10).for_each(|_| drop(partition.append(Record::new("lost")).unwrap()));
        consumer(&log, OffsetReset::Earliest).commit_offsets([(tp.clone(), 10)]).unwrap();
        let left = disk.freeze().unwrap().power_cut_at_random(seed);
        drop((partition, log));
        let (heard, told) = heard();
        let mut log = heard.clone().simulated_disk(&left).open("/log").unwrap();
        let mut partition = t(&log);
        if partition.end_offset() == 10
            || log.consumer_group("g").unwrap().committed(&tp).unwrap() != Some(10)
        {
            continue;
        }
        tried += 1;
        (0..more).for_each(|_| drop(partition.append(Record::new("new")).unwrap()));
        if seed % 2 == 1 {
            // The epoch of what took their place stands in the segments as well.
            drop((partition, log));
            log = heard.simulated_disk(&left).open("/log").unwrap();
            partition = t(&log);
            assert!(partition.end_offset() >= more);
        }
        let error = consumer(&log, OffsetReset::None).poll(NOW).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::OffsetOutOfRange, Some(10)));
        loop {
            if let Event::CommitTruncated { group, partition, offset, .. } = told.recv_timeout(SOON).unwrap()
            {
                assert_eq!((group.as_str(), partition, offset), ("g", tp.clone(), 10));
                break;
            }
        }
        // By default all of it is read again: nobody can know what of it was seen.
        let mut again = consumer(&log, OffsetReset::Earliest);
        let first = again.poll(SOON).unwrap().iter().next().map(|record| record.offset());
        assert_eq!(first, Some(0));
        // What is committed now counts.
        again.commit_offsets([(tp.clone(), 2)]).unwrap();
        drop(again);
        let mut third = consumer(&log, OffsetReset::None);
        assert_eq!(third.poll(SOON).unwrap().iter().next().map(|record| record.offset()), Some(2));
        if tried >= 6 {
            return;
        }
    }
    assert!(tried > 0, "no power cut kept the commit and not the records");
}

/// And where nothing was lost a commit of an earlier epoch counts, whatever was appended since.
#[test]
fn a_commit_of_before_a_kill_counts() {
    let dir = tempfile::tempdir().unwrap();
    let tp = TopicPartition::new(TOPIC, 0);
    for epoch in 1..4u64 {
        let log = builder().open(dir.path()).unwrap();
        let partition = t(&log);
        if epoch > 1 {
            let mut consumer = consumer(&log, OffsetReset::None);
            assert_eq!(consumer.poll(NOW).unwrap().len(), 0, "all was committed");
        }
        (0..10).for_each(|_| drop(partition.append(Record::new("a")).unwrap()));
        if epoch == 2 {
            partition.wait_durable(20, SOON).unwrap();
        }
        consumer(&log, OffsetReset::Earliest).commit_offsets([(tp.clone(), epoch * 10)]).unwrap();
    }
}

/// The hot tail lay on another disk, which is gone after a kill: nobody can know what it held. After a close nothing was in it.
#[test]
fn staging_gone_after_an_unclean_stop_is_staging_missing() {
    let (dir, fast) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = || builder().staging(fast.path().join("s")).open(dir.path());
    for clean in [false, true] {
        fs::create_dir_all(fast.path().join("s")).unwrap();
        let log = open().unwrap();
        t(&log).append(Record::new("a")).unwrap();
        if clean {
            log.close(SOON).unwrap();
        } else {
            drop(log);
        }
        let aside = fast.path().join("aside");
        fs::rename(fast.path().join("s"), &aside).unwrap();
        if clean {
            fs::create_dir(fast.path().join("s")).unwrap();
            assert_eq!(values(&t(&open().unwrap())).len(), 2);
            return;
        }
        for _ in 0..2 {
            assert_eq!(open().map(drop).unwrap_err().kind(), ErrorKind::StagingMissing);
        }
        fs::rename(aside, fast.path().join("s")).unwrap();
        assert_eq!(values(&t(&open().unwrap())).len(), 1, "it turns up again, and nothing was lost");
    }
}

/// One bit in the middle of what was flushed, then a power cut, an append, and an open again. Recovery that ends a log at the
/// first bad checksum loses all that follows, and the append then makes it final.
#[test]
fn a_flip_in_the_middle_then_a_power_cut_an_append_and_a_reopen_keep_all_after_the_flip() {
    for segment_bytes in [1 << 30, 2_000] {
        let disk = SimulatedDisk::new();
        let log = builder().simulated_disk(&disk).open("/log").unwrap();
        let config = TopicConfig::new().block_linger(NOW).segment_bytes(segment_bytes);
        let partition = log.create_topic(TOPIC, config).unwrap().partition(0).unwrap();
        let value = |i: u64| format!("record {i} ").repeat(20).into_bytes();
        for i in 0..30 {
            partition.append(Record::new(&value(i))).unwrap();
            partition.wait_durable(i + 1, SOON).unwrap();
        }
        let left = disk.freeze().unwrap().power_cut(|_| false);
        drop((partition, log));
        let (path, _) = left.files().into_iter().find(|(p, _)| p.to_string_lossy().contains("/t.")).unwrap();
        left.flip(&path, (64 + 160 + 100) * 8).unwrap(); // the first block's payload
        let check = |log: &Log, end: u64| {
            let partition = t(log);
            assert_eq!(partition.end_offset(), end);
            let (mut reader, mut bad) = (partition.reader(0).unwrap(), 0);
            let mut next = 0;
            while next < end {
                match reader.try_next() {
                    Ok(Some(record)) => {
                        assert_eq!((record.offset(), record.value()), (next, Some(&value(next)[..])));
                        next += 1;
                    }
                    Ok(None) => panic!("the log ends at {next}"),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::CorruptRecord);
                        (bad, next) = (bad + 1, next + 1);
                        reader = partition.reader(next).unwrap();
                    }
                }
            }
            assert_eq!(bad, 1, "one record to a block, and one block was hit");
        };
        for more in 0..3 {
            let log = builder().simulated_disk(&left).open("/log").unwrap();
            check(&log, 30 + more);
            t(&log).append(Record::new(&value(30 + more))).unwrap();
        }
        // To set it aside has readers go over it, and keeps all the rest.
        let open = builder().on_corruption(OnCorruption::Quarantine).simulated_disk(&left).open("/log");
        let log = open.unwrap();
        let report = log.recovery_report();
        // A segment that was flushed and sealed is not looked at when a log is opened, but when it is read.
        let found = report.items.iter().any(|item| item.action == RecoveryAction::Damaged);
        assert_eq!(found, segment_bytes == 1 << 30, "{report:?}");
        if found {
            assert!(report.items.iter().any(|item| item.kept_in.is_some()), "{report:?}");
            assert_eq!(values(&t(&log)), (1..33).map(value).collect::<Vec<_>>());
        }
    }
}

struct Poison;

impl Codec for Poison {
    fn id(&self) -> u8 {
        131
    }

    fn name(&self) -> &str {
        "poison"
    }

    fn compress(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), tapelog::codec::CodecError> {
        panic!("poison")
    }

    fn decompress(&self, _: &[u8], _: &mut [u8]) -> Result<(), tapelog::codec::CodecError> {
        panic!("poison")
    }
}

/// A codec panicked in the write-behind, on records that could then never be written. They are stored as they are, whoever runs
/// the log hears of it, and they are read without the codec.
#[test]
fn a_poison_codec_stores_uncompressed_with_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let (heard, told) = heard();
    let log = heard.codec(Poison).open(dir.path()).unwrap();
    let config = TopicConfig::new().compression(Compression::Custom(131)).block_linger(NOW);
    let partition = log.create_topic(TOPIC, config).unwrap().partition(0).unwrap();
    let value = vec![b'a'; 10_000];
    partition.append(Record::new(&value)).unwrap();
    partition.wait_durable(1, SOON).unwrap();
    match told.recv_timeout(SOON).unwrap() {
        Event::CodecFailed { codec, .. } => assert_eq!(codec, "poison"),
        other => panic!("{other:?}"),
    }
    log.close(SOON).unwrap();
    let segment = segment(dir.path());
    let codecs: Vec<u8> =
        blocks(&segment).iter().map(|at| fs::read(&segment).unwrap()[*at as usize + 5]).collect();
    assert_eq!(codecs, [0], "none");
    assert_eq!(values(&t(&builder().open(dir.path()).unwrap())), [value]);
}

/// The disk hung and records of the user's filled the budget: a commit found no room, the consumer could not go on, and with
/// it not the one who made room. Part of the budget is left to internal topics.
#[test]
fn internal_topics_go_on_while_user_topics_fill_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = builder().max_block(Duration::from_millis(20)).faults(&plan).open(dir.path()).unwrap();
    let partition = t(&log);
    let mut consumer = consumer(&log, OffsetReset::Earliest);
    plan.hold(Op::Write);
    let value = vec![1; 10_000];
    let error = loop {
        match partition.append(Record::new(&value)) {
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), ErrorKind::BufferExhausted);
    for offset in 1..5 {
        consumer.commit_offsets([(TopicPartition::new(TOPIC, 0), offset)]).unwrap();
    }
    assert_eq!(partition.append(Record::new(&value)).unwrap_err().kind(), ErrorKind::BufferExhausted);
    plan.release();
}

/// A callback sent another record, the budget was full, and it waited for room on the very thread that makes it.
#[test]
fn a_callback_that_sends_while_the_budget_is_full_does_not_deadlock() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = builder().faults(&plan).open(dir.path()).unwrap();
    let topic = log.create_topic(TOPIC, TopicConfig::new().partitions(2).block_linger(NOW)).unwrap();
    let producer = log.producer().durability(Durability::Disk).build().unwrap();
    let other = topic.partition(1).unwrap();
    let (tell, told) = channel();
    // Far more than the budget, while somebody else fills it as well.
    producer.send(&topic, Record::new("first").partition(0)).unwrap().on_complete(move |first| {
        first.unwrap();
        let value = vec![2; 30_000];
        let sent: Vec<_> = (0..60).map(|_| other.append(Record::new(&value)).map(drop)).collect();
        drop(tell.send(sent));
    });
    let mine = topic.partition(0).unwrap();
    let value = vec![3; 30_000];
    (0..60).for_each(|_| drop(mine.append(Record::new(&value)).unwrap()));
    let sent = told.recv_timeout(SOON).unwrap();
    assert!(sent.into_iter().all(|sent| sent.is_ok()));
    log.sync().unwrap();
    assert_eq!((mine.end_offset(), topic.partition(1).unwrap().end_offset()), (61, 60));
}
