//! Kill -9 at any moment: what was acknowledged is there, exactly, in order, without holes.
//!
//! The test executes itself as a writer and kills that child at a random moment, again and again on one
//! directory: every cycle goes on where the last one was killed. One in four is killed as early as it may still be
//! recovering from the one before; another test kills nothing but openers that are. Two directories have their turns at the
//! same time, one where temporary files are, and one in memory if there is room. `TAPELOG_KILLS=n` makes n cycles.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tapelog::{Compression, Log, Partition, Record, TopicConfig};
use tempfile::TempDir;

use crate::report::{Random, Run, Tally, effort, run};

const DIR: &str = "TAPELOG_KILL_DIR";
const CHILD: &str = "kill::a_writer_to_be_killed";
const PARTITIONS: u32 = 4;
/// Where the writer says that it is open, behind how far each partition has come, and that it is about to be.
const OPENED: u64 = PARTITIONS as u64 * 8;
const BEGUN: u64 = OPENED + 8;
/// A directory with more records is left for a new one.
const MOST_RECORDS: u64 = 1_000_000;

/// The value of record `offset` of a partition: of a length and with bytes that follow from these two alone.
fn value(partition: u32, offset: u64, out: &mut Vec<u8>) {
    let mut random = Random::new(offset << 8 | u64::from(partition));
    let len = match random.below(1_000) {
        0 => 70_000 + random.below(30_000), // larger than a block and a small slot
        1..20 => random.below(9_000),
        _ => random.below(200),
    };
    out.clear();
    let noise = random.next();
    out.extend(
        format!("{partition}/{offset} ").bytes().chain(noise.to_le_bytes()).cycle().take(len as usize),
    );
}

fn open(dir: &Path) -> (Log, Vec<Partition>) {
    let log = Log::builder().memory_budget(1 << 20).open(dir.join("log")).unwrap();
    let config =
        TopicConfig::new().partitions(PARTITIONS).compression(Compression::Lz4).segment_bytes(300_000);
    let topic = log.ensure_topic("killed", config).unwrap();
    let partitions = (0..PARTITIONS).map(|n| topic.partition(n).unwrap()).collect();
    (log, partitions)
}

/// Appends for ever; writes into the file `acked` how far each partition has come, after every append.
fn child(dir: &Path) {
    let acked = File::options().write(true).open(dir.join("acked")).unwrap();
    acked.write_all_at(&1u64.to_le_bytes(), BEGUN).unwrap();
    let (_log, partitions) = open(dir);
    acked.write_all_at(&1u64.to_le_bytes(), OPENED).unwrap();
    let mut random = Random::new(u64::from(std::process::id()));
    let mut values: Vec<Vec<u8>> = vec![Vec::new(); 60];
    loop {
        let number = random.below(u64::from(PARTITIONS)) as u32;
        let partition = &partitions[number as usize];
        let from = partition.end_offset();
        let count = if random.below(4) == 0 { 1 + random.below(60) as usize } else { 1 };
        values[..count].iter_mut().zip(from..).for_each(|(v, offset)| value(number, offset, v));
        let records: Vec<Record<'_>> = values[..count].iter().map(Record::new).collect();
        let delivery = partition.append_batch(&records).unwrap();
        assert_eq!(delivery.offset(), from);
        acked.write_all_at(&(from + count as u64).to_le_bytes(), u64::from(number) * 8).unwrap();
        if random.below(5_000) == 0 {
            partition.wait_durable(from, Duration::MAX).unwrap();
        }
    }
}

/// Checks all records from `from` on, and returns how far they go.
fn check(number: u32, partition: &Partition, from: u64) -> u64 {
    let mut reader = partition.reader(from).unwrap();
    let mut expected = Vec::new();
    let mut offset = from;
    while let Some(record) = reader.try_next().unwrap() {
        assert_eq!(record.offset(), offset, "partition {number}");
        value(number, offset, &mut expected);
        assert!(record.value() == Some(&expected[..]), "partition {number}, offset {offset} differs");
        offset += 1;
    }
    assert_eq!(offset, partition.end_offset());
    offset
}

/// Not a test but what the tests run as another process.
#[test]
fn a_writer_to_be_killed() {
    if let Some(dir) = std::env::var_os(DIR) {
        child(Path::new(&dir));
    }
}

/// A directory whose writers are killed.
struct Lane {
    in_memory: bool,
    dir: TempDir,
    acked: File,
    /// How far each partition was checked.
    checked: [u64; PARTITIONS as usize],
    epoch: u32,
    kills: u64,
    /// How long the last open took that was not killed.
    opening: Duration,
}

impl Lane {
    fn new(in_memory: bool) -> Lane {
        let memory = Path::new("/dev/shm");
        let place = if in_memory && memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let dir = tempfile::tempdir_in(place).unwrap();
        let path = dir.path().join("acked");
        let acked = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        acked.set_len(BEGUN + 8).unwrap();
        let opening = Duration::from_millis(5);
        Lane { in_memory, dir, acked, checked: [0; PARTITIONS as usize], epoch: 0, kills: 0, opening }
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.acked.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// Has a writer run, and kills it so long after it started, or after it began to open the log; whether it was open.
    fn kill(&mut self, after: Duration, from_open: bool) -> bool {
        self.acked.write_all_at(&[0; 16], OPENED).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture"])
            .env(DIR, self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while from_open && self.word(BEGUN) == 0 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        std::thread::sleep(after);
        let early = child.try_wait().unwrap();
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(early.is_none(), "kill {}: the writer ended by itself: {said}", self.kills);
        self.kills += 1;
        self.word(OPENED) != 0
    }

    /// Opens what was left, and compares it with what was acknowledged; with `all`, from the beginning.
    fn check(&mut self, all: bool, random: &mut Random, tally: &mut Tally) {
        let began = Instant::now();
        let (log, partitions) = open(self.dir.path());
        self.opening = began.elapsed();
        let (kills, report) = (self.kills, log.recovery_report());
        if report.has_losses() || report.leader_epoch < self.epoch {
            tally.wrong(|| format!("kill {kills}: {report:?}"));
        }
        self.epoch = report.leader_epoch;
        for (number, partition) in (0u32..).zip(&partitions) {
            let (acked, stored) = (self.word(u64::from(number) * 8), partition.end_offset());
            tally.lost(acked.saturating_sub(stored), || {
                format!("kill {kills}: {acked} acknowledged, {stored} stored")
            });
            let checked = &mut self.checked[number as usize];
            let end = check(number, partition, if all { 0 } else { *checked });
            tally.acked += end - *checked;
            *checked = end;
        }
        match random.below(3) {
            0 => log.close(Duration::from_secs(20)).unwrap(),
            _ => drop(log),
        }
        if all || self.checked.iter().sum::<u64>() > MOST_RECORDS {
            *self = Lane { kills, ..Lane::new(self.in_memory) };
        }
    }
}

/// Does `cycle` until it has happened `kills` times over both lanes; it says how often it has.
fn in_lanes(run: &mut Run, kills: u64, cycle: impl Fn(&mut Lane, &mut Random) -> u64 + Sync) {
    let (seed, done) = (run.seed, AtomicU64::new(0));
    let (count, cycle) = (&done, &cycle);
    let lane = move |in_memory: bool| {
        let (mut random, mut tally) = (Random::new(seed ^ u64::from(in_memory)), Tally::default());
        let mut lane = Lane::new(in_memory);
        while count.load(Ordering::Relaxed) < kills {
            count.fetch_add(cycle(&mut lane, &mut random), Ordering::Relaxed);
            lane.check(false, &mut random, &mut tally);
        }
        // Everything once more.
        lane.check(true, &mut random, &mut tally);
        tally
    };
    let tallies = std::thread::scope(|scope| {
        let lanes = [true, false].map(|in_memory| scope.spawn(move || lane(in_memory)));
        lanes.map(|lane| lane.join().unwrap())
    });
    tallies.into_iter().for_each(|tally| run.tally.add(tally));
    run.tally.cycles = done.into_inner();
}

fn given(kills: u64) -> u64 {
    std::env::var("TAPELOG_KILLS").ok().and_then(|s| s.parse().ok()).unwrap_or(kills)
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    let kills = given(effort(if cfg!(debug_assertions) { 300 } else { 1_000 }, 10_000));
    run("1 kill -9 at a random moment", |run| {
        in_lanes(run, kills, |lane, random| {
            let most = if random.one_in(4) { 6_000 } else { 25_000 };
            lane.kill(Duration::from_micros(1_000 + random.below(most)), false);
            1
        });
    });
}

#[test]
fn what_was_acknowledged_survives_kills_of_those_who_recover() {
    let kills = given(effort(100, 1_000));
    run("1 kill -9 during recovery", |run| {
        in_lanes(run, kills, |lane, random| {
            lane.kill(Duration::from_micros(1_000 + random.below(15_000)), true);
            // Up to three in a row, at most so late as an open takes.
            let openers = 1 + random.below(3);
            let most = lane.opening.as_micros() as u64 + 1;
            let opened = |_| u64::from(!lane.kill(Duration::from_micros(random.below(most)), true));
            (0..openers).map(opened).sum()
        });
    });
}
