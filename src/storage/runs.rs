//! Frames of a slot that recovery found: which of them prove themselves and follow on each other.

use std::ops::Range;

use crate::error::Result;
use crate::frame::{FrameView, MAX_OFFSET, mix};
use crate::storage::slot::HEADER;
use crate::storage::staged::{ProvedFrames, StagedChunk};
use crate::verifier::Verifier;

/// So much is verified by one checksum: it is in the nearest cache still.
const STRETCH: usize = 16 << 10;

/// Whole appends that follow on each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) offsets: Range<u64>,
    /// Where their frames stand in the slot.
    pub(crate) bytes: Range<usize>,
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runs {
    /// What it begins with; `None` where that is no whole append.
    pub(crate) first: Option<Run>,
    pub(crate) gap: Option<Gap>,
}

/// A frame that does not prove itself, and is no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The offset that it should have.
    pub(crate) from: u64,
    /// What follows on it. What it held may be in the segments, and then the log goes on with these.
    pub(crate) behind: Option<Run>,
}

impl Runs {
    /// Both runs, as far as they are there.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.first.iter().chain(self.gap.iter().filter_map(|gap| gap.behind.as_ref()))
    }
}

/// Reads slots, one after the other into the same memory.
#[derive(Default)]
pub(crate) struct SlotReader {
    memory: Vec<u8>,
    verifier: Verifier,
}

impl SlotReader {
    /// What the slot of `chunk` holds.
    pub(crate) fn runs(&mut self, chunk: &StagedChunk) -> Result<Runs> {
        let mut len = chunk.read(&mut self.memory)?.len();
        let bytes = &mut self.memory[..len];
        let begins =
            match Begun::new(chunk.base_offset, HEADER).verify_many(bytes, chunk.salt, &mut self.verifier) {
                Some(begins) => begins,
                None => {
                    // Which of them is damaged is found out one by one, from the bytes as they were.
                    len = chunk.read(&mut self.memory)?.len();
                    Begun::new(chunk.base_offset, HEADER).verify_each(chunk.frames(&self.memory[..len]))
                }
            };
        let bytes = &self.memory[..len];
        let ends = bytes.get(begins.at..begins.at + 8).is_none_or(|word| word == [0; 8]);
        let gap = if ends || chunk.frames_from(bytes, begins.at).next().is_some() {
            None
        } else {
            let frames = chunk.frames_behind(chunk.read_on(&mut self.memory)?, begins.at, begins.next + 1);
            let first = frames.clone().next().map(|(at, frame)| (at, frame.offset()));
            let behind = first.and_then(|(at, low)| Begun::new(low, at).verify_each(frames).run());
            Some(Gap { from: begins.next, behind })
        };
        Ok(Runs { first: begins.run(), gap })
    }

    /// The bytes of a run that was found in the slot of `chunk`, read once more and not verified.
    pub(crate) fn read(&mut self, chunk: &StagedChunk, run: &Run) -> Result<&[u8]> {
        chunk.read_range(run.bytes.clone(), &mut self.memory)
    }
}

/// A run that begins somewhere, as far as it is known to go.
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
struct Begun {
    offset: u64,
    place: usize,
    /// The offset and the place behind the last frame.
    next: u64,
    at: usize,
    /// The same behind the last whole append.
    whole: Option<(u64, usize)>,
}

impl Begun {
    fn new(offset: u64, place: usize) -> Self {
        Begun { offset, place, next: offset, at: place, whole: None }
    }

    fn push(&mut self, len: usize, more: bool) {
        self.next += 1;
        self.at += len;
        if !more {
            self.whole = Some((self.next, self.at));
        }
    }

    /// Goes on over frames that prove themselves.
    fn verify_each(mut self, frames: ProvedFrames<'_>) -> Self {
        for (_, frame) in frames {
            if frame.offset() != self.next {
                break;
            }
            self.push(frame.len(), frame.more());
        }
        self
    }

    /// Goes on over the frames in `bytes`, of the slot with that salt, up to the first that can be none there; `None` where
    /// one of them does not prove itself. Many are verified by one checksum, and have pure tags afterwards.
    fn verify_many(mut self, bytes: &mut [u8], salt: u64, verifier: &mut Verifier) -> Option<Self> {
        let mut verified = self.at;
        loop {
            let frame = bytes.get(self.at..).and_then(|rest| FrameView::parse(rest).ok());
            let frame = frame.filter(|frame| frame.offset() == self.next && self.next < MAX_OFFSET);
            let place = self.at;
            if let Some(frame) = frame {
                let (len, more, tag) = (frame.len(), frame.more(), frame.tag() ^ mix(salt, place));
                verifier.push(bytes[place..].first_chunk_mut()?, len, tag, self.next);
                self.push(len, more);
            }
            if self.at == place || self.at - verified >= STRETCH {
                if !verifier.verify(bytes.get_mut(verified..self.at)?) {
                    return None;
                }
                verified = self.at;
            }
            if self.at == place {
                return Some(self);
            }
        }
    }

    fn run(&self) -> Option<Run> {
        let (to, end) = self.whole?;
        Some(Run { offsets: self.offset..to, bytes: self.place..end })
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
