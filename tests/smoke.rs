//! First contact.
use std::time::Duration;
use tapelog::*;

#[test]
fn durable_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    {
        let log = Log::open(&path).unwrap();
        let t = log
            .create_topic("ticks", TopicConfig::new().partitions(2).compression(Compression::Lz4))
            .unwrap();
        let p = t.partition(0).unwrap();
        for i in 0..100_000u64 {
            let d = p
                .append(Record::new(&format!("value {i} aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")).key("k"))
                .unwrap();
            assert_eq!(d.offset(), i);
        }
        let mut r = p.reader(0).unwrap();
        for i in 0..100_000u64 {
            let rec = r.try_next().unwrap().unwrap();
            assert_eq!(rec.offset(), i);
        }
        p.wait_durable(100_000, Duration::MAX).unwrap();
        log.close(Duration::from_secs(10)).unwrap();
    }
    {
        let log = Log::open(&path).unwrap();
        println!("{:?}", log.recovery_report());
        let p = log.topic("ticks").unwrap().partition(0).unwrap();
        assert_eq!(p.end_offset(), 100_000);
        let mut r = p.reader(0).unwrap();
        for i in 0..100_000u64 {
            let rec = r.try_next().unwrap().unwrap();
            assert_eq!(rec.offset(), i);
        }
        for _ in 0..1000 {
            p.append(Record::new("x")).unwrap();
        }
        // dropped without a close
    }
    {
        let log = Log::open(&path).unwrap();
        println!("{:?}", log.recovery_report());
        let p = log.topic("ticks").unwrap().partition(0).unwrap();
        assert_eq!(p.end_offset(), 101_000);
        let mut r = p.reader(100_000).unwrap();
        assert_eq!(r.read(5000).unwrap().len(), 1000);
    }
}
