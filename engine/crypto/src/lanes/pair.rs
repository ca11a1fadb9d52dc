//! Two values side by side: where each operation waits for the one before it (a long power), the second hides the first one's waiting.

use crate::lanes::{Field, LANES_MAX, Packed};

/// Twice the lanes, of which there may be [`LANES_MAX`].
#[derive(Clone, Copy)]
pub(crate) struct Pair<F>(F, F);

impl<F: Field> Field for Pair<F> {
    const LANES: usize = 2 * F::LANES;

    #[inline(always)]
    fn pack(limbs: [u64; 5]) -> Packed {
        F::pack(limbs)
    }

    #[inline(always)]
    fn unpack(packed: &Packed) -> [u64; 5] {
        F::unpack(packed)
    }

    #[inline(always)]
    fn collect(numbers: &[&Packed; LANES_MAX]) -> Self {
        const { assert!(Self::LANES <= LANES_MAX) };
        let mut others = *numbers;
        others.rotate_left(F::LANES);
        Self(F::collect(numbers), F::collect(&others))
    }

    #[inline(always)]
    fn store(self, numbers: &mut [Packed; LANES_MAX]) {
        self.1.store(numbers);
        numbers.copy_within(..F::LANES, F::LANES);
        self.0.store(numbers);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.add(other.0), self.1.add(other.1))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0.sub(other.0), self.1.sub(other.1))
    }

    #[inline(always)]
    fn sub_reduced(self, other: Self) -> Self {
        Self(self.0.sub_reduced(other.0), self.1.sub_reduced(other.1))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0.mul(other.0), self.1.mul(other.1))
    }

    #[inline(always)]
    fn square(self) -> Self {
        Self(self.0.square(), self.1.square())
    }

    #[inline(always)]
    fn square_times(values: &mut [Self], times: usize) {
        for value in values {
            let mut both = [value.0, value.1];
            F::square_times(&mut both, times);
            [value.0, value.1] = both;
        }
    }
}
