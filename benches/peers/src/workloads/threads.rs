//! Threads that append at once, to one partition or each to its own. Only tapelog is here: most others know one writer.

use std::time::{Duration, Instant};

use tapelog::{Log, Partition, Record, TopicConfig};

use super::{Answer, Job};
use crate::Result;

pub fn run(job: &Job) -> Result<Answer> {
    let log = Log::open(&job.dir)?;
    let threads = job.threads as u32;
    let mut measures = Vec::new();
    for (name, partitions) in [("shared", 1), ("apart", threads)] {
        let topic = log.ensure_topic(name, TopicConfig::new().partitions(partitions))?;
        let writers = (0..threads)
            .map(|n| topic.partition(n % partitions))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let rate = append(job, &writers)?;
        let name = format!("append_threads_{threads}_{name}");
        measures.push(job.measure(&name, job.durability()?, "records/s", rate));
    }
    log.close(Duration::from_secs(60))?;
    Ok(Answer { measures, records: job.records, error: None })
}

/// All threads together append `records`.
fn append(job: &Job, writers: &[Partition]) -> Result<f64> {
    let feed = job.feed();
    let each = job.records / writers.len() as u64;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .iter()
            .map(|partition| {
                scope.spawn(|| {
                    for i in 0..each {
                        let (key, value) = feed.item(i);
                        partition.append(Record::new(value).key(&key))?;
                    }
                    Result::Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    Ok((each * writers.len() as u64) as f64 / begin.elapsed().as_secs_f64())
}
