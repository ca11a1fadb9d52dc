//! The Wasm engine: decode, validate, meter, lower to machine code, run, suspend and resume.
//!
//! Enters: Wasm bytes and the tables of the Internet Computer's rules. Leaves: modules, executions and their outcomes.
//! Never here: what a host function does.

pub mod abi;
pub mod compiled;
pub mod decode;
pub mod meter;
pub mod validate;
