//! The floor of whatever goes to files: frames gathered to blocks of 64 KiB, each by one `pwrite`, and read back by `pread`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::Store;
use crate::Result;
use crate::feed::{Item, Tally};

pub const BLOCK: usize = 64 << 10;

const KEY: usize = 8;

/// How a frame lies in memory: a head that begins with the length of the value, the key, the value, padded.
pub struct Layout<const HEAD: usize, const ALIGN: usize>;

/// The length, and no more than that.
pub type Bare = Layout<4, 1>;
/// As long as ours are.
pub type Ours = Layout<32, 8>;

impl<const HEAD: usize, const ALIGN: usize> Layout<HEAD, ALIGN> {
    #[inline]
    pub fn frame_len(value: usize) -> usize {
        (HEAD + KEY + value).next_multiple_of(ALIGN)
    }

    #[inline]
    pub fn push(frames: &mut Vec<u8>, key: &[u8; KEY], value: &[u8]) {
        let (begin, end) = (frames.len(), frames.len() + Self::frame_len(value.len()));
        frames.extend_from_slice(&(value.len() as u32).to_le_bytes());
        frames.resize(begin + HEAD, 0);
        frames.extend_from_slice(key);
        frames.extend_from_slice(value);
        frames.resize(end, 0);
    }

    /// Hands the values over; returns how many bytes whole frames had, or `None` where no more are wanted.
    #[inline]
    pub fn take(frames: &[u8], tally: &mut Tally) -> Option<usize> {
        let mut at = 0;
        while let Some(len) = frames[at..].first_chunk() {
            let value = u32::from_le_bytes(*len) as usize;
            let end = at + Self::frame_len(value);
            if end > frames.len() {
                break;
            }
            if !tally.take(&frames[at + HEAD + KEY..][..value]) {
                return None;
            }
            at = end;
        }
        Some(at)
    }
}

pub type BareBlocks = Blocks<4, 1>;
pub type OurBlocks = Blocks<32, 8>;

pub struct Blocks<const HEAD: usize, const ALIGN: usize> {
    path: PathBuf,
    file: File,
    at: u64,
    block: Vec<u8>,
    /// Each piece that is written or read is summed up.
    checks: bool,
}

impl<const HEAD: usize, const ALIGN: usize> Blocks<HEAD, ALIGN> {
    pub fn open(path: PathBuf, checks: bool) -> Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        Ok(Self { path, file, at: 0, block: Vec::with_capacity(BLOCK), checks })
    }

    fn check(&self, bytes: &[u8]) {
        if self.checks {
            std::hint::black_box(crc32fast::hash(bytes));
        }
    }

    fn spill(&mut self) -> Result<()> {
        self.check(&self.block);
        self.file.write_all_at(&self.block, self.at)?;
        self.at += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }
}

impl<const HEAD: usize, const ALIGN: usize> Store for Blocks<HEAD, ALIGN> {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        if self.block.len() + Layout::<HEAD, ALIGN>::frame_len(value.len()) > BLOCK {
            self.spill()?;
        }
        Layout::<HEAD, ALIGN>::push(&mut self.block, key, value);
        Ok(())
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        batch.iter().try_for_each(|(key, value)| self.append(key, value))
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        let mut file = File::open(&self.path)?;
        let (mut buffer, mut filled) = (vec![0; BLOCK], 0);
        loop {
            let read = file.read(&mut buffer[filled..])?;
            if read == 0 {
                return Ok(());
            }
            self.check(&buffer[filled..filled + read]);
            filled += read;
            let Some(taken) = Layout::<HEAD, ALIGN>::take(&buffer[..filled], tally) else { return Ok(()) };
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
        }
    }

    fn settle(&mut self) -> Result<()> {
        self.spill()
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.spill()?;
        self.sync()
    }
}
