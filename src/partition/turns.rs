//! Group commit: who flushes, and who waits for that flush.
//!
//! One caller at a time leads; the others sleep until it is done, all of them are woken at once, and of those whom
//! it did not cover one leads next. Who is released together asks again together: a leader gives those who were there
//! last time a moment to come back, as one flush for all is worth more than one at once for itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;

/// How long a leader waits for one more to come, and for all of them together.
const PATIENCE: Duration = Duration::from_micros(30);
const GATHER: Duration = Duration::from_micros(500);

/// The turns of flushing one partition.
///
/// The standard library's lock, as its broadcast is a single system call: a chain, in which each sleeper is woken
/// by the one before it, takes as long as dozens of threads take to be scheduled one after another.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    over: Condvar,
    /// Who sleeps; changed under the lock, read by a leader without it.
    asleep: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    led: bool,
    /// How many were there when the last turn ended, its leader included.
    expected: usize,
    /// How long that turn took.
    took: Duration,
}

/// The turn of the one who leads; over when dropped, however it goes.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    begun: Stopwatch,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `covered`, then `None`, or until nobody else leads: then it is the caller who does.
    ///
    /// Whatever makes `covered` true must do so before the end of a turn.
    pub(super) fn take(&self, covered: impl Fn() -> bool) -> Option<Turn<'_>> {
        let mut state = self.lock();
        while state.led {
            self.asleep.fetch_add(1, Ordering::Relaxed);
            state = self.over.wait(state).unwrap_or_else(PoisonError::into_inner);
            self.asleep.fetch_sub(1, Ordering::Relaxed);
            if covered() {
                return None;
            }
        }
        if covered() {
            return None;
        }
        state.led = true;
        let (expected, took) = (state.expected, state.took);
        drop(state);
        let mut turn = Turn { turns: self, begun: Stopwatch::start() };
        turn.gather(expected, took);
        Some(turn)
    }
}

impl Turn<'_> {
    /// Gives who was there last time a moment to come back: never longer than a flush takes.
    fn gather(&mut self, expected: usize, took: Duration) {
        let (mut seen, mut last) = (0, Duration::ZERO);
        loop {
            let asleep = self.turns.asleep.load(Ordering::Relaxed);
            if asleep + 1 >= expected {
                break;
            }
            let now = self.begun.elapsed();
            if asleep != seen {
                (seen, last) = (asleep, now);
            }
            if now - last >= PATIENCE || now >= took.min(GATHER) {
                break;
            }
            std::thread::yield_now();
        }
        self.begun = Stopwatch::start();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.led = false;
        let asleep = self.turns.asleep.load(Ordering::Relaxed);
        state.expected = asleep + 1;
        state.took = self.begun.elapsed();
        drop(state);
        if asleep > 0 {
            self.turns.over.notify_all();
        }
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
                        let covered = || done.load(Ordering::SeqCst) >= mine;
                        while !covered() {
                            let Some(turn) = turns.take(covered) else { break };
                            assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0, "one leads at a time");
                            let before = asked.load(Ordering::SeqCst);
                            std::thread::yield_now();
                            led.fetch_add(1, Ordering::SeqCst);
                            leaders.fetch_sub(1, Ordering::SeqCst);
                            // Now and then a turn covers nobody, as where the disk is full.
                            if n % 7 != 0 || led.load(Ordering::SeqCst) % 2 == 0 {
                                done.fetch_max(before, Ordering::SeqCst);
                            }
                            drop(turn);
                        }
                        assert!(covered());
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), THREADS * WAITS);
        assert_eq!(turns.asleep.load(Ordering::SeqCst), 0);
        assert!(!turns.lock().led);
    }

    #[test]
    fn a_leader_that_panics_lets_go() {
        let turns = Turns::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = turns.take(|| false);
            panic!("as a codec may");
        }));
        assert!(panicked.is_err() && turns.take(|| false).is_some());
    }

    /// Those who do not come back are not waited for long, nor again.
    #[test]
    fn a_leader_waits_for_nobody_who_stays_away() {
        let turns = Turns::default();
        *turns.lock() = State { led: false, expected: 1_000, took: Duration::from_secs(60) };
        let begun = Stopwatch::start();
        drop(turns.take(|| false));
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(turns.lock().expected, 1);
    }
}
