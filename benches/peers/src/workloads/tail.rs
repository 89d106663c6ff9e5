//! From the append to a reader in another thread: one that spins, or one that sleeps as the system lets it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::latency::{Arrivals, Pace, percentiles};
use super::{Answer, Job, Probe, leave};
use crate::Result;

pub fn run(job: &Job) -> Result<Answer> {
    let (feed, mut store) = (job.feed(), job.open()?);
    let pace = Pace { stamped: true, ..Pace::new(job.records, job.rate) };
    let mut tail = store.tail()?;
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let arrivals = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut arrivals = Arrivals::new(job.records);
            let followed = match job.probe {
                Probe::Park => tail.sleep(&mut arrivals, &stop),
                _ => tail.spin(&mut arrivals, &stop),
            };
            done.store(true, Ordering::Release);
            followed.map(|()| arrivals)
        });
        let paced = store.append_paced(&feed, 0, &pace);
        let kept_up = paced.as_ref().is_ok_and(|paced| paced.kept_up(&pace));
        let since = Instant::now();
        while kept_up && !done.load(Ordering::Acquire) && since.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        let arrivals = reader.join().map_err(|_| "the reader panicked")??;
        paced?;
        if !kept_up {
            return Err(format!("{} records/s are too many for it", job.rate).into());
        }
        Result::Ok(arrivals)
    })?;
    leave(store)?;
    if arrivals.count != job.records {
        return Err(format!("{} of {} records arrived", arrivals.count, job.records).into());
    }
    let family = if job.probe == Probe::Park { "parked_latency_2k" } else { "tail_latency_100k" };
    let measures = percentiles(family, job.durability()?, &arrivals.latency);
    Ok(Answer { measures, records: arrivals.count, error: None })
}
