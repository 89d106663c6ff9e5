//! Group commit: who flushes, and who waits for that flush.
//!
//! One caller at a time leads; the others sleep, each until a certain turn is over. Who sleeps for the turn that
//! flushes now is woken at its end with all others of that turn by one system call; who came too late for it sleeps
//! for the next one, and by another bell. Two bells are enough, as no turn begins before the one before is over.
//!
//! Who is released together asks again together, so a leader lets go only when it has woken everyone: they are back
//! by then. The place is then for whoever comes first. That is often the leader itself, who need not be woken; one of
//! the sleepers is woken all the same, as a leader need not come back. Where few come, the next leader gives those
//! who were there last time a moment: one flush for all is worth more than one at once for itself.

use std::sync::atomic::{AtomicUsize, Ordering};
// The condition variable of the standard library, as it wakes all by one call; the other one wakes them in a row.
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;

/// How long a leader waits for one more to come, and for all of them together.
const PATIENCE: Duration = Duration::from_micros(30);
const GATHER: Duration = Duration::from_micros(500);

/// The turns of flushing one partition.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    /// For those who sleep for a turn of an even and of an odd number.
    bells: [Condvar; 2],
    /// How many sleep for the next turn; changed under the lock, read by a leader without it.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    led: bool,
    /// How many turns are past the point where one can still join them, and how far the last of these will reach.
    closed: u64,
    reaches: u64,
    /// How many of them are over.
    over: u64,
    /// How many sleep for the one that is closed.
    joined: usize,
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
    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bell(&self, turn: u64) -> &Condvar {
        &self.bells[usize::from(turn % 2 == 1)]
    }

    /// Waits until everything below `target` is durable, then `None`, or until nobody else leads: then it is the
    /// caller who does. `durable` is how far that is; it rises before the end of a turn.
    pub(super) fn take(&self, target: u64, durable: impl Fn() -> u64) -> Option<Turn<'_>> {
        let mut state = self.hold();
        loop {
            if durable() >= target {
                return None;
            }
            if !state.led {
                break;
            }
            state = self.sleep(state, target);
        }
        state.led = true;
        let (expected, took) = (state.expected, state.took);
        drop(state);
        let mut turn = Turn { turns: self, begun: Stopwatch::start() };
        turn.gather(expected, took);
        Some(turn)
    }

    /// Sleeps until the turn is over that covers `target`, or until nobody leads.
    fn sleep<'a>(&'a self, mut state: MutexGuard<'a, State>, target: u64) -> MutexGuard<'a, State> {
        let in_time = state.over < state.closed && target <= state.reaches;
        let turn = if in_time { state.closed } else { state.closed + 1 };
        if in_time {
            state.joined += 1;
        } else {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
        while state.led && state.over < turn {
            state = self.bell(turn).wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed < turn {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        state
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

    /// Says that this turn makes everything below `target` durable, unless it fails: whoever wants more is for the
    /// next. Said once at most.
    pub(super) fn reaches(&mut self, target: u64) {
        let mut state = self.turns.hold();
        state.closed += 1;
        state.reaches = target;
        state.joined = self.turns.waiting.swap(0, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let turns = self.turns;
        let mut state = turns.hold();
        let over = state.closed;
        if state.over < over {
            state.over = over;
            drop(state);
            turns.bell(over).notify_all();
            state = turns.hold();
        }
        let waiting = turns.waiting.load(Ordering::Relaxed);
        state.expected = std::mem::take(&mut state.joined).max(waiting) + 1;
        state.took = self.begun.elapsed();
        state.led = false;
        let next = state.closed + 1;
        drop(state);
        // Whoever sleeps for the next turn wants more than is durable, so the one who wakes leads it, unless somebody
        // came before him: then that one's turn is his, and wakes him or another.
        if waiting > 0 {
            turns.bell(next).notify_one();
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
                        let reached = || done.load(Ordering::SeqCst);
                        while reached() < mine {
                            let Some(mut turn) = turns.take(mine, reached) else {
                                assert!(reached() >= mine, "told so, and it was not");
                                break;
                            };
                            assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0, "one leads at a time");
                            let before = asked.load(Ordering::SeqCst);
                            std::thread::yield_now();
                            let turns_led = led.fetch_add(1, Ordering::SeqCst);
                            // Now and then a turn covers nobody: the disk is full, or fails in a flush.
                            let (writes, flushes) = (turns_led % 5 != 0 || n % 2 == 0, turns_led % 7 != 0);
                            if writes {
                                turn.reaches(before);
                                std::thread::yield_now();
                            }
                            if writes && flushes {
                                done.fetch_max(before, Ordering::SeqCst);
                            }
                            leaders.fetch_sub(1, Ordering::SeqCst);
                            drop(turn);
                        }
                        assert!(reached() >= mine);
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), THREADS * WAITS);
        assert_eq!(turns.waiting.load(Ordering::SeqCst), 0);
        assert!(!turns.hold().led);
    }

    /// Whoever comes while a flush runs is released with it where it covers him, and leads the next where it does
    /// not, or where it failed.
    #[test]
    fn who_comes_during_a_flush_joins_it_or_leads_the_next() {
        for kept in [true, false] {
            let (turns, done) = (Turns::default(), AtomicU64::new(0));
            let durable = || done.load(Ordering::SeqCst);
            let mut turn = turns.take(1, durable).unwrap();
            turn.reaches(5);
            std::thread::scope(|scope| {
                let covered = scope.spawn(|| turns.take(5, durable).is_none());
                let late = scope.spawn(|| turns.take(6, durable).is_none());
                while turns.hold().joined < 1 || turns.waiting.load(Ordering::SeqCst) < 1 {
                    std::thread::yield_now();
                }
                done.store(if kept { 5 } else { 0 }, Ordering::SeqCst);
                drop(turn);
                assert_eq!(covered.join().unwrap(), kept);
                assert!(!late.join().unwrap());
            });
        }
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
            let mut state = turns.hold();
            (state.expected, state.took) = (1_000, Duration::from_secs(60));
        }
        let begun = Stopwatch::start();
        drop(turns.take(1, || 0));
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(turns.hold().expected, 1);
    }
}
