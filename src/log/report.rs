//! What an open found, and did about it.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::partition::recovery::RecoveryAction;
use crate::topic_partition::TopicPartition;

/// One thing that an open dropped, skipped, moved or brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryItem {
    /// What was done.
    pub action: RecoveryAction,
    /// The partition concerned, where it is known.
    pub partition: Option<TopicPartition>,
    /// The offsets concerned, as far as they are known.
    pub offsets: Option<Range<u64>>,
    /// The file concerned.
    pub file: Option<PathBuf>,
    /// The bytes concerned in that file.
    pub bytes: Option<Range<u64>>,
    /// Where the bytes are kept until you delete them.
    pub kept_in: Option<PathBuf>,
    /// Why.
    pub reason: String,
}

/// What an open found: whether the stop before it was clean, and everything that it dropped, skipped, moved or
/// brought back. Nothing is ever dropped without an item here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the log was closed properly before, or is new.
    pub clean: bool,
    /// Whether it is proved, after a stop that was not clean, that only the process stopped: the machine ran on and the
    /// file system stayed mounted, so that all that was written was still there, and the end of it only was verified.
    /// Otherwise every block was that is not known to have been flushed.
    pub page_cache_survived: bool,
    /// The leader epoch of what is appended now; it rises with every open that follows no clean close.
    pub leader_epoch: u32,
    /// How many records were brought back from the hot tail.
    pub replayed: u64,
    /// How much of the open was waiting for the disk, to flush what was replayed and whatever else was not known to be
    /// flushed.
    pub flush_time: Duration,
    /// What was done.
    pub items: Vec<RecoveryItem>,
}

impl RecoveryReport {
    /// Whether anything was lost, or may have been: damage, torn or unfinished tails, unknown files.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        self.items.iter().any(|i| i.action != RecoveryAction::Replayed)
    }
}
