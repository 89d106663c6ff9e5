//! Appending through one handle alone, and in place.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::clock::{Deadline, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{FIXED, flags};
use crate::partition::append::{Asked, Stamp};
use crate::partition::core::{Appended, PartitionCore};
use crate::partition::head::{AppendState, Head};
use crate::record::Record;
use crate::storage::chunk::Room;

impl PartitionCore {
    /// Fails where a record names another partition.
    #[inline(always)]
    pub(super) fn check_named(&self, records: &[Record<'_>]) -> Result<()> {
        let own = self.identity.tp.partition();
        match records.iter().filter_map(|record| record.partition).find(|named| *named != own) {
            None => Ok(()),
            Some(other) => Err(self.is_named(other)),
        }
    }

    #[cold]
    fn is_named(&self, other: u32) -> Error {
        let message = format!("the record names partition {other}");
        self.here(Error::new(ErrorKind::InvalidArgument, message))
    }

    #[cold]
    pub(super) fn is_leased(&self) -> Error {
        self.here(Error::new(ErrorKind::IllegalState, "an appender has the partition for itself"))
    }

    /// Lets there be an appender.
    fn lease(&self) -> Result<()> {
        self.origin.check()?;
        let mut state = self.append.lock();
        match &state.refuse {
            Some(error) if error.kind() != ErrorKind::NoSpace => return Err(error.clone()),
            _ if state.leased => return Err(self.is_leased()),
            _ => state.leased = true,
        }
        Ok(())
    }

    /// The appender's way to the lock, with the head put back where everybody looks for it.
    fn put_back(&self, out: &mut Option<Head>) -> MutexGuard<'_, AppendState> {
        let mut state = self.append.lock();
        if let Some(head) = out.take() {
            state.head = head;
            state.out = false;
            if self.ended.load(Ordering::Acquire) {
                // Memory of a deleted topic, perhaps: nobody will come for it again.
                state.head.writer = None;
            }
        }
        state
    }

    /// [`PartitionCore::put_back`], and room for `len` bytes of frames; `None` after a wait for room.
    #[cold]
    fn prepare(
        &self,
        out: &mut Option<Head>,
        len: usize,
        deadline: &mut Option<Deadline>,
    ) -> Result<Option<MutexGuard<'_, AppendState>>> {
        let mut state = self.put_back(out);
        if let Some(error) = &state.refuse {
            return Err(error.clone());
        }
        if state.head.has_room(len) || len == 0 || self.take_chunk(&mut state, len)? {
            return Ok(Some(state));
        }
        // The head stays here meanwhile, so that its chunk can be given up when it is what there is to give.
        drop(state);
        let deadline = *deadline.get_or_insert_with(|| Deadline::after(self.engine.max_block));
        self.engine.wait_for_room(deadline).map_err(|e| self.here(e))?;
        Ok(None)
    }

    /// Gives the appender the head after something was appended under the lock: whoever waited for that is told.
    fn lend(&self, mut state: MutexGuard<'_, AppendState>, out: &mut Option<Head>) {
        *out = Some(state.head.take());
        state.out = true;
        // When the lock is let go the engine knows, nobody waits and nothing is refused. Whoever changes that raises it
        // again, under the lock that we still have.
        self.lease.calm();
        if state.has_news(self.engine.is_durable()) {
            self.tell(state);
        }
    }
}

/// The exclusive right to append to a partition: made by [`Partition::appender`](crate::Partition::appender).
///
/// While it lives every other append to the partition fails with `IllegalState`, a producer's too. That saves
/// the lock of each append. Readers, consumers, the write-behind and all promises are what they are without it. It
/// ends when it is dropped.
///
/// The appender keeps the piece of the memory budget that it appends to (up to 4 MiB) also when it idles and others want for
/// room: drop it when there is nothing to append for long.
///
/// ```
/// use tapelog::{ErrorKind, Log, Record, TopicConfig};
///
/// let log = Log::in_memory()?;
/// let partition = log.create_topic("ticks", TopicConfig::new())?.partition(0)?;
/// let mut appender = partition.appender()?;
/// assert_eq!(appender.append(Record::new("a"))?, 0);
/// assert_eq!(partition.append(Record::new("b")).unwrap_err().kind(), ErrorKind::IllegalState);
///
/// let mut claim = appender.claim(3)?;
/// claim.copy_from_slice(b"abc");
/// assert_eq!(claim.commit()?, 1);
/// drop(appender);
/// assert_eq!(partition.append(Record::new("b"))?.offset(), 2);
/// # Ok::<(), tapelog::Error>(())
/// ```
#[must_use = "the partition is the appender's only while it lives"]
// Every append writes to it: two that lie side by side, for two threads, do not share cache lines.
#[repr(align(128))]
pub struct Appender {
    core: Arc<PartitionCore>,
    /// Keeps the log open.
    _log: Arc<dyn Any + Send + Sync>,
    /// The head of the partition, unless it is in the partition: then the next append gets it from there.
    head: Option<Head>,
}

impl Appender {
    pub(super) fn new(core: Arc<PartitionCore>, log: Arc<dyn Any + Send + Sync>) -> Result<Self> {
        core.lease()?;
        Ok(Appender { core, _log: log, head: None })
    }

    /// Appends one record and returns its offset. It is in the log, visible to readers, when this returns.
    ///
    /// # Errors
    /// As [`Partition::append`](crate::Partition::append).
    #[inline(always)] // where it is called, its constants are known, and the record need not lie in memory
    pub fn append(&mut self, record: Record<'_>) -> Result<u64> {
        let appended = match self.append_alone(std::slice::from_ref(&record))? {
            Some(appended) => appended,
            // A copy, so that the record that nearly all appends end with need not lie in memory.
            None => self.append_with_lock(&[record])?,
        };
        Ok(appended.base_offset)
    }

    /// Appends records back to back, all or none, and returns their offsets; readers see all of them or none, after a
    /// crash too.
    ///
    /// # Errors
    /// As [`Partition::append_batch`](crate::Partition::append_batch).
    pub fn append_batch(&mut self, records: &[Record<'_>]) -> Result<Range<u64>> {
        let appended = match self.append_alone(records)? {
            Some(appended) => appended,
            None => self.append_with_lock(records)?,
        };
        Ok(appended.base_offset..appended.next_offset)
    }

    /// Appends where that takes nothing but what is at hand; `None` where it takes more.
    #[inline(always)]
    fn append_alone(&mut self, records: &[Record<'_>]) -> Result<Option<Appended>> {
        let core = &*self.core;
        core.check_named(records)?;
        let Asked { total, segment_bytes, stamp } = core.look_at(records)?;
        if let Some(head) = &mut self.head
            && let Some(_turn) = core.lease.enter()
            && total > 0
            && head.has_room(total)
            && !head.rolls(total, segment_bytes)
        {
            return core.append_to(head, records, total, false, stamp).map(Some);
        }
        Ok(None)
    }

    /// Appends as everybody does.
    #[cold]
    fn append_with_lock(&mut self, records: &[Record<'_>]) -> Result<Appended> {
        let core = &*self.core;
        let mut deadline = None;
        loop {
            let Asked { total, segment_bytes, stamp } = core.look_at(records)?;
            let Some(mut state) = core.prepare(&mut self.head, total, &mut deadline)? else { continue };
            if records.is_empty() {
                return Ok(Appended::nothing(&state.head));
            }
            let rolls = state.roll(total, segment_bytes);
            let appended = core.append_to(&mut state.head, records, total, rolls, stamp);
            core.lend(state, &mut self.head);
            return appended;
        }
    }

    /// Claims room for a value of `len` bytes, to be filled where it will stay: an append without a copy. The value is all
    /// zeros until it is filled. Nothing is in the log before [`Claim::commit`].
    ///
    /// # Errors
    /// As [`Partition::append`](crate::Partition::append).
    #[inline] // to be returned through memory would cost it as much as the copy that it saves
    pub fn claim(&mut self, len: usize) -> Result<Claim<'_>> {
        let frame = self.make_room(len)?;
        Ok(Claim { appender: self, len, frame })
    }

    /// Makes the bytes ready that a value of `len` bytes is to be filled into; how long its frame is.
    fn make_room(&mut self, len: usize) -> Result<usize> {
        let core = &*self.core;
        core.origin.check()?;
        let frame = core.check_value(len, core.limits.segment_bytes.load(Ordering::Relaxed))?;
        let at_hand = self.head.as_ref().is_some_and(|head| head.has_room(frame));
        if !at_hand || core.lease.is_wanted() {
            let mut deadline = None;
            let mut state = loop {
                if let Some(state) = core.prepare(&mut self.head, frame, &mut deadline)? {
                    break state;
                }
            };
            self.head = Some(state.head.take());
            state.out = true;
            // Nothing was appended: whoever waits for that is told by the commit.
            core.lease.want();
        }
        // The padding behind the value too.
        let writer = self.head.as_mut().and_then(|head| head.writer.as_mut());
        if let Some(out) = writer.and_then(|writer| writer.reserve(frame)) {
            out.into_bytes()[FIXED..].fill(0);
        }
        Ok(frame)
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        if self.core.origin.is_fork() {
            return;
        }
        self.core.put_back(&mut self.head).leased = false;
    }
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Appender({}, at {})", self.core.identity().tp, self.core.end_offset())
    }
}

/// Room for one value at the end of a partition, to be filled in place: made by [`Appender::claim`].
///
/// It is a slice of bytes. [`Claim::commit`] makes it a record; a claim that is dropped leaves nothing.
#[must_use = "a claim that is not committed leaves nothing"]
pub struct Claim<'a> {
    appender: &'a mut Appender,
    /// Of the value.
    len: usize,
    /// Of the whole frame.
    frame: usize,
}

impl Claim<'_> {
    /// Appends the value, with the time of the log's clock, and returns the record's offset. It is in the log, visible to
    /// readers, when this returns.
    ///
    /// # Errors
    /// Nothing is appended where the log was closed, the topic deleted or the disk found full meanwhile.
    pub fn commit(self) -> Result<u64> {
        let now = self.appender.core.engine.clock.now();
        self.commit_record(&Record::default(), Some(now))
    }

    /// [`Claim::commit`] with a timestamp of the caller's.
    ///
    /// # Errors
    /// As there.
    pub fn commit_at(self, timestamp: Timestamp) -> Result<u64> {
        let core = &self.appender.core;
        let now = core.limits.stamps.load(Ordering::Relaxed).then(|| core.engine.clock.now());
        self.commit_record(&Record::default().timestamp(timestamp), now)
    }

    /// `record` carries the timestamp.
    #[inline]
    fn commit_record(self, record: &Record<'_>, now: Option<Timestamp>) -> Result<u64> {
        let Claim { appender, len, frame } = self;
        let core = &*appender.core;
        core.origin.check()?;
        // The size was allowed when the room was claimed, and stays so.
        let segment_bytes = core.limits.segment_bytes.load(Ordering::Relaxed).max(frame as u64);
        // What the commit was given the time for is what is done, whatever is altered meanwhile.
        let always = now.is_some() && core.limits.stamps.load(Ordering::Relaxed);
        let stamp = Stamp { now, always };
        if let Some(head) = &mut appender.head
            && !head.rolls(frame, segment_bytes)
            && let Some(_turn) = core.lease.enter()
        {
            let timestamp = stamp.of(record, head.last_timestamp);
            return core.append_claimed(head, len, frame, 0, timestamp);
        }
        let mut state = core.put_back(&mut appender.head);
        if let Some(error) = &state.refuse {
            return Err(error.clone());
        }
        let bits = if state.roll(frame, segment_bytes) { flags::FIRST_OF_SEGMENT } else { 0 };
        let timestamp = stamp.of(record, state.head.last_timestamp);
        let offset = core.append_claimed(&mut state.head, len, frame, bits, timestamp);
        core.lend(state, &mut appender.head);
        offset
    }
}

impl PartitionCore {
    /// Appends the value that was filled in place.
    #[inline]
    fn append_claimed(
        &self,
        head: &mut Head,
        len: usize,
        frame: usize,
        bits: u8,
        timestamp: Timestamp,
    ) -> Result<u64> {
        let offset = head.next_offset;
        let Some(writer) = &mut head.writer else { return Err(self.without_room()) };
        let Some(room) = writer.reserve(frame) else { return Err(self.without_room()) };
        room.write_around(len, offset, timestamp, bits);
        writer.publish();
        head.last_timestamp = head.last_timestamp.max(timestamp);
        self.appended(head, 1, frame);
        Ok(offset)
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let writer = self.appender.head.as_ref().and_then(|head| head.writer.as_ref());
        let frame = writer.and_then(|writer| writer.reserved(self.frame)).unwrap_or_default();
        frame.get(FIXED..FIXED + self.len).unwrap_or_default()
    }
}

impl DerefMut for Claim<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let writer = self.appender.head.as_mut().and_then(|head| head.writer.as_mut());
        let room = writer.and_then(|writer| writer.reserve(self.frame));
        let frame = room.map(Room::into_bytes).unwrap_or_default();
        frame.get_mut(FIXED..FIXED + self.len).unwrap_or_default()
    }
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({} bytes in {})", self.len, self.appender.core.identity().tp)
    }
}
