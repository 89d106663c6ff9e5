//! Which partition a record goes to: the trait, Kafka's rules, and a few others.
//!
//! A producer asks its partitioner for every record that does not name its partition. With a key, a hash
//! decides, so that equal keys keep their order; without one, a *sticky* partitioner stays with a partition
//! for some bytes and then moves on, so that blocks on disk come out full.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Chooses the partition of a record that does not name one.
///
/// Called on the thread that sends, by many threads at a time, never under a lock of the log. The answer must
/// be below [`PartitionFacts::partitions`]: any other is an error of the send
/// ([`ErrorKind::UserCode`](crate::ErrorKind::UserCode)), never wrapped around. A closure is a partitioner
/// where it names the type of its argument:
///
/// ```
/// use tapelog::partitioner::{PartitionFacts, Partitioner};
///
/// let by_first_byte = |facts: &PartitionFacts<'_>| match facts.key {
///     Some([first, ..]) => u32::from(*first) % facts.partitions,
///     _ => 0,
/// };
/// assert_eq!(by_first_byte.partition(&PartitionFacts::new("ticks", 4).key("AAPL")), 1);
/// ```
pub trait Partitioner: Send + Sync + 'static {
    /// The partition for the record that `facts` tell of.
    fn partition(&self, facts: &PartitionFacts<'_>) -> u32;
}

impl<F> Partitioner for F
where
    F: Fn(&PartitionFacts<'_>) -> u32 + Send + Sync + 'static,
{
    fn partition(&self, facts: &PartitionFacts<'_>) -> u32 {
        self(facts)
    }
}

/// What a [`Partitioner`] is told of a record and its topic.
///
/// Made by the producer; the constructor is there for tests of one's own partitioner.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct PartitionFacts<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The topic's id: another one once a topic was deleted and created again under its name.
    pub topic_id: u64,
    /// How many partitions the topic has now; at least one.
    pub partitions: u32,
    /// The record's key; `None` without one. An empty key is a key.
    pub key: Option<&'a [u8]>,
    /// The record's value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Answers [`PartitionFacts::queue_depth`]. A borrowed closure: it is asked rarely, and by few.
    pub(crate) queue_depths: &'a dyn Fn(u32) -> u64,
}

impl<'a> PartitionFacts<'a> {
    /// A record without key and value for a topic whose queues are empty and whose id is made from its name.
    ///
    /// # Panics
    /// Where `partitions` is zero.
    #[must_use]
    pub fn new(topic: &'a str, partitions: u32) -> Self {
        assert!(partitions > 0, "a topic has at least one partition");
        let topic_id = u64::from(fnv1a(topic.as_bytes()));
        PartitionFacts { topic, topic_id, partitions, key: None, value: None, queue_depths: &|_| 0 }
    }

    /// The same with a topic id.
    #[must_use]
    pub fn topic_id(mut self, topic_id: u64) -> Self {
        self.topic_id = topic_id;
        self
    }

    /// The same with a key.
    #[must_use]
    pub fn key<K: AsRef<[u8]> + ?Sized>(mut self, key: &'a K) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// The same with a value.
    #[must_use]
    pub fn value<V: AsRef<[u8]> + ?Sized>(mut self, value: &'a V) -> Self {
        self.value = Some(value.as_ref());
        self
    }

    /// The same with queues: `depths` tells the bytes that wait in a partition.
    #[must_use]
    pub fn queue_depths(mut self, depths: &'a dyn Fn(u32) -> u64) -> Self {
        self.queue_depths = depths;
        self
    }

    /// Bytes of `partition` that were appended and are not yet written to its file: how far its disk lags
    /// behind. Always 0 for a log in memory, and for a partition that does not exist.
    #[must_use]
    pub fn queue_depth(&self, partition: u32) -> u64 {
        (self.queue_depths)(partition)
    }

    /// Bytes of key and value. At least 1, so that records of nothing move a sticky partitioner too.
    fn bytes(&self) -> u64 {
        let of = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len) as u64;
        (of(self.key) + of(self.value)).max(1)
    }
}

impl fmt::Debug for PartitionFacts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionFacts")
            .field("topic", &self.topic)
            .field("topic_id", &self.topic_id)
            .field("partitions", &self.partitions)
            .field("key", &self.key)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

/// Kafka's 32-bit MurmurHash2: seed `0x9747b28c`, little-endian words; the sign is the top bit.
///
/// Source: Austin Appleby's MurmurHash2, with the seed that Kafka's `Utils.murmur2` fixes.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let (words, rest) = bytes.as_chunks::<4>();
    // Kafka mixes in the length as a 32-bit integer; longer keys than that do not exist.
    let mut hash = 0x9747_b28c_u32 ^ bytes.len() as u32;
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

/// The 32-bit FNV-1a hash. [`Fnv1a`] takes the absolute value of it as a signed number.
///
/// Source: Fowler, Noll and Vo; offset basis `0x811c9dc5`, prime `0x01000193`.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The remainder of a digest, read as one big-endian unsigned integer.
#[cfg(any(feature = "md5", feature = "sha1"))]
fn remainder(digest: &[u8], n: u32) -> u32 {
    let n = u64::from(n);
    digest.iter().fold(0, |rest, byte| ((rest << 8) | u64::from(*byte)) % n) as u32
}

macro_rules! by_key {
    ($(#[$about:meta])* $name:ident, |$key:ident, $n:ident| $answer:expr) => {
        $(#[$about])*
        pub struct $name {
            unkeyed: Box<dyn Partitioner>,
        }

        impl $name {
            /// A partitioner that gives records without a key to a [`Sticky`] of the default size.
            #[must_use]
            pub fn new() -> Self {
                $name { unkeyed: Box::new(Sticky::default()) }
            }

            /// The same with another partitioner for records without a key.
            #[must_use]
            pub fn unkeyed(self, partitioner: impl Partitioner) -> Self {
                $name { unkeyed: Box::new(partitioner) }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $name::new()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }

        impl Partitioner for $name {
            fn partition(&self, facts: &PartitionFacts<'_>) -> u32 {
                let ($n, Some($key)) = (facts.partitions, facts.key) else {
                    return self.unkeyed.partition(facts);
                };
                $answer
            }
        }
    };
}

by_key! {
    /// Kafka's rule for keys: `(murmur2(key) & 0x7fffffff) % n`.
    ///
    /// Equal keys go where a Kafka producer would send them, as long as the partition count is the same.
    Murmur2, |key, n| (murmur2(key) as u32 & 0x7fff_ffff) % n
}

/// What a producer uses unless told otherwise, and what Kafka's does: [`Murmur2`] with a key, [`Sticky`] without.
pub type DefaultPartitioner = Murmur2;

by_key! {
    /// The rule that librdkafka calls "consistent": `crc32(key) % n`.
    Crc32, |key, n| crc32fast::hash(key) % n
}

by_key! {
    /// The rule of Sarama and of librdkafka's `fnv1a`: `abs(h) % n` of the hash as a signed number.
    Fnv1a, |key, n| (fnv1a(key) as i32).unsigned_abs() % n
}

#[cfg(feature = "md5")]
by_key! {
    /// The MD5 digest of the key, all of it as one big-endian unsigned integer, modulo n. Feature `md5`.
    Md5, |key, n| remainder(&<md5::Md5 as md5::Digest>::digest(key), n)
}

#[cfg(feature = "sha1")]
by_key! {
    /// The SHA-1 digest of the key, all of it as one big-endian unsigned integer, modulo n. Feature `sha1`.
    Sha1, |key, n| remainder(&<sha1::Sha1 as sha1::Digest>::digest(key), n)
}

/// One partition after the other, record by record, per topic; keys do not matter.
///
/// The first record of a topic goes to partition 0. The place in a topic is forgotten once some 4,000 others
/// were used since.
#[derive(Debug, Default)]
pub struct RoundRobin {
    sent: PerTopic<u64>,
}

impl RoundRobin {
    /// A partitioner that begins at partition 0 of every topic.
    #[must_use]
    pub fn new() -> Self {
        RoundRobin::default()
    }
}

impl Partitioner for RoundRobin {
    fn partition(&self, facts: &PartitionFacts<'_>) -> u32 {
        let turn = self.sent.with(facts.topic_id, |sent| {
            *sent += 1;
            *sent - 1
        });
        (turn % u64::from(facts.partitions)) as u32
    }
}

/// Stays with one partition until so many bytes of keys and values were given to it, then takes another at
/// random; per topic; keys do not matter.
///
/// A record that finds the partition's bytes used up opens the next partition, so that a partition gets at
/// least the sticky size. Bytes are counted when the partition is chosen, whether the append then succeeds
/// or not.
#[derive(Debug)]
pub struct Sticky {
    bytes: u64,
    random: Random,
    topics: PerTopic<Stuck>,
}

/// Where a topic's records without key go now, and how many bytes went there.
#[derive(Debug, Default)]
struct Stuck {
    at: Option<u32>,
    given: u64,
}

impl Sticky {
    /// The sticky size unless told otherwise: 16 KiB, as Kafka's `batch.size`.
    pub const DEFAULT_BYTES: u64 = 16 * 1024;

    /// A partitioner with a sticky size in bytes; 0 is as 1: every record goes elsewhere.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Sticky::seeded(bytes, RandomState::new().build_hasher().finish())
    }

    /// The same with choices that repeat: for tests.
    #[must_use]
    pub fn seeded(bytes: u64, seed: u64) -> Self {
        Sticky { bytes: bytes.max(1), random: Random(AtomicU64::new(seed)), topics: PerTopic::default() }
    }

    /// Stays, or goes where `next` says, given the partition left behind.
    fn stay_or(&self, facts: &PartitionFacts<'_>, next: impl FnOnce(Option<u32>) -> u32) -> u32 {
        let (limit, bytes) = (self.bytes, facts.bytes());
        let stay = |stuck: &mut Stuck| match stuck.at {
            Some(at) if at < facts.partitions && stuck.given < limit => {
                stuck.given += bytes;
                Ok(at)
            }
            left => Err(left),
        };
        let left = match self.topics.with(facts.topic_id, stay) {
            Ok(at) => return at,
            Err(left) => left,
        };
        // `next` may ask for queue depths, which is code that is not ours: never under our lock.
        let next = next(left);
        self.topics.with(facts.topic_id, |stuck| {
            // Where another thread moved on in the meantime, follow it.
            stay(stuck).unwrap_or_else(|_| {
                *stuck = Stuck { at: Some(next), given: bytes };
                next
            })
        })
    }

    /// Any partition but `left`, all with the same chance; `left` only where there is no other.
    fn another(&self, left: Option<u32>, partitions: u32) -> u32 {
        match left {
            Some(left) if left < partitions && partitions > 1 => {
                let step = self.random.below(partitions - 1);
                step + u32::from(step >= left)
            }
            _ => self.random.below(partitions),
        }
    }
}

impl Default for Sticky {
    fn default() -> Self {
        Sticky::new(Sticky::DEFAULT_BYTES)
    }
}

impl Partitioner for Sticky {
    fn partition(&self, facts: &PartitionFacts<'_>) -> u32 {
        self.stay_or(facts, |left| self.another(left, facts.partitions))
    }
}

/// A [`Sticky`] that prefers partitions whose writing keeps up (Kafka's KIP-794).
///
/// When it moves on, it takes a partition with the chance of its weight: the deepest queue of the topic
/// plus one, minus its own; queues counted in sticky sizes, as Kafka counts batches. With queues that are all
/// equal it is as [`Sticky`].
#[derive(Debug, Default)]
pub struct AdaptiveSticky(Sticky);

impl AdaptiveSticky {
    /// A partitioner with a sticky size in bytes; 0 is as 1.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        AdaptiveSticky(Sticky::new(bytes))
    }

    /// The same with choices that repeat: for tests.
    #[must_use]
    pub fn seeded(bytes: u64, seed: u64) -> Self {
        AdaptiveSticky(Sticky::seeded(bytes, seed))
    }
}

impl Partitioner for AdaptiveSticky {
    fn partition(&self, facts: &PartitionFacts<'_>) -> u32 {
        self.0.stay_or(facts, |left| {
            let depth = |partition| facts.queue_depth(partition) / self.0.bytes;
            let first = depth(0);
            if (1..facts.partitions).all(|partition| depth(partition) == first) {
                return self.0.another(left, facts.partitions);
            }
            pick(facts.partitions, depth, self.0.random.next())
        })
    }
}

/// The rule of [`AdaptiveSticky`] alone: the partition that `random` falls on, where each takes as much room
/// as the deepest queue plus one, minus its own queue.
///
/// Depths `0 3 1` make weights `4 1 3`: of eight random numbers in sequence, four fall on partition 0, one on
/// partition 1, and three on partition 2.
///
/// # Panics
/// Where `partitions` is zero.
#[must_use]
pub fn pick(partitions: u32, depth: impl Fn(u32) -> u64, random: u64) -> u32 {
    let deepest = (0..partitions).map(&depth).max().unwrap_or(0);
    let weight = |partition| u128::from(deepest.saturating_sub(depth(partition))) + 1;
    let total: u128 = (0..partitions).map(weight).sum();
    assert!(total > 0, "a topic has at least one partition");
    let mut place = u128::from(random) % total;
    for partition in 0..partitions {
        let room = weight(partition);
        if place < room {
            return partition;
        }
        place -= room;
    }
    // Queues move while they are read, so the rooms may come out smaller than their sum was.
    partitions - 1
}

/// Random numbers that many threads may draw without waiting: SplitMix64 (Steele, Lea and Flood, 2014), whose
/// state is a mere counter.
#[derive(Debug)]
struct Random(AtomicU64);

impl Random {
    fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`: the top of a 32 by 32 bit product, whose bias is below one in four billion over n.
    fn below(&self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }
}

/// A little state per topic, bounded: a shard that is full forgets the topic that it used longest ago.
///
/// Sharded, so that threads meet only where they send to the same few topics; locked for some nanoseconds.
struct PerTopic<S> {
    shards: [Mutex<Shard<S>>; SHARDS],
}

const SHARDS: usize = 16;
const TOPICS_PER_SHARD: usize = 256;

struct Shard<S> {
    uses: u64,
    /// Topic id to the last use and the state.
    topics: BTreeMap<u64, (u64, S)>,
}

impl<S> Default for PerTopic<S> {
    fn default() -> Self {
        PerTopic { shards: std::array::from_fn(|_| Mutex::new(Shard { uses: 0, topics: BTreeMap::new() })) }
    }
}

impl<S: Default> PerTopic<S> {
    fn with<R>(&self, topic_id: u64, f: impl FnOnce(&mut S) -> R) -> R {
        let mut shard = self.shards[(topic_id % SHARDS as u64) as usize].lock();
        let shard = &mut *shard;
        shard.uses += 1;
        if let Some((used, state)) = shard.topics.get_mut(&topic_id) {
            *used = shard.uses;
            return f(state);
        }
        if shard.topics.len() >= TOPICS_PER_SHARD {
            let oldest = shard.topics.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id);
            oldest.and_then(|id| shard.topics.remove(&id));
        }
        f(&mut shard.topics.entry(topic_id).or_insert((shard.uses, S::default())).1)
    }
}

impl<S> fmt::Debug for PerTopic<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerTopic").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_per_topic_is_bounded_and_forgets_the_longest_unused() {
        let all = (SHARDS * TOPICS_PER_SHARD) as u64;
        let round_robin = RoundRobin::new();
        let send = |id| round_robin.partition(&PartitionFacts::new("t", 1000).topic_id(id));
        for id in 0..all {
            assert_eq!(send(id), 0);
        }
        assert_eq!(send(0), 1, "all fit");
        // Topic 0 was used since; the one that must go is the next of the same shard.
        assert_eq!(send(all), 0);
        assert_eq!(send(0), 2);
        assert_eq!(send(SHARDS as u64), 0, "forgotten");
        let held: usize = round_robin.sent.shards.iter().map(|s| s.lock().topics.len()).sum();
        assert_eq!(held as u64, all);
    }

    #[test]
    fn sticky_moves_evenly_and_never_stays() {
        let sticky = Sticky::seeded(1, 7);
        let facts = PartitionFacts::new("t", 5);
        let mut counts = [0; 5];
        let mut last = None;
        for _ in 0..10_000 {
            let at = sticky.partition(&facts);
            assert_ne!(Some(at), last);
            last = Some(at);
            counts[at as usize] += 1;
        }
        assert!(counts.iter().all(|c| (1_800..2_200).contains(c)), "{counts:?}");
    }

    #[test]
    fn sticky_counts_key_and_value_and_moves_on_records_of_nothing() {
        let sticky = Sticky::new(10);
        let at = sticky.partition(&PartitionFacts::new("t", 3).key("1234").value("12345"));
        assert_eq!(sticky.partition(&PartitionFacts::new("t", 3)), at, "9 bytes so far, then 10");
        assert_ne!(sticky.partition(&PartitionFacts::new("t", 3)), at);
    }

    #[test]
    fn a_topic_created_again_with_fewer_partitions_gets_a_valid_answer() {
        let sticky = Sticky::seeded(1 << 40, 1);
        for n in (1..50).rev() {
            assert!(sticky.partition(&PartitionFacts::new("t", n).topic_id(1)) < n);
        }
    }

    #[test]
    fn queues_that_move_while_they_are_read_do_no_harm() {
        let random = Random(AtomicU64::new(3));
        for i in 0..10_000 {
            let depth = |_| random.next() >> (i % 64);
            assert!(pick(4, depth, random.next()) < 4);
        }
        assert!(pick(3, |_| u64::MAX, u64::MAX) < 3);
    }

    #[test]
    fn adaptive_avoids_the_partition_that_lags() {
        let adaptive = AdaptiveSticky::seeded(100, 11);
        let depths = |partition| if partition == 1 { 1_000_000 } else { 0 };
        let facts = PartitionFacts::new("t", 3).value(&[0; 100]).queue_depths(&depths);
        let lagging = (0..1_000).filter(|_| adaptive.partition(&facts) == 1).count();
        assert!(lagging < 5, "{lagging}");
    }

    #[test]
    fn many_threads_share_a_sticky_partition() {
        let sticky = Sticky::new(1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        assert!(sticky.partition(&PartitionFacts::new("t", 3).value("0123456789")) < 3);
                    }
                });
            }
        });
    }
}
