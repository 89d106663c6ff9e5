//! How bytes become visible: two protocols, small enough to be checked exhaustively.
//!
//! ```text
//!            ┌──────────┬──────────┬──────────┬───────┬╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
//!   a chunk  │ frame    │ frame    │ frame    │ 0     │ bytes of an earlier life
//!            └──────────┴──────────┴──────────┴───────┴╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
//!                                  ▲          ▲
//!                       published ─┘          └─ the writer's cursor: staged, not yet published
//! ```
//!
//! - **In process** a [`Counter`] says how many bytes may be read. The writer fills bytes, then stores the
//!   counter with release order; a reader loads it with acquire order and trusts nothing beyond it. One store
//!   publishes any number of frames, so a batch is seen whole or not at all.
//! - **For recovery and other processes** each frame begins with a word that is stored last ([`commit`]). The word
//!   after the frame is zeroed before, so that whoever follows the words meets "nothing here yet" and
//!   never what an earlier life of the memory left behind.
//!
//! Both are generic over the word and the orderings, and import nothing of this crate: the model checker runs
//! these very lines, with its own words, and with weakened orderings that it must refuse.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A word that threads share.
pub(crate) trait Word {
    /// What it holds; the default is "nothing here yet".
    type Value: Copy + Default + PartialEq;
    /// Reads the word.
    fn load(&self, order: Ordering) -> Self::Value;
    /// Writes the word.
    fn store(&self, value: Self::Value, order: Ordering);
}

impl Word for AtomicUsize {
    type Value = usize;

    #[inline]
    fn load(&self, order: Ordering) -> usize {
        AtomicUsize::load(self, order)
    }

    #[inline]
    fn store(&self, value: usize, order: Ordering) {
        AtomicUsize::store(self, value, order);
    }
}

impl Word for AtomicU64 {
    type Value = u64;

    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }
}

/// The two orderings that a protocol rests on.
pub(crate) trait Orders {
    /// Of the store that publishes.
    const STORE: Ordering;
    /// Of the load that believes it.
    const LOAD: Ordering;
}

/// What runs in production. Anything weaker is a bug that the model finds.
pub(crate) struct ReleaseAcquire;

impl Orders for ReleaseAcquire {
    const STORE: Ordering = Ordering::Release;
    const LOAD: Ordering = Ordering::Acquire;
}

/// How much has been published.
///
/// This is race-free because there is one writer, it fills what lies beyond the counter before it moves the counter
/// past it, and it never again writes below the counter. A reader that saw a value by [`Counter::seen`]
/// therefore sees every byte below it as it will stay.
pub(crate) struct Counter<W, O = ReleaseAcquire> {
    word: W,
    orders: PhantomData<fn() -> O>,
}

impl<W: Word, O: Orders> Counter<W, O> {
    /// A counter that starts at what `word` holds.
    pub(crate) fn new(word: W) -> Self {
        Counter { word, orders: PhantomData }
    }

    /// The writer's: everything below `end` is filled, let it be seen.
    #[inline]
    pub(crate) fn publish(&self, end: W::Value) {
        self.word.store(end, O::STORE);
    }

    /// A reader's: everything below the answer may be read.
    #[inline]
    pub(crate) fn seen(&self) -> W::Value {
        self.word.load(O::LOAD)
    }
}

/// Commits one frame for those who follow commit words: zeroes the word that follows the frame (where the memory
/// goes on), then stores the frame's own, last.
///
/// The zero needs no order of its own: the release store comes after it, as after the frame's bytes.
#[inline]
pub(crate) fn commit<W: Word, O: Orders>(word: &W, following: Option<&W>, value: W::Value) {
    if let Some(following) = following {
        following.store(W::Value::default(), Ordering::Relaxed);
    }
    word.store(value, O::STORE);
}

/// Reads a commit word as another process would; `None` where there is nothing yet. Recovery reads bytes of a file
/// in place of words, and tests these.
#[cfg(test)]
pub(crate) fn committed<W: Word, O: Orders>(word: &W) -> Option<W::Value> {
    let value = word.load(O::LOAD);
    (value != W::Value::default()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_zeroes_the_following_word() {
        let words = [AtomicU64::new(0), AtomicU64::new(7)];
        assert_eq!(committed::<_, ReleaseAcquire>(&words[0]), None);
        commit::<_, ReleaseAcquire>(&words[0], Some(&words[1]), 5);
        assert_eq!(committed::<_, ReleaseAcquire>(&words[0]), Some(5));
        assert_eq!(committed::<_, ReleaseAcquire>(&words[1]), None);
        commit::<_, ReleaseAcquire>(&words[1], None, 6);
        assert_eq!(committed::<_, ReleaseAcquire>(&words[1]), Some(6));
    }

    #[test]
    fn a_counter_says_what_was_published() {
        let counter: Counter<AtomicUsize> = Counter::new(AtomicUsize::new(3));
        assert_eq!(counter.seen(), 3);
        counter.publish(9);
        assert_eq!(counter.seen(), 9);
    }
}
