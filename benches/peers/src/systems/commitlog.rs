//! commitlog: segments and an index. Its flush is not an `fdatasync`, so it has no part where the disk counts.

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use super::{Config, Durability, Opening, Store, System};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{Append, Batch, Latency, Reopen, Ticks};

pub static SYSTEM: System = System {
    name: "commitlog",
    configs: &[Config {
        name: "default",
        durability: Durability::Process,
        probes: &[Append, Batch, Latency, Reopen, Ticks],
    }],
    open,
};

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let log = CommitLog::new(LogOptions::new(opening.dir.join("log")))?;
    Ok(Box::new(CommitLogStore { log, buffer: MessageBuf::default() }))
}

struct CommitLogStore {
    log: CommitLog,
    buffer: MessageBuf,
}

impl Store for CommitLogStore {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.append_batch(&[(*key, value)])
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        self.buffer.clear();
        for (key, value) in batch {
            self.buffer.push_with_metadata(key, value).map_err(|e| format!("{e:?}"))?;
        }
        self.log.append(&mut self.buffer).map_err(|e| format!("{e:?}"))?;
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        let mut at = 0;
        loop {
            let messages = self.log.read(at, ReadLimit::max_bytes(1 << 20)).map_err(|e| format!("{e:?}"))?;
            let before = at;
            for message in messages.iter() {
                at = message.offset() + 1;
                if !tally.take(message.payload()) {
                    return Ok(());
                }
            }
            if at == before {
                return Ok(());
            }
        }
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        Ok(self.log.flush()?)
    }
}
