//! Queries on views: the state before a running message, whatever that message does meanwhile.

use cyclotron_heap::{Arena, HeapVersion, SeatPool};
use cyclotron_types::units::{Instructions, WasmPages};
use cyclotron_wasm::Engine;
use cyclotron_wasm::runtime::{Entry, Execution, Instance, Outcome, Seated, Value};

use crate::{NoHost, tracking_engines};

const TEXT: &str = r#"(module
    (memory 2)
    (global $g (mut i32) (i32.const 10))
    (data (i32.const 0) "\05")
    (func (export "go")
        (local $i i32)
        (global.set $g (i32.const 11))
        (loop $l
            (i32.store (i32.mul (local.get $i) (i32.const 512)) (i32.const 77))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 200)))))
    (func (export "get") (param i32) (result i32 i32) (global.get $g) (i32.load (local.get 0)))
    (func (export "scribble") (result i32)
        (global.set $g (i32.const 99))
        (i32.store (i32.const 0) (i32.const 99))
        (drop (memory.grow (i32.const 0)))
        (i32.load (i32.const 0))))"#;

fn finish(mut execution: Execution<NoHost>) -> (Seated, Vec<Value>) {
    loop {
        match execution.resume(Instructions(1_000)) {
            Outcome::Suspended(suspended) => execution = suspended,
            Outcome::Finished(finished) => return (finished.seated, finished.result.unwrap()),
        }
    }
}

#[test]
fn a_view_shows_the_state_before_the_message_in_progress() {
    tracking_engines().iter().for_each(check_views);
}

fn check_views(engine: &Engine) {
    let (arena, pool) = (Arena::new().unwrap(), SeatPool::new(8));
    let module = engine.compile(&wat::parse_str(TEXT).unwrap()).unwrap();
    let mut heap = arena.new_heap(WasmPages::ZERO, module.heap_pages_max()).unwrap();
    let instance = Instance::instantiate(module, &mut heap).unwrap();
    let limit = Instructions(1 << 30);

    let query = |version: &HeapVersion, instance: Instance, export: &str, args: &[Value]| {
        let seat = pool.take_view(version, instance.module().tracking()).unwrap();
        let mut view = instance.attach_view(seat);
        view.begin_view(version).unwrap();
        let execution = Execution::start(view, Entry::Export(export), args, NoHost, limit).unwrap();
        let (mut view, values) = finish(execution);
        view.rollback();
        pool.put(view.detach().1);
        values
    };
    let version = pool.publish(&mut heap);
    let args = [Value::I32(0)];
    let before = [Value::I32(10), Value::I32(5)];
    assert_eq!(query(&version, instance.clone(), "get", &args), before);
    assert_eq!(query(&version, instance.clone(), "scribble", &[]), [Value::I32(99)]);
    assert_eq!(query(&version, instance.clone(), "get", &args), before, "a view keeps nothing");

    // An update stands in the middle of its work.
    let seat = pool.take(&heap, instance.module().tracking()).unwrap();
    let mut seated = instance.attach(seat);
    seated.begin_message(&heap).unwrap();
    let execution = Execution::start(seated, Entry::Export("go"), &[], NoHost, limit).unwrap();
    let Outcome::Suspended(execution) = execution.resume(Instructions(1_500)) else { panic!("too short") };
    assert_ne!(execution.seated().read_heap(0, 1).unwrap(), [5]);
    let old = execution.seated().instance_before();
    assert_eq!(query(&version, old.clone(), "get", &args), before);

    let (mut seated, _) = finish(execution);
    seated.commit(&mut heap);
    let (instance, seat) = seated.detach();
    pool.put(seat);
    assert_eq!(query(&version, old, "get", &args), before, "nothing is published yet");
    let version = pool.publish(&mut heap);
    assert_eq!(query(&version, instance, "get", &args), [Value::I32(11), Value::I32(77)]);
}
