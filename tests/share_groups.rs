//! Share groups: who holds what, what survives, where dead letters go.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tapelog::clock::ManualClock;
use tapelog::share::{Acknowledge, AcknowledgeMode, ShareConfig, ShareGroup, ShareRecords};
use tapelog::{ErrorKind, Log, OffsetReset, Record, Timestamp, TopicConfig, TopicPartition};

const NOW: Duration = Duration::ZERO;
/// Longer than any of this takes: whoever waits so long has failed.
const LONG: Duration = Duration::from_secs(60);

fn earliest() -> ShareConfig {
    ShareConfig::new().offset_reset(OffsetReset::Earliest)
}

/// A topic `t` of so many partitions with so many records in each, and a group on it.
fn fill(log: &Log, partitions: u32, records: u32, config: ShareConfig) -> ShareGroup {
    let topic = log.ensure_topic("t", TopicConfig::new().partitions(partitions)).unwrap();
    for partition in 0..partitions {
        for n in 0..records {
            topic.partition(partition).unwrap().append(Record::new(&n.to_string()).key("k")).unwrap();
        }
    }
    let group = log.share_group("workers").unwrap();
    group.alter(config).unwrap();
    group
}

fn all(records: &ShareRecords) -> Vec<(u64, u16)> {
    records.iter().map(|r| (r.offset(), r.delivery_count())).collect()
}

#[test]
fn what_a_poll_delivered_the_next_one_accepts() {
    let log = Log::in_memory().unwrap();
    let group = fill(&log, 1, 3, earliest());
    let mut a = group.subscribe(["t"]).unwrap();
    let mut b = group.subscribe(["t"]).unwrap();
    let records = a.poll(NOW).unwrap();
    assert_eq!(all(&records), [(0, 1), (1, 1), (2, 1)]);
    a.acknowledge(&records.iter().nth(1).unwrap(), Acknowledge::Release).unwrap();
    assert_eq!(all(&b.poll(NOW).unwrap()), [(1, 2)]);
    assert!(a.poll(NOW).unwrap().is_empty());
    let found = group.describe().unwrap().partitions[&TopicPartition::new("t", 0)];
    assert_eq!((found.start_offset, found.acquired, found.lag), (1, 1, 1));
    b.commit().unwrap();
    assert_eq!(group.describe().unwrap().partitions[&TopicPartition::new("t", 0)].lag, 0);
}

#[test]
fn in_explicit_mode_everything_is_to_be_settled_first() {
    let log = Log::in_memory().unwrap();
    let group = fill(&log, 1, 2, earliest());
    let mut consumer = group.consumer().acknowledge_mode(AcknowledgeMode::Explicit).subscribe(["t"]).unwrap();
    let records = consumer.poll(NOW).unwrap();
    let mut each = records.iter();
    consumer.acknowledge(&each.next().unwrap(), Acknowledge::Accept).unwrap();
    assert_eq!(consumer.poll(NOW).unwrap_err().kind(), ErrorKind::IllegalState);
    consumer.commit().unwrap();
    assert_eq!(consumer.poll(NOW).unwrap_err().kind(), ErrorKind::IllegalState);
    consumer.acknowledge(&each.next().unwrap(), Acknowledge::Accept).unwrap();
    assert!(consumer.poll(NOW).unwrap().is_empty());
}

#[test]
fn who_goes_gives_back_what_it_holds() {
    let log = Log::in_memory().unwrap();
    let group = fill(&log, 1, 2, earliest());
    let mut a = group.subscribe(["t"]).unwrap();
    a.poll(NOW).unwrap();
    drop(a);
    let mut b = group.subscribe(["t"]).unwrap();
    assert_eq!(all(&b.poll(NOW).unwrap()), [(0, 2), (1, 2)]);
    b.close().unwrap();
    let mut c = group.subscribe(["t"]).unwrap();
    assert_eq!(all(&c.poll(NOW).unwrap()), [(0, 3), (1, 3)]);
    c.subscribe(["other"]).unwrap();
    assert_eq!(all(&group.subscribe(["t"]).unwrap().poll(NOW).unwrap()), [(0, 4), (1, 4)]);
}

#[test]
fn a_group_begins_at_the_end_unless_it_waited() {
    let log = Log::in_memory().unwrap();
    let group = fill(&log, 1, 2, ShareConfig::new());
    let mut consumer = group.subscribe(["t", "later"]).unwrap();
    let send = |topic: &str, partition| {
        let partition = log.topic(topic).unwrap().partition(partition).unwrap();
        partition.append(Record::new("x")).unwrap();
    };
    send("t", 0);
    assert_eq!(all(&consumer.poll(NOW).unwrap()), [(2, 1)]);
    log.create_topic("later", TopicConfig::new()).unwrap();
    send("later", 0);
    assert_eq!(all(&consumer.poll(NOW).unwrap()), [(0, 1)], "it was asked for before");
    drop(consumer);
    log.topic("t").unwrap().add_partitions(2).unwrap();
    send("t", 1);
    let mut consumer = group.subscribe(["t"]).unwrap();
    assert_eq!(all(&consumer.poll(NOW).unwrap()), [(0, 1)], "the group knows the topic");
}

#[test]
fn limits_of_a_poll_and_of_the_window() {
    let log = Log::in_memory().unwrap();
    let group = fill(&log, 2, 10, earliest().max_in_flight(4));
    let mut bytes = group.consumer().max_poll_bytes(1).subscribe(["t"]).unwrap();
    assert_eq!(bytes.poll(NOW).unwrap().len(), 1, "one too large comes alone");
    let mut rest = group.subscribe(["t"]).unwrap();
    assert_eq!(rest.poll(NOW).unwrap().len(), 7, "four of each");
    assert!(rest.poll(NOW).unwrap().len() == 4, "one partition is held up by its first record");
    assert!(group.consumer().max_poll_records(0).subscribe(["t"]).is_err());
}

#[test]
fn waiting_polls_wake() {
    let log = Log::in_memory().unwrap();
    let group = fill(&log, 1, 1, earliest().acquisition_lock(Duration::from_millis(20)));
    let mut holder = group.subscribe(["t"]).unwrap();
    assert_eq!(holder.poll(NOW).unwrap().len(), 1);
    let mut waiter = group.subscribe(["t"]).unwrap();
    assert_eq!(all(&waiter.poll(LONG).unwrap()), [(0, 2)], "the lock ended");
    assert_eq!(holder.commit().unwrap_err().kind(), ErrorKind::InvalidRecordState);
    group.alter(earliest()).unwrap();
    waiter.commit().ok();

    let wakes = |how: &(dyn Fn() + Sync)| {
        std::thread::scope(|s| {
            let poll = s.spawn(|| {
                let mut consumer = group.subscribe(["t"]).unwrap();
                let records = consumer.poll(LONG);
                consumer.commit().unwrap();
                records
            });
            how();
            poll.join().unwrap()
        })
    };
    let topic = log.topic("t").unwrap().partition(0).unwrap();
    let append = || drop(topic.append(Record::new("new")).unwrap());
    assert!(!wakes(&append).unwrap().is_empty());
    append();
    let mut holder = group.subscribe(["t"]).unwrap();
    assert!(!holder.poll(NOW).unwrap().is_empty());
    let holder = Mutex::new(Some(holder));
    assert!(!wakes(&|| drop(holder.lock().unwrap().take())).unwrap().is_empty());
    let mut consumer = group.subscribe(["t"]).unwrap();
    consumer.handle().wakeup();
    assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::Wakeup);
    log.clone().close(LONG).unwrap();
    assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::Closed);
}

/// The clock of a log can stand still: a poll that waits looks at it all the same.
#[test]
fn a_waiting_poll_notices_that_the_clock_was_set() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let log = Log::builder().clock(clock.clone()).in_memory().unwrap();
    let group = fill(&log, 1, 1, earliest());
    let mut holder = group.subscribe(["t"]).unwrap();
    assert_eq!(holder.poll(NOW).unwrap().len(), 1);
    std::thread::scope(|s| {
        let poll = s.spawn(|| all(&group.subscribe(["t"]).unwrap().poll(LONG).unwrap()));
        clock.advance(Duration::from_secs(30));
        assert_eq!(poll.join().unwrap(), [(0, 2)]);
    });
}

#[test]
fn poison_ends_in_the_dead_letter_topic() {
    let log = Log::in_memory().unwrap();
    log.create_topic("dead", TopicConfig::new().partitions(2)).unwrap();
    let group = fill(&log, 4, 2, earliest().max_delivery_count(3).dead_letter_topic("dead"));
    let mut consumer = group.consumer().acknowledge_mode(AcknowledgeMode::Explicit).subscribe(["t"]).unwrap();
    loop {
        let records = consumer.poll(NOW).unwrap();
        if records.is_empty() {
            break;
        }
        for record in &records {
            let acknowledge = match (record.partition(), record.offset()) {
                (3, 0) => Acknowledge::Release,
                (2, 1) => Acknowledge::Reject,
                _ => Acknowledge::Accept,
            };
            consumer.acknowledge(&record, acknowledge).unwrap();
        }
    }
    let dead = log.topic("dead").unwrap();
    let mut letters = Vec::new();
    for partition in 0..2 {
        for record in &dead.partition(partition).unwrap().reader(0).unwrap().read(10).unwrap() {
            assert_eq!(record.key(), Some(&b"k"[..]));
            let header = |name: &str| {
                let value = record.header(&format!("__dlq.errors.{name}")).unwrap();
                String::from_utf8(value.to_vec()).unwrap()
            };
            let place = ["topic", "partition", "offset", "group"].map(header).join(" ");
            letters.push((partition, place, header("delivery.count"), header("message")));
        }
    }
    let letter = |partition, place: &str, count: &str, why: &str| {
        (partition, place.to_owned(), count.to_owned(), why.to_owned())
    };
    assert_eq!(
        letters,
        [
            letter(0, "t 2 1 workers", "1", "rejected"),
            letter(1, "t 3 0 workers", "3", "delivery count limit")
        ]
    );
    assert!(group.describe().unwrap().partitions.values().all(|p| p.lag == 0));
    for bad in [earliest().dead_letter_topic("t"), earliest().dead_letter_topic("no-such")] {
        assert!(group.alter(bad).is_err());
    }
}

#[test]
fn a_letter_that_cannot_be_sent_is_kept_and_told() {
    let log = Log::in_memory().unwrap();
    log.create_topic("dead", TopicConfig::new()).unwrap();
    let group = fill(&log, 1, 2, earliest().dead_letter_topic("dead"));
    let mut consumer = group.subscribe(["t"]).unwrap();
    let records = consumer.poll(NOW).unwrap();
    log.delete_topic("dead").unwrap();
    consumer.acknowledge(&records.iter().next().unwrap(), Acknowledge::Reject).unwrap();
    assert_eq!(consumer.commit().unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
    assert_eq!(consumer.poll(NOW).unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
    let tp = TopicPartition::new("t", 0);
    assert_eq!(group.describe().unwrap().partitions[&tp].archiving, 1);
    log.create_topic("dead", TopicConfig::new()).unwrap();
    assert!(consumer.poll(NOW).unwrap().is_empty());
    assert_eq!(group.describe().unwrap().partitions[&tp].lag, 0);
    assert_eq!(log.topic("dead").unwrap().partition(0).unwrap().end_offset(), 1);
}

#[test]
fn a_topic_that_goes_takes_its_state_with_it() {
    let log = Log::in_memory().unwrap();
    let group = fill(&log, 1, 2, earliest());
    let mut consumer = group.subscribe(["t"]).unwrap();
    let records = consumer.poll(NOW).unwrap();
    log.delete_topic("t").unwrap();
    assert!(consumer.poll(NOW).unwrap().is_empty());
    let stale = consumer.acknowledge(&records.iter().next().unwrap(), Acknowledge::Accept).unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::InvalidRecordState);
    fill(&log, 1, 1, earliest());
    assert_eq!(all(&consumer.poll(NOW).unwrap()), [(0, 1)], "another topic");
    assert_eq!(group.delete().unwrap_err().kind(), ErrorKind::GroupNotEmpty);
    drop(consumer);
    group.delete().unwrap();
    assert_eq!(group.delete().unwrap_err().kind(), ErrorKind::GroupIdNotFound);
    assert_eq!(all(&group.subscribe(["t"]).unwrap().poll(NOW).unwrap()), [(0, 1)], "from the start");
}

/// Threads that accept, release, reject, drop their consumers and let locks end: nobody ever holds what another one
/// holds, and every record is finished once.
#[test]
fn every_record_is_in_one_hand_and_finished_once() {
    let seed: u64 = std::env::var("TAPELOG_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
    println!("TAPELOG_SEED={seed}");
    const RECORDS: u32 = 2_000;
    let log = Log::in_memory().unwrap();
    log.create_topic("dead", TopicConfig::new()).unwrap();
    let config = earliest().max_delivery_count(1_000).max_in_flight(100).dead_letter_topic("dead");
    let group = fill(&log, 3, RECORDS, config);
    let holders: Mutex<BTreeMap<(u32, u64), u64>> = Mutex::default();
    let finished: Mutex<BTreeMap<(u32, u64), u32>> = Mutex::default();
    let done = AtomicUsize::new(0);
    let all = 3 * RECORDS as usize;
    std::thread::scope(|s| {
        for worker in 0..4u64 {
            let (group, holders, finished, done) = (&group, &holders, &finished, &done);
            s.spawn(move || {
                let mut random = seed * 31 + worker + 1;
                let mut below = move |n: u64| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    (random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % n
                };
                let build = |records| {
                    let builder = group.consumer().acknowledge_mode(AcknowledgeMode::Explicit);
                    builder.max_poll_records(records).subscribe(["t"]).unwrap()
                };
                let mut consumer = build(7);
                while done.load(Ordering::SeqCst) < all {
                    let records = consumer.poll(Duration::from_millis(1)).unwrap();
                    let places: Vec<_> = records.iter().map(|r| (r.partition(), r.offset())).collect();
                    for place in &places {
                        assert_eq!(holders.lock().unwrap().insert(*place, worker), None, "{place:?}");
                    }
                    let leaves = below(10) == 0;
                    for record in &records {
                        let place = (record.partition(), record.offset());
                        holders.lock().unwrap().remove(&place);
                        if leaves {
                            continue;
                        }
                        let acknowledge = match below(10) {
                            0..=2 => Acknowledge::Release,
                            3 => Acknowledge::Reject,
                            _ => Acknowledge::Accept,
                        };
                        consumer.acknowledge(&record, acknowledge).unwrap();
                        if acknowledge != Acknowledge::Release {
                            *finished.lock().unwrap().entry(place).or_default() += 1;
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    if leaves {
                        consumer = build(1 + below(20) as usize);
                    }
                }
                consumer.close().unwrap();
            });
        }
    });
    let finished = finished.into_inner().unwrap();
    assert!(finished.len() == all && finished.values().all(|times| *times == 1));
    assert!(group.describe().unwrap().partitions.values().all(|p| p.lag == 0));
}

#[cfg(unix)]
mod survives {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_is_done_survives_and_what_was_held_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("log");
        for clean in [true, false] {
            let log = Log::open(&data).unwrap();
            let group = fill(&log, 1, 4, earliest());
            let mut consumer =
                group.consumer().acknowledge_mode(AcknowledgeMode::Explicit).subscribe(["t"]).unwrap();
            let records = consumer.poll(NOW).unwrap();
            let of = |n: usize| records.iter().nth(n).unwrap();
            consumer.acknowledge(&of(0), Acknowledge::Accept).unwrap();
            consumer.acknowledge(&of(1), Acknowledge::Release).unwrap();
            consumer.acknowledge(&of(3), Acknowledge::Reject).unwrap();
            consumer.commit().unwrap();
            let first = of(0).offset();
            if clean {
                log.close(LONG).unwrap();
            } else {
                drop(log);
            }
            drop((consumer, group));
            let log = Log::open(&data).unwrap();
            let group = log.share_group("workers").unwrap();
            let mut consumer = group.subscribe(["t"]).unwrap();
            assert_eq!(all(&consumer.poll(NOW).unwrap()), [(first + 1, 2), (first + 2, 2)], "{clean}");
            consumer.commit().unwrap();
            assert_eq!(group.describe().unwrap().partitions.len(), 1);
        }
        let log = Log::open(&data).unwrap();
        let group = log.share_group("workers").unwrap();
        assert_eq!(group.describe().unwrap().partitions[&TopicPartition::new("t", 0)].lag, 0);
        group.delete().unwrap();
        drop((group, log));
        let log = Log::open(&data).unwrap();
        assert!(log.share_group("workers").unwrap().describe().unwrap().partitions.is_empty());
    }

    const DIR: &str = "TAPELOG_SHARE_DIR";

    /// A record that kills the process which works on it: here it is the seventh.
    fn child(dir: &str) {
        let log = Log::open(dir).unwrap();
        let group = log.share_group("workers").unwrap();
        group.alter(earliest().max_delivery_count(3).dead_letter_topic("dead")).unwrap();
        let mut consumer = group.subscribe(["t"]).unwrap();
        loop {
            let records = consumer.poll(NOW).unwrap();
            if records.is_empty() {
                return;
            }
            if records.iter().any(|record| record.offset() == 7) {
                std::process::abort();
            }
        }
    }

    /// In one process a poison record takes its broker with it: where deliveries were only counted in memory it would
    /// be the first one again after every start, for ever.
    #[test]
    fn a_record_that_kills_its_process_is_given_up_alone() {
        if let Ok(dir) = std::env::var(DIR) {
            return child(&dir);
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("log");
        let log = Log::open(&data).unwrap();
        log.create_topic("dead", TopicConfig::new()).unwrap();
        fill(&log, 1, 10, earliest());
        drop(log);
        let name = "survives::a_record_that_kills_its_process_is_given_up_alone";
        let mut deaths = 0;
        loop {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let status = command.args(["--exact", name]).env(DIR, &data).stdout(Stdio::null());
            if status.stderr(Stdio::null()).status().unwrap().success() {
                break;
            }
            deaths += 1;
            assert!(deaths <= 3, "the record is delivered again and again");
        }
        assert_eq!(deaths, 3);
        let log = Log::open(&data).unwrap();
        let dead = log.topic("dead").unwrap().partition(0).unwrap();
        let letters = dead.reader(0).unwrap().read(100).unwrap();
        let offsets: Vec<_> = letters.iter().map(|r| r.header("__dlq.errors.offset").unwrap()).collect();
        assert_eq!(offsets, [b"7"], "and no other");
        let group = log.share_group("workers").unwrap();
        let found = group.describe().unwrap().partitions[&TopicPartition::new("t", 0)];
        assert_eq!((found.start_offset, found.lag), (10, 0));
    }
}

#[test]
fn settings_of_a_group_survive_a_restart_and_its_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    log.create_topic("dead", TopicConfig::new()).unwrap();
    let config = earliest().max_delivery_count(3).dead_letter_topic("dead");
    let group = fill(&log, 1, 2, config.clone());
    assert!(group.alter(earliest().max_delivery_count(0)).is_err());
    log.close(LONG).unwrap();

    let log = Log::open(dir.path()).unwrap();
    let group = log.share_group("workers").unwrap();
    assert_eq!(group.describe().unwrap().config, config);
    assert_eq!(log.share_group("others").unwrap().describe().unwrap().config, ShareConfig::new());
    // They count: the group begins at the start, which is not the default.
    let mut consumer = group.subscribe(["t"]).unwrap();
    assert_eq!(all(&consumer.poll(LONG).unwrap()), [(0, 1), (1, 1)]);
    consumer.close().unwrap();
    group.delete().unwrap();
    log.close(LONG).unwrap();
    let log = Log::open(dir.path()).unwrap();
    let group = log.share_group("workers").unwrap();
    assert_eq!(group.describe().unwrap().config, config);
    group.alter(ShareConfig::new()).unwrap();
    log.close(LONG).unwrap();
    let log = Log::open(dir.path()).unwrap();
    assert_eq!(log.share_group("workers").unwrap().describe().unwrap().config, ShareConfig::new());
}
