//! A small log, and what is made of it when its files are not as they were written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tapelog::admin::RecoveryReport;
use tapelog::{Compression, ErrorKind, Log, OffsetReset, Partition, Record, TopicConfig};

pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Records of topic "t".
pub(crate) const RECORDS: u64 = 12;
/// What a group committed there.
pub(crate) const COMMITTED: u64 = 7;
/// Who stumbled so often gives up.
const MANY: usize = 1_000;
/// The least that staging takes.
const BUDGET: u64 = 256 << 10;

/// The value of a record follows from its offset.
pub(crate) fn value(offset: u64) -> Vec<u8> {
    format!("{offset} is worth {} ", offset * 7919 % 1013)
        .bytes()
        .cycle()
        .take(60 + offset as usize)
        .collect()
}

pub(crate) fn builder() -> tapelog::LogBuilder {
    Log::builder().memory_budget(BUDGET).max_block(SOON)
}

/// Files by their path below a directory, and what is in them. To make a directory of them takes no open.
#[derive(Clone)]
pub(crate) struct Image(pub(crate) BTreeMap<PathBuf, Vec<u8>>);

impl Image {
    pub(crate) fn of(dir: &Path) -> Image {
        fn read(root: &Path, dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    read(root, &path, into);
                } else {
                    into.insert(path.strip_prefix(root).unwrap().to_path_buf(), fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        read(dir, dir, &mut files);
        Image(files)
    }

    /// Makes the files in an empty place.
    pub(crate) fn put(&self, dir: &Path) {
        if dir.exists() {
            fs::remove_dir_all(dir).unwrap();
        }
        for (path, bytes) in &self.0 {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// The path of the only file that `is_it`.
    pub(crate) fn only(&self, is_it: impl Fn(&str) -> bool) -> PathBuf {
        let mut found = self.0.keys().filter(|p| is_it(p.to_str().unwrap()));
        let path = found.next().unwrap().clone();
        assert!(found.next().is_none());
        path
    }
}

/// A place for files that a test makes again and again: in memory where there is such a place.
pub(crate) fn place() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn config() -> TopicConfig {
    // Segments of four records.
    TopicConfig::new().segment_bytes(512).compression(Compression::Lz4)
}

/// A log of a topic "t" with [`RECORDS`] records, one to a block, and one committed offset; closed.
pub(crate) fn closed(dir: &Path) -> Image {
    let log = builder().open(dir).unwrap();
    write(&log);
    log.close(SOON).unwrap();
    Image::of(dir)
}

/// The same with `hot` further records, let go of before they were written, as if the process were killed.
pub(crate) fn killed(dir: &Path, hot: u64) {
    let log = builder().open(dir).unwrap();
    let partition = write(&log);
    log.sync().unwrap();
    // Not written for an hour.
    let topic = log.topic("t").unwrap();
    topic.alter(TopicConfig::new().block_linger(Duration::from_secs(3_600))).unwrap();
    (RECORDS..RECORDS + hot).for_each(|n| drop(partition.append(Record::new(&value(n))).unwrap()));
}

fn write(log: &Log) -> Partition {
    let topic = log.create_topic("t", config()).unwrap();
    let partition = topic.partition(0).unwrap();
    for offset in 0..RECORDS {
        partition.append(Record::new(&value(offset))).unwrap();
        partition.wait_written(offset + 1, SOON).unwrap();
    }
    let group = log.consumer_group("g").unwrap();
    let mut consumer = group.consumer().offset_reset(OffsetReset::Earliest).subscribe(["t"]).unwrap();
    while consumer.poll(SOON).unwrap().is_empty() {}
    let tp = tapelog::TopicPartition::new("t", 0);
    consumer.commit_offsets([(tp, COMMITTED)]).unwrap();
    consumer.close().unwrap();
    partition
}

/// What can be read of a log that was tampered with.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Why it was not opened.
    pub(crate) refused: Option<ErrorKind>,
    /// The offsets that were read, all with the right bytes.
    pub(crate) offsets: Vec<u64>,
    /// Where reading stumbled.
    pub(crate) stumbles: Vec<Option<u64>>,
    pub(crate) committed: Option<u64>,
    /// Whether the open reported a loss.
    pub(crate) reported: bool,
    /// So many records had bytes that nobody wrote.
    pub(crate) wrong: u64,
}

impl Seen {
    /// The records that were written and cannot be read.
    pub(crate) fn lost(&self, written: u64) -> Vec<u64> {
        (0..written).filter(|n| !self.offsets.contains(n)).collect()
    }

    /// Whether somebody was told that something is amiss.
    pub(crate) fn told(&self) -> bool {
        self.refused.is_some() || self.reported || !self.stumbles.is_empty()
    }
}

/// Opens the log, reads all of it, and ends it.
pub(crate) fn look(dir: &Path) -> (Seen, Option<RecoveryReport>) {
    let mut seen = Seen::default();
    let log = match builder().open_existing(dir) {
        Ok(log) => log,
        Err(e) => {
            seen.refused = Some(e.kind());
            return (seen, None);
        }
    };
    let report = log.recovery_report().clone();
    seen.reported = report.has_losses();
    if let Ok(topic) = log.topic("t") {
        read(&topic.partition(0).unwrap(), &mut seen);
        let group = log.consumer_group("g").unwrap();
        match group.committed(&tapelog::TopicPartition::new("t", 0)) {
            Ok(committed) => seen.committed = committed,
            Err(_) => seen.stumbles.push(None),
        }
    }
    (seen, Some(report))
}

fn read(partition: &Partition, seen: &mut Seen) {
    let end = partition.end_offset();
    let mut reader = match partition.reader(partition.start_offset()) {
        Ok(reader) => reader,
        Err(e) => return seen.stumbles.push(e.offset()),
    };
    loop {
        match reader.try_next() {
            Ok(Some(record)) => {
                let offset = record.offset();
                seen.wrong += u64::from(record.value() != Some(&value(offset)[..]));
                seen.offsets.push(offset);
            }
            Ok(None) => return,
            Err(e) => {
                seen.stumbles.push(e.offset());
                let next = reader.position() + 1;
                // Who made checksums right may have said that there are 2^60 records.
                if next > end || seen.stumbles.len() > MANY || reader.seek(next).is_err() {
                    return;
                }
            }
        }
    }
}
