//! What people see of rounds: the time of each stage on the metrics page, and the lines that canisters print on the console.

use cyclotron_subnet::{RoundObserver, RoundSet};
use cyclotron_trace::{Metrics, Stage, StageClock, info};
use cyclotron_types::canister::LogRecord;
use cyclotron_types::ids::CanisterId;
use std::sync::Arc;

/// Longest line that is shown whole; the canister's log keeps more.
const LINE_BYTES_MAX: usize = 4_096;

/// Watches one subnet.
pub struct Watcher {
    metrics: Arc<Metrics>,
    clock: StageClock,
}

impl Watcher {
    /// A watcher that has seen nothing.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, clock: StageClock::start() }
    }
}

impl RoundObserver for Watcher {
    fn round_begun(&mut self) {
        self.clock = StageClock::start();
    }

    fn stage_ended(&mut self, stage: RoundSet) {
        let stage = match stage {
            RoundSet::TimeOut => Stage::TimeOut,
            RoundSet::Induct => Stage::Induct,
            RoundSet::Execute => Stage::Execute,
            RoundSet::Checkpoint => Stage::Checkpoint,
            RoundSet::Sync => Stage::Sync,
            RoundSet::Certify => Stage::Certify,
        };
        self.metrics.mark(&mut self.clock, stage);
    }

    fn canister_logged(&mut self, canister: CanisterId, line: &LogRecord) {
        let shown = &line.content[..line.content.len().min(LINE_BYTES_MAX)];
        // Control characters could drive the terminal.
        let text: String =
            String::from_utf8_lossy(shown).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        info!(target: "canister", "{canister}: {text}");
    }
}
