//! Files that promise more than there is: sizes, counts and lengths that a reader must not believe before it has proved
//! them. What is counted is work: processor time, bytes read, and the most memory that was ever held.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tapelog::{Compression, Record, TopicConfig};

use crate::child::{Ended, here, run_child, told};
use crate::damage::{Image, builder, closed, killed, look, place};
use crate::hostile::{EDGES, reseal_root, reseal_segment, u32_at};
use crate::report::{Random, Tally, effort, run};

/// Of the processor, for each of the calls; a slow one is tried again.
const PATIENCE: Duration = Duration::from_millis(100);
/// Where the machine is slow, a call may take so many times what three of the largest blocks of memory take that are filled
/// one from the other: what an honest block of that size has to take.
const TIMES: u32 = 4;
/// What a block may claim, three times: as it is stored, as columns, as frames. And what everything else takes.
const MEMORY: u64 = 3 * (64 << 20) + (32 << 20);
/// No call reads more than this of a file that is mostly a hole.
const READ: u64 = 300 << 20;
const TIB: u64 = 1 << 40;

/// What a process has used.
#[derive(Clone, Copy)]
struct Used {
    cpu: Duration,
    read: u64,
}

fn used() -> Used {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let read = io.lines().find_map(|l| l.strip_prefix("rchar: ")?.parse().ok()).unwrap_or(0);
    Used { cpu: Duration::new(now.tv_sec as u64, now.tv_nsec as u32), read }
}

/// The memory that is held, or the most that was since it was asked for the last time.
fn memory(word: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(word));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// What this machine takes now to fill three of the largest blocks, one from the other, and to look at every byte.
fn floor() -> Duration {
    let before = used().cpu;
    let stored = vec![1u8; 64 << 20];
    let crc = crc32fast::hash(&stored);
    let raw = std::hint::black_box(stored).clone();
    let frames = std::hint::black_box(raw).clone();
    assert_eq!(crc32fast::hash(&std::hint::black_box(frames)), crc);
    used().cpu.saturating_sub(before)
}

/// Does `what`, and counts what it takes; true where all of it is within bounds.
fn bounded(tally: &mut Tally, words: &str, mut what: impl FnMut(&mut Tally)) {
    let mut last = String::new();
    for _ in 0..4 {
        let _ = fs::write("/proc/self/clear_refs", "5");
        let (held, before) = (memory("VmRSS:"), used());
        what(tally);
        let after = used();
        let (cpu, read) = (after.cpu.saturating_sub(before.cpu), after.read - before.read);
        let grown = memory("VmHWM:").saturating_sub(held);
        let soon = cpu < PATIENCE || cpu < TIMES * floor();
        if soon && read < READ && grown < MEMORY {
            return;
        }
        last = format!("{cpu:?}, {} MiB read, {} MiB held", read >> 20, grown >> 20);
    }
    tally.wrong(|| format!("{words}: {last}"));
}

/// One log that is not what it says: verified, opened, read and repaired.
fn try_one(tally: &mut Tally, dir: &Path, what: &str) {
    tally.cycles += 1;
    bounded(tally, &format!("{what}: verify"), |tally| {
        let _ = tally.guard(|| what.to_owned(), || drop(builder().verify(dir)));
    });
    bounded(tally, &format!("{what}: open and read"), |tally| {
        let _ = tally.guard(|| what.to_owned(), || drop(look(dir)));
    });
}

fn segment_of(image: &Image) -> PathBuf {
    image.0.keys().rfind(|p| p.to_str().unwrap().contains("/t.")).unwrap().clone()
}

fn put_u32(bytes: &mut [u8], at: usize, n: u64) {
    bytes[at..at + 4].copy_from_slice(&(n as u32).to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, n: u64) {
    bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
}

/// The segment header and its first block, with another payload and other fields: an honest log would have written it so.
fn rebuilt(segment: &[u8], payload: &[u8], edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = segment[..64 + 160].to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    put_u32(&mut bytes, 64 + 96, payload.len() as u64);
    edit(&mut bytes[64..]);
    reseal_segment(&mut bytes, true);
    bytes
}

/// Runs `what` in a process of its own, whose memory and time are nobody else's.
fn alone(test: &str, name: &str, what: impl FnOnce(&mut Tally)) {
    if here().is_some() {
        let mut tally = Tally::default();
        what(&mut tally);
        println!("cycles={}", tally.cycles);
        assert!(tally.wrong + tally.panics == 0, "{tally:?}");
        return;
    }
    run(test, |run| match run_child(&format!("bombs::{name}"), &["env"], Path::new("/")) {
        Ended::Well(said) => run.tally.cycles = told(&said, "cycles"),
        Ended::Never(why) | Ended::Badly(why) => run.tally.wrong(|| why),
    });
}

/// Files of 8 TiB that take no room: as segments with blocks in front and without, as the root, as staging.
#[test]
fn files_that_are_mostly_a_hole() {
    alone("27 files of 8 TiB that are holes", "files_that_are_mostly_a_hole", |tally| {
        let dir = place();
        let image = closed(dir.path());
        for path in image.0.keys().cloned().collect::<Vec<_>>() {
            for keep in [0, 64, image.0[&path].len() as u64] {
                for ends in [false, true] {
                    image.put(dir.path());
                    let file = fs::File::options().write(true).open(dir.path().join(&path)).unwrap();
                    file.set_len(keep).unwrap();
                    if file.set_len(8 * TIB).is_err() {
                        continue; // this file system has no such files
                    }
                    if ends {
                        // The trailer again, at the very end.
                        let bytes = &image.0[&path];
                        let tail = &bytes[bytes.len().saturating_sub(64)..];
                        let at = 8 * TIB - tail.len() as u64;
                        std::os::unix::fs::FileExt::write_all_at(&file, tail, at).unwrap();
                    }
                    let what = format!("{} of 8 TiB behind {keep} bytes, {ends}", path.display());
                    try_one(tally, dir.path(), &what);
                }
            }
        }
        // After a kill: the hot tail, and the file that was being written.
        for part in ["/staging-", "/t."] {
            let dir = place();
            killed(dir.path(), 3);
            let found =
                Image::of(dir.path()).0.into_keys().rfind(|p| format!("/{}", p.display()).contains(part));
            let file = fs::File::options().write(true).open(dir.path().join(found.unwrap())).unwrap();
            file.set_len(8 * TIB).unwrap();
            try_one(tally, dir.path(), &format!("{part} of 8 TiB after a kill"));
        }
    });
}

/// Lengths and counts that a header may claim, with every checksum right, in a file that is long enough for them.
#[test]
fn headers_that_claim_too_much() {
    alone("27 blocks of 4 GiB, 2^31 records, offsets at the end", "headers_that_claim_too_much", |tally| {
        let dir = place();
        let image = closed(dir.path());
        let path = segment_of(&image);
        let good = &image.0[&path];
        let stored = u32_at(good, 64 + 96);
        let payload = &good[64 + 160..64 + 160 + stored];
        type Edit = Box<dyn Fn(&mut [u8])>;
        let mut edits: Vec<(String, Edit)> = Vec::new();
        for n in [1u64 << 26, (1 << 26) + 8, 1 << 31, 0xFFFF_FFF8, 0xFFFF_FFFF] {
            for (field, at) in
                [("stored", 96), ("raw", 100), ("count", 104), ("max delta", 108), ("columns", 152)]
            {
                edits.push((format!("{field} {n}"), Box::new(move |b| put_u32(b, at, n))));
            }
            let all: Edit = Box::new(move |b| [96, 100, 152].into_iter().for_each(|at| put_u32(b, at, n)));
            edits.push((format!("all lengths {n}"), all));
        }
        for n in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1] {
            for (field, at) in
                [("base offset", 40), ("last offset", 48), ("durable mark", 72), ("first open", 120)]
            {
                edits.push((format!("{field} {n}"), Box::new(move |b| put_u64(b, at, n))));
            }
            for (field, at) in [("base timestamp", 56), ("max timestamp", 64), ("delete horizon", 88)] {
                edits.push((format!("{field} {n}"), Box::new(move |b| put_u64(b, at, n))));
            }
        }
        for (what, edit) in &edits {
            for len in [0, 8 << 30] {
                image.put(dir.path());
                let bytes = rebuilt(good, payload, |b| edit(b));
                fs::write(dir.path().join(&path), &bytes).unwrap();
                if len > 0 {
                    fs::File::options()
                        .write(true)
                        .open(dir.path().join(&path))
                        .unwrap()
                        .set_len(len)
                        .unwrap();
                }
                try_one(tally, dir.path(), &format!("{what} in {len}"));
            }
        }
        // Where the end of the file says how many entries its index has.
        for n in [1u64 << 16, 1 << 26, 1 << 31, 0xFFFF_FFFF] {
            for at in [16, 24, 32, 40, 48, 56] {
                image.put(dir.path());
                let mut bytes = good.clone();
                let trailer = bytes.len() - 64;
                put_u32(&mut bytes, trailer + at, n);
                reseal_segment(&mut bytes, true);
                fs::write(dir.path().join(&path), &bytes).unwrap();
                try_one(tally, dir.path(), &format!("trailer {at}: {n}"));
            }
        }
        for at in (0..image.0[Path::new("root")].len().saturating_sub(8)).step_by(4) {
            image.put(dir.path());
            for name in ["root", "root.twin"] {
                let mut bytes = image.0[Path::new(name)].clone();
                put_u32(&mut bytes, at, 0xFFFF_FFFF);
                reseal_root(&mut bytes);
                fs::write(dir.path().join(name), bytes).unwrap();
            }
            try_one(tally, dir.path(), &format!("root files, 2^32 - 1 at {at}"));
        }
    });
}

/// A gigabyte of zeros, as each codec makes it small.
fn gigabyte(compression: Compression) -> Option<Vec<u8>> {
    const LEN: usize = 1 << 30;
    match compression {
        // A literal, and a match of it that says 255 again and again.
        Compression::Lz4 => {
            let mut bomb = vec![0x1F, 0, 1, 0];
            bomb.resize(4 + LEN / 255, 255);
            bomb.extend([0, 0x50, 0, 0, 0, 0, 0]);
            Some(bomb)
        }
        // The length, a literal, and copies of 64 bytes from the byte before.
        Compression::Snappy => {
            let mut bomb = vec![0x80, 0x80, 0x80, 0x80, 0x04, 0, 0];
            (0..LEN / 64).for_each(|_| bomb.extend([63 << 2 | 2, 1, 0]));
            Some(bomb)
        }
        // As the codec itself has it: of zeros that it was given a block at a time.
        _ => None,
    }
}

/// Payloads that grow: beyond what the header says, and up to all that it may say.
#[test]
fn payloads_that_grow() {
    alone("27 lz4, snappy, gzip, zstd and column bombs", "payloads_that_grow", |tally| {
        let kinds = [Compression::Lz4, Compression::Snappy, Compression::Gzip, Compression::Zstd];
        for compression in kinds {
            let dir = place();
            // Zeros, as the codec itself makes them small, so that the payload is one.
            let zeros = {
                let log = builder().memory_budget(64 << 20).open(dir.path()).unwrap();
                let config = TopicConfig::new().compression(compression).max_record_bytes(8 << 20);
                let Ok(topic) = log.create_topic("t", config) else { continue };
                topic.partition(0).unwrap().append(Record::new(&vec![0; 7 << 20])).unwrap();
                log.close(Duration::from_secs(20)).unwrap();
                Image::of(dir.path())
            };
            let path = segment_of(&zeros);
            let good = &zeros.0[&path];
            let payload = good[64 + 160..64 + 160 + u32_at(good, 64 + 96)].to_vec();
            for payload in [Some(payload), gigabyte(compression)].into_iter().flatten() {
                for raw in [8u64, 4096, 1 << 20, 7 << 20, 1 << 26] {
                    for columns in [0u64, 8, 4096, 1 << 20, 1 << 26] {
                        let bytes = rebuilt(good, &payload, |b| {
                            b[5] = compression.id();
                            put_u32(b, 100, raw);
                            put_u32(b, 152, columns);
                        });
                        fs::write(dir.path().join(&path), bytes).unwrap();
                        try_one(tally, dir.path(), &format!("{compression}: raw {raw}, columns {columns}"));
                    }
                }
            }
        }
    });
}

/// Columns whose numbers overflow: what is behind the codec is changed, and packed again.
#[test]
fn columns_that_overflow() {
    alone("27 columns with deltas, counts and lengths that overflow", "columns_that_overflow", |tally| {
        let dir = place();
        let image = {
            let log = builder().open(dir.path()).unwrap();
            let topic = log.create_topic("t", TopicConfig::new().compression(Compression::Lz4)).unwrap();
            let partition = topic.partition(0).unwrap();
            let values: Vec<String> =
                (0..200).map(|n| format!("{{\"price\":{},\"side\":\"buy\"}}", n * 7)).collect();
            let records: Vec<Record<'_>> = values.iter().map(|v| Record::new(v).key("AAPL")).collect();
            partition.append_batch(&records).unwrap();
            log.close(Duration::from_secs(20)).unwrap();
            Image::of(dir.path())
        };
        let path = segment_of(&image);
        let good = &image.0[&path];
        let columns = u32_at(good, 64 + 152);
        assert!(columns > 0, "there are no columns to look behind");
        let packed = &good[64 + 160..64 + 160 + u32_at(good, 64 + 96)];
        let unpacked = lz4_flex::block::decompress(packed, columns).unwrap();
        let mut random = Random::new(27);
        let tries = effort(if cfg!(debug_assertions) { 200 } else { 1_500 }, 100_000);
        for number in 0..tries {
            let mut bytes = unpacked.clone();
            for _ in 0..1 + random.below(3) {
                let width = [1, 2, 4, 8][random.below(4) as usize];
                // The beginnings of columns say how long they are; elsewhere, anywhere.
                let within = if random.one_in(2) { 200 } else { bytes.len() as u64 };
                let at = random.below(within.min((bytes.len() - width) as u64)) as usize;
                let edge = EDGES[random.below(EDGES.len() as u64) as usize];
                bytes[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]);
            }
            let payload = lz4_flex::block::compress(&bytes);
            let raw = random.one_in(4).then(|| [8, 64, 1 << 20, 1 << 26][random.below(4) as usize]);
            let bytes = rebuilt(good, &payload, |b| raw.into_iter().for_each(|raw| put_u32(b, 100, raw)));
            fs::write(dir.path().join(&path), bytes).unwrap();
            tally.cycles += 1;
            let what = || format!("columns {number}");
            bounded(tally, &what(), |tally| {
                let _ = tally.guard(what, || drop(builder().verify(dir.path())));
            });
        }
    });
}
