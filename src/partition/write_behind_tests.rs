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
    /// How long the chunk is that it gives up.
    holds: usize,
}

impl Quiet {
    fn duty(linger: Duration, restless: u64, holds: usize, told: Sender<&'static str>) -> Arc<dyn Duty> {
        let (restless, steps) = (AtomicU64::new(restless), AtomicU64::new(0));
        Arc::new(Quiet { linger, told, restless, steps, holds })
    }
}

impl Engine {
    /// How many partitions wait to be looked at by the write-behind.
    pub(crate) fn to_write(&self) -> usize {
        self.work.lock().dirty.len()
    }

    /// How many flushes are to be made now or later.
    pub(crate) fn flushes_to_come(&self) -> usize {
        self.flushes.lock().due.len()
    }
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
        let _ = self.told.send("retire");
        self.holds
    }

    fn poison(&self, _: &Error) {}
}

/// What the engine does with such a partition until it rests.
fn until_rest(linger: Duration, restless: u64) -> Vec<&'static str> {
    let pool = Pool::heap(16 << 20).unwrap();
    let engine = Engine::new(pool, Codecs::default(), Arc::new(SystemClock), None, Duration::ZERO);
    engine.spawn("tapelog-write", Engine::write_loop).unwrap();
    let (told, calls): (_, Receiver<&str>) = unbounded();
    engine.enqueue(Quiet::duty(linger, restless, 0, told));
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
    engine.enqueue(Quiet::duty(Duration::ZERO, 0, 0, told));
    assert_eq!(calls.iter().collect::<Vec<_>>(), ["step", "rest"]);
    engine.flush_later(Arc::downgrade(&panics), Duration::ZERO);
    assert!(words.recv().unwrap().contains("panicked: the flush"));
    assert!(engine.stop(Deadline::after(Duration::MAX)));
}

/// A log that was dropped while records waited to be written kept its partitions, their files and all of its memory: the
/// engine's queue held the partition, and the partition the engine.
#[test]
fn a_stopped_engine_lets_go_of_what_waited_to_be_written() {
    let pool = Pool::heap(16 << 20).unwrap();
    // Without a thread, so that nobody else takes it out.
    let engine = Engine::new(pool, Codecs::default(), Arc::new(SystemClock), None, Duration::ZERO);
    let (told, _calls) = unbounded();
    let quiet = |told: &Sender<_>| -> Arc<dyn Duty> { Quiet::duty(Duration::ZERO, 0, 0, told.clone()) };
    let before = quiet(&told);
    engine.enqueue(Arc::clone(&before));
    assert_eq!(Arc::strong_count(&before), 2);
    assert!(engine.stop(Deadline::after(Duration::MAX)));
    assert_eq!(Arc::strong_count(&before), 1);
    let after = quiet(&told);
    engine.enqueue(Arc::clone(&after));
    assert_eq!(Arc::strong_count(&after), 1);
}

/// How many of `holders` partitions, each with a chunk of `len` bytes, are asked for it.
fn retired(holders: usize, len: usize, if_quiet: bool) -> usize {
    let pool = Pool::heap(16 << 20).unwrap();
    let engine = Engine::new(pool, Codecs::default(), Arc::new(SystemClock), None, Duration::ZERO);
    let (told, calls) = unbounded();
    let holder = Quiet::duty(Duration::ZERO, 0, len, told);
    (0..holders).for_each(|_| engine.holds(Arc::downgrade(&holder)));
    engine.retire_idle(if_quiet);
    calls.try_iter().inspect(|call| assert_eq!(*call, "retire")).count()
}

#[test]
fn no_more_idle_chunks_are_given_up_than_make_room_for_a_while() {
    assert_eq!(retired(10, RETIRE_ENOUGH / 4, false), 4);
    assert_eq!(retired(10, RETIRE_ENOUGH / 4 - 1, false), 5);
    assert_eq!(retired(3, RETIRE_ENOUGH / 4, false), 3);
    // Where they are only asked whether they are quiet nobody waits for the room.
    assert_eq!(retired(10, RETIRE_ENOUGH, true), 10);
    // And nobody who waits waits for all of very many to be asked.
    assert_eq!(retired(RETIRE_LOOKS + 6, 0, false), RETIRE_LOOKS);
    assert_eq!(retired(RETIRE_LOOKS + 6, 0, true), RETIRE_LOOKS);
}

#[test]
fn what_is_due_first_is_the_greatest() {
    let (told, _) = unbounded();
    let duty = Quiet::duty(Duration::ZERO, 0, 0, told);
    let (now, later) = (Deadline::after(Duration::ZERO), Deadline::after(Duration::from_secs(60)));
    let flush = |at, id| DueFlush { at, id, duty: Arc::downgrade(&duty) };
    assert!(flush(now, 2) > flush(later, 1), "the earlier one");
    assert!(flush(now, 1) > flush(now, 2), "of the same time the one that was asked for first");
    assert!(
        flush(now, 1) == flush(now, 1) && flush(now, 1) != flush(now, 2) && flush(now, 1) != flush(later, 1)
    );
    let look = |until| Lingering { until, ..Lingering::new(Arc::clone(&duty)) };
    assert!(look(now) > look(later) && look(later) > Lingering::new(Arc::clone(&duty)));
    assert!(look(now) == look(now) && look(now) != look(later));
}

/// By these counts the engine knows that the disk has room again, and that it must not look at any more partitions unasked.
#[test]
fn those_that_wait_are_counted_by_what_they_wait_for() {
    let (told, _) = unbounded();
    let duty = Quiet::duty(Duration::ZERO, 0, 0, told);
    let new = || Lingering::new(Arc::clone(&duty));
    let (now, later) = (Deadline::after(Duration::ZERO), Deadline::after(Duration::from_secs(60)));
    let mut waiting = Lingerers::default();
    waiting.push(Lingering { until: later, full: true, ..new() });
    waiting.push(Lingering { until: now, dozes: Some(later), ..new() });
    waiting.push(Lingering { until: now, ..new() });
    waiting.push(Lingering { until: now, full: true, ..new() });
    assert_eq!((waiting.full, waiting.dozers, waiting.first()), (2, 1, Some(now)));
    assert_eq!(std::iter::from_fn(|| waiting.take_due(false)).count(), 3);
    assert_eq!((waiting.full, waiting.dozers, waiting.first()), (1, 0, Some(later)));
    assert!(waiting.take_due(false).is_none() && waiting.take_due(true).is_some());
    assert_eq!((waiting.full, waiting.dozers, waiting.first()), (0, 0, None));
}

/// What only later callbacks could bring is not waited for in a callback, nor is the callback by a log that it ends.
#[test]
fn a_callback_does_not_wait_for_itself() {
    let pool = Pool::heap(16 << 20).unwrap();
    let engine = Engine::new(pool, Codecs::default(), Arc::new(SystemClock), None, Duration::ZERO);
    refuse_in_callback("a wait").unwrap();
    let (told, words) = unbounded();
    let inside = Arc::clone(&engine);
    let call = move |_| {
        let refused = refuse_in_callback("a wait").map_err(|e| e.kind());
        let _ = told.send((refused, inside.stop(Deadline::after(Duration::from_secs(10)))));
    };
    engine.call(Box::new(call), Ok(()));
    assert_eq!(words.recv().unwrap(), (Err(ErrorKind::IllegalState), true));
}

/// What its threads and those who wait look at when they come by.
#[test]
fn the_engine_notes_what_it_is_told() {
    let pool = Pool::heap(16 << 20).unwrap();
    let engine = Engine::new(pool, Codecs::default(), Arc::new(SystemClock), None, Duration::ZERO);
    engine.populate();
    assert!(engine.work.lock().populate);
    let (told, _) = unbounded();
    let duty = Quiet::duty(Duration::ZERO, 0, 0, told);
    let before = *engine.room.lock();
    engine.evictable(Arc::downgrade(&duty), 0);
    assert_eq!(*engine.room.lock(), before + 1, "who waits for room sees that there may be some");
    assert!(!engine.halted());
    engine.halt();
    assert!(engine.halted());
}
