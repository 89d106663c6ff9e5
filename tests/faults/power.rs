//! The power of a real file system goes while a process writes to it: what was acknowledged as durable is there.
//!
//! The test executes itself as a writer on an image (`image.rs`), cuts the file system off under it, kills it, mounts what the
//! disk holds and compares that with what the writer was told, which it wrote down on another file system. Every
//! cycle goes on where the last one was cut; one in four is cut as early as it may still be recovering from the one
//! before. `TAPELOG_CUTS=n` makes n cycles of each test.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use tapelog::topic::SyncPolicy;
use tapelog::{Log, Partition, Record, Result, TopicConfig};

use crate::image::{Image, Kind};
use crate::report::{Random, Run, Tally, effort, run};

const FOLDER: &str = "TAPELOG_POWER_FOLDER";
const SAID: &str = "TAPELOG_POWER_SAID";
const WAITS: u32 = 3;
/// The last partition is of a topic that flushes by itself, so long after an append.
const FLUSHES: u32 = WAITS;
const PARTITIONS: u64 = WAITS as u64 + 1;
const WINDOW: Duration = Duration::from_millis(5);
/// What a busy machine may take to give a thread its turn, beside what a flush takes.
const TURN: Duration = Duration::from_millis(250);

/// What a writer says to the test, on a file system that is not cut: words, by their place.
pub(crate) struct Said(File);

/// Per partition, how far it was flushed.
const DURABLE: u64 = 0;
/// Since when the writer waits for a flush, 0 where it does not, and how long it waited at most.
const SINCE: u64 = PARTITIONS;
const LONGEST: u64 = PARTITIONS + 1;
/// That it has opened its log.
pub(crate) const OPENED: u64 = PARTITIONS + 2;
/// How many entries follow of the partition that flushes by itself: a time, and how far its appends went then.
const ENTRIES: u64 = PARTITIONS + 3;
const FIRST_ENTRY: u64 = PARTITIONS + 4;

impl Said {
    pub(crate) fn open(path: &Path) -> Said {
        Said(File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap())
    }

    pub(crate) fn get(&self, word: u64) -> u64 {
        let mut bytes = [0; 8];
        let got = self.0.read_at(&mut bytes, word * 8).unwrap();
        if got == 8 { u64::from_le_bytes(bytes) } else { 0 }
    }

    pub(crate) fn set(&self, word: u64, value: u64) {
        self.0.write_all_at(&value.to_le_bytes(), word * 8).unwrap();
    }

    fn raise(&self, word: u64, value: u64) {
        self.set(word, self.get(word).max(value));
    }
}

/// The time by the clock that who cuts goes by.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Which of the partitions it is; no two have the same values.
fn number(partition: &Partition) -> u32 {
    let tp = partition.topic_partition();
    if tp.topic() == "flushes" { FLUSHES } else { tp.partition() }
}

/// How many records the append has that begins with offset `from`: what is left must end with one.
fn append_len(number: u32, from: u64) -> u64 {
    let mut random = Random::new(!(from << 8 | u64::from(number)));
    if random.one_in(4) { 1 + random.below(30) } else { 1 }
}

fn value(number: u32, offset: u64) -> Vec<u8> {
    let mut random = Random::new(offset << 8 | u64::from(number));
    let len = match random.below(200) {
        0 => 40_000 + random.below(40_000), // larger than a block
        1..20 => random.below(6_000),
        _ => random.below(200),
    };
    let noise = random.next().to_le_bytes();
    format!("{number}/{offset} ").bytes().chain(noise).cycle().take(len as usize).collect()
}

/// Appends once, and says where that ends.
fn append(partition: &Partition) -> Result<u64> {
    let (number, from) = (number(partition), partition.end_offset());
    let end = from + append_len(number, from);
    let values: Vec<Vec<u8>> = (from..end).map(|offset| value(number, offset)).collect();
    let records: Vec<Record<'_>> = values.iter().map(Record::new).collect();
    assert_eq!(partition.append_batch(&records)?.offset(), from);
    Ok(end)
}

fn open(folder: &Path) -> Result<(Log, Vec<Partition>)> {
    let log = Log::builder().memory_budget(1 << 20).open(folder)?;
    let config = TopicConfig::new().segment_bytes(300_000);
    let waits = log.ensure_topic("waits", config.clone().partitions(WAITS))?;
    let flushes = log.ensure_topic("flushes", config.sync_policy(SyncPolicy::Every(WINDOW)))?;
    let mut partitions = (0..WAITS).map(|n| waits.partition(n)).collect::<Result<Vec<_>>>()?;
    partitions.push(flushes.partition(0)?);
    Ok((log, partitions))
}

/// Appends until that fails or it is killed: one thread waits for each flush, one for few, and one for none.
fn write(folder: &Path, said: &Said) -> Result<()> {
    let (_log, partitions) = open(folder)?;
    said.set(OPENED, 1);
    let wait = |partition: &Partition, end: u64| -> Result<()> {
        partition.wait_durable(end, Duration::MAX)?;
        said.raise(DURABLE + u64::from(number(partition)), end);
        Ok(())
    };
    let often = || -> Result<()> {
        loop {
            let end = append(&partitions[0])?;
            let since = now();
            said.set(SINCE, since);
            wait(&partitions[0], end)?;
            said.set(SINCE, 0);
            said.raise(LONGEST, now() - since);
        }
    };
    let seldom = || -> Result<()> {
        let mut random = Random::new(now());
        loop {
            let partition = &partitions[1 + random.below(2) as usize];
            let end = append(partition)?;
            if random.one_in(16) {
                wait(partition, end)?;
            }
        }
    };
    let never = || -> Result<()> {
        for entry in 0.. {
            let end = append(&partitions[FLUSHES as usize])?;
            said.set(FIRST_ENTRY + 2 * entry, now());
            said.set(FIRST_ENTRY + 2 * entry + 1, end);
            said.set(ENTRIES, entry + 1);
            std::thread::sleep(Duration::from_micros(100)); // or the image is full soon
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let (often, seldom) = (scope.spawn(often), scope.spawn(seldom));
        never().and(often.join().unwrap()).and(seldom.join().unwrap())
    })
}

/// Not a test but what the tests run as another process.
#[test]
fn a_writer_whose_power_goes() {
    let Some((folder, said)) = their_places() else { return };
    // That it fails when the power has gone is as it should be.
    let _ = write(&folder, &Said::open(&said));
}

/// Where a process that a [`Writer`] started has its log, and where it is to speak; `None` in the test itself.
pub(crate) fn their_places() -> Option<(PathBuf, PathBuf)> {
    Some((std::env::var_os(FOLDER)?.into(), std::env::var_os(SAID)?.into()))
}

/// A process that is killed when it is no longer wanted.
pub(crate) struct Writer(Child);

impl Writer {
    /// Runs the test of this name as a process of its own, which finds `folder` and where to speak in its environment.
    pub(crate) fn start(test: &str, folder: &Path, said: &Path) -> Writer {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(FOLDER, folder)
            .env(SAID, said)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Writer(child.unwrap())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits until it has ended by itself, and says how; `None` where it does not.
    fn end(&mut self) -> Option<ExitStatus> {
        let patience = now();
        loop {
            let status = self.0.try_wait().unwrap();
            if status.is_some() || now() - patience > 20_000_000_000 {
                return status;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it; what it said where it did not end by that, nor by the signal of a store to a disk that is gone, nor quietly.
    pub(crate) fn kill(mut self) -> Option<String> {
        self.0.kill().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut said).unwrap();
        let status = self.0.wait().unwrap();
        let (kill, bus) = (Signal::KILL.as_raw(), Signal::BUS.as_raw());
        let fits = status.success() || status.signal().is_some_and(|signal| signal == kill || signal == bus);
        (!fits).then(|| format!("{status}: {said}"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file system, the log on it, and what it must hold.
struct World {
    image: Image,
    folder: PathBuf,
    said_in: PathBuf,
    said: Said,
    /// How far each partition was checked.
    checked: [u64; PARTITIONS as usize],
    epoch: u32,
    /// The oldest record that a cut took from the topic that flushes by itself, and how many it took.
    oldest: Duration,
    taken: u64,
}

impl World {
    fn new(image: Image) -> World {
        let (folder, said_in) = (image.path().join("log"), image.beside.join("said"));
        let said = Said::open(&said_in);
        let checked = [0; PARTITIONS as usize];
        World { image, folder, said_in, said, checked, epoch: 0, oldest: Duration::ZERO, taken: 0 }
    }

    /// Has a writer run, and the power go.
    fn cut(&mut self, chosen_pages: bool, random: &mut Random, tally: &mut Tally, words: &str) {
        let mut writer = self.start();
        if random.one_in(4) {
            std::thread::sleep(Duration::from_micros(1_000 + random.below(6_000)));
        } else {
            self.wait_opened(&mut writer);
            // Now and then so long that a policy which does not flush is found out.
            let micros = if random.one_in(20) { 300_000 } else { random.below(25_000) };
            std::thread::sleep(Duration::from_micros(micros));
        }
        if writer.has_ended() {
            tally.wrong(|| format!("{words}: the writer ended by itself: {:?}", writer.kill()));
            return self.image.remount(0);
        }
        if chosen_pages {
            if random.one_in(2) {
                writer.signal(Signal::STOP);
            }
            self.sync_some_pages(random);
        }
        // What is acknowledged while the plug is pulled does not count: there, ext4 answers a flush that is under way with
        // success, though not all of it reaches the disk; with the machine gone nobody would hear of it.
        let durable = self.durable();
        let at = self.image.cut(random.one_in(3));
        writer.signal(Signal::CONT);
        if random.one_in(3) {
            std::thread::sleep(Duration::from_micros(random.below(3_000)));
        }
        if let Some(said) = writer.kill() {
            tally.wrong(|| format!("{words}: {said}"));
        }
        self.set_durable(durable);
        self.image.remount(random.next());
        tally.cycles += 1;
        // What is cut before it has recovered from the cut before it is looked at together with that.
        if random.one_in(4) {
            return;
        }
        let opened = tally.guard(|| format!("{words}: panicked"), || open(&self.folder));
        match opened {
            None => {}
            Some(Err(e)) => tally.lost(1, || format!("{words}: does not open: {e:?}")),
            Some(Ok((log, partitions))) => {
                self.check(&log, &partitions, random.one_in(8), tally, words);
                // A writer that was stopped, or kept by the pages, flushes late.
                if !chosen_pages {
                    self.check_window(partitions[FLUSHES as usize].end_offset(), at, tally, words);
                }
                drop(partitions);
                if random.one_in(3) {
                    log.close(Duration::from_secs(20)).unwrap();
                }
            }
        }
        let room = rustix::fs::statvfs(self.image.path()).unwrap();
        if room.f_bfree < room.f_blocks / 2 {
            self.begin_again();
        }
    }

    fn start(&self) -> Writer {
        [SINCE, LONGEST, OPENED, ENTRIES].iter().for_each(|word| self.said.set(*word, 0));
        Writer::start("power::a_writer_whose_power_goes", &self.folder, &self.said_in)
    }

    fn wait_opened(&self, writer: &mut Writer) {
        while self.said.get(OPENED) == 0 && !writer.has_ended() {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Has the disk go away for good under a writer that nobody kills, and says how that ended.
    fn outlive(&mut self, random: &mut Random, tally: &mut Tally, words: &str) -> Option<ExitStatus> {
        let mut writer = self.start();
        self.wait_opened(&mut writer);
        std::thread::sleep(Duration::from_micros(random.below(10_000)));
        if random.one_in(2) {
            // As the kernel does by itself after a while. The next store to each page asks the file system.
            let mut files = Vec::new();
            files_in(&self.folder, &mut files);
            files.retain(|path| path.to_string_lossy().contains("staging-"));
            files.iter().for_each(|file| drop(self.image.sync_pages(file, &(0..256).collect::<Vec<u64>>())));
        }
        let durable = self.durable();
        self.image.cut(random.one_in(2));
        let ended = writer.end();
        drop(writer);
        self.set_durable(durable);
        self.image.remount(0);
        tally.cycles += 1;
        match tally.guard(|| format!("{words}: panicked"), || open(&self.folder)) {
            None => {}
            Some(Err(e)) => tally.lost(1, || format!("{words}: does not open: {e:?}")),
            Some(Ok((log, partitions))) => self.check(&log, &partitions, true, tally, words),
        }
        self.begin_again();
        ended
    }

    fn durable(&self) -> Vec<u64> {
        (0..PARTITIONS).map(|n| self.said.get(DURABLE + n)).collect()
    }

    fn set_durable(&self, durable: Vec<u64>) {
        (0..).zip(durable).for_each(|(n, durable)| self.said.set(DURABLE + n, durable));
    }

    /// Writes pages that hold something to the disk, chosen at random, in an order of their own.
    fn sync_some_pages(&mut self, random: &mut Random) {
        let mut files = Vec::new();
        files_in(&self.folder, &mut files);
        for file in files {
            // A file may have gone since, or be cut short.
            let Ok(bytes) = std::fs::read(&file) else { continue };
            let mut pages: Vec<u64> = (0u64..)
                .zip(bytes.chunks(4096))
                .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
                .map(|(number, _)| number)
                .collect();
            let few = 1 + random.below(6) as usize;
            while pages.len() > few {
                pages.swap_remove(random.below(pages.len() as u64) as usize);
            }
            if !pages.is_empty() {
                let _ = self.image.sync_pages(&file, &pages);
            }
        }
    }

    /// Compares what is there with what was acknowledged when the power went.
    fn check(&mut self, log: &Log, partitions: &[Partition], all: bool, tally: &mut Tally, words: &str) {
        let report = log.recovery_report();
        if report.leader_epoch < self.epoch || report.page_cache_survived {
            tally.wrong(|| format!("{words}: epoch {} before, {report:?}", self.epoch));
        }
        self.epoch = report.leader_epoch;
        for item in &report.items {
            let partition = partitions.iter().find(|p| Some(p.topic_partition()) == item.partition.as_ref());
            let durable = partition.map_or(0, |p| self.said.get(DURABLE + u64::from(number(p))));
            if item.offsets.as_ref().is_some_and(|offsets| offsets.start < durable) && is_a_loss(item) {
                tally.wrong(|| format!("{words}: {item:?} of what was flushed, {durable}"));
            }
        }
        for partition in partitions {
            let number = number(partition);
            let (word, end) = (DURABLE + u64::from(number), partition.end_offset());
            let durable = self.said.get(word);
            let words = format!("{words}, partition {number}");
            tally.lost(durable.saturating_sub(end), || format!("{words}: {durable} flushed, {end} there"));
            let from = if all { 0 } else { self.checked[number as usize].min(durable).min(end) };
            match read(partition, from) {
                Ok(read) => self.checked[number as usize] = read,
                Err(why) => tally.wrong(|| format!("{words}: {why}")),
            }
            tally.acked += durable.saturating_sub(from);
            // The open has flushed what it found.
            self.said.raise(word, partition.durable_offset());
        }
    }

    /// What a topic lost that flushes by itself was appended shortly before the power went, `at`.
    fn check_window(&mut self, end: u64, at: u64, tally: &mut Tally, words: &str) {
        let entry = |n: u64| (self.said.get(FIRST_ENTRY + 2 * n), self.said.get(FIRST_ENTRY + 2 * n + 1));
        let mut entries = (0..self.said.get(ENTRIES)).map(entry);
        let Some((time, last)) = entries.clone().find(|(_, to)| *to > end).zip(entries.next_back()) else {
            return;
        };
        self.taken += last.1 - end;
        let age = Duration::from_nanos(at.saturating_sub(time.0));
        self.oldest = self.oldest.max(age);
        // One flush may have been running when it was appended, and the one for it when the power went.
        let since = self.said.get(SINCE);
        let waiting = if since == 0 { 0 } else { at.saturating_sub(since) };
        let flush = Duration::from_nanos(self.said.get(LONGEST).max(waiting));
        if age > WINDOW + 2 * flush + TURN {
            tally.wrong(|| format!("{words}: a record was lost {age:?} old, where a flush took {flush:?}"));
        }
    }

    fn begin_again(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
        std::fs::remove_file(&self.said_in).unwrap();
        self.said = Said::open(&self.said_in);
        self.checked = [0; PARTITIONS as usize];
        self.epoch = 0;
    }
}

fn is_a_loss(item: &tapelog::admin::RecoveryItem) -> bool {
    item.action != tapelog::admin::RecoveryAction::Replayed
}

/// Every file in a folder and below.
pub(crate) fn files_in(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { files_in(&entry.path(), files) } else { files.push(entry.path()) }
    }
}

/// Reads from `from` to the end, which must be the end of an append, and says where that is.
fn read(partition: &Partition, from: u64) -> std::result::Result<u64, String> {
    let (number, end) = (number(partition), partition.end_offset());
    let mut reader = partition.reader(from).map_err(|e| e.to_string())?;
    for offset in from..end {
        match reader.try_next() {
            Ok(Some(record)) if record.offset() == offset => {
                if record.value() != Some(&value(number, offset)[..]) {
                    return Err(format!("offset {offset} has other bytes"));
                }
            }
            other => {
                return Err(format!("at {offset}: {:?}", other.map(|record| record.map(|r| r.offset()))));
            }
        }
    }
    let mut boundary = 0;
    while boundary < end {
        boundary += append_len(number, boundary);
    }
    if boundary == end { Ok(end) } else { Err(format!("ends with {end}, inside an append")) }
}

fn cuts(run: &mut Run, image: Image, chosen_pages: bool, cycles: u64) {
    let given = std::env::var("TAPELOG_CUTS").ok().and_then(|s| s.parse::<u64>().ok());
    let cycles = given.unwrap_or(cycles);
    let mut random = run.random();
    let mut world = World::new(image);
    for cycle in 0..cycles {
        world.cut(chosen_pages, &mut random, &mut run.tally, &format!("cycle {cycle}"));
    }
    if !chosen_pages {
        let (taken, oldest) = (world.taken, world.oldest);
        println!(
            "flushed every {WINDOW:?}, {taken} records were lost, the oldest appended {oldest:?} before"
        );
    }
}

#[test]
fn the_power_goes_on_ext4() {
    let test = "3 power cuts on ext4";
    let Some(image) = Image::or_skip(test, Kind::Ext4) else { return };
    run(test, |run| cuts(run, image, false, effort(200, 2_000)));
}

#[test]
fn the_power_goes_on_xfs() {
    let test = "3 power cuts on xfs";
    let Some(image) = Image::or_skip(test, Kind::Xfs) else { return };
    run(test, |run| cuts(run, image, false, effort(100, 1_000)));
}

#[test]
fn chosen_pages_are_all_that_reaches_ext4() {
    let test = "5 power cuts after chosen pages on ext4";
    let Some(image) = Image::or_skip(test, Kind::Ext4) else { return };
    run(test, |run| cuts(run, image, true, effort(25, 500)));
}

#[test]
fn chosen_pages_are_all_that_reaches_xfs() {
    let test = "5 power cuts after chosen pages on xfs";
    let Some(image) = Image::or_skip(test, Kind::Xfs) else { return };
    run(test, |run| cuts(run, image, true, effort(25, 500)));
}

/// Where the staging file lies on the disk that dies: ext4 takes the stores, and the next flush fails; XFS ends the process
/// at a store to a page of it, as it would at any mapped file.
fn outlived(test: &str, kind: Kind) {
    let Some(image) = Image::or_skip(test, kind) else { return };
    run(test, |run| {
        let (mut random, mut world, mut signals) = (run.random(), World::new(image), 0);
        for cycle in 0..effort(6, 200) {
            let words = format!("cycle {cycle}");
            let ended = world.outlive(&mut random, &mut run.tally, &words);
            let by_signal = ended.and_then(|status| status.signal()) == Some(Signal::BUS.as_raw());
            signals += u64::from(by_signal);
            let fits = ended.is_some_and(|status| status.success()) || by_signal && kind == Kind::Xfs;
            if !fits {
                run.tally.wrong(|| format!("{words}: the writer: {ended:?}"));
            }
        }
        println!("{signals} of {} ended by the signal of a store that has no place", run.tally.cycles);
    });
}

#[test]
fn a_disk_dies_with_its_staging_on_ext4() {
    outlived("13 the disk dies with its staging, ext4", Kind::Ext4);
}

#[test]
fn a_disk_dies_with_its_staging_on_xfs() {
    outlived("13 the disk dies with its staging, xfs", Kind::Xfs);
}
