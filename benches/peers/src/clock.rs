//! A cheap clock: the time stamp counter where there is one, calibrated once.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

struct Scale {
    ns_per_tick: f64,
    grain: u64,
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
            Scale { ns_per_tick: ns / ticks, grain: apart() }
        })
        .ns_per_tick
}

/// By how many ticks two readings differ at the least, as a rule.
fn apart() -> u64 {
    let mut apart: Vec<u64> = (0..1000).map(|_| now().abs_diff(now())).filter(|ticks| *ticks > 0).collect();
    apart.sort_unstable();
    apart.get(apart.len() / 4).copied().unwrap_or(1)
}

/// The ticks from `from` to `to`, spread by what cannot be told from them: the counter of some machines moves by 10 ns at a
/// time, and all that takes a little longer than one step would seem to take two. `nth` must differ from one time to the next.
#[inline]
pub fn spread(from: u64, to: u64, nth: u64) -> u64 {
    let grain = SCALE.get().map_or(1, |scale| scale.grain);
    let some = (nth.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % grain;
    (to + some).saturating_sub(from + grain / 2)
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
