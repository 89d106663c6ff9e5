//! What a process used: processor time, and room on the disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;

/// User and system time of all threads so far.
pub fn cpu() -> Duration {
    // SAFETY: the structure is plain numbers, for which zeros are valid, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let of = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Waits until background threads have nothing left to do: 1 ms of work in 25 ms at most. Gives up after `limit`:
/// some never rest.
pub fn quiesce(limit: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        let before = cpu();
        std::thread::sleep(Duration::from_millis(25));
        if cpu() - before < Duration::from_millis(1) {
            return;
        }
    }
}

/// What the files under `dir` occupy on the disk: the blocks that are theirs, written or preallocated.
pub fn on_disk(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { on_disk(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(bytes)
}

/// What this process has in memory, mapped files included.
pub fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.ok_or("no VmRSS in /proc/self/status")? << 10)
}

/// What may still be written where `dir` lies.
pub fn room(dir: &Path) -> Result<u64> {
    let path = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(dir.as_os_str()))?;
    // SAFETY: the structure is plain numbers, for which zeros are valid; path and structure live through the call.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut stat) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        stat
    };
    Ok(stat.f_bavail * stat.f_frsize)
}

/// What this ran on, as one would tell it.
pub fn machine() -> String {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let processor = after(&text("/proc/cpuinfo"), "model name");
    let memory = after(&text("/proc/meminfo"), "MemTotal");
    let kib: u64 = memory.trim_end_matches("kB").trim().parse().unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = text("/proc/sys/kernel/osrelease");
    format!("{cores} cores ({processor}), {} GiB, Linux {}", (kib + (1 << 19)) >> 20, kernel.trim())
}

/// Today, as year-month-day in UTC.
pub fn day() -> String {
    let days = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs() / 86_400);
    date(days)
}

/// The date that many days after the first of January 1970.
fn date(mut days: u64) -> String {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn days_have_dates() {
        let dates = [0, 58, 59, 365 + 365 + 59, 20_088].map(super::date);
        assert_eq!(dates, ["1970-01-01", "1970-02-28", "1970-03-01", "1972-02-29", "2024-12-31"]);
    }
}
