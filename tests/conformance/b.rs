//! Sending: offsets, promises, codecs, and partitioners at work in a log.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tapelog::partitioner::RoundRobin;
use tapelog::{Acks, Compression, Durability, ErrorKind, Log, Record, Result, TopicConfig};

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
