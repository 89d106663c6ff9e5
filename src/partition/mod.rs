//! The direct path: append to a partition and read from it, without partitioner or group.

// The rooms behind this door:
//
// core           what it is made of, and its read path
//  ├ append         its append path (head: what appends write)
//  ├ appender       appends of one handle alone (lease: how it is stopped)
//  ├ cursor         reading: hot, cold, and over the hand-over (records: what readers get)
//  ├ delivery       what an append returns
//  ├ watermarks     how far the partition has come, and waiting for it
//  └ settle         its side of the write-behind: steps, flushes, the end
//     ├ drain          frames of the tail become blocks of segments
//     └ write_behind   the threads that drive it, for all partitions
//  ├ trim           letting go of its first records
// recovery       facts, and the doing of a plan (plan: a decision table)
//  └ hot            the hot tail that was left: what it holds, and its way through drain's sink
// settings       what can be set

pub(crate) mod append;
pub(crate) mod appender;
pub(crate) mod backlog;
pub(crate) mod core;
pub(crate) mod cursor;
pub(crate) mod delivery;
pub(crate) mod drain;
pub(crate) mod event;
pub(crate) mod head;
mod hot;
pub(crate) mod lease;
mod plan;
pub(crate) mod records;
pub(crate) mod recovery;
pub(crate) mod settings;
pub(crate) mod settle;
mod trim;
mod turns;
pub(crate) mod watermarks;
pub(crate) mod write_behind;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

pub use appender::{Appender, Claim};

use crate::clock::{Deadline, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::FrameView;
use crate::partition::core::{Appended, PartitionCore, Wait};
use crate::partition::cursor::Cursor;
use crate::partition::delivery::{Acks, Delivery, Durability};
use crate::partition::records::{ConsumerRecord, Records};
use crate::partition::write_behind::refuse_in_callback;
use crate::record::Record;
use crate::storage::chunk::Held;
use crate::topic_partition::TopicPartition;

/// One partition of a topic: an ordered log of records.
///
/// Offsets start at 0 and rise by one per record; readers may meet holes. A handle is cheap to clone and
/// keeps its log open.
///
/// ```
/// use tapelog::{Log, Record, TopicConfig};
///
/// let log = Log::in_memory()?;
/// let partition = log.create_topic("ticks", TopicConfig::new())?.partition(0)?;
/// partition.append_batch(&[Record::new("a"), Record::new("b")])?;
/// assert_eq!((partition.start_offset(), partition.end_offset()), (0, 2));
///
/// let mut reader = partition.reader(1)?;
/// assert_eq!(reader.try_next()?.unwrap().value(), Some(&b"b"[..]));
/// assert!(reader.try_next()?.is_none());
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Clone)]
pub struct Partition {
    pub(crate) core: Arc<PartitionCore>,
    /// Keeps the log open; the floor above knows what it is.
    pub(crate) log: Arc<dyn Any + Send + Sync>,
}

impl Partition {
    pub(crate) fn new(core: Arc<PartitionCore>, log: Arc<dyn Any + Send + Sync>) -> Self {
        Partition { core, log }
    }

    /// Topic and number.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.core.identity().tp
    }

    /// Appends one record. It is in the log, visible to readers, when this returns.
    ///
    /// A partition named in the record must be this one. Waits for room in the memory budget as a producer
    /// does, up to the log's `max_block`.
    ///
    /// # Errors
    /// `RecordTooLarge` before anything is copied; `IllegalState` while an [`Appender`] lives; `BufferExhausted` where no room came in time; `NoSpace`,
    /// `NoMemory`, `Storage`, `Closed` as the log stands.
    #[inline(always)] // see `PartitionCore::append_one`
    pub fn append(&self, record: Record<'_>) -> Result<Delivery> {
        self.check(std::slice::from_ref(&record))?;
        let appended = self.core.append_one(record, self.wait())?;
        Ok(self.delivery(appended))
    }

    /// Appends records back to back, all or none; readers see all of them or none, after a crash too.
    ///
    /// # Errors
    /// As [`Partition::append`]; `RecordBatchTooLarge` where together they exceed 8 MiB or a segment.
    pub fn append_batch(&self, records: &[Record<'_>]) -> Result<Delivery> {
        self.append_at(records, None)
    }

    /// Appends records only if `expected_end` is the end offset: nobody else appended in between.
    ///
    /// # Errors
    /// `UnexpectedEndOffset` where somebody did; else as [`Partition::append_batch`].
    pub fn append_if(&self, expected_end: u64, records: &[Record<'_>]) -> Result<Delivery> {
        self.append_at(records, Some(expected_end))
    }

    /// The exclusive right to append to this partition, for as long as the [`Appender`] lives.
    ///
    /// # Errors
    /// `IllegalState` where there is an appender already; `InvalidTopic` for an internal topic; `Closed`, `Storage` and their
    /// like where nothing can be appended any more.
    pub fn appender(&self) -> Result<Appender> {
        self.check_internal()?;
        Appender::new(Arc::clone(&self.core), Arc::clone(&self.log))
    }

    #[inline]
    fn check_internal(&self) -> Result<()> {
        if self.core.is_internal() { Err(self.is_internal()) } else { Ok(()) }
    }

    #[cold]
    fn is_internal(&self) -> Error {
        Error::new(ErrorKind::InvalidTopic, "internal topics are not for appending")
            .with_topic(self.topic_partition().topic())
    }

    fn append_at(&self, records: &[Record<'_>], expected_end: Option<u64>) -> Result<Delivery> {
        self.check(records)?;
        let appended = self.core.append(records, self.wait(), expected_end)?;
        Ok(self.delivery(appended))
    }

    #[inline(always)]
    fn check(&self, records: &[Record<'_>]) -> Result<()> {
        self.check_internal()?;
        self.core.check_named(records)
    }

    #[inline]
    fn wait(&self) -> Wait {
        Wait::For(self.core.engine().max_block)
    }

    #[inline(always)]
    fn delivery(&self, appended: Appended) -> Delivery {
        Delivery::new(&self.core, appended, Acks::All, Durability::Process)
    }

    /// A reader that begins at offset `from`.
    ///
    /// # Errors
    /// `OffsetOutOfRange` where the partition holds nothing there, the end offset excepted.
    pub fn reader(&self, from: u64) -> Result<Reader> {
        let mut reader = Reader { partition: self.clone(), cursor: Cursor::new(from), ahead: None };
        reader.seek(from)?;
        Ok(reader)
    }

    /// The first offset that the partition holds.
    #[must_use]
    pub fn start_offset(&self) -> u64 {
        self.core.start_offset()
    }

    /// The offset that the next record will get.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.core.end_offset()
    }

    /// Below this lies no open transaction. As long as there are none, that is the high watermark.
    #[must_use]
    pub fn stable_offset(&self) -> u64 {
        self.core.high_watermark()
    }

    /// Below this every record is on as many copies as the topic demands: what consumers may read. With one
    /// directory that is the end offset.
    #[must_use]
    pub fn high_watermark(&self) -> u64 {
        self.core.high_watermark()
    }

    /// Below this every record is in a segment file (perhaps in the page cache only).
    #[must_use]
    pub fn written_offset(&self) -> u64 {
        self.core.written_offset()
    }

    /// Below this every record survives the loss of power.
    #[must_use]
    pub fn durable_offset(&self) -> u64 {
        self.core.durable_offset()
    }

    /// Waits until every record below `offset` is in a segment file: within the topic's linger, unless the disk
    /// is slower.
    ///
    /// # Errors
    /// As [`Partition::wait_durable`].
    pub fn wait_written(&self, offset: u64, timeout: Duration) -> Result<()> {
        refuse_in_callback("wait_written")?;
        self.check_appended(offset)?;
        self.core.wait_written(offset, Deadline::after(timeout))
    }

    fn check_appended(&self, offset: u64) -> Result<()> {
        if offset <= self.end_offset() {
            return Ok(());
        }
        let own = self.topic_partition();
        let message = format!("nothing was appended up to there: the end offset is {}", self.end_offset());
        Err(Error::new(ErrorKind::InvalidArgument, message)
            .with_partition(own.topic(), own.partition())
            .at_offset(offset))
    }

    /// Waits until every record below `offset` survives the loss of power; flushes where nobody else does.
    ///
    /// # Errors
    /// `InvalidArgument` beyond the end offset, `TimedOut`, or what keeps the disk from it.
    pub fn wait_durable(&self, offset: u64, timeout: Duration) -> Result<()> {
        refuse_in_callback("wait_durable")?;
        self.check_appended(offset)?;
        self.core.wait_durable(offset, Deadline::after(timeout))
    }

    /// The first record, in offset order, whose timestamp is not before `target`: its offset and timestamp.
    ///
    /// (Kafka: `KafkaConsumer.offsetsForTimes`.)
    ///
    /// # Errors
    /// What reading the blocks concerned gives.
    pub fn offset_for_time(&self, target: Timestamp) -> Result<Option<(u64, Timestamp)>> {
        self.core.offset_for_time(target)
    }

    /// The first record that carries the largest timestamp: its offset and timestamp.
    ///
    /// # Errors
    /// What reading the blocks concerned gives.
    pub fn max_timestamp(&self) -> Result<Option<(u64, Timestamp)>> {
        self.core.max_timestamp()
    }

    /// The base offsets of the partition's segments.
    #[must_use]
    pub fn segments(&self) -> Vec<u64> {
        self.core.segment_bases()
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Partition({}, {}..{})", self.topic_partition(), self.start_offset(), self.end_offset())
    }
}

/// Reads one partition from an offset on; the records it lends borrow from it.
pub struct Reader {
    partition: Partition,
    cursor: Cursor,
    ahead: Option<Ahead>,
}

/// What was read ahead of a reader, who goes through it record by record: nobody did so before him.
struct Ahead {
    held: Held,
    /// Where in it the next frame is, how many records stood before, and the offset to read next.
    at: usize,
    records: usize,
    next: u64,
    /// The first offset that must not be read (yet).
    limit: u64,
}

impl Ahead {
    /// Goes to the next record; false where there is no more to read.
    #[inline]
    fn stands(&mut self) -> bool {
        while let Some(rest) = self.held.bytes().get(self.at..).filter(|rest| !rest.is_empty()) {
            let frame = FrameView::trusted(rest);
            if frame.offset() >= self.limit {
                return false;
            }
            if !frame.is_control() {
                return true;
            }
            self.at += frame.len();
            self.next = frame.offset() + 1;
        }
        false
    }

    /// Takes the record that it stands at.
    #[inline]
    fn take(&mut self) -> FrameView<'_> {
        let frame = FrameView::trusted(&self.held.bytes()[self.at..]);
        self.at += frame.len();
        self.next = frame.offset() + 1;
        self.records += 1;
        frame
    }
}

impl Reader {
    /// The next record, or `None` where there is none yet.
    ///
    /// # Errors
    /// `OffsetOutOfRange` once the position was deleted; `CorruptRecord` and its like for a block that does not
    /// prove itself: the position stays, and [`Reader::seek`] can pass it.
    #[inline]
    pub fn try_next(&mut self) -> Result<Option<ConsumerRecord<'_>>> {
        self.partition.core.origin.check()?;
        if !self.ahead.as_mut().is_some_and(Ahead::stands) && !self.go_on()? {
            return Ok(None);
        }
        let identity = self.partition.core.identity();
        Ok(self.ahead.as_mut().map(|ahead| ConsumerRecord::new(identity, ahead.take())))
    }

    /// Goes on where what was read ahead has come to its end; false where nothing is there yet.
    fn go_on(&mut self) -> Result<bool> {
        let core = &self.partition.core;
        let limit = core.high_watermark();
        // Whoever follows the appends stays in one chunk for long. He goes on in it without a step on who keeps it, which
        // would wait for one cache line of the appender's after the other, where so they come together.
        if let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.held.may_grow()) {
            if limit <= ahead.next {
                return Ok(false);
            }
            if core.start_offset() <= ahead.next {
                ahead.limit = limit;
                ahead.held.extend();
                if ahead.stands() {
                    return Ok(true);
                }
            }
        }
        self.read_ahead(limit)
    }

    /// Reads on from where the reader is; false where nothing is there yet.
    fn read_ahead(&mut self, limit: u64) -> Result<bool> {
        self.settle();
        let source = self.partition.core.read(limit, &mut self.cursor, Cursor::ahead)?;
        let next = self.cursor.position();
        self.ahead = source.map(|held| Ahead { held, at: 0, records: 0, next, limit });
        Ok(self.ahead.as_mut().is_some_and(Ahead::stands))
    }

    /// Up to `max` records.
    ///
    /// # Errors
    /// As [`Reader::try_next`], where the very first record fails; else what was read before it is returned.
    pub fn read(&mut self, max: usize) -> Result<Records> {
        let mut records = Records::new();
        self.settle();
        let core = &self.partition.core;
        let limit = core.high_watermark();
        while records.len() < max {
            match core.fetch(&mut self.cursor, limit, max - records.len(), usize::MAX) {
                Ok(Some(run)) => records.push(run),
                Ok(None) => break,
                Err(e) if records.is_empty() => return Err(e),
                Err(_) => break,
            }
        }
        Ok(records)
    }

    /// The offset of the next record; there may be a hole there.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.ahead.as_ref().map_or(self.cursor.position(), |ahead| ahead.next)
    }

    /// Takes back what was read ahead and not handed out.
    fn settle(&mut self) {
        if let Some(Ahead { at, records, next, .. }) = self.ahead.take() {
            self.cursor.advance(at, records, next);
        }
    }

    /// Goes on at `offset`.
    ///
    /// # Errors
    /// `OffsetOutOfRange` where the partition holds nothing there, the end offset excepted.
    pub fn seek(&mut self, offset: u64) -> Result<()> {
        let (start, end) = (self.partition.start_offset(), self.partition.end_offset());
        if offset < start || offset > end {
            let tp = self.partition.topic_partition();
            return Err(Error::new(ErrorKind::OffsetOutOfRange, "the partition holds nothing there")
                .with_partition(tp.topic(), tp.partition())
                .at_offset(offset)
                .with_range(start, end));
        }
        self.settle();
        self.cursor.seek(offset);
        Ok(())
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({} at {})", self.partition.topic_partition(), self.position())
    }
}
