//! The floor of an open after a sudden end: as much as ours may have to replay is read, summed up, and written behind what is
//! stored. All of that was written before, so that memory is in the state in which ours finds it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Store;
use super::blocks::{BLOCK, OurBlocks};
use crate::Result;
use crate::feed::Item;

/// What the default budget holds.
const TAIL: usize = 64 << 20;

pub struct Replayed {
    stored: OurBlocks,
    tail: PathBuf,
}

impl Replayed {
    pub fn open(dir: &Path) -> Result<Replayed> {
        let (stored, tail) = (dir.join("floor"), dir.join("floor.tail"));
        if tail.exists() {
            replay(&tail, &stored)?;
        }
        Ok(Replayed { stored: OurBlocks::open(stored, false)?, tail })
    }
}

fn replay(tail: &Path, stored: &Path) -> Result<()> {
    let mut from = File::open(tail)?;
    let mut to = File::options().append(true).open(stored)?;
    let (mut block, mut sum) = (vec![0; BLOCK], crc32fast::Hasher::new());
    loop {
        let read = from.read(&mut block)?;
        if read == 0 {
            break;
        }
        sum.update(&block[..read]);
        to.write_all(&block[..read])?;
    }
    std::hint::black_box(sum.finalize());
    // Once: what comes next is an open after a clean end.
    Ok(std::fs::rename(tail, tail.with_extension("done"))?)
}

impl Store for Replayed {
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.stored.append(key, value)
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        self.stored.append_batch(batch)
    }

    /// Asked for once all is appended; the harness flushes.
    fn sync(&mut self) -> Result<()> {
        self.stored.settle()?;
        Ok(std::fs::write(&self.tail, vec![1; TAIL])?)
    }

    fn flushed_at_open(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
