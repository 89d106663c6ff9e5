//! What a log must hold: a `Vec` of values per partition, how much of it was acknowledged, and a check against it.
//!
//! Nothing here knows where a log lies: it serves a log in one directory, real or simulated, as one in several.

use std::time::Duration;

use tapelog::{Log, LogBuilder, Partition, Record, Result, TopicConfig};

use crate::report::{Random, Tally};

pub(crate) const TOPIC: &str = "t";
pub(crate) const FOR_EVER: Duration = Duration::MAX;
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A log that fits many times into a test.
pub(crate) fn builder() -> LogBuilder {
    Log::builder().memory_budget(256 << 10).max_block(Duration::from_secs(2))
}

/// A topic whose segments are so small that a test rolls them.
pub(crate) fn config(partitions: u32) -> TopicConfig {
    TopicConfig::new().partitions(partitions).segment_bytes(20_000).block_linger(Duration::ZERO)
}

/// The value of a record: nobody else's, and long enough to cross pages now and then.
pub(crate) fn value(partition: u32, offset: u64) -> Vec<u8> {
    let mut random = Random::new(offset << 8 | u64::from(partition));
    let len = match random.below(20) {
        0 => 3_000 + random.below(1_500),
        1..4 => 1_000 + random.below(1_000),
        _ => 10 + random.below(90),
    };
    let mut value = format!("{partition}/{offset}:{:x} ", random.next()).into_bytes();
    value = value.repeat(len as usize / value.len() + 1);
    value.truncate(len as usize);
    value
}

/// What one partition must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// Where appends ended: what is there ends with one of them.
    ends: Vec<u64>,
    /// What was appended: made once, checked many times.
    values: Vec<Vec<u8>>,
    /// All below was acknowledged for the loss of power.
    pub(crate) durable: u64,
}

impl Expected {
    /// All below was acknowledged for the death of the process.
    pub(crate) fn appended(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Appends `count` records as one.
    pub(crate) fn append(&mut self, partition: &Partition, count: u64) -> Result<()> {
        let (number, from) = (partition.topic_partition().partition(), self.appended());
        let values: Vec<Vec<u8>> = (from..from + count).map(|offset| value(number, offset)).collect();
        let delivery = partition.append_batch(&values.iter().map(Record::new).collect::<Vec<_>>())?;
        assert_eq!(delivery.offset(), from, "offsets are dense");
        self.ends.push(from + count);
        self.values.extend(values);
        Ok(())
    }

    /// Has all of it acknowledged for the loss of power.
    pub(crate) fn flush(&mut self, partition: &Partition) -> Result<()> {
        let appended = self.appended();
        partition.wait_durable(appended, FOR_EVER)?;
        self.durable = appended;
        Ok(())
    }

    /// Checks what is there after a fault that may have taken all but `acked`; `words` say which.
    pub(crate) fn check(&self, partition: &Partition, acked: u64, tally: &mut Tally, words: &str) {
        let number = partition.topic_partition().partition();
        let place = || format!("{words}, partition {number}");
        let end = partition.end_offset();
        tally.acked += acked;
        tally.lost(acked.saturating_sub(end), || format!("{}: {acked} acknowledged, {end} there", place()));
        if end != 0 && !self.ends.contains(&end) {
            tally.wrong(|| format!("{}: ends with {end}, inside an append of {:?}", place(), self.ends));
        }
        if partition.start_offset() != 0 {
            tally.wrong(|| format!("{}: begins with {}", place(), partition.start_offset()));
        }
        let mut reader = match partition.reader(0) {
            Ok(reader) => reader,
            Err(e) => return tally.wrong(|| format!("{}: {e}", place())),
        };
        for offset in 0..end {
            match reader.try_next() {
                Ok(Some(record)) if record.offset() == offset => {
                    let value = self.values.get(offset as usize);
                    if value.is_none() || record.value() != value.map(Vec::as_slice) {
                        tally.wrong(|| format!("{}: offset {offset} has other bytes", place()));
                    }
                }
                other => {
                    let found = other.map(|record| record.map(|r| r.offset()));
                    return tally.lost(end - offset, || format!("{}: at {offset}: {found:?}", place()));
                }
            }
        }
    }
}

/// A topic and what it must hold.
pub(crate) struct Model(pub(crate) Vec<Expected>);

impl Model {
    pub(crate) fn new(partitions: u32) -> Model {
        Model(vec![Expected::default(); partitions as usize])
    }

    /// Checks the topic of a log that was opened after all but what was acknowledged may have been lost.
    pub(crate) fn check(&self, log: &Log, acked: impl Fn(&Expected) -> u64, tally: &mut Tally, words: &str) {
        let topic = log.topic(TOPIC);
        for (number, expected) in (0u32..).zip(&self.0) {
            match topic.as_ref().map(|topic| topic.partition(number)) {
                Ok(Ok(partition)) => expected.check(&partition, acked(expected), tally, words),
                _ if acked(expected) == 0 => {}
                _ => tally.lost(acked(expected), || format!("{words}: partition {number} is not there")),
            }
        }
    }
}
