//! Latencies, pace, memory, disk, and the progress bar.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies in nanoseconds, three digits exact.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        const HOUR_NS: u64 = 3_600_000_000_000;
        Latency(Histogram::new_with_bounds(1, HOUR_NS, 3).expect("bounds that hdrhistogram accepts"))
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("equal bounds");
    }

    /// `p50 1.2 µs, p99 ..., max ...`
    pub(crate) fn line(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        let mut line = String::new();
        for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)] {
            line += &format!("{name} {}, ", nanos_text(self.0.value_at_quantile(q)));
        }
        line + &format!("{} counted", self.0.len())
    }
}

/// A duration in the unit that suits it.
pub(crate) fn nanos_text(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// An open loop: event k is due at `begin + k / rate`, however late the events before it were.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<u64>,
    begin: Instant,
    done: u64,
    /// How late the latest event was.
    pub(crate) behind: Duration,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Pace { rate, begin: Instant::now(), done: 0, behind: Duration::ZERO }
    }

    /// When event `k` is due, counted from the beginning.
    fn due(rate: u64, k: u64) -> Duration {
        Duration::from_secs(k / rate) + Duration::from_nanos((k % rate) * 1_000_000_000 / rate)
    }

    /// Waits until the next event is due.
    pub(crate) fn wait(&mut self) {
        let Some(rate) = self.rate else { return };
        let due = Self::due(rate, self.done);
        self.done += 1;
        loop {
            let now = self.begin.elapsed();
            match due.checked_sub(now) {
                None => {
                    self.behind = self.behind.max(now - due);
                    return;
                }
                // A sleep overshoots by some 60 µs, and the events due meanwhile then follow at once: an open
                // loop loses no events by it, and leaves the cores to the consumers.
                Some(rest) if rest > Duration::from_micros(20) => std::thread::sleep(rest),
                Some(_) => std::hint::spin_loop(),
            }
        }
    }
}

/// The most memory this process ever had resident, where the system tells.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}

/// What the files under `dir` occupy.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => occupied(&meta),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(unix)]
fn occupied(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(meta) * 512
}

#[cfg(not(unix))]
fn occupied(meta: &fs::Metadata) -> u64 {
    meta.len()
}

/// A progress bar, drawn on standard error where that is a terminal and nowhere else.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
    begin: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Progress { shown: std::io::stderr().is_terminal(), begin: Instant::now() }
    }

    pub(crate) fn draw(&self, done: u64, total: u64) {
        if self.shown {
            let rate = done as f64 / self.begin.elapsed().as_secs_f64().max(1e-9);
            let _ = write!(std::io::stderr(), "\r{} {done}/{total}  {rate:.0}/s ", bar(done, total));
        }
    }

    pub(crate) fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn bar(done: u64, total: u64) -> String {
    const WIDTH: usize = 32;
    let full = (u128::from(done) * WIDTH as u128 / u128::from(total.max(1))).min(WIDTH as u128) as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_numbers_readably() {
        assert_eq!(nanos_text(999), "999 ns");
        assert_eq!(nanos_text(1_500), "1.5 µs");
        assert_eq!(nanos_text(2_000_000_000), "2.00 s");
        assert_eq!(mib(3 << 19), "1.5 MiB");
        assert_eq!(bar(0, 10), format!("[{}]", ".".repeat(32)));
        assert_eq!(bar(5, 10), format!("[{}{}]", "#".repeat(16), ".".repeat(16)));
        assert_eq!(bar(7, 0), format!("[{}]", "#".repeat(32)));
    }

    #[test]
    fn counts_latencies() {
        let (mut a, mut b) = (Latency::new(), Latency::new());
        assert_eq!(a.line(), "none");
        a.record(1_000);
        b.record(u64::MAX);
        a.merge(&b);
        assert!(a.line().starts_with("p50 1.0 µs") && a.line().ends_with("2 counted"), "{}", a.line());
    }

    #[test]
    fn keeps_the_pace() {
        assert_eq!(Pace::due(300_000, 3), Duration::from_micros(10));
        assert_eq!(Pace::due(3, 10), Duration::new(3, 333_333_333));
        let mut pace = Pace::new(Some(10_000));
        let begin = Instant::now();
        for _ in 0..=200 {
            pace.wait();
        }
        assert!(begin.elapsed() >= Duration::from_millis(19), "{:?}", begin.elapsed());
        assert!(cfg!(not(target_os = "linux")) || peak_memory_bytes() > Some(1 << 20));
    }
}
