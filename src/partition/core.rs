//! A partition as the log holds it, and its read path. The append path stands in `append`, the write-behind between them
//! in `settle`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam::utils::{Backoff, CachePadded};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::FrameView;
use crate::partition::cursor::{Cursor, Store};
use crate::partition::drain::{Drain, Sink};
use crate::partition::head::{AppendState, Ends, Head};
use crate::partition::lease::Lease;
use crate::partition::records::{Identity, Run};
use crate::partition::settings::{Settings, TimestampType};
use crate::partition::turns::Turns;
use crate::partition::watermarks::{Signal, Watermark, register};
use crate::partition::write_behind::{Duty, Engine};
use crate::segment::chain::Chain;
use crate::segment::reader::Segment;
use crate::segment::writer::SegmentWriter;
use crate::storage::arena::{CLASSES, Want};
use crate::storage::origin::Origin;
use crate::tail::Tail;

/// What one append call may carry, all its frames together.
pub(crate) const MAX_APPEND: usize = 8 << 20;

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

impl Appended {
    /// What an append of no records gives.
    pub(super) fn nothing(head: &Head) -> Self {
        let end = head.next_offset;
        Appended { base_offset: end, next_offset: end, timestamp: head.last_timestamp }
    }
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
    /// Everything below is flushed, once `unflushed` is.
    pub(crate) durable: u64,
    /// Segments that must be flushed before the log is open.
    pub(crate) unflushed: Vec<Arc<Segment>>,
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
            unflushed: Vec::new(),
        }
    }
}

/// One partition: what its handles, the engine and the groups share.
pub(crate) struct PartitionCore {
    pub(super) me: Weak<PartitionCore>,
    pub(super) identity: Arc<Identity>,
    pub(super) engine: Arc<Engine>,
    pub(super) settings: RwLock<Settings>,
    /// The part of the settings that every append looks at.
    pub(super) limits: Limits,
    pub(super) internal: bool,
    /// The process that the log was opened in, which alone may use it.
    pub(super) origin: Origin,
    pub(super) start: AtomicU64,
    /// Where the partition ended when the log was opened: what was appended since is of the log's epoch.
    opened_at: u64,
    /// Appenders write both with every append; readers poll the second. Neither shares a cache line with what
    /// both only read.
    pub(super) append: CachePadded<Mutex<AppendState>>,
    /// The end offset: everything below is published.
    pub(super) end: CachePadded<Ends>,
    /// How an appender that took the head out of `append` is stopped.
    pub(super) lease: CachePadded<Lease<AtomicBool>>,
    /// Frame bytes taken by the write-behind since the log was opened.
    pub(super) bytes_out: AtomicU64,
    pub(super) tail: Tail,
    pub(super) chain: Chain,
    pub(super) written: Watermark,
    pub(super) durable: Watermark,
    /// The baton of the write-behind.
    pub(super) drain: Mutex<Drain>,
    /// Whose turn it is to flush for all who wait (group commit).
    pub(super) turns: Turns,
    /// Held while a flush runs, so that its end can be waited for.
    pub(super) flushing: Mutex<()>,
    /// Whether the flush thread has been asked and has not come yet.
    pub(super) flush_scheduled: Mutex<bool>,
    /// Set at the end of the log or of the topic; read under the baton and under the flush lock.
    pub(super) ended: AtomicBool,
}

/// Settings that appends look at, kept where that costs a load: a lock here is a fifth of an append.
pub(super) struct Limits {
    pub(super) segment_bytes: AtomicU64,
    pub(super) max_record_bytes: AtomicU32,
    /// Whether records carry the time of their append.
    pub(super) stamps: AtomicBool,
}

impl Limits {
    fn new(settings: &Settings) -> Self {
        let limits = Limits {
            segment_bytes: AtomicU64::default(),
            max_record_bytes: AtomicU32::default(),
            stamps: AtomicBool::default(),
        };
        limits.set(settings);
        limits
    }

    fn set(&self, settings: &Settings) {
        self.segment_bytes.store(settings.segment_bytes, Ordering::Relaxed);
        self.max_record_bytes.store(settings.max_record_bytes, Ordering::Relaxed);
        self.stamps.store(settings.timestamp_type == TimestampType::Append, Ordering::Relaxed);
    }
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
            origin: engine.pool.origin(),
            engine,
            limits: Limits::new(&settings),
            settings: RwLock::new(settings),
            append: CachePadded::new(Mutex::new(AppendState {
                head: Head {
                    writer: None,
                    next_offset: opened.end,
                    epoch: opened.epoch,
                    last_timestamp: opened.last_timestamp,
                    segment_used: (!opened.segment_bases.is_empty()).then_some(opened.segment_used),
                    slot: 0,
                },
                leased: false,
                out: false,
                segment_bases: opened.segment_bases,
                queued: false,
                held: false,
                end_seen: 0,
                refuse: None,
                waiters: Vec::new(),
                spare: Vec::new(),
            })),
            start: AtomicU64::new(opened.start),
            opened_at: opened.end,
            end: CachePadded::new(Ends { offset: AtomicU64::new(opened.end), bytes_in: AtomicU64::new(0) }),
            lease: CachePadded::default(),
            bytes_out: AtomicU64::new(0),
            tail: Tail::new(),
            chain: opened.chain,
            written: Watermark::new(opened.end),
            durable: Watermark::new(opened.durable),
            drain: Mutex::new(drain),
            turns: Turns::default(),
            flushing: Mutex::default(),
            flush_scheduled: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    #[inline]
    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether it is a partition of an internal topic.
    #[inline]
    pub(crate) fn is_internal(&self) -> bool {
        self.internal
    }

    #[inline]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Whether what was committed in `epoch` up to the offset `to` was lost: the record before `to` was appended in a later
    /// one, when a loss of power had taken the one that was committed, and its offset was given again.
    pub(crate) fn was_cut_off(&self, to: u64, epoch: u32, now: u32) -> Result<bool> {
        match to.checked_sub(1) {
            Some(last) if last >= self.opened_at => Ok(epoch < now),
            Some(last) => Ok(self.chain.epoch_of(last)?.is_some_and(|appended| epoch < appended)),
            None => Ok(false),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        *self.settings.read()
    }

    pub(crate) fn alter(&self, settings: Settings) {
        let mut all = self.settings.write();
        self.limits.set(&settings);
        *all = settings;
    }

    /// Adds to an error the name of this partition.
    pub(super) fn here(&self, error: Error) -> Error {
        error.with_partition(Arc::clone(&self.identity.tp.topic), self.identity.tp.partition())
    }

    // ---- appends (their path stands in `append`) ---------------------------------------------------------

    /// Tells of an append whoever is to be told, after the lock was let go: a wake-up is a system call, and the next
    /// append need not wait for it. Who registered before the append is on the list; who comes later sees the record.
    #[cold]
    pub(super) fn tell(&self, mut state: MutexGuard<'_, AppendState>) {
        let enqueue = self.engine.is_durable() && !std::mem::replace(&mut state.queued, true);
        let spare = std::mem::take(&mut state.spare);
        let mut waiters = std::mem::replace(&mut state.waiters, spare);
        drop(state);
        if enqueue {
            self.enqueue();
        }
        if !waiters.is_empty() {
            waiters.drain(..).for_each(|waiter| waiter.ring());
            self.append.lock().spare = waiters;
        }
    }

    /// Tells the engine that there is something to write.
    pub(super) fn enqueue(&self) {
        if let Some(me) = self.me.upgrade() {
            self.engine.enqueue(me);
        }
    }

    /// The append lock, with an appender that does without it standing still as well.
    pub(super) fn hold(&self) -> MutexGuard<'_, AppendState> {
        let state = self.append.lock();
        if state.out {
            let backoff = Backoff::new();
            self.lease.stop(|| backoff.snooze());
        }
        state
    }

    /// Gets a chunk that has room for `len` bytes of frames; false where there is none now.
    pub(super) fn take_chunk(&self, state: &mut AppendState, len: usize) -> Result<bool> {
        let want = Want {
            topic_id: self.identity.topic_id,
            partition: self.identity.tp.partition(),
            epoch: state.head.epoch,
            base_offset: state.head.next_offset,
            min_len: len,
            class_hint: CLASSES[state.head.slot],
            internal: self.internal,
        };
        loop {
            if let Some(writer) = self.engine.pool.take(&want).map_err(|e| self.here(e))? {
                if self.engine.is_durable() && self.engine.pool.is_cold(writer.chunk().capacity()) {
                    self.engine.populate();
                }
                self.tail.push(Arc::clone(writer.chunk()));
                // The successor is in the tail before the old one is sealed: who reads to a seal finds it there.
                if let Some(old) = state.head.writer.replace(writer) {
                    old.seal();
                }
                state.head.slot = (state.head.slot + 1).min(CLASSES.len() - 1);
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

    // ---- the read path ---------------------------------------------------------------------------------

    /// The first offset held.
    pub(crate) fn start_offset(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// The offset that the next record will get.
    pub(crate) fn end_offset(&self) -> u64 {
        self.end.offset.load(Ordering::Acquire)
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

    /// Frame bytes that were appended while the log is open and are not in a segment file yet.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        if !self.engine.is_durable() {
            return 0;
        }
        let bytes_in = self.end.bytes_in.load(Ordering::Relaxed);
        bytes_in.saturating_sub(self.bytes_out.load(Ordering::Relaxed))
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
        self.read(limit, cursor, |cursor, store| cursor.fetch(store, max_records, max_bytes))
    }

    /// Has a cursor `read` from what there is, of which nothing at or above `limit` may be shown.
    pub(crate) fn read<T>(
        &self,
        limit: u64,
        cursor: &mut Cursor,
        read: impl FnOnce(&mut Cursor, &Store<'_>) -> Result<T>,
    ) -> Result<T> {
        // What a fork sees of the hot tail is what the process that owns it makes of it.
        self.origin.check()?;
        let store = Store {
            identity: &self.identity,
            tail: &self.tail,
            chain: &self.chain,
            codecs: &self.engine.codecs,
            start: self.start_offset(),
            limit,
        };
        read(cursor, &store).map_err(|e| {
            if let Some(gone) = self.deleted() {
                return gone;
            }
            let offset = e.offset().unwrap_or(cursor.position());
            self.here(e).at_offset(offset)
        })
    }

    /// What is said of a partition whose topic was deleted: its files are gone, except for those that are being read.
    fn deleted(&self) -> Option<Error> {
        let ended = self.ended.load(Ordering::Acquire);
        let refuse = if ended { self.append.lock().refuse.clone() } else { None };
        refuse.filter(|e| e.kind() == ErrorKind::UnknownTopicOrPartition)
    }

    /// Has `signal` rung when there is something at or above `position`; true where there is already.
    ///
    /// Fails where nothing will ever come: the partition has failed, or is gone. A full disk passes.
    pub(crate) fn wait_for_records(&self, position: u64, signal: &Arc<Signal>) -> Result<bool> {
        self.origin.check()?;
        let mut state = self.hold();
        if self.end_offset() > position {
            return Ok(true);
        }
        match &state.refuse {
            Some(error) if !error.passes() => return Err(error.clone()),
            _ => register(&mut state.waiters, signal),
        }
        Ok(false)
    }

    /// The same for what survives a power cut.
    pub(crate) fn wait_for_durable(&self, position: u64, signal: &Arc<Signal>) -> Result<bool> {
        self.origin.check()?;
        if self.engine.is_durable() {
            self.durable.ring_past(position, signal)
        } else {
            self.wait_for_records(position, signal)
        }
    }

    /// The first record in offset order, at or after the start, whose timestamp is not before `target`
    /// (Kafka: `offsetsForTimes`).
    pub(crate) fn offset_for_time(&self, target: Timestamp) -> Result<Option<(u64, Timestamp)>> {
        self.origin.check()?;
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

    /// The segments that nothing is appended to any more.
    pub(crate) fn sealed_segments(&self) -> Vec<Arc<Segment>> {
        let mut segments = self.chain.segments().to_vec();
        segments.pop();
        segments
    }

    /// The first record that has the largest timestamp.
    pub(crate) fn max_timestamp(&self) -> Result<Option<(u64, Timestamp)>> {
        self.origin.check()?;
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
