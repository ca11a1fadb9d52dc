//! Putting code in: modes, hooks, atomicity, slices, payment.

use super::*;
use crate::{Paused, Program};
use cyclotron_types::canister::{ChangeDetails, InstallMode};
use cyclotron_types::units::Instructions;
use ic::CanisterInstallMode::{Install, Reinstall, Upgrade};
use sha2::Digest;

/// A module with some imports and these definitions. `$put` writes a byte to the start of stable memory, `$say` prints one.
pub fn module(definitions: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "ic0" "stable64_size" (func $stable_size (result i64)))
            (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
            (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
            (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
            (import "ic0" "debug_print" (func $debug_print (param i32 i32)))
            (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
            (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
            (import "ic0" "global_timer_set" (func $timer (param i64) (result i64)))
            (import "ic0" "canister_version" (func $version (result i64)))
            (memory 1)
            (func $put (param $byte i32)
                (if (i64.eqz (call $stable_size)) (then (drop (call $stable_grow (i64.const 1)))))
                (i32.store8 (i32.const 100) (local.get $byte))
                (call $stable_write (i64.const 0) (i64.const 100) (i64.const 1)))
            (func $say (param $byte i32)
                (i32.store8 (i32.const 101) (local.get $byte))
                (call $debug_print (i32.const 101) (i32.const 1)))
            (func $spin (param $times i64)
                (loop $again
                    (local.set $times (i64.sub (local.get $times) (i64.const 1)))
                    (br_if $again (i64.ne (local.get $times) (i64.const 0)))))
            {definitions})"#
    );
    wat::parse_str(text).unwrap()
}

fn empty_module() -> Vec<u8> {
    wat::parse_str("(module)").unwrap()
}

/// The module with a custom section.
fn with_section(mut module: Vec<u8>, name: &str, content: &[u8]) -> Vec<u8> {
    let body = [&[name.len() as u8], name.as_bytes(), content].concat();
    module.extend([0, body.len() as u8]);
    module.extend(body);
    module
}

fn args(id: CanisterId, mode: ic::CanisterInstallMode, module: Vec<u8>, arg: &[u8]) -> wire::InstallCodeArgs {
    wire::InstallCodeArgs {
        mode,
        canister_id: id.principal(),
        wasm_module: module,
        arg: arg.to_vec(),
        sender_canister_version: None,
    }
}

pub fn install(subnet: &mut Subnet, id: CanisterId, mode: ic::CanisterInstallMode, module: &[u8]) -> Answered {
    let args = args(id, mode, module.to_vec(), &[7]);
    let call = subnet.ingress(user(1), "install_code", candid::encode_one(args).unwrap());
    let before = subnet.cycles();
    let answered = subnet.run(call);
    assert_eq!(before, subnet.cycles().saturating_add(answered.effects.burned), "cycles are conserved");
    answered
}

/// A canister whose installation is suspended, and what is needed to go on.
pub fn suspended(subnet: &mut Subnet, id: CanisterId) -> PendingInstall {
    let limits = &mut Arc::make_mut(&mut subnet.env.subnet).limits;
    limits.install.slice = Instructions(100_000);
    let module = module("(func $s (call $spin (i64.const 1000000))) (start $s)");
    let call = subnet.ingress(user(1), "install_code", candid::encode_one(args(id, Install, module, &[])).unwrap());
    match subnet.step(call) {
        ManagementStep::Suspended { pending, .. } => *pending,
        other => panic!("not suspended: {other:?}"),
    }
}

impl Subnet {
    fn resume(&mut self, pending: PendingInstall) -> ManagementStep {
        let mut context = ManagementContext {
            env: &self.env,
            canisters: &mut self.fleet,
            ids: &mut self.ids,
            random: &mut self.random,
            node: &self.node,
        };
        resume_install(&mut context, pending)
    }

    fn stable_byte(&mut self, id: CanisterId) -> Option<u8> {
        let installed = self.canister(id).program.installed()?;
        let mut byte = [0];
        installed.stable()?.read(0, &mut byte).ok()?;
        Some(byte[0])
    }

    fn heap_byte(&mut self, id: CanisterId, at: u64) -> Option<u8> {
        let installed = self.canister(id).program.installed()?;
        let mut byte = [0];
        installed.heap().read(at, &mut byte).ok()?;
        Some(byte[0])
    }

    fn log(&mut self, id: CanisterId) -> Vec<String> {
        let records = &self.canister(id).log.records;
        records.iter().map(|record| String::from_utf8_lossy(&record.content).into_owned()).collect()
    }

    /// Everything that a failed installation must leave alone: all but the balance and the log.
    fn essence(&mut self, id: CanisterId) -> String {
        let (stable, heap) = (self.stable_byte(id), self.heap_byte(id, 100));
        let canister = self.canister(id);
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {stable:?} {heap:?} {:?} {:?}",
            canister.program.module_hash(),
            canister.version,
            canister.history,
            canister.certified_data,
            canister.timer,
            canister.reserved,
            canister.low_memory,
            matches!(canister.paused, Paused::None),
        )
    }
}

pub const FULL: &str = r#"
    (func $s (call $say (i32.const 115))) (start $s)
    (func (export "canister_init")
        (call $arg_copy (i32.const 100) (i32.const 0) (i32.const 1))
        (call $put (i32.load8_u (i32.const 100)))
        (call $say (i32.const 105))
        (call $certify (i32.const 100) (i32.const 1))
        (drop (call $timer (i64.const 99))))
    (func (export "canister_pre_upgrade") (call $put (i32.const 50)) (call $say (i32.const 60)))
    (func (export "canister_post_upgrade")
        (call $stable_read (i64.const 200) (i64.const 0) (i64.const 1))
        (call $say (i32.const 62)))"#;

#[test]
fn installing_runs_start_and_init_and_records_the_module() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let code = module(FULL);
    let answered = install(&mut subnet, id, Install, &code);
    assert_eq!(answered.reply(), candid::encode_args(()).unwrap());
    assert_eq!(answered.effects.touched, [id]);
    let hash: [u8; 32] = sha2::Sha256::digest(&code).into();
    assert_eq!((subnet.stable_byte(id), subnet.log(id)), (Some(7), vec!["s".to_string(), "i".to_string()]));
    let canister = subnet.canister(id);
    assert_eq!(canister.program.module_hash(), Some(&hash));
    assert_eq!((canister.version.0, &canister.certified_data.0[..], canister.timer.0), (1, &[7][..], Time(99)));
    let last = canister.history.changes.back().unwrap();
    assert_eq!(
        (last.version, &last.details),
        (1, &ChangeDetails::CodeDeployment { mode: InstallMode::Install, module_hash: hash })
    );
    let view = subnet.fleet.get(id).unwrap();
    let memory = MemoryUse::of(&CanisterView::from(&view));
    assert_eq!((memory.heap, memory.stable, memory.module), (Bytes(65_536), Bytes(65_536), Bytes(code.len() as u64)));
    assert_eq!(memory.total(), view.memory_used());
    let status: ic::CanisterStatusResult =
        candid::decode_one(subnet.user_call(user(1), "canister_status", &named(id)).reply()).unwrap();
    assert_eq!((status.module_hash, status.memory_metrics.wasm_memory_size), (Some(hash.to_vec()), 65_536u64.into()));
}

/// A gzip file that holds these bytes as they are.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 });
    }
    let len = bytes.len() as u16;
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    file.extend(len.to_le_bytes());
    file.extend((!len).to_le_bytes());
    file.extend(bytes);
    file.extend((!crc).to_le_bytes());
    file.extend((bytes.len() as u32).to_le_bytes());
    file
}

#[test]
fn the_hash_is_of_the_bytes_as_given() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let zipped = gzip(&module(FULL));
    assert!(install(&mut subnet, id, Install, &zipped).result.is_ok());
    let hash: [u8; 32] = sha2::Sha256::digest(&zipped).into();
    assert_eq!(subnet.canister(id).program.module_hash(), Some(&hash));
    let view = subnet.fleet.get(id).unwrap();
    assert_eq!(MemoryUse::of(&CanisterView::from(&view)).module, Bytes(zipped.len() as u64));
}

#[test]
fn modes_want_code_or_none() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let code = empty_module();
    assert_eq!(install(&mut subnet, id, Upgrade(None), &code).error(), ErrorCode::CanisterWasmModuleNotFound);
    assert!(install(&mut subnet, id, Reinstall, &code).result.is_ok());
    assert_eq!(install(&mut subnet, id, Install, &code).error(), ErrorCode::CanisterNonEmpty);
    assert!(install(&mut subnet, id, Reinstall, &code).result.is_ok());
    assert!(install(&mut subnet, id, Upgrade(None), &code).result.is_ok());
    assert_eq!(subnet.canister(id).version.0, 3);
    let modes: Vec<_> =
        subnet.canister(id).history.changes.iter().skip(1).map(|c| format!("{:?}", c.details)).collect();
    assert!(modes[0].contains("Reinstall") && modes[1].contains("Reinstall") && modes[2].contains("Upgrade"));
}

#[test]
fn an_upgrade_keeps_stable_memory_and_certified_data_and_a_reinstall_keeps_nothing() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let code = module(FULL);
    assert!(install(&mut subnet, id, Install, &code).result.is_ok());
    assert!(install(&mut subnet, id, Upgrade(None), &code).result.is_ok());
    // `canister_pre_upgrade` has written 50 to stable memory; the heap is new; the timer is off.
    assert_eq!(
        (subnet.stable_byte(id), subnet.heap_byte(id, 100), subnet.heap_byte(id, 200)),
        (Some(50), Some(0), Some(50))
    );
    assert_eq!(subnet.log(id), ["s", "i", "<", "s", ">"]);
    let canister = subnet.canister(id);
    assert_eq!((&canister.certified_data.0[..], canister.timer.0), (&[7][..], Time::ZERO));
    let skip = ic::UpgradeFlags { skip_pre_upgrade: Some(true), wasm_memory_persistence: None };
    assert!(install(&mut subnet, id, Upgrade(Some(skip)), &code).result.is_ok());
    assert_eq!(subnet.log(id), ["s", "i", "<", "s", ">", "s", ">"]);
    assert!(install(&mut subnet, id, Reinstall, &module("")).result.is_ok());
    assert_eq!((subnet.stable_byte(id), subnet.log(id)), (None, vec![]));
    assert!(subnet.canister(id).certified_data.0.is_empty());
}

#[test]
fn a_trap_at_any_stage_leaves_everything_as_it_was_and_is_charged_and_logged() {
    let write =
        "(call $put (i32.const 33)) (call $certify (i32.const 0) (i32.const 5)) (drop (call $timer (i64.const 5)))";
    let bad_start = module("(func $s unreachable) (start $s)");
    let bad_init = module(&format!(r#"(func (export "canister_init") {write} unreachable)"#));
    let bad_post = module(&format!(r#"(func (export "canister_post_upgrade") {write} unreachable)"#));
    let bad_pre = FULL.replace(
        r#"(func (export "canister_pre_upgrade") (call $put (i32.const 50))"#,
        r#"(func (export "canister_pre_upgrade") (call $put (i32.const 50)) unreachable"#,
    );
    let bad_pre = module(&bad_pre);
    let good = module(FULL);
    let cases = [
        ("start", &good, Reinstall, &bad_start),
        ("init", &good, Reinstall, &bad_init),
        ("start of an upgrade", &good, Upgrade(None), &bad_start),
        ("post_upgrade", &good, Upgrade(None), &bad_post),
        ("pre_upgrade", &bad_pre, Upgrade(None), &good),
    ];
    for (name, first, mode, second) in cases {
        let mut subnet = Subnet::new();
        let id = subnet.create();
        assert!(install(&mut subnet, id, Install, first).result.is_ok(), "{name}");
        let (before, lines) = (subnet.essence(id), subnet.log(id).len());
        let answered = install(&mut subnet, id, mode, second);
        assert_eq!(answered.error(), ErrorCode::CanisterTrapped, "{name}");
        assert_eq!(subnet.essence(id), before, "{name}");
        assert!(answered.effects.burned > subnet.env.subnet.fees.update_base, "{name}");
        assert!(subnet.log(id).len() > lines && subnet.log(id).last().unwrap().starts_with("[TRAP]"), "{name}");
        // And it still works.
        let skip = ic::UpgradeFlags { skip_pre_upgrade: Some(true), wasm_memory_persistence: None };
        assert!(install(&mut subnet, id, Upgrade(Some(skip)), &good).result.is_ok(), "{name}");
    }
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let before = subnet.essence(id);
    assert_eq!(install(&mut subnet, id, Install, &bad_init).error(), ErrorCode::CanisterTrapped);
    assert_eq!(subnet.essence(id), before);
    assert!(matches!(subnet.canister(id).program, Program::Empty));
}

#[test]
fn a_heap_made_to_be_kept_is_kept_only_on_request_and_never_lost_by_mistake() {
    let section = "icp:private enhanced-orthogonal-persistence";
    let code = r#"(func (export "canister_init") (i32.store8 (i32.const 70) (i32.const 9)))
        (func (export "canister_pre_upgrade") (i32.store8 (i32.const 71) (i32.const 8)))"#;
    let plain = module(code);
    let lasting = with_section(plain.clone(), section, b"1");
    let public = with_section(plain.clone(), "icp:public enhanced-orthogonal-persistence", b"1");
    let flags =
        |persistence| Upgrade(Some(ic::UpgradeFlags { skip_pre_upgrade: None, wasm_memory_persistence: persistence }));
    let keep = flags(Some(ic::WasmMemoryPersistence::Keep));
    let replace = flags(Some(ic::WasmMemoryPersistence::Replace));
    let mut subnet = Subnet::new();
    let id = subnet.create();
    assert!(install(&mut subnet, id, Install, &lasting).result.is_ok());
    for mode in [Upgrade(None), flags(None)] {
        let answered = install(&mut subnet, id, mode, &lasting);
        assert_eq!(answered.error(), ErrorCode::CanisterContractViolation);
        assert!(answered.result.unwrap_err().message.starts_with("Missing upgrade option"));
    }
    for target in [&plain, &public] {
        let answered = install(&mut subnet, id, keep, target);
        assert_eq!(answered.error(), ErrorCode::CanisterContractViolation);
        assert!(answered.result.unwrap_err().message.starts_with("Invalid upgrade option"));
    }
    assert!(install(&mut subnet, id, keep, &lasting).result.is_ok());
    assert_eq!((subnet.heap_byte(id, 70), subnet.heap_byte(id, 71)), (Some(9), Some(8)));
    let before = subnet.essence(id);
    let trapping =
        module(r#"(func (export "canister_post_upgrade") (i32.store8 (i32.const 70) (i32.const 1)) unreachable)"#);
    let answered = install(&mut subnet, id, keep, &with_section(trapping, section, b"1"));
    assert_eq!(answered.error(), ErrorCode::CanisterTrapped);
    assert_eq!((subnet.essence(id), subnet.heap_byte(id, 70)), (before, Some(9)));
    assert!(install(&mut subnet, id, replace, &lasting).result.is_ok());
    assert_eq!(subnet.heap_byte(id, 70), Some(0));
    assert!(install(&mut subnet, id, replace, &plain).result.is_ok());
    assert!(install(&mut subnet, id, Upgrade(None), &plain).result.is_ok());
}

#[test]
fn an_installation_costs_its_base_fee_its_compilation_and_what_ran() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let code = empty_module();
    let answered = install(&mut subnet, id, Install, &code);
    let module = subnet.env.machine.engine.compile(&code).unwrap();
    let fees = &subnet.env.subnet.fees;
    assert_eq!(answered.effects.burned, fees.execution(module.compile_cost(), false));
    let short = module_that_spins(1_000);
    let long = module_that_spins(11_000);
    let cost = |subnet: &mut Subnet, code: &[u8]| install(subnet, id, Reinstall, code).effects.burned.0;
    let (short, long) = (cost(&mut subnet, &short), cost(&mut subnet, &long));
    // 10,000 more turns of a loop, the same operators otherwise.
    assert!(long > short && (long - short).is_multiple_of(10_000), "{short} {long}");
    // wasm64 costs twice as much an instruction.
    let wide = wat::parse_str("(module (memory i64 1))").unwrap();
    let narrow = wat::parse_str("(module (memory 1))").unwrap();
    let base = subnet.env.subnet.fees.update_base.0;
    assert_eq!(cost(&mut subnet, &wide) - base, 2 * (cost(&mut subnet, &narrow) - base));
}

fn module_that_spins(times: u32) -> Vec<u8> {
    module(&format!(r#"(func (export "canister_init") (call $spin (i64.const {times})))"#))
}

#[test]
fn who_cannot_pay_for_the_longest_installation_installs_nothing() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let limit = subnet.env.subnet.limits.install.message;
    let most = subnet.env.subnet.fees.execution(limit, false);
    subnet.canister(id).balance.0 = Cycles(most.0 - 1);
    let answered = install(&mut subnet, id, Install, &empty_module());
    assert_eq!((answered.error(), answered.effects.burned), (ErrorCode::CanisterOutOfCycles, Cycles::ZERO));
    let message = answered.result.unwrap_err().message;
    assert!(
        message.contains("Canister installation failed with `Canister") && message.contains("please top up"),
        "{message}"
    );
    subnet.canister(id).balance.0 = Cycles(most.0 + 1_000_000_000);
    assert!(install(&mut subnet, id, Install, &empty_module()).result.is_ok());
}

#[test]
fn what_is_no_module_is_refused_for_the_base_fee() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let before = subnet.essence(id);
    for bytes in [
        &b""[..],
        b"\0asm",
        b"\x1f\x8b\x08 not gzip",
        &wat::parse_str("(module (import \"env\" \"f\" (func)))").unwrap(),
    ] {
        let answered = install(&mut subnet, id, Install, bytes);
        assert_eq!(answered.error(), ErrorCode::CanisterInvalidWasm, "{bytes:?}");
        assert_eq!(answered.effects.burned, subnet.env.subnet.fees.update_base);
        let message = answered.result.unwrap_err().message;
        assert!(
            message.starts_with(&format!("Error from Canister {id}: Canister's Wasm module is not valid: ")),
            "{message}"
        );
        assert_eq!(subnet.essence(id), before);
    }
}

#[test]
fn a_long_installation_goes_on_over_rounds_and_comes_to_the_same() {
    let code = module_that_spins(200_000);
    let mut whole = Subnet::new();
    let id = whole.create();
    let expected = install(&mut whole, id, Install, &code).effects.burned;
    for abort_at in [None, Some(0), Some(2)] {
        let mut subnet = Subnet::new();
        assert_eq!(subnet.create(), id);
        Arc::make_mut(&mut subnet.env.subnet).limits.install.slice = Instructions(200_000);
        let before = subnet.cycles();
        let call = args(id, Install, code.clone(), &[7]);
        let caller = CanisterId::from_u64(60);
        subnet.canister(id).controllers.0.insert(caller.principal());
        let call = Subnet::request(caller, "install_code", candid::encode_one(call).unwrap(), 21);
        let (origin, mut step, mut slices) = (call.origin.clone(), subnet.step(call), 0);
        let mut burned = Cycles::ZERO;
        let effects = loop {
            match step {
                ManagementStep::Suspended { pending, effects } => {
                    assert!(
                        effects.answers.is_empty() && pending.canister() == id && pending.call.payment == Cycles(21)
                    );
                    burned = burned.saturating_add(effects.burned);
                    // What is prepaid is held, and others find the canister as it was.
                    assert_eq!(before, subnet.cycles().saturating_add(subnet.canister(id).paused.cycles()));
                    assert!(matches!(subnet.canister(id).program, Program::Empty));
                    assert!(subnet.user_call(user(1), "canister_status", &named(id)).result.is_ok());
                    if abort_at == Some(slices) {
                        crate::abort(&mut subnet.fleet.get(id).unwrap());
                    }
                    step = subnet.resume(*pending);
                    slices += 1;
                }
                ManagementStep::Done(effects) => break effects,
                other => panic!("{other:?}"),
            }
        };
        assert!(slices >= 3, "{slices} slices");
        let answered = answered(&origin, effects);
        assert_eq!((answered.result.is_ok(), answered.refund), (true, Cycles(21)));
        assert_eq!(burned.saturating_add(answered.effects.burned), expected, "aborted at {abort_at:?}");
        assert_eq!(before, subnet.cycles().saturating_add(expected));
        assert_eq!(subnet.canister(id).version.0, 1);
    }
}

#[test]
fn more_instructions_than_all_hooks_may_take_fail_the_installation() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let limits = &mut Arc::make_mut(&mut subnet.env.subnet).limits;
    limits.install = crate::InstructionLimits::unsliced(Instructions(5_000_000));
    let most = subnet.env.subnet.fees.execution(Instructions(5_000_000), false);
    let answered = install(&mut subnet, id, Install, &module_that_spins(u32::MAX / 2));
    assert_eq!((answered.error(), answered.effects.burned), (ErrorCode::CanisterInstructionLimitExceeded, most));
    // Compilation alone can be too much.
    let limits = &mut Arc::make_mut(&mut subnet.env.subnet).limits;
    limits.install = crate::InstructionLimits::unsliced(Instructions(5_000));
    let answered = install(&mut subnet, id, Install, &module(FULL));
    assert_eq!(answered.error(), ErrorCode::CanisterInstructionLimitExceeded);
    assert!(matches!(subnet.canister(id).program, Program::Empty));
}

#[test]
fn a_module_in_chunks_is_the_module() {
    let mut subnet = Subnet::new();
    let (id, store) = (subnet.create(), subnet.create());
    let code = module(FULL);
    let (first, second) = code.split_at(100);
    let upload = |subnet: &mut Subnet, chunk: &[u8]| -> ic::ChunkHash {
        let chunk = ic::UploadChunkArgs { canister_id: store.principal(), chunk: chunk.to_vec() };
        candid::decode_one(subnet.user_call(user(1), "upload_chunk", &chunk).reply()).unwrap()
    };
    let hashes = vec![upload(&mut subnet, first), upload(&mut subnet, second)];
    let chunked = |hashes: &[ic::ChunkHash], store: Option<CanisterId>, hash: &[u8]| ic::InstallChunkedCodeArgs {
        mode: Install,
        target_canister: id.principal(),
        store_canister: store.map(CanisterId::principal),
        chunk_hashes_list: hashes.to_vec(),
        wasm_module_hash: hash.to_vec(),
        arg: vec![7],
        sender_canister_version: None,
    };
    let hash = sha2::Sha256::digest(&code).to_vec();
    let mut call = |args: ic::InstallChunkedCodeArgs, sender| subnet.user_call(sender, "install_chunked_code", &args);
    let contract = ErrorCode::CanisterContractViolation;
    assert_eq!(call(chunked(&hashes, None, &hash), user(1)).error(), contract);
    assert_eq!(call(chunked(&hashes[1..], Some(store), &hash), user(1)).error(), contract);
    assert_eq!(call(chunked(&hashes, Some(store), &[1, 2]), user(1)).error(), contract);
    assert_eq!(call(chunked(&[ic::ChunkHash { hash: vec![1; 31] }], Some(store), &hash), user(1)).error(), contract);
    assert_eq!(call(chunked(&vec![hashes[0].clone(); 101], Some(store), &hash), user(1)).error(), contract);
    let nowhere = CanisterId::from_u64(80);
    assert_eq!(call(chunked(&hashes, Some(nowhere), &hash), user(1)).error(), ErrorCode::CanisterNotFound);
    assert_eq!(call(chunked(&hashes, Some(store), &hash), user(2)).error(), ErrorCode::CanisterInvalidController);
    let answered = call(chunked(&hashes, Some(store), &hash), user(1));
    assert!(answered.result.is_ok(), "{answered:?}");
    let module = subnet.env.machine.engine.compile(&code).unwrap();
    // Two chunks, each as if full.
    assert!(answered.effects.used.0 > module.compile_cost().0 + (2 << 20));
    assert_eq!((subnet.stable_byte(id), subnet.canister(id).history.total), (Some(7), 2));
    // The store itself may use its chunks, but only a controller may install.
    subnet.canister(id).controllers.0.insert(store.principal());
    let again = ic::InstallChunkedCodeArgs { mode: Reinstall, ..chunked(&hashes, Some(store), &hash) };
    assert!(subnet.canister_call(store, "install_chunked_code", &again, 0).result.is_ok());
}

#[test]
fn metadata_is_public_or_for_controllers() {
    let mut subnet = Subnet::new();
    let (id, other) = (subnet.create(), subnet.create());
    let code = with_section(empty_module(), "icp:public candid:service", b"service : {}");
    let code = with_section(code, "icp:private motoko:types", b"secret");
    assert!(install(&mut subnet, id, Install, &code).result.is_ok());
    let mut ask = |caller: CanisterId, name: &str| {
        let args = ic::CanisterMetadataArgs { canister_id: id.principal(), name: name.into() };
        let answered = subnet.canister_call(caller, "canister_metadata", &args, 0);
        answered.result.map(|bytes| candid::decode_one::<ic::CanisterMetadataResult>(&bytes).unwrap().value)
    };
    assert_eq!(ask(other, "candid:service").unwrap(), b"service : {}");
    let denied = ask(other, "motoko:types").unwrap_err();
    assert_eq!(denied.message, format!("The canister {id} has no metadata section with the name motoko:types."));
    assert!(ask(id, "motoko:types").is_err());
    subnet.canister(id).controllers.0.insert(other.principal());
    let args = ic::CanisterMetadataArgs { canister_id: id.principal(), name: "motoko:types".into() };
    let answered = subnet.canister_call(other, "canister_metadata", &args, 0);
    assert_eq!(candid::decode_one::<ic::CanisterMetadataResult>(answered.reply()).unwrap().value, b"secret");
}

#[test]
fn hooks_see_the_version_that_they_will_leave() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let code = module(
        r#"(func $v (call $say (i32.add (i32.const 48) (i32.wrap_i64 (call $version)))))
           (export "canister_pre_upgrade" (func $v)) (export "canister_post_upgrade" (func $v)) (export "canister_init" (func $v))"#,
    );
    assert!(install(&mut subnet, id, Install, &code).result.is_ok());
    assert!(install(&mut subnet, id, Upgrade(None), &code).result.is_ok());
    assert_eq!((subnet.log(id), subnet.canister(id).version.0), (vec!["1".into(), "1".into(), "2".into()], 2));
}

#[test]
fn an_installing_canister_that_runs_out_of_cycles_is_emptied_and_answered() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    assert!(install(&mut subnet, id, Install, &module(FULL)).result.is_ok());
    Arc::make_mut(&mut subnet.env.subnet).limits.install.slice = Instructions(100_000);
    let code =
        module(r#"(func (export "canister_post_upgrade") (call $put (i32.const 3)) (call $spin (i64.const 1000000)))"#);
    let call = subnet.ingress(user(1), "install_code", candid::encode_one(args(id, Upgrade(None), code, &[])).unwrap());
    let origin = call.origin.clone();
    let ManagementStep::Suspended { mut pending, .. } = subnet.step(call) else { panic!("not suspended") };
    let ManagementStep::Suspended { pending: next, .. } = subnet.resume(*pending) else { panic!("not suspended") };
    pending = next;
    subnet.canister(id).balance.0 = Cycles::ZERO;
    subnet.env.time = Time(START.0 + 100_000_000_000_000);
    let ManagementStep::Done(effects) = subnet.resume(*pending) else { panic!("not answered") };
    assert_eq!(answered(&origin, effects).error(), ErrorCode::CanisterWasmModuleNotFound);
    assert!(
        matches!(subnet.canister(id).program, Program::Empty) && matches!(subnet.canister(id).paused, Paused::None)
    );
}
