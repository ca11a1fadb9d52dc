//! The client API's bytes: URLs, request envelopes, request ids, certificates and answers. And those of the socket for operators.
//!
//! Enters: bytes of an HTTP request's path and body. Leaves: borrowed views of them, 32-byte hashes, bytes of an HTTP
//! response. Never here: a signature check, a clock, a panic on outside bytes.
//!
//! Spec: ic-interface-spec, `https-interface.md` and `requests.cddl` (0.66).
#![forbid(unsafe_code)]

mod cbor;
mod control;
mod envelope;
mod error;
mod hash;
pub mod limits;
mod response;
mod route;

pub use cbor::{Reader, Writer};
pub use control::{
    CONTROL_ANSWER_BYTES_MAX, CONTROL_REQUEST_BYTES_MAX, CONTROL_VERSION, ControlAnswer, ControlCommand, ControlError,
};
pub use envelope::{
    CallContent, Content, Delegation, Envelope, Permissions, ReadStateContent, RequestType, SenderInfo,
    SignedDelegation,
};
pub use error::DecodeError;
pub use hash::{HashBatch, Value, domain, hash_of_map, leb128};
pub use response::{
    CertificateDelegation, NodeSignature, QueryAnswer, Rejection, Status, encode_call_certificate, encode_certificate,
    encode_query_response, encode_read_state, encode_rejection_async, encode_rejection_sync, encode_status,
    query_signature_payload,
};
pub use route::{ApiVersion, Method, Route, RouteError, Target};

/// A SHA-256 digest.
pub type Digest = [u8; 32];
