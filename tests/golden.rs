//! Logs that earlier versions wrote, as they lie in `tests/golden`: each opens for ever, and holds what it held.
//!
//! A release adds its own, and removes none: `TAPELOG_GOLDEN=0.2 cargo test --test golden` makes `tests/golden/0.2`, where
//! there is none of that name, of a log that was closed and of one that was killed. The files of the latter, which are mostly
//! zeros, lie there as their length (u64) and the runs of bytes in each 4096 that are not all zeros: where (u64), how
//! many (u64), and the bytes.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tapelog::{
    Compression, ErrorKind, Log, OffsetReset, Partition, Record, Timestamp, TopicConfig, TopicPartition,
};

const SOON: Duration = Duration::from_secs(20);
const BUDGET: u64 = 256 << 10;
/// Records per topic, and what came after the last flush.
const RECORDS: u64 = 24;
const HOT: u64 = 5;
const COMMITTED: u64 = 9;
/// The codecs of the default build, and a topic for each.
const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Snappy];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn builder() -> tapelog::LogBuilder {
    Log::builder().memory_budget(BUDGET).max_block(SOON)
}

fn name(compression: Compression) -> String {
    format!("{compression}")
}

fn value(offset: u64) -> Vec<u8> {
    format!("{{\"price\":{},\"size\":{},\"venue\":\"XNAS\"}}", 1_000 + offset * 7 % 13, offset * 100)
        .into_bytes()
}

fn key(offset: u64) -> String {
    format!("key {}", offset % 3)
}

fn time(offset: u64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + offset as i64)
}

/// One in seven has no value, one in five no key, one in four a header.
fn append(partition: &Partition, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        let (value, key) = (value(offset), key(offset));
        let record = if offset % 7 == 6 { Record::tombstone(&key) } else { Record::new(&value) };
        let record = if offset % 5 == 4 { record } else { record.key(&key) };
        let record = if offset % 4 == 3 { record.headers(&[("trace", b"a1b2")]) } else { record };
        partition.append(record.timestamp(time(offset))).unwrap();
    }
}

fn check(partition: &Partition, count: u64) {
    assert_eq!((partition.start_offset(), partition.end_offset()), (0, count));
    let mut reader = partition.reader(0).unwrap();
    for offset in 0..count {
        let record = reader.try_next().unwrap().unwrap();
        assert_eq!((record.offset(), record.timestamp()), (offset, time(offset)));
        assert_eq!(record.value(), (offset % 7 != 6).then(|| value(offset)).as_deref());
        let has_key = offset % 7 == 6 || offset % 5 != 4;
        assert_eq!(record.key(), has_key.then(|| key(offset)).as_deref().map(str::as_bytes));
        assert_eq!(record.headers().count(), usize::from(offset % 4 == 3));
    }
    assert!(reader.try_next().unwrap().is_none());
}

fn write(log: &Log) {
    for compression in CODECS {
        let config = TopicConfig::new().compression(compression).segment_bytes(1_500);
        let partition = log.create_topic(&name(compression), config).unwrap().partition(0).unwrap();
        append(&partition, 0..RECORDS / 2);
        partition.wait_written(RECORDS / 2, SOON).unwrap();
        append(&partition, RECORDS / 2..RECORDS);
        partition.wait_written(RECORDS, SOON).unwrap();
    }
    let group = log.consumer_group("g").unwrap();
    let mut consumer = group.consumer().offset_reset(OffsetReset::Earliest).subscribe(["none"]).unwrap();
    while consumer.poll(SOON).unwrap().is_empty() {}
    consumer.commit_offsets([(TopicPartition::new("none", 0), COMMITTED)]).unwrap();
    consumer.close().unwrap();
    log.sync().unwrap();
}

/// Makes the golden logs of a version.
fn make(to: &Path) {
    assert!(!to.exists(), "what is there is not made again");
    let log = builder().open(to.join("closed")).unwrap();
    write(&log);
    log.close(SOON).unwrap();
    let killed = to.join("killed");
    let log = builder().open(&killed).unwrap();
    write(&log);
    for compression in CODECS {
        let topic = log.topic(&name(compression)).unwrap();
        topic.alter(TopicConfig::new().block_linger(Duration::from_secs(3_600))).unwrap();
        append(&topic.partition(0).unwrap(), RECORDS..RECORDS + HOT);
    }
    drop(log);
    let mut files = Vec::new();
    find(&killed, &mut files);
    for path in files {
        let packed = pack(&fs::read(&path).unwrap());
        fs::write(&path, packed).unwrap();
    }
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = (bytes.len() as u64).to_le_bytes().to_vec();
    for (page, at) in bytes.chunks(4096).zip((0u64..).step_by(4096)) {
        if let Some(first) = page.iter().position(|b| *b != 0) {
            let run = &page[first..=page.iter().rposition(|b| *b != 0).unwrap()];
            packed.extend((at + first as u64).to_le_bytes());
            packed.extend((run.len() as u64).to_le_bytes());
            packed.extend(run);
        }
    }
    packed
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let number = |at: usize| u64::from_le_bytes(packed[at..at + 8].try_into().unwrap()) as usize;
    let (mut bytes, mut at) = (vec![0; number(0)], 8);
    while at < packed.len() {
        let (to, len) = (number(at), number(at + 8));
        bytes[to..to + len].copy_from_slice(&packed[at + 16..at + 16 + len]);
        at += 16 + len;
    }
    bytes
}

fn is_staging(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_str().unwrap().starts_with("staging-"))
}

/// A copy that can be opened, for an open changes files.
fn copy(from: &Path, to: &Path, packed: bool) {
    fs::create_dir_all(to).unwrap();
    for path in fs::read_dir(from).unwrap().map(|e| e.unwrap().path()) {
        let copied = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &copied, packed);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        fs::write(copied, if packed { unpack(&bytes) } else { bytes }).unwrap();
    }
}

fn versions() -> Vec<PathBuf> {
    static MAKES: Mutex<()> = Mutex::new(());
    let _alone = MAKES.lock().unwrap();
    if let Ok(version) = std::env::var("TAPELOG_GOLDEN")
        && !golden().join(&version).exists()
    {
        make(&golden().join(version));
    }
    let mut versions: Vec<_> = fs::read_dir(golden()).unwrap().map(|e| e.unwrap().path()).collect();
    versions.sort();
    assert!(versions.iter().any(|v| v.ends_with("0.1")), "logs of an earlier version are gone");
    versions
}

#[test]
fn logs_of_every_version_open() {
    for version in versions() {
        for (kind, count) in [("closed", RECORDS), ("killed", RECORDS + HOT)] {
            let dir = tempfile::tempdir().unwrap();
            copy(&version.join(kind), dir.path(), kind == "killed");
            let verified = builder().verify(dir.path()).unwrap();
            assert!(verified.is_sound(), "{}: {verified:?}", version.display());
            for round in 0..2 {
                let log = builder().open_existing(dir.path()).unwrap();
                let report = log.recovery_report();
                assert!(
                    !report.has_losses() && report.clean == (round > 0 || kind == "closed"),
                    "{report:?}"
                );
                for compression in CODECS {
                    let partition = log.topic(&name(compression)).unwrap().partition(0).unwrap();
                    check(&partition, count + round);
                    append(&partition, count + round..count + round + 1);
                }
                let group = log.consumer_group("g").unwrap();
                assert_eq!(group.committed(&TopicPartition::new("none", 0)).unwrap(), Some(COMMITTED));
                log.close(SOON).unwrap();
            }
        }
    }
}

fn put_crc(bytes: &mut [u8], covered: std::ops::Range<usize>, at: usize) {
    let crc = crc32fast::hash(&bytes[covered]).to_le_bytes();
    bytes[at..at + 4].copy_from_slice(&crc);
}

/// What a later version may have written, sound by its checksums: the open says so, and touches nothing.
#[test]
fn what_a_later_version_wrote_is_told() {
    type Edit = fn(&mut Vec<u8>);
    let edits: [(&str, &str, Edit); 8] = [
        ("root file, version", "root", |b| b[8] = 9),
        ("staging, version", "staging-", |b| b[8] = 9),
        ("staging, granule", "staging-", |b| b[13] = 0x20),
        ("segment, version", ".log", |b| b[4] = 9),
        ("segment, flags", ".log", |b| b[7] = 0x80),
        ("segment, flags", ".log", |b| b[6] = 1),
        ("block, version", ".log", |b| b[64 + 4] = 9),
        ("block, attributes", ".log", |b| b[64 + 7] = 0x40),
    ];
    for version in versions() {
        for (what, file, edit) in edits {
            let dir = tempfile::tempdir().unwrap();
            copy(&version.join("killed"), dir.path(), true);
            let mut found = Vec::new();
            find(dir.path(), &mut found);
            let is_it = |p: &&PathBuf| match file {
                ".log" => {
                    p.to_str().unwrap().contains("/lz4.")
                        && p.to_str().unwrap().contains("/00000000000000000000-")
                }
                name => p.file_name().unwrap().to_str().unwrap().starts_with(name),
            };
            let paths: Vec<_> = found.iter().filter(is_it).collect();
            assert!(!paths.is_empty(), "{what}");
            for path in paths {
                let mut bytes = fs::read(path).unwrap();
                edit(&mut bytes);
                match file {
                    "root" => {
                        let end = bytes.len() - 4;
                        put_crc(&mut bytes, 0..end, end);
                    }
                    "staging-" => put_crc(&mut bytes, 8..64, 4),
                    _ => {
                        put_crc(&mut bytes, 0..60, 60);
                        put_crc(&mut bytes, 64..64 + 156, 64 + 156);
                    }
                }
                fs::write(path, bytes).unwrap();
            }
            let before = contents(dir.path());
            let refused = match builder().open_existing(dir.path()) {
                Err(e) => e,
                Ok(log) => {
                    // It is found where it is read.
                    let partition = log.topic("lz4").unwrap().partition(0).unwrap();
                    partition.reader(0).unwrap().try_next().map(drop).unwrap_err()
                }
            };
            assert_eq!(refused.kind(), ErrorKind::UnsupportedVersion, "{what}: {refused:?}");
            assert!(refused.path().is_some(), "{what}: {refused:?}");
            let after = contents(dir.path());
            let changed: Vec<_> = before.iter().zip(&after).filter(|(one, other)| one != other).collect();
            assert!(before.len() == after.len() && changed.is_empty(), "{what}: {changed:?}");
        }
    }
}

fn find(dir: &Path, into: &mut Vec<PathBuf>) {
    for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() { find(&path, into) } else { into.push(path) }
    }
    into.sort();
}

/// All files, but for the lock, and for what any open may do: give reserved space back, and take the testimony out of
/// the head of a staging file.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths = Vec::new();
    find(dir, &mut paths);
    let read = |path: PathBuf| {
        let mut bytes = fs::read(&path).unwrap();
        if is_staging(&path) {
            bytes.drain(..4096);
        }
        bytes.truncate(bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1));
        (path, bytes)
    };
    paths.into_iter().filter(|path| !path.ends_with("LOCK")).map(read).collect()
}
