//! Listeners that panic, sleep, commit, close or drop, in each of their calls: nothing hangs, and the error says what
//! happened.

#![allow(clippy::unwrap_used)] // helpers of tests may panic

use std::sync::Arc;
use std::time::Duration;

use tapelog::clock::ManualClock;
use tapelog::consumer::{GroupState, Rebalance};
use tapelog::{
    Consumer, ConsumerGroup, ErrorKind, Log, RebalanceListener, Record, Result, TopicConfig, TopicPartition,
};

const NOW: Duration = Duration::ZERO;
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Assigned,
    Revoked,
    Lost,
}

type Deed = Box<dyn FnMut(&mut Rebalance<'_>) -> Result<()> + Send>;

/// Does something when told of one kind of change.
struct Does(When, Deed);

impl Does {
    fn told(&mut self, when: When, rebalance: &mut Rebalance<'_>) -> Result<()> {
        if when == self.0 { self.1(rebalance) } else { Ok(()) }
    }
}

impl RebalanceListener for Does {
    fn on_assigned(&mut self, rebalance: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
        self.told(When::Assigned, rebalance)
    }

    fn on_revoked(&mut self, rebalance: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
        self.told(When::Revoked, rebalance)
    }

    fn on_lost(&mut self, rebalance: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
        self.told(When::Lost, rebalance)
    }
}

struct Scene {
    _log: Log,
    clock: Arc<ManualClock>,
    group: ConsumerGroup,
}

fn scene() -> Scene {
    let clock = Arc::new(ManualClock::default());
    let log = Log::builder().clock(clock.clone()).in_memory().unwrap();
    let topic = log.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    for number in 0..2 {
        topic.partition(number).unwrap().append(Record::new("tick")).unwrap();
    }
    let group = log.consumer_group("g").unwrap();
    Scene { _log: log, clock, group }
}

/// What the poll in which the listener is told gives; the consumer after it.
fn tell(scene: &Scene, when: When, deed: Deed) -> (Result<usize>, Consumer) {
    let builder = scene.group.consumer().max_poll_interval(INTERVAL).listener(Does(when, deed));
    let mut consumer = builder.subscribe(["t"]).unwrap();
    if when != When::Assigned {
        consumer.poll(NOW).unwrap();
    }
    let other = (when == When::Revoked).then(|| scene.group.subscribe(["t"]).unwrap());
    if when == When::Lost {
        scene.clock.advance(INTERVAL);
    }
    let polled = consumer.poll(NOW).map(|records| records.len());
    drop(other);
    (polled, consumer)
}

const ALL: [When; 3] = [When::Assigned, When::Revoked, When::Lost];

#[test]
fn one_that_panics_is_an_error_of_that_poll_alone() {
    for when in ALL {
        let scene = scene();
        let mut times = 0;
        let deed = move |_: &mut Rebalance<'_>| {
            times += 1;
            assert!(times > 1, "not today");
            Ok(())
        };
        let (polled, mut consumer) = tell(&scene, when, Box::new(deed));
        assert_eq!(polled.unwrap_err().kind(), ErrorKind::UserCode, "{when:?}");
        consumer.poll(NOW).unwrap();
        consumer.poll(NOW).unwrap();
        assert_eq!(consumer.assignment().len(), 2);
        consumer.commit().unwrap();
        assert_eq!(scene.group.describe().unwrap().state, GroupState::Stable);
        consumer.close().unwrap();
    }
}

#[test]
fn one_that_takes_its_time_keeps_its_place() {
    for when in ALL {
        let scene = scene();
        let clock = Arc::clone(&scene.clock);
        let deed = move |_: &mut Rebalance<'_>| {
            clock.advance(INTERVAL * 3);
            Ok(())
        };
        let (polled, mut consumer) = tell(&scene, when, Box::new(deed));
        polled.unwrap();
        consumer.commit().unwrap();
    }
}

#[test]
fn one_that_commits_is_told_whether_it_may() {
    for when in ALL {
        let scene = scene();
        let (polled, consumer) = tell(&scene, when, Box::new(|rebalance| rebalance.commit()));
        let expected = (when == When::Lost).then_some(ErrorKind::CommitFailed);
        assert_eq!(polled.err().map(|error| error.kind()), expected, "{when:?}");
        assert_eq!(consumer.assignment().is_empty(), when == When::Lost);
    }
}

#[test]
fn one_that_closes_ends_the_consumer_and_frees_its_partitions() {
    for when in ALL {
        let scene = scene();
        let deed = |rebalance: &mut Rebalance<'_>| {
            rebalance.close();
            Ok(())
        };
        let (polled, mut consumer) = tell(&scene, when, Box::new(deed));
        assert_eq!(polled.unwrap_err().kind(), ErrorKind::Closed, "{when:?}");
        assert!(consumer.assignment().is_empty());
        assert_eq!(consumer.poll(Duration::MAX).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(consumer.subscribe(["t"]).unwrap_err().kind(), ErrorKind::Closed);
        let mut next = scene.group.subscribe(["t"]).unwrap();
        next.poll(NOW).unwrap();
        assert_eq!(next.assignment().len(), 2);
        assert_eq!(scene.group.describe().unwrap().members.len(), 1);
        consumer.close().unwrap();
    }
}

#[test]
fn one_that_closes_and_fails_or_panics_is_closed_all_the_same() {
    for panics in [false, true] {
        let scene = scene();
        let deed = move |rebalance: &mut Rebalance<'_>| {
            rebalance.close();
            assert!(!panics, "and out");
            rebalance.seek(&TopicPartition::new("other", 0), 0)
        };
        let (polled, mut consumer) = tell(&scene, When::Assigned, Box::new(deed));
        let expected = if panics { ErrorKind::UserCode } else { ErrorKind::IllegalState };
        assert_eq!(polled.unwrap_err().kind(), expected);
        assert_eq!(consumer.poll(NOW).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(scene.group.describe().unwrap().state, GroupState::Empty);
    }
}

/// Locks that are held while user code runs show here: the listener goes through the same group, and the same log.
#[test]
fn one_that_drops_and_joins_others_of_its_group() {
    for when in ALL {
        let scene = scene();
        let group = scene.group.clone();
        let mut other = Some(group.subscribe(["elsewhere"]).unwrap());
        let deed = move |rebalance: &mut Rebalance<'_>| {
            drop(other.take());
            let mut another = group.subscribe(["t"])?;
            another.poll(NOW)?;
            group.describe()?;
            group.lag()?;
            let places = rebalance.assignment();
            places.iter().try_for_each(|place| rebalance.committed(place).map(drop))
        };
        let (polled, mut consumer) = tell(&scene, when, Box::new(deed));
        polled.unwrap();
        for _ in 0..2 {
            consumer.poll(NOW).unwrap();
        }
        assert_eq!(consumer.assignment().len(), 2, "{when:?}");
    }
}

/// What a callback of a commit does must not matter to anybody else.
#[test]
fn callbacks_of_commits_may_panic_or_drop_the_last_handle() {
    let scene = scene();
    let mut consumer = scene.group.subscribe(["t"]).unwrap();
    consumer.poll(NOW).unwrap();
    consumer.commit_async(|_| panic!("not today"));
    let (told, called) = std::sync::mpsc::channel();
    let group = scene.group.clone();
    let mut other = group.subscribe(["t"]).unwrap();
    other.poll(NOW).unwrap();
    consumer.commit_async(move |result| {
        drop(other);
        told.send((result.is_ok(), group.describe().unwrap().members.len())).unwrap();
    });
    assert_eq!(called.recv_timeout(Duration::from_secs(10)).unwrap(), (true, 1));
    consumer.poll(NOW).unwrap();
    consumer.close().unwrap();
}
