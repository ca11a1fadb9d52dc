//! Faults that are not a canister's: they end the process, with the right words. Each runs in a child process.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use cyclotron_wasm::Standalone;
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Value};

use crate::{NoHost, call, engine_with, standalone};

const VARIABLE: &str = "CYCLOTRON_FAULT_TEST";

/// Runs `child` in a process of its own, as the same test; `None` in the child, which should not come back.
fn in_child(test: &str, child: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(VARIABLE).is_some() {
        // The handlers are installed by the first execution.
        let mut instance = standalone(r#"(module (func (export "go") unreachable))"#);
        assert!(call(&mut instance, "go", &[]).result.is_err());
        child();
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    Some(output)
}

fn assert_died(output: Option<Output>, signal: i32, words: &str) {
    let Some(output) = output else { return };
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(signal), "{text}");
    assert!(text.contains(words), "{text}");
}

#[allow(unconditional_recursion, reason = "the point of the test")]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let block = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + block[(depth % 64) as usize]
}

#[test]
fn rust_still_reports_its_own_stack_overflows() {
    let child = || {
        let thread = std::thread::spawn(|| {
            let mut instance = standalone(r#"(module (func (export "go") (result i32) (i32.const 1)))"#);
            assert_eq!(call(&mut instance, "go", &[]).result, Ok(vec![Value::I32(1)]));
            recurse(0)
        });
        let _ = thread.join();
    };
    let output = in_child("faults::rust_still_reports_its_own_stack_overflows", child);
    assert_died(output, libc::SIGABRT, "has overflowed its stack");
}

#[test]
fn a_foreign_fault_ends_the_process_as_ever() {
    let child = || {
        // SAFETY: none: the fault is the point; nothing is mapped at this address.
        unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() };
    };
    assert_died(in_child("faults::a_foreign_fault_ends_the_process_as_ever", child), libc::SIGSEGV, "");
}

/// A host whose only function misbehaves.
struct Bad(fn());

impl Host for Bad {
    fn call(&mut self, _: &mut Caller<'_>, _: HostFn, _: &[u64]) -> Result<u64, HostTrap> {
        self.0();
        Ok(0)
    }
}

fn with_bad_host(misbehave: fn()) {
    let engine = engine_with(&[("bad", &[], &[])]);
    let text = r#"(module (import "env" "bad" (func $bad)) (func (export "go") (call $bad)))"#;
    let module = engine.compile(&wat::parse_str(text).unwrap()).unwrap();
    let mut instance = Standalone::new(module, NoHost).unwrap().0;
    let _ = instance.run(Entry::Export("go"), &[], Bad(misbehave));
}

#[test]
fn a_fault_of_a_host_function_is_not_the_canisters() {
    let child = || {
        with_bad_host(|| {
            // SAFETY: none: the fault is the point; nothing is mapped at this address.
            unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() };
        });
    };
    assert_died(in_child("faults::a_fault_of_a_host_function_is_not_the_canisters", child), libc::SIGSEGV, "");
}

#[test]
fn a_host_function_that_overflows_the_stack_is_named() {
    let child = || {
        with_bad_host(|| {
            recurse(0);
        });
    };
    let output = in_child("faults::a_host_function_that_overflows_the_stack_is_named", child);
    assert_died(output, libc::SIGABRT, "a host function overflowed the execution's native stack");
}
