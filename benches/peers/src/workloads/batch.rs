//! Append in batches of 100, warmed up as appends one by one are.

use super::append::WARM_UP;
use super::{Answer, Job, fill, leave};
use crate::Result;

pub fn run(job: &Job) -> Result<Answer> {
    let (feed, mut store) = (job.feed(), job.open()?);
    let records = WARM_UP / job.value_bytes as u64;
    let warm_up = Job { records, seconds: (0.3 * job.seconds).max(0.1), ..job.clone() };
    let (warm, _) = fill(&warm_up, |from, to| store.append_batches(&feed, from, to, 100), 0)?;
    store.settle()?;
    let (end, took) = fill(job, |from, to| store.append_batches(&feed, from, to, 100), warm)?;
    leave(store)?;
    let rate = (end - warm) as f64 / took.as_secs_f64();
    let measures = vec![job.measure("append_batch_100", job.durability()?, "records/s", rate)];
    Ok(Answer { measures, records: end, error: None })
}
