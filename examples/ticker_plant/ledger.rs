//! What a data directory remembers beside its log: the source, and how far the current run must come.
//!
//! One small file, `DIR/source`, replaced atomically and durable before the first record that it speaks of:
//!
//! ```text
//! ticker_plant 1
//! kind csv
//! seed 0
//! rows 92081
//! crc32 1a2b3c4d
//! begin 0
//! target 92081
//! ```
//!
//! A run is unfinished while the directory holds fewer records than `target`.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::source::Identity;

const NAME: &str = "source";
const HEAD: &str = "ticker_plant 1";

/// Records of the directory before the current run, and at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) begin: u64,
    pub(crate) target: u64,
}

/// The file's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) source: Identity,
    pub(crate) run: Run,
}

impl Ledger {
    /// What `dir` remembers; `None` where no run has begun.
    pub(crate) fn load(dir: &Path) -> Result<Option<Ledger>, String> {
        let path = dir.join(NAME);
        match fs::read_to_string(&path) {
            Ok(text) => match Ledger::parse(&text) {
                Some(ledger) => Ok(Some(ledger)),
                None => Err(format!("{}: not a file of this program", path.display())),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }

    /// Makes `dir` remember this; when it returns, power may fail.
    pub(crate) fn store(&self, dir: &Path) -> Result<(), String> {
        let write = || {
            let temporary = dir.join(format!("{NAME}.new"));
            let mut file = File::create(&temporary)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, dir.join(NAME))?;
            // Only a directory that is flushed remembers the rename.
            if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|e| format!("{}: {e}", dir.join(NAME).display()))
    }

    fn text(&self) -> String {
        let Ledger { source: Identity { kind, seed, rows, crc32 }, run: Run { begin, target } } = self;
        format!(
            "{HEAD}\nkind {kind}\nseed {seed}\nrows {rows}\ncrc32 {crc32:08x}\nbegin {begin}\ntarget {target}\n"
        )
    }

    fn parse(text: &str) -> Option<Ledger> {
        let lines: Vec<&str> = text.lines().collect();
        let [HEAD, kind, seed, rows, crc32, begin, target] = lines[..] else { return None };
        let value = |line: &'_ str, name: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
        let number = |line, name| value(line, name)?.parse::<u64>().ok();
        Some(Ledger {
            source: Identity {
                kind: value(kind, "kind")?,
                seed: number(seed, "seed")?,
                rows: number(rows, "rows")?,
                crc32: u32::from_str_radix(&value(crc32, "crc32")?, 16).ok()?,
            },
            run: Run { begin: number(begin, "begin")?, target: number(target, "target")? },
        })
    }
}

/// What this call is asked to do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    pub(crate) resume: bool,
    pub(crate) records: Option<u64>,
    /// Records of a run that names no number.
    pub(crate) whole: u64,
}

/// The run that a directory holding `stored` records and remembering `last` is in from now on.
///
/// It appends what is missing to `target`, which may be nothing.
pub(crate) fn plan(last: Option<Run>, stored: u64, asked: Asked) -> Result<Run, String> {
    let more = asked.records.unwrap_or(asked.whole);
    match last {
        None if stored > 0 => {
            Err(format!("the log holds {stored} records, and nothing says of which source"))
        }
        None => Ok(Run { begin: 0, target: more }),
        Some(run) if stored < run.target && !asked.resume => Err(format!(
            "the last run is unfinished: {stored} of {} records are there; finish it with --resume",
            run.target
        )),
        Some(run) if stored < run.target => {
            let target = asked.records.map_or(run.target, |records| run.begin.saturating_add(records));
            if target < stored {
                return Err(format!(
                    "--records {}: the unfinished run has appended {} already",
                    target - run.begin,
                    stored - run.begin
                ));
            }
            Ok(Run { target, ..run })
        }
        Some(run) if asked.resume => Ok(run),
        Some(_) => Ok(Run { begin: stored, target: stored.saturating_add(more) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let source = Identity { kind: "csv".to_owned(), seed: 0, rows: 92_081, crc32: 0x00ab_cdef };
        Ledger { source, run: Run { begin: 10, target: 92_091 } }
    }

    #[test]
    fn remembers() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Ledger::load(dir.path()), Ok(None));
        ledger().store(dir.path()).expect("stored");
        assert_eq!(Ledger::load(dir.path()), Ok(Some(ledger())));
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "no temporary file stays");
        for bad in
            ["", "ticker_plant 2\n", &ledger().text().replace("rows", "lines"), &(ledger().text() + "x\n")]
        {
            fs::write(dir.path().join(NAME), bad).expect("written");
            let error = Ledger::load(dir.path()).expect_err(bad);
            assert!(error.contains("not a file of this program"), "{error}");
        }
    }

    #[test]
    fn plans_every_case() {
        let run = |begin, target| Run { begin, target };
        let fresh = |records| Asked { resume: false, records, whole: 100 };
        let resume = |records| Asked { resume: true, records, whole: 100 };

        // Nothing there: both begin.
        assert_eq!(plan(None, 0, fresh(None)), Ok(run(0, 100)));
        assert_eq!(plan(None, 0, resume(Some(7))), Ok(run(0, 7)));
        assert!(plan(None, 1, fresh(None)).is_err());
        // A finished run: one more, or nothing.
        assert_eq!(plan(Some(run(0, 100)), 100, fresh(None)), Ok(run(100, 200)));
        assert_eq!(plan(Some(run(0, 100)), 100, fresh(Some(5))), Ok(run(100, 105)));
        assert_eq!(plan(Some(run(0, 100)), 100, resume(Some(500))), Ok(run(0, 100)));
        // An unfinished one, even before its first record.
        for stored in [0, 40] {
            let error = plan(Some(run(0, 100)), stored, fresh(None)).expect_err("unfinished");
            assert!(error.contains("--resume"), "{error}");
        }
        assert_eq!(plan(Some(run(100, 200)), 140, resume(None)), Ok(run(100, 200)));
        assert_eq!(plan(Some(run(100, 200)), 140, resume(Some(100))), Ok(run(100, 200)));
        assert_eq!(plan(Some(run(100, 200)), 140, resume(Some(300))), Ok(run(100, 400)));
        assert_eq!(plan(Some(run(100, 200)), 140, resume(Some(40))), Ok(run(100, 140)));
        assert!(plan(Some(run(100, 200)), 140, resume(Some(39))).is_err());
    }
}
