//! One opaque error for the whole crate: a kind, a message, and the place.
//!
//! Outside there is [`Error`]: one word, cheap to clone, with an [`ErrorKind`] named as Kafka names it
//! (`org.apache.kafka.common.protocol.Errors`) and accessors for topic, partition, offset and file.
//! Inside, areas that parse bytes keep a private enum of their own and hand it over as the source.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in Kafka's words where Kafka has them.
///
/// The classes of an error ([`Error::is_retriable`] and its siblings) are derived from its kind. Kinds that only
/// replication, transactions or idempotent producers give are here already, so that whoever matches need not
/// change with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A topic name that is empty, too long, `.`, `..`, reserved, or has a character outside `[a-zA-Z0-9._-]`.
    InvalidTopic,
    /// No such topic, or the topic has no such partition.
    UnknownTopicOrPartition,
    /// The topic to create exists.
    TopicAlreadyExists,
    /// A partition count of zero, or one that is not larger than today's.
    InvalidPartitions,
    /// A setting is unknown, out of range, or contradicts another.
    InvalidConfig,
    /// An argument that no state of the log could make valid.
    InvalidArgument,
    /// The pattern of a subscription is no regular expression.
    InvalidRegularExpression,
    /// One record is larger than the topic or the log allows.
    RecordTooLarge,
    /// What one append call carries is larger than an append, or a segment, may be.
    RecordBatchTooLarge,
    /// A record that the topic does not accept.
    InvalidRecord,
    /// A timestamp outside the bounds of the topic.
    InvalidTimestamp,
    /// A compare-and-append found another end offset than the caller expected.
    UnexpectedEndOffset,
    /// The position lies outside what the partition holds; [`Error::offset_range`] tells what it holds.
    OffsetOutOfRange,
    /// No committed offset, and the reset policy is to fail.
    NoOffset,
    /// Bytes on disk that do not prove themselves.
    CorruptRecord,
    /// A codec id that nothing is registered for in this build or log.
    UnsupportedCompressionType,
    /// Bytes of a newer format, or with flags that this version does not know.
    UnsupportedVersion,
    /// A file or directory that is not ours, or not what its name says.
    ForeignFile,
    /// There is no log in this directory.
    NotFound,
    /// Another handle, in this process or another, has the log open.
    Locked,
    /// The log's directory cannot be written.
    ReadOnly,
    /// Reading or writing failed; what failed stays failed until the log is opened again. Only where the process or
    /// the system had no file descriptor left the log itself tries again, and goes on.
    Storage,
    /// The disk is full. Ends when space returns, without reopening.
    NoSpace,
    /// An in-memory log has reached its limit.
    NoMemory,
    /// The memory budget is used up, and the call was not allowed to wait (any longer).
    BufferExhausted,
    /// The quota of bytes per second is used up, and the call was not allowed to wait (any longer).
    ThrottlingQuotaExceeded,
    /// The time given to the call passed first.
    TimedOut,
    /// The handle, or the log behind it, was closed.
    Closed,
    /// A call that does not fit the state of its handle.
    IllegalState,
    /// A poll was woken by [`ConsumerHandle::wakeup`](crate::consumer::ConsumerHandle::wakeup).
    Wakeup,
    /// This process is a fork of the one that opened the log.
    Forked,
    /// The last stop was not clean and the staging file it needs is absent.
    StagingMissing,
    /// Fewer directories are present than an open needs to be sure of the truth.
    DirectoriesMissing,
    /// Fewer replicas are in sync than the topic demands; nothing was appended.
    NotEnoughReplicas,
    /// The call needs a group and the consumer has none, or the name is empty.
    InvalidGroupId,
    /// The member is not, or no longer, in the group.
    UnknownMemberId,
    /// The member's generation has passed.
    IllegalGeneration,
    /// The member names no assignor that all other members of the group name too.
    InconsistentGroupProtocol,
    /// The group is moving partitions; poll, then try again.
    RebalanceInProgress,
    /// Another member took over this instance id.
    FencedInstanceId,
    /// The partition is no longer owned by the member that commits it.
    CommitFailed,
    /// No such group.
    GroupIdNotFound,
    /// The group has live members.
    GroupNotEmpty,
    /// A member of a share group settles a record that it does not hold, or no longer.
    InvalidRecordState,
    /// A sequence number that is neither the next nor a remembered one.
    OutOfOrderSequence,
    /// The producer's epoch is older than the newest one seen.
    InvalidProducerEpoch,
    /// A newer producer with the same transactional id took over.
    ProducerFenced,
    /// A transactional call that does not fit the transaction's state.
    InvalidTxnState,
    /// The previous transaction of this id is still being completed.
    ConcurrentTransactions,
    /// An offset commit of an open transaction covers this partition.
    UnstableOffsetCommit,
    /// A user's callback, codec or partitioner panicked, or answered out of range.
    UserCode,
    /// The platform, or this build's features, cannot do it.
    Unsupported,
    /// A library thread panicked; the message says what it said.
    Internal,
}

impl ErrorKind {
    /// The kind's name in Kafka's manner: `UNKNOWN_TOPIC_OR_PARTITION`.
    #[must_use]
    pub fn name(self) -> String {
        let camel = format!("{self:?}");
        let mut out = String::with_capacity(camel.len() + 4);
        for (i, c) in camel.chars().enumerate() {
            if c.is_ascii_uppercase() && i > 0 {
                out.push('_');
            }
            out.push(c.to_ascii_uppercase());
        }
        out
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// The one error of this crate: what kind, what happened, and where.
///
/// One word wide and cheap to clone, so that one failure can be told to every waiter.
///
/// ```
/// use tapelog::{ErrorKind, Log};
///
/// let log = Log::in_memory()?;
/// let error = log.topic("no-such-topic").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
/// assert_eq!(error.topic(), Some("no-such-topic"));
/// assert!(!error.is_fatal());
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    topic: Option<Arc<str>>,
    partition: Option<u32>,
    offset: Option<u64>,
    range: Option<(u64, u64)>,
    path: Option<PathBuf>,
    position: Option<u64>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`; the place is added with the `with_` and `at_` methods.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            topic: None,
            partition: None,
            offset: None,
            range: None,
            path: None,
            position: None,
            source: None,
        }))
    }

    /// An I/O error on `path` while doing `what`, classified: a full disk is [`ErrorKind::NoSpace`],
    /// a read-only file system [`ErrorKind::ReadOnly`], anything else [`ErrorKind::Storage`].
    pub(crate) fn io(what: &str, path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            // A write over RLIMIT_FSIZE answers EFBIG: for the writer it is a disk that is full.
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::NoSpace,
            Io::ReadOnlyFilesystem | Io::PermissionDenied => ErrorKind::ReadOnly,
            _ => ErrorKind::Storage,
        };
        Error::new(kind, format!("cannot {what}")).at_path(path).caused_by(source)
    }

    fn edit(mut self, f: impl FnOnce(&mut Inner)) -> Self {
        f(Arc::make_mut(&mut self.0));
        self
    }

    pub(crate) fn with_topic(self, topic: impl Into<Arc<str>>) -> Self {
        let topic = topic.into();
        self.edit(|e| e.topic = Some(topic))
    }

    pub(crate) fn with_partition(self, topic: impl Into<Arc<str>>, partition: u32) -> Self {
        let topic = topic.into();
        self.edit(|e| {
            e.topic = Some(topic);
            e.partition = Some(partition);
        })
    }

    pub(crate) fn at_offset(self, offset: u64) -> Self {
        self.edit(|e| e.offset = Some(offset))
    }

    pub(crate) fn with_range(self, start: u64, end: u64) -> Self {
        self.edit(|e| e.range = Some((start, end)))
    }

    pub(crate) fn at_path(self, path: &Path) -> Self {
        self.edit(|e| e.path = Some(path.to_path_buf()))
    }

    pub(crate) fn at_position(self, position: u64) -> Self {
        self.edit(|e| e.position = Some(position))
    }

    pub(crate) fn caused_by(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.edit(|e| e.source = Some(Arc::new(source)))
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The topic concerned, where there is one.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.0.topic.as_deref()
    }

    /// The partition concerned, where there is one.
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        self.0.partition
    }

    /// The offset concerned, where there is one.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// For [`ErrorKind::OffsetOutOfRange`]: the first offset held and the end offset.
    #[must_use]
    pub fn offset_range(&self) -> Option<(u64, u64)> {
        self.0.range
    }

    /// The file or directory concerned, where there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The byte position in [`Error::path`], where there is one.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.0.position
    }

    /// Whether it says that the process or the system has no file descriptor left: a file could not be opened, and
    /// nothing else has happened.
    pub(crate) fn is_out_of_descriptors(&self) -> bool {
        #[cfg(unix)]
        {
            use rustix::io::Errno;
            let source = self.0.source.as_ref().and_then(|s| s.downcast_ref::<std::io::Error>());
            let errno = source.and_then(std::io::Error::raw_os_error).map(Errno::from_raw_os_error);
            self.kind() == ErrorKind::Storage && matches!(errno, Some(Errno::MFILE | Errno::NFILE))
        }
        #[cfg(not(unix))]
        false
    }

    /// Whether what could not be written can be, once there is room on the disk or a file descriptor again.
    pub(crate) fn passes(&self) -> bool {
        self.kind() == ErrorKind::NoSpace || self.is_out_of_descriptors()
    }

    /// Whether the same call may succeed later without a change by the caller
    /// (Kafka: `RetriableException`).
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::NoSpace
                | ErrorKind::NoMemory
                | ErrorKind::BufferExhausted
                | ErrorKind::ThrottlingQuotaExceeded
                | ErrorKind::TimedOut
                | ErrorKind::NotEnoughReplicas
                | ErrorKind::RebalanceInProgress
                | ErrorKind::ConcurrentTransactions
                | ErrorKind::UnstableOffsetCommit
                | ErrorKind::Wakeup
        )
    }

    /// Whether somebody newer took the place of this handle.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::FencedInstanceId
                | ErrorKind::InvalidProducerEpoch
                | ErrorKind::ProducerFenced
                | ErrorKind::IllegalGeneration
                | ErrorKind::UnknownMemberId
        )
    }

    /// Whether the handle (or the log) is of no further use and must be opened again.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Storage
                | ErrorKind::Closed
                | ErrorKind::Forked
                | ErrorKind::FencedInstanceId
                | ErrorKind::ProducerFenced
                | ErrorKind::StagingMissing
                | ErrorKind::DirectoriesMissing
                | ErrorKind::Internal
        )
    }

    /// Whether an open transaction can only be aborted after this error.
    #[must_use]
    pub fn requires_abort(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::OutOfOrderSequence
                | ErrorKind::InvalidTxnState
                | ErrorKind::RecordTooLarge
                | ErrorKind::RecordBatchTooLarge
                | ErrorKind::CommitFailed
                | ErrorKind::NotEnoughReplicas
        )
    }

    /// Whether bytes on disk were found not to be what was written.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::CorruptRecord | ErrorKind::UnsupportedVersion | ErrorKind::ForeignFile
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        write!(f, "{}: {}", e.kind, e.message)?;
        let mut parts: Vec<String> = Vec::new();
        match (&e.topic, e.partition) {
            (Some(t), Some(p)) => parts.push(format!("partition {t}-{p}")),
            (Some(t), None) => parts.push(format!("topic {t:?}")),
            (None, Some(p)) => parts.push(format!("partition {p}")),
            (None, None) => {}
        }
        if let Some(offset) = e.offset {
            parts.push(format!("offset {offset}"));
        }
        if let Some((start, end)) = e.range {
            parts.push(format!("held {start}..{end}"));
        }
        if let Some(path) = &e.path {
            parts.push(format!("file {}", path.display()));
        }
        if let Some(position) = e.position {
            parts.push(format!("byte {position}"));
        }
        if !parts.is_empty() {
            write!(f, " ({})", parts.join(", "))?;
        }
        if let Some(source) = &e.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_word_and_names_the_place() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let e = Error::new(ErrorKind::CorruptRecord, "payload does not match its checksum")
            .with_partition("ticks", 3)
            .at_offset(17)
            .at_path(Path::new("a/b.log"))
            .at_position(64);
        assert_eq!(
            e.to_string(),
            "CORRUPT_RECORD: payload does not match its checksum (partition ticks-3, offset 17, file a/b.log, byte 64)"
        );
        assert!(e.is_corrupt() && !e.is_retriable());
    }

    #[test]
    fn classifies_io() {
        let of = |k: std::io::ErrorKind| Error::io("write", Path::new("x"), k.into()).kind();
        assert_eq!(of(std::io::ErrorKind::StorageFull), ErrorKind::NoSpace);
        assert_eq!(of(std::io::ErrorKind::FileTooLarge), ErrorKind::NoSpace);
        assert_eq!(of(std::io::ErrorKind::ReadOnlyFilesystem), ErrorKind::ReadOnly);
        assert_eq!(of(std::io::ErrorKind::Other), ErrorKind::Storage);
    }
}
