//! The curves of ECDSA: y² = x³ + a·x + b, points as X, Y and Z with x = X / Z and y = Y / Z, zero as (0, 1, 0).
//!
//! Sums are the complete ones of Renes, Costello and Batina, "Complete addition formulas for prime order elliptic curves" (2016), algorithms 4, 7 and 9.

use crate::code::{add, mul, sub};
use crate::field::Field;
use crate::number::{Words, double_times, hex};

/// The sum, and the point that is doubled.
const X: u32 = 0;
const Y: u32 = 1;
const Z: u32 = 2;
/// The second operand of a sum: X, Y and Z.
const SECOND: u32 = 3;
/// What formulas keep, and what is compared.
const KEPT: u32 = 6;
const LEFT: u32 = 14;
const RIGHT: u32 = 15;
const FIRST_CONSTANT: u32 = 16;
const ZERO: u32 = FIRST_CONSTANT;
const ONE: u32 = FIRST_CONSTANT + 1;
/// What makes the form that products take.
const FORM: u32 = FIRST_CONSTANT + 2;
const A: u32 = FIRST_CONSTANT + 3;
const B: u32 = FIRST_CONSTANT + 4;
const B3: u32 = FIRST_CONSTANT + 5;
pub(crate) const REGISTERS: u32 = FIRST_CONSTANT + 6;

const P256_PRIME: Words = hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
const P256_A: Words = hex("ffffffff00000001000000000000000000000000fffffffffffffffffffffffc");
const P256_B: Words = hex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b");
const SECP256K1_PRIME: Words = hex("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f");

const fn small(number: u32) -> Words {
    [number, 0, 0, 0, 0, 0, 0, 0]
}

pub(crate) fn p256() -> Field {
    let b3 = crate::number::add_modulo(&P256_B, &crate::number::add_modulo(&P256_B, &P256_B, &P256_PRIME), &P256_PRIME);
    let sum = |second| sum_minus_3(second);
    field(P256_PRIME, [P256_A, P256_B, b3], sum(SECOND), sum(X))
}

pub(crate) fn secp256k1() -> Field {
    field(SECP256K1_PRIME, [small(0), small(7), small(21)], sum_0(), double_0())
}

fn field(prime: Words, [a, b, b3]: [Words; 3], sum: Vec<u32>, double: Vec<u32>) -> Field {
    let difference = [&[sub(SECOND + 1, ZERO, SECOND + 1)], &sum[..]].concat();
    let on_curve = vec![
        mul(LEFT, SECOND, SECOND),
        add(LEFT, LEFT, A),
        mul(LEFT, LEFT, SECOND),
        add(LEFT, LEFT, B),
        mul(RIGHT, SECOND + 1, SECOND + 1),
        sub(LEFT, LEFT, RIGHT),
    ];
    let compare = [LEFT, RIGHT].into_iter().flat_map(|of| [mul(of, of, FORM), mul(of, of, Z), sub(of, of, X)]);
    Field {
        prime,
        bits: 256,
        is_montgomery: true,
        names: &[
            ("X", X),
            ("Y", Y),
            ("Z", Z),
            ("SECOND", SECOND),
            ("ONE", ONE),
            ("LEFT", LEFT),
            ("RIGHT", RIGHT),
            ("FIRST_CONSTANT", FIRST_CONSTANT),
        ],
        constants: vec![small(0), small(1), double_times(&small(1), 260, &prime), a, b, b3],
        formulas: vec![
            ("DOUBLE", double),
            ("SUM", sum),
            ("DIFFERENCE", difference),
            ("TO_FORM", vec![mul(SECOND, SECOND, FORM), mul(SECOND + 1, SECOND + 1, FORM)]),
            ("ON_CURVE", on_curve),
            ("COMPARE", compare.collect()),
        ],
    }
}

/// Registers of the formulas: t0 to t4, and X3, Y3 and Z3 until they are the sum.
const fn kept() -> ([u32; 5], [u32; 3]) {
    ([KEPT, KEPT + 1, KEPT + 2, KEPT + 3, KEPT + 4], [KEPT + 5, KEPT + 6, KEPT + 7])
}

/// What both sums begin with: t0 = X1·X2, t1 = Y1·Y2, t2 = Z1·Z2, t3 = X1·Y2 + X2·Y1, t4 = Y1·Z2 + Y2·Z1, Y3 = X1·Z2 + X2·Z1.
fn mixed_products(second: u32) -> [u32; 18] {
    let ([t0, t1, t2, t3, t4], [x3, y3, _]) = kept();
    [
        mul(t0, X, second),
        mul(t1, Y, second + 1),
        mul(t2, Z, second + 2),
        add(t3, X, Y),
        add(t4, second, second + 1),
        mul(t3, t3, t4),
        add(t4, t0, t1),
        sub(t3, t3, t4),
        add(t4, Y, Z),
        add(x3, second + 1, second + 2),
        mul(t4, t4, x3),
        add(x3, t1, t2),
        sub(t4, t4, x3),
        add(x3, X, Z),
        add(y3, second, second + 2),
        mul(x3, x3, y3),
        add(y3, t0, t2),
        sub(y3, x3, y3),
    ]
}

/// Algorithm 4: a = -3. `second` may be the sum itself.
fn sum_minus_3(second: u32) -> Vec<u32> {
    let ([t0, t1, t2, t3, t4], [x3, y3, z3]) = kept();
    let rest = [
        mul(z3, B, t2),
        sub(x3, y3, z3),
        add(z3, x3, x3),
        add(x3, x3, z3),
        sub(z3, t1, x3),
        add(x3, t1, x3),
        mul(y3, B, y3),
        add(t1, t2, t2),
        add(t2, t1, t2),
        sub(y3, y3, t2),
        sub(y3, y3, t0),
        add(t1, y3, y3),
        add(y3, t1, y3),
        add(t1, t0, t0),
        add(t0, t1, t0),
        sub(t0, t0, t2),
        mul(t1, t4, y3),
        mul(t2, t0, y3),
        mul(y3, x3, z3),
        add(Y, y3, t2),
        mul(x3, t3, x3),
        sub(X, x3, t1),
        mul(z3, t4, z3),
        mul(t1, t3, t0),
        add(Z, z3, t1),
    ];
    [&mixed_products(second)[..], &rest].concat()
}

/// Algorithm 7: a = 0.
fn sum_0() -> Vec<u32> {
    let ([t0, t1, t2, t3, t4], [x3, y3, z3]) = kept();
    let rest = [
        add(x3, t0, t0),
        add(t0, x3, t0),
        mul(t2, B3, t2),
        add(z3, t1, t2),
        sub(t1, t1, t2),
        mul(y3, B3, y3),
        mul(x3, t4, y3),
        mul(t2, t3, t1),
        sub(X, t2, x3),
        mul(y3, y3, t0),
        mul(t1, t1, z3),
        add(Y, t1, y3),
        mul(t0, t0, t3),
        mul(z3, z3, t4),
        add(Z, z3, t0),
    ];
    [&mixed_products(SECOND)[..], &rest].concat()
}

/// Algorithm 9: a = 0.
fn double_0() -> Vec<u32> {
    let ([t0, t1, t2, ..], [x3, y3, z3]) = kept();
    vec![
        mul(t0, Y, Y),
        add(z3, t0, t0),
        add(z3, z3, z3),
        add(z3, z3, z3),
        mul(t1, Y, Z),
        mul(t2, Z, Z),
        mul(t2, B3, t2),
        mul(x3, t2, z3),
        add(y3, t0, t2),
        mul(Z, t1, z3),
        add(t1, t2, t2),
        add(t2, t1, t2),
        sub(t0, t0, t2),
        mul(y3, t0, y3),
        mul(t1, X, Y),
        add(Y, x3, y3),
        mul(x3, t0, t1),
        add(X, x3, x3),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::interpret;

    const GENERATORS: [[Words; 2]; 2] = [
        [
            hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
            hex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
        ],
        [
            hex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
            hex("483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"),
        ],
    ];

    #[test]
    fn formulas_agree_with_one_another() {
        for (field, generator) in [p256(), secp256k1()].into_iter().zip(GENERATORS) {
            let mut registers = vec![small(0); REGISTERS as usize];
            registers[FIRST_CONSTANT as usize..].copy_from_slice(&field.constants);
            let run = |name: &str, registers: &mut [Words]| {
                let (_, formula) = field.formulas.iter().find(|(of, _)| *of == name).expect("a formula");
                interpret(&field.prime, formula, registers);
            };
            // Whether the sum is this point.
            let is = |registers: &mut [Words], point: [Words; 3]| {
                registers[6..9].copy_from_slice(&point);
                let cross = [mul(9, X, 8), mul(10, 6, Z), sub(9, 9, 10), mul(10, Y, 8), mul(11, 7, Z), sub(10, 10, 11)];
                interpret(&field.prime, &cross, registers);
                (registers[9], registers[10]) == (small(0), small(0))
            };
            let sum = |registers: &[Words]| [registers[0], registers[1], registers[2]];
            let zero = [small(0), small(1), small(0)];
            let once = [generator[0], generator[1], small(1)];
            registers[3..6].copy_from_slice(&once);
            run("ON_CURVE", &mut registers);
            assert_eq!(registers[LEFT as usize], small(0));
            // Zero and a point; a point and itself, by both formulas; and back.
            registers[..3].copy_from_slice(&zero);
            run("DOUBLE", &mut registers);
            assert!(is(&mut registers, zero));
            run("SUM", &mut registers);
            assert!(is(&mut registers, once));
            run("SUM", &mut registers);
            let twice = sum(&registers);
            registers[..3].copy_from_slice(&once);
            run("DOUBLE", &mut registers);
            assert!(is(&mut registers, twice));
            run("SUM", &mut registers);
            run("DOUBLE", &mut registers);
            let six = sum(&registers);
            registers[3..6].copy_from_slice(&twice);
            run("DIFFERENCE", &mut registers);
            registers[3..6].copy_from_slice(&twice);
            run("SUM", &mut registers);
            assert!(is(&mut registers, six) && registers[2] != small(0));
            // A point and its negative; zero less a point.
            registers[3..6].copy_from_slice(&six);
            run("DIFFERENCE", &mut registers);
            assert!(registers[2] == small(0) && registers[1] != small(0));
            registers[3..6].copy_from_slice(&once);
            run("DIFFERENCE", &mut registers);
            registers[3..6].copy_from_slice(&once);
            run("SUM", &mut registers);
            assert!(registers[2] == small(0) && registers[1] != small(0));
        }
    }
}
