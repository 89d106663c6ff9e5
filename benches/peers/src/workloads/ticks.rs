//! Ticks as JSON, per codec: how fast they go into files, in batches of 100 where the system has batches, and how
//! large those files are.

use std::time::Instant;

use super::{Answer, Job};
use crate::feed::Feed;
use crate::systems::Durability;
use crate::{Result, usage};

pub fn run(job: &Job) -> Result<Answer> {
    let feed = match &job.ticks {
        Some(path) => Feed::lines(path)?,
        None => Feed::ticks(job.records.min(250_000) as usize),
    };
    // What a store occupies while it is empty is no record's.
    let (empty, full) = (job.dir.join("empty"), job.dir.join("full"));
    for dir in [&empty, &full] {
        std::fs::create_dir(dir)?;
    }
    job.open_in(&empty)?.close()?;
    let mut store = job.open_in(&full)?;
    let begin = Instant::now();
    let (end, _) = job.fill_fast(&feed, &mut *store)?;
    store.settle()?;
    let took = begin.elapsed();
    store.close()?;
    let bytes = usage::on_disk(&full)?.saturating_sub(usage::on_disk(&empty)?);
    let rate = end as f64 / took.as_secs_f64();
    let mut measures = vec![job.measure("append_ticks", job.durability()?, "records/s", rate)];
    // Nothing: it preallocated more than this.
    if bytes > 0 {
        let bytes = bytes as f64 / end as f64;
        measures.push(job.measure("bytes_on_disk", Durability::None, "bytes/record", bytes));
    }
    Ok(Answer { measures, records: end, error: None })
}
