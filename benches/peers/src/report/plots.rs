//! Bars of throughput, and curves of latency over percentiles.

use super::markdown::number;
use super::svg::{Svg, colour};
use super::{FLOOR, OURS, Row};

/// Every plot that the rows suffice for: file name and text.
pub fn all(rows: &[Row]) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for row in rows {
        let family = row.workload.strip_suffix("_p50").unwrap_or(&row.workload);
        if seen.contains(&family) {
            continue;
        }
        seen.push(family);
        if family != row.workload {
            plots.push((format!("{family}.svg"), curves(rows, family)));
        } else if row.more_is_better() {
            plots.push((format!("{family}.svg"), bars(rows, family)));
        }
    }
    plots
}

/// Whether there is a plot of that name.
pub fn has(rows: &[Row], name: &str) -> bool {
    all(rows).iter().any(|(plot, _)| plot == name)
}

fn label(row: &Row) -> String {
    format!("{}, {}", row.system, row.config)
}

fn shade(row: &Row) -> &'static str {
    match row.system.as_str() {
        OURS => colour(0),
        FLOOR => "#bbbbbb",
        _ => colour(1),
    }
}

fn bars(rows: &[Row], workload: &str) -> String {
    let mut rows: Vec<&Row> = rows.iter().filter(|row| row.workload == workload).collect();
    rows.sort_by(|a, b| b.median.total_cmp(&a.median));
    let largest = rows.iter().map(|row| row.max).fold(f64::MIN_POSITIVE, f64::max);
    let (left, width, step) = (300.0, 480.0, 22.0);
    let mut svg = Svg::new(left + width + 190.0, 50.0 + step * rows.len() as f64);
    svg.text((10.0, 20.0), "start", format!("{workload}, {}", rows[0].unit));
    for (i, row) in rows.iter().enumerate() {
        let y = 36.0 + step * i as f64;
        let x = |value: f64| left + width * value / largest;
        svg.text((left - 8.0, y + 12.0), "end", label(row));
        svg.rect((left, y), (x(row.median) - left, step - 6.0), shade(row));
        svg.line((x(row.min), y + 8.0), (x(row.max), y + 8.0), "black");
        let text = format!("{} ({})", number(row.median), row.durability.name());
        svg.text((x(row.max) + 6.0, y + 12.0), "start", text);
    }
    svg.finish()
}

const POINTS: [(&str, &str); 6] = [
    ("p50", "50 %"),
    ("p90", "90 %"),
    ("p99", "99 %"),
    ("p99.9", "99.9 %"),
    ("p99.99", "99.99 %"),
    ("max", "max"),
];

fn curves(rows: &[Row], family: &str) -> String {
    let first = format!("{family}_p50");
    let systems: Vec<&Row> = rows.iter().filter(|row| row.workload == first).collect();
    let of = |system: &Row, point: &str| {
        let name = format!("{family}_{point}");
        let same =
            |row: &&Row| row.workload == name && row.system == system.system && row.config == system.config;
        rows.iter().find(same).map(|row| row.median.max(1.0))
    };
    let values = systems.iter().flat_map(|s| POINTS.iter().filter_map(|(point, _)| of(s, point)));
    let (low, high) = values.fold((f64::MAX, 10.0), |(low, high), v| (f64::min(low, v), f64::max(high, v)));
    let (low, high) = (low.log10().floor(), high.log10().ceil());

    let (left, top, width, height) = (70.0, 40.0, 560.0, 380.0);
    let x = |i: usize| left + width * i as f64 / (POINTS.len() - 1) as f64;
    let y = |value: f64| top + height * (high - value.log10()) / (high - low).max(1.0);
    let mut svg =
        Svg::new(left + width + 330.0, (top + height + 50.0).max(70.0 + 18.0 * systems.len() as f64));
    svg.text((10.0, 20.0), "start", format!("{family}: time by percentile"));
    for decade in low as i32..=high as i32 {
        let at = y(10f64.powi(decade));
        svg.line((left, at), (left + width, at), "#dddddd");
        let names =
            ["1 ns", "10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"];
        svg.text((left - 8.0, at + 4.0), "end", names.get(decade as usize).copied().unwrap_or(""));
    }
    for (i, (_, name)) in POINTS.iter().enumerate() {
        svg.line((x(i), top), (x(i), top + height), "#eeeeee");
        svg.text((x(i), top + height + 20.0), "middle", name);
    }
    for (i, system) in systems.iter().enumerate() {
        let curve: Vec<(f64, f64)> = POINTS
            .iter()
            .enumerate()
            .filter_map(|(at, (point, _))| Some((x(at), y(of(system, point)?))))
            .collect();
        let (shade, line) = (colour(i), top + 10.0 + 18.0 * i as f64);
        svg.polyline(&curve, shade, i >= 8);
        svg.polyline(&[(left + width + 20.0, line), (left + width + 45.0, line)], shade, i >= 8);
        svg.text((left + width + 52.0, line + 4.0), "start", label(system));
    }
    svg.finish()
}
