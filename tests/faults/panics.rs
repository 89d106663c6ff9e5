//! Code of the user's that panics where the library cannot be without it: the clock, and what is dropped. Codecs, partitioners,
//! interceptors, listeners and callbacks have their tests in `tests/callbacks.rs`, `tests/listeners.rs`, `tests/events.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tapelog::topic::TimestampType;
use tapelog::{Clock, Log, Partition, Record, Timestamp, TopicConfig};

use crate::damage::{SOON, place};
use crate::report::{Run, effort, run};

/// Says 1, 2, 3, and panics while it is told to.
#[derive(Default)]
struct Moody {
    said: AtomicU64,
    panics: AtomicBool,
    panicked: AtomicU64,
}

impl Clock for Moody {
    fn now(&self) -> Timestamp {
        if self.panics.load(Ordering::Acquire) {
            self.panicked.fetch_add(1, Ordering::AcqRel);
            panic!("what time is it?");
        }
        Timestamp::from_nanos(self.said.fetch_add(1, Ordering::AcqRel) as i64)
    }
}

fn check(run: &mut Run, partition: &Partition, expected: &[u64], what: &str) {
    let mut reader = partition.reader(0).unwrap();
    let mut found = Vec::new();
    loop {
        match reader.try_next() {
            Ok(Some(record)) => {
                found.push(u64::from_le_bytes(record.value().unwrap().try_into().unwrap()));
            }
            Ok(None) => break,
            Err(e) => return run.tally.wrong(|| format!("{what}: {e:?}")),
        }
    }
    run.tally.acked += expected.len() as u64;
    let there = |n: &&u64| found.contains(n);
    run.tally.lost(expected.len() as u64 - expected.iter().filter(there).count() as u64, || {
        format!("{what}: {found:?}")
    });
    if found.iter().any(|n| !expected.contains(n)) {
        run.tally.wrong(|| format!("{what}: {found:?}, not {expected:?}"));
    }
}

/// An append whose clock panics appends nothing; the next one does. A write-behind whose clock panics tells why it stopped, or
/// goes on; nobody hangs, and what was acknowledged is there after the next open.
#[test]
fn a_clock_that_panics() {
    run("25 a clock that panics, in appends and behind them", |run| {
        let mut random = run.random();
        for _ in 0..effort(10, 300) {
            let dir = place();
            let clock = Arc::new(Moody::default());
            let open = || {
                Log::builder()
                    .memory_budget(256 << 10)
                    .max_block(SOON)
                    .clock(Arc::clone(&clock))
                    .open(dir.path())
            };
            let log = open().unwrap();
            let config = TopicConfig::new().segment_bytes(400).block_linger(Duration::ZERO);
            let kinds = [TimestampType::Append, TimestampType::Create];
            let partitions: Vec<Partition> = kinds
                .iter()
                .enumerate()
                .map(|(n, kind)| {
                    let topic =
                        log.create_topic(&format!("t{n}"), config.clone().timestamp_type(*kind)).unwrap();
                    topic.partition(0).unwrap()
                })
                .collect();
            let mut acked = [Vec::new(), Vec::new()];
            for n in 0..60u64 {
                clock.panics.store(random.one_in(3), Ordering::Release);
                for (which, partition) in partitions.iter().enumerate() {
                    run.tally.cycles += 1;
                    let value = n.to_le_bytes();
                    let record = Record::new(&value[..]);
                    // With a time of its own it does not ask; then only the write-behind does, for a new segment.
                    let record =
                        if random.one_in(2) { record } else { record.timestamp(Timestamp::from_nanos(7)) };
                    let end = partition.end_offset();
                    match catch_unwind(AssertUnwindSafe(|| partition.append(record))) {
                        Ok(Ok(_)) => acked[which].push(n),
                        Ok(Err(e))
                            if e.to_string().contains("what time is it?")
                                || e.to_string().contains("panic") => {}
                        Ok(Err(e)) => run.tally.wrong(|| format!("append: {e:?}")),
                        Err(_) if partition.end_offset() != end => {
                            run.tally.wrong(|| "half an append".into())
                        }
                        Err(_) => {}
                    }
                }
            }
            clock.panics.store(false, Ordering::Release);
            for partition in &partitions {
                let end = partition.end_offset();
                if let Err(e) = partition.wait_written(end, SOON)
                    && !e.to_string().contains("panic")
                {
                    run.tally.wrong(|| format!("wait: {e:?}"));
                }
            }
            partitions.iter().zip(&acked).for_each(|(p, acked)| check(run, p, acked, "while it is open"));
            drop((partitions, log));
            let log = open().unwrap();
            for (n, acked) in acked.iter().enumerate() {
                let partition = log.topic(&format!("t{n}")).unwrap().partition(0).unwrap();
                check(run, &partition, acked, "after the next open");
            }
            assert!(clock.panicked.load(Ordering::Acquire) > 0);
        }
    });
}

/// Panics when it is dropped, unless a panic is under way.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

/// What the library was given to keep panics when it lets go of it: on the callback thread, and at the end of the log.
#[test]
fn what_panics_when_it_is_dropped() {
    run("25 callbacks, listeners and records that panic when dropped", |run| {
        for _ in 0..effort(5, 100) {
            let dir = place();
            let brittle = Brittle;
            let builder = Log::builder().memory_budget(256 << 10).on_event(move |_| {
                let _ = &brittle;
            });
            let log = builder.open(dir.path()).unwrap();
            let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
            let mut acked = Vec::new();
            let (told, heard) = std::sync::mpsc::channel();
            for n in 0..20u64 {
                run.tally.cycles += 1;
                let (told, brittle) = (told.clone(), Brittle);
                let delivery = partition.append(Record::new(&n.to_le_bytes()[..])).unwrap();
                acked.push(n);
                let registered = catch_unwind(AssertUnwindSafe(|| {
                    delivery.on_complete(move |_| {
                        told.send(n).unwrap();
                        let _brittle = brittle;
                    });
                }));
                drop(registered);
            }
            drop(told);
            let heard: Vec<u64> = heard.iter().collect();
            if heard != acked {
                run.tally.wrong(|| format!("{heard:?} were told"));
            }
            check(run, &partition, &acked, "after callbacks that panicked");
            partition.wait_durable(partition.end_offset(), SOON).unwrap();
            drop(partition);
            let closed = catch_unwind(AssertUnwindSafe(|| log.close(SOON)));
            if let Ok(Err(e)) = closed {
                run.tally.wrong(|| format!("close: {e:?}"));
            }
            let log = Log::builder().memory_budget(256 << 10).open(dir.path()).unwrap();
            let partition = log.topic("t").unwrap().partition(0).unwrap();
            check(run, &partition, &acked, "after the next open");
        }
    });
}
