//! Sectors that cannot be read, or not be written, while all others can: what is on them is reported as unreadable and by its
//! name, what is elsewhere is read, and nothing is taken for the end of the log or set aside. Once they can be read again, all
//! of it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tapelog::admin::{DumpedEntry, dump_segment};
use tapelog::{Error, ErrorKind, Partition, TopicConfig};

use crate::daemon::{self, Daemon, node};
use crate::image::{Folder, missing_tool};
use crate::model::{Expected, SOON, TOPIC, builder, config, value};
use crate::power::files_in;
use crate::report::{Random, Run, Tally, effort, run_since, skip};

const BYTES: u64 = 16 << 20;
const PAGE: u64 = 4096;
/// Sectors of a page.
const SECTORS: u64 = 8;
/// The index of a segment leads to a block at least so often.
const STRETCH: u64 = 4096;

/// A disk that is sound, or not, each time that it is mounted.
struct Disk {
    folder: Folder,
    file: PathBuf,
}

impl Disk {
    fn or_skip(test: &str) -> Option<Disk> {
        let possible = daemon::missing().and_then(|()| missing_tool(&["filefrag"]));
        if let Err(why) = possible {
            skip(test, &why);
            return None;
        }
        let folder = Folder::new();
        let file = folder.path().join("disk");
        let disk = Disk { folder, file };
        // Here it shows whether FUSE may be used.
        disk.begin();
        disk.failing("read", &[], |_| ()).map_err(|why| skip(test, &why)).ok()?;
        Some(disk)
    }

    /// Makes a new one of it.
    fn begin(&self) {
        daemon::make_disk(&self.file, BYTES);
    }

    /// Has it mounted as it is.
    fn sound<T>(&self, what: impl FnOnce(&Path) -> T) -> T {
        self.folder.mount(&self.file);
        let done = what(&self.folder.mounted().join("log"));
        self.folder.unmount();
        done
    }

    /// Has it mounted with sectors for which all calls of a kind, `read` or `write`, fail.
    fn failing<T>(&self, kind: &str, sectors: &[u64], what: impl FnOnce(&Path) -> T) -> Result<T, String> {
        let mut all = "driver=blkdebug,image=disk,node-name=all".to_owned();
        for (n, sector) in sectors.iter().enumerate() {
            let rule = format!("inject-error.{n}");
            all += &format!(",{rule}.event=none,{rule}.iotype={kind},{rule}.errno=5,{rule}.once=off");
            all += &format!(",{rule}.sector={sector}");
        }
        let daemon = Daemon::start(&self.folder, &[node("disk", &self.file), all], BYTES)?;
        self.folder.mount(&self.folder.shown());
        let done = what(&self.folder.mounted().join("log"));
        self.folder.unmount();
        daemon.end(&self.folder);
        Ok(done)
    }
}

/// A page of a file, and where it lies on the disk.
#[derive(Debug, Clone)]
struct Place {
    /// Below the folder of the log.
    file: PathBuf,
    page: u64,
    block: u64,
    /// Whether anything was ever written there.
    written: bool,
}

/// Where the files of a log lie.
fn places(folder: &Path) -> Vec<Place> {
    let (mut files, mut places) = (Vec::new(), Vec::new());
    files_in(folder, &mut files);
    for file in files {
        let found = Command::new("filefrag").arg("-v").arg(&file).output().unwrap();
        assert!(found.status.success(), "filefrag: {}", String::from_utf8_lossy(&found.stderr));
        let rel = file.strip_prefix(folder).unwrap();
        for line in String::from_utf8_lossy(&found.stdout).lines() {
            // "   0:        0..       3:       8705..      8708:      4:             last,eof"
            let fields: Vec<&str> = line.split(':').map(str::trim).collect();
            let [extent, logical, physical, _, flags @ ..] = &fields[..] else { continue };
            let first = |range: &str| range.split("..").next().and_then(|n| n.parse::<u64>().ok());
            let last = logical.split("..").nth(1).and_then(|n| n.trim().parse::<u64>().ok());
            let (Ok(_), Some(from), Some(to), Some(block)) =
                (extent.parse::<u64>(), first(logical), last, first(physical))
            else {
                continue;
            };
            let written = !flags.iter().any(|flag| flag.contains("unwritten"));
            let place = |page| Place { file: rel.to_path_buf(), page, block: block + page - from, written };
            places.extend((from..=to).map(place));
        }
    }
    assert!(!places.is_empty(), "no file has a place on the disk");
    places
}

/// A log, closed, or killed with records that are nowhere but in its staging file.
fn write(folder: &Path, config: &TopicConfig, appends: u64, killed: bool) -> Expected {
    let mut expected = Expected::default();
    let log = builder().open(folder).unwrap();
    let topic = log.ensure_topic(TOPIC, config.clone()).unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..appends {
        expected.append(&partition, 1 + n % 3).unwrap();
        partition.wait_written(expected.appended(), SOON).unwrap();
    }
    log.sync().unwrap();
    if killed {
        topic.alter(config.clone().block_linger(Duration::from_secs(3_600))).unwrap();
        (0..20).for_each(|n| expected.append(&partition, 1 + n % 3).unwrap());
    } else {
        drop((partition, topic));
        log.close(SOON).unwrap();
    }
    expected
}

/// The bytes of a segment file and the offsets that are in them.
type Batch = (PathBuf, Range<u64>, Range<u64>);

fn batches(folder: &Path, places: &[Place]) -> Vec<Batch> {
    let files: BTreeSet<&PathBuf> = places.iter().map(|place| &place.file).collect();
    let segments = files.into_iter().filter(|file| file.to_str().unwrap().contains("topics/t."));
    let mut batches = Vec::new();
    for file in segments {
        for entry in dump_segment(folder.join(file)).unwrap() {
            // Behind the last one there may be room.
            let Ok(DumpedEntry::Batch(batch)) = entry else { continue };
            let bytes = batch.position..batch.position + batch.bytes;
            batches.push((file.clone(), bytes, batch.base_offset..batch.last_offset + 1));
        }
    }
    batches
}

/// Whether an error says what is so: that this file cannot be read.
fn names(e: &Error, file: &Path) -> bool {
    e.kind() == ErrorKind::Storage && e.path() == Some(file)
}

/// Looks at a log of which one page cannot be read.
fn look(folder: &Path, place: &Place, batches: &[Batch], tally: &mut Tally, words: &str) {
    let file = folder.join(&place.file);
    match tally.guard(|| format!("{words}: verify panicked"), || builder().verify(folder)) {
        Some(Err(e)) if !names(&e, &file) => tally.wrong(|| format!("{words}: verify says {e:?}")),
        Some(Ok(report)) if !report.damage().any(|(found, _)| found.path == file) => {
            tally.wrong(|| format!("{words}: verify finds nothing"));
        }
        _ => {}
    }
    match tally.guard(|| format!("{words}: open panicked"), || builder().open_existing(folder)) {
        Some(Err(e)) if !names(&e, &file) => tally.wrong(|| format!("{words}: open says {e:?}")),
        Some(Ok(log)) => {
            if log.recovery_report().has_losses() {
                tally.wrong(|| format!("{words}: reported {:?}", log.recovery_report().items));
            }
            let partition = log.topic(TOPIC).and_then(|topic| topic.partition(0));
            let Ok(partition) = partition else { return tally.wrong(|| format!("{words}: no topic")) };
            let unread = tally.guard(|| format!("{words}: panicked"), || read(&partition, &file));
            match unread {
                Some(Ok(unread)) => check_unread(&unread, place, batches, tally, words),
                Some(Err(why)) => tally.wrong(|| format!("{words}: {why}")),
                None => {}
            }
        }
        _ => {}
    }
}

/// Reads all of a partition, and gives the offsets that could not be read because of `file`.
fn read(partition: &Partition, file: &Path) -> Result<Vec<u64>, String> {
    let (mut at, end, mut unread) = (0, partition.end_offset(), Vec::new());
    let mut reader = partition.reader(0).map_err(|e| e.to_string())?;
    while at < end {
        match reader.try_next() {
            Ok(Some(record)) if record.offset() == at => {
                if record.value() != Some(&value(0, at)[..]) {
                    return Err(format!("offset {at} has other bytes"));
                }
                at += 1;
            }
            Err(e) if names(&e, file) => {
                let told = (e.topic(), e.partition(), e.offset().is_some_and(|o| o <= at), e.position());
                if !matches!(told, (Some(TOPIC), Some(0), true, Some(_))) {
                    return Err(format!("at {at}: the place is not told: {e:?}"));
                }
                unread.push(at);
                at += 1;
                reader.seek(at).map_err(|e| e.to_string())?;
            }
            other => return Err(format!("at {at}: {:?}", other.map(|record| record.map(|r| r.offset())))),
        }
    }
    Ok(unread)
}

/// Unread are the blocks that have bytes in the page and no others but those behind a header in it, up to where the index leads
/// to the next.
fn check_unread(unread: &[u64], place: &Place, batches: &[Batch], tally: &mut Tally, words: &str) {
    let page = place.page * PAGE..(place.page + 1) * PAGE;
    let in_page = |(file, bytes, _): &&Batch| {
        *file == place.file && bytes.start < page.end + STRETCH && bytes.end > page.start
    };
    let may: BTreeSet<u64> =
        batches.iter().filter(in_page).flat_map(|(.., offsets)| offsets.clone()).collect();
    let more: Vec<_> = unread.iter().filter(|offset| !may.contains(offset)).collect();
    if !more.is_empty() {
        tally.wrong(|| format!("{words}: cannot read {more:?} either, of {unread:?}"));
    }
    let of_frames =
        |(file, bytes, _): &&Batch| *file == place.file && bytes.start < page.end && bytes.end > page.start;
    if unread.is_empty() && batches.iter().any(|batch| of_frames(&batch)) {
        tally.wrong(|| format!("{words}: all was read"));
    }
}

/// The disk is sound again: all is there, and nothing was set aside.
fn check(folder: &Path, expected: &Expected, tally: &mut Tally, words: &str) {
    let words = format!("{words}, sound again");
    match tally.guard(|| format!("{words}: panicked"), || builder().open_existing(folder)) {
        None => {}
        Some(Err(e)) => tally.lost(expected.durable, || format!("{words}: does not open: {e:?}")),
        Some(Ok(log)) => {
            match log.topic(TOPIC).and_then(|topic| topic.partition(0)) {
                Ok(partition) => expected.check(&partition, expected.durable, tally, &words),
                Err(e) => tally.lost(expected.durable, || format!("{words}: {e:?}")),
            }
            if folder.join("quarantine").read_dir().is_ok_and(|mut found| found.next().is_some()) {
                tally.wrong(|| format!("{words}: something was set aside"));
            }
        }
    }
}

/// Some pages of each file, all of them in the long run.
fn some_of_each(places: Vec<Place>, random: &mut Random) -> Vec<Place> {
    let mut files: BTreeMap<PathBuf, Vec<Place>> = BTreeMap::new();
    places.into_iter().for_each(|place| files.entry(place.file.clone()).or_default().push(place));
    for places in files.values_mut() {
        while places.len() as u64 > effort(1, u64::MAX) {
            places.remove(random.below(places.len() as u64) as usize);
        }
    }
    let mut places: Vec<Place> = files.into_values().flatten().collect();
    // In any order, since a slow machine does not come to the end of them.
    places.sort_by_cached_key(|_| random.next());
    places
}

fn unreadable(run: &mut Run, disk: &Disk) {
    let mut random = run.random();
    let base = disk.folder.path().join("base");
    for killed in [false, true] {
        disk.begin();
        let mut expected = disk.sound(|folder| write(folder, &config(1), 120, killed));
        expected.durable = expected.appended();
        let (places, batches) = disk.sound(|folder| {
            let places = places(folder);
            let batches = batches(folder, &places);
            (places, batches)
        });
        assert!(batches.iter().map(|(file, ..)| file).collect::<BTreeSet<_>>().len() > 3, "too few segments");
        let places: Vec<Place> = places.into_iter().filter(|place| place.written).collect();
        std::fs::copy(&disk.file, &base).unwrap();
        for place in some_of_each(places, &mut random) {
            if !run.has_time(effort(4, 1_800) * (1 + u64::from(killed))) {
                break;
            }
            std::fs::copy(&base, &disk.file).unwrap();
            run.tally.cycles += 1;
            let words = format!("killed {killed}, page {} of {}", place.page, place.file.display());
            let sector = place.block * SECTORS + random.below(SECTORS);
            let tally = &mut run.tally;
            disk.failing("read", &[sector], |folder| look(folder, &place, &batches, tally, &words)).unwrap();
            disk.sound(|folder| check(folder, &expected, tally, &words));
        }
    }
}

/// Appends and flushes until that fails, and says whether it did; nothing is acknowledged afterwards.
fn append_until_it_fails(folder: &Path, expected: &mut Expected, tally: &mut Tally, words: &str) -> bool {
    let opened = tally.guard(|| format!("{words}: panicked"), || builder().open_existing(folder));
    let log = match opened {
        Some(Ok(log)) => log,
        Some(Err(e)) if e.kind() == ErrorKind::Storage => return true,
        other => {
            tally.wrong(|| format!("{words}: {other:?}"));
            return true;
        }
    };
    let partition = log.topic(TOPIC).unwrap().partition(0).unwrap();
    let appended =
        |expected: &mut Expected| expected.append(&partition, 2).and_then(|()| expected.flush(&partition));
    match (0..60).find_map(|_| appended(expected).err()) {
        None => return false,
        Some(e) if e.kind() != ErrorKind::Storage => tally.wrong(|| format!("{words}: {e:?}")),
        Some(_) => {}
    }
    if (0..3).any(|_| appended(expected).is_ok()) {
        tally.wrong(|| format!("{words}: acknowledged after a flush that failed"));
    }
    true
}

fn unwritable(run: &mut Run, disk: &Disk) {
    let mut random = run.random();
    let base = disk.folder.path().join("base");
    disk.begin();
    let mut before = disk.sound(|folder| write(folder, &config(1).segment_bytes(4 << 20), 50, true));
    before.durable = before.appended();
    std::fs::copy(&disk.file, &base).unwrap();
    // Once without a fault, to see where it all goes: what ext4 does with the same disk again is nearly the same.
    let met: Vec<Place> = disk.sound(|folder| {
        let was: BTreeSet<u64> =
            places(folder).iter().filter(|place| place.written).map(|place| place.block).collect();
        assert!(!append_until_it_fails(folder, &mut before.clone(), &mut run.tally, "without a fault"));
        let now = places(folder).into_iter().filter(|place| place.written && !was.contains(&place.block));
        now.filter(|place| place.file.to_str().unwrap().contains("topics/t.")).collect()
    });
    assert!(!met.is_empty(), "nothing was written");
    for place in met.iter().step_by(effort(5, 1) as usize) {
        if run.tally.cycles > 0 && !run.has_time(effort(5, 1_800)) {
            break;
        }
        std::fs::copy(&base, &disk.file).unwrap();
        let mut expected = before.clone();
        let words = format!("page {} of {}", place.page, place.file.display());
        let tally = &mut run.tally;
        let sector = place.block * SECTORS + random.below(SECTORS);
        let failed = disk.failing("write", &[sector], |folder| {
            append_until_it_fails(folder, &mut expected, tally, &words)
        });
        // Where nothing was written there, it is no fault.
        tally.cycles += u64::from(failed.unwrap());
        disk.sound(|folder| check(folder, &expected, tally, &words));
    }
}

#[test]
fn sectors_that_cannot_be_read_cost_what_is_on_them_and_only_until_they_can() {
    let test = "13 sectors that cannot be read, ext4";
    let began = Instant::now();
    let Some(disk) = Disk::or_skip(test) else { return };
    run_since(began, test, |run| unreadable(run, &disk));
}

#[test]
fn sectors_that_cannot_be_written_fail_the_flush_that_meets_them() {
    let test = "13 sectors that cannot be written, ext4";
    let began = Instant::now();
    let Some(disk) = Disk::or_skip(test) else { return };
    run_since(began, test, |run| unwritable(run, &disk));
}
