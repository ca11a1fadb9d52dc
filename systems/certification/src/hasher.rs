//! The hash function of the state tree: SHA-256 with a domain in front, in batches.

use cyclotron_crypto::sha256_batch;
use cyclotron_tree::{Digest, HashJob, TreeHasher};
use rayon::prelude::*;

/// Hashes tree nodes as the specification says.
/// Spec: ic-interface-spec #certificate, `reconstruct`.
#[derive(Clone, Copy, Default, Debug)]
pub struct StateHasher;

const EMPTY: &[u8] = b"\x11ic-hashtree-empty";
const LEAF: &[u8] = b"\x10ic-hashtree-leaf";
const LABELED: &[u8] = b"\x13ic-hashtree-labeled";
const FORK: &[u8] = b"\x10ic-hashtree-fork";

const _: () = assert!(EMPTY.len() == 1 + EMPTY[0] as usize && LEAF.len() == 1 + LEAF[0] as usize);
const _: () = assert!(LABELED.len() == 1 + LABELED[0] as usize && FORK.len() == 1 + FORK[0] as usize);

/// Jobs that one thread takes at a time: 128 at about 200 ns outweigh handing them over.
const CHUNK_JOBS: usize = 128;

/// Jobs from which on laying them out as a batch pays; the path of a single change has one a level.
const BATCH_JOBS_MIN: usize = 8;

impl TreeHasher for StateHasher {
    fn hash_batch(&self, jobs: &[HashJob<'_>], out: &mut [Digest]) {
        assert_eq!(jobs.len(), out.len(), "one digest a job");
        if jobs.len() < BATCH_JOBS_MIN {
            return hash_one_by_one(jobs, out);
        }
        if jobs.len() <= CHUNK_JOBS {
            return hash_chunk(jobs, out);
        }
        jobs.par_chunks(CHUNK_JOBS).zip(out.par_chunks_mut(CHUNK_JOBS)).for_each(|(jobs, out)| hash_chunk(jobs, out));
    }

    fn leaf(&self, value: &[u8]) -> Digest {
        hash_one(&[LEAF, value].concat())
    }

    fn empty(&self) -> Digest {
        hash_one(EMPTY)
    }
}

fn hash_one(message: &[u8]) -> Digest {
    let mut digest = [[0; 32]];
    sha256_batch(&[message], &mut digest);
    digest[0]
}

fn hash_one_by_one(jobs: &[HashJob<'_>], out: &mut [Digest]) {
    let mut message = Vec::with_capacity(128);
    let mut hash = |parts: [&[u8]; 3]| {
        message.clear();
        parts.iter().for_each(|part| message.extend_from_slice(part));
        hash_one(&message)
    };
    for (job, out) in jobs.iter().zip(out) {
        *out = match job {
            HashJob::Leaf { label, value } => {
                let value = hash([LEAF, value, &[]]);
                hash([LABELED, label, &value])
            }
            HashJob::Labeled { label, child } => hash([LABELED, label, *child]),
            HashJob::Fork { left, right } => hash([FORK, *left, *right]),
        };
    }
}

/// Hashes the values of the leaves, then every node.
fn hash_chunk(jobs: &[HashJob<'_>], out: &mut [Digest]) {
    let mut messages = Messages::default();
    for job in jobs {
        if let HashJob::Leaf { value, .. } = job {
            messages.push(&[LEAF, value]);
        }
    }
    let mut values = vec![[0; 32]; messages.len()];
    messages.hash(&mut values);
    let mut values = values.iter();
    messages.clear();
    for job in jobs {
        match job {
            HashJob::Leaf { label, .. } => {
                let value = values.next().expect("one digest for each leaf's value");
                messages.push(&[LABELED, label, value]);
            }
            HashJob::Labeled { label, child } => messages.push(&[LABELED, label, *child]),
            HashJob::Fork { left, right } => messages.push(&[FORK, *left, *right]),
        }
    }
    messages.hash(out);
}

/// Messages one after another in one buffer.
#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Messages {
    fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn hash(&self, out: &mut [Digest]) {
        let mut begin = 0;
        let slices: Vec<&[u8]> = self
            .ends
            .iter()
            .map(|end| {
                let message = &self.bytes[begin..*end];
                begin = *end;
                message
            })
            .collect();
        sha256_batch(&slices, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    fn sha(parts: &[&[u8]]) -> Digest {
        Sha256::digest(parts.concat()).into()
    }

    #[test]
    fn batches_of_every_size_hash_as_specified() {
        let (left, right) = ([1; 32], [2; 32]);
        let labels: Vec<Vec<u8>> = (0..300usize).map(|i| vec![i as u8; i % 40]).collect();
        let expected: Vec<Digest> = labels
            .iter()
            .enumerate()
            .map(|(i, label)| match i % 3 {
                0 => sha(&[b"\x13ic-hashtree-labeled", label, &sha(&[b"\x10ic-hashtree-leaf", label])]),
                1 => sha(&[b"\x13ic-hashtree-labeled", label, &left]),
                _ => sha(&[b"\x10ic-hashtree-fork", &left, &right]),
            })
            .collect();
        let jobs: Vec<HashJob<'_>> = labels
            .iter()
            .enumerate()
            .map(|(i, label)| match i % 3 {
                0 => HashJob::Leaf { label, value: label },
                1 => HashJob::Labeled { label, child: &left },
                _ => HashJob::Fork { left: &left, right: &right },
            })
            .collect();
        for size in [0, 1, 7, 8, 9, 63, 64, 65, 128, 129, 300] {
            let mut out = vec![[0; 32]; size];
            StateHasher.hash_batch(&jobs[..size], &mut out);
            assert_eq!(out, expected[..size], "{size} jobs");
        }
        assert_eq!(StateHasher.leaf(b"x"), sha(&[b"\x10ic-hashtree-leaf", b"x"]));
        assert_eq!(StateHasher.empty(), sha(&[b"\x11ic-hashtree-empty"]));
    }
}
