//! raft-engine: a log for many raft groups, used as one log of one group. Keys go in front of values.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config as EngineConfig, Engine, LogBatch, MessageExt, ReadableSize};

use super::{Arrivals, Config, Disk, Durability, FlushBy, Opening, Store, System, Tail};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{Append, Batch, Latency, Reopen, Sync, Tail as Follow, Ticks};

const PLAIN: &str = "no compression";

pub static SYSTEM: System = System {
    name: "raft-engine",
    configs: &[
        Config {
            name: PLAIN,
            durability: Durability::Process,
            probes: &[Append, Batch, Latency, Follow, Sync, Reopen],
        },
        Config { name: "lz4", durability: Durability::Process, probes: &[Ticks] },
    ],
    open,
};

const GROUP: u64 = 1;

struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    /// Raft counts from one.
    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |key| u64::from_be_bytes(*key)) + 1
    }
}

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let mut config =
        EngineConfig { dir: opening.dir.join("raft").display().to_string(), ..Default::default() };
    if opening.config == PLAIN {
        config.batch_compression_threshold = ReadableSize(0);
    }
    Ok(Box::new(Raft { engine: Arc::new(Engine::open(config)?), batch: LogBatch::default() }))
}

struct Raft {
    engine: Arc<Engine>,
    batch: LogBatch,
}

fn entry(key: &[u8; 8], value: &[u8]) -> BytesValue {
    let mut entry = BytesValue::default();
    entry.value.reserve_exact(8 + value.len());
    entry.value.extend_from_slice(key);
    entry.value.extend_from_slice(value);
    entry
}

impl Store for Raft {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.batch.add_entries::<Entry>(GROUP, &[entry(key, value)])?;
        self.engine.write(&mut self.batch, false)?;
        Ok(())
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        let entries: Vec<BytesValue> = batch.iter().map(|(key, value)| entry(key, value)).collect();
        self.batch.add_entries::<Entry>(GROUP, &entries)?;
        self.engine.write(&mut self.batch, false)?;
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        let last = self.engine.last_index(GROUP).map_or(0, |last| last + 1);
        let mut at = self.engine.first_index(GROUP).unwrap_or(0);
        let mut entries = Vec::new();
        while at < last {
            let end = (at + 1000).min(last);
            entries.clear();
            self.engine.fetch_entries_to::<Entry>(GROUP, at, end, None, &mut entries)?;
            if !entries.iter().all(|entry| tally.take(&entry.value[8..])) || tally.expired() {
                break;
            }
            at = end;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.engine.sync()?)
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        let engine = Arc::clone(&self.engine);
        Ok(FlushBy::Thread(Box::new(move || Ok(engine.sync()?))))
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        let next = self.engine.last_index(GROUP).map_or(1, |last| last + 1);
        Ok(Box::new(Follower { engine: Arc::clone(&self.engine), next }))
    }

    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        Ok(Some(Arc::new(Durable { engine: Arc::clone(&self.engine), groups: AtomicU64::new(100) })))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.engine.sync()?)
    }
}

struct Follower {
    engine: Arc<Engine>,
    next: u64,
}

impl Tail for Follower {
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        while let Some(entry) = self.engine.get_entry::<Entry>(GROUP, self.next)? {
            arrivals.take(&entry.value[8..]);
            self.next += 1;
        }
        Ok(())
    }
}

thread_local! {
    /// Indexes of a group must be without holes, so each thread has a group of its own.
    static OWN: std::cell::Cell<(u64, u64)> = const { std::cell::Cell::new((0, 0)) };
}

struct Durable {
    engine: Arc<Engine>,
    groups: AtomicU64,
}

impl Disk for Durable {
    fn append(&self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        let (group, number) = OWN.get();
        let group = if group == 0 { self.groups.fetch_add(1, Ordering::Relaxed) } else { group };
        OWN.set((group, number + 1));
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Entry>(group, &[entry(&number.to_be_bytes(), value)])?;
        self.engine.write(&mut batch, true)?;
        Ok(())
    }
}
