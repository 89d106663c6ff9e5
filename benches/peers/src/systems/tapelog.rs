//! Ours. `default` is how it comes: `Partition::append`, with the system's clock. `stamped` gives each record the
//! caller's time, as programs do that have one from the market; `appender` does so through the handle that has the
//! partition for itself. The others are in memory, per codec, and the consumer in place of the bare reader.

use std::sync::Arc;
use std::time::Duration;

use tapelog::consumer::WaitStrategy;
use tapelog::partition::{Appender, Reader};
use tapelog::topic::SyncPolicy;
use tapelog::{
    Compression, Consumer, Durability as Level, Log, OffsetReset, Partition, Producer, Record, Records,
    Timestamp, Topic, TopicConfig, TopicPartition,
};

use super::{Arrivals, Config, Disk, Durability, FlushBy, Opening, Store, System, Tail};
use crate::Result;
use crate::feed::{Item, Tally};
use crate::workloads::Probe::{
    Append, Batch, Group, Hot, Latency, Many, Park, Reopen, Sustained, Sync, Tail as Follow, Threads, Ticks,
};

pub static SYSTEM: System = System {
    name: "tapelog",
    configs: &[
        Config {
            name: "default",
            durability: Durability::Process,
            probes: &[Append, Batch, Latency, Follow, Sync, Reopen, Ticks, Hot, Sustained, Threads, Many],
        },
        Config { name: STAMPED, durability: Durability::Process, probes: &[Append, Batch, Latency, Ticks] },
        Config {
            name: APPENDER,
            durability: Durability::Process,
            probes: &[Append, Batch, Latency, Follow, Ticks, Sustained],
        },
        Config { name: IN_MEMORY, durability: Durability::Memory, probes: &[Append, Batch, Latency, Follow] },
        Config { name: CONSUMER, durability: Durability::Process, probes: &[Follow, Park] },
        Config { name: "reader", durability: Durability::None, probes: &[Group] },
        Config { name: "group", durability: Durability::None, probes: &[Group] },
        Config { name: "group, 10,000 a poll", durability: Durability::None, probes: &[Group] },
        Config { name: "lz4", durability: Durability::Process, probes: &[Ticks] },
        Config { name: LZ4_APPENDER, durability: Durability::Process, probes: &[Ticks] },
        Config { name: "snappy", durability: Durability::Process, probes: &[Ticks] },
        Config { name: "gzip", durability: Durability::Process, probes: &[Ticks] },
    ],
    open,
};

const STAMPED: &str = "stamped";
const APPENDER: &str = "appender";
const IN_MEMORY: &str = "in memory";
const CONSUMER: &str = "consumer";
const LZ4_APPENDER: &str = "lz4, appender";
const TOPIC: &str = "ticks";
/// So many bytes are read at a time: few enough for the cache.
const RUN: usize = 256 << 10;

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let log = match opening.config {
        IN_MEMORY => Log::builder().memory_limit(4 << 30).in_memory()?,
        _ => Log::open(opening.dir)?,
    };
    let mut config = TopicConfig::new().compression(match opening.config {
        "lz4" | LZ4_APPENDER => Compression::Lz4,
        "snappy" => Compression::Snappy,
        "gzip" => Compression::Gzip,
        _ => Compression::None,
    });
    if let Some(every) = opening.flush_every {
        config = config.sync_policy(SyncPolicy::Every(every));
    }
    let topic = log.ensure_topic(TOPIC, config)?;
    let partition = topic.partition(0)?;
    let way = match opening.config {
        STAMPED => Way::Stamped,
        APPENDER | LZ4_APPENDER => Way::Appender(partition.appender()?),
        _ => Way::Plain,
    };
    let (flushes, consumes) = (opening.flush_every.is_some(), opening.config == CONSUMER);
    let run = (RUN / opening.value_bytes).max(1);
    Ok(Box::new(Tapelog { log, topic, partition, way, flushes, consumes, run }))
}

/// How records go in.
enum Way {
    Plain,
    Stamped,
    Appender(Appender),
}

struct Tapelog {
    log: Log,
    topic: Topic,
    partition: Partition,
    way: Way,
    flushes: bool,
    /// Followers are consumers.
    consumes: bool,
    /// How many records are read at a time.
    run: usize,
}

/// The caller's time where the harness does not say one: it rises with the records.
fn time_of(key: &[u8; 8]) -> u64 {
    1_700_000_000_000_000_000 + u64::from_be_bytes(*key)
}

fn stamped<'a>(key: &'a [u8; 8], value: &'a [u8], due: u64) -> Record<'a> {
    Record::new(value).key(key).timestamp(Timestamp::from_nanos(due as i64))
}

impl Store for Tapelog {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.append_due(key, value, time_of(key))
    }

    #[inline]
    fn append_due(&mut self, key: &[u8; 8], value: &[u8], due: u64) -> Result<()> {
        match &mut self.way {
            Way::Plain => drop(self.partition.append(Record::new(value).key(key))?),
            Way::Stamped => drop(self.partition.append(stamped(key, value, due))?),
            Way::Appender(appender) => _ = appender.append(stamped(key, value, due))?,
        }
        Ok(())
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        let mut records = [Record::default(); 128];
        let plain = matches!(self.way, Way::Plain);
        for (record, (key, value)) in records.iter_mut().zip(batch) {
            *record = if plain { Record::new(*value).key(key) } else { stamped(key, value, time_of(key)) };
        }
        let records = &records[..batch.len()];
        match &mut self.way {
            Way::Plain | Way::Stamped => drop(self.partition.append_batch(records)?),
            Way::Appender(appender) => _ = appender.append_batch(records)?,
        }
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        let mut reader = self.partition.reader(self.partition.start_offset())?;
        loop {
            let records = reader.read(self.run)?;
            if records.is_empty() {
                return Ok(());
            }
            for record in &records {
                if !tally.take(record.value().unwrap_or_default()) {
                    return Ok(());
                }
            }
        }
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
        if !self.consumes {
            return Ok(Box::new(Follower(self.partition.reader(self.partition.end_offset())?)));
        }
        let mut consumer = self
            .log
            .consumer()
            .offset_reset(OffsetReset::Latest)
            .wait_strategy(WaitStrategy::Park)
            .assign([TopicPartition::new(TOPIC, 0)])?;
        let mut records = Records::new();
        // The first poll finds the end.
        consumer.poll_into(&mut records, Duration::ZERO)?;
        Ok(Box::new(Polling { consumer, records }))
    }

    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        let producer = self.log.producer().durability(Level::Disk).build()?;
        Ok(Some(Arc::new(Durable { producer, topic: self.topic.clone() })))
    }

    fn flushed_at_open(&self) -> Option<Duration> {
        Some(self.log.recovery_report().flush_time)
    }

    fn close(self: Box<Self>) -> Result<()> {
        let log = self.log.clone();
        drop(self);
        Ok(log.close(Duration::from_secs(60))?)
    }
}

struct Follower(Reader);

impl Tail for Follower {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        while let Some(record) = self.0.try_next()? {
            arrivals.take(record.value().unwrap_or_default());
        }
        Ok(())
    }
}

struct Polling {
    consumer: Consumer,
    records: Records,
}

impl Tail for Polling {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        self.park(arrivals, Duration::ZERO)
    }

    fn park(&mut self, arrivals: &mut Arrivals, limit: Duration) -> Result<()> {
        self.consumer.poll_into(&mut self.records, limit)?;
        for record in &self.records {
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
