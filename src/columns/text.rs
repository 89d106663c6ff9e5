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

use std::cell::RefCell;

use crate::columns::holes::{Cells, Hole, put_bytes};
use crate::columns::input::{ColumnsError, Input};
use crate::columns::ints;
use crate::columns::strings::{Piece, Plain, Strings};

/// How many rows are looked at for what is the same in all.
const SAMPLE: usize = 16;
/// How many kinds of punctuation get templates.
const SKELETONS: usize = 8;
/// More tokens in a row than this: it is not worth it.
const MAX_HOLES: usize = 64;
/// How long a row may be that is looked at.
const MAX_ROW: usize = 4096;
/// How many holes a thread keeps for its next block.
const MAX_SPARE: usize = MAX_HOLES;

thread_local! {
    /// Holes to be filled again. Of a thread, since there are few that write, and partitions may be many.
    static SPARE: RefCell<Vec<Hole>> = const { RefCell::new(Vec::new()) };
}

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

    /// Whether `rest` begins with the literal.
    #[inline]
    fn begins(&self, rest: &[u8]) -> bool {
        match rest.first_chunk() {
            Some(head) if self.bytes.len() <= 16 => (u128::from_le_bytes(*head) ^ self.head) & self.mask == 0,
            _ => rest.starts_with(&self.bytes),
        }
    }

    /// How long the hole is that `rest` begins with.
    #[inline]
    fn hole(&self, rest: &[u8]) -> Option<usize> {
        self.end.map_or(Some(rest.len()), |end| find(end, rest))
    }
}

/// Where a cell begins in its row, and how long it is.
type Span = (usize, usize);

/// Where `byte` first stands in `bytes`; eight at a time.
#[inline]
fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let wanted = ONES * u64::from(byte);
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let differs = u64::from_le_bytes(*eight) ^ wanted;
        let zeros = differs.wrapping_sub(ONES) & !differs & (ONES << 7);
        if zeros != 0 {
            return Some(at + zeros.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|b| *b == byte).map(|rest| at + rest)
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

    /// Finds what fills the holes; false where `row` does not fit.
    #[inline]
    fn split(&self, row: &[u8], spans: &mut [Span; MAX_HOLES]) -> bool {
        let mut rest = row;
        for (literal, span) in self.literals.iter().zip(spans) {
            if !literal.begins(rest) {
                return false;
            }
            rest = &rest[literal.bytes.len()..];
            match literal.hole(rest) {
                None | Some(0) => return false,
                Some(len) => {
                    *span = (row.len() - rest.len(), len);
                    rest = &rest[len..];
                }
            }
        }
        rest == self.last
    }
}

/// Rows of a sample that have the same punctuation, and which of their tokens never change.
struct Kind<'a> {
    row: &'a [u8],
    /// A hole for each token.
    open: Template,
    spans: [Span; MAX_HOLES],
    fixed: Vec<bool>,
    count: usize,
}

impl<'a> Kind<'a> {
    /// The kind of `row`; none where it has no tokens, or too much.
    fn of(row: &'a [u8]) -> Option<Self> {
        let open = (row.len() <= MAX_ROW).then(|| Template::of(row, &[]))?;
        let (mut spans, holes) = ([(0, 0); MAX_HOLES], open.holes());
        ((1..=MAX_HOLES).contains(&holes) && open.split(row, &mut spans)).then(|| {
            let fixed = vec![true; holes];
            Kind { row, open, spans, fixed, count: 1 }
        })
    }

    /// Takes `row` in, if it has the same punctuation.
    fn takes(&mut self, row: &[u8]) -> bool {
        let (mut spans, holes) = ([(0, 0); MAX_HOLES], self.fixed.len());
        if !self.open.split(row, &mut spans)
            || spans[..holes].iter().any(|(at, len)| token_len(&row[*at..at + len]) < *len)
        {
            return false;
        }
        self.count += 1;
        for (fixed, ((at, len), mine)) in self.fixed.iter_mut().zip(spans.iter().zip(&self.spans)) {
            *fixed &= row[*at..at + len] == self.row[mine.0..mine.0 + mine.1];
        }
        true
    }
}

/// Templates for rows such as `rows`, the closest first; for each kind of punctuation one with what never changed
/// in the sample, and one without.
fn templates(rows: &[&[u8]]) -> Vec<Template> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for row in rows.iter().step_by(rows.len().div_ceil(SAMPLE).max(1)) {
        if !kinds.iter_mut().any(|kind| kind.takes(row)) && kinds.len() < SKELETONS {
            kinds.extend(Kind::of(row));
        }
    }
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
    let changing = |kind: &&Kind<'_>| kind.count > 1 && kind.fixed.contains(&true);
    let mut templates: Vec<_> =
        kinds.iter().filter(changing).map(|kind| Template::of(kind.row, &kind.fixed)).collect();
    templates.extend(kinds.into_iter().map(|kind| kind.open));
    templates
}

/// Writes `rows`; false where most fit no template, and then `out` is as it was.
pub(super) fn encode(rows: &[&[u8]], out: &mut Vec<u8>) -> bool {
    let templates = templates(rows);
    if templates.is_empty() {
        return false;
    }
    let mut spare = SPARE.try_with(RefCell::take).unwrap_or_default();
    let done = encode_by(&templates, rows, &mut spare, out);
    spare.truncate(MAX_SPARE);
    spare.iter_mut().for_each(Hole::clear);
    let _ = SPARE.try_with(|kept| kept.replace(spare));
    done
}

/// Writes `rows` by means of `templates`, with `holes` whose content is of no interest.
fn encode_by(templates: &[Template], rows: &[&[u8]], holes: &mut Vec<Hole>, out: &mut Vec<u8>) -> bool {
    let mut starts = Vec::with_capacity(templates.len());
    let count = templates.iter().fold(0, |at, template| {
        starts.push(at);
        at + template.holes()
    });
    holes.resize_with(count.max(holes.len()), Hole::default);
    let (mut ids, mut odd, mut last) = (Vec::with_capacity(rows.len()), Vec::new(), 0);
    let mut spans = [(0, 0); MAX_HOLES];
    for row in rows {
        // Rows of a kind come together, and the closest template is the cheapest.
        let others = (0..templates.len()).filter(|at| *at != last);
        let found = std::iter::once(last).chain(others).find(|at| templates[*at].split(row, &mut spans));
        match found {
            Some(id) => {
                last = id;
                let holes = &mut holes[starts[id]..][..templates[id].holes()];
                holes.iter_mut().zip(&spans).for_each(|(hole, (at, len))| hole.take(&row[*at..], *len));
            }
            None => {
                odd.push(*row);
                if odd.len() * 2 > rows.len() {
                    return false;
                }
            }
        }
        ids.push(found.unwrap_or(templates.len()) as u64);
    }
    ints::put_varint(out, templates.len() as u64);
    for template in templates {
        ints::put_varint(out, template.holes() as u64);
        template.literals.iter().for_each(|literal| put_bytes(out, &literal.bytes));
        put_bytes(out, &template.last);
    }
    ints::encode(&ids, out);
    Plain::encode(odd.iter().copied(), out);
    for (id, template) in templates.iter().enumerate() {
        let holes = &mut holes[starts[id]..][..template.holes()];
        // What is neither numbers nor words is worth another look at the rows.
        let mut cells: Vec<&[u8]> = Vec::new();
        if holes.iter().any(Hole::is_mixed) {
            for row in rows.iter().zip(&ids).filter(|(_, of)| **of == id as u64).map(|(row, _)| row) {
                template.split(row, &mut spans);
                cells.extend(spans[..holes.len()].iter().map(|(at, len)| &row[*at..at + len]));
            }
        }
        let step = holes.len();
        for (nth, hole) in holes.iter_mut().enumerate() {
            if hole.is_mixed() {
                hole.encode_mixed(cells.iter().skip(nth).step_by(step).copied(), out);
            } else {
                hole.encode(out);
            }
        }
    }
    true
}

/// Reads what [`encode`] wrote of `rows` rows.
pub(super) fn decode(input: &mut Input<'_>, rows: usize, out: &mut Strings) -> Result<(), ColumnsError> {
    let count = input.len_up_to(2 * SKELETONS)?;
    let mut templates = Vec::with_capacity(count);
    for _ in 0..count {
        let holes = input.len_up_to(MAX_HOLES)?;
        templates.push((0..=holes).map(|_| input.bytes().map(Piece::new)).collect::<Result<Vec<_>, _>>()?);
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
            templates[id][0].put(out)?;
            for (cells, literal) in columns[id].iter().zip(&templates[id][1..]) {
                cells.put(row, out)?;
                literal.put(out)?;
            }
        }
        out.end();
    }
    Ok(())
}
