//! CRC-32 of what is in registers, by the processor's multiplication without carries.
//!
//! What the checksum of any length of bytes is made of (`crc32fast`) takes its time to begin and to end, and wants all bytes
//! in memory. A short frame is summed up here while it is being stored.
//!
//! A checksum is what the message, taken for a polynomial, leaves over when it is divided by the checksum's own. So a message may be
//! replaced by a shorter one that leaves the same: 16 bytes stand for all bytes so far, and where 16 more come, each half of them
//! is multiplied by what `x` to the power of its distance leaves over (Gopal et al., "Fast CRC Computation for Generic
//! Polynomials Using PCLMULQDQ Instruction", Intel 2009). Everything is reflected: the lowest bit is the highest power.

use std::arch::x86_64::{
    __m128i, _mm_clmulepi64_si128, _mm_cvtsi32_si128, _mm_extract_epi32, _mm_set_epi64x, _mm_shuffle_epi8,
    _mm_srli_si128, _mm_unpacklo_epi64, _mm_xor_si128,
};

use crate::bytes::u64_at;

/// The polynomial of CRC-32 (IEEE 802.3) without its highest power.
const POLYNOMIAL: u32 = 0xEDB8_8320;
/// The same with it: 33 bits.
const WHOLE: i64 = ((POLYNOMIAL as i64) << 1) | 1;
const POWER_96: i64 = power(96);
const POWER_160: i64 = power(160);

/// What `x` to the power of `n` leaves over, one bit higher, as the product of two reflected numbers is one bit too low.
const fn power(n: u32) -> i64 {
    let mut rest = 1 << 31;
    let mut i = 0;
    while i < n {
        rest = (rest >> 1) ^ ((rest & 1) * POLYNOMIAL);
        i += 1;
    }
    (rest as i64) << 1
}

/// How often the polynomial goes into `x` to the power of 96: the lower 64 of 65 bits, where products are of 64 (Barrett's
/// reduction).
const QUOTIENT: i64 = {
    let polynomial = (WHOLE as u128).reverse_bits() >> 95;
    let (mut rest, mut quotient, mut i) = (1u128 << 96, 0u128, 65);
    while i > 0 {
        i -= 1;
        if rest >> (32 + i) & 1 == 1 {
            rest ^= polynomial << i;
            quotient |= 1 << i;
        }
    }
    (quotient.reverse_bits() >> 63) as i64
};

/// Whether the processor can do all that is done here, and a shuffle of bytes.
pub(crate) fn can_fold() -> bool {
    is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("avx")
}

/// A checksum under way: 16 bytes that leave over what all bytes so far do.
#[derive(Clone, Copy)]
pub(crate) struct Fold(__m128i);

impl Fold {
    /// The checksum of `bytes`, a multiple of 8 and 16 or more, as one goes on that is `initial` so far.
    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    pub(crate) fn of(initial: u32, bytes: &[u8]) -> u32 {
        let words_of = |bytes: &[u8]| words(u64_at(bytes, 0), u64_at(bytes, 8));
        let (first, rest) = bytes.split_at(16);
        let mut sum = Fold::begin(initial, words_of(first));
        let (pairs, last) = rest.as_chunks::<16>();
        pairs.iter().for_each(|pair| sum.add(words_of(pair)));
        if !last.is_empty() {
            sum.add_half(words(u64_at(last, 0), 0));
        }
        sum.end()
    }

    /// Begins with 16 bytes, as a checksum goes on that is `initial` so far.
    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    pub(crate) fn begin(initial: u32, first: __m128i) -> Fold {
        Fold(_mm_xor_si128(first, _mm_cvtsi32_si128((!initial).cast_signed())))
    }

    /// Goes on with 16 bytes.
    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    pub(crate) fn add(&mut self, both: __m128i) {
        let first = _mm_clmulepi64_si128::<0x10>(self.0, high(POWER_160));
        let second = _mm_clmulepi64_si128::<0x11>(self.0, high(POWER_96));
        self.0 = _mm_xor_si128(_mm_xor_si128(first, second), both);
    }

    /// Goes on with the lower 8 bytes of `half`.
    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    pub(crate) fn add_half(&mut self, half: __m128i) {
        let first = _mm_clmulepi64_si128::<0x10>(self.0, high(POWER_96));
        self.0 = _mm_xor_si128(first, _mm_unpacklo_epi64(_mm_srli_si128::<8>(self.0), half));
    }

    /// The checksum.
    #[target_feature(enable = "pclmulqdq,avx")]
    #[inline]
    pub(crate) fn end(self) -> u32 {
        // 12 bytes that leave over the same when four zeros follow, which stand for the checksum; then those four.
        let first = _mm_clmulepi64_si128::<0x10>(self.0, high(POWER_96));
        let rest = _mm_xor_si128(first, _mm_srli_si128::<8>(self.0));
        let times = _mm_clmulepi64_si128::<0x10>(rest, high(QUOTIENT));
        let taken = _mm_clmulepi64_si128::<0x10>(times, high(WHOLE));
        !_mm_extract_epi32::<2>(_mm_xor_si128(rest, taken)).cast_unsigned()
    }
}

/// Two words, the first of them lower.
#[target_feature(enable = "pclmulqdq,avx")]
#[inline]
pub(crate) fn words(first: u64, second: u64) -> __m128i {
    _mm_set_epi64x(second.cast_signed(), first.cast_signed())
}

/// All but the first `n` of 16 bytes, with zeros behind them.
#[target_feature(enable = "pclmulqdq,avx")]
#[inline]
pub(crate) fn without_first(bytes: __m128i, n: usize) -> __m128i {
    let places = &PLACES[n..n + 16];
    _mm_shuffle_epi8(bytes, words(u64_at(places, 0), u64_at(places, 8)))
}

/// Where the bytes come from that a shuffle puts together; those from 16 on are none.
static PLACES: [u8; 32] = {
    let mut places = [0x80; 32];
    let mut i = 0;
    while i < 16 {
        places[i as usize] = i;
        i += 1;
    }
    places
};

/// A constant as the upper half, where it is loaded by who multiplies; for a lower half alone the compiler makes two
/// instructions.
#[target_feature(enable = "pclmulqdq,avx")]
#[inline]
fn high(constant: i64) -> __m128i {
    _mm_set_epi64x(constant, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition, one power at a time, and the numbers of the paper.
    #[test]
    fn the_constants_are_those_of_the_polynomial() {
        assert_eq!((POWER_160, POWER_96, WHOLE), (0x1_7519_97D0, 0xCCAA_009E, 0x1_DB71_0641));
        // The quotient times the polynomial is x to the power of 96, but for a rest of less than 33 bits: reflected, bit 0 is
        // that power and the next 63 are none.
        let quotient = QUOTIENT.cast_unsigned();
        let product = (0..64)
            .filter(|bit| quotient >> bit & 1 == 1)
            .fold(0u128, |sum, bit| sum ^ ((WHOLE as u128) << bit));
        assert_eq!(product as u64, 1);
    }
}
