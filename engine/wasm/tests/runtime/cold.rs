//! Heaps that lie in a store: compiled code runs on them, and reads the pages that it touches.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cyclotron_heap::layout::{BLOCK_PAGES, PAGE};
use cyclotron_heap::{Arena, Heap, PageAt, PageRun, PageStore, SeatPool};
use cyclotron_types::units::{Instructions, WasmPages};
use cyclotron_wasm::Engine;
use cyclotron_wasm::runtime::{
    Caller, Entry, Execution, Finished, Host, HostFn, HostTrap, Instance, Outcome, Seated, Value,
};
use cyclotron_wasm::validate::Rules;
use cyclotron_wasm::{EngineConfig, lower::Tracking};
use wasmparser::{FuncType, ValType};

/// Every page begins with its index; counts what is read.
#[derive(Debug)]
struct Numbers {
    read: AtomicU64,
    damaged: AtomicU64,
}

impl PageStore for Numbers {
    fn read(&self, at: PageAt, into: &mut [u8]) -> Result<(), String> {
        for (n, page) in into.as_chunks_mut::<PAGE>().0.iter_mut().enumerate() {
            let index = u64::from(at.index) + n as u64;
            if index == self.damaged.load(Ordering::Relaxed) {
                return Err(format!("page {index} of a file is damaged"));
            }
            page.fill(0);
            page[..8].copy_from_slice(&index.to_le_bytes());
            self.read.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn hold(&self, _file: u32) -> Arc<()> {
        // All of it stays.
        Arc::default()
    }
}

const TEXT: &str = r#"(module
    (import "env" "sum" (func $sum (param i32 i32) (result i64)))
    (import "env" "put" (func $put (param i32)))
    (memory 65535 65536)
    (data $d "\01\02\03\04\05\06\07\08")
    ;; The sum of the numbers of three pages.
    (func (export "three") (param i32 i32 i32) (result i64)
        (i64.add (i64.load (local.get 0)) (i64.add (i64.load (local.get 1)) (i64.load (local.get 2)))))
    (func (export "vector") (param i32) (result i64)
        (i64x2.extract_lane 0 (v128.load (local.get 0))))
    ;; Begins on one block and ends on the next.
    (func (export "across") (param i32) (result i64) (i64.load offset=65532 (local.get 0)))
    (func (export "store") (param i32) (result i64)
        (i64.store offset=8 (local.get 0) (i64.load (local.get 0)))
        (i64.load offset=8 (local.get 0)))
    (func (export "copy") (param i32 i32) (result i64)
        (memory.copy (i32.add (local.get 0) (i32.const 8)) (local.get 1) (i32.const 8))
        (i64.load offset=8 (local.get 0)))
    (func (export "fill") (param i32) (result i64)
        (memory.fill (i32.add (local.get 0) (i32.const 9)) (i32.const 1) (i32.const 1))
        (i64.load (local.get 0)))
    (func (export "init") (param i32) (result i64)
        (memory.init $d (i32.add (local.get 0) (i32.const 8)) (i32.const 0) (i32.const 8))
        (i64.load (local.get 0)))
    (func (export "read by the host") (param i32) (result i64) (call $sum (local.get 0) (i32.const 8)))
    (func (export "written by the host") (param i32) (result i64)
        (call $put (i32.add (local.get 0) (i32.const 8)))
        (i64.load offset=8 (local.get 0)))
    (func (export "grow") (param i32) (result i64)
        (drop (memory.grow (i32.const 1)))
        (i64.store (i32.const 0xffff0000) (i64.const 5))
        (i64.add (i64.load (i32.const 0xffff0000)) (i64.load (local.get 0))))
    ;; Works for a while between two looks.
    (func (export "slowly") (param i32 i32) (result i64) (local $i i32)
        (i64.store offset=8 (local.get 0) (i64.const 1))
        (loop $l
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 10000))))
        (i64.add (i64.load (local.get 0)) (i64.load (local.get 1)))))"#;

#[derive(Debug)]
struct Sums;

impl Host for Sums {
    fn call(&mut self, caller: &mut Caller<'_>, function: HostFn, args: &[u64]) -> Result<u64, HostTrap> {
        if function.0 == 0 {
            let bytes = caller.read(args[0], args[1])?;
            return Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        }
        caller.copy_in(args[0], &7_u64.to_le_bytes())?;
        Ok(0)
    }
}

fn engines() -> [Engine; 2] {
    [Tracking::Cards, Tracking::Protect].map(|tracking| {
        let function = |params: &[ValType], results: &[ValType]| {
            cyclotron_wasm::validate::Given::Function(FuncType::new(params.iter().copied(), results.iter().copied()))
        };
        let given = [
            (("env".to_owned(), "sum".to_owned()), function(&[ValType::I32, ValType::I32], &[ValType::I64])),
            (("env".to_owned(), "put".to_owned()), function(&[ValType::I32], &[])),
        ];
        let mut config = EngineConfig::with_rules(Rules::plain(given));
        config.code.tracking = tracking;
        Engine::new(config).unwrap()
    })
}

struct Cold {
    store: Arc<Numbers>,
    heap: Heap,
    instance: Instance,
    pool: SeatPool,
}

/// A heap of almost 4 GiB in a store; page n holds n + 1.
fn cold(engine: &Engine) -> Cold {
    let module = engine.compile(&wat::parse_str(TEXT).unwrap()).unwrap();
    let store = Arc::new(Numbers { read: AtomicU64::new(0), damaged: AtomicU64::new(u64::MAX) });
    let mut heap = Arena::new().unwrap().new_heap(WasmPages(65_535), module.heap_pages_max()).unwrap();
    let run = PageRun { first: 0, count: 65_535 * BLOCK_PAGES as u32, at: PageAt { file: 1, index: 1 } };
    let shared: Arc<dyn PageStore> = Arc::clone(&store) as _;
    heap.lie_in(&shared, vec![run]);
    Cold { store, heap, instance: Instance::new(module), pool: SeatPool::new(2) }
}

impl Cold {
    fn seated(&mut self, is_view: bool) -> Seated {
        if is_view {
            let version = self.pool.publish(&mut self.heap);
            let seat = self.pool.take_view(&version, self.instance.module().tracking()).unwrap();
            let mut seated = self.instance.clone().attach_view(seat);
            seated.begin_view(&version).unwrap();
            return seated;
        }
        let seat = self.pool.take(&self.heap, self.instance.module().tracking()).unwrap();
        let mut seated = self.instance.clone().attach(seat);
        seated.begin_message(&self.heap).unwrap();
        seated
    }

    /// Runs in slices, on a thread of its own each.
    fn run(&mut self, is_view: bool, export: &str, args: &[Value]) -> Finished<Sums> {
        let seated = self.seated(is_view);
        let mut execution = Execution::start(seated, Entry::Export(export), args, Sums, Instructions(1 << 30)).unwrap();
        loop {
            let resume = move || execution.resume(Instructions(2_000));
            match std::thread::spawn(resume).join().unwrap() {
                Outcome::Suspended(suspended) => execution = suspended,
                Outcome::Finished(finished) => return finished,
            }
        }
    }
}

#[test]
fn compiled_code_reads_the_blocks_that_it_touches_and_no_others() {
    let at = |page: u32| Value::I32((page * PAGE as u32) as i32);
    let (a, b, c) = (33, 500_003, 900_000);
    let cases: &[(&str, Vec<Value>, u64, u64)] = &[
        ("three", vec![at(a), at(b), at(c)], u64::from(a + b + c) + 3, 3),
        ("vector", vec![at(b)], u64::from(b) + 1, 1),
        // The last four bytes of one page, zero, and the first four of the next.
        ("across", vec![at(48)], 65 << 32, 2),
        ("store", vec![at(b)], u64::from(b) + 1, 1),
        ("copy", vec![at(b), at(c)], u64::from(c) + 1, 2),
        ("fill", vec![at(b)], u64::from(b) + 1, 1),
        ("init", vec![at(c)], u64::from(c) + 1, 1),
        ("read by the host", vec![at(b)], u64::from(b) + 1, 1),
        ("written by the host", vec![at(b)], 7, 1),
        ("grow", vec![at(b)], u64::from(b) + 6, 1),
        ("slowly", vec![at(b), at(c)], u64::from(b + c) + 2, 2),
    ];
    let [cards, protect] = engines();
    for (export, args, expected, blocks) in cases {
        let mut charged = Vec::new();
        for engine in [&cards, &protect] {
            for is_view in [false, true] {
                let mut cold = cold(engine);
                let mut finished = cold.run(is_view, export, args);
                let what = format!("{export}, a view: {is_view}");
                assert_eq!(finished.result.clone().unwrap(), [Value::I64(*expected as i64)], "{what}");
                let read = cold.store.read.load(Ordering::Relaxed);
                assert_eq!(read, blocks * BLOCK_PAGES as u64, "{what}");
                charged.push((finished.instructions, finished.dirty_pages));
                finished.seated.rollback();
                cold.pool.put(finished.seated.detach().1);
                // Again, with the pages there.
                let again = cold.run(is_view, export, args);
                assert_eq!(again.result.unwrap(), [Value::I64(*expected as i64)], "{what}");
                assert_eq!(cold.store.read.load(Ordering::Relaxed), read, "{what}");
                charged.push((again.instructions, again.dirty_pages));
            }
        }
        charged.dedup();
        assert_eq!(charged.len(), 1, "{export}: what is charged depends on nothing of this");
    }
}

const VARIABLE: &str = "CYCLOTRON_LOST_PAGE_TEST";

#[test]
fn a_lost_page_ends_the_process_before_anything_is_executed_on_it() {
    let ways = ["three", "store", "copy", "fill", "init", "read by the host", "written by the host"];
    if let Ok(way) = std::env::var(VARIABLE) {
        let (way, engine) = way.split_once(' ').unwrap();
        let mut cold = cold(&engines()[engine.parse::<usize>().unwrap()]);
        cold.store.damaged.store(500_003 + 1, Ordering::Relaxed);
        let lost = Value::I32((500_003 * PAGE as u32) as i32);
        let export = ways[way.parse::<usize>().unwrap()];
        let args = match export {
            "three" => vec![lost; 3],
            "copy" => vec![Value::I32(0), lost],
            _ => vec![lost],
        };
        let finished = cold.run(false, export, &args);
        println!("not stopped: {:?}, {}", finished.result, cold.store.read.load(Ordering::Relaxed));
        return;
    }
    for (way, export) in ways.iter().enumerate() {
        for engine in 0..2 {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["cold::a_lost_page_ends_the_process_before_anything_is_executed_on_it", "--exact"])
                .args(["--nocapture", "--test-threads=1"])
                .env(VARIABLE, format!("{way} {engine}"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{export}: {said}");
            assert!(said.contains("is lost: page 500004 of a file is damaged"), "{export}: {said}");
        }
    }
}
