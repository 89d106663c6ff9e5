//! What a producer hands over: a [`Record`], borrowed and `Copy`.

use crate::clock::Timestamp;

/// One record to append: optional key, optional value, ordered headers, timestamp, partition.
///
/// Borrows everything and copies nothing until it is appended. A record without a value is a
/// *tombstone*; null differs from empty, for keys and for values.
///
/// ```
/// use tapelog::{Record, Timestamp};
///
/// let tick = Record::new(r#"{"symbol":"AAPL","price":150.23}"#)
///     .key("AAPL")
///     .headers(&[("venue", b"XNAS")])
///     .timestamp(Timestamp::from_millis(1_700_000_000_000));
/// assert_eq!(tick.key_bytes(), Some(&b"AAPL"[..]));
/// assert!(Record::tombstone("AAPL").value_bytes().is_none());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [(&'a str, &'a [u8])],
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) partition: Option<u32>,
}

impl<'a> Record<'a> {
    /// A record with a value and nothing else.
    #[must_use]
    pub fn new<V: AsRef<[u8]> + ?Sized>(value: &'a V) -> Self {
        Record { value: Some(value.as_ref()), ..Record::default() }
    }

    /// A record that says of `key` that it is gone: no value.
    #[must_use]
    pub fn tombstone<K: AsRef<[u8]> + ?Sized>(key: &'a K) -> Self {
        Record { key: Some(key.as_ref()), ..Record::default() }
    }

    /// The same record with a key. An empty key is a key.
    #[must_use]
    pub fn key<K: AsRef<[u8]> + ?Sized>(mut self, key: &'a K) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// The same record with headers, kept in order; names may repeat.
    #[must_use]
    pub fn headers(mut self, headers: &'a [(&'a str, &'a [u8])]) -> Self {
        self.headers = headers;
        self
    }

    /// The same record with the caller's timestamp; without one it gets the time of the append.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// The same record for this partition, whatever the partitioner would say.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The key, `None` where there is none.
    #[must_use]
    pub fn key_bytes(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value, `None` for a tombstone.
    #[must_use]
    pub fn value_bytes(&self) -> Option<&'a [u8]> {
        self.value
    }
}
