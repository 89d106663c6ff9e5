//! A part of a test that needs a process of its own: another user, other limits, another root.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const DIR: &str = "TAPELOG_FAULTS_CHILD";

/// What became of a child.
pub(crate) enum Ended {
    /// It ended as it should; what it said.
    Well(String),
    /// The machine cannot run it.
    Never(String),
    /// It failed, or was killed.
    Badly(String),
}

/// Runs the test called `test` (`module::name`) in a child that finds `dir` by [`here`], behind the words of `prefix`.
pub(crate) fn run_child(test: &str, prefix: &[&str], dir: &Path) -> Ended {
    let program = std::env::current_exe().unwrap();
    let mut words: Vec<&OsStr> = prefix.iter().map(OsStr::new).collect();
    words.push(program.as_os_str());
    let mut command = Command::new(words[0]);
    let command = command.args(&words[1..]).args(["--exact", test, "--nocapture"]).env(DIR, dir);
    let output = match command.output() {
        Ok(output) => output,
        Err(e) => return Ended::Never(e.to_string()),
    };
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match () {
        () if !said.contains("the child is here") => Ended::Never(said.trim().replace(['\n', '"'], " ")),
        () if output.status.success() => Ended::Well(said),
        () => Ended::Badly(format!("{}: {said}", output.status)),
    }
}

/// Where a child works; `None` in the process that is none.
pub(crate) fn here() -> Option<PathBuf> {
    let dir = std::env::var_os(DIR)?;
    println!("the child is here");
    Some(PathBuf::from(dir))
}

/// What a child said of itself: the numbers behind a word.
pub(crate) fn told(said: &str, word: &str) -> u64 {
    let mut numbers =
        said.split_whitespace().filter_map(|w| w.strip_prefix(word)?.strip_prefix('=')?.parse::<u64>().ok());
    numbers.next_back().unwrap_or(0)
}
