//! Running the systems of a schedule with a zone around each, for a profiler.
//!
//! Enters: a built schedule, the world. Leaves: the world as bevy's own executor for one thread leaves it. Never here: a system that is
//! skipped; conditions of systems and sets (`run_if`) are not looked at, since rounds have none.

use bevy_ecs::error::{BevyError, ErrorContext};
use bevy_ecs::schedule::{ApplyDeferred, FixedBitSet, SystemExecutor, SystemSchedule};
use bevy_ecs::system::{RunSystemError, System};
use bevy_ecs::world::World;
use cyclotron_trace::Place;
use std::any::TypeId;

/// Runs systems one after the other in the order of the schedule.
#[derive(Default)]
pub(crate) struct ZonedExecutor {
    /// Of each system, in order.
    places: Vec<&'static Place>,
    apply_final_deferred: bool,
}

impl ZonedExecutor {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), apply_final_deferred: true }
    }
}

impl SystemExecutor for ZonedExecutor {
    fn init(&mut self, _: &SystemSchedule) {
        // Systems are reached only through `&mut`: their names are taken at the first run.
        self.places.clear();
    }

    fn run(
        &mut self,
        schedule: &mut SystemSchedule,
        world: &mut World,
        _: Option<&FixedBitSet>,
        error_handler: fn(BevyError, ErrorContext),
    ) {
        // SAFETY: systems are only run, told to apply what they deferred, and asked; none is replaced.
        let systems = unsafe { schedule.systems_mut() };
        if self.places.len() != systems.len() {
            self.places = systems.iter().map(|system| place(&system.name().to_string())).collect();
        }
        let mut unapplied = 0;
        for at in 0..systems.len() {
            if systems[at].system_type() == TypeId::of::<ApplyDeferred>() {
                systems[unapplied..at].iter_mut().for_each(|system| system.apply_deferred(world));
                unapplied = at + 1;
                continue;
            }
            let zone = self.places[at].enter();
            let system = &mut systems[at];
            let outcome = system.run_without_applying_deferred((), world);
            drop(zone);
            if let Err(RunSystemError::Failed(error)) = outcome {
                error_handler(error, ErrorContext::System { name: system.name(), last_run: system.get_last_run() });
            }
        }
        if self.apply_final_deferred {
            systems[unapplied..].iter_mut().for_each(|system| system.apply_deferred(world));
        }
    }

    fn set_apply_final_deferred(&mut self, value: bool) {
        self.apply_final_deferred = value;
    }
}

/// Where the zones of a system begin: its name without the path, and the path.
fn place(path: &str) -> &'static Place {
    Place::named(short(path), path)
}

/// The last segment of a path; what is in `<>` may have paths of its own.
fn short(path: &str) -> &str {
    let end = path.find('<').unwrap_or(path.len());
    let start = path[..end].trim_end_matches("::").rfind("::").map_or(0, |at| at + 2);
    &path[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round_schedule;
    use bevy_ecs::resource::Resource;
    use bevy_ecs::schedule::{IntoScheduleConfigs, ScheduleLabel, SingleThreadedExecutor};
    use bevy_ecs::system::{Commands, ResMut};

    #[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
    struct Beat;

    #[derive(Default, Resource)]
    struct Ran(Vec<&'static str>);

    #[derive(Resource)]
    struct Made;

    fn first(mut ran: ResMut<Ran>, mut commands: Commands) {
        ran.0.push("first");
        commands.insert_resource(Made);
    }

    fn second(world: &mut World) {
        let made = world.contains_resource::<Made>();
        world.resource_mut::<Ran>().0.push(if made { "second, applied" } else { "second, not applied" });
    }

    fn third(mut ran: ResMut<Ran>) {
        ran.0.push("third");
    }

    fn ran(executor: impl SystemExecutor + 'static) -> Vec<&'static str> {
        let mut schedule = round_schedule(Beat);
        schedule.set_executor(executor);
        schedule.add_systems((first, second, third).chain());
        let mut world = World::new();
        world.init_resource::<Ran>();
        schedule.run(&mut world);
        schedule.run(&mut world);
        world.remove_resource::<Ran>().unwrap().0
    }

    #[test]
    fn systems_run_as_without_zones() {
        let zoned = ran(ZonedExecutor::new());
        assert_eq!(zoned, ran(SingleThreadedExecutor::new()));
        assert_eq!(zoned[..3], ["first", "second, applied", "third"]);
        assert_eq!(zoned.len(), 6);
    }

    #[test]
    fn zones_go_by_the_last_segment_of_the_path() {
        for (path, name) in [
            ("cyclotron_routing::statuses::forget_statuses", "forget_statuses"),
            ("subnet::observe::stage_ended<2>", "stage_ended<2>"),
            ("a::system<b::C<d::E>>", "system<b::C<d::E>>"),
            ("alone", "alone"),
        ] {
            assert_eq!(short(path), name);
        }
    }
}
