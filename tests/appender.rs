//! One handle appends for itself: exclusive while it lives, and in all else as every append.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tapelog::partition::Appender;
use tapelog::{ErrorKind, Log, OffsetReset, Partition, Record, Timestamp, TopicConfig, TopicPartition};

const SOON: Duration = Duration::from_secs(20);

fn values(partition: &Partition) -> Vec<Vec<u8>> {
    let mut reader = partition.reader(partition.start_offset()).unwrap();
    let mut out = Vec::new();
    while let Some(record) = reader.try_next().unwrap() {
        assert_eq!(record.offset(), out.len() as u64);
        out.push(record.value().unwrap().to_vec());
    }
    out
}

fn in_memory() -> (Log, Partition) {
    let log = Log::in_memory().unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    (log, partition)
}

#[test]
fn everybody_else_is_refused_while_it_lives() {
    fn is_send<T: Send>() {}
    is_send::<Appender>();
    let (log, partition) = in_memory();
    partition.append(Record::new("before")).unwrap();
    let mut appender = partition.appender().unwrap();
    let producer = log.producer().build().unwrap();
    for round in 0..2 {
        for error in [
            partition.append(Record::new("x")).unwrap_err(),
            partition.append_batch(&[]).unwrap_err(),
            partition.append_if(1, &[Record::new("x")]).unwrap_err(),
            partition.appender().unwrap_err(),
            producer.send("t", Record::new("x")).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::IllegalState);
            assert_eq!((error.topic(), error.partition()), (Some("t"), Some(0)));
        }
        assert_eq!(appender.append(Record::new("own")).unwrap(), 1 + round);
    }
    assert_eq!(appender.append_batch(&[]).unwrap(), 3..3);
    assert_eq!(appender.append_batch(&[Record::new("a"), Record::new("b")]).unwrap(), 3..5);
    drop(appender);
    assert_eq!(producer.send("t", Record::new("after")).unwrap().offset(), 5);
    // One that never appended, and one after it.
    drop(partition.appender().unwrap());
    assert_eq!(partition.appender().unwrap().append(Record::new("again")).unwrap(), 6);
    assert_eq!(values(&partition), [&b"before"[..], b"own", b"own", b"a", b"b", b"after", b"again"]);
}

#[test]
fn what_may_not_be_appended_may_not_be_appended() {
    let (log, partition) = in_memory();
    log.create_topic("small", TopicConfig::new().max_record_bytes(1000)).unwrap();
    let small = log.topic("small").unwrap().partition(0).unwrap();
    let mut appender = small.appender().unwrap();
    assert_eq!(appender.append(Record::new(&[0; 1000])).unwrap_err().kind(), ErrorKind::RecordTooLarge);
    assert_eq!(appender.claim(1000).unwrap_err().kind(), ErrorKind::RecordTooLarge);
    assert_eq!(appender.claim(usize::MAX).unwrap_err().kind(), ErrorKind::RecordTooLarge);
    let elsewhere = Record::new("x").partition(1);
    assert_eq!(appender.append(elsewhere).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(appender.append(Record::new("fits")).unwrap(), 0);
    drop(partition);
}

/// Through many chunks, segments and changes of hand, and through a reopen.
#[test]
fn offsets_and_order_hold_over_changes_of_hand() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    {
        let log = Log::builder().memory_budget(1 << 20).open(dir.path()).unwrap();
        let config = TopicConfig::new().segment_bytes(100_000);
        let partition = log.create_topic("t", config).unwrap().partition(0).unwrap();
        let next = |expected: &mut Vec<Vec<u8>>| {
            let n = expected.len();
            expected.push(n.to_string().bytes().cycle().take(n % 700).collect());
            (n as u64, expected[n].clone())
        };
        for round in 0..20 {
            let mut appender = partition.appender().unwrap();
            for n in 0..200 {
                let (offset, value) = next(&mut expected);
                let got = if n % 3 == 0 {
                    let mut claim = appender.claim(value.len()).unwrap();
                    assert!(claim.iter().all(|b| *b == 0), "what lay there before is not shown");
                    claim.copy_from_slice(&value);
                    claim.commit().unwrap()
                } else {
                    appender.append(Record::new(&value).timestamp(Timestamp::from_nanos(n))).unwrap()
                };
                assert_eq!(got, offset);
            }
            drop(appender);
            if round % 2 == 0 {
                let (offset, value) = next(&mut expected);
                assert_eq!(partition.append(Record::new(&value)).unwrap().offset(), offset);
            }
        }
        assert!(partition.segments().len() > 5, "{:?}", partition.segments());
        assert_eq!(values(&partition), expected);
        partition.wait_durable(partition.end_offset(), SOON).unwrap();
        log.close(SOON).unwrap();
    }
    let log = Log::open_existing(dir.path()).unwrap();
    assert_eq!(values(&log.topic("t").unwrap().partition(0).unwrap()), expected);
}

#[test]
fn a_claim_that_is_dropped_leaves_nothing() {
    let (_log, partition) = in_memory();
    let mut appender = partition.appender().unwrap();
    for len in [100, 0, 7] {
        let mut claim = appender.claim(len).unwrap();
        claim.fill(0xEE);
        assert_eq!(claim.len(), len);
        drop(claim);
        assert_eq!(partition.end_offset(), 0);
    }
    assert_eq!(appender.claim(0).unwrap().commit().unwrap(), 0);
    let time = Timestamp::from_nanos(5);
    let mut claim = appender.claim(3).unwrap();
    claim[1] = 9;
    assert_eq!(claim.commit_at(time).unwrap(), 1);
    assert_eq!(appender.append(Record::new("next")).unwrap(), 2);
    assert_eq!(values(&partition), [&b""[..], &[0, 9, 0], b"next"]);
    let mut reader = partition.reader(1).unwrap();
    assert_eq!(reader.try_next().unwrap().unwrap().timestamp(), time);
}

#[test]
fn a_close_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    let mut appender = partition.appender().unwrap();
    // Whatever was accepted while another thread closes the log is there afterwards.
    let accepted = std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            let mut accepted = 0;
            loop {
                match appender.append(Record::new("x")) {
                    Ok(offset) => assert_eq!(offset, accepted),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Closed);
                        return accepted;
                    }
                }
                accepted += 1;
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        log.close(SOON).unwrap();
        appending.join().unwrap()
    });
    assert!(accepted > 0);
    assert_eq!(appender.claim(1).unwrap_err().kind(), ErrorKind::Closed);
    drop(appender);
    assert_eq!(partition.appender().unwrap_err().kind(), ErrorKind::Closed);
    drop(partition);
    let log = Log::open_existing(dir.path()).unwrap();
    assert_eq!(log.topic("t").unwrap().partition(0).unwrap().end_offset(), accepted);
}

#[test]
fn a_close_between_claim_and_commit_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    let mut appender = partition.appender().unwrap();
    appender.append(Record::new("first")).unwrap();
    let mut claim = appender.claim(5).unwrap();
    claim.fill(1);
    log.close(SOON).unwrap();
    assert_eq!(claim.commit().unwrap_err().kind(), ErrorKind::Closed);
    drop((appender, partition));
    let log = Log::open_existing(dir.path()).unwrap();
    assert_eq!(log.topic("t").unwrap().partition(0).unwrap().end_offset(), 1);
}

#[test]
fn a_deleted_topic_ends_it() {
    let (log, partition) = in_memory();
    let mut appender = partition.appender().unwrap();
    appender.append(Record::new("x")).unwrap();
    log.delete_topic("t").unwrap();
    assert_eq!(appender.append(Record::new("x")).unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
}

/// More than the budget, in records that leave chunks partly empty: its own chunk is what there is to give up.
#[test]
fn it_lives_within_a_small_budget() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::builder().memory_budget(256 << 10).open(dir.path()).unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    let mut appender = partition.appender().unwrap();
    for n in 0..200u64 {
        let value = vec![n as u8; 50_000];
        let mut claim = appender.claim(value.len()).unwrap();
        claim.copy_from_slice(&value);
        assert_eq!(claim.commit().unwrap(), 2 * n);
        assert_eq!(appender.append(Record::new(&value)).unwrap(), 2 * n + 1);
    }
    drop(appender);
    assert_eq!(values(&partition).len(), 400);
}

/// A consumer parks again and again; each append must wake it.
#[test]
fn a_parked_consumer_is_woken() {
    let (log, partition) = in_memory();
    let mut appender = partition.appender().unwrap();
    let taken = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut consumer = log.consumer().offset_reset(OffsetReset::Earliest).build().unwrap();
            consumer.assign([TopicPartition::new("t", 0)]).unwrap();
            for _ in 0..2_000 {
                let mut seen = 0;
                while seen == 0 {
                    let records = consumer.poll(SOON).unwrap();
                    seen = records.len();
                    assert!(seen > 0, "nobody woke it");
                }
                taken.store(true, Ordering::Release);
            }
        });
        for n in 0..2_000 {
            while !taken.swap(false, Ordering::AcqRel) {
                std::thread::yield_now();
            }
            if n % 2 == 0 {
                appender.append(Record::new("x")).unwrap();
            } else {
                appender.claim(1).unwrap().commit().unwrap();
            }
        }
    });
}

/// The engine goes to sleep and is woken by the next append, however that falls.
#[test]
fn everything_is_written_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let config = TopicConfig::new().block_linger(Duration::ZERO);
    let partition = log.create_topic("t", config).unwrap().partition(0).unwrap();
    let mut appender = partition.appender().unwrap();
    for n in 0..3_000u64 {
        let offset = appender.append(Record::new("x")).unwrap();
        assert_eq!(offset, n);
        if n % 3 == 0 {
            partition.wait_written(offset + 1, SOON).unwrap();
        }
    }
    drop(appender);
    log.close(SOON).unwrap();
}
