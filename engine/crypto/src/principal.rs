//! Principals that name a key.

use ic_principal::Principal;

/// The principal of whoever holds the secret to this DER public key.
///
/// Cost: one SHA-224. Spec: ic-interface-spec #id-classes, "self-authenticating ids".
pub fn self_authenticating(public_key_der: &[u8]) -> Principal {
    Principal::self_authenticating(public_key_der)
}
