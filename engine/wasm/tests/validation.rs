//! Every rule for canister modules has a module that breaks it, and broken bytes never panic.

use std::io::Write;

use cyclotron_types::imports::{IMPORTS, ImportScope, ImportType, MemoryKind};
use cyclotron_types::module_limits::MODULE_LIMITS;
use cyclotron_wasm::decode::{self, ConstExpr, MethodKind, SystemMethod};
use cyclotron_wasm::validate::{ModuleError, Rules};
use expect_test::{Expect, expect};

fn load_wat(wat: &str) -> Result<(), ModuleError> {
    let wasm = wat::parse_str(wat).expect("well-formed text");
    decode::load(&wasm, &Rules::canister()).map(|_| ())
}

/// The text a client sees for this module.
fn check(wat: &str, expect: Expect) {
    let text = match load_wat(wat) {
        Ok(()) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    };
    expect.assert_eq(&text);
}

#[test]
fn a_canister_is_taken_apart() {
    let wasm = wat::parse_str(
        r#"(module
            (import "ic0" "msg_reply" (func $reply))
            (memory (export "memory") 1 10)
            (global $g (mut i64) (i64.const -5))
            (table 3 funcref)
            (elem (i32.const 1) $reply $f)
            (data (i32.const 8) "hello")
            (data "passive")
            (func $f (export "canister_update go") call $reply)
            (func (export "canister_query look") (export "canister_init"))
            (func (export "canister_on_low_wasm_memory"))
            (func (export "helper") (param i32))
            (start $f)
            (@custom "icp:public candid:service" "service : {}")
            (@custom "icp:private " "secret")
            (@custom "producers" "x"))"#,
    )
    .unwrap();
    let module = decode::load(&wasm, &Rules::canister()).unwrap();
    assert_eq!(module.entry_points.method(MethodKind::Update, "go"), Some(1));
    assert_eq!(module.entry_points.method(MethodKind::Query, "go"), None);
    assert_eq!(module.entry_points.method(MethodKind::Query, "look"), Some(2));
    assert_eq!(module.entry_points.system.get(&SystemMethod::Init), Some(&2));
    assert_eq!(module.entry_points.system.get(&SystemMethod::OnLowWasmMemory), Some(&3));
    assert_eq!(module.start, Some(1));
    assert_eq!(module.function_names.get(&0), Some(&"reply"));
    assert!(module.metadata["candid:service"].public);
    assert!(!module.metadata[""].public);
    assert_eq!(module.metadata.len(), 2);
    assert_eq!(module.data[0].bytes, b"hello");
    assert_eq!(module.elements[0].len, 2);
    assert_eq!(module.elements[0].items().collect::<Vec<_>>(), [ConstExpr::RefFunc(0), ConstExpr::RefFunc(1)]);
    // `call; end`, three times `end`, and two for the global.
    assert_eq!(module.compile_operators(), 2 + 3 + 2);
}

#[test]
fn every_import_exists_with_the_type_of_either_memory() {
    for (memory, address, kind) in
        [("(memory 1)", "i32", MemoryKind::Wasm32), ("(memory i64 1)", "i64", MemoryKind::Wasm64)]
    {
        for row in IMPORTS {
            let name = |ty: &ImportType| match ty {
                ImportType::I32 => "i32",
                ImportType::I64 => "i64",
                ImportType::I => address,
            };
            let params: Vec<&str> = row.params.iter().map(name).collect();
            let result = row.result.iter().map(|ty| format!("(result {})", name(ty))).collect::<String>();
            let wat = format!(
                r#"(module (import "ic0" "{}" (func (param {}) {result})) {memory})"#,
                row.name,
                params.join(" ")
            );
            let loaded = load_wat(&wat);
            if kind == MemoryKind::Wasm64 && row.scope == ImportScope::Wasm32Only {
                assert_eq!(loaded, Err(ModuleError::ImportNotIn64Bit { name: row.name.to_owned() }));
            } else {
                assert_eq!(loaded, Ok(()), "{wat}");
            }
        }
    }
}

#[test]
fn imports_follow_the_rules() {
    check(
        r#"(module (import "ic0" "msg_replay" (func)))"#,
        expect![
            "Wasm module has an invalid import section. Module imports function 'msg_replay' from 'ic0' that is not exported by the runtime."
        ],
    );
    check(
        r#"(module (import "env" "msg_reply" (func)))"#,
        expect![[
            r#"Wasm module has an invalid import section. Module imports function "msg_reply" from "env", expected to be imported from one of ["ic0"] instead."#
        ]],
    );
    check(
        r#"(module (import "__" "out_of_instructions" (func)))"#,
        expect![
            "Wasm module has an invalid import section. Module imports function 'out_of_instructions' from '__' that is not exported by the runtime."
        ],
    );
    check(
        r#"(module (import "ic0" "msg_reply" (func (param i32))))"#,
        expect!["Wasm module has an invalid function signature. Expected input params [] for 'msg_reply', got [I32]."],
    );
    check(
        r#"(module (import "ic0" "time" (func (result i32))))"#,
        expect!["Wasm module has an invalid function signature. Expected return type [I64] for 'time', got [I32]."],
    );
    check(
        r#"(module (import "ic0" "msg_caller_size" (func (result i32))) (memory i64 1))"#,
        expect![
            "Wasm module has an invalid function signature. Expected return type [I64] for 'msg_caller_size', got [I32]."
        ],
    );
    check(
        r#"(module (import "ic0" "stable_size" (func (result i32))) (memory i64 1))"#,
        expect![
            "Wasm module has an invalid import section. Module imports function 'stable_size' from 'ic0' that is not exported by the runtime to modules with a 64-bit memory."
        ],
    );
    check(
        r#"(module (import "env" "memory" (memory 1)))"#,
        expect!["Wasm module has an invalid import section. Importing a memory is not allowed ('memory' from 'env')."],
    );
    check(
        r#"(module (import "env" "table" (table 1 funcref)))"#,
        expect!["Wasm module has an invalid import section. Importing a table is not allowed ('table' from 'env')."],
    );
    check(
        r#"(module (import "env" "g" (global i32)))"#,
        expect!["Wasm module has an invalid import section. Importing a global is not allowed ('g' from 'env')."],
    );
}

#[test]
fn exports_follow_the_rules() {
    check(
        r#"(module (func (export "canister_update x") (param i32)))"#,
        expect![
            "Wasm module has an invalid function signature. Expected input params [] for 'canister_update x', got [I32]."
        ],
    );
    check(
        r#"(module (func (export "canister_heartbeat") (result i64) i64.const 0))"#,
        expect![
            "Wasm module has an invalid function signature. Expected return type [] for 'canister_heartbeat', got [I64]."
        ],
    );
    check(
        r#"(module (import "ic0" "time" (func $t (result i64))) (export "canister_query time" (func $t)))"#,
        expect![
            "Wasm module has an invalid function signature. Expected return type [] for 'canister_query time', got [I64]."
        ],
    );
    check(
        r#"(module (func $f) (export "canister_update x" (func $f)) (export "canister_query x" (func $f)))"#,
        expect![
            "Duplicate function 'x' exported multiple times with different call types: update, query, or composite_query."
        ],
    );
    check(
        r#"(module (func (export "canister_query")))"#,
        expect![[
            r#"Wasm module has an invalid export section. Exporting reserved function 'canister_query' with "canister_" prefix"#
        ]],
    );
    check(
        r#"(module (func (export "canister_start")))"#,
        expect!["Wasm module has an invalid export section. Exporting reserved symbol canister_start not allowed."],
    );
    check(
        r#"(module (memory (export "stable_memory") 1))"#,
        expect!["Wasm module has an invalid export section. Exporting reserved symbol stable_memory not allowed."],
    );
    // An export of another kind may carry the prefix.
    check(r#"(module (memory (export "canister_memory") 1))"#, expect!["accepted"]);
    // Everything after the first space is the name.
    check(r#"(module (func (export "canister_query a b ")))"#, expect!["accepted"]);
}

#[test]
fn methods_are_limited_in_number_and_length() {
    let methods = |count: usize, len: usize| {
        let exports: String = (0..count).map(|i| format!(r#"(export "canister_query {i:0len$}" (func 0))"#)).collect();
        format!("(module (func) {exports})")
    };
    check(&methods(1_000, 20), expect!["accepted"]);
    check(
        &methods(1_001, 4),
        expect![
            "The number of exported functions called `canister_update <name>`, `canister_query <name>`, or `canister_composite_query <name>` is 1001 which exceeds 1000."
        ],
    );
    check(
        &methods(1_000, 21),
        expect![
            "The sum of `<name>` lengths in exported functions called `canister_update <name>`, `canister_query <name>`, or `canister_composite_query <name>` is 21000 which exceeds the allowed limit of 20000."
        ],
    );
}

#[test]
fn definitions_are_limited_in_number() {
    check(&format!("(module {})", "(global i32 (i32.const 0))".repeat(1_000)), expect!["accepted"]);
    check(
        &format!("(module {})", "(global i32 (i32.const 0))".repeat(1_001)),
        expect!["Wasm module defined 1001 globals which exceeds the maximum number allowed 1000."],
    );
    check(&format!("(module {})", "(func)".repeat(50_000)), expect!["accepted"]);
    check(
        &format!("(module {})", "(func)".repeat(50_001)),
        expect!["Wasm module defined 50001 functions which exceeds the maximum number allowed 50000."],
    );
    check("(module (table 1000000 funcref))", expect!["accepted"]);
    check(
        "(module (table 1000001 funcref))",
        expect![
            "Wasm module declares table 0 of 1000001 elements which exceeds the maximum allowed number of 1000000."
        ],
    );
    check(
        "(module (table 1 funcref) (table 1 externref))",
        expect!["Wasm module defined 2 tables which exceeds the maximum number allowed 1."],
    );
    check("(module (memory i64 98304))", expect!["accepted"]);
    check(
        "(module (memory i64 98305))",
        expect![
            "Wasm module declares an initial Wasm64 heap memory size of 98305 pages which exceeds the maximum allowed size of 98304 pages."
        ],
    );
    check(
        "(module (global funcref (ref.null func)))",
        expect!["Wasm module has an invalid global section. Unsupported global type: funcref (global 0)"],
    );
    // A message's globals of vector type do persist.
    check("(module (global (mut v128) (v128.const i64x2 1 2)))", expect!["accepted"]);
}

#[test]
fn segments_follow_the_rules() {
    check(
        r#"(module (memory 1) (data (i32.const 65535) "ab"))"#,
        expect!["Wasm module has invalid data segment of 2 bytes at 65535 (segment 0)"],
    );
    check(
        r#"(module (memory 1) (data (i32.const -1) ""))"#,
        expect!["Wasm module has invalid data segment of 0 bytes at 4294967295 (segment 0)"],
    );
    check(
        r#"(module (memory i64 1) (data (i64.const -1) "ab"))"#,
        expect!["Wasm module has invalid data segment of 2 bytes at 18446744073709551615 (segment 0)"],
    );
    check(r#"(module (memory 1) (data (i32.const 65536) "") (data "passive"))"#, expect!["accepted"]);
    check(
        r#"(module (table 1 funcref) (func $f) (elem (i32.const 1) $f))"#,
        expect!["Wasm module has invalid element segment of 1 elements at 1 (segment 0)"],
    );
    // An imported global would be needed to get past Wasm validation with anything but a constant.
    check(
        r#"(module (global $g i32 (i32.const 0)) (memory 1) (data (global.get $g) ""))"#,
        expect![
            "Failed to validate wasm module: constant expression required: global.get of locally defined global (at offset 0x19)"
        ],
    );
}

#[test]
fn functions_are_limited_in_size_and_complexity() {
    let nops = |n: usize| format!("(module (func {}))", "nop ".repeat(n));
    check(&nops(999_999), expect!["accepted"]);
    check(
        &nops(1_000_000),
        expect![
            "Wasm module contains a function at index 0 with complexity 1000001 which exceeds the maximum complexity allowed 1000000."
        ],
    );
    let blocks = |n: usize| format!("(module (func) (func {}))", "call 0 ".repeat(n));
    check(&blocks(19_999), expect!["accepted"]);
    check(
        &blocks(20_000),
        expect![
            "Wasm module contains a function at index 1 with complexity 1000001 which exceeds the maximum complexity allowed 1000000."
        ],
    );
    let wasm = wat::parse_str(nops(20)).unwrap();
    let mut rules = Rules::canister();
    rules.limits.function_operators = 20;
    let error = decode::load(&wasm, &rules).unwrap_err();
    assert_eq!(error, ModuleError::FunctionTooLarge { function: 0, size: 21, allowed: 20 });
}

#[test]
fn table_writes_are_not_for_canisters() {
    for (name, body) in [
        ("table.grow", "ref.null func i32.const 0 table.grow 0 drop"),
        ("table.set", "i32.const 0 ref.null func table.set 0"),
        ("table.fill", "i32.const 0 ref.null func i32.const 0 table.fill 0"),
        ("table.copy", "i32.const 0 i32.const 0 i32.const 0 table.copy 0 0"),
        ("table.init", "i32.const 0 i32.const 0 i32.const 0 table.init 0 0"),
    ] {
        let wat = format!("(module (table 1 funcref) (elem func) (func) (func {body}))");
        let error = load_wat(&wat).unwrap_err();
        assert!(
            matches!(error, ModuleError::UnsupportedOperator { function: 1, operator, .. } if operator == name),
            "{error}"
        );
        let wasm = wat::parse_str(&wat).unwrap();
        assert!(decode::load(&wasm, &Rules::plain([])).is_ok(), "{name}");
    }
}

#[test]
fn metadata_sections_follow_the_rules() {
    check(
        r#"(module (@custom "icp:protected x" ""))"#,
        expect![
            "Wasm module has an invalid custom section. Invalid custom section: Custom section 'icp:protected x' has no public/private scope defined."
        ],
    );
    check(
        r#"(module (@custom "icp:public" ""))"#,
        expect![
            "Wasm module has an invalid custom section. 'icp:' section names must have a space after the public/private scope ('icp:public')"
        ],
    );
    check(
        r#"(module (@custom "icp:public x" "") (@custom "icp:private x" ""))"#,
        expect!["Wasm module has an invalid custom section. Invalid custom section: name x already exists"],
    );
    let sections = |n: usize| (0..n).map(|i| format!(r#"(@custom "icp:public {i}" "")"#)).collect::<String>();
    check(&format!("(module {})", sections(16)), expect!["accepted"]);
    check(
        &format!("(module {})", sections(17)),
        expect!["Wasm module defined 17 custom sections which exceeds the maximum number allowed 16."],
    );
    let big = "x".repeat((1 << 20) - 1);
    check(&format!(r#"(module (@custom "icp:public x" "{big}"))"#), expect!["accepted"]);
    check(
        &format!(r#"(module (@custom "icp:public xy" "{big}"))"#),
        expect![
            "Wasm module has an invalid custom section. Invalid custom sections: total size of the custom sections exceeds the maximum allowed: size 1048577 bytes, allowed 1048576 bytes"
        ],
    );
    check(r#"(module (@custom "eth:private" "") (@custom " icp:public" ""))"#, expect!["accepted"]);
}

#[test]
fn sizes_are_limited_before_anything_is_parsed() {
    let leb = |value: usize| {
        let mut bytes: Vec<u8> = (0..5).map(|i| (value >> (7 * i)) as u8 & 0x7f | 0x80).collect();
        bytes[4] &= 0x7f;
        bytes
    };
    // A type, a function of it, and a section of one item that fills it: a body, or a name.
    let module = |section: u8, bytes: usize| {
        let mut wasm = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".to_vec();
        wasm.push(section);
        wasm.extend(leb(bytes));
        wasm.push(1);
        wasm.extend(leb(bytes - 6));
        wasm.resize(wasm.len() + bytes - 6, 0);
        wasm
    };
    let code = MODULE_LIMITS.code_section.0 as usize;
    // The parser's size of the section leaves its item count out: one byte here.
    let error = decode::load(&module(10, code + 2), &Rules::canister()).unwrap_err();
    assert_eq!(error, ModuleError::CodeSectionTooLarge { size: code as u64 + 1, allowed: code as u64 });
    let max = MODULE_LIMITS.module.0;
    let huge = module(0, max as usize);
    let error = decode::load(&huge, &Rules::canister()).unwrap_err();
    assert_eq!(error, ModuleError::ModuleTooLarge { size: huge.len() as u64, allowed: max });
    assert!(matches!(decode::inflate(&huge, MODULE_LIMITS.module), Err(ModuleError::ModuleTooLarge { .. })));
}

#[test]
fn proposals_that_the_replica_refuses_are_refused() {
    for (proposal, wat) in [
        (
            "relaxed simd",
            "(module (func (param v128) (result v128) local.get 0 local.get 0 local.get 0 f64x2.relaxed_madd))",
        ),
        ("threads", "(module (memory 1 1 shared))"),
        ("threads", "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))"),
        ("multi-memory", "(module (memory 1) (memory 1))"),
        ("exceptions", "(module (tag))"),
        ("exceptions", "(module (func (try_table)))"),
        ("extended constants", "(module (global i32 (i32.add (i32.const 0) (i32.const 0))))"),
        ("function references", "(module (type $t (func)) (func (param (ref $t))))"),
        ("function references", "(module (func (param (ref func))))"),
        ("garbage collection", "(module (type (struct)))"),
        ("garbage collection", "(module (func (param anyref)))"),
        ("custom page sizes", "(module (memory 1 (pagesize 1)))"),
        ("wide arithmetic", "(module (func (result i64 i64) i64.const 0 i64.const 0 i64.mul_wide_u))"),
        ("stack switching", "(module (type $f (func)) (type (cont $f)))"),
        ("components", "(component)"),
    ] {
        for rules in [Rules::canister(), Rules::plain([])] {
            let wasm = wat::parse_str(wat).unwrap();
            let error = decode::load(&wasm, &rules).map(|_| ()).unwrap_err();
            assert!(matches!(error, ModuleError::Invalid { .. }), "{proposal}: {error}");
        }
    }
}

#[test]
fn proposals_that_the_replica_accepts_are_accepted() {
    for wat in [
        "(module (memory i64 1) (func (drop (i64.load (i64.const 0)))))",
        "(module (table i64 1 funcref))",
        "(module (func (result v128) v128.const i64x2 0 0))",
        "(module (func (result externref) ref.null extern))",
        "(module (func (result i32 i64) i32.const 0 i64.const 0))",
        "(module (func $f return_call $f))",
        "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))",
        "(module (func (param f32) (result i32) local.get 0 i32.trunc_sat_f32_u i32.extend8_s))",
        "(module (global (export \"g\") (mut i32) (i32.const 0)))",
    ] {
        assert_eq!(load_wat(wat), Ok(()), "{wat}");
    }
}

#[test]
fn broken_bytes_are_refused_without_panic() {
    let wasm = wat::parse_str(
        r#"(module
            (import "ic0" "msg_reply" (func $reply))
            (type $t (func (param i32 v128) (result i32)))
            (memory 1 10) (table 3 funcref) (global (mut f64) (f64.const nan))
            (elem (i32.const 1) $reply $f) (elem declare func $g) (data (i32.const 8) "hello") (data "p")
            (func $f (export "canister_update go") (local i32 i64)
                (block (loop (br_if 1 (local.get 0)) (br_table 0 1 (i32.const 1))))
                (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 0)) call $reply)
            (func $g (type $t) (i32.add (i32.const 1) (i8x16.extract_lane_s 1 (local.get 1))))
            (start $f)
            (@custom "icp:public x" "y"))"#,
    )
    .unwrap();
    assert!(decode::load(&wasm, &Rules::canister()).is_ok());
    for len in 0..wasm.len() {
        let _ = decode::load(&wasm[..len], &Rules::canister());
    }
    for at in 0..wasm.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff, wasm[at] ^ 1, wasm[at].wrapping_add(1)] {
            let mut bad = wasm.clone();
            bad[at] = value;
            let _ = decode::load(&bad, &Rules::canister());
            let _ = decode::load(&bad, &Rules::plain([]));
        }
    }
    // Two bytes at once, from a fixed seed.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let mut bad = wasm.clone();
        for _ in 0..2 {
            let at = next() as usize % bad.len();
            bad[at] = next() as u8;
        }
        let _ = decode::load(&bad, &Rules::canister());
    }
}

#[test]
fn a_gzipped_module_loads_like_the_plain_one() {
    let wasm = wat::parse_str(r#"(module (func (export "canister_update x")))"#).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&wasm).unwrap();
    let zipped = encoder.finish().unwrap();
    let unzipped = decode::inflate(&zipped, MODULE_LIMITS.module).unwrap();
    assert_eq!(unzipped.as_ref(), &wasm[..]);
    assert!(decode::load(&unzipped, &Rules::canister()).is_ok());
}

#[path = "../../../tools/fuzz/checks/corpus.rs"]
#[allow(dead_code, reason = "nothing is edited here")]
mod corpus;
#[path = "../../../tools/fuzz/checks/wasm_module.rs"]
mod wasm_module;

#[test]
fn the_fuzz_targets_corpus_and_its_cuts_are_answered_without_a_panic() {
    let uploads = corpus::read("wasm_module");
    assert!(uploads.len() >= 2, "the corpus is gone");
    for upload in &uploads {
        let taken = wasm_module::check(upload);
        // A cut at each of a thousand places, and a flipped bit there.
        for place in (0..upload.len()).step_by(upload.len().div_ceil(1_000)) {
            wasm_module::check(&upload[..place]);
            let mut flipped = upload.clone();
            flipped[place] ^= 1 << (place % 8);
            wasm_module::check(&flipped);
        }
        assert_eq!(wasm_module::check(upload), taken);
    }
}
