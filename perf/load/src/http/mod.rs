//! A live endpoint: its canisters are made, then requests leave at their planned times whatever becomes of those before.
//!
//! Enters: a URL, a workload, a plan. Leaves: latencies from the planned times, lateness, errors by kind. Never here: a slower pace because a
//! node is slow. A request may find all connections taken: it waits, is late, and its latency says so.

mod answer;
mod client;
mod stream;

use crate::error::LoadFailed;
use crate::fleet::{Fleet, SetUp, SetUpCall, Workload};
use crate::mix::Kind;
use crate::plan::Plan;
use crate::tally::{Report, Tally, Times};
use crate::user::{Asked, Signed, Users};
use answer::Answer;
use bytes::Bytes;
pub use client::Versions;
use client::{Client, Failure, VERSIONS};
use cyclotron_ports::{Clock, SystemClock};
use cyclotron_types::Principal;
use cyclotron_types::ids::CanisterId;
use hyper::{Method, StatusCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use stream::{EXPIRY, Prepared, Work, no_thread, pace};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;

/// A canister id that every network of its own gives out first: calls that make canisters need some id in their URL.
const ANY_CANISTER: u64 = 0x8000_0000_0010_0000;
/// Calls that make canisters, under way at a time.
const SET_UP_CALLS: usize = 32;
/// Requests that are due and wait for a place: large ones must fit into memory, and those behind them are not signed before they have to be.
const DEPARTING_MAX: usize = 64;
/// From the start of the threads to the first departure.
const HEAD_START: Duration = Duration::from_millis(200);
/// Time between the first two looks at a request's status; each next is half as long again, up to [`POLL_MAX`].
const POLL_FIRST: Duration = Duration::from_millis(10);
/// Time between two looks at most.
const POLL_MAX: Duration = Duration::from_secs(1);
/// How long a request's status is asked for.
const POLL_TIME: Duration = Duration::from_secs(60);
/// Requests that are signed before the first leaves expire; some seconds go for signing them.
const SIGNED_BEFORE_SECONDS_MAX: u64 = EXPIRY.0 - 70;

/// How requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveOptions {
    /// When.
    pub plan: Plan,
    /// Connections at most: requests under way at a time.
    pub connections: u32,
    /// Threads that sign.
    pub signers: usize,
    /// Whether all requests are signed before the first leaves.
    pub signed_before: bool,
}

/// A node, and canisters on it that a workload can ask.
#[derive(Debug)]
pub struct Endpoint {
    runtime: Runtime,
    asker: Arc<Asker>,
    workload: Workload,
    fleet: Fleet,
}

/// Sends requests and understands answers.
#[derive(Debug)]
struct Asker {
    client: Client,
    versions: Versions,
    users: Users,
}

/// The versions of the API whose calls have this one; the error names those there are.
pub fn versions(call: &str) -> Result<Versions, String> {
    VERSIONS.into_iter().find(|versions| versions.call == call).ok_or_else(|| {
        let known: Vec<_> = VERSIONS.iter().map(|versions| versions.call).collect();
        format!("there is no version {call:?} of calls; the versions are {}", known.join(", "))
    })
}

/// Host and port of a URL.
fn address_of(url: &str) -> Result<String, LoadFailed> {
    let wrong = |reason| LoadFailed::Url { url: url.into(), reason };
    if url.starts_with("https://") {
        return Err(wrong("only http:// is spoken here; give the node's own address"));
    }
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("a URL begins with http://"))?;
    let address = rest.strip_suffix('/').unwrap_or(rest);
    if address.is_empty() || address.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong("it is to be a host and a port, and nothing behind them"));
    }
    let has_port = address.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) && address.contains(':');
    Ok(if has_port { address.into() } else { format!("{address}:80") })
}

impl Endpoint {
    /// Makes a workload's canisters on a node. `versions`: of the API, the newest that the node has where nothing is said.
    pub fn open(url: &str, workload: Workload, versions: Option<Versions>) -> Result<Self, LoadFailed> {
        let client = Client::new(&address_of(url)?);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let unreachable = |reason: String| LoadFailed::Unreachable { url: url.into(), reason };
        let newest = runtime.block_on(newest(&client)).map_err(unreachable)?;
        let users = Users::new(workload.seed);
        let asker = Arc::new(Asker { client, versions: versions.unwrap_or(newest), users });
        let fleet = runtime.block_on(set_up(&asker, &workload))?;
        Ok(Self { runtime, asker, workload, fleet })
    }

    /// The canisters.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The versions of the API that are used.
    pub fn versions(&self) -> Versions {
        self.asker.versions
    }

    /// Sends the workload's requests, the same ones each time, and waits for all answers.
    pub fn drive(&self, options: DriveOptions) -> Result<Report, LoadFailed> {
        let DriveOptions { plan, connections, signers, signed_before } = options;
        let (signers, connections) = (signers.max(1), connections.max(1));
        if signed_before && u64::from(plan.seconds) > SIGNED_BEFORE_SECONDS_MAX {
            return Err(LoadFailed::TooLong { seconds_max: SIGNED_BEFORE_SECONDS_MAX });
        }
        let Workload { mix, seed, .. } = self.workload;
        let work = Work { mix, seed, users: &self.asker.users, fleet: &self.fleet, plan };
        let all = if signed_before { work.sign_all(signers)? } else { Vec::new() };
        let (departing, departures) = channel(DEPARTING_MAX);
        let start = Instant::now() + HEAD_START;
        let tally = std::thread::scope(|scope| {
            let prepared: Box<dyn Iterator<Item = Prepared> + Send> = if signed_before {
                Box::new(all.into_iter())
            } else {
                Box::new(work.sign_ahead(scope, signers, start)?)
            };
            let pacer = move || pace(prepared, start, &departing);
            std::thread::Builder::new().name("pace".into()).spawn_scoped(scope, pacer).map_err(no_thread)?;
            Ok(self.runtime.block_on(send_all(&self.asker, start, departures, connections)))
        })?;
        Ok(tally.report(plan))
    }
}

/// The newest versions of the API that a node has; why there is none, where there is no node.
async fn newest(client: &Client) -> Result<Versions, String> {
    let status =
        client.exchange(Method::GET, "/api/v2/status", Bytes::new()).await.map_err(|error| error.to_string())?;
    if status.0 != StatusCode::OK {
        return Err(format!("its status is HTTP {}", status.0.as_u16()));
    }
    let about = CanisterId::from_u64(ANY_CANISTER).principal();
    for versions in VERSIONS {
        let mut there = true;
        for kind in [Kind::Update, Kind::Query] {
            // Nothing is no request: an endpoint that is there says so.
            let answer = client.exchange(Method::POST, &versions.path(kind, about), Bytes::new()).await;
            there &= answer.map_err(|error| error.to_string())?.0 != StatusCode::NOT_FOUND;
        }
        if there {
            return Ok(versions);
        }
    }
    Err("it has no endpoint for calls".into())
}

async fn set_up(asker: &Arc<Asker>, workload: &Workload) -> Result<Fleet, LoadFailed> {
    let set_up = SetUp::new(workload, &asker.users)?;
    let created = calls(asker, set_up.user(), set_up.creations()).await?;
    let (fleet, installations) = set_up.installations(&created)?;
    calls(asker, set_up.user(), installations).await?;
    Ok(fleet)
}

/// Makes calls, some at a time; their replies in order.
async fn calls(asker: &Arc<Asker>, user: usize, calls: Vec<SetUpCall>) -> Result<Vec<Vec<u8>>, LoadFailed> {
    let room = Arc::new(Semaphore::new(SET_UP_CALLS));
    let mut replies = vec![Vec::new(); calls.len()];
    let mut under_way = JoinSet::new();
    for (at, call) in calls.into_iter().enumerate() {
        let (asker, room) = (asker.clone(), room.clone());
        under_way.spawn(async move {
            let _place = room.acquire_owned().await;
            (at, asker.call(user, at as u64, &call).await)
        });
    }
    while let Some(ended) = under_way.join_next().await {
        let (at, reply) = ended.map_err(|error| LoadFailed::SetUp(error.to_string()))?;
        replies[at] = reply.map_err(|failure| LoadFailed::SetUp(failure.to_string()))?;
    }
    Ok(replies)
}

/// Sends requests as they depart, and waits for their answers.
async fn send_all(asker: &Arc<Asker>, start: Instant, mut departures: Receiver<Prepared>, connections: u32) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let room = Arc::new(Semaphore::new(connections as usize));
    while let Some(prepared) = departures.recv().await {
        let Ok(place) = room.clone().acquire_owned().await else { break };
        let (asker, tally) = (asker.clone(), tally.clone());
        tokio::spawn(async move {
            let since = || Instant::now().saturating_duration_since(start);
            let left = since();
            let Prepared { planned, kind, user, about, signed } = prepared;
            let outcome = asker.ask(kind, user, about, signed).await;
            let times = Times { planned, left, ended: since() };
            match outcome {
                Ok(_) => lock(&tally).answered(kind, &times),
                Err(failure) => lock(&tally).failed(kind, &times, failure.kind()),
            }
            drop(place);
        });
    }
    // All places are free again when all requests have ended.
    let _all_ended = room.acquire_many(connections).await;
    std::mem::take(&mut *lock(&tally))
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Asker {
    /// Calls the management canister.
    async fn call(&self, user: usize, nonce: u64, call: &SetUpCall) -> Result<Vec<u8>, Failure> {
        let SetUpCall { about, method, arg } = call;
        let expiry = SystemClock.now().plus(EXPIRY);
        let asked = Asked { user, receiver: CanisterId::MANAGEMENT, method, arg, nonce, expiry };
        let signed = self.users.sign(Kind::Update, &asked);
        let about = about.unwrap_or_else(|| CanisterId::from_u64(ANY_CANISTER)).principal();
        self.ask(Kind::Update, user, about, signed).await
    }

    /// Sends a request; its reply, however long that takes to be known.
    async fn ask(&self, kind: Kind, user: usize, about: Principal, signed: Signed) -> Result<Vec<u8>, Failure> {
        let Signed { id, body } = signed;
        let (status, body) = self.client.exchange(Method::POST, &self.versions.path(kind, about), body.into()).await?;
        let answer = client::read(kind, &id.0, status, &body)?;
        if answer == Answer::Pending && kind == Kind::Query {
            return Err(Failure::Unreadable);
        }
        let until = Instant::now() + POLL_TIME;
        let mut wait = POLL_FIRST;
        let mut answer = answer;
        loop {
            match answer {
                Answer::Replied(reply) => return Ok(reply),
                Answer::Rejected { code, message } => return Err(Failure::Rejected { code, message }),
                Answer::Pending if Instant::now() >= until => return Err(Failure::TimedOut),
                Answer::Pending => {}
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 3 / 2).min(POLL_MAX);
            let look = self.users.sign_read_state(user, &id, SystemClock.now().plus(EXPIRY));
            let path = self.versions.read_state_path(about);
            let (status, body) = self.client.exchange(Method::POST, &path, look.body.into()).await?;
            answer = client::read(kind, &id.0, status, &body)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(address_of("http://127.0.0.1:8000/").unwrap(), "127.0.0.1:8000");
        assert_eq!(address_of("http://[::1]:8000").unwrap(), "[::1]:8000");
        assert_eq!(address_of("http://localhost").unwrap(), "localhost:80");
        for url in ["https://icp0.io", "127.0.0.1:8000", "http://", "http://a:1/api", "http://u@a:1"] {
            assert!(matches!(address_of(url), Err(LoadFailed::Url { .. })), "{url}");
        }
    }
}
