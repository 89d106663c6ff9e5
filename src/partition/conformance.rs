//! What Kafka's own tests assert and only the inside of a partition can show, with the numbers of the cases.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Deadline, SystemClock, Timestamp};
use crate::codec::Codecs;
use crate::error::{ErrorKind, Result};
use crate::frame::{FrameView, to_vec};
use crate::partition::core::{Opened, PartitionCore, Wait};
use crate::partition::cursor::Cursor;
use crate::partition::drain::{Sink, SinkContext};
use crate::partition::records::Identity;
use crate::partition::recovery::{Recovering, recover_partition};
use crate::partition::settings::Settings;
use crate::partition::write_behind::Engine;
use crate::record::Record;
use crate::segment::chain::Chain;
use crate::storage::arena::Pool;
use crate::storage::directory::Directory;
use crate::storage::disk::RealDisk;
use crate::topic_partition::TopicPartition;

const TOPIC_ID: u64 = 77;

fn identity() -> Identity {
    Identity { topic_id: TOPIC_ID, tp: TopicPartition::new("t", 0) }
}

/// A partition that begins at `start`, in memory or in `dir`.
fn partition_at(start: u64, dir: Option<&Path>) -> Arc<PartitionCore> {
    let directory = dir.map(|dir| Arc::new(Directory::open_or_create(dir, Arc::new(RealDisk)).unwrap()));
    let pool = match dir {
        Some(dir) => Pool::mapped(dir, 1, 1, 1 << 20).unwrap(),
        None => Pool::heap(1 << 20).unwrap(),
    };
    let engine =
        Engine::new(pool, Codecs::default(), Arc::new(SystemClock), directory, Duration::from_secs(20));
    engine.start().unwrap();
    let opened = Opened { start, end: start, durable: start, ..Opened::empty(1) };
    PartitionCore::open(identity(), engine, Settings::default(), PathBuf::from("t"), opened)
}

fn append(partition: &PartitionCore, record: Record<'_>) {
    partition.append(&[record], Wait::No, None).unwrap();
}

/// The offsets that a fetch from `offset` gives.
fn read(partition: &PartitionCore, offset: u64) -> Result<Vec<u64>> {
    let run = partition.fetch(&mut Cursor::new(offset), partition.high_watermark(), 100, usize::MAX)?;
    Ok(run.iter().flat_map(|run| run.frames().map(|f| f.offset())).collect())
}

#[test]
fn l_05_reads_out_of_range() {
    let partition = partition_at(1024, None);
    append(&partition, Record::new("a"));
    assert_eq!((partition.start_offset(), partition.end_offset()), (1024, 1025));
    assert_eq!(read(&partition, 1024).unwrap(), [1024]);
    assert_eq!(read(&partition, 1025).unwrap(), []);
    for offset in [0, 1023, 1026] {
        let error = read(&partition, offset).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::OffsetOutOfRange, Some(offset)));
        assert_eq!(error.offset_range(), Some((1024, 1025)));
        assert_eq!((error.topic(), error.partition()), (Some("t"), Some(0)));
    }
}

/// Twenty records, each in a block of its own; returns the file and where each block begins.
fn twenty_blocks(directory: &Arc<Directory>) -> (PathBuf, Vec<u64>) {
    let chain = Chain::default();
    let ctx = SinkContext {
        chain: &chain,
        directory,
        codecs: &Codecs::default(),
        settings: &Settings::default(),
        clock: &SystemClock,
    };
    let mut sink = Sink::new(PathBuf::from("t"), TOPIC_ID, 0, None, 0);
    let mut positions = Vec::new();
    for offset in 0..20 {
        positions.push(chain.segments().first().map_or(64, |s| s.written()));
        let bytes = to_vec(&Record::new(&[7; 90]), offset, Timestamp::from_nanos(1), 0);
        sink.take(&ctx, FrameView::trusted(&bytes), 0, 1, bytes.len()).unwrap();
        sink.write(&ctx).unwrap();
    }
    let segment = Arc::clone(&chain.segments()[0]);
    positions.push(segment.written());
    (segment.path().to_path_buf(), positions)
}

/// Not flushed, so that the floor is 0, not closed, and no staging: the log ends before the block that was hit.
#[test]
fn l_37_recovery_ends_before_the_first_bad_block() {
    for k in 0..20usize {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open_or_create(dir.path(), Arc::new(RealDisk)).unwrap());
        let (path, positions) = twenty_blocks(&directory);
        let mut bytes = std::fs::read(&path).unwrap();
        let from = usize::try_from(positions[k] + positions[k + 1]).unwrap() / 2;
        let mut x = 88_172_645_463_325_252u64;
        for byte in &mut bytes[from..] {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            *byte = x.to_le_bytes()[3];
        }
        std::fs::write(&path, &bytes).unwrap();
        let recovering = Recovering {
            directory: &directory,
            codecs: &Codecs::default(),
            clock: &SystemClock,
            clean: false,
            epoch: 2,
            topic_id: TOPIC_ID,
            partition: 0,
            folder: Path::new("t"),
            settings: &Settings::default(),
            quarantine: Path::new("quarantine"),
        };
        let (opened, found) = recover_partition(&recovering, Vec::new()).unwrap();
        assert_eq!(opened.end, k as u64);
        // What was there is kept aside, and said.
        assert_eq!(found.items.len(), 1, "{found:?}");
        assert_eq!(found.items[0].bytes.clone().unwrap().start, positions[k]);
        let kept = std::fs::read(found.items[0].kept_in.clone().unwrap()).unwrap();
        assert!(kept == bytes[usize::try_from(positions[k]).unwrap()..]);
        let engine = Engine::new(
            Pool::heap(1 << 20).unwrap(),
            Codecs::default(),
            Arc::new(SystemClock),
            Some(Arc::clone(&directory)),
            Duration::ZERO,
        );
        let partition =
            PartitionCore::open(identity(), engine, Settings::default(), PathBuf::from("t"), opened);
        let mut offsets = Vec::new();
        let mut cursor = Cursor::new(0);
        while let Some(run) = partition.fetch(&mut cursor, partition.end_offset(), 100, usize::MAX).unwrap() {
            offsets.extend(run.frames().map(|f| f.offset()));
        }
        assert_eq!(offsets, (0..k as u64).collect::<Vec<_>>());
    }
}

#[test]
fn t_01_the_first_record_at_or_after_a_time() {
    let dir = tempfile::tempdir().unwrap();
    for written in [false, true] {
        let place = written.then(|| dir.path().join("d"));
        let partition = partition_at(40, place.as_deref());
        for offset in 40..50 {
            append(&partition, Record::new("a").timestamp(Timestamp::from_nanos(offset * 10)));
        }
        if written {
            partition.wait_written(50, Deadline::after(Duration::from_secs(20))).unwrap();
        }
        let wanted = [
            (399, Some(40)),
            (401, Some(41)),
            (420, Some(42)),
            (421, Some(43)),
            (430, Some(43)),
            (431, Some(44)),
            (491, None),
        ];
        for (target, offset) in wanted {
            let found = partition.offset_for_time(Timestamp::from_nanos(target)).unwrap();
            let expected = offset.map(|o: u64| (o, Timestamp::from_nanos(o.cast_signed() * 10)));
            assert_eq!(found, expected, "{target}, written: {written}");
        }
        let last = (49, Timestamp::from_nanos(490));
        assert_eq!(partition.max_timestamp().unwrap(), Some(last));
        partition.engine().stop(Deadline::after(Duration::from_secs(20)));
    }
}

#[test]
fn t_05_an_empty_log_has_no_times() {
    let dir = tempfile::tempdir().unwrap();
    for place in [None, Some(dir.path())] {
        let partition = partition_at(0, place);
        assert_eq!(partition.offset_for_time(Timestamp::from_nanos(0)).unwrap(), None);
        assert_eq!(partition.offset_for_time(Timestamp::MIN).unwrap(), None);
        assert_eq!(partition.max_timestamp().unwrap(), None);
        assert_eq!((partition.start_offset(), partition.end_offset()), (0, 0));
        partition.engine().stop(Deadline::after(Duration::from_secs(20)));
    }
}
