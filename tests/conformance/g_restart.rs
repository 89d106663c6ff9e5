//! Static members over a restart of the process (`group.instance.id`, `session.timeout.ms`).

use std::sync::Arc;
use std::time::Duration;

use crate::g::{kind, ms, named, numbers, settle, state};
use crate::o::poll;
use tapelog::clock::ManualClock;
use tapelog::consumer::GroupState::{Dead, Empty};
use tapelog::{Consumer, ConsumerGroup, ErrorKind, Log, Timestamp, TopicConfig};

/// The log of a process that ended, opened by the next one.
fn reopened(path: &std::path::Path, clock: &Arc<ManualClock>) -> (Log, ConsumerGroup) {
    let log = Log::builder().clock(Arc::clone(clock)).open(path).unwrap();
    let group = log.consumer_group("g").unwrap();
    (log, group)
}

fn end(log: Log) {
    log.close(Duration::from_secs(30)).unwrap();
}

/// Two members of four partitions who read the even and the odd ones, which no plan of a group that begins anew would say.
fn seated(path: &std::path::Path, clock: &Arc<ManualClock>) -> (Log, ConsumerGroup, [Consumer; 2]) {
    let (log, group) = reopened(path, clock);
    log.create_topic("t", TopicConfig::new().partitions(4)).unwrap();
    let mut i1 = named(&group, "i1").assignor(tapelog::assignor::RoundRobin).subscribe(["t"]).unwrap();
    let mut i2 = named(&group, "i2").assignor(tapelog::assignor::RoundRobin).subscribe(["t"]).unwrap();
    settle(&group, &mut [&mut i1, &mut i2]);
    assert_eq!((numbers(&i1), numbers(&i2)), (vec![0, 2], vec![1, 3]));
    (log, group, [i1, i2])
}

#[test]
fn g_13_static_members_go_on_after_a_restart_of_the_process() {
    for killed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let (log, _, members) = seated(dir.path(), &clock);
        if killed {
            // The log hears nothing of the end of its consumers.
            end(log);
            drop(members);
            clock.advance(ms(3_600_000));
        } else {
            drop(members);
            end(log);
            clock.advance(ms(9_000));
        }

        let (log, group) = reopened(dir.path(), &clock);
        let waiting = group.describe().unwrap();
        assert!(waiting.members.iter().all(|member| member.away && member.assignment.len() == 2));
        assert_eq!(kind(group.delete()), ErrorKind::GroupNotEmpty);
        // Who comes first does not get everything.
        let mut i2 = named(&group, "i2").subscribe(["t"]).unwrap();
        poll(&mut i2);
        assert_eq!(numbers(&i2), [1, 3]);
        clock.advance(ms(999));
        let mut i1 = named(&group, "i1").subscribe(["t"]).unwrap();
        poll(&mut i1);
        poll(&mut i2);
        assert_eq!((numbers(&i1), numbers(&i2)), (vec![0, 2], vec![1, 3]));
        assert!(group.describe().unwrap().members.iter().all(|member| !member.away));
        end(log);
    }
}

#[test]
fn g_13_a_static_member_that_stays_away_after_a_restart_loses_its_seat() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let (log, _, members) = seated(dir.path(), &clock);
    end(log);
    drop(members);

    // Of those that died with their process the time begins now.
    let (log, group) = reopened(dir.path(), &clock);
    let mut i2 = named(&group, "i2").subscribe(["t"]).unwrap();
    poll(&mut i2);
    clock.advance(ms(9_999));
    poll(&mut i2);
    assert_eq!(numbers(&i2), [1, 3]);
    clock.advance(ms(1));
    settle(&group, &mut [&mut i2]);
    assert_eq!(numbers(&i2), [0, 1, 2, 3]);
    drop(i2);
    end(log);

    // Of one that was closed it began there, process or not.
    clock.advance(ms(10_000));
    let (log, group) = reopened(dir.path(), &clock);
    assert_eq!(state(&group).0, Empty);
    let mut i3 = named(&group, "i3").subscribe(["t"]).unwrap();
    settle(&group, &mut [&mut i3]);
    assert_eq!(numbers(&i3), [0, 1, 2, 3]);
    // To unsubscribe leaves nothing behind.
    i3.unsubscribe().unwrap();
    end(log);
    let (log, group) = reopened(dir.path(), &clock);
    assert_eq!((state(&group).0, group.describe().unwrap().members.len()), (Dead, 0));
    end(log);
}

#[test]
fn g_13_a_restart_finds_no_seat_in_a_topic_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let (log, _, members) = seated(dir.path(), &clock);
    drop(members);
    log.delete_topic("t").unwrap();
    log.create_topic("t", TopicConfig::new()).unwrap();
    end(log);
    let (log, group) = reopened(dir.path(), &clock);
    assert!(group.describe().unwrap().members.iter().all(|member| member.assignment.is_empty()));
    let mut i2 = named(&group, "i2").assignor(tapelog::assignor::Range).subscribe(["t"]).unwrap();
    poll(&mut i2);
    let mut i1 = named(&group, "i1").assignor(tapelog::assignor::Range).subscribe(["t"]).unwrap();
    settle(&group, &mut [&mut i1, &mut i2]);
    assert_eq!(
        (numbers(&i1), numbers(&i2)),
        (vec![0], vec![]),
        "another topic, another plan, as those who came say"
    );
    end(log);
}
