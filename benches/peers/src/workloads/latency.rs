//! Appends at a fixed rate, open loop: the time of each counts from the moment when it was due. An append that had to
//! wait because an earlier one hung carries that wait, so nothing is omitted.

use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;

use super::{Answer, FLUSH_EVERY, Job, Measure, PERCENTILES, leave};
use crate::systems::{Durability, FlushBy};
use crate::{Result, clock};

/// How appends are paced.
pub struct Pace {
    pub records: u64,
    /// Ticks of the clock from one append to the next.
    pub interval: f64,
    /// The appending thread flushes that often, in ticks.
    pub flush_every: Option<u64>,
    /// Values begin with the time of their append.
    pub stamped: bool,
}

impl Pace {
    pub fn new(records: u64, rate: u64) -> Pace {
        Pace { records, interval: clock::ticks(1e9 / rate as f64), flush_every: None, stamped: false }
    }

    fn planned(&self) -> u64 {
        (self.records as f64 * self.interval) as u64
    }
}

/// What came of it.
pub struct Paced {
    pub latency: Histogram<u64>,
    warm_up: u64,
    at: u64,
    begin: u64,
    end: u64,
    next_flush: u64,
    /// The wall clock's time of the first append, in nanoseconds.
    epoch: u64,
    ns_per_append: f64,
}

impl Paced {
    pub fn new(pace: &Pace) -> Paced {
        let begin = clock::now() + clock::ticks(1e6) as u64;
        Paced {
            latency: histogram(),
            warm_up: pace.records / 20,
            at: 0,
            begin,
            end: begin,
            next_flush: begin,
            epoch: std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos() as u64 + 1_000_000),
            ns_per_append: pace.interval * clock::calibrate(),
        }
    }

    /// When append `i` is due, in nanoseconds since the Unix epoch: the time that its record carries.
    #[inline]
    pub fn time_of(&self, i: u64) -> u64 {
        self.epoch + (i as f64 * self.ns_per_append) as u64
    }

    /// Waits until append `i` is due and returns that moment; `None` once it is hopeless to keep up.
    #[inline]
    pub fn wait(&mut self, pace: &Pace, i: u64) -> Option<u64> {
        let intended = self.begin + (i as f64 * pace.interval) as u64;
        self.at = i;
        loop {
            let now = clock::now();
            if now >= intended {
                return (now - self.begin < 2 * pace.planned()).then_some(intended);
            }
            std::hint::spin_loop();
        }
    }

    /// Whether the appending thread has to flush before it appends.
    #[inline]
    pub fn flush_is_due(&mut self, pace: &Pace) -> bool {
        let Some(every) = pace.flush_every else { return false };
        let now = clock::now();
        let due = now >= self.next_flush;
        if due {
            self.next_flush = now + every;
        }
        due
    }

    #[inline]
    pub fn record(&mut self, intended: u64, end: u64) {
        self.end = end;
        if self.at >= self.warm_up {
            self.latency.saturating_record(clock::ns(end.saturating_sub(intended)));
        }
    }

    /// Whether the rate was kept: the last append at most a tenth late.
    pub fn kept_up(&self, pace: &Pace) -> bool {
        let slack = clock::ticks(30e6) as u64;
        self.at + 1 == pace.records && self.end - self.begin <= pace.planned() + pace.planned() / 10 + slack
    }
}

/// What a following reader takes, and how long it took to come.
pub struct Arrivals {
    pub latency: Histogram<u64>,
    pub count: u64,
    expected: u64,
}

impl Arrivals {
    pub fn new(expected: u64) -> Arrivals {
        Arrivals { latency: histogram(), count: 0, expected }
    }

    #[inline]
    pub fn take(&mut self, value: &[u8]) {
        let now = clock::now();
        let sent = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        self.count += 1;
        if self.count > self.expected / 20 {
            self.latency.saturating_record(clock::ns(clock::spread(sent, now, self.count)));
        }
    }

    /// Records that came without a time.
    pub fn skip(&mut self, count: u64) {
        self.count += count;
    }

    #[inline]
    pub fn open(&self) -> bool {
        self.count < self.expected
    }
}

/// Up to a minute, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// One measure per percentile.
pub fn percentiles(name: &str, durability: Durability, histogram: &Histogram<u64>) -> Vec<Measure> {
    let of = |&(percentile, at): &(&str, f64)| Measure {
        workload: format!("{name}_{percentile}"),
        durability,
        unit: "ns".into(),
        value: histogram.value_at_percentile(at) as f64,
    };
    PERCENTILES.iter().map(of).collect()
}

pub fn run(job: &Job) -> Result<Answer> {
    let (feed, mut store) = (job.feed(), job.open()?);
    let mut pace = Pace::new(job.records, job.rate);
    // Memory that will be recycled is touched before.
    store.append_run(&feed, 0, 20_000)?;
    store.settle()?;
    let by = if job.flush { store.flush_by()? } else { FlushBy::Itself };
    let stop = AtomicBool::new(false);
    let paced = std::thread::scope(|scope| {
        match by {
            FlushBy::Itself => {}
            FlushBy::Writer => pace.flush_every = Some(clock::ticks(FLUSH_EVERY.as_nanos() as f64) as u64),
            FlushBy::Thread(mut flush) => {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if let Err(e) = flush() {
                            eprintln!("the flush failed: {e}");
                        }
                        std::thread::sleep(FLUSH_EVERY);
                    }
                });
            }
        }
        // Keys go on where the warm-up ended.
        let paced = store.append_paced(&feed, 20_000, &pace);
        stop.store(true, Ordering::Relaxed);
        paced
    })?;
    leave(store)?;
    if !paced.kept_up(&pace) {
        return Err(format!("{} records/s are too many for it", job.rate).into());
    }
    let durability = job.durability()?;
    let measures = percentiles(&format!("append_latency{}", job.suffix), durability, &paced.latency);
    Ok(Answer { measures, records: job.records, error: None })
}
