//! The batch: decode and check each request, verify all signatures in one call, keep what passed.

use crate::authentication::{Signatures, Targets, check_chain, check_verdicts};
use crate::destination::check_destination;
use crate::error::AdmissionError;
use crate::paths::{Condition, check_paths};
use cyclotron_crypto::{Part, sha256_batch};
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::limits::{INGRESS_BYTES_MAX, INGRESS_EXPIRY_DRIFT, INGRESS_EXPIRY_MAX};
use cyclotron_types::message::Ingress;
use cyclotron_types::units::{Bytes, Time};
use cyclotron_wire::{ApiVersion, CallContent, Content, Digest, Envelope, RequestType, Route, RouteError, Target};
use std::ops::Range;

/// What admission knows about the node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's subnet.
    pub subnet_id: Principal,
    /// The subnet whose key is the root key; equal to `subnet_id` on a network of one subnet.
    pub root_subnet_id: Principal,
    /// Bytes of one call's envelope.
    pub ingress_bytes_max: Bytes,
}

impl Config {
    /// The subnet of a network that has no other.
    pub const fn single_subnet(subnet_id: Principal) -> Self {
        Self { subnet_id, root_subnet_id: subnet_id, ingress_bytes_max: INGRESS_BYTES_MAX }
    }
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct RequestBytes<'a> {
    /// Its endpoint.
    pub route: Route,
    /// Its body.
    pub body: &'a [u8],
}

/// A request whose sender is proven and whose shape is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// An update call, for `inspect_message` and then a block.
    Call(AdmittedCall),
    /// A query.
    Query(AdmittedQuery),
    /// Paths to read.
    ReadState(AdmittedReadState),
}

/// An update call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedCall {
    /// The endpoint's version: V2 is answered at once, V3 and V4 with the certificate.
    pub version: ApiVersion,
    /// The URL's target.
    pub target: Target,
    /// The message.
    pub ingress: Ingress,
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedQuery {
    /// The request, which the node's signature on the answer names.
    pub id: MessageId,
    /// The URL's target.
    pub target: Target,
    /// Who asks.
    pub sender: Principal,
    /// The callee.
    pub receiver: CanisterId,
    /// The canister that the query is about; differs from `receiver` for the management canister's methods.
    pub effective_canister: Option<CanisterId>,
    /// The callee's method.
    pub method: String,
    /// The argument.
    pub arg: Vec<u8>,
}

/// Paths to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedReadState {
    /// The endpoint's version: below V3 the answer reveals `/subnet/ID/canister_ranges` of every subnet, from V3 on of the
    /// root subnet only.
    pub version: ApiVersion,
    /// The URL's target.
    pub target: Target,
    /// Who asks.
    pub sender: Principal,
    /// The paths, each a list of labels.
    pub paths: Vec<Vec<Vec<u8>>>,
    /// What must hold in the state.
    pub conditions: Vec<Condition>,
}

/// A request that passed everything but its signatures.
struct Checked<'a> {
    content: Content<'a>,
    id: MessageId,
    version: ApiVersion,
    target: Target,
    effective_canister: Option<CanisterId>,
    conditions: Vec<Condition>,
    signatures: Range<usize>,
}

/// Admits each request or says why not, into the same place in `out`, whose former content is dropped; returns what their signatures took.
///
/// Units: `now` on the node's clock. Cost: one call of the verifier for the whole batch; a copy of what is admitted.
pub fn admit_batch(
    requests: &[RequestBytes<'_>],
    now: Time,
    config: &Config,
    out: &mut Vec<Result<Admitted, AdmissionError>>,
) -> Vec<Part> {
    let read: Vec<_> = requests.iter().map(|request| read_request(*request, now, config)).collect();
    let contents = read.iter().flatten().map(|read| &read.envelope.content);
    let mut ids = Content::request_ids(contents, &sha256_batch).into_iter();
    let mut signatures = Signatures::default();
    let checked: Vec<_> = read
        .into_iter()
        .map(|read| {
            let (read, before) = (read?, signatures.len());
            let id = ids.next().expect("an id for each that was read");
            check_request(read, id, now, config, &mut signatures).inspect_err(|_| signatures.truncate(before))
        })
        .collect();
    let (verdicts, parts) = signatures.verify();
    out.clear();
    out.extend(checked.into_iter().map(|checked| {
        let checked = checked?;
        check_verdicts(&verdicts[checked.signatures.clone()])?;
        Ok(admitted(checked))
    }));
    assert_eq!(out.len(), requests.len(), "one answer a request");
    parts
}

/// Admits one request: a batch of one.
pub fn admit(request: RequestBytes<'_>, now: Time, config: &Config) -> Result<Admitted, AdmissionError> {
    let mut out = Vec::with_capacity(1);
    admit_batch(&[request], now, config, &mut out);
    out.pop().expect("one answer a request")
}

/// A request whose envelope is well formed and in time.
struct Read<'a> {
    envelope: Envelope<'a>,
    version: ApiVersion,
    target: Target,
}

fn read_request<'a>(request: RequestBytes<'a>, now: Time, config: &Config) -> Result<Read<'a>, AdmissionError> {
    let (expected, version, target) = match request.route {
        Route::Call(version, target) => (RequestType::Call, version, target),
        Route::Query(version, target) => (RequestType::Query, version, target),
        Route::ReadState(version, target) => (RequestType::ReadState, version, target),
        Route::Status => return Err(AdmissionError::Route(RouteError::NotFound)),
    };
    let found = Bytes(request.body.len() as u64);
    if expected == RequestType::Call && found > config.ingress_bytes_max {
        return Err(AdmissionError::IngressTooLarge { found, max: config.ingress_bytes_max });
    }
    let envelope = Envelope::decode(request.body).map_err(AdmissionError::Malformed)?;
    let found = envelope.content.request_type();
    if found != expected {
        return Err(AdmissionError::WrongRequestType { expected, found });
    }
    check_expiry(&envelope.content, now)?;
    Ok(Read { envelope, version, target })
}

fn check_request<'a>(
    read: Read<'a>,
    id: Digest,
    now: Time,
    config: &Config,
    signatures: &mut Signatures<'a>,
) -> Result<Checked<'a>, AdmissionError> {
    let Read { envelope, version, target } = read;
    let first = signatures.len();
    let targets = check_chain(&envelope, &id, now, signatures)?;
    let (effective_canister, conditions) =
        check_content(&envelope.content, MessageId(id), (version, target), &targets, config)?;
    let signatures = first..signatures.len();
    Ok(Checked {
        content: envelope.content,
        id: MessageId(id),
        version,
        target,
        effective_canister,
        conditions,
        signatures,
    })
}

/// Checks the expiry of a request, except that of anonymous reads, which may carry any.
///
/// Spec: ic-interface-spec #authentication, `ingress_expiry`; dfinity/ic `rs/validator` makes the same exception.
fn check_expiry(content: &Content<'_>, now: Time) -> Result<(), AdmissionError> {
    if content.sender() == Principal::anonymous() && !matches!(content, Content::Call(_)) {
        return Ok(());
    }
    let (min, max) = (now, now.plus(INGRESS_EXPIRY_MAX).plus(INGRESS_EXPIRY_DRIFT));
    let found = Time(content.ingress_expiry());
    if found < min || found > max {
        return Err(AdmissionError::ExpiryOutOfRange { min, max, found });
    }
    Ok(())
}

fn check_content(
    content: &Content<'_>,
    id: MessageId,
    (version, target): (ApiVersion, Target),
    targets: &Targets,
    config: &Config,
) -> Result<(Option<CanisterId>, Vec<Condition>), AdmissionError> {
    match content {
        Content::Call(call) | Content::Query(call) => {
            if call.sender_info.is_some() {
                return Err(AdmissionError::SenderInfoUnsupported);
            }
            Ok((check_destination(call, content.request_type(), id, target, config)?, Vec::new()))
        }
        Content::ReadState(read) => {
            Ok((None, check_paths(&read.paths, read.sender, (version, target), targets, config)?))
        }
    }
}

fn admitted(checked: Checked<'_>) -> Admitted {
    let Checked { content, id, version, target, effective_canister, conditions, .. } = checked;
    match content {
        Content::Call(CallContent { nonce, ingress_expiry, sender, canister_id, method_name, arg, .. }) => {
            let ingress = Ingress {
                id,
                sender,
                receiver: CanisterId::from_principal(canister_id),
                effective_canister,
                method: method_name.to_owned(),
                arg: arg.to_vec(),
                expiry: Time(ingress_expiry),
                nonce_bytes: u8::try_from(nonce.map_or(0, <[u8]>::len)).expect("a nonce was checked to be short"),
            };
            Admitted::Call(AdmittedCall { version, target, ingress })
        }
        Content::Query(CallContent { sender, canister_id, method_name, arg, .. }) => Admitted::Query(AdmittedQuery {
            id,
            target,
            sender,
            receiver: CanisterId::from_principal(canister_id),
            effective_canister,
            method: method_name.to_owned(),
            arg: arg.to_vec(),
        }),
        Content::ReadState(read) => {
            let owned = |path: Vec<&[u8]>| path.into_iter().map(<[u8]>::to_vec).collect();
            let paths = read.paths.into_iter().map(owned).collect();
            Admitted::ReadState(AdmittedReadState { version, target, sender: read.sender, paths, conditions })
        }
    }
}
