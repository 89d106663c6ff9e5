//! Floors of what one core passes to another: a line of memory, and a frame as ours is without a log around it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Arrivals, FlushBy, Store, Tail};
use crate::Result;

/// A word that has a line for itself.
#[derive(Default)]
#[repr(align(128))]
struct Slot(AtomicU64);

/// One line, passed back and forth.
#[derive(Default)]
pub struct Line(Arc<Slot>);

impl Store for Line {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        let stamp = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        // Until the reader took what is in it.
        while self.0.0.load(Ordering::Acquire) != 0 {
            std::hint::spin_loop();
        }
        self.0.0.store(stamp, Ordering::Release);
        Ok(())
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        Ok(Box::new(LineTail(Arc::clone(&self.0))))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct LineTail(Arc<Slot>);

impl Tail for LineTail {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        let stamp = self.0.0.load(Ordering::Acquire);
        if stamp != 0 {
            arrivals.take(&stamp.to_le_bytes());
            self.0.0.store(0, Ordering::Release);
        }
        Ok(())
    }
}

/// Frames of as many bytes as ours in a mapped file whose pages are there: filled, summed up whole, committed by a word that
/// is stored last. Nobody reads them or makes blocks of them, so that there is nobody to tell, and no room to ask for.
pub struct Framed {
    file: File,
    base: *mut u8,
    at: usize,
    number: u64,
    /// How many bytes of frames there are, for a reader that does not watch the frames themselves.
    end: Option<Arc<Slot>>,
}

// SAFETY: the mapping is this store's alone and lives as long as the process.
unsafe impl Send for Framed {}

impl Framed {
    const LEN: usize = 64 << 20;
    const HEAD: usize = 32;

    pub fn open(path: &std::path::Path, counted: bool) -> Result<Framed> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.write_all_at(&vec![0; Framed::LEN], 0)?;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping, which takes the place of no other.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), Framed::LEN, both, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Framed { file, base: base.cast(), at: 0, number: 0, end: counted.then(Arc::default) })
    }
}

impl Store for Framed {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.append_due(key, value, 0)
    }

    #[inline]
    fn append_due(&mut self, key: &[u8; 8], value: &[u8], due: u64) -> Result<()> {
        let len = (Framed::HEAD + 8 + value.len()).next_multiple_of(8);
        // With the word behind it.
        if self.at + len + 8 > Framed::LEN {
            self.at = 0;
        }
        // SAFETY: within the mapping, by the check, and nobody else has a reference to it; the commit word is not in it.
        let frame = unsafe { std::slice::from_raw_parts_mut(self.base.add(self.at + 8), len) };
        frame[len - 16..].fill(0);
        frame[..8].copy_from_slice(&self.number.to_le_bytes());
        // All that is summed up is stored by 16 bytes, as it will be loaded: else the sum waits for the stores.
        let (pairs, _) = frame[8..].as_chunks_mut::<16>();
        let (first, rest) = value.split_at(8);
        store_pair(&mut pairs[0], due, value.len() as u64);
        store_pair(&mut pairs[1], u64::from_le_bytes(*key), word(first));
        let (whole, rest) = rest.as_chunks::<16>();
        for (from, to) in whole.iter().zip(&mut pairs[2..]) {
            *to = *from;
        }
        if let Some(end) = value.last_chunk::<16>().filter(|_| !rest.is_empty()) {
            let last = u128::from_le_bytes(*end) >> (8 * (16 - rest.len()));
            store_pair(&mut pairs[2 + whole.len()], last as u64, (last >> 64) as u64);
        }
        let mut crc = crc32fast::Hasher::new_with_initial(self.number as u32);
        // All that a reader believes, as ours does: time, lengths, key and value, with the number for a beginning.
        crc.update(&frame[8..len - 8]);
        let word = u64::from(crc.finalize()) << 32 | len as u64;
        // SAFETY: aligned, as all lengths are multiples of 8, and within the mapping.
        let commit = unsafe { AtomicU64::from_ptr(self.base.add(self.at).cast()) };
        commit.store(word, Ordering::Release);
        self.at += len;
        self.number += 1;
        if let Some(end) = &self.end {
            end.0.store(self.at as u64, Ordering::Release);
        }
        Ok(())
    }

    /// A reader at the end of what there is; it is not there any more when the writer comes round to it.
    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        // SAFETY: within the mapping.
        let next = unsafe { self.base.add(self.at) };
        Ok(match &self.end {
            Some(end) => Box::new(Counted { next, at: self.at, end: Arc::clone(end) }),
            None => Box::new(Worded { next }),
        })
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        let file = self.file.try_clone()?;
        Ok(FlushBy::Thread(Box::new(move || Ok(file.sync_data()?))))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.file.sync_data()?)
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Two words by one store.
#[inline]
fn store_pair(to: &mut [u8; 16], low: u64, high: u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the store needs no alignment, the pointer is to 16 bytes that are borrowed mutably, and every x86-64 has
    // both instructions.
    unsafe {
        use core::arch::x86_64::{_mm_set_epi64x, _mm_storeu_si128};
        _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_set_epi64x(high as i64, low as i64));
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        *to = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    }
}

/// The same under a lock that nobody else wants.
pub struct Locked(pub Mutex<Framed>);

impl Store for Locked {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.0.lock().map_err(|_| "the lock is poisoned")?.append(key, value)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Looks at the counter, and then at the frame.
struct Counted {
    next: *const u8,
    at: usize,
    end: Arc<Slot>,
}

// SAFETY: the mapping lives as long as the process, and a reader reads what the writer writes no more.
unsafe impl Send for Counted {}

impl Tail for Counted {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        while self.end.0.load(Ordering::Acquire) > self.at as u64 {
            // SAFETY: a frame begins there and is written no more, as the counter says.
            let len = unsafe { take(self.next, arrivals) };
            self.at += len;
            // SAFETY: where it ends; within the mapping.
            self.next = unsafe { self.next.add(len) };
        }
        Ok(())
    }
}

/// Looks at the frame's commit word.
struct Worded {
    next: *const u8,
}

// SAFETY: as above.
unsafe impl Send for Worded {}

impl Tail for Worded {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        loop {
            // SAFETY: aligned, as all lengths are multiples of 8, and within the mapping.
            let word = unsafe { AtomicU64::from_ptr(self.next.cast_mut().cast()) };
            if word.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            // SAFETY: a frame begins there and is written no more, as its commit word says.
            let len = unsafe { take(self.next, arrivals) };
            // SAFETY: where it ends; within the mapping.
            self.next = unsafe { self.next.add(len) };
        }
    }
}

/// Takes the value of a frame; returns how long the frame is.
///
/// # Safety
/// A frame that nobody writes any more begins at `frame`.
unsafe fn take(frame: *const u8, arrivals: &mut Arrivals) -> usize {
    // SAFETY: the caller's; the layout is that of `append_due`.
    let (len, value) = unsafe {
        let len = frame.cast::<u32>().read() as usize;
        let value = frame.add(24).cast::<u64>().read() as usize;
        (len, std::slice::from_raw_parts(frame.add(40), value))
    };
    arrivals.take(value);
    len
}
