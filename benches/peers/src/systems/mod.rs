//! The systems, behind one face.
//!
//! Loops stand in provided methods, so that the compiler makes one per system and a call through a trait object
//! is paid once per loop, never per record.

#[cfg(feature = "aeron")]
mod aeron;
mod blocks;
mod channels;
mod commitlog;
mod fjall;
mod floor;
mod grouped;
mod idle;
mod kafko;
mod khata;
mod logdb;
mod okaywal;
mod passing;
mod raft_engine;
mod redb;
mod replayed;
mod seglog;
mod tapelog;
mod tickertape;
mod walrus;
mod yaque;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::feed::{Feed, Item, Tally};
use crate::workloads::Probe;
use crate::workloads::latency::{Arrivals, Pace, Paced};

/// What a record survives once its append has returned (for `Disk`: once it is acknowledged).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing: it may still be in a buffer of the process.
    None,
    /// The death of the process at any instruction.
    Process,
    /// The loss of power.
    Disk,
    /// Nothing, and it is never stored at all.
    Memory,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Durability::None => "none",
            Durability::Process => "process",
            Durability::Disk => "disk",
            Durability::Memory => "memory",
        }
    }
}

/// A system under test.
pub struct System {
    pub name: &'static str,
    /// The first one is the system as it comes.
    pub configs: &'static [Config],
    pub open: fn(&Opening<'_>) -> Result<Box<dyn Store>>,
}

/// One way to run a system.
pub struct Config {
    pub name: &'static str,
    pub durability: Durability,
    pub probes: &'static [Probe],
}

/// How a store is opened.
pub struct Opening<'a> {
    pub dir: &'a Path,
    pub config: &'a str,
    /// The system flushes by itself that often, where it has a policy for it.
    pub flush_every: Option<Duration>,
    /// Several threads will use it.
    pub shared: bool,
    /// Every append must reach the disk, where that is a setting.
    pub durable: bool,
    /// How long the values are, or about that.
    pub value_bytes: usize,
}

/// All systems: ours first, floors last.
pub static SYSTEMS: &[&System] = &[
    &tapelog::SYSTEM,
    &tickertape::SYSTEM,
    &kafko::SYSTEM,
    &khata::SYSTEM,
    &commitlog::SYSTEM,
    &yaque::SYSTEM,
    &walrus::SYSTEM,
    &raft_engine::SYSTEM,
    &okaywal::SYSTEM,
    &seglog::SYSTEM,
    &logdb::SYSTEM,
    &fjall::SYSTEM,
    &redb::SYSTEM,
    &channels::DISRUPTOR,
    &channels::CROSSBEAM,
    &channels::TOKIO,
    #[cfg(feature = "aeron")]
    &aeron::SYSTEM,
    &floor::SYSTEM,
];

pub fn find(name: &str) -> Option<&'static System> {
    SYSTEMS.iter().copied().find(|system| system.name == name)
}

/// Who makes what was appended survive the loss of power every 50 ms.
pub enum FlushBy {
    /// The system, as its policy was set when it was opened.
    Itself,
    /// A second thread of the harness, with this.
    Thread(Box<dyn FnMut() -> Result<()> + Send>),
    /// The appending thread, between two appends: the system allows nothing else.
    Writer,
}

/// An open system.
pub trait Store: Send {
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()>;

    /// As [`Store::append`], for those that take the time of what they store: nanoseconds since the Unix epoch.
    #[inline]
    fn append_due(&mut self, key: &[u8; 8], value: &[u8], _due: u64) -> Result<()> {
        self.append(key, value)
    }

    fn append_batch(&mut self, _batch: &[Item<'_>]) -> Result<()> {
        unsupported("batches")
    }

    /// Reads everything from the beginning.
    fn read_all(&mut self, _tally: &mut Tally) -> Result<()> {
        unsupported("reading back")
    }

    /// Waits until everything appended is in the page cache.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Makes everything appended survive the loss of power.
    fn sync(&mut self) -> Result<()> {
        unsupported("flushing to disk")
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        Ok(FlushBy::Writer)
    }

    /// A reader for another thread, at the end of what there is.
    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        unsupported("following")
    }

    /// What several threads append through, each append durable when it returns. `None`: a lock around
    /// [`Store::append`] and [`Store::sync`] is all there is.
    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        Ok(None)
    }

    /// How long the open of this store waited for a flush, where the system tells.
    fn flushed_at_open(&self) -> Option<Duration> {
        None
    }

    /// A clean end.
    fn close(self: Box<Self>) -> Result<()>;

    /// Appends records `from..to`, one by one.
    fn append_run(&mut self, feed: &Feed, from: u64, to: u64) -> Result<()> {
        for i in from..to {
            let (key, value) = feed.item(i);
            self.append(&key, value)?;
        }
        Ok(())
    }

    /// Appends records `from..to` in batches of `size`.
    fn append_batches(&mut self, feed: &Feed, from: u64, to: u64, size: u64) -> Result<()> {
        let mut batch = Vec::with_capacity(size as usize);
        for begin in (from..to).step_by(size as usize) {
            batch.clear();
            batch.extend((begin..(begin + size).min(to)).map(|i| feed.item(i)));
            self.append_batch(&batch)?;
        }
        Ok(())
    }

    /// Appends from record `first` on at a fixed rate, whatever that does to the latency.
    fn append_paced(&mut self, feed: &Feed, first: u64, pace: &Pace) -> Result<Paced> {
        let mut paced = Paced::new(pace);
        let mut value = feed.item(0).1.to_vec();
        for i in 0..pace.records {
            let Some(intended) = paced.wait(pace, i) else { break };
            if paced.flush_is_due(pace) {
                self.sync()?;
            }
            let (key, plain) = feed.item(first + i);
            let value = if pace.stamped { stamp(&mut value) } else { plain };
            let due = paced.time_of(i);
            self.append_due(&key, value, due)?;
            paced.record(intended, crate::clock::now());
        }
        Ok(paced)
    }
}

/// Writes the time into the first eight bytes: the moment from which the reader's latency counts.
pub fn stamp(value: &mut [u8]) -> &[u8] {
    value[..8].copy_from_slice(&crate::clock::now().to_le_bytes());
    value
}

/// A reader that follows.
pub trait Tail: Send {
    /// Takes what is there, without waiting.
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()>;

    /// Waits as the system does, without spinning, until something comes or the time is up.
    fn park(&mut self, _arrivals: &mut Arrivals, _limit: Duration) -> Result<()> {
        unsupported("waiting")
    }

    fn spin(&mut self, arrivals: &mut Arrivals, stop: &AtomicBool) -> Result<()> {
        while arrivals.open() && !stop.load(Ordering::Relaxed) {
            self.poll(arrivals)?;
        }
        Ok(())
    }

    fn sleep(&mut self, arrivals: &mut Arrivals, stop: &AtomicBool) -> Result<()> {
        while arrivals.open() && !stop.load(Ordering::Relaxed) {
            self.park(arrivals, Duration::from_millis(50))?;
        }
        Ok(())
    }
}

/// Appends that survive the loss of power when they return, from many threads.
pub trait Disk: Send + Sync {
    fn append(&self, key: &[u8; 8], value: &[u8]) -> Result<()>;
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(format!("the harness knows no {what} here").into())
}

/// Files of a directory, newest first: for flushing from outside what a system maps.
fn newest_file(dir: &Path, extension: &str) -> Result<std::fs::File> {
    let mut newest = None;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            newest = newest.max(Some(path));
        }
    }
    let path = newest.ok_or_else(|| format!("no .{extension} in {}", dir.display()))?;
    Ok(std::fs::OpenOptions::new().read(true).write(true).open(path)?)
}
