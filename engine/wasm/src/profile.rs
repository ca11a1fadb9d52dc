//! Which way of noticing stores suits an instance: tests in the code, or page protection.
//!
//! Enters: instructions and saved pages of each message. Leaves: the cheaper [`Tracking`] for messages like these.
//! Never here: anything that replicas must agree on; results and charges are the same either way, only speed differs.
//!
//! A test costs a little at every store, a fault a lot once for a page and message. Code that computes for long and stores to few pages
//! is therefore compiled a second time, without tests, in the background, and its messages run on protected pages.

use cyclotron_heap::Tracking;
use cyclotron_types::units::Instructions;

/// When an instance changes from one way to the other. Local to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackingPolicy {
    /// Whether anything changes at all.
    pub adapt: bool,
    /// An instance is looked at after this many instructions,
    pub window_instructions: u64,
    /// or this many messages and saved pages together.
    pub window_pages: u64,
    /// Protection from this many instructions on for each message and saved page.
    pub protect_from: u64,
    /// Tests below this many.
    pub test_below: u64,
    /// Instructions that an instance has run for each byte of its module before that is compiled again for it.
    pub compile_after: u64,
}

impl Default for TrackingPolicy {
    /// Measured on a Cascade Lake at 2.5 GHz: tests take up to 0.1 ns an instruction of the kernels in `perf`; a fault takes about 10,000 ns, and
    /// 1,000 where it saves a block of pages; so they break even at 10,000 to 100,000 instructions a page. Compilation takes 2,500 ns a byte,
    /// which code brings back that runs for half a minute for each megabyte.
    fn default() -> Self {
        Self {
            adapt: true,
            window_instructions: 1 << 26,
            window_pages: 1 << 12,
            protect_from: 100_000,
            test_below: 50_000,
            compile_after: 50_000,
        }
    }
}

/// 4^10 windows.
const CAUTION_MAX: u8 = 10;

/// What an instance has done lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoreProfile {
    instructions: u64,
    pages: u64,
    total: u64,
    wanted: Option<Tracking>,
    /// Windows in a row that would have been cheaper on protected pages.
    in_a_row: u32,
    /// `log4` of how many it takes: one more each time that protection turned out to be wrong. A single message can store to so many pages
    /// that their faults save a heap of gigabytes, so it must not pay to alternate.
    caution: u8,
}

impl StoreProfile {
    /// A message has ended.
    #[inline]
    pub fn note(&mut self, instructions: Instructions, pages_saved: u64) {
        self.instructions = self.instructions.saturating_add(instructions.0);
        self.pages = self.pages.saturating_add(1 + pages_saved);
    }

    /// The way that suits the messages of the last full window; `None`: either.
    #[inline]
    pub fn wanted(&mut self, policy: &TrackingPolicy) -> Option<Tracking> {
        if self.instructions >= policy.window_instructions || self.pages >= policy.window_pages {
            let per_page = self.instructions / self.pages.max(1);
            if per_page >= policy.protect_from {
                self.in_a_row = self.in_a_row.saturating_add(1);
                if self.in_a_row >= 1 << (2 * self.caution) {
                    self.wanted = Some(Tracking::Protect);
                }
            } else if per_page < policy.test_below {
                self.in_a_row = 0;
                if self.wanted == Some(Tracking::Protect) {
                    self.caution = (self.caution + 1).min(CAUTION_MAX);
                }
                self.wanted = Some(Tracking::Cards);
            }
            self.total = self.total.saturating_add(self.instructions);
            (self.instructions, self.pages) = (0, 0);
        }
        self.wanted
    }

    /// Whether it has run enough for a module of this many bytes to be compiled again.
    pub fn is_worth_compiling(&self, module_bytes: usize, policy: &TrackingPolicy) -> bool {
        self.total >= policy.compile_after.saturating_mul(module_bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_after(messages: u64, instructions: u64, pages: u64) -> Option<Tracking> {
        let (mut profile, policy) = (StoreProfile::default(), TrackingPolicy::default());
        (0..messages).for_each(|_| profile.note(Instructions(instructions), pages));
        profile.wanted(&policy)
    }

    #[test]
    fn what_computes_long_and_changes_little_is_protected() {
        assert_eq!(wanted_after(1, 1 << 26, 100), Some(Tracking::Protect));
        assert_eq!(wanted_after(1, 1 << 26, 10_000), Some(Tracking::Cards));
        assert_eq!(wanted_after(2_048, 5_000, 1), Some(Tracking::Cards));
        // Between the bounds nothing changes, nor before a window is full.
        assert_eq!(wanted_after(1, 1 << 26, 900), None);
        assert_eq!(wanted_after(10, 5_000, 1), None);
    }

    #[test]
    fn an_opinion_lasts_until_the_next_window_is_full() {
        let (mut profile, policy) = (StoreProfile::default(), TrackingPolicy::default());
        profile.note(Instructions(1 << 27), 1);
        assert_eq!(profile.wanted(&policy), Some(Tracking::Protect));
        profile.note(Instructions(10), 1_000);
        assert_eq!(profile.wanted(&policy), Some(Tracking::Protect));
        profile.note(Instructions(10), 4_000);
        assert_eq!(profile.wanted(&policy), Some(Tracking::Cards));
        // The next time it takes four windows.
        for window in 1..=4 {
            profile.note(Instructions(1 << 27), 1);
            let expected = if window < 4 { Tracking::Cards } else { Tracking::Protect };
            assert_eq!(profile.wanted(&policy), Some(expected), "window {window}");
        }
        assert!(profile.is_worth_compiling(13_000, &policy) && !profile.is_worth_compiling(14_000, &policy));
    }
}
