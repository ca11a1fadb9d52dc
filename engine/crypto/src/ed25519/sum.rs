//! Sums of points, each times its number, by buckets (Pippenger) in lanes.
//!
//! 1. A number is written in digits of `c` bits, from -2^(c-1) to 2^(c-1): digit j belongs to window j.
//! 2. In each window, a point belongs to the bucket of its digit's amount; the digit's sign chooses the point or its negative. A lane adds up a bucket,
//!    all lanes buckets that have about as many points: their sums stay in registers and only points are collected from memory.
//! 3. In each lane, one window's buckets become `Σ amount · bucket` by running sums from the top: `Σ over amounts of (sum of all buckets not below)`.
//! 4. The windows' sums become one by Horner's rule, as a single point.
//!
//! The numbers of bits that a number has is known: coefficients have 128, so their points take part in half of the windows.

use crate::ed25519::point::{Addend, D, Point, Stored, ZERO, is_small_order, neutral};
use crate::ed25519::scalar::Words;
use crate::lanes::{Field, LANES_MAX, Packed, Single};

/// A point times a number.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// Which of the points.
    pub point: u32,
    /// Below 2^253.
    pub number: Words,
    /// Bits of the number that may be set.
    pub bits: u32,
}

/// Widest digit: 2^12 buckets of 160 bytes a window, with eight windows at a time 5 MiB.
const DIGIT_BITS_MAX: u32 = 13;

/// Windows of digits of `c` bits for numbers of so many: the last one takes the carry, too.
fn windows(bits: u32, c: u32) -> usize {
    (bits as usize + 1).div_ceil(c as usize)
}

/// The digit width that takes the fewest operations: 7 for each point in each window, and 18 for each bucket of those, which lanes share.
fn digit_bits<F: Field>(products: &[Product]) -> u32 {
    let long = products.iter().filter(|product| product.bits > 128).count();
    let bits = products.iter().map(|product| product.bits).max().unwrap_or(0);
    let cost = |c: u32| {
        let additions = long * windows(bits, c) + (products.len() - long) * windows(128, c);
        // A window that no other lane accompanies costs as much as one that all do.
        let buckets = windows(bits, c).next_multiple_of(F::LANES) << (c - 1);
        7 * additions + 18 * buckets
    };
    (2..=DIGIT_BITS_MAX).min_by_key(|c| cost(*c)).unwrap_or(2)
}

/// Whether eight times the sum of the products is the neutral element.
#[inline(always)]
pub(super) fn sum_is_small_order<F: Field>(points: &[Addend], products: &[Product]) -> bool {
    let c = digit_bits::<F>(products);
    let bits = products.iter().map(|product| product.bits).max().unwrap_or(0);
    let count = windows(bits, c);
    let digits = Digits::of(products, c, count);
    let mut sums = vec![[ZERO; 4]; count];
    let mut buckets: Vec<Stored> = vec![[ZERO; 4]; F::LANES << (c - 1)];
    let mut order = Order::new(c);
    for (group, sums) in sums.chunks_mut(F::LANES).enumerate() {
        for (lane, _) in sums.iter().enumerate() {
            let window = group * F::LANES + lane;
            order.sort(digits.window(window), products);
            fill_buckets::<F>(points, &order, &mut buckets[lane << (c - 1)..][..1 << (c - 1)]);
        }
        add_buckets::<F>(&buckets, c, sums);
    }
    let mut sum = Point::<Single>::neutral();
    for window in sums.iter().rev() {
        for _ in 0..c {
            sum = sum.double();
        }
        let [x, y, z, t] = window.map(|coordinate| Single::splat(F::unpack(&coordinate)));
        sum = sum.add(Point { x, y, z, t }, twice_d());
    }
    is_small_order(sum)
}

/// 2d.
#[inline(always)]
fn twice_d<F: Field>() -> F {
    let d = F::splat(D);
    d.add(d).sub_reduced(F::splat(ZERO))
}

/// Digits of all numbers, window by window.
struct Digits {
    digits: Vec<i16>,
    products: usize,
}

impl Digits {
    fn of(products: &[Product], c: u32, windows: usize) -> Self {
        let mut digits = vec![0; windows * products.len()];
        let half = 1 << (c - 1);
        for (at, product) in products.iter().enumerate() {
            let words = &product.number;
            let mut carry = 0;
            for window in 0..self::windows(product.bits, c) {
                let (word, shift) = (window * c as usize / 64, window * c as usize % 64);
                let low = words.get(word).map_or(0, |word| word >> shift);
                let high = if shift == 0 { 0 } else { words.get(word + 1).map_or(0, |word| word << (64 - shift)) };
                let digit = ((low | high) & ((1 << c) - 1)) as i32 + carry;
                carry = i32::from(digit > half);
                digits[window * products.len() + at] = (digit - (carry << c)) as i16;
            }
            assert_eq!(carry, 0, "the last window takes the carry");
        }
        Self { digits, products: products.len() }
    }

    fn window(&self, window: usize) -> &[i16] {
        &self.digits[window * self.products..][..self.products]
    }
}

/// The points of one window, bucket by bucket, and buckets by the number of their points.
struct Order {
    /// Twice the point's place, plus one for its negative.
    points: Vec<u32>,
    /// Where each bucket's points begin, and where the last one's end.
    begins: Vec<u32>,
    /// Those with most points first.
    buckets: Vec<u32>,
    /// How many buckets have so many points, or more.
    lengths: Vec<u32>,
}

impl Order {
    fn new(c: u32) -> Self {
        let buckets = 1 << (c - 1);
        Self { points: Vec::new(), begins: vec![0; buckets + 1], buckets: vec![0; buckets], lengths: Vec::new() }
    }

    fn length(&self, bucket: u32) -> u32 {
        self.begins[bucket as usize + 1] - self.begins[bucket as usize]
    }

    /// Sorts by counting. The bucket of amount a is number a - 1.
    fn sort(&mut self, digits: &[i16], products: &[Product]) {
        self.begins.fill(0);
        for digit in digits {
            let amount = digit.unsigned_abs() as usize;
            self.begins[amount] += 1;
        }
        // Nobody is in the bucket of zero. From counts to ends.
        self.begins[0] = 0;
        let mut longest = 0;
        for at in 1..self.begins.len() {
            longest = longest.max(self.begins[at]);
            self.begins[at] += self.begins[at - 1];
        }
        let total = self.begins[self.begins.len() - 1];
        self.points.clear();
        self.points.resize(total as usize, 0);
        // Each bucket is filled from its end: then ends have become begins.
        for (digit, product) in digits.iter().zip(products) {
            let amount = digit.unsigned_abs() as usize;
            if amount != 0 {
                let end = &mut self.begins[amount];
                *end -= 1;
                self.points[*end as usize] = 2 * product.point + u32::from(*digit < 0);
            }
        }
        // begins[amount] is where bucket `amount` begins: shift to where bucket number amount - 1 does.
        self.begins.copy_within(1.., 0);
        let last = self.begins.len() - 1;
        self.begins[last] = total;
        // Buckets by length, longest first: counted from above.
        self.lengths.clear();
        self.lengths.resize(longest as usize + 2, 0);
        for bucket in 0..last {
            let length = self.length(bucket as u32) as usize;
            self.lengths[longest as usize + 1 - length] += 1;
        }
        let mut sum = 0;
        for length in &mut self.lengths {
            let count = *length;
            *length = sum;
            sum += count;
        }
        for bucket in 0..last {
            let length = self.length(bucket as u32) as usize;
            let place = &mut self.lengths[longest as usize + 1 - length];
            self.buckets[*place as usize] = bucket as u32;
            *place += 1;
        }
    }
}

/// Adds up the points of each bucket.
#[inline(always)]
fn fill_buckets<F: Field>(points: &[Addend], order: &Order, sums: &mut [Stored]) {
    let d2 = twice_d::<F>();
    let none = neutral::<F>();
    for buckets in order.buckets.chunks(F::LANES) {
        let mut of_lane: [&[u32]; LANES_MAX] = [&[]; LANES_MAX];
        for (lane, bucket) in buckets.iter().enumerate() {
            let (begin, end) = (order.begins[*bucket as usize], order.begins[*bucket as usize + 1]);
            of_lane[lane] = &order.points[begin as usize..end as usize];
        }
        let mut sum = Point::<F>::neutral();
        // The first has most points.
        for at in 0..of_lane[0].len() {
            let mut y_plus_x = [&none[0]; LANES_MAX];
            let mut y_minus_x = [&none[1]; LANES_MAX];
            let mut t2d = [&none[2]; LANES_MAX];
            for lane in 0..F::LANES {
                if let Some(point) = of_lane[lane].get(at) {
                    let (addend, negative) = (&points[(point / 2) as usize], (point & 1) as usize);
                    y_plus_x[lane] = &addend[negative];
                    y_minus_x[lane] = &addend[1 - negative];
                    t2d[lane] = &addend[2 + negative];
                }
            }
            sum = sum.add_affine(F::collect(&y_plus_x), F::collect(&y_minus_x), F::collect(&t2d));
        }
        let mut coordinates = [[ZERO; LANES_MAX]; 4];
        let [y_plus_x, y_minus_x, z2, t2d] = sum.to_add(d2);
        y_plus_x.store(&mut coordinates[0]);
        y_minus_x.store(&mut coordinates[1]);
        z2.store(&mut coordinates[2]);
        t2d.store(&mut coordinates[3]);
        for (lane, bucket) in buckets.iter().enumerate() {
            sums[*bucket as usize] =
                [coordinates[0][lane], coordinates[1][lane], coordinates[2][lane], coordinates[3][lane]];
        }
    }
}

/// Sums up the buckets of as many windows as there are lanes, each bucket times its amount: to `sums`, as X, Y, Z, T.
#[inline(always)]
fn add_buckets<F: Field>(buckets: &[Stored], c: u32, sums: &mut [[Packed; 4]]) {
    let d2 = twice_d::<F>();
    let (mut running, mut total) = (Point::<F>::neutral(), Point::<F>::neutral());
    for amount in (0..1usize << (c - 1)).rev() {
        // Lanes without a window repeat the first one's.
        let mut from: [&Stored; LANES_MAX] = [&buckets[amount]; LANES_MAX];
        for lane in 0..sums.len() {
            from[lane] = &buckets[(lane << (c - 1)) + amount];
        }
        let [y_plus_x, y_minus_x, z2, t2d] =
            [coordinate::<F>(&from, 0), coordinate(&from, 1), coordinate(&from, 2), coordinate(&from, 3)];
        running = running.add_stored(y_plus_x, y_minus_x, z2, t2d);
        total = total.add(running, d2);
    }
    let mut coordinates = [[ZERO; LANES_MAX]; 4];
    total.store(&mut coordinates);
    for (lane, sum) in sums.iter_mut().enumerate() {
        *sum = [coordinates[0][lane], coordinates[1][lane], coordinates[2][lane], coordinates[3][lane]];
    }
}

#[inline(always)]
fn coordinate<F: Field>(from: &[&Stored; LANES_MAX], at: usize) -> F {
    let [a, b, c, d, e, f, g, h] = from;
    F::collect(&[&a[at], &b[at], &c[at], &d[at], &e[at], &f[at], &g[at], &h[at]])
}
