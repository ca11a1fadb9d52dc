//! The wall around `bevy_ecs`: what systems may use of it, and what they may not rely on.
//!
//! Enters: systems and components. Leaves: schedules that run in one fixed order on one thread, rows that are stable within the process,
//! pools of recycled entities, and a description of which system touches what.
//! Never here: an IC rule; an order taken from entities or archetypes.

mod describe;
mod pool;
mod rows;
mod unique;
mod zoned;

pub use describe::{SystemLine, describe};
pub use pool::Pool;
pub use rows::Rows;
pub use unique::unique;

/// What systems need of `bevy_ecs`.
pub mod prelude {
    pub use crate::{Pool, Rows, round_schedule, unique};
    pub use bevy_ecs::component::Component;
    pub use bevy_ecs::entity::{Entity, UniqueEntityVec};
    pub use bevy_ecs::query::{QueryData, With};
    pub use bevy_ecs::resource::Resource;
    pub use bevy_ecs::schedule::{IntoScheduleConfigs, Schedule, ScheduleLabel, SystemSet};
    pub use bevy_ecs::system::{Local, Query, Res, ResMut};
    pub use bevy_ecs::world::World;
}

use bevy_ecs::schedule::{LogLevel, Schedule, ScheduleBuildSettings, ScheduleLabel, SingleThreadedExecutor};
use zoned::ZonedExecutor;

/// A schedule whose systems run one after the other (parallelism lives inside systems), and which refuses to be built while two
/// systems with conflicting access have no order. With a profiler compiled in, each system is a zone; see `zoned`.
pub fn round_schedule(label: impl ScheduleLabel) -> Schedule {
    let mut schedule = Schedule::new(label);
    if cyclotron_trace::COMPILED_IN {
        schedule.set_executor(ZonedExecutor::new());
    } else {
        schedule.set_executor(SingleThreadedExecutor::new());
    }
    schedule.set_build_settings(ScheduleBuildSettings {
        ambiguity_detection: LogLevel::Error,
        hierarchy_detection: LogLevel::Error,
        ..ScheduleBuildSettings::new()
    });
    schedule
}
