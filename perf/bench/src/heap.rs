//! Suite `heap`: what a store to a page costs, by how it is noticed.
//!
//! Stores are those of compiled Wasm, metered as a canister's, eight bytes at a time; the time is that of the whole message: stores, undo log,
//! comparison with what was there, commit. What the loop itself costs shows in the subject that notices nothing.

use crate::cyclotron::{CYCLOTRON, NoHost, PROTECT, UNTRACKED, Variant};
use crate::machine::Clock;
use crate::report::{Bound, Report};
use crate::runner::{Failure, Runner, Sample, Subject, Unit, failed};
use cyclotron_heap::{Arena, Heap, SeatPool, Tracking};
use cyclotron_types::units::{Instructions, WasmPages};
use cyclotron_wasm::runtime::{Entry, Execution, Instance, Outcome, Seated, Value};

/// `touch` stores one word in each of `pages` pages (a power of two), `repeats` times, in scattered order and at another place in each page.
/// `fill` stores all words of them in order, `bulk` does so by one `memory.fill`. The value makes every message change what it stores to.
const MODULE: &str = r#"(module
  (memory (export "memory") 16384)
  (func (export "touch") (param $pages i32) (param $repeats i32) (param $value i64) (local $left i32) (local $page i32)
    (loop $again
      (local.set $left (local.get $pages))
      (loop $next
        (local.set $page (i32.and (i32.mul (local.get $left) (i32.const 0x9e3779b1))
                                  (i32.sub (local.get $pages) (i32.const 1))))
        (i64.store
          (i32.add (i32.shl (local.get $page) (i32.const 12))
                   (i32.and (i32.mul (local.get $page) (i32.const 72)) (i32.const 4088)))
          (local.get $value))
        (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (local.set $value (i64.add (local.get $value) (i64.const 1)))
      (br_if $again (local.tee $repeats (i32.sub (local.get $repeats) (i32.const 1))))))
  (func (export "fill") (param $pages i32) (param $repeats i32) (param $value i64) (local $at i32) (local $end i32)
    (local.set $end (i32.shl (local.get $pages) (i32.const 12)))
    (loop $next
      (i64.store (local.get $at) (local.get $value))
      (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (local.get $end)))))
  (func (export "bulk") (param $pages i32) (param $repeats i32) (param $value i64)
    (memory.fill (i32.const 0) (i32.wrap_i64 (local.get $value)) (i32.shl (local.get $pages) (i32.const 12)))))"#;

const SUBJECTS: [Variant; 3] = [CYCLOTRON, PROTECT, UNTRACKED];
/// Stores to each page in `repeated_write`.
const REPEATS: i32 = 5_000;
const GIB_PAGES: i32 = 1 << 18;

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    let wasm = wat::parse_str(MODULE).map_err(failed)?;
    report.suite("heap", "ns a page of 4 KiB, undo and commit included; cyclotron marks cards; ratios to no tracking");
    let pages = runner.size(4_096, 512);
    let case = |report: &mut Report, name: &str, rounds: usize, sample: fn(&mut Bench, i32) -> Cost, pages: i32| {
        if !runner.wants(name) {
            return Ok(());
        }
        let mut subjects = Vec::new();
        for variant in SUBJECTS {
            let mut bench = Bench::new(variant, &wasm, runner.clock)?;
            subjects.push(Subject::new(variant.name, move || {
                let (seconds, pages) = sample(&mut bench, pages)?;
                Ok(Sample { value: Unit::Ns.of_seconds(seconds) / pages, check: 0 })
            }));
        }
        let measured = runner.measure_rounds(name, Unit::Ns, rounds, subjects)?;
        report.case(name, Unit::Ns, UNTRACKED.name, &measured);
        Ok(())
    };
    case(report, "first_write", runner.rounds, first_write, pages)?;
    case(report, "first_write_after_checkpoint", runner.rounds, first_write_after_checkpoint, pages)?;
    case(report, "repeated_write", runner.rounds, repeated_write, pages)?;
    let (fill_pages, fill_rounds) = (runner.size(GIB_PAGES, 4_096), runner.rounds.min(3));
    case(report, "fill_1gib", fill_rounds, fill, fill_pages)?;
    case(report, "fill_1gib_bulk", fill_rounds, bulk, fill_pages)?;
    report.note("first_write_after_checkpoint: a seat that has just mapped the heap; there are no page files yet");
    report.note("repeated_write: ns a store beyond the first to its page, in the same message");
    if let Some(first) = report.median("first_write", CYCLOTRON.name) {
        report.goal("first_write", first, Bound::AtMost(600.0));
    }
    Ok(())
}

/// Seconds, and by how many pages (or stores) to divide them.
type Cost = Result<(f64, f64), Failure>;

fn first_write(bench: &mut Bench, pages: i32) -> Cost {
    Ok((bench.message("touch", pages, 1)?, f64::from(pages)))
}

fn first_write_after_checkpoint(bench: &mut Bench, pages: i32) -> Cost {
    bench.map_anew()?;
    first_write(bench, pages)
}

fn repeated_write(bench: &mut Bench, pages: i32) -> Cost {
    let pages = pages / 16;
    let once = bench.message("touch", pages, 1)?;
    let often = bench.message("touch", pages, 1 + REPEATS)?;
    Ok(((often - once).max(0.0), f64::from(pages) * f64::from(REPEATS)))
}

fn fill(bench: &mut Bench, pages: i32) -> Cost {
    Ok((bench.message("fill", pages, 1)?, f64::from(pages)))
}

fn bulk(bench: &mut Bench, pages: i32) -> Cost {
    Ok((bench.message("bulk", pages, 1)?, f64::from(pages)))
}

/// An instance of the module in a seat, and the next value to store.
struct Bench {
    seated: Option<Seated>,
    heap: Heap,
    pool: SeatPool,
    tracking: Tracking,
    tracked: bool,
    clock: Clock,
    value: i64,
}

impl Bench {
    fn new(variant: Variant, wasm: &[u8], clock: Clock) -> Result<Self, Failure> {
        let engine = variant.engine()?;
        let module = engine.compile(wasm).map_err(failed)?;
        let mut heap =
            Arena::new().and_then(|arena| arena.new_heap(WasmPages::ZERO, module.heap_pages_max())).map_err(failed)?;
        let (pool, tracking) = (SeatPool::new(2), module.tracking());
        let instance = Instance::instantiate(module, &mut heap).map_err(failed)?;
        let seated = instance.attach(pool.take(&heap, tracking).map_err(failed)?);
        let tracked = variant.name != UNTRACKED.name;
        Ok(Self { seated: Some(seated), heap, pool, tracking, tracked, clock, value: 0 })
    }

    /// Runs an export as one message; seconds.
    fn message(&mut self, export: &str, pages: i32, repeats: i32) -> Result<f64, Failure> {
        // Every byte of it differs from the last value's.
        self.value = self.value.wrapping_add(0x0101_0101_0101_0101);
        let args = [Value::I32(pages), Value::I32(repeats), Value::I64(self.value)];
        let mut seated = self.seated.take().ok_or_else(|| Failure("the last message failed".into()))?;
        let start = self.clock.now();
        seated.begin_message(&self.heap).map_err(failed)?;
        let execution =
            Execution::start(seated, Entry::Export(export), &args, NoHost, Instructions::MAX).map_err(failed)?;
        let Outcome::Finished(finished) = execution.resume(Instructions::MAX) else {
            return Err(Failure("suspended without a limit".into()));
        };
        finished.result.map_err(failed)?;
        let mut seated = finished.seated;
        seated.commit(&mut self.heap);
        let seconds = self.clock.now() - start;
        let changed = finished.dirty_pages;
        if self.tracked && changed != pages as u64 {
            return Err(Failure(format!("{changed} pages changed, not {pages}")));
        }
        self.seated = Some(seated);
        Ok(seconds)
    }

    /// Moves the instance to a seat that has mapped nothing yet.
    fn map_anew(&mut self) -> Result<(), Failure> {
        let (instance, seat) = self.seated.take().ok_or_else(|| Failure("the last message failed".into()))?.detach();
        drop(seat);
        let seat = self.pool.take(&self.heap, self.tracking).map_err(failed)?;
        self.seated = Some(instance.attach(seat));
        Ok(())
    }
}
