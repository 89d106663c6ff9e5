//! What there is on a simulated disk: files, their names, and the changes of names that are not flushed.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::storage::disk::NotRegular;
use crate::storage::pages::Data;

/// A file, whatever its names.
pub(crate) struct Inode {
    pub(crate) number: u64,
    pub(crate) names: AtomicU64,
    pub(crate) data: Mutex<Data>,
}

/// What a name stands for: a file, or a folder by its number.
#[derive(Clone)]
pub(crate) enum Node {
    File(Arc<Inode>),
    Folder(u64),
}

pub(crate) type Folder = BTreeMap<OsString, Node>;
/// Folders by number; 0 is the root.
pub(crate) type Folders = BTreeMap<u64, Folder>;

/// A name in a folder.
pub(crate) type Name = (u64, OsString);

/// A change of names that is not flushed.
#[derive(Clone)]
pub(crate) enum Change {
    Added(Name, Node),
    Removed(Name),
    Renamed(Name, Name, Node),
}

impl Change {
    pub(crate) fn is_in(&self, folder: u64) -> bool {
        match self {
            Change::Added(name, _) | Change::Removed(name) => name.0 == folder,
            Change::Renamed(from, to, _) => from.0 == folder || to.0 == folder,
        }
    }

    pub(crate) fn apply(&self, folders: &mut Folders) {
        let mut set = |name: &Name, node: Option<&Node>| {
            let folder = folders.entry(name.0).or_default();
            match node {
                Some(node) => drop(folder.insert(name.1.clone(), node.clone())),
                None => drop(folder.remove(&name.1)),
            }
        };
        match self {
            Change::Added(name, node) => set(name, Some(node)),
            Change::Removed(name) => set(name, None),
            Change::Renamed(from, to, node) => {
                set(from, None);
                set(to, Some(node));
            }
        }
    }
}

pub(crate) struct World {
    pub(crate) now: Folders,
    pub(crate) flushed: Folders,
    /// What makes `now` of `flushed`, in order.
    pub(crate) changes: Vec<Change>,
    /// For files and folders.
    pub(crate) next_number: u64,
    /// Files that are locked, by number.
    pub(crate) locked: HashSet<u64>,
    /// The run of the kernel.
    pub(crate) boot: u64,
    /// Stores to mapped files need not be found.
    pub(crate) unwatched: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        let root: Folders = [(0, Folder::new())].into();
        World {
            now: root.clone(),
            flushed: root,
            changes: Vec::new(),
            next_number: 1,
            locked: HashSet::new(),
            boot: 1,
            unwatched: false,
        }
    }

    /// What is at a path; the root has no name.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Node> {
        let mut at = Node::Folder(0);
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    let Node::Folder(number) = at else { return Err(io::ErrorKind::NotADirectory.into()) };
                    at = self.entry(number, name).ok_or(io::ErrorKind::NotFound)?;
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        Ok(at)
    }

    pub(crate) fn entry(&self, folder: u64, name: &OsStr) -> Option<Node> {
        self.now.get(&folder)?.get(name).cloned()
    }

    pub(crate) fn folder(&self, path: &Path) -> io::Result<u64> {
        match self.find(path)? {
            Node::Folder(number) => Ok(number),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(crate) fn file(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.find(path)? {
            Node::File(inode) => Ok(inode),
            Node::Folder(_) => Err(io::Error::other(NotRegular)),
        }
    }

    /// The folder and the name that a path ends in.
    pub(crate) fn name(&self, path: &Path) -> io::Result<Name> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.folder(path.parent().unwrap_or(Path::new("/")))?, name.to_os_string()))
    }

    pub(crate) fn free_name(&self, path: &Path) -> io::Result<Name> {
        let name = self.name(path)?;
        match self.entry(name.0, &name.1) {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(name),
        }
    }

    pub(crate) fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.changes.push(change);
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn create(&mut self, path: &Path) -> io::Result<Arc<Inode>> {
        let name = self.free_name(path)?;
        let number = self.number();
        let data = Mutex::new(Data { unwatched: self.unwatched, ..Data::default() });
        let inode = Arc::new(Inode { number, names: AtomicU64::new(1), data });
        self.change(Change::Added(name, Node::File(Arc::clone(&inode))));
        Ok(inode)
    }

    /// All files that have a name, or will have one if changes are lost.
    pub(crate) fn files(&self) -> BTreeMap<u64, Arc<Inode>> {
        let there = self.now.values().chain(self.flushed.values()).flat_map(Folder::values);
        let changed = self.changes.iter().filter_map(|change| match change {
            Change::Added(_, node) | Change::Renamed(_, _, node) => Some(node),
            Change::Removed(_) => None,
        });
        let files = there.chain(changed).filter_map(|node| match node {
            Node::File(inode) => Some((inode.number, Arc::clone(inode))),
            Node::Folder(_) => None,
        });
        files.collect()
    }
}
