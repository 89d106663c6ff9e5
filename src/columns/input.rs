//! Bytes of columns being read, and how that fails.

/// Why bytes are not columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("columns hold {0}")]
pub(crate) struct ColumnsError(pub(super) &'static str);

/// Bytes being read, none of them believed.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) const SHORT: ColumnsError = ColumnsError("less than they say");

    pub(super) fn byte(&mut self) -> Result<u8, ColumnsError> {
        let (byte, rest) = self.0.split_first().ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], ColumnsError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn varint(&mut self) -> Result<u64, ColumnsError> {
        let mut v = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            v |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(v);
            }
        }
        Err(ColumnsError("a number that never ends"))
    }

    pub(super) fn len_up_to(&mut self, most: usize) -> Result<usize, ColumnsError> {
        match usize::try_from(self.varint()?) {
            Ok(len) if len <= most => Ok(len),
            _ => Err(ColumnsError("more of something than there may be")),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], ColumnsError> {
        let len = self.len_up_to(self.0.len())?;
        self.take(len)
    }
}
