//! Values in and out, instances between messages, resources.

use cyclotron_wasm::runtime::{Entry, Value};

use crate::{NoHost, call, standalone};

#[test]
fn every_type_of_value_goes_in_and_comes_out() {
    let mut instance = standalone(
        r#"(module
            (func (export "id") (param i32 i64 f32 f64 v128 funcref externref) (result i32 i64 f32 f64 v128 funcref externref)
                local.get 0 local.get 1 local.get 2 local.get 3 local.get 4 local.get 5 local.get 6))"#,
    );
    let values = [
        Value::I32(-5),
        Value::I64(i64::MIN),
        Value::F32(0x7fc0_0000),
        Value::F64(0x7ff8_0000_0000_0000),
        Value::V128(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        Value::FuncRef(Some(0)),
        Value::ExternRef(Some(0)),
    ];
    assert_eq!(call(&mut instance, "id", &values).result, Ok(values.to_vec()));
    let nulls: Vec<Value> = values.iter().map(|value| Value::zero(value.ty())).collect();
    assert_eq!(call(&mut instance, "id", &nulls).result, Ok(nulls));
}

const COUNTER: &str = r#"(module
    (memory (export "memory") 1 4)
    (table $t 2 8 funcref)
    (elem (i32.const 0) $bump)
    (elem $passive func $read)
    (data (i32.const 16) "hello")
    (data $d "world")
    (global $g (export "g") (mut i32) (i32.const 7))
    (func $bump (export "bump") (result i32)
        (global.set $g (i32.add (global.get $g) (i32.const 1)))
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
        (i32.load (i32.const 0)))
    (func $read (result i32) (i32.load (i32.const 0)))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "table_state") (result i32)
        ;; 1 if element 1 is null, and the size
        (i32.add (ref.is_null (table.get $t (i32.const 1))) (i32.mul (i32.const 10) (table.size $t))))
    (func (export "change_table") (result i32)
        (table.init $t $passive (i32.const 1) (i32.const 0) (i32.const 1))
        (elem.drop $passive)
        (drop (table.grow $t (ref.func $bump) (i32.const 3)))
        (memory.init $d (i32.const 32) (i32.const 0) (i32.const 5))
        (data.drop $d)
        (call_indirect $t (result i32) (i32.const 1)))
    (export "t" (table $t)))"#;

#[test]
fn heap_and_globals_persist_and_tables_start_anew() {
    let mut instance = standalone(COUNTER);
    assert_eq!(instance.read(16, 5).unwrap(), b"hello");
    assert_eq!(call(&mut instance, "bump", &[]).result, Ok(vec![Value::I32(1)]));
    let run = call(&mut instance, "bump", &[]);
    assert_eq!((run.result, run.dirty_pages), (Ok(vec![Value::I32(2)]), 1));
    assert_eq!(instance.seated().exported_global("g"), Some(Value::I32(9)));
    // One null element of two.
    assert_eq!(call(&mut instance, "table_state", &[]).result, Ok(vec![Value::I32(21)]));
    for _ in 0..2 {
        // Works twice: the segment is not dropped for the next message.
        assert_eq!(call(&mut instance, "change_table", &[]).result, Ok(vec![Value::I32(2)]));
        assert_eq!(instance.read(32, 5).unwrap(), b"world");
        assert_eq!(call(&mut instance, "table_state", &[]).result, Ok(vec![Value::I32(21)]));
    }
}

#[test]
fn a_seat_may_be_left_and_taken_again() {
    let mut instance = standalone(COUNTER);
    for expected in 1..5 {
        assert_eq!(call(&mut instance, "bump", &[]).result, Ok(vec![Value::I32(expected)]));
        instance.reseat().unwrap();
        assert_eq!(instance.seated().exported_global("g"), Some(Value::I32(7 + expected)));
    }
}

#[test]
fn memory_grows_to_its_maximum_and_no_further() {
    let mut instance = standalone(COUNTER);
    assert_eq!(call(&mut instance, "grow", &[Value::I32(2)]).result, Ok(vec![Value::I32(1)]));
    assert_eq!(call(&mut instance, "grow", &[Value::I32(2)]).result, Ok(vec![Value::I32(-1)]));
    assert_eq!(call(&mut instance, "grow", &[Value::I32(1)]).result, Ok(vec![Value::I32(3)]));
    assert_eq!(call(&mut instance, "grow", &[Value::I32(0)]).result, Ok(vec![Value::I32(4)]));
    assert_eq!(instance.heap().size().0, 4);
}

#[test]
fn a_table_element_is_an_entry() {
    let mut instance = standalone(COUNTER);
    let run = instance.run(Entry::TableElement(0), &[], NoHost).unwrap().0;
    assert_eq!(run.result, Ok(vec![Value::I32(1)]));
}

#[test]
fn the_start_function_runs_once() {
    let mut instance = standalone(
        r#"(module (memory 1) (start $s)
            (func $s (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 5))))
            (func (export "get") (result i32) (i32.load (i32.const 0))))"#,
    );
    assert_eq!(call(&mut instance, "get", &[]).result, Ok(vec![Value::I32(5)]));
}
