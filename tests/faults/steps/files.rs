//! All files of a small directory, as they were at a moment, put back as often as somebody wants to look.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const PAGE: usize = 4096;

/// A page and its hash.
type Page = Arc<(u64, Vec<u8>)>;

/// What was in a directory: files by their pages, folders by nothing.
#[derive(Clone, Default)]
pub(super) struct State(BTreeMap<PathBuf, Option<Vec<Page>>>);

impl State {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, pages) in &self.0 {
            path.hash(&mut hasher);
            let hashes = pages.as_ref().map(|pages| pages.iter().map(|page| page.0).collect::<Vec<_>>());
            hashes.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Looks at a directory again and again, and keeps each state of it that differs from all before.
pub(super) struct Watch {
    root: PathBuf,
    /// Other names of the staging files: a copy of one is not what its log was open with, as a log knows.
    kept: PathBuf,
    pages: HashMap<u64, Page>,
    now: State,
    seen: HashMap<u64, usize>,
    states: Vec<State>,
}

impl Watch {
    /// Watches the directory `log` in `folder`.
    pub(super) fn new(folder: &Path) -> Watch {
        let kept = folder.join("kept");
        fs::create_dir(&kept).unwrap();
        Watch {
            root: folder.join("log"),
            kept,
            pages: HashMap::new(),
            now: State::default(),
            seen: HashMap::new(),
            states: Vec::new(),
        }
    }

    pub(super) fn states(&self) -> usize {
        self.states.len()
    }

    /// The state that the directory was in when it was last looked at, by when it was first seen.
    pub(super) fn current(&self) -> usize {
        self.seen[&self.now.hash()]
    }

    /// Looks at all of it.
    pub(super) fn look(&mut self) {
        let mut now = State::default();
        self.read(Path::new(""), &mut now);
        self.now = now;
        self.note();
    }

    /// Looks at some bytes of one file.
    pub(super) fn look_at(&mut self, name: &Path, from: usize, to: usize) {
        let Some(Some(pages)) = self.now.0.get(name) else { return };
        let range = from / PAGE..(to.div_ceil(PAGE)).min(pages.len());
        let Ok(file) = File::open(self.root.join(name)) else { return self.look() };
        let mut changed = false;
        for number in range {
            let mut bytes = vec![0; PAGE];
            let got = file.read_at(&mut bytes, (number * PAGE) as u64).unwrap();
            bytes.truncate(got);
            let Some(Some(pages)) = self.now.0.get(name) else { return };
            if pages[number].1 != bytes {
                let page = self.intern(bytes);
                if let Some(Some(pages)) = self.now.0.get_mut(name) {
                    pages[number] = page;
                }
                changed = true;
            }
        }
        if changed {
            self.note();
        }
    }

    fn note(&mut self) {
        let next = self.states.len();
        let at = *self.seen.entry(self.now.hash()).or_insert(next);
        if at == next {
            self.states.push(self.now.clone());
        }
    }

    fn intern(&mut self, bytes: Vec<u8>) -> Page {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let hash = hasher.finish();
        Arc::clone(self.pages.entry(hash).or_insert_with(|| Arc::new((hash, bytes))))
    }

    fn read(&mut self, folder: &Path, into: &mut State) {
        let mut entries: Vec<_> = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries.map(|entry| entry.unwrap()).collect(),
            Err(_) => return,
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                into.0.insert(name.clone(), None);
                self.read(&name, into);
                continue;
            }
            if is_staging(&name) && !self.kept.join(&name).exists() {
                fs::hard_link(entry.path(), self.kept.join(&name)).unwrap();
            }
            let bytes = fs::read(entry.path()).unwrap();
            let pages = bytes.chunks(PAGE).map(|page| self.intern(page.to_vec())).collect();
            into.0.insert(name, Some(pages));
        }
    }

    /// Makes the directory what it was in a state. The directory itself and the staging files stay those they were.
    pub(super) fn restore(&self, state: usize) {
        for entry in fs::read_dir(&self.root).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                fs::remove_dir_all(entry.path()).unwrap();
            } else {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        for (name, pages) in &self.states[state].0 {
            let path = self.root.join(name);
            let Some(pages) = pages else {
                fs::create_dir(path).unwrap();
                continue;
            };
            if is_staging(name) {
                fs::hard_link(self.kept.join(name), &path).unwrap();
            }
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
            let bytes: Vec<u8> = pages.iter().flat_map(|page| page.1.iter().copied()).collect();
            file.write_all(&bytes).unwrap();
        }
    }
}

fn is_staging(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("staging-"))
}
