//! Disks that fail and die while a log is open: a flush that fails once, a file cut short by somebody else, a file system that
//! goes away. What was acknowledged is there when the disk is, and until then there are errors, not crashes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tapelog::{ErrorKind, Log, Partition};

use crate::image::{Image, Kind};
use crate::model::{Expected, SOON, TOPIC, builder, config, value};
use crate::power::files_in;
use crate::report::{Random, Tally, effort, run};

/// What the disk has that promises more.
const ROOM: u64 = 16 << 20;
/// How long the header of a segment is.
const HEADER: u64 = 64;

fn open(folder: &Path) -> tapelog::Result<(Log, Partition)> {
    let log = builder().max_block(Duration::from_millis(100)).open(folder)?;
    let partition = log.ensure_topic(TOPIC, config(1))?.partition(0)?;
    Ok((log, partition))
}

/// Appends and flushes until that fails, at most so often.
fn fill(partition: &Partition, expected: &mut Expected, times: u64) -> Option<tapelog::Error> {
    (0..times).find_map(|_| {
        let appended = (0..12).try_for_each(|_| expected.append(partition, 2));
        appended.and_then(|()| expected.flush(partition)).err()
    })
}

/// Has the folder of the partition be as large as it will ever be. The block it would grow by might lie behind the end of the
/// disk, and then it is not a flush that fails, but the file system.
fn grow_folder(folder: &Path) {
    let segments = segments_in(folder);
    let names = |n| segments[0].with_file_name(format!("{n:032}"));
    (0..1_000).for_each(|n| drop(File::create(names(n)).unwrap()));
    (0..1_000).for_each(|n| std::fs::remove_file(names(n)).unwrap());
}

/// The segments of the topic, in their order.
fn segments_in(folder: &Path) -> Vec<PathBuf> {
    let mut segments = Vec::new();
    files_in(&folder.join("topics"), &mut segments);
    segments.retain(|path| path.to_string_lossy().contains("/t."));
    segments.sort();
    segments
}

/// Opens what is left and checks it against all that was acknowledged as durable; where it opens, and how far it goes.
fn check(folder: &Path, expected: &Expected, tally: &mut Tally, words: &str) -> Option<(Log, Partition)> {
    match tally.guard(|| format!("{words}: panicked"), || open(folder))? {
        Ok((log, partition)) => {
            expected.check(&partition, expected.durable, tally, words);
            Some((log, partition))
        }
        Err(e) => {
            tally.lost(1, || format!("{words}: does not open: {e:?}"));
            None
        }
    }
}

/// The disk is shorter than it promised. The first flush that cannot be done fails, and the kernel then believes that the
/// pages were written: the next flush succeeds, and who reads sees what is on no disk.
fn flush_fails(image: &mut Image, at_once: bool, tally: &mut Tally, words: &str) {
    let folder = image.path().join("log");
    let (log, partition) = open(&folder).unwrap();
    let mut expected = Expected::default();
    assert!(fill(&partition, &mut expected, 1).is_none());
    grow_folder(&folder);
    let Some(failed) = fill(&partition, &mut expected, 2_000) else {
        return tally.wrong(|| format!("{words}: no flush failed"));
    };
    // It would succeed now.
    image.make_room();
    for _ in 0..50 {
        let _ = expected.append(&partition, 1);
        let durable = expected.durable;
        if expected.appended() > durable && partition.wait_durable(durable + 1, SOON).is_ok() {
            tally.wrong(|| format!("{words}: acknowledged after {failed:?}"));
        }
    }
    drop((partition, log));
    tally.cycles += 1;
    if at_once && let Ok((log, partition)) = open(&folder) {
        // The machine goes on, and who reads now may read what is on no disk; what is acknowledged from here on is on it.
        let end = partition.end_offset();
        tally.lost(expected.durable.saturating_sub(end), || format!("{words}: {end} there at once"));
        if partition.wait_durable(end, SOON).is_ok() {
            expected.durable = expected.durable.max(end);
        }
        drop((partition, log));
    }
    image.remount(0);
    if let Some((log, _)) = check(&folder, &expected, tally, words) {
        drop(log);
    }
}

#[test]
fn a_flush_that_failed_is_never_believed_again() {
    flushes_fail("12 a flush fails on a disk that is smaller than it says", 4_096);
}

#[test]
fn a_flush_that_failed_is_never_believed_again_where_a_page_is_four_blocks() {
    flushes_fail("12 the same, on ext4 with blocks of 1 KiB", 1_024);
}

fn flushes_fail(test: &str, block: u32) {
    let Some(mut image) = Image::with_little_room_or_skip(test, block, ROOM) else { return };
    run(test, |run| {
        for cycle in 0..effort(4, 60) {
            if cycle > 0 {
                drop(image);
                image = Image::with_little_room_or_skip(test, block, ROOM).unwrap();
            }
            flush_fails(&mut image, cycle % 2 == 1, &mut run.tally, &format!("cycle {cycle}"));
        }
    });
}

/// Somebody cuts a segment short while it is written and read: what was in the rest of it cannot be read, and says so.
#[test]
fn a_segment_is_cut_short_under_an_open_log() {
    run("13 a segment is cut short by another process", |run| {
        let mut random = run.random();
        for cycle in 0..effort(15, 1_000) {
            let folder = tempfile::tempdir().unwrap();
            let (log, partition) = open(folder.path()).unwrap();
            let mut expected = Expected::default();
            fill(&partition, &mut expected, 3);
            let len = cut_a_segment_short(folder.path(), &mut random);
            // The writer goes on, or says why not.
            let _ = fill(&partition, &mut expected, 2);
            read_all(&partition, &mut run.tally, &format!("cycle {cycle}"));
            drop((partition, log));
            run.tally.cycles += 1;
            // Afterwards it opens, or says what is damaged. A file that was cut in its header may not be known for a segment.
            let fits =
                |kind| kind == ErrorKind::CorruptRecord || len < HEADER && kind == ErrorKind::ForeignFile;
            let opened = run.tally.guard(|| format!("cycle {cycle}: panicked"), || open(folder.path()));
            match opened {
                Some(Ok((_log, partition))) => {
                    read_all(&partition, &mut run.tally, &format!("cycle {cycle}, opened again"));
                }
                Some(Err(e)) => assert!(fits(e.kind()), "cycle {cycle}, cut to {len}: {e:?}"),
                None => {}
            }
        }
    });
}

/// Has another process cut a segment of the topic, at a random length, which it returns: now and then within its header.
fn cut_a_segment_short(folder: &Path, random: &mut Random) -> u64 {
    let segments = segments_in(folder);
    let segment = &segments[random.below(segments.len() as u64) as usize];
    let len = if random.one_in(20) { random.below(HEADER) } else { random.below(20_000) };
    let done = Command::new("truncate").args(["--size", &len.to_string()]).arg(segment).status();
    assert!(done.unwrap().success());
    len
}

/// Reads every record that can be read, wherever what cannot be lies between.
fn read_all(partition: &Partition, tally: &mut Tally, words: &str) {
    for offset in partition.start_offset()..partition.end_offset() {
        let read = partition.reader(offset).and_then(|mut reader| {
            let record = reader.try_next()?;
            Ok(record.map(|record| (record.offset(), record.value().map(<[u8]>::to_vec))))
        });
        match read {
            // What cannot be read may be skipped, and is told when it is read itself.
            Ok(Some((found, bytes))) if bytes.as_deref() != Some(&value(0, found)[..]) || found < offset => {
                tally.wrong(|| format!("{words}: {found} is read at {offset}, with other bytes"));
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::CorruptRecord | ErrorKind::Storage) => {}
            Err(e) => tally.wrong(|| format!("{words}: at {offset}: {e:?}")),
        }
    }
}

/// The file system goes away under a log that is written and read. Where its staging file lies elsewhere, no store can hit
/// what is gone: everything that has to do with the disk fails, and this process, which is the test's own, lives.
fn disk_dies(image: &mut Image, random: &mut Random, tally: &mut Tally, words: &str) {
    let (folder, staging) = (image.path().join("log"), image.beside.join("staging"));
    std::fs::create_dir_all(&staging).unwrap();
    let open = || -> tapelog::Result<(Log, Partition)> {
        let log = builder().staging(&staging).max_block(Duration::from_millis(100)).open(&folder)?;
        let partition = log.ensure_topic(TOPIC, config(1))?.partition(0)?;
        Ok((log, partition))
    };
    let (log, partition) = open().unwrap();
    let mut expected = Expected::default();
    assert!(fill(&partition, &mut expected, 5 + random.below(20)).is_none());
    image.cut(random.one_in(2));
    for _ in 0..2_000 {
        // More than the budget: the appends end with an error as well.
        let appended = expected.append(&partition, 2);
        if appended.is_err() {
            break;
        }
        if expected.appended() > expected.durable
            && partition.wait_durable(expected.durable + 1, SOON).is_ok()
        {
            tally.wrong(|| format!("{words}: acknowledged by a disk that is gone, {appended:?}"));
        }
    }
    if expected.append(&partition, 1).is_ok() {
        tally.wrong(|| format!("{words}: the appends go on"));
    }
    read_all(&partition, tally, words);
    let closed = log.close(SOON);
    if closed.is_ok() {
        tally.wrong(|| format!("{words}: the log was closed on a disk that is gone"));
    }
    drop(partition);
    tally.cycles += 1;
    image.remount(0);
    match tally.guard(|| format!("{words}: panicked"), open) {
        None => {}
        Some(Err(e)) => tally.lost(1, || format!("{words}: does not open: {e:?}")),
        Some(Ok((log, partition))) => {
            expected.check(&partition, expected.durable, tally, words);
            drop((partition, log));
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::remove_dir_all(&staging).unwrap();
}

fn disks_die(test: &str, kind: Kind) {
    let Some(mut image) = Image::or_skip(test, kind) else { return };
    run(test, |run| {
        let mut random = run.random();
        for cycle in 0..effort(10, 300) {
            disk_dies(&mut image, &mut random, &mut run.tally, &format!("cycle {cycle}"));
        }
    });
}

#[test]
fn a_disk_dies_under_an_open_log_on_ext4() {
    disks_die("13 the disk dies, staging elsewhere, ext4", Kind::Ext4);
}

#[test]
fn a_disk_dies_under_an_open_log_on_xfs() {
    disks_die("13 the disk dies, staging elsewhere, xfs", Kind::Xfs);
}
