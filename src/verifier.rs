//! Verifies many frames with one checksum.
//!
//! CRC-32 sums up a long stretch several times as fast as the same bytes in short frames. But each frame has a checksum of
//! its own, which begins anew. So before a stretch of frames is summed up, the first 20 bytes of each are replaced by what leads from
//! the end of the frame before to the beginning of this one's checksum:
//!
//! ```text
//!                  0        4   8   12  16      20
//!                  ┌────────┬───┬───┬───┬───────┬───────────────┐┌────────┬───┬ ...
//!    bytes         │ !tag 0 │ 0 │ 0 │ 0 │ mixed │ what is there ││ !tag 1 │ 0 │
//!                  └────────┴───┴───┴───┴───────┴───────────────┘└────────┴───┴ ...
//!    state  !tag 0 ►        0   0   0   0                      !tag 1     0
//! ```
//!
//! The state of a checksum after a frame that is whole is the complement of its tag; put at the head of the next, it makes the
//! state zero, which zeros leave as it is. A checksum that begins with some state is that of the same bytes begun with zero, with
//! the state mixed into the first four: the lower half of the timestamp. If all are whole,
//! the checksum of the stretch is the last one's tag. An error in one of them leaves a difference that no frame after it takes away
//! but by an error of its own: what is not seen is what a checksum of the block would not see.

use crate::bytes::{put, u32_at};
use crate::frame::{FIXED, SUMMED, commit_word, sum_begins};

/// Verifies frames that lie back to back.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    /// What belongs at the head of each frame: its commit word and its offset.
    heads: Vec<[u64; 2]>,
    /// Of the last frame; zero before the first, whose state is all ones.
    tag: u32,
}

impl Verifier {
    /// Adds the frame that begins with `head`, whose pure tag is `tag`. Until [`Verifier::verify`] something else stands there.
    ///
    /// What is stored here in words is not loaded from there: one load of them together would wait until they have left the
    /// processor, which takes as long as all the rest.
    #[inline]
    pub(crate) fn push(&mut self, head: &mut [u8; FIXED], len: usize, tag: u32, offset: u64) {
        #[allow(clippy::cast_possible_truncation)] // frames are no longer than 32 bits say
        self.heads.push([commit_word(len as u32, tag), offset]);
        head[..8].copy_from_slice(&u64::from(!self.tag).to_le_bytes());
        head[8..SUMMED].fill(0);
        mix_in(head, len, offset);
        self.tag = tag;
    }

    /// Whether all frames that were added are what their tags say: `frames` are just these. Gives them back their heads, with
    /// pure tags, and begins anew.
    pub(crate) fn verify(&mut self, frames: &mut [u8]) -> bool {
        let whole = crc32fast::hash(frames) == self.tag;
        let mut rest = frames;
        for [commit, offset] in self.heads.drain(..) {
            let (frame, behind) = rest.split_at_mut(len_of(commit));
            if let Some(head) = frame.first_chunk_mut() {
                mix_in(head, len_of(commit), offset);
            }
            put(frame, 0, &commit.to_le_bytes());
            put(frame, 8, &offset.to_le_bytes());
            rest = behind;
        }
        self.tag = 0;
        whole
    }
}

/// Mixes what a frame's checksum begins with into its first four bytes, or takes it out again.
#[inline]
fn mix_in(head: &mut [u8; FIXED], len: usize, offset: u64) {
    let mixed = u32_at(head, SUMMED) ^ !sum_begins(offset, len);
    put(head, SUMMED, &mixed.to_le_bytes());
}

/// The length in a commit word.
#[allow(clippy::cast_possible_truncation)] // its lower half
fn len_of(commit_word: u64) -> usize {
    commit_word as u32 as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::u64_at;
    use crate::clock::Timestamp;
    use crate::frame;
    use crate::record::Record;

    /// Frames with values of these lengths.
    fn frames(lens: &[usize]) -> Vec<Vec<u8>> {
        let frame = |(i, len): (usize, &usize)| {
            let offset = (i as u64).wrapping_mul(0x0123_4567_89AB_CDEF);
            frame::to_vec(&Record::new(&vec![i as u8; *len]), offset, Timestamp::from_nanos(i as i64), 0)
        };
        lens.iter().enumerate().map(frame).collect()
    }

    /// What it says of frames that are there as `bytes`, and which begin with `heads`.
    fn verify(verifier: &mut Verifier, heads: &[Vec<u8>], bytes: &[u8]) -> bool {
        let (mut at, mut seen) = (0, bytes.to_vec());
        for frame in heads {
            let head = seen[at..].first_chunk_mut().unwrap();
            verifier.push(head, frame.len(), u32_at(frame, 4), u64_at(frame, 8));
            at += frame.len();
        }
        let whole = verifier.verify(&mut seen);
        let heads_too = heads.concat() == bytes;
        assert!(!heads_too || seen == bytes, "all is as it was");
        whole
    }

    #[test]
    fn whole_frames_of_all_lengths_are_whole() {
        let (frames, mut verifier) = (frames(&[0, 1, 8, 100, 5000, 7, 64, 0, 300]), Verifier::default());
        for count in 0..=frames.len() {
            assert!(verify(&mut verifier, &frames[..count], &frames[..count].concat()), "{count}");
        }
    }

    /// All that a frame's own checksum sees: what it sums up, its tag, its length and its offset.
    #[test]
    fn every_flipped_bit_of_every_frame_is_noticed() {
        let (frames, mut verifier) = (frames(&[5, 0, 17, 8]), Verifier::default());
        let bytes = frames.concat();
        let mut at = 0;
        for (i, frame) in frames.iter().enumerate() {
            for bit in 0..8 * frame.len() {
                let (mut heads, mut bad) = (frames.clone(), bytes.clone());
                heads[i][bit / 8] ^= 1 << (bit % 8);
                bad[at + bit / 8] ^= 1 << (bit % 8);
                if bit < 32 {
                    continue; // a length leads to another frame
                }
                assert!(!verify(&mut verifier, &heads, &bad), "frame {i}, bit {bit}");
            }
            at += frame.len();
        }
        assert!(verify(&mut verifier, &frames, &bytes));
    }

    #[test]
    fn frames_that_changed_places_are_noticed() {
        let (frames, mut verifier) = (frames(&[16, 16, 16]), Verifier::default());
        let swapped =
            [&frames[0][..16], &frames[1][16..], &frames[1][..16], &frames[0][16..], &frames[2]].concat();
        assert!(!verify(&mut verifier, &frames, &swapped));
    }
}
