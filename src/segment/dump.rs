//! A segment file looked at from outside: batch by batch, damage and all, and nothing changed.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::codec::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::blocks::{Blocks, Step, Walk};
use crate::segment::check::index_leads_to_blocks;
use crate::segment::format::{HEADER, SegmentMeta};
use crate::segment::scan::read_trailer;
use crate::segment::verify::payload_is_good;
use crate::storage::directory::Directory;
use crate::storage::disk::RealDisk;
use crate::storage::file::File;

/// What an idempotent producer wrote on a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpedProducer {
    /// Its id.
    pub id: u64,
    /// Its epoch.
    pub epoch: u16,
    /// The sequence number of the first record.
    pub base_sequence: u32,
}

/// One batch of records in a segment file: a block.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpedBatch {
    /// Where it begins in the file.
    pub position: u64,
    /// How many bytes it takes there.
    pub bytes: u64,
    /// How many bytes its records take as frames.
    pub frame_bytes: u32,
    /// The first offset.
    pub base_offset: u64,
    /// The last offset.
    pub last_offset: u64,
    /// How many records.
    pub records: u32,
    /// The timestamp of the first record.
    pub base_timestamp: Timestamp,
    /// The largest timestamp.
    pub max_timestamp: Timestamp,
    /// The id of the codec that it is compressed with.
    pub codec: u8,
    /// The leader epoch that it was appended in.
    pub leader_epoch: u32,
    /// Who wrote it, where all of it is of one idempotent producer.
    pub producer: Option<DumpedProducer>,
    /// Whether the payload matches its checksum. The header does, or this were no batch.
    pub crc_ok: bool,
}

impl DumpedBatch {
    /// The compression, where this version knows the codec.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_id(self.codec)
    }
}

/// What a segment file holds at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DumpedEntry {
    /// A batch whose header proves itself.
    Batch(DumpedBatch),
    /// Bytes that prove nothing: damage, or a write that was cut off.
    Damage(Range<u64>),
}

/// The content of one segment file, from its beginning: made by [`dump_segment`].
///
/// It iterates over what the file holds. After an error there is nothing more.
#[derive(Debug)]
pub struct SegmentDump {
    file: File,
    meta: SegmentMeta,
    data_end: u64,
    limit: u64,
    sealed: bool,
    index_ok: Option<bool>,
    /// Where the next step begins, and below which no offset may lie there.
    place: (u64, u64),
    payload: Vec<u8>,
}

/// Looks through the segment file at `path`: one of a log that is closed or open, or of a copy of it, under any name.
/// Only the file is read, and nothing is changed. (Kafka: `kafka-dump-log.sh`.)
///
/// ```
/// use tapelog::admin::{DumpedEntry, dump_segment};
/// use tapelog::{Log, Record, TopicConfig};
///
/// let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path().join("data"))?;
/// let ticks = log.create_topic("ticks", TopicConfig::new())?;
/// ticks.partition(0)?.append_batch(&[Record::new("a"), Record::new("b")])?;
/// log.sync()?;
///
/// let folder = dir.path().join("data/topics").join(format!("ticks.{:016x}/0", ticks.id()));
/// for file in std::fs::read_dir(folder)? {
///     for entry in dump_segment(file?.path())? {
///         let DumpedEntry::Batch(batch) = entry? else { panic!("damage") };
///         assert_eq!((batch.base_offset, batch.last_offset, batch.crc_ok), (0, 1, true));
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `ForeignFile` where it is no segment file, `CorruptRecord` and `UnsupportedVersion` where its header is damaged or of a
/// newer format, `Storage` where it cannot be read.
pub fn dump_segment(path: impl AsRef<Path>) -> Result<SegmentDump> {
    let path = std::path::absolute(path.as_ref()).map_err(|e| Error::io("resolve", path.as_ref(), e))?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(ErrorKind::InvalidArgument, "this is the path of no file").at_path(&path));
    };
    let file =
        Directory::open_existing(folder, Arc::new(RealDisk::default()))?.open(Path::new(name), false)?;
    let mut head = [0; HEADER];
    if file.read_at_most(&mut head, 0)? < HEADER {
        let message = "file is shorter than the header of a segment";
        return Err(Error::new(ErrorKind::ForeignFile, message).at_path(&path));
    }
    let meta = SegmentMeta::decode(&head).map_err(|e| Error::from(e).at_path(&path))?;
    let (file_len, data_end) = (file.len()?, file.data_end()?);
    let trailer = if data_end < file_len { None } else { read_trailer(&file, &meta)? };
    let mut dump = SegmentDump {
        meta,
        data_end,
        limit: trailer.map_or(file_len, |t| t.end.position),
        sealed: trailer.is_some(),
        index_ok: None,
        place: (HEADER as u64, meta.base_offset),
        payload: Vec::new(),
        file,
    };
    if let Some(trailer) = trailer {
        dump.index_ok = Some(index_leads_to_blocks(&dump.blocks(), &trailer)?);
    }
    Ok(dump)
}

impl SegmentDump {
    /// The id of the topic.
    #[must_use]
    pub fn topic_id(&self) -> u64 {
        self.meta.topic_id
    }

    /// The partition.
    #[must_use]
    pub fn partition_number(&self) -> u32 {
        self.meta.partition
    }

    /// No record here has a smaller offset.
    #[must_use]
    pub fn base_offset(&self) -> u64 {
        self.meta.base_offset
    }

    /// When the file was begun.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.meta.created
    }

    /// Whether the file has its index and trailer: nothing is written to it any more.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Whether the index matches its checksum and every entry leads to a batch of its offset; `None` where there is no
    /// index yet.
    #[must_use]
    pub fn index_ok(&self) -> Option<bool> {
        self.index_ok
    }

    fn blocks(&self) -> Blocks<'_> {
        Blocks { file: &self.file, meta: &self.meta, limit: self.limit, data_end: self.data_end }
    }

    fn step(&mut self) -> Result<Option<DumpedEntry>> {
        let mut payload = std::mem::take(&mut self.payload);
        let mut walk = Walk::new(self.blocks(), self.place.0, self.place.1);
        let entry = match walk.step()? {
            None => None,
            Some(Step::Gap { from, to, next }) => {
                let reserved = next.is_none() && self.blocks().is_zero(from)?;
                (!reserved).then_some(DumpedEntry::Damage(from..to))
            }
            Some(Step::Block(h)) => Some(DumpedEntry::Batch(DumpedBatch {
                position: h.position,
                bytes: h.total_len(),
                frame_bytes: h.raw_len,
                base_offset: h.base_offset,
                last_offset: h.last_offset,
                records: h.count,
                base_timestamp: h.base_timestamp,
                max_timestamp: h.max_timestamp,
                codec: h.codec,
                leader_epoch: h.epoch,
                producer: (h.producer_id != u64::MAX).then_some(DumpedProducer {
                    id: h.producer_id,
                    epoch: h.producer_epoch,
                    base_sequence: h.base_sequence,
                }),
                crc_ok: payload_is_good(&self.file, &h, &mut payload)?,
            })),
        };
        self.place = walk.place();
        self.payload = payload;
        Ok(entry)
    }
}

impl Iterator for SegmentDump {
    type Item = Result<DumpedEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if !matches!(step, Ok(Some(_))) {
            self.place.0 = u64::MAX;
        }
        step.transpose()
    }
}
