//! The parent: starts a child per system, configuration and run, interleaved, and gathers what they answer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::plan::{Plan, Planned};
use crate::report::{self, About, Row};
use crate::systems::{Config, Durability, SYSTEMS, System};
use crate::workloads::{Answer, Job, Phase, Probe, Work, works};
use crate::{ANSWER, Result, usage};

/// What is known of one workload of one configuration: values of all runs.
type Samples = BTreeMap<(usize, usize, usize, String), (Durability, String, Vec<f64>)>;

/// Raised by an interrupt: the child that runs dies of it too, and what lies on the disk is removed.
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

pub fn run(args: &Args) -> Result<()> {
    let (begin, scale) = (Instant::now(), args.scale());
    let works = works(&scale, args.ticks.as_ref());
    let plan = Plan::new(args, &scale, &works);
    if plan.is_empty() {
        return Err("none of these systems takes part in any of these workloads (--list tells all)".into());
    }
    report::check(&args.out)?;
    let root = Root::new(&args.dir, plan.room())?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to a static.
        unsafe { libc::signal(signal, stop as *const () as libc::sighandler_t) };
    }
    eprint!("{plan}");
    let mut gathered = Gathered::default();
    for (at, planned) in plan.works.iter().enumerate() {
        eprintln!("{:4} s  {}", begin.elapsed().as_secs(), planned.title());
        for run in 0..planned.runs {
            if run >= planned.least && !plan.has_time(begin.elapsed(), at, run) {
                gathered.note(
                    format!("{}: only {run} of {} runs, for want of time", planned.title(), planned.runs),
                    None,
                );
                break;
            }
            for &(s, c) in &planned.configs {
                let (system, config) = (SYSTEMS[s], &SYSTEMS[s].configs[c]);
                let what = format!("{}: {} ({})", planned.title(), system.name, config.name);
                if gathered.is_hopeless(&what) {
                    continue;
                }
                let dir = root.fresh()?;
                let answers = once(planned.work, system, config, &dir);
                std::fs::remove_dir_all(&dir)?;
                if STOP.load(Ordering::Relaxed) {
                    return Err("interrupted".into());
                }
                for answer in answers {
                    gathered.take(answer, (planned, s, c), &what, args);
                }
            }
        }
    }
    let about = About::new(&scale, gathered.troubles(), begin.elapsed());
    report::write(&args.out, &gathered.rows(), &about)?;
    eprintln!("{:4} s  done: {}", begin.elapsed().as_secs(), args.out.join("results.md").display());
    if args.publish { report::publish(&args.out) } else { Ok(()) }
}

/// What all children answered so far.
#[derive(Default)]
struct Gathered {
    samples: Samples,
    /// What failed, and in how many of how many runs.
    troubles: BTreeMap<String, (usize, Option<usize>)>,
    failures: BTreeMap<String, usize>,
}

impl Gathered {
    fn note(&mut self, what: String, of: Option<usize>) {
        self.troubles.entry(what).or_insert((0, of)).0 += 1;
    }

    /// What failed twice is not tried again.
    fn is_hopeless(&self, what: &str) -> bool {
        self.failures.get(what).is_some_and(|&failures| failures >= 2)
    }

    fn take(
        &mut self,
        answer: Answer,
        (planned, s, c): (&Planned<'_>, usize, usize),
        what: &str,
        args: &Args,
    ) {
        if let Some(error) = answer.error {
            *self.failures.entry(what.to_owned()).or_default() += 1;
            self.note(format!("{what}: {error}"), Some(planned.runs));
        }
        for m in answer.measures.into_iter().filter(|m| args.wants(&m.workload)) {
            let at = planned.work.workloads.iter().position(|name| *name == m.workload);
            let key = (planned.at * 100 + at.unwrap_or(99), s, c, m.workload);
            self.samples.entry(key).or_insert((m.durability, m.unit, Vec::new())).2.push(m.value);
        }
    }

    fn rows(self) -> Vec<Row> {
        let row = |((_, s, c, workload), (durability, unit, values))| {
            let (system, config): (usize, usize) = (s, c);
            let (system, config) = (SYSTEMS[system].name, SYSTEMS[system].configs[config].name);
            Row::new(workload, system.into(), config.into(), durability, unit, values)
        };
        self.samples.into_iter().map(row).collect()
    }

    fn troubles(&self) -> Vec<String> {
        let tell = |(what, (times, of)): (&String, &(usize, Option<usize>))| match of {
            Some(runs) => format!("{what} ({times} of {runs} runs)"),
            None => what.clone(),
        };
        self.troubles.iter().map(tell).collect()
    }
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
        Probe::Group | Probe::Many => {
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
    fn new(dir: &Path, needed: u64) -> Result<Root> {
        let path = std::path::absolute(dir)?.join(format!("tapelog-peers-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| format!("--dir {}: {e}", dir.display()))?;
        let root = Root { path, count: std::cell::Cell::new(0) };
        let room = usage::room(&root.path)?;
        if room < needed {
            let (room, needed) = (room >> 20, needed >> 20);
            let dir = dir.display();
            return Err(format!("--dir {dir}: there is room for {room} MiB, and {needed} are needed").into());
        }
        Ok(root)
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
