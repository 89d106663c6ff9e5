//! A log as its handles share it: the topics, the catalog that records them, and the directory they are in.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam::channel::bounded;
use parking_lot::{Mutex, RwLock};

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{
    CONSUMER_OFFSETS, Catalog, LAST_INTERNAL_ID, SHARE_GROUP_STATE, TOPICS, TopicConfig, TopicRecord,
    check_topic_name, folder_name, internal_id, is_internal,
};
use crate::log::keeper::Keeper;
use crate::log::report::RecoveryReport;
use crate::log::root::{RootFile, ends};
use crate::log::scrub::Scrub;
use crate::partition::core::{Opened, PartitionCore, Wait};
use crate::partition::records::Identity;
use crate::partition::settle::flush_all;
use crate::partition::watermarks::{Signal, register};
use crate::partition::write_behind::{Engine, closed};
use crate::record::Record;
use crate::storage::arena::random_nonzero;
use crate::storage::directory::{Directory, DirectoryLock, StagingFolder};
use crate::storage::{staging, threads};
use crate::topic_partition::TopicPartition;

/// How long the end of a log that was not closed waits for its threads.
const DROP_PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of a close that failed waits for them, at least.
const GRACE: Duration = Duration::from_millis(500);
/// The root file, and its twin: two copies, so that damage to one of them is no harm.
pub(crate) const ROOT: &str = "root";
pub(crate) const ROOT_TWIN: &str = "root.twin";

/// One topic: name, id, settings and partitions.
pub(crate) struct TopicCore {
    pub(crate) name: Arc<str>,
    pub(crate) id: u64,
    config: RwLock<TopicConfig>,
    partitions: RwLock<Arc<[Arc<PartitionCore>]>>,
}

impl TopicCore {
    pub(crate) fn new(
        name: Arc<str>,
        id: u64,
        config: TopicConfig,
        partitions: Vec<Arc<PartitionCore>>,
    ) -> Arc<Self> {
        Arc::new(TopicCore {
            name,
            id,
            config: RwLock::new(config),
            partitions: RwLock::new(partitions.into()),
        })
    }

    pub(crate) fn config(&self) -> TopicConfig {
        self.config.read().clone()
    }

    /// All partitions, in order.
    pub(crate) fn partitions(&self) -> Arc<[Arc<PartitionCore>]> {
        Arc::clone(&self.partitions.read())
    }

    /// Runs `with` on partition `number`; cheaper than a clone on the path of a send.
    pub(crate) fn with_partition<T>(
        &self,
        number: u32,
        with: impl FnOnce(&Arc<PartitionCore>) -> T,
    ) -> Result<T> {
        let partitions = self.partitions.read();
        match partitions.get(number as usize) {
            Some(core) => Ok(with(core)),
            None => Err(Error::new(
                ErrorKind::UnknownTopicOrPartition,
                format!("the topic has partitions 0 to {} only", partitions.len().saturating_sub(1)),
            )
            .with_partition(Arc::clone(&self.name), number)),
        }
    }

    pub(crate) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.read().len()).unwrap_or(u32::MAX)
    }
}

/// The directory of a durable log.
pub(crate) struct OnDisk {
    pub(crate) directory: Arc<Directory>,
    pub(crate) lock: Mutex<Option<DirectoryLock>>,
    pub(crate) root: Mutex<RootFile>,
    pub(crate) staging: StagingFolder,
}

impl OnDisk {
    /// Replaces both copies of the root file; they are durable when this returns. Where it fails, either state may be
    /// the one that counts for the next open.
    ///
    /// Both say the same: the state before would be a lie to fall back on. It may call a log closed that has
    /// been open since, and then the hot records of the last process would not be looked for.
    pub(crate) fn write_root(&self, change: impl FnOnce(&mut RootFile)) -> Result<()> {
        let mut root = self.root.lock();
        let mut next = root.clone();
        change(&mut next);
        next.generation += 1;
        let bytes = next.encode();
        self.directory.replace(Path::new(ROOT_TWIN), &bytes)?;
        self.directory.replace(Path::new(ROOT), &bytes)?;
        *root = next;
        Ok(())
    }
}

/// What all handles of a log share.
pub(crate) struct LogCore {
    pub(crate) engine: Arc<Engine>,
    /// The leader epoch of everything appended while the log is open.
    pub(crate) epoch: u32,
    pub(crate) report: RecoveryReport,
    /// How long committed offsets stay that nobody has a use for; for ever where there is no such time.
    pub(crate) offsets_retention: Option<Duration>,
    topics: RwLock<BTreeMap<Arc<str>, Arc<TopicCore>>>,
    catalog: Mutex<Catalog>,
    /// Topics whose deletion is written down but not flushed: who deletes them again finishes it.
    leaving: Mutex<Vec<Arc<TopicCore>>>,
    disk: Option<OnDisk>,
    closed: AtomicBool,
    /// Rises whenever a topic comes, goes or grows.
    version: AtomicU64,
    /// Whom to wake then, and at the end.
    watchers: Mutex<Vec<Arc<Signal>>>,
    /// Where the floor above keeps what belongs to this log.
    upper: OnceLock<Arc<dyn Any + Send + Sync>>,
    pub(crate) keeper: Keeper,
    /// Kept here for the keeper, where the log is to be read over and over.
    pub(crate) scrub: OnceLock<Arc<Scrub>>,
}

impl LogCore {
    pub(crate) fn new(
        engine: Arc<Engine>,
        epoch: u32,
        report: RecoveryReport,
        offsets_retention: Option<Duration>,
        catalog: Catalog,
        topics: Vec<Arc<TopicCore>>,
        disk: Option<OnDisk>,
    ) -> Arc<Self> {
        Arc::new(LogCore {
            keeper: Keeper::new(Arc::clone(&engine.clock), engine.pool.origin()),
            engine,
            epoch,
            report,
            offsets_retention,
            topics: RwLock::new(topics.into_iter().map(|t| (Arc::clone(&t.name), t)).collect()),
            catalog: Mutex::new(catalog),
            leaving: Mutex::default(),
            disk,
            closed: AtomicBool::new(false),
            version: AtomicU64::new(0),
            watchers: Mutex::default(),
            upper: OnceLock::new(),
            scrub: OnceLock::new(),
        })
    }

    /// Where a durable log lies.
    pub(crate) fn directory(&self) -> Option<&Directory> {
        self.disk.as_ref().map(|disk| &*disk.directory)
    }

    /// What the floor above keeps here, made on first use.
    pub(crate) fn upper<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let kept = Arc::clone(self.upper.get_or_init(|| Arc::new(make())));
        // One floor, one type: a downcast that fails would be a second user of the slot.
        kept.downcast().unwrap_or_else(|_| unreachable!("the slot has one user"))
    }

    /// Whether this process is a fork of the one that opened the log.
    pub(crate) fn is_forked(&self) -> bool {
        self.engine.pool.origin().is_fork()
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        self.engine.pool.origin().check()?;
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    /// Tells one state of the topics from another: which there are, and how many partitions each has.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Has `signal` rung once the topics are no longer those of `version`, or the log is closed; true where
    /// that is so already.
    pub(crate) fn wait_for_change(&self, version: u64, signal: &Arc<Signal>) -> bool {
        let mut watchers = self.watchers.lock();
        if self.version() != version || self.closed.load(Ordering::Acquire) {
            return true;
        }
        register(&mut watchers, signal);
        false
    }

    /// Under the lock, so that a watcher either sees the new version or is rung.
    fn topics_changed(&self) {
        let mut watchers = self.watchers.lock();
        self.version.fetch_add(1, Ordering::AcqRel);
        watchers.drain(..).for_each(|watcher| watcher.ring());
    }

    /// The topic called `name`.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<TopicCore>> {
        self.check_open()?;
        match self.topics.read().get(name) {
            Some(topic) => Ok(Arc::clone(topic)),
            None => {
                check_topic_name(name)?;
                Err(Error::new(ErrorKind::UnknownTopicOrPartition, "no such topic").with_topic(name))
            }
        }
    }

    /// All topics by name, the internal ones among them.
    pub(crate) fn topics(&self) -> Vec<Arc<TopicCore>> {
        self.topics.read().values().cloned().collect()
    }

    /// The topic with this id.
    pub(crate) fn topic_by_id(&self, id: u64) -> Option<Arc<TopicCore>> {
        self.topics.read().values().find(|t| t.id == id).cloned()
    }

    // ---- changes of the catalog ------------------------------------------------------------------------

    fn check_settings(&self, name: &str, config: &TopicConfig) -> Result<()> {
        let resolved = config.resolved();
        resolved.validate().map_err(|e| e.with_topic(name))?;
        self.engine.codecs.check(resolved.settings.compression).map_err(|e| e.with_topic(name))
    }

    /// Records a change of the catalog, durably, and applies it.
    fn record(&self, catalog: &mut Catalog, name: &str, value: Option<&str>) -> Result<()> {
        let log = self.topic(TOPICS)?;
        let mut record = Record::tombstone(name);
        if let Some(value) = value {
            record = Record::new(value).key(name);
        }
        let core = log.with_partition(0, Arc::clone)?;
        let appended = core.append(&[record], Wait::For(self.engine.max_block), None)?;
        catalog.apply(name.as_bytes(), value.map(str::as_bytes))?;
        core.flush_to(appended.next_offset).map_err(|e| e.with_topic(name))
    }

    /// Whether a user may have a topic of this name.
    fn check_name(&self, name: &str) -> Result<()> {
        self.check_open()?;
        check_topic_name(name)?;
        if is_internal(name) {
            let message = "names that begin with __ are the library's own";
            return Err(Error::new(ErrorKind::InvalidTopic, message).with_topic(name));
        }
        Ok(())
    }

    /// Whether this topic could be created now.
    pub(crate) fn check_creation(&self, name: &str, config: &TopicConfig) -> Result<()> {
        self.check_name(name)?;
        match self.topic(name) {
            Ok(_) => Err(exists(name)),
            Err(_) => self.check_settings(name, config),
        }
    }

    /// Records a change of one topic, durably.
    fn record_topic(
        &self,
        catalog: &mut Catalog,
        topic: &TopicCore,
        change: impl FnOnce(&mut TopicRecord),
    ) -> Result<()> {
        self.check_same(topic)?;
        let recorded = catalog.get(&topic.name).cloned();
        let mut record = recorded.unwrap_or_else(|| TopicRecord::new(topic.id, topic.config()));
        change(&mut record);
        self.record(catalog, &topic.name, Some(&record.encode()))
    }

    /// Creates a topic; one that exists is an error, or is returned as it is where `ensure` says so.
    pub(crate) fn create_topic(
        &self,
        name: &str,
        config: &TopicConfig,
        ensure: bool,
    ) -> Result<Arc<TopicCore>> {
        self.check_name(name)?;
        let mut catalog = self.catalog.lock();
        if let Ok(there) = self.topic(name) {
            if !ensure {
                return Err(exists(name));
            }
            let (has, wanted) = (there.partition_count(), config.partitions_set());
            if let Some(wanted) = wanted.filter(|wanted| *wanted != has) {
                let message = format!("the topic exists with {has} partitions, not {wanted}");
                return Err(Error::new(ErrorKind::InvalidPartitions, message).with_topic(name));
            }
            return Ok(there);
        }
        self.check_settings(name, config)?;
        let id = loop {
            let id = random_nonzero();
            if id > LAST_INTERNAL_ID && catalog.by_id(id).is_none() {
                break id;
            }
        };
        let value = TopicRecord::new(id, config.clone()).encode();
        // What is not flushed is no topic yet: its records would be acknowledged, and gone with it when the power goes.
        // Who asks for it again records it anew, and flushes both.
        self.record(&mut catalog, name, Some(&value))?;
        let name: Arc<str> = name.into();
        let partitions = (0..config.resolved().partitions)
            .map(|number| self.new_partition(&name, id, number, config))
            .collect();
        let topic = TopicCore::new(Arc::clone(&name), id, config.clone(), partitions);
        self.topics.write().insert(name, Arc::clone(&topic));
        self.topics_changed();
        Ok(topic)
    }

    fn new_partition(
        &self,
        name: &Arc<str>,
        id: u64,
        number: u32,
        config: &TopicConfig,
    ) -> Arc<PartitionCore> {
        PartitionCore::open(
            Identity { topic_id: id, tp: TopicPartition::new(Arc::clone(name), number) },
            Arc::clone(&self.engine),
            config.resolved().settings,
            partition_folder(name, id, number),
            Opened::empty(self.epoch),
        )
    }

    /// The settings of a topic after a change that it can have.
    pub(crate) fn check_change(&self, topic: &TopicCore, change: &TopicConfig) -> Result<TopicConfig> {
        self.check_same(topic)?;
        if change.partitions_set().is_some_and(|n| n != topic.partition_count()) {
            let message = "the number of partitions is changed by add_partitions";
            return Err(Error::new(ErrorKind::InvalidPartitions, message).with_topic(&*topic.name));
        }
        let merged = topic.config().merged(change);
        self.check_settings(&topic.name, &merged)?;
        Ok(merged)
    }

    /// The settings of a topic that it can have with `count` partitions.
    pub(crate) fn check_growth(&self, topic: &TopicCore, count: u32) -> Result<TopicConfig> {
        self.check_same(topic)?;
        let has = topic.partition_count();
        if count <= has {
            let message = format!("the topic has {has} partitions; it can only grow, not to {count}");
            return Err(Error::new(ErrorKind::InvalidPartitions, message).with_topic(&*topic.name));
        }
        let config = topic.config().partitions(count);
        self.check_settings(&topic.name, &config)?;
        Ok(config)
    }

    /// Gives a topic the settings that `change` makes of its own while it runs.
    pub(crate) fn alter_topic(
        &self,
        topic: &TopicCore,
        change: impl FnOnce(&Self) -> Result<TopicConfig>,
    ) -> Result<()> {
        self.check_open()?;
        let mut catalog = self.catalog.lock();
        let config = change(self)?;
        self.record_topic(&mut catalog, topic, |record| record.config = config.clone())?;
        for partition in topic.partitions().iter() {
            partition.alter(config.resolved().settings);
        }
        *topic.config.write() = config;
        Ok(())
    }

    /// The settings of a topic without those called `names`.
    pub(crate) fn check_unset(&self, topic: &TopicCore, names: &[&str]) -> Result<TopicConfig> {
        self.check_same(topic)?;
        topic.config().without(names).map_err(|e| e.with_topic(&*topic.name))
    }

    /// Grows a topic to `count` partitions.
    pub(crate) fn add_partitions(&self, topic: &TopicCore, count: u32) -> Result<()> {
        self.check_open()?;
        let mut catalog = self.catalog.lock();
        let config = self.check_growth(topic, count)?;
        self.record_topic(&mut catalog, topic, |record| record.config = config.clone())?;
        let mut partitions = topic.partitions().to_vec();
        partitions.extend(
            (topic.partition_count()..count)
                .map(|number| self.new_partition(&topic.name, topic.id, number, &config)),
        );
        *topic.partitions.write() = partitions.into();
        *topic.config.write() = config;
        self.topics_changed();
        Ok(())
    }

    /// Deletes the records of a partition below `before`, for good once this returns; says where it starts now.
    pub(crate) fn delete_records(&self, partition: &Arc<PartitionCore>, before: u64) -> Result<u64> {
        self.check_open()?;
        let tp = &partition.identity().tp;
        if partition.is_internal() {
            let message = "records of internal topics cannot be deleted";
            return Err(Error::new(ErrorKind::InvalidTopic, message).with_topic(tp.topic()));
        }
        let (start, end) = (partition.start_offset(), partition.high_watermark());
        if before > end {
            let error = Error::new(ErrorKind::OffsetOutOfRange, "the partition does not go that far");
            let error = error.with_partition(tp.topic(), tp.partition());
            return Err(error.at_offset(before).with_range(start, end));
        }
        // After a loss of power the partition must not end before where the catalog says that it starts.
        partition.flush_to(before)?;
        let mut catalog = self.catalog.lock();
        let gone = || {
            let error = Error::new(ErrorKind::UnknownTopicOrPartition, "the topic was deleted");
            error.with_partition(tp.topic(), tp.partition())
        };
        let topic = self.topic_by_id(partition.identity().topic_id).ok_or_else(gone)?;
        if before > partition.start_offset() {
            self.record_topic(&mut catalog, &topic, |record| {
                record.starts.insert(tp.partition(), before);
            })?;
            partition.trim(before)?;
        }
        Ok(partition.start_offset())
    }

    /// Deletes a topic: for good once this returns, its files then go.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<()> {
        self.check_open()?;
        check_topic_name(name)?;
        if is_internal(name) {
            return Err(
                Error::new(ErrorKind::InvalidTopic, "internal topics cannot be deleted").with_topic(name)
            );
        }
        let mut catalog = self.catalog.lock();
        let mut leaving = self.leaving.lock();
        let begun = leaving.iter().position(|topic| &*topic.name == name);
        let topic = self.topic(name).or_else(|e| begun.map(|i| Arc::clone(&leaving[i])).ok_or(e))?;
        let recorded = self.record(&mut catalog, name, None);
        if catalog.get(name).is_some() {
            return recorded; // nothing was written down
        }
        // From now on a record would go with the topic when the process dies, flushed or not.
        if self.topics.write().remove(name).is_some() {
            self.end_topic(&topic);
        }
        leaving.retain(|other| other.id != topic.id);
        if recorded.is_err() {
            // Its files stay: after a loss of power it may be there again.
            leaving.push(topic);
            return recorded;
        }
        if let Some(disk) = &self.disk {
            let folder = Path::new(TOPICS_FOLDER).join(folder_name(name, topic.id));
            if disk.directory.exists(&folder)? {
                disk.directory.remove_dir_all(&folder)?;
            }
        }
        Ok(())
    }

    fn end_topic(&self, topic: &TopicCore) {
        // Before its partitions end: groups let go of them, and only who asked for them by name is told.
        self.topics_changed();
        let gone =
            Error::new(ErrorKind::UnknownTopicOrPartition, "the topic was deleted").with_topic(&*topic.name);
        for partition in topic.partitions().iter() {
            if partition.end(&gone, Deadline::after(Duration::MAX)) {
                // Handles may live on, and what they hold would be missing from the budget.
                partition.discard();
            }
        }
    }

    /// Whether the handle's topic is still the one of that name.
    fn check_same(&self, topic: &TopicCore) -> Result<()> {
        if self.topic(&topic.name)?.id == topic.id {
            return Ok(());
        }
        let message = "the topic was deleted, and another of its name created";
        Err(Error::new(ErrorKind::UnknownTopicOrPartition, message).with_topic(Arc::clone(&topic.name)))
    }

    // ---- the end ---------------------------------------------------------------------------------------

    fn all_partitions(&self) -> Vec<Arc<PartitionCore>> {
        // Users' records before the offsets that cover them.
        let (internal, users): (Vec<_>, Vec<_>) =
            self.topics().into_iter().partition(|t| is_internal(&t.name));
        users.iter().chain(&internal).flat_map(|t| t.partitions().to_vec()).collect()
    }

    /// Makes everything appended so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_open()?;
        flush_all(&self.all_partitions(), false)
    }

    /// Ends the log: refuses appends, writes and flushes what there is, and says so in the root file.
    pub(crate) fn close(self: &Arc<Self>, timeout: Duration) -> Result<()> {
        self.engine.pool.origin().check()?;
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.topics_changed();
        self.keeper.stop();
        let deadline = Deadline::after(timeout);
        // A topic that is being created gets its partitions in here, or is refused.
        let patience = deadline.remaining().unwrap_or(Duration::MAX);
        let catalog = self.catalog.try_lock_for(patience);
        let partitions = self.all_partitions();
        drop(catalog);
        partitions.iter().for_each(|p| p.close(&closed()));
        if self.engine.is_durable() && !self.engine.halted() {
            // A disk that hangs must not hang the caller: the work is done by a thread that can be left behind.
            let (told, done) = bounded(1);
            let work = partitions.clone();
            threads::spawn("tapelog-close", move || {
                let _ = told.send(flush_all(&work, true));
            })?;
            let finished = match deadline.remaining() {
                Some(left) => done.recv_timeout(left).ok(),
                None => done.recv().ok(),
            };
            match finished {
                Some(Ok(())) => {
                    self.end(&partitions, deadline);
                }
                // What did not finish is told to stop, and has a moment to do so where the disk does not hang.
                failed => {
                    if !self.end(&partitions, deadline.max(Deadline::after(GRACE))) {
                        self.keep_locked();
                    }
                    let message = "the disk did not finish in the time given";
                    return failed.unwrap_or_else(|| Err(Error::new(ErrorKind::TimedOut, message)));
                }
            }
        } else {
            self.end(&partitions, deadline);
        }
        match &self.disk {
            Some(disk) if !self.engine.halted() => {
                let mut staging_id = 0;
                disk.write_root(|root| {
                    staging_id = root.staging_id;
                    root.clean = true;
                    root.ends = Some(ends(partitions.iter().map(|p| {
                        let identity = p.identity();
                        (identity.topic_id, identity.tp.partition(), p.end_offset())
                    })));
                })?;
                staging::remove(&*disk.staging.disk, &disk.staging.path, staging_id)?;
                disk.lock.lock().take();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Stops threads and batons; false where one did not let go in time.
    fn end(&self, partitions: &[Arc<PartitionCore>], deadline: Deadline) -> bool {
        self.engine.pool.keep_files();
        let stopped = self.engine.stop(deadline);
        partitions.iter().fold(stopped, |all, p| p.end(&closed(), deadline) && all)
    }

    /// For a log that could not be ended: a thread may still be writing, so that nobody else must open this
    /// directory while the process lives.
    fn keep_locked(&self) {
        if let Some(disk) = &self.disk {
            std::mem::forget(disk.lock.lock().take());
        }
    }

    /// For tests: as if the process died at this instant, except that the lock is free again.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        self.engine.halt();
        self.closed.store(true, Ordering::Release);
        self.end(&self.all_partitions(), Deadline::after(DROP_PATIENCE));
        if let Some(disk) = &self.disk {
            disk.lock.lock().take();
        }
    }
}

impl Drop for LogCore {
    /// Stops the threads in bounded time and waits for no disk: what was appended is in staging, and the next
    /// open finds it there.
    fn drop(&mut self) {
        // A fork has none of the threads, and nothing to end.
        if self.is_forked() || self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if !self.end(&self.all_partitions(), Deadline::after(DROP_PATIENCE)) {
            self.keep_locked();
        }
    }
}

fn exists(name: &str) -> Error {
    Error::new(ErrorKind::TopicAlreadyExists, "the topic exists").with_topic(name)
}

/// Where topics are, seen from the directory.
pub(crate) const TOPICS_FOLDER: &str = "topics";

/// Where the segments of a partition are, seen from the directory.
pub(crate) fn partition_folder(topic: &str, id: u64, partition: u32) -> PathBuf {
    Path::new(TOPICS_FOLDER).join(folder_name(topic, id)).join(partition.to_string())
}

/// The internal topics that every log has, with their ids.
pub(crate) fn built_in() -> impl Iterator<Item = (&'static str, u64)> {
    [TOPICS, CONSUMER_OFFSETS, SHARE_GROUP_STATE]
        .into_iter()
        .filter_map(|name| Some((name, internal_id(name)?)))
}
