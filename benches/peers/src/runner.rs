//! The parent: starts a child per system, configuration and run, interleaved, and gathers what they answer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::report::{self, Row};
use crate::systems::{Config, Durability, SYSTEMS, System};
use crate::workloads::{Answer, Job, Phase, Probe, Work, works};
use crate::{ANSWER, Result};

/// What is known of one workload of one configuration: values of all runs.
type Samples = BTreeMap<(usize, usize, usize, String), (Durability, String, Vec<f64>)>;

pub fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let scale = args.scale();
    std::fs::create_dir_all(&args.out)?;
    let root = Root::new(&args.dir)?;
    let works = works(&scale, args.ticks.as_ref());
    let mut samples = Samples::new();
    let mut troubles: BTreeMap<String, usize> = BTreeMap::new();
    for (w, work) in works.iter().enumerate() {
        let wanted: Vec<&String> = work.workloads.iter().filter(|name| args.wants(name)).collect();
        if !scale.large && args.work.is_empty() && work.job.value_bytes > 100 {
            continue;
        }
        let Some(first) = wanted.first() else { continue };
        eprintln!(
            "{:4} s  {first}{}",
            begin.elapsed().as_secs(),
            if wanted.len() > 1 { ", ..." } else { "" }
        );
        for _ in 0..scale.runs.min(work.most_runs) {
            for (s, system) in SYSTEMS.iter().enumerate().filter(|(_, s)| args.wants_system(s.name)) {
                for (c, config) in system.configs.iter().enumerate() {
                    if !config.probes.contains(&work.job.probe) {
                        continue;
                    }
                    let dir = root.fresh()?;
                    let answers = once(work, system, config, &dir);
                    std::fs::remove_dir_all(&dir)?;
                    for answer in answers {
                        if let Some(error) = answer.error {
                            let what = format!("{first}: {} ({}): {error}", system.name, config.name);
                            *troubles.entry(what).or_default() += 1;
                        }
                        for m in answer.measures.into_iter().filter(|m| args.wants(&m.workload)) {
                            let at = work.workloads.iter().position(|name| *name == m.workload);
                            let key = (w * 100 + at.unwrap_or(99), s, c, m.workload);
                            let sample = samples.entry(key).or_insert((m.durability, m.unit, Vec::new()));
                            sample.2.push(m.value);
                        }
                    }
                }
            }
        }
    }
    let rows: Vec<Row> = samples
        .into_iter()
        .map(|((_, s, c, workload), (durability, unit, values))| {
            let (system, config) = (SYSTEMS[s].name.to_owned(), SYSTEMS[s].configs[c].name.to_owned());
            Row::new(workload, system, config, durability, unit, values)
        })
        .collect();
    let troubles: Vec<String> = troubles
        .into_iter()
        .map(|(what, count)| format!("{what} ({count} of {} runs)", scale.runs))
        .collect();
    report::write(&args.out, &rows, &troubles, scale.runs, args.quick)?;
    eprintln!("{:4} s  done: {}", begin.elapsed().as_secs(), args.out.join("results.md").display());
    Ok(())
}

/// All processes of one run of one configuration.
fn once(work: &Work, system: &System, config: &Config, dir: &Path) -> Vec<Answer> {
    let job =
        Job { system: system.name.into(), config: config.name.into(), dir: dir.into(), ..work.job.clone() };
    let first = child(&job, job.probe == Probe::Reopen);
    if first.error.is_some() {
        return vec![first];
    }
    let next = |phase, stored| child(&Job { phase, stored, ..job.clone() }, false);
    match job.probe {
        // What memory or a floor keeps is not there any more.
        Probe::Append if config.durability != Durability::Memory => {
            let read = next(Phase::Read, first.records);
            vec![first, read]
        }
        Probe::Reopen => {
            let killed = next(Phase::Open, first.records);
            let clean = (killed.error.is_none()).then(|| next(Phase::Read, killed.records));
            [Some(killed), clean].into_iter().flatten().collect()
        }
        _ => vec![first],
    }
}

/// Runs a job in a child; `kill`: with SIGKILL once it has answered.
fn child(job: &Job, kill: bool) -> Answer {
    let answered = (|| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--job").arg(serde_json::to_string(job)?);
        // One system finds its folder in the environment only, and talks a lot.
        command.env("WALRUS_DATA_DIR", job.dir.join("walrus")).env("WALRUS_QUIET", "1");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
                if let Some(text) = line.strip_prefix(ANSWER) {
                    let _ = sender.send(text.to_owned());
                }
            }
        });
        let limit = Duration::from_secs_f64(20.0 + 4.0 * job.seconds);
        let answer = receiver.recv_timeout(limit);
        // One that answered has nothing left to do: some systems take seconds to stop their threads.
        if kill || answer.is_err() || !ended(&mut child)? {
            child.kill()?;
            child.wait()?;
        }
        let _ = reader.join();
        match answer {
            Ok(text) => Result::Ok(serde_json::from_str(&text)?),
            Err(_) => Err(format!("it neither answered nor ended within {} s", limit.as_secs()).into()),
        }
    })();
    answered.unwrap_or_else(|e| Answer { error: Some(e.to_string()), ..Answer::default() })
}

fn ended(child: &mut std::process::Child) -> Result<bool> {
    for _ in 0..100 {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(false)
}

/// The folder for all data; gone when this is dropped.
struct Root {
    path: PathBuf,
    count: std::cell::Cell<u64>,
}

impl Root {
    fn new(dir: &Path) -> Result<Root> {
        let path = std::path::absolute(dir)?.join(format!("tapelog-peers-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Root { path, count: std::cell::Cell::new(0) })
    }

    fn fresh(&self) -> Result<PathBuf> {
        self.count.set(self.count.get() + 1);
        let dir = self.path.join(self.count.get().to_string());
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
