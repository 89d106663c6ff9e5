//! A file read and written by position, and the latch that a first failure closes for ever.
//!
//! A flush that failed once proves nothing when it succeeds later: the kernel marks the pages clean, drops them,
//! and answers 0 the next time. So the first failure of a write or a flush is kept in the [`Latch`] of the
//! directory, and every later one answers with the same error. Only a full disk is no failure: nothing was
//! lost, and the same write may be tried again when there is space.
//!
//! A file may be *shared out*: then its descriptor is one of a bounded number, closed when it is wanted elsewhere and opened
//! again when the file is used (`descriptors.rs` says why that loses no failure).

use std::io;
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

#[cfg(unix)]
use memmap2::{MmapOptions, MmapRaw};
use parking_lot::{RwLock, RwLockWriteGuard};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::descriptors::Descriptors;
use crate::storage::disk::{Disk, named};
#[cfg(unix)]
use crate::storage::mapping::FlushCount;

/// What a disk gives for an open file; one call each, short counts and interruptions included.
pub(crate) trait RawFile: Send + Sync {
    /// Reads at `at`, perhaps less than asked; 0 is the end of the file.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes at `at`, perhaps less than given.
    fn write_at(&self, buf: &[u8], at: u64) -> io::Result<usize>;
    /// Makes what was written, and the size, survive a power cut.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves `len` bytes from `from` on, zeros where nothing was, and raises the size to their end.
    fn allocate(&self, from: u64, len: u64) -> io::Result<()>;
    /// Makes an empty file `len` bytes long, all of them allocated: no access to them finds the disk full later.
    fn fill(&self, len: u64) -> io::Result<()>;
    /// What the system knows it by, where that is so.
    #[cfg(unix)]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// How many bytes the file system has left.
    fn room(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    /// The first `len` bytes as memory that every process shares.
    #[cfg(unix)]
    fn map(&self, len: usize) -> io::Result<MmapRaw>;
    /// Cuts the file, or extends it with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The size.
    fn len(&self) -> io::Result<u64>;
    /// How many bytes the file was given, so that what is missing of its size are holes.
    fn allocated(&self) -> io::Result<u64> {
        self.len()
    }
    /// How many names the file has; none means that flushing it is worth nothing.
    fn links(&self) -> io::Result<u64>;
    /// Device and inode: whether a name still leads to the same file.
    fn id(&self) -> io::Result<FileId>;
    /// The first position at or after `from` that may hold something but zeros; `None` where nothing follows.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        Ok((from < self.len()?).then_some(from))
    }
    /// A position behind which there are only zeros: the size, where nothing better is known.
    fn data_end(&self) -> io::Result<u64> {
        self.len()
    }
    /// Has what follows read from the disk what nobody has still to write there.
    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What tells a file from every other that is there at the same time: device and inode.
pub(crate) type FileId = (u64, u64);

#[cfg(unix)]
impl RawFile for std::fs::File {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, at)
    }
    fn write_at(&self, buf: &[u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, buf, at)
    }
    fn sync_data(&self) -> io::Result<()> {
        std::fs::File::sync_data(self)
    }
    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        loop {
            use rustix::{fs::FallocateFlags, io::Errno};
            match rustix::fs::fallocate(self, FallocateFlags::empty(), from, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // A file system without it: a hole has to do, and a full disk shows at the write.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
                Err(e) => return Err(e.into()),
            }
        }
        let end = from.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        if RawFile::len(self)? < end { std::fs::File::set_len(self, end) } else { Ok(()) }
    }
    fn fill(&self, len: u64) -> io::Result<()> {
        use rustix::io::Errno;
        // A file system gives what it has before it says that it has not enough: meanwhile nobody else has any.
        let has = rustix::fs::fstatvfs(self)?;
        if has.f_blocks > 0 && len / has.f_frsize.max(1) > has.f_bfree {
            return Err(Errno::NOSPC.into());
        }
        let result = loop {
            match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, len) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        match result {
            Ok(()) => {}
            // Not every file system can: zeros allocate as well, only slower.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0; 64 * 1024];
                let mut at = 0;
                while at < len {
                    let n = zeros.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
                    std::os::unix::fs::FileExt::write_all_at(self, &zeros[..n], at)?;
                    at += n as u64;
                }
            }
            Err(e) => return Err(e.into()),
        }
        // Where allocation leaves the size alone. Access beyond a file's end would be a signal.
        if RawFile::len(self)? < len { std::fs::File::set_len(self, len) } else { Ok(()) }
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
    fn room(&self) -> io::Result<u64> {
        let has = rustix::fs::fstatvfs(self)?;
        Ok(has.f_bavail.saturating_mul(has.f_frsize))
    }
    fn map(&self, len: usize) -> io::Result<MmapRaw> {
        MmapOptions::new().len(len).map_raw(self)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        std::fs::File::set_len(self, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
    }
    fn allocated(&self) -> io::Result<u64> {
        self.metadata().map(|m| std::os::unix::fs::MetadataExt::blocks(&m).saturating_mul(512))
    }
    fn links(&self) -> io::Result<u64> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use rustix::{fs::AtFlags, fs::StatxFlags, io::Errno};
            // Nothing but the links: once somebody has looked at its times, the next write gives a file new ones,
            // fine enough to differ from those seen, and some file systems then flush the inode with each flush.
            match rustix::fs::statx(self, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK) {
                Ok(found) => return Ok(found.stx_nlink.into()),
                Err(Errno::NOSYS) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.metadata().map(|m| std::os::unix::fs::MetadataExt::nlink(&m))
    }
    fn id(&self) -> io::Result<FileId> {
        use std::os::unix::fs::MetadataExt;
        self.metadata().map(|m| (m.dev(), m.ino()))
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        use rustix::{fs::SeekFrom, io::Errno};
        // Nothing here uses the descriptor's own position, so moving it harms nobody.
        match rustix::fs::seek(self, SeekFrom::Data(from)) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((from < RawFile::len(self)?).then_some(from)),
            Err(e) => Err(e.into()),
        }
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn data_end(&self) -> io::Result<u64> {
        use rustix::{fs::SeekFrom, io::Errno};
        let mut end = 0;
        loop {
            match rustix::fs::seek(self, SeekFrom::Data(end)) {
                Ok(data) => end = rustix::fs::seek(self, SeekFrom::Hole(data))?,
                Err(Errno::NXIO) => return Ok(end),
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return RawFile::len(self),
                Err(e) => return Err(e.into()),
            }
        }
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn forget_cached(&self) -> io::Result<()> {
        // Pages that are still to be written stay; a flush that comes to them says whether they could be.
        Ok(rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed)?)
    }
}

/// The first failure of a directory, kept.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    failure: OnceLock<Error>,
    /// Where flushes under way are counted, once a log is open.
    #[cfg(unix)]
    flushes: OnceLock<FlushCount>,
}

impl Latch {
    /// Fails with the first failure, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// Closes the latch with `error`, unless it is closed, and answers with the first failure.
    pub(crate) fn fail(&self, error: Error) -> Error {
        self.failure.get_or_init(|| error).clone()
    }

    /// Has flushes counted from now on, so that the next open knows of one that failed, though the process did not
    /// live to tell.
    #[cfg(unix)]
    pub(crate) fn count_flushes_in(&self, count: FlushCount) {
        let _ = self.flushes.set(count); // a directory is opened once
    }

    /// Runs `flush`, which is counted while it is under way, and for ever if it fails.
    fn counted(&self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        #[cfg(unix)]
        if let Some(flushes) = self.flushes.get() {
            flushes.begin();
            flush()?;
            flushes.end();
            return Ok(());
        }
        flush()
    }
}

/// A file of a directory: whole reads and writes, failures kept.
pub(crate) struct File(Arc<Handle>);

/// A file, and its descriptor while it has one.
pub(crate) struct Handle {
    raw: RwLock<Option<Box<dyn RawFile>>>,
    path: PathBuf,
    latch: Arc<Latch>,
    /// How it is opened again; `None` where it is never closed.
    shared: Option<Shared>,
    /// Whether it was used since somebody last looked for a descriptor to close.
    used: AtomicBool,
    /// Calls that changed the file, and how many of them a flush has covered: closed is only what is flushed.
    changes: AtomicU64,
    flushed: AtomicU64,
    /// Its name goes: it could not be opened again.
    kept: AtomicBool,
}

/// What it takes to open a file again.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) write: bool,
    pub(crate) id: FileId,
}

/// What became of a descriptor that was to be closed.
pub(crate) enum Closing {
    /// It is closed, or was.
    Closed,
    /// It stays open for good.
    Kept,
    /// Somebody uses it, or has since the last look.
    InUse,
    /// There are bytes that must be flushed through it first.
    Unflushed,
}

impl Handle {
    /// Closes the descriptor if nothing can be lost by it.
    pub(crate) fn close(&self) -> Closing {
        if self.kept.load(Ordering::Acquire) {
            return Closing::Kept;
        }
        if self.used.swap(false, Ordering::Relaxed) {
            return Closing::InUse;
        }
        let Some(mut raw) = self.raw.try_write() else { return Closing::InUse };
        // Under the lock: who keeps it open, or writes to it, has it for reading meanwhile.
        if self.kept.load(Ordering::Acquire) {
            return Closing::Kept;
        }
        if self.flushed.load(Ordering::Acquire) < self.changes.load(Ordering::Acquire) {
            return Closing::Unflushed;
        }
        *raw = None;
        Closing::Closed
    }

    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.raw.read().is_some()
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("File").field(&self.0.path).finish()
    }
}

impl File {
    /// A file that stays open until it is dropped.
    pub(crate) fn new(raw: Box<dyn RawFile>, path: PathBuf, latch: Arc<Latch>) -> Self {
        File(Arc::new(Handle::new(Some(raw), path, latch, None)))
    }

    /// A file whose descriptor is shared out; without `raw`, one that is opened when it is first used.
    pub(crate) fn shared(
        raw: Option<Box<dyn RawFile>>,
        path: PathBuf,
        latch: Arc<Latch>,
        shared: Shared,
    ) -> Self {
        let is_open = raw.is_some();
        let handle = Arc::new(Handle::new(raw, path, latch, Some(shared)));
        if let Some(shared) = handle.shared.as_ref().filter(|_| is_open) {
            shared.descriptors.opened(&handle);
        }
        File(handle)
    }

    /// The same file, as `descriptors` and flushes of many know it.
    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.0
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Never closes the file from now on; for one that is about to be deleted and that somebody still reads.
    pub(crate) fn keep_open(&self) -> Result<()> {
        self.0.kept.store(true, Ordering::Release);
        self.0.with(|_| Ok(())).map(drop)
    }

    /// Device and inode.
    pub(crate) fn id(&self) -> Result<FileId> {
        self.0.with(|raw| raw.id())?.map_err(|e| Error::io("look at", self.path(), e))
    }

    /// How many names the file has.
    pub(crate) fn links(&self) -> Result<u64> {
        self.0.with(|raw| raw.links())?.map_err(|e| Error::io("look at", self.path(), e))
    }

    /// Fills `buf` from `at` on as far as the file goes, and returns how much that was.
    pub(crate) fn read_at_most(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let mut done = 0;
        let read = self.0.with(|raw| {
            while done < buf.len() {
                match raw.read_at(&mut buf[done..], at + done as u64) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        })?;
        read.map(|()| done).map_err(|e| Error::io("read", self.path(), e).at_position(at + done as u64))
    }

    /// Fills all of `buf` from `at` on; a file that ends before is corrupt.
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        if self.read_at_most(buf, at)? == buf.len() {
            return Ok(());
        }
        let message = format!("file ends inside the {} bytes that should be here", buf.len());
        Err(Error::new(ErrorKind::CorruptRecord, message).at_path(self.path()).at_position(at))
    }

    /// Writes all of `bytes` at `at`.
    ///
    /// After [`ErrorKind::NoSpace`] a part may stand there, and the same call may be made again; any other
    /// error latches the directory.
    pub(crate) fn write_all_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.0.change("write", |raw| {
            let mut done = 0;
            while done < bytes.len() {
                match raw.write_at(&bytes[done..], at + done as u64) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => done += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        })
    }

    /// Flushes data and size; says yes only if the file still has a name, and never after a failure.
    pub(crate) fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    /// Reserves `len` bytes from `from` on; see [`RawFile::allocate`]. May leave a part behind when it fails.
    pub(crate) fn allocate(&self, from: u64, len: u64) -> Result<()> {
        self.0.change("allocate", |raw| raw.allocate(from, len))
    }

    /// Cuts or extends the file.
    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        self.0.change("set the length of", |raw| raw.set_len(len))
    }

    /// The size, as the file system tells it: good as a bound, never as a reason to allocate.
    pub(crate) fn len(&self) -> Result<u64> {
        self.0.with(|raw| raw.len())?.map_err(|e| Error::io("look at", self.path(), e))
    }

    /// The first position at or after `from` that may hold something but zeros.
    pub(crate) fn next_data(&self, from: u64) -> Result<Option<u64>> {
        self.0.with(|raw| raw.next_data(from))?.map_err(|e| Error::io("look for data in", self.path(), e))
    }

    /// A position behind which there are only zeros.
    pub(crate) fn data_end(&self) -> Result<u64> {
        self.0.with(|raw| raw.data_end())?.map_err(|e| Error::io("look for data in", self.path(), e))
    }

    /// Has what follows read from the disk. Pages that could not be written look as if they had been, until they are forgotten.
    pub(crate) fn forget_cached(&self) -> Result<()> {
        self.0.with(|raw| raw.forget_cached())?.map_err(|e| Error::io("forget the pages of", self.path(), e))
    }
}

impl Handle {
    fn new(raw: Option<Box<dyn RawFile>>, path: PathBuf, latch: Arc<Latch>, shared: Option<Shared>) -> Self {
        Handle {
            raw: RwLock::new(raw),
            path,
            latch,
            shared,
            used: AtomicBool::new(true),
            changes: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            kept: AtomicBool::new(false),
        }
    }

    /// Does something with the open file; the outer error is that it could not be opened again.
    fn with<T>(self: &Arc<Self>, what: impl FnOnce(&dyn RawFile) -> io::Result<T>) -> Result<io::Result<T>> {
        {
            let raw = self.raw.read();
            if let Some(raw) = &*raw {
                self.used.store(true, Ordering::Relaxed);
                return Ok(what(&**raw));
            }
        }
        let Some(shared) = &self.shared else {
            return Err(Error::new(ErrorKind::Internal, "the file is closed").at_path(&self.path));
        };
        shared.descriptors.make_room(shared.write);
        let mut raw = self.raw.write();
        let was_closed = raw.is_none();
        if was_closed {
            *raw = Some(self.open_again(shared)?);
        }
        self.used.store(true, Ordering::Relaxed);
        let raw = RwLockWriteGuard::downgrade(raw);
        if was_closed {
            shared.descriptors.opened(self);
        }
        match &*raw {
            Some(raw) => Ok(what(&**raw)),
            None => Err(Error::new(ErrorKind::Internal, "the file is closed").at_path(&self.path)),
        }
    }

    fn open_again(&self, shared: &Shared) -> Result<Box<dyn RawFile>> {
        let opened = shared.descriptors.spend(|| shared.disk.open(&self.path, shared.write));
        let raw = opened.map_err(|e| named("open", &self.path, e))?;
        if raw.id().map_err(|e| Error::io("look at", &self.path, e))? == shared.id {
            return Ok(raw);
        }
        let message = "another file stands in the place of the one that was here";
        Err(Error::new(ErrorKind::Storage, message).at_path(&self.path))
    }

    /// Changes the file. A full disk passes, and so does a want of descriptors; anything else is kept.
    fn change(self: &Arc<Self>, what: &str, how: impl FnOnce(&dyn RawFile) -> io::Result<()>) -> Result<()> {
        self.latch.check()?;
        let changed = self.with(|raw| {
            let changed = how(raw);
            // Afterwards, so that no flush that began before counts for it; and before the file can be closed.
            self.changes.fetch_add(1, Ordering::AcqRel);
            Ok(changed)
        });
        changed.and_then(|done| done.unwrap_or_else(Err).map_err(|e| Error::io(what, &self.path, e))).map_err(
            |e| {
                let passes =
                    matches!(e.kind(), ErrorKind::NoSpace | ErrorKind::NoMemory) || e.is_out_of_descriptors();
                if passes { e } else { self.latch.fail(as_storage(what, e)) }
            },
        )
    }

    /// See [`File::sync`].
    pub(crate) fn sync(self: &Arc<Self>) -> Result<()> {
        self.latch.check()?;
        let covers = self.changes();
        let flushed = self.with(|raw| {
            self.latch.counted(|| raw.sync_data())?;
            Ok(raw.links())
        });
        match flushed {
            // Without a descriptor nothing was flushed, and nothing was said to be: that may be tried again.
            Err(e) if e.is_out_of_descriptors() => Err(e),
            Err(e) => Err(self.latch.fail(as_storage("flush", e))),
            // A full disk is a failure here: what did not reach it was written long ago, and is gone.
            Ok(Err(e)) => Err(self.broken("flush", e)),
            Ok(Ok(links)) => self.flushed(covers, links),
        }
    }

    /// Runs a flush that this file is among, counted as its own is.
    pub(crate) fn counted(&self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.latch.counted(flush)
    }

    /// How many changes there were: what a flush that begins now covers.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Takes over that the whole file system was flushed, after `covers` changes.
    pub(crate) fn was_flushed(&self, covers: u64) -> Result<()> {
        let links = self.raw.read().as_ref().map(|raw| raw.links());
        // What is closed was flushed before, and had a name then.
        links.map_or(Ok(()), |links| self.flushed(covers, links))
    }

    fn flushed(&self, covers: u64, links: io::Result<u64>) -> Result<()> {
        match links {
            Ok(0) => {
                let message = "file was deleted while open: what was flushed to it cannot be found again";
                Err(self.latch.fail(Error::new(ErrorKind::Storage, message).at_path(&self.path)))
            }
            Ok(_) => {
                self.flushed.fetch_max(covers, Ordering::AcqRel);
                Ok(())
            }
            Err(e) => Err(self.broken("look at", e)),
        }
    }

    /// The first failure of the directory, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        self.latch.check()
    }

    /// The device that the file is on, as far as it is known.
    pub(crate) fn device(&self) -> Option<u64> {
        self.shared.as_ref().map(|shared| shared.id.0)
    }

    fn broken(&self, what: &str, source: io::Error) -> Error {
        self.latch.fail(as_storage(what, Error::io(what, &self.path, source)))
    }
}
/// `error` as a failure of the storage, whatever its kind was: a file that was writable and is not any more
/// (the kernel remounts a dying disk read-only) has failed.
pub(crate) fn as_storage(what: &str, error: Error) -> Error {
    if error.kind() == ErrorKind::Storage {
        return error;
    }
    let mut storage = Error::new(ErrorKind::Storage, format!("cannot {what}"));
    if let Some(path) = error.path() {
        storage = storage.at_path(path);
    }
    storage.caused_by(error)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let raw = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        (dir, File::new(Box::new(raw), path, Arc::default()))
    }

    #[test]
    fn reads_and_writes_whole() {
        let (_dir, file) = file();
        file.write_all_at(b"hello", 3).unwrap();
        let mut buf = [9; 10];
        assert_eq!(file.read_at_most(&mut buf, 0).unwrap(), 8);
        assert_eq!(&buf, b"\0\0\0hello\x09\x09");
        let error = file.read_exact_at(&mut buf, 0).unwrap_err();
        assert_eq!((error.kind(), error.position()), (ErrorKind::CorruptRecord, Some(0)));
        assert!(error.path().is_some());
        file.allocate(8, 4088).unwrap();
        assert_eq!(file.len().unwrap(), 4096);
        file.read_exact_at(&mut buf, 8).unwrap();
        assert_eq!(buf, [0; 10]);
        file.set_len(3).unwrap();
        assert_eq!(file.len().unwrap(), 3);
        file.sync().unwrap();
        assert_eq!(file.next_data(4096).unwrap(), None);
    }

    #[test]
    fn a_flush_of_a_deleted_file_fails_for_ever() {
        let (dir, file) = file();
        file.write_all_at(b"x", 0).unwrap();
        std::fs::remove_file(dir.path().join("f")).unwrap();
        let error = file.sync().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert!(error.to_string().contains("deleted"), "{error}");
        assert_eq!(file.write_all_at(b"y", 0).unwrap_err().to_string(), error.to_string());
        assert_eq!(file.sync().unwrap_err().to_string(), error.to_string());
    }
}
