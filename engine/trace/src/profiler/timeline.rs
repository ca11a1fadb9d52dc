//! A row of the profiler's window that shows what was sampled elsewhere: stacks become zones that are open while they are found.
//!
//! Enters: stacks as they are found. Leaves: zones of a thread of its own, since a row belongs to a thread. Never here: the sampled thread.

use super::{Place, Zone};
use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Stacks that wait for the row's thread; more are left out.
const WAITING_MAX: usize = 64;
/// Names that are kept. Functions beyond them go by the name of their module.
const NAMES_MAX: usize = 65_536;

/// One row. It ends with this.
#[derive(Debug)]
pub struct Timeline {
    stacks: SyncSender<Vec<&'static Place>>,
}

impl Timeline {
    /// A row of this name, which is cut to fifteen bytes. Errors: when there is no thread for it.
    pub fn new(name: &str) -> io::Result<Self> {
        let (stacks, shown) = sync_channel(WAITING_MAX);
        std::thread::Builder::new().name(name.into()).spawn(move || show(&shown))?;
        Ok(Self { stacks })
    }

    /// Shows a stack, outermost first, from now until the next; an empty one is a gap.
    pub fn show(&self, stack: Vec<&'static Place>) {
        // A row that is late shows the next one.
        let _left_out = self.stacks.try_send(stack);
    }
}

fn show(stacks: &Receiver<Vec<&'static Place>>) {
    let mut open: Vec<(&'static Place, Zone)> = Vec::new();
    while let Ok(stack) = stacks.recv() {
        let same = open.iter().zip(&stack).take_while(|((open, _), found)| std::ptr::eq(*open, **found)).count();
        // Innermost first.
        while open.len() > same {
            drop(open.pop());
        }
        open.extend(stack[same..].iter().map(|place| (*place, place.enter())));
    }
    while let Some(zone) = open.pop() {
        drop(zone);
    }
}

/// The place of a function of a module.
pub fn function_place(module: &str, function: &str) -> &'static Place {
    static KNOWN: Mutex<Option<HashMap<String, &'static Place>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let key = if known.len() < NAMES_MAX { format!("{module}\0{function}") } else { module.to_owned() };
    known.entry(key).or_insert_with(|| Place::named(function, module))
}
