//! What a share group has done with the records of one partition: a pure state machine, no files, no clock.
//! (Kafka: `SharePartition`.)
//!
//! ```text
//!                 acquire                accept
//!   Available ───────────────► Acquired ───────────────► Acknowledged
//!       ▲                       │ │ │
//!       └── release, expire ────┘ │ └── reject, or release and expire at the last delivery ──┐
//!                                 │                                                           ▼
//!                                 └── below the log's start ──► Archived ◄── buried ── Archiving
//! ```
//!
//! `Archiving` waits for its copy in the dead-letter topic; without one a record goes to `Archived` at once.
//! Offsets stand in *stretches* that share one state. What is finished falls off at the front:
//!
//! ```text
//!   start          next fetch                end
//!   ├── acquired ──┼── available ── acked ───┼── never acquired ─ ─ ─
//!   └────────── at most `window` offsets ────┘
//! ```

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// A member of the group; never given twice while the log is open.
pub(crate) type MemberId = u64;

/// What becomes of a record that was delivered. (Kafka: `AcknowledgeType`.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Acknowledge {
    /// It is done.
    Accept,
    /// Somebody should try again, this member perhaps: what went wrong may pass.
    Release,
    /// Nobody should try again: it goes to the dead-letter topic, where there is one.
    Reject,
}

/// Why a record is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Rejected,
    Deliveries,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Available,
    Acquired {
        member: MemberId,
        until: Timestamp,
    },
    /// Given up; `taken` while somebody copies it to the dead-letter topic.
    Archiving {
        reason: Reason,
        taken: bool,
    },
    Acknowledged,
    Archived,
}

impl State {
    fn is_finished(self) -> bool {
        matches!(self, State::Acknowledged | State::Archived)
    }
}

/// Offsets, first to last, that share a state and a number of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) state: State,
    /// How often it was acquired.
    pub(crate) deliveries: u16,
}

impl Stretch {
    pub(crate) fn records(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// What bounds the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// After so many deliveries a record is given up.
    pub(crate) deliveries: u16,
    /// The most offsets from the first unfinished one to the last acquired.
    pub(crate) window: u64,
    /// Whether what is given up waits for a dead-letter topic.
    pub(crate) letters: bool,
}

/// What a member may take at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    /// The first offset that must not be read (yet).
    pub(crate) limit: u64,
    pub(crate) records: usize,
    /// Whether the member holds nothing else: only then does it get a record on its last delivery.
    pub(crate) alone: bool,
    /// When the lock ends.
    pub(crate) until: Timestamp,
}

/// The records of one partition, for one group.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    limits: Limits,
    /// By first offset; none overlap. Those below `start` are finished, or acquired still.
    stretches: BTreeMap<u64, Body>,
    /// The first offset of the log.
    floor: u64,
    /// The first offset never acquired.
    end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Body {
    last: u64,
    state: State,
    deliveries: u16,
}

impl Machine {
    /// Nothing acquired yet; the first record to acquire is at `start`.
    pub(crate) fn new(start: u64, limits: Limits) -> Self {
        Machine { limits, stretches: BTreeMap::new(), floor: start, end: start }
    }

    /// What was saved: offsets below `end` that no stretch tells of are finished. Nothing is acquired by anybody;
    /// what lies at or beyond `log_end` was lost with the log's records.
    pub(crate) fn restore(start: u64, end: u64, saved: &[Stretch], log_end: u64, limits: Limits) -> Self {
        let start = start.min(log_end);
        let end = end.clamp(start, log_end);
        let mut machine = Machine { limits, stretches: BTreeMap::new(), floor: start, end };
        for stretch in saved.iter().filter(|s| s.first < end && s.first >= start) {
            let Stretch { first, last, state, deliveries } = *stretch;
            let state = match state {
                State::Available | State::Acquired { .. } => machine.freed(first, deliveries),
                State::Archiving { reason, .. } => machine.given_up(reason),
                finished => finished,
            };
            machine.stretches.insert(first, Body { last: last.min(end - 1), state, deliveries });
        }
        machine.advance();
        machine
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The first offset at or above the log's start that is not finished. (Kafka: share-partition start offset.)
    pub(crate) fn start(&self) -> u64 {
        let mut open = self.stretches.range(self.floor..).filter(|(_, b)| !b.state.is_finished());
        open.next().map_or(self.end, |(first, _)| *first)
    }

    /// The first offset that was never acquired.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The next offset that an acquisition gives: released or expired, else the end.
    #[cfg(test)]
    pub(crate) fn next_fetch(&self) -> u64 {
        self.stretches().find(|s| s.state == State::Available).map_or(self.end, |s| s.first)
    }

    /// All that is told of, in order.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = Stretch> {
        self.stretches.iter().map(|(first, b)| Stretch {
            first: *first,
            last: b.last,
            state: b.state,
            deliveries: b.deliveries,
        })
    }

    /// Where the record stands; `None` where it was never acquired, or fell off the front.
    #[cfg(test)]
    pub(crate) fn state(&self, offset: u64) -> Option<(State, u16)> {
        let (_, body) = self.stretches.range(..=offset).next_back()?;
        (body.last >= offset).then_some((body.state, body.deliveries))
    }

    /// Whether an acquisition would give anything; `limit` is the first offset that must not be read.
    pub(crate) fn has_work(&self, limit: u64) -> bool {
        self.end < limit.min(self.start().saturating_add(self.limits.window))
            || self.stretches.values().any(|b| b.state == State::Available)
    }

    /// When the next lock ends.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        let untils = self.stretches.values().filter_map(|b| match b.state {
            State::Acquired { until, .. } => Some(until),
            _ => None,
        });
        untils.min()
    }

    // ---- acquire ---------------------------------------------------------------------------------------

    /// Gives the member what is available, oldest first, then what was never acquired, within the window. A record on
    /// its last delivery comes alone, so that it takes nobody with it if it kills who processes it.
    pub(crate) fn acquire(&mut self, member: MemberId, want: Want) -> Vec<Stretch> {
        let mut taken: Vec<Stretch> = Vec::new();
        let mut room = want.records as u64;
        let state = State::Acquired { member, until: want.until };
        let available: Vec<Stretch> = self.stretches().filter(|s| s.state == State::Available).collect();
        for mut stretch in available {
            let last_chance = self.is_last_chance(stretch.deliveries);
            if room == 0 || (last_chance && !(want.alone && taken.is_empty())) {
                break;
            }
            let most = if last_chance { 1 } else { room };
            stretch.last = stretch.last.min(stretch.first + most - 1);
            (stretch.state, stretch.deliveries) = (state, stretch.deliveries.saturating_add(1));
            room -= stretch.records();
            self.set(stretch);
            taken.push(stretch);
            if last_chance {
                return taken;
            }
        }
        let blocked = self.stretches.values().any(|b| b.state == State::Available);
        let to = want.limit.min(self.start().saturating_add(self.limits.window));
        if room > 0 && !blocked && self.end < to {
            let last = (to - 1).min(self.end.saturating_add(room - 1));
            let stretch = Stretch { first: self.end, last, state, deliveries: 1 };
            self.end = last + 1;
            self.set(stretch);
            taken.push(stretch);
        }
        taken
    }

    /// Whether a record that was delivered so often, in vain, has one more delivery.
    fn is_last_chance(&self, deliveries: u16) -> bool {
        deliveries > 0 && deliveries.saturating_add(1) >= self.limits.deliveries
    }

    /// Takes back what the member got and nobody saw, as if it had not been acquired.
    pub(crate) fn unread(&mut self, member: MemberId, first: u64, last: u64) {
        for mut stretch in self.held(member, first, last) {
            stretch.deliveries -= 1;
            stretch.state = if stretch.last < self.floor { State::Archived } else { State::Available };
            self.set(stretch);
        }
        self.advance();
    }

    /// There are no records at these offsets.
    pub(crate) fn skip(&mut self, member: MemberId, first: u64, last: u64) {
        for stretch in self.held(member, first, last) {
            self.set(Stretch { state: State::Archived, ..stretch });
        }
        self.advance();
    }

    // ---- acknowledge -----------------------------------------------------------------------------------

    /// Settles what the member holds, all of it or nothing.
    ///
    /// Fails with `InvalidRecordState` where the member does not hold one of the records, or holds it by another
    /// delivery than `deliveries`.
    pub(crate) fn acknowledge(
        &mut self,
        member: MemberId,
        first: u64,
        last: u64,
        deliveries: u16,
        acknowledge: Acknowledge,
    ) -> Result<()> {
        let held = self.held(member, first, last);
        let mut next = first;
        for stretch in &held {
            if stretch.first != next || stretch.deliveries != deliveries {
                return Err(not_held(next));
            }
            next = stretch.last + 1;
        }
        if next != last + 1 {
            return Err(not_held(next));
        }
        for stretch in held {
            self.settle(stretch, acknowledge);
        }
        self.advance();
        Ok(())
    }

    /// Settles what the member holds of these offsets by that delivery, and tells how many records that were.
    pub(crate) fn acknowledge_rest(
        &mut self,
        member: MemberId,
        first: u64,
        last: u64,
        deliveries: u16,
        acknowledge: Acknowledge,
    ) -> u64 {
        let mut settled = 0;
        for stretch in self.held(member, first, last).into_iter().filter(|s| s.deliveries == deliveries) {
            self.settle(stretch, acknowledge);
            settled += stretch.records();
        }
        self.advance();
        settled
    }

    fn settle(&mut self, stretch: Stretch, acknowledge: Acknowledge) {
        let state = match acknowledge {
            Acknowledge::Accept => State::Acknowledged,
            Acknowledge::Release => return self.free(stretch),
            Acknowledge::Reject if stretch.last < self.floor => State::Archived,
            Acknowledge::Reject => self.given_up(Reason::Rejected),
        };
        self.set(Stretch { state, ..stretch });
    }

    /// How many records the member holds of these offsets.
    pub(crate) fn holds(&self, member: MemberId, first: u64, last: u64) -> u64 {
        let held = self.stretches().filter(|s| s.last >= first && s.first <= last);
        let held = held.filter(|s| is_held_by(s.state, member));
        held.map(|s| s.last.min(last) - s.first.max(first) + 1).sum()
    }

    /// Frees everything that the member holds.
    pub(crate) fn leave(&mut self, member: MemberId) {
        for stretch in self.held(member, 0, u64::MAX - 1) {
            self.free(stretch);
        }
        self.advance();
    }

    /// Frees what has been locked until now or longer ago; true where that is anything.
    pub(crate) fn expire(&mut self, now: Timestamp) -> bool {
        let due = |s: &Stretch| matches!(s.state, State::Acquired { until, .. } if until <= now);
        let due: Vec<Stretch> = self.stretches().filter(due).collect();
        due.iter().for_each(|stretch| self.free(*stretch));
        self.advance();
        !due.is_empty()
    }

    /// Makes the log begin at `offset`: what lies below is archived, but for what is acquired, whose lock still runs.
    pub(crate) fn move_start(&mut self, offset: u64) -> bool {
        if offset <= self.floor {
            return false;
        }
        self.floor = offset;
        self.end = self.end.max(offset);
        self.split(offset);
        let below = self.stretches().take_while(|s| s.first < offset);
        let below: Vec<Stretch> = below.filter(|s| !matches!(s.state, State::Acquired { .. })).collect();
        for stretch in below.into_iter().filter(|s| !s.state.is_finished()) {
            self.set(Stretch { state: State::Archived, ..stretch });
        }
        self.advance();
        true
    }

    // ---- dead letters ----------------------------------------------------------------------------------

    /// What waits to be copied to the dead-letter topic and nobody copies yet; it is the caller's now.
    pub(crate) fn take_letters(&mut self) -> Vec<(Stretch, Reason)> {
        let mut letters = Vec::new();
        for body in self.stretches().collect::<Vec<_>>() {
            if let State::Archiving { reason, taken: false } = body.state {
                self.set(Stretch { state: State::Archiving { reason, taken: true }, ..body });
                letters.push((body, reason));
            }
        }
        letters
    }

    /// Whether something waits to be copied.
    pub(crate) fn has_letters(&self) -> bool {
        self.stretches.values().any(|b| matches!(b.state, State::Archiving { taken: false, .. }))
    }

    /// What was taken has been copied, or not.
    pub(crate) fn bury(&mut self, first: u64, last: u64, copied: bool) {
        for stretch in self.cut(first, last) {
            if let State::Archiving { reason, taken: true } = stretch.state {
                let state = if copied { State::Archived } else { State::Archiving { reason, taken: false } };
                self.set(Stretch { state, ..stretch });
            }
        }
        self.advance();
    }

    // ---- within ----------------------------------------------------------------------------------------

    /// What a record becomes that nobody finished.
    fn freed(&self, first: u64, deliveries: u16) -> State {
        if first < self.floor {
            State::Archived
        } else if deliveries >= self.limits.deliveries {
            self.given_up(Reason::Deliveries)
        } else {
            State::Available
        }
    }

    fn given_up(&self, reason: Reason) -> State {
        if self.limits.letters { State::Archiving { reason, taken: false } } else { State::Archived }
    }

    fn free(&mut self, stretch: Stretch) {
        let state = self.freed(stretch.first, stretch.deliveries);
        self.set(Stretch { state, ..stretch });
    }

    fn held(&mut self, member: MemberId, first: u64, last: u64) -> Vec<Stretch> {
        let mut held = self.cut(first, last);
        held.retain(|s| is_held_by(s.state, member));
        held
    }

    /// The stretches from `first` to `last`, cut there; none reaches out of it, nor over the log's start.
    fn cut(&mut self, first: u64, last: u64) -> Vec<Stretch> {
        if first > last {
            return Vec::new();
        }
        self.split(first);
        self.split(last.saturating_add(1));
        let within = self.stretches.range(first..=last);
        let stretch = |(first, b): (&u64, &Body)| Stretch {
            first: *first,
            last: b.last,
            state: b.state,
            deliveries: b.deliveries,
        };
        within.map(stretch).collect()
    }

    /// Has a stretch begin at `offset`, if one lies across it.
    fn split(&mut self, offset: u64) {
        let Some((_, body)) = self.stretches.range_mut(..offset).next_back() else { return };
        if body.last >= offset {
            let rest = *body;
            body.last = offset - 1;
            self.stretches.insert(offset, rest);
        }
    }

    /// Puts the stretch in the place of what is there.
    fn set(&mut self, stretch: Stretch) {
        let Stretch { first, last, state, deliveries } = stretch;
        self.split(first);
        self.split(last.saturating_add(1));
        self.stretches.insert(first, Body { last, state, deliveries });
    }

    /// Lets go of what is finished at the front.
    fn advance(&mut self) {
        while let Some(front) = self.stretches.first_entry()
            && front.get().state.is_finished()
        {
            front.remove();
        }
    }
}

fn is_held_by(state: State, member: MemberId) -> bool {
    matches!(state, State::Acquired { member: holder, .. } if holder == member)
}

fn not_held(offset: u64) -> Error {
    let message = "the member does not hold the record (any longer)";
    Error::new(ErrorKind::InvalidRecordState, message).at_offset(offset)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
