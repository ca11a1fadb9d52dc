//! Compiled code outside of the process: bytes that leave, and come back as the code that they were.
//!
//! Enters: code that was compiled, or bytes that a [`CodeCache`] kept. Leaves: the other of the two. Never here: files (`storage`); an
//! address of the process, since code is position-independent and calls the runtime through its context; a result that depends on what
//! was kept: whatever is not exactly what this program would make on this processor is a miss.
//!
//! The checksum finds damage, not malice: who can write the bytes can make the node execute anything, as who can write the program can.

mod fingerprint;
mod form;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub use fingerprint::fingerprint;
pub use form::{Damage, Expected, HEADER_BYTES, SEALED_BYTES_MAX, decode, encode, seal, unseal};

use crate::compiled::CompiledModule;

/// Modules that wait to be written; more are not kept.
const WRITES_WAITING_MAX: usize = 64;

/// What compiled code is kept under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeKey {
    /// SHA-256 of the module as it was sent.
    pub module: [u8; 32],
    /// Of what else the code follows from; see [`fingerprint`].
    pub fingerprint: [u8; 32],
}

/// Where compiled code is kept beyond the process. All of it may be lost at any time.
///
/// Trusted as the program itself: what it gives back with a right checksum becomes executable.
pub trait CodeCache: Send + Sync {
    /// The bytes that were kept under this key, if there are any.
    fn load(&self, key: &CodeKey) -> Option<Vec<u8>>;

    /// Keeps bytes. Called from a thread of its own, beside rounds; a failure is the cache's to report.
    fn store(&self, key: &CodeKey, bytes: &[u8]);

    /// Forgets what it gave back under this key, which is not what was kept.
    fn discard(&self, key: &CodeKey, damage: Damage);
}

/// How an engine has come to its code so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeCounts {
    /// Modules that were compiled.
    pub compiled: u64,
    /// Modules whose code was kept.
    pub loaded: u64,
}

/// An engine's cache, if it has been given one, and what came of it.
#[derive(Default)]
pub(crate) struct Kept {
    cache: OnceLock<Arc<dyn CodeCache>>,
    waiting: AtomicUsize,
    compiled: AtomicU64,
    loaded: AtomicU64,
}

impl Kept {
    /// False: there is a cache already.
    pub fn keep_in(&self, cache: Arc<dyn CodeCache>) -> bool {
        self.cache.set(cache).is_ok()
    }

    pub fn is_used(&self) -> bool {
        self.cache.get().is_some()
    }

    pub fn counts(&self) -> CodeCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CodeCounts { compiled: of(&self.compiled), loaded: of(&self.loaded) }
    }

    /// The code that was kept under a key, if it is whole and of a module like the `expected` one.
    pub fn load(&self, key: &CodeKey, expected: &Expected<'_>) -> Option<CompiledModule> {
        let cache = self.cache.get()?;
        let bytes = cache.load(key)?;
        match unseal(key, &bytes).and_then(|body| decode(&body, expected)) {
            Ok(compiled) => {
                self.loaded.fetch_add(1, Ordering::Relaxed);
                Some(compiled)
            }
            Err(damage) => {
                cache.discard(key, damage);
                None
            }
        }
    }

    /// Code was compiled; returns its key if it is to be handed to [`Kept::store`].
    pub fn was_compiled(&self, key: Option<CodeKey>) -> Option<CodeKey> {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        key.filter(|_| {
            let has_room = self.waiting.fetch_add(1, Ordering::Relaxed) < WRITES_WAITING_MAX;
            if !has_room {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            has_room
        })
    }

    /// Hands code to the cache.
    pub fn store(&self, key: &CodeKey, compiled: &CompiledModule) {
        if let Some(cache) = self.cache.get() {
            cache.store(key, &seal(key, &encode(compiled)));
        }
        self.waiting.fetch_sub(1, Ordering::Release);
    }

    /// Whether code waits to be handed to the cache, or is being.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}
