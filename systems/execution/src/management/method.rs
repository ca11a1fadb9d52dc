//! The methods of the management canister, who may call each, and which canister an ingress message is about.
//!
//! Enters: a method's name and argument. Leaves: rules. Never here: what a method does.

use super::wire::{self, ic};
use crate::reject::no_such_canister;
use cyclotron_types::Principal;
use cyclotron_types::canister::{Controllers, Settings, Visibility};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::reject::{ErrorCode, Reject};

macro_rules! methods {
    ($($variant:ident $name:literal $entry:ident $guard:ident,)*) => {
        /// A method of the management canister.
        ///
        /// Spec: ic.did of interface spec 0.66, and what `ic-management-canister-types` 0.11 has beyond it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Method {
            $(#[doc = concat!("`", $name, "`.")] $variant,)*
        }

        impl Method {
            /// All methods.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The method of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
            /// How it may be called.
            pub const fn entry(self) -> Entry {
                match self { $(Self::$variant => Entry::$entry,)* }
            }
            /// Who may call it.
            pub const fn guard(self) -> Guard {
                match self { $(Self::$variant => Guard::$guard,)* }
            }
        }
    };
}

/// How a method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// By canisters and by ingress messages.
    Update,
    /// By both, and as a query.
    UpdateAndQuery,
    /// By canisters alone.
    CanistersOnly,
    /// As a query alone.
    QueryOnly,
}

/// Who may call a method about a canister.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Anyone who can call it at all.
    Anyone,
    /// Controllers of the canister named.
    Controllers,
    /// Its controllers and the canister itself.
    ControllersAndSelf,
    /// As `status_visibility` says, and the canister itself.
    StatusReaders,
    /// As `log_visibility` says.
    LogReaders,
    /// As `snapshot_visibility` says.
    SnapshotReaders,
    /// Subnet admins, of which there are none.
    Admins,
}

methods! {
    CreateCanister "create_canister" CanistersOnly Anyone,
    UpdateSettings "update_settings" Update Controllers,
    UploadChunk "upload_chunk" Update ControllersAndSelf,
    ClearChunkStore "clear_chunk_store" Update ControllersAndSelf,
    StoredChunks "stored_chunks" Update ControllersAndSelf,
    InstallCode "install_code" Update Controllers,
    InstallChunkedCode "install_chunked_code" Update Controllers,
    UninstallCode "uninstall_code" Update Controllers,
    StartCanister "start_canister" Update Controllers,
    StopCanister "stop_canister" Update Controllers,
    CanisterStatus "canister_status" UpdateAndQuery StatusReaders,
    CanisterMetrics "canister_metrics" UpdateAndQuery Controllers,
    DeleteCanister "delete_canister" Update Controllers,
    DepositCycles "deposit_cycles" CanistersOnly Anyone,
    RawRand "raw_rand" CanistersOnly Anyone,
    HttpRequest "http_request" CanistersOnly Anyone,
    FlexibleHttpRequest "flexible_http_request" CanistersOnly Anyone,
    CanisterInfo "canister_info" CanistersOnly Anyone,
    CanisterMetadata "canister_metadata" CanistersOnly Anyone,
    EcdsaPublicKey "ecdsa_public_key" CanistersOnly Anyone,
    SignWithEcdsa "sign_with_ecdsa" CanistersOnly Anyone,
    SchnorrPublicKey "schnorr_public_key" CanistersOnly Anyone,
    SignWithSchnorr "sign_with_schnorr" CanistersOnly Anyone,
    VetkdPublicKey "vetkd_public_key" CanistersOnly Anyone,
    VetkdDeriveKey "vetkd_derive_key" CanistersOnly Anyone,
    BitcoinGetBalance "bitcoin_get_balance" CanistersOnly Anyone,
    BitcoinGetUtxos "bitcoin_get_utxos" CanistersOnly Anyone,
    BitcoinSendTransaction "bitcoin_send_transaction" CanistersOnly Anyone,
    BitcoinGetCurrentFeePercentiles "bitcoin_get_current_fee_percentiles" CanistersOnly Anyone,
    BitcoinGetBlockHeaders "bitcoin_get_block_headers" CanistersOnly Anyone,
    NodeMetricsHistory "node_metrics_history" CanistersOnly Anyone,
    SubnetInfo "subnet_info" CanistersOnly Anyone,
    SubnetMetrics "subnet_metrics" CanistersOnly Anyone,
    ProvisionalCreateCanisterWithCycles "provisional_create_canister_with_cycles" Update Anyone,
    ProvisionalTopUpCanister "provisional_top_up_canister" Update Anyone,
    TakeCanisterSnapshot "take_canister_snapshot" Update Controllers,
    LoadCanisterSnapshot "load_canister_snapshot" Update Controllers,
    ReadCanisterSnapshotMetadata "read_canister_snapshot_metadata" Update SnapshotReaders,
    ReadCanisterSnapshotData "read_canister_snapshot_data" Update SnapshotReaders,
    UploadCanisterSnapshotMetadata "upload_canister_snapshot_metadata" Update Controllers,
    UploadCanisterSnapshotData "upload_canister_snapshot_data" Update Controllers,
    ListCanisterSnapshots "list_canister_snapshots" Update SnapshotReaders,
    DeleteCanisterSnapshot "delete_canister_snapshot" Update Controllers,
    FetchCanisterLogs "fetch_canister_logs" QueryOnly LogReaders,
    ListCanisters "list_canisters" QueryOnly Admins,
}

impl Method {
    /// Whether it can be called as a query.
    pub const fn is_query(self) -> bool {
        matches!(self.entry(), Entry::UpdateAndQuery | Entry::QueryOnly)
    }

    /// Whether it changes what a suspended message of the canister relies on, and so waits until that has finished.
    pub const fn disturbs_execution(self) -> bool {
        matches!(
            self,
            Self::InstallCode
                | Self::InstallChunkedCode
                | Self::UninstallCode
                | Self::UpdateSettings
                | Self::StartCanister
                | Self::StopCanister
                | Self::DeleteCanister
                | Self::UploadChunk
                | Self::ClearChunkStore
                | Self::TakeCanisterSnapshot
                | Self::LoadCanisterSnapshot
        )
    }
}

/// The answer to a call of a method that does not exist.
pub fn unknown_method(name: &str) -> Reject {
    // A name is at most 20,000 bytes long (limits), but an error need not repeat all of it.
    let shown: String = name.chars().take(100).collect();
    Reject::new(ErrorCode::CanisterMethodNotFound, format!("Management canister has no method '{shown}'"))
}

/// The method of this name.
///
/// Errors: `CanisterMethodNotFound`.
pub fn method(name: &str) -> Result<Method, Reject> {
    Method::from_name(name).ok_or_else(|| unknown_method(name))
}

/// Whether an ingress message may call the method at all, whoever sent it.
///
/// Errors: unknown methods, and those for canisters or queries alone.
/// Spec: abstract-behavior #api-request-submission.
pub fn ingress_allowed(name: &str) -> Result<Method, Reject> {
    let method = method(name)?;
    match method.entry() {
        Entry::Update | Entry::UpdateAndQuery => Ok(method),
        Entry::CanistersOnly => {
            Err(Reject::new(ErrorCode::CanisterRejectedMessage, format!("Only canisters can call ic00 method {name}")))
        }
        Entry::QueryOnly => Err(query_only(method)),
    }
}

/// The answer to a replicated call of a query method.
pub(super) fn query_only(method: Method) -> Reject {
    Reject::new(
        ErrorCode::CanisterRejectedMessage,
        format!("{} API is only accessible in non-replicated mode", method.name()),
    )
}

/// Which canister a management ingress message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveCanister {
    /// The canister named in the argument, which the URL must repeat; `None`: any canister of the subnet will do.
    pub named: Option<CanisterId>,
    /// The canister that pays for the message when it is taken; `None`: nobody does.
    pub payer: Option<CanisterId>,
}

/// Reads which canister an ingress message is about.
///
/// Cost: O(argument). Errors: as [`ingress_allowed`], and `InvalidManagementPayload`.
/// Spec: abstract-behavior #effective-canister-ids. Nobody pays for the provisional methods, and small changes of settings are paid for
/// afterwards ([`pays_later`]), as in dfinity/ic.
pub fn effective_canister(name: &str, arg: &[u8]) -> Result<EffectiveCanister, Reject> {
    let method = ingress_allowed(name)?;
    let named = named_canister(method, arg)?;
    let free = method == Method::ProvisionalTopUpCanister || pays_later(method, arg);
    Ok(EffectiveCanister { named, payer: if free { None } else { named } })
}

/// Bytes of an `update_settings` argument up to which the message is paid for after it has run.
/// Source: dfinity/ic `cycles_account_manager/src/lib.rs`, MAX_DELAYED_INGRESS_COST_PAYLOAD_SIZE.
const PAYS_LATER_BYTES_MAX: usize = 267;

/// Whether an ingress message is paid for after it has run: whoever has frozen a canister by its settings can undo that.
pub(super) fn pays_later(method: Method, arg: &[u8]) -> bool {
    method == Method::UpdateSettings && arg.len() <= PAYS_LATER_BYTES_MAX
}

/// The canister that the argument names; `None` for methods that are not about one.
pub(super) fn named_canister(method: Method, arg: &[u8]) -> Result<Option<CanisterId>, Reject> {
    let named = match method {
        Method::ProvisionalCreateCanisterWithCycles => {
            wire::decode::<ic::ProvisionalCreateCanisterWithCyclesArgs>(arg)?;
            return Ok(None);
        }
        Method::UpdateSettings => wire::decode::<ic::UpdateSettingsArgs>(arg)?.canister_id,
        Method::UploadChunk => wire::decode::<ic::UploadChunkArgs>(arg)?.canister_id,
        Method::InstallCode => wire::decode::<wire::InstallCodeArgs>(arg)?.canister_id,
        Method::InstallChunkedCode => wire::decode::<ic::InstallChunkedCodeArgs>(arg)?.target_canister,
        Method::UploadCanisterSnapshotData => wire::decode::<ic::UploadCanisterSnapshotDataArgs>(arg)?.canister_id,
        // Everything else is small and has the field at the top: its other fields are skipped.
        _ => wire::decode::<wire::CanisterIdArgs>(arg)?.canister_id,
    };
    Ok(Some(CanisterId::from_principal(named)))
}

/// `sender_canister_version` of an argument, if the method has one and it is given.
///
/// A canister's call that gives another version than its own is rejected before it is sent.
/// Spec: ic-interface-spec #ic-install_code and the other methods with the field.
pub fn sender_canister_version(name: &str, arg: &[u8]) -> Option<u64> {
    match Method::from_name(name)? {
        Method::CreateCanister => wire::decode::<ic::CreateCanisterArgs>(arg).ok()?.sender_canister_version,
        Method::UpdateSettings => wire::decode::<ic::UpdateSettingsArgs>(arg).ok()?.sender_canister_version,
        Method::InstallCode => wire::decode::<wire::InstallCodeArgs>(arg).ok()?.sender_canister_version,
        Method::InstallChunkedCode => wire::decode::<ic::InstallChunkedCodeArgs>(arg).ok()?.sender_canister_version,
        Method::UninstallCode => wire::decode::<ic::UninstallCodeArgs>(arg).ok()?.sender_canister_version,
        Method::ProvisionalCreateCanisterWithCycles => {
            wire::decode::<ic::ProvisionalCreateCanisterWithCyclesArgs>(arg).ok()?.sender_canister_version
        }
        _ => None,
    }
}

/// What the caller rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Guarded<'a> {
    /// The canister.
    pub id: CanisterId,
    /// Its controllers.
    pub controllers: &'a Controllers,
    /// Its settings.
    pub settings: &'a Settings,
}

impl Guarded<'_> {
    fn sees(&self, visibility: &Visibility, caller: &Principal) -> bool {
        self.controllers.0.contains(caller)
            || match visibility {
                Visibility::Controllers => false,
                Visibility::Public => true,
                Visibility::AllowedViewers(viewers) => viewers.contains(caller),
            }
    }

    /// Whether the caller may call the method about this canister.
    pub fn admits(&self, guard: Guard, caller: &Principal) -> bool {
        let is_self = *caller == self.id.principal();
        match guard {
            Guard::Anyone => true,
            Guard::Controllers => self.controllers.0.contains(caller),
            Guard::ControllersAndSelf => is_self || self.controllers.0.contains(caller),
            Guard::StatusReaders => is_self || self.sees(&self.settings.status_visibility, caller),
            Guard::LogReaders => self.sees(&self.settings.log_visibility, caller),
            Guard::SnapshotReaders => self.sees(&self.settings.snapshot_visibility, caller),
            Guard::Admins => false,
        }
    }
}

/// Whether an ingress message from `sender` about the canister may be admitted: the rule that keeps a canister from paying for
/// strangers. `canister` is `None` when there is none of the id named.
///
/// Errors: `CanisterNotFound`, `CanisterInvalidController`.
/// Spec: abstract-behavior #api-request-submission.
pub fn check_ingress_sender(
    method: Method,
    sender: &Principal,
    effective: EffectiveCanister,
    canister: Option<Guarded<'_>>,
) -> Result<(), Reject> {
    let Some(named) = effective.named else { return Ok(()) };
    let canister = canister.ok_or_else(|| no_such_canister(named))?;
    if canister.admits(method.guard(), sender) {
        return Ok(());
    }
    Err(Reject::new(
        ErrorCode::CanisterInvalidController,
        format!("Only controllers of canister {named} can call ic00 method {}", method.name()),
    ))
}
