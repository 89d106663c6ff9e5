//! tickertape: a mapped journal, one writer. It has no keys and no batches.

use std::time::Duration;

use tickertape::{Backoff, NewRecord, Reader, ReaderConfig, Writer, WriterConfig};

use super::{Arrivals, Config, Durability, FlushBy, Opening, Store, System, Tail, newest_file};
use crate::Result;
use crate::feed::Tally;
use crate::workloads::Probe::{Append, Hot, Latency, Park, Reopen, Sustained, Sync, Tail as Follow, Ticks};

/// What it reaches without wake-ups, prefault thread and frequent rolls, and with its unsafe reader.
const BEST: &str = "best: 1 GiB segments, mapped";

pub static SYSTEM: System = System {
    name: "tickertape",
    configs: &[
        Config {
            name: "default",
            durability: Durability::Process,
            probes: &[Append, Latency, Follow, Park, Sync, Reopen, Hot, Sustained],
        },
        Config {
            name: BEST,
            durability: Durability::Process,
            probes: &[Append, Latency, Follow, Hot, Sustained],
        },
        // As it comes it preallocates 128 MiB at a time, which says nothing about its bytes per record.
        Config { name: "1 MiB segments", durability: Durability::Process, probes: &[Ticks] },
    ],
    open,
};

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let best = opening.config == BEST;
    let config = match opening.config {
        "1 MiB segments" => WriterConfig::default().segment_size(1 << 20),
        BEST => WriterConfig::default().segment_size(1 << 30).prefault(false).notify(false),
        _ => WriterConfig::default(),
    };
    let dir = opening.dir.join("journal");
    Ok(Box::new(Tickertape { writer: Writer::open(&dir, config)?, dir, best }))
}

struct Tickertape {
    writer: Writer,
    dir: std::path::PathBuf,
    best: bool,
}

impl Tickertape {
    fn reader(&self, config: ReaderConfig) -> Result<Reader> {
        if self.best {
            // SAFETY: nobody shortens or replaces the files while the benchmark runs.
            return Ok(unsafe { Reader::open_mapped(&self.dir, config)? });
        }
        Ok(Reader::open(&self.dir, config)?)
    }
}

impl Store for Tickertape {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.append_due(key, value, u64::from_be_bytes(*key))
    }

    #[inline]
    fn append_due(&mut self, _key: &[u8; 8], payload: &[u8], venue_ts_ns: u64) -> Result<()> {
        self.writer.append(&NewRecord { schema_id: 1, venue_ts_ns, local_ts_ns: 0, payload })?;
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        let mut reader = self.reader(ReaderConfig::default())?;
        while let Some(record) = reader.try_next()? {
            if !tally.take(record.payload) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.writer.checkpoint()?)
    }

    /// As documented, a checkpoint is the writer's. In its best configuration the harness flushes the newest
    /// segment from a second thread instead: less of a promise, and better for its latency.
    fn flush_by(&mut self) -> Result<FlushBy> {
        if !self.best {
            return Ok(FlushBy::Writer);
        }
        let dir = self.dir.clone();
        Ok(FlushBy::Thread(Box::new(move || Ok(newest_file(&dir, "tape")?.sync_data()?))))
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        let mut backoff = Backoff::default();
        (backoff.spins, backoff.yields) = (0, 0);
        let mut reader = self.reader(ReaderConfig::default().backoff(backoff))?;
        reader.seek(self.writer.next_seq())?;
        Ok(Box::new(Follower(reader)))
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        Ok(self.writer.checkpoint()?)
    }
}

struct Follower(Reader);

impl Tail for Follower {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        while let Some(record) = self.0.try_next()? {
            arrivals.take(record.payload);
        }
        Ok(())
    }

    fn park(&mut self, arrivals: &mut Arrivals, limit: Duration) -> Result<()> {
        if let Some(record) = self.0.next_timeout(Some(limit))? {
            arrivals.take(record.payload);
        }
        Ok(())
    }
}
