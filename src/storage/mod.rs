//! Where bytes lie: memory of the hot tail, directories, positioned files, and faults on demand.

pub(crate) mod arena;
#[cfg(unix)]
pub(crate) mod beneath;
pub(crate) mod chunk;
pub(crate) mod descriptors;
pub(crate) mod directory;
pub(crate) mod disk;
#[cfg(feature = "testing")]
pub(crate) mod fault;
pub(crate) mod file;
#[cfg(unix)]
pub(crate) mod granules;
#[cfg(unix)]
pub(crate) mod mapping;
pub(crate) mod marks;
pub(crate) mod origin;
#[cfg(all(feature = "testing", target_os = "linux"))]
pub(crate) mod pages;
pub(crate) mod publish;
pub(crate) mod runs;
#[cfg(all(feature = "testing", target_os = "linux"))]
pub(crate) mod simulated;
pub(crate) mod slot;
pub(crate) mod staged;
pub(crate) mod staging;
pub(crate) mod threads;
pub(crate) mod witness;
#[cfg(all(feature = "testing", target_os = "linux"))]
pub(crate) mod world;
