//! What a reader gets: [`Records`] that own pins, and [`ConsumerRecord`]s that borrow from them.
//!
//! A pin keeps one chunk of the hot tail, or one decoded block of the cold log, alive; there is one per
//! stretch of records read from it, never one per record.

use std::sync::Arc;

use crate::block::AlignedBuf;
use crate::clock::Timestamp;
use crate::frame::{FrameView, HeaderIter};
use crate::record::Record;
use crate::storage::chunk::Held;
use crate::topic_partition::TopicPartition;

/// What the records of a partition have in common.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) topic_id: u64,
    pub(crate) tp: TopicPartition,
}

/// A stretch of records of one partition, back to back in one place.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) identity: Arc<Identity>,
    /// Its frames, back to back.
    frames: Held,
    /// How many records there are, control records not counted.
    pub(crate) count: usize,
    /// Which assignment of a consumer read it; a record of an older one cannot be committed. For a share group: how
    /// often its records were delivered.
    pub(crate) assignment: u64,
}

impl Run {
    pub(crate) fn new(identity: Arc<Identity>, frames: Held, count: usize) -> Run {
        Run { identity, frames, count, assignment: 0 }
    }

    /// All bytes of the stretch.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.frames.bytes()
    }
}

/// Records as one poll or read returned them: of one or more partitions, in order within each.
///
/// Owns what it needs to stay valid: it can be kept, moved to another thread and outlive its consumer. What
/// it pins is memory that the log would otherwise recycle, so do not hoard it: take [`OwnedRecord`]s.
///
/// ```
/// use tapelog::{Log, Record, TopicConfig};
///
/// let log = Log::in_memory()?;
/// let topic = log.create_topic("ticks", TopicConfig::new())?;
/// topic.partition(0)?.append(Record::new("a"))?;
/// let records = topic.partition(0)?.reader(0)?.read(100)?;
/// assert_eq!(records.len(), 1);
/// for record in &records {
///     assert_eq!(record.value(), Some(&b"a"[..]));
/// }
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Records {
    runs: Vec<Run>,
    count: usize,
}

impl Records {
    /// No records, ready to be filled by `poll_into`.
    #[must_use]
    pub fn new() -> Self {
        Records::default()
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Lets go of all records and keeps the room for the next ones.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.count = 0;
    }

    pub(crate) fn push(&mut self, run: Run) {
        self.count += run.count;
        self.runs.push(run);
    }

    /// The records, partition by partition, each in offset order.
    #[must_use]
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter { runs: self.runs.iter(), run: None, rest: &[], left: self.count }
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = ConsumerRecord<'a>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

/// Iterates over [`Records`].
#[derive(Clone)]
pub struct RecordsIter<'a> {
    /// The runs to come, the one at hand, and what is left of its frames.
    runs: std::slice::Iter<'a, Run>,
    run: Option<&'a Run>,
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = ConsumerRecord<'a>;

    #[inline]
    fn next(&mut self) -> Option<ConsumerRecord<'a>> {
        loop {
            let Some(run) = self.run.filter(|_| !self.rest.is_empty()) else {
                self.run = self.runs.next();
                self.rest = self.run?.bytes();
                continue;
            };
            let (frame, rest) = FrameView::split(self.rest);
            self.rest = rest;
            if !frame.is_control() {
                self.left -= 1;
                return Some(ConsumerRecord { identity: &run.identity, assignment: run.assignment, frame });
            }
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for RecordsIter<'_> {}

/// One record as it was read: a view of four words, `Copy`, borrowing from [`Records`] or a reader.
#[derive(Clone, Copy)]
pub struct ConsumerRecord<'a> {
    identity: &'a Arc<Identity>,
    assignment: u64,
    frame: FrameView<'a>,
}

impl<'a> ConsumerRecord<'a> {
    /// A record of this partition that no consumer was assigned.
    #[inline]
    pub(crate) fn new(identity: &'a Arc<Identity>, frame: FrameView<'a>) -> Self {
        ConsumerRecord { identity, assignment: 0, frame }
    }

    pub(crate) fn identity(self) -> &'a Identity {
        self.identity
    }

    /// The assignment that it was read in; 0 where there was none.
    pub(crate) fn assignment(self) -> u64 {
        self.assignment
    }

    /// The topic's name.
    #[must_use]
    #[inline]
    pub fn topic(self) -> &'a str {
        self.identity.tp.topic()
    }

    /// The partition within the topic.
    #[must_use]
    #[inline]
    pub fn partition(self) -> u32 {
        self.identity.tp.partition()
    }

    /// Topic and partition.
    #[must_use]
    #[inline]
    pub fn topic_partition(self) -> &'a TopicPartition {
        &self.identity.tp
    }

    /// The record's place in its partition.
    #[must_use]
    #[inline]
    pub fn offset(self) -> u64 {
        self.frame.offset()
    }

    /// When the record was made, or appended: as the topic's timestamp type says.
    #[must_use]
    #[inline]
    pub fn timestamp(self) -> Timestamp {
        self.frame.timestamp()
    }

    /// The key; `None` where the record has none.
    #[must_use]
    #[inline]
    pub fn key(self) -> Option<&'a [u8]> {
        self.frame.key()
    }

    /// The value, beginning 8-aligned; `None` for a tombstone.
    #[must_use]
    #[inline]
    pub fn value(self) -> Option<&'a [u8]> {
        self.frame.value()
    }

    /// The headers, in the order in which they were sent.
    #[must_use]
    #[inline]
    pub fn headers(self) -> Headers<'a> {
        Headers(self.frame.headers())
    }

    /// The last header called `name`.
    #[must_use]
    #[inline]
    pub fn header(self, name: &str) -> Option<&'a [u8]> {
        self.headers().filter(|(n, _)| *n == name).last().map(|(_, value)| value)
    }

    /// A copy that lives on its own.
    #[must_use]
    #[inline]
    pub fn into_owned(self) -> OwnedRecord {
        let bytes = self.frame.bytes();
        let mut buf = AlignedBuf::zeroed(bytes.len());
        buf.as_mut_slice().copy_from_slice(bytes);
        OwnedRecord { identity: Arc::clone(self.identity), buf: Arc::new(buf) }
    }
}

impl std::fmt::Debug for ConsumerRecord<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
        f.debug_struct("ConsumerRecord")
            .field("partition", &format_args!("{}", self.topic_partition()))
            .field("offset", &self.offset())
            .field("timestamp", &self.timestamp())
            .field("key", &text(self.key()))
            .field("value", &text(self.value()))
            .finish_non_exhaustive()
    }
}

/// A record that was read can be sent on: same key, value and timestamp. Headers are not carried over, since
/// a [`Record`] borrows them as one slice: collect [`ConsumerRecord::headers`] and pass them where wanted.
impl<'a> From<ConsumerRecord<'a>> for Record<'a> {
    fn from(record: ConsumerRecord<'a>) -> Record<'a> {
        Record {
            key: record.key(),
            value: record.value(),
            timestamp: Some(record.timestamp()),
            ..Record::default()
        }
    }
}

/// The headers of a record, in order.
#[derive(Clone)]
pub struct Headers<'a>(HeaderIter<'a>);

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// A record that owns its bytes: `'static`, cheap to clone, free of the log it came from.
#[derive(Clone)]
pub struct OwnedRecord {
    identity: Arc<Identity>,
    buf: Arc<AlignedBuf>,
}

impl OwnedRecord {
    fn frame(&self) -> FrameView<'_> {
        FrameView::trusted(self.buf.as_slice())
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.identity.tp.topic()
    }

    /// The partition within the topic.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.identity.tp.partition()
    }

    /// The record's place in its partition.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.frame().offset()
    }

    /// When the record was made, or appended.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.frame().timestamp()
    }

    /// The key; `None` where the record has none.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.frame().key()
    }

    /// The value, beginning 8-aligned; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.frame().value()
    }

    /// The headers, in the order in which they were sent.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers(self.frame().headers())
    }
}

impl std::fmt::Debug for OwnedRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnedRecord")
            .field("partition", &format_args!("{}", self.identity.tp))
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}
