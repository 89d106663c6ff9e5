//! Files that somebody made to do harm: mutated, with every checksum made right again, so that what is behind it is met.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::damage::{Image, RECORDS, builder, closed, look, place};
use crate::report::{Random, Run, effort, run};

/// No file may take longer than this of the processor: other work on the machine takes its time as well, so the clock on the
/// wall has a hundred times as much, and a slow one is tried again.
const PATIENCE: Duration = Duration::from_millis(100);
const TRIES: u32 = 5;
/// Words that are at the edge of something.
pub(crate) const EDGES: &[u64] = &[
    0,
    1,
    7,
    8,
    31,
    32,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 16,
    1 << 26,
    (1 << 26) + 8,
    1 << 30,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFF8,
    0xFFFF_FFFF,
    1 << 32,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Changes some bytes of a file: most often whole fields, at their places.
pub(crate) fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let len = bytes.len() as u64;
        if len < 16 {
            return bytes.push(random.next() as u8);
        }
        let at = random.below(len - 8) as usize;
        match random.below(12) {
            0..5 => {
                let width = [1, 2, 4, 8][random.below(4) as usize];
                let at = at / width * width;
                let edge = EDGES[random.below(EDGES.len() as u64) as usize];
                let edge =
                    if random.one_in(3) { edge.wrapping_add(random.below(17)).wrapping_sub(8) } else { edge };
                bytes[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]);
            }
            5..8 => bytes[at] ^= 1 << random.below(8),
            8 => bytes[at..at + 8].copy_from_slice(&random.next().to_le_bytes()),
            9 => {
                let from = random.below(len - 8) as usize;
                let n = (random.below(200) as usize).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + n, at);
            }
            10 => bytes.truncate(at),
            _ => {
                let n = random.below(64) as usize;
                let noise: Vec<u8> = (0..n).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, noise);
            }
        }
    }
}

fn seal(bytes: &mut [u8], covered: std::ops::Range<usize>, at: usize) {
    if let (Some(covered), true) = (bytes.get(covered), at + 4 <= bytes.len()) {
        let crc = crc32fast::hash(covered).to_le_bytes();
        bytes[at..at + 4].copy_from_slice(&crc);
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap()) as usize)
}

/// Makes the checksums of a segment file right, and now and then what they do not cover, wherever blocks begin.
pub(crate) fn reseal_segment(bytes: &mut [u8], honest_place: bool) {
    let len = bytes.len();
    let salt: Option<[u8; 8]> = bytes.get(8..16).map(|b| b.try_into().unwrap());
    for at in (64..len.saturating_sub(160)).step_by(8) {
        if &bytes[at..at + 4] != b"TLB1" {
            continue;
        }
        if let (true, Some(salt)) = (honest_place, salt) {
            bytes[at + 8..at + 16].copy_from_slice(&salt);
            bytes[at + 16..at + 24].copy_from_slice(&(at as u64).to_le_bytes());
        }
        let stored = u32_at(bytes, at + 96);
        seal(bytes, at + 160..(at + 160).saturating_add(stored), at + 148);
        seal(bytes, at..at + 156, at + 156);
    }
    seal(bytes, 0..60, 60);
    if len >= 128 && &bytes[len - 64..len - 60] == b"TLE1" {
        let trailer = len - 64;
        if honest_place {
            // Entries reach from the end of the blocks to the trailer.
            let entries = u32_at(bytes, trailer + 48).min((trailer - 64) / 32);
            bytes[trailer + 16..trailer + 24]
                .copy_from_slice(&((trailer - entries * 32) as u64).to_le_bytes());
            bytes[trailer + 48..trailer + 52].copy_from_slice(&(entries as u32).to_le_bytes());
        }
        let entries = u32_at(bytes, trailer + 48).saturating_mul(32);
        seal(bytes, trailer.saturating_sub(entries)..trailer, trailer + 52);
        seal(bytes, trailer..trailer + 60, trailer + 60);
    }
}

/// The same of a root file.
fn reseal_root_at(bytes: &mut [u8], honest_place: bool) {
    let len = bytes.len();
    if len < 20 {
        return;
    }
    if honest_place {
        bytes[..8].copy_from_slice(b"TAPELOG\0");
        bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&(len as u32).to_le_bytes());
    }
    seal(bytes, 0..len - 4, len - 4);
}

/// Makes the checksum of a root file right, and nothing else.
pub(crate) fn reseal_root(bytes: &mut [u8]) {
    reseal_root_at(bytes, false);
}

/// One more mutated file in an otherwise honest log.
fn mutated(image: &Image, random: &mut Random) -> (PathBuf, Vec<u8>) {
    let files: Vec<&PathBuf> = image.0.iter().filter(|(_, b)| !b.is_empty()).map(|(p, _)| p).collect();
    let path = files[random.below(files.len() as u64) as usize];
    let mut bytes = image.0[path].clone();
    mutate(&mut bytes, random);
    if !random.one_in(5) {
        let name = path.to_str().unwrap();
        if name.ends_with(".log") {
            reseal_segment(&mut bytes, !random.one_in(4));
        } else {
            reseal_root_at(&mut bytes, !random.one_in(4));
        }
    }
    (path.clone(), bytes)
}

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The time of a processor that this thread has had; `verify` begins no other.
fn processor() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Verifies, and sometimes opens, a log with one hostile file, and counts what it must not do.
fn try_one(run: &mut Run, dir: &Path, image: &Image, number: u64, opens: u64) {
    let mut random = Random::new(run.seed.wrapping_add(number));
    let (path, bytes) = mutated(image, &mut random);
    let what = || format!("file {number} of seed {}: {}", run.seed, path.display());
    let what = what();
    std::fs::write(dir.join(&path), &bytes).unwrap();
    run.tally.cycles += 1;
    for left in (0..TRIES).rev() {
        let (begun, before) = (Instant::now(), processor());
        if run.tally.guard(|| what.clone(), || drop(builder().verify(dir))).is_none() {
            break;
        }
        let (wall, taken) = (begun.elapsed(), processor() - before);
        if taken < PATIENCE && wall < 100 * PATIENCE {
            break;
        }
        if left == 0 {
            run.tally.wrong(|| format!("{what}: to verify it takes {taken:?} in {wall:?}"));
        }
    }
    if random.one_in(opens) {
        let begun = Instant::now();
        let Some((seen, _)) = run.tally.guard(|| what.clone(), || look(dir)) else { return };
        if begun.elapsed() > 100 * PATIENCE {
            run.tally.wrong(|| format!("{what}: to open and read it takes {:?}", begun.elapsed()));
        }
        // Who makes checksums right can write what he likes; what he did not touch is as it was.
        let honest = seen.offsets.len() as u64 + seen.wrong;
        if honest > 4 * RECORDS {
            run.tally.wrong(|| format!("{what}: {} records", seen.offsets.len()));
        }
        let _ = run.tally.guard(|| what.clone(), || drop(builder().repair(dir)));
        image.put(dir);
    } else {
        std::fs::write(dir.join(&path), &image.0[&path]).unwrap();
    }
}

fn hostile(test: &str, files: u64) {
    run(test, |run| {
        let origin = place();
        let image = closed(origin.path());
        let dir = place();
        image.put(dir.path());
        try_one(run, dir.path(), &image, 0, 1);
        let before = peak();
        for number in 1..files {
            try_one(run, dir.path(), &image, number, 40);
        }
        // A block may claim 64 MiB, three times while it is unpacked.
        let grown = peak().saturating_sub(before);
        if grown > 300 << 10 {
            run.tally.wrong(|| format!("memory grew by {grown} KiB"));
        }
    });
}

#[test]
fn mutated_files() {
    let files = if cfg!(debug_assertions) { 4_000 } else { 100_000 };
    hostile("9 mutated files", effort(files, 1_000_000));
}
