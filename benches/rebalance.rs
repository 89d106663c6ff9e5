//! What it costs a group of consumers that members come and go.
//!
//! `cargo bench --bench rebalance` takes some seconds. A topic has 32 partitions; one member polls in a loop on a thread of
//! its own, another one joins and leaves on this one, again and again, and takes half of the partitions with it. Nothing is
//! committed, so that whoever gets a partition has its first record to deliver at once.
//!
//! - **moved**: from the moment before the join, or the leave, until a partition that moves delivers to its new owner.
//! - **kept**: from the append to a partition that stays until it is delivered, with a join or a leave just
//!   before the append, and without.
//! - **poll**: an empty poll of all partitions, before and after many changes of the group.

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tapelog::{Consumer, ConsumerGroup, Log, Partition, Record, TopicConfig};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PARTITIONS: u32 = 32;
const WAIT: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    // Without `--bench` this is `cargo test --all-targets`: only whether it runs.
    let quick = !std::env::args().any(|arg| arg == "--bench");
    let rounds = if quick { 3 } else { 2_000 };
    println!("{:<44} {:>9} {:>9} {:>9} {:>9}  us", "", "p50", "p99", "p99.9", "max");
    moves(rounds)?;
    polls(if quick { 10 } else { 10_000 })
}

/// A delivery that the member that stays saw.
struct Seen {
    partition: u32,
    offset: u64,
    at: Instant,
}

struct Scene {
    group: ConsumerGroup,
    /// One that never moves.
    kept: Partition,
    seen: Receiver<Seen>,
}

fn moves(rounds: usize) -> Result<()> {
    let log = Log::in_memory()?;
    let topic = log.create_topic("t", TopicConfig::new().partitions(PARTITIONS))?;
    for number in 0..PARTITIONS {
        topic.partition(number)?.append(Record::new("first"))?;
    }
    let group = log.consumer_group("g")?;
    let mut stays = group.subscribe(["t"])?;
    let (sender, seen) = channel();
    let over = AtomicBool::new(false);
    let scene = Scene { group, kept: topic.partition(0)?, seen };
    let over = &over;
    std::thread::scope(|scope| {
        scope.spawn(move || -> tapelog::Result<()> {
            while !over.load(Ordering::Acquire) {
                let records = stays.poll(WAIT)?;
                let at = Instant::now();
                for record in &records {
                    // Nobody listens any more at the end.
                    let _ = sender.send(Seen { partition: record.partition(), offset: record.offset(), at });
                }
            }
            Ok(())
        });
        let result = scene.come_and_go(rounds);
        over.store(true, Ordering::Release);
        result
    })
}

impl Scene {
    fn come_and_go(&self, rounds: usize) -> Result<()> {
        let half = PARTITIONS as usize / 2;
        let (mut joined, mut left, mut kept, mut undisturbed) = (vec![], vec![], vec![], vec![]);
        self.wait(0, PARTITIONS as usize - 1)?;
        for _ in 0..rounds {
            let begun = Instant::now();
            let offset = self.append()?;
            undisturbed.push(self.wait(offset, 0)?.0 - begun);

            let begun = Instant::now();
            let mut member = self.group.subscribe(["t"])?;
            let appended = Instant::now();
            let offset = self.append()?;
            let times = first_deliveries(&mut member, half)
                .map_err(|e| format!("{e}: {:?}", self.group.describe()))?;
            joined.extend(times.into_iter().map(|at| at - begun));
            kept.push(self.wait(offset, 0)?.0.saturating_duration_since(appended));

            let begun = Instant::now();
            drop(member);
            let appended = Instant::now();
            let offset = self.append()?;
            let (at, moved) = self.wait(offset, half)?;
            kept.push(at.saturating_duration_since(appended));
            left.extend(moved.into_iter().map(|at| at - begun));
        }
        print("moved, to who joins", joined);
        print("moved, from who leaves", left);
        print("kept, the group changes just before", kept);
        print("kept, nothing changes", undisturbed);
        Ok(())
    }

    fn append(&self) -> Result<u64> {
        Ok(self.kept.append(Record::new("next"))?.offset())
    }

    /// Waits until the member that stays was given that record of the partition that it keeps, and the first record of so
    /// many others: when each came.
    fn wait(&self, offset: u64, others: usize) -> Result<(Instant, Vec<Instant>)> {
        let (mut kept, mut moved) = (None, Vec::new());
        loop {
            if let Some(kept) = kept.filter(|_| moved.len() == others) {
                return Ok((kept, moved));
            }
            let seen = self.seen.recv_timeout(SOON)?;
            if seen.partition != 0 {
                moved.push(seen.at);
            } else if seen.offset == offset {
                kept = Some(seen.at);
            }
        }
    }
}

/// Polls until that many partitions have delivered: when each did.
fn first_deliveries(member: &mut Consumer, partitions: usize) -> Result<Vec<Instant>> {
    let mut all = Vec::new();
    while all.len() < partitions {
        let records = member.poll(SOON)?;
        if records.is_empty() {
            return Err("nothing came".into());
        }
        all.extend(std::iter::repeat_n(Instant::now(), records.len()));
    }
    Ok(all)
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let last = times.len() - 1;
    let at = |share: f64| times[(share * last as f64) as usize].as_secs_f64() * 1e6;
    println!("{name:<44} {:>9.1} {:>9.1} {:>9.1} {:>9.1}", at(0.5), at(0.99), at(0.999), at(1.0));
}

/// What an empty poll takes at its best.
fn empty_poll(consumer: &mut Consumer) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        consumer.poll(Duration::ZERO)?;
        let begun = Instant::now();
        for _ in 0..1_000 {
            black_box(consumer.poll(Duration::ZERO)?);
        }
        best = best.min(begun.elapsed() / 1_000);
    }
    Ok(best)
}

fn polls(changes: usize) -> Result<()> {
    let log = Log::in_memory()?;
    log.create_topic("t", TopicConfig::new().partitions(PARTITIONS))?;
    let group = log.consumer_group("g")?;
    let mut stays = group.subscribe(["t"])?;
    let before = empty_poll(&mut stays)?;
    println!("\nan empty poll of {PARTITIONS} partitions {before:?}");
    for _ in 0..2 {
        for _ in 0..changes / 2 {
            let mut member = group.subscribe(["t"])?;
            for _ in 0..2 {
                member.poll(Duration::ZERO)?;
                stays.poll(Duration::ZERO)?;
            }
        }
        let now = empty_poll(&mut stays)?;
        println!("after {} changes more {now:?}: {:.2}", changes, now.as_secs_f64() / before.as_secs_f64());
    }
    Ok(())
}
