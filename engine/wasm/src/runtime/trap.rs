//! Why an execution ended early, in terms of the canister's Wasm.
//!
//! Enters: what the signal handler or a libcall recorded. Leaves: [`Trap`]. Never here: an address of this process.

use std::fmt;

use crate::abi::TrapCode;

/// Innermost frames kept of a Wasm backtrace.
pub const FRAMES_MAX: usize = 32;

/// One Wasm function that was active, innermost first in [`Trap::frames`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Function index, imports counted.
    pub function: u32,
    /// From the module's name section.
    pub name: Option<String>,
    /// Offset of the operator in the module's binary; `None` where the tables do not say.
    pub wasm_offset: Option<u32>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function {}", self.function)?;
        if let Some(name) = &self.name {
            write!(f, " <{name}>")?;
        }
        match self.wasm_offset {
            Some(offset) => write!(f, " +{offset:#x}"),
            None => Ok(()),
        }
    }
}

/// The canister's failure: why it stopped and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Why. For [`TrapCode::Host`] the host keeps the reason.
    pub code: TrapCode,
    /// Innermost first, at most [`FRAMES_MAX`]; empty when no Wasm function was active.
    pub frames: Vec<Frame>,
}

impl Trap {
    /// A trap before any Wasm function was active.
    pub fn at_entry(code: TrapCode) -> Trap {
        Trap { code, frames: Vec::new() }
    }
}

/// What a trap code says in a message to people.
pub const fn describe(code: TrapCode) -> &'static str {
    match code {
        TrapCode::Unreachable => "unreachable",
        TrapCode::HeapOutOfBounds => "heap out of bounds",
        TrapCode::TableOutOfBounds => "table out of bounds",
        TrapCode::IndirectCallToNull => "indirect call to null",
        TrapCode::BadSignature => "indirect call with another signature",
        TrapCode::IntegerOverflow => "integer overflow",
        TrapCode::IntegerDivisionByZero => "integer division by zero",
        TrapCode::BadConversionToInteger => "conversion of a NaN to an integer",
        TrapCode::StackOverflow => "stack overflow",
        TrapCode::SegmentOutOfBounds => "segment out of bounds",
        TrapCode::Host => "host function failed",
        TrapCode::InstructionLimit => "instruction limit reached",
        TrapCode::NullReference => "null reference",
        TrapCode::Status => "a libcall's status",
    }
}

impl fmt::Display for Trap {
    /// `Wasm trap: heap out of bounds at function 12 <foo> +0x1a3`, then a line for each caller.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wasm trap: {}", describe(self.code))?;
        for (depth, frame) in self.frames.iter().enumerate() {
            if depth == 0 {
                write!(f, " at {frame}")?;
            } else {
                write!(f, "\n  called by {frame}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Trap {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_reads_as_one_line_and_its_callers() {
        let frame =
            |function, name: Option<&str>, wasm_offset| Frame { function, name: name.map(String::from), wasm_offset };
        let trap = Trap {
            code: TrapCode::HeapOutOfBounds,
            frames: vec![frame(12, Some("foo"), Some(0x1a3)), frame(3, None, Some(7)), frame(1, None, None)],
        };
        let text = "Wasm trap: heap out of bounds at function 12 <foo> +0x1a3\n  called by function 3 +0x7\n  called by function 1";
        assert_eq!(trap.to_string(), text);
    }
}
