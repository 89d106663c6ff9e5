//! Eight consumers of one group that join, leave, stall and panic at random, over 32 partitions with live producers:
//! every record is delivered, none is skipped, and none comes twice but after a hand-over without a commit.
//!
//! ```text
//! cargo test --release --test soak                                             three seconds
//! TAPELOG_SOAK_SECONDS=60 cargo test --release --test soak -- --nocapture      as long as you like
//! TAPELOG_SEED=1234 cargo test --release --test soak -- --nocapture            the choices of an earlier run
//! ```
//!
//! A run prints its seed. The seed fixes what each thread chooses to do, not how the threads meet, so that a failure
//! comes again from the same seed often, but not always; `consumer/group_tests.rs` plays orders that do.
#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tapelog::assignor::{CooperativeSticky, Range, RoundRobin, Sticky};
use tapelog::consumer::{ConsumerHandle, GroupState, Rebalance};
use tapelog::{
    Compression, Consumer, ConsumerGroup, ErrorKind, Log, RebalanceListener, Record, Records, Result, Topic,
    TopicConfig, TopicPartition,
};

const MEMBERS: usize = 8;
const WRITERS: usize = 2;
/// Partitions at the beginning, and when the topic has grown.
const FEW: u32 = 24;
const MANY: u32 = 32;
/// Who does not poll for so long is taken out.
const INTERVAL: Duration = Duration::from_millis(60);
/// What takes longer hangs.
const SOON: Duration = Duration::from_secs(60);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64, who: u64) -> Self {
        Random((seed ^ who.wrapping_mul(0xD1B5_4A32_D192_ED03)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

// ---- what happened, and what may not ------------------------------------------------------------------------

/// One stay of a partition with one consumer.
struct Stay {
    /// The offset that must come next.
    next: u64,
    /// What had been delivered to others before: below this, records come again.
    again_below: u64,
    /// The last number of each writer.
    last: [Option<u64>; WRITERS],
    /// The moment at which somebody else was assigned the partition, if that was while this consumer did not know.
    taken: Option<u64>,
}

#[derive(Default)]
struct Part {
    /// How often each record was delivered.
    counts: Vec<u32>,
    /// The end of what those who owned the partition were given.
    high: u64,
    /// The highest offset of which a commit has succeeded.
    committed: u64,
    /// Which life owns it.
    owner: Option<u64>,
}

/// What the consumers saw, checked as they see it.
#[derive(Default)]
struct Ledger {
    now: u64,
    parts: Vec<Part>,
    /// By life of a consumer, and partition.
    stays: HashMap<(u64, u32), Stay>,
    wrong: Vec<String>,
    counters: BTreeMap<&'static str, u64>,
}

impl Ledger {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn count(&mut self, what: &'static str, n: u64) {
        *self.counters.entry(what).or_default() += n;
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < 20 {
            eprintln!("soak: {what}");
            self.wrong.push(what);
        }
    }

    fn assigned(&mut self, life: u64, partition: u32, committed: u64) {
        let now = self.tick();
        self.count("stays", 1);
        let part = &mut self.parts[partition as usize];
        let (high, acknowledged) = (part.high, part.committed);
        let before = part.owner.replace(life);
        if committed > high {
            self.wrong(format!("{partition}: committed {committed}, but only {high} were delivered"));
        }
        if committed < acknowledged {
            self.wrong(format!("{partition}: the commit of {acknowledged} was lost to {committed}"));
        }
        if let Some(before) = before {
            match self.stays.get_mut(&(before, partition)) {
                Some(stay) if before != life => stay.taken = Some(now),
                _ => self.wrong(format!("{partition}: assigned twice to {life}")),
            }
            self.count("taken from the silent", 1);
        }
        if committed < high {
            self.count("hand-overs without a commit", 1);
        }
        let stay = Stay { next: committed, again_below: high, last: [None; WRITERS], taken: None };
        self.stays.insert((life, partition), stay);
    }

    /// What a poll that began at `began` returned.
    fn delivered(&mut self, life: u64, began: u64, records: &Records) {
        for record in records {
            let (partition, offset) = (record.partition(), record.offset());
            let word =
                |at: usize| u64::from_le_bytes(record.value().unwrap()[at..at + 8].try_into().unwrap());
            let (writer, number) = (word(0) as usize, word(8));
            let Some(stay) = self.stays.get_mut(&(life, partition)) else {
                self.wrong(format!("{partition}@{offset}: read by {life}, which does not have it"));
                return;
            };
            let expected = std::mem::replace(&mut stay.next, offset + 1);
            let before = stay.last[writer].replace(number);
            let (taken, again_below) = (stay.taken, stay.again_below);
            if offset != expected {
                self.wrong(format!("{partition}@{offset}: out of order, {expected} was next"));
            }
            if before.is_some_and(|before| before + 1 != number) {
                self.wrong(format!("{partition}@{offset}: writer {writer} wrote {number} after {before:?}"));
            }
            if taken.is_some_and(|taken| taken < began) {
                self.wrong(format!("{partition}@{offset}: read by {life} though it has another owner"));
            }
            let part = &mut self.parts[partition as usize];
            part.counts.resize(part.counts.len().max(offset as usize + 1), 0);
            part.counts[offset as usize] += 1;
            // Who was taken out between the end of its poll and this line speaks for itself alone.
            if taken.is_none() && offset >= part.high {
                part.high = offset + 1;
            } else {
                self.count("duplicates", 1);
                if taken.is_none() && offset >= again_below {
                    self.wrong(format!("{partition}@{offset}: twice, though it was committed below"));
                }
            }
        }
        self.count("deliveries", records.len() as u64);
    }

    /// Where a consumer stands in all that it has.
    fn positions(&self, life: u64) -> Vec<(u32, u64)> {
        let own = self.stays.iter().filter(|((of, _), _)| *of == life);
        own.map(|((_, partition), stay)| (*partition, stay.next)).collect()
    }

    /// A commit that was begun at `began` has succeeded.
    fn committed(&mut self, life: u64, began: u64, partition: u32, offset: u64) {
        let taken = self.stays.get(&(life, partition)).and_then(|stay| stay.taken);
        if taken.is_some_and(|taken| taken < began) {
            self.wrong(format!("{partition}: {life} committed {offset} though it has another owner"));
        }
        let part = &mut self.parts[partition as usize];
        part.committed = part.committed.max(offset);
    }

    /// The consumer no longer has the partition: it was told so, or is gone itself.
    fn ended(&mut self, life: u64, partition: u32) -> Option<Stay> {
        let part = &mut self.parts[partition as usize];
        if part.owner == Some(life) {
            part.owner = None;
        }
        self.stays.remove(&(life, partition))
    }

    fn gone(&mut self, life: u64) {
        for (partition, _) in self.positions(life) {
            self.ended(life, partition);
        }
    }
}

// ---- consumers -------------------------------------------------------------------------------------------------

struct Scene {
    group: ConsumerGroup,
    topic: Topic,
    ledger: Arc<Mutex<Ledger>>,
    lives: AtomicU64,
    handles: [Mutex<Option<ConsumerHandle>>; MEMBERS],
    over: AtomicBool,
}

/// Notes what it is told, and then may commit, take its time, fail, panic or close.
struct Witness {
    life: u64,
    auto_commit: bool,
    ledger: Arc<Mutex<Ledger>>,
    random: Random,
    /// Whether it failed or panicked since somebody looked.
    failed: Arc<AtomicBool>,
}

impl Witness {
    fn misbehave(&mut self, rebalance: &mut Rebalance<'_>) -> Result<()> {
        match self.random.below(60) {
            0 => {
                self.failed.store(true, Ordering::Release);
                panic!("on purpose, in a listener");
            }
            1 => {
                self.failed.store(true, Ordering::Release);
                rebalance.seek(&TopicPartition::new("elsewhere", 0), 0)
            }
            2 => {
                rebalance.close();
                Ok(())
            }
            3 => {
                std::thread::sleep(INTERVAL * 2); // it is inside of a poll, and so not silent
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl RebalanceListener for Witness {
    fn on_assigned(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        for tp in partitions {
            let committed = rebalance.committed(tp)?.unwrap_or(0);
            self.ledger.lock().unwrap().assigned(self.life, tp.partition(), committed);
        }
        self.misbehave(rebalance)
    }

    fn on_revoked(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        let began = self.ledger.lock().unwrap().tick();
        let all = if self.auto_commit || self.random.one_in(2) { rebalance.commit().is_ok() } else { false };
        for tp in partitions {
            let committed = rebalance.committed(tp)?.unwrap_or(0);
            let mut ledger = self.ledger.lock().unwrap();
            let Some(stay) = ledger.stays.get(&(self.life, tp.partition())) else {
                let life = self.life;
                ledger.wrong(format!("{tp}: revoked from {life}, which does not have it"));
                continue;
            };
            let (next, taken) = (stay.next, stay.taken);
            if taken.is_some() {
                ledger.wrong(format!("{tp}: revoked though somebody else has it already"));
            }
            if all && committed != next {
                ledger.wrong(format!("{tp}: given up at {next} with a commit of {committed}"));
            }
            if all {
                ledger.committed(self.life, began, tp.partition(), next);
            }
            ledger.ended(self.life, tp.partition());
        }
        self.misbehave(rebalance)
    }

    fn on_lost(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.count("lost", partitions.len() as u64);
        for tp in partitions {
            if ledger.ended(self.life, tp.partition()).is_none() {
                let life = self.life;
                ledger.wrong(format!("{tp}: lost by {life}, which does not have it"));
            }
        }
        drop(ledger);
        self.misbehave(rebalance)
    }
}

/// Whoever panics or drops its consumer is told of nothing: this goes first.
struct Gone<'a>(&'a Scene, u64);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.ledger.lock().unwrap().gone(self.1);
    }
}

/// A consumer and what belongs to its life.
struct Member {
    consumer: Consumer,
    life: u64,
    failed: Arc<AtomicBool>,
}

impl Scene {
    fn member(&self, who: usize, instance: Option<&str>, random: &mut Random) -> Result<Member> {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let failed = Arc::new(AtomicBool::new(false));
        let auto_commit = random.one_in(3);
        let witness = Witness {
            life,
            auto_commit,
            ledger: Arc::clone(&self.ledger),
            random: Random::new(random.0, life),
            failed: Arc::clone(&failed),
        };
        let mut builder = self.group.consumer().max_poll_interval(INTERVAL).session_timeout(INTERVAL);
        builder = builder.max_poll_records(1 + random.below(200) as usize).listener(witness);
        if auto_commit {
            builder = builder.auto_commit(ms(1 + random.below(20)));
        }
        if let Some(instance) = instance {
            builder = builder.instance_id(instance);
        }
        let consumer = builder.subscribe(["t"])?;
        *self.handles[who].lock().unwrap() = Some(consumer.handle());
        Ok(Member { consumer, life, failed })
    }

    /// One consumer after another, until it is over.
    fn live(&self, who: usize, mut random: Random) {
        while !self.over.load(Ordering::Acquire) {
            let lived = catch_unwind(AssertUnwindSafe(|| self.one_life(who, &mut random)));
            let mut ledger = self.ledger.lock().unwrap();
            match lived {
                Ok(Ok(())) => {}
                Ok(Err(e)) => ledger.wrong(format!("a life ended with {e}")),
                Err(_) => ledger.count("panics of a loop", 1),
            }
            drop(ledger);
            std::thread::sleep(ms(random.below(10)));
        }
    }

    fn one_life(&self, who: usize, random: &mut Random) -> Result<()> {
        let instance = (who < 3 && random.one_in(2)).then(|| format!("static-{who}"));
        let mut member = self.member(who, instance.as_deref(), random)?;
        let mut gone = Gone(self, member.life);
        for _ in 0..random.below(80) {
            if !self.turn(&mut member, random)? {
                break;
            }
            if instance.is_some() && random.one_in(40) {
                // The same member once more, as if this one's process had died; this one finds out.
                let next = self.member(who, instance.as_deref(), random)?;
                let after = Gone(self, next.life);
                let before = std::mem::replace(&mut member, next);
                self.turn(&mut member, random)?;
                drop(std::mem::replace(&mut gone, after));
                drop(before);
            }
        }
        if random.one_in(2) {
            let closed = member.consumer.close();
            if let Err(e) = closed
                && !member.failed.load(Ordering::Acquire)
                && e.kind() != ErrorKind::CommitFailed
            {
                return Err(e);
            }
        }
        drop(gone);
        Ok(())
    }

    /// A poll and what follows; false where that was the end.
    fn turn(&self, member: &mut Member, random: &mut Random) -> Result<bool> {
        let life = member.life;
        let timeout = [Duration::ZERO, ms(1), ms(20)][random.below(3) as usize];
        let began = self.ledger.lock().unwrap().tick();
        let records = match member.consumer.poll(timeout) {
            Ok(records) => records,
            Err(e) => {
                return match e.kind() {
                    ErrorKind::Closed | ErrorKind::FencedInstanceId => Ok(false),
                    ErrorKind::Wakeup | ErrorKind::CommitFailed => Ok(true),
                    _ if member.failed.swap(false, Ordering::AcqRel) => Ok(true),
                    _ => Err(e),
                };
            }
        };
        self.ledger.lock().unwrap().delivered(life, began, &records);
        let committed = match random.below(60) {
            0 => {
                self.ledger.lock().unwrap().count("stalls", 1);
                std::thread::sleep(INTERVAL + ms(random.below(60)));
                Ok(())
            }
            1 => panic!("on purpose, in a loop"),
            2 => {
                let some: Vec<_> =
                    member.consumer.assignment().into_iter().filter(|_| random.one_in(4)).collect();
                member.consumer.pause(&some)?;
                Ok(())
            }
            3..6 => {
                let paused = member.consumer.paused();
                member.consumer.resume(&paused)?;
                Ok(())
            }
            6 => match member.consumer.enforce_rebalance() {
                Err(e) if e.kind() == ErrorKind::UnknownMemberId => Ok(()), // it was silent
                done => done,
            },
            7 => {
                let left = member.consumer.unsubscribe();
                if left.is_err() && !member.failed.swap(false, Ordering::AcqRel) {
                    return left.map(|()| false);
                }
                member.consumer.subscribe(["t"])?;
                Ok(())
            }
            8..16 => self.commit_some(member, &records, random),
            16..36 => self.commit_all(member),
            36..40 => {
                self.commit_later(member);
                Ok(())
            }
            _ => Ok(()),
        };
        match committed {
            Err(e) if e.kind() == ErrorKind::FencedInstanceId => Ok(false),
            Err(e) if !matches!(e.kind(), ErrorKind::CommitFailed | ErrorKind::Closed) => Err(e),
            _ => Ok(true),
        }
    }

    /// Commits after a record in the middle, as one does who handles them one by one.
    fn commit_some(&self, member: &mut Member, records: &Records, random: &mut Random) -> Result<()> {
        let began = self.ledger.lock().unwrap().tick();
        for record in records {
            if random.one_in(16) {
                member.consumer.commit_record(&record)?;
                let (partition, offset) = (record.partition(), record.offset());
                self.ledger.lock().unwrap().committed(member.life, began, partition, offset + 1);
            }
        }
        Ok(())
    }

    fn commit_all(&self, member: &mut Member) -> Result<()> {
        let (began, positions) = {
            let mut ledger = self.ledger.lock().unwrap();
            (ledger.tick(), ledger.positions(member.life))
        };
        member.consumer.commit()?;
        let mut ledger = self.ledger.lock().unwrap();
        ledger.count("commits", 1);
        for (partition, offset) in positions {
            ledger.committed(member.life, began, partition, offset);
        }
        Ok(())
    }

    fn commit_later(&self, member: &mut Member) {
        let (life, ledger) = (member.life, Arc::clone(&self.ledger));
        let (began, positions) = {
            let mut ledger = ledger.lock().unwrap();
            (ledger.tick(), ledger.positions(life))
        };
        member.consumer.commit_async(move |result| {
            if result.is_ok() {
                let mut ledger = ledger.lock().unwrap();
                for (partition, offset) in positions {
                    ledger.committed(life, began, partition, offset);
                }
            }
        });
    }

    // ---- the others ----------------------------------------------------------------------------------------

    /// Sends in bursts until it is over; returns how many.
    fn write(&self, log: &Log, writer: usize, mut random: Random) -> u64 {
        let producer = log.producer().build().unwrap();
        let mut numbers = [0u64; MANY as usize];
        while !self.over.load(Ordering::Acquire) {
            let partition = random.below(u64::from(self.topic.partitions())) as u32;
            for _ in 0..1 + random.below(60) {
                let number = &mut numbers[partition as usize];
                let value = [(writer as u64).to_le_bytes(), number.to_le_bytes()].concat();
                producer.send(&self.topic, Record::new(&value).partition(partition)).unwrap();
                *number += 1;
            }
            std::thread::sleep(ms(random.below(8)));
        }
        numbers.iter().sum()
    }

    /// Wakes consumers that wait, and has the group follow one assignor after the other.
    fn disturb(&self, time: Duration, mut random: Random) {
        let begun = Instant::now();
        while begun.elapsed() < time && self.ledger.lock().unwrap().wrong.is_empty() {
            std::thread::sleep(ms(random.below(30)));
            if random.one_in(8) {
                let group = self.group.clone();
                drop(match random.below(4) {
                    0 => group.assignor(Range),
                    1 => group.assignor(RoundRobin),
                    2 => group.assignor(Sticky),
                    _ => group.assignor(CooperativeSticky),
                });
            }
            let handle = self.handles[random.below(MEMBERS as u64) as usize].lock().unwrap().clone();
            if let Some(handle) = handle.filter(|_| random.one_in(2)) {
                handle.wakeup();
            }
            if begun.elapsed() > time / 3 && self.topic.partitions() == FEW {
                self.topic.add_partitions(MANY).unwrap();
            }
        }
        self.over.store(true, Ordering::Release);
    }

    /// Reads what nobody has committed, alone.
    fn drain(&self) {
        let mut random = Random::new(0, 0);
        let deadline = Instant::now() + SOON;
        let ends: Vec<u64> =
            (0..self.topic.partitions()).map(|p| self.topic.partition(p).unwrap().end_offset()).collect();
        while Instant::now() < deadline {
            let mut member = self.member(0, None, &mut random).unwrap();
            let _gone = Gone(self, member.life);
            // Whatever its listener does to it: another one goes on.
            while self.turn_of_the_last(&mut member) && Instant::now() < deadline {
                let ledger = self.ledger.lock().unwrap();
                if ledger.parts.iter().zip(&ends).all(|(part, end)| part.high == *end) {
                    return;
                }
            }
        }
        let ledger = self.ledger.lock().unwrap();
        let left: Vec<_> = ledger.parts.iter().zip(&ends).map(|(part, end)| (part.high, *end)).collect();
        panic!("not delivered: {left:?}");
    }

    fn turn_of_the_last(&self, member: &mut Member) -> bool {
        let began = self.ledger.lock().unwrap().tick();
        match member.consumer.poll(INTERVAL) {
            Ok(records) => self.ledger.lock().unwrap().delivered(member.life, began, &records),
            Err(e) => assert!(
                e.kind() == ErrorKind::Closed || member.failed.swap(false, Ordering::AcqRel),
                "the last poll failed: {e}"
            ),
        }
        member.consumer.poll(Duration::ZERO).is_ok_and(|records| {
            self.ledger.lock().unwrap().delivered(member.life, began, &records);
            true
        })
    }
}

/// Panics on purpose say nothing.
fn quieten() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().downcast_ref::<&str>().is_some_and(|said| said.starts_with("on purpose")) {
            before(info);
        }
    }));
}

/// Ends the process where the threads do not end by themselves.
fn join_all<T>(threads: Vec<std::thread::ScopedJoinHandle<'_, T>>, deadline: Instant) -> Vec<T> {
    while threads.iter().any(|thread| !thread.is_finished()) {
        if Instant::now() > deadline {
            eprintln!("soak: a thread hangs");
            std::process::abort();
        }
        std::thread::sleep(ms(5));
    }
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|n| n.parse().unwrap())
}

#[test]
fn members_that_come_stall_panic_and_go_deliver_everything() {
    let seconds = number_of("TAPELOG_SOAK_SECONDS").unwrap_or(3);
    let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let seed = number_of("TAPELOG_SEED").unwrap_or_else(|| u64::from(clock()));
    println!("soak: TAPELOG_SEED={seed} TAPELOG_SOAK_SECONDS={seconds}");
    quieten();
    let dir = tempfile::tempdir().unwrap();
    // Little memory, so that whoever is behind reads from the disk.
    let log = Log::builder().memory_budget(2 << 20).max_block(SOON).open(dir.path()).unwrap();
    let config = TopicConfig::new().partitions(FEW).segment_bytes(1 << 18).compression(Compression::Lz4);
    let topic = log.create_topic("t", config).unwrap();
    let mut ledger = Ledger::default();
    ledger.parts.resize_with(MANY as usize, Part::default);
    let scene = Scene {
        group: log.consumer_group("g").unwrap(),
        topic,
        ledger: Arc::new(Mutex::new(ledger)),
        lives: AtomicU64::new(0),
        handles: Default::default(),
        over: AtomicBool::new(false),
    };
    let time = Duration::from_secs(seconds);
    let deadline = Instant::now() + time + SOON;
    let written: u64 = std::thread::scope(|scope| {
        let scene = &scene;
        let members =
            (0..MEMBERS).map(|who| scope.spawn(move || scene.live(who, Random::new(seed, who as u64))));
        let members: Vec<_> = members.collect();
        let writers = (0..WRITERS).map(|writer| {
            let random = Random::new(seed, 100 + writer as u64);
            let log = &log;
            scope.spawn(move || scene.write(log, writer, random))
        });
        let writers: Vec<_> = writers.collect();
        scene.disturb(time, Random::new(seed, 200));
        join_all(members, deadline);
        join_all(writers, deadline).into_iter().sum()
    });
    scene.drain();
    let mut ledger = scene.ledger.lock().unwrap();
    let counts: Vec<u32> = ledger.parts.iter().flat_map(|part| part.counts.iter().copied()).collect();
    ledger.count("records", written);
    ledger.count("lives", scene.lives.load(Ordering::Relaxed));
    println!("soak: TAPELOG_SEED={seed} {:?}", ledger.counters);
    assert!(ledger.wrong.is_empty(), "TAPELOG_SEED={seed}: {:#?}", ledger.wrong);
    assert_eq!(counts.len() as u64, written, "TAPELOG_SEED={seed}: records that were sent and never came");
    assert!(counts.iter().all(|count| *count > 0), "TAPELOG_SEED={seed}: records that were skipped");
    let deliveries: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    assert_eq!(deliveries - written, ledger.counters.get("duplicates").copied().unwrap_or(0));
    assert_eq!(deliveries, ledger.counters["deliveries"]);
    let state = scene.group.describe().unwrap().state;
    assert!(matches!(state, GroupState::Empty | GroupState::Stable), "{state:?}"); // who died is missed later
}
