//! Tests of the engine: when a partition is looked at again, and when it is let go of.

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::clock::SystemClock;
use crate::partition::write_behind::*;

/// A partition that has something to write at its first step only, and tells of each call.
struct Quiet {
    linger: Duration,
    told: Sender<&'static str>,
    /// How often it is asked to rest before it agrees.
    restless: AtomicU64,
    steps: AtomicU64,
}

impl Duty for Quiet {
    fn drain(&self, _: usize, _: bool) -> Stand {
        let _ = self.told.send("step");
        Stand::Written { moved: self.steps.fetch_add(1, Ordering::Relaxed) == 0, linger: self.linger }
    }

    fn rest(&self) -> bool {
        let _ = self.told.send("rest");
        self.restless.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn partition(&self) -> Option<Arc<PartitionCore>> {
        None
    }

    fn evict(&self, _: u64) {}

    fn retire(&self, _: bool) -> usize {
        0
    }

    fn poison(&self, _: &Error) {}
}

/// What the engine does with such a partition until it rests.
fn until_rest(linger: Duration, restless: u64) -> Vec<&'static str> {
    let pool = Pool::heap(16 << 20).unwrap();
    let engine = Engine::new(pool, Codecs::default(), Arc::new(SystemClock), None, Duration::ZERO);
    engine.spawn("tapelog-write", Engine::write_loop).unwrap();
    let (told, calls): (_, Receiver<&str>) = unbounded();
    let steps = AtomicU64::new(0);
    engine.enqueue(Arc::new(Quiet { linger, told, restless: AtomicU64::new(restless), steps }));
    // The engine lets go of a partition that rests, and then there is nobody left to tell.
    let calls = calls.iter().collect();
    assert!(engine.stop(Deadline::after(Duration::MAX)));
    calls
}

#[test]
fn a_partition_dozes_before_it_rests() {
    let calls = until_rest(DOZE_LOOK_MIN, 0);
    assert!(calls.len() > 2, "looked at again without being asked: {calls:?}");
    assert_eq!(calls.iter().filter(|call| **call == "rest").count(), 1);
    assert_eq!(calls.last(), Some(&"rest"), "and let go of in the end, so that an idle log sleeps");
}

#[test]
fn one_that_wants_no_delay_rests_at_once() {
    assert_eq!(until_rest(Duration::ZERO, 0), ["step", "rest"]);
}

#[test]
fn one_that_may_not_rest_is_written_again() {
    assert_eq!(until_rest(Duration::ZERO, 2), ["step", "rest", "step", "rest", "step", "rest"]);
}

/// A partition that panics at everything, and tells what it is told of it.
struct Panics(Sender<String>);

impl Duty for Panics {
    fn drain(&self, _: usize, _: bool) -> Stand {
        panic!("the write of {}", 7)
    }

    fn rest(&self) -> bool {
        panic!("the rest")
    }

    fn flush(&self) -> Result<()> {
        panic!("the flush")
    }

    fn partition(&self) -> Option<Arc<PartitionCore>> {
        None
    }

    fn evict(&self, _: u64) {}

    fn retire(&self, _: bool) -> usize {
        0
    }

    fn poison(&self, error: &Error) {
        let _ = self.0.send(error.to_string());
    }
}

#[test]
fn a_panic_in_a_thread_of_the_engine_fails_its_partition_with_its_words_and_no_other() {
    let pool = Pool::heap(16 << 20).unwrap();
    let engine = Engine::new(pool, Codecs::default(), Arc::new(SystemClock), None, Duration::ZERO);
    engine.spawn("tapelog-write", Engine::write_loop).unwrap();
    engine.spawn("tapelog-flush", Engine::flush_loop).unwrap();
    let (told, words) = unbounded();
    let panics: Arc<dyn Duty> = Arc::new(Panics(told));
    engine.enqueue(Arc::clone(&panics));
    assert!(words.recv().unwrap().contains("panicked: the write of 7"));
    engine.flush_later(Arc::downgrade(&panics), Duration::ZERO);
    assert!(words.recv().unwrap().contains("panicked: the flush"));
    // Both threads go on.
    let (told, calls) = unbounded();
    let quiet = Quiet { linger: Duration::ZERO, told, restless: AtomicU64::new(0), steps: AtomicU64::new(0) };
    engine.enqueue(Arc::new(quiet));
    assert_eq!(calls.iter().collect::<Vec<_>>(), ["step", "rest"]);
    engine.flush_later(Arc::downgrade(&panics), Duration::ZERO);
    assert!(words.recv().unwrap().contains("panicked: the flush"));
    assert!(engine.stop(Deadline::after(Duration::MAX)));
}

/// A log that was dropped while a partition had something left to write was never let go of: the engine kept the partition,
/// and the partition the engine, with the mapped staging file and all descriptors.
#[test]
fn an_engine_that_has_stopped_keeps_no_partition() {
    let pool = Pool::heap(16 << 20).unwrap();
    let engine = Engine::new(pool, Codecs::default(), Arc::new(SystemClock), None, Duration::ZERO);
    let quiet = || -> Arc<dyn Duty> {
        let (told, _) = unbounded();
        Arc::new(Quiet {
            linger: Duration::ZERO,
            told,
            restless: AtomicU64::new(0),
            steps: AtomicU64::new(0),
        })
    };
    let (before, after) = (quiet(), quiet());
    let gone = [Arc::downgrade(&before), Arc::downgrade(&after)];
    engine.enqueue(before);
    assert!(gone[0].upgrade().is_some(), "until somebody comes for it");
    assert!(engine.stop(Deadline::after(Duration::MAX)));
    engine.enqueue(after);
    assert!(gone.iter().all(|duty| duty.upgrade().is_none()));
}
