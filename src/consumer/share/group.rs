//! Share groups: their members, their settings, and the partitions that they work on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use crate::consumer::committed::replay;
use crate::consumer::options::OffsetReset;
use crate::consumer::share::options::ShareConfig;
use crate::consumer::share::part::{Part, write, write_record};
use crate::consumer::share::state::{Machine, MemberId};
use crate::consumer::share::stored::{Saved, StateKey, StateTable, config_key, encode_config};
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{SHARE_GROUP_STATE, is_internal};
use crate::log::core::LogCore;
use crate::partition::core::PartitionCore;

/// All share groups of a log.
#[derive(Default)]
pub(crate) struct Shares {
    /// What the log says of groups that nobody has asked for yet; read on first use.
    stored: Mutex<Option<StateTable>>,
    /// Never shrinks, so that two handles of one name always mean the same group.
    groups: Mutex<HashMap<String, Arc<Group>>>,
    members: AtomicU64,
}

/// Topic id and partition.
pub(crate) type Place = (u64, u32);

/// One share group. No lock of a partition is taken before that of its group is let go.
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    config: Mutex<Arc<ShareConfig>>,
    state: Mutex<Option<State>>,
}

#[derive(Default)]
struct State {
    /// What was saved of partitions that nobody has opened since.
    saved: BTreeMap<Place, Saved>,
    parts: BTreeMap<Place, Arc<Part>>,
    /// What each member subscribes to.
    members: BTreeMap<MemberId, BTreeSet<String>>,
}

impl Shares {
    pub(crate) fn group(&self, log: &LogCore, name: &str) -> Result<Arc<Group>> {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get(name) {
            return Ok(Arc::clone(group));
        }
        let config = self.stored(log, |table| table.take_config(name))?.unwrap_or_default();
        let config = Mutex::new(Arc::new(config));
        let group = Arc::new(Group { name: name.into(), config, state: Mutex::default() });
        groups.insert(name.to_owned(), Arc::clone(&group));
        Ok(group)
    }

    pub(crate) fn next_member(&self) -> MemberId {
        self.members.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Has `take` take out what the log says of a group.
    fn stored<T>(&self, log: &LogCore, take: impl FnOnce(&mut StateTable) -> T) -> Result<T> {
        let mut stored = self.stored.lock();
        let table = match &mut *stored {
            Some(table) => table,
            none => none.insert(load(log)?),
        };
        Ok(take(table))
    }
}

fn load(log: &LogCore) -> Result<StateTable> {
    let partition = log.topic(SHARE_GROUP_STATE)?.with_partition(0, Arc::clone)?;
    let mut table = StateTable::default();
    replay(&partition, |key, value| table.apply(key, value))?;
    Ok(table)
}

impl Group {
    pub(crate) fn config(&self) -> Arc<ShareConfig> {
        Arc::clone(&self.config.lock())
    }

    /// Changes the settings, for all members and at once.
    pub(crate) fn alter(&self, log: &LogCore, config: ShareConfig) -> Result<()> {
        config.check()?;
        if let Some(topic) = &config.letters {
            log.topic(topic)?;
            if is_internal(topic) || self.members().values().any(|topics| topics.contains(topic)) {
                let message = "a dead-letter topic is neither internal nor one that the group works on";
                return Err(Error::new(ErrorKind::InvalidConfig, message).with_topic(topic.as_str()));
            }
        }
        {
            let mut own = self.config.lock();
            let now = log.engine.clock.now();
            write_record(log, &config_key(&self.name), Some(&encode_config(&config)), now)?;
            *own = Arc::new(config.clone());
        }
        let parts: Vec<_> = match &*self.state.lock() {
            Some(state) => state.parts.values().cloned().collect(),
            None => Vec::new(),
        };
        parts.iter().for_each(|part| part.alter(&config));
        Ok(())
    }

    fn state(&self, log: &LogCore, shares: &Shares) -> Result<MappedMutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.is_none() {
            *state = Some(State {
                saved: shares.stored(log, |table| table.take(&self.name))?,
                ..State::default()
            });
        }
        Ok(MutexGuard::map(state, |state| state.get_or_insert_default()))
    }

    /// Adds a member, or changes what one subscribes to.
    pub(crate) fn join(
        &self,
        log: &LogCore,
        shares: &Shares,
        member: MemberId,
        topics: BTreeSet<String>,
    ) -> Result<()> {
        if let Some(letters) = self.config().letters.as_ref().filter(|letters| topics.contains(*letters)) {
            let message = "a group cannot work on its own dead-letter topic";
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_topic(letters.as_str()));
        }
        self.state(log, shares)?.members.insert(member, topics);
        Ok(())
    }

    pub(crate) fn leave(&self, member: MemberId) {
        if let Some(state) = &mut *self.state.lock() {
            state.members.remove(&member);
        }
    }

    /// The partitions of these topics, as far as they exist. `late`: topics that a member waited for are worked on
    /// from their start.
    pub(crate) fn open(
        &self,
        log: &LogCore,
        shares: &Shares,
        topics: &BTreeSet<String>,
        late: bool,
    ) -> Result<Vec<Arc<Part>>> {
        let config = self.config();
        let mut parts = Vec::new();
        let mut state = self.state(log, shares)?;
        state.parts.retain(|(id, _), _| log.topic_by_id(*id).is_some());
        for topic in topics.iter().filter_map(|topic| log.topic(topic).ok()) {
            let known = |(id, _): &Place| *id == topic.id;
            let known = late || state.parts.keys().chain(state.saved.keys()).any(known);
            for core in topic.partitions().iter() {
                parts.push(state.part(log, core, &config, known)?);
            }
        }
        drop(state);
        // Where a group begins survives it: it does not begin at another end after the next start.
        parts.iter().try_for_each(|part| part.save(log, &self.name))?;
        Ok(parts)
    }

    /// Everything that the group has worked on and that exists.
    pub(crate) fn known_parts(&self, log: &LogCore, shares: &Shares) -> Result<Vec<Arc<Part>>> {
        let config = self.config();
        let mut state = self.state(log, shares)?;
        let places: Vec<Place> = state.saved.keys().copied().collect();
        for (id, number) in places {
            if let Some(core) =
                log.topic_by_id(id).and_then(|topic| topic.with_partition(number, Arc::clone).ok())
            {
                state.part(log, &core, &config, true)?;
            }
        }
        Ok(state.parts.values().cloned().collect())
    }

    pub(crate) fn members(&self) -> BTreeMap<MemberId, BTreeSet<String>> {
        self.state.lock().as_ref().map(|state| state.members.clone()).unwrap_or_default()
    }

    /// Makes the group as if it had never been, but for its settings.
    pub(crate) fn delete(&self, log: &LogCore, shares: &Shares) -> Result<()> {
        let mut state = self.state(log, shares)?;
        if !state.members.is_empty() {
            let message = format!("share group {:?} has {} members", self.name, state.members.len());
            return Err(Error::new(ErrorKind::GroupNotEmpty, message));
        }
        let places: BTreeSet<Place> = state.parts.keys().chain(state.saved.keys()).copied().collect();
        if places.is_empty() {
            return Err(Error::new(ErrorKind::GroupIdNotFound, format!("no share group {:?}", self.name)));
        }
        for (topic_id, partition) in places {
            let key = StateKey { group: &self.name, topic_id, partition };
            write(log, key, None, log.engine.clock.now())?;
            state.parts.remove(&(topic_id, partition));
            state.saved.remove(&(topic_id, partition));
        }
        Ok(())
    }
}

impl State {
    fn part(
        &mut self,
        log: &LogCore,
        core: &Arc<PartitionCore>,
        config: &ShareConfig,
        known: bool,
    ) -> Result<Arc<Part>> {
        let place = (core.identity().topic_id, core.identity().tp.partition());
        if let Some(part) = self.parts.get(&place) {
            return Ok(Arc::clone(part));
        }
        let limits = config.limits();
        let machine = match self.saved.get(&place) {
            Some(saved) => {
                let log_end = core.high_watermark();
                Machine::restore(saved.start, saved.end, &saved.stretches, log_end, limits)
            }
            None if known => Machine::new(core.start_offset(), limits),
            None => Machine::new(first(log, core, config.reset)?, limits),
        };
        self.saved.remove(&place);
        let part = Part::new(Arc::clone(core), machine);
        self.parts.insert(place, Arc::clone(&part));
        Ok(part)
    }
}

/// Where a group begins in a partition that it has not seen.
fn first(log: &LogCore, core: &PartitionCore, reset: OffsetReset) -> Result<u64> {
    let end = core.high_watermark();
    Ok(match reset {
        OffsetReset::Earliest => core.start_offset(),
        OffsetReset::By(age) => {
            let oldest = log.engine.clock.now().saturating_sub(age);
            core.offset_for_time(oldest)?.map_or(end, |(offset, _)| offset)
        }
        OffsetReset::Latest | OffsetReset::None => end,
    })
}
