//! Three members of a group come and go, and the partitions of a topic move between them while records flow.
//!
//! `cargo run --example consumer_group`. Each line shows who reads which partition after a round, and how many
//! records each got in it. In the end every record was read exactly once.

use std::collections::BTreeMap;
use std::time::Duration;

use tapelog::{Consumer, Log, Record, Topic, TopicConfig};

const PARTITIONS: u32 = 6;
const A_ROUND: u64 = 60;
const AT_ONCE: Duration = Duration::ZERO;

/// A member by name; none while it is away.
struct Member {
    name: &'static str,
    consumer: Option<Consumer>,
}

fn produce(topic: &Topic, from: u64) -> tapelog::Result<()> {
    for n in from..from + A_ROUND {
        let partition = topic.partition((n % u64::from(PARTITIONS)) as u32)?;
        partition.append(Record::new(&n.to_be_bytes()))?;
    }
    Ok(())
}

/// Polls every member until none finds anything more to read or to hand over; returns what each one read.
fn drain(
    members: &mut [Member],
    seen: &mut BTreeMap<Vec<u8>, u32>,
) -> tapelog::Result<BTreeMap<&'static str, usize>> {
    let mut read = BTreeMap::new();
    let mut quiet = 0;
    // What one lets go of in a poll, another takes in its next: a few rounds without a record, and all is settled.
    while quiet < 4 {
        quiet += 1;
        for member in &mut *members {
            let Some(consumer) = &mut member.consumer else { continue };
            let records = consumer.poll(AT_ONCE)?;
            if records.is_empty() {
                continue;
            }
            quiet = 0;
            for record in &records {
                *seen.entry(record.value().unwrap_or_default().to_vec()).or_default() += 1;
            }
            *read.entry(member.name).or_default() += records.len();
            consumer.commit()?;
        }
    }
    Ok(read)
}

fn show(what: &str, members: &[Member], read: &BTreeMap<&str, usize>) {
    print!("{what:<18}");
    for member in members {
        let partitions = member.consumer.as_ref().map_or_else(String::new, |consumer| {
            let numbers =
                consumer.assignment().iter().map(|tp| tp.partition().to_string()).collect::<Vec<_>>();
            format!("[{}] {} read", numbers.join(" "), read.get(member.name).unwrap_or(&0))
        });
        print!(
            "  {}: {:<22}",
            member.name,
            if member.consumer.is_some() { partitions } else { "away".into() }
        );
    }
    println!();
}

fn main() -> tapelog::Result<()> {
    let log = Log::in_memory()?;
    let topic = log.create_topic("orders", TopicConfig::new().partitions(PARTITIONS))?;
    let group = log.consumer_group("desk")?;
    let mut members = ["ann", "bob", "cho"].map(|name| Member { name, consumer: None });
    let (mut sent, mut seen) = (0, BTreeMap::new());

    for what in ["ann joins", "bob joins", "cho joins", "bob closes", "bob is back", "ann is dropped"] {
        match what {
            "bob closes" => members[1].consumer.take().map_or(Ok(()), Consumer::close)?,
            "ann is dropped" => members[0].consumer = None,
            _ => {
                let joins = members.iter_mut().find(|member| what.starts_with(member.name));
                if let Some(member) = joins {
                    member.consumer = Some(group.subscribe(["orders"])?);
                }
            }
        }
        produce(&topic, sent)?;
        sent += A_ROUND;
        let read = drain(&mut members, &mut seen)?;
        show(what, &members, &read);
    }

    let twice = seen.values().filter(|times| **times > 1).count();
    println!("sent {sent}, read {}, twice {twice}, lag {}", seen.len(), group.lag()?.values().sum::<u64>());
    assert!(seen.len() as u64 == sent && twice == 0, "a record was lost or read twice");
    Ok(())
}
