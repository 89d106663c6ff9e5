//! A column of byte strings: keys, values, or what else a frame carries.
//!
//! ```text
//!  0 none    all are empty
//!  1 plain   column of lengths │ the bytes, back to back
//!  2 text    see `text`
//!  3 lanes   length of each │ see `lanes`
//! ```

use crate::columns::input::{ColumnsError, Input};
use crate::columns::{ints, lanes, text};

const NONE: u8 = 0;
const PLAIN: u8 = 1;
const TEXT: u8 = 2;
const LANES: u8 = 3;

/// Strings being put together, never more than was said they would be.
pub(super) struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    most: usize,
}

impl Strings {
    /// None yet, of `most` bytes in all at most.
    pub(super) fn new(most: usize) -> Self {
        Strings { bytes: Vec::with_capacity(most), ends: Vec::new(), most }
    }

    pub(super) fn room(&self) -> usize {
        self.most - self.bytes.len()
    }

    /// Adds to the string at hand.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), ColumnsError> {
        if bytes.len() > self.room() {
            return Err(ColumnsError("more bytes than were announced"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds the first `len` bytes of `padded`: a copy of fixed size is a store, and no call.
    #[inline]
    pub(super) fn put_short(&mut self, padded: [u8; 16], len: usize) -> Result<(), ColumnsError> {
        if len > self.room() {
            return Err(ColumnsError("more bytes than were announced"));
        }
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(&padded);
        self.bytes.truncate(end);
        Ok(())
    }

    /// Ends the string at hand.
    pub(super) fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }

    pub(super) fn get(&self, row: usize) -> &[u8] {
        let from = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from..self.ends[row]]
    }
}

/// Bytes that are put into many strings.
pub(super) struct Piece<'a> {
    bytes: &'a [u8],
    /// The bytes again, where they are few.
    padded: [u8; 16],
}

impl<'a> Piece<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut padded = [0; 16];
        padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Piece { bytes, padded }
    }

    /// Adds the piece to the string at hand.
    #[inline]
    pub(super) fn put(&self, out: &mut Strings) -> Result<(), ColumnsError> {
        match self.bytes.len() {
            len @ 0..=16 => out.put_short(self.padded, len),
            _ => out.put(self.bytes),
        }
    }
}

/// Strings as they are: their lengths, then their bytes.
pub(super) struct Plain<'a> {
    bytes: &'a [u8],
    ends: Vec<usize>,
}

impl<'a> Plain<'a> {
    pub(super) fn encode<'b>(rows: impl Iterator<Item = &'b [u8]> + Clone, out: &mut Vec<u8>) {
        let lengths: Vec<u64> = rows.clone().map(|row| row.len() as u64).collect();
        ints::encode(&lengths, out);
        rows.for_each(|row| out.extend_from_slice(row));
    }

    pub(super) fn decode(input: &mut Input<'a>, rows: usize) -> Result<Self, ColumnsError> {
        let mut end = 0usize;
        let mut ends = Vec::with_capacity(rows);
        for len in ints::decode(input, rows)? {
            end = usize::try_from(len).ok().and_then(|len| end.checked_add(len)).ok_or(Input::SHORT)?;
            ends.push(end);
        }
        Ok(Plain { bytes: input.take(end)?, ends })
    }

    pub(super) fn get(&self, row: usize) -> &'a [u8] {
        let from = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from..self.ends[row]]
    }
}

/// Writes a column of strings in the form that suits it.
pub(super) fn encode(rows: &[&[u8]], out: &mut Vec<u8>) {
    let first = rows.first().map_or(0, |row| row.len());
    let alike = rows.iter().all(|row| row.len() == first);
    if alike && first == 0 {
        out.push(NONE);
        return;
    }
    let form = out.len();
    out.push(TEXT);
    if looks_like_text(rows) && text::encode(rows, out) {
        return;
    }
    out.truncate(form);
    out.push(LANES);
    if alike && lanes::encode(rows, first, out) {
        return;
    }
    out.truncate(form);
    out.push(PLAIN);
    Plain::encode(rows.iter().copied(), out);
}

/// Whether the first and the last row hold no control bytes; `text` finds out the rest.
fn looks_like_text(rows: &[&[u8]]) -> bool {
    let printable = |row: &&[u8]| row.iter().all(|b| *b >= b' ' || matches!(b, 1 | b'\t' | b'\n' | b'\r'));
    rows.first().is_some_and(printable) && rows.last().is_some_and(printable)
}

/// Reads a column of `rows` strings, of `most` bytes in all at most.
pub(super) fn decode(input: &mut Input<'_>, rows: usize, most: usize) -> Result<Strings, ColumnsError> {
    let mut strings = Strings::new(most);
    match input.byte()? {
        NONE => strings.ends.resize(rows, 0),
        PLAIN => {
            let plain = Plain::decode(input, rows)?;
            strings.put(plain.bytes)?;
            strings.ends = plain.ends;
        }
        TEXT => text::decode(input, rows, &mut strings)?,
        LANES => lanes::decode(input, rows, &mut strings)?,
        _ => return Err(ColumnsError("strings of an unknown form")),
    }
    Ok(strings)
}
