//! What does not outlive a message: contents of tables, and which segments have been dropped.

use cyclotron_wasm::decode::DecodedModule;
use wasmparser::Operator;

/// Whether a module writes tables or drops segments.
pub fn is_written(module: &DecodedModule<'_>) -> bool {
    module.bodies.iter().any(|body| {
        let operators = body.get_operators_reader().expect("validated");
        operators.into_iter().any(|operator| {
            matches!(
                operator.expect("validated"),
                Operator::TableSet { .. }
                    | Operator::TableGrow { .. }
                    | Operator::TableFill { .. }
                    | Operator::TableCopy { .. }
                    | Operator::TableInit { .. }
                    | Operator::DataDrop { .. }
                    | Operator::ElemDrop { .. }
            )
        })
    })
}
