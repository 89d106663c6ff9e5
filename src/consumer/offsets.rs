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
//!
//! Where committed offsets expire it is written down as well since when a group has no members:
//!
//! ```text
//! key    0  version        u8    1
//!        1  kind           u8    2 members of a group
//!        2  group          UTF-8, to the end
//!
//! value  0  version        u8    1
//!        1  state          u8    0 it has none, 1 it has members
//!        2  since          i64   nanoseconds since the Unix epoch
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
/// The kind of key that names a committed offset.
const KIND_OFFSET: u8 = 1;
/// The kind of key that names a group.
const KIND_MEMBERS: u8 = 2;
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
    #[error("record of a group's members has state {0}, which is unknown to this build")]
    State(u8),
    #[error("record of a committed offset names no group")]
    Group,
    #[error("record of a committed offset has metadata that is none")]
    Metadata,
}

impl From<OffsetError> for Error {
    fn from(e: OffsetError) -> Error {
        let kind = match e {
            OffsetError::Version(_)
            | OffsetError::Kind(_)
            | OffsetError::Flags(_)
            | OffsetError::State(_) => ErrorKind::UnsupportedVersion,
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
        let kind = take_kind(&mut rest)?;
        if kind != KIND_OFFSET {
            return Err(OffsetError::Kind(kind));
        }
        let topic_id = u64::from_le_bytes(take(&mut rest)?);
        let partition = u32::from_le_bytes(take(&mut rest)?);
        Ok(OffsetKey { group: group_in(rest)?, topic_id, partition })
    }
}

fn take_kind(rest: &mut &[u8]) -> Result<u8, OffsetError> {
    let [version] = take(rest)?;
    if version != VERSION {
        return Err(OffsetError::Version(version));
    }
    let [kind] = take(rest)?;
    Ok(kind)
}

fn group_in(bytes: &[u8]) -> Result<&str, OffsetError> {
    match std::str::from_utf8(bytes) {
        Ok(group) if check_group_name(group).is_ok() => Ok(group),
        _ => Err(OffsetError::Group),
    }
}

/// Whether a group has members, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) has_some: bool,
    pub(crate) since: Timestamp,
}

impl Members {
    /// The key of the record for `group`.
    pub(crate) fn key(group: &str) -> Vec<u8> {
        [&[VERSION, KIND_MEMBERS], group.as_bytes()].concat()
    }

    /// The value of the record.
    pub(crate) fn encode(self) -> Vec<u8> {
        [&[VERSION, u8::from(self.has_some)], &self.since.as_nanos().to_le_bytes()[..]].concat()
    }

    fn parse(value: &[u8]) -> Result<Self, OffsetError> {
        let mut rest = value;
        let has_some = match take_kind(&mut rest)? {
            0 => false,
            1 => true,
            other => return Err(OffsetError::State(other)),
        };
        let since = Timestamp::from_nanos(i64::from_le_bytes(take(&mut rest)?));
        if rest.is_empty() { Ok(Members { has_some, since }) } else { Err(OffsetError::Trailing) }
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
pub(crate) struct OffsetTable {
    offsets: HashMap<String, GroupOffsets>,
    /// Of the groups for which it was written down.
    members: HashMap<String, Members>,
}

impl OffsetTable {
    /// Applies one record; no value forgets the offset. Changes nothing where it fails.
    pub(crate) fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        if let [VERSION, KIND_MEMBERS, group @ ..] = key {
            let group = group_in(group)?;
            match value.map(Members::parse).transpose()? {
                Some(members) => drop(self.members.insert(group.to_owned(), members)),
                None => drop(self.members.remove(group)),
            }
            return Ok(());
        }
        let key = OffsetKey::decode(key)?;
        let place = (key.topic_id, key.partition);
        match value.map(CommittedOffset::decode).transpose()? {
            Some(committed) => {
                self.offsets.entry(key.group.to_owned()).or_default().insert(place, committed);
            }
            None => {
                if let Some(offsets) = self.offsets.get_mut(key.group) {
                    offsets.remove(&place);
                    if offsets.is_empty() {
                        self.offsets.remove(key.group);
                    }
                }
            }
        }
        Ok(())
    }

    /// What the group committed in this partition.
    pub(crate) fn get(&self, group: &str, topic_id: u64, partition: u32) -> Option<&CommittedOffset> {
        self.offsets.get(group)?.get(&(topic_id, partition))
    }

    /// All that the group committed; `None` where that is nothing.
    pub(crate) fn group(&self, group: &str) -> Option<&GroupOffsets> {
        self.offsets.get(group)
    }

    /// What is written down of the group's members.
    pub(crate) fn members(&self, group: &str) -> Option<Members> {
        self.members.get(group).copied()
    }

    /// The names of all groups that are written down.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.offsets.keys().chain(self.members.keys()).cloned().collect()
    }

    /// Every group that committed anything, in no order.
    #[cfg(test)]
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, &GroupOffsets)> {
        self.offsets.iter().map(|(group, offsets)| (group.as_str(), offsets))
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
        assert_eq!(kind_of_key(&patched(&key, 1, 3)), newer);
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
    fn members_are_written_down_beside_the_offsets() {
        let (key, since) = (Members::key("risk"), Timestamp::from_nanos(-2));
        assert_eq!(key, b"\x01\x02risk");
        let mut table = OffsetTable::default();
        for has_some in [true, false] {
            let members = Members { has_some, since };
            let value = members.encode();
            assert_eq!((value[1], &value[2..]), (u8::from(has_some), &(-2i64).to_le_bytes()[..]));
            table.apply(&key, Some(&value)).unwrap();
            assert_eq!(table.members("risk"), Some(members));
            for cut in 0..value.len() {
                assert!(table.apply(&key, Some(&value[..cut])).is_err());
            }
            let unknown = [&[1, 2], &value[2..]].concat();
            assert_eq!(table.apply(&key, Some(&unknown)).unwrap_err().kind(), ErrorKind::UnsupportedVersion);
            assert!(table.apply(&key, Some(&[&value[..], b"x"].concat())).is_err());
        }
        assert!(table.apply(&Members::key(""), None).is_err());
        assert_eq!((table.names().len(), table.groups().count()), (1, 0));
        table.apply(&key, None).unwrap();
        assert_eq!(table.names().len(), 0);
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
