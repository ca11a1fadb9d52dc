//! Signatures as kernels take them.

use crate::ecdsa::{Equation, Signed, number};
use crate::ed25519;
use crate::hash::sha512_batch;
use crate::key::PublicKey;
use crate::lanes::mont::Number;
use crate::verify::{Scheme, SignatureTask};
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use cyclotron_shaders::{BASE_MULTIPLES, EcdsaJob, Ed25519Job};
use p256::FieldBytes;
use p256::elliptic_curve::PrimeField;

/// A job for each signature that has the right length and a canonical `S`. Returns their places; the others are invalid.
pub(super) fn ed25519(tasks: &[SignatureTask<'_>], jobs: &mut Vec<Ed25519Job>) -> Vec<usize> {
    let mut places = Vec::with_capacity(tasks.len());
    let mut signed = Vec::with_capacity(tasks.len());
    let (mut hashed, mut ends): (Vec<u8>, Vec<usize>) = (Vec::new(), Vec::with_capacity(tasks.len()));
    for (at, SignatureTask { key, message, signature }) in tasks.iter().enumerate() {
        let PublicKey::Ed25519(key) = key else { continue };
        let Some((r, s)) = ed25519::parts(signature) else { continue };
        [&r[..], key, message].iter().for_each(|part| hashed.extend_from_slice(part));
        ends.push(hashed.len());
        places.push(at);
        signed.push((key, r, s));
    }
    let mut begin = 0;
    let messages: Vec<&[u8]> = ends.iter().map(|end| &hashed[std::mem::replace(&mut begin, *end)..*end]).collect();
    let mut digests = vec![[0; 64]; messages.len()];
    sha512_batch(&messages, &mut digests);
    jobs.extend(signed.into_iter().zip(&digests).map(|((key, r, s), digest)| {
        Ed25519Job::new(*key, *r, s.to_bytes(), Scalar::from_bytes_mod_order_wide(digest).to_bytes())
    }));
    places
}

/// The negatives of 0, 1, 2 and so on times the base point.
pub(super) fn ed25519_table() -> Vec<Ed25519Job> {
    let multiples = std::iter::successors(Some(EdwardsPoint::identity()), |last| Some(last - ED25519_BASEPOINT_POINT));
    let job = |point: EdwardsPoint| Ed25519Job { key: point.compress().to_bytes(), ..Ed25519Job::default() };
    multiples.take(BASE_MULTIPLES).map(job).collect()
}

/// A number's bytes, the lowest first.
fn bytes(number: &Number) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.as_chunks_mut::<8>().0.iter_mut().zip(number).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
    bytes
}

/// A job for each signature of the scheme, one of ECDSA, that says something. Returns their places; the others are invalid.
pub(super) fn ecdsa<S: PrimeField<Repr = FieldBytes>>(
    scheme: Scheme,
    tasks: &[SignatureTask<'_>],
    equations: impl Fn(&[Signed<'_>]) -> Vec<Equation<S>>,
    jobs: &mut Vec<EcdsaJob>,
) -> Vec<usize> {
    let (mut places, mut signed) = (Vec::with_capacity(tasks.len()), Vec::with_capacity(tasks.len()));
    for (at, SignatureTask { key, message, signature }) in tasks.iter().enumerate() {
        if let PublicKey::EcdsaP256(point) | PublicKey::EcdsaSecp256k1(point) = key
            && Scheme::of(key) == scheme
        {
            places.push(at);
            signed.push(Signed { key: point, message, signature });
        }
    }
    let scalar = |scalar: S| bytes(&number(&scalar.to_repr().into()));
    let job = |Equation { place, x, y, u, v, candidates }: Equation<S>| {
        jobs.push(EcdsaJob::new(bytes(&x), bytes(&y), candidates.map(|r| bytes(&r)), scalar(u), scalar(v)));
        places[place]
    };
    equations(&signed).into_iter().map(job).collect()
}

/// 0, 1, 2 and so on times the base point, of its multiples from 1 on.
pub(super) fn ecdsa_table(multiples: &[[Number; 2]]) -> Vec<EcdsaJob> {
    let job = |[x, y]: &[Number; 2]| EcdsaJob { x: bytes(x), y: bytes(y), ..EcdsaJob::default() };
    std::iter::once(EcdsaJob::default()).chain(multiples.iter().map(job)).take(BASE_MULTIPLES).collect()
}
