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
//! let mut heap = arena.new_heap(WasmPages::ZERO, max_pages)?;             // cyclotron-heap: memory at rest
//! let seat = seats.take(&heap, engine.tracking())?;                       // where compiled code finds it
//! let mut seated = Seated::instantiate(module, seat, &mut heap)?;         // or Instance::attach(seat) for an existing one
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
//! Imported functions arrive at [`runtime::Host::call`], which sees heap and counter through [`runtime::Caller`].

pub mod abi;
pub mod code;
pub mod compiled;
pub mod lower;
pub mod decode;
pub mod engine;
pub mod meter;
pub mod runtime;
pub mod validate;
