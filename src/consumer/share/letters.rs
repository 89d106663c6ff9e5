//! Dead letters: copies of records that a share group has given up. (Kafka: KIP-1191.)

use std::sync::Arc;

use crate::consumer::share::part::Part;
use crate::consumer::share::state::{Reason, Stretch};
use crate::error::{ErrorKind, Result};
use crate::frame::FrameView;
use crate::log::core::LogCore;
use crate::partition::core::{PartitionCore, Wait};
use crate::partition::cursor::Cursor;
use crate::record::Record;

/// Sends the records of a stretch to `topic`, and tells `sent` the offset of each that is there.
pub(crate) fn send(
    log: &LogCore,
    group: &str,
    topic: &str,
    part: &Part,
    (stretch, reason): (Stretch, Reason),
    mut sent: impl FnMut(u64),
) -> Result<()> {
    let letters = log.topic(topic)?;
    let number = part.place().1 % letters.partition_count();
    let letters = letters.with_partition(number, Arc::clone)?;
    let mut cursor = Cursor::new(stretch.first.max(part.core.start_offset()));
    while cursor.position() <= stretch.last {
        let Some(run) = part.core.fetch(&mut cursor, stretch.last + 1, usize::MAX, usize::MAX)? else {
            break; // a hole
        };
        for frame in run.frames().filter(|frame| !frame.is_control()) {
            send_one(log, &letters, group, part, &frame, stretch.deliveries, reason)?;
            sent(frame.offset());
        }
    }
    Ok(())
}

fn send_one(
    log: &LogCore,
    letters: &PartitionCore,
    group: &str,
    part: &Part,
    frame: &FrameView<'_>,
    deliveries: u16,
    reason: Reason,
) -> Result<()> {
    let tp = &part.core.identity().tp;
    let (partition, offset) = (tp.partition().to_string(), frame.offset().to_string());
    let deliveries = deliveries.to_string();
    let message = match reason {
        Reason::Rejected => "rejected",
        Reason::Deliveries => "delivery count limit",
    };
    let about = [
        ("__dlq.errors.topic", tp.topic()),
        ("__dlq.errors.partition", &partition),
        ("__dlq.errors.offset", &offset),
        ("__dlq.errors.group", group),
        ("__dlq.errors.delivery.count", &deliveries),
        ("__dlq.errors.message", message),
    ];
    let about = about.map(|(name, value)| (name, value.as_bytes()));
    let headers: Vec<(&str, &[u8])> = frame.headers().chain(about).collect();
    let whole = Record {
        key: frame.key(),
        value: frame.value(),
        headers: &headers,
        timestamp: Some(frame.timestamp()),
        ..Record::default()
    };
    let wait = Wait::For(log.engine.max_block);
    let appended = letters.append(&[whole], wait, None).or_else(|error| match error.kind() {
        ErrorKind::RecordTooLarge | ErrorKind::RecordBatchTooLarge => {
            let short = Record { headers: &about, timestamp: whole.timestamp, ..Record::default() };
            letters.append(&[short], wait, None)
        }
        _ => Err(error),
    });
    appended.map(|_| ())
}
