//! Where ticks come from: the simulated feed, or a file of rows. Record n is row `n mod rows`, or f(seed, n).

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::decimal::Decimal;
use super::feed::{self, Texts};
use super::tick::Tick;

/// A source of ticks that can be asked for any n, any number of times.
#[derive(Debug)]
pub(crate) enum Source {
    Simulated { seed: u64 },
    Csv(Csv),
}

/// What a data directory remembers of its source, to refuse another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) kind: String,
    pub(crate) seed: u64,
    pub(crate) rows: u64,
    pub(crate) crc32: u32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { kind, seed, rows, crc32 } = self;
        write!(f, "{kind} (seed {seed}, {rows} rows, CRC-32 {crc32:08x})")
    }
}

/// Records of a simulated run that names no number.
const SIMULATED_RUN: u64 = 1_000_000;

impl Source {
    pub(crate) fn identity(&self) -> Identity {
        match self {
            Source::Simulated { seed } => {
                Identity { kind: "simulated".to_owned(), seed: *seed, rows: 0, crc32: 0 }
            }
            Source::Csv(csv) => {
                Identity { kind: "csv".to_owned(), seed: 0, rows: csv.rows.len() as u64, crc32: csv.crc32 }
            }
        }
    }

    /// Records of a run that names no number: the whole file.
    pub(crate) fn run_length(&self) -> u64 {
        match self {
            Source::Simulated { .. } => SIMULATED_RUN,
            Source::Csv(csv) => csv.rows.len() as u64,
        }
    }

    /// Tick `n`; `texts` is where a simulated one is written.
    pub(crate) fn tick<'a>(&'a self, n: u64, texts: &'a mut Texts) -> Tick<'a> {
        match self {
            Source::Simulated { seed } => feed::tick(*seed, n, texts),
            Source::Csv(csv) => csv.tick(n),
        }
    }

    /// The symbol of tick `n`, without the rest of it.
    pub(crate) fn symbol(&self, n: u64) -> &str {
        match self {
            Source::Simulated { seed } => feed::symbol(*seed, n),
            Source::Csv(csv) => csv.tick(n).symbol,
        }
    }

    /// The partition of tick `n` among `partitions`: what Kafka's default partitioner makes of its symbol,
    /// computed here once more so that the library's answer is checked and not merely repeated.
    pub(crate) fn partition(&self, n: u64, partitions: u32) -> u32 {
        (murmur2(self.symbol(n).as_bytes()) & 0x7fff_ffff) % partitions
    }
}

/// Kafka's 32-bit murmur2.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c_u32 ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, b) in tail.iter().enumerate() {
            h ^= u32::from(*b) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// A file of rows, whole in memory; rows stay in the order of the file and are never deduplicated.
#[derive(Debug)]
pub(crate) struct Csv {
    text: String,
    rows: Vec<Row>,
    crc32: u32,
}

/// Where a row begins in the text, and where each of its columns ends from there.
#[derive(Debug)]
struct Row {
    start: usize,
    ends: [u16; 7],
}

const COLUMNS: [&str; 7] = ["ts_event_ns", "symbol", "action", "side", "price", "size", "sequence"];

impl Csv {
    /// Reads and checks the whole file. The error names file and line.
    pub(crate) fn open(path: &Path) -> Result<Csv, String> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Csv::parse(bytes, path)
    }

    fn parse(bytes: Vec<u8>, path: &Path) -> Result<Csv, String> {
        let crc32 = crc32fast::hash(&bytes);
        let at = |line: usize, what: String| format!("{}:{line}: {what}", path.display());
        let text = String::from_utf8(bytes).map_err(|e| {
            let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            at(1 + good.iter().filter(|b| **b == b'\n').count(), "not UTF-8".to_owned())
        })?;
        let mut rows = Vec::new();
        let mut start = 0;
        for (i, whole) in text.split_inclusive('\n').enumerate() {
            let line = whole.strip_suffix('\n').unwrap_or(whole);
            let line = line.strip_suffix('\r').unwrap_or(line);
            if i == 0 {
                if line != COLUMNS.join(",") {
                    return Err(at(1, format!("the first line must be {:?}", COLUMNS.join(","))));
                }
            } else {
                rows.push(Row { start, ends: row(line).map_err(|what| at(i + 1, what))? });
            }
            start += whole.len();
        }
        if rows.is_empty() {
            return Err(at(1, "no rows".to_owned()));
        }
        Ok(Csv { text, rows, crc32 })
    }

    fn tick(&self, n: u64) -> Tick<'_> {
        let Row { start, ends } = &self.rows[(n % self.rows.len() as u64) as usize];
        let column = |i: usize| {
            let Range { start: from, end } = span(ends, i);
            &self.text[start + from..start + end]
        };
        Tick {
            ts_event_ns: column(0),
            symbol: column(1),
            action: column(2),
            side: column(3),
            price: column(4),
            size: column(5),
            sequence: column(6),
        }
    }
}

/// Where column `i` stands in its row: between the comma after the column before and its own end.
fn span(ends: &[u16; 7], i: usize) -> Range<usize> {
    let from = if i == 0 { 0 } else { usize::from(ends[i - 1]) + 1 };
    from..usize::from(ends[i])
}

/// Checks one row and says where its columns end.
fn row(line: &str) -> Result<[u16; 7], String> {
    if line.len() > usize::from(u16::MAX) {
        return Err(format!("a row of {} bytes", line.len()));
    }
    if let Some(c) = line.chars().find(|c| *c == '"' || *c == '\\' || c.is_control()) {
        return Err(format!("{c:?} is not allowed in a row"));
    }
    let mut ends = [0u16; 7];
    let mut count = 0;
    for end in line.bytes().enumerate().filter(|(_, b)| *b == b',').map(|(i, _)| i).chain([line.len()]) {
        if let Some(slot) = ends.get_mut(count) {
            *slot = end as u16;
        }
        count += 1;
    }
    if count != COLUMNS.len() {
        return Err(format!("{count} columns, expected {}", COLUMNS.len()));
    }
    let column = |i: usize| &line[span(&ends, i)];
    let wrong = |i: usize, what: &str| Err(format!("{} {:?} is not {what}", COLUMNS[i], column(i)));
    if column(0).parse::<i64>().is_err() {
        return wrong(0, "a whole number of nanoseconds");
    }
    for i in [1, 2] {
        if column(i).is_empty() {
            return Err(format!("{} is empty", COLUMNS[i]));
        }
    }
    if !column(4).is_empty() && Decimal::parse(column(4)).is_none() {
        return wrong(4, "a decimal of up to 18 digits");
    }
    if Decimal::parse(column(5)).is_none_or(Decimal::is_negative) {
        return wrong(5, "a decimal of up to 18 digits, 0 or more");
    }
    if column(6).parse::<i64>().is_err() && column(6).parse::<u64>().is_err() {
        return wrong(6, "a whole number");
    }
    Ok(ends)
}

/// Opens the source that the options name.
pub(crate) fn open(csv: Option<&PathBuf>, seed: u64) -> Result<Source, String> {
    match csv {
        Some(path) => Ok(Source::Csv(Csv::open(path)?)),
        None => Ok(Source::Simulated { seed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "ts_event_ns,symbol,action,side,price,size,sequence\n";

    fn parse(rows: &str) -> Result<Csv, String> {
        Csv::parse(format!("{HEAD}{rows}").into_bytes(), Path::new("t.csv"))
    }

    #[test]
    fn reads_rows_as_they_stand() {
        let csv = parse("5,ES,add,B,4799.00,2,682\n3,EURUSD,weird,,,0.50,1\r\n5,ES,add,B,4799.00,2,682")
            .expect("good");
        assert_eq!(csv.rows.len(), 3);
        assert_eq!(csv.tick(0), csv.tick(2), "rows that repeat are kept");
        assert_eq!(csv.tick(4), csv.tick(1), "record n is row n mod rows");
        let tick = csv.tick(1);
        assert_eq!((tick.symbol, tick.action, tick.side, tick.price), ("EURUSD", "weird", "", ""));
        assert_eq!((tick.ts_event_ns, tick.size, tick.sequence), ("3", "0.50", "1"));
        let source = Source::Csv(csv);
        assert_eq!(source.run_length(), 3);
        assert_eq!(source.identity().rows, 3);
    }

    #[test]
    fn names_file_and_line_of_a_bad_row() {
        let good = "5,ES,add,B,4799.00,2,682\n";
        for (bad, says) in [
            ("5,ES,add,B,4799.00,2", "6 columns"),
            ("5,ES,add,B,4799.00,2,682,9", "8 columns"),
            ("", "1 columns"),
            ("x,ES,add,B,1,2,3", "ts_event_ns \"x\""),
            ("1.5,ES,add,B,1,2,3", "ts_event_ns"),
            ("99999999999999999999,ES,add,B,1,2,3", "ts_event_ns"),
            ("5,,add,B,1,2,3", "symbol is empty"),
            ("5,ES,,B,1,2,3", "action is empty"),
            ("5,ES,add,B,1e5,2,3", "price \"1e5\""),
            ("5,ES,add,B,1,,3", "size \"\""),
            ("5,ES,add,B,1,-2,3", "size"),
            ("5,ES,add,B,1,2,", "sequence"),
            ("5,ES,add,B,1,2,3.0", "sequence"),
            ("5,\"ES\",add,B,1,2,3", "not allowed"),
        ] {
            let error = parse(&format!("{good}{bad}\n{good}")).expect_err(bad);
            assert!(error.starts_with("t.csv:3: ") && error.contains(says), "{bad:?}: {error}");
        }
        assert!(parse("").expect_err("empty").contains("no rows"));
        let headless = Csv::parse(good.into(), Path::new("t.csv")).expect_err("no header");
        assert!(headless.starts_with("t.csv:1: the first line must be"), "{headless}");
        let latin = [HEAD.as_bytes(), good.as_bytes(), b"5,E\xe9,add,B,1,2,3\n"].concat();
        assert_eq!(Csv::parse(latin, Path::new("t.csv")).expect_err("latin"), "t.csv:3: not UTF-8");
    }

    #[test]
    fn is_known_by_its_bytes() {
        let of = |rows: &str| Source::Csv(parse(rows).expect("good")).identity();
        assert_eq!(of("5,ES,add,B,1,2,3\n"), of("5,ES,add,B,1,2,3\n"));
        assert_ne!(of("5,ES,add,B,1,2,3\n"), of("5,ES,add,B,1,2,4\n"));
        assert_ne!(Source::Simulated { seed: 1 }.identity(), Source::Simulated { seed: 2 }.identity());
    }

    #[test]
    fn partitions_as_kafka_does() {
        // Reference values from Kafka's own UtilsTest.
        for (text, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
        let source = Source::Simulated { seed: 1 };
        let mut rows = [0u64; 4];
        for n in 0..10_000 {
            rows[source.partition(n, 4) as usize] += 1;
        }
        assert!(rows.iter().all(|r| *r > 0), "{rows:?}");
    }
}
