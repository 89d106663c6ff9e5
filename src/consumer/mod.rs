//! Reading: consumers, the groups that they form, and the offsets that they commit.

// The rooms behind this door:
//
// poll           Consumer: follow the group, read in turn, wait (handle wakes it)
//  ├ positions      what its user asks and sets beside polling
//  ├ reading        positions, fairness, what to commit (listener is told)
//  ├ groups         all groups of a log, by name
//  ├ group          the coordinator: target, owned, one step at a time (subscription: topics or a pattern;
//  │  │             group_seats: over a restart)
//  │  ├ seat        a member's stay: when it was heard last (states: of the group)
//  │  └ assignor    pure plans
//  └ committed      __consumer_offsets and its tables (offsets, stored_seats: their bytes; expiry: their end)
// builder, options   what can be set
// backlog, progress  how much there is to read, and since when nothing was
// parallel       a consumer's records on many threads, in order per key
// share          share groups, a house of its own
// admin          ConsumerGroup: a group as its users hold it (reset: moving what it committed)

pub(crate) mod admin;
pub(crate) mod assignor;
pub(crate) mod backlog;
pub(crate) mod builder;
pub(crate) mod committed;
pub(crate) mod expiry;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod forks;
pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod handle;
pub(crate) mod listener;
pub(crate) mod offsets;
pub(crate) mod options;
pub(crate) mod parallel;
pub(crate) mod poll;
pub(crate) mod positions;
pub(crate) mod progress;
pub(crate) mod reading;
pub(crate) mod reset;
pub(crate) mod seat;
pub(crate) mod share;
pub(crate) mod states;
pub(crate) mod sticky;
pub(crate) mod stored_seats;
pub(crate) mod subscription;

use std::sync::Arc;

pub use crate::consumer::admin::{GroupDescription, MemberDescription};
pub use crate::consumer::backlog::Backlog;
pub use crate::consumer::handle::ConsumerHandle;
pub use crate::consumer::listener::Rebalance;
pub use crate::consumer::options::WaitStrategy;
pub use crate::consumer::parallel::{Parallel, ParallelHandle};
pub use crate::consumer::reset::{ResetPlan, ResetTo};
pub use crate::consumer::states::GroupState;
pub use crate::consumer::subscription::Pattern;
pub use crate::partition::records::{Headers, RecordsIter};

use crate::consumer::admin::ConsumerGroup;
use crate::consumer::builder::ConsumerBuilder;
use crate::consumer::groups::Groups;
use crate::consumer::offsets::check_group_name;
use crate::error::Result;
use crate::log::Log;

impl Log {
    /// Settings for a consumer without a group: it chooses its partitions itself and commits nothing.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.core), None)
    }

    /// The group called `name`, whether it has had members or not.
    ///
    /// # Errors
    /// `InvalidGroupId` for a name that is empty, longer than 249 bytes, or has control characters; `Closed`.
    pub fn consumer_group(&self, name: &str) -> Result<ConsumerGroup> {
        self.core.check_open()?;
        check_group_name(name)?;
        Ok(ConsumerGroup::new(Arc::clone(&self.core), name))
    }

    /// All groups that have members or committed something, by name: all that are not
    /// [`Dead`](GroupState::Dead). Share groups are none of them. (Kafka: `listConsumerGroups`.)
    ///
    /// # Errors
    /// `Closed`; what reading the committed offsets gives.
    ///
    /// ```
    /// use tapelog::{Log, TopicConfig};
    ///
    /// let log = Log::in_memory()?;
    /// log.create_topic("ticks", TopicConfig::new())?;
    /// let reader = log.consumer_group("risk")?.subscribe(["ticks"])?;
    /// let names: Vec<_> = log.consumer_groups()?.iter().map(|group| group.name().to_owned()).collect();
    /// assert_eq!(names, ["risk"]);
    /// # drop(reader);
    /// # Ok::<(), tapelog::Error>(())
    /// ```
    pub fn consumer_groups(&self) -> Result<Vec<ConsumerGroup>> {
        self.core.check_open()?;
        let mut found = Vec::new();
        for name in Groups::of(&self.core).names(&self.core)? {
            let group = ConsumerGroup::new(Arc::clone(&self.core), &name);
            if group.describe()?.state != GroupState::Dead {
                found.push(group);
            }
        }
        Ok(found)
    }
}
