//! What is appended, and the proof that it was read back.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;

/// One record: a key of eight bytes, which is its number in big-endian so that stores that sort keep the order,
/// and a value.
pub type Item<'a> = ([u8; 8], &'a [u8]);

/// A stream of records without end: the values repeat, the keys do not.
pub struct Feed {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
}

impl Feed {
    /// Values of `len` random bytes.
    pub fn random(len: usize) -> Feed {
        const VALUES: usize = 1024;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let stride = 64;
        let bytes: Vec<u8> = (0..VALUES * stride + len).map(|_| random.next() as u8).collect();
        let spans = (0..VALUES).map(|i| ((i * stride) as u32, len as u32)).collect();
        Feed { bytes, spans }
    }

    /// Ticks of simulated trades as JSON, some 140 bytes each.
    pub fn ticks(count: usize) -> Feed {
        let mut random = Random(42);
        let mut symbols: Vec<(String, i64)> = (0..200)
            .map(|_| {
                let len = 3 + random.below(2);
                let name = (0..len).map(|_| (b'A' + random.below(26) as u8) as char).collect();
                (name, 1_000 + random.below(90_000) as i64)
            })
            .collect();
        let mut feed = Feed { bytes: Vec::new(), spans: Vec::new() };
        let (mut ns, mut line) = (1_700_000_000_000_000_000u64, String::new());
        for seq in 0..count {
            // Few symbols trade often: the smallest of three draws.
            let at = (0..3).map(|_| random.below(200)).min().unwrap_or(0) as usize;
            let (symbol, cents) = &mut symbols[at];
            *cents = (*cents + random.below(9) as i64 - 4).max(100);
            ns += random.below(2_000_000);
            let venue = ["XNAS", "XNYS", "BATS", "ARCX"][random.below(4) as usize];
            let side = if random.below(2) == 0 { "buy" } else { "sell" };
            line.clear();
            let (units, rest, size) = (*cents / 100, *cents % 100, 100 * (1 + random.below(10)));
            let _ = write!(
                line,
                "{{\"symbol\":\"{symbol}\",\"ts\":{ns},\"seq\":{seq},\"price\":{units}.{rest:02},\
                 \"size\":{size},\"side\":\"{side}\",\"venue\":\"{venue}\",\"condition\":\"@\"}}"
            );
            feed.push(line.as_bytes());
        }
        feed
    }

    /// The lines of a file, one value each.
    pub fn lines(path: &Path) -> Result<Feed> {
        let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut feed = Feed { bytes: Vec::new(), spans: Vec::new() };
        text.split(|&b| b == b'\n').filter(|line| !line.is_empty()).for_each(|line| feed.push(line));
        if feed.spans.is_empty() {
            return Err(format!("{}: there is no line in it", path.display()).into());
        }
        Ok(feed)
    }

    fn push(&mut self, value: &[u8]) {
        self.spans.push((self.bytes.len() as u32, value.len() as u32));
        self.bytes.extend_from_slice(value);
    }

    /// Record number `i`.
    #[inline]
    pub fn item(&self, i: u64) -> Item<'_> {
        let (at, len) = self.spans[(i % self.spans.len() as u64) as usize];
        (i.to_be_bytes(), &self.bytes[at as usize..][..len as usize])
    }

    /// What reading the first `count` records must give.
    pub fn tally(&self, count: u64) -> u64 {
        let mut tally = Tally::new(Duration::MAX);
        for i in 0..count {
            tally.take(self.item(i).1);
        }
        tally.hash
    }
}

/// Counts what is read, touches every byte of it, and ends the reading when the time is up.
pub struct Tally {
    pub count: u64,
    pub hash: u64,
    deadline: Option<Instant>,
}

impl Tally {
    pub fn new(limit: Duration) -> Tally {
        Tally { count: 0, hash: 0, deadline: Instant::now().checked_add(limit) }
    }

    /// Takes the next value. `false`: it is enough, time is up.
    #[inline]
    pub fn take(&mut self, value: &[u8]) -> bool {
        let (words, rest) = value.as_chunks::<8>();
        let mut sum = value.len() as u64;
        for word in words {
            sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
        for &byte in rest {
            sum = sum.wrapping_add(u64::from(byte) << 3);
        }
        self.hash = self.hash.rotate_left(7) ^ sum;
        self.count += 1;
        !self.count.is_multiple_of(4096) || !self.expired()
    }

    /// Whether the time is up, for those that are slow enough to ask more often.
    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A generator that gives the same numbers everywhere (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
