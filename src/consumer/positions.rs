//! What a consumer's user asks and sets beside polling: positions, pauses, commits, and what there is.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::consumer::backlog::Backlog;
use crate::consumer::committed::at;
use crate::consumer::poll::Consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::partition::records::ConsumerRecord;
use crate::topic_partition::TopicPartition;

impl Consumer {
    // ---- positions -------------------------------------------------------------------------------------

    /// Has the next poll go on at `offset`. One that the partition does not hold is subject to the reset policy.
    ///
    /// # Errors
    /// `IllegalState` where the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, offset: u64) -> Result<()> {
        self.reading.seek(partition, offset)
    }

    /// Goes to the first record held of each of these partitions.
    ///
    /// # Errors
    /// `IllegalState` where one is not assigned; nothing has changed then.
    pub fn seek_to_beginning<'t>(
        &mut self,
        partitions: impl IntoIterator<Item = &'t TopicPartition>,
    ) -> Result<()> {
        self.reading.seek_all(partitions, |core, _| Ok(core.start_offset()))
    }

    /// Goes to the end of each of these partitions as it is now.
    ///
    /// # Errors
    /// `IllegalState` where one is not assigned; nothing has changed then.
    pub fn seek_to_end<'t>(
        &mut self,
        partitions: impl IntoIterator<Item = &'t TopicPartition>,
    ) -> Result<()> {
        self.reading.seek_all(partitions, |_, limit| Ok(limit))
    }

    /// Goes to the first record, in offset order, whose timestamp is not before `time`; to the end where there is
    /// none.
    ///
    /// # Errors
    /// `IllegalState` where the partition is not assigned; what reading its index gives.
    pub fn seek_to_time(&mut self, partition: &TopicPartition, time: Timestamp) -> Result<()> {
        self.reading.seek_all([partition], |core, limit| {
            Ok(core.offset_for_time(time)?.map_or(limit, |(offset, _)| offset))
        })
    }

    /// Reads nothing from these partitions until they are resumed, or come back after they were lost.
    ///
    /// # Errors
    /// `IllegalState` where one is not assigned; nothing has changed then.
    pub fn pause<'t>(&mut self, partitions: impl IntoIterator<Item = &'t TopicPartition>) -> Result<()> {
        self.reading.set_paused(partitions, true)
    }

    /// Reads on where [`Consumer::pause`] stopped.
    ///
    /// # Errors
    /// `IllegalState` where one is not assigned; nothing has changed then.
    pub fn resume<'t>(&mut self, partitions: impl IntoIterator<Item = &'t TopicPartition>) -> Result<()> {
        self.reading.set_paused(partitions, false)
    }

    /// The partitions that are paused, in order.
    #[must_use]
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.reading.paused()
    }

    /// The offset of the next record that a poll returns from the partition.
    ///
    /// # Errors
    /// `IllegalState` where it is not assigned; `NoOffset` or `OffsetOutOfRange` where the reset policy is
    /// needed and is to fail.
    pub fn position(&mut self, partition: &TopicPartition) -> Result<u64> {
        self.reading.position(partition)
    }

    /// How many records lie between the position and the end of the partition, or what may be read of it.
    /// (Kafka: the metric `records-lag`.)
    ///
    /// # Errors
    /// As [`Consumer::position`].
    pub fn lag(&mut self, partition: &TopicPartition) -> Result<u64> {
        Ok(self.reading.lead_and_lag(partition)?.1)
    }

    /// As [`Consumer::lag`], with bytes and time beside it.
    ///
    /// # Errors
    /// As [`Consumer::position`]; what reading the partition gives.
    pub fn backlog(&mut self, partition: &TopicPartition) -> Result<Backlog> {
        self.reading.backlog(partition)
    }

    /// How many records lie between the first one held and the position. (Kafka: the metric `records-lead`.)
    ///
    /// # Errors
    /// As [`Consumer::position`].
    pub fn lead(&mut self, partition: &TopicPartition) -> Result<u64> {
        Ok(self.reading.lead_and_lag(partition)?.0)
    }

    // ---- commits ---------------------------------------------------------------------------------------

    /// Commits the positions of all partitions: **everything that poll has returned**, whether you have finished
    /// with it or not. Who handles records one by one wants [`Consumer::commit_record`].
    ///
    /// The offsets survive the death of the process when this returns.
    ///
    /// # Errors
    /// `InvalidGroupId` without a group; `CommitFailed` where a partition has gone to another member, or where the
    /// consumer was silent for so long that it is none any more; `RebalanceInProgress` where a partition is on its
    /// way to this one; `FencedInstanceId` once another consumer took its place;
    /// `UnknownMemberId` for a consumer that chose its partitions itself, while the group has members; what
    /// keeps an append from succeeding.
    pub fn commit(&mut self) -> Result<()> {
        self.reading.commit()
    }

    /// Commits that `record`, and all before it in its partition, is done: the next to read is the one after.
    ///
    /// # Errors
    /// `CommitFailed` where the partition, or its topic, is no longer that which the record was read from: a
    /// record of the past cannot set a group back. Else as [`Consumer::commit`].
    pub fn commit_record(&mut self, record: &ConsumerRecord<'_>) -> Result<()> {
        self.reading.commit_record(*record)
    }

    /// Commits these offsets, each **the next one to read**, all or none. They may go backwards.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; else as [`Consumer::commit`].
    pub fn commit_offsets(&mut self, offsets: impl IntoIterator<Item = (TopicPartition, u64)>) -> Result<()> {
        self.reading.commit_offsets(offsets.into_iter().map(|(tp, offset)| (tp, offset, None)))
    }

    /// As [`Consumer::commit_offsets`], each with a line of the caller's own, at most 4096 bytes.
    ///
    /// # Errors
    /// `InvalidArgument` where one is longer; else as [`Consumer::commit_offsets`].
    pub fn commit_with_metadata(
        &mut self,
        offsets: impl IntoIterator<Item = (TopicPartition, u64, Option<String>)>,
    ) -> Result<()> {
        self.reading.commit_offsets(offsets)
    }

    /// As [`Consumer::commit`], and has `callback` called with the outcome, on the log's callback thread, in the
    /// order of the commits.
    pub fn commit_async(&mut self, callback: impl FnOnce(Result<()>) + Send + 'static) {
        let result = self.reading.commit();
        self.reading.log.engine.call(Box::new(callback), result);
    }

    /// What the group committed in the partition, assigned or not: the next offset to read.
    ///
    /// # Errors
    /// `InvalidGroupId` without a group; `UnknownTopicOrPartition`.
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<u64>> {
        Ok(self.committed_with_metadata(partition)?.map(|(offset, _)| offset))
    }

    /// As [`Consumer::committed`], with what was committed beside it.
    ///
    /// # Errors
    /// As [`Consumer::committed`].
    pub fn committed_with_metadata(
        &self,
        partition: &TopicPartition,
    ) -> Result<Option<(u64, Option<String>)>> {
        self.reading.committed(partition)
    }

    // ---- what there is ---------------------------------------------------------------------------------

    /// The first offset that each of these partitions holds, assigned or not.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn beginning_offsets(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, u64>> {
        let of = |tp| self.reading.resolve(&tp).map(|core| (tp, core.start_offset()));
        partitions.into_iter().map(of).collect()
    }

    /// The end offset of each of these partitions, assigned or not.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn end_offsets(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, u64>> {
        let of = |tp| self.reading.resolve(&tp).map(|core| (tp, core.high_watermark()));
        partitions.into_iter().map(of).collect()
    }

    /// The first record, in offset order, whose timestamp is not before the one asked for: offset and timestamp.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `InvalidArgument` for a time before 1970 (as in Kafka, where it would be a code
    /// for something else); what reading the index gives.
    pub fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (TopicPartition, Timestamp)>,
    ) -> Result<BTreeMap<TopicPartition, Option<(u64, Timestamp)>>> {
        let of = |(tp, time): (TopicPartition, Timestamp)| {
            if time < Timestamp::from_nanos(0) {
                let message = format!("the time {time} is before 1970");
                return Err(at(Error::new(ErrorKind::InvalidArgument, message), &tp));
            }
            let found = self.reading.resolve(&tp)?.offset_for_time(time)?;
            Ok((tp, found))
        };
        times.into_iter().map(of).collect()
    }
}
