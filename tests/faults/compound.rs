//! Two faults, one upon the other: what each of them alone may cost may be gone, and no more; nothing is wrong, nothing goes
//! in silence, nothing panics.

use tapelog::admin::{RecoveryAction, RecoveryItem};
use tapelog::testing::{Fault, FaultPlan, Op, SimulatedDisk};
use tapelog::{ErrorKind, Partition, Record};

use crate::model::{Expected, Model, SOON, TOPIC, builder, config, value};
use crate::report::{Random, Tally, effort, run};

const PARTITIONS: u32 = 2;
const NEED_ROOM: [Op; 5] = [Op::Write, Op::Allocate, Op::Create, Op::CreateDir, Op::Rename];

/// What befalls a log that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// The process that opens it is killed at some call.
    KillInRecovery,
    /// The disk is full from some call of the open on.
    FullInRecovery,
    /// A call of a repair fails.
    ErrorInRepair,
    /// The power goes, and one bit of a segment turns over.
    CutAndFlip,
}

const BLOWS: [Blow; 4] = [Blow::KillInRecovery, Blow::FullInRecovery, Blow::ErrorInRepair, Blow::CutAndFlip];

/// A log on its way through faults.
struct Patient {
    disk: SimulatedDisk,
    model: Model,
    /// Whether what was not flushed may be gone, and something of what was.
    cut: bool,
    flipped: bool,
    /// What all opens and repairs told.
    told: Vec<RecoveryItem>,
    /// Whether one of them ended before it could tell anything.
    unheard: bool,
}

impl Patient {
    /// A log whose process died, at some moment of its work.
    fn new(random: &mut Random) -> Patient {
        let disk = SimulatedDisk::new();
        let log = builder().simulated_disk(&disk).open("/log").unwrap();
        let topic = log.ensure_topic(TOPIC, config(PARTITIONS)).unwrap();
        let mut model = Model::new(PARTITIONS);
        for _ in 0..10 + random.below(50) {
            let number = random.below(u64::from(PARTITIONS)) as u32;
            let partition = topic.partition(number).unwrap();
            let expected = &mut model.0[number as usize];
            match random.below(8) {
                0 => expected.flush(&partition).unwrap(),
                1 => partition.wait_written(expected.appended(), SOON).unwrap(),
                _ => expected.append(&partition, 1 + random.below(3)).unwrap(),
            }
        }
        let disk = disk.freeze().unwrap().process_death();
        Patient { disk, model, cut: false, flipped: false, told: Vec::new(), unheard: false }
    }

    fn suffer(&mut self, blow: Blow, random: &mut Random, tally: &mut Tally, words: &str) {
        tally.cycles += 1;
        let plan = FaultPlan::new();
        let k = 1 + random.below(120);
        let words = || format!("{words}, call {k}");
        let builder = builder().simulated_disk(&self.disk).faults(&plan);
        match blow {
            Blow::KillInRecovery => {
                plan.inject(Fault::nth(k).forever());
                if let Some(Ok(log)) = tally.guard(words, || builder.open("/log")) {
                    self.told.extend(log.recovery_report().items.clone());
                }
                self.unheard = true;
                self.disk = self.disk.freeze().unwrap().process_death();
            }
            Blow::FullInRecovery => {
                let op = NEED_ROOM[random.below(NEED_ROOM.len() as u64) as usize];
                plan.inject(Fault::nth(1 + k / 4).of(op).errno(Fault::ENOSPC).forever());
                match tally.guard(words, || builder.open("/log")) {
                    Some(Ok(log)) => self.told.extend(log.recovery_report().items.clone()),
                    Some(Err(e)) => {
                        self.unheard = true;
                        self.check_refusal(e.kind(), ErrorKind::NoSpace, tally, &words());
                    }
                    None => {}
                }
            }
            Blow::ErrorInRepair => {
                plan.inject(Fault::nth(k));
                match tally.guard(words, || builder.repair("/log")) {
                    Some(Ok(report)) => {
                        self.told.extend(report.recovery.items);
                        self.told.extend(report.items);
                    }
                    Some(Err(e)) => {
                        self.unheard = true;
                        self.check_refusal(e.kind(), ErrorKind::Storage, tally, &words());
                    }
                    None => {}
                }
            }
            Blow::CutAndFlip => {
                self.disk = self.disk.freeze().unwrap().power_cut_at_random(random.next());
                self.cut = true;
                let is_ours = |path: &str| path.contains("/topics/t.") && path.ends_with(".log");
                let files = self
                    .disk
                    .files()
                    .into_iter()
                    .filter(|(path, len)| *len > 0 && is_ours(&path.to_string_lossy()));
                let files: Vec<_> = files.collect();
                if !files.is_empty() {
                    let (path, len) = &files[random.below(files.len() as u64) as usize];
                    self.disk.flip(path, random.below(len * 8)).unwrap();
                    self.flipped = true;
                }
            }
        }
    }

    /// An open may fail for want of what it was refused, and where a file was damaged because nothing can be known of it.
    fn check_refusal(&self, kind: ErrorKind, expected: ErrorKind, tally: &mut Tally, words: &str) {
        let damage = matches!(kind, ErrorKind::CorruptRecord | ErrorKind::ForeignFile);
        if !(kind == expected || kind == ErrorKind::Storage || (damage && self.flipped)) {
            tally.wrong(|| format!("{words}: {kind:?}"));
        }
    }

    /// Opens what is left with nothing in the way, by a repair where it is refused, and compares.
    fn check(mut self, tally: &mut Tally, words: &str) {
        let open = || builder().simulated_disk(&self.disk).open("/log");
        let mut opened = tally.guard(|| format!("{words}: panicked"), open);
        if let Some(Err(e)) = &opened
            && self.flipped
        {
            self.check_refusal(e.kind(), ErrorKind::CorruptRecord, tally, words);
            let repair = builder().simulated_disk(&self.disk).repair("/log");
            let report = repair.unwrap_or_else(|e| panic!("{words}: not repaired: {e:?}"));
            self.told.extend(report.recovery.items);
            self.told.extend(report.items);
            opened = tally.guard(|| format!("{words}: panicked"), open);
        }
        let log = match opened {
            None => return,
            Some(Err(e)) => return tally.lost(1, || format!("{words}: does not open: {e:?}")),
            Some(Ok(log)) => log,
        };
        self.told.extend(log.recovery_report().items.clone());
        // An open that was killed or failed has told nobody; what it set aside says where it came from.
        let aside = self.unheard
            && self.disk.files().iter().any(|(path, _)| path.to_string_lossy().contains("/quarantine/"));
        let told = aside || self.told.iter().any(|item| item.action != RecoveryAction::Replayed);
        let topic = log.topic(TOPIC).unwrap();
        for (number, expected) in (0..PARTITIONS).zip(&self.model.0) {
            let partition = topic.partition(number).unwrap();
            self.check_partition(&partition, expected, told, tally, words);
            let end = partition.end_offset();
            let delivery = partition.append(Record::new("after all of it")).unwrap();
            partition.wait_durable(end + 1, SOON).unwrap();
            assert_eq!(delivery.offset(), end);
        }
        log.close(SOON).unwrap();
    }

    fn check_partition(
        &self,
        partition: &Partition,
        expected: &Expected,
        told: bool,
        tally: &mut Tally,
        words: &str,
    ) {
        let number = partition.topic_partition().partition();
        let acked = if self.cut { expected.durable } else { expected.appended() };
        let end = partition.end_offset();
        let (mut missing, mut refused) = (Vec::new(), false);
        let mut next = partition.start_offset();
        missing.extend(0..next);
        let mut reader = partition.reader(next).unwrap();
        while next < end {
            match reader.try_next() {
                Ok(Some(record)) => {
                    missing.extend(next..record.offset());
                    next = record.offset() + 1;
                    if record.value() != Some(&value(number, record.offset())[..]) {
                        tally.wrong(|| format!("{words}: offset {} has other bytes", next - 1));
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    if !(e.kind() == ErrorKind::CorruptRecord && self.flipped) {
                        tally.wrong(|| format!("{words}: {e:?}"));
                    }
                    refused = true;
                    missing.push(next);
                    next += 1;
                    reader = partition.reader(next).unwrap();
                }
            }
        }
        missing.extend(next..acked);
        missing.retain(|offset| *offset < acked);
        tally.acked += acked;
        let one_stretch = missing.windows(2).all(|two| two[0] + 1 == two[1]);
        let allowed = missing.is_empty() || (self.flipped && one_stretch);
        if !allowed {
            let count = missing.len() as u64;
            tally.lost(count, || format!("{words}, partition {number}: {missing:?} of {acked}"));
        }
        let silent = !(missing.is_empty() || told || refused);
        if silent {
            tally.wrong(|| format!("{words}, partition {number}: {missing:?} went in silence"));
        }
    }
}

#[test]
fn any_two_faults() {
    run("30 compound: any two of four faults", |run| {
        let mut seeds = run.random();
        for _ in 0..effort(400, 5_000) {
            let seed = seeds.next();
            let mut random = Random::new(seed);
            let first = random.below(4) as usize;
            let second = (first + 1 + random.below(3) as usize) % 4;
            let mut patient = Patient::new(&mut random);
            let mut words = format!("seed {seed:x}");
            for blow in [BLOWS[first], BLOWS[second]] {
                words = format!("{words}, {blow:?}");
                patient.suffer(blow, &mut random, &mut run.tally, &words);
            }
            patient.check(&mut run.tally, &words);
        }
    });
}
