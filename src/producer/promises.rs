//! The promises of a producer that may be open: what a flush waits for, and what is in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Deadline;
use crate::error::Result;
use crate::partition::core::PartitionCore;
use crate::partition::write_behind::refuse_in_callback;

/// So many stretches of one partition are told apart; of more, neighbours count as one.
const MARKS: usize = 64;

/// Promises for the disk that were made and may be open, by topic id and partition.
#[derive(Default)]
pub(super) struct Promises(Mutex<BTreeMap<(u64, u32), Open>>);

/// Those of one partition.
struct Open {
    core: Arc<PartitionCore>,
    marks: VecDeque<Mark>,
}

/// Records that are kept once everything below an offset is.
struct Mark {
    next_offset: u64,
    records: u64,
    bytes: u64,
}

impl Open {
    /// Forgets what is kept.
    fn settle(&mut self, durable: u64) {
        while self.marks.front().is_some_and(|mark| mark.next_offset <= durable) {
            self.marks.pop_front();
        }
    }

    fn add(&mut self, mark: Mark) {
        if self.marks.len() == MARKS {
            self.halve();
        }
        // Threads that send at once come here in any order.
        let at = self.marks.partition_point(|m| m.next_offset < mark.next_offset);
        self.marks.insert(at, mark);
    }

    /// Joins each two neighbours: a promise then counts a little longer than it is open, and nothing grows.
    fn halve(&mut self) {
        let mut halved = VecDeque::with_capacity(MARKS);
        let mut marks = self.marks.drain(..);
        while let Some(first) = marks.next() {
            halved.push_back(match marks.next() {
                None => first,
                Some(second) => Mark {
                    next_offset: second.next_offset,
                    records: first.records + second.records,
                    bytes: first.bytes + second.bytes,
                },
            });
        }
        drop(marks);
        self.marks = halved;
    }
}

impl Promises {
    /// Notes that the disk was promised for a record of `bytes` in `core`, which ends before `next_offset`.
    pub(super) fn add(&self, core: &Arc<PartitionCore>, next_offset: u64, bytes: u64) {
        let identity = core.identity();
        let mut all = self.0.lock();
        let open = all
            .entry((identity.topic_id, identity.tp.partition()))
            .or_insert_with(|| Open { core: Arc::clone(core), marks: VecDeque::new() });
        open.settle(core.durable_offset());
        open.add(Mark { next_offset, records: 1, bytes });
    }

    /// How many records, and bytes of them, wait for the disk.
    pub(super) fn in_flight(&self) -> (u64, u64) {
        let mut all = self.0.lock();
        let mut sum = (0, 0);
        for open in all.values_mut() {
            open.settle(open.core.durable_offset());
            for mark in &open.marks {
                sum = (sum.0 + mark.records, sum.1 + mark.bytes);
            }
        }
        sum
    }

    /// Waits until every promise made so far is kept; the first that cannot be is the error. One that may be kept later
    /// stays.
    pub(super) fn keep(&self, deadline: Deadline) -> Result<()> {
        let open: Vec<_> = {
            let mut all = self.0.lock();
            all.retain(|_, open| {
                open.settle(open.core.durable_offset());
                !open.marks.is_empty()
            });
            let target = |open: &Open| open.marks.back().map_or(0, |last| last.next_offset);
            all.iter().map(|(key, open)| (*key, Arc::clone(&open.core), target(open))).collect()
        };
        if open.is_empty() {
            return Ok(());
        }
        refuse_in_callback("flush")?;
        let mut first = Ok(());
        for (key, core, target) in open {
            let kept = core.wait_durable(target, deadline);
            if !kept.as_ref().is_err_and(|e| e.is_retriable())
                && let Some(open) = self.0.lock().get_mut(&key)
            {
                open.settle(target);
            }
            first = first.and(kept);
        }
        first
    }
}
