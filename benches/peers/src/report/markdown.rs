//! The tables.

use std::fmt::Write;

use super::{Row, advantage};

pub fn write(rows: &[Row], troubles: &[String], runs: usize, quick: bool) -> String {
    let mut text = String::from("# tapelog and its peers\n\n");
    let length = if quick { "short " } else { "" };
    let _ = writeln!(
        text,
        "Medians of {runs} {length}runs, with the smallest and the largest. The last column says how many times better \
         tapelog is; it is empty where the durability is not the same. Floors are what the machine gives to something \
         that is no log: there the column says how far away that is."
    );
    let mut begun: Option<&str> = None;
    for row in rows {
        if begun != Some(row.workload.as_str()) {
            begun = Some(&row.workload);
            let _ = writeln!(text, "\n## {} ({})\n", row.workload, row.unit);
            text += "| system | configuration | durability | median | min to max | tapelog is |\n";
            text += "|---|---|---|---:|---:|---:|\n";
        }
        let ratio = advantage(rows, row).map_or(String::new(), |ratio| format!("{} x", number(ratio)));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} to {} | {ratio} |",
            row.system,
            row.config,
            row.durability.name(),
            number(row.median),
            number(row.min),
            number(row.max),
        );
    }
    if !troubles.is_empty() {
        text += "\n## Without a number\n\n";
        for trouble in troubles {
            let _ = writeln!(text, "- {trouble}");
        }
    }
    text
}

/// Three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.3} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
