//! Money as whole micro-units. No floats anywhere; arithmetic is checked; the one rounding rule is *floor, once, at the end*.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An amount in millionths of the asset (micro-USDC, or micro test credits). Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Micro(pub u64);

impl Micro {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One whole unit of the asset.
    pub const UNIT: Self = Self(1_000_000);
    /// The largest amount accepted from outside: a million million units. Sums of 18 such amounts still fit.
    pub const INPUT_MAX: Self = Self(1_000_000_000_000_000_000);

    /// The sum, or `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` if it would be negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

/// At least two decimals and all significant ones: `2.00`, `0.0021`, never rounded to zero.
impl fmt::Display for Micro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, fraction) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let digits = format!("{fraction:06}");
        let significant = digits.trim_end_matches('0').len().max(2);
        f.pad(&format!("{units}.{}", &digits[..significant]))
    }
}

/// A text that is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAmount {
    /// Not digits with an optional fraction.
    #[error("`{0}` is not an amount: write digits with at most six decimals, such as 2.00 or 0.0021")]
    NotANumber(String),
    /// A minus sign.
    #[error("`{0}` is negative: an amount must be zero or more")]
    Negative(String),
    /// More than six decimals.
    #[error("`{0}` has more than six decimals: the smallest amount is 0.000001")]
    TooFine(String),
    /// Over [`Micro::INPUT_MAX`].
    #[error("`{0}` is too large: the most is {max}", max = Micro::INPUT_MAX)]
    TooLarge(String),
}

impl FromStr for Micro {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Self, BadAmount> {
        let (units, fraction) = text.split_once('.').unwrap_or((text, ""));
        if text.starts_with('-') {
            return Err(BadAmount::Negative(text.into()));
        }
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if units.is_empty() || !all_digits(units) || !all_digits(fraction) || text.ends_with('.') {
            return Err(BadAmount::NotANumber(text.into()));
        }
        if fraction.len() > 6 {
            return Err(BadAmount::TooFine(text.into()));
        }
        let too_large = || BadAmount::TooLarge(text.into());
        let units: u64 = units.parse().map_err(|_| too_large())?;
        let fraction: u64 = format!("{fraction:0<6}").parse().expect("six digits fit");
        let micro = units.checked_mul(1_000_000).and_then(|m| m.checked_add(fraction)).ok_or_else(too_large)?;
        if micro > Self::INPUT_MAX.0 {
            return Err(too_large());
        }
        Ok(Self(micro))
    }
}

/// What the money of one journal is. Fixed when the journal is made, so that test credits can never become withdrawable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Asset {
    /// Test credits: given by the operator, worth nothing.
    Test,
    /// USD Coin.
    Usdc,
}

impl Asset {
    /// The code shown with amounts and in JSON: `TEST` or `USDC`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Test => "TEST",
            Self::Usdc => "USDC",
        }
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly_and_shown_with_every_significant_decimal() {
        for (text, micro, shown) in [
            ("2", 2_000_000, "2.00"),
            ("0.1", 100_000, "0.10"),
            ("0.0021", 2_100, "0.0021"),
            ("412.70", 412_700_000, "412.70"),
            ("0.000001", 1, "0.000001"),
            ("0", 0, "0.00"),
        ] {
            let amount: Micro = text.parse().expect(text);
            assert_eq!((amount.0, amount.to_string().as_str()), (micro, shown));
        }
        for text in
            ["", ".", "1.", ".5", "-1", "1e3", "0.0000001", "1,5", "NaN", "1000000000001", "99999999999999999999"]
        {
            assert!(text.parse::<Micro>().is_err(), "{text}");
        }
    }
}
