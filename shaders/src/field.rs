//! The constants of a prime, as the texts name them.

use crate::code::{ADD, Formula, MULTIPLY};
use crate::number::{Words, double_times, limbs, up_to_power};
use crate::program::{INVALID, VALID};
use crate::template::expand;
use std::fmt::Write as _;

/// How wide limbs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// Twenty limbs of 13 bits, whose products add up in 32 bits: for every adapter.
    Bits32,
    /// Ten limbs of 26 bits, whose products add up in 64 bits: for adapters with 64-bit integers.
    Bits64,
}

/// Bits of all limbs, which both widths have.
const BITS_OF_ALL: u32 = 260;

impl Width {
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Self::Bits32 => 13,
            Self::Bits64 => 26,
        }
    }

    /// Limbs of a number.
    pub const fn limbs(self) -> u32 {
        BITS_OF_ALL / self.bits()
    }

    /// Places of four limbs that a number takes.
    pub const fn vectors(self) -> u32 {
        self.limbs().div_ceil(4)
    }

    const fn wide(self) -> &'static str {
        match self {
            Self::Bits32 => "u32",
            Self::Bits64 => "u64",
        }
    }
}

/// A prime, and formulas modulo it.
pub(crate) struct Field {
    pub prime: Words,
    pub bits: u32,
    /// Products by Montgomery's method, or by folding 2^260 round, which only 2^255 - 19 does.
    pub is_montgomery: bool,
    /// Registers that the text names.
    pub names: &'static [(&'static str, u32)],
    /// What the registers from `FIRST_CONSTANT` on hold.
    pub constants: Vec<Words>,
    pub formulas: Vec<Formula>,
}

impl Field {
    /// The text of arithmetic and formulas, and what its buffer `code` holds.
    pub(crate) fn text(&self, width: Width) -> (String, Vec<u32>) {
        let (bits, count) = (width.bits(), width.limbs());
        let mut code = Vec::new();
        let mut constants = vec![
            ("LIMBS", count),
            ("VECTORS", width.vectors()),
            ("CONSTANTS", self.constants.len() as u32),
            ("BITS", bits),
            ("MASK", (1 << bits) - 1),
            ("TOP_BITS", self.bits - bits * (count - 1)),
            ("MULTIPLY", MULTIPLY),
            ("ADD", ADD),
            ("INVALID", INVALID),
            ("VALID", VALID),
            ("INVERSE", self.inverse() & ((1 << bits) - 1)),
        ];
        constants.extend_from_slice(self.names);
        let mut text = format!("alias Wide = {};\n", width.wide());
        let mut define = |name: &str, value: String, of: &str| {
            writeln!(text, "const {name}: {of} = {value};").expect("a string grows");
        };
        for (name, formula) in &self.formulas {
            define(name, format!("{}u", code.len()), "u32");
            code.extend_from_slice(formula);
            define(&format!("{name}_END"), format!("{}u", code.len()), "u32");
        }
        constants.push(("CONSTANTS_AT", code.len() as u32));
        for value in &self.constants {
            code.extend(limbs(&self.form(value), bits, 4 * width.vectors()));
        }
        for (name, value) in constants {
            define(name, format!("{value}u"), "u32");
        }
        let arrays = [
            ("AROUND", limbs(&up_to_power(&self.prime, self.bits), bits, count)),
            ("MULTIPLE", self.multiple(width)),
            ("PRIME", limbs(&self.prime, bits, count)),
        ];
        for (name, limbs) in arrays {
            let limbs: Vec<String> = limbs.iter().map(|limb| format!("{limb}u")).collect();
            define(name, format!("array({})", limbs.join(", ")), "array<u32, LIMBS>");
        }
        text.push_str(include_str!("params.wgsl"));
        text.push_str(&expand(include_str!("field.wgsl"), width));
        let product = if self.is_montgomery { include_str!("montgomery.wgsl") } else { include_str!("fold.wgsl") };
        text.push_str(&expand(product, width));
        (text, code)
    }

    /// A number in the form in which products take it.
    fn form(&self, value: &Words) -> Words {
        if self.is_montgomery { double_times(value, BITS_OF_ALL, &self.prime) } else { *value }
    }

    /// The negative of the prime's inverse modulo 2^32. Each turn doubles the bits that are right, of which there are three at first.
    fn inverse(&self) -> u32 {
        let prime = self.prime[0];
        let turn = |inverse: u32, _| inverse.wrapping_mul(2u32.wrapping_sub(prime.wrapping_mul(inverse)));
        (0..4).fold(prime, turn).wrapping_neg()
    }

    /// Four times the prime, each limb but the highest with one taken from the next: none is below what a limb of a number may be.
    fn multiple(&self, width: Width) -> Vec<u32> {
        let (bits, count) = (width.bits(), width.limbs() as usize);
        let mut result = limbs(&self.prime, bits, width.limbs());
        let mut carry = 0;
        for limb in &mut result {
            carry += 4 * *limb;
            *limb = carry & ((1 << bits) - 1);
            carry >>= bits;
        }
        assert_eq!(carry, 0, "four times the prime has limbs enough");
        result[..count - 1].iter_mut().for_each(|limb| *limb += 1 << bits);
        result[1..].iter_mut().for_each(|limb| *limb -= 1);
        result
    }
}
