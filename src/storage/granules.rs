//! Which granules of a staging file are taken: small slots from its end, all others from its beginning.

use crate::storage::slot::{GRANULE, SMALL};

/// Who owns what of a mapping.
pub(crate) struct Granules {
    /// For each granule, whether somebody owns it.
    taken: Vec<bool>,
    /// All below this are taken, and all from `high` on.
    low: usize,
    high: usize,
    reached: usize,
}

impl Granules {
    /// All of them free.
    pub(crate) fn new(count: usize) -> Self {
        Granules { taken: vec![false; count], low: 0, high: count, reached: 0 }
    }

    /// Finds `count` neighbours that are free and aligned to their own number, and takes them.
    pub(crate) fn take(&mut self, count: usize) -> Option<usize> {
        let last = self.taken.len().checked_sub(count).filter(|_| count > 0)?;
        let free = |first: &usize| self.taken[*first..*first + count].iter().all(|taken| !taken);
        let first = if count * GRANULE <= SMALL {
            (0..self.high / count).rev().map(|n| n * count).find(free)?
        } else {
            (self.low.next_multiple_of(count)..=last).step_by(count).find(free)?
        };
        self.taken[first..first + count].fill(true);
        let end = first + count;
        if self.high == end {
            self.high = first;
        }
        if self.low == first {
            self.low = end;
        }
        if count * GRANULE > SMALL {
            self.reached = self.reached.max(end);
        }
        Some(first)
    }

    /// Gives back what was taken.
    pub(crate) fn release(&mut self, first: usize, count: usize) {
        self.taken[first..first + count].fill(false);
        self.low = self.low.min(first);
        self.high = self.high.max(first + count);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.taken.len()
    }

    /// Whether all are free.
    pub(crate) fn is_idle(&self) -> bool {
        self.taken.iter().all(|taken| !taken)
    }

    /// Where the highest of the slots ended that were handed out from the beginning.
    pub(crate) fn reached(&self) -> usize {
        self.reached
    }
}
