//! Reading a partition in order: from the hot tail where the records are there, from the cold log where not,
//! over the hand-over in both directions.

use std::sync::Arc;

use crate::block::DecodedBlock;
use crate::codec::Codecs;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::records::{Identity, Run};
use crate::segment::chain::{Chain, ColdCursor};
use crate::storage::chunk::Held;
use crate::tail::{self, HotCursor, Tail};

/// What a cursor reads from.
pub(crate) struct Store<'a> {
    pub(crate) identity: &'a Arc<Identity>,
    pub(crate) tail: &'a Tail,
    pub(crate) chain: &'a Chain,
    pub(crate) codecs: &'a Codecs,
    /// The first offset held, and the first one that must not be read.
    pub(crate) start: u64,
    pub(crate) limit: u64,
}

/// A place in a partition, kept between reads so that going on costs nothing.
pub(crate) struct Cursor {
    next: u64,
    place: Place,
}

enum Place {
    /// Only the offset is known.
    Lost,
    Hot(HotCursor),
    /// In `block`, where one is at hand; the cold cursor stands at the block after it.
    Cold {
        cursor: ColdCursor,
        block: Option<InBlock>,
    },
}

/// A place among the frames of a block.
struct InBlock {
    block: Arc<DecodedBlock>,
    at: usize,
    /// Records from `at` on.
    left: usize,
}

/// How much may be taken at a time: it ends a run that holds a record.
#[derive(Clone, Copy)]
struct Bounds {
    limit: u64,
    records: usize,
    bytes: usize,
}

impl Cursor {
    pub(crate) fn new(offset: u64) -> Self {
        Cursor { next: offset, place: Place::Lost }
    }

    /// The offset of the next record to read; there may be a hole there.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    pub(crate) fn seek(&mut self, offset: u64) {
        if offset != self.next {
            *self = Cursor::new(offset);
        }
    }

    /// Lets go of what the cursor pins.
    pub(crate) fn release(&mut self) {
        self.place = Place::Lost;
    }

    /// The next stretch of records, at most `max_records` of them and about `max_bytes`, but at least one;
    /// `None` where there is nothing to read yet.
    ///
    /// Fails with `OffsetOutOfRange` where the position is outside of what the partition holds, or with what
    /// is wrong with the block that stands here; the position stays.
    pub(crate) fn fetch(
        &mut self,
        store: &Store<'_>,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Option<Run>> {
        let bounds = Bounds { limit: store.limit, records: max_records, bytes: max_bytes };
        while self.stand(store)? {
            let (held, run) = match &mut self.place {
                Place::Hot(hot) => {
                    let run = hot.run(bounds.limit, bounds.records, bounds.bytes, self.next);
                    (hot.chunk().hold(run.from, run.to), run)
                }
                Place::Cold { block: Some(within), .. } => {
                    let run = within.take(bounds, self.next);
                    (Some(within.hold(run.from, run.to)), run)
                }
                _ => return Ok(None),
            };
            self.next = run.next;
            if let Some(held) = held.filter(|_| run.records > 0) {
                return Ok(Some(Run::new(Arc::clone(store.identity), held, run.records)));
            }
            if run.to == run.from {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// All that lies here back to back, which nobody has looked through: there may be markers in it, and records at or
    /// above the limit. Whoever reads it says by [`Cursor::advance`] how far he came.
    pub(crate) fn ahead(&mut self, store: &Store<'_>) -> Result<Option<Held>> {
        if !self.stand(store)? {
            return Ok(None);
        }
        Ok(match &self.place {
            Place::Hot(hot) => hot.chunk().hold(hot.at(), hot.chunk().committed()),
            Place::Cold { block: Some(within), .. } => {
                Some(within.hold(within.at, within.block.frames().len()))
            }
            _ => None,
        })
    }

    /// Moves over `bytes` of what [`Cursor::ahead`] gave, in which there were `records`, to the offset `next`.
    pub(crate) fn advance(&mut self, bytes: usize, records: usize, next: u64) {
        self.next = next;
        match &mut self.place {
            Place::Hot(hot) => hot.advance(bytes, records),
            Place::Cold { block: Some(within), .. } => {
                within.at += bytes;
                within.left -= records;
            }
            _ => {}
        }
    }

    /// Gets to where something is to be read, perhaps at or above the limit; false where nothing is.
    fn stand(&mut self, store: &Store<'_>) -> Result<bool> {
        if self.next < store.start || self.next > store.limit {
            let message = "the position is outside of what the partition holds";
            return Err(Error::new(ErrorKind::OffsetOutOfRange, message)
                .at_offset(self.next)
                .with_range(store.start, store.limit));
        }
        while self.next < store.limit {
            match &mut self.place {
                Place::Hot(hot) if hot.has_more() => return Ok(true),
                Place::Hot(_) => self.place = Place::Lost,
                Place::Cold { block: Some(within), .. } => {
                    if within.at < within.block.frames().len() {
                        return Ok(true);
                    }
                    self.next = self.next.max(within.block.header().last_offset + 1);
                    self.leave_block();
                }
                Place::Cold { cursor, block } => {
                    // Go on hot as soon as the tail has what comes next.
                    if store.tail.first_offset().is_some_and(|first| first <= self.next) {
                        self.place = Place::Lost;
                        continue;
                    }
                    match store.chain.next(cursor, store.codecs) {
                        Ok(Some(decoded)) => *block = Some(InBlock::at(decoded, self.next)),
                        Ok(None) => {
                            if !self.find(store)? {
                                return Ok(false);
                            }
                        }
                        Err(e) => {
                            // Look the place up again next time: the reader may have been moved past it.
                            self.place = Place::Lost;
                            return Err(e);
                        }
                    }
                }
                Place::Lost => {
                    if !self.find(store)? {
                        return Ok(false);
                    }
                }
            }
        }
        // A block read to its end is held no longer, whatever comes.
        if let Place::Cold { block: Some(within), .. } = &self.place
            && within.at >= within.block.frames().len()
        {
            self.leave_block();
        }
        Ok(false)
    }

    fn leave_block(&mut self) {
        if let Place::Cold { block, .. } = &mut self.place {
            *block = None;
        }
    }

    /// Finds the place of the next record, hot or cold; false where there is none.
    fn find(&mut self, store: &Store<'_>) -> Result<bool> {
        if let Some(chunk) = store.tail.find(self.next) {
            let mut hot = HotCursor::new(chunk);
            hot.seek(self.next);
            if !hot.exhausted() {
                self.place = Place::Hot(hot);
                return Ok(true);
            }
        }
        if let Some(cursor) = store.chain.seek(self.next)? {
            self.place = Place::Cold { cursor, block: None };
            return Ok(true);
        }
        // A hole between the cold log and the tail, or between two chunks: go on behind it.
        match store.tail.first_after(self.next) {
            Some(first) if first < store.limit => {
                self.next = first;
                self.place = Place::Lost;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl InBlock {
    /// The first frame at or after `offset`.
    fn at(block: DecodedBlock, offset: u64) -> InBlock {
        let mut within = InBlock { at: 0, left: block.records(), block: Arc::new(block) };
        if within.block.header().base_offset < offset {
            let bounds = Bounds { limit: offset, records: usize::MAX, bytes: usize::MAX };
            within.walk(bounds, offset);
        }
        within
    }

    /// The frames from one to another.
    fn hold(&self, from: usize, to: usize) -> Held {
        Held::within(Arc::clone(&self.block), |block| block.bytes(from, to))
    }

    /// Goes on by what the bounds allow.
    fn take(&mut self, bounds: Bounds, next: u64) -> tail::Run {
        let header = self.block.header();
        let (from, to) = (self.at, self.block.frames().len());
        if header.last_offset >= bounds.limit || self.left > bounds.records || to - from > bounds.bytes {
            return self.walk(bounds, next);
        }
        // All of it, as nearly always: it was walked when it was verified.
        let run = tail::Run { from, to, records: self.left, next: header.last_offset + 1 };
        (self.at, self.left) = (to, 0);
        run
    }

    fn walk(&mut self, bounds: Bounds, next: u64) -> tail::Run {
        let frames = &self.block.frames()[self.at..];
        let begin = tail::Run { from: 0, to: 0, records: 0, next };
        let mut run = tail::walk(frames, begin, bounds.limit, bounds.records, bounds.bytes);
        run.from += self.at;
        run.to += self.at;
        self.at = run.to;
        self.left -= run.records;
        run
    }
}

#[cfg(test)]
#[cfg(unix)]
#[path = "cursor_tests.rs"]
mod tests;
