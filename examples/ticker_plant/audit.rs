//! The audit: is what the directory holds what the source says, all of it, once, in order, unchanged?
//!
//! Record n of the directory is tick n of the source, for every n below the total that its runs have
//! promised, and it lies in the partition of its symbol, in the order of n. A record is taken by its header
//! `n`:
//!
//! | counted as | which records |
//! |---|---|
//! | altered | key, value, timestamp, headers or partition are not those of tick n; or it names no n below the total |
//! | duplicated | its n has been delivered before: each delivery after the first |
//! | reordered | delivered for the first time, but after a larger n of the same partition |
//! | missing | each n below the total that was never delivered |
//!
//! A record can be altered and, by the n that it bears, duplicated or reordered too. One whose n cannot be
//! read stands for no n, so the tick that it was to be counts as missing as well.
//!
//! Memory: one bit per record.

use super::feed::Texts;
use super::group::{Delivered, Job};
use super::source::Source;

/// What an audit found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) missing: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) altered: u64,
}

impl Findings {
    pub(crate) fn sum(&self) -> u64 {
        self.missing + self.duplicated + self.reordered + self.altered
    }
}

/// An audit in progress.
#[derive(Debug)]
pub(crate) struct Audit<'a> {
    source: &'a Source,
    total: u64,
    /// Bit n: tick n has been delivered.
    seen: Vec<u64>,
    distinct: u64,
    /// Per partition: one more than the largest n delivered so far.
    beyond: Vec<u64>,
    found: Findings,
    texts: Texts,
    json: Vec<u8>,
}

impl<'a> Audit<'a> {
    /// An audit of a directory that must end up with `total` ticks of `source` in `partitions` partitions.
    pub(crate) fn new(source: &'a Source, total: u64, partitions: u32) -> Self {
        Audit {
            source,
            total,
            seen: vec![0; total.div_ceil(64) as usize],
            distinct: 0,
            beyond: vec![0; partitions as usize],
            found: Findings::default(),
            texts: Texts::default(),
            json: Vec::new(),
        }
    }

    /// What was found, once everything has been delivered.
    pub(crate) fn findings(&self) -> Findings {
        Findings { missing: self.total - self.distinct, ..self.found }
    }

    fn is_tick(&mut self, n: u64, record: &Delivered<'_>) -> bool {
        let tick = self.source.tick(n, &mut self.texts);
        self.json.clear();
        tick.write(&mut self.json);
        record.value == Some(self.json.as_slice())
            && record.key == Some(tick.symbol.as_bytes())
            && Some(record.timestamp) == tick.nanos()
            && record.partition == self.source.partition(n, self.beyond.len() as u32)
    }
}

impl Job for Audit<'_> {
    fn take(&mut self, record: &Delivered<'_>) -> bool {
        let Some(n) = record.n.filter(|n| *n < self.total) else {
            self.found.altered += 1;
            return true;
        };
        if !self.is_tick(n, record) {
            self.found.altered += 1;
        }
        let (word, bit) = (&mut self.seen[(n / 64) as usize], 1 << (n % 64));
        if *word & bit != 0 {
            self.found.duplicated += 1;
            return true;
        }
        *word |= bit;
        self.distinct += 1;
        match self.beyond.get_mut(record.partition as usize) {
            Some(beyond) if n < *beyond => self.found.reordered += 1,
            Some(beyond) => *beyond = n + 1,
            None => {} // already altered
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source::Simulated { seed: 1 };
    const TOTAL: u64 = 1_000;

    /// What a directory holds of tick n, owned so that tests can spoil it.
    #[derive(Clone)]
    struct Held {
        partition: u32,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        timestamp: i64,
        n: Option<u64>,
    }

    fn held(n: u64) -> Held {
        let mut texts = Texts::default();
        let tick = SOURCE.tick(n, &mut texts);
        let mut value = Vec::new();
        tick.write(&mut value);
        Held {
            partition: SOURCE.partition(n, 4),
            key: Some(tick.symbol.into()),
            value: Some(value),
            timestamp: tick.nanos().expect("a number"),
            n: Some(n),
        }
    }

    fn all() -> Vec<Held> {
        (0..TOTAL).map(held).collect()
    }

    fn audit(records: &[Held]) -> (u64, u64, u64, u64) {
        let mut audit = Audit::new(&SOURCE, TOTAL, 4);
        for r in records {
            assert!(audit.take(&Delivered {
                partition: r.partition,
                key: r.key.as_deref(),
                value: r.value.as_deref(),
                timestamp: r.timestamp,
                n: r.n,
            }));
        }
        let f = audit.findings();
        assert_eq!(f.sum(), f.missing + f.duplicated + f.reordered + f.altered);
        (f.missing, f.duplicated, f.reordered, f.altered)
    }

    /// Two positions of one partition, the second the next of that partition after the first.
    fn neighbours(records: &[Held]) -> (usize, usize) {
        let first = 500;
        let next = (first + 1..).find(|i| records[*i].partition == records[first].partition).expect("one");
        (first, next)
    }

    #[test]
    fn passes_what_is_right_whatever_the_interleaving() {
        assert_eq!(audit(&all()), (0, 0, 0, 0));
        let mut by_partition = all();
        by_partition.sort_by_key(|r| std::cmp::Reverse(r.partition));
        assert_eq!(audit(&by_partition), (0, 0, 0, 0));
    }

    #[test]
    fn counts_missing_and_duplicated() {
        assert_eq!(audit(&[]), (TOTAL, 0, 0, 0));
        let mut records = all();
        records.remove(10);
        records.truncate(990);
        assert_eq!(audit(&records), (10, 0, 0, 0));
        let mut records = all();
        records.insert(11, held(10));
        records.push(held(10));
        assert_eq!(audit(&records), (0, 2, 0, 0));
        let twice = [all(), all()].concat();
        assert_eq!(audit(&twice), (0, TOTAL, 0, 0));
    }

    #[test]
    fn counts_reordered() {
        let mut records = all();
        let (a, b) = neighbours(&records);
        records.swap(a, b);
        assert_eq!(audit(&records), (0, 0, 1, 0));
        let mut records = all();
        let late = records.remove(3);
        records.push(late);
        assert_eq!(audit(&records), (0, 0, 1, 0));
    }

    #[test]
    fn counts_altered() {
        type Spoil = fn(&mut Held);
        let spoils: [(Spoil, u64); 8] = [
            (|r| r.value.as_mut().expect("a value")[20] ^= 1, 0),
            (|r| r.value.as_mut().expect("a value").push(b' '), 0),
            (|r| r.value = None, 0),
            (|r| r.key = None, 0),
            (|r| r.key = Some(b"XX".to_vec()), 0),
            (|r| r.timestamp += 1, 0),
            (|r| r.n = None, 1),
            (|r| r.n = Some(TOTAL), 1),
        ];
        for (i, (spoil, missing)) in spoils.into_iter().enumerate() {
            let mut records = all();
            spoil(&mut records[77]);
            assert_eq!(audit(&records), (missing, 0, 0, 1), "spoil {i}");
        }
        let mut records = all();
        records[TOTAL as usize - 1].partition ^= 1;
        assert_eq!(audit(&records), (0, 0, 0, 1), "in another partition");
        // A record that bears the n of another: that one is there twice, its own is missing.
        let mut records = all();
        records[77].n = Some(76);
        assert_eq!(audit(&records), (1, 1, 0, 1));
    }
}
