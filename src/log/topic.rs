//! A topic as users hold it.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::TopicConfig;
use crate::log::core::{LogCore, TopicCore};
use crate::partition::Partition;
use crate::partition::settings::{SyncPolicy, TimestampType};

/// A named stream of records in one or more partitions. Cheap to clone; keeps its log open.
///
/// ```
/// use tapelog::{Log, TopicConfig};
///
/// let log = Log::in_memory()?;
/// let ticks = log.create_topic("ticks", TopicConfig::new().partitions(2))?;
/// assert_eq!((ticks.name(), ticks.partitions()), ("ticks", 2));
/// ticks.add_partitions(4)?;
/// assert_eq!(log.topic("ticks")?.partitions(), 4);
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Clone)]
pub struct Topic {
    pub(crate) core: Arc<TopicCore>,
    pub(crate) log: Arc<LogCore>,
}

/// What a topic is: its id, its partitions and its settings, with every default resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// The name.
    pub name: String,
    /// Tells this topic from an earlier one of the same name.
    pub id: u64,
    /// How many partitions there are.
    pub partitions: u32,
    /// How blocks are compressed from now on.
    pub compression: Compression,
    /// How many bytes of records, as frames, a segment holds.
    pub segment_bytes: u64,
    /// The largest record, in bytes, as a frame.
    pub max_record_bytes: u32,
    /// When the topic flushes by itself.
    pub sync_policy: SyncPolicy,
    /// Whose time records carry.
    pub timestamp_type: TimestampType,
    /// How long a block waits for more records.
    pub block_linger: Duration,
    /// The same settings by name, each with where it comes from.
    pub settings: Vec<TopicSetting>,
}

/// One setting of a topic, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSetting {
    /// As the method of [`TopicConfig`](crate::TopicConfig) is called.
    pub name: &'static str,
    /// As text.
    pub value: String,
    /// Who says so.
    pub source: SettingSource,
}

/// Who says what a setting of a topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SettingSource {
    /// Nobody: it is the default of this version.
    Default,
    /// It was set for this topic, when it was created or later.
    Topic,
}

impl Topic {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Tells this topic from an earlier or later one of the same name. (Kafka: KIP-516.)
    #[must_use]
    pub fn id(&self) -> u64 {
        self.core.id
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.core.partition_count()
    }

    /// Partition `number`, counted from zero.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition` where there is none.
    pub fn partition(&self, number: u32) -> Result<Partition> {
        let log: Arc<dyn Any + Send + Sync> = Arc::clone(&self.log) as _;
        self.core.with_partition(number, |core| Partition::new(Arc::clone(core), log))
    }

    /// What the topic is.
    #[must_use]
    pub fn describe(&self) -> TopicDescription {
        let config = self.core.config();
        let settings = config.resolved().settings;
        let sources = config.sources().into_iter().map(|(name, value, own)| {
            let source = if own { SettingSource::Topic } else { SettingSource::Default };
            TopicSetting { name, value, source }
        });
        TopicDescription {
            name: self.name().to_owned(),
            id: self.id(),
            partitions: self.partitions(),
            compression: settings.compression,
            segment_bytes: settings.segment_bytes,
            max_record_bytes: settings.max_record_bytes,
            sync_policy: settings.sync_policy,
            timestamp_type: settings.timestamp_type,
            block_linger: settings.block_linger,
            settings: sources.collect(),
        }
    }

    /// Grows the topic to `count` partitions. Records stay where they are; keys may map to other partitions.
    ///
    /// # Errors
    /// `InvalidPartitions` where that is not more than there are.
    pub fn add_partitions(&self, count: u32) -> Result<()> {
        self.log.add_partitions(&self.core, count)
    }

    /// Whether [`Topic::add_partitions`] would do it, which changes nothing. (Kafka: `validate_only`.)
    ///
    /// # Errors
    /// As there.
    pub fn validate_add_partitions(&self, count: u32) -> Result<()> {
        self.log.check_growth(&self.core, count).map(drop)
    }

    /// Changes settings while the topic runs: those that `change` sets, the others stay. All of them change, or none.
    ///
    /// # Errors
    /// `InvalidConfig`, with nothing changed; `InvalidPartitions` where it sets another number of partitions.
    pub fn alter(&self, change: TopicConfig) -> Result<()> {
        self.log.alter_topic(&self.core, |log| log.check_change(&self.core, &change))
    }

    /// Has the settings called `names` follow the defaults again, as if they had never been set; the others stay. All of
    /// them change, or none; where one was not set, that is so already. (Kafka: `incrementalAlterConfigs` with `DELETE`.)
    ///
    /// ```
    /// use tapelog::topic::SettingSource;
    /// use tapelog::{Log, TopicConfig};
    ///
    /// let log = Log::in_memory()?;
    /// let ticks = log.create_topic("ticks", TopicConfig::new().segment_bytes(4096))?;
    /// ticks.unset(["segment_bytes"])?;
    /// let described = ticks.describe();
    /// assert_eq!(described.segment_bytes, 1 << 30);
    /// assert!(described.settings.iter().all(|setting| setting.source == SettingSource::Default));
    /// # Ok::<(), tapelog::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidConfig` for a name that is none of [`TopicDescription::settings`], with nothing changed.
    pub fn unset<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let names: Vec<&str> = names.into_iter().collect();
        self.log.alter_topic(&self.core, |log| log.check_unset(&self.core, &names))
    }

    /// Whether [`Topic::alter`] would do it, which changes nothing.
    ///
    /// # Errors
    /// As there.
    pub fn validate_alter(&self, change: &TopicConfig) -> Result<()> {
        self.log.check_change(&self.core, change).map(drop)
    }
}

impl Partition {
    /// Deletes the records below offset `before`, for good once this returns: readers there get `OffsetOutOfRange`, and
    /// consumers follow their reset policy. Says where the partition starts now. Where it starts later already nothing
    /// changes; the end offset deletes all that there is.
    ///
    /// Files go as a whole: disk space comes back once all of a segment is deleted, and never that of the last.
    /// (Kafka: `DeleteRecords`.)
    ///
    /// ```
    /// use tapelog::{ErrorKind, Log, Record, TopicConfig};
    ///
    /// let log = Log::in_memory()?;
    /// let partition = log.create_topic("ticks", TopicConfig::new())?.partition(0)?;
    /// partition.append_batch(&[Record::new("a"), Record::new("b"), Record::new("c")])?;
    /// assert_eq!(partition.delete_records(2)?, 2);
    /// assert_eq!((partition.start_offset(), partition.end_offset()), (2, 3));
    /// assert_eq!(partition.reader(1).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    /// # Ok::<(), tapelog::Error>(())
    /// ```
    ///
    /// # Errors
    /// `OffsetOutOfRange` beyond the end; `InvalidTopic` for an internal topic; what keeps the disk from recording it.
    pub fn delete_records(&self, before: u64) -> Result<u64> {
        match self.log.downcast_ref::<LogCore>() {
            Some(log) => log.delete_records(&self.core, before),
            None => Err(Error::new(ErrorKind::Internal, "the partition is of no log")),
        }
    }
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Topic({}, {} partitions)", self.name(), self.partitions())
    }
}
