//! The log: append, read, roll, lock.

use std::time::Duration;

use tapelog::{ErrorKind, Log, Partition, Record, TopicConfig};

fn partition(config: TopicConfig) -> Partition {
    Log::in_memory().unwrap().create_topic("t", config).unwrap().partition(0).unwrap()
}

/// How many bytes a record takes in the log: the smallest `max_record_bytes` that lets it in.
fn size(record: Record<'_>) -> u32 {
    let fits = |bytes: u32| partition(TopicConfig::new().max_record_bytes(bytes)).append(record).is_ok();
    (1..4_096).find(|bytes| fits(*bytes)).unwrap()
}

fn read_all(partition: &Partition) -> usize {
    partition.reader(0).unwrap().read(usize::MAX).unwrap().len()
}

#[test]
fn l_01_append_and_read_with_sequential_offsets() {
    let partition = partition(TopicConfig::new());
    for i in 0..50u64 {
        partition.append(Record::new(&(2 * i).to_be_bytes())).unwrap();
    }
    for i in 0..50u64 {
        let mut reader = partition.reader(i).unwrap();
        let record = reader.try_next().unwrap().unwrap();
        assert_eq!((record.offset(), record.key()), (i, None));
        assert_eq!(record.value(), Some(&(2 * i).to_be_bytes()[..]));
    }
    assert!(partition.reader(50).unwrap().try_next().unwrap().is_none());
    assert!(partition.reader(50).unwrap().read(10).unwrap().is_empty());
}

#[test]
fn l_11_a_segment_rolls_when_the_next_record_does_not_fit() {
    let record = Record::new("a value of some length").key("key");
    let config = TopicConfig::new().segment_bytes(10 * u64::from(size(record) - 1));
    let partition = partition(config);
    for _ in 0..11 {
        partition.append(record).unwrap();
    }
    // Nine fit, so that the tenth begins the second.
    assert_eq!(partition.segments(), [0, 9]);
    assert_eq!(read_all(&partition), 11);
}

#[test]
fn l_13_a_batch_larger_than_a_segment_is_refused_whole() {
    let records = [Record::new("one"), Record::new("two").key("k"), Record::new("three")];
    let total: u32 = records.iter().map(|r| size(*r)).sum();
    let small = partition(TopicConfig::new().segment_bytes(u64::from(total) - 1));
    let error = small.append_batch(&records).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::RecordBatchTooLarge, Some("t")));
    assert_eq!((small.end_offset(), read_all(&small), small.segments().len()), (0, 0, 0));
    let large = partition(TopicConfig::new().segment_bytes(u64::from(total)));
    large.append_batch(&records).unwrap();
    assert_eq!((large.segments(), read_all(&large)), (vec![0], 3));
}

#[test]
fn l_45_null_is_null_and_empty_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    let check = |partition: &Partition| {
        let records = partition.reader(0).unwrap().read(10).unwrap();
        let values: Vec<_> = records.iter().map(|r| (r.key(), r.value())).collect();
        let empty = Some(&b""[..]);
        assert_eq!(values, [(Some(&b"key"[..]), None), (None, empty), (empty, None), (empty, empty)]);
    };
    partition.append(Record::tombstone("key")).unwrap();
    partition.append(Record::new("")).unwrap();
    partition.append(Record::tombstone("")).unwrap();
    partition.append(Record::new("").key("")).unwrap();
    check(&partition);
    log.close(Duration::from_secs(20)).unwrap();
    let log = Log::open(dir.path()).unwrap();
    check(&log.topic("t").unwrap().partition(0).unwrap());
}

/// Every file below a directory, with its bytes.
fn everything(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(everything(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

#[test]
fn l_57_a_directory_that_is_open_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    partition.append(Record::new("a")).unwrap();
    log.sync().unwrap();
    let before = everything(dir.path());
    for open in [Log::open(dir.path()), Log::open_existing(dir.path())] {
        let error = open.map(drop).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Locked, Some(dir.path())));
    }
    assert!(everything(dir.path()) == before, "the open that failed has changed something");
    partition.append(Record::new("b")).unwrap();
    drop((partition, log));
    assert_eq!(read_all(&Log::open(dir.path()).unwrap().topic("t").unwrap().partition(0).unwrap()), 2);
}
