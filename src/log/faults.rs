//! Every call to the disk fails once, and every call fails for ever from some call on: what a log makes of it.
//!
//! A first run counts the calls of a workload (open, create, append, roll, flush, close); then the workload is run
//! again for each of them. Whatever fails: no panic, no hang, errors of a kind that says what it was, nothing
//! acknowledged at `Disk` after a failed flush, and, on a healthy disk afterwards, all that was accepted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::TopicConfig;
use crate::log::core::LogCore;
use crate::log::opening::LogBuilder;
use crate::log::topic::Topic;
use crate::partition::Partition;
use crate::record::Record;
use crate::storage::fault::{Fault, FaultPlan, Op};

const SOON: Duration = Duration::from_secs(20);
/// Calls that can find no room. A flush cannot: for it a full disk is a failure like any other.
const NEED_ROOM: [Op; 5] = [Op::Write, Op::Allocate, Op::Create, Op::CreateDir, Op::Rename];

fn open(dir: &Path, plan: &Arc<FaultPlan>) -> Result<Arc<LogCore>> {
    LogBuilder::default()
        .memory_budget(512 << 10)
        .max_block(Duration::from_secs(2))
        .faults(plan)
        .begin_in(dir, true)
}

fn topic(log: &Arc<LogCore>) -> Result<Topic> {
    // Two small segments, so that it rolls.
    let config = TopicConfig::new().segment_bytes(20_000).block_linger(Duration::ZERO);
    Ok(Topic { core: log.create_topic("t", &config, true)?, log: Arc::clone(log) })
}

fn value(offset: u64) -> Vec<u8> {
    format!("{offset} ").bytes().cycle().take(1_500).collect()
}

/// What a run of the workload came to.
#[derive(Default)]
struct Done {
    accepted: u64,
    /// Said to be on the disk.
    durable: u64,
    closed: bool,
    errors: Vec<Error>,
}

/// Opens, creates, appends over two rolls with flushes in between, and closes; goes on after errors where it can.
fn work(dir: &Path, plan: &Arc<FaultPlan>) -> Done {
    let mut done = Done::default();
    let log = match open(dir, plan) {
        Ok(log) => log,
        Err(e) => {
            done.errors.push(e);
            return done;
        }
    };
    match topic(&log).and_then(|t| t.partition(0)) {
        Ok(partition) => append_all(&partition, &mut done),
        Err(e) => done.errors.push(e),
    }
    match log.close(SOON) {
        Ok(()) => done.closed = true,
        Err(e) => done.errors.push(e),
    }
    done
}

fn append_all(partition: &Partition, done: &mut Done) {
    let mut flush_failed = false;
    for step in 0..40u64 {
        match partition.append(Record::new(&value(done.accepted))) {
            Ok(delivery) => {
                assert_eq!(delivery.offset(), done.accepted);
                done.accepted += 1;
            }
            Err(e) => done.errors.push(e),
        }
        if step % 9 == 8 {
            match partition.wait_durable(done.accepted, Duration::MAX) {
                Ok(()) => {
                    assert!(!flush_failed, "acknowledged at Disk after a failed flush");
                    done.durable = done.accepted;
                }
                Err(e) => {
                    flush_failed |= e.kind() != ErrorKind::NoSpace;
                    done.errors.push(e);
                }
            }
        }
    }
}

fn check(partition: &Partition, accepted: u64) {
    let mut reader = partition.reader(0).unwrap();
    for offset in 0..accepted {
        let record = reader.try_next().unwrap().unwrap();
        assert_eq!(record.offset(), offset);
        assert!(record.value() == Some(&value(offset)[..]));
    }
    assert!(reader.try_next().unwrap().is_none());
    assert_eq!(partition.end_offset(), accepted);
}

/// How many calls the workload makes; the write-behind and the caller share the work, so that it varies a little.
fn calls(ops: Option<Op>) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let done = work(&dir.path().join("log"), &plan);
    assert!(done.closed && done.errors.is_empty(), "{:?}", done.errors);
    ops.map_or_else(|| plan.total(), |op| plan.count(op))
}

fn sweep(of: Option<Op>, errno: i32, forever: bool, kinds: &[ErrorKind]) {
    let calls = calls(of);
    assert!(calls > 0);
    for k in 1..=calls {
        let mut fault = Fault::nth(k).errno(errno);
        fault = if let Some(op) = of { fault.of(op) } else { fault };
        fault = if forever { fault.forever() } else { fault };
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("log");
        let plan = FaultPlan::new();
        plan.inject(fault);
        let done = work(&dir, &plan);
        for e in &done.errors {
            assert!(kinds.contains(&e.kind()), "call {k} of {of:?}: {e:?}");
            assert!(e.path().is_some() || e.topic().is_some(), "call {k} of {of:?}: no place in {e:?}");
        }
        let again = FaultPlan::new();
        let log = open(&dir, &again).unwrap_or_else(|e| panic!("call {k} of {of:?}, reopened: {e:?}"));
        assert!(!log.report.has_losses(), "call {k} of {of:?}: {:?}", log.report);
        if done.accepted > 0 || topic(&log).is_ok() {
            check(&topic(&log).unwrap().partition(0).unwrap(), done.accepted);
        }
        assert!(done.durable <= done.accepted);
        log.close(SOON).unwrap();
    }
}

#[test]
fn any_call_may_fail_once() {
    sweep(None, Fault::EIO, false, &[ErrorKind::Storage]);
}

#[test]
fn any_call_may_be_the_first_to_fail_for_ever() {
    sweep(None, Fault::EIO, true, &[ErrorKind::Storage]);
}

#[test]
fn the_disk_may_be_full_for_ever_at_any_call() {
    for op in NEED_ROOM {
        sweep(Some(op), Fault::ENOSPC, true, &[ErrorKind::NoSpace]);
    }
}

/// Full once, then there is room: everything succeeds in the end, without reopening.
#[test]
fn a_disk_that_was_full_once_is_no_failure() {
    passes_without_reopening(&NEED_ROOM, Fault::ENOSPC, ErrorKind::NoSpace);
}

/// The same for the descriptors of a process that has used them up.
#[test]
fn a_want_of_descriptors_is_no_failure() {
    passes_without_reopening(&[Op::Create, Op::SyncDir], Fault::EMFILE, ErrorKind::Storage);
}

fn passes_without_reopening(ops: &[Op], errno: i32, kind: ErrorKind) {
    for &op in ops {
        for k in 1..=calls(Some(op)) {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().join("log");
            let plan = FaultPlan::new();
            plan.inject(Fault::nth(k).of(op).errno(errno));
            let again = |what: &str, e: Error| {
                assert_eq!(e.kind(), kind, "{what} at {op:?} {k}: {e:?}");
            };
            let log = match open(&dir, &plan) {
                Ok(log) => log,
                Err(e) => {
                    again("open", e);
                    open(&dir, &plan).unwrap_or_else(|e| panic!("opened again at {op:?} {k}: {e:?}"))
                }
            };
            let patience = Deadline::after(SOON);
            let topic = loop {
                match topic(&log) {
                    Ok(topic) => break topic,
                    Err(e) => again("create", e),
                }
                assert!(!patience.passed(), "{op:?} {k}: the topic is not created");
            };
            let partition = topic.partition(0).unwrap();
            let mut accepted = 0;
            while accepted < 40 {
                assert!(!patience.passed(), "{op:?} {k}: appends do not succeed again");
                match partition.append(Record::new(&value(accepted))) {
                    Ok(_) => accepted += 1,
                    Err(e) => again("append", e),
                }
            }
            if let Err(e) = partition.wait_durable(accepted, Duration::MAX) {
                again("flush", e);
                partition.wait_durable(accepted, SOON).unwrap();
            }
            check(&partition, accepted);
            if let Err(e) = log.close(SOON) {
                again("close", e);
            }
            drop((topic, partition, log));
            let log = open(&dir, &FaultPlan::new()).unwrap();
            assert!(!log.report.has_losses(), "{op:?} {k}: {:?}", log.report);
            check(&partition_of(&log), accepted);
        }
    }
}

fn partition_of(log: &Arc<LogCore>) -> Partition {
    topic(log).unwrap().partition(0).unwrap()
}

/// Nothing can be written, and the budget is used up: the error is that of the disk, and it comes at once.
#[test]
fn appends_that_find_no_room_hear_why() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let log = open(dir.path(), &plan).unwrap();
    let partition = topic(&log).unwrap().partition(0).unwrap();
    plan.inject(Fault::nth(1).of(Op::Allocate).errno(Fault::ENOSPC).forever());
    let mut accepted = 0;
    let error = loop {
        match partition.append(Record::new(&value(accepted))) {
            Ok(_) => accepted += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!((error.topic(), error.partition()), (Some("t"), Some(0)));
    check(&partition, accepted);
    plan.clear();
    let patience = Deadline::after(SOON);
    while partition.append(Record::new(&value(accepted))).is_err() {
        assert!(!patience.passed());
    }
    check(&partition, accepted + 1);
}

/// A disk that hangs is no error: the append waits as long as it may, and then says that the memory is used up.
#[test]
fn appends_wait_for_a_disk_that_hangs_and_no_longer_than_they_may() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let builder = LogBuilder::default().memory_budget(256 << 10).max_block(Duration::from_millis(30));
    let log = builder.faults(&plan).begin_in(dir.path(), true).unwrap();
    let partition = topic(&log).unwrap().partition(0).unwrap();
    plan.hold(Op::Write);
    let mut accepted = 0;
    let error = loop {
        match partition.append(Record::new(&value(accepted))) {
            Ok(_) => accepted += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), ErrorKind::BufferExhausted);
    assert_eq!((error.topic(), error.partition()), (Some("t"), Some(0)));
    check(&partition, accepted);
    plan.release();
    partition.wait_written(accepted, SOON).unwrap();
    partition.append(Record::new(&value(accepted))).unwrap();
    check(&partition, accepted + 1);
}
