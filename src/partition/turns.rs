//! Group commit: who flushes, and who waits for that flush.
//!
//! One caller at a time leads; the others sleep. At the end of a turn those whom it covered are woken, and of the
//! others one, who leads next: nobody is woken for nothing, and who was covered goes his way without a lock. Who is
//! released together asks again together: a leader gives those who were there last time a moment to come back, as
//! one flush for all is worth more than one at once for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Stopwatch;

/// How long a leader waits for one more to come, and for all of them together.
const PATIENCE: Duration = Duration::from_micros(30);
const GATHER: Duration = Duration::from_micros(500);

/// The turns of flushing one partition.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    /// How many wait; changed under the lock, read by a leader without it.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    led: bool,
    waiters: Vec<Waiter>,
    /// How many were there when the last turn ended, its leader included.
    expected: usize,
    /// How long that turn took.
    took: Duration,
}

/// Somebody who sleeps until everything below `target` is durable, or until it is for him to see to that.
#[derive(Debug)]
struct Waiter {
    target: u64,
    thread: Thread,
    told: Arc<AtomicU8>,
}

/// What a waiter is told, once.
const COVERED: u8 = 1;
const LEAD: u8 = 2;

/// The turn of the one who leads; over when dropped, however it goes.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    begun: Stopwatch,
    /// Everything below is durable now.
    reached: u64,
}

impl Turns {
    /// Waits until everything below `target` is durable, then `None`, or until nobody else leads: then it is the
    /// caller who does. `durable` is how far that is; it rises before the end of a turn.
    pub(super) fn take(&self, target: u64, durable: impl Fn() -> u64) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        if durable() >= target {
            return None;
        }
        if state.led {
            let told = Arc::new(AtomicU8::new(0));
            let waiter = Waiter { target, thread: std::thread::current(), told: Arc::clone(&told) };
            state.waiters.push(waiter);
            self.waiting.store(state.waiters.len(), Ordering::Relaxed);
            drop(state);
            loop {
                match told.load(Ordering::Acquire) {
                    COVERED => return None,
                    LEAD => break,
                    _ => std::thread::park(),
                }
            }
            state = self.state.lock();
        }
        state.led = true;
        let (expected, took) = (state.expected, state.took);
        drop(state);
        let mut turn = Turn { turns: self, begun: Stopwatch::start(), reached: 0 };
        turn.gather(expected, took);
        Some(turn)
    }
}

impl Waiter {
    fn tell(self, what: u8) {
        self.told.store(what, Ordering::Release);
        self.thread.unpark();
    }
}

impl Turn<'_> {
    /// Gives who was there last time a moment to come back: never longer than a flush takes.
    fn gather(&mut self, expected: usize, took: Duration) {
        let (mut seen, mut last) = (0, Duration::ZERO);
        loop {
            let waiting = self.turns.waiting.load(Ordering::Relaxed);
            if waiting + 1 >= expected {
                break;
            }
            let now = self.begun.elapsed();
            if waiting != seen {
                (seen, last) = (waiting, now);
            }
            if now - last >= PATIENCE || now >= took.min(GATHER) {
                break;
            }
            std::thread::yield_now();
        }
        self.begun = Stopwatch::start();
    }

    /// Says that everything below `durable` is so.
    pub(super) fn reached(&mut self, durable: u64) {
        self.reached = durable;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        state.expected = state.waiters.len() + 1;
        state.took = self.begun.elapsed();
        let covered: Vec<Waiter> = state.waiters.extract_if(.., |w| w.target <= self.reached).collect();
        let heir = (!state.waiters.is_empty()).then(|| state.waiters.remove(0));
        state.led = heir.is_some();
        self.turns.waiting.store(state.waiters.len(), Ordering::Relaxed);
        drop(state);
        if let Some(heir) = heir {
            heir.tell(LEAD);
        }
        covered.into_iter().for_each(|waiter| waiter.tell(COVERED));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Each turn covers what was asked for before it began, and nothing else: nobody is left asleep, one leads at a
    /// time, and no more turns are taken than there are waits.
    #[test]
    fn everyone_is_covered_by_a_turn_or_leads_one() {
        const THREADS: u64 = 16;
        const WAITS: u64 = 300;
        let turns = Turns::default();
        let (asked, done, leaders, led) =
            (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for n in 0..WAITS {
                        let mine = asked.fetch_add(1, Ordering::SeqCst) + 1;
                        let reached = || done.load(Ordering::SeqCst);
                        while reached() < mine {
                            let Some(mut turn) = turns.take(mine, reached) else {
                                assert!(reached() >= mine, "told so, and it was not");
                                break;
                            };
                            assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0, "one leads at a time");
                            let before = asked.load(Ordering::SeqCst);
                            std::thread::yield_now();
                            led.fetch_add(1, Ordering::SeqCst);
                            leaders.fetch_sub(1, Ordering::SeqCst);
                            // Now and then a turn covers nobody, as where the disk is full.
                            if n % 7 != 0 || led.load(Ordering::SeqCst) % 2 == 0 {
                                done.fetch_max(before, Ordering::SeqCst);
                                turn.reached(before);
                            }
                            drop(turn);
                        }
                        assert!(reached() >= mine);
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), THREADS * WAITS);
        assert_eq!(turns.waiting.load(Ordering::SeqCst), 0);
        let state = turns.state.lock();
        assert!(!state.led && state.waiters.is_empty());
    }

    #[test]
    fn a_leader_that_panics_lets_go() {
        let turns = Turns::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = turns.take(1, || 0);
            panic!("as a codec may");
        }));
        assert!(panicked.is_err() && turns.take(1, || 0).is_some());
    }

    /// Those who do not come back are not waited for long, nor again.
    #[test]
    fn a_leader_waits_for_nobody_who_stays_away() {
        let turns = Turns::default();
        {
            let mut state = turns.state.lock();
            (state.expected, state.took) = (1_000, Duration::from_secs(60));
        }
        let begun = Stopwatch::start();
        drop(turns.take(1, || 0));
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(turns.state.lock().expected, 1);
    }
}
