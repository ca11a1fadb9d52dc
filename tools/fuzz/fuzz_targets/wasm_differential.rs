//! Random modules do the same here and in wasmtime, and are charged what the reference meter says.
#![no_main]

#[path = "../../../engine/wasm/tests/suite/kept.rs"]
mod kept;
#[path = "../../../engine/wasm/tests/suite/oracle.rs"]
mod oracle;
#[path = "../../../engine/wasm/tests/suite/reference.rs"]
mod reference;
#[path = "../../../engine/wasm/tests/suite/transient.rs"]
mod transient;

use std::cell::OnceCell;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use oracle::{Choices, Oracle};

thread_local! {
    static ORACLE: OnceCell<Oracle> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, bytes)) = data.split_first_chunk::<8>() else { return };
    let mut choices = Choices(u64::from_le_bytes(*seed) | 1);
    let config = oracle::smith_config(&mut choices);
    let Ok(module) = wasm_smith::Module::new(config, &mut Unstructured::new(bytes)) else { return };
    ORACLE.with(|oracle| {
        let oracle = oracle.get_or_init(Oracle::new);
        if let Err(difference) = oracle.compare(&module.to_bytes(), &mut choices) {
            panic!("{difference}");
        }
    });
});
