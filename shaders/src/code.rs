//! Formulas as lists of instructions: what to do, where the result goes, and two operands, all of them registers.

/// What an instruction does.
pub(crate) const MULTIPLY: u32 = 0;
/// See [`MULTIPLY`].
pub(crate) const ADD: u32 = 1;
/// See [`MULTIPLY`].
pub(crate) const SUBTRACT: u32 = 2;

const fn instruction(kind: u32, to: u32, a: u32, b: u32) -> u32 {
    assert!(to < 256 && a < 256 && b < 256, "a register");
    kind | to << 8 | a << 16 | b << 24
}

/// `to = a * b`.
pub(crate) const fn mul(to: u32, a: u32, b: u32) -> u32 {
    instruction(MULTIPLY, to, a, b)
}

/// `to = a + b`.
pub(crate) const fn add(to: u32, a: u32, b: u32) -> u32 {
    instruction(ADD, to, a, b)
}

/// `to = a - b`.
pub(crate) const fn sub(to: u32, a: u32, b: u32) -> u32 {
    instruction(SUBTRACT, to, a, b)
}

/// A list that the text names.
pub(crate) type Formula = (&'static str, Vec<u32>);

/// What instructions leave in registers, by arithmetic without limbs.
#[cfg(test)]
pub(crate) fn interpret(prime: &crate::number::Words, formula: &[u32], registers: &mut [crate::number::Words]) {
    use crate::number::{add_modulo, multiply_modulo, subtract_modulo};
    for instruction in formula {
        let [kind, to, a, b] = instruction.to_le_bytes();
        let (a, b) = (registers[usize::from(a)], registers[usize::from(b)]);
        registers[usize::from(to)] = match u32::from(kind) {
            MULTIPLY => multiply_modulo(&a, &b, prime),
            ADD => add_modulo(&a, &b, prime),
            SUBTRACT => subtract_modulo(&a, &b, prime),
            _ => panic!("no instruction"),
        };
    }
}
