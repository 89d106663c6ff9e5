//! The engine of a log: the threads that drive the write-behind, flushes and callbacks, and what all
//! partitions share.
//!
//! Threads only *drive*: the work itself is a step function under each partition's own baton ([`Duty`]), so
//! that a caller who waits for the disk can do it as well. All threads sleep when there is nothing to do.

use std::cell::Cell;
use std::collections::{BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use crate::clock::{Clock, Deadline};
use crate::codec::Codecs;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::core::PartitionCore;
use crate::partition::event::{Event, Hook};
use crate::partition::settle::flush_all;
use crate::partition::watermarks::OnReached;
use crate::storage::arena::Pool;
use crate::storage::directory::Directory;
use crate::storage::threads;

/// How much of one partition is written before the next has its turn.
const QUANTUM: usize = 1 << 20;
/// How long a full disk is left alone before it is tried again, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(320);
/// A partition that was appended to is looked at again and again until this long nothing came, so that its appends
/// need not wake the engine: that costs them a system call, and an interrupt on another processor.
const DOZE: Duration = Duration::from_millis(200);
/// That many partitions at most, and none that wants to be looked at more often than this.
const DOZERS: usize = 32;
const DOZE_LOOK_MIN: Duration = Duration::from_millis(2);
/// How much too early a dozing partition may be looked at, together with another.
const DOZE_SLACK: Duration = Duration::from_millis(1);
/// How long a wait for room sleeps at most before it looks again: readers let go of memory silently.
const ROOM_LOOK: Duration = Duration::from_millis(10);
/// How often it is looked whether a thread has ended: most do at once.
const STOP_LOOK_MIN: Duration = Duration::from_micros(10);
const STOP_LOOK_MAX: Duration = Duration::from_micros(200);

/// How a partition stands after a step.
#[derive(Debug)]
pub(crate) enum Stand {
    /// Everything is written, as far as the step saw.
    Written {
        /// Whether there was anything to take.
        moved: bool,
        /// How long what comes next may wait.
        linger: Duration,
    },
    /// There is more to write now.
    More,
    /// There is less than a block; it is to be written when this long has passed.
    Linger(Duration),
    /// It cannot be written now, because the disk is full.
    Full(Error),
    /// It can never be written again; waiters were told.
    Failed,
}

/// How many partitions are asked for their chunks at a time, and how many bytes are enough: one slot of the largest.
const RETIRE_LOOKS: usize = 1024;
const RETIRE_ENOUGH: usize = 4 << 20;
/// How often partitions are asked whether they have been quiet.
const SWEEP: Duration = Duration::from_secs(1);
/// From so many partitions on that are due at once they are flushed together: fewer have their files flushed one by one
/// anyway, and then nobody waits for the files of others.
const TOGETHER: usize = 64;

/// What the engine can ask of a partition. Every call may come from any thread.
pub(crate) trait Duty: Send + Sync {
    /// Moves frames from the hot tail to segment files; with `whole`, a block that is not full too.
    fn drain(&self, quantum: usize, whole: bool) -> Stand;
    /// Has the partition come again by itself with the next append; false where there is something to write already.
    fn rest(&self) -> bool;
    /// Makes everything appended so far durable.
    fn flush(&self) -> Result<()>;
    /// The partition itself, for what is done to many at once.
    fn partition(&self) -> Option<Arc<PartitionCore>>;
    /// Takes a written chunk out of the hot tail, and what is older with it.
    fn evict(&self, base_offset: u64);
    /// Gives up the chunk that is appended to, if everything in it is written, and with `if_quiet` only if nothing was
    /// appended since it was last asked so; says how long it was.
    fn retire(&self, if_quiet: bool) -> usize;
    /// Says that a thread of the engine panicked while it worked on this partition.
    fn poison(&self, error: &Error);
}

/// What all partitions of a log share.
pub(crate) struct Engine {
    pub(crate) pool: Arc<Pool>,
    pub(crate) codecs: Codecs,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where segments go; none for an in-memory log.
    pub(crate) directory: Option<Arc<Directory>>,
    /// How long an append may wait for room unless it says otherwise.
    pub(crate) max_block: Duration,
    work: Mutex<Work>,
    work_came: Condvar,
    flushes: Mutex<Flushes>,
    flush_came: Condvar,
    /// Chunks whose every frame is written, oldest first.
    evictable: Mutex<VecDeque<(Weak<dyn Duty>, u64)>>,
    /// Partitions that hold a chunk to append to, oldest first.
    holders: Mutex<VecDeque<Weak<dyn Duty>>>,
    room: Mutex<u64>,
    room_came: Condvar,
    /// The full disk, while it is full.
    trouble: Mutex<Option<Error>>,
    /// Set by the crash hook of tests: threads end where they are, and nothing is written any more.
    halted: AtomicBool,
    callbacks: Mutex<Option<Sender<Due>>>,
    hook: OnceLock<Hook>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    alive: Arc<()>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct Work {
    dirty: VecDeque<Arc<dyn Duty>>,
    asleep: bool,
    /// Somebody has begun to fill memory that has no pages yet.
    populate: bool,
    /// Somebody is out of room: write what lingers, and give up idle chunks.
    pressure: bool,
    stop: bool,
}

#[derive(Default)]
struct Flushes {
    due: BinaryHeap<DueFlush>,
    stop: bool,
}

impl Flushes {
    fn take_due(&mut self) -> Option<DueFlush> {
        self.due.peek().filter(|first| first.at.passed())?;
        self.due.pop()
    }
}

/// Ordered so that the earliest is the greatest, as a heap wants it.
struct DueFlush {
    at: Deadline,
    id: u64,
    duty: Weak<dyn Duty>,
}

impl PartialEq for DueFlush {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.id) == (other.at, other.id)
    }
}

impl Eq for DueFlush {}

impl PartialOrd for DueFlush {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DueFlush {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.id).cmp(&(self.at, self.id))
    }
}

/// A callback and what it is told.
type Due = (OnReached, Result<()>);

/// A partition to be looked at later: it waits for more than it has, which is less than a block, or for room on
/// the disk, or it dozes.
struct Lingering {
    until: Deadline,
    retry: Duration,
    /// It waits because the disk is full.
    full: bool,
    /// It has nothing to write, and is at rest if nothing comes until then.
    dozes: Option<Deadline>,
    duty: Arc<dyn Duty>,
}

impl Lingering {
    fn new(duty: Arc<dyn Duty>) -> Self {
        let until = Deadline::after(Duration::MAX);
        Lingering { until, retry: RETRY_MIN, full: false, dozes: None, duty }
    }

    fn is_due(&self) -> bool {
        let slack = if self.dozes.is_some() { DOZE_SLACK } else { Duration::ZERO };
        self.until.is_within(slack)
    }
}

/// Ordered so that the earliest is the greatest, as a heap wants it.
impl Ord for Lingering {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.until.cmp(&self.until)
    }
}

impl PartialOrd for Lingering {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Lingering {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Lingering {}

/// The partitions to be looked at later, and how many of them there are of each kind that counts.
#[derive(Default)]
struct Lingerers {
    heap: BinaryHeap<Lingering>,
    full: usize,
    dozers: usize,
}

impl Lingerers {
    /// When the first is to be looked at.
    fn first(&self) -> Option<Deadline> {
        self.heap.peek().map(|first| first.until)
    }

    fn push(&mut self, item: Lingering) {
        self.full += usize::from(item.full);
        self.dozers += usize::from(item.dozes.is_some());
        self.heap.push(item);
    }

    /// The next that is due, or under `pressure` the next.
    fn take_due(&mut self, pressure: bool) -> Option<Lingering> {
        let first = self.heap.peek().filter(|first| pressure || first.is_due())?;
        self.full -= usize::from(first.full);
        self.dozers -= usize::from(first.dozes.is_some());
        self.heap.pop()
    }
}

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Fails inside a callback, where waiting for what only later callbacks or writes can bring is a deadlock.
pub(crate) fn refuse_in_callback(call: &str) -> Result<()> {
    if IN_CALLBACK.get() {
        return Err(Error::new(ErrorKind::IllegalState, format!("{call} would block inside a callback")));
    }
    Ok(())
}

impl Engine {
    /// An engine at rest; [`Engine::start`] gives it its threads.
    pub(crate) fn new(
        pool: Arc<Pool>,
        codecs: Codecs,
        clock: Arc<dyn Clock>,
        directory: Option<Arc<Directory>>,
        max_block: Duration,
    ) -> Arc<Self> {
        Arc::new(Engine {
            pool,
            codecs,
            clock,
            directory,
            max_block,
            work: Mutex::default(),
            work_came: Condvar::new(),
            flushes: Mutex::default(),
            flush_came: Condvar::new(),
            evictable: Mutex::default(),
            holders: Mutex::default(),
            room: Mutex::new(0),
            room_came: Condvar::new(),
            trouble: Mutex::new(None),
            halted: AtomicBool::new(false),
            callbacks: Mutex::new(None),
            hook: OnceLock::new(),
            threads: Mutex::default(),
            alive: Arc::new(()),
            next_id: AtomicU64::new(0),
        })
    }

    /// Whether what is appended is written to a directory.
    #[inline]
    pub(crate) fn is_durable(&self) -> bool {
        self.directory.is_some()
    }

    /// Starts the threads that write and flush. An in-memory log needs none.
    pub(crate) fn start(self: &Arc<Self>) -> Result<()> {
        if self.is_durable() {
            self.spawn("tapelog-write", Engine::write_loop)?;
            self.spawn("tapelog-flush", Engine::flush_loop)?;
        }
        Ok(())
    }

    fn spawn(self: &Arc<Self>, name: &str, body: fn(&Engine)) -> Result<()> {
        let engine = Arc::clone(self);
        let alive = Arc::clone(&self.alive);
        let thread = threads::spawn(name, move || {
            body(&engine);
            drop(alive);
        })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Says that a partition has something to write. It says so once, until a step finds it idle.
    ///
    /// Once the engine was stopped nobody would take it out again, and as a partition keeps its engine both would be kept
    /// for ever.
    pub(crate) fn enqueue(&self, duty: Arc<dyn Duty>) {
        let mut work = self.work.lock();
        if work.stop {
            return drop(work);
        }
        work.dirty.push_back(duty);
        if work.asleep {
            work.asleep = false;
            self.work_came.notify_one();
        }
    }

    /// Has the write-behind make pages for memory that appends will come to soon, when it comes by: who appends is
    /// not kept for that.
    pub(crate) fn populate(&self) {
        self.work.lock().populate = true;
    }

    fn write_loop(&self) {
        let mut lingering = Lingerers::default();
        let mut sweep = Deadline::after(SWEEP);
        let mut batch: Vec<Lingering> = Vec::new();
        loop {
            let pressure = {
                let mut work = self.work.lock();
                loop {
                    if work.stop {
                        return;
                    }
                    let due = lingering.first();
                    if std::mem::take(&mut work.populate) {
                        drop(work);
                        self.pool.populate();
                        work = self.work.lock();
                        continue;
                    }
                    if !work.dirty.is_empty() || work.pressure || due.is_some_and(Deadline::passed) {
                        break;
                    }
                    work.asleep = true;
                    match due.and_then(Deadline::remaining) {
                        Some(left) => drop(self.work_came.wait_for(&mut work, left)),
                        None => self.work_came.wait(&mut work),
                    }
                    work.asleep = false;
                }
                batch.extend(work.dirty.drain(..).map(Lingering::new));
                std::mem::take(&mut work.pressure)
            };
            let fresh = batch.len();
            batch.extend(std::iter::from_fn(|| lingering.take_due(pressure)));
            for (i, mut item) in batch.drain(..).enumerate() {
                let whole = pressure || i >= fresh;
                match self.guarded(&item.duty, |duty| duty.drain(QUANTUM, whole)) {
                    Some(Stand::Failed) | None => {}
                    Some(Stand::More) => self.enqueue(item.duty),
                    Some(Stand::Linger(wait)) => {
                        let until = Deadline::after(wait);
                        lingering.push(Lingering { until, ..Lingering::new(item.duty) });
                    }
                    Some(Stand::Written { moved, linger }) => {
                        let rests = item.dozes.filter(|_| !moved).unwrap_or_else(|| Deadline::after(DOZE));
                        if linger >= DOZE_LOOK_MIN && lingering.dozers < DOZERS && !rests.passed() {
                            let (until, dozes) = (Deadline::after(linger), Some(rests));
                            lingering.push(Lingering { until, dozes, ..Lingering::new(item.duty) });
                        } else {
                            self.rest(item.duty);
                        }
                    }
                    Some(Stand::Full(error)) => {
                        self.trouble_begins(error);
                        item.until = Deadline::after(item.retry);
                        item.retry = (item.retry * 2).min(RETRY_MAX);
                        item.full = true;
                        lingering.push(item);
                    }
                }
            }
            // A partition may be gone, with its topic, before the disk had room for it.
            if lingering.full == 0 {
                self.trouble_over();
            }
            if pressure {
                self.retire_idle(false);
                self.room_made();
            } else if sweep.passed() {
                // Only while it is awake anyway: nobody needs the room before.
                sweep = Deadline::after(SWEEP);
                self.retire_idle(true);
            }
        }
    }

    /// Lets a partition go until its next append.
    fn rest(&self, duty: Arc<dyn Duty>) {
        if self.guarded(&duty, |duty| duty.rest()) == Some(false) {
            self.enqueue(duty);
        }
    }

    /// Runs a step and turns a panic in it into a failed partition.
    fn guarded<T>(&self, duty: &Arc<dyn Duty>, step: impl FnOnce(&dyn Duty) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| step(&**duty))) {
            Ok(done) => Some(done),
            Err(panic) => {
                let said = panic
                    .downcast_ref::<&str>()
                    .map(ToString::to_string)
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                duty.poison(&Error::new(ErrorKind::Internal, format!("the write-behind panicked: {said}")));
                None
            }
        }
    }

    /// Has partitions that are idle give up their chunks, until that is room enough for a while. Those that are busy go to
    /// the end of the queue; who still finds no room asks again, and others are looked at.
    fn retire_idle(&self, if_quiet: bool) {
        let (mut looks, mut room) = (self.holders.lock().len().min(RETIRE_LOOKS), 0);
        while looks > 0 && (if_quiet || room < RETIRE_ENOUGH) {
            let Some(holder) = self.holders.lock().pop_front() else { return };
            room += holder.upgrade().map_or(0, |holder| holder.retire(if_quiet));
            looks -= 1;
        }
    }

    fn flush_loop(&self) {
        loop {
            let mut due: Vec<Arc<dyn Duty>> = {
                let mut flushes = self.flushes.lock();
                loop {
                    if flushes.stop {
                        return;
                    }
                    match flushes.due.peek().map(|d| d.at.remaining()) {
                        Some(Some(left)) if left.is_zero() => break,
                        Some(Some(left)) => drop(self.flush_came.wait_for(&mut flushes, left)),
                        Some(None) | None => self.flush_came.wait(&mut flushes),
                    }
                }
                std::iter::from_fn(|| flushes.take_due()).filter_map(|due| due.duty.upgrade()).collect()
            };
            if due.len() >= TOGETHER {
                due = self.flush_together(due);
            }
            due.into_iter().for_each(|duty| self.flush_one(&duty));
        }
    }

    /// Flushes one partition. Who waits is told by the watermark, of success and of failure. A full disk is neither:
    /// somebody may be waiting for the disk to have room again.
    fn flush_one(&self, duty: &Arc<dyn Duty>) {
        if let Some(Err(e)) = self.guarded(duty, |duty| duty.flush())
            && e.passes()
        {
            self.flush_later(Arc::downgrade(duty), RETRY_MAX);
        }
    }

    /// Flushes many partitions at once; returns those that must be flushed each by itself: where one cannot be written, it
    /// alone is to hear of it.
    fn flush_together(&self, due: Vec<Arc<dyn Duty>>) -> Vec<Arc<dyn Duty>> {
        let partitions: Vec<_> = due.iter().filter_map(|duty| duty.partition()).collect();
        match catch_unwind(AssertUnwindSafe(|| flush_all(&partitions, false))) {
            Ok(Ok(())) => Vec::new(),
            Ok(Err(_)) | Err(_) => due,
        }
    }

    /// Has a partition flushed by the flush thread once `wait` has passed.
    pub(crate) fn flush_later(&self, duty: Weak<dyn Duty>, wait: Duration) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.flushes.lock().due.push(DueFlush { at: Deadline::after(wait), id, duty });
        self.flush_came.notify_one();
    }

    /// Says that all of a chunk is written: its memory may be taken when somebody needs it.
    pub(crate) fn evictable(&self, duty: Weak<dyn Duty>, base_offset: u64) {
        self.evictable.lock().push_back((duty, base_offset));
        self.room_made();
    }

    /// Says that a partition has taken a chunk to append to.
    pub(crate) fn holds(&self, duty: Weak<dyn Duty>) {
        self.holders.lock().push_back(duty);
    }

    /// Takes the oldest written chunk out of its partition's hot tail; false where there is none.
    pub(crate) fn evict_one(&self) -> bool {
        let oldest = self.evictable.lock().pop_front();
        match oldest {
            Some((duty, base_offset)) => {
                if let Some(duty) = duty.upgrade() {
                    duty.evict(base_offset);
                }
                true
            }
            None => false,
        }
    }

    /// Waits until there may be room for another chunk, or the deadline passed: then it fails with
    /// `BufferExhausted`, or with what keeps the write-behind from making room.
    pub(crate) fn wait_for_room(&self, deadline: Deadline) -> Result<()> {
        let mut room = self.room.lock();
        let before = *room;
        {
            let mut work = self.work.lock();
            if work.stop {
                return Err(closed());
            }
            work.pressure = true;
            self.work_came.notify_one();
        }
        if let Some(error) = &*self.trouble.lock() {
            return Err(error.clone());
        }
        // Where nothing is written any more there will be no room.
        self.directory.iter().try_for_each(|directory| directory.latch().check())?;
        if deadline.passed() {
            let message = "the memory budget is used up by records that are not written yet";
            return Err(Error::new(ErrorKind::BufferExhausted, message));
        }
        if *room == before {
            let look = deadline.remaining().map_or(ROOM_LOOK, |left| left.min(ROOM_LOOK));
            self.room_came.wait_for(&mut room, look);
        }
        Ok(())
    }

    fn room_made(&self) {
        *self.room.lock() += 1;
        self.room_came.notify_all();
    }

    fn trouble_begins(&self, error: Error) {
        let before = self.trouble.lock().replace(error.clone());
        if before.is_none() {
            self.tell(Event::WritesStalled { error });
        }
    }

    /// The disk has taken a write again.
    pub(crate) fn trouble_over(&self) {
        let before = self.trouble.lock().take();
        if before.is_some() {
            self.tell(Event::WritesResumed {});
        }
    }

    /// Has `hook` told of events from now on.
    pub(crate) fn on_event(self: &Arc<Self>, hook: Hook) {
        if self.hook.set(hook).is_ok() {
            let engine = Arc::downgrade(self);
            self.codecs.on_failure(Box::new(move |codec, reason| {
                if let Some(engine) = engine.upgrade() {
                    engine.tell(Event::CodecFailed { codec: codec.to_owned(), reason });
                }
            }));
        }
    }

    /// Tells the user, on the callback thread: who has something to tell may hold any lock.
    pub(crate) fn tell(&self, event: Event) {
        if let Some(hook) = self.hook.get() {
            let hook = Arc::clone(hook);
            self.call(Box::new(move |_| hook(&event)), Ok(()));
        }
    }

    /// Calls back on the callback thread, which is started on first use; callbacks run one after another, in
    /// the order of their promises, with no lock held.
    pub(crate) fn call(&self, call: OnReached, result: Result<()>) {
        let mut sender = self.callbacks.lock();
        let sender = sender.get_or_insert_with(|| {
            let (sender, receiver) = unbounded();
            let alive = Arc::clone(&self.alive);
            if let Ok(thread) = threads::spawn("tapelog-callback", move || {
                callback_loop(&receiver);
                drop(alive);
            }) {
                self.threads.lock().push(thread);
            }
            sender
        });
        // Without its thread a callback is dropped, which is what happens at the end of a log as well.
        let _ = sender.send((call, result));
    }

    /// Whether the crash hook has halted the engine.
    pub(crate) fn halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// For tests: as if the process died here. Nothing is written any more.
    #[cfg(test)]
    pub(crate) fn halt(&self) {
        self.halted.store(true, Ordering::Release);
    }

    /// Stops the threads and waits for them, at most until the deadline; false where one still runs.
    pub(crate) fn stop(&self, deadline: Deadline) -> bool {
        let unwritten = {
            let mut work = self.work.lock();
            work.stop = true;
            std::mem::take(&mut work.dirty)
        };
        self.work_came.notify_all();
        drop(unwritten);
        self.flushes.lock().stop = true;
        self.flush_came.notify_all();
        self.room_made();
        *self.callbacks.lock() = None;
        let me = std::thread::current().id();
        // Not under the lock: a callback that is waited for here may want it.
        let threads = std::mem::take(&mut *self.threads.lock());
        let mut wait = STOP_LOOK_MIN;
        for thread in threads {
            // A handle may be dropped by a callback, on the very thread to wait for.
            if thread.thread().id() == me {
                continue;
            }
            while !thread.is_finished() {
                if deadline.passed() {
                    return false;
                }
                std::thread::park_timeout(wait);
                wait = (wait * 2).min(STOP_LOOK_MAX);
            }
            let _ = thread.join();
        }
        true
    }
}

/// The error of everything that is asked of a log after its end.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the log was closed")
}

fn callback_loop(receiver: &Receiver<Due>) {
    IN_CALLBACK.set(true);
    for (call, result) in receiver {
        // A panic of the user's ends with the callback that it came from.
        let _ = catch_unwind(AssertUnwindSafe(|| call(result)));
    }
}

#[cfg(test)]
#[path = "write_behind_tests.rs"]
mod tests;
