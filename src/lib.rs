//! *Kafka inside your process*: an embeddable streaming log for trading applications. Topics, partitions,
//! producers and consumer groups with Kafka's semantics, as a library: no broker, no port, no C.
//!
//! ```
//! use std::time::Duration;
//! use tapelog::{Compression, Log, Record, TopicConfig};
//!
//! # let dir = tempfile::tempdir()?;
//! # let data = dir.path().join("data");
//! let log = Log::open(&data)?;                                            // or Log::in_memory()
//! let config = TopicConfig::new().partitions(4).compression(Compression::Lz4);
//! let tickers = log.ensure_topic("stock_tickers", config)?;
//!
//! let producer = log.producer().build()?;
//! let json = r#"{"symbol":"AAPL","price":150.23,"volume":10000}"#;
//! let delivery = producer.send(&tickers, Record::new(json).key("AAPL"))?;
//! assert_eq!(delivery.offset(), 0);
//! delivery.wait()?;                                                       // the promise asked for, kept
//!
//! let group = log.consumer_group("risk")?;
//! let mut consumer = group.subscribe(["stock_tickers"])?;
//! let records = consumer.poll(Duration::from_millis(100))?;
//! assert_eq!(records.len(), 1);
//! for record in &records {                                                // copies nothing
//!     assert_eq!(record.value(), Some(json.as_bytes()));
//!     consumer.commit_record(&record)?;
//! }
//! consumer.close()?;
//! log.close(Duration::from_secs(10))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The idea
//!
//! A record is copied once, into the *hot tail* of its partition: warm memory that is a slot of a mapped file, so
//! that it survives `kill -9` with no system call. Readers find it there, and copy nothing. Off the
//! caller's path a *write-behind* turns what was appended into blocks, compressed and checksummed once, and writes
//! them to segment files, the *cold log*, which is read into the reader's own memory and verified before a byte
//! of it is believed. Back-pressure is explicit: what is appended and not yet written is bounded by
//! [one budget](LogBuilder::memory_budget), and a send that finds no room waits, or says so.
//!
//! # What is promised
//!
//! [`Durability::Process`], the default: from the moment `send` returns, the record survives the death of the process
//! at any instruction. [`Durability::Disk`]: once the delivery resolves, it survives the loss of power as well.
//! In memory nothing survives, and every level is accepted, so that the same code runs in tests. At every level: what is
//! read is what was sent; order within a partition; an append of many records is seen whole or not at all.
//!
//! # Where to look
//!
//! - [`Log`], [`Topic`], [`partition`]: open, create, find; append to and read from one partition directly.
//! - [`Producer`], [`Delivery`], [`producer`], [`partitioner`]: send, with a promise.
//! - [`Consumer`], [`ConsumerGroup`], [`consumer`], [`assignor`]: poll, seek, commit, share partitions.
//! - [`share`]: records of one partition in many hands, with retries and dead letters: Kafka's queues.
//! - [`Error`] and [`ErrorKind`]: one error, that tells topic, partition, offset and file.
//! - [`codec`], [`clock`], [`topic`], [`admin`]: what can be set or replaced.
//! - [`_documentation`]: every byte on disk, the way of a record through the code, and why things are as they are.
//!
//! # Features
//!
//! None by default. `gzip` and `zstd` (builds C) add codecs, `md5` and `sha1` add partitioners, `regex` subscriptions by
//! regular expression, `testing` disks that fail.
//!
//! # What it is not
//!
//! Not a server and not a client: there is no networking. One process writes a log; a second open is
//! [`ErrorKind::Locked`]. Replication over several directories, retention, compaction and transactions are
//! not here yet; their bytes are reserved. Linux is the tested platform; without a Unix there are logs in memory only.

// But for one file, `storage/chunk.rs`, which allows it.
#![deny(unsafe_code)]

mod block;
mod block_builder;
mod bytes;
pub mod clock;
pub mod codec;
mod columns;
pub mod consumer;
mod error;
#[cfg(target_arch = "x86_64")]
mod fold;
mod frame;
mod log;
pub mod partition;
pub mod producer;
mod record;
mod segment;
mod storage;
mod tail;
mod topic_partition;
mod verifier;

pub mod assignor {
    //! Who reads which partition of a group's topics.
    pub use crate::consumer::assignor::*;
}
pub mod share {
    //! Share groups: a topic as a queue of work, with retries and dead letters.
    pub use crate::consumer::share::admin::{ShareGroup, ShareGroupDescription, SharePartitionDescription};
    pub use crate::consumer::share::options::{AcknowledgeMode, ShareConfig};
    pub use crate::consumer::share::poll::{ShareConsumer, ShareConsumerBuilder};
    pub use crate::consumer::share::records::{ShareRecord, ShareRecords, ShareRecordsIter};
    pub use crate::consumer::share::state::Acknowledge;
}
pub mod topic {
    //! What the settings of a topic are made of.
    pub use crate::log::topic::{SettingSource, TopicDescription, TopicSetting};
    pub use crate::partition::settings::{SyncPolicy, TimestampType};
}
pub mod partitioner {
    //! Which partition a record goes to.
    pub use crate::producer::partitioner::*;
}
pub mod admin {
    //! What an open found, and did about it; what files hold, what is damaged in them, and what became of it; what a
    //! log says unasked.
    pub use crate::log::corruption::OnCorruption;
    pub use crate::log::repair::RepairReport;
    pub use crate::log::report::{RecoveryItem, RecoveryReport};
    pub use crate::log::verify::{FileKind, FileReport, VerifyReport};
    pub use crate::partition::event::Event;
    pub use crate::partition::recovery::RecoveryAction;
    pub use crate::segment::check::{DamageKind, FileDamage};
    pub use crate::segment::dump::{DumpedBatch, DumpedEntry, DumpedProducer, SegmentDump, dump_segment};
}

#[cfg(feature = "testing")]
pub mod testing {
    //! Disks that fail when told to, and one that loses power: to try what a program makes of it.
    //!
    //! With the feature `testing`. A [`FaultPlan`] has the n-th call of a kind fail, once or for ever, on any log in a
    //! directory. A [`SimulatedDisk`] is a disk in memory (on Linux) that tells flushed from written: it can be had in any
    //! state that a power cut may leave. A [`ManualClock`] stands still until it is set.
    //!
    //! ```
    //! use std::sync::Arc;
    //! use std::time::Duration;
    //! use tapelog::testing::{Fault, FaultPlan, Op};
    //! use tapelog::{ErrorKind, Log, Record, TopicConfig};
    //!
    //! let dir = tempfile::tempdir()?;
    //! let plan = FaultPlan::new();
    //! let log = Log::builder().faults(&plan).open(dir.path())?;
    //! let partition = log.ensure_topic("ticks", TopicConfig::new())?.partition(0)?;
    //! let delivery = partition.append(Record::new("150.23"))?;
    //! plan.inject(Fault::nth(1).of(Op::Sync).errno(Fault::EIO));
    //! let error = partition.wait_durable(delivery.offset() + 1, Duration::MAX).unwrap_err();
    //! assert_eq!((error.kind(), plan.fired()), (ErrorKind::Storage, 1));
    //! # Ok::<(), Box<dyn std::error::Error>>(())
    //! ```
    //!
    //! ```
    //! # #[cfg(target_os = "linux")] {
    //! use std::time::Duration;
    //! use tapelog::testing::SimulatedDisk;
    //! use tapelog::{Log, Record, TopicConfig};
    //!
    //! let disk = SimulatedDisk::new();
    //! let log = Log::builder().simulated_disk(&disk).memory_budget(256 << 10).open("/log")?;
    //! let partition = log.ensure_topic("ticks", TopicConfig::new())?.partition(0)?;
    //! partition.append(Record::new("on the disk"))?;
    //! partition.wait_durable(1, Duration::MAX)?;
    //! partition.append(Record::new("in memory"))?;
    //!
    //! let moment = disk.freeze()?;
    //! for seed in 0..10 {
    //!     let left = moment.power_cut_at_random(seed);
    //!     let log = Log::builder().simulated_disk(&left).memory_budget(256 << 10).open("/log")?;
    //!     assert!(log.topic("ticks")?.partition(0)?.end_offset() >= 1);
    //! }
    //! # }
    //! # Ok::<(), Box<dyn std::error::Error>>(())
    //! ```
    pub use crate::clock::ManualClock;
    pub use crate::storage::fault::{Call, Fault, FaultPlan, Op};
    #[cfg(target_os = "linux")]
    pub use crate::storage::simulated::{Moment, SimulatedDisk};
}

pub mod _documentation {
    //! Pages that go with the code.

    pub mod format {
        #![doc = include_str!("docs/format.md")]
    }
    pub mod journey {
        #![doc = include_str!("docs/journey.md")]
    }
    pub mod decisions {
        #![doc = include_str!("docs/decisions.md")]
    }
    pub mod reliability {
        #![doc = include_str!("docs/reliability.md")]
    }
}

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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
pub use producer::{Producer, ProducerBuilder};
pub use record::Record;
pub use topic_partition::TopicPartition;
