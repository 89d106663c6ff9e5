//! The model: whatever is done to a log, it holds what a `Vec` per partition says.
//!
//! A case is a list of steps against one log; the oracle is a vector of records per partition. After every
//! reopen, clean or not, all of it must be there: same bytes, dense offsets, same order, nothing reported
//! lost, and the leader epoch raised only where the stop was unclean.
//!
//! The seed is printed, and `TAPELOG_SEED=n` replays it. A long run (`TAPELOG_CASES` of them, 5,000 by default):
//! `cargo test --release --lib model -- --ignored --nocapture`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use crate::clock::{ManualClock, Timestamp};
use crate::codec::Compression;
use crate::error::ErrorKind;
use crate::frame::frame_len;
use crate::log::catalog::TopicConfig;
use crate::log::core::LogCore;
use crate::log::opening::LogBuilder;
use crate::log::topic::Topic;
use crate::partition::core::MAX_APPEND;
use crate::partition::records::ConsumerRecord;
use crate::partition::{Partition, Reader};
use crate::record::Record;
use crate::storage::arena::random_nonzero;

/// What the clock says to records that bring no timestamp.
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const PARTITIONS: u32 = 3;

/// A record as the oracle keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rec {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    timestamp: Option<i64>,
}

/// What a generated record looks like; its bytes follow from this and its number.
#[derive(Debug, Clone, Copy)]
struct Shape {
    len: Option<usize>,
    key: Option<u8>,
    headers: u8,
    timestamp: Option<i32>,
    /// Random bytes, or text that compresses.
    noise: bool,
}

impl Shape {
    fn record(self, seed: u64) -> Rec {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut byte = move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32).to_le_bytes()[0]
        };
        let mut bytes = |len: usize| -> Vec<u8> {
            if self.noise {
                (0..len).map(|_| byte()).collect()
            } else {
                format!("{seed:016x} all work and no play ").bytes().cycle().take(len).collect()
            }
        };
        Rec {
            key: self.key.map(|len| bytes(usize::from(len))),
            value: self.len.map(&mut bytes),
            headers: (0..self.headers).map(|i| (format!("h{}", i / 2), bytes(usize::from(i) * 5))).collect(),
            timestamp: self.timestamp.map(|t| i64::from(t) * 1_000_003),
        }
    }
}

/// How a log ends before it is opened again.
#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    Crash,
    Drop,
    /// Dropped, and a copy of the directory is opened in its place.
    Copy,
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        partition: u32,
        shapes: Vec<Shape>,
    },
    /// Many records of one shape: more than the budget holds, so that the oldest turn cold.
    Fill {
        partition: u32,
        shape: Shape,
        bytes: usize,
    },
    Read {
        partition: u32,
        from: u16,
        max: usize,
    },
    TryNext {
        partition: u32,
        from: u16,
        max: usize,
    },
    /// A reader that was left standing somewhere goes on to the end.
    GoOn {
        partition: u32,
        max: usize,
    },
    WaitDurable {
        partition: u32,
    },
    Alter(Compression),
    Reopen(End),
}

fn shape(len: impl Strategy<Value = usize> + 'static) -> impl Strategy<Value = Shape> {
    let key = prop_oneof![Just(None), Just(Some(0)), (1u8..40).prop_map(Some)];
    let timestamp = prop_oneof![2 => Just(None), 1 => any::<i32>().prop_map(Some)];
    let headers = prop_oneof![4 => Just(0u8), 1 => 1u8..5];
    (prop_oneof![1 => Just(None), 9 => len.prop_map(Some)], key, headers, timestamp, any::<bool>())
        .prop_map(|(len, key, headers, timestamp, noise)| Shape { len, key, headers, timestamp, noise })
}

fn append() -> impl Strategy<Value = Vec<Shape>> {
    let some =
        |len: std::ops::Range<usize>, n: std::ops::Range<usize>| prop::collection::vec(shape(len), n).boxed();
    prop_oneof![
        10 => some(0..300, 1..2),
        8 => some(0..300, 1..50),
        2 => some(1_000..20_000, 1..2),
        2 => some(1_000..20_000, 1..12),   // more than a block
        1 => some(60_000..90_000, 1..2),   // more than a small slot
        1 => some(20_000..60_000, 8..16),  // more than a middle slot
    ]
}

fn step(durable: bool) -> BoxedStrategy<Step> {
    let partition = || 0..PARTITIONS;
    let compression = prop::sample::select(vec![Compression::None, Compression::Lz4, Compression::Snappy]);
    let max = || prop_oneof![1usize..5, 1usize..400];
    let always = prop_oneof![
        14 => (partition(), append()).prop_map(|(partition, shapes)| Step::Append { partition, shapes }),
        4 => (partition(), shape(50usize..900), 50_000usize..400_000)
            .prop_map(|(partition, shape, bytes)| Step::Fill { partition, shape, bytes }),
        6 => (partition(), any::<u16>(), max())
            .prop_map(|(partition, from, max)| Step::Read { partition, from, max }),
        4 => (partition(), any::<u16>(), max())
            .prop_map(|(partition, from, max)| Step::TryNext { partition, from, max }),
        6 => (partition(), max()).prop_map(|(partition, max)| Step::GoOn { partition, max }),
        2 => partition().prop_map(|partition| Step::WaitDurable { partition }),
        2 => compression.prop_map(Step::Alter),
    ];
    if !durable {
        return always.boxed();
    }
    let ends = prop::sample::select(vec![End::Close, End::Crash, End::Crash, End::Drop, End::Copy]);
    prop_oneof![40 => always, 6 => ends.prop_map(Step::Reopen)].boxed()
}

/// The settings of a case, and what is done.
#[derive(Debug, Clone)]
struct Case {
    budget: u64,
    segment_bytes: u64,
    linger: Duration,
    steps: Vec<Step>,
}

fn case(durable: bool) -> impl Strategy<Value = Case> {
    (
        prop::sample::select(vec![256u64 << 10, 256 << 10, 1 << 20, 8 << 20]),
        prop::sample::select(vec![2_000u64, 30_000, 150_000, 2 << 20, 1 << 30]),
        prop::sample::select(vec![Duration::ZERO, Duration::from_millis(1), Duration::from_secs(3600)]),
        prop::collection::vec(step(durable), 1..50),
    )
        .prop_map(|(budget, segment_bytes, linger, steps)| Case { budget, segment_bytes, linger, steps })
}

struct World {
    dir: Option<tempfile::TempDir>,
    place: PathBuf,
    places: u32,
    case: Case,
    log: Option<Arc<LogCore>>,
    partitions: Vec<Partition>,
    readers: Vec<Option<Reader>>,
    oracle: Vec<Vec<Rec>>,
    count: u64,
}

type Checked = Result<(), TestCaseError>;

macro_rules! must {
    ($e:expr) => {
        $e.map_err(|e| TestCaseError::fail(format!("{}:{}: {e:?}", file!(), line!())))?
    };
}

impl World {
    fn new(case: Case, durable: bool) -> Result<World, TestCaseError> {
        let dir = if durable { Some(must!(tempfile::tempdir())) } else { None };
        let place = dir.as_ref().map_or_else(PathBuf::new, |d| d.path().join("0"));
        let mut world = World {
            dir,
            place,
            places: 0,
            case,
            log: None,
            partitions: Vec::new(),
            readers: Vec::new(),
            oracle: vec![Vec::new(); PARTITIONS as usize],
            count: 0,
        };
        world.open()?;
        Ok(world)
    }

    fn open(&mut self) -> Checked {
        let builder = LogBuilder::default()
            .clock(Arc::new(ManualClock::new(NOW)))
            .max_block(Duration::from_secs(20))
            .memory_budget(self.case.budget);
        let log = match self.dir {
            Some(_) => must!(builder.begin_in(&self.place, true)),
            None => must!(builder.begin_in_memory()),
        };
        let config = TopicConfig::new()
            .partitions(PARTITIONS)
            .segment_bytes(self.case.segment_bytes)
            .block_linger(self.case.linger);
        let topic = Topic { core: must!(log.create_topic("t", &config, true)), log: Arc::clone(&log) };
        self.partitions = must!((0..PARTITIONS).map(|n| topic.partition(n)).collect::<Result<Vec<_>, _>>());
        self.readers = (0..PARTITIONS).map(|_| None).collect();
        self.log = Some(log);
        Ok(())
    }

    fn reopen(&mut self, end: End) -> Checked {
        let epoch = self.log.as_ref().map_or(0, |l| l.report.leader_epoch);
        self.readers.clear();
        self.partitions.clear();
        let log = self.log.take();
        let engine = log.as_ref().map(|log| Arc::downgrade(&log.engine));
        match (end, log) {
            (End::Close, Some(log)) => must!(log.close(Duration::from_secs(20))),
            (End::Crash, Some(log)) => log.crash(),
            (End::Drop | End::Copy, log) => drop(log),
            _ => {}
        }
        let left = engine.and_then(|engine| engine.upgrade());
        prop_assert!(left.is_none(), "something keeps a log that has ended");
        if let (End::Copy, Some(dir)) = (end, &self.dir) {
            self.places += 1;
            let to = dir.path().join(self.places.to_string());
            must!(copy_all(&self.place, &to));
            must!(std::fs::remove_dir_all(&self.place));
            self.place = to;
        }
        self.open()?;
        let report = &self.log.as_ref().unwrap().report;
        let clean = matches!(end, End::Close);
        prop_assert!(!report.has_losses(), "{report:?}");
        prop_assert_eq!(report.clean, clean);
        prop_assert_eq!(report.leader_epoch, epoch + u32::from(!clean));
        prop_assert!(!clean || report.replayed == 0, "{:?}", report);
        for partition in 0..PARTITIONS {
            self.check_all(partition)?;
        }
        Ok(())
    }

    fn append(&mut self, partition: u32, recs: Vec<Rec>) -> Checked {
        let at = partition as usize;
        let headers: Vec<Vec<(&str, &[u8])>> = recs
            .iter()
            .map(|r| r.headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect())
            .collect();
        let records: Vec<Record<'_>> = recs
            .iter()
            .zip(&headers)
            .map(|(rec, headers)| Record {
                key: rec.key.as_deref(),
                value: rec.value.as_deref(),
                headers,
                timestamp: rec.timestamp.map(Timestamp::from_nanos),
                partition: None,
            })
            .collect();
        let lens: Vec<usize> = records.iter().map(|r| frame_len(r, false).unwrap()).collect();
        let total: usize = lens.iter().sum();
        let pool = &self.log.as_ref().unwrap().engine.pool;
        let most = MAX_APPEND.min(pool.max_append()).min(usize::try_from(self.case.segment_bytes).unwrap());
        if total as u64 > self.case.budget / 4 {
            // Readers that stand still in more memory than the budget is hold up who appends, here for good.
            self.readers.iter_mut().for_each(|reader| *reader = None);
        }
        let before = self.oracle[at].len() as u64;
        match self.partitions[at].append_batch(&records) {
            Ok(delivery) => {
                prop_assert!(total <= most, "{total} bytes were taken");
                prop_assert_eq!(delivery.offsets(), before..before + recs.len() as u64);
                let last = records.last().map(|r| r.timestamp.unwrap_or(NOW));
                prop_assert_eq!(Some(delivery.timestamp()), last);
                self.oracle[at].extend(recs);
            }
            Err(e) if e.kind() == ErrorKind::RecordBatchTooLarge => {
                prop_assert!(total > most, "{total} bytes were refused: {e}");
                prop_assert_eq!((e.topic(), e.partition()), (Some("t"), Some(partition)));
            }
            Err(e) if e.kind() == ErrorKind::RecordTooLarge => {
                prop_assert!(lens.iter().any(|l| *l > 1 << 20), "{e}");
            }
            Err(e) => return Err(TestCaseError::fail(format!("append of {total} bytes: {e:?}"))),
        }
        prop_assert_eq!(self.partitions[at].end_offset(), self.oracle[at].len() as u64);
        Ok(())
    }

    fn check(&self, partition: u32, offset: u64, record: ConsumerRecord<'_>) -> Checked {
        let rec = &self.oracle[partition as usize][usize::try_from(offset).unwrap()];
        prop_assert_eq!((record.topic(), record.partition()), ("t", partition));
        prop_assert_eq!(record.offset(), offset);
        let same = record.key() == rec.key.as_deref() && record.value() == rec.value.as_deref();
        prop_assert!(same, "record {offset} of partition {partition} differs");
        let headers: Vec<(String, Vec<u8>)> =
            record.headers().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
        prop_assert_eq!(&headers, &rec.headers);
        prop_assert_eq!(record.timestamp(), rec.timestamp.map_or(NOW, Timestamp::from_nanos));
        Ok(())
    }

    fn check_all(&self, partition: u32) -> Checked {
        let end = self.oracle[partition as usize].len() as u64;
        let handle = &self.partitions[partition as usize];
        prop_assert_eq!((handle.start_offset(), handle.end_offset()), (0, end));
        let mut reader = must!(handle.reader(0));
        let mut offset = 0;
        loop {
            let records = must!(reader.read(500));
            if records.is_empty() {
                break;
            }
            for record in &records {
                self.check(partition, offset, record)?;
                offset += 1;
            }
        }
        prop_assert_eq!(offset, end);
        Ok(())
    }

    fn offset(&self, partition: u32, from: u16) -> u64 {
        let end = self.oracle[partition as usize].len() as u64;
        end * u64::from(from) / u64::from(u16::MAX)
    }

    fn run(&mut self, step: Step) -> Checked {
        match step {
            Step::Append { partition, shapes } => {
                self.count += 1;
                let seed = self.count << 16;
                let recs = shapes.iter().zip(seed..).map(|(shape, seed)| shape.record(seed)).collect();
                self.append(partition, recs)
            }
            Step::Fill { partition, shape, bytes } => {
                let mut done = 0;
                while done < bytes {
                    self.count += 1;
                    let rec = shape.record(self.count << 16);
                    done += 60 + rec.value.as_ref().map_or(0, Vec::len);
                    self.append(partition, vec![rec])?;
                }
                Ok(())
            }
            Step::Read { partition, from, max } => {
                let from = self.offset(partition, from);
                let mut reader = must!(self.partitions[partition as usize].reader(from));
                let records = must!(reader.read(max));
                let there = self.oracle[partition as usize].len() - usize::try_from(from).unwrap();
                prop_assert_eq!(records.len(), there.min(max));
                for (record, offset) in records.iter().zip(from..) {
                    self.check(partition, offset, record)?;
                }
                prop_assert_eq!(reader.position(), from + records.len() as u64);
                self.readers[partition as usize] = Some(reader);
                Ok(())
            }
            Step::TryNext { partition, from, max } => {
                let from = self.offset(partition, from);
                let mut reader = must!(self.partitions[partition as usize].reader(from));
                self.walk(partition, &mut reader, max)?;
                self.readers[partition as usize] = Some(reader);
                Ok(())
            }
            Step::GoOn { partition, max } => {
                let Some(mut reader) = self.readers[partition as usize].take() else { return Ok(()) };
                self.walk(partition, &mut reader, max)?;
                self.readers[partition as usize] = Some(reader);
                Ok(())
            }
            Step::WaitDurable { partition } => {
                let handle = &self.partitions[partition as usize];
                must!(handle.wait_durable(handle.end_offset(), Duration::from_secs(20)));
                prop_assert_eq!(handle.durable_offset(), handle.end_offset());
                Ok(())
            }
            Step::Alter(compression) => {
                let log = self.log.as_ref().unwrap();
                let topic = must!(log.topic("t"));
                let change = TopicConfig::new().compression(compression);
                must!(log.alter_topic(&topic, |log| log.check_change(&topic, &change)));
                Ok(())
            }
            Step::Reopen(end) => self.reopen(end),
        }
    }

    fn walk(&self, partition: u32, reader: &mut Reader, max: usize) -> Checked {
        let from = reader.position();
        let there = self.oracle[partition as usize].len() as u64 - from;
        let wanted = there.min(max as u64);
        for offset in from..from + wanted {
            prop_assert_eq!(reader.position(), offset);
            let Some(record) = must!(reader.try_next()) else {
                return Err(TestCaseError::fail(format!("no record at {offset}")));
            };
            self.check(partition, offset, record)?;
        }
        if wanted < max as u64 {
            prop_assert!(must!(reader.try_next()).is_none());
        }
        Ok(())
    }
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn run(cases: u32, durable: bool) {
    let seed = std::env::var("TAPELOG_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(random_nonzero);
    println!("TAPELOG_SEED={seed} ({cases} cases, durable: {durable})");
    let config = Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 300,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&case(durable), |case| {
        let steps = case.steps.clone();
        let mut world = World::new(case, durable)?;
        for step in steps {
            world.run(step)?;
        }
        (0..PARTITIONS).try_for_each(|partition| world.check_all(partition))?;
        if durable { world.reopen(End::Crash) } else { Ok(()) }
    });
    if let Err(e) = outcome {
        panic!("TAPELOG_SEED={seed}: {e}");
    }
}

fn many() -> u32 {
    std::env::var("TAPELOG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000)
}

#[test]
fn a_durable_log_is_a_vec_per_partition_through_every_kind_of_end() {
    run(64, true);
}

#[test]
fn a_log_in_memory_is_a_vec_per_partition() {
    run(64, false);
}

#[test]
#[ignore = "takes long: cargo test --release --lib model -- --ignored"]
fn the_model_for_a_long_time() {
    run(many(), true);
    run(many(), false);
}
