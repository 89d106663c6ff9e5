//! What survives of a share group: the records of `__share_group_state`, and the table that they make.
//!
//! The key says whose and where, the value is the whole state of that partition. All integers are little-endian,
//! nothing is padded.
//!
//! ```text
//! key    0  version        u8    1
//!        1  kind           u8    1 state of a share partition
//!        2  topic id       u64
//!       10  partition      u32
//!       14  group          UTF-8, to the end
//!
//! value  0  version        u8    1
//!        1  flags          u8    0
//!        2  leader epoch   u32   the log's when this was written
//!        6  start offset   u64   what lies below it is finished
//!       14  end offset     u64   what lies at or above it was never acquired
//!       22  stretches      u32   how many follow, in order, none over another, all between start and end
//!       26  stretch        u64 first offset, u32 offsets, u16 deliveries, u8 state: 15 bytes each
//! ```
//!
//! States: 0 available, 1 archiving since it was rejected, 2 archiving since it was delivered too often. What no
//! stretch tells of is finished. A record that somebody holds stands there as available, with this delivery
//! counted: locks do not outlive the process, counts do. No value (a tombstone): the group has never been here.

use std::collections::{BTreeMap, HashMap};

use crate::consumer::offsets::check_group_name;
use crate::consumer::share::state::{Machine, Reason, State, Stretch};
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
/// The kind of key that names the state of a share partition.
const KIND_STATE: u8 = 1;

/// Why bytes are not the state of a share partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum StateError {
    #[error("state of a share group is cut short")]
    Truncated,
    #[error("state of a share group has bytes after its end")]
    Trailing,
    #[error("state of a share group is of version {0}; this build reads version {VERSION}")]
    Version(u8),
    #[error("state of a share group is of kind {0}, which is unknown to this build")]
    Kind(u8),
    #[error("state of a share group has flags {0:#04x} of a newer format")]
    Flags(u8),
    #[error("state of a share group has a record in state {0}, which is unknown to this build")]
    State(u8),
    #[error("state of a share group names no group")]
    Group,
    #[error("state of a share group has offsets out of order")]
    Order,
}

impl From<StateError> for Error {
    fn from(e: StateError) -> Error {
        let kind = match e {
            StateError::Version(_) | StateError::Kind(_) | StateError::Flags(_) | StateError::State(_) => {
                ErrorKind::UnsupportedVersion
            }
            _ => ErrorKind::CorruptRecord,
        };
        Error::new(kind, e.to_string())
    }
}

/// Takes the next `N` bytes off the front.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], StateError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(StateError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

/// Whose state it is, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateKey<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic_id: u64,
    pub(crate) partition: u32,
}

impl<'a> StateKey<'a> {
    /// The key of the record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, KIND_STATE];
        out.extend_from_slice(&self.topic_id.to_le_bytes());
        out.extend_from_slice(&self.partition.to_le_bytes());
        out.extend_from_slice(self.group.as_bytes());
        out
    }

    fn parse(key: &'a [u8]) -> Result<Self, StateError> {
        let mut rest = key;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let [kind] = take(&mut rest)?;
        if kind != KIND_STATE {
            return Err(StateError::Kind(kind));
        }
        let topic_id = u64::from_le_bytes(take(&mut rest)?);
        let partition = u32::from_le_bytes(take(&mut rest)?);
        match std::str::from_utf8(rest) {
            Ok(group) if check_group_name(group).is_ok() => Ok(StateKey { group, topic_id, partition }),
            _ => Err(StateError::Group),
        }
    }
}

/// What was saved of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    /// The log's leader epoch at the time.
    pub(crate) epoch: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) stretches: Vec<Stretch>,
}

/// The number that stands for a state; `None` for what is finished.
fn number(state: State) -> Option<u8> {
    match state {
        State::Available | State::Acquired { .. } => Some(0),
        State::Archiving { reason: Reason::Rejected, .. } => Some(1),
        State::Archiving { reason: Reason::Deliveries, .. } => Some(2),
        State::Acknowledged | State::Archived => None,
    }
}

impl Saved {
    /// What is worth saving of `machine`: neighbours that look the same from here are one stretch.
    pub(crate) fn of(machine: &Machine, epoch: u32) -> Saved {
        let (start, end) = (machine.start(), machine.end());
        let mut stretches: Vec<Stretch> = Vec::new();
        for stretch in machine.stretches().filter(|s| s.first >= start && number(s.state).is_some()) {
            let state = match stretch.state {
                State::Acquired { .. } => State::Available,
                State::Archiving { reason, .. } => State::Archiving { reason, taken: false },
                same => same,
            };
            match stretches.last_mut() {
                Some(before)
                    if (before.last + 1, before.state, before.deliveries)
                        == (stretch.first, state, stretch.deliveries) =>
                {
                    before.last = stretch.last;
                }
                _ => stretches.push(Stretch { state, ..stretch }),
            }
        }
        Saved { epoch, start, end, stretches }
    }

    /// The value of the record.
    #[allow(clippy::cast_possible_truncation)] // the window has at most 10,000 offsets
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, 0];
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&self.end.to_le_bytes());
        out.extend_from_slice(&(self.stretches.len() as u32).to_le_bytes());
        for stretch in &self.stretches {
            out.extend_from_slice(&stretch.first.to_le_bytes());
            out.extend_from_slice(&(stretch.records() as u32).to_le_bytes());
            out.extend_from_slice(&stretch.deliveries.to_le_bytes());
            out.push(number(stretch.state).unwrap_or_default());
        }
        out
    }

    fn parse(value: &[u8]) -> Result<Self, StateError> {
        let mut rest = value;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let [flags] = take(&mut rest)?;
        if flags != 0 {
            return Err(StateError::Flags(flags));
        }
        let epoch = u32::from_le_bytes(take(&mut rest)?);
        let start = u64::from_le_bytes(take(&mut rest)?);
        let end = u64::from_le_bytes(take(&mut rest)?);
        let count = u32::from_le_bytes(take(&mut rest)?);
        let mut stretches = Vec::new();
        let mut from = start;
        for _ in 0..count {
            let first = u64::from_le_bytes(take(&mut rest)?);
            let len = u64::from(u32::from_le_bytes(take(&mut rest)?));
            let deliveries = u16::from_le_bytes(take(&mut rest)?);
            let state = match take(&mut rest)? {
                [0] => State::Available,
                [1] => State::Archiving { reason: Reason::Rejected, taken: false },
                [2] => State::Archiving { reason: Reason::Deliveries, taken: false },
                [other] => return Err(StateError::State(other)),
            };
            let next = first.checked_add(len).filter(|next| first >= from && len > 0 && *next <= end);
            from = next.ok_or(StateError::Order)?;
            stretches.push(Stretch { first, last: from - 1, state, deliveries });
        }
        if start > end {
            return Err(StateError::Order);
        }
        if rest.is_empty() { Ok(Saved { epoch, start, end, stretches }) } else { Err(StateError::Trailing) }
    }
}

/// All that was saved: what the records of `__share_group_state`, applied in order, leave.
#[derive(Debug, Default)]
pub(crate) struct StateTable(HashMap<String, BTreeMap<(u64, u32), Saved>>);

impl StateTable {
    /// Applies one record; no value forgets. Changes nothing where it fails.
    pub(crate) fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let key = StateKey::parse(key)?;
        let place = (key.topic_id, key.partition);
        match value.map(Saved::parse).transpose()? {
            Some(saved) => {
                self.0.entry(key.group.to_owned()).or_default().insert(place, saved);
            }
            None => {
                if let Some(places) = self.0.get_mut(key.group) {
                    places.remove(&place);
                }
            }
        }
        Ok(())
    }

    /// Takes out what was saved for a group, by topic id and partition.
    pub(crate) fn take(&mut self, group: &str) -> BTreeMap<(u64, u32), Saved> {
        self.0.remove(group).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
