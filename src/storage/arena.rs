//! The memory of the hot tail: a budget, handed out in chunks.
//!
//! In memory a chunk is heap; in a durable log it is a slot of a *staging file*, which is made whole when the
//! log opens, mapped, and never reused by a later open. All files of one open are named
//! `staging-<file id, 16 hex digits>-<number>`: number 0 is the budget; further ones come while readers pin what left the
//! tails, and for an append that is larger than the largest slot. Bytes of a file, little-endian:
//!
//! ```text
//!    0  magic         u32   "TLA1"
//!    4  checksum      u32   CRC-32 of bytes 8..64
//!    8  version       u32   1
//!   12  granule       u32   65536
//!   16  file id       u64
//!   24  incarnation   u64
//!   32  key           u64   random; the checksums of slot headers begin with it
//!   40  granules      u32   how many follow
//!   44  number        u32
//!   48  reserved            16 bytes, 0
//!   64  reserved            up to 4096, 0, for readers in other processes
//! 4096  granules; a slot is one or more of them and begins with the header drawn in `chunk.rs`
//! ```
//!
//! Which granules make a slot is said by nothing but the slots' headers: recovery looks at every granule. It
//! may so find slots that were given back, or parts of them. That does no harm: their frames prove themselves or are
//! not believed, and offsets that are in the segments already are not replayed.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::{FrameView, mix};
#[cfg(unix)]
use crate::storage::chunk::Mapping;
use crate::storage::chunk::{ChunkWriter, GRANULE, HEADER, Home, MAX_LEN, Memory, SlotHeader};

/// Sizes of slots. Small ones for quiet partitions.
const CLASSES: [usize; 3] = [GRANULE, 8 * GRANULE, 64 * GRANULE];
/// The smallest budget: two small chunks, the reserve, and one to roll into.
pub(crate) const MIN_BUDGET: usize = 4 * GRANULE;
/// Freed heap chunks kept warm, per class.
const KEPT: usize = 16;
/// Bytes of a file's header that mean something.
const FILE_HEADER: usize = 64;
/// "TLA1".
const MAGIC: u32 = u32::from_le_bytes(*b"TLA1");
const VERSION: u32 = 1;

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

/// Hands out chunks under a budget.
///
/// What is in tails (`used - pinned`) never exceeds the budget. What left its tail and is still held by readers is
/// `pinned`, and metered apart: it may take as much again, so that slow readers do not stop the writers.
pub(crate) struct Pool {
    budget: usize,
    /// Part of the budget that only internal topics may use.
    reserve: usize,
    incarnation: u64,
    /// Set at the end of the log: what is given back from then on may never have been written.
    keeps_files: AtomicBool,
    /// Where staging files go; `None` for heap.
    #[cfg(unix)]
    staging: Option<Staging>,
    state: Mutex<State>,
}

#[cfg(unix)]
struct Staging {
    folder: PathBuf,
    file_id: u64,
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

#[cfg(unix)]
struct StagingFile {
    path: PathBuf,
    mapping: Arc<Mapping>,
    kind: Kind,
}

#[cfg(unix)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Number 0: lives as long as the pool.
    Budget,
    /// Came because readers pin memory.
    Further,
    /// Made for one large append.
    Own,
}

impl Pool {
    /// A pool of heap memory, for a log in memory.
    pub(crate) fn heap(limit_bytes: usize) -> Result<Arc<Pool>> {
        Pool::new(limit_bytes, 0).map(Arc::new)
    }

    /// A pool of slots in staging files in `folder`. The first file is created, allocated and flushed here.
    #[cfg(unix)]
    pub(crate) fn mapped(
        folder: &Path,
        file_id: u64,
        incarnation: u64,
        budget_bytes: usize,
    ) -> Result<Arc<Pool>> {
        let mut pool = Pool::new(budget_bytes, incarnation)?;
        let staging = Staging { folder: folder.to_path_buf(), file_id };
        let file = staging.create(0, incarnation, pool.budget, Kind::Budget)?;
        let flushed = std::fs::File::open(folder).and_then(|f| f.sync_all());
        if let Err(e) = flushed {
            // The error that matters is the first.
            let _ = std::fs::remove_file(&file.path);
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
    pub(crate) fn mapped(folder: &Path, _: u64, _: u64, _: usize) -> Result<Arc<Pool>> {
        Err(unsupported(folder))
    }

    fn new(budget_bytes: usize, incarnation: u64) -> Result<Pool> {
        let budget = budget_bytes / GRANULE * GRANULE;
        if budget < MIN_BUDGET || u32::try_from(budget / GRANULE).is_err() || budget > usize::MAX / 4 {
            let message = format!("a memory budget of {budget_bytes} bytes; the least is {MIN_BUDGET}");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        Ok(Pool {
            budget,
            reserve: (budget / 16 / GRANULE * GRANULE).max(GRANULE),
            incarnation,
            keeps_files: AtomicBool::new(false),
            #[cfg(unix)]
            staging: None,
            state: Mutex::default(),
        })
    }

    /// Unlinks no file from now on. While a log is open chunks come back once they are written; at its end they come
    /// back because their partitions go, and the next open must find there what was not written.
    pub(crate) fn keep_files(&self) {
        self.keeps_files.store(true, Ordering::Release);
    }

    /// Bytes of chunks that somebody holds, pinned ones too.
    pub(crate) fn used_bytes(&self) -> usize {
        self.state.lock().used
    }

    /// Bytes of chunks that left their tail and are held by readers.
    pub(crate) fn pinned_bytes(&self) -> usize {
        self.state.lock().pinned
    }

    /// Bytes that there are, used or not: of all files, or of the heap's budget and what is pinned beside it.
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
                // What was hinted at first, then smaller ones.
                self.slot(&classes[smallest..=hinted.max(smallest)], want.internal)?
            }
        };
        Ok(memory.map(|memory| self.begin(memory, want)))
    }

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
        let largest = self.classes().last().copied().unwrap_or(GRANULE);
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
        unlink(idle);
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
        let made = staging.create(number, self.incarnation, file_size, kind).and_then(|file| {
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
        if !self.is_heap() {
            if !self.keeps_files.load(Ordering::Acquire) {
                let further = state.pinned == 0;
                let idle = state.remove_idle(further);
                drop(state);
                unlink(idle);
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

/// Unlinks and unmaps, with no lock held.
#[cfg(unix)]
fn unlink(files: Vec<StagingFile>) {
    for file in files {
        // One that stays goes with `remove`; until then recovery finds nothing new in it.
        let _ = std::fs::remove_file(&file.path);
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

/// What the first bytes of a staging file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileHeader {
    file_id: u64,
    incarnation: u64,
    key: u64,
    granules: u32,
    number: u32,
}

impl FileHeader {
    fn encode(&self) -> [u8; FILE_HEADER] {
        let mut out = [0; FILE_HEADER];
        #[allow(clippy::cast_possible_truncation)] // 65536
        let granule = GRANULE as u32;
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&granule.to_le_bytes());
        out[16..24].copy_from_slice(&self.file_id.to_le_bytes());
        out[24..32].copy_from_slice(&self.incarnation.to_le_bytes());
        out[32..40].copy_from_slice(&self.key.to_le_bytes());
        out[40..44].copy_from_slice(&self.granules.to_le_bytes());
        out[44..48].copy_from_slice(&self.number.to_le_bytes());
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Result<FileHeader, &'static str> {
        let u32_at = |at: usize| bytes.get(at..at + 4)?.try_into().map(u32::from_le_bytes).ok();
        let u64_at = |at: usize| bytes.get(at..at + 8)?.try_into().map(u64::from_le_bytes).ok();
        let checksum = bytes.get(8..FILE_HEADER).map(crc32fast::hash);
        if u32_at(0) != Some(MAGIC) || checksum.is_none() || u32_at(4) != checksum {
            return Err("not a staging file, or its header is damaged");
        }
        if u32_at(8) != Some(VERSION) || u32_at(12) != u32::try_from(GRANULE).ok() {
            return Err("a staging file of another version");
        }
        let header = || {
            Some(FileHeader {
                file_id: u64_at(16)?,
                incarnation: u64_at(24)?,
                key: u64_at(32)?,
                granules: u32_at(40)?,
                number: u32_at(44)?,
            })
        };
        header().ok_or("a staging file that is cut short")
    }
}

fn file_name(file_id: u64, number: u32) -> String {
    format!("staging-{file_id:016x}-{number:03}")
}

#[cfg(unix)]
impl Staging {
    fn create(&self, number: u32, incarnation: u64, size: usize, kind: Kind) -> Result<StagingFile> {
        let path = self.folder.join(file_name(self.file_id, number));
        let granules = size / GRANULE;
        let header = FileHeader {
            file_id: self.file_id,
            incarnation,
            key: fresh_random(0),
            granules: u32::try_from(granules).unwrap_or(u32::MAX), // the budget was checked
            number,
        };
        // Only the first is flushed: what is in the others was never promised to survive a power cut.
        let flush = kind == Kind::Budget;
        let mapping = Mapping::create(&path, &header.encode(), granules, header.key, flush)?;
        Ok(StagingFile { path, mapping, kind })
    }
}

#[cfg(not(unix))]
fn unsupported(folder: &Path) -> Error {
    Error::new(ErrorKind::Unsupported, "staging files need a Unix").at_path(folder)
}

/// A slot that recovery found; its bytes are read when asked for.
#[derive(Debug, Clone)]
pub(crate) struct StagedChunk {
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
    pub(crate) epoch: u32,
    pub(crate) base_offset: u64,
    pub(crate) salt: u64,
    /// As the header says; the file may be shorter.
    pub(crate) len: usize,
    path: Arc<PathBuf>,
    position: u64,
}

impl StagedChunk {
    /// Reads the slot into `into`, whose memory is reused: shorter than [`StagedChunk::len`] where the file ends early.
    #[cfg(unix)]
    pub(crate) fn read(&self, into: &mut Vec<u8>) -> Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        into.clear();
        let mut file = open(&self.path)?;
        file.seek(SeekFrom::Start(self.position))
            .and_then(|_| file.take(self.len as u64).read_to_end(into))
            .map_err(|e| Error::io("read the staging file", &self.path, e).at_position(self.position))?;
        Ok(())
    }

    /// Reads the slot.
    #[cfg(not(unix))]
    pub(crate) fn read(&self, _: &mut Vec<u8>) -> Result<()> {
        Err(unsupported(&self.path))
    }

    /// The frames in `bytes`, which [`StagedChunk::read`] read.
    pub(crate) fn frames<'a>(&self, bytes: &'a [u8]) -> ProvedFrames<'a> {
        proved_frames(bytes, self.salt)
    }
}

/// The frames of a slot up to the first that does not prove itself.
#[derive(Clone)]
pub(crate) struct ProvedFrames<'a> {
    bytes: &'a [u8],
    salt: u64,
    at: usize,
}

/// Walks the frames of a slot's `bytes`, header and all, whatever they are.
pub(crate) fn proved_frames(bytes: &[u8], salt: u64) -> ProvedFrames<'_> {
    ProvedFrames { bytes, salt, at: HEADER }
}

impl<'a> Iterator for ProvedFrames<'a> {
    /// The position in the slot, and the frame. Its tag is still mixed with both.
    type Item = (usize, FrameView<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        // A zero word has length 0, which `parse` refuses like any length that does not fit.
        let frame = self.bytes.get(at..).and_then(|rest| FrameView::parse(rest).ok());
        match frame.filter(|frame| frame.verify(mix(self.salt, at)).is_ok()) {
            Some(frame) => {
                self.at += frame.len();
                Some((at, frame))
            }
            None => {
                self.at = self.bytes.len();
                None
            }
        }
    }
}

impl std::iter::FusedIterator for ProvedFrames<'_> {}

/// Lists the slots that incarnation `incarnation` left in the staging files `file_id`, in no particular order. Files
/// are read, never mapped.
///
/// Errors: [`ErrorKind::StagingMissing`] without the first file, [`ErrorKind::CorruptRecord`] if its header is
/// damaged, [`ErrorKind::ForeignFile`] if it is another's.
#[cfg(unix)]
pub(crate) fn recover(folder: &Path, file_id: u64, incarnation: u64) -> Result<Vec<StagedChunk>> {
    let files = staging_files(folder, file_id)?;
    if files.first().is_none_or(|(number, _)| *number != 0) {
        let path = folder.join(file_name(file_id, 0));
        return Err(Error::new(ErrorKind::StagingMissing, "the staging file is absent").at_path(&path));
    }
    let mut found = Vec::new();
    for (number, path) in files {
        match read_header(&path, file_id, number)? {
            Ok(header) if header.incarnation == incarnation => list_slots(path, &header, &mut found)?,
            // An older open's: what it held was replayed by the one after it.
            Ok(_) => {}
            Err(e) if number == 0 => return Err(e),
            // A further file was cut off while it was made, or lost its header with the power: nothing in it was
            // promised to survive that.
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Lists the slots that an incarnation left.
#[cfg(not(unix))]
pub(crate) fn recover(folder: &Path, _: u64, _: u64) -> Result<Vec<StagedChunk>> {
    Err(unsupported(folder))
}

/// The header of a file. Outer errors are of the disk, inner ones of the bytes.
#[cfg(unix)]
fn read_header(path: &Path, file_id: u64, number: u32) -> Result<Result<FileHeader>> {
    let mut bytes = [0; FILE_HEADER];
    let n = read_at(&open(path)?, path, &mut bytes, 0)?;
    let header = match FileHeader::parse(&bytes[..n]) {
        Ok(header) => header,
        Err(what) => return Ok(Err(Error::new(ErrorKind::CorruptRecord, what).at_path(path))),
    };
    if (header.file_id, header.number) != (file_id, number) {
        let message = "the staging file is not what its name says";
        return Ok(Err(Error::new(ErrorKind::ForeignFile, message).at_path(path)));
    }
    Ok(Ok(header))
}

#[cfg(unix)]
fn list_slots(path: PathBuf, header: &FileHeader, found: &mut Vec<StagedChunk>) -> Result<()> {
    let file = open(&path)?;
    let path = Arc::new(path);
    // As many as the header, which proved itself, says, and no more than the file has.
    for granule in 0..header.granules as usize {
        let position = Mapping::position(granule);
        let mut bytes = [0; HEADER];
        if read_at(&file, &path, &mut bytes, position as u64)? < HEADER {
            break;
        }
        let Some(slot) = SlotHeader::parse(&bytes, header.key, position) else { continue };
        let len = slot.len as usize;
        let fits = len.is_multiple_of(GRANULE) && granule + len / GRANULE <= header.granules as usize;
        if slot.incarnation != header.incarnation || !fits {
            continue;
        }
        found.push(StagedChunk {
            topic_id: slot.topic_id,
            partition: slot.partition,
            epoch: slot.epoch,
            base_offset: slot.base_offset,
            salt: slot.salt,
            len,
            path: Arc::clone(&path),
            position: position as u64,
        });
    }
    Ok(())
}

/// Unlinks all staging files `file_id`. A missing one is no error.
pub(crate) fn remove(folder: &Path, file_id: u64) -> Result<()> {
    // The first goes last: while it is there, the others can be found to belong to something.
    for (_, path) in staging_files(folder, file_id)?.into_iter().rev() {
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove the staging file", &path, e)),
        }
    }
    Ok(())
}

/// Numbers and paths, by number. A missing folder has none.
fn staging_files(folder: &Path, file_id: u64) -> Result<Vec<(u32, PathBuf)>> {
    let failed = |e| Error::io("list the staging files", folder, e);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let prefix = format!("staging-{file_id:016x}-");
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse().ok());
        // Only the name that this number would be given, not another spelling of it.
        if let Some(number) = number.filter(|&n| name.to_str() == Some(&file_name(file_id, n))) {
            files.push((number, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Opens a regular file, nothing else, for reading.
#[cfg(unix)]
fn open(path: &Path) -> Result<std::fs::File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    // Without NONBLOCK opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: std::fs::File = openat(CWD, path, flags, Mode::empty())
        .map_err(|e| Error::io("open the staging file", path, e.into()))?
        .into();
    let metadata = file.metadata().map_err(|e| Error::io("inspect the staging file", path, e))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(Error::new(ErrorKind::ForeignFile, "the staging file is no regular file").at_path(path))
    }
}

/// Reads as many bytes as there are.
#[cfg(unix)]
fn read_at(file: &std::fs::File, path: &Path, out: &mut [u8], position: u64) -> Result<usize> {
    use std::os::unix::fs::FileExt;
    let mut n = 0;
    while n < out.len() {
        match file.read_at(&mut out[n..], position + n as u64) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read the staging file", path, e).at_position(position)),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

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
            test(Pool::mapped(folder.path(), 1, 1, budget).unwrap());
        }
    }

    #[test]
    fn takes_the_hinted_class_then_smaller_ones() {
        both(BUDGET, |pool| {
            let size = |len, hint| pool.take(&want(len, hint)).unwrap().map(|w| w.chunk().capacity());
            assert_eq!(size(100, 0), Some(GRANULE));
            assert_eq!(size(100, GRANULE), Some(GRANULE));
            assert_eq!(size(100, GRANULE + 1), Some(8 * GRANULE));
            assert_eq!(size(100, usize::MAX), Some(64 * GRANULE));
            assert_eq!(size(GRANULE - HEADER, 0), Some(GRANULE));
            assert_eq!(size(GRANULE - HEADER + 8, 0), Some(8 * GRANULE));
            assert_eq!(pool.used_bytes(), 0);
            // 15 MiB are for everybody: three large chunks, then six of 512 KiB.
            let mut held: Vec<_> =
                std::iter::from_fn(|| pool.take(&want(GRANULE, usize::MAX)).unwrap()).collect();
            let sizes: Vec<_> = held.iter().map(|w| w.chunk().capacity() / GRANULE).collect();
            assert_eq!(sizes, [64, 64, 64, 8, 8, 8, 8, 8, 8]);
            assert!(pool.take(&want(100, usize::MAX)).unwrap().is_none(), "the rest is reserved");
            let internal = pool.take(&Want { internal: true, ..want(100, GRANULE) }).unwrap();
            assert!(internal.is_some());
            held.pop();
            assert_eq!(size(100, usize::MAX), Some(8 * GRANULE));
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
            // Larger than the only class: made to measure.
            let own = pool.take(&want(GRANULE, 0)).unwrap().unwrap();
            assert_eq!(own.chunk().capacity(), 2 * GRANULE);
            assert!(pool.take(&want(GRANULE, 0)).unwrap().is_none());
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
            assert!(live >= BUDGET - pool.reserve - GRANULE, "{live}");
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
        let pool = Pool::mapped(folder.path(), 0xAB, 1, BUDGET).unwrap();
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
        assert!(rest.iter().all(|w| w.chunk().capacity() == 8 * GRANULE));
        let further = pool.take(&want(100, usize::MAX)).unwrap().unwrap();
        assert_eq!(further.chunk().capacity(), 64 * GRANULE);
        drop(rest);
        assert_eq!(files(folder.path()), [name(0), name(2)]);
        drop(held);
        assert_eq!(files(folder.path()), [name(0), name(2)]);
        drop(further);
        assert_eq!(files(folder.path()), [name(0)]);
        assert!(Pool::mapped(folder.path(), 0xAB, 1, BUDGET).is_err(), "no staging file is ever reused");
        remove(folder.path(), 0xAB).unwrap();
        remove(folder.path(), 0xAB).unwrap();
        assert!(files(folder.path()).is_empty());
    }

    #[cfg(target_pointer_width = "64")]
    #[cfg(unix)]
    #[test]
    fn a_disk_too_small_is_no_space_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let e = Pool::mapped(folder.path(), 1, 1, 1 << 46).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::NoSpace, "{e}");
        assert!(files(folder.path()).is_empty());
    }

    #[cfg(unix)]
    fn values(chunk: &StagedChunk) -> Vec<(u64, Vec<u8>)> {
        let mut bytes = Vec::new();
        chunk.read(&mut bytes).unwrap();
        chunk.frames(&bytes).map(|(_, f)| (f.offset(), f.value().unwrap_or_default().to_vec())).collect()
    }

    #[cfg(unix)]
    #[test]
    fn recovers_what_was_staged_by_this_incarnation_only() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::mapped(folder.path(), 9, 4, BUDGET).unwrap();
        let mut writers: Vec<_> = (0..3u64)
            .map(|i| pool.take(&Want { topic_id: i, ..want(100, GRANULE << i) }).unwrap().unwrap())
            .collect();
        let mut own = pool.take(&want(6 << 20, 0)).unwrap().unwrap();
        let large = vec![8; 6 << 20];
        assert!(own.append(&Record::new(&large), 100));
        own.publish();
        for (i, writer) in writers.iter_mut().enumerate() {
            for n in 0..10 {
                assert!(writer.append(&Record::new(&[i as u8; 50]), 100 + n));
            }
            writer.publish();
        }
        writers[0].append(&Record::new("staged, not published"), 110);
        writers[1].append(&Record::new("taken back"), 110);
        writers[1].abandon();
        // The process dies here: nothing is closed.
        let mut found = recover(folder.path(), 9, 4).unwrap();
        found.sort_by_key(|c| (c.topic_id, c.len));
        let expected: Vec<_> = (0..10).map(|n| (100 + n, vec![1u8; 50])).collect();
        assert_eq!(found.iter().map(|c| c.topic_id).collect::<Vec<_>>(), [0, 1, 2, 7]);
        assert_eq!(values(&found[0]).len(), 11);
        assert_eq!(values(&found[1]), expected);
        assert_eq!(values(&found[3]), [(100, large)]);
        assert_eq!((found[1].partition, found[1].epoch, found[1].base_offset), (1, 2, 100));
        assert_eq!(found[1].salt, writers[1].chunk().salt());

        assert!(recover(folder.path(), 9, 5).unwrap().is_empty());
        assert!(recover(folder.path(), 9, 3).unwrap().is_empty());
        let missing = recover(folder.path(), 10, 4).err().unwrap();
        assert_eq!(missing.kind(), ErrorKind::StagingMissing);
        assert!(missing.to_string().contains("staging-000000000000000a-000"), "{missing}");
        let nowhere = recover(&folder.path().join("nowhere"), 9, 4).err().unwrap();
        assert_eq!(nowhere.kind(), ErrorKind::StagingMissing);
    }

    /// A slot may be larger than those that were there before it; their headers then lie inside it.
    #[cfg(unix)]
    #[test]
    fn earlier_lives_of_a_slot_do_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::mapped(folder.path(), 9, 4, BUDGET).unwrap();
        let mut small: Vec<_> = (0..8).map(|_| pool.take(&want(100, 0)).unwrap().unwrap()).collect();
        for writer in &mut small {
            writer.append(&Record::new("old"), 100);
            writer.publish();
        }
        drop(small);
        let mut big = pool.take(&Want { topic_id: 8, ..want(100, 8 * GRANULE) }).unwrap().unwrap();
        let value = vec![7; 7 * GRANULE + 4000];
        assert!(big.append(&Record::new(&value), 200));
        big.publish();
        let found = recover(folder.path(), 9, 4).unwrap();
        assert_eq!(found.len(), 1, "the frame lies over the seven others");
        assert_eq!(values(&found[0]), [(200, value)]);
    }

    #[cfg(unix)]
    #[test]
    fn damaged_staging_files_yield_less_and_never_panic() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::mapped(folder.path(), 9, 4, MIN_BUDGET).unwrap();
        let mut writer = pool.take(&want(100, 0)).unwrap().unwrap();
        for n in 0..20 {
            writer.append(&Record::new("some value").key("key"), 100 + n);
        }
        drop(pool);
        let path = folder.path().join(file_name(9, 0));
        let good = std::fs::read(&path).unwrap();
        let whole = values(&recover(folder.path(), 9, 4).unwrap()[0]);
        assert_eq!(whole.len(), 20);
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join(file_name(9, 0));
        let used = Mapping::HEAD + HEADER + 20 * 56 + 16;
        let seen = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            match recover(copy.path(), 9, 4) {
                Ok(found) => {
                    let values = found.first().map(values).unwrap_or_default();
                    assert_eq!(values, whole[..values.len()], "{what}");
                    Some(values.len())
                }
                Err(e) => {
                    assert!(e.is_corrupt(), "{what}: {e}");
                    None
                }
            }
        };
        let step = 13; // every file is written out; steps of 13 meet every byte of a word
        for cut in (0..used).step_by(step) {
            let left = seen(&good[..cut], "cut");
            let frames = cut.saturating_sub(Mapping::HEAD + HEADER) / 56;
            assert_eq!(left.unwrap_or(0), frames.min(20), "cut at {cut}");
        }
        let positions = (0..FILE_HEADER).chain((Mapping::HEAD..used).step_by(step));
        for at in positions {
            let mut bad = good[..used].to_vec();
            bad[at] ^= 0x40;
            let left = seen(&bad, "flip");
            if at < FILE_HEADER {
                assert_eq!(left, None, "byte {at}");
            }
        }
        // Damage in a further file costs that file only; in the first it is an error.
        std::fs::write(&path, &good).unwrap();
        std::fs::write(copy.path().join(file_name(9, 1)), b"cut off while it was made").unwrap();
        std::fs::copy(&path, copy.path().join(file_name(9, 2))).unwrap();
        assert_eq!(recover(copy.path(), 9, 4).unwrap().len(), 1);
        std::fs::rename(&path, copy.path().join(file_name(8, 0))).unwrap();
        assert_eq!(recover(copy.path(), 8, 4).err().unwrap().kind(), ErrorKind::ForeignFile);
        std::os::unix::fs::symlink("elsewhere", copy.path().join(file_name(7, 0))).unwrap();
        assert!(recover(copy.path(), 7, 4).is_err(), "links are not followed");
    }

    #[test]
    fn any_damage_to_a_slot_leaves_a_prefix() {
        let pool = Pool::heap(MIN_BUDGET).unwrap();
        let mut writer = pool.take(&want(100, 0)).unwrap().unwrap();
        let headers: &[(&str, &[u8])] = &[("h", b"x")];
        for n in 0..6 {
            writer.append(&Record::new("some value").key("key").headers(headers), 100 + n);
        }
        writer.publish();
        let chunk = writer.seal();
        let mut good = vec![0; HEADER];
        good.extend_from_slice(chunk.bytes(HEADER, chunk.committed()).unwrap());
        let end = good.len();
        good.extend_from_slice(&[0; 64]);
        let offsets = |bytes: &[u8], salt| -> Vec<u64> {
            proved_frames(bytes, salt).map(|(_, frame)| frame.offset()).collect()
        };
        let whole: Vec<u64> = (100..106).collect();
        assert_eq!(offsets(&good, chunk.salt()), whole);
        assert!(offsets(&good, chunk.salt() ^ 1).is_empty(), "another salt");
        let shifted = [&good[..HEADER], &[0; 8], &good[HEADER..]].concat();
        assert!(offsets(&shifted[8..], chunk.salt()).len() == 6, "the shift is what is tested");
        let mut moved = proved_frames(&shifted, chunk.salt());
        moved.at += 8;
        assert_eq!(moved.next().map(|(at, _)| at), None, "another place");
        let frame = (end - HEADER) / 6;
        for cut in 0..good.len() {
            let seen = offsets(&good[..cut], chunk.salt());
            assert_eq!(seen, whole[..(cut.saturating_sub(HEADER) / frame).min(6)]);
        }
        for at in HEADER..good.len() {
            for garbage in [0x00, 0x01, 0x80, 0xFF] {
                let mut bad = good.clone();
                if bad[at] == garbage {
                    continue;
                }
                bad[at] = garbage;
                assert_eq!(offsets(&bad, chunk.salt()), whole[..((at - HEADER) / frame).min(6)], "byte {at}");
            }
        }
    }
}
