//! The power of a real file system goes while topics are created, altered, grown and deleted, records deleted and offsets
//! committed: each change is there or it is not, and those that were acknowledged are.
//!
//! The writer says on another file system what it begins and what is done, a line each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tapelog::{Log, Record, Result, TopicConfig, TopicPartition};

use crate::image::{Image, Kind};
use crate::power::{Writer, their_places};
use crate::report::{Random, Run, Tally, effort, run};

const CALLED: &str = "changes::a_writer_of_changes_whose_power_goes";
/// A topic that stays: offsets are committed of it, and its records deleted.
const KEPT: &str = "kept";
const RECORDS: u64 = 1_000;
const GROUP: &str = "g";

/// What changes: topics with their partitions and a setting, and where the topic that stays begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    topics: BTreeMap<String, (u32, u64)>,
    start: u64,
}

impl State {
    fn of(log: &Log) -> Result<State> {
        let described = log.topics().into_iter().map(|topic| topic.describe());
        let topics = described.map(|d| (d.name, (d.partitions, d.segment_bytes))).collect();
        Ok(State { topics, start: log.topic(KEPT)?.partition(0)?.start_offset() })
    }

    /// What it is after a change that the writer put into these words.
    fn after(&self, change: &str) -> State {
        let mut after = self.clone();
        let mut words = change.split(' ');
        let (what, name) = (words.next().unwrap(), words.next().unwrap_or_default());
        let number = words.next().map_or(0, |word| word.parse::<u64>().unwrap());
        let topic = after.topics.get_mut(name);
        match what {
            "create" => _ = after.topics.insert(name.into(), (number as u32, 20_000)),
            "grow" => topic.unwrap().0 = number as u32,
            "alter" => topic.unwrap().1 = number,
            "delete" => _ = after.topics.remove(name),
            "start" => after.start = name.parse().unwrap(),
            _ => {} // nothing that the catalog tells
        }
        after
    }
}

fn open(folder: &Path) -> Result<Log> {
    Log::builder().memory_budget(256 << 10).open(folder)
}

fn config() -> TopicConfig {
    TopicConfig::new().segment_bytes(20_000)
}

/// Makes changes until one fails or it is killed.
fn change(folder: &Path, said: &Path) -> Result<()> {
    let log = open(folder)?;
    let mut said = File::options().append(true).open(said).unwrap();
    let mut consumer = log.consumer_group(GROUP)?.consumer().build()?;
    let kept = TopicPartition::new(KEPT, 0);
    let mut random = Random::new(u64::from(std::process::id()));
    for count in 0.. {
        let name = ["a", "b", "c"][random.below(3) as usize];
        let topic = log.topic(name).ok();
        let words = match (random.below(8), &topic) {
            (0, _) => format!("start {}", (State::of(&log)?.start + random.below(3)).min(RECORDS)),
            (1, _) => "sync".into(),
            (2..4, _) => format!("commit {}", (count * 7 + random.below(7)) % RECORDS),
            (_, None) => format!("create {name} {}", 1 + random.below(3)),
            (4, Some(_)) => format!("alter {name} {}", 20_000 + random.below(30_000)),
            (5, Some(topic)) => format!("grow {name} {}", topic.partitions() + 1),
            (6, Some(_)) => format!("delete {name}"),
            (_, Some(topic)) => {
                // Records that say of which topic they are: one of this name may come after it.
                let id = topic.id().to_string();
                topic.partition(0)?.append_batch(&vec![Record::new(&id); 50])?;
                continue;
            }
        };
        let mut parts = words.split(' ').skip(1);
        let first = parts.next().unwrap_or_default();
        let number = parts.next().unwrap_or(first).parse::<u64>().unwrap_or(0);
        said.write_all(format!("begin {words}\n").as_bytes()).unwrap();
        match (words.split(' ').next().unwrap(), topic) {
            ("create", _) => drop(log.create_topic(name, config().partitions(number as u32))?),
            ("alter", Some(topic)) => topic.alter(TopicConfig::new().segment_bytes(number))?,
            ("grow", Some(topic)) => topic.add_partitions(number as u32)?,
            ("delete", _) => log.delete_topic(name)?,
            ("start", _) => drop(log.topic(KEPT)?.partition(0)?.delete_records(number)?),
            ("sync", _) => log.sync()?,
            _ => consumer.commit_offsets([(kept.clone(), number)])?,
        }
        said.write_all(b"done\n").unwrap();
    }
    Ok(())
}

/// Not a test but what the tests run as another process.
#[test]
fn a_writer_of_changes_whose_power_goes() {
    let Some((folder, said)) = their_places() else { return };
    if said.as_os_str() == "nothing" {
        // It opens the log and no more.
        let _log = open(&folder);
        std::thread::sleep(Duration::from_secs(60));
    } else {
        // That it fails when the power has gone is as it should be.
        let _ = change(&folder, &said);
    }
}

struct World {
    image: Image,
    folder: PathBuf,
    said: PathBuf,
    state: State,
    committed: Option<u64>,
    /// How much the writer had said when the power went.
    sure: u64,
}

impl World {
    fn new(image: Image) -> World {
        let (folder, said) = (image.path().join("log"), image.beside.join("said"));
        let mut world = World { image, folder, said, state: State::default(), committed: None, sure: 0 };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let log = open(&self.folder).unwrap();
        let partition = log.create_topic(KEPT, config()).unwrap().partition(0).unwrap();
        for _ in 0..RECORDS / 100 {
            partition.append_batch(&vec![Record::new("kept"); 100]).unwrap();
        }
        partition.wait_durable(RECORDS, Duration::MAX).unwrap();
        (self.state, self.committed) = (State::of(&log).unwrap(), None);
        log.close(Duration::from_secs(20)).unwrap();
    }

    /// Has a writer run for a while, and the power go; how much had been said when it went.
    fn run_and_cut(
        &mut self,
        said: &Path,
        micros: u64,
        journal: bool,
        tally: &mut Tally,
        words: &str,
    ) -> u64 {
        let mut writer = Writer::start(CALLED, &self.folder, said);
        std::thread::sleep(Duration::from_micros(micros));
        let ended = writer.has_ended();
        let said_before = std::fs::metadata(&self.said).unwrap().len();
        self.image.cut(journal);
        let odd = writer.kill();
        if ended || odd.is_some() {
            tally.wrong(|| format!("{words}: the writer ended by itself: {odd:?}"));
        }
        said_before
    }

    fn cut(&mut self, random: &mut Random, tally: &mut Tally, words: &str) {
        File::create(&self.said).unwrap();
        let micros = 5_000 + random.below(40_000);
        // What is done while the plug is pulled may be there or not: there ext4 answers a flush that is under way with success.
        self.sure = self.run_and_cut(&self.said.clone(), micros, random.one_in(3), tally, words);
        self.image.remount(random.next());
        if random.one_in(4) {
            // Once more, while it recovers.
            let micros = 1_000 + random.below(8_000);
            self.run_and_cut(Path::new("nothing"), micros, random.one_in(3), tally, words);
            self.image.remount(random.next());
        }
        tally.cycles += 1;
        let opened = tally.guard(|| format!("{words}: panicked"), || open(&self.folder));
        match opened {
            None => {}
            Some(Err(e)) => tally.lost(1, || format!("{words}: does not open: {e:?}")),
            Some(Ok(log)) => {
                if let Err(e) = self.check(&log, tally, words) {
                    tally.wrong(|| format!("{words}: {e:?}"));
                }
                if random.one_in(3) {
                    log.close(Duration::from_secs(20)).unwrap();
                }
            }
        }
        let room = rustix::fs::statvfs(self.image.path()).unwrap();
        if room.f_bfree < room.f_blocks / 2 {
            std::fs::remove_dir_all(&self.folder).unwrap();
            self.begin();
        }
    }

    fn check(&mut self, log: &Log, tally: &mut Tally, words: &str) -> Result<()> {
        let said = std::fs::read_to_string(&self.said).unwrap();
        let mut lines = said.lines().peekable();
        let mut at = 0;
        let (mut states, mut commits) = (vec![self.state.clone()], vec![self.committed]);
        while let Some(change) = lines.next().and_then(|line| line.strip_prefix("begin ")) {
            let done = lines.next_if_eq(&"done").is_some();
            at += "begin \ndone\n".len() + change.len();
            let after = states.last().unwrap().after(change);
            if let Some(offset) = change.strip_prefix("commit ") {
                commits.push(Some(offset.parse().unwrap()));
            }
            if done && at as u64 <= self.sure {
                tally.acked += 1;
                states.clear();
                if change == "sync" {
                    commits.drain(..commits.len() - 1);
                }
            }
            states.push(after);
        }
        let found = State::of(log)?;
        if !states.contains(&found) {
            let report = log.recovery_report();
            tally.lost(1, || {
                format!("{words}: there is {found:?}, which is none of {states:?}; sure of {} in\n{said}{report:?}", self.sure)
            });
        }
        let committed = log.consumer_group(GROUP)?.committed(&TopicPartition::new(KEPT, 0))?;
        if !commits.contains(&committed) {
            tally.lost(1, || format!("{words}: committed is {committed:?}, which is none of {commits:?}"));
        }
        (self.state, self.committed) = (found, committed);
        for topic in log.topics().iter().filter(|topic| topic.name() != KEPT) {
            let (id, partition) = (topic.id().to_string(), topic.partition(0)?);
            let mut reader = partition.reader(0)?;
            while let Some(record) = reader.try_next()? {
                if record.value() != Some(id.as_bytes()) {
                    tally.wrong(|| format!("{words}: a record of another topic in {}", topic.name()));
                }
            }
        }
        let kept = log.topic(KEPT)?.partition(0)?;
        tally.lost(RECORDS - kept.end_offset(), || format!("{words}: {} are kept", kept.end_offset()));
        // What the open found it has flushed.
        log.sync()
    }
}

fn cuts(run: &mut Run, image: Image, cycles: u64) {
    let mut random = run.random();
    let mut world = World::new(image);
    for cycle in 0..cycles {
        world.cut(&mut random, &mut run.tally, &format!("cycle {cycle}"));
    }
}

#[test]
fn the_power_goes_over_changes_on_ext4() {
    let test = "28 power cuts over topics and offsets on ext4";
    let Some(image) = Image::or_skip(test, Kind::Ext4) else { return };
    run(test, |run| cuts(run, image, effort(50, 1_000)));
}

#[test]
fn the_power_goes_over_changes_on_xfs() {
    let test = "28 power cuts over topics and offsets on xfs";
    let Some(image) = Image::or_skip(test, Kind::Xfs) else { return };
    run(test, |run| cuts(run, image, effort(25, 1_000)));
}
