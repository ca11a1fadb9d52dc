//! Requests on their way to their departure: made and signed by threads ahead of time, released when they are due.
//!
//! ```text
//! signers, each every n-th request -> pace, which sleeps until a request is due -> whoever sends
//! ```
//!
//! Nothing here waits for an answer: that is what makes the loop open.

use crate::error::LoadFailed;
use crate::fleet::Fleet;
use crate::mix::{Kind, Mix, Requests};
use crate::plan::Plan;
use crate::user::{Asked, Signed, Users};
use cyclotron_ports::{Clock, SystemClock};
use cyclotron_types::Principal;
use cyclotron_types::units::Seconds;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

/// From its signature to a request's expiry. Less than the protocol's five minutes, so that clocks may differ.
pub const EXPIRY: Seconds = Seconds(270);
/// How long before its departure a request is signed, at most.
const AHEAD: Duration = Duration::from_secs(2);
/// Signed requests that wait for their departure, of each signer: large arguments must fit into memory.
const WAITING_MAX: usize = 256;

/// A request that only has to be sent.
#[derive(Debug)]
pub struct Prepared {
    /// When.
    pub planned: Duration,
    /// How.
    pub kind: Kind,
    /// Who asks, should its status be asked for.
    pub user: usize,
    /// The canister in the URL.
    pub about: Principal,
    /// The envelope.
    pub signed: Signed,
}

/// What is sent when.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The mix.
    pub mix: Mix,
    /// Of the requests.
    pub seed: u64,
    /// Who asks.
    pub users: &'a Users,
    /// Whom.
    pub fleet: &'a Fleet,
    /// When.
    pub plan: Plan,
}

impl Work<'_> {
    /// The share of one of `signers`. `before` a request is signed its departure is told.
    fn share(self, signer: usize, signers: usize, mut before: impl FnMut(Duration)) -> impl Iterator<Item = Prepared> {
        let Work { mix, seed, users, fleet, plan } = self;
        let requests = Requests::new(mix, seed, users, fleet).zip(0..plan.requests());
        requests.skip(signer).step_by(signers).map(move |(request, number)| {
            let planned = plan.departure(number);
            before(planned);
            let asked = Asked::of(&request, number, SystemClock.now().plus(EXPIRY));
            let signed = users.sign(request.kind, &asked);
            Prepared { planned, kind: request.kind, user: request.user, about: request.canister.principal(), signed }
        })
    }

    /// Signs all requests, on so many threads.
    pub fn sign_all(self, signers: usize) -> Result<Vec<Prepared>, LoadFailed> {
        let share = |signer| self.share(signer, signers, |_| {}).collect::<Vec<_>>();
        let mut shares = std::thread::scope(|scope| {
            let spawn = |signer| Builder::new().name("sign".into()).spawn_scoped(scope, move || share(signer));
            let threads: Vec<_> = (0..signers).map(spawn).collect::<Result<_, _>>().map_err(no_thread)?;
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| LoadFailed::Machine("a thread that signs failed".into())))
                .collect::<Result<Vec<_>, _>>()
        })?;
        shares.iter_mut().for_each(|share| share.reverse());
        let mut all = Vec::with_capacity(shares.iter().map(Vec::len).sum());
        // In turns, as they were dealt out.
        for turn in (0..signers).cycle() {
            match shares[turn].pop() {
                Some(prepared) => all.push(prepared),
                None => break,
            }
        }
        Ok(all)
    }

    /// Signs requests on so many threads of `scope`, somewhat ahead of their departure after `start`; they come in order.
    pub fn sign_ahead<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        signers: usize,
        start: Instant,
    ) -> Result<impl Iterator<Item = Prepared> + Send + use<'scope>, LoadFailed>
    where
        Self: 'scope,
    {
        let mut shares: Vec<Receiver<Prepared>> = Vec::new();
        for signer in 0..signers {
            let (sender, receiver): (SyncSender<Prepared>, _) = sync_channel(WAITING_MAX);
            let wait = move |planned: Duration| sleep_until((start + planned).checked_sub(AHEAD).unwrap_or(start));
            let sign = move || {
                // Whoever receives may be gone: then nothing is to be signed any more.
                let _all_sent = self.share(signer, signers, wait).try_for_each(|prepared| sender.send(prepared));
            };
            Builder::new().name("sign".into()).spawn_scoped(scope, sign).map_err(no_thread)?;
            shares.push(receiver);
        }
        let mut turn = (0..signers).cycle();
        Ok(std::iter::from_fn(move || shares[turn.next()?].recv().ok()))
    }
}

/// Releases requests when they are due after `start`, or when there is room for them.
pub fn pace(prepared: impl Iterator<Item = Prepared>, start: Instant, departing: &Sender<Prepared>) {
    for prepared in prepared {
        sleep_until(start + prepared.planned);
        if departing.blocking_send(prepared).is_err() {
            return;
        }
    }
}

fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

/// This process gets no thread.
pub fn no_thread(error: std::io::Error) -> LoadFailed {
    LoadFailed::Machine(format!("cannot start a thread: {error}"))
}
