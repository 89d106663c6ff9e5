//! Offsets by time.

use crate::o::{log_with, poll, tp};
use tapelog::{ErrorKind, Record, Timestamp};

fn at(timestamp: i64) -> Timestamp {
    Timestamp::from_nanos(timestamp)
}

#[test]
fn t_03_offsets_for_times() {
    let (log, _) = log_with(2, 0);
    let topic = log.topic("t").unwrap();
    for partition in 0..2 {
        for n in 0..100 {
            let record = Record::new("x").timestamp(at(n));
            topic.partition(partition).unwrap().append(record).unwrap();
        }
    }
    let consumer = log.consumer().build().unwrap();
    let found = consumer.offsets_for_times([(tp(0), at(0)), (tp(1), at(20))]).unwrap();
    assert_eq!(found[&tp(0)], Some((0, at(0))));
    assert_eq!(found[&tp(1)], Some((20, at(20))));
    assert_eq!(consumer.offsets_for_times([(tp(0), at(100))]).unwrap()[&tp(0)], None);
    let error = consumer.offsets_for_times([(tp(0), at(-1))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn t_07_first_in_offset_order_not_the_smallest_time() {
    let (log, partition) = log_with(1, 0);
    for timestamp in [10, 30, 20, 40] {
        partition.append(Record::new("x").timestamp(at(timestamp))).unwrap();
    }
    let mut consumer = log.consumer().assign([tp(0)]).unwrap();
    assert_eq!(consumer.offsets_for_times([(tp(0), at(20))]).unwrap()[&tp(0)], Some((1, at(30))));
    consumer.seek_to_time(&tp(0), at(20)).unwrap();
    assert_eq!(poll(&mut consumer), [1, 2, 3]);
    consumer.seek_to_time(&tp(0), at(41)).unwrap();
    assert_eq!(consumer.position(&tp(0)).unwrap(), 4);
}
