//! The power goes: any of what was not flushed is gone, in any combination, and what was flushed never is.
//!
//! `TAPELOG_STATES=n` ends a test of states after so many.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tapelog::testing::{Moment, SimulatedDisk};
use tapelog::{Compression, Log, Partition, Record, TopicConfig};

use crate::model::{Expected, FOR_EVER, Model, SOON, TOPIC, builder, config};
use crate::report::{Random, Run, Tally, effort, run};

const PARTITIONS: u32 = 2;
const WORKERS: usize = 4;
/// Moments of one world, and states that are made of each.
const MOMENTS: usize = 24;
const DRAWS: usize = 10;

/// A log on a simulated disk, and what it must hold.
struct World {
    disk: SimulatedDisk,
    log: Log,
    partitions: Vec<Partition>,
    model: Model,
}

impl World {
    fn new() -> World {
        World::with(config(PARTITIONS))
    }

    fn with(config: TopicConfig) -> World {
        let disk = SimulatedDisk::new();
        let log = builder().max_block(SOON).simulated_disk(&disk).open("/log").unwrap();
        let topic = log.ensure_topic(TOPIC, config).unwrap();
        let partitions = (0..PARTITIONS).map(|n| topic.partition(n).unwrap()).collect();
        World { disk, log, partitions, model: Model::new(PARTITIONS) }
    }

    /// Appends more at once than a block holds, which is a run of blocks, all of which count or none.
    fn append_a_run(&mut self, random: &mut Random) {
        let number = random.below(u64::from(PARTITIONS)) as usize;
        self.model.0[number].append(&self.partitions[number], 150 + random.below(60)).unwrap();
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
fn check(left: SimulatedDisk, model: &Model, epoch: u32, tally: &mut Tally, words: &str) {
    // Nothing is appended, so that threads would have nothing to do, and nobody looks into what is mapped.
    let to_read = builder().undriven().simulated_disk(&left.unwatched());
    let opened = tally.guard(|| format!("{words}: panicked"), || to_read.open("/log"));
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
    // With threads that write meanwhile, or with all of it in staging but what is flushed.
    let to_write = builder().simulated_disk(left);
    let to_write = if random.one_in(2) { to_write } else { to_write.undriven() };
    let Ok(log) = to_write.open("/log") else { return };
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
    let log = match builder().undriven().simulated_disk(&again.unwatched()).open("/log") {
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
/// Some wait for the threads of their world, and meanwhile others open what is left of theirs.
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
                tally.cycles += 1;
                check(left, &world.model, epoch, tally, &format!("subset {subset:b} of {things}"));
            }
        });
        println!("power cut: the largest set had {} things", largest.into_inner());
    });
}

#[test]
fn random_states_after_a_power_cut() {
    run("power cut: random states, torn and of earlier writes", |run| {
        in_parallel(run, effort(15, 7_200), effort(u64::MAX, 10_000_000), |random, tally, has_time| {
            // Where appends are larger than a block, so are segments. Blocks are compressed: one of sixteen pages that are lost
            // or torn each by itself is as good as never there.
            let has_runs = random.one_in(8);
            let mut config = config(PARTITIONS);
            if has_runs {
                config = config.segment_bytes(300_000).compression(Compression::Lz4);
            }
            let mut world = World::with(config);
            let mut drawn = HashSet::new();
            for _ in 0..MOMENTS {
                for _ in 0..1 + random.below(12) {
                    world.step(random);
                }
                if has_runs && random.one_in(8) {
                    world.append_a_run(random);
                    (0..random.below(3)).for_each(|_| world.step(random));
                }
                let (moment, epoch) = frozen(&world);
                // Of the same bytes, and against the same model.
                let mut checked = HashSet::new();
                for _ in 0..DRAWS {
                    let seed = random.next();
                    let (left, words) = (moment.power_cut_at_random(seed), format!("seed {seed}"));
                    let digest = left.digest();
                    tally.cycles += 1;
                    tally.distinct += u64::from(drawn.insert(digest));
                    if random.one_in(8) {
                        check_twice(&left, &world.model, random, tally, &words);
                    } else if checked.insert(digest) {
                        check(left, &world.model, epoch, tally, &words);
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
    check(before.power_cut(|_| false), &world.model, 0, &mut tally, "forgets");
    assert!(tally.lost > 0);
}

/// A digest that took different states for one would leave some of them out.
#[test]
fn the_digest_of_a_disk_tells_every_bit() {
    let mut world = World::new();
    let mut random = Random::new(2);
    (0..40).for_each(|_| world.step(&mut random));
    let (moment, _) = frozen(&world);
    let left = moment.process_death();
    let before = left.digest();
    assert_eq!(moment.process_death().digest(), before);
    for (path, len) in left.files() {
        for _ in 0..64.min(len) {
            let bit = random.below(len * 8);
            left.flip(&path, bit).unwrap();
            assert_ne!(left.digest(), before, "{} {bit}", path.display());
            left.flip(&path, bit).unwrap();
            assert_eq!(left.digest(), before, "{} {bit}", path.display());
        }
    }
    for thing in 0..moment.unsynced() {
        let without = moment.power_cut(|n| n != thing);
        assert_eq!(moment.power_cut(|n| n != thing).digest(), without.digest());
    }
}
