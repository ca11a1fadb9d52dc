//! What an ICRC-1 ledger is told: the ledger that DFINITY publishes, whose code is given from outside.
//!
//! Never here: the code itself; it is not part of this repository.

use crate::user::Users;
use candid::{CandidType, Encode, Nat, Principal};

/// What each user has at first: more than anyone can transfer, and all of it together fits into the 64 bits of a ledger's supply.
const BALANCE: u64 = 1 << 50;
/// Transactions from which on a ledger makes archives, which would be other canisters: never. It must fit into 32 bits.
const ARCHIVE_FROM: u64 = 1 << 31;

#[derive(CandidType)]
struct Account {
    owner: Principal,
    subaccount: Option<Vec<u8>>,
}

impl Account {
    fn of(owner: Principal) -> Self {
        Self { owner, subaccount: None }
    }
}

#[derive(CandidType)]
struct ArchiveOptions {
    num_blocks_to_archive: u64,
    trigger_threshold: u64,
    controller_id: Principal,
}

#[derive(CandidType)]
enum MetadataValue {
    Text(String),
}

#[derive(CandidType)]
struct InitArgs {
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
    amount: Nat,
}

/// The argument of the ledger's installation: all users are rich.
pub fn init(users: &Users) -> Vec<u8> {
    let everyone = (0..users.len()).map(|user| users.principal(user));
    let controller = Principal::management_canister();
    let arg = LedgerArgs::Init(InitArgs {
        token_symbol: "LOAD".into(),
        token_name: "Load".into(),
        transfer_fee: Nat::from(10_u8),
        metadata: vec![("note".into(), MetadataValue::Text("a synthetic workload".into()))],
        minting_account: Account::of(controller),
        initial_balances: everyone.map(|user| (Account::of(user), Nat::from(BALANCE))).collect(),
        archive_options: ArchiveOptions {
            num_blocks_to_archive: 1_000,
            trigger_threshold: ARCHIVE_FROM,
            controller_id: controller,
        },
    });
    Encode!(&arg).expect("the argument has a Candid form")
}

/// The argument of `icrc1_transfer`.
pub fn transfer(to: Principal, subaccount: u64, amount: u64) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[24..].copy_from_slice(&subaccount.to_be_bytes());
    let transfer = Transfer { to: Account { owner: to, subaccount: Some(bytes) }, amount: Nat::from(amount) };
    Encode!(&transfer).expect("the argument has a Candid form")
}

/// The argument of `icrc1_balance_of`.
pub fn balance_of(owner: Principal) -> Vec<u8> {
    Encode!(&Account::of(owner)).expect("the argument has a Candid form")
}
