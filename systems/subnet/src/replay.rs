//! A log run again: at a restart, and to look into a recording.
//!
//! Enters: frames. Leaves: the subnet as it was after the last of them. Never here: a batch that the log does not have.

use crate::program::Program;
use crate::subnet::Subnet;
use cyclotron_crypto::RootSigner;
use cyclotron_storage::StorageError;
use cyclotron_storage::log::{Beginning, decode_batch};
use cyclotron_storage::{Frame, FrameKind};
use cyclotron_types::batch::CertifiedView;
use std::fmt;

/// What a frame came to.
#[derive(Debug)]
pub enum Replayed {
    /// A round was run.
    Round(CertifiedView),
    /// No round was run: a recorded hash is the one that this subnet has, or the frame says who made the rounds behind it.
    Agrees,
}

/// Why a log cannot be run again, or not to its end.
#[derive(Debug)]
pub enum ReplayError {
    /// It cannot be read, or a sink of the subnet cannot be written.
    Storage(StorageError),
    /// A frame's content is not what its kind says.
    Malformed {
        /// Its height.
        height: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Another program made the rounds, and this one would make others.
    OtherRules {
        /// From the round of this height on.
        height: u64,
        /// That program's version.
        version: String,
    },
    /// The state is not the one that the recording begins behind.
    OtherBeginning {
        /// Its height.
        height: u64,
    },
    /// The state is not the one that was recorded.
    Differs {
        /// After the round of this height.
        height: u64,
        /// What was compared.
        what: &'static str,
        /// As recorded.
        recorded: [u8; 32],
        /// As computed now.
        computed: [u8; 32],
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Malformed { height, what } => write!(f, "the log is not to be executed at height {height}: {what}"),
            Self::OtherRules { height, version } => write!(
                f,
                "the rounds from height {height} on were made by version {version}, which had other rules than this program: start that version once and end it in order; from the checkpoint that it leaves, any version goes on"
            ),
            Self::OtherBeginning { height } => write!(
                f,
                "the checkpoint of height {height} holds another state than the one that the recording begins behind: the folder of checkpoints beside it is not its own"
            ),
            Self::Differs { height, what, recorded, computed } => write!(
                f,
                "after the round of height {height} the {what} is {}, but {} was recorded: this program does not do what the one that wrote the log did",
                hex(computed),
                hex(recorded)
            ),
        }
    }
}

impl std::error::Error for ReplayError {}

impl Subnet {
    /// Runs the round of a recorded batch, or compares a recorded hash. Whoever replays a recorded batch signs no root with
    /// [`Unsigned`].
    pub fn replay(&mut self, frame: &Frame) -> Result<Replayed, ReplayError> {
        let malformed = |what| ReplayError::Malformed { height: frame.height, what };
        match frame.kind {
            FrameKind::Batch => {
                let batch = decode_batch(frame.height, &frame.content).ok_or_else(|| malformed("it holds no batch"))?;
                if !self.program.is_like_this() {
                    let version = self.program.version.clone();
                    return Err(ReplayError::OtherRules { height: frame.height, version });
                }
                if batch.height.0 != self.height().0 + 1 {
                    return Err(malformed("its batch does not follow on the state"));
                }
                if batch.time <= self.time() {
                    return Err(malformed("its time is not later than that of the batch before"));
                }
                self.execute(batch).map(Replayed::Round).map_err(ReplayError::Storage)
            }
            FrameKind::Program => {
                let program = Program::decode(&frame.content).ok_or_else(|| malformed("it names no program"))?;
                self.run_as(program).map_err(ReplayError::Storage)?;
                Ok(Replayed::Agrees)
            }
            FrameKind::Beginning => {
                let beginning =
                    Beginning::decode(&frame.content).ok_or_else(|| malformed("its beginning says nothing"))?;
                let is_this = frame.height == self.height().0
                    && beginning.root == self.root()
                    && beginning.state_hash.is_none_or(|hash| hash == self.state_hash());
                if is_this { Ok(Replayed::Agrees) } else { Err(ReplayError::OtherBeginning { height: frame.height }) }
            }
            FrameKind::Root | FrameKind::StateHash => {
                if frame.height != self.height().0 {
                    return Err(malformed("a hash is of another height than the state"));
                }
                let recorded: [u8; 32] =
                    frame.content.as_slice().try_into().map_err(|_| malformed("a hash is not 32 bytes long"))?;
                let (what, computed) = match frame.kind {
                    FrameKind::Root => ("certified root", self.root()),
                    _ => ("state hash", self.state_hash()),
                };
                let height = frame.height;
                if computed != recorded {
                    return Err(ReplayError::Differs { height, what, recorded, computed });
                }
                Ok(Replayed::Agrees)
            }
            _ => Err(malformed("a frame is not to be executed")),
        }
    }
}

/// Signs nothing: roots of a replay are compared, and nobody sees their signatures.
#[derive(Debug)]
pub struct Unsigned(
    /// The subnet's public key, DER-encoded.
    pub Vec<u8>,
);

impl RootSigner for Unsigned {
    fn public_key_der(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn sign(&self, _: &[u8]) -> [u8; 48] {
        [0; 48]
    }
}
