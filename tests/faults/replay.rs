//! Everything that a file system sends to its disk is written down, and then put on a fresh disk up to each flush, and with
//! any of what followed it: what was acknowledged by then is there.
//!
//! What `qemu-storage-daemon` writes down (see `daemon`) is the format of the kernel's `dm-log-writes`: a sector that describes
//! each write, flush or discard, and behind it the bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::daemon::{self, Daemon, node};
use crate::image::Folder;
use crate::model::{FOR_EVER, Model, SOON, TOPIC, builder, config};
use crate::report::{Random, Run, Tally, effort, run_since, skip};

const PARTITIONS: u32 = 2;
const BYTES: u64 = 48 << 20;
const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// Of an entry: what it is.
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// A disk that has all that is done to it written down.
struct Recorded {
    daemon: Daemon,
    folder: Folder,
    /// What was on it before.
    base: Vec<u8>,
}

impl Recorded {
    fn or_skip(test: &str) -> Option<Recorded> {
        Recorded::new().map_err(|why| skip(test, &why)).ok()
    }

    fn new() -> Result<Recorded, String> {
        daemon::missing()?;
        let folder = Folder::new();
        let (disk, written) = (folder.path().join("disk"), folder.path().join("written"));
        daemon::make_disk(&disk, BYTES);
        drop(File::create(&written).unwrap());
        let base = std::fs::read(&disk).unwrap();
        let all = "driver=blklogwrites,file=disk,log=written,log-sector-size=512,node-name=all".to_owned();
        let nodes = [node("disk", &disk), node("written", &written), all];
        let daemon = Daemon::start(&folder, &nodes, BYTES)?;
        Ok(Recorded { daemon, folder, base })
    }

    /// How much was written down.
    fn len(&self) -> u64 {
        std::fs::metadata(self.folder.path().join("written")).unwrap().len()
    }

    /// Ends, and gives what was on the disk before and what was done to it.
    fn end(self) -> (Folder, Vec<u8>, Vec<Entry>) {
        self.daemon.end(&self.folder);
        let entries = entries(&std::fs::read(self.folder.path().join("written")).unwrap());
        (self.folder, self.base, entries)
    }
}

/// Something that was done to the disk.
struct Entry {
    at: usize,
    bytes: Vec<u8>,
    flush: bool,
    /// Where what was written down of it ends.
    end: u64,
}

fn entries(written: &[u8]) -> Vec<Entry> {
    let word = |at: usize| u64::from_le_bytes(written[at..at + 8].try_into().unwrap());
    assert_eq!((word(0), word(8)), (0x006a_7366_7773_6872, 1), "not what was expected to be written down");
    let (count, mut at, mut entries) = (word(16), SECTOR, Vec::new());
    for _ in 0..count {
        let (sector, sectors, flags) = (word(at) as usize, word(at + 8) as usize, word(at + 16));
        at += SECTOR;
        let len = if flags & DISCARD == 0 { sectors * SECTOR } else { 0 };
        let bytes = written[at..at + len].to_vec();
        at += len;
        entries.push(Entry { at: sector * SECTOR, bytes, flush: flags & FLUSH != 0, end: at as u64 });
    }
    entries
}

/// What was acknowledged of each partition once so much was written down.
type Said = (u64, Vec<u64>);

/// Works on a log there, and says what was acknowledged when.
fn work(recorded: &Recorded, flushes: u64, random: &mut Random) -> (Model, Vec<Said>) {
    let (mut model, mut said) = (Model::new(PARTITIONS), Vec::new());
    let folder = recorded.folder.mounted().join("log");
    let mut flushed = 0;
    while flushed < flushes {
        // Many times over, since an open flushes what nothing else does.
        let log = builder().open(&folder).unwrap();
        let topic = log.ensure_topic(TOPIC, config(PARTITIONS)).unwrap();
        let until = flushed + 4 + random.below(8);
        while flushed < until {
            let number = random.below(u64::from(PARTITIONS)) as u32;
            let partition = topic.partition(number).unwrap();
            let expected = &mut model.0[number as usize];
            match random.below(8) {
                0 => {
                    expected.flush(&partition).unwrap();
                    flushed += 1;
                    said.push((recorded.len(), model.0.iter().map(|expected| expected.durable).collect()));
                }
                1 => partition.wait_written(expected.appended(), FOR_EVER).unwrap(),
                _ => expected.append(&partition, 1 + random.below(4)).unwrap(),
            }
        }
        if random.one_in(2) {
            drop(topic);
            log.close(SOON).unwrap();
        }
    }
    (model, said)
}

/// Puts a disk together and looks at the log on it, which must hold what was said when `written` bytes were written down.
fn look(
    folder: &Folder,
    disk: &[u8],
    model: &Model,
    said: &[Said],
    written: u64,
    tally: &mut Tally,
    words: &str,
) {
    tally.cycles += 1;
    let file = folder.path().join("replayed");
    {
        let file = File::create(&file).unwrap();
        file.set_len(BYTES).unwrap();
        for (number, page) in disk.chunks(PAGE).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, (number * PAGE) as u64).unwrap();
            }
        }
    }
    folder.mount(&file);
    let durable = said.iter().rev().find(|(at, _)| *at <= written).map(|(_, durable)| durable.clone());
    let durable = durable.unwrap_or_else(|| vec![0; PARTITIONS as usize]);
    let opened =
        tally.guard(|| format!("{words}: panicked"), || builder().open(folder.mounted().join("log")));
    match opened {
        None => {}
        Some(Err(e)) => tally.lost(1, || format!("{words}: does not open: {e:?}")),
        Some(Ok(log)) => {
            let mut then = Model(model.0.clone());
            then.0.iter_mut().zip(durable).for_each(|(expected, durable)| expected.durable = durable);
            then.check(&log, |expected| expected.durable, tally, words);
        }
    }
    folder.unmount();
    std::fs::remove_file(&file).unwrap();
}

fn apply(disk: &mut [u8], entry: &Entry) {
    disk[entry.at..entry.at + entry.bytes.len()].copy_from_slice(&entry.bytes);
}

fn replay(run: &mut Run, recorded: Recorded) {
    let mut random = run.random();
    recorded.folder.mount(&recorded.folder.shown());
    let (model, said) = work(&recorded, effort(4, 150), &mut random);
    recorded.folder.unmount();
    let (folder, base, entries) = recorded.end();
    let subsets = effort(1, 5);
    let (mut disk, mut from) = (base.clone(), 0);
    let flushes: Vec<usize> = (0..entries.len()).filter(|n| entries[*n].flush).collect();
    println!(
        "{} writes and {} flushes, {} acknowledged",
        entries.len() - flushes.len(),
        flushes.len(),
        said.len()
    );
    let every = effort(3, 1) as usize;
    for (nth, flush) in flushes.into_iter().enumerate() {
        let looked_at = nth.is_multiple_of(every);
        for subset in 0..if looked_at { subsets } else { 0 } {
            // Some of what came before this flush and behind the one before: no order holds there.
            let (mut torn, share) = (disk.clone(), 1 + random.below(15));
            let kept = entries[from..flush].iter().filter(|_| random.below(16) < share);
            kept.for_each(|entry| apply(&mut torn, entry));
            let written = from.checked_sub(1).map_or(0, |before| entries[before].end);
            let words = format!("before flush {flush}, subset {subset}");
            look(&folder, &torn, &model, &said, written, &mut run.tally, &words);
        }
        entries[from..flush].iter().for_each(|entry| apply(&mut disk, entry));
        from = flush + 1;
        if looked_at {
            let words = format!("after flush {flush}");
            look(&folder, &disk, &model, &said, entries[flush].end, &mut run.tally, &words);
        }
    }
    // A test that finds everything wherever it looks is worth nothing.
    let mut tally = Tally::default();
    look(&folder, &base, &model, &said, u64::MAX, &mut tally, "nothing that was written");
    assert!(tally.lost > 0, "a disk that lost everything was taken for sound");
}

#[test]
fn every_flush_and_some_of_what_follows_it_on_ext4() {
    let test = "6 replay of all that reached the disk, ext4";
    let began = Instant::now();
    let Some(recorded) = Recorded::or_skip(test) else { return };
    run_since(began, test, |run| replay(run, recorded));
}
