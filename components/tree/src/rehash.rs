//! Bringing the cached digests up to date.

use crate::tree::NONE;
use crate::{Digest, LabeledTree};

/// The digest of one node, to be computed from its parts.
#[derive(Clone, Copy, Debug)]
pub enum HashJob<'t> {
    /// `labeled(label, leaf(value))`.
    Leaf {
        /// The entry's label.
        label: &'t [u8],
        /// The value below it.
        value: &'t [u8],
    },
    /// `labeled(label, child)`.
    Labeled {
        /// The entry's label.
        label: &'t [u8],
        /// Digest of what is below it.
        child: &'t Digest,
    },
    /// `fork(left, right)`.
    Fork {
        /// Digest of the lesser labels' part.
        left: &'t Digest,
        /// Digest of the greater labels' part.
        right: &'t Digest,
    },
}

/// The hash function of a tree: how the digests of empty trees, leaves, labelled nodes and forks are made.
pub trait TreeHasher {
    /// Computes `out[i]` from `jobs[i]` for all i. The jobs are independent of each other: they may run in any order, on any
    /// number of threads or lanes.
    /// Shapes: `jobs` and `out` are equally long.
    fn hash_batch(&self, jobs: &[HashJob<'_>], out: &mut [Digest]);

    /// Returns the digest of a value.
    fn leaf(&self, value: &[u8]) -> Digest;

    /// Returns the digest of the tree with nothing in it.
    fn empty(&self) -> Digest;
}

impl LabeledTree {
    /// Computes every stale digest once and returns the root's.
    ///
    /// Nodes are gathered by height above the lowest stale one below them; each height is one batch for the hasher.
    /// Cost: O(stale nodes); nothing when nothing changed.
    pub fn rehash<H: TreeHasher + ?Sized>(&mut self, hasher: &H) -> Digest {
        if let Some(digest) = self.root_digest {
            return digest;
        }
        let mut levels: Vec<Vec<u32>> = Vec::new();
        if self.root != NONE {
            self.gather_stale(self.root, &mut levels);
        }
        let mut out: Vec<Digest> = Vec::new();
        for level in &levels {
            let jobs: Vec<HashJob<'_>> = level.iter().map(|at| self.job(*at)).collect();
            out.resize(jobs.len(), [0; 32]);
            hasher.hash_batch(&jobs, &mut out);
            for (at, digest) in level.iter().zip(&out) {
                self.digests[*at as usize] = *digest;
                self.nodes[*at as usize].set_fresh();
            }
        }
        let digest = if self.root == NONE { hasher.empty() } else { self.digests[self.root as usize] };
        self.root_digest = Some(digest);
        digest
    }

    /// Files the stale nodes of a subtree into `levels`; returns the level above its top. Recursion is as deep as the tree:
    /// at most the bits in which the labels of a path can differ.
    fn gather_stale(&self, at: u32, levels: &mut Vec<Vec<u32>>) -> usize {
        let node = self.nodes[at as usize];
        if !node.is_stale() {
            return 0;
        }
        let level = if node.is_fork() {
            self.gather_stale(node.a, levels).max(self.gather_stale(node.b, levels))
        } else if node.is_inner() {
            self.gather_stale(node.b, levels)
        } else {
            0
        };
        if levels.len() == level {
            levels.push(Vec::new());
        }
        levels[level].push(at);
        level + 1
    }

    fn job(&self, at: u32) -> HashJob<'_> {
        let node = self.nodes[at as usize];
        if node.is_fork() {
            HashJob::Fork { left: &self.digests[node.a as usize], right: &self.digests[node.b as usize] }
        } else if node.is_inner() {
            HashJob::Labeled { label: self.label(at), child: &self.digests[node.b as usize] }
        } else {
            HashJob::Leaf { label: self.label(at), value: self.value(at) }
        }
    }
}
