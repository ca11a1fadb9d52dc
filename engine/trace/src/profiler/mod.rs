//! Zones, plots and frame marks for the Tracy profiler: compiled in with the cargo feature `tracy`, otherwise nothing at all.
//!
//! Enters: begins and ends of zones, numbers, ends of rounds. Leaves: events on TCP port 8086 of this machine, to a profiler that connects.
//! Never here: anything that a caller could read back; work for arguments while nobody is connected.
//!
//! Without the feature each type here has no size and each function no body: closures that make names and numbers are dropped uncalled.
//! With it and without a profiler a zone is one load and one branch: whether somebody is connected is looked up once a round, at
//! [`end_frame`], so that the zones of one round are either all there or none.

#[cfg(not(feature = "tracy"))]
mod off;
#[cfg(feature = "tracy")]
mod on;
#[cfg(feature = "tracy")]
mod timeline;

#[cfg(not(feature = "tracy"))]
pub use off::{COMPILED_IN, Place, Plot, Sum, Zone, end_frame, execution_zone, profiled};
#[cfg(feature = "tracy")]
pub use on::{COMPILED_IN, Place, Plot, Sum, Zone, await_profiler, end_frame, execution_zone, profiled};
#[cfg(feature = "tracy")]
pub use timeline::{Timeline, function_place};

/// Times the rest of the block as a zone of this name: `let _zone = zone!("log flush");`
#[macro_export]
macro_rules! zone {
    ($name:literal) => {{
        static PLACE: $crate::Place =
            $crate::Place::new(concat!($name, "\0"), concat!(module_path!(), "\0"), concat!(file!(), "\0"), line!());
        PLACE.enter()
    }};
}

/// Shows a number over time: `plot!("ingress pool", || pool.len());` The closure is called only while a profiler is connected.
#[macro_export]
macro_rules! plot {
    ($name:literal, $value:expr) => {{
        static PLOT: $crate::Plot = $crate::Plot::new(concat!($name, "\0"));
        PLOT.show($value)
    }};
}

/// What is summed over a round and shown at its end.
pub mod sums {
    use super::Sum;

    /// Instructions of canisters.
    pub static INSTRUCTIONS: Sum = Sum::new("instructions a round\0");
    /// Slices of messages and tasks.
    pub static EXECUTIONS: Sum = Sum::new("executions a round\0");
    /// Pages of heaps and stable memories that messages wrote.
    pub static DIRTY_PAGES: Sum = Sum::new("dirty pages a round\0");
    /// Bytes written to logs, checkpoints and the cache of compiled code.
    pub static BYTES_WRITTEN: Sum = Sum::new("bytes written a round\0");

    /// All of them.
    #[cfg(feature = "tracy")]
    pub(super) static ALL: [&Sum; 4] = [&INSTRUCTIONS, &EXECUTIONS, &DIRTY_PAGES, &BYTES_WRITTEN];
}
