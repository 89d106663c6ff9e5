//! Setting damage aside, so that what is around it can be read without a stumble.
//!
//! In this order, and a process that dies between any two steps leaves a log that the same call repairs:
//!
//! 1. segment files that keep the log from being opened go to the quarantine whole;
//! 2. the log is opened and closed: that brings the hot tail back, and cuts torn ends off;
//! 3. of every segment that is damaged still, the damaged bytes are copied to the quarantine and flushed, and the file is
//!    replaced by one without them (`segment/rewrite.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::codec::Codecs;
use crate::error::{ErrorKind, Result};
use crate::log::core::LogCore;
use crate::log::opening::{LogBuilder, QUARANTINE};
use crate::log::report::{RecoveryItem, RecoveryReport};
use crate::log::verify::{FileKind, FileReport, VerifyReport, check_is_log, verify};
use crate::partition::recovery::{RecoveryAction, free_name};
use crate::segment::check::{DamageKind, FileDamage, SegmentFile};
use crate::segment::rewrite::rewrite;
use crate::storage::directory::Directory;

/// How much is copied at a time.
const STEP: usize = 1 << 20;

/// What a repair found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// What the open in between found.
    pub recovery: RecoveryReport,
    /// What was set aside besides, with the place where the bytes are kept until you delete them.
    pub items: Vec<RecoveryItem>,
    /// The files afterwards.
    pub after: VerifyReport,
}

impl LogBuilder {
    /// Verifies the files of a log that is not open here.
    pub(crate) fn begin_verify(self, dir: &Path) -> Result<VerifyReport> {
        let (codecs, disk) = self.parts()?;
        let directory = Directory::open_existing(dir, disk)?;
        check_is_log(&directory)?;
        verify(&directory, &codecs, false)
    }

    /// Repairs a log that is not open.
    pub(crate) fn begin_repair(self, dir: &Path) -> Result<RepairReport> {
        let (codecs, disk) = self.parts()?;
        let directory = Directory::open_existing(dir, Arc::clone(&disk))?;
        check_is_log(&directory)?;
        let mut items = Vec::new();
        let lock = directory.lock()?;
        for file in verify(&directory, &codecs, false)?.files {
            if let FileKind::Segment { .. } = file.kind
                && file.offsets.is_none()
                && file.damage.iter().any(|d| d.kind == DamageKind::Lost)
            {
                set_file_aside(&directory, &file, &mut items)?;
            }
        }
        drop(lock);

        let log = self.begin_as_it_is(dir, false)?;
        let recovery = log.report.clone();
        LogCore::close(&log, Duration::MAX)?;
        drop(log);

        let directory = Directory::open_existing(dir, disk)?;
        let _lock = directory.lock()?;
        for file in verify(&directory, &codecs, false)?.files {
            if let FileKind::Segment { topic_id, partition } = file.kind
                && file.damage.iter().any(is_in_the_way)
            {
                repair_segment(&directory, &file, (topic_id, partition), &codecs, &mut items)?;
            }
        }
        let after = verify(&directory, &codecs, false)?;
        Ok(RepairReport { recovery, items, after })
    }
}

/// Whether a rewrite of the file is of use: bytes that are there and should not be, not bytes that are nowhere.
fn is_in_the_way(damage: &FileDamage) -> bool {
    !damage.bytes.is_empty()
}

/// The path of a file seen from the directory, its folder, and its name.
fn parts<'a>(directory: &Directory, path: &'a Path) -> Option<(&'a Path, &'a Path, &'a str)> {
    let rel = path.strip_prefix(directory.root()).ok()?;
    Some((rel, rel.parent()?, rel.file_name()?.to_str()?))
}

fn aside(directory: &Directory, (id, partition): (u64, u32), name: &str, at: Option<u64>) -> Result<PathBuf> {
    directory.create_dir_all(Path::new(QUARANTINE))?;
    let at = at.map_or_else(String::new, |at| format!("-{at}"));
    Ok(free_name(directory, Path::new(QUARANTINE), format!("{id:016x}-{partition}-{name}{at}")))
}

fn item(file: &FileReport, damage: &FileDamage, kept_in: Option<PathBuf>) -> RecoveryItem {
    RecoveryItem {
        action: RecoveryAction::Damaged,
        partition: None,
        offsets: damage.offsets.clone(),
        file: Some(file.path.clone()),
        bytes: Some(damage.bytes.clone()),
        kept_in,
        reason: damage.reason.clone(),
    }
}

/// Moves a segment file that says nothing, or is another's, out of the way.
pub(super) fn set_file_aside(
    directory: &Directory,
    file: &FileReport,
    items: &mut Vec<RecoveryItem>,
) -> Result<()> {
    let FileKind::Segment { topic_id, partition } = file.kind else { return Ok(()) };
    let Some((rel, folder, name)) = parts(directory, &file.path) else { return Ok(()) };
    match SegmentFile::open(directory, folder, name, (topic_id, partition)) {
        // It is of a newer version, or cannot be read: nothing that a repair can do.
        Err(e) if e.kind() == ErrorKind::UnsupportedVersion => return Err(e),
        Err(e) if !e.is_corrupt() && e.kind() != ErrorKind::ForeignFile => return Err(e),
        _ => {}
    }
    let to = aside(directory, (topic_id, partition), name, None)?;
    directory.rename(rel, &to)?;
    directory.sync_dir(folder)?;
    directory.sync_dir(Path::new(QUARANTINE))?;
    let to = directory.root().join(to);
    items.extend(file.damage.iter().map(|damage| item(file, damage, Some(to.clone()))));
    Ok(())
}

pub(super) fn repair_segment(
    directory: &Directory,
    file: &FileReport,
    owner: (u64, u32),
    codecs: &Codecs,
    items: &mut Vec<RecoveryItem>,
) -> Result<()> {
    let Some((rel, folder, name)) = parts(directory, &file.path) else { return Ok(()) };
    directory.create_dir_all(Path::new(QUARANTINE))?;
    for damage in file.damage.iter().filter(|d| is_in_the_way(d)) {
        let kept = if damage.kind == DamageKind::Spare {
            None
        } else {
            let to = aside(directory, owner, name, Some(damage.bytes.start))?;
            copy(directory, rel, damage, &to)?;
            Some(directory.root().join(to))
        };
        items.push(item(file, damage, kept));
    }
    directory.sync_dir(Path::new(QUARANTINE))?;
    rewrite(directory, folder, name, owner, codecs)
}

/// Copies the bytes of a damaged place, but for holes.
fn copy(directory: &Directory, from: &Path, damage: &FileDamage, to: &Path) -> Result<()> {
    let (from, kept) = (directory.open(from, false)?, directory.create(to)?);
    let mut memory = vec![0; STEP];
    let mut at = damage.bytes.start;
    while let Some(data) = from.next_data(at)?.filter(|data| *data < damage.bytes.end) {
        at = at.max(data);
        let len = usize::try_from(damage.bytes.end - at).unwrap_or(usize::MAX).min(STEP);
        let got = from.read_at_most(&mut memory[..len], at)?;
        if got == 0 {
            break;
        }
        kept.write_all_at(&memory[..got], at - damage.bytes.start)?;
        at += got as u64;
    }
    kept.sync()
}
