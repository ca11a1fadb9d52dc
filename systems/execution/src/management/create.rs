//! Creating canisters, and cycles that come from outside of the subnet.

use super::ManagementOrigin;
use super::call::{ManagementContext, Running};
use super::error::ManagementError;
use super::history;
use super::ids::IdError;
use super::method::{Method, named_canister, pays_later};
use super::settings::{self, SettingsUpdate, Standing};
use super::wire::{self, ic};
use crate::{CanisterBundle, charge};
use cyclotron_types::Principal;
use cyclotron_types::canister::{ChangeDetails, Controllers, CyclesBalance, PaidUntil, Settings};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::{Bytes, Cycles};

/// Cycles of a canister created provisionally when no amount is given: 100 T (dfinity/ic `rs/config`).
pub const PROVISIONAL_CYCLES_DEFAULT: Cycles = Cycles(100_000_000_000_000);

fn encode_id(id: CanisterId) -> Vec<u8> {
    wire::encode(&wire::CanisterIdArgs { canister_id: id.principal() })
}

/// `create_canister`: the payment, less the fee, becomes the balance.
pub(super) fn create_canister(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let args: ic::CreateCanisterArgs = wire::decode(&run.call.arg)?;
    let required = context.env.subnet.fees.canister_creation;
    let sent = run.call.payment;
    let balance = sent.checked_sub(required).ok_or(ManagementError::CreationUnpaid { sent, required })?;
    let update = SettingsUpdate::parse_optional(args.settings.as_ref())?;
    let id = create(context, run, &update, balance, None, args.sender_canister_version)?;
    run.call.payment = Cycles::ZERO;
    run.burn(required);
    Ok(encode_id(id))
}

/// `provisional_create_canister_with_cycles`: the balance comes out of nothing, the payment goes back.
pub(super) fn provisional_create(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let args: ic::ProvisionalCreateCanisterWithCyclesArgs = wire::decode(&run.call.arg)?;
    let balance = args.amount.as_ref().map_or(Ok(PROVISIONAL_CYCLES_DEFAULT), amount)?;
    let update = SettingsUpdate::parse_optional(args.settings.as_ref())?;
    let id = create(context, run, &update, balance, args.specified_id, args.sender_canister_version)?;
    run.mint(balance);
    Ok(encode_id(id))
}

fn amount(number: &candid::Nat) -> Result<Cycles, ManagementError> {
    wire::nat_to_u128(number).map(Cycles).ok_or_else(|| ManagementError::SettingOutOfRange {
        setting: "Amount of cycles",
        min: "0",
        max: "2^128-1",
        given: wire::describe_nat(number),
    })
}

/// Puts a new, empty canister into the subnet.
fn create(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
    update: &SettingsUpdate,
    balance: Cycles,
    specified: Option<Principal>,
    sender_version: Option<u64>,
) -> Result<CanisterId, ManagementError> {
    let config = &context.env.subnet;
    let defaults = Settings::default();
    let standing = Standing { settings: &defaults, memory: Bytes::ZERO, balance, reserved: Cycles::ZERO };
    let reservation = settings::check(update, &standing, context.canisters.subnet_use(), config)?;
    let id = match specified {
        None => context.ids.allocate(),
        Some(id) => context.ids.allocate_specified(id),
    }
    .map_err(|error| match (error, specified) {
        (IdError::NotHosted, Some(id)) => ManagementError::IdNotHosted { id, subnet: config.subnet },
        (IdError::Taken, Some(id)) => ManagementError::IdTaken(CanisterId::from_principal(id)),
        _ => ManagementError::OutOfIds,
    })?;
    let mut bundle = CanisterBundle {
        controllers: Controllers([run.caller()].into()),
        balance: CyclesBalance(balance),
        paid_until: PaidUntil(context.env.time),
        ..CanisterBundle::default()
    };
    settings::apply(&mut bundle.borrow(id), update, reservation);
    let details = ChangeDetails::Creation {
        controllers: bundle.controllers.0.iter().copied().collect(),
        environment_hash: update.environment_variables.as_ref().map(history::environment_hash),
    };
    let origin = run.call.origin.change_origin(sender_version);
    history::record(&mut bundle.history, context.env.time, bundle.version.0, origin, details);
    context.canisters.insert(id, bundle);
    run.touch(id);
    Ok(id)
}

/// `provisional_top_up_canister`: cycles out of nothing, for any canister, from anyone.
pub(super) fn provisional_top_up(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let args: ic::ProvisionalTopUpCanisterArgs = wire::decode(&run.call.arg)?;
    let amount = amount(&args.amount)?;
    let canister = context.find(run, CanisterId::from_principal(args.canister_id))?;
    let lost = canister.balance.0.put(amount);
    run.mint(amount.saturating_sub(lost));
    Ok(wire::encode_nothing())
}

/// `deposit_cycles`: the payment goes to the canister.
pub(super) fn deposit_cycles(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let args: wire::CanisterIdArgs = wire::decode(&run.call.arg)?;
    let canister = context.find(run, CanisterId::from_principal(args.canister_id))?;
    let lost = canister.balance.0.put(std::mem::take(&mut run.call.payment));
    run.burn(lost);
    Ok(wire::encode_nothing())
}

/// `update_settings`.
pub(super) fn update_settings(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let args: ic::UpdateSettingsArgs = wire::decode(&run.call.arg)?;
    let id = CanisterId::from_principal(args.canister_id);
    let (env, subnet_use) = (context.env, context.canisters.subnet_use());
    let mut canister = context.find(run, id)?;
    super::check_guard(&canister, run, Method::UpdateSettings)?;
    let update = SettingsUpdate::parse(&args.settings)?;
    let view = super::CanisterView::from(&canister);
    let standing = Standing {
        settings: view.settings,
        memory: super::resources::MemoryUse::of(&view).total(),
        balance: view.balance.0,
        reserved: view.reserved.0,
    };
    let reservation = settings::check(&update, &standing, subnet_use, &env.subnet)?;
    settings::apply(&mut canister, &update, reservation);
    canister.version.0 = canister.version.0.saturating_add(1);
    let low_memory = crate::check_low_memory(&mut canister);
    if update.controllers.is_some() {
        let details =
            ChangeDetails::ControllersChange { controllers: canister.controllers.0.iter().copied().collect() };
        let origin = run.call.origin.change_origin(args.sender_canister_version);
        history::record(canister.history, env.time, canister.version.0, origin, details);
    }
    run.effects.low_memory = low_memory.then_some(id);
    Ok(wire::encode_nothing())
}

/// Charges a small `update_settings` ingress message, if the canister can pay it under its settings as they are now.
pub(super) fn charge_later(context: &mut ManagementContext<'_>, run: &mut Running<'_>) {
    let arg = &run.call.arg;
    if !matches!(run.call.origin, ManagementOrigin::Ingress { .. }) || !pays_later(Method::UpdateSettings, arg) {
        return;
    }
    let fees = &context.env.subnet.fees;
    let fee = fees.ingress(Bytes((run.call.method.len() + arg.len()) as u64));
    let Ok(Some(id)) = named_canister(Method::UpdateSettings, arg) else { return };
    let Ok(canister) = context.find(run, id) else { return };
    let threshold = charge::threshold_of(fees, &canister);
    // Who cannot pay even now pays nothing.
    if charge::withdraw(id, &mut canister.balance.0, fee, threshold, false).is_ok() {
        run.burn(fee);
    }
}
