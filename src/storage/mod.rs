//! Where bytes lie: memory of the hot tail, files, directories.

pub(crate) mod arena;
pub(crate) mod chunk;
pub(crate) mod publish;
