//! Physical floors: what the machine gives to something that is no log at all.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use super::blocks::{BLOCK, Bare, BareBlocks, OurBlocks, Ours};
use super::grouped::Grouped;
use super::idle::{Beside, Empty};
use super::passing::{Framed, Line, Locked};
use super::replayed::Replayed;
use super::{Arrivals, Config, Durability, FlushBy, Opening, Store, System, Tail};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{
    Append, Batch, Hot, Latency, Park, Reopen, Sustained, Sync, Tail as Follow, Ticks,
};

pub static SYSTEM: System = System {
    name: "floor",
    configs: &[
        Config { name: PWRITE, durability: Durability::Process, probes: &[Append, Batch, Ticks, Sustained] },
        Config { name: CHECKED, durability: Durability::Process, probes: &[Append] },
        Config { name: AS_OURS, durability: Durability::Process, probes: &[Append, Batch, Sustained] },
        Config { name: "copy into warm memory", durability: Durability::Memory, probes: &[Append, Latency] },
        Config { name: FRAMED, durability: Durability::Process, probes: &[Append, Latency] },
        Config { name: LOCKED, durability: Durability::Process, probes: &[Append] },
        Config { name: "CRC-32 of the bytes", durability: Durability::Memory, probes: &[Append] },
        Config { name: "empty loop", durability: Durability::Memory, probes: &[Latency] },
        Config { name: BESIDE, durability: Durability::Memory, probes: &[Latency] },
        Config { name: "write + fdatasync", durability: Durability::Disk, probes: &[Sync] },
        Config { name: PREALLOCATED, durability: Durability::Disk, probes: &[Sync] },
        Config { name: GROUPED, durability: Durability::Disk, probes: &[Sync] },
        Config { name: "one cache line", durability: Durability::Memory, probes: &[Follow] },
        Config { name: COUNTED, durability: Durability::Process, probes: &[Follow] },
        Config { name: WORDED, durability: Durability::Process, probes: &[Follow] },
        Config { name: "futex wake-up", durability: Durability::Memory, probes: &[Park] },
        Config { name: UNPARK, durability: Durability::Memory, probes: &[Park] },
        Config { name: CONDVAR, durability: Durability::Memory, probes: &[Park] },
        Config { name: "bare scan", durability: Durability::None, probes: &[Hot] },
        Config { name: LZ4, durability: Durability::Memory, probes: &[Ticks] },
        Config { name: REPLAYED, durability: Durability::None, probes: &[Reopen] },
    ],
    open,
};

const PWRITE: &str = "64 KiB pwrite, pread";
/// The same, with the CRC-32 of each piece that is written and that is read.
const CHECKED: &str = "64 KiB pwrite, pread, CRC-32";
/// That, of as many bytes as ours are on the disk.
const AS_OURS: &str = "64 KiB pwrite, pread, CRC-32, frames as long as ours";
/// An append that does nothing, while another thread writes what it would have appended.
const BESIDE: &str = "empty loop beside pwrite";
/// The least that an append does which is checksummed and outlives the process.
const FRAMED: &str = "CRC-32 and copy into a mapped file";
/// The same by one of many who may append.
const LOCKED: &str = "lock, CRC-32 and copy into a mapped file";
/// Without the lock, and a counter beside it that a reader watches: the least that such a log does for a reader that trusts the counter.
const COUNTED: &str = "frame and counter";
/// That, and a reader that watches the word by which the frame is committed.
const WORDED: &str = "frame by its own word";
const UNPARK: &str = "thread unpark";
const CONDVAR: &str = "condvar";
const PREALLOCATED: &str = "write + fdatasync, preallocated";
/// By a thread of its own, for all who wait.
const GROUPED: &str = "write + fdatasync, in groups";
/// Of blocks of 64 KiB, on one core.
const LZ4: &str = "lz4";
const REPLAYED: &str = "64 MiB read, CRC-32, written";

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let path = opening.dir.join("floor");
    Ok(match opening.config {
        "copy into warm memory" => Box::new(Copy { ring: vec![1; 64 << 20], at: 0 }),
        FRAMED | WORDED => Box::new(Framed::open(&path, false)?),
        COUNTED => Box::new(Framed::open(&path, true)?),
        LOCKED => Box::new(Locked(Mutex::new(Framed::open(&path, false)?))),
        "CRC-32 of the bytes" => Box::new(Crc(0)),
        "empty loop" => Box::new(Empty),
        BESIDE => Box::new(Beside::open(&path)?),
        "write + fdatasync" => Box::new(Flushed { file: File::create(path)? }),
        PREALLOCATED => {
            let file = File::create(path)?;
            // SAFETY: the descriptor is open.
            if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, 64 << 20) } != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
            file.sync_all()?;
            Box::new(Flushed { file })
        }
        GROUPED => Box::new(Grouped::open(&path)?),
        "one cache line" => Box::<Line>::default(),
        "futex wake-up" => Box::new(Futex(Arc::default())),
        UNPARK => Box::new(Woken(Arc::new(Bell::new(Ring::Unpark)))),
        CONDVAR => Box::new(Woken(Arc::new(Bell::new(Ring::Condvar)))),
        REPLAYED => Box::new(Replayed::open(opening.dir)?),
        "bare scan" => Box::<Scan>::default(),
        LZ4 => {
            Box::new(Lz4 { blocks: vec![Vec::new()], warm: false, at: 0, filled: 0, out: vec![0; 2 * BLOCK] })
        }
        AS_OURS => Box::new(OurBlocks::open(path, true)?),
        _ => Box::new(BareBlocks::open(path, opening.config == CHECKED)?),
    })
}

/// What one core compresses: the blocks are made while nothing is timed, then only compressed, one each time that
/// the appended bytes would fill one.
struct Lz4 {
    blocks: Vec<Vec<u8>>,
    warm: bool,
    at: usize,
    filled: usize,
    out: Vec<u8>,
}

impl Store for Lz4 {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        let len = 12 + value.len();
        let full = self.filled + len > BLOCK;
        self.filled = if full { len } else { self.filled + len };
        if !self.warm {
            if full {
                self.blocks.push(Vec::with_capacity(BLOCK));
            }
            self.blocks.last_mut().into_iter().for_each(|block| Bare::push(block, key, value));
        } else if full {
            let block = &self.blocks[self.at % self.blocks.len()];
            lz4_flex::block::compress_into(block, &mut self.out)?;
            self.at += 1;
        }
        Ok(())
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        batch.iter().try_for_each(|(key, value)| self.append(key, value))
    }

    /// What comes before the first of these is there to warm up.
    fn settle(&mut self) -> Result<()> {
        self.warm = true;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        std::hint::black_box(self.out);
        Ok(())
    }
}

/// Frames as ours lay them out, back to back in memory.
#[derive(Default)]
struct Scan {
    frames: Vec<u8>,
}

impl Store for Scan {
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        Ours::push(&mut self.frames, key, value);
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        Ours::take(&self.frames, tally);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct Copy {
    ring: Vec<u8>,
    at: usize,
}

impl Store for Copy {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        if self.at + 8 + value.len() > self.ring.len() {
            self.at = 0;
        }
        let (head, rest) = self.ring[self.at..].split_at_mut(8);
        head.copy_from_slice(key);
        rest[..value.len()].copy_from_slice(value);
        self.at += 8 + value.len();
        Ok(())
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        Ok(FlushBy::Itself)
    }

    fn close(self: Box<Self>) -> Result<()> {
        std::hint::black_box(self.ring);
        Ok(())
    }
}

struct Crc(u32);

impl Store for Crc {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.0 ^= crc32fast::hash(value);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        std::hint::black_box(self.0);
        Ok(())
    }
}

struct Flushed {
    file: File,
}

impl Store for Flushed {
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        let mut record = [0; 2048];
        record[..8].copy_from_slice(key);
        record[8..8 + value.len()].copy_from_slice(value);
        Ok(self.file.write_all(&record[..8 + value.len()])?)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
#[repr(align(128))]
struct Word {
    count: AtomicU32,
    stamp: AtomicU64,
}

impl Word {
    /// Takes what came since `seen`. Wake-ups that fell together carry one time.
    fn take(&self, seen: &mut u32, arrivals: &mut Arrivals) {
        let count = self.count.load(Ordering::Acquire);
        if count != *seen {
            arrivals.skip(u64::from(count.wrapping_sub(*seen)) - 1);
            *seen = count;
            arrivals.take(&self.stamp.load(Ordering::Acquire).to_le_bytes());
        }
    }
}

struct Futex(Arc<Word>);

impl Store for Futex {
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        let stamp = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        self.0.stamp.store(stamp, Ordering::Release);
        self.0.count.fetch_add(1, Ordering::Release);
        let private = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word lives as long as its Arc; a wake-up touches no memory.
        unsafe { libc::syscall(libc::SYS_futex, self.0.count.as_ptr(), private, 1) };
        Ok(())
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        Ok(Box::new(FutexTail { word: Arc::clone(&self.0), seen: 0 }))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct FutexTail {
    word: Arc<Word>,
    seen: u32,
}

impl Tail for FutexTail {
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        self.word.take(&mut self.seen, arrivals);
        Ok(())
    }

    fn park(&mut self, arrivals: &mut Arrivals, limit: Duration) -> Result<()> {
        let private = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let limit = libc::timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ };
        // SAFETY: the word and the time live through the call; the kernel only reads them.
        unsafe {
            let word = self.word.count.as_ptr();
            libc::syscall(libc::SYS_futex, word, private, self.seen, &raw const limit);
        }
        self.poll(arrivals)
    }
}

/// A reader woken by what the standard library has for it.
struct Bell {
    ring: Ring,
    sleeper: OnceLock<Thread>,
    word: Word,
    lock: Mutex<()>,
    condvar: Condvar,
}

enum Ring {
    Unpark,
    Condvar,
}

impl Bell {
    fn new(ring: Ring) -> Bell {
        let (lock, condvar) = (Mutex::default(), Condvar::default());
        Bell { ring, sleeper: OnceLock::new(), word: Word::default(), lock, condvar }
    }
}

struct Woken(Arc<Bell>);

impl Store for Woken {
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        let bell = &*self.0;
        let stamp = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        bell.word.stamp.store(stamp, Ordering::Release);
        match bell.ring {
            Ring::Unpark => {
                bell.word.count.fetch_add(1, Ordering::Release);
                bell.sleeper.get().into_iter().for_each(Thread::unpark);
            }
            Ring::Condvar => {
                let guard = bell.lock.lock().map_err(|_| "a thread panicked")?;
                bell.word.count.fetch_add(1, Ordering::Release);
                drop(guard);
                bell.condvar.notify_one();
            }
        }
        Ok(())
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        Ok(Box::new(WokenTail { bell: Arc::clone(&self.0), seen: 0 }))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct WokenTail {
    bell: Arc<Bell>,
    seen: u32,
}

impl Tail for WokenTail {
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        self.bell.word.take(&mut self.seen, arrivals);
        Ok(())
    }

    fn park(&mut self, arrivals: &mut Arrivals, limit: Duration) -> Result<()> {
        let Bell { ring, sleeper, word, lock, condvar } = &*self.bell;
        let seen = self.seen;
        match ring {
            Ring::Unpark => {
                sleeper.get_or_init(std::thread::current);
                if word.count.load(Ordering::Acquire) == seen {
                    std::thread::park_timeout(limit);
                }
            }
            Ring::Condvar => {
                let guard = lock.lock().map_err(|_| "a thread panicked")?;
                let none = |(): &mut ()| word.count.load(Ordering::Acquire) == seen;
                drop(condvar.wait_timeout_while(guard, limit, none).map_err(|_| "a thread panicked")?);
            }
        }
        self.poll(arrivals)
    }
}
