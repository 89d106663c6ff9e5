//! The fault suite: what is promised after each kind of fault, and a test for each that fails where it does not hold.
//!
//! Every test prints one line of JSON when it ends, however it ends:
//!
//! ```text
//! {"test":"...","seed":1,"cycles":1,"acked":1,"lost":0,"wrong":0,"panics":0,"secs":0.1}
//! ```
//!
//! - `cargo test --release --test faults -- --nocapture` shows the lines;
//! - `TAPELOG_SEED=n` repeats a run; the seed is on every line;
//! - `TAPELOG_FAULTS=night` runs each test for as long as a release deserves, not for seconds;
//! - `bash tests/faults/table.sh` runs all of it and writes the lines as a table into `src/docs/reliability.md`.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod changes;
#[cfg(target_os = "linux")]
mod compound;
#[cfg(target_os = "linux")]
mod cuts;
#[cfg(target_os = "linux")]
mod daemon;
#[cfg(target_os = "linux")]
mod dying;
#[cfg(target_os = "linux")]
mod image;
#[allow(dead_code)]
mod model;
#[cfg(target_os = "linux")]
mod replay;
#[allow(dead_code)] // what one row does not need, another does
mod report;
#[cfg(target_os = "linux")]
mod sectors;
#[cfg(target_os = "linux")]
mod traps;

#[cfg(unix)]
mod bits;
#[cfg(target_os = "linux")]
mod bombs;
#[cfg(unix)]
mod child;
#[cfg(unix)]
mod corpus;
#[cfg(unix)]
mod damage;
#[cfg(unix)]
mod edits;
#[cfg(target_os = "linux")]
mod full;
#[cfg(unix)]
mod hostile;
#[cfg(unix)]
mod kill;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(unix)]
mod names;
#[cfg(unix)]
mod owners;
#[cfg(unix)]
mod panics;
#[cfg(target_os = "linux")]
mod power;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod steps;
#[cfg(target_os = "linux")]
mod swaps;
mod time;
