//! Pruning a tree to asked paths.
//!
//! A witness has the root digest of the whole tree and shows, per asked path: the value, or the whole subtree when the path
//! names an inner node, or, when the path is absent, the neighbouring labels between which it would be (their content pruned),
//! or the value that the path would have to go through. Everything else is a digest.

use crate::label::{bit, first_difference};
use crate::tree::NONE;
use crate::{Digest, LabeledTree, TreeHasher};

/// Receives the nodes of a witness in preorder.
pub trait WitnessSink {
    /// The tree with nothing in it.
    fn empty(&mut self);
    /// A fork; its left part follows, then its right.
    fn fork(&mut self);
    /// A labelled node; what is below it follows.
    fn labeled(&mut self, label: &[u8]);
    /// A value.
    fn leaf(&mut self, value: &[u8]);
    /// A part left out.
    fn pruned(&mut self, digest: &Digest);
}

/// A witness as a CBOR hash tree.
/// Spec: ic-interface-spec #certification-encoding.
#[derive(Default, Debug)]
pub struct CborWitness(
    /// The bytes so far; anything written before the witness stays in front.
    pub Vec<u8>,
);

impl CborWitness {
    fn bytes(&mut self, bytes: &[u8]) {
        const BYTE_STRING: u8 = 2 << 5;
        let length = bytes.len() as u64;
        match length {
            0..=23 => self.0.push(BYTE_STRING | length as u8),
            24..=0xff => self.0.extend([BYTE_STRING | 24, length as u8]),
            0x100..=0xffff => {
                self.0.push(BYTE_STRING | 25);
                self.0.extend((length as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(BYTE_STRING | 26);
                self.0.extend((length as u32).to_be_bytes());
            }
            _ => {
                self.0.push(BYTE_STRING | 27);
                self.0.extend(length.to_be_bytes());
            }
        }
        self.0.extend(bytes);
    }
}

impl WitnessSink for CborWitness {
    fn empty(&mut self) {
        self.0.extend([0x81, 0]);
    }

    fn fork(&mut self) {
        self.0.extend([0x83, 1]);
    }

    fn labeled(&mut self, label: &[u8]) {
        self.0.extend([0x83, 2]);
        self.bytes(label);
    }

    fn leaf(&mut self, value: &[u8]) {
        self.0.extend([0x82, 3]);
        self.bytes(value);
    }

    fn pruned(&mut self, digest: &Digest) {
        self.0.extend([0x82, 4]);
        self.bytes(digest);
    }
}

/// What a witness shows of an entry.
#[derive(Clone, Copy)]
enum Show<'p> {
    Label,
    Paths(&'p [&'p [&'p [u8]]]),
    Everything,
}

struct Mark<'p> {
    entry: u32,
    show: Show<'p>,
}

struct Pruner<'t, H: ?Sized, S: ?Sized> {
    tree: &'t LabeledTree,
    hasher: &'t H,
    sink: &'t mut S,
}

impl LabeledTree {
    /// Sends the tree pruned to `paths` to `sink`. The empty path asks for everything.
    /// Cost: O(log n) per label of each path, plus what is shown.
    /// Panics: when something changed since the last [`LabeledTree::rehash`].
    pub fn witness<H, S, P, L>(&self, hasher: &H, paths: &[P], sink: &mut S)
    where
        H: TreeHasher + ?Sized,
        S: WitnessSink + ?Sized,
        P: AsRef<[L]>,
        L: AsRef<[u8]>,
    {
        assert!(self.root_digest.is_some(), "a witness is of a tree whose digests are up to date");
        if self.root == NONE {
            return sink.empty();
        }
        let labels: Vec<Vec<&[u8]>> =
            paths.iter().map(|path| path.as_ref().iter().map(AsRef::as_ref).collect()).collect();
        let mut paths: Vec<&[&[u8]]> = labels.iter().map(Vec::as_slice).collect();
        paths.sort_unstable();
        paths.dedup();
        let mut pruner = Pruner { tree: self, hasher, sink };
        match paths.first() {
            Some([]) => pruner.show_all(self.root),
            _ => pruner.show_paths(self.root, &paths, 0),
        }
    }
}

impl<H: TreeHasher + ?Sized, S: WitnessSink + ?Sized> Pruner<'_, H, S> {
    fn show_all(&mut self, at: u32) {
        let node = self.tree.nodes[at as usize];
        if node.is_fork() {
            self.sink.fork();
            self.show_all(node.a);
            self.show_all(node.b);
            return;
        }
        self.sink.labeled(self.tree.label(at));
        if node.is_leaf() {
            self.sink.leaf(self.tree.value(at));
        } else {
            self.show_all(node.b);
        }
    }

    /// Shows the forest at `top` for sorted `paths`, all of which agree in their first `depth` labels and go on.
    fn show_paths(&mut self, top: u32, paths: &[&[&[u8]]], depth: usize) {
        let mut marks: Vec<Mark<'_>> = Vec::new();
        for group in paths.chunk_by(|a, b| a[depth] == b[depth]) {
            let label = group[0][depth];
            let entry = self.tree.nearest(top, label);
            match first_difference(label, self.tree.label(entry)) {
                // Sorted: the path that ends here comes first in its group.
                None if group[0].len() == depth + 1 => marks.push(Mark { entry, show: Show::Everything }),
                None => marks.push(Mark { entry, show: Show::Paths(group) }),
                Some(position) => {
                    let (before, after) = self.neighbours(top, label, position);
                    marks.extend([before, after].into_iter().flatten().map(|entry| Mark { entry, show: Show::Label }));
                }
            }
        }
        marks.sort_by(|x, y| self.tree.label(x.entry).cmp(self.tree.label(y.entry)));
        marks.dedup_by(|later, kept| {
            let same = later.entry == kept.entry;
            if same && matches!(kept.show, Show::Label) {
                kept.show = later.show;
            }
            same
        });
        self.show_marks(top, &marks, depth);
    }

    /// Shows the part of a forest at `at`, to which all of `marks` belong, in order.
    fn show_marks(&mut self, at: u32, marks: &[Mark<'_>], depth: usize) {
        let Some(first) = marks.first() else {
            return self.sink.pruned(&self.tree.digests[at as usize]);
        };
        let node = self.tree.nodes[at as usize];
        if node.is_fork() {
            let split = marks.partition_point(|mark| !bit(self.tree.label(mark.entry), node.crit()));
            self.sink.fork();
            self.show_marks(node.a, &marks[..split], depth);
            self.show_marks(node.b, &marks[split..], depth);
            return;
        }
        self.sink.labeled(self.tree.label(at));
        match first.show {
            Show::Label => self.sink.pruned(&self.tree.child_digest(at, self.hasher)),
            // A path through a value: the value is the proof that nothing is below.
            _ if node.is_leaf() => self.sink.leaf(self.tree.value(at)),
            Show::Everything => self.show_all(node.b),
            Show::Paths(paths) => self.show_paths(node.b, paths, depth + 1),
        }
    }

    /// Returns the entries of the forest at `top` directly before and after the absent `label`, which first differs at bit
    /// `position` from the entry that its walk leads to.
    fn neighbours(&self, top: u32, label: &[u8], position: u32) -> (Option<u32>, Option<u32>) {
        let (mut before, mut after) = (None, None);
        let mut at = top;
        loop {
            let node = self.tree.nodes[at as usize];
            if !node.is_fork() || node.crit() > position {
                break;
            }
            if bit(label, node.crit()) {
                before = Some(node.a);
                at = node.b;
            } else {
                after = Some(node.b);
                at = node.a;
            }
        }
        // All labels below `at` agree with each other, and differ from `label`, at `position`.
        if bit(label, position) {
            before = Some(at);
        } else {
            after = Some(at);
        }
        (before.map(|at| self.outermost(at, true)), after.map(|at| self.outermost(at, false)))
    }

    fn outermost(&self, mut at: u32, greatest: bool) -> u32 {
        loop {
            let node = self.tree.nodes[at as usize];
            if !node.is_fork() {
                return at;
            }
            at = if greatest { node.b } else { node.a };
        }
    }
}
