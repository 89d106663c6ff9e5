//! The partitions that a consumer reads: where it stands in each, whose turn it is, what to commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::consumer::backlog::Backlog;
use crate::consumer::committed::{Entry, at};
use crate::consumer::group::{Group, Place};
use crate::consumer::groups::Groups;
use crate::consumer::offsets::CommittedOffset;
use crate::consumer::options::{OffsetReset, Options};
use crate::consumer::progress::{Progress, Shown};
use crate::consumer::seat::{Fate, Seat};
use crate::error::{Error, ErrorKind, Result};
use crate::log::core::LogCore;
use crate::partition::core::PartitionCore;
use crate::partition::cursor::Cursor;
use crate::partition::event::Event;
use crate::partition::records::{ConsumerRecord, Records};
use crate::partition::watermarks::Signal;
use crate::topic_partition::TopicPartition;

/// One partition that is assigned to a consumer.
struct Part {
    core: Arc<PartitionCore>,
    /// Tells this stay of the partition with this consumer from all others.
    epoch: u64,
    cursor: Cursor,
    /// Whether the cursor stands where reading should go on; else that has to be found out yet.
    placed: bool,
    paused: bool,
    /// The topic was deleted, and nothing else took the partition away.
    gone: bool,
    /// What was last committed from here: an automatic commit writes only what has changed.
    committed: Option<u64>,
    /// What was looked at and left there, since it was not enough for a poll.
    ahead: Option<Ahead>,
    shown: Arc<Shown>,
}

/// Records that wait for more to come.
struct Ahead {
    from: u64,
    cursor: Cursor,
    records: usize,
    bytes: usize,
}

/// What a consumer reads and for whom it commits.
pub(crate) struct Reading {
    pub(crate) log: Arc<LogCore>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) group: Option<Arc<Group>>,
    /// While subscribed: the seat in the group.
    pub(crate) seat: Option<Arc<Seat>>,
    /// A listener asked for the end.
    pub(crate) closing: bool,
    pub(crate) options: Options,
    /// Sorted by topic and number.
    parts: Vec<Part>,
    /// Which part the next poll begins with.
    turn: usize,
    /// Whether some part is not placed.
    unplaced: bool,
    /// When an automatic commit was last made or tried.
    auto_committed: Timestamp,
    /// What other threads may see of this.
    pub(crate) progress: Arc<Progress>,
}

impl Part {
    fn tp(&self) -> &TopicPartition {
        &self.core.identity().tp
    }

    fn place(&self) -> Place {
        Place { tp: self.tp().clone(), topic_id: self.core.identity().topic_id }
    }

    fn position(&self) -> u64 {
        self.cursor.position()
    }

    fn seek(&mut self, offset: u64) {
        self.cursor.seek(offset);
        self.placed = true;
        self.show();
    }

    /// Tells who watches where reading goes on.
    fn show(&self) {
        self.shown.set((self.placed && !self.paused && !self.gone).then(|| self.position()));
    }

    /// How much there is to read, as far as that is below `bytes` and `records`; what was counted before is not looked at
    /// again.
    fn look_ahead(&mut self, options: &Options, records: usize, bytes: usize) -> Result<(usize, usize)> {
        let (from, limit) = (self.position(), self.limit(options));
        let ahead = self.ahead.take().filter(|ahead| ahead.from == from);
        let mut ahead =
            ahead.unwrap_or_else(|| Ahead { from, cursor: Cursor::new(from), records: 0, bytes: 0 });
        while ahead.records < records && ahead.bytes < bytes {
            let (records, bytes) = (records - ahead.records, bytes - ahead.bytes);
            let Some(run) = self.core.fetch(&mut ahead.cursor, limit, records, bytes)? else { break };
            ahead.records += run.count;
            ahead.bytes += run.bytes().len();
        }
        let found = (ahead.records, ahead.bytes);
        self.ahead = Some(ahead);
        Ok(found)
    }

    /// The first offset that must not be read (yet).
    fn limit(&self, options: &Options) -> u64 {
        let limit = self.core.high_watermark();
        if options.durable_only { limit.min(self.core.durable_offset()) } else { limit }
    }

    /// Goes where the reset policy says; fails with `why` where it says to fail.
    fn reset(&mut self, options: &Options, why: impl FnOnce(&Self) -> Error) -> Result<()> {
        let offset = match options.reset {
            OffsetReset::Earliest => self.core.start_offset(),
            OffsetReset::Latest => self.limit(options),
            OffsetReset::By(age) => {
                let oldest = self.core.engine().clock.now().saturating_sub(age);
                let found = self.core.offset_for_time(oldest)?;
                found.map_or_else(|| self.limit(options), |(offset, _)| offset)
            }
            OffsetReset::None => return Err(why(self)),
        };
        self.seek(offset);
        Ok(())
    }

    /// Whether there is nothing to do here, at the price of one load: of many partitions most are so.
    fn is_at_the_end(&self, options: &Options) -> bool {
        self.placed && !self.gone && self.position() == self.limit(options)
    }

    fn holds(&self, offset: u64) -> bool {
        (self.core.start_offset()..=self.core.high_watermark()).contains(&offset)
    }

    /// Whether records were lost that the commit covers, as a power cut takes them. Others may have their offsets now, which
    /// nobody has read.
    fn lost(&self, committed: &CommittedOffset, epoch: u32) -> Result<bool> {
        if committed.epoch >= epoch || committed.offset < self.core.start_offset() {
            return Ok(false);
        }
        let beyond = committed.offset > self.core.high_watermark();
        Ok(beyond || self.core.was_cut_off(committed.offset, committed.epoch, epoch)?)
    }

    fn out_of_range(&self, offset: u64) -> Error {
        let message = "the position is outside of what the partition holds";
        at(Error::new(ErrorKind::OffsetOutOfRange, message), self.tp())
            .at_offset(offset)
            .with_range(self.core.start_offset(), self.core.high_watermark())
    }

    /// Appends what there is to `records`; true where there may be more than may be taken.
    fn fill(&mut self, options: &Options, records: &mut Records, bytes: &mut usize) -> Result<bool> {
        self.ahead = None;
        let filled = self.fill_on(options, records, bytes);
        self.show();
        filled
    }

    fn fill_on(&mut self, options: &Options, records: &mut Records, bytes: &mut usize) -> Result<bool> {
        loop {
            let position = self.position();
            let limit = self.limit(options);
            if position >= limit && self.holds(position) {
                return Ok(false);
            }
            let room = options.max_records - records.len();
            if room == 0 || *bytes >= options.max_bytes {
                return Ok(true);
            }
            if !self.holds(position) {
                self.reset(options, |part| part.out_of_range(position))?;
                continue;
            }
            let fetched = self.core.fetch(&mut self.cursor, limit, room, options.max_bytes - *bytes);
            let mut run = match fetched {
                Ok(Some(run)) => run,
                Ok(None) => return Ok(false),
                // Deleted since it was looked at.
                Err(e) if e.kind() == ErrorKind::OffsetOutOfRange => continue,
                Err(e) => return Err(e),
            };
            let len = run.bytes().len();
            if !records.is_empty() && *bytes + len > options.max_bytes {
                // A single record that would exceed the limit: it comes first next time.
                self.cursor.seek(position);
                return Ok(true);
            }
            *bytes += len;
            run.assignment = self.epoch;
            records.push(run);
        }
    }

    /// Has `signal` rung when there is something to read; true where there is already.
    fn listen(&self, options: &Options, signal: &Arc<Signal>) -> Result<bool> {
        let position = self.ahead.as_ref().map_or(self.position(), |ahead| ahead.cursor.position());
        let heard = if options.durable_only {
            self.core.wait_for_durable(position, signal)
        } else {
            self.core.wait_for_records(position, signal)
        };
        heard.map_err(|e| at(e, self.tp()).at_offset(position))
    }
}

impl Reading {
    pub(crate) fn new(log: Arc<LogCore>, group: Option<Arc<Group>>, options: Options) -> Self {
        let auto_committed = options.auto_commit.map_or(Timestamp::MIN, |_| log.engine.clock.now());
        Reading {
            groups: Groups::of(&log),
            group,
            seat: None,
            closing: false,
            parts: Vec::new(),
            turn: 0,
            unplaced: false,
            auto_committed,
            progress: Arc::new(Progress::new(options.durable_only, &log.engine.clock)),
            log,
            options,
        }
    }

    // ---- which partitions ------------------------------------------------------------------------------

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(crate) fn assignment(&self) -> Vec<TopicPartition> {
        self.parts.iter().map(|part| part.tp().clone()).collect()
    }

    pub(crate) fn paused(&self) -> Vec<TopicPartition> {
        self.parts.iter().filter(|part| part.paused).map(|part| part.tp().clone()).collect()
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        self.parts.iter().map(Part::place).collect()
    }

    /// The partition itself, whoever reads it.
    pub(crate) fn resolve(&self, tp: &TopicPartition) -> Result<Arc<PartitionCore>> {
        self.log.topic(tp.topic())?.with_partition(tp.partition(), Arc::clone)
    }

    /// Whether the place is still there.
    pub(crate) fn exists(&self, place: &Place) -> bool {
        self.resolve(&place.tp).is_ok_and(|core| core.identity().topic_id == place.topic_id)
    }

    /// Begins to read partitions that are not among the parts.
    pub(crate) fn add(&mut self, cores: impl IntoIterator<Item = Arc<PartitionCore>>) {
        for core in cores {
            self.parts.push(Part {
                epoch: self.groups.next_epoch(),
                cursor: Cursor::new(0),
                placed: false,
                paused: false,
                gone: false,
                committed: None,
                ahead: None,
                shown: Arc::new(Shown::new(&core)),
                core,
            });
            self.unplaced = true;
        }
        self.parts.sort_by(|a, b| a.tp().cmp(b.tp()));
        self.show();
    }

    fn show(&self) {
        self.progress.set(self.parts.iter().map(|part| Arc::clone(&part.shown)).collect());
    }

    /// Stops reading all parts but those that `keep` keeps.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Place) -> bool) {
        self.parts.retain(|part| keep(&part.place()));
        self.show();
    }

    /// Marks the parts whose topic was deleted.
    pub(crate) fn find_gone(&mut self) {
        for at in 0..self.parts.len() {
            self.parts[at].gone = !self.exists(&self.parts[at].place());
            self.parts[at].show();
        }
    }

    fn find(&self, tp: &TopicPartition) -> Result<usize> {
        self.parts.binary_search_by(|part| part.tp().cmp(tp)).map_err(|_| {
            if let Some(seat) = self.seat.as_ref().filter(|seat| seat.fate() == Fate::Replaced) {
                return at(seat.refusal(), tp);
            }
            let message = format!("No current assignment for partition {tp}");
            at(Error::new(ErrorKind::IllegalState, message), tp)
        })
    }

    // ---- positions -------------------------------------------------------------------------------------

    pub(crate) fn seek(&mut self, tp: &TopicPartition, offset: u64) -> Result<()> {
        let part = self.find(tp)?;
        self.parts[part].seek(offset);
        Ok(())
    }

    /// Goes to where `target` says for each of the partitions, or nowhere.
    pub(crate) fn seek_all<'t>(
        &mut self,
        tps: impl IntoIterator<Item = &'t TopicPartition>,
        target: impl Fn(&PartitionCore, u64) -> Result<u64>,
    ) -> Result<()> {
        let mut seeks = Vec::new();
        for tp in tps {
            let part = self.find(tp)?;
            let limit = self.parts[part].limit(&self.options);
            seeks.push((part, target(&self.parts[part].core, limit)?));
        }
        seeks.into_iter().for_each(|(part, offset)| self.parts[part].seek(offset));
        Ok(())
    }

    /// Pauses or resumes each of the partitions, or none.
    pub(crate) fn set_paused<'t>(
        &mut self,
        tps: impl IntoIterator<Item = &'t TopicPartition>,
        paused: bool,
    ) -> Result<()> {
        let parts: Vec<usize> = tps.into_iter().map(|tp| self.find(tp)).collect::<Result<_>>()?;
        for part in parts {
            let part = &mut self.parts[part];
            part.paused = paused;
            if paused {
                // It may stay so for long: it pins nothing meanwhile.
                part.cursor.release();
                part.ahead = None;
            }
            part.show();
        }
        Ok(())
    }

    pub(crate) fn position(&mut self, tp: &TopicPartition) -> Result<u64> {
        let part = self.find(tp)?;
        self.place_part(part)?;
        Ok(self.parts[part].position())
    }

    /// How many offsets lie before the position, and after it.
    pub(crate) fn lead_and_lag(&mut self, tp: &TopicPartition) -> Result<(u64, u64)> {
        let position = self.position(tp)?;
        let part = &self.parts[self.find(tp)?];
        let (start, limit) = (part.core.start_offset(), part.limit(&self.options));
        Ok((position.saturating_sub(start), limit.saturating_sub(position)))
    }

    /// What lies after the position.
    pub(crate) fn backlog(&mut self, tp: &TopicPartition) -> Result<Backlog> {
        let position = self.position(tp)?;
        let part = &self.parts[self.find(tp)?];
        Backlog::of(&part.core, position, part.limit(&self.options))
    }

    /// Finds out where to begin: at what is committed, else where the reset policy says.
    fn place_part(&mut self, index: usize) -> Result<()> {
        let part = &mut self.parts[index];
        if part.placed {
            return Ok(());
        }
        let identity = part.core.identity();
        let committed = match &self.group {
            Some(group) => {
                let number = identity.tp.partition();
                self.groups.committed.get(&self.log, &group.name, identity.topic_id, number)?
            }
            None => None,
        };
        match committed {
            Some(committed) if part.lost(&committed, self.log.epoch)? => {
                if let Some(group) = &self.group {
                    let (group, partition) = (group.name.to_string(), part.tp().clone());
                    let event = Event::CommitTruncated { group, partition, offset: committed.offset };
                    self.log.engine.tell(event);
                }
                part.reset(&self.options, |part| part.out_of_range(committed.offset))
            }
            Some(committed) if part.holds(committed.offset) => {
                part.committed = Some(committed.offset);
                part.seek(committed.offset);
                Ok(())
            }
            Some(committed) => part.reset(&self.options, |part| part.out_of_range(committed.offset)),
            None => part.reset(&self.options, |part| {
                let message = "nothing is committed, and there is no reset policy";
                at(Error::new(ErrorKind::NoOffset, message), part.tp())
            }),
        }
    }

    // ---- reading ---------------------------------------------------------------------------------------

    /// Places what is not placed yet.
    fn place(&mut self) {
        if self.unplaced {
            // All of them now: "latest" means the moment at which a partition came, not that of its turn. What
            // fails is tried again, and told, in its turn.
            self.unplaced = false;
            for part in 0..self.parts.len() {
                self.unplaced |= self.place_part(part).is_err();
            }
        }
    }

    /// Whether there is as much as a poll that may wait returns for. Who is in trouble is to be heard at once.
    pub(crate) fn has_enough(&mut self) -> bool {
        if self.options.min_bytes <= 1 {
            return true;
        }
        self.place();
        let (mut records, mut bytes) = (0, 0);
        for part in self.parts.iter_mut().filter(|part| !part.paused) {
            if part.gone || !part.placed || !part.holds(part.position()) {
                return true;
            }
            let (most, enough) = (self.options.max_records - records, self.options.min_bytes - bytes);
            let Ok(found) = part.look_ahead(&self.options, most, enough) else { return true };
            (records, bytes) = (records + found.0, bytes + found.1);
            if records >= self.options.max_records || bytes >= self.options.min_bytes {
                return true;
            }
        }
        false
    }

    /// Fills `records`, which is empty, from all parts in turn.
    ///
    /// An error of a part is told once its turn comes and nothing was read before it; then the next part has
    /// the turn.
    pub(crate) fn fill(&mut self, records: &mut Records) -> Result<()> {
        self.place();
        let count = self.parts.len();
        let first = if self.turn < count { self.turn } else { 0 };
        let mut bytes = 0;
        for index in (first..count).chain(0..first) {
            let part = &self.parts[index];
            if part.paused || part.is_at_the_end(&self.options) {
                continue;
            }
            let before = records.len();
            match self.fill_from(index, records, &mut bytes) {
                Ok(false) => {}
                Ok(true) => {
                    // The poll ended here: with this part where it got nothing, the next begins.
                    self.turn = index + usize::from(records.len() > before);
                    return Ok(());
                }
                Err(_) if !records.is_empty() => {
                    self.turn = index;
                    return Ok(());
                }
                Err(e) => {
                    self.turn = index + 1;
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn fill_from(&mut self, index: usize, records: &mut Records, bytes: &mut usize) -> Result<bool> {
        if self.parts[index].gone {
            let part = &self.parts[index];
            let error = Error::new(ErrorKind::UnknownTopicOrPartition, "the topic was deleted");
            return Err(at(error, part.tp()).at_offset(part.position()));
        }
        self.place_part(index)?;
        self.parts[index].fill(&self.options, records, bytes)
    }

    /// Has `signal` rung when a part that is not paused gets something; true where one has already.
    pub(crate) fn listen(&mut self, signal: &Arc<Signal>) -> Result<bool> {
        for (index, part) in self.parts.iter().enumerate() {
            if part.paused || part.gone || !part.placed {
                continue;
            }
            match part.listen(&self.options, signal) {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(e) => {
                    self.turn = index + 1;
                    return Err(e);
                }
            }
        }
        Ok(false)
    }

    // ---- commits ---------------------------------------------------------------------------------------

    pub(crate) fn needs_group(&self) -> Result<&Arc<Group>> {
        self.group.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::InvalidGroupId, "the consumer has no group: take one from a ConsumerGroup")
        })
    }

    fn commit_entries(&mut self, entries: &[Entry]) -> Result<()> {
        self.log.engine.pool.origin().check()?;
        let group = self.needs_group()?;
        if let Some(seat) = self.seat.as_ref().filter(|seat| seat.fate() == Fate::Replaced) {
            return Err(seat.refusal());
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.groups.commit(&self.log, group, self.seat.as_ref(), entries)?;
        for entry in entries {
            if let Ok(part) = self.find(&entry.tp) {
                self.parts[part].committed = Some(entry.offset);
            }
        }
        Ok(())
    }

    /// Commits the positions of all parts.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let parts = self.parts.iter().filter(|part| part.placed && !part.gone);
        let entries: Vec<_> = parts.map(Part::entry).collect();
        self.commit_entries(&entries)
    }

    /// Where commits are automatic: commits positions that were not committed yet, of all parts or of some.
    pub(crate) fn auto_commit(&mut self, only: Option<&BTreeSet<&Place>>) -> Result<()> {
        if self.options.auto_commit.is_none() || self.group.is_none() {
            return Ok(());
        }
        self.auto_committed = self.log.engine.clock.now();
        let parts = self.parts.iter().filter(|part| part.is_uncommitted());
        let parts = parts.filter(|part| only.is_none_or(|only| only.contains(&part.place())));
        let entries: Vec<_> = parts.map(Part::entry).collect();
        self.commit_entries(&entries)
    }

    /// How long it is to the next automatic commit; `None` where none is to come.
    pub(crate) fn auto_commit_due(&self) -> Option<Duration> {
        let interval = self.options.auto_commit?;
        let due = self.auto_committed.saturating_add(interval).as_nanos();
        let left = due.saturating_sub(self.log.engine.clock.now().as_nanos());
        let left = Duration::from_nanos(u64::try_from(left).unwrap_or(0));
        self.parts.iter().any(Part::is_uncommitted).then_some(left)
    }

    /// Commits what comes after `record`, if it was read in this assignment.
    pub(crate) fn commit_record(&mut self, record: ConsumerRecord<'_>) -> Result<()> {
        self.needs_group()?;
        let identity = record.identity();
        let tp = &identity.tp;
        if let Some(seat) = self.seat.as_ref().filter(|seat| seat.fate() == Fate::Replaced) {
            return Err(at(seat.refusal(), tp));
        }
        let part = self.find(tp).ok().map(|part| &self.parts[part]);
        let same = part.is_some_and(|part| {
            part.epoch == record.assignment() && part.core.identity().topic_id == identity.topic_id
        });
        if !same {
            let message = "the record was not read in the consumer's present assignment";
            return Err(at(Error::new(ErrorKind::CommitFailed, message), tp).at_offset(record.offset()));
        }
        let (topic_id, offset) = (identity.topic_id, record.offset() + 1);
        self.commit_entries(&[Entry { topic_id, tp: tp.clone(), offset, metadata: None }])
    }

    /// Commits these offsets, all or none.
    pub(crate) fn commit_offsets(
        &mut self,
        offsets: impl IntoIterator<Item = (TopicPartition, u64, Option<String>)>,
    ) -> Result<()> {
        self.needs_group()?;
        let entries = offsets.into_iter().map(|(tp, offset, metadata)| {
            let topic_id = match self.find(&tp) {
                Ok(part) => self.parts[part].core.identity().topic_id,
                Err(_) => self.resolve(&tp)?.identity().topic_id,
            };
            Ok(Entry { topic_id, tp, offset, metadata })
        });
        let entries: Vec<_> = entries.collect::<Result<_>>()?;
        self.commit_entries(&entries)
    }

    /// What the group committed in the partition, and with what metadata.
    pub(crate) fn committed(&self, tp: &TopicPartition) -> Result<Option<(u64, Option<String>)>> {
        let group = self.needs_group()?;
        let topic_id = self.resolve(tp)?.identity().topic_id;
        let committed = self.groups.committed.get(&self.log, &group.name, topic_id, tp.partition())?;
        Ok(committed.map(|committed| (committed.offset, committed.metadata)))
    }
}

impl Part {
    fn entry(&self) -> Entry {
        let Place { tp, topic_id } = self.place();
        Entry { topic_id, tp, offset: self.position(), metadata: None }
    }

    fn is_uncommitted(&self) -> bool {
        self.placed && !self.gone && self.committed != Some(self.position())
    }
}
