//! Bytes from anyone.

use super::*;
use std::time::{Duration, Instant};

/// A deterministic stream of bytes.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = self.0 ^ (self.0 >> 33);
        x.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ (x >> 29)
    }
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Everything that reads an argument, on one argument.
fn read_everywhere(subnet: &mut Subnet, caller: CanisterId, method: Method, arg: &[u8]) {
    let _ = effective_canister(method.name(), arg);
    let _ = sender_canister_version(method.name(), arg);
    let _ = ManagementQuery::parse(method.name(), arg);
    let call = Subnet::request(caller, method.name(), arg.to_vec(), 5);
    match subnet.step(call) {
        ManagementStep::Done(effects) => assert!(!effects.answers.is_empty()),
        ManagementStep::NextRound(_) | ManagementStep::Waiting(_) | ManagementStep::Suspended { .. } => {}
    }
}

#[test]
fn random_arguments_never_panic() {
    let mut subnet = Subnet::new();
    let caller = subnet.create();
    let mut noise = Noise(1);
    let seeds = [
        candid::encode_one(update(caller, ic::CanisterSettings::default())).unwrap(),
        candid::encode_one(provisional(Some(ic::CanisterSettings::default()))).unwrap(),
        candid::encode_one(named(caller)).unwrap(),
    ];
    for round in 0..400 {
        for method in Method::ALL {
            let mut arg = match noise.next() % 3 {
                0 => noise.bytes(round % 50),
                1 => [b"DIDL".to_vec(), noise.bytes(round % 60)].concat(),
                _ => seeds[round % seeds.len()].clone(),
            };
            for _ in 0..noise.next() % 4 {
                if !arg.is_empty() {
                    let at = noise.next() as usize % arg.len();
                    arg[at] = noise.next() as u8;
                }
            }
            if noise.next().is_multiple_of(8) {
                arg.truncate(arg.len() / 2);
            }
            read_everywhere(&mut subnet, caller, *method, &arg);
        }
        if !subnet.fleet.canisters.contains_key(&caller) {
            break;
        }
    }
}

fn leb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn candid(types: &[&[u8]], args: &[u8], values: &[u8]) -> Vec<u8> {
    [b"DIDL".to_vec(), leb(types.len() as u64), types.concat(), args.to_vec(), values.to_vec()].concat()
}

/// Arguments that declare much more than they are.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    const VEC: u8 = 0x6d;
    const OPT: u8 = 0x6e;
    const RECORD: u8 = 0x6c;
    const NULL: u8 = 0x7f;
    const RESERVED: u8 = 0x70;
    const NAT: u8 = 0x7d;
    let huge = leb(u64::from(u32::MAX));
    let nested: Vec<Vec<u8>> =
        (0..200u64).map(|n| [vec![OPT], leb(if n == 199 { 199 } else { n + 1 })].concat()).collect();
    let nested: Vec<&[u8]> = nested.iter().map(Vec::as_slice).collect();
    let table: Vec<Vec<u8>> = (0..20_000u64).map(|n| [vec![OPT], leb(n / 2)].concat()).collect();
    let table: Vec<&[u8]> = table.iter().map(Vec::as_slice).collect();
    let wide = [vec![RECORD], leb(2_000_000), vec![0; 100]].concat();
    vec![
        ("a vector of 2^32 nulls", candid(&[&[VEC, NULL]], &[1, 0], &huge)),
        ("a vector of 2^32 reserved", candid(&[&[VEC, RESERVED]], &[1, 0], &huge)),
        ("a vector of 2^32 empty records", candid(&[&[VEC, 1], &[RECORD, 0]], &[1, 0], &huge)),
        (
            "vectors of vectors of nulls",
            candid(&[&[VEC, 1], &[VEC, NULL]], &[1, 0], &[leb(1 << 20), huge.repeat(1 << 16)].concat()),
        ),
        ("a record that holds itself", candid(&[&[RECORD, 1, 0, 0]], &[1, 0], &[])),
        ("options two hundred deep", candid(&nested, &[1, 0], &[1; 4_000])),
        ("an option of itself", candid(&[&[OPT, 0]], &[1, 0], &[1; 1 << 20])),
        ("twenty thousand types", candid(&table, &[1, 0], &[])),
        ("a record of two million fields", candid(&[&wide], &[1, 0], &[])),
        ("a million arguments", [b"DIDL\0".to_vec(), leb(1_000_000), vec![NULL; 1_000_000]].concat()),
        (
            "a number of two million bytes",
            candid(&[&[RECORD, 1, 0, NAT]], &[1, 0], &[vec![0xff; 2 << 20], vec![1]].concat()),
        ),
    ]
}

#[test]
fn arguments_that_declare_more_than_they_pay_for_are_refused_quickly() {
    let mut subnet = Subnet::new();
    let caller = subnet.create();
    for (name, arg) in bombs() {
        for method in [
            Method::UpdateSettings,
            Method::CreateCanister,
            Method::StartCanister,
            Method::RawRand,
            Method::InstallCode,
        ] {
            let since = Instant::now();
            assert!(effective_canister(method.name(), &arg).is_err(), "{name}, {method:?}");
            let answered = match subnet.step(Subnet::request(caller, method.name(), arg.clone(), 0)) {
                ManagementStep::Done(effects) => effects,
                other => panic!("{name}, {method:?}: {other:?}"),
            };
            let Answer::Canister(Response { payload: ResponsePayload::Reject(reject), .. }) = &answered.answers[0]
            else {
                panic!("{name}, {method:?}: {answered:?}")
            };
            assert_eq!(reject.error, Some(ErrorCode::InvalidManagementPayload), "{name}, {method:?}: {reject:?}");
            assert!(reject.message.len() < 600, "{name}: {}", reject.message.len());
            // The machine may be busy: what this bounds is work without end.
            assert!(since.elapsed() < Duration::from_secs(2), "{name}, {method:?} took {:?}", since.elapsed());
        }
    }
}

#[test]
fn a_small_stack_is_enough_for_any_argument() {
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(|| {
        for (name, arg) in bombs() {
            assert!(wire::decode::<ic::UpdateSettingsArgs>(&arg).is_err(), "{name}");
            assert!(wire::decode::<wire::CanisterIdArgs>(&arg).is_err(), "{name}");
        }
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn a_huge_number_in_a_setting_is_refused_without_printing_it() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let huge = candid::Nat::parse(&[b'9'; 2_000]).unwrap();
    let settings = ic::CanisterSettings { freezing_threshold: Some(huge), ..Default::default() };
    let answered = subnet.user_call(user(1), "update_settings", &update(id, settings));
    let message = answered.result.unwrap_err().message;
    assert_eq!(message, "Freezing threshold expected to be in the range [0..2^64-1], got a number of 6644 bits");
}

#[test]
fn large_modules_and_full_settings_are_within_the_quotas() {
    let canister_id = CanisterId::from_u64(3).principal();
    let install = wire::InstallCodeArgs {
        mode: ic::CanisterInstallMode::Upgrade(Some(ic::UpgradeFlags {
            skip_pre_upgrade: Some(true),
            wasm_memory_persistence: Some(ic::WasmMemoryPersistence::Keep),
        })),
        canister_id,
        wasm_module: vec![7; 9 << 20],
        arg: vec![8; 1 << 20],
        sender_canister_version: Some(1),
    };
    let bytes = candid::encode_one(&install).unwrap();
    assert_eq!(wire::decode::<wire::InstallCodeArgs>(&bytes).unwrap(), install);
    // What others encode with the published type is the same argument.
    let published = ic::InstallCodeArgs {
        mode: install.mode,
        canister_id,
        wasm_module: install.wasm_module.clone(),
        arg: install.arg.clone(),
        sender_canister_version: Some(1),
    };
    assert_eq!(wire::decode::<wire::InstallCodeArgs>(&candid::encode_one(published).unwrap()).unwrap(), install);
    let hash = ic::ChunkHash { hash: vec![1; 32] };
    let chunked = ic::InstallChunkedCodeArgs {
        mode: ic::CanisterInstallMode::Install,
        target_canister: canister_id,
        store_canister: Some(canister_id),
        chunk_hashes_list: vec![hash; 100],
        wasm_module_hash: vec![2; 32],
        arg: vec![3; 2 << 20],
        sender_canister_version: None,
    };
    assert_eq!(wire::decode::<ic::InstallChunkedCodeArgs>(&candid::encode_one(&chunked).unwrap()), Ok(chunked));
    let variable = |n: usize| ic::EnvironmentVariable { name: format!("{n:0128}"), value: "v".repeat(128) };
    let settings = ic::CanisterSettings {
        controllers: Some((0..10).map(user).collect()),
        log_visibility: Some(ic::LogVisibility::AllowedViewers((0..10).map(user).collect())),
        environment_variables: Some((0..20).map(variable).collect()),
        ..Default::default()
    };
    let settings = update(CanisterId::from_u64(3), settings);
    assert_eq!(wire::decode::<ic::UpdateSettingsArgs>(&candid::encode_one(&settings).unwrap()), Ok(settings));
}

#[test]
fn answers_are_read_by_the_published_types() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let answered = subnet.user_call(user(1), "canister_status", &named(id));
    let status: ic::CanisterStatusResult = candid::decode_one(answered.reply()).unwrap();
    assert_eq!((status.module_hash, status.version), (None, 0));
    assert_eq!(status.cycles, wire::nat(PROVISIONAL_CYCLES_DEFAULT.0));
    assert_eq!(status.memory_size, wire::nat(160u64 + 30));
    let args = ic::CanisterInfoArgs { canister_id: id.principal(), num_requested_changes: Some(1) };
    let answered = subnet.canister_call(id, "canister_info", &args, 0);
    let info: ic::CanisterInfoResult = candid::decode_one(answered.reply()).unwrap();
    assert!(matches!(&info.recent_changes[0].details, Some(ic::ChangeDetails::Creation(_))));
    assert_eq!(info.controllers, [user(1)]);
    let metadata = ic::CanisterMetadataArgs { canister_id: id.principal(), name: "candid:service".into() };
    let answered = subnet.canister_call(id, "canister_metadata", &metadata, 0);
    assert!(answered.result.unwrap_err().message.contains("has no Wasm module and hence no metadata"));
}

#[test]
fn an_argument_with_a_missing_field_is_named_as_such() {
    let mut subnet = Subnet::new();
    let call = subnet.ingress(user(1), "start_canister", candid::encode_args(()).unwrap());
    let answered = subnet.run(call);
    assert_eq!(answered.error(), ErrorCode::InvalidManagementPayload);
    assert!(answered.result.unwrap_err().message.starts_with("Error decoding candid: "));
}
