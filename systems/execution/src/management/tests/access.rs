use super::*;

fn arg_for(method: Method, id: CanisterId) -> Vec<u8> {
    let canister_id = id.principal();
    match method {
        Method::UpdateSettings => candid::encode_one(update(id, ic::CanisterSettings::default())),
        Method::UploadChunk => candid::encode_one(ic::UploadChunkArgs { canister_id, chunk: vec![1, 2, 3] }),
        Method::InstallCode => candid::encode_one(wire::InstallCodeArgs {
            mode: ic::CanisterInstallMode::Install,
            canister_id,
            wasm_module: b"\0asm\x01\0\0\0".to_vec(),
            arg: vec![],
            sender_canister_version: None,
        }),
        Method::InstallChunkedCode => candid::encode_one(ic::InstallChunkedCodeArgs {
            mode: ic::CanisterInstallMode::Install,
            target_canister: canister_id,
            store_canister: None,
            chunk_hashes_list: vec![],
            wasm_module_hash: vec![0; 32],
            arg: vec![],
            sender_canister_version: None,
        }),
        _ => candid::encode_one(named(id)),
    }
    .unwrap()
}

/// Methods about a canister that are built.
const GUARDED: [Method; 12] = [
    Method::UpdateSettings,
    Method::UploadChunk,
    Method::ClearChunkStore,
    Method::StoredChunks,
    Method::InstallCode,
    Method::InstallChunkedCode,
    Method::UninstallCode,
    Method::StartCanister,
    Method::StopCanister,
    Method::CanisterStatus,
    Method::DeleteCanister,
    Method::CanisterStatus,
];

#[test]
fn strangers_are_turned_away_and_change_nothing() {
    for method in GUARDED {
        let mut subnet = Subnet::new();
        let id = subnet.create();
        let before = format!("{:?}", subnet.canister(id));
        let call = subnet.ingress(user(2), method.name(), arg_for(method, id));
        let answered = subnet.run(call);
        assert_eq!(answered.error(), ErrorCode::CanisterInvalidController, "{method:?}");
        let text = answered.result.unwrap_err().message;
        assert!(text.contains(&format!("Only the controllers of the canister {id} can control it")), "{text}");
        assert_eq!(format!("{:?}", subnet.canister(id)), before, "{method:?}");
        let stranger = CanisterId::from_u64(77);
        let answered = subnet.run(Subnet::request(stranger, method.name(), arg_for(method, id), 5));
        assert_eq!(
            (answered.error(), answered.refund),
            (ErrorCode::CanisterInvalidController, Cycles(5)),
            "{method:?}"
        );
    }
}

#[test]
fn the_canister_itself_may_read_its_status_and_keep_its_chunks() {
    for method in GUARDED {
        let mut subnet = Subnet::new();
        let id = subnet.create();
        let answered = match subnet.step(Subnet::request(id, method.name(), arg_for(method, id), 0)) {
            ManagementStep::Done(effects) => {
                matches!(&effects.answers[0], Answer::Canister(Response { payload: ResponsePayload::Reply(_), .. }))
            }
            _ => true,
        };
        let allowed = matches!(
            method,
            Method::UploadChunk | Method::ClearChunkStore | Method::StoredChunks | Method::CanisterStatus
        );
        assert_eq!(answered, allowed, "{method:?}");
    }
}

#[test]
fn canisters_that_are_not_there_are_not_found() {
    let nobody = CanisterId::from_u64(50);
    for method in GUARDED.into_iter().chain([Method::DepositCycles, Method::CanisterInfo]) {
        let mut subnet = Subnet::new();
        let caller = subnet.create();
        let arg = match method {
            Method::DepositCycles | Method::CanisterInfo => candid::encode_one(named(nobody)).unwrap(),
            method => arg_for(method, nobody),
        };
        let answered = subnet.run(Subnet::request(caller, method.name(), arg, 1_000));
        assert_eq!((answered.error(), answered.refund), (ErrorCode::CanisterNotFound, Cycles(1_000)), "{method:?}");
    }
}

#[test]
fn users_reach_only_methods_for_users() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    for method in Method::ALL {
        let call = subnet.ingress(user(1), method.name(), arg_for(*method, id));
        let ManagementStep::Done(effects) = subnet.step(call) else { continue };
        let Answer::Ingress(_, status) = &effects.answers[0] else { panic!("answers to ingress") };
        let only_canisters = matches!(status, IngressStatus::Rejected(reject)
            if reject.message.contains("Only canisters can call ic00 method"));
        let only_queries = matches!(status, IngressStatus::Rejected(reject)
            if reject.message.contains("only accessible in non-replicated mode"));
        assert_eq!(only_canisters, method.entry() == Entry::CanistersOnly, "{method:?}");
        assert_eq!(only_queries, method.entry() == Entry::QueryOnly, "{method:?}");
        assert_eq!(ingress_allowed(method.name()).is_err(), only_canisters || only_queries, "{method:?}");
    }
}

#[test]
fn methods_that_are_not_built_say_so_and_unknown_ones_do_not_exist() {
    let mut subnet = Subnet::new();
    let caller = subnet.create();
    for name in
        ["sign_with_ecdsa", "http_request", "take_canister_snapshot", "canister_metrics", "node_metrics_history"]
    {
        let answered = subnet.run(Subnet::request(caller, name, vec![0xFF], 7));
        assert_eq!(answered.refund, Cycles(7));
        assert_eq!(answered.result.unwrap_err().message, format!("not supported yet: {name}"));
    }
    let answered = subnet.run(Subnet::request(caller, "frobnicate", vec![], 7));
    assert_eq!((answered.error(), answered.refund), (ErrorCode::CanisterMethodNotFound, Cycles(7)));
    assert_eq!(answered.result.unwrap_err().message, "Management canister has no method 'frobnicate'");
    assert_eq!(ingress_allowed("frobnicate").unwrap_err().error, Some(ErrorCode::CanisterMethodNotFound));
}

#[test]
fn ingress_is_admitted_from_those_whom_the_method_admits() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let settings = ic::CanisterSettings {
        status_visibility: Some(ic::StatusVisibility::AllowedViewers(vec![user(3)])),
        ..Default::default()
    };
    assert!(subnet.user_call(user(1), "update_settings", &update(id, settings)).result.is_ok());
    let view = subnet.fleet.get(id).unwrap();
    let view = CanisterView::from(&view);
    let admits = |method: Method, sender: Principal, canister: Option<CanisterView<'_>>| {
        let effective = effective_canister(method.name(), &arg_for(method, id)).unwrap();
        check_ingress_sender(method, &sender, effective, canister.as_ref().map(CanisterView::guarded))
            .map_err(|reject| reject.error.unwrap())
    };
    for method in GUARDED {
        assert_eq!(admits(method, user(1), Some(view)), Ok(()), "{method:?}");
        let viewer = if method == Method::CanisterStatus { Ok(()) } else { Err(ErrorCode::CanisterInvalidController) };
        assert_eq!(admits(method, user(3), Some(view)), viewer, "{method:?}");
        assert_eq!(admits(method, user(2), Some(view)), Err(ErrorCode::CanisterInvalidController), "{method:?}");
        assert_eq!(admits(method, user(1), None), Err(ErrorCode::CanisterNotFound), "{method:?}");
    }
}

#[test]
fn the_effective_canister_is_the_one_named_and_pays_except_for_provisional_methods() {
    let id = CanisterId::from_u64(4);
    for method in GUARDED {
        let effective = effective_canister(method.name(), &arg_for(method, id)).unwrap();
        // A small change of settings is paid for afterwards.
        let payer = Some(id).filter(|_| method != Method::UpdateSettings);
        assert_eq!(effective, EffectiveCanister { named: Some(id), payer }, "{method:?}");
        let undecodable = effective_canister(method.name(), b"DIDL").unwrap_err();
        assert_eq!(undecodable.error, Some(ErrorCode::InvalidManagementPayload), "{method:?}");
    }
    let create = candid::encode_one(provisional(None)).unwrap();
    assert_eq!(
        effective_canister("provisional_create_canister_with_cycles", &create),
        Ok(EffectiveCanister { named: None, payer: None })
    );
    let top_up = ic::ProvisionalTopUpCanisterArgs { canister_id: id.principal(), amount: 5u8.into() };
    assert_eq!(
        effective_canister("provisional_top_up_canister", &candid::encode_one(top_up).unwrap()),
        Ok(EffectiveCanister { named: Some(id), payer: None })
    );
    assert!(effective_canister("raw_rand", &candid::encode_args(()).unwrap()).is_err());
}

#[test]
fn the_sender_version_is_read_from_every_method_that_has_it() {
    let id = CanisterId::from_u64(4).principal();
    let of = |name: &str, arg: Vec<u8>| sender_canister_version(name, &arg);
    let version = Some(12);
    let create = ic::CreateCanisterArgs { settings: None, sender_canister_version: version };
    assert_eq!(of("create_canister", candid::encode_one(create).unwrap()), version);
    let uninstall = ic::UninstallCodeArgs { canister_id: id, sender_canister_version: version };
    assert_eq!(of("uninstall_code", candid::encode_one(uninstall).unwrap()), version);
    assert_eq!(of("stop_canister", candid::encode_one(named(CanisterId::from_u64(4))).unwrap()), None);
    assert_eq!(of("uninstall_code", vec![1]), None);
}

#[test]
fn queries_are_answered_to_readers_only() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let arg = candid::encode_one(named(id)).unwrap();
    let config = subnet.env.subnet.clone();
    let mut ask = |name: &str, caller: Principal, visible: ic::CanisterSettings| {
        assert!(subnet.user_call(user(1), "update_settings", &update(id, visible)).result.is_ok());
        let query = ManagementQuery::parse(name, &arg)?;
        assert_eq!(query.canister, Some(id));
        let canister = crate::PublishedCanister::publish(&mut subnet.fleet.get(id).unwrap(), Height(1), true, None);
        query.answer(&caller, Some(&canister), &config)
    };
    let plain = ic::CanisterSettings::default;
    let open = || ic::CanisterSettings { log_visibility: Some(ic::LogVisibility::Public), ..Default::default() };
    assert!(ask("canister_status", user(1), plain()).is_ok());
    assert!(ask("canister_status", user(2), plain()).is_err());
    assert!(ask("canister_status", id.principal(), plain()).is_ok());
    assert!(ask("fetch_canister_logs", user(1), plain()).is_ok());
    let denied = ask("fetch_canister_logs", user(2), plain()).unwrap_err();
    assert_eq!(denied.message, format!("Caller {} is not allowed to query ic00 method fetch_canister_logs", user(2)));
    assert!(ask("fetch_canister_logs", user(2), open()).is_ok());
    assert!(ask("canister_status", user(2), open()).is_err());
    assert_eq!(ask("start_canister", user(1), plain()).unwrap_err().error, Some(ErrorCode::CanisterMethodNotFound));
    let list = ManagementQuery::parse("list_canisters", &candid::encode_args(()).unwrap()).unwrap();
    assert!(list.canister.is_none() && list.answer(&user(1), None, &config).is_err());
}

#[test]
fn logs_can_be_filtered_by_index_and_by_time() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    for index in 0..5u64 {
        let record =
            cyclotron_types::canister::LogRecord { index, time: Time(100 + index), content: vec![index as u8] };
        subnet.canister(id).log.records.push_back(record);
    }
    let config = subnet.env.subnet.clone();
    let mut fetch = |filter: Option<ic::CanisterLogFilter>| -> Vec<u64> {
        let args = ic::FetchCanisterLogsArgs { canister_id: id.principal(), filter };
        let query = ManagementQuery::parse("fetch_canister_logs", &candid::encode_one(args).unwrap()).unwrap();
        let canister = crate::PublishedCanister::publish(&mut subnet.fleet.get(id).unwrap(), Height(1), true, None);
        let bytes = query.answer(&user(1), Some(&canister), &config).unwrap();
        let result: ic::FetchCanisterLogsResult = candid::decode_one(&bytes).unwrap();
        result.canister_log_records.iter().map(|record| record.idx).collect()
    };
    assert_eq!(fetch(None), [0, 1, 2, 3, 4]);
    assert_eq!(fetch(Some(ic::CanisterLogFilter::ByIdx { start: 1, end: 3 })), [1, 2]);
    assert_eq!(fetch(Some(ic::CanisterLogFilter::ByTimestampNanos { start: 103, end: u64::MAX })), [3, 4]);
}
