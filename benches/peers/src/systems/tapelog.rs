//! Ours. As it comes, and in memory; per codec for the ticks.

use std::sync::Arc;
use std::time::Duration;

use tapelog::topic::SyncPolicy;
use tapelog::{Compression, Durability as Level, Log, Partition, Producer, Record, Topic, TopicConfig};

use super::{Arrivals, Config, Disk, Durability, FlushBy, Opening, Store, System, Tail};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{Append, Batch, Latency, Reopen, Sync, Tail as Follow, Ticks};

pub static SYSTEM: System = System {
    name: "tapelog",
    configs: &[
        Config {
            name: "default",
            durability: Durability::Process,
            probes: &[Append, Batch, Latency, Follow, Sync, Reopen, Ticks],
        },
        Config {
            name: "in memory",
            durability: Durability::Memory,
            probes: &[Append, Batch, Latency, Follow],
        },
        Config { name: "lz4", durability: Durability::Process, probes: &[Ticks] },
        Config { name: "snappy", durability: Durability::Process, probes: &[Ticks] },
    ],
    open,
};

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let log = match opening.config {
        "in memory" => Log::builder().memory_limit(4 << 30).in_memory()?,
        _ => Log::open(opening.dir)?,
    };
    let mut config = TopicConfig::new().compression(match opening.config {
        "lz4" => Compression::Lz4,
        "snappy" => Compression::Snappy,
        _ => Compression::None,
    });
    if let Some(every) = opening.flush_every {
        config = config.sync_policy(SyncPolicy::Every(every));
    }
    let topic = log.ensure_topic("ticks", config)?;
    let partition = topic.partition(0)?;
    let flushes = opening.flush_every.is_some();
    Ok(Box::new(Tapelog { log, topic, partition, flushes }))
}

struct Tapelog {
    log: Log,
    topic: Topic,
    partition: Partition,
    flushes: bool,
}

impl Store for Tapelog {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.partition.append(Record::new(value).key(key))?;
        Ok(())
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        let mut records = [Record::default(); 128];
        for (record, (key, value)) in records.iter_mut().zip(batch) {
            *record = Record::new(*value).key(key);
        }
        self.partition.append_batch(&records[..batch.len()])?;
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        let mut reader = self.partition.reader(self.partition.start_offset())?;
        while let Some(record) = reader.try_next()? {
            if !tally.take(record.value().unwrap_or_default()) {
                break;
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.partition.wait_written(self.partition.end_offset(), Duration::from_secs(60))?)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.log.sync()?)
    }

    fn flush_by(&mut self) -> Result<FlushBy> {
        let log = self.log.clone();
        Ok(if self.flushes { FlushBy::Itself } else { FlushBy::Thread(Box::new(move || Ok(log.sync()?))) })
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        Ok(Box::new(Follower(self.partition.reader(self.partition.end_offset())?)))
    }

    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        let producer = self.log.producer().durability(Level::Disk).build()?;
        Ok(Some(Arc::new(Durable { producer, topic: self.topic.clone() })))
    }

    fn close(self: Box<Self>) -> Result<()> {
        let log = self.log.clone();
        drop(self);
        Ok(log.close(Duration::from_secs(60))?)
    }
}

struct Follower(tapelog::partition::Reader);

impl Tail for Follower {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        while let Some(record) = self.0.try_next()? {
            arrivals.take(record.value().unwrap_or_default());
        }
        Ok(())
    }
}

struct Durable {
    producer: Producer,
    topic: Topic,
}

impl Disk for Durable {
    fn append(&self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.producer.send(&self.topic, Record::new(value).key(key))?.wait()?;
        Ok(())
    }
}
