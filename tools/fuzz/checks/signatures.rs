// What must hold for every batch of signatures: all backends give the verdicts of crates that others wrote. Shared by the fuzz target, the test that
// replays its corpus, and the differential test that makes up cases by the million.
//
// The bytes say what to sign and how to spoil it: bytes alone would never be a signature.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use cyclotron_crypto::bls::Suite;
use cyclotron_crypto::{Backend, BlsSecretKey, PublicKey, SignatureTask, Verdict};
use sha2::{Digest, Sha512};

/// Which schemes a batch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Verdicts of `ed25519-zebra`.
    Ed25519,
    /// Verdicts of libsecp256k1.
    Secp256k1,
    /// Verdicts of `p256`.
    P256,
    /// Verdicts of `blst`.
    Bls,
}

const SCHEMES: [Scheme; 4] = [Scheme::Ed25519, Scheme::Secp256k1, Scheme::P256, Scheme::Bls];
/// Signatures of one batch of the fuzz target.
const BATCH: usize = 70;

/// The first byte chooses a scheme or a mixture, the others say what to sign and spoil.
pub fn check(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let schemes = match first % 5 {
        4 => &SCHEMES[..],
        one => &SCHEMES[usize::from(one)..][..1],
    };
    check_batch(schemes, BATCH, rest);
}

/// Makes up to `count` signatures by these schemes in turns, as the bytes say until there are none left, and compares verdicts. Returns how many are valid,
/// of how many.
pub fn check_batch(schemes: &[Scheme], count: usize, bytes: &[u8]) -> (usize, usize) {
    let only = std::env::var("CRYPTO_BACKEND").ok();
    let is_asked = |backend: &Backend| only.as_ref().is_none_or(|only| only == backend.name());
    let backends: Vec<Backend> = Backend::available().into_iter().filter(is_asked).collect();
    assert!(!backends.is_empty(), "this machine has no backend {only:?}");
    check_batch_on(&backends, schemes, count, bytes)
}

/// As [`check_batch`], on these backends.
pub fn check_batch_on(backends: &[Backend], schemes: &[Scheme], count: usize, bytes: &[u8]) -> (usize, usize) {
    let mut source = Source(bytes);
    let mut cases = Vec::new();
    while cases.len() < count && !source.0.is_empty() {
        match schemes[cases.len() % schemes.len()] {
            Scheme::Ed25519 => cases.push(ed25519(&mut source)),
            Scheme::Secp256k1 => cases.push(secp256k1(&mut source)),
            Scheme::P256 => cases.push(p256(&mut source)),
            Scheme::Bls => bls(&mut source, &mut cases),
        }
    }
    let expected: Vec<Verdict> = cases.iter().map(|case| Verdict::from(case.oracle())).collect();
    let tasks: Vec<SignatureTask<'_>> = cases.iter().map(Case::task).collect();
    let mut verdicts = Vec::new();
    for backend in backends {
        backend.verify(&tasks, &mut verdicts);
        for (at, (found, expected)) in verdicts.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{backend:?}, {at} of {}: {:02x?}", cases.len(), cases[at]);
        }
    }
    (expected.iter().filter(|verdict| **verdict == Verdict::Valid).count(), expected.len())
}

/// A key, a message and what is said to be its signature.
#[derive(Clone, Debug)]
struct Case {
    key: PublicKey,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Case {
    fn task(&self) -> SignatureTask<'_> {
        SignatureTask { key: &self.key, message: &self.message, signature: &self.signature }
    }

    /// What the other crate says.
    fn oracle(&self) -> bool {
        let (message, signature) = (&self.message[..], &self.signature[..]);
        match &self.key {
            PublicKey::Ed25519(key) => {
                let key = ed25519_zebra::VerificationKey::try_from(*key);
                let signature = ed25519_zebra::Signature::from_slice(signature);
                key.ok().zip(signature.ok()).is_some_and(|(key, signature)| key.verify(&signature, message).is_ok())
            }
            PublicKey::EcdsaSecp256k1(key) => {
                let key = secp256k1::PublicKey::from_slice(key);
                let signature = secp256k1::ecdsa::Signature::from_compact(signature);
                let (Ok(key), Ok(mut signature)) = (key, signature) else { return false };
                signature.normalize_s();
                let digest: [u8; 32] = sha2::Sha256::digest(message).into();
                secp256k1::ecdsa::verify(&signature, secp256k1::Message::from_digest(digest), &key).is_ok()
            }
            PublicKey::EcdsaP256(key) => {
                use p256::ecdsa::signature::Verifier;
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key);
                let signature = p256::ecdsa::Signature::from_slice(signature);
                key.ok().zip(signature.ok()).is_some_and(|(key, signature)| key.verify(message, &signature).is_ok())
            }
            PublicKey::Bls12381(key) => {
                let key = blst::min_sig::PublicKey::key_validate(key);
                let signature = blst::min_sig::Signature::sig_validate(signature, true);
                let (Ok(key), Ok(signature)) = (key, signature) else { return false };
                let tag = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";
                signature.verify(true, message, tag, &[], &key, false) == blst::BLST_ERROR::BLST_SUCCESS
            }
        }
    }
}

/// Bytes to choose by; zeros when there are none left.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, count: usize) -> usize {
        (usize::from(self.byte()) | usize::from(self.byte()) << 8) % count
    }

    fn fill<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// 64 bytes that follow from one.
    fn stretched(&mut self, name: &str) -> [u8; 64] {
        Sha512::new().chain_update(name).chain_update([self.byte()]).finalize().into()
    }

    fn message(&mut self) -> Vec<u8> {
        let length = [0, 1, 43, 200][usize::from(self.byte() % 4)];
        vec![self.byte(); length]
    }

    /// One bit of these.
    fn flip(&mut self, bytes: &mut [u8]) {
        let bit = self.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    /// Spoils what every scheme has.
    fn spoil(&mut self, case: &mut Case) {
        match self.byte() % 8 {
            0 => self.flip(&mut case.signature),
            1 => case.message.push(self.byte()),
            2 => case.signature.truncate(self.byte().into()),
            3 => case.signature.push(self.byte()),
            4 => case.signature = self.fill::<64>()[..case.signature.len().min(64)].to_vec(),
            5 => match &mut case.key {
                PublicKey::Ed25519(key) => self.flip(key),
                PublicKey::EcdsaP256(key) | PublicKey::EcdsaSecp256k1(key) => self.flip(&mut key[1..]),
                PublicKey::Bls12381(key) => self.flip(key),
            },
            6 => case.signature.rotate_left(1),
            _ => {
                let length = case.signature.len();
                let part = self.below(length);
                let byte = [0, 0xff][usize::from(self.byte() % 2)];
                case.signature[part..(part + 32).min(length)].fill(byte);
            }
        }
    }
}

/// The 14 encodings of points of small order: 8 canonical ones, and those of 0 and 1 with the prime added or the sign of zero set.
fn small_order() -> Vec<[u8; 32]> {
    let mut encodings: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|point| point.compress().0).collect();
    // y = p and y = p + 1; x = 0 with its sign set, for y = 1, p - 1 and p + 1.
    let with = |first: u8, middle: u8, last: u8| {
        let mut bytes = [middle; 32];
        (bytes[0], bytes[31]) = (first, last);
        bytes
    };
    for last in [0x7f, 0xff] {
        encodings.extend([with(0xed, 0xff, last), with(0xee, 0xff, last)]);
    }
    encodings.extend([with(1, 0, 0x80), with(0xec, 0xff, 0xff)]);
    encodings
}

/// Signs with points of small order added to the key and to R, which ZIP 215 lets pass and other rules do not.
fn ed25519(source: &mut Source<'_>) -> Case {
    let message = source.message();
    let secret = Scalar::from_bytes_mod_order_wide(&source.stretched("key"));
    let nonce = Scalar::from_bytes_mod_order_wide(&source.stretched("nonce"));
    let kind = source.byte() % 8;
    let torsion = |index: u8| if kind < 2 { EdwardsPoint::default() } else { EIGHT_TORSION[usize::from(index % 8)] };
    let (key_torsion, r_torsion) = (torsion(source.byte()), torsion(source.byte()));
    let mut key = (EdwardsPoint::mul_base(&secret) + key_torsion).compress().0;
    let mut r = (EdwardsPoint::mul_base(&nonce) + r_torsion).compress().0;
    let small = small_order();
    let (mut secret, mut nonce) = (secret, nonce);
    if kind == 3 || kind == 5 {
        (key, secret) = (small[source.below(14)], Scalar::ZERO);
    }
    if kind == 4 || kind == 5 {
        (r, nonce) = (small[source.below(14)], Scalar::ZERO);
    }
    let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(&message).finalize();
    let s = nonce + Scalar::from_bytes_mod_order_wide(&hash.into()) * secret;
    let signature = [r, s.to_bytes()].concat();
    let mut case = Case { key: PublicKey::Ed25519(key), message, signature };
    match source.byte() % 6 {
        0 => source.spoil(&mut case),
        1 => {
            // The same number, not canonical: the group's order is added, once or more often.
            let order: [u8; 32] = (-Scalar::ONE).to_bytes();
            for _ in 0..=source.byte() % 3 {
                let mut carry = 1u16;
                for (byte, order) in case.signature[32..].iter_mut().zip(order) {
                    carry += u16::from(*byte) + u16::from(order);
                    *byte = carry as u8;
                    carry >>= 8;
                }
            }
        }
        _ => {}
    }
    case
}

/// Orders of the two groups, big-endian.
const SECP256K1_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc,
    0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// `a - b`, big-endian, without what is borrowed beyond.
fn minus(a: &[u8], b: &[u8; 32]) -> [u8; 32] {
    let (mut difference, mut borrow) = ([0; 32], 0i16);
    for at in (0..32).rev() {
        let digit = i16::from(a[at]) - i16::from(b[at]) - borrow;
        difference[at] = digit as u8;
        borrow = i16::from(digit < 0);
    }
    difference
}

/// Puts numbers at the edges of the range in the place of r or s, or the negative of s.
fn spoil_ecdsa(source: &mut Source<'_>, case: &mut Case, order: &[u8; 32]) {
    match source.byte() % 6 {
        0 => source.spoil(case),
        1 | 2 => {
            let negative = minus(order, case.signature[32..].try_into().expect("64 bytes"));
            case.signature[32..].copy_from_slice(&negative);
        }
        3 => {
            let mut edge = *order;
            edge[31] = edge[31].wrapping_add(source.byte() % 5).wrapping_sub(2);
            let edge = if source.byte().is_multiple_of(2) { edge } else { minus(&edge, order) };
            let half = usize::from(source.byte() % 2) * 32;
            case.signature[half..half + 32].copy_from_slice(&edge);
        }
        _ => {}
    }
}

fn secp256k1(source: &mut Source<'_>) -> Case {
    use k256::ecdsa::signature::Signer;
    let message = source.message();
    let secret = source.stretched("key");
    let secret = k256::ecdsa::SigningKey::from_slice(&secret[..32]).expect("a hash is below the order");
    let signature: k256::ecdsa::Signature = secret.sign(&message);
    let point = secret.verifying_key().to_encoded_point(false);
    let key = PublicKey::EcdsaSecp256k1(point.as_bytes().try_into().expect("65 bytes"));
    let mut case = Case { key, message, signature: signature.to_bytes().to_vec() };
    spoil_ecdsa(source, &mut case, &SECP256K1_ORDER);
    case
}

fn p256(source: &mut Source<'_>) -> Case {
    use p256::ecdsa::signature::Signer;
    let message = source.message();
    let secret = source.stretched("key");
    let secret = p256::ecdsa::SigningKey::from_slice(&secret[..32]).expect("a hash is below the order");
    let signature: p256::ecdsa::Signature = secret.sign(&message);
    let point = secret.verifying_key().to_encoded_point(false);
    let key = PublicKey::EcdsaP256(point.as_bytes().try_into().expect("65 bytes"));
    let mut case = Case { key, message, signature: signature.to_bytes().to_vec() };
    spoil_ecdsa(source, &mut case, &P256_ORDER);
    case
}

/// One signature or two: errors that cancel out come in pairs.
fn bls(source: &mut Source<'_>, cases: &mut Vec<Case>) {
    use group::Group;
    // Few keys and messages: shares of one message, and certificates by one key.
    let secret = |which: u8| BlsSecretKey::from_seed(&[which % 6; 32]);
    let message = vec![source.byte() % 4; 40];
    let key = secret(source.byte());
    let case =
        |signature: [u8; 48]| Case { key: key.public_key(), message: message.clone(), signature: signature.to_vec() };
    let point = |case: &Case| {
        let bytes = case.signature[..].try_into().expect("48 bytes");
        blstrs::G1Projective::from(blstrs::G1Affine::from_compressed(&bytes).expect("a signature"))
    };
    let mut valid = case(key.sign_in(Suite::Basic, &message));
    match source.byte() % 12 {
        0 => {
            source.spoil(&mut valid);
            cases.push(valid);
        }
        1 => {
            let error = blstrs::G1Projective::generator() * blstrs::Scalar::from(u64::from(source.byte()));
            let sum = blstrs::G1Affine::from(point(&valid) + error).to_compressed();
            let difference = blstrs::G1Affine::from(point(&valid) - error).to_compressed();
            cases.extend([case(sum), case(difference)]);
        }
        2 => cases.push(case(secret(source.byte()).sign_in(Suite::Basic, &message))),
        3 => cases.push(case(blstrs::G1Affine::from(-point(&valid)).to_compressed())),
        4 => {
            // The identity, as a signature or as both.
            let mut identity = [0; 96];
            identity[0] = 0xc0;
            valid.signature = identity[..48].to_vec();
            if source.byte().is_multiple_of(2) {
                valid.key = PublicKey::Bls12381(identity);
            }
            cases.push(valid);
        }
        5 => cases.push(case(key.sign_in(Suite::Multi, &message))),
        _ => cases.push(valid),
    }
}
