//! A file read and written by position, and the latch that a first failure closes for ever.
//!
//! A flush that failed once proves nothing when it succeeds later: the kernel marks the pages clean, drops them,
//! and answers 0 the next time. So the first failure of a write or a flush is kept in the [`Latch`] of the
//! directory, and every later one answers with the same error. Only a full disk is no failure: nothing was
//! lost, and the same write may be tried again when there is space.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Result};
#[cfg(unix)]
use crate::storage::chunk::FlushCount;

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
    /// Cuts the file, or extends it with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The size.
    fn len(&self) -> io::Result<u64>;
    /// How many names the file has; none means that flushing it is worth nothing.
    fn links(&self) -> io::Result<u64>;
    /// The first position at or after `from` that may hold something but zeros; `None` where nothing follows.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        Ok((from < self.len()?).then_some(from))
    }
    /// A position behind which there are only zeros: the size, where nothing better is known.
    fn data_end(&self) -> io::Result<u64> {
        self.len()
    }
}

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
    fn set_len(&self, len: u64) -> io::Result<()> {
        std::fs::File::set_len(self, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
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

/// An open file of a directory: whole reads and writes, failures kept.
pub(crate) struct File {
    raw: Box<dyn RawFile>,
    path: PathBuf,
    latch: Arc<Latch>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("File").field(&self.path).finish()
    }
}

impl File {
    pub(crate) fn new(raw: Box<dyn RawFile>, path: PathBuf, latch: Arc<Latch>) -> Self {
        File { raw, path, latch }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buf` from `at` on as far as the file goes, and returns how much that was.
    pub(crate) fn read_at_most(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.raw.read_at(&mut buf[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", &self.path, e).at_position(at + done as u64)),
            }
        }
        Ok(done)
    }

    /// Fills all of `buf` from `at` on; a file that ends before is corrupt.
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        if self.read_at_most(buf, at)? == buf.len() {
            return Ok(());
        }
        let message = format!("file ends inside the {} bytes that should be here", buf.len());
        Err(Error::new(ErrorKind::CorruptRecord, message).at_path(&self.path).at_position(at))
    }

    /// Writes all of `bytes` at `at`.
    ///
    /// After [`ErrorKind::NoSpace`] a part may stand there, and the same call may be made again; any other
    /// error latches the directory.
    pub(crate) fn write_all_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.latch.check()?;
        let mut done = 0;
        while done < bytes.len() {
            match self.raw.write_at(&bytes[done..], at + done as u64) {
                Ok(0) => return Err(self.failed("write", io::ErrorKind::WriteZero.into())),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed("write", e)),
            }
        }
        Ok(())
    }

    /// Flushes data and size; says yes only if the file still has a name, and never after a failure.
    pub(crate) fn sync(&self) -> Result<()> {
        self.latch.check()?;
        // A full disk is a failure here: what did not reach it was written long ago, and is gone.
        self.latch.counted(|| self.raw.sync_data()).map_err(|e| self.broken("flush", e))?;
        match self.raw.links() {
            Ok(0) => {
                let message = "file was deleted while open: what was flushed to it cannot be found again";
                Err(self.latch.fail(Error::new(ErrorKind::Storage, message).at_path(&self.path)))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(self.broken("look at", e)),
        }
    }

    /// Reserves `len` bytes from `from` on; see [`RawFile::allocate`]. May leave a part behind when it fails.
    pub(crate) fn allocate(&self, from: u64, len: u64) -> Result<()> {
        self.latch.check()?;
        self.raw.allocate(from, len).map_err(|e| self.failed("allocate", e))
    }

    /// Cuts or extends the file.
    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        self.latch.check()?;
        self.raw.set_len(len).map_err(|e| self.failed("set the length of", e))
    }

    /// The size, as the file system tells it: good as a bound, never as a reason to allocate.
    pub(crate) fn len(&self) -> Result<u64> {
        self.raw.len().map_err(|e| Error::io("look at", &self.path, e))
    }

    /// The first position at or after `from` that may hold something but zeros.
    pub(crate) fn next_data(&self, from: u64) -> Result<Option<u64>> {
        self.raw.next_data(from).map_err(|e| Error::io("look for data in", &self.path, e))
    }

    /// A position behind which there are only zeros.
    pub(crate) fn data_end(&self) -> Result<u64> {
        self.raw.data_end().map_err(|e| Error::io("look for data in", &self.path, e))
    }

    /// A full disk passes; anything else is kept.
    fn failed(&self, what: &str, source: io::Error) -> Error {
        let error = Error::io(what, &self.path, source);
        if error.kind() == ErrorKind::NoSpace { error } else { self.latch.fail(as_storage(what, error)) }
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
