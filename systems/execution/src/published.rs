//! A canister as a round left it, for who reads while the next round runs: queries, message inspection, read-only management methods.
//!
//! Enters: a canister's components between two rounds. Leaves: plain facts, and a version of its memories that views can be seated on.
//! Never here: a change of what the canister is.

use crate::canister::{CanisterMut, Program};
use crate::machine::PublishedProgram;
use crate::management::{Guarded, MemoryUse};
use cyclotron_types::canister::{CanisterLog, Controllers, RunState, SharedSettings};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::{Cycles, Height, Time};
use std::sync::{Arc, LazyLock};

/// A canister as a round left it.
#[derive(Debug)]
pub struct PublishedCanister {
    /// Its name.
    pub id: CanisterId,
    /// The round that left it so.
    pub height: Height,
    /// Who manages it.
    pub controllers: Controllers,
    /// Its settings.
    pub settings: SharedSettings,
    /// Whether it takes messages.
    pub run_state: RunState,
    /// How often code or controllers have changed: with the times of its history.
    pub changes: u64,
    /// Its cycles.
    pub balance: Cycles,
    /// Cycles reserved for storage.
    pub reserved: Cycles,
    /// Its version.
    pub version: u64,
    /// Its timer.
    pub timer: Time,
    /// What it stores.
    pub memory: MemoryUse,
    /// Its log; shared with earlier publications while it stays as it is.
    pub log: Arc<CanisterLog>,
    /// Whether no message waits in its queues, in or out.
    pub quiet: bool,
    /// Its code.
    pub program: Option<PublishedProgram>,
}

impl PublishedCanister {
    /// Publishes the canister as it is, without what a suspended message has done; views of the publication `before` cannot begin any more.
    ///
    /// Cost: a copy of globals, of those who wait for it to stop, and of the log where that has changed.
    pub fn publish(canister: &mut CanisterMut<'_>, height: Height, quiet: bool, before: Option<&Self>) -> Self {
        let memory = MemoryUse::of(&(&*canister).into());
        Self {
            id: canister.id,
            height,
            controllers: canister.controllers.clone(),
            settings: canister.settings.clone(),
            run_state: canister.run_state.clone(),
            changes: canister.history.total,
            balance: canister.balance.0,
            reserved: canister.reserved.0,
            version: canister.version.0,
            timer: canister.timer.0,
            memory,
            log: log(canister.log, before),
            quiet,
            program: match canister.program {
                Program::Empty => None,
                Program::Installed(installed) => Some(installed.publish(canister.paused)),
            },
        }
    }

    /// What the caller rules look at.
    pub fn guarded(&self) -> Guarded<'_> {
        Guarded { id: self.id, controllers: &self.controllers, settings: &self.settings }
    }
}

fn log(now: &CanisterLog, before: Option<&PublishedCanister>) -> Arc<CanisterLog> {
    // Lines come with new numbers and go with their bytes: a log with the same three numbers is the same.
    let key = |log: &CanisterLog| (log.next_index, log.bytes, log.records.len());
    let same = before.map(|before| &before.log).filter(|log| key(log) == key(now));
    // What has never held a line is the same for all.
    static NEVER: LazyLock<Arc<CanisterLog>> = LazyLock::new(Arc::default);
    match same {
        Some(same) => Arc::clone(same),
        None if *now == **NEVER => Arc::clone(&NEVER),
        None => Arc::new(now.clone()),
    }
}
