//! What can be set: for a group, and for one of its consumers.

use std::time::Duration;

use crate::consumer::options::OffsetReset;
use crate::consumer::share::state::Limits;
use crate::error::{Error, ErrorKind, Result};

/// The most records that a partition may have in flight. (Kafka: the bound of `share.partition.max.record.locks`.)
const MAX_WINDOW: u32 = 10_000;

/// The settings of a share group: what is not set is Kafka's default.
///
/// [`ShareGroup::alter`](crate::share::ShareGroup::alter) gives them to a group, all of them, and the log keeps them. (Kafka:
/// the configuration of a group.)
///
/// ```
/// use std::time::Duration;
/// use tapelog::OffsetReset;
/// use tapelog::share::ShareConfig;
///
/// let config = ShareConfig::new()
///     .offset_reset(OffsetReset::Earliest)
///     .acquisition_lock(Duration::from_secs(5))
///     .max_delivery_count(3)
///     .dead_letter_topic("dead");
/// assert_ne!(config, ShareConfig::new());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareConfig {
    pub(crate) reset: OffsetReset,
    pub(crate) lock: Duration,
    pub(crate) deliveries: u16,
    pub(crate) window: u32,
    pub(crate) letters: Option<String>,
}

impl Default for ShareConfig {
    fn default() -> Self {
        ShareConfig {
            reset: OffsetReset::Latest,
            lock: Duration::from_secs(30),
            deliveries: 5,
            window: 2_000,
            letters: None,
        }
    }
}

impl ShareConfig {
    /// Settings as Kafka has them.
    #[must_use]
    pub fn new() -> Self {
        ShareConfig::default()
    }

    /// Where the group begins in a topic that it has not worked on before; [`OffsetReset::Latest`] unless set: with what comes
    /// after the first member subscribed. A partition that is added to a topic later, or a topic that is created
    /// after a member asked for it, is worked on from its start. (Kafka: `share.auto.offset.reset`.)
    #[must_use]
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.reset = reset;
        self
    }

    /// How long a member may hold a record, by the log's clock; 30 s unless set. Then another one gets it.
    /// (Kafka: `share.record.lock.duration.ms`.)
    #[must_use]
    pub fn acquisition_lock(mut self, lock: Duration) -> Self {
        self.lock = lock;
        self
    }

    /// How often a record is delivered before it is given up; 5 unless set. (Kafka: `share.delivery.count.limit`.)
    #[must_use]
    pub fn max_delivery_count(mut self, deliveries: u16) -> Self {
        self.deliveries = deliveries;
        self
    }

    /// How far, in a partition, the group may be ahead of its first unfinished record: 1 to 10,000 offsets, 2,000
    /// unless set. (Kafka: `share.partition.max.record.locks`.)
    #[must_use]
    pub fn max_in_flight(mut self, records: u32) -> Self {
        self.window = records;
        self
    }

    /// Where records go that are given up, since they were rejected or delivered too often: a topic that exists. Unless set they are
    /// archived only, which means that the group is done with them. (Kafka: KIP-1191.)
    ///
    /// A letter is the record with its key, value, headers and timestamp, in partition `n modulo partitions`, and with these
    /// headers, as text: `__dlq.errors.topic`, `.partition`, `.offset`, `.group`, `.delivery.count` and `.message`
    /// (`rejected`, or `delivery count limit`). It is sent before the record is archived, so that a process killed in between sends it again. One that has
    /// become too large for the topic goes without key, value and headers of its own.
    #[must_use]
    pub fn dead_letter_topic(mut self, topic: impl Into<String>) -> Self {
        self.letters = Some(topic.into());
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let reason = if self.deliveries == 0 {
            "max_delivery_count must be at least 1".to_owned()
        } else if self.window == 0 || self.window > MAX_WINDOW {
            format!("max_in_flight must be 1 to {MAX_WINDOW}, not {}", self.window)
        } else if self.lock.is_zero() {
            "acquisition_lock must not be zero".to_owned()
        } else if self.reset == OffsetReset::None {
            "a share group has to begin somewhere: offset_reset cannot be None".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidConfig, reason))
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            deliveries: self.deliveries,
            window: u64::from(self.window),
            letters: self.letters.is_some(),
        }
    }
}

/// Who says that a record is done. (Kafka: `share.acknowledgement.mode`.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AcknowledgeMode {
    /// The next poll, or a commit, accepts what the last poll delivered, except for what was settled by
    /// `acknowledge`.
    #[default]
    Implicit,
    /// Only `acknowledge`: to poll again before each record of the last poll was settled is an error.
    Explicit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        ShareConfig::new().check().unwrap();
        for bad in [
            ShareConfig::new().max_delivery_count(0),
            ShareConfig::new().max_in_flight(0),
            ShareConfig::new().max_in_flight(10_001),
            ShareConfig::new().acquisition_lock(Duration::ZERO),
            ShareConfig::new().offset_reset(OffsetReset::None),
        ] {
            assert_eq!(bad.check().unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
    }
}
