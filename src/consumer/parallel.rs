//! Work on many threads, in order per key, with commits that never run ahead of what is done.
//!
//! ```text
//!            poll                        key picks the worker
//!  consumer ─────► one thread hands out ──┬─► worker 0 ──┐
//!                   │ commits below the   ├─► worker 1 ──┼─► done: partition, offset
//!                   │ lowest unfinished   └─► worker 2 ──┘         │
//!                   └──────────────────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use crate::consumer::builder::ConsumerBuilder;
use crate::consumer::handle::ConsumerHandle;
use crate::consumer::listener::{Rebalance, RebalanceListener};
use crate::consumer::poll::Consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::records::{ConsumerRecord, OwnedRecord};
use crate::storage::threads;
use crate::topic_partition::TopicPartition;

/// How many records may be with the workers, for each of them, before the consumer waits.
const AHEAD: usize = 256;
/// How long the consumer waits for room before it shows the group that it is alive.
const PULSE: Duration = Duration::from_millis(100);

/// Runs a closure for every record of a group's topics, on several threads.
///
/// Records with the same key are worked on one after another, in their order; those without a key go to whichever
/// worker is next. A partition's committed offset never passes a record that is not done, so after a crash nothing was
/// skipped, and what was done above that offset is done again. A partition that goes to another member goes when its
/// records are done. (Source of the idea: Confluent's Parallel Consumer.)
///
/// ```
/// use tapelog::{Log, Record, TopicConfig, consumer::Parallel};
///
/// let log = Log::in_memory()?;
/// let ticks = log.create_topic("ticks", TopicConfig::new())?;
/// ticks.partition(0)?.append(Record::new("150.23").key("AAPL"))?;
///
/// let parallel = Parallel::new(4);
/// let stop = parallel.handle();
/// parallel.run(log.consumer_group("risk")?.consumer(), ["ticks"], |record| {
///     println!("{:?} of {:?}", record.value(), record.key());
///     stop.stop();
///     Ok::<(), std::io::Error>(())
/// })?;
/// let committed = log.consumer_group("risk")?.committed(&tapelog::TopicPartition::new("ticks", 0))?;
/// assert_eq!(committed, Some(1));
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Debug)]
pub struct Parallel {
    threads: usize,
    handle: ParallelHandle,
}

/// Stops a [`Parallel`] from any thread, its own workers included; cheap to clone.
#[derive(Clone, Default)]
pub struct ParallelHandle {
    shared: Arc<Stop>,
}

#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    consumer: Mutex<Option<ConsumerHandle>>,
}

impl ParallelHandle {
    /// Has the run end: what is with the workers is finished and committed, nothing more is begun.
    pub fn stop(&self) {
        self.shared.asked.store(true, Ordering::Release);
        if let Some(consumer) = &*self.shared.consumer.lock() {
            consumer.wakeup();
        }
    }

    fn asked(&self) -> bool {
        self.shared.asked.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for ParallelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParallelHandle").field("stopped", &self.asked()).finish()
    }
}

impl Parallel {
    /// With so many workers; at least one.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Parallel { threads: threads.max(1), handle: ParallelHandle::default() }
    }

    /// What stops the run.
    #[must_use]
    pub fn handle(&self) -> ParallelHandle {
        self.handle.clone()
    }

    /// Subscribes a consumer to `topics` and calls `work` for each record, until somebody stops it; returns how many
    /// records were done.
    ///
    /// The builder's listener is replaced, as partitions must wait for their workers before they go; automatic commit is
    /// not needed. `work` runs on threads of its own, with no lock held; it may send, and stop the run.
    ///
    /// # Errors
    /// `UserCode`, with the record's partition and offset, where `work` failed or panicked: what other workers had
    /// begun is finished, and everything below the failed record is committed, it and what follows it is not.
    /// `Storage` where a thread cannot be started.
    /// Else those of [`Consumer::subscribe`], [`Consumer::poll`] and [`Consumer::commit_offsets`].
    pub fn run<T: Into<String>, E: Display>(
        self,
        consumer: ConsumerBuilder,
        topics: impl IntoIterator<Item = T>,
        work: impl Fn(&OwnedRecord) -> std::result::Result<(), E> + Sync,
    ) -> Result<u64> {
        let progress = Arc::new(Progress::default());
        let mut consumer = consumer.listener(Handover(Arc::clone(&progress))).subscribe(topics)?;
        *self.handle.shared.consumer.lock() = Some(consumer.handle());
        let result = std::thread::scope(|scope| {
            let workers = (0..self.threads).map(|_| {
                let (sender, records) = unbounded();
                let (progress, work) = (&progress, &work);
                threads::spawn_scoped(scope, "tapelog-work", move || progress.work_off(&records, work))?;
                Ok(sender)
            });
            let workers = workers.collect::<Result<Vec<Sender<OwnedRecord>>>>()?;
            // Ends with the senders, and with these the workers.
            let result = self.hand_out(&mut consumer, &progress, &workers);
            drop(workers);
            result
        });
        *self.handle.shared.consumer.lock() = None;
        let committed = progress.commit(|offsets| consumer.commit_offsets(offsets));
        let closed = consumer.close();
        let state = progress.state.lock();
        match &state.failed {
            Some(error) => Err(error.clone()),
            None => result.and(committed).and(closed).map(|()| state.done),
        }
    }

    /// Polls and hands out until it is to stop.
    fn hand_out(
        &self,
        consumer: &mut Consumer,
        progress: &Progress,
        workers: &[Sender<OwnedRecord>],
    ) -> Result<()> {
        let mut next = 0;
        loop {
            if self.handle.asked() || progress.has_failed() {
                return Ok(());
            }
            let full = !progress.wait_for_room(workers.len() * AHEAD);
            if full {
                // Still a member of the group, although it wants no more now. What it gets all the same is new to it.
                consumer.pause(&consumer.assignment())?;
            }
            let polled = consumer.poll(if full { Duration::ZERO } else { PULSE });
            if full {
                consumer.resume(&consumer.paused())?;
            }
            let Some(records) = unless_woken(polled)? else { continue };
            for record in &records {
                let worker = match record.key() {
                    Some(key) => crc32fast::hash(key) as usize % workers.len(),
                    None => {
                        next = (next + 1) % workers.len();
                        next
                    }
                };
                progress.begin(&record);
                // A worker ends with its sender only.
                let _ = workers[worker].send(record.into_owned());
            }
            progress.commit(|offsets| consumer.commit_offsets(offsets))?;
        }
    }
}

/// A wake-up is no error here: whoever woke the consumer has said why.
fn unless_woken<T>(polled: Result<T>) -> Result<Option<T>> {
    match polled {
        Ok(polled) => Ok(Some(polled)),
        Err(e) if e.kind() == ErrorKind::Wakeup => Ok(None),
        Err(e) => Err(e),
    }
}

/// What is with the workers, and what they have done.
#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    /// Some record was done, or the work failed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    parts: BTreeMap<TopicPartition, Part>,
    with_workers: usize,
    done: u64,
    failed: Option<Error>,
}

/// One partition: records that were handed out, from the lowest unfinished one on, and whether each is done.
#[derive(Default)]
struct Part {
    records: VecDeque<(u64, bool)>,
    /// The offset after the last record handed out.
    next: u64,
    /// What was committed, or is there to be read again.
    committed: u64,
}

impl Part {
    /// The offset of the lowest record that is not done.
    fn done_to(&self) -> u64 {
        self.records.front().map_or(self.next, |(offset, _)| *offset)
    }
}

impl Progress {
    fn begin(&self, record: &ConsumerRecord<'_>) {
        let mut state = self.state.lock();
        state.with_workers += 1;
        let offset = record.offset();
        let part = state
            .parts
            .entry(record.topic_partition().clone())
            .or_insert_with(|| Part { committed: offset, ..Part::default() });
        part.records.push_back((offset, false));
        part.next = offset + 1;
    }

    fn end(&self, record: &OwnedRecord, result: Option<std::result::Result<(), String>>) {
        let mut state = self.state.lock();
        state.with_workers -= 1;
        match result {
            Some(Ok(())) => {
                state.done += 1;
                let tp = TopicPartition::new(record.topic(), record.partition());
                if let Some(part) = state.parts.get_mut(&tp) {
                    if let Ok(at) = part.records.binary_search_by_key(&record.offset(), |(offset, _)| *offset)
                    {
                        part.records[at].1 = true;
                    }
                    while part.records.front().is_some_and(|(_, done)| *done) {
                        part.records.pop_front();
                    }
                }
            }
            Some(Err(why)) if state.failed.is_none() => {
                let error = Error::new(ErrorKind::UserCode, why)
                    .with_partition(record.topic(), record.partition())
                    .at_offset(record.offset());
                state.failed = Some(error);
            }
            _ => {}
        }
        drop(state);
        self.changed.notify_all();
    }

    fn has_failed(&self) -> bool {
        self.state.lock().failed.is_some()
    }

    /// Calls `work` for what comes until nothing comes any more; after a failure what comes is left undone.
    fn work_off<E: Display>(
        &self,
        records: &Receiver<OwnedRecord>,
        work: &(impl Fn(&OwnedRecord) -> std::result::Result<(), E> + Sync),
    ) {
        for record in records {
            let result =
                (!self.has_failed()).then(|| match catch_unwind(AssertUnwindSafe(|| work(&record))) {
                    Ok(done) => done.map_err(|e| format!("the work failed: {e}")),
                    Err(_) => Err("the work panicked".to_owned()),
                });
            self.end(&record, result);
        }
    }

    /// Waits until fewer than `most` records are with the workers; false where that took too long.
    fn wait_for_room(&self, most: usize) -> bool {
        let mut state = self.state.lock();
        while state.with_workers >= most && state.failed.is_none() {
            if self.changed.wait_for(&mut state, PULSE).timed_out() {
                return false;
            }
        }
        true
    }

    /// Commits how far the partitions have come since the last time.
    fn commit(&self, commit: impl FnOnce(Vec<(TopicPartition, u64)>) -> Result<()>) -> Result<()> {
        let moved = self.moved(|_| true);
        if moved.is_empty() {
            return Ok(());
        }
        commit(moved.clone())?;
        let mut state = self.state.lock();
        for (tp, offset) in moved {
            if let Some(part) = state.parts.get_mut(&tp) {
                part.committed = offset;
            }
        }
        Ok(())
    }

    fn moved(&self, which: impl Fn(&TopicPartition) -> bool) -> Vec<(TopicPartition, u64)> {
        let state = self.state.lock();
        let moved = state.parts.iter().filter(|(tp, part)| which(tp) && part.done_to() > part.committed);
        moved.map(|(tp, part)| (tp.clone(), part.done_to())).collect()
    }
}

/// Lets partitions go when their workers are done with them.
struct Handover(Arc<Progress>);

impl RebalanceListener for Handover {
    fn on_revoked(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        let mut state = self.0.state.lock();
        let busy = |state: &State| {
            partitions.iter().any(|tp| state.parts.get(tp).is_some_and(|part| !part.records.is_empty()))
        };
        while busy(&state) && state.failed.is_none() {
            self.0.changed.wait(&mut state);
        }
        drop(state);
        let moved = self.0.moved(|tp| partitions.contains(tp));
        let committed = if moved.is_empty() { Ok(()) } else { rebalance.commit_offsets(moved) };
        self.0.state.lock().parts.retain(|tp, _| !partitions.contains(tp));
        committed
    }

    fn on_lost(&mut self, _: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.0.state.lock().parts.retain(|tp, _| !partitions.contains(tp));
        Ok(())
    }
}

#[cfg(test)]
#[path = "parallel_tests.rs"]
mod tests;
