//! What went wrong once with a whole log, each told as it happened.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::TopicConfig;
use crate::log::core::LogCore;
use crate::log::opening::LogBuilder;
use crate::log::topic::Topic;
use crate::partition::Partition;
use crate::partition::core::Wait;
use crate::partition::delivery::{Acks, Delivered, Delivery, Durability};
use crate::partition::event::Event;
use crate::partition::settings::SyncPolicy;
use crate::partition::write_behind::Duty;
use crate::record::Record;
use crate::storage::fault::{Fault, FaultPlan, Op};

const SOON: Duration = Duration::from_secs(20);
const BUDGET: u64 = 256 << 10;

fn open_with(dir: &Path, plan: &Arc<FaultPlan>) -> Result<Arc<LogCore>> {
    LogBuilder::default().memory_budget(BUDGET).max_block(SOON).faults(plan).begin_in(dir, true)
}

fn open(dir: &Path) -> Arc<LogCore> {
    open_with(dir, &FaultPlan::new()).unwrap()
}

fn topic(log: &Arc<LogCore>, name: &str, config: TopicConfig) -> Topic {
    Topic { core: log.create_topic(name, &config, true).unwrap(), log: Arc::clone(log) }
}

/// Partition 0 of topic "t".
fn t(log: &Arc<LogCore>) -> Partition {
    topic(log, "t", TopicConfig::new()).partition(0).unwrap()
}

/// Looks again and again, giving way to other threads, until it is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let patience = Deadline::after(SOON);
    while !so() {
        assert!(!patience.passed(), "waited in vain until {what}");
        std::thread::yield_now();
    }
}

fn values(partition: &Partition) -> Vec<Vec<u8>> {
    let mut reader = partition.reader(partition.start_offset()).unwrap();
    let mut out = Vec::new();
    while let Some(record) = reader.try_next().unwrap() {
        out.push(record.value().unwrap().to_vec());
    }
    out
}

/// An append that is larger than the slots has a staging file of its own, which goes when its memory comes back.
/// Dropping a log gave all memory back, written or not, and the file went with the only copy of the record.
#[test]
fn a_large_append_survives_a_drop() {
    let dir = tempfile::tempdir().unwrap();
    let large = vec![7; 100_000];
    let linger = TopicConfig::new().block_linger(Duration::from_secs(3600));
    let log = open(dir.path());
    topic(&log, "t", linger).partition(0).unwrap().append(Record::new(&large)).unwrap();
    drop(log);
    let log = open(dir.path());
    assert_eq!(values(&t(&log)), [large]);
    assert!(!log.report.has_losses());
}

/// A process died between the header of a new segment and its first block. Replay began a segment at the same
/// offset, found the file there, and the log could not be opened any more.
#[test]
fn a_segment_that_never_got_its_first_block_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = open_with(dir.path(), &plan).unwrap();
    let partition = t(&log);
    let before = plan.fired();
    plan.inject(Fault::nth(2).of(Op::Write).forever());
    partition.append(Record::new("a")).unwrap();
    until("the block fails to be written", || plan.fired() > before);
    log.crash();
    drop((partition, log));
    let log = open(dir.path());
    assert_eq!(values(&t(&log)), [b"a"]);
    assert!(!log.report.has_losses());
    t(&log).append(Record::new("b")).unwrap();
    assert_eq!(t(&log).segments(), [0]);
}

/// An open after a clean close cut the footers off the last segments, and was killed before it said in the root
/// file that the log was open again. The next open took the log for closed, missed the footers and reported
/// a loss where there was none.
#[test]
fn an_open_that_dies_before_its_root_file_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = open_with(dir.path(), &plan).unwrap();
    t(&log).append(Record::new("a")).unwrap();
    log.close(SOON).unwrap();
    drop(log);
    plan.inject(Fault::nth(1).of(Op::Rename).forever());
    assert!(open_with(dir.path(), &plan).is_err());
    plan.clear();
    let log = open_with(dir.path(), &plan).unwrap();
    assert!(log.report.clean && log.report.items.is_empty(), "{:?}", log.report);
    assert_eq!(values(&t(&log)), [b"a"]);
    // Nor does an open that appends nothing, and one that does goes on where the footer stood.
    log.close(SOON).unwrap();
    drop(log);
    let log = open_with(dir.path(), &plan).unwrap();
    t(&log).append(Record::new("b")).unwrap();
    log.close(SOON).unwrap();
    drop(log);
    let log = open_with(dir.path(), &plan).unwrap();
    assert!(log.report.clean && log.report.items.is_empty(), "{:?}", log.report);
    assert_eq!(values(&t(&log)), [b"a", b"b"]);
}

/// Appends one record, to be kept at `Disk`.
fn to_disk(topic: &Topic, value: &str) -> Delivery {
    to_disk_of(topic, 0, value)
}

fn to_disk_of(topic: &Topic, partition: u32, value: &str) -> Delivery {
    let core = topic.core.with_partition(partition, Arc::clone).unwrap();
    let appended = core.append(&[Record::new(value)], Wait::For(SOON), None).unwrap();
    Delivery::new(&core, appended, Acks::All, Durability::Disk)
}

fn told(delivery: Delivery) -> std::sync::mpsc::Receiver<Result<Delivered>> {
    let (tell, told) = channel();
    delivery.on_complete(move |result| drop(tell.send(result)));
    told
}

/// The flush thread met a full disk, dropped what it was asked for, and nobody asked again: whoever had given a
/// callback was never called, and whoever waited with a time-out waited it out, long after there was room again.
#[test]
fn a_flush_that_met_a_full_disk_is_made_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = open_with(dir.path(), &plan).unwrap();
    let topic = topic(&log, "t", TopicConfig::new().block_linger(Duration::from_secs(3600)));
    plan.inject(Fault::nth(1).of(Op::Write).errno(Fault::ENOSPC));
    let told = told(to_disk(&topic, "a"));
    assert!(told.recv_timeout(SOON).unwrap().is_ok());
    assert_eq!(plan.fired(), 1);
    until("appends succeed", || topic.partition(0).unwrap().append(Record::new("b")).is_ok());
}

/// So many that they are flushed together.
const MANY: u32 = 100;

/// With room for all of them, so that nothing is written before somebody asks for it.
fn open_for_many(dir: &Path, plan: &Arc<FaultPlan>) -> Arc<LogCore> {
    LogBuilder::default().memory_budget(4 << 20).faults(plan).begin_in(dir, true).unwrap()
}

fn many(log: &Arc<LogCore>) -> Topic {
    topic(log, "t", TopicConfig::new().partitions(MANY).block_linger(Duration::from_secs(3600)))
}

/// Has many partitions ask for the disk at once, with this to come; returns what each was told.
fn flushed_at_once(plan: &Arc<FaultPlan>, topic: &Topic, faults: &[Fault]) -> Vec<Result<Delivered>> {
    let before = plan.count(Op::Sync);
    plan.hold(Op::Sync);
    let mut asked = vec![told(to_disk_of(topic, 0, "a"))];
    until("the flush thread is busy", || plan.count(Op::Sync) > before);
    asked.extend((1..MANY).map(|n| told(to_disk_of(topic, n, "a"))));
    faults.iter().for_each(|fault| plan.inject(fault.clone()));
    plan.release();
    asked.into_iter().map(|told| told.recv_timeout(SOON).unwrap()).collect()
}

/// Each of many partitions that were due at once was flushed by itself, and the last waited for all the others.
#[test]
fn what_is_due_at_once_is_flushed_together() {
    for (faults, least) in [
        (vec![], 1),
        (vec![Fault::nth(1).of(Op::SyncAll)], u64::from(MANY)),
        // One of them finds no room at first: the others do not wait for it.
        (vec![Fault::nth(1).of(Op::Write).errno(Fault::ENOSPC)], 2),
    ] {
        let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
        let log = open_for_many(dir.path(), &plan);
        let topic = many(&log);
        let before = plan.count(Op::Sync);
        assert!(flushed_at_once(&plan, &topic, &faults).iter().all(Result::is_ok));
        let (all, each) = (plan.count(Op::SyncAll), plan.count(Op::Sync) - before);
        // This file system may be one that is not flushed as a whole.
        let expected = all == 0 || if faults.is_empty() { (all, each) == (1, 1) } else { each >= least };
        assert!(expected, "{all} {each}");
    }
}

#[test]
fn a_failed_flush_of_many_acknowledges_none_of_them() {
    let faults = [Fault::nth(1).of(Op::SyncAll), Fault::nth(1).of(Op::Sync).forever()];
    for by_thread in [false, true] {
        let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
        let log = open_for_many(dir.path(), &plan);
        let topic = many(&log);
        let partition = |n| topic.partition(n).unwrap();
        if by_thread {
            let told = flushed_at_once(&plan, &topic, &faults);
            assert!(told.iter().all(Result::is_err));
        } else {
            (0..MANY).for_each(|n| drop(partition(n).append(Record::new("a")).unwrap()));
            faults.iter().for_each(|fault| plan.inject(fault.clone()));
            assert_eq!(log.sync().unwrap_err().kind(), ErrorKind::Storage);
        }
        plan.clear();
        assert!((0..MANY).all(|n| partition(n).durable_offset() == 0));
        assert!((0..MANY).all(|n| partition(n).wait_durable(1, SOON).is_err()), "and none is later");
        log.crash();
        drop((topic, log));
        let log = open_for_many(dir.path(), &plan);
        assert!(!log.report.page_cache_survived && !log.report.has_losses(), "{:?}", log.report);
        let topic = many(&log);
        assert!((0..MANY).all(|n| topic.partition(n).unwrap().end_offset() == 1));
    }
}

/// An appender that works beside the lock hears of a full disk as soon as the write-behind does, and of its end.
#[test]
fn an_appender_hears_of_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = open_with(dir.path(), &plan).unwrap();
    let topic = topic(&log, "t", TopicConfig::new().block_linger(Duration::ZERO));
    let partition = topic.partition(0).unwrap();
    let mut appender = partition.appender().unwrap();
    let mut claim = appender.claim(1).unwrap();
    claim[0] = 1;
    claim.commit().unwrap();
    plan.inject(Fault::nth(1).of(Op::Write).errno(Fault::ENOSPC).forever());
    let mut refused = None;
    until("the disk is full", || {
        refused = appender.append(Record::new("a")).err();
        refused.is_some()
    });
    assert_eq!(refused.unwrap().kind(), ErrorKind::NoSpace);
    assert_eq!(appender.claim(1).unwrap_err().kind(), ErrorKind::NoSpace);
    plan.clear();
    let end = partition.end_offset();
    until("appends succeed", || appender.append(Record::new("b")).is_ok_and(|offset| offset == end));
    partition.wait_durable(end + 1, SOON).unwrap();
}

/// A flush that never comes due was sorted before all others, and none of them came any more.
#[test]
fn a_flush_that_never_comes_due_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let never = topic(&log, "never", TopicConfig::new().sync_policy(SyncPolicy::Every(Duration::MAX)));
    let partition = never.partition(0).unwrap();
    partition.append(Record::new("a")).unwrap();
    partition.wait_written(1, SOON).unwrap();
    let lingers = topic(&log, "lingers", TopicConfig::new().block_linger(Duration::MAX));
    lingers.partition(0).unwrap().append(Record::new("b")).unwrap();
    let other = topic(&log, "other", TopicConfig::new());
    assert!(told(to_disk(&other, "c")).recv_timeout(SOON).unwrap().is_ok());
    other.partition(0).unwrap().append(Record::new("d")).unwrap();
    other.partition(0).unwrap().wait_written(2, SOON).unwrap();
}

/// A topic that flushes by itself stopped doing so for ever once a flush of somebody else's had covered all there
/// was when its own came due; and a record that came in while a step ran, or while a block lingered, waited
/// for the next one.
#[test]
fn a_topic_that_flushes_by_itself_never_stops() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for (name, policy) in
        [("time", SyncPolicy::Every(Duration::from_millis(1))), ("count", SyncPolicy::EveryRecords(1))]
    {
        for (sort, linger) in [("short", Duration::ZERO), ("long", Duration::from_secs(3600))] {
            let config = TopicConfig::new().sync_policy(policy).block_linger(linger);
            let partition = topic(&log, &format!("{name}.{sort}"), config).partition(0).unwrap();
            for _ in 0..60 {
                partition.append(Record::new("a")).unwrap();
                partition.wait_durable(partition.end_offset(), SOON).unwrap();
                partition.append(Record::new("b")).unwrap();
                until("the topic flushes", || partition.durable_offset() == partition.end_offset());
            }
        }
    }
}

/// A callback that ran while the log closed asked for another one, which wanted the list of threads; the close
/// held that list while it waited for the callback. Without a deadline that was for ever.
#[test]
fn a_callback_during_the_close_may_ask_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = topic(&log, "t", TopicConfig::new());
    let (first, second) = (to_disk(&topic, "a"), to_disk(&topic, "b"));
    let partition = topic.partition(0).unwrap();
    let engine = Arc::clone(&log.engine);
    let (tell, told) = channel();
    first.on_complete(move |_| {
        until("the log closes", || partition.append(Record::new("c")).is_err());
        until("the threads end", || {
            engine
                .wait_for_room(Deadline::after(Duration::ZERO))
                .is_err_and(|e| e.kind() == ErrorKind::Closed)
        });
        (0..1_000).for_each(|_| std::thread::yield_now());
        second.on_complete(move |result| drop(tell.send(result)));
    });
    log.close(Duration::MAX).unwrap();
    assert!(told.recv_timeout(SOON).unwrap().is_ok());
}

/// The close of a log whose disk hung gave up in time, and gave the lock up with it, while its thread still waited
/// to write into files that the next owner of the lock was already reading.
#[test]
fn a_log_that_could_not_be_closed_stays_locked() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = open_with(&dir.path().join("log"), &plan).unwrap();
    let partition = t(&log);
    plan.hold(Op::Sync);
    partition.append(Record::new("a")).unwrap();
    let error = log.close(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(partition.append(Record::new("b")).unwrap_err().kind(), ErrorKind::Closed);
    drop((partition, log));
    let error = open_with(&dir.path().join("log"), &FaultPlan::new()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    plan.release();
}

/// A close that is given no time at all on a healthy disk says so and loses nothing.
#[test]
fn a_close_without_time_leaves_all_to_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    t(&log).append(Record::new("a")).unwrap();
    let closed = log.close(Duration::ZERO);
    assert!(closed.is_ok() || closed.is_err_and(|e| e.kind() == ErrorKind::TimedOut));
    drop(log);
    assert_eq!(values(&t(&open(dir.path()))), [b"a"]);
}

/// A log is dropped while a promise of `Disk` is open: whoever waits for it, or asked to be called, is told.
#[test]
fn a_promise_outlives_its_log_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = open_with(dir.path(), &plan).unwrap();
    let topic = topic(&log, "t", TopicConfig::new());
    plan.inject(Fault::nth(1).of(Op::Allocate).errno(Fault::ENOSPC).forever());
    let (waits, times_out, called) = (to_disk(&topic, "a"), to_disk(&topic, "b"), told(to_disk(&topic, "c")));
    drop((topic, log));
    assert_eq!(waits.wait().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(times_out.wait_timeout(SOON).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(called.recv_timeout(SOON).unwrap().unwrap_err().kind(), ErrorKind::Closed);
    plan.clear();
    assert_eq!(values(&t(&open_with(dir.path(), &plan).unwrap())), [b"a", b"b", b"c"]);
}

/// The engine heard of a chunk that was given up while idle after it had heard of its successor. Evicting the
/// successor first was refused, for it was not the oldest, and it was never asked for again.
#[test]
fn chunks_that_are_reported_out_of_order_are_all_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = t(&log);
    let core = log.topic("t").unwrap().with_partition(0, Arc::clone).unwrap();
    let value = vec![1; 30_000];
    for _ in 0..4 {
        // Two to a slot of 64 KiB; the memory of the log holds three slots.
        partition.append(Record::new(&value)).unwrap();
    }
    partition.wait_written(4, SOON).unwrap();
    let before = log.engine.pool.used_bytes();
    crate::partition::write_behind::Duty::evict(&*core, 2);
    // The engine may still hold the chunk for the moment that its step takes to end.
    until("the older chunk is given back", || log.engine.pool.used_bytes() <= before - (64 << 10));
    assert_eq!(values(&partition).len(), 4);
}

/// One partition met a full disk and was deleted with its topic. The others went on to hear of the full disk
/// whenever they had to wait for room.
#[test]
fn a_full_disk_is_forgotten_with_the_topic_that_met_it() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = open_with(dir.path(), &plan).unwrap();
    let unlucky = topic(&log, "unlucky", TopicConfig::new()).partition(0).unwrap();
    plan.inject(Fault::nth(1).under("unlucky").of(Op::Create).errno(Fault::ENOSPC).forever());
    unlucky.append(Record::new("a")).unwrap();
    until("the disk is full", || unlucky.append(Record::new("a")).is_err());
    log.delete_topic("unlucky").unwrap();
    let other = t(&log);
    let value = vec![1; 50_000];
    for _ in 0..40 {
        until("the others are rid of it", || other.append(Record::new(&value)).is_ok());
    }
    assert_eq!(unlucky.append(Record::new("a")).unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
}

/// Handles to deleted topics kept what had not been written, out of a budget that is everybody's.
#[test]
fn deleted_topics_give_their_memory_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut handles = Vec::new();
    for n in 0..12 {
        let name = format!("t{n}");
        let config = TopicConfig::new().block_linger(Duration::from_secs(3600));
        let partition = topic(&log, &name, config).partition(0).unwrap();
        partition.append(Record::new("a")).unwrap();
        log.delete_topic(&name).unwrap();
        handles.push(partition);
    }
    assert!(log.engine.pool.used_bytes() <= 128 << 10, "{}", log.engine.pool.used_bytes());
}

/// Deleted records stay deleted whatever stops the process, also when it stops between the record of the deletion and
/// the last file that goes.
#[test]
fn deleted_records_stay_deleted_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = open_with(dir.path(), &plan).unwrap();
    // Frames of 40 bytes, five to a segment.
    let config = TopicConfig::new().segment_bytes(200);
    let partition = topic(&log, "t", config.clone()).partition(0).unwrap();
    let append = |partition: &Partition| partition.append(Record::new("12345678")).map(|d| d.offset());
    for _ in 0..22 {
        append(&partition).unwrap();
    }
    assert_eq!(partition.segments(), [0, 5, 10, 15, 20]);
    assert_eq!(partition.delete_records(12).unwrap(), 12);
    assert_eq!(partition.segments(), [10, 15, 20]);
    let files = |dir: &Path| {
        let mut topics = std::fs::read_dir(dir.join("topics")).unwrap().map(|e| e.unwrap().path());
        let t = topics.find(|p| p.file_name().unwrap().to_string_lossy().starts_with("t.")).unwrap();
        std::fs::read_dir(t.join("0")).unwrap().count()
    };
    until("all is written", || partition.written_offset() == 22);
    assert_eq!(files(dir.path()), 3);
    log.crash();
    drop((partition, log));

    let log = open_with(dir.path(), &plan).unwrap();
    let partition = topic(&log, "t", config.clone()).partition(0).unwrap();
    assert_eq!((partition.start_offset(), partition.end_offset()), (12, 22));
    assert_eq!(values(&partition).len(), 10);
    // Recorded, and no file can be removed: the records are gone all the same, and an open finds the files.
    plan.inject(Fault::nth(1).of(Op::Remove).forever());
    assert!(partition.delete_records(20).is_err());
    assert_eq!((partition.start_offset(), partition.segments()), (20, vec![20]));
    log.crash();
    plan.clear();
    drop((partition, log));
    assert_eq!(files(dir.path()), 3);

    let log = open_with(dir.path(), &plan).unwrap();
    let partition = topic(&log, "t", config.clone()).partition(0).unwrap();
    assert_eq!((partition.start_offset(), partition.end_offset(), files(dir.path())), (20, 22, 1));
    // All of it: the next record goes on where the last one was, also after settings and partitions changed.
    assert_eq!(partition.delete_records(22).unwrap(), 22);
    let t = topic(&log, "t", config.clone());
    t.add_partitions(2).unwrap();
    t.alter(TopicConfig::new().segment_bytes(400)).unwrap();
    log.crash();
    drop((partition, t, log));
    let log = open_with(dir.path(), &plan).unwrap();
    let partition = topic(&log, "t", TopicConfig::new()).partition(0).unwrap();
    assert_eq!((partition.start_offset(), partition.end_offset()), (22, 22));
    assert_eq!((append(&partition).unwrap(), values(&partition).len()), (22, 1));
}

/// A reader that follows the appends goes on in its chunk without looking anything up, and must hear of deletions still.
#[test]
fn a_reader_that_follows_hears_of_what_was_deleted() {
    let partition = t(&LogBuilder::default().begin_in_memory().unwrap());
    let mut reader = partition.reader(0).unwrap();
    let mut next = || reader.try_next().map(|record| record.map(|record| record.offset()));
    assert_eq!(next().unwrap(), None);
    for offset in 0..3 {
        partition.append(Record::new("followed")).unwrap();
        assert_eq!((next().unwrap(), next().unwrap()), (Some(offset), None));
    }
    partition.append(Record::new("deleted before it was read")).unwrap();
    assert_eq!(partition.delete_records(4).unwrap(), 4);
    assert_eq!(next().unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
}

/// What a log tells of its disk: that it is full, and that this is over; what failed for good, once.
#[test]
fn a_full_disk_and_a_failed_one_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let (tell, told) = std::sync::mpsc::channel();
    let builder = LogBuilder::default().max_block(SOON).faults(&plan);
    let log =
        builder.on_event(move |event| drop(tell.send(event.clone()))).begin_in(dir.path(), true).unwrap();
    let next = || told.recv_timeout(SOON).unwrap();
    let partition = topic(&log, "t", TopicConfig::new().block_linger(Duration::ZERO)).partition(0).unwrap();
    plan.inject(Fault::nth(1).of(Op::Write).under("topics/t").errno(Fault::ENOSPC));
    partition.append(Record::new("a")).unwrap();
    match next() {
        Event::WritesStalled { error } => assert_eq!(error.kind(), ErrorKind::NoSpace),
        other => panic!("{other:?}"),
    }
    assert!(matches!(next(), Event::WritesResumed {}));

    partition.wait_written(1, SOON).unwrap();
    plan.inject(Fault::nth(1).of(Op::Write).under("topics/t").errno(Fault::EIO).forever());
    partition.append(Record::new("b")).unwrap();
    match next() {
        Event::PartitionFailed { partition, error } => {
            assert_eq!((partition.topic(), error.kind()), ("t", ErrorKind::Storage));
        }
        other => panic!("{other:?}"),
    }
    assert!(partition.append(Record::new("c")).is_err());
    assert!(partition.wait_durable(2, SOON).is_err());
    let _ = log.close(SOON);
    assert!(told.try_recv().is_err(), "once");
}

/// A panic of the write-behind is not the end of the log: its partition says why it takes no more, to all who wait too, and
/// what it took is there after the next open.
#[test]
fn a_partition_that_the_write_behind_panicked_over_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let config = TopicConfig::new().partitions(2).block_linger(SOON);
    let topic = topic(&log, "t", config);
    let (failed, other) = (topic.partition(0).unwrap(), topic.partition(1).unwrap());
    failed.append(Record::new("taken")).unwrap();
    failed.core.poison(&Error::new(ErrorKind::Internal, "the write-behind panicked: of old age"));
    let words = |e: Error| {
        assert_eq!(e.kind(), ErrorKind::Internal);
        assert!(e.to_string().contains("of old age"), "{e}");
    };
    words(failed.append(Record::new("refused")).unwrap_err());
    words(failed.wait_durable(1, SOON).unwrap_err());
    words(failed.wait_written(1, SOON).unwrap_err());
    assert_eq!(values(&failed), [b"taken"]);
    other.append(Record::new("taken too")).unwrap();
    other.wait_durable(1, SOON).unwrap();
    drop((failed, other, topic, log));
    let log = open(dir.path());
    assert!(!log.report.has_losses());
    assert_eq!(values(&t(&log)), [b"taken"]);
}
