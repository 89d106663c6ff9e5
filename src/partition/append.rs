//! The append path: what is checked before any lock, what is done under it, and the frames themselves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::{Deadline, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{flags, frame_len, value_frame_len};
use crate::partition::core::{Appended, MAX_APPEND, PartitionCore, Wait};
use crate::partition::head::Head;
use crate::record::Record;

/// Whose time the records of an append carry.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    /// The time of the append, where a record needs it.
    pub(super) now: Option<Timestamp>,
    /// Whether it overrules the producers', and never goes back.
    pub(super) always: bool,
}

impl Stamp {
    #[inline]
    pub(super) fn of(self, record: &Record<'_>, last: Timestamp) -> Timestamp {
        match (self.always, record.timestamp, self.now) {
            (true, _, Some(now)) => now.max(last),
            (false, None, Some(now)) => now,
            (_, given, _) => given.unwrap_or(last),
        }
    }
}

/// What an append asks for. The limits were read once: what was checked is what is done, whatever is altered meanwhile.
pub(super) struct Asked {
    /// The bytes of all frames.
    pub(super) total: usize,
    pub(super) segment_bytes: u64,
    pub(super) stamp: Stamp,
}

impl PartitionCore {
    /// Appends one record: [`PartitionCore::append`], inlined as far as nearly all appends go. Neither the record nor what
    /// is answered lies in memory then: loaded in other pieces than it was stored in, each would wait until the stores have left
    /// the processor, and the lock waits for that.
    #[inline(always)]
    pub(crate) fn append_one(&self, record: Record<'_>, wait: Wait) -> Result<Appended> {
        match self.append_at_hand(std::slice::from_ref(&record))? {
            Some(appended) => Ok(appended),
            // A copy, so that the record need not lie in memory where it was appended.
            None => self.append_otherwise(&[record], wait),
        }
    }

    #[cold]
    fn append_otherwise(&self, records: &[Record<'_>], wait: Wait) -> Result<Appended> {
        self.append(records, wait, None)
    }

    /// Appends where that takes the lock and what is at hand; `None` where it takes more, or cannot be.
    #[inline(always)]
    fn append_at_hand(&self, records: &[Record<'_>]) -> Result<Option<Appended>> {
        let Asked { total, segment_bytes, stamp } = self.look_at(records)?;
        let mut state = self.append.lock();
        let stands = state.refuse.is_none() && !state.leased && total > 0;
        if !stands || !state.head.has_room(total) || state.head.rolls(total, segment_bytes) {
            return Ok(None);
        }
        let appended = self.append_to(&mut state.head, records, total, false, stamp);
        if state.has_news(self.engine.is_durable()) {
            self.tell(state);
        }
        appended.map(Some)
    }

    /// Appends records, all or none, back to back.
    ///
    /// With `expected_end`, only if that is the end offset. Waits for room as long as `wait` says.
    pub(crate) fn append(
        &self,
        records: &[Record<'_>],
        wait: Wait,
        expected_end: Option<u64>,
    ) -> Result<Appended> {
        let mut deadline = None;
        loop {
            let Asked { total, segment_bytes, stamp } = self.look_at(records)?;
            let mut state = self.append.lock();
            if let Some(error) = &state.refuse {
                return Err(error.clone());
            }
            if state.leased {
                return Err(self.is_leased());
            }
            if let Some(expected) = expected_end
                && expected != state.head.next_offset
            {
                let message = format!("the end offset is {}, not {expected}", state.head.next_offset);
                return Err(self.here(Error::new(ErrorKind::UnexpectedEndOffset, message)));
            }
            if records.is_empty() {
                return Ok(Appended::nothing(&state.head));
            }
            if state.head.has_room(total) || self.take_chunk(&mut state, total)? {
                let rolls = state.roll(total, segment_bytes);
                let appended = self.append_to(&mut state.head, records, total, rolls, stamp);
                if state.has_news(self.engine.is_durable()) {
                    self.tell(state);
                }
                return appended;
            }
            drop(state);
            let deadline = *deadline.get_or_insert_with(|| match wait {
                Wait::No => Deadline::after(Duration::ZERO),
                Wait::For(time) => Deadline::after(time),
            });
            self.engine.wait_for_room(deadline).map_err(|e| self.here(e))?;
        }
    }

    /// What is found out about an append before any lock: whoever had that when the process was forked is not there to let it
    /// go, and the clock is the user's, whom nobody waits for.
    #[inline(always)]
    pub(super) fn look_at(&self, records: &[Record<'_>]) -> Result<Asked> {
        self.origin.check()?;
        let segment_bytes = self.limits.segment_bytes.load(Ordering::Relaxed);
        let total = self.check_sizes(records, segment_bytes)?;
        let always = self.limits.stamps.load(Ordering::Relaxed);
        let needs_time = always || records.iter().any(|r| r.timestamp.is_none());
        let now = if needs_time { Some(self.engine.clock.now()) } else { None };
        Ok(Asked { total, segment_bytes, stamp: Stamp { now, always } })
    }

    /// How many bytes the frames of `records` take; an error where that is more than may be.
    #[inline]
    fn check_sizes(&self, records: &[Record<'_>], segment_bytes: u64) -> Result<usize> {
        let max_record_bytes = self.limits.max_record_bytes.load(Ordering::Relaxed);
        let most = segment_bytes.min(MAX_APPEND as u64);
        let mut total = 0usize;
        for (index, record) in records.iter().enumerate() {
            let len = frame_len(record, false);
            let Some(len) = len.filter(|len| *len <= max_record_bytes as usize) else {
                return Err(self.too_large(index, len, max_record_bytes));
            };
            total += len;
            if total as u64 > most {
                return Err(self.too_many(most));
            }
        }
        Ok(total)
    }

    #[cold]
    fn too_many(&self, most: u64) -> Error {
        let message = format!("the append takes more than {most} bytes");
        self.here(Error::new(ErrorKind::RecordBatchTooLarge, message))
    }

    #[cold]
    fn too_large(&self, index: usize, len: Option<usize>, most: u32) -> Error {
        let len = len.map_or_else(|| "too many".into(), |len| len.to_string());
        let message = format!("record {index} of the append takes {len} bytes, more than the topic's {most}");
        self.here(Error::new(ErrorKind::RecordTooLarge, message))
    }

    /// How many bytes the frame of a value alone takes; an error where that is more than may be.
    pub(super) fn check_value(&self, len: usize, segment_bytes: u64) -> Result<usize> {
        let most = self.limits.max_record_bytes.load(Ordering::Relaxed);
        let frame = value_frame_len(len);
        match frame.filter(|frame| *frame <= MAX_APPEND.min(most as usize) && *frame as u64 <= segment_bytes)
        {
            Some(frame) => Ok(frame),
            None => Err(self.too_large(0, frame, most)),
        }
    }

    /// The append itself: everything was checked, there is room for the `total` bytes that it takes.
    #[inline(always)] // what is known of a single record is not to be found out again
    pub(super) fn append_to(
        &self,
        head: &mut Head,
        records: &[Record<'_>],
        total: usize,
        rolls: bool,
        stamp: Stamp,
    ) -> Result<Appended> {
        let base_offset = head.next_offset;
        let Some(writer) = &mut head.writer else { return Err(self.without_room()) };
        let mut timestamp = head.last_timestamp;
        let mut bits = if rolls { flags::FIRST_OF_SEGMENT } else { 0 };
        for (index, record) in records.iter().enumerate() {
            timestamp = stamp.of(record, head.last_timestamp);
            if index + 1 < records.len() {
                bits |= flags::MORE;
            }
            let len = if records.len() == 1 { total } else { frame_len(record, false).unwrap_or(0) };
            let offset = base_offset + index as u64;
            let Some(room) = writer.reserve(len) else {
                writer.abandon();
                return Err(self.without_room());
            };
            room.write(record, offset, timestamp, bits);
            head.last_timestamp = head.last_timestamp.max(timestamp);
            bits = 0;
        }
        writer.publish();
        self.appended(head, records.len(), total);
        Ok(Appended { base_offset, next_offset: head.next_offset, timestamp })
    }

    #[cold]
    pub(super) fn without_room(&self) -> Error {
        self.here(Error::new(ErrorKind::Internal, "the chunk has less room than it said"))
    }

    /// Counts what was published.
    #[inline]
    pub(super) fn appended(&self, head: &mut Head, records: usize, total: usize) {
        head.next_offset += records as u64;
        head.segment_used = head.segment_used.map(|used| used + total as u64);
        self.end.offset.store(head.next_offset, Ordering::Release);
        // There is one at a time that appends, so that this needs no atomic addition.
        let bytes_in = self.end.bytes_in.load(Ordering::Relaxed) + total as u64;
        self.end.bytes_in.store(bytes_in, Ordering::Relaxed);
    }
}
