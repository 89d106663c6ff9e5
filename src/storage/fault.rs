//! A disk that fails when told to: the k-th call, once or for ever, with an errno or half done.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::storage::disk::{Disk, Entry, EntryKind, Place, Volume};
use crate::storage::file::{FileId, RawFile};

/// What is counted, recorded and made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Reading a file.
    Read,
    /// Writing to a file.
    Write,
    /// Flushing a file.
    Sync,
    /// Reserving room for a file.
    Allocate,
    /// Mapping a file.
    Map,
    /// Cutting or extending a file.
    SetLen,
    /// Looking at a file or folder.
    Stat,
    /// Opening a file.
    Open,
    /// Creating a file.
    Create,
    /// Creating a folder.
    CreateDir,
    /// Listing a folder.
    List,
    /// Giving a file or folder another name.
    Rename,
    /// Removing a file or folder.
    Remove,
    /// Flushing a folder.
    SyncDir,
    /// Flushing a file system.
    SyncAll,
    /// Locking a file.
    Lock,
}

/// One call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub op: Op,
    /// On which file or folder.
    pub path: PathBuf,
    /// For reads, writes and allocations: where in the file.
    pub at: u64,
    /// How many bytes were asked for.
    pub len: u64,
}

/// A failure to come.
#[derive(Debug, Clone)]
pub struct Fault {
    op: Option<Op>,
    countdown: u64,
    forever: bool,
    errno: i32,
    bytes: Option<usize>,
    under: Option<String>,
}

impl Fault {
    // The same numbers on every Unix that Rust runs on.
    /// The disk failed.
    pub const EIO: i32 = 5;
    /// The disk is full.
    pub const ENOSPC: i32 = 28;
    /// The process has no descriptor left.
    pub const EMFILE: i32 = 24;

    /// The `k`-th call from now on (1 is the next) fails with EIO.
    #[must_use]
    pub fn nth(k: u64) -> Self {
        Fault { op: None, countdown: k.max(1), forever: false, errno: Self::EIO, bytes: None, under: None }
    }

    /// Only calls of this kind are counted and fail.
    #[must_use]
    pub fn of(self, op: Op) -> Self {
        Fault { op: Some(op), ..self }
    }

    /// The error is this one.
    #[must_use]
    pub fn errno(self, errno: i32) -> Self {
        Fault { errno, ..self }
    }

    /// Only calls on paths that contain this are counted and fail.
    #[must_use]
    pub fn under(self, part: impl Into<String>) -> Self {
        Fault { under: Some(part.into()), ..self }
    }

    /// All later calls fail too, until [`FaultPlan::clear`].
    #[must_use]
    pub fn forever(self) -> Self {
        Fault { forever: true, ..self }
    }

    /// A write that is to fail first writes this many bytes: as much as a call can do before it is cut short.
    #[must_use]
    pub fn after_bytes(self, bytes: usize) -> Self {
        Fault { bytes: Some(bytes), ..self }
    }
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    counts: Vec<(Op, u64)>,
    fired: u64,
    recording: bool,
    calls: Vec<Call>,
    /// Calls of this kind hang.
    held: Option<Op>,
    #[cfg(test)]
    machine: Machine,
}

/// Where the disk says that it is, whatever the machine of the test: by default a kernel that knows all it can be asked.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) boot: Option<[u8; 16]>,
    pub(crate) mount: u64,
}

#[cfg(test)]
impl Default for Machine {
    fn default() -> Self {
        Machine { boot: Some([1; 16]), mount: 1 }
    }
}

/// What shall fail, and what was called. Shared between the disk, its files and the test.
#[derive(Default)]
pub struct FaultPlan(Mutex<State>, Condvar);

impl std::fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.lock();
        f.debug_struct("FaultPlan").field("faults", &state.faults).field("fired", &state.fired).finish()
    }
}

impl FaultPlan {
    /// A plan by which nothing fails.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a failure to come.
    pub fn inject(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    /// Forgets all failures to come, and those that go on for ever.
    pub fn clear(&self) {
        self.0.lock().faults.clear();
    }

    /// Has the disk say from now on that it is elsewhere.
    #[cfg(test)]
    pub(crate) fn move_to(&self, machine: Machine) {
        self.0.lock().machine = machine;
    }

    /// Calls of this kind hang from now on, until [`FaultPlan::release`].
    pub fn hold(&self, op: Op) {
        self.0.lock().held = Some(op);
    }

    /// Lets everything that hangs go on.
    pub fn release(&self) {
        self.0.lock().held = None;
        self.1.notify_all();
    }

    /// How many calls were made to fail.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.0.lock().fired
    }

    /// How many calls of this kind were made.
    #[must_use]
    pub fn count(&self, op: Op) -> u64 {
        self.0.lock().counts.iter().find(|(o, _)| *o == op).map_or(0, |(_, n)| *n)
    }

    /// How many calls were made.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.lock().counts.iter().map(|(_, n)| n).sum()
    }

    /// Begins (or ends) to keep every call.
    pub fn record(&self, recording: bool) {
        self.0.lock().recording = recording;
    }

    /// The calls kept so far; keeping starts anew.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().calls)
    }

    /// Counts a call and returns the failure that is due, if one is.
    fn due(&self, op: Op, path: &Path, at: u64, len: u64) -> Option<Fault> {
        let mut state = self.0.lock();
        match state.counts.iter_mut().find(|(o, _)| *o == op) {
            Some((_, n)) => *n += 1,
            None => state.counts.push((op, 1)),
        }
        if state.recording {
            state.calls.push(Call { op, path: path.to_path_buf(), at, len });
        }
        while state.held == Some(op) {
            self.1.wait(&mut state);
        }
        let mut due = None;
        state.faults.retain_mut(|fault| {
            let elsewhere =
                fault.under.as_ref().is_some_and(|part| !path.to_string_lossy().contains(part.as_str()));
            if elsewhere || fault.op.is_some_and(|o| o != op) {
                return true;
            }
            if fault.countdown > 1 {
                fault.countdown -= 1;
                return true;
            }
            due.get_or_insert_with(|| fault.clone());
            fault.forever
        });
        state.fired += u64::from(due.is_some());
        due
    }

    fn check(&self, op: Op, path: &Path, at: u64, len: u64) -> io::Result<()> {
        match self.due(op, path, at, len) {
            Some(fault) => Err(io::Error::from_raw_os_error(fault.errno)),
            None => Ok(()),
        }
    }
}

/// Another disk, failing by plan.
pub(crate) struct FaultDisk {
    inner: Arc<dyn Disk>,
    plan: Arc<FaultPlan>,
}

impl FaultDisk {
    pub(crate) fn new(inner: Arc<dyn Disk>, plan: Arc<FaultPlan>) -> Self {
        FaultDisk { inner, plan }
    }

    fn wrap(&self, inner: Box<dyn RawFile>, path: &Path) -> Box<dyn RawFile> {
        Box::new(FaultFile { inner, path: path.to_path_buf(), plan: Arc::clone(&self.plan) })
    }
}

impl Disk for FaultDisk {
    fn beneath(&self, root: &Path) -> io::Result<Arc<dyn Disk>> {
        self.plan.check(Op::Open, root, 0, 0)?;
        Ok(Arc::new(FaultDisk::new(self.inner.beneath(root)?, Arc::clone(&self.plan))))
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        self.plan.check(Op::Create, path, 0, 0)?;
        Ok(self.wrap(self.inner.create_new(path)?, path))
    }
    fn create_unnamed(&self, folder: &Path) -> io::Result<Box<dyn RawFile>> {
        self.plan.check(Op::Create, folder, 0, 0)?;
        Ok(self.wrap(self.inner.create_unnamed(folder)?, folder))
    }
    fn name(&self, file: &dyn RawFile, path: &Path) -> io::Result<()> {
        self.plan.check(Op::Rename, path, 0, 0)?;
        self.inner.name(file, path)
    }
    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn RawFile>> {
        self.plan.check(Op::Open, path, 0, 0)?;
        Ok(self.wrap(self.inner.open(path, write)?, path))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.plan.check(Op::CreateDir, path, 0, 0)?;
        self.inner.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.plan.check(Op::List, path, 0, 0)?;
        self.inner.list(path)
    }
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.plan.check(Op::Stat, path, 0, 0)?;
        self.inner.kind(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.check(Op::Rename, from, 0, 0)?;
        self.inner.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.plan.check(Op::Remove, path, 0, 0)?;
        self.inner.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.plan.check(Op::Remove, path, 0, 0)?;
        self.inner.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.plan.check(Op::SyncDir, path, 0, 0)?;
        self.inner.sync_dir(path)
    }
    fn volume(&self, path: &Path) -> io::Result<Option<Box<dyn Volume>>> {
        let (path, plan) = (path.to_path_buf(), Arc::clone(&self.plan));
        let volume = self.inner.volume(&path)?;
        Ok(volume.map(|inner| Box::new(FaultVolume { inner, path, plan }) as Box<dyn Volume>))
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.plan.check(Op::Lock, path, 0, 0)?;
        self.inner.lock(path)
    }
    fn boot(&self) -> Option<[u8; 16]> {
        #[cfg(test)]
        return self.plan.0.lock().machine.boot;
        #[cfg(not(test))]
        self.inner.boot()
    }
    fn place(&self, path: &Path) -> Option<Place> {
        self.plan.check(Op::Stat, path, 0, 0).ok()?;
        #[cfg(all(test, unix))]
        {
            use std::os::unix::fs::MetadataExt;
            let found = std::fs::metadata(path).ok()?;
            let mount = self.plan.0.lock().machine.mount;
            Some(Place { mount, device: found.dev(), inode: found.ino(), born: 0 })
        }
        #[cfg(not(all(test, unix)))]
        self.inner.place(path)
    }
}

struct FaultVolume {
    inner: Box<dyn Volume>,
    path: PathBuf,
    plan: Arc<FaultPlan>,
}

impl Volume for FaultVolume {
    fn sync(&self) -> io::Result<()> {
        self.plan.check(Op::SyncAll, &self.path, 0, 0)?;
        self.inner.sync()
    }
    fn device(&self) -> u64 {
        self.inner.device()
    }
}

struct FaultFile {
    inner: Box<dyn RawFile>,
    path: PathBuf,
    plan: Arc<FaultPlan>,
}

impl RawFile for FaultFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.plan.check(Op::Read, &self.path, at, buf.len() as u64)?;
        self.inner.read_at(buf, at)
    }
    fn write_at(&self, buf: &[u8], at: u64) -> io::Result<usize> {
        match self.plan.due(Op::Write, &self.path, at, buf.len() as u64) {
            None => self.inner.write_at(buf, at),
            Some(fault) => {
                let mut done = 0;
                let part = fault.bytes.unwrap_or(0).min(buf.len());
                while done < part {
                    done += self.inner.write_at(&buf[done..part], at + done as u64)?;
                }
                Err(io::Error::from_raw_os_error(fault.errno))
            }
        }
    }
    fn sync_data(&self) -> io::Result<()> {
        self.plan.check(Op::Sync, &self.path, 0, 0)?;
        self.inner.sync_data()
    }
    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        if let Some(fault) = self.plan.due(Op::Allocate, &self.path, from, len) {
            // As ext4 does: what could be had before the disk was full stays with the file.
            self.inner.set_len(from + len / 2)?;
            return Err(io::Error::from_raw_os_error(fault.errno));
        }
        self.inner.allocate(from, len)
    }
    fn fill(&self, len: u64) -> io::Result<()> {
        if let Some(fault) = self.plan.due(Op::Allocate, &self.path, 0, len) {
            self.inner.set_len(len / 2)?;
            return Err(io::Error::from_raw_os_error(fault.errno));
        }
        self.inner.fill(len)
    }
    #[cfg(unix)]
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.inner.descriptor()
    }
    fn room(&self) -> io::Result<u64> {
        self.plan.check(Op::Stat, &self.path, 0, 0)?;
        self.inner.room()
    }
    #[cfg(unix)]
    fn map(&self, len: usize) -> io::Result<memmap2::MmapRaw> {
        self.plan.check(Op::Map, &self.path, 0, len as u64)?;
        self.inner.map(len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plan.check(Op::SetLen, &self.path, 0, len)?;
        self.inner.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.plan.check(Op::Stat, &self.path, 0, 0)?;
        self.inner.len()
    }
    fn allocated(&self) -> io::Result<u64> {
        self.plan.check(Op::Stat, &self.path, 0, 0)?;
        self.inner.allocated()
    }
    fn links(&self) -> io::Result<u64> {
        self.plan.check(Op::Stat, &self.path, 0, 0)?;
        self.inner.links()
    }
    fn id(&self) -> io::Result<FileId> {
        self.inner.id()
    }
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        self.inner.next_data(from)
    }
    fn data_end(&self) -> io::Result<u64> {
        self.inner.data_end()
    }
    fn forget_cached(&self) -> io::Result<()> {
        self.inner.forget_cached()
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::storage::disk::RealDisk;

    #[test]
    fn fails_the_kth_call_once_or_for_ever_and_tells() {
        let temp = tempfile::tempdir().unwrap();
        let plan = FaultPlan::new();
        let disk = FaultDisk::new(Arc::new(RealDisk::default()), Arc::clone(&plan));
        plan.record(true);
        let path = temp.path().join("f");
        let file = disk.create_new(&path).unwrap();
        plan.inject(Fault::nth(2).of(Op::Write).errno(Fault::ENOSPC).after_bytes(3));
        assert_eq!(file.write_at(b"first", 0).unwrap(), 5);
        assert_eq!(file.write_at(b"second", 5).unwrap_err().raw_os_error(), Some(Fault::ENOSPC));
        assert_eq!(std::fs::read(&path).unwrap(), b"firstsec");
        assert_eq!(file.write_at(b"second", 5).unwrap(), 6);
        plan.inject(Fault::nth(1).of(Op::Sync).forever());
        assert!(file.sync_data().is_err() && file.sync_data().is_err());
        plan.clear();
        file.sync_data().unwrap();
        assert_eq!((plan.count(Op::Write), plan.count(Op::Sync), plan.total(), plan.fired()), (3, 3, 7, 3));
        let ops: Vec<Op> = plan.take_calls().into_iter().map(|c| c.op).collect();
        assert_eq!(ops, [Op::Create, Op::Write, Op::Write, Op::Write, Op::Sync, Op::Sync, Op::Sync]);
    }
}
