//! What is measured on and with: processor, load, clocks.
//!
//! Enters: /proc. Leaves: a line for the head of a table, seconds. Never here: anything that decides a result.

use rustix::time::{ClockId, clock_gettime};

/// Where the time of a case comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Clock {
    /// Elapsed time.
    Wall,
    /// Processor time of all threads of this process. Used for single-threaded cases alone.
    Cpu,
}

impl Clock {
    /// Seconds since some moment.
    pub fn now(self) -> f64 {
        let now = clock_gettime(match self {
            Clock::Wall => ClockId::Monotonic,
            Clock::Cpu => ClockId::ProcessCPUTime,
        });
        now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
    }

    /// Seconds that `work` takes, and what it returns.
    pub fn time<R>(self, work: impl FnOnce() -> R) -> (f64, R) {
        let start = self.now();
        let result = work();
        (self.now() - start, result)
    }
}

/// Processor, number of threads, memory.
pub fn describe() -> String {
    let field = |text: &str, name: &str| -> Option<String> {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| field(&text, "model name"));
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemTotal"));
    format!(
        "{}, {} threads, {}",
        processor.unwrap_or_else(|| "unknown processor".into()),
        threads(),
        memory.unwrap_or_else(|| "unknown memory".into())
    )
}

/// Hardware threads that this process may use.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Load averages over 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
