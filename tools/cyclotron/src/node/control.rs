//! What the node's operator asks for through the socket `control` in the state directory.
//!
//! Enters: requests, a few at a time. Leaves: operator actions of the next batch, a wish for a checkpoint, and answers once what was asked for lasts.
//! Never here: a change of the subnet; that is the round's.

use crossbeam::channel::{Receiver, Sender, bounded};
use cyclotron_net::local::LocalSocket;
use cyclotron_subnet::Subnet;
use cyclotron_trace::warn;
use cyclotron_types::action::{ActionDone, ActionRefused, OperatorAction};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::{Cycles, Height};
use cyclotron_wire::{CONTROL_REQUEST_BYTES_MAX, ControlAnswer, ControlCommand};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Requests that wait for the round thread; the socket serves a few at a time.
const CALLS_MAX: usize = 16;

/// The socket of the state directory at `path`.
pub fn socket_path(path: &Path) -> PathBuf {
    path.join("control")
}

/// A request that waits for its answer.
pub struct Call {
    command: ControlCommand,
    reply: Sender<ControlAnswer>,
}

/// Opens the socket. `wake` lets the round thread look for work. Without a socket the node goes on, and says why in its log.
pub fn open(state: &Path, wake: impl Fn() + Send + Sync + 'static) -> (Option<LocalSocket>, Receiver<Call>) {
    let (calls, called) = bounded(CALLS_MAX);
    let answer = move |bytes: &[u8]| answer(bytes, &calls, &wake).encode();
    let path = socket_path(state);
    match LocalSocket::serve(&path, CONTROL_REQUEST_BYTES_MAX, answer) {
        Ok(socket) => (Some(socket), called),
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            warn!(
                "no socket for operators, since {} is longer than an address may be: choose a state directory with a shorter path to fork canisters while the node runs",
                path.display()
            );
            (None, called)
        }
        Err(error) => {
            warn!("no socket for operators: cannot make {}: {error}", path.display());
            (None, called)
        }
    }
}

fn answer(bytes: &[u8], calls: &Sender<Call>, wake: &impl Fn()) -> ControlAnswer {
    let command = match ControlCommand::decode(bytes) {
        Ok(command) => command,
        Err(error) => return refused(format!("the request cannot be read: {error}")),
    };
    let (reply, replied) = bounded(1);
    let sent = calls.send(Call { command, reply });
    wake();
    match sent.ok().and_then(|()| replied.recv().ok()) {
        Some(answer) => answer,
        None => refused("the node is stopping".into()),
    }
}

fn refused(reason: String) -> ControlAnswer {
    ControlAnswer::Refused { reason }
}

/// Requests as the round thread has them.
pub struct Calls {
    called: Receiver<Call>,
    /// Those whose actions are in the batch that is being run, in its order.
    acting: Vec<Sender<ControlAnswer>>,
    /// Those who want a checkpoint that has not begun.
    wanting: Vec<Sender<ControlAnswer>>,
    /// Those whose checkpoint is being made.
    awaiting: Vec<Sender<ControlAnswer>>,
}

impl Calls {
    /// Requests that come out of `called`.
    pub fn new(called: Receiver<Call>) -> Self {
        Self { called, acting: Vec::new(), wanting: Vec::new(), awaiting: Vec::new() }
    }

    /// Looks at those that have come. Returns the actions for the next batch; [`Calls::acted`] answers them.
    pub fn take_actions(&mut self, subnet: &Subnet) -> Vec<OperatorAction> {
        let mut actions = Vec::new();
        for Call { command, reply } in self.called.try_iter().take(CALLS_MAX) {
            let action = match command {
                ControlCommand::Status => {
                    send(reply, status(subnet));
                    continue;
                }
                ControlCommand::Checkpoint => {
                    self.wanting.push(reply);
                    continue;
                }
                ControlCommand::ForkCanister { source, target } => OperatorAction::ForkCanister {
                    source: CanisterId::from_principal(source),
                    target: target.map(CanisterId::from_principal),
                },
                ControlCommand::AddCycles { canister, amount } => {
                    OperatorAction::AddCycles { canister: CanisterId::from_principal(canister), amount: Cycles(amount) }
                }
            };
            actions.push(action);
            self.acting.push(reply);
        }
        actions
    }

    /// The batch's actions have come to this, lastingly.
    pub fn acted(&mut self, outcomes: Vec<Result<ActionDone, ActionRefused>>) {
        for (reply, outcome) in self.acting.drain(..).zip(outcomes) {
            let answer = match outcome {
                Ok(ActionDone::Forked { canister }) => ControlAnswer::Forked { canister: canister.principal() },
                Ok(ActionDone::CyclesAdded { balance }) => ControlAnswer::CyclesAdded { balance: balance.0 },
                Err(error) => refused(error.to_string()),
            };
            send(reply, answer);
        }
    }

    /// There was no batch.
    pub fn not_acted(&mut self) {
        for reply in self.acting.drain(..) {
            send(reply, refused("no round could be made; the node's log says why".into()));
        }
    }

    /// Whether somebody wants a checkpoint.
    pub fn want_checkpoint(&self) -> bool {
        !self.wanting.is_empty()
    }

    /// Whether somebody waits for one that is being made.
    pub fn await_checkpoint(&self) -> bool {
        !self.awaiting.is_empty()
    }

    /// A checkpoint of all that was done so far is being made.
    pub fn checkpoint_begun(&mut self) {
        self.awaiting.append(&mut self.wanting);
    }

    /// It lasts, or there is none.
    pub fn checkpoint_ended(&mut self, made: Result<Height, String>) {
        let answer = match made {
            Ok(height) => ControlAnswer::Checkpoint { height: height.0 },
            Err(words) => refused(format!("no checkpoint could be made: {words}")),
        };
        for reply in self.awaiting.drain(..) {
            send(reply, answer.clone());
        }
    }
}

fn status(subnet: &Subnet) -> ControlAnswer {
    let statistics = subnet.statistics();
    ControlAnswer::Status {
        height: subnet.height().0,
        time: subnet.time().0,
        canisters: statistics.canisters as u64,
        waiting: statistics.waiting as u64,
    }
}

/// Answers; one that nobody waits for any more is dropped.
fn send(reply: Sender<ControlAnswer>, answer: ControlAnswer) {
    let _nobody_waits = reply.send(answer);
}
