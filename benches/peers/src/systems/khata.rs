//! khata: a mapped queue. It has no keys and no batches.

use khata_rs::{Queue, Reader, Writer};

use super::{Arrivals, Config, Durability, FlushBy, Opening, Store, System, Tail, newest_file};
use crate::Result;
use crate::feed::Tally;
use crate::workloads::Probe::{Append, Hot, Latency, Reopen, Sustained, Sync, Tail as Follow};

pub static SYSTEM: System = System {
    name: "khata",
    configs: &[
        Config {
            // A default queue cannot be opened a second time; with large blocks it can.
            name: "2 GiB blocks",
            durability: Durability::Process,
            probes: &[Append, Latency, Follow, Sync, Reopen, Hot],
        },
        // A block holds all that there is, until the day ends.
        Config { name: LARGE, durability: Durability::Process, probes: &[Sustained] },
    ],
    open,
};

const LARGE: &str = "8 GiB blocks";

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let dir = opening.dir.join("queue");
    // Its readers and writers borrow the queue; the process ends soon.
    let block = if opening.config == LARGE { 8 << 30 } else { 2 << 30 };
    let queue: &'static Queue = Box::leak(Box::new(Queue::new(&dir).block_size(block).build()?));
    Ok(Box::new(Khata { queue, writer: queue.writer()?, dir }))
}

struct Khata {
    queue: &'static Queue,
    writer: Writer<'static>,
    dir: std::path::PathBuf,
}

impl Store for Khata {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.writer.write(value)?;
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        let mut reader = self.queue.reader()?;
        reader.rewind()?;
        while let Some(value) = reader.read()? {
            if !tally.take(value) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.writer.flush()?)
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        let dir = self.dir.clone();
        Ok(FlushBy::Thread(Box::new(move || Ok(newest_file(&dir, khata_rs::FILE_EXTENSION)?.sync_data()?))))
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        let mut reader = self.queue.reader()?;
        reader.seek_end()?;
        Ok(Box::new(Follower(reader)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.writer.flush()?)
    }
}

struct Follower(Reader<'static>);

impl Tail for Follower {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        while let Some(value) = self.0.read()? {
            arrivals.take(value);
        }
        Ok(())
    }
}
