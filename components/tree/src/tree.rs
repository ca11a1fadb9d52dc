//! The arena, and changes in place.
//!
//! Invariants this module owns:
//! - crit positions strictly increase from a forest's top down; all labels below a fork agree before its position, those on
//!   its left have a 0 there and those on its right a 1;
//! - every ancestor of a stale node is stale; a free node is referenced by the free list alone;
//! - `trail` holds the nodes from the root to where the operation at hand works, the node itself excluded.

use crate::blobs::{BlobRef, Blobs};
use crate::label::{LABEL_BYTES_MAX, bit, first_difference};
use crate::{Digest, TreeHasher};
use std::fmt;

/// "No node".
pub(crate) const NONE: u32 = u32::MAX;

/// A fork of a forest; `a` and `b` are its children.
const FORK: u32 = 1;
/// A labelled leaf; `a` is the label, `b` the value.
const LEAF: u32 = 2;
/// A labelled subtree; `a` is the label, `b` the top of the forest below.
const INNER: u32 = 3;
const KIND_MASK: u32 = 3;
const STALE: u32 = 4;
const CRIT_SHIFT: u32 = 3;

const _: () = assert!((LABEL_BYTES_MAX as u64 + 1) * 9 < 1 << (32 - CRIT_SHIFT));

/// One node: kind, whether its digest is stale, and a fork's crit position in `meta`.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    meta: u32,
    pub a: u32,
    pub b: u32,
}

const _: () = assert!(size_of::<Node>() == 12);

impl Node {
    pub fn is_fork(self) -> bool {
        self.meta & KIND_MASK == FORK
    }

    pub fn is_leaf(self) -> bool {
        self.meta & KIND_MASK == LEAF
    }

    pub fn is_inner(self) -> bool {
        self.meta & KIND_MASK == INNER
    }

    pub fn is_stale(self) -> bool {
        self.meta & STALE != 0
    }

    pub fn set_fresh(&mut self) {
        self.meta &= !STALE;
    }

    pub fn crit(self) -> u32 {
        self.meta >> CRIT_SHIFT
    }
}

/// Why a path cannot be written: paths with values are prefix-free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathError {
    /// The path has no labels.
    Empty,
    /// A label is longer than [`LABEL_BYTES_MAX`].
    LabelTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The first `labels` labels of the path already name a value.
    CrossesLeaf {
        /// How many labels that is.
        labels: usize,
    },
    /// The path names an inner node.
    NamesSubtree,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a path needs at least one label"),
            Self::LabelTooLong { bytes } => write!(f, "a label of {bytes} bytes exceeds {LABEL_BYTES_MAX}"),
            Self::CrossesLeaf { labels } => write!(f, "the path goes through the value at its label {labels}"),
            Self::NamesSubtree => write!(f, "the path names an inner node"),
        }
    }
}

impl std::error::Error for PathError {}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'t> {
    /// A value.
    Leaf(&'t [u8]),
    /// An inner node.
    Subtree,
    /// Nothing.
    Absent,
}

/// A labelled tree with cached digests, changed in place.
pub struct LabeledTree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) digests: Vec<Digest>,
    pub(crate) blobs: Blobs,
    pub(crate) root: u32,
    /// Digest of the whole as of the last rehash; `None` since a change.
    pub(crate) root_digest: Option<Digest>,
    free: u32,
    leaves: usize,
    trail: Vec<u32>,
    /// Where on the trail each forest of the path begins.
    bases: Vec<usize>,
}

impl LabeledTree {
    /// Makes an empty tree. Labels in `dictionary` (strictly sorted) are stored once: the names that recur in every subtree.
    /// It changes how much memory is used, never a digest.
    pub fn new(dictionary: &'static [&'static [u8]]) -> Self {
        Self {
            nodes: Vec::new(),
            digests: Vec::new(),
            blobs: Blobs::new(dictionary),
            root: NONE,
            root_digest: None,
            free: NONE,
            leaves: 0,
            trail: Vec::new(),
            bases: Vec::new(),
        }
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.leaves
    }

    /// Tells whether nothing is in the tree.
    pub fn is_empty(&self) -> bool {
        self.leaves == 0
    }

    /// Returns the bytes of memory held, free slots included.
    pub fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.digests.capacity() * size_of::<Digest>()
            + self.blobs.memory_bytes()
    }

    /// Sets the value at `path`, creating the inner nodes above it. Writing the value that is there changes nothing.
    /// Cost: O(log n) per label.
    pub fn insert(&mut self, path: &[&[u8]], value: &[u8]) -> Result<(), PathError> {
        check_path(path)?;
        self.trail.clear();
        self.insert_at(path, value, 0)
    }

    /// Sets several values below `prefix`, walking down to it once. Those before an erroneous one are kept.
    /// Cost: O(log n) per label of `prefix`, plus O(log k) per entry below an inner node of k children.
    pub fn insert_below(&mut self, prefix: &[&[u8]], entries: &[(&[&[u8]], &[u8])]) -> Result<(), PathError> {
        let Some(((first, value), after_first)) = entries.split_first() else { return Ok(()) };
        if prefix.is_empty() {
            return entries.iter().try_for_each(|(path, value)| self.insert(path, value));
        }
        let (owner, rest) = match self.descend(prefix) {
            Some(owner) if self.nodes[owner as usize].is_inner() => (owner, entries),
            Some(_) => {
                check_path(first)?;
                return Err(PathError::CrossesLeaf { labels: prefix.len() });
            }
            None => {
                check_path(first)?;
                let whole: Vec<&[u8]> = prefix.iter().chain(*first).copied().collect();
                self.insert(&whole, value)?;
                (self.descend(prefix).expect("the first entry made the prefix exist"), after_first)
            }
        };
        self.trail.push(owner);
        let base = self.trail.len();
        for (path, value) in rest {
            check_path(path)?;
            self.trail.truncate(base);
            self.insert_at(path, value, prefix.len())?;
        }
        Ok(())
    }

    /// Removes the value or the subtree at `path`, with the inner nodes that would be left empty; tells whether it was there.
    /// Cost: O(log n) per label, plus the nodes removed.
    pub fn remove(&mut self, path: &[&[u8]]) -> bool {
        let Some(entry) = self.descend(path) else { return false };
        self.root_digest = None;
        self.free_subtree(entry);
        let mut gone = entry;
        while let Some(base) = self.bases.pop() {
            if self.trail.len() > base {
                let Some(fork) = self.trail.pop() else { break };
                let Node { a, b, .. } = self.nodes[fork as usize];
                self.relink(fork, if a == gone { b } else { a }, base);
                self.free_node(fork);
                break;
            }
            // `gone` was alone in its forest: its owner goes too.
            let Some(owner) = self.trail.pop() else {
                self.root = NONE;
                break;
            };
            self.blobs.remove(BlobRef(self.nodes[owner as usize].a));
            self.free_node(owner);
            gone = owner;
        }
        self.mark_trail();
        true
    }

    /// Returns what `path` names; the empty path names the whole tree.
    pub fn lookup(&self, path: &[&[u8]]) -> Lookup<'_> {
        let Some((last, above)) = path.split_last() else { return Lookup::Subtree };
        let mut top = self.root;
        for label in above {
            match self.find(top, label) {
                Some(entry) if self.nodes[entry as usize].is_inner() => top = self.nodes[entry as usize].b,
                _ => return Lookup::Absent,
            }
        }
        match self.find(top, last) {
            None => Lookup::Absent,
            Some(entry) if self.nodes[entry as usize].is_leaf() => Lookup::Leaf(self.value(entry)),
            Some(_) => Lookup::Subtree,
        }
    }

    /// Calls `visit` with each label directly below `path`, in order, and whether it names a value.
    pub fn for_each_child<'t>(&'t self, path: &[&[u8]], mut visit: impl FnMut(&'t [u8], bool)) {
        let mut top = self.root;
        for label in path {
            match self.find(top, label) {
                Some(entry) if self.nodes[entry as usize].is_inner() => top = self.nodes[entry as usize].b,
                _ => return,
            }
        }
        let mut pending = Vec::new();
        if top != NONE {
            pending.push(top);
        }
        while let Some(at) = pending.pop() {
            let node = self.nodes[at as usize];
            if node.is_fork() {
                pending.extend([node.b, node.a]);
            } else {
                visit(self.label(at), node.is_leaf());
            }
        }
    }

    /// Returns the digest of the whole as of the last [`LabeledTree::rehash`], or `None` when something changed since.
    pub fn root_digest(&self) -> Option<Digest> {
        self.root_digest
    }

    pub(crate) fn label(&self, entry: u32) -> &[u8] {
        self.blobs.get(BlobRef(self.nodes[entry as usize].a))
    }

    pub(crate) fn value(&self, leaf: u32) -> &[u8] {
        self.blobs.get(BlobRef(self.nodes[leaf as usize].b))
    }

    /// Digest of what is below an entry's label.
    pub(crate) fn child_digest<H: TreeHasher + ?Sized>(&self, entry: u32, hasher: &H) -> Digest {
        let node = self.nodes[entry as usize];
        if node.is_leaf() { hasher.leaf(self.value(entry)) } else { self.digests[node.b as usize] }
    }

    /// Walks a forest to the one entry that can carry `label`.
    pub(crate) fn nearest(&self, mut at: u32, label: &[u8]) -> u32 {
        loop {
            let node = self.nodes[at as usize];
            if !node.is_fork() {
                return at;
            }
            at = if bit(label, node.crit()) { node.b } else { node.a };
        }
    }

    fn find(&self, top: u32, label: &[u8]) -> Option<u32> {
        if top == NONE {
            return None;
        }
        let entry = self.nearest(top, label);
        (self.label(entry) == label).then_some(entry)
    }

    /// Like [`Self::nearest`], leaving the forks passed on the trail.
    fn walk(&mut self, mut at: u32, label: &[u8]) -> u32 {
        loop {
            let node = self.nodes[at as usize];
            if !node.is_fork() {
                return at;
            }
            self.trail.push(at);
            at = if bit(label, node.crit()) { node.b } else { node.a };
        }
    }

    /// Walks to the entry that `path` names, leaving its ancestors on the trail and its forests' beginnings in `bases`.
    fn descend(&mut self, path: &[&[u8]]) -> Option<u32> {
        self.trail.clear();
        self.bases.clear();
        let mut top = self.root;
        let (last, above) = path.split_last()?;
        for label in above {
            let entry = self.descend_one(top, label)?;
            if !self.nodes[entry as usize].is_inner() {
                return None;
            }
            self.trail.push(entry);
            top = self.nodes[entry as usize].b;
        }
        self.descend_one(top, last)
    }

    fn descend_one(&mut self, top: u32, label: &[u8]) -> Option<u32> {
        if top == NONE {
            return None;
        }
        self.bases.push(self.trail.len());
        let entry = self.walk(top, label);
        (self.label(entry) == label).then_some(entry)
    }

    /// Sets the value at `path` below the last node of the trail (the root's forest when the trail is empty), which is
    /// `above` labels deep.
    fn insert_at(&mut self, path: &[&[u8]], value: &[u8], above: usize) -> Result<(), PathError> {
        let mut top = self.trail.last().map_or(self.root, |owner| self.nodes[*owner as usize].b);
        for (depth, label) in path.iter().enumerate() {
            let base = self.trail.len();
            if top == NONE {
                self.root = self.new_branch(&path[depth..], value);
                return Ok(());
            }
            let entry = self.walk(top, label);
            let node = self.nodes[entry as usize];
            if let Some(position) = first_difference(label, self.label(entry)) {
                let branch = self.new_branch(&path[depth..], value);
                self.attach(branch, entry, position, bit(label, position), base);
                return Ok(());
            }
            let last = depth + 1 == path.len();
            match (node.is_leaf(), last) {
                (true, true) => {
                    self.set_value(entry, value);
                    return Ok(());
                }
                (true, false) => return Err(PathError::CrossesLeaf { labels: above + depth + 1 }),
                (false, true) => return Err(PathError::NamesSubtree),
                (false, false) => {
                    self.trail.push(entry);
                    top = node.b;
                }
            }
        }
        Err(PathError::Empty)
    }

    fn set_value(&mut self, leaf: u32, value: &[u8]) {
        if self.value(leaf) == value {
            return;
        }
        self.blobs.remove(BlobRef(self.nodes[leaf as usize].b));
        self.nodes[leaf as usize].b = self.blobs.insert(value).0;
        self.trail.push(leaf);
        self.mark_trail();
    }

    /// Makes the entry for `path[0]` with the rest of the path and the value below it.
    fn new_branch(&mut self, path: &[&[u8]], value: &[u8]) -> u32 {
        self.root_digest = None;
        self.leaves += 1;
        let mut below = self.blobs.insert(value).0;
        let mut kind = LEAF;
        for label in path.iter().rev() {
            let label = self.blobs.insert_label(label).0;
            below = self.new_node(Node { meta: kind | STALE, a: label, b: below });
            kind = INNER;
        }
        below
    }

    /// Joins `branch` into the forest that begins at `base` of the trail, whose walk ended at `entry`, by a fork at
    /// `position`; `right` says on which side the branch goes.
    fn attach(&mut self, branch: u32, entry: u32, position: u32, right: bool, base: usize) {
        let mut sibling = entry;
        while self.trail.len() > base {
            let Some(fork) = self.trail.last().copied() else { break };
            if self.nodes[fork as usize].crit() < position {
                break;
            }
            self.trail.pop();
            sibling = fork;
        }
        let (a, b) = if right { (sibling, branch) } else { (branch, sibling) };
        let fork = self.new_node(Node { meta: FORK | STALE | position << CRIT_SHIFT, a, b });
        self.relink(sibling, fork, base);
        self.mark_trail();
    }

    /// Makes whatever points to `old`, which hangs from the end of the trail, point to `new`.
    fn relink(&mut self, old: u32, new: u32, base: usize) {
        match self.trail.last().copied() {
            None => self.root = new,
            Some(parent) => {
                let is_owner = self.trail.len() == base;
                let node = &mut self.nodes[parent as usize];
                if !is_owner && node.a == old {
                    node.a = new;
                } else {
                    assert_eq!(node.b, old, "the trail leads to the node");
                    node.b = new;
                }
            }
        }
    }

    /// Marks the trail as stale, from its end up to the first node that already is.
    fn mark_trail(&mut self) {
        self.root_digest = None;
        for at in self.trail.iter().rev() {
            let node = &mut self.nodes[*at as usize];
            if node.is_stale() {
                break;
            }
            node.meta |= STALE;
        }
    }

    fn new_node(&mut self, node: Node) -> u32 {
        if self.free != NONE {
            let at = self.free;
            self.free = self.nodes[at as usize].a;
            self.nodes[at as usize] = node;
            return at;
        }
        assert!(self.nodes.len() < NONE as usize, "a tree holds fewer than 2^32 nodes");
        self.nodes.push(node);
        self.digests.push([0; 32]);
        (self.nodes.len() - 1) as u32
    }

    fn free_node(&mut self, at: u32) {
        self.nodes[at as usize] = Node { meta: 0, a: self.free, b: NONE };
        self.free = at;
    }

    fn free_subtree(&mut self, top: u32) {
        let mut pending = vec![top];
        while let Some(at) = pending.pop() {
            let node = self.nodes[at as usize];
            if node.is_fork() {
                pending.extend([node.a, node.b]);
            } else {
                self.blobs.remove(BlobRef(node.a));
                if node.is_leaf() {
                    self.blobs.remove(BlobRef(node.b));
                    self.leaves -= 1;
                } else {
                    pending.push(node.b);
                }
            }
            self.free_node(at);
        }
    }
}

fn check_path(path: &[&[u8]]) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    match path.iter().find(|label| label.len() > LABEL_BYTES_MAX) {
        Some(label) => Err(PathError::LabelTooLong { bytes: label.len() }),
        None => Ok(()),
    }
}
