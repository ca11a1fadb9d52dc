//! A store of pages in memory that counts what is read.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{Memory, MemoryKind, PageAt, PageRun, PageStore, merge_runs};

/// Pages in memory, and how many of them were read. Whoever reads passes both gates, if there are any.
#[derive(Debug, Default)]
pub struct Store {
    pub gates: Option<[Barrier; 2]>,
    pub pages: Mutex<BTreeMap<(u32, u32), [u8; PAGE]>>,
    pub read: AtomicU64,
}

impl PageStore for Store {
    fn read(&self, at: PageAt, into: &mut [u8]) -> Result<(), String> {
        for gate in self.gates.iter().flatten() {
            gate.wait();
        }
        for (n, into) in into.as_chunks_mut::<PAGE>().0.iter_mut().enumerate() {
            let pages = self.pages.lock().unwrap();
            let page = pages.get(&(at.file, at.index + n as u32));
            *into = *page.ok_or_else(|| format!("page {} of file {}", at.index + n as u32, at.file))?;
            self.read.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn hold(&self, _file: u32) -> Arc<()> {
        // All of it stays.
        Arc::default()
    }
}

/// Saves what changed, as a checkpoint does.
pub fn save<K: MemoryKind>(memory: &mut Memory<K>, store: &Arc<Store>, file: u32) -> u64 {
    let pages = memory.begin_save().clone();
    let (mut runs, mut index, mut content) = (Vec::new(), 0, [0; PAGE]);
    for page in pages.iter() {
        memory.committed(|committed| committed.read(page.address(), &mut content)).unwrap();
        if content.iter().any(|byte| *byte != 0) {
            store.pages.lock().unwrap().insert((file, index), content);
            PageRun::push(&mut runs, PageRun { first: page.0, count: 1, at: PageAt { file, index } });
            index += 1;
        }
    }
    let shared: Arc<dyn PageStore> = Arc::clone(store) as _;
    let runs = merge_runs(&memory.runs(), &pages, &runs);
    memory.saved(&shared, runs);
    pages.len()
}
