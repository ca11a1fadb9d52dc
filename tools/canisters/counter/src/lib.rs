//! A counter: the first canister of the README and the workhorse of the end-to-end tests.
//!
//! State lives in a thread-local and survives upgrades through stable memory. Besides counting it does, in the smallest form, what the tests need
//! to see: a trap after a write, calls to another counter, a certified variable, a timer and a long computation.

use candid::{Nat, Principal};
use ic_cdk::call::Call;
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static TIMER_FIRED: Cell<u64> = const { Cell::new(0) };
}

fn set(count: u64) {
    COUNT.set(count);
    ic_cdk::api::certified_data_set(count.to_be_bytes());
}

#[ic_cdk::init]
fn init() {
    set(0);
}

#[ic_cdk::pre_upgrade]
fn pre_upgrade() {
    ic_cdk::storage::stable_save((COUNT.get(),)).expect("a number fits in stable memory");
}

#[ic_cdk::post_upgrade]
fn post_upgrade() {
    let (count,): (u64,) = ic_cdk::storage::stable_restore().expect("pre_upgrade saved a number");
    set(count);
}

/// Adds one and returns the new count.
#[ic_cdk::update]
fn increment() -> Nat {
    set(COUNT.get() + 1);
    Nat::from(COUNT.get())
}

/// Returns the count.
#[ic_cdk::query]
fn get() -> Nat {
    Nat::from(COUNT.get())
}

/// Returns the count with the certificate that covers it (big-endian, eight bytes).
#[ic_cdk::query]
fn get_certified() -> (Nat, Option<Vec<u8>>) {
    (Nat::from(COUNT.get()), ic_cdk::api::data_certificate())
}

/// Adds one, then traps: nobody may ever see the count that it wrote.
#[ic_cdk::update]
fn increment_then_trap() {
    set(COUNT.get() + 1);
    ic_cdk::trap("after the write");
}

/// Returns who calls.
#[ic_cdk::query]
fn whoami() -> Principal {
    ic_cdk::api::msg_caller()
}

/// Increments another counter and returns its answer.
#[ic_cdk::update]
async fn increment_other(other: Principal) -> Nat {
    let response = Call::unbounded_wait(other, "increment").await.expect("the other counter answers");
    response.candid().expect("the other counter answers a nat")
}

/// Increments itself, calls another counter's trapping method, and reports the reject: its own increment stays.
#[ic_cdk::update]
async fn increment_and_call_trap(other: Principal) -> String {
    set(COUNT.get() + 1);
    match Call::unbounded_wait(other, "increment_then_trap").await {
        Ok(_) => "replied".into(),
        Err(error) => error.to_string(),
    }
}

/// Spins for about `millions` million rounds of xorshift and returns the last number: for time slicing.
#[ic_cdk::update]
fn spin(millions: u64) -> u64 {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..millions * 1_000_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    x
}

/// Asks for the global timer in `nanos` nanoseconds.
#[ic_cdk::update]
fn set_timer(nanos: u64) {
    ic_cdk::api::global_timer_set(ic_cdk::api::time() + nanos);
}

#[unsafe(export_name = "canister_global_timer")]
extern "C" fn on_timer() {
    TIMER_FIRED.set(TIMER_FIRED.get() + 1);
}

/// How often the timer fired.
#[ic_cdk::query]
fn timer_fired() -> u64 {
    TIMER_FIRED.get()
}

/// Prints a line to the log.
#[ic_cdk::update]
fn print(line: String) {
    ic_cdk::api::debug_print(line);
}

/// Thirty-two random bytes from the management canister.
#[ic_cdk::update]
async fn random() -> Vec<u8> {
    let response = Call::unbounded_wait(Principal::management_canister(), "raw_rand").await.expect("raw_rand answers");
    response.candid().expect("raw_rand answers with bytes")
}
