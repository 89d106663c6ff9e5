//! What a run does, in which order, and how long that takes.

use std::fmt;
use std::time::Duration;

use crate::args::Args;
use crate::systems::SYSTEMS;
use crate::workloads::{Scale, Work};

/// All that is left after this gets as few runs as it may.
const LIMIT: Duration = Duration::from_secs(18 * 60);

pub struct Plan<'a> {
    pub works: Vec<Planned<'a>>,
}

/// One group of workloads, for all who take part.
pub struct Planned<'a> {
    pub work: &'a Work,
    /// Which of all groups it is.
    pub at: usize,
    /// Positions of systems, and of configurations in them.
    pub configs: Vec<(usize, usize)>,
    pub runs: usize,
    /// However little time there is.
    pub least: usize,
    title: String,
}

impl<'a> Plan<'a> {
    pub fn new(args: &Args, scale: &Scale, works: &'a [Work]) -> Plan<'a> {
        let mut planned = Vec::new();
        for (at, work) in works.iter().enumerate() {
            let wanted: Vec<&String> = work.workloads.iter().filter(|name| args.wants(name)).collect();
            let Some(first) = wanted.first().filter(|_| !work.rare || !args.work.is_empty()) else {
                continue;
            };
            let more = if wanted.len() > 1 { ", ..." } else { "" };
            // Floors go just before ours, which comes first: so both have the same minute of the machine.
            let (mut order, peers): (Vec<_>, Vec<_>) =
                (0..SYSTEMS.len()).partition(|&s| SYSTEMS[s].name == "floor");
            order.extend(peers);
            let configs: Vec<_> = order
                .into_iter()
                .filter(|&s| args.wants_system(SYSTEMS[s].name))
                .flat_map(|s| (0..SYSTEMS[s].configs.len()).map(move |c| (s, c)))
                .filter(|&(s, c)| SYSTEMS[s].configs[c].probes.contains(&work.job.probe))
                .collect();
            if !configs.is_empty() {
                let runs = args.runs.unwrap_or(scale.runs.min(work.most_runs));
                let least = if args.runs.is_some() { runs } else { work.most_runs.min(runs).div_ceil(2) };
                planned.push(Planned { work, at, configs, runs, least, title: format!("{first}{more}") });
            }
        }
        Plan { works: planned }
    }

    pub fn is_empty(&self) -> bool {
        self.works.is_empty()
    }

    /// How many bytes may lie on the disk at a time.
    pub fn room(&self) -> u64 {
        self.works.iter().map(|planned| planned.work.room).max().unwrap_or(0)
    }

    /// Whether another run of the work at `at`, of which `run` are done, leaves enough time for what comes after it.
    pub fn has_time(&self, elapsed: Duration, at: usize, run: usize) -> bool {
        let done: f64 =
            self.works[..at].iter().map(|w| w.seconds(w.runs)).sum::<f64>() + self.works[at].seconds(run);
        let left: f64 = self.works[at + 1..].iter().map(|w| w.seconds(w.least)).sum();
        // This machine may be slower than the plan.
        let pace = (elapsed.as_secs_f64() / done.max(1.0)).max(1.0);
        elapsed.as_secs_f64() + pace * (self.works[at].seconds(1) + left) < LIMIT.as_secs_f64()
    }
}

impl Planned<'_> {
    pub fn title(&self) -> &str {
        &self.title
    }

    fn seconds(&self, runs: usize) -> f64 {
        self.work.each * (self.configs.len() * runs) as f64
    }
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for planned in &self.works {
            let (configs, runs) = (planned.configs.len(), planned.runs);
            let seconds = planned.seconds(runs);
            writeln!(
                f,
                "plan: {seconds:4.0} s  {:40} {configs:2} configurations, {runs} runs",
                planned.title
            )?;
        }
        let total: f64 = self.works.iter().map(|planned| planned.seconds(planned.runs)).sum();
        writeln!(f, "plan: {total:4.0} s  in all, about, on a quiet machine")
    }
}
