//! What a segment file holds after a stop: facts, no decisions.
//!
//! Two kinds of damage are told apart by the *floor*, the position below which everything is known to have been
//! flushed. Below it, bytes that prove nothing were once good: corruption, reported, and what follows is kept. At or
//! above it they are a torn tail, normal after any death: the log ends where the first of them begins, whatever
//! follows.

use std::path::{Path, PathBuf};

use crate::block::BlockHeader;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::blocks::{Blocks, Step, Walk};
use crate::segment::format::{Boundary, FormatError, HEADER, SegmentMeta, TRAILER, Trailer, parse_file_name};
use crate::segment::index::{ENTRY, Index};
use crate::segment::verify::{Stretches, payload_is_good};
use crate::storage::directory::Directory;
use crate::storage::file::{File, FileId};

/// So many places of damage are told apart in one segment; what comes after is told as one.
pub(crate) const MAX_DAMAGE: usize = 4_096;

/// What is known before a segment is scanned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentScanOptions {
    /// Everything below this position was flushed; `u64::MAX`: the whole segment, however long it is.
    pub(crate) floor: u64,
    /// Payloads are verified in at least so many bytes before the end of the last block. Where that is 0 a sealed
    /// segment is not walked at all: its trailer is believed. Where it is not everything, and the segment is not said
    /// to be flushed whole, a place that is torn anywhere but at the end has everything verified after all.
    pub(crate) verify_last: u64,
    /// Whether the durable marks of blocks raise the floor: not in a directory under repair, whose blocks were
    /// copied and not flushed yet.
    pub(crate) believe_marks: bool,
}

/// Whose segments lie in a folder: topic id and partition.
pub(crate) type Owner = (u64, u32);

/// Bytes that should be blocks and are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Corruption, and not a torn tail.
    pub(crate) below_floor: bool,
    /// The header of the damaged block itself, where only its payload is bad or cut short.
    pub(crate) header: Option<BlockHeader>,
    /// The header at `to`, where a block follows damage without a header.
    pub(crate) next: Option<BlockHeader>,
}

/// The facts about one segment file.
#[derive(Debug, Clone)]
pub(crate) struct SegmentScan {
    pub(crate) meta: SegmentMeta,
    pub(crate) file_name: String,
    pub(crate) file_len: u64,
    pub(crate) file_id: FileId,
    /// How many names the file has.
    pub(crate) links: u64,
    /// It has a trailer, and (where walked) unbroken blocks, but for corruption below the floor, up to it.
    pub(crate) sealed: bool,
    /// After the last block before the first torn place. Where the last blocks below the floor are destroyed, the
    /// position is the floor's (bounded by the file), the offset that of the last block that is there.
    pub(crate) end: Boundary,
    /// The same after the last block that ends an append; differs from `end` where an append is unfinished.
    pub(crate) complete: Boundary,
    /// The floor of the options raised by the durable marks of all valid blocks, those after a torn place included.
    pub(crate) floor: u64,
    /// The offset after the last record that any header tells of, behind a torn place too.
    pub(crate) known_to: u64,
    /// The largest durable mark of a valid block, 0 if none was seen; not raised by what the options say.
    pub(crate) durable_mark: u64,
    /// Corruption below the floor, in order; what follows it is part of the log.
    pub(crate) damaged: Vec<Damage>,
    /// The first torn place, which begins at `end`: what is there that is neither a whole block nor zeros up to
    /// the end of the file.
    pub(crate) torn: Option<Damage>,
    /// Only zeros follow `end`: space that was reserved.
    pub(crate) tail_is_zero: bool,
    /// Each leader epoch and its first offset here; empty where the segment was not walked.
    pub(crate) epochs: Vec<(u32, u64)>,
    /// The index of the blocks before `end`; `None` where the segment was not walked.
    pub(crate) index: Option<Index>,
    /// Base offset and position of the last block that ends an append.
    last_complete: Option<(u64, u64)>,
}

impl SegmentScan {
    /// Whether the last append before `end` goes on in a block that is not there.
    #[cfg(test)]
    pub(crate) fn is_unfinished(&self) -> bool {
        self.complete != self.end
    }

    /// Moves `end` back before an unfinished append.
    pub(crate) fn drop_unfinished(&mut self) {
        self.end = self.complete;
        self.sealed = false;
        self.tail_is_zero &= self.file_len <= self.end.position;
        if let Some(index) = &mut self.index {
            index.truncate(self.end.position, self.last_complete);
            self.epochs = index.epochs();
        }
    }

    /// Adds a block that is there.
    fn add(&mut self, index: &mut Index, h: &BlockHeader, position: u64) -> Result<()> {
        index.append(h.base_offset, h.position, h.max_timestamp, h.epoch)?;
        let newer = self.end.max_timestamp.is_none_or(|(t, _)| h.max_timestamp > t);
        self.end = Boundary {
            position,
            next_offset: h.last_offset + 1,
            max_timestamp: if newer {
                Some((h.max_timestamp, h.max_timestamp_offset()))
            } else {
                self.end.max_timestamp
            },
            frame_bytes: self.end.frame_bytes + u64::from(h.raw_len),
        };
        if !h.continues() {
            self.complete = self.end;
            self.last_complete = Some((h.base_offset, h.position));
        }
        Ok(())
    }

    fn add_damage(&mut self, damage: Damage) {
        if self.damaged.len() < MAX_DAMAGE {
            self.damaged.push(damage);
        } else if let Some(last) = self.damaged.last_mut() {
            *last = Damage { to: damage.to, header: None, next: damage.next, ..*last };
        }
    }

    /// For a segment that was flushed whole, and behind which others begin: what is there behind its last block is no torn
    /// write, but a footer or blocks that were damaged. It is never taken for the end of the log.
    pub(crate) fn call_torn_damaged(&mut self) {
        if let Some(torn) = self.torn.take() {
            self.add_damage(Damage { below_floor: true, ..torn });
        }
    }

    /// Whether there is more amiss than a last write that was cut off, where the last valid block ends at `last_end`.
    fn contradict(&self, last_end: u64) -> bool {
        let ends_early = |t: Damage| t.header.map_or(t.from, |h| h.end_position()) < last_end;
        !self.damaged.is_empty() || self.torn.is_some_and(ends_early)
    }

    /// Moves the end over damage that no block follows.
    fn pass(&mut self, to: u64) {
        let finished = self.complete == self.end;
        self.end.position = to;
        if finished {
            self.complete = self.end;
        }
    }
}

/// Whether a segment file was created and never written: nothing but zeros, or nothing. Normal where the process
/// died in between; nothing is lost with it.
pub(crate) fn is_unborn(directory: &Directory, folder: &Path, file_name: &str) -> Result<bool> {
    let file = directory.open(&folder.join(file_name), false)?;
    let meta = SegmentMeta {
        topic_id: 0,
        partition: 0,
        base_offset: 0,
        generation: 0,
        salt: 0,
        created: crate::clock::Timestamp::MIN,
    };
    Blocks { file: &file, meta: &meta, limit: file.len()?, data_end: file.data_end()? }.is_zero(0)
}

/// A segment file without a beginning.
#[derive(Debug, Clone)]
pub(crate) struct Stillborn {
    pub(crate) file_name: String,
    pub(crate) file_len: u64,
    pub(crate) base_offset: u64,
    /// The offset after the last record that any header in it tells of.
    pub(crate) known_to: u64,
}

/// A segment file of which neither the header nor the first block proves itself, and where no other block tells that it was
/// ever flushed: what a power cut before the first flush leaves, which may be any of its pages, or parts of them.
///
/// Where the header alone is gone, [`read_meta`] knows it from the blocks, and no record was lost with it. One that was flushed
/// is for `read_meta` as well, whatever is left: it is damage then.
pub(crate) fn stillborn(
    directory: &Directory,
    folder: &Path,
    file_name: &str,
    owner: Owner,
) -> Result<Option<Stillborn>> {
    let file = directory.open(&folder.join(file_name), false)?;
    let mut head = [0; HEADER];
    let got = file.read_at_most(&mut head, 0)?;
    let proves_nothing = |e: FormatError| matches!(e, FormatError::Foreign | FormatError::Checksum);
    if got == HEADER && !SegmentMeta::decode(&head).err().is_some_and(proves_nothing) {
        return Ok(None);
    }
    let Some(meta) = meta_of_name(file_name, owner) else { return Ok(None) };
    let file_len = file.len()?;
    let blocks = Blocks { file: &file, meta: &meta, limit: file_len, data_end: file.data_end()? };
    let (mut at, mut known_to) = (HEADER as u64, meta.base_offset);
    while let Some(h) = blocks.resync_any(at, |_| true)? {
        let is_first = h.position == HEADER as u64 && h.end_position() <= blocks.limit;
        if h.durable_mark > 0 || (is_first && payload_is_good(&file, &h, &mut Vec::new())?) {
            return Ok(None);
        }
        at = h.end_position();
        known_to = known_to.max(h.last_offset + 1);
    }
    Ok(Some(Stillborn { file_name: file_name.to_owned(), file_len, base_offset: meta.base_offset, known_to }))
}

/// What a segment is: by its header, or where that is damaged by its name and its blocks, each of which tells topic,
/// partition and salt, so that one bad bit in 64 bytes does not cost a gigabyte. The damage is the second answer.
///
/// # Errors
/// [`ErrorKind::ForeignFile`] for a file that is not ours, or not what its name and its folder say,
/// [`ErrorKind::CorruptRecord`] for a damaged header without a block behind it, [`ErrorKind::UnsupportedVersion`] for a
/// newer format.
pub(crate) fn read_meta(file: &File, file_name: &str, owner: Owner) -> Result<(SegmentMeta, Option<Damage>)> {
    let foreign = |message: String| Err(Error::new(ErrorKind::ForeignFile, message).at_path(file.path()));
    let mut head = [0; HEADER];
    let got = file.read_at_most(&mut head, 0)?;
    if got < HEADER {
        return foreign("file is shorter than the header of a segment".into());
    }
    let (meta, damage) = match SegmentMeta::decode(&head) {
        Ok(meta) => (meta, None),
        Err(e) => match e {
            FormatError::Foreign | FormatError::Checksum => match meta_of_blocks(file, file_name, owner)? {
                Some(meta) => {
                    let to = HEADER as u64;
                    (meta, Some(Damage { from: 0, to, below_floor: true, header: None, next: None }))
                }
                None => return Err(Error::from(e).at_path(file.path())),
            },
            FormatError::Version(_) | FormatError::Flags(_) => {
                return Err(Error::from(e).at_path(file.path()));
            }
        },
    };
    if parse_file_name(file_name) != Some((meta.base_offset, meta.generation)) {
        return foreign(format!("file should be called {}, by its header", meta.file_name()));
    }
    if (meta.topic_id, meta.partition) != owner {
        let (id, partition) = (meta.topic_id, meta.partition);
        return foreign(format!("file belongs to partition {partition} of topic {id:016x}, by its header"));
    }
    Ok((meta, damage))
}

/// What the name and the first block that proves itself say that the header said. When the file was begun is not known
/// any more; its first record was not appended before.
fn meta_of_blocks(file: &File, file_name: &str, owner: Owner) -> Result<Option<SegmentMeta>> {
    let Some(meta) = meta_of_name(file_name, owner) else { return Ok(None) };
    let blocks = Blocks { file, meta: &meta, limit: file.len()?, data_end: file.data_end()? };
    let first = blocks.resync_any(HEADER as u64, |_| true)?;
    Ok(first.map(|h| SegmentMeta { salt: h.salt, created: h.base_timestamp, ..meta }))
}

/// As much of it as the name and the folder say.
fn meta_of_name(file_name: &str, (topic_id, partition): Owner) -> Option<SegmentMeta> {
    let (base_offset, generation) = parse_file_name(file_name)?;
    let created = crate::clock::Timestamp::MIN;
    Some(SegmentMeta { topic_id, partition, base_offset, generation, salt: 0, created })
}

/// Reads the trailer of a sealed segment; `None` where there is none that fits.
pub(crate) fn read_trailer(file: &File, meta: &SegmentMeta) -> Result<Option<Trailer>> {
    let len = file.len()?;
    if len < (HEADER + TRAILER) as u64 {
        return Ok(None);
    }
    let mut tail = [0; TRAILER];
    if file.read_at_most(&mut tail, len - TRAILER as u64)? < TRAILER {
        return Ok(None);
    }
    Ok(Trailer::decode(&tail, meta, len, ENTRY as u64))
}

/// Looks through the segment `file_name` in `folder`.
///
/// # Errors
/// As [`read_meta`]; [`ErrorKind::UnsupportedVersion`] for a newer format of a block, too.
pub(crate) fn scan(
    directory: &Directory,
    folder: &Path,
    file_name: &str,
    owner: Owner,
    options: SegmentScanOptions,
) -> Result<SegmentScan> {
    let path: PathBuf = folder.join(file_name);
    let file = directory.open(&path, false)?;
    let data_end = file.data_end()?;
    let (meta, bad_header) = read_meta(&file, file_name, owner)?;
    let file_len = file.len()?;
    // Reserved space is not read, for the reason that `Blocks` gives.
    let trailer = if data_end < file_len { None } else { read_trailer(&file, &meta)? };
    let empty = Boundary::empty(meta.base_offset);
    let mut facts = SegmentScan {
        meta,
        file_name: file_name.to_owned(),
        file_len,
        file_id: file.id()?,
        links: file.links()?,
        sealed: false,
        end: empty,
        complete: empty,
        floor: options.floor,
        known_to: meta.base_offset,
        durable_mark: 0,
        damaged: bad_header.into_iter().collect(),
        torn: None,
        tail_is_zero: true,
        epochs: Vec::new(),
        index: None,
        last_complete: None,
    };
    let limit = match trailer {
        Some(t) if options.verify_last == 0 => {
            let floor = options.floor.min(t.end.position);
            let known_to = t.end.next_offset;
            return Ok(SegmentScan { sealed: true, end: t.end, complete: t.end, floor, known_to, ..facts });
        }
        Some(t) => t.end.position,
        None => file_len,
    };
    let blocks = || Blocks { file: &file, meta: &meta, limit, data_end };

    let Marks { mark, last_end, known_to, stretches, steps } = marks(blocks())?;
    (facts.durable_mark, facts.known_to) = (mark, known_to);
    if options.believe_marks {
        facts.floor = facts.floor.max(mark);
    }
    if trailer.is_some() {
        facts.floor = facts.floor.min(limit);
    } else if facts.floor == u64::MAX {
        facts.floor = last_end;
    }

    let verify_from =
        if options.verify_last == 0 { u64::MAX } else { last_end.saturating_sub(options.verify_last) };
    let plain = facts.clone();
    stretches.verify(blocks, verify_from);
    let mut index = walk(&mut facts, blocks(), steps, &stretches)?;
    if options.verify_last < u64::MAX && options.floor < u64::MAX && facts.contradict(last_end) {
        facts = plain;
        stretches.verify(blocks, 0);
        index = walk(&mut facts, blocks(), Vec::new(), &stretches)?;
    }
    facts.epochs = index.epochs();
    facts.index = Some(index);
    facts.sealed = trailer.is_some_and(|t| facts.torn.is_none() && facts.end.position == t.end.position);
    facts.tail_is_zero =
        facts.sealed || Blocks { limit: file_len, ..blocks() }.is_zero(facts.end.position)?;
    if facts.torn.is_none() && !facts.tail_is_zero {
        let from = facts.end.position;
        facts.torn = Some(Damage { from, to: file_len, below_floor: false, header: None, next: None });
    }
    Ok(facts)
}

/// What the first pass over the headers finds.
struct Marks {
    /// The largest durable mark.
    mark: u64,
    /// Where the last valid block ends.
    last_end: u64,
    /// The offset after its last record.
    known_to: u64,
    stretches: Stretches,
    /// The steps that it began with.
    steps: Vec<Step>,
}

/// So many steps of the first pass are kept for the second, which need not read them again: the headers of 1 GiB of full blocks.
const KEPT_STEPS: usize = 16_384;

fn marks(blocks: Blocks<'_>) -> Result<Marks> {
    let (mut mark, mut end) = (0, HEADER as u64);
    let (low, limit) = (blocks.meta.base_offset, blocks.limit);
    let mut known_to = low;
    let mut walk = Walk::new(blocks, HEADER as u64, low);
    let (mut stretches, mut steps) = (Stretches::begin(walk.place()), Vec::new());
    while let Some(step) = walk.step()? {
        if steps.len() < KEPT_STEPS {
            steps.push(step);
        }
        if let Step::Block(h) = step {
            // A block can tell of nothing that was written after it.
            if h.durable_mark <= h.position {
                mark = mark.max(h.durable_mark);
            }
            end = h.end_position().min(limit);
            known_to = h.last_offset + 1;
        }
        stretches.reach(walk.place());
    }
    Ok(Marks { mark, last_end: end, known_to, stretches, steps })
}

/// The second pass, which knows the floor: up to the first torn place.
fn walk(
    facts: &mut SegmentScan,
    blocks: Blocks<'_>,
    found: Vec<Step>,
    stretches: &Stretches,
) -> Result<Index> {
    let (floor, limit) = (facts.floor, blocks.limit);
    let mut index = Index::new(facts.meta.base_offset);
    let mut payload = Vec::new();
    let mut walk = Walk::again(blocks, HEADER as u64, facts.meta.base_offset, found);
    while let Some(step) = walk.step()? {
        match step {
            Step::Block(h) => {
                let to = h.end_position().min(limit);
                let whole = h.end_position() <= limit;
                let good = whole
                    && (stretches.proved(h.position)
                        || payload_is_good(walk.blocks().file, &h, &mut payload)?);
                if !good {
                    let below_floor = h.position < floor;
                    let damage = Damage { from: h.position, to, below_floor, header: Some(h), next: None };
                    if !below_floor {
                        facts.torn = Some(damage);
                        return Ok(index);
                    }
                    facts.add_damage(damage);
                }
                facts.add(&mut index, &h, to.next_multiple_of(8))?;
            }
            Step::Gap { from, to, next } => {
                let mut damage = Damage { from, to, below_floor: from < floor, header: None, next };
                if from < floor && to <= floor {
                    facts.add_damage(damage);
                    facts.pass(to.next_multiple_of(8));
                    continue;
                }
                if from < floor {
                    // Across the floor: up to it corruption, from it on torn, for no block begins there.
                    facts.add_damage(Damage { to: floor, next: None, ..damage });
                    facts.pass(floor.next_multiple_of(8));
                    damage = Damage { from: facts.end.position, below_floor: false, ..damage };
                }
                if next.is_some() {
                    facts.torn = Some(damage);
                }
                // Without a next block it is the tail; whether it is zeros is seen by whoever called.
                return Ok(index);
            }
        }
    }
    if limit < floor {
        let from = facts.end.position;
        facts.add_damage(Damage { from, to: floor, below_floor: true, header: None, next: None });
    }
    Ok(index)
}
