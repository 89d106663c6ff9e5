//! What a poll of a share group returns.

use std::ops::Deref;

use crate::partition::records::{ConsumerRecord, Records, RecordsIter};

/// Records as one poll of a share consumer returned them: as [`Records`], and how often each was delivered.
///
/// Owns what it needs to stay valid, whatever becomes of the consumer and of the locks.
#[derive(Clone, Default)]
pub struct ShareRecords {
    /// The assignment of each run is the number of its deliveries.
    pub(crate) records: Records,
}

impl ShareRecords {
    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records, partition by partition.
    #[must_use]
    pub fn iter(&self) -> ShareRecordsIter<'_> {
        ShareRecordsIter(self.records.iter())
    }
}

impl std::fmt::Debug for ShareRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'a> IntoIterator for &'a ShareRecords {
    type Item = ShareRecord<'a>;
    type IntoIter = ShareRecordsIter<'a>;

    fn into_iter(self) -> ShareRecordsIter<'a> {
        self.iter()
    }
}

/// Iterates over [`ShareRecords`].
#[derive(Clone)]
pub struct ShareRecordsIter<'a>(RecordsIter<'a>);

impl<'a> Iterator for ShareRecordsIter<'a> {
    type Item = ShareRecord<'a>;

    fn next(&mut self) -> Option<ShareRecord<'a>> {
        self.0.next().map(ShareRecord)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for ShareRecordsIter<'_> {}

/// One record as it was delivered: a [`ConsumerRecord`] that knows how often.
#[derive(Clone, Copy)]
pub struct ShareRecord<'a>(ConsumerRecord<'a>);

impl ShareRecord<'_> {
    /// How often the record has been delivered, this time included; 1 the first time.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // it was made from this type
    pub fn delivery_count(&self) -> u16 {
        self.0.assignment() as u16
    }
}

impl<'a> Deref for ShareRecord<'a> {
    type Target = ConsumerRecord<'a>;

    fn deref(&self) -> &ConsumerRecord<'a> {
        &self.0
    }
}

impl std::fmt::Debug for ShareRecord<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShareRecord")
            .field("record", &self.0)
            .field("delivery_count", &self.delivery_count())
            .finish()
    }
}
