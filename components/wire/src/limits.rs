//! What one request may hold. Each number is the specification's unless it says otherwise.

/// Bytes of a request body. Spec: ic-interface-spec gives none; dfinity/ic `rs/config/src/http_handler.rs` takes 5 MiB.
pub const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Bytes of a nonce. Spec: ic-interface-spec #authentication.
pub const NONCE_BYTES_MAX: usize = 32;
/// Delegations in one chain. Spec: ic-interface-spec #authentication (its CDDL says 4; the text and the replica say 20).
pub const DELEGATIONS_MAX: usize = 20;
/// Canisters named by one delegation. Spec: ic-interface-spec #authentication.
pub const DELEGATION_TARGETS_MAX: usize = 1_000;
/// Paths in one read_state request. Spec: ic-interface-spec #http-read-state.
pub const PATHS_MAX: usize = 1_000;
/// Labels in one path. Spec: ic-interface-spec #http-read-state.
pub const PATH_LABELS_MAX: usize = 127;
/// Bytes of a principal. Spec: ic-interface-spec #principal.
pub const PRINCIPAL_BYTES_MAX: usize = 29;
/// Bytes of a request's URL path: the longest known route with a 29-byte principal in text takes 102.
pub const URL_PATH_BYTES_MAX: usize = 256;

// Every path at its longest, one byte a label, must fit a body; otherwise the path limits would be idle.
const _: () = assert!(PATHS_MAX * PATH_LABELS_MAX * 2 < BODY_BYTES_MAX);
