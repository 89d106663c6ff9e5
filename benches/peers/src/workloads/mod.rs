//! What is measured: one child process per system, configuration and run, told by a [`Job`], answering with an
//! [`Answer`].

pub mod append;
pub mod batch;
pub mod disk;
pub mod groups;
pub mod latency;
pub mod many;
pub mod reopen;
pub mod tail;
pub mod threads;
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
    Sustained,
    Hot,
    Group,
    Threads,
    Many,
}

impl Probe {
    /// How much of the time that a job may take it takes, roughly and over all systems.
    fn share(self) -> f64 {
        match self {
            Probe::Append => 0.9,
            Probe::Batch | Probe::Threads => 0.3,
            Probe::Sustained => 0.4,
            Probe::Reopen => 0.6,
            Probe::Ticks => 0.8,
            Probe::Many => 4.0,
            Probe::Group => 2.0,
            Probe::Latency | Probe::Tail | Probe::Park | Probe::Sync | Probe::Hot => 1.1,
        }
    }
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
            Probe::Sustained => append::sustained(self),
            Probe::Hot => append::hot(self),
            Probe::Group => groups::run(self),
            Probe::Threads => threads::run(self),
            Probe::Many => many::run(self),
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
    fn fill_fast(&self, feed: &Feed, store: &mut dyn Store, from: u64) -> Result<(u64, Duration)> {
        let batches = self.system()?.0.configs.iter().any(|config| config.probes.contains(&Probe::Batch));
        if batches {
            fill(self, |from, to| store.append_batches(feed, from, to, 100), from)
        } else {
            fill(self, |from, to| store.append_run(feed, from, to), from)
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
            value_bytes: self.value_bytes,
        })
    }

    pub fn measure(&self, workload: &str, durability: Durability, unit: &str, value: f64) -> Measure {
        Measure { workload: format!("{workload}{}", self.suffix), durability, unit: unit.into(), value }
    }
}

/// Appends in rounds until there are `records`, or the time is up: a third of it for those that have not come far by
/// then, whose number more records would not change. Returns how many there are, and the time taken.
fn fill(job: &Job, mut round: impl FnMut(u64, u64) -> Result<()>, from: u64) -> Result<(u64, Duration)> {
    const ROUND: u64 = 2000;
    let begin = std::time::Instant::now();
    let mut at = from;
    while at < from + job.records {
        let far = job.probe == Probe::Reopen || at >= from + job.records / 6;
        if begin.elapsed() >= if far { job.limit() } else { job.limit() / 3 } {
            break;
        }
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
    /// Not without being asked for.
    pub rare: bool,
    /// About how many seconds one configuration takes in one run, on a quiet machine.
    pub each: f64,
    /// How many bytes it puts on the disk, at most.
    pub room: u64,
}

pub const PERCENTILES: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99), ("max", 100.0)];

/// How much of everything is done.
pub struct Scale {
    pub runs: usize,
    pub quick: bool,
    records: u64,
    seconds: f64,
    paced_seconds: f64,
    disk_seconds: f64,
    sustained: u64,
    reopen_bytes: u64,
    cold: u64,
    ticks: u64,
    threaded: u64,
}

impl Scale {
    /// Under twenty minutes in all.
    pub fn full() -> Scale {
        Scale {
            runs: 5,
            quick: false,
            records: 5_000_000,
            seconds: 1.2,
            paced_seconds: 0.6,
            disk_seconds: 0.35,
            sustained: 40_000_000,
            reopen_bytes: 1 << 30,
            cold: 2_000_000,
            ticks: 2_000_000,
            threaded: 1_000_000,
        }
    }

    /// Under two minutes in all: to see that everything works, and about where it stands.
    pub fn quick() -> Scale {
        Scale {
            runs: 3,
            quick: true,
            records: 300_000,
            seconds: 0.06,
            paced_seconds: 0.05,
            disk_seconds: 0.05,
            sustained: 2_000_000,
            reopen_bytes: 8 << 20,
            cold: 400_000,
            ticks: 100_000,
            threaded: 200_000,
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
        let (most_runs, rare) = match job.probe {
            Probe::Reopen => (3, false),
            Probe::Many => (if scale.quick { 1 } else { 3 }, false),
            Probe::Sustained => (3, scale.quick),
            _ => (usize::MAX, scale.quick && job.value_bytes > 100),
        };
        let each = 0.2 + job.probe.share() * job.seconds;
        let room = job.records * (job.value_bytes as u64 + 60) + (256 << 20);
        works.push(Work { workloads, job, most_runs, rare, each, room });
    };
    let appends = ["append_one", "append_burst", "cpu_per_record", "replay"];
    add(named(&appends, ""), blank.clone());
    let sustained = Job { probe: Probe::Sustained, records: scale.sustained, seconds: 25.0, ..blank.clone() };
    add(named(&["append_sustained", "cpu_per_record_sustained"], ""), sustained);
    let (records, seconds) = (scale.records / 10, scale.seconds / 3.0);
    let large = Job { value_bytes: 1024, records, seconds, suffix: "_1k".into(), ..blank.clone() };
    add(named(&appends, "_1k"), large.clone());
    add(named(&["append_batch_100"], ""), Job { probe: Probe::Batch, ..blank.clone() });
    add(named(&["append_batch_100"], "_1k"), Job { probe: Probe::Batch, ..large });
    for threads in [1, 2, 4, 8] {
        let names = ["shared", "apart"].map(|kind| format!("append_threads_{threads}_{kind}"));
        add(names.into(), Job { probe: Probe::Threads, threads, records: scale.threaded, ..blank.clone() });
    }
    add(
        vec!["hot_read".into()],
        Job { probe: Probe::Hot, records: 200_000, seconds: scale.seconds / 4.0, ..blank.clone() },
    );
    add(
        vec!["group_read_hot".into(), "group_read_cold".into()],
        Job { probe: Probe::Group, records: scale.cold, seconds: scale.seconds / 4.0, ..blank.clone() },
    );
    for (rate, name) in [(100_000, "100k"), (1_000_000, "1m")] {
        for (flush, flushed) in [(false, ""), (true, "_sync50ms")] {
            let suffix = format!("_{name}{flushed}");
            let names = percentile_names("append_latency", &suffix);
            let (records, seconds) = ((rate as f64 * scale.paced_seconds) as u64, scale.paced_seconds);
            let job = Job { probe: Probe::Latency, rate, flush, records, seconds, suffix, ..blank.clone() };
            add(names, job);
        }
    }
    for (probe, family, rate) in
        [(Probe::Tail, "tail_latency_100k", 100_000), (Probe::Park, "parked_latency_2k", 2_000)]
    {
        let seconds = scale.paced_seconds.max(0.2);
        let records = (rate as f64 * seconds) as u64;
        add(percentile_names(family, ""), Job { probe, rate, records, seconds, ..blank.clone() });
    }
    for threads in [1, 4, 64] {
        let plural = if threads == 1 { "" } else { "s" };
        let names = vec![format!("disk_{threads}_thread{plural}")];
        let seconds = scale.disk_seconds;
        add(names, Job { probe: Probe::Sync, threads, seconds, ..blank.clone() });
    }
    let ticks = Job { probe: Probe::Ticks, records: scale.ticks, seconds: scale.seconds, ..blank.clone() };
    add(named(&["append_ticks_burst", "append_ticks", "bytes_on_disk"], ""), ticks);
    let idle = ["partitions_10k_open", "partitions_10k_resident", "partitions_10k_idle"];
    add(named(&idle, ""), Job { probe: Probe::Many, records: 2_000_000, ..blank.clone() });
    let records = scale.reopen_bytes / 112;
    let reopen = Job { probe: Probe::Reopen, records, seconds: if scale.quick { 1.0 } else { 8.0 }, ..blank };
    let reopens = ["reopen_killed", "reopen_killed_less_flush", "reopen_flush", "reopen_clean"];
    add(named(&reopens, ""), reopen);
    works
}

fn percentile_names(family: &str, suffix: &str) -> Vec<String> {
    PERCENTILES.iter().map(|(name, _)| format!("{family}{suffix}_{name}")).collect()
}

/// Whether `name` asks for `workload`: by its name, or by the words that it begins with.
pub fn asks_for(name: &str, workload: &str) -> bool {
    workload.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}
