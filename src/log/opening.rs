//! Opening: settings, and the order in which a log comes to life.
//!
//! A durable log opens in this order, and may die between any two steps without harm:
//!
//! 1. the lock;
//! 2. the root file: which staging, which incarnation, whether the stop was clean; if not, whether the machine stopped
//!    as well (`witness.rs`);
//! 3. `__topics`, its hot frames included, so that it is known what there is;
//! 4. per partition: its segments, then the hot frames that follow on them, written and flushed;
//! 5. a new staging arena under a new id, and the testimony in it;
//! 6. the root file: the new staging, the next incarnation, not clean, and after an unclean stop the next
//!    leader epoch;
//! 7. the old staging goes, and strays of opens that died between 5 and 6.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::codec::{Codec, Codecs};
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{Catalog, Change, TOPICS, TopicConfig, TopicRecord, folder_id};
use crate::log::core::{
    LogCore, OnDisk, ROOT, ROOT_TWIN, TOPICS_FOLDER, TopicCore, built_in, partition_folder,
};
use crate::log::corruption::{OnCorruption, hear};
use crate::log::report::{RecoveryItem, RecoveryReport};
use crate::log::root::{RootFile, choose, ends};
use crate::log::scrub::Scrub;
use crate::partition::core::{Opened, PartitionCore};
use crate::partition::cursor::{Cursor, Store};
use crate::partition::event::{Event, Hook};
use crate::partition::records::Identity;
use crate::partition::recovery::{Recovering, RecoveryAction, recover_partition};
use crate::partition::write_behind::Engine;
use crate::segment::reader::Segment;
use crate::storage::arena::{Pool, random_nonzero};
use crate::storage::directory::{Directory, StagingFolder};
use crate::storage::disk::{Disk, EntryKind, RealDisk};
#[cfg(feature = "testing")]
use crate::storage::fault::{FaultDisk, FaultPlan};
use crate::storage::slot::HEADER;
use crate::storage::staged::{self, StagedChunk};
use crate::storage::staging::{self, Held};
use crate::storage::witness::Witness;
use crate::tail::Tail;
use crate::topic_partition::TopicPartition;

/// The largest root file that is believed.
pub(crate) const MAX_ROOT: usize = 1 << 20;
/// Where bytes go that cannot be believed, until the user deletes them.
pub(crate) const QUARANTINE: &str = "quarantine";

/// Settings of a log about to be opened.
///
/// ```
/// use std::time::Duration;
/// use tapelog::Log;
///
/// let log = Log::builder()
///     .memory_budget(16 << 20)
///     .max_block(Duration::from_secs(1))
///     .in_memory()?;
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Clone)]
pub struct LogBuilder {
    memory_budget: usize,
    memory_limit: usize,
    max_block: Duration,
    staging: Option<PathBuf>,
    offsets_retention: Option<Duration>,
    scrub: Option<u64>,
    pub(super) hook: Option<Hook>,
    pub(super) on_corruption: OnCorruption,
    /// What an open just before this one, of the same call, found and did.
    pub(super) earlier: Option<RecoveryReport>,
    clock: Arc<dyn Clock>,
    codecs: Codecs,
    /// The first setting that cannot be, told when the log is opened.
    wrong: Option<Error>,
    pub(super) disk: Arc<dyn Disk>,
    #[cfg(feature = "testing")]
    pub(super) faults: Option<Arc<FaultPlan>>,
    /// Whether threads write and flush, and give back what the staging files of the last open hold.
    pub(super) driven: bool,
}

impl Default for LogBuilder {
    fn default() -> Self {
        LogBuilder {
            memory_budget: 64 << 20,
            memory_limit: 1 << 30,
            max_block: Duration::from_secs(60),
            staging: None,
            offsets_retention: None,
            scrub: None,
            hook: None,
            on_corruption: OnCorruption::default(),
            earlier: None,
            clock: Arc::new(SystemClock),
            codecs: Codecs::default(),
            wrong: None,
            disk: Arc::new(RealDisk::default()),
            #[cfg(feature = "testing")]
            faults: None,
            driven: true,
        }
    }
}

impl LogBuilder {
    /// How many bytes may be appended and not yet written, over the whole log: 64 MiB by default, 256 KiB at
    /// least. It is also the size of the staging file, which is allocated at the open. In-memory logs have a
    /// [`memory_limit`] instead. What readers stand in, and records that are kept, counts beside it, up to as much again:
    /// while that is more, appends wait for room, and fail with `BufferExhausted` after [`LogBuilder::max_block`].
    ///
    /// [`memory_limit`]: LogBuilder::memory_limit
    #[must_use]
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = usize::try_from(bytes).unwrap_or(usize::MAX);
        self
    }

    /// How many bytes an in-memory log may hold before appends give `NoMemory`: 1 GiB by default, 256 KiB at least.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = usize::try_from(bytes).unwrap_or(usize::MAX);
        self
    }

    /// How long an append waits for room in the budget before it gives `BufferExhausted`: 60 s by default.
    /// (Kafka: `max.block.ms`.)
    #[must_use]
    pub fn max_block(mut self, wait: Duration) -> Self {
        self.max_block = wait;
        self
    }

    /// Where the staging file lies, in place of the data directory. On `/dev/shm` no append ever meets a disk,
    /// but what is not written is gone with the machine: after an unclean stop without it an open gives
    /// `StagingMissing`.
    #[must_use]
    pub fn staging(mut self, folder: impl Into<PathBuf>) -> Self {
        self.staging = Some(folder.into());
        self
    }

    /// How long what a group committed stays after its last member has gone; for ever unless set. What was committed by
    /// a consumer that chose its partitions itself, or for topics that no member asks for any more, stays so long after
    /// the commit. (Kafka: `offsets.retention.minutes`, KIP-211.)
    ///
    /// The end is written down like a commit. Of members that a process took along when it stopped, the time counts from
    /// when the log is opened again.
    #[must_use]
    pub fn offsets_retention(mut self, retention: Duration) -> Self {
        self.offsets_retention = Some(retention);
        self
    }

    /// Reads records that nobody reads, so many bytes of files in a second, and tells of damage by
    /// [`Event::DamageFound`]: never, unless set. Only segments that are complete are read, round after round, of which one
    /// begins an hour after the one before at the earliest.
    #[must_use]
    pub fn scrub(mut self, bytes_per_second: u64) -> Self {
        self.scrub = Some(bytes_per_second);
        self
    }

    /// Whom to tell of what happens unasked: members that are late, a disk that is full, a partition that failed.
    ///
    /// It is called on the log's callback thread, with no lock held, in the order in which things happen, and may use the log,
    /// but not wait in it. A panic in it is contained. What is told when a log ends may not be heard any more.
    ///
    /// ```
    /// use tapelog::{Log, admin::Event};
    ///
    /// let log = Log::builder()
    ///     .on_event(|event| match event {
    ///         Event::MemberLate { group, member, silent_for, .. } => {
    ///             eprintln!("{member} of {group} has not polled for {silent_for:?}");
    ///         }
    ///         other => eprintln!("{other:?}"),
    ///     })
    ///     .in_memory()?;
    /// # Ok::<(), tapelog::Error>(())
    /// ```
    #[must_use]
    pub fn on_event(mut self, tell: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(tell));
        self
    }

    /// What becomes of damage that an open finds below what was flushed: by default it stays where it is, and reads of it
    /// give an error.
    #[must_use]
    pub fn on_corruption(mut self, what: OnCorruption) -> Self {
        self.on_corruption = what;
        self
    }

    /// Where time comes from, in place of the system's clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<impl Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Registers a codec of the user's: whenever a log that used it is opened, or reads of its blocks give
    /// `UnsupportedCompressionType`.
    ///
    /// An id below 128, or one that is taken, makes the open fail with `InvalidConfig`.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec) -> Self {
        if let Err(e) = self.codecs.register(Arc::new(codec)) {
            self.wrong.get_or_insert(e);
        }
        self
    }

    /// The disk that was asked for, with the faults that were asked for.
    fn its_disk(&self) -> Arc<dyn Disk> {
        let disk = Arc::clone(&self.disk);
        #[cfg(feature = "testing")]
        if let Some(plan) = &self.faults {
            return Arc::new(FaultDisk::new(disk, Arc::clone(plan)));
        }
        disk
    }

    fn check(&self) -> Result<()> {
        match &self.wrong {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// What it takes to look at files without opening the log.
    pub(crate) fn parts(&self) -> Result<(Codecs, Arc<dyn Disk>)> {
        self.check()?;
        Ok((self.codecs.clone(), self.its_disk()))
    }

    /// A log in memory.
    pub(crate) fn begin_in_memory(self) -> Result<Arc<LogCore>> {
        self.check()?;
        let pool = Pool::heap(self.memory_limit)?;
        let engine = Engine::new(pool, self.codecs, self.clock, None, self.max_block);
        self.hook.into_iter().for_each(|hook| engine.on_event(hook));
        let report = RecoveryReport { clean: true, leader_epoch: 1, ..RecoveryReport::default() };
        let topics = built_in()
            .map(|(name, id)| {
                let name: Arc<str> = name.into();
                let opened = vec![Opened::empty(report.leader_epoch)];
                topic_core(&engine, &name, id, TopicConfig::new(), opened)
            })
            .collect();
        let (epoch, catalog) = (report.leader_epoch, Catalog::default());
        Ok(LogCore::new(engine, epoch, report, self.offsets_retention, catalog, topics, None))
    }

    /// The log in `dir`, made there where `may_create` says so, with its damage in place.
    pub(crate) fn begin_as_it_is(self, dir: &Path, may_create: bool) -> Result<Arc<LogCore>> {
        self.check()?;
        let disk = self.its_disk();
        let directory = if may_create {
            Directory::open_or_create(dir, disk)?
        } else {
            let directory = Directory::open_existing(dir, disk)?;
            if !directory.exists(Path::new(ROOT))? && !directory.exists(Path::new(ROOT_TWIN))? {
                let message = "there is no log in this directory";
                return Err(Error::new(ErrorKind::NotFound, message).at_path(dir));
            }
            directory
        };
        self.open_directory(Arc::new(directory), may_create)
    }

    fn open_directory(self, directory: Arc<Directory>, may_create: bool) -> Result<Arc<LogCore>> {
        let lock = directory.lock()?;
        let (before, is_new) = match read_root(&directory)? {
            Some(root) => (root, false),
            None if may_create => (new_root(&directory)?, true),
            None => {
                return Err(Error::new(ErrorKind::NotFound, "there is no log in this directory")
                    .at_path(directory.root()));
            }
        };
        let clean = before.clean;
        let epoch = if clean { before.leader_epoch } else { before.leader_epoch.saturating_add(1) };
        let mut report = self.earlier.map_or_else(
            || RecoveryReport { clean, leader_epoch: epoch, ..RecoveryReport::default() },
            |earlier| RecoveryReport { leader_epoch: epoch, ..earlier },
        );

        let mut old_staging = None;
        let mut staged = Staged::default();
        let mut witness = None;
        if !clean {
            let folder = staging_that_was(&directory, &before)?;
            let file = folder.path.join(staging::file_name(before.staging_id, 0));
            witness = Witness::take(&*folder.disk, &file)
                .filter(|then| Some(*then) == Witness::now(&directory, &*folder.disk, &file));
            report.page_cache_survived = witness.is_some();
            let left = staged::recover(&*folder.disk, &folder.path, before.staging_id, before.incarnation)?;
            old_staging = Some(folder);
            left.slots.into_iter().for_each(|chunk| staged.add(chunk));
            report.items.extend(left.damaged.into_iter().map(|(file, at)| RecoveryItem {
                action: RecoveryAction::Damaged,
                partition: None,
                offsets: None,
                file: Some(file),
                bytes: Some(at..at + HEADER as u64),
                kept_in: None,
                reason: "the header of a slot of the hot tail does not prove itself".into(),
            }));
        }
        let mut opening = Opening {
            directory: &directory,
            codecs: &self.codecs,
            clock: &*self.clock,
            clean,
            survived_on: witness.map(|w| w.mount()),
            epoch,
            staged,
            report: &mut report,
        };
        let mut found: Vec<(Arc<str>, u64, TopicConfig, Vec<Opened>)> = Vec::new();
        let (mut catalog, mut deleted) = (Catalog::default(), HashSet::new());
        for (name, id) in built_in() {
            let opened = opening.partition(&name.into(), 0, &TopicRecord::new(id, TopicConfig::new()))?;
            found.push((name.into(), id, TopicConfig::new(), vec![opened]));
            if name == TOPICS {
                (catalog, deleted) = read_catalog(&found[0].3[0], &self.codecs)?;
            }
        }
        for (name, record) in catalog.iter() {
            let name: Arc<str> = name.into();
            let config = &record.config;
            let partitions = (0..config.resolved().partitions)
                .map(|number| opening.partition(&name, number, record))
                .collect::<Result<Vec<_>>>()?;
            found.push((name, record.id, config.clone(), partitions));
        }
        let leaving = opening.set_strangers_aside(&catalog, &deleted)?;
        let unflushed = found.iter_mut().flat_map(|(.., opened)| opened);
        let unflushed: Vec<_> = unflushed.flat_map(|o| std::mem::take(&mut o.unflushed)).collect();
        let flush = Stopwatch::start();
        Segment::flush_found(&unflushed)?;
        report.flush_time += flush.elapsed();
        // Only now: a loss of power must not bring a topic back whose files are gone.
        leaving.iter().try_for_each(|folder| directory.remove_dir_all(folder))?;
        if let Some(then) = before.ends.filter(|_| clean && !report.has_losses())
            && then != ends(found.iter().flat_map(|(_, id, _, opened)| ends_of(*id, opened)))
        {
            report.items.push(other_ends(&directory));
        }
        let mut epoch = epoch;
        if clean && report.has_losses() {
            // Offsets of records that are gone may be given again: never in the same epoch.
            epoch = epoch.saturating_add(1);
            report.leader_epoch = epoch;
            found.iter_mut().flat_map(|(.., opened)| opened).for_each(|o| o.epoch = epoch);
        }

        let staging = directory.staging(self.staging.as_deref())?;
        let staging_id = random_nonzero();
        let incarnation = before.incarnation + 1;
        let pool = Pool::mapped(
            Arc::clone(&staging.disk),
            &staging.path,
            staging_id,
            incarnation,
            self.memory_budget,
        )?;
        testify(&directory, &staging, staging_id)?;
        let old_id = before.staging_id;
        let disk = OnDisk {
            directory: Arc::clone(&directory),
            lock: Mutex::new(Some(lock)),
            root: Mutex::new(before),
            staging,
        };
        let written = disk.write_root(|root| {
            root.staging_id = staging_id;
            root.staging_here = self.staging.is_none();
            root.staging_path = self.staging.as_ref().map(|p| p.to_string_lossy().into_owned());
            root.incarnation = incarnation;
            root.leader_epoch = epoch;
            root.clean = false;
            root.ends = None;
        });
        if let Err(e) = written {
            // One copy of the root may have been replaced before the other failed.
            if !names_staging(&directory, staging_id) {
                let _ = staging::remove(&*disk.staging.disk, &disk.staging.path, staging_id);
            }
            return Err(e);
        }
        let mut old_staging_files = None;
        if let Some(old) = old_staging.filter(|_| !is_new) {
            let held = staging::remove_names(&*old.disk, &old.path, old_id)?;
            old_staging_files = self.driven.then_some(held);
        }
        remove_stray_staging(&directory, staging_id)?;

        let engine = Engine::new(pool, self.codecs, self.clock, Some(Arc::clone(&directory)), self.max_block);
        hear(&engine, self.hook, &report);
        let topics = found
            .into_iter()
            .map(|(name, id, config, opened)| topic_core(&engine, &name, id, config, opened))
            .collect();
        if self.driven {
            engine.start()?;
        }
        let log = LogCore::new(engine, epoch, report, self.offsets_retention, catalog, topics, Some(disk));
        if let Some(rate) = self.scrub {
            let _ = log.scrub.set(Scrub::begin(&log, rate)); // a log is opened once
        }
        // Last of all, for it keeps a processor busy.
        old_staging_files.into_iter().for_each(Held::give_back);
        Ok(log)
    }
}

impl std::fmt::Debug for LogBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogBuilder")
            .field("memory_budget", &self.memory_budget)
            .field("max_block", &self.max_block)
            .field("staging", &self.staging)
            .finish_non_exhaustive()
    }
}

fn topic_core(
    engine: &Arc<Engine>,
    name: &Arc<str>,
    id: u64,
    config: TopicConfig,
    opened: Vec<Opened>,
) -> Arc<TopicCore> {
    let settings = config.resolved().settings;
    let partitions = (0u32..)
        .zip(opened)
        .map(|(number, opened)| {
            let identity = Identity { topic_id: id, tp: TopicPartition::new(Arc::clone(name), number) };
            PartitionCore::open(
                identity,
                Arc::clone(engine),
                settings,
                partition_folder(name, id, number),
                opened,
            )
        })
        .collect();
    TopicCore::new(Arc::clone(name), id, config, partitions)
}

/// Reads the root file that counts; `None` in a directory where a log may be begun.
fn read_root(directory: &Directory) -> Result<Option<RootFile>> {
    let read = |name: &str| {
        if !directory.exists(Path::new(name))? {
            let path = directory.root().join(name);
            return Err(Error::new(ErrorKind::NotFound, "there is no such file").at_path(&path));
        }
        let bytes = directory.read(Path::new(name), MAX_ROOT)?;
        RootFile::decode(&bytes).map_err(|e| e.at_path(&directory.root().join(name)))
    };
    let (current, before) = (read(ROOT), read(ROOT_TWIN));
    let absent = |r: &Result<RootFile>| r.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound);
    if !(absent(&current) && absent(&before)) {
        return choose(current, before).map(Some);
    }
    // A directory may be begun in when it is empty, but for what file systems and people put everywhere, and
    // for what an open that died before its first root file left.
    for entry in directory.list(Path::new(""))? {
        let name = entry.name.to_string_lossy();
        let harmless = name == "LOCK" || name == "lost+found" || name.starts_with('.');
        let begun = name.starts_with("staging-") || name.starts_with(ROOT);
        if name == TOPICS_FOLDER {
            let message = "the root file of the log is missing; its topics are there";
            return Err(Error::new(ErrorKind::CorruptRecord, message).at_path(&directory.root().join(ROOT)));
        }
        if !harmless && !begun {
            let message = format!("the directory holds {name:?} and is not a log");
            return Err(Error::new(ErrorKind::ForeignFile, message).at_path(directory.root()));
        }
    }
    Ok(None)
}

/// Whether a copy of the root file names this staging, as far as can be known.
fn names_staging(directory: &Directory, staging_id: u64) -> bool {
    [ROOT, ROOT_TWIN].iter().any(|name| match directory.read(Path::new(name), MAX_ROOT) {
        Ok(bytes) => RootFile::decode(&bytes).map_or(true, |root| root.staging_id == staging_id),
        Err(e) => e.kind() != ErrorKind::NotFound,
    })
}

fn new_root(directory: &Directory) -> Result<RootFile> {
    let root = RootFile::new(random_nonzero(), random_nonzero());
    directory.replace(Path::new(ROOT), &root.encode())?;
    Ok(root)
}

/// Where the staging files are that `root` names.
fn staging_that_was(directory: &Directory, root: &RootFile) -> Result<StagingFolder> {
    directory.staging(root.staging_path.as_ref().map(Path::new)).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            let message = "the folder of the staging file is absent";
            let folder = e.path().unwrap_or(directory.root()).to_path_buf();
            Error::new(ErrorKind::StagingMissing, message).at_path(&folder).caused_by(e)
        }
        _ => e,
    })
}

/// Leaves in the new staging file what tells the next open whether only the process stopped. Where that cannot be known
/// the next open verifies more.
fn testify(directory: &Directory, staging: &StagingFolder, staging_id: u64) -> Result<()> {
    let (disk, folder) = (&*staging.disk, &staging.path);
    let file = folder.join(staging::file_name(staging_id, 0));
    let Some(witness) = Witness::now(directory, disk, &file) else { return Ok(()) };
    let left = directory.count_flushes_in(disk, &file).and_then(|()| witness.leave(disk, &file));
    // Nothing else knows of the new file yet.
    left.inspect_err(|_| drop(staging::remove(disk, folder, staging_id)))
}

/// Staging files that no root file names, of opens that died half-way.
fn remove_stray_staging(directory: &Directory, current: u64) -> Result<()> {
    let own = format!("staging-{current:016x}-");
    for entry in directory.list(Path::new(""))? {
        let name = entry.name.to_string_lossy();
        if name.starts_with("staging-") && !name.starts_with(&own) {
            directory.remove_file(Path::new(&entry.name))?;
        }
    }
    Ok(())
}

/// Topic, partition and end of each partition of a topic.
fn ends_of(topic_id: u64, opened: &[Opened]) -> impl Iterator<Item = (u64, u32, u64)> {
    (0u32..).zip(opened).map(move |(number, opened)| (topic_id, number, opened.end))
}

/// What is told where nothing is damaged and yet something is not what it was.
fn other_ends(directory: &Directory) -> RecoveryItem {
    RecoveryItem {
        action: RecoveryAction::Damaged,
        partition: None,
        offsets: None,
        file: Some(directory.root().join(TOPICS_FOLDER)),
        bytes: None,
        kept_in: None,
        reason: "the log was closed with other end offsets than it has: a file is an older copy of itself"
            .into(),
    }
}

/// Builds the catalog from the records of `__topics`; the ids of topics that were deleted come with it.
fn read_catalog(topics: &Opened, codecs: &Codecs) -> Result<(Catalog, HashSet<u64>)> {
    let (mut catalog, mut deleted) = (Catalog::default(), HashSet::new());
    let mut cursor = Cursor::new(topics.start);
    let identity = Arc::new(Identity { topic_id: 1, tp: TopicPartition::new(TOPICS, 0) });
    let tail = Tail::new();
    let store = Store {
        identity: &identity,
        tail: &tail,
        chain: &topics.chain,
        codecs,
        start: topics.start,
        limit: topics.end,
    };
    while let Some(run) = cursor.fetch(&store, usize::MAX, usize::MAX).map_err(|e| e.with_topic(TOPICS))? {
        for frame in run.frames() {
            let change = catalog.apply(frame.key().unwrap_or_default(), frame.value())?;
            if let Change::Deleted(gone) = change {
                deleted.insert(gone.id);
            }
        }
    }
    Ok((catalog, deleted))
}

/// Chunks of the hot tail that an unclean stop left, by topic id and partition, in order of their offsets.
#[derive(Default)]
struct Staged(HashMap<(u64, u32), Vec<StagedChunk>>);

impl Staged {
    fn add(&mut self, chunk: StagedChunk) {
        self.0.entry((chunk.topic_id, chunk.partition)).or_default().push(chunk);
    }

    fn take(&mut self, topic_id: u64, partition: u32) -> Vec<StagedChunk> {
        let mut chunks = self.0.remove(&(topic_id, partition)).unwrap_or_default();
        chunks.sort_by_key(|chunk| chunk.base_offset);
        chunks
    }
}

/// An open on its way.
struct Opening<'a> {
    directory: &'a Arc<Directory>,
    codecs: &'a Codecs,
    clock: &'a dyn Clock,
    clean: bool,
    survived_on: Option<u64>,
    epoch: u32,
    staged: Staged,
    report: &'a mut RecoveryReport,
}

impl Opening<'_> {
    /// Brings one partition back.
    fn partition(&mut self, topic: &Arc<str>, number: u32, record: &TopicRecord) -> Result<Opened> {
        let id = record.id;
        let folder = partition_folder(topic, id, number);
        let staged = self.staged.take(id, number);
        let settings = record.config.resolved().settings;
        let tp = TopicPartition::new(Arc::clone(topic), number);
        let recovering = Recovering {
            directory: self.directory,
            codecs: self.codecs,
            clock: self.clock,
            clean: self.clean,
            survived_on: self.survived_on,
            epoch: self.epoch,
            topic_id: id,
            partition: number,
            start: record.start_of(number),
            folder: &folder,
            settings: &settings,
            quarantine: Path::new(QUARANTINE),
        };
        let (opened, found) = recover_partition(&recovering, staged)
            .map_err(|e| e.with_partition(Arc::clone(topic), number))?;
        self.report.replayed += found.replayed;
        self.report.items.extend(found.items.into_iter().map(|note| RecoveryItem {
            action: note.action,
            partition: Some(tp.clone()),
            offsets: note.offsets,
            file: note.file,
            bytes: note.bytes,
            kept_in: note.kept_in,
            reason: note.reason,
        }));
        Ok(opened)
    }

    /// Moves folders of topics that the catalog does not know out of the way, but for those of topics that were deleted by a
    /// process that died before it had removed them: they are the answer. Hot frames of neither count.
    fn set_strangers_aside(&mut self, catalog: &Catalog, deleted: &HashSet<u64>) -> Result<Vec<PathBuf>> {
        let mut leaving = Vec::new();
        let topics = Path::new(TOPICS_FOLDER);
        if !self.directory.exists(topics)? {
            return Ok(leaving);
        }
        for entry in self.directory.list(topics)? {
            let id = entry.name.to_str().and_then(folder_id);
            let known =
                id.is_some_and(|id| catalog.by_id(id).is_some() || built_in().any(|(_, own)| own == id));
            if known || entry.kind != EntryKind::Directory {
                continue;
            }
            let from = topics.join(&entry.name);
            if id.is_some_and(|id| deleted.contains(&id)) {
                leaving.push(from);
                continue;
            }
            let to = Path::new(QUARANTINE).join(&entry.name);
            self.directory.create_dir_all(Path::new(QUARANTINE))?;
            self.directory.rename(&from, &to)?;
            self.report.items.push(RecoveryItem {
                action: RecoveryAction::UnknownTopic,
                partition: None,
                offsets: None,
                file: Some(self.directory.root().join(from)),
                bytes: None,
                kept_in: Some(self.directory.root().join(to)),
                reason: "the catalog knows no topic of this id".into(),
            });
        }
        Ok(leaving)
    }
}
