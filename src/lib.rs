//! Kafka inside your process: an embeddable streaming log for trading applications.

#![allow(dead_code)] // until the house stands

mod block;
pub mod clock;
pub mod codec;
mod error;
mod frame;
mod record;
mod storage;
mod tail;

pub mod partitioner {
    //! Partitioners.
    pub use crate::producer::partitioner::*;
}
mod consumer {
    pub(crate) mod assignor;
}
mod producer {
    pub(crate) mod partitioner;
}

pub use clock::{Clock, Timestamp};
pub use codec::{Codec, Compression};
pub use error::{Error, ErrorKind, Result};
pub use record::Record;
