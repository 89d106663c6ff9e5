//! What comes out: rows as JSON, tables with ratios, plots.

mod markdown;
mod plots;
mod svg;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::systems::Durability;

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
        let (min, max) = (values[0], values[values.len() - 1]);
        Row { workload, system, config, durability, unit, median, min, max }
    }

    /// Whether a larger number is a better one.
    pub fn more_is_better(&self) -> bool {
        self.unit.ends_with("/s")
    }
}

const OURS: &str = "tapelog";
const FLOOR: &str = "floor";

/// What a row is compared with: ours of the same durability, in the configuration of the same name where there is
/// one (a codec), else as it comes. A floor is none of ours to equal in what it promises, and is compared with
/// the first that there is.
fn reference<'a>(rows: &'a [Row], row: &Row) -> Option<&'a Row> {
    let equal = |r: &&Row| {
        let promise = row.system == FLOOR || r.durability == row.durability;
        promise && r.system == OURS && r.workload == row.workload
    };
    rows.iter().filter(equal).find(|r| r.config == row.config).or_else(|| rows.iter().find(equal))
}

/// How many times better ours is than `row`.
fn advantage(rows: &[Row], row: &Row) -> Option<f64> {
    let ours = reference(rows, row)?.median;
    let ratio = if row.more_is_better() { ours / row.median } else { row.median / ours };
    ratio.is_finite().then_some(ratio)
}

pub fn write(out: &Path, rows: &[Row], troubles: &[String], runs: usize, quick: bool) -> Result<()> {
    std::fs::write(out.join("results.json"), serde_json::to_string_pretty(rows)? + "\n")?;
    std::fs::write(out.join("results.md"), markdown::write(rows, troubles, runs, quick))?;
    for (name, text) in plots::all(rows) {
        std::fs::write(out.join(name), text)?;
    }
    Ok(())
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
        let rows = [
            row("tapelog", Durability::Process, "records/s", &[20.0]),
            row("peer", Durability::Process, "records/s", &[10.0]),
            row("buffered", Durability::None, "records/s", &[10.0]),
            row("floor", Durability::Memory, "records/s", &[40.0]),
        ];
        let found: Vec<_> = rows.iter().map(|row| advantage(&rows, row)).collect();
        assert_eq!(found, [Some(1.0), Some(2.0), None, Some(0.5)]);
    }

    #[test]
    fn less_is_better_for_times() {
        let ours = row("tapelog", Durability::Process, "ns", &[10.0]);
        let peer = row("peer", Durability::Process, "ns", &[30.0]);
        let rows = [ours, peer];
        assert_eq!(advantage(&rows, &rows[1]), Some(3.0));
    }
}
