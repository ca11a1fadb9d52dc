//! Signatures from their bytes, several at once in lanes: the point of each, if it is one of the group.
//!
//! 1. y = (x³ + 4)^((p + 1) / 4), a square root if there is one: 379 squares, 80 products.
//! 2. In the group, and nowhere else on the curve, (f·x, -y) is z² times (x, y), where f is a cube root of 1 and z the parameter of the curves: f stands
//!    for an endomorphism, and z² plus its negative's has a kernel of as many points as the group has. 126 doublings and 10 additions, 508 squares and
//!    502 products.
//!
//! Additions are of points that differ, but for points outside of the group: of these some sum may be wrong, with 0 for Z. Then Z is 0 in all sums after it,
//! and the point is refused.
//!
//! Instructions of one product, all lanes together, and cycles of one lane if nothing but the ports for vectors limits:
//!
//! | | AVX2, 14 limbs of 28 bits | AVX-512 IFMA, 8 limbs of 52 |
//! | --- | --- | --- |
//! | products | 196 `vpmuludq`, 182 additions (a square: 105, 91) | 64 `vpmadd52luq`, 64 `vpmadd52huq` (a square: 36 each) |
//! | times the prime, and what it is multiplied by | 210 `vpmuludq`, 210 additions | 64 and 64, 8 `vpmadd52luq` |
//! | columns, carries | 28 shifts and masks, 28 additions | 16 shifts, 8 masks, 48 additions |
//! | all | 880 (680), 4 lanes | 340 (280), 8 lanes |
//! | ports for vectors | 3 a cycle: 73 cycles a lane (57) | 2 a cycle: 21 cycles a lane (18) |
//!
//! By this a signature takes 31,000 cycles with IFMA, 10 us at 3 GHz; that has not been measured. On a Zen 3 lanes of AVX2 took as long as blst, whose product
//! of one number takes 93 cycles of 2.45 GHz: there each column waits for what the one before it carries, and blst stays.

use crate::lanes::LANES_MAX;
use crate::lanes::mont::{Modulus, Number, PrimeField, canonical};

/// The prime of BLS12-381. It is far below R, so sums and differences need not be reduced: a product of factors that are together less than 384 wide is 1
/// wide.
#[derive(Clone, Copy)]
pub(super) struct Prime;

impl Modulus for Prime {
    const PRIME: Number = [
        0xb9fe_ffff_ffff_aaab,
        0x1eab_fffe_b153_ffff,
        0x6730_d2a0_f6b0_f624,
        0x6477_4b84_f385_12bf,
        0x4b1b_a7b6_434b_acd7,
        0x1a01_11ea_397f_e69a,
        0,
    ];
}

/// The cube root of 1.
const FACTOR: Number = [
    0x2e01_ffff_fffe_fffe,
    0xde17_d813_620a_0002,
    0xddb3_a93b_e6f8_9688,
    0xba69_c607_6a0f_77ea,
    0x5f19_672f_df76_ce51,
    0,
    0,
];

/// (p + 1) / 4: the prime is 3 modulo 4.
const ROOT_EXPONENT: Number = {
    let (mut exponent, mut word) = ([0; 7], 0);
    while word < 6 {
        exponent[word] = Prime::PRIME[word] >> 2 | Prime::PRIME[word + 1] << 62;
        word += 1;
    }
    exponent[0] += 1;
    exponent
};

/// The parameter of the curves, without its sign.
pub(super) const Z: u64 = 0xd201_0000_0001_0000;

/// X / Z² and Y / Z³. Coordinates are up to 10 wide, Z up to 2.
#[derive(Clone, Copy)]
struct Jacobian<F> {
    x: F,
    y: F,
    z: F,
}

impl<F: PrimeField> Jacobian<F> {
    /// Points that are 0 for Z stay so.
    #[inline(always)]
    fn doubled(self) -> Self {
        let (xx, yy) = (self.x.square(), self.y.square());
        let xyy = self.x.mul(yy);
        let slope = xx.times::<3>();
        let x = slope.square().sub_times::<8, 9>(xyy);
        let y = slope.mul(xyy.times::<4>().sub::<11>(x)).sub_times::<8, 9>(yy.square());
        Self { x, y, z: self.y.mul(self.z).times::<2>() }
    }

    #[inline(always)]
    fn plus(self, other: &Addend<F>) -> Self {
        let zz = self.z.square();
        let (mut x, mut y, mut z) = (self.x, self.y, self.z);
        if let Some([z_other, zz_other, zzz_other]) = other.z {
            (x, y, z) = (x.mul(zz_other), y.mul(zzz_other), z.mul(z_other));
        }
        let across = other.x.mul(zz).sub::<11>(x);
        let up = other.y.mul(self.z.mul(zz)).sub::<11>(y);
        let square = across.square();
        let cube = across.mul(square);
        let middle = x.mul(square);
        let x = up.square().sub::<2>(cube).sub_times::<2, 3>(middle);
        let y = up.mul(middle.sub::<7>(x)).sub::<2>(y.mul(cube));
        Self { x, y, z: z.mul(across) }
    }

    /// z² times the point, whose Z is 1.
    #[inline(always)]
    fn times_z_squared(self) -> Self {
        let mut product = self;
        for is_affine in [true, false] {
            let zz = product.z.square();
            let z = (!is_affine).then(|| [product.z, zz, zz.mul(product.z)]);
            let addend = Addend { x: product.x, y: product.y, z };
            for bit in (0..Z.ilog2()).rev() {
                product = product.doubled();
                if Z >> bit & 1 == 1 {
                    product = product.plus(&addend);
                }
            }
        }
        product
    }
}

/// A point to add: with 1 for Z, or with Z, its square and its cube.
struct Addend<F> {
    x: F,
    y: F,
    z: Option<[F; 3]>,
}

/// Digits of the exponent are odd and of so many bits, with zeros between them.
const WINDOW: usize = 5;

/// A square root where there is one.
#[inline(always)]
fn root<F: PrimeField>(number: F) -> F {
    let square = number.square();
    let mut powers = [number; 1 << (WINDOW - 1)];
    for at in 1..powers.len() {
        powers[at] = powers[at - 1].mul(square);
    }
    let bit = |at: usize| ROOT_EXPONENT[at / 64] >> (at % 64) & 1;
    let mut root: Option<F> = None;
    let mut end = Prime::PRIME.len() * 64;
    while end > 0 {
        // What begins with a one: a digit, up to its last one.
        let mut begin = end - 1;
        let mut digit = bit(begin);
        if digit == 1 {
            begin = end.saturating_sub(WINDOW);
            while bit(begin) == 0 {
                begin += 1;
            }
            digit = (begin..end).rev().fold(0, |digit, at| digit << 1 | bit(at));
        }
        for _ in begin..end {
            root = root.map(F::square);
        }
        if digit != 0 {
            let power = powers[digit as usize / 2];
            root = Some(root.map_or(power, |root| root.mul(power)));
        }
        end = begin;
    }
    root.expect("the exponent is not 0")
}

/// What a signature's bytes say.
struct Encoding {
    x: Number,
    /// Whether y is the greater of both.
    is_greater: bool,
}

impl Encoding {
    /// `None`: not compressed, the identity, or an x that is not below the prime.
    fn of(bytes: &[u8; 48]) -> Option<Self> {
        let flags = bytes[0] >> 5;
        let (words, _) = bytes.as_chunks::<8>();
        let mut x: Number = std::array::from_fn(|word| if word < 6 { u64::from_be_bytes(words[5 - word]) } else { 0 });
        x[5] &= u64::MAX >> 3;
        (flags & 0b110 == 0b100 && is_below(&x, &Prime::PRIME)).then_some(Self { x, is_greater: flags & 1 == 1 })
    }
}

fn is_below(a: &Number, b: &Number) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

/// The points of the group that are encoded so, without the identity: both coordinates, big-endian. `None`: no such point.
#[inline(always)]
pub(super) fn points<F: PrimeField>(encodings: &[&[u8; 48]], points: &mut [Option<[u8; 96]>]) {
    assert_eq!(encodings.len(), points.len(), "one place for each");
    let read: Vec<(usize, Encoding)> =
        encodings.iter().enumerate().filter_map(|(at, bytes)| Some((at, Encoding::of(bytes)?))).collect();
    points.fill(None);
    for some in read.chunks(F::LANES) {
        let encoded: [Number; LANES_MAX] = std::array::from_fn(|lane| some.get(lane).map_or([0; 7], |(_, of)| of.x));
        let (roots, is_point) = check::<F>(&encoded);
        for (lane, (at, encoding)) in some.iter().enumerate() {
            points[*at] = is_point[lane].then(|| encoding.with(&roots[lane]));
        }
    }
}

impl Encoding {
    /// The coordinates, where y is this or its negative; it is not 0.
    fn with(&self, y: &Number) -> [u8; 96] {
        let mut negative = [0; 7];
        let mut borrow = 0;
        for (word, negative) in negative.iter_mut().enumerate() {
            borrow += i128::from(Prime::PRIME[word]) - i128::from(y[word]);
            *negative = borrow as u64;
            borrow >>= 64;
        }
        let y = if is_below(&negative, y) == self.is_greater { *y } else { negative };
        let mut bytes = [0; 96];
        for (number, bytes) in [self.x, y].iter().zip(bytes.as_chunks_mut::<48>().0) {
            for (word, bytes) in number.iter().rev().skip(1).zip(bytes.as_chunks_mut::<8>().0) {
                *bytes = word.to_be_bytes();
            }
        }
        bytes
    }
}

/// For each x a y, and whether they are a point of the group.
#[inline(always)]
fn check<F: PrimeField>(encoded: &[Number; LANES_MAX]) -> ([Number; LANES_MAX], [bool; LANES_MAX]) {
    let packed = encoded.each_ref().map(F::pack);
    let form = F::splat(&F::TO_FORM);
    let x = F::collect(&packed.each_ref()).mul(form);
    let one = F::splat(&F::ONE);
    let cube = x.square().mul(x).add(one.times::<4>());
    let y = root(cube);
    let is_no_root = y.square().sub::<6>(cube);

    let product = Jacobian { x, y, z: one }.times_z_squared();
    let zz = product.z.square();
    let x_differs = product.x.sub::<2>(x.mul(F::splat(&FACTOR).mul(form)).mul(zz));
    let y_differs = product.y.add(y.mul(zz.mul(product.z)));

    // Out of Montgomery's form, and below twice the prime.
    let plain = F::splat(&[1, 0, 0, 0, 0, 0, 0]);
    let numbers = |value: F| {
        let mut stored = packed;
        value.mul(plain).store(&mut stored);
        stored.map(|number| canonical::<Prime>(F::unpack(&number)))
    };
    let zero = [0; 7];
    let [is_no_root, x_differs, y_differs, z] =
        [is_no_root, x_differs, y_differs, product.z].map(|value| numbers(value).map(|number| number != zero));
    let is_point = std::array::from_fn(|lane| !is_no_root[lane] && z[lane] && !x_differs[lane] && !y_differs[lane]);
    (numbers(y), is_point)
}
