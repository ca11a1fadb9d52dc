//! What the System API of a message starts with.

use crate::canister::CanisterMut;
use crate::charge;
use crate::config::{RoundEnv, SubnetConfig};
use crate::system_api::{
    Answer, Calls, Entry, Funds, Identity, MemoryBook, Message, Rates, SystemApi, TouchedPages, Written,
};
use cyclotron_types::Principal;
use cyclotron_types::canister::{CallOrigin, RunState};
use cyclotron_types::host_costs::LogRoom;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::CONTROLLERS_MAX;
use cyclotron_types::message::CallKind;
use cyclotron_types::units::{Bytes, Cycles, Instructions, Time};
use std::sync::Arc;

/// What differs between messages.
pub(super) struct Setup {
    pub entry: Entry,
    pub caller: Principal,
    pub message: Message,
    pub answer: Answer,
    /// Of the call's payment.
    pub available: Cycles,
    /// What a response brought back.
    pub refunded: Cycles,
    /// Added to the canister's balance for this message.
    pub incoming: Cycles,
    /// Instructions of the call context's earlier messages.
    pub context_instructions: Instructions,
    /// The callee whose response is handled.
    pub answered_by: Option<CanisterId>,
    /// Bytes that earlier parts of the message have logged.
    pub logged: u64,
    /// A handle of its own on the environment's subnet: a thread that has one need not count another, which all threads wait for.
    pub subnet: Option<Arc<SubnetConfig>>,
}

impl Setup {
    /// A message without payment or call context.
    pub fn plain(entry: Entry, caller: Principal, message: Message) -> Self {
        Self {
            entry,
            caller,
            message,
            answer: Answer::NotOwed,
            available: Cycles::ZERO,
            refunded: Cycles::ZERO,
            incoming: Cycles::ZERO,
            context_instructions: Instructions::ZERO,
            answered_by: None,
            logged: 0,
            subnet: None,
        }
    }
}

/// The components that the System API reads: those of a message's canister, or of a query's.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub id: CanisterId,
    pub controllers: &'a cyclotron_types::canister::Controllers,
    pub balance: Cycles,
    pub reserved: Cycles,
    pub version: u64,
    pub timer: Time,
    pub run_state: &'a RunState,
    pub settings: &'a cyclotron_types::canister::Settings,
    pub memory_used: Bytes,
    pub wasm64: bool,
}

impl<'a> Facts<'a> {
    pub fn of(canister: &'a CanisterMut<'_>, wasm64: bool) -> Self {
        Self {
            id: canister.id,
            controllers: canister.controllers,
            balance: canister.balance.0,
            reserved: canister.reserved.0,
            version: canister.version.0,
            timer: canister.timer.0,
            run_state: canister.run_state,
            settings: canister.settings,
            memory_used: canister.memory_used(),
            wasm64,
        }
    }
}

/// Makes the System API of a message.
pub(super) fn system_api(
    env: &RoundEnv,
    facts: Facts<'_>,
    open: Option<&crate::canister::OpenCalls>,
    setup: Setup,
) -> Box<SystemApi> {
    let settings = facts.settings;
    let rates = Rates::from(settings);
    let mut controllers = [Principal::anonymous(); CONTROLLERS_MAX];
    let mut controllers_len = 0;
    for (place, controller) in controllers.iter_mut().zip(&facts.controllers.0) {
        *place = *controller;
        controllers_len += 1;
    }
    let limits = &env.subnet.limits;
    let stable_limit = match setup.entry {
        entry if entry.is_install() => limits.stable_touched_install,
        entry if entry.is_replicated() && entry != Entry::ReplicatedQuery => limits.stable_touched,
        _ => limits.stable_touched_query,
    };
    let variables = &settings.environment_variables;
    let capacity = settings.log_memory_limit.0;
    Box::new(SystemApi {
        identity: Identity {
            entry: setup.entry,
            status: match facts.run_state {
                RunState::Running => 1,
                RunState::Stopping(_) => 2,
                RunState::Stopped => 3,
            },
            wasm64: facts.wasm64,
            controllers_len,
            caller: setup.caller,
            canister: facts.id,
            version: facts.version,
            time: env.time,
            context_instructions: setup.context_instructions,
            controllers,
            environment: (!variables.is_empty())
                .then(|| variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect::<Arc<[_]>>()),
        },
        failure: None,
        message: setup.message,
        answer: setup.answer,
        reply_data: Vec::new(),
        funds: Funds {
            balance: facts.balance.saturating_add(setup.incoming),
            reserved: facts.reserved,
            threshold: charge::freezing_threshold(&env.subnet.fees, rates, facts.memory_used, facts.reserved),
            available: setup.available,
            refund: Cycles::ZERO,
            refunded: setup.refunded,
            burned: Cycles::ZERO,
            call_fees: Cycles::ZERO,
            newly_reserved: Cycles::ZERO,
        },
        calls: Calls {
            pending: None,
            made: Vec::new(),
            open: open.cloned().unwrap_or_default(),
            answered_by: setup.answered_by,
        },
        memory: MemoryBook {
            rates,
            wasm_memory_limit: settings.wasm_memory_limit,
            reserved_cycles_limit: settings.reserved_cycles_limit,
            used: facts.memory_used,
            available: env.memory_available,
            subnet_used: env.memory_used,
            taken: Bytes::ZERO,
            stable_limit,
            stable_touched: TouchedPages::default(),
        },
        written: Written {
            timer_now: facts.timer,
            log_room: LogRoom { capacity, remaining: capacity.saturating_sub(setup.logged) },
            ..Written::default()
        },
        stable: None,
        subnet: setup.subnet.unwrap_or_else(|| Arc::clone(&env.subnet)),
    })
}

/// The principal that a call context's messages see as their caller.
pub(super) fn caller_of(origin: &CallOrigin) -> Principal {
    match origin {
        CallOrigin::Ingress { sender, .. } => *sender,
        CallOrigin::Canister { caller, .. } => caller.principal(),
        CallOrigin::Task(_) => Principal::management_canister(),
    }
}

/// When the caller of a call context may stop waiting; zero is never.
pub(super) fn deadline_of(kind: CallKind) -> Time {
    match kind {
        CallKind::Guaranteed => Time::ZERO,
        CallKind::BestEffort { deadline } => deadline,
    }
}
