//! Tests of what the engine and who waits ask of a partition, each step by itself: this engine has no threads.

use std::path::{Path, PathBuf};

use crate::clock::ManualClock;
use crate::codec::Codecs;
use crate::partition::core::{Opened, Wait};
use crate::partition::records::Identity;
use crate::partition::settle::*;
use crate::partition::write_behind::Engine;
use crate::record::Record;
use crate::storage::arena::Pool;
use crate::storage::directory::Directory;
use crate::storage::disk::RealDisk;
use crate::topic_partition::TopicPartition;

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1 << 20;

/// A partition and its engine, which keeps what it has not come to until it is stopped.
struct Stopped(Arc<PartitionCore>);

impl std::ops::Deref for Stopped {
    type Target = PartitionCore;

    fn deref(&self) -> &PartitionCore {
        &self.0
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.engine.stop(Deadline::after(Duration::MAX));
    }
}

fn open(path: &Path, settings: Settings) -> Stopped {
    let directory = Arc::new(Directory::open_or_create(path, Arc::new(RealDisk::default())).unwrap());
    let pool = Pool::mapped(Arc::clone(directory.disk()), path, 7, 1, 16 * MIB).unwrap();
    let clock = Arc::new(ManualClock::default());
    let engine = Engine::new(pool, Codecs::default(), clock, Some(directory), SECOND);
    let identity = Identity { topic_id: 0x100, tp: TopicPartition::new("t", 0) };
    Stopped(PartitionCore::open(identity, engine, settings, PathBuf::from("topics/t/0"), Opened::empty(1)))
}

fn append(core: &PartitionCore, len: usize) {
    core.append(&[Record::new(&vec![7; len])], Wait::No, None).unwrap();
}

/// Less than a block waits for more, for a while; once it is written the partition has nothing to do.
#[test]
fn a_block_that_is_not_full_lingers() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings::default());
    append(&core, 100);
    for _ in 0..2 {
        let stand = Duty::drain(&*core, MIB, false);
        assert!(
            matches!(stand, Stand::Linger(wait) if wait == Settings::default().block_linger),
            "{stand:?}"
        );
        assert_eq!((core.written_offset(), core.rest()), (0, false), "it is not written, and not forgotten");
    }
    let stand = Duty::drain(&*core, MIB, true);
    assert!(matches!(stand, Stand::Written { .. }), "{stand:?}");
    assert_eq!((core.written_offset(), core.rest()), (1, true));
}

/// What comes in small pieces goes to disk in large ones.
#[test]
fn frames_of_many_steps_share_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings::default());
    for _ in 0..50 {
        append(&core, 100);
        Duty::drain(&*core, MIB, false);
    }
    core.flush_to(50).unwrap();
    let file = dir.path().join("topics/t/0/00000000000000000000-000000.log");
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(bytes.chunks(8).filter(|word| word.starts_with(b"TLB1")).count(), 1);
}

/// An engine that took every partition for a busy one would never sleep; one that did not notice that a caller writes by
/// himself would let go of the partition, and each of his appends had to wake it.
#[test]
fn a_partition_is_busy_while_anybody_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings::default());
    let moved = || match Duty::drain(&*core, MIB, true) {
        Stand::Written { moved, .. } => moved,
        other => panic!("{other:?}"),
    };
    append(&core, 100);
    assert!(moved(), "by the engine");
    assert!(!moved() && !moved());
    append(&core, 100);
    core.write_all().unwrap();
    assert!(moved(), "by somebody else");
    assert!(!moved());
}

/// A flush writes piece by piece, and is at its end when all of it is written.
#[test]
fn a_flush_of_much_reaches_what_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings::default());
    for _ in 0..8 {
        append(&core, MIB / 2);
    }
    core.flush_to(7).unwrap();
    assert!(core.durable_offset() >= 7 && core.written_offset() >= 7);
    core.flush_to(8).unwrap();
    assert_eq!((core.durable_offset(), core.written_offset()), (8, 8));
}

/// What was flushed whole is not flushed again, nor its file held; what was not stays.
#[test]
fn a_flush_forgets_the_segments_that_it_covered() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings { segment_bytes: 4_000, ..Settings::default() });
    let unflushed = || core.drain.lock().sink().unflushed().len();
    for round in 0..3 {
        (0..3).for_each(|_| append(&core, 3_000));
        core.write_all().unwrap();
        let dirty = if round == 0 { 3 } else { 4 };
        assert_eq!(unflushed(), dirty);
        core.drain.lock().sink().forget_flushed();
        // The one that was flushed and written to no more may go.
        assert!(unflushed() >= 3, "nothing is forgotten that was not flushed");
        core.flush_to(core.end_offset()).unwrap();
        assert_eq!(unflushed(), 1, "the one that is written to");
    }
}

/// A partition that flushes by itself asks for that once, with the first record that is not durable.
#[test]
fn a_flush_is_asked_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings { sync_policy: SyncPolicy::Every(SECOND), ..Settings::default() });
    let asked = || {
        Duty::drain(&*core, MIB, true);
        core.engine.flushes_to_come()
    };
    assert_eq!(asked(), 0, "there is nothing to flush");
    append(&core, 10);
    assert_eq!((asked(), asked()), (1, 1));
    append(&core, 10);
    assert_eq!(asked(), 1, "that flush is still to come");
    Duty::flush(&*core).unwrap();
    assert_eq!((core.durable_offset(), asked()), (2, 1), "all is durable");
    append(&core, 10);
    assert_eq!((asked(), asked()), (2, 2));
}

#[test]
fn a_flush_is_asked_for_with_the_last_of_so_many_records() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings { sync_policy: SyncPolicy::EveryRecords(3), ..Settings::default() });
    let asked = || {
        append(&core, 10);
        Duty::drain(&*core, MIB, true);
        core.engine.flushes_to_come()
    };
    assert_eq!([asked(), asked(), asked(), asked()], [0, 0, 1, 1]);
    Duty::flush(&*core).unwrap();
    assert_eq!([asked(), asked(), asked()], [1, 1, 2]);
}

/// A quiet partition gives up the chunk that it would append to next, and nothing else keeps that memory; one that is not
/// written, or with `if_quiet` one that was appended to since it was asked last, does not.
#[test]
fn a_quiet_partition_gives_up_its_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings::default());
    append(&core, 100);
    assert_eq!((core.retire(false), core.retire(true)), (0, 0), "it is not written");
    Duty::drain(&*core, MIB, true);
    append(&core, 100);
    Duty::drain(&*core, MIB, true);
    assert_eq!(core.retire(true), 0, "it was busy");
    let used = core.engine.pool.used_bytes();
    assert!(used > 0);
    assert_eq!(core.retire(true), used);
    assert_eq!(core.retire(false), 0, "it has none");
    assert!(core.engine.evict_one() && !core.engine.evict_one());
    assert_eq!(core.engine.pool.used_bytes(), 0);

    append(&core, 100);
    Duty::drain(&*core, MIB, true);
    assert!(core.retire(false) > 0, "whoever needs room does not ask whether it is quiet");
    append(&core, 100);
    core.flush_to(4).unwrap();
    assert_eq!(core.durable_offset(), 4);
}

/// Once a partition has ended, its files may be somebody else's.
#[test]
fn nothing_is_written_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings::default());
    append(&core, 100);
    assert!(core.end(&closed(), Deadline::after(SECOND)));
    assert_eq!(core.write_all().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(core.flush_to(1).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!((core.written_offset(), core.durable_offset()), (0, 0));
    assert!(!dir.path().join("topics").exists());
}

/// The engine is told of the first append and of no other until the partition rests; then of the next, or of whoever wants
/// that it tries again.
#[test]
fn the_engine_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let core = open(dir.path(), Settings::default());
    let news = |durable| core.append.lock().has_news(durable);
    assert_eq!((news(true), news(false)), (true, false), "where nothing is written nobody is told");
    for _ in 0..2 {
        append(&core, 10);
        assert_eq!((news(true), core.engine.to_write()), (false, 1));
    }
    Duty::drain(&*core, MIB, true);
    assert!(core.rest() && news(true));
    for _ in 0..2 {
        core.wake_engine();
        assert_eq!((news(true), core.engine.to_write()), (false, 2));
    }
}
