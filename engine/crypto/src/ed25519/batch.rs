//! Many signatures at once: one random linear combination of their equations, times the cofactor, so that all points are in a group of prime order:
//! `[8](Σzs·B - Σzk·A - Σz·R) = 0`.
//!
//! Equations are put in the order of their keys: a key is decompressed once, and its terms become one.

use crate::combined::{Claims, check_each, draw_coefficients, settle};
use crate::ed25519::lanes::LaneEquations;
use crate::ed25519::{Equation, Kernel, Signed, minus_point};
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use std::ops::Range;

/// Checks every signature; writes to the same place in `valid`. Both are of one length. `kernel` sums up, or else curve25519-dalek.
pub(crate) fn verify_batch(kernel: Option<Kernel>, signed: &[Signed<'_>], valid: &mut [bool]) {
    assert_eq!(signed.len(), valid.len(), "one verdict a signature");
    valid.fill(false);
    match kernel {
        Some(kernel) => {
            let mut equations = LaneEquations::of(signed, kernel);
            let places: Vec<usize> = equations.terms.iter().map(|term| term.at).collect();
            let draw = |equations: &mut LaneEquations<'_>, coefficients: Vec<u128>| {
                equations.terms.iter_mut().zip(coefficients).for_each(|(term, z)| term.z = z);
            };
            find_verdicts(&mut equations, draw, &places, valid);
        }
        None => {
            let mut equations = Equations { terms: terms(signed) };
            let places: Vec<usize> = equations.terms.iter().map(|term| term.at as usize).collect();
            let draw = |equations: &mut Equations, coefficients: Vec<u128>| {
                equations.terms.iter_mut().zip(coefficients).for_each(|(term, z)| term.z = z.into());
            };
            find_verdicts(&mut equations, draw, &places, valid);
        }
    }
}

/// `places`: where the verdicts go.
fn find_verdicts<C: Claims>(claims: &mut C, draw: impl Fn(&mut C, Vec<u128>), places: &[usize], valid: &mut [bool]) {
    let mut holds = vec![false; places.len()];
    match draw_coefficients(holds.len()) {
        Some(coefficients) if holds.len() > 1 => {
            draw(claims, coefficients);
            settle(claims, &mut holds);
        }
        // Without a secret nothing can be summed up.
        _ => check_each(claims, &mut holds),
    }
    for (place, holds) in places.iter().zip(holds) {
        valid[*place] = holds;
    }
}

/// An equation and its coefficient.
struct Term {
    /// Where its verdict goes.
    at: u32,
    /// Equal for equal keys.
    key: u32,
    z: Scalar,
    equation: Equation,
}

/// The equations of those signatures that state one, in the order of their keys.
fn terms(signed: &[Signed<'_>]) -> Vec<Term> {
    let mut order: Vec<u32> = (0..signed.len()).map(|at| at as u32).collect();
    order.sort_unstable_by_key(|at| signed[*at as usize].key);
    let mut terms = Vec::with_capacity(signed.len());
    let mut last: Option<(&[u8; 32], Option<EdwardsPoint>)> = None;
    let mut key = 0;
    for at in order {
        let signed = &signed[at as usize];
        let minus_a = match last {
            Some((key, minus_a)) if key == signed.key => minus_a,
            _ => {
                key += 1;
                last.insert((signed.key, minus_point(signed.key))).1
            }
        };
        if let Some(equation) = minus_a.and_then(|minus_a| Equation::of(signed, minus_a)) {
            terms.push(Term { at, key, z: Scalar::ZERO, equation });
        }
    }
    terms
}

struct Equations {
    terms: Vec<Term>,
}

impl Claims for Equations {
    fn sum_holds(&mut self, range: Range<usize>) -> bool {
        let terms = &self.terms[range];
        let mut base = Scalar::ZERO;
        let (mut scalars, mut points) =
            (Vec::with_capacity(2 * terms.len() + 1), Vec::with_capacity(2 * terms.len() + 1));
        for of_key in terms.chunk_by(|a, b| a.key == b.key) {
            let mut sum = Scalar::ZERO;
            for Term { z, equation, .. } in of_key {
                base += z * equation.s;
                sum += z * equation.k;
                scalars.push(*z);
                points.push(equation.minus_r);
            }
            scalars.push(sum);
            points.push(of_key[0].equation.minus_a);
        }
        scalars.push(base);
        points.push(ED25519_BASEPOINT_POINT);
        EdwardsPoint::vartime_multiscalar_mul(&scalars, &points).mul_by_cofactor().is_identity()
    }

    fn holds(&mut self, at: usize) -> bool {
        self.terms[at].equation.holds()
    }
}
