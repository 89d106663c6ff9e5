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
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::error::Result;
use crate::storage::disk::Volume;
use crate::storage::file::{Closing, Handle};

/// The descriptors that the files of one directory share.
pub(crate) struct Descriptors {
    limit: usize,
    /// The file system, while it can be flushed as a whole. Locked during a flush: of a failure one flush is told only.
    volume: Mutex<Option<Box<dyn Volume>>>,
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
        Descriptors { limit: limit.max(LEAST), volume: Mutex::new(None), open: Mutex::default() }
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
        *self.volume.lock() = Some(volume);
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
        if files.len() >= MANY {
            files.iter().try_for_each(|file| file.check())?;
            let covers: Vec<u64> = files.iter().map(|file| file.changes()).collect();
            if self.flush_volume(files) {
                files.iter().zip(covers).try_for_each(|(file, covers)| file.was_flushed(covers))?;
                return Ok(true);
            }
        }
        files.iter().try_for_each(Handle::sync)?;
        Ok(false)
    }

    /// Makes all that is on the file system of the files survive a power cut; false where that is not proved.
    ///
    /// It fails where anything failed on that file system. Whether that concerns a file, its descriptor knows; but the
    /// file system has told now, and the next flush of it would say nothing of files that are not among these. So that
    /// was the last one.
    fn flush_volume(&self, files: &[Arc<Handle>]) -> bool {
        let Some(first) = files.first() else { return true };
        let mut volume = self.volume.lock();
        let Some(found) = &*volume else { return false };
        if files.iter().any(|file| file.device() != Some(found.device())) {
            return false;
        }
        let flushed = first.counted(|| found.sync()).is_ok();
        if !flushed {
            *volume = None;
        }
        flushed
    }

    /// Has the kernel write all that is in the way of a flush of each of these files.
    pub(crate) fn write_back(&self, files: &[Arc<Handle>]) -> bool {
        files.len() >= MANY && self.flush_volume(files)
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

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::directory::Directory;
    use crate::storage::disk::RealDisk;
    use crate::storage::fault::{Fault, FaultDisk, FaultPlan, Op};
    use crate::storage::file::File;

    const LIMIT: usize = 8;

    struct Bench {
        temp: tempfile::TempDir,
        directory: Directory,
        plan: Arc<FaultPlan>,
    }

    impl Bench {
        fn new() -> Self {
            Bench::with_limit(LIMIT)
        }

        fn with_limit(limit: usize) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let plan = FaultPlan::new();
            let disk = Arc::new(FaultDisk::new(Arc::new(RealDisk::default()), Arc::clone(&plan)));
            let mut directory = Directory::open_or_create(temp.path(), disk).unwrap();
            directory.limit_descriptors(limit);
            Bench { temp, directory, plan }
        }

        fn file(&self, n: usize) -> File {
            self.directory.create_shared(&name(n)).unwrap()
        }

        fn open(&self) -> usize {
            self.directory.descriptors().count()
        }
    }

    fn name(n: usize) -> PathBuf {
        format!("f{n}").into()
    }

    fn holds(file: &File, bytes: &[u8]) -> bool {
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        read == bytes
    }

    #[test]
    fn many_files_live_on_few_descriptors() {
        let bench = Bench::new();
        let files: Vec<File> = (0..100).map(|n| bench.file(n)).collect();
        for round in 0..3u8 {
            for (n, file) in files.iter().enumerate() {
                file.write_all_at(&[n as u8, round], 0).unwrap();
                assert!(bench.open() <= LIMIT);
            }
            for (n, file) in files.iter().enumerate().rev() {
                assert!(holds(file, &[n as u8, round]));
                // Some have unflushed bytes, and who reads does not flush them.
                assert!(bench.open() <= LIMIT + 1);
            }
        }
    }

    /// The descriptor that bytes were written through is the only one that is sure to hear of their loss.
    #[test]
    fn nothing_is_closed_over_unflushed_bytes() {
        let bench = Bench::new();
        let files: Vec<File> = (0..LIMIT).map(|n| bench.file(n)).collect();
        files.iter().for_each(|file| file.write_all_at(b"x", 0).unwrap());
        assert_eq!((bench.open(), bench.plan.count(Op::Sync)), (LIMIT, 0));
        let one_more = bench.file(LIMIT);
        assert_eq!(bench.plan.count(Op::Sync), LIMIT as u64 / 2, "half of them at a time");
        assert!(bench.open() <= LIMIT);
        one_more.write_all_at(b"y", 0).unwrap();

        bench.plan.inject(Fault::nth(1).of(Op::Sync));
        let mut kept = Vec::new();
        let failed = (LIMIT + 1..3 * LIMIT).find_map(|n| {
            let made = bench.directory.create_shared(&name(n));
            let written = made.and_then(|file| file.write_all_at(b"z", 0).map(|()| file));
            written.map(|file| kept.push(file)).err()
        });
        assert_eq!(failed.map(|e| e.kind()), Some(ErrorKind::Storage), "a failed flush is for ever");
        assert!(files[0].sync().is_err() && files[LIMIT - 1].write_all_at(b"x", 0).is_err());
        assert!(files.iter().all(|file| holds(file, b"x")), "reading goes on");
    }

    #[test]
    fn a_file_that_took_the_place_of_another_is_not_written_to() {
        let bench = Bench::new();
        let first = bench.file(0);
        first.write_all_at(b"mine", 0).unwrap();
        first.sync().unwrap();
        let others: Vec<File> = (1..=2 * LIMIT).map(|n| bench.file(n)).collect();
        let path = bench.temp.path().join("f0");
        // The old one stays, so that the new one cannot get its inode.
        std::fs::rename(&path, bench.temp.path().join("elsewhere")).unwrap();
        std::fs::write(&path, b"not mine").unwrap();
        assert!(first.len().is_err());
        assert_eq!(first.write_all_at(b"more", 4).unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(std::fs::read(&path).unwrap(), b"not mine");
        assert!(others[0].sync().is_err(), "as after any failure");
    }

    #[test]
    fn a_file_that_is_read_stays_readable_when_it_is_deleted() {
        let bench = Bench::new();
        let file = bench.file(0);
        file.write_all_at(b"still here", 0).unwrap();
        file.sync().unwrap();
        let gone = bench.file(1);
        let _others: Vec<File> = (2..=2 * LIMIT).map(|n| bench.file(n)).collect();
        file.keep_open().unwrap();
        [0, 1].iter().for_each(|n| bench.directory.remove_file(&name(*n)).unwrap());
        let _more: Vec<File> = (100..100 + 2 * LIMIT).map(|n| bench.file(n)).collect();
        assert!(holds(&file, b"still here"));
        assert_eq!(gone.len().unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// Other parts of the process may take what descriptors there are.
    #[test]
    fn where_the_process_has_none_left_those_at_rest_are_closed() {
        let bench = Bench::new();
        let files: Vec<File> = (0..4).map(|n| bench.file(n)).collect();
        bench.plan.inject(Fault::nth(1).of(Op::Create).errno(Fault::EMFILE));
        bench.directory.create(Path::new("new")).unwrap();
        assert_eq!(bench.open(), 3);
        bench.plan.inject(Fault::nth(1).of(Op::Create).errno(Fault::EMFILE).forever());
        assert!(bench.directory.create(Path::new("newer")).is_err(), "when all are closed, it is an error");
        assert_eq!(bench.open(), 0);
        files.iter().for_each(|file| assert_eq!(file.len().unwrap(), 0));
        bench.plan.clear();
    }

    #[test]
    fn many_are_flushed_by_one_call_and_each_by_itself_where_that_fails() {
        let bench = Bench::with_limit(4 * MANY);
        if bench.directory.descriptors().volume.lock().is_none() {
            return; // this file system cannot
        }
        let files: Vec<File> = (0..MANY).map(|n| bench.file(n)).collect();
        let dirty = || files.iter().for_each(|file| file.write_all_at(b"x", 0).unwrap());
        let counts = || (bench.plan.count(Op::SyncAll), bench.plan.count(Op::Sync));
        let all: Vec<&File> = files.iter().collect();
        dirty();
        assert!(bench.directory.flush(&all).unwrap());
        assert_eq!(counts(), (1, 0));
        dirty();
        bench.plan.inject(Fault::nth(1).of(Op::SyncAll));
        assert!(!bench.directory.flush(&all).unwrap(), "what failed may be another's");
        assert_eq!(counts(), (2, MANY as u64));
        dirty();
        bench.plan.inject(Fault::nth(7).of(Op::Sync));
        assert_eq!(bench.directory.flush(&all).unwrap_err().kind(), ErrorKind::Storage);
        assert!(bench.directory.flush(&all).is_err() && bench.directory.flush(&all[..3]).is_err());
        assert_eq!(counts(), (2, MANY as u64 + 7), "never tried again");
    }

    /// A file system tells of a failure once. Whoever flushed other files heard of it, and the next flush was believed.
    #[test]
    fn after_a_failure_the_file_system_is_not_asked_again() {
        let bench = Bench::with_limit(4 * MANY);
        if bench.directory.descriptors().volume.lock().is_none() {
            return; // this file system cannot
        }
        let files: Vec<File> = (0..2 * MANY).map(|n| bench.file(n)).collect();
        files.iter().for_each(|file| file.write_all_at(b"x", 0).unwrap());
        let (some, others) = files.split_at(MANY);
        bench.plan.inject(Fault::nth(1).of(Op::SyncAll));
        assert!(!bench.directory.flush(&some.iter().collect::<Vec<_>>()).unwrap());
        bench.plan.inject(Fault::nth(1).of(Op::Sync).under("/f69"));
        let error = bench.directory.flush(&others.iter().collect::<Vec<_>>()).unwrap_err();
        assert_eq!((error.kind(), bench.plan.count(Op::SyncAll)), (ErrorKind::Storage, 1));
    }

    #[test]
    fn a_deleted_file_is_not_called_flushed_among_many() {
        let bench = Bench::with_limit(4 * MANY);
        let files: Vec<File> = (0..MANY).map(|n| bench.file(n)).collect();
        bench.directory.remove_file(&name(9)).unwrap();
        let error = bench.directory.flush(&files.iter().collect::<Vec<_>>()).unwrap_err();
        assert!(error.to_string().contains("deleted"), "{error}");
    }
}
