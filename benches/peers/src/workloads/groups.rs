//! Four partitions read by a consumer of a group, beside bare readers of the same partitions, one after the other. Only
//! tapelog is here: what counts is what its group costs.

use std::time::{Duration, Instant};

use tapelog::{Consumer, Log, Partition, Record, Records, TopicConfig};

use super::{Answer, Job, Phase};
use crate::Result;
use crate::feed::{Feed, Tally};
use crate::systems::Durability;

const PARTITIONS: u32 = 4;

/// How many records lie in memory.
const HOT: u64 = 200_000;

pub fn run(job: &Job) -> Result<Answer> {
    let log = Log::open(&job.dir)?;
    let topic = log.ensure_topic("ticks", TopicConfig::new().partitions(PARTITIONS))?;
    let partitions =
        (0..PARTITIONS).map(|n| topic.partition(n)).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut readers = Readers::new(job, &log, &partitions)?;
    let (name, count) = match job.phase {
        Phase::Fill => {
            fill(&job.feed(), &partitions, 0, HOT)?;
            ("group_read_hot", HOT)
        }
        Phase::Read | Phase::Open => ("group_read_cold", job.stored),
    };
    if job.phase == Phase::Fill {
        // A first time for whatever happens once: a group forms, buffers grow.
        readers.read(count)?;
    }
    let (begin, mut read) = (Instant::now(), 0);
    while read == 0 || (job.phase == Phase::Fill && begin.elapsed() < job.limit()) {
        readers.read(count)?;
        read += count;
    }
    let rate = read as f64 / begin.elapsed().as_secs_f64();
    drop(readers);
    let mut records = count;
    if job.phase == Phase::Fill {
        fill(&job.feed(), &partitions, HOT, job.records)?;
        records = job.records;
    }
    drop((topic, partitions));
    log.close(Duration::from_secs(60))?;
    Ok(Answer {
        measures: vec![job.measure(name, Durability::None, "records/s", rate)],
        records,
        error: None,
    })
}

fn fill(feed: &Feed, partitions: &[Partition], from: u64, to: u64) -> Result<()> {
    for i in from..to {
        let (key, value) = feed.item(i);
        partitions[i as usize % partitions.len()].append(Record::new(value).key(&key))?;
    }
    Ok(())
}

enum Readers<'a> {
    Bare(&'a [Partition]),
    Group(Box<Consumer>, Records),
}

impl<'a> Readers<'a> {
    fn new(job: &Job, log: &Log, partitions: &'a [Partition]) -> Result<Self> {
        if job.config == "reader" {
            return Ok(Readers::Bare(partitions));
        }
        let mut consumer = log.consumer_group("risk")?.consumer();
        if job.config != "group" {
            consumer = consumer.max_poll_records(10_000);
        }
        Ok(Readers::Group(Box::new(consumer.subscribe(["ticks"])?), Records::new()))
    }

    /// Reads everything from the beginning.
    fn read(&mut self, expected: u64) -> Result<()> {
        let mut tally = Tally::new(Duration::MAX);
        match self {
            Readers::Bare(partitions) => {
                for partition in *partitions {
                    let mut reader = partition.reader(partition.start_offset())?;
                    while let Some(record) = reader.try_next()? {
                        tally.take(record.value().unwrap_or_default());
                    }
                }
            }
            Readers::Group(consumer, records) => {
                // None yet before the first poll, which begins there by itself.
                consumer.seek_to_beginning(&consumer.assignment())?;
                let deadline = Instant::now() + Duration::from_secs(20);
                while tally.count < expected && Instant::now() < deadline {
                    consumer.poll_into(records, Duration::from_millis(100))?;
                    for record in &*records {
                        tally.take(record.value().unwrap_or_default());
                    }
                }
            }
        }
        if tally.count == expected {
            return Ok(());
        }
        Err(format!("{} of {expected} records were read", tally.count).into())
    }
}
