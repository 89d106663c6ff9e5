//! The staging file of a log, mapped: who gets which granules of it. What their bytes are is the matter of `chunk`, which alone
//! makes memory of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapRaw;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::disk::Disk;
use crate::storage::file::RawFile;
use crate::storage::granules::Granules;
use crate::storage::slot::GRANULE;

/// A staging file that is mapped and handed out by granules.
///
/// ```text
///   0         4096        8192        12288
///   ├──────────┼───────────┼───────────┼╌╌╌
///   │ head     │ granule 0 │ granule 1 │
///   └──────────┴───────────┴───────────┴╌╌╌
/// ```
pub(crate) struct Mapping {
    pub(super) raw: MmapRaw,
    /// What the headers of its slots are bound to, beside their positions.
    pub(super) key: u64,
    pub(super) granules: Mutex<Granules>,
    /// No granule from here on has been populated.
    warm: AtomicUsize,
}

impl Mapping {
    /// Bytes before the first granule.
    pub(crate) const HEAD: usize = 4096;

    /// Creates the file at `path`, which must not exist, with all its blocks allocated, so that a full disk is
    /// an error here and never a signal later; writes `head` and maps it. On failure nothing is left.
    pub(crate) fn create(
        disk: &dyn Disk,
        path: &Path,
        head: &[u8],
        granules: usize,
        key: u64,
        flush: bool,
    ) -> Result<Arc<Mapping>> {
        let len = granules.checked_mul(GRANULE).and_then(|n| n.checked_add(Mapping::HEAD));
        let Some(len) = len.filter(|_| granules > 0 && head.len() <= Mapping::HEAD) else {
            return Err(
                Error::new(ErrorKind::InvalidArgument, "no such size of a staging file").at_path(path)
            );
        };
        let file = disk.create_new(path).map_err(|e| Error::io("create the staging file", path, e))?;
        Mapping::fill(&*file, head, len, flush)
            .map(|raw| {
                Arc::new(Mapping {
                    raw,
                    key,
                    granules: Mutex::new(Granules::new(granules)),
                    warm: AtomicUsize::new(0),
                })
            })
            .map_err(|e| {
                // Nothing better can be done about a failure to clean up than to report the first one.
                let _ = disk.remove_file(path);
                Error::io("allocate the staging file", path, e)
            })
    }

    fn fill(file: &dyn RawFile, head: &[u8], len: usize, flush: bool) -> std::io::Result<MmapRaw> {
        file.fill(len as u64)?;
        let mut done = 0;
        while done < head.len() {
            match file.write_at(&head[done..], done as u64) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if flush {
            file.sync_data()?;
        }
        file.map(len)
    }

    /// Where granule `index` begins in the file.
    pub(crate) fn position(index: usize) -> usize {
        Mapping::HEAD + index * GRANULE
    }

    /// Gets pages for `ahead` granules behind the last that a busy partition had, many in one system call, where an
    /// appender would pay for them one fault at a time. What the pages hold stays as it is.
    pub(crate) fn populate(&self, ahead: usize) {
        let (last, all) = {
            let granules = self.granules.lock();
            (granules.reached(), granules.count())
        };
        let to = all.min(last + ahead);
        let from = self.warm.fetch_max(to, Ordering::Relaxed).max(last);
        if from < to {
            self.make_writable(Mapping::position(from), (to - from) * GRANULE);
        }
    }

    /// Has pages there that can be written to without a fault. What they hold stays as it is.
    pub(super) fn make_writable(&self, position: usize, len: usize) {
        // An older kernel refuses: then pages come when they are touched.
        #[cfg(target_os = "linux")]
        let _ = self.raw.advise_range(memmap2::Advice::PopulateWrite, position, len);
    }

    /// Whether there are granules that nobody has used or populated yet.
    pub(crate) fn is_cold(&self) -> bool {
        self.warm.load(Ordering::Relaxed) < self.granules.lock().count()
    }

    /// Called by the `Memory` that owns them, as its last act.
    pub(super) fn release(&self, first: usize, granules: usize) {
        self.granules.lock().release(first, granules);
    }

    /// Whether nobody owns a granule.
    pub(crate) fn is_idle(&self) -> bool {
        self.granules.lock().is_idle()
    }

    /// Bytes that can be handed out.
    pub(crate) fn capacity(&self) -> usize {
        self.granules.lock().count() * GRANULE
    }
}

/// How many flushes are under way, in a word of a staging file's head (see `witness.rs`). It has a mapping of its own, so
/// that who counts keeps no slots.
#[derive(Debug)]
pub(crate) struct FlushCount(pub(super) MmapRaw);

impl FlushCount {
    /// Where the word stands in the file.
    pub(crate) const AT: usize = 64;

    /// Maps the head of the staging file at `path`, which this process made.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<FlushCount> {
        let failed = |e| Error::io("map the head of the staging file", path, e);
        let file = disk.open(path, true).map_err(failed)?;
        if file.len().map_err(failed)? < Mapping::HEAD as u64 {
            return Err(Error::new(ErrorKind::CorruptRecord, "the staging file was cut").at_path(path));
        }
        file.map(Mapping::HEAD).map(FlushCount).map_err(failed)
    }

    pub(crate) fn begin(&self) {
        self.word().fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn end(&self) {
        self.word().fetch_sub(1, Ordering::AcqRel);
    }
}
