//! Rows of the conformance list that need a partition in a state that no sequence of public calls gives.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Deadline, ManualClock, Timestamp};
use crate::codec::Codecs;
use crate::error::ErrorKind;
use crate::partition::core::{Opened, PartitionCore, Wait};
use crate::partition::cursor::Cursor;
use crate::partition::records::Identity;
use crate::partition::recovery::{Recovering, RecoveryAction, recover_partition};
use crate::partition::settings::Settings;
use crate::partition::write_behind::{Duty, Engine};
use crate::record::Record;
use crate::storage::arena::Pool;
use crate::storage::directory::Directory;
use crate::storage::disk::RealDisk;
use crate::storage::fault::{Fault, FaultDisk, FaultPlan, Op};
use crate::topic_partition::TopicPartition;

const FOLDER: &str = "topics/t.0000000000000100/0";

fn directory(path: &Path) -> Arc<Directory> {
    Arc::new(Directory::open_or_create(path, Arc::new(RealDisk::default())).unwrap())
}

/// A partition in `directory`, with an engine that has no threads: what is written, a flush writes.
fn durable(directory: &Arc<Directory>, opened: Opened) -> Arc<PartitionCore> {
    let pool = Pool::mapped(Arc::clone(directory.disk()), directory.root(), 7, 1, 1 << 20).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let engine =
        Engine::new(pool, Codecs::default(), clock, Some(Arc::clone(directory)), Duration::from_secs(1));
    open(engine, opened)
}

fn in_memory(opened: Opened) -> Arc<PartitionCore> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let pool = Pool::heap(1 << 20).unwrap();
    open(Engine::new(pool, Codecs::default(), clock, None, Duration::from_secs(1)), opened)
}

fn open(engine: Arc<Engine>, opened: Opened) -> Arc<PartitionCore> {
    let identity = Identity { topic_id: 0x100, tp: TopicPartition::new("t", 0) };
    PartitionCore::open(identity, engine, Settings::default(), PathBuf::from(FOLDER), opened)
}

/// A partition that holds nothing below `start`, and nothing at all yet.
fn from(start: u64) -> Opened {
    Opened { start, end: start, durable: start, ..Opened::empty(1) }
}

fn append(core: &PartitionCore, value: &str, timestamp: i64) -> u64 {
    let record = Record::new(value).timestamp(Timestamp::from_nanos(timestamp));
    core.append(&[record], Wait::No, None).unwrap().base_offset
}

/// An engine keeps what it has not come to until it is stopped.
fn end(core: &PartitionCore) {
    assert!(core.engine.stop(Deadline::after(Duration::MAX)));
}

#[test]
fn l_05_reading_outside_of_what_is_held() {
    let core = in_memory(from(1024));
    assert_eq!(append(&core, "a", 0), 1024);
    let fetch = |offset| core.fetch(&mut Cursor::new(offset), core.high_watermark(), 10, 1 << 20);
    assert_eq!(fetch(1024).unwrap().unwrap().count, 1);
    assert!(fetch(1025).unwrap().is_none(), "the end is no error");
    for outside in [0, 1023, 1026] {
        let Err(error) = fetch(outside) else { panic!("{outside} is not held") };
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
        assert_eq!((error.offset(), error.offset_range()), (Some(outside), Some((1024, 1025))));
        assert_eq!((error.topic(), error.partition()), (Some("t"), Some(0)));
    }
}

#[test]
fn t_01_offsets_by_time_with_a_sparse_index() {
    let dir = tempfile::tempdir().unwrap();
    let core = durable(&directory(dir.path()), from(40));
    for offset in 40..50i64 {
        append(&core, "x", offset * 10);
        if offset % 2 == 1 {
            // A block for every second record.
            core.flush_to(core.end_offset()).unwrap();
        }
    }
    let search = |t| core.offset_for_time(Timestamp::from_nanos(t)).unwrap();
    for (target, found) in [(399, 40), (401, 41), (420, 42), (421, 43), (430, 43), (431, 44)] {
        assert_eq!(search(target), Some((found, Timestamp::from_nanos(found as i64 * 10))), "{target}");
    }
    assert_eq!(search(491), None);
    end(&core);
}

#[test]
fn t_05_nothing_is_found_in_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    for core in [in_memory(from(0)), durable(&directory(dir.path()), from(0))] {
        assert_eq!(core.offset_for_time(Timestamp::from_nanos(0)).unwrap(), None);
        assert_eq!(core.max_timestamp().unwrap(), None);
        assert_eq!((core.start_offset(), core.end_offset()), (0, 0));
    }
}

#[test]
fn l_37_noise_from_inside_a_record_ends_the_log_before_it() {
    for k in [0, 1, 7, 19] {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(dir.path());
        let mut ends = Vec::new();
        {
            let core = durable(&directory, from(0));
            let file = |name: &str| dir.path().join(FOLDER).join(name);
            for i in 0..20 {
                append(&core, &format!("record {i}"), i);
                // One block per record; a flush would leave a durable mark in the next one, so only write.
                core.write_all().unwrap();
                ends.push(core.segment_end());
            }
            end(&core);
            assert!(file("00000000000000000000-000000.log").exists());
        }
        // Noise from inside block k to the end of the file, and no hot tail to cover it.
        let path = dir.path().join(FOLDER).join("00000000000000000000-000000.log");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = usize::try_from(ends[k]).unwrap() - 100;
        bytes[at..].iter_mut().enumerate().for_each(|(i, b)| *b = (i * 37 + 11) as u8);
        std::fs::write(&path, &bytes).unwrap();

        let (settings, codecs) = (Settings::default(), Codecs::default());
        let recovering = Recovering {
            directory: &directory,
            codecs: &codecs,
            clock: &ManualClock::default(),
            survived_on: None,
            clean: false,
            epoch: 2,
            topic_id: 0x100,
            partition: 0,
            start: 0,
            folder: Path::new(FOLDER),
            settings: &settings,
            quarantine: Path::new("quarantine"),
        };
        let (opened, report) = recover_partition(&recovering, Vec::new()).unwrap();
        assert_eq!(opened.end, k as u64, "exactly what lies before the noise");
        assert_eq!(report.items.len(), 1);
        assert_eq!(report.items[0].action, RecoveryAction::TornTail);
        assert!(report.items[0].kept_in.as_ref().unwrap().exists(), "the bytes are kept");
        let core = in_memory(Opened { end: opened.end, ..opened });
        let mut cursor = Cursor::new(0);
        let mut next = 0;
        while let Some(run) = core.fetch(&mut cursor, k as u64, 100, 1 << 20).unwrap() {
            for frame in run.frames() {
                assert_eq!(frame.value(), Some(format!("record {next}").as_bytes()));
                next += 1;
            }
        }
        assert_eq!(next, k);
    }
}

/// A partition whose segments have 64 MiB, on a disk that can fail, 20 MiB into the first of them.
fn filling_fast(path: &Path) -> (Arc<PartitionCore>, Arc<FaultPlan>) {
    let plan = FaultPlan::new();
    let disk = Arc::new(FaultDisk::new(Arc::new(RealDisk::default()), Arc::clone(&plan)));
    let directory = Arc::new(Directory::open_or_create(path, disk).unwrap());
    let pool = Pool::mapped(Arc::clone(directory.disk()), directory.root(), 7, 1, 32 << 20).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let engine = Engine::new(pool, Codecs::default(), clock, Some(directory), Duration::from_secs(1));
    let identity = Identity { topic_id: 0x100, tp: TopicPartition::new("t", 0) };
    let settings = Settings { segment_bytes: 64 << 20, ..Settings::default() };
    let core = PartitionCore::open(identity, engine, settings, PathBuf::from(FOLDER), from(0));
    append_mib(&core, 20);
    (core, plan)
}

fn append_mib(core: &PartitionCore, n: usize) {
    let value = "x".repeat((1 << 20) - 200);
    for _ in 0..n {
        append(core, &value, 0);
        core.write_all().unwrap();
    }
}

#[test]
fn a_segment_goes_on_in_the_file_that_was_made_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let (core, plan) = filling_fast(dir.path());
    for _ in 0..3 {
        assert!(core.drain.lock().sink().ahead().wait());
        append_mib(&core, 64);
    }
    assert_eq!(plan.count(Op::Rename), 3, "three of four files were named when they were wanted");
    core.flush_to(core.end_offset()).unwrap();
    let mut cursor = Cursor::new(0);
    let mut next = 0;
    while let Some(run) = core.fetch(&mut cursor, core.high_watermark(), 10, 1 << 20).unwrap() {
        for frame in run.frames() {
            assert_eq!(frame.offset(), next);
            next += 1;
        }
    }
    assert_eq!(next, 212);
    end(&core);
}

#[test]
fn who_rests_or_finds_the_disk_full_gives_the_next_file_up() {
    for full in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (core, plan) = filling_fast(dir.path());
        assert!(core.drain.lock().sink().ahead().wait());
        if full {
            append(&core, "the last straw", 0);
            plan.inject(Fault::nth(1).of(Op::Write).errno(Fault::ENOSPC));
            assert_eq!(core.write_all().unwrap_err().kind(), ErrorKind::NoSpace);
        } else {
            assert!(core.rest());
        }
        assert!(!core.drain.lock().sink().ahead().wait());
        append_mib(&core, 64);
        assert_eq!(
            (plan.count(Op::Rename), core.end_offset()),
            (0, 84 + u64::from(full)),
            "each segment asks once"
        );
        assert!(core.drain.lock().sink().ahead().wait());
        end(&core);
    }
}
