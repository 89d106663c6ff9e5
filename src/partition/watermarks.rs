//! How far a partition has come, and how to wait for it.
//!
//! ```text
//! start offset ≤ high watermark ≤ published (end offset)        durable ≤ written ≤ published
//! ```
//!
//! `published` is on the append path and is a bare counter (see `storage::publish`); who waits for records
//! registers a [`Signal`] under the append lock. `written` and `durable` move once per block or flush, off
//! that path, and are [`Watermark`]s: counters that threads and callbacks can wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};

/// A bell for one waiting thread: stays rung until the thread has heard it.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Signal {
    pub(crate) fn ring(&self) {
        let mut rung = self.rung.lock();
        if !*rung {
            *rung = true;
            self.bell.notify_one();
        }
    }

    /// Waits until the bell has rung (and silences it), or the deadline passed; tells which.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        let mut rung = self.rung.lock();
        while !*rung {
            match deadline.remaining() {
                Some(left) if left.is_zero() => return false,
                Some(left) => drop(self.bell.wait_for(&mut rung, left)),
                None => self.bell.wait(&mut rung),
            }
        }
        *rung = false;
        true
    }
}

/// Told once, when a watermark reaches a target or never will.
pub(crate) type OnReached = Box<dyn FnOnce(Result<()>) + Send>;

/// A counter that only rises, and can be waited for.
#[derive(Default)]
pub(crate) struct Watermark {
    value: AtomicU64,
    waiting: Mutex<Waiting>,
    moved: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// In the order of their targets, and those of one target in the order in which they came.
    callbacks: Vec<(u64, OnReached)>,
    /// Who wants to know of any move.
    bells: Vec<Arc<Signal>>,
    failed: Option<Error>,
}

impl Watermark {
    pub(crate) fn new(value: u64) -> Self {
        Watermark { value: AtomicU64::new(value), ..Watermark::default() }
    }

    pub(crate) fn get(&self) -> u64 {
        self.value.load(Ordering::Acquire)
    }

    /// Raises the mark and wakes whom it satisfies. Callbacks that are due are handed to `call` in the order in
    /// their targets; it is called under a lock and only passes them on.
    pub(crate) fn advance(&self, to: u64, mut call: impl FnMut(OnReached, Result<()>)) {
        let mut waiting = self.waiting.lock();
        self.value.fetch_max(to, Ordering::AcqRel);
        self.moved.notify_all();
        waiting.bells.drain(..).for_each(|bell| bell.ring());
        for (_, due) in waiting.callbacks.extract_if(.., |(target, _)| *target <= to) {
            call(due, Ok(()));
        }
    }

    /// Tells everyone who waits, now or later, that the mark will not move again.
    pub(crate) fn fail(&self, error: &Error, mut call: impl FnMut(OnReached, Result<()>)) {
        let mut waiting = self.waiting.lock();
        waiting.failed.get_or_insert_with(|| error.clone());
        self.moved.notify_all();
        waiting.bells.drain(..).for_each(|bell| bell.ring());
        for (_, due) in waiting.callbacks.drain(..) {
            call(due, Err(error.clone()));
        }
    }

    /// The error after which the mark stands still, if there was one.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.waiting.lock().failed.clone()
    }

    /// Waits until the mark has reached `target`.
    ///
    /// Fails with `TimedOut` once the deadline passed, or with what stopped the mark.
    pub(crate) fn wait(&self, target: u64, deadline: Deadline) -> Result<()> {
        if self.get() >= target {
            return Ok(());
        }
        let mut waiting = self.waiting.lock();
        loop {
            if self.get() >= target {
                return Ok(());
            }
            if let Some(error) = &waiting.failed {
                return Err(error.clone());
            }
            match deadline.remaining() {
                Some(left) if left.is_zero() => {
                    return Err(Error::new(ErrorKind::TimedOut, "the promise was not kept in time"));
                }
                Some(left) => drop(self.moved.wait_for(&mut waiting, left)),
                None => self.moved.wait(&mut waiting),
            }
        }
    }

    /// Has `signal` rung when the mark moves; true where it is past `position` already. Fails where it will
    /// not move again.
    pub(crate) fn ring_past(&self, position: u64, signal: &Arc<Signal>) -> Result<bool> {
        let mut waiting = self.waiting.lock();
        if self.get() > position {
            return Ok(true);
        }
        if let Some(error) = &waiting.failed {
            return Err(error.clone());
        }
        register(&mut waiting.bells, signal);
        Ok(false)
    }

    /// Hands `then` to `call` once the mark has reached `target`: now, where that is settled already.
    pub(crate) fn when(&self, target: u64, then: OnReached, mut call: impl FnMut(OnReached, Result<()>)) {
        let mut waiting = self.waiting.lock();
        if self.get() >= target {
            call(then, Ok(()));
        } else if let Some(error) = &waiting.failed {
            call(then, Err(error.clone()));
        } else {
            // Threads that append at once come here in any order.
            let at = waiting.callbacks.partition_point(|(other, _)| *other <= target);
            waiting.callbacks.insert(at, (target, then));
        }
    }
}

/// Adds a signal to a list once, whoever else is there; forgets those that nobody listens to any more.
pub(crate) fn register(waiters: &mut Vec<Arc<Signal>>, signal: &Arc<Signal>) {
    waiters.retain(|w| Arc::strong_count(w) > 1);
    if !waiters.iter().any(|w| Arc::ptr_eq(w, signal)) {
        waiters.push(Arc::clone(signal));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bell_rung_before_the_wait_is_heard() {
        let signal = Signal::default();
        signal.ring();
        assert!(signal.wait(Deadline::after(Duration::ZERO)));
        assert!(!signal.wait(Deadline::after(Duration::ZERO)));
    }

    #[test]
    fn waiters_are_told_of_success_and_of_failure() {
        let mark = Arc::new(Watermark::new(3));
        mark.wait(3, Deadline::after(Duration::ZERO)).unwrap();
        let waiter = {
            let mark = Arc::clone(&mark);
            std::thread::spawn(move || mark.wait(5, Deadline::after(Duration::MAX)))
        };
        mark.advance(5, |_, _| panic!("nobody asked to be called"));
        waiter.join().unwrap().unwrap();

        let mut told = Vec::new();
        mark.when(7, Box::new(|r| assert!(r.is_ok())), |_, _| panic!("not yet"));
        mark.when(9, Box::new(|r| assert!(r.is_err())), |_, _| panic!("not yet"));
        mark.advance(8, |call, result| told.push((call, result)));
        assert_eq!(told.len(), 1);
        mark.fail(&Error::new(ErrorKind::Storage, "gone"), |call, result| told.push((call, result)));
        mark.when(8, Box::new(|r| assert!(r.is_ok())), |call, result| told.push((call, result)));
        assert_eq!(told.len(), 3);
        told.into_iter().for_each(|(call, result)| call(result));
        assert_eq!(mark.wait(9, Deadline::after(Duration::MAX)).unwrap_err().kind(), ErrorKind::Storage);
        mark.wait(8, Deadline::after(Duration::ZERO)).unwrap();
    }

    #[test]
    fn a_time_out_is_an_error() {
        let mark = Watermark::new(0);
        let error = mark.wait(1, Deadline::after(Duration::ZERO)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_bell_rings_when_the_mark_moves_or_never_will() {
        let mark = Watermark::new(5);
        let signal = Arc::new(Signal::default());
        let now = || Deadline::after(Duration::ZERO);
        assert!(mark.ring_past(4, &signal).unwrap());
        assert!(!mark.ring_past(5, &signal).unwrap());
        assert!(!signal.wait(now()));
        mark.advance(6, |_, _| ());
        assert!(signal.wait(now()));
        mark.advance(7, |_, _| ());
        assert!(!signal.wait(now()), "once for each time it was asked");
        assert!(!mark.ring_past(7, &signal).unwrap());
        mark.fail(&Error::new(ErrorKind::Storage, "gone"), |_, _| ());
        assert!(signal.wait(now()));
        assert_eq!(mark.ring_past(7, &signal).unwrap_err().kind(), ErrorKind::Storage);
    }
}
