//! Where records lie in a chunk: the place of one in so many, for readers who want a number of them, or the one with an
//! offset, and do not want to look at each frame before it.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::frame::FIXED;

/// One record in so many is marked.
pub(crate) const EVERY: usize = 16;

/// For each number of records that divides by [`EVERY`], a position in the chunk with as many records before it; 0 where
/// there is none yet.
///
/// The writer marks what it has staged, so a mark may lie where nothing is published: a reader believes those that lie below
/// the published end as he loaded it *before*. That load orders the marks as it does the bytes.
pub(crate) struct Marks(Box<[AtomicU32]>);

impl Marks {
    /// None yet, for a chunk of `len` bytes.
    pub(crate) fn new(len: usize) -> Marks {
        Marks((0..=len / FIXED / EVERY).map(|_| AtomicU32::new(0)).collect())
    }

    /// The position with `index * EVERY` records before it, 0 where it is not known.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> usize {
        self.0.get(index).map_or(0, |mark| mark.load(Ordering::Relaxed) as usize)
    }

    /// Marks `position`, which has `records` before it.
    #[allow(clippy::cast_possible_truncation)] // a chunk has at most 1 GiB
    #[inline]
    pub(crate) fn set(&self, records: usize, position: usize) {
        if records.is_multiple_of(EVERY)
            && let Some(mark) = self.0.get(records / EVERY)
        {
            mark.store(position as u32, Ordering::Relaxed);
        }
    }

    /// Takes back the marks from `records` on up to `to`.
    pub(crate) fn clear(&self, records: usize, to: usize) {
        (records..=to).for_each(|records| self.set(records, 0));
    }

    /// The largest index above `low` and up to `high` that `fits`, where all before one that fits do so too; else `low`.
    pub(crate) fn last(mut low: usize, mut high: usize, fits: impl Fn(usize) -> bool) -> usize {
        if high <= low || fits(high) {
            return high.max(low);
        }
        while high - low > 1 {
            let middle = low.midpoint(high);
            if fits(middle) { low = middle } else { high = middle }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_fits_is_found() {
        for (low, high) in [(0, 0), (3, 1), (0, 1), (2, 9), (0, 100)] {
            for fitting in 0..=high {
                let found = Marks::last(low, high, |mark| mark <= fitting);
                assert_eq!(found, if high <= low { low.max(high) } else { fitting.max(low) });
            }
        }
    }

    #[test]
    fn a_mark_that_is_taken_back_is_none() {
        let marks = Marks::new(64 * FIXED);
        (0..64).for_each(|records| marks.set(records, 1000 + records));
        assert_eq!((marks.get(1), marks.get(3)), (1000 + EVERY, 1000 + 3 * EVERY));
        marks.clear(EVERY + 1, 64);
        assert_eq!((marks.get(1), marks.get(2), marks.get(3), marks.get(1 << 40)), (1000 + EVERY, 0, 0, 0));
    }
}
