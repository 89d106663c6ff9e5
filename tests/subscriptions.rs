//! Subscriptions by pattern: topics that come and go, members that ask for different things, and what excludes what.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::time::Duration;

use tapelog::consumer::{GroupState, Pattern};
use tapelog::{Consumer, ConsumerGroup, ErrorKind, Log, Record, Result, TopicConfig};

const NOW: Duration = Duration::ZERO;

fn glob(pattern: &str) -> Pattern {
    Pattern::glob(pattern).unwrap()
}

fn topic(log: &Log, name: &str, partitions: u32) {
    let topic = log.create_topic(name, TopicConfig::new().partitions(partitions)).unwrap();
    for number in 0..partitions {
        topic.partition(number).unwrap().append(Record::new(name)).unwrap();
    }
}

fn log_with(topics: &[&str]) -> (Log, ConsumerGroup) {
    let log = Log::in_memory().unwrap();
    topics.iter().for_each(|name| topic(&log, name, 1));
    let group = log.consumer_group("g").unwrap();
    (log, group)
}

/// What a poll returns: the name of the topic of each record, sorted.
fn poll(consumer: &mut Consumer) -> Vec<String> {
    let records = consumer.poll(NOW).unwrap();
    let mut topics: Vec<_> = records.iter().map(|record| record.topic().to_owned()).collect();
    topics.sort();
    topics
}

fn assigned(consumer: &Consumer) -> Vec<String> {
    consumer.assignment().iter().map(ToString::to_string).collect()
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().map(|e| e.kind()).unwrap()
}

#[test]
fn topics_that_match_come_and_go() {
    let (log, group) = log_with(&["orders.eu", "trades"]);
    let mut consumer = group.subscribe_pattern(glob("orders.*")).unwrap();
    assert_eq!(poll(&mut consumer), ["orders.eu"]);
    let generation = group.describe().unwrap().generation;
    topic(&log, "quotes", 1);
    assert_eq!(poll(&mut consumer), [""; 0]);
    assert_eq!(group.describe().unwrap().generation, generation, "a topic that does not match is no change");

    topic(&log, "orders.us", 2);
    assert_eq!(poll(&mut consumer), ["orders.us", "orders.us"]);
    assert_eq!(assigned(&consumer), ["orders.eu-0", "orders.us-0", "orders.us-1"]);
    let member = &group.describe().unwrap().members[0];
    assert_eq!(member.subscriptions, ["orders.eu", "orders.us"]);
    assert_eq!(member.pattern.as_ref().map(Pattern::as_str), Some("orders.*"));

    log.delete_topic("orders.eu").unwrap();
    assert_eq!(poll(&mut consumer), [""; 0]);
    assert_eq!(assigned(&consumer), ["orders.us-0", "orders.us-1"]);
    log.topic("orders.us").unwrap().add_partitions(3).unwrap();
    poll(&mut consumer);
    assert_eq!(assigned(&consumer), ["orders.us-0", "orders.us-1", "orders.us-2"]);
}

#[test]
fn a_poll_that_waits_finds_a_new_topic() {
    let (log, group) = log_with(&[]);
    let mut consumer = group.subscribe_pattern(glob("orders.*")).unwrap();
    assert_eq!(poll(&mut consumer), [""; 0]);
    assert_eq!(group.describe().unwrap().state, GroupState::Stable);
    let waits = std::thread::spawn(move || consumer.poll(Duration::MAX).unwrap().len());
    topic(&log, "orders.eu", 1);
    assert_eq!(waits.join().unwrap(), 1);
}

#[test]
fn internal_topics_never_match() {
    let (log, group) = log_with(&["a"]);
    for pattern in ["*", "__*", "??consumer_offsets"] {
        let mut consumer = log.consumer_group(pattern).unwrap().subscribe_pattern(glob(pattern)).unwrap();
        consumer.poll(NOW).unwrap();
        assert!(assigned(&consumer).iter().all(|name| name == "a-0"), "{pattern}: {:?}", assigned(&consumer));
    }
    // By name, who wants to read one may.
    let mut by_name = group.subscribe(["__consumer_offsets"]).unwrap();
    by_name.poll(NOW).unwrap();
    assert_eq!(assigned(&by_name), ["__consumer_offsets-0"]);
}

#[test]
fn members_may_ask_for_different_things() {
    let (log, group) = log_with(&["orders.eu", "orders.us", "trades"]);
    let mut all = group.subscribe_pattern(glob("*")).unwrap();
    let mut orders = group.subscribe_pattern(glob("orders.*")).unwrap();
    let mut named = group.subscribe(["trades", "orders.jp"]).unwrap();
    let settle = |members: &mut [&mut Consumer]| {
        for _ in 0..4 {
            members.iter_mut().for_each(|member| drop(member.poll(NOW).unwrap()));
        }
        assert_eq!(group.describe().unwrap().state, GroupState::Stable);
        let mut owned: Vec<_> = members.iter().flat_map(|member| assigned(member)).collect();
        owned.sort();
        owned
    };
    let owned = settle(&mut [&mut all, &mut orders, &mut named]);
    assert_eq!(owned, ["orders.eu-0", "orders.us-0", "trades-0"]);
    assert!(assigned(&orders).iter().all(|name| name.starts_with("orders.")));
    assert!(assigned(&named).iter().all(|name| name == "trades-0"));
    topic(&log, "orders.jp", 1);
    assert_eq!(settle(&mut [&mut all, &mut orders, &mut named]).len(), 4);
    // Each can be left with all that it asked for.
    all.unsubscribe().unwrap();
    assert_eq!(settle(&mut [&mut orders, &mut named]).len(), 4);
    orders.unsubscribe().unwrap();
    assert_eq!(settle(&mut [&mut named]), ["orders.jp-0", "trades-0"]);
}

#[test]
fn a_pattern_can_be_changed_for_another() {
    let (_log, group) = log_with(&["a.x", "b.x"]);
    let mut consumer = group.subscribe_pattern(glob("a.*")).unwrap();
    poll(&mut consumer);
    let generation = group.describe().unwrap().generation;
    consumer.subscribe_pattern(glob("a.*")).unwrap();
    assert_eq!(group.describe().unwrap().generation, generation, "the same is no change");
    consumer.subscribe_pattern(glob("b.*")).unwrap();
    assert_eq!(poll(&mut consumer), ["b.x"]);
    assert_eq!(assigned(&consumer), ["b.x-0"]);
}

#[test]
fn names_a_pattern_and_a_choice_exclude_each_other() {
    let (log, group) = log_with(&["a"]);
    let place = || tapelog::TopicPartition::new("a", 0);
    let mut consumer = group.subscribe_pattern(glob("a")).unwrap();
    assert_eq!(kind(consumer.subscribe(["a"])), ErrorKind::IllegalState);
    assert_eq!(kind(consumer.subscribe([""; 0])), ErrorKind::IllegalState);
    assert_eq!(kind(consumer.assign([place()])), ErrorKind::IllegalState);
    consumer.unsubscribe().unwrap();
    consumer.subscribe(["a"]).unwrap();
    assert_eq!(kind(consumer.subscribe_pattern(glob("a"))), ErrorKind::IllegalState);
    consumer.unsubscribe().unwrap();
    consumer.assign([place()]).unwrap();
    assert_eq!(kind(consumer.subscribe_pattern(glob("a"))), ErrorKind::IllegalState);
    consumer.unsubscribe().unwrap();
    consumer.subscribe_pattern(glob("a")).unwrap();
    assert_eq!(poll(&mut consumer), ["a"]);
    assert_eq!(kind(log.consumer().subscribe_pattern(glob("a"))), ErrorKind::InvalidGroupId);
}

#[test]
fn a_static_member_that_comes_back_with_the_same_pattern_makes_no_rebalance() {
    let (_log, group) = log_with(&["a.x"]);
    let member = |pattern: &str| group.consumer().instance_id("i").subscribe_pattern(glob(pattern)).unwrap();
    let mut first = member("a.*");
    poll(&mut first);
    let generation = group.describe().unwrap().generation;
    drop(first);
    let mut second = member("a.*");
    poll(&mut second);
    assert_eq!((group.describe().unwrap().generation, assigned(&second)), (generation, vec!["a.x-0".into()]));
    drop(second);
    drop(member("*.x"));
    assert!(group.describe().unwrap().generation > generation);
}

#[cfg(feature = "regex")]
#[test]
fn regular_expressions_find_topics() {
    let (log, group) = log_with(&["t1", "t22", "tx"]);
    let mut consumer = group.subscribe_pattern(Pattern::regex(r"t\d+").unwrap()).unwrap();
    assert_eq!(poll(&mut consumer), ["t1", "t22"]);
    topic(&log, "t333", 1);
    assert_eq!(poll(&mut consumer), ["t333"]);
}
