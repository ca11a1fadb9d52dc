//! The profiler as Tracy's client library has it.
//!
//! Invariants. What is handed to the library by address (places and their strings, names of plots) lives as long as the program: the profiler
//! asks for it when it comes across the address, which may be much later. And only threads that are [`attached`] call the library: it is there
//! from before the first of them until after the last, since it is started once, before any is attached, and shut down once, when none is.

use cyclotron_types::ids::CanisterId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_char;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};
use tracy_client_sys as sys;

/// Whether zones are in this program.
pub const COMPILED_IN: bool = true;

/// Names of executions that are kept: more than a screen can show. Whatever runs beyond them goes by [`OTHERS`].
const NAMES_MAX: usize = 16_384;
/// How often it is looked whether a profiler has come, and whether threads have ended.
const POLL: Duration = Duration::from_millis(5);
/// How long threads may take to end that nobody waited for: those of a pool are told to, and end on their own.
const THREADS_END_MAX: Duration = Duration::from_secs(5);
/// Stack of the thread that works in the place of the main thread, which has so much.
const STACK_BYTES: usize = 8 << 20;

/// Whether a profiler was connected when the last round ended.
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Before it is completed nothing of the library may be called.
static STARTED: Once = Once::new();
/// From then on no thread is attached any more.
static ENDED: AtomicBool = AtomicBool::new(false);
/// Threads that are attached.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Whether a thread may call the library.
struct Attached(bool);

thread_local! {
    /// Is registered for the thread's end before the library registers anything there, since it is not called before; so it goes last.
    static HERE: Attached = Attached::new();
}

impl Attached {
    fn new() -> Self {
        // Counted first, then looked; whoever ends it says so first, then counts. One of the two sees the other.
        THREADS.fetch_add(1, Ordering::SeqCst);
        let attached = STARTED.is_completed() && !ENDED.load(Ordering::SeqCst);
        if !attached {
            THREADS.fetch_sub(1, Ordering::SeqCst);
        }
        Self(attached)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.0 {
            THREADS.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether this thread may call the library, which then is there until the thread ends.
#[inline]
fn attached() -> bool {
    HERE.try_with(|here| here.0).unwrap_or(false)
}

static OTHERS: Place = Place::new("canister execution\0", "more names than are kept\0", "\0", 0);

/// A place in the program that zones begin at.
#[derive(Debug)]
pub struct Place(sys::___tracy_source_location_data);

// SAFETY: its pointers are to constant strings that live as long as the program (the constructors take or make such), and nothing changes.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Send for Place {}

/// The address of a string that ends with a zero byte.
const fn c_string(text: &'static str) -> *const c_char {
    let bytes = text.as_bytes();
    assert!(!bytes.is_empty() && bytes[bytes.len() - 1] == 0, "a string for the profiler ends with a zero byte");
    bytes.as_ptr().cast()
}

fn leak(text: &str) -> &'static str {
    // A zero byte within would end it there: names come from canisters.
    Box::leak((text.replace('\0', " ") + "\0").into_boxed_str())
}

impl Place {
    /// A place of this name; each string ends with a zero byte.
    pub const fn new(name: &'static str, function: &'static str, file: &'static str, line: u32) -> Self {
        let (name, function, file) = (c_string(name), c_string(function), c_string(file));
        Self(sys::___tracy_source_location_data { name, function, file, line, color: 0 })
    }

    /// A place that lives as long as the program: for names that are few and known only now.
    pub fn named(name: &str, function: &str) -> &'static Self {
        Box::leak(Box::new(Self::new(leak(name), leak(function), "\0", 0)))
    }

    /// Begins a zone, which ends when it is dropped.
    #[inline(always)]
    pub fn enter(&'static self) -> Zone {
        if ACTIVE.load(Ordering::Relaxed) { self.begin() } else { Zone { begun: None, one_thread: PhantomData } }
    }

    fn begin(&'static self) -> Zone {
        // SAFETY: the place and its strings live as long as the program; this thread is attached.
        let begun = attached().then(|| unsafe { sys::___tracy_emit_zone_begin(&raw const self.0, 1) });
        Zone { begun, one_thread: PhantomData }
    }
}

/// A stretch of time on one thread.
#[derive(Debug)]
#[must_use = "a zone ends when it is dropped"]
pub struct Zone {
    begun: Option<sys::___tracy_c_zone_context>,
    one_thread: PhantomData<*mut ()>,
}

impl Drop for Zone {
    #[inline(always)]
    fn drop(&mut self) {
        // A thread that ends is not attached to its very end.
        if let Some(begun) = self.begun
            && attached()
        {
            // SAFETY: it was begun on this thread, from which a zone cannot be moved, and ends once; the thread is attached. The library drops
            // what a connection that is gone began.
            unsafe { sys::___tracy_emit_zone_end(begun) };
        }
    }
}

/// A number over time.
#[derive(Debug)]
pub struct Plot(&'static str);

impl Plot {
    /// A plot of this name, which ends with a zero byte.
    pub const fn new(name: &'static str) -> Self {
        let _ends_with_zero = c_string(name);
        Self(name)
    }

    /// Shows what `value` returns, if somebody is there to see it.
    #[inline(always)]
    pub fn show(&self, value: impl FnOnce() -> u64) {
        if ACTIVE.load(Ordering::Relaxed) {
            self.emit(value());
        }
    }

    fn emit(&self, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        if attached() {
            // SAFETY: the name ends with a zero byte and lives as long as the program; this thread is attached.
            unsafe { sys::___tracy_emit_plot_int(c_string(self.0), value) };
        }
    }
}

/// A number that is summed over a round.
#[derive(Debug)]
pub struct Sum {
    plot: Plot,
    sum: AtomicU64,
}

impl Sum {
    /// A sum of this name, which ends with a zero byte.
    pub const fn new(name: &'static str) -> Self {
        Self { plot: Plot::new(name), sum: AtomicU64::new(0) }
    }

    /// Adds what `value` returns, if somebody is there to see it.
    #[inline(always)]
    pub fn add(&self, value: impl FnOnce() -> u64) {
        if ACTIVE.load(Ordering::Relaxed) {
            self.sum.fetch_add(value(), Ordering::Relaxed);
        }
    }
}

/// Runs `work` on a thread of this name, while a profiler may connect; then tells one that has all that happened, and answers what it still
/// asks for, until it ends the connection. Once in a process, from a thread that has no zones itself.
///
/// Threads with zones should end with `work`: those that go on for seconds are told on standard error, and the profiler loses the end.
/// Errors: when there is no thread for it.
pub fn profiled<R: Send>(name: &str, work: impl FnOnce() -> R + Send) -> io::Result<R> {
    start()?;
    let done = on_thread(name, work);
    end();
    done
}

/// Runs `work` on a thread of its own, which has ended when this returns.
fn on_thread<R: Send>(name: &str, work: impl FnOnce() -> R + Send) -> io::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        // Without this the scope would wait for `work` alone.
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Lets a profiler connect from now on. On a thread that ends: the library keeps something for the one that starts it, which must not outlive
/// the library.
fn start() -> io::Result<()> {
    on_thread("profiler", || {
        // SAFETY: once in the process; no thread is attached yet.
        STARTED.call_once(|| unsafe { sys::___tracy_startup_profiler() });
    })
}

/// Tells the profiler the rest, unless threads with zones do not end.
fn end() {
    ACTIVE.store(false, Ordering::Relaxed);
    if ENDED.swap(true, Ordering::SeqCst) {
        return;
    }
    let until = Instant::now() + THREADS_END_MAX;
    while THREADS.load(Ordering::SeqCst) > 0 {
        if Instant::now() > until {
            return eprintln!("the profiler does not learn the end: threads with zones go on");
        }
        std::thread::sleep(POLL);
    }
    // SAFETY: it has been started, and is shut down once. No thread is attached, nor will be, and those that were have run their ends, so nobody
    // calls the library or leaves it something to clean up. On Linux with glibc, that is: ends of a thread run in reverse order of registration,
    // whichever language registered them.
    unsafe { sys::___tracy_shutdown_profiler() };
}

/// Waits until a profiler is connected. Within `work` of [`profiled`]; elsewhere none comes.
pub fn await_profiler() {
    while !look() {
        std::thread::sleep(POLL);
    }
}

/// Notes whether a profiler is connected.
fn look() -> bool {
    // SAFETY: this thread is attached.
    let connected = STARTED.is_completed() && attached() && unsafe { sys::___tracy_connected() } != 0;
    ACTIVE.store(connected, Ordering::Relaxed);
    connected
}

/// Ends a round: a frame mark, and the sums of the round. From here on zones are there if a profiler is.
pub fn end_frame() {
    if ACTIVE.load(Ordering::Relaxed) && attached() {
        for sum in super::sums::ALL {
            sum.plot.emit(sum.sum.swap(0, Ordering::Relaxed));
        }
        // SAFETY: no name: the main frame; this thread is attached.
        unsafe { sys::___tracy_emit_frame_mark(std::ptr::null()) };
    }
    look();
}

/// A zone for a slice of a canister's message, named by both: `go rwlgt-iiaaa-aaaaa-aaaaa-cai`.
#[inline(always)]
pub fn execution_zone<'a>(what: impl FnOnce() -> (CanisterId, &'a str)) -> Zone {
    if ACTIVE.load(Ordering::Relaxed) {
        let (canister, method) = what();
        place_of(canister, method).begin()
    } else {
        Zone { begun: None, one_thread: PhantomData }
    }
}

type Places = HashMap<u64, &'static Place, BuildHasherDefault<AsIs>>;

/// The hash is the key already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// The place of executions of this method of this canister. Two that share a hash share a name too, which misleads whoever looks and nobody
/// else.
fn place_of(canister: CanisterId, method: &str) -> &'static Place {
    thread_local! {
        static KNOWN: RefCell<Places> = RefCell::default();
    }
    let key = mix(mix(0, canister.as_slice()), method.as_bytes());
    KNOWN.with_borrow_mut(|known| {
        if known.len() > 2 * NAMES_MAX {
            known.clear();
        }
        *known.entry(key).or_insert_with(|| place_of_slow(key, canister, method))
    })
}

/// What all threads know.
#[cold]
fn place_of_slow(key: u64, canister: CanisterId, method: &str) -> &'static Place {
    static KNOWN: Mutex<Option<Places>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(place) = known.get(&key) {
        return place;
    }
    if known.len() >= NAMES_MAX {
        return &OTHERS;
    }
    let place = Place::named(&format!("{method} {canister}"), method);
    known.insert(key, place);
    place
}

/// Mixes bytes into a hash: fast, for keys that nobody has an interest in forging.
fn mix(seed: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let hash = words.iter().fold(step(seed, bytes.len() as u64), |hash, word| step(hash, u64::from_le_bytes(*word)));
    let hash = step(hash, u64::from_le_bytes(last));
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_of_each_canister_has_one_place_on_all_threads() {
        let id = CanisterId::from_u64;
        let here = std::ptr::from_ref(place_of(id(1), "go")) as usize;
        let there = std::thread::spawn(move || std::ptr::from_ref(place_of(id(1), "go")) as usize).join().unwrap();
        assert_eq!(here, there);
        let others = [place_of(id(1), "gone"), place_of(id(2), "go"), place_of(id(256), "go")];
        assert!(others.iter().all(|place| std::ptr::from_ref(*place) as usize != here));
    }

    #[test]
    fn nothing_is_evaluated_while_nobody_is_connected() {
        let _zone = execution_zone(|| unreachable!());
        crate::plot!("nothing", || unreachable!());
        super::super::sums::INSTRUCTIONS.add(|| unreachable!());
        let zone = crate::zone!("nothing");
        assert!(zone.begun.is_none());
        end_frame();
    }
}
