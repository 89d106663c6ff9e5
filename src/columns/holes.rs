//! What fills one hole of a template, row after row: numbers or words, taken apart while the rows are.

use crate::columns::input::{ColumnsError, Input};
use crate::columns::ints;
use crate::columns::strings::{Piece, Plain, Strings};

const NUMBERS: u8 = 0;
const MARKED: u8 = 1;
const WORDS: u8 = 2;
const FULL: u8 = 3;

/// How many distinct words get a table.
const MAX_WORDS: usize = 256;
/// Four times as many, so that a word is nearly always in the first slot that is looked at.
const SLOTS: usize = 1024;
/// How many cells, and bytes of words, memory is kept for.
const MAX_SPARE: usize = 2048;

/// Powers of ten, each as a mark in front of as many digits.
const MARKS: [u64; 20] = {
    let (mut marks, mut at) = ([1; 20], 1);
    while at < marks.len() {
        marks[at] = marks[at - 1] * 10;
        at += 1;
    }
    marks
};
/// How many digits may have a mark in front.
const MAX_MARKED: usize = 18;

/// What the cells of a hole become, kept for the next hole.
#[derive(Default)]
pub(super) struct Scratch {
    /// The numbers, or the index of each word.
    values: Vec<u64>,
    words: Vec<Word>,
    /// The words back to back.
    bytes: Vec<u8>,
    /// Number of the word in each slot, from 1 on; as long as there are words.
    slots: Vec<u16>,
}

/// A distinct word.
struct Word {
    /// The word itself where it is short, else its hash.
    key: u64,
    at: usize,
    len: usize,
}

/// Why cells are no numbers.
enum Not {
    /// One has zeros in front.
    Plain,
    Number,
}

impl Scratch {
    /// Forgets what was long.
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.values.shrink_to(MAX_SPARE);
        self.bytes.clear();
        self.bytes.shrink_to(MAX_SPARE);
    }

    /// Writes cells: for each the bytes that begin with it, and how long it is.
    #[inline]
    pub(super) fn encode<'a>(
        &mut self,
        cells: impl Iterator<Item = (&'a [u8], usize)> + Clone,
        out: &mut Vec<u8>,
    ) {
        let form = match self.take_numbers(cells.clone()) {
            Ok(()) => Some(NUMBERS),
            Err(Not::Plain) => self.take_marked(cells.clone()).then_some(MARKED),
            Err(Not::Number) => None,
        };
        if let Some(form) = form {
            out.push(form);
            ints::encode(&self.values, out);
        } else if self.take_words(cells.clone()) {
            out.push(WORDS);
            ints::put_varint(out, self.words.len() as u64);
            self.words.iter().for_each(|word| put_bytes(out, &self.bytes[word.at..word.at + word.len]));
            ints::encode(&self.values, out);
        } else {
            out.push(FULL);
            Plain::encode(cells.map(|(rest, len)| &rest[..len]), out);
        }
    }

    #[inline]
    fn take_numbers<'a>(&mut self, cells: impl Iterator<Item = (&'a [u8], usize)>) -> Result<(), Not> {
        self.values.clear();
        for (rest, len) in cells {
            let v = number(rest, len).ok_or(Not::Number)?;
            if len > 1 && rest[0] == b'0' {
                return Err(Not::Plain);
            }
            self.values.push(v);
        }
        Ok(())
    }

    /// With a mark in front, so that zeros count.
    fn take_marked<'a>(&mut self, cells: impl Iterator<Item = (&'a [u8], usize)>) -> bool {
        self.values.clear();
        for (rest, len) in cells {
            match number(rest, len) {
                Some(v) if len <= MAX_MARKED => self.values.push(v + MARKS[len]),
                _ => return false,
            }
        }
        true
    }

    #[inline]
    fn take_words<'a>(&mut self, cells: impl Iterator<Item = (&'a [u8], usize)>) -> bool {
        self.values.clear();
        self.words.clear();
        self.bytes.clear();
        self.slots.clear();
        self.slots.resize(SLOTS, 0);
        for (rest, len) in cells {
            match self.word(rest, len) {
                Some(nth) => self.values.push(nth),
                None => return false,
            }
        }
        true
    }

    /// Which of the words it is that `rest` begins with; none where there would be too many.
    #[inline]
    fn word(&mut self, rest: &[u8], len: usize) -> Option<u64> {
        let key = if len <= 8 { word(rest, len) } else { hash(&rest[..len]) };
        let mut slot = ((key ^ len as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize;
        loop {
            match usize::from(self.slots[slot]) {
                0 => return self.add_word(key, &rest[..len], slot),
                nth => {
                    let known = &self.words[nth - 1];
                    let same = known.key == key && known.len == len;
                    if same && (len <= 8 || self.bytes[known.at..known.at + len] == rest[..len]) {
                        return Some(nth as u64 - 1);
                    }
                    slot = (slot + 1) % SLOTS;
                }
            }
        }
    }

    fn add_word(&mut self, key: u64, cell: &[u8], slot: usize) -> Option<u64> {
        let nth = self.words.len();
        if nth == MAX_WORDS {
            return None;
        }
        self.words.push(Word { key, at: self.bytes.len(), len: cell.len() });
        self.bytes.extend_from_slice(cell);
        self.slots[slot] = nth as u16 + 1; // at most as many as there may be
        Some(nth as u64)
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    ints::put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The first `len` bytes of `rest`, one to eight, as a number, the first one lowest.
#[inline]
fn word(rest: &[u8], len: usize) -> u64 {
    let word = match rest.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    word & (u64::MAX >> (64 - 8 * len))
}

fn hash(cell: &[u8]) -> u64 {
    cell.chunks(8).fold(cell.len() as u64, |hash, chunk| {
        (hash ^ word(chunk, chunk.len())).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    })
}

/// The number that `len` decimal digits make, one to eight, in the lowest bytes of `word`, the first one lowest;
/// `None` where one of them is none.
#[inline]
fn digits(word: u64, len: usize) -> Option<u64> {
    // As if there were zeros in front.
    let low = (word ^ 0x3030_3030_3030_3030) << (64 - 8 * len);
    if (low | low.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    // Neighbours to pairs, pairs to fours, fours to the whole.
    let pairs = (low.wrapping_mul(10) + (low >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    Some((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xFFFF_FFFF)
}

/// The number of at most 19 digits, such as the nanoseconds since 1970, that the first `len` bytes of `rest` are.
#[inline]
fn number(rest: &[u8], len: usize) -> Option<u64> {
    const EIGHT: u64 = 100_000_000;
    let (cell, eight) = (&rest[..len], |at: usize| digits(crate::bytes::u64_at(rest, at), 8));
    match len {
        1..=8 => digits(word(rest, len), len),
        9..=16 => Some(digits(word(cell, len - 8), len - 8)? * EIGHT + eight(len - 8)?),
        17..=19 => {
            let first = digits(word(cell, len - 16), len - 16)?;
            Some((first * EIGHT + eight(len - 16)?) * EIGHT + eight(len - 8)?)
        }
        _ => None,
    }
}

/// A hole's column, read back.
pub(super) enum Cells<'a> {
    Numbers(Vec<u64>),
    Marked(Vec<u64>),
    Words(Vec<Piece<'a>>, Vec<u64>),
    Full(Plain<'a>),
}

impl<'a> Cells<'a> {
    pub(super) fn decode(input: &mut Input<'a>, rows: usize) -> Result<Self, ColumnsError> {
        Ok(match input.byte()? {
            NUMBERS => Cells::Numbers(ints::decode(input, rows)?),
            MARKED => Cells::Marked(ints::decode(input, rows)?),
            WORDS => {
                let count = input.len_up_to(MAX_WORDS)?;
                let table =
                    (0..count).map(|_| input.bytes().map(Piece::new)).collect::<Result<Vec<_>, _>>()?;
                let indexes = ints::decode(input, rows)?;
                if indexes.iter().any(|index| *index >= count as u64) {
                    return Err(ColumnsError("an index outside of its words"));
                }
                Cells::Words(table, indexes)
            }
            FULL => Cells::Full(Plain::decode(input, rows)?),
            _ => return Err(ColumnsError("a hole of an unknown form")),
        })
    }

    #[inline]
    pub(super) fn put(&self, row: usize, out: &mut Strings) -> Result<(), ColumnsError> {
        match self {
            Cells::Numbers(values) => put_digits(values[row], log10(values[row]) + 1, out),
            Cells::Marked(values) => {
                let len = log10(values[row]);
                match values[row].checked_sub(MARKS[len]) {
                    // The first digit is a 1, that is.
                    Some(v) if v < MARKS[len] => put_digits(v, len, out),
                    _ => Err(ColumnsError("a number without its mark")),
                }
            }
            #[allow(clippy::cast_possible_truncation)] // checked to be an index
            Cells::Words(table, indexes) => table[indexes[row] as usize].put(out),
            Cells::Full(strings) => out.put(strings.get(row)),
        }
    }
}

/// How many digits `v` has behind its first.
#[inline]
fn log10(v: u64) -> usize {
    v.checked_ilog10().unwrap_or(0) as usize
}

/// Adds the last `len` digits of `v`.
#[inline]
fn put_digits(v: u64, len: usize, out: &mut Strings) -> Result<(), ColumnsError> {
    const EIGHT: u64 = 100_000_000;
    match len {
        0 => Ok(()),
        1..=8 => put_eight(v % EIGHT, len, out),
        _ => {
            put_digits(v / EIGHT, len - 8, out)?;
            put_eight(v % EIGHT, 8, out)
        }
    }
}

/// Adds the last `len` digits, one to eight, of a number that has no more than eight.
#[inline]
fn put_eight(v: u64, len: usize, out: &mut Strings) -> Result<(), ColumnsError> {
    // Two fours, each to two pairs, each to two digits; the first one lowest. Multiplications that divide by 100 and 10.
    let fours = (v / 10_000) | ((v % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007F_0000_007F;
    let pairs = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000F_000F_000F_000F;
    let digits = (tens | ((pairs - 10 * tens) << 8)) | 0x3030_3030_3030_3030;
    out.put_short(u128::from(digits >> (8 * (8 - len))).to_le_bytes(), len)
}
