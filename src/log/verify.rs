//! A directory looked at file by file, whoever made it: every byte is read, nothing is believed that does not prove
//! itself, nothing is changed, and no link is followed.

use std::path::{Path, PathBuf};

use crate::codec::Codecs;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::folder_id;
use crate::log::core::{LogCore, ROOT, ROOT_TWIN, TOPICS_FOLDER};
use crate::log::opening::{MAX_ROOT, QUARANTINE};
use crate::log::root::RootFile;
use crate::segment::check::{DamageKind, FileDamage, check, tells_of_bytes};
use crate::segment::format::parse_file_name;
use crate::segment::scan::is_unborn;
use crate::storage::directory::Directory;
use crate::storage::disk::{Entry, EntryKind};
use crate::storage::slot;
use crate::storage::staged;
use crate::storage::staging;

/// What a file of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// One of the two root files.
    Root,
    /// A staging file: the hot tail, which the next open brings back. What lies there twice, in a segment too, counts twice.
    Staging,
    /// A segment file of a partition.
    Segment {
        /// The topic, by its id.
        topic_id: u64,
        /// The partition.
        partition: u32,
    },
    /// Anything else: it means nothing to the log.
    Other,
}

/// What was found in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// How long it is.
    pub len: u64,
    /// How many blocks of a segment, or slots of a staging file, are good.
    pub blocks: u64,
    /// How many records are in them.
    pub records: u64,
    /// From the first offset that may be in a segment to behind the last one that is, or is known to have been.
    pub offsets: Option<std::ops::Range<u64>>,
    /// What is amiss, in the order of the bytes.
    pub damage: Vec<FileDamage>,
}

/// What was found in the files of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Whether a root file says that the log was closed.
    pub clean: bool,
    /// All files, but for those in `quarantine`.
    pub files: Vec<FileReport>,
}

impl VerifyReport {
    /// Whether every byte is as it was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.files.iter().all(|f| f.damage.is_empty())
    }

    /// Whether records were lost, or the log cannot be opened.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        self.damage().any(|(_, d)| d.kind == DamageKind::Lost)
    }

    /// How many records the segments hold.
    #[must_use]
    pub fn records(&self) -> u64 {
        let segments = self.files.iter().filter(|f| matches!(f.kind, FileKind::Segment { .. }));
        segments.map(|f| f.records).sum()
    }

    /// All damage, with the file it is in.
    pub fn damage(&self) -> impl Iterator<Item = (&FileReport, &FileDamage)> {
        self.files.iter().flat_map(|f| f.damage.iter().map(move |d| (f, d)))
    }
}

impl LogCore {
    /// Verifies the files of an open log. What is being written meanwhile is no damage.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        self.check_open()?;
        self.directory().map_or_else(
            || Ok(VerifyReport { clean: true, ..VerifyReport::default() }),
            |directory| verify(directory, &self.engine.codecs, true),
        )
    }
}

/// Verifies the files in a directory; `live` says that somebody is writing there.
pub(crate) fn verify(directory: &Directory, codecs: &Codecs, live: bool) -> Result<VerifyReport> {
    let mut verifying = Verifying { directory, codecs, live, report: VerifyReport::default() };
    let entries = directory.list(Path::new(""))?;
    let root = verifying.roots(&entries);
    verifying.report.clean = root.as_ref().is_some_and(|r| r.clean);
    for entry in &entries {
        let name = entry.name.to_string_lossy();
        match &*name {
            ROOT | ROOT_TWIN | QUARANTINE => {}
            TOPICS_FOLDER => verifying.topics(entry)?,
            _ => verifying.beside(entry, root.as_ref())?,
        }
    }
    if let Some(root) = root.filter(|root| !root.clean && root.staging_here) {
        let name = staging::file_name(root.staging_id, 0);
        if !entries.iter().any(|e| e.name == *name) {
            let what = "the staging file is absent, and the log was not closed";
            let report = verifying.file(Path::new(&name), FileKind::Staging, 0);
            report.damage.push(FileDamage::new(DamageKind::Lost, 0..0, what));
        }
    }
    Ok(verifying.report)
}

struct Verifying<'a> {
    directory: &'a Directory,
    codecs: &'a Codecs,
    live: bool,
    report: VerifyReport,
}

impl Verifying<'_> {
    fn file(&mut self, rel: &Path, kind: FileKind, len: u64) -> &mut FileReport {
        let path = self.directory.root().join(rel);
        let report = FileReport { path, kind, len, blocks: 0, records: 0, offsets: None, damage: Vec::new() };
        self.report.files.push(report);
        let last = self.report.files.len() - 1;
        &mut self.report.files[last]
    }

    /// Both root files; returns the one that counts.
    fn roots(&mut self, entries: &[Entry]) -> Option<RootFile> {
        let directory = self.directory;
        let read = |name: &str| {
            let bytes = directory.read(Path::new(name), MAX_ROOT)?;
            RootFile::decode(&bytes)
        };
        let found = [ROOT, ROOT_TWIN].map(|name| (name, read(name)));
        // With the other one whole, nothing is lost; and a log that is new has one only.
        let alone = found.iter().filter(|(_, root)| root.is_ok()).count() == 0;
        for (name, root) in &found {
            let entry = entries.iter().find(|e| e.name == **name);
            let Err(e) = root else {
                self.file(Path::new(name), FileKind::Root, entry.map_or(0, |e| e.len));
                continue;
            };
            if entry.is_none() && !alone {
                continue;
            }
            let kind = if alone { DamageKind::Lost } else { DamageKind::Spare };
            let len = entry.map_or(0, |e| e.len);
            self.file(Path::new(name), FileKind::Root, len).damage.push(FileDamage::new(
                kind,
                0..len,
                e.to_string(),
            ));
        }
        let [(_, current), (_, twin)] = found;
        crate::log::root::choose(current, twin).ok()
    }

    /// Something that lies beside the root files.
    fn beside(&mut self, entry: &Entry, root: Option<&RootFile>) -> Result<()> {
        let name = Path::new(&entry.name);
        let number = root.and_then(|root| {
            let prefix = format!("staging-{:016x}-", root.staging_id);
            entry.name.to_str()?.strip_prefix(&prefix)?.parse::<u32>().ok()
        });
        match (number, root) {
            (Some(number), Some(root)) if !root.clean && entry.kind == EntryKind::File => {
                self.staging(name, entry.len, number, root)
            }
            _ => {
                self.file(name, FileKind::Other, entry.len);
                Ok(())
            }
        }
    }

    fn staging(&mut self, name: &Path, len: u64, number: u32, root: &RootFile) -> Result<()> {
        let (live, directory) = (self.live, self.directory);
        let path = directory.root().join(name);
        let report = self.file(name, FileKind::Staging, len);
        if live {
            return Ok(()); // it changes while it is read
        }
        let slots = match staged::slots(&**directory.disk(), &path, root.staging_id, number, root.incarnation)
        {
            Ok(slots) => slots,
            Err(e) if tells_of_bytes(&e) => {
                // Only the first was ever promised to be there after a loss of power.
                let kind = if number == 0 { DamageKind::Lost } else { DamageKind::Torn };
                report.damage.push(FileDamage::new(kind, 0..len, e.to_string()));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let mut memory = Vec::new();
        for (_, at) in slots.damaged {
            let what = "the header of a slot does not prove itself";
            report.damage.push(FileDamage::new(DamageKind::Lost, at..at + slot::HEADER as u64, what));
        }
        for slot in slots.slots {
            let found = slot.look(slot.read(&mut memory)?);
            report.blocks += 1;
            report.records += found.frames;
            if let Some(bytes) = found.unproved {
                let what = "a frame does not prove itself";
                report.damage.push(FileDamage::new(DamageKind::Torn, bytes, what));
            }
        }
        Ok(())
    }

    fn topics(&mut self, topics: &Entry) -> Result<()> {
        let folder = Path::new(TOPICS_FOLDER);
        for topic in self.folders(folder, topics)? {
            let path = folder.join(&topic.name);
            let id = topic.name.to_str().and_then(folder_id);
            for partition in self.folders(&path, &topic)? {
                let name = partition.name.to_str();
                let number = name.and_then(|n| n.parse::<u32>().ok().filter(|p| p.to_string() == n));
                let path = path.join(&partition.name);
                match (id, number) {
                    (Some(id), Some(number)) => self.partition(&path, &partition, (id, number))?,
                    _ => drop(self.file(&path, FileKind::Other, partition.len)),
                }
            }
        }
        Ok(())
    }

    /// What is in a folder; nothing where it is something else.
    fn folders(&mut self, path: &Path, entry: &Entry) -> Result<Vec<Entry>> {
        if entry.kind != EntryKind::Directory {
            self.file(path, FileKind::Other, entry.len);
            return Ok(Vec::new());
        }
        match self.directory.list(path) {
            // It was deleted meanwhile.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    fn partition(&mut self, folder: &Path, entry: &Entry, owner: (u64, u32)) -> Result<()> {
        let mut segments = Vec::new();
        for file in self.folders(folder, entry)? {
            match file.name.to_str().and_then(parse_file_name) {
                Some((base, generation)) => segments.push((base, generation, file)),
                None => drop(self.file(&folder.join(&file.name), FileKind::Other, file.len)),
            }
        }
        segments.sort_by_key(|(base, generation, _)| (*base, *generation));
        let bases: Vec<u64> = segments.iter().map(|(base, ..)| *base).collect();
        for (i, (_, _, file)) in segments.iter().enumerate() {
            self.segment(folder, file, owner, bases.get(i + 1).copied())?;
        }
        Ok(())
    }

    /// One segment, behind which another begins at offset `next`, unless it is the last.
    fn segment(&mut self, folder: &Path, file: &Entry, owner: (u64, u32), next: Option<u64>) -> Result<()> {
        let (directory, codecs, live, clean) =
            (self.directory, self.codecs, self.live, self.report.clean && next.is_none());
        let name = file.name.to_string_lossy();
        let found = match check(directory, folder, &name, owner, codecs) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()), // deleted meanwhile
            Err(e) => return Err(e),
        };
        let unreadable = found.offsets.is_none();
        // Made by a process that died before it wrote anything: the next open removes it.
        let unborn = unreadable && !clean && next.is_none() && is_unborn(directory, folder, &name)?;
        let kind = FileKind::Segment { topic_id: owner.0, partition: owner.1 };
        let report = self.file(&folder.join(&file.name), kind, file.len);
        (report.blocks, report.records) = (found.blocks, found.records);
        report.offsets = found.offsets;
        report.damage = found.damage;
        for damage in report.damage.iter_mut().filter(|_| unreadable) {
            damage.bytes = 0..file.len;
            damage.kind = if unborn { DamageKind::Torn } else { DamageKind::Lost };
        }
        let end = report.offsets.as_ref().map(|o| o.end);
        match (end, next) {
            (Some(end), Some(next)) if end < next => {
                if !report.damage.iter().any(|d| d.kind == DamageKind::Torn) {
                    let what = "the next segment begins at a later offset";
                    report.damage.push(FileDamage::new(DamageKind::Torn, file.len..file.len, what));
                }
                for damage in report.damage.iter_mut().filter(|d| d.kind == DamageKind::Torn) {
                    damage.kind = DamageKind::Lost;
                    let from = damage.offsets.take().map_or(end, |cut| cut.start);
                    damage.offsets = Some(from..next);
                }
            }
            // No header is missing, so that a block that is cut short is the last, and anything else was the footer.
            (Some(_), Some(_)) => {
                for damage in report.damage.iter_mut().filter(|d| d.kind == DamageKind::Torn) {
                    let is_block = damage.offsets.is_some();
                    damage.kind = if is_block { DamageKind::Lost } else { DamageKind::Spare };
                }
            }
            (_, None) if live => report.damage.retain(|d| d.kind != DamageKind::Torn),
            (_, None) if clean => {
                if !found.sealed && report.damage.is_empty() {
                    let what = "the log was closed, and the end of its last segment is missing";
                    report.damage.push(FileDamage::new(DamageKind::Torn, file.len..file.len, what));
                }
                for damage in report.damage.iter_mut().filter(|d| d.kind == DamageKind::Torn) {
                    damage.kind = DamageKind::Lost;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether there is anything of a log in a directory.
pub(crate) fn check_is_log(directory: &Directory) -> Result<()> {
    for name in [ROOT, ROOT_TWIN, TOPICS_FOLDER] {
        if directory.exists(Path::new(name))? {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::NotFound, "there is no log in this directory").at_path(directory.root()))
}
