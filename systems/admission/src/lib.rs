//! From bytes of client requests to admitted messages, many at a time.
//!
//! Enters: route and body of each request, the node's clock, this subnet's names. Leaves: for each either a message whose
//! sender is proven and whose shape is right, or an error with its HTTP status. Never here: canister state (what depends on
//! it leaves as [`Condition`]s), a socket, an order among requests.
//!
//! Spec: ic-interface-spec #authentication, #http-effective-canister-id, #http-read-state.
#![forbid(unsafe_code)]

mod admit;
mod authentication;
mod destination;
mod error;
mod paths;

pub use admit::{Admitted, AdmittedCall, AdmittedQuery, AdmittedReadState, Config, RequestBytes, admit, admit_batch};
pub use error::AdmissionError;
pub use paths::Condition;
