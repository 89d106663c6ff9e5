//! The tables.

use std::fmt::Write;

use super::targets::{CLAIMS, best, judge};
use super::{About, OURS, Row, advantage};
use crate::systems::{Durability, SYSTEMS};
use crate::workloads::PERCENTILES;

pub fn write(rows: &[Row], about: &About) -> String {
    let mut text = format!("# tapelog and its peers\n\n{}\n\n", introduction(about));
    text += "Floors are what the machine gives to something that is no log. Only rows of the same durability are compared: \
             what a record survives once its append has returned. `none`: it may lie in a buffer of the process (reading and \
             sizes stand for no promise); `process`: `kill -9`; `disk`: the loss of power; `memory`: it is never stored. The \
             last two columns say how many times better tapelog is, as it comes and in its best configuration. Smallest and \
             largest times of latencies are in results.json.\n\n";
    text += "## What is claimed\n\n";
    text += &verdicts(rows);
    text += "\n## Side by side\n\n";
    text += &overview(rows);
    let mut begun: Vec<&str> = Vec::new();
    for row in rows {
        let name = family(&row.workload).unwrap_or(&row.workload);
        if !begun.contains(&name) {
            begun.push(name);
            text += &if name == row.workload { table(rows, row) } else { percentiles(rows, name) };
        }
    }
    if !about.troubles.is_empty() {
        text += "\n## Without a number\n\n";
        for trouble in &about.troubles {
            let _ = writeln!(text, "- {trouble}");
        }
    }
    text
}

/// What a workload is called whose last word is a percentile, without that word.
fn family(workload: &str) -> Option<&str> {
    PERCENTILES.iter().find_map(|(percentile, _)| workload.strip_suffix(percentile)?.strip_suffix('_'))
}

/// One workload: a line for each configuration.
fn table(rows: &[Row], first: &Row) -> String {
    let mut text = format!("\n## {} ({})\n\n", first.workload, first.unit);
    text += "| system | configuration | durability | median | min to max | tapelog is | at its best |\n";
    text += "|---|---|---|---:|---:|---:|---:|\n";
    for row in rows.iter().filter(|row| row.workload == first.workload) {
        let (as_it_comes, at_best) = match row.system.as_str() {
            OURS => (None, None),
            _ => advantage(rows, row),
        };
        let times = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{} x", number(ratio)));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} to {} | {} | {} |",
            row.system,
            row.config,
            row.durability.name(),
            number(row.median),
            number(row.min),
            number(row.max),
            times(as_it_comes),
            times(at_best),
        );
    }
    text
}

/// All percentiles of a latency: a line for each configuration, and behind each time how many times better tapelog
/// is at its best.
fn percentiles(rows: &[Row], name: &str) -> String {
    let mut text = format!("\n## {name}\n\n| system | configuration | durability |");
    PERCENTILES.iter().for_each(|(percentile, _)| text += &format!(" {percentile} |"));
    text += "\n|---|---|---|---:|---:|---:|---:|---:|---:|\n";
    let of = |percentile: &str| format!("{name}_{percentile}");
    for first in rows.iter().filter(|row| row.workload == of(PERCENTILES[0].0)) {
        let _ = write!(text, "| {} | {} | {} |", first.system, first.config, first.durability.name());
        for (percentile, _) in PERCENTILES {
            let same = |row: &&Row| {
                row.workload == of(percentile) && row.system == first.system && row.config == first.config
            };
            let row = rows.iter().find(same);
            let ratio = row.filter(|row| row.system != OURS).and_then(|row| advantage(rows, row).1);
            let ratio = ratio.map_or(String::new(), |ratio| format!(", {} x", number(ratio)));
            let _ = write!(text, " {}{ratio} |", row.map_or(String::new(), |row| time(row.median)));
        }
        text += "\n";
    }
    text
}

/// Where the numbers are from.
pub fn introduction(about: &About) -> String {
    let About { runs, seconds, day, machine, .. } = about;
    let (length, warning) = match about.quick {
        true => ("short ", " Short runs say little about tails, and they reopen 8 MiB in place of 1 GiB."),
        false => ("", ""),
    };
    let minutes = seconds.div_ceil(60);
    format!("Medians of {runs} {length}runs, interleaved, in {minutes} minutes on {day}: {machine}.{warning}")
}

/// What is claimed, what was reached, and whether that is enough.
pub fn verdicts(rows: &[Row]) -> String {
    let mut text =
        String::from("| work | must be | tapelog | beside | ratio | reached |\n|---|---|---|---|---:|---|\n");
    for claim in CLAIMS {
        let verdict = judge(claim, rows);
        let tell = |row: &Row| match row.unit.as_str() {
            "ns" => format!("{} ({})", time(row.median), row.config),
            unit => format!("{} {unit} ({})", number(row.median), row.config),
        };
        let ours = verdict.ours.map_or_else(String::new, tell);
        let beside = verdict.beside.filter(|row| row.system != OURS);
        let beside = match (beside, verdict.beside) {
            (Some(row), _) => format!("{}: {}", row.system, tell(row)),
            (None, Some(own)) => tell(own),
            (None, None) => String::new(),
        };
        let quotient = verdict.quotient.map_or_else(|| "-".into(), number);
        let met = match verdict.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not measured",
        };
        let _ =
            writeln!(text, "| {} | {} | {ours} | {beside} | {quotient} | {met} |", claim.work, claim.must);
    }
    text
}

/// One column of the overview: its head, its workload, and how its numbers are told.
type Column = (&'static str, &'static str, fn(f64) -> String);

const COLUMNS: &[Column] = &[
    ("append, M/s", "append_one", millions),
    ("sustained", "append_sustained", millions),
    ("in batches", "append_batch_100", millions),
    ("replay, M/s", "replay", millions),
    ("100,000/s with flushes: p50", "append_latency_100k_sync50ms_p50", time),
    ("p99.9", "append_latency_100k_sync50ms_p99.9", time),
    ("p99.99", "append_latency_100k_sync50ms_p99.99", time),
    ("tail p50", "tail_latency_100k_p50", time),
    ("on disk, 1 thread, k/s", "disk_1_thread", thousands),
    ("64 threads", "disk_64_threads", thousands),
    ("reopen after `kill -9`, ms", "reopen_killed", number),
    ("CPU per record, ns", "cpu_per_record", number),
];

/// The systems that survive `kill -9`, each at its best, on one page.
pub fn overview(rows: &[Row]) -> String {
    let kept = |row: &Row| row.durability != Durability::Memory;
    let systems = SYSTEMS
        .iter()
        .map(|system| system.name)
        .filter(|name| rows.iter().any(|row| row.system == *name && row.durability == Durability::Process));
    let columns: Vec<&Column> =
        COLUMNS.iter().filter(|c| rows.iter().any(|row| row.workload == c.1)).collect();
    let mut text = String::from("| each at its best |");
    columns.iter().for_each(|column| text += &format!(" {} |", column.0));
    text += "\n|---|";
    columns.iter().for_each(|_| text += "---:|");
    text += "\n";
    for system in systems {
        let _ = write!(text, "| {system} |");
        for (_, workload, tell) in &columns {
            let row = best(rows, workload, |row| row.system == system && kept(row) && promises(row));
            let _ = write!(text, " {} |", row.map_or_else(String::new, |row| tell(row.median)));
        }
        text += "\n";
    }
    text
}

/// Not what is faster because it promises nothing, where appends are told.
fn promises(row: &Row) -> bool {
    row.durability != Durability::None || row.workload == "replay"
}

fn millions(value: f64) -> String {
    number(value / 1e6)
}

fn thousands(value: f64) -> String {
    number(value / 1e3)
}

/// Of nanoseconds, with the unit that suits.
pub fn time(ns: f64) -> String {
    match ns {
        v if v >= 1e9 => format!("{} s", number(v / 1e9)),
        v if v >= 1e6 => format!("{} ms", number(v / 1e6)),
        v if v >= 1e3 => format!("{} µs", number(v / 1e3)),
        v => format!("{} ns", number(v)),
    }
}

/// Three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e7 => format!("{:.1} M", value / 1e6),
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
