//! A cheap clock: the time stamp counter where there is one, calibrated once.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

struct Scale {
    ns_per_tick: f64,
}

static SCALE: OnceLock<Scale> = OnceLock::new();

#[cfg(not(target_arch = "x86_64"))]
static BEGIN: OnceLock<Instant> = OnceLock::new();

/// Ticks since some moment. Every machine that this runs on has an invariant counter, common to all cores.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn now() -> u64 {
    // SAFETY: every x86-64 has the instruction; it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds since the first call, where there is no counter to read.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn now() -> u64 {
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Measures how long a tick is; the first call takes 4 ms, so make it before anything is timed.
pub fn calibrate() -> f64 {
    SCALE
        .get_or_init(|| {
            let (begin, from) = (Instant::now(), now());
            while begin.elapsed() < Duration::from_millis(4) {
                std::hint::spin_loop();
            }
            let (ns, ticks) = (begin.elapsed().as_nanos() as f64, (now() - from) as f64);
            Scale { ns_per_tick: ns / ticks }
        })
        .ns_per_tick
}

/// Nanoseconds of that many ticks.
#[inline]
pub fn ns(ticks: u64) -> u64 {
    (ticks as f64 * calibrate()) as u64
}

/// Ticks of that many nanoseconds.
pub fn ticks(ns: f64) -> f64 {
    ns / calibrate()
}
