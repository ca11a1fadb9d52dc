//! What goes into the kernel and what comes out of it.
//!
//! Enters: messages and tasks. Leaves: effects that the caller routes. Never here: behaviour.

use crate::costs::SliceCosts;
use cyclotron_types::ids::MessageId;
use cyclotron_types::message::{IngressStatus, Message, Request, Response, SystemTask};
use cyclotron_types::units::{Cycles, Instructions};
use std::fmt;

/// One thing for a canister to do, run to its end by [`crate::start`] and [`crate::resume`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Job {
    /// An ingress message or request (runs an update method, or a query method in replicated mode), or a response (runs a callback).
    /// `Message::Vacant` is a programming error.
    Message(Message),
    /// A heartbeat, global timer or low-memory hook. The caller has checked that it is due.
    Task(SystemTask),
}

impl Job {
    /// What of the canister it runs.
    pub fn name(&self) -> JobName {
        match self {
            Self::Message(message) => JobName::of(message),
            Self::Task(task) => JobName::Task(*task),
        }
    }

    /// The same as text.
    pub fn label(&self) -> &str {
        match self {
            Self::Message(message) => message_label(message),
            Self::Task(task) => task_label(*task),
        }
    }
}

/// What a message runs, as text.
pub(crate) fn message_label(message: &Message) -> &str {
    match message {
        Message::Ingress(ingress) => &ingress.method,
        Message::Request(request) => &request.method,
        Message::Response(_) | Message::Vacant => CALLBACK,
    }
}

/// A task as text.
pub(crate) fn task_label(task: SystemTask) -> &'static str {
    match task {
        SystemTask::Heartbeat => "(heartbeat)",
        SystemTask::GlobalTimer => "(global timer)",
        SystemTask::OnLowWasmMemory => "(on low wasm memory)",
    }
}

/// A slice of an installation as text.
pub(crate) const INSTALLATION: &str = "(installation)";
/// A callback as text.
pub(crate) const CALLBACK: &str = "(callback)";

/// What of a canister a job runs: for people who look at rounds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobName {
    /// A method, called by a user or a canister.
    Method(String),
    /// A callback.
    Callback,
    /// A task of the system.
    Task(SystemTask),
}

impl JobName {
    /// What a message runs.
    pub(crate) fn of(message: &Message) -> Self {
        match message {
            Message::Ingress(ingress) => Self::Method(ingress.method.clone()),
            Message::Request(request) => Self::Method(request.method.clone()),
            Message::Response(_) | Message::Vacant => Self::Callback,
        }
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(name) => f.write_str(name),
            Self::Callback => f.write_str(CALLBACK),
            Self::Task(task) => f.write_str(task_label(*task)),
        }
    }
}

/// What a slice came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The slice's instructions are used up; the canister's [`crate::Paused`] holds the rest. Nothing of the canister has changed, its
    /// cycles prepaid for the message excepted.
    Suspended {
        /// Instructions of this slice.
        used: Instructions,
        /// What they went into.
        costs: SliceCosts,
    },
    /// The job is finished.
    Done(Outcome),
}

/// What a finished job leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Instructions of the last slice.
    pub used: Instructions,
    /// Instructions of the whole message, as charged.
    pub total: Instructions,
    /// What the last slice's instructions went into.
    pub costs: SliceCosts,
    /// What is to be done outside of the canister.
    pub effects: Effects,
}

/// A message for another canister (or for the management canister).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A call.
    Request(Request),
    /// An answer.
    Response(Response),
}

/// What the caller of the kernel must do, and what it may want to know. Balances, certified data, timers, contexts and logs have
/// been written to the canister's components already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Calls in the order in which they were made, then the answer, if any.
    pub outgoing: Vec<Outgoing>,
    /// New status of an ingress message: the one that was answered.
    pub ingress: Option<(MessageId, IngressStatus)>,
    /// Cycles that left the world: fees, `cycles_burn128`.
    pub burned: Cycles,
    /// Bytes by which the canister's memory grew and that count against the subnet (none under a memory allocation).
    pub memory_taken: u64,
    /// Whether `canister_on_low_wasm_memory` became due: it runs before the next message.
    pub low_memory: bool,
    /// Whether the canister has no open call context left: a stopping canister may become stopped.
    pub idle: bool,
    /// How the Wasm ended.
    pub verdict: Verdict,
}

/// How the Wasm of a message ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It did not run (the canister was frozen, had no such method, ...).
    #[default]
    NotRun,
    /// It returned; its effects hold.
    Returned,
    /// It trapped; it has had no effect but its charge and its log lines.
    Trapped,
}
