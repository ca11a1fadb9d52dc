//! What a slice's instructions went into: for people who look at rounds.
//!
//! Enters: what executions report. Leaves: [`SliceCosts`]. Never here: anything that a result depends on.

use crate::config::RoundEnv;
use cyclotron_types::host_costs::HEAP_DIRTY_PAGE;
use cyclotron_types::units::Instructions;
use cyclotron_wasm::calls::CallCosts;
use cyclotron_wasm::runtime::{Execution, Finished, Host};

/// Charged for pages of the heap that a message changed.
const PAGES: &str = "[changed pages]";
/// Charged for the module of an installation.
pub(crate) const COMPILATION: &str = "[compilation]";
/// Charged for putting a module together of chunks.
pub(crate) const ASSEMBLY: &str = "[assembly of chunks]";
/// Charged for storing a chunk.
pub(crate) const UPLOAD: &str = "[storing a chunk]";

/// What one slice cost besides time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceCosts {
    /// Pages of heaps that changed; counted in the slice in which the Wasm ended.
    pub pages: u64,
    /// What the functions of each Wasm execution were charged, where the engine makes code that reports it
    /// ([`cyclotron_wasm::lower::Config::calls`]); then they and what is beside them add up to the slice's instructions.
    pub calls: Vec<CallCosts>,
    /// What was charged besides, and why.
    pub beside: Vec<(&'static str, Instructions)>,
}

impl SliceCosts {
    /// All instructions that are accounted for.
    pub fn total(&self) -> Instructions {
        let calls = self.calls.iter().map(CallCosts::total);
        calls
            .chain(self.beside.iter().map(|(_, charged)| *charged))
            .fold(Instructions::ZERO, Instructions::saturating_add)
    }

    /// Adds what an execution did before it was suspended.
    pub(crate) fn suspended<H: Host>(&mut self, execution: &mut Execution<H>) {
        self.calls.extend(execution.take_calls());
    }

    /// Adds what an execution did before it ended, and returns what that is charged, earlier slices included: its instructions and its changed
    /// pages, at most its limit.
    pub(crate) fn finished<H: Host>(&mut self, finished: &mut Finished<H>, limit: Instructions) -> Instructions {
        let pages = Instructions(finished.dirty_pages.saturating_mul(HEAP_DIRTY_PAGE.0));
        let charged = finished.instructions.saturating_add(pages).min(limit);
        self.pages += finished.dirty_pages;
        if let Some(calls) = finished.calls.take() {
            self.calls.push(calls);
            self.beside.push((PAGES, charged.saturating_sub(finished.instructions)));
        }
        charged
    }

    /// Adds what no execution did, if anybody wants to know.
    pub(crate) fn add(&mut self, env: &RoundEnv, why: &'static str, charged: Instructions) {
        if charged > Instructions::ZERO && env.machine.engine.config().code.calls {
            self.beside.push((why, charged));
        }
    }
}
