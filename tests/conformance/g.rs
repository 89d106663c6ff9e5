//! The state machine of a group: who joins, who is late, who comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::o::{NOW, log_with, poll, produce, tp};
use tapelog::assignor::{Range, RoundRobin, Sticky};
use tapelog::clock::ManualClock;
use tapelog::consumer::GroupState::{self, Assigning, Dead, Empty, Reconciling, Stable};
use tapelog::consumer::Rebalance;
use tapelog::{
    Consumer, ConsumerBuilder, ConsumerGroup, ErrorKind, Log, OffsetReset, RebalanceListener, Result,
    Timestamp, TopicConfig, TopicPartition,
};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A log whose time stands still, with a topic `t`, and its group.
fn timed(partitions: u32) -> (Log, Arc<ManualClock>, ConsumerGroup) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let log = Log::builder().clock(clock.clone()).in_memory().unwrap();
    let topic = log.create_topic("t", TopicConfig::new().partitions(partitions)).unwrap();
    produce(&topic.partition(0).unwrap(), 5);
    let group = log.consumer_group("g").unwrap();
    (log, clock, group)
}

pub(crate) fn numbers(consumer: &Consumer) -> Vec<u32> {
    consumer.assignment().iter().map(TopicPartition::partition).collect()
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

pub(crate) fn state(group: &ConsumerGroup) -> (GroupState, u32) {
    let found = group.describe().unwrap();
    (found.state, found.generation)
}

/// Polls both until neither has anything to do.
pub(crate) fn settle(group: &ConsumerGroup, members: &mut [&mut Consumer]) {
    for _ in 0..4 {
        members.iter_mut().for_each(|member| drop(member.poll(NOW).unwrap()));
    }
    assert_eq!(state(group).0, Stable);
}

/// What a listener is told, as "assigned", "revoked", "lost".
#[derive(Default, Clone)]
struct Told(Arc<Mutex<Vec<&'static str>>>);

impl Told {
    fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|told| **told == what).count()
    }
}

impl RebalanceListener for Told {
    fn on_assigned(&mut self, _: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
        self.0.lock().unwrap().push("assigned");
        Ok(())
    }

    fn on_revoked(&mut self, _: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
        self.0.lock().unwrap().push("revoked");
        Ok(())
    }

    fn on_lost(&mut self, _: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
        self.0.lock().unwrap().push("lost");
        Ok(())
    }
}

#[test]
fn g_01_legal_moves() {
    let all = [Dead, Empty, Assigning, Reconciling, Stable];
    let legal = [
        (Stable, Assigning),
        (Stable, Dead),
        (Assigning, Reconciling),
        (Reconciling, Stable),
        (Reconciling, Assigning),
        (Assigning, Empty),
        (Empty, Assigning),
        (Empty, Dead),
        (Dead, Dead),
        // Kafka allows the end from everywhere.
        (Assigning, Dead),
        (Reconciling, Dead),
    ];
    for (from, to) in all.into_iter().flat_map(|from| all.map(|to| (from, to))) {
        assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from:?} to {to:?}");
    }
}

#[test]
fn g_01_a_group_walks_through_its_states() {
    let (_log, _, group) = timed(2);
    assert_eq!(state(&group), (Dead, 0));
    let mut a = group.subscribe(["t"]).unwrap();
    assert_eq!(state(&group), (Assigning, 1));
    poll(&mut a);
    assert_eq!(state(&group), (Stable, 1));
    let mut b = group.subscribe(["t"]).unwrap();
    assert_eq!(state(&group), (Assigning, 2));
    poll(&mut b);
    assert_eq!(state(&group), (Reconciling, 2));
    settle(&group, &mut [&mut a, &mut b]);
    drop((a, b));
    assert_eq!(state(&group).0, Empty);
    group.delete().unwrap();
    assert_eq!(state(&group).0, Dead);
}

#[test]
fn g_03_generations() {
    let (_log, _, group) = timed(1);
    let mut a = group.subscribe(["t"]).unwrap();
    poll(&mut a);
    assert_eq!(state(&group).1, 1);
    let b = group.subscribe(["t"]).unwrap();
    assert_eq!(state(&group).1, 2);
    drop(b);
    assert_eq!(state(&group).1, 3);
    drop(a);
    assert_eq!(state(&group), (Empty, 4), "a group that becomes empty has a new one too");
}

#[test]
fn g_05_the_assignor_that_all_name_and_most_like_best() {
    let (_log, _, group) = timed(1);
    let name = || group.describe().unwrap().assignor;
    let _m1 = group.consumer().assignor(Range).assignor(RoundRobin).subscribe(["t"]).unwrap();
    assert_eq!(name(), "range");
    let _m2 = group.consumer().assignor(RoundRobin).assignor(Range).subscribe(["t"]).unwrap();
    assert!(["range", "roundrobin"].contains(&name().as_str()));
    let m3 = group.consumer().assignor(RoundRobin).assignor(Range).subscribe(["t"]).unwrap();
    assert_eq!(name(), "roundrobin");
    drop(m3);
    let generation = group.describe().unwrap().generation;
    for stranger in [group.consumer().assignor(Sticky), group.consumer()] {
        assert_eq!(kind(stranger.subscribe(["t"])), ErrorKind::InconsistentGroupProtocol);
    }
    assert_eq!(group.describe().unwrap().generation, generation, "nothing has happened");
    let _m4 = group.consumer().assignor(Sticky).assignor(Range).subscribe(["t"]).unwrap();
    assert_eq!(name(), "range", "the only one that all name");
}

#[test]
fn g_07_polls_and_commits_are_signs_of_life() {
    let (_log, clock, group) = timed(1);
    let member =
        || group.consumer().max_poll_interval(ms(1000)).max_poll_records(1).subscribe(["t"]).unwrap();
    let mut polls = member();
    poll(&mut polls);
    clock.advance(ms(500));
    poll(&mut polls);
    clock.advance(ms(600));
    poll(&mut polls);
    polls.commit().unwrap();
    assert_eq!(state(&group).1, 1);
    drop(polls);

    let mut commits = member();
    poll(&mut commits);
    clock.advance(ms(500));
    commits.commit().unwrap();
    clock.advance(ms(600));
    commits.commit().unwrap();
    assert_eq!(group.describe().unwrap().members[0].silent_for, NOW);
    clock.advance(ms(501));
    let seen = &group.describe().unwrap().members[0];
    assert_eq!((seen.silent_for, seen.late), (ms(501), true), "a warning");
    clock.advance(ms(599));
    assert_eq!(state(&group).0, Empty);
    let refused = commits.commit().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CommitFailed);
    assert!(refused.to_string().contains("UNKNOWN_MEMBER_ID"), "{refused}");
}

#[test]
fn g_09_who_is_silent_during_a_rebalance_is_left_behind() {
    let (log, clock, group) = timed(2);
    let member = || group.consumer().max_poll_interval(ms(1000));
    let mut a = member().subscribe(["t"]).unwrap();
    poll(&mut a);
    let mut b = member().subscribe(["t"]).unwrap();
    assert!(poll(&mut b).is_empty());
    assert_eq!(state(&group).0, Reconciling);
    clock.advance(ms(500));
    a.commit().unwrap(); // still a member, and still the owner
    assert_eq!(state(&group).0, Reconciling);
    poll(&mut b);
    clock.advance(ms(600));
    poll(&mut b);
    clock.advance(ms(500));
    poll(&mut b);
    assert_eq!(numbers(&b), [0, 1]);
    let found = group.describe().unwrap();
    assert_eq!((found.state, found.members.len()), (Stable, 1));
    assert_eq!(kind(a.commit()), ErrorKind::CommitFailed);
    drop(log);
}

/// Nobody looks at the group: who waits for records is woken by the log itself.
#[test]
fn g_09_a_waiting_member_gets_what_a_silent_one_had() {
    let (log, clock, group) = timed(1);
    let mut a = group.consumer().max_poll_interval(ms(1000)).subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut a).len(), 5);
    let mut b = group.consumer().subscribe(["t"]).unwrap();
    assert!(poll(&mut b).is_empty());
    let waits = std::thread::spawn(move || b.poll(Duration::MAX).unwrap().len());
    clock.advance(ms(1000));
    assert_eq!(waits.join().unwrap(), 5, "from the beginning: nothing was committed");
    assert_eq!(kind(a.commit()), ErrorKind::CommitFailed);
    drop(log);
}

#[test]
fn g_11_to_join_again_changes_nothing_unless_asked_for() {
    let (_log, _, group) = timed(2);
    let mut a = group.subscribe(["t"]).unwrap();
    let mut b = group.subscribe(["t"]).unwrap();
    settle(&group, &mut [&mut a, &mut b]);
    let (_, generation) = state(&group);
    a.subscribe(["t"]).unwrap();
    b.subscribe(["t"]).unwrap();
    assert_eq!(state(&group), (Stable, generation));
    a.enforce_rebalance().unwrap();
    assert_eq!(state(&group), (Assigning, generation + 1));
    settle(&group, &mut [&mut a, &mut b]);
    assert_eq!(state(&group), (Stable, generation + 1));
    assert_eq!((numbers(&a), numbers(&b)), (vec![0], vec![1]));
}

pub(crate) fn named(group: &ConsumerGroup, name: &str) -> ConsumerBuilder {
    group.consumer().instance_id(name).session_timeout(ms(10_000))
}

#[test]
fn g_13_a_static_member_that_comes_back_in_time_goes_on() {
    let (_log, clock, group) = timed(2);
    let told = Told::default();
    let mut i1 = named(&group, "i1").listener(told.clone()).subscribe(["t"]).unwrap();
    let mut i2 = named(&group, "i2").subscribe(["t"]).unwrap();
    settle(&group, &mut [&mut i1, &mut i2]);
    let before = group.describe().unwrap();
    i1.commit().unwrap();
    for dropped in [false, true] {
        if dropped {
            drop(i1)
        } else {
            i1.close().unwrap()
        }
        clock.advance(ms(9_999));
        assert_eq!(state(&group), (Stable, before.generation));
        assert!(group.describe().unwrap().members[0].away);
        poll(&mut i2);
        assert_eq!(numbers(&i2), [1], "what is not its own stays where it is");
        i1 = named(&group, "i1").listener(told.clone()).subscribe(["t"]).unwrap();
        assert!(poll(&mut i1).is_empty(), "it goes on behind what was committed");
        assert_eq!(numbers(&i1), [0]);
        let after = group.describe().unwrap();
        assert_eq!(after.generation, before.generation);
        assert_eq!(after.members, before.members);
    }
    assert_eq!((told.count("assigned"), told.count("revoked")), (3, 1), "a drop runs no user code");

    // Too late: its partitions go to the other, and it joins as anybody would.
    drop(i1);
    clock.advance(ms(10_000));
    settle(&group, &mut [&mut i2]);
    assert_eq!(numbers(&i2), [0, 1]);
    assert_eq!(kind(group.delete()), ErrorKind::GroupNotEmpty);

    // To unsubscribe is to leave.
    i2.unsubscribe().unwrap();
    assert_eq!(state(&group).0, Empty);
}

#[test]
fn g_13_a_static_member_with_another_subscription_makes_a_rebalance() {
    let (log, _, group) = timed(2);
    log.create_topic("u", TopicConfig::new()).unwrap();
    let mut i1 = named(&group, "i1").subscribe(["t"]).unwrap();
    poll(&mut i1);
    drop(i1);
    let mut i1 = named(&group, "i1").subscribe(["u"]).unwrap();
    assert_eq!(state(&group), (Assigning, 2));
    poll(&mut i1);
    assert_eq!(i1.assignment(), [TopicPartition::new("u", 0)]);
}

#[test]
fn g_15_two_consumers_with_one_instance_id() {
    let (_log, _, group) = timed(2);
    let told = Told::default();
    let mut first = named(&group, "i1").listener(told.clone()).subscribe(["t"]).unwrap();
    let records = first.poll(NOW).unwrap();
    let record = records.iter().next().unwrap();
    let mut second = named(&group, "i1").subscribe(["t"]).unwrap();
    let calls = |first: &mut Consumer| {
        [
            first.commit(),
            first.commit_record(&record),
            first.commit_offsets([(tp(0), 1)]),
            first.subscribe(["u"]),
            first.enforce_rebalance(),
        ]
    };
    for call in calls(&mut first) {
        assert_eq!(kind(call), ErrorKind::FencedInstanceId);
    }
    assert_eq!(poll(&mut second).len(), 5);
    assert_eq!(numbers(&second), [0, 1]);
    for _ in 0..2 {
        let error = first.poll(NOW).unwrap_err();
        assert!(error.is_fatal() && error.is_fenced());
        assert_eq!(error.kind(), ErrorKind::FencedInstanceId);
        assert_eq!(kind(first.seek(&tp(0), 0)), ErrorKind::FencedInstanceId);
        assert_eq!(kind(first.position(&tp(0))), ErrorKind::FencedInstanceId);
    }
    for call in calls(&mut first) {
        assert_eq!(kind(call), ErrorKind::FencedInstanceId);
    }
    assert_eq!((told.count("assigned"), told.count("revoked"), told.count("lost")), (1, 0, 1));
    first.close().unwrap();
    second.commit().unwrap();
    assert_eq!(numbers(&second), [0, 1], "what is closed is not the member");
    assert!(!group.describe().unwrap().members[0].away);
}

#[test]
fn g_15_a_waiting_consumer_is_told_that_it_was_replaced() {
    let (_log, _, group) = timed(1);
    let mut first = named(&group, "i1").subscribe(["t"]).unwrap();
    poll(&mut first);
    let waits = std::thread::spawn(move || kind(first.poll(Duration::MAX)));
    let _second = named(&group, "i1").subscribe(["t"]).unwrap();
    assert_eq!(waits.join().unwrap(), ErrorKind::FencedInstanceId);
}

#[test]
fn g_17_who_polls_too_seldom_has_left() {
    for seen in [false, true] {
        let (_log, clock, group) = timed(1);
        let told = Told::default();
        let builder =
            group.consumer().max_poll_interval(ms(1000)).auto_commit(ms(100)).listener(told.clone());
        let mut consumer = builder.subscribe(["t"]).unwrap();
        assert_eq!(poll(&mut consumer).len(), 5);
        clock.advance(ms(3000));
        if seen {
            assert_eq!(state(&group).0, Empty);
        }
        assert_eq!(kind(consumer.commit()), ErrorKind::CommitFailed);
        assert_eq!(kind(consumer.commit_offsets([(tp(0), 2)])), ErrorKind::CommitFailed);
        assert_eq!(poll(&mut consumer).len(), 5, "it has joined again, behind what is committed: nothing");
        consumer.commit().unwrap();
        assert_eq!((told.count("assigned"), told.count("revoked"), told.count("lost")), (2, 0, 1));
        assert_eq!(state(&group), (Stable, 3));
    }
}

#[test]
fn g_17_a_poll_that_waits_is_no_silence() {
    let (_log, clock, group) = timed(1);
    let mut consumer = group.consumer().max_poll_interval(ms(1000)).subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut consumer).len(), 5);
    let handle = consumer.handle();
    let waits = std::thread::spawn(move || {
        let woken = kind(consumer.poll(Duration::MAX));
        (woken, consumer)
    });
    // Inside of the poll it is never silent; before it, this loop waits for it to begin.
    while group.describe().unwrap().members[0].silent_for > NOW {
        std::thread::yield_now();
    }
    clock.advance(ms(999));
    while group.describe().unwrap().members[0].silent_for > NOW {
        std::thread::yield_now();
    }
    clock.advance(ms(100_000));
    assert_eq!(state(&group), (Stable, 1));
    handle.wakeup();
    let (woken, mut consumer) = waits.join().unwrap();
    assert_eq!(woken, ErrorKind::Wakeup);
    clock.advance(ms(999));
    consumer.commit().unwrap();
}

/// Takes its time, by the clock of the log, then commits.
struct Slow(Arc<ManualClock>);

impl RebalanceListener for Slow {
    fn on_assigned(&mut self, rebalance: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
        self.0.advance(ms(1500));
        rebalance.commit()
    }

    fn on_revoked(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.on_assigned(rebalance, partitions)
    }
}

#[test]
fn g_19_a_slow_listener_may_commit() {
    let (_log, clock, group) = timed(2);
    let builder = group.consumer().max_poll_interval(ms(1000)).listener(Slow(Arc::clone(&clock)));
    let mut a = builder.subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut a).len(), 5);
    let mut b = group.subscribe(["t"]).unwrap();
    poll(&mut a);
    assert_eq!(numbers(&a), [0]);
    assert_eq!(group.committed(&tp(0)).unwrap(), Some(5));
    poll(&mut b);
    assert_eq!((numbers(&b), group.describe().unwrap().members.len()), (vec![1], 2));
    a.commit().unwrap();
}

#[test]
fn g_21_pause_does_not_survive_a_loss() {
    let (log, _, group) = timed(1);
    let partition = log.topic("t").unwrap().partition(0).unwrap();
    let mut a = group.consumer().max_poll_records(2).subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut a), [0, 1]);
    a.commit().unwrap();
    assert_eq!(poll(&mut a), [2, 3]);
    a.pause([&tp(0)]).unwrap();
    // Everything to the member that came last, then back.
    let away = group.clone().assignor(Last);
    let b = away.subscribe(["t"]).unwrap();
    assert!(poll(&mut a).is_empty());
    assert!(a.assignment().is_empty());
    drop(b);
    produce(&partition, 1);
    assert_eq!(poll(&mut a), [2, 3], "not paused, and behind what is committed");
    assert!(a.paused().is_empty());
}

struct Last;

impl tapelog::Assignor for Last {
    fn name(&self) -> &'static str {
        "last"
    }

    fn assign(&self, facts: &tapelog::assignor::GroupFacts) -> BTreeMap<String, Vec<TopicPartition>> {
        let last = facts.members.iter().map(|m| m.id.clone()).max().unwrap();
        BTreeMap::from([(last, vec![tp(0)])])
    }
}

#[test]
fn g_23_new_partitions_are_found() {
    let (log, partition) = log_with(1, 5);
    let group = log.consumer_group("g").unwrap();
    let mut consumer = group.consumer().offset_reset(OffsetReset::Latest).subscribe(["t"]).unwrap();
    assert!(poll(&mut consumer).is_empty());
    produce(&partition, 1);
    assert_eq!(poll(&mut consumer), [5]);
    let topic = log.topic("t").unwrap();
    topic.add_partitions(2).unwrap();
    produce(&topic.partition(1).unwrap(), 3);
    assert!(poll(&mut consumer).is_empty(), "from the moment of discovery");
    assert_eq!(numbers(&consumer), [0, 1]);
    assert_eq!(state(&group), (Stable, 2));
    produce(&topic.partition(1).unwrap(), 1);
    assert_eq!(poll(&mut consumer), [3]);

    let mut restarted =
        log.consumer_group("other").unwrap().consumer().instance_id("i").subscribe(["t"]).unwrap();
    restarted.poll(NOW).unwrap();
    restarted.close().unwrap();
    topic.add_partitions(3).unwrap();
    let other = log.consumer_group("other").unwrap();
    let mut restarted = other.consumer().instance_id("i").subscribe(["t"]).unwrap();
    restarted.poll(NOW).unwrap();
    assert_eq!(numbers(&restarted), [0, 1, 2], "while a static member was away, too");
}

#[test]
fn g_25_a_group_with_members_is_not_deleted() {
    let (_log, _, group) = timed(2);
    let mut a = group.subscribe(["t"]).unwrap();
    assert_eq!((state(&group).0, kind(group.delete())), (Assigning, ErrorKind::GroupNotEmpty));
    poll(&mut a);
    assert_eq!((state(&group).0, kind(group.delete())), (Stable, ErrorKind::GroupNotEmpty));
    let mut b = group.subscribe(["t"]).unwrap();
    poll(&mut b);
    assert_eq!((state(&group).0, kind(group.delete())), (Reconciling, ErrorKind::GroupNotEmpty));
    drop((a, b));
    assert_eq!(state(&group).0, Empty);
    group.delete().unwrap();
    assert_eq!((state(&group).0, kind(group.delete())), (Dead, ErrorKind::GroupIdNotFound));
}

#[test]
fn g_25_groups_are_listed_while_they_are_not_dead() {
    let dir = tempfile::tempdir().unwrap();
    let names = |log: &Log| -> Vec<String> {
        log.consumer_groups().unwrap().iter().map(|group| group.name().to_owned()).collect()
    };
    let log = Log::open(dir.path()).unwrap();
    log.create_topic("t", TopicConfig::new()).unwrap();
    let [reads, commits, asked] = ["reads", "commits", "asked"].map(|name| log.consumer_group(name).unwrap());
    assert!(names(&log).is_empty());
    let member = reads.subscribe(["t"]).unwrap();
    commits.consumer().build().unwrap().commit_offsets([(tp(0), 0)]).unwrap();
    assert_eq!(names(&log), ["commits", "reads"]);
    assert_eq!(asked.describe().unwrap().state, Dead);
    drop(member);
    assert_eq!(names(&log), ["commits", "reads"], "empty, and not gone");
    reads.delete().unwrap();
    assert_eq!(names(&log), ["commits"]);
    log.close(Duration::from_secs(10)).unwrap();

    let log = Log::open(dir.path()).unwrap();
    assert_eq!(names(&log), ["commits"], "what nobody has asked for since the open is there too");
    log.consumer_group("commits").unwrap().delete().unwrap();
    assert!(names(&log).is_empty());
    log.close(Duration::from_secs(10)).unwrap();
}

/// A log whose committed offsets expire after ten seconds, at 20 s by its clock, with topics `t` and `u`.
fn forgetful(dir: Option<&std::path::Path>, clock: &Arc<ManualClock>) -> Log {
    let builder = Log::builder().clock(Arc::clone(clock)).offsets_retention(ms(10_000));
    let log = match dir {
        Some(dir) => builder.open(dir).unwrap(),
        None => builder.in_memory().unwrap(),
    };
    for name in ["t", "u"] {
        produce(&log.ensure_topic(name, TopicConfig::new()).unwrap().partition(0).unwrap(), 5);
    }
    log
}

/// Commits in `t` and `u` without being a member.
fn commit_outside(log: &Log, group: &str) {
    let mut consumer = log.consumer_group(group).unwrap().consumer().build().unwrap();
    consumer.commit_offsets([(tp(0), 3), (TopicPartition::new("u", 0), 3)]).unwrap();
}

/// What is committed in `t` and `u`.
fn committed(log: &Log, group: &str) -> [Option<u64>; 2] {
    let group = log.consumer_group(group).unwrap();
    ["t", "u"].map(|topic| group.committed(&TopicPartition::new(topic, 0)).unwrap())
}

/// Waits for the keeper of the log, which looks at all groups at once, and then forgets those of which nothing is left.
fn until_gone(log: &Log, group: &str) {
    while committed(log, group) != [None, None] || state(&log.consumer_group(group).unwrap()).0 != Dead {
        std::thread::yield_now();
    }
}

#[test]
fn g_27_what_was_committed_without_members_expires_so_long_after_the_commit() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(19_999)));
    let log = forgetful(None, &clock);
    commit_outside(&log, "earlier");
    clock.advance(ms(1));
    commit_outside(&log, "g");
    clock.set(Timestamp::from_millis(29_999));
    until_gone(&log, "earlier");
    assert_eq!(committed(&log, "g"), [Some(3), Some(3)]);
    clock.set(Timestamp::from_millis(30_000));
    until_gone(&log, "g");
}

#[test]
fn g_27_what_members_read_never_expires_and_an_empty_group_counts_from_then() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(20_000)));
    let log = forgetful(None, &clock);
    let group = log.consumer_group("g").unwrap();
    commit_outside(&log, "g");
    let mut member = group.consumer().max_poll_interval(ms(1_000_000)).subscribe(["t"]).unwrap();
    member.poll(NOW).unwrap();
    assert_eq!(state(&group).0, Stable);
    clock.set(Timestamp::from_millis(30_000));
    while committed(&log, "g")[1].is_some() {
        std::thread::yield_now();
    }
    assert_eq!(committed(&log, "g"), [Some(3), None], "no member asks for u");

    clock.set(Timestamp::from_millis(100_000));
    commit_outside(&log, "witness");
    clock.set(Timestamp::from_millis(110_000));
    until_gone(&log, "witness");
    assert_eq!(committed(&log, "g"), [Some(3), None], "and one reads t");

    drop(member);
    commit_outside(&log, "witness");
    clock.set(Timestamp::from_millis(119_999));
    let mut late = log.consumer_group("witness").unwrap().consumer().build().unwrap();
    late.commit_offsets([(tp(0), 1)]).unwrap();
    assert_eq!(committed(&log, "g"), [Some(3), None]);
    clock.set(Timestamp::from_millis(120_000));
    until_gone(&log, "g");
    assert_eq!(
        committed(&log, "witness"),
        [Some(1), None],
        "in the same look, what was committed later stays"
    );
}

#[test]
fn g_27_it_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(20_000)));
    let close = |log: Log| log.close(Duration::from_secs(10)).unwrap();
    let log = forgetful(Some(dir.path()), &clock);
    let mut member = log.consumer_group("g").unwrap().subscribe(["t"]).unwrap();
    member.poll(NOW).unwrap();
    clock.set(Timestamp::from_millis(25_000));
    member.commit().unwrap();
    drop(member);
    commit_outside(&log, "witness");
    clock.set(Timestamp::from_millis(35_000));
    until_gone(&log, "witness");
    until_gone(&log, "g");
    close(log);

    // Without a time for them nothing is forgotten, and what is gone stays so.
    let log = Log::builder().clock(Arc::clone(&clock)).open(dir.path()).unwrap();
    assert_eq!(committed(&log, "g"), [None, None]);
    commit_outside(&log, "g");
    clock.set(Timestamp::from_millis(1_000_000));
    assert_eq!(committed(&log, "g"), [Some(3), Some(3)]);
    close(log);
    let log = forgetful(Some(dir.path()), &clock);
    until_gone(&log, "g");
}

#[test]
fn g_27_off_unless_set() {
    let (log, clock, group) = timed(1);
    let mut outside = group.consumer().build().unwrap();
    outside.commit_offsets([(tp(0), 3)]).unwrap();
    clock.set(Timestamp::MAX);
    assert_eq!(group.committed(&tp(0)).unwrap(), Some(3));
    drop(log);
}
