//! The power goes: any of what was not flushed is gone, in any combination, and what was flushed never is.
//!
//! `TAPELOG_STATES=n` ends a test of states after so many.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tapelog::testing::{Moment, SimulatedDisk};
use tapelog::{Log, Partition, Record};

use crate::model::{Expected, FOR_EVER, Model, SOON, TOPIC, builder, config};
use crate::report::{Random, Run, Tally, effort, run};

const PARTITIONS: u32 = 2;
const WORKERS: usize = 4;

/// A log on a simulated disk, and what it must hold.
struct World {
    disk: SimulatedDisk,
    log: Log,
    partitions: Vec<Partition>,
    model: Model,
}

impl World {
    fn new() -> World {
        let disk = SimulatedDisk::new();
        let log = builder().simulated_disk(&disk).open("/log").unwrap();
        let topic = log.ensure_topic(TOPIC, config(PARTITIONS)).unwrap();
        let partitions = (0..PARTITIONS).map(|n| topic.partition(n).unwrap()).collect();
        World { disk, log, partitions, model: Model::new(PARTITIONS) }
    }

    /// Appends, writes or flushes.
    fn step(&mut self, random: &mut Random) {
        let number = random.below(u64::from(PARTITIONS)) as usize;
        let (partition, expected) = (&self.partitions[number], &mut self.model.0[number]);
        match random.below(12) {
            0 => expected.flush(partition).unwrap(),
            1..3 => partition.wait_written(expected.appended(), FOR_EVER).unwrap(),
            3..5 => expected.append(partition, 2 + random.below(3)).unwrap(),
            _ => expected.append(partition, 1).unwrap(),
        }
    }
}

/// Opens what the power left, checks it, and sees that the log goes on from there.
fn check(left: &SimulatedDisk, model: &Model, epoch: u32, tally: &mut Tally, words: &str) {
    tally.cycles += 1;
    let opened = tally.guard(|| format!("{words}: panicked"), || builder().simulated_disk(left).open("/log"));
    let log = match opened {
        None => return,
        Some(Err(e)) => return tally.lost(1, || format!("{words}: does not open: {e:?}")),
        Some(Ok(log)) => log,
    };
    model.check(&log, |expected| expected.durable, tally, words);
    let report = log.recovery_report();
    if report.leader_epoch <= epoch {
        tally.wrong(|| format!("{words}: the epoch is still {}", report.leader_epoch));
    }
    for item in report.items.iter().filter(|item| item.partition.is_some()) {
        let number = item.partition.as_ref().map_or(0, |tp| tp.partition()) as usize;
        let durable = model.0.get(number).map_or(0, |expected| expected.durable);
        let is_ours = item.partition.as_ref().is_some_and(|tp| tp.topic() == TOPIC);
        if is_ours && item.offsets.as_ref().is_some_and(|offsets| offsets.start < durable) {
            tally.wrong(|| format!("{words}: {item:?} of what was flushed"));
        }
    }
}

/// Opens what the power left, appends to it, and has the power go once more: while it was open, or just after.
fn check_twice(left: &SimulatedDisk, model: &Model, random: &mut Random, tally: &mut Tally, words: &str) {
    tally.cycles += 1;
    let Ok(log) = builder().simulated_disk(left).open("/log") else { return };
    let Ok(topic) = log.topic(TOPIC) else { return };
    let mut ends = Vec::new();
    for (number, expected) in (0u32..).zip(&model.0) {
        let partition = topic.partition(number).unwrap();
        let end = partition.end_offset();
        partition.append(Record::new("after the cut")).unwrap();
        if random.one_in(2) {
            partition.wait_durable(end + 1, FOR_EVER).unwrap();
            ends.push((end + 1, end));
        } else {
            ends.push((end.min(expected.durable), end));
        }
    }
    let again = left.freeze().unwrap().power_cut_at_random(random.next());
    drop((topic, log));
    let log = match builder().simulated_disk(&again).open("/log") {
        Ok(log) => log,
        Err(e) => return tally.lost(1, || format!("{words}: does not open a second time: {e:?}")),
    };
    let topic = log.topic(TOPIC).unwrap();
    for (number, (acked, end)) in (0u32..).zip(ends) {
        let partition = topic.partition(number).unwrap();
        let there = partition.end_offset();
        tally.acked += acked;
        tally.lost(acked.saturating_sub(there), || format!("{words}, a second time: {acked}, now {there}"));
        if there > end {
            let mut reader = partition.reader(end).unwrap();
            let record = reader.try_next().ok().flatten();
            if record.and_then(|r| r.value().map(<[u8]>::to_vec)).as_deref() != Some(b"after the cut") {
                tally.wrong(|| format!("{words}, a second time: offset {end} is not what was appended"));
            }
        }
    }
    log.close(SOON).unwrap();
}

fn frozen(world: &World) -> (Moment, u32) {
    (world.disk.freeze().unwrap(), world.log.recovery_report().leader_epoch)
}

/// Has some threads make worlds, cut them and add up what they counted, until the time has passed or all states were made.
/// Most of a state's time passes in waiting for threads that begin and end.
fn in_parallel(
    run: &mut Run,
    secs: u64,
    most: u64,
    world: impl Fn(&mut Random, &mut Tally, &dyn Fn() -> bool) + Sync,
) {
    let given = std::env::var("TAPELOG_STATES").ok().and_then(|s| s.parse().ok());
    let most = given.unwrap_or(most);
    let made = AtomicU64::new(0);
    let mut random = run.random();
    std::thread::scope(|scope| {
        let timed = &*run;
        let (made, world) = (&made, &world);
        let work = move |mut random: Random| {
            let mut tally = Tally::default();
            let has_time = || timed.has_time(secs);
            while has_time() && made.load(Ordering::Relaxed) < most {
                let before = tally.cycles;
                world(&mut random, &mut tally, &has_time);
                made.fetch_add(tally.cycles - before, Ordering::Relaxed);
            }
            tally
        };
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| Random::new(random.next()))
            .map(|random| scope.spawn(move || work(random)))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    })
    .into_iter()
    .for_each(|tally| run.tally.add(tally));
}

#[test]
fn every_subset_of_what_was_not_flushed() {
    run("power cut: every subset of unsynced pages, sizes and names", |run| {
        let most = effort(9, 14) as usize;
        let largest = AtomicUsize::new(0);
        in_parallel(run, effort(10, 1_200), u64::MAX, |random, tally, _| {
            let mut world = World::new();
            for _ in 0..random.below(30) {
                world.step(random);
            }
            // A flush of everything but the staging, so that few enough things are left; then a little more.
            world.log.sync().unwrap();
            for (partition, expected) in world.partitions.iter().zip(&mut world.model.0) {
                expected.flush(partition).unwrap();
            }
            for _ in 0..1 + random.below(4) {
                world.step(random);
            }
            let (moment, epoch) = frozen(&world);
            let things = moment.unsynced();
            if things > most {
                return;
            }
            largest.fetch_max(things, Ordering::Relaxed);
            for subset in 0..1u64 << things {
                let left = moment.power_cut(|n| subset >> n & 1 == 1);
                check(&left, &world.model, epoch, tally, &format!("subset {subset:b} of {things}"));
            }
        });
        println!("power cut: the largest set had {} things", largest.into_inner());
    });
}

#[test]
fn random_states_after_a_power_cut() {
    run("power cut: random states, torn and of earlier writes", |run| {
        in_parallel(run, effort(15, 7_200), effort(u64::MAX, 10_000_000), |random, tally, has_time| {
            let mut world = World::new();
            for _ in 0..40 {
                for _ in 0..random.below(12) {
                    world.step(random);
                }
                let (moment, epoch) = frozen(&world);
                for _ in 0..5 {
                    let seed = random.next();
                    let (left, words) = (moment.power_cut_at_random(seed), format!("seed {seed}"));
                    if random.one_in(8) {
                        check_twice(&left, &world.model, random, tally, &words);
                    } else {
                        check(&left, &world.model, epoch, tally, &words);
                    }
                }
                if !has_time() {
                    break;
                }
            }
        });
    });
}

/// The same disk, when only the process dies: nothing is missing.
#[test]
fn the_death_of_the_process_takes_nothing() {
    run("process death on the simulated disk", |run| {
        let mut random = run.random();
        for _ in 0..effort(20, 2_000) {
            let mut world = World::new();
            for _ in 0..20 + random.below(60) {
                world.step(&mut random);
            }
            let left = world.disk.freeze().unwrap().process_death();
            run.tally.cycles += 1;
            let log = builder().simulated_disk(&left).open("/log").unwrap();
            assert!(log.recovery_report().page_cache_survived && !log.recovery_report().has_losses());
            world.model.check(&log, Expected::appended, &mut run.tally, "process death");
        }
    });
}

/// The suite is worth nothing if a disk that forgets what it flushed passes it.
#[test]
fn a_disk_that_forgets_a_flush_is_found_out() {
    let mut world = World::new();
    let mut random = Random::new(1);
    (0..40).for_each(|_| world.step(&mut random));
    let before = world.disk.freeze().unwrap();
    for (partition, expected) in world.partitions.iter().zip(&mut world.model.0) {
        expected.append(partition, 1).unwrap();
        expected.flush(partition).unwrap();
    }
    let mut tally = Tally::default();
    check(&before.power_cut(|_| false), &world.model, 0, &mut tally, "forgets");
    assert!(tally.lost > 0);
}
