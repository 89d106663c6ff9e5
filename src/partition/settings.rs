//! What can be set of a partition: the resolved form of a topic's settings.

use std::time::Duration;

use crate::codec::Compression;

/// When a topic flushes by itself, whatever its producers ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Only on demand: [`Durability::Disk`](crate::Durability), [`Log::sync`](crate::Log::sync), close.
    #[default]
    Never,
    /// No later than this long after a record was appended, plus one flush.
    Every(Duration),
    /// Once this many records were appended since the last flush began.
    EveryRecords(u64),
}

/// Whose time the records of a topic carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TimestampType {
    /// The producer's; a record without a timestamp gets the time of its append. (Kafka: `CreateTime`.)
    #[default]
    Create,
    /// The time of the append, never going back. (Kafka: `LogAppendTime`.)
    Append,
}

/// The settings of a partition, with every default resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) compression: Compression,
    pub(crate) segment_bytes: u64,
    pub(crate) max_record_bytes: u32,
    pub(crate) sync_policy: SyncPolicy,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) block_linger: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            compression: Compression::None,
            segment_bytes: 1 << 30,
            max_record_bytes: 1 << 20,
            sync_policy: SyncPolicy::Never,
            timestamp_type: TimestampType::Create,
            block_linger: Duration::from_millis(5),
        }
    }
}
