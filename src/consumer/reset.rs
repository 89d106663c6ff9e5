//! Moving the committed offsets of a group: a plan that can be looked at, and then stored or forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::consumer::admin::ConsumerGroup;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::core::PartitionCore;
use crate::topic_partition::TopicPartition;

/// Where a group is to go on in each partition. What lies outside of what the partition holds becomes its start or its end.
/// (Kafka: `kafka-consumer-groups.sh --reset-offsets`.)
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// The start of what the partition holds.
    Earliest,
    /// Its end: only what comes.
    Latest,
    /// Where it stands; the end where nothing is committed.
    Current,
    /// This offset.
    Offset(u64),
    /// So many offsets further than it stands, or back; from the end where nothing is committed.
    ShiftBy(i64),
    /// The first record that is not older than this; the end where there is none.
    Time(Timestamp),
    /// The first record of the last so much time by the log's clock; the end where there is none.
    Ago(Duration),
    /// These offsets, as an earlier plan told them; the end where it has none.
    Each(BTreeMap<TopicPartition, u64>),
}

/// Where a group would go on, made by [`ConsumerGroup::plan_reset`]. Nothing is stored before [`ResetPlan::apply`].
#[derive(Debug, Clone)]
#[must_use = "a plan changes nothing before it is applied"]
pub struct ResetPlan {
    group: ConsumerGroup,
    offsets: BTreeMap<TopicPartition, u64>,
}

impl ConsumerGroup {
    /// Works out where the group would go on in these partitions, and stores nothing: a dry run.
    ///
    /// ```
    /// use tapelog::consumer::ResetTo;
    /// use tapelog::{Log, Record, TopicConfig, TopicPartition};
    ///
    /// let log = Log::in_memory()?;
    /// let ticks = log.create_topic("ticks", TopicConfig::new())?;
    /// ticks.partition(0)?.append_batch(&[Record::new("a"), Record::new("b")])?;
    /// let (group, place) = (log.consumer_group("risk")?, TopicPartition::new("ticks", 0));
    /// let plan = group.plan_reset([place.clone()], ResetTo::Offset(1))?;
    /// assert_eq!((plan.offsets()[&place], group.committed(&place)?), (1, None));
    /// plan.apply()?;
    /// assert_eq!(group.committed(&place)?, Some(1));
    /// # Ok::<(), tapelog::Error>(())
    /// ```
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; what reading the partitions and the committed offsets gives.
    pub fn plan_reset(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        to: ResetTo,
    ) -> Result<ResetPlan> {
        let mut offsets = BTreeMap::new();
        for tp in partitions {
            let core = self.log.topic(tp.topic())?.with_partition(tp.partition(), Arc::clone)?;
            let offset = self.reset_offset(&tp, &core, &to)?;
            offsets.insert(tp, offset.clamp(core.start_offset(), core.high_watermark()));
        }
        Ok(ResetPlan { group: self.clone(), offsets })
    }

    fn reset_offset(&self, tp: &TopicPartition, core: &PartitionCore, to: &ResetTo) -> Result<u64> {
        let end = core.high_watermark();
        let current = || Ok(self.committed(tp)?.unwrap_or(end));
        let at_time = |time| Ok(core.offset_for_time(time)?.map_or(end, |(offset, _)| offset));
        match to {
            ResetTo::Earliest => Ok(core.start_offset()),
            ResetTo::Latest => Ok(end),
            ResetTo::Current => current(),
            ResetTo::Offset(offset) => Ok(*offset),
            ResetTo::ShiftBy(by) => Ok(current()?.saturating_add_signed(*by)),
            ResetTo::Time(time) => at_time(*time),
            ResetTo::Ago(ago) => at_time(self.log.engine.clock.now().saturating_sub(*ago)),
            ResetTo::Each(offsets) => Ok(offsets.get(tp).copied().unwrap_or(end)),
        }
    }
}

impl ResetPlan {
    /// Where the group would go on: the next offset to read, by partition.
    #[must_use]
    pub fn offsets(&self) -> &BTreeMap<TopicPartition, u64> {
        &self.offsets
    }

    /// Commits the offsets of the plan for the group, all or none.
    ///
    /// # Errors
    /// `GroupNotEmpty` while the group has members, which would go on from where they are; what the commit gives.
    pub fn apply(self) -> Result<()> {
        let mut outside = self.group.consumer().build()?;
        outside.commit_offsets(self.offsets).map_err(|error| match error.kind() {
            ErrorKind::UnknownMemberId => {
                let message = "offsets are reset while the group has no members";
                Error::new(ErrorKind::GroupNotEmpty, message).caused_by(error)
            }
            _ => error,
        })
    }
}
