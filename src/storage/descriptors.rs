//! How many files a log has open: a bounded number of descriptors that all its segments share.
//!
//! A file that many partitions have one of is closed when its descriptor is wanted elsewhere, and opened again by name when
//! it is used. Which one goes is decided as by a clock's hand: the one that was open longest, but for those that were used
//! since the hand last came by.
//!
//! # What closing does to errors
//!
//! The kernel tells of a failed write-back once to every descriptor that was open when it failed, and to later ones only if
//! nobody was told yet and the inode was not dropped from memory in between. A descriptor that is closed over unflushed
//! bytes may so take the only news of their loss with it. Therefore **none is**: a file is closed only if all that was
//! written to it was flushed with success through the very descriptor that it was written through. Where all that are
//! open have unflushed bytes, the longest open of them are flushed, many at once; where that fails, it has failed for the
//! directory, as any flush that fails has.
//!
//! A name may lead to another file later: the one opened again must be the one that was closed (device and inode). A file
//! whose name is about to go, and that somebody still reads, is kept open ([`crate::storage::file::File::keep_open`]).

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::error::Result;
use crate::storage::disk::Volume;
use crate::storage::file::{Closing, Handle};

/// The descriptors that the files of one directory share.
pub(crate) struct Descriptors {
    limit: usize,
    /// The file system, where it can be flushed as a whole.
    volume: OnceLock<Box<dyn Volume>>,
    /// Those that can be closed and opened again, the longest open first.
    open: Mutex<VecDeque<Weak<Handle>>>,
}

/// No more than this many, however many the process may have.
const MOST: usize = 4_096;
/// From so many files on they are flushed together.
const MANY: usize = 64;
/// No fewer: the file that is written to and those that are read meanwhile.
const LEAST: usize = 4;

impl Descriptors {
    /// At most `limit` at a time.
    pub(crate) fn new(limit: usize) -> Self {
        Descriptors { limit: limit.max(LEAST), volume: OnceLock::new(), open: Mutex::default() }
    }

    /// At most half of what the process may have.
    pub(crate) fn of_process() -> Self {
        #[cfg(unix)]
        let all = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        #[cfg(not(unix))]
        let all = None;
        Descriptors::new(all.map_or(MOST, |all| usize::try_from(all / 2).unwrap_or(MOST).min(MOST)))
    }

    /// Notes a file that was just opened and can be closed.
    pub(crate) fn opened(&self, handle: &Arc<Handle>) {
        self.open.lock().push_back(Arc::downgrade(handle));
    }

    /// From now on many files are flushed together, by a flush of all that is on `volume`.
    pub(crate) fn flush_together(&self, volume: Box<dyn Volume>) {
        let _ = self.volume.set(volume);
    }

    /// Closes files until there is room for one more. Where all that are open have unflushed bytes, a writer flushes half of
    /// them, so that not every file costs a flush; who only reads does not wait for that: then it is one more for a while.
    pub(crate) fn make_room(&self, may_flush: bool) {
        let unflushed = self.close_flushed();
        if may_flush && !unflushed.is_empty() {
            // Where this fails, the directory has failed, and everyone will hear of it.
            let _ = self.flush(&unflushed);
            drop(unflushed);
            self.close_flushed();
        }
    }

    /// Closes files until there is room for one more; returns some that must be flushed first where that is not enough.
    fn close_flushed(&self) -> Vec<Arc<Handle>> {
        let mut open = self.open.lock();
        let mut unflushed = Vec::new();
        // Twice round: whoever was used is passed over once.
        for _ in 0..2 * open.len() {
            if open.len() < self.limit {
                return Vec::new();
            }
            Self::look_at_first(&mut open, &mut unflushed);
        }
        unflushed.truncate(self.limit / 2);
        unflushed
    }

    /// Makes what was written to the files survive a power cut. True where that went by a flush of all that is on their file
    /// system, and so holds for names as well.
    pub(crate) fn flush(&self, files: &[Arc<Handle>]) -> Result<bool> {
        if files.len() >= MANY
            && let Some(volume) = self.volume.get()
            && files.iter().all(|file| file.device() == Some(volume.device()))
        {
            files.iter().try_for_each(|file| file.check())?;
            let covers: Vec<u64> = files.iter().map(|file| file.changes()).collect();
            // It fails where anything failed on that file system. Whether that concerns us, each descriptor knows.
            if volume.sync().is_ok() {
                files.iter().zip(covers).try_for_each(|(file, covers)| file.was_flushed(covers))?;
                return Ok(true);
            }
        }
        files.iter().try_for_each(Handle::sync)?;
        Ok(false)
    }

    fn look_at_first(open: &mut VecDeque<Weak<Handle>>, unflushed: &mut Vec<Arc<Handle>>) {
        let Some(first) = open.pop_front() else { return };
        let Some(handle) = first.upgrade() else { return };
        match handle.close() {
            Closing::Closed | Closing::Kept => return,
            Closing::InUse => {}
            Closing::Unflushed => unflushed.push(handle),
        }
        open.push_back(first);
    }

    /// Closes one file that nobody uses; false where there is none.
    fn close_one(&self) -> bool {
        let mut open = self.open.lock();
        let before = open.len();
        for _ in 0..2 * before {
            Self::look_at_first(&mut open, &mut Vec::new());
            if open.len() < before {
                return true;
            }
        }
        false
    }

    /// Does what needs a descriptor. Where the process has none left, files are closed that nobody uses.
    pub(crate) fn spend<T>(&self, mut what: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match what() {
                Err(e) if is_out_of_descriptors(&e) && self.close_one() => {}
                other => return other,
            }
        }
    }

    /// How many are open, or were when they were last looked at.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.open.lock().iter().filter(|h| h.upgrade().is_some_and(|h| h.is_open())).count()
    }
}

/// Whether the process, or the system, has no descriptor left.
pub(crate) fn is_out_of_descriptors(e: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let errno = e.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }
    #[cfg(not(unix))]
    {
        let _ = e;
        false
    }
}
