//! Many signatures at once: the product of their pairings, each to the power of its coefficient.
//!
//! e(Σ z·signature, -g2) · Π over messages e(hash, Σ z·key) = 1. A message that several keys signed (shares of one threshold signature) costs one
//! Miller loop; of the other messages, those that one key signed (certificates of one subnet) cost one together: e(Σ z·hash, key).

use crate::bls::pairs::Pairs;
use crate::bls::sums::{sum_g1, sum_g2};
use crate::bls::{Suite, holds, kernel, key_point, signature_point};
use crate::combined::{Claims, check_each, draw_coefficients, settle};
use crate::ed25519::Kernel;
use crate::verify::{Backend, Scheme, Verdict};
use blstrs::{G1Affine, G2Affine};
use group::prime::PrimeCurveAffine;
use std::ops::Range;

/// One signature to check.
#[derive(Clone, Copy, Debug)]
pub struct BlsTask<'a> {
    /// Who is said to have signed.
    pub key: &'a [u8; 96],
    /// What is said to be signed.
    pub message: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
}

/// Checks every task and writes its verdict to the same place in `verdicts`, whose former content is dropped.
///
/// Cost: for shares on one message, a decompression with a check of the group, some 26 additions in G1 and 18 in G2 each (`sums`), and one product of two
/// pairings for all of them. Batches with invalid signatures are bisected.
pub fn verify_batch(suite: Suite, tasks: &[BlsTask<'_>], verdicts: &mut Vec<Verdict>) {
    let kernel = Backend::fastest(Scheme::Bls12381, tasks.len()).kernel();
    verify_batch_by(kernel, suite, tasks, verdicts);
}

/// The same, signatures taken from their bytes by this kernel, or else by blst. Panics: if the kernel is not available.
pub(crate) fn verify_batch_by(
    kernel: Option<Kernel>,
    suite: Suite,
    tasks: &[BlsTask<'_>],
    verdicts: &mut Vec<Verdict>,
) {
    let mut claims = Signatures::of(kernel, suite, tasks);
    let mut valid = vec![false; claims.claims.len()];
    match draw_coefficients(valid.len()) {
        Some(coefficients) if valid.len() > 1 => {
            claims.coefficients = coefficients;
            settle(&mut claims, &mut valid);
        }
        // Without a secret nothing can be summed up.
        _ => check_each(&mut claims, &mut valid),
    }
    verdicts.clear();
    verdicts.resize(tasks.len(), Verdict::Invalid);
    for (claim, valid) in claims.claims.iter().zip(valid) {
        verdicts[claim.at] = valid.into();
    }
}

/// The point of each signature; `None` if it is none of the group, or the identity.
fn signature_points<'a>(kernel: Option<Kernel>, tasks: &[BlsTask<'a>]) -> Vec<Option<G1Affine>> {
    let Some(kernel) = kernel else {
        let point = |task: &BlsTask<'a>| signature_point(task.signature);
        return tasks.iter().map(|task| point(task).filter(|point| !bool::from(point.is_identity()))).collect();
    };
    let encoding = |(at, task): (usize, &BlsTask<'a>)| Some((at, task.signature.as_array::<48>()?));
    let (places, encodings): (Vec<usize>, Vec<&[u8; 48]>) = tasks.iter().enumerate().filter_map(encoding).unzip();
    let (mut found, mut points) = (vec![None; encodings.len()], vec![None; tasks.len()]);
    kernel::signature_points(kernel, &encodings, &mut found);
    for (at, coordinates) in places.into_iter().zip(found) {
        points[at] = coordinates.and_then(|bytes| G1Affine::from_uncompressed_unchecked(&bytes).into());
    }
    points
}

/// A signature whose points are in their groups.
struct Claim {
    /// Where its verdict goes.
    at: usize,
    /// Which of the messages.
    message: usize,
    /// Equal for equal keys.
    key_bytes: [u8; 96],
    key: G2Affine,
    signature: G1Affine,
}

struct Signatures {
    /// Those of one message follow one another.
    claims: Vec<Claim>,
    /// Of the messages, as points.
    hashes: Vec<G1Affine>,
    coefficients: Vec<u128>,
}

impl Signatures {
    /// Leaves out what no point is: its verdict is known. So is that of the identity as a signature.
    fn of(kernel: Option<Kernel>, suite: Suite, tasks: &[BlsTask<'_>]) -> Self {
        let signatures = signature_points(kernel, tasks);
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        order.sort_by_key(|at| tasks[*at].message);
        let (mut claims, mut hashes) = (Vec::with_capacity(tasks.len()), Vec::new());
        let mut last: Option<&[u8]> = None;
        for at in order {
            let BlsTask { key, message, .. } = tasks[at];
            let (Some(signature), Some(point)) = (signatures[at], key_point(key)) else { continue };
            if last != Some(message) {
                hashes.push(G1Affine::from(suite.hash(message)));
                last = Some(message);
            }
            claims.push(Claim { at, message: hashes.len() - 1, key_bytes: *key, key: point, signature });
        }
        Self { claims, hashes, coefficients: Vec::new() }
    }
}

impl Claims for Signatures {
    fn sum_holds(&mut self, range: Range<usize>) -> bool {
        let (claims, coefficients) = (&self.claims[range.clone()], &self.coefficients[range]);
        let signatures: Vec<G1Affine> = claims.iter().map(|claim| claim.signature).collect();
        let mut pairs = Pairs::default();
        pairs.push(&sum_g1(&signatures, coefficients), &-G2Affine::generator());
        // Messages with one signature, to be put together by key.
        let mut single: Vec<(&Claim, u128)> = Vec::new();
        let mut begin = 0;
        for of_message in claims.chunk_by(|a, b| a.message == b.message) {
            let coefficients = &coefficients[begin..begin + of_message.len()];
            begin += of_message.len();
            if let ([claim], [z]) = (of_message, coefficients) {
                single.push((claim, *z));
                continue;
            }
            let keys: Vec<_> = of_message.iter().map(|claim| (&claim.key_bytes, claim.key)).collect();
            pairs.push(&self.hashes[of_message[0].message], &sum_g2(&keys, coefficients));
        }
        single.sort_by_key(|(claim, _)| claim.key_bytes);
        for of_key in single.chunk_by(|(a, _), (b, _)| a.key_bytes == b.key_bytes) {
            // Hashes to the curve are never the identity, but with negligible probability; then they add nothing.
            let (hashes, coefficients): (Vec<G1Affine>, Vec<u128>) = of_key
                .iter()
                .map(|(claim, z)| (self.hashes[claim.message], *z))
                .filter(|(hash, _)| !bool::from(hash.is_identity()))
                .unzip();
            pairs.push(&sum_g1(&hashes, &coefficients), &of_key[0].0.key);
        }
        pairs.product_is_one()
    }

    fn holds(&mut self, at: usize) -> bool {
        let claim = &self.claims[at];
        holds(&claim.signature, [(&self.hashes[claim.message], &claim.key)])
    }
}
