//! A segment file without what is damaged in it: made beside the old one, flushed, and put in its place by one rename.
//!
//! Blocks are copied as they are but for salt, position and durable mark, which belong to the new file. What was lost
//! leaves a hole in the offsets, as compaction does, and readers go over it.

use std::path::Path;

use crate::block::{self, BlockHeader};
use crate::codec::Codecs;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::blocks::Step;
use crate::segment::check::{SegmentFile, Verdict, verdict};
use crate::segment::format::{Boundary, SegmentMeta};
use crate::segment::index::Index;
use crate::segment::scan::Owner;
use crate::storage::arena::random_nonzero;
use crate::storage::directory::Directory;
use crate::storage::file::File;

/// The new file while it is made.
struct Copy {
    file: File,
    meta: SegmentMeta,
    index: Index,
    end: Boundary,
    memory: Vec<u8>,
}

impl Copy {
    /// Copies a block; `cut` where the append that it ends goes on in a block that is lost.
    fn add(&mut self, from: &SegmentFile, h: &BlockHeader, cut: bool) -> Result<()> {
        let position = self.end.position;
        let mut header = BlockHeader { salt: self.meta.salt, position, durable_mark: position, ..*h };
        if cut {
            header.attributes &= !block::attributes::CONTINUES;
        }
        let payload_end = block::HEADER + h.stored_len as usize;
        self.memory.clear();
        self.memory.resize(usize::try_from(h.total_len()).unwrap_or(usize::MAX), 0);
        header.write(&mut self.memory);
        let payload = &mut self.memory[block::HEADER..payload_end];
        from.file.read_exact_at(payload, h.position + block::HEADER as u64)?;
        if crc32fast::hash(payload) != h.payload_crc {
            let message = "the file changed while it was repaired";
            return Err(Error::new(ErrorKind::CorruptRecord, message).at_path(from.file.path()));
        }
        self.file.write_all_at(&self.memory, position)?;
        self.index.append(h.base_offset, position, h.max_timestamp, h.epoch)?;
        let newer = self.end.max_timestamp.is_none_or(|(t, _)| h.max_timestamp > t);
        if newer {
            self.end.max_timestamp = Some((h.max_timestamp, h.max_timestamp_offset()));
        }
        self.end.position = header.end_position();
        self.end.next_offset = h.last_offset + 1;
        self.end.frame_bytes += u64::from(h.raw_len);
        Ok(())
    }
}

/// Replaces the segment `file_name` in `folder` by one that holds its good blocks only, sealed. After a crash at any
/// moment either the old file or the new one is there.
///
/// The new one ends at the offset where the old one ended, so that no offset is given twice.
pub(crate) fn rewrite(
    directory: &Directory,
    folder: &Path,
    file_name: &str,
    owner: Owner,
    codecs: &Codecs,
) -> Result<()> {
    let from = SegmentFile::open(directory, folder, file_name, owner)?;
    let temporary = folder.join(format!("{file_name}.tmp"));
    match directory.remove_file(&temporary) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let meta = SegmentMeta { salt: random_nonzero(), ..from.meta };
    let made = (|| {
        let file = directory.create(&temporary)?;
        let (index, end) = (Index::new(meta.base_offset), Boundary::empty(meta.base_offset));
        let mut copy = Copy { file, meta, index, end, memory: Vec::new() };
        copy.file.write_all_at(&meta.encode(), 0)?;
        copy_blocks(&from, &mut copy, codecs)?;
        let known = from.trailer.map_or(0, |t| t.end.next_offset);
        copy.end.next_offset = copy.end.next_offset.max(known);
        copy.file.write_all_at(&copy.index.encode(meta.salt, copy.end)?, copy.end.position)?;
        copy.file.sync()?;
        directory.rename(&temporary, &folder.join(file_name))
    })();
    if let Err(e) = made {
        let _ = directory.remove_file(&temporary);
        return Err(e);
    }
    directory.sync_dir(folder)
}

fn copy_blocks(from: &SegmentFile, copy: &mut Copy, codecs: &Codecs) -> Result<()> {
    let mut walk = from.walk();
    // The last good one waits until it is known whether the next is.
    let mut waiting: Option<BlockHeader> = None;
    while let Some(step) = walk.step()? {
        let good = match step {
            Step::Block(h) => matches!(verdict(&from.blocks(), &h, codecs)?, Verdict::Good(_)).then_some(h),
            Step::Gap { .. } => None,
        };
        if let Some(h) = waiting.take() {
            copy.add(from, &h, good.is_none())?;
        }
        waiting = good;
    }
    if let Some(h) = waiting {
        copy.add(from, &h, false)?;
    }
    Ok(())
}
