//! The groups of a log, and what the log keeps for them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::consumer::committed::{Committed, Entry};
use crate::consumer::expiry::Expiry;
use crate::consumer::group::Group;
use crate::consumer::options::Options;
use crate::consumer::seat::Seat;
use crate::consumer::share::group::Shares;
use crate::consumer::subscription::Subscription;
use crate::error::Result;
use crate::log::core::LogCore;
use crate::partition::watermarks::Signal;
use crate::partition::write_behind::Engine;

/// All groups of a log, and what they committed: kept in the log's slot for this floor.
pub(crate) struct Groups {
    engine: Arc<Engine>,
    pub(crate) committed: Committed,
    pub(crate) shares: Shares,
    /// Never shrinks, so that two handles of one name always mean the same group.
    groups: Mutex<HashMap<String, Arc<Group>>>,
    epochs: AtomicU64,
    members: AtomicU64,
    /// Where committed offsets expire: who sees to it.
    expiry: OnceLock<Option<Arc<Expiry>>>,
}

impl Groups {
    /// Those of `log`.
    pub(crate) fn of(log: &LogCore) -> Arc<Groups> {
        log.upper(|| Groups {
            engine: Arc::clone(&log.engine),
            committed: Committed::default(),
            shares: Shares::default(),
            groups: Mutex::default(),
            epochs: AtomicU64::default(),
            members: AtomicU64::default(),
            expiry: OnceLock::new(),
        })
    }

    /// The group called `name`.
    pub(crate) fn group(&self, name: &str) -> Arc<Group> {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get(name) {
            return Arc::clone(group);
        }
        let group = Arc::new(Group::new(name, &self.engine));
        groups.insert(name.to_owned(), Arc::clone(&group));
        group
    }

    /// The names of all groups that anybody has asked for, or of which anything is written down, in order.
    ///
    /// # Errors
    /// What reading the records gives.
    pub(crate) fn names(&self, log: &LogCore) -> Result<BTreeSet<String>> {
        let mut names = self.committed.names(log)?;
        names.extend(self.groups.lock().keys().cloned());
        Ok(names)
    }

    /// The group of that name, if anybody has asked for it.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Group>> {
        self.groups.lock().get(name).cloned()
    }

    /// Has offsets expire from now on, where the log says so.
    pub(crate) fn expire(&self, log: &Arc<LogCore>) {
        self.expiry.get_or_init(|| Expiry::begin(log));
    }

    fn expiry(&self) -> Option<&Arc<Expiry>> {
        self.expiry.get()?.as_ref()
    }

    /// Takes a new member into its group.
    ///
    /// # Errors
    /// Those of [`Group::join`]; what keeps it from being written down that the group has members.
    pub(crate) fn join(
        &self,
        log: &LogCore,
        group: &Group,
        options: &Options,
        asked: Subscription,
        signal: &Arc<Signal>,
    ) -> Result<Arc<Seat>> {
        let seat = group.join(self.next_member(), options, asked, signal, log.engine.clock.roughly_now())?;
        if self.expiry().is_some() {
            // Afterwards: from then on nothing can be written to the contrary.
            self.committed.note_members(log, &group.name).inspect_err(|_| self.leave(log, group, &seat))?;
        }
        Ok(seat)
    }

    /// Lets a member go.
    pub(crate) fn leave(&self, log: &LogCore, group: &Group, seat: &Arc<Seat>) {
        let now = log.engine.clock.roughly_now();
        group.leave(seat, now);
        if let Some(expiry) = self.expiry() {
            expiry.look_at(now);
        }
    }

    /// A number for one stay of a partition with one consumer; never 0, never given twice.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// An id for a member; ids sort in the order in which members come.
    pub(crate) fn next_member(&self) -> Arc<str> {
        format!("member-{:08}", self.members.fetch_add(1, Ordering::Relaxed) + 1).into()
    }

    /// Commits for a group: as one of its members, or from outside while it has none.
    pub(crate) fn commit(
        &self,
        log: &LogCore,
        group: &Group,
        seat: Option<&Arc<Seat>>,
        entries: &[Entry],
    ) -> Result<()> {
        let now = log.engine.clock.roughly_now();
        self.revive(log, group)?;
        group.look(now);
        self.committed.commit(log, &group.name, entries, || group.check_commit(seat, entries, now))?;
        if let Some(expiry) = self.expiry() {
            expiry.committed(now);
        }
        Ok(())
    }
}
