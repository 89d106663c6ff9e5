//! Partitioners and hashes.

use std::collections::BTreeSet;

use tapelog::partitioner::{
    Crc32, DefaultPartitioner, Fnv1a, Murmur2, PartitionFacts, Partitioner, RoundRobin, Sticky, fnv1a,
    murmur2, pick,
};

fn keyed(partitioner: &dyn Partitioner, key: &str, n: u32) -> u32 {
    partitioner.partition(&PartitionFacts::new("t", n).key(key))
}

#[test]
fn p_01_murmur2_as_kafka_signs_it() {
    for (key, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
    }
}

#[test]
fn p_03_murmur2_of_every_length_and_alignment() {
    let long = "PreAmbleWillBeRemoved,ThePrePartThatIs";
    for (key, hash) in [
        ("kafka", 0xd067_cf64),
        ("giberish123456789", 0x8f55_2b0c),
        ("1234", 0x9fc9_7b14),
        ("234", 0xe7c0_09ca),
        ("34", 0x8739_30da),
        ("4", 0x5a4b_5ca1),
        ("", 0x106e_08d9),
        (long, 0x7842_4f1c),
        (&long[1..], 0x4a62_b377),
        (&long[2..], 0xe0e4_e09e),
        (&long[3..], 0x62b8_b43f),
    ] {
        for shift in 0..8 {
            let moved = [&[0xee; 8][..shift], key.as_bytes()].concat();
            assert_eq!(murmur2(&moved[shift..]) as u32, hash, "{key} at {shift}");
        }
    }
}

#[test]
fn p_05_default_keyed_partitions() {
    for (key, partitions) in [
        ("foobar", [0, 0, 6]),
        ("21", [0, 0, 0]),
        ("abc", [0, 3, 3]),
        ("kafka", [1, 4, 4]),
        ("giberish123456789", [2, 2, 8]),
    ] {
        for partitioner in [&DefaultPartitioner::new() as &dyn Partitioner, &Murmur2::new()] {
            assert_eq!([3, 6, 12].map(|n| keyed(partitioner, key, n)), partitions, "{key}");
        }
    }
}

#[test]
fn p_07_an_empty_key_is_hashed_and_no_key_is_not() {
    let partitioner = DefaultPartitioner::new();
    let mut seen = BTreeSet::new();
    for _ in 0..1_000 {
        assert_eq!(keyed(&partitioner, "", 12), 9);
        let at = partitioner.partition(&PartitionFacts::new("t", 12).value(&[0; 100]));
        assert!(at < 12);
        seen.insert(at);
    }
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn p_09_crc32() {
    for (key, hash, partition) in [
        ("23456", 0xb1b4_51d7, 7),
        ("this is another string with more length to it perhaps", 0xb015_0df7, 15),
        ("hejsan", 0xd077_037e, 14),
        ("", 0, 0),
    ] {
        assert_eq!(crc32fast::hash(key.as_bytes()), hash, "{key}");
        assert_eq!(keyed(&Crc32::new(), key, 17), partition, "{key}");
    }
}

#[test]
fn p_11_fnv1a_with_the_absolute_value() {
    for (key, hash, partition) in [
        ("kafka", 0x0d33_c4e1, 9),
        ("giberish123456789", 0x77a5_8295, 2),
        ("1234", 0x023b_dd03, 13),
        ("", 0x7ee3_623b, 0),
    ] {
        assert_eq!((fnv1a(key.as_bytes()) as i32).unsigned_abs(), hash, "{key}");
        assert_eq!(keyed(&Fnv1a::new(), key, 17), partition, "{key}");
    }
}

#[cfg(feature = "md5")]
#[test]
fn p_13_md5_as_one_big_endian_integer() {
    let partitioner = tapelog::partitioner::Md5::new();
    assert_eq!([3, 6, 8, 12].map(|n| keyed(&partitioner, "abc", n)), [1, 4, 2, 10]);
    assert_eq!([3, 6, 8, 12].map(|n| keyed(&partitioner, "", n)), [0, 0, 6, 6]);
}

#[cfg(feature = "sha1")]
#[test]
fn p_13_sha1_as_one_big_endian_integer() {
    let partitioner = tapelog::partitioner::Sha1::new();
    assert_eq!([3, 6, 8, 12].map(|n| keyed(&partitioner, "abc", n)), [2, 5, 5, 5]);
    assert_eq!([3, 6, 8, 12].map(|n| keyed(&partitioner, "", n)), [1, 1, 1, 1]);
}

#[test]
fn p_17_a_key_moves_when_the_topic_grows() {
    let partitioner = DefaultPartitioner::new();
    assert_eq!([3, 4].map(|n| keyed(&partitioner, "foobar", n)), [0, 2]);
}

#[test]
fn p_19_sticky_by_bytes() {
    for seed in 0..100 {
        let sticky = Sticky::seeded(3, seed);
        let facts = PartitionFacts::new("t", 5).value("x");
        let sent: Vec<u32> = (0..4).map(|_| sticky.partition(&facts)).collect();
        assert_eq!(sent[..3], [sent[0]; 3], "seed {seed}");
        assert_ne!(sent[3], sent[0], "seed {seed}");
    }
    let sticky = Sticky::new(3);
    assert!((0..10).all(|_| sticky.partition(&PartitionFacts::new("t", 1).value("x")) == 0));
}

#[test]
fn p_21_adaptive_picks_by_queue_depth() {
    let depths = [5, 0, 3, 0, 1];
    let mut picks = [0; 5];
    for random in 0..42 {
        picks[pick(5, |partition| depths[partition as usize], random) as usize] += 1;
    }
    assert_eq!(picks, [2, 12, 6, 12, 10]);
}

#[test]
fn p_23_round_robin_counts_per_topic_and_ignores_keys() {
    let round_robin = RoundRobin::new();
    let mut sent = [0; 3];
    for i in 0..30 {
        sent[round_robin.partition(&PartitionFacts::new("A", 3).key("key")) as usize] += 1;
        if i % 5 == 4 {
            assert_eq!(round_robin.partition(&PartitionFacts::new("B", 1).key("key")), 0);
        }
    }
    assert_eq!(sent, [10, 10, 10]);
}
