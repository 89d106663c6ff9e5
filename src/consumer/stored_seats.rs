//! What survives of static members: records of `__consumer_offsets`, beside the committed offsets.
//!
//! The key says whose seat, the value what belongs to it. All integers are little-endian, nothing is padded.
//!
//! ```text
//! key    0  version          u8    1
//!        1  kind             u8    3 seat of a static member
//!        2  group length     u16
//!        4  group            UTF-8
//!           instance id      UTF-8, to the end
//!
//! value  0  version          u8    1
//!        1  flags            u8    1 its consumer was closed
//!        2  closed at        i64   nanoseconds since the Unix epoch; 0 without flag 1
//!       10  session timeout  u64   nanoseconds
//!       18  topics           u32   how many follow
//!           topic            u16 length, UTF-8
//!           partitions       u32   how many follow, in order
//!           partition        u64 topic id, u32 partition
//! ```
//!
//! Topics are what it asked for, partitions what the last plan gave it. No value (a tombstone): the seat is free.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::consumer::offsets::check_group_name;
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
/// The kind of key that names a static member's seat.
const KIND_SEAT: u8 = 3;
/// The flag of a seat whose consumer was closed.
const CLOSED: u8 = 1;

/// A static member's seat, as the next process finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSeat {
    /// When its consumer was closed; `None` where it was not, as far as the log was told.
    pub(crate) closed: Option<Timestamp>,
    pub(crate) session_timeout: Duration,
    pub(crate) topics: BTreeSet<String>,
    /// Topic id and partition of what it is to read.
    pub(crate) target: BTreeSet<(u64, u32)>,
}

/// The seats of one group, by instance id.
pub(crate) type GroupSeats = BTreeMap<String, StoredSeat>;

/// Why bytes are not the seat of a static member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum SeatError {
    #[error("record of a static member is cut short")]
    Truncated,
    #[error("record of a static member has bytes after its end")]
    Trailing,
    #[error("record of a static member is of version {0}; this build reads version {VERSION}")]
    Version(u8),
    #[error("record of a static member has flags {0:#04x} of a newer format")]
    Flags(u8),
    #[error("record of a static member has a name that is none")]
    Name,
    #[error("record of a static member has partitions out of order")]
    Order,
}

impl From<SeatError> for Error {
    fn from(e: SeatError) -> Error {
        let kind = match e {
            SeatError::Version(_) | SeatError::Flags(_) => ErrorKind::UnsupportedVersion,
            _ => ErrorKind::CorruptRecord,
        };
        Error::new(kind, e.to_string())
    }
}

/// Takes the next `N` bytes off the front.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SeatError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(SeatError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

/// Takes a text with its length before it off the front.
fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, SeatError> {
    let len = usize::from(u16::from_le_bytes(take(rest)?));
    let (text, tail) = rest.split_at_checked(len).ok_or(SeatError::Truncated)?;
    *rest = tail;
    std::str::from_utf8(text).map_err(|_| SeatError::Name)
}

#[allow(clippy::cast_possible_truncation)] // names of groups and topics have at most 249 bytes
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Whether the key is that of a seat, rather than of a committed offset.
pub(crate) fn is_seat(key: &[u8]) -> bool {
    key.get(1) == Some(&KIND_SEAT)
}

/// The key of the record.
pub(crate) fn encode_key(group: &str, instance_id: &str) -> Vec<u8> {
    let mut out = vec![VERSION, KIND_SEAT];
    put_text(&mut out, group);
    out.extend_from_slice(instance_id.as_bytes());
    out
}

/// Group and instance id.
fn parse_key(key: &[u8]) -> Result<(&str, &str), SeatError> {
    let mut rest = key;
    let [version, _kind] = take(&mut rest)?;
    if version != VERSION {
        return Err(SeatError::Version(version));
    }
    let group = take_text(&mut rest)?;
    match std::str::from_utf8(rest) {
        Ok(instance_id) if !rest.is_empty() && check_group_name(group).is_ok() => Ok((group, instance_id)),
        _ => Err(SeatError::Name),
    }
}

impl StoredSeat {
    /// The value of the record.
    #[allow(clippy::cast_possible_truncation)] // more topics or partitions than a u32 counts do not fit a record
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, if self.closed.is_some() { CLOSED } else { 0 }];
        out.extend_from_slice(&self.closed.unwrap_or_default().as_nanos().to_le_bytes());
        let timeout = u64::try_from(self.session_timeout.as_nanos()).unwrap_or(u64::MAX);
        out.extend_from_slice(&timeout.to_le_bytes());
        out.extend_from_slice(&(self.topics.len() as u32).to_le_bytes());
        self.topics.iter().for_each(|topic| put_text(&mut out, topic));
        out.extend_from_slice(&(self.target.len() as u32).to_le_bytes());
        for (topic_id, partition) in &self.target {
            out.extend_from_slice(&topic_id.to_le_bytes());
            out.extend_from_slice(&partition.to_le_bytes());
        }
        out
    }

    fn parse(value: &[u8]) -> Result<Self, SeatError> {
        let mut rest = value;
        let [version, flags] = take(&mut rest)?;
        if version != VERSION {
            return Err(SeatError::Version(version));
        }
        if flags & !CLOSED != 0 {
            return Err(SeatError::Flags(flags));
        }
        let closed = Timestamp::from_nanos(i64::from_le_bytes(take(&mut rest)?));
        let session_timeout = Duration::from_nanos(u64::from_le_bytes(take(&mut rest)?));
        let mut topics = BTreeSet::new();
        for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
            topics.insert(take_text(&mut rest)?.to_owned());
        }
        let mut target = BTreeSet::new();
        for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
            let place = (u64::from_le_bytes(take(&mut rest)?), u32::from_le_bytes(take(&mut rest)?));
            if target.last().is_some_and(|last| *last >= place) {
                return Err(SeatError::Order);
            }
            target.insert(place);
        }
        if !rest.is_empty() {
            return Err(SeatError::Trailing);
        }
        Ok(StoredSeat { closed: (flags & CLOSED != 0).then_some(closed), session_timeout, topics, target })
    }
}

/// All seats: what their records, applied in order, leave.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeatTable(HashMap<String, GroupSeats>);

impl SeatTable {
    /// Applies one record; no value frees the seat. Changes nothing where it fails.
    pub(crate) fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let (group, instance_id) = parse_key(key)?;
        match value.map(StoredSeat::parse).transpose()? {
            Some(seat) => {
                self.0.entry(group.to_owned()).or_default().insert(instance_id.to_owned(), seat);
            }
            None => {
                if let Some(seats) = self.0.get_mut(group) {
                    seats.remove(instance_id);
                    if seats.is_empty() {
                        self.0.remove(group);
                    }
                }
            }
        }
        Ok(())
    }

    /// The names of all groups that have seats.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// The seats of the group; `None` where there are none.
    pub(crate) fn group(&self, group: &str) -> Option<&GroupSeats> {
        self.0.get(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(closed: Option<i64>) -> StoredSeat {
        StoredSeat {
            closed: closed.map(Timestamp::from_nanos),
            session_timeout: Duration::from_secs(45),
            topics: ["t", "u"].map(str::to_owned).into(),
            target: [(0x0102_0304_0506_0708, 3), (u64::MAX, 0)].into(),
        }
    }

    #[test]
    fn bytes_stand_where_they_are_drawn() {
        let key = encode_key("risk", "i1");
        assert_eq!(key, b"\x01\x03\x04\0riski1");
        assert!(is_seat(&key) && !is_seat(b"\x01\x01") && !is_seat(b"\x01"));
        let value = seat(Some(-2)).encode();
        assert_eq!(value[..2], [1, 1]);
        assert_eq!(value[2..10], (-2i64).to_le_bytes());
        assert_eq!(value[10..18], 45_000_000_000u64.to_le_bytes());
        assert_eq!(&value[18..32], b"\x02\0\0\0\x01\0t\x01\0u\x02\0\0\0");
        assert_eq!(&value[32..44], b"\x08\x07\x06\x05\x04\x03\x02\x01\x03\0\0\0");
        assert_eq!(value.len(), 56);
    }

    #[test]
    fn the_table_is_what_its_records_leave() {
        let mut table = SeatTable::default();
        let (one, two) = (encode_key("risk", "i1"), encode_key("risk", "i2"));
        table.apply(&one, Some(&seat(None).encode())).unwrap();
        table.apply(&two, Some(&seat(Some(5)).encode())).unwrap();
        assert_eq!(table.group("risk").unwrap()["i1"], seat(None));
        assert_eq!(table.group("risk").unwrap()["i2"], seat(Some(5)));
        assert!(table.apply(&one, Some(b"")).is_err());
        assert_eq!(table.group("risk").unwrap().len(), 2, "as it was");
        for key in [&one, &one, &two] {
            table.apply(key, None).unwrap();
        }
        assert_eq!(table.group("risk"), None);
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
        let mut table = SeatTable::default();
        let (key, value) = (encode_key("risk", "i1"), seat(Some(7)).encode());
        let mut kind = |key: &[u8], value: &[u8]| table.apply(key, Some(value)).unwrap_err().kind();
        for cut in 0..9 {
            assert_eq!(kind(&key[..cut], &value), ErrorKind::CorruptRecord, "key of {cut}");
        }
        for cut in 0..value.len() {
            assert_eq!(kind(&key, &value[..cut]), ErrorKind::CorruptRecord, "value of {cut}");
        }
        let patched = |at: usize, to: u8| {
            let mut value = value.clone();
            value[at] = to;
            value
        };
        assert_eq!(kind(&key, &patched(0, 2)), ErrorKind::UnsupportedVersion);
        assert_eq!(kind(&key, &patched(1, 2)), ErrorKind::UnsupportedVersion);
        assert_eq!(kind(&key, &patched(24, 0xFF)), ErrorKind::CorruptRecord, "a topic that is no text");
        assert_eq!(kind(&key, &patched(51, 0)), ErrorKind::CorruptRecord, "partitions out of order");
        assert_eq!(kind(&key, &[&value[..], &[0]].concat()), ErrorKind::CorruptRecord);
        assert_eq!(kind(b"\x02\x03\x01\0gi", &value), ErrorKind::UnsupportedVersion);
        assert_eq!(kind(b"\x01\x03\x01\0\ni", &value), ErrorKind::CorruptRecord);
        assert!(table.group("risk").is_none());
    }
}
