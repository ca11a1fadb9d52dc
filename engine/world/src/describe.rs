//! Which system reads and writes what: the page that answers "who touches the queues?" without a debugger.

use bevy_ecs::query::ComponentAccessKind;
use bevy_ecs::schedule::Schedule;
use bevy_ecs::system::SystemAccess;
use bevy_ecs::world::World;

/// One system of a schedule, in running order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemLine {
    /// Path of the system's function.
    pub name: String,
    /// Components and resources it reads.
    pub reads: Vec<String>,
    /// Components and resources it may change.
    pub writes: Vec<String>,
    /// Whether it holds the whole world.
    pub exclusive: bool,
}

/// Lists the systems of a schedule that has been initialized, in the order in which they run.
///
/// Panics: when the schedule was never initialized.
pub fn describe(schedule: &Schedule, world: &World) -> Vec<SystemLine> {
    let name = |id| world.components().get_name(id).map_or_else(|| "?".into(), |n| n.shortname().to_string());
    schedule
        .systems_with_access()
        .expect("the schedule is initialized")
        .map(|(_, system)| {
            let mut line = SystemLine {
                name: system.system().name().to_string(),
                reads: Vec::new(),
                writes: Vec::new(),
                exclusive: system.access().is_exclusive(),
            };
            let SystemAccess::Shared(set) = system.access() else { return line };
            match set.combined_access().try_iter_access() {
                Ok(accesses) => {
                    for access in accesses {
                        match access {
                            ComponentAccessKind::Exclusive(id) => line.writes.push(name(id)),
                            ComponentAccessKind::Shared(id) => line.reads.push(name(id)),
                            ComponentAccessKind::Archetypal(_) => {}
                        }
                    }
                }
                Err(_) => line.exclusive = true,
            }
            line.reads.sort();
            line.writes.sort();
            line
        })
        .collect()
}
