//! seglog: one segment file, buffered in the process until it is flushed. It has no keys.

use std::path::PathBuf;

use seglog::read::Reader;
use seglog::write::Writer;

use super::{Config, Durability, Opening, Store, System};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{Append, Batch, Latency, Reopen, Sync, Ticks};

pub static SYSTEM: System = System {
    name: "seglog",
    configs: &[
        Config {
            name: "buffered",
            durability: Durability::None,
            probes: &[Append, Batch, Latency, Sync, Reopen, Ticks],
        },
        Config { name: "flushed per append", durability: Durability::Process, probes: &[Append, Batch] },
    ],
    open,
};

const BYTES: usize = 2 << 30;

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let path = opening.dir.join("segment");
    let writer =
        if path.exists() { Writer::open(&path, BYTES, 0)? } else { Writer::create(&path, BYTES, 0)? };
    Ok(Box::new(Segment { writer, path, count: 0, flushes: opening.config != "buffered" }))
}

struct Segment {
    writer: Writer<0>,
    path: PathBuf,
    count: u64,
    flushes: bool,
}

impl Store for Segment {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.writer.append_data(value)?;
        self.count += 1;
        if self.flushes {
            self.writer.flush_writer()?;
        }
        Ok(())
    }

    /// Its own batch call reaches the disk; this is what goes to the page cache.
    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        for (_, value) in batch {
            self.writer.append_data(value)?;
        }
        self.count += batch.len() as u64;
        Ok(self.writer.flush_writer()?)
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        let mut reader = Reader::<0>::open_read_only(&self.path, None)?;
        let mut records = reader.iter(0);
        while let Some(record) = records.next_record()? {
            if !tally.take(&record.data) {
                break;
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.writer.flush_writer()?)
    }

    fn sync(&mut self) -> Result<()> {
        self.writer.commit(self.count)?;
        Ok(())
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
