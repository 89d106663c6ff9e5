//! Kafka inside your process: an embeddable streaming log for trading applications.

#![allow(dead_code)] // until the house stands

mod block;
pub mod clock;
pub mod codec;
pub mod consumer;
mod error;
mod frame;
mod log;
mod partition;
mod record;
mod segment;
mod storage;
mod tail;
mod topic_partition;

pub mod assignor {
    //! Who reads which partition of a group's topics.
    pub use crate::consumer::assignor::*;
}
pub mod topic {
    //! What the settings of a topic are made of.
    pub use crate::log::topic::TopicDescription;
    pub use crate::partition::settings::{SyncPolicy, TimestampType};
}
pub mod partitioner {
    //! Which partition a record goes to.
    pub use crate::producer::partitioner::*;
}
pub mod partition_log {
    //! The direct path to one partition.
    pub use crate::partition::Reader;
}
mod producer {
    pub(crate) mod partitioner;
}

pub use clock::{Clock, Timestamp};
pub use codec::{Codec, Compression};
pub use consumer::admin::ConsumerGroup;
pub use consumer::assignor::Assignor;
pub use consumer::builder::ConsumerBuilder;
pub use consumer::listener::RebalanceListener;
pub use consumer::options::OffsetReset;
pub use consumer::poll::Consumer;
pub use error::{Error, ErrorKind, Result};
pub use log::Log;
pub use log::catalog::TopicConfig;
pub use log::opening::LogBuilder;
pub use log::topic::Topic;
pub use partition::Partition;
pub use partition::delivery::{Acks, Delivery, Durability};
pub use partition::records::{ConsumerRecord, OwnedRecord, Records};
pub use producer::partitioner::Partitioner;
pub use record::Record;
pub use topic_partition::TopicPartition;
