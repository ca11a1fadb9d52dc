//! Where messages go: ingress into queues, calls and responses between canisters, and what is remembered of ingress.
//!
//! Enters: ingress of the batch, requests and responses that execution produced. Leaves: filled input queues, rejects for what
//! cannot be delivered, the ingress history. Never here: execution of a message, hashing, a clock.
#![forbid(unsafe_code)]

mod active;
mod history;
mod queues;

pub use active::ActiveSet;
pub use history::{Entry, IngressHistory};
pub use queues::{
    Refused, accept_request, accept_response, free_request_slots, release_request, release_response, reserve_response,
};
