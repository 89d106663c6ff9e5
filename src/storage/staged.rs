//! What a process that died left in its staging files: slots, and the frames in them that prove themselves.
//!
//! Which granules make a slot is said by nothing but the slots' headers: recovery looks at every granule. It
//! may so find slots that were given back, or parts of them. That does no harm: their frames prove themselves or are
//! not believed, and offsets that are in the segments already are not replayed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(unix)]
use crate::error::Error;
#[cfg(unix)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::frame::{FrameView, mix};
#[cfg(unix)]
use crate::storage::chunk::Mapping;
use crate::storage::disk::Disk;
#[cfg(unix)]
use crate::storage::file::RawFile;
use crate::storage::slot::HEADER;
use crate::storage::slot::{GRANULE, SlotHeader};
#[cfg(not(unix))]
use crate::storage::staging::unsupported;
#[cfg(unix)]
use crate::storage::staging::{FileHeader, file_name, open, read_at, read_header, staging_files};

/// A slot that recovery found; its bytes are read when asked for.
#[derive(Debug, Clone)]
pub(crate) struct StagedChunk {
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
    pub(crate) epoch: u32,
    pub(crate) base_offset: u64,
    pub(crate) salt: u64,
    /// As the header says; the file may be shorter.
    pub(crate) len: usize,
    source: Arc<Source>,
    position: u64,
}

/// A staging file that slots are read from: opened once for all of them.
struct Source {
    #[cfg(unix)]
    file: Box<dyn RawFile>,
    path: PathBuf,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.path).finish()
    }
}

impl StagedChunk {
    /// Reads the slot into `memory`, which may be used again: less than [`StagedChunk::len`] where the file ends early.
    #[cfg(unix)]
    pub(crate) fn read<'a>(&self, memory: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        if memory.len() < self.len {
            memory.resize(self.len, 0);
        }
        let got = read_at(&*self.source.file, &self.source.path, &mut memory[..self.len], self.position)?;
        Ok(&memory[..got])
    }

    /// Reads the slot.
    #[cfg(not(unix))]
    pub(crate) fn read<'a>(&self, _: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        Err(unsupported(&self.source.path))
    }

    /// The frames in `bytes`, which [`StagedChunk::read`] read.
    pub(crate) fn frames<'a>(&self, bytes: &'a [u8]) -> ProvedFrames<'a> {
        proved_frames(bytes, self.salt)
    }
}

/// The frames of a slot up to the first that does not prove itself.
#[derive(Clone)]
pub(crate) struct ProvedFrames<'a> {
    bytes: &'a [u8],
    salt: u64,
    at: usize,
}

/// Walks the frames of a slot's `bytes`, header and all, whatever they are.
pub(crate) fn proved_frames(bytes: &[u8], salt: u64) -> ProvedFrames<'_> {
    ProvedFrames { bytes, salt, at: HEADER }
}

impl<'a> Iterator for ProvedFrames<'a> {
    /// The position in the slot, and the frame. Its tag is still mixed with both.
    type Item = (usize, FrameView<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        // A zero word has length 0, which `parse` refuses like any length that does not fit.
        let frame = self.bytes.get(at..).and_then(|rest| FrameView::parse(rest).ok());
        match frame.filter(|frame| frame.verify(mix(self.salt, at)).is_ok()) {
            Some(frame) => {
                self.at += frame.len();
                Some((at, frame))
            }
            None => {
                self.at = self.bytes.len();
                None
            }
        }
    }
}

impl std::iter::FusedIterator for ProvedFrames<'_> {}

/// Lists the slots that incarnation `incarnation` left in the staging files `file_id`, in no particular order. Files
/// are read, never mapped.
///
/// Errors: [`ErrorKind::StagingMissing`] without the first file, [`ErrorKind::CorruptRecord`] if its header is
/// damaged, [`ErrorKind::ForeignFile`] if it is another's.
#[cfg(unix)]
pub(crate) fn recover(
    disk: &dyn Disk,
    folder: &Path,
    file_id: u64,
    incarnation: u64,
) -> Result<Vec<StagedChunk>> {
    let files = staging_files(disk, folder, file_id)?;
    if files.first().is_none_or(|(number, _)| *number != 0) {
        let path = folder.join(file_name(file_id, 0));
        return Err(Error::new(ErrorKind::StagingMissing, "the staging file is absent").at_path(&path));
    }
    let mut found = Vec::new();
    for (number, path) in files {
        match read_header(disk, &path, file_id, number)? {
            Ok(header) if header.incarnation == incarnation => list_slots(disk, path, &header, &mut found)?,
            // An older open's: what it held was replayed by the one after it.
            Ok(_) => {}
            Err(e) if number == 0 => return Err(e),
            // A further file was cut off while it was made, or lost its header with the power: nothing in it was
            // promised to survive that.
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Lists the slots that an incarnation left.
#[cfg(not(unix))]
pub(crate) fn recover(_: &dyn Disk, folder: &Path, _: u64, _: u64) -> Result<Vec<StagedChunk>> {
    Err(unsupported(folder))
}

#[cfg(unix)]
fn list_slots(
    disk: &dyn Disk,
    path: PathBuf,
    header: &FileHeader,
    found: &mut Vec<StagedChunk>,
) -> Result<()> {
    let source = Arc::new(Source { file: open(disk, &path)?, path });
    // As many as the header, which proved itself, says, and no more than the file has.
    for granule in 0..header.granules as usize {
        let position = Mapping::position(granule);
        let mut bytes = [0; HEADER];
        if read_at(&*source.file, &source.path, &mut bytes, position as u64)? < HEADER {
            break;
        }
        let Some(slot) = SlotHeader::parse(&bytes, header.key, position) else { continue };
        let len = slot.len as usize;
        let fits = len.is_multiple_of(GRANULE) && granule + len / GRANULE <= header.granules as usize;
        if slot.incarnation != header.incarnation || !fits {
            continue;
        }
        found.push(StagedChunk {
            topic_id: slot.topic_id,
            partition: slot.partition,
            epoch: slot.epoch,
            base_offset: slot.base_offset,
            salt: slot.salt,
            len,
            source: Arc::clone(&source),
            position: position as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::storage::arena::{MIN_BUDGET, Pool, Want};
    #[cfg(unix)]
    use crate::storage::disk::RealDisk;
    #[cfg(unix)]
    use crate::storage::slot::SMALL;
    #[cfg(unix)]
    use crate::storage::staging::FILE_HEADER;

    const BUDGET: usize = 16 << 20;

    fn want(len: usize, hint: usize) -> Want {
        Want {
            topic_id: 7,
            partition: 1,
            epoch: 2,
            base_offset: 100,
            min_len: len,
            class_hint: hint,
            internal: false,
        }
    }

    #[cfg(unix)]
    fn values(chunk: &StagedChunk) -> Vec<(u64, Vec<u8>)> {
        let mut memory = Vec::new();
        let bytes = chunk.read(&mut memory).unwrap();
        chunk.frames(bytes).map(|(_, f)| (f.offset(), f.value().unwrap_or_default().to_vec())).collect()
    }

    #[cfg(unix)]
    #[test]
    fn recovers_what_was_staged_by_this_incarnation_only() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::mapped(Arc::new(RealDisk), folder.path(), 9, 4, BUDGET).unwrap();
        let mut writers: Vec<_> = (0..3u64)
            .map(|i| pool.take(&Want { topic_id: i, ..want(100, GRANULE << i) }).unwrap().unwrap())
            .collect();
        let mut own = pool.take(&want(6 << 20, 0)).unwrap().unwrap();
        let large = vec![8; 6 << 20];
        assert!(own.append(&Record::new(&large), 100));
        own.publish();
        for (i, writer) in writers.iter_mut().enumerate() {
            for n in 0..10 {
                assert!(writer.append(&Record::new(&[i as u8; 50]), 100 + n));
            }
            writer.publish();
        }
        writers[0].append(&Record::new("staged, not published"), 110);
        writers[1].append(&Record::new("taken back"), 110);
        writers[1].abandon();
        // The process dies here: nothing is closed.
        let mut found = recover(&RealDisk, folder.path(), 9, 4).unwrap();
        found.sort_by_key(|c| (c.topic_id, c.len));
        let expected: Vec<_> = (0..10).map(|n| (100 + n, vec![1u8; 50])).collect();
        assert_eq!(found.iter().map(|c| c.topic_id).collect::<Vec<_>>(), [0, 1, 2, 7]);
        assert_eq!(values(&found[0]).len(), 11);
        assert_eq!(values(&found[1]), expected);
        assert_eq!(values(&found[3]), [(100, large)]);
        assert_eq!((found[1].partition, found[1].epoch, found[1].base_offset), (1, 2, 100));
        assert_eq!(found[1].salt, writers[1].chunk().salt());

        assert!(recover(&RealDisk, folder.path(), 9, 5).unwrap().is_empty());
        assert!(recover(&RealDisk, folder.path(), 9, 3).unwrap().is_empty());
        let missing = recover(&RealDisk, folder.path(), 10, 4).err().unwrap();
        assert_eq!(missing.kind(), ErrorKind::StagingMissing);
        assert!(missing.to_string().contains("staging-000000000000000a-000"), "{missing}");
        let nowhere = recover(&RealDisk, &folder.path().join("nowhere"), 9, 4).err().unwrap();
        assert_eq!(nowhere.kind(), ErrorKind::StagingMissing);
    }

    /// A slot may be larger than those that were there before it; their headers then lie inside it.
    #[cfg(unix)]
    #[test]
    fn earlier_lives_of_a_slot_do_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::mapped(Arc::new(RealDisk), folder.path(), 9, 4, BUDGET).unwrap();
        let mut small: Vec<_> = (0..8).map(|_| pool.take(&want(100, 0)).unwrap().unwrap()).collect();
        for writer in &mut small {
            writer.append(&Record::new("old"), 100);
            writer.publish();
        }
        drop(small);
        // They end where this one ends: it has 16 granules.
        let mut big = pool.take(&Want { topic_id: 8, ..want(100, SMALL) }).unwrap().unwrap();
        let value = vec![7; 15 * GRANULE + 3000];
        assert!(big.append(&Record::new(&value), 200));
        big.publish();
        let found = recover(&RealDisk, folder.path(), 9, 4).unwrap();
        assert_eq!(found.len(), 1, "the frame lies over the eight others");
        assert_eq!(values(&found[0]), [(200, value)]);
    }

    #[cfg(unix)]
    #[test]
    fn damaged_staging_files_yield_less_and_never_panic() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::mapped(Arc::new(RealDisk), folder.path(), 9, 4, MIN_BUDGET).unwrap();
        let mut writer = pool.take(&want(100, 0)).unwrap().unwrap();
        for n in 0..20 {
            writer.append(&Record::new("some value").key("key"), 100 + n);
        }
        drop(pool);
        let path = folder.path().join(file_name(9, 0));
        let good = std::fs::read(&path).unwrap();
        let whole = values(&recover(&RealDisk, folder.path(), 9, 4).unwrap()[0]);
        assert_eq!(whole.len(), 20);
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join(file_name(9, 0));
        // The last granule of the file.
        let slot = Mapping::position(MIN_BUDGET / GRANULE - 1);
        let used = slot + HEADER + 20 * 56 + 16;
        let seen = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            match recover(&RealDisk, copy.path(), 9, 4) {
                Ok(found) => {
                    let values = found.first().map(values).unwrap_or_default();
                    assert_eq!(values, whole[..values.len()], "{what}");
                    Some(values.len())
                }
                Err(e) => {
                    assert!(e.is_corrupt(), "{what}: {e}");
                    None
                }
            }
        };
        let step = 13; // every file is written out; steps of 13 meet every byte of a word
        for cut in (0..FILE_HEADER).chain(slot - 1..used).step_by(step) {
            let left = seen(&good[..cut], "cut");
            let frames = cut.saturating_sub(slot + HEADER) / 56;
            assert_eq!(left.unwrap_or(0), frames.min(20), "cut at {cut}");
        }
        let positions = (0..FILE_HEADER).chain((slot..used).step_by(step));
        for at in positions {
            let mut bad = good[..used].to_vec();
            bad[at] ^= 0x40;
            let left = seen(&bad, "flip");
            if at < FILE_HEADER {
                assert_eq!(left, None, "byte {at}");
            }
        }
        // Damage in a further file costs that file only; in the first it is an error.
        std::fs::write(&path, &good).unwrap();
        std::fs::write(copy.path().join(file_name(9, 1)), b"cut off while it was made").unwrap();
        std::fs::copy(&path, copy.path().join(file_name(9, 2))).unwrap();
        assert_eq!(recover(&RealDisk, copy.path(), 9, 4).unwrap().len(), 1);
        std::fs::rename(&path, copy.path().join(file_name(8, 0))).unwrap();
        assert_eq!(recover(&RealDisk, copy.path(), 8, 4).err().unwrap().kind(), ErrorKind::ForeignFile);
        std::os::unix::fs::symlink("elsewhere", copy.path().join(file_name(7, 0))).unwrap();
        assert!(recover(&RealDisk, copy.path(), 7, 4).is_err(), "links are not followed");
    }

    #[test]
    fn any_damage_to_a_slot_leaves_a_prefix() {
        let pool = Pool::heap(MIN_BUDGET).unwrap();
        let mut writer = pool.take(&want(100, 0)).unwrap().unwrap();
        let headers: &[(&str, &[u8])] = &[("h", b"x")];
        for n in 0..6 {
            writer.append(&Record::new("some value").key("key").headers(headers), 100 + n);
        }
        writer.publish();
        let chunk = writer.seal();
        let mut good = vec![0; HEADER];
        good.extend_from_slice(chunk.bytes(HEADER, chunk.committed()).unwrap());
        let end = good.len();
        good.extend_from_slice(&[0; 64]);
        let offsets = |bytes: &[u8], salt| -> Vec<u64> {
            proved_frames(bytes, salt).map(|(_, frame)| frame.offset()).collect()
        };
        let whole: Vec<u64> = (100..106).collect();
        assert_eq!(offsets(&good, chunk.salt()), whole);
        assert!(offsets(&good, chunk.salt() ^ 1).is_empty(), "another salt");
        let shifted = [&good[..HEADER], &[0; 8], &good[HEADER..]].concat();
        assert!(offsets(&shifted[8..], chunk.salt()).len() == 6, "the shift is what is tested");
        let mut moved = proved_frames(&shifted, chunk.salt());
        moved.at += 8;
        assert_eq!(moved.next().map(|(at, _)| at), None, "another place");
        let frame = (end - HEADER) / 6;
        for cut in 0..good.len() {
            let seen = offsets(&good[..cut], chunk.salt());
            assert_eq!(seen, whole[..(cut.saturating_sub(HEADER) / frame).min(6)]);
        }
        for at in HEADER..good.len() {
            for garbage in [0x00, 0x01, 0x80, 0xFF] {
                let mut bad = good.clone();
                if bad[at] == garbage {
                    continue;
                }
                bad[at] = garbage;
                assert_eq!(offsets(&bad, chunk.salt()), whole[..((at - HEADER) / frame).min(6)], "byte {at}");
            }
        }
    }
}
