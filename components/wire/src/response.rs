//! Bodies of answers: status, certificates, rejections, query answers.
//!
//! Spec: ic-interface-spec #api-status, #http-call, #http-async-call, #http-query, #http-read-state; `certificates.cddl`.

use crate::cbor::Writer;
use crate::hash::{Value, domain, hash_of_map};
use crate::{Digest, limits::PRINCIPAL_BYTES_MAX};
use ic_principal::Principal;

/// Content of `/api/v2/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status<'a> {
    /// DER public key of the root, for clients of development instances.
    pub root_key: &'a [u8],
    /// Version of this software.
    pub impl_version: &'a str,
    /// `healthy`, or why the node does not serve yet.
    pub replica_health_status: &'a str,
    /// Height of the newest certified state.
    pub certified_height: Option<u64>,
}

/// Encodes the body of `/api/v2/status`.
pub fn encode_status(status: &Status<'_>) -> Vec<u8> {
    let Status { root_key, impl_version, replica_health_status, certified_height } = status;
    let mut writer = Writer::tagged();
    writer.map(3 + usize::from(certified_height.is_some()));
    writer.text("root_key").bytes(root_key);
    writer.text("impl_version").text(impl_version);
    writer.text("replica_health_status").text(replica_health_status);
    if let Some(height) = certified_height {
        writer.text("certified_height").unsigned(*height);
    }
    writer.finish()
}

/// The certificate by which the root subnet vouches for another subnet's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateDelegation<'a> {
    /// The subnet vouched for.
    pub subnet_id: Principal,
    /// Encoded certificate of the root subnet.
    pub certificate: &'a [u8],
}

/// Encodes a certificate; `tree` is the hash tree's CBOR, already encoded.
pub fn encode_certificate(tree: &[u8], signature: &[u8], delegation: Option<CertificateDelegation<'_>>) -> Vec<u8> {
    let mut writer = Writer::tagged();
    writer.map(2 + usize::from(delegation.is_some()));
    writer.text("tree").raw(tree).text("signature").bytes(signature);
    if let Some(CertificateDelegation { subnet_id, certificate }) = delegation {
        writer.text("delegation").map(2);
        writer.text("subnet_id").bytes(subnet_id.as_slice()).text("certificate").bytes(certificate);
    }
    writer.finish()
}

/// Encodes the body of a read_state answer around an encoded certificate.
pub fn encode_read_state(certificate: &[u8]) -> Vec<u8> {
    let mut writer = Writer::tagged();
    writer.map(1).text("certificate").bytes(certificate);
    writer.finish()
}

/// Encodes the body of a synchronous call's answer (v3, v4) around an encoded certificate. The status is "replied" whatever
/// the certificate says about the call.
pub fn encode_call_certificate(certificate: &[u8]) -> Vec<u8> {
    let mut writer = Writer::tagged();
    writer.map(2).text("status").text("replied").text("certificate").bytes(certificate);
    writer.finish()
}

/// Why a request was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection<'a> {
    /// 1 to 6. Spec: ic-interface-spec #reject-codes.
    pub reject_code: u8,
    /// Text for people.
    pub reject_message: &'a str,
    /// Such as `IC0301`. Spec: ic-interface-spec #error-codes.
    pub error_code: Option<&'a str>,
}

impl Rejection<'_> {
    fn fields(&self) -> usize {
        2 + usize::from(self.error_code.is_some())
    }
    fn write(&self, writer: &mut Writer) {
        writer.text("reject_code").unsigned(u64::from(self.reject_code));
        writer.text("reject_message").text(self.reject_message);
        if let Some(code) = self.error_code {
            writer.text("error_code").text(code);
        }
    }
}

/// Encodes the body of a v2 call that was rejected before it entered the subnet (HTTP 200).
pub fn encode_rejection_async(rejection: &Rejection<'_>) -> Vec<u8> {
    let mut writer = Writer::tagged();
    writer.map(rejection.fields());
    rejection.write(&mut writer);
    writer.finish()
}

/// Encodes the body of a v3 or v4 call that was rejected before it entered the subnet (HTTP 200).
pub fn encode_rejection_sync(rejection: &Rejection<'_>) -> Vec<u8> {
    let mut writer = Writer::tagged();
    writer.map(1 + rejection.fields()).text("status").text("non_replicated_rejection");
    rejection.write(&mut writer);
    writer.finish()
}

/// What a query came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryAnswer<'a> {
    /// The canister replied with these bytes.
    Replied(&'a [u8]),
    /// The query was rejected.
    Rejected(Rejection<'a>),
}

/// A node's signature on a query answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSignature {
    /// When the node signed. Units: ns since 1970.
    pub timestamp: u64,
    /// Signature over [`query_signature_payload`].
    pub signature: Vec<u8>,
    /// The node.
    pub identity: Principal,
}

/// The bytes a node signs for its answer to the query `request_id`.
///
/// Units: `timestamp` in ns since 1970. Spec: ic-interface-spec #http-query, `verify_node_signatures`.
pub fn query_signature_payload(answer: &QueryAnswer<'_>, timestamp: u64, request_id: &Digest) -> [u8; 44] {
    let mut fields = vec![("timestamp", Value::Nat(timestamp)), ("request_id", Value::Bytes(request_id))];
    match answer {
        QueryAnswer::Replied(arg) => {
            fields.extend([("status", Value::Word("replied")), ("reply", Value::Map(vec![("arg", Value::Bytes(arg))]))])
        }
        QueryAnswer::Rejected(Rejection { reject_code, reject_message, error_code }) => {
            fields.extend([
                ("status", Value::Word("rejected")),
                ("reject_code", Value::Nat(u64::from(*reject_code))),
                ("reject_message", Value::Text(reject_message)),
            ]);
            fields.extend(error_code.map(|code| ("error_code", Value::Text(code))));
        }
    }
    let mut payload = [0u8; 44];
    let (separator, hash) = payload.split_at_mut(domain::RESPONSE.len());
    separator.copy_from_slice(domain::RESPONSE);
    hash.copy_from_slice(&hash_of_map(&fields));
    payload
}

/// Encodes the body of a query's answer.
pub fn encode_query_response(answer: &QueryAnswer<'_>, signatures: &[NodeSignature]) -> Vec<u8> {
    let mut writer = Writer::tagged();
    match answer {
        QueryAnswer::Replied(arg) => {
            writer.map(3).text("status").text("replied");
            writer.text("reply").map(1).text("arg").bytes(arg);
        }
        QueryAnswer::Rejected(rejection) => {
            writer.map(2 + rejection.fields()).text("status").text("rejected");
            rejection.write(&mut writer);
        }
    }
    writer.text("signatures").array(signatures.len());
    for NodeSignature { timestamp, signature, identity } in signatures {
        writer.map(3).text("timestamp").unsigned(*timestamp).text("signature").bytes(signature);
        writer.text("identity").bytes(identity.as_slice());
    }
    writer.finish()
}

const _: () = assert!(PRINCIPAL_BYTES_MAX == Principal::MAX_LENGTH_IN_BYTES);
