use super::*;
use cyclotron_types::canister::{ChangeDetails, Settings, Visibility};
use cyclotron_types::units::Seconds;

fn full() -> ic::CanisterSettings {
    ic::CanisterSettings {
        controllers: Some(vec![user(1), user(2)]),
        compute_allocation: Some(3u8.into()),
        memory_allocation: Some(1_000_000u64.into()),
        freezing_threshold: Some(60u8.into()),
        reserved_cycles_limit: Some(9_000u64.into()),
        minimum_incoming_canister_call_cycles: Some(8u8.into()),
        log_visibility: Some(ic::LogVisibility::Public),
        log_memory_limit: Some(10_000u64.into()),
        snapshot_visibility: Some(ic::SnapshotVisibility::AllowedViewers(vec![user(3)])),
        status_visibility: Some(ic::StatusVisibility::Public),
        wasm_memory_limit: Some(0u8.into()),
        wasm_memory_threshold: Some((1u64 << 48).into()),
        environment_variables: Some(vec![
            ic::EnvironmentVariable { name: "B".into(), value: "2".into() },
            ic::EnvironmentVariable { name: "A".into(), value: "".into() },
        ]),
    }
}

fn status(subnet: &mut Subnet, id: CanisterId) -> ic::CanisterStatusResult {
    candid::decode_one(subnet.user_call(user(1), "canister_status", &named(id)).reply()).unwrap()
}

#[test]
fn every_setting_is_kept_and_shown() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    assert!(subnet.user_call(user(1), "update_settings", &update(id, full())).result.is_ok());
    let expected = Settings {
        compute_allocation: 3,
        memory_allocation: Bytes(1_000_000),
        freezing_threshold: Seconds(60),
        reserved_cycles_limit: Cycles(9_000),
        wasm_memory_limit: Bytes::ZERO,
        wasm_memory_threshold: Bytes(1 << 48),
        log_visibility: Visibility::Public,
        snapshot_visibility: Visibility::AllowedViewers([user(3)].into()),
        status_visibility: Visibility::Public,
        minimum_incoming_canister_call_cycles: Cycles(8),
        log_memory_limit: Bytes(10_000),
        environment_variables: BTreeMap::from([("A".into(), "".into()), ("B".into(), "2".into())]),
    };
    assert_eq!(subnet.canister(id).settings, expected.clone().into());
    let shown = status(&mut subnet, id);
    assert_eq!(shown.version, 1);
    let mut controllers = vec![user(1), user(2)];
    controllers.sort();
    assert_eq!(shown.settings.controllers, controllers);
    assert_eq!(shown.settings.environment_variables[0].name, "A");
    assert_eq!(shown.settings.snapshot_visibility, ic::SnapshotVisibility::AllowedViewers(vec![user(3)]));
    assert_eq!(shown.settings.wasm_memory_threshold, wire::nat(1u64 << 48));
    // Nothing given, nothing changed but the version.
    assert!(subnet.user_call(user(2), "update_settings", &update(id, Default::default())).result.is_ok());
    assert_eq!((subnet.canister(id).settings.clone(), subnet.canister(id).version.0), (expected.into(), 2));
    let history = &subnet.canister(id).history;
    assert_eq!(history.total, 2);
    assert!(
        matches!(&history.changes[1].details, ChangeDetails::ControllersChange { controllers } if controllers.len() == 2)
    );
}

#[test]
fn settings_at_creation_are_kept_and_the_environment_is_hashed_into_the_history() {
    let mut subnet = Subnet::new();
    let id = subnet.user_call(user(5), "provisional_create_canister_with_cycles", &provisional(Some(full()))).id();
    let canister = subnet.canister(id);
    assert_eq!(canister.controllers.0, [user(1), user(2)].into());
    let environment = BTreeMap::from([("A".to_string(), String::new()), ("B".to_string(), "2".to_string())]);
    assert_eq!(
        canister.history.changes[0].details,
        ChangeDetails::Creation {
            controllers: canister.controllers.0.iter().copied().collect(),
            environment_hash: Some(environment_hash(&environment)),
        }
    );
    let nobody = ic::CanisterSettings { controllers: Some(vec![]), ..Default::default() };
    let id = subnet.user_call(user(5), "provisional_create_canister_with_cycles", &provisional(Some(nobody))).id();
    assert!(subnet.canister(id).controllers.0.is_empty());
}

#[test]
fn settings_out_of_range_are_refused_and_change_nothing() {
    use ErrorCode::{CanisterContractViolation as Contract, CanisterRejectedMessage as Refused};
    use ErrorCode::{InvalidManagementPayload as Payload, SubnetOversubscribed as Oversubscribed};
    let variable = |name: &str, value: &str| ic::EnvironmentVariable { name: name.into(), value: value.into() };
    let long = "x".repeat(129);
    let d = ic::CanisterSettings::default;
    let u64_end = candid::Nat::from(u64::MAX) + candid::Nat::from(1u8);
    let u128_end = candid::Nat::from(u128::MAX) + candid::Nat::from(1u8);
    let many: Vec<Principal> = (0..11).map(user).collect();
    let cases = [
        ("compute 101", ic::CanisterSettings { compute_allocation: Some(101u8.into()), ..d() }, Contract),
        ("compute huge", ic::CanisterSettings { compute_allocation: Some(u128_end.clone()), ..d() }, Contract),
        ("memory 2^64", ic::CanisterSettings { memory_allocation: Some(u64_end.clone()), ..d() }, Contract),
        (
            "memory beyond the subnet",
            ic::CanisterSettings { memory_allocation: Some((1u64 << 42).into()), ..d() },
            Oversubscribed,
        ),
        ("freezing 2^64", ic::CanisterSettings { freezing_threshold: Some(u64_end.clone()), ..d() }, Contract),
        ("reserved 2^128", ic::CanisterSettings { reserved_cycles_limit: Some(u128_end.clone()), ..d() }, Contract),
        (
            "minimum 2^128",
            ic::CanisterSettings { minimum_incoming_canister_call_cycles: Some(u128_end), ..d() },
            Contract,
        ),
        ("heap limit", ic::CanisterSettings { wasm_memory_limit: Some(((1u64 << 48) + 1).into()), ..d() }, Contract),
        (
            "heap threshold",
            ic::CanisterSettings { wasm_memory_threshold: Some(((1u64 << 48) + 1).into()), ..d() },
            Contract,
        ),
        ("log short", ic::CanisterSettings { log_memory_limit: Some(4095u64.into()), ..d() }, Refused),
        ("log long", ic::CanisterSettings { log_memory_limit: Some(((2u64 << 20) + 1).into()), ..d() }, Refused),
        ("controllers", ic::CanisterSettings { controllers: Some(many.clone()), ..d() }, Contract),
        (
            "viewers",
            ic::CanisterSettings { log_visibility: Some(ic::LogVisibility::AllowedViewers(many)), ..d() },
            Contract,
        ),
        ("name", ic::CanisterSettings { environment_variables: Some(vec![variable(&long, "")]), ..d() }, Payload),
        ("value", ic::CanisterSettings { environment_variables: Some(vec![variable("", &long)]), ..d() }, Payload),
        (
            "twice",
            ic::CanisterSettings { environment_variables: Some(vec![variable("a", "1"), variable("a", "2")]), ..d() },
            Payload,
        ),
        (
            "many",
            ic::CanisterSettings {
                environment_variables: Some((0..21).map(|n| variable(&n.to_string(), "")).collect()),
                ..d()
            },
            Payload,
        ),
    ];
    let mut subnet = Subnet::new();
    let id = subnet.create();
    // The message itself is paid for.
    let state = |subnet: &mut Subnet| {
        let balance = std::mem::take(&mut subnet.canister(id).balance);
        let text = format!("{:?}", subnet.canister(id));
        subnet.canister(id).balance = balance;
        text
    };
    let before = state(&mut subnet);
    for (name, settings, error) in cases {
        assert_eq!(
            subnet.user_call(user(1), "update_settings", &update(id, settings.clone())).error(),
            error,
            "{name}"
        );
        assert_eq!(state(&mut subnet), before, "{name}");
        let create = subnet.user_call(user(1), "provisional_create_canister_with_cycles", &provisional(Some(settings)));
        assert_eq!((create.error(), subnet.fleet.canisters.len()), (error, 1), "{name}");
    }
}

#[test]
fn compute_is_given_out_up_to_299_percent() {
    let mut subnet = Subnet::new();
    let set = |subnet: &mut Subnet, id, percent: u64| {
        let settings = ic::CanisterSettings { compute_allocation: Some(percent.into()), ..Default::default() };
        subnet.user_call(user(1), "update_settings", &update(id, settings)).result.map_err(|reject| reject.message)
    };
    let ids: Vec<_> = (0..4).map(|_| subnet.create()).collect();
    for id in &ids {
        subnet.canister(*id).balance.0 = Cycles(10_000_000_000_000_000);
    }
    assert!(set(&mut subnet, ids[0], 100).is_ok() && set(&mut subnet, ids[1], 100).is_ok());
    let error = set(&mut subnet, ids[2], 100).unwrap_err();
    assert!(error.contains("remaining compute capacity is 99%"), "{error}");
    assert!(set(&mut subnet, ids[2], 99).is_ok());
    assert!(set(&mut subnet, ids[3], 1).is_err());
    assert!(set(&mut subnet, ids[0], 100).is_ok() && set(&mut subnet, ids[0], 50).is_ok());
    assert!(set(&mut subnet, ids[3], 50).is_ok());
}

#[test]
fn allocations_that_would_freeze_the_canister_are_refused_but_a_threshold_may_freeze_it() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let mut set = |settings: ic::CanisterSettings| {
        subnet.user_call(user(1), "update_settings", &update(id, settings)).result.map_err(|r| r.error.unwrap())
    };
    let d = ic::CanisterSettings::default;
    let compute = || ic::CanisterSettings { compute_allocation: Some(100u8.into()), ..d() };
    assert_eq!(set(compute()), Err(ErrorCode::InsufficientCyclesInComputeAllocation));
    let memory = ic::CanisterSettings { memory_allocation: Some((700u64 << 30).into()), ..d() };
    assert_eq!(set(memory.clone()), Err(ErrorCode::InsufficientCyclesInMemoryAllocation));
    assert!(set(ic::CanisterSettings { freezing_threshold: Some(1u8.into()), ..memory }).is_ok());
    assert!(set(ic::CanisterSettings { freezing_threshold: Some(u64::MAX.into()), ..d() }).is_ok());
    // Frozen now; still it may be thawed.
    assert!(set(ic::CanisterSettings { freezing_threshold: Some(0u8.into()), ..d() }).is_ok());
}

#[test]
fn an_allocation_on_a_filling_subnet_reserves_cycles_within_the_limit() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    subnet.fleet.other_use.memory = Bytes(1_400 << 30);
    let memory = |gib: u64| ic::CanisterSettings {
        memory_allocation: Some((gib << 30).into()),
        freezing_threshold: Some(0u8.into()),
        ..Default::default()
    };
    let refused = subnet.user_call(user(1), "update_settings", &update(id, memory(10)));
    assert_eq!(refused.error(), ErrorCode::ReservedCyclesLimitExceededInMemoryAllocation);
    let roomy = ic::CanisterSettings { reserved_cycles_limit: Some(u128::MAX.into()), ..memory(1) };
    let before = subnet.cycles();
    let answered = subnet.user_call(user(1), "update_settings", &update(id, roomy));
    assert!(answered.result.is_ok());
    assert_eq!(subnet.cycles().saturating_add(answered.effects.burned), before);
    let reserved = subnet.canister(id).reserved.0;
    assert!(reserved > Cycles(1_000_000_000_000), "{reserved}");
    let low = ic::CanisterSettings { reserved_cycles_limit: Some(1u8.into()), ..Default::default() };
    let refused = subnet.user_call(user(1), "update_settings", &update(id, low));
    assert_eq!(refused.error(), ErrorCode::ReservedCyclesLimitIsTooLow);
}

#[test]
fn a_shorter_log_drops_its_oldest_lines() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    subnet.canister(id).settings.log_memory_limit = Bytes(2 << 20);
    (0..3).for_each(|_| subnet.canister(id).log.push(START, vec![0; 3_000]));
    let settings = ic::CanisterSettings { log_memory_limit: Some(7_000u64.into()), ..Default::default() };
    assert!(subnet.user_call(user(1), "update_settings", &update(id, settings)).result.is_ok());
    let log = &subnet.canister(id).log;
    assert_eq!((log.records.len(), log.bytes, log.records[0].index), (2, 6_080, 1));
}
