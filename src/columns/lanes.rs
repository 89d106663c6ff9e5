//! Strings of one length, such as the bytes of a `struct`: cut into lanes of eight bytes, each a column.
//!
//! ```text
//!  length of each string, then each lane of eight bytes:
//!    0 │ the bytes of all rows, back to back
//!    1 │ column           a little-endian integer of 64 bits
//!    2 │ column           a big-endian one
//!    3 │ column │ column  two little-endian ones of 32 bits
//!  what is left of each string behind the last lane, back to back
//! ```

use crate::columns::input::{ColumnsError, Input};
use crate::columns::ints;
use crate::columns::strings::Strings;

const BYTES: u8 = 0;
const LITTLE: u8 = 1;
const BIG: u8 = 2;
const HALVES: u8 = 3;

/// How long strings may be that are cut into lanes.
const LONGEST: usize = 1024;
/// How many rows tell whether a lane is worth a column.
const SAMPLE: usize = 64;

fn little(lane: [u8; 8]) -> u64 {
    u64::from_le_bytes(lane)
}

fn big(lane: [u8; 8]) -> u64 {
    u64::from_be_bytes(lane)
}

fn low(lane: [u8; 8]) -> u64 {
    little(lane) & 0xFFFF_FFFF
}

fn high(lane: [u8; 8]) -> u64 {
    little(lane) >> 32
}

/// The form that takes the least for `lanes`, and whether that is much less than the bytes themselves.
fn choose(lanes: &[[u8; 8]]) -> u8 {
    let cost =
        |of: fn([u8; 8]) -> u64| ints::plan(&lanes.iter().map(|lane| of(*lane)).collect::<Vec<_>>()).cost;
    let costs = [(cost(little), LITTLE), (cost(big), BIG), (cost(low) + cost(high), HALVES)];
    let (least, form) = costs.into_iter().min().unwrap_or((usize::MAX, BYTES));
    if least < lanes.len() * 7 { form } else { BYTES }
}

/// Writes `rows`, each `len` bytes long; false where columns would gain nothing, and then `out` is not as it was.
pub(super) fn encode(rows: &[&[u8]], len: usize, out: &mut Vec<u8>) -> bool {
    if len > LONGEST {
        return false;
    }
    ints::put_varint(out, len as u64);
    let (mut gains, mut lanes) = (false, Vec::with_capacity(rows.len()));
    for lane in 0..len / 8 {
        lanes.clear();
        lanes.extend(rows.iter().map(|row| row.as_chunks::<8>().0[lane]));
        let form = choose(&lanes[..lanes.len().min(SAMPLE)]);
        out.push(form);
        let column = |of: fn([u8; 8]) -> u64| lanes.iter().map(|lane| of(*lane)).collect::<Vec<_>>();
        match form {
            LITTLE => ints::encode(&column(little), out),
            BIG => ints::encode(&column(big), out),
            HALVES => {
                ints::encode(&column(low), out);
                ints::encode(&column(high), out);
            }
            _ => lanes.iter().for_each(|lane| out.extend_from_slice(lane)),
        }
        gains |= form != BYTES;
    }
    rows.iter().for_each(|row| out.extend_from_slice(row.as_chunks::<8>().1));
    gains
}

/// Reads what [`encode`] wrote of `rows` rows.
pub(super) fn decode(input: &mut Input<'_>, rows: usize, out: &mut Strings) -> Result<(), ColumnsError> {
    let len = input.len_up_to(LONGEST)?;
    if len.saturating_mul(rows) > out.room() {
        return Err(ColumnsError("more bytes than were announced"));
    }
    let mut bytes = vec![0; len * rows];
    for lane in 0..len / 8 {
        let mut put = |row: usize, at: usize, word: &[u8]| {
            let at = row * len + lane * 8 + at;
            bytes[at..at + word.len()].copy_from_slice(word);
        };
        match input.byte()? {
            BYTES => {
                let all = input.take(rows * 8)?;
                all.chunks(8).enumerate().for_each(|(row, word)| put(row, 0, word));
            }
            LITTLE => {
                let all = ints::decode(input, rows)?;
                all.iter().enumerate().for_each(|(row, v)| put(row, 0, &v.to_le_bytes()));
            }
            BIG => {
                let all = ints::decode(input, rows)?;
                all.iter().enumerate().for_each(|(row, v)| put(row, 0, &v.to_be_bytes()));
            }
            HALVES => {
                for at in [0, 4] {
                    let all = ints::decode(input, rows)?;
                    all.iter().enumerate().for_each(|(row, v)| put(row, at, &v.to_le_bytes()[..4]));
                }
            }
            _ => return Err(ColumnsError("a lane of an unknown form")),
        }
    }
    let rest = len % 8;
    let behind = input.take(rest * rows)?;
    for row in 0..rows {
        let end = (row + 1) * len;
        bytes[end - rest..end].copy_from_slice(&behind[row * rest..(row + 1) * rest]);
        out.put(&bytes[end - len..end])?;
        out.end();
    }
    Ok(())
}
