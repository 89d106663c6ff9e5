//! What a group or a consumer has still to read.

use std::iter::Sum;
use std::time::Duration;

use crate::error::Result;
use crate::partition::core::PartitionCore;

/// What is still to be read, of one partition or of several together: the sum of theirs.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use tapelog::clock::ManualClock;
/// use tapelog::consumer::Backlog;
/// use tapelog::{Log, Record, Timestamp, TopicConfig};
///
/// let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
/// let log = Log::builder().clock(clock.clone()).in_memory()?;
/// let ticks = log.create_topic("ticks", TopicConfig::new().partitions(2))?;
/// let group = log.consumer_group("risk")?;
/// let mut consumer = group.subscribe(["ticks"])?;
/// consumer.poll(Duration::ZERO)?;
/// ticks.partition(0)?.append(Record::new("150.23"))?;
/// clock.advance(Duration::from_secs(3));
/// ticks.partition(1)?.append(Record::new("150.24"))?;
///
/// let all: Backlog = group.backlog()?.into_values().sum();
/// assert_eq!((all.records, all.age), (2, Some(Duration::from_secs(3))));
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Backlog {
    /// How many offsets there are up to the end. (Kafka: the metric `records-lag`.)
    pub records: u64,
    /// How many bytes the records take, as frames.
    pub bytes: u64,
    /// How old the next record is, by its timestamp and the log's clock; of several partitions the oldest. `None` where
    /// there is no record.
    pub age: Option<Duration>,
}

impl Backlog {
    /// What there is from `from`, or the start of the partition, up to `limit`.
    pub(crate) fn of(core: &PartitionCore, from: u64, limit: u64) -> Result<Self> {
        let from = from.max(core.start_offset());
        let now = core.engine().clock.now();
        let age = core.time_of_next(from, limit)?.map(|time| now.saturating_since(time));
        Ok(Backlog { records: limit.saturating_sub(from), bytes: core.bytes_between(from, limit)?, age })
    }
}

impl Sum for Backlog {
    fn sum<I: Iterator<Item = Backlog>>(all: I) -> Backlog {
        all.fold(Backlog::default(), |sum, one| Backlog {
            records: sum.records.saturating_add(one.records),
            bytes: sum.bytes.saturating_add(one.bytes),
            age: sum.age.max(one.age),
        })
    }
}
