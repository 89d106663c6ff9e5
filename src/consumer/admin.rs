//! A group as its users hold it: make members, look at it, delete it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::assignor::Assignor;
use crate::consumer::backlog::Backlog;
use crate::consumer::builder::ConsumerBuilder;
use crate::consumer::group::Group;
use crate::consumer::groups::Groups;
use crate::consumer::options::Named;
use crate::consumer::poll::Consumer;
use crate::consumer::states::GroupState;
use crate::consumer::subscription::Pattern;
use crate::error::Result;
use crate::log::core::LogCore;
use crate::partition::core::PartitionCore;
use crate::topic_partition::TopicPartition;

/// Consumers that share the work: each partition of their topics is read by one of them.
///
/// A handle, cheap to clone, that keeps its log open; all handles of one name mean one group. The members live in
/// this process; what they commit lives in the log.
///
/// ```
/// use std::time::Duration;
/// use tapelog::{Log, TopicConfig};
///
/// let log = Log::in_memory()?;
/// log.create_topic("ticks", TopicConfig::new().partitions(4))?;
/// let group = log.consumer_group("risk")?;
/// let (mut a, mut b) = (group.subscribe(["ticks"])?, group.subscribe(["ticks"])?);
/// a.poll(Duration::ZERO)?;
/// b.poll(Duration::ZERO)?;
/// assert_eq!((a.assignment().len(), b.assignment().len()), (2, 2));
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Clone)]
pub struct ConsumerGroup {
    pub(super) log: Arc<LogCore>,
    groups: Arc<Groups>,
    group: Arc<Group>,
}

/// A group as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Where it stands.
    pub state: GroupState,
    /// How often members, subscriptions or partition counts have changed since the log was opened.
    pub generation: u32,
    /// The name of the assignor.
    pub assignor: String,
    /// The members, in the order in which they joined.
    pub members: Vec<MemberDescription>,
}

/// A member of a group, as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// The id that the group gave it.
    pub id: String,
    /// The name that it gave itself.
    pub instance_id: Option<String>,
    /// The topics that it asked for, in order; where it asked by a pattern, those that match now.
    pub subscriptions: Vec<String>,
    /// The pattern that it asked by.
    pub pattern: Option<Pattern>,
    /// What it reads, in order.
    pub assignment: Vec<TopicPartition>,
    /// Whether it is a static member whose consumer was closed, and whose partitions wait for the next one.
    pub away: bool,
    /// How long ago it polled or committed last, by the log's clock; zero while it is inside of a poll.
    pub silent_for: Duration,
    /// How long ago a poll of it returned records last, or found none, by the log's clock; `None` while there is nothing
    /// that it could read. It grows while a member does not poll, or is kept from reading.
    pub starved_for: Option<Duration>,
    /// A warning: it has been silent for more than half of its `max_poll_interval`, after which it is taken out.
    pub late: bool,
}

impl ConsumerGroup {
    pub(crate) fn new(log: Arc<LogCore>, name: &str) -> Self {
        let groups = Groups::of(&log);
        let group = groups.group(name);
        groups.expire(&log);
        ConsumerGroup { log, groups, group }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.group.name
    }

    /// Settings for a consumer of this group.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.log), Some(Arc::clone(&self.group)))
    }

    /// A member with default settings that shares these topics with the others.
    ///
    /// # Errors
    /// As [`ConsumerBuilder::subscribe`].
    pub fn subscribe<T: Into<String>>(&self, topics: impl IntoIterator<Item = T>) -> Result<Consumer> {
        self.consumer().subscribe(topics)
    }

    /// A member with default settings that shares the topics whose names match with the others.
    ///
    /// # Errors
    /// As [`ConsumerBuilder::subscribe_pattern`].
    pub fn subscribe_pattern(&self, pattern: Pattern) -> Result<Consumer> {
        self.consumer().subscribe_pattern(pattern)
    }

    /// Has `assignor` share out the partitions from now on, for all handles and members of the group, except for
    /// members that name assignors of their own;
    /// [`CooperativeSticky`](crate::assignor::CooperativeSticky) unless set.
    #[must_use]
    pub fn assignor(self, assignor: impl Assignor) -> Self {
        self.group.set_assignor(Named::new(assignor));
        self
    }

    /// What the group is like now.
    ///
    /// # Errors
    /// `Closed`; what reading the committed offsets gives.
    pub fn describe(&self) -> Result<GroupDescription> {
        let has_offsets = !self.groups.committed.of_group(&self.log, self.name())?.is_empty();
        self.groups.revive(&self.log, &self.group)?;
        let found = self.group.snapshot(&self.log);
        let state = match found.stage {
            GroupState::Empty if !found.known && !has_offsets => GroupState::Dead,
            stage => stage,
        };
        let members = found.members.into_iter().map(|member| MemberDescription {
            id: member.id,
            instance_id: member.instance_id,
            subscriptions: member.subscriptions,
            pattern: member.pattern,
            assignment: member.owned,
            away: member.away,
            silent_for: member.silent_for,
            starved_for: member.starved_for,
            late: member.late,
        });
        let assignor = found.assignor.to_string();
        Ok(GroupDescription { state, generation: found.generation, assignor, members: members.collect() })
    }

    /// What the group committed in the partition: the next offset to read.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; what reading the committed offsets gives.
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<u64>> {
        let topic = self.log.topic(partition.topic())?;
        topic.with_partition(partition.partition(), |_| ())?;
        let found = self.groups.committed.get(&self.log, self.name(), topic.id, partition.partition())?;
        Ok(found.map(|committed| committed.offset))
    }

    /// How many offsets lie between what is committed, or the start where nothing is, and the end: of every
    /// partition that the group committed in, or whose topic a member subscribes to.
    ///
    /// # Errors
    /// `Closed`; what reading the committed offsets gives.
    pub fn lag(&self) -> Result<BTreeMap<TopicPartition, u64>> {
        self.each(|core, from| Ok(core.high_watermark().saturating_sub(from)))
    }

    /// As [`ConsumerGroup::lag`], with bytes and time beside it: exact, whatever was deleted, or is not there. It reads
    /// where lag only subtracts: a record of each partition, and some headers.
    ///
    /// # Errors
    /// `Closed`; what reading the committed offsets and the partitions gives.
    pub fn backlog(&self) -> Result<BTreeMap<TopicPartition, Backlog>> {
        self.each(|core, from| Backlog::of(core, from, core.high_watermark()))
    }

    /// Asks something of each partition that the group has to do with, and of the offset where it stands.
    fn each<T>(&self, ask: impl Fn(&PartitionCore, u64) -> Result<T>) -> Result<BTreeMap<TopicPartition, T>> {
        let committed = self.groups.committed.of_group(&self.log, self.name())?;
        self.groups.revive(&self.log, &self.group)?;
        let subscribed = self.group.snapshot(&self.log).topics.into_values();
        let subscribed = subscribed.flat_map(|(id, count)| (0..count).map(move |number| (id, number)));
        let mut answers = BTreeMap::new();
        for (id, number) in committed.keys().copied().chain(subscribed) {
            let Some(topic) = self.log.topic_by_id(id) else { continue };
            let Ok(core) = topic.with_partition(number, Arc::clone) else { continue };
            let start = core.start_offset();
            let from = committed.get(&(id, number)).map_or(start, |committed| committed.offset.max(start));
            answers.insert(core.identity().tp.clone(), ask(&core, from)?);
        }
        Ok(answers)
    }

    /// Deletes the group, with all that it committed. Its name can be used again.
    ///
    /// # Errors
    /// `GroupNotEmpty` while it has members; `GroupIdNotFound` where nobody joined it and nothing is committed
    /// for it.
    pub fn delete(&self) -> Result<()> {
        self.groups.revive(&self.log, &self.group)?;
        self.group.look(self.log.engine.clock.roughly_now());
        self.groups.committed.forget(&self.log, self.name(), |has_offsets| self.group.forget(has_offsets))?;
        self.groups.keep_seats(&self.log, &self.group);
        Ok(())
    }
}

impl std::fmt::Debug for ConsumerGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConsumerGroup({:?})", self.name())
    }
}
