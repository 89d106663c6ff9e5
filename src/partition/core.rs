//! A partition as the log holds it: one append path, one read path, and the baton between them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::clock::{Deadline, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{FrameView, flags, frame_len, write};
use crate::partition::cursor::{Cursor, Store};
use crate::partition::drain::{Drain, Progress, Sink, SinkContext};
use crate::partition::records::{Identity, Run};
use crate::partition::settings::{Settings, SyncPolicy, TimestampType};
use crate::partition::watermarks::{OnReached, Signal, Watermark, register};
use crate::partition::write_behind::{Duty, Engine, Stand, closed};
use crate::record::Record;
use crate::segment::chain::Chain;
use crate::segment::writer::SegmentWriter;
use crate::storage::arena::Want;
use crate::storage::chunk::ChunkWriter;
use crate::tail::Tail;

/// What one append call may carry, all its frames together.
pub(crate) const MAX_APPEND: usize = 8 << 20;
/// The slots that a partition asks for, one after the other, while it is busy.
const SLOTS: [usize; 3] = [64 << 10, 512 << 10, 4 << 20];
/// What a flush writes at a time under the baton.
const FLUSH_QUANTUM: usize = 16 << 20;

/// How long an append may wait for room in the memory budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// This long.
    For(Duration),
}

/// What an append gave its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: u64,
    pub(crate) next_offset: u64,
    /// Of the last record.
    pub(crate) timestamp: Timestamp,
}

/// Where a partition begins when a log is opened: empty, or as recovery left it.
pub(crate) struct Opened {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The log's, for all that is appended while it is open.
    pub(crate) epoch: u32,
    pub(crate) chain: Chain,
    pub(crate) writer: Option<SegmentWriter>,
    /// Base offsets of the segments, and frame bytes in the last.
    pub(crate) segment_bases: Vec<u64>,
    pub(crate) segment_used: u64,
    pub(crate) last_timestamp: Timestamp,
    /// Whether everything below `end` is known to be flushed.
    pub(crate) durable: u64,
}

impl Opened {
    /// A partition that never held anything.
    pub(crate) fn empty(epoch: u32) -> Self {
        Opened {
            start: 0,
            end: 0,
            epoch,
            chain: Chain::default(),
            writer: None,
            segment_bases: Vec::new(),
            segment_used: 0,
            last_timestamp: Timestamp::MIN,
            durable: 0,
        }
    }
}

/// One partition: what its handles, the engine and the groups share.
pub(crate) struct PartitionCore {
    me: Weak<PartitionCore>,
    identity: Arc<Identity>,
    engine: Arc<Engine>,
    settings: RwLock<Settings>,
    internal: bool,
    append: Mutex<AppendState>,
    start: AtomicU64,
    /// The end offset: everything below is published.
    end: AtomicU64,
    tail: Tail,
    chain: Chain,
    written: Watermark,
    durable: Watermark,
    /// The baton of the write-behind.
    drain: Mutex<Drain>,
    /// One flush at a time; who waits here finds that the flush before covered it (group commit).
    flushing: Mutex<()>,
    flush_state: Mutex<FlushState>,
    /// Set at the end of the log or of the topic; read under the baton and under the flush lock.
    ended: AtomicBool,
}

#[derive(Default)]
struct FlushState {
    scheduled: bool,
}

/// What an append needs, behind the append lock.
struct AppendState {
    writer: Option<ChunkWriter>,
    next_offset: u64,
    epoch: u32,
    last_timestamp: Timestamp,
    /// Frame bytes in the segment that is appended to; `None` before its first frame.
    segment_used: Option<u64>,
    segment_bases: Vec<u64>,
    /// Which of `SLOTS` to ask for next.
    slot: usize,
    /// Whether the engine knows that there is something to write.
    queued: bool,
    /// Whether the engine knows that there is a chunk that could be given up.
    held: bool,
    /// Why nothing can be appended (now).
    refuse: Option<Error>,
    waiters: Vec<Arc<Signal>>,
}

impl PartitionCore {
    /// A partition over what recovery found; `folder` is where its segments go, seen from the directory.
    pub(crate) fn open(
        identity: Identity,
        engine: Arc<Engine>,
        settings: Settings,
        folder: PathBuf,
        opened: Opened,
    ) -> Arc<Self> {
        let sink = Sink::new(folder, identity.topic_id, identity.tp.partition(), opened.writer, opened.end);
        let drain = Drain::new(sink);
        Arc::new_cyclic(|me| PartitionCore {
            me: me.clone(),
            internal: identity.tp.topic().starts_with("__"),
            identity: Arc::new(identity),
            engine,
            settings: RwLock::new(settings),
            append: Mutex::new(AppendState {
                writer: None,
                next_offset: opened.end,
                epoch: opened.epoch,
                last_timestamp: opened.last_timestamp,
                segment_used: (!opened.segment_bases.is_empty()).then_some(opened.segment_used),
                segment_bases: opened.segment_bases,
                slot: 0,
                queued: false,
                held: false,
                refuse: None,
                waiters: Vec::new(),
            }),
            start: AtomicU64::new(opened.start),
            end: AtomicU64::new(opened.end),
            tail: Tail::new(),
            chain: opened.chain,
            written: Watermark::new(opened.end),
            durable: Watermark::new(opened.durable),
            drain: Mutex::new(drain),
            flushing: Mutex::default(),
            flush_state: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn settings(&self) -> Settings {
        *self.settings.read()
    }

    pub(crate) fn alter(&self, settings: Settings) {
        *self.settings.write() = settings;
    }

    /// Adds to an error the name of this partition.
    fn here(&self, error: Error) -> Error {
        error.with_partition(Arc::clone(&self.identity.tp.topic), self.identity.tp.partition())
    }

    // ---- the append path -------------------------------------------------------------------------------

    /// Appends records, all or none, back to back.
    ///
    /// With `expected_end`, only if that is the end offset. Waits for room as long as `wait` says.
    pub(crate) fn append(
        &self,
        records: &[Record<'_>],
        wait: Wait,
        expected_end: Option<u64>,
    ) -> Result<Appended> {
        let settings = self.settings();
        let total = self.check_sizes(records, &settings)?;
        let mut deadline = None;
        loop {
            let mut state = self.append.lock();
            if let Some(error) = &state.refuse {
                return Err(error.clone());
            }
            if let Some(expected) = expected_end
                && expected != state.next_offset
            {
                let message = format!("the end offset is {}, not {expected}", state.next_offset);
                return Err(self.here(Error::new(ErrorKind::UnexpectedEndOffset, message)));
            }
            if records.is_empty() {
                let (base_offset, timestamp) = (state.next_offset, state.last_timestamp);
                return Ok(Appended { base_offset, next_offset: base_offset, timestamp });
            }
            let has_room = state.writer.as_ref().is_some_and(|w| w.room() >= total);
            if has_room || self.take_chunk(&mut state, total)? {
                let appended = self.append_to(&mut state, records, &settings);
                let enqueue = self.engine.is_durable() && !state.queued;
                state.queued |= enqueue;
                for waiter in state.waiters.drain(..) {
                    waiter.ring();
                }
                drop(state);
                if enqueue && let Some(me) = self.me.upgrade() {
                    self.engine.enqueue(me);
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

    /// How many bytes the frames of `records` take; an error where that is more than may be.
    fn check_sizes(&self, records: &[Record<'_>], settings: &Settings) -> Result<usize> {
        let mut total = 0usize;
        for (index, record) in records.iter().enumerate() {
            let len = frame_len(record, false).filter(|len| *len <= settings.max_record_bytes as usize);
            let Some(len) = len else {
                let message = format!(
                    "record {index} of the append takes {} bytes, more than the topic's {}",
                    frame_len(record, false).map_or_else(|| "too many".into(), |n| n.to_string()),
                    settings.max_record_bytes
                );
                return Err(self.here(Error::new(ErrorKind::RecordTooLarge, message)));
            };
            total += len;
            if total > MAX_APPEND || total as u64 > settings.segment_bytes {
                let most = settings.segment_bytes.min(MAX_APPEND as u64);
                let message = format!("the append takes more than {most} bytes");
                return Err(self.here(Error::new(ErrorKind::RecordBatchTooLarge, message)));
            }
        }
        Ok(total)
    }

    /// Gets a chunk that has room for `len` bytes of frames; false where there is none now.
    fn take_chunk(&self, state: &mut AppendState, len: usize) -> Result<bool> {
        let want = Want {
            topic_id: self.identity.topic_id,
            partition: self.identity.tp.partition(),
            epoch: state.epoch,
            base_offset: state.next_offset,
            min_len: len,
            class_hint: SLOTS[state.slot],
            internal: self.internal,
        };
        loop {
            if let Some(writer) = self.engine.pool.take(&want).map_err(|e| self.here(e))? {
                self.tail.push(Arc::clone(writer.chunk()));
                // The successor is in the tail before the old one is sealed: who reads to a seal finds it there.
                if let Some(old) = state.writer.replace(writer) {
                    old.seal();
                }
                state.slot = (state.slot + 1).min(SLOTS.len() - 1);
                if !state.held {
                    state.held = true;
                    let me: Weak<dyn Duty> = self.me.clone();
                    self.engine.holds(me);
                }
                return Ok(true);
            }
            if !self.engine.is_durable() {
                let message = "the in-memory log has reached its limit";
                return Err(self.here(Error::new(ErrorKind::NoMemory, message)));
            }
            if !self.engine.evict_one() {
                return Ok(false);
            }
        }
    }

    /// The append itself: everything was checked, there is room.
    fn append_to(
        &self,
        state: &mut AppendState,
        records: &[Record<'_>],
        settings: &Settings,
    ) -> Result<Appended> {
        let base_offset = state.next_offset;
        let total: u64 = if records.len() == 1 {
            frame_len(&records[0], false).unwrap_or(0) as u64
        } else {
            records.iter().map(|r| frame_len(r, false).unwrap_or(0) as u64).sum()
        };
        let rolls = state.segment_used.is_none_or(|used| used > settings.segment_bytes - total);
        if rolls {
            state.segment_used = Some(0);
            state.segment_bases.push(base_offset);
        }
        let Some(writer) = &mut state.writer else {
            return Err(self.here(Error::new(ErrorKind::Internal, "no chunk to append to")));
        };
        let mut now = None;
        let mut timestamp = state.last_timestamp;
        for (index, record) in records.iter().enumerate() {
            timestamp = match (settings.timestamp_type, record.timestamp) {
                (TimestampType::Create, Some(given)) => given,
                (kind, _) => {
                    let now = *now.get_or_insert_with(|| self.engine.clock.now());
                    if kind == TimestampType::Append { now.max(state.last_timestamp) } else { now }
                }
            };
            let mut bits = 0;
            if rolls && index == 0 {
                bits |= flags::FIRST_OF_SEGMENT;
            }
            if index + 1 < records.len() {
                bits |= flags::MORE;
            }
            let len = frame_len(record, false).unwrap_or(0);
            let Some(out) = writer.reserve(len) else {
                writer.abandon();
                return Err(
                    self.here(Error::new(ErrorKind::Internal, "the chunk has less room than it said"))
                );
            };
            let tag = write(out, record, base_offset + index as u64, timestamp, bits, None);
            writer.stage(len, tag);
            state.last_timestamp = state.last_timestamp.max(timestamp);
        }
        writer.publish();
        state.next_offset = base_offset + records.len() as u64;
        state.segment_used = state.segment_used.map(|used| used + total);
        self.end.store(state.next_offset, Ordering::Release);
        Ok(Appended { base_offset, next_offset: state.next_offset, timestamp })
    }

    // ---- the read path ---------------------------------------------------------------------------------

    /// The first offset held.
    pub(crate) fn start_offset(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// The offset that the next record will get.
    pub(crate) fn end_offset(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// What consumers may read: with one replica, all that is published.
    pub(crate) fn high_watermark(&self) -> u64 {
        self.end_offset()
    }

    /// Below this everything is in the files of the directory. An in-memory log has none: its end offset.
    pub(crate) fn written_offset(&self) -> u64 {
        if self.engine.is_durable() { self.written.get() } else { self.end_offset() }
    }

    /// Below this everything survives a power cut. Of an in-memory log, which accepts every level, its end.
    pub(crate) fn durable_offset(&self) -> u64 {
        if self.engine.is_durable() { self.durable.get() } else { self.end_offset() }
    }

    /// Bytes are not known before they are written, so the depth of the write-behind's queue counts records.
    pub(crate) fn unwritten(&self) -> u64 {
        self.end_offset().saturating_sub(self.written_offset())
    }

    /// Base offsets of the segments, as decided by appends.
    pub(crate) fn segment_bases(&self) -> Vec<u64> {
        self.append.lock().segment_bases.clone()
    }

    /// Reads on from a cursor; records at or above `limit` are not read.
    pub(crate) fn fetch(
        &self,
        cursor: &mut Cursor,
        limit: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Option<Run>> {
        let store = Store {
            identity: &self.identity,
            tail: &self.tail,
            chain: &self.chain,
            codecs: &self.engine.codecs,
            start: self.start_offset(),
            limit,
        };
        cursor.fetch(&store, max_records, max_bytes).map_err(|e| {
            let offset = e.offset().unwrap_or(cursor.position());
            self.here(e).at_offset(offset)
        })
    }

    /// Has `signal` rung when there is something at or above `position`; true where there is already.
    ///
    /// Fails where nothing will ever come: the partition has failed, or is gone. A full disk passes.
    pub(crate) fn wait_for_records(&self, position: u64, signal: &Arc<Signal>) -> Result<bool> {
        let mut state = self.append.lock();
        if state.next_offset > position {
            return Ok(true);
        }
        match &state.refuse {
            Some(error) if error.kind() != ErrorKind::NoSpace => return Err(error.clone()),
            _ => register(&mut state.waiters, signal),
        }
        Ok(false)
    }

    /// The same for what survives a power cut.
    pub(crate) fn wait_for_durable(&self, position: u64, signal: &Arc<Signal>) -> Result<bool> {
        if self.engine.is_durable() {
            self.durable.ring_past(position, signal)
        } else {
            self.wait_for_records(position, signal)
        }
    }

    /// The first record in offset order, at or after the start, whose timestamp is not before `target`
    /// (Kafka: `offsetsForTimes`).
    pub(crate) fn offset_for_time(&self, target: Timestamp) -> Result<Option<(u64, Timestamp)>> {
        let limit = self.high_watermark();
        let start = self.start_offset();
        // What is in segments is searched by their index; what is only in the tail is walked.
        let written = self.chain.segments().last().map_or(start, |last| last.next_offset());
        if let Some(mut cursor) = self.chain.find_time(target).map_err(|e| self.here(e))? {
            while let Some(block) =
                self.chain.next(&mut cursor, &self.engine.codecs).map_err(|e| self.here(e))?
            {
                let found = frames_of(block.frames()).find(|f| {
                    f.offset() >= start && f.offset() < limit && !f.is_control() && f.timestamp() >= target
                });
                if let Some(frame) = found {
                    return Ok(Some((frame.offset(), frame.timestamp())));
                }
            }
        }
        self.first_from(written.max(start).min(limit), limit, |timestamp| timestamp >= target)
    }

    fn first_from(
        &self,
        from: u64,
        limit: u64,
        fits: impl Fn(Timestamp) -> bool,
    ) -> Result<Option<(u64, Timestamp)>> {
        let mut cursor = Cursor::new(from);
        while let Some(run) = self.fetch(&mut cursor, limit, usize::MAX, usize::MAX)? {
            let found = run.frames().find(|f| !f.is_control() && fits(f.timestamp()));
            if let Some(frame) = found {
                return Ok(Some((frame.offset(), frame.timestamp())));
            }
        }
        Ok(None)
    }

    /// The first record that has the largest timestamp.
    pub(crate) fn max_timestamp(&self) -> Result<Option<(u64, Timestamp)>> {
        let limit = self.high_watermark();
        let start = self.start_offset();
        let mut best: Option<(u64, Timestamp)> = None;
        let mut offer = |offset: u64, timestamp: Timestamp| {
            if best.is_none_or(|(_, t)| timestamp > t) {
                best = Some((offset, timestamp));
            }
        };
        let written = self.written_offset();
        let mut from = start;
        for segment in self.chain.segments().iter() {
            // A segment that the start offset cuts through must be walked; of the others the sum is known.
            if segment.base_offset() >= start
                && let Some((timestamp, offset)) = segment.max_timestamp()
                && offset < limit
            {
                offer(offset, timestamp);
                from = from.max(segment.next_offset().min(written));
            } else {
                break;
            }
        }
        let mut cursor = Cursor::new(from.min(limit));
        while let Some(run) = self.fetch(&mut cursor, limit, usize::MAX, usize::MAX)? {
            run.frames().filter(|f| !f.is_control()).for_each(|f| offer(f.offset(), f.timestamp()));
        }
        Ok(best)
    }

    // ---- the write-behind ------------------------------------------------------------------------------

    fn drain_locked(&self, drain: &mut Drain, quantum: usize, whole: bool) -> Result<bool> {
        let Some(directory) = &self.engine.directory else { return Ok(true) };
        if self.engine.halted() || self.ended.load(Ordering::Acquire) {
            return Err(closed());
        }
        let settings = self.settings();
        let ctx = SinkContext {
            chain: &self.chain,
            directory,
            codecs: &self.engine.codecs,
            settings: &settings,
            clock: &*self.engine.clock,
        };
        let before = drain.written();
        let mut progress = Progress::default();
        let step = drain.step(&ctx, &self.tail, quantum, whole, &mut progress);
        if drain.written() > before {
            self.written.advance(drain.written(), |call, result| self.engine.call(call, result));
        }
        for chunk in progress.released {
            let me: Weak<dyn Duty> = self.me.clone();
            self.engine.evictable(me, chunk.base_offset());
        }
        step?;
        Ok(progress.drained)
    }

    /// Handles an error of the write-behind: a full disk passes, anything else is for ever.
    fn write_failed(&self, error: Error) -> Stand {
        let error = self.here(error);
        if error.kind() == ErrorKind::NoSpace {
            // What was closed stays closed.
            self.append.lock().refuse.get_or_insert_with(|| error.clone());
            return Stand::Full(error);
        }
        self.fail(&error);
        Stand::Failed
    }

    /// Stops this partition for good and tells everyone who waits.
    pub(crate) fn fail(&self, error: &Error) {
        {
            let mut state = self.append.lock();
            state.refuse = Some(error.clone());
            state.waiters.drain(..).for_each(|w| w.ring());
        }
        self.written.fail(error, |call, result| self.engine.call(call, result));
        self.durable.fail(error, |call, result| self.engine.call(call, result));
    }

    /// After a write went through: whatever the full disk kept out may come in again.
    fn write_went_through(&self) {
        let mut state = self.append.lock();
        if state.refuse.as_ref().is_some_and(|e| e.kind() == ErrorKind::NoSpace) {
            state.refuse = None;
            drop(state);
            self.engine.trouble_over();
        }
    }

    /// Makes everything below `target` durable, by a flush of its own where none that runs covers it.
    pub(crate) fn flush_to(&self, target: u64) -> Result<()> {
        if self.durable_offset() >= target {
            return Ok(());
        }
        let _turn = self.flushing.lock();
        if self.durable_offset() >= target {
            return Ok(());
        }
        if let Some(error) = self.durable.failure() {
            return Err(error);
        }
        if self.ended.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.flush_state.lock().scheduled = false;
        let (written, segments) = {
            let mut drain = self.drain.lock();
            loop {
                match self.drain_locked(&mut drain, FLUSH_QUANTUM, true) {
                    Ok(true) => break,
                    Ok(false) if drain.written() >= target => break,
                    Ok(false) => {}
                    Err(e) => {
                        drop(drain);
                        return Err(match self.write_failed(e.clone()) {
                            Stand::Full(error) => {
                                self.wake_engine();
                                error
                            }
                            _ => self.here(e),
                        });
                    }
                }
            }
            (drain.written(), drain.sink().unflushed().to_vec())
        };
        self.write_went_through();
        for segment in &segments {
            if let Err(e) = segment.flush() {
                let error = self.here(e);
                self.fail(&error);
                return Err(error);
            }
        }
        self.drain.lock().sink().forget_flushed();
        self.durable.advance(written, |call, result| self.engine.call(call, result));
        Ok(())
    }

    /// Has the engine try again what could not be written.
    fn wake_engine(&self) {
        let mut state = self.append.lock();
        if !state.queued {
            state.queued = true;
            drop(state);
            if let Some(me) = self.me.upgrade() {
                self.engine.enqueue(me);
            }
        }
    }

    /// Waits until everything below `target` is durable, flushing where nobody else does.
    pub(crate) fn wait_durable(&self, target: u64, deadline: Deadline) -> Result<()> {
        if self.durable_offset() >= target {
            return Ok(());
        }
        if deadline.remaining().is_none() {
            return self.flush_to(target);
        }
        let me: Weak<dyn Duty> = self.me.clone();
        self.engine.flush_later(me, Duration::ZERO);
        self.durable.wait(target, deadline).map_err(|e| self.here(e))
    }

    /// Calls `then` once everything below `target` is durable.
    pub(crate) fn when_durable(&self, target: u64, then: OnReached) {
        if self.durable_offset() >= target {
            return self.engine.call(then, Ok(()));
        }
        self.durable.when(target, then, |call, result| self.engine.call(call, result));
        let me: Weak<dyn Duty> = self.me.clone();
        self.engine.flush_later(me, Duration::ZERO);
    }

    /// For the end of a log: writes all, flushes, and seals the last segment.
    pub(crate) fn finish(&self) -> Result<()> {
        self.flush_to(self.end_offset())?;
        if !self.engine.is_durable() {
            return Ok(());
        }
        self.drain.lock().sink().seal().map_err(|e| self.here(e))?;
        let segments = self.chain.segments();
        match segments.last() {
            Some(last) => last.flush().map(drop).map_err(|e| self.here(e)),
            None => Ok(()),
        }
    }

    /// Refuses all further appends.
    pub(crate) fn close(&self, error: &Error) {
        let mut state = self.append.lock();
        state.refuse = Some(error.clone());
        state.waiters.drain(..).for_each(|w| w.ring());
    }

    /// Ends this partition: nothing is appended, written or flushed any more once this returns true. False
    /// where a write or flush did not let go before the deadline.
    pub(crate) fn end(&self, error: &Error, deadline: Deadline) -> bool {
        self.close(error);
        self.ended.store(true, Ordering::Release);
        let left = || deadline.remaining().unwrap_or(Duration::from_secs(60));
        let quiet = self.flushing.try_lock_for(left()).is_some() && self.drain.try_lock_for(left()).is_some();
        self.written.fail(error, |call, result| self.engine.call(call, result));
        self.durable.fail(error, |call, result| self.engine.call(call, result));
        quiet
    }

    /// What refuses appends now.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.append.lock().refuse.clone()
    }
}

impl Duty for PartitionCore {
    fn drain(&self, quantum: usize, whole: bool) -> Stand {
        let settings = self.settings();
        self.schedule_flush(settings.sync_policy);
        let whole = whole || settings.block_linger.is_zero();
        let (result, behind) = {
            let mut drain = self.drain.lock();
            let result = self.drain_locked(&mut drain, quantum, whole);
            (result, drain.is_behind())
        };
        match result {
            Err(e) if e.kind() == ErrorKind::Closed => Stand::Failed,
            Err(e) => self.write_failed(e),
            Ok(true) => {
                self.write_went_through();
                // Under the append lock, so that an append either is seen here or enqueues anew.
                let mut state = self.append.lock();
                // Whoever has the baton now may hold it for as long as a disk takes: appends do not wait for that.
                let Some(drain) = self.drain.try_lock() else { return Stand::More };
                if drain.is_behind() || drain.written() < state.next_offset {
                    return Stand::More;
                }
                state.queued = false;
                Stand::Idle
            }
            Ok(false) if behind && !whole => {
                self.write_went_through();
                Stand::Linger(settings.block_linger)
            }
            Ok(false) => Stand::More,
        }
    }

    fn flush(&self) -> Result<()> {
        self.flush_to(self.end_offset())
    }

    fn evict(&self, base_offset: u64) {
        if let Some(chunk) = self.tail.evict(base_offset) {
            chunk.mark_evicted();
        }
    }

    fn retire(&self) {
        let me: Weak<dyn Duty> = self.me.clone();
        let Some(mut state) = self.append.try_lock() else { return self.engine.holds(me) };
        if self.written.get() < state.next_offset {
            return self.engine.holds(me);
        }
        state.held = false;
        if let Some(writer) = state.writer.take() {
            state.slot = 0;
            let base_offset = writer.seal().base_offset();
            drop(state);
            self.drain.lock().let_go(base_offset);
            self.engine.evictable(me, base_offset);
        }
    }

    fn poison(&self, error: &Error) {
        self.fail(&self.here(error.clone()));
    }
}

impl PartitionCore {
    fn schedule_flush(&self, policy: SyncPolicy) {
        let wait = match policy {
            SyncPolicy::Never => return,
            SyncPolicy::Every(interval) => interval,
            SyncPolicy::EveryRecords(n) => {
                if self.end_offset() - self.durable_offset() < n {
                    return;
                }
                Duration::ZERO
            }
        };
        let mut state = self.flush_state.lock();
        if !state.scheduled && self.end_offset() > self.durable_offset() {
            state.scheduled = true;
            let me: Weak<dyn Duty> = self.me.clone();
            self.engine.flush_later(me, wait);
        }
    }
}

impl Run {
    /// The frames of the stretch.
    pub(crate) fn frames(&self) -> impl Iterator<Item = FrameView<'_>> {
        frames_of(self.bytes())
    }
}

/// Frames that stand back to back.
fn frames_of(bytes: &[u8]) -> impl Iterator<Item = FrameView<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        (at < bytes.len()).then(|| {
            let frame = FrameView::trusted(&bytes[at..]);
            at += frame.len();
            frame
        })
    })
}
