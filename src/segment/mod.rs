//! One file of blocks: written at its end, read anywhere, sealed with an index.
//!
//! ```text
//!   0                64                                    data end                        file end
//!   ├────────────────┼───────────┬───────────┬─── ─ ─ ─────┼───────────────┬───────────────┤
//!   │ segment header │   block   │   block   │             │ index entries │    trailer    │
//!   └────────────────┴───────────┴───────────┴─── ─ ─ ─────┼───────────────┴───────────────┤
//!                                                          └─ only once sealed; before that zeros,
//!                                                             reserved in growing extents
//! ```
//!
//! `format` draws header and trailer, `index` finds places, `writer` appends and seals, `ahead` makes the next file meanwhile, `reader` is what everybody
//! else shares, `blocks` goes from one block to the next over damage, `scan` tells what a file holds after a stop,
//! `verify` which payloads are good, `check` looks at every byte of a file and `rewrite` leaves out what is damaged, `dump`
//! looks at a file from outside, and `chain` puts segments in a row.

pub(crate) mod ahead;
pub(crate) mod blocks;
pub(crate) mod chain;
pub(crate) mod check;
pub(crate) mod dump;
pub(crate) mod format;
pub(crate) mod index;
pub(crate) mod reader;
pub(crate) mod rewrite;
pub(crate) mod scan;
pub(crate) mod verify;
pub(crate) mod writer;

#[cfg(test)]
#[cfg(unix)]
pub(crate) mod bench;
#[cfg(test)]
#[cfg(unix)]
mod fault_tests;
#[cfg(test)]
#[cfg(unix)]
mod tests;
