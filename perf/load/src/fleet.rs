//! The canisters of a mix: what is made, with which code, in which order.
//!
//! Enters: a workload. Leaves: calls that make its canisters, and their ids by role. Never here: how calls reach a subnet.

use crate::error::LoadFailed;
use crate::ledger;
use crate::mix::Mix;
use crate::user::{SET_UP, Users};
use candid::{Decode, Encode, Nat};
use cyclotron_types::ids::CanisterId;
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, InstallCodeArgs, ProvisionalCreateCanisterWithCyclesArgs,
};
use std::collections::BTreeMap;

/// What every canister of a mix begins with: enough for as long as anyone drives it.
const CYCLES: u128 = 1 << 80;
/// What can be read of the canister of a heap.
pub(crate) const HEAP_MIB: u64 = 16;
/// The same, in pages of 64 KiB.
const HEAP_PAGES: u32 = 16 * 16;
const _: () = assert!(HEAP_PAGES as u64 == HEAP_MIB * 16);
/// The code of all but the ledger.
const CANISTER: &str = include_str!("canister.wat");

/// What a canister is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It is counted on.
    Counter,
    /// An ICRC ledger.
    Ledger,
    /// It has a large heap.
    Heap,
    /// It calls others of its kind.
    Node,
    /// It sets timers.
    Timer,
    /// It takes large arguments.
    Store,
}

/// What is driven: decided by the seed, and the ledger's code.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The mix.
    pub mix: Mix,
    /// Of users and requests.
    pub seed: u64,
    /// The code of an ICRC ledger, for the mixes that have transfers.
    pub ledger: Option<Vec<u8>>,
}

/// A call that prepares a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetUpCall {
    /// The canister that it is about, if that is there already.
    pub about: Option<CanisterId>,
    /// A method of the management canister.
    pub method: &'static str,
    /// Its argument.
    pub arg: Vec<u8>,
}

/// Canisters by role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet(BTreeMap<Role, Vec<CanisterId>>);

impl Fleet {
    /// Those of a role. Panics: where there are none, which the mix rules out.
    pub fn of(&self, role: Role) -> &[CanisterId] {
        self.0.get(&role).expect("the mix made canisters of each role that it asks")
    }

    /// Whether there are any of a role.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains_key(&role)
    }

    /// All of them.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Makes a fleet through whatever carries calls: waves of calls, each of which needs the answers of the one before.
#[derive(Debug)]
pub struct SetUp<'a> {
    workload: &'a Workload,
    users: &'a Users,
    roles: Vec<Role>,
}

impl<'a> SetUp<'a> {
    /// Errors: the mix needs a ledger, and the workload has none.
    pub fn new(workload: &'a Workload, users: &'a Users) -> Result<Self, LoadFailed> {
        if workload.mix.needs_ledger() && workload.ledger.is_none() {
            return Err(LoadFailed::NoLedger);
        }
        let wanted = workload.mix.roles().iter().filter(|(role, _)| *role != Role::Ledger || workload.ledger.is_some());
        let roles = wanted.flat_map(|(role, count)| std::iter::repeat_n(*role, *count)).collect();
        Ok(Self { workload, users, roles })
    }

    /// The first wave: a call for each canister.
    pub fn creations(&self) -> Vec<SetUpCall> {
        let arg = ProvisionalCreateCanisterWithCyclesArgs { amount: Some(Nat::from(CYCLES)), ..Default::default() };
        let arg = Encode!(&arg).expect("the argument has a Candid form");
        let call = SetUpCall { about: None, method: "provisional_create_canister_with_cycles", arg };
        vec![call; self.roles.len()]
    }

    /// The second wave, from the replies to the first.
    pub fn installations(&self, replies: &[Vec<u8>]) -> Result<(Fleet, Vec<SetUpCall>), LoadFailed> {
        let module = wat::parse_str(CANISTER).expect("the canister of the mixes is well-formed");
        let mut fleet = Fleet::default();
        let mut calls = Vec::new();
        for (role, reply) in self.roles.iter().zip(replies) {
            let record = Decode!(reply, CanisterIdRecord)
                .map_err(|error| LoadFailed::SetUp(format!("a new canister's id cannot be read: {error}")))?;
            fleet.0.entry(*role).or_default().push(CanisterId::from_principal(record.canister_id));
            let (wasm_module, arg) = match (role, &self.workload.ledger) {
                (Role::Ledger, Some(code)) => (code.clone(), ledger::init(self.users)),
                (Role::Heap, _) => (module.clone(), HEAP_PAGES.to_le_bytes().to_vec()),
                _ => (module.clone(), Vec::new()),
            };
            let install = InstallCodeArgs {
                mode: CanisterInstallMode::Install,
                canister_id: record.canister_id,
                wasm_module,
                arg,
                sender_canister_version: None,
            };
            let arg = Encode!(&install).expect("the argument has a Candid form");
            let about = Some(CanisterId::from_principal(record.canister_id));
            calls.push(SetUpCall { about, method: "install_code", arg });
        }
        Ok((fleet, calls))
    }

    /// The user who makes the canisters, and may install into them.
    pub const fn user(&self) -> usize {
        SET_UP
    }
}
