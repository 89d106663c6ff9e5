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
//! it; and the appender waits for nothing while it is busy. Who pays for that order, the appender with every append or
//! the others alone, is the [`Fence`]'s to say.
//!
//! The wish stays until the appender has been under the lock and has done there what was asked of it.
//! Generic over flag and fence, and without imports of this crate, so that the model checker runs these lines.

use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that threads share.
pub(crate) trait Flag {
    /// Stores true.
    fn raise(&self);
    /// Reads the flag, and sees what was done before it was lowered.
    fn raised(&self) -> bool;
    /// Stores false, after everything that was done before.
    fn lower(&self);
}

impl Flag for AtomicBool {
    #[inline]
    fn raise(&self) {
        self.store(true, Ordering::SeqCst);
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

/// How a flag is raised before the other one is looked at. Of a thread that raised one by [`Fence::raise_often`] and a
/// thread that raised the other by [`Fence::raise_seldom`], at least one sees the other's.
pub(crate) trait Fence<F> {
    /// The side's that comes with every append.
    fn raise_often(&self, flag: &F);
    /// The other's, which may be dear.
    fn raise_seldom(&self, flag: &F);
}

/// The two flags between an appender and the rest.
pub(crate) struct Lease<F, O> {
    busy: F,
    wanted: F,
    fence: O,
}

impl<F: Flag + Default, O: Fence<F>> Lease<F, O> {
    /// Nobody appends, and nobody is wanted.
    pub(crate) fn new(fence: O) -> Self {
        Lease { busy: F::default(), wanted: F::default(), fence }
    }

    /// The appender's: begins an append, unless somebody wants it at the lock.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Turn<'_, F>> {
        self.fence.raise_often(&self.busy);
        let turn = Turn { busy: &self.busy };
        (!self.wanted.raised()).then_some(turn)
    }

    /// Under the append lock: has the appender stand still until the lock is let go. `pause` is called while it is
    /// in the middle of an append.
    pub(crate) fn stop(&self, mut pause: impl FnMut()) {
        // A wish that is there already was raised under this lock: whoever raised it saw the last append end, and the
        // appender, if it was not himself, sees the wish.
        if !self.wanted.raised() {
            self.fence.raise_seldom(&self.wanted);
        }
        while self.busy.raised() {
            pause();
        }
    }

    /// Whether the appender is wanted at the lock.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.raised()
    }

    /// The appender's, under the append lock: has it come here again with its next append. It sees its own wish.
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
