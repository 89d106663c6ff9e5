//! What appends to a partition write: its head, and what the append lock protects.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::clock::Timestamp;
use crate::error::Error;
use crate::partition::watermarks::Signal;
use crate::storage::chunk::ChunkWriter;

/// What appends count.
pub(super) struct Ends {
    pub(super) offset: AtomicU64,
    /// Frame bytes appended since the log was opened.
    pub(super) bytes_in: AtomicU64,
}

/// Where the next record goes.
pub(super) struct Head {
    pub(super) writer: Option<ChunkWriter>,
    pub(super) next_offset: u64,
    pub(super) epoch: u32,
    pub(super) last_timestamp: Timestamp,
    /// Frame bytes in the segment that is appended to; `None` before its first frame.
    pub(super) segment_used: Option<u64>,
    /// Which size of chunk to ask for next.
    pub(super) slot: usize,
}

impl Head {
    /// Whether `len` bytes of frames have room in the chunk at hand.
    #[inline]
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.room() >= len)
    }

    /// Whether an append of `total` bytes begins a segment.
    #[inline]
    pub(super) fn rolls(&self, total: usize, segment_bytes: u64) -> bool {
        self.segment_used.is_none_or(|used| used > segment_bytes - total as u64)
    }

    /// All of it; what stays has no chunk, and its numbers grow old.
    pub(super) fn take(&mut self) -> Head {
        Head { writer: self.writer.take(), ..*self }
    }
}

/// What an append needs, behind the append lock.
pub(super) struct AppendState {
    pub(super) head: Head,
    /// Whether there is an appender, which alone may append.
    pub(super) leased: bool,
    /// Whether it has the head; the one here is empty then.
    pub(super) out: bool,
    pub(super) segment_bases: Vec<u64>,
    /// Whether the engine knows that there is something to write.
    pub(super) queued: bool,
    /// Whether the engine knows that there is a chunk that could be given up.
    pub(super) held: bool,
    /// The end when the engine last asked whether it is quiet here.
    pub(super) end_seen: u64,
    /// Why nothing can be appended (now).
    pub(super) refuse: Option<Error>,
    /// Who waits for an append.
    pub(super) waiters: Vec<Arc<Signal>>,
    /// An empty list to take the place of that one, so that waiting does not allocate.
    pub(super) spare: Vec<Arc<Signal>>,
}

impl AppendState {
    /// Begins a segment where an append of `total` bytes does; says whether.
    #[inline]
    pub(super) fn roll(&mut self, total: usize, segment_bytes: u64) -> bool {
        let rolls = self.head.rolls(total, segment_bytes);
        if rolls {
            self.head.segment_used = Some(0);
            self.segment_bases.push(self.head.next_offset);
        }
        rolls
    }

    /// Whether somebody is to be told of an append: who waits for one, or the engine.
    #[inline]
    pub(super) fn has_news(&self, durable: bool) -> bool {
        (durable && !self.queued) || !self.waiters.is_empty()
    }
}
