//! One bit flipped, in every file that a small log has: what may be lost follows from what the bit was part of.

use std::ops::Range;
use std::path::{Path, PathBuf};

use tapelog::admin::{DumpedEntry, dump_segment};

use crate::damage::{COMMITTED, Image, RECORDS, Seen, builder, closed, killed, look, place};
use crate::report::{Run, effort, run};

/// What a stretch of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// A block of topic "t": these records are lost with it, and no others.
    Block(Range<u64>),
    /// A block of a topic of the library's own.
    Internal,
    /// What can be made again, or is there twice.
    Spare,
    /// Nothing is lost with the footer of a last segment either, but that the log ends there is known by it alone.
    End,
}

/// The parts of a segment file, by where they end.
fn parts(path: &Path, len: u64, internal: bool, last: bool) -> Vec<(u64, Part)> {
    let mut parts = vec![(64, Part::Spare)];
    for entry in dump_segment(path).unwrap() {
        let DumpedEntry::Batch(batch) = entry.unwrap() else { panic!("damage in a new log") };
        let part =
            if internal { Part::Internal } else { Part::Block(batch.base_offset..batch.last_offset + 1) };
        // Blocks are padded to a multiple of 8; how long the payload is stands in the header.
        let bytes = std::fs::read(path).unwrap();
        let at = batch.position as usize;
        let stored = u32::from_le_bytes(bytes[at + 96..at + 100].try_into().unwrap());
        parts.push((batch.position + 160 + u64::from(stored), part));
        parts.push((batch.position + batch.bytes, Part::Spare));
    }
    parts.push((len - 64, Part::Spare));
    parts.push((len, if last { Part::End } else { Part::Spare }));
    parts
}

/// All parts of all files of a closed log.
fn layout(dir: &Path, image: &Image) -> Vec<(PathBuf, Vec<(u64, Part)>)> {
    let of = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        let (name, len) = (path.to_str().unwrap(), bytes.len() as u64);
        let beside = image.0.keys().filter(|p| p.parent() == path.parent());
        let last = beside.max() == Some(path);
        let parts = match () {
            () if name.ends_with(".log") => parts(&dir.join(path), len, name.contains("/__"), last),
            () => vec![(len, Part::Spare)],
        };
        (path.clone(), parts)
    };
    image.0.iter().map(of).collect()
}

/// Checks what was seen of a log in which `part` was hit.
fn judge(run: &mut Run, part: &Part, seen: &Seen, what: &dyn Fn() -> String) {
    let lost = seen.lost(RECORDS);
    let may_be_lost = match part {
        Part::Block(offsets) => offsets.clone(),
        _ => 0..0,
    };
    if seen.wrong > 0 || seen.offsets.windows(2).any(|two| two[0] >= two[1]) {
        run.tally.wrong(|| format!("{}: {seen:?}", what()));
    }
    let refused = seen.refused.is_some() && *part == Part::Internal;
    let beyond = lost.iter().filter(|n| !may_be_lost.contains(n)).count() as u64;
    if !refused {
        run.tally.lost(beyond, || format!("{}: beyond the block: {seen:?}", what()));
    }
    if !lost.is_empty() && !seen.told() {
        run.tally.wrong(|| format!("{}: lost in silence: {seen:?}", what()));
    }
    if !refused && seen.committed != Some(COMMITTED) && !(*part == Part::Internal && seen.told()) {
        run.tally.wrong(|| format!("{}: the committed offset is gone: {seen:?}", what()));
    }
}

#[test]
fn every_bit_of_a_closed_log() {
    run("7 every bit of a closed log", |run| {
        let origin = place();
        let image = closed(origin.path());
        let layout = layout(origin.path(), &image);
        assert_eq!(
            image.0.keys().filter(|p| p.to_str().unwrap().contains("/t.")).count(),
            3,
            "three segments"
        );
        let dir = place();
        // Every bit is verified; an open takes longer, and each goes on to the next bit of the next byte.
        let opens = effort(23, 1);
        let mut random = run.random();
        for (path, parts) in &layout {
            let good = &image.0[path];
            for bit in 0..good.len() * 8 {
                let (_, part) = parts.iter().find(|(end, _)| (bit as u64) / 8 < *end).unwrap();
                let what = || format!("bit {bit} of {} ({part:?})", path.display());
                if random.one_in(opens) {
                    image.put(dir.path());
                    flip(&dir.path().join(path), good, bit);
                    run.tally.cycles += 1;
                    run.tally.acked += RECORDS;
                    let seen = run.tally.guard(what, || look(dir.path()).0);
                    judge(run, part, &seen.unwrap_or_default(), &what);
                }
            }
        }
    });
}

#[test]
fn verify_notices_every_bit() {
    run("7 verify finds every bit of a closed log", |run| {
        let origin = place();
        let image = closed(origin.path());
        let layout = layout(origin.path(), &image);
        let before = builder().verify(origin.path()).unwrap();
        assert!(before.is_sound() && before.clean, "{before:?}");
        let mut random = run.random();
        let every = effort(if cfg!(debug_assertions) { 8 } else { 1 }, 1);
        for (path, parts) in &layout {
            let good = &image.0[path];
            for bit in (0..good.len() * 8).filter(|_| random.one_in(every)) {
                let (_, part) = parts.iter().find(|(end, _)| (bit as u64) / 8 < *end).unwrap();
                let what = || format!("bit {bit} of {} ({part:?})", path.display());
                flip(&origin.path().join(path), good, bit);
                run.tally.cycles += 1;
                let verified = run.tally.guard(what, || builder().verify(origin.path()).unwrap());
                let Some(report) = verified else { continue };
                let lost = matches!(part, Part::Block(_) | Part::Internal);
                if report.is_sound() || (report.has_losses() != lost && *part != Part::End) {
                    run.tally.wrong(|| format!("{}: {:?}", what(), report.damage().collect::<Vec<_>>()));
                }
                let damage: Vec<_> = report.damage().collect();
                if let (Part::Block(offsets), [(file, damage)]) = (part, &damage[..]) {
                    let byte = bit as u64 / 8;
                    let exact = damage.offsets.as_ref() == Some(offsets) && damage.bytes.contains(&byte);
                    if !exact || file.path != origin.path().join(path) {
                        run.tally.wrong(|| format!("{}: told as {damage:?}", what()));
                    }
                } else if damage.len() != 1 {
                    run.tally.wrong(|| format!("{}: told as {damage:?}", what()));
                }
            }
            std::fs::write(origin.path().join(path), good).unwrap();
        }
        assert!(builder().verify(origin.path()).unwrap().is_sound());
    });
}

/// Writes `good` with one bit the other way.
fn flip(path: &Path, good: &[u8], bit: usize) {
    let mut bytes = good.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    std::fs::write(path, bytes).unwrap();
}

/// A log that was killed, put back as often as somebody wants to look: in the same directory and with the same staging file,
/// for copies of them are not what it was open with.
struct Killed {
    dir: tempfile::TempDir,
    /// Another name of the staging file.
    kept: tempfile::TempDir,
    image: Image,
    staging: PathBuf,
}

impl Killed {
    fn new(hot: u64) -> Killed {
        let (dir, kept) = (place(), place());
        killed(dir.path(), hot);
        let image = Image::of(dir.path());
        let staging = image.only(|p| p.starts_with("staging-"));
        std::fs::hard_link(dir.path().join(&staging), kept.path().join(&staging)).unwrap();
        Killed { dir, kept, image, staging }
    }

    fn bytes(&self) -> &[u8] {
        &self.image.0[&self.staging]
    }

    /// Puts it back, with other bytes at `at` in the staging file.
    fn put(&self, at: usize, bytes: &[u8]) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap()) {
            let is_dir = entry.file_type().unwrap().is_dir();
            let remove = if is_dir { std::fs::remove_dir_all } else { std::fs::remove_file };
            remove(entry.path()).unwrap();
        }
        for (path, bytes) in self.image.0.iter().filter(|(path, _)| **path != self.staging) {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let staging = self.dir.path().join(&self.staging);
        std::fs::hard_link(self.kept.path().join(&self.staging), &staging).unwrap();
        let file = std::fs::File::options().write(true).open(staging).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, self.bytes(), 0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at as u64).unwrap();
    }
}

/// The hot tail that a killed process left: what a bit of it costs is told, and none of it is what the segments hold. In the
/// long run it is each bit where anything was ever written, and of the zeros beyond one in some hundred.
#[test]
fn every_bit_of_the_hot_tail_after_a_kill() {
    const HOT: u64 = 4;
    /// The head of the file, where it also stands what is to be believed of the kill.
    const HEAD: usize = 4096;
    run("7 every bit of staging after a kill", |run| {
        let origin = Killed::new(HOT);
        let good = origin.bytes();
        let mut random = run.random();
        let every = effort(if cfg!(debug_assertions) { 150 } else { 20 }, 1);
        // Of each granule what was written, and the word behind it.
        let last = |n: usize| good[n * 4096..][..4096].iter().rposition(|b| *b != 0);
        for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let used = last(at / 4096).is_some_and(|last| at % 4096 <= last + 8);
            if !random.one_in(if used { every } else { 250 * every }) {
                continue;
            }
            let bad = [good[at] ^ 1 << bit];
            origin.put(at, &bad);
            let what = || format!("byte {at} of the staging file, {} to {}", good[at], bad[0]);
            run.tally.cycles += 1;
            run.tally.acked += RECORDS + HOT;
            let Some((seen, report)) = run.tally.guard(what, || look(origin.dir.path())) else { continue };
            let lost = seen.lost(RECORDS + HOT);
            if seen.wrong > 0 || !seen.stumbles.is_empty() {
                run.tally.wrong(|| format!("{}: {seen:?}", what()));
            }
            if (at < 64) != seen.refused.is_some() {
                run.tally.wrong(|| format!("{}: only a bad header is refused: {seen:?}", what()));
            }
            if at >= HEAD && report.as_ref().is_none_or(|report| !report.page_cache_survived) {
                run.tally.wrong(|| format!("{}: taken for a power cut: {report:?}", what()));
            }
            let written = lost.iter().filter(|n| **n < RECORDS).count() as u64;
            if at >= 64 {
                run.tally.lost(written, || format!("{}: {seen:?}", what()));
            }
            if !lost.is_empty() && !seen.told() {
                run.tally.wrong(|| format!("{}: lost in silence: {seen:?}, {report:?}", what()));
            }
        }
    });
}

/// The same for every bit, in a copy of the files, which nobody vouches for: then the last record of the hot tail may be one
/// that the power cut off, and is not told of. All others are.
#[test]
fn every_bit_of_a_copied_hot_tail() {
    const HOT: u64 = 4;
    run("7 every bit of a copied staging file", |run| {
        let (origin, dir) = (place(), place());
        killed(origin.path(), HOT);
        let mut image = Image::of(origin.path());
        let path = image.only(|p| p.starts_with("staging-"));
        let good = image.0[&path].clone();
        // What was written, and the word behind it, of each granule.
        let used = |n: usize| {
            let page = &good[n * 4096..][..4096];
            let last = page.iter().rposition(|b| *b != 0)?;
            Some(n * 4096..n * 4096 + (last + 9).min(4096))
        };
        let used: Vec<usize> = (0..good.len() / 4096).filter_map(used).flatten().collect();
        let mut random = run.random();
        let every = effort(if cfg!(debug_assertions) { 150 } else { 40 }, 1);
        for (at, bit) in used.iter().flat_map(|at| (0..8).map(move |bit| (*at, bit))) {
            if !random.one_in(every) {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            image.0.insert(path.clone(), bad);
            image.put(dir.path());
            let what = || format!("bit {bit} of byte {at} of the staging file");
            run.tally.cycles += 1;
            run.tally.acked += RECORDS + HOT;
            let verified = run.tally.guard(what, || builder().verify(dir.path()).is_ok());
            let Some((seen, report)) = run.tally.guard(what, || look(dir.path())) else { continue };
            let lost = seen.lost(RECORDS + HOT);
            if seen.wrong > 0 || !seen.stumbles.is_empty() || verified != Some(true) {
                run.tally.wrong(|| format!("{}: {seen:?}", what()));
            }
            if (at < 64) != seen.refused.is_some() {
                run.tally.wrong(|| format!("{}: only a bad header is refused: {seen:?}", what()));
            }
            if at < 64 {
                continue;
            }
            let written = lost.iter().filter(|n| **n < RECORDS).count() as u64;
            run.tally.lost(written, || format!("{}: {seen:?}", what()));
            if !lost.is_empty() && lost != [RECORDS + HOT - 1] && !seen.told() {
                run.tally.wrong(|| format!("{}: lost in silence: {seen:?}, {report:?}", what()));
            }
        }
    });
}
