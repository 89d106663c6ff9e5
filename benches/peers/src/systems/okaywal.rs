//! okaywal: a write-ahead log whose commit always reaches the disk. It takes part where that is asked for.

use std::sync::Arc;

use okaywal::{LogVoid, WriteAheadLog};

use super::{Config, Disk, Durability, Opening, Store, System};
use crate::Result;
use crate::workloads::Probe::Sync;

pub static SYSTEM: System = System {
    name: "okaywal",
    configs: &[Config { name: "default", durability: Durability::Disk, probes: &[Sync] }],
    open,
};

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    Ok(Box::new(Wal(Arc::new(Committed(WriteAheadLog::recover(opening.dir.join("wal"), LogVoid)?)))))
}

struct Wal(Arc<Committed>);

struct Committed(WriteAheadLog);

impl Disk for Committed {
    fn append(&self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(value)?;
        entry.commit()?;
        Ok(())
    }
}

impl Store for Wal {
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.0.append(key, value)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        Ok(Some(Arc::clone(&self.0) as _))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
