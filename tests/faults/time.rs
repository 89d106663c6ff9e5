//! A clock that jumps, and timestamps at the ends of what a number can say: offsets, order and durability do not ask.

use std::sync::Arc;
use std::time::Duration;

use tapelog::clock::ManualClock;
use tapelog::topic::TimestampType;
use tapelog::{Clock, Log, Partition, Record, Timestamp, TopicConfig, TopicPartition};

use crate::damage::place;
use crate::report::{effort, run};

const DAY: Duration = Duration::from_secs(24 * 3_600);
const TEN_YEARS: i64 = 10 * 365 * 24 * 3_600 * 1_000_000_000;
const FOR_EVER: Duration = Duration::MAX;

fn back(clock: &ManualClock, nanos: i64) {
    clock.set(Timestamp::from_nanos(clock.now().as_nanos().saturating_sub(nanos)));
}

/// All there is, in order: the value, which says the offset, and the timestamp.
fn read(partition: &Partition) -> Vec<(String, Timestamp)> {
    let mut reader = partition.reader(0).unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.try_next().unwrap() {
        assert_eq!(record.offset(), found.len() as u64, "offsets are dense");
        found.push((String::from_utf8(record.value().unwrap().to_vec()).unwrap(), record.timestamp()));
    }
    found
}

#[test]
fn offsets_and_order_do_not_ask_the_clock() {
    run("22 clock jumps of ten years, timestamps at both ends", |run| {
        let mut random = run.random();
        for _ in 0..effort(12, 400) {
            let dir = place();
            let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
            let open = || {
                Log::builder().memory_budget(256 << 10).clock(Arc::clone(&clock)).open(dir.path()).unwrap()
            };
            let mut log = open();
            let config = TopicConfig::new().segment_bytes(4_000).block_linger(Duration::ZERO);
            log.create_topic("own", config.clone()).unwrap();
            log.create_topic("stamped", config.timestamp_type(TimestampType::Append)).unwrap();
            let parts =
                |log: &Log| ["own", "stamped"].map(|name| log.topic(name).unwrap().partition(0).unwrap());
            let [mut own, mut stamped] = parts(&log);
            let mut expected: [Vec<(String, Timestamp)>; 2] = Default::default();
            for n in 0..120u64 {
                run.tally.cycles += 1;
                match random.below(6) {
                    0 => back(&clock, TEN_YEARS),
                    1 => clock.advance(Duration::from_nanos(TEN_YEARS as u64)),
                    2 => clock.set(
                        [Timestamp::MIN, Timestamp::MAX, Timestamp::from_nanos(0)][random.below(3) as usize],
                    ),
                    _ => clock.advance(DAY),
                }
                let time = match random.below(5) {
                    0 => Timestamp::MAX,
                    1 => Timestamp::MIN,
                    2 => Timestamp::from_nanos(random.next() as i64),
                    _ => clock.now(),
                };
                for (which, partition) in [&own, &stamped].into_iter().enumerate() {
                    let value = format!("{n} of {which}");
                    // A time may be refused, by a word that says so; it is never changed.
                    match partition.append(Record::new(&value).timestamp(time)) {
                        Err(e) if e.kind() == tapelog::ErrorKind::InvalidTimestamp => continue,
                        Err(e) => run.tally.wrong(|| format!("{value} at {time:?}: {e:?}")),
                        Ok(delivery) => {
                            let stamp = if which == 0 { time } else { delivery.timestamp() };
                            expected[which].push((value, stamp));
                        }
                    }
                }
                let end = expected[0].len() as u64;
                if random.one_in(4) {
                    // Waits are of real time, whatever the clock says.
                    own.wait_durable(end, FOR_EVER).unwrap();
                    assert!(own.durable_offset() >= end);
                }
                if random.one_in(12) {
                    drop((own, stamped));
                    if random.one_in(2) {
                        log.close(FOR_EVER).unwrap();
                    } else {
                        drop(log);
                    }
                    log = open();
                    [own, stamped] = parts(&log);
                }
            }
            for (partition, expected) in [&own, &stamped].into_iter().zip(&expected) {
                run.tally.acked += expected.len() as u64;
                let found = read(partition);
                run.tally.lost(expected.len().saturating_sub(found.len()) as u64, || "records".into());
                if found != *expected {
                    run.tally.wrong(|| format!("{found:?}, not {expected:?}"));
                }
            }
            if expected[1].windows(2).any(|two| two[1].1 < two[0].1) {
                run.tally.wrong(|| format!("stamps of the log go back: {:?}", expected[1]));
            }
            if expected[0].is_empty() || expected[1].is_empty() {
                run.tally.wrong(|| "every time was refused".into());
            }
        }
    });
}

/// What is kept for a time is not gone because the clock jumped by less than that, nor because it went back.
#[test]
fn what_is_kept_for_a_time_outlives_shorter_jumps() {
    run("22 committed offsets outlive jumps shorter than their time", |run| {
        for backwards in [0, 3_600_000_000_000, TEN_YEARS] {
            let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
            let builder = Log::builder().clock(Arc::clone(&clock)).offsets_retention(7 * DAY);
            let log = builder.in_memory().unwrap();
            log.create_topic("t", TopicConfig::new()).unwrap();
            let place = TopicPartition::new("t", 0);
            let commit = |name: &str| {
                let group = log.consumer_group(name).unwrap();
                let mut outside = group.consumer().assign([place.clone()]).unwrap();
                outside.seek(&place, 0).unwrap();
                outside.commit().unwrap();
            };
            let committed = |name: &str| log.consumer_group(name).unwrap().committed(&place).unwrap();
            let until_gone = |name: &str| {
                while committed(name).is_some() {
                    std::thread::yield_now();
                }
            };
            commit("old");
            clock.advance(5 * DAY);
            commit("kept");
            // The old one goes, so that it is known that somebody looked, at a time that is 6 days on.
            clock.advance(6 * DAY);
            until_gone("old");
            run.tally.cycles += 1;
            if committed("kept").is_none() {
                run.tally.wrong(|| format!("gone after 6 days, {backwards}"));
            }
            // Back: nothing is due, and what is committed then has its own time.
            back(&clock, backwards);
            commit("later");
            if backwards > 0 && committed("kept").is_none() {
                run.tally.wrong(|| format!("gone after the clock went back by {backwards}"));
            }
            clock.advance(8 * DAY);
            until_gone("later");
            run.tally.cycles += 1;
            if backwards == TEN_YEARS && committed("kept").is_none() {
                run.tally.wrong(|| "gone ten years before its time".into());
            }
        }
    });
}
