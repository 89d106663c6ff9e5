//! Tests of reading in order: the bounds of a run, and what lies ahead of it.

use crate::partition::cursor::*;
use crate::partition::records::Identity;
use crate::segment::bench::{Bench, CLEAN, block_at};
use crate::topic_partition::TopicPartition;

/// A partition that is one block with records at these offsets, sealed; read up to `limit` from `cursor` on, at most
/// `max_records` and `max_bytes` at a time: the number of records of each run, and where the cursor stands then.
struct Cold {
    bench: Bench,
    identity: Arc<Identity>,
    chain: Chain,
    start: u64,
}

impl Cold {
    fn new(offsets: &[u64]) -> Cold {
        let bench = Bench::new();
        let mut writer = bench.writer(offsets[0]);
        let block = block_at(&writer, offsets, 100, 0, false);
        writer.append_one(&block).unwrap();
        writer.seal().unwrap();
        let chain = Chain::new(vec![bench.open(offsets[0], CLEAN)]);
        let identity = Arc::new(Identity { topic_id: 7, tp: TopicPartition::new("ticks", 3) });
        Cold { bench, identity, chain, start: offsets[0] }
    }

    fn with<T>(&self, limit: u64, read: impl FnOnce(&Store<'_>) -> T) -> T {
        let (tail, codecs) = (Tail::new(), Codecs::default());
        let _ = &self.bench;
        read(&Store {
            identity: &self.identity,
            tail: &tail,
            chain: &self.chain,
            codecs: &codecs,
            start: self.start,
            limit,
        })
    }

    fn runs(&self, cursor: &mut Cursor, limit: u64, records: usize, bytes: usize) -> Vec<(usize, u64)> {
        self.with(limit, |store| {
            let mut runs = Vec::new();
            while let Some(run) = cursor.fetch(store, records, bytes).unwrap() {
                runs.push((run.count, cursor.position()));
            }
            runs
        })
    }
}

#[test]
fn a_block_is_taken_whole_or_within_every_bound() {
    let cold = Cold::new(&(0..10).collect::<Vec<_>>());
    let (all, frame) = (usize::MAX, 136);
    let runs = |from, limit, records, bytes| cold.runs(&mut Cursor::new(from), limit, records, bytes);
    assert_eq!(runs(0, 10, all, all), [(10, 10)]);
    assert_eq!(runs(4, 10, all, all), [(6, 10)], "what lies before is no part of it");
    assert_eq!(runs(0, 7, all, all), [(7, 7)]);
    assert_eq!(runs(0, 10, 4, all), [(4, 4), (4, 8), (2, 10)]);
    assert_eq!(runs(0, 10, 5, all), [(5, 5), (5, 10)]);
    assert_eq!(runs(0, 10, all, 6 * frame), [(6, 6), (4, 10)]);
    assert_eq!(runs(8, 10, all, 1), [(1, 9), (1, 10)], "one at least");
}

/// A limit between two records of a block, with a hole before it, had a reader go round for ever.
#[test]
fn a_limit_in_a_hole_ends_the_reading() {
    let cold = Cold::new(&[5, 9]);
    let mut cursor = Cursor::new(5);
    assert_eq!(cold.runs(&mut cursor, 8, 99, 9999), [(1, 6)]);
    assert_eq!(cold.runs(&mut cursor, 8, 99, 9999), []);
    assert_eq!(cold.runs(&mut cursor, 10, 99, 9999), [(1, 10)]);
}

#[test]
fn what_lies_ahead_is_passed_over_as_far_as_it_was_read() {
    let cold = Cold::new(&[0, 1, 2, 7]);
    let mut cursor = Cursor::new(1);
    cold.with(8, |store| {
        let all = cursor.ahead(store).unwrap().unwrap();
        assert_eq!(all.bytes().len(), 3 * 136);
        cursor.advance(136, 1, 2);
        assert_eq!(cursor.ahead(store).unwrap().unwrap().bytes(), &all.bytes()[136..]);
        let run = cursor.fetch(store, 1, usize::MAX).unwrap().unwrap();
        assert_eq!((run.count, cursor.position()), (1, 3));
        cursor.advance(136, 1, 8);
        assert!(cursor.ahead(store).unwrap().is_none());
        assert_eq!(cursor.position(), 8);
    });
}
