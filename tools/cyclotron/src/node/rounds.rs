//! The round thread: a round at once when there is something to do, otherwise one a second so that the certified time stays fresh.

use super::Shared;
use super::answer::certificate_of;
use super::checkpoints::Checkpoints;
use super::control::Calls;
use crossbeam::channel::Receiver;
use cyclotron_net::Response;
use cyclotron_ports::{Entropy, SystemEntropy};
use cyclotron_storage::StorageError;
use cyclotron_subnet::{Statistics, Subnet};
use cyclotron_trace::{Metrics, error, zone};
use cyclotron_types::action::OperatorAction;
use cyclotron_types::batch::Batch;
use cyclotron_types::message::Ingress;
use cyclotron_types::units::Height;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time between rounds in which nobody asks for anything; heartbeats beat at this pace too.
const IDLE_ROUND: Duration = Duration::from_secs(1);

/// How often a checkpoint is looked after that somebody waits for, when there are no rounds.
const CHECKPOINT_POLL: Duration = Duration::from_millis(20);

/// Exit code of a node that cannot go on.
const FAILED: i32 = 1;

/// Runs rounds until the node stops; with a state hash after so many if they are recorded.
pub fn run(
    shared: &Shared,
    mut subnet: Subnet,
    hash_every: Option<u64>,
    mut checkpoints: Checkpoints,
    (woken, submitted): (&Receiver<()>, &Receiver<Ingress>),
    mut calls: Calls,
) {
    let mut last = Instant::now() - IDLE_ROUND;
    while !shared.stopping.load(Ordering::Acquire) {
        let actions = calls.take_actions(&subnet);
        let is_asked = !actions.is_empty() || calls.want_checkpoint() && checkpoints.is_due(&subnet, true);
        let due = if is_asked { Duration::ZERO } else { wait_for_work(shared, &subnet, submitted, last) };
        if due > CHECKPOINT_POLL && calls.await_checkpoint() {
            let _whether_woken = woken.recv_timeout(CHECKPOINT_POLL);
            checkpoints.after_round(&mut subnet, &mut calls);
            continue;
        }
        if !due.is_zero() && woken.recv_timeout(due).is_ok() {
            continue;
        }
        let checkpoint = checkpoints.is_due(&subnet, calls.want_checkpoint());
        let checkpoint = checkpoint.then_some(&mut checkpoints);
        one_round(shared, &mut subnet, submitted, (actions, &mut calls), checkpoint);
        checkpoints.after_round(&mut subnet, &mut calls);
        if hash_every.is_some_and(|every| subnet.height().0.is_multiple_of(every)) {
            note_state_hash(&mut subnet);
        }
        last = Instant::now();
        for reply in shared.calls.take_overdue(last) {
            reply.send(Response::empty(202));
        }
    }
    checkpoints.finish(&mut subnet, &mut calls);
    if checkpoints.is_worthwhile(&subnet) {
        one_round(shared, &mut subnet, submitted, (Vec::new(), &mut calls), Some(&mut checkpoints));
        checkpoints.finish(&mut subnet, &mut calls);
    }
    if hash_every.is_some() {
        note_state_hash(&mut subnet);
    }
    subnet.finish_keeping_code();
}

fn note_state_hash(subnet: &mut Subnet) {
    if let Err(failed) = subnet.note_state_hash() {
        stop(subnet, &failed);
    }
}

/// Ends the process: nobody has seen anything of the last round, and nobody may. The next start goes on from what lasts.
fn stop(subnet: &mut Subnet, failed: &StorageError) -> ! {
    error!(
        "the node stops, since its log takes no more: {failed}. Nothing that was answered is lost: mend the disk, then start it again"
    );
    // A recording ends as it should.
    subnet.note_no_more();
    std::process::exit(FAILED);
}

/// How long nothing is to do, if nobody asks.
fn wait_for_work(shared: &Shared, subnet: &Subnet, submitted: &Receiver<Ingress>, last: Instant) -> Duration {
    let now = shared.now();
    if !submitted.is_empty() || subnet.has_work(now) {
        return Duration::ZERO;
    }
    let idle = IDLE_ROUND.saturating_sub(last.elapsed());
    let alarm = subnet.next_alarm().map(|time| Duration::from_nanos(time.nanos_since(now)));
    alarm.map_or(idle, |alarm| alarm.min(idle))
}

/// Runs one round, and begins a checkpoint of it if there are `checkpoints`.
fn one_round(
    shared: &Shared,
    subnet: &mut Subnet,
    submitted: &Receiver<Ingress>,
    (actions, calls): (Vec<OperatorAction>, &mut Calls),
    checkpoints: Option<&mut Checkpoints>,
) {
    let mut randomness = [0; 32];
    if let Err(error) = SystemEntropy.fill(&mut randomness) {
        // Without randomness no round can be made; the next attempt is a moment away.
        error!("no randomness from the operating system: {error}");
        calls.not_acted();
        std::thread::sleep(IDLE_ROUND);
        return;
    }
    shared.submissions.drain_into(submitted, subnet);
    let batch = Batch { checkpoint: checkpoints.is_some(), actions, ..subnet.next_batch(shared.now(), randomness) };
    shared.submissions.pool_is(subnet.pool_load());
    let view = match subnet.execute(batch) {
        Ok(view) => view,
        Err(failed) => stop(subnet, &failed),
    };
    shared.height.store(view.height.0, Ordering::Release);
    show(&shared.metrics, view.height, subnet.statistics());
    let zone = zone!("answer calls");
    for id in &view.answered {
        for reply in shared.calls.take(id) {
            reply.send(certificate_of(&shared.certified.read(), *id));
        }
    }
    calls.acted(view.actions);
    drop(zone);
    if let Some(checkpoints) = checkpoints {
        checkpoints.begin(subnet, calls);
    }
}

fn show(metrics: &Metrics, height: Height, statistics: Statistics) {
    let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.height.set(gauge(height.0));
    metrics.canisters.set(gauge(statistics.canisters as u64));
    metrics.pool.set(gauge(statistics.waiting as u64));
    metrics.history.set(gauge(statistics.history as u64));
    metrics.memory.set(gauge(statistics.memory.0));
    metrics.set_executed(statistics.executed);
}
