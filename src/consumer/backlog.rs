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

#[cfg(test)]
mod tests {
    use crate::frame::frame_len;
    use crate::log::Log;
    use crate::log::catalog::TopicConfig;
    use crate::record::Record;

    /// Every stretch of a partition of many segments, in files and in the tail, against what an oracle counts.
    #[test]
    fn every_stretch_has_the_bytes_of_its_records() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path().join("log")).unwrap();
        let topic = log.create_topic("t", TopicConfig::new().segment_bytes(2000)).unwrap();
        let partition = topic.partition(0).unwrap();
        let core = log.core.topic("t").unwrap().with_partition(0, std::sync::Arc::clone).unwrap();
        let mut lens = Vec::new();
        let mut append = |n: usize| {
            for i in 0..n {
                let value = vec![b'x'; (lens.len() * 37) % 300];
                let record = Record::new(&value);
                lens.push(frame_len(&record, false).unwrap() as u64);
                partition.append(record).unwrap();
                if i % 3 == 2 {
                    core.write_all().unwrap();
                }
            }
        };
        append(40);
        assert!(core.segment_bases().len() > 3);
        append(2);
        let count = lens.len() as u64;
        let check = |start: u64| {
            for from in 0..=count {
                for limit in from..=count {
                    let sum: u64 = (from.max(start)..limit).map(|i| lens[i as usize]).sum();
                    assert_eq!(core.bytes_between(from, limit).unwrap(), sum, "{from}..{limit}");
                }
            }
        };
        check(0);
        partition.delete_records(7).unwrap();
        check(7);
        assert_eq!(core.bytes_between(count, 0).unwrap(), 0);
    }
}
