//! What computes: found at run time, and opened once.

use cyclotron_shaders::Width;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wgpu_core::global::Global;
use wgpu_core::id::{DeviceId, QueueId};
use wgpu_types as wgt;

/// Why nothing came of it. What a failed device said before remains true; it says nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(pub String);

impl Failed {
    pub(crate) fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// Which adapter is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One with a processor of its own, the discrete ones first.
    Hardware,
    /// A driver that computes on this processor: for tests.
    Software,
}

/// Longest wait for what was submitted; who needs longer is lost. A software driver compiles while one waits.
const PATIENCE_HARDWARE: Duration = Duration::from_secs(10);
const PATIENCE_SOFTWARE: Duration = Duration::from_secs(600);

/// Whether the kernel has a GPU for programs: where there is none, no driver is loaded, which takes its time and may write to the standard error.
fn has_device_file() -> bool {
    let is_there = |path: &str| std::path::Path::new(path).exists();
    let mut render_nodes = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten();
    ["/dev/nvidiactl", "/dev/kfd", "/dev/dxg"].into_iter().any(is_there)
        || render_nodes.any(|entry| entry.file_name().to_string_lossy().starts_with("renderD"))
}

/// An open device. It lives as long as its kernels.
pub struct Device {
    pub(crate) global: Global,
    pub(crate) id: DeviceId,
    pub(crate) queue: QueueId,
    pub(crate) limits: wgt::Limits,
    pub(crate) patience: Duration,
    name: String,
    width: Width,
    failed: AtomicBool,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).field("width", &self.width).finish_non_exhaustive()
    }
}

impl Device {
    /// Opens the best adapter of a kind. `width`: of the limbs that it must be able to compute with; else the widest that it can.
    ///
    /// Errors: there is no such adapter, no driver, or no Vulkan at all.
    pub fn open(choice: Choice, width: Option<Width>) -> Result<Self, Failed> {
        if choice == Choice::Hardware && !has_device_file() {
            return Err(Failed("there is no GPU".to_owned()));
        }
        let descriptor = wgt::InstanceDescriptor {
            backends: wgt::Backends::VULKAN,
            // Neither debug layers nor names, whatever the profile.
            flags: wgt::InstanceFlags::empty(),
            ..wgt::InstanceDescriptor::new_without_display_handle()
        };
        let global = Global::new("cyclotron", descriptor, None);
        let rank = |device_type| match (choice, device_type) {
            (Choice::Hardware, wgt::DeviceType::DiscreteGpu) => Some(0),
            (Choice::Hardware, wgt::DeviceType::IntegratedGpu) => Some(1),
            (Choice::Hardware, wgt::DeviceType::VirtualGpu) => Some(2),
            (Choice::Software, wgt::DeviceType::Cpu) => Some(0),
            _ => None,
        };
        let adapter = global
            .enumerate_adapters(wgt::Backends::VULKAN, false)
            .into_iter()
            .filter_map(|adapter| Some((rank(global.adapter_get_info(adapter).device_type)?, adapter)))
            .min_by_key(|(rank, _)| *rank);
        let Some((_, adapter)) = adapter else {
            return Err(Failed(format!("there is no Vulkan adapter of the kind {choice:?}")));
        };
        let info = global.adapter_get_info(adapter);
        let has_int64 = global.adapter_features(adapter).contains(wgt::Features::SHADER_INT64);
        let width = match width {
            Some(Width::Bits64) if !has_int64 => return Err(Failed(format!("{} has no 64-bit integers", info.name))),
            Some(width) => width,
            None if has_int64 => Width::Bits64,
            None => Width::Bits32,
        };
        let limits = global.adapter_limits(adapter);
        let descriptor = wgt::DeviceDescriptor {
            label: None,
            required_features: match width {
                Width::Bits32 => wgt::Features::empty(),
                Width::Bits64 => wgt::Features::SHADER_INT64,
            },
            required_limits: limits.clone(),
            experimental_features: wgt::ExperimentalFeatures::disabled(),
            memory_hints: wgt::MemoryHints::MemoryUsage,
            trace: wgt::Trace::Off,
        };
        let (id, queue) = global.adapter_request_device(adapter, &descriptor, None, None).map_err(Failed::new)?;
        let patience = match choice {
            Choice::Hardware => PATIENCE_HARDWARE,
            Choice::Software => PATIENCE_SOFTWARE,
        };
        Ok(Self { global, id, queue, limits, patience, name: info.name, width, failed: AtomicBool::new(false) })
    }

    /// As its driver calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of the limbs that it computes with.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Takes the device away, as a driver might at any time: what is submitted comes to nothing.
    pub fn destroy(&self) {
        self.global.device_destroy(self.id);
    }

    /// What went wrong once goes wrong for good. Errors: it did.
    pub fn check(&self) -> Result<(), Failed> {
        match self.failed.load(Ordering::Acquire) {
            true => Err(Failed(format!("{} failed before", self.name))),
            false => Ok(()),
        }
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}
