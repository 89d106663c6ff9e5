//! fjall: a key-value store (LSM tree) used as a log, keyed by the record's number.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Config, Disk, Durability, Opening, Store, System};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{Append, Batch, Reopen, Sync, Ticks};

pub static SYSTEM: System = System {
    name: "fjall",
    configs: &[Config {
        name: "default",
        durability: Durability::Process,
        probes: &[Append, Batch, Sync, Reopen, Ticks],
    }],
    open,
};

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let dir: &Path = &opening.dir.join("fjall");
    let db = Database::builder(dir).open()?;
    let space = db.keyspace("ticks", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Tree { db, space }))
}

struct Tree {
    db: Database,
    space: Keyspace,
}

impl Store for Tree {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        Ok(self.space.insert(key, value)?)
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        let mut writes = self.db.batch();
        for (key, value) in batch {
            writes.insert(&self.space, key, *value);
        }
        Ok(writes.commit()?)
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        for item in self.space.iter() {
            if !tally.take(&item.value()?) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        let (db, space) = (self.db.clone(), self.space.clone());
        Ok(Some(Arc::new(Durable { db, space, next: AtomicU64::new(0) })))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }
}

struct Durable {
    db: Database,
    space: Keyspace,
    next: AtomicU64,
}

impl Disk for Durable {
    fn append(&self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.space.insert(key, value)?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }
}
