//! Integers in bytes, little-endian, at fixed places: what every header on disk is written and read with.
//!
//! A place outside of the bytes is a bug of the caller's, who knows how long they are, and panics.

/// Puts `bytes` at `at`.
#[inline]
pub(crate) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

#[inline]
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(crate) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_got() {
        let mut bytes = [0; 24];
        put(&mut bytes, 1, &0x0102u16.to_le_bytes());
        put(&mut bytes, 3, &0x0304_0506u32.to_le_bytes());
        put(&mut bytes, 7, &u64::MAX.to_le_bytes());
        put(&mut bytes, 15, &(-2i64).to_le_bytes());
        assert_eq!(bytes[..4], [0, 2, 1, 6]);
        assert_eq!((u16_at(&bytes, 1), u32_at(&bytes, 3)), (0x0102, 0x0304_0506));
        assert_eq!((u64_at(&bytes, 7), i64_at(&bytes, 15)), (u64::MAX, -2));
    }
}
