//! The floor of many threads that wait for the disk: one thread that writes as many bytes as those have who came meanwhile,
//! flushes and wakes all by one call, again and again. No lock, no record: who comes is counted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::{Disk, Store};
use crate::Result;

/// So long is the file, of zeros that were flushed; behind its end it begins again.
const LEN: usize = 64 << 20;

/// In place of a number of flushes.
const FAILED: u32 = u32::MAX;

#[derive(Default)]
struct Group {
    /// How many flushes have begun, in the upper half, and how many bytes wait for the next, in the lower: so who comes knows which
    /// flush is his.
    asked: AtomicU64,
    /// How many flushes are over: what all sleep on.
    over: AtomicU32,
    ended: AtomicBool,
}

impl Group {
    /// How many bytes wait.
    fn waiting(&self) -> u64 {
        self.asked.load(Ordering::Acquire) & u64::from(u32::MAX)
    }

    fn flush(&self, file: &File) -> Result<()> {
        let (mut at, bytes) = (0, vec![1; 1 << 20]);
        while !self.ended.load(Ordering::Acquire) {
            let mut seen = self.waiting();
            if seen == 0 {
                std::thread::yield_now();
                continue;
            }
            // Who was woken together comes back together.
            loop {
                std::thread::yield_now();
                let now = self.waiting();
                if now == std::mem::replace(&mut seen, now) {
                    break;
                }
            }
            let begun = u64::from(self.over.load(Ordering::Relaxed)) + 1;
            let asked = self.asked.swap(begun << 32, Ordering::AcqRel);
            let records = &bytes[..asked as u32 as usize];
            at = if at + records.len() > LEN { 0 } else { at };
            file.write_all_at(records, at as u64)?;
            file.sync_data()?;
            at += records.len();
            self.over.fetch_add(1, Ordering::Release);
            self.wake();
        }
        Ok(())
    }

    fn wake(&self) {
        let private = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word lives as long as the group; a wake-up touches no memory.
        unsafe { libc::syscall(libc::SYS_futex, self.over.as_ptr(), private, i32::MAX) };
    }

    fn sleep(&self, over: u32) {
        let private = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word lives as long as the group; the kernel only reads it.
        unsafe { libc::syscall(libc::SYS_futex, self.over.as_ptr(), private, over, std::ptr::null::<()>()) };
    }
}

impl Disk for Group {
    fn append(&self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        let asked = self.asked.fetch_add((key.len() + value.len()) as u64, Ordering::AcqRel);
        let mine = (asked >> 32) as u32 + 1;
        loop {
            match self.over.load(Ordering::Acquire) {
                FAILED => return Err("it could not be flushed".into()),
                over if over >= mine => return Ok(()),
                over => self.sleep(over),
            }
        }
    }
}

pub struct Grouped {
    group: Arc<Group>,
    flusher: JoinHandle<()>,
}

impl Grouped {
    pub fn open(path: &Path) -> Result<Grouped> {
        let file = File::create(path)?;
        file.write_all_at(&vec![0; LEN], 0)?;
        file.sync_all()?;
        let group = Arc::<Group>::default();
        let works = Arc::clone(&group);
        let flusher = std::thread::spawn(move || {
            if works.flush(&file).is_err() {
                works.over.store(FAILED, Ordering::Release);
                works.wake();
            }
        });
        Ok(Grouped { group, flusher })
    }
}

impl Store for Grouped {
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.group.append(key, value)
    }

    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        let group: Arc<dyn Disk> = Arc::clone(&self.group) as _;
        Ok(Some(group))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.group.ended.store(true, Ordering::Release);
        Ok(self.flusher.join().map_err(|_| "a thread panicked")?)
    }
}
