//! Which endpoint a method and a URL path name.
//!
//! Spec: ic-interface-spec #http-interface.

use crate::limits::URL_PATH_BYTES_MAX;
use ic_principal::Principal;
use std::fmt;

/// Version in an endpoint's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiVersion {
    /// `/api/v2`
    V2,
    /// `/api/v3`
    V3,
    /// `/api/v4`
    V4,
}

/// The effective destination in an endpoint's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Effective canister id. Spec: ic-interface-spec #http-effective-canister-id.
    Canister(Principal),
    /// Effective subnet id. Spec: ic-interface-spec #http-effective-subnet-id.
    Subnet(Principal),
}

/// The HTTP methods that any endpoint knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// Every other.
    Other,
}

/// An endpoint of the client API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `GET /api/v2/status`
    Status,
    /// `POST /api/{v2,v3,v4}/canister/ID/call`, `POST /api/v4/subnet/ID/call`. V2 answers 202 at once; V3 and V4 wait for
    /// the certificate.
    Call(ApiVersion, Target),
    /// `POST /api/{v2,v3}/canister/ID/query`, `POST /api/v3/subnet/ID/query`
    Query(ApiVersion, Target),
    /// `POST /api/{v2,v3}/{canister,subnet}/ID/read_state`
    ReadState(ApiVersion, Target),
}

/// Why a method and a path name no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// No endpoint has this path: 404.
    NotFound,
    /// The endpoint has another method: 405 with this `Allow`.
    MethodNotAllowed {
        /// The method it has.
        allow: &'static str,
    },
    /// The path's id is not a principal in its textual form: 400.
    InvalidId {
        /// What is wrong with it.
        reason: String,
    },
}

impl RouteError {
    /// The HTTP status to answer.
    pub const fn status(&self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::InvalidId { .. } => 400,
        }
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such endpoint"),
            Self::MethodNotAllowed { allow } => write!(f, "this endpoint takes {allow} only"),
            Self::InvalidId { reason } => write!(f, "the id in the URL is not a principal: {reason}"),
        }
    }
}

impl std::error::Error for RouteError {}

impl Route {
    /// Finds the endpoint of a method and a path (without query string).
    pub fn parse(method: Method, path: &str) -> Result<Self, RouteError> {
        use ApiVersion::{V2, V3, V4};
        if path.len() > URL_PATH_BYTES_MAX {
            return Err(RouteError::NotFound);
        }
        let mut segments = path.strip_prefix("/api/").ok_or(RouteError::NotFound)?.split('/');
        let parts = [segments.next(), segments.next(), segments.next(), segments.next()];
        if segments.next().is_some() {
            return Err(RouteError::NotFound);
        }
        let (version, kind, id, action) = match parts {
            [Some("v2"), Some("status"), None, None] if method == Method::Get => return Ok(Self::Status),
            [Some("v2"), Some("status"), None, None] => return Err(RouteError::MethodNotAllowed { allow: "GET" }),
            [Some("v2"), Some(kind), Some(id), Some(action)] => (V2, kind, id, action),
            [Some("v3"), Some(kind), Some(id), Some(action)] => (V3, kind, id, action),
            [Some("v4"), Some(kind), Some(id), Some(action)] => (V4, kind, id, action),
            _ => return Err(RouteError::NotFound),
        };
        let endpoint: fn(ApiVersion, Target) -> Self = match (kind, action, version) {
            ("canister", "call", _) | ("subnet", "call", V4) => Self::Call,
            ("canister", "query", V2 | V3) | ("subnet", "query", V3) => Self::Query,
            ("canister" | "subnet", "read_state", V2 | V3) => Self::ReadState,
            _ => return Err(RouteError::NotFound),
        };
        if method != Method::Post {
            return Err(RouteError::MethodNotAllowed { allow: "POST" });
        }
        let id = Principal::from_text(id).map_err(|error| RouteError::InvalidId { reason: error.to_string() })?;
        Ok(endpoint(version, if kind == "canister" { Target::Canister(id) } else { Target::Subnet(id) }))
    }
}
