//! Compiled code that outlives the process: the engine's cache in files of the module cache.
//!
//! Enters: what the engine compiled, what it asks for. Leaves: files, and their bytes. Never here: anything that a round depends on: code
//! that is not there, or cannot be kept, costs time and a line in the log.

use cyclotron_ports::Disk;
use cyclotron_storage::StorageError;
use cyclotron_storage::module_cache::{KEY_BYTES, ModuleCache, ModuleCacheKey};
use cyclotron_trace::{debug, warn};
use cyclotron_wasm::code_cache::{CodeCache, CodeKey, Damage};
use std::path::Path;
use std::sync::Arc;

/// An engine's cache in a folder.
#[derive(Debug)]
pub struct CodeOnDisk<D: Disk>(ModuleCache<D>);

impl<D: Disk> CodeOnDisk<D> {
    /// Opens the folder, which is made if it is not there; its files have so many bytes at most.
    ///
    /// Errors: it cannot be made or listed.
    pub fn open(disk: Arc<D>, folder: &Path, bytes_max: u64) -> Result<Self, StorageError> {
        Ok(Self(ModuleCache::open(disk, folder, bytes_max)?))
    }

    /// The files.
    pub fn files(&self) -> &ModuleCache<D> {
        &self.0
    }
}

/// What the files of a key are named after. The rest of the fingerprint is in the file.
fn name_of(key: &CodeKey) -> ModuleCacheKey {
    let mut name = [0; KEY_BYTES];
    name[..32].copy_from_slice(&key.module);
    name[32..].copy_from_slice(&key.fingerprint[..KEY_BYTES - 32]);
    name
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<D: Disk> CodeCache for CodeOnDisk<D> {
    fn load(&self, key: &CodeKey) -> Option<Vec<u8>> {
        let bytes = self.0.load(&name_of(key));
        debug!("compiled code of module {}: {}", hex(&key.module), if bytes.is_some() { "kept" } else { "not kept" });
        bytes
    }

    fn store(&self, key: &CodeKey, bytes: &[u8]) {
        if let Err(error) = self.0.store(&name_of(key), bytes) {
            warn!(
                "compiled code of module {} is not kept, and costs time at the next start: {error}",
                hex(&key.module)
            );
        }
    }

    fn discard(&self, key: &CodeKey, damage: Damage) {
        let path = self.0.path_of(&name_of(key)).unwrap_or_default();
        warn!("compiled code in {} is compiled anew and its file removed: {damage}", path.display());
        self.0.remove(&name_of(key));
    }
}
