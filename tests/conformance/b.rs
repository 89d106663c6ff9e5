//! Sending: offsets, promises, codecs, and partitioners at work in a log.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tapelog::clock::ManualClock;
use tapelog::codec::CodecError;
use tapelog::partitioner::RoundRobin;
use tapelog::producer::{Acknowledgement, Interceptor, Outgoing, SendOptions};
use tapelog::{
    Acks, Clock, Compression, Durability, ErrorKind, Log, Producer, Record, Result, Timestamp, Topic,
    TopicConfig,
};

fn ends(log: &Log, topic: &str) -> Vec<u64> {
    let topic = log.topic(topic).unwrap();
    (0..topic.partitions()).map(|n| topic.partition(n).unwrap().end_offset()).collect()
}

#[test]
fn p_07_an_empty_key_is_a_key_when_sent() -> Result<()> {
    let log = Log::in_memory()?;
    let ticks = log.create_topic("ticks", TopicConfig::new().partitions(12))?;
    let producer = log.producer().build()?;
    let value = [7; 64];
    for _ in 0..1000 {
        assert_eq!(producer.send(&ticks, Record::new(&value).key(""))?.partition(), 9);
    }
    let used: std::collections::BTreeSet<u32> =
        (0..1000).map(|_| producer.send(&ticks, Record::new(&value)).unwrap().partition()).collect();
    assert!(used.len() > 1, "no key is no hash: {used:?}");
    Ok(())
}

#[test]
fn p_15_a_partition_that_is_not_there_is_an_error_until_it_is() -> Result<()> {
    let log = Log::in_memory()?;
    let ticks = log.create_topic("ticks", TopicConfig::new())?;
    let producer = log.producer().build()?;
    for _ in 0..3 {
        assert_eq!(producer.send(&ticks, Record::new("a"))?.partition(), 0);
    }
    let error = producer.send(&ticks, Record::new("a").partition(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
    assert_eq!((error.topic(), error.partition()), (Some("ticks"), Some(1)));
    ticks.add_partitions(2)?;
    for i in 0..100 {
        assert_eq!(producer.send(&ticks, Record::new("b").partition(1))?.offset(), i);
    }
    assert_eq!(producer.send(&ticks, Record::new("c").partition(0))?.offset(), 3);
    Ok(())
}

#[test]
fn p_17_growth_moves_keys_and_leaves_records() -> Result<()> {
    let log = Log::in_memory()?;
    let ticks = log.create_topic("ticks", TopicConfig::new().partitions(3))?;
    let producer = log.producer().build()?;
    assert_eq!(producer.send(&ticks, Record::new("a").key("foobar"))?.partition(), 0);
    ticks.add_partitions(4)?;
    assert_eq!(producer.send(&ticks, Record::new("b").key("foobar"))?.partition(), 2);
    assert_eq!(ends(&log, "ticks"), [1, 0, 1, 0]);
    Ok(())
}

#[test]
fn p_23_round_robin_counts_per_topic_when_sent() -> Result<()> {
    let log = Log::in_memory()?;
    let a = log.create_topic("a", TopicConfig::new().partitions(3))?;
    let b = log.create_topic("b", TopicConfig::new())?;
    let producer = log.producer().partitioner(RoundRobin::new()).build()?;
    for i in 1..=30 {
        let _ = producer.send(&a, Record::new("x").key("key"))?;
        if i % 5 == 0 {
            let _ = producer.send(&b, Record::new("x").key("key"))?;
        }
    }
    assert_eq!(ends(&log, "a"), [10, 10, 10]);
    Ok(())
}

#[test]
fn b_05_flush_keeps_every_promise() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new().partitions(2))?;
    let producer = log.producer().durability(Durability::Disk).build()?;
    for _ in 0..5 {
        let sent: Vec<_> = (0..100)
            .map(|i| producer.send(&ticks, Record::new("x").partition(i % 2)))
            .collect::<Result<_>>()?;
        producer.flush()?;
        assert!(sent.iter().all(|d| d.is_done()));
    }
    Ok(())
}

/// A codec that compresses nothing until it is let.
struct Stuck(Mutex<mpsc::Receiver<()>>);

impl tapelog::Codec for Stuck {
    fn id(&self) -> u8 {
        200
    }
    fn name(&self) -> &str {
        "stuck"
    }
    fn compress(&self, _: &[u8], _: &mut Vec<u8>) -> std::result::Result<(), CodecError> {
        // Until the other side is gone.
        let _ = self.0.lock().unwrap().recv();
        Err("this stays as it is".into())
    }
    fn decompress(&self, _: &[u8], _: &mut [u8]) -> std::result::Result<(), CodecError> {
        Err("nothing was compressed".into())
    }
}

#[test]
fn b_07_who_may_not_wait_is_told_at_once_that_the_buffer_is_exhausted() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let (open, shut) = mpsc::channel::<()>();
    let log = Log::builder().memory_budget(256 << 10).codec(Stuck(Mutex::new(shut))).open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new().compression(Compression::Custom(200)))?;
    let producer = log.producer().max_block(Duration::ZERO).build()?;
    let mut sent = Vec::new();
    let error = loop {
        match producer.send(&ticks, Record::new(&[7; 1000])) {
            Ok(delivery) => sent.push(delivery),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.topic()), (ErrorKind::BufferExhausted, Some("ticks")));
    assert!(error.is_retriable() && !sent.is_empty());
    assert_eq!(
        producer.try_send(&ticks, Record::new(&[7; 1000])).unwrap_err().kind(),
        ErrorKind::BufferExhausted
    );
    drop(open);
    for (offset, delivery) in sent.into_iter().enumerate() {
        assert_eq!(delivery.wait()?.offset, offset as u64);
    }
    // There is room again, for who waits for it.
    producer.send_timeout(&ticks, Record::new(&[7; 1000]), Duration::from_secs(30))?;
    Ok(())
}

#[test]
fn b_09_close_resolves_every_delivery() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new().partitions(4))?;
    let producer = log.producer().durability(Durability::Disk).build()?;
    let sent: Vec<_> =
        (0..101).map(|_| producer.send(&ticks, Record::new("x").key("k"))).collect::<Result<_>>()?;
    producer.close(Duration::from_secs(30))?;
    assert!(sent.iter().all(|d| d.is_done() && d.partition() == sent[0].partition()));
    assert_eq!(sent[100].offset(), 100);
    Ok(())
}

#[test]
fn b_11_callbacks_come_in_order() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new())?;
    let producer = log.producer().durability(Durability::Disk).build()?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (done, all) = mpsc::channel();
    for i in 0..100 {
        let (seen, done) = (Arc::clone(&seen), done.clone());
        producer.send(&ticks, Record::new("x"))?.on_complete(move |delivered| {
            seen.lock().unwrap().push(delivered.unwrap().offset);
            if i == 99 {
                done.send(()).unwrap();
            }
        });
    }
    all.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(*seen.lock().unwrap(), (0..100).collect::<Vec<u64>>());
    Ok(())
}

#[test]
fn b_15_the_size_limit_is_exact() -> Result<()> {
    let log = Log::in_memory()?;
    // 32 bytes of header and a value of 968: a frame of 1,000 bytes.
    let ticks = log.create_topic("ticks", TopicConfig::new().max_record_bytes(1000))?;
    let producer = log.producer().build()?;
    assert_eq!(producer.send(&ticks, Record::new(&[0; 968]))?.offset(), 0);
    let error = producer.send(&ticks, Record::new(&[0; 969])).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::RecordTooLarge, Some("ticks")));
    assert_eq!(ends(&log, "ticks"), [1]);
    Ok(())
}

/// Changes what it is told to, and notes what it hears.
#[derive(Default)]
struct Desk {
    name: &'static str,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Interceptor for Desk {
    fn on_send(&self, record: &mut Outgoing<'_>) {
        assert_ne!(record.key(), Some(&b"panic"[..]));
        if record.key() == Some(b"refuse") {
            return record.refuse("not today");
        }
        let seen = record.headers().map(|(name, _)| name.to_owned()).collect::<Vec<_>>().join(" ");
        record.add_header(self.name, seen);
        if record.key() == Some(b"move") {
            record.set_partition(Some(1));
            record.set_value(Some(b"moved".to_vec()));
            record.set_timestamp(Some(Timestamp::from_millis(5)));
        }
    }

    fn on_acknowledgement(&self, acknowledgement: &Acknowledgement<'_>) {
        let what = match acknowledgement.result {
            Ok(delivered) => format!("at {}", delivered.offset),
            Err(error) => error.kind().to_string(),
        };
        let place = (acknowledgement.topic, acknowledgement.partition);
        self.heard.lock().unwrap().push(format!("{} {place:?} {what}", self.name));
        panic!("an interceptor that ends like this is contained");
    }
}

#[test]
fn b_15_interceptors_see_what_failed() -> Result<()> {
    let log = Log::in_memory()?;
    let ticks = log.create_topic("ticks", TopicConfig::new().max_record_bytes(1000).partitions(2))?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let desk = |name| Desk { name, heard: Arc::clone(&heard) };
    let producer = log.producer().interceptor(desk("a")).interceptor(desk("b")).build()?;
    let heard = || std::mem::take(&mut *heard.lock().unwrap());

    producer.send(&ticks, Record::new("x").partition(0).headers(&[("own", b"1")]))?;
    assert_eq!(heard(), [r#"a ("ticks", Some(0)) at 0"#, r#"b ("ticks", Some(0)) at 0"#]);
    let mut reader = ticks.partition(0)?.reader(0)?;
    let record = reader.try_next()?.unwrap();
    let headers: Vec<_> = record.headers().collect();
    assert_eq!(headers, [("own", &b"1"[..]), ("a", b"own"), ("b", b"own a")], "one after the other");

    // Changed before the partition was chosen.
    let sent = producer.send(&ticks, Record::new("x").key("move"))?;
    assert_eq!((sent.partition(), sent.timestamp()), (1, Timestamp::from_millis(5)));
    assert_eq!(ticks.partition(1)?.reader(0)?.try_next()?.unwrap().value(), Some(&b"moved"[..]));
    heard();

    // Too large: from send itself, with the partition that it was for.
    let error = producer.send(&ticks, Record::new(&[0; 2000]).partition(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
    assert_eq!(
        heard(),
        [r#"a ("ticks", Some(1)) RECORD_TOO_LARGE"#, r#"b ("ticks", Some(1)) RECORD_TOO_LARGE"#]
    );
    // Refused, and a panic: nothing is appended, everybody hears of it.
    for (key, kind) in [("refuse", ErrorKind::InvalidRecord), ("panic", ErrorKind::UserCode)] {
        let error = producer.send(&ticks, Record::new("x").key(key)).unwrap_err();
        assert_eq!((error.kind(), error.topic()), (kind, Some("ticks")), "{error}");
        assert_eq!(heard().len(), 2);
    }
    assert_eq!(ends(&log, "ticks"), [1, 1]);
    Ok(())
}

#[test]
fn b_11_interceptors_hear_of_the_disk_before_the_callback() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new())?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let desk = Desk { name: "a", heard: Arc::clone(&heard) };
    let producer = log.producer().durability(Durability::Disk).interceptor(desk).build()?;
    let (done, all) = mpsc::channel();
    for i in 0..50 {
        let (done, heard) = (done.clone(), Arc::clone(&heard));
        producer.send(&ticks, Record::new("x"))?.on_complete(move |_| {
            done.send(heard.lock().unwrap().get(i).cloned()).unwrap();
        });
    }
    for i in 0..50 {
        let heard = all.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(heard, Some(format!(r#"a ("ticks", Some(0)) at {i}"#)));
    }
    Ok(())
}

#[test]
fn b_11_a_callback_may_send_again() -> Result<()> {
    fn again(producer: Arc<Producer>, topic: Topic, left: u32, done: mpsc::Sender<u64>) {
        let sent = producer.send(&topic, Record::new("x")).unwrap();
        sent.on_complete(move |delivered| match left {
            0 => done.send(delivered.unwrap().offset).unwrap(),
            _ => again(producer, topic, left - 1, done),
        });
    }
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new())?;
    let producer = Arc::new(log.producer().durability(Durability::Disk).build()?);
    let (done, last) = mpsc::channel();
    again(producer, ticks, 9, done);
    assert_eq!(last.recv_timeout(Duration::from_secs(30)).unwrap(), 9);
    Ok(())
}

#[test]
fn in_flight_is_what_the_disk_was_promised_for_and_does_not_have() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new().partitions(2))?;
    let producer = log.producer().durability(Durability::Disk).build()?;
    let process = SendOptions::new().durability(Durability::Process);
    producer.send_with(&ticks, Record::new("x"), process)?;
    assert_eq!((producer.in_flight_records(), producer.in_flight_bytes()), (0, 0));
    // More than the stretches that are told apart.
    for i in 0..1000 {
        let _ = producer.send(&ticks, Record::new(&[0; 68]).partition(i % 2))?;
    }
    // 32 bytes of header, a value of 68, padded to eight.
    assert_eq!((producer.in_flight_records(), producer.in_flight_bytes()), (1000, 104_000));
    let end = ticks.partition(0)?.end_offset();
    ticks.partition(0)?.wait_durable(end, Duration::from_secs(30))?;
    assert_eq!(producer.in_flight_records(), 500);
    producer.flush()?;
    assert_eq!((producer.in_flight_records(), producer.in_flight_bytes()), (0, 0));
    Ok(())
}

#[test]
fn a_failed_delivery_that_nobody_waited_for_is_told_by_flush_once() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let (gone, kept) =
        (log.create_topic("a", TopicConfig::new())?, log.create_topic("b", TopicConfig::new())?);
    let producer = log.producer().durability(Durability::Disk).build()?;
    drop(producer.send(&gone, Record::new("x"))?);
    let other = producer.send(&kept, Record::new("x"))?;
    log.delete_topic("a")?;
    let error = producer.flush().unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopicOrPartition, Some("a")));
    assert!(other.is_done(), "the others are kept all the same");
    producer.flush()?;
    drop(producer.send(&kept, Record::new("x"))?);
    log.delete_topic("b")?;
    let error = producer.close(Duration::from_secs(30)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
    Ok(())
}

#[test]
fn options_of_a_send_stand_over_those_of_its_producer() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new())?;
    let sent = |producer: &Producer, options| producer.send_with(&ticks, Record::new("x"), options)?.wait();
    let disk = log.producer().acks(Acks::Leader).durability(Durability::Disk).build()?;
    let delivered = sent(&disk, SendOptions::new())?;
    assert_eq!((delivered.acks, delivered.durability), (Acks::Leader, Durability::Disk));
    let delivered = sent(&disk, SendOptions::new().durability(Durability::Process))?;
    assert_eq!((delivered.acks, delivered.durability), (Acks::Leader, Durability::Process));
    let delivered = sent(&disk, SendOptions::new().acks(Acks::None))?;
    assert_eq!((delivered.acks, delivered.durability), (Acks::None, Durability::Process));
    let none = log.producer().acks(Acks::None).build()?;
    let both = SendOptions::new().acks(Acks::None).durability(Durability::Disk);
    for (producer, options) in [(&disk, both), (&none, SendOptions::new().durability(Durability::Disk))] {
        assert_eq!(sent(producer, options).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
    assert_eq!(ends(&log, "ticks"), [3]);
    Ok(())
}

#[test]
fn send_if_appends_where_nobody_else_did() -> Result<()> {
    let log = Log::in_memory()?;
    let ticks = log.create_topic("ticks", TopicConfig::new().partitions(3))?;
    let producer = log.producer().build()?;
    assert_eq!(producer.send_if(&ticks, 0, Record::new("a").partition(1))?.offset(), 0);
    let error = producer.send_if(&ticks, 0, Record::new("b").partition(1)).unwrap_err();
    assert_eq!((error.kind(), error.partition()), (ErrorKind::UnexpectedEndOffset, Some(1)));
    // Of many that saw the same end one gets in.
    let won: usize = std::thread::scope(|scope| {
        let send = || producer.send_if(&ticks, 0, Record::new("c").key("foobar")).is_ok();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|t| usize::from(t.join().unwrap())).sum()
    });
    assert_eq!((won, ends(&log, "ticks")), (1, vec![1, 1, 0]));
    Ok(())
}

#[test]
fn a_quota_lets_one_second_through_and_then_one_by_one() -> Result<()> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    let log = Log::builder().clock(Arc::clone(&clock)).in_memory()?;
    let ticks = log.create_topic("ticks", TopicConfig::new().max_record_bytes(5_000))?;
    // Frames of 100 bytes, padded to 104.
    let tick = || Record::new(&[0; 68]);
    let producer = log.producer().quota(1_040).build()?;
    let burst = |most: usize| (0..most).take_while(|_| producer.try_send(&ticks, tick()).is_ok()).count();
    assert_eq!(burst(99), 10);
    let error = producer.try_send(&ticks, tick()).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::ThrottlingQuotaExceeded, Some("ticks")));
    assert!(error.is_retriable());
    clock.advance(Duration::from_millis(99));
    assert_eq!(burst(99), 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!(burst(99), 1);
    clock.advance(Duration::from_secs(3600));
    // What fails takes nothing from the quota.
    assert_eq!(
        producer.try_send(&ticks, Record::new(&[0; 6_000])).unwrap_err().kind(),
        ErrorKind::RecordTooLarge
    );
    assert_eq!(burst(99), 10, "an hour of rest is one second of burst");
    let error = producer.send_timeout(&ticks, tick(), Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ThrottlingQuotaExceeded);
    // Others are not concerned.
    log.producer().build()?.try_send(&ticks, tick())?;
    assert_eq!(log.producer().quota(0).build().unwrap_err().kind(), ErrorKind::InvalidConfig);

    // Who may wait does: until there is enough, and not longer.
    let begun = clock.now();
    let patient = log.producer().quota(104).build()?;
    std::thread::scope(|scope| {
        let sends = scope.spawn(|| (0..3).try_for_each(|_| patient.send(&ticks, tick()).map(drop)));
        while !sends.is_finished() {
            clock.advance(Duration::from_millis(100));
            std::thread::yield_now();
        }
        sends.join().unwrap()
    })?;
    assert!(clock.now() >= begun.saturating_add(Duration::from_secs(2)));
    Ok(())
}

#[test]
fn b_17_what_a_delivery_tells_for_each_acks() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new())?;
    // acks 0: the real offset (Kafka: -1), and no promise.
    let none = log.producer().acks(Acks::None).build()?;
    let sent = none.send(&ticks, Record::new("a"))?;
    assert!(sent.is_done());
    let delivered = sent.wait()?;
    assert_eq!((delivered.offset, delivered.acks), (0, Acks::None));
    // acks 1: the offset after the append.
    let leader = log.producer().acks(Acks::Leader).build()?;
    let delivered = leader.send(&ticks, Record::new("b"))?.wait()?;
    assert_eq!((delivered.offset, delivered.durability), (1, Durability::Process));
    // acks all: once the durability asked for is kept.
    let all = log.producer().acks(Acks::All).durability(Durability::Disk).build()?;
    let sent = all.send(&ticks, Record::new("c"))?;
    let delivered = sent.wait()?;
    assert_eq!((delivered.offset, delivered.durability), (2, Durability::Disk));
    assert_eq!(ticks.partition(0)?.durable_offset(), 3);
    // Nothing and something cannot be promised together.
    let error = log.producer().acks(Acks::None).durability(Durability::Disk).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    // In memory everything is accepted, and what it is worth is said.
    let memory = Log::in_memory()?;
    memory.create_topic("ticks", TopicConfig::new())?;
    let disk = memory.producer().durability(Durability::Disk).build()?;
    assert_eq!(disk.send("ticks", Record::new("a"))?.wait()?.durability, Durability::Memory);
    Ok(())
}

#[test]
fn b_19_every_codec_gives_back_what_was_sent() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let codecs = [
        Compression::None,
        #[cfg(feature = "gzip")]
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd,
    ];
    let tick = |i: usize| format!(r#"{{"symbol":"AAPL","price":{}.23,"volume":{}}}"#, 150 + i % 7, i * 100);
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new())?;
    let producer = log.producer().build()?;
    for (n, codec) in codecs.iter().enumerate() {
        ticks.alter(TopicConfig::new().compression(*codec))?;
        for i in 0..1000 {
            let headers: [(&str, &[u8]); 2] = [("codec", &[u8::try_from(n).unwrap()]), ("codec", b"")];
            let _ = producer.send(&ticks, Record::new(&tick(i)).key("AAPL").headers(&headers))?;
        }
        log.sync()?;
    }
    // From the files, not from memory: one segment with blocks of every codec.
    drop((producer, ticks));
    log.close(Duration::from_secs(30))?;
    let log = Log::open(dir.path())?;
    let partition = log.topic("ticks")?.partition(0)?;
    assert_eq!(partition.segments().len(), 1);
    let mut reader = partition.reader(0)?;
    for n in 0..codecs.len() {
        for i in 0..1000 {
            let record = reader.try_next()?.unwrap();
            assert_eq!(record.value(), Some(tick(i).as_bytes()));
            let headers: Vec<_> = record.headers().collect();
            assert_eq!(headers, [("codec", &[u8::try_from(n).unwrap()][..]), ("codec", &[][..])]);
        }
    }
    assert!(reader.try_next()?.is_none());
    // A codec that this build does not have is named.
    let error =
        log.topic("ticks")?.alter(TopicConfig::new().compression(Compression::Custom(200))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedCompressionType);
    assert!(error.to_string().contains("200"), "{error}");
    Ok(())
}

/// A flush that was refused inside a callback had taken the open promises with it: a later flush returned at once
/// and kept nothing.
#[test]
fn a_flush_refused_in_a_callback_forgets_no_promise() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path())?;
    let ticks = log.create_topic("ticks", TopicConfig::new().partitions(2))?;
    let producer = Arc::new(log.producer().durability(Durability::Disk).build()?);
    let (told, heard) = mpsc::channel();
    let inside = Arc::clone(&producer);
    let topic = ticks.clone();
    producer.send(&ticks, Record::new("a").partition(0))?.on_complete(move |_| {
        let open = inside.send(&topic, Record::new("b").partition(1)).unwrap();
        let refused = inside.flush().unwrap_err().kind();
        told.send((refused, open)).unwrap();
    });
    let (refused, open) = heard.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(refused, ErrorKind::IllegalState);
    producer.flush()?;
    assert!(open.is_done());
    Ok(())
}
