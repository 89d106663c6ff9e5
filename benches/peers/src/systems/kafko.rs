//! kafko: topics and partitions in the process, asynchronous.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafko::{Compression, Consumer, Kafko, LogConfig, Producer, Topic};
use tokio::runtime::{Builder, Handle, Runtime};

use super::{Arrivals, Config, Disk, Durability, FlushBy, Opening, Store, System, Tail};
use crate::Result;
use crate::feed::{Feed, Item, Tally};
use crate::workloads::Probe::{Append, Batch, Latency, Park, Reopen, Sync, Ticks};

/// It rereads the rest of a segment for every record: small ones make reading bearable.
const SMALL: &str = "64 KiB segments";

pub static SYSTEM: System = System {
    name: "kafko",
    configs: &[
        Config {
            name: "default",
            durability: Durability::Process,
            probes: &[Append, Batch, Latency, Sync, Reopen, Ticks],
        },
        Config { name: SMALL, durability: Durability::Process, probes: &[Append, Park] },
        Config { name: "lz4", durability: Durability::Process, probes: &[Ticks] },
    ],
    open,
};

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let mut builder = if opening.shared {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    } else {
        Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build()?;
    let mut config = LogConfig::default();
    match opening.config {
        SMALL => config.segment_size_threshold = 64 << 10,
        "lz4" => config.compression = Compression::Lz4,
        _ => {}
    }
    let dir: PathBuf = opening.dir.join("kafko");
    let (broker, topic, producer) = runtime.block_on(async {
        let broker = Kafko::open_with_config(&dir, config).await?;
        if !broker.has_topic("ticks").await {
            broker.create_topic_with_config("ticks", config).await?;
        }
        let topic = broker.topic("ticks").await;
        let producer = broker.producer_for("ticks").await?;
        kafko::Result::Ok((broker, topic, producer))
    })?;
    let topic = topic.ok_or("it has no such topic")?;
    Ok(Box::new(Broker { runtime, broker, topic, producer }))
}

struct Broker {
    runtime: Runtime,
    broker: Kafko,
    topic: Arc<Topic>,
    producer: Producer,
}

async fn send(producer: &Producer, (key, value): Item<'_>) -> kafko::Result<()> {
    producer.send(Some(Bytes::copy_from_slice(&key)), Bytes::copy_from_slice(value)).await?;
    Ok(())
}

impl Store for Broker {
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        Ok(self.runtime.block_on(send(&self.producer, (*key, value)))?)
    }

    fn append_run(&mut self, feed: &Feed, from: u64, to: u64) -> Result<()> {
        self.runtime.block_on(async {
            for i in from..to {
                send(&self.producer, feed.item(i)).await?;
            }
            Ok(())
        })
    }

    fn append_batch(&mut self, batch: &[Item<'_>]) -> Result<()> {
        let records = batch
            .iter()
            .map(|(key, value)| (Some(Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value)))
            .collect();
        self.runtime.block_on(self.producer.send_batch(records))?;
        Ok(())
    }

    fn read_all(&mut self, tally: &mut Tally) -> Result<()> {
        self.runtime.block_on(async {
            let partition = self.topic.partition(0).ok_or("it has no partition")?;
            let mut offset = 0;
            while let Some(record) = partition.read_record_at(offset).await? {
                offset += 1;
                if !tally.take(record.value()) || tally.expired() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn sync(&mut self) -> Result<()> {
        let partition = self.topic.partition(0).ok_or("it has no partition")?;
        Ok(self.runtime.block_on(partition.sync())?)
    }

    /// Its own task does reads, writes and flushes one after the other.
    fn flush_by(&mut self) -> Result<FlushBy> {
        Ok(FlushBy::Writer)
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        let mut consumer = self.runtime.block_on(self.broker.consumer_for("ticks"))?;
        let end = self.topic.partition(0).map_or(0, |partition| partition.high_water_mark());
        consumer.seek_all(end);
        Ok(Box::new(Follower { handle: self.runtime.handle().clone(), consumer }))
    }

    fn disk(&mut self) -> Result<Option<Arc<dyn Disk>>> {
        let (handle, topic) = (self.runtime.handle().clone(), Arc::clone(&self.topic));
        Ok(Some(Arc::new(Durable { handle, topic, producer: self.producer.clone() })))
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Broker { runtime, broker, topic, producer } = *self;
        drop((topic, producer));
        Ok(runtime.block_on(broker.shutdown())?)
    }
}

struct Follower {
    handle: Handle,
    consumer: Consumer,
}

impl Tail for Follower {
    /// It has no call that does not wait: the shortest wait is what spinning comes to.
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        self.park(arrivals, Duration::from_millis(5))
    }

    fn park(&mut self, arrivals: &mut Arrivals, limit: Duration) -> Result<()> {
        let next = async { tokio::time::timeout(limit, self.consumer.next_record()).await };
        if let Ok(record) = self.handle.block_on(next) {
            arrivals.take(record?.value());
        }
        Ok(())
    }
}

struct Durable {
    handle: Handle,
    topic: Arc<Topic>,
    producer: Producer,
}

impl Disk for Durable {
    fn append(&self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        let partition = self.topic.partition(0).ok_or("it has no partition")?;
        self.handle.block_on(async {
            send(&self.producer, (*key, value)).await?;
            partition.sync().await
        })?;
        Ok(())
    }
}
