//! What the three consumer groups have in common: what is delivered to them, and their check on its offsets.

/// A record as a group sees it, with the two headers already read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivered<'a> {
    pub(crate) partition: u32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) timestamp: i64,
    /// Header `n`; `None` where the headers are not exactly `n` and `sent`, eight bytes each.
    pub(crate) n: Option<u64>,
}

/// What a group does with a record. Answers whether it could make sense of it.
pub(crate) trait Job {
    fn take(&mut self, record: &Delivered<'_>) -> bool;
}

/// Follows a group through its partitions: every offset once, in order, without a hole.
///
/// The topic has neither transactions nor compaction, so a hole is a loss.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    next: Vec<u64>,
    pub(crate) mismatches: u64,
}

impl Order {
    /// From the offset that each partition is to go on with.
    pub(crate) fn new(next: Vec<u64>) -> Self {
        Order { next, mismatches: 0 }
    }

    /// Takes note of one delivery.
    pub(crate) fn see(&mut self, partition: u32, offset: u64) {
        match self.next.get_mut(partition as usize) {
            Some(next) if offset >= *next => {
                self.mismatches += offset - *next;
                *next = offset + 1;
            }
            // Delivered again, or from nowhere.
            _ => self.mismatches += 1,
        }
    }

    /// Whether everything below `ends` has been delivered.
    pub(crate) fn reached(&self, ends: &[u64]) -> bool {
        self.behind(ends) == 0
    }

    /// How many records below `ends` have not been delivered.
    pub(crate) fn behind(&self, ends: &[u64]) -> u64 {
        self.next.iter().zip(ends).map(|(next, end)| end.saturating_sub(*next)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_holes_and_repeats() {
        let mut order = Order::new(vec![5, 0]);
        order.see(0, 5);
        order.see(1, 0);
        order.see(0, 6);
        assert_eq!((order.mismatches, order.behind(&[7, 3])), (0, 2));
        order.see(0, 9);
        assert_eq!(order.mismatches, 2, "7 and 8 are missing");
        order.see(0, 7);
        assert_eq!(order.mismatches, 3, "7 came late");
        order.see(2, 0);
        assert_eq!(order.mismatches, 4, "there is no partition 2");
        assert!(order.reached(&[10, 1]) && !order.reached(&[10, 2]));
    }
}
