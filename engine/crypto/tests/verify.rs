//! Verdicts on signatures that independent crates made, and on their ruins.

mod common;
#[path = "common/published.rs"]
mod published;

use common::signers;
use curve25519_dalek::edwards::CompressedEdwardsY;
use cyclotron_crypto::{Backend, BlsSecretKey, NodeKey, PublicKey, RootSigner, SignatureTask, Verdict};
use cyclotron_crypto::{merkle_level, sha224_batch, sha256_batch, sha512_batch};
use published::small_order_encodings;

/// The verdict of every backend.
fn verdict(key: &PublicKey, message: &[u8], signature: &[u8]) -> Verdict {
    let task = SignatureTask { key, message, signature };
    verdicts(&[task])[0]
}

/// The verdicts of every backend on a batch.
fn verdicts(tasks: &[SignatureTask<'_>]) -> Vec<Verdict> {
    let found = Backend::available().into_iter().map(|backend| {
        // What the buffer held before does not matter.
        let mut verdicts = vec![Verdict::Valid; 3];
        backend.verify(tasks, &mut verdicts);
        assert_eq!(verdicts.len(), tasks.len());
        (backend, verdicts)
    });
    let all: Vec<_> = found.collect();
    let (_, first) = &all[0];
    all.iter().for_each(|(backend, other)| assert_eq!(other, first, "{backend:?}"));
    first.clone()
}

#[test]
fn signatures_of_independent_signers_are_valid() {
    for signer in signers(7) {
        for length in [0, 1, 43, 59, 1_000] {
            let message = vec![length as u8; length];
            let signature = (signer.sign)(&message);
            assert_eq!(verdict(&signer.key(), &message, &signature), Verdict::Valid, "{} {length}", signer.name);
        }
    }
}

#[test]
fn every_flipped_bit_makes_a_signature_invalid() {
    for signer in signers(9) {
        let (key, message) = (signer.key(), b"message".to_vec());
        let signature = (signer.sign)(&message);
        // Pairings are slow: one bit of each byte there.
        let step = if signer.name == "bls12-381" { 9 } else { 1 };
        for bit in (0..signature.len() * 8).step_by(step) {
            let mut flipped = signature.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verdict(&key, &message, &flipped), Verdict::Invalid, "{} signature bit {bit}", signer.name);
        }
        for bit in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verdict(&key, &flipped, &signature), Verdict::Invalid, "{} message bit {bit}", signer.name);
        }
        for bit in (0..signer.der.len() * 8).step_by(step) {
            let mut flipped = signer.der.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(key) = PublicKey::from_der(&flipped) {
                assert_eq!(verdict(&key, &message, &signature), Verdict::Invalid, "{} key bit {bit}", signer.name);
            }
        }
    }
}

#[test]
fn signatures_of_other_lengths_are_invalid() {
    for signer in signers(11) {
        let signature = (signer.sign)(b"message");
        for length in [0, 1, signature.len() - 1] {
            assert_eq!(verdict(&signer.key(), b"message", &signature[..length]), Verdict::Invalid);
        }
        let longer = [&signature[..], &[0]].concat();
        assert_eq!(verdict(&signer.key(), b"message", &longer), Verdict::Invalid);
    }
}

#[test]
fn verdicts_keep_their_places_in_batches_of_every_size() {
    let signers = signers(13);
    let keys: Vec<_> = signers.iter().map(common::TestSigner::key).collect();
    for size in [0usize, 1, 7, 8, 9, 63, 64, 65] {
        let entries: Vec<_> = (0..size)
            .map(|index| {
                // Few BLS signatures: they cost a hundred times the others.
                let which = if index % 32 == 31 { 3 } else { index % 3 };
                let message = format!("message {index}").into_bytes();
                let mut signature = (signers[which].sign)(&message);
                let valid = index % 5 != 2;
                if !valid {
                    signature[33] ^= 1;
                }
                (which, message, signature, Verdict::from(valid))
            })
            .collect();
        let tasks: Vec<_> = entries
            .iter()
            .map(|(which, message, signature, _)| SignatureTask { key: &keys[*which], message, signature })
            .collect();
        let expected: Vec<_> = entries.iter().map(|(.., verdict)| *verdict).collect();
        assert_eq!(verdicts(&tasks), expected, "size {size}");
    }
}

/// A message and its signature.
type Entry = (Vec<u8>, Vec<u8>);

/// Signatures over distinct messages by a number of keys in turns.
fn ed25519_entries(count: usize, signers: usize) -> (Vec<PublicKey>, Vec<Entry>) {
    use ed25519_dalek::{Signer, SigningKey};
    let seed = |n: usize| {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        seed
    };
    let signers: Vec<_> = (0..signers).map(|n| SigningKey::from_bytes(&seed(n))).collect();
    let keys = signers.iter().map(|signer| PublicKey::Ed25519(signer.verifying_key().to_bytes())).collect();
    let entry = |n: usize| {
        let message = format!("message {n}").into_bytes();
        let signature = signers[n % signers.len()].sign(&message).to_bytes().to_vec();
        (message, signature)
    };
    (keys, (0..count).map(entry).collect())
}

#[test]
fn bad_signatures_are_found_wherever_they_are() {
    // Few keys, as many as signatures, and between; no bad one, one at each place, some, many, all.
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (count, signers) in
        [(2, 1), (2, 2), (7, 3), (8, 1), (9, 9), (63, 5), (64, 64), (65, 2), (300, 200), (1_000, 700)]
    {
        let (keys, entries) = ed25519_entries(count, signers);
        let mut cases: Vec<Vec<usize>> = vec![vec![], (0..count).collect()];
        cases.extend((0..count).step_by(count.div_ceil(9)).map(|place| vec![place]));
        for bad in [2, count / 8 + 1, count / 2] {
            let places: std::collections::BTreeSet<usize> = (0..bad).map(|_| random(count)).collect();
            cases.push(places.into_iter().collect());
        }
        for bad in cases {
            let mut entries = entries.clone();
            for place in &bad {
                // Of S, which stays canonical; of R; of the message; or another one's signature.
                match place % 4 {
                    0 => entries[*place].1[40] ^= 1,
                    1 => entries[*place].1[3] ^= 8,
                    2 => entries[*place].0.push(0),
                    _ => entries[*place].1 = entries[(place + 1) % count].1.clone(),
                }
            }
            let tasks: Vec<_> = entries
                .iter()
                .enumerate()
                .map(|(n, (message, signature))| SignatureTask { key: &keys[n % signers], message, signature })
                .collect();
            let found: Vec<bool> = verdicts(&tasks).into_iter().map(|verdict| verdict == Verdict::Invalid).collect();
            let expected: Vec<bool> = (0..count).map(|place| bad.contains(&place)).collect();
            assert_eq!(found, expected, "{count} by {signers}: {bad:?}");
        }
    }
}

#[test]
fn bad_ecdsa_signatures_are_found_wherever_they_are() {
    for name in ["p256", "secp256k1"] {
        let signers: Vec<_> =
            (20..27).flat_map(signers).filter(|signer| signer.name == name).map(|one| (one.key(), one)).collect();
        let entries: Vec<_> = (0..1_000)
            .map(|n| {
                let (key, signer) = &signers[n % signers.len()];
                let message = format!("message {n}").into_bytes();
                (*key, (signer.sign)(&message), message)
            })
            .collect();
        for size in common::SIZES {
            // None, all, one at some places, and a third.
            let places = (0..size).step_by(size.div_ceil(3)).chain([size - 1]);
            let mut cases: Vec<Vec<usize>> = places.map(|place| vec![place]).collect();
            cases.extend([vec![], (0..size).collect(), (0..size).filter(|n| n % 3 == 1).collect()]);
            for bad in cases.into_iter().take(if size < 1_000 { 9 } else { 2 }) {
                let mut entries = entries[..size].to_vec();
                for place in &bad {
                    let other = entries[(place + 7) % size].clone();
                    let (key, signature, message) = &mut entries[*place];
                    match place % 6 {
                        // s, r, the message; nothing but zeros; a key off the curve; another signature of the same key, or none.
                        0 => signature[40] ^= 1,
                        1 => signature[3] ^= 8,
                        2 => message.push(0),
                        3 => signature[32..].fill(0),
                        4 => match key {
                            PublicKey::EcdsaP256(key) | PublicKey::EcdsaSecp256k1(key) => key[64] ^= 1,
                            _ => unreachable!("keys of one curve"),
                        },
                        _ if size > 7 => *signature = other.1,
                        _ => signature.truncate(63),
                    }
                }
                let tasks: Vec<_> =
                    entries.iter().map(|(key, signature, message)| SignatureTask { key, message, signature }).collect();
                let found: Vec<bool> =
                    verdicts(&tasks).into_iter().map(|verdict| verdict == Verdict::Invalid).collect();
                let expected: Vec<bool> = (0..size).map(|place| bad.contains(&place)).collect();
                assert_eq!(found, expected, "{name}, {size}: {bad:?}");
            }
        }
    }
}

#[test]
fn two_errors_that_cancel_out_are_both_found() {
    use curve25519_dalek::scalar::Scalar;
    // One more in one S, one less in the other: without coefficients the sum would hold.
    let (keys, mut entries) = ed25519_entries(2, 1);
    for (entry, by) in entries.iter_mut().zip([Scalar::ONE, -Scalar::ONE]) {
        let s = Scalar::from_canonical_bytes(entry.1[32..].try_into().unwrap()).unwrap() + by;
        entry.1[32..].copy_from_slice(s.as_bytes());
    }
    let task = |n: usize| SignatureTask { key: &keys[0], message: &entries[n].0, signature: &entries[n].1 };
    assert_eq!(verdicts(&[task(0), task(1)]), [Verdict::Invalid; 2]);
}

#[test]
fn both_halves_of_s_are_valid_on_both_curves() {
    let message = b"message";
    for signer in signers(17).into_iter().filter(|signer| matches!(signer.name, "p256" | "secp256k1")) {
        let signature = (signer.sign)(message);
        let negated = match signer.name {
            "p256" => {
                let (r, s) = p256::ecdsa::Signature::from_slice(&signature).unwrap().split_scalars();
                p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-s).to_bytes()).unwrap().to_bytes().to_vec()
            }
            _ => {
                let (r, s) = k256::ecdsa::Signature::from_slice(&signature).unwrap().split_scalars();
                k256::ecdsa::Signature::from_scalars(r.to_bytes(), (-s).to_bytes()).unwrap().to_bytes().to_vec()
            }
        };
        assert_ne!(negated, signature);
        assert_eq!(verdict(&signer.key(), message, &negated), Verdict::Valid, "{}", signer.name);
    }
}

#[test]
fn ed25519_follows_zip_215_on_small_order_points() {
    let encodings = small_order_encodings();
    assert_eq!(encodings.len(), 14, "ZIP 215 lists 8 canonical and 6 other encodings");
    let pairs: Vec<_> = encodings
        .iter()
        .flat_map(|key| encodings.iter().map(|r| (PublicKey::Ed25519(*key), [&r[..], &[0; 32]].concat())))
        .collect();
    let tasks = pairs.iter().map(|(key, signature)| SignatureTask { key, message: b"Zcash", signature });
    assert_eq!(verdicts(&tasks.collect::<Vec<_>>()), [Verdict::Valid; 14 * 14]);
    for key in &encodings {
        for r in &encodings {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(r);
            assert_eq!(verdict(&PublicKey::Ed25519(*key), b"Zcash", &signature), Verdict::Valid);
            // The same with S = the group's order, which is zero too but not canonical.
            let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
            signature[32..].copy_from_slice(&order);
            assert_eq!(verdict(&PublicKey::Ed25519(*key), b"Zcash", &signature), Verdict::Invalid);
        }
    }
}

#[test]
fn points_off_the_curve_are_invalid_keys_and_signatures() {
    // y = 2 is on no point of edwards25519.
    let mut off = [0; 32];
    off[0] = 2;
    assert!(CompressedEdwardsY(off).decompress().is_none());
    assert_eq!(verdict(&PublicKey::Ed25519(off), b"m", &[0; 64]), Verdict::Invalid);
    let mut off = [1; 65];
    off[0] = 4;
    for key in [PublicKey::EcdsaP256(off), PublicKey::EcdsaSecp256k1(off)] {
        assert_eq!(verdict(&key, b"m", &[1; 64]), Verdict::Invalid);
        assert_eq!(verdict(&key, b"m", &[0; 64]), Verdict::Invalid);
    }
    assert_eq!(verdict(&PublicKey::Bls12381([1; 96]), b"m", &[0; 48]), Verdict::Invalid);
}

#[test]
fn the_identity_is_no_bls_key() {
    let (mut key, mut signature) = ([0; 96], [0; 48]);
    key[0] = 0xc0;
    signature[0] = 0xc0;
    assert_eq!(verdict(&PublicKey::Bls12381(key), b"anything", &signature), Verdict::Invalid);
    assert_eq!(verdict(&BlsSecretKey::from_seed(&[1; 32]).public_key(), b"anything", &signature), Verdict::Invalid);
}

#[test]
fn bls_verdicts_agree_with_the_ecosystems_verifier() {
    let key = BlsSecretKey::from_seed(&[3; 32]);
    let PublicKey::Bls12381(public) = key.public_key() else { unreachable!() };
    let signature = key.sign(b"\x0Dic-state-root and more");
    let oracle = |signature: &[u8], message: &[u8]| {
        ic_verify_bls_signature::verify_bls_signature(signature, message, &public).is_ok()
    };
    for (signature, message) in [
        (signature, &b"\x0Dic-state-root and more"[..]),
        (signature, b"\x0Dic-state-root and less"),
        (key.sign(b""), b""),
        ([0; 48], b""),
    ] {
        assert_eq!(verdict(&key.public_key(), message, &signature), Verdict::from(oracle(&signature, message)));
    }
    // A certificate's signature from the Internet Computer itself (dfinity/ic, `ic-verify-bls-signature`).
    let public = "a7623a93cdb56c4d23d99c14216afaab3dfd6d4f9eb3db23d038280b6d5cb2caaee2a19dd92c9df7001dede23bf036bc0f33982dfb41e8fa9b8e96b5dc3e83d55ca4dd146c7eb2e8b6859cb5a5db815db86810b8d12cee1588b5dbf34a4dc9a5";
    let signature = "b89e13a212c830586eaa9ad53946cd968718ebecc27eda849d9232673dcd4f440e8b5df39bf14a88048c15e16cbcaabe";
    let key = PublicKey::Bls12381(hex::decode(public).unwrap().try_into().unwrap());
    assert_eq!(verdict(&key, b"hello", &hex::decode(signature).unwrap()), Verdict::Valid);
    assert_eq!(verdict(&key, b"hallo", &hex::decode(signature).unwrap()), Verdict::Invalid);
}

#[test]
fn own_keys_survive_storing() {
    let bls = BlsSecretKey::from_seed(&[5; 32]);
    let again = BlsSecretKey::from_bytes(&bls.to_bytes()).unwrap();
    assert_eq!(again.public_key(), bls.public_key());
    assert_eq!(again.sign(b"m"), bls.sign(b"m"));
    assert!(BlsSecretKey::from_bytes(&[0; 32]).is_none());
    assert!(BlsSecretKey::from_bytes(&[0xff; 32]).is_none());
    let node = NodeKey::from_seed(&[6; 32]);
    assert_eq!(NodeKey::from_seed(&node.to_seed()).node_id(), node.node_id());
    assert_eq!(verdict(&node.public_key(), b"m", &node.sign(b"m")), Verdict::Valid);
    assert_eq!(format!("{bls:?}"), "BlsSecretKey(..)");
}

#[test]
fn hashes_keep_their_places() {
    use sha2::Digest;
    for size in [0usize, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 300] {
        // Every length around the ends of blocks, in an order in which neighbours differ much.
        let messages: Vec<_> = (0..size).map(|index| vec![index as u8; index * 37 % 300]).collect();
        let slices: Vec<_> = messages.iter().map(Vec::as_slice).collect();
        let (mut short, mut usual, mut long) = (vec![[0; 28]; size], vec![[0; 32]; size], vec![[0; 64]; size]);
        sha224_batch(&slices, &mut short);
        sha256_batch(&slices, &mut usual);
        sha512_batch(&slices, &mut long);
        for (at, message) in slices.iter().enumerate() {
            assert_eq!(sha2::Sha224::digest(message)[..], short[at][..], "{at} of {size}");
            assert_eq!(sha2::Sha256::digest(message)[..], usual[at][..], "{at} of {size}");
            assert_eq!(sha2::Sha512::digest(message)[..], long[at][..], "{at} of {size}");
        }
    }
    let mut digests = [[0; 32]];
    sha256_batch(&[b""], &mut digests);
    assert_eq!(hex::encode(digests[0]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[test]
fn messages_of_every_length_are_hashed_beside_one_another() {
    use sha2::Digest;
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(700).collect();
    let slices: Vec<&[u8]> = (0..=700).map(|length| &bytes[..length]).collect();
    let (mut usual, mut long) = (vec![[0; 32]; 701], vec![[0; 64]; 701]);
    sha256_batch(&slices, &mut usual);
    sha512_batch(&slices, &mut long);
    for (length, message) in slices.iter().enumerate() {
        assert_eq!(sha2::Sha256::digest(message)[..], usual[length][..], "{length}");
        assert_eq!(sha2::Sha512::digest(message)[..], long[length][..], "{length}");
    }
}

#[test]
fn a_level_of_a_merkle_tree_is_the_hashes_of_its_pairs() {
    use sha2::Digest;
    for prefix in [&b""[..], b"\x10ic-hashtree-fork"] {
        for parents in [0usize, 1, 7, 8, 9, 63, 64, 65] {
            let children: Vec<[u8; 32]> = (0..2 * parents).map(|at| [at as u8; 32]).collect();
            let mut found = vec![[0; 32]; parents];
            merkle_level(prefix, &children, &mut found);
            for (pair, parent) in children.chunks(2).zip(found) {
                assert_eq!(sha2::Sha256::digest([prefix, &pair[0], &pair[1]].concat())[..], parent[..]);
            }
        }
    }
}
