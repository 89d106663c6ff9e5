//! How a consumer reads: where it begins, how it waits, and how much it takes at a time.

use std::sync::Arc;
use std::time::Duration;

use crate::consumer::assignor::Assignor;
use crate::error::{Error, ErrorKind, Result};

/// Where reading begins when nothing is committed, or what is committed is out of range.
/// (Kafka: `auto.offset.reset`, KIP-1106.)
///
/// A committed offset that the partition can serve always wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OffsetReset {
    /// At the first record held.
    #[default]
    Earliest,
    /// At the end: only what comes from now on.
    Latest,
    /// Nowhere: the poll fails with `NoOffset` or `OffsetOutOfRange` until somebody seeks.
    None,
    /// At the first record that is not older than this, by the log's clock; at the end where all are.
    By(Duration),
}

/// How a poll waits for records. (LMAX Disruptor: `WaitStrategy`.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Sleeps until woken: no CPU while nothing comes, some microseconds of delay. Where records come faster than a thread
    /// falls asleep and wakes, it looks again for some microseconds before it sleeps.
    #[default]
    Park,
    /// Looks again and again, letting other threads run in between.
    Yield,
    /// Looks again and again: the least delay, for a core of its own.
    Spin,
}

/// What a [`ConsumerBuilder`](crate::consumer::builder::ConsumerBuilder) sets.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) reset: OffsetReset,
    pub(crate) wait: WaitStrategy,
    pub(crate) max_records: usize,
    pub(crate) min_bytes: usize,
    pub(crate) max_bytes: usize,
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) durable_only: bool,
    pub(crate) instance_id: Option<String>,
    pub(crate) max_poll_interval: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) assignors: Assignors,
}

/// An assignor with its name, which is asked for once, while no lock is held.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) name: Arc<str>,
    pub(crate) assignor: Arc<dyn Assignor>,
}

impl Named {
    pub(crate) fn new(assignor: impl Assignor) -> Self {
        Named { name: assignor.name().into(), assignor: Arc::new(assignor) }
    }
}

/// The assignors that a member would follow, the best first.
#[derive(Clone, Default)]
pub(crate) struct Assignors(pub(crate) Vec<Named>);

impl Assignors {
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|named| &*named.name).collect()
    }
}

impl std::fmt::Debug for Assignors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.names().fmt(f)
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            reset: OffsetReset::Earliest,
            wait: WaitStrategy::Park,
            max_records: 500,
            min_bytes: 1,
            max_bytes: 50 << 20,
            auto_commit: None,
            durable_only: false,
            instance_id: None,
            max_poll_interval: Duration::from_secs(300),
            session_timeout: Duration::from_secs(45),
            assignors: Assignors::default(),
        }
    }
}

impl Options {
    /// Refuses settings that no consumer could have.
    pub(crate) fn check(&self, has_group: bool) -> Result<()> {
        let reason = if self.max_records == 0 {
            "max_poll_records must be at least 1"
        } else if self.max_bytes == 0 {
            "max_poll_bytes must be at least 1"
        } else if self.min_bytes > self.max_bytes {
            "min_bytes must not be more than max_poll_bytes"
        } else if self.auto_commit.is_some() && !has_group {
            "auto_commit needs a group to commit for"
        } else if self.instance_id.as_ref().is_some_and(String::is_empty) {
            "instance_id must not be empty"
        } else if self.max_poll_interval.is_zero() || self.session_timeout.is_zero() {
            "max_poll_interval and session_timeout must not be zero"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidConfig, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        Options::default().check(false).unwrap();
        let auto = || Options { auto_commit: Some(Duration::ZERO), ..Options::default() };
        auto().check(true).unwrap();
        for bad in [
            Options { max_records: 0, ..Options::default() },
            Options { max_bytes: 0, ..Options::default() },
            Options { min_bytes: 11, max_bytes: 10, ..Options::default() },
            Options { instance_id: Some(String::new()), ..Options::default() },
            Options { max_poll_interval: Duration::ZERO, ..Options::default() },
            Options { session_timeout: Duration::ZERO, ..Options::default() },
            auto(),
        ] {
            assert_eq!(bad.check(false).unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
    }
}
