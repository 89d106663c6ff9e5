//! The file system behind a trait, so that tests can make it fail; [`RealDisk`] is the operating system's.
//!
//! Linux is the tested platform. Where there is no Unix, in-memory logs work and opening a directory is a clear
//! error.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
#[cfg(unix)]
use crate::storage::beneath::Root;
use crate::storage::file::RawFile;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    /// A link, a pipe, a device: never ours.
    Other,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) kind: EntryKind,
    pub(crate) len: u64,
}

/// What is at a path is not a regular file, or is reached over a link.
#[derive(Debug, thiserror::Error)]
#[error("not a regular file")]
pub(crate) struct NotRegular;

/// Which file or directory this is, beyond its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The mount that it was found on, by a number that the kernel gives once only before its next start.
    pub(crate) mount: u64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// When it was made, in nanoseconds: numbers of inodes are given again.
    pub(crate) born: i64,
}

/// What an open log needs of a file system. All paths are absolute; nothing follows a link at the path's end.
pub(crate) trait Disk: Send + Sync {
    /// The same disk as it is reached from the directory at `root`, which is held open. That may be a link, if its owner
    /// likes; of what lies below nothing is reached over a link, and everything else is no path.
    fn beneath(&self, root: &Path) -> io::Result<Arc<dyn Disk>>;
    /// Creates a file for reading and writing; the name must be free.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn RawFile>>;
    /// Creates a file in a folder that has no name until [`Disk::name`], and is gone if it is closed before.
    fn create_unnamed(&self, folder: &Path) -> io::Result<Box<dyn RawFile>> {
        let _ = folder;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Gives a file without a name this one, which must be free.
    fn name(&self, file: &dyn RawFile, path: &Path) -> io::Result<()> {
        let _ = (file, path);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Opens a regular file; anything else is [`NotRegular`].
    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn RawFile>>;
    /// Creates one directory, only for its owner.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// What is in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// What is at a path, if anything.
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;
    /// Gives a file or directory another name, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory survive a power cut.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The file system that a directory is on, where a flush of all of it tells of every failure; else `None`.
    fn volume(&self, path: &Path) -> io::Result<Option<Box<dyn Volume>>>;
    /// Opens or creates a file and locks it until the result is dropped; `None` where another handle, in any
    /// process, has it locked.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// What tells this run of the kernel from every other; `None` where it cannot be known.
    fn boot(&self) -> Option<[u8; 16]>;
    /// Which file or directory is at a path; `None` where it cannot be known for certain, or where this kernel is not
    /// the only keeper of what was written there: on a network, or behind another program.
    fn place(&self, path: &Path) -> Option<Place>;
}

/// A file system that can be flushed as a whole, by who has had it open since before anything was written: so it hears of
/// every write-back that failed meanwhile.
pub(crate) trait Volume: Send + Sync {
    /// Makes everything that was written and named so far survive a power cut.
    fn sync(&self) -> io::Result<()>;
    /// Tells it from others, as [`crate::storage::file::FileId`] does.
    fn device(&self) -> u64;
}

/// [`Error::io`], with what a name can be besides: absent, or not ours.
pub(crate) fn named(what: &str, path: &Path, source: io::Error) -> Error {
    let kind = if source.kind() == io::ErrorKind::NotFound {
        ErrorKind::NotFound
    } else if source.get_ref().is_some_and(|inner| inner.is::<NotRegular>()) {
        ErrorKind::ForeignFile
    } else {
        return Error::io(what, path, source);
    };
    Error::new(kind, format!("cannot {what}")).at_path(path).caused_by(source)
}

/// The operating system's file system.
#[derive(Debug, Clone, Default)]
pub(crate) struct RealDisk {
    /// Where it is reached from; without, paths lead where they lead.
    #[cfg(unix)]
    root: Option<Arc<Root>>,
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::fs::File;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    #[cfg(any(target_os = "linux", target_os = "android"))]
    use rustix::fs::linkat;
    use rustix::fs::{
        AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat, fstat, mkdirat, openat, renameat,
        statat, unlinkat,
    };
    use rustix::io::{Errno, retry_on_intr};

    use super::*;
    use crate::storage::beneath::{Folder, foreign, mode_of};

    impl RealDisk {
        /// Opens what is at `path`.
        fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<File> {
            let flags = flags | OFlags::CLOEXEC;
            let opened = match &self.root {
                Some(root) => root.open(path, flags)?,
                None => retry_on_intr(|| openat(CWD, path, flags, mode_of(flags))).map_err(foreign)?,
            };
            Ok(opened.into())
        }

        /// Opens a regular file and nothing else: not over a link, and not waiting for the other end of a pipe.
        fn open_file(&self, path: &Path, flags: OFlags) -> io::Result<File> {
            let opened = self.open_at(path, flags | OFlags::NOFOLLOW | OFlags::NONBLOCK);
            let file = opened.map_err(|e| match e.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NXIO | Errno::ISDIR) => io::Error::other(NotRegular),
                _ => e,
            })?;
            if kind_of(&fstat(&file)?) == EntryKind::File {
                Ok(file)
            } else {
                Err(io::Error::other(NotRegular))
            }
        }

        fn open_dir(&self, path: &Path) -> io::Result<File> {
            self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
        }

        /// The folder that `path` is in, and what it is called there.
        fn folder_of<'a>(&'a self, path: &'a Path) -> io::Result<(Folder<'a>, &'a Path)> {
            match &self.root {
                Some(root) => root.folder_of(path),
                None => Ok((Folder::Held(CWD), path)),
            }
        }

        fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
            let found = self.folder_of(path).and_then(|(folder, name)| {
                Ok(retry_on_intr(|| statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW))?)
            });
            match found {
                Ok(found) => Ok(Some(found)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        }

        fn unlink(&self, path: &Path, flags: AtFlags) -> io::Result<()> {
            let (folder, name) = self.folder_of(path)?;
            Ok(retry_on_intr(|| unlinkat(&folder, name, flags))?)
        }

        /// Locks the folder that the file at `path` is in; `None` where another handle has. Whoever is there already may have
        /// had the file removed under him, and holds what has no name any more.
        fn lock_folder(&self, path: &Path) -> io::Result<Option<File>> {
            let folder = self.open_dir(path.parent().unwrap_or(path))?;
            loop {
                match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                    Err(Errno::WOULDBLOCK) => return Ok(None),
                    Err(Errno::INTR) => {}
                    // There are file systems that lock files only.
                    Ok(()) | Err(_) => return Ok(Some(folder)),
                }
            }
        }
    }

    fn kind_of(found: &Stat) -> EntryKind {
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            _ => EntryKind::Other,
        }
    }

    impl Disk for RealDisk {
        fn beneath(&self, root: &Path) -> io::Result<Arc<dyn Disk>> {
            Ok(Arc::new(RealDisk { root: Some(Arc::new(Root::hold(root)?)) }))
        }

        fn create_new(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
            Ok(Box::new(self.open_at(path, flags)?))
        }

        #[cfg(any(target_os = "linux", target_os = "android"))]
        fn create_unnamed(&self, folder: &Path) -> io::Result<Box<dyn RawFile>> {
            Ok(Box::new(self.open_at(folder, OFlags::RDWR | OFlags::TMPFILE)?))
        }

        #[cfg(any(target_os = "linux", target_os = "android"))]
        fn name(&self, file: &dyn RawFile, path: &Path) -> io::Result<()> {
            let file = file.descriptor().ok_or(io::ErrorKind::Unsupported)?;
            let (folder, name) = self.folder_of(path)?;
            // By descriptor alone only the superuser may.
            let here = format!("/proc/self/fd/{}", file.as_raw_fd());
            Ok(linkat(CWD, here, &folder, name, AtFlags::SYMLINK_FOLLOW)?)
        }

        fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn RawFile>> {
            let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
            Ok(Box::new(self.open_file(path, flags)?))
        }

        fn create_dir(&self, path: &Path) -> io::Result<()> {
            let (folder, name) = self.folder_of(path)?;
            Ok(retry_on_intr(|| mkdirat(&folder, name, Mode::RWXU))?)
        }

        fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
            let mut folder = Dir::new(self.open_dir(path)?)?;
            let mut entries = Vec::new();
            while let Some(entry) = folder.read() {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                match statat(folder.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                    #[allow(clippy::cast_sign_loss)] // no file is shorter than nothing
                    Ok(found) => entries.push(Entry {
                        name: name.to_os_string(),
                        kind: kind_of(&found),
                        len: found.st_size as u64,
                    }),
                    Err(Errno::NOENT) => {} // removed meanwhile
                    Err(e) => return Err(e.into()),
                }
            }
            Ok(entries)
        }

        fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
            Ok(self.stat(path)?.map(|found| kind_of(&found)))
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            let ((from, old), (to, new)) = (self.folder_of(from)?, self.folder_of(to)?);
            Ok(retry_on_intr(|| renameat(&from, old, &to, new))?)
        }

        fn remove_file(&self, path: &Path) -> io::Result<()> {
            self.unlink(path, AtFlags::empty())
        }

        fn remove_dir(&self, path: &Path) -> io::Result<()> {
            self.unlink(path, AtFlags::REMOVEDIR)
        }

        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.open_dir(path)?.sync_all()
        }

        #[cfg(target_os = "linux")]
        fn volume(&self, path: &Path) -> io::Result<Option<Box<dyn Volume>>> {
            let root = self.open_dir(path)?;
            let kind = rustix::fs::fstatfs(&root)?.f_type;
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            #[allow(clippy::unnecessary_cast)] // its type differs from platform to platform
            let tells = TELLING.contains(&(kind as u32)) && tells_of_failures(&release);
            let device = root.metadata()?.dev();
            Ok(tells.then(|| Box::new(LinuxVolume { root, device }) as Box<dyn Volume>))
        }

        #[cfg(not(target_os = "linux"))]
        fn volume(&self, _: &Path) -> io::Result<Option<Box<dyn Volume>>> {
            Ok(None)
        }

        fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
            loop {
                let file = self.open_file(path, OFlags::RDWR | OFlags::CREATE)?;
                match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => {}
                    Err(Errno::WOULDBLOCK) => return Ok(None),
                    Err(Errno::INTR) => continue,
                    Err(e) => return Err(e.into()),
                }
                // Someone may have removed the file between opening and locking: then this lock keeps nobody
                // out, since the next one creates and locks another file.
                let ours = fstat(&file)?;
                let now = self.stat(path)?;
                if now.is_some_and(|now| (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino)) {
                    let process = std::process::id();
                    let held = |folder| -> Box<dyn Send + Sync> { Box::new(Held { file, folder, process }) };
                    return Ok(self.lock_folder(path)?.map(held));
                }
            }
        }

        fn boot(&self) -> Option<[u8; 16]> {
            boot_id()
        }

        #[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
        fn place(&self, path: &Path) -> Option<Place> {
            #[cfg(target_os = "linux")]
            return place_of(&self.open_at(path, OFlags::PATH).ok()?);
            #[cfg(not(target_os = "linux"))]
            return None;
        }
    }

    #[cfg(target_os = "linux")]
    fn boot_id() -> Option<[u8; 16]> {
        use std::io::Read;
        let mut file = File::open("/proc/sys/kernel/random/boot_id").ok()?;
        // Containers are known to mount files of their own in its place.
        if rustix::fs::fstatfs(&file).ok()?.f_type != rustix::fs::PROC_SUPER_MAGIC {
            return None;
        }
        let mut text = [0; 36];
        file.read_exact(&mut text).ok()?;
        let digits: String = std::str::from_utf8(&text).ok()?.split('-').collect();
        Some(u128::from_str_radix(&digits, 16).ok().filter(|id| *id != 0)?.to_be_bytes())
    }

    #[cfg(target_os = "linux")]
    fn place_of(found: &File) -> Option<Place> {
        use rustix::fs::{StatxFlags, fstatfs, statx};
        /// The number of the mount that is never given twice, since Linux 6.8.
        const MNT_ID_UNIQUE: u32 = 0x4000;
        /// ext2 to ext4, XFS, Btrfs, F2FS, tmpfs: what was written is in this kernel's memory until it is on a disk.
        const LOCAL: [u32; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x0102_1994];
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 32 bits on every platform
        let kind = fstatfs(found).ok()?.f_type as u32;
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let mask = StatxFlags::from_bits_retain(wanted.bits() | MNT_ID_UNIQUE);
        let found = statx(found, "", AtFlags::EMPTY_PATH, mask).ok()?;
        if !LOCAL.contains(&kind) || found.stx_mask & mask.bits() != mask.bits() {
            return None;
        }
        Some(Place {
            mount: found.stx_mnt_id,
            device: u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor),
            inode: found.stx_ino,
            born: found.stx_btime.tv_sec.wrapping_mul(1_000_000_000) + i64::from(found.stx_btime.tv_nsec),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn boot_id() -> Option<[u8; 16]> {
        None
    }

    /// File systems whose `syncfs` is known to tell: ext2 to ext4, XFS, btrfs, tmpfs. One that lies on top of another may
    /// not hear of what fails below.
    #[cfg(target_os = "linux")]
    const TELLING: [u32; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994];

    /// Whether `syncfs` tells of write-backs that failed: since Linux 5.8.
    #[cfg(target_os = "linux")]
    pub(super) fn tells_of_failures(release: &str) -> bool {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 8)
    }

    #[cfg(target_os = "linux")]
    struct LinuxVolume {
        root: File,
        device: u64,
    }

    #[cfg(target_os = "linux")]
    impl Volume for LinuxVolume {
        fn sync(&self) -> io::Result<()> {
            Ok(rustix::fs::syncfs(&self.root)?)
        }

        fn device(&self) -> u64 {
            self.device
        }
    }

    /// A locked file, and the folder that it is in. A forked child shares the lock: it must not release it for its parent, and the parent must
    /// release it, not merely close its descriptor, to be rid of it while the child lives.
    struct Held {
        file: File,
        folder: File,
        process: u32,
    }

    impl Drop for Held {
        fn drop(&mut self) {
            if std::process::id() == self.process {
                // Closing the descriptor does the same where nobody forked.
                for locked in [&self.folder, &self.file] {
                    let _ = rustix::fs::flock(locked, FlockOperation::Unlock);
                }
            }
        }
    }
}

#[cfg(not(unix))]
impl Disk for RealDisk {
    fn beneath(&self, _: &Path) -> io::Result<Arc<dyn Disk>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn create_new(&self, _: &Path) -> io::Result<Box<dyn RawFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn open(&self, _: &Path, _: bool) -> io::Result<Box<dyn RawFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<Entry>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn kind(&self, _: &Path) -> io::Result<Option<EntryKind>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove_file(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn volume(&self, _: &Path) -> io::Result<Option<Box<dyn Volume>>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn boot(&self) -> Option<[u8; 16]> {
        None
    }
    fn place(&self, _: &Path) -> Option<Place> {
        None
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::unix::tells_of_failures;

    #[test]
    fn knows_which_kernels_tell_of_failures() {
        let releases = ["4.19.0-27-amd64", "5.7.99", "5.8.0", "5.15", "6.18.44-fc-v657", "", "x.9"];
        assert_eq!(releases.map(tells_of_failures), [false, false, true, true, true, false, false]);
    }
}
