//! What compiled code follows from besides its module.
//!
//! Enters: a compiler, the limits of modules. Leaves: a hash that is another whenever the machine code could be. Never here: the module.

use cyclotron_types::module_limits::ModuleLimits;
use cyclotron_types::weights::{BULK_PER_UNIT, FUNCTION_ENTRY, OPERATOR_WEIGHTS};
use sha2::{Digest, Sha256};

use crate::lower::Compiler;

/// Sources of this crate and versions of the code generator, by `build.rs`.
const CODE_GENERATOR: &str = env!("CODE_GENERATOR");

/// The fingerprint of what `compiler` makes of modules under `limits`: the generator's version and settings, the processor's features that
/// it uses, how stores are noticed, the weights of operators, the limits that bounds in the code are computed from.
pub fn fingerprint(compiler: &Compiler, limits: &ModuleLimits) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(CODE_GENERATOR.as_bytes());
    part(cranelift_codegen::VERSION.as_bytes());
    part(compiler.target().as_bytes());
    part(format!("{:?}", compiler.config()).as_bytes());
    for pages in [limits.heap_wasm32, limits.heap_wasm64] {
        part(&pages.0.to_le_bytes());
    }
    for row in OPERATOR_WEIGHTS {
        part(row.operators.join(" ").as_bytes());
        part(&row.wasm32.0.to_le_bytes());
        part(&row.wasm64.0.to_le_bytes());
    }
    part(&FUNCTION_ENTRY.0.to_le_bytes());
    part(&BULK_PER_UNIT.0.to_le_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::{Config, Tracking};
    use cyclotron_types::module_limits::MODULE_LIMITS;

    #[test]
    fn code_of_another_kind_has_another_fingerprint() {
        let with = |config: Config| fingerprint(&Compiler::new(config).unwrap(), &MODULE_LIMITS);
        let usual = Config::default();
        let mut seen = vec![with(usual)];
        assert_eq!(seen[0], with(usual), "the same on every start");
        for tracking in [Tracking::Protect, Tracking::None] {
            seen.push(with(Config { tracking, ..usual }));
        }
        seen.push(with(Config { metering: false, ..usual }));
        seen.push(with(Config { calls: true, ..usual }));
        let mut limits = MODULE_LIMITS;
        limits.heap_wasm64.0 -= 1;
        seen.push(fingerprint(&Compiler::new(usual).unwrap(), &limits));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn the_target_names_the_processors_features() {
        let target = Compiler::new(Config::default()).unwrap().target();
        for setting in ["opt_level", "enable_nan_canonicalization", "has_sse41=1", "has_avx2="] {
            assert!(target.contains(setting), "{setting} in {target}");
        }
    }
}
