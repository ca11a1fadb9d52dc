//! What an operator costs.
//!
//! Enters: the table of weights (data from `cyclotron-types`). Leaves: [`Meter`], a lookup by operator for one kind of
//! module. Never here: how code is made to count (`lower`), the independent reference (`tests/reference`).
//!
//! # The charging rule
//!
//! The replica instruments Wasm; whatever we do must give the same numbers at every point where they can be seen.
//!
//! 1. The text of a function, reachable or not, is cut into segments. A segment ends after each `loop`, `if`, `else`, `end`,
//!    `br`, `br_if`, `br_table`, `return`, `unreachable`, `return_call` and `return_call_indirect`. The cost of a segment is
//!    the sum of its operators' weights; the function's first segment costs [`Meter::function_entry`] more.
//! 2. A segment's whole cost is charged when control reaches its first operator, whatever happens later: a trap or a host call
//!    in its middle sees all of it charged.
//! 3. Whether the counter has become negative is checked when a function is entered and when the body of a `loop` begins (each
//!    time round), after charging that segment, and nowhere else but at 4 and 5.
//! 4. `memory.fill`, `memory.copy`, `memory.init`, `table.fill`, `table.copy` and `table.init` charge their length operand (unsigned, one
//!    instruction a byte or element) just before they run, saturating at the lowest counter, then check.
//! 5. Host functions charge and check at their call (`cyclotron_types::host_costs`).
//!
//! Because of 3, where several segments meet the counter only ever differs by what was executed, and a function that runs off its
//! limit in straight-line code is stopped at the next check, having charged a little more than the limit.

use cyclotron_types::imports::MemoryKind;
use cyclotron_types::weights::{FUNCTION_ENTRY, OPERATOR_WEIGHTS, WeightRow};
use wasmparser::Operator;

macro_rules! define_operators {
    ($(@$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        /// Every operator that the parser knows, by the name of its variant.
        #[derive(Clone, Copy)]
        #[allow(dead_code, clippy::enum_variant_names, reason = "one variant per operator of every proposal")]
        enum Opcode { $($op,)* }

        /// Names of the operators, and their proposals, in the order of [`Opcode`].
        static OPERATORS: &[(&str, &str)] = &[$((stringify!($op), stringify!($proposal)),)*];

        fn opcode(operator: &Operator<'_>) -> Option<Opcode> {
            Some(match operator {
                $(Operator::$op $({ $($arg: _),* })? => Opcode::$op,)*
                _ => return None,
            })
        }
    };
}
wasmparser::for_each_operator!(define_operators);

/// Weight of an operator that no row names. Validation lets none through; lowering would refuse it.
const UNNAMED: u32 = 1;

/// Weights for modules whose memory is of one kind.
#[derive(Clone, Debug)]
pub struct Meter {
    weights: Vec<u32>,
}

impl Meter {
    /// The replica's weights for a module of this kind.
    pub fn new(memory: MemoryKind) -> Self {
        Self::from_rows(memory, OPERATOR_WEIGHTS)
    }

    /// Weights from a table.
    ///
    /// Panics: if a row names an operator that does not exist; the table is part of this program.
    pub fn from_rows(memory: MemoryKind, rows: &[WeightRow]) -> Self {
        let mut weights = vec![UNNAMED; OPERATORS.len()];
        for row in rows {
            let weight = match memory {
                MemoryKind::Wasm32 => row.wasm32,
                MemoryKind::Wasm64 => row.wasm64,
            };
            let weight = u32::try_from(weight.0).expect("weights are small");
            for name in row.operators {
                let ix = OPERATORS.iter().position(|(n, _)| n == name);
                weights[ix.unwrap_or_else(|| panic!("no operator is called {name}"))] = weight;
            }
        }
        Self { weights }
    }

    /// Instructions that this operator costs by itself.
    pub fn weight(&self, operator: &Operator<'_>) -> u32 {
        opcode(operator).map_or(UNNAMED, |code| self.weights[code as usize])
    }

    /// Instructions that every entry of a function costs on top of its first segment.
    pub const fn function_entry() -> u32 {
        FUNCTION_ENTRY.0 as u32
    }
}

/// Name of an operator, as in the table of weights.
pub fn operator_name(operator: &Operator<'_>) -> &'static str {
    opcode(operator).map_or("?", |code| OPERATORS[code as usize].0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Proposals of `wasmparser` whose operators canisters may contain.
    const ENABLED: &[&str] =
        &["mvp", "sign_extension", "saturating_float_to_int", "bulk_memory", "reference_types", "tail_call", "simd"];

    #[test]
    fn every_operator_of_the_enabled_proposals_has_exactly_one_weight() {
        let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
        for name in OPERATOR_WEIGHTS.iter().flat_map(|row| row.operators) {
            *rows.entry(name).or_default() += 1;
        }
        assert_eq!(rows.values().filter(|n| **n != 1).count(), 0);
        for (name, proposal) in OPERATORS {
            // A `select` of several results parses and never validates.
            let allowed = ENABLED.contains(proposal) && *name != "TypedSelectMulti";
            assert_eq!(rows.contains_key(name), allowed, "{name} of {proposal}");
        }
    }

    #[test]
    fn golden_weights_per_operator() {
        let (small, large) = (Meter::new(MemoryKind::Wasm32), Meter::new(MemoryKind::Wasm64));
        let mut text = String::new();
        for (ix, (name, proposal)) in OPERATORS.iter().enumerate() {
            if ENABLED.contains(proposal) && *name != "TypedSelectMulti" {
                text.push_str(&format!("{name} {} {}\n", small.weights[ix], large.weights[ix]));
            }
        }
        expect_test::expect_file!["../golden/operator_weights.txt"].assert_eq(&text);
    }

    #[test]
    fn operators_are_found_with_their_arguments() {
        let meter = Meter::new(MemoryKind::Wasm64);
        assert_eq!(meter.weight(&Operator::I64DivU), 10);
        assert_eq!(meter.weight(&Operator::Call { function_index: 7 }), 5);
        assert_eq!(meter.weight(&Operator::MemorySize { mem: 0 }), 20);
        assert_eq!(meter.weight(&Operator::End), 0);
        assert_eq!(operator_name(&Operator::End), "End");
    }
}
