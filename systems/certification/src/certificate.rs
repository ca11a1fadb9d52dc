//! Signing the root, and certificates.

use crate::{StateHasher, StateTree};
use cyclotron_crypto::RootSigner;
use cyclotron_tree::{CborWitness, Digest, Lookup};
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_wire::{ApiVersion, CertificateDelegation, Target, domain, encode_certificate};
use std::fmt;

/// The signature over the tree as it is.
pub(crate) type Seal = [u8; 48];

/// Returns the message that certifies a root.
/// Spec: ic-interface-spec #certificate, `verify_cert`.
pub fn root_message(root: &Digest) -> [u8; 46] {
    let mut message = [0; 46];
    message[..14].copy_from_slice(domain::STATE_ROOT);
    message[14..].copy_from_slice(root);
    message
}

/// A signed root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Digest of the state tree.
    pub root: Digest,
    /// BLS signature over [`root_message`].
    pub signature: [u8; 48],
}

/// What links this subnet's key to the root subnet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The subnet that the root subnet vouches for.
    pub subnet: Principal,
    /// The root subnet's certificate, encoded.
    pub certificate: Vec<u8>,
}

/// How a read_state request came in, as far as it decides what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The canister or subnet that it is addressed to.
    pub target: Target,
    /// The API's version; by v2, `/subnet/<id>/canister_ranges` is still shown for every subnet.
    pub version: ApiVersion,
}

/// Why there is no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Nothing is certified yet, or the tree has changed since.
    NotCertified,
    /// The path would show what no user may read.
    NotReadable {
        /// Which of the paths.
        index: usize,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCertified => write!(f, "no certified state is available yet"),
            Self::NotReadable { index } => write!(f, "path {index} cannot be read"),
        }
    }
}

impl std::error::Error for ReadError {}

impl StateTree {
    /// Brings the root up to date without signing it.
    pub fn rehash(&mut self) -> Digest {
        self.tree.rehash(&StateHasher)
    }

    /// Brings the root up to date and signs it. Certificates can be taken until the next change.
    /// Cost: O(what changed), plus one signature.
    pub fn certify(&mut self, signer: &dyn RootSigner) -> Certified {
        let root = self.rehash();
        let signature = signer.sign(&root_message(&root));
        self.seal = Some(signature);
        Certified { root, signature }
    }

    /// Returns the certificate that answers a read_state request whose paths admission has let through. `/time` is always
    /// shown, and what the specification withholds from this reader is not.
    /// Spec: ic-interface-spec #http-read-state.
    pub fn read_state_certificate<P, L>(&self, reader: &Reader, paths: &[P]) -> Result<Vec<u8>, ReadError>
    where
        P: AsRef<[L]>,
        L: AsRef<[u8]>,
    {
        let mut shown: Vec<Vec<&[u8]>> = vec![vec![b"time"]];
        for (index, path) in paths.iter().enumerate() {
            let path: Vec<&[u8]> = path.as_ref().iter().map(AsRef::as_ref).collect();
            match path[..] {
                []
                | [b"canister"]
                | [b"canister", _]
                | [b"canister", _, b"metadata"]
                | [b"canister", _, b"certified_data", ..]
                | [b"request_status"] => return Err(ReadError::NotReadable { index }),
                [b"subnet", ..] => self.push_subnet_paths(reader, path, &mut shown),
                _ => shown.push(path),
            }
        }
        self.certificate(&shown)
    }

    /// Returns the certificate of a request's status, for the answer to a synchronous call.
    pub fn request_status_certificate(&self, request: MessageId) -> Result<Vec<u8>, ReadError> {
        self.certificate(&[&[&b"time"[..]][..], &[b"request_status", &request.0]])
    }

    /// Returns the certificate of a canister's certified data, for `ic0.data_certificate` in its queries.
    pub fn data_certificate(&self, canister: CanisterId) -> Result<Vec<u8>, ReadError> {
        self.certificate(&[&[&b"time"[..]][..], &[b"canister", canister.as_slice(), b"certified_data"]])
    }

    fn certificate<P, L>(&self, paths: &[P]) -> Result<Vec<u8>, ReadError>
    where
        P: AsRef<[L]>,
        L: AsRef<[u8]>,
    {
        let signature = self.seal.ok_or(ReadError::NotCertified)?;
        let mut witness = CborWitness::default();
        self.tree.witness(&StateHasher, paths, &mut witness);
        let delegation = self.delegation.as_ref().map(|delegation| CertificateDelegation {
            subnet_id: delegation.subnet,
            certificate: &delegation.certificate,
        });
        Ok(encode_certificate(&witness.0, &signature, delegation))
    }

    /// Replaces a path that begins with `subnet` by the parts of it that `reader` sees.
    fn push_subnet_paths<'t>(&'t self, reader: &Reader, path: Vec<&'t [u8]>, shown: &mut Vec<Vec<&'t [u8]>>) {
        match path[..] {
            [top] => {
                let mut subnets = Vec::new();
                self.tree.for_each_child(&[top], |subnet, _| subnets.push(subnet));
                subnets.into_iter().for_each(|subnet| self.push_subnet_paths(reader, vec![top, subnet], shown));
            }
            [top, subnet] if self.tree.lookup(&path) == Lookup::Subtree => {
                self.tree.for_each_child(&path, |label, _| {
                    if self.is_shown(reader, subnet, label) {
                        shown.push(vec![top, subnet, label]);
                    }
                });
            }
            [_, subnet, label, ..] if !self.is_shown(reader, subnet, label) => {}
            _ => shown.push(path),
        }
    }

    fn is_shown(&self, reader: &Reader, subnet: &[u8], label: &[u8]) -> bool {
        match label {
            b"canister_ranges" => reader.version == ApiVersion::V2 || subnet == self.root_subnet.as_slice(),
            b"metrics" | b"node" => match reader.target {
                Target::Subnet(target) => target.as_slice() == subnet,
                Target::Canister(canister) => Principal::try_from_slice(subnet)
                    .ok()
                    .and_then(|subnet| self.canister_ranges.get(&subnet))
                    .is_some_and(|ranges| ranges.iter().any(|(first, last)| *first <= canister && canister <= *last)),
            },
            _ => true,
        }
    }
}
