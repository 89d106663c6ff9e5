//! One writer: however many come for a log, one has it; it is free when that one is gone, and not before.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tapelog::{ErrorKind, Log, Partition, Record, TopicConfig};

use crate::model::{FOR_EVER, SOON, TOPIC, value};
use crate::report::{Tally, effort, run};

const DIR: &str = "TAPELOG_OWNER_DIR";
const OPENERS: usize = 4;

fn open(dir: &Path) -> tapelog::Result<Log> {
    Log::builder().memory_budget(256 << 10).open(dir)
}

fn is_locked(dir: &Path) -> bool {
    open(dir).err().is_some_and(|e| e.kind() == ErrorKind::Locked)
}

/// Opens the log whenever it is told to, says what came of it, and lets go of it when it is told to.
fn child(dir: &Path) {
    println!("ready");
    let mut log = None;
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "open" => match open(dir) {
                Ok(opened) => {
                    log = Some(opened);
                    println!("has it");
                }
                Err(e) if e.kind() == ErrorKind::Locked => println!("locked out"),
                Err(e) => println!("failed: {e}"),
            },
            "append" => {
                let topic = log.as_ref().unwrap().ensure_topic(TOPIC, TopicConfig::new()).unwrap();
                let partition = topic.partition(0).unwrap();
                let end = partition.append(Record::new(&value(0, partition.end_offset()))).unwrap();
                println!("appended {}", end.offset());
            }
            "close" => {
                log.take().unwrap().close(SOON).unwrap();
                println!("closed");
            }
            _ => {
                drop(log.take());
                println!("let go");
            }
        }
    }
}

/// A process that opens a log.
struct Opener {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Opener {
    fn start(dir: &Path) -> Opener {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "owners::one_of_four_openers_has_it", "--nocapture", "--test-threads", "1"])
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        // Behind the words of the test harness.
        assert!(answers.any(|line| line.unwrap().ends_with("ready")));
        Opener { child, orders, answers }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn answer(&mut self) -> String {
        self.answers.next().unwrap().unwrap()
    }

    fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn check(partition: &Partition, records: u64, tally: &mut Tally) {
    tally.acked += records;
    let there = partition.end_offset();
    tally.lost(records.abs_diff(there), || format!("{records} were appended, {there} are there"));
    let mut reader = partition.reader(0).unwrap();
    for offset in 0..there {
        let record = reader.try_next().unwrap().unwrap();
        if record.value() != Some(&value(0, offset)) {
            tally.wrong(|| format!("offset {offset} has other bytes"));
        }
    }
}

#[test]
fn one_of_four_openers_has_it() {
    if let Some(dir) = std::env::var_os(DIR) {
        return child(Path::new(&dir));
    }
    run("20 races of 4 openers, and a kill of who has it", |run| {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("log");
        let mut random = run.random();
        let mut openers: Vec<Opener> = (0..OPENERS).map(|_| Opener::start(&dir)).collect();
        let rounds = effort(100, 1_000);
        for round in 0..rounds {
            run.tally.cycles += 1;
            openers.iter_mut().for_each(|opener| opener.order("open"));
            let answers: Vec<String> = openers.iter_mut().map(Opener::answer).collect();
            let has = |answer: &&String| *answer == "has it";
            let out = answers.iter().filter(|answer| *answer == "locked out").count();
            if answers.iter().filter(has).count() != 1 || out != OPENERS - 1 {
                run.tally.wrong(|| format!("round {round}: {answers:?}"));
                return;
            }
            let owner = answers.iter().position(|answer| answer == "has it").unwrap();
            if !is_locked(&dir) {
                run.tally.wrong(|| format!("round {round}: it was open, and opened here"));
            }
            let appended = openers[owner].ask("append");
            if appended != format!("appended {round}") {
                run.tally.wrong(|| format!("round {round}: {appended}"));
            }
            match random.below(10) {
                0 => {
                    let killed = std::mem::replace(&mut openers[owner], Opener::start(&dir));
                    killed.kill();
                }
                1..4 => assert_eq!(openers[owner].ask("close"), "closed"),
                _ => assert_eq!(openers[owner].ask("let go"), "let go"),
            }
        }
        openers.into_iter().for_each(Opener::kill);
        let log = open(&dir).unwrap();
        check(&log.topic(TOPIC).unwrap().partition(0).unwrap(), rounds, &mut run.tally);
    });
}

/// The file that is locked was removed while a log was open: the next one that came locked another, and both wrote.
#[test]
fn a_lock_file_that_was_removed_lets_nobody_in() {
    run("20 lock file removed, replaced, of another", |run| {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("log");
        let lock = dir.join("LOCK");
        let mut other = Opener::start(&dir);
        let changes: [fn(&Path); 3] = [
            |lock| fs::remove_file(lock).unwrap(),
            |lock| {
                fs::remove_file(lock).unwrap();
                fs::write(lock, "").unwrap();
            },
            |lock| fs::rename(lock, lock.with_extension("old")).unwrap(),
        ];
        for (n, change) in changes.iter().enumerate() {
            run.tally.cycles += 1;
            let log = open(&dir).unwrap();
            change(&lock);
            let theirs = other.ask("open");
            if !is_locked(&dir) || theirs != "locked out" {
                run.tally
                    .wrong(|| format!("change {n}: here or there ({theirs}) it was opened a second time"));
            }
            drop(log);
            assert_eq!(other.ask("open"), "has it");
            if !is_locked(&dir) {
                run.tally.wrong(|| format!("change {n}: it was opened here while another has it"));
            }
            assert_eq!(other.ask("let go"), "let go");
        }
        other.kill();
    });
}

/// What a program kept of a log stays what it was, whatever becomes of the log and of its directory.
#[test]
fn records_outlive_their_log_while_it_is_opened_again() {
    run("6 records outlive their log while it is opened again", |run| {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("log");
        let mut kept = Vec::new();
        let mut end = 0;
        for round in 0..effort(10, 300) {
            run.tally.cycles += 1;
            let log = open(&dir).unwrap();
            let config = TopicConfig::new().segment_bytes(20_000);
            let partition = log.ensure_topic(TOPIC, config).unwrap().partition(0).unwrap();
            check(&partition, end, &mut run.tally);
            for _ in 0..40 {
                partition.append(Record::new(&value(0, end))).unwrap();
                end += 1;
            }
            // Some from the hot tail, some from blocks.
            if round % 2 == 0 {
                partition.wait_written(end, FOR_EVER).unwrap();
            }
            let records = partition.reader(end - 40).unwrap().read(40).unwrap();
            let cold = partition.reader(0).unwrap().read(10).unwrap();
            kept.extend([(end - 40, records), (0, cold)]);
            if round % 3 == 0 {
                log.close(SOON).unwrap();
            }
            if kept.len() > 12 {
                kept.drain(..3);
            }
            for (from, records) in &kept {
                for (offset, record) in (*from..).zip(records.iter()) {
                    if record.offset() != offset || record.value() != Some(&value(0, offset)) {
                        run.tally.wrong(|| format!("round {round}: the record of offset {offset} changed"));
                    }
                }
            }
        }
    });
}
