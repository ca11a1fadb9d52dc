//! Updates from a stream that was signed before, in this process: admission on all cores, rounds with certification, each batch lasting
//! before its round is shown. What the node does, without HTTP.

use super::{OURS, ours, rate};
use crate::machine;
use crate::report::{Bound, Report};
use crate::round::subnet::{Bench, Setup};
use crate::round::{COUNTER, module};
use crate::runner::{Failure, Runner, Sample, Unit, failed};
use cyclotron_admission::{Admitted, Config, RequestBytes, admit_batch};
use cyclotron_load::{Asked, Kind, Signed, Users};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::INGRESS_PER_BATCH_MAX;
use cyclotron_types::message::Ingress;
use cyclotron_types::units::{Seconds, Time};
use cyclotron_wire::{ApiVersion, Route, Target};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

/// Requests that are admitted together: what a thread of the node takes at most.
const CHUNK: usize = 256;
/// Chunks that wait for a round.
const WAITING_MAX: usize = 64;
/// Canisters that the updates go to.
const CANISTERS: usize = 100;
/// Updates a second.
const GOAL: f64 = 250_000.0;
/// Requests a second that admission alone must reach.
const ADMISSION_GOAL: f64 = 300_000.0;

/// A request that is signed, and where it goes.
struct Request {
    route: Route,
    signed: Signed,
}

/// Signed updates; the numbers go on from sample to sample.
struct Stream {
    users: Users,
    canisters: Vec<CanisterId>,
    sent: u64,
}

impl Stream {
    fn sign(&mut self, count: usize, expiry: Time) -> Vec<Request> {
        let first = self.sent;
        self.sent += count as u64;
        let sign = |number: u64| {
            let at = number as usize;
            let receiver = self.canisters[at % self.canisters.len()];
            let user = at % self.users.len();
            let asked = Asked { user, receiver, method: COUNTER, arg: &[], nonce: number, expiry };
            let route = Route::Call(ApiVersion::V4, Target::Canister(receiver.principal()));
            Request { route, signed: self.users.sign(Kind::Update, &asked) }
        };
        (first..self.sent).map(sign).collect()
    }
}

/// Admits requests; all of them must be.
fn admit(requests: &[Request], now: Time, config: &Config) -> Result<Vec<Ingress>, Failure> {
    let bytes: Vec<_> = requests.iter().map(|r| RequestBytes { route: r.route, body: &r.signed.body }).collect();
    let mut admitted = Vec::new();
    admit_batch(&bytes, now, config, &mut admitted);
    let ingress = admitted.into_iter().map(|admitted| match admitted {
        Ok(Admitted::Call(call)) => Ok(call.ingress),
        Ok(_) => Err(failed("an update is something else")),
        Err(error) => Err(Failure(format!("an update is not admitted: {error:?}"))),
    });
    ingress.collect()
}

/// Runs rounds of what is admitted until so many updates are answered.
fn rounds(
    bench: &mut Bench,
    admitted: &Receiver<Result<Vec<Ingress>, Failure>>,
    updates: usize,
) -> Result<(), Failure> {
    let mut answered = 0;
    let mut waiting: Vec<Ingress> = Vec::new();
    while answered < updates {
        if waiting.is_empty() {
            waiting = admitted.recv().map_err(failed)??;
        }
        while waiting.len() < INGRESS_PER_BATCH_MAX {
            let Ok(more) = admitted.try_recv() else { break };
            waiting.extend(more?);
        }
        let rest = waiting.split_off(waiting.len().min(INGRESS_PER_BATCH_MAX));
        answered += waiting.len();
        bench.round_of_replies(std::mem::replace(&mut waiting, rest))?;
    }
    Ok(())
}

/// Admission alone, on all cores; seconds.
fn admission(requests: &[Request], chunk: usize, now: Time, config: &Config) -> Result<f64, Failure> {
    let chunks: Vec<_> = requests.chunks(chunk).collect();
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let work = || {
            while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                admit(chunk, now, config)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..machine::threads()).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(failed("a thread panicked"))))
    })?;
    Ok(began.elapsed().as_secs_f64())
}

/// Admission on all cores beside the rounds; seconds.
fn whole(bench: &mut Bench, requests: &[Request], config: &Config) -> Result<f64, Failure> {
    let chunks: Vec<_> = requests.chunks(CHUNK).collect();
    let (next, now) = (AtomicUsize::new(0), bench.now());
    let (sender, admitted) = sync_channel(WAITING_MAX);
    std::thread::scope(|scope| {
        let began = Instant::now();
        for _ in 0..machine::threads() {
            let (sender, chunks, next) = (sender.clone(), &chunks, &next);
            scope.spawn(move || {
                while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send(admit(chunk, now, config)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let admitted = admitted;
        rounds(bench, &admitted, requests.len())?;
        Ok(began.elapsed().as_secs_f64())
    })
}

/// Admission without rounds: the requests are the same each time.
fn run_admission(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    let cases = [CHUNK, 4_096].map(|chunk| (format!("admission_{chunk}"), chunk));
    if !cases.iter().any(|(case, _)| runner.wants(case)) {
        return Ok(());
    }
    let (count, now) = (runner.size(40_960, 2_000), Time(1_000_000_000));
    let config = Config::single_subnet(CanisterId::MANAGEMENT.principal());
    let canisters = (0..CANISTERS as u64).map(CanisterId::from_u64).collect();
    let requests = Stream { users: Users::new(1), canisters, sent: 0 }.sign(count, now.plus(Seconds(280)));
    for (case, chunk) in &cases {
        if !runner.wants(case) {
            continue;
        }
        let whole = ours(|| rate(count, admission(&requests, *chunk, now, &config)?));
        report.case(case, Unit::PerS, "", &runner.measure(case, Unit::PerS, whole)?);
        if let Some(value) = report.median(case, OURS) {
            report.goal(case, value, Bound::AtLeast(ADMISSION_GOAL));
        }
    }
    report.note(&format!(
        "on {} threads, so many requests at a time; decoding and request ids included",
        machine::threads()
    ));
    Ok(())
}

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    run_admission(runner, report)?;
    let case = "stream_updates";
    if !runner.wants(case) {
        return Ok(());
    }
    let updates = runner.size(40_000, 2_000);
    let folder = std::env::temp_dir().join(format!("cyclotron-bench-stream-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut bench = Bench::new(Setup { certified: true, threads: machine::threads() }, machine::Clock::Wall)?;
    let canisters = bench.install(CANISTERS, &module()?)?;
    bench.log(&folder)?;
    let config = Config::single_subnet(bench.subnet_id());
    let mut stream = Stream { users: Users::new(1), canisters, sent: 0 };
    // A round is a second of block time, and fewer pass than this while one sample runs.
    let mut signed = |bench: &Bench| stream.sign(updates, bench.now().plus(Seconds(280)));
    let whole = ours(|| {
        let requests = signed(&bench);
        rate(updates, whole(&mut bench, &requests, &config)?)
    });
    let measured = runner.measure(case, Unit::PerS, whole)?;
    report.case(case, Unit::PerS, "", &measured);
    // One thread after the other: what each half costs.
    for (part, is_admission) in [("stream_admission", true), ("stream_rounds", false)] {
        let half = ours(|| {
            let requests = signed(&bench);
            let began = Instant::now();
            let admitted: Vec<_> =
                requests.chunks(CHUNK).map(|chunk| admit(chunk, bench.now(), &config)).collect::<Result<_, _>>()?;
            let admission = began.elapsed().as_secs_f64();
            let (sender, admitted_chunks) = sync_channel(admitted.len());
            admitted.into_iter().try_for_each(|chunk| sender.send(Ok(chunk))).map_err(failed)?;
            let began = Instant::now();
            rounds(&mut bench, &admitted_chunks, updates)?;
            let seconds = if is_admission { admission } else { began.elapsed().as_secs_f64() };
            Ok(Sample { value: Unit::Us.of_seconds(seconds) / updates as f64, check: 0 })
        });
        report.case(part, Unit::Us, "", &runner.measure(part, Unit::Us, half)?);
    }
    report.note("stream_admission on one thread, decoding and signatures; stream_rounds certified and logged");
    std::fs::remove_dir_all(&folder).map_err(failed)?;
    if let Some(value) = report.median(case, OURS) {
        report.goal(case, value, Bound::AtLeast(GOAL));
    }
    Ok(())
}
