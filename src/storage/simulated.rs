//! A disk in memory that forgets, when the power goes, what was not flushed: any of it, in any combination.
//!
//! What a file system promises is little. Bytes that were written are on the disk once their file was flushed; a name is
//! there, or gone, once its folder was flushed. Until then each page that was written may have reached the disk or not,
//! whole or torn between two sectors, as it is or as it was after an earlier write; so may the size of a file; and so may
//! each change of a name. This disk keeps both what there is and what was flushed, and makes any state between.
//!
//! Files that are mapped are memory of the kernel's (`memfd`), so that what is stored to them is found here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

use crate::storage::disk::{Disk, Entry, EntryKind, Place, Volume};
use crate::storage::file::{FileId, RawFile};
use crate::storage::pages::{Bytes, Data, Digest, PAGE, Page, place};
use crate::storage::world::{Change, Folder, Folders, Inode, Node, World};

/// What is never torn.
const SECTOR: usize = 512;
/// The number of the device that there is.
const DEVICE: u64 = 7;

/// A disk in memory, for logs that are opened with [`LogBuilder::simulated_disk`].
///
/// Its clones are the same disk. [`freeze`](SimulatedDisk::freeze) tells what a power cut could make of it.
///
/// [`LogBuilder::simulated_disk`]: crate::log::opening::LogBuilder::simulated_disk
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<World>>);

impl Default for SimulatedDisk {
    fn default() -> Self {
        SimulatedDisk::new()
    }
}

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedDisk").finish_non_exhaustive()
    }
}

impl SimulatedDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        SimulatedDisk(Arc::new(Mutex::new(World::new())))
    }

    /// The same disk, on which files that are made and mapped from now on are memory like any other: a log opens faster on
    /// it, and what is stored to those files is never seen.
    #[must_use]
    pub fn unwatched(self) -> Self {
        self.0.lock().unwatched = true;
        self
    }

    /// A number that follows from all names, sizes and bytes, and that no two disks share but by chance. For a disk that
    /// is not in use.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        let world = self.0.lock();
        let mut folders = vec![0];
        while let Some(number) = folders.pop() {
            for (name, node) in world.now.get(&number).into_iter().flatten() {
                let name = name.as_encoded_bytes();
                digest.add(name.len() as u64);
                name.iter().for_each(|byte| digest.add(u64::from(*byte)));
                match node {
                    Node::Folder(inner) => {
                        digest.add(1);
                        folders.push(*inner);
                    }
                    Node::File(inode) => {
                        let data = inode.data.lock();
                        digest.add(2);
                        digest.add(data.now.len);
                        let pages = data.now.pages.iter().map(|(at, page)| (*at, page.digest()));
                        for (at, page) in pages.filter(|(_, page)| *page != 0) {
                            digest.add(at + 3);
                            digest.add_all(page);
                        }
                    }
                }
            }
            digest.add(0);
        }
        digest.finish()
    }

    /// Everything as it is now. Who writes meanwhile goes on, and is not seen.
    ///
    /// # Errors
    /// When the system has no room for what mapped files hold.
    pub fn freeze(&self) -> io::Result<Moment> {
        let world = self.0.lock();
        let mut items: Vec<Item> = (0..world.changes.len()).map(Item::Name).collect();
        let mut files = BTreeMap::new();
        for (number, inode) in world.files() {
            let mut data = inode.data.lock();
            data.look()?;
            if data.now.len != data.flushed.len {
                items.push(Item::Len(number));
            }
            items.extend(data.versions.keys().map(|page| Item::Page(number, *page)));
            let frozen = Frozen {
                now: data.now.clone(),
                flushed: data.flushed.clone(),
                versions: data.versions.clone(),
            };
            files.insert(number, frozen);
        }
        Ok(Moment {
            items,
            files,
            now: world.now.clone(),
            flushed: world.flushed.clone(),
            changes: world.changes.clone(),
            next_number: world.next_number,
            boot: world.boot,
        })
    }

    /// The paths of all files, and how long each is.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let world = self.0.lock();
        let mut files = Vec::new();
        let mut folders = vec![(0, PathBuf::from("/"))];
        while let Some((number, path)) = folders.pop() {
            for (name, node) in world.now.get(&number).into_iter().flatten() {
                match node {
                    Node::Folder(inner) => folders.push((*inner, path.join(name))),
                    Node::File(inode) => files.push((path.join(name), inode.data.lock().now.len)),
                }
            }
        }
        files.sort();
        files
    }

    /// Turns a bit of a file over, as bit rot does: it is so on the medium as well. For a disk that is not in use.
    ///
    /// # Errors
    /// Where there is no such file, or it is not so long.
    pub fn flip(&self, path: impl AsRef<Path>, bit: u64) -> io::Result<()> {
        let inode = self.0.lock().file(path.as_ref())?;
        let mut data = inode.data.lock();
        if bit / 8 >= data.now.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (page, at) = place(bit / 8);
        let data = &mut *data;
        for bytes in [&mut data.now, &mut data.flushed] {
            let mut hit = bytes.page(page);
            Arc::make_mut(&mut hit)[at] ^= 1 << (bit % 8);
            bytes.pages.insert(page, hit);
        }
        Ok(())
    }

    fn with_file(&self, inode: Arc<Inode>) -> Box<dyn RawFile> {
        Box::new(SimulatedFile(inode))
    }
}

/// Something that a power cut may take, by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Item {
    /// A change of names.
    Name(usize),
    /// The size of a file.
    Len(u64),
    /// A page of a file.
    Page(u64, u64),
}

struct Frozen {
    now: Bytes,
    flushed: Bytes,
    versions: BTreeMap<u64, Vec<Page>>,
}

/// What a [`SimulatedDisk`] was at one moment: made once, cut as often as one likes.
pub struct Moment {
    items: Vec<Item>,
    files: BTreeMap<u64, Frozen>,
    now: Folders,
    flushed: Folders,
    changes: Vec<Change>,
    next_number: u64,
    boot: u64,
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment").field("unsynced", &self.items.len()).finish_non_exhaustive()
    }
}

impl Moment {
    /// How many things are not flushed: pages, sizes of files, changes of names. A power cut may take any of them.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.items.len()
    }

    /// The disk after a power cut that left of the [`unsynced`](Moment::unsynced) things those that `kept` says.
    #[must_use]
    pub fn power_cut(&self, kept: impl Fn(usize) -> bool) -> SimulatedDisk {
        let kept: HashSet<Item> = (0..self.items.len()).filter(|n| kept(*n)).map(|n| self.items[n]).collect();
        self.cut(|item| kept.contains(&item), |_, _, versions| versions.last().map(Arc::clone))
    }

    /// The disk after a power cut of so many that follow from the seed: any of the unsynced things are gone, and pages
    /// may be what they were after an earlier write, or torn between two sectors.
    #[must_use]
    pub fn power_cut_at_random(&self, seed: u64) -> SimulatedDisk {
        let mut state = seed ^ 0x9E37_79B9_7F4A_7C15 | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
        };
        (0..4).for_each(|_| {
            next();
        });
        // Some cuts take nearly all, some nearly nothing.
        let share = 1 + next() % 15;
        let kept: HashSet<Item> = self.items.iter().copied().filter(|_| next() % 16 < share).collect();
        let draws = std::cell::RefCell::new(next);
        self.cut(
            |item| kept.contains(&item),
            |before, at, versions| {
                let mut next = draws.borrow_mut();
                let latest = next() % 2 == 0;
                let pick = if latest { versions.len() - 1 } else { next() as usize % versions.len() };
                let chosen = Arc::clone(versions.get(pick)?);
                if next() % 4 > 0 {
                    return Some(chosen);
                }
                let mut torn = before.page(at);
                for sector in (0..PAGE / SECTOR).filter(|_| next() % 2 == 0) {
                    let range = sector * SECTOR..(sector + 1) * SECTOR;
                    Arc::make_mut(&mut torn)[range.clone()].copy_from_slice(&chosen[range]);
                }
                Some(torn)
            },
        )
    }

    /// The disk after the death of the process alone: all is there that was written.
    #[must_use]
    pub fn process_death(&self) -> SimulatedDisk {
        self.build(&self.now, |number| self.files.get(&number).map(|f| f.now.clone()), self.boot)
    }

    fn cut(
        &self,
        kept: impl Fn(Item) -> bool,
        version: impl Fn(&Bytes, u64, &[Page]) -> Option<Page>,
    ) -> SimulatedDisk {
        let mut folders = self.flushed.clone();
        let changes = self.changes.iter().enumerate();
        changes.filter(|(n, _)| kept(Item::Name(*n))).for_each(|(_, change)| change.apply(&mut folders));
        let bytes = |number: u64| {
            let frozen = self.files.get(&number)?;
            let mut left = frozen.flushed.clone();
            if kept(Item::Len(number)) {
                left.set_len(frozen.now.len);
            }
            for (page, versions) in &frozen.versions {
                let within = page * (PAGE as u64) < left.len;
                if within && kept(Item::Page(number, *page)) {
                    let chosen = version(&left, *page, versions);
                    chosen.map(|chosen| left.pages.insert(*page, chosen));
                }
            }
            // Nothing shows of a page behind the end.
            let len = left.len;
            let (last, from) = place(len);
            if let Some(page) = left.pages.get_mut(&last).filter(|_| from > 0) {
                Arc::make_mut(page)[from..].fill(0);
            }
            Some(left)
        };
        self.build(&folders, bytes, self.boot + 1)
    }

    /// A disk of its own with these names, and nothing that is not flushed.
    fn build(&self, folders: &Folders, bytes: impl Fn(u64) -> Option<Bytes>, boot: u64) -> SimulatedDisk {
        let mut inodes: HashMap<u64, Arc<Inode>> = HashMap::new();
        let mut built = Folders::new();
        let mut found = vec![0];
        while let Some(number) = found.pop() {
            let mut copy = Folder::new();
            for (name, node) in folders.get(&number).into_iter().flatten() {
                let node = match node {
                    Node::Folder(inner) if built.contains_key(inner) || found.contains(inner) => continue,
                    Node::Folder(inner) => {
                        found.push(*inner);
                        Node::Folder(*inner)
                    }
                    Node::File(inode) => {
                        let inode = inodes.entry(inode.number).or_insert_with(|| {
                            let data = Mutex::new(Data::new(bytes(inode.number).unwrap_or_default()));
                            Arc::new(Inode { number: inode.number, names: AtomicU64::new(0), data })
                        });
                        inode.names.fetch_add(1, Ordering::AcqRel);
                        Node::File(Arc::clone(inode))
                    }
                };
                copy.insert(name.clone(), node);
            }
            built.insert(number, copy);
        }
        SimulatedDisk(Arc::new(Mutex::new(World {
            now: built.clone(),
            flushed: built,
            changes: Vec::new(),
            next_number: self.next_number,
            locked: HashSet::new(),
            boot,
            unwatched: false,
        })))
    }
}

impl Disk for SimulatedDisk {
    /// There are no links here.
    fn beneath(&self, root: &Path) -> io::Result<Arc<dyn Disk>> {
        self.0.lock().folder(root)?;
        Ok(Arc::new(self.clone()))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        Ok(self.with_file(self.0.lock().create(path)?))
    }

    fn open(&self, path: &Path, _: bool) -> io::Result<Box<dyn RawFile>> {
        Ok(self.with_file(self.0.lock().file(path)?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        let name = world.free_name(path)?;
        let number = world.number();
        world.now.insert(number, Folder::new());
        world.flushed.insert(number, Folder::new());
        world.change(Change::Added(name, Node::Folder(number)));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let world = self.0.lock();
        let number = world.folder(path)?;
        let entries = world.now.get(&number).into_iter().flatten();
        let entry = |(name, node): (&OsString, &Node)| {
            let (kind, len) = match node {
                Node::File(inode) => (EntryKind::File, inode.data.lock().now.len),
                Node::Folder(_) => (EntryKind::Directory, 0),
            };
            Entry { name: name.clone(), kind, len }
        };
        Ok(entries.map(entry).collect())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        match self.0.lock().find(path) {
            Ok(Node::File(_)) => Ok(Some(EntryKind::File)),
            Ok(Node::Folder(_)) => Ok(Some(EntryKind::Directory)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        let (node, from, to) = (world.find(from)?, world.name(from)?, world.name(to)?);
        match world.entry(to.0, &to.1) {
            Some(Node::File(replaced)) => drop(replaced.names.fetch_sub(1, Ordering::AcqRel)),
            Some(Node::Folder(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => {}
        }
        world.change(Change::Renamed(from, to, node));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        let (inode, name) = (world.file(path)?, world.name(path)?);
        inode.names.fetch_sub(1, Ordering::AcqRel);
        world.change(Change::Removed(name));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        let (number, name) = (world.folder(path)?, world.name(path)?);
        if world.now.get(&number).is_some_and(|folder| !folder.is_empty()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        world.change(Change::Removed(name));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        let number = world.folder(path)?;
        let World { flushed, changes, .. } = &mut *world;
        changes.extract_if(.., |change| change.is_in(number)).for_each(|change| change.apply(flushed));
        Ok(())
    }

    fn volume(&self, _: &Path) -> io::Result<Option<Box<dyn Volume>>> {
        Ok(Some(Box::new(self.clone())))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut world = self.0.lock();
        let inode = match world.file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => world.create(path)?,
            found => found?,
        };
        if !world.locked.insert(inode.number) {
            return Ok(None);
        }
        Ok(Some(Box::new(Held { disk: self.clone(), number: inode.number })))
    }

    fn boot(&self) -> Option<[u8; 16]> {
        Some(u128::from(self.0.lock().boot).to_be_bytes())
    }

    fn place(&self, path: &Path) -> Option<Place> {
        let world = self.0.lock();
        let inode = match world.find(path).ok()? {
            Node::File(inode) => inode.number,
            Node::Folder(number) => number,
        };
        // No number is given twice, so that the time of birth need not tell.
        Some(Place { mount: world.boot, device: DEVICE, inode, born: 0 })
    }
}

impl Volume for SimulatedDisk {
    fn sync(&self) -> io::Result<()> {
        let mut world = self.0.lock();
        for inode in world.files().values() {
            inode.data.lock().flush()?;
        }
        let World { flushed, changes, .. } = &mut *world;
        changes.drain(..).for_each(|change| change.apply(flushed));
        Ok(())
    }

    fn device(&self) -> u64 {
        DEVICE
    }
}

/// A lock on a file.
struct Held {
    disk: SimulatedDisk,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.0.lock().locked.remove(&self.number);
    }
}

struct SimulatedFile(Arc<Inode>);

impl RawFile for SimulatedFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let data = self.0.data.lock();
        match &data.mapped {
            Some(file) => std::os::unix::fs::FileExt::read_at(file, buf, at),
            None => Ok(data.now.read(buf, at)),
        }
    }

    fn write_at(&self, buf: &[u8], at: u64) -> io::Result<usize> {
        let mut data = self.0.data.lock();
        match &data.mapped {
            Some(file) => std::os::unix::fs::FileExt::write_at(file, buf, at),
            None => {
                data.write(buf, at);
                Ok(buf.len())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.data.lock().flush()
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        let end = from.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        if RawFile::len(self)? < end { self.set_len(end) } else { Ok(()) }
    }

    fn fill(&self, len: u64) -> io::Result<()> {
        self.allocate(0, len)
    }

    fn map(&self, len: usize) -> io::Result<MmapRaw> {
        let mut data = self.0.data.lock();
        if data.unwatched {
            return MmapOptions::new().len(len).map_anon().map(MmapRaw::from);
        }
        if data.mapped.is_none() {
            let file = File::from(rustix::fs::memfd_create("simulated", rustix::fs::MemfdFlags::CLOEXEC)?);
            file.set_len(data.now.len)?;
            for (number, page) in &data.now.pages {
                let at = number * PAGE as u64;
                let len = PAGE.min(usize::try_from(data.now.len - at).unwrap_or(PAGE));
                std::os::unix::fs::FileExt::write_all_at(&file, &page[..len], at)?;
            }
            data.mapped = Some(file);
        }
        let file = data.mapped.as_ref().ok_or(io::ErrorKind::NotFound)?;
        MmapOptions::new().len(len).map_raw(file)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut data = self.0.data.lock();
        match &data.mapped {
            Some(file) => file.set_len(len),
            None => {
                data.now.set_len(len);
                Ok(())
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        let data = self.0.data.lock();
        match &data.mapped {
            Some(file) => file.metadata().map(|m| m.len()),
            None => Ok(data.now.len),
        }
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.0.names.load(Ordering::Acquire))
    }

    fn id(&self) -> io::Result<FileId> {
        Ok((DEVICE, self.0.number))
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        let data = self.0.data.lock();
        if data.mapped.is_some() {
            return Ok((from < data.now.len).then_some(from));
        }
        let page = data.now.pages.range(place(from).0..).next().map(|(page, _)| page * PAGE as u64);
        Ok(page.map(|at| at.max(from)).filter(|at| *at < data.now.len))
    }

    fn data_end(&self) -> io::Result<u64> {
        let data = self.0.data.lock();
        let last = data.now.pages.last_key_value().map_or(0, |(page, _)| (page + 1) * PAGE as u64);
        Ok(if data.mapped.is_some() { data.now.len } else { last.min(data.now.len) })
    }
}
