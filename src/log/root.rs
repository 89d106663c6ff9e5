//! The root file: which log this is, and what state it is in. Neither log nor staging, in every directory.
//!
//! Replaced whole (temporary file, flush, rename, flush of the directory), and its twin beside it likewise, first;
//! [`choose`] says which of the two counts where they differ. All integers are little-endian.
//!
//! ```text
//!    0  magic             8 bytes  "TAPELOG\0"
//!    8  format version    u32      1
//!   12  length            u32      of the whole file, checksum included
//!   16  log id            u64      random; the same in every directory of the log
//!   24  directory id      u64      random; of the directory that this file lies in
//!   32  generation        u64      rises with every replacement
//!   40  incarnation       u64      rises with every open for writing
//!   48  staging id        u64      file id of the staging files of this incarnation
//!   56  leader epoch      u32      of all that this incarnation appends; rises after an unclean stop, or a loss
//!   60  flags             u32      1 clean, 2 staging here, 4 staging path is there, 8 ends are there
//!   64  directory count   u32
//!   68  path length       u32      0 without flag 4
//!   72  directories, count x (id u64 │ flags u64: 1 in sync, 2 under repair)
//!    .  ends              u32      with flag 8: CRC-32 of (topic id u64 │ partition u32 │ end offset u64) of each partition that
//!                                 holds anything, in this order, when the log was closed
//!    .  staging path, UTF-8
//!  end-4  checksum        u32      CRC-32 of all bytes before it
//! ```
//!
//! Magic, version, length and checksum keep their places in every version to come, so that damage is told
//! from a newer format: only bytes that match their checksum are asked for their version.
//!
//! No path of the directory itself stands here: a log that was moved or copied opens where it lies.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};

/// The first bytes of every root file.
const MAGIC: &[u8; 8] = b"TAPELOG\0";
/// The version that this crate writes.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes before the directories.
const FIXED: usize = 72;
/// Bytes of one directory.
const DIRECTORY: usize = 16;
/// Bytes of the checksum.
const CHECKSUM: usize = 4;

/// The flags of a root file.
mod flags {
    /// The log was closed, and nothing is left in staging.
    pub(super) const CLEAN: u32 = 1;
    /// Staging lies in this directory.
    pub(super) const STAGING_HERE: u32 = 1 << 1;
    /// Staging lies where the user chose, and the path is there.
    pub(super) const STAGING_PATH: u32 = 1 << 2;
    /// A checksum of where the partitions ended is there.
    pub(super) const ENDS: u32 = 1 << 3;
    /// What this version understands.
    pub(super) const KNOWN: u32 = CLEAN | STAGING_HERE | STAGING_PATH | ENDS;
    /// A directory holds all that was acknowledged.
    pub(super) const IN_SYNC: u64 = 1;
    /// A directory is being filled again; nothing that it says of itself counts.
    pub(super) const UNDER_REPAIR: u64 = 1 << 1;
    /// What this version understands of a directory.
    pub(super) const DIRECTORY_KNOWN: u64 = IN_SYNC | UNDER_REPAIR;
}

/// What the log knows of one of its directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryState {
    pub(crate) id: u64,
    pub(crate) in_sync: bool,
    pub(crate) under_repair: bool,
}

/// What a root file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootFile {
    /// [`FORMAT_VERSION`] in what this crate writes.
    pub(crate) format_version: u32,
    pub(crate) log_id: u64,
    pub(crate) directory_id: u64,
    /// All directories of the log, this one among them.
    pub(crate) directories: Vec<DirectoryState>,
    pub(crate) staging_id: u64,
    /// Whether staging lies in this directory. Where it does not, and no path is given, it lies in
    /// another directory of the log.
    pub(crate) staging_here: bool,
    /// Where the user chose to put staging; `None` where it lies in a directory of the log.
    pub(crate) staging_path: Option<String>,
    pub(crate) incarnation: u64,
    pub(crate) generation: u64,
    pub(crate) leader_epoch: u32,
    pub(crate) clean: bool,
    /// What [`ends`] said of all partitions when the log was closed.
    pub(crate) ends: Option<u32>,
}

/// A checksum of where partitions end, each told as topic id, partition and end offset: a segment file that was exchanged for
/// an older copy of itself proves itself, and ends earlier. Partitions that never held anything do not count.
pub(crate) fn ends(partitions: impl IntoIterator<Item = (u64, u32, u64)>) -> u32 {
    let all: BTreeSet<_> = partitions.into_iter().filter(|(.., end)| *end > 0).collect();
    let mut crc = crc32fast::Hasher::new();
    for (topic_id, partition, end) in all {
        crc.update(&topic_id.to_le_bytes());
        crc.update(&partition.to_le_bytes());
        crc.update(&end.to_le_bytes());
    }
    crc.finalize()
}

/// Why bytes are not a root file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum RootError {
    #[error("not a root file of a log")]
    Magic,
    #[error("root file is cut short")]
    Truncated,
    #[error("root file has bytes after its end")]
    Trailing,
    #[error("root file does not match its checksum")]
    Checksum,
    #[error("root file is of format version {0}; this build reads version {FORMAT_VERSION}")]
    Version(u32),
    #[error("root file has flags {0:#x} of a newer format")]
    Flags(u64),
    #[error("root file contradicts itself: {0}")]
    Fields(&'static str),
}

impl From<RootError> for Error {
    fn from(e: RootError) -> Error {
        let kind = match e {
            RootError::Magic => ErrorKind::ForeignFile,
            RootError::Version(_) | RootError::Flags(_) => ErrorKind::UnsupportedVersion,
            _ => ErrorKind::CorruptRecord,
        };
        Error::new(kind, e.to_string())
    }
}

/// Takes the next `N` bytes off the front.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RootError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(RootError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, RootError> {
    take(rest).map(u32::from_le_bytes)
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, RootError> {
    take(rest).map(u64::from_le_bytes)
}

impl RootFile {
    /// Of a log that begins, in one directory.
    pub(crate) fn new(log_id: u64, directory_id: u64) -> RootFile {
        RootFile {
            format_version: FORMAT_VERSION,
            log_id,
            directory_id,
            directories: vec![DirectoryState { id: directory_id, in_sync: true, under_repair: false }],
            staging_id: 0,
            staging_here: true,
            staging_path: None,
            incarnation: 0,
            generation: 1,
            leader_epoch: 1,
            clean: true,
            ends: None,
        }
    }

    /// The bytes of the file.
    #[allow(clippy::cast_possible_truncation)] // a handful of directories and one path
    pub(crate) fn encode(&self) -> Vec<u8> {
        let path = self.staging_path.as_deref().unwrap_or_default();
        let ends = self.ends.map(u32::to_le_bytes);
        let ends = ends.as_ref().map_or(&[][..], |ends| ends);
        let len = FIXED + self.directories.len() * DIRECTORY + ends.len() + path.len() + CHECKSUM;
        let mut bits = 0;
        for (set, bit) in [
            (self.clean, flags::CLEAN),
            (self.staging_here, flags::STAGING_HERE),
            (self.staging_path.is_some(), flags::STAGING_PATH),
            (self.ends.is_some(), flags::ENDS),
        ] {
            bits |= if set { bit } else { 0 };
        }
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.format_version.to_le_bytes());
        out.extend_from_slice(&(len as u32).to_le_bytes());
        for field in [self.log_id, self.directory_id, self.generation, self.incarnation, self.staging_id] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for field in [self.leader_epoch, bits, self.directories.len() as u32, path.len() as u32] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for directory in &self.directories {
            let mut bits = 0;
            bits |= if directory.in_sync { flags::IN_SYNC } else { 0 };
            bits |= if directory.under_repair { flags::UNDER_REPAIR } else { 0 };
            out.extend_from_slice(&directory.id.to_le_bytes());
            out.extend_from_slice(&bits.to_le_bytes());
        }
        out.extend_from_slice(ends);
        out.extend_from_slice(path.as_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Reads the bytes of a whole root file.
    ///
    /// Fails with [`ErrorKind::ForeignFile`] where they are something else, [`ErrorKind::UnsupportedVersion`]
    /// where a newer version wrote them, [`ErrorKind::CorruptRecord`] where they are damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Result<RootFile, Error> {
        Ok(Self::parse(bytes)?)
    }

    fn parse(bytes: &[u8]) -> Result<RootFile, RootError> {
        let magic = &bytes[..bytes.len().min(MAGIC.len())];
        if magic != &MAGIC[..magic.len()] {
            // What a power cut leaves of a file that was never flushed is zeros, and no stranger's.
            let zeros = bytes.iter().all(|&b| b == 0);
            return Err(if zeros { RootError::Checksum } else { RootError::Magic });
        }
        let mut rest = bytes;
        take::<8>(&mut rest)?;
        let format_version = take_u32(&mut rest)?;
        let len = take_u32(&mut rest)? as usize;
        if bytes.len() < len {
            return Err(RootError::Truncated);
        }
        if bytes.len() > len {
            return Err(RootError::Trailing);
        }
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(RootError::Truncated)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(RootError::Checksum);
        }
        if format_version != FORMAT_VERSION {
            return Err(RootError::Version(format_version));
        }
        rest = body.get(16..).ok_or(RootError::Truncated)?;
        let log_id = take_u64(&mut rest)?;
        let directory_id = take_u64(&mut rest)?;
        let generation = take_u64(&mut rest)?;
        let incarnation = take_u64(&mut rest)?;
        let staging_id = take_u64(&mut rest)?;
        let leader_epoch = take_u32(&mut rest)?;
        let bits = take_u32(&mut rest)?;
        let count = take_u32(&mut rest)? as usize;
        let path_len = take_u32(&mut rest)? as usize;
        if bits & !flags::KNOWN != 0 {
            return Err(RootError::Flags(u64::from(bits)));
        }
        // Each open adds to them.
        if (generation | incarnation) >> 63 != 0 {
            return Err(RootError::Fields("it counts further than a log can come"));
        }
        // Before anything is allocated for them: the parts fill the file exactly.
        let has_ends = bits & flags::ENDS != 0;
        let parts = [path_len, if has_ends { 4 } else { 0 }];
        let len =
            parts.iter().try_fold(count.checked_mul(DIRECTORY), |len, part| Some(len?.checked_add(*part)));
        if len.flatten() != Some(rest.len()) {
            return Err(RootError::Fields("its parts do not fill it"));
        }
        let mut directories = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, bits) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
            if bits & !flags::DIRECTORY_KNOWN != 0 {
                return Err(RootError::Flags(bits));
            }
            let (in_sync, under_repair) = (bits & flags::IN_SYNC != 0, bits & flags::UNDER_REPAIR != 0);
            directories.push(DirectoryState { id, in_sync, under_repair });
        }
        let ends = if has_ends { Some(take_u32(&mut rest)?) } else { None };
        let path =
            std::str::from_utf8(rest).map_err(|_| RootError::Fields("the staging path is not UTF-8"))?;
        let has_path = bits & flags::STAGING_PATH != 0;
        let root = RootFile {
            format_version,
            log_id,
            directory_id,
            directories,
            staging_id,
            staging_here: bits & flags::STAGING_HERE != 0,
            staging_path: has_path.then(|| path.to_owned()),
            incarnation,
            generation,
            leader_epoch,
            clean: bits & flags::CLEAN != 0,
            ends,
        };
        if has_path == path.is_empty() {
            return Err(RootError::Fields("the staging path and its flag disagree"));
        }
        root.check()?;
        Ok(root)
    }

    fn check(&self) -> Result<(), RootError> {
        let ids: BTreeSet<u64> = self.directories.iter().map(|d| d.id).collect();
        if ids.len() != self.directories.len() {
            return Err(RootError::Fields("a directory stands in it twice"));
        }
        if !ids.contains(&self.directory_id) {
            return Err(RootError::Fields("its own directory is not among the directories"));
        }
        if self.staging_here && self.staging_path.is_some() {
            return Err(RootError::Fields("staging lies in two places"));
        }
        Ok(())
    }
}

/// Which of the two root files of a directory counts: the valid one with the higher generation.
///
/// A file of a newer version is never passed over for an older one beside it: an old build must not go on from
/// where a newer one began. Where neither is valid, the error that says more is told: that of the current
/// file, unless it is only absent.
pub(crate) fn choose(current: Result<RootFile>, previous: Result<RootFile>) -> Result<RootFile> {
    match (current, previous) {
        (Ok(current), Ok(previous)) => {
            if (current.log_id, current.directory_id) != (previous.log_id, previous.directory_id) {
                let message = "the two root files of the directory belong to different logs";
                return Err(Error::new(ErrorKind::ForeignFile, message));
            }
            Ok(if previous.generation > current.generation { previous } else { current })
        }
        (Err(newer), _) | (_, Err(newer)) if newer.kind() == ErrorKind::UnsupportedVersion => Err(newer),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(absent), Err(other)) if absent.kind() == ErrorKind::NotFound => Err(other),
        (Err(current), Err(_)) => Err(current),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> RootFile {
        RootFile {
            format_version: FORMAT_VERSION,
            log_id: 0x0102_0304_0506_0708,
            directory_id: 12,
            directories: vec![
                DirectoryState { id: 11, in_sync: true, under_repair: false },
                DirectoryState { id: 12, in_sync: false, under_repair: true },
            ],
            staging_id: 99,
            staging_here: false,
            staging_path: Some("/dev/shm/ticks".into()),
            incarnation: 5,
            generation: 41,
            leader_epoch: 3,
            clean: false,
            ends: Some(0x5EED_0E5D),
        }
    }

    fn kind(bytes: &[u8]) -> ErrorKind {
        RootFile::decode(bytes).unwrap_err().kind()
    }

    /// Puts the checksum right again after a change: a lie that nothing but the fields can tell.
    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let at = bytes.len() - CHECKSUM;
        let crc = crc32fast::hash(&bytes[..at]);
        bytes[at..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn round_trip() {
        for (staging_here, staging_path) in
            [(true, None), (false, None), (false, Some("/dev/shm/ticks".to_owned()))]
        {
            for clean in [false, true] {
                let ends = clean.then_some(7);
                let root =
                    RootFile { staging_here, staging_path: staging_path.clone(), clean, ends, ..root() };
                assert_eq!(RootFile::decode(&root.encode()).unwrap(), root);
            }
        }
    }

    #[test]
    fn bytes_stand_where_they_are_drawn() {
        let bytes = root().encode();
        assert_eq!(&bytes[..8], b"TAPELOG\0");
        assert_eq!(bytes[8..12], 1u32.to_le_bytes());
        assert_eq!(bytes[12..16], u32::try_from(bytes.len()).unwrap().to_le_bytes());
        assert_eq!(bytes[16..24], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[32..40], 41u64.to_le_bytes());
        assert_eq!(bytes[72..80], 11u64.to_le_bytes());
        assert_eq!(bytes[104..108], 0x5EED_0E5Du32.to_le_bytes());
        assert_eq!(&bytes[108..122], b"/dev/shm/ticks");
        assert_eq!(bytes.len(), 126);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = root().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 64 { ErrorKind::ForeignFile } else { ErrorKind::CorruptRecord };
            assert_eq!(kind(&bad), expected, "bit {bit}");
        }
        for cut in 0..good.len() {
            assert_eq!(kind(&good[..cut]), ErrorKind::CorruptRecord, "cut at {cut}");
        }
        let mut long = good.clone();
        long.push(0);
        assert_eq!(kind(&long), ErrorKind::CorruptRecord);
    }

    #[test]
    fn no_bytes_make_decode_panic() {
        let good = root().encode();
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..3 {
                let at = next() as usize % bad.len();
                bad[at] = next() as u8;
            }
            let _ = RootFile::decode(&bad);
            // The same with a checksum that agrees, so that the fields are reached.
            let _ = RootFile::decode(&resealed(bad));
            let noise: Vec<u8> = (0..next() % 200).map(|_| next() as u8).collect();
            assert!(RootFile::decode(&noise).is_err());
        }
    }

    #[test]
    fn strangers_newer_versions_and_lies_are_told_apart() {
        assert_eq!(kind(b"PNG and more of something else"), ErrorKind::ForeignFile);
        assert_eq!(kind(b"x"), ErrorKind::ForeignFile);
        assert_eq!(kind(&[0; 122]), ErrorKind::CorruptRecord);
        let newer = RootFile { format_version: 7, ..root() }.encode();
        let error = RootFile::decode(&newer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(
            error.to_string().contains("version 7") && error.to_string().contains("version 1"),
            "{error}"
        );
        let mut flagged = root().encode();
        flagged[60] |= 0x80;
        assert_eq!(kind(&resealed(flagged)), ErrorKind::UnsupportedVersion);
        let mut many = root().encode();
        many[64..68].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(kind(&resealed(many)), ErrorKind::CorruptRecord);
        assert_eq!(kind(&RootFile { directory_id: 13, ..root() }.encode()), ErrorKind::CorruptRecord);
        assert_eq!(kind(&RootFile { generation: u64::MAX, ..root() }.encode()), ErrorKind::CorruptRecord);
        assert_eq!(kind(&RootFile { incarnation: u64::MAX, ..root() }.encode()), ErrorKind::CorruptRecord);
        assert_eq!(kind(&RootFile { staging_here: true, ..root() }.encode()), ErrorKind::CorruptRecord);
        let twice = vec![root().directories[1]; 2];
        assert_eq!(kind(&RootFile { directories: twice, ..root() }.encode()), ErrorKind::CorruptRecord);
    }

    #[test]
    fn the_highest_valid_generation_wins() {
        let of = |generation| Ok(RootFile { generation, ..root() });
        let err = |kind| Err(Error::new(kind, "x"));
        let generation = |a, b| choose(a, b).map(|r| r.generation).map_err(|e| e.kind());
        assert_eq!(generation(of(3), of(2)), Ok(3));
        assert_eq!(generation(of(2), of(3)), Ok(3));
        for kind in [ErrorKind::CorruptRecord, ErrorKind::NotFound, ErrorKind::ForeignFile] {
            assert_eq!(generation(of(3), err(kind)), Ok(3));
            assert_eq!(generation(err(kind), of(2)), Ok(2));
        }
        let newer = ErrorKind::UnsupportedVersion;
        assert_eq!(generation(err(newer), of(2)), Err(newer));
        assert_eq!(generation(of(2), err(newer)), Err(newer));
        assert_eq!(generation(err(ErrorKind::NotFound), err(newer)), Err(newer));
        assert_eq!(
            generation(err(ErrorKind::NotFound), err(ErrorKind::CorruptRecord)),
            Err(ErrorKind::CorruptRecord)
        );
        assert_eq!(
            generation(err(ErrorKind::Storage), err(ErrorKind::CorruptRecord)),
            Err(ErrorKind::Storage)
        );
        let other = Ok(RootFile { log_id: 1, ..root() });
        assert_eq!(generation(other, of(1)), Err(ErrorKind::ForeignFile));
    }
}
