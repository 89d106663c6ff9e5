//! Ten thousand partitions in one log: how long it takes to open, what it keeps in memory, and what it costs while nothing
//! happens. Only tapelog is here: no other has partitions by the thousand in one store.

use std::time::{Duration, Instant};

use tapelog::{Log, Record, Topic, TopicConfig};

use super::{Answer, Job, Phase};
use crate::systems::Durability;
use crate::{Result, usage};

const PARTITIONS: u32 = 10_000;

/// How long it is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(1);

pub fn run(job: &Job) -> Result<Answer> {
    let begin = Instant::now();
    let log = Log::open(&job.dir)?;
    let took = begin.elapsed();
    let mut measures = Vec::new();
    let topic = log.ensure_topic("ticks", TopicConfig::new().partitions(PARTITIONS))?;
    // One record for each, in the log that was just opened too: else there would be nothing to keep.
    append(job, &topic)?;
    if job.phase != Phase::Fill {
        usage::quiesce(Duration::from_secs(5));
        let (before, since) = (usage::cpu(), Instant::now());
        std::thread::sleep(IDLE);
        let idle = (usage::cpu() - before).as_secs_f64() / since.elapsed().as_secs_f64();
        let resident = usage::resident()? as f64 / f64::from(1 << 20);
        measures = vec![
            job.measure("partitions_10k_open", job.durability()?, "ms", took.as_secs_f64() * 1e3),
            job.measure("partitions_10k_resident", Durability::None, "MiB", resident),
            job.measure("partitions_10k_idle", Durability::None, "ms CPU/s", idle * 1e3),
        ];
    }
    drop(topic);
    log.close(Duration::from_secs(60))?;
    Ok(Answer { measures, records: u64::from(PARTITIONS), error: None })
}

fn append(job: &Job, topic: &Topic) -> Result<()> {
    let feed = job.feed();
    for n in 0..PARTITIONS {
        let (key, value) = feed.item(u64::from(n));
        topic.partition(n)?.append(Record::new(value).key(&key))?;
    }
    // Nothing happens when all of it is in files.
    for n in 0..PARTITIONS {
        let partition = topic.partition(n)?;
        partition.wait_written(partition.end_offset(), Duration::from_secs(60))?;
    }
    Ok(())
}
