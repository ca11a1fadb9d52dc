//! Lowering as text: Wasm above, machine code below.

use super::*;
use expect_test::{Expect, expect};
use wasmparser::{Parser, Payload, TypeRef};

/// One for every operator but the structural ones, as most of the real weights are.
struct One;

impl OperatorCost for One {
    fn cost(&self, op: &Operator<'_>) -> u32 {
        match op {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::Else | Operator::End => 0,
            Operator::Call { .. } => 5,
            _ => 1,
        }
    }
}

/// As much of a decoder as these tests need.
fn decode(wasm: &[u8]) -> ModuleInfo<'_> {
    let mut info = ModuleInfo::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.unwrap() {
            Payload::TypeSection(reader) => {
                info.types = reader.into_iter_err_on_gc_types().map(|ty| ty.unwrap()).collect();
            }
            Payload::ImportSection(reader) => {
                for import in reader.into_imports() {
                    let TypeRef::Func(ty) = import.unwrap().ty else { panic!("only functions are imported here") };
                    info.functions.push(ty);
                    info.imported_functions += 1;
                }
            }
            Payload::FunctionSection(reader) => info.functions.extend(reader.into_iter().map(|ty| ty.unwrap())),
            Payload::GlobalSection(reader) => {
                info.globals = reader
                    .into_iter()
                    .map(|global| {
                        let ty = global.unwrap().ty;
                        GlobalInfo { ty: ty.content_type, mutable: ty.mutable, init: None }
                    })
                    .collect();
            }
            Payload::TableSection(reader) => {
                info.tables = reader
                    .into_iter()
                    .map(|table| {
                        let ty = table.unwrap().ty;
                        TableInfo { table64: ty.table64, min: ty.initial, max: ty.maximum, shared: false }
                    })
                    .collect();
            }
            Payload::MemorySection(reader) => {
                let ty = reader.into_iter().next().unwrap().unwrap();
                info.memory = Some(MemoryInfo { memory64: ty.memory64, min: ty.initial, max: ty.maximum });
            }
            Payload::CodeSectionEntry(body) => info.bodies.push(body),
            _ => {}
        }
    }
    info
}

/// The machine code of the first function, as Cranelift writes it.
fn text(config: Config, wat: &str) -> String {
    let wasm = wat::parse_str(wat).unwrap();
    let module = decode(&wasm);
    let compiler = Compiler::new(config).unwrap();
    // An expectation cannot hold the indentation that all lines share.
    let text = link::first_function_text(&compiler, &module, &One).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_start())).collect()
}

const PLAIN: Config = Config { metering: false, tracking: Tracking::None, verify: true, calls: false };

fn check(config: Config, wat: &str, expected: Expect) {
    expected.assert_eq(&text(config, wat));
}

#[test]
fn a_load_is_one_instruction() {
    check(
        PLAIN,
        "(module (memory 1) (func (param i32) (result i32) (i32.load offset=8 (local.get 0))))",
        expect![[r#"
            0  pushq %rbp
            1  movq %rsp, %rbp
            4  cmpq $0xa, %rsi
            8  jl 0x1e
            e  movl %edx, %r8d
            11  movl 0x10008(%rdi, %r8), %eax
            19  movq %rbp, %rsp
            1c  popq %rbp
            1d  retq
            1e  ud2
        "#]],
    );
}

#[test]
fn a_loop_head_charges_once() {
    check(
        Config { tracking: Tracking::None, ..Config::default() },
        "(module (func (param i32) (result i32)
            (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (local.get 0)))",
        expect![[r#"
            0  pushq %rbp
            1  movq %rsp, %rbp
            4  cmpq $0xb, %rsi
            8  jl 0x79
            e  nopw (%rax, %rax)
            1a  addq $-1, %r15
            1e  jl 0x7b
            24  nopw (%rax, %rax)
            30  addq $-5, %r15
            34  jl 0x7d
            3a  movq %rdx, %rax
            3d  cmpl $1, %eax
            40  je 0x64
            46  nopw (%rax, %rax)
            52  addq $-5, %r15
            56  jl 0x7f
            5c  subl $1, %eax
            5f  jmp 0x3d
            64  addq $-1, %r15
            71  subl $1, %eax
            74  movq %rbp, %rsp
            77  popq %rbp
            78  retq
            79  ud2
            7b  ud2
            7d  ud2
            7f  ud2
        "#]],
    );
}

#[test]
fn a_second_store_near_the_first_is_not_tested() {
    check(
        Config { metering: false, ..Config::default() },
        "(module (memory 1) (func (param i32)
            (i32.store offset=4 (local.get 0) (i32.const 1))
            (i64.store offset=500 (local.get 0) (i64.const 1))))",
        expect![[r#"
            0  pushq %rbp
            1  movq %rsp, %rbp
            4  cmpq $0xb, %rsi
            8  jl 0x47
            e  movl %edx, %r8d
            11  movq %r8, %r9
            14  shrq $0xc, %r9
            18  cmpb $0, %cs:-0x200000(%rdi, %r9)
            24  je 0x4b
            2a  movl $1, 0x10004(%rdi, %r8)
            36  movq $1, 0x101f4(%rdi, %r8)
            42  movq %rbp, %rsp
            45  popq %rbp
            46  retq
            47  ud2
            49  ud2
            4b  pushq %r9
            4d  pushq %rdi
            4e  callq 0x53
            53  jmp 0x2a
        "#]],
    );
}
