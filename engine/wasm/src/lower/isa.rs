//! The instruction set that code is made for.
//!
//! Enters: a [`Config`]. Leaves: a Cranelift target. Never here: an optional processor feature that changes a result.
//!
//! NaNs: `enable_nan_canonicalization` rewrites every result of fadd, fsub, fmul, fdiv, fmin, fmax, sqrt, ceil, floor, trunc,
//! nearest, fpromote, fdemote and their vector forms that is a NaN to the canonical one: 0x7fc0_0000 in an f32 lane,
//! 0x7ff8_0000_0000_0000 in an f64 lane. That is every Wasm operator whose NaN result is not determined by the specification:
//! fneg, fabs and copysign touch only the sign bit; pmin and pmax return one of their operands unchanged; loads, stores, constants,
//! selects and reinterpretations keep bits. Fused multiply-add is never made: no accepted operator allows it.

use super::{Config, LowerError};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};

fn host_error(error: impl std::fmt::Display) -> LowerError {
    LowerError::Host { message: error.to_string() }
}

/// The target for the processor that this runs on. `opt_level` is Cranelift's.
pub(super) fn host_isa(config: &Config, opt_level: &str) -> Result<OwnedTargetIsa, LowerError> {
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", opt_level),
        ("enable_nan_canonicalization", "true"),
        ("enable_pinned_reg", "true"),
        ("enable_multi_ret_implicit_sret", "true"),
        ("preserve_frame_pointers", "true"),
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
        ("is_pic", "true"),
        ("enable_heap_access_spectre_mitigation", "false"),
        ("enable_table_access_spectre_mitigation", "false"),
        ("enable_verifier", if config.verify { "true" } else { "false" }),
    ] {
        flags.set(name, value).map_err(host_error)?;
    }
    // Features found here change which instructions are used, never what they compute.
    let builder = cranelift_native::builder().map_err(host_error)?;
    let isa = builder.finish(settings::Flags::new(flags)).map_err(host_error)?;
    // The baseline. Without it Cranelift would call library functions for rounding.
    if isa.name() == "x64" {
        for name in ["has_ssse3", "has_sse41", "has_sse42", "has_popcnt"] {
            let present = isa.isa_flags().iter().any(|flag| flag.name == name && flag.as_bool() == Some(true));
            if !present {
                return Err(host_error(format!("{name} is missing")));
            }
        }
    }
    Ok(isa)
}
