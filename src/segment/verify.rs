//! Payloads of a segment against their checksums: by stretches, on as many threads as there are processors.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::block::{self, BlockHeader};
use crate::error::Result;
use crate::segment::blocks::{Blocks, Step, Walk};
use crate::storage::file::File;
use crate::storage::threads;

/// The least length of a stretch.
const STRETCH: u64 = 4 * 1024 * 1024;

/// Blocks of a segment, from one to before another.
pub(crate) struct Stretch {
    /// Where it begins, and below which no offset may lie there.
    from: u64,
    low: u64,
    to: u64,
    /// Nothing in it needs to be verified any more.
    proved: AtomicBool,
}

impl Stretch {
    fn new((from, low): (u64, u64)) -> Self {
        Stretch { from, low, to: u64::MAX, proved: AtomicBool::new(false) }
    }

    /// Whether all payloads in it are good; one that cannot be read is not.
    fn is_good(&self, blocks: Blocks<'_>, payload: &mut Vec<u8>) -> Result<bool> {
        let mut walk = Walk::new(blocks, self.from, self.low);
        while walk.place().0 < self.to {
            match walk.step()? {
                Some(Step::Block(h)) if !payload_is_good(walk.blocks().file, &h, payload)? => {
                    return Ok(false);
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(true)
    }
}

/// All of a segment, in stretches.
pub(crate) struct Stretches(Vec<Stretch>);

impl Stretches {
    /// Begins at a place of a [`Walk`].
    pub(crate) fn begin(place: (u64, u64)) -> Self {
        Stretches(vec![Stretch::new(place)])
    }

    /// Tells of a place that the walk came to.
    pub(crate) fn reach(&mut self, place: (u64, u64)) {
        if let Some(last) = self.0.last_mut()
            && place.0 - last.from >= STRETCH
        {
            last.to = place.0;
            self.0.push(Stretch::new(place));
        }
    }

    /// Verifies what lies at or behind `from`, and takes what lies before it for good. A stretch with a bad payload is left
    /// to whoever walks it next, to find out which it is.
    pub(crate) fn verify<'a>(&self, blocks: impl Fn() -> Blocks<'a> + Sync, from: u64) {
        for stretch in &self.0 {
            stretch.proved.store(stretch.to <= from || from == u64::MAX, Ordering::Relaxed);
        }
        let open: Vec<&Stretch> = self.0.iter().filter(|s| !s.proved.load(Ordering::Relaxed)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut payload = Vec::new();
            while let Some(stretch) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                let good = stretch.is_good(blocks(), &mut payload).unwrap_or(false);
                stretch.proved.store(good, Ordering::Relaxed);
            }
        };
        // How many processors there are is found out by a dozen system calls: too many for each small partition of an open.
        let processors =
            if open.len() > 1 { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
        std::thread::scope(|scope| {
            for _ in 1..processors.min(open.len()) {
                // Without a further thread it only takes longer.
                let _ = threads::spawn_scoped(scope, "tapelog-verify", work);
            }
            work();
        });
    }

    /// Whether the payload of the block at `position` is known to be good, or need not be looked at.
    pub(crate) fn proved(&self, position: u64) -> bool {
        let at = self.0.partition_point(|s| s.to <= position);
        self.0.get(at).is_some_and(|s| s.proved.load(Ordering::Relaxed))
    }
}

pub(crate) fn payload_is_good(file: &File, h: &BlockHeader, payload: &mut Vec<u8>) -> Result<bool> {
    payload.resize(h.stored_len as usize, 0);
    let got = file.read_at_most(payload, h.position + block::HEADER as u64)?;
    Ok(got == payload.len() && crc32fast::hash(payload) == h.payload_crc)
}
