//! A sampling profiler of compiled code: which Wasm functions run, asked many times a second.
//!
//! Enters: a rate. Leaves: [`Samples`], stacks of functions by their Wasm names with how often each was found. Never here: a result of an
//! execution; what it costs and finds depends on the machine's time.
//!
//! Threads that execute messages are asked by a signal at even steps of time. One that waits within an execution (there is little to wait
//! for) counts as running. Time outside of executions is not in the samples.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::runtime::samples::{self, RawFrame};
use crate::symbols;

/// Samples a second of each thread, at most: beyond that threads do little but answer.
pub const RATE_MAX: u32 = 10_000;
/// What code is called that was made executable before the first sampler.
const UNKNOWN: &str = "[code from before the profile]";
/// Code of the node that compiled code has called: the System API, the runtime.
const HOST: &str = "[node]";

/// Samples the threads of this process until it is stopped or dropped.
#[derive(Debug)]
pub struct Sampler {
    stop: Arc<AtomicBool>,
    /// Until it is stopped.
    thread: Option<JoinHandle<Samples>>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// How often each stack was found, as flame graphs are made of: the module and its functions from the outermost to the innermost, with
    /// `;` between them.
    pub stacks: BTreeMap<String, u64>,
    /// How often a thread was asked and did not run compiled code any more, or was not done with the answer before.
    pub unanswered: u64,
}

impl Samples {
    /// Samples in all.
    pub fn total(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// One line a stack: `module 01020304;outer;inner 17`.
    pub fn folded(&self) -> String {
        self.stacks.iter().map(|(stack, count)| format!("{stack} {count}\n")).collect()
    }
}

/// Is told of samples as they are found.
pub trait Watch: Send {
    /// This thread of the operating system was found in this module, in these functions, outermost first.
    fn found(&mut self, thread: i32, module: &str, functions: &[&str]);
    /// This thread was found outside of compiled code.
    fn idle(&mut self, thread: i32);
}

impl Sampler {
    /// Begins to take so many samples a second of each thread; `watch` is told of each. Modules are to be compiled after this: others have
    /// no names.
    ///
    /// Errors: when the handler or the thread cannot be had. Panics: when the rate is zero or above [`RATE_MAX`].
    pub fn start(rate: u32, watch: Option<Box<dyn Watch>>) -> io::Result<Sampler> {
        assert!((1..=RATE_MAX).contains(&rate), "a rate within its limits");
        symbols::keep();
        samples::install()?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("sampler".into()).spawn({
            let stop = stop.clone();
            move || sample(Duration::from_secs(1) / rate, &stop, watch)
        })?;
        Ok(Sampler { stop, thread: Some(thread) })
    }

    /// Ends it.
    pub fn stop(mut self) -> Samples {
        match self.end() {
            Some(Ok(samples)) => samples,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => unreachable!("it is stopped once"),
        }
    }

    /// Ends it, unless it has ended.
    fn end(&mut self) -> Option<std::thread::Result<Samples>> {
        self.stop.store(true, Ordering::Release);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // Whoever drops it does not want the samples; a panic was reported by its thread.
        let _samples = self.end();
    }
}

/// A stack as it is counted: serial numbers of code, numbers of names; innermost first.
type Stack = Vec<(u64, u32)>;
/// Stands for [`HOST`].
const HOST_FRAME: (u64, u32) = (u64::MAX, 0);

fn sample(period: Duration, stop: &AtomicBool, mut watch: Option<Box<dyn Watch>>) -> Samples {
    let mut counts: BTreeMap<Stack, u64> = BTreeMap::new();
    let (mut asked, mut answered) = (0, 0);
    let mut due = Instant::now();
    while !stop.load(Ordering::Acquire) {
        asked += samples::ask(|thread, frames| {
            let Some(frames) = frames else {
                return watch.iter_mut().for_each(|watch| watch.idle(thread));
            };
            answered += 1;
            let stack: Stack = frames.iter().map(key).collect();
            if let Some(watch) = &mut watch {
                with_names(&stack, |module, functions| watch.found(thread, module, functions));
            }
            *counts.entry(stack).or_default() += 1;
        }) as u64;
        due += period;
        let now = Instant::now();
        // A machine that is late does not make up for it by asking at once.
        due = due.max(now);
        std::thread::sleep(due - now);
    }
    let mut named = Samples { unanswered: asked.saturating_sub(answered), ..Samples::default() };
    for (stack, count) in counts {
        let text = with_names(&stack, |module, functions| {
            let names = functions.iter().map(|name| name.replace(';', ":"));
            [module.to_owned()].into_iter().chain(names).collect::<Vec<_>>().join(";")
        });
        *named.stacks.entry(text).or_default() += count;
    }
    named
}

/// A frame by function, not by instruction.
fn key(frame: &RawFrame) -> (u64, u32) {
    match *frame {
        RawFrame::Host => HOST_FRAME,
        RawFrame::Code { serial, offset } => {
            (serial, symbols::kept(serial).and_then(|symbols| symbols.at(offset)).unwrap_or(u32::MAX))
        }
    }
}

/// Hands on a stack's module, and its functions from the outermost on.
fn with_names<R>(stack: &[(u64, u32)], take: impl FnOnce(&str, &[&str]) -> R) -> R {
    let module = stack.iter().find(|frame| **frame != HOST_FRAME).and_then(|(serial, _)| symbols::kept(*serial));
    let Some(symbols) = module else { return take(UNKNOWN, &[]) };
    let names = stack.iter().rev().map(|frame| if *frame == HOST_FRAME { HOST } else { symbols.name(frame.1) });
    let mut names: Vec<&str> = names.collect();
    // What enters every message says nothing.
    if names.first() == Some(&symbols::HELPERS) {
        names.remove(0);
    }
    take(&symbols.module, &names)
}
