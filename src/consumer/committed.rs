//! The committed offsets of a log, and the seats of its static members: records of `__consumer_offsets` and the tables
//! that they make, kept in step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::consumer::expiry::Use;
use crate::consumer::offsets::{CommittedOffset, GroupOffsets, Members, OffsetKey, OffsetTable};
use crate::consumer::stored_seats::{self, GroupSeats, SeatTable};
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::CONSUMER_OFFSETS;
use crate::log::core::LogCore;
use crate::partition::core::{PartitionCore, Wait};
use crate::partition::cursor::Cursor;
use crate::record::Record;
use crate::topic_partition::TopicPartition;

/// The longest metadata of a commit, in bytes. (Kafka: `offset.metadata.max.bytes`.)
const MAX_METADATA: usize = 4096;

/// One offset to commit.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) topic_id: u64,
    pub(crate) tp: TopicPartition,
    /// The next one to read.
    pub(crate) offset: u64,
    pub(crate) metadata: Option<String>,
}

/// The offsets that all groups of a log committed.
///
/// One lock over append and table, so that the table never differs from what its records say; whether a commit
/// is allowed is asked under it too: a commit by a member that has lost a partition either comes before the
/// next owner looks, or is refused. Who holds it may take the lock of a group, never the other way round.
#[derive(Default)]
pub(crate) struct Committed {
    /// Read from the log on first use.
    tables: Mutex<Option<Tables>>,
}

/// What the records of `__consumer_offsets` leave.
#[derive(Default)]
struct Tables {
    offsets: OffsetTable,
    seats: SeatTable,
}

impl Tables {
    fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        if stored_seats::is_seat(key) { self.seats.apply(key, value) } else { self.offsets.apply(key, value) }
    }
}

impl Committed {
    fn with<T>(
        &self,
        log: &LogCore,
        then: impl FnOnce(&mut Tables, &PartitionCore) -> Result<T>,
    ) -> Result<T> {
        let partition = log.topic(CONSUMER_OFFSETS)?.with_partition(0, Arc::clone)?;
        let mut tables = self.tables.lock();
        let tables = match &mut *tables {
            Some(tables) => tables,
            none => none.insert(load(&partition)?),
        };
        then(tables, &partition)
    }

    /// What the group committed in a partition.
    pub(crate) fn get(
        &self,
        log: &LogCore,
        group: &str,
        topic_id: u64,
        partition: u32,
    ) -> Result<Option<CommittedOffset>> {
        self.with(log, |tables, _| Ok(tables.offsets.get(group, topic_id, partition).cloned()))
    }

    /// The names of all groups of which anything is written down.
    pub(crate) fn names(&self, log: &LogCore) -> Result<BTreeSet<String>> {
        self.with(log, |tables, _| {
            let mut names = tables.offsets.names();
            names.extend(tables.seats.names().cloned());
            Ok(names)
        })
    }

    /// All that the group committed.
    pub(crate) fn of_group(&self, log: &LogCore, group: &str) -> Result<GroupOffsets> {
        self.with(log, |tables, _| Ok(tables.offsets.group(group).cloned().unwrap_or_default()))
    }

    /// Commits all entries or none, if `allowed` says so.
    pub(crate) fn commit(
        &self,
        log: &LogCore,
        group: &str,
        entries: &[Entry],
        allowed: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        for entry in entries {
            let len = entry.metadata.as_ref().map_or(0, String::len);
            if len > MAX_METADATA {
                let message = format!("metadata of a commit has at most {MAX_METADATA} bytes, not {len}");
                return Err(at(Error::new(ErrorKind::InvalidArgument, message), &entry.tp));
            }
        }
        let timestamp = log.engine.clock.now();
        let changes = entries.iter().map(|entry| {
            let key = OffsetKey { group, topic_id: entry.topic_id, partition: entry.tp.partition() };
            let committed = CommittedOffset {
                offset: entry.offset,
                epoch: log.epoch,
                metadata: entry.metadata.clone(),
                timestamp,
            };
            (key.encode(), Some(committed.encode()))
        });
        let changes: Vec<_> = changes.collect();
        self.with(log, |tables, partition| {
            allowed()?;
            apply(tables, partition, Wait::For(log.engine.max_block), timestamp, &changes)
        })
    }

    /// Forgets all that the group committed, if `allowed` says so of whether that is anything.
    pub(crate) fn forget(
        &self,
        log: &LogCore,
        group: &str,
        allowed: impl FnOnce(bool) -> Result<()>,
    ) -> Result<()> {
        self.with(log, |tables, partition| {
            let offsets = tables.offsets.group(group);
            let places: Vec<_> = offsets.into_iter().flat_map(|all| all.keys().copied()).collect();
            allowed(!places.is_empty())?;
            let changes = places.into_iter().map(|(topic_id, partition)| {
                let key = OffsetKey { group, topic_id, partition };
                (key.encode(), None)
            });
            let members = tables.offsets.members(group).map(|_| (Members::key(group), None));
            let changes: Vec<_> = changes.chain(members).collect();
            apply(tables, partition, Wait::For(log.engine.max_block), log.engine.clock.now(), &changes)
        })
    }

    /// Has `then` look at the seats that the group's static members had.
    pub(crate) fn seats(&self, log: &LogCore, group: &str, then: impl FnOnce(&GroupSeats)) -> Result<()> {
        self.with(log, |tables, _| {
            then(tables.seats.group(group).unwrap_or(&GroupSeats::new()));
            Ok(())
        })
    }

    /// Writes down what differs between the seats that the group's static members have `now` and those that the log
    /// knows of, all or nothing and without waiting for room.
    pub(crate) fn keep_seats(
        &self,
        log: &LogCore,
        group: &str,
        now: impl FnOnce() -> GroupSeats,
    ) -> Result<()> {
        self.with(log, |tables, partition| {
            let (now, none) = (now(), GroupSeats::new());
            let known = tables.seats.group(group).unwrap_or(&none);
            let taken = now.iter().filter(|(name, seat)| known.get(*name) != Some(seat));
            let taken =
                taken.map(|(name, seat)| (stored_seats::encode_key(group, name), Some(seat.encode())));
            let freed = known.keys().filter(|name| !now.contains_key(*name));
            let freed = freed.map(|name| (stored_seats::encode_key(group, name), None));
            let changes: Vec<Change> = taken.chain(freed).collect();
            if changes.is_empty() {
                return Ok(());
            }
            apply(tables, partition, Wait::No, log.engine.clock.now(), &changes)
        })
    }

    /// Writes down that the group has members, where that is not there yet.
    pub(crate) fn note_members(&self, log: &LogCore, group: &str) -> Result<()> {
        let since = log.engine.clock.now();
        self.with(log, |tables, partition| {
            if tables.offsets.members(group).is_some_and(|members| members.has_some) {
                return Ok(());
            }
            let change = (Members::key(group), Some(Members { has_some: true, since }.encode()));
            apply(tables, partition, Wait::For(log.engine.max_block), since, &[change])
        })
    }

    /// Forgets what has expired by `now`, and writes down which groups have become empty.
    pub(crate) fn expire(
        &self,
        log: &LogCore,
        now: Timestamp,
        retention: Duration,
        use_of: impl Fn(&str, Option<Members>) -> Use,
    ) -> Result<Swept> {
        self.with(log, |tables, partition| {
            let (mut swept, mut changes) = (Swept::default(), Vec::new());
            let names = tables.offsets.names();
            swept.is_empty = names.is_empty();
            for group in names {
                let written = tables.offsets.members(&group);
                let use_of = use_of(&group, written);
                let mut left = 0;
                for (&(topic_id, partition), committed) in tables.offsets.group(&group).into_iter().flatten()
                {
                    let expiry = use_of.expiry(topic_id, committed.timestamp, retention);
                    if expiry.is_some_and(|expiry| expiry <= now) {
                        changes.push((OffsetKey { group: &group, topic_id, partition }.encode(), None));
                    } else {
                        left += 1;
                        swept.next = swept.next.into_iter().chain(expiry).min();
                    }
                }
                let members = match use_of {
                    Use::Empty(_) | Use::Outside if left == 0 => {
                        swept.forgotten.push(group.clone());
                        None
                    }
                    Use::Empty(since) => Some(Members { has_some: false, since }),
                    _ => written,
                };
                if members != written {
                    changes.push((Members::key(&group), members.map(Members::encode)));
                }
            }
            for some in changes.chunks(APPEND) {
                apply(tables, partition, Wait::For(log.engine.max_block), now, some)?;
            }
            Ok(swept)
        })
    }
}

/// How many changes are appended at a time where any number may come: all the keys of as many fit into one append.
const APPEND: usize = 1000;

/// What was found of the offsets that may expire.
#[derive(Default)]
pub(crate) struct Swept {
    /// Groups of which nothing is left.
    pub(crate) forgotten: Vec<String>,
    /// When the next offset expires, if nothing changes.
    pub(crate) next: Option<Timestamp>,
    /// Whether nothing was written down of any group.
    pub(crate) is_empty: bool,
}

type Change = (Vec<u8>, Option<Vec<u8>>);

/// Appends the changes, all or none, and applies them.
fn apply(
    tables: &mut Tables,
    partition: &PartitionCore,
    wait: Wait,
    timestamp: Timestamp,
    changes: &[Change],
) -> Result<()> {
    let records = changes.iter().map(|(key, value)| {
        let record = match value {
            Some(value) => Record::new(value).key(key),
            None => Record::tombstone(key),
        };
        record.timestamp(timestamp)
    });
    let records: Vec<Record<'_>> = records.collect();
    partition.append(&records, wait, None)?;
    changes.iter().try_for_each(|(key, value)| tables.apply(key, value.as_deref()))
}

fn load(partition: &PartitionCore) -> Result<Tables> {
    let mut tables = Tables::default();
    replay(partition, |key, value| tables.apply(key, value))?;
    Ok(tables)
}

/// Reads a whole internal partition: has `apply` called with key and value of each record.
pub(crate) fn replay(
    partition: &PartitionCore,
    mut apply: impl FnMut(&[u8], Option<&[u8]>) -> Result<()>,
) -> Result<()> {
    let end = partition.high_watermark();
    let mut cursor = Cursor::new(partition.start_offset());
    while let Some(run) = partition.fetch(&mut cursor, end, usize::MAX, usize::MAX)? {
        for frame in run.frames().filter(|frame| !frame.is_control()) {
            let key = frame.key().unwrap_or_default();
            apply(key, frame.value()).map_err(|e| at(e, &run.identity.tp).at_offset(frame.offset()))?;
        }
    }
    Ok(())
}

/// The error with the partition that it is about.
pub(crate) fn at(error: Error, tp: &TopicPartition) -> Error {
    error.with_partition(Arc::clone(&tp.topic), tp.partition())
}
