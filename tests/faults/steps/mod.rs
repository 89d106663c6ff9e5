//! Kill at every instruction: whichever it is, the operation was done, or it was not begun.
//!
//! The test executes itself as a child that opens a small log, and steps all its threads through one operation.
//! After each instruction that may have stored to the mapped staging file, each round of a repeated one, and each system
//! call, the files are looked at: what the kernel holds of them is what a process leaves that is killed there. Each
//! state that differs from all before is put back and opened. It must show what the log showed before the operation, or
//! what it shows after it, and always that once a state before did; and nothing is lost, as the process died only.
//!
//! `TAPELOG_STEPS=name` steps one operation only.

mod code;
mod files;
mod tracer;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tapelog::admin::{RecoveryAction, RecoveryItem, RecoveryReport};
use tapelog::{Log, Partition, Record, TopicConfig, TopicPartition};

use self::files::Watch;
use self::tracer::Tracer;
use crate::model::{FOR_EVER, TOPIC, value};
use crate::report::{Run, Tally, effort, run, skip};

const DIR: &str = "TAPELOG_STEP_DIR";
const OPERATION: &str = "TAPELOG_STEP_OPERATION";
const GROUP: &str = "group";
/// So long is a segment.
const SEGMENT: usize = 20_000;

/// What is stepped: made ready with a log, and then done.
struct Operation {
    name: &'static str,
    ready: fn(&Log) -> Box<dyn FnOnce()>,
    /// Whether it is left to the night: the others show the same sooner.
    long: bool,
}

const OPERATIONS: &[Operation] = &[
    Operation { name: "append", ready: |log| append(log, 0, 1), long: false },
    Operation { name: "append, the first to a partition", ready: |log| append(log, 2, 1), long: false },
    Operation { name: "append of a batch", ready: |log| append(log, 0, 5), long: false },
    Operation { name: "append, and its write-behind", ready: write, long: true },
    Operation { name: "append into a new segment, flushed", ready: roll, long: true },
    Operation { name: "commit of offsets", ready: commit, long: false },
    Operation { name: "creation of a topic", ready: create, long: false },
    Operation { name: "change of a setting", ready: alter, long: true },
    Operation { name: "growth of a topic", ready: grow, long: true },
    Operation { name: "deletion of records", ready: delete_records, long: true },
    Operation { name: "deletion of a topic", ready: delete_topic, long: false },
];

fn open(dir: &Path) -> tapelog::Result<Log> {
    Log::builder().memory_budget(256 << 10).open(dir)
}

fn values(partition: &Partition, count: u64) -> Vec<Vec<u8>> {
    let (number, from) = (partition.topic_partition().partition(), partition.end_offset());
    (from..from + count).map(|offset| value(number, offset)).collect()
}

/// Appends values as one; returns where they end.
fn append_values(partition: &Partition, values: &[Vec<u8>]) -> u64 {
    let records: Vec<Record<'_>> = values.iter().map(Record::new).collect();
    partition.append_batch(&records).unwrap().offsets().end
}

/// What there is before any operation: two partitions with records, in the second all of a segment, and a third without.
fn fill(log: &Log) {
    let config = TopicConfig::new().partitions(3).segment_bytes(SEGMENT as u64);
    let topic = log.create_topic(TOPIC, config).unwrap();
    for (number, last) in [(0, 12), (1, u64::MAX)] {
        let partition = topic.partition(number).unwrap();
        while partition.end_offset() < last && partition.segments().len() < 3 {
            let end = append_values(&partition, &values(&partition, 1));
            partition.wait_written(end, FOR_EVER).unwrap();
        }
    }
    commit_at(log, 3);
}

fn append(log: &Log, number: u32, count: u64) -> Box<dyn FnOnce()> {
    let partition = log.topic(TOPIC).unwrap().partition(number).unwrap();
    let values = values(&partition, count);
    Box::new(move || {
        append_values(&partition, &values);
    })
}

/// An append, and what the engine's threads do about it.
fn write(log: &Log) -> Box<dyn FnOnce()> {
    let partition = log.topic(TOPIC).unwrap().partition(0).unwrap();
    let values = values(&partition, 2);
    Box::new(move || {
        let end = append_values(&partition, &values);
        partition.wait_written(end, FOR_EVER).unwrap();
    })
}

/// An append that has no room in the segment any more, to be flushed in the next one.
fn roll(log: &Log) -> Box<dyn FnOnce()> {
    let partition = log.topic(TOPIC).unwrap().partition(1).unwrap();
    let (bases, mut used) = (partition.segments().len(), 0);
    while used < SEGMENT - 5_500 {
        let values = values(&partition, 1);
        let end = append_values(&partition, &values);
        partition.wait_written(end, FOR_EVER).unwrap();
        if partition.segments().len() > bases {
            used += values[0].len();
        }
    }
    let bases = partition.segments().len();
    let enough = |count: &u64| values(&partition, *count).iter().map(Vec::len).sum::<usize>() > 6_000;
    let values = values(&partition, (1..).find(enough).unwrap());
    Box::new(move || {
        let end = append_values(&partition, &values);
        partition.wait_durable(end, FOR_EVER).unwrap();
        assert_eq!(partition.segments().len(), bases + 1);
    })
}

fn commit_at(log: &Log, offset: u64) {
    let group = log.consumer_group(GROUP).unwrap();
    let mut consumer = group.consumer().assign([TopicPartition::new(TOPIC, 0)]).unwrap();
    consumer.commit_offsets([(TopicPartition::new(TOPIC, 0), offset)]).unwrap();
}

fn commit(log: &Log) -> Box<dyn FnOnce()> {
    let group = log.consumer_group(GROUP).unwrap();
    let mut consumer = group.consumer().assign([TopicPartition::new(TOPIC, 0)]).unwrap();
    Box::new(move || {
        consumer.commit_offsets([(TopicPartition::new(TOPIC, 0), 7)]).unwrap();
        std::mem::forget(consumer);
    })
}

fn create(log: &Log) -> Box<dyn FnOnce()> {
    let log = log.clone();
    Box::new(move || drop(log.create_topic("new", TopicConfig::new().partitions(2)).unwrap()))
}

fn alter(log: &Log) -> Box<dyn FnOnce()> {
    let topic = log.topic(TOPIC).unwrap();
    Box::new(move || topic.alter(TopicConfig::new().max_record_bytes(7_000)).unwrap())
}

fn grow(log: &Log) -> Box<dyn FnOnce()> {
    let topic = log.topic(TOPIC).unwrap();
    Box::new(move || topic.add_partitions(5).unwrap())
}

fn delete_records(log: &Log) -> Box<dyn FnOnce()> {
    let partition = log.topic(TOPIC).unwrap().partition(1).unwrap();
    let before = partition.segments()[2];
    Box::new(move || assert_eq!(partition.delete_records(before).unwrap(), before))
}

fn delete_topic(log: &Log) -> Box<dyn FnOnce()> {
    let log = log.clone();
    Box::new(move || log.delete_topic(TOPIC).unwrap())
}

/// Everything that a log shows, in words.
fn view(log: &Log) -> String {
    let mut out = String::new();
    for topic in log.topics() {
        let described = topic.describe();
        writeln!(out, "{} of {}: {:?}", described.name, described.partitions, described.settings).unwrap();
        for number in 0..topic.partitions() {
            let partition = topic.partition(number).unwrap();
            let (start, end) = (partition.start_offset(), partition.end_offset());
            writeln!(out, "  {number}: {start}..{end}").unwrap();
            let mut reader = partition.reader(start).unwrap();
            for offset in start..end {
                let word = match reader.try_next() {
                    Ok(Some(r)) if r.offset() == offset && r.value() == Some(&value(number, offset)) => "",
                    Ok(Some(_)) => "other bytes",
                    Ok(None) => "nothing",
                    Err(_) => "an error",
                };
                if !word.is_empty() {
                    writeln!(out, "    at {offset}: {word}").unwrap();
                }
            }
        }
    }
    let group = log.consumer_group(GROUP).unwrap();
    writeln!(out, "committed: {:?}", group.committed(&TopicPartition::new(TOPIC, 0)).ok()).unwrap();
    out
}

/// Opens the log and does the operation where the parent says so.
fn child(dir: &Path, operation: &Operation) {
    let log = open(dir).unwrap();
    fill(&log);
    let done = (operation.ready)(&log);
    println!("ready");
    let orders = || std::io::stdin().read_exact(&mut [0]).unwrap();
    orders();
    let _ = std::os::unix::process::parent_id(); // begins
    done();
    let _ = std::os::unix::process::parent_id(); // is over
    orders();
}

fn start(dir: &Path, operation: &Operation) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "steps::a_kill_at_every_instruction", "--nocapture", "--test-threads", "1"])
        .env(DIR, dir)
        .env(OPERATION, operation.name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    // Behind the words of the test harness.
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the child ended before it was ready");
    child
}

/// What the log shows before the operation and after it.
fn expected(operation: &Operation) -> [String; 2] {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir.path().join("log")).unwrap();
    fill(&log);
    let done = (operation.ready)(&log);
    let before = view(&log);
    done();
    [before, view(&log)]
}

/// Steps through one operation, and opens what it left at each instruction.
fn try_one(operation: &Operation, run: &mut Run) {
    let mut random = run.random();
    let [before, after] = expected(operation);
    assert_ne!(before, after, "it changes something");
    // Where there is memory for it: a log waits for the disk when it is opened.
    let place = Path::new("/dev/shm");
    let folder = if place.is_dir() { tempfile::tempdir_in(place) } else { tempfile::tempdir() }.unwrap();
    let dir = folder.path().join("log");
    let mut child = start(&dir, operation);
    let mut watch = Watch::new(folder.path());
    let tracer = Tracer::seize(child.id()).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    let stepped = tracer.step_all(&mut watch, &mut random, || run.has_time(effort(300, 3_600)));
    tracer::end(child);
    let stepped = stepped.expect("there was time to step to the end");
    run.tally.instructions = stepped.instructions;
    let states = watch.states();
    let mut done_in = None;
    for state in 0..states {
        watch.restore(state);
        run.tally.cycles += 1;
        let words = || format!("state {state} of {states}");
        let log = match run.tally.guard(words, || open(&dir)) {
            None => continue,
            Some(Ok(log)) => log,
            Some(Err(e)) => {
                run.tally.wrong(|| format!("{}: {e:?}", words()));
                continue;
            }
        };
        check_report(log.recovery_report(), state, &mut run.tally);
        check_folders(&dir, &log, state, &mut run.tally);
        let Some(shown) = run.tally.guard(words, || view(&log)) else { continue };
        run.tally.acked += u64::from(done_in.is_some() || state == stepped.last);
        if shown == after {
            done_in.get_or_insert(state);
        } else if shown != before {
            run.tally.wrong(|| format!("{}: shows\n{shown}where it was\n{before}or is\n{after}", words()));
        } else if let Some(done) = done_in {
            run.tally.lost(1, || format!("{}: was done in state {done}", words()));
        } else if state == stepped.last {
            run.tally.lost(1, || format!("{}: it had returned", words()));
        }
    }
    println!("{}: {} threads, {states} states, done from {done_in:?} on", operation.name, stepped.threads);
}

/// No folder stays that belongs to no topic, neither of one half made nor of one half deleted.
fn check_folders(dir: &Path, log: &Log, state: usize, tally: &mut Tally) {
    let topics: Vec<String> =
        log.topics().into_iter().map(|topic| topic.describe().name.to_string()).collect();
    for entry in std::fs::read_dir(dir.join("topics")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let topic = name.rsplit_once('.').map_or(&*name, |(topic, _)| topic);
        if !topic.starts_with("__") && !topics.iter().any(|known| known == topic) {
            tally.wrong(|| format!("state {state}: the folder {name} stays"));
        }
    }
    if dir.join("quarantine").exists() {
        tally.wrong(|| format!("state {state}: set aside, {:?}", log.recovery_report()));
    }
}

/// Nothing is lost with a process.
fn check_report(report: &RecoveryReport, state: usize, tally: &mut Tally) {
    let fits = |item: &RecoveryItem| matches!(item.action, RecoveryAction::Replayed);
    // While a flush is under way it is not known whether the disk took all.
    if !report.items.iter().all(fits) || (state == 0 && !report.page_cache_survived) {
        tally.wrong(|| format!("state {state}: {report:?}"));
    }
}

#[test]
fn a_kill_at_every_instruction() {
    if let (Some(dir), Ok(name)) = (std::env::var_os(DIR), std::env::var(OPERATION)) {
        let operation = OPERATIONS.iter().find(|operation| operation.name == name).unwrap();
        return child(Path::new(&dir), operation);
    }
    let only = std::env::var("TAPELOG_STEPS").ok();
    let chosen = |operation: &&Operation| match &only {
        Some(only) => only == operation.name,
        None => !operation.long || effort(0, 1) == 1,
    };
    for operation in OPERATIONS.iter().filter(chosen) {
        let test = format!("2 kill at every instruction: {}", operation.name);
        if may_trace() {
            run(&test, |run| try_one(operation, run));
        } else {
            skip(&test, "no process may be traced here");
        }
    }
}

/// Whether this process may trace a child.
fn may_trace() -> bool {
    let child = Command::new("sleep").arg("60").spawn().unwrap();
    let may = Tracer::seize(child.id()).is_ok();
    tracer::end(child);
    may
}
