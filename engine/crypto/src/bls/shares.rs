//! Signatures put together: shares of a threshold signature by interpolation at zero, multi-signatures by addition.
//!
//! Never here: whether the parts are valid. Who puts them together has checked them.

use crate::bls::signature_point;
use blstrs::{G1Affine, G1Projective, Scalar};
use group::ff::Field;
use std::collections::BTreeSet;
use std::fmt;

/// Why signatures cannot be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CombineError {
    /// Fewer shares than the threshold.
    TooFew {
        /// The threshold.
        threshold: usize,
        /// Shares that there are.
        shares: usize,
    },
    /// A threshold of zero, or no signatures to add.
    Nothing,
    /// Two shares of one signer.
    Twice {
        /// The signer.
        index: u32,
    },
    /// A signature that is no point of the group.
    NoPoint {
        /// Its place among those given.
        at: usize,
    },
}

impl fmt::Display for CombineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew { threshold, shares } => write!(f, "{shares} shares of the {threshold} that are needed"),
            Self::Nothing => f.write_str("no signatures to put together"),
            Self::Twice { index } => write!(f, "two shares of signer {index}"),
            Self::NoPoint { at } => write!(f, "signature {at} is no point of the group"),
        }
    }
}

impl std::error::Error for CombineError {}

/// Where the polynomial of secrets has the share of this signer: one more than its index, as zero has the secret itself.
fn place(index: u32) -> Scalar {
    Scalar::from(u64::from(index) + 1)
}

/// Puts a threshold signature together from the first `threshold` of the shares `(index of the signer, signature)`: Σ λ·share, where
/// λ = Π x' / (x' - x) over the places x' of the other signers.
///
/// Cost: one multiplication of a point a share. Errors: too few shares, two of one signer, no points.
pub fn combine_shares(threshold: usize, shares: &[(u32, [u8; 48])]) -> Result<[u8; 48], CombineError> {
    if threshold == 0 {
        return Err(CombineError::Nothing);
    }
    let mut seen = BTreeSet::new();
    if let Some((index, _)) = shares.iter().find(|(index, _)| !seen.insert(*index)) {
        return Err(CombineError::Twice { index: *index });
    }
    let shares = shares.get(..threshold).ok_or(CombineError::TooFew { threshold, shares: shares.len() })?;
    let points = points(shares.iter().map(|(_, signature)| signature))?;
    let coefficients: Vec<Scalar> = shares.iter().map(|(index, _)| coefficient(*index, shares)).collect();
    Ok(G1Affine::from(G1Projective::multi_exp(&points, &coefficients)).to_compressed())
}

fn coefficient(index: u32, shares: &[(u32, [u8; 48])]) -> Scalar {
    let x = place(index);
    let (mut above, mut below) = (Scalar::ONE, Scalar::ONE);
    for other in shares.iter().map(|(other, _)| *other).filter(|other| *other != index) {
        above *= place(other);
        below *= place(other) - x;
    }
    above * Option::<Scalar>::from(below.invert()).expect("indices differ, and their places are below the order")
}

/// Adds signatures to a multi-signature. Errors: none at all, no points.
pub fn aggregate(signatures: &[[u8; 48]]) -> Result<[u8; 48], CombineError> {
    if signatures.is_empty() {
        return Err(CombineError::Nothing);
    }
    let sum: G1Projective = points(signatures.iter())?.into_iter().sum();
    Ok(G1Affine::from(sum).to_compressed())
}

fn points<'a>(signatures: impl Iterator<Item = &'a [u8; 48]>) -> Result<Vec<G1Projective>, CombineError> {
    let point = |(at, signature): (usize, &[u8; 48])| {
        signature_point(signature).map(G1Projective::from).ok_or(CombineError::NoPoint { at })
    };
    signatures.enumerate().map(point).collect()
}
