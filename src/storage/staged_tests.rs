//! Tests of what is found in staging files.

use crate::record::Record;
use crate::storage::arena::{MIN_BUDGET, Pool, Want};
#[cfg(unix)]
use crate::storage::disk::RealDisk;
#[cfg(unix)]
use crate::storage::runs::SlotReader;
#[cfg(unix)]
use crate::storage::slot::SMALL;
use crate::storage::staged::*;
#[cfg(unix)]
use crate::storage::staging::FILE_HEADER;

const BUDGET: usize = 16 << 20;

fn want(len: usize, hint: usize) -> Want {
    Want {
        topic_id: 7,
        partition: 1,
        epoch: 2,
        base_offset: 100,
        min_len: len,
        class_hint: hint,
        internal: false,
    }
}

#[cfg(unix)]
fn values(chunk: &StagedChunk) -> Vec<(u64, Vec<u8>)> {
    let mut memory = Vec::new();
    let bytes = chunk.read(&mut memory).unwrap();
    let first = SlotReader::default().runs(chunk).unwrap().first;
    let ends = chunk.frames(bytes).last().map(|(at, frame)| (frame.offset() + 1, at + frame.len()));
    assert_eq!(first.map(|run| (run.offsets.end, run.bytes.end)), ends);
    chunk.frames(bytes).map(|(_, f)| (f.offset(), f.value().unwrap_or_default().to_vec())).collect()
}

#[cfg(unix)]
#[test]
fn recovers_what_was_staged_by_this_incarnation_only() {
    let folder = tempfile::tempdir().unwrap();
    let pool = Pool::mapped(Arc::new(RealDisk::default()), folder.path(), 9, 4, BUDGET).unwrap();
    let mut writers: Vec<_> = (0..3u64)
        .map(|i| pool.take(&Want { topic_id: i, ..want(100, GRANULE << i) }).unwrap().unwrap())
        .collect();
    let mut own = pool.take(&want(6 << 20, 0)).unwrap().unwrap();
    let large = vec![8; 6 << 20];
    assert!(own.append(&Record::new(&large), 100));
    own.publish();
    for (i, writer) in writers.iter_mut().enumerate() {
        for n in 0..10 {
            assert!(writer.append(&Record::new(&[i as u8; 50]), 100 + n));
        }
        writer.publish();
    }
    writers[0].append(&Record::new("staged, not published"), 110);
    writers[1].append(&Record::new("taken back"), 110);
    writers[1].abandon();
    // The process dies here: nothing is closed.
    let mut found = recover(&RealDisk::default(), folder.path(), 9, 4).unwrap().slots;
    found.sort_by_key(|c| (c.topic_id, c.len));
    let expected: Vec<_> = (0..10).map(|n| (100 + n, vec![1u8; 50])).collect();
    assert_eq!(found.iter().map(|c| c.topic_id).collect::<Vec<_>>(), [0, 1, 2, 7]);
    assert_eq!(values(&found[0]).len(), 11);
    assert_eq!(values(&found[1]), expected);
    assert_eq!(values(&found[3]), [(100, large)]);
    assert_eq!((found[1].partition, found[1].epoch, found[1].base_offset), (1, 2, 100));
    assert_eq!(found[1].salt, writers[1].chunk().salt());

    assert!(recover(&RealDisk::default(), folder.path(), 9, 5).unwrap().slots.is_empty());
    assert!(recover(&RealDisk::default(), folder.path(), 9, 3).unwrap().slots.is_empty());
    let missing = recover(&RealDisk::default(), folder.path(), 10, 4).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::StagingMissing);
    assert!(missing.to_string().contains("staging-000000000000000a-000"), "{missing}");
    let nowhere = recover(&RealDisk::default(), &folder.path().join("nowhere"), 9, 4).err().unwrap();
    assert_eq!(nowhere.kind(), ErrorKind::StagingMissing);
    let held = crate::storage::staging::remove_names(&RealDisk::default(), folder.path(), 9).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the names are gone at once");
    held.give_back();
}

/// A slot may be larger than those that were there before it; their headers then lie inside it.
#[cfg(unix)]
#[test]
fn earlier_lives_of_a_slot_do_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let pool = Pool::mapped(Arc::new(RealDisk::default()), folder.path(), 9, 4, BUDGET).unwrap();
    let mut small: Vec<_> = (0..8).map(|_| pool.take(&want(100, 0)).unwrap().unwrap()).collect();
    for writer in &mut small {
        writer.append(&Record::new("old"), 100);
        writer.publish();
    }
    drop(small);
    // They end where this one ends: it has 16 granules.
    let mut big = pool.take(&Want { topic_id: 8, ..want(100, SMALL) }).unwrap().unwrap();
    let value = vec![7; 15 * GRANULE + 3000];
    assert!(big.append(&Record::new(&value), 100));
    big.publish();
    let found = recover(&RealDisk::default(), folder.path(), 9, 4).unwrap().slots;
    assert_eq!(found.len(), 1, "the frame lies over the eight others");
    assert_eq!(values(&found[0]), [(100, value)]);
}

#[cfg(unix)]
#[test]
fn damaged_staging_files_yield_less_and_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let pool = Pool::mapped(Arc::new(RealDisk::default()), folder.path(), 9, 4, MIN_BUDGET).unwrap();
    let mut writer = pool.take(&want(100, 0)).unwrap().unwrap();
    for n in 0..20 {
        writer.append(&Record::new("some value").key("key"), 100 + n);
    }
    drop(pool);
    let path = folder.path().join(file_name(9, 0));
    let good = std::fs::read(&path).unwrap();
    let whole = values(&recover(&RealDisk::default(), folder.path(), 9, 4).unwrap().slots[0]);
    assert_eq!(whole.len(), 20);
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join(file_name(9, 0));
    // The last granule of the file.
    let slot = Mapping::position(MIN_BUDGET / GRANULE - 1);
    let used = slot + HEADER + 20 * 56 + 16;
    let seen = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        match recover(&RealDisk::default(), copy.path(), 9, 4) {
            Ok(Left { slots: found, .. }) => {
                let values = found.first().map(values).unwrap_or_default();
                assert_eq!(values, whole[..values.len()], "{what}");
                Some(values.len())
            }
            Err(e) => {
                assert!(e.is_corrupt(), "{what}: {e}");
                None
            }
        }
    };
    let step = 13; // every file is written out; steps of 13 meet every byte of a word
    for cut in (0..FILE_HEADER).chain(slot - 1..used).step_by(step) {
        let left = seen(&good[..cut], "cut");
        let frames = cut.saturating_sub(slot + HEADER) / 56;
        assert_eq!(left.unwrap_or(0), frames.min(20), "cut at {cut}");
    }
    let positions = (0..FILE_HEADER).chain((slot..used).step_by(step));
    for at in positions {
        let mut bad = good[..used].to_vec();
        bad[at] ^= 0x40;
        let left = seen(&bad, "flip");
        if at < FILE_HEADER {
            assert_eq!(left, None, "byte {at}");
        }
    }
    // Damage in a further file costs that file only; in the first it is an error.
    std::fs::write(&path, &good).unwrap();
    std::fs::write(copy.path().join(file_name(9, 1)), b"cut off while it was made").unwrap();
    std::fs::copy(&path, copy.path().join(file_name(9, 2))).unwrap();
    assert_eq!(recover(&RealDisk::default(), copy.path(), 9, 4).unwrap().slots.len(), 1);
    std::fs::rename(&path, copy.path().join(file_name(8, 0))).unwrap();
    assert_eq!(
        recover(&RealDisk::default(), copy.path(), 8, 4).err().unwrap().kind(),
        ErrorKind::ForeignFile
    );
    std::os::unix::fs::symlink("elsewhere", copy.path().join(file_name(7, 0))).unwrap();
    assert!(recover(&RealDisk::default(), copy.path(), 7, 4).is_err(), "links are not followed");
}

#[test]
fn any_damage_to_a_slot_leaves_a_prefix() {
    let pool = Pool::heap(MIN_BUDGET).unwrap();
    let mut writer = pool.take(&want(100, 0)).unwrap().unwrap();
    let headers: &[(&str, &[u8])] = &[("h", b"x")];
    for n in 0..6 {
        writer.append(&Record::new("some value").key("key").headers(headers), 100 + n);
    }
    writer.publish();
    let chunk = writer.seal();
    let mut good = vec![0; HEADER];
    good.extend_from_slice(chunk.bytes(HEADER, chunk.committed()).unwrap());
    let end = good.len();
    good.extend_from_slice(&[0; 64]);
    let offsets = |bytes: &[u8], salt| -> Vec<u64> {
        proved_frames(bytes, salt).map(|(_, frame)| frame.offset()).collect()
    };
    let whole: Vec<u64> = (100..106).collect();
    assert_eq!(offsets(&good, chunk.salt()), whole);
    assert!(offsets(&good, chunk.salt() ^ 1).is_empty(), "another salt");
    let shifted = [&good[..HEADER], &[0; 8], &good[HEADER..]].concat();
    assert!(offsets(&shifted[8..], chunk.salt()).len() == 6, "the shift is what is tested");
    let mut moved = proved_frames(&shifted, chunk.salt());
    moved.at += 8;
    assert_eq!(moved.next().map(|(at, _)| at), None, "another place");
    let frame = (end - HEADER) / 6;
    for cut in 0..good.len() {
        let seen = offsets(&good[..cut], chunk.salt());
        assert_eq!(seen, whole[..(cut.saturating_sub(HEADER) / frame).min(6)]);
    }
    for at in HEADER..good.len() {
        for garbage in [0x00, 0x01, 0x80, 0xFF] {
            let mut bad = good.clone();
            if bad[at] == garbage {
                continue;
            }
            bad[at] = garbage;
            assert_eq!(offsets(&bad, chunk.salt()), whole[..((at - HEADER) / frame).min(6)], "byte {at}");
        }
    }
}

/// A pool in `folder`, and what a process that died here left of it.
#[cfg(unix)]
fn mapped(folder: &Path) -> Arc<Pool> {
    Pool::mapped(Arc::new(RealDisk::default()), folder, 9, 4, BUDGET).unwrap()
}

#[cfg(unix)]
fn left(folder: &Path) -> Left {
    recover(&RealDisk::default(), folder, 9, 4).unwrap()
}

/// What a header says of a slot's length is no reason to read it; its frames are, the shortest that there are as well.
#[cfg(unix)]
#[test]
fn a_slot_is_read_as_far_as_its_frames_go() {
    let folder = tempfile::tempdir().unwrap();
    let pool = mapped(folder.path());
    let mut writer = pool.take(&want(100, 64 * SMALL)).unwrap().unwrap();
    let read = || left(folder.path()).slots[0].read(&mut Vec::new()).unwrap().len();
    for n in 0..5 {
        assert!(writer.append(&Record::new("some value"), 100 + n));
    }
    assert_eq!(read(), FIRST_READ);
    let mut next = 105;
    let mut fill = |bytes: usize| {
        let from = next;
        while (next - from) as usize * crate::frame::FIXED < bytes && writer.append(&Record::new(""), next) {
            next += 1;
        }
        next
    };
    let until = fill(FIRST_READ);
    assert_eq!(read(), 2 * FIRST_READ);
    assert_eq!(values(&left(folder.path()).slots[0]).len() as u64, until - 100);
    let until = fill(usize::MAX);
    assert_eq!(read(), 64 * SMALL);
    assert_eq!(values(&left(folder.path()).slots[0]).len() as u64, until - 100);
}

/// One frame of a slot is damaged: those before it and those behind it are found, and where the damage begins.
#[cfg(unix)]
#[test]
fn frames_behind_a_damaged_one_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let pool = mapped(folder.path());
    let mut writer = pool.take(&want(100, 0)).unwrap().unwrap();
    for n in 0..10 {
        assert!(writer.append(&Record::new("some value").key("key"), 100 + n));
    }
    let slot = left(folder.path()).slots.remove(0);
    let whole = slot.look(slot.read(&mut Vec::new()).unwrap());
    assert_eq!((whole.frames, whole.unproved), (10, None));

    let mut memory = Vec::new();
    let bytes = slot.read(&mut memory).unwrap();
    let places: Vec<usize> = slot.frames(bytes).map(|(at, _)| at).collect();
    let path = folder.path().join(file_name(9, 0));
    let damage = |frame: usize| {
        use std::os::unix::fs::FileExt;
        let at = slot.position + places[frame] as u64;
        // All but its length may be anything; and that too.
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0x55; 16], at).unwrap();
    };
    let mut reader = SlotReader::default();
    let mut found = || {
        let runs = reader.runs(&slot).unwrap();
        let bytes: Vec<Vec<u8>> = runs.iter().map(|run| reader.read(&slot, run).unwrap().to_vec()).collect();
        let offsets: Vec<_> = runs.iter().map(|run| (run.offsets.start, run.offsets.end)).collect();
        (offsets, bytes, runs.gap.map(|gap| gap.from))
    };
    let whole = bytes.to_vec();
    let part = |frames: Range<usize>| whole[places[frames.start]..places[frames.end]].to_vec();
    damage(4);
    let seen = slot.look(slot.read(&mut Vec::new()).unwrap());
    let at = slot.position + places[4] as u64;
    assert_eq!((seen.frames, seen.unproved), (4, Some(at..slot.position + slot.len as u64)));
    let (offsets, bytes, gap) = found();
    assert_eq!((offsets, gap), (vec![(100, 104), (105, 110)], Some(104)));
    assert_eq!((&bytes[0], bytes[1].starts_with(&part(5..9))), (&part(0..4), true));
    // With the last one damaged nothing is behind it.
    damage(9);
    assert_eq!(found(), (vec![(100, 104), (105, 109)], vec![part(0..4), part(5..9)], Some(104)));
    (5..9).for_each(damage);
    assert_eq!(found(), (vec![(100, 104)], vec![part(0..4)], Some(104)));
    damage(0);
    assert_eq!(found(), (vec![(101, 104)], vec![part(1..4)], Some(100)));
    // The file became shorter after that was found.
    let run = reader.runs(&slot).unwrap().iter().next().unwrap().clone();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(slot.position + run.bytes.end as u64 - 1).unwrap();
    let short = reader.read(&slot, &run).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::Storage);
    assert!(short.to_string().contains("staging-"), "{short}");
}

/// A header whose sum is right and that says what cannot be: whoever can write the file can make one.
#[cfg(unix)]
#[test]
fn a_header_that_says_what_cannot_be_is_no_slot() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    drop(mapped(folder.path()).take(&want(100, 0)).unwrap());
    let path = folder.path().join(file_name(9, 0));
    let file = read_header(&RealDisk::default(), &path, 9, 0).unwrap().unwrap();
    let last = Mapping::position(file.granules as usize - 2);
    let good = SlotHeader {
        len: 2 * GRANULE as u32,
        topic_id: 3,
        partition: 1,
        epoch: 1,
        base_offset: 5,
        incarnation: 4,
        salt: 8,
    };
    let listed = |header: SlotHeader| {
        let bytes = header.encode(file.key, last);
        std::fs::File::options().write(true).open(&path).unwrap().write_all_at(&bytes, last as u64).unwrap();
        left(folder.path()).slots.iter().any(|slot| slot.topic_id == 3)
    };
    assert!(listed(good));
    assert!(listed(SlotHeader { len: GRANULE as u32, base_offset: MAX_OFFSET - 1, ..good }));
    assert!(!listed(SlotHeader { len: 3 * GRANULE as u32, ..good }), "longer than the file");
    assert!(!listed(SlotHeader { len: GRANULE as u32 + 8, ..good }), "no whole granules");
    assert!(!listed(SlotHeader { incarnation: 3, ..good }), "of an earlier open");
    assert!(!listed(SlotHeader { base_offset: MAX_OFFSET, ..good }), "no such offset");
}

/// The header of a slot lost a bit: that is told, and records that look like such a header are not.
#[cfg(unix)]
#[test]
fn a_damaged_header_is_told_of_and_what_looks_like_one_is_not() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let pool = mapped(folder.path());
    // Beside each other, the first one behind the second.
    let mut behind = pool.take(&want(100, GRANULE)).unwrap().unwrap();
    let mut before = pool.take(&want(100, GRANULE)).unwrap().unwrap();
    assert!(behind.append(&Record::new("value"), 100) && before.append(&Record::new("value"), 100));
    let mut big = pool.take(&Want { topic_id: 8, ..want(100, 8 * SMALL) }).unwrap().unwrap();
    let value = b"TLC1".repeat(25_000);
    assert!(big.append(&Record::new(&value), 200));
    let whole = left(folder.path());
    assert_eq!((whole.slots.len(), whole.damaged), (3, vec![]));
    let path = folder.path().join(file_name(9, 0));
    let at = whole.slots.iter().map(|slot| slot.position).max().unwrap();
    assert!(whole.slots.iter().any(|slot| slot.position + slot.len as u64 == at));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0x55], at + 16).unwrap();
    let hurt = left(folder.path());
    assert_eq!((hurt.slots.len(), hurt.damaged), (2, vec![(path.clone(), at)]));
    // What is behind the file's own length, as its header tells it, is not looked at.
    let end = std::fs::metadata(&path).unwrap().len();
    file.write_all_at(&b"TLC1".repeat(GRANULE / 4), end).unwrap();
    assert_eq!(left(folder.path()).damaged, [(path.clone(), at)]);
    let of_one_file = slots(&RealDisk::default(), &path, 9, 0, 4).unwrap();
    assert_eq!((of_one_file.slots.len(), of_one_file.damaged), (2, vec![(path.clone(), at)]));
    assert!(slots(&RealDisk::default(), &path, 9, 0, 3).unwrap().slots.is_empty(), "another incarnation's");
}

/// A staging file that was copied as its data only, and the rest as a hole.
#[cfg(unix)]
#[test]
fn slots_between_holes_are_found() {
    use std::os::unix::fs::FileExt;
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pool = mapped(folder.path());
    let mut writers: Vec<_> =
        [0, 64 * SMALL].map(|hint| pool.take(&want(100, hint)).unwrap().unwrap()).into_iter().collect();
    writers.iter_mut().for_each(|writer| assert!(writer.append(&Record::new("some value"), 100)));
    let whole = left(folder.path()).slots;
    let name = file_name(9, 0);
    let good = std::fs::read(folder.path().join(&name)).unwrap();
    let file = std::fs::File::create(copy.path().join(&name)).unwrap();
    file.set_len(good.len() as u64).unwrap();
    file.write_all_at(&good[..FILE_HEADER], 0).unwrap();
    for slot in &whole {
        let at = slot.position as usize;
        file.write_all_at(&good[at..at + 1_000], slot.position).unwrap();
    }
    let found = left(copy.path()).slots;
    let places = |slots: &[StagedChunk]| slots.iter().map(|slot| slot.position).collect::<Vec<_>>();
    assert_eq!((found.len(), places(&found)), (2, places(&whole)));
    assert!(found.iter().all(|slot| values(slot) == [(100, b"some value".to_vec())]));
}

/// Whoever looks for an error sees which file is read.
#[cfg(unix)]
#[test]
fn a_slot_says_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let pool = mapped(folder.path());
    let mut writer = pool.take(&want(100, 0)).unwrap().unwrap();
    assert!(writer.append(&Record::new("some value"), 100));
    let slot = left(folder.path()).slots.remove(0);
    assert!(format!("{slot:?}").contains("staging-"), "{slot:?}");
}

/// A staging file is read by whichever version comes next.
#[test]
fn the_sizes_that_a_file_is_divided_by_stay() {
    assert_eq!((GRANULE, crate::storage::slot::SMALL), (4_096, 65_536));
}

#[test]
fn shares_are_all_there_is_in_its_order() {
    for (count, len) in [(0, 1), (1, 1), (1, 5), (7, 3), (100, 1), (100, 99)] {
        let shares = in_shares(count, len, |share| Ok(share.collect::<Vec<_>>())).unwrap();
        assert!(shares.into_iter().flatten().eq(0..count), "{count} by {len}");
    }
    for bad in [0, 99] {
        let fails = |share: Range<usize>| match share.contains(&bad) {
            true => Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "this one")),
            false => Ok(()),
        };
        assert!(in_shares(100, 10, fails).is_err(), "{bad}");
    }
}
