//! Where messages go: ingress into queues, calls and responses between canisters, and what is remembered of ingress.
//!
//! Enters: ingress of the batch, requests and responses that execution produced. Leaves: filled input queues, rejects for what
//! cannot be delivered, the ingress history. Never here: execution of a message, hashing, a clock.
#![forbid(unsafe_code)]

mod active;
mod alarms;
mod deliver;
mod directory;
mod history;
mod induct;
mod queues;
mod state;

pub use active::ActiveSet;
pub use alarms::{Alarms, Dues, StopDeadlines, Timers};
pub use deliver::{Mailbox, deliver_outbox, reserve_slots};
pub use directory::Directory;
pub use history::{Entry, IngressHistory};
pub use induct::{forget_statuses, induct_ingress, time_out_calls};
pub use queues::{Place, QueueFull, check_place, dequeue, enqueue, place_of};
pub use state::{
    Answered, CurrentRound, Deadlines, Input, ManagementInbox, ManagementLines, Outbox, Stopping, Tally, Touched,
};
