//! The two doors: a [`Batch`] is the only way into the Replicated world, a [`CertifiedView`] the only way out.

use crate::action::{ActionDone, ActionRefused, OperatorAction};
use crate::ids::MessageId;
use crate::message::Ingress;
use crate::units::{Height, RegistryVersion, Time};

/// One round's input, the same on every node. All of it can be recorded and replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// One more than the batch before.
    pub height: Height,
    /// Block time; later than the batch before.
    pub time: Time,
    /// The round's random beacon output.
    pub randomness: [u8; 32],
    /// Registry version that holds for the round.
    pub registry_version: RegistryVersion,
    /// User messages in block order.
    pub ingress: Vec<Ingress>,
    /// Actions of an operator or a test, applied before the messages.
    pub actions: Vec<OperatorAction>,
    /// Whether suspended executions are aborted and a checkpoint is taken at the end of the round.
    pub checkpoint: bool,
}

/// What a round leaves for the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedView {
    /// The batch's height.
    pub height: Height,
    /// The batch's time.
    pub time: Time,
    /// Root of the state tree.
    pub root: [u8; 32],
    /// BLS signature over the root (48 bytes, G1).
    pub signature: [u8; 48],
    /// Ingress messages whose status became final in this round.
    pub answered: Vec<MessageId>,
    /// What became of the batch's actions, in their order.
    pub actions: Vec<Result<ActionDone, ActionRefused>>,
}
