//! 128-bit vectors.

use super::LowerError;
use super::func::Translator;
use wasmparser::Operator;

impl Translator<'_, '_> {
    /// Operators on vectors.
    pub fn simd_operator(&mut self, _op: &Operator<'_>) -> Result<bool, LowerError> {
        Ok(false)
    }
}
