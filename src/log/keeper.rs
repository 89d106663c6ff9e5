//! The keeper: what has to happen at some time, whoever is looking.
//!
//! One thread for a log, started with the first job. It sleeps until the first job is due by the log's clock, for as
//! long as nothing is due, and is woken where a job is due earlier than it was or the clock was set.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, Deadline, Timestamp};
use crate::partition::watermarks::Signal;
use crate::storage::origin::Origin;
use crate::storage::threads;

/// The least that the keeper sleeps while something is to come: clocks that stand still must not make it spin.
const NAP: Duration = Duration::from_millis(1);

/// How long it sleeps after a round that panicked.
const REST: Duration = Duration::from_secs(1);

/// Something to do at some time.
pub(crate) trait Job: Send + Sync {
    /// When there is something to do; `None` while there is not.
    fn due(&self) -> Option<Timestamp>;

    /// Does it. What is due next must lie behind `now` then.
    fn run(&self, now: Timestamp);
}

/// Runs the jobs of a log.
pub(crate) struct Keeper {
    /// The process that has the thread.
    origin: Origin,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    jobs: Mutex<Vec<Weak<dyn Job>>>,
    bell: Arc<Signal>,
    stopped: AtomicBool,
}

impl Keeper {
    pub(crate) fn new(clock: Arc<dyn Clock>, origin: Origin) -> Self {
        let shared =
            Shared { clock, jobs: Mutex::default(), bell: Arc::default(), stopped: AtomicBool::new(false) };
        Keeper { origin, shared: Arc::new(shared), thread: Mutex::default() }
    }

    /// Has the job done whenever it is due, for as long as it lives; where that is so already, looks when it is due.
    ///
    /// Where no thread can be had, jobs wait for somebody else to look at what they keep.
    pub(crate) fn keep(&self, job: Weak<dyn Job>) {
        let mut jobs = self.shared.jobs.lock();
        if !jobs.iter().any(|kept| kept.ptr_eq(&job)) {
            jobs.push(job);
        }
        drop(jobs);
        let mut thread = self.thread.lock();
        if thread.is_none() && !self.shared.stopped.load(Ordering::Acquire) {
            let shared = Arc::clone(&self.shared);
            *thread = threads::spawn("tapelog-keeper", move || shared.run()).ok();
            let bell = Arc::downgrade(&self.shared.bell);
            let ring = move || {
                bell.upgrade().is_some_and(|bell| {
                    bell.ring();
                    true
                })
            };
            self.shared.clock.on_set(Box::new(ring));
        }
        drop(thread);
        self.shared.bell.ring();
    }

    /// Ends the thread, and waits for it unless that is where this runs: what a job lets go of may be the last
    /// that kept the log.
    pub(crate) fn stop(&self) {
        if self.origin.is_fork() {
            return;
        }
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.bell.ring();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.origin.is_fork() {
            // To let go of it would be to let go of whatever thread has its place here.
            std::mem::forget(self.thread.get_mut().take());
        }
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        while !self.stopped.load(Ordering::Acquire) {
            // The clock may be the user's, and so may be what a job lets go of: a panic ends the round, not the rest.
            let round = catch_unwind(AssertUnwindSafe(|| self.round())).unwrap_or(Some(REST));
            let until = round.map_or(Duration::MAX, |wait| wait.max(NAP));
            self.bell.wait(Deadline::after(until));
        }
    }

    /// Does what is due; tells how long it is to the next, by the clock.
    fn round(&self) -> Option<Duration> {
        let jobs: Vec<Arc<dyn Job>> = {
            let mut jobs = self.jobs.lock();
            jobs.retain(|job| job.strong_count() > 0);
            jobs.iter().filter_map(Weak::upgrade).collect()
        };
        let now = self.clock.now();
        let is_due = |job: &&Arc<dyn Job>| job.due().is_some_and(|due| due <= now);
        jobs.iter().filter(is_due).for_each(|job| job.run(now));
        let next = jobs.iter().filter_map(|job| job.due()).min()?;
        let left = next.as_nanos().saturating_sub(self.clock.now().as_nanos());
        Some(Duration::from_nanos(u64::try_from(left).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::clock::ManualClock;

    struct Every(Duration, Mutex<Timestamp>, Sender<Timestamp>);

    impl Job for Every {
        fn due(&self) -> Option<Timestamp> {
            Some(*self.1.lock())
        }

        fn run(&self, now: Timestamp) {
            *self.1.lock() = now.saturating_add(self.0);
            self.2.send(now).unwrap();
        }
    }

    #[test]
    fn jobs_are_done_when_the_clock_says_so_and_end_with_their_owner() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
        let keeper = Keeper::new(clock.clone(), Origin::here());
        let (told, done) = channel();
        let of = |millis: u64| {
            let every = Duration::from_millis(millis);
            Arc::new(Every(every, Mutex::new(clock.now().saturating_add(every)), told.clone()))
        };
        let (slow, fast) = (of(3_600_000), of(60_000));
        for job in [&slow, &fast, &fast] {
            let job: Arc<dyn Job> = Arc::clone(job) as _;
            keeper.keep(Arc::downgrade(&job));
        }
        assert_eq!(keeper.shared.jobs.lock().len(), 2, "each once");
        clock.advance(Duration::from_millis(59_999));
        clock.advance(Duration::from_millis(1));
        assert_eq!(done.recv().unwrap().as_millis(), 60_000);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(done.recv().unwrap().as_millis(), 3_660_000);
        assert_eq!(done.recv().unwrap().as_millis(), 3_660_000);
        drop((slow, fast));
        keeper.stop();
        clock.advance(Duration::from_secs(3600));
        assert!(done.try_recv().is_err());
    }

    #[test]
    fn no_job_no_thread_and_nothing_due_is_sleep() {
        let keeper = Keeper::new(Arc::new(ManualClock::default()), Origin::here());
        assert!(keeper.thread.lock().is_none());
        assert_eq!(keeper.shared.round(), None);
    }
}
