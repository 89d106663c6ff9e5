//! The file of the next segment, made by another thread while this one is written to.
//!
//! Space is reserved under the lock that writes to a file take as well, and on a busy disk the file system must wait for its
//! maps of free space: so whoever writes as fast as the disk takes it waits for each extent again. A file that nobody writes
//! to yet can have all its space first. It has no name until it is wanted: whatever happens before, it is gone when it is
//! closed, by the end of the process too, and no open finds it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};

use crate::clock::Timestamp;
use crate::segment::writer::{LAST_EXTENT, SegmentWriter};
use crate::storage::directory::Directory;
use crate::storage::file::RawFile;
use crate::storage::threads;

/// Worth it is a segment that will be full within this time of its beginning, if it goes on like that.
const SOON: Duration = Duration::from_secs(10);
/// Nothing is known of that before this part of it is written.
const PART: u64 = 8;
/// No segment takes more than this part of what the file system has left.
const OF_ROOM: u64 = 8;

/// A file without a name, and how long it is.
pub(crate) struct Reserved {
    pub(crate) file: Box<dyn RawFile>,
    pub(crate) len: u64,
}

/// What is done for the segment after the one that is written to; at most once for each.
#[derive(Default)]
pub(crate) struct Ahead {
    asked: bool,
    coming: Option<Receiver<Reserved>>,
}

impl Ahead {
    /// Has the next file made where this segment fills fast, and gives it up where it no longer does.
    pub(crate) fn look(
        &mut self,
        directory: &Arc<Directory>,
        folder: &Path,
        writer: &SegmentWriter,
        now: Timestamp,
    ) {
        let (position, len) = (writer.position(), writer.enough());
        if len < LAST_EXTENT || position < len / PART || (self.asked && self.coming.is_none()) {
            return;
        }
        let age = now.saturating_since(writer.segment().meta().created);
        if age.as_nanos() * u128::from(len) > SOON.as_nanos() * u128::from(position) {
            self.give_up();
        } else if !self.asked {
            self.asked = true;
            self.coming = begin(directory, folder, len);
        }
    }

    /// Who goes on to the next segment takes what is ready.
    pub(crate) fn take(&mut self) -> Option<Reserved> {
        std::mem::take(self).coming?.try_recv().ok()
    }

    /// The space is wanted elsewhere, or not soon. The thread gives it back.
    pub(crate) fn give_up(&mut self) {
        self.coming = None;
    }

    /// For tests: waits until the file is made, or will not be; tells which.
    #[cfg(test)]
    pub(crate) fn wait(&mut self) -> bool {
        let made = self.coming.take().and_then(|coming| coming.recv().ok());
        let (give, coming) = bounded(1);
        self.coming = made.and_then(|made| give.send(made).ok().map(|()| coming));
        self.coming.is_some()
    }
}

/// Without a thread, space or such files, there is none: the next segment is made like any other.
fn begin(directory: &Arc<Directory>, folder: &Path, len: u64) -> Option<Receiver<Reserved>> {
    // It waits with the file until somebody takes it, or nobody will.
    let (give, coming) = bounded(0);
    let (directory, folder) = (Arc::clone(directory), folder.to_path_buf());
    let made = threads::spawn("tapelog-ahead", move || {
        if let Some(reserved) = reserve(&directory, &folder, len) {
            drop(directory);
            let _ = give.send(reserved);
        }
    });
    made.is_ok().then_some(coming)
}

fn reserve(directory: &Directory, folder: &Path, len: u64) -> Option<Reserved> {
    let file = directory.create_unnamed(folder).ok()?;
    if file.room().ok()? / OF_ROOM < len {
        return None;
    }
    file.allocate(0, len).ok()?;
    Some(Reserved { file, len })
}

#[cfg(test)]
#[cfg(unix)]
#[path = "ahead_tests.rs"]
mod tests;
