//! Share groups, Kafka's queues: records of one partition in many hands, each in one at a time.

// The rooms behind this door:
//
// poll           ShareConsumer: take in turn, acknowledge, wait
//  ├ records        what it returns
//  └ part           one partition: machine, lock, reading, who waits
//     ├ state          the machine itself, pure
//     ├ stored         __share_group_state: its bytes
//     └ letters        copies to the dead-letter topic
// group          all partitions and members of a group
// admin          ShareGroup: a group as its users hold it
// options        what can be set

pub(crate) mod admin;
pub(crate) mod group;
pub(crate) mod letters;
pub(crate) mod options;
pub(crate) mod part;
pub(crate) mod poll;
pub(crate) mod records;
pub(crate) mod state;
pub(crate) mod stored;

use std::sync::Arc;

use crate::consumer::offsets::check_group_name;
use crate::consumer::share::admin::ShareGroup;
use crate::error::Result;
use crate::log::Log;

impl Log {
    /// The share group called `name`, whether it has had members or not: records of one partition in many hands.
    ///
    /// # Errors
    /// `InvalidGroupId` for a name that is empty, longer than 249 bytes, or has control characters; `Closed`; what reading the group's
    /// settings gives.
    pub fn share_group(&self, name: &str) -> Result<ShareGroup> {
        self.core.check_open()?;
        check_group_name(name)?;
        ShareGroup::new(Arc::clone(&self.core), name)
    }
}
