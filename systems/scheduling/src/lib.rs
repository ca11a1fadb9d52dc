//! Which canister runs where, and the running: the scheduler cores of a round.
//!
//! Enters: canisters with work, in protocol order. Leaves: their changed components, and effects folded in the scheduler's order.
//! Never here: a System API rule; a result that depends on the number of threads.
//!
//! A round has a fixed number of scheduler cores with a budget of instructions each, whatever the machine has. Canisters are dealt to
//! cores in the order of their priority; a core runs its canisters one after the other, each until it has no work or the budget is spent.
//! Threads only decide when a core's work happens: cores share nothing, and their results are folded in core order.
#![forbid(unsafe_code)]

mod abort;
mod fold;
mod order;
mod run;
mod seats;
mod tasks;

pub use abort::abort_suspended;
pub use fold::fold_results;
pub use order::{Cores, Installing, begin_round, choose_canisters, end_round};
pub use run::{Profile, Ran, Results, RunOrder, Workers, execute_canisters};
pub use seats::{Parked, free_seats};
pub use tasks::{Heartbeats, queue_due_tasks};
