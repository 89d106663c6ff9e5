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
