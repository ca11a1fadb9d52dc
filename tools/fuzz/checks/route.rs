// What must hold for every method and path; shared by the fuzz target and the test that replays its corpus.

use cyclotron_wire::{ApiVersion, Method, Route, Target};

/// Takes the first byte for the method and the rest for the path; the endpoint that they name must be the one that its own path names.
pub fn check(input: &[u8]) {
    let Some((&method, path)) = input.split_first() else { return };
    let Ok(path) = std::str::from_utf8(path) else { return };
    let method = [Method::Get, Method::Post, Method::Other][usize::from(method % 3)];
    match Route::parse(method, path) {
        Ok(route) => {
            // Ids may be written in capitals. Spec: ic-interface-spec #textual-ids.
            assert!(path_of(route).eq_ignore_ascii_case(path), "{path:?} is not the path of {route:?}");
            assert_eq!(Route::parse(method, &path_of(route)), Ok(route));
        }
        Err(error) => {
            assert!(matches!(error.status(), 400 | 404 | 405));
            assert!(!error.to_string().is_empty());
        }
    }
}

fn path_of(route: Route) -> String {
    let (version, target, action) = match route {
        Route::Status => return "/api/v2/status".into(),
        Route::Call(version, target) => (version, target, "call"),
        Route::Query(version, target) => (version, target, "query"),
        Route::ReadState(version, target) => (version, target, "read_state"),
    };
    let version = match version {
        ApiVersion::V2 => "v2",
        ApiVersion::V3 => "v3",
        ApiVersion::V4 => "v4",
    };
    match target {
        Target::Canister(id) => format!("/api/{version}/canister/{id}/{action}"),
        Target::Subnet(id) => format!("/api/{version}/subnet/{id}/{action}"),
    }
}
