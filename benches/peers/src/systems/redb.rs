//! redb: a key-value store (B-tree) used as a log, keyed by the record's number; a transaction per append.

use redb::{Database, Durability as Level, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Config, Durability, Opening, Store, System};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{Append, Batch, Reopen, Sync, Ticks};

pub static SYSTEM: System = System {
    name: "redb",
    configs: &[Config {
        name: "durability none",
        durability: Durability::None,
        probes: &[Append, Batch, Sync, Reopen, Ticks],
    }],
    open,
};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ticks");

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    Ok(Box::new(Tree(Database::create(opening.dir.join("redb"))?)))
}

struct Tree(Database);

impl Tree {
    fn write(&self, batch: &[Item<'_>], level: Level) -> Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(level)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in batch {
                table.insert(u64::from_be_bytes(*key), *value)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Store for Tree {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.write(&[(*key, value)], Level::None)
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        self.write(batch, Level::None)
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        let transaction = self.0.begin_read()?;
        for entry in transaction.open_table(TABLE)?.iter()? {
            if !tally.take(entry?.1.value()) {
                break;
            }
        }
        Ok(())
    }

    /// Commits nothing, durably: with it goes what was committed before.
    fn sync(&mut self) -> Result<()> {
        self.write(&[], Level::Immediate)
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
