//! What exists: plain data of the Replicated world, its units, names, limits and prices.
//!
//! Enters: numbers of the protocol. Leaves: types. Never here: I/O, clocks, floats, `HashMap`, `unsafe`.
#![forbid(unsafe_code)]

pub mod action;
pub mod batch;
pub mod canister;
pub mod fees;
pub mod host_costs;
pub mod ids;
pub mod imports;
pub mod limits;
pub mod message;
pub mod module_limits;
mod principal_set;
pub mod query;
pub mod reject;
pub mod units;
pub mod weights;

pub use ic_principal::Principal;
pub use principal_set::PrincipalSet;
