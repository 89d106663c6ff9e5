//! The payload of a block in columns, so that a codec finds together what is alike.
//!
//! Frames of one block differ little from each other, but not byte by byte: a price moves by a tick, an offset
//! by one, and between them stands the same text. Turned on its side, the block shows that. What can be computed
//! is not stored at all: lengths of frames, their padding, and their checksums, which the block's own checksum
//! stands for and which are computed again when the frames are put back together.
//!
//! ```text
//!  count of frames
//!  flags        column of integers (see `ints`), of each frame
//!  gaps         column, of each offset to the one before, less one; the first is the offset itself
//!  timestamps   column
//!  extra        strings (see `strings`), producer part and headers; only if a flag says that there are some
//!  keys         strings
//!  values       strings
//! ```
//!
//! Pure functions: bytes in, bytes out. Who calls [`encode`] has verified the checksums of the frames.

mod frames;
mod holes;
mod input;
mod ints;
mod lanes;
mod strings;
mod text;

pub(crate) use frames::{decode, encode};
pub(crate) use input::ColumnsError;
