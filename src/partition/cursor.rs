//! Reading a partition in order: from the hot tail where the records are there, from the cold log where not,
//! over the hand-over in both directions.

use std::sync::Arc;

use crate::block::DecodedBlock;
use crate::codec::Codecs;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::FrameView;
use crate::partition::records::{Identity, Run, Source};
use crate::segment::chain::{Chain, ColdCursor};
use crate::tail::{HotCursor, Tail};

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
    /// Behind `at` in the frames of `block`; the cold cursor stands at the block after it.
    Cold {
        cursor: ColdCursor,
        block: Option<(Arc<DecodedBlock>, usize)>,
    },
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
        if self.next < store.start || self.next > store.limit {
            let message = "the position is outside of what the partition holds";
            return Err(Error::new(ErrorKind::OffsetOutOfRange, message)
                .at_offset(self.next)
                .with_range(store.start, store.limit));
        }
        while self.next < store.limit {
            match &mut self.place {
                Place::Hot(hot) => {
                    let run = hot.run(store.limit, max_records, max_bytes, self.next);
                    if run.to > run.from {
                        self.next = run.next;
                        if run.records == 0 {
                            continue;
                        }
                        let source = Source::Hot(Arc::clone(hot.chunk()));
                        return Ok(Some(self.stretch(store, source, run.from, run.to, run.records)));
                    }
                    self.place = Place::Lost;
                }
                Place::Cold { cursor, block } => {
                    if let Some((decoded, at)) = block {
                        let run = cold_run(decoded, *at, store.limit, self.next, max_records, max_bytes);
                        *at = run.to;
                        let source = Source::Cold(Arc::clone(decoded));
                        if run.to >= decoded.frames().len() {
                            *block = None;
                        }
                        self.next = run.next.max(self.next);
                        if run.count > 0 {
                            return Ok(Some(self.stretch(store, source, run.from, run.to, run.count)));
                        }
                        continue;
                    }
                    // Go on hot as soon as the tail has what comes next.
                    if store.tail.first_offset().is_some_and(|first| first <= self.next) {
                        self.place = Place::Lost;
                        continue;
                    }
                    match store.chain.next(cursor, store.codecs) {
                        Ok(Some(decoded)) => *block = Some((Arc::new(decoded), 0)),
                        Ok(None) => {
                            if !self.find(store)? {
                                return Ok(None);
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
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
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

    fn stretch(&self, store: &Store<'_>, source: Source, from: usize, to: usize, count: usize) -> Run {
        Run { identity: Arc::clone(store.identity), source, from, to, count, assignment: 0 }
    }
}

struct ColdRun {
    from: usize,
    to: usize,
    count: usize,
    next: u64,
}

/// Walks the frames of a block from `at`: skips those before `next`, takes those below `limit`.
fn cold_run(
    block: &DecodedBlock,
    at: usize,
    limit: u64,
    next: u64,
    max_records: usize,
    max_bytes: usize,
) -> ColdRun {
    let frames = block.frames();
    let mut run = ColdRun { from: at, to: at, count: 0, next };
    while run.to < frames.len() {
        let frame = FrameView::trusted(&frames[run.to..]);
        if frame.offset() < next {
            run.to += frame.len();
            run.from = run.to;
            continue;
        }
        let over = run.count > 0 && run.to + frame.len() - run.from > max_bytes;
        if frame.offset() >= limit || run.count >= max_records || over {
            return run;
        }
        run.count += usize::from(!frame.is_control());
        run.next = frame.offset() + 1;
        run.to += frame.len();
    }
    run.next = run.next.max(block.header().last_offset + 1);
    run
}
