//! What a log says unasked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::topic_partition::TopicPartition;

/// Something that whoever runs a log should hear of: what [`LogBuilder::on_event`](crate::LogBuilder::on_event) is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A member of a group has neither polled nor committed for more than half of its `max_poll_interval`; once that is
    /// over it is taken out. Told once for each silence.
    #[non_exhaustive]
    MemberLate {
        /// The group.
        group: String,
        /// The id that the group gave the member.
        member: String,
        /// For how long it has been silent, by the log's clock.
        silent_for: Duration,
    },
    /// A member was taken out of its group, and its partitions go to others: it was silent for its whole
    /// `max_poll_interval`, or, as a static member that is away, for its `session_timeout`.
    #[non_exhaustive]
    MemberTimedOut {
        /// The group.
        group: String,
        /// The id that the group gave the member.
        member: String,
        /// For how long it was silent, by the log's clock.
        silent_for: Duration,
    },
    /// A consumer that was in use was fenced: another one with its instance id took its place.
    #[non_exhaustive]
    MemberReplaced {
        /// The group.
        group: String,
        /// The id that the group gave the member, which the other one has now.
        member: String,
        /// The name that both gave themselves.
        instance_id: String,
    },
    /// Nothing can be written for now: the disk is full, or the process has no file descriptor left, as the error says.
    /// The log tries again by itself. Appends go on while there is room in the memory budget.
    #[non_exhaustive]
    WritesStalled {
        /// What the write failed with.
        error: Error,
    },
    /// The disk has taken a write again.
    #[non_exhaustive]
    WritesResumed {},
    /// Nothing more is appended to a partition until the log is opened again: a write or a flush of it failed, and what
    /// the disk holds is not known any more.
    #[non_exhaustive]
    PartitionFailed {
        /// The partition.
        partition: TopicPartition,
        /// What it failed with, and its appends and waiters from now on.
        error: Error,
    },
    /// The open that made this log found bytes that it could not believe, and set them aside. The
    /// [`RecoveryReport`](crate::admin::RecoveryReport) has it all.
    #[non_exhaustive]
    Quarantined {
        /// The partition concerned, where it is known.
        partition: Option<TopicPartition>,
        /// Where they are kept until you delete them.
        kept_in: PathBuf,
        /// Why.
        reason: String,
    },
    /// A group had committed records of a partition that a loss of power took afterwards; others may have their offsets now.
    /// Its members go on where their reset policy says, not behind records that nobody has read.
    #[non_exhaustive]
    CommitTruncated {
        /// The group.
        group: String,
        /// The partition.
        partition: TopicPartition,
        /// The offset that was committed.
        offset: u64,
    },
    /// Records that were written cannot be read any more: [`LogBuilder::scrub`](crate::LogBuilder::scrub) came to them. What is
    /// around them can be read. Told once for each block.
    #[non_exhaustive]
    DamageFound {
        /// The partition.
        partition: TopicPartition,
        /// What a read of them gives, with file, position, and the first offset where it is known.
        error: Error,
    },
    /// A codec failed or panicked where it was to compress: such blocks are stored uncompressed. Told once for each codec.
    #[non_exhaustive]
    CodecFailed {
        /// The name of the codec.
        codec: String,
        /// What it said.
        reason: String,
    },
}

/// Who is told.
pub(crate) type Hook = Arc<dyn Fn(&Event) + Send + Sync>;
