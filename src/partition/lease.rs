//! How one appender works without the append lock, and everybody else gets it to stop.
//!
//! The append lock protects the head of a partition. A lease takes the head out of it. What still needs appends to
//! stand still (a consumer that is about to sleep, the engine that believes it is done, a close) takes the lock as
//! ever, raises `wanted` and waits until the appender is not `busy`; the appender raises `busy` for each append and
//! then looks at `wanted`:
//!
//! ```text
//!   appender                        anybody else, under the append lock
//!   busy := true                    wanted := true
//!   ── store before load ──         ── store before load ──
//!   wanted?  yes: busy := false,    busy?  yes: look again
//!            take the lock
//!            no:  append                   no:  appends stand still until the lock is let go
//!   busy := false
//! ```
//!
//! Each side stores before it loads, in one order that all agree on, so that at least one of them sees the other: if the
//! appender saw no wish, its `busy` was there before the other looked, who then waits for the append to be over and
//! sees all of it. If the appender saw the wish, it queues at the lock. That is mutual exclusion, as the lock gave
//! it, for one atomic exchange in place of two; and the appender waits for nothing while it is busy.
//!
//! The wish stays until the appender has been under the lock and has done there what was asked of it.
//! Generic over the flag, and without imports of this crate, so that the model checker runs these lines.

use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that threads share.
pub(crate) trait Flag {
    /// Stores true; no load that comes after it, on this thread, happens before it.
    fn raise(&self);
    /// Reads the flag, in order with every `raise`, and sees what was done before it was lowered.
    fn raised(&self) -> bool;
    /// Stores false, after everything that was done before.
    fn lower(&self);
}

impl Flag for AtomicBool {
    #[inline]
    fn raise(&self) {
        // An exchange and no plain store with a fence: on x86 that is the cheaper of the two.
        self.swap(true, Ordering::SeqCst);
    }

    #[inline]
    fn raised(&self) -> bool {
        self.load(Ordering::SeqCst)
    }

    #[inline]
    fn lower(&self) {
        self.store(false, Ordering::Release);
    }
}

/// The two flags between an appender and the rest.
#[derive(Default)]
pub(crate) struct Lease<F> {
    busy: F,
    wanted: F,
}

impl<F: Flag> Lease<F> {
    /// The appender's: begins an append, unless somebody wants it at the lock.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Turn<'_, F>> {
        self.busy.raise();
        let turn = Turn { busy: &self.busy };
        (!self.wanted.raised()).then_some(turn)
    }

    /// Under the append lock: has the appender stand still until the lock is let go. `pause` is called while it is
    /// in the middle of an append.
    pub(crate) fn stop(&self, mut pause: impl FnMut()) {
        self.wanted.raise();
        while self.busy.raised() {
            pause();
        }
    }

    /// Whether the appender is wanted at the lock.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.raised()
    }

    /// The appender's, under the append lock: has it come here again with its next append.
    pub(crate) fn want(&self) {
        self.wanted.raise();
    }

    /// The appender's, under the append lock: all that was wanted is done.
    pub(crate) fn calm(&self) {
        self.wanted.lower();
    }
}

/// An append under way; over when dropped, by a panic too.
pub(crate) struct Turn<'a, F: Flag> {
    busy: &'a F,
}

impl<F: Flag> Drop for Turn<'_, F> {
    #[inline]
    fn drop(&mut self) {
        self.busy.lower();
    }
}
