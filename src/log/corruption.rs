//! What becomes of damage below what was flushed, when a log is opened.
//!
//! Reading goes on around it either way, and nothing is ever thrown away. Setting it aside is the work of `repair`, done to
//! the files alone that the open stumbled over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{TOPICS, folder_id, internal_id};
use crate::log::core::{LogCore, TOPICS_FOLDER};
use crate::log::opening::LogBuilder;
use crate::log::repair::{repair_segment, set_file_aside};
use crate::log::report::{RecoveryItem, RecoveryReport};
use crate::log::verify::{FileKind, FileReport};
use crate::partition::event::{Event, Hook};
use crate::partition::recovery::RecoveryAction;
use crate::partition::write_behind::Engine;
use crate::segment::check::{DamageKind, FileDamage, SegmentFile, check};
use crate::segment::format::parse_file_name;
use crate::storage::directory::Directory;

/// What becomes of damage that an open finds below what was flushed. The [`RecoveryReport`] tells of it either way, and every
/// record before and behind it stays.
///
/// [`RecoveryReport`]: crate::admin::RecoveryReport
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnCorruption {
    /// It is refused: the bytes stay where they are, reads that come to them give
    /// [`CorruptRecord`](crate::ErrorKind::CorruptRecord), and so does the open where nothing of a file can be believed, not
    /// even what it is.
    #[default]
    Refuse,
    /// It is set aside: the bytes go to `quarantine`, and readers go over the hole, as after
    /// [`repair`](crate::LogBuilder::repair), but without a look at files that seem sound. Damage to the catalog of topics is
    /// refused all the same: what is not in it would go with it.
    Quarantine,
}

impl LogBuilder {
    /// The log in `dir`, made there where `may_create` says so.
    pub(crate) fn begin_in(self, dir: &Path, may_create: bool) -> Result<Arc<LogCore>> {
        match self.on_corruption {
            OnCorruption::Refuse => self.begin_as_it_is(dir, may_create),
            OnCorruption::Quarantine => self.begin_and_set_aside(dir, may_create),
        }
    }

    fn begin_and_set_aside(self, dir: &Path, may_create: bool) -> Result<Arc<LogCore>> {
        let mut items = Vec::new();
        let log = loop {
            // Each turn takes one file away.
            let mut quiet = self.clone();
            quiet.hook = None;
            match quiet.begin_as_it_is(dir, may_create) {
                Ok(log) => break log,
                Err(e) => self.set_unreadable_aside(dir, e, &mut items)?,
            }
        };
        let mut earlier = log.report.clone();
        let (damaged, others): (Vec<_>, Vec<_>) = earlier.items.into_iter().partition(is_in_a_segment);
        if damaged.is_empty() && items.is_empty() {
            hear(&log.engine, self.hook, &log.report);
            return Ok(log);
        }
        // What the hot tail holds goes to the files first.
        log.close(Duration::MAX)?;
        drop(log);
        self.set_damage_aside(dir, &damaged, &mut items)?;
        earlier.items = others.into_iter().chain(items).collect();
        let mut again = self;
        again.earlier = Some(earlier);
        again.begin_as_it_is(dir, false)
    }

    /// Moves the segment out of the way that `error` tells of, where nothing in it can be believed; gives it back otherwise.
    fn set_unreadable_aside(&self, dir: &Path, error: Error, items: &mut Vec<RecoveryItem>) -> Result<()> {
        let (_, disk) = self.parts()?;
        let directory = Directory::open_existing(dir, disk)?;
        let Some((file, owner)) = error.path().and_then(|path| segment_of(&directory, path)) else {
            return Err(error);
        };
        let is_catalog = Some(owner.0) == internal_id(TOPICS);
        if is_catalog || !matches!(error.kind(), ErrorKind::CorruptRecord | ErrorKind::ForeignFile) {
            return Err(error);
        }
        let _lock = directory.lock()?;
        let (folder, name) = (file.parent().unwrap_or(&file), file.file_name().unwrap_or_default());
        if SegmentFile::open(&directory, folder, &name.to_string_lossy(), owner).is_ok() {
            return Err(error); // it is what it should be, and something else is amiss
        }
        let len = directory.open(&file, false)?.len()?;
        let damage = FileDamage::new(DamageKind::Lost, 0..len, error.to_string());
        let report = report_of(&directory, &file, owner, vec![damage]);
        set_file_aside(&directory, &report, items)
    }

    /// Replaces the segments that are damaged by what is good of them.
    fn set_damage_aside(
        &self,
        dir: &Path,
        damaged: &[RecoveryItem],
        items: &mut Vec<RecoveryItem>,
    ) -> Result<()> {
        let (codecs, disk) = self.parts()?;
        let directory = Directory::open_existing(dir, disk)?;
        let _lock = directory.lock()?;
        let mut done = None;
        for item in damaged {
            let Some(path) = item.file.as_deref().filter(|path| done != Some(*path)) else { continue };
            done = Some(path);
            let Some((file, owner)) = segment_of(&directory, path) else { continue };
            let (folder, name) = (file.parent().unwrap_or(&file), file.file_name().unwrap_or_default());
            let found = check(&directory, folder, &name.to_string_lossy(), owner, &codecs)?;
            let report = report_of(&directory, &file, owner, found.damage);
            let before = items.len();
            repair_segment(&directory, &report, owner, &codecs, items)?;
            items[before..].iter_mut().for_each(|new| new.partition.clone_from(&item.partition));
        }
        Ok(())
    }
}

/// Has the user told of what happens from now on, and of what the open set aside.
pub(super) fn hear(engine: &Arc<Engine>, hook: Option<Hook>, report: &RecoveryReport) {
    hook.into_iter().for_each(|hook| engine.on_event(hook));
    for item in &report.items {
        if let Some(kept_in) = item.kept_in.clone() {
            let (partition, reason) = (item.partition.clone(), item.reason.clone());
            engine.tell(Event::Quarantined { partition, kept_in, reason });
        }
    }
}

/// Whether it is damage in a segment that was left in place.
fn is_in_a_segment(item: &RecoveryItem) -> bool {
    item.action == RecoveryAction::Damaged
        && item.kept_in.is_none()
        && item.bytes.is_some()
        && item.file.as_ref().and_then(|file| parse_file_name(file.file_name()?.to_str()?)).is_some()
}

fn report_of(
    directory: &Directory,
    file: &Path,
    (topic_id, partition): (u64, u32),
    damage: Vec<FileDamage>,
) -> FileReport {
    FileReport {
        path: directory.root().join(file),
        kind: FileKind::Segment { topic_id, partition },
        len: 0,
        blocks: 0,
        records: 0,
        offsets: None,
        damage,
    }
}

/// The path of a segment seen from the directory, and whose it is.
fn segment_of(directory: &Directory, path: &Path) -> Option<(std::path::PathBuf, (u64, u32))> {
    let rel = path.strip_prefix(directory.root()).ok()?;
    let mut parts = rel.iter().map(|part| part.to_str());
    let (top, topic, partition, name) = (parts.next()??, parts.next()??, parts.next()??, parts.next()??);
    parse_file_name(name).filter(|_| top == TOPICS_FOLDER)?;
    Some((rel.to_path_buf(), (folder_id(topic)?, partition.parse().ok()?)))
}
