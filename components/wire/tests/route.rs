//! The table of endpoints.

use cyclotron_wire::{ApiVersion, Method, Route, RouteError, Target};
use ic_principal::Principal;

const ID: &str = "rwlgt-iiaaa-aaaaa-aaaaa-cai";

fn get(path: &str) -> Result<Route, RouteError> {
    Route::parse(Method::Get, path)
}

fn post(path: &str) -> Result<Route, RouteError> {
    Route::parse(Method::Post, path)
}

#[test]
fn exactly_the_specified_endpoints_exist() {
    let id = Principal::from_text(ID).unwrap();
    let mut found = Vec::new();
    for (name, version) in [("v2", ApiVersion::V2), ("v3", ApiVersion::V3), ("v4", ApiVersion::V4)] {
        for (kind, target) in [("canister", Target::Canister(id)), ("subnet", Target::Subnet(id))] {
            for action in ["call", "query", "read_state"] {
                let path = format!("/api/{name}/{kind}/{ID}/{action}");
                let expected = match action {
                    "call" => Route::Call(version, target),
                    "query" => Route::Query(version, target),
                    _ => Route::ReadState(version, target),
                };
                match post(&path) {
                    Ok(route) => {
                        assert_eq!(route, expected);
                        assert_eq!(get(&path), Err(RouteError::MethodNotAllowed { allow: "POST" }));
                        found.push(format!("{name} {kind} {action}"));
                    }
                    Err(error) => assert_eq!(error, RouteError::NotFound, "{path}"),
                }
            }
        }
    }
    let specified = [
        "v2 canister call",
        "v2 canister query",
        "v2 canister read_state",
        "v2 subnet read_state",
        "v3 canister call",
        "v3 canister query",
        "v3 canister read_state",
        "v3 subnet query",
        "v3 subnet read_state",
        "v4 canister call",
        "v4 subnet call",
    ];
    assert_eq!(found, specified);
}

#[test]
fn status_is_read_by_get() {
    assert_eq!(get("/api/v2/status"), Ok(Route::Status));
    assert_eq!(post("/api/v2/status"), Err(RouteError::MethodNotAllowed { allow: "GET" }));
}

#[test]
fn other_paths_are_not_found() {
    let long = format!("/api/v2/canister/{}/call", "a".repeat(300));
    let trailing = format!("/api/v2/canister/{ID}/call/");
    let others =
        ["", "/", "/api", "/api/", "/api/v2", "/api/v2/", "/api/v3/status", "/api/v2/status/", "/api/v1/status"];
    for path in others.into_iter().chain([long.as_str(), trailing.as_str(), "//api/v2/status", "/API/v2/status"]) {
        assert_eq!(get(path), Err(RouteError::NotFound), "{path}");
        assert_eq!(post(path), Err(RouteError::NotFound), "{path}");
    }
}

#[test]
fn an_id_that_is_no_principal_is_a_bad_request() {
    for id in ["", "x", "rwlgt-iiaaa-aaaaa-aaaaa-caj", "rwlgtiiaaaaaaaaaaaaacai", "%00"] {
        let error = post(&format!("/api/v2/canister/{id}/call")).unwrap_err();
        assert_eq!(error.status(), 400, "{id}: {error}");
    }
    assert!(post("/api/v2/canister/aaaaa-aa/call").is_ok());
    // Ids are parsed without regard to case. Spec: ic-interface-spec #textual-ids.
    let upper = format!("/api/v2/canister/{}/call", ID.to_uppercase());
    assert_eq!(post(&upper), post(&format!("/api/v2/canister/{ID}/call")));
}

#[test]
fn the_longest_route_fits_the_limit() {
    let id = Principal::from_slice(&[0xff; 29]);
    let path = format!("/api/v3/canister/{id}/read_state");
    assert!(path.len() <= cyclotron_wire::limits::URL_PATH_BYTES_MAX, "{}", path.len());
    assert!(post(&path).is_ok());
}
