//! The options. An unknown one is an error, never ignored.

use std::path::PathBuf;
use std::time::Duration;

use tapelog::Compression;

pub(crate) const HELP: &str = "\
ticker_plant: ticks through a durable topic to three live consumer groups, audited against their source

usage: ticker_plant [OPTIONS]

what to feed
  --csv FILE          rows of ts_event_ns,symbol,action,side,price,size,sequence (default: a simulated feed)
  --seed N            seed of the simulated feed (default 1)
  --records N         append N records (default: the whole file, or 1000000 simulated ones)
  --rate N            N records per second, an open loop (default: as fast as it goes)

where to
  --data DIR          the data directory, made if absent (default: a temporary one, removed at exit)
  --resume            finish the unfinished run of DIR; with --records N, that run's total is N
  --inspect           only say what DIR holds; appends nothing

how
  --durability LEVEL  process: survives kill -9 (default); disk: survives power loss
  --sync-every MS     flush the topic to disk every MS milliseconds (default: when the system likes to)
  --codec NAME        none, lz4 (default), snappy, gzip, zstd
  --budget MIB        memory budget of the log (default: the library's)
  --accepted FILE     after each accepted send, write there how many records DIR must hold, in 20 digits
  --help              this text

exit codes: 0 all as it should be; 1 a mismatch, or the run broke; 2 refused to begin
";

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) csv: Option<PathBuf>,
    pub(crate) seed: u64,
    pub(crate) records: Option<u64>,
    pub(crate) rate: Option<u64>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) resume: bool,
    pub(crate) inspect: bool,
    pub(crate) disk: bool,
    pub(crate) sync_every: Option<Duration>,
    pub(crate) codec: Compression,
    pub(crate) budget_bytes: Option<u64>,
    pub(crate) accepted: Option<PathBuf>,
    pub(crate) help: bool,
}

impl Args {
    /// Reads `--name value` and `--name=value`.
    pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Args, String> {
        let mut out = Args {
            csv: None,
            seed: 1,
            records: None,
            rate: None,
            data: None,
            resume: false,
            inspect: false,
            disk: false,
            sync_every: None,
            codec: Compression::Lz4,
            budget_bytes: None,
            accepted: None,
            help: false,
        };
        let mut seeded = false;
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (name, mut inline) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (arg, None),
            };
            let mut value = || inline.take().or_else(|| args.next()).ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--csv" => out.csv = Some(value()?.into()),
                "--seed" => {
                    out.seed = number(&name, &value()?)?;
                    seeded = true;
                }
                "--records" => out.records = Some(number(&name, &value()?)?),
                "--rate" => out.rate = Some(positive(&name, &value()?)?),
                "--data" => out.data = Some(value()?.into()),
                "--resume" => out.resume = true,
                "--inspect" => out.inspect = true,
                "--durability" => {
                    out.disk = match value()?.as_str() {
                        "process" => false,
                        "disk" => true,
                        other => return Err(format!("--durability is process or disk, not {other:?}")),
                    }
                }
                "--sync-every" => out.sync_every = Some(Duration::from_millis(positive(&name, &value()?)?)),
                "--codec" => out.codec = codec(&value()?)?,
                "--budget" => {
                    let mib = positive(&name, &value()?)?;
                    out.budget_bytes = Some(
                        mib.checked_mul(1 << 20).ok_or_else(|| format!("--budget: {mib} MiB is too much"))?,
                    );
                }
                "--accepted" => out.accepted = Some(value()?.into()),
                "--help" | "-h" => out.help = true,
                _ => return Err(format!("unknown option {name:?}; --help lists them")),
            }
            if inline.is_some() {
                return Err(format!("{name} takes no value"));
            }
        }
        if seeded && out.csv.is_some() {
            return Err("--seed is for the simulated feed, not for --csv".to_owned());
        }
        if (out.resume || out.inspect) && out.data.is_none() {
            return Err(format!("--{} needs --data DIR", if out.resume { "resume" } else { "inspect" }));
        }
        Ok(out)
    }
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{name}: {text:?} is not a whole number"))
}

fn positive(name: &str, text: &str) -> Result<u64, String> {
    match number(name, text)? {
        0 => Err(format!("{name} must be at least 1")),
        n => Ok(n),
    }
}

fn codec(name: &str) -> Result<Compression, String> {
    Ok(match name {
        "none" => Compression::None,
        "lz4" => Compression::Lz4,
        "snappy" => Compression::Snappy,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        _ => return Err(format!("--codec is none, lz4, snappy, gzip or zstd, not {name:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn reads_every_option() {
        let args = parse(
            "--csv a.csv --records 5 --rate=300000 --data d --resume --durability disk --sync-every 50 \
             --codec zstd --budget 64 --accepted f",
        )
        .expect("valid");
        assert_eq!(args.csv, Some("a.csv".into()));
        assert_eq!((args.records, args.rate), (Some(5), Some(300_000)));
        assert!(args.resume && args.disk && !args.inspect);
        assert_eq!(args.sync_every, Some(Duration::from_millis(50)));
        assert_eq!(args.codec, Compression::Zstd);
        assert_eq!(args.budget_bytes, Some(64 << 20));
        assert_eq!(args.accepted, Some("f".into()));
        assert_eq!(parse("").expect("defaults").codec, Compression::Lz4);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (line, says) in [
            ("--recordz 5", "unknown option"),
            ("file.csv", "unknown option"),
            ("--records", "needs a value"),
            ("--records=x", "not a whole number"),
            ("--rate 0", "at least 1"),
            ("--durability ram", "process or disk"),
            ("--codec lzo", "not \"lzo\""),
            ("--resume", "needs --data"),
            ("--data d --resume=yes", "takes no value"),
            ("--csv a --seed 1", "simulated"),
            ("--budget 99999999999999999", "too much"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
