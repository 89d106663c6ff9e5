//! Which process a log belongs to: the one that opened it, and none that is forked from it.
//!
//! A fork has a copy of the log's memory, shares its staging files and its lock, and has none of its threads: locks may be
//! held there by nobody. So it may use nothing of it. Whoever calls is told so, before any lock is taken; and where handles
//! are dropped, nothing is written, unlinked, let go of or waited for.
//!
//! A fork cannot be kept from opening another log, and no promise is made for it: locks keep lists of sleeping threads, which
//! are not there any more and whose stacks new threads are given. A fork that wants a log executes a program first.
//!
//! What tells is a word in a page that the kernel hands to a fork as zeros. Looking at it costs a load, where asking for the
//! number of the process costs a system call.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// The process that something belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin(&'static AtomicU64);

/// This process, once it has opened a log; in a fork, the process before.
static HERE: Mutex<Option<Origin>> = Mutex::new(None);

/// Where the kernel does not tell.
static UNKNOWN: AtomicU64 = AtomicU64::new(1);

impl Origin {
    /// This process.
    pub(crate) fn here() -> Origin {
        // One word serves all logs of a process. In a fork nobody may be there to let go of the lock: another word is as good.
        let Some(mut here) = HERE.try_lock() else { return Origin::new() };
        here.take_if(|origin| origin.is_fork());
        *here.get_or_insert_with(Origin::new)
    }

    fn new() -> Origin {
        #[cfg(target_os = "linux")]
        let word = crate::storage::chunk::word_wiped_on_fork();
        #[cfg(not(target_os = "linux"))]
        let word = None;
        Origin(word.unwrap_or(&UNKNOWN))
    }

    /// Whether this process is a fork of it.
    #[inline]
    pub(crate) fn is_fork(self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Fails where this process is a fork of it.
    #[inline]
    pub(crate) fn check(self) -> Result<()> {
        if self.is_fork() { Err(forked()) } else { Ok(()) }
    }
}

#[cold]
fn forked() -> Error {
    Error::new(ErrorKind::Forked, "the log was opened by the process that this one was forked from")
}
