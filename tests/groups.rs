//! Groups: who reads what, and from where, while members, topics and processes come and go.

#![allow(clippy::unwrap_used)] // helpers of tests may panic

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tapelog::assignor::{Assignor, GroupFacts, Range, RoundRobin};
use tapelog::clock::ManualClock;
use tapelog::consumer::{GroupState, Rebalance};
use tapelog::{
    Consumer, ConsumerGroup, ErrorKind, Log, OffsetReset, RebalanceListener, Record, Result, Timestamp,
    Topic, TopicConfig, TopicPartition,
};

const NOW: Duration = Duration::ZERO;

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn topic(log: &Log, partitions: u32) -> Topic {
    log.create_topic("t", TopicConfig::new().partitions(partitions)).unwrap()
}

fn produce(topic: &Topic, partition: u32, records: u64) {
    let partition = topic.partition(partition).unwrap();
    for _ in 0..records {
        partition.append(Record::new(&partition.end_offset().to_le_bytes())).unwrap();
    }
}

fn numbers(consumer: &Consumer) -> Vec<u32> {
    consumer.assignment().iter().map(TopicPartition::partition).collect()
}

/// What one poll returns, as (partition, offset).
fn poll(consumer: &mut Consumer) -> Vec<(u32, u64)> {
    consumer.poll(NOW).unwrap().iter().map(|r| (r.partition(), r.offset())).collect()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

// ---- sharing -----------------------------------------------------------------------------------------------

#[test]
fn members_share_and_what_they_keep_never_pauses() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 4);
    let group = log.consumer_group("g").unwrap();
    assert_eq!(group.describe().unwrap().state, GroupState::Dead);
    let mut a = group.consumer().instance_id("ay").subscribe(["t"]).unwrap();
    a.poll(NOW).unwrap();
    assert_eq!(numbers(&a), [0, 1, 2, 3]);
    let description = group.describe().unwrap();
    assert_eq!((description.state, description.generation), (GroupState::Stable, 1));
    assert_eq!((description.assignor.as_str(), description.members.len()), ("cooperative-sticky", 1));

    // b has to wait until a lets go: nothing is owned twice.
    let mut b = group.subscribe(["t"]).unwrap();
    b.poll(NOW).unwrap();
    assert!(b.assignment().is_empty());
    assert_eq!(group.describe().unwrap().state, GroupState::Reconciling);
    (0..4).for_each(|p| produce(&t, p, 1));
    assert_eq!(poll(&mut a), [(0, 0), (1, 0)], "a lets go, and reads what it keeps in the same poll");
    assert_eq!(numbers(&a), [0, 1]);
    assert_eq!(poll(&mut b), [(2, 0), (3, 0)]);
    let description = group.describe().unwrap();
    // What moves is left out of one plan and given in the next.
    assert_eq!((description.state, description.generation), (GroupState::Stable, 3));
    assert_eq!(description.members[0].instance_id.as_deref(), Some("ay"));
    let assignments: Vec<_> = description.members.iter().map(|m| m.assignment.clone()).collect();
    assert_eq!(assignments, [[tp(0), tp(1)], [tp(2), tp(3)]]);

    // A drop leaves; nothing was committed, so what b read comes again.
    drop(b);
    assert_eq!(poll(&mut a), [(2, 0), (3, 0)]);
    assert_eq!(numbers(&a), [0, 1, 2, 3]);
    a.unsubscribe().unwrap(); // to close would keep the seat of a static member
    let description = group.describe().unwrap();
    assert_eq!((description.state, description.generation), (GroupState::Empty, 5));
}

#[test]
fn groups_do_not_know_of_each_other() {
    let log = Log::in_memory().unwrap();
    produce(&topic(&log, 1), 0, 3);
    let mut one = log.consumer_group("one").unwrap().subscribe(["t"]).unwrap();
    let mut two = log.consumer_group("two").unwrap().subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut one).len(), 3);
    one.commit().unwrap();
    assert_eq!(two.committed(&tp(0)).unwrap(), None);
    assert_eq!(poll(&mut two).len(), 3);
}

#[test]
fn topics_that_come_grow_and_go_are_followed() {
    let log = Log::in_memory().unwrap();
    let group = log.consumer_group("g").unwrap();
    let mut consumer = group.subscribe(["t"]).unwrap();
    assert!(poll(&mut consumer).is_empty());
    let t = topic(&log, 1);
    produce(&t, 0, 2);
    assert_eq!(poll(&mut consumer), [(0, 0), (0, 1)]);
    consumer.commit().unwrap();
    t.add_partitions(2).unwrap();
    produce(&t, 1, 1);
    assert_eq!(poll(&mut consumer), [(1, 0)]);
    assert_eq!(group.describe().unwrap().generation, 3);
    log.create_topic("unrelated", TopicConfig::new()).unwrap();
    poll(&mut consumer);
    assert_eq!(group.describe().unwrap().generation, 3, "not its business");

    // Another topic of the same name begins anew, for the group as well.
    log.delete_topic("t").unwrap();
    assert!(poll(&mut consumer).is_empty());
    assert!(consumer.assignment().is_empty());
    let t = topic(&log, 1);
    produce(&t, 0, 1);
    assert_eq!(group.committed(&tp(0)).unwrap(), None);
    assert_eq!(poll(&mut consumer), [(0, 0)]);

    // Deleted and made again between two polls.
    consumer.commit().unwrap();
    log.delete_topic("t").unwrap();
    produce(&topic(&log, 1), 0, 3);
    assert_eq!(poll(&mut consumer), [(0, 0), (0, 1), (0, 2)]);
}

#[test]
fn latest_means_the_moment_of_discovery() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 2);
    (0..2).for_each(|p| produce(&t, p, 10));
    let group = log.consumer_group("g").unwrap();
    let mut consumer =
        group.consumer().offset_reset(OffsetReset::Latest).max_poll_records(1).subscribe(["t"]).unwrap();
    assert!(poll(&mut consumer).is_empty());
    t.add_partitions(3).unwrap();
    (0..2).for_each(|p| produce(&t, p, 1));
    produce(&t, 2, 1);
    // The new partition is found now, at 1, though its turn comes later.
    let mut seen = poll(&mut consumer);
    produce(&t, 2, 1);
    for _ in 0..3 {
        seen.extend(poll(&mut consumer));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, 10), (1, 10), (2, 1)]);
}

#[test]
fn reset_by_age_goes_by_the_clock_of_the_log() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(100_000)));
    let log = Log::builder().clock(clock.clone()).in_memory().unwrap();
    let t = topic(&log, 1);
    for _ in 0..10 {
        produce(&t, 0, 1);
        clock.advance(Duration::from_secs(1));
    }
    let by = |seconds| {
        let reset = OffsetReset::By(Duration::from_secs(seconds));
        log.consumer().offset_reset(reset).assign([tp(0)]).unwrap().position(&tp(0)).unwrap()
    };
    assert_eq!([by(0), by(1), by(3), by(10), by(1000)], [10, 9, 7, 0, 0]);
}

/// Members come, go, poll and commit in any order, and hand over what they finished.
#[test]
fn nothing_is_owned_twice_nothing_is_orphaned_nothing_is_skipped() {
    const PARTITIONS: u32 = 7;
    for seed in 1..=20u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut random = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let log = Log::in_memory().unwrap();
        let t = topic(&log, PARTITIONS);
        let group = log.consumer_group("g").unwrap();
        let group = if seed % 2 == 0 { group.assignor(RoundRobin) } else { group };
        let mut members: Vec<Consumer> = Vec::new();
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        let check = |members: &[Consumer]| {
            let owned: Vec<_> = members.iter().flat_map(Consumer::assignment).collect();
            assert_eq!(owned.iter().collect::<BTreeSet<_>>().len(), owned.len(), "owned twice: {owned:?}");
        };
        // Every hand-over commits first, so that each record comes exactly once.
        let mut read = |member: &mut Consumer| {
            for (partition, offset) in poll(member) {
                let next = next.entry(partition).or_default();
                assert_eq!(offset, *next, "partition {partition}, seed {seed}");
                *next += 1;
            }
        };
        for _ in 0..400 {
            match random(10) {
                0 if members.len() < 5 => {
                    let builder = group.consumer().auto_commit(Duration::from_secs(3600)).max_poll_records(3);
                    members.push(builder.subscribe(["t"]).unwrap());
                }
                1 if !members.is_empty() => {
                    let at = random(members.len() as u64) as usize;
                    members.swap_remove(at).close().unwrap();
                }
                2..=4 => produce(&t, random(u64::from(PARTITIONS)) as u32, random(5)),
                _ if !members.is_empty() => {
                    let at = random(members.len() as u64) as usize;
                    read(&mut members[at]);
                }
                _ => {}
            }
            check(&members);
        }
        if members.is_empty() {
            members.push(group.subscribe(["t"]).unwrap());
        }
        for _ in 0..1000 {
            members.iter_mut().for_each(&mut read);
        }
        check(&members);
        assert_eq!(group.describe().unwrap().state, GroupState::Stable);
        assert_eq!(members.iter().map(|m| m.assignment().len()).sum::<usize>(), PARTITIONS as usize);
        for partition in 0..PARTITIONS {
            let end = t.partition(partition).unwrap().end_offset();
            assert_eq!(next.get(&partition).copied().unwrap_or(0), end, "seed {seed}");
        }
    }
}

// ---- listeners and assignors ---------------------------------------------------------------------------------

#[derive(Default, Clone)]
struct Story(Arc<Mutex<Vec<String>>>);

impl Story {
    fn add(&self, what: &str, partitions: &[TopicPartition]) {
        let shown: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        self.0.lock().unwrap().push(format!("{what} {}", shown.join(" ")));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl RebalanceListener for Story {
    fn on_assigned(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.add("assigned", partitions);
        for partition in partitions {
            if rebalance.committed(partition)?.is_none() {
                rebalance.seek(partition, 2)?;
            }
        }
        Ok(())
    }

    fn on_revoked(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.add("revoked", partitions);
        rebalance.commit()
    }

    fn on_lost(&mut self, _: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.add("lost", partitions);
        Ok(())
    }
}

#[test]
fn a_listener_is_told_of_what_changes_and_may_seek_and_commit() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 2);
    (0..2).for_each(|p| produce(&t, p, 4));
    let group = log.consumer_group("g").unwrap();
    let story = Story::default();
    let mut a = group.consumer().listener(story.clone()).subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut a), [(0, 2), (0, 3), (1, 2), (1, 3)]);
    assert_eq!(story.take(), ["assigned t-0 t-1"]);
    let mut b = group.subscribe(["t"]).unwrap();
    poll(&mut a);
    assert_eq!(story.take(), ["revoked t-1"]);
    assert_eq!(group.committed(&tp(1)).unwrap(), Some(4));
    assert!(poll(&mut b).is_empty());
    assert_eq!(numbers(&b), [1]);
    drop(b);
    poll(&mut a);
    assert_eq!(story.take(), ["assigned t-1"]);
    log.delete_topic("t").unwrap();
    poll(&mut a);
    assert_eq!(story.take(), ["lost t-0 t-1"]);
    topic(&log, 1);
    poll(&mut a);
    assert_eq!(story.take(), ["assigned t-0"]);
    a.unsubscribe().unwrap();
    assert_eq!(story.take(), ["revoked t-0"]);
    a.subscribe(["t"]).unwrap();
    poll(&mut a);
    drop(a);
    assert_eq!(story.take(), ["assigned t-0"], "a drop runs no user code");
}

/// A static member's place changed while its consumer was away: the next one was told that it gave up a partition that
/// it had never been given.
#[test]
fn who_comes_back_is_told_only_of_what_it_was_given() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 2);
    (0..2).for_each(|p| produce(&t, p, 4));
    let group = log.consumer_group("g").unwrap();
    let member = || group.consumer().instance_id("ay");
    let mut a = member().subscribe(["t"]).unwrap();
    poll(&mut a);
    a.close().unwrap();
    let mut b = group.subscribe(["t"]).unwrap();
    assert!(poll(&mut b).is_empty(), "what the absent member has is kept for it");
    let story = Story::default();
    let mut a = member().listener(story.clone()).subscribe(["t"]).unwrap();
    poll(&mut a);
    assert_eq!((story.take(), numbers(&a)), (vec!["assigned t-0".to_owned()], vec![0]));
    poll(&mut b);
    assert_eq!(numbers(&b), [1]);
}

/// A consumer that was silent and could not join again, since the others had agreed on an assignor that it does not
/// name, said so once, and from then on returned nothing, for ever.
#[test]
fn who_cannot_join_again_says_so_until_it_can() {
    let clock = Arc::new(ManualClock::default());
    let log = Log::builder().clock(clock.clone()).in_memory().unwrap();
    produce(&topic(&log, 1), 0, 1);
    let group = log.consumer_group("g").unwrap();
    let a = group.consumer().assignor(Range).max_poll_interval(Duration::from_secs(1));
    let mut a = a.subscribe(["t"]).unwrap();
    assert_eq!(poll(&mut a), [(0, 0)]);
    clock.advance(Duration::from_secs(1));
    let b = group.consumer().assignor(RoundRobin).subscribe(["t"]).unwrap();
    for _ in 0..3 {
        assert_eq!(kind(a.poll(NOW)), ErrorKind::InconsistentGroupProtocol);
        assert_eq!(kind(a.commit_offsets([(tp(0), 1)])), ErrorKind::CommitFailed);
    }
    drop(b);
    assert_eq!(poll(&mut a), [(0, 0)]);
    a.commit().unwrap();
}

/// Fails, or panics, whenever it is told anything.
struct Bad(bool);

impl RebalanceListener for Bad {
    fn on_assigned(&mut self, rebalance: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
        assert!(self.0, "no partitions today");
        rebalance.seek(&TopicPartition::new("other", 0), 0)
    }

    fn on_revoked(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        self.on_assigned(rebalance, partitions)
    }
}

#[test]
fn a_listener_that_fails_or_panics_stops_nothing() {
    for (fails, expected) in [(true, ErrorKind::IllegalState), (false, ErrorKind::UserCode)] {
        let log = Log::in_memory().unwrap();
        produce(&topic(&log, 2), 0, 3);
        let group = log.consumer_group("g").unwrap();
        let mut a = group.consumer().listener(Bad(fails)).subscribe(["t"]).unwrap();
        assert_eq!(kind(a.poll(NOW)), expected);
        assert_eq!(numbers(&a), [0, 1], "they have come all the same");
        assert_eq!(poll(&mut a).len(), 3);
        let mut b = group.subscribe(["t"]).unwrap();
        assert_eq!(kind(a.poll(NOW)), expected);
        poll(&mut b);
        assert_eq!((numbers(&a), numbers(&b)), (vec![0], vec![1]));
        assert_eq!(kind(a.close()), expected);
        poll(&mut b);
        assert_eq!(numbers(&b), [0, 1]);
    }
}

type Plan = BTreeMap<String, Vec<TopicPartition>>;

struct ByHand(fn(&GroupFacts) -> Plan);

impl Assignor for ByHand {
    fn name(&self) -> &str {
        "by hand"
    }

    fn assign(&self, facts: &GroupFacts) -> Plan {
        (self.0)(facts)
    }
}

#[test]
fn an_assignor_of_the_users_own() {
    let log = Log::in_memory().unwrap();
    topic(&log, 2);
    let group: ConsumerGroup = log.consumer_group("g").unwrap();
    let mut a = group.subscribe(["t"]).unwrap();
    let mut b = group.subscribe(["t"]).unwrap();
    poll(&mut a);
    poll(&mut b);
    let bad: [fn(&GroupFacts) -> Plan; 5] = [
        |_| panic!("no plan"),
        |_| Plan::from([("stranger".into(), vec![tp(0)])]),
        |facts| facts.members.iter().map(|m| (m.id.clone(), vec![tp(0)])).collect(),
        |facts| Plan::from([(facts.members[0].id.clone(), vec![tp(2)])]),
        |facts| Plan::from([(facts.members[0].id.clone(), vec![TopicPartition::new("other", 0)])]),
    ];
    for bad in bad {
        let _ = group.clone().assignor(ByHand(bad));
        assert_eq!(kind(a.poll(NOW)), ErrorKind::UserCode);
        assert_eq!((numbers(&a), numbers(&b)), (vec![0], vec![1]), "as it was");
    }
    let _ = group.clone().assignor(ByHand(|facts| {
        let last = facts.sorted_members().last().map(|m| m.id.clone()).unwrap_or_default();
        Plan::from([(last, vec![tp(1), tp(0)])])
    }));
    poll(&mut a);
    poll(&mut b);
    assert_eq!((numbers(&a), numbers(&b)), (vec![], vec![0, 1]));
    assert_eq!(group.describe().unwrap().assignor, "by hand");
}

// ---- commits -------------------------------------------------------------------------------------------------

#[test]
fn a_record_of_the_past_cannot_set_a_group_back() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 2);
    (0..2).for_each(|p| produce(&t, p, 3));
    let group = log.consumer_group("g").unwrap();
    let mut a = group.subscribe(["t"]).unwrap();
    let records = a.poll(NOW).unwrap();
    let of = |partition: u32| records.iter().find(move |r| r.partition() == partition).unwrap();
    a.commit_record(&of(1)).unwrap();
    assert_eq!(group.committed(&tp(1)).unwrap(), Some(1));

    let mut b = group.subscribe(["t"]).unwrap();
    poll(&mut a);
    assert_eq!(poll(&mut b), [(1, 1), (1, 2)]);
    b.commit().unwrap();
    // a lost partition 1, b did not read this record, and offsets of partitions that are not owned are refused.
    assert_eq!(kind(a.commit_record(&of(1))), ErrorKind::CommitFailed);
    assert_eq!(kind(b.commit_record(&of(1))), ErrorKind::CommitFailed);
    assert_eq!(kind(a.commit_offsets([(tp(0), 2), (tp(1), 1)])), ErrorKind::CommitFailed);
    assert_eq!(group.committed(&tp(0)).unwrap(), None, "all or none");
    a.commit_record(&of(0)).unwrap();

    drop(b);
    poll(&mut a);
    assert_eq!(numbers(&a), [0, 1]);
    assert_eq!(kind(a.commit_record(&of(1))), ErrorKind::CommitFailed, "read in another stay");
    a.commit_record(&of(0)).unwrap();
    assert_eq!(group.committed(&tp(1)).unwrap(), Some(3));

    let direct = t.partition(0).unwrap().reader(0).unwrap().read(1).unwrap();
    assert_eq!(kind(a.commit_record(&direct.iter().next().unwrap())), ErrorKind::CommitFailed);
    log.delete_topic("t").unwrap();
    assert!(a.commit_record(&of(0)).is_ok() || a.assignment().is_empty());
    topic(&log, 2);
    poll(&mut a);
    assert_eq!(kind(a.commit_record(&of(0))), ErrorKind::CommitFailed, "another topic");
    assert_eq!(group.committed(&tp(0)).unwrap(), None);
}

#[test]
fn automatic_commits_cover_what_earlier_polls_returned() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let log = Log::builder().clock(clock.clone()).in_memory().unwrap();
    produce(&topic(&log, 1), 0, 10);
    let group = log.consumer_group("g").unwrap();
    let committed = || group.committed(&tp(0)).unwrap();
    let builder = group.consumer().auto_commit(Duration::from_secs(5)).max_poll_records(2);
    let mut consumer = builder.subscribe(["t"]).unwrap();
    poll(&mut consumer);
    clock.advance(Duration::from_secs(4));
    poll(&mut consumer);
    assert_eq!(committed(), None);
    clock.advance(Duration::from_secs(1));
    poll(&mut consumer);
    assert_eq!(committed(), Some(4), "not what this poll returns");
    drop(consumer);
    assert_eq!(committed(), Some(4), "a drop commits nothing");
}

#[test]
fn lag_describe_and_delete() {
    let log = Log::in_memory().unwrap();
    let t = topic(&log, 2);
    (0..2).for_each(|p| produce(&t, p, 10));
    let group = log.consumer_group("g").unwrap();
    assert_eq!(kind(group.delete()), ErrorKind::GroupIdNotFound);
    assert!(group.lag().unwrap().is_empty());
    let mut consumer = group.subscribe(["t"]).unwrap();
    poll(&mut consumer);
    assert_eq!(group.lag().unwrap(), BTreeMap::from([(tp(0), 10), (tp(1), 10)]));
    consumer.commit_offsets([(tp(0), 7)]).unwrap();
    assert_eq!(group.lag().unwrap(), BTreeMap::from([(tp(0), 3), (tp(1), 10)]));
    assert_eq!(kind(group.delete()), ErrorKind::GroupNotEmpty);
    consumer.close().unwrap();
    assert_eq!(group.lag().unwrap(), BTreeMap::from([(tp(0), 3)]));
    group.delete().unwrap();
    assert_eq!(group.describe().unwrap().state, GroupState::Dead);
    assert_eq!(group.committed(&tp(0)).unwrap(), None);
    assert_eq!(kind(group.delete()), ErrorKind::GroupIdNotFound);
    assert_eq!(poll(&mut group.subscribe(["t"]).unwrap()).len(), 20);
}

#[test]
fn commits_survive_a_close_and_a_drop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    for round in 0..4u64 {
        let log = Log::open(&path).unwrap();
        let t = log.ensure_topic("t", TopicConfig::new().partitions(2)).unwrap();
        (0..2).for_each(|p| produce(&t, p, 5));
        let group = log.consumer_group("g").unwrap();
        assert_eq!(group.committed(&tp(0)).unwrap(), (round > 0).then_some(round * 5));
        let mut consumer = group.subscribe(["t"]).unwrap();
        let seen = poll(&mut consumer);
        assert_eq!(seen.len(), 10, "round {round}");
        assert!(seen.iter().all(|(_, offset)| *offset >= round * 5));
        consumer.commit().unwrap();
        drop(consumer);
        if round % 2 == 0 {
            log.close(Duration::from_secs(10)).unwrap();
        }
    }
}

/// The child of the test below: commits one record after the other and tells which, until it is killed.
#[test]
#[ignore = "the child of the test below, which runs it"]
fn child_that_commits() {
    let Ok(path) = std::env::var("TAPELOG_TEST_DIR") else { return };
    let log = Log::open(path).unwrap();
    let t = log.ensure_topic("t", TopicConfig::new()).unwrap();
    let mut consumer = log.consumer_group("g").unwrap().subscribe(["t"]).unwrap();
    loop {
        produce(&t, 0, 1);
        for record in &consumer.poll(Duration::from_secs(1)).unwrap() {
            consumer.commit_record(&record).unwrap();
            println!("committed {}", record.offset() + 1);
        }
    }
}

#[test]
fn commits_survive_kill_9() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let mut last = 0;
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_commits", "--ignored", "--nocapture"])
            .env("TAPELOG_TEST_DIR", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = |until: usize| {
            let committed = lines.by_ref().map_while(|line| line.ok());
            // The first may stand behind what the harness says of the test.
            let committed = committed
                .filter_map(|line| line.split_once("committed ").map(|(_, n)| n.parse::<u64>().unwrap()));
            committed.take(until).last()
        };
        let before = told(200 + 77 * round).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let said = told(usize::MAX).unwrap_or(before);
        assert!(said > last);
        let log = Log::open(&path).unwrap();
        let committed = log.consumer_group("g").unwrap().committed(&tp(0)).unwrap().unwrap();
        assert!(committed >= said, "{committed} < {said}");
        assert!(committed <= log.topic("t").unwrap().partition(0).unwrap().end_offset());
        last = committed;
    }
}
