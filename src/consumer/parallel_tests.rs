//! Tests of work on many threads: nothing skipped, in order per key, commits never ahead.

use std::collections::HashMap;
use std::io;
use std::sync::Barrier;

use crate::consumer::parallel::*;
use crate::log::Log;
use crate::log::catalog::TopicConfig;
use crate::record::Record;

const KEYS: u64 = 13;

/// A log whose topic `t` has this many partitions and records; keys repeat, values count.
fn log_of(partitions: u32, records: u64) -> Log {
    let log = Log::in_memory().unwrap();
    let topic = log.create_topic("t", TopicConfig::new().partitions(partitions)).unwrap();
    for n in 0..records {
        let partition = topic.partition((n % KEYS) as u32 % partitions).unwrap();
        partition.append(Record::new(&n.to_be_bytes()).key(&(n % KEYS).to_be_bytes())).unwrap();
    }
    log
}

fn number(record: &OwnedRecord) -> u64 {
    u64::from_be_bytes(record.value().unwrap().try_into().unwrap())
}

/// What the group has committed in all partitions together.
fn committed(log: &Log, partitions: u32) -> u64 {
    let group = log.consumer_group("g").unwrap();
    (0..partitions).filter_map(|p| group.committed(&TopicPartition::new("t", p)).unwrap()).sum()
}

#[test]
fn all_is_done_once_in_order_per_key_and_committed() {
    const RECORDS: u64 = 20_000;
    let log = log_of(3, RECORDS);
    let seen = Mutex::new(HashMap::<Vec<u8>, Vec<u64>>::new());
    let parallel = Parallel::new(4);
    let stop = parallel.handle();
    let left = std::sync::atomic::AtomicU64::new(RECORDS);
    let group = log.consumer_group("g").unwrap();
    let done = parallel.run(group.consumer(), ["t"], |record| {
        seen.lock().entry(record.key().unwrap().to_vec()).or_default().push(number(record));
        if left.fetch_sub(1, Ordering::AcqRel) == 1 {
            stop.stop();
        }
        Ok::<(), io::Error>(())
    });
    assert_eq!(done.unwrap(), RECORDS);
    let seen = seen.into_inner();
    assert_eq!(seen.values().map(Vec::len).sum::<usize>() as u64, RECORDS);
    assert!(seen.values().all(|numbers| numbers.is_sorted()));
    assert_eq!(committed(&log, 3), RECORDS);
}

#[test]
fn keys_are_worked_on_at_the_same_time() {
    let log = log_of(1, KEYS);
    let (parallel, met) = (Parallel::new(2), Barrier::new(2));
    let stop = parallel.handle();
    let worker = |key: u64| crc32fast::hash(&key.to_be_bytes()) % 2;
    let (a, b) = (0, (1..KEYS).find(|key| worker(*key) != worker(0)).unwrap());
    let group = log.consumer_group("g").unwrap();
    // Neither could go on if the other had to wait for it.
    let done = parallel.run(group.consumer(), ["t"], |record| {
        if [a, b].contains(&number(record)) {
            met.wait();
            stop.stop();
        }
        Ok::<(), io::Error>(())
    });
    assert!(done.unwrap() >= 2);
}

#[test]
fn a_failure_and_a_panic_end_the_run_with_nothing_skipped() {
    for panics in [false, true] {
        let log = log_of(1, 100);
        let group = log.consumer_group("g").unwrap();
        let error = Parallel::new(3)
            .run(group.consumer(), ["t"], |record| {
                if number(record) == 60 {
                    assert!(!panics, "on purpose");
                    return Err("no such account");
                }
                Ok(())
            })
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.partition(), error.offset()),
            (ErrorKind::UserCode, Some(0), Some(60))
        );
        assert_eq!(error.to_string().contains("no such account"), !panics, "{error}");
        let committed = committed(&log, 1);
        assert!(committed <= 60, "{committed}");
        // Who goes on sees it again.
        let again = Mutex::new(Vec::new());
        let parallel = Parallel::new(1);
        let stop = parallel.handle();
        let run = parallel.run(group.consumer(), ["t"], |record| {
            again.lock().push(number(record));
            if number(record) == 99 {
                stop.stop();
            }
            Ok::<(), io::Error>(())
        });
        run.unwrap();
        assert_eq!(again.into_inner(), (committed..100).collect::<Vec<_>>());
    }
}

/// A partition goes to the other run when its records are done: no key is ever in two hands.
#[test]
fn two_runs_share_a_group_and_keep_the_order_of_each_key() {
    const RECORDS: u64 = 6_000;
    let log = log_of(4, RECORDS);
    let seen = Mutex::new(HashMap::<Vec<u8>, Vec<u64>>::new());
    let left = std::sync::atomic::AtomicU64::new(RECORDS);
    let runs = [Parallel::new(2), Parallel::new(3)];
    let stops = [runs[0].handle(), runs[1].handle()];
    std::thread::scope(|scope| {
        for run in runs {
            let (log, seen, left, stops) = (&log, &seen, &left, &stops);
            scope.spawn(move || {
                let group = log.consumer_group("g").unwrap();
                run.run(group.consumer(), ["t"], |record| {
                    seen.lock().entry(record.key().unwrap().to_vec()).or_default().push(number(record));
                    if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                        stops.iter().for_each(ParallelHandle::stop);
                    }
                    Ok::<(), io::Error>(())
                })
                .unwrap();
            });
        }
    });
    let seen = seen.into_inner();
    assert_eq!(
        seen.values().map(Vec::len).sum::<usize>() as u64,
        RECORDS,
        "none twice: all was handed over in order"
    );
    assert!(seen.values().all(|numbers| numbers.is_sorted()));
    assert_eq!(committed(&log, 4), RECORDS);
}

#[test]
fn a_handle_that_stopped_before_the_run_ends_it_at_once() {
    let log = log_of(1, 10);
    let parallel = Parallel::new(2);
    parallel.handle().stop();
    let group = log.consumer_group("g").unwrap();
    assert_eq!(parallel.run(group.consumer(), ["t"], |_| Ok::<(), io::Error>(())).unwrap(), 0);
    assert_eq!(committed(&log, 1), 0);
}
