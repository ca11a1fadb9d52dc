//! Five limbs of 51 bits: in lanes for words that multiply by 52 bits, and one number alone.

use crate::lanes::word::Madd52;
use crate::lanes::{Field, LANES_MAX, Packed, repeat_square, square_limbs};

pub(crate) const MASK: u64 = (1 << 51) - 1;

/// Numbers in lanes of words `W`. Every result has limbs below 2^51 + 2^15: the multiplier takes 52 bits, and two such limbs together have more. So all
/// results are reduced, however wide they might be.
#[derive(Clone, Copy)]
pub(crate) struct Field51<W>([W; 5]);

impl<W: Madd52> Field51<W> {
    /// Carries once from limbs of up to 62 bits, all at the same time.
    #[inline(always)]
    fn carry(h: [W; 5]) -> Self {
        let mask = W::splat(MASK);
        let above = h[4].shr::<51>();
        // 19 times what is above 2^255.
        let around = above.add(above.shl::<1>()).add(above.shl::<4>());
        Self([
            h[0].and(mask).add(around),
            h[1].and(mask).add(h[0].shr::<51>()),
            h[2].and(mask).add(h[1].shr::<51>()),
            h[3].and(mask).add(h[2].shr::<51>()),
            h[4].and(mask).add(h[3].shr::<51>()),
        ])
    }

    /// Puts together columns of products: lower halves count for their own limb, higher ones (from the 52nd bit on) twice for the next; what is above
    /// 2^255 counts 19 times. Columns are below 2^55, so sums are below 2^61.
    #[inline(always)]
    fn fold(low: [W; 9], high: [W; 9]) -> Self {
        let mut columns = [low[0]; 10];
        for column in 1..9 {
            columns[column] = low[column].add(high[column - 1].shl::<1>());
        }
        columns[9] = high[8].shl::<1>();
        let mut h = [low[0]; 5];
        for limb in 0..5 {
            let above = columns[limb + 5];
            h[limb] = columns[limb].add(above).add(above.shl::<1>()).add(above.shl::<4>());
        }
        Self::carry(h)
    }
}

impl<W: Madd52> Field for Field51<W> {
    const LANES: usize = W::LANES;

    #[inline(always)]
    fn pack(limbs: [u64; 5]) -> Packed {
        limbs
    }

    #[inline(always)]
    fn unpack(packed: &Packed) -> [u64; 5] {
        *packed
    }

    #[inline(always)]
    fn collect(numbers: &[&Packed; LANES_MAX]) -> Self {
        Self([
            W::collect(numbers, 0),
            W::collect(numbers, 1),
            W::collect(numbers, 2),
            W::collect(numbers, 3),
            W::collect(numbers, 4),
        ])
    }

    #[inline(always)]
    fn store(self, numbers: &mut [Packed; LANES_MAX]) {
        for limb in 0..5 {
            let mut words = [0; LANES_MAX];
            self.0[limb].store(&mut words);
            for lane in 0..W::LANES {
                numbers[lane][limb] = words[lane];
            }
        }
    }

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for limb in 0..5 {
            self.0[limb] = self.0[limb].add(other.0[limb]);
        }
        Self::carry(self.0)
    }

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for limb in 0..5 {
            // Four times the prime, limb by limb: more than any limb of the other.
            let prime = if limb == 0 { 4 * (MASK - 18) } else { 4 * MASK };
            self.0[limb] = self.0[limb].add(W::splat(prime)).sub(other.0[limb]);
        }
        Self::carry(self.0)
    }

    #[inline(always)]
    fn sub_reduced(self, other: Self) -> Self {
        self.sub(other)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(W::product(&self.0, &other.0))
    }

    #[inline(always)]
    fn square(mut self) -> Self {
        W::square_times(&mut [&mut self.0], 1);
        self
    }

    #[inline(always)]
    fn square_times(values: &mut [Self], times: usize) {
        square_limbs(values, |value| &mut value.0, |values| W::square_times(values, times));
    }
}

/// The reduced product, for [`Madd52::product`].
#[inline(always)]
pub(super) fn product<W: Madd52>(f: &[W; 5], g: &[W; 5]) -> [W; 5] {
    let zero = W::splat(0);
    let (mut low, mut high) = ([zero; 9], [zero; 9]);
    for i in 0..5 {
        for j in 0..5 {
            low[i + j] = low[i + j].madd52_low(f[i], g[j]);
            high[i + j] = high[i + j].madd52_high(f[i], g[j]);
        }
    }
    Field51::fold(low, high).0
}

/// Squares values so many times, for [`Madd52::square_times`].
#[inline(always)]
pub(super) fn square_times<W: Madd52>(values: &mut [&mut [W; 5]], times: usize) {
    repeat_square(values, times, squares);
}

/// The reduced square.
#[inline(always)]
fn squares<W: Madd52>(f: &[W; 5]) -> [W; 5] {
    let zero = W::splat(0);
    let (mut low, mut high) = ([zero; 9], [zero; 9]);
    for i in 0..5 {
        for j in i + 1..5 {
            low[i + j] = low[i + j].madd52_low(f[i], f[j]);
            high[i + j] = high[i + j].madd52_high(f[i], f[j]);
        }
    }
    for column in 1..8 {
        low[column] = low[column].shl::<1>();
        high[column] = high[column].shl::<1>();
    }
    for i in 0..5 {
        low[2 * i] = low[2 * i].madd52_low(f[i], f[i]);
        high[2 * i] = high[2 * i].madd52_high(f[i], f[i]);
    }
    Field51::fold(low, high).0
}
/// One number: what the lanes do, without them. It ends every sum, where a single point is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single([u64; 5]);

impl Single {
    fn carry(mut h: [u128; 5]) -> Self {
        for limb in 0..4 {
            h[limb + 1] += h[limb] >> 51;
            h[limb] &= u128::from(MASK);
        }
        h[0] += 19 * (h[4] >> 51);
        h[4] &= u128::from(MASK);
        h[1] += h[0] >> 51;
        h[0] &= u128::from(MASK);
        Self(h.map(|limb| limb as u64))
    }
}

impl Field for Single {
    const LANES: usize = 1;

    fn pack(limbs: [u64; 5]) -> Packed {
        limbs
    }

    fn unpack(packed: &Packed) -> [u64; 5] {
        *packed
    }

    fn collect(numbers: &[&Packed; LANES_MAX]) -> Self {
        Self(*numbers[0])
    }

    fn store(self, numbers: &mut [Packed; LANES_MAX]) {
        numbers[0] = self.0;
    }

    fn add(mut self, other: Self) -> Self {
        for limb in 0..5 {
            self.0[limb] += other.0[limb];
        }
        self
    }

    fn sub(mut self, other: Self) -> Self {
        for limb in 0..5 {
            self.0[limb] += if limb == 0 { 4 * (MASK - 18) } else { 4 * MASK };
            self.0[limb] -= other.0[limb];
        }
        self
    }

    fn sub_reduced(self, other: Self) -> Self {
        Self::carry(self.sub(other).0.map(u128::from))
    }

    fn mul(self, other: Self) -> Self {
        let (f, g) = (self.0, other.0);
        let mut h = [0u128; 5];
        for i in 0..5 {
            for j in 0..5 {
                let factor = if i + j < 5 { g[j] } else { 19 * g[j] };
                h[(i + j) % 5] += u128::from(f[i]) * u128::from(factor);
            }
        }
        Self::carry(h)
    }

    fn square(self) -> Self {
        self.mul(self)
    }
}

/// Limbs of 51 bits of a number in 32 bytes, little-endian; the highest bit is left out.
pub(crate) fn limbs(bytes: &[u8; 32]) -> [u64; 5] {
    let (words, _) = bytes.as_chunks::<8>();
    let [a, b, c, d] = [0, 1, 2, 3].map(|word| u64::from_le_bytes(words[word]));
    [
        a & MASK,
        ((a >> 51) | (b << 13)) & MASK,
        ((b >> 38) | (c << 26)) & MASK,
        ((c >> 25) | (d << 39)) & MASK,
        (d >> 12) & MASK,
    ]
}

/// The one form of a number: limbs of 51 bits, below the prime. Limbs may have up to 63 bits.
pub(crate) fn canonical(mut limbs: [u64; 5]) -> [u64; 5] {
    // Twice: what comes around the first time may carry once more.
    for _ in 0..2 {
        for limb in 0..4 {
            limbs[limb + 1] += limbs[limb] >> 51;
            limbs[limb] &= MASK;
        }
        limbs[0] += 19 * (limbs[4] >> 51);
        limbs[4] &= MASK;
    }
    // Below 2^255 + 2^51 now. The prime is taken off once if the number plus 19 reaches 2^255.
    let mut above = (limbs[0] + 19) >> 51;
    for limb in &limbs[1..] {
        above = (limb + above) >> 51;
    }
    limbs[0] += 19 * above;
    for limb in 0..4 {
        limbs[limb + 1] += limbs[limb] >> 51;
        limbs[limb] &= MASK;
    }
    limbs[4] &= MASK;
    limbs
}
