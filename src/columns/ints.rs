//! A column of integers: the smallest of five forms.
//!
//! ```text
//!  0 constant   value
//!  1 line       first │ step, zigzag
//!  2 packed     least │ width in bits │ value - least, packed
//!  3 steps      first │ per 64 steps: least step, zigzag │ width in bits │ step - least, packed
//!  4 few        count │ the distinct values │ index of each value, packed
//! ```
//!
//! Numbers are varints (7 bits a byte, the lowest first) where nothing else is said; packed numbers stand back to
//! back from the lowest bit of the first byte, zeros up to the next byte. Steps wrap. A column of no integers
//! takes no byte.

use crate::columns::input::{ColumnsError, Input};

const CONSTANT: u8 = 0;
const LINE: u8 = 1;
const PACKED: u8 = 2;
const STEPS: u8 = 3;
const FEW: u8 = 4;
/// How many steps share a least one and a width, so that a single leap costs its neighbours little.
const GROUP: usize = 64;
/// How many distinct values are few.
const MOST: usize = 256;

/// How a column is best written, and about how many bytes that takes.
#[derive(Debug)]
pub(super) struct Plan {
    form: Form,
    pub(super) cost: usize,
}

#[derive(Debug)]
enum Form {
    Constant,
    Line,
    Packed { least: u64, bits: u32 },
    Steps,
    Few(Few),
}

/// The distinct values in order of appearance, and each value's index.
#[derive(Debug)]
struct Few {
    all: Vec<u64>,
    indexes: Vec<u64>,
}

fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)).cast_unsigned()
}

fn unzigzag(v: u64) -> i64 {
    (v >> 1).cast_signed() ^ -((v & 1).cast_signed())
}

fn width(v: u64) -> u32 {
    64 - v.leading_zeros()
}

fn varint_len(v: u64) -> usize {
    (width(v | 1) as usize).div_ceil(7)
}

fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        #[allow(clippy::cast_possible_truncation)] // the lowest seven bits
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)]
    out.push(v as u8);
}

fn step(pair: &[u64]) -> i64 {
    pair[1].wrapping_sub(pair[0]).cast_signed()
}

/// The least and the widest of a group of steps.
fn range(steps: &[u64]) -> (i64, u32) {
    let (mut least, mut most) = (i64::MAX, i64::MIN);
    for pair in steps.windows(2) {
        least = least.min(step(pair));
        most = most.max(step(pair));
    }
    (least, width(most.wrapping_sub(least).cast_unsigned()))
}

/// Groups of steps: each slice holds one value more than it has steps.
fn groups(values: &[u64]) -> impl Iterator<Item = &[u64]> {
    (0..values.len() - 1).step_by(GROUP).map(|at| &values[at..(at + GROUP + 1).min(values.len())])
}

/// The distinct values and where they are; `None` where they are more than `most`.
fn distinct(values: &[u64], most: usize) -> Option<Few> {
    const SLOTS: usize = 1024;
    let mut slots = [0u16; SLOTS];
    let (mut all, mut indexes) = (Vec::with_capacity(most), Vec::with_capacity(values.len()));
    for &v in values {
        #[allow(clippy::cast_possible_truncation)] // the highest ten bits
        let mut slot = (v.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize;
        let index = loop {
            match slots[slot] {
                0 if all.len() == most => return None,
                0 => {
                    all.push(v);
                    slots[slot] = all.len() as u16;
                    break all.len() - 1;
                }
                taken if all[taken as usize - 1] == v => break taken as usize - 1,
                _ => slot = (slot + 1) % SLOTS,
            }
        };
        indexes.push(index as u64);
    }
    Some(Few { all, indexes })
}

fn few_cost(all: &[u64], count: usize) -> usize {
    3 + all.iter().map(|v| varint_len(*v)).sum::<usize>() + packed_len(count, width(all.len() as u64 - 1))
}

/// Looks at a column.
pub(super) fn plan(values: &[u64]) -> Plan {
    let Some(&first) = values.first() else { return Plan { form: Form::Constant, cost: 0 } };
    if values.iter().all(|v| *v == first) {
        return Plan { form: Form::Constant, cost: 1 + varint_len(first) };
    }
    let (mut least, mut most) = (first, first);
    let (mut line, mut steps) = (Some(step(values)), 1 + varint_len(first));
    for group in groups(values) {
        let (mut least_step, mut most_step) = (i64::MAX, i64::MIN);
        let mut before = group[0];
        for &v in &group[1..] {
            least = least.min(v);
            most = most.max(v);
            let step = v.wrapping_sub(before).cast_signed();
            least_step = least_step.min(step);
            most_step = most_step.max(step);
            before = v;
        }
        let bits = width(most_step.wrapping_sub(least_step).cast_unsigned());
        steps += varint_len(zigzag(least_step)) + 1 + packed_len(group.len() - 1, bits);
        line = line.filter(|line| *line == least_step && bits == 0);
    }
    if let Some(line) = line {
        return Plan { form: Form::Line, cost: 1 + varint_len(first) + varint_len(zigzag(line)) };
    }
    let bits = width(most - least);
    let packed = 2 + varint_len(least) + packed_len(values.len(), bits);
    let (form, cost) =
        if steps < packed { (Form::Steps, steps) } else { (Form::Packed { least, bits }, packed) };
    // A table pays where wide values come again; the first few tell whether it is worth a look.
    let sample = &values[..values.len().min(GROUP)];
    if cost * 8 > values.len() * 3
        && distinct(sample, sample.len() / 2).is_some()
        && let Some(few) = distinct(values, MOST)
        && let few_cost = few_cost(&few.all, values.len())
        && few_cost < cost
    {
        return Plan { form: Form::Few(few), cost: few_cost };
    }
    Plan { form, cost }
}

/// Writes a column.
pub(super) fn encode(values: &[u64], out: &mut Vec<u8>) {
    let Some(&first) = values.first() else { return };
    match plan(values).form {
        Form::Constant => {
            out.push(CONSTANT);
            put_varint(out, first);
        }
        Form::Line => {
            out.push(LINE);
            put_varint(out, first);
            put_varint(out, zigzag(step(values)));
        }
        Form::Packed { least, bits } => {
            out.push(PACKED);
            put_varint(out, least);
            out.push(bits as u8);
            pack(out, bits, values.iter().map(|v| v - least));
        }
        Form::Steps => {
            out.push(STEPS);
            put_varint(out, first);
            for group in groups(values) {
                let (least, bits) = range(group);
                put_varint(out, zigzag(least));
                out.push(bits as u8);
                pack(out, bits, group.windows(2).map(|p| step(p).wrapping_sub(least).cast_unsigned()));
            }
        }
        Form::Few(Few { all, indexes }) => {
            out.push(FEW);
            put_varint(out, all.len() as u64);
            all.iter().for_each(|v| put_varint(out, *v));
            pack(out, width((all.len() as u64).saturating_sub(1)), indexes.into_iter());
        }
    }
}

fn pack(out: &mut Vec<u8>, bits: u32, values: impl Iterator<Item = u64>) {
    if bits == 0 {
        return;
    }
    let (mut word, mut used) = (0u64, 0u32);
    for v in values {
        word |= v << used;
        used += bits;
        if used >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            used -= 64;
            word = if used == 0 { 0 } else { v >> (bits - used) };
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..(used as usize).div_ceil(8)]);
}

fn unpack(
    input: &mut Input<'_>,
    bits: u32,
    count: usize,
    mut take: impl FnMut(u64),
) -> Result<(), ColumnsError> {
    if bits > 64 {
        return Err(ColumnsError("a width of more than 64 bits"));
    }
    let bytes = input.take(packed_len(count, bits))?;
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let word = |at: usize| match bytes.get(at..at + 8) {
        Some(word) => crate::bytes::u64_at(word, 0),
        None => {
            let mut word = [0; 8];
            let rest = bytes.get(at..).unwrap_or_default();
            word[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(word)
        }
    };
    for i in 0..count {
        let bit = i * bits as usize;
        let (at, shift) = (bit / 8, bit % 8);
        let mut v = word(at) >> shift;
        if bits as usize + shift > 64 {
            v |= u64::from(bytes[at + 8]) << (64 - shift);
        }
        take(v & mask);
    }
    Ok(())
}

/// Reads a column of `count` integers.
pub(super) fn decode(input: &mut Input<'_>, count: usize) -> Result<Vec<u64>, ColumnsError> {
    let mut values = Vec::new();
    if count == 0 {
        return Ok(values);
    }
    match input.byte()? {
        CONSTANT => values.resize(count, input.varint()?),
        LINE => {
            let (mut v, step) = (input.varint()?, unzigzag(input.varint()?).cast_unsigned());
            values.extend(
                std::iter::repeat_with(|| {
                    let this = v;
                    v = v.wrapping_add(step);
                    this
                })
                .take(count),
            );
        }
        PACKED => {
            let (least, bits) = (input.varint()?, u32::from(input.byte()?));
            values.reserve(count);
            unpack(input, bits, count, |v| values.push(v.wrapping_add(least)))?;
        }
        STEPS => {
            let mut v = input.varint()?;
            values.reserve(count);
            values.push(v);
            while values.len() < count {
                let least = unzigzag(input.varint()?).cast_unsigned();
                let bits = u32::from(input.byte()?);
                unpack(input, bits, GROUP.min(count - values.len()), |step| {
                    v = v.wrapping_add(least).wrapping_add(step);
                    values.push(v);
                })?;
            }
        }
        FEW => {
            let distinct = input.len_up_to(MOST)?;
            let all = (0..distinct).map(|_| input.varint()).collect::<Result<Vec<_>, _>>()?;
            let bits = width((distinct as u64).saturating_sub(1));
            values.reserve(count);
            let mut outside = distinct == 0;
            unpack(input, bits, count, |index| {
                #[allow(clippy::cast_possible_truncation)] // of at most eight bits
                match all.get(index as usize) {
                    Some(v) => values.push(*v),
                    None => outside = true,
                }
            })?;
            if outside {
                return Err(ColumnsError("an index outside of its table"));
            }
        }
        _ => return Err(ColumnsError("a column of an unknown form")),
    }
    Ok(values)
}
