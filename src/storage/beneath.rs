//! Reaching what lies below a directory from the descriptor of that directory, over no link.
//!
//! A path that is looked at and then used by name may lead elsewhere by then: somebody put a link in the place of one of its
//! folders. Here nothing is looked at: each call goes from the directory, which is held open, to the end of the path, and fails
//! where it would go over a link or out of the directory. Linux does so in one call (`openat2`, since 5.6); where there is none,
//! or a sandbox knows none, the path is walked folder by folder.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, retry_on_intr};

use crate::storage::disk::NotRegular;

/// For a folder that something is looked for in: not to be read.
#[cfg(any(target_os = "linux", target_os = "android"))]
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that is held open.
#[derive(Debug)]
pub(crate) struct Root {
    held: OwnedFd,
    path: PathBuf,
}

/// A folder that a name is in.
pub(crate) enum Folder<'a> {
    Held(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Folder<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Folder::Held(held) => *held,
            Folder::Opened(opened) => opened.as_fd(),
        }
    }
}

impl Root {
    /// Holds the directory at `path`, whatever links lead to it: they are its owner's.
    pub(crate) fn hold(path: &Path) -> io::Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = retry_on_intr(|| openat(CWD, path, flags, Mode::empty()))?;
        Ok(Root { held, path: path.to_path_buf() })
    }

    /// Opens what is at `path`.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.reach(self.inside(path)?, flags).map_err(foreign)
    }

    /// The folder that `path` is in, and what it is called there.
    pub(crate) fn folder_of<'a>(&'a self, path: &'a Path) -> io::Result<(Folder<'a>, &'a Path)> {
        let path = self.inside(path)?;
        let (folder, name) = match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) => (folder, Path::new(name)),
            _ => (Path::new(""), path),
        };
        if folder == Path::new("") {
            return Ok((Folder::Held(self.held.as_fd()), name));
        }
        Ok((Folder::Opened(self.reach(folder, FOLDER).map_err(foreign)?), name))
    }

    /// `path` as it is called from here; all of it plain names, or `.`.
    fn inside<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        let below = path.strip_prefix(&self.path).ok();
        let Some(below) = below.filter(|p| p.components().all(|c| matches!(c, Component::Normal(_)))) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "path leads out of the directory"));
        };
        Ok(if below == Path::new("") { Path::new(".") } else { below })
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn reach(&self, below: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        use rustix::fs::{ResolveFlags, openat2};
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match retry_on_intr(|| openat2(&self.held, below, flags, mode_of(flags), how)) {
            // What a sandbox says is not told from what the file system says: then both walks say the same.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(below, flags),
            reached => reached,
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn reach(&self, below: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.walk(below, flags)
    }

    /// Goes to the end of a path folder by folder, each from the one before.
    fn walk(&self, below: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut at = Folder::Held(self.held.as_fd());
        for folder in below.parent().into_iter().flat_map(Path::components) {
            let next = retry_on_intr(|| openat(&at, folder.as_os_str(), FOLDER, Mode::empty()))?;
            at = Folder::Opened(next);
        }
        let name = below.file_name().unwrap_or(below.as_os_str());
        retry_on_intr(|| openat(&at, name, flags | OFlags::NOFOLLOW, mode_of(flags)))
    }
}

/// What a file that is made may be used for, and by whom.
pub(crate) fn mode_of(flags: OFlags) -> Mode {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let unnamed = flags.contains(OFlags::TMPFILE);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let unnamed = false;
    if unnamed || flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() }
}

/// What it means that a path would have gone over a link, or out of the directory while somebody moved its folders.
pub(crate) fn foreign(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => io::Error::other(NotRegular),
        errno => errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn scene() -> (tempfile::TempDir, Root) {
        let temp = tempfile::tempdir().unwrap();
        let (log, outside) = (temp.path().join("log"), temp.path().join("outside"));
        std::fs::create_dir_all(log.join("a/b")).unwrap();
        std::fs::write(log.join("a/b/f"), "inside").unwrap();
        std::fs::create_dir_all(outside.join("b")).unwrap();
        std::fs::write(outside.join("b/f"), "outside").unwrap();
        symlink(&outside, log.join("out")).unwrap();
        symlink("a", log.join("in")).unwrap();
        symlink("f", log.join("a/b/other")).unwrap();
        symlink(&log, temp.path().join("by-link")).unwrap();
        let root = Root::hold(&temp.path().join("by-link")).unwrap();
        (temp, root)
    }

    /// Where a path leads, by inode, or why it leads nowhere.
    fn told(opened: Result<OwnedFd, Errno>) -> Result<u64, String> {
        match opened.map_err(foreign) {
            Ok(opened) => Ok(rustix::fs::fstat(&opened).unwrap().st_ino),
            Err(e) if e.get_ref().is_some_and(|e| e.is::<NotRegular>()) => Err("foreign".into()),
            Err(e) => Err(format!("{:?}", e.kind())),
        }
    }

    #[test]
    fn one_call_and_the_walk_lead_to_the_same() {
        let (_temp, root) = scene();
        let foreign = ["out/b/f", "in/b/f", "a/b/other", "out", "a/b/f/g"];
        let missing = ["none", "a/none/f", "a/b/none"];
        for path in ["a", "a/b", "a/b/f", "."].iter().chain(&foreign).chain(&missing) {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let [reached, walked] = [root.reach(Path::new(path), flags), root.walk(Path::new(path), flags)];
            let reached = told(reached);
            assert_eq!(reached, told(walked), "{path}");
            assert_eq!(reached == Err("foreign".into()), foreign.contains(path), "{path}: {reached:?}");
            assert_eq!(reached == Err("NotFound".into()), missing.contains(path), "{path}: {reached:?}");
        }
    }

    #[test]
    fn what_is_not_below_is_no_path() {
        let (_temp, root) = scene();
        for path in ["/etc/passwd", "../outside/b/f", "a/../../outside/b/f", "a/../a/b/f"] {
            let path = root.path.join(path);
            let kinds = [root.open(&path, OFlags::RDONLY).err(), root.folder_of(&path).err()];
            assert!(
                kinds.iter().all(|e| e.as_ref().unwrap().kind() == io::ErrorKind::InvalidInput),
                "{kinds:?}"
            );
        }
        let (path, file) = (root.path.join("a/b/f"), root.path.join("top"));
        assert!(matches!(root.folder_of(&path), Ok((Folder::Opened(_), name)) if name == "f"));
        assert!(matches!(root.folder_of(&file), Ok((Folder::Held(_), name)) if name == "top"));
        assert!(matches!(root.folder_of(&root.path), Ok((Folder::Held(_), name)) if name == "."));
    }
}
