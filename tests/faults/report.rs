//! What a test of the suite counts, and the one line that it prints in the end.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Numbers that follow from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds that differ in one bit should not begin alike.
        let mut random = Random((seed ^ 0x9E37_79B9_7F4A_7C15) | 1);
        let _ = (0..4).map(|_| random.next()).last();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a test counts. What was lost or wrong, and panics, must be 0 in the end.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Faults that were made.
    pub(crate) cycles: u64,
    /// Records that were acknowledged and so had to be there afterwards.
    pub(crate) acked: u64,
    /// Those of them that were not.
    pub(crate) lost: u64,
    /// Reads that answered with something else than what was written, or answers that contradict a promise.
    pub(crate) wrong: u64,
    /// Panics of the library.
    pub(crate) panics: u64,
    /// How many of the faults are known to be no other's twin, where that was looked at.
    pub(crate) distinct: u64,
    /// Instructions that were stepped through, where that is what the test does.
    pub(crate) instructions: u64,
    /// The first things that went wrong, in words.
    told: Vec<String>,
}

impl Tally {
    /// Counts something wrong, and keeps the words where it is among the first.
    pub(crate) fn wrong(&mut self, words: impl FnOnce() -> String) {
        self.wrong += 1;
        self.tell(words);
    }

    /// Counts acknowledged records that are not there.
    pub(crate) fn lost(&mut self, records: u64, words: impl FnOnce() -> String) {
        if records > 0 {
            self.lost += records;
            self.tell(words);
        }
    }

    /// Runs what must not panic; `None` where it did.
    pub(crate) fn guard<T>(&mut self, words: impl FnOnce() -> String, what: impl FnOnce() -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(what)).ok();
        if done.is_none() {
            self.panics += 1;
            self.tell(words);
        }
        done
    }

    /// Adds what another counted.
    pub(crate) fn add(&mut self, other: Tally) {
        self.cycles += other.cycles;
        self.distinct += other.distinct;
        self.acked += other.acked;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.panics += other.panics;
        other.told.into_iter().for_each(|words| self.tell(|| words));
    }

    fn tell(&mut self, words: impl FnOnce() -> String) {
        if self.told.len() < 8 {
            let words = words();
            // One of a kind says it: what differs in numbers only is the same.
            let kind = |words: &str| {
                words.chars().filter(|c| c.is_alphabetic() && !c.is_ascii_hexdigit()).collect::<String>()
            };
            if !self.told.iter().any(|told| kind(told) == kind(&words)) {
                self.told.push(words);
            }
        }
    }
}

/// What a test has to go by.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) tally: Tally,
    began: Instant,
}

impl Run {
    pub(crate) fn random(&self) -> Random {
        Random::new(self.seed)
    }

    /// Whether there is time for more, in a run that may take so many seconds.
    pub(crate) fn has_time(&self, secs: u64) -> bool {
        self.began.elapsed() < Duration::from_secs(secs)
    }
}

/// Runs a test, prints its line, and fails if anything was lost or wrong.
pub(crate) fn run(test: &str, what: impl FnOnce(&mut Run)) {
    run_since(Instant::now(), test, what);
}

/// The same for a test that began before it was known whether it can run here.
pub(crate) fn run_since(began: Instant, test: &str, what: impl FnOnce(&mut Run)) {
    let mut run = Run { seed: seed(), tally: Tally::default(), began };
    let ended = catch_unwind(AssertUnwindSafe(|| what(&mut run)));
    let (t, secs) = (&mut run.tally, run.began.elapsed().as_secs_f64());
    // An assertion of the test itself is something wrong, too.
    t.wrong += u64::from(ended.is_err());
    let counted = [("distinct", t.distinct), ("instructions", t.instructions)];
    let more: String = counted
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!(r#","{what}":{count}"#))
        .collect();
    println!(
        r#"{{"test":"{test}","seed":{},"cycles":{},"acked":{},"lost":{},"wrong":{},"panics":{},"secs":{secs:.1}{more}}}"#,
        run.seed, t.cycles, t.acked, t.lost, t.wrong, t.panics
    );
    let told = run.tally.told.join("\n");
    if let Err(panic) = ended {
        println!("{told}");
        resume_unwind(panic);
    }
    assert!(run.tally.lost + run.tally.wrong + run.tally.panics == 0, "{test}, seed {}:\n{told}", run.seed);
    assert!(run.tally.cycles > 0, "{test} tried nothing");
}

/// Says loudly that a test cannot run here.
pub(crate) fn skip(test: &str, why: &str) {
    println!(r#"{{"test":"{test}","skipped":"{why}"}}"#);
}

/// How much to do: so much in `cargo test`, so much before a release.
pub(crate) fn effort(quick: u64, night: u64) -> u64 {
    if std::env::var("TAPELOG_FAULTS").is_ok_and(|s| s == "night") { night } else { quick }
}

fn seed() -> u64 {
    let given = std::env::var("TAPELOG_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos());
        now as u64 >> 8 & 0xFFFF_FFFF
    })
}

mod tests {
    use super::*;

    /// A suite that cannot fail proves nothing.
    #[test]
    fn a_loss_fails_the_test_and_a_panic_is_counted() {
        let failed = |what: fn(&mut Run)| catch_unwind(|| run("self-test, meant to fail", what)).is_err();
        assert!(failed(|run| run.tally.cycles = 0));
        assert!(failed(|run| (run.tally.cycles, run.tally.lost) = (1, 1)));
        assert!(failed(|run| {
            run.tally.cycles = 1;
            run.tally.wrong(|| "differs".into());
        }));
        assert!(failed(|run| {
            run.tally.cycles = 1;
            assert_eq!(run.tally.guard(|| "panicked".into(), || panic!("on purpose")), None::<()>);
            assert_eq!(run.tally.panics, 1);
        }));
        let mut random = Random::new(7);
        assert!(effort(1, 2) > 0 && random.below(5) < 5 && random.one_in(1));
    }
}
