//! A piece of the hot tail: memory that one writer fills and any number of readers read in place.
//!
//! The only file with `unsafe`. A chunk is heap memory, or a slot of a staging file that is mapped and shared, so that
//! what was appended outlives the process. Its bytes are drawn in `slot`.
//!
//! # Why this is sound
//!
//! 1. A [`Memory`] is the only owner of its bytes: heap memory is allocated for it, and a [`Mapping`] hands out
//!    each granule to one `Memory` at a time, of a file that it created itself and shows to nobody.
//! 2. A [`Chunk`] owns its `Memory` until its last `Arc` is gone, and there is one [`ChunkWriter`] to a chunk.
//! 3. The writer writes at or beyond the published counter only; readers read below it only. So no byte is written
//!    while a slice of it can exist, and the counter's release and acquire order what was written before.
//! 4. All memory is initialised from the start (zeroed by the allocator or the kernel).
//!
//! What Rust cannot see is another process that writes into the staging file. It is made with mode 0600,
//! exclusively, under the log's lock: who writes there has the rights to attach a debugger as well.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_set_epi64x, _mm_storel_epi64, _mm_storeu_si128};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use crossbeam::utils::CachePadded;

use crate::bytes::u64_at;
use crate::clock::Timestamp;
#[cfg(target_arch = "x86_64")]
use crate::fold::{self, Fold};
use crate::frame::{self, commit_word, mix};
use crate::record::Record;
use crate::storage::arena::Home;
#[cfg(unix)]
use crate::storage::mapping::{FlushCount, Mapping};
use crate::storage::marks::Marks;
use crate::storage::publish::{Counter, ReleaseAcquire, commit};
use crate::storage::slot::{GRANULE, HEADER, MAX_LEN, SlotHeader};

/// Bytes with one owner, 8-aligned and initialised: what a chunk is made of.
pub(crate) struct Memory {
    base: NonNull<u8>,
    len: usize,
    backing: Backing,
}

enum Backing {
    Heap,
    #[cfg(unix)]
    Slot {
        mapping: Arc<Mapping>,
        first_granule: usize,
    },
}

// SAFETY: a `Memory` owns its bytes alone (by construction, see the top of this file), so it may move between
// threads like a `Box<[u8]>`; dropping it on another thread is what allocator and mapping both allow.
unsafe impl Send for Memory {}
// SAFETY: through a shared `Memory` nothing but its length and place can be read; access to the bytes goes through
// `&mut Memory` or through the protocol of `Chunk` and `ChunkWriter`.
unsafe impl Sync for Memory {}

impl Memory {
    /// `len` zeroed bytes of heap; `None` when there are none, or `len` could not hold a frame.
    pub(crate) fn heap(len: usize) -> Option<Memory> {
        let layout = Memory::layout(len)?;
        // SAFETY: the layout's size is not zero, `layout` saw to it.
        let base = unsafe { alloc_zeroed(layout) };
        Some(Memory { base: NonNull::new(base)?, len, backing: Backing::Heap })
    }

    /// Aligned to a cache line; only multiples of 8 that hold a header and more.
    fn layout(len: usize) -> Option<Layout> {
        if len <= HEADER || len > MAX_LEN || !len.is_multiple_of(8) {
            return None;
        }
        Layout::from_size_align(len, 64).ok()
    }

    /// All bytes, the header's too.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The salt of the slot's previous life; 0 where there was none.
    pub(crate) fn previous_salt(&mut self) -> u64 {
        u64_at(self.bytes(), 48)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `base` points to `len` initialised bytes that live as long as `self`; `&mut self` makes this the
        // only way to them, since a `Chunk` that shares them has the `Memory` locked away inside.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// Key and position that the slot's header is bound to.
    fn place(&self) -> (u64, usize) {
        match &self.backing {
            Backing::Heap => (0, 0),
            #[cfg(unix)]
            Backing::Slot { mapping, first_granule } => (mapping.key, Mapping::position(*first_granule)),
        }
    }

    /// The word at `at`, for atomic access.
    ///
    /// # Safety
    ///
    /// - `at` is a multiple of 8, and `at + 8 <= len`.
    /// - While the answer is used nobody reads or writes these 8 bytes without atomics.
    unsafe fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(8) && at + 8 <= self.len);
        // SAFETY: in bounds and aligned by the first duty (`base` is at least 8-aligned), alive as long as `self`;
        // free of mixed access by the second.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// Makes an empty chunk of it: what the slot said before is made invalid first, what it says now valid last.
    /// A process killed at any moment in between leaves a slot that says nothing.
    fn begin(&mut self, header: &SlotHeader) {
        let (key, position) = self.place();
        let encoded = header.encode(key, position);
        let mut first = [0; 8];
        first.copy_from_slice(&encoded[..8]);
        // SAFETY: 0 and HEADER are multiples of 8 and `len > HEADER` is one too; `&mut self` keeps all others away.
        let (magic, first_commit) = unsafe { (self.word(0), self.word(HEADER)) };
        magic.store(0, Ordering::Relaxed);
        first_commit.store(0, Ordering::Relaxed);
        // Keeps the compiler from moving the new header's bytes above the zeros.
        fence(Ordering::SeqCst);
        self.bytes()[8..HEADER].copy_from_slice(&encoded[8..]);
        // SAFETY: as above.
        let magic = unsafe { self.word(0) };
        magic.store(u64::from_ne_bytes(first), Ordering::Release);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &self.backing {
            Backing::Heap => {
                if let Some(layout) = Memory::layout(self.len) {
                    // SAFETY: allocated by `heap` with this very layout, and nobody else has the pointer.
                    unsafe { dealloc(self.base.as_ptr(), layout) };
                }
            }
            #[cfg(unix)]
            Backing::Slot { mapping, first_granule } => {
                mapping.release(*first_granule, self.len / GRANULE);
            }
        }
    }
}

#[cfg(unix)]
impl Mapping {
    /// Hands out `granules` neighbours, aligned to their own number: those were used before and are warm that are nearest
    /// to the end of the file that they are handed out from.
    pub(crate) fn take(self: &Arc<Self>, granules: usize) -> Option<Memory> {
        let first = self.granules.lock().take(granules)?;
        // SAFETY: `first + granules` is within the bitmap and so within the mapping, whose length is
        // `position(bitmap's length)`; the pointer stays in the same mapping.
        let base = unsafe { self.raw.as_mut_ptr().add(Mapping::position(first)) };
        let backing = Backing::Slot { mapping: Arc::clone(self), first_granule: first };
        // The granules are marked, so until `release` no other `Memory` has these bytes. The mapping's address is
        // page-aligned and a granule's position a multiple of 4096.
        NonNull::new(base).map(|base| Memory { base, len: granules * GRANULE, backing })
    }
}

/// A word that is 1, and 0 in a process that is forked from this one; `None` where the kernel does not do that. It stays
/// for as long as the process lives.
#[cfg(target_os = "linux")]
pub(crate) fn word_wiped_on_fork() -> Option<&'static AtomicU64> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    const PAGE: usize = 4096;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a page of zeros where the kernel finds room. Nobody but these calls has its address until the word is given
    // away, and then it is never unmapped. What the kernel does in a fork, it does before anything runs there.
    unsafe {
        let page = mmap_anonymous(std::ptr::null_mut(), PAGE, protection, MapFlags::PRIVATE).ok()?;
        if madvise(page, PAGE, Advice::LinuxWipeOnFork).is_err() {
            let _ = munmap(page, PAGE);
            return None;
        }
        let word = AtomicU64::from_ptr(page.cast());
        word.store(1, Ordering::Relaxed);
        Some(word)
    }
}

/// For tests: a fork of this process, which does `what` and ends, in half a minute at most.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn fork(what: impl FnOnce()) -> rustix::process::Pid {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    // SAFETY: the child has a copy of all memory, and of the threads this one alone. It ends here, with nothing dropped and
    // nothing unwound that the parent has as well.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(30);
            let done = catch_unwind(AssertUnwindSafe(what));
            libc::_exit(i32::from(done.is_err()));
        }
        rustix::process::Pid::from_raw(child).expect("a process can be forked")
    }
}

#[cfg(unix)]
impl FlushCount {
    pub(super) fn word(&self) -> &AtomicU64 {
        // SAFETY: the mapping is page-aligned, `HEAD` long and lives as long as `self`; `AT` is a multiple of 8 within it.
        // No `Memory` holds bytes of the head, so that this word is reached by these atomics only.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().add(FlushCount::AT).cast()) }
    }
}

/// Stores the fixed header of a frame, all but the commit word: what is summed up of it in one piece, as the next load of it
/// would have to wait for two, and a compiler makes two of it.
#[inline(always)]
fn store_header(out: &mut [u8], offset: u64, [time, lens]: [u64; 2]) {
    let ([first, second, ..], _) = out.as_chunks_mut::<16>() else { return };
    first[8..].copy_from_slice(&offset.to_le_bytes());
    #[cfg(target_arch = "x86_64")]
    // SAFETY: to 16 bytes that are borrowed mutably, with no need of alignment; every x86-64 has both instructions.
    unsafe {
        let both = _mm_set_epi64x(lens.cast_signed(), time.cast_signed());
        _mm_storeu_si128(second.as_mut_ptr().cast(), both);
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        second[..8].copy_from_slice(&time.to_le_bytes());
        second[8..].copy_from_slice(&lens.to_le_bytes());
    }
}

/// Keys and values up to this length are summed up as they are stored; longer ones are faster copied, and then summed up in
/// lanes.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 256;

/// Fills what stands behind the header of `out`, a frame, with the key and the value that it is exactly long enough for, and
/// returns the frame's checksum. Of the header all but the commit word is there.
///
/// All is summed up while it is in a register: what was just stored in other pieces could not be loaded before it has left
/// the processor.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "pclmulqdq,avx")]
fn fill_folded<const LONG_KEY: bool>(out: &mut [u8], key: &[u8], value: &[u8]) -> u32 {
    let len = frame::FIXED + frame::align8(key.len()) + frame::align8(value.len());
    assert!(out.len() == len && (LONG_KEY || key.len() <= 8), "the frame has another length");
    let begins = frame::sum_begins(u64_at(out, 8), len);
    let words_of = |rest: &[u8]| fold::words(frame::word_of(rest, 0), frame::word_of(rest, 8));
    // SAFETY: what is loaded are 16 bytes of slices: of the header, which `out` has by its length; chunks of a key; of a value
    // that has as many, those that begin no later than its last 16. What is stored goes to where the header ends, and then to
    // behind what was stored before: each word of key and value once, two by two and at the end perhaps one, so that all are
    // as many bytes as `out` has there.
    unsafe {
        let to = out.as_mut_ptr().add(frame::FIXED);
        let mut filler = Filler { to, sum: Fold::begin(begins, _mm_loadu_si128(to.sub(16).cast())) };
        let (pairs, rest) = if LONG_KEY { key.as_chunks::<16>() } else { (&[] as &[[u8; 16]], key) };
        for pair in pairs {
            filler.store(_mm_loadu_si128(pair.as_ptr().cast()));
        }
        // How much of the value stands in a pair with the key's last word.
        let mut shared = 0;
        match rest.len() {
            0 => {}
            len if value.is_empty() => return filler.end(words_of(rest), len),
            1..=8 => {
                filler.store(fold::words(frame::word_of(rest, 0), frame::word_of(value, 0)));
                shared = 8;
            }
            _ => filler.store(words_of(rest)),
        }
        if value.len() < 16 {
            let rest = value.get(shared..).unwrap_or_default();
            return filler.end(words_of(rest), rest.len());
        }
        let mut from = value.as_ptr().add(shared);
        let last = value.as_ptr().add(value.len() - 16);
        while from <= last {
            filler.store(_mm_loadu_si128(from.cast()));
            from = from.add(16);
        }
        // The last 16 bytes but for those that were stored already.
        let stored = from.offset_from_unsigned(last);
        filler.end(fold::without_first(_mm_loadu_si128(last.cast()), stored), 16 - stored)
    }
}

/// Where [`fill_folded`] stands.
#[cfg(target_arch = "x86_64")]
struct Filler {
    to: *mut u8,
    sum: Fold,
}

#[cfg(target_arch = "x86_64")]
impl Filler {
    /// Stores two words. Safe where there are 16 bytes at `to` that are the caller's to write.
    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    unsafe fn store(&mut self, both: __m128i) {
        // SAFETY: the caller's duty, and `to` moves to their end.
        unsafe {
            _mm_storeu_si128(self.to.cast(), both);
            self.to = self.to.add(16);
        }
        self.sum.add(both);
    }

    /// Stores the last words, of which `len` bytes, at most 16, are not padding; the checksum. Safe where as many bytes, in whole
    /// words, are the caller's to write at `to`.
    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    unsafe fn end(mut self, words: __m128i, len: usize) -> u32 {
        // SAFETY: the caller's duty: of more than 8 bytes two words, of fewer one.
        unsafe {
            if len > 8 {
                self.store(words);
            } else if len > 0 {
                _mm_storel_epi64(self.to.cast(), words);
                self.sum.add_half(words);
            }
        }
        self.sum.end()
    }
}

/// A piece of the hot tail, as readers see it.
pub(crate) struct Chunk {
    /// Taken out in `drop` only.
    memory: ManuallyDrop<Memory>,
    header: SlotHeader,
    /// Bytes below are readable and stay as they are. On a cache line of its own: the writer stores it with each append.
    published: CachePadded<Counter<AtomicUsize>>,
    marks: Marks,
    sealed: AtomicBool,
    evicted: AtomicBool,
    /// Whether it is booked as an internal topic's.
    internal: bool,
    home: Arc<dyn Home>,
}

impl Chunk {
    /// All bytes of the chunk, its header's too: where the last frame ends at the latest.
    pub(crate) fn capacity(&self) -> usize {
        self.memory.len
    }

    /// The offset of the first frame, or of the next one while the chunk is empty.
    pub(crate) fn base_offset(&self) -> u64 {
        self.header.base_offset
    }

    /// The leader epoch that all frames were appended in.
    pub(crate) fn epoch(&self) -> u32 {
        self.header.epoch
    }

    /// What tags are mixed with, beside the position.
    pub(crate) fn salt(&self) -> u64 {
        self.header.salt
    }

    /// The position where published frames end; at least [`HEADER`], never falls.
    #[inline]
    pub(crate) fn committed(&self) -> usize {
        self.published.seen()
    }

    /// The published bytes `from..to`; `None` unless `HEADER <= from <= to <= committed()`.
    #[inline]
    pub(crate) fn bytes(&self, from: usize, to: usize) -> Option<&[u8]> {
        if from < HEADER || from > to || to > self.committed() {
            return None;
        }
        // SAFETY: in bounds, since `committed <= len`; initialised. Bytes below the counter are never written again
        // while the chunk lives (the writer starts at the counter), and the chunk lives as long as the slice,
        // which borrows it. The acquire load of the counter orders the writer's stores before this.
        Some(unsafe { std::slice::from_raw_parts(self.memory.base.as_ptr().add(from), to - from) })
    }

    /// The bytes that [`Chunk::bytes`] gives, kept: whoever reads them does not look at the counter again, whose
    /// cache line the writer stores to.
    pub(crate) fn hold(self: &Arc<Self>, from: usize, to: usize) -> Option<Held> {
        let bytes = NonNull::from(self.bytes(from, to)?);
        Some(Held { bytes, keeper: Keeper::Chunk(Arc::clone(self)) })
    }

    /// Where one record in so many lies.
    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Whether no frame will follow. A reader at the end looks at [`Chunk::committed`] *again* after a yes.
    pub(crate) fn sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Has the `len` bytes from `from` on ready to be written to, as far as the chunk goes. Whenever the kernel writes pages
    /// of a staging file back, it takes the right to write to them away, and who does so next pays for a fault.
    pub(crate) fn warm(&self, from: usize, len: usize) {
        let len = len.min(self.memory.len.saturating_sub(from));
        match &self.memory.backing {
            #[cfg(unix)]
            Backing::Slot { mapping, first_granule } if len > 0 => {
                mapping.make_writable(Mapping::position(*first_granule) + from, len);
            }
            _ => {}
        }
    }

    /// Called once the chunk has left its tail: from now on it counts as pinned until readers let go of it.
    pub(crate) fn mark_evicted(&self) {
        if !self.evicted.swap(true, Ordering::AcqRel) {
            self.home.evicted(self.memory.len, self.internal);
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.home.is_fork() {
            return;
        }
        // SAFETY: `memory` is not touched again, this is the drop of its only holder. `Arc` made every use of other
        // holders happen before this, so whoever gets the memory next may write it.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        self.home.give_back(memory, self.internal, *self.evicted.get_mut());
    }
}

/// Bytes that stay as they are, and what keeps them alive: published bytes of a chunk, made by [`Chunk::hold`], or those
/// of something else, made by [`Held::within`]. Reading them costs no look at what they are part of.
#[derive(Clone)]
pub(crate) struct Held {
    bytes: NonNull<[u8]>,
    keeper: Keeper,
}

/// Whose the bytes are.
#[derive(Clone)]
enum Keeper {
    Chunk(Arc<Chunk>),
    Other { _owner: Arc<dyn Send + Sync> },
}

// SAFETY: bytes that nobody writes while their keeper lives, read only, and an `Arc` of what is `Send` and `Sync`.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// The `bytes` of something that is no chunk.
    pub(crate) fn within<T: Send + Sync + 'static>(
        owner: Arc<T>,
        bytes: impl for<'a> FnOnce(&'a T) -> &'a [u8],
    ) -> Held {
        let bytes = NonNull::from(bytes(&owner));
        Held { bytes, keeper: Keeper::Other { _owner: owner } }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the slice that it was made from (the fields are private), which holds still:
        // - of a chunk, the slice that `Chunk::bytes` gave, in `Chunk::hold` or in `extend`. The chunk lives as long as this,
        //   its memory does not move, and the counter never falls, so all that `Chunk::bytes` argues holds still.
        // - of another owner, a slice that its maker gave for a borrow of *any* length of the owner. As long as this holds the
        //   `Arc`, the owner does not move and nobody can borrow it mutably or drop it: a borrow that began when this was made
        //   and lasts as long as this does is one of those lengths.
        // What was ordered before the making of this is ordered before its use, on whatever thread: a value moves or is shared
        // between threads only with a happens-before of its own.
        unsafe { self.bytes.as_ref() }
    }

    /// Whether it is a chunk's, behind whose bytes more may come.
    #[inline]
    pub(crate) fn may_grow(&self) -> bool {
        matches!(self.keeper, Keeper::Chunk(_))
    }

    /// Takes in what was published behind the bytes of a chunk since.
    #[inline]
    pub(crate) fn extend(&mut self) {
        let Keeper::Chunk(chunk) = &self.keeper else { return };
        let from = self.bytes.cast::<u8>().addr().get() - chunk.memory.base.addr().get();
        if let Some(bytes) = chunk.bytes(from, chunk.committed()) {
            self.bytes = NonNull::from(bytes);
        }
    }
}

/// The one that may write a chunk. Dropping it seals the chunk.
pub(crate) struct ChunkWriter {
    chunk: Arc<Chunk>,
    /// Where the next frame goes; the word there is zero, unless it is the end.
    cursor: usize,
    /// Records before the cursor, and before the published counter.
    records: usize,
    published: usize,
    /// Whether the processor has what [`fill_folded`] needs.
    #[cfg(target_arch = "x86_64")]
    folds: bool,
}

impl ChunkWriter {
    /// Begins a chunk in `memory`. The header's length is set here.
    pub(crate) fn begin(
        mut memory: Memory,
        mut header: SlotHeader,
        internal: bool,
        home: Arc<dyn Home>,
    ) -> ChunkWriter {
        #[allow(clippy::cast_possible_truncation)] // at most MAX_LEN
        {
            header.len = memory.len as u32;
        }
        memory.begin(&header);
        let memory_len = memory.len;
        let chunk = Chunk {
            memory: ManuallyDrop::new(memory),
            header,
            published: CachePadded::new(Counter::new(AtomicUsize::new(HEADER))),
            marks: Marks::new(memory_len),
            sealed: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            internal,
            home,
        };
        ChunkWriter {
            chunk: Arc::new(chunk),
            cursor: HEADER,
            records: 0,
            published: 0,
            #[cfg(target_arch = "x86_64")]
            folds: fold::can_fold(),
        }
    }

    /// What readers share.
    pub(crate) fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// Bytes left for frames. The word that ends them needs no room of its own: where frames leave any, it is at
    /// least 8 bytes; where they fill the chunk, the end is the end.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.chunk.memory.len - self.cursor
    }

    /// Room where the next frame goes; `None` without any for `len`, or where that is no multiple of 8.
    #[inline]
    pub(crate) fn reserve(&mut self, len: usize) -> Option<Room<'_>> {
        let fits = len > 0 && len.is_multiple_of(8) && len <= self.room();
        fits.then_some(Room { writer: self, len })
    }

    /// The bytes of the [`Room`] that [`ChunkWriter::reserve`] gives, to look at.
    #[inline]
    pub(crate) fn reserved(&self, len: usize) -> Option<&[u8]> {
        let base = self.chunk.memory.base.as_ptr();
        // SAFETY: in bounds by the check, initialised; written through a `Room` only, which borrows the writer mutably.
        (len <= self.room()).then(|| unsafe { std::slice::from_raw_parts(base.add(self.cursor), len) })
    }

    /// Lets readers see all that was staged, at once.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.published = self.records;
        self.chunk.published.publish(self.cursor);
    }

    /// Takes back what was staged and not published.
    pub(crate) fn abandon(&mut self) {
        let published = self.chunk.published.seen();
        if self.cursor > published {
            // The frames behind it prove themselves still, but nobody gets past a zero.
            // SAFETY: where the cursor stood once, and before where it is now (see `Room::stage`).
            unsafe { self.chunk.memory.word(published) }.store(0, Ordering::Release);
            self.cursor = published;
            // Other frames may come to lie where these marks point to.
            self.chunk.marks.clear(self.published, self.records);
            self.records = self.published;
        }
    }

    /// No frame will follow; what was staged and not published is taken back. When rolling, the successor goes into
    /// the tail first: who sees the seal then finds it there.
    pub(crate) fn seal(self) -> Arc<Chunk> {
        Arc::clone(&self.chunk)
    }
}

/// Room for one frame behind the last: made by [`ChunkWriter::reserve`], so that its length fits.
pub(crate) struct Room<'a> {
    writer: &'a mut ChunkWriter,
    len: usize,
}

impl<'a> Room<'a> {
    /// Its bytes, holding whatever was there.
    #[inline]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        Room { writer: self.writer, len: self.len }.into_bytes()
    }

    #[inline]
    pub(crate) fn into_bytes(self) -> &'a mut [u8] {
        let base = self.writer.chunk.memory.base.as_ptr();
        // SAFETY: in bounds, `reserve` looked. At or beyond the published counter (the cursor never is below it), where
        // readers make no slices; the only writer is borrowed for as long as this slice lives.
        unsafe { std::slice::from_raw_parts_mut(base.add(self.writer.cursor), self.len) }
    }

    /// Writes the frame of `record` here, which has just this length, and ends it.
    #[inline(always)] // of what the caller knows of the record nothing need be asked again
    pub(crate) fn write(mut self, record: &Record<'_>, offset: u64, timestamp: Timestamp, bits: u8) {
        let tag = self.fill(record, offset, timestamp, bits);
        self.stage(tag, true);
    }

    #[inline(always)]
    fn fill(&mut self, record: &Record<'_>, offset: u64, timestamp: Timestamp, bits: u8) -> u32 {
        #[cfg(target_arch = "x86_64")]
        {
            let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            let is_short = record.headers.is_empty() && key.len() <= SHORT && value.len() <= SHORT;
            if is_short && self.writer.folds {
                store_header(self.bytes(), offset, frame::fixed_words(record, timestamp, bits));
                // SAFETY: the processor was asked for what the function needs when the chunk was begun.
                return unsafe {
                    match key.len() {
                        ..=8 => fill_folded::<false>(self.bytes(), key, value),
                        _ => fill_folded::<true>(self.bytes(), key, value),
                    }
                };
            }
        }
        // A copy, so that the record need not lie in memory where it was appended.
        let record = *record;
        frame::write(self.bytes(), &record, offset, timestamp, bits, None)
    }

    /// Ends the frame of a value of `len` bytes that stands behind the fixed header here, with zeros behind it.
    #[inline]
    pub(crate) fn write_around(mut self, len: usize, offset: u64, timestamp: Timestamp, bits: u8) {
        store_header(self.bytes(), offset, frame::fixed_words_of_value(len, timestamp, bits));
        let tag = self.sum();
        self.stage(tag, true);
    }

    #[inline]
    fn sum(&mut self) -> u32 {
        #[cfg(target_arch = "x86_64")]
        if self.writer.folds && self.len <= SHORT {
            // SAFETY: as above.
            return unsafe { frame::checksum_folded(self.bytes()) };
        }
        frame::checksum_of(self.bytes())
    }

    /// Ends the frame that was written here: recovery believes it from now on, readers after [`ChunkWriter::publish`]. Whether
    /// it is a record is for those who count them.
    #[inline]
    pub(crate) fn stage(self, pure_tag: u32, is_record: bool) {
        let Room { writer, len } = self;
        let (chunk, from, end) = (&*writer.chunk, writer.cursor, writer.cursor + len);
        chunk.marks.set(writer.records, from);
        writer.records += usize::from(is_record);
        #[allow(clippy::cast_possible_truncation)] // at most MAX_LEN
        let word = commit_word(len as u32, pure_tag ^ mix(chunk.header.salt, from));
        // SAFETY: the cursor begins at `HEADER` and moves by lengths that `reserve` looked at, multiples of 8 that there is
        // room for: `from` is within the memory, and `end` where that is looked at. Both are at or beyond the published
        // counter, where readers do not look; no slice of a room outlives this call, and the words are let go of here.
        let word_at = |at| unsafe { chunk.memory.word(at) };
        let (own, following) = (word_at(from), (end < chunk.memory.len).then(|| word_at(end)));
        commit::<_, ReleaseAcquire>(own, following, word.to_le());
        writer.cursor = end;
    }
}

impl Drop for ChunkWriter {
    fn drop(&mut self) {
        if self.chunk.home.is_fork() {
            return;
        }
        self.abandon();
        self.chunk.sealed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
