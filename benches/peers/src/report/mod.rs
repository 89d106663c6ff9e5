//! What comes out: rows as JSON, tables with ratios, plots.

mod markdown;
mod plots;
mod publish;
mod svg;
mod targets;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::systems::Durability;
use crate::workloads::Scale;

pub use publish::publish;

/// One number: the median of all runs, with the smallest and the largest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub workload: String,
    pub system: String,
    pub config: String,
    pub durability: Durability,
    pub unit: String,
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Row {
    pub fn new(
        workload: String,
        system: String,
        config: String,
        durability: Durability,
        unit: String,
        mut values: Vec<f64>,
    ) -> Row {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        let (median, min, max) = (rounded(median), rounded(values[0]), rounded(values[values.len() - 1]));
        Row { workload, system, config, durability, unit, median, min, max }
    }

    /// Whether a larger number is a better one.
    pub fn more_is_better(&self) -> bool {
        self.unit == "records/s"
    }

    pub fn beats(&self, other: &Row) -> bool {
        if self.more_is_better() { self.median > other.median } else { self.median < other.median }
    }
}

/// Five digits: more say nothing.
fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

/// What goes with the rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    pub runs: usize,
    pub quick: bool,
    pub seconds: u64,
    pub day: String,
    pub machine: String,
    pub troubles: Vec<String>,
}

impl About {
    pub fn new(scale: &Scale, troubles: Vec<String>, took: Duration) -> About {
        let (machine, day) = (crate::usage::machine(), crate::usage::day());
        About { runs: scale.runs, quick: scale.quick, seconds: took.as_secs(), day, machine, troubles }
    }
}

const OURS: &str = "tapelog";
const FLOOR: &str = "floor";

/// How many times better ours is than `row`: as it comes, and in its best configuration. Ours is of the same
/// durability, and where there is one in a configuration of the same name (a codec), it is that. A floor is none of
/// ours to equal in what it promises, and is compared with whatever there is but memory.
fn advantage(rows: &[Row], row: &Row) -> (Option<f64>, Option<f64>) {
    let equal = |r: &Row| match row.system.as_str() {
        FLOOR => r.durability != Durability::Memory,
        _ => r.durability == row.durability,
    };
    let ours = |r: &&Row| r.system == OURS && r.workload == row.workload && equal(r);
    let named = |r: &&Row| r.config == row.config && r.config != "default";
    let first = rows.iter().filter(ours).find(named).or_else(|| rows.iter().find(ours));
    let best =
        rows.iter().filter(ours).find(named).or_else(|| targets::best(rows, &row.workload, |r| ours(&r)));
    let ratio = |ours: &Row| {
        let ratio = if row.more_is_better() { ours.median / row.median } else { row.median / ours.median };
        ratio.is_finite().then_some(ratio)
    };
    (first.and_then(ratio), best.and_then(ratio))
}

/// Whether the results can go there: better told before anything is measured.
pub fn check(out: &Path) -> Result<()> {
    let probe = out.join(".probe");
    std::fs::create_dir_all(out)
        .and_then(|()| std::fs::write(&probe, ""))
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|e| format!("--out {}: {e}", out.display()).into())
}

pub fn write(out: &Path, rows: &[Row], about: &About) -> Result<()> {
    let lines = rows.iter().map(serde_json::to_string).collect::<std::result::Result<Vec<_>, _>>()?;
    std::fs::write(out.join("results.json"), format!("[\n{}\n]\n", lines.join(",\n")))?;
    std::fs::write(out.join("about.json"), serde_json::to_string_pretty(about)? + "\n")?;
    std::fs::write(out.join("results.md"), markdown::write(rows, about))?;
    for (name, text) in plots::all(rows) {
        std::fs::write(out.join(name), text)?;
    }
    Ok(())
}

fn read(out: &Path) -> Result<(Vec<Row>, About)> {
    let text = |name| {
        let path = out.join(name);
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    Ok((serde_json::from_str(&text("results.json")?)?, serde_json::from_str(&text("about.json")?)?))
}

/// Writes tables and plots of an earlier run anew.
pub fn render(out: &Path) -> Result<()> {
    let (rows, about) = read(out)?;
    write(out, &rows, &about)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(system: &str, durability: Durability, unit: &str, values: &[f64]) -> Row {
        Row::new("w".into(), system.into(), "default".into(), durability, unit.into(), values.to_vec())
    }

    #[test]
    fn medians_and_extremes() {
        let odd = row("a", Durability::None, "ns", &[3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(row("a", Durability::None, "ns", &[4.0, 1.0]).median, 2.5);
    }

    #[test]
    fn only_equal_promises_are_compared_floors_excepted() {
        let mut rows = vec![
            row("tapelog", Durability::Process, "records/s", &[20.0]),
            row("tapelog", Durability::Process, "records/s", &[30.0]),
            row("tapelog", Durability::Memory, "records/s", &[90.0]),
            row("peer", Durability::Process, "records/s", &[10.0]),
            row("buffered", Durability::None, "records/s", &[10.0]),
            row("floor", Durability::Process, "records/s", &[40.0]),
        ];
        rows[1].config = "appender".into();
        let found: Vec<_> = rows[3..].iter().map(|row| advantage(&rows, row)).collect();
        assert_eq!(found, [(Some(2.0), Some(3.0)), (None, None), (Some(0.5), Some(0.75))]);
    }

    #[test]
    fn the_same_codec_is_compared_whatever_is_best() {
        let mut rows = vec![
            row("tapelog", Durability::None, "bytes/record", &[100.0]),
            row("tapelog", Durability::None, "bytes/record", &[40.0]),
            row("tapelog", Durability::None, "bytes/record", &[20.0]),
            row("peer", Durability::None, "bytes/record", &[80.0]),
        ];
        (rows[1].config, rows[2].config, rows[3].config) = ("lz4".into(), "gzip".into(), "lz4".into());
        assert_eq!(advantage(&rows, &rows[3]), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn less_is_better_for_times() {
        let ours = row("tapelog", Durability::Process, "ns", &[10.0]);
        let peer = row("peer", Durability::Process, "ns", &[30.0]);
        let rows = [ours, peer];
        assert_eq!(advantage(&rows, &rows[1]).0, Some(3.0));
    }

    #[test]
    fn a_row_has_exactly_the_fields_that_others_read() {
        let json = serde_json::to_value(row("a", Durability::Process, "ns", &[1.0])).unwrap();
        let mut keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["config", "durability", "max", "median", "min", "system", "unit", "workload"]);
        assert_eq!(json["durability"], "process");
    }
}
