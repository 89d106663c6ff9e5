//! What tapelog claims to reach, each claim judged from the rows alone.

use super::{FLOOR, OURS, Row};
use crate::systems::Durability;

/// One claim: ours, beside something, within a bound on the quotient of the two.
pub struct Claim {
    pub work: &'static str,
    pub must: &'static str,
    ours: Ours,
    beside: Beside,
    bound: Bound,
}

enum Ours {
    /// The best of all configurations that survive `kill -9`, or that store nothing where nothing is stored.
    Best(&'static str),
    /// The best of these configurations.
    As(&'static str, &'static [&'static str]),
}

enum Beside {
    /// The best peer of the same durability.
    Peer(&'static str),
    /// The best of these peers, whatever they promise.
    Of(&'static str, &'static [&'static str]),
    /// That peer as it comes.
    AsItComes(&'static str, &'static str),
    /// The best configuration of that name among the peers.
    Called(&'static str, &'static str),
    /// That peer as it comes that is best where it is at its best.
    BestAsItComes(&'static str),
    Floor(&'static str, &'static str),
    /// Another row of ours: workload and configuration.
    Own(&'static str, &'static str),
    /// A number, in the unit of the row.
    Number(f64),
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Peers whose readers deliver wrong bytes after one was flipped: they verify nothing.
const UNVERIFIED: &[&str] = &["khata", "yaque", "redb"];

/// All others that can be read back.
const VERIFIED: &[&str] =
    &["tickertape", "kafko", "commitlog", "walrus", "raft-engine", "seglog", "logdb", "fjall"];

const PWRITE: &str = "64 KiB pwrite, pread";
const AS_OURS: &str = "64 KiB pwrite, pread, CRC-32, frames as long as ours";
const COPY: &str = "copy into warm memory";
const BESIDE: &str = "empty loop beside pwrite";
const FRAMED: &str = "CRC-32 and copy into a mapped file";
const LOCKED: &str = "lock, CRC-32 and copy into a mapped file";
const COUNTED: &str = "frame and counter";

macro_rules! claims {
    ($($work:literal, $must:literal: $ours:expr, $beside:expr, $bound:expr;)*) => {
        &[$(Claim { work: $work, must: $must, ours: $ours, beside: $beside, bound: $bound }),*]
    };
}

use Beside::{AsItComes, BestAsItComes, Called, Floor, Number, Of, Own, Peer};
use Bound::{AtLeast, AtMost};
use Ours::{As, Best};

pub static CLAIMS: &[Claim] = claims! {
    "append one by one, `kill -9`-safe, page cache", ">= 1.1 x the fastest such peer at its best":
        Best("append_one"), Peer("append_one"), AtLeast(1.1);
    "", ">= 2.5 x that peer as it comes":
        Best("append_one"), BestAsItComes("append_one"), AtLeast(2.5);
    "", ">= 0.7 x 64 KiB `pwrite` of the same bytes":
        Best("append_one"), Floor("append_one", PWRITE), AtLeast(0.7);
    "", "beside the floor: >= 0.85 x `pwrite` of as many bytes as ours are, with their CRC-32":
        Best("append_one"), Floor("append_one", AS_OURS), AtLeast(0.85);
    "the same, sustained", ">= the fastest such peer":
        Best("append_sustained"), Peer("append_sustained"), AtLeast(1.0);
    "", ">= 0.8 x 64 KiB `pwrite` of the same bytes":
        Best("append_sustained"), Floor("append_sustained", PWRITE), AtLeast(0.8);
    "", "beside the floor: >= 0.85 x `pwrite` of as many bytes as ours are, with their CRC-32":
        Best("append_sustained"), Floor("append_sustained", AS_OURS), AtLeast(0.85);
    "burst of 200,000 into warm memory", "<= 6.4 x the copy (45 ns where that takes 7)":
        As("append_burst", &["default", "stamped"]), Floor("append_burst", COPY), AtMost(45.0 / 7.0);
    "", "beside the floor: <= 1.35 x a bare lock, CRC-32 and copy into a mapped file":
        As("append_burst", &["default", "stamped"]), Floor("append_burst", LOCKED), AtMost(1.35);
    "", "exclusive appender: <= 5 x the copy (35 ns where that takes 7)":
        As("append_burst", &["appender"]), Floor("append_burst", COPY), AtMost(5.0);
    "append in batches of 100", ">= 2 x the fastest such peer's":
        Best("append_batch_100"), Peer("append_batch_100"), AtLeast(2.0);
    "", "beside the floor: >= 0.85 x `pwrite` of as many bytes as ours are, with their CRC-32":
        Best("append_batch_100"), Floor("append_batch_100", AS_OURS), AtLeast(0.85);
    "append latency at 100,000/s, `fdatasync` every 50 ms", "p50 <= the best such peer's":
        Best("append_latency_100k_sync50ms_p50"), Peer("append_latency_100k_sync50ms_p50"), AtMost(1.0);
    "", "p50 beside the floor: <= 1.35 x a bare CRC-32 and copy into a mapped file":
        Best("append_latency_100k_sync50ms_p50"), Floor("append_latency_100k_sync50ms_p50", FRAMED), AtMost(1.35);
    "", "p99.9 <= 1/10 of the best such peer's":
        Best("append_latency_100k_sync50ms_p99.9"), Peer("append_latency_100k_sync50ms_p99.9"), AtMost(0.1);
    "", "p99.99 <= 1/10 of the best such peer's":
        Best("append_latency_100k_sync50ms_p99.99"), Peer("append_latency_100k_sync50ms_p99.99"), AtMost(0.1);
    "", "p99.9 beside the floor: <= 1.5 x an empty loop's, beside a thread that writes as much":
        Best("append_latency_100k_sync50ms_p99.9"), Floor("append_latency_100k_sync50ms_p99.9", BESIDE), AtMost(1.5);
    "", "p99.99 beside the floor: <= 1.5 x such an empty loop's":
        Best("append_latency_100k_sync50ms_p99.99"), Floor("append_latency_100k_sync50ms_p99.99", BESIDE), AtMost(1.5);
    "append latency at 1,000,000/s, `fdatasync` every 50 ms", "p50 <= the best such peer's":
        Best("append_latency_1m_sync50ms_p50"), Peer("append_latency_1m_sync50ms_p50"), AtMost(1.0);
    "", "p50 beside the floor: <= 1.15 x a bare CRC-32 and copy into a mapped file":
        Best("append_latency_1m_sync50ms_p50"), Floor("append_latency_1m_sync50ms_p50", FRAMED), AtMost(1.15);
    "", "p99.9 <= 1/10 of the best such peer's":
        Best("append_latency_1m_sync50ms_p99.9"), Peer("append_latency_1m_sync50ms_p99.9"), AtMost(0.1);
    "", "p99.99 <= 1/10 of the best such peer's":
        Best("append_latency_1m_sync50ms_p99.99"), Peer("append_latency_1m_sync50ms_p99.99"), AtMost(0.1);
    "", "p99.9 beside the floor: <= 1.5 x an empty loop's, beside a thread that writes as much":
        Best("append_latency_1m_sync50ms_p99.9"), Floor("append_latency_1m_sync50ms_p99.9", BESIDE), AtMost(1.5);
    "", "p99.99 beside the floor: <= 1.5 x such an empty loop's":
        Best("append_latency_1m_sync50ms_p99.99"), Floor("append_latency_1m_sync50ms_p99.99", BESIDE), AtMost(1.5);
    "replay, checksums verified", ">= 1.4 x the fastest peer that verifies":
        Best("replay"), Of("replay", VERIFIED), AtLeast(1.4);
    "", ">= 1.1 x the fastest that does not":
        Best("replay"), Of("replay", UNVERIFIED), AtLeast(1.1);
    "", "beside the floor: >= 0.8 x `pread` of as many bytes, with their CRC-32":
        Best("replay"), Floor("replay", AS_OURS), AtLeast(0.8);
    "hot read of published records", ">= 0.7 x a bare scan of the same frames":
        Best("hot_read"), Floor("hot_read", "bare scan"), AtLeast(0.7);
    "tail latency, spinning reader", "p50 <= the best peer's with a log behind it":
        Best("tail_latency_100k_p50"), Peer("tail_latency_100k_p50"), AtMost(1.0);
    "", "p50 <= 1.3 x the disruptor's":
        Best("tail_latency_100k_p50"), Of("tail_latency_100k_p50", &["disruptor"]), AtMost(1.3);
    "", "p50 <= 1.3 x Aeron IPC's":
        Best("tail_latency_100k_p50"), Of("tail_latency_100k_p50", &["aeron"]), AtMost(1.3);
    "", "p50 beside the floor: <= 1.3 x a bare frame and a counter in two lines":
        Best("tail_latency_100k_p50"), Floor("tail_latency_100k_p50", COUNTED), AtMost(1.3);
    "tail latency, parked reader", "p50 <= 1.3 x a bare futex wake-up":
        Best("parked_latency_2k_p50"), Floor("parked_latency_2k_p50", "futex wake-up"), AtMost(1.3);
    "`Durability::Disk`", "one thread >= 0.85 x a bare write + `fdatasync`":
        Best("disk_1_thread"), Floor("disk_1_thread", "write + fdatasync"), AtLeast(0.85);
    "", "one thread, beside the same into a preallocated file >= 0.85 x":
        Best("disk_1_thread"), Floor("disk_1_thread", "write + fdatasync, preallocated"), AtLeast(0.85);
    "", "4 threads >= 1.2 x the best peer":
        Best("disk_4_threads"), Peer("disk_4_threads"), AtLeast(1.2);
    "", "64 threads >= 20 x one thread":
        Best("disk_64_threads"), Own("disk_1_thread", "default"), AtLeast(20.0);
    "", "64 threads beside the floor: >= 0.85 x a bare write + `fdatasync` for all who wait":
        Best("disk_64_threads"), Floor("disk_64_threads", "write + fdatasync, in groups"), AtLeast(0.85);
    "LZ4 on ticks as JSON", "within the budget >= 0.9 x uncompressed":
        As("append_ticks_burst", &["lz4"]), Own("append_ticks_burst", "default"), AtLeast(0.9);
    "", "the same with the exclusive appender >= 0.9 x":
        As("append_ticks_burst", &["lz4, appender"]), Own("append_ticks_burst", "appender"), AtLeast(0.9);
    "", "sustained >= 0.9 x what one core compresses":
        As("append_ticks", &["lz4", "lz4, appender"]), Floor("append_ticks", "lz4"), AtLeast(0.9);
    "", "bytes on disk <= 1/2 of the best peer's with LZ4":
        As("bytes_on_disk", &["lz4"]), Called("bytes_on_disk", "lz4"), AtMost(0.5);
    "reopen with 1 GiB stored", "after a clean end <= 20 ms":
        Best("reopen_clean"), Number(20.0), AtMost(1.0);
    "", "after `kill -9` <= 50 ms, without the flush of what was replayed":
        Best("reopen_killed_less_flush"), Number(50.0), AtMost(1.0);
    "", "beside the floor: <= 2 x 64 MiB read, summed up and written":
        Best("reopen_killed_less_flush"), Floor("reopen_killed_less_flush", "64 MiB read, CRC-32, written"), AtMost(2.0);
    "consumer group reading 4 partitions", "from memory >= 0.7 x bare partition readers":
        As("group_read_hot", &["group", "group, 10,000 a poll"]), Own("group_read_hot", "reader"), AtLeast(0.7);
    "", "from files >= 0.7 x bare partition readers":
        As("group_read_cold", &["group", "group, 10,000 a poll"]), Own("group_read_cold", "reader"), AtLeast(0.7);
    "10,000 partitions, idle", "open <= 3 s":
        Best("partitions_10k_open"), Number(3000.0), AtMost(1.0);
    "", "resident <= 256 MiB":
        Best("partitions_10k_resident"), Number(256.0), AtMost(1.0);
    "", "no CPU (< 1 ms in a second)":
        Best("partitions_10k_idle"), Number(1.0), AtMost(1.0);
    "CPU time per record, all threads", "<= 1.5 x tickertape's as it comes":
        Best("cpu_per_record"), AsItComes("cpu_per_record", "tickertape"), AtMost(1.5);
    "", "<= 1.5 x tickertape's at its best":
        Best("cpu_per_record"), Of("cpu_per_record", &["tickertape"]), AtMost(1.5);
};

/// What the rows say to a claim.
pub struct Verdict<'a> {
    pub ours: Option<&'a Row>,
    pub beside: Option<&'a Row>,
    /// Ours over the other, both medians.
    pub quotient: Option<f64>,
    /// `None`: a row that it takes is not there.
    pub met: Option<bool>,
}

pub fn judge<'a>(claim: &Claim, rows: &'a [Row]) -> Verdict<'a> {
    let ours = match &claim.ours {
        Ours::Best(workload) => {
            best(rows, workload, |row| row.system == OURS && row.durability != Durability::Memory)
        }
        Ours::As(workload, configs) => {
            best(rows, workload, |row| row.system == OURS && configs.contains(&row.config.as_str()))
        }
    };
    let beside = ours.and_then(|ours| claim.beside.find(rows, ours));
    let quotient = ours.and_then(|ours| match claim.beside {
        Beside::Number(number) => Some(ours.median / number),
        _ => beside.map(|beside| ours.median / beside.median),
    });
    let quotient = quotient.filter(|quotient| quotient.is_finite());
    let met = quotient.map(|quotient| match claim.bound {
        Bound::AtLeast(least) => quotient >= least,
        Bound::AtMost(most) => quotient <= most,
    });
    Verdict { ours, beside, quotient, met }
}

/// How many claims the rows show, of those that they say something about.
pub fn count(rows: &[Row]) -> (usize, usize) {
    let verdicts: Vec<bool> = CLAIMS.iter().filter_map(|claim| judge(claim, rows).met).collect();
    (verdicts.iter().filter(|met| **met).count(), verdicts.len())
}

impl Beside {
    fn find<'a>(&self, rows: &'a [Row], ours: &Row) -> Option<&'a Row> {
        let peer = |row: &Row| row.system != OURS && row.system != FLOOR;
        let equal = |row: &Row| peer(row) && row.durability == ours.durability;
        match self {
            Beside::Peer(workload) => best(rows, workload, equal),
            Beside::Of(workload, systems) => {
                best(rows, workload, |row| systems.contains(&row.system.as_str()))
            }
            Beside::Called(workload, config) => {
                best(rows, workload, |row| peer(row) && row.config == *config)
            }
            Beside::BestAsItComes(workload) => {
                let best = best(rows, workload, equal)?;
                as_it_comes(rows, workload, &best.system)
            }
            Beside::AsItComes(workload, system) => as_it_comes(rows, workload, system),
            Beside::Floor(workload, config) => {
                best(rows, workload, |row| row.system == FLOOR && row.config == *config)
            }
            Beside::Own(workload, config) => {
                best(rows, workload, |row| row.system == OURS && row.config == *config)
            }
            Beside::Number(_) => None,
        }
    }
}

/// Configurations come in order; the first is how a system comes.
fn as_it_comes<'a>(rows: &'a [Row], workload: &str, system: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.workload == workload && row.system == system)
}

/// The best row of a workload among those wanted.
pub fn best<'a>(rows: &'a [Row], workload: &str, wanted: impl Fn(&Row) -> bool) -> Option<&'a Row> {
    let of = rows.iter().filter(|row| row.workload == workload && wanted(row));
    of.reduce(|best, row| if row.beats(best) { row } else { best })
}

#[cfg(test)]
#[path = "targets_tests.rs"]
mod tests;
