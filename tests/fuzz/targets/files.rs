//! A root file or a segment, whatever its bytes: with its checksums made right it is verified, and now and then opened.
#![no_main]
#![allow(clippy::unwrap_used, dead_code, unused_imports)] // what the fault suite needs besides

#[path = "../../faults/corpus.rs"]
mod corpus;
#[path = "../../faults/damage.rs"]
mod damage;
#[path = "../../faults/hostile.rs"]
mod hostile;
#[path = "../../faults/report.rs"]
mod report;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static BENCH: OnceLock<corpus::Bench> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let bench = BENCH.get_or_init(corpus::Bench::new);
    // Opens take longer than all the rest.
    bench.try_file(bytes, true, bytes.len() % 16 == 0);
});
