//! yaque: a disk queue. It has no keys, and it flushes to nothing but the page cache.

use yaque::queue::{QueueIter, Receiver, Sender};
use yaque::{ReceiverBuilder, SenderBuilder};

use super::{Arrivals, Config, Durability, Opening, Store, System, Tail};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{Append, Batch, Latency, Reopen, Tail as Follow, Ticks};

pub static SYSTEM: System = System {
    name: "yaque",
    configs: &[Config {
        name: "default",
        durability: Durability::Process,
        probes: &[Append, Batch, Latency, Follow, Reopen, Ticks],
    }],
    open,
};

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let dir = opening.dir.join("queue");
    // What a killed process left is a lock that is nobody's.
    let _ = std::fs::remove_file(dir.join("send.lock"));
    Ok(Box::new(Yaque { sender: SenderBuilder::new().open(&dir)?, dir }))
}

struct Yaque {
    sender: Sender,
    dir: std::path::PathBuf,
}

impl Store for Yaque {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.sender.try_send(value).map_err(|e| format!("{e:?}"))?;
        Ok(())
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        self.sender.try_send_batch(batch.iter().map(|(_, value)| *value)).map_err(|_| "it did not send")?;
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        for value in QueueIter::open(&self.dir)? {
            if !tally.take(&value?) {
                break;
            }
        }
        Ok(())
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        Ok(Box::new(Follower(ReceiverBuilder::new().save_every_nth(None).save_every(None).open(&self.dir)?)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct Follower(Receiver);

impl Tail for Follower {
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        while let Ok(value) = self.0.try_recv() {
            arrivals.take(&value);
            value.commit()?;
        }
        Ok(())
    }
}
