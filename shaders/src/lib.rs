//! Compute kernels in WGSL, and the layouts that they share with the host.
//!
//! A [`Program`] says all that a device needs to know: the text, its entry points in their order, and how many bytes of each buffer a job takes. Texts are
//! put together from files: `field.wgsl` is the arithmetic of every prime and of both widths of limbs, of which only constants and the product differ.
#![forbid(unsafe_code)]

mod code;
mod edwards;
mod field;
mod number;
mod program;
mod template;
mod weierstrass;

pub use field::Width;
pub use number::Words;
pub use program::{
    BASE_MULTIPLES, Curve, EcdsaJob, Ed25519Job, INVALID, LevelJob, LevelParams, PARAMS_BYTES, PREFIX_BYTES_MAX,
    Params, Pass, Program, Table, VALID, WORKGROUP, ecdsa, ed25519, level,
};
