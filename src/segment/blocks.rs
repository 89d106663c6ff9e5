//! From block to block through a segment file, over damage too.

use crate::block::{self, BlockError, BlockHeader};
use crate::error::{Error, Result};
use crate::segment::format::SegmentMeta;
use crate::storage::file::File;

/// How much is looked through at a time for the next block after damage.
const WINDOW: usize = 64 * 1024;

/// The blocks of a segment file up to `limit`, of which nothing is believed that does not prove itself.
pub(crate) struct Blocks<'a> {
    pub(crate) file: &'a File,
    pub(crate) meta: &'a SegmentMeta,
    pub(crate) limit: u64,
    /// Only zeros follow from here on, and are not read: reads of reserved space have the kernel make pages of zeros, as
    /// many as it likes, and then it says that there is data.
    pub(crate) data_end: u64,
}

impl Blocks<'_> {
    /// The header at `position`, if it is one of this segment's and no record of it lies below `low`.
    ///
    /// The outer error is one of reading. The payload may reach beyond the limit: that is for the caller to see.
    pub(crate) fn header(&self, position: u64, low: u64) -> Result<Result<BlockHeader, BlockError>> {
        if self.limit.saturating_sub(position) < block::HEADER as u64 {
            return Ok(Err(BlockError::Truncated));
        }
        let mut bytes = [0; block::HEADER];
        if self.read_window(&mut bytes, position)? < bytes.len() {
            return Ok(Err(BlockError::Truncated)); // the file was cut under us, or below its floor; or zeros follow
        }
        Ok(self.parse(&bytes, position, low))
    }

    /// What the bytes of a header at `position` say.
    pub(crate) fn parse(
        &self,
        bytes: &[u8; block::HEADER],
        position: u64,
        low: u64,
    ) -> Result<BlockHeader, BlockError> {
        let header = BlockHeader::parse(bytes, self.meta.salt, position)?;
        if (header.topic_id, header.partition) != (self.meta.topic_id, self.meta.partition) {
            return Err(BlockError::Place);
        }
        if header.base_offset < low { Err(BlockError::Fields) } else { Ok(header) }
    }

    /// The next header from `from` on that proves itself, in steps of 8 bytes.
    pub(crate) fn resync(&self, from: u64, low: u64) -> Result<Option<BlockHeader>> {
        self.find_header(from, |bytes, position| self.parse(bytes, position, low).ok())
    }

    /// The next that is `wanted`, where the segment's salt is not known.
    pub(crate) fn resync_any(
        &self,
        from: u64,
        wanted: impl Fn(&BlockHeader) -> bool,
    ) -> Result<Option<BlockHeader>> {
        self.find_header(from, |bytes, position| {
            let header = BlockHeader::parse_anywhere(bytes).ok()?;
            let meta = SegmentMeta { salt: header.salt, ..*self.meta };
            Blocks { meta: &meta, ..*self }.parse(bytes, position, meta.base_offset).ok().filter(&wanted)
        })
    }

    fn find_header(
        &self,
        from: u64,
        parse: impl Fn(&[u8; block::HEADER], u64) -> Option<BlockHeader>,
    ) -> Result<Option<BlockHeader>> {
        let mut window = Vec::new();
        let mut at = from.next_multiple_of(8);
        while self.limit.saturating_sub(at) >= block::HEADER as u64 {
            // Holes, and space reserved but never written, need not be read.
            match self.file.next_data(at)? {
                None => return Ok(None),
                Some(data) => at = at.max(data & !7),
            }
            window.resize(self.window_at(at), 0);
            let got = self.read_window(&mut window, at)?;
            if got < block::HEADER {
                return Ok(None);
            }
            for step in (0..=got - block::HEADER).step_by(8) {
                if block::begins_with_magic(&window[step..]) {
                    let mut bytes = [0; block::HEADER];
                    bytes.copy_from_slice(&window[step..step + block::HEADER]);
                    if let Some(header) = parse(&bytes, at + step as u64) {
                        return Ok(Some(header));
                    }
                }
            }
            // On with the first place whose header was not whole in this window.
            at += ((got - block::HEADER) / 8 + 1) as u64 * 8;
        }
        Ok(None)
    }

    /// Whether there are only zeros from `from` up to the limit.
    pub(crate) fn is_zero(&self, from: u64) -> Result<bool> {
        let mut window = Vec::new();
        let mut at = from;
        while at < self.limit {
            match self.file.next_data(at)? {
                None => return Ok(true),
                Some(data) => at = at.max(data),
            }
            window.resize(self.window_at(at), 0);
            let got = self.read_window(&mut window, at)?;
            if window[..got].iter().any(|b| *b != 0) {
                return Ok(false);
            }
            if got == 0 {
                return Ok(true);
            }
            at += got as u64;
        }
        Ok(true)
    }

    /// How much there is to look through from `at` on, at most a window: most segments of an open have little.
    fn window_at(&self, at: u64) -> usize {
        let rest = self.limit.min(self.data_end).saturating_sub(at);
        usize::try_from(rest).map_or(WINDOW, |rest| rest.min(WINDOW))
    }

    fn read_window(&self, window: &mut [u8], at: u64) -> Result<usize> {
        let len = self.window_at(at).min(window.len());
        self.file.read_at_most(&mut window[..len], at)
    }
}

/// What lies at a position.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A block whose header proves itself.
    Block(BlockHeader),
    /// No block; the next one, if any follows, has this header.
    Gap { from: u64, to: u64, next: Option<BlockHeader> },
}

/// Goes through a segment from a position on, each byte in one step.
pub(crate) struct Walk<'a> {
    blocks: Blocks<'a>,
    position: u64,
    low: u64,
    /// What an earlier walk found from here on.
    found: std::vec::IntoIter<Step>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(blocks: Blocks<'a>, position: u64, low: u64) -> Self {
        Walk::again(blocks, position, low, Vec::new())
    }

    /// A walk that goes the way of an earlier one as far as that `found` something, and looks for itself from there on.
    pub(crate) fn again(blocks: Blocks<'a>, position: u64, low: u64, found: Vec<Step>) -> Self {
        Walk { blocks, position, low, found: found.into_iter() }
    }

    pub(crate) fn blocks(&self) -> &Blocks<'a> {
        &self.blocks
    }

    /// Where the next step begins, and below which no offset may lie there: where another walk may go on.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.position, self.low)
    }

    /// What comes next; `None` at the limit. A block of a newer format is an error: it is not damage, and nothing
    /// may be cut off or skipped that only a newer version understands.
    pub(crate) fn step(&mut self) -> Result<Option<Step>> {
        let from = self.position;
        if from >= self.blocks.limit {
            return Ok(None);
        }
        let step = match self.found.next() {
            Some(step) => step,
            None => self.look(from)?,
        };
        match step {
            Step::Block(header) => {
                self.position = header.end_position();
                self.low = header.last_offset + 1;
            }
            Step::Gap { to, .. } => self.position = to,
        }
        Ok(Some(step))
    }

    fn look(&self, from: u64) -> Result<Step> {
        match self.blocks.header(from, self.low)? {
            Ok(header) => Ok(Step::Block(header)),
            Err(e @ (BlockError::Version(_) | BlockError::Attributes(_))) => {
                Err(Error::from(e).at_path(self.blocks.file.path()).at_position(from))
            }
            Err(_) => {
                let next = self.blocks.resync(from + 8, self.low)?;
                let to = next.map_or(self.blocks.limit, |h| h.position);
                Ok(Step::Gap { from, to, next })
            }
        }
    }
}
