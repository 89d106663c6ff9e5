//! Kill -9 at any moment: what was acknowledged is there, exactly, in order, without holes.
//!
//! The test executes itself as a writer and kills that child at a random moment, again and again on one
//! directory: every cycle goes on where the last one was killed. `TAPELOG_SEED=n` replays the moments as far as a
//! machine can; `TAPELOG_KILLS=n` makes n cycles in place of 30.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for
#![cfg(unix)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tapelog::{Compression, Log, Partition, Record, TopicConfig};

const DIR: &str = "TAPELOG_KILL_DIR";
const PARTITIONS: u32 = 4;

/// A small generator of the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The value of record `offset` of a partition: of a length and with bytes that follow from these two alone.
fn value(partition: u32, offset: u64, out: &mut Vec<u8>) {
    let mut random = Random((offset << 8 | u64::from(partition)) + 1);
    for _ in 0..3 {
        random.next();
    }
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
    let (_log, partitions) = open(dir);
    let acked = File::options().write(true).open(dir.join("acked")).unwrap();
    let mut random = Random(u64::from(std::process::id()) << 20 | 1);
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

#[test]
fn what_was_acknowledged_survives_every_kill() {
    if let Some(dir) = std::env::var_os(DIR) {
        return child(Path::new(&dir));
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("TAPELOG_SEED").unwrap_or(now.as_nanos() as u64 | 1);
    let kills = number("TAPELOG_KILLS").unwrap_or(30);
    println!("TAPELOG_SEED={seed} TAPELOG_KILLS={kills}");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let acked =
        File::options().read(true).write(true).create(true).truncate(true).open(dir.path().join("acked"));
    let acked = acked.unwrap();
    acked.set_len(u64::from(PARTITIONS) * 8).unwrap();
    let program = std::env::current_exe().unwrap();
    let mut checked = vec![0; PARTITIONS as usize];
    let mut epoch = 0;
    for cycle in 0..kills {
        let mut child = Command::new(&program)
            .args(["--exact", "what_was_acknowledged_survives_every_kill", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Some are killed while they recover, most while they append.
        std::thread::sleep(Duration::from_micros(1_000 + random.below(59_000)));
        let early = child.try_wait().unwrap();
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(early.is_none(), "seed {seed}, cycle {cycle}: the writer ended by itself: {said}");

        let (log, partitions) = open(dir.path());
        let report = log.recovery_report();
        assert!(!report.has_losses(), "seed {seed}, cycle {cycle}: {report:?}");
        assert!(report.leader_epoch >= epoch);
        epoch = report.leader_epoch;
        for (number, partition) in (0u32..).zip(&partitions) {
            let mut bytes = [0; 8];
            acked.read_exact_at(&mut bytes, u64::from(number) * 8).unwrap();
            let acked = u64::from_le_bytes(bytes);
            let stored = partition.end_offset();
            assert!(acked <= stored, "seed {seed}, cycle {cycle}: {acked} acknowledged, {stored} stored");
            // The last cycle looks at everything again.
            let from = if cycle + 1 == kills { 0 } else { checked[number as usize] };
            checked[number as usize] = check(number, partition, from);
        }
        match random.below(3) {
            0 => log.close(Duration::from_secs(20)).unwrap(),
            _ => drop(log),
        }
    }
    println!(
        "{{\"test\":\"kill\",\"seed\":{seed},\"cycles\":{kills},\"stored\":{},\"lost\":0}}",
        checked.iter().sum::<u64>()
    );
}
