//! Exact decimals: what a price, a size, and a sum of their products need, and no more.

use std::cmp::Ordering;
use std::fmt;

/// `units / 10^scale`.
///
/// A text has at most 18 digits (leading zeros aside) and 18 places, so a product of two fits; sums are
/// checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal {
    units: i128,
    scale: u32,
}

impl Decimal {
    pub(crate) const ZERO: Decimal = Decimal { units: 0, scale: 0 };
    const MAX_DIGITS: u32 = 18;
    const LIMIT: i128 = 10i128.pow(Self::MAX_DIGITS);

    /// Reads `-?digits` with at most one point among the digits; no exponent, no `+`, no spaces.
    pub(crate) fn parse(text: &str) -> Option<Decimal> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (mut units, mut scale, mut some, mut point) = (0i128, 0u32, false, false);
        for b in digits.bytes() {
            match b {
                b'0'..=b'9' => {
                    units = units * 10 + i128::from(b - b'0');
                    some = true;
                    scale += u32::from(point);
                    if units >= Self::LIMIT || scale > Self::MAX_DIGITS {
                        return None;
                    }
                }
                b'.' if !point => point = true,
                _ => return None,
            }
        }
        let negative = digits.len() < text.len();
        some.then_some(Decimal { units: if negative { -units } else { units }, scale })
    }

    pub(crate) fn is_negative(self) -> bool {
        self.units < 0
    }

    pub(crate) fn is_zero(self) -> bool {
        self.units == 0
    }

    /// The units at a scale that is not smaller than this one's.
    fn units_at(self, scale: u32) -> Option<i128> {
        self.units.checked_mul(10i128.checked_pow(scale - self.scale)?)
    }

    pub(crate) fn checked_add(self, other: Decimal) -> Option<Decimal> {
        let scale = self.scale.max(other.scale);
        Some(Decimal { units: self.units_at(scale)?.checked_add(other.units_at(scale)?)?, scale })
    }

    pub(crate) fn checked_mul(self, other: Decimal) -> Option<Decimal> {
        Some(Decimal { units: self.units.checked_mul(other.units)?, scale: self.scale + other.scale })
    }

    /// `self / other`, rounded half away from zero to `scale` places.
    pub(crate) fn divide(self, other: Decimal, scale: u32) -> Option<Decimal> {
        let up = (scale + other.scale).checked_sub(self.scale);
        let (dividend, divisor) = match up {
            Some(up) => (self.units.checked_mul(10i128.checked_pow(up)?)?, other.units),
            None => {
                let down = self.scale - scale - other.scale;
                (self.units, other.units.checked_mul(10i128.checked_pow(down)?)?)
            }
        };
        let quotient = dividend.checked_div(divisor)?;
        let rest = dividend % divisor;
        let away = rest.unsigned_abs() >= divisor.unsigned_abs() - rest.unsigned_abs();
        let sign = if (dividend < 0) == (divisor < 0) { 1 } else { -1 };
        Some(Decimal { units: quotient + if away { sign } else { 0 }, scale })
    }

    pub(crate) fn scale(self) -> u32 {
        self.scale
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    /// By value: `1.50` equals `1.5`.
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale {
            return self.units.cmp(&other.units);
        }
        let scale = self.scale.max(other.scale);
        match (self.units_at(scale), other.units_at(scale)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // Only the larger side can overflow: the smaller scale's, since the other is not multiplied.
            (None, _) => self.units.cmp(&0),
            (_, None) => 0.cmp(&other.units),
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = 10u128.checked_pow(self.scale).ok_or(fmt::Error)?;
        let units = self.units.unsigned_abs();
        let text = if self.scale == 0 {
            units.to_string()
        } else {
            format!("{}.{:0width$}", units / one, units % one, width = self.scale as usize)
        };
        f.pad_integral(self.units >= 0, "", &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Decimal {
        Decimal::parse(text).expect(text)
    }

    #[test]
    fn keeps_its_text() {
        for text in ["0", "4799.00", "1.121200", "-12.5", "0.000263", "123456789012345678"] {
            assert_eq!(d(text).to_string(), text);
        }
        for text in [
            "",
            "-",
            ".",
            "1e5",
            "+1",
            "1,5",
            "1.2.3",
            " 1",
            "NaN",
            "--1",
            "1234567890123456789",
            "0.0000000000000000001",
        ] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
        assert_eq!(d(".5"), d("0.50"));
        assert_eq!(d("5."), d("5"));
    }

    #[test]
    fn computes_exactly() {
        assert_eq!(d("0.1").checked_add(d("0.2")), Some(d("0.3")));
        assert_eq!(d("39432.48").checked_mul(d("0.000263")), Some(d("10.37074224")));
        assert!(d("-1") < d("0.5") && d("2") > d("1.99") && d("1.50") == d("1.5"));
        let huge = d("999999999999999999").checked_mul(d("999999999999999999")).expect("36 digits");
        assert!(huge > d("0.000000000000000001") && d("0.000000000000000001") < huge);
        assert!(huge.checked_mul(d("999")).is_none());
    }

    #[test]
    fn divides_with_rounding() {
        let at = |a: &str, b: &str, scale| d(a).divide(d(b), scale).expect("a quotient").to_string();
        assert_eq!(at("10", "4", 2), "2.50");
        assert_eq!(at("2", "3", 4), "0.6667");
        assert_eq!(at("1", "3", 4), "0.3333");
        assert_eq!(at("1", "2", 0), "1");
        assert_eq!(at("-1", "2", 0), "-1");
        assert_eq!(at("0.00012345", "1", 2), "0.00");
        assert!(d("1").divide(Decimal::ZERO, 2).is_none());
    }
}
