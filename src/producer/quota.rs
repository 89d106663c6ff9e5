//! Bytes per second as back-pressure: a bucket that time fills and sends empty.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, Deadline, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::partition::core::Wait;

/// A clock that is set by hand moves without telling: who waits for it looks as often as this.
const LOOK: Duration = Duration::from_millis(10);
const NANOS: i128 = 1_000_000_000;

/// How much may be sent in a second.
pub(super) struct Quota {
    clock: Arc<dyn Clock>,
    bucket: Mutex<Bucket>,
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
        Ok(Quota { clock, bucket: Mutex::new(bucket) })
    }

    /// Takes `bytes` of the quota, waiting for them as long as `wait` and `go_on` say.
    pub(super) fn acquire(&self, bytes: u64, wait: Wait, go_on: impl Fn() -> Result<()>) -> Result<()> {
        let mut deadline = None;
        loop {
            // The clock is the user's: it is asked before the lock.
            let now = self.clock.now();
            let Some(short) = self.bucket.lock().take(bytes, now) else { return Ok(()) };
            go_on()?;
            let deadline = *deadline.get_or_insert_with(|| match wait {
                Wait::No => Deadline::after(Duration::ZERO),
                Wait::For(time) => Deadline::after(time),
            });
            let left = deadline.remaining().unwrap_or(Duration::MAX);
            if left.is_zero() {
                let message =
                    format!("the producer's quota of bytes per second lets it through in {short:?}");
                return Err(Error::new(ErrorKind::ThrottlingQuotaExceeded, message));
            }
            std::thread::sleep(short.min(left).min(LOOK));
        }
    }

    /// Puts back what was taken for a send that failed.
    pub(super) fn give_back(&self, bytes: u64) {
        let mut bucket = self.bucket.lock();
        bucket.level = (bucket.level + i128::from(bytes) * NANOS).min(bucket.full());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
