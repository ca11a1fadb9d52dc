//! Numbers with their unit in the type.
//!
//! Enters: nothing. Leaves: newtypes that convert by name. Never here: arithmetic that wraps.

use std::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub $inner);

        impl $name {
            /// Zero of this unit.
            pub const ZERO: Self = Self(0);
            /// Largest representable amount.
            pub const MAX: Self = Self(<$inner>::MAX);

            /// The sum, or `None` when it does not fit.
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) { Some(v) => Some(Self(v)), None => None }
            }
            /// The difference, or `None` when it would be negative.
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) { Some(v) => Some(Self(v)), None => None }
            }
            /// The sum, at most [`Self::MAX`].
            pub const fn saturating_add(self, other: Self) -> Self { Self(self.0.saturating_add(other.0)) }
            /// The difference, at least zero.
            pub const fn saturating_sub(self, other: Self) -> Self { Self(self.0.saturating_sub(other.0)) }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    };
}

unit!(
    /// Cycles, the unit of payment. 10^12 cycles cost one XDR.
    Cycles(u128)
);
unit!(
    /// Wasm instructions as the metering counts them.
    Instructions(u64)
);
unit!(
    /// Bytes.
    Bytes(u64)
);
unit!(
    /// Wasm pages of 64 KiB.
    WasmPages(u64)
);
unit!(
    /// Height of a block, and so of a batch.
    Height(u64)
);
unit!(
    /// Version of the registry.
    RegistryVersion(u64)
);
unit!(
    /// Whole seconds of duration.
    Seconds(u64)
);
unit!(
    /// Nanoseconds since 1970-01-01, the only clock of the Replicated world: it comes with the batch.
    Time(u64)
);

impl WasmPages {
    /// Size of one page in bytes.
    pub const BYTES: u64 = 65_536;

    /// Bytes in these pages; saturates.
    pub const fn to_bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(Self::BYTES))
    }
}

impl Seconds {
    /// Nanoseconds in this duration; saturates.
    pub const fn to_nanos(self) -> u64 {
        self.0.saturating_mul(1_000_000_000)
    }
}

impl Time {
    /// This time plus a duration; saturates at the end of time.
    pub const fn plus(self, duration: Seconds) -> Self {
        Self(self.0.saturating_add(duration.to_nanos()))
    }
    /// Nanoseconds from `earlier` until this time; zero when it is not later.
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
    /// Whole seconds since 1970, rounded down.
    pub const fn to_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }
}

impl Cycles {
    /// The fee for `count` units at this price; saturates, as the specification's cycles do.
    pub const fn times(self, count: u128) -> Self {
        Self(self.0.saturating_mul(count))
    }
    /// The quotient, rounded down. Cost: that of 64 bits where the amount fits, some tens of nanoseconds less than of 128.
    #[inline]
    pub const fn over(self, divisor: u64) -> Self {
        if self.0 <= u64::MAX as u128 {
            Self((self.0 as u64 / divisor) as u128)
        } else {
            Self(self.0 / divisor as u128)
        }
    }
    /// Adds `amount` as far as it fits and returns what is lost. Spec: cycles saturate; whoever keeps accounts counts the rest as burned.
    #[must_use = "what does not fit is burned"]
    pub fn put(&mut self, amount: Self) -> Self {
        let before = *self;
        *self = before.saturating_add(amount);
        Self(amount.0 - (self.0 - before.0))
    }
    /// Takes up to `amount` out of `self` and returns what was taken.
    pub fn take(&mut self, amount: Self) -> Self {
        let taken = (*self).min(amount);
        self.0 -= taken.0;
        taken
    }
}

impl std::iter::Sum for Cycles {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_128_bits() {
        let edge = u128::from(u64::MAX);
        for amount in [0, 1, 12, 13, edge - 1, edge, edge + 1, u128::MAX] {
            for divisor in [1, 13, 86_400, 1_000_000_000, u64::MAX] {
                assert_eq!(Cycles(amount).over(divisor).0, amount / u128::from(divisor), "{amount} / {divisor}");
            }
        }
    }
}
