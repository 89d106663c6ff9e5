//! The floors of an append at a fixed rate: one that does nothing, alone and while another thread writes what it would have
//! appended. What that costs the first thread is the machine's: interrupts, write-back, the other processor.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::blocks::{BLOCK, Ours};
use super::{FlushBy, Store};
use crate::Result;

pub struct Empty;

impl Store for Empty {
    #[inline]
    fn append(&mut self, key: &[u8; 8], _value: &[u8]) -> Result<()> {
        std::hint::black_box(key);
        Ok(())
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        Ok(FlushBy::Itself)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

pub struct Beside {
    /// How many bytes frames as long as ours would have.
    appended: u64,
    told: Arc<AtomicU64>,
    file: Arc<File>,
}

impl Beside {
    pub fn open(path: &Path) -> Result<Beside> {
        let (file, told) = (Arc::new(File::create(path)?), Arc::default());
        let writer = Writer { file: Arc::clone(&file), told: Arc::clone(&told), at: 0 };
        std::thread::spawn(move || writer.run());
        Ok(Beside { appended: 0, told, file })
    }
}

impl Store for Beside {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.appended += Ours::frame_len(value.len()) as u64;
        self.told.store(self.appended, Ordering::Relaxed);
        Ok(())
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        let file = Arc::clone(&self.file);
        Ok(FlushBy::Thread(Box::new(move || Ok(file.sync_data()?))))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct Writer {
    file: Arc<File>,
    told: Arc<AtomicU64>,
    at: u64,
}

impl Writer {
    /// Until the store is gone.
    fn run(mut self) {
        let block = vec![1; BLOCK];
        while Arc::strong_count(&self.told) > 1 {
            let appended = self.told.load(Ordering::Relaxed);
            while self.at < appended {
                let len = (appended - self.at).min(BLOCK as u64);
                if let Err(e) = self.file.write_all_at(&block[..len as usize], self.at) {
                    return eprintln!("the write failed: {e}");
                }
                self.at += len;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
