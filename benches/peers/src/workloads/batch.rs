//! Append in batches of 100.

use super::{Answer, Job, fill, leave};
use crate::Result;

pub fn run(job: &Job) -> Result<Answer> {
    let (feed, mut store) = (job.feed(), job.open()?);
    let (end, took) = fill(job, |from, to| store.append_batches(&feed, from, to, 100), 0)?;
    leave(store)?;
    let rate = end as f64 / took.as_secs_f64();
    let measures = vec![job.measure("append_batch_100", job.durability()?, "records/s", rate)];
    Ok(Answer { measures, records: end, error: None })
}
