//! Bars of throughput, and curves of latency over percentiles.

use super::markdown::{number, time};
use super::svg::Svg;
use super::{FLOOR, OURS, Row};
use crate::systems::Durability;

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

const BLUE: &str = "#0072b2";
const ORANGE: &str = "#e08a3c";
const PALE: &str = "#f3d3b4";
const GREY: &str = "#b8b8b8";

/// One colour for each peer, in all plots; dashes for those that store nothing, or less surely.
const HUES: &[(&str, &str, bool)] = &[
    ("tickertape", "#d55e00", false),
    ("khata", "#009e73", false),
    ("kafko", "#cc79a7", false),
    ("commitlog", "#e69f00", false),
    ("yaque", "#8c510a", false),
    ("walrus", "#7b3294", false),
    ("raft-engine", "#555500", false),
    ("seglog", "#66a61e", true),
    ("logdb", "#e7298a", true),
    ("fjall", "#aa3377", false),
    ("redb", "#332288", true),
    ("disruptor", "#d55e00", true),
    ("crossbeam", "#009e73", true),
    ("tokio", "#cc79a7", true),
];

fn label(row: &Row) -> String {
    if row.config == "default" { row.system.clone() } else { format!("{}, {}", row.system, row.config) }
}

/// About how wide a text is.
fn width(text: &str) -> f64 {
    6.7 * text.chars().count() as f64
}

/// What a workload is called in full: the first of these that it begins with, and what its last words mean.
fn title(family: &str) -> String {
    const WORDS: &[(&str, &str)] = &[
        ("append_one", "append one by one"),
        ("append_batch_100", "append in batches of 100"),
        ("append_sustained", "append one by one, sustained"),
        ("_100k", " at 100,000/s"),
        ("_1m", " at 1,000,000/s"),
        ("_2k", " at 2,000/s"),
        ("_1k", ", values of 1 KiB"),
        ("_sync50ms", " with a flush every 50 ms"),
    ];
    let full = WORDS.iter().fold(family.to_owned(), |name, (short, long)| name.replace(short, long));
    full.replace('_', " ")
}

fn bars(rows: &[Row], workload: &str) -> String {
    let of: Vec<&Row> = rows.iter().filter(|row| row.workload == workload).collect();
    // What nothing stored can do only flattens the rest.
    let stored = of.iter().any(|row| row.system == OURS && row.durability != Durability::Memory);
    let shown = |row: &&&Row| !(stored && row.system == FLOOR && row.durability == Durability::Memory);
    let mut rows: Vec<&Row> = of.iter().filter(shown).copied().collect();
    rows.sort_by(|a, b| b.median.total_cmp(&a.median));
    let promise = rows.iter().find(|row| row.system == OURS).map(|row| row.durability);
    let shade = |row: &Row| match row.system.as_str() {
        OURS => BLUE,
        FLOOR => GREY,
        _ if promise.is_none_or(|promise| promise == row.durability) => ORANGE,
        _ => PALE,
    };
    let largest = rows.iter().map(|row| row.max).fold(f64::MIN_POSITIVE, f64::max);
    let longest = rows.iter().map(|row| width(&label(row))).fold(0.0, f64::max);
    let (left, top, wide, step) = (longest + 24.0, 62.0, 460.0, 22.0);
    let mut svg = Svg::new(left + wide + 150.0, top + step * rows.len() as f64 + 14.0);
    svg.title((12.0, 24.0), format!("{}, {}", title(workload), rows[0].unit));
    svg.note(
        (12.0, 44.0),
        "median, with a line from the smallest to the largest run; behind it what a record survives",
    );
    for (i, row) in rows.iter().enumerate() {
        let y = top + step * i as f64;
        let x = |value: f64| left + wide * value / largest;
        svg.text((left - 8.0, y + 12.0), "end", label(row));
        svg.rect((left, y), ((x(row.median) - left).max(1.0), step - 6.0), shade(row));
        svg.line((x(row.min), y + 8.0), (x(row.max), y + 8.0), "#333333");
        let promise = match row.durability {
            Durability::Process => ", kill -9",
            Durability::Disk => ", loss of power",
            Durability::Memory => ", memory only",
            Durability::None if row.system == FLOOR || promise == Some(Durability::None) => "",
            Durability::None => ", buffered",
        };
        svg.text((x(row.max) + 6.0, y + 12.0), "start", format!("{}{promise}", number(row.median)));
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

/// One system in one configuration.
struct Curve {
    label: String,
    values: Vec<(usize, f64)>,
    shade: &'static str,
    dash: &'static str,
    thick: bool,
}

impl Curve {
    fn of(rows: &[Row], family: &str, first: &Row, ours: &mut usize) -> Curve {
        let value = |(at, (point, _)): (usize, &(&str, &str))| {
            let name = format!("{family}_{point}");
            let same =
                |row: &&Row| row.workload == name && row.system == first.system && row.config == first.config;
            rows.iter().find(same).map(|row| (at, row.median.max(1.0)))
        };
        let hue = HUES.iter().find(|hue| hue.0 == first.system);
        let dashed = |dashed| if dashed { "6 3" } else { "" };
        let (shade, mut dash) = match first.system.as_str() {
            OURS => {
                *ours += 1;
                (["#0072b2", "#56b4e9", "#1f3b73", "#7fa8d9"][(*ours - 1) % 4], "")
            }
            FLOOR => ("#999999", "6 3"),
            _ => hue.map_or(("#444444", "6 3"), |hue| (hue.1, dashed(hue.2))),
        };
        let other = rows.iter().find(|row| row.workload == first.workload && row.system == first.system);
        if first.system != OURS && other.is_some_and(|other| other.config != first.config) {
            dash = "2 2";
        }
        let values = POINTS.iter().enumerate().filter_map(value).collect();
        Curve { label: label(first), values, shade, dash, thick: first.system == OURS }
    }

    /// Where it stands in the legend: as far out as the curve goes that all have in common.
    fn tail(&self) -> f64 {
        self.values.iter().rev().find(|(at, _)| *at <= 3).map_or(0.0, |(_, value)| *value)
    }
}

fn curves(rows: &[Row], family: &str) -> String {
    let first = format!("{family}_p50");
    let mut ours = 0;
    let mut curves: Vec<Curve> = rows
        .iter()
        .filter(|row| row.workload == first)
        .map(|row| Curve::of(rows, family, row, &mut ours))
        .collect();
    curves.sort_by(|a, b| b.tail().total_cmp(&a.tail()));
    let values = || curves.iter().flat_map(|curve| curve.values.iter().map(|(_, value)| *value));
    let low = values().fold(f64::MAX, f64::min).log10().floor();
    let high = values().fold(10.0, f64::max).log10().ceil();

    let (left, top, wide, tall) = (70.0, 64.0, 560.0, 400.0);
    let x = |i: usize| left + wide * i as f64 / (POINTS.len() - 1) as f64;
    let y = |value: f64| top + tall * (high - value.log10()) / (high - low).max(1.0);
    let key = left + wide + 24.0;
    let longest = curves.iter().map(|curve| width(&curve.label)).fold(0.0, f64::max);
    let mut svg =
        Svg::new(key + 118.0 + longest, (top + tall + 40.0).max(top + 40.0 + 19.0 * curves.len() as f64));
    svg.title((12.0, 24.0), format!("{}: time by percentile", title(family)));
    svg.note(
        (12.0, 44.0),
        "less is better; both axes are logarithmic; the legend is in the order of the 99.9th percentile",
    );
    for decade in low as i32..=high as i32 {
        let at = y(10f64.powi(decade));
        svg.line((left, at), (left + wide, at), "#dddddd");
        let tick = time(10f64.powi(decade)).replace(".00", "").replace(".0", "");
        svg.text((left - 8.0, at + 4.0), "end", tick);
    }
    for (i, (_, name)) in POINTS.iter().enumerate() {
        svg.line((x(i), top), (x(i), top + tall), "#eeeeee");
        svg.text((x(i), top + tall + 20.0), "middle", name);
    }
    svg.text((key + 34.0, top - 4.0), "start", "99.9 %");
    // Ours last: on top of the others.
    for curve in curves.iter().filter(|c| !c.thick).chain(curves.iter().filter(|c| c.thick)) {
        let points: Vec<(f64, f64)> = curve.values.iter().map(|&(at, value)| (x(at), y(value))).collect();
        svg.polyline(&points, curve.shade, curve.dash, if curve.thick { 3.0 } else { 1.6 });
    }
    for (i, curve) in curves.iter().enumerate() {
        let line = top + 14.0 + 19.0 * i as f64;
        let thickness = if curve.thick { 3.0 } else { 1.6 };
        svg.polyline(&[(key, line), (key + 26.0, line)], curve.shade, curve.dash, thickness);
        svg.text((key + 92.0, line + 4.0), "end", time(curve.tail()));
        svg.text((key + 102.0, line + 4.0), "start", &curve.label);
    }
    svg.finish()
}
