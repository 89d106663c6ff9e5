//! The staging files that chunks of a durable log are slots of: what they are called, what their first bytes
//! say, and how they come and go.
//!
//! All files of one open are named `staging-{file id, 16 hex digits}-{number, at least 3 digits}`. Bytes of a file, little-endian:
//!
//! ```text
//!    0  magic         u32   "TLA1"
//!    4  checksum      u32   CRC-32 of bytes 8..64
//!    8  version       u32   1
//!   12  granule       u32   4096
//!   16  file id       u64
//!   24  incarnation   u64
//!   32  key           u64   random; the checksums of slot headers begin with it
//!   40  granules      u32   how many follow
//!   44  number        u32
//!   48  reserved            16 bytes, 0
//!   64  testimony     92 bytes, in number 0 only; drawn in `witness.rs`
//!  156  reserved            up to 4096, 0, for readers in other processes
//! 4096  granules; a slot is one or more of them
//! ```
//!
//! What a slot begins with is drawn in `chunk.rs`.

use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::sync::Arc;

use crate::bytes::{put, u32_at, u64_at};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::disk::{Disk, named};
use crate::storage::file::RawFile;
#[cfg(unix)]
use crate::storage::mapping::Mapping;
use crate::storage::slot::GRANULE;
use crate::storage::threads;

/// Bytes of a file's header that mean something.
pub(crate) const FILE_HEADER: usize = 64;
/// "TLA1".
const MAGIC: u32 = u32::from_le_bytes(*b"TLA1");
const VERSION: u32 = 1;

/// Where the staging files of one open go.
#[cfg(unix)]
pub(crate) struct Staging {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    pub(crate) file_id: u64,
}

/// A staging file that is mapped.
#[cfg(unix)]
pub(crate) struct StagingFile {
    pub(crate) path: PathBuf,
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) kind: Kind,
}

/// What a staging file came for.
#[cfg(unix)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Number 0: lives as long as the pool.
    Budget,
    /// Came because readers pin memory.
    Further,
    /// Made for one large append.
    Own,
}

/// What the first bytes of a staging file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) file_id: u64,
    pub(crate) incarnation: u64,
    pub(crate) key: u64,
    pub(crate) granules: u32,
    pub(crate) number: u32,
}

impl FileHeader {
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER] {
        let mut out = [0; FILE_HEADER];
        #[allow(clippy::cast_possible_truncation)] // 4096
        let granule = GRANULE as u32;
        put(&mut out, 0, &MAGIC.to_le_bytes());
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 12, &granule.to_le_bytes());
        put(&mut out, 16, &self.file_id.to_le_bytes());
        put(&mut out, 24, &self.incarnation.to_le_bytes());
        put(&mut out, 32, &self.key.to_le_bytes());
        put(&mut out, 40, &self.granules.to_le_bytes());
        put(&mut out, 44, &self.number.to_le_bytes());
        let crc = crc32fast::hash(&out[8..]);
        put(&mut out, 4, &crc.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<FileHeader> {
        let whole = bytes.get(..FILE_HEADER);
        let proved = |b: &&[u8]| u32_at(b, 0) == MAGIC && u32_at(b, 4) == crc32fast::hash(&b[8..]);
        let Some(bytes) = whole.filter(proved) else {
            let what = "not a staging file, or its header is damaged";
            return Err(Error::new(ErrorKind::CorruptRecord, what));
        };
        let (version, granule) = (u32_at(bytes, 8), u32_at(bytes, 12) as usize);
        if (version, granule) != (VERSION, GRANULE) {
            let what =
                format!("staging file is of format version {version}; this build reads version {VERSION}");
            return Err(Error::new(ErrorKind::UnsupportedVersion, what));
        }
        Ok(FileHeader {
            file_id: u64_at(bytes, 16),
            incarnation: u64_at(bytes, 24),
            key: u64_at(bytes, 32),
            granules: u32_at(bytes, 40),
            number: u32_at(bytes, 44),
        })
    }
}

/// What file `number` of an open is called.
pub(crate) fn file_name(file_id: u64, number: u32) -> String {
    format!("staging-{file_id:016x}-{number:03}")
}

#[cfg(unix)]
impl Staging {
    /// Creates file `number`, which must not be there, with room for `size` bytes of slots, and maps it.
    pub(crate) fn create(
        &self,
        number: u32,
        incarnation: u64,
        key: u64,
        size: usize,
        kind: Kind,
    ) -> Result<StagingFile> {
        let path = self.folder.join(file_name(self.file_id, number));
        let granules = size / GRANULE;
        let header = FileHeader {
            file_id: self.file_id,
            incarnation,
            key,
            granules: u32::try_from(granules).unwrap_or(u32::MAX), // the budget was checked
            number,
        };
        // Only the first is flushed: what is in the others was never promised to survive a power cut.
        let flush = kind == Kind::Budget;
        let mapping = Mapping::create(&*self.disk, &path, &header.encode(), granules, header.key, flush)?;
        Ok(StagingFile { path, mapping, kind })
    }
}

/// Unlinks and unmaps, with no lock held.
#[cfg(unix)]
pub(crate) fn unlink(disk: &dyn Disk, files: Vec<StagingFile>) {
    for file in files {
        // One that stays goes with `remove`; until then recovery finds nothing new in it.
        let _ = disk.remove_file(&file.path);
    }
}

/// What durable logs are where there are no staging files.
#[cfg(not(unix))]
pub(crate) fn unsupported(folder: &Path) -> Error {
    Error::new(ErrorKind::Unsupported, "staging files need a Unix").at_path(folder)
}

/// The header of a file. Outer errors are of the disk, inner ones of the bytes.
#[cfg(unix)]
pub(crate) fn read_header(
    disk: &dyn Disk,
    path: &Path,
    file_id: u64,
    number: u32,
) -> Result<Result<FileHeader>> {
    let mut bytes = [0; FILE_HEADER];
    let n = read_at(&*open(disk, path)?, path, &mut bytes, 0)?;
    let header = match FileHeader::parse(&bytes[..n]) {
        Ok(header) => header,
        Err(e) => return Ok(Err(e.at_path(path))),
    };
    if (header.file_id, header.number) != (file_id, number) {
        let message = "the staging file is not what its name says";
        return Ok(Err(Error::new(ErrorKind::ForeignFile, message).at_path(path)));
    }
    Ok(Ok(header))
}

/// Unlinks all staging files `file_id`. A missing one is no error.
pub(crate) fn remove(disk: &dyn Disk, folder: &Path, file_id: u64) -> Result<()> {
    // The first goes last: while it is there, the others can be found to belong to something.
    for (_, path) in staging_files(disk, folder, file_id)?.into_iter().rev() {
        match disk.remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove the staging file", &path, e)),
        }
    }
    Ok(())
}

/// [`remove`], but for giving back what the files hold, which takes a millisecond for some ten MiB: that is
/// [`Held::give_back`]'s to do.
#[cfg(unix)]
pub(crate) fn remove_names(disk: &dyn Disk, folder: &Path, file_id: u64) -> Result<Held> {
    // A file lives on without its names for as long as it is open.
    let files = staging_files(disk, folder, file_id)?;
    let held = files.iter().filter_map(|(_, path)| open(disk, path).ok()).collect();
    remove(disk, folder, file_id)?;
    Ok(Held(held))
}

/// Without staging files there is nothing to hold.
#[cfg(not(unix))]
pub(crate) fn remove_names(disk: &dyn Disk, folder: &Path, file_id: u64) -> Result<Held> {
    remove(disk, folder, file_id).map(|()| Held(Vec::new()))
}

/// Files without a name, which are there until this is dropped.
#[must_use = "what they hold is given back by whoever drops it"]
#[derive(Default)]
pub(crate) struct Held(Vec<Box<dyn RawFile>>);

impl Held {
    /// Has a thread of its own drop them. It calls nothing of the disk.
    pub(crate) fn give_back(self) {
        if !self.0.is_empty() {
            // Without a thread it is done at once.
            let _ = threads::spawn("tapelog-unlink", move || drop(self));
        }
    }
}

/// Numbers and paths, by number. A missing folder has none.
pub(crate) fn staging_files(disk: &dyn Disk, folder: &Path, file_id: u64) -> Result<Vec<(u32, PathBuf)>> {
    let failed = |e| Error::io("list the staging files", folder, e);
    let entries = match disk.list(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let prefix = format!("staging-{file_id:016x}-");
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.name;
        let number = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse().ok());
        // Only the name that this number would be given, not another spelling of it.
        if let Some(number) = number.filter(|&n| name.to_str() == Some(&file_name(file_id, n))) {
            files.push((number, folder.join(&name)));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Opens a regular file, nothing else, for reading.
#[cfg(unix)]
pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Box<dyn RawFile>> {
    disk.open(path, false).map_err(|e| named("open the staging file", path, e))
}

/// Reads as many bytes as there are.
#[cfg(unix)]
pub(crate) fn read_at(file: &dyn RawFile, path: &Path, out: &mut [u8], position: u64) -> Result<usize> {
    let mut n = 0;
    while n < out.len() {
        match file.read_at(&mut out[n..], position + n as u64) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read the staging file", path, e).at_position(position)),
        }
    }
    Ok(n)
}
