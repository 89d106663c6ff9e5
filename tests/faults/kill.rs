//! Kill -9 at any moment: what was acknowledged is there, exactly, in order, without holes.
//!
//! The test executes itself as a writer and kills that child at a random moment, again and again on one
//! directory: every cycle goes on where the last one was killed. One in four is killed as early as it may still be
//! recovering from the one before. `TAPELOG_KILLS=n` makes n cycles.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tapelog::{Compression, Log, Partition, Record, TopicConfig};

use crate::report::{Random, effort, run};

const DIR: &str = "TAPELOG_KILL_DIR";
const PARTITIONS: u32 = 4;
/// Where the writer says that it is open, behind how far each partition has come.
const OPENED: u64 = PARTITIONS as u64 * 8;

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
    let (_log, partitions) = open(dir);
    let acked = File::options().write(true).open(dir.join("acked")).unwrap();
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

#[test]
fn what_was_acknowledged_survives_every_kill() {
    if let Some(dir) = std::env::var_os(DIR) {
        return child(Path::new(&dir));
    }
    let given = std::env::var("TAPELOG_KILLS").ok().and_then(|s| s.parse::<u64>().ok());
    let kills = given.unwrap_or(effort(if cfg!(debug_assertions) { 30 } else { 300 }, 10_000));
    run("1 kill -9 at a random moment", |run| {
        let mut random = run.random();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acked");
        let acked = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        acked.set_len(OPENED + 8).unwrap();
        let word = |at: u64| {
            let mut bytes = [0; 8];
            acked.read_exact_at(&mut bytes, at).unwrap();
            u64::from_le_bytes(bytes)
        };
        let mut checked = vec![0; PARTITIONS as usize];
        let (mut epoch, mut while_opening) = (0, 0);
        for cycle in 0..kills {
            acked.write_all_at(&[0; 8], OPENED).unwrap();
            let most = if random.one_in(4) { 6_000 } else { 59_000 };
            kill_a_writer(dir.path(), Duration::from_micros(1_000 + random.below(most)), cycle);
            while_opening += u64::from(word(OPENED) == 0);
            run.tally.cycles += 1;

            let (log, partitions) = open(dir.path());
            let report = log.recovery_report();
            if report.has_losses() || report.leader_epoch < epoch {
                run.tally.wrong(|| format!("cycle {cycle}: {report:?}"));
            }
            epoch = report.leader_epoch;
            for (number, partition) in (0u32..).zip(&partitions) {
                let (acked, stored) = (word(u64::from(number) * 8), partition.end_offset());
                run.tally.lost(acked.saturating_sub(stored), || {
                    format!("cycle {cycle}: {acked} acknowledged, {stored} stored")
                });
                // The last cycle looks at everything again.
                let from = if cycle + 1 == kills { 0 } else { checked[number as usize] };
                checked[number as usize] = check(number, partition, from);
            }
            match random.below(3) {
                0 => log.close(Duration::from_secs(20)).unwrap(),
                _ => drop(log),
            }
        }
        run.tally.acked = checked.iter().sum();
        println!("{while_opening} of {kills} were killed before they had recovered");
    });
}

/// Has a writer run for a while, and kills it.
fn kill_a_writer(dir: &Path, after: Duration, cycle: u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::what_was_acknowledged_survives_every_kill", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    let early = child.try_wait().unwrap();
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(early.is_none(), "cycle {cycle}: the writer ended by itself: {said}");
}
