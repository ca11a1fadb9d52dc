//! Canisters that others compiled, from the public registries: they install and answer. Where a registry cannot be reached the test
//! says that it is skipped, and nothing is claimed; with CYCLOTRON_REQUIRE_PACKAGES=1 that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::cmp_owned,
    clippy::large_enum_variant,
    reason = "a test: a failure is a panic, speed is nothing"
)]

mod common;

use candid::{CandidType, Encode, Nat, Principal};
use common::*;
use cyclotron_conformance::{Package, TestNode, fetch, program};
use ic_management_canister_types::CanisterInstallMode;
use std::path::PathBuf;

/// A file of a package, or why the package cannot be had.
fn find(package: Package, file: &str) -> Result<Vec<u8>, String> {
    Ok(std::fs::read(place(package, file)?).unwrap())
}

/// Where a file of a package is.
fn place(package: Package, file: &str) -> Result<PathBuf, String> {
    let directory = fetch(package)?;
    let found: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path().join(file))
        .filter(|path| path.exists())
        .collect();
    Ok(found.into_iter().next().unwrap_or_else(|| panic!("no {file} in {}", directory.display())))
}

/// The published ICRC ledger.
const LEDGER: (Package, &str) =
    (Package::PypiSource("pocket-ic==3.1.2"), "examples/ledger_canister/ledger_canister.wasm");

/// One test: its name, and what it shows if the package is there.
type Test = (&'static str, fn(&tokio::runtime::Runtime) -> Result<(), String>);

const TESTS: [Test; 3] = [
    ("the_icrc_ledger_installs_and_transfers", |runtime| runtime.block_on(the_icrc_ledger_installs_and_transfers())),
    ("transfers_of_a_workload_are_taken_by_the_ledger_and_their_recording_replays", |runtime| {
        runtime.block_on(transfers_of_a_workload_are_taken_by_the_ledger())
    }),
    ("azles_template_installs_in_chunks_and_answers", |runtime| {
        runtime.block_on(azles_template_installs_and_answers())
    }),
];

/// What the standard harness's arguments ask for, as far as it can be had here.
#[derive(Default)]
struct Filter {
    /// Parts of names, or whole names if `exact`; all tests if there is none.
    names: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
}

impl Filter {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut filter = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => filter.exact = true,
                "--list" => filter.list = true,
                "--ignored" => filter.ignored = true,
                "--skip" => filter.skipped.extend(arguments.next()),
                // They take a value, which is no name.
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" | "--shuffle-seed" => {
                    drop(arguments.next());
                }
                flag if flag.starts_with('-') => {}
                _ => filter.names.push(argument),
            }
        }
        filter
    }

    fn takes(&self, test: &str) -> bool {
        let fits = |name: &String| if self.exact { test == name } else { test.contains(name.as_str()) };
        !self.ignored && (self.names.is_empty() || self.names.iter().any(fits)) && !self.skipped.iter().any(fits)
    }
}

/// Runs the tests one by one; a panic ends the process with a failure.
fn main() {
    let filter = Filter::parse(std::env::args().skip(1));
    let required = std::env::var("CYCLOTRON_REQUIRE_PACKAGES").is_ok_and(|value| value == "1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (name, test) in TESTS.into_iter().filter(|(name, _)| filter.takes(name)) {
        if filter.list {
            println!("{name}: test");
            continue;
        }
        match test(&runtime) {
            Ok(()) => println!("test {name} ... ok"),
            Err(reason) if required => panic!("test {name} has no package: {reason}"),
            Err(reason) => println!("test {name} ... SKIPPED, nothing was shown: {reason}"),
        }
    }
}

#[derive(CandidType)]
struct Account {
    owner: Principal,
    subaccount: Option<Vec<u8>>,
}

#[derive(CandidType)]
struct ArchiveOptions {
    num_blocks_to_archive: u64,
    trigger_threshold: u64,
    max_transactions_per_response: Option<u64>,
    max_message_size_bytes: Option<u64>,
    cycles_for_archive_creation: Option<u64>,
    node_max_memory_size_bytes: Option<u64>,
    controller_id: Principal,
}

#[derive(CandidType)]
enum MetadataValue {
    Text(String),
}

#[derive(CandidType)]
struct InitArgs {
    decimals: Option<u8>,
    token_symbol: String,
    token_name: String,
    transfer_fee: Nat,
    metadata: Vec<(String, MetadataValue)>,
    minting_account: Account,
    initial_balances: Vec<(Account, Nat)>,
    archive_options: ArchiveOptions,
}

#[derive(CandidType)]
enum LedgerArgs {
    Init(InitArgs),
}

#[derive(CandidType)]
struct Transfer {
    to: Account,
    fee: Option<Nat>,
    memo: Option<Vec<u8>>,
    from_subaccount: Option<Vec<u8>>,
    created_at_time: Option<u64>,
    amount: Nat,
}

#[derive(CandidType, serde::Deserialize, Debug)]
enum TransferResult {
    Ok(Nat),
    Err(candid::Reserved),
}

async fn the_icrc_ledger_installs_and_transfers() -> Result<(), String> {
    let wasm = find(LEDGER.0, LEDGER.1)?;
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let me = agent.get_principal().unwrap();
    let other = key(2);
    let account = |owner: Principal| Account { owner, subaccount: None };
    let other = ic_agent::Identity::sender(&other).unwrap();
    let arg = LedgerArgs::Init(InitArgs {
        decimals: None,
        token_symbol: "TEST".into(),
        token_name: "A test".into(),
        transfer_fee: Nat::from(10u8),
        metadata: vec![("note".into(), MetadataValue::Text("for a test".into()))],
        minting_account: account(ic_agent::Identity::sender(&key(9)).unwrap()),
        initial_balances: vec![(account(me), Nat::from(1_000u32))],
        archive_options: ArchiveOptions {
            num_blocks_to_archive: 1_000,
            trigger_threshold: 2_000,
            max_transactions_per_response: None,
            max_message_size_bytes: None,
            cycles_for_archive_creation: None,
            node_max_memory_size_bytes: None,
            controller_id: me,
        },
    });
    let ledger = create(&agent).await;
    install(&agent, ledger, CanisterInstallMode::Install, &wasm, &Encode!(&arg).unwrap()).await.unwrap();
    let (name,): (String,) = query(&agent, ledger, "icrc1_name", Encode!().unwrap()).await.unwrap();
    assert_eq!(name, "A test");
    let transfer = Transfer {
        to: account(other),
        fee: None,
        memo: None,
        from_subaccount: None,
        created_at_time: None,
        amount: Nat::from(100u8),
    };
    let (block,): (TransferResult,) =
        update(&agent, ledger, "icrc1_transfer", Encode!(&transfer).unwrap()).await.unwrap();
    assert!(matches!(&block, TransferResult::Ok(index) if *index == Nat::from(1u8)), "{block:?}");
    for (owner, balance) in [(me, 890u32), (other, 100)] {
        let (found,): (Nat,) =
            query(&agent, ledger, "icrc1_balance_of", Encode!(&account(owner)).unwrap()).await.unwrap();
        assert_eq!(found, Nat::from(balance));
    }
    // An upgrade carries the balances through stable memory.
    #[derive(CandidType)]
    enum Upgrade {
        #[allow(dead_code, reason = "the other arm of the ledger's argument")]
        Init(InitArgs),
        Upgrade(Option<()>),
    }
    let arg = Encode!(&Upgrade::Upgrade(None)).unwrap();
    install(&agent, ledger, CanisterInstallMode::Upgrade(None), &wasm, &arg).await.unwrap();
    let (found,): (Nat,) = query(&agent, ledger, "icrc1_balance_of", Encode!(&account(other)).unwrap()).await.unwrap();
    assert_eq!(found, Nat::from(100u8));
    Ok(())
}

/// Runs `cyclotron load` for transfers; its report.
fn load_transfers(more: &[&str], ledger: &str) -> serde_json::Value {
    let arguments = ["load", "--json", "--mix", "transfers", "--rate", "50", "--seconds", "1", "--ledger", ledger];
    run_json(&[&arguments[..], more].concat())
}

fn run_json(arguments: &[&str]) -> serde_json::Value {
    let output = program(PROGRAM, arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn transfers_of_a_workload_are_taken_by_the_ledger() -> Result<(), String> {
    let path = place(LEDGER.0, LEDGER.1)?;
    let path = path.to_str().unwrap();
    let node = TestNode::start(PROGRAM);
    let report = load_transfers(&["--url", &node.banner.api], path);
    let kinds = report["kinds"].as_array().unwrap();
    assert!(kinds.iter().all(|kind| kind["answered"] == kind["requests"]), "{report}");
    let transfers = kinds.iter().find(|kind| kind["kind"] == "update").unwrap()["answered"].as_u64().unwrap();
    // Sixteen users began with 2^50 each, and each transfer that is taken burns its fee of ten.
    let ledger = canister_id(FIRST_CANISTER);
    let (supply,): (Nat,) =
        query(&agent(&node, key(1)), ledger, "icrc1_total_supply", Encode!().unwrap()).await.unwrap();
    assert_eq!(supply, Nat::from(16 * (1_u128 << 50) - 10 * u128::from(transfers)), "{report}");

    let file = std::env::temp_dir().join(format!("cyclotron-transfers-{}.cyc", std::process::id()));
    let name = file.to_str().unwrap();
    let made = load_transfers(&["--record", name, "--rounds", "4"], path);
    let replayed = run_json(&["replay", "--json", name]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(replayed["state_hash"], made["state_hash"]);
    Ok(())
}

async fn azles_template_installs_and_answers() -> Result<(), String> {
    let wasm = find(Package::Npm("azle@0.33.0"), "dist/canister_templates/stable.wasm")?;
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let canister = create(&agent).await;
    let mut hash = [[0; 32]];
    cyclotron_crypto::sha256_batch(&[&wasm], &mut hash);
    install_chunked(&agent, canister, &wasm, hash[0].to_vec()).await;
    assert_eq!(agent.read_state_canister_module_hash(canister).await.unwrap(), hash[0]);
    // The template has no JavaScript in it yet; its own methods are there.
    let () = update(&agent, canister, "_azle_chunk", Encode!().unwrap()).await.unwrap();
    let (bytes,): (u32,) = query(&agent, canister, "_azle_heap_allocation", Encode!().unwrap()).await.unwrap();
    assert!(bytes > 0, "the canister's allocator has been at work");
    let stranger = common::agent(&node, key(2));
    let refused = query::<(u32,)>(&stranger, canister, "_azle_heap_allocation", Encode!().unwrap()).await;
    assert!(reject(refused.unwrap_err()).1.contains("Not Authorized"));
    Ok(())
}
