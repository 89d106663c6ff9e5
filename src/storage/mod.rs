//! What the log stands on: directories, positioned files, and faults on demand.

pub(crate) mod directory;
pub(crate) mod disk;
pub(crate) mod fault;
pub(crate) mod file;
