//! The Wasm engine: decode, validate, meter, lower to machine code, run, suspend and resume.
//!
//! Enters: Wasm bytes and the tables of the Internet Computer's rules. Leaves: modules, executions and their outcomes.
//! Never here: what a host function does.
//!
//! # A message
//!
//! ```text
//! let engine = Engine::new(EngineConfig::canister())?;
//! let module = engine.compile(&bytes)?;                                   // cached by hash; shared by instances
//! let mut heap = arena.new_heap(WasmPages::ZERO, module.heap_pages_max())?; // cyclotron-heap: memory at rest
//! let instance = Instance::instantiate(module, &mut heap)?;               // globals, data segments; persists between messages
//! let seat = seats.take(&heap, module.tracking())?;                       // where compiled code finds the heap
//! let mut seated = instance.attach(seat);
//!
//! seated.begin_message(&heap)?;                                           // begin_view(..) for a query on a view seat
//! let mut run = Execution::start(seated, Entry::Export("canister_update go"), &[], host, message_limit)?;
//! let finished = loop {
//!     match run.resume(slice) {
//!         Outcome::Suspended(suspended) => run = suspended,               // may be kept for rounds; drop = abort
//!         Outcome::Finished(finished) => break finished,
//!     }
//! };
//! // finished.{host, result, instructions, dirty_pages}; a trap has been rolled back already
//! finished.seated.commit(&mut heap);                                      // or .rollback()
//! let (instance, seat) = finished.seated.detach();                        // or keep it seated for the next message
//! ```
//!
//! [`Standalone`] does all of this for one instance with a heap of its own: tests, tools, measurements.
//!
//! Imported functions arrive at [`runtime::Host::call`], which sees heap and counter through [`runtime::Caller`].

pub mod abi;
pub mod calls;
pub mod code;
pub mod code_cache;
pub mod compiled;
pub mod decode;
pub mod engine;
pub mod lower;
pub mod meter;
mod profile;
pub mod runtime;
pub mod sampler;
mod standalone;
mod symbols;
pub mod validate;

pub use engine::{Engine, EngineConfig, EngineError, Module};
pub use profile::TrackingPolicy;
pub use standalone::{Run, Standalone, StandaloneError};
pub use symbols::write_perf_map;
