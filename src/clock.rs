//! Time, and the only place that reads the system's.
//!
//! Two clocks, never mixed: [`Timestamp`]s come from an injectable [`Clock`] and end up in records;
//! deadlines are monotonic real time and bound how long a call waits.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// A moment: nanoseconds since the Unix epoch, negative before it.
///
/// A type of its own, so that Kafka's milliseconds cannot slip in as a moment in January 1970.
///
/// ```
/// use tapelog::Timestamp;
/// assert_eq!(Timestamp::from_millis(1_500).as_nanos(), 1_500_000_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest moment that can be told.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The latest moment that can be told (the year 2262).
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// A moment `nanos` nanoseconds after the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Timestamp(nanos)
    }

    /// A moment `micros` microseconds after the Unix epoch, saturating at [`Timestamp::MIN`] and [`Timestamp::MAX`].
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros.saturating_mul(1_000))
    }

    /// A moment `millis` milliseconds after the Unix epoch (Kafka's unit), saturating at the ends.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis.saturating_mul(1_000_000))
    }

    /// Now, by the system's clock. Inside a log, time comes from its [`Clock`].
    #[must_use]
    pub fn now() -> Self {
        SystemClock.now()
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded towards minus infinity.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This moment plus `duration`, saturating.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was; zero where it is later than this moment.
    pub(crate) fn saturating_since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(u64::try_from(i128::from(self.0) - i128::from(earlier.0)).unwrap_or(0))
    }

    /// This moment minus `duration`, saturating.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_sub(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000))
    }
}

/// Where a log takes its time from: timestamps of records, the age in
/// [`OffsetReset::By`](crate::OffsetReset::By), automatic commits, the silence that a group allows its members.
///
/// Implement it to test time without waiting; [`ManualClock`] is one that stands still until told.
pub trait Clock: Send + Sync + 'static {
    /// The moment that it is now.
    fn now(&self) -> Timestamp;

    /// The moment that it is now, or was some milliseconds ago where that is cheaper to say: what time-outs go by.
    fn roughly_now(&self) -> Timestamp {
        self.now()
    }

    /// Has `tell` called whenever the clock has been set, until it answers false.
    ///
    /// Who waits for a time-out sleeps in real time, and looks at the clock again when told. A clock that runs by
    /// itself has nothing to tell, which is what the default does.
    fn on_set(&self, tell: Box<dyn Fn() -> bool + Send + Sync>) {
        drop(tell);
    }
}

/// The system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let nanos = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
        };
        Timestamp(nanos)
    }

    fn roughly_now(&self) -> Timestamp {
        CoarseClock.now()
    }
}

/// The system's wall clock as of its last tick: some times cheaper to read than [`SystemClock`], and behind it by up to
/// the kernel's tick, which is 1 to 10 ms (usually 4).
///
/// For logs whose records get their time from the log and may share one with many others. Elsewhere than on Linux it
/// is the same as [`SystemClock`].
///
/// ```
/// use std::sync::Arc;
/// use tapelog::{Log, clock::CoarseClock};
///
/// let log = Log::builder().clock(Arc::new(CoarseClock)).in_memory()?;
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CoarseClock;

impl Clock for CoarseClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Timestamp(time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec))
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }
}

/// A clock that stands still until it is set or advanced, for tests.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use tapelog::{Clock, Log, Timestamp, clock::ManualClock};
///
/// let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
/// let log = Log::builder().clock(clock.clone()).in_memory()?;
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(clock.now(), Timestamp::from_millis(2_000));
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Default)]
pub struct ManualClock {
    now: AtomicI64,
    told: Mutex<Vec<Box<dyn Fn() -> bool + Send + Sync>>>,
}

impl ManualClock {
    /// A clock that says `now` until told otherwise.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        ManualClock { now: AtomicI64::new(now.as_nanos()), told: Mutex::default() }
    }

    /// Sets the clock, forwards or backwards.
    pub fn set(&self, now: Timestamp) {
        self.now.store(now.as_nanos(), Ordering::Release);
        self.told.lock().retain(|tell| tell());
    }

    /// Moves the clock forwards.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Acquire))
    }

    fn on_set(&self, tell: Box<dyn Fn() -> bool + Send + Sync>) {
        self.told.lock().push(tell);
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

/// The end of a wait, in monotonic real time. `Duration::MAX` (or any that overflows) means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Deadline {
    /// Never comes after every other time.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.is_none(), self.0).cmp(&(other.0.is_none(), other.0))
    }
}

impl Deadline {
    pub(crate) fn after(wait: Duration) -> Self {
        Deadline(Instant::now().checked_add(wait))
    }

    /// What is left; zero once passed, `None` for a deadline that never comes.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn passed(self) -> bool {
        self.is_within(Duration::ZERO)
    }

    /// Whether it passes within that time.
    pub(crate) fn is_within(self, time: Duration) -> bool {
        self.remaining().is_some_and(|left| left <= time)
    }
}

/// How long something takes, in monotonic real time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(Timestamp::from_millis(5));
        assert_eq!(clock.now(), clock.now());
        clock.advance(Duration::from_millis(2));
        assert_eq!(clock.now().as_millis(), 7);
        clock.set(Timestamp::MIN);
        assert_eq!(clock.now(), Timestamp::MIN);
    }

    #[test]
    fn the_coarse_clock_is_a_tick_behind_at_most() {
        let before = SystemClock.now();
        let coarse = CoarseClock.now();
        assert!(coarse <= SystemClock.now());
        assert!(coarse >= before.saturating_sub(Duration::from_millis(100)), "{before} {coarse}");
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX.saturating_add(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.saturating_sub(Duration::MAX), Timestamp::MIN);
        assert_eq!(Timestamp::from_nanos(-1).as_millis(), -1);
        assert_eq!(Timestamp::from_nanos(-1).to_string(), "-1.999999999s");
    }

    #[test]
    fn deadline_of_forever_never_passes() {
        assert!(!Deadline::after(Duration::MAX).passed());
        assert!(Deadline::after(Duration::ZERO).passed());
        assert!(Deadline::after(Duration::ZERO) < Deadline::after(Duration::MAX));
        assert!(Deadline::after(Duration::from_secs(1)) > Deadline::after(Duration::ZERO));
    }
}
