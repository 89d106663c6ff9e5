//! Little of everything: descriptors, address space, maps, file sizes; and a consumer that does not come for its records.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tapelog::{ErrorKind, Log, OffsetReset, Partition, Record, TopicConfig};

use crate::child::{Ended, here, run_child, told};
use crate::damage::place;
use crate::report::{effort, run_since, skip};

const SOON: Duration = Duration::from_secs(60);

fn value(offset: u64) -> Vec<u8> {
    format!("{offset} ").bytes().cycle().take(100).collect()
}

fn topic(log: &Log, config: TopicConfig) -> Partition {
    log.ensure_topic("t", config).unwrap().partition(0).unwrap()
}

/// Reads everything; returns how many records there are.
fn count(partition: &Partition) -> u64 {
    let mut reader = partition.reader(partition.start_offset()).unwrap();
    let mut n = partition.start_offset();
    while let Some(record) = reader.try_next().unwrap() {
        assert_eq!((record.offset(), record.value()), (n, Some(&value(n)[..])));
        n += 1;
    }
    n
}

fn status(word: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(word));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// What the process holds that nobody could take from it: without pages of files, which the kernel can.
fn held() -> u64 {
    status("RssAnon:") + status("RssShmem:")
}

fn limit(resource: Resource, to: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: to, maximum }).unwrap();
}

/// Runs the test `name` of this file in a process of its own, behind `prefix`, and takes over its numbers.
fn alone(test: &str, name: &str, prefix: &[&str], dir: &Path) {
    let began = Instant::now();
    match run_child(&format!("limits::{name}"), prefix, dir) {
        Ended::Never(why) => skip(test, &why),
        Ended::Well(said) => run_since(began, test, |run| {
            run.tally.cycles = told(&said, "cycles");
            run.tally.acked = told(&said, "acked");
        }),
        Ended::Badly(why) => run_since(began, test, |run| run.tally.wrong(|| why)),
    }
}

/// Ten thousand segments, and as many descriptors as a careless `ulimit` leaves.
#[test]
fn many_segments_on_few_descriptors() {
    let segments = effort(if cfg!(debug_assertions) { 600 } else { 2_000 }, 10_000);
    let test = "23 10,000 segments on 256 descriptors (quick: 2,000)";
    if let Some(dir) = here() {
        assert_eq!(getrlimit(Resource::Nofile).current, Some(256));
        let open = || Log::builder().memory_budget(1 << 20).open(dir.join("log")).unwrap();
        let config = TopicConfig::new().segment_bytes(150).block_linger(Duration::ZERO);
        let few = || {
            let open = fs::read_dir("/proc/self/fd").unwrap().count();
            assert!(open <= 200, "{open} are open");
        };
        let log = open();
        let partition = topic(&log, config.clone());
        for n in 0..segments {
            assert_eq!(partition.append(Record::new(&value(n))).unwrap().offset(), n);
        }
        partition.wait_written(segments, SOON).unwrap();
        few();
        assert_eq!(count(&partition), segments);
        few();
        // As if it were killed, then closed, then with a handful.
        drop((partition, log));
        for (round, descriptors) in [(0, 256), (1, 256), (2, 48)] {
            limit(Resource::Nofile, Some(descriptors));
            let log = open();
            assert!(!log.recovery_report().has_losses());
            let partition = topic(&log, config.clone());
            assert_eq!(count(&partition), segments + round);
            few();
            partition.append(Record::new(&value(segments + round))).unwrap();
            log.close(SOON).unwrap();
        }
        println!("cycles=4 acked={}", segments + 3);
        return;
    }
    let dir = place();
    let prefix = ["sh", "-c", "ulimit -n 256 && exec \"$@\"", "sh"];
    alone(test, "many_segments_on_few_descriptors", &prefix, dir.path());
}

/// Tries until it succeeds: the write-behind tries again a while after there are descriptors, and until then an append
/// that needs room hears of the error.
fn patiently(append: &mut impl FnMut() -> tapelog::Result<u64>) -> u64 {
    let patience = Instant::now() + SOON;
    loop {
        match append() {
            Ok(end) => return end,
            Err(e) => assert!(Instant::now() < patience, "appends do not succeed again: {e:?}"),
        }
        std::thread::yield_now();
    }
}

/// No descriptor at all for a while: an error, and then it goes on.
#[test]
fn no_descriptor_for_a_while() {
    if let Some(dir) = here() {
        let log = Log::builder().memory_budget(1 << 20).open(dir.join("log")).unwrap();
        let partition = topic(&log, TopicConfig::new().segment_bytes(2_000));
        let mut accepted = 0;
        let mut append = || -> tapelog::Result<u64> {
            partition.append(Record::new(&value(accepted)))?;
            accepted += 1;
            Ok(accepted)
        };
        let mut cycles = 0;
        for _ in 0..5 {
            (0..50).for_each(|_| _ = patiently(&mut append));
            let mut hoard = Vec::new();
            while let Ok(file) = fs::File::open("/dev/null") {
                hoard.push(file);
            }
            // New segments are wanted meanwhile. What is said is an error of this kind, or nothing.
            for _ in 0..100 {
                cycles += 1;
                if let Err(e) = append() {
                    assert!(matches!(e.kind(), ErrorKind::Storage | ErrorKind::BufferExhausted), "{e:?}");
                }
            }
            let another = Log::builder().memory_budget(1 << 20).open(dir.join("other"));
            assert_eq!(another.map(drop).unwrap_err().kind(), ErrorKind::Storage);
            assert!(log.create_topic(&format!("u{cycles}"), TopicConfig::new()).is_ok() || !hoard.is_empty());
            drop(hoard);
            // Without reopening.
            let end = patiently(&mut append);
            partition.wait_durable(end, SOON).unwrap();
            assert_eq!(count(&partition), end);
        }
        drop((partition, log));
        let log = Log::builder().memory_budget(1 << 20).open(dir.join("log")).unwrap();
        assert_eq!(count(&topic(&log, TopicConfig::new())), accepted);
        println!("cycles={cycles} acked={accepted}");
        return;
    }
    let dir = place();
    let prefix = ["sh", "-c", "ulimit -n 100 && exec \"$@\"", "sh"];
    let test = "23 no descriptor left, and then some again";
    alone(test, "no_descriptor_for_a_while", &prefix, dir.path());
}

/// No room in the address space, and no more maps than a process may have: a log does not open, one that is open goes on.
#[test]
fn no_address_space_and_no_maps() {
    if let Some(dir) = here() {
        let log = Log::builder().memory_budget(1 << 20).open(dir.join("log")).unwrap();
        let partition = topic(&log, TopicConfig::new().segment_bytes(20_000));
        let (mut accepted, mut cycles, mut refused) = (0, 0, 0);
        let mut go_on = |n: u64| {
            for _ in 0..n {
                partition.append(Record::new(&value(accepted))).unwrap();
                accepted += 1;
            }
            partition.wait_written(accepted, SOON).unwrap();
            accepted
        };
        go_on(2_000);
        let mut try_open = |what: &str| {
            cycles += 1;
            match Log::builder().memory_budget(48 << 20).open(dir.join("other")) {
                Ok(_) => false,
                Err(e) => {
                    let kinds = [ErrorKind::Storage, ErrorKind::NoMemory, ErrorKind::NoSpace];
                    assert!(kinds.contains(&e.kind()), "{what}: {e:?}");
                    true
                }
            }
        };
        for mib in [8u64, 16, 24, 40, 50, 60, 80] {
            limit(Resource::As, Some(status("VmSize:") + (mib << 20)));
            refused += u64::from(try_open(&format!("{mib} MiB left")));
            go_on(500);
            limit(Resource::As, None);
            assert!(!try_open("all is there again"));
        }
        assert!(refused > 0, "the limit was none");
        // As many maps as there may be, each unlike its neighbours so that the kernel does not join them.
        let most = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse::<usize>().unwrap();
        let (mut maps, mut full) = (Vec::new(), false);
        while maps.len() <= most {
            match memmap2::MmapMut::map_anon(4096)
                .and_then(|map| if maps.len() % 2 == 0 { map.make_read_only().map(Err) } else { Ok(Ok(map)) })
            {
                Ok(map) => maps.push(map),
                Err(_) => {
                    full = true;
                    break;
                }
            }
        }
        if full {
            assert!(try_open("no map left"));
            go_on(500);
        }
        drop(maps);
        assert!(!try_open("maps are there again"));
        let end = go_on(500);
        assert_eq!(count(&partition), end);
        println!("cycles={cycles} acked={end}");
        return;
    }
    let dir = place();
    let test = "23 no address space, no maps left, and then some again";
    alone(test, "no_address_space_and_no_maps", &["env"], dir.path());
}

/// A process that did not say that it ignores the signal is killed by it, as by any other: what it was told is there.
#[test]
fn killed_for_a_file_too_large() {
    let test = "23 killed by SIGXFSZ, which nobody ignored";
    if let Some(dir) = here() {
        let log = Log::builder().memory_budget(1 << 20).open(dir.join("log")).unwrap();
        let partition = topic(&log, TopicConfig::new());
        let acked = fs::File::create(dir.join("acked")).unwrap();
        limit(Resource::Fsize, Some(3 << 20));
        for n in 0..1_000_000u64 {
            if partition.append(Record::new(&value(n))).is_ok() {
                acked.write_all_at(&(n + 1).to_le_bytes(), 0).unwrap();
            }
        }
        panic!("not killed");
    }
    let (dir, began) = (place(), Instant::now());
    match run_child("limits::killed_for_a_file_too_large", &["env"], dir.path()) {
        Ended::Never(why) => skip(test, &why),
        ended => run_since(began, test, |run| {
            let said = match ended {
                Ended::Badly(said) | Ended::Well(said) | Ended::Never(said) => said,
            };
            if !said.contains("signal: 25") {
                run.tally.wrong(|| said);
            }
            run.tally.cycles += 1;
            let bytes = fs::read(dir.path().join("acked")).unwrap();
            run.tally.acked = u64::from_le_bytes(bytes.try_into().unwrap());
            let log = Log::builder().memory_budget(1 << 20).open(dir.path().join("log")).unwrap();
            let there = count(&topic(&log, TopicConfig::new()));
            run.tally.lost(run.tally.acked.saturating_sub(there), || format!("{there} there"));
        }),
    }
}

/// A consumer stops; the writer goes on for a million records and more, and holds no more memory than before.
#[test]
fn a_consumer_that_stops() {
    let records = effort(if cfg!(debug_assertions) { 300_000 } else { 1_000_000 }, 10_000_000);
    let test = "24 a consumer that stops: memory, and where it goes on";
    if let Some(dir) = here() {
        let log = Log::builder().memory_budget(8 << 20).open(dir.join("log")).unwrap();
        let partition = topic(&log, TopicConfig::new().segment_bytes(16 << 20));
        let group = log.consumer_group("g").unwrap();
        let options = || group.consumer().offset_reset(OffsetReset::None);
        let mut slow = options().assign([partition.topic_partition().clone()]).unwrap();
        slow.seek(partition.topic_partition(), 0).unwrap();
        let warm = 100_000;
        let append = |range: std::ops::Range<u64>| {
            range.for_each(|n| drop(partition.append(Record::new(&value(n))).unwrap()));
        };
        append(0..warm);
        // It holds what it got.
        let kept = slow.poll(SOON).unwrap();
        assert!(!kept.is_empty());
        let before = held();
        let mut most = before;
        for from in (warm..records).step_by(100_000) {
            append(from..(from + 100_000).min(records));
            most = most.max(held());
        }
        let grown = most.saturating_sub(before) >> 20;
        // The budget, the chunk that the consumer stands in, blocks on their way: not a byte for each record.
        assert!(grown <= 24, "{grown} MiB more are held");
        // What it is about to read is deleted.
        partition.wait_written(records, SOON).unwrap();
        partition.delete_records(records - 10).unwrap();
        drop(kept);
        let mut error = None;
        while error.is_none() {
            // What it had fetched before it was told.
            match slow.poll(SOON) {
                Ok(got) => assert!(!got.is_empty()),
                Err(e) => error = Some(e),
            }
        }
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
        assert_eq!(error.offset_range().map(|(earliest, _)| earliest), Some(records - 10));
        slow.seek(partition.topic_partition(), records - 10).unwrap();
        let rest = slow.poll(SOON).unwrap();
        assert!(rest.iter().next().is_some_and(|r| r.offset() == records - 10));
        println!("cycles=1 acked={records} grown={grown}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    alone(test, "a_consumer_that_stops", &["env"], dir.path());
}
