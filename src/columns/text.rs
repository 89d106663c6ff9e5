//! Text that is built alike: what is the same in all rows stands once, what differs stands in columns.
//!
//! A *token* is a run of letters, digits and bytes above 127; what stands between tokens is punctuation. Rows with
//! the same punctuation share a *template*: literals with holes between them. A token that never changed in a
//! sample of the rows is part of a literal. A row that fits no template stands in full among the *odd* ones.
//!
//! ```text
//!  count of templates, then each:  holes │ holes + 1 literals (length │ bytes)
//!  template of each row            column of integers; odd rows have the number after the last template
//!  odd rows                        strings, in full
//!  per template, per hole:
//!    0 │ column                    numbers in decimal, without leading zeros
//!    1 │ column                    the same with a 1 before the first digit, so that leading zeros count
//!    2 │ count │ words (length │ bytes) │ column      index of each row's word
//!    3 │ strings, in full
//! ```

use crate::columns::input::{ColumnsError, Input};
use crate::columns::ints;
use crate::columns::strings::{Plain, Strings};

const NUMBERS: u8 = 0;
const MARKED: u8 = 1;
const WORDS: u8 = 2;
const FULL: u8 = 3;

/// How many rows are looked at for what is the same in all.
const SAMPLE: usize = 32;
/// How many kinds of punctuation get templates.
const SKELETONS: usize = 8;
/// More tokens in a row than this: it is not worth it.
const MAX_HOLES: usize = 64;
/// How long a row may be that is looked at.
const MAX_ROW: usize = 4096;
/// How many distinct words get a table.
const MAX_WORDS: usize = 256;

/// Whether a byte belongs to a token.
static IN_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte >= 128 || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// How many bytes of `bytes` the token takes that they begin with.
fn token_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| !IN_TOKEN[usize::from(*b)]).unwrap_or(bytes.len())
}

/// Literals with holes between them.
struct Template {
    /// What stands before each hole.
    literals: Vec<Literal>,
    /// What stands after the last one.
    last: Vec<u8>,
}

/// What stands before a hole.
struct Literal {
    bytes: Vec<u8>,
    /// The first bytes as a number, and which of its bits count: most literals are compared at once.
    head: u128,
    mask: u128,
    /// The byte that ends the hole; none where the row ends there.
    end: Option<u8>,
}

impl Literal {
    /// `end` is not known yet.
    fn new(bytes: Vec<u8>) -> Self {
        let mut head = [0; 16];
        let len = bytes.len().min(16);
        head[..len].copy_from_slice(&bytes[..len]);
        let mask = if len == 16 { u128::MAX } else { (1 << (8 * len)) - 1 };
        Literal { bytes, head: u128::from_le_bytes(head), mask, end: None }
    }

    /// What stands behind the literal.
    #[inline]
    fn strip<'a>(&self, row: &'a [u8]) -> Option<&'a [u8]> {
        match row.first_chunk() {
            Some(head) if self.bytes.len() <= 16 => {
                ((u128::from_le_bytes(*head) ^ self.head) & self.mask == 0).then(|| &row[self.bytes.len()..])
            }
            _ => row.strip_prefix(self.bytes.as_slice()),
        }
    }

    /// The hole and what follows it.
    #[inline]
    fn hole<'a>(&self, rest: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        match self.end {
            Some(end) => rest.split_at_checked(find(end, rest)?),
            None => Some((rest, &[])),
        }
    }
}

/// Where `byte` first stands in `bytes`; eight at a time.
#[inline]
fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let wanted = ONES * u64::from(byte);
    let (eights, rest) = bytes.as_chunks::<8>();
    for (i, eight) in eights.iter().enumerate() {
        let differs = u64::from_le_bytes(*eight) ^ wanted;
        let zeros = differs.wrapping_sub(ONES) & !differs & (ONES << 7);
        if zeros != 0 {
            return Some(i * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|b| *b == byte).map(|at| eights.len() * 8 + at)
}

impl Template {
    /// A hole for each token of `row`, but for those that `fixed` names.
    fn of(row: &[u8], fixed: &[bool]) -> Self {
        let (mut literals, mut literal, mut at, mut nth) = (Vec::new(), Vec::new(), 0, 0);
        while at < row.len() {
            match token_len(&row[at..]) {
                0 => {
                    literal.push(row[at]);
                    at += 1;
                }
                len => {
                    if fixed.get(nth) == Some(&true) {
                        literal.extend_from_slice(&row[at..at + len]);
                    } else {
                        literals.push(Literal::new(std::mem::take(&mut literal)));
                    }
                    nth += 1;
                    at += len;
                }
            }
        }
        let ends = literals.iter().skip(1).map(|next: &Literal| next.bytes.first()).chain([literal.first()]);
        let ends: Vec<_> = ends.map(|end| end.copied()).collect();
        literals.iter_mut().zip(ends).for_each(|(literal, end)| literal.end = end);
        Template { literals, last: literal }
    }

    fn holes(&self) -> usize {
        self.literals.len()
    }

    /// Adds what fills the holes to `cells`; false, and nothing added, where `row` does not fit.
    fn split<'a>(&self, row: &'a [u8], cells: &mut Vec<&'a [u8]>) -> bool {
        let before = cells.len();
        let mut rest = row;
        for literal in &self.literals {
            match literal.strip(rest).and_then(|rest| literal.hole(rest)) {
                Some((cell, behind)) if !cell.is_empty() => {
                    cells.push(cell);
                    rest = behind;
                }
                _ => {
                    cells.truncate(before);
                    return false;
                }
            }
        }
        if rest != self.last {
            cells.truncate(before);
            return false;
        }
        true
    }
}

/// The tokens of `row`, and its punctuation with a mark for each.
fn skeleton(row: &[u8]) -> Option<(Vec<u8>, Vec<&[u8]>)> {
    let (mut marks, mut tokens, mut at) = (Vec::new(), Vec::new(), 0);
    while at < row.len() {
        match token_len(&row[at..]) {
            0 => {
                marks.push(row[at]);
                at += 1;
            }
            len => {
                // No punctuation has this value.
                marks.push(u8::MAX);
                tokens.push(&row[at..at + len]);
                at += len;
            }
        }
    }
    (!tokens.is_empty() && tokens.len() <= MAX_HOLES && row.len() <= MAX_ROW).then_some((marks, tokens))
}

/// Rows of a sample that have the same punctuation, and which of their tokens never change.
struct Kind<'a> {
    marks: Vec<u8>,
    row: &'a [u8],
    tokens: Vec<&'a [u8]>,
    fixed: Vec<bool>,
    count: usize,
}

/// Templates for rows such as `rows`, the closest first; for each kind of punctuation one with what never changed
/// in the sample, and one without.
fn templates(rows: &[&[u8]]) -> Vec<Template> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for row in rows.iter().step_by(rows.len().div_ceil(SAMPLE).max(1)) {
        let Some((marks, tokens)) = skeleton(row) else { continue };
        if let Some(kind) = kinds.iter_mut().find(|kind| kind.marks == marks) {
            kind.count += 1;
            for (i, fixed) in kind.fixed.iter_mut().enumerate() {
                *fixed &= kind.tokens[i] == tokens[i];
            }
        } else if kinds.len() < SKELETONS {
            let fixed = vec![true; tokens.len()];
            kinds.push(Kind { marks, row, tokens, fixed, count: 1 });
        }
    }
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
    let mut templates = Vec::new();
    for kind in &kinds {
        if kind.count > 1 && kind.fixed.contains(&true) {
            templates.push(Template::of(kind.row, &kind.fixed));
        }
    }
    templates.extend(kinds.iter().map(|kind| Template::of(kind.row, &[])));
    templates
}

/// Writes `rows`; false where most fit no template, and then `out` is as it was.
pub(super) fn encode(rows: &[&[u8]], out: &mut Vec<u8>) -> bool {
    let templates = templates(rows);
    if templates.is_empty() {
        return false;
    }
    let mut cells: Vec<Vec<&[u8]>> = templates.iter().map(|_| Vec::new()).collect();
    cells[0].reserve(rows.len() * templates[0].holes());
    let (mut ids, mut odd, mut last) = (Vec::with_capacity(rows.len()), Vec::new(), 0);
    for row in rows {
        // Rows of a kind come together, and the closest template is the cheapest.
        let others = (0..templates.len()).filter(|at| *at != last);
        let found = std::iter::once(last).chain(others).find(|at| templates[*at].split(row, &mut cells[*at]));
        last = found.unwrap_or(last);
        ids.push(found.unwrap_or(templates.len()) as u64);
        if found.is_none() {
            odd.push(*row);
            if odd.len() * 2 > rows.len() {
                return false;
            }
        }
    }
    ints::put_varint(out, templates.len() as u64);
    for template in &templates {
        ints::put_varint(out, template.holes() as u64);
        template.literals.iter().for_each(|literal| put_bytes(out, &literal.bytes));
        put_bytes(out, &template.last);
    }
    ints::encode(&ids, out);
    Plain::encode(&odd, out);
    for (template, cells) in templates.iter().zip(&cells) {
        let mut column = Vec::with_capacity(ids.len());
        for hole in 0..template.holes() {
            column.clear();
            column.extend(cells.iter().skip(hole).step_by(template.holes()));
            if !column.is_empty() {
                encode_cells(&column, out);
            }
        }
    }
    true
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    ints::put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Eight decimal digits as a number; `None` where one of the bytes is none.
fn eight_digits(bytes: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(bytes);
    let low = word.wrapping_sub(0x3030_3030_3030_3030);
    if (low | low.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    // Neighbours to pairs, pairs to fours, fours to the whole.
    let pairs = (low.wrapping_mul(10) + (low >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    Some((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xFFFF_FFFF)
}

/// A number of at most 18 digits.
fn number(cell: &[u8]) -> Option<u64> {
    if cell.len() > 18 {
        return nineteen(cell);
    }
    let (eights, rest) = cell.as_chunks::<8>();
    let mut v = 0;
    for eight in eights {
        v = v * 100_000_000 + eight_digits(*eight)?;
    }
    for &byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        v = v * 10 + u64::from(digit);
    }
    Some(v)
}

/// A number of 19 digits, such as the nanoseconds since 1970.
fn nineteen(cell: &[u8]) -> Option<u64> {
    let (last, first) = cell.split_last()?;
    let digit = last.wrapping_sub(b'0');
    (cell.len() == 19 && digit <= 9).then_some(())?;
    number(first)?.checked_mul(10)?.checked_add(u64::from(digit))
}

/// The cells of one hole as numbers, and whether they have zeros in front; `None` where one is no number.
fn numbers(cells: &[&[u8]]) -> Option<(Vec<u64>, bool)> {
    let (mut values, mut zeros) = (Vec::with_capacity(cells.len()), false);
    for cell in cells {
        values.push(number(cell)?);
        zeros |= cell[0] == b'0' && cell.len() > 1;
    }
    // The mark in front of a number takes a digit more.
    (!zeros || cells.iter().all(|cell| cell.len() <= 18)).then_some((values, zeros))
}

fn encode_cells(cells: &[&[u8]], out: &mut Vec<u8>) {
    if let Some((mut values, zeros)) = numbers(cells) {
        out.push(if zeros { MARKED } else { NUMBERS });
        if zeros {
            values.iter_mut().zip(cells).for_each(|(v, cell)| *v += 10u64.pow(cell.len() as u32));
        }
        return ints::encode(&values, out);
    }
    match words(cells) {
        Some((table, indexes)) => {
            out.push(WORDS);
            ints::put_varint(out, table.len() as u64);
            table.iter().for_each(|word| put_bytes(out, word));
            ints::encode(&indexes, out);
        }
        None => {
            out.push(FULL);
            Plain::encode(cells, out);
        }
    }
}

/// The distinct words and each cell's; `None` where there are too many.
fn words<'a>(cells: &[&'a [u8]]) -> Option<(Vec<&'a [u8]>, Vec<u64>)> {
    const SLOTS: usize = 1024;
    let mut slots = [0u16; SLOTS];
    let (mut table, mut indexes) = (Vec::<&[u8]>::new(), Vec::with_capacity(cells.len()));
    for &cell in cells {
        let mut hash = cell.len() as u64;
        for chunk in cell.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        }
        let mut slot = (hash.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 54) as usize;
        let index = loop {
            match slots[slot] {
                0 if table.len() == MAX_WORDS => return None,
                0 => {
                    table.push(cell);
                    slots[slot] = table.len() as u16;
                    break table.len() - 1;
                }
                taken if table[taken as usize - 1] == cell => break taken as usize - 1,
                _ => slot = (slot + 1) % SLOTS,
            }
        };
        indexes.push(index as u64);
    }
    Some((table, indexes))
}

/// A hole's column, read back.
enum Cells<'a> {
    Numbers(Vec<u64>),
    Marked(Vec<u64>),
    Words(Vec<&'a [u8]>, Vec<u64>),
    Full(Plain<'a>),
}

impl<'a> Cells<'a> {
    fn decode(input: &mut Input<'a>, rows: usize) -> Result<Self, ColumnsError> {
        Ok(match input.byte()? {
            NUMBERS => Cells::Numbers(ints::decode(input, rows)?),
            MARKED => Cells::Marked(ints::decode(input, rows)?),
            WORDS => {
                let count = input.len_up_to(MAX_WORDS)?;
                let table = (0..count).map(|_| input.bytes()).collect::<Result<Vec<_>, _>>()?;
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

    fn put(&self, row: usize, out: &mut Strings) -> Result<(), ColumnsError> {
        let mut digits = [0; 20];
        match self {
            Cells::Numbers(values) => out.put(decimal(values[row], &mut digits)),
            Cells::Marked(values) => match decimal(values[row], &mut digits) {
                [b'1', rest @ ..] => out.put(rest),
                _ => Err(ColumnsError("a number without its mark")),
            },
            #[allow(clippy::cast_possible_truncation)] // checked to be an index
            Cells::Words(table, indexes) => out.put(table[indexes[row] as usize]),
            Cells::Full(strings) => out.put(strings.get(row)),
        }
    }
}

fn decimal(mut v: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        #[allow(clippy::cast_possible_truncation)] // a digit
        let digit = (v % 10) as u8;
        digits[at] = b'0' + digit;
        v /= 10;
        if v == 0 {
            return &digits[at..];
        }
    }
}

/// Reads what [`encode`] wrote of `rows` rows.
pub(super) fn decode(input: &mut Input<'_>, rows: usize, out: &mut Strings) -> Result<(), ColumnsError> {
    let count = input.len_up_to(2 * SKELETONS)?;
    let mut templates = Vec::with_capacity(count);
    for _ in 0..count {
        let holes = input.len_up_to(MAX_HOLES)?;
        templates.push((0..=holes).map(|_| input.bytes()).collect::<Result<Vec<_>, _>>()?);
    }
    let ids = ints::decode(input, rows)?;
    let mut rows_of = vec![0usize; count + 1];
    for id in &ids {
        #[allow(clippy::cast_possible_truncation)] // one that is too large is refused
        let rows =
            rows_of.get_mut(*id as usize).ok_or(ColumnsError("a row of a template that is not there"))?;
        *rows += 1;
    }
    let odd = Plain::decode(input, rows_of[count])?;
    let mut columns = Vec::with_capacity(count);
    for (template, rows) in templates.iter().zip(&rows_of) {
        let holes = template.len() - 1;
        // Each cell is a byte at least: a few bytes of input must not make more of them than can be.
        if holes.saturating_mul(*rows) > out.room() {
            return Err(ColumnsError("more cells than bytes"));
        }
        // Where there are no rows, nothing was written.
        let holes = if *rows == 0 { 0 } else { holes };
        columns.push((0..holes).map(|_| Cells::decode(input, *rows)).collect::<Result<Vec<_>, _>>()?);
    }
    let mut next = vec![0usize; count + 1];
    for id in ids {
        #[allow(clippy::cast_possible_truncation)] // checked above
        let id = id as usize;
        let row = next[id];
        next[id] += 1;
        if id == count {
            out.put(odd.get(row))?;
        } else {
            out.put(templates[id][0])?;
            for (cells, literal) in columns[id].iter().zip(&templates[id][1..]) {
                cells.put(row, out)?;
                out.put(literal)?;
            }
        }
        out.end();
    }
    Ok(())
}
