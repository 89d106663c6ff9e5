//! Who looks at records on their way out, and hears what became of them.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::delivery::{Delivered, Delivery};
use crate::record::Record;

/// Sees every record that a producer sends, before its partition is chosen, and hears what became of it.
///
/// It is called on threads of its callers, by many at once where many share the producer. (Kafka:
/// `ProducerInterceptor`.)
///
/// ```
/// use tapelog::producer::{Interceptor, Outgoing};
/// use tapelog::{Log, Record, TopicConfig};
///
/// struct Stamp;
///
/// impl Interceptor for Stamp {
///     fn on_send(&self, record: &mut Outgoing<'_>) {
///         if record.value().is_some_and(|value| value.is_empty()) {
///             return record.refuse("an empty order");
///         }
///         record.add_header("desk", "rates");
///     }
/// }
///
/// let log = Log::in_memory()?;
/// let orders = log.create_topic("orders", TopicConfig::new())?;
/// let producer = log.producer().interceptor(Stamp).build()?;
/// producer.send(&orders, Record::new("buy"))?;
/// assert!(producer.send(&orders, Record::new("")).is_err());
/// # Ok::<(), tapelog::Error>(())
/// ```
pub trait Interceptor: Send + Sync + 'static {
    /// May change the record, or refuse it: then nothing is appended, the interceptors after this one are not asked, and
    /// the send gives `InvalidRecord`. A panic does the same with `UserCode`.
    fn on_send(&self, record: &mut Outgoing<'_>) {
        let _ = record;
    }

    /// Hears what became of a record that was sent, a send that failed included. Where the promise is kept when the send
    /// returns, and where the send fails, it is called before the send returns; else on the log's callback thread,
    /// in the order of the partition's offsets and before the delivery's own callback. A panic ends with the call.
    fn on_acknowledgement(&self, acknowledgement: &Acknowledgement<'_>) {
        let _ = acknowledgement;
    }
}

/// What became of a record that was sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct Acknowledgement<'a> {
    /// The topic that it was sent to.
    pub topic: &'a str,
    /// The partition, where it was named or chosen before the send failed.
    pub partition: Option<u32>,
    /// The promise kept, or why it cannot be.
    pub result: &'a Result<Delivered>,
}

/// A record on its way out, as its interceptors see it.
#[derive(Debug)]
pub struct Outgoing<'a> {
    topic: &'a str,
    key: Option<Cow<'a, [u8]>>,
    value: Option<Cow<'a, [u8]>>,
    headers: Vec<(Cow<'a, str>, Cow<'a, [u8]>)>,
    timestamp: Option<Timestamp>,
    partition: Option<u32>,
    refused: Option<String>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(topic: &'a str, record: &Record<'a>) -> Self {
        Outgoing {
            topic,
            key: record.key.map(Cow::Borrowed),
            value: record.value.map(Cow::Borrowed),
            headers: record.headers.iter().map(|(n, v)| (Cow::Borrowed(*n), Cow::Borrowed(*v))).collect(),
            timestamp: record.timestamp,
            partition: record.partition,
            refused: None,
        }
    }

    pub(super) fn header_pairs(&self) -> Vec<(&str, &[u8])> {
        self.headers().collect()
    }

    /// The record as it is now; `headers` are its own.
    pub(super) fn record<'r>(&'r self, headers: &'r [(&'r str, &'r [u8])]) -> Record<'r> {
        Record {
            key: self.key(),
            value: self.value(),
            headers,
            timestamp: self.timestamp,
            partition: self.partition,
        }
    }

    /// The topic that it goes to.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.topic
    }

    /// The key, `None` where there is none.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Gives it another key, or none.
    pub fn set_key(&mut self, key: Option<Vec<u8>>) {
        self.key = key.map(Cow::Owned);
    }

    /// The value, `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// Gives it another value, or makes it a tombstone.
    pub fn set_value(&mut self, value: Option<Vec<u8>>) {
        self.value = value.map(Cow::Owned);
    }

    /// The headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Adds a header after the others; names may repeat.
    pub fn add_header(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.headers.push((Cow::Owned(name.into()), Cow::Owned(value.into())));
    }

    /// Takes all headers of that name away.
    pub fn remove_headers(&mut self, name: &str) {
        self.headers.retain(|(own, _)| own != name);
    }

    /// The sender's timestamp; without one it gets the time of the append.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.timestamp
    }

    /// Gives it another timestamp, or that of the append.
    pub fn set_timestamp(&mut self, timestamp: Option<Timestamp>) {
        self.timestamp = timestamp;
    }

    /// The partition, where the sender named one.
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        self.partition
    }

    /// Names another partition, or leaves it to the partitioner.
    pub fn set_partition(&mut self, partition: Option<u32>) {
        self.partition = partition;
    }

    /// Has the record not sent; the error of the send says why.
    pub fn refuse(&mut self, why: impl Into<String>) {
        self.refused = Some(why.into());
    }
}

/// The interceptors of a producer, in order.
pub(super) struct Interceptors(Arc<[Arc<dyn Interceptor>]>);

impl Interceptors {
    pub(super) fn new(all: Vec<Arc<dyn Interceptor>>) -> Self {
        Interceptors(all.into())
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn on_send(&self, record: &mut Outgoing<'_>) -> Result<()> {
        for interceptor in &*self.0 {
            let seen = catch_unwind(AssertUnwindSafe(|| interceptor.on_send(record)));
            let (kind, message) = match (seen, record.refused.take()) {
                (Ok(()), None) => continue,
                (Ok(()), Some(why)) => {
                    (ErrorKind::InvalidRecord, format!("an interceptor refused it: {why}"))
                }
                (Err(_), _) => (ErrorKind::UserCode, "an interceptor panicked".to_owned()),
            };
            return Err(Error::new(kind, message).with_topic(record.topic));
        }
        Ok(())
    }

    /// Tells all of them what becomes of what was sent, now or when it is known.
    pub(super) fn follow(&self, topic: &Arc<str>, partition: Option<u32>, sent: &Result<Delivery>) {
        match sent {
            Err(error) => acknowledge(&self.0, topic, partition, &Err(error.clone())),
            Ok(delivery) => {
                let (all, topic) = (Arc::clone(&self.0), Arc::clone(topic));
                delivery.follow(move |result| acknowledge(&all, &topic, partition, &result));
            }
        }
    }
}

fn acknowledge(
    all: &[Arc<dyn Interceptor>],
    topic: &str,
    partition: Option<u32>,
    result: &Result<Delivered>,
) {
    for interceptor in all {
        let acknowledgement = Acknowledgement { topic, partition, result };
        // A panic of the user's ends with the call that it came from.
        let _ = catch_unwind(AssertUnwindSafe(|| interceptor.on_acknowledgement(&acknowledgement)));
    }
}
