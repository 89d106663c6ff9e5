//! A partition's side of the write-behind: steps under the baton, flushes, and the end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::core::PartitionCore;
use crate::partition::drain::{Drain, Progress, SinkContext};
use crate::partition::event::Event;
use crate::partition::settings::{Settings, SyncPolicy};
use crate::partition::watermarks::OnReached;
use crate::partition::write_behind::{Duty, Stand, closed};
use crate::segment::reader::Segment;

/// What a flush writes at a time under the baton: appends hear of the room that was made after each piece.
const FLUSH_QUANTUM: usize = 1 << 20;
/// How much of the chunk at hand is made ready for appends after a step, beside twice of what the step took.
const AHEAD: usize = 32 << 10;
/// How long a block lingers at most where records are counted until the next flush.
const COUNT_LINGER: Duration = Duration::from_millis(5);

impl PartitionCore {
    fn drain_locked(&self, drain: &mut Drain, quantum: usize, whole: bool) -> Result<Progress> {
        let mut progress = Progress::default();
        let Some(directory) = &self.engine.directory else {
            progress.drained = true;
            return Ok(progress);
        };
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
        let before = drain.settled();
        let step = drain.step(&ctx, &self.tail, quantum, whole, &mut progress);
        self.bytes_out.fetch_add(progress.bytes as u64, Ordering::Relaxed);
        if drain.settled() > before {
            self.written.advance(drain.settled(), |call, result| self.engine.call(call, result));
        }
        for chunk in progress.released.drain(..) {
            let me: Weak<dyn Duty> = self.me.clone();
            let base_offset = chunk.base_offset();
            // Before anybody may evict it: one that is evicted and held counts as pinned, and a further file is made in its place.
            drop(chunk);
            self.engine.evictable(me, base_offset);
        }
        step?;
        Ok(progress)
    }

    /// Handles an error of the write-behind: a full disk passes, and so does a want of file descriptors; anything
    /// else is for ever.
    fn write_failed(&self, error: Error) -> Stand {
        let error = self.here(error);
        if error.passes() {
            // What was closed stays closed.
            self.hold().refuse.get_or_insert_with(|| error.clone());
            return Stand::Full(error);
        }
        self.fail(&error);
        Stand::Failed
    }

    /// Stops this partition for good and tells everyone who waits.
    pub(crate) fn fail(&self, error: &Error) {
        let before = {
            let mut state = self.hold();
            state.waiters.drain(..).for_each(|w| w.ring());
            state.refuse.replace(error.clone())
        };
        if before.is_none_or(|before| before.passes()) {
            self.engine
                .tell(Event::PartitionFailed { partition: self.identity.tp.clone(), error: error.clone() });
        }
        self.written.fail(error, |call, result| self.engine.call(call, result));
        self.durable.fail(error, |call, result| self.engine.call(call, result));
    }

    /// After a write went through: whatever the full disk kept out may come in again.
    fn write_went_through(&self) {
        let mut state = self.append.lock();
        if state.refuse.as_ref().is_some_and(Error::passes) {
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
        self.origin.check()?;
        let Some(mut turn) = self.turns.take(target, || self.durable_offset()) else { return Ok(()) };
        let _flushing = self.flushing.lock();
        if self.durable_offset() >= target {
            return Ok(());
        }
        if let Some(error) = self.durable.failure() {
            return Err(error);
        }
        if self.ended.load(Ordering::Acquire) {
            return Err(closed());
        }
        let (written, segments) = self.write_to(target)?;
        turn.reaches(written);
        segments.iter().try_for_each(|s| s.flush().map(drop)).map_err(|e| self.flush_failed(e))?;
        self.flushed_to(written);
        Ok(())
    }

    /// Writes everything appended so far, for a flush that somebody else does; `None` where all is durable.
    fn write_for_flush(&self) -> Result<Option<(u64, Vec<Arc<Segment>>)>> {
        // Before the end is looked at: what is appended from now on needs a flush of its own.
        *self.flush_scheduled.lock() = false;
        let end = self.end_offset();
        if self.durable_offset() >= end {
            return Ok(None);
        }
        if let Some(error) = self.durable.failure() {
            return Err(error);
        }
        if self.ended.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.write_to(end).map(Some)
    }

    /// Writes what is below `target`; returns how far it came, and what a flush must cover.
    fn write_to(&self, target: u64) -> Result<(u64, Vec<Arc<Segment>>)> {
        *self.flush_scheduled.lock() = false;
        let mut drain = self.drain.lock();
        loop {
            match self.drain_locked(&mut drain, FLUSH_QUANTUM, true) {
                Ok(progress) if progress.drained || drain.settled() >= target => break,
                Ok(_) => {}
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
        let written = (drain.settled(), drain.sink().unflushed().to_vec());
        drop(drain);
        self.write_went_through();
        Ok(written)
    }

    fn flush_failed(&self, error: Error) -> Error {
        let error = self.here(error);
        // Where the folder could not be opened for its flush, the segment stays among the unflushed.
        if !error.is_out_of_descriptors() {
            self.fail(&error);
        }
        error
    }

    fn flushed_to(&self, written: u64) {
        self.drain.lock().sink().forget_flushed();
        self.durable.advance(written, |call, result| self.engine.call(call, result));
    }

    /// For tests: writes everything, and flushes nothing.
    #[cfg(test)]
    pub(crate) fn write_all(&self) -> Result<()> {
        self.drain_locked(&mut self.drain.lock(), usize::MAX, true).map(drop)
    }

    /// For tests: where the last segment ends.
    #[cfg(test)]
    pub(crate) fn segment_end(&self) -> u64 {
        self.chain.segments().last().map_or(0, |s| s.written())
    }

    /// Has the engine try again what could not be written.
    fn wake_engine(&self) {
        let mut state = self.append.lock();
        if !state.queued {
            state.queued = true;
            drop(state);
            self.enqueue();
        }
    }

    /// Waits until everything below `target` is in segment files.
    pub(crate) fn wait_written(&self, target: u64, deadline: Deadline) -> Result<()> {
        if self.written_offset() >= target {
            return Ok(());
        }
        self.origin.check()?;
        self.written.wait(target, deadline).map_err(|e| self.here(e))
    }

    /// Waits until everything below `target` is durable, flushing where nobody else does.
    pub(crate) fn wait_durable(&self, target: u64, deadline: Deadline) -> Result<()> {
        if self.durable_offset() >= target {
            return Ok(());
        }
        if deadline.remaining().is_none() {
            return self.flush_to(target);
        }
        self.origin.check()?;
        let me: Weak<dyn Duty> = self.me.clone();
        self.engine.flush_later(me, Duration::ZERO);
        self.durable.wait(target, deadline).map_err(|e| self.here(e))
    }

    /// Calls `then` once everything below `target` is durable.
    pub(crate) fn when_durable(&self, target: u64, then: OnReached) {
        if let Err(forked) = self.origin.check() {
            return then(Err(forked));
        }
        if self.durable_offset() >= target {
            return self.engine.call(then, Ok(()));
        }
        self.durable.when(target, then, |call, result| self.engine.call(call, result));
        let me: Weak<dyn Duty> = self.me.clone();
        self.engine.flush_later(me, Duration::ZERO);
    }

    /// For the end of a log: seals the last segment; false where that changed nothing.
    fn seal(&self) -> Result<bool> {
        let mut drain = self.drain.lock();
        // Whoever waited for this may have given up, and then the files may be somebody else's already.
        if self.ended.load(Ordering::Acquire) {
            return Err(closed());
        }
        drain.sink().seal().map_err(|e| self.here(e))
    }

    /// Refuses all further appends.
    pub(crate) fn close(&self, error: &Error) {
        let mut state = self.hold();
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

    /// Lets go of all memory and files of a partition that was ended and whose topic was deleted: only who reads a segment
    /// at this moment can go on with it.
    pub(crate) fn discard(&self) {
        // An appender that has it lets go of it when it comes by again.
        self.append.lock().head.writer = None;
        self.drain.lock().discard();
        while let Some(first) = self.tail.first_offset() {
            if self.tail.evict(first).is_none() {
                break;
            }
        }
        // Whoever has one beside the chain is a reader that stands in it.
        for segment in self.chain.segments().iter().filter(|s| Arc::strong_count(s) > 1) {
            // Where that fails the reader will be told that the topic is gone.
            let _ = segment.keep_readable();
        }
    }
}

/// Makes everything that was appended to these partitions so far durable, and seals their last segments where the log ends.
/// Where one of them cannot be written, the others are flushed all the same, and its error is the answer.
///
/// Their files are flushed together, which for many takes a fraction of the time.
pub(crate) fn flush_all(partitions: &[Arc<PartitionCore>], ends: bool) -> Result<()> {
    // All locks in one order, and each once; who flushes a single partition has no other.
    let mut in_order: Vec<_> = partitions.iter().filter(|p| p.engine.is_durable()).collect();
    in_order.sort_by_key(|p| Arc::as_ptr(p));
    in_order.dedup_by_key(|p| Arc::as_ptr(p));
    let _flushing: Vec<_> = in_order.iter().map(|p| p.flushing.lock()).collect();
    let mut written = Vec::new();
    let mut segments = Vec::new();
    let mut failed = Ok(());
    for partition in in_order {
        let dirty = partition.write_for_flush().and_then(|found| {
            let dirty = found.is_some();
            if let Some((to, unflushed)) = found {
                written.push((partition, to));
                segments.extend(unflushed);
            }
            if ends && partition.seal()? && !dirty {
                segments.extend(partition.chain.segments().last().cloned());
            }
            Ok(())
        });
        failed = failed.and(dirty);
    }
    Segment::flush_all(&segments).inspect_err(|e| {
        written.iter().for_each(|(partition, _)| drop(partition.flush_failed(e.clone())));
    })?;
    written.iter().for_each(|(partition, to)| partition.flushed_to(*to));
    failed
}

impl Duty for PartitionCore {
    fn drain(&self, quantum: usize, whole: bool) -> Stand {
        let settings = self.settings();
        self.schedule_flush(settings.sync_policy);
        let whole = whole || settings.block_linger.is_zero();
        let (result, helped, place) = {
            let mut drain = self.drain.lock();
            let helped = drain.moved_since_visit();
            let result = self.drain_locked(&mut drain, quantum, whole);
            drain.visit();
            (result, helped, drain.place())
        };
        match result {
            Err(e) if e.kind() == ErrorKind::Closed => Stand::Failed,
            Err(e) => self.write_failed(e),
            Ok(progress) => {
                self.write_went_through();
                if !progress.caught_up {
                    return Stand::More;
                }
                if let Some((chunk, at)) = place.filter(|_| progress.bytes > 0) {
                    chunk.warm(at, AHEAD + 2 * progress.bytes);
                }
                // Who waits for the disk writes by himself, and will again: the engine need not be woken for each.
                let (moved, linger) = (progress.bytes > 0 || helped, linger(&settings));
                if progress.drained { Stand::Written { moved, linger } } else { Stand::Linger(linger) }
            }
        }
    }

    fn rest(&self) -> bool {
        // Under the append lock, so that an append either is seen here or enqueues anew.
        let mut state = self.hold();
        // Whoever has the baton now may hold it for as long as a disk takes: appends do not wait for that.
        let Some(mut drain) = self.drain.try_lock() else { return false };
        if drain.settled() < self.end_offset() {
            return false;
        }
        drain.give_memory_back();
        state.queued = false;
        drop(drain);
        drop(state);
        // What came in since the last step began was not seen by it.
        self.schedule_flush(self.settings().sync_policy);
        true
    }

    fn flush(&self) -> Result<()> {
        // Before the end is looked at, and also where somebody else has flushed so far: what is appended from now on
        // needs a flush of its own.
        *self.flush_scheduled.lock() = false;
        self.flush_to(self.end_offset())
    }

    fn partition(&self) -> Option<Arc<PartitionCore>> {
        self.me.upgrade()
    }

    fn evict(&self, base_offset: u64) {
        // Frames are written in order, so what is older is written as well. The engine may hear of two chunks in
        // another order than that of their offsets: of one that was given up while idle, and of its successor.
        while let Some(first) = self.tail.first_offset().filter(|first| *first <= base_offset) {
            if self.tail.evict(first).is_none() {
                break;
            }
        }
    }

    fn retire(&self, if_quiet: bool) -> usize {
        let me: Weak<dyn Duty> = self.me.clone();
        let Some(mut state) = self.append.try_lock() else {
            self.engine.holds(me);
            return 0;
        };
        let end = self.end_offset();
        let quiet = std::mem::replace(&mut state.end_seen, end) == end;
        // An appender's chunk is its own.
        if state.out || self.written.get() < end || if_quiet && !quiet {
            self.engine.holds(me);
            return 0;
        }
        state.held = false;
        let Some(writer) = state.head.writer.take() else { return 0 };
        state.head.slot = 0;
        let chunk = writer.seal();
        drop(state);
        self.drain.lock().let_go(chunk.base_offset());
        self.engine.evictable(me, chunk.base_offset());
        chunk.capacity()
    }

    fn poison(&self, error: &Error) {
        self.fail(&self.here(error.clone()));
    }
}

impl PartitionCore {
    fn schedule_flush(&self, policy: SyncPolicy) {
        let wait = match policy {
            SyncPolicy::Never => return,
            // A record may have waited for a step as long as its block lingers.
            SyncPolicy::Every(interval) => interval / 2,
            SyncPolicy::EveryRecords(n) => {
                if self.end_offset() - self.durable_offset() < n {
                    return;
                }
                Duration::ZERO
            }
        };
        let mut scheduled = self.flush_scheduled.lock();
        if !*scheduled && self.end_offset() > self.durable_offset() {
            *scheduled = true;
            let me: Weak<dyn Duty> = self.me.clone();
            self.engine.flush_later(me, wait);
        }
    }
}

/// How long a block may wait for more. Appends meanwhile do not wake the engine, and it is the engine that sees to
/// flushes, so that it must come by often enough for these.
fn linger(settings: &Settings) -> Duration {
    match settings.sync_policy {
        SyncPolicy::Never => settings.block_linger,
        SyncPolicy::Every(interval) => settings.block_linger.min(interval / 2),
        SyncPolicy::EveryRecords(_) => settings.block_linger.min(COUNT_LINGER),
    }
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
