//! Why a request is not admitted, and which HTTP status says so.

use cyclotron_crypto::PublicKeyError;
use cyclotron_types::Principal;
use cyclotron_types::ids::MessageId;
use cyclotron_types::reject::Reject;
use cyclotron_types::units::{Bytes, Time};
use cyclotron_wire::{DecodeError, RequestType, RouteError};
use std::fmt;

/// Why a request is not admitted.
///
/// Spec: ic-interface-spec #http-interface: 4xx for what a client must change. The texts are for people; only the first words
/// of the expiry error are matched by agents, which then ask for the subnet's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// The URL names no endpoint that takes an envelope.
    Route(RouteError),
    /// The body is no envelope.
    Malformed(DecodeError),
    /// The body is an envelope of another request type than the endpoint takes.
    WrongRequestType {
        /// What the endpoint takes.
        expected: RequestType,
        /// What the body holds.
        found: RequestType,
    },
    /// The call is larger than a block takes.
    IngressTooLarge {
        /// Bytes of the body.
        found: Bytes,
        /// Bytes it may have.
        max: Bytes,
    },
    /// The expiry is past, or too far ahead.
    ExpiryOutOfRange {
        /// The node's time: the earliest expiry.
        min: Time,
        /// The latest expiry.
        max: Time,
        /// The request's.
        found: Time,
    },
    /// The sender is not anonymous and there is neither key nor signature.
    MissingSignature {
        /// Who is said to ask.
        sender: Principal,
    },
    /// Of key and signature one is there without the other, or a delegation without both.
    IncompleteAuthentication,
    /// The anonymous sender must not authenticate.
    AnonymousSignature,
    /// The key is not the sender's.
    SenderMismatch {
        /// Who is said to ask.
        sender: Principal,
        /// Whom the key names.
        key_owner: Principal,
    },
    /// A key that cannot be verified with.
    PublicKey {
        /// Place in the chain; 0 is the sender's own key.
        position: usize,
        /// Why not.
        reason: PublicKeyError,
    },
    /// A subnet's key, which no user has.
    SubnetKey {
        /// Place in the chain.
        position: usize,
    },
    /// A delegation is past its time.
    DelegationExpired {
        /// Place in the chain, from 1.
        position: usize,
        /// When it expired.
        expiration: Time,
        /// The node's time.
        now: Time,
    },
    /// A key comes twice in the chain.
    DelegationCycle {
        /// Place of its second occurrence.
        position: usize,
    },
    /// The chain allows queries and read_state only.
    DelegationPermitsQueriesOnly,
    /// The callee is not among a delegation's targets.
    DelegationTarget {
        /// The callee.
        callee: Principal,
    },
    /// A delegation's signature does not verify.
    DelegationSignature {
        /// Place in the chain, from 1.
        position: usize,
    },
    /// The request's signature does not verify.
    Signature,
    /// The request relies on a canister signature.
    SenderInfoUnsupported,
    /// The URL's effective canister id is not the request's.
    EffectiveCanister {
        /// The request's.
        expected: Principal,
        /// The URL's.
        found: Principal,
    },
    /// The URL's effective subnet id is not this subnet.
    EffectiveSubnet {
        /// This subnet.
        expected: Principal,
        /// The URL's.
        found: Principal,
    },
    /// The subnet endpoint does not take this callee or method.
    SubnetEndpoint {
        /// What it takes.
        takes: &'static str,
    },
    /// The system rejects the message whatever the URL; HTTP 200 with a reject as body.
    Rejected {
        /// The request.
        id: MessageId,
        /// The reject.
        reject: Reject,
    },
    /// A path that cannot be asked for.
    UnknownPath {
        /// Place in the list.
        position: usize,
    },
    /// A path that cannot be asked for at this endpoint, or not by this sender.
    ForbiddenPath {
        /// Why not.
        reason: &'static str,
    },
    /// A label that is not what its place demands.
    MalformedPath {
        /// What is wrong.
        reason: &'static str,
    },
    /// A private custom section asked for by another than a controller.
    PrivateMetadata {
        /// The section.
        name: String,
    },
}

impl AdmissionError {
    /// The HTTP status to answer.
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Route(error) => error.status(),
            Self::Rejected { .. } => 200,
            Self::Malformed(_)
            | Self::WrongRequestType { .. }
            | Self::ExpiryOutOfRange { .. }
            | Self::DelegationExpired { .. }
            | Self::IncompleteAuthentication
            | Self::EffectiveCanister { .. }
            | Self::EffectiveSubnet { .. }
            | Self::SubnetEndpoint { .. }
            | Self::MalformedPath { .. } => 400,
            Self::MissingSignature { .. }
            | Self::AnonymousSignature
            | Self::SenderMismatch { .. }
            | Self::PublicKey { .. }
            | Self::SubnetKey { .. }
            | Self::DelegationCycle { .. }
            | Self::DelegationPermitsQueriesOnly
            | Self::DelegationTarget { .. }
            | Self::DelegationSignature { .. }
            | Self::Signature
            | Self::SenderInfoUnsupported
            | Self::ForbiddenPath { .. }
            | Self::PrivateMetadata { .. } => 403,
            Self::UnknownPath { .. } => 404,
            Self::IngressTooLarge { .. } => 413,
        }
    }
}

impl fmt::Display for AdmissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(error) => error.fmt(f),
            Self::Malformed(error) => write!(f, "Malformed request: {error}"),
            Self::WrongRequestType { expected, found } => {
                write!(f, "This endpoint takes \"{}\", found \"{}\"", expected.as_str(), found.as_str())
            }
            Self::IngressTooLarge { found, max } => write!(f, "The call has {found} bytes, at most {max}"),
            Self::ExpiryOutOfRange { min, max, found } => write!(
                f,
                "Invalid request expiry: Specified ingress_expiry not within expected range: Minimum allowed expiry: {}, \
                 Maximum allowed expiry: {}, Provided expiry: {}",
                Utc(*min),
                Utc(*max),
                Utc(*found)
            ),
            Self::MissingSignature { sender } => write!(f, "Missing signature of {sender}"),
            Self::IncompleteAuthentication => {
                f.write_str("sender_pubkey and sender_sig must come together, and sender_delegation only with them")
            }
            Self::AnonymousSignature => f.write_str("The anonymous sender must not sign"),
            Self::SenderMismatch { sender, key_owner } => {
                write!(f, "The sender is {sender}, but sender_pubkey belongs to {key_owner}")
            }
            Self::PublicKey { position: 0, reason } => write!(f, "Invalid public key: sender_pubkey: {reason}"),
            Self::PublicKey { position, reason } => write!(f, "Invalid delegation {position}: pubkey: {reason}"),
            Self::SubnetKey { position } => {
                write!(f, "Invalid public key: key {position} of the chain is a BLS key, which only subnets have")
            }
            Self::DelegationExpired { position, expiration, now } => write!(
                f,
                "Invalid delegation expiry: delegation {position} expired at {}, it is {}",
                Utc(*expiration),
                Utc(*now)
            ),
            Self::DelegationCycle { position } => {
                write!(f, "Invalid delegation {position}: its key occurs earlier in the chain")
            }
            Self::DelegationPermitsQueriesOnly => {
                f.write_str("Invalid delegation: the chain permits queries and read_state only")
            }
            Self::DelegationTarget { callee } => {
                write!(f, "Invalid delegation: {callee} is not among the chain's targets")
            }
            Self::DelegationSignature { position } => {
                write!(f, "Invalid delegation {position}: its signature does not verify")
            }
            Self::Signature => f.write_str("Invalid signature: sender_sig does not verify"),
            Self::SenderInfoUnsupported => f.write_str("sender_info: not supported yet: canister signatures"),
            Self::EffectiveCanister { expected, found } => {
                write!(f, "The effective canister id in the URL is {found}, the request's is {expected}")
            }
            Self::EffectiveSubnet { expected, found } => {
                write!(f, "The effective subnet id in the URL is {found}, this node's subnet is {expected}")
            }
            Self::SubnetEndpoint { takes } => write!(f, "This subnet endpoint takes {takes} only"),
            Self::Rejected { reject, .. } => reject.fmt(f),
            Self::UnknownPath { position } => write!(f, "Path {position} cannot be requested"),
            Self::ForbiddenPath { reason } | Self::MalformedPath { reason } => f.write_str(reason),
            Self::PrivateMetadata { name } => {
                write!(f, "The custom section {name:?} is private: only controllers can read it")
            }
        }
    }
}

impl std::error::Error for AdmissionError {}

/// Prints a time as `2025-05-01 23:55:18.005285297 UTC`, the form in which agents look for it.
struct Utc(Time);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.0 / 1_000_000_000, self.0.0 % 1_000_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Civil calendar in eras of 400 years (146,097 days), each year beginning in March; day 0 is 0000-03-01.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{nanos:09} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_agents_expect_them() {
        let cases = [
            (0, "1970-01-01 00:00:00.000000000 UTC"),
            (951_782_399_999_999_999, "2000-02-28 23:59:59.999999999 UTC"),
            (951_782_400_000_000_000, "2000-02-29 00:00:00.000000000 UTC"),
            (1_709_251_199_000_000_001, "2024-02-29 23:59:59.000000001 UTC"),
            (1_746_143_718_005_285_297, "2025-05-01 23:55:18.005285297 UTC"),
            (u64::MAX, "2554-07-21 23:34:33.709551615 UTC"),
        ];
        for (nanos, text) in cases {
            assert_eq!(Utc(Time(nanos)).to_string(), text);
        }
    }
}
