//! The authentication envelope of a request: decoding, request id, and encoding for clients and tests.
//!
//! Spec: ic-interface-spec #authentication, #http-call, #http-query, #http-read-state; `requests.cddl`.

use crate::Digest;
use crate::cbor::{Elements, Reader, Writer};
use crate::error::{DecodeError, cut};
use crate::hash::{HashBatch, Value, hash_of_map, hashes_of_maps};
use crate::limits::{
    DELEGATION_TARGETS_MAX, DELEGATIONS_MAX, NONCE_BYTES_MAX, PATH_LABELS_MAX, PATHS_MAX, PRINCIPAL_BYTES_MAX,
};
use ic_principal::Principal;

/// A request and what authenticates it. Borrows from the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// What is asked.
    pub content: Content<'a>,
    /// DER public key that the sender's principal is derived from.
    pub sender_pubkey: Option<&'a [u8]>,
    /// Signature over the request id.
    pub sender_sig: Option<&'a [u8]>,
    /// Chain from `sender_pubkey` to the key that made `sender_sig`.
    pub sender_delegation: Option<Vec<SignedDelegation<'a>>>,
}

/// What is asked: the signed part of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// An update call.
    Call(CallContent<'a>),
    /// A query call.
    Query(CallContent<'a>),
    /// Paths of the state tree.
    ReadState(ReadStateContent<'a>),
}

/// The three request types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestType {
    /// `call`
    Call,
    /// `query`
    Query,
    /// `read_state`
    ReadState,
}

impl RequestType {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Query => "query",
            Self::ReadState => "read_state",
        }
    }
}

/// Content of a call or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallContent<'a> {
    /// Bytes that make otherwise equal requests distinct.
    pub nonce: Option<&'a [u8]>,
    /// When the request stops being valid. Units: ns since 1970.
    pub ingress_expiry: u64,
    /// Who asks.
    pub sender: Principal,
    /// The callee.
    pub canister_id: Principal,
    /// The callee's method.
    pub method_name: &'a str,
    /// The argument.
    pub arg: &'a [u8],
    /// What a canister certified about the sender.
    pub sender_info: Option<SenderInfo<'a>>,
}

/// Content of a read_state request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadStateContent<'a> {
    /// Bytes that make otherwise equal requests distinct.
    pub nonce: Option<&'a [u8]>,
    /// When the request stops being valid. Units: ns since 1970.
    pub ingress_expiry: u64,
    /// Who asks.
    pub sender: Principal,
    /// The paths asked for, each a list of labels.
    pub paths: Vec<Vec<&'a [u8]>>,
}

/// What a canister certified about the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderInfo<'a> {
    /// The information.
    pub info: &'a [u8],
    /// The certifying canister.
    pub signer: Principal,
    /// A canister signature over `info`.
    pub sig: &'a [u8],
}

/// A delegation and the signature of the key before it in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDelegation<'a> {
    /// What is delegated to whom.
    pub delegation: Delegation<'a>,
    /// Signature over the delegation's hash.
    pub signature: &'a [u8],
}

/// What is delegated to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation<'a> {
    /// DER public key of the delegate.
    pub pubkey: &'a [u8],
    /// When the delegation stops being valid. Units: ns since 1970.
    pub expiration: u64,
    /// The only canisters it is for, if it says so.
    pub targets: Option<Vec<Principal>>,
    /// The kinds of requests it is for, if it says so.
    pub permissions: Option<Permissions>,
}

/// The kinds of requests a delegation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// Query calls and read_state only.
    Queries,
    /// All kinds.
    All,
}

impl Permissions {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::All => "all",
        }
    }
}

impl<'a> Envelope<'a> {
    /// Decodes a request body, with or without the self-describing tag.
    ///
    /// Cost: one pass; strings are borrowed, nesting is at most the format's. Errors: [`DecodeError`], never a panic.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        reader.self_describe_tag()?;
        let envelope = read_envelope(&mut reader)?;
        reader.end()?;
        Ok(envelope)
    }

    /// Encodes the request as clients do, with the self-describing tag.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::tagged();
        let Self { content, sender_pubkey, sender_sig, sender_delegation } = self;
        let present = [sender_pubkey.is_some(), sender_sig.is_some(), sender_delegation.is_some()];
        writer.map(1 + present.iter().filter(|present| **present).count()).text("content");
        write_value(&mut writer, &Value::Map(content.fields()));
        if let Some(pubkey) = sender_pubkey {
            writer.text("sender_pubkey").bytes(pubkey);
        }
        if let Some(signature) = sender_sig {
            writer.text("sender_sig").bytes(signature);
        }
        if let Some(chain) = sender_delegation {
            writer.text("sender_delegation").array(chain.len());
            for SignedDelegation { delegation, signature } in chain {
                writer.map(2).text("delegation");
                write_value(&mut writer, &Value::Map(delegation.fields()));
                writer.text("signature").bytes(signature);
            }
        }
        writer.finish()
    }
}

impl<'a> Content<'a> {
    /// Which of the three requests this is.
    pub const fn request_type(&self) -> RequestType {
        match self {
            Self::Call(_) => RequestType::Call,
            Self::Query(_) => RequestType::Query,
            Self::ReadState(_) => RequestType::ReadState,
        }
    }

    /// Who asks.
    pub const fn sender(&self) -> Principal {
        match self {
            Self::Call(call) | Self::Query(call) => call.sender,
            Self::ReadState(read) => read.sender,
        }
    }

    /// When the request stops being valid. Units: ns since 1970.
    pub const fn ingress_expiry(&self) -> u64 {
        match self {
            Self::Call(call) | Self::Query(call) => call.ingress_expiry,
            Self::ReadState(read) => read.ingress_expiry,
        }
    }

    /// The request id. Cost: SHA-256 over the content. Spec: ic-interface-spec #request-id.
    pub fn request_id(&self) -> Digest {
        hash_of_map(&self.fields())
    }

    /// The request ids of many contents, which `sha256` hashes together.
    pub fn request_ids<'c>(contents: impl Iterator<Item = &'c Content<'a>>, sha256: HashBatch<'_>) -> Vec<Digest>
    where
        'a: 'c,
    {
        let maps: Vec<_> = contents.map(Content::fields).collect();
        hashes_of_maps(&maps, sha256)
    }

    fn fields(&self) -> Vec<(&'static str, Value<'_>)> {
        let mut fields = vec![("request_type", Value::Word(self.request_type().as_str()))];
        match self {
            Self::Call(call) | Self::Query(call) => {
                let CallContent { nonce, ingress_expiry, sender, canister_id, method_name, arg, sender_info } = call;
                fields.extend([
                    ("ingress_expiry", Value::Nat(*ingress_expiry)),
                    ("sender", Value::Bytes(sender.as_slice())),
                    ("canister_id", Value::Bytes(canister_id.as_slice())),
                    ("method_name", Value::Text(method_name)),
                    ("arg", Value::Bytes(arg)),
                ]);
                fields.extend(nonce.map(|nonce| ("nonce", Value::Bytes(nonce))));
                if let Some(SenderInfo { info, signer, sig }) = sender_info {
                    let info = vec![
                        ("info", Value::Bytes(info)),
                        ("signer", Value::Bytes(signer.as_slice())),
                        ("sig", Value::Bytes(sig)),
                    ];
                    fields.push(("sender_info", Value::Map(info)));
                }
            }
            Self::ReadState(ReadStateContent { nonce, ingress_expiry, sender, paths }) => {
                let labels = |path: &Vec<&'a [u8]>| Value::Array(path.iter().map(|l| Value::Bytes(l)).collect());
                fields.extend([
                    ("ingress_expiry", Value::Nat(*ingress_expiry)),
                    ("sender", Value::Bytes(sender.as_slice())),
                    ("paths", Value::Array(paths.iter().map(labels).collect())),
                ]);
                fields.extend(nonce.map(|nonce| ("nonce", Value::Bytes(nonce))));
            }
        }
        fields
    }
}

impl Delegation<'_> {
    /// The hash that the delegating key signs. Spec: ic-interface-spec #authentication.
    pub fn hash(&self) -> Digest {
        hash_of_map(&self.fields())
    }

    fn fields(&self) -> Vec<(&'static str, Value<'_>)> {
        let Self { pubkey, expiration, targets, permissions } = self;
        let mut fields = vec![("pubkey", Value::Bytes(pubkey)), ("expiration", Value::Nat(*expiration))];
        if let Some(targets) = targets {
            let targets = targets.iter().map(|target| Value::Bytes(target.as_slice())).collect();
            fields.push(("targets", Value::Array(targets)));
        }
        fields.extend(permissions.map(|permissions| ("permissions", Value::Text(permissions.as_str()))));
        fields
    }
}

fn write_value(writer: &mut Writer, value: &Value<'_>) {
    match value {
        Value::Bytes(bytes) => drop(writer.bytes(bytes)),
        Value::Text(text) | Value::Word(text) => drop(writer.text(text)),
        Value::Nat(value) => drop(writer.unsigned(*value)),
        Value::Array(elements) => {
            writer.array(elements.len());
            elements.iter().for_each(|element| write_value(writer, element));
        }
        Value::Map(fields) => {
            writer.map(fields.len());
            for (name, value) in fields {
                writer.text(name);
                write_value(writer, value);
            }
        }
    }
}

/// A map's name and the fields seen so far: what turns a second occurrence or an absence into an error.
struct MapReader {
    name: &'static str,
    pairs: Elements,
}

impl MapReader {
    fn open(reader: &mut Reader<'_>, name: &'static str) -> Result<Self, DecodeError> {
        Ok(Self { name, pairs: reader.map(name)? })
    }
    fn next_key<'a>(&mut self, reader: &mut Reader<'a>) -> Result<Option<&'a str>, DecodeError> {
        if reader.next(&mut self.pairs)? { reader.text("field name").map(Some) } else { Ok(None) }
    }
    fn vacant<T>(&self, slot: &Option<T>, field: &'static str) -> Result<(), DecodeError> {
        match slot {
            Some(_) => Err(DecodeError::DuplicateField { map: self.name, field }),
            None => Ok(()),
        }
    }
    fn set<T>(
        &self,
        slot: &mut Option<T>,
        field: &'static str,
        value: Result<T, DecodeError>,
    ) -> Result<(), DecodeError> {
        self.vacant(slot, field)?;
        *slot = Some(value?);
        Ok(())
    }
    fn unknown(&self, name: &str) -> DecodeError {
        DecodeError::UnknownField { map: self.name, name: cut(name) }
    }
    fn required<T>(&self, slot: Option<T>, field: &'static str) -> Result<T, DecodeError> {
        slot.ok_or(DecodeError::MissingField { map: self.name, field })
    }
}

/// Reads null as an absent optional value, as the replica does.
fn optional<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if reader.null() { Ok(None) } else { read(reader).map(Some) }
}

fn bounded(length: usize, field: &'static str, max: usize) -> Result<(), DecodeError> {
    if length > max { Err(DecodeError::TooLong { field, length: length as u64, max }) } else { Ok(()) }
}

/// Reads an array of at most `max` elements; refuses a longer one before reading what is too much.
fn read_array<'a, T>(
    reader: &mut Reader<'a>,
    field: &'static str,
    max: usize,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut elements = reader.array(field)?;
    if let Some(length) = elements.declared().filter(|length| *length > max as u64) {
        return Err(DecodeError::TooLong { field, length, max });
    }
    let mut out = Vec::new();
    while reader.next(&mut elements)? {
        bounded(out.len() + 1, field, max)?;
        out.push(read(reader)?);
    }
    Ok(out)
}

fn read_principal(reader: &mut Reader<'_>, field: &'static str) -> Result<Principal, DecodeError> {
    let bytes = reader.bytes(field)?;
    let too_long = DecodeError::TooLong { field, length: bytes.len() as u64, max: PRINCIPAL_BYTES_MAX };
    Principal::try_from_slice(bytes).map_err(|_| too_long)
}

fn read_nonce<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let nonce = reader.bytes("nonce")?;
    bounded(nonce.len(), "nonce", NONCE_BYTES_MAX)?;
    Ok(nonce)
}

fn read_envelope<'a>(reader: &mut Reader<'a>) -> Result<Envelope<'a>, DecodeError> {
    let mut map = MapReader::open(reader, "envelope")?;
    let (mut content, mut pubkey, mut signature, mut chain) = (None, None, None, None);
    while let Some(key) = map.next_key(reader)? {
        match key {
            "content" => map.set(&mut content, "content", read_content(reader))?,
            "sender_pubkey" => {
                map.set(&mut pubkey, "sender_pubkey", optional(reader, |r| r.bytes("sender_pubkey")))?;
            }
            "sender_sig" => map.set(&mut signature, "sender_sig", optional(reader, |r| r.bytes("sender_sig")))?,
            "sender_delegation" => {
                let read =
                    optional(reader, |r| read_array(r, "sender_delegation", DELEGATIONS_MAX, read_signed_delegation));
                map.set(&mut chain, "sender_delegation", read)?;
            }
            other => return Err(map.unknown(other)),
        }
    }
    Ok(Envelope {
        content: map.required(content, "content")?,
        sender_pubkey: pubkey.flatten(),
        sender_sig: signature.flatten(),
        sender_delegation: chain.flatten(),
    })
}

/// Fields of all three contents, before the request type says which of them may be there.
#[derive(Default)]
struct ContentFields<'a> {
    request_type: Option<&'a str>,
    nonce: Option<Option<&'a [u8]>>,
    ingress_expiry: Option<u64>,
    sender: Option<Principal>,
    canister_id: Option<Principal>,
    method_name: Option<&'a str>,
    arg: Option<&'a [u8]>,
    sender_info: Option<Option<SenderInfo<'a>>>,
    paths: Option<Vec<Vec<&'a [u8]>>>,
}

fn read_content<'a>(reader: &mut Reader<'a>) -> Result<Content<'a>, DecodeError> {
    let mut map = MapReader::open(reader, "content")?;
    let mut fields = ContentFields::default();
    while let Some(key) = map.next_key(reader)? {
        match key {
            "request_type" => map.set(&mut fields.request_type, "request_type", reader.text("request_type"))?,
            "nonce" => map.set(&mut fields.nonce, "nonce", optional(reader, read_nonce))?,
            "ingress_expiry" => {
                map.set(&mut fields.ingress_expiry, "ingress_expiry", reader.unsigned("ingress_expiry"))?;
            }
            "sender" => map.set(&mut fields.sender, "sender", read_principal(reader, "sender"))?,
            "canister_id" => map.set(&mut fields.canister_id, "canister_id", read_principal(reader, "canister_id"))?,
            "method_name" => map.set(&mut fields.method_name, "method_name", reader.text("method_name"))?,
            "arg" => map.set(&mut fields.arg, "arg", reader.bytes("arg"))?,
            "sender_info" => map.set(&mut fields.sender_info, "sender_info", optional(reader, read_sender_info))?,
            "paths" => {
                let read_path = |r: &mut Reader<'a>| read_array(r, "path", PATH_LABELS_MAX, |r| r.bytes("label"));
                map.set(&mut fields.paths, "paths", read_array(reader, "paths", PATHS_MAX, read_path))?;
            }
            other => return Err(map.unknown(other)),
        }
    }
    assemble_content(&map, fields)
}

fn assemble_content<'a>(map: &MapReader, fields: ContentFields<'a>) -> Result<Content<'a>, DecodeError> {
    let request_type = match map.required(fields.request_type, "request_type")? {
        "call" => RequestType::Call,
        "query" => RequestType::Query,
        "read_state" => RequestType::ReadState,
        found => return Err(DecodeError::UnknownRequestType { found: cut(found) }),
    };
    let nonce = fields.nonce.flatten();
    let ingress_expiry = map.required(fields.ingress_expiry, "ingress_expiry")?;
    let sender = map.required(fields.sender, "sender")?;
    if request_type == RequestType::ReadState {
        let foreign = [
            ("canister_id", fields.canister_id.is_some()),
            ("method_name", fields.method_name.is_some()),
            ("arg", fields.arg.is_some()),
            ("sender_info", fields.sender_info.is_some()),
        ];
        if let Some((name, _)) = foreign.iter().find(|(_, present)| *present) {
            return Err(map.unknown(name));
        }
        let paths = map.required(fields.paths, "paths")?;
        return Ok(Content::ReadState(ReadStateContent { nonce, ingress_expiry, sender, paths }));
    }
    if fields.paths.is_some() {
        return Err(map.unknown("paths"));
    }
    let call = CallContent {
        nonce,
        ingress_expiry,
        sender,
        canister_id: map.required(fields.canister_id, "canister_id")?,
        method_name: map.required(fields.method_name, "method_name")?,
        arg: map.required(fields.arg, "arg")?,
        sender_info: fields.sender_info.flatten(),
    };
    Ok(if request_type == RequestType::Call { Content::Call(call) } else { Content::Query(call) })
}

fn read_sender_info<'a>(reader: &mut Reader<'a>) -> Result<SenderInfo<'a>, DecodeError> {
    let mut map = MapReader::open(reader, "sender_info")?;
    let (mut info, mut signer, mut sig) = (None, None, None);
    while let Some(key) = map.next_key(reader)? {
        match key {
            "info" => map.set(&mut info, "info", reader.bytes("info"))?,
            "signer" => map.set(&mut signer, "signer", read_principal(reader, "signer"))?,
            "sig" => map.set(&mut sig, "sig", reader.bytes("sig"))?,
            other => return Err(map.unknown(other)),
        }
    }
    Ok(SenderInfo {
        info: map.required(info, "info")?,
        signer: map.required(signer, "signer")?,
        sig: map.required(sig, "sig")?,
    })
}

fn read_signed_delegation<'a>(reader: &mut Reader<'a>) -> Result<SignedDelegation<'a>, DecodeError> {
    let mut map = MapReader::open(reader, "signed delegation")?;
    let (mut delegation, mut signature) = (None, None);
    while let Some(key) = map.next_key(reader)? {
        match key {
            "delegation" => map.set(&mut delegation, "delegation", read_delegation(reader))?,
            "signature" => map.set(&mut signature, "signature", reader.bytes("signature"))?,
            other => return Err(map.unknown(other)),
        }
    }
    Ok(SignedDelegation {
        delegation: map.required(delegation, "delegation")?,
        signature: map.required(signature, "signature")?,
    })
}

fn read_delegation<'a>(reader: &mut Reader<'a>) -> Result<Delegation<'a>, DecodeError> {
    let mut map = MapReader::open(reader, "delegation")?;
    let (mut pubkey, mut expiration, mut targets, mut permissions) = (None, None, None, None);
    while let Some(key) = map.next_key(reader)? {
        match key {
            "pubkey" => map.set(&mut pubkey, "pubkey", reader.bytes("pubkey"))?,
            "expiration" => map.set(&mut expiration, "expiration", reader.unsigned("expiration"))?,
            "targets" => {
                let read = optional(reader, |r| {
                    read_array(r, "targets", DELEGATION_TARGETS_MAX, |r| read_principal(r, "target"))
                });
                map.set(&mut targets, "targets", read)?;
            }
            "permissions" => map.set(&mut permissions, "permissions", optional(reader, read_permissions))?,
            other => return Err(map.unknown(other)),
        }
    }
    Ok(Delegation {
        pubkey: map.required(pubkey, "pubkey")?,
        expiration: map.required(expiration, "expiration")?,
        targets: targets.flatten(),
        permissions: permissions.flatten(),
    })
}

fn read_permissions(reader: &mut Reader<'_>) -> Result<Permissions, DecodeError> {
    match reader.text("permissions")? {
        "queries" => Ok(Permissions::Queries),
        "all" => Ok(Permissions::All),
        found => Err(DecodeError::UnknownPermissions { found: cut(found) }),
    }
}
