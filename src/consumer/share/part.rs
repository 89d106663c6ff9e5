//! One partition as a share group works on it: the state machine with its lock, its readers, and who waits.
//!
//! Offsets are acquired under the lock and read after it: no file is touched, nothing waited for and no user's code run
//! while it is held. What turns out to be a hole is skipped, what could not be read is given back.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::consumer::share::letters::send;
use crate::consumer::share::options::ShareConfig;
use crate::consumer::share::state::{Acknowledge, Machine, MemberId, Stretch, Want};
use crate::consumer::share::stored::{Saved, StateKey};
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::SHARE_GROUP_STATE;
use crate::log::core::LogCore;
use crate::partition::core::{PartitionCore, Wait};
use crate::partition::cursor::Cursor;
use crate::partition::records::{Records, Run};
use crate::partition::watermarks::{Signal, register};
use crate::record::Record;

/// The machine of one partition and what belongs to it.
pub(crate) struct Part {
    pub(crate) core: Arc<PartitionCore>,
    inner: Mutex<Inner>,
    /// Held while the state is written, so that what is written last is what is newest. Never taken under `inner`.
    writing: Mutex<()>,
}

struct Inner {
    machine: Machine,
    /// Whom to wake when there is something to acquire.
    waiters: Vec<Arc<Signal>>,
    /// Whether the machine says something else than what was last written.
    unsaved: bool,
}

/// What a poll may still take, and what it took.
pub(crate) struct Haul<'a> {
    pub(crate) records: &'a mut Records,
    pub(crate) bytes: usize,
    pub(crate) max_records: usize,
    pub(crate) max_bytes: usize,
    /// Nothing more may join what is there.
    pub(crate) full: bool,
}

/// Records of one delivery that a member was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) deliveries: u16,
    /// How many the member has not settled itself.
    pub(crate) left: u64,
}

impl Part {
    pub(crate) fn new(core: Arc<PartitionCore>, machine: Machine) -> Arc<Self> {
        let inner = Inner { machine, waiters: Vec::new(), unsaved: true };
        Arc::new(Part { core, inner: Mutex::new(inner), writing: Mutex::new(()) })
    }

    /// Topic id and number.
    pub(crate) fn place(&self) -> (u64, u32) {
        let identity = self.core.identity();
        (identity.topic_id, identity.tp.partition())
    }

    fn now(&self) -> Timestamp {
        self.core.engine().clock.now()
    }

    /// Brings the machine up to date, has `change` say whether it changed anything, and wakes who can go on then.
    fn change<T>(&self, change: impl FnOnce(&mut Machine) -> (T, bool)) -> T {
        let mut inner = self.inner.lock();
        let moved = inner.machine.move_start(self.core.start_offset());
        let expired = inner.machine.expire(self.now());
        let (out, changed) = change(&mut inner.machine);
        if moved || expired || changed {
            inner.unsaved = true;
            if !inner.waiters.is_empty() && inner.machine.has_work(self.core.high_watermark()) {
                inner.waiters.drain(..).for_each(|waiter| waiter.ring());
            }
        }
        out
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        self.change(|machine| (look(machine), false))
    }

    pub(crate) fn alter(&self, config: &ShareConfig) {
        self.change(|machine| (machine.set_limits(config.limits()), true));
    }

    // ---- take ------------------------------------------------------------------------------------------

    /// Acquires and reads what there is, as far as `haul` has room.
    ///
    /// Fails with what is wrong where it reads; what was read before stands in `haul` and `held` all the same.
    pub(crate) fn take(
        &self,
        member: MemberId,
        config: &ShareConfig,
        cursor: &mut Cursor,
        haul: &mut Haul<'_>,
        held: &mut Vec<Held>,
    ) -> Result<()> {
        let want = Want {
            limit: self.core.high_watermark(),
            records: haul.max_records - haul.records.len(),
            alone: haul.records.is_empty(),
            until: self.now().saturating_add(config.lock),
        };
        let taken = self.change(|machine| {
            let taken = machine.acquire(member, want);
            let any = !taken.is_empty();
            (taken, any)
        });
        let mut taken = taken.into_iter();
        while let Some(stretch) = taken.next() {
            let read = self.read(member, stretch, cursor, haul, held);
            if read.is_err() || haul.full {
                taken.for_each(|rest| self.unread(member, rest.first, rest.last));
                return read;
            }
            haul.full = stretch.deliveries > 1 && stretch.deliveries >= config.deliveries;
        }
        haul.full |= haul.records.len() >= haul.max_records;
        Ok(())
    }

    fn read(
        &self,
        member: MemberId,
        stretch: Stretch,
        cursor: &mut Cursor,
        haul: &mut Haul<'_>,
        held: &mut Vec<Held>,
    ) -> Result<()> {
        let Stretch { first, last, deliveries, .. } = stretch;
        let mut left = 0;
        let mut to = last;
        let mut result = Ok(());
        cursor.seek(first);
        while cursor.position() <= last {
            let at = cursor.position();
            let room = haul.max_bytes.saturating_sub(haul.bytes);
            match self.core.fetch(cursor, last + 1, usize::MAX, room.max(1)) {
                Ok(Some(mut run)) if haul.records.is_empty() || run.bytes().len() <= room => {
                    self.skip_holes(member, &run, at, cursor.position());
                    haul.bytes += run.bytes().len();
                    left += run.count as u64;
                    run.assignment = u64::from(deliveries);
                    haul.records.push(run);
                }
                Ok(None) => {
                    self.skip(member, at, last);
                    break;
                }
                stopped => {
                    // No room, or no luck: the rest is somebody else's turn. Below the start it is gone, and no error.
                    self.unread(member, at, last);
                    haul.full = stopped.is_ok();
                    result = stopped.map(|_| ()).or_else(|error| {
                        let gone =
                            error.kind() == ErrorKind::OffsetOutOfRange && at < self.core.start_offset();
                        if gone { Ok(()) } else { Err(error) }
                    });
                    to = at.saturating_sub(1);
                    break;
                }
            }
        }
        if left > 0 {
            held.push(Held { first, last: to, deliveries, left });
        }
        result
    }

    /// Skips offsets of `from..to` that have no record in `run`.
    fn skip_holes(&self, member: MemberId, run: &Run, from: u64, to: u64) {
        if run.count as u64 == to - from {
            return;
        }
        let mut next = from;
        for frame in run.frames().filter(|frame| !frame.is_control()) {
            if frame.offset() > next {
                self.skip(member, next, frame.offset() - 1);
            }
            next = frame.offset() + 1;
        }
        if next < to {
            self.skip(member, next, to - 1);
        }
    }

    fn skip(&self, member: MemberId, first: u64, last: u64) {
        self.change(|machine| (machine.skip(member, first, last), true));
    }

    /// Gives back what was acquired and that nobody saw.
    pub(crate) fn unread(&self, member: MemberId, first: u64, last: u64) {
        self.change(|machine| (machine.unread(member, first, last), true));
    }

    // ---- settle ----------------------------------------------------------------------------------------

    /// Settles one record that the member holds.
    pub(crate) fn acknowledge(
        &self,
        member: MemberId,
        offset: u64,
        deliveries: u16,
        acknowledge: Acknowledge,
    ) -> Result<()> {
        let settled = self.change(|machine| {
            let settled = machine.acknowledge(member, offset, offset, deliveries, acknowledge);
            let changed = settled.is_ok();
            (settled, changed)
        });
        settled.map_err(|error| self.here(error))
    }

    /// Accepts what the member holds of that delivery still; tells how many records that were.
    pub(crate) fn accept_rest(&self, member: MemberId, held: &Held) -> u64 {
        self.change(|machine| {
            let accept = Acknowledge::Accept;
            let settled = machine.acknowledge_rest(member, held.first, held.last, held.deliveries, accept);
            (settled, settled > 0)
        })
    }

    /// Whether the member holds a record of that delivery still.
    pub(crate) fn holds(&self, member: MemberId, held: &Held) -> bool {
        self.look(|machine| machine.holds(member, held.first, held.last) > 0)
    }

    /// Frees what the member holds.
    pub(crate) fn leave(&self, member: MemberId) {
        self.change(|machine| {
            let any = machine.holds(member, 0, u64::MAX - 1) > 0;
            machine.leave(member);
            ((), any)
        });
    }

    // ---- keep ------------------------------------------------------------------------------------------

    /// Sends what was given up to the dead-letter topic; one member at a time has each record.
    pub(crate) fn bury(&self, log: &LogCore, group: &str, topic: Option<&str>) -> Result<()> {
        if !self.look(Machine::has_letters) {
            return Ok(());
        }
        let mut result = Ok(());
        for (stretch, reason) in self.change(|machine| (machine.take_letters(), true)) {
            let mut next = stretch.first;
            if let (Ok(()), Some(topic)) = (&result, topic) {
                result = send(log, group, topic, self, (stretch, reason), |offset| {
                    self.change(|machine| (machine.bury(next, offset, true), true));
                    next = offset + 1;
                });
            }
            let copied = result.is_ok();
            self.change(|machine| (machine.bury(next, stretch.last, copied), true));
        }
        result
    }

    /// Has the state survive this process, where it has changed.
    pub(crate) fn save(&self, log: &LogCore, group: &str) -> Result<()> {
        let _one_at_a_time = self.writing.lock();
        let value = {
            let mut inner = self.inner.lock();
            if !std::mem::take(&mut inner.unsaved) {
                return Ok(());
            }
            Saved::of(&inner.machine, log.epoch).encode()
        };
        let written = self.write(log, group, Some(&value));
        if written.is_err() {
            self.inner.lock().unsaved = true;
        }
        written
    }

    fn write(&self, log: &LogCore, group: &str, value: Option<&[u8]>) -> Result<()> {
        let (topic_id, partition) = self.place();
        write(log, StateKey { group, topic_id, partition }, value, self.now())
    }

    // ---- wait ------------------------------------------------------------------------------------------

    /// Has `signal` rung when there may be something to acquire; true where there is already.
    pub(crate) fn listen(&self, signal: &Arc<Signal>) -> Result<bool> {
        let limit = self.core.high_watermark();
        let end = {
            let mut inner = self.inner.lock();
            if inner.machine.has_work(limit) {
                return Ok(true);
            }
            register(&mut inner.waiters, signal);
            inner.machine.end()
        };
        // With the window full, records that come change nothing.
        if end < limit {
            Ok(false)
        } else {
            self.core.wait_for_records(end, signal).map_err(|e| self.here(e))
        }
    }

    /// How long it is to the end of the next lock; `None` where nobody holds any.
    pub(crate) fn next_expiry(&self) -> Option<std::time::Duration> {
        let until = self.inner.lock().machine.next_expiry()?.as_nanos();
        let left = until.saturating_sub(self.now().as_nanos());
        Some(std::time::Duration::from_nanos(u64::try_from(left).unwrap_or(0)))
    }

    fn here(&self, error: Error) -> Error {
        let tp = &self.core.identity().tp;
        error.with_partition(Arc::clone(&tp.topic), tp.partition())
    }
}

/// Writes the state of a partition, or forgets it.
pub(crate) fn write(log: &LogCore, key: StateKey<'_>, value: Option<&[u8]>, at: Timestamp) -> Result<()> {
    write_record(log, &key.encode(), value, at)
}

/// The same under any key.
pub(crate) fn write_record(log: &LogCore, key: &[u8], value: Option<&[u8]>, at: Timestamp) -> Result<()> {
    let record = match value {
        Some(value) => Record::new(value).key(key),
        None => Record::tombstone(key),
    };
    let partition = log.topic(SHARE_GROUP_STATE)?.with_partition(0, Arc::clone)?;
    partition.append(&[record.timestamp(at)], Wait::For(log.engine.max_block), None)?;
    Ok(())
}
