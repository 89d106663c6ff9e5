//! The log: what you open, and where topics are made and found.
//!
//! `opening` brings it to life, `root` and `catalog` are its memory of itself, `core` is what all handles share,
//! `topic` a topic as users hold it, `report` what an open found; `verify` looks at every byte of the files, and
//! `repair` sets aside what is damaged, and `corruption` has an open do so.

#[cfg(test)]
#[cfg(unix)]
mod cases;
pub(crate) mod catalog;
pub(crate) mod core;
pub(crate) mod corruption;
#[cfg(test)]
mod faults;
pub(crate) mod keeper;
#[cfg(test)]
mod model;
pub(crate) mod opening;
#[cfg(test)]
#[cfg(unix)]
mod reopening;
pub(crate) mod repair;
pub(crate) mod report;
pub(crate) mod root;
pub(crate) mod scrub;
#[cfg(test)]
mod stories;
#[cfg(feature = "testing")]
mod testing;
pub(crate) mod topic;
pub(crate) mod verify;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::log::catalog::{TopicConfig, is_internal};
use crate::log::core::LogCore;
use crate::log::opening::LogBuilder;
use crate::log::repair::RepairReport;
use crate::log::report::RecoveryReport;
use crate::log::topic::Topic;
use crate::log::verify::VerifyReport;

/// A set of topics under one lock, in a directory or in memory: what a cluster is in Kafka.
///
/// A handle is cheap to clone; the last one that goes (topics, partitions, producers and consumers are handles
/// too) stops the log's threads, in bounded time and without waiting for a disk: what was appended is safe,
/// and the next open brings it back. [`Log::close`] writes and flushes everything first, so that the next
/// open has nothing to do.
///
/// A log belongs to the process that opened it. In a forked child calls give `Forked`, and handles can only be dropped, which
/// changes nothing; so can records that were read before the fork, whose memory its parent goes on to use. A child that wants
/// a log of its own executes a program first.
///
/// ```
/// use tapelog::{Log, Record, TopicConfig};
///
/// let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path().join("data"))?;
/// let ticks = log.ensure_topic("ticks", TopicConfig::new().partitions(4))?;
/// let producer = log.producer().build()?;
/// producer.send(&ticks, Record::new("150.23").key("AAPL"))?.wait()?;
/// log.close(std::time::Duration::from_secs(10))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Log {
    pub(crate) core: Arc<LogCore>,
}

impl Log {
    /// Opens the log in directory `dir`, creating both where they are not there.
    ///
    /// # Errors
    /// `Locked` where it is open already, in this process or another; `ForeignFile` where the directory holds
    /// something else; `UnsupportedVersion`, `CorruptRecord`, `StagingMissing`, `NoSpace`, `ReadOnly` and
    /// `Storage` as they say. An open that fails changes nothing that a later one needs.
    pub fn open(dir: impl AsRef<Path>) -> Result<Log> {
        Log::builder().open(dir)
    }

    /// Opens the log in directory `dir`, which must hold one.
    ///
    /// # Errors
    /// `NotFound` where there is none; else as [`Log::open`].
    pub fn open_existing(dir: impl AsRef<Path>) -> Result<Log> {
        Log::builder().open_existing(dir)
    }

    /// A log that lives in memory, as long as its handles do.
    ///
    /// Everything else is the same, so that what runs on it runs on a durable log; it accepts every
    /// durability and reports [`Durability::Memory`](crate::Durability::Memory).
    ///
    /// # Errors
    /// None today.
    pub fn in_memory() -> Result<Log> {
        Log::builder().in_memory()
    }

    /// Settings for a log about to be opened.
    #[must_use]
    pub fn builder() -> LogBuilder {
        LogBuilder::default()
    }

    /// Creates a topic. The change is durable when this returns.
    ///
    /// # Errors
    /// `TopicAlreadyExists`, `InvalidTopic`, `InvalidPartitions`, `InvalidConfig`.
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        let core = self.core.create_topic(name, &config, false)?;
        Ok(Topic { core, log: Arc::clone(&self.core) })
    }

    /// Whether [`Log::create_topic`] would do it, which creates nothing. (Kafka: `validate_only`.)
    ///
    /// # Errors
    /// As there.
    pub fn validate_create_topic(&self, name: &str, config: &TopicConfig) -> Result<()> {
        self.core.check_creation(name, config)
    }

    /// The topic called `name`: as it is where it exists, whatever its settings; else created.
    ///
    /// # Errors
    /// `InvalidPartitions` where it exists with another number of partitions than `config` names; else as
    /// [`Log::create_topic`].
    pub fn ensure_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        let core = self.core.create_topic(name, &config, true)?;
        Ok(Topic { core, log: Arc::clone(&self.core) })
    }

    /// The topic called `name`. Internal ones (`__...`) can be read.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `InvalidTopic` where no topic can be called that.
    pub fn topic(&self, name: &str) -> Result<Topic> {
        Ok(Topic { core: self.core.topic(name)?, log: Arc::clone(&self.core) })
    }

    /// All topics of the user's, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        let topics = self.core.topics().into_iter().filter(|t| !is_internal(&t.name));
        topics.map(|core| Topic { core, log: Arc::clone(&self.core) }).collect()
    }

    /// Deletes a topic and everything in it. Handles to it give `UnknownTopicOrPartition` from then on; a
    /// topic created later under the same name is another one and begins at offset 0.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `InvalidTopic` for an internal one.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.core.delete_topic(name)
    }

    /// Makes everything appended so far, to all topics, survive the loss of power.
    ///
    /// # Errors
    /// What keeps the disk from it.
    pub fn sync(&self) -> Result<()> {
        self.core.sync()
    }

    /// What the open found and did.
    #[must_use]
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.core.report
    }

    /// Reads every byte of the log's files and tells what is amiss, file by file; nothing is changed. What is being written
    /// meanwhile is no damage, and the hot tail is not looked into. See [`LogBuilder::verify`] for a log that is closed.
    ///
    /// ```
    /// use tapelog::{Log, Record, TopicConfig};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// log.create_topic("ticks", TopicConfig::new())?.partition(0)?.append(Record::new("150.23"))?;
    /// log.sync()?;
    /// let report = log.verify()?;
    /// assert!(report.is_sound());
    /// assert_eq!(report.records(), 2);                                     // the topic's own record is one
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What kept the disk from reading; damage is none.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.core.verify()
    }

    /// Closes the log for all its handles: writes and flushes everything, so that the next open need not look
    /// for anything. From then on calls give `Closed`. Closing twice is no error.
    ///
    /// # Errors
    /// `TimedOut` where the disk did not finish in time, or what kept it from it: nothing that was accepted
    /// is lost either way, the next open brings it back.
    pub fn close(self, timeout: Duration) -> Result<()> {
        self.core.close(timeout)
    }
}

impl LogBuilder {
    /// Opens the log in `dir` with these settings, creating both where they are not there.
    ///
    /// # Errors
    /// As [`Log::open`]; `InvalidConfig`.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Log> {
        Ok(Log { core: self.begin_in(dir.as_ref(), true)? })
    }

    /// Opens the log in `dir`, which must hold one, with these settings.
    ///
    /// # Errors
    /// `NotFound`; else as [`LogBuilder::open`].
    pub fn open_existing(self, dir: impl AsRef<Path>) -> Result<Log> {
        Ok(Log { core: self.begin_in(dir.as_ref(), false)? })
    }

    /// Reads every byte of the log in `dir` and tells what is amiss, file by file. Nothing is changed, no lock is taken, no
    /// link is followed, and no file need be honest: this is safe for a directory of whatever origin, with little
    /// more memory than its largest block takes. Staging that lies elsewhere is not looked at.
    ///
    /// # Errors
    /// `NotFound` where there is no log; what kept the disk from reading. Damage is none.
    pub fn verify(self, dir: impl AsRef<Path>) -> Result<VerifyReport> {
        self.begin_verify(dir.as_ref())
    }

    /// Opens the log in `dir`, sets aside what is damaged, and closes it. Whatever does not prove itself is copied to
    /// `quarantine`, and what is before and behind it is kept: readers go over the hole, where they met an error before.
    /// A segment file of which nothing is left, or which is another's, is moved there whole.
    ///
    /// Each file is replaced by one rename, so that a process that dies here leaves nothing half-done. Nothing is done
    /// to a log that only needs a newer version.
    ///
    /// # Errors
    /// `Locked` where the log is open; else as [`Log::open_existing`].
    pub fn repair(self, dir: impl AsRef<Path>) -> Result<RepairReport> {
        self.begin_repair(dir.as_ref())
    }

    /// A log in memory with these settings.
    ///
    /// # Errors
    /// `InvalidConfig`.
    pub fn in_memory(self) -> Result<Log> {
        Ok(Log { core: self.begin_in_memory()? })
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("topics", &self.topics()).finish_non_exhaustive()
    }
}
