//! Bytes per second as back-pressure: a bucket that time fills and sends empty.
//!
//! Who finds too little in it stands in line. The first of the line sleeps until there will be enough, the others until
//! they are the first; a clock that was set tells the first one to look again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, Deadline, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::partition::core::Wait;
use crate::partition::watermarks::Signal;

const NANOS: i128 = 1_000_000_000;

/// How much may be sent in a second.
pub(super) struct Quota {
    clock: Arc<dyn Clock>,
    line: Arc<Line>,
    /// How often the bucket was filled up to what the clock said; goes up under the lock.
    fills: AtomicU64,
}

/// What the clock said, and how often the bucket had been filled before it was asked.
struct Look {
    fills: u64,
    now: Timestamp,
}

/// The bucket, and who waits for it.
struct Line(Mutex<State>);

struct State {
    bucket: Bucket,
    /// In the order in which they came.
    waiting: VecDeque<Arc<Signal>>,
}

impl Line {
    /// Has the first one look again.
    fn ring_first(&self) {
        if let Some(first) = self.0.lock().waiting.front() {
            first.ring();
        }
    }
}

/// A place in the line; given up when dropped, however the wait ended.
struct Place<'a> {
    line: &'a Line,
    signal: Arc<Signal>,
}

impl Place<'_> {
    fn is_first(&self, state: &State) -> bool {
        state.waiting.front().is_some_and(|first| Arc::ptr_eq(first, &self.signal))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.0.lock().waiting.retain(|signal| !Arc::ptr_eq(signal, &self.signal));
        self.line.ring_first();
    }
}

struct Bucket {
    /// Bytes in a second; as many fit into the bucket.
    rate: u64,
    /// What is in it, in bytes times nanoseconds so that nothing is lost to rounding. Below zero after a send of more
    /// than fits.
    level: i128,
    /// When it was filled last.
    at: Timestamp,
}

impl Bucket {
    fn full(&self) -> i128 {
        i128::from(self.rate) * NANOS
    }

    fn fill(&mut self, now: Timestamp) {
        // A clock that goes back fills nothing, and is followed.
        let passed = i128::from(now.as_nanos()) - i128::from(self.at.as_nanos());
        self.at = now;
        let more = passed.clamp(0, i128::from(u64::MAX)) * i128::from(self.rate);
        self.level = (self.level + more).min(self.full());
    }

    /// Takes `bytes` out; where there are too few, how long it takes until there are enough.
    fn take(&mut self, bytes: u64, now: Timestamp) -> Option<Duration> {
        self.fill(now);
        let wanted = i128::from(bytes) * NANOS;
        let short = wanted.min(self.full()) - self.level;
        if short <= 0 {
            self.level -= wanted;
            return None;
        }
        let rate = i128::from(self.rate);
        Some(Duration::from_nanos(u64::try_from((short + rate - 1) / rate).unwrap_or(u64::MAX)))
    }
}

impl Quota {
    pub(super) fn new(clock: Arc<dyn Clock>, rate: u64) -> Result<Self> {
        if rate == 0 {
            return Err(Error::new(ErrorKind::InvalidConfig, "a quota of no bytes lets nothing through"));
        }
        let mut bucket = Bucket { rate, level: 0, at: clock.now() };
        bucket.level = bucket.full();
        let line = Arc::new(Line(Mutex::new(State { bucket, waiting: VecDeque::new() })));
        let told = Arc::downgrade(&line);
        clock.on_set(Box::new(move || {
            told.upgrade().is_some_and(|line| {
                line.ring_first();
                true
            })
        }));
        Ok(Quota { clock, line, fills: AtomicU64::new(0) })
    }

    /// Takes `bytes` of the quota, first come, first served, waiting for them as `wait` says. `go_on` refuses where there
    /// is nothing more to wait for; once that changes it has the signal rung.
    pub(super) fn acquire(
        &self,
        bytes: u64,
        wait: Wait,
        go_on: impl Fn(&Arc<Signal>) -> Result<()>,
    ) -> Result<()> {
        let Some(short) = self.take(bytes, None) else { return Ok(()) };
        let deadline = match wait {
            Wait::No => return Err(throttled(short)),
            Wait::For(time) => Deadline::after(time),
        };
        let place = Place { line: &self.line, signal: Arc::default() };
        self.line.0.lock().waiting.push_back(Arc::clone(&place.signal));
        loop {
            let Some(short) = self.take(bytes, Some(&place)) else { return Ok(()) };
            go_on(&place.signal)?;
            if deadline.passed() {
                return Err(throttled(short));
            }
            // Who is not the first is rung once he is.
            place.signal.wait(short.map_or(deadline, |short| deadline.min(Deadline::after(short))));
        }
    }

    /// Takes `bytes` if nobody came earlier and there are enough. Else the time until then, where it can be told.
    fn take(&self, bytes: u64, place: Option<&Place<'_>>) -> Option<Option<Duration>> {
        let look = self.look();
        self.take_at(&look, bytes, place)
    }

    /// The clock is the user's: it is asked before the lock.
    fn look(&self) -> Look {
        let fills = self.fills.load(Ordering::Acquire);
        Look { fills, now: self.clock.now() }
    }

    fn take_at(&self, look: &Look, bytes: u64, place: Option<&Place<'_>>) -> Option<Option<Duration>> {
        let mut state = self.line.0.lock();
        if !place.map_or(state.waiting.is_empty(), |place| place.is_first(&state)) {
            return Some(None);
        }
        // Who asked the clock before somebody else filled the bucket has an older time, and not a clock that was set back.
        let others = self.fills.fetch_add(1, Ordering::AcqRel) != look.fills;
        let now = if others { look.now.max(state.bucket.at) } else { look.now };
        state.bucket.take(bytes, now).map(Some)
    }

    /// Puts back what was taken for a send that failed.
    pub(super) fn give_back(&self, bytes: u64) {
        {
            let bucket = &mut self.line.0.lock().bucket;
            bucket.level = (bucket.level + i128::from(bytes) * NANOS).min(bucket.full());
        }
        self.line.ring_first();
    }
}

fn throttled(short: Option<Duration>) -> Error {
    let message = match short {
        Some(short) => format!("the producer's quota of bytes per second lets it through in {short:?}"),
        None => "others wait for the producer's quota of bytes per second already".to_owned(),
    };
    Error::new(ErrorKind::ThrottlingQuotaExceeded, message)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::clock::ManualClock;

    fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn a_bucket_holds_one_second_and_fills_with_time() {
        let mut bucket = Bucket { rate: 1000, level: 0, at: at(0) };
        assert_eq!(bucket.take(100, at(0)), Some(Duration::from_millis(100)));
        assert_eq!(bucket.take(100, at(99_999_999)), Some(Duration::from_nanos(1)));
        assert_eq!(bucket.take(100, at(100_000_000)), None);
        // A long rest is one second's worth, no more.
        assert_eq!(bucket.take(600, at(3_600_000_000_000)), None);
        assert_eq!(bucket.take(600, at(3_600_000_000_000)), Some(Duration::from_millis(200)));
        assert_eq!(bucket.take(400, at(3_600_000_000_000)), None);
        // The clock was set back: nothing comes of it, and time goes on from there.
        assert_eq!(bucket.take(1, at(5)), Some(Duration::from_millis(1)));
        assert_eq!(bucket.take(1, at(1_000_005)), None);
    }

    #[test]
    fn what_is_larger_than_the_bucket_waits_for_a_full_one_and_is_paid_off() {
        let mut bucket = Bucket { rate: 10, level: 10 * NANOS, at: at(0) };
        assert_eq!(bucket.take(35, at(0)), None);
        assert_eq!(bucket.take(1, at(0)), Some(Duration::from_millis(2600)));
        let mut slowest = Bucket { rate: 1, level: -(i128::from(u64::MAX) * NANOS), at: Timestamp::MIN };
        assert_eq!(slowest.take(u64::MAX, Timestamp::MIN), Some(Duration::from_nanos(u64::MAX)));
        assert!(slowest.take(u64::MAX, Timestamp::MAX).is_some());
    }

    fn quota(rate: u64) -> (Quota, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(at(0)));
        let quota = Quota::new(Arc::clone(&clock) as _, rate).unwrap();
        assert!(quota.acquire(rate, Wait::No, |_| Ok(())).is_ok());
        (quota, clock)
    }

    const EVER: Wait = Wait::For(Duration::MAX);

    /// Until so many stand in line.
    fn waiting(quota: &Quota, count: usize) {
        while quota.line.0.lock().waiting.len() != count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn first_come_first_served() {
        let (quota, clock) = quota(100);
        std::thread::scope(|scope| {
            let mut line = VecDeque::new();
            // The one in front wants much, the others could have theirs long before him.
            for (nth, bytes) in [90, 10, 5].into_iter().enumerate() {
                let quota = &quota;
                line.push_back(scope.spawn(move || quota.acquire(bytes, EVER, |_| Ok(())).unwrap()));
                waiting(quota, nth + 1);
            }
            clock.advance(Duration::from_millis(899));
            waiting(&quota, 3);
            let error = quota.acquire(1, Wait::No, |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ThrottlingQuotaExceeded, "nobody is overtaken");
            clock.advance(Duration::from_millis(1));
            line.pop_front().unwrap().join().unwrap();
            waiting(&quota, 2);
            clock.advance(Duration::from_millis(99));
            waiting(&quota, 2);
            clock.advance(Duration::from_millis(1));
            line.pop_front().unwrap().join().unwrap();
            waiting(&quota, 1);
            // What a failed send puts back is for the next one.
            quota.give_back(5);
            line.pop_front().unwrap().join().unwrap();
        });
        waiting(&quota, 0);
    }

    /// Who was kept between the clock and the lock set the bucket back, and the time since then filled it twice.
    #[test]
    fn an_older_time_is_no_clock_that_was_set_back() {
        let (quota, clock) = quota(100);
        let older = quota.look();
        clock.advance(Duration::from_millis(500));
        assert!(quota.acquire(50, Wait::No, |_| Ok(())).is_ok());
        assert!(quota.take_at(&older, 1, None).is_some());
        assert!(quota.acquire(1, Wait::No, |_| Ok(())).is_err(), "filled twice");
        // One that was set back is followed.
        clock.set(at(0));
        assert!(quota.acquire(1, Wait::No, |_| Ok(())).is_err());
        clock.advance(Duration::from_millis(10));
        assert!(quota.acquire(1, Wait::No, |_| Ok(())).is_ok());
    }

    #[test]
    fn who_gives_up_makes_way() {
        let (quota, clock) = quota(100);
        let (open, told) = (AtomicBool::new(true), Mutex::new(None));
        let (quota, open, told) = (&quota, &open, &told);
        std::thread::scope(|scope| {
            let first = scope.spawn(move || {
                quota.acquire(100, EVER, |signal| {
                    *told.lock() = Some(Arc::clone(signal));
                    let closed = || Error::new(ErrorKind::Closed, "the log was closed");
                    if open.load(Ordering::SeqCst) { Ok(()) } else { Err(closed()) }
                })
            });
            waiting(quota, 1);
            let second = scope.spawn(move || quota.acquire(1, EVER, |_| Ok(())));
            waiting(quota, 2);
            // Whose time is over is gone too, and the others stay.
            let error = quota.acquire(1, Wait::For(Duration::from_millis(1)), |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ThrottlingQuotaExceeded);
            waiting(quota, 2);
            clock.advance(Duration::from_millis(10));
            open.store(false, Ordering::SeqCst);
            let signal = loop {
                if let Some(signal) = told.lock().clone() {
                    break signal;
                }
                std::thread::yield_now();
            };
            signal.ring();
            assert_eq!(first.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
            second.join().unwrap().unwrap();
        });
    }
}
