//! Every call to the disk fails, once and for ever, and the power goes at every call: what the log says then is true.
//!
//! A first run counts the calls of a workload; then it is run again for each of them. It creates, alters, grows and deletes
//! topics, appends over rolls, flushes, commits offsets, and goes on after errors as a user would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tapelog::testing::{Fault, FaultPlan, Op, SimulatedDisk};
use tapelog::{Error, ErrorKind, Log, Record, Result, TopicConfig, TopicPartition};

use crate::model::{Expected, SOON, TOPIC, builder, config};
use crate::report::{Random, Tally, effort, run};

/// Calls that can find no room. A flush cannot: for it a full disk is a failure like any other.
const NEED_ROOM: [Op; 5] = [Op::Write, Op::Allocate, Op::Create, Op::CreateDir, Op::Rename];
const FLUSHES: [Op; 3] = [Op::Sync, Op::SyncDir, Op::SyncAll];
const GROUP: &str = "g";

fn open(disk: &SimulatedDisk, plan: &Arc<FaultPlan>) -> Result<Log> {
    builder().simulated_disk(disk).faults(plan).max_block(Duration::from_millis(100)).open("/log")
}

/// Topics by name, with their partitions and a setting.
type Catalog = BTreeMap<&'static str, (u32, u64)>;

/// What a run of the workload came to.
struct Done {
    expected: Expected,
    /// Every state of the catalog that it can be in: the last that was acknowledged, and what was begun since.
    catalogs: Vec<Catalog>,
    /// Every offset that was committed, or may have been, and the last that was acknowledged.
    commits: Vec<u64>,
    committed: Option<u64>,
    errors: Vec<Error>,
    flush_failed: bool,
}

impl Done {
    fn new() -> Done {
        Done {
            expected: Expected::default(),
            catalogs: vec![Catalog::new()],
            commits: Vec::new(),
            committed: None,
            errors: Vec::new(),
            flush_failed: false,
        }
    }

    /// Does one thing to the catalog; true if it was acknowledged.
    fn catalog(&mut self, change: impl Fn(&mut Catalog), done: Result<()>) -> bool {
        let mut after = self.catalogs.clone();
        after.iter_mut().for_each(change);
        match done {
            Ok(()) => self.catalogs = after,
            Err(e) => {
                self.catalogs.extend(after);
                self.errors.push(e);
                return false;
            }
        }
        true
    }

    fn note(&mut self, done: Result<()>) -> bool {
        done.map_err(|e| self.errors.push(e)).is_ok()
    }
}

fn has(log: &Log, topic: &str) -> bool {
    log.topic(topic).is_ok()
}

/// Opens and works; what fails is tried `tries` times.
fn work(disk: &SimulatedDisk, plan: &Arc<FaultPlan>, tries: u32) -> (Done, Option<Log>) {
    let mut done = Done::new();
    let opened = (0..tries).find_map(|_| open(disk, plan).map_err(|e| done.errors.push(e)).ok());
    let Some(log) = opened else { return (done, None) };
    let again = |done: &mut Done, step: &mut dyn FnMut(&mut Done) -> bool| (0..tries).any(|_| step(done));

    let create = |name: &'static str, partitions: u32| {
        let log = &log;
        move |done: &mut Done| {
            let created = log.ensure_topic(name, config(partitions)).map(drop);
            done.catalog(|c| _ = c.entry(name).or_insert((partitions, 20_000)), created)
        }
    };
    again(&mut done, &mut create(TOPIC, 1));
    if let Ok(partition) = log.topic(TOPIC).and_then(|t| t.partition(0)) {
        for step in 0..24 {
            again(&mut done, &mut |done| {
                let appended = done.expected.append(&partition, 1 + step % 3);
                done.note(appended)
            });
            if step % 8 == 7 {
                again(&mut done, &mut |done| match done.expected.flush(&partition) {
                    Ok(()) => {
                        assert!(!done.flush_failed, "acknowledged after a failed flush");
                        true
                    }
                    Err(e) => {
                        done.flush_failed |= e.kind() != ErrorKind::NoSpace;
                        done.note(Err(e))
                    }
                });
            }
        }
    }
    again(&mut done, &mut create("u", 1));
    if let Ok(u) = log.topic("u") {
        again(&mut done, &mut |done| {
            let altered = u.alter(TopicConfig::new().segment_bytes(30_000));
            done.catalog(|c| _ = c.get_mut("u").map(|t| t.1 = 30_000), altered)
        });
        again(&mut done, &mut |done| {
            if u.partitions() == 3 {
                return true; // the first try did it, and said that it could not tell
            }
            let grown = u.add_partitions(3);
            done.catalog(|c| _ = c.get_mut("u").map(|t| t.0 = 3), grown)
        });
    }
    if let Ok(mut consumer) = log.consumer_group(GROUP).and_then(|g| g.consumer().build()) {
        for offset in [1, 2, 5] {
            again(&mut done, &mut |done| {
                done.commits.push(offset);
                let committed = consumer.commit_offsets([(TopicPartition::new(TOPIC, 0), offset)]);
                if committed.is_ok() {
                    done.committed = Some(offset);
                }
                done.note(committed)
            });
        }
    }
    again(&mut done, &mut create("v", 2));
    again(&mut done, &mut |done| {
        if !has(&log, "u") {
            return true;
        }
        let deleted = log.delete_topic("u");
        done.catalog(|c| _ = c.remove("u"), deleted)
    });
    (done, Some(log))
}

/// Opens what is left with nothing in the way, and compares. `power` says whether the power went, too.
fn check(left: &SimulatedDisk, done: &Done, power: bool, tally: &mut Tally, words: &str) {
    tally.cycles += 1;
    let Some(log) = tally.guard(|| format!("{words}: panicked"), || open(left, &FaultPlan::new())) else {
        return;
    };
    let log = match log {
        Ok(log) => log,
        Err(e) => return tally.lost(1, || format!("{words}: does not open: {e:?}")),
    };
    let found: BTreeMap<String, (u32, u64)> = log
        .topics()
        .iter()
        .map(|t| {
            let described = t.describe();
            (described.name, (described.partitions, described.segment_bytes))
        })
        .collect();
    let is = |c: &Catalog| c.len() == found.len() && c.iter().all(|(name, t)| found.get(*name) == Some(t));
    if !done.catalogs.iter().any(is) {
        tally.wrong(|| format!("{words}: the catalog is {found:?}, none of {:?}", done.catalogs));
    }
    let acked = if power { done.expected.durable } else { done.expected.appended() };
    match log.topic(TOPIC).and_then(|t| t.partition(0)) {
        Ok(partition) => done.expected.check(&partition, acked, tally, words),
        Err(e) => tally.lost(acked, || format!("{words}: {e}")),
    }
    if let Some(acked) = done.committed {
        let tp = TopicPartition::new(TOPIC, 0);
        let there = log.consumer_group(GROUP).and_then(|g| g.committed(&tp));
        let is_known = |offset: &u64| done.commits.contains(offset);
        match there {
            Ok(Some(offset)) if is_known(&offset) && (power || offset >= acked) => {}
            Ok(None) if power => {}
            // The commit survives the death of the process; the topic that it is of was never acknowledged.
            Err(_) if power && !found.contains_key(TOPIC) => {}
            other => tally.wrong(|| format!("{words}: committed {acked}, found {other:?}")),
        }
    }
}

/// How many calls the workload makes; threads share the work, so that it varies a little.
fn calls(of: Option<Op>) -> u64 {
    let plan = FaultPlan::new();
    let (done, log) = work(&SimulatedDisk::new(), &plan, 1);
    assert!(done.errors.is_empty(), "{:?}", done.errors);
    log.unwrap().close(SOON).unwrap();
    of.map_or_else(|| plan.total(), |op| plan.count(op))
}

fn words(of: Option<Op>, k: u64, forever: bool, errno: i32) -> String {
    let (of, how) =
        (of.map_or_else(|| "any".into(), |op| format!("{op:?}")), if forever { "for ever" } else { "once" });
    format!("call {k} of {of} fails {how} with {errno}")
}

/// Has call `k` fail, looks at what the log says, and at what is left after the process died and after the power went.
fn fail_at(k: u64, of: Option<Op>, errno: i32, forever: bool, random: &mut Random, tally: &mut Tally) {
    let words = words(of, k, forever, errno);
    let (disk, plan) = (SimulatedDisk::new(), FaultPlan::new());
    let mut fault = Fault::nth(k).errno(errno);
    fault = if let Some(op) = of { fault.of(op) } else { fault };
    plan.inject(if forever { fault.forever() } else { fault });
    let Some((mut done, log)) = tally.guard(|| words.clone(), || work(&disk, &plan, 1)) else { return };
    let flushed_wrongly = of.is_some_and(|op| FLUSHES.contains(&op)) && plan.fired() > 0;
    let allowed = if errno == Fault::ENOSPC { ErrorKind::NoSpace } else { ErrorKind::Storage };
    for e in &done.errors {
        // After a flush that failed the disk is not believed again, whatever the reason was.
        let fits = e.kind() == allowed || (errno == Fault::ENOSPC && e.kind() == ErrorKind::Storage);
        if !(fits || e.kind() == ErrorKind::UnknownTopicOrPartition) {
            tally.wrong(|| format!("{words}: {e:?}"));
        }
    }
    let moment = disk.freeze().unwrap();
    check(&moment.process_death(), &done, false, tally, &format!("{words}, then the process dies"));
    for _ in 0..2 {
        let seed = random.next();
        let left = moment.power_cut_at_random(seed);
        check(&left, &done, true, tally, &format!("{words}, then the power goes, seed {seed}"));
    }
    check(&moment.power_cut(|_| false), &done, true, tally, &format!("{words}, then the power goes"));
    if let Some(log) = log {
        plan.clear();
        let closed = log.close(SOON);
        if flushed_wrongly && closed.is_ok() && done.errors.is_empty() && forever {
            tally.wrong(|| format!("{words}: and nobody heard of it"));
        }
        done.errors.clear();
        check(&disk.freeze().unwrap().process_death(), &done, false, tally, &format!("{words}, then closed"));
    }
}

fn sweep(name: &str, ops: &[Option<Op>], errno: i32) {
    run(name, |run| {
        let mut random = run.random();
        for &of in ops {
            let calls = calls(of);
            for forever in [false, true] {
                for k in 1..=calls {
                    fail_at(k, of, errno, forever, &mut random, &mut run.tally);
                }
            }
        }
    });
}

#[test]
fn any_call_fails() {
    sweep("I/O error at every call, once and for ever", &[None], Fault::EIO);
}

#[test]
fn any_flush_fails() {
    let ops = FLUSHES.map(Some);
    sweep("I/O error at every flush, once and for ever", &ops, Fault::EIO);
}

#[test]
fn the_disk_is_full_at_any_call() {
    let ops = NEED_ROOM.map(Some);
    sweep("disk full at every allocation, once and for ever", &ops, Fault::ENOSPC);
}

/// What succeeds once there is room; the write-behind may hear of it a moment later than the caller.
fn until_room<T>(mut what: impl FnMut() -> Result<T>) -> T {
    let patience = std::time::Instant::now();
    loop {
        match what() {
            Ok(done) => return done,
            Err(e) => assert_eq!(e.kind(), ErrorKind::NoSpace, "{e:?}"),
        }
        assert!(patience.elapsed() < SOON, "it does not succeed again");
    }
}

/// Full from some call on, until there is room again: what failed then succeeds, on the log that is open.
#[test]
fn after_a_full_disk_the_log_goes_on() {
    run("disk full at every allocation, then room, without reopening", |run| {
        for op in NEED_ROOM {
            let calls = calls(Some(op));
            for k in 1..=calls {
                run.tally.cycles += 1;
                let words = words(Some(op), k, true, Fault::ENOSPC);
                let (disk, plan) = (SimulatedDisk::new(), FaultPlan::new());
                plan.inject(Fault::nth(k).of(op).errno(Fault::ENOSPC).forever());
                let (mut done, log) = work(&disk, &plan, 1);
                plan.clear();
                let Some(log) = log.or_else(|| open(&disk, &plan).ok()) else {
                    run.tally.wrong(|| format!("{words}: does not open when there is room again"));
                    continue;
                };
                let topic = until_room(|| log.ensure_topic(TOPIC, config(1)));
                let partition = topic.partition(0).unwrap();
                until_room(|| done.expected.append(&partition, 1));
                until_room(|| done.expected.flush(&partition));
                let acked = done.expected.appended();
                done.expected.check(&partition, acked, &mut run.tally, &words);
                drop((topic, partition));
                let left = disk.freeze().unwrap().power_cut(|_| false);
                if let Err(e) = log.close(SOON) {
                    run.tally.wrong(|| format!("{words}: {e:?}"));
                }
                let after = open(&left, &FaultPlan::new()).unwrap();
                let partition = after.topic(TOPIC).unwrap().partition(0).unwrap();
                done.expected.check(&partition, acked, &mut run.tally, &words);
            }
        }
    });
}

/// All calls from some call on fail, which to the disk is the same as a power cut there.
#[test]
fn the_power_goes_at_any_call() {
    run("power cut at every call: topics, offsets, appends", |run| {
        let mut random = run.random();
        let states = effort(4, 40);
        let calls = calls(None);
        for k in 1..=calls {
            let (disk, plan) = (SimulatedDisk::new(), FaultPlan::new());
            plan.inject(Fault::nth(k).forever());
            let (done, log) = work(&disk, &plan, 1);
            let moment = disk.freeze().unwrap();
            for _ in 0..states {
                let seed = random.next();
                let words = format!("the power goes at call {k}, seed {seed}");
                check(&moment.power_cut_at_random(seed), &done, true, &mut run.tally, &words);
            }
            let things = moment.unsynced().min(effort(3, 8) as usize);
            for subset in 0..1u64 << things {
                let kept = |n: usize| n < things && subset >> n & 1 == 1;
                let words = format!("the power goes at call {k}, subset {subset:b}");
                check(&moment.power_cut(kept), &done, true, &mut run.tally, &words);
            }
            drop(log);
        }
    });
}

/// The disk was full when a topic was created, which failed; then there was room. The topic was there all the same, records
/// were flushed and acknowledged, and when the power went all of it was gone: nobody had flushed the record of the topic.
#[test]
fn a_topic_whose_creation_failed_takes_no_records() {
    let (disk, plan) = (SimulatedDisk::new(), FaultPlan::new());
    let log = open(&disk, &plan).unwrap();
    plan.inject(Fault::nth(1).errno(Fault::ENOSPC).under("/topics/").forever());
    assert_eq!(log.create_topic(TOPIC, config(1)).unwrap_err().kind(), ErrorKind::NoSpace);
    plan.clear();
    assert_eq!(log.topic(TOPIC).unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
    let partition = until_room(|| log.ensure_topic(TOPIC, config(1))).partition(0).unwrap();
    let mut expected = Expected::default();
    expected.append(&partition, 3).unwrap();
    expected.flush(&partition).unwrap();
    let left = disk.freeze().unwrap().power_cut(|_| false);
    let after = open(&left, &FaultPlan::new()).unwrap();
    let mut tally = Tally::default();
    expected.check(&after.topic(TOPIC).unwrap().partition(0).unwrap(), 3, &mut tally, "power cut");
    assert_eq!((tally.lost, tally.wrong), (0, 0), "{tally:?}");
}

/// The disk was full when a topic was deleted, which failed; then there was room. The topic took records and acknowledged them,
/// and the next open deleted it with all of them: that it goes had been written down, only not flushed.
#[test]
fn a_topic_whose_deletion_failed_takes_no_records() {
    let (disk, plan) = (SimulatedDisk::new(), FaultPlan::new());
    let log = open(&disk, &plan).unwrap();
    let partition = log.create_topic(TOPIC, config(1)).unwrap().partition(0).unwrap();
    let mut expected = Expected::default();
    expected.append(&partition, 3).unwrap();
    expected.flush(&partition).unwrap();
    plan.inject(Fault::nth(1).errno(Fault::ENOSPC).under("/topics/").forever());
    assert_eq!(log.delete_topic(TOPIC).unwrap_err().kind(), ErrorKind::NoSpace);
    let refused = expected.append(&partition, 1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnknownTopicOrPartition);
    // The power may bring it back, with all that was flushed.
    let left = disk.freeze().unwrap().power_cut(|_| false);
    let after = open(&left, &FaultPlan::new()).unwrap();
    let mut tally = Tally::default();
    expected.check(&after.topic(TOPIC).unwrap().partition(0).unwrap(), 3, &mut tally, "power cut");
    assert_eq!((tally.lost, tally.wrong), (0, 0), "{tally:?}");
    // Deleted again when there is room, it is gone for good, and so are its files.
    plan.clear();
    until_room(|| log.delete_topic(TOPIC));
    assert_eq!(log.delete_topic(TOPIC).unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
    let moment = disk.freeze().unwrap();
    assert!(!has(&open(&moment.power_cut(|_| false), &FaultPlan::new()).unwrap(), TOPIC));
    let after = open(&moment.process_death(), &FaultPlan::new()).unwrap();
    assert!(!has(&after, TOPIC) && !after.recovery_report().has_losses(), "{:?}", after.recovery_report());
}

/// The disk failed under one partition, whose records then filled the budget for good. Another one waited for room as long as it
/// might, kept a processor busy, and was told in the end that it was too fast.
#[test]
fn who_waits_for_room_hears_that_the_disk_failed() {
    let (disk, plan) = (SimulatedDisk::new(), FaultPlan::new());
    let log = builder().simulated_disk(&disk).faults(&plan).open("/log").unwrap();
    let topic = log.create_topic(TOPIC, config(2).segment_bytes(1 << 20)).unwrap();
    plan.inject(Fault::nth(1).of(Op::Write).under("/topics/").forever());
    let large = vec![0u8; 150 << 10];
    let first = topic.partition(0).unwrap();
    first.append(Record::new(&large)).unwrap();
    assert_eq!(first.wait_written(1, SOON).unwrap_err().kind(), ErrorKind::Storage);
    let other = topic.partition(1).unwrap();
    assert_eq!(other.append(Record::new(&large)).unwrap_err().kind(), ErrorKind::Storage);
}
