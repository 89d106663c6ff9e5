//! The end of committed offsets that nobody has a use for any more, where the log sets a time for them.
//!
//! As in Kafka since KIP-211: what a group committed stays while it has members, but for topics that none of them asks
//! for, and so long after it has become empty. What was committed without members, by a consumer that chose its
//! partitions itself, stays so long after the commit.
//!
//! Since when a group has been empty is written down beside the offsets. A process that ends takes the members along:
//! a group of which it is written that it has some is empty since the log was opened again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::consumer::group::Group;
use crate::consumer::groups::Groups;
use crate::consumer::offsets::Members;
use crate::log::core::LogCore;
use crate::log::keeper::Job;

/// How long it may take at most until somebody looks again: topics go out of use, and members of silence, without a word.
/// (Kafka: `offsets.retention.check.interval.ms`.)
const LOOK: Duration = Duration::from_secs(600);
const LOOK_MIN: Duration = Duration::from_secs(1);

/// What the offsets of a group are there for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Use {
    /// The group has members, and partitions move: nothing expires.
    Moving,
    /// It has members, and they read the topics with these ids.
    Reads(BTreeSet<u64>),
    /// It has had no members since.
    Empty(Timestamp),
    /// It never had any: offsets are committed from outside.
    Outside,
}

impl Use {
    /// What it is by what the group says, and by what is written down of its members.
    fn of(group: Option<&Group>, written: Option<Members>, now: Timestamp) -> Use {
        let (found, emptied) = group.map_or((None, None), Group::use_of_offsets);
        match (found, written) {
            (Some(found), _) => found,
            (None, None) => Use::Outside,
            (None, Some(Members { has_some: false, since })) => Use::Empty(since),
            // They went with their process, or this moment.
            (None, Some(_)) => Use::Empty(emptied.unwrap_or(now)),
        }
    }

    /// When an offset of the topic expires that was committed at `committed`; `None` while there is no end.
    pub(crate) fn expiry(
        &self,
        topic_id: u64,
        committed: Timestamp,
        retention: Duration,
    ) -> Option<Timestamp> {
        let from = match self {
            Use::Moving => return None,
            Use::Reads(topics) if topics.contains(&topic_id) => return None,
            Use::Reads(_) | Use::Outside => committed,
            // What was committed from outside since then has its time as well.
            Use::Empty(since) => committed.max(*since),
        };
        Some(from.saturating_add(retention))
    }
}

/// Has offsets expire.
pub(crate) struct Expiry {
    log: Weak<LogCore>,
    retention: Duration,
    due: AtomicI64,
}

impl Expiry {
    /// For a log that sets a time for them: from now on.
    pub(crate) fn begin(log: &Arc<LogCore>) -> Option<Arc<Expiry>> {
        let retention = log.offsets_retention?;
        let due = AtomicI64::new(Timestamp::MIN.as_nanos());
        let expiry = Arc::new(Expiry { log: Arc::downgrade(log), retention, due });
        expiry.wake();
        Some(expiry)
    }

    /// There is something to look at by then: an offset was committed at `now`, or a group has become empty.
    pub(crate) fn look_at(self: &Arc<Self>, when: Timestamp) {
        if self.due.fetch_min(when.as_nanos(), Ordering::AcqRel) > when.as_nanos() {
            self.wake();
        }
    }

    pub(crate) fn committed(self: &Arc<Self>, now: Timestamp) {
        self.look_at(now.saturating_add(self.retention));
    }

    fn wake(self: &Arc<Self>) {
        if let Some(log) = self.log.upgrade() {
            let job: Arc<dyn Job> = Arc::clone(self) as _;
            log.keeper.keep(Arc::downgrade(&job));
        }
    }
}

impl Job for Expiry {
    fn due(&self) -> Option<Timestamp> {
        let due = self.due.load(Ordering::Acquire);
        (due != i64::MAX).then(|| Timestamp::from_nanos(due))
    }

    fn run(&self, now: Timestamp) {
        let Some(log) = self.log.upgrade() else { return };
        let groups = Groups::of(&log);
        // First: what comes from now on may be due earlier than what is found here.
        let look = now.saturating_add(self.retention.clamp(LOOK_MIN, LOOK)).as_nanos();
        self.due.store(look, Ordering::Release);
        let use_of = |name: &str, written| Use::of(groups.find(name).as_deref(), written, now);
        // Where the disk is full, say, what has expired is found again at the next look.
        if let Ok(swept) = groups.committed.expire(&log, now, self.retention, use_of) {
            for name in swept.forgotten {
                if let Some(group) = groups.find(&name) {
                    let _ = group.forget(true); // unless somebody has joined it meanwhile
                }
            }
            match swept.next {
                Some(next) => drop(self.due.fetch_min(next.as_nanos(), Ordering::AcqRel)),
                None if swept.is_empty => {
                    // Nothing is committed at all: nobody need look before something is.
                    let _ = self.due.compare_exchange(look, i64::MAX, Ordering::AcqRel, Ordering::Acquire);
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::log::Log;
    use crate::log::catalog::TopicConfig;
    use crate::topic_partition::TopicPartition;

    /// The conditions of Kafka's `ClassicGroupTest.testOffsetExpirationCondition`, with its numbers.
    #[test]
    fn what_expires_when() {
        let at = Timestamp::from_millis;
        let retention = Duration::from_millis(10_000);
        let reads = Use::Reads(BTreeSet::from([1, 2]));
        let cases = [
            (Use::Outside, 1, Some(30_000)),
            (Use::Moving, 1, None),
            (reads.clone(), 1, None),
            (reads, 3, Some(30_000)),
            (Use::Empty(at(25_000)), 1, Some(35_000)),
            (Use::Empty(at(5_000)), 1, Some(30_000)),
        ];
        for (use_of, topic, expected) in cases {
            assert_eq!(use_of.expiry(topic, at(20_000), retention), expected.map(at), "{use_of:?}");
        }
        assert_eq!(Use::Outside.expiry(1, at(1), Duration::MAX), Some(Timestamp::MAX));
    }

    /// A process that dies takes its members along: what they committed would be gone with the first look after a quiet
    /// week, if the time counted from the commits.
    #[test]
    fn members_that_died_with_their_process_are_gone_since_the_open() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(20_000)));
        let open = || {
            let builder = Log::builder().clock(Arc::clone(&clock)).offsets_retention(Duration::from_secs(10));
            builder.open(dir.path().join("log")).unwrap()
        };
        let place = TopicPartition::new("t", 0);
        let log = open();
        log.create_topic("t", TopicConfig::new()).unwrap();
        let mut alive = log.consumer_group("alive").unwrap().subscribe(["t"]).unwrap();
        alive.poll(Duration::ZERO).unwrap();
        alive.commit().unwrap();
        let mut outside = log.consumer_group("outside").unwrap().consumer().assign([place.clone()]).unwrap();
        outside.seek(&place, 0).unwrap();
        outside.commit().unwrap();
        log.core.crash();
        drop((alive, outside, log));

        clock.advance(Duration::from_secs(60));
        let log = open();
        let committed = |group: &str| log.consumer_group(group).unwrap().committed(&place).unwrap();
        let until_gone = |group: &str| {
            while committed(group).is_some() {
                std::thread::yield_now();
            }
        };
        until_gone("outside");
        assert_eq!(committed("alive"), Some(0));
        clock.advance(Duration::from_secs(10));
        until_gone("alive");
    }
}
