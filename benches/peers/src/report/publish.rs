//! Puts a result where everybody sees it: into the README of the project, with its tables and plots beside this crate.

use std::path::Path;

use super::{About, Row, markdown, plots, read, targets};
use crate::Result;

const BEGIN: &str = "<!-- The harness writes from here: benches/peers, with --publish. -->\n";
const END: &str = "<!-- To here. -->";

pub fn publish(out: &Path) -> Result<()> {
    let (rows, about) = read(out)?;
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (last, readme) = (crate_dir.join("last"), crate_dir.join("../../README.md"));
    let text = std::fs::read_to_string(&readme).map_err(|e| format!("{}: {e}", readme.display()))?;
    let text = replaced(&text, &section(&rows, &about))?;
    if last.exists() {
        std::fs::remove_dir_all(&last)?;
    }
    std::fs::create_dir(&last)?;
    for name in ["results.json", "about.json", "results.md"] {
        std::fs::copy(out.join(name), last.join(name))?;
    }
    for (name, plot) in plots::all(&rows).into_iter().filter(|(name, _)| SHOWN.contains(&name.as_str())) {
        std::fs::write(last.join(name), plot)?;
    }
    Ok(std::fs::write(&readme, text)?)
}

/// The plots that go along.
const SHOWN: &[&str] =
    &["append_one.svg", "replay.svg", "append_latency_1m_sync50ms.svg", "tail_latency_100k.svg"];

/// `text` with `section` between the marks.
fn replaced(text: &str, section: &str) -> Result<String> {
    let begin = text.find(BEGIN).map(|at| at + BEGIN.len());
    let end = text.find(END);
    match (begin, end) {
        (Some(begin), Some(end)) if begin <= end => {
            Ok(format!("{}{section}{}", &text[..begin], &text[end..]))
        }
        _ => Err(format!("the README lacks the marks {:?} and {END:?}", BEGIN.trim_end()).into()),
    }
}

fn section(rows: &[Row], about: &About) -> String {
    let mut text = format!("\n{}\n\n{}\n", markdown::introduction(about), markdown::overview(rows));
    let (met, judged) = targets::count(rows);
    text += &format!(
        "Of {judged} claims about speed this run shows {met}: [all of them, and all numbers]({LAST}/results.md).\n\n"
    );
    for name in SHOWN.iter().filter(|name| plots::has(rows, name)) {
        let title = name.trim_end_matches(".svg").replace('_', " ");
        text += &format!("![{title}]({LAST}/{name})\n");
    }
    text + "\n"
}

/// Where it lies, from the README.
const LAST: &str = "benches/peers/last";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let before = format!("# Title\n{BEGIN}old\nold\n{END}\nmore\n");
        let after = replaced(&before, "new\n").unwrap();
        assert_eq!(after, format!("# Title\n{BEGIN}new\n{END}\nmore\n"));
        assert_eq!(replaced(&after, "new\n").unwrap(), after);
        assert!(replaced("# Title\n", "new\n").is_err());
        assert!(replaced(&format!("{END}{BEGIN}"), "new\n").is_err());
    }
}
