//! What creating, paying into and deleting canisters does to the sum of all cycles.

use super::*;

const T: u128 = 1_000_000_000_000;

/// Cycles in canisters and payments before = after + burned - minted + refunds.
fn conserved(subnet: &mut Subnet, call: ManagementCall) -> Answered {
    let before = subnet.cycles().0 + call.payment.0;
    let answered = subnet.run(call);
    let after = subnet.cycles().0 + answered.refund.0 + answered.effects.burned.0;
    assert_eq!(before + answered.effects.minted.0, after, "cycles are conserved");
    answered
}

fn request(caller: CanisterId, method: &str, arg: impl CandidType, payment: u128) -> ManagementCall {
    Subnet::request(caller, method, candid::encode_one(arg).unwrap(), payment)
}

#[test]
fn a_creation_costs_its_fee_and_the_rest_is_the_new_balance() {
    let mut subnet = Subnet::new();
    let creator = subnet.create();
    let fee = subnet.env.subnet.fees.canister_creation.0;
    let args = ic::CreateCanisterArgs { settings: None, sender_canister_version: Some(6) };
    let answered = conserved(&mut subnet, request(creator, "create_canister", args, fee + 5));
    assert_eq!((answered.refund, answered.effects.burned), (Cycles::ZERO, Cycles(fee)));
    let id = answered.id();
    let canister = subnet.canister(id);
    assert_eq!((canister.balance.0, canister.version.0), (Cycles(5), 0));
    assert_eq!(canister.controllers.0, PrincipalSet::from([creator.principal()]));
    assert_eq!(canister.paid_until.0, START);
    let info: wire::CanisterInfoResult = candid::decode_one(
        subnet
            .canister_call(
                creator,
                "canister_info",
                &ic::CanisterInfoArgs { canister_id: id.principal(), num_requested_changes: Some(9) },
                0,
            )
            .reply(),
    )
    .unwrap();
    assert_eq!((info.total_num_changes, info.module_hash, info.controllers), (1, None, vec![creator.principal()]));
    let origin = ic::FromCanisterRecord { canister_id: creator.principal(), canister_version: Some(6) };
    assert_eq!(
        info.recent_changes,
        [wire::Change {
            timestamp_nanos: START.0,
            canister_version: 0,
            origin: ic::ChangeOrigin::FromCanister(origin),
            details: ic::ChangeDetails::Creation(ic::CreationRecord {
                controllers: vec![creator.principal()],
                environment_variables_hash: None,
            }),
        }]
    );
}

#[test]
fn a_creation_that_is_refused_returns_the_payment() {
    let mut subnet = Subnet::new();
    let creator = subnet.create();
    let fee = subnet.env.subnet.fees.canister_creation.0;
    let args = || ic::CreateCanisterArgs::default();
    let answered = conserved(&mut subnet, request(creator, "create_canister", args(), fee - 1));
    assert_eq!((answered.error(), answered.refund), (ErrorCode::InsufficientCyclesForCreateCanister, Cycles(fee - 1)));
    let greedy = ic::CanisterSettings { compute_allocation: Some(101u8.into()), ..Default::default() };
    let greedy = ic::CreateCanisterArgs { settings: Some(greedy), sender_canister_version: None };
    let answered = conserved(&mut subnet, request(creator, "create_canister", greedy, fee));
    assert_eq!((answered.error(), answered.refund), (ErrorCode::CanisterContractViolation, Cycles(fee)));
    subnet.ids = CanisterIds::new(vec![]);
    let answered = conserved(&mut subnet, request(creator, "create_canister", args(), fee));
    assert_eq!((answered.error(), answered.refund), (ErrorCode::SubnetOversubscribed, Cycles(fee)));
    assert_eq!(subnet.fleet.canisters.len(), 1);
}

#[test]
fn provisional_creation_mints_a_hundred_trillion_or_the_amount_given() {
    let mut subnet = Subnet::new();
    let first = subnet.create();
    assert_eq!(subnet.canister(first).balance.0, Cycles(100 * T));
    let args = ic::ProvisionalCreateCanisterWithCyclesArgs { amount: Some(7u8.into()), ..provisional(None) };
    let answered = conserved(&mut subnet, request(first, "provisional_create_canister_with_cycles", args, 3));
    assert_eq!((answered.effects.minted, answered.refund), (Cycles(7), Cycles(3)));
    let second = answered.id();
    assert_eq!(subnet.canister(second).balance.0, Cycles(7));
    assert_eq!((first.to_u64(), second.to_u64()), (Some(0), Some(1)));
}

#[test]
fn a_specified_id_is_used_once_and_never_again_after_deletion() {
    let mut subnet = Subnet::new();
    let create = |subnet: &mut Subnet, id: Principal| {
        let args = ic::ProvisionalCreateCanisterWithCyclesArgs { specified_id: Some(id), ..provisional(None) };
        subnet.user_call(user(1), "provisional_create_canister_with_cycles", &args)
    };
    let id = CanisterId::from_u64(42);
    assert_eq!(create(&mut subnet, id.principal()).id(), id);
    assert_eq!(create(&mut subnet, id.principal()).error(), ErrorCode::CanisterAlreadyInstalled);
    let elsewhere = create(&mut subnet, CanisterId::from_u64(100).principal());
    assert_eq!(elsewhere.error(), ErrorCode::CanisterNotHostedBySubnet);
    subnet.canister(id).run_state = cyclotron_types::canister::RunState::Stopped;
    assert!(subnet.user_call(user(1), "delete_canister", &named(id)).result.is_ok());
    assert_eq!(create(&mut subnet, id.principal()).error(), ErrorCode::CanisterAlreadyInstalled);
}

#[test]
fn provisional_methods_are_concealed_where_they_are_off() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    subnet.node.provisional = false;
    let create = subnet.user_call(user(1), "provisional_create_canister_with_cycles", &provisional(None));
    assert_eq!(create.error(), ErrorCode::CanisterMethodNotFound);
    let args = ic::ProvisionalTopUpCanisterArgs { canister_id: id.principal(), amount: 1u8.into() };
    assert_eq!(
        subnet.user_call(user(1), "provisional_top_up_canister", &args).error(),
        ErrorCode::CanisterMethodNotFound
    );
}

#[test]
fn top_ups_mint_and_deposits_move() {
    let mut subnet = Subnet::new();
    let (id, other) = (subnet.create(), subnet.create());
    let args = ic::ProvisionalTopUpCanisterArgs { canister_id: id.principal(), amount: 5u8.into() };
    let call = subnet.ingress(user(9), "provisional_top_up_canister", candid::encode_one(args).unwrap());
    assert_eq!(conserved(&mut subnet, call).effects.minted, Cycles(5));
    let answered = conserved(&mut subnet, request(other, "deposit_cycles", named(id), 8));
    assert_eq!((answered.result.is_ok(), answered.refund), (true, Cycles::ZERO));
    assert_eq!(subnet.canister(id).balance.0, Cycles(100 * T + 13));
    let huge = candid::Nat::from(u128::MAX) + candid::Nat::from(1u8);
    let args = ic::ProvisionalTopUpCanisterArgs { canister_id: id.principal(), amount: huge };
    assert!(subnet.user_call(user(9), "provisional_top_up_canister", &args).result.is_err());
}

#[test]
fn balances_saturate_and_what_does_not_fit_is_listed() {
    let mut subnet = Subnet::new();
    let (id, other) = (subnet.create(), subnet.create());
    subnet.canister(other).balance.0 = Cycles::ZERO;
    subnet.canister(id).balance.0 = Cycles(u128::MAX - 2);
    let call = |method: &str, arg: Vec<u8>, payment| Subnet::request(other, method, arg, payment);
    let args = ic::ProvisionalTopUpCanisterArgs { canister_id: id.principal(), amount: 5u8.into() };
    let answered = subnet.run(call("provisional_top_up_canister", candid::encode_one(args).unwrap(), 0));
    assert_eq!(answered.effects.minted, Cycles(2));
    let answered = subnet.run(call("deposit_cycles", candid::encode_one(named(id)).unwrap(), 9));
    assert_eq!((answered.effects.burned, answered.refund), (Cycles(9), Cycles::ZERO));
}

#[test]
fn deleting_burns_the_balance_with_what_was_reserved() {
    let mut subnet = Subnet::new();
    let (id, other) = (subnet.create(), subnet.create());
    let canister = subnet.canister(id);
    canister.reserved.0 = Cycles(3);
    canister.controllers.0.insert(other.principal());
    canister.run_state = cyclotron_types::canister::RunState::Stopped;
    let answered = conserved(&mut subnet, request(other, "delete_canister", named(id), 4));
    assert_eq!((answered.effects.burned, answered.refund), (Cycles(100 * T + 3), Cycles(4)));
    assert_eq!(answered.effects.touched, [id]);
    assert!(!subnet.fleet.canisters.contains_key(&id));
}

#[test]
fn what_a_canister_owes_is_settled_before_it_is_managed() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    subnet.canister(id).settings.compute_allocation = 10;
    subnet.env.time = Time(START.0 + 1_000_000_000_000);
    let call = subnet.ingress(user(1), "canister_status", candid::encode_one(named(id)).unwrap());
    let answered = conserved(&mut subnet, call);
    // 10 % for 1,000 s at 10 M a percent and second, and the history's bytes.
    assert!(answered.effects.burned.0 >= 100_000_000_000 && answered.effects.burned.0 < 100_001_000_000);
    let status: ic::CanisterStatusResult = candid::decode_one(answered.reply()).unwrap();
    assert_eq!(status.cycles, wire::nat(100 * T - answered.effects.burned.0));
}

#[test]
fn a_canister_that_cannot_pay_is_uninstalled_first() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    subnet.canister(id).balance.0 = Cycles(1);
    subnet.canister(id).settings.compute_allocation = 10;
    subnet.canister(id).chunks.0.insert([1; 32], vec![1]);
    subnet.env.time = Time(START.0 + 1_000_000_000_000);
    let call = subnet.ingress(user(1), "canister_status", candid::encode_one(named(id)).unwrap());
    let answered = conserved(&mut subnet, call);
    assert_eq!((answered.effects.burned, answered.effects.touched), (Cycles(1), vec![id]));
    let canister = subnet.canister(id);
    assert_eq!((canister.settings.compute_allocation, canister.chunks.0.len(), canister.version.0), (0, 0, 1));
    assert_eq!((canister.history.changes.len(), canister.history.total), (0, 1));
}

#[test]
fn uploading_costs_the_canister_a_fee_and_a_mebibyte() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let chunk = |bytes: Vec<u8>| ic::UploadChunkArgs { canister_id: id.principal(), chunk: bytes };
    let fee = subnet.env.subnet.fees.execution(UPLOAD_INSTRUCTIONS, false);
    let answered =
        conserved(&mut subnet, Subnet::request(id, "upload_chunk", candid::encode_one(chunk(vec![5; 9])).unwrap(), 2));
    assert_eq!(
        (answered.effects.burned, answered.refund, answered.effects.used),
        (fee, Cycles(2), UPLOAD_INSTRUCTIONS)
    );
    let hash: ic::ChunkHash = candid::decode_one(answered.reply()).unwrap();
    assert_eq!(hash.hash, sha2::Sha256::digest([5; 9]).to_vec());
    let stored = |subnet: &mut Subnet| -> Vec<ic::ChunkHash> {
        candid::decode_one(subnet.user_call(user(1), "stored_chunks", &named(id)).reply()).unwrap()
    };
    assert_eq!(stored(&mut subnet), [hash]);
    let view = subnet.fleet.get(id).unwrap();
    assert_eq!(MemoryUse::of(&CanisterView::from(&view)).chunks, Bytes(1 << 20));
    assert_eq!(MemoryUse::of(&CanisterView::from(&view)).total(), view.memory_used());
    let too_long = subnet.user_call(user(1), "upload_chunk", &chunk(vec![0; (1 << 20) + 1]));
    assert_eq!(too_long.error(), ErrorCode::CanisterContractViolation);
    assert!(subnet.user_call(user(1), "upload_chunk", &chunk(vec![0; 1 << 20])).result.is_ok());
    assert!(subnet.user_call(user(1), "clear_chunk_store", &named(id)).result.is_ok());
    assert_eq!(stored(&mut subnet), []);
}

#[test]
fn a_full_chunk_store_takes_only_what_it_has() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    for number in 0..100u8 {
        subnet.canister(id).chunks.0.insert(sha2::Sha256::digest([number]).into(), vec![number]);
    }
    let chunk = |bytes: Vec<u8>| ic::UploadChunkArgs { canister_id: id.principal(), chunk: bytes };
    let full = subnet.user_call(user(1), "upload_chunk", &chunk(vec![200]));
    assert!(full.result.unwrap_err().message.contains("already reached maximum capacity of 104857600 bytes"));
    assert!(subnet.user_call(user(1), "upload_chunk", &chunk(vec![7])).result.is_ok());
    subnet.canister(id).balance.0 = Cycles(1_000);
    let poor = subnet.user_call(user(1), "upload_chunk", &chunk(vec![7]));
    assert!(poor.result.unwrap_err().message.contains("additional cycles are required"));
    assert_eq!(subnet.canister(id).balance.0, Cycles(1_000));
}

use sha2::Digest;
