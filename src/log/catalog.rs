//! What topics there are: names, ids, settings, and the records of `__topics` that say so.
//!
//! A record of `__topics` has the topic's name as its key. Its value is text, one line per setting; no value
//! (a tombstone) means that the topic was deleted.
//!
//! ```text
//! topic 1                         what this is, and its version
//! id=9f2c07d1a4b3e856             16 hexadecimal digits; a new one for every creation
//! partitions=4                    always there
//! compression=lz4                 none, lz4, snappy, gzip, zstd, custom:N
//! segment_bytes=1073741824        decimal
//! max_record_bytes=1048576        decimal
//! sync_policy=every:0.050000000   never, every:SECONDS, records:N
//! timestamp_type=create           create, append
//! block_linger=0.005000000        seconds, with nine decimals
//! start_offsets=0:6,3:10          partition:offset where records before it were deleted, partitions rising
//! ```
//!
//! Every line ends with a line feed. What the user did not set does not stand here and follows the defaults of
//! the build that reads it; the number of partitions is no setting but a fact, and always stands here.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use crate::codec::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::core::MAX_APPEND;
use crate::partition::settings::{Settings, SyncPolicy, TimestampType};

/// The topic that records all others.
pub(crate) const TOPICS: &str = "__topics";
/// The topic that records committed offsets.
pub(crate) const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// The topic that records the states of transactions.
pub(crate) const TRANSACTIONS: &str = "__transactions";
/// The topic that records what share groups have done.
pub(crate) const SHARE_GROUP_STATE: &str = "__share_group_state";
/// Ids up to this one are for internal topics; ids of users are random and larger.
pub(crate) const LAST_INTERNAL_ID: u64 = 255;
/// The longest name of a topic, in bytes.
const MAX_NAME: usize = 249;
/// As much of a topic's name stands in the name of its folder.
const FOLDER_NAME: usize = 200;
/// More partitions than this is a mistake.
const MAX_PARTITIONS: u32 = 100_000;
/// The largest record that a topic may allow: one append may carry it.
#[allow(clippy::cast_possible_truncation)]
const MAX_RECORD_BYTES: u32 = MAX_APPEND as u32;
/// The line with the start offsets.
const STARTS: &str = "start_offsets";
/// The first line of a record.
const KIND: &str = "topic";
/// The version in it.
const VERSION: u32 = 1;

/// The settings of a topic: what is not set follows the default.
///
/// Only what was set is stored with the topic.
///
/// ```
/// use std::time::Duration;
/// use tapelog::topic::SyncPolicy;
/// use tapelog::{Compression, TopicConfig};
///
/// let config = TopicConfig::new()
///     .partitions(4)
///     .compression(Compression::Lz4)
///     .sync_policy(SyncPolicy::Every(Duration::from_millis(50)));
/// assert_ne!(config, TopicConfig::new());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicConfig {
    partitions: Option<u32>,
    compression: Option<Compression>,
    segment_bytes: Option<u64>,
    max_record_bytes: Option<u32>,
    sync_policy: Option<SyncPolicy>,
    timestamp_type: Option<TimestampType>,
    block_linger: Option<Duration>,
}

impl TopicConfig {
    /// Settings of which none is set.
    #[must_use]
    pub fn new() -> Self {
        TopicConfig::default()
    }

    /// How many partitions the topic has: 1 to 100,000; default 1. The number may grow later, never shrink.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// How blocks are compressed on disk; default [`Compression::None`].
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// How many bytes of records, as they lie in memory, a segment file holds before the next one begins; default
    /// 1 GiB. Tiny values are legal (Kafka: `segment.bytes`).
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// The largest record that the topic takes, in bytes of its frame (32 and some padding on top of key, value and
    /// headers): at most 8 MiB, as much as one append carries; default 1 MiB (Kafka: `max.message.bytes`).
    #[must_use]
    pub fn max_record_bytes(mut self, bytes: u32) -> Self {
        self.max_record_bytes = Some(bytes);
        self
    }

    /// When the topic flushes by itself; default [`SyncPolicy::Never`].
    #[must_use]
    pub fn sync_policy(mut self, policy: SyncPolicy) -> Self {
        self.sync_policy = Some(policy);
        self
    }

    /// Whose time the records carry; default [`TimestampType::Create`].
    #[must_use]
    pub fn timestamp_type(mut self, kind: TimestampType) -> Self {
        self.timestamp_type = Some(kind);
        self
    }

    /// How long a block waits for more records before it is written to its file; default 5 ms. Nobody waits for
    /// it: a record is in the log, and visible, from the moment of its append.
    #[must_use]
    pub fn block_linger(mut self, linger: Duration) -> Self {
        self.block_linger = Some(linger);
        self
    }

    /// These settings, with those that `change` sets in their place.
    pub(crate) fn merged(&self, change: &TopicConfig) -> TopicConfig {
        TopicConfig {
            partitions: change.partitions.or(self.partitions),
            compression: change.compression.or(self.compression),
            segment_bytes: change.segment_bytes.or(self.segment_bytes),
            max_record_bytes: change.max_record_bytes.or(self.max_record_bytes),
            sync_policy: change.sync_policy.or(self.sync_policy),
            timestamp_type: change.timestamp_type.or(self.timestamp_type),
            block_linger: change.block_linger.or(self.block_linger),
        }
    }

    /// These settings without those called `names`, which follow the defaults again.
    pub(crate) fn without(&self, names: &[&str]) -> Result<TopicConfig> {
        let mut config = self.clone();
        for name in names {
            match *name {
                "compression" => config.compression = None,
                "segment_bytes" => config.segment_bytes = None,
                "max_record_bytes" => config.max_record_bytes = None,
                "sync_policy" => config.sync_policy = None,
                "timestamp_type" => config.timestamp_type = None,
                "block_linger" => config.block_linger = None,
                _ => {
                    let message = format!("a topic has no setting {name:?} that follows a default");
                    return Err(Error::new(ErrorKind::InvalidConfig, message));
                }
            }
        }
        Ok(config)
    }

    /// How many partitions were asked for, where that was said.
    pub(crate) fn partitions_set(&self) -> Option<u32> {
        self.partitions
    }

    /// All settings, with the defaults for those that are not set.
    pub(crate) fn resolved(&self) -> ResolvedConfig {
        let default = Settings::default();
        ResolvedConfig {
            partitions: self.partitions.unwrap_or(1),
            settings: Settings {
                compression: self.compression.unwrap_or(default.compression),
                segment_bytes: self.segment_bytes.unwrap_or(default.segment_bytes),
                max_record_bytes: self.max_record_bytes.unwrap_or(default.max_record_bytes),
                sync_policy: self.sync_policy.unwrap_or(default.sync_policy),
                timestamp_type: self.timestamp_type.unwrap_or(default.timestamp_type),
                block_linger: self.block_linger.unwrap_or(default.block_linger),
            },
        }
    }

    /// All settings but the number of partitions: name, value as it is stored, and whether it was set.
    pub(crate) fn sources(&self) -> Vec<(&'static str, String, bool)> {
        let Settings {
            compression,
            segment_bytes,
            max_record_bytes,
            sync_policy,
            timestamp_type,
            block_linger,
        } = self.resolved().settings;
        let all = TopicConfig {
            partitions: None,
            compression: Some(compression),
            segment_bytes: Some(segment_bytes),
            max_record_bytes: Some(max_record_bytes),
            sync_policy: Some(sync_policy),
            timestamp_type: Some(timestamp_type),
            block_linger: Some(block_linger),
        };
        let own: Vec<_> = self.lines().map(|(name, _)| name).collect();
        all.lines().map(|(name, value)| (name, value, own.contains(&name))).collect()
    }

    /// What is set, as it is stored, but for the number of partitions.
    fn lines(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("compression", self.compression.map(|c| c.to_string())),
            ("segment_bytes", self.segment_bytes.map(|n| n.to_string())),
            ("max_record_bytes", self.max_record_bytes.map(|n| n.to_string())),
            ("sync_policy", self.sync_policy.map(sync_policy_text)),
            ("timestamp_type", self.timestamp_type.map(|t| timestamp_type_text(t).to_owned())),
            ("block_linger", self.block_linger.map(seconds_text)),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|v| (name, v)))
    }

    /// Sets what a stored line says.
    fn set_line(&mut self, setting: &str, value: &str) -> Result<(), CatalogError> {
        match setting {
            "partitions" => self.partitions = Some(number(setting, value)?),
            "compression" => {
                self.compression = Some(value.parse().map_err(|_| CatalogError::unknown(setting, value))?);
            }
            "segment_bytes" => self.segment_bytes = Some(number(setting, value)?),
            "max_record_bytes" => self.max_record_bytes = Some(number(setting, value)?),
            "sync_policy" => self.sync_policy = Some(sync_policy_of(setting, value)?),
            "timestamp_type" => {
                self.timestamp_type = Some(match value {
                    "create" => TimestampType::Create,
                    "append" => TimestampType::Append,
                    _ => return Err(CatalogError::unknown(setting, value)),
                });
            }
            "block_linger" => self.block_linger = Some(seconds_of(setting, value)?),
            _ => return Err(CatalogError::Setting(setting.to_owned())),
        }
        Ok(())
    }
}

/// The settings of a topic, every one of them said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResolvedConfig {
    pub(crate) partitions: u32,
    pub(crate) settings: Settings,
}

impl ResolvedConfig {
    /// Whether a topic can have these settings; the error names the one that it cannot.
    ///
    /// Whether a codec is registered is for the log to say, which has the codecs.
    pub(crate) fn validate(&self) -> Result<()> {
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            let message = format!("partitions must be 1 to {MAX_PARTITIONS}, not {}", self.partitions);
            return Err(Error::new(ErrorKind::InvalidPartitions, message));
        }
        let config = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        if let Compression::Custom(id @ ..128) = self.settings.compression {
            return config(format!("compression of the user's must have an id of 128 or more, not {id}"));
        }
        if self.settings.segment_bytes == 0 {
            return config("segment_bytes must be at least 1".into());
        }
        if !(1..=MAX_RECORD_BYTES).contains(&self.settings.max_record_bytes) {
            let given = self.settings.max_record_bytes;
            return config(format!("max_record_bytes must be 1 to {MAX_RECORD_BYTES}, not {given}"));
        }
        match self.settings.sync_policy {
            SyncPolicy::Every(Duration::ZERO) => config("sync_policy must wait longer than zero".into()),
            SyncPolicy::EveryRecords(0) => config("sync_policy must wait for one record at least".into()),
            _ => Ok(()),
        }
    }
}

/// Why a record of `__topics` cannot be followed.
#[derive(Debug, thiserror::Error)]
enum CatalogError {
    #[error("the key is not the name of a topic")]
    Key,
    #[error("the record is not text in lines of `setting=value`")]
    Text,
    #[error("the record is of version {0}; this build reads version {VERSION}")]
    Version(u32),
    #[error("setting {0:?} is unknown to this build")]
    Setting(String),
    #[error("setting {setting:?} has the value {value:?}, which is unknown to this build")]
    Unknown { setting: String, value: String },
    #[error("setting {setting:?} has the value {value:?}, which is none")]
    Value { setting: String, value: String },
    #[error("setting {0:?} stands there twice")]
    Twice(String),
    #[error("setting {0:?} is missing")]
    Missing(&'static str),
    #[error("id {0:016x} is not for a topic of this name")]
    Id(u64),
    #[error("id {id:016x} is that of topic {other:?}")]
    IdTaken { id: u64, other: String },
    #[error("partitions went from {0} to {1}")]
    Shrunk(u32, u32),
    #[error("{0}")]
    Invalid(Error),
}

impl CatalogError {
    fn unknown(setting: &str, value: &str) -> Self {
        CatalogError::Unknown { setting: setting.to_owned(), value: value.to_owned() }
    }

    fn value(setting: &str, value: &str) -> Self {
        CatalogError::Value { setting: setting.to_owned(), value: value.to_owned() }
    }

    fn of_topic(self, name: &str) -> Error {
        let kind = match self {
            CatalogError::Version(_) | CatalogError::Setting(_) | CatalogError::Unknown { .. } => {
                ErrorKind::UnsupportedVersion
            }
            _ => ErrorKind::CorruptRecord,
        };
        Error::new(kind, format!("cannot follow the catalog: {self}")).with_topic(name)
    }
}

/// What `__topics` says of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRecord {
    /// Tells this topic from an earlier one of the same name.
    pub(crate) id: u64,
    pub(crate) config: TopicConfig,
    /// The start offsets of partitions whose first records were deleted.
    pub(crate) starts: BTreeMap<u32, u64>,
}

impl TopicRecord {
    /// A topic of which nothing was deleted.
    pub(crate) fn new(id: u64, config: TopicConfig) -> Self {
        TopicRecord { id, config, starts: BTreeMap::new() }
    }

    /// Below this nothing of the partition is held.
    pub(crate) fn start_of(&self, partition: u32) -> u64 {
        self.starts.get(&partition).copied().unwrap_or(0)
    }

    /// The value that is stored under the topic's name. The number of partitions is always said: a default that
    /// changes must not change how many partitions a topic has.
    pub(crate) fn encode(&self) -> String {
        let mut out = format!("{KIND} {VERSION}\nid={:016x}\n", self.id);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "partitions={}", self.config.resolved().partitions);
        for (setting, value) in self.config.lines() {
            let _ = writeln!(out, "{setting}={value}");
        }
        if !self.starts.is_empty() {
            let starts: Vec<String> =
                self.starts.iter().map(|(number, start)| format!("{number}:{start}")).collect();
            let _ = writeln!(out, "{STARTS}={}", starts.join(","));
        }
        out
    }

    /// Reads what is stored under `name`.
    ///
    /// Fails with [`ErrorKind::UnsupportedVersion`], naming the setting, where this build does not know one, and
    /// with [`ErrorKind::CorruptRecord`] where the value is none that was ever written.
    pub(crate) fn decode(name: &str, value: &[u8]) -> Result<TopicRecord> {
        Self::parse(name, value).map_err(|e| e.of_topic(name))
    }

    fn parse(name: &str, value: &[u8]) -> Result<TopicRecord, CatalogError> {
        let text = std::str::from_utf8(value).map_err(|_| CatalogError::Text)?;
        // A text that was cut ends somewhere in a line, and a number cut short would still be a number.
        let text = text.strip_suffix('\n').ok_or(CatalogError::Text)?;
        let mut lines = text.split('\n');
        let version = lines.next().and_then(|l| l.strip_prefix(KIND)?.strip_prefix(' '));
        match number(KIND, version.ok_or(CatalogError::Text)?)? {
            VERSION => {}
            newer => return Err(CatalogError::Version(newer)),
        }
        let (mut id, mut config, mut seen) = (None, TopicConfig::new(), Vec::new());
        let mut starts = BTreeMap::new();
        for line in lines {
            let (setting, value) = line.split_once('=').ok_or(CatalogError::Text)?;
            if seen.contains(&setting) {
                return Err(CatalogError::Twice(setting.to_owned()));
            }
            seen.push(setting);
            if setting == "id" {
                id = Some(hex_id(value).ok_or_else(|| CatalogError::value(setting, value))?);
            } else if setting == STARTS {
                starts = starts_of(value)?;
            } else {
                config.set_line(setting, value)?;
            }
        }
        let id = id.ok_or(CatalogError::Missing("id"))?;
        if !id_fits(name, id) {
            return Err(CatalogError::Id(id));
        }
        if config.partitions.is_none() {
            return Err(CatalogError::Missing("partitions"));
        }
        config.resolved().validate().map_err(CatalogError::Invalid)?;
        if starts.last_key_value().is_some_and(|(last, _)| *last >= config.resolved().partitions) {
            return Err(CatalogError::value(STARTS, "a partition that is not there"));
        }
        Ok(TopicRecord { id, config, starts })
    }
}

/// A number in decimal digits and nothing else: `parse` alone would take a sign.
fn number<T: std::str::FromStr>(setting: &str, value: &str) -> Result<T, CatalogError> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    let parsed = if digits { value.parse().ok() } else { None };
    parsed.ok_or_else(|| CatalogError::value(setting, value))
}

/// Offsets by partition, in one spelling: partitions rise, and who starts at 0 does not stand there.
fn starts_of(value: &str) -> Result<BTreeMap<u32, u64>, CatalogError> {
    let mut starts = BTreeMap::new();
    for one in value.split(',') {
        let (partition, start) = one.split_once(':').ok_or_else(|| CatalogError::value(STARTS, value))?;
        let (partition, start): (u32, u64) = (number(STARTS, partition)?, number(STARTS, start)?);
        let rises = starts.last_key_value().is_none_or(|(last, _)| *last < partition);
        if !rises || start == 0 {
            return Err(CatalogError::value(STARTS, value));
        }
        starts.insert(partition, start);
    }
    Ok(starts)
}

/// Exactly 16 digits in lower case, so that one id has one spelling.
fn hex_id(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u64::from_str_radix(text, 16).ok() } else { None }
}

fn sync_policy_text(policy: SyncPolicy) -> String {
    match policy {
        SyncPolicy::Never => "never".into(),
        SyncPolicy::Every(interval) => format!("every:{}", seconds_text(interval)),
        SyncPolicy::EveryRecords(n) => format!("records:{n}"),
    }
}

fn sync_policy_of(setting: &str, value: &str) -> Result<SyncPolicy, CatalogError> {
    match value.split_once(':') {
        None if value == "never" => Ok(SyncPolicy::Never),
        Some(("every", interval)) => seconds_of(setting, interval).map(SyncPolicy::Every),
        Some(("records", n)) => number(setting, n).map(SyncPolicy::EveryRecords),
        _ => Err(CatalogError::unknown(setting, value)),
    }
}

fn timestamp_type_text(kind: TimestampType) -> &'static str {
    match kind {
        TimestampType::Create => "create",
        TimestampType::Append => "append",
    }
}

/// Seconds with nine decimals: exact for every duration, the longest included.
fn seconds_text(duration: Duration) -> String {
    format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos())
}

fn seconds_of(setting: &str, value: &str) -> Result<Duration, CatalogError> {
    match value.split_once('.') {
        Some((seconds, nanos)) if nanos.len() == 9 => {
            Ok(Duration::new(number(setting, seconds)?, number(setting, nanos)?))
        }
        _ => Err(CatalogError::value(setting, value)),
    }
}

/// Whether `name` can be that of a topic, internal ones included (Kafka: `Topic.validate`).
pub(crate) fn check_topic_name(name: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = if name.is_empty() {
        "the name of a topic cannot be empty".to_owned()
    } else if name == "." || name == ".." {
        format!("the name of a topic cannot be {name:?}")
    } else if name.len() > MAX_NAME {
        format!("the name of a topic has at most {MAX_NAME} characters, not {}", name.len())
    } else if let Some(c) = name.chars().find(|&c| !legal(c)) {
        format!("the name of a topic has letters, digits, '.', '_' and '-' only, not {c:?}")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidTopic, reason).with_topic(name))
}

/// Whether the name is reserved to the library.
pub(crate) fn is_internal(name: &str) -> bool {
    name.starts_with("__")
}

/// The fixed id of an internal topic.
pub(crate) fn internal_id(name: &str) -> Option<u64> {
    match name {
        TOPICS => Some(1),
        CONSUMER_OFFSETS => Some(2),
        TRANSACTIONS => Some(3),
        SHARE_GROUP_STATE => Some(4),
        _ => None,
    }
}

/// Whether a topic of this name may have this id.
fn id_fits(name: &str, id: u64) -> bool {
    match internal_id(name) {
        Some(fixed) => id == fixed,
        None => id != 0 && is_internal(name) == (id <= LAST_INTERNAL_ID),
    }
}

/// The name of the folder that holds a topic: as much of its name as fits, for people, and its id, which counts.
pub(crate) fn folder_name(name: &str, id: u64) -> String {
    format!("{}.{id:016x}", name.get(..FOLDER_NAME).unwrap_or(name))
}

/// The id in the name of a topic's folder; `None` where it is no such name.
pub(crate) fn folder_id(folder: &str) -> Option<u64> {
    let (name, id) = folder.rsplit_once('.')?;
    if name.is_empty() { None } else { hex_id(id) }
}

/// What a record of `__topics` changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The topic is new.
    Created,
    /// The topic, which was as told here, has other settings.
    Altered(TopicRecord),
    /// The topic told here is gone, and another of the same name took its place: its deletion was compacted away.
    Replaced(TopicRecord),
    /// The topic told here is gone.
    Deleted(TopicRecord),
    /// Nothing: the same was said before.
    Nothing,
}

/// The topics of a log: what the records of `__topics`, applied in order, leave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    topics: BTreeMap<String, TopicRecord>,
    names: HashMap<u64, String>,
}

impl Catalog {
    /// Applies one record of `__topics`; no value deletes. Changes nothing where it fails.
    pub(crate) fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<Change> {
        let name = match std::str::from_utf8(key) {
            Ok(name) if check_topic_name(name).is_ok() => name,
            _ => return Err(CatalogError::Key.of_topic(String::from_utf8_lossy(key).as_ref())),
        };
        match value {
            None => Ok(self.delete(name)),
            Some(value) => self.put(name, TopicRecord::decode(name, value)?),
        }
    }

    fn delete(&mut self, name: &str) -> Change {
        match self.topics.remove(name) {
            Some(gone) => {
                self.names.remove(&gone.id);
                Change::Deleted(gone)
            }
            None => Change::Nothing,
        }
    }

    fn put(&mut self, name: &str, record: TopicRecord) -> Result<Change> {
        let id = record.id;
        if let Some(other) = self.names.get(&id).filter(|other| *other != name) {
            return Err(CatalogError::IdTaken { id, other: other.clone() }.of_topic(name));
        }
        if let Some(before) = self.topics.get(name).filter(|before| before.id == id) {
            // Partitions hold records; a catalog that forgets some of them must not do so in silence.
            let (was, is) = (before.config.resolved().partitions, record.config.resolved().partitions);
            if is < was {
                return Err(CatalogError::Shrunk(was, is).of_topic(name));
            }
        }
        self.names.insert(id, name.to_owned());
        let before = self.topics.insert(name.to_owned(), record.clone());
        Ok(match before {
            None => Change::Created,
            Some(before) if before == record => Change::Nothing,
            Some(before) if before.id == id => Change::Altered(before),
            Some(before) => {
                self.names.remove(&before.id);
                Change::Replaced(before)
            }
        })
    }

    /// What is recorded under `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&TopicRecord> {
        self.topics.get(name)
    }

    /// Name and record of the topic with this id.
    pub(crate) fn by_id(&self, id: u64) -> Option<(&str, &TopicRecord)> {
        let name = self.names.get(&id)?;
        self.topics.get(name).map(|record| (name.as_str(), record))
    }

    /// All topics, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &TopicRecord)> {
        self.topics.iter().map(|(name, record)| (name.as_str(), record))
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
