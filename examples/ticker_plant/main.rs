//! Ticks through a durable topic of four partitions, keyed by symbol, to three consumer groups that run live
//! beside the producer: a board of last prices, one-minute bars, and an audit that compares order and content
//! of all that the data directory holds with the source. `--help` lists the options.
//!
//! The last line on standard output is the verdict:
//!
//! ```text
//! audit stored=92081 missing=0 duplicated=0 reordered=0 altered=0
//! ok in=92081 out=276243 groups=3 mismatches=0
//! ```
//!
//! Everything that touches the library is in `plant`; the other rooms are plain code with their own tests.

mod args;
mod audit;
mod bars;
mod board;
mod decimal;
mod feed;
mod group;
mod ledger;
mod plant;
mod report;
mod source;
mod stats;
mod tick;

use std::process::ExitCode;

use args::Args;
use plant::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure::Refused(why)) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
        Err(Failure::Broken(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
        Err(Failure::Stopped) => ExitCode::FAILURE,
    }
}

/// Answers whether everything is as it should be.
fn run() -> Result<bool, Failure> {
    let args = Args::parse(std::env::args().skip(1)).map_err(Failure::Refused)?;
    if args.help {
        print!("{}", args::HELP);
        return Ok(true);
    }
    if let (true, Some(dir)) = (args.inspect, &args.data) {
        let ranges = plant::inspect(dir)?;
        for (partition, (start, end)) in ranges.iter().enumerate() {
            println!("partition {partition} start={start} end={end}");
        }
        println!("stored={}", ranges.iter().map(|(start, end)| end - start).sum::<u64>());
        return Ok(true);
    }
    let source = source::open(args.csv.as_ref(), args.seed).map_err(Failure::Refused)?;
    // Removed when it goes out of scope, which is after the log in it was closed.
    let (dir, _temporary) = match &args.data {
        Some(dir) => (dir.clone(), None),
        None => {
            let temporary =
                tempfile::tempdir().map_err(|e| Failure::Broken(format!("temporary directory: {e}")))?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let report = plant::run(&args, &source, &dir)?;
    print!("{}", report.text());
    Ok(report.mismatches() == 0)
}
