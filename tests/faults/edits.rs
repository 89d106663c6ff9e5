//! Files that were cut, zeroed, shuffled, or put where they do not belong.

use std::path::{Path, PathBuf};

use tapelog::admin::DamageKind;

use crate::damage::{COMMITTED, Image, RECORDS, builder, closed, look, place};
use crate::report::{Run, effort, run};

/// What holds whatever was done to one file: no wrong bytes, and silence only where nothing is missing.
fn judge(run: &mut Run, dir: &Path, may_lose: bool, what: &dyn Fn() -> String) {
    run.tally.cycles += 1;
    run.tally.acked += RECORDS;
    let verified = run.tally.guard(what, || builder().verify(dir).map(|report| report.has_losses()));
    let Some(seen) = run.tally.guard(what, || look(dir).0) else { return };
    if seen.wrong > 0 || seen.offsets.windows(2).any(|two| two[0] >= two[1]) {
        run.tally.wrong(|| format!("{}: {seen:?}", what()));
    }
    let lost = seen.lost(RECORDS);
    if !lost.is_empty() && !seen.told() {
        run.tally.wrong(|| format!("{}: lost in silence: {seen:?}", what()));
    }
    if !lost.is_empty() && matches!(verified, Some(Ok(false))) {
        run.tally.wrong(|| format!("{}: verify knows of no loss: {seen:?}", what()));
    }
    if !lost.is_empty() && !may_lose {
        run.tally.lost(lost.len() as u64, || format!("{}: {seen:?}", what()));
    }
    if lost.is_empty() && seen.committed != Some(COMMITTED) && !seen.told() {
        run.tally.wrong(|| format!("{}: the committed offset is gone: {seen:?}", what()));
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "log")
}

/// Does `edit` to every file, with numbers from 0 until it has no more to do.
fn every_file(run: &mut Run, image: &Image, one_in: u64, edit: impl Fn(&[u8], usize) -> Option<Vec<u8>>) {
    let dir = place();
    let mut random = run.random();
    for (path, good) in &image.0 {
        for n in 0.. {
            let Some(bad) = edit(good, n) else { break };
            if bad == *good || !random.one_in(one_in) {
                continue;
            }
            image.put(dir.path());
            std::fs::write(dir.path().join(path), bad).unwrap();
            judge(run, dir.path(), is_segment(path), &|| format!("edit {n} of {}", path.display()));
        }
    }
}

#[test]
fn cut_at_every_length() {
    run("8 every file cut at every length", |run| {
        let origin = place();
        let image = closed(origin.path());
        every_file(run, &image, effort(12, 1), |good, n| good.get(..n).map(<[u8]>::to_vec));
    });
}

/// `verify` took what such a cut leaves for a footer, which can be spared: the header that ends the file tells of all records up
/// to the next segment. And where only the bytes were gone that fill the block up, it found nothing, and the open a damaged one.
#[test]
fn a_segment_that_ends_within_its_last_block_has_lost_it() {
    let (origin, dir) = (place(), place());
    let image = closed(origin.path());
    let path = image.0.keys().find(|p| p.to_str().unwrap().contains("/t.")).unwrap();
    let good = &image.0[path];
    let trailer = good.len() - 64;
    let end = u64::from_le_bytes(good[trailer + 16..trailer + 24].try_into().unwrap()) as usize;
    for missing in 1..16 {
        image.put(dir.path());
        std::fs::write(dir.path().join(path), &good[..end - missing]).unwrap();
        let report = builder().verify(dir.path()).unwrap();
        let (seen, _) = look(dir.path());
        let told = seen.stumbles.first().copied().flatten().unwrap();
        let lost: Vec<_> = report
            .damage()
            .filter(|(_, d)| d.kind == DamageKind::Lost)
            .map(|(_, d)| d.offsets.clone())
            .collect();
        assert_eq!(lost, [Some(told..told + 1)], "{missing} bytes are missing: {report:?}");
        assert!(report.has_losses() && !report.is_sound());
    }
}

/// Real sectors are longer than the files here; the rule that they try is the same.
#[test]
fn sectors_zeroed_doubled_and_swapped() {
    const SECTOR: usize = 64;
    run("8 sectors zeroed, doubled, swapped, at every position", |run| {
        let origin = place();
        let image = closed(origin.path());
        let sector = |good: &[u8], n: usize| {
            let from = n * SECTOR;
            (from < good.len()).then(|| from..(from + SECTOR).min(good.len()))
        };
        every_file(run, &image, 1, |good, n| {
            let mut bad = good.to_vec();
            bad[sector(good, n)?].fill(0);
            Some(bad)
        });
        every_file(run, &image, effort(2, 1), |good, n| {
            let (from, mut bad) = (sector(good, n)?, good.to_vec());
            let to = from.end..(from.end + from.len()).min(good.len());
            let copy = good[from.start..from.start + to.len()].to_vec();
            bad[to].copy_from_slice(&copy);
            Some(bad)
        });
        every_file(run, &image, effort(8, 1), |good, n| {
            let sectors = good.len() / SECTOR;
            let (one, other) = (n.checked_div(sectors)?, n % sectors);
            let (one, other) = (sector(good, one)?, sector(good, other)?);
            let mut bad = good.to_vec();
            if one.len() == other.len() {
                bad[one.clone()].copy_from_slice(&good[other.clone()]);
                bad[other].copy_from_slice(&good[one]);
            }
            Some(bad)
        });
        // Bytes that were inserted or fell out move all behind them.
        every_file(run, &image, effort(16, 1), |good, n| {
            let (at, mut bad) = (n / 2, good.to_vec());
            if at >= good.len() {
                return None;
            }
            if n % 2 == 0 {
                bad.insert(at, 0);
            } else {
                bad.remove(at);
            }
            Some(bad)
        });
    });
}

/// A file of another time, or of another partition, under the name of this one. Each proves itself, but not here.
#[test]
fn stale_files_under_new_names() {
    run("8 stale and foreign segments under new names", |run| {
        let (origin, dir) = (place(), place());
        let image = closed(origin.path());
        let other = closed(place().path());
        let segments: Vec<PathBuf> = image.0.keys().filter(|p| is_segment(p)).cloned().collect();
        // Topics of the library's own have the same ids in every log, and nothing in a segment names the log.
        let is_foreign = |p: &Path| is_segment(p) && !p.to_str().unwrap().contains("/__");
        let foreign: Vec<&Vec<u8>> = other.0.iter().filter(|(p, _)| is_foreign(p)).map(|(_, b)| b).collect();
        let own: Vec<&Vec<u8>> = segments.iter().map(|p| &image.0[p]).collect();
        for path in &segments {
            for bytes in own.iter().chain(&foreign).filter(|b| **b != &image.0[path]) {
                image.put(dir.path());
                std::fs::write(dir.path().join(path), bytes).unwrap();
                judge(run, dir.path(), true, &|| format!("another file as {}", path.display()));
            }
            // A copy that stands beside the right one.
            for name in ["00000000000000000005-000000.log", "00000000000000000999-000000.log"] {
                for bytes in own.iter().chain(&foreign) {
                    image.put(dir.path());
                    std::fs::write(dir.path().join(path).with_file_name(name), bytes).unwrap();
                    judge(run, dir.path(), true, &|| format!("a copy beside {}", path.display()));
                }
            }
        }
        // The folder of another partition: nothing of it may be read as records of this one.
        let of_t = image.only(|p| p.contains("/t.") && p.contains("/00000000000000000000-"));
        let consumer_offsets = image.only(|p| p.contains("/__consumer_offsets"));
        image.put(dir.path());
        std::fs::write(dir.path().join(&of_t), &image.0[&consumer_offsets]).unwrap();
        judge(run, dir.path(), true, &|| "offsets as records".into());
    });
}

/// What a repair leaves is sound, opens without a word, and holds all that was not hit; what was hit is kept.
#[test]
fn repair_keeps_all_but_the_block_that_was_hit() {
    run("7 repair after a flipped bit", |run| {
        let origin = place();
        let image = closed(origin.path());
        let dir = place();
        let mut random = run.random();
        for (path, good) in image.0.iter().filter(|(p, _)| p.to_str().unwrap().contains("/t.")) {
            for bit in 0..good.len() * 8 {
                if !random.one_in(effort(101, 3)) {
                    continue;
                }
                let what = || format!("bit {bit} of {}", path.display());
                image.put(dir.path());
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(dir.path().join(path), &bad).unwrap();
                run.tally.cycles += 1;
                run.tally.acked += RECORDS;
                let lossy = builder().verify(dir.path()).unwrap().has_losses();
                let Some(repaired) = run.tally.guard(what, || builder().repair(dir.path())) else { continue };
                let repaired = repaired.unwrap();
                if !repaired.after.is_sound() {
                    run.tally.wrong(|| format!("{}: unsound after: {repaired:?}", what()));
                }
                let kept = repaired.items.iter().chain(&repaired.recovery.items);
                if lossy && !kept.clone().any(|i| i.kept_in.as_ref().is_some_and(|p| p.is_file())) {
                    run.tally.wrong(|| format!("{}: the bytes are gone: {repaired:?}", what()));
                }
                let (seen, report) = look(dir.path());
                let lost = seen.lost(RECORDS).len() as u64;
                run.tally.lost(lost.saturating_sub(u64::from(lossy)), || format!("{}: {seen:?}", what()));
                if seen.wrong > 0 || !seen.stumbles.is_empty() || report.is_none_or(|r| r.has_losses()) {
                    run.tally.wrong(|| format!("{}: not at rest: {seen:?}, {repaired:?}", what()));
                }
            }
        }
    });
}
