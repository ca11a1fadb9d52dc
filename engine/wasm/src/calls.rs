//! Which function was charged for what: the instructions of an execution by who called whom.
//!
//! Enters: the counter wherever compiled code made with [`Config::calls`](crate::lower::Config::calls) enters or leaves a function, and at
//! the end of each slice. Leaves: [`CallCosts`], which add up to the instructions used, at most the limit. The same on every machine. Never
//! here: time; any of it in code that is made without that option.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use cyclotron_types::units::Instructions;

use crate::decode::ExportKind;
use crate::engine::Module;

/// Calls of one execution that are told apart. What is called beyond them counts for its caller; only programs that call in more ways than
/// anybody could look at get there.
pub const CALLS_MAX: usize = 1 << 16;
/// Frames of a stack that are told apart; a deeper one counts for the last of them.
pub const DEPTH_MAX: u32 = 1 << 8;

/// The functions of operators whose cost grows with an operand: numbered from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Bulk {
    MemoryFill = u32::MAX - 6,
    MemoryCopy,
    MemoryInit,
    TableFill,
    TableCopy,
    TableInit,
}

impl Bulk {
    const ALL: [(Bulk, &'static str); 6] = [
        (Bulk::MemoryFill, "memory.fill"),
        (Bulk::MemoryCopy, "memory.copy"),
        (Bulk::MemoryInit, "memory.init"),
        (Bulk::TableFill, "table.fill"),
        (Bulk::TableCopy, "table.copy"),
        (Bulk::TableInit, "table.init"),
    ];
}

/// A function called on a certain way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Place of the call in whose function this one was made: before this one. The first, which is the entry from outside, names itself.
    pub caller: u32,
    /// The function called, imports counted; for the first it means nothing. [`CallCosts::name`] says what it is.
    pub function: u32,
    /// Charged to it, without what it called.
    pub own: Instructions,
}

/// What calls were charged in one slice of an execution.
#[derive(Clone, Debug)]
pub struct CallCosts {
    module: Arc<Module>,
    calls: Vec<Call>,
}

impl PartialEq for CallCosts {
    fn eq(&self, other: &Self) -> bool {
        self.module.hash() == other.module.hash() && self.calls == other.calls
    }
}

impl Eq for CallCosts {}

impl CallCosts {
    /// The module whose functions these are.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// Callers before whom they call.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// All of it together.
    pub fn total(&self) -> Instructions {
        self.calls.iter().fold(Instructions::ZERO, |sum, call| sum.saturating_add(call.own))
    }

    /// What a function is called: from the module's name section, else what it is exported or imported as, else by its number. An operator
    /// like `memory.copy` counts as a function for what its operand costs.
    pub fn name(&self, function: u32) -> Cow<'_, str> {
        if let Some((_, name)) = Bulk::ALL.iter().find(|(bulk, _)| *bulk as u32 == function) {
            return Cow::Borrowed(name);
        }
        let shape = self.module.shape();
        if let Some((from, name)) = shape.import_names.get(function as usize) {
            return Cow::Owned(format!("{from}.{name}"));
        }
        let exported = || {
            let mut functions = shape.exports.iter().filter(|export| export.kind == ExportKind::Function);
            functions.find(|export| export.index == function).map(|export| &*export.name)
        };
        match shape.function_name(function).or_else(exported) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("func[{function}]")),
        }
    }
}

/// Follows an execution from call to call.
#[derive(Debug)]
pub(crate) struct Recorder {
    calls: Vec<Call>,
    /// Places by caller and function.
    places: BTreeMap<(u32, u32), u32>,
    /// For each call the place of what it called last: mostly it calls the same again.
    called_last: Vec<u32>,
    now: u32,
    depth: u32,
    /// Calls that are under way and not told apart.
    beyond: u32,
    /// Used when the last note was taken.
    noted: u64,
}

impl Recorder {
    pub(crate) fn new() -> Recorder {
        let entry = Call { caller: 0, function: 0, own: Instructions::ZERO };
        let (calls, called_last) = (vec![entry], vec![0]);
        Recorder { calls, places: BTreeMap::new(), called_last, now: 0, depth: 0, beyond: 0, noted: 0 }
    }

    /// What was used since the last note was for what runs now.
    pub(crate) fn note(&mut self, used: u64) {
        let own = &mut self.calls[self.now as usize].own;
        *own = own.saturating_add(Instructions(used.saturating_sub(self.noted)));
        self.noted = self.noted.max(used);
    }

    /// A function is entered.
    pub(crate) fn enter(&mut self, function: u32, used: u64) {
        self.note(used);
        let last = self.called_last[self.now as usize];
        let place = match self.calls[last as usize] {
            Call { caller, function: f, .. } if last != 0 && (caller, f) == (self.now, function) => Some(last),
            _ => self.places.get(&(self.now, function)).copied(),
        };
        let place = match place {
            Some(place) if self.beyond == 0 => place,
            None if self.beyond == 0 && self.depth < DEPTH_MAX && self.calls.len() < CALLS_MAX => {
                let place = self.calls.len() as u32;
                self.calls.push(Call { caller: self.now, function, own: Instructions::ZERO });
                self.called_last.push(0);
                self.places.insert((self.now, function), place);
                place
            }
            _ => {
                self.beyond += 1;
                return;
            }
        };
        self.called_last[self.now as usize] = place;
        self.now = place;
        self.depth += 1;
    }

    /// The function entered last is left.
    pub(crate) fn leave(&mut self, used: u64) {
        self.note(used);
        if self.beyond > 0 {
            self.beyond -= 1;
            return;
        }
        self.now = self.calls[self.now as usize].caller;
        self.depth = self.depth.saturating_sub(1);
    }

    /// Hands out what was noted since this was asked last.
    pub(crate) fn take(&mut self, module: &Arc<Module>) -> CallCosts {
        let calls = self.calls.clone();
        self.calls.iter_mut().for_each(|call| call.own = Instructions::ZERO);
        CallCosts { module: Arc::clone(module), calls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(recorder: &Recorder) -> Vec<(u32, u32, u64)> {
        recorder.calls.iter().map(|call| (call.caller, call.function, call.own.0)).collect()
    }

    #[test]
    fn what_is_used_counts_for_the_innermost_call() {
        let mut recorder = Recorder::new();
        recorder.enter(7, 0);
        recorder.enter(8, 10);
        recorder.leave(15);
        recorder.enter(9, 15);
        recorder.leave(16);
        recorder.enter(8, 20);
        recorder.leave(23);
        recorder.leave(24);
        assert_eq!(own(&recorder), [(0, 0, 0), (0, 7, 10 + 4 + 1), (1, 8, 5 + 3), (1, 9, 1)]);
        assert_eq!((recorder.now, recorder.depth), (0, 0));
    }

    #[test]
    fn what_lies_too_deep_counts_for_its_caller() {
        let mut recorder = Recorder::new();
        let deep = u64::from(DEPTH_MAX) + 10;
        (0..deep).for_each(|used| recorder.enter(1, used));
        (deep..deep * 2).for_each(|used| recorder.leave(used));
        assert_eq!((recorder.calls.len(), recorder.now, recorder.beyond), (DEPTH_MAX as usize + 1, 0, 0));
        assert_eq!(recorder.calls.iter().map(|call| call.own.0).sum::<u64>(), deep * 2 - 1);
    }

    #[test]
    fn more_ways_than_can_be_told_apart_lose_nothing() {
        let mut recorder = Recorder::new();
        for function in 0..CALLS_MAX as u32 + 5 {
            recorder.enter(function, u64::from(function) * 2);
            recorder.leave(u64::from(function) * 2 + 1);
        }
        assert_eq!((recorder.calls.len(), recorder.now), (CALLS_MAX, 0));
        assert_eq!(recorder.calls.iter().map(|call| call.own.0).sum::<u64>(), (CALLS_MAX as u64 + 4) * 2 + 1);
    }
}
