//! A member's seat in its group, as the consumer and the coordinator share it: when it was heard last, and whether
//! it is still its own.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::consumer::progress::Progress;
use crate::error::{Error, ErrorKind};
use crate::partition::watermarks::Signal;

/// What `heard` says while the consumer is inside of a poll.
const INSIDE: i64 = i64::MAX;

/// What became of a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its consumer is a member.
    Seated = 0,
    /// Its consumer left.
    Left = 1,
    /// Its consumer was silent for too long.
    TimedOut = 2,
    /// Another consumer with the same instance id took it over.
    Replaced = 3,
}

/// One consumer's stay in its group. Whoever takes over the seat of a static member gets one with the same id.
pub(crate) struct Seat {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<String>,
    /// How long a consumer may be silent, and how long a static member may be away.
    pub(crate) max_poll_interval: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) signal: Arc<Signal>,
    heard: AtomicI64,
    /// What `heard` said when the user was last warned.
    warned: AtomicI64,
    /// What its consumer shows.
    progress: OnceLock<Arc<Progress>>,
    /// Written under the lock of the group.
    fate: AtomicU8,
}

impl Seat {
    pub(crate) fn new(
        id: Arc<str>,
        instance_id: Option<String>,
        [max_poll_interval, session_timeout]: [Duration; 2],
        signal: Arc<Signal>,
        now: Timestamp,
    ) -> Arc<Self> {
        let (heard, fate) = (AtomicI64::new(now.as_nanos()), AtomicU8::new(Fate::Seated as u8));
        Arc::new(Seat {
            id,
            instance_id,
            max_poll_interval,
            session_timeout,
            signal,
            heard,
            warned: AtomicI64::new(INSIDE),
            progress: OnceLock::new(),
            fate,
        })
    }

    /// Says where to look how far the consumer has come.
    pub(crate) fn show(&self, progress: &Arc<Progress>) {
        self.progress.get_or_init(|| Arc::clone(progress));
    }

    /// How long the consumer has been without records though there are some.
    pub(crate) fn starved_for(&self, now: Timestamp) -> Option<Duration> {
        self.progress.get()?.starved_for(now)
    }

    /// The consumer is inside of a poll: it is not silent, however long that takes.
    pub(crate) fn enter(&self) {
        self.heard.store(INSIDE, Ordering::Release);
    }

    /// The poll is over.
    pub(crate) fn exit(&self, now: Timestamp) {
        self.heard.store(now.as_nanos(), Ordering::Release);
    }

    /// The consumer has committed, maybe from inside of a poll.
    pub(crate) fn hear(&self, now: Timestamp) {
        if self.heard.load(Ordering::Acquire) != INSIDE {
            self.exit(now);
        }
    }

    /// When the consumer was heard last.
    pub(crate) fn heard(&self) -> Timestamp {
        Timestamp::from_nanos(self.heard.load(Ordering::Acquire))
    }

    /// For how long nothing was heard.
    pub(crate) fn silent_for(&self, now: Timestamp) -> Duration {
        // A consumer that is inside of a poll was heard later than now.
        let silent = now.as_nanos().saturating_sub(self.heard.load(Ordering::Acquire));
        Duration::from_nanos(u64::try_from(silent).unwrap_or(0))
    }

    /// When silence will have lasted for `allowed`, if nothing is heard from `now` on.
    pub(crate) fn due(&self, allowed: Duration, now: Timestamp) -> Timestamp {
        now.saturating_add(allowed.saturating_sub(self.silent_for(now)))
    }

    /// After how long a silence the user is warned.
    pub(crate) fn patience(&self) -> Duration {
        self.max_poll_interval / 2
    }

    /// When the user is to be warned, if nothing is heard from `now` on; `None` where that was done in this silence.
    pub(crate) fn warning_due(&self, now: Timestamp) -> Option<Timestamp> {
        let heard = self.heard.load(Ordering::Acquire);
        let is_done = heard != INSIDE && self.warned.load(Ordering::Acquire) == heard;
        (!is_done).then(|| self.due(self.patience().saturating_add(Duration::from_nanos(1)), now))
    }

    /// Whether the user is to be warned now: once for each silence.
    pub(crate) fn warns(&self, now: Timestamp) -> bool {
        let heard = self.heard.load(Ordering::Acquire);
        self.silent_for(now) > self.patience() && self.warned.swap(heard, Ordering::AcqRel) != heard
    }

    pub(crate) fn fate(&self) -> Fate {
        match self.fate.load(Ordering::Acquire) {
            0 => Fate::Seated,
            1 => Fate::Left,
            2 => Fate::TimedOut,
            _ => Fate::Replaced,
        }
    }

    /// Ends the stay, and wakes the consumer, if there is one, to see it.
    pub(crate) fn end(&self, fate: Fate) {
        self.fate.store(fate as u8, Ordering::Release);
        self.signal.ring();
    }

    /// Why the consumer of this seat can do nothing as a member any more.
    pub(crate) fn refusal(&self) -> Error {
        match self.fate() {
            Fate::Replaced => {
                let name = self.instance_id.as_deref().unwrap_or_default();
                let message = format!("another consumer with instance id {name:?} took this one's place");
                Error::new(ErrorKind::FencedInstanceId, message)
            }
            Fate::TimedOut => {
                let message = format!(
                    "{:?} neither polled nor committed for {:?}: it has left the group",
                    self.id, self.max_poll_interval
                );
                Error::new(ErrorKind::UnknownMemberId, message)
            }
            Fate::Left | Fate::Seated => {
                Error::new(ErrorKind::UnknownMemberId, format!("{:?} is not in the group", self.id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_end_of_a_poll() {
        let at = Timestamp::from_millis;
        let ms = Duration::from_millis;
        let seat = Seat::new("m".into(), None, [ms(1000), ms(2000)], Arc::default(), at(0));
        assert_eq!((seat.silent_for(at(300)), seat.due(ms(1000), at(300))), (ms(300), at(1000)));
        seat.enter();
        seat.hear(at(400));
        assert_eq!((seat.silent_for(at(90_000)), seat.due(ms(1000), at(90_000))), (ms(0), at(91_000)));
        seat.exit(at(90_000));
        seat.hear(at(90_100));
        assert_eq!(seat.silent_for(at(90_600)), ms(500));
        assert_eq!(seat.silent_for(at(5)), ms(0), "a clock that was set back");
        assert_eq!(seat.due(Duration::MAX, at(91_000)), Timestamp::MAX);
    }
}
