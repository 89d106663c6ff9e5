//! The memory of the hot tail: a budget, handed out in chunks.
//!
//! In memory a chunk is heap; in a durable log it is a slot of a *staging file*, which is made whole when the
//! log opens, mapped, and never reused by a later open (`staging.rs`). Number 0 of them is the budget; further ones come
//! while readers pin what left the tails, and for an append that is larger than the largest slot.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::chunk::{ChunkWriter, Memory};
use crate::storage::disk::Disk;
use crate::storage::origin::Origin;
use crate::storage::slot::{GRANULE, HEADER, MAX_LEN, SMALL, SlotHeader};
#[cfg(not(unix))]
use crate::storage::staging::unsupported;
#[cfg(unix)]
use crate::storage::staging::{Kind, Staging, StagingFile, unlink};

/// Sizes of slots. Small ones for quiet partitions: ten thousand of the smallest fit the default budget.
pub(crate) const CLASSES: [usize; 4] = [GRANULE, SMALL, 8 * SMALL, 64 * SMALL];
/// The smallest budget: two chunks that are not quite small, the reserve, and one to roll into.
pub(crate) const MIN_BUDGET: usize = 4 * SMALL;
/// Freed heap chunks kept warm, per class.
const KEPT: usize = 16;

/// How far ahead of a busy partition pages are made: what it fills before the engine's thread comes again.
#[cfg(unix)]
const AHEAD: usize = (16 << 20) / GRANULE;

/// What a chunk is wanted for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
    pub(crate) epoch: u32,
    pub(crate) base_offset: u64,
    /// Frame bytes that must fit.
    pub(crate) min_len: usize,
    /// How large a chunk would be good; the answer may be smaller.
    pub(crate) class_hint: usize,
    /// For an internal topic, which may use the reserve.
    pub(crate) internal: bool,
}

/// Where memory goes when a chunk's last holder lets go.
pub(crate) trait Home: Send + Sync {
    /// A chunk left its tail; until it is given back it is pinned by readers.
    fn evicted(&self, bytes: usize, internal: bool);
    /// Whether this is a fork of the process that the memory belongs to: then it is touched no more.
    fn is_fork(&self) -> bool {
        false
    }
    /// The last holder is gone; `evicted` says whether [`Home::evicted`] was called before.
    fn give_back(&self, memory: Memory, internal: bool, evicted: bool);
}

/// Hands out chunks under a budget.
///
/// What is in tails (`used - pinned`) never exceeds the budget. What left its tail and is still held by readers is
/// `pinned`, and metered apart: it may take as much again, so that slow readers do not stop the writers.
pub(crate) struct Pool {
    budget: usize,
    /// Part of the budget that only internal topics may use.
    reserve: usize,
    incarnation: u64,
    origin: Origin,
    /// Set at the end of the log: what is given back from then on may never have been written.
    keeps_files: AtomicBool,
    /// Where staging files go; `None` for heap.
    #[cfg(unix)]
    staging: Option<Staging>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes of chunks that somebody holds.
    used: usize,
    /// The part of `used` that left its tail.
    pinned: usize,
    /// The part of `used - pinned` that is internal topics'.
    internal: usize,
    /// Heap: freed chunks by class, the warmest last.
    kept: [Vec<Memory>; CLASSES.len()],
    /// Mapped: bytes of all files, those being created too.
    capacity: usize,
    next_number: u32,
    #[cfg(unix)]
    files: Vec<StagingFile>,
}

impl Pool {
    /// A pool of heap memory, for a log in memory.
    pub(crate) fn heap(limit_bytes: usize) -> Result<Arc<Pool>> {
        Pool::new(limit_bytes, 0).map(Arc::new)
    }

    /// A pool of slots in staging files in `folder`. The first file is created, allocated and flushed here.
    #[cfg(unix)]
    pub(crate) fn mapped(
        disk: Arc<dyn Disk>,
        folder: &Path,
        file_id: u64,
        incarnation: u64,
        budget_bytes: usize,
    ) -> Result<Arc<Pool>> {
        let mut pool = Pool::new(budget_bytes, incarnation)?;
        let staging = Staging { disk, folder: folder.to_path_buf(), file_id };
        let file = staging.create(0, incarnation, fresh_random(0), pool.budget, Kind::Budget)?;
        if let Err(e) = staging.disk.sync_dir(folder) {
            // The error that matters is the first.
            let _ = staging.disk.remove_file(&file.path);
            return Err(Error::io("flush the staging folder", folder, e));
        }
        let state = pool.state.get_mut();
        state.capacity = pool.budget;
        state.next_number = 1;
        state.files.push(file);
        pool.staging = Some(staging);
        Ok(Arc::new(pool))
    }

    /// A pool of slots in staging files in `folder`.
    #[cfg(not(unix))]
    pub(crate) fn mapped(_: Arc<dyn Disk>, folder: &Path, _: u64, _: u64, _: usize) -> Result<Arc<Pool>> {
        Err(unsupported(folder))
    }

    fn new(budget_bytes: usize, incarnation: u64) -> Result<Pool> {
        let budget = budget_bytes / SMALL * SMALL;
        if budget < MIN_BUDGET || u32::try_from(budget / GRANULE).is_err() || budget > usize::MAX / 4 {
            let message = format!("a memory budget of {budget_bytes} bytes; the least is {MIN_BUDGET}");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        Ok(Pool {
            budget,
            reserve: (budget / 16 / SMALL * SMALL).max(SMALL),
            incarnation,
            origin: Origin::here(),
            keeps_files: AtomicBool::new(false),
            #[cfg(unix)]
            staging: None,
            state: Mutex::default(),
        })
    }

    /// The process that all of it belongs to.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// Unlinks no file from now on. While a log is open chunks come back once they are written; at its end they come
    /// back because their partitions go, and the next open must find there what was not written.
    pub(crate) fn keep_files(&self) {
        self.keeps_files.store(true, Ordering::Release);
    }

    /// Bytes of chunks that somebody holds, pinned ones too.
    #[cfg_attr(not(test), expect(dead_code, reason = "for metrics"))]
    pub(crate) fn used_bytes(&self) -> usize {
        self.state.lock().used
    }

    /// Bytes of chunks that left their tail and are held by readers.
    #[cfg_attr(not(test), expect(dead_code, reason = "for metrics"))]
    pub(crate) fn pinned_bytes(&self) -> usize {
        self.state.lock().pinned
    }

    /// Bytes that there are, used or not: of all files, or of the heap's budget and what is pinned beside it.
    #[cfg_attr(not(test), expect(dead_code, reason = "for metrics"))]
    pub(crate) fn capacity(&self) -> usize {
        let state = self.state.lock();
        if self.is_heap() { self.budget.max(state.used) } else { state.capacity }
    }

    /// The most frame bytes that one append may have here.
    pub(crate) fn max_append(&self) -> usize {
        (self.budget - self.reserve).min(MAX_LEN) - HEADER
    }

    #[cfg(unix)]
    fn is_heap(&self) -> bool {
        self.staging.is_none()
    }

    #[cfg(not(unix))]
    fn is_heap(&self) -> bool {
        true
    }

    /// The slot sizes that fit the budget, smallest first.
    fn classes(&self) -> &'static [usize] {
        let fit = CLASSES.iter().take_while(|&&class| class <= self.budget - self.reserve).count();
        &CLASSES[..fit]
    }

    /// A chunk of its own for `want`; `None` while there is no room. Errors: an append that never fits, and a full
    /// disk or memory where a further file or chunk had to be made.
    pub(crate) fn take(self: &Arc<Self>, want: &Want) -> Result<Option<ChunkWriter>> {
        if want.min_len > self.max_append() {
            let message = format!("{} bytes in one append; at most {} fit", want.min_len, self.max_append());
            return Err(Error::new(ErrorKind::RecordBatchTooLarge, message));
        }
        let need = want.min_len + HEADER;
        let classes = self.classes();
        let memory = match classes.iter().position(|&class| class >= need) {
            None => self.own(need.next_multiple_of(GRANULE), want.internal)?,
            Some(smallest) => {
                let hinted =
                    classes.iter().position(|&class| class >= want.class_hint).unwrap_or(classes.len() - 1);
                // What was hinted at first, then smaller ones; but who is busy is not served with crumbs.
                let least = smallest.max(hinted.saturating_sub(2));
                self.slot(&classes[least..=hinted.max(least)], want.internal)?
            }
        };
        Ok(memory.map(|memory| self.begin(memory, want)))
    }

    /// Whether [`Pool::populate`] would do something good, now that a chunk of `len` bytes was taken: who takes the
    /// largest ones is busy, and will want more.
    #[cfg(unix)]
    pub(crate) fn is_cold(&self, len: usize) -> bool {
        let state = self.state.lock();
        len >= CLASSES[CLASSES.len() - 1] && state.files.first().is_some_and(|first| first.mapping.is_cold())
    }

    /// Has the kernel make pages for the slots that will be taken next, so that no appender has to.
    #[cfg(unix)]
    pub(crate) fn populate(&self) {
        let mapping = self.state.lock().files.first().map(|first| Arc::clone(&first.mapping));
        if let Some(mapping) = mapping {
            mapping.populate(AHEAD);
        }
    }

    /// Heap comes with its pages.
    #[cfg(not(unix))]
    pub(crate) fn is_cold(&self, _: usize) -> bool {
        false
    }

    /// Heap comes with its pages.
    #[cfg(not(unix))]
    pub(crate) fn populate(&self) {}

    fn begin(self: &Arc<Self>, mut memory: Memory, want: &Want) -> ChunkWriter {
        let header = SlotHeader {
            len: 0, // set by the chunk
            topic_id: want.topic_id,
            partition: want.partition,
            epoch: want.epoch,
            base_offset: want.base_offset,
            incarnation: self.incarnation,
            salt: fresh_random(memory.previous_salt()),
        };
        let home: Arc<dyn Home> = Arc::clone(self) as Arc<dyn Home>;
        ChunkWriter::begin(memory, header, want.internal, home)
    }

    /// Whether `size` more bytes may go into tails: within the budget, of which users leave alone what internal topics
    /// have not yet used of their reserve; and all that is held within twice the budget.
    fn within(&self, state: &State, size: usize, internal: bool) -> bool {
        let reserved = if internal { 0 } else { self.reserve.saturating_sub(state.internal) };
        state.used - state.pinned + size <= self.budget - reserved && state.used + size <= 2 * self.budget
    }

    #[cfg(not(unix))]
    fn slot(&self, classes: &[usize], internal: bool) -> Result<Option<Memory>> {
        self.heap_slot(classes, internal)
    }

    #[cfg(not(unix))]
    fn own(&self, size: usize, internal: bool) -> Result<Option<Memory>> {
        self.heap_slot(&[size], internal)
    }

    /// Memory of the largest of `classes` that there is room for.
    #[cfg(unix)]
    fn slot(&self, classes: &[usize], internal: bool) -> Result<Option<Memory>> {
        let Some(staging) = &self.staging else { return self.heap_slot(classes, internal) };
        let mut state = self.state.lock();
        for &size in classes.iter().rev() {
            if self.within(&state, size, internal)
                && let Some(memory) = state.take_slot(size)
            {
                state.book(size, internal);
                return Ok(Some(memory));
            }
        }
        // No room in the files. If that is because of readers, there may be a further file.
        if state.pinned == 0 {
            return Ok(None);
        }
        let left = 2 * self.budget - state.capacity.min(2 * self.budget);
        let fits = |&&size: &&usize| size <= left && self.within(&state, size, internal);
        let Some(&size) = classes.iter().rev().find(fits) else { return Ok(None) };
        let largest = self.classes().last().copied().unwrap_or(SMALL);
        let file_size = size.max(largest.min(left));
        self.create(staging, state, (size, internal), file_size, Kind::Further).map(Some)
    }

    /// Memory for an append that no slot can hold: a file of its own.
    #[cfg(unix)]
    fn own(&self, size: usize, internal: bool) -> Result<Option<Memory>> {
        let Some(staging) = &self.staging else { return self.heap_slot(&[size], internal) };
        let mut idle = Vec::new();
        let mut state = self.state.lock();
        if !self.within(&state, size, internal) {
            return Ok(None);
        }
        if state.capacity + size > 2 * self.budget {
            idle = state.remove_idle(true);
        }
        let result = if state.capacity + size > 2 * self.budget {
            drop(state);
            Ok(None)
        } else {
            self.create(staging, state, (size, internal), size, Kind::Own).map(Some)
        };
        unlink(&*staging.disk, idle);
        result
    }

    /// Creates a file of `file_size` bytes and takes `size` of them. The room is booked first, so that the lock need not
    /// be held while the disk works.
    #[cfg(unix)]
    fn create(
        &self,
        staging: &Staging,
        mut state: parking_lot::MutexGuard<'_, State>,
        (size, internal): (usize, bool),
        file_size: usize,
        kind: Kind,
    ) -> Result<Memory> {
        let number = state.next_number;
        state.next_number += 1;
        state.book(size, internal);
        state.capacity += file_size;
        drop(state);
        let made =
            staging.create(number, self.incarnation, fresh_random(0), file_size, kind).and_then(|file| {
                let memory = file.mapping.take(size / GRANULE);
                memory
                    .map(|memory| (file, memory))
                    .ok_or_else(|| Error::new(ErrorKind::Internal, "no room in a new file"))
            });
        let mut state = self.state.lock();
        match made {
            Ok((file, memory)) => {
                state.files.push(file);
                Ok(memory)
            }
            Err(e) => {
                state.unbook(size, internal, false);
                state.capacity -= file_size;
                Err(e)
            }
        }
    }

    /// Heap memory of the largest of `sizes` that there is room for.
    fn heap_slot(&self, sizes: &[usize], internal: bool) -> Result<Option<Memory>> {
        let mut state = self.state.lock();
        let Some(&size) = sizes.iter().rev().find(|&&size| self.within(&state, size, internal)) else {
            return Ok(None);
        };
        state.book(size, internal);
        let class = CLASSES.iter().position(|&c| c == size);
        if let Some(memory) = class.and_then(|class| state.kept[class].pop()) {
            return Ok(Some(memory));
        }
        let spare = state.trim_kept(self.budget);
        drop(state);
        drop(spare);
        match Memory::heap(size) {
            Some(memory) => Ok(Some(memory)),
            None => {
                self.state.lock().unbook(size, internal, false);
                Err(Error::new(ErrorKind::NoMemory, format!("cannot allocate a chunk of {size} bytes")))
            }
        }
    }
}

impl State {
    fn book(&mut self, size: usize, internal: bool) {
        self.used += size;
        self.internal += if internal { size } else { 0 };
    }

    fn unbook(&mut self, size: usize, internal: bool, evicted: bool) {
        self.used -= size;
        if evicted {
            self.pinned -= size;
        } else if internal {
            self.internal -= size;
        }
    }

    fn kept_bytes(&self) -> usize {
        self.kept.iter().zip(CLASSES).map(|(kept, class)| kept.len() * class).sum()
    }

    /// Takes out kept memory, the largest first, until it fits the budget together with what is used.
    fn trim_kept(&mut self, budget: usize) -> Vec<Memory> {
        let mut spare = Vec::new();
        while self.used + self.kept_bytes() > budget {
            match self.kept.iter_mut().rev().find_map(Vec::pop) {
                Some(memory) => spare.push(memory),
                None => break,
            }
        }
        spare
    }

    #[cfg(unix)]
    fn take_slot(&self, size: usize) -> Option<Memory> {
        let shared = self.files.iter().filter(|file| file.kind != Kind::Own);
        shared.into_iter().find_map(|file| file.mapping.take(size / GRANULE))
    }

    /// Takes out the files that nobody uses: those of large appends and, where asked for, further ones.
    #[cfg(unix)]
    fn remove_idle(&mut self, further: bool) -> Vec<StagingFile> {
        let goes = |file: &mut StagingFile| {
            let may = file.kind == Kind::Own || (further && file.kind == Kind::Further);
            may && file.mapping.is_idle()
        };
        let idle: Vec<_> = self.files.extract_if(.., goes).collect();
        self.capacity -= idle.iter().map(|file| file.mapping.capacity()).sum::<usize>();
        idle
    }
}

impl Home for Pool {
    fn is_fork(&self) -> bool {
        self.origin.is_fork()
    }

    fn evicted(&self, bytes: usize, internal: bool) {
        let mut state = self.state.lock();
        state.pinned += bytes;
        if internal {
            state.internal -= bytes;
        }
    }

    fn give_back(&self, memory: Memory, internal: bool, evicted: bool) {
        let size = memory.len();
        let mut memory = Some(memory);
        if !self.is_heap() {
            // The slot is free in its file before the books say so: who finds room there gets it.
            memory = None;
        }
        let mut state = self.state.lock();
        state.unbook(size, internal, evicted);
        #[cfg(unix)]
        if let Some(staging) = &self.staging {
            if !self.keeps_files.load(Ordering::Acquire) {
                let further = state.pinned == 0;
                let idle = state.remove_idle(further);
                drop(state);
                unlink(&*staging.disk, idle);
            }
            return;
        }
        let class = CLASSES.iter().position(|&c| c == size);
        let fits = state.used + state.kept_bytes() + size <= self.budget;
        if let Some(class) = class.filter(|&class| fits && state.kept[class].len() < KEPT) {
            state.kept[class].extend(memory.take());
        }
        drop(state);
        drop(memory); // with no lock held
    }
}

/// A random number that is not 0: for salts and ids, which must differ and need not be secret.
pub(crate) fn random_nonzero() -> u64 {
    fresh_random(0)
}

/// A random number that is neither 0 nor `previous`.
fn fresh_random(previous: u64) -> u64 {
    loop {
        let random = RandomState::new().build_hasher().finish();
        if random != 0 && random != previous {
            return random;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::storage::{
        disk::RealDisk,
        staging::{file_name, remove},
    };

    const BUDGET: usize = 16 << 20;

    fn want(len: usize, hint: usize) -> Want {
        Want {
            topic_id: 7,
            partition: 1,
            epoch: 2,
            base_offset: 100,
            min_len: len,
            class_hint: hint,
            internal: false,
        }
    }

    #[cfg(unix)]
    fn files(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// Both kinds of pool must keep the same books.
    fn both(budget: usize, test: impl Fn(Arc<Pool>)) {
        test(Pool::heap(budget).unwrap());
        #[cfg(unix)]
        {
            let folder = tempfile::tempdir().unwrap();
            test(Pool::mapped(Arc::new(RealDisk::default()), folder.path(), 1, 1, budget).unwrap());
        }
    }

    #[test]
    fn takes_the_hinted_class_then_smaller_ones() {
        both(BUDGET, |pool| {
            let size = |len, hint| pool.take(&want(len, hint)).unwrap().map(|w| w.chunk().capacity());
            assert_eq!(size(100, 0), Some(GRANULE));
            assert_eq!(size(100, GRANULE), Some(GRANULE));
            assert_eq!(size(100, GRANULE + 1), Some(SMALL));
            assert_eq!(size(100, SMALL + 1), Some(8 * SMALL));
            assert_eq!(size(100, usize::MAX), Some(64 * SMALL));
            assert_eq!(size(GRANULE - HEADER, 0), Some(GRANULE));
            assert_eq!(size(GRANULE - HEADER + 8, 0), Some(SMALL));
            assert_eq!(size(SMALL - HEADER + 8, 0), Some(8 * SMALL));
            assert_eq!(pool.used_bytes(), 0);
            // 15 MiB are for everybody: three large chunks, then six of 512 KiB.
            let mut held: Vec<_> =
                std::iter::from_fn(|| pool.take(&want(GRANULE, usize::MAX)).unwrap()).collect();
            let sizes: Vec<_> = held.iter().map(|w| w.chunk().capacity() / SMALL).collect();
            assert_eq!(sizes, [64, 64, 64, 8, 8, 8, 8, 8, 8]);
            assert!(pool.take(&want(100, usize::MAX)).unwrap().is_none(), "the rest is reserved");
            let internal = pool.take(&Want { internal: true, ..want(100, GRANULE) }).unwrap();
            assert!(internal.is_some());
            held.pop();
            let crumb = pool.take(&want(100, 0)).unwrap().unwrap();
            assert_eq!(crumb.chunk().capacity(), GRANULE);
            assert_eq!(size(100, usize::MAX), Some(SMALL));
        });
    }

    /// With slots of 64 KiB for each, a thousand quiet partitions had used up the default budget.
    #[test]
    fn ten_thousand_quiet_partitions_leave_room_for_a_busy_one() {
        both(64 << 20, |pool| {
            let busy = pool.take(&want(100, usize::MAX)).unwrap();
            let quiet: Vec<_> = (0..10_000).map(|_| pool.take(&want(100, 0)).unwrap().unwrap()).collect();
            // Those do not stand in the way of another four, each of them whole.
            let more: Vec<_> = (0..4).map(|_| pool.take(&want(100, usize::MAX)).unwrap().unwrap()).collect();
            assert!(more.iter().all(|w| w.chunk().capacity() == 64 * SMALL));
            drop((busy, quiet, more));
            assert_eq!(pool.used_bytes(), 0);
        });
    }

    #[test]
    fn the_smallest_budget_works_and_less_is_refused() {
        assert_eq!(Pool::heap(MIN_BUDGET - 1).err().map(|e| e.kind()), Some(ErrorKind::InvalidConfig));
        both(MIN_BUDGET, |pool| {
            assert_eq!(pool.capacity(), MIN_BUDGET);
            let held: Vec<_> = std::iter::from_fn(|| pool.take(&want(100, usize::MAX)).unwrap()).collect();
            assert_eq!(held.len(), 3);
            drop(held);
            // Larger than the largest class: made to measure.
            let own = pool.take(&want(SMALL, 0)).unwrap().unwrap();
            assert_eq!(own.chunk().capacity(), SMALL + GRANULE);
            assert!(pool.take(&want(2 * SMALL, 0)).unwrap().is_none());
            drop(own);
            assert!(pool.take(&want(pool.max_append(), 0)).unwrap().is_some());
            let never = pool.take(&want(pool.max_append() + 8, 0));
            assert_eq!(never.err().map(|e| e.kind()), Some(ErrorKind::RecordBatchTooLarge));
            assert_eq!((pool.used_bytes(), pool.capacity()), (0, MIN_BUDGET));
        });
    }

    #[test]
    fn what_readers_pin_does_not_shrink_the_budget() {
        both(BUDGET, |pool| {
            let fill = || -> Vec<_> {
                std::iter::from_fn(|| pool.take(&want(100, usize::MAX)).unwrap())
                    .map(ChunkWriter::seal)
                    .collect()
            };
            let first = fill();
            first.iter().for_each(|chunk| chunk.mark_evicted());
            assert_eq!(pool.pinned_bytes(), pool.used_bytes());
            let second = fill();
            let live: usize = second.iter().map(|c| c.capacity()).sum();
            assert!(live >= BUDGET - pool.reserve - SMALL, "{live}");
            second.iter().for_each(|chunk| chunk.mark_evicted());
            let third = fill();
            assert!(
                pool.used_bytes() <= 2 * BUDGET && pool.capacity() <= 2 * BUDGET,
                "twice the budget is the end"
            );
            drop((first, second, third));
            assert_eq!((pool.used_bytes(), pool.pinned_bytes(), pool.capacity()), (0, 0, BUDGET));
        });
    }

    #[test]
    fn salts_differ_from_life_to_life() {
        both(MIN_BUDGET, |pool| {
            let mut last = 0;
            for _ in 0..100 {
                let salt = pool.take(&want(100, 0)).unwrap().unwrap().chunk().salt();
                assert!(salt != 0 && salt != last);
                last = salt;
            }
        });
    }

    #[cfg(unix)]
    #[test]
    fn further_and_own_files_come_and_go() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let name = |n| file_name(0xAB, n);
        let pool = Pool::mapped(Arc::new(RealDisk::default()), folder.path(), 0xAB, 1, BUDGET).unwrap();
        assert_eq!(files(folder.path()), ["staging-00000000000000ab-000"]);
        let mode = std::fs::metadata(folder.path().join(name(0))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let own = pool.take(&want(5 << 20, 0)).unwrap().unwrap();
        assert_eq!(files(folder.path()), [name(0), name(1)]);
        drop(own);
        assert_eq!(files(folder.path()), [name(0)]);
        let held: Vec<_> = std::iter::from_fn(|| pool.take(&want(100, usize::MAX)).unwrap()).collect();
        held.iter().for_each(|w| w.chunk().mark_evicted());
        let rest = [(); 2].map(|()| pool.take(&want(100, usize::MAX)).unwrap().unwrap());
        assert!(rest.iter().all(|w| w.chunk().capacity() == 8 * SMALL));
        let further = pool.take(&want(100, usize::MAX)).unwrap().unwrap();
        assert_eq!(further.chunk().capacity(), 64 * SMALL);
        drop(rest);
        assert_eq!(files(folder.path()), [name(0), name(2)]);
        drop(held);
        assert_eq!(files(folder.path()), [name(0), name(2)]);
        drop(further);
        assert_eq!(files(folder.path()), [name(0)]);
        assert!(
            Pool::mapped(Arc::new(RealDisk::default()), folder.path(), 0xAB, 1, BUDGET).is_err(),
            "no staging file is ever reused"
        );
        remove(&RealDisk::default(), folder.path(), 0xAB).unwrap();
        remove(&RealDisk::default(), folder.path(), 0xAB).unwrap();
        assert!(files(folder.path()).is_empty());
    }

    #[cfg(target_pointer_width = "64")]
    #[cfg(unix)]
    #[test]
    fn a_disk_too_small_is_no_space_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let e = Pool::mapped(Arc::new(RealDisk::default()), folder.path(), 1, 1, 1 << 43).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::NoSpace, "{e}");
        assert!(files(folder.path()).is_empty());
    }
}
