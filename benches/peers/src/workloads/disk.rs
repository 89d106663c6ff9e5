//! Threads that append and wait, each record for itself, until it survives the loss of power.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{Answer, Job};
use crate::Result;
use crate::systems::{Disk, Durability, Store};

pub fn run(job: &Job) -> Result<Answer> {
    let (feed, mut store) = (job.feed(), job.open()?);
    let disk = store.disk()?;
    let store = Arc::new(Mutex::new(Some(store)));
    let disk = disk.unwrap_or_else(|| Arc::new(Locked(Arc::clone(&store))));
    let next = AtomicU64::new(0);
    disk.append(&feed.item(0).0, feed.item(0).1)?;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let work = || {
            while begin.elapsed() < job.limit() {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let (key, value) = feed.item(i + 1);
                disk.append(&key, value)?;
            }
            Result::Ok(())
        };
        let threads: Vec<_> = (0..job.threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    let (count, took) = (next.load(Ordering::Relaxed), begin.elapsed());
    drop(disk);
    if let Some(store) = store.lock().map_err(|_| "a thread panicked")?.take() {
        store.close()?;
    }
    let plural = if job.threads == 1 { "" } else { "s" };
    let name = format!("disk_{}_thread{plural}", job.threads);
    let rate = count as f64 / took.as_secs_f64();
    let measures = vec![job.measure(&name, Durability::Disk, "records/s", rate)];
    Ok(Answer { measures, records: count, error: None })
}

/// For systems that know only one writer: a lock around append and flush.
struct Locked(Arc<Mutex<Option<Box<dyn Store>>>>);

impl Disk for Locked {
    fn append(&self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        let mut store = self.0.lock().map_err(|_| "a thread panicked")?;
        let store = store.as_mut().ok_or("it is closed")?;
        store.append(key, value)?;
        store.sync()
    }
}
