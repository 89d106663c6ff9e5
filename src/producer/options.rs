//! What a send asks for.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::partition::core::Wait;
use crate::partition::delivery::{Acks, Durability};

/// What one send asks for, where that differs from its producer. Time and partition stand in the record.
///
/// ```
/// use tapelog::producer::SendOptions;
/// use tapelog::{Durability, Log, Record, TopicConfig};
///
/// let log = Log::in_memory()?;
/// let orders = log.create_topic("orders", TopicConfig::new())?;
/// let producer = log.producer().build()?;
/// let options = SendOptions::new().durability(Durability::Disk);
/// producer.send_with(&orders, Record::new("buy"), options)?.wait()?;
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SendOptions {
    acks: Option<Acks>,
    durability: Option<Durability>,
    wait: Option<Wait>,
}

impl SendOptions {
    /// Nothing that differs.
    #[must_use]
    pub fn new() -> Self {
        SendOptions::default()
    }

    /// How many copies the delivery stands for. With [`Acks::None`] nothing is promised, whatever durability the producer
    /// asks for.
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = Some(acks);
        self
    }

    /// What each copy survives once the delivery resolves.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// How long the send may wait for room; zero: not at all.
    #[must_use]
    pub fn max_block(mut self, wait: Duration) -> Self {
        self.wait = Some(if wait.is_zero() { Wait::No } else { Wait::For(wait) });
        self
    }

    /// These options over those of a producer.
    pub(super) fn over(self, producer: Promise) -> Promise {
        let inherited = if self.acks == Some(Acks::None) { None } else { producer.durability };
        Promise {
            acks: self.acks.unwrap_or(producer.acks),
            durability: self.durability.or(inherited),
            wait: self.wait.unwrap_or(producer.wait),
        }
    }
}

/// What a send asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub(super) acks: Acks,
    /// `None` where nobody said.
    pub(super) durability: Option<Durability>,
    pub(super) wait: Wait,
}

impl Promise {
    /// Whether copies and durability can be asked for together.
    pub(super) fn check(self) -> Result<()> {
        let wrong = |message: &str| Err(Error::new(ErrorKind::InvalidConfig, message));
        match (self.acks, self.durability) {
            (_, Some(Durability::Memory)) => {
                wrong("durability Memory is what an in-memory log reports, not a choice")
            }
            (Acks::None, Some(_)) => wrong("acks None promises nothing, so it goes with no durability"),
            _ => Ok(()),
        }
    }
}
