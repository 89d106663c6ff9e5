//! What a process that died left in its staging files: slots, and the frames in them that prove themselves.
//!
//! Which granules make a slot is said by nothing but the slots' headers: recovery looks at every granule. It
//! may so find slots that were given back, or parts of them. That does no harm: their frames prove themselves or are
//! not believed, and offsets that are in the segments already are not replayed.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

#[cfg(unix)]
use crate::error::Error;
#[cfg(unix)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::frame::{FrameView, MAX_OFFSET, mix};
use crate::storage::disk::Disk;
#[cfg(unix)]
use crate::storage::file::RawFile;
#[cfg(unix)]
use crate::storage::mapping::Mapping;
use crate::storage::slot::{self, GRANULE, HEADER, SlotHeader};
#[cfg(not(unix))]
use crate::storage::staging::unsupported;
#[cfg(unix)]
use crate::storage::staging::{FileHeader, file_name, open, read_at, read_header, staging_files};
use crate::storage::threads;

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
    source: Arc<Source>,
    position: u64,
}

/// A staging file that slots are read from: opened once for all of them.
struct Source {
    #[cfg(unix)]
    file: Box<dyn RawFile>,
    path: PathBuf,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.path).finish()
    }
}

impl StagedChunk {
    /// Reads the slot into `memory`, which may be used again: as far as there are frames, or the file goes. What a header
    /// says of its length is a bound and no reason to take memory.
    #[cfg(unix)]
    pub(crate) fn read<'a>(&self, memory: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let mut len = FIRST_READ.min(self.len);
        let mut got = 0;
        loop {
            if memory.len() < len {
                memory.resize(len, 0);
            }
            let at = self.position + got as u64;
            got += read_at(&*self.source.file, &self.source.path, &mut memory[got..len], at)?;
            if got < len || len == self.len || !goes_on(&memory[..got]) {
                return Ok(&memory[..got]);
            }
            len = (len * 2).min(self.len);
        }
    }

    /// Reads the slot.
    #[cfg(not(unix))]
    pub(crate) fn read<'a>(&self, _: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        Err(unsupported(&self.source.path))
    }

    /// Reads what there may be of frames behind one that does not prove itself, and so does not say how long it is.
    #[cfg(unix)]
    pub(crate) fn read_on<'a>(&self, memory: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let len = self.len.min(READ_ON);
        memory.clear();
        memory.resize(len, 0);
        let got = read_at(&*self.source.file, &self.source.path, memory, self.position)?;
        Ok(&memory[..got])
    }

    /// Reads the slot.
    #[cfg(not(unix))]
    pub(crate) fn read_on<'a>(&self, _: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        Err(unsupported(&self.source.path))
    }

    /// Reads what stood at `range` of the slot.
    #[cfg(unix)]
    pub(crate) fn read_range<'a>(&self, range: Range<usize>, memory: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        if memory.len() < range.len() {
            memory.resize(range.len(), 0);
        }
        let (path, at) = (&self.source.path, self.position + range.start as u64);
        let bytes = &mut memory[..range.len()];
        if read_at(&*self.source.file, path, bytes, at)? < range.len() {
            let message = "the staging file became shorter while it was read";
            return Err(Error::new(ErrorKind::Storage, message).at_path(path).at_position(at));
        }
        Ok(bytes)
    }

    /// Reads a part of the slot.
    #[cfg(not(unix))]
    pub(crate) fn read_range<'a>(&self, _: Range<usize>, _: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        Err(unsupported(&self.source.path))
    }

    /// The file it is in.
    pub(crate) fn path(&self) -> &Path {
        &self.source.path
    }

    /// The frames in `bytes` from the place `at` on.
    pub(crate) fn frames_from<'a>(&self, bytes: &'a [u8], at: usize) -> ProvedFrames<'a> {
        ProvedFrames { bytes, salt: self.salt, at }
    }

    /// The frames in `bytes` from the first one on behind the place `at` that has an offset of at least `low`.
    pub(crate) fn frames_behind<'a>(&self, bytes: &'a [u8], at: usize, low: u64) -> ProvedFrames<'a> {
        let begins = |at: &usize| {
            let first = self.frames_from(bytes, *at).next();
            first.is_some_and(|(_, frame)| frame.offset() >= low)
        };
        let at = (at + 8..bytes.len()).step_by(8).find(begins);
        self.frames_from(bytes, at.unwrap_or(bytes.len()))
    }

    /// What is in `bytes`, which [`StagedChunk::read`] read.
    pub(crate) fn look(&self, bytes: &[u8]) -> Looked {
        let (mut frames, mut at) = (0, HEADER);
        for (_, frame) in self.frames(bytes) {
            (frames, at) = (frames + 1, at + frame.len());
        }
        let word = bytes.get(at..at + 8);
        let unproved = word.filter(|word| **word != [0; 8]);
        let bytes = self.position + at as u64..self.position + self.len as u64;
        Looked { frames, unproved: unproved.map(|_| bytes) }
    }

    /// The frames in `bytes`, which [`StagedChunk::read`] read.
    pub(crate) fn frames<'a>(&self, bytes: &'a [u8]) -> ProvedFrames<'a> {
        proved_frames(bytes, self.salt)
    }
}

/// What a slot holds.
pub(crate) struct Looked {
    /// So many frames prove themselves.
    pub(crate) frames: u64,
    /// What follows on them is no end, and where it lies in the file.
    pub(crate) unproved: Option<std::ops::Range<u64>>,
}

/// So many granules one thread looks at, and then at as many again; more where a file claims so many that there would be
/// more than so many shares.
#[cfg(unix)]
const SHARE: usize = 1024;
#[cfg(unix)]
const SHARES: usize = 256;

/// So much of a slot is read before it is known how far its frames go.
#[cfg(unix)]
const FIRST_READ: usize = 256 * 1024;

/// So much of a slot is looked through behind a frame that does not prove itself.
#[cfg(unix)]
const READ_ON: usize = 64 << 20;

/// Whether the frames of a slot may go on behind `bytes`, by their lengths alone.
#[cfg(unix)]
fn goes_on(bytes: &[u8]) -> bool {
    let mut at = HEADER;
    while let Some(word) = bytes.get(at..at + 8) {
        let len = crate::bytes::u32_at(word, 0) as usize;
        if len < crate::frame::FIXED || !len.is_multiple_of(8) {
            return false;
        }
        at += len;
    }
    true
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
        let proved =
            |frame: &FrameView<'_>| frame.offset() < MAX_OFFSET && frame.verify(mix(self.salt, at)).is_ok();
        match frame.filter(proved) {
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

/// What an incarnation left in its staging files.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// The slots, in no particular order.
    pub(crate) slots: Vec<StagedChunk>,
    /// Where slots begin whose headers do not prove themselves.
    pub(crate) damaged: Vec<(PathBuf, u64)>,
}

/// Lists the slots that incarnation `incarnation` left in the staging files `file_id`. Files are read, never mapped.
///
/// Errors: [`ErrorKind::StagingMissing`] without the first file, [`ErrorKind::CorruptRecord`] if its header is
/// damaged, [`ErrorKind::ForeignFile`] if it is another's.
#[cfg(unix)]
pub(crate) fn recover(disk: &dyn Disk, folder: &Path, file_id: u64, incarnation: u64) -> Result<Left> {
    let files = staging_files(disk, folder, file_id)?;
    if files.first().is_none_or(|(number, _)| *number != 0) {
        let path = folder.join(file_name(file_id, 0));
        return Err(Error::new(ErrorKind::StagingMissing, "the staging file is absent").at_path(&path));
    }
    let mut left = Left::default();
    for (number, path) in files {
        match read_header(disk, &path, file_id, number)? {
            Ok(header) if header.incarnation == incarnation => list_slots(disk, path, &header, &mut left)?,
            // An older open's: what it held was replayed by the one after it.
            Ok(_) => {}
            Err(e) if number == 0 => return Err(e),
            // A further file was cut off while it was made, or lost its header with the power: nothing in it was
            // promised to survive that.
            Err(_) => {}
        }
    }
    Ok(left)
}

/// Lists the slots that an incarnation left.
#[cfg(not(unix))]
pub(crate) fn recover(_: &dyn Disk, folder: &Path, _: u64, _: u64) -> Result<Left> {
    Err(unsupported(folder))
}

/// Lists the slots that an incarnation left in one staging file.
#[cfg(unix)]
pub(crate) fn slots(
    disk: &dyn Disk,
    path: &Path,
    file_id: u64,
    number: u32,
    incarnation: u64,
) -> Result<Left> {
    let header = read_header(disk, path, file_id, number)??;
    let mut left = Left::default();
    if header.incarnation == incarnation {
        list_slots(disk, path.to_path_buf(), &header, &mut left)?;
    }
    Ok(left)
}

/// Lists the slots that an incarnation left in one staging file.
#[cfg(not(unix))]
pub(crate) fn slots(_: &dyn Disk, path: &Path, _: u64, _: u32, _: u64) -> Result<Left> {
    Err(unsupported(path))
}

#[cfg(unix)]
fn list_slots(disk: &dyn Disk, path: PathBuf, header: &FileHeader, left: &mut Left) -> Result<()> {
    let source = Arc::new(Source { file: open(disk, &path)?, path });
    let failed = |e| Error::io("look at the staging file", &source.path, e);
    let file_len = source.file.len().map_err(failed)?;
    // A file of ours has all its space. In one that is almost all holes they are passed over, since a header can claim
    // more of them than anybody can read.
    let mostly_holes = source.file.allocated().map_err(failed)? < file_len / 8;
    // As many as the header, which proved itself, says, and no more than the file has.
    let granules = usize::try_from(file_len).unwrap_or(usize::MAX).saturating_sub(Mapping::position(0));
    let granules = granules.div_ceil(GRANULE).min(header.granules as usize);
    let list = |share| list_share(&source, header, share, mostly_holes);
    let shares = in_shares(granules, SHARE.max(granules.div_ceil(SHARES)), list)?;
    let mut damaged = Vec::new();
    for listed in shares {
        left.slots.extend(listed.slots);
        damaged.extend(listed.damaged);
    }
    // What looks like a header inside a slot is a record's value, or an earlier life of a part of it.
    let inside = |at: u64| left.slots.iter().any(|s| s.position < at && at < s.position + s.len as u64);
    damaged.retain(|at| !inside(*at));
    left.damaged.extend(damaged.into_iter().map(|at| (source.path.clone(), at)));
    Ok(())
}

/// So many granules are read at a time to look at their headers: a system call for each takes longer.
#[cfg(unix)]
const TOGETHER: usize = 16;

/// The slots that begin at some of the granules, and where there are headers that do not prove themselves.
#[cfg(unix)]
fn list_share(
    source: &Arc<Source>,
    header: &FileHeader,
    share: Range<usize>,
    mostly_holes: bool,
) -> Result<Listed> {
    let (mut listed, mut memory) = (Listed::default(), vec![0; TOGETHER * GRANULE]);
    let mut granule = share.start;
    while granule < share.end {
        let mut together = TOGETHER.min(share.end - granule);
        if mostly_holes {
            let next = source.file.next_data(Mapping::position(granule) as u64);
            let next = next.map_err(|e| Error::io("look at the staging file", &source.path, e))?;
            let Some(data) = next.and_then(|data| usize::try_from(data).ok()) else { break };
            let next = data.saturating_sub(Mapping::position(0)) / GRANULE;
            if next > granule {
                granule = next;
                continue;
            }
            together = 1;
        }
        listed.look_at(source, header, granule..granule + together, &mut memory)?;
        granule += together;
    }
    Ok(listed)
}

/// What some granules hold.
#[cfg(unix)]
#[derive(Default)]
struct Listed {
    slots: Vec<StagedChunk>,
    /// Where headers stand that do not prove themselves.
    damaged: Vec<u64>,
}

#[cfg(unix)]
impl Listed {
    /// Adds what begins at these granules, one or more of them.
    fn look_at(
        &mut self,
        source: &Arc<Source>,
        header: &FileHeader,
        granules: Range<usize>,
        memory: &mut [u8],
    ) -> Result<()> {
        let bytes = &mut memory[..(granules.len() - 1) * GRANULE + HEADER];
        let got = match read_at(&*source.file, &source.path, bytes, Mapping::position(granules.start) as u64)
        {
            // What cannot be read may be nobody's: only headers have to be.
            Err(_) if granules.len() > 1 => {
                return granules
                    .into_iter()
                    .try_for_each(|one| self.look_at(source, header, one..one + 1, memory));
            }
            got => got?,
        };
        for (granule, bytes) in granules.zip(bytes[..got].chunks(GRANULE)) {
            let Some(bytes) = bytes.get(..HEADER) else { break };
            let position = Mapping::position(granule);
            match slot_at(source, header, bytes, granule) {
                Some(slot) => self.slots.push(slot),
                None if slot::is_damaged(bytes, header.key, position) => self.damaged.push(position as u64),
                None => {}
            }
        }
        Ok(())
    }
}

/// Does `work` for all of `0..count`, in shares of `len`, on as many threads as there are processors; what it answered is in
/// their order. Who is done with one share takes the next: a thread may begin late.
pub(crate) fn in_shares<R: Send + Sync>(
    count: usize,
    len: usize,
    work: impl Fn(Range<usize>) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let shares = count.div_ceil(len);
    let done: Vec<OnceLock<Result<R>>> = (0..shares).map(|_| OnceLock::new()).collect();
    let (next, work) = (AtomicUsize::new(0), |i: usize| work(i * len..count.min((i + 1) * len)));
    let take = || {
        let next = || next.fetch_add(1, Ordering::Relaxed);
        while let Some((i, done)) = Some(next()).and_then(|i| Some((i, done.get(i)?))) {
            let _ = done.set(work(i));
        }
    };
    let processors = if shares > 1 { thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    thread::scope(|scope| {
        // Without a further thread it only takes longer.
        let helpers: Vec<_> = (1..processors.min(shares)).filter_map(|_| helper(scope, take)).collect();
        take();
        helpers.into_iter().for_each(|helper| drop(helper.join()));
    });
    // One is left where its thread died of it.
    done.into_iter().enumerate().map(|(i, done)| done.into_inner().unwrap_or_else(|| work(i))).collect()
}

/// A thread that takes its share of a recovery, where there is room for one.
pub(crate) fn helper<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Option<thread::ScopedJoinHandle<'scope, T>> {
    threads::spawn_scoped(scope, "tapelog-recover", work).ok()
}

/// The slot that begins at a granule, by the `bytes` there, if one does.
#[cfg(unix)]
fn slot_at(source: &Arc<Source>, header: &FileHeader, bytes: &[u8], granule: usize) -> Option<StagedChunk> {
    let position = Mapping::position(granule);
    let slot = SlotHeader::parse(bytes, header.key, position)?;
    let len = slot.len as usize;
    let fits = len.is_multiple_of(GRANULE) && granule + len / GRANULE <= header.granules as usize;
    let ours = slot.incarnation == header.incarnation && slot.base_offset < MAX_OFFSET && fits;
    ours.then(|| StagedChunk {
        topic_id: slot.topic_id,
        partition: slot.partition,
        epoch: slot.epoch,
        base_offset: slot.base_offset,
        salt: slot.salt,
        len,
        source: Arc::clone(source),
        position: position as u64,
    })
}

#[cfg(test)]
#[path = "staged_tests.rs"]
mod tests;
