//! Lowering as text: Wasm above, machine code below.

use super::*;
use crate::abi::TrapCode;
use expect_test::{Expect, expect};
use wasmparser::{BinaryReader, Parser, Payload, TypeRef};

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

fn lower_with(config: Config, wat: &str) -> Result<CompiledModule, LowerError> {
    let wasm = wat::parse_str(wat).unwrap();
    Compiler::new(config).unwrap().lower(&decode(&wasm), &One)
}

/// The machine code of the first function, as Cranelift writes it.
fn text(config: Config, wat: &str) -> String {
    let wasm = wat::parse_str(wat).unwrap();
    let module = decode(&wasm);
    let compiler = Compiler::new(config).unwrap();
    link::first_function_text(&compiler, &module, &One).unwrap()
}

const PLAIN: Config = Config { metering: false, tracking: Tracking::None, verify: true };

fn check(config: Config, wat: &str, expected: Expect) {
    expected.assert_eq(&text(config, wat));
}

#[test]
fn a_load_is_one_instruction() {
    check(
        PLAIN,
        "(module (memory 1) (func (param i32) (result i32) (i32.load offset=8 (local.get 0))))",
        expect![[r#"
              pushq %rbp
              movq %rsp, %rbp
            block0:
              cmpq $0xa, %rsi
              jl #trap=user9
              movl %edx, %r8d
              movl 0x10008(%rdi, %r8), %eax
              movq %rbp, %rsp
              popq %rbp
              retq
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
              pushq %rbp
              movq %rsp, %rbp
            block0:
              cmpq $0xb, %rsi
              jl #trap=user9
              movq    %r15, %rax
              leaq -1(%rax), %rax
              movq    %rax, %r15
              testq %rax, %rax
              jl      label2; j label1
            block1:
              jmp     label3
            block3:
              movq %rdx, %rax
              jmp     label4
            block4:
              movq    %r15, %rcx
              leaq -5(%rcx), %rcx
              movq    %rcx, %r15
              testq %rcx, %rcx
              jl      label6; j label5
            block5:
              jmp     label7
            block7:
              subl $0x1, %eax
              testl %eax, %eax
              jnz     label8; j label9
            block8:
              jmp     label4
            block9:
              movq    %r15, %rcx
              leaq -1(%rcx), %rcx
              movq    %rcx, %r15
              movq %rbp, %rsp
              popq %rbp
              retq
            block2:
              call    User(userextname0)
              jmp     label3
            block6:
              call    User(userextname0)
              jmp     label7
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
              pushq %rbp
              movq %rsp, %rbp
            block0:
              cmpq $0xb, %rsi
              jl #trap=user9
              movl %edx, %esi
              movq %rsi, %r8
              shrq $0xc, %r8
              movzbq -0x200000(%rdi, %r8), %r8
              testb %r8b, %r8b
              jnz     label1; j label2
            block1:
              jmp     label3
            block3:
              movl $0x1, 0x10004(%rdi, %rsi)
              movq $0x1, 0x101f4(%rdi, %rsi)
              movq %rbp, %rsp
              popq %rbp
              retq
            block2:
              call    User(userextname0)
              jmp     label3
        "#]],
    );
}
