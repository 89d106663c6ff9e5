//! What tests of segments share: a directory that can fail, and blocks to put there.

use std::path::Path;
use std::sync::Arc;

use crate::block_builder::{BlockBuilder, BlockPlace, EncodedBlock};
use crate::clock::Timestamp;
use crate::codec::{Codecs, Compression};
use crate::error::Result;
use crate::frame::{self, flags};
use crate::record::Record;
use crate::segment::format::{HEADER, SegmentMeta};
use crate::segment::reader::Segment;
use crate::segment::scan::{SegmentScan, SegmentScanOptions, scan};
use crate::segment::writer::SegmentWriter;
use crate::storage::directory::Directory;
use crate::storage::disk::RealDisk;
use crate::storage::fault::{FaultDisk, FaultPlan};

pub(crate) const SEGMENT_BYTES: u64 = 1 << 20;
/// Nothing is known to be flushed; everything is verified.
pub(crate) const DOUBTFUL: SegmentScanOptions =
    SegmentScanOptions { floor: 0, verify_last: u64::MAX, believe_marks: true };
/// After a clean close.
pub(crate) const CLEAN: SegmentScanOptions =
    SegmentScanOptions { floor: u64::MAX, verify_last: 0, believe_marks: true };

pub(crate) fn ts(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos as i64)
}

pub(crate) struct Bench {
    _temp: tempfile::TempDir,
    pub(crate) directory: Arc<Directory>,
    pub(crate) plan: Arc<FaultPlan>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let plan = FaultPlan::new();
        let disk = Arc::new(FaultDisk::new(Arc::new(RealDisk::default()), Arc::clone(&plan)));
        let directory = Arc::new(Directory::open_or_create(temp.path(), disk).unwrap());
        directory.create_dir_all(folder()).unwrap();
        Bench { _temp: temp, directory, plan }
    }

    pub(crate) fn writer(&self, base_offset: u64) -> SegmentWriter {
        SegmentWriter::create(&self.directory, folder(), meta(base_offset), SEGMENT_BYTES, None).unwrap()
    }

    pub(crate) fn raw(&self, base_offset: u64) -> std::fs::File {
        let path = self.directory.root().join(folder()).join(meta(base_offset).file_name());
        std::fs::File::options().read(true).write(true).open(path).unwrap()
    }

    pub(crate) fn scan(&self, base_offset: u64, options: SegmentScanOptions) -> Result<SegmentScan> {
        scan(&self.directory, folder(), &meta(base_offset).file_name(), (7, 3), options)
    }

    pub(crate) fn open(&self, base_offset: u64, options: SegmentScanOptions) -> Arc<Segment> {
        Segment::open(&self.directory, folder(), &self.scan(base_offset, options).unwrap()).unwrap()
    }

    /// A sealed segment of `n` blocks of one record each, offset and timestamp alike from `base_offset` on.
    pub(crate) fn sealed(&self, base_offset: u64, n: u64) -> Vec<EncodedBlock> {
        let mut writer = self.writer(base_offset);
        let blocks = fill(&mut writer, base_offset, n);
        writer.seal().unwrap();
        blocks
    }
}

pub(crate) fn folder() -> &'static Path {
    Path::new("ticks-3")
}

pub(crate) fn meta(base_offset: u64) -> SegmentMeta {
    let salt = 0xA5A5_0000 + base_offset;
    SegmentMeta { topic_id: 7, partition: 3, base_offset, generation: 0, salt, created: ts(1) }
}

/// A block of records with these offsets, each with its offset as timestamp and a value of `value` bytes.
pub(crate) fn block_at(
    writer: &SegmentWriter,
    offsets: &[u64],
    value: usize,
    mark: u64,
    more: bool,
) -> EncodedBlock {
    let mut builder = BlockBuilder::default();
    let value = vec![b'x'; value];
    for offset in offsets {
        let extra = if more { flags::MORE } else { 0 };
        let bytes = frame::to_vec(&Record::new(&value), *offset, ts(*offset), extra);
        builder.push(&bytes);
    }
    let place = BlockPlace {
        topic_id: 7,
        partition: 3,
        epoch: 1,
        salt: writer.salt(),
        position: writer.position(),
        durable_mark: mark,
    };
    builder.take(place, Compression::None).unwrap()
}

pub(crate) fn fill(writer: &mut SegmentWriter, from: u64, n: u64) -> Vec<EncodedBlock> {
    (from..from + n)
        .map(|offset| {
            let block = block_at(writer, &[offset], 100, 0, false);
            writer.append_one(&block).unwrap();
            block
        })
        .collect()
}

/// The offsets of all blocks from the segment's first on.
pub(crate) fn offsets(segment: &Segment) -> Vec<u64> {
    let (mut position, mut seen) = (HEADER as u64, Vec::new());
    while let Some((block, next)) = segment.read(position, &Codecs::default()).unwrap() {
        seen.extend(block.header().base_offset..=block.header().last_offset);
        position = next;
    }
    seen
}
