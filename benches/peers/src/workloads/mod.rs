//! What is measured: one child process per system, configuration and run, told by a [`Job`], answering with an
//! [`Answer`].

pub mod append;
pub mod batch;
pub mod disk;
pub mod latency;
pub mod reopen;
pub mod tail;
pub mod ticks;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::feed::Feed;
use crate::systems::{self, Config, Durability, Opening, Store, System};

/// What a child process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    Append,
    Batch,
    Latency,
    Tail,
    Park,
    Sync,
    Reopen,
    Ticks,
}

/// Probes that need more than one process go through phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Fills, measures, ends cleanly.
    Fill,
    /// Opens what another process filled, and reads.
    Read,
    /// Opens what a killed process left, then what a clean end left.
    Open,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub probe: Probe,
    pub phase: Phase,
    pub system: String,
    pub config: String,
    pub dir: PathBuf,
    /// Values come from the lines of this file, where ticks are asked for.
    pub ticks: Option<PathBuf>,
    pub value_bytes: usize,
    /// At most so many records ...
    pub records: u64,
    /// ... in at most so much time.
    pub seconds: f64,
    pub rate: u64,
    pub flush: bool,
    pub threads: usize,
    /// How many records the directory holds.
    pub stored: u64,
    /// Put behind the names of the workloads.
    pub suffix: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measure {
    pub workload: String,
    pub durability: Durability,
    pub unit: String,
    pub value: f64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    pub measures: Vec<Measure>,
    /// How many records are stored now.
    pub records: u64,
    pub error: Option<String>,
}

pub const FLUSH_EVERY: Duration = Duration::from_millis(50);

impl Job {
    pub fn run(&self) -> Result<Answer> {
        match self.probe {
            Probe::Append => append::run(self),
            Probe::Batch => batch::run(self),
            Probe::Latency => latency::run(self),
            Probe::Tail | Probe::Park => tail::run(self),
            Probe::Sync => disk::run(self),
            Probe::Reopen => reopen::run(self),
            Probe::Ticks => ticks::run(self),
        }
    }

    pub fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub fn feed(&self) -> Feed {
        Feed::random(self.value_bytes)
    }

    fn system(&self) -> Result<(&'static System, &'static Config)> {
        let system = systems::find(&self.system).ok_or("no such system")?;
        let config = system.configs.iter().find(|c| c.name == self.config).ok_or("no such configuration")?;
        Ok((system, config))
    }

    pub fn durability(&self) -> Result<Durability> {
        Ok(self.system()?.1.durability)
    }

    /// Appends records in batches of 100 where the system has batches, else one by one; as [`fill`].
    fn fill_fast(&self, feed: &Feed, store: &mut dyn Store) -> Result<(u64, Duration)> {
        let batches = self.system()?.0.configs.iter().any(|config| config.probes.contains(&Probe::Batch));
        if batches {
            fill(self, |from, to| store.append_batches(feed, from, to, 100), 0)
        } else {
            fill(self, |from, to| store.append_run(feed, from, to), 0)
        }
    }

    pub fn open(&self) -> Result<Box<dyn Store>> {
        self.open_in(&self.dir)
    }

    pub fn open_in(&self, dir: &std::path::Path) -> Result<Box<dyn Store>> {
        let (system, config) = self.system()?;
        (system.open)(&Opening {
            dir,
            config: config.name,
            flush_every: self.flush.then_some(FLUSH_EVERY),
            shared: matches!(self.probe, Probe::Tail | Probe::Park | Probe::Sync),
            durable: self.probe == Probe::Sync,
        })
    }

    pub fn measure(&self, workload: &str, durability: Durability, unit: &str, value: f64) -> Measure {
        Measure { workload: format!("{workload}{}", self.suffix), durability, unit: unit.into(), value }
    }
}

/// Appends in rounds until there are `records`, or the time is up. Returns how many there are, and the time taken.
fn fill(job: &Job, mut round: impl FnMut(u64, u64) -> Result<()>, from: u64) -> Result<(u64, Duration)> {
    const ROUND: u64 = 2000;
    let begin = std::time::Instant::now();
    let mut at = from;
    while at < from + job.records && begin.elapsed() < job.limit() {
        let to = (at + ROUND).min(from + job.records);
        round(at, to)?;
        at = to;
    }
    Ok((at, begin.elapsed()))
}

/// Ends without a flush: the page cache has everything, and the next process opens what a sudden end left. A
/// hundred flushes of a hundred MiB would tell nothing, and take most of the time.
fn leave(mut store: Box<dyn Store>) -> Result<()> {
    store.settle()?;
    std::mem::forget(store);
    Ok(())
}

/// One group of workloads that come from the same processes.
pub struct Work {
    pub workloads: Vec<String>,
    pub job: Job,
    /// At most so many runs, for what takes long and varies little.
    pub most_runs: usize,
}

const PERCENTILES: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99), ("max", 100.0)];

/// How much of everything is done.
pub struct Scale {
    pub runs: usize,
    /// Whether values of 1 KiB are measured without being asked for.
    pub large: bool,
    records: u64,
    seconds: f64,
    paced_seconds: f64,
    disk_seconds: f64,
    reopen_bytes: u64,
    ticks: u64,
}

impl Scale {
    /// Under twenty minutes in all.
    pub fn full() -> Scale {
        Scale {
            runs: 5,
            large: true,
            records: 5_000_000,
            seconds: 1.0,
            paced_seconds: 0.7,
            disk_seconds: 0.5,
            reopen_bytes: 1 << 30,
            ticks: 1_000_000,
        }
    }

    /// Under two minutes in all: to see that everything works, and about where it stands.
    pub fn quick() -> Scale {
        Scale {
            runs: 3,
            large: false,
            records: 300_000,
            seconds: 0.06,
            paced_seconds: 0.05,
            disk_seconds: 0.05,
            reopen_bytes: 8 << 20,
            ticks: 60_000,
        }
    }
}

/// Everything there is to do, in the order of the report.
pub fn works(scale: &Scale, ticks: Option<&PathBuf>) -> Vec<Work> {
    let blank = Job {
        probe: Probe::Append,
        phase: Phase::Fill,
        system: String::new(),
        config: String::new(),
        dir: PathBuf::new(),
        ticks: ticks.cloned(),
        value_bytes: 100,
        records: scale.records,
        seconds: scale.seconds,
        rate: 0,
        flush: false,
        threads: 1,
        stored: 0,
        suffix: String::new(),
    };
    let named = |names: &[&str], suffix: &str| names.iter().map(|n| format!("{n}{suffix}")).collect();
    let mut works = Vec::new();
    let mut add = |workloads: Vec<String>, job: Job| {
        let most_runs = if job.probe == Probe::Reopen { 3 } else { usize::MAX };
        works.push(Work { workloads, job, most_runs });
    };
    add(named(&["append_one", "append_burst", "cpu_per_record", "replay"], ""), blank.clone());
    let large = Job { value_bytes: 1024, records: scale.records / 10, suffix: "_1k".into(), ..blank.clone() };
    add(named(&["append_one", "append_burst", "cpu_per_record", "replay"], "_1k"), large.clone());
    add(named(&["append_batch_100"], ""), Job { probe: Probe::Batch, ..blank.clone() });
    add(named(&["append_batch_100"], "_1k"), Job { probe: Probe::Batch, ..large });
    for (rate, name) in [(100_000, "100k"), (1_000_000, "1m")] {
        for (flush, flushed) in [(false, ""), (true, "_sync50ms")] {
            let suffix = format!("_{name}{flushed}");
            let names = percentile_names(&["append_latency", "append_service"], &suffix);
            let records = (rate as f64 * scale.paced_seconds) as u64;
            let job = Job { probe: Probe::Latency, rate, flush, records, suffix, ..blank.clone() };
            add(names, job);
        }
    }
    for (probe, family, rate) in
        [(Probe::Tail, "tail_latency_100k", 100_000), (Probe::Park, "parked_latency_2k", 2_000)]
    {
        let records = (rate as f64 * scale.paced_seconds.max(0.2)) as u64;
        let names = percentile_names(&[family], "");
        add(names, Job { probe, rate, records, ..blank.clone() });
    }
    for threads in [1, 4, 64] {
        let plural = if threads == 1 { "" } else { "s" };
        let names = vec![format!("disk_{threads}_thread{plural}")];
        let seconds = scale.disk_seconds;
        add(names, Job { probe: Probe::Sync, threads, seconds, ..blank.clone() });
    }
    let records = scale.reopen_bytes / 112;
    let reopen = Job { probe: Probe::Reopen, records, seconds: 12.0, ..blank.clone() };
    add(named(&["reopen_killed", "reopen_flush", "reopen_clean"], ""), reopen);
    let ticks = Job { probe: Probe::Ticks, records: scale.ticks, seconds: 10.0, ..blank };
    add(vec!["append_ticks".into(), "bytes_on_disk".into()], ticks);
    works
}

fn percentile_names(families: &[&str], suffix: &str) -> Vec<String> {
    let of = |family: &&str| PERCENTILES.map(|(name, _)| format!("{family}{suffix}_{name}"));
    families.iter().flat_map(of).collect()
}

/// Whether `name` asks for `workload`: by its name, or by the words that it begins with.
pub fn asks_for(name: &str, workload: &str) -> bool {
    workload.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}
