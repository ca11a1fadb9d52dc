//! Calling other canisters: `call_*`.

use super::state::PendingCall;
use super::{Answered, MadeCall, NOTHING, SystemApi, take};
use crate::reject::{Blame, Failure, OutOfCycles};
use cyclotron_types::Principal;
use cyclotron_types::canister::WasmClosure;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::{CALL_TIMEOUT_MAX, METHOD_NAME_BYTES_MAX};
use cyclotron_types::message::CallKind;
use cyclotron_types::units::{Bytes, Cycles, Seconds, Time};
use cyclotron_wasm::runtime::Caller;

/// What `call_perform` returns when the call cannot be made.
const CANNOT_CALL: u64 = 2;
/// Longest principal. Spec: #id-classes.
const PRINCIPAL_BYTES_MAX: u64 = 29;

fn no_call(name: &str) -> Failure {
    Failure::toolchain(format!("ic0.{name} called when no call is under construction."))
}

impl SystemApi {
    fn pending(&mut self, name: &str) -> Result<&mut PendingCall, Failure> {
        self.calls.pending.as_deref_mut().ok_or_else(|| no_call(name))
    }

    /// Gives back the cycles of a call that was begun and never performed.
    pub(crate) fn discard_pending(&mut self) {
        if let Some(call) = self.calls.pending.take() {
            self.funds.credit(call.payment);
        }
    }

    pub(super) fn call_new(&mut self, caller: &Caller<'_>, args: &[u64]) -> Answered {
        let [callee_src, callee_size, name_src, name_size, reply_fun, reply_env, reject_fun, reject_env] = *args else {
            return Err(super::arguments("call_new"));
        };
        self.discard_pending();
        if name_size > METHOD_NAME_BYTES_MAX as u64 {
            return Err(Failure::Contract {
                error: format!("Size of method_name {name_size} exceeds the allowed limit of {METHOD_NAME_BYTES_MAX}."),
                blame: Blame::Author(
                    "Consider using a shorter method name.",
                    "canister-made-a-call-with-too-large-method-name",
                ),
            }
            .into());
        }
        let method = String::from_utf8_lossy(take(caller, "call_new method_name", name_src, name_size)?).into_owned();
        if callee_size > PRINCIPAL_BYTES_MAX {
            take(caller, "call_new callee_src", callee_src, callee_size)?;
            return Err(Failure::InvalidPrincipal.into());
        }
        let callee = take(caller, "call_new callee_src", callee_src, callee_size)?;
        let callee = Principal::try_from_slice(callee).map_err(|_| Failure::InvalidPrincipal)?;
        self.calls.pending = Some(Box::new(PendingCall {
            callee,
            method,
            arg: Vec::new(),
            payment: Cycles::ZERO,
            timeout: None,
            on_reply: WasmClosure { function: reply_fun, env: reply_env },
            on_reject: WasmClosure { function: reject_fun, env: reject_env },
            on_cleanup: None,
        }));
        NOTHING
    }

    pub(super) fn call_on_cleanup(&mut self, function: u64, env: u64) -> Answered {
        let call = self.pending("call_on_cleanup")?;
        if call.on_cleanup.is_some() {
            return Err(Failure::toolchain(
                "ic0.call_on_cleanup can be called at most once between `ic0.call_new` and `ic0.call_perform`",
            )
            .into());
        }
        call.on_cleanup = Some(WasmClosure { function, env });
        NOTHING
    }

    pub(super) fn call_data_append(&mut self, caller: &Caller<'_>, src: u64, size: u64) -> Answered {
        let max = self.subnet.limits.request_bytes;
        let call = self.pending("call_data_append")?;
        let total = ((call.method.len() + call.arg.len()) as u64).saturating_add(size);
        if total > max.0 {
            return Err(Failure::Contract {
                error: format!(
                    "Request to {}:{} has a payload size of {total}, which exceeds the allowed limit of {max}.",
                    call.callee, call.method
                ),
                blame: Blame::Author(
                    "Check the canister for errors or redesign the target API to allow shorter messages",
                    "canister-made-a-call-with-too-large-payload",
                ),
            }
            .into());
        }
        call.arg.extend_from_slice(take(caller, "call_data_append", src, size)?);
        NOTHING
    }

    pub(super) fn call_with_best_effort_response(&mut self, timeout: u64) -> Answered {
        let call = self.pending("call_with_best_effort_response")?;
        if call.timeout.is_some() {
            return Err(Failure::toolchain(
                "ic0_call_with_best_effort_response failed because a timeout is already set.",
            )
            .into());
        }
        call.timeout = Some(Seconds(timeout).min(CALL_TIMEOUT_MAX));
        NOTHING
    }

    pub(super) fn call_cycles_add(&mut self, name: &str, amount: u128) -> Answered {
        let (amount, available) = (Cycles(amount), self.funds.liquid());
        let Some(call) = self.calls.pending.as_deref_mut() else { return Err(no_call(name).into()) };
        if amount > available {
            return Err(Failure::InsufficientCycles(OutOfCycles {
                canister: self.identity.canister,
                available: self.funds.balance,
                requested: amount,
                threshold: self.funds.threshold,
                reveal: self.identity.caller_is_controller(),
            })
            .into());
        }
        self.funds.balance.0 -= amount.0;
        // The sum cannot overflow: it was part of one balance.
        call.payment.0 += amount.0;
        NOTHING
    }

    pub(super) fn call_perform(&mut self) -> Answered {
        let Some(call) = self.calls.pending.take() else { return Err(no_call("call_perform").into()) };
        let PendingCall { callee, method, arg, payment, timeout, on_reply, on_reject, on_cleanup } = *call;
        let callee = CanisterId::from_principal(callee);
        let (mut fee, mut prepaid_execution, mut prepaid_transmission) = (Cycles::ZERO, Cycles::ZERO, Cycles::ZERO);
        if self.identity.entry.is_replicated() {
            let bytes = Bytes((method.len() + arg.len()) as u64);
            fee = self.subnet.fees.call_base.saturating_add(self.subnet.fees.transmission(bytes));
            prepaid_execution = self.subnet.prepaid_execution(self.identity.wasm64);
            prepaid_transmission = self.subnet.prepaid_transmission();
        }
        let price = fee.saturating_add(prepaid_execution).saturating_add(prepaid_transmission);
        if price > self.funds.liquid() || !self.has_slot(callee) {
            self.funds.credit(payment);
            return Ok(CANNOT_CALL);
        }
        self.funds.balance.0 -= price.0;
        self.funds.call_fees = self.funds.call_fees.saturating_add(fee);
        let kind = match timeout {
            None => CallKind::Guaranteed,
            // Deadlines are whole seconds, as messages between subnets carry them.
            Some(timeout) => CallKind::BestEffort {
                deadline: Time(Seconds(self.identity.time.to_seconds().saturating_add(timeout.0)).to_nanos()),
            },
        };
        self.calls.made.push(MadeCall {
            callee,
            method,
            arg,
            payment,
            kind,
            on_reply,
            on_reject,
            on_cleanup,
            prepaid_execution,
            prepaid_wasm64: self.identity.wasm64,
            prepaid_transmission,
        });
        Ok(0)
    }

    /// Whether one more call to `callee` may be outstanding.
    fn has_slot(&self, callee: CanisterId) -> bool {
        let before = self.calls.open.to(callee);
        // The slot of the response that is being handled is free again.
        let before = before.saturating_sub(u32::from(self.calls.answered_by == Some(callee)));
        let now = self.calls.made.iter().filter(|call| call.callee == callee).count();
        (before as usize + now) < self.subnet.limits.queue_slots as usize
    }
}
