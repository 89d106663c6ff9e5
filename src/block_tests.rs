//! Tests of blocks: what goes in comes out, what is damaged or lies does not, and whose memory is used again.

use crate::block::*;
use crate::block_builder::*;
use crate::clock::Timestamp;
use crate::codec::Compression;
use crate::frame;
use crate::record::Record;

const PLACE: BlockPlace =
    BlockPlace { topic_id: 7, partition: 3, epoch: 2, salt: 99, position: 4096, durable_mark: 64 };

fn block_of(n: u64, compression: Compression) -> EncodedBlock {
    let mut builder = BlockBuilder::default();
    for i in 0..n {
        let value = format!("{{\"price\":{i}}}");
        let frame =
            frame::to_vec(&Record::new(&value).key("k"), 10 + i, Timestamp::from_nanos(i as i64 % 5), 0);
        builder.push(&frame);
    }
    builder.take(PLACE, compression).unwrap()
}

fn aligned(bytes: &[u8]) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(bytes.len());
    buf.as_mut_slice().copy_from_slice(bytes);
    buf
}

fn parse(bytes: &[u8]) -> Result<BlockHeader, BlockError> {
    let mut head = [0; HEADER];
    head.copy_from_slice(&bytes[..HEADER]);
    BlockHeader::parse(&head, PLACE.salt, PLACE.position)
}

#[test]
fn round_trip_compressed_and_not() {
    for compression in [Compression::None, Compression::Lz4, Compression::Snappy] {
        let block = block_of(100, compression);
        let header = parse(&block.bytes).unwrap();
        assert_eq!(header, block.header);
        assert_eq!(header.total_len() as usize, block.bytes.len());
        assert_eq!((header.base_offset, header.last_offset, header.count), (10, 109, 100));
        assert_eq!((header.max_timestamp.as_nanos(), header.max_timestamp_offset()), (4, 14));
        let back = DecodedBlock::decode(header, aligned(&block.bytes), &Codecs::default()).unwrap();
        assert_eq!(back.frames().as_ptr() as usize % 8, 0);
        let mut at = 0;
        for i in 0..100u64 {
            let frame = FrameView::parse(&back.frames()[at..]).unwrap();
            frame.verify(0).unwrap();
            assert_eq!(frame.value(), Some(format!("{{\"price\":{i}}}").as_bytes()));
            at += frame.len();
        }
    }
}

#[test]
fn an_unfinished_append_continues() {
    let mut builder = BlockBuilder::default();
    let frame = frame::to_vec(&Record::new("v"), 0, Timestamp::default(), frame::flags::MORE);
    builder.push(&frame);
    let block = builder.take(PLACE, Compression::None).unwrap();
    assert!(block.header.continues());
    assert!(builder.take(PLACE, Compression::None).is_none());
}

#[test]
fn every_flipped_bit_is_noticed() {
    for compression in [Compression::None, Compression::Lz4] {
        let good = block_of(3, compression).bytes;
        let padding = good.len() - HEADER - parse(&good).unwrap().stored_len as usize;
        for bit in 0..(good.len() - padding) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let seen = parse(&bad)
                .map_err(Error::from)
                .and_then(|h| DecodedBlock::decode(h, aligned(&bad), &Codecs::default()).map(drop));
            assert!(seen.is_err(), "bit {bit}");
        }
    }
}

#[test]
fn another_place_or_salt_is_refused() {
    let block = block_of(1, Compression::None).bytes;
    let mut head = [0; HEADER];
    head.copy_from_slice(&block[..HEADER]);
    assert_eq!(BlockHeader::parse(&head, 98, 4096), Err(BlockError::Place));
    assert_eq!(BlockHeader::parse(&head, 99, 4104), Err(BlockError::Place));
}

#[test]
fn a_lying_header_with_a_good_checksum_is_refused() {
    let mut header = block_of(5, Compression::None).header;
    let bytes = block_of(5, Compression::None).bytes;
    let check = |h: &BlockHeader| {
        let mut bad = bytes.clone();
        h.write(&mut bad);
        parse(&bad)
            .map_err(Error::from)
            .and_then(|h| DecodedBlock::decode(h, aligned(&bad), &Codecs::default()).map(drop))
    };
    check(&header).unwrap();
    header.count += 1;
    assert!(check(&header).is_err());
    header.count -= 1;
    header.base_offset += 1;
    assert!(check(&header).is_err());
    header.base_offset -= 1;
    header.raw_len = !7;
    header.stored_len = header.raw_len;
    assert!(check(&header).is_err());
    let mut packed = block_of(5, Compression::Lz4).header;
    packed.raw_len += 8;
    let lz4 = block_of(5, Compression::Lz4).bytes;
    let mut bad = lz4.clone();
    packed.write(&mut bad);
    let seen = parse(&bad).unwrap();
    assert!(DecodedBlock::decode(seen, aligned(&bad), &Codecs::default()).is_err());
}

/// Says that it has unpacked what it has not looked at.
struct Idle;

impl crate::codec::Codec for Idle {
    fn id(&self) -> u8 {
        200
    }
    fn name(&self) -> &str {
        "idle"
    }
    fn compress(&self, _: &[u8], output: &mut Vec<u8>) -> Result<(), crate::codec::CodecError> {
        output.push(0);
        Ok(())
    }
    fn decompress(&self, _: &[u8], _: &mut [u8]) -> Result<(), crate::codec::CodecError> {
        Ok(())
    }
}

#[test]
fn memory_used_again_shows_nothing_of_the_block_before() {
    let mut codecs = Codecs::default();
    codecs.register(std::sync::Arc::new(Idle)).unwrap();
    let block = block_of(100, Compression::Lz4);
    let good = DecodedBlock::decode(block.header, aligned(&block.bytes), &codecs).unwrap();
    drop(good); // its memory, full of good frames, is what the next block is read into
    let (codec, columns_len) = (200, 0);
    let lying = BlockHeader { codec, columns_len, ..block.header };
    assert!(DecodedBlock::decode(lying, aligned(&block.bytes), &codecs).is_err());
}

#[test]
fn memory_of_a_block_is_used_again_once_nobody_reads_it() {
    let block = block_of(100, Compression::None);
    let read = || {
        let mut stored = AlignedBuf::recycled(block.bytes.len());
        stored.as_mut_slice().copy_from_slice(&block.bytes);
        DecodedBlock::decode(block.header, stored, &Codecs::default()).unwrap()
    };
    let (first, second) = (read(), read());
    let place = first.frames().as_ptr();
    assert_ne!(place, second.frames().as_ptr());
    drop(first);
    assert_eq!(read().frames().as_ptr(), place);
    assert_eq!(second.frames(), &block.bytes[HEADER..]);
}

#[test]
fn blocks_gather_back_to_back_and_are_the_same_as_one_by_one() {
    for compression in [Compression::None, Compression::Lz4] {
        let frame = |offset| frame::to_vec(&Record::new(&[7; 400]), offset, Timestamp::default(), 0);
        let (mut builder, mut alone) = (BlockBuilder::default(), BlockBuilder::default());
        let (mut place, mut expected) = (PLACE, Vec::new());
        for offset in [20, 30, 40] {
            builder.push(&frame(offset));
            alone.push(&frame(offset));
            assert_eq!((builder.base_offset(), builder.len()), (Some(offset), frame(offset).len()));
            builder.close(place, &Codecs::default(), compression);
            let block = alone.take(place, compression).unwrap();
            place.position += block.bytes.len() as u64;
            expected.extend(block.bytes);
        }
        assert!(builder.is_empty());
        assert_eq!(builder.len(), 0);
        assert_eq!(builder.next_offset(), Some(41));
        // The block at hand is none of them, and stays when they go.
        builder.push(&frame(50));
        let (headers, bytes) = builder.closed();
        assert_eq!((headers.len(), bytes), (3, &expected[..]), "{compression:?}");
        builder.forget_closed();
        assert_eq!((builder.closed().1.len(), builder.next_offset()), (0, Some(51)));
        alone.push(&frame(50));
        let (last, other) = (builder.take(place, compression), alone.take(place, compression));
        assert_eq!(last.unwrap().bytes, other.unwrap().bytes);
    }
}
