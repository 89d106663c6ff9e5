//! The command line.

use std::path::PathBuf;

use crate::Result;
use crate::systems::SYSTEMS;
use crate::workloads::{Scale, asks_for, works};

pub const USAGE: &str = "\
Runs tapelog and its peers through one harness.

  --out DIR          where results.json, results.md and the plots go (default: results)
  --dir DIR          where data goes, in a folder of its own that is removed (default: the system's)
  --quick            about two minutes, three small runs in place of five
  --only SYSTEM,...  these systems (tapelog is always a good idea: it is what the rest is compared with)
  --work NAME,...    these workloads; the first words of a name stand for all that begin with them
  --runs N           so many runs
  --publish          the result goes into the README too, and beside this crate (benches/peers/last)
  --render           nothing is measured: tables and plots are made again from what lies in --out
  --ticks FILE       ticks are the lines of this file, in place of simulated ones
  --list             names of systems and workloads";

pub struct Args {
    pub out: PathBuf,
    pub dir: PathBuf,
    pub quick: bool,
    pub only: Vec<String>,
    pub work: Vec<String>,
    pub runs: Option<usize>,
    pub ticks: Option<PathBuf>,
    pub list: bool,
    pub publish: bool,
    pub render: bool,
    /// This process is a child, with this job.
    pub job: Option<String>,
}

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Args> {
        let mut args = Args {
            out: "results".into(),
            dir: std::env::temp_dir(),
            quick: false,
            only: Vec::new(),
            work: Vec::new(),
            runs: None,
            ticks: None,
            list: false,
            publish: false,
            render: false,
            job: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--out" => args.out = value()?.into(),
                "--dir" => args.dir = value()?.into(),
                "--quick" => args.quick = true,
                "--only" => args.only.extend(value()?.split(',').map(str::to_owned)),
                "--work" => args.work.extend(value()?.split(',').map(str::to_owned)),
                "--runs" => args.runs = Some(value()?.parse().map_err(|e| format!("--runs: {e}"))?),
                "--ticks" => args.ticks = Some(std::path::absolute(value()?)?),
                "--publish" => args.publish = true,
                "--render" => args.render = true,
                "--list" => args.list = true,
                "--job" => args.job = Some(value()?),
                "--help" | "-h" => return Err(USAGE.into()),
                other => return Err(format!("what is {other}?\n\n{USAGE}").into()),
            }
        }
        if args.runs == Some(0) {
            return Err("--runs: at least one".into());
        }
        args.check()?;
        Ok(args)
    }

    fn check(&self) -> Result<()> {
        let systems = system_names();
        if let Some(name) = self.only.iter().find(|name| !systems.contains(&name.as_str())) {
            return Err(format!("there is no system {name:?}; there are {}", systems.join(", ")).into());
        }
        let workloads = workload_names();
        let known = |name: &String| workloads.iter().any(|workload| asks_for(name, workload));
        if let Some(name) = self.work.iter().find(|name| !known(name)) {
            return Err(format!("there is no workload {name:?}; there are {}", workloads.join(", ")).into());
        }
        Ok(())
    }

    pub fn scale(&self) -> Scale {
        let mut scale = if self.quick { Scale::quick() } else { Scale::full() };
        scale.runs = self.runs.unwrap_or(scale.runs);
        scale
    }

    pub fn wants_system(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    pub fn wants(&self, workload: &str) -> bool {
        self.work.is_empty() || self.work.iter().any(|name| asks_for(name, workload))
    }
}

pub fn system_names() -> Vec<&'static str> {
    SYSTEMS.iter().map(|system| system.name).collect()
}

pub fn workload_names() -> Vec<String> {
    works(&Scale::quick(), None).into_iter().flat_map(|work| work.workloads).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn names_that_are_not_there_are_errors_that_name_the_choices() {
        let error = |line| parse(line).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error("--only kafka").contains("kafko"));
        assert!(error("--work append_two").contains("append_one"));
        assert!(error("--work append_on").contains("append_one"), "half a word is no name");
        assert!(error("--slow").contains("--quick"));
        assert!(error("--out").contains("needs a value"));
    }

    #[test]
    fn first_words_stand_for_all_that_begin_with_them() {
        let args = parse("--work append_latency_100k,replay --only tapelog").unwrap();
        assert!(args.wants("append_latency_100k_sync50ms_p99.9") && args.wants("replay_1k"));
        assert!(!args.wants("append_one") && !args.wants("append_latency_1m_p50"));
        assert!(args.wants_system("tapelog") && !args.wants_system("kafko"));
    }
}
