//! Suite `storage`: a heap of 4 GiB and a sparse stable memory of 64 GiB in one canister, of which a hundredth changes at random.
//!
//! Beside the checkpoint: the same number of bytes written to one file from its beginning on, and flushed. Shapes: all times are elapsed.

use crate::machine::Clock;
use crate::report::{Bound, Report};
use crate::round::subnet::{Bench, Setup};
use crate::runner::{Failure, Runner, Sample, Subject, Unit, failed};
use cyclotron_crypto::sha256_batch;
use cyclotron_heap::layout::PAGE;
use cyclotron_ports::{Access, Disk, DiskFile, SystemDisk};
use cyclotron_storage::checkpoint::{PageFiles, list};
use cyclotron_storage::manifest::{CHUNK_BYTES, Making, ManifestReader, chunk_hash};
use cyclotron_types::action::{ActionDone, OperatorAction};
use cyclotron_types::units::WasmPages;
use std::path::Path;

/// `fill` stores to pages of heap and stable memory from one number on, so many of them, so far apart: three u32, the third for stable memory. `touch` stores
/// to so many pages at random, by a seed: heap pages below a bound, and one in 64 of them in stable memory too.
const MODULE: &str = r#"(module
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
  (memory 65536)
  (func (export "canister_update grow")
    (call $arg_copy (i32.const 0) (i32.const 0) (i32.const 8))
    (drop (call $grow (i64.load (i32.const 0))))
    (call $reply))
  (func (export "canister_update fill") (local $page i32) (local $end i32) (local $apart i64)
    (call $arg_copy (i32.const 0) (i32.const 0) (i32.const 16))
    (local.set $page (i32.load (i32.const 0)))
    (local.set $end (i32.load (i32.const 4)))
    (local.set $apart (i64.load (i32.const 8)))
    (loop $next
      (i64.store offset=64 (i32.shl (local.get $page) (i32.const 12)) (i64.extend_i32_u (i32.add (local.get $page) (i32.const 1))))
      (if (i32.eqz (i32.and (local.get $page) (i32.const 63)))
        (then (call $write
          (i64.mul (i64.extend_i32_u (i32.shr_u (local.get $page) (i32.const 6))) (local.get $apart))
          (i64.const 0) (i64.const 8))))
      (local.set $page (i32.add (local.get $page) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $page) (local.get $end))))
    (call $reply))
  (func (export "canister_update touch") (local $left i32) (local $state i64) (local $page i32) (local $bound i32) (local $apart i64)
    (call $arg_copy (i32.const 0) (i32.const 0) (i32.const 24))
    (local.set $left (i32.load (i32.const 0)))
    (local.set $bound (i32.load (i32.const 4)))
    (local.set $state (i64.load (i32.const 8)))
    (local.set $apart (i64.load (i32.const 16)))
    (loop $next
      (local.set $state (i64.add (i64.mul (local.get $state) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
      (local.set $page (i32.rem_u (i32.wrap_i64 (i64.shr_u (local.get $state) (i64.const 33))) (local.get $bound)))
      (i64.store offset=64 (i32.shl (local.get $page) (i32.const 12)) (local.get $state))
      (if (i32.eqz (i32.and (local.get $page) (i32.const 63)))
        (then (call $write
          (i64.mul (i64.extend_i32_u (i32.shr_u (local.get $page) (i32.const 6))) (local.get $apart))
          (i64.extend_i32_u (i32.shl (local.get $page) (i32.const 12))) (i64.const 128))))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (call $reply)))"#;

/// Chunks that are hashed together.
const HASHED_AT_ONCE: usize = 8;
/// Starts of which the first message is timed.
const FIRST_MESSAGES: usize = 5;
/// Heap pages stored to by one message while memories are filled.
const FILL_PAGES: u32 = 8_192;

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    let heap_pages: u32 = runner.size(1 << 20, 1 << 14);
    let mib = heap_pages / 256;
    report.suite(
        "storage",
        &format!("a heap of {mib} MiB, all of it written, and {} MiB of sparse stable memory", mib * 16),
    );
    let folder = std::env::temp_dir().join(format!("cyclotron-bench-storage-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let done = checkpoints(runner, report, heap_pages, &folder);
    std::fs::remove_dir_all(&folder).map_err(failed)?;
    done
}

fn checkpoints(runner: &Runner, report: &mut Report, heap_pages: u32, folder: &Path) -> Result<(), Failure> {
    let wasm = wat::parse_str(MODULE).map_err(failed)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut bench = Bench::new(Setup { certified: true, threads }, Clock::Wall)?;
    let canister = bench.install(1, &wasm)?[0];
    // Sixteen times the heap; one page of stable memory for each 64 of the heap.
    let stable_bytes = u64::from(heap_pages) * PAGE as u64 * 16;
    let apart = stable_bytes / u64::from(heap_pages / 64);
    let send = |bench: &mut Bench, method: &str, arg: &[u8]| {
        let message = bench.ingress(canister, Some(canister), method, arg);
        bench.round_of_replies(vec![message])
    };
    send(&mut bench, "grow", &(stable_bytes / WasmPages::BYTES).to_le_bytes())?;
    for first in (0..heap_pages).step_by(FILL_PAGES as usize) {
        let arg = [&first.to_le_bytes()[..], &(first + FILL_PAGES).to_le_bytes(), &apart.to_le_bytes()].concat();
        send(&mut bench, "fill", &arg)?;
    }
    let mut checkpointer = bench.checkpointer(folder)?;
    let made = bench.checkpoint(&mut checkpointer)?;
    report.figure("checkpoint_whole", Unit::Ms, made.lasts * 1e3);
    report.note(&made.describe());
    let dirty = heap_pages / 100;
    let (mut waits, mut hashing, mut seed) = (Vec::new(), Vec::new(), 1_u64);
    let bytes = (u64::from(dirty) + u64::from(dirty) / 64) * PAGE as u64;
    let one_percent = Subject::new("cyclotron", || {
        seed += 1;
        let arg =
            [&dirty.to_le_bytes()[..], &heap_pages.to_le_bytes(), &seed.to_le_bytes(), &apart.to_le_bytes()].concat();
        send(&mut bench, "touch", &arg)?;
        let made = bench.checkpoint(&mut checkpointer)?;
        waits.push(made.waiting * 1e3);
        hashing.push((made.done - made.lasts) * 1e3);
        Ok(Sample { value: made.lasts * 1e3, check: 0 })
    });
    let plain_file = folder.join("plain");
    let content = vec![0x5a; bytes as usize];
    let plain = Subject::new("plain write and flush", || {
        let (seconds, written) = Clock::Wall.time(|| {
            let file = SystemDisk.open(&plain_file, Access::Create(0o600))?;
            for (n, piece) in content.chunks(1 << 20).enumerate() {
                file.write_at((n as u64) << 20, piece)?;
            }
            file.sync()
        });
        written.map_err(failed)?;
        std::fs::remove_file(&plain_file).map_err(failed)?;
        Ok(Sample { value: seconds * 1e3, check: 0 })
    });
    let measured = runner.measure("checkpoint_1_percent", Unit::Ms, vec![one_percent, plain])?;
    report.case("checkpoint_1_percent", Unit::Ms, "plain write and flush", &measured);
    report.note(&format!(
        "{} MiB; rounds wait {:.1} ms; the manifest follows in {:.0} ms, beside rounds",
        bytes >> 20,
        median(&mut waits),
        median(&mut hashing)
    ));
    if let [ours, plain] = &*measured {
        report.goal("plain / checkpoint_1_percent", plain.ratio(ours), Bound::AtLeast(0.8));
    }
    manifests(runner, report, folder)?;
    let loading = bench.restore(folder)?;
    report.figure("restore", Unit::Ms, loading * 1e3);
    let three =
        [&3u32.to_le_bytes()[..], &heap_pages.to_le_bytes(), &7u64.to_le_bytes(), &apart.to_le_bytes()].concat();
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..FIRST_MESSAGES {
        let messages = [(); 2].map(|()| bench.ingress(canister, Some(canister), "touch", &three));
        if let [cold, warm] = bench.restore_and_run(folder, messages.into())?[..] {
            first.push(cold * 1e3);
            again.push(warm * 1e3);
        }
    }
    report.figure("first_message_cold", Unit::Ms, median(&mut first));
    report.note(&format!(
        "the first round after a start, with a message that stores to 3 pages at random of the heap; the next such one: {:.2} ms",
        median(&mut again)
    ));

    // Another hundredth has changed since the last checkpoint (the same values again would be no change); the whole round is timed. Forks stay: each shares what the checkpoint keeps.
    seed += 1;
    let arg = [&dirty.to_le_bytes()[..], &heap_pages.to_le_bytes(), &seed.to_le_bytes(), &apart.to_le_bytes()].concat();
    send(&mut bench, "touch", &arg)?;
    let mut followed = Vec::new();
    let fork = Subject::new("cyclotron", || {
        let (seconds, done) = bench.act(OperatorAction::ForkCanister { source: canister, target: None })?;
        followed.push(send(&mut bench, "touch", &three)? * 1e3);
        match done {
            ActionDone::Forked { .. } => Ok(Sample { value: seconds * 1e3, check: 0 }),
            ActionDone::CyclesAdded { .. } => Err(failed("a fork is not a gift")),
        }
    });
    let measured = runner.measure("fork", Unit::Ms, vec![fork])?;
    report.case("fork", Unit::Ms, "cyclotron", &measured);
    report.note(&format!(
        "the round that forks the canister, {dirty} pages of which no checkpoint keeps; the next one, with a message to it: {:.1} ms",
        median(&mut followed)
    ));
    report.goal("fork", measured[0].median, Bound::AtMost(10.0));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A whole checkpoint hashed and compared with its manifest, beside hashing as many bytes that are in memory, on as many threads.
fn manifests(runner: &Runner, report: &mut Report, folder: &Path) -> Result<(), Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let Some(height) = list(&SystemDisk, folder).map_err(failed)?.pop() else { return Ok(()) };
    let content = vec![0x5a; CHUNK_BYTES];
    // Chunks that are all zero are known without being hashed.
    let zero = chunk_hash(&[0; CHUNK_BYTES]);
    let reader = ManifestReader::open(&SystemDisk, folder, height).map_err(failed)?;
    let mut reader = reader.ok_or_else(|| failed("the checkpoint has no manifest"))?;
    let mut chunks = 0;
    while let Some(file) = reader.next_file().map_err(failed)? {
        chunks += file.hashes().filter(|hash| *hash != zero).count();
    }
    let ours = Subject::new("cyclotron", || {
        let files = PageFiles::default();
        let making = Making { disk: &SystemDisk, folder, files: &files, threads };
        let (seconds, verified) = Clock::Wall.time(|| making.verify(height));
        verified.map_err(failed)?;
        Ok(Sample { value: seconds * 1e3, check: 0 })
    });
    let plain = Subject::new("SHA-256 alone", || {
        let (seconds, ()) = Clock::Wall.time(|| {
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let mine = chunks / threads + usize::from(thread < chunks % threads);
                    let content = &content;
                    scope.spawn(move || {
                        // As many at once as the manifest has.
                        let mut hashes = [[0; 32]; HASHED_AT_ONCE];
                        for first in (0..mine).step_by(HASHED_AT_ONCE) {
                            let now = HASHED_AT_ONCE.min(mine - first);
                            let messages = [std::hint::black_box(content.as_slice()); HASHED_AT_ONCE];
                            sha256_batch(&messages[..now], &mut hashes[..now]);
                        }
                        std::hint::black_box(hashes);
                    });
                }
            });
        });
        Ok(Sample { value: seconds * 1e3, check: 0 })
    });
    let measured = runner.measure("manifest", Unit::Ms, vec![ours, plain])?;
    report.case("manifest", Unit::Ms, "SHA-256 alone", &measured);
    report.note(&format!("{chunks} chunks of 1 MiB, on {threads} threads"));
    Ok(())
}
