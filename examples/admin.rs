//! Topics and groups under administration: create, describe, alter, delete records, and a group that goes back in time.
//!
//! `cargo run --example admin`

use std::sync::Arc;
use std::time::Duration;

use tapelog::clock::ManualClock;
use tapelog::consumer::ResetTo;
use tapelog::{Compression, Log, Record, Result, Timestamp, Topic, TopicConfig, TopicPartition};

fn describe(topic: &Topic) {
    let found = topic.describe();
    println!("topic {} with {} partitions", found.name, found.partitions);
    for setting in found.settings {
        println!("  {:<18} {:<14} {:?}", setting.name, setting.value, setting.source);
    }
}

fn main() -> Result<()> {
    // A day of trades, one a minute, by a clock that is set by hand.
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let log = Log::builder().clock(Arc::clone(&clock)).in_memory()?;
    let trades = log.create_topic("trades", TopicConfig::new().compression(Compression::Lz4))?;
    describe(&trades);

    // All of a change or nothing of it; asked first, done then.
    let change = TopicConfig::new().segment_bytes(16 << 20);
    trades.validate_alter(&change)?;
    trades.alter(change)?;
    trades.add_partitions(2)?;
    println!("\nafter the change:");
    describe(&trades);

    let producer = log.producer().build()?;
    for minute in 0..24 * 60 {
        let price = format!("{}", 100 + minute % 7);
        producer.send(&trades, Record::new(&price).partition(minute % 2))?;
        clock.advance(Duration::from_secs(60));
    }

    // A group that has read everything.
    let group = log.consumer_group("reports")?;
    let mut consumer = group.subscribe(["trades"])?;
    while !consumer.poll(Duration::ZERO)?.is_empty() {}
    consumer.commit()?;
    consumer.close()?;

    // Back by an hour: a dry run first.
    let places = (0..trades.partitions()).map(|n| TopicPartition::new("trades", n));
    let plan = group.plan_reset(places, ResetTo::Ago(Duration::from_secs(3600)))?;
    println!("\nback by an hour:");
    for (place, offset) in plan.offsets() {
        println!("  {place}: from {:?} to {offset}", group.committed(place)?);
    }
    plan.apply()?;
    let mut consumer = group.subscribe(["trades"])?;
    let again = consumer.poll(Duration::ZERO)?.len();
    println!("read again: {again} trades");
    assert_eq!(again, 60);
    consumer.close()?;

    // The first half of the day is not needed any more.
    for n in 0..trades.partitions() {
        let partition = trades.partition(n)?;
        let noon = partition.offset_for_time(Timestamp::from_millis(12 * 3_600_000))?;
        let start = partition.delete_records(noon.map_or(partition.end_offset(), |(offset, _)| offset))?;
        println!("{} starts at {start} now", partition.topic_partition());
    }
    log.close(Duration::from_secs(10))
}
