//! Every byte of a segment file, looked at by somebody who believes none of them: what is there, and what is amiss.
//!
//! A scan (`scan`) decides where a log ends and hurries; this is in no hurry and decides nothing. It changes nothing either,
//! and needs no more memory than a block and what it unpacks to.

use std::ops::Range;
use std::path::Path;

use crate::block::{self, AlignedBuf, BlockHeader, DecodedBlock};
use crate::codec::Codecs;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::blocks::{Blocks, Step, Walk};
use crate::segment::format::{HEADER, SegmentMeta, TRAILER, Trailer};
use crate::segment::index::{ENTRY, Index};
use crate::segment::reader::MAX_FOOTER;
use crate::segment::scan::{MAX_DAMAGE, Owner, read_meta, read_trailer};
use crate::storage::directory::Directory;
use crate::storage::file::File;

/// What damage to a file costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageKind {
    /// Records: what the bytes held is lost.
    Lost,
    /// Perhaps nothing: the end of a write that was cut off, as any death leaves it. The next open sees to it.
    Torn,
    /// Nothing: what the bytes said follows from other bytes, or they say nothing.
    Spare,
}

/// A place in a file that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileDamage {
    /// What it costs.
    pub kind: DamageKind,
    /// Where it is in the file.
    pub bytes: Range<u64>,
    /// The offsets that were there, as far as the bytes before and behind it tell.
    pub offsets: Option<Range<u64>>,
    /// What is wrong.
    pub reason: String,
}

impl FileDamage {
    pub(crate) fn new(kind: DamageKind, bytes: Range<u64>, reason: impl Into<String>) -> Self {
        FileDamage { kind, bytes, offsets: None, reason: reason.into() }
    }
}

/// A segment file that is looked at block by block.
pub(crate) struct SegmentFile {
    pub(crate) file: File,
    pub(crate) meta: SegmentMeta,
    pub(crate) bad_header: bool,
    pub(crate) trailer: Option<Trailer>,
    pub(crate) len: u64,
    data_end: u64,
}

impl SegmentFile {
    /// Opens it for reading, with the errors of [`read_meta`].
    pub(crate) fn open(directory: &Directory, folder: &Path, file_name: &str, owner: Owner) -> Result<Self> {
        let file = directory.open(&folder.join(file_name), false)?;
        let (len, data_end) = (file.len()?, file.data_end()?);
        let (meta, damage) = read_meta(&file, file_name, owner)?;
        let trailer = if data_end < len { None } else { read_trailer(&file, &meta)? };
        Ok(SegmentFile { file, meta, bad_header: damage.is_some(), trailer, len, data_end })
    }

    /// Where blocks end at the latest.
    pub(crate) fn limit(&self) -> u64 {
        self.trailer.map_or(self.len, |t| t.end.position)
    }

    pub(crate) fn blocks(&self) -> Blocks<'_> {
        Blocks { file: &self.file, meta: &self.meta, limit: self.limit(), data_end: self.data_end }
    }

    pub(crate) fn walk(&self) -> Walk<'_> {
        Walk::new(self.blocks(), HEADER as u64, self.meta.base_offset)
    }
}

/// What one segment file holds.
#[derive(Debug, Default)]
pub(crate) struct SegmentCheck {
    pub(crate) blocks: u64,
    pub(crate) records: u64,
    /// From the first offset that may be here to behind the last one that was.
    pub(crate) offsets: Option<Range<u64>>,
    pub(crate) sealed: bool,
    pub(crate) damage: Vec<FileDamage>,
}

impl SegmentCheck {
    fn add(&mut self, damage: FileDamage) {
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(damage);
        } else if let Some(last) = self.damage.last_mut() {
            last.bytes.end = damage.bytes.end;
            let until = damage.offsets.map(|o| o.end);
            last.offsets = last.offsets.take().map(|o| o.start..until.unwrap_or(o.end));
            last.reason = "there is more damage than is told one by one".into();
        }
    }
}

/// What is told of one block.
pub(crate) enum Verdict {
    /// It holds so many records.
    Good(u64),
    Bad(String),
}

/// Looks at the segment `file_name` in `folder`; the error is one of the disk.
pub(crate) fn check(
    directory: &Directory,
    folder: &Path,
    file_name: &str,
    owner: Owner,
    codecs: &Codecs,
) -> Result<SegmentCheck> {
    let mut found = SegmentCheck::default();
    let file = match SegmentFile::open(directory, folder, file_name, owner) {
        Ok(file) => file,
        Err(e) if tells_of_bytes(&e) => {
            found.damage.push(FileDamage::new(DamageKind::Lost, 0..0, e.to_string()));
            return Ok(found);
        }
        Err(e) => return Err(e),
    };
    if file.bad_header {
        let what = "the header does not prove itself; name and blocks tell what it said";
        found.add(FileDamage::new(DamageKind::Spare, 0..HEADER as u64, what));
    }
    let (meta, trailer, limit) = (file.meta, file.trailer, file.limit());
    let mut walk = file.walk();
    let mut end = meta.base_offset;
    loop {
        let step = match walk.step() {
            Ok(Some(step)) => step,
            Ok(None) => break,
            // A block of a newer format.
            Err(e) if tells_of_bytes(&e) => {
                found.add(FileDamage::new(DamageKind::Lost, walk.place().0..limit, e.to_string()));
                break;
            }
            Err(e) => return Err(e),
        };
        match step {
            Step::Block(h) => {
                check_block(&file.blocks(), &h, codecs, &mut found)?;
                end = h.last_offset + 1;
            }
            Step::Gap { from, next: None, .. } if trailer.is_none() && file.blocks().is_zero(from)? => {}
            Step::Gap { from, to, next } => {
                let torn = next.is_none() && trailer.is_none();
                let kind = if torn { DamageKind::Torn } else { DamageKind::Lost };
                let behind = next.map(|h| h.base_offset).or(trailer.map(|t| t.end.next_offset));
                let mut damage = FileDamage::new(kind, from..to, "no block begins here");
                damage.offsets = behind.filter(|behind| end < *behind).map(|behind| end..behind);
                found.add(damage);
            }
        }
    }
    if let Some(trailer) = trailer {
        found.sealed = true;
        end = end.max(trailer.end.next_offset);
        // Where blocks are damaged, an entry that leads there is none the worse.
        let gaps = found.damage.iter().any(|d| d.kind == DamageKind::Lost);
        let sound = match index_of(&file.blocks(), &trailer)? {
            Some(index) => gaps || leads_to_blocks(&index, &file.blocks())?,
            None => false,
        };
        if !sound {
            let bytes = limit..file.len - TRAILER as u64;
            let what = "the index is wrong; the blocks tell all it says";
            found.add(FileDamage::new(DamageKind::Spare, bytes, what));
        }
    }
    found.offsets = Some(meta.base_offset..end);
    Ok(found)
}

fn check_block(
    blocks: &Blocks<'_>,
    h: &BlockHeader,
    codecs: &Codecs,
    found: &mut SegmentCheck,
) -> Result<()> {
    // A block that ends an unsealed file may have been cut off while it was written.
    let cut = h.end_position() > blocks.limit;
    let verdict = match verdict(blocks, h, codecs)? {
        // Who reads wants the bytes as well that fill it up to a multiple of 8.
        Verdict::Good(_) if cut => Verdict::Bad("the block is cut short, behind its payload".into()),
        verdict => verdict,
    };
    match verdict {
        Verdict::Good(records) => {
            found.blocks += 1;
            found.records += records;
            let payload_end = h.position + block::HEADER as u64 + u64::from(h.stored_len);
            let end = h.end_position();
            let mut padding = [0; 8];
            let len = usize::try_from(end.saturating_sub(payload_end)).unwrap_or(0).min(padding.len());
            blocks.file.read_at_most(&mut padding[..len], payload_end)?;
            if padding != [0; 8] {
                found.add(FileDamage::new(
                    DamageKind::Spare,
                    payload_end..end,
                    "bytes between blocks are not zero",
                ));
            }
        }
        Verdict::Bad(reason) => {
            let kind = if cut { DamageKind::Torn } else { DamageKind::Lost };
            let mut damage = FileDamage::new(kind, h.position..h.end_position().min(blocks.limit), reason);
            damage.offsets = Some(h.base_offset..h.last_offset + 1);
            found.add(damage);
        }
    }
    Ok(())
}

/// Whether the block of a header that proved itself can be read to its last frame.
pub(crate) fn verdict(blocks: &Blocks<'_>, h: &BlockHeader, codecs: &Codecs) -> Result<Verdict> {
    let len = block::HEADER as u64 + u64::from(h.stored_len);
    // Before memory is taken for it.
    if h.position + len > blocks.limit.min(blocks.file.len()?) {
        return Ok(Verdict::Bad("the block is cut short".into()));
    }
    let mut stored = AlignedBuf::recycled(usize::try_from(len).unwrap_or(usize::MAX));
    let got = blocks.file.read_at_most(stored.as_mut_slice(), h.position)?;
    if (got as u64) < len {
        return Ok(Verdict::Bad("the block is cut short".into()));
    }
    Ok(match DecodedBlock::decode(*h, stored, codecs) {
        Ok(decoded) => Verdict::Good(decoded.records() as u64),
        // Its checksum is right, which is all that can be known of it here.
        Err(e) if e.kind() == ErrorKind::UnsupportedCompressionType => Verdict::Good(u64::from(h.count)),
        Err(e) => Verdict::Bad(e.to_string()),
    })
}

/// Whether an error is about what bytes say, and not about reading them.
pub(crate) fn tells_of_bytes(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::CorruptRecord | ErrorKind::ForeignFile | ErrorKind::UnsupportedVersion)
}

/// The index of a sealed segment, where it matches its checksum. One that is too long is not believed by anybody.
fn index_of(blocks: &Blocks<'_>, trailer: &Trailer) -> Result<Option<Index>> {
    let len = trailer.entries as usize * ENTRY;
    if len > MAX_FOOTER {
        return Ok(None);
    }
    let mut bytes = vec![0; len];
    let got = blocks.file.read_at_most(&mut bytes, trailer.end.position)?;
    Ok(Index::decode(&bytes[..got], blocks.meta.base_offset, trailer))
}

/// Whether every entry leads to a block of its offset.
fn leads_to_blocks(index: &Index, blocks: &Blocks<'_>) -> Result<bool> {
    for entry in index.entries() {
        let found = blocks.header(entry.position, blocks.meta.base_offset)?;
        if !found.is_ok_and(|header| header.base_offset == entry.offset) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is a whole index, all of which leads to blocks.
pub(crate) fn index_leads_to_blocks(blocks: &Blocks<'_>, trailer: &Trailer) -> Result<bool> {
    index_of(blocks, trailer)?.map_or(Ok(false), |index| leads_to_blocks(&index, blocks))
}
