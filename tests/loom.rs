//! The publication protocol under the model checker: every interleaving and every reordering that the memory
//! model allows, over small numbers of threads and appends.
//!
//! `publish.rs` and `lease.rs` are included as they stand, so what is checked is what runs. The bytes of a chunk
//! are cells that fail the model when a read and a write are not ordered. Each model has mutants, with one ordering weakened or
//! two steps exchanged, which the checker must refuse: a model that accepts a broken protocol proves nothing.

#![allow(clippy::unwrap_used)]

#[path = "../src/partition/lease.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod lease_flags;
#[path = "../src/storage/publish.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod publish;

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;

use lease_flags::{Flag, Lease};
use publish::{Counter, Orders, ReleaseAcquire, Word, commit, committed};

impl Word for AtomicUsize {
    type Value = usize;

    fn load(&self, order: Ordering) -> usize {
        AtomicUsize::load(self, order)
    }

    fn store(&self, value: usize, order: Ordering) {
        AtomicUsize::store(self, value, order);
    }
}

impl Word for AtomicU64 {
    type Value = u64;

    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }

    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }
}

struct RelaxedStore;
impl Orders for RelaxedStore {
    const STORE: Ordering = Ordering::Relaxed;
    const LOAD: Ordering = Ordering::Acquire;
}

struct RelaxedLoad;
impl Orders for RelaxedLoad {
    const STORE: Ordering = Ordering::Release;
    const LOAD: Ordering = Ordering::Relaxed;
}

/// What the checker says of a read and a write that nothing orders.
const RACE: &str = "Causality violation";
/// What it says when everybody sleeps.
const LOST: &str = "deadlock";

/// Explores `model`, which must hold.
fn holds(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Explores `model`, which must be found broken, and for the right reason.
fn is_refused(what: &str, because: &str, model: impl Fn() + Sync + Send + 'static) {
    static HOOK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = HOOK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Only this thread's panics are expected, and so silent.
    let expected = std::thread::current().id();
    let hook = std::sync::Arc::new(std::panic::take_hook());
    let others = hook.clone();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() != expected {
            others(info);
        }
    }));
    let refused = catch_unwind(AssertUnwindSafe(|| holds(model)));
    std::panic::set_hook(Box::new(move |info| hook(info)));
    let Err(payload) = refused else { panic!("the model accepts: {what}") };
    let said = payload.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(said.contains(because), "{what}: refused because of {said:?}");
}

/// A lock whose guards are forgotten when a model fails: the checker's own would panic again in their drop,
/// once its execution is gone, and take the process along.
struct Lock<T>(Mutex<T>);

struct Guard<'a, T>(ManuallyDrop<MutexGuard<'a, T>>);

impl<T> Lock<T> {
    fn new(value: T) -> Self {
        Lock(Mutex::new(value))
    }

    fn lock(&self) -> Guard<'_, T> {
        Guard(ManuallyDrop::new(self.0.lock().unwrap()))
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// A byte of a frame; 0 until it was filled.
struct Cell(UnsafeCell<u64>);

// SAFETY: loom's cell checks each access against all others; sharing it is what is being tested.
unsafe impl Sync for Cell {}
// SAFETY: as above.
unsafe impl Send for Cell {}

impl Cell {
    fn new() -> Cell {
        Cell(UnsafeCell::new(0))
    }

    fn fill(&self, value: u64) {
        // SAFETY: the checker fails the model before an unordered access gets here.
        self.0.with_mut(|p| unsafe { *p = value });
    }

    fn read(&self) -> u64 {
        // SAFETY: as above.
        self.0.with(|p| unsafe { *p })
    }
}

/// A chunk of three one-cell frames; the value of frame n is n + 1.
struct Chunk<O: Orders> {
    cells: [Cell; 3],
    published: Counter<AtomicUsize, O>,
}

impl<O: Orders> Chunk<O> {
    fn new() -> Self {
        Chunk { cells: [Cell::new(), Cell::new(), Cell::new()], published: Counter::new(AtomicUsize::new(0)) }
    }

    fn append(&self, from: usize, count: usize) {
        for at in from..from + count {
            self.cells[at].fill(at as u64 + 1);
        }
        self.published.publish(from + count);
    }

    /// Reads all that is published, as `Chunk::bytes` allows.
    fn check(&self) -> usize {
        let end = self.published.seen();
        for at in 0..end {
            assert_eq!(self.cells[at].read(), at as u64 + 1);
        }
        end
    }
}

// ---- One append, and several by writers that take turns under a lock.

fn append_one<O: Orders + 'static>() {
    let chunk = Arc::new(Chunk::<O>::new());
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let chunk = chunk.clone();
            thread::spawn(move || {
                let first = chunk.check();
                assert!(chunk.check() >= first, "the counter never falls");
            })
        })
        .collect();
    chunk.append(0, 1);
    readers.into_iter().for_each(|r| r.join().unwrap());
}

fn two_writers<O: Orders + 'static>() {
    let chunk = Arc::new(Chunk::<O>::new());
    let cursor = Arc::new(Lock::new(0usize));
    let spawn = |appends: usize| {
        let (chunk, cursor) = (chunk.clone(), cursor.clone());
        thread::spawn(move || {
            for _ in 0..appends {
                let mut at = cursor.lock();
                chunk.append(*at, 1);
                *at += 1;
            }
        })
    };
    let writers = [spawn(2), spawn(1)];
    chunk.check();
    writers.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!(chunk.check(), 3);
}

#[test]
fn readers_see_whole_appends() {
    holds(append_one::<ReleaseAcquire>);
    is_refused("publication without release", RACE, append_one::<RelaxedStore>);
    is_refused("reading without acquire", RACE, append_one::<RelaxedLoad>);
}

#[test]
fn writers_take_turns() {
    holds(two_writers::<ReleaseAcquire>);
    is_refused("publication without release", RACE, two_writers::<RelaxedStore>);
    is_refused("reading without acquire", RACE, two_writers::<RelaxedLoad>);
}

#[test]
fn publication_before_the_bytes_is_refused() {
    is_refused("publication before the bytes", RACE, || {
        let chunk = Arc::new(Chunk::<ReleaseAcquire>::new());
        let reader = chunk.clone();
        let reader = thread::spawn(move || reader.check());
        chunk.published.publish(1);
        chunk.cells[0].fill(1);
        reader.join().unwrap();
    });
}

// ---- A batch: all of it or nothing.

fn batch(at_once: bool) {
    let chunk = Arc::new(Chunk::<ReleaseAcquire>::new());
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let chunk = chunk.clone();
            thread::spawn(move || {
                let seen = chunk.check();
                assert!(seen == 0 || seen == 3, "saw {seen} of 3");
            })
        })
        .collect();
    if at_once {
        chunk.append(0, 3);
    } else {
        (0..3).for_each(|at| chunk.append(at, 1));
    }
    readers.into_iter().for_each(|r| r.join().unwrap());
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    holds(|| batch(true));
    is_refused("frames of a batch published one by one", "of 3", || batch(false));
}

// ---- Commit words: whoever follows them meets a frame or a zero, never an earlier life.

const STALE: u64 = 99;

struct Slot {
    words: [AtomicU64; 3],
    cells: [Cell; 2],
}

fn follow_words<O: Orders + 'static>(zero_first: bool) {
    // Begun as the header is: the first word zeroed, the others as the earlier life left them.
    let words = [AtomicU64::new(0), AtomicU64::new(STALE), AtomicU64::new(STALE)];
    let slot = Arc::new(Slot { words, cells: [Cell::new(), Cell::new()] });
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let slot = slot.clone();
            thread::spawn(move || {
                for at in 0..3 {
                    let Some(word) = committed::<_, O>(&slot.words[at]) else { break };
                    assert_eq!(word, at as u64 + 1, "a word of an earlier life");
                    assert_eq!(slot.cells[at].read(), at as u64 + 1);
                }
            })
        })
        .collect();
    for at in 0..2 {
        let value = at as u64 + 1;
        slot.cells[at].fill(value);
        if zero_first {
            commit::<_, O>(&slot.words[at], Some(&slot.words[at + 1]), value);
        } else {
            slot.words[at].store(value, O::STORE);
            slot.words[at + 1].store(0, Ordering::Relaxed);
        }
    }
    readers.into_iter().for_each(|r| r.join().unwrap());
}

#[test]
fn commit_words_lead_to_frames_or_zero() {
    holds(|| follow_words::<ReleaseAcquire>(true));
    is_refused("commit words without release", RACE, || follow_words::<RelaxedStore>(true));
    is_refused("commit words read without acquire", RACE, || follow_words::<RelaxedLoad>(true));
    is_refused("the commit word before the zero", "a word of an earlier life", || {
        follow_words::<ReleaseAcquire>(false)
    });
}

// ---- Rolling: the chain's lock hands over the next chunk, the seal says that nothing follows in this one.

fn roll(push_before_seal: bool) {
    struct Link {
        chunk: Chunk<ReleaseAcquire>,
        sealed: AtomicUsize,
    }
    let link = || Arc::new(Link { chunk: Chunk::new(), sealed: AtomicUsize::new(0) });
    let first = link();
    let tail = Arc::new(Lock::new(VecDeque::from([first.clone()])));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (tail, chunk) = (tail.clone(), first.clone());
            thread::spawn(move || {
                let seen = chunk.chunk.check();
                if chunk.sealed.load(Ordering::Acquire) == 0 {
                    return;
                }
                // Sealed: what is published now is all there is, and the next chunk is in the chain.
                assert!(chunk.chunk.check() >= seen);
                assert_eq!(chunk.chunk.check(), 2);
                let next = tail.lock().get(1).cloned();
                next.expect("a sealed chunk has a successor").chunk.check();
            })
        })
        .collect();
    first.chunk.append(0, 1);
    first.chunk.append(1, 1);
    let next = link();
    if push_before_seal {
        tail.lock().push_back(next.clone());
        first.sealed.store(1, Ordering::Release);
    } else {
        first.sealed.store(1, Ordering::Release);
        tail.lock().push_back(next.clone());
    }
    next.chunk.append(0, 1);
    readers.into_iter().for_each(|r| r.join().unwrap());
}

#[test]
fn rolling_loses_nobody() {
    holds(|| roll(true));
    is_refused("a seal before the successor is in the chain", "has a successor", || roll(false));
}

// ---- Recycling: memory goes to its next life with the last holder, not with the eviction.

struct Pool {
    free: Lock<Vec<std::sync::Arc<Cell>>>,
}

struct Held {
    memory: std::sync::Arc<Cell>,
    home: Arc<Pool>,
    counted: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.counted && !std::thread::panicking() {
            self.home.free.lock().push(self.memory.clone());
        }
    }
}

fn recycle(counted: bool) {
    let home = Arc::new(Pool { free: Lock::new(Vec::new()) });
    let memory = std::sync::Arc::new(Cell::new());
    memory.fill(1);
    let chunk = Arc::new(Held { memory, home: home.clone(), counted });
    let tail = Arc::new(Lock::new(Some(chunk)));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let tail = tail.clone();
            thread::spawn(move || {
                let chunk = tail.lock().clone();
                if let Some(chunk) = chunk {
                    assert_eq!(chunk.memory.read(), 1);
                }
            })
        })
        .collect();
    let evicted = tail.lock().take();
    if !counted && let Some(chunk) = &evicted {
        home.free.lock().push(chunk.memory.clone());
    }
    drop(evicted);
    let free = home.free.lock().pop();
    if let Some(memory) = free {
        memory.fill(2);
    }
    readers.into_iter().for_each(|r| r.join().unwrap());
}

#[test]
fn memory_is_reused_after_its_last_reader() {
    holds(|| recycle(true));
    is_refused("memory reused when evicted", RACE, || recycle(false));
}

// ---- Parking: an appender that sees no waiter wakes nobody, and still nobody sleeps on.

#[derive(Clone, Copy, PartialEq)]
enum Parking {
    /// Registers under the append lock and looks again there.
    Right,
    /// Registers under the lock, and sleeps without a second look.
    NoSecondLook,
    /// Looks again, then registers after the lock was let go.
    LateRegistration,
    /// Right, but who appends lists whom to wake before the append.
    EarlyList,
}

fn park(parking: Parking, waiters: usize, appends: usize) {
    struct Partition {
        chunk: Chunk<ReleaseAcquire>,
        /// The append lock guards the cursor and who waits.
        append: Lock<Appending>,
    }
    #[derive(Default)]
    struct Appending {
        cursor: usize,
        waiters: Vec<thread::Thread>,
    }
    // Leaked, since the checker reports a lost wake-up while it holds its own state, which a drop would ask for.
    let partition: &'static Partition =
        Box::leak(Box::new(Partition { chunk: Chunk::new(), append: Lock::new(Appending::default()) }));
    let readers: Vec<_> = (0..waiters)
        .map(|_| {
            thread::spawn(move || {
                let p = partition;
                while p.chunk.check() == 0 {
                    let mut append = p.append.lock();
                    if parking != Parking::LateRegistration {
                        append.waiters.push(thread::current());
                    }
                    if parking != Parking::NoSecondLook && p.chunk.check() > 0 {
                        break;
                    }
                    drop(append);
                    if parking == Parking::LateRegistration {
                        p.append.lock().waiters.push(thread::current());
                    }
                    thread::park();
                }
            })
        })
        .collect();
    for _ in 0..appends {
        let mut append = partition.append.lock();
        let early = if parking == Parking::EarlyList {
            let early = std::mem::take(&mut append.waiters);
            drop(append);
            append = partition.append.lock();
            Some(early)
        } else {
            None
        };
        let at = append.cursor;
        partition.chunk.append(at, 1);
        append.cursor += 1;
        let woken = early.unwrap_or_else(|| std::mem::take(&mut append.waiters));
        drop(append);
        // After the lock was let go, as a wake-up takes its time.
        woken.iter().for_each(thread::Thread::unpark);
    }
    readers.into_iter().for_each(|r| r.join().unwrap());
}

#[test]
fn no_wake_up_is_lost() {
    holds(|| park(Parking::Right, 1, 2));
    holds(|| park(Parking::Right, 2, 1));
    is_refused("sleeping without a second look", LOST, || park(Parking::NoSecondLook, 1, 1));
    is_refused("registering after the lock", LOST, || park(Parking::LateRegistration, 1, 1));
    is_refused("a list from before the append", LOST, || park(Parking::EarlyList, 1, 1));
}

// ---- A poll that waits: one bell, rung by partitions, by changes of the topics, and by a wake-up. Whatever there is to
// do, it returns.

#[derive(Clone, Copy, PartialEq)]
enum Polling {
    /// Looks, then registers with each source, which looks again under its lock; the bell stays rung until it is heard.
    Right,
    /// The bell is silenced before it is waited for.
    ForgetfulBell,
    /// A partition that registers does not look again.
    NoSecondLook,
    /// A partition looks again for what comes after its end of now, not after what the poll has counted.
    LooksFromTheEnd,
    /// Only the first partition is asked to ring.
    OnePartition,
    /// A wake-up rings before it says what for.
    RingsBeforeTheWord,
    /// A change of the topics rings before it can be seen.
    RingsBeforeTheChange,
    /// Who makes a change wakes whom he finds without the lock held that those register under.
    ChangesWithoutTheLock,
}

/// The bell of one consumer, which sleeps in `wait` only.
#[derive(Default)]
struct Bell(Lock<Ringing>);

#[derive(Default)]
struct Ringing {
    rung: bool,
    /// Who is woken once: the checker takes a wake-up for whatever the thread waits for.
    sleeper: Option<thread::Thread>,
}

impl Bell {
    fn ring(&self) {
        let mut ringing = self.0.lock();
        ringing.rung = true;
        let sleeper = ringing.sleeper.take();
        drop(ringing);
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
    }

    fn wait(&self, polling: Polling) {
        if polling == Polling::ForgetfulBell {
            self.0.lock().rung = false;
        }
        loop {
            let mut ringing = self.0.lock();
            if std::mem::take(&mut ringing.rung) {
                return;
            }
            ringing.sleeper = Some(thread::current());
            drop(ringing);
            thread::park();
        }
    }
}

/// A source of records: how many there are, and who waits for more.
#[derive(Default)]
struct Source {
    end: AtomicUsize,
    waits: Lock<bool>,
}

impl<T: Default> Default for Lock<T> {
    fn default() -> Self {
        Lock::new(T::default())
    }
}

struct Waiting {
    polling: Polling,
    bell: Bell,
    partitions: [Source; 2],
    topics: Source,
    woken: AtomicBool,
}

impl Waiting {
    fn append(&self, partition: usize) {
        let source = &self.partitions[partition];
        let mut waits = source.waits.lock();
        source.end.store(source.end.load(Ordering::Relaxed) + 1, Ordering::Release);
        let rings = std::mem::take(&mut *waits);
        drop(waits);
        if rings {
            self.bell.ring();
        }
    }

    fn change(&self) {
        if self.polling == Polling::ChangesWithoutTheLock {
            let rings = std::mem::take(&mut *self.topics.waits.lock());
            self.topics.end.store(1, Ordering::Release);
            if rings {
                self.bell.ring();
            }
            return;
        }
        let mut waits = self.topics.waits.lock();
        let early = self.polling == Polling::RingsBeforeTheChange;
        if early && std::mem::take(&mut *waits) {
            self.bell.ring();
            drop(waits);
            self.topics.end.store(1, Ordering::Release);
            return;
        }
        self.topics.end.store(1, Ordering::Release);
        if std::mem::take(&mut *waits) {
            self.bell.ring();
        }
    }

    fn wake_up(&self) {
        if self.polling == Polling::RingsBeforeTheWord {
            self.bell.ring();
            self.woken.store(true, Ordering::Release);
        } else {
            self.woken.store(true, Ordering::Release);
            self.bell.ring();
        }
    }

    /// Waits until the partitions hold `enough` together, or there is a change or a wake-up where `for_all_else`.
    fn poll(&self, enough: usize, for_all_else: bool) {
        loop {
            if self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel) {
                return;
            }
            if for_all_else && self.topics.end.load(Ordering::Acquire) > 0 {
                return;
            }
            let counted = [0, 1].map(|at| self.partitions[at].end.load(Ordering::Acquire));
            if counted.iter().sum::<usize>() >= enough || self.listen(counted) {
                if counted.iter().sum::<usize>() >= enough {
                    return;
                }
                continue;
            }
            self.bell.wait(self.polling);
        }
    }

    /// Has the bell rung by whatever comes; true where something has come since it was looked for.
    fn listen(&self, counted: [usize; 2]) -> bool {
        let partitions = if self.polling == Polling::OnePartition { 1 } else { 2 };
        for (source, counted) in self.partitions.iter().zip(counted).take(partitions) {
            let mut waits = source.waits.lock();
            let end = source.end.load(Ordering::Acquire);
            let counted = if self.polling == Polling::LooksFromTheEnd { end } else { counted };
            if self.polling != Polling::NoSecondLook && end > counted {
                return true;
            }
            *waits = true;
        }
        let mut waits = self.topics.waits.lock();
        if self.topics.end.load(Ordering::Acquire) > 0 {
            return true;
        }
        *waits = true;
        false
    }
}

/// One consumer that polls, and two others that do what is to end its wait.
fn poll_waits(polling: Polling, others: [fn(&Waiting); 2], enough: usize, for_all_else: bool) {
    // Leaked for the same reason as above.
    let waiting: &'static Waiting = Box::leak(Box::new(Waiting {
        polling,
        bell: Bell::default(),
        partitions: Default::default(),
        topics: Source::default(),
        woken: AtomicBool::new(false),
    }));
    // Not the thread of the model: a wake-up that nobody needs any more would disturb how that one joins others.
    let poll = thread::spawn(move || waiting.poll(enough, for_all_else));
    let other = thread::spawn(move || others[0](waiting));
    others[1](waiting);
    poll.join().unwrap();
    other.join().unwrap();
}

#[test]
fn a_poll_that_waits_returns_when_there_is_something() {
    let both: [fn(&Waiting); 2] = [|w| w.append(0), |w| w.append(1)];
    let wakes: [fn(&Waiting); 2] = [|_| {}, Waiting::wake_up];
    let changes: [fn(&Waiting); 2] = [|w| w.append(0), Waiting::change];
    holds(move || poll_waits(Polling::Right, both, 1, false));
    holds(move || poll_waits(Polling::Right, both, 2, false));
    holds(move || poll_waits(Polling::Right, wakes, 1, false));
    holds(move || poll_waits(Polling::Right, changes, 2, true));
    let lost = |what, polling, others, enough, all| {
        is_refused(what, LOST, move || poll_waits(polling, others, enough, all));
    };
    lost("a bell that forgets", Polling::ForgetfulBell, both, 2, false);
    lost("registering without a second look", Polling::NoSecondLook, both, 2, false);
    lost("a second look from the end", Polling::LooksFromTheEnd, both, 2, false);
    lost("one partition of two", Polling::OnePartition, [|_| {}, |w| w.append(1)], 1, false);
    lost("a wake-up that rings first", Polling::RingsBeforeTheWord, wakes, 1, false);
    lost("a change that rings first", Polling::RingsBeforeTheChange, changes, 2, true);
    lost("a change without the lock", Polling::ChangesWithoutTheLock, changes, 2, true);
}

// ---- The lease: an appender without the lock, and whoever needs it to stand still.

/// A flag for the checker, which knows the order of sequentially consistent accesses by fences only.
struct Raised<const FENCED: bool>(AtomicBool);

impl<const FENCED: bool> Flag for Raised<FENCED> {
    fn raise(&self) {
        self.0.store(true, Ordering::Release);
        if FENCED {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    fn raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn lower(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<const FENCED: bool> Default for Raised<FENCED> {
    fn default() -> Self {
        Raised(AtomicBool::new(false))
    }
}

/// Two appends without the lock unless wanted there, beside one who writes what they write, under the lock.
fn lease<const FENCED: bool>(stops: bool) {
    struct Partition<const FENCED: bool> {
        lease: Lease<Raised<FENCED>>,
        append: Lock<()>,
        head: Cell,
    }
    let partition =
        Arc::new(Partition::<FENCED> { lease: Lease::default(), append: Lock::new(()), head: Cell::new() });
    let other = {
        let p = partition.clone();
        thread::spawn(move || {
            let _lock = p.append.lock();
            if stops {
                p.lease.stop(thread::yield_now);
            }
            p.head.fill(p.head.read() + 10);
        })
    };
    for _ in 0..2 {
        if let Some(_turn) = partition.lease.enter() {
            partition.head.fill(partition.head.read() + 1);
        } else {
            let _lock = partition.append.lock();
            partition.head.fill(partition.head.read() + 1);
            partition.lease.calm();
        }
    }
    other.join().unwrap();
    assert_eq!(partition.head.read(), 12);
}

#[test]
fn a_lease_excludes_as_the_lock_does() {
    holds(|| lease::<true>(true));
    is_refused("a wish and an append that do not see each other", RACE, || lease::<false>(true));
    is_refused("an append that nobody stops", RACE, || lease::<true>(false));
}
