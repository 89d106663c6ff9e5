//! What proves to an open that only the process stopped, and not the machine.
//!
//! Bytes that were written and never flushed may be old, zero or missing after a power cut, anywhere. After the mere death
//! of a process they are all there: they are the kernel's, and nothing but the write that was under way can be torn. The
//! two are told apart by a testimony that an open leaves in the head of its first staging file, at 64. It has to
//! survive the process only, and is never flushed; bytes 72 to 156 are zeros where nothing is known:
//!
//! ```text
//!   64  flushes       u64   under way; one that failed stays counted
//!   72  boot id       16 bytes   of the run of the kernel
//!   88  directory     mount u64 │ device u64 │ inode u64 │ born i64, in nanoseconds
//!  120  this file     the same
//!  152  checksum      u32   CRC-32 of bytes 72..152
//! ```
//!
//! The next open takes it back before anything else, so that it holds once, and compares it with what is so now:
//!
//! - the *boot id* is another after every start of the kernel;
//! - the *mount*, by a number that no other mount gets before the next start, shows that the file system was not
//!   unmounted, and that this is no image or snapshot of it;
//! - *inode and time of birth* of the directory and of the staging file show that neither is a copy put in its place;
//! - no *flush* was under way or had failed: the kernel tells of pages that it could not write once only, to whoever
//!   flushes next. That was nobody; so the flush that the open does first is told, if there is anything to tell.

use std::path::Path;

use crate::bytes::put;
#[cfg(unix)]
use crate::bytes::{i64_at, u32_at, u64_at};
use crate::error::{Error, Result};
use crate::storage::directory::Directory;
use crate::storage::disk::{Disk, Place};
#[cfg(unix)]
use crate::storage::file::RawFile;
#[cfg(unix)]
use crate::storage::staging::read_at;

/// Where in the staging file the count of flushes stands ([`FlushCount`]), and behind it the testimony.
///
/// [`FlushCount`]: crate::storage::mapping::FlushCount
const FLUSHES: usize = 64;
const TESTIMONY: usize = FLUSHES + 8;
/// Bytes of the testimony and its checksum.
const LEN: usize = 84;
/// Bytes under the checksum.
const PROVED: usize = 80;

/// In which run of the kernel, and where, a log is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    boot: [u8; 16],
    directory: Place,
    staging: Place,
}

impl Witness {
    /// What is so now for a log in `directory` with this first staging file; `None` where it cannot be known.
    pub(crate) fn now(directory: &Directory, disk: &dyn Disk, staging: &Path) -> Option<Witness> {
        Some(Witness {
            boot: directory.boot()?,
            directory: directory.place(directory.root())?,
            staging: disk.place(staging)?,
        })
    }

    /// The mount that everything of the log must lie on.
    pub(crate) fn mount(&self) -> u64 {
        self.directory.mount
    }

    fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        put(&mut out, 0, &self.boot);
        for (at, place) in [(16, self.directory), (48, self.staging)] {
            put(&mut out, at, &place.mount.to_le_bytes());
            put(&mut out, at + 8, &place.device.to_le_bytes());
            put(&mut out, at + 16, &place.inode.to_le_bytes());
            put(&mut out, at + 24, &place.born.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..PROVED]);
        put(&mut out, PROVED, &crc.to_le_bytes());
        out
    }

    #[cfg(unix)]
    fn parse(bytes: &[u8; LEN]) -> Option<Witness> {
        let place = |at| Place {
            mount: u64_at(bytes, at),
            device: u64_at(bytes, at + 8),
            inode: u64_at(bytes, at + 16),
            born: i64_at(bytes, at + 24),
        };
        let mut boot = [0; 16];
        boot.copy_from_slice(&bytes[..16]);
        let proved = u32_at(bytes, PROVED) == crc32fast::hash(&bytes[..PROVED]);
        proved.then(|| Witness { boot, directory: place(16), staging: place(48) })
    }

    /// Leaves it in the staging file for the next open.
    #[cfg(unix)]
    pub(crate) fn leave(&self, disk: &dyn Disk, staging: &Path) -> Result<()> {
        disk.open(staging, true)
            .and_then(|file| write(&*file, &self.encode(), TESTIMONY as u64))
            .map_err(|e| Error::io("write to the staging file", staging, e))
    }

    /// Takes back what the open before left in its staging file; `None` where there is nothing to believe.
    #[cfg(unix)]
    pub(crate) fn take(disk: &dyn Disk, staging: &Path) -> Option<Witness> {
        let file = disk.open(staging, true).ok()?;
        let mut bytes = [0; 8 + LEN];
        let got = read_at(&*file, staging, &mut bytes, FLUSHES as u64).ok()?;
        if got < bytes.len() {
            return None;
        }
        let mut testimony = [0; LEN];
        testimony.copy_from_slice(&bytes[8..]);
        // What cannot be taken back is not believed: the next open would believe it again. A copy that shares the file by a
        // second name loses it too, and is verified whole where it is opened.
        write(&*file, &[0; LEN], TESTIMONY as u64).ok()?;
        if u64_at(&bytes, 0) == 0 { Witness::parse(&testimony) } else { None }
    }

    #[cfg(not(unix))]
    pub(crate) fn leave(&self, _: &dyn Disk, staging: &Path) -> Result<()> {
        let _ = (self.encode(), TESTIMONY);
        Err(crate::storage::staging::unsupported(staging))
    }

    #[cfg(not(unix))]
    pub(crate) fn take(_: &dyn Disk, _: &Path) -> Option<Witness> {
        None
    }
}

/// Writes a few bytes of a staging file's head. They lie in one page, so that there is no part of it to go on with.
#[cfg(unix)]
fn write(file: &dyn RawFile, bytes: &[u8], at: u64) -> std::io::Result<()> {
    if file.write_at(bytes, at)? == bytes.len() { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::storage::disk::RealDisk;

    fn witness() -> Witness {
        let place = |n| Place { mount: n, device: n + 1, inode: n + 2, born: -3 };
        Witness { boot: *b"0123456789abcdef", directory: place(10), staging: place(20) }
    }

    #[test]
    fn is_believed_once_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("staging");
        std::fs::write(&path, [0; 4096]).unwrap();
        assert_eq!(Witness::take(&RealDisk::default(), &path), None, "zeros say nothing");
        witness().leave(&RealDisk::default(), &path).unwrap();
        let left = std::fs::read(&path).unwrap();
        assert_eq!(Witness::take(&RealDisk::default(), &path), Some(witness()));
        assert_eq!(Witness::take(&RealDisk::default(), &path), None, "it was taken back");
        for at in FLUSHES..TESTIMONY + PROVED + 4 {
            let mut bad = left.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(Witness::take(&RealDisk::default(), &path), None, "byte {at}");
        }
        std::fs::write(&path, &left[..100]).unwrap();
        assert_eq!(Witness::take(&RealDisk::default(), &path), None, "cut short");
        assert_eq!(Witness::take(&RealDisk::default(), folder.path()), None);
        assert!(witness().leave(&RealDisk::default(), folder.path()).is_err());
    }
}
