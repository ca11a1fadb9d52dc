//! Charged instructions by who called whom: of whole replays.
//!
//! Enters: slices whose code reported its calls. Leaves: [`Stacks`] that add up to what the slices were charged, the same on every machine.
//! Never here: time.

use crate::stacks::{Place, Stacks};
use cyclotron_subnet::{Ran, SliceCosts};
use std::collections::BTreeMap;

/// Adds up slices. The outermost frames are the canister and the method, then come functions, or in brackets what else is charged for.
#[derive(Debug, Default)]
pub(crate) struct Charged {
    stacks: Stacks,
    /// Names of functions by the module's hash and their number: looking them up in a module takes longer.
    names: BTreeMap<[u8; 32], BTreeMap<u32, String>>,
}

impl Charged {
    /// Adds what a slice was charged.
    pub fn add(&mut self, ran: &Ran) {
        let Self { stacks, names } = self;
        let canister = stacks.under(Stacks::ROOT, &ran.canister.to_string());
        let method = stacks.under(canister, &ran.name.to_string());
        let SliceCosts { calls, beside, .. } = &ran.costs;
        for costs in calls {
            let names = names.entry(*costs.module().hash()).or_default();
            let mut places: Vec<Place> = Vec::with_capacity(costs.calls().len());
            for call in costs.calls() {
                let place = match places.get(call.caller as usize) {
                    None => method,
                    Some(caller) => {
                        let name = names.entry(call.function).or_insert_with(|| costs.name(call.function).into_owned());
                        stacks.under(*caller, name)
                    }
                };
                stacks.add(place, call.own.0);
                places.push(place);
            }
        }
        for (why, charged) in beside {
            let place = stacks.under(method, why);
            stacks.add(place, charged.0);
        }
    }

    /// All of it.
    pub fn stacks(self) -> Stacks {
        self.stacks
    }
}
