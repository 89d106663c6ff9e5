//! A share group as its users hold it: make members, look at it, change it, delete it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::consumer::groups::Groups;
use crate::consumer::share::group::Group;
use crate::consumer::share::options::ShareConfig;
use crate::consumer::share::poll::{ShareConsumer, ShareConsumerBuilder};
use crate::consumer::share::state::{Machine, State};
use crate::error::Result;
use crate::log::core::LogCore;
use crate::topic_partition::TopicPartition;

/// Consumers that share records: each one is worked on by one of them at a time, whatever its partition.
/// (Kafka's queues: KIP-932.)
///
/// A handle, cheap to clone, that keeps its log open; all handles of one name mean one group. Its name has nothing to do with
/// that of a [`ConsumerGroup`](crate::ConsumerGroup). The members live in this process; what is done, and how often a
/// record was delivered, lives in the log.
#[derive(Clone)]
pub struct ShareGroup {
    log: Arc<LogCore>,
    groups: Arc<Groups>,
    group: Arc<Group>,
}

/// A share group as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShareGroupDescription {
    /// The members, in the order in which they came, with the topics that each subscribes to.
    pub members: Vec<Vec<String>>,
    /// The partitions that the group has worked on.
    pub partitions: BTreeMap<TopicPartition, SharePartitionDescription>,
    /// The settings.
    pub config: ShareConfig,
}

/// How far a share group has come in a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharePartitionDescription {
    /// Every record below is finished.
    pub start_offset: u64,
    /// No record from here on was ever delivered.
    pub end_offset: u64,
    /// How many records below the end offset wait to be delivered again.
    pub available: u64,
    /// How many records members hold.
    pub acquired: u64,
    /// How many records wait to be sent to the dead-letter topic.
    pub archiving: u64,
    /// How many records are not finished, the undelivered ones among them.
    pub lag: u64,
}

impl ShareGroup {
    pub(crate) fn new(log: Arc<LogCore>, name: &str) -> Result<Self> {
        let groups = Groups::of(&log);
        let group = groups.shares.group(&log, name)?;
        Ok(ShareGroup { log, groups, group })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.group.name
    }

    /// Settings for a consumer of this group.
    pub fn consumer(&self) -> ShareConsumerBuilder {
        ShareConsumerBuilder::new(Arc::clone(&self.log), Arc::clone(&self.group))
    }

    /// A member with default settings that works on these topics.
    ///
    /// # Errors
    /// As [`ShareConsumerBuilder::subscribe`].
    pub fn subscribe<T: Into<String>>(&self, topics: impl IntoIterator<Item = T>) -> Result<ShareConsumer> {
        self.consumer().subscribe(topics)
    }

    /// Gives the group these settings, for all handles and members, at once and for the starts to come. Locks that run keep
    /// their end.
    ///
    /// # Errors
    /// `InvalidConfig`; `UnknownTopicOrPartition` for a dead-letter topic that is not there; what keeps the log from
    /// recording them. Nothing has changed then.
    pub fn alter(&self, config: ShareConfig) -> Result<()> {
        self.group.alter(&self.log, config)
    }

    /// What the group is like now.
    ///
    /// # Errors
    /// `Closed`; what reading the group's state gives.
    pub fn describe(&self) -> Result<ShareGroupDescription> {
        let parts = self.group.known_parts(&self.log, &self.groups.shares)?;
        let partitions = parts.iter().map(|part| {
            let limit = part.core.high_watermark();
            (part.core.identity().tp.clone(), part.look(|machine| describe(machine, limit)))
        });
        let members = self.group.members().into_values().map(|topics| topics.into_iter().collect());
        Ok(ShareGroupDescription {
            members: members.collect(),
            partitions: partitions.collect(),
            config: (*self.group.config()).clone(),
        })
    }

    /// Deletes the group, with all that it has done. Its name can be used again, and goes with the same settings.
    ///
    /// # Errors
    /// `GroupNotEmpty` while it has members; `GroupIdNotFound` where it has worked on nothing.
    pub fn delete(&self) -> Result<()> {
        self.log.check_open()?;
        self.group.delete(&self.log, &self.groups.shares)
    }
}

fn describe(machine: &Machine, limit: u64) -> SharePartitionDescription {
    let (start_offset, end_offset) = (machine.start(), machine.end());
    let mut out = SharePartitionDescription { start_offset, end_offset, ..Default::default() };
    for stretch in machine.stretches() {
        match stretch.state {
            State::Available => out.available += stretch.records(),
            State::Acquired { .. } => out.acquired += stretch.records(),
            State::Archiving { .. } => out.archiving += stretch.records(),
            State::Acknowledged | State::Archived => {}
        }
    }
    out.lag = limit.saturating_sub(end_offset) + out.available + out.acquired + out.archiving;
    out
}

impl std::fmt::Debug for ShareGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShareGroup({:?})", self.name())
    }
}
