//! Disks that fail and die while a log is open: a flush that fails once, a file cut short by somebody else, a file system that
//! goes away. What was acknowledged is there when the disk is, and until then there are errors, not crashes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tapelog::{ErrorKind, Log, Partition};

use crate::image::{Image, Kind};
use crate::model::{Expected, SOON, TOPIC, builder, config};
use crate::report::{Random, Run, Tally, effort, run};

fn open(folder: &Path) -> tapelog::Result<(Log, Partition)> {
    let log = builder().max_block(Duration::from_millis(100)).open(folder)?;
    let partition = log.ensure_topic(TOPIC, config(1))?.partition(0)?;
    Ok((log, partition))
}

/// Appends and flushes until that fails, at most so often.
fn fill(partition: &Partition, expected: &mut Expected, times: u64) -> Option<tapelog::Error> {
    (0..times).find_map(|_| expected.append(partition, 40).and_then(|()| expected.flush(partition)).err())
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

/// The disk takes less than it promised. The first flush that cannot be done fails, and the kernel then believes that the
/// pages were written: the next flush succeeds, and who reads sees what is on no disk.
fn flush_fails(image: &Image, at_once: bool, tally: &mut Tally, words: &str) {
    let folder = image.path().join("log");
    let (log, partition) = open(&folder).unwrap();
    let mut expected = Expected::default();
    let Some(failed) = fill(&partition, &mut expected, 10_000) else {
        return tally.wrong(|| format!("{words}: no flush failed"));
    };
    assert!(expected.durable > 0, "{failed:?}");
    // It would succeed now.
    image.make_room(512 << 20);
    for _ in 0..50 {
        let _ = expected.append(&partition, 1);
        let durable = expected.durable;
        if partition.wait_durable(durable + 1, SOON).is_ok() {
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
    let test = "12 a flush fails on a disk that is smaller than it says";
    for cycle in 0..effort(1, 1) {
        let Some(image) = Image::with_little_room_or_skip(test, Kind::Ext4, 24 << 20) else { return };
        let _ = (cycle, image);
    }
    run(test, |run| {
        for cycle in 0..effort(4, 40) {
            let image = Image::with_little_room_or_skip(test, Kind::Ext4, 24 << 20).unwrap();
            flush_fails(&image, cycle % 2 == 1, &mut run.tally, &format!("cycle {cycle}"));
        }
    });
}

/// Somebody cuts a segment short while it is written and read: what was in the rest of it cannot be read, and says so.
#[test]
fn a_segment_is_cut_short_under_an_open_log() {
    run("13 a segment is cut short by another process", |run| {
        let mut random = run.random();
        for cycle in 0..effort(60, 2_000) {
            let folder = tempfile::tempdir().unwrap();
            let (log, partition) = open(folder.path()).unwrap();
            let mut expected = Expected::default();
            fill(&partition, &mut expected, 3);
            cut_a_segment_short(folder.path(), &mut random);
            // The writer goes on, or says why not.
            let _ = fill(&partition, &mut expected, 2);
            read_all(&partition, &mut run.tally, &format!("cycle {cycle}"));
            drop((partition, log));
            run.tally.cycles += 1;
            // Afterwards it opens, or says what is damaged.
            let opened = run.tally.guard(|| format!("cycle {cycle}: panicked"), || open(folder.path()));
            match opened {
                Some(Ok((_log, partition))) => {
                    read_all(&partition, &mut run.tally, &format!("cycle {cycle}, opened again"));
                }
                Some(Err(e)) => assert!(e.kind() == ErrorKind::CorruptRecord, "cycle {cycle}: {e:?}"),
                None => {}
            }
        }
    });
}
