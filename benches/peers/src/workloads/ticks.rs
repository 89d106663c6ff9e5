//! Ticks as JSON, per codec: how fast they are appended into warm memory, how fast they go through to files, in batches
//! of 100 where the system has batches, and how large those files are.

use std::time::{Duration, Instant};

use super::append::WARM_UP;
use super::{Answer, Job};
use crate::feed::Feed;
use crate::systems::Durability;
use crate::{Result, usage};

/// How many ticks a burst has: less than memory that is recycled holds.
const BURST: u64 = 100_000;

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
    let warm_up =
        Job { records: WARM_UP / feed.item(0).1.len() as u64, seconds: 0.3 * job.seconds, ..job.clone() };
    let (warm, _) = warm_up.fill_fast(&feed, &mut *store, 0)?;
    store.settle()?;
    let hasty = Job { records: BURST, ..job.clone() };
    let (burst, hurry) = hasty.fill_fast(&feed, &mut *store, warm)?;
    store.settle()?;
    let begin = Instant::now();
    let (end, _) = job.fill_fast(&feed, &mut *store, burst)?;
    store.settle()?;
    let took = begin.elapsed();
    store.close()?;
    let bytes = usage::on_disk(&full)?.saturating_sub(usage::on_disk(&empty)?);
    let rate = |from, to, took: Duration| (to - from) as f64 / took.as_secs_f64();
    let durability = job.durability()?;
    let mut measures = vec![
        job.measure("append_ticks_burst", durability, "records/s", rate(warm, burst, hurry)),
        job.measure("append_ticks", durability, "records/s", rate(burst, end, took)),
    ];
    // Nothing: it preallocated more than this, or stores nothing.
    if bytes > 0 {
        measures.push(job.measure(
            "bytes_on_disk",
            Durability::None,
            "bytes/record",
            bytes as f64 / end as f64,
        ));
    }
    Ok(Answer { measures, records: end, error: None })
}
