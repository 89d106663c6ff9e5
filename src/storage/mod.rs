//! Where bytes lie: memory of the hot tail, directories, positioned files, and faults on demand.

pub(crate) mod arena;
pub(crate) mod chunk;
pub(crate) mod descriptors;
pub(crate) mod directory;
pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod fault;
pub(crate) mod file;
#[cfg(unix)]
pub(crate) mod granules;
pub(crate) mod marks;
pub(crate) mod publish;
pub(crate) mod slot;
pub(crate) mod staged;
pub(crate) mod staging;
pub(crate) mod witness;
