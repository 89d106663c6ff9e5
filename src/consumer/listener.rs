//! Being told when partitions come and go.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::consumer::reading::Reading;
use crate::error::{Error, ErrorKind, Result};
use crate::topic_partition::TopicPartition;

/// Is told when a subscribed consumer gets partitions or loses them. (Kafka: `ConsumerRebalanceListener`.)
///
/// Called from inside the consumer's own `poll`, `unsubscribe` and `close`, on their thread and with no lock
/// held; never when a consumer is dropped. Only what changes is told: kept partitions are not. An error, or a
/// panic (as `UserCode`), becomes that of the call; the partitions have come or gone all the same.
///
/// ```
/// use tapelog::consumer::Rebalance;
/// use tapelog::{RebalanceListener, Result, TopicPartition};
///
/// /// Commits what it has finished before somebody else goes on with it.
/// struct Hand;
/// impl RebalanceListener for Hand {
///     fn on_revoked(&mut self, rebalance: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
///         rebalance.commit()
///     }
/// }
/// ```
pub trait RebalanceListener: Send + 'static {
    /// These partitions are the consumer's from now on; nothing was read from them yet, so a seek here says
    /// where reading begins.
    ///
    /// # Errors
    /// Whatever the poll should fail with.
    fn on_assigned(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        let _ = (rebalance, partitions);
        Ok(())
    }

    /// These partitions will be somebody else's once this returns; they can be committed for the last time.
    ///
    /// # Errors
    /// Whatever the call should fail with.
    fn on_revoked(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        let _ = (rebalance, partitions);
        Ok(())
    }

    /// These partitions are gone already, with nothing left to commit: their topic was deleted, or the consumer was
    /// silent for longer than `max_poll_interval`, or another one with its instance id took them over.
    ///
    /// # Errors
    /// Whatever the poll should fail with.
    fn on_lost(&mut self, rebalance: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        let _ = (rebalance, partitions);
        Ok(())
    }
}

/// What a [`RebalanceListener`] may do with its consumer.
pub struct Rebalance<'a> {
    reading: &'a mut Reading,
}

impl Rebalance<'_> {
    /// All partitions of the consumer: with those that came, and still with those that go.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.reading.assignment()
    }

    /// Where the consumer stands in a partition.
    ///
    /// # Errors
    /// As [`Consumer::position`](crate::Consumer::position).
    pub fn position(&mut self, partition: &TopicPartition) -> Result<u64> {
        self.reading.position(partition)
    }

    /// Has the consumer closed as soon as the listener returns: it lets go of its partitions, which the listener is
    /// told of, and leaves the group. The poll that called the listener, and all later ones, fail with `Closed`.
    pub fn close(&mut self) {
        self.reading.closing = true;
    }

    /// Commits the positions: all that poll returned, finished or not.
    ///
    /// # Errors
    /// As [`Consumer::commit`](crate::Consumer::commit).
    pub fn commit(&mut self) -> Result<()> {
        self.reading.commit()
    }

    /// Commits these offsets, each the next one to read, all or none.
    ///
    /// # Errors
    /// As [`Consumer::commit_offsets`](crate::Consumer::commit_offsets).
    pub fn commit_offsets(&mut self, offsets: impl IntoIterator<Item = (TopicPartition, u64)>) -> Result<()> {
        self.reading.commit_offsets(offsets.into_iter().map(|(tp, offset)| (tp, offset, None)))
    }

    /// What the group committed in a partition.
    ///
    /// # Errors
    /// As [`Consumer::committed`](crate::Consumer::committed).
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<u64>> {
        Ok(self.reading.committed(partition)?.map(|(offset, _)| offset))
    }

    /// Goes on at `offset`.
    ///
    /// # Errors
    /// As [`Consumer::seek`](crate::Consumer::seek).
    pub fn seek(&mut self, partition: &TopicPartition, offset: u64) -> Result<()> {
        self.reading.seek(partition, offset)
    }

    /// Reads no more from these partitions until they are resumed.
    ///
    /// # Errors
    /// As [`Consumer::pause`](crate::Consumer::pause).
    pub fn pause<'t>(&mut self, partitions: impl IntoIterator<Item = &'t TopicPartition>) -> Result<()> {
        self.reading.set_paused(partitions, true)
    }

    /// Reads on.
    ///
    /// # Errors
    /// As [`Consumer::resume`](crate::Consumer::resume).
    pub fn resume<'t>(&mut self, partitions: impl IntoIterator<Item = &'t TopicPartition>) -> Result<()> {
        self.reading.set_paused(partitions, false)
    }
}

impl std::fmt::Debug for Rebalance<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebalance").field("assignment", &self.assignment()).finish_non_exhaustive()
    }
}

/// What happened to the partitions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    Assigned,
    Revoked,
    Lost,
}

/// Tells the listener, if there is one and anything to tell.
pub(crate) fn tell(
    listener: &mut Option<Box<dyn RebalanceListener>>,
    reading: &mut Reading,
    told: Told,
    partitions: &[TopicPartition],
) -> Result<()> {
    let Some(listener) = listener.as_mut().filter(|_| !partitions.is_empty()) else { return Ok(()) };
    let call = AssertUnwindSafe(|| {
        let mut rebalance = Rebalance { reading };
        match told {
            Told::Assigned => listener.on_assigned(&mut rebalance, partitions),
            Told::Revoked => listener.on_revoked(&mut rebalance, partitions),
            Told::Lost => listener.on_lost(&mut rebalance, partitions),
        }
    });
    let panicked = |_| Err(Error::new(ErrorKind::UserCode, "the rebalance listener panicked"));
    catch_unwind(call).unwrap_or_else(panicked)
}
