//! Code of the user's that panics, sleeps, commits, closes or drops, wherever the library calls it: nothing hangs, and
//! the error says what happened. (Listeners of rebalances have tests of their own.)

#![allow(clippy::unwrap_used)] // helpers of tests may panic

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tapelog::assignor::{Assignor, GroupFacts};
use tapelog::codec::CodecError;
use tapelog::consumer::Parallel;
use tapelog::partitioner::PartitionFacts;
use tapelog::producer::{Acknowledgement, Interceptor, Outgoing};
use tapelog::share::ShareConfig;
use tapelog::{
    Codec, Compression, Consumer, Durability, ErrorKind, Log, OffsetReset, Record, Result, Topic,
    TopicConfig, TopicPartition,
};

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(30);

/// What `story` gives, on a thread of its own; who hangs fails.
fn within<T: Send + 'static>(story: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let thread = std::thread::spawn(move || done.send(story()).unwrap());
    match result.recv_timeout(SOON) {
        Ok(told) => told,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// A log in memory with a topic `t` of one partition, with so many records.
fn log_with(records: u64) -> (Log, Topic) {
    let log = Log::in_memory().unwrap();
    let topic = log.create_topic("t", TopicConfig::new()).unwrap();
    for n in 0..records {
        topic.partition(0).unwrap().append(Record::new(&n.to_le_bytes())).unwrap();
    }
    (log, topic)
}

fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

// ---- partitioners ----------------------------------------------------------------------------------------------

/// A panic of a partitioner went through `send`, where one of an interceptor was an error.
#[test]
fn a_partitioner_that_panics_is_an_error_of_that_send_alone() {
    let (log, topic) = log_with(0);
    let partitioner = |facts: &PartitionFacts<'_>| {
        assert_ne!(facts.key, Some(&b"bad"[..]), "not this one");
        0
    };
    let producer = log.producer().partitioner(partitioner).build().unwrap();
    let error = producer.send(&topic, Record::new("x").key("bad")).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::UserCode, Some("t")));
    assert!(error.to_string().contains("the partitioner panicked"), "{error}");
    assert_eq!(producer.send(&topic, Record::new("x").key("good")).unwrap().offset(), 0);
    assert_eq!(producer.send(&topic, Record::new("x").key("bad").partition(0)).unwrap().offset(), 1);
}

#[test]
fn a_partitioner_may_send_and_close_the_log() {
    within(|| {
        let (log, topic) = log_with(0);
        let other = log.producer().build().unwrap();
        let last = Mutex::new(Some(log.clone()));
        let (sent_to, closing) = (topic.clone(), Arc::new(AtomicBool::new(false)));
        let close = Arc::clone(&closing);
        let partitioner = move |_: &PartitionFacts<'_>| {
            if close.load(Ordering::Acquire) {
                last.lock().unwrap().take().map(|log| log.close(SOON));
            } else {
                other.send(&sent_to, Record::new("before it")).unwrap();
            }
            0
        };
        let producer = log.producer().partitioner(partitioner).build().unwrap();
        assert_eq!(producer.send(&topic, Record::new("x")).unwrap().offset(), 1);
        closing.store(true, Ordering::Release);
        assert_eq!(kind(producer.send(&topic, Record::new("x"))), ErrorKind::Closed);
    });
}

// ---- interceptors ----------------------------------------------------------------------------------------------

/// Closes the log when it sees the record that says so, or hears that it was sent.
struct Closes {
    log: Mutex<Option<Log>>,
    on_send: bool,
}

impl Closes {
    fn close(&self) {
        if let Some(log) = self.log.lock().unwrap().take() {
            log.close(SOON).unwrap();
        }
    }
}

impl Interceptor for Closes {
    fn on_send(&self, _: &mut Outgoing<'_>) {
        if self.on_send {
            self.close();
        }
    }

    fn on_acknowledgement(&self, _: &Acknowledgement<'_>) {
        self.close();
    }
}

#[test]
fn an_interceptor_may_close_the_log() {
    for on_send in [true, false] {
        within(move || {
            let (log, topic) = log_with(0);
            let closes = Closes { log: Mutex::new(Some(log.clone())), on_send };
            let producer = log.producer().interceptor(closes).build().unwrap();
            // Heard of after the append, the end comes too late for this record.
            assert_eq!(producer.send(&topic, Record::new("x")).is_err(), on_send);
            assert_eq!(kind(producer.send(&topic, Record::new("x"))), ErrorKind::Closed);
        });
    }
}

// ---- deliveries ------------------------------------------------------------------------------------------------

#[test]
fn callbacks_of_deliveries_may_panic_sleep_and_drop_all_there_is() {
    within(|| {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let topic = log.create_topic("t", TopicConfig::new()).unwrap();
        let producer = log.producer().durability(Durability::Disk).build().unwrap();
        let send = || producer.send(&topic, Record::new("x")).unwrap();
        let (done, told) = mpsc::channel();
        send().on_complete(|_| panic!("not today"));
        let (reader, then) = (log.consumer().assign([tp()]).unwrap(), done.clone());
        send().on_complete(move |delivered| {
            let mut reader: Consumer = reader;
            then.send((delivered.unwrap().offset, reader.poll(NOW).unwrap().len())).unwrap();
        });
        let last = send();
        assert_eq!(told.recv().unwrap(), (1, 3));
        // The last handles go on the callback's own thread.
        drop(dir);
        let group = log.consumer_group("g").unwrap();
        let member = group.subscribe(["t"]).unwrap();
        last.on_complete(move |delivered| {
            drop((member, group, topic, log));
            let closed = producer.close(SOON);
            done.send((delivered.unwrap().offset, usize::from(closed.is_ok()))).unwrap();
        });
        assert_eq!(told.recv().unwrap().0, 2);
    });
}

// ---- commits ---------------------------------------------------------------------------------------------------

/// A callback runs beside polls and commits: it holds nothing that these want, and the next one waits for it.
#[test]
fn callbacks_of_commits_may_sleep_commit_and_close() {
    within(|| {
        let (log, _) = log_with(4);
        let group = log.consumer_group("g").unwrap();
        let mut consumer = group.consumer().max_poll_records(1).subscribe(["t"]).unwrap();
        let mut other = log.consumer_group("other").unwrap().subscribe(["t"]).unwrap();
        other.poll(NOW).unwrap();
        let (wake, asleep) = mpsc::channel::<()>();
        let (done, told) = mpsc::channel();
        let then = done.clone();
        consumer.poll(NOW).unwrap();
        consumer.commit_async(move |result| {
            asleep.recv().unwrap();
            result.and_then(|()| other.commit()).unwrap();
            then.send(other.close().is_ok()).unwrap();
        });
        consumer.poll(NOW).unwrap();
        consumer.commit().unwrap();
        assert_eq!(group.committed(&tp()).unwrap(), Some(2));
        consumer.poll(NOW).unwrap();
        let last = log.clone();
        consumer
            .commit_async(move |result| done.send(result.and_then(|()| last.close(SOON)).is_ok()).unwrap());
        wake.send(()).unwrap();
        assert_eq!((told.recv().unwrap(), told.recv().unwrap()), (true, true));
        assert_eq!(kind(consumer.poll(NOW)), ErrorKind::Closed);
        assert_eq!(kind(consumer.commit()), ErrorKind::Closed);
    });
}

// ---- codecs ----------------------------------------------------------------------------------------------------

/// Does as it is told when it is called. What it compressed it keeps, and writes down where.
#[derive(Clone, Default)]
struct Moody {
    mood: Arc<AtomicU32>,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Moody {
    const FINE: u32 = 0;
    const PANICS: u32 = 1;
    const SLEEPS: u32 = 2;

    fn act(&self) {
        match self.mood.load(Ordering::Acquire) {
            Moody::PANICS => panic!("not today"),
            Moody::SLEEPS => std::thread::sleep(Duration::from_millis(50)),
            _ => {}
        }
    }
}

impl Codec for Moody {
    fn id(&self) -> u8 {
        200
    }

    fn name(&self) -> &str {
        "moody"
    }

    fn compress(&self, input: &[u8], output: &mut Vec<u8>) -> std::result::Result<(), CodecError> {
        self.act();
        let mut kept = self.kept.lock().unwrap();
        output.push(kept.len() as u8);
        kept.push(input.to_vec());
        Ok(())
    }

    fn decompress(&self, input: &[u8], output: &mut [u8]) -> std::result::Result<(), CodecError> {
        self.act();
        output.copy_from_slice(&self.kept.lock().unwrap()[usize::from(input[0])]);
        Ok(())
    }
}

#[test]
fn a_codec_that_panics_or_sleeps_costs_no_record() {
    for mood in [Moody::PANICS, Moody::SLEEPS] {
        within(move || {
            let dir = tempfile::tempdir().unwrap();
            let moody = Moody::default();
            moody.mood.store(mood, Ordering::Release);
            let open = || Log::builder().codec(moody.clone()).open(dir.path()).unwrap();
            let log = open();
            let config = TopicConfig::new().compression(Compression::Custom(200));
            let partition = log.create_topic("t", config).unwrap().partition(0).unwrap();
            for n in 0..100u64 {
                partition.append(Record::new(&n.to_le_bytes())).unwrap();
            }
            partition.wait_durable(100, SOON).unwrap();
            drop(partition);
            log.close(SOON).unwrap();
            moody.mood.store(Moody::PANICS, Ordering::Release);
            let log = open();
            let mut consumer = log.consumer().assign([tp()]).unwrap();
            if mood == Moody::SLEEPS {
                // What was compressed cannot be read now. The error comes again until it can.
                for _ in 0..2 {
                    let error = consumer.poll(NOW).unwrap_err();
                    assert_eq!((error.kind(), error.offset()), (ErrorKind::CorruptRecord, Some(0)));
                    assert!(error.to_string().contains("panicked"), "{error}");
                }
                moody.mood.store(Moody::FINE, Ordering::Release);
            }
            assert_eq!(consumer.poll(NOW).unwrap().len(), 100);
        });
    }
}

// ---- assignors -------------------------------------------------------------------------------------------------

/// Drops a member of the group, and asks about it, while it makes the plan.
struct Busy {
    log: Log,
    member: Mutex<Option<Consumer>>,
}

impl Assignor for Busy {
    fn name(&self) -> &str {
        "busy"
    }

    fn assign(&self, facts: &GroupFacts) -> BTreeMap<String, Vec<TopicPartition>> {
        drop(self.member.lock().unwrap().take());
        let group = self.log.consumer_group("g").unwrap();
        group.describe().unwrap();
        group.lag().unwrap();
        BTreeMap::from([(facts.members[0].id.clone(), vec![tp()])])
    }
}

#[test]
fn an_assignor_may_ask_about_its_group_and_drop_members() {
    within(|| {
        let (log, _) = log_with(1);
        let group = log.consumer_group("g").unwrap();
        let first = group.subscribe(["t"]).unwrap();
        let mut second = group.subscribe(["t"]).unwrap();
        let group = group.assignor(Busy { log, member: Mutex::new(Some(first)) });
        // The plan that it made with the member that it dropped is for nobody: another one is made.
        assert_eq!(second.poll(NOW).unwrap().len(), 1);
        assert_eq!(group.describe().unwrap().members.len(), 1);
    });
}

// ---- work in parallel -------------------------------------------------------------------------------------------

#[test]
fn work_in_parallel_may_sleep_send_and_close_the_log() {
    within(|| {
        let (log, topic) = log_with(10);
        let group = log.consumer_group("g").unwrap();
        let (parallel, last) = (Parallel::new(2), log.clone());
        // Longer than the interval, which is the business of the thread that polls.
        let builder = group.consumer().max_poll_interval(Duration::from_millis(500));
        let producer = log.producer().build().unwrap();
        let ended = parallel.run(builder, ["t"], |record| {
            match record.offset() {
                3 => drop(producer.send(&topic, Record::new("x")).map_err(|e| e.to_string())?),
                5 => std::thread::sleep(Duration::from_millis(700)),
                9 => last.clone().close(SOON).map_err(|e| e.to_string())?,
                _ => {}
            }
            Ok::<(), String>(())
        });
        let error = ended.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::UserCode), "{error}");
    });
}

// ---- share groups ----------------------------------------------------------------------------------------------

/// A worker whose loop panics gives back what it holds, as one that is dropped does.
#[test]
fn a_worker_that_panics_gives_back_what_it_holds() {
    within(|| {
        let (log, _) = log_with(3);
        let group = log.share_group("workers").unwrap();
        group.alter(ShareConfig::new().offset_reset(OffsetReset::Earliest)).unwrap();
        let mut worker = group.subscribe(["t"]).unwrap();
        let died = std::thread::spawn(move || {
            let records = worker.poll(NOW).unwrap();
            assert_ne!(records.len(), 3, "not today");
        });
        assert!(died.join().is_err());
        let mut next = group.subscribe(["t"]).unwrap();
        let again: Vec<_> =
            next.poll(NOW).unwrap().iter().map(|record| (record.offset(), record.delivery_count())).collect();
        assert_eq!(again, [(0, 2), (1, 2), (2, 2)]);
    });
}

/// The same for a member of a consumer group: it leaves, and nothing is committed for it.
#[test]
fn a_member_whose_loop_panics_leaves_its_group() {
    within(|| {
        let (log, _) = log_with(3);
        let group = log.consumer_group("g").unwrap();
        let mut member = group.consumer().auto_commit(NOW).subscribe(["t"]).unwrap();
        let died = std::thread::spawn(move || {
            let records = member.poll(NOW).unwrap();
            assert_ne!(records.len(), 3, "not today");
        });
        assert!(died.join().is_err());
        assert_eq!(group.describe().unwrap().members.len(), 0);
        assert_eq!(group.committed(&tp()).unwrap(), None);
        assert_eq!(group.subscribe(["t"]).unwrap().poll(NOW).unwrap().len(), 3);
    });
}
