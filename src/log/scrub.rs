//! Looking at records that nobody reads, so that damage is known while there is somebody to ask.
//!
//! A job of the keeper: it reads the sealed segments one after another, a few blocks at a time, rests as long as the rate asks
//! for, and begins again when all were read, an hour after the last beginning at the earliest. It changes nothing, and holds
//! no lock that anybody else wants.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::codec::Codecs;
use crate::error::{Error, ErrorKind};
use crate::log::core::LogCore;
use crate::log::keeper::Job;
use crate::partition::core::PartitionCore;
use crate::partition::event::Event;
use crate::segment::format::HEADER;
use crate::segment::reader::Segment;

/// About so much is read at a time: other jobs of the keeper wait meanwhile.
const STEP: u64 = 256 * 1024;
/// From one beginning to the next it takes so long at least.
const ROUND: Duration = Duration::from_secs(3_600);
/// So many damaged blocks are remembered, so that each is told once.
const TOLD: usize = 10_000;

/// Where a block is: topic id, partition, base offset of the segment, position in it.
type Place = (u64, u32, u64, u64);

/// Reads everything again and again.
pub(crate) struct Scrub {
    log: Weak<LogCore>,
    /// Bytes in a second.
    rate: u64,
    state: Mutex<State>,
}

struct State {
    due: Timestamp,
    /// When the round began.
    began: Timestamp,
    next: Place,
    told: BTreeSet<Place>,
}

impl Scrub {
    /// Begins in an hour at the earliest, for opens have enough to read.
    pub(crate) fn begin(log: &Arc<LogCore>, rate: u64) -> Arc<Scrub> {
        let due = log.engine.clock.now().saturating_add(ROUND);
        let state = State { due, began: due, next: (0, 0, 0, 0), told: BTreeSet::new() };
        let scrub = Arc::new(Scrub { log: Arc::downgrade(log), rate: rate.max(1), state: Mutex::new(state) });
        let job: Arc<dyn Job> = Arc::clone(&scrub) as _;
        log.keeper.keep(Arc::downgrade(&job));
        scrub
    }
}

impl Job for Scrub {
    fn due(&self) -> Option<Timestamp> {
        Some(self.state.lock().due)
    }

    fn run(&self, now: Timestamp) {
        let Some(log) = self.log.upgrade() else { return };
        let mut state = self.state.lock();
        let Some((partition, segment, position)) = segment_at(&log, state.next) else {
            state.began = state.began.saturating_add(ROUND).max(now.saturating_add(Duration::from_nanos(1)));
            (state.due, state.next) = (state.began, (0, 0, 0, 0));
            return;
        };
        let identity = partition.identity();
        let (id, number, base) = (identity.topic_id, identity.tp.partition(), segment.base_offset());
        let seen = look(&segment, position, &log.engine.codecs);
        state.next = match seen.next {
            Some(position) => (id, number, base, position),
            None => (id, number, base + 1, 0),
        };
        // A nanosecond at least: what is due next lies behind now.
        let nanos = seen.bytes.saturating_mul(1_000_000_000) / self.rate;
        state.due = now.saturating_add(Duration::from_nanos(nanos.max(1)));
        if let Some((at, error)) = seen.damage
            && state.told.len() < TOLD
            && state.told.insert((id, number, base, at))
        {
            let partition = identity.tp.clone();
            let error = error.with_partition(partition.topic(), number);
            log.engine.tell(Event::DamageFound { partition, error });
        }
    }
}

/// The first sealed segment that has blocks at `place` or behind it, and where to go on in it.
fn segment_at(log: &LogCore, place: Place) -> Option<(Arc<PartitionCore>, Arc<Segment>, u64)> {
    let topics = log.topics();
    let partitions = topics.iter().flat_map(|topic| topic.partitions().to_vec());
    let key = |p: &PartitionCore| (p.identity().topic_id, p.identity().tp.partition());
    let mut behind: Vec<_> = partitions.filter(|p| key(p) >= (place.0, place.1)).collect();
    behind.sort_by_key(|p| key(p));
    behind.into_iter().find_map(|partition| {
        let from = if key(&partition) == (place.0, place.1) { place.2 } else { 0 };
        let segment = partition.sealed_segments().into_iter().find(|s| s.base_offset() >= from)?;
        let goes_on = (key(&partition), segment.base_offset()) == ((place.0, place.1), place.2);
        let position = if goes_on { place.3.max(HEADER as u64) } else { HEADER as u64 };
        Some((partition, segment, position))
    })
}

struct Seen {
    bytes: u64,
    /// Where to go on in this segment; `None` at its end.
    next: Option<u64>,
    damage: Option<(u64, Error)>,
}

/// Reads blocks from `position` on until it is enough, or one of them cannot be read.
fn look(segment: &Segment, position: u64, codecs: &Codecs) -> Seen {
    let mut at = position;
    while at - position < STEP {
        match segment.read(at, codecs) {
            Ok(Some((_, next))) => at = next,
            Ok(None) => return Seen { bytes: at - position, next: None, damage: None },
            Err(error) => {
                let next = segment.skip(at).unwrap_or(None);
                // Its checksum is right; only nobody here can unpack it.
                let is_sound = error.kind() == ErrorKind::UnsupportedCompressionType;
                let bytes = next.unwrap_or(at).saturating_sub(position).max(STEP);
                return Seen { bytes, next, damage: (!is_sound).then_some((at, error)) };
            }
        }
    }
    Seen { bytes: at - position, next: Some(at), damage: None }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::log::catalog::TopicConfig;
    use crate::log::opening::LogBuilder;
    use crate::record::Record;

    /// Bits that flip in records that nobody reads are found, each told once, and appends go on beside it.
    #[test]
    fn finds_what_nobody_reads() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let builder = LogBuilder::default().memory_budget(1 << 20).clock(Arc::clone(&clock)).scrub(1 << 20);
        let builder = builder.on_event(move |event| {
            if let Event::DamageFound { partition, error } = event {
                let _ = tell.lock().send((partition.clone(), error.clone()));
            }
        });
        let log = builder.open(dir.path()).unwrap();
        let config = TopicConfig::new().segment_bytes(1_000).block_linger(Duration::ZERO);
        let topics = ["a", "b"].map(|name| log.create_topic(name, config.clone()).unwrap());
        let partitions = topics.each_ref().map(|topic| topic.partition(0).unwrap());
        let append = || {
            for partition in &partitions {
                partition.append(Record::new(&[7; 300])).unwrap();
                partition.wait_written(partition.end_offset(), Duration::MAX).unwrap();
            }
        };
        (0..30).for_each(|_| append());
        let core = log.core.topic("b").unwrap().partitions()[0].clone();
        let sealed = core.sealed_segments();
        assert!(sealed.len() > 4);
        let (first, second) = (sealed[1].path(), sealed[3].path());
        for path in [first, second] {
            let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 300).unwrap();
            file.write_all_at(&[byte[0] ^ 4], 300).unwrap();
        }
        let begun = clock.now();
        let next = || loop {
            if let Ok(found) = told.try_recv() {
                return found;
            }
            append();
            clock.advance(Duration::from_secs(60));
        };
        for path in [first, second] {
            let (partition, error) = next();
            assert_eq!((partition.topic(), error.path()), ("b", Some(path)));
            assert!(error.is_corrupt() && error.offset().is_some(), "{error:?}");
        }
        assert!(clock.now().saturating_since(begun) >= ROUND, "it begins in an hour");
        // Round after round: nothing is told twice, and nothing else.
        let ends = clock.now().saturating_add(3 * ROUND);
        while clock.now() < ends {
            append();
            clock.advance(ROUND / 20);
        }
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn rests_as_long_as_the_rate_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
        let log =
            LogBuilder::default().memory_budget(1 << 20).clock(Arc::clone(&clock)).open(dir.path()).unwrap();
        let config = TopicConfig::new().segment_bytes(600_000).block_linger(Duration::ZERO);
        let partition = log.create_topic("t", config).unwrap().partition(0).unwrap();
        for _ in 0..20 {
            partition.append(Record::new(&[7; 60_000])).unwrap();
            partition.wait_written(partition.end_offset(), Duration::MAX).unwrap();
        }
        // By hand, without the keeper.
        let scrub = Scrub {
            log: Arc::downgrade(&log.core),
            rate: 1_000,
            state: Mutex::new(State {
                due: Timestamp::MIN,
                began: Timestamp::MIN,
                next: (0, 0, 0, 0),
                told: BTreeSet::new(),
            }),
        };
        let (mut now, mut steps, mut read) = (Timestamp::from_millis(0), 0, 0);
        let sealed: u64 =
            log.core.topic("t").unwrap().partitions()[0].sealed_segments().iter().map(|s| s.written()).sum();
        loop {
            scrub.run(now);
            let due = scrub.due().unwrap();
            assert!(due > now);
            if scrub.state.lock().next == (0, 0, 0, 0) {
                break;
            }
            read += due.saturating_since(now).as_millis() as u64;
            (now, steps) = (due, steps + 1);
        }
        assert!(steps > 2, "{steps}");
        assert!(read >= sealed - 10_000, "{read} of {sealed} at a byte for a millisecond");
    }
}
