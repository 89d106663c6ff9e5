//! What went wrong once with a whole log, each told as it happened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Deadline;
use crate::error::{ErrorKind, Result};
use crate::log::catalog::TopicConfig;
use crate::log::core::LogCore;
use crate::log::opening::LogBuilder;
use crate::log::topic::Topic;
use crate::partition::Partition;
use crate::record::Record;
use crate::storage::disk::RealDisk;
use crate::storage::fault::{Fault, FaultDisk, FaultPlan, Op};

const SOON: Duration = Duration::from_secs(20);
const BUDGET: u64 = 256 << 10;

fn open_with(dir: &Path, plan: &Arc<FaultPlan>) -> Result<Arc<LogCore>> {
    let disk = FaultDisk::new(Arc::new(RealDisk), Arc::clone(plan));
    LogBuilder::default().memory_budget(BUDGET).max_block(SOON).disk(Arc::new(disk)).begin_in(dir, true)
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
