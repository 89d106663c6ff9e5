//! Tests of chunks: what readers see, what is taken back, where memory goes.

use crate::frame::FrameView;
use crate::record::Record;
use crate::storage::chunk::*;
use crate::storage::slot::*;
use parking_lot::Mutex;

/// A home that keeps what comes back.
#[derive(Default)]
struct Drawer {
    evicted: Mutex<usize>,
    back: Mutex<Vec<(Memory, bool)>>,
}

impl Home for Drawer {
    fn evicted(&self, bytes: usize, _: bool) {
        *self.evicted.lock() += bytes;
    }

    fn give_back(&self, memory: Memory, _: bool, evicted: bool) {
        self.back.lock().push((memory, evicted));
    }
}

const SLOT: SlotHeader =
    SlotHeader { len: 0, topic_id: 7, partition: 3, epoch: 2, base_offset: 10, incarnation: 5, salt: 99 };

fn writer(len: usize) -> (ChunkWriter, Arc<Drawer>) {
    let home = Arc::new(Drawer::default());
    (ChunkWriter::begin(Memory::heap(len).unwrap(), SLOT, false, home.clone()), home)
}

fn stage(writer: &mut ChunkWriter, offset: u64, value: &[u8]) -> bool {
    writer.append(&Record::new(value), offset)
}

/// A frame that is summed up as it is stored has the bytes and the tag of one that is written and then summed up, whatever
/// lay there before: with keys and values of every length on either side of what is short, and around a value in place.
#[test]
fn frames_that_are_folded_are_the_same() {
    let bytes: Vec<u8> = (0..600u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 21) as u8).collect();
    let headers: &[(&str, &[u8])] = &[("h", b"x")];
    let lens = || (0..=40).chain([255, 256, 257]);
    let (time, bits) = (Timestamp::from_nanos(-7), frame::flags::MORE);
    let (mut writer, _) = writer(4096);
    let mut offset = 10;
    let mut check = |writer: &mut ChunkWriter, record: &Record<'_>, in_place: bool| {
        let len = frame::frame_len(record, false).unwrap();
        let mut expected = vec![0xAA; len];
        let tag = frame::write(&mut expected, record, offset, time, bits, None);
        // More than the frame, so that what is stored behind it shows.
        writer.reserve(len + 16).unwrap().bytes()[8..].fill(0x55);
        let mut room = writer.reserve(len).unwrap();
        if in_place {
            room.bytes()[frame::FIXED..].copy_from_slice(&expected[frame::FIXED..]);
            room.write_around(record.value.unwrap().len(), offset, time, bits);
        } else {
            room.write(record, offset, time, bits);
        }
        writer.publish();
        let chunk = writer.chunk();
        let end = chunk.committed();
        let frame = FrameView::parse(chunk.bytes(end - len, end).unwrap()).unwrap();
        assert_eq!(frame.bytes()[8..], expected[8..], "{record:?}");
        assert_eq!(frame.tag(), tag ^ mix(99, end - len), "{record:?}");
        assert_eq!(writer.reserved(16).unwrap()[8..], [0x55; 8], "{record:?}");
        offset += 1;
        if writer.room() < 1200 {
            *writer =
                ChunkWriter::begin(Memory::heap(4096).unwrap(), SLOT, false, Arc::new(Drawer::default()));
        }
    };
    // Each in memory of just its length, so that the sanitizer sees a load from beside it.
    let keys = lens().map(|len| Some(bytes[..len].to_vec())).chain([None]);
    for key in keys {
        for value in lens().map(|len| Some(bytes[600 - len..].to_vec())).chain([None]) {
            let (key, value) = (key.as_deref(), value.as_deref());
            for headers in [&[], headers] {
                check(&mut writer, &Record { key, value, headers, ..Record::default() }, false);
            }
        }
    }
    for len in lens() {
        check(&mut writer, &Record::new(&bytes[600 - len..]), true);
    }
}

#[test]
fn readers_see_what_was_published_and_no_more() {
    let (mut writer, _) = writer(1024);
    let chunk = Arc::clone(writer.chunk());
    assert_eq!((chunk.committed(), chunk.capacity(), chunk.base_offset()), (HEADER, 1024, 10));
    assert!(stage(&mut writer, 10, b"one") && stage(&mut writer, 11, b"two"));
    assert_eq!(chunk.committed(), HEADER);
    assert!(chunk.bytes(HEADER, HEADER + 8).is_none());
    writer.publish();
    let end = chunk.committed();
    let bytes = chunk.bytes(HEADER, end).unwrap();
    let one = FrameView::parse(bytes).unwrap();
    one.verify(mix(99, HEADER)).unwrap();
    let two = FrameView::parse(&bytes[one.len()..]).unwrap();
    two.verify(mix(99, HEADER + one.len())).unwrap();
    assert_eq!((one.value(), two.value()), (Some(&b"one"[..]), Some(&b"two"[..])));
    assert!(chunk.bytes(0, end).is_none() && chunk.bytes(end, HEADER).is_none());
    assert!(chunk.bytes(HEADER, end + 8).is_none() && chunk.bytes(end, end).is_some());
    assert!(!chunk.sealed());
    assert!(Arc::ptr_eq(&writer.seal(), &chunk));
    assert!(chunk.sealed());
}

/// What a reader holds of a chunk grows by what is published behind it, and by nothing else; what is no chunk's stays.
#[test]
fn held_bytes_take_in_what_was_published_since() {
    let (mut writer, home) = writer(1024);
    stage(&mut writer, 10, b"one");
    writer.publish();
    let one = writer.chunk().committed();
    let mut held = writer.chunk().hold(one, one).unwrap();
    let before = held.clone();
    held.extend();
    assert!(held.may_grow() && held.bytes().is_empty());
    stage(&mut writer, 11, b"two");
    held.extend();
    assert!(held.bytes().is_empty(), "staged, not published");
    writer.publish();
    held.extend();
    assert_eq!(FrameView::parse(held.bytes()).unwrap().value(), Some(&b"two"[..]));
    assert!(before.bytes().is_empty());
    drop((writer, before));
    held.extend();
    assert!(home.back.lock().is_empty(), "its chunk lives as long as it does");
    assert_eq!(FrameView::parse(held.bytes()).unwrap().offset(), 11);
    drop(held);
    assert_eq!(home.back.lock().len(), 1);

    let owner = Arc::new(vec![1, 2, 3]);
    let mut part = Held::within(Arc::clone(&owner), |all| &all[1..]);
    drop(owner);
    part.extend();
    assert_eq!((part.may_grow(), part.bytes()), (false, &[2, 3][..]));
}

#[cfg(unix)]
#[test]
fn warming_changes_nothing_and_stays_within_the_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let mapping = Mapping::create(
        &crate::storage::disk::RealDisk::default(),
        &dir.path().join("staging"),
        &[],
        2,
        1,
        false,
    )
    .unwrap();
    let home = Arc::new(Drawer::default());
    let mut writer = ChunkWriter::begin(mapping.take(1).unwrap(), SLOT, false, home);
    stage(&mut writer, 10, b"here");
    writer.publish();
    let chunk = writer.seal();
    let before = chunk.bytes(HEADER, chunk.committed()).unwrap().to_vec();
    for (from, len) in [(HEADER, 0), (chunk.committed(), usize::MAX), (GRANULE, 1), (usize::MAX, usize::MAX)]
    {
        chunk.warm(from, len);
    }
    assert_eq!(chunk.bytes(HEADER, chunk.committed()), Some(&before[..]));
}

#[test]
fn an_abandoned_batch_leaves_a_zero() {
    let (mut writer, home) = writer(1024);
    stage(&mut writer, 10, b"kept");
    writer.publish();
    let end = writer.chunk().committed();
    stage(&mut writer, 11, b"not kept");
    stage(&mut writer, 12, b"nor this");
    writer.abandon();
    assert_eq!(writer.chunk().committed(), end);
    assert_eq!(writer.room(), 1024 - end);
    drop(writer);
    let (mut memory, evicted) = home.back.lock().pop().unwrap();
    assert!(!evicted);
    assert_eq!(memory.bytes()[end..end + 8], [0; 8]);
    assert_eq!(SlotHeader::parse(memory.bytes(), 0, 0), Some(SlotHeader { len: 1024, ..SLOT }));
}

#[test]
fn fills_up_to_the_last_byte() {
    let (mut writer, home) = writer(HEADER + 80);
    assert!(stage(&mut writer, 10, b"12345678")); // 40 bytes
    assert!(stage(&mut writer, 11, b"12345678"));
    assert_eq!(writer.room(), 0);
    assert!(!stage(&mut writer, 12, b""));
    assert!(writer.reserve(4).is_none());
    writer.publish();
    assert_eq!(writer.chunk().committed(), HEADER + 80);
    writer.abandon();
    drop(writer);
    assert_eq!(home.back.lock().len(), 1);
}

#[test]
fn the_next_life_begins_empty_and_ends_in_zeros() {
    let (mut old, home) = writer(1024);
    while stage(&mut old, 10, b"an earlier life") {}
    old.publish();
    drop(old);
    let (mut memory, _) = home.back.lock().pop().unwrap();
    assert_eq!(memory.previous_salt(), 99);
    let mut new = ChunkWriter::begin(memory, SlotHeader { salt: 100, ..SLOT }, false, home.clone());
    stage(&mut new, 10, b"short");
    new.publish();
    let end = new.chunk().committed();
    drop(new);
    let (mut memory, _) = home.back.lock().pop().unwrap();
    assert_eq!(memory.bytes()[end..end + 8], [0; 8]);
    assert_ne!(memory.bytes()[end + 8..end + 16], [0; 8], "the earlier life lies behind");
}

#[test]
fn the_last_holder_gives_back() {
    let (writer, home) = writer(1024);
    let reader = Arc::clone(writer.chunk());
    drop(writer);
    reader.mark_evicted();
    reader.mark_evicted();
    assert_eq!((*home.evicted.lock(), home.back.lock().len()), (1024, 0));
    drop(reader);
    assert!(home.back.lock().pop().unwrap().1);
}

#[test]
fn there_is_room_for_what_fits_alone() {
    let (mut writer, _) = writer(256);
    for len in [0, 4, 100, 136, usize::MAX & !7] {
        assert!(writer.reserve(len).is_none(), "{len}");
    }
    assert_eq!(writer.reserve(128).map(|room| room.into_bytes().len()), Some(128));
    assert_eq!(writer.room(), 128, "nothing was staged");
}

#[test]
fn no_memory_for_less_than_a_frame() {
    for len in [0, 8, HEADER, HEADER + 1, MAX_LEN + 8, usize::MAX & !7] {
        assert!(Memory::heap(len).is_none(), "{len}");
    }
}

#[test]
fn a_slot_header_proves_itself_and_its_place() {
    let header = SlotHeader { len: 65536, ..SLOT };
    let good = header.encode(1, 4096);
    assert_eq!(SlotHeader::parse(&good, 1, 4096), Some(header));
    assert_eq!(SlotHeader::parse(&good, 2, 4096), None);
    assert_eq!(SlotHeader::parse(&good, 1, 4096 + GRANULE), None);
    for bit in 0..RECOVERY_HEADER * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SlotHeader::parse(&bad, 1, 4096), None, "bit {bit}");
    }
    for cut in 0..RECOVERY_HEADER {
        assert_eq!(SlotHeader::parse(&good[..cut], 1, 4096), None);
    }
    for len in [0, 128, 129, MAX_LEN as u32 + 8, u32::MAX] {
        assert_eq!(SlotHeader::parse(&SlotHeader { len, ..SLOT }.encode(1, 0), 1, 0), None);
    }
}

#[cfg(unix)]
#[test]
fn a_mapping_hands_out_each_granule_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    const SIXTY_FOUR: usize = SMALL / GRANULE * 4;
    let mapping = Mapping::create(
        &crate::storage::disk::RealDisk::default(),
        &path,
        b"head",
        2 * SIXTY_FOUR + 1,
        0,
        true,
    )
    .unwrap();
    assert!(
        Mapping::create(&crate::storage::disk::RealDisk::default(), &path, b"head", 1, 0, false).is_err(),
        "exists"
    );
    let len = Mapping::HEAD + (2 * SIXTY_FOUR + 1) * GRANULE;
    assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, len);
    let place = |memory: Option<Memory>| memory.map(|memory| memory.place().1);
    // Small ones from the end, large ones from the beginning.
    let small = mapping.take(1).unwrap();
    let medium = mapping.take(16).unwrap();
    let big = mapping.take(SIXTY_FOUR).unwrap();
    assert_eq!(small.place().1, Mapping::position(2 * SIXTY_FOUR));
    assert_eq!(medium.place().1, Mapping::position(2 * SIXTY_FOUR - 16));
    assert_eq!(big.place().1, Mapping::HEAD);
    assert!(mapping.take(SIXTY_FOUR).is_none(), "the rest is not aligned");
    assert!(mapping.take(0).is_none() && mapping.take(2 * SIXTY_FOUR + 2).is_none());
    let rest: Vec<_> = std::iter::from_fn(|| mapping.take(1)).collect();
    assert_eq!(rest.len(), SIXTY_FOUR - 16);
    assert!(mapping.take(1).is_none() && mapping.take(16).is_none());
    // What was given back is found again, wherever it was.
    drop(big);
    assert_eq!(place(mapping.take(SIXTY_FOUR)), Some(Mapping::HEAD));
    drop(medium);
    assert_eq!(place(mapping.take(16)), Some(Mapping::position(2 * SIXTY_FOUR - 16)));
    drop(small);
    assert!(!mapping.is_idle());
    assert_eq!(place(mapping.take(1)), Some(Mapping::position(2 * SIXTY_FOUR)));
    drop(rest);
    assert!(mapping.is_idle());
    assert_eq!(mapping.capacity(), len - Mapping::HEAD);
}

impl ChunkWriter {
    /// Stages one record; `false` without room.
    pub(crate) fn append(&mut self, record: &crate::record::Record<'_>, offset: u64) -> bool {
        let len = crate::frame::frame_len(record, false).unwrap();
        let time = crate::clock::Timestamp::from_nanos(1);
        let Some(room) = self.reserve(len) else { return false };
        room.write(record, offset, time, 0);
        true
    }
}
