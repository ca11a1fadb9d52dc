//! Stacks of frames with what was found in each: what flame graphs are drawn of.
//!
//! Enters: frames, each under the one that called it, and weights. Leaves: the tree, and a line for each stack. Never here: what a weight counts.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// A tree of frames, the outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stacks {
    names: Vec<String>,
    numbers: BTreeMap<String, u32>,
    frames: Vec<Frame>,
    /// Places of frames by caller and name.
    places: BTreeMap<(u32, u32), u32>,
}

/// One frame; its caller comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    caller: u32,
    name: u32,
    own: u64,
}

/// The place of a frame in [`Stacks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

impl Place {
    /// Its number, from the root's 0 on without gaps.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl Default for Stacks {
    fn default() -> Self {
        let root = Frame { caller: 0, name: 0, own: 0 };
        let (names, numbers) = (vec![String::new()], BTreeMap::new());
        Self { names, numbers, frames: vec![root], places: BTreeMap::new() }
    }
}

impl Stacks {
    /// What everything is under.
    pub const ROOT: Place = Place(0);

    /// The frame of this name under `caller`; made, unless it is there.
    pub fn under(&mut self, caller: Place, name: &str) -> Place {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = self.names.len() as u32;
                self.names.push(name.to_owned());
                self.numbers.insert(name.to_owned(), number);
                number
            }
        };
        let next = self.frames.len() as u32;
        let place = *self.places.entry((caller.0, number)).or_insert(next);
        if place == next {
            self.frames.push(Frame { caller: caller.0, name: number, own: 0 });
        }
        Place(place)
    }

    /// Finds `weight` more in a frame itself.
    pub fn add(&mut self, at: Place, weight: u64) {
        let own = &mut self.frames[at.0 as usize].own;
        *own = own.saturating_add(weight);
    }

    /// All weights together.
    pub fn total(&self) -> u64 {
        self.frames.iter().fold(0, |sum, frame| sum.saturating_add(frame.own))
    }

    /// A frame's name; the root has none.
    pub(crate) fn name(&self, at: Place) -> &str {
        &self.names[self.frames[at.0 as usize].name as usize]
    }

    /// For each frame, what was found in it and in what it called; and what it called, by name.
    pub(crate) fn below(&self) -> (Vec<u64>, Vec<Vec<Place>>) {
        let mut weights: Vec<u64> = self.frames.iter().map(|frame| frame.own).collect();
        let mut callees = vec![Vec::new(); self.frames.len()];
        for at in (1..self.frames.len()).rev() {
            let caller = self.frames[at].caller as usize;
            weights[caller] = weights[caller].saturating_add(weights[at]);
            callees[caller].push(Place(at as u32));
        }
        callees.iter_mut().for_each(|callees| callees.sort_by(|a, b| self.name(*a).cmp(self.name(*b))));
        (weights, callees)
    }

    /// Writes a line for each stack in which something was found, `outer;inner 17`, in the order of their names.
    pub fn write_folded(&self, out: &mut impl Write) -> io::Result<()> {
        let (_, callees) = self.below();
        // What is still to be written: a frame, and the length of the line that its caller ends.
        let mut waiting: Vec<(Place, usize)> = callees[0].iter().rev().map(|place| (*place, 0)).collect();
        let mut line = String::new();
        while let Some((at, end)) = waiting.pop() {
            line.truncate(end);
            if end > 0 {
                line.push(';');
            }
            line.extend(self.name(at).chars().map(|c| if c == ';' || c.is_control() { ':' } else { c }));
            let own = self.frames[at.0 as usize].own;
            if own > 0 {
                writeln!(out, "{line} {own}")?;
            }
            waiting.extend(callees[at.0 as usize].iter().rev().map(|place| (*place, line.len())));
        }
        Ok(())
    }
}

impl<'a> FromIterator<(&'a str, u64)> for Stacks {
    /// Of stacks as text, with `;` between frames.
    fn from_iter<T: IntoIterator<Item = (&'a str, u64)>>(stacks: T) -> Self {
        let mut all = Self::default();
        for (stack, weight) in stacks {
            let at = stack.split(';').fold(Self::ROOT, |caller, frame| all.under(caller, frame));
            all.add(at, weight);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_written_in_the_order_of_their_names_and_add_up() {
        let mut stacks: Stacks = [("m;b;c", 2), ("m;a", 1), ("m;b", 4), ("l", 8), ("m;b;c", 1)].into_iter().collect();
        let at = stacks.under(Stacks::ROOT, "a;b\n");
        assert_eq!(stacks.under(Stacks::ROOT, "a;b\n"), at);
        stacks.add(at, 16);
        let mut lines = Vec::new();
        stacks.write_folded(&mut lines).unwrap();
        assert_eq!(String::from_utf8(lines).unwrap(), "a:b: 16\nl 8\nm;a 1\nm;b 4\nm;b;c 3\n");
        assert_eq!(stacks.total(), 32);
        let (weights, callees) = stacks.below();
        assert_eq!((weights[0], callees[0].len()), (32, 3));
    }
}
