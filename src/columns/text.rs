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

use crate::columns::holes::{Cells, Scratch, put_bytes};
use crate::columns::input::{ColumnsError, Input};
use crate::columns::ints;
use crate::columns::strings::{Piece, Plain, Strings};

/// Cells from this many bytes on are first taken to be as long as the one before; shorter ones are found as fast.
const LONG: usize = 8;
/// How many rows are looked at for what is the same in all.
const SAMPLE: usize = 16;
/// How many kinds of punctuation get templates.
const SKELETONS: usize = 8;
/// More tokens in a row than this: it is not worth it.
const MAX_HOLES: usize = 64;
/// How long a row may be that is looked at.
const MAX_ROW: usize = 4096;

thread_local! {
    /// Memory for the next block. Of a thread, since there are few that write, and partitions may be many.
    static SPARE: RefCell<Scratch> = RefCell::default();
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

/// Literals with holes between them: one literal more than there are holes, the first and the last perhaps empty.
struct Template {
    literals: Vec<Literal>,
}

/// What stands before a hole, or at the end.
struct Literal {
    bytes: Vec<u8>,
    /// The first 16 bytes and the last 16 as numbers: most literals are compared at once, the others by their two ends first.
    head: u128,
    tail: u128,
    /// Which bits of the head count.
    mask: u128,
    /// So long that a hole is taken to end where the literal stands, without a look at what is before it.
    tells: bool,
}

impl Literal {
    fn new(bytes: Vec<u8>) -> Self {
        let mut head = [0; 16];
        let len = bytes.len().min(16);
        head[..len].copy_from_slice(&bytes[..len]);
        let mask = if len == 16 { u128::MAX } else { (1 << (8 * len)) - 1 };
        let tail = bytes.last_chunk().map_or(0, |tail| u128::from_le_bytes(*tail));
        Literal { tells: len > 1, bytes, head: u128::from_le_bytes(head), tail, mask }
    }

    /// Whether `rest` begins with the literal.
    #[inline]
    fn begins(&self, rest: &[u8]) -> bool {
        let len = self.bytes.len();
        match rest.first_chunk() {
            Some(head) if (u128::from_le_bytes(*head) ^ self.head) & self.mask != 0 => false,
            Some(_) if len <= 16 => true,
            Some(_) if len <= 32 => {
                let tail = rest.get(..len).and_then(<[u8]>::last_chunk);
                tail.is_some_and(|tail| u128::from_le_bytes(*tail) == self.tail)
            }
            _ => rest.starts_with(&self.bytes),
        }
    }

    /// How long the hole is that `rest` begins with, and that ends with this.
    #[inline]
    fn find(&self, rest: &[u8]) -> Option<usize> {
        let len = self.bytes.first().map_or(Some(rest.len()), |end| find(*end, rest))?;
        (len > 0 && self.begins(&rest[len..])).then_some(len)
    }
}

/// Where a cell begins in its row, and how long it is.
type Span = (u32, u32);

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
        // What comes last says nothing of the hole before it, that has to end with the row.
        literals.push(Literal { tells: false, ..Literal::new(literal) });
        Template { literals }
    }

    fn holes(&self) -> usize {
        self.literals.len() - 1
    }

    /// Finds what fills the holes; false where `row` does not fit. Where a span has a length, as it was in the row before, that
    /// one is tried first: what is found there may be any bytes, since they go back where they were.
    #[inline]
    fn split(&self, row: &[u8], spans: &mut [Span]) -> bool {
        let Some((first, literals)) = self.literals.split_first() else { return false };
        if !first.begins(row) {
            return false;
        }
        let mut at = first.bytes.len();
        for (literal, span) in literals.iter().zip(spans) {
            let (rest, before) = (&row[at..], span.1 as usize);
            let as_before = literal.tells
                && before >= LONG
                && rest.get(before..).is_some_and(|behind| literal.begins(behind));
            let len = match as_before {
                true => before,
                false => match literal.find(rest) {
                    Some(len) => len,
                    None => return false,
                },
            };
            #[allow(clippy::cast_possible_truncation)] // a block has no more than 64 MiB
            let found = (at as u32, len as u32);
            *span = found;
            at += len + literal.bytes.len();
        }
        at == row.len()
    }
}

fn cell(row: &[u8], (at, len): Span) -> &[u8] {
    &row[at as usize..][..len as usize]
}

/// Rows of a sample that have the same punctuation, and which of their tokens never change.
struct Kind<'a> {
    row: &'a [u8],
    /// A hole for each token.
    open: Template,
    spans: Vec<Span>,
    fixed: Vec<bool>,
    count: usize,
}

impl<'a> Kind<'a> {
    /// The kind of `row`; none where it has no tokens, or too much.
    fn of(row: &'a [u8]) -> Option<Self> {
        let open = (row.len() <= MAX_ROW).then(|| Template::of(row, &[]))?;
        let (holes, mut spans) = (open.holes(), vec![(0, 0); open.holes()]);
        ((1..=MAX_HOLES).contains(&holes) && open.split(row, &mut spans)).then(|| {
            let fixed = vec![true; holes];
            Kind { row, open, spans, fixed, count: 1 }
        })
    }

    /// Takes `row` in, if it has the same punctuation.
    fn takes(&mut self, row: &[u8]) -> bool {
        let mut spans = vec![(0, 0); self.open.holes()];
        if !self.open.split(row, &mut spans)
            || spans.iter().any(|span| token_len(cell(row, *span)) < span.1 as usize)
        {
            return false;
        }
        self.count += 1;
        for (fixed, (span, mine)) in self.fixed.iter_mut().zip(spans.iter().zip(&self.spans)) {
            *fixed &= cell(row, *span) == cell(self.row, *mine);
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

/// The rows that fit a template, and where their cells are: as many spans for each as there are holes.
#[derive(Default)]
struct Fitting<'a> {
    rows: Vec<&'a [u8]>,
    spans: Vec<Span>,
}

impl<'a> Fitting<'a> {
    /// Takes `row` in, if it fits.
    #[inline]
    fn take(&mut self, template: &Template, row: &'a [u8]) -> bool {
        let (holes, end) = (template.holes(), self.spans.len());
        if end == 0 {
            self.spans.resize(holes, (0, 0));
        } else {
            self.spans.extend_from_within(end - holes..);
        }
        let fits = template.split(row, &mut self.spans[end..]);
        if fits {
            self.rows.push(row);
        } else {
            self.spans.truncate(end);
        }
        fits
    }
}

/// Writes `rows`; false where most fit no template, and then `out` is as it was.
pub(super) fn encode(rows: &[&[u8]], out: &mut Vec<u8>) -> bool {
    let templates = templates(rows);
    let mut fitting: Vec<Fitting<'_>> = templates.iter().map(|_| Fitting::default()).collect();
    let Some(most) = fitting.first_mut() else { return false };
    most.rows.reserve(rows.len());
    most.spans.reserve(rows.len() * templates[0].holes());
    let (mut ids, mut odd, mut last) = (Vec::with_capacity(rows.len()), Vec::new(), 0);
    for row in rows {
        // Rows of a kind come together, and the closest template is the cheapest.
        let mut found = fitting[last].take(&templates[last], row).then_some(last);
        if found.is_none() {
            let mut others = (0..templates.len()).filter(|at| *at != last);
            found = others.find(|at| fitting[*at].take(&templates[*at], row));
        }
        match found {
            Some(id) => last = id,
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
    for template in &templates {
        ints::put_varint(out, template.holes() as u64);
        template.literals.iter().for_each(|literal| put_bytes(out, &literal.bytes));
    }
    ints::encode(&ids, out);
    Plain::encode(odd.iter().copied(), out);
    let mut scratch = SPARE.try_with(RefCell::take).unwrap_or_default();
    for (template, Fitting { rows, spans }) in templates.iter().zip(&fitting) {
        let holes = template.holes();
        // Where there are no rows, nothing is written.
        for hole in 0..if rows.is_empty() { 0 } else { holes } {
            let spans = spans.chunks_exact(holes).map(|spans| spans[hole]);
            scratch.encode(
                rows.iter().zip(spans).map(|(row, (at, len))| (&row[at as usize..], len as usize)),
                out,
            );
        }
    }
    scratch.clear();
    let _ = SPARE.try_with(|kept| kept.replace(scratch));
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
