//! Seats of static members that outlive the process: taken from the log, and written there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Timestamp;
use crate::consumer::group::{Group, Member, Place};
use crate::consumer::groups::Groups;
use crate::consumer::options::Assignors;
use crate::consumer::seat::Seat;
use crate::consumer::stored_seats::{GroupSeats, StoredSeat};
use crate::consumer::subscription::Subscription;
use crate::error::Result;
use crate::log::core::LogCore;
use crate::topic_partition::TopicPartition;

impl Groups {
    /// Has the static members that the group had in an earlier process hold their seats, before anything is asked of it.
    ///
    /// # Errors
    /// What reading the records gives.
    pub(crate) fn revive(&self, log: &LogCore, group: &Group) -> Result<()> {
        if group.revived.load(Ordering::Acquire) {
            return Ok(());
        }
        let now = log.engine.clock.roughly_now();
        self.committed.seats(log, &group.name, |seats| group.revive(log, seats, || self.next_member(), now))
    }

    /// Writes down what has changed of the seats of static members.
    ///
    /// Where it cannot be written they are in memory, as all other members are: a restart takes them, and nobody who reads
    /// now has to stop for that.
    pub(crate) fn keep_seats(&self, log: &LogCore, group: &Group) {
        if group.has_static.load(Ordering::Acquire) {
            let _ = self.committed.keep_seats(log, &group.name, || group.seats());
        }
    }
}

impl Group {
    /// Gives seats to the static members that the log knows of, as if their consumers had been closed: those of which it
    /// knows that they were at that time, the others, whose process died, just now.
    fn revive(&self, log: &LogCore, seats: &GroupSeats, id: impl Fn() -> Arc<str>, now: Timestamp) {
        let mut state = self.state.lock();
        if self.revived.swap(true, Ordering::AcqRel) || seats.is_empty() {
            return;
        }
        self.has_static.store(true, Ordering::Release);
        for (name, stored) in seats {
            let (id, heard) = (id(), stored.closed.map_or(now, |closed| closed.min(now)));
            let place = |&(topic_id, number): &(u64, u32)| {
                let topic = log.topic_by_id(topic_id).filter(|topic| number < topic.partition_count())?;
                Some(Place { tp: TopicPartition::new(&*topic.name, number), topic_id })
            };
            let target: BTreeSet<Place> = stored.target.iter().filter_map(place).collect();
            state.owned.extend(target.iter().map(|place| (place.clone(), Arc::clone(&id))));
            let allowed = [stored.session_timeout; 2];
            let seat = Seat::new(Arc::clone(&id), Some(name.clone()), allowed, Arc::default(), heard);
            let (asked, assignors) = (Subscription::Topics(stored.topics.clone()), Assignors::default());
            let member = Member { seat, asked, assignors, away: true, revived: true, target };
            state.members.insert(id, member);
        }
        state.known = true;
        self.schedule(&state, now);
    }

    /// The seats of static members, as the next process is to find them.
    fn seats(&self) -> GroupSeats {
        let state = self.state.lock();
        let of = |member: &Member| {
            let stored = StoredSeat {
                closed: member.away.then(|| member.seat.heard()),
                session_timeout: member.seat.session_timeout,
                topics: member.asked.names(&state.topics).into_iter().collect(),
                target: member.target.iter().map(|place| (place.topic_id, place.tp.partition())).collect(),
            };
            Some((member.seat.instance_id.clone()?, stored))
        };
        state.members.values().filter_map(of).collect()
    }
}
