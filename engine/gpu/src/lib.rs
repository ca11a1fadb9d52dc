//! Kernels on a GPU, for computing alone.
//!
//! Enters: a [`Program`](cyclotron_shaders::Program), and jobs by the batch. Leaves: a result for each job, or [`Failed`]. Never here: what a job means; a
//! window; a panic because a device, a driver or the whole of Vulkan is missing or goes away, which is an error like any other.
//!
//! This stands on wgpu's core and not on the crate `wgpu` around it, which panics when a device is lost while somebody waits for it.

mod device;
mod kernel;

pub use device::{Choice, Device, Failed};
pub use kernel::Kernel;
