//! The order between a store and a later load, at the cost of one side.
//!
//! A processor keeps its stores back for a while and goes on with loads. An instruction that has them out before the next
//! load costs an append more than all else that an appender needs of other threads. Where the kernel can have *all*
//! threads of the process pass through such an instruction (`membarrier`), the appender does without: it stores and loads
//! in the order of the program, and who needs it to stand still has that done to it, between his own store and his load:
//!
//! ```text
//!   appender, often                              another, seldom
//!   busy := true                                 wanted := true
//!   ── (the compiler keeps the order) ──         ── membarrier: a full fence, on every processor ──
//!   wanted?                                      busy?
//! ```
//!
//! The appender's processor passes its fence either after the store of `busy`, and then the other sees it; or before,
//! and then the load of `wanted`, which comes later still, sees that. Elsewhere, on other systems and on kernels that
//! are too old or forbid it, both sides raise their flag by an exchange that nothing passes.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};

#[cfg(target_os = "linux")]
use rustix::thread::MembarrierCommand;

use crate::partition::lease::Fence;

/// Who has stores out before loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fences {
    /// Each side, with each raised flag.
    Each,
    /// The one that comes seldom, for both.
    #[cfg(target_os = "linux")]
    Membarrier,
}

impl Fences {
    /// What this process can have. The kernel is told here; that costs milliseconds where the process has other threads,
    /// and nothing before it has.
    pub(crate) fn of_process() -> Fences {
        #[cfg(target_os = "linux")]
        if rustix::thread::membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
            && rustix::thread::membarrier(MembarrierCommand::PrivateExpedited).is_ok()
        {
            return Fences::Membarrier;
        }
        Fences::Each
    }
}

impl Fence<AtomicBool> for Fences {
    #[inline]
    fn raise_often(&self, flag: &AtomicBool) {
        match self {
            // An exchange and no plain store with a fence: on x86 that is the cheaper of the two.
            Fences::Each => _ = flag.swap(true, Ordering::SeqCst),
            #[cfg(target_os = "linux")]
            Fences::Membarrier => {
                flag.store(true, Ordering::Relaxed);
                compiler_fence(Ordering::SeqCst);
            }
        }
    }

    fn raise_seldom(&self, flag: &AtomicBool) {
        flag.swap(true, Ordering::SeqCst);
        #[cfg(target_os = "linux")]
        if *self == Fences::Membarrier {
            fence_everywhere();
        }
    }
}

/// Returns when each processor that runs a thread of this process has passed a full fence.
#[cfg(target_os = "linux")]
fn fence_everywhere() {
    use MembarrierCommand::{Global, PrivateExpedited};
    let done = |command| rustix::thread::membarrier(command).is_ok();
    // The first can fail where memory is short. That both do, after one was allowed, takes a filter of system calls that
    // was put up meanwhile. A tick of the timer is a fence as well, and by then there were some.
    if !done(PrivateExpedited) && !done(Global) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use parking_lot::Mutex;

    use super::*;
    use crate::partition::lease::Lease;

    /// Additions that are not atomic: where two add at the same time, one is lost.
    fn nothing_is_lost(fences: Fences) {
        let lease: Lease<AtomicBool, Fences> = Lease::new(fences);
        let (lock, sum) = (Mutex::new(()), AtomicU64::new(0));
        let add = || sum.store(sum.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let _lock = lock.lock();
                    lease.stop(std::thread::yield_now);
                    add();
                }
            });
            for _ in 0..100_000 {
                if let Some(_turn) = lease.enter() {
                    add();
                } else {
                    let _lock = lock.lock();
                    add();
                    lease.calm();
                }
            }
        });
        assert_eq!(sum.into_inner(), 102_000, "{fences:?}");
    }

    #[test]
    fn whoever_stops_an_appender_is_alone_by_either_way() {
        nothing_is_lost(Fences::of_process());
        nothing_is_lost(Fences::Each);
    }
}
