//! tapelog and its peers, through one harness. See the README beside this crate.

mod args;
mod clock;
mod feed;
mod plan;
mod report;
mod runner;
mod systems;
mod usage;
mod workloads;

use std::io::Write;
use std::process::ExitCode;

use args::Args;
use workloads::{Answer, Job};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let done = Args::parse(std::env::args().skip(1)).and_then(|args| match &args.job {
        Some(job) => child(job),
        None if args.list => list(),
        None if args.render => report::render(&args.out)
            .and_then(|()| if args.publish { report::publish(&args.out) } else { Ok(()) }),
        None => runner::run(&args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> Result<()> {
    println!("systems: {}", args::system_names().join(", "));
    println!("workloads: {}", args::workload_names().join(", "));
    Ok(())
}

/// One job in a process of its own: whatever a system does to it, threads, memory, panics, ends with it.
fn child(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    // Nobody is left to hear the answer of a child without a parent.
    // SAFETY: the call takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    clock::calibrate();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.run()));
    let result = result.unwrap_or_else(|_| Err("it panicked".into()));
    answer(&result.unwrap_or_else(|e| Answer { error: Some(e.to_string()), ..Answer::default() }));
    // Nothing is left to do: threads that a system left running end here.
    std::process::exit(0)
}

/// The line by which an answer is known among whatever a system prints.
pub const ANSWER: &str = "ANSWER ";

pub fn answer(answer: &Answer) {
    let text = serde_json::to_string(answer).expect("plain data");
    let mut out = std::io::stdout();
    let _ = writeln!(out, "\n{ANSWER}{text}").and_then(|()| out.flush());
}
