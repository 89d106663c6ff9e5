//! Kafka inside your process: an embeddable streaming log for trading applications.

#![allow(dead_code)] // until the house stands

mod block;
pub mod clock;
pub mod codec;
mod error;
mod frame;
mod record;
mod topic_partition;

pub mod assignor {
    //! Who reads which partition of a group's topics.
    pub use crate::consumer::assignor::*;
}
pub mod topic {
    //! What the settings of a topic are made of.
    pub use crate::partition::settings::{SyncPolicy, TimestampType};
}
pub mod partitioner {
    //! Which partition a record goes to.
    pub use crate::producer::partitioner::*;
}
mod consumer {
    pub(crate) mod assignor;
    pub(crate) mod offsets;
}
mod log {
    pub(crate) mod catalog;
    pub(crate) mod root;
}
mod producer {
    pub(crate) mod partitioner;
}

pub use clock::{Clock, Timestamp};
pub use codec::{Codec, Compression};
pub use consumer::assignor::Assignor;
pub use error::{Error, ErrorKind, Result};
pub use log::catalog::TopicConfig;
pub use producer::partitioner::Partitioner;
pub use record::Record;
pub use topic_partition::TopicPartition;
