//! logdb: a ring in the process, drained to disk by a thread. It has no keys; readers see what is on the disk.

use std::sync::Arc;
use std::time::Duration;

use logdb::{Config as DbConfig, DurabilityMode, LogDb, ShutdownReport};

use super::{Config, Disk, Durability, FlushBy, Opening, Store, System};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{Append, Batch, Latency, Reopen, Sync, Ticks};

pub static SYSTEM: System = System {
    name: "logdb",
    configs: &[Config {
        name: "async",
        durability: Durability::None,
        probes: &[Append, Batch, Latency, Sync, Reopen, Ticks],
    }],
    open,
};

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let config = DbConfig {
        data_dir: opening.dir.join("logdb"),
        durability_mode: DurabilityMode::Async,
        ..DbConfig::default()
    };
    Ok(Box::new(Db(Arc::new(LogDb::open(config)?))))
}

struct Db(Arc<LogDb>);

impl Store for Db {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.0.append(value)?;
        Ok(())
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        let values: Vec<&[u8]> = batch.iter().map(|(_, value)| *value).collect();
        self.0.append_batch(&values)?;
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        for record in self.0.replay_from(0)? {
            if !tally.take(&record?.content) {
                break;
            }
        }
        Ok(())
    }

    /// What its thread has written is what is in the page cache.
    fn settle(&mut self) -> Result<()> {
        while self.0.committed_cursor() < self.0.producer_cursor() {
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        let db = Arc::clone(&self.0);
        Ok(FlushBy::Thread(Box::new(move || Ok(db.flush()?))))
    }

    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        Ok(Some(Arc::new(Durable(Arc::clone(&self.0)))))
    }

    fn close(self: Box<Self>) -> Result<()> {
        match self.0.drain(Duration::from_secs(60))? {
            ShutdownReport::Clean => Ok(()),
            other => Err(format!("it drained to {other:?}").into()),
        }
    }
}

struct Durable(Arc<LogDb>);

impl Disk for Durable {
    fn append(&self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.0.append(value)?;
        Ok(self.0.flush()?)
    }
}
