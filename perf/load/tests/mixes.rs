//! What a seed stands for.
#![allow(clippy::unwrap_used, reason = "a test: a failure is a panic")]

use candid::Encode;
use cyclotron_crypto::sha256_batch;
use cyclotron_load::{Fleet, Kind, LoadFailed, Mix, Request, Requests, Role, SetUp, Users, Workload};
use cyclotron_types::ids::CanisterId;
use ic_management_canister_types::CanisterIdRecord;

/// A fleet whose canisters have the numbers from zero on.
fn fleet(mix: Mix, users: &Users) -> Fleet {
    let workload = Workload { mix, seed: 1, ledger: Some(b"code".to_vec()) };
    let set_up = SetUp::new(&workload, users).unwrap();
    let created = (0..set_up.creations().len() as u64)
        .map(|number| Encode!(&CanisterIdRecord { canister_id: CanisterId::from_u64(number).principal() }).unwrap());
    set_up.installations(&created.collect::<Vec<_>>()).unwrap().0
}

fn requests(mix: Mix, seed: u64, count: usize) -> Vec<Request> {
    let users = Users::new(seed);
    let fleet = fleet(mix, &users);
    Requests::new(mix, seed, &users, &fleet).take(count).collect()
}

fn hash(requests: &[Request]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for Request { kind, user, canister, method, arg } in requests {
        bytes.extend(format!("{kind:?} {user} {canister} {method} {} ", arg.len()).into_bytes());
        bytes.extend(arg);
    }
    let mut digests = [[0; 32]];
    sha256_batch(&[&bytes], &mut digests);
    digests[0]
}

#[test]
fn the_same_seed_gives_the_same_requests_and_another_seed_gives_others() {
    for mix in Mix::ALL {
        let first = hash(&requests(mix, 7, 30));
        assert_eq!(first, hash(&requests(mix, 7, 30)), "{mix}");
        assert_ne!(first, hash(&requests(mix, 8, 30)), "{mix}");
    }
}

#[test]
fn a_mix_asks_in_its_own_way() {
    for (mix, methods) in [
        (Mix::Counters, &["increment"][..]),
        (Mix::Transfers, &["icrc1_balance_of", "icrc1_transfer"]),
        (Mix::Heaps, &["scan", "sum"]),
        (Mix::Graphs, &["visit"]),
        (Mix::Timers, &["arm"]),
        (Mix::Ingress, &["put"]),
        (Mix::Queries, &["get"]),
        (Mix::Mixed, &["arm", "get", "icrc1_balance_of", "icrc1_transfer", "increment", "put", "scan", "visit"]),
    ] {
        let requests = requests(mix, 3, 400);
        let mut found: Vec<_> = requests.iter().map(|request| request.method).collect();
        found.sort_unstable();
        found.dedup();
        // The rare queries of a heap need not be among so few.
        found.retain(|method| mix == Mix::Heaps || *method != "sum");
        assert_eq!(found, methods, "{mix}");
        assert_eq!(mix.has_updates(), requests.iter().any(|request| request.kind == Kind::Update), "{mix}");
    }
}

/// Canisters below the root of a tree, and how deep they go.
fn measure(tree: &[u8]) -> (usize, usize) {
    let (mut at, mut below, mut depth) = (1, 0, 0);
    for _ in 0..tree[0] {
        let bytes = usize::from(u16::from_le_bytes([tree[at + 10], tree[at + 11]]));
        let (children, deep) = measure(&tree[at + 12..at + 12 + bytes]);
        (at, below, depth) = (at + 12 + bytes, below + 1 + children, depth.max(deep + 1));
    }
    assert_eq!(at, tree.len(), "a tree has nothing behind its last child");
    (below, depth)
}

#[test]
fn graphs_are_trees_within_their_bounds_and_some_are_large() {
    let trees: Vec<_> = requests(Mix::Graphs, 5, 1_000).iter().map(|request| measure(&request.arg)).collect();
    assert!(trees.iter().all(|(below, depth)| *below <= 40 && *depth <= 5));
    assert!(trees.iter().any(|(below, depth)| *below >= 30 && *depth == 5));
    assert!(trees.iter().any(|(below, _)| *below == 0));
}

#[test]
fn arguments_of_large_ingress_fit_into_a_message_and_spread_over_their_sizes() {
    let sizes: Vec<_> = requests(Mix::Ingress, 5, 200).iter().map(|request| request.arg.len()).collect();
    assert!(sizes.iter().all(|size| (16 << 10..=1_792 << 10).contains(size)));
    assert!(sizes.iter().any(|size| *size < 32 << 10) && sizes.iter().any(|size| *size > 1 << 20));
}

#[test]
fn without_a_ledger_mixed_has_no_transfers_and_transfers_cannot_be() {
    let users = Users::new(1);
    let without = |mix| Workload { mix, seed: 1, ledger: None };
    assert!(matches!(SetUp::new(&without(Mix::Transfers), &users), Err(LoadFailed::NoLedger)));
    let mixed = without(Mix::Mixed);
    let set_up = SetUp::new(&mixed, &users).unwrap();
    let created: Vec<_> = (0..set_up.creations().len() as u64)
        .map(|number| Encode!(&CanisterIdRecord { canister_id: CanisterId::from_u64(number).principal() }).unwrap())
        .collect();
    let (fleet, installations) = set_up.installations(&created).unwrap();
    assert!(!fleet.has(Role::Ledger) && installations.len() == fleet.len());
    assert!(Requests::new(Mix::Mixed, 1, &users, &fleet).take(500).all(|request| !request.method.starts_with("icrc1")));
}

#[test]
fn a_mix_is_known_by_its_name_and_an_unknown_one_is_told_all_names() {
    for mix in Mix::ALL {
        assert_eq!(mix.name().parse(), Ok(mix));
    }
    let refused = "tokens".parse::<Mix>().unwrap_err();
    assert!(Mix::ALL.iter().all(|mix| refused.contains(mix.name())), "{refused}");
}
