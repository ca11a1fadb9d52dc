//! Suite `compile`: how many megabytes of Wasm become machine code in a second.
//!
//! The modules are the counter canister (Rust with ic-cdk and Candid) with its functions repeated until the size is reached; calls inside a copy go
//! to the functions of that copy. Ours includes validation by the rules of canisters, hashing and metering; the cache keeps nothing. What a cache on disk brings a start is in `cached`.

use crate::machine::{self, Clock};
use crate::report::{Bound, Report};
use crate::runner::{Failure, Runner, Sample, Subject, Unit, failed};
use crate::wasmtime_peer::PLAIN;
use cyclotron_wasm::{Engine, EngineConfig};
use std::convert::Infallible;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{CodeSection, FunctionSection, Module};
use wasmparser::{CodeSectionReader, FunctionSectionReader, Parser, Payload, TypeRef};

const SIZES: [(&str, &str, usize); 2] = [("1mb", "1mb_1t", 1_000_000), ("6mb", "6mb_1t", 6_000_000)];

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    let counter = crate::kernels::build("counter")?;
    let threads = machine::threads();
    report.suite("compile", &format!("MB of Wasm a second, on {threads} threads and (_1t) on one; ratios to wasmtime"));
    for (all, one, bytes) in SIZES {
        let cached = runner.wants(&format!("cached_{all}"));
        if !runner.wants(all) && !runner.wants(one) && !cached {
            continue;
        }
        let wasm = repeat_functions(&counter, bytes)?;
        for (case, threads) in [(all, threads), (one, 1)] {
            if runner.wants(case) {
                measure(runner, report, case, &wasm, threads)?;
            }
        }
        if cached {
            crate::cached::measure(runner, report, all, &wasm)?;
        }
    }
    for (ratio, case) in report.ratios("cyclotron", PLAIN.name) {
        report.goal(&format!("cyclotron / wasmtime, {case}"), ratio, Bound::AtLeast(0.9));
    }
    Ok(())
}

fn measure(runner: &Runner, report: &mut Report, case: &str, wasm: &[u8], threads: usize) -> Result<(), Failure> {
    let clock = if threads == 1 { runner.clock } else { Clock::Wall };
    let rate = |seconds: f64| Sample { value: wasm.len() as f64 / 1e6 / seconds, check: 0 };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(failed)?;
    let ours = Engine::new(EngineConfig { cache_bytes: 0, ..EngineConfig::canister() }).map_err(failed)?;
    let mut config = PLAIN.config();
    config.parallel_compilation(threads > 1);
    let peer = wasmtime::Engine::new(&config).map_err(failed)?;
    let subjects = vec![
        Subject::new("cyclotron", || {
            let (seconds, module) = clock.time(|| pool.install(|| ours.compile(wasm)));
            module.map(|_| rate(seconds)).map_err(failed)
        }),
        Subject::new(PLAIN.name, || {
            let (seconds, module) = clock.time(|| wasmtime::Module::new(&peer, wasm));
            module.map(|_| rate(seconds)).map_err(failed)
        }),
    ];
    let measured = runner.measure_rounds(
        case,
        Unit::MbPerS,
        runner.rounds.min(if wasm.len() > 3_000_000 { 3 } else { 5 }),
        subjects,
    )?;
    report.case(case, Unit::MbPerS, PLAIN.name, &measured);
    Ok(())
}

/// Repeats the functions of a module until it has `bytes` bytes; without custom sections.
fn repeat_functions(wasm: &[u8], bytes: usize) -> Result<Vec<u8>, Failure> {
    let (one, two) = (Copies::of(wasm, 1)?, Copies::of(wasm, 2)?);
    let missing = bytes.saturating_sub(one.len());
    Copies::of(wasm, 1 + missing.div_ceil(two.len() - one.len()) as u32)
}

/// Encodes a module anew with its functions several times over.
struct Copies {
    imported: u32,
    defined: u32,
    copies: u32,
    /// The copy whose bodies are being encoded; exports and elements refer to the first.
    copy: u32,
}

impl Copies {
    fn of(wasm: &[u8], copies: u32) -> Result<Vec<u8>, Failure> {
        let (mut imported, mut defined) = (0, 0);
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(failed)? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        imported += u32::from(matches!(import.map_err(failed)?.ty, TypeRef::Func(_)));
                    }
                }
                Payload::FunctionSection(section) => defined = section.count(),
                _ => {}
            }
        }
        let mut module = Module::new();
        Copies { imported, defined, copies, copy: 0 }
            .parse_core_module(&mut module, Parser::new(0), wasm)
            .map_err(failed)?;
        Ok(module.finish())
    }
}

impl Reencode for Copies {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error<Infallible>> {
        Ok(if function < self.imported { function } else { function + self.copy * self.defined })
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        for _ in 0..self.copies {
            utils::parse_function_section(self, functions, section.clone())?;
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        for copy in 0..self.copies {
            self.copy = copy;
            utils::parse_code_section(self, code, section.clone())?;
        }
        self.copy = 0;
        Ok(())
    }

    fn parse_custom_section(
        &mut self,
        _: &mut Module,
        _: wasmparser::CustomSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_copy_stay_inside_it() {
        let text = r#"(module (import "a" "b" (func)) (func $f (export "f") call 0 call $g) (func $g))"#;
        let three = Copies::of(&wat::parse_str(text).unwrap(), 3).unwrap();
        let expected = r#"(module (import "a" "b" (func)) (func $f (export "f") call 0 call 2) (func)
            (func call 0 call 4) (func) (func call 0 call 6) (func))"#;
        assert_eq!(three, Copies::of(&wat::parse_str(expected).unwrap(), 1).unwrap());
    }

    #[test]
    fn a_module_reaches_the_size_asked_for() {
        let wasm = wat::parse_str("(module (func (drop (i32.const 1))) (func))").unwrap();
        let size = repeat_functions(&wasm, 5_000).unwrap().len();
        assert!((5_000..5_040).contains(&size), "{size}");
    }
}
