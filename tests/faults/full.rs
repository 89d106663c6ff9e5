//! Disks that are full for real: a tmpfs of a size, an ext4 image, and a file system without inodes left. What was accepted
//! lies in the staging file, whose space was had when the log was opened: so there is no reserve to be let go of, and no
//! store that finds the disk full. It is written and flushed once there is room, without reopening.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tapelog::{Error, ErrorKind, Log, LogBuilder, Partition, Record, TopicConfig};

use crate::child::{Ended, here, run_child, told};
use crate::damage::place;
use crate::report::{run_since, skip};

const SOON: Duration = Duration::from_secs(30);

fn value(offset: u64) -> Vec<u8> {
    format!("{offset} ").bytes().cycle().take(1_000).collect()
}

fn builder() -> LogBuilder {
    Log::builder().memory_budget(1 << 20).max_block(SOON)
}

fn partition(log: &Log, segment_bytes: u64) -> Partition {
    let config = TopicConfig::new().segment_bytes(segment_bytes);
    log.ensure_topic("t", config).unwrap().partition(0).unwrap()
}

fn check(partition: &Partition, accepted: u64) {
    assert_eq!(partition.end_offset(), accepted);
    let mut reader = partition.reader(0).unwrap();
    for offset in 0..accepted {
        let record = reader.try_next().unwrap().unwrap();
        assert_eq!((record.offset(), record.value()), (offset, Some(&value(offset)[..])));
    }
}

/// Appends until there is no room.
fn fill(partition: &Partition) -> Error {
    let patience = Instant::now() + SOON;
    loop {
        if let Err(e) = partition.append(Record::new(&value(partition.end_offset()))) {
            return e;
        }
        assert!(Instant::now() < patience, "it is never full");
    }
}

/// Fills a disk again and again; `take` takes what there is room for besides, `free` gives it back.
fn fill_and_free(dir: &Path, segment_bytes: u64, take: &dyn Fn(), free: &dyn Fn()) {
    let (mut cycles, mut acked) = (0, 0);
    take();
    let log = builder().open(dir.join("log")).unwrap();
    let t = partition(&log, segment_bytes);
    for _ in 0..3 {
        cycles += 1;
        let error = fill(&t);
        assert_eq!((error.kind(), error.topic()), (ErrorKind::NoSpace, Some("t")), "{error:?}");
        let accepted = t.end_offset();
        acked += accepted;
        // It says so again, changes nothing, and what there is can be read.
        for _ in 0..100 {
            let error = t.append(Record::new(&value(accepted))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        }
        check(&t, accepted);
        let flushed = t.wait_durable(accepted, Duration::from_millis(50));
        assert!(flushed.is_ok() || t.durable_offset() < accepted, "it is not called durable");
        free();
        let patience = Instant::now() + SOON;
        while let Err(e) = t.append(Record::new(&value(t.end_offset()))) {
            assert!(Instant::now() < patience, "appends do not succeed again: {e:?}");
            std::thread::yield_now();
        }
        // All that was accepted is drained, and flushed.
        t.wait_durable(accepted + 1, SOON).unwrap();
        check(&t, accepted + 1);
        take();
    }
    // Full, and then the process dies; the next open finds it full still, and the one after that does not.
    fill(&t);
    let accepted = t.end_offset();
    drop((t, log));
    for round in 0..2 {
        cycles += 1;
        match builder().open(dir.join("log")) {
            Ok(log) => check(&partition(&log, segment_bytes), accepted),
            Err(e) => assert_eq!((e.kind(), round), (ErrorKind::NoSpace, 0), "{e:?}"),
        }
        free();
        let _ = fs::remove_file(dir.join("reserve"));
    }
    println!("cycles={cycles} acked={}", acked + accepted);
}

fn with_ballast(dir: &Path) {
    // What an open needs at the end: how much the ballast took is up to how fast the log was.
    fs::write(dir.join("reserve"), vec![1; 4 << 20]).unwrap();
    let ballast = dir.join("ballast");
    let take = || {
        // As much as there is, up to a size, and in whatever part: not every byte of it is there each time.
        let mut file = fs::File::create(&ballast).unwrap();
        for _ in 0..32 {
            if std::io::Write::write_all(&mut file, &[1; 128 << 10]).is_err() {
                break;
            }
        }
        let _ = file.sync_all();
    };
    fill_and_free(dir, 1 << 20, &take, &|| drop(fs::remove_file(&ballast)));
}

/// Runs the test `name` as root of a mount namespace of its own.
fn mounted(test: &str, name: &str, mount: &str) {
    let (dir, began) = (place(), Instant::now());
    let (at, image) = (dir.path().join("at"), dir.path().join("image"));
    fs::create_dir(&at).unwrap();
    let mount = mount.replace("IMAGE", image.to_str().unwrap()).replace("DIR", at.to_str().unwrap());
    let script = format!("{mount} && exec \"$@\"");
    let prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", &script, "sh"];
    match run_child(&format!("full::{name}"), &prefix, &at) {
        Ended::Never(why) => skip(test, &why),
        Ended::Badly(why) => run_since(began, test, |run| run.tally.wrong(|| why)),
        Ended::Well(said) => run_since(began, test, |run| {
            (run.tally.cycles, run.tally.acked) = (told(&said, "cycles"), told(&said, "acked"));
        }),
    }
}

#[test]
fn a_tmpfs_that_is_full() {
    if let Some(dir) = here() {
        return with_ballast(&dir);
    }
    mounted("10 a full tmpfs", "a_tmpfs_that_is_full", "mount -t tmpfs -o size=18m none DIR");
}

#[test]
fn an_ext4_that_is_full() {
    if let Some(dir) = here() {
        return with_ballast(&dir);
    }
    let mount = "truncate -s 24m IMAGE && mkfs.ext4 -q -F -m 0 IMAGE && mount -o loop IMAGE DIR";
    mounted("10 a full ext4 image", "an_ext4_that_is_full", mount);
}

#[test]
fn a_file_system_without_inodes_left() {
    if let Some(dir) = here() {
        let hoard = |n: u32| dir.join(format!("hoard {n}"));
        let take = || (0..400).for_each(|n| drop(fs::File::create(hoard(n))));
        let free = || (0..400).for_each(|n| drop(fs::remove_file(hoard(n))));
        // A segment, and so an inode, for every few records; more are free again than the budget can fill.
        return fill_and_free(&dir, 20_000, &take, &free);
    }
    let mount = "mount -t tmpfs -o size=100m,nr_inodes=600 none DIR";
    mounted("10 no inode left", "a_file_system_without_inodes_left", mount);
}
