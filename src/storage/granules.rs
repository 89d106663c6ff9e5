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

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL_ONE: usize = SMALL / GRANULE;
    const COUNT: usize = 20 * SMALL_ONE;
    /// Of a page, up to the longest that is small, and longer ones.
    const LENGTHS: [usize; 6] = [1, 4, SMALL_ONE, SMALL_ONE + 1, 2 * SMALL_ONE, 4 * SMALL_ONE];

    /// Every place that is aligned and free, in order.
    fn places(taken: &[bool], count: usize) -> impl DoubleEndedIterator<Item = usize> {
        (0..taken.len() / count)
            .map(move |n| n * count)
            .filter(move |at| !taken[*at..at + count].contains(&true))
    }

    /// Against looking at every place each time. A shortcut that goes too far hides room that is there.
    #[test]
    fn whatever_is_given_back_is_found_again() {
        let mut granules = Granules::new(COUNT);
        let mut taken = vec![false; COUNT];
        let mut slots: Vec<(usize, usize)> = Vec::new();
        let (mut reached, mut refused) = (0, 0);
        let mut state = 7u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = (state >> 33) as usize;
            // More is taken than given back, so that it is full now and then, and one time in a hundred all comes back.
            if random % 5 < 3 {
                let count = LENGTHS[random / 5 % LENGTHS.len()];
                let small = count <= SMALL_ONE;
                let expected =
                    if small { places(&taken, count).next_back() } else { places(&taken, count).next() };
                assert_eq!(granules.take(count), expected);
                if let Some(first) = expected {
                    taken[first..first + count].fill(true);
                    slots.push((first, count));
                    reached = if small { reached } else { reached.max(first + count) };
                }
                refused += usize::from(expected.is_none());
            } else {
                let gone = if random % 100 == 99 { slots.len() } else { slots.len().min(1) };
                for _ in 0..gone {
                    let (first, count) = slots.swap_remove(random / 100 % slots.len());
                    taken[first..first + count].fill(false);
                    granules.release(first, count);
                }
            }
            assert_eq!((granules.reached(), granules.count()), (reached, COUNT));
            assert_eq!(granules.is_idle(), slots.is_empty());
        }
        assert!(refused > 1_000 && reached > COUNT / 2, "{refused} {reached}");
        assert_eq!((granules.take(0), granules.take(COUNT + 1)), (None, None));
    }
}
