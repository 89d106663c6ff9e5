//! walrus: topics with cursors. It finds its folder through the environment, which the harness sets per process;
//! its cursor is shared by all readers. It has no keys, and no flush but the one of its schedule. A reader that
//! follows falls ever further behind 100,000 records/s, so there is no tail latency to tell.

use std::sync::Arc;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::{Config, Disk, Durability, FlushBy, Opening, Store, System};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{Append, Batch, Latency, Reopen, Sync};

pub static SYSTEM: System = System {
    name: "walrus",
    configs: &[Config {
        name: "default backend",
        durability: Durability::Process,
        probes: &[Append, Batch, Latency, Sync, Reopen],
    }],
    open,
};

const TOPIC: &str = "ticks";

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let schedule = match opening.flush_every {
        Some(every) => FsyncSchedule::Milliseconds(every.as_millis() as u64),
        None if opening.durable => FsyncSchedule::SyncEach,
        None => FsyncSchedule::NoFsync,
    };
    let reads = ReadConsistency::AtLeastOnce { persist_every: 1 << 20 };
    let log = Arc::new(Walrus::with_consistency_and_schedule(reads, schedule)?);
    Ok(Box::new(WalrusStore { log, flushes: opening.flush_every.is_some() }))
}

struct WalrusStore {
    log: Arc<Walrus>,
    flushes: bool,
}

impl Store for WalrusStore {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        Ok(self.log.append_for_topic(TOPIC, value)?)
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        let values: Vec<&[u8]> = batch.iter().map(|(_, value)| *value).collect();
        Ok(self.log.batch_append_for_topic(TOPIC, &values)?)
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        loop {
            let entries = self.log.batch_read_for_topic(TOPIC, 1 << 20, true)?;
            if entries.is_empty() || !entries.iter().all(|entry| tally.take(&entry.data)) || tally.expired() {
                return Ok(());
            }
        }
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        Ok(if self.flushes { FlushBy::Itself } else { FlushBy::Writer })
    }

    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        Ok(Some(Arc::new(Durable(Arc::clone(&self.log)))))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct Durable(Arc<Walrus>);

impl Disk for Durable {
    fn append(&self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        Ok(self.0.append_for_topic(TOPIC, value)?)
    }
}
