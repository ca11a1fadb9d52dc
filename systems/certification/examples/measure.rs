//! Times what a round asks of the state tree.
//!
//! `cargo run --release -p cyclotron-certification --example measure [CANISTERS] [STATUSES]`

use cyclotron_certification::{CanisterFacts, CodeFacts, StateTree, SubnetFacts};
use cyclotron_crypto::{BlsSecretKey, RootSigner, self_authenticating};
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::IngressStatus;
use cyclotron_types::units::Time;
use cyclotron_types::{Principal, PrincipalSet};
use std::time::{Duration, Instant};

/// Signs nothing: what is left is the tree's work.
struct Unsigned;

impl RootSigner for Unsigned {
    fn public_key_der(&self) -> Vec<u8> {
        Vec::new()
    }

    fn sign(&self, _message: &[u8]) -> [u8; 48] {
        [0; 48]
    }
}

/// A message id for a number: spread out, as digests are.
fn id(number: u64) -> MessageId {
    let mut bytes = [0; 32];
    for (i, chunk) in bytes.chunks_mut(8).enumerate() {
        let mut z = (number * 4 + i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes());
    }
    MessageId(bytes)
}

fn median(runs: usize, mut run: impl FnMut(u64)) -> Duration {
    let mut times: Vec<Duration> = (0..runs as u64)
        .map(|i| {
            let start = Instant::now();
            run(i);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[runs / 2]
}

fn say(what: &str, time: Duration) {
    println!("{what:<58} {:>12.2} us", time.as_secs_f64() * 1e6);
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().expect("a number"));
    let canisters = args.next().unwrap_or(100_000);
    let statuses = args.next().unwrap_or(50_000);
    let signer = BlsSecretKey::from_seed(&[1; 32]);
    let key = signer.public_key_der();
    let subnet = self_authenticating(&key);
    let mut state = StateTree::new(subnet);
    let ranges = [(CanisterId::from_u64(0).principal(), CanisterId::from_u64(u64::MAX).principal())];
    let facts = SubnetFacts { public_key: &key, subnet_type: "application", canister_ranges: &ranges, nodes: &[] };
    state.upsert_subnet(subnet, &facts);
    state.set_time(Time(1));

    let controllers = PrincipalSet::from([Principal::self_authenticating(b"a user")]);
    let metadata: [(&str, &[u8]); 2] = [("candid:service", b"service : { get : () -> (nat) query }"), ("cdk", b"0.20")];
    let start = Instant::now();
    let upsert = |state: &mut StateTree, number: u64| {
        let code = CodeFacts { module_hash: &id(number).0, installed: Some(Time(number << 30)), metadata: &metadata };
        let created = Some(Time(number << 30 | 1));
        let facts = CanisterFacts { controllers: &controllers, certified_data: b"", created, code: Some(code) };
        state.upsert_canister(CanisterId::from_u64(number), &facts);
    };
    (0..canisters).for_each(|number| upsert(&mut state, number));
    say("insert a canister (7 leaves), each", start.elapsed() / canisters.max(1) as u32);
    let start = Instant::now();
    for number in 0..statuses {
        state.upsert_request_status(id(number), &IngressStatus::Replied(vec![number as u8; 40]));
    }
    say("insert a status (2 leaves), each", start.elapsed() / statuses.max(1) as u32);
    let start = Instant::now();
    state.rehash();
    let digests = state.leaves() * 2;
    say("first rehash of everything, per digest (about)", start.elapsed() / digests as u32);
    println!(
        "{canisters} canisters, {statuses} statuses: {} leaves, {:.1} MB, {:.0} bytes a leaf",
        state.leaves(),
        state.memory_bytes() as f64 / 1e6,
        state.memory_bytes() as f64 / state.leaves() as f64
    );

    let idle = median(1_001, |i| {
        state.set_time(Time(1 << 60 | i));
        state.certify(&Unsigned);
    });
    say("idle round, unsigned", idle);
    let signed = median(101, |i| {
        state.set_time(Time(1 << 61 | i));
        state.certify(&signer);
    });
    say("idle round, signed", signed);
    let one_canister = median(101, |i| {
        upsert(&mut state, canisters + i);
        state.certify(&Unsigned);
    });
    say("one more canister, unsigned", one_canister);
    let one_status = median(101, |i| {
        state.upsert_request_status(id(statuses + i), &IngressStatus::Replied(vec![1; 40]));
        state.certify(&Unsigned);
    });
    say("one more status, unsigned", one_status);
    let mut next = statuses + 1_000;
    let thousand = median(21, |i| {
        state.set_time(Time(1 << 62 | i));
        for _ in 0..1_000 {
            state.upsert_request_status(id(next), &IngressStatus::Replied(vec![1; 40]));
            next += 1;
        }
        state.certify(&Unsigned);
    });
    say("1,000 more statuses, unsigned, each", thousand / 1_000);
    let expired: Vec<MessageId> = (statuses + 1_000..next).map(id).collect();
    let start = Instant::now();
    state.remove_request_statuses(&expired);
    state.certify(&Unsigned);
    say("21,000 statuses expire, unsigned, each", start.elapsed() / expired.len() as u32);
    let certificate = median(1_001, |i| {
        state.request_status_certificate(id(i % statuses.max(1))).expect("certified");
    });
    say("certificate of a status", certificate);
    let certificate = median(1_001, |i| {
        state.data_certificate(CanisterId::from_u64(i % canisters.max(1))).expect("certified");
    });
    say("certificate of certified data", certificate);
    println!(
        "size of a status certificate: {} bytes",
        state.request_status_certificate(id(0)).expect("certified").len()
    );
}
