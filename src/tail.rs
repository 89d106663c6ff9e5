//! The hot end of a partition: a chain of chunks, and cursors that read it in place.
//!
//! ```text
//!            oldest                                     newest
//!   Tail    ┌───────────┐ ┌───────────┐ ┌───────────┐ ┌───────────┐
//!           │ base 1000 │ │ base 1412 │ │ base 1833 │ │ base 2240 │ ◄── the writer appends
//!           └───────────┘ └─────▲─────┘ └───────────┘ └───────────┘
//!               evict()         └── HotCursor { chunk, at }
//! ```
//!
//! Chunks hold no pointers to each other: a slow reader pins the one it stands in, not what came after. The lock is
//! taken when a chunk comes, goes or is looked up; reading inside a chunk takes none.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::frame::{FIXED, FrameView};
use crate::storage::chunk::Chunk;
use crate::storage::marks::{EVERY, Marks};
use crate::storage::slot::HEADER;

/// A partition's chunks, by rising base offset.
#[derive(Default)]
pub(crate) struct Tail {
    chunks: Mutex<VecDeque<Arc<Chunk>>>,
}

impl Tail {
    pub(crate) fn new() -> Tail {
        Tail::default()
    }

    /// Adds the newest chunk. One that was sealed without a frame has the same base offset as its
    /// successor, and gives its place to it.
    pub(crate) fn push(&self, chunk: Arc<Chunk>) {
        let displaced = {
            let mut chunks = self.chunks.lock();
            debug_assert!(chunks.back().is_none_or(|last| last.base_offset() <= chunk.base_offset()));
            let is_empty = chunks.back().is_some_and(|last| last.base_offset() == chunk.base_offset());
            let empty = if is_empty { chunks.pop_back() } else { None };
            chunks.push_back(chunk);
            empty
        };
        // Given back outside the lock.
        if let Some(empty) = displaced {
            empty.mark_evicted();
        }
    }

    /// The chunk that holds `offset`, or will: the last that begins at or before it. `None` where all begin later.
    ///
    /// So does a reader move on from a sealed chunk that it has read to the end: with the offset that it wants next.
    pub(crate) fn find(&self, offset: u64) -> Option<Arc<Chunk>> {
        let chunks = self.chunks.lock();
        // Most readers stand at the end.
        let newest = chunks.back()?;
        if newest.base_offset() <= offset {
            return Some(Arc::clone(newest));
        }
        let after = chunks.partition_point(|c| c.base_offset() <= offset);
        chunks.get(after.checked_sub(1)?).cloned()
    }

    /// The first chunk that begins after `base_offset`. Where chunks in between were evicted, it begins later than a
    /// reader wants: compare.
    pub(crate) fn next_after(&self, base_offset: u64) -> Option<Arc<Chunk>> {
        let chunks = self.chunks.lock();
        let after = chunks.partition_point(|c| c.base_offset() <= base_offset);
        chunks.get(after).cloned()
    }

    /// Where the oldest chunk begins: what lies before must be read cold.
    pub(crate) fn first_offset(&self) -> Option<u64> {
        self.chunks.lock().front().map(|c| c.base_offset())
    }

    /// Where the first chunk begins that begins after `offset`.
    pub(crate) fn first_after(&self, offset: u64) -> Option<u64> {
        self.next_after(offset).map(|c| c.base_offset())
    }

    /// Takes the oldest chunk out, if it is the one that begins at `base_offset`. Its memory comes back with the
    /// last reader in it; until then it counts as pinned.
    pub(crate) fn evict(&self, base_offset: u64) -> Option<Arc<Chunk>> {
        let oldest = {
            let mut chunks = self.chunks.lock();
            chunks.front().filter(|oldest| oldest.base_offset() == base_offset)?;
            chunks.pop_front()?
        };
        oldest.mark_evicted();
        Some(oldest)
    }

    /// How many chunks there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.chunks.lock().len()
    }
}

/// A reader's place in a chunk. It keeps the chunk's memory alive.
#[derive(Clone)]
pub(crate) struct HotCursor {
    chunk: Arc<Chunk>,
    /// Position of a frame, or of the published end.
    at: usize,
    /// Records of the chunk before it.
    records: usize,
}

/// Frames that lie back to back in a chunk or a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Position of the first frame.
    pub(crate) from: usize,
    /// Position after the last.
    pub(crate) to: usize,
    /// Frames that a consumer may see: all but transaction markers.
    pub(crate) records: usize,
    /// The offset to read next.
    pub(crate) next: u64,
}

impl HotCursor {
    /// A cursor at the chunk's first frame.
    pub(crate) fn new(chunk: Arc<Chunk>) -> HotCursor {
        HotCursor { chunk, at: HEADER, records: 0 }
    }

    /// The chunk that it stands in.
    pub(crate) fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// The position that it stands at.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Moves to the first frame with `offset` or a larger one; to the published end if there is none yet.
    pub(crate) fn seek(&mut self, offset: u64) {
        (self.at, self.records) = (HEADER, 0);
        self.run(offset, usize::MAX, usize::MAX, offset);
    }

    /// Goes on over what is published and below `limit_offset`, up to `max_records` records and `max_bytes` bytes; a
    /// first record larger than that is taken nevertheless, so that a reader gets on. `next` is the offset to read next
    /// as the caller knows it, and the answer's if nothing is there.
    pub(crate) fn run(&mut self, limit_offset: u64, max_records: usize, max_bytes: usize, next: u64) -> Run {
        let frames = self.chunk.bytes(self.at, self.chunk.committed()).unwrap_or_default();
        let begin = self.leap(frames, limit_offset, max_records, max_bytes, next);
        let mut run = walk(frames, begin, limit_offset, max_records, max_bytes);
        run.from += self.at;
        run.to += self.at;
        self.at = run.to;
        self.records += run.records;
        run
    }

    /// A run up to the last mark within the same bounds, if only an empty one.
    fn leap(&self, frames: &[u8], limit_offset: u64, max_records: usize, max_bytes: usize, next: u64) -> Run {
        let marks = self.chunk.marks();
        let place = |mark: usize| marks.get(mark).checked_sub(self.at);
        let offset = |at: usize| FrameView::trusted(&frames[at..]).offset();
        let fits = |mark: usize| {
            place(mark).is_some_and(|at| at < frames.len() && at <= max_bytes && offset(at) < limit_offset)
        };
        let here = self.records / EVERY;
        // No more than there is room for, so that who reads one by one looks at none.
        let there = (self.records + max_records.min(frames.len() / FIXED)) / EVERY;
        let mark = Marks::last(here, there, fits);
        match place(mark) {
            Some(to) if mark > here => {
                Run { from: 0, to, records: mark * EVERY - self.records, next: offset(to) }
            }
            _ => Run { from: 0, to: 0, records: 0, next },
        }
    }

    /// Moves on over `bytes` of published frames, in which there are `records`.
    pub(crate) fn advance(&mut self, bytes: usize, records: usize) {
        self.at += bytes;
        self.records += records;
    }

    /// Whether something is published here.
    pub(crate) fn has_more(&self) -> bool {
        self.at < self.chunk.committed()
    }

    /// Whether the chunk has nothing more, now and later: time to [`Tail::find`] the next one.
    pub(crate) fn exhausted(&self) -> bool {
        // In this order: what was published before the seal is seen after it.
        self.chunk.sealed() && self.at >= self.chunk.committed()
    }
}

/// Has a run go on frame by frame, within the bounds of [`HotCursor::run`].
pub(crate) fn walk(
    frames: &[u8],
    mut run: Run,
    limit_offset: u64,
    max_records: usize,
    max_bytes: usize,
) -> Run {
    while run.to < frames.len() && run.records < max_records {
        let frame = FrameView::trusted(&frames[run.to..]);
        if frame.offset() >= limit_offset || (run.records > 0 && run.to + frame.len() > max_bytes) {
            break;
        }
        run.to += frame.len();
        run.records += usize::from(!frame.is_control());
        run.next = frame.offset() + 1;
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::frame::{self, ProducerPart, attributes, mix};
    use crate::record::Record;
    use crate::storage::arena::{Pool, Want};
    use crate::storage::chunk::ChunkWriter;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    fn pool() -> Arc<Pool> {
        Pool::heap(16 << 20).unwrap()
    }

    fn try_take(pool: &Arc<Pool>, base_offset: u64) -> Option<ChunkWriter> {
        let want = Want {
            topic_id: 1,
            partition: 0,
            epoch: 0,
            base_offset,
            min_len: 4096,
            class_hint: 0,
            internal: false,
        };
        pool.take(&want).unwrap()
    }

    fn take(pool: &Arc<Pool>, base_offset: u64) -> ChunkWriter {
        try_take(pool, base_offset).unwrap()
    }

    fn append_control(writer: &mut ChunkWriter, offset: u64) {
        let record = Record::default();
        let part = ProducerPart { id: 1, epoch: 0, sequence: 0, attributes: attributes::CONTROL };
        let len = frame::frame_len(&record, true).unwrap();
        let time = Timestamp::from_nanos(0);
        let mut room = writer.reserve(len).unwrap();
        let tag = frame::write(room.bytes(), &record, offset, time, 0, Some(part));
        room.stage(tag, false);
    }

    #[test]
    fn finds_the_chunk_that_holds_an_offset() {
        let (pool, tail) = (pool(), Tail::new());
        assert!(tail.find(0).is_none() && tail.first_offset().is_none() && tail.evict(0).is_none());
        for base in [10, 20, 30] {
            tail.push(take(&pool, base).seal());
        }
        let base = |chunk: Option<Arc<Chunk>>| chunk.map(|c| c.base_offset());
        let found: Vec<_> = [0, 9, 10, 19, 20, 29, 30, u64::MAX].map(|o| base(tail.find(o))).to_vec();
        let expected = [None, None, Some(10), Some(10), Some(20), Some(20), Some(30), Some(30)];
        assert_eq!(found, expected);
        assert_eq!(base(tail.next_after(10)), Some(20));
        assert_eq!(base(tail.next_after(30)), None);
        assert_eq!(base(tail.next_after(0)), Some(10));
        assert!(tail.evict(20).is_none(), "only the oldest may go");
        let pinned = tail.evict(10).unwrap();
        assert_eq!((tail.first_offset(), tail.len()), (Some(20), 2));
        assert_eq!(pool.pinned_bytes(), pinned.capacity());
        drop(pinned);
        assert_eq!(pool.pinned_bytes(), 0);
    }

    #[test]
    fn an_empty_chunk_gives_its_place_to_its_successor() {
        let (pool, tail) = (pool(), Tail::new());
        let empty = take(&pool, 10);
        tail.push(Arc::clone(empty.chunk()));
        let mut cursor = HotCursor::new(tail.find(10).unwrap());
        assert!(!cursor.exhausted());
        empty.seal();
        assert!(cursor.exhausted());
        let mut full = take(&pool, 10);
        tail.push(Arc::clone(full.chunk()));
        full.append(&Record::new("x"), 10);
        full.publish();
        assert_eq!(tail.len(), 1);
        cursor = HotCursor::new(tail.find(10).unwrap());
        assert_eq!(cursor.run(u64::MAX, 9, 9, 10).next, 11);
    }

    #[test]
    fn runs_end_at_every_limit() {
        let pool = pool();
        let mut writer = take(&pool, 100);
        for offset in 100..110 {
            if offset % 5 == 4 {
                append_control(&mut writer, offset);
            } else {
                writer.append(&Record::new("12345678"), offset); // 40 bytes
            }
        }
        let mut cursor = HotCursor::new(Arc::clone(writer.chunk()));
        let nothing = Run { from: HEADER, to: HEADER, records: 0, next: 100 };
        assert_eq!(cursor.run(u64::MAX, 99, 9999, 100), nothing);
        writer.publish();
        assert_eq!(cursor.run(100, 99, 9999, 100), nothing);
        assert_eq!(cursor.run(u64::MAX, 0, 9999, 100), nothing);
        let by_limit = cursor.run(102, 99, 9999, 100);
        assert_eq!(by_limit, Run { from: HEADER, to: HEADER + 80, records: 2, next: 102 });
        let by_bytes = cursor.run(u64::MAX, 99, 1, 102);
        assert_eq!((by_bytes.records, by_bytes.next, by_bytes.to), (1, 103, HEADER + 120));
        let by_records = cursor.run(u64::MAX, 2, 9999, 103);
        assert_eq!((by_records.records, by_records.next), (2, 106), "a marker in between does not count");
        let rest = cursor.run(u64::MAX, 99, 9999, 106);
        assert_eq!((rest.records, rest.next, rest.to), (3, 110, writer.chunk().committed()));
        assert!(!cursor.exhausted());
        for (offset, next) in [(0, 101), (100, 101), (103, 104), (104, 105), (109, 110)] {
            cursor.seek(offset);
            assert_eq!(cursor.run(next, 99, 9999, offset).next, next, "{offset}");
        }
        cursor.seek(110);
        assert_eq!(cursor.at(), writer.chunk().committed());
        drop(writer);
        assert!(cursor.exhausted());
    }

    /// The poll that ends where a mark says must end where a look at each frame would: at every limit, from wherever it
    /// begins, with markers among the records and after frames were taken back that had been marked.
    #[test]
    fn marks_change_no_run() {
        let pool = Pool::heap(1 << 20).unwrap();
        let want = Want {
            topic_id: 1,
            partition: 0,
            epoch: 0,
            base_offset: 5,
            min_len: 16 << 10,
            class_hint: 0,
            internal: false,
        };
        let mut writer = pool.take(&want).unwrap().unwrap();
        let value = [7; 64];
        let put = |writer: &mut ChunkWriter, offset: u64, len: usize| match offset % 23 {
            0 => append_control(writer, offset),
            _ => assert!(writer.append(&Record::new(&value[..len]), offset)),
        };
        (5..60).for_each(|offset| put(&mut writer, offset, 8));
        writer.publish();
        (60..150).for_each(|offset| put(&mut writer, offset, 0));
        writer.abandon();
        for offset in 60..150 {
            put(&mut writer, offset, offset as usize % 65);
            writer.publish();
        }
        let end = writer.chunk().committed();
        let frames = writer.chunk().bytes(HEADER, end).unwrap();
        for seek in (0..151).step_by(7) {
            let mut cursor = HotCursor::new(Arc::clone(writer.chunk()));
            cursor.seek(seek);
            let begin = cursor.at() - HEADER;
            let found = frames.get(begin..).filter(|rest| !rest.is_empty());
            assert!(found.is_none_or(|rest| FrameView::trusted(rest).offset() == seek.max(5)));
            for max_records in [0, 1, 15, 16, 17, 40, 64, usize::MAX] {
                for max_bytes in [0, 40, 1000, 4000, usize::MAX] {
                    for limit in [0, 30, 61, 100, 149, u64::MAX] {
                        let none = Run { from: 0, to: 0, records: 0, next: seek };
                        let run = walk(&frames[begin..], none, limit, max_records, max_bytes);
                        let moved = |at: usize| at + HEADER + begin;
                        let expected = Run { from: moved(run.from), to: moved(run.to), ..run };
                        let mut cursor = cursor.clone();
                        assert_eq!(cursor.run(limit, max_records, max_bytes, seek), expected);
                        let rest = cursor.run(u64::MAX, usize::MAX, usize::MAX, expected.next);
                        assert_eq!((rest.to, cursor.records), (end, 145 - 6));
                    }
                }
            }
        }
    }

    /// One writer that rolls and evicts, readers that follow, and one that falls behind and starts over.
    fn follow(pool: &Arc<Pool>, total: u64) {
        let tail = Tail::new();
        let published = AtomicU64::new(0);
        let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for reader in 0..3u32 {
                let (tail, published, done, seen) = (&tail, &published, &done, &seen);
                scope.spawn(move || {
                    let (mut next, mut cursor, mut runs): (u64, Option<HotCursor>, u32) = (0, None, 0);
                    loop {
                        let end_known = done.load(Ordering::Acquire);
                        if next == total {
                            break;
                        }
                        if cursor.as_ref().is_none_or(HotCursor::exhausted) {
                            let Some(chunk) = tail.find(next) else {
                                if let Some(first) = tail.first_offset() {
                                    next = next.max(first);
                                }
                                std::thread::yield_now();
                                continue;
                            };
                            let mut at = HotCursor::new(chunk);
                            at.seek(next);
                            cursor = Some(at);
                        }
                        let Some(at) = cursor.as_mut() else { continue };
                        let run = at.run(published.load(Ordering::Acquire), 100, 1 << 14, next);
                        let bytes = at.chunk().bytes(run.from, run.to).unwrap();
                        let mut here = 0;
                        while here < bytes.len() {
                            let frame = FrameView::parse(&bytes[here..]).unwrap();
                            frame.verify(mix(at.chunk().salt(), run.from + here)).unwrap();
                            assert_eq!(frame.offset(), next);
                            assert_eq!(
                                frame.value(),
                                Some(&next.to_le_bytes().repeat((next % 9) as usize)[..])
                            );
                            next += 1;
                            here += frame.len();
                        }
                        assert_eq!(next, run.next);
                        seen.fetch_add(run.records as u64, Ordering::Relaxed);
                        runs += 1;
                        if reader == 2 && runs.is_multiple_of(64) {
                            std::thread::sleep(std::time::Duration::from_micros(300));
                        }
                        if run.records == 0 {
                            assert!(!(end_known && at.exhausted() && tail.find(next).is_none()));
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut writer = take(pool, 0);
            tail.push(Arc::clone(writer.chunk()));
            let mut offset = 0;
            while offset < total {
                let batch = (offset % 4 + 1).min(total - offset);
                let fits = (offset..offset + batch)
                    .all(|o| writer.append(&Record::new(&o.to_le_bytes().repeat((o % 9) as usize)), o));
                if fits {
                    writer.publish();
                    offset += batch;
                    published.store(offset, Ordering::Release);
                    continue;
                }
                writer.abandon();
                while tail.len() > 3 {
                    tail.first_offset().and_then(|first| tail.evict(first));
                }
                let successor = loop {
                    match try_take(pool, offset) {
                        Some(new) => break new,
                        None => std::thread::yield_now(),
                    }
                };
                tail.push(Arc::clone(successor.chunk()));
                writer = successor; // seals the old one
            }
            done.store(true, Ordering::Release);
        });
        while tail.first_offset().and_then(|first| tail.evict(first)).is_some() {}
        assert_eq!((pool.used_bytes(), pool.pinned_bytes()), (0, 0));
        assert!(seen.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn readers_follow_a_writer_through_recycled_heap() {
        follow(&Pool::heap(512 * 1024).unwrap(), 300_000);
    }

    #[cfg(unix)]
    #[test]
    fn readers_follow_a_writer_through_recycled_slots() {
        let folder = tempfile::tempdir().unwrap();
        follow(
            &Pool::mapped(
                Arc::new(crate::storage::disk::RealDisk::default()),
                folder.path(),
                1,
                1,
                512 * 1024,
            )
            .unwrap(),
            300_000,
        );
    }
}
