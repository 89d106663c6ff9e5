//! Append one by one, and what that costs; then reading it back in another process.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::{Answer, Job, Phase, fill, leave};
use crate::Result;
use crate::feed::Tally;
use crate::systems::Durability;
use crate::usage;

/// How many bytes of values go before anything is measured: more than memory that is recycled has, so that it is warm.
pub const WARM_UP: u64 = 56 << 20;

/// How many bytes a burst has: less than that memory.
const BURST: u64 = 20_000_000;

pub fn run(job: &Job) -> Result<Answer> {
    match job.phase {
        Phase::Fill => append(job),
        Phase::Read | Phase::Open => replay(job),
    }
}

fn append(job: &Job) -> Result<Answer> {
    let durability = job.durability()?;
    let feed = job.feed();
    let mut store = job.open()?;
    let len = job.value_bytes as u64;
    let warm_up = Job { records: WARM_UP / len, seconds: (0.3 * job.seconds).max(0.1), ..job.clone() };
    let (warm, _) = fill(&warm_up, |from, to| store.append_run(&feed, from, to), 0)?;
    store.settle()?;
    let hasty = Job { records: BURST / len, ..job.clone() };
    let (burst, took) = fill(&hasty, |from, to| store.append_run(&feed, from, to), warm)?;
    let per_burst = took.as_nanos() as f64 / (burst - warm) as f64;
    store.settle()?;
    usage::quiesce(Duration::from_millis(200));

    let before = usage::cpu();
    let (end, took) = fill(job, |from, to| store.append_run(&feed, from, to), burst)?;
    store.settle()?;
    usage::quiesce(Duration::from_millis(500));
    let (count, cpu) = ((end - burst) as f64, usage::cpu() - before);
    match durability {
        Durability::None => store.close()?,
        _ => leave(store)?,
    }
    Ok(Answer {
        measures: vec![
            job.measure("append_one", durability, "records/s", count / took.as_secs_f64()),
            job.measure("append_burst", durability, "ns", per_burst),
            job.measure("cpu_per_record", durability, "ns", cpu.as_nanos() as f64 / count),
        ],
        records: end,
        error: None,
    })
}

/// So many that the disk has to take them: the system is not warmed up, and what the kernel holds back in memory is the
/// smaller part.
pub fn sustained(job: &Job) -> Result<Answer> {
    claim_pages(job)?;
    let (durability, feed, mut store) = (job.durability()?, job.feed(), job.open()?);
    let before = usage::cpu();
    let (end, took) = fill(job, |from, to| store.append_run(&feed, from, to), 0)?;
    store.settle()?;
    usage::quiesce(Duration::from_millis(500));
    let cpu = (usage::cpu() - before).as_nanos() as f64 / end as f64;
    leave(store)?;
    let rate = end as f64 / took.as_secs_f64();
    Ok(Answer {
        measures: vec![
            job.measure("append_sustained", durability, "records/s", rate),
            job.measure("cpu_per_record_sustained", durability, "ns", cpu),
        ],
        records: end,
        error: None,
    })
}

/// Fills as much of the page cache as the job will and lets go of it again. A virtual machine gives memory that is free
/// back to its host, and gets it page by page, at a tenth of the speed: whoever came first, or after a pause, would pay
/// for all.
pub fn claim_pages(job: &Job) -> Result<()> {
    let path = job.dir.join("pages");
    let mut file = File::create(&path)?;
    let piece = vec![1; 1 << 20];
    let pieces = (job.records * (job.value_bytes as u64 + 60)) >> 20;
    let begin = Instant::now();
    for _ in 0..pieces {
        file.write_all(&piece)?;
        if begin.elapsed() > job.limit() {
            break;
        }
    }
    drop(file);
    Ok(std::fs::remove_file(path)?)
}

/// Appended and read back at once, again and again, where they still lie in memory.
pub fn hot(job: &Job) -> Result<Answer> {
    let (feed, mut store) = (job.feed(), job.open()?);
    let all = Job { seconds: 2.0, ..job.clone() };
    let (end, _) = fill(&all, |from, to| store.append_run(&feed, from, to), 0)?;
    let expected = feed.tally(end);
    let mut once = || {
        let mut tally = Tally::new(Duration::MAX);
        store.read_all(&mut tally)?;
        let same = (tally.count, tally.hash) == (end, expected);
        if same { Ok(()) } else { Err(format!("{} of {end} records were read, or others", tally.count)) }?;
        Result::Ok(())
    };
    once()?;
    let (begin, mut passes) = (Instant::now(), 0);
    while begin.elapsed() < job.limit() {
        once()?;
        passes += 1;
    }
    let rate = (passes * end) as f64 / begin.elapsed().as_secs_f64();
    leave(store)?;
    let measures = vec![job.measure("hot_read", Durability::None, "records/s", rate)];
    Ok(Answer { measures, records: end, error: None })
}

/// Reading stands for no promise: whatever the durability of the appends, all of them are in files by now.
fn replay(job: &Job) -> Result<Answer> {
    let mut store = job.open()?;
    let begin = Instant::now();
    let mut tally = Tally::new(job.limit().max(Duration::from_millis(200)));
    store.read_all(&mut tally)?;
    let took = begin.elapsed();
    if tally.count == 0 || (tally.count < job.stored && !tally.expired()) {
        return Err(format!("{} of {} records were read", tally.count, job.stored).into());
    }
    if tally.hash != job.feed().tally(tally.count) {
        return Err(format!("{} records were read, and they are not what was appended", tally.count).into());
    }
    let rate = tally.count as f64 / took.as_secs_f64();
    let measures = vec![job.measure("replay", Durability::None, "records/s", rate)];
    Ok(Answer { measures, records: tally.count, error: None })
}
