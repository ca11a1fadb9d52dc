//! Counters, gauges and histograms of one node, and the page that shows them.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The stages of a node's work that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Stage {
    /// Envelopes decoded and checked.
    Admit,
    /// What waits no longer.
    TimeOut,
    /// The batch enters.
    Induct,
    /// Canisters run.
    Execute,
    /// Suspended executions are aborted.
    Checkpoint,
    /// What is kept about canisters follows them.
    Sync,
    /// The state tree is hashed and signed.
    Certify,
    /// A query runs.
    Query,
    /// A certificate is made for a reader.
    ReadState,
}

/// What a client's request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Taken.
    Accepted,
    /// Malformed, unauthenticated or forbidden.
    Refused,
    /// No room, or nothing certified yet: to be tried again.
    Overloaded,
    /// Dropped before it was worked on: the client had left.
    Abandoned,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: Stage,
}

/// Signatures that were checked together: those of one scheme in a batch.
#[derive(Clone, Copy, Debug)]
pub struct SignatureBatch {
    /// Their scheme.
    pub scheme: &'static str,
    /// What checked them.
    pub backend: &'static str,
    /// How many.
    pub signatures: usize,
    /// How many of them are valid.
    pub valid: usize,
    /// The time it took.
    pub elapsed: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabel {
    scheme: &'static str,
    backend: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    scheme: &'static str,
    backend: &'static str,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// All metrics of one node. Cheap to update from any thread.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    stages: Family<StageLabel, Histogram>,
    requests: Family<OutcomeLabel, Counter>,
    signatures: Family<VerdictLabel, Counter>,
    signature_batches: Family<BackendLabel, Histogram>,
    signature_time: Family<BackendLabel, Counter<f64, AtomicU64>>,
    /// Height of the last round.
    pub height: Gauge,
    /// Canisters on the subnet.
    pub canisters: Gauge,
    /// Ingress messages waiting for a batch.
    pub pool: Gauge,
    /// Ingress messages remembered.
    pub history: Gauge,
    /// Bytes of memory that canisters use.
    pub memory: Gauge,
    /// Queries answered.
    pub queries: Counter,
    /// Messages executed.
    executed: Counter,
}

/// A counter that is kept elsewhere.
struct Watched<F> {
    name: &'static str,
    help: &'static str,
    read: F,
}

impl<F> fmt::Debug for Watched<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<F: Fn() -> u64 + Send + Sync + 'static> Collector for Watched<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = ConstCounter::new((self.read)());
        counter.encode(encoder.encode_descriptor(self.name, self.help, None, counter.metric_type())?)
    }
}

/// From 1 us to 17 s, by factors of four.
fn stage_histogram() -> Histogram {
    Histogram::new(exponential_buckets(1e-6, 4.0, 13))
}

/// From 1 to 16,384 signatures, by factors of two.
fn batch_histogram() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 15))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cyclotron");
        let stages = Family::new_with_constructor(stage_histogram as fn() -> Histogram);
        registry.register_with_unit("stage_duration", "Time spent in a stage", Unit::Seconds, stages.clone());
        let requests = Family::default();
        registry.register("requests", "Client requests by what they came to", requests.clone());
        let signatures = Family::default();
        registry.register("signatures", "Signatures checked, by verdict", signatures.clone());
        let signature_batches = Family::new_with_constructor(batch_histogram as fn() -> Histogram);
        registry.register("signature_batch", "Signatures checked together", signature_batches.clone());
        let signature_time = Family::default();
        registry.register_with_unit(
            "signature_check",
            "Time spent on checking signatures",
            Unit::Seconds,
            signature_time.clone(),
        );
        let mut metrics = Self {
            registry: Mutex::default(),
            stages,
            requests,
            signatures,
            signature_batches,
            signature_time,
            height: Gauge::default(),
            canisters: Gauge::default(),
            pool: Gauge::default(),
            history: Gauge::default(),
            memory: Gauge::default(),
            queries: Counter::default(),
            executed: Counter::default(),
        };
        registry.register("height", "Height of the last round", metrics.height.clone());
        registry.register("canisters", "Canisters on the subnet", metrics.canisters.clone());
        registry.register("ingress_pool_messages", "Ingress messages waiting for a batch", metrics.pool.clone());
        registry.register("ingress_history_messages", "Ingress messages remembered", metrics.history.clone());
        registry.register_with_unit(
            "canister_memory",
            "Memory that canisters use",
            Unit::Bytes,
            metrics.memory.clone(),
        );
        registry.register("queries", "Queries answered", metrics.queries.clone());
        registry.register("messages_executed", "Messages executed", metrics.executed.clone());
        metrics.registry = Mutex::new(registry);
        metrics
    }
}

impl Metrics {
    /// Adds the time since the clock's last mark to a stage, and starts the next.
    pub fn mark(&self, clock: &mut StageClock, stage: Stage) {
        let now = Instant::now();
        self.stages.get_or_create(&StageLabel { stage }).observe((now - clock.0).as_secs_f64());
        clock.0 = now;
    }

    /// Counts a client's request.
    pub fn count_request(&self, outcome: Outcome) {
        self.requests.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts signatures that were checked.
    pub fn count_signatures(&self, batch: &SignatureBatch) {
        let SignatureBatch { scheme, backend, signatures, valid, elapsed } = *batch;
        for (verdict, count) in [("valid", valid), ("invalid", signatures - valid)] {
            if count > 0 {
                self.signatures.get_or_create(&VerdictLabel { scheme, backend, verdict }).inc_by(count as u64);
            }
        }
        let label = BackendLabel { scheme, backend };
        self.signature_batches.get_or_create(&label).observe(signatures as f64);
        self.signature_time.get_or_create(&label).inc_by(elapsed.as_secs_f64());
    }

    /// Shows how many messages have been executed since genesis.
    pub fn set_executed(&self, messages: u64) {
        self.executed.inner().store(messages, Ordering::Relaxed);
    }

    /// Shows a counter that is kept elsewhere; `read` is called for each visit of the page.
    pub fn watch_counter(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let mut registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        registry.register_collector(Box::new(Watched { name, help, read }));
    }

    /// The page, in the OpenMetrics text format.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writing to a string does not fail.
        let _written = encode(&mut page, &registry);
        page
    }
}

/// Where the current stage began.
#[derive(Clone, Copy, Debug)]
pub struct StageClock(Instant);

impl StageClock {
    /// A stage that begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_was_counted() {
        let metrics = Metrics::default();
        let mut clock = StageClock::start();
        metrics.mark(&mut clock, Stage::Execute);
        metrics.count_request(Outcome::Refused);
        let elapsed = Duration::from_millis(1_500);
        for valid in [5, 4] {
            let batch = SignatureBatch { scheme: "ed25519", backend: "avx2", signatures: 5, valid, elapsed };
            metrics.count_signatures(&batch);
        }
        metrics.height.set(7);
        metrics.set_executed(5);
        metrics.watch_counter("kept_elsewhere", "A counter", || 3);
        let page = metrics.page();
        for line in [
            "cyclotron_stage_duration_seconds_count{stage=\"Execute\"} 1",
            "cyclotron_requests_total{outcome=\"Refused\"} 1",
            "cyclotron_signatures_total{scheme=\"ed25519\",backend=\"avx2\",verdict=\"valid\"} 9",
            "cyclotron_signatures_total{scheme=\"ed25519\",backend=\"avx2\",verdict=\"invalid\"} 1",
            "cyclotron_signature_batch_bucket{le=\"4.0\",scheme=\"ed25519\",backend=\"avx2\"} 0",
            "cyclotron_signature_batch_bucket{le=\"8.0\",scheme=\"ed25519\",backend=\"avx2\"} 2",
            "cyclotron_signature_check_seconds_total{scheme=\"ed25519\",backend=\"avx2\"} 3.0",
            "cyclotron_height 7",
            "cyclotron_messages_executed_total 5",
            "cyclotron_kept_elsewhere_total 3",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
    }
}
