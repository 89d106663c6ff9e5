//! What a run has to say at its end.

use std::fmt::Write as _;
use std::time::Duration;

use super::audit::Findings;
use super::bars::Bars;
use super::board::Board;
use super::stats::{Latency, mib};

/// How one group came out of the run.
#[derive(Debug)]
pub(crate) struct GroupReport {
    pub(crate) name: &'static str,
    /// Delivered to it by this run.
    pub(crate) out: u64,
    /// Offsets out of order, records it could not read, and results that differ from the source's.
    pub(crate) mismatches: u64,
    /// Records of the topic beyond its committed offsets.
    pub(crate) lag: u64,
}

/// A whole run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) appended: u64,
    pub(crate) appended_bytes: u64,
    /// Deliveries that named another partition or offset than they had to.
    pub(crate) misplaced: u64,
    /// From the first send to the last, and until the last group had everything.
    pub(crate) appending: Duration,
    pub(crate) running: Duration,
    pub(crate) append: Latency,
    pub(crate) end_to_end: Latency,
    pub(crate) behind: Duration,
    pub(crate) stored: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) audit: Findings,
    pub(crate) groups: Vec<GroupReport>,
    pub(crate) board: Board,
    pub(crate) bars: Bars,
}

impl Report {
    /// The audit's four, the groups' own, and the producer's.
    pub(crate) fn mismatches(&self) -> u64 {
        self.audit.sum() + self.misplaced + self.groups.iter().map(|g| g.mismatches).sum::<u64>()
    }

    /// The text for standard output; its last two lines are the verdict.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes everything");
        text
    }

    fn write(&self, to: &mut String) -> std::fmt::Result {
        self.write_bars(to)?;
        let per_second = |count: u64, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        let (appended, seconds) = (self.appended, self.appending.as_secs_f64());
        let rate = per_second(appended, self.appending);
        writeln!(to, "appended    {appended} records in {seconds:.2} s: {rate:.0}/s")?;
        let out = self.out();
        let (seconds, rate) = (self.running.as_secs_f64(), per_second(out, self.running));
        writeln!(to, "delivered   {out} records in {seconds:.2} s: {rate:.0}/s")?;
        writeln!(to, "append      {}", self.append.line())?;
        writeln!(to, "end to end  {}", self.end_to_end.line())?;
        if !self.behind.is_zero() {
            writeln!(to, "pace        at most {:.1?} behind", self.behind)?;
        }
        writeln!(to, "bytes       {} in, {} on disk", mib(self.appended_bytes), mib(self.disk_bytes))?;
        let lag: Vec<String> = self.groups.iter().map(|g| format!("{} {}", g.name, g.lag)).collect();
        writeln!(to, "lag         {}", lag.join(", "))?;
        if let Some(bytes) = self.peak_memory_bytes {
            writeln!(to, "memory      {} at the peak", mib(bytes))?;
        }
        for group in self.groups.iter().filter(|g| g.mismatches > 0) {
            writeln!(to, "mismatches  {} of group {}", group.mismatches, group.name)?;
        }
        if self.misplaced > 0 {
            writeln!(to, "mismatches  {} deliveries with another partition or offset", self.misplaced)?;
        }
        let Findings { missing, duplicated, reordered, altered } = self.audit;
        let stored = self.stored;
        writeln!(
            to,
            "audit stored={stored} missing={missing} duplicated={duplicated} reordered={reordered} altered={altered}"
        )?;
        let mismatches = self.mismatches();
        let verdict = if mismatches == 0 { "ok" } else { "failed" };
        writeln!(to, "{verdict} in={appended} out={out} groups={} mismatches={mismatches}", self.groups.len())
    }

    /// The last bar of each symbol, beside its last price.
    fn write_bars(&self, to: &mut String) -> std::fmt::Result {
        writeln!(
            to,
            "{:<10} {:<16} {:>12} {:>12} {:>12} {:>12} {:>12} {:>16} {:>12}",
            "symbol", "last bar", "open", "high", "low", "close", "volume", "vwap", "last price"
        )?;
        for (symbol, series) in &self.bars.symbols {
            let Some((minute, bar)) = series.bars.last_key_value() else { continue };
            let text = |d: Option<super::decimal::Decimal>| d.map_or("-".to_owned(), |d| d.to_string());
            let price = self.board.lines.get(symbol).map_or("-", |line| line.price.as_str());
            writeln!(
                to,
                "{symbol:<10} {:<16} {:>12} {:>12} {:>12} {:>12} {:>12} {:>16} {price:>12}",
                minute_text(*minute),
                bar.open,
                bar.high,
                bar.low,
                bar.close,
                text(bar.volume),
                text(bar.vwap()),
            )?;
        }
        Ok(())
    }

    fn out(&self) -> u64 {
        self.groups.iter().map(|g| g.out).sum()
    }
}

/// `2023-12-24 13:00` of nanoseconds since the Unix epoch, UTC.
fn minute_text(nanos: i64) -> String {
    let minutes = nanos.div_euclid(60_000_000_000);
    let (days, minute) = (minutes.div_euclid(1_440), minutes.rem_euclid(1_440));
    let (mut year, mut day) = (1970, days);
    let length = |y: i64| 365 + i64::from(y % 4 == 0 && (y % 100 != 0 || y % 400 == 0));
    while day < 0 {
        year -= 1;
        day += length(year);
    }
    while day >= length(year) {
        day -= length(year);
        year += 1;
    }
    let months = [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    format!("{year:04}-{:02}-{:02} {:02}:{:02}", month + 1, day + 1, minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let group = |name| GroupReport { name, out: 10, mismatches: 0, lag: 0 };
        Report {
            appended: 10,
            appended_bytes: 1_000,
            misplaced: 0,
            appending: Duration::from_secs(1),
            running: Duration::from_secs(2),
            append: Latency::new(),
            end_to_end: Latency::new(),
            behind: Duration::ZERO,
            stored: 20,
            disk_bytes: 4_096,
            peak_memory_bytes: Some(1 << 20),
            audit: Findings::default(),
            groups: vec![group("board"), group("bars"), group("audit")],
            board: Board::default(),
            bars: Bars::default(),
        }
    }

    #[test]
    fn ends_with_the_verdict() {
        let text = report().text();
        let end = "audit stored=20 missing=0 duplicated=0 reordered=0 altered=0\nok in=10 out=30 groups=3 mismatches=0\n";
        assert!(text.ends_with(end), "{text}");
        let mut bad = report();
        bad.audit.missing = 2;
        bad.groups[1].mismatches = 3;
        assert!(bad.text().ends_with("\nfailed in=10 out=30 groups=3 mismatches=5\n"), "{}", bad.text());
    }

    #[test]
    fn tells_the_minute() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00"),
            (1_703_422_805, "2023-12-24 13:00"),
            (1_709_251_199, "2024-02-29 23:59"),
            (1_709_251_200, "2024-03-01 00:00"),
            (-60, "1969-12-31 23:59"),
        ] {
            assert_eq!(minute_text(seconds * 1_000_000_000), text);
        }
    }
}
