//! How long an open takes, until the first append has returned: after `kill -9`, then after a clean end. What was written
//! is flushed before, and by nobody's code: some flush it in their open and some never, and the disk takes what it takes.
//! Where a system tells how long its open waited for a flush of its own, the rest of the open is a measure too.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use super::append::claim_pages;
use super::{Answer, Job, Phase};
use crate::Result;
use crate::feed::Tally;
use crate::systems::Durability;

pub fn run(job: &Job) -> Result<Answer> {
    match job.phase {
        Phase::Fill => fill_and_hang(job),
        Phase::Read | Phase::Open => reopen(job),
    }
}

/// The caller kills this process once it has answered.
fn fill_and_hang(job: &Job) -> Result<Answer> {
    claim_pages(job)?;
    let (feed, mut store) = (job.feed(), job.open()?);
    let (end, _) = job.fill_fast(&feed, &mut *store, 0)?;
    if end < job.records {
        return Err(format!("in {} s it stored {end} of {} records", job.seconds, job.records).into());
    }
    // Those that promise nothing are asked to store it: else there is nothing to open.
    if job.durability()? == Durability::None {
        store.sync()?;
    }
    crate::answer(&Answer { records: end, ..Answer::default() });
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn reopen(job: &Job) -> Result<Answer> {
    let feed = job.feed();
    let (killed, durability) = match job.phase {
        Phase::Read => (false, Durability::None),
        _ => (true, job.durability()?),
    };
    let begin = Instant::now();
    flush(&job.dir)?;
    let flushed = begin.elapsed();
    let begin = Instant::now();
    let mut store = job.open()?;
    let (key, value) = feed.item(job.stored);
    store.append(&key, value)?;
    let took = begin.elapsed();
    let waited = store.flushed_at_open();
    if killed && durability != Durability::None {
        let mut tally = Tally::new(Duration::from_secs(1));
        store.read_all(&mut tally)?;
        let expected = job.stored + 1;
        if tally.count < expected && !tally.expired() {
            return Err(format!("{} of {expected} records survived", tally.count).into());
        }
        if tally.hash != feed.tally(tally.count) {
            return Err("what survived is not what was appended".into());
        }
    }
    store.close()?;
    let name = if killed { "reopen_killed" } else { "reopen_clean" };
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    let mut measures = vec![job.measure(name, durability, "ms", ms(took))];
    if killed {
        measures.push(job.measure("reopen_flush", durability, "ms", ms(flushed)));
        if let Some(waited) = waited {
            measures.push(job.measure("reopen_killed_less_flush", durability, "ms", ms(took - waited)));
        }
    }
    Ok(Answer { measures, records: job.stored + 1, error: None })
}

/// Flushes all files below `dir`.
fn flush(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            flush(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_data()?;
        }
    }
    Ok(())
}
