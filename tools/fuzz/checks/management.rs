// What must hold for any argument of any management method; shared by the fuzz target and the test that replays its corpus.

use cyclotron_execution::management::{
    ManagementQuery, Method, effective_canister, ingress_allowed, sender_canister_version,
};

/// Reads everything after the first byte as an argument of the method that the first byte picks. Refusals are short, and a message that is
/// taken names the canister that pays for it.
pub fn check(input: &[u8]) {
    let Some((first, arg)) = input.split_first() else { return };
    let name = Method::ALL[usize::from(*first) % Method::ALL.len()].name();
    match effective_canister(name, arg) {
        Ok(effective) => {
            assert!(ingress_allowed(name).is_ok());
            assert!(effective.payer.is_none() || effective.payer == effective.named);
        }
        Err(reject) => assert!(reject.error.is_some() && reject.message.len() < 600),
    }
    let _ = sender_canister_version(name, arg);
    if let Err(reject) = ManagementQuery::parse(name, arg) {
        assert!(reject.error.is_some() && reject.message.len() < 600);
    }
}
