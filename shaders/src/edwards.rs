//! The curve of Ed25519: -x² + y² = 1 + d·x²·y², points as X, Y, Z and T with x = X / Z, y = Y / Z and x·y = T / Z.

use crate::code::{add, mul, sub};
use crate::field::Field;
use crate::number::{Words, hex};

/// The sum, and the point that is doubled.
const X: u32 = 0;
const Y: u32 = 1;
const Z: u32 = 2;
const T: u32 = 3;
/// The second operand of a sum: Y + X, Y - X, 2Z and 2dT.
const SECOND: u32 = 4;
/// For what formulas keep.
const KEPT: u32 = 8;
const FIRST_CONSTANT: u32 = 29;
const ZERO: u32 = FIRST_CONSTANT;
const ONE: u32 = FIRST_CONSTANT + 1;
const D: u32 = FIRST_CONSTANT + 2;
const D2: u32 = FIRST_CONSTANT + 3;
const ROOT_OF_MINUS_ONE: u32 = FIRST_CONSTANT + 4;
pub(crate) const REGISTERS: u32 = FIRST_CONSTANT + 5;

// Where roots are found.
const ROOT: u32 = 20;
const OTHER_ROOT: u32 = 21;
const SQUARE_LESS_U: u32 = 22;
const SQUARE_AND_U: u32 = 23;
const Y_LESS_Z: u32 = 24;

const D_VALUE: Words = hex("52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3");
const D2_VALUE: Words = hex("2406d9dc56dffce7198e80f2eef3d13000e0149a8283b156ebd69b9426b2f159");
const ROOT_VALUE: Words = hex("2b8324804fc1df0b2b4d00993dfbd7a72f431806ad2fe478c4ee1b274a0ea0b0");

pub(crate) fn field() -> Field {
    Field {
        prime: hex("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed"),
        bits: 255,
        is_montgomery: false,
        names: &[
            ("X", X),
            ("Y", Y),
            ("Z", Z),
            ("T", T),
            ("SECOND", SECOND),
            ("ONE", ONE),
            ("ROOT", ROOT),
            ("OTHER_ROOT", OTHER_ROOT),
            ("SQUARE_LESS_U", SQUARE_LESS_U),
            ("SQUARE_AND_U", SQUARE_AND_U),
            ("Y_LESS_Z", Y_LESS_Z),
            ("FIRST_CONSTANT", FIRST_CONSTANT),
        ],
        constants: vec![[0; 8], [1, 0, 0, 0, 0, 0, 0, 0], D_VALUE, D2_VALUE, ROOT_VALUE],
        formulas: vec![
            ("DOUBLE", double()),
            ("SUM", sum(false)),
            ("DIFFERENCE", sum(true)),
            ("TO_SECOND", to_second()),
            ("FIND_ROOT", find_root()),
            ("NEGATE", vec![sub(X, ZERO, X)]),
            ("FROM_AFFINE", from_affine()),
            ("COMPARE", vec![sub(Y_LESS_Z, Y, Z)]),
        ],
    }
}

/// The last four products of sums and doublings.
fn products(e: u32, f: u32, g: u32, h: u32) -> [u32; 4] {
    [mul(X, e, f), mul(Y, g, h), mul(Z, f, g), mul(T, e, h)]
}

fn double() -> Vec<u32> {
    let (a, b, c, e, g, h) = (KEPT, KEPT + 1, KEPT + 2, KEPT + 3, KEPT + 4, KEPT + 5);
    let first = [
        mul(a, X, X),
        mul(b, Y, Y),
        mul(c, Z, Z),
        add(e, X, Y),
        mul(e, e, e),
        add(h, a, b),
        sub(e, h, e),
        sub(g, a, b),
        add(c, c, c),
        add(c, c, g),
    ];
    [&first[..], &products(e, c, g, h)].concat()
}

/// Complete: right for every two points of the curve. The negative of the second has its first two exchanged, and the last with the other sign.
fn sum(is_difference: bool) -> Vec<u32> {
    let (a, b, c, d, e, f, g, h) = (KEPT, KEPT + 1, KEPT + 2, KEPT + 3, KEPT + 4, KEPT + 5, KEPT + 6, KEPT + 7);
    let (plus, minus) = if is_difference { (SECOND + 1, SECOND) } else { (SECOND, SECOND + 1) };
    let (less, more) = if is_difference { (g, f) } else { (f, g) };
    let first = [
        add(a, Y, X),
        sub(b, Y, X),
        mul(a, a, plus),
        mul(b, b, minus),
        mul(c, Z, SECOND + 2),
        mul(d, T, SECOND + 3),
        sub(e, a, b),
        sub(less, c, d),
        add(more, c, d),
        add(h, a, b),
    ];
    [&first[..], &products(e, f, g, h)].concat()
}

fn to_second() -> Vec<u32> {
    vec![add(SECOND, Y, X), sub(SECOND + 1, Y, X), add(SECOND + 2, Z, Z), mul(SECOND + 3, T, D2)]
}

/// The second operand from X = x and Y = y.
fn from_affine() -> Vec<u32> {
    vec![
        add(SECOND, Y, X),
        sub(SECOND + 1, Y, X),
        add(SECOND + 2, ONE, ONE),
        mul(SECOND + 3, X, Y),
        mul(SECOND + 3, SECOND + 3, D2),
    ]
}

/// With Y = y: see `decompress_negative`.
fn find_root() -> Vec<u32> {
    let (u, v, uv3, uv7, square) = (24, 25, 26, 27, 28);
    let mut formula = vec![
        mul(v, Y, Y),
        sub(u, v, ONE),
        mul(v, v, D),
        add(v, v, ONE),
        mul(uv3, v, v),
        mul(uv3, uv3, v),
        mul(uv7, uv3, uv3),
        mul(uv7, uv7, v),
        mul(uv7, uv7, u),
        mul(uv3, uv3, u),
    ];
    // The power (p - 5) / 8 = 2^252 - 3. Each step squares what the one before left, so many times, and multiplies by what an earlier one left: the powers
    // of the exponents 2^n - 1 with n = 1, 2, 4, 5, 10, 20, 40, 50, 100, 200, 250.
    const STEPS: [(usize, u32); 11] =
        [(1, 0), (2, 1), (1, 0), (5, 3), (10, 4), (20, 5), (10, 4), (50, 7), (100, 8), (50, 7), (2, 0)];
    let left = KEPT;
    let mut last = uv7;
    for (step, (squares, factor)) in (0u32..).zip(STEPS) {
        // The first power has a register already, and the last needs no other than the root's.
        let to = if step + 1 == STEPS.len() as u32 { ROOT } else { left + step + 1 };
        if step == 0 {
            formula.push(add(left, uv7, ZERO));
            last = left;
        }
        formula.push(mul(to, last, last));
        formula.extend(std::iter::repeat_n(mul(to, to, to), squares - 1));
        formula.push(mul(to, to, left + factor));
        last = to;
    }
    formula.extend([
        mul(ROOT, ROOT, uv3),
        mul(square, ROOT, ROOT),
        mul(square, square, v),
        sub(SQUARE_LESS_U, square, u),
        add(SQUARE_AND_U, square, u),
        mul(OTHER_ROOT, ROOT, ROOT_OF_MINUS_ONE),
    ]);
    formula
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::interpret;

    #[test]
    fn formulas_agree_with_one_another() {
        let field = field();
        let mut registers = vec![[0; 8]; REGISTERS as usize];
        registers[FIRST_CONSTANT as usize..].copy_from_slice(&field.constants);
        // The base point: y = 4/5, and the positive root.
        let y = hex("6666666666666666666666666666666666666666666666666666666666666658");
        let x = hex("216936d3cd6e53fec0a4e231fdd6dc5c692cc7609525a7b2c9562d608f25d51a");
        registers[Y as usize] = y;
        let run = |name: &str, registers: &mut [Words]| {
            let (_, formula) = field.formulas.iter().find(|(of, _)| *of == name).expect("a formula");
            interpret(&field.prime, formula, registers);
        };
        run("FIND_ROOT", &mut registers);
        let is_root = registers[SQUARE_LESS_U as usize] == [0; 8];
        assert!(is_root || registers[SQUARE_AND_U as usize] == [0; 8]);
        registers[X as usize] = registers[if is_root { ROOT } else { OTHER_ROOT } as usize];
        if registers[X as usize][0] & 1 == 1 {
            run("NEGATE", &mut registers);
        }
        assert_eq!(registers[X as usize], x);
        run("FROM_AFFINE", &mut registers);
        // Twice the point, as a sum and as a doubling; then the point again, and zero.
        registers[Z as usize] = [1, 0, 0, 0, 0, 0, 0, 0];
        interpret(&field.prime, &[mul(T, X, Y)], &mut registers);
        let once = registers.clone();
        run("SUM", &mut registers);
        let sum = registers.clone();
        registers[..4].copy_from_slice(&once[..4]);
        run("DOUBLE", &mut registers);
        let same = [mul(8, X, 12), mul(9, 10, Z), sub(8, 8, 9), mul(9, Y, 12), mul(10, 11, Z), sub(9, 9, 10)];
        let check = |registers: &mut Vec<Words>, other: &[Words]| {
            registers[10..13].copy_from_slice(&[other[0], other[1], other[2]]);
            // What is compared is X and Y, each times the other's Z.
            registers[11..12].copy_from_slice(&[other[1]]);
            interpret(&field.prime, &same, registers);
            assert_eq!((registers[8], registers[9]), ([0; 8], [0; 8]));
        };
        check(&mut registers, &sum);
        run("DIFFERENCE", &mut registers);
        check(&mut registers, &once);
        run("DIFFERENCE", &mut registers);
        run("COMPARE", &mut registers);
        assert_eq!((registers[X as usize], registers[Y_LESS_Z as usize]), ([0; 8], [0; 8]));
    }
}
