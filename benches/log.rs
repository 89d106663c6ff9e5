//! What an append and a read cost, beside what the machine itself takes for the same bytes.
//!
//! `cargo bench` runs everything in about a minute; `cargo bench -- burst` one regime. Records have a key of 8 bytes
//! and a value of 100. Everything is measured in turns, so that a noisy neighbour meets all of it, and the
//! median of five turns is reported, with the smallest and the largest; what counts are the ratios.
//!
//! - **burst**: 200,000 records (29 MB) into memory that was used before, within the budget.
//! - **page cache**: 5 million records (0.7 GB): as fast as the write-behind hands them to the kernel.
//! - **sustained** (only with `TAPELOG_BENCH_SUSTAINED=1`): 40 million records (6 GB), more than the kernel
//!   lets lie: as fast as the disk.
//!
//! Logs lie in a temporary directory below `TAPELOG_BENCH_DIR`, or below the system's.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tapelog::clock::{Clock, CoarseClock, SystemClock};
use tapelog::{Compression, Log, Partition, Record, Records, Timestamp, TopicConfig};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a record takes in the log: 32 bytes, key, value, padding.
const FRAME: usize = 144;
const BLOCK: usize = 64 << 10;
const BURST: usize = 200_000;
const PAGE_CACHE: usize = 5_000_000;
const SUSTAINED: usize = 40_000_000;
const TURNS: usize = 5;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Without `--bench` this is `cargo test --all-targets`: only whether it runs.
    let quick = !args.iter().any(|arg| arg == "--bench");
    let only: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |regime: &str| only.is_empty() || only.iter().any(|o| regime.contains(o.as_str()));
    let scale = |records: usize| if quick { records / 1000 } else { records };
    let turns = if quick { 1 } else { TURNS };
    let temp = match std::env::var_os("TAPELOG_BENCH_DIR") {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let bench = Bench { folder: temp.path().to_path_buf() };
    if wanted("burst") {
        let mut table = Table::default();
        bench.burst(&mut table, scale(BURST), turns)?;
        table.print("burst", "copy into warm memory");
    }
    if wanted("threads") {
        let mut table = Table::default();
        bench.threads(&mut table, scale(BURST), turns)?;
        table.print("threads", "append, one thread");
    }
    if wanted("read") {
        let mut table = Table::default();
        bench.reads(&mut table, scale(BURST), turns)?;
        bench.groups(&mut table, scale(BURST), turns)?;
        table.print("read", "bare scan of the frames");
    }
    if wanted("page-cache") {
        let mut table = Table::default();
        bench.through_the_disk(&mut table, scale(PAGE_CACHE), turns)?;
        table.print("page-cache", "64 KiB pwrite");
    }
    if std::env::var_os("TAPELOG_BENCH_SUSTAINED").is_some() {
        let mut table = Table::default();
        bench.through_the_disk(&mut table, scale(SUSTAINED), turns.min(3))?;
        table.print("sustained", "64 KiB pwrite");
    }
    Ok(())
}

/// Nanoseconds per record of each work, turn by turn; elapsed time, and time of all processors.
#[derive(Default)]
struct Table {
    order: Vec<&'static str>,
    turns: BTreeMap<&'static str, Vec<(f64, f64)>>,
}

impl Table {
    /// Runs `work` over `records` records and notes what it took.
    fn time<T>(&mut self, name: &'static str, records: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (start, busy) = (Instant::now(), cpu_time());
        let done = work()?;
        let (elapsed, busy) = (start.elapsed(), cpu_time() - busy);
        let each = |time: Duration| time.as_nanos() as f64 / records as f64;
        self.turns.entry(name).or_default().push((each(elapsed), each(busy)));
        if !self.order.contains(&name) {
            self.order.push(name);
        }
        Ok(done)
    }

    fn median(&self, name: &str, of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64, f64) {
        let mut all: Vec<f64> = self.turns.get(name).into_iter().flatten().map(of).collect();
        all.sort_by(f64::total_cmp);
        match all.as_slice() {
            [] => (f64::NAN, f64::NAN, f64::NAN),
            [first, .., last] => (all[all.len() / 2], *first, *last),
            [one] => (*one, *one, *one),
        }
    }

    fn print(&self, regime: &str, floor: &str) {
        let (floor_ns, ..) = self.median(floor, |t| t.0);
        println!("\n{regime:<44} {:>9} {:>8} {:>8} {:>8}   x {floor}", "ns/record", "min", "max", "cpu");
        for name in &self.order {
            let (median, min, max) = self.median(name, |t| t.0);
            let (busy, ..) = self.median(name, |t| t.1);
            println!(
                "{name:<44} {median:>9.1} {min:>8.1} {max:>8.1} {busy:>8.1}   {:>6.2}",
                median / floor_ns
            );
        }
    }
}

/// Processor time of this process, threads that ended included.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` that lives; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Keys and values that differ from record to record, from a buffer that fits the first-level cache.
struct Feed {
    bytes: Vec<u8>,
}

impl Feed {
    fn new() -> Self {
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        let bytes = (0..4096).map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        });
        Feed { bytes: bytes.collect() }
    }

    #[inline]
    fn record(&self, n: usize) -> Record<'_> {
        let at = n * 8 % 3900;
        Record::new(&self.bytes[at..at + 100])
            .key(&self.bytes[at..at + 8])
            .timestamp(Timestamp::from_nanos(n as i64))
    }

    #[inline]
    fn record_without_time(&self, n: usize) -> Record<'_> {
        let at = n * 8 % 3900;
        Record::new(&self.bytes[at..at + 100]).key(&self.bytes[at..at + 8])
    }

    fn append(&self, partition: &Partition, records: usize) -> Result<()> {
        for n in 0..records {
            black_box(partition.append(self.record(n))?);
        }
        Ok(())
    }

    fn append_from(&self, partitions: &[Partition], threads: usize, records: usize) -> Result<()> {
        let append = |thread: usize| {
            let partition = &partitions[thread % partitions.len()];
            for n in 0..records / threads {
                black_box(partition.append(self.record(n))?);
            }
            Ok::<(), tapelog::Error>(())
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || append(thread))).collect();
            for one in all {
                one.join().map_err(|_| "an appending thread panicked")??;
            }
            Ok(())
        })
    }

    fn append_in_batches(&self, partition: &Partition, records: usize) -> Result<()> {
        let batch: Vec<Record<'_>> = (0..100).map(|n| self.record(n)).collect();
        for _ in 0..records / 100 {
            black_box(partition.append_batch(&batch)?);
        }
        Ok(())
    }
}

struct Bench {
    folder: PathBuf,
}

impl Bench {
    fn log(&self, name: &str) -> Result<Log> {
        Ok(Log::open(self.folder.join(name))?)
    }

    /// Within the budget, into memory that was used before.
    fn burst(&self, table: &mut Table, records: usize, turns: usize) -> Result<()> {
        let feed = Feed::new();
        let mut memory = vec![1u8; records * FRAME];
        let frame = [7u8; FRAME];
        let log = self.log("burst")?;
        let partition = log.create_topic("t", TopicConfig::new())?.partition(0)?;
        let settle = || partition.wait_durable(partition.end_offset(), Duration::MAX);
        // Three times the budget: all of its memory was used.
        for _ in 0..7 {
            feed.append(&partition, records)?;
            settle()?;
        }
        for _ in 0..turns {
            table.time("copy into warm memory", records, || {
                for (n, out) in memory.chunks_exact_mut(FRAME).enumerate() {
                    let record = feed.record(n);
                    out[32..40].copy_from_slice(record.key_bytes().unwrap_or_default());
                    out[40..140].copy_from_slice(record.value_bytes().unwrap_or_default());
                    black_box(&out);
                }
                Ok(())
            })?;
            table.time("CRC-32", records, || {
                for _ in 0..records {
                    black_box(crc32fast::hash(black_box(&frame[8..])));
                }
                Ok(())
            })?;
            table.time("append", records, || feed.append(&partition, records))?;
            settle()?;
            table.time("append, stamped by the log", records, || {
                for n in 0..records {
                    black_box(partition.append(feed.record_without_time(n))?);
                }
                Ok(())
            })?;
            settle()?;
            table.time("append_batch of 100", records, || feed.append_in_batches(&partition, records))?;
            settle()?;
            let mut appender = partition.appender()?;
            table.time("append through the exclusive appender", records, || {
                for n in 0..records {
                    black_box(appender.append(feed.record(n))?);
                }
                Ok(())
            })?;
            settle()?;
            table.time("claimed, filled and committed", records, || {
                for n in 0..records {
                    let mut claim = appender.claim(108)?;
                    let at = n * 8 % 3900;
                    claim.copy_from_slice(&feed.bytes[at..at + 108]);
                    black_box(claim.commit_at(Timestamp::from_nanos(n as i64))?);
                }
                Ok(())
            })?;
            settle()?;
            for (name, clock) in [
                ("reading the system's clock", &SystemClock as &dyn Clock),
                ("reading the coarse clock", &CoarseClock),
            ] {
                table.time(name, records, || {
                    for _ in 0..records {
                        black_box(clock.now());
                    }
                    Ok(())
                })?;
            }
        }
        let memory_log = Log::in_memory()?;
        for _ in 0..turns + 1 {
            let partition = memory_log.create_topic("t", TopicConfig::new())?.partition(0)?;
            // The first turn is for warmth.
            let mut warm = Table::default();
            let table =
                if table.turns.contains_key("append, stamped by the log") { &mut *table } else { &mut warm };
            table.time("append, in memory", records, || feed.append(&partition, records))?;
            memory_log.delete_topic("t")?;
        }
        log.close(Duration::from_secs(60))?;
        Ok(())
    }

    /// A burst shared between threads that append at once, to one partition and to one each.
    fn threads(&self, table: &mut Table, records: usize, turns: usize) -> Result<()> {
        let feed = Feed::new();
        let log = self.log("threads")?;
        let topic = log.create_topic("t", TopicConfig::new().partitions(8))?;
        let mut partitions = Vec::new();
        for partition in 0..8 {
            partitions.push(topic.partition(partition)?);
        }
        let settle = || partitions.iter().try_for_each(|p| p.wait_durable(p.end_offset(), Duration::MAX));
        for _ in 0..4 {
            feed.append_from(&partitions, 8, records)?;
            settle()?;
        }
        for _ in 0..turns {
            for (name, threads, to) in [
                ("append, one thread", 1, 1),
                ("append, 2 threads on one partition", 2, 1),
                ("append, 4 threads on one partition", 4, 1),
                ("append, 8 threads on one partition", 8, 1),
                ("append, 2 threads on 2 partitions", 2, 2),
                ("append, 4 threads on 4 partitions", 4, 4),
                ("append, 8 threads on 8 partitions", 8, 8),
            ] {
                table.time(name, records, || feed.append_from(&partitions[..to], threads, records))?;
                settle()?;
            }
        }
        drop(partitions);
        log.close(Duration::from_secs(60))?;
        Ok(())
    }

    /// What is in the hot tail, and what is on disk (in the page cache).
    fn reads(&self, table: &mut Table, records: usize, turns: usize) -> Result<()> {
        let feed = Feed::new();
        let log = self.log("read")?;
        let partition = log.create_topic("t", TopicConfig::new())?.partition(0)?;
        feed.append(&partition, records)?;
        let mut frames = vec![1u8; records * FRAME];
        for frame in frames.chunks_exact_mut(FRAME) {
            frame[..4].copy_from_slice(&(FRAME as u32).to_le_bytes());
        }
        // The memory of the hot tail is elsewhere by then: these records are read from the segment files.
        let cold = log.create_topic("cold", TopicConfig::new())?.partition(0)?;
        let packed =
            log.create_topic("packed", TopicConfig::new().compression(Compression::Lz4))?.partition(0)?;
        feed.append(&cold, records)?;
        feed.append(&packed, records)?;
        log.close(Duration::from_secs(60))?;
        let log = self.log("read")?;
        let partition = log.create_topic("hot", TopicConfig::new())?.partition(0)?;
        feed.append(&partition, records)?;
        let cold = log.topic("cold")?.partition(0)?;
        let packed = log.topic("packed")?.partition(0)?;
        let bare = self.folder.join("bare");
        write_blocks(&bare, records * FRAME)?;
        for _ in 0..turns {
            table.time("bare scan of the frames", records, || {
                let (mut at, mut sum) = (0, 0u64);
                while at < frames.len() {
                    let frame = &frames[at..];
                    sum = sum.wrapping_add(word(frame, 8)).wrapping_add(word(frame, 40));
                    at += word(frame, 0) as u32 as usize;
                }
                black_box(sum);
                Ok(())
            })?;
            table.time("hot read", records, || read(&partition, records))?;
            table.time("hot read, in polls of 500", records, || read_many(&partition, records))?;
            table.time("cold read", records, || read(&cold, records))?;
            table.time("cold read, LZ4", records, || read(&packed, records))?;
            table.time("64 KiB pread", records, || read_blocks(&bare, |_| 0))?;
            table.time("64 KiB pread and CRC-32", records, || read_blocks(&bare, crc32fast::hash))?;
            table.time("CRC-32", records, || {
                for frame in frames.chunks_exact(FRAME) {
                    black_box(crc32fast::hash(frame));
                }
                Ok(())
            })?;
        }
        drop(partition);
        log.close(Duration::from_secs(60))?;
        Ok(())
    }

    /// Four partitions through a consumer group, and by four bare readers: hot, then cold.
    fn groups(&self, table: &mut Table, records: usize, turns: usize) -> Result<()> {
        let feed = Feed::new();
        let log = self.log("groups")?;
        let topic = log.create_topic("four", TopicConfig::new().partitions(4))?;
        for number in 0..4 {
            let partition = topic.partition(number)?;
            feed.append(&partition, records / 4)?;
            partition.wait_written(partition.end_offset(), Duration::MAX)?;
        }
        let names = ("hot read, four readers", "hot read, group of four partitions");
        read_four(&log, table, records / 4 * 4, turns, names)?;
        drop(topic);
        log.close(Duration::from_secs(60))?;
        let log = self.log("groups")?;
        let names = ("cold read, four readers", "cold read, group of four partitions");
        read_four(&log, table, records / 4 * 4, turns, names)?;
        log.close(Duration::from_secs(60))?;
        Ok(())
    }

    /// More than the budget: everything goes to the disk, or to what the kernel keeps of it in memory.
    fn through_the_disk(&self, table: &mut Table, records: usize, turns: usize) -> Result<()> {
        let feed = Feed::new();
        for turn in 0..turns {
            // What is written first after much was freed gets other pages than what is written last: all take turns.
            for work in 0..3 {
                let path = self.folder.join(format!("disk-{turn}-{work}"));
                match (turn + work) % 3 {
                    0 => {
                        table.time("64 KiB pwrite", records, || write_blocks(&path, records * FRAME))?;
                        std::fs::remove_file(&path)?;
                        continue;
                    }
                    1 => self.fill(table, "append", records, &path, |p| feed.append(p, records))?,
                    _ => {
                        let name = "append_batch of 100";
                        self.fill(table, name, records, &path, |p| feed.append_in_batches(p, records))?;
                    }
                }
                std::fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    /// Times `work` on a log of its own.
    fn fill(
        &self,
        table: &mut Table,
        name: &'static str,
        records: usize,
        path: &Path,
        work: impl FnOnce(&Partition) -> Result<()>,
    ) -> Result<()> {
        let log = Log::open(path)?;
        let partition = log.create_topic("t", TopicConfig::new())?.partition(0)?;
        table.time(name, records, || work(&partition))
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn read(partition: &Partition, records: usize) -> Result<()> {
    let mut reader = partition.reader(partition.end_offset() - records as u64)?;
    let (mut seen, mut sum) = (0, 0u64);
    while let Some(record) = reader.try_next()? {
        sum = sum.wrapping_add(record.offset()).wrapping_add(word(record.value().unwrap_or_default(), 0));
        seen += 1;
    }
    black_box(sum);
    assert_eq!(seen, records);
    Ok(())
}

fn read_many(partition: &Partition, records: usize) -> Result<()> {
    let mut reader = partition.reader(partition.end_offset() - records as u64)?;
    let (mut seen, mut sum) = (0, 0u64);
    while seen < records {
        for record in &reader.read(500)? {
            sum = sum.wrapping_add(record.offset()).wrapping_add(word(record.value().unwrap_or_default(), 0));
            seen += 1;
        }
    }
    black_box(sum);
    Ok(())
}

fn read_four(
    log: &Log,
    table: &mut Table,
    records: usize,
    turns: usize,
    (bare, group): (&'static str, &'static str),
) -> Result<()> {
    let topic = log.topic("four")?;
    let mut consumer = log.consumer_group("group")?.subscribe(["four"])?;
    let mut polled = Records::new();
    // So that it has its partitions.
    consumer.poll_into(&mut polled, Duration::ZERO)?;
    for _ in 0..turns {
        table.time(bare, records, || {
            (0..4).try_for_each(|number| read(&topic.partition(number)?, records / 4))
        })?;
        consumer.seek_to_beginning(&consumer.assignment())?;
        table.time(group, records, || {
            let (mut seen, mut sum) = (0, 0u64);
            while seen < records {
                seen += consumer.poll_into(&mut polled, Duration::ZERO)?;
                for record in &polled {
                    let value = record.value().unwrap_or_default();
                    sum = sum.wrapping_add(record.offset()).wrapping_add(word(value, 0));
                }
            }
            black_box(sum);
            Ok(())
        })?;
    }
    Ok(())
}

/// Reads a file through a buffer of 64 KiB, has `sum` look at each and touches each frame.
fn read_blocks(path: &Path, sum: impl Fn(&[u8]) -> u32) -> Result<()> {
    let file = File::open(path)?;
    let mut block = vec![0u8; BLOCK / FRAME * FRAME];
    let (mut at, mut touched) = (0, 0u64);
    loop {
        let len = file.read_at(&mut block, at)?;
        if len == 0 {
            black_box(touched);
            return Ok(());
        }
        touched = touched.wrapping_add(u64::from(sum(&block[..len])));
        for frame in block[..len].chunks_exact(FRAME) {
            touched = touched.wrapping_add(word(frame, 8)).wrapping_add(word(frame, 40));
        }
        at += len as u64;
    }
}

/// The same bytes, as nothing but blocks.
fn write_blocks(path: &Path, len: usize) -> Result<()> {
    let file = File::create(path)?;
    let block = vec![5u8; BLOCK];
    let mut at = 0;
    while at < len {
        let n = BLOCK.min(len - at);
        file.write_all_at(&block[..n], at as u64)?;
        at += n;
    }
    Ok(())
}
