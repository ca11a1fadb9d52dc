//! Numbers of 256 bits modulo a prime, as far as constants of shaders need them.

/// The lowest word first.
pub type Words = [u32; 8];

/// A number of 64 hexadecimal digits. Panics: if it is none; it is a constant of this crate.
pub(crate) const fn hex(text: &str) -> Words {
    let text = text.as_bytes();
    assert!(text.len() == 64, "256 bits");
    let mut words = [0; 8];
    let mut at = 0;
    while at < 64 {
        let digit = match text[at] {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            _ => panic!("a hexadecimal digit"),
        };
        let word = 7 - at / 8;
        words[word] = words[word] << 4 | digit as u32;
        at += 1;
    }
    words
}

/// `a + b` without what is above 256 bits, and whether there is something.
fn add(a: &Words, b: &Words) -> (Words, bool) {
    let mut sum = [0; 8];
    let mut carry = false;
    for at in 0..8 {
        (sum[at], carry) = a[at].carrying_add(b[at], carry);
    }
    (sum, carry)
}

fn subtract(a: &Words, b: &Words) -> (Words, bool) {
    let mut difference = [0; 8];
    let mut borrow = false;
    for at in 0..8 {
        (difference[at], borrow) = a[at].borrowing_sub(b[at], borrow);
    }
    (difference, borrow)
}

/// `a + b` modulo the prime; both are below it.
pub(crate) fn add_modulo(a: &Words, b: &Words, prime: &Words) -> Words {
    let (sum, over) = add(a, b);
    let (less, under) = subtract(&sum, prime);
    if over || !under { less } else { sum }
}

#[cfg(test)]
pub(crate) fn subtract_modulo(a: &Words, b: &Words, prime: &Words) -> Words {
    let (difference, under) = subtract(a, b);
    if under { add(&difference, prime).0 } else { difference }
}

#[cfg(test)]
pub(crate) fn multiply_modulo(a: &Words, b: &Words, prime: &Words) -> Words {
    (0..256).rev().fold([0; 8], |sum, bit| {
        let twice = add_modulo(&sum, &sum, prime);
        if a[bit / 32] >> (bit % 32) & 1 == 1 { add_modulo(&twice, b, prime) } else { twice }
    })
}

/// `number * 2^times` modulo the prime.
pub(crate) fn double_times(number: &Words, times: u32, prime: &Words) -> Words {
    (0..times).fold(*number, |number, _| add_modulo(&number, &number, prime))
}

/// `2^bits - number` for a number below that.
pub(crate) fn up_to_power(number: &Words, bits: u32) -> Words {
    let power = if bits == 256 {
        [0; 8]
    } else {
        let mut power = [0; 8];
        power[bits as usize / 32] = 1 << (bits % 32);
        power
    };
    subtract(&power, number).0
}

/// Limbs of so many bits, the lowest first.
pub(crate) fn limbs(number: &Words, bits: u32, count: u32) -> Vec<u32> {
    let limb = |at: u32| {
        let bit = |n: u32| number.get(n as usize / 32).map_or(0, |word| word >> (n % 32) & 1);
        (0..bits).fold(0, |limb, n| limb | bit(at * bits + n) << n)
    };
    (0..count).map(limb).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIME: Words = hex("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed");

    #[test]
    fn powers_of_two_wrap_round() {
        let one = hex("0000000000000000000000000000000000000000000000000000000000000001");
        let mut round = [0; 8];
        round[0] = 608;
        assert_eq!(double_times(&one, 260, &PRIME), round);
        round[0] = 19;
        assert_eq!(up_to_power(&PRIME, 255), round);
        assert_eq!(double_times(&one, 255, &PRIME), round);
    }

    #[test]
    fn limbs_add_up() {
        for (bits, count) in [(13, 20), (26, 10)] {
            let limbs = limbs(&PRIME, bits, count);
            assert!(limbs.iter().all(|limb| *limb < 1 << bits));
            let sum = limbs.iter().rev().fold([0; 8], |sum, limb| {
                let mut shifted = (0..bits).fold(sum, |sum, _| add(&sum, &sum).0);
                shifted[0] |= limb;
                shifted
            });
            assert_eq!(sum, PRIME);
        }
    }
}
