//! What if: other code in the place of a canister's, between two rounds of a replay.
//!
//! Enters: a module, and how it takes over. Leaves: a canister that runs it from the next round on, or as it was. Never here: a subnet
//! whose state anybody else has: no batch says that this happened, nobody pays for it, and no recorded hash holds afterwards.

use crate::totals::{Totals, sync_touched, use_of};
use crate::{subnet::Subnet, totals::Counted};
use cyclotron_execution::install::{Install, InstallStep, Mode, resume_install, start_install};
use cyclotron_execution::{CanisterData, CanisterMut, Paused, Program};
use cyclotron_routing::{ActiveSet, CurrentRound, Directory, Touched};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::{Bytes, Cycles, Instructions};
use std::fmt;

/// Modules with this private section go on with the heap of the version before.
const PERSISTENCE_SECTION: &str = "enhanced-orthogonal-persistence";

/// How a candidate takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// As an upgrade by the canister's first controller, without an argument: `canister_pre_upgrade` of the old code, then `(start)` and
    /// `canister_post_upgrade` of the new. The heap is kept if the new module is made for that.
    Upgrade,
    /// Code alone: heap, stable memory, timers and the values of mutable globals stay, and nothing runs.
    Swap,
}

/// Why the code has not been changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The canister is not there, or has no code.
    NoCode,
    /// A long message or installation of the canister is suspended: possible once it has ended.
    Busy,
    /// The module, its hooks or its globals do not allow it; why.
    Refused(String),
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCode => f.write_str("the canister has no code"),
            Self::Busy => f.write_str("a message of the canister is suspended"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for NotTaken {}

impl Subnet {
    /// Hash of the module that a canister runs.
    pub fn module_hash(&self, canister: CanisterId) -> Option<[u8; 32]> {
        let entity = self.world().resource::<Directory>().entity(canister)?;
        Some(self.world().get::<Program>(entity)?.installed()?.module_hash)
    }

    /// Has a canister run another module from the next round on; returns the instructions of the hooks.
    ///
    /// Errors: the canister is as it was, but for the log lines of a hook that failed.
    pub fn try_code(&mut self, canister: CanisterId, wasm: &[u8], how: TakeOver) -> Result<Instructions, NotTaken> {
        let world = self.world_mut();
        let entity = world.resource::<Directory>().entity(canister).ok_or(NotTaken::NoCode)?;
        let round = world.get_resource::<CurrentRound>().ok_or(NotTaken::NoCode)?;
        let env = round.0.clone();
        let module = env.machine.engine.compile(wasm).map_err(|error| NotTaken::Refused(error.to_string()))?;
        let mut state = world.query::<CanisterData>();
        let data = state.get_mut(world, entity).map_err(|_| NotTaken::NoCode)?;
        let mut view = CanisterMut::from(data);
        let Program::Installed(installed) = &mut *view.program else { return Err(NotTaken::NoCode) };
        if !matches!(view.paused, Paused::None) {
            return Err(NotTaken::Busy);
        }
        let (used, low_memory) = match how {
            TakeOver::Swap => {
                let bytes = Bytes(wasm.len() as u64);
                installed.exchange_code(module, bytes).map_err(|why| NotTaken::Refused(why.into()))?;
                (Instructions::ZERO, false)
            }
            TakeOver::Upgrade => {
                let keep_heap = module.shape().metadata.get(PERSISTENCE_SECTION).is_some_and(|(public, _)| !public);
                let controllers = view.controllers.0.iter().next().copied();
                let install = Install {
                    mode: Mode::Upgrade { skip_pre_upgrade: false, keep_heap },
                    module_hash: *module.hash(),
                    module_bytes: Bytes(wasm.len() as u64),
                    caller: controllers.unwrap_or(canister.principal()),
                    arg: Vec::new(),
                    limit: env.subnet.limits.install.message,
                    used: Instructions::ZERO,
                    held: Cycles::ZERO,
                    module,
                };
                let mut step = start_install(&env, &mut view, install);
                let outcome = loop {
                    match step {
                        InstallStep::Suspended { .. } => step = resume_install(&env, &mut view),
                        InstallStep::Done(outcome) => break outcome,
                    }
                };
                outcome.result.map_err(|failure| NotTaken::Refused(failure.reject(canister).to_string()))?;
                (outcome.total, outcome.low_memory)
            }
        };
        let held = use_of(&view);
        world.resource_scope(|world, mut totals: bevy_ecs::change_detection::Mut<Totals>| {
            if let Some(mut counted) = world.get_mut::<Counted>(entity) {
                totals.recount(&mut counted, held);
            }
        });
        if let Some(ix) = world.resource::<Directory>().ix(canister).filter(|_| low_memory) {
            world.resource_mut::<ActiveSet>().insert(canister, ix);
        }
        // Timers and heartbeats may have come or gone.
        world.resource_mut::<Touched>().0.insert(canister);
        world.run_system_cached(sync_touched).expect("the system runs on this world");
        Ok(used)
    }
}
