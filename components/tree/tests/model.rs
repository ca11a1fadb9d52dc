//! The tree against a naive rebuild from a sorted map, and its witnesses against `ic-certification`.

use cyclotron_tree::{CborWitness, Digest, HashJob, LabeledTree, Lookup, PathError, TreeHasher};
use ic_certification::{HashTree, LookupResult};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ops::Bound;

type Label = Vec<u8>;
type Model = BTreeMap<Vec<Label>, Vec<u8>>;

struct Sha;

fn sha(domain: &str, parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([domain.len() as u8]);
    hasher.update(domain);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

impl TreeHasher for Sha {
    fn hash_batch(&self, jobs: &[HashJob<'_>], out: &mut [Digest]) {
        assert_eq!(jobs.len(), out.len());
        for (job, out) in jobs.iter().zip(out) {
            *out = match job {
                HashJob::Leaf { label, value } => sha("ic-hashtree-labeled", &[label, &self.leaf(value)]),
                HashJob::Labeled { label, child } => sha("ic-hashtree-labeled", &[label, *child]),
                HashJob::Fork { left, right } => sha("ic-hashtree-fork", &[*left, *right]),
            };
        }
    }

    fn leaf(&self, value: &[u8]) -> Digest {
        sha("ic-hashtree-leaf", &[value])
    }

    fn empty(&self) -> Digest {
        sha("ic-hashtree-empty", &[])
    }
}

/// Deterministic numbers for workloads.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Digest of the entries of one level, straight from the definition: a fork where the first and last label first differ.
fn naive(entries: &[(&[Label], &[u8])], depth: usize) -> Digest {
    let key = |path: &[Label]| -> Vec<bool> {
        let bits = path[depth].iter().flat_map(|byte| {
            std::iter::once(true).chain((0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect::<Vec<_>>()
        });
        bits.collect()
    };
    let (first, last) = (key(entries[0].0), key(entries[entries.len() - 1].0));
    if first == last {
        let label = &entries[0].0[depth];
        let below = if entries[0].0.len() == depth + 1 { Sha.leaf(entries[0].1) } else { naive(entries, depth + 1) };
        return sha("ic-hashtree-labeled", &[label, &below]);
    }
    let bit = |key: &[bool], at: usize| key.get(at).copied().unwrap_or(false);
    let position = (0..).find(|at| bit(&first, *at) != bit(&last, *at)).expect("they differ");
    let split = entries.partition_point(|entry| !bit(&key(entry.0), position));
    sha("ic-hashtree-fork", &[&naive(&entries[..split], depth), &naive(&entries[split..], depth)])
}

fn naive_root(model: &Model) -> Digest {
    let entries: Vec<(&[Label], &[u8])> = model.iter().map(|(path, value)| (&path[..], &value[..])).collect();
    if entries.is_empty() { Sha.empty() } else { naive(&entries, 0) }
}

fn refs(path: &[Label]) -> Vec<&[u8]> {
    path.iter().map(Vec::as_slice).collect()
}

/// A path over few labels, so that prefixes, neighbours and collisions are common.
fn random_path(numbers: &mut Numbers) -> Vec<Label> {
    let depth = 1 + numbers.below(4);
    (0..depth)
        .map(|_| {
            let length = numbers.below(4) as usize;
            (0..length).map(|_| [0, 1, 127, 128, 254, 255][numbers.below(6) as usize]).collect()
        })
        .collect()
}

fn model_below<'m>(model: &'m Model, path: &'m [Label]) -> impl Iterator<Item = (&'m Vec<Label>, &'m Vec<u8>)> {
    let from: (Bound<Vec<Label>>, Bound<Vec<Label>>) = (Bound::Included(path.to_vec()), Bound::Unbounded);
    model.range(from).take_while(move |(other, _)| other.starts_with(path))
}

fn model_insert(model: &mut Model, path: &[Label], value: &[u8]) -> Result<(), PathError> {
    for labels in 1..path.len() {
        if model.contains_key(&path[..labels]) {
            return Err(PathError::CrossesLeaf { labels });
        }
    }
    if !model.contains_key(path) && model_below(model, path).next().is_some() {
        return Err(PathError::NamesSubtree);
    }
    model.insert(path.to_vec(), value.to_vec());
    Ok(())
}

fn model_lookup<'m>(model: &'m Model, path: &'m [Label]) -> Lookup<'m> {
    match model.get(path) {
        Some(value) => Lookup::Leaf(value),
        None if model_below(model, path).next().is_some() => Lookup::Subtree,
        None => Lookup::Absent,
    }
}

fn witness_of(tree: &LabeledTree, paths: &[Vec<Label>]) -> HashTree {
    let mut cbor = CborWitness::default();
    tree.witness(&Sha, paths, &mut cbor);
    decode(&cbor.0)
}

fn decode(cbor: &[u8]) -> HashTree {
    serde_cbor::from_slice(cbor).expect("a witness is a CBOR hash tree")
}

/// The witness has the root, and answers each of `paths` as the model does, whole subtrees included.
fn check_witness(tree: &LabeledTree, model: &Model, paths: &[Vec<Label>]) {
    let witness = witness_of(tree, paths);
    assert_eq!(Some(witness.digest()), tree.root_digest());
    for path in paths {
        match (witness.lookup_path(path), model_lookup(model, path)) {
            (LookupResult::Found(found), Lookup::Leaf(value)) => assert_eq!(found, value),
            (LookupResult::Absent, Lookup::Absent) => {}
            (LookupResult::Error, Lookup::Subtree) => {
                for (below, value) in model_below(model, path) {
                    assert_eq!(witness.lookup_path(below), LookupResult::Found(value));
                }
            }
            (answer, truth) => panic!("{path:?}: {answer:?} where the tree has {truth:?}"),
        }
    }
}

#[test]
fn ten_thousand_random_operations_agree_with_a_rebuild_from_scratch() {
    const DICTIONARY: &[&[u8]] = &[&[0], &[0, 1], &[255]];
    for seed in 0..10 {
        let mut numbers = Numbers(seed);
        let (mut tree, mut model) = (LabeledTree::new(DICTIONARY), Model::new());
        for step in 0..1_000 {
            let path = random_path(&mut numbers);
            if numbers.below(4) > 0 {
                let value = vec![step as u8; numbers.below(80) as usize];
                assert_eq!(tree.insert(&refs(&path), &value), model_insert(&mut model, &path, &value), "{path:?}");
            } else {
                let below: Vec<Vec<Label>> = model_below(&model, &path).map(|(path, _)| path.clone()).collect();
                assert_eq!(tree.remove(&refs(&path)), !below.is_empty());
                below.iter().for_each(|path| drop(model.remove(path)));
            }
            assert_eq!(tree.len(), model.len());
            let asked = random_path(&mut numbers);
            assert_eq!(tree.lookup(&refs(&asked)), model_lookup(&model, &asked));
            if step % 7 == 0 {
                assert_eq!(tree.rehash(&Sha), naive_root(&model), "seed {seed} step {step}");
                let paths: Vec<Vec<Label>> = (0..numbers.below(6)).map(|_| random_path(&mut numbers)).collect();
                check_witness(&tree, &model, &paths);
            }
        }
        // Emptied path by path, it is the empty tree again.
        for path in model.keys() {
            assert!(tree.remove(&refs(path)));
        }
        assert!(tree.is_empty());
        assert_eq!(tree.rehash(&Sha), Sha.empty());
    }
}

#[test]
fn the_digest_depends_on_the_content_and_not_on_the_history() {
    for seed in 100..140 {
        let mut numbers = Numbers(seed);
        let mut model = Model::new();
        for _ in 0..60 {
            let _ = model_insert(&mut model, &random_path(&mut numbers), &numbers.next().to_le_bytes());
        }
        let mut roots = Vec::new();
        for _ in 0..4 {
            let mut order: Vec<(&Vec<Label>, &Vec<u8>)> = model.iter().collect();
            for i in (1..order.len()).rev() {
                order.swap(i, numbers.below(i as u64 + 1) as usize);
            }
            let mut tree = LabeledTree::new(&[]);
            for (path, value) in order {
                // A detour: something else comes and goes, digests are brought up to date at random times.
                let detour = [&[9u8, 9, 9][..], &numbers.next().to_le_bytes()];
                tree.insert(&detour, b"passing").unwrap();
                if numbers.below(3) == 0 {
                    tree.rehash(&Sha);
                }
                tree.insert(&refs(path), b"at first something else").unwrap();
                assert!(tree.remove(&detour));
                tree.insert(&refs(path), value).unwrap();
            }
            roots.push(tree.rehash(&Sha));
        }
        assert!(roots.iter().all(|root| *root == roots[0]), "seed {seed}");
    }
}

#[test]
fn entries_below_a_prefix_are_the_same_as_entries_by_whole_path() {
    let mut numbers = Numbers(7);
    let (mut below, mut whole) = (LabeledTree::new(&[]), LabeledTree::new(&[]));
    for round in 0..200u32 {
        let prefix: Vec<Label> = (0..numbers.below(3)).map(|_| vec![7, numbers.below(5) as u8]).collect();
        let labels: Vec<[Label; 2]> =
            (0..numbers.below(5)).map(|_| [vec![3, numbers.below(9) as u8], vec![numbers.below(40) as u8]]).collect();
        let paths: Vec<Vec<&[u8]>> = labels.iter().map(|pair| pair.iter().map(Vec::as_slice).collect()).collect();
        let value = round.to_le_bytes();
        let entries: Vec<(&[&[u8]], &[u8])> = paths.iter().map(|path| (&path[..], &value[..])).collect();
        let prefix = refs(&prefix);
        let outcome = below.insert_below(&prefix, &entries);
        let expected = entries.iter().try_for_each(|(path, value)| {
            whole.insert(&prefix.iter().chain(*path).copied().collect::<Vec<_>>(), value)
        });
        assert_eq!(outcome, expected);
        if round % 3 == 0 {
            assert_eq!(below.rehash(&Sha), whole.rehash(&Sha));
        }
    }
    assert_eq!(below.rehash(&Sha), whole.rehash(&Sha));
}

#[test]
fn only_stale_digests_are_computed() {
    struct Counting(std::sync::atomic::AtomicUsize);
    impl TreeHasher for Counting {
        fn hash_batch(&self, jobs: &[HashJob<'_>], out: &mut [Digest]) {
            self.0.fetch_add(jobs.len(), std::sync::atomic::Ordering::Relaxed);
            Sha.hash_batch(jobs, out);
        }
        fn leaf(&self, value: &[u8]) -> Digest {
            Sha.leaf(value)
        }
        fn empty(&self) -> Digest {
            Sha.empty()
        }
    }
    let hasher = Counting(Default::default());
    let count = |tree: &mut LabeledTree| {
        hasher.0.store(0, std::sync::atomic::Ordering::Relaxed);
        tree.rehash(&hasher);
        hasher.0.load(std::sync::atomic::Ordering::Relaxed)
    };
    let mut tree = LabeledTree::new(&[]);
    for number in 0..1024u64 {
        tree.insert(&[b"canister", &number.to_be_bytes(), b"controllers"], b"x").unwrap();
    }
    tree.insert(&[b"time"], b"1").unwrap();
    // Each canister: its leaf and its label; 1,023 forks; then "canister", "time" and the fork of the two.
    assert_eq!(count(&mut tree), 2 * 1024 + 1023 + 3);
    assert_eq!(count(&mut tree), 0);
    tree.insert(&[b"time"], b"2").unwrap();
    assert_eq!(count(&mut tree), 2);
    tree.insert(&[b"time"], b"2").unwrap();
    assert_eq!(count(&mut tree), 0);
    tree.insert(&[b"canister", &500u64.to_be_bytes(), b"controllers"], b"y").unwrap();
    // The leaf, its canister's label, 10 forks of 1,024 canisters, "canister", the top fork.
    assert_eq!(count(&mut tree), 2 + 10 + 2);
}

#[test]
fn the_example_of_the_specification_prunes_as_shown() {
    // ic-interface-spec #certification, "Example"; the shape of the specification's own tree differs, its answers do not.
    let mut tree = LabeledTree::new(&[]);
    let content: [(&[&[u8]], &[u8]); 4] =
        [(&[b"a", b"x"], b"hello"), (&[b"a", b"y"], b"world"), (&[b"b"], b"good"), (&[b"d"], b"morning")];
    tree.insert_below(&[], &content).unwrap();
    let root = tree.rehash(&Sha);
    let paths: Vec<Vec<Label>> = vec![vec![b"a".to_vec(), b"y".to_vec()], vec![b"ax".to_vec()], vec![b"d".to_vec()]];
    let witness = witness_of(&tree, &paths);
    assert_eq!(witness.digest(), root);
    let look = |path: &[&[u8]]| witness.lookup_path(path);
    assert_eq!(look(&[b"a", b"a"]), LookupResult::Unknown);
    assert_eq!(look(&[b"a", b"y"]), LookupResult::Found(b"world"));
    assert_eq!(look(&[b"aa"]), LookupResult::Absent);
    assert_eq!(look(&[b"ax"]), LookupResult::Absent);
    assert_eq!(look(&[b"b"]), LookupResult::Unknown);
    assert_eq!(look(&[b"d"]), LookupResult::Found(b"morning"));
    assert_eq!(look(&[b"e"]), LookupResult::Absent);
    // Nothing asked, nothing shown.
    assert_eq!(witness_of(&tree, &[]).lookup_path([b"d"]), LookupResult::Unknown);
    // The empty path asks for everything.
    let all = witness_of(&tree, &[vec![]]);
    assert!(content.iter().all(|(path, value)| all.lookup_path(*path) == LookupResult::Found(value)));
    // A path through a value shows the value, which proves the absence.
    let through = witness_of(&tree, &[vec![b"d".to_vec(), b"e".to_vec()]]);
    assert_eq!(through.lookup_path([b"d", b"e"]), LookupResult::Absent);
}

#[test]
fn the_empty_tree_proves_the_absence_of_everything() {
    let mut tree = LabeledTree::new(&[]);
    assert_eq!(tree.rehash(&Sha), Sha.empty());
    let witness = witness_of(&tree, &[vec![b"time".to_vec()]]);
    assert_eq!(witness.digest(), Sha.empty());
    assert_eq!(witness.lookup_path([b"time"]), LookupResult::Absent);
}

#[test]
fn labels_over_the_limit_are_refused_and_those_at_it_work() {
    let mut tree = LabeledTree::new(&[]);
    let longest = vec![1; cyclotron_tree::LABEL_BYTES_MAX];
    let mut nearly = longest.clone();
    nearly[cyclotron_tree::LABEL_BYTES_MAX - 1] = 0;
    tree.insert(&[&longest], b"1").unwrap();
    tree.insert(&[&nearly], b"0").unwrap();
    assert_eq!(tree.lookup(&[&longest]), Lookup::Leaf(b"1"));
    assert_eq!(tree.lookup(&[&nearly]), Lookup::Leaf(b"0"));
    let over = vec![1; cyclotron_tree::LABEL_BYTES_MAX + 1];
    assert_eq!(tree.insert(&[b"x", &over], b""), Err(PathError::LabelTooLong { bytes: over.len() }));
    assert_eq!(tree.lookup(&[b"x"]), Lookup::Absent);
    assert_eq!(tree.insert(&[], b""), Err(PathError::Empty));
}

#[test]
fn children_come_in_label_order() {
    let mut tree = LabeledTree::new(&[]);
    for label in ["m", "", "zz", "a", "z", "ab"] {
        tree.insert(&[b"top", label.as_bytes(), b"x"], b"").unwrap();
    }
    tree.insert(&[b"top", b"leaf"], b"").unwrap();
    let mut seen = Vec::new();
    tree.for_each_child(&[b"top"], |label, is_leaf| seen.push((String::from_utf8(label.to_vec()).unwrap(), is_leaf)));
    let expected = ["", "a", "ab", "leaf", "m", "z", "zz"].map(|label| (label.to_owned(), label == "leaf"));
    assert_eq!(seen, expected);
    tree.for_each_child(&[b"top", b"leaf"], |_, _| panic!("a value has no children"));
    tree.for_each_child(&[b"nothing"], |_, _| panic!("nothing has no children"));
}
