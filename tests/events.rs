//! What a log says unasked: to whom, when, how often, and what becomes of a listener that panics.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tapelog::admin::Event;
use tapelog::clock::ManualClock;
use tapelog::codec::CodecError;
use tapelog::{Codec, Compression, ConsumerGroup, Log, LogBuilder, Record, Timestamp, TopicConfig};

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(20);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A log that passes on what it tells.
fn heard() -> (LogBuilder, Receiver<Event>) {
    let (tell, told) = channel();
    (Log::builder().on_event(move |event| drop(tell.send(event.clone()))), told)
}

/// A log with a topic and a group, and a clock of its own.
fn timed() -> (Log, Arc<ManualClock>, ConsumerGroup, Receiver<Event>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let (builder, told) = heard();
    let log = builder.clock(clock.clone()).in_memory().unwrap();
    log.create_topic("t", TopicConfig::new()).unwrap();
    let group = log.consumer_group("g").unwrap();
    (log, clock, group, told)
}

/// A word for an event of a member, and how long it was silent.
fn silence(told: &Receiver<Event>) -> (&'static str, Duration) {
    match told.recv_timeout(SOON).unwrap() {
        Event::MemberLate { group, silent_for, .. } if group == "g" => ("late", silent_for),
        Event::MemberTimedOut { group, silent_for, .. } if group == "g" => ("timed out", silent_for),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_member_is_warned_of_once_in_each_silence_and_then_taken_out() {
    let (_log, clock, group, told) = timed();
    let mut member = group.consumer().max_poll_interval(ms(1000)).subscribe(["t"]).unwrap();
    member.poll(NOW).unwrap();
    // Half of it is not more than half: what is heard first is of a millisecond later.
    clock.advance(ms(500));
    assert!(!group.describe().unwrap().members[0].late);
    clock.advance(ms(1));
    assert_eq!(silence(&told), ("late", ms(501)));
    assert!(group.describe().unwrap().members[0].late);
    member.commit().unwrap();
    clock.advance(ms(400));
    member.poll(NOW).unwrap();
    clock.advance(ms(600));
    assert_eq!(silence(&told), ("late", ms(600)), "another silence");
    clock.advance(ms(399));
    group.describe().unwrap();
    clock.advance(ms(1));
    assert_eq!(silence(&told), ("timed out", ms(1000)), "and no second warning");
    assert_eq!(group.describe().unwrap().members.len(), 0);
    // Late for both at once: it is taken out.
    member.poll(NOW).unwrap();
    clock.advance(ms(5000));
    assert_eq!(silence(&told), ("timed out", ms(5000)));
}

#[test]
fn a_static_member_that_is_away_is_not_late() {
    let (_log, clock, group, told) = timed();
    let builder = group.consumer().instance_id("i").max_poll_interval(ms(100)).session_timeout(ms(1000));
    drop(builder.subscribe(["t"]).unwrap());
    clock.advance(ms(999));
    group.describe().unwrap();
    clock.advance(ms(1));
    assert_eq!(silence(&told), ("timed out", ms(1000)));
}

#[test]
fn a_consumer_that_is_replaced_is_told_of() {
    let (_log, _, group, told) = timed();
    let member = || group.consumer().instance_id("i").subscribe(["t"]).unwrap();
    drop(member());
    let _first = member(); // in place of one that had gone: nobody was fenced
    let _second = member();
    match told.recv_timeout(SOON).unwrap() {
        Event::MemberReplaced { group, instance_id, member, .. } => {
            assert_eq!((&*group, &*instance_id, &*member), ("g", "i", "member-00000001"));
        }
        other => panic!("{other:?}"),
    }
    assert!(told.try_recv().is_err(), "once");
}

struct Poison;

impl Codec for Poison {
    fn id(&self) -> u8 {
        130
    }

    fn name(&self) -> &str {
        "poison"
    }

    fn compress(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), CodecError> {
        panic!("poison");
    }

    fn decompress(&self, _: &[u8], _: &mut [u8]) -> Result<(), CodecError> {
        Err("poison".into())
    }
}

#[test]
fn a_codec_that_fails_is_told_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let (builder, told) = heard();
    let log = builder.codec(Poison).open(dir.path().join("log")).unwrap();
    let config = TopicConfig::new().compression(Compression::Custom(130)).block_linger(NOW);
    let partition = log.create_topic("t", config).unwrap().partition(0).unwrap();
    for offset in 0..3 {
        partition.append(Record::new("a")).unwrap();
        partition.wait_written(offset + 1, SOON).unwrap();
    }
    match told.recv_timeout(SOON).unwrap() {
        Event::CodecFailed { codec, reason, .. } => {
            assert_eq!((&*codec, &*reason), ("poison", "it panicked"))
        }
        other => panic!("{other:?}"),
    }
    log.close(SOON).unwrap();
    assert!(told.try_recv().is_err(), "once");
}

#[test]
fn what_an_open_sets_aside_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for place in [&one, &two] {
        let log = Log::open(place).unwrap();
        log.create_topic("t", TopicConfig::new())
            .unwrap()
            .partition(0)
            .unwrap()
            .append(Record::new("a"))
            .unwrap();
        log.close(SOON).unwrap();
    }
    // A folder of the one log among those of the other.
    let is_users = |path: &std::path::Path| !path.file_name().unwrap().to_string_lossy().starts_with("__");
    let mut folders = std::fs::read_dir(one.join("topics")).unwrap().map(|entry| entry.unwrap().path());
    let stranger = folders.find(|path| is_users(path)).unwrap();
    std::fs::rename(&stranger, two.join("topics").join(stranger.file_name().unwrap())).unwrap();
    let (builder, told) = heard();
    let log = builder.open(&two).unwrap();
    match told.recv_timeout(SOON).unwrap() {
        Event::Quarantined { kept_in, .. } => {
            assert_eq!(log.recovery_report().items[0].kept_in.as_ref(), Some(&kept_in));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_listener_that_panics_hears_what_comes_next() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let (tell, told) = channel();
    let log = Log::builder().clock(clock.clone()).on_event(move |event| {
        tell.send(event.clone()).unwrap();
        panic!("a listener's own");
    });
    let log = log.in_memory().unwrap();
    log.create_topic("t", TopicConfig::new()).unwrap();
    let group = log.consumer_group("g").unwrap();
    let _member = group.consumer().max_poll_interval(ms(1000)).subscribe(["t"]).unwrap();
    clock.advance(ms(600));
    assert_eq!(silence(&told), ("late", ms(600)));
    clock.advance(ms(400));
    assert_eq!(silence(&told), ("timed out", ms(1000)));
}

/// Groups are looked at and described from inside: no lock is held that this could want.
#[test]
fn a_listener_may_use_the_log() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let (tell, told) = channel();
    let place: Arc<std::sync::OnceLock<ConsumerGroup>> = Arc::default();
    let seen = Arc::clone(&place);
    let log = Log::builder().clock(clock.clone()).on_event(move |_| {
        let found = seen.get().unwrap().describe().unwrap();
        tell.send(found.members.len()).unwrap();
    });
    let log = log.in_memory().unwrap();
    log.create_topic("t", TopicConfig::new()).unwrap();
    let group = log.consumer_group("g").unwrap();
    assert!(place.set(group.clone()).is_ok());
    let _member = group.consumer().max_poll_interval(ms(1000)).subscribe(["t"]).unwrap();
    clock.advance(ms(600));
    assert_eq!(told.recv_timeout(SOON).unwrap(), 1);
    clock.advance(ms(400));
    assert_eq!(told.recv_timeout(SOON).unwrap(), 0);
}
