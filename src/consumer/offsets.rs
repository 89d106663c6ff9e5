//! Committed offsets: the records of `__consumer_offsets`, and the table that they make.
//!
//! The key says whose and where, the value what. All integers are little-endian, nothing is padded.
//!
//! ```text
//! key    0  version        u8    1
//!        1  kind           u8    1 committed offset
//!        2  topic id       u64
//!       10  partition      u32
//!       14  group          UTF-8, to the end
//!
//! value  0  version        u8    1
//!        1  flags          u8    1 metadata is there
//!        2  leader epoch   u32   the log's when this was committed
//!        6  offset         u64   the next one to read
//!       14  committed at   i64   nanoseconds since the Unix epoch
//!       22  metadata len   u32   0 without flag 1
//!       26  metadata       UTF-8, to the end
//! ```
//!
//! No value (a tombstone) means that nothing is committed there any more. The topic stands there by its id: what
//! was committed for a topic is never taken for another one that got its name.

use std::collections::{BTreeMap, HashMap};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
/// The kind of key that names a committed offset.
const KIND_OFFSET: u8 = 1;
/// The flag of a value that has metadata.
const HAS_METADATA: u8 = 1;
/// The longest name of a group, in bytes.
const MAX_GROUP: usize = 249;

/// Whether `name` can be that of a group.
pub(crate) fn check_group_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "the name of a group cannot be empty".to_owned()
    } else if name.len() > MAX_GROUP {
        format!("the name of a group has at most {MAX_GROUP} bytes, not {}", name.len())
    } else if name.chars().any(char::is_control) {
        format!("the name of a group has no control characters, as {name:?} does")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidGroupId, reason))
}

/// Why bytes are not a record of a committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum OffsetError {
    #[error("record of a committed offset is cut short")]
    Truncated,
    #[error("record of a committed offset has bytes after its end")]
    Trailing,
    #[error("record of a committed offset is of version {0}; this build reads version {VERSION}")]
    Version(u8),
    #[error("record of a committed offset is of kind {0}, which is unknown to this build")]
    Kind(u8),
    #[error("record of a committed offset has flags {0:#04x} of a newer format")]
    Flags(u8),
    #[error("record of a committed offset names no group")]
    Group,
    #[error("record of a committed offset has metadata that is none")]
    Metadata,
}

impl From<OffsetError> for Error {
    fn from(e: OffsetError) -> Error {
        let kind = match e {
            OffsetError::Version(_) | OffsetError::Kind(_) | OffsetError::Flags(_) => {
                ErrorKind::UnsupportedVersion
            }
            _ => ErrorKind::CorruptRecord,
        };
        Error::new(kind, e.to_string())
    }
}

/// Takes the next `N` bytes off the front.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], OffsetError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(OffsetError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

/// Whose offset it is, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetKey<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
}

impl<'a> OffsetKey<'a> {
    /// The key of the record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, KIND_OFFSET];
        out.extend_from_slice(&self.topic_id.to_le_bytes());
        out.extend_from_slice(&self.partition.to_le_bytes());
        out.extend_from_slice(self.group.as_bytes());
        out
    }

    /// Reads the key of a record.
    pub(crate) fn decode(key: &'a [u8]) -> Result<Self> {
        Ok(Self::parse(key)?)
    }

    fn parse(key: &'a [u8]) -> Result<Self, OffsetError> {
        let mut rest = key;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(OffsetError::Version(version));
        }
        let [kind] = take(&mut rest)?;
        if kind != KIND_OFFSET {
            return Err(OffsetError::Kind(kind));
        }
        let topic_id = u64::from_le_bytes(take(&mut rest)?);
        let partition = u32::from_le_bytes(take(&mut rest)?);
        match std::str::from_utf8(rest) {
            Ok(group) if check_group_name(group).is_ok() => Ok(OffsetKey { group, topic_id, partition }),
            _ => Err(OffsetError::Group),
        }
    }
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    /// The next offset to read.
    pub(crate) offset: u64,
    /// The log's leader epoch at the commit: where the offset lies beyond the end of that epoch, the record behind
    /// it was lost and its offset given again.
    pub(crate) epoch: u32,
    pub(crate) metadata: Option<String>,
    /// When it was committed.
    pub(crate) timestamp: Timestamp,
}

impl CommittedOffset {
    /// The value of the record.
    #[allow(clippy::cast_possible_truncation)] // a record, and so its metadata, is far smaller than 4 GiB
    pub(crate) fn encode(&self) -> Vec<u8> {
        let metadata = self.metadata.as_deref().unwrap_or_default();
        let mut out = vec![VERSION, if self.metadata.is_some() { HAS_METADATA } else { 0 }];
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.timestamp.as_nanos().to_le_bytes());
        out.extend_from_slice(&(metadata.len() as u32).to_le_bytes());
        out.extend_from_slice(metadata.as_bytes());
        out
    }

    /// Reads the value of a record.
    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        Ok(Self::parse(value)?)
    }

    fn parse(value: &[u8]) -> Result<Self, OffsetError> {
        let mut rest = value;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(OffsetError::Version(version));
        }
        let [flags] = take(&mut rest)?;
        if flags & !HAS_METADATA != 0 {
            return Err(OffsetError::Flags(flags));
        }
        let epoch = u32::from_le_bytes(take(&mut rest)?);
        let offset = u64::from_le_bytes(take(&mut rest)?);
        let timestamp = Timestamp::from_nanos(i64::from_le_bytes(take(&mut rest)?));
        let len = u32::from_le_bytes(take(&mut rest)?) as usize;
        if rest.len() < len {
            return Err(OffsetError::Truncated);
        }
        if rest.len() > len {
            return Err(OffsetError::Trailing);
        }
        let text = std::str::from_utf8(rest).map_err(|_| OffsetError::Metadata)?;
        let metadata = (flags & HAS_METADATA != 0).then(|| text.to_owned());
        if metadata.is_none() && len != 0 {
            return Err(OffsetError::Metadata);
        }
        Ok(CommittedOffset { offset, epoch, metadata, timestamp })
    }
}

/// The offsets of one group, by topic id and partition.
pub(crate) type GroupOffsets = BTreeMap<(u64, u32), CommittedOffset>;

/// All committed offsets: what the records of `__consumer_offsets`, applied in order, leave.
#[derive(Debug, Clone, Default)]
pub(crate) struct OffsetTable(HashMap<String, GroupOffsets>);

impl OffsetTable {
    /// Applies one record; no value forgets the offset. Changes nothing where it fails.
    pub(crate) fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let key = OffsetKey::decode(key)?;
        let place = (key.topic_id, key.partition);
        match value.map(CommittedOffset::decode).transpose()? {
            Some(committed) => {
                self.0.entry(key.group.to_owned()).or_default().insert(place, committed);
            }
            None => {
                if let Some(offsets) = self.0.get_mut(key.group) {
                    offsets.remove(&place);
                    if offsets.is_empty() {
                        self.0.remove(key.group);
                    }
                }
            }
        }
        Ok(())
    }

    /// What the group committed in this partition.
    pub(crate) fn get(&self, group: &str, topic_id: u64, partition: u32) -> Option<&CommittedOffset> {
        self.0.get(group)?.get(&(topic_id, partition))
    }

    /// All that the group committed; `None` where that is nothing.
    pub(crate) fn group(&self, group: &str) -> Option<&GroupOffsets> {
        self.0.get(group)
    }

    /// Every group that committed anything, in no order.
    #[cfg(test)]
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, &GroupOffsets)> {
        self.0.iter().map(|(group, offsets)| (group.as_str(), offsets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: OffsetKey<'_> = OffsetKey { group: "risk", topic_id: 0x0102_0304_0506_0708, partition: 3 };

    fn committed(metadata: Option<&str>) -> CommittedOffset {
        CommittedOffset {
            offset: 77,
            epoch: 5,
            metadata: metadata.map(str::to_owned),
            timestamp: Timestamp::from_nanos(-2),
        }
    }

    #[test]
    fn bytes_stand_where_they_are_drawn() {
        let key = KEY.encode();
        assert_eq!(key, b"\x01\x01\x08\x07\x06\x05\x04\x03\x02\x01\x03\0\0\0risk");
        let value = committed(Some("m")).encode();
        assert_eq!((value[0], value[1], value.len()), (1, 1, 27));
        assert_eq!(value[2..6], 5u32.to_le_bytes());
        assert_eq!(value[6..14], 77u64.to_le_bytes());
        assert_eq!(value[14..22], (-2i64).to_le_bytes());
        assert_eq!(&value[22..], b"\x01\0\0\0m");
    }

    #[test]
    fn round_trip_and_null_differs_from_empty() {
        assert_eq!(OffsetKey::decode(&KEY.encode()).unwrap(), KEY);
        for metadata in [None, Some(""), Some("a line\nand é")] {
            let value = committed(metadata);
            assert_eq!(CommittedOffset::decode(&value.encode()).unwrap(), value);
        }
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
        let kind_of_key = |key: &[u8]| OffsetKey::decode(key).unwrap_err().kind();
        let kind_of_value = |value: &[u8]| CommittedOffset::decode(value).unwrap_err().kind();
        let (key, value) = (KEY.encode(), committed(Some("meta")).encode());
        for cut in 0..14 {
            assert_eq!(kind_of_key(&key[..cut]), ErrorKind::CorruptRecord);
        }
        assert_eq!(kind_of_key(&key[..14]), ErrorKind::CorruptRecord, "no group");
        for cut in 0..value.len() {
            assert_eq!(kind_of_value(&value[..cut]), ErrorKind::CorruptRecord);
        }
        let patched = |bytes: &[u8], at: usize, to: u8| {
            let mut bytes = bytes.to_vec();
            bytes[at] = to;
            bytes
        };
        let (newer, corrupt) = (ErrorKind::UnsupportedVersion, ErrorKind::CorruptRecord);
        assert_eq!(kind_of_key(&patched(&key, 0, 2)), newer);
        assert_eq!(kind_of_key(&patched(&key, 1, 2)), newer);
        assert_eq!(kind_of_key(&patched(&key, 14, 0xFF)), corrupt);
        assert_eq!(kind_of_key(&patched(&key, 14, b'\n')), corrupt);
        assert_eq!(kind_of_value(&patched(&value, 0, 2)), newer);
        assert_eq!(kind_of_value(&patched(&value, 1, 3)), newer);
        assert_eq!(kind_of_value(&patched(&value, 1, 0)), corrupt);
        assert_eq!(kind_of_value(&patched(&value, 26, 0xFF)), corrupt);
        let mut long = value.clone();
        long.push(0);
        assert_eq!(kind_of_value(&long), corrupt);
    }

    #[test]
    fn no_bytes_make_decode_panic() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        for _ in 0..20_000 {
            let mut noise: Vec<u8> = (0..next() % 40).map(|_| next() as u8).collect();
            for first in [None, Some(1)] {
                if let (Some(first), Some(byte)) = (first, noise.first_mut()) {
                    *byte = first;
                }
                let _ = OffsetKey::decode(&noise);
                let _ = CommittedOffset::decode(&noise);
            }
        }
    }

    #[test]
    fn names_of_groups() {
        let longest = "g".repeat(249);
        for name in ["risk", "Risiko für morgen", " ", &longest] {
            check_group_name(name).unwrap();
        }
        for name in ["", "a\nb", "\u{7f}", &"g".repeat(250)] {
            assert_eq!(check_group_name(name).unwrap_err().kind(), ErrorKind::InvalidGroupId);
        }
    }

    #[test]
    fn the_table_is_what_its_records_leave() {
        let mut table = OffsetTable::default();
        let other = OffsetKey { partition: 4, ..KEY };
        let later = CommittedOffset { offset: 90, ..committed(None) };
        table.apply(&KEY.encode(), Some(&committed(None).encode())).unwrap();
        table.apply(&other.encode(), Some(&committed(None).encode())).unwrap();
        table.apply(&KEY.encode(), Some(&later.encode())).unwrap();
        assert_eq!(table.get("risk", KEY.topic_id, 3), Some(&later));
        assert_eq!(table.get("risk", KEY.topic_id, 4), Some(&committed(None)));
        assert_eq!(table.get("other", KEY.topic_id, 3), None);
        assert_eq!(table.group("risk").map(BTreeMap::len), Some(2));

        assert!(table.apply(&KEY.encode(), Some(b"")).is_err());
        assert_eq!(table.get("risk", KEY.topic_id, 3), Some(&later), "as it was");

        table.apply(&KEY.encode(), None).unwrap();
        table.apply(&KEY.encode(), None).unwrap();
        assert_eq!(table.groups().count(), 1);
        table.apply(&other.encode(), None).unwrap();
        assert_eq!(table.groups().count(), 0);
    }
}
