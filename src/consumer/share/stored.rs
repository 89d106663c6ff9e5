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
//!
//! The settings of a group, all of them, stand under a key of their own:
//!
//! ```text
//! key    0  version        u8    1
//!        1  kind           u8    2 settings of a share group
//!        2  group          UTF-8, to the end
//!
//! value  0  version        u8    1
//!        1  flags          u8    1 there is a dead-letter topic
//!        2  reset          u8    0 earliest, 1 latest, 2 by age
//!        3  age            u64   nanoseconds; 0 unless by age
//!       11  lock           u64   nanoseconds
//!       19  deliveries     u16
//!       21  window         u32
//!       25  dead letters   UTF-8, to the end
//! ```

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::consumer::offsets::check_group_name;
use crate::consumer::options::OffsetReset;
use crate::consumer::share::options::ShareConfig;
use crate::consumer::share::state::{Machine, Reason, State, Stretch};
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
/// The kind of key that names the state of a share partition.
const KIND_STATE: u8 = 1;
/// The kind of key that names the settings of a group.
const KIND_CONFIG: u8 = 2;
/// The flag of settings with a dead-letter topic.
const HAS_LETTERS: u8 = 1;

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
    #[error("settings of a share group are none")]
    Config,
    #[error("settings of a share group begin in way {0}, which is unknown to this build")]
    Reset(u8),
}

impl From<StateError> for Error {
    fn from(e: StateError) -> Error {
        let kind = match e {
            StateError::Version(_)
            | StateError::Kind(_)
            | StateError::Flags(_)
            | StateError::State(_)
            | StateError::Reset(_) => ErrorKind::UnsupportedVersion,
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

/// The key of a group's settings.
pub(crate) fn config_key(group: &str) -> Vec<u8> {
    [&[VERSION, KIND_CONFIG], group.as_bytes()].concat()
}

/// The group whose settings the key names; `None` where it names something else.
fn parse_config_key(key: &[u8]) -> Option<Result<&str, StateError>> {
    let group = key.strip_prefix(&[VERSION, KIND_CONFIG])?;
    let group = std::str::from_utf8(group).ok().filter(|group| check_group_name(group).is_ok());
    Some(group.ok_or(StateError::Group))
}

/// The value of a group's settings.
pub(crate) fn encode_config(config: &ShareConfig) -> Vec<u8> {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_le_bytes();
    let (reset, age) = match config.reset {
        OffsetReset::Earliest => (0, Duration::ZERO),
        OffsetReset::Latest | OffsetReset::None => (1, Duration::ZERO),
        OffsetReset::By(age) => (2, age),
    };
    let mut out = vec![VERSION, if config.letters.is_some() { HAS_LETTERS } else { 0 }, reset];
    out.extend_from_slice(&nanos(age));
    out.extend_from_slice(&nanos(config.lock));
    out.extend_from_slice(&config.deliveries.to_le_bytes());
    out.extend_from_slice(&config.window.to_le_bytes());
    out.extend_from_slice(config.letters.as_deref().unwrap_or_default().as_bytes());
    out
}

fn parse_config(value: &[u8]) -> Result<ShareConfig, StateError> {
    let mut rest = value;
    let [version, flags, reset] = take(&mut rest)?;
    if version != VERSION {
        return Err(StateError::Version(version));
    }
    if flags & !HAS_LETTERS != 0 {
        return Err(StateError::Flags(flags));
    }
    let age = Duration::from_nanos(u64::from_le_bytes(take(&mut rest)?));
    let reset = match reset {
        0 => OffsetReset::Earliest,
        1 => OffsetReset::Latest,
        2 => OffsetReset::By(age),
        other => return Err(StateError::Reset(other)),
    };
    let lock = Duration::from_nanos(u64::from_le_bytes(take(&mut rest)?));
    let deliveries = u16::from_le_bytes(take(&mut rest)?);
    let window = u32::from_le_bytes(take(&mut rest)?);
    let letters = std::str::from_utf8(rest).map_err(|_| StateError::Config)?;
    let letters = (flags & HAS_LETTERS != 0).then(|| letters.to_owned());
    if letters.is_none() && !rest.is_empty() {
        return Err(StateError::Trailing);
    }
    let config = ShareConfig { reset, lock, deliveries, window, letters };
    config.check().map(|()| config).map_err(|_| StateError::Config)
}

/// All that was saved: what the records of `__share_group_state`, applied in order, leave.
#[derive(Debug, Default)]
pub(crate) struct StateTable {
    states: HashMap<String, BTreeMap<(u64, u32), Saved>>,
    configs: HashMap<String, ShareConfig>,
}

impl StateTable {
    /// Applies one record; no value forgets. Changes nothing where it fails.
    pub(crate) fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        if let Some(group) = parse_config_key(key) {
            let group = group?;
            match value.map(parse_config).transpose()? {
                Some(config) => self.configs.insert(group.to_owned(), config),
                None => self.configs.remove(group),
            };
            return Ok(());
        }
        let key = StateKey::parse(key)?;
        let place = (key.topic_id, key.partition);
        match value.map(Saved::parse).transpose()? {
            Some(saved) => {
                self.states.entry(key.group.to_owned()).or_default().insert(place, saved);
            }
            None => {
                if let Some(places) = self.states.get_mut(key.group) {
                    places.remove(&place);
                }
            }
        }
        Ok(())
    }

    /// Takes out what was saved for a group, by topic id and partition.
    pub(crate) fn take(&mut self, group: &str) -> BTreeMap<(u64, u32), Saved> {
        self.states.remove(group).unwrap_or_default()
    }

    /// Takes out the settings that were saved for a group.
    pub(crate) fn take_config(&mut self, group: &str) -> Option<ShareConfig> {
        self.configs.remove(group)
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
