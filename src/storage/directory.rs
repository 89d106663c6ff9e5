//! One directory of a log: names relative to its root, errors that name the path, and the lock.

use std::collections::HashSet;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::descriptors::{Descriptors, is_out_of_descriptors};
use crate::storage::disk::{Disk, Entry, EntryKind, Place, named};
use crate::storage::file::{File, FileId, Latch, RawFile, Shared, as_storage};
#[cfg(unix)]
use crate::storage::mapping::FlushCount;

/// The file that a writer holds locked.
const LOCK: &str = "LOCK";

/// A directory and everything below it. Nothing outside is ever touched: relative paths consist of plain names.
pub(crate) struct Directory {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    latch: Arc<Latch>,
    descriptors: Arc<Descriptors>,
    /// Folders that this process has made or found.
    made: Mutex<HashSet<PathBuf>>,
    /// Folders whose own entry this process has flushed.
    flushed: Mutex<HashSet<PathBuf>>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Directory").field(&self.root).finish()
    }
}

/// A folder that staging files lie in, and the disk as it is reached from there.
pub(crate) struct StagingFolder {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
}

/// Keeps other writers out until dropped.
pub(crate) struct DirectoryLock(#[allow(dead_code)] Box<dyn Send + Sync>);

impl std::fmt::Debug for DirectoryLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectoryLock")
    }
}

impl Directory {
    /// The directory at `path`, created with its parents where it is missing.
    pub(crate) fn open_or_create(path: &Path, disk: Arc<dyn Disk>) -> Result<Self> {
        let mut directory = Self::at(path, disk)?;
        let missing = |path: &Path| match directory.disk.kind(path) {
            Ok(found) => Ok(found.is_none()),
            Err(e) => Err(named("look at", path, e)),
        };
        let mut to_create = Vec::new();
        for ancestor in directory.root.ancestors() {
            if !missing(ancestor)? {
                break;
            }
            to_create.push(ancestor);
        }
        for path in to_create.into_iter().rev() {
            match directory.disk.create_dir(path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(named("create directory", path, e)),
            }
            if let Some(parent) = path.parent() {
                directory.sync_folder(parent, None)?;
            }
        }
        directory.enter()?;
        Ok(directory)
    }

    /// The directory at `path`, which must be there: else [`ErrorKind::NotFound`].
    pub(crate) fn open_existing(path: &Path, disk: Arc<dyn Disk>) -> Result<Self> {
        let mut directory = Self::at(path, disk)?;
        directory.enter()?;
        Ok(directory)
    }

    fn at(path: &Path, disk: Arc<dyn Disk>) -> Result<Self> {
        if cfg!(not(unix)) {
            let message = "a log on disk needs Unix; on this platform a log can be in memory only";
            return Err(Error::new(ErrorKind::Unsupported, message).at_path(path));
        }
        let root = std::path::absolute(path).map_err(|e| named("resolve", path, e))?;
        Ok(Directory {
            root,
            disk,
            latch: Arc::default(),
            descriptors: Arc::new(Descriptors::of_process()),
            made: Mutex::default(),
            flushed: Mutex::default(),
        })
    }

    /// From here on everything is reached from the root, which is held open. It may be a link, if its owner likes; what
    /// that leads to must be a directory.
    fn enter(&mut self) -> Result<()> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotADirectory => {
                Error::new(ErrorKind::ForeignFile, "not a directory").at_path(&self.root)
            }
            _ => named("open directory", &self.root, e),
        };
        let disk = self.disk.beneath(&self.root).map_err(failed)?;
        let volume = disk.volume(&self.root).map_err(failed)?;
        volume.into_iter().for_each(|volume| self.descriptors.flush_together(volume));
        self.disk = disk;
        Ok(())
    }

    /// Where the directory is, absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// For tests: another bound on how many files are open.
    #[cfg(test)]
    pub(crate) fn limit_descriptors(&mut self, limit: usize) {
        let volume = self.disk.volume(&self.root).unwrap();
        self.descriptors = Arc::new(Descriptors::new(limit));
        volume.into_iter().for_each(|volume| self.descriptors.flush_together(volume));
    }

    #[cfg(test)]
    pub(crate) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// The first failure of this directory, if any.
    pub(crate) fn latch(&self) -> &Arc<Latch> {
        &self.latch
    }

    /// What it lies on, as it is reached from its root.
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The folder at `path`, or this one, for staging files.
    pub(crate) fn staging(&self, path: Option<&Path>) -> Result<StagingFolder> {
        let Some(path) = path else {
            return Ok(StagingFolder { disk: Arc::clone(&self.disk), path: self.root.clone() });
        };
        let disk = self.descriptors.spend(|| self.disk.beneath(path));
        let disk = disk.map_err(|e| named("open the staging folder", path, e))?;
        Ok(StagingFolder { disk, path: path.to_path_buf() })
    }

    /// See [`Disk::boot`].
    pub(crate) fn boot(&self) -> Option<[u8; 16]> {
        self.disk.boot()
    }

    /// See [`Disk::place`].
    pub(crate) fn place(&self, path: &Path) -> Option<Place> {
        self.disk.place(path)
    }

    /// Has every flush from now on counted in the staging file at `path`, see `witness.rs`.
    #[cfg(unix)]
    pub(crate) fn count_flushes_in(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        self.latch.count_flushes_in(FlushCount::open(disk, path)?);
        Ok(())
    }

    #[cfg(not(unix))]
    pub(crate) fn count_flushes_in(&self, _: &dyn Disk, path: &Path) -> Result<()> {
        Err(crate::storage::staging::unsupported(path))
    }

    /// The absolute path of `rel`.
    pub(crate) fn path(&self, rel: &Path) -> Result<PathBuf> {
        if rel.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            Ok(self.root.join(rel))
        } else {
            Err(Error::new(ErrorKind::InvalidArgument, "path leads out of the directory").at_path(rel))
        }
    }

    /// What it means that something could not be done with what is in `folder`. Where the way there leads over something
    /// else, that is what is told.
    fn failed<'a>(
        &self,
        what: &str,
        path: &Path,
        folders: impl IntoIterator<Item = &'a Path>,
        source: io::Error,
    ) -> Error {
        let not_a_folder = source.kind() == io::ErrorKind::NotADirectory;
        let error = named(what, path, source);
        if !not_a_folder && error.kind() != ErrorKind::ForeignFile {
            return error;
        }
        let mut on_the_way: Vec<_> = folders.into_iter().flat_map(Path::ancestors).collect();
        on_the_way.reverse();
        let is_other =
            |path: &PathBuf| matches!(self.disk.kind(path), Ok(Some(EntryKind::File | EntryKind::Other)));
        let other = on_the_way.into_iter().map(|rel| self.root.join(rel)).find(is_other);
        other.map_or(error, |other| not_a_directory(&other))
    }

    /// Creates a file for reading and writing; the name must be free.
    pub(crate) fn create(&self, rel: &Path) -> Result<File> {
        let (raw, path) = self.create_new(rel)?;
        Ok(File::new(raw, path, Arc::clone(&self.latch)))
    }

    /// The same for a file that will be there for long: it is closed and opened again as descriptors are wanted.
    pub(crate) fn create_shared(&self, rel: &Path) -> Result<File> {
        self.descriptors.make_room(true);
        let (raw, path) = self.create_new(rel)?;
        let id = raw.id().map_err(|e| Error::io("look at", &path, e))?;
        Ok(self.share(Some(raw), path, true, id))
    }

    /// A file in a folder that is gone when it is closed, unless [`Directory::name_shared`] has given it a name. Its failures
    /// are nobody's but the caller's.
    pub(crate) fn create_unnamed(&self, folder: &Path) -> Result<Box<dyn RawFile>> {
        self.latch.check()?;
        let path = self.path(folder)?;
        self.disk.create_unnamed(&path).map_err(|e| named("create a file in", &path, e))
    }

    /// Gives such a file its name, which must be free.
    pub(crate) fn name_shared(&self, raw: Box<dyn RawFile>, rel: &Path) -> Result<File> {
        self.latch.check()?;
        let path = self.path(rel)?;
        self.descriptors.make_room(true);
        let id = raw.id().map_err(|e| Error::io("look at", &path, e))?;
        self.disk.name(&*raw, &path).map_err(|e| named("name", &path, e))?;
        Ok(self.share(Some(raw), path, true, id))
    }

    fn create_new(&self, rel: &Path) -> Result<(Box<dyn RawFile>, PathBuf)> {
        self.latch.check()?;
        let path = self.path(rel)?;
        let raw = self.descriptors.spend(|| self.disk.create_new(&path));
        Ok((raw.map_err(|e| self.failed("create", &path, rel.parent(), e))?, path))
    }

    /// A file that is there and was `id` when it was last looked at; it is opened when it is used.
    pub(crate) fn shared(&self, rel: &Path, write: bool, id: FileId) -> Result<File> {
        Ok(self.share(None, self.path(rel)?, write, id))
    }

    fn share(&self, raw: Option<Box<dyn RawFile>>, path: PathBuf, write: bool, id: FileId) -> File {
        let (disk, descriptors) = (Arc::clone(&self.disk), Arc::clone(&self.descriptors));
        File::shared(raw, path, Arc::clone(&self.latch), Shared { disk, descriptors, write, id })
    }

    /// Opens a regular file; a link, pipe or device is [`ErrorKind::ForeignFile`].
    pub(crate) fn open(&self, rel: &Path, write: bool) -> Result<File> {
        let path = self.path(rel)?;
        let raw = self.descriptors.spend(|| self.disk.open(&path, write));
        let raw = raw.map_err(|e| self.failed("open", &path, rel.parent(), e))?;
        Ok(File::new(raw, path, Arc::clone(&self.latch)))
    }

    /// Makes what was written to `files` survive a power cut; true where their names do as well then.
    pub(crate) fn flush(&self, files: &[&File]) -> Result<bool> {
        let handles: Vec<_> = files.iter().map(|file| Arc::clone(file.handle())).collect();
        self.descriptors.flush(&handles)
    }

    /// What makes a flush of each of `files` short, where they are many; true where their names need none any more.
    pub(crate) fn write_back(&self, files: &[&File]) -> bool {
        let handles: Vec<_> = files.iter().map(|file| Arc::clone(file.handle())).collect();
        self.descriptors.write_back(&handles)
    }

    pub(crate) fn exists(&self, rel: &Path) -> Result<bool> {
        Ok(self.kind(rel)?.is_some())
    }

    fn kind(&self, rel: &Path) -> Result<Option<EntryKind>> {
        let path = self.path(rel)?;
        let found = self.descriptors.spend(|| self.disk.kind(&path));
        found.map_err(|e| self.failed("look at", &path, rel.parent(), e))
    }

    /// What is in a folder, by name.
    pub(crate) fn list(&self, rel: &Path) -> Result<Vec<Entry>> {
        let path = self.path(rel)?;
        let listed = self.descriptors.spend(|| self.disk.list(&path));
        let mut entries = listed.map_err(|e| self.failed("list", &path, Some(rel), e))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Creates the folders of `rel` that are missing; a power cut may take them until [`Directory::sync_names`].
    pub(crate) fn make_dirs(&self, rel: &Path) -> Result<()> {
        self.latch.check()?;
        self.path(rel)?;
        if self.made.lock().contains(rel) {
            return Ok(());
        }
        let mut folder = PathBuf::new();
        for name in rel.components() {
            folder.push(name);
            if self.made.lock().contains(&folder) {
                continue;
            }
            let path = self.root.join(&folder);
            match self.descriptors.spend(|| self.disk.create_dir(&path)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    if self.kind(&folder)? != Some(EntryKind::Directory) {
                        return Err(not_a_directory(&path));
                    }
                }
                Err(e) => return Err(self.failed("create directory", &path, folder.parent(), e)),
            }
            self.made.lock().insert(folder.clone());
        }
        Ok(())
    }

    /// Makes the folders of `rel` survive a power cut.
    ///
    /// A folder that was there is flushed too, once per process: whoever made it may have died before.
    pub(crate) fn sync_names(&self, rel: &Path) -> Result<()> {
        for folder in rel.ancestors().filter(|folder| *folder != Path::new("")) {
            if self.flushed.lock().contains(folder) {
                continue;
            }
            let parent = folder.parent().unwrap_or(Path::new(""));
            // One flush is good for all that were made in the same folder before.
            let made: Vec<PathBuf> = {
                let flushed = self.flushed.lock();
                let beside = |f: &&PathBuf| f.parent() == Some(parent) && !flushed.contains(*f);
                self.made.lock().iter().filter(beside).cloned().collect()
            };
            self.sync_dir(parent)?;
            let mut flushed = self.flushed.lock();
            flushed.extend(made);
            flushed.insert(folder.to_path_buf());
        }
        Ok(())
    }

    /// Creates the folders of `rel` that are missing and makes all of them survive a power cut.
    pub(crate) fn create_dir_all(&self, rel: &Path) -> Result<()> {
        self.make_dirs(rel)?;
        self.sync_names(rel)
    }

    /// Removes a file; its absence survives a power cut after [`Directory::sync_dir`] of its folder.
    pub(crate) fn remove_file(&self, rel: &Path) -> Result<()> {
        let path = self.path(rel)?;
        let removed = self.descriptors.spend(|| self.disk.remove_file(&path));
        removed.map_err(|e| self.failed("remove", &path, rel.parent(), e))
    }

    /// Removes a folder and what is in it; one that is not there is as good as removed.
    pub(crate) fn remove_dir_all(&self, rel: &Path) -> Result<()> {
        let entries = match self.list(rel) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let inner = rel.join(&entry.name);
            match entry.kind {
                EntryKind::Directory => self.remove_dir_all(&inner)?,
                // A link is removed, never what it leads to.
                EntryKind::File | EntryKind::Other => self.remove_file(&inner)?,
            }
        }
        let path = self.path(rel)?;
        self.made.lock().remove(rel);
        self.flushed.lock().remove(rel);
        let removed = self.descriptors.spend(|| self.disk.remove_dir(&path));
        removed.map_err(|e| self.failed("remove directory", &path, rel.parent(), e))
    }

    /// Gives a file or folder another name inside this directory.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.latch.check()?;
        let (old, new) = (self.path(from)?, self.path(to)?);
        let renamed = self.descriptors.spend(|| self.disk.rename(&old, &new));
        let folders = || [from, to].into_iter().filter_map(Path::parent);
        renamed.map_err(|e| self.failed("rename", &old, folders(), e))?;
        self.made.lock().retain(|f| !f.starts_with(from));
        self.flushed.lock().retain(|f| !f.starts_with(from));
        Ok(())
    }

    /// Makes the names in a folder survive a power cut; like any flush, one failure is for ever.
    pub(crate) fn sync_dir(&self, rel: &Path) -> Result<()> {
        self.sync_folder(&self.path(rel)?, Some(rel))
    }

    fn sync_folder(&self, path: &Path, rel: Option<&Path>) -> Result<()> {
        self.latch.check()?;
        self.descriptors.spend(|| self.disk.sync_dir(path)).map_err(|e| {
            let out_of_descriptors = is_out_of_descriptors(&e);
            let error = self.failed("flush directory", path, rel, e);
            // Without a descriptor, or a folder, nothing was flushed, and nothing was said to be: that may be tried again.
            let passes = out_of_descriptors || error.kind() == ErrorKind::ForeignFile;
            if passes { error } else { self.latch.fail(as_storage("flush directory", error)) }
        })
    }

    /// All of a small file; one longer than `max_len` is not what its name says.
    pub(crate) fn read(&self, rel: &Path, max_len: usize) -> Result<Vec<u8>> {
        const STEP: usize = 64 * 1024;
        let file = self.open(rel, false)?;
        // One byte more than there is, so that the end shows; where it has grown, there are further steps.
        let step = usize::try_from(file.len()?).map_or(STEP, |len| (len + 1).min(STEP));
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            bytes.resize(start + step.min(max_len + 1 - start), 0);
            let got = file.read_at_most(&mut bytes[start..], start as u64)?;
            bytes.truncate(start + got);
            if bytes.len() > max_len {
                let message = format!("file is longer than the {max_len} bytes that it may have");
                return Err(Error::new(ErrorKind::ForeignFile, message).at_path(file.path()));
            }
            if got == 0 {
                return Ok(bytes);
            }
        }
    }

    /// Writes a whole file, so that after a crash at any moment either the old bytes or the new are there.
    pub(crate) fn replace(&self, rel: &Path, bytes: &[u8]) -> Result<()> {
        let Some(name) = rel.file_name() else {
            return Err(Error::new(ErrorKind::InvalidArgument, "not the name of a file").at_path(rel));
        };
        let mut temporary = name.to_os_string();
        temporary.push(".tmp");
        let temporary = rel.with_file_name(temporary);
        match self.remove_file(&temporary) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let written = self.create(&temporary).and_then(|file| {
            if !bytes.is_empty() {
                // So that a full disk shows here, where it is harmless, and not at the flush.
                file.allocate(0, bytes.len() as u64)?;
            }
            file.write_all_at(bytes, 0)?;
            file.sync()?;
            self.rename(&temporary, rel)
        });
        if let Err(e) = written {
            // The old file stands; what is left of the new one is in the way of nobody.
            let _ = self.remove_file(&temporary);
            return Err(e);
        }
        self.sync_dir(rel.parent().unwrap_or(Path::new("")))
    }

    /// Keeps every other writer, in this process or another, out of this directory.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] where there is one, [`ErrorKind::ReadOnly`] where the directory cannot be written.
    pub(crate) fn lock(&self) -> Result<DirectoryLock> {
        let path = self.root.join(LOCK);
        match self.disk.lock(&path) {
            Ok(Some(held)) => Ok(DirectoryLock(held)),
            Ok(None) => {
                let message = "another handle, in this process or another, has the log open";
                Err(Error::new(ErrorKind::Locked, message).at_path(&self.root))
            }
            Err(e) => Err(named("lock", &path, e)),
        }
    }
}

fn not_a_directory(path: &Path) -> Error {
    Error::new(ErrorKind::ForeignFile, "not a directory").at_path(path)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::storage::disk::RealDisk;
    use crate::storage::fault::{Fault, FaultDisk, FaultPlan, Op};

    fn directory() -> (tempfile::TempDir, Directory) {
        let temp = tempfile::tempdir().unwrap();
        let directory =
            Directory::open_or_create(&temp.path().join("a/b"), Arc::new(RealDisk::default())).unwrap();
        (temp, directory)
    }

    #[test]
    fn creates_replaces_lists_and_removes() {
        use std::os::unix::fs::PermissionsExt;
        let (_temp, d) = directory();
        let p = Path::new;
        d.create_dir_all(p("x/y")).unwrap();
        d.create_dir_all(p("x/y")).unwrap();
        d.replace(p("x/state"), b"one").unwrap();
        d.replace(p("x/state"), b"second").unwrap();
        assert_eq!(d.read(p("x/state"), 6).unwrap(), b"second");
        assert_eq!(d.read(p("x/state"), 5).unwrap_err().kind(), ErrorKind::ForeignFile);
        assert_eq!(d.read(p("x/none"), 5).unwrap_err().kind(), ErrorKind::NotFound);
        let names: Vec<_> = d.list(p("x")).unwrap().into_iter().map(|e| (e.name, e.kind, e.len)).collect();
        assert_eq!(names[0], ("state".into(), EntryKind::File, 6));
        assert_eq!((&names[1].0, names[1].1), (&"y".into(), EntryKind::Directory));
        let mode = |rel| std::fs::metadata(d.root().join(rel)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("x"), mode("x/state")), (0o700, 0o600));
        d.rename(p("x/state"), p("x/y/state")).unwrap();
        assert!(d.exists(p("x/y/state")).unwrap() && !d.exists(p("x/state")).unwrap());
        d.remove_dir_all(p("x")).unwrap();
        d.remove_dir_all(p("x")).unwrap();
        assert!(!d.exists(p("x")).unwrap());
        assert!(d.create(p("../z")).is_err() && d.create(p("/z")).is_err());
    }

    #[test]
    fn links_pipes_and_folders_are_foreign() {
        let (_temp, d) = directory();
        std::os::unix::fs::symlink("/etc/passwd", d.root().join("link")).unwrap();
        std::fs::create_dir(d.root().join("folder")).unwrap();
        let fifo = std::ffi::CString::new(d.root().join("fifo").to_str().unwrap()).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            fifo.as_c_str(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        for name in ["link", "folder", "fifo"] {
            assert_eq!(d.open(Path::new(name), false).unwrap_err().kind(), ErrorKind::ForeignFile, "{name}");
        }
        assert_eq!(d.create_dir_all(Path::new("link")).unwrap_err().kind(), ErrorKind::ForeignFile);
        std::os::unix::fs::symlink("/etc", d.root().join("folder/etc")).unwrap();
        d.remove_dir_all(Path::new("folder")).unwrap();
        assert!(Path::new("/etc/passwd").exists());
    }

    /// Only the last name of a path was looked at: with a link for its folder, a topic that was deleted took files outside
    /// along, and records of another directory were read and written as if they were here.
    #[test]
    fn a_link_in_the_place_of_a_folder_is_not_gone_through() {
        let (temp, d) = directory();
        let (p, outside) = (Path::new, temp.path().join("outside"));
        std::fs::create_dir_all(outside.join("0")).unwrap();
        std::fs::write(outside.join("0/f"), "mine").unwrap();
        std::os::unix::fs::symlink(&outside, d.root().join("topic")).unwrap();
        let failed = [
            d.remove_dir_all(p("topic")).unwrap_err(),
            d.remove_dir_all(p("topic/0")).unwrap_err(),
            d.remove_file(p("topic/0/f")).unwrap_err(),
            d.rename(p("topic/0/f"), p("f")).unwrap_err(),
            d.open(p("topic/0/f"), false).unwrap_err(),
            d.create(p("topic/g")).unwrap_err(),
            d.list(p("topic")).unwrap_err(),
            d.exists(p("topic/0")).unwrap_err(),
            d.sync_dir(p("topic")).unwrap_err(),
            d.create_dir_all(p("topic/1")).unwrap_err(),
        ];
        assert!(failed.iter().all(|e| e.kind() == ErrorKind::ForeignFile), "{failed:?}");
        assert!(failed.iter().all(|e| e.path() == Some(d.root().join("topic").as_path())), "{failed:?}");
        assert_eq!(std::fs::read(outside.join("0/f")).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    }

    /// A folder was looked at once; what it led to later, as a link, was written, read and deleted as if it were here.
    #[test]
    fn a_folder_that_becomes_a_link_is_not_gone_through() {
        let (temp, d) = directory();
        let (p, outside) = (Path::new, temp.path().join("outside"));
        for folder in [d.root().join("topic/0"), outside.join("0")] {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("f"), "mine").unwrap();
        }
        d.create_dir_all(p("topic/0")).unwrap();
        let file = d.open(p("topic/0/f"), true).unwrap();
        let id = file.id().unwrap();
        assert_eq!(d.list(p("topic/0")).unwrap().len(), 1);
        std::fs::rename(d.root().join("topic"), temp.path().join("was")).unwrap();
        std::os::unix::fs::symlink(&outside, d.root().join("topic")).unwrap();
        let failed = [
            d.remove_dir_all(p("topic/0")).unwrap_err(),
            d.remove_file(p("topic/0/f")).unwrap_err(),
            d.rename(p("topic/0/f"), p("f")).unwrap_err(),
            d.open(p("topic/0/f"), false).unwrap_err(),
            d.shared(p("topic/0/f"), false, id).unwrap().len().unwrap_err(),
            d.create(p("topic/0/g")).unwrap_err(),
            d.list(p("topic/0")).unwrap_err(),
            d.sync_dir(p("topic/0")).unwrap_err(),
            d.create_dir_all(p("topic/1")).unwrap_err(),
        ];
        assert!(failed.iter().all(|e| e.kind() == ErrorKind::ForeignFile), "{failed:?}");
        assert_eq!(std::fs::read(outside.join("0/f")).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(outside.join("0")).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        // What is open already is what it was.
        file.write_all_at(b"more", 4).unwrap();
        assert_eq!(std::fs::read(temp.path().join("was/0/f")).unwrap(), b"minemore");
    }

    /// So is the directory itself, and that of the staging files.
    #[test]
    fn directories_are_held_whatever_comes_in_their_place() {
        let (temp, d) = directory();
        let (p, at) = (Path::new, |name: &str| temp.path().join(name));
        for name in ["staging", "outside"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("f"), name).unwrap();
        }
        let staging = d.staging(Some(&at("staging"))).unwrap();
        for (here, moved) in [(d.root().to_path_buf(), at("root-was")), (at("staging"), at("staging-was"))] {
            std::fs::rename(&here, &moved).unwrap();
            std::os::unix::fs::symlink(at("outside"), here).unwrap();
        }
        d.replace(p("f"), b"root").unwrap();
        staging.disk.remove_file(&staging.path.join("f")).unwrap();
        assert_eq!(std::fs::read(at("root-was/f")).unwrap(), b"root");
        assert!(!at("staging-was/f").exists());
        assert_eq!(std::fs::read(at("outside/f")).unwrap(), b"outside");
        assert_eq!(d.staging(Some(&at("none"))).map(drop).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn one_lock_at_a_time() {
        let (_temp, d) = directory();
        let again = Directory::open_existing(d.root(), Arc::new(RealDisk::default())).unwrap();
        let held = d.lock().unwrap();
        let error = again.lock().unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Locked, Some(d.root())));
        drop(held);
        drop(again.lock().unwrap());
        d.lock().unwrap();
        let missing = Directory::open_existing(&d.root().join("none"), Arc::new(RealDisk::default()));
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_replaced_file_is_old_or_new_whichever_call_fails() {
        for forever in [false, true] {
            for k in 1.. {
                let temp = tempfile::tempdir().unwrap();
                let plan = FaultPlan::new();
                let disk = Arc::new(FaultDisk::new(Arc::new(RealDisk::default()), Arc::clone(&plan)));
                let d = Directory::open_or_create(temp.path(), disk).unwrap();
                d.replace(Path::new("f"), b"old").unwrap();
                let fault = Fault::nth(k).errno(Fault::EIO);
                plan.inject(if forever { fault.forever() } else { fault });
                let replaced = d.replace(Path::new("f"), b"new and longer");
                let failed = plan.fired() > 0;
                plan.clear();
                let seen = std::fs::read(temp.path().join("f")).unwrap();
                assert!(seen == b"old" || seen == b"new and longer");
                assert!(replaced.is_err() || seen == b"new and longer");
                if !failed {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_failed_flush_of_a_folder_latches() {
        let temp = tempfile::tempdir().unwrap();
        let plan = FaultPlan::new();
        let disk = Arc::new(FaultDisk::new(Arc::new(RealDisk::default()), Arc::clone(&plan)));
        let d = Directory::open_or_create(temp.path(), disk).unwrap();
        let file = d.create(Path::new("f")).unwrap();
        plan.inject(Fault::nth(1).of(Op::SyncDir).errno(Fault::EMFILE));
        assert!(d.sync_dir(Path::new("")).is_err());
        d.sync_dir(Path::new("")).unwrap();
        plan.inject(Fault::nth(1).of(Op::SyncDir).errno(Fault::EIO));
        assert_eq!(d.sync_dir(Path::new("")).unwrap_err().kind(), ErrorKind::Storage);
        assert!(file.sync().is_err() && file.write_all_at(b"x", 0).is_err() && d.latch().check().is_err());
    }
}
