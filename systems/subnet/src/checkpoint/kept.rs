//! What the last checkpoint keeps, and in which files.

use cyclotron_execution::record::{ModuleKey, Places, ProgramRecord};
use cyclotron_heap::layout::PAGE;
use cyclotron_storage::checkpoint::{FileUse, RecordAt};
use cyclotron_types::ids::CanisterId;
use cyclotron_wasm::Module;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Files of pages beyond which the smallest are left: each costs a descriptor.
const FILES_MAX: usize = 48;
/// How many are left then.
const FILES_LEFT: usize = 24;

/// A canister as a checkpoint keeps it. A million of them are in memory: what is usual takes no memory of its own.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub at: RecordAt,
    uses: Uses,
    /// Held for each module that it names: the one at work, and the one that is being installed.
    _modules: [Option<Arc<()>>; 2],
}

/// Bytes that a canister's memories use of files.
#[derive(Clone, Debug)]
enum Uses {
    /// Of at most one.
    One(u32, u64),
    /// Of several.
    Many(Box<[(u32, u64)]>),
}

impl Uses {
    /// Of each file its number and bytes; a file may come more than once.
    fn of(parts: impl Iterator<Item = (u32, u64)>) -> Self {
        let mut uses = BTreeMap::<u32, u64>::new();
        for (file, bytes) in parts {
            *uses.entry(file).or_default() += bytes;
        }
        match uses.len() {
            0 => Self::One(0, 0),
            1 => uses.pop_first().map_or(Self::One(0, 0), |(file, bytes)| Self::One(file, bytes)),
            _ => Self::Many(uses.into_iter().collect()),
        }
    }

    /// The files of which something is used.
    fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let (one, many) = match self {
            Self::One(_, 0) => (None, &[][..]),
            Self::One(file, bytes) => (Some((*file, *bytes)), &[][..]),
            Self::Many(uses) => (None, &**uses),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

/// Where the record of each canister is.
pub(crate) type Canisters = Arc<BTreeMap<CanisterId, Held>>;

impl Held {
    /// A canister whose record and pages are at places. The modules that it names are kept already.
    pub fn of(program: &ProgramRecord, places: &Places, at: RecordAt, kept: &Kept) -> Self {
        let runs = places.iter().flatten();
        let uses = Uses::of(runs.map(|run| (run.at.file, u64::from(run.count) * PAGE as u64)));
        Self::naming(at, uses, program.modules().filter_map(|key| kept.name_module(&key, &BTreeSet::new())))
    }

    fn naming(at: RecordAt, uses: Uses, modules: impl IntoIterator<Item = Arc<()>>) -> Self {
        let mut modules = modules.into_iter();
        let held = [modules.next(), modules.next()];
        assert!(modules.next().is_none(), "a canister names one module, and one that is being installed");
        Self { at, uses, _modules: held }
    }
}

/// A module as a checkpoint keeps it.
#[derive(Debug)]
pub(crate) struct HeldModule {
    pub at: RecordAt,
    /// Its bytes, for when it is kept elsewhere.
    pub code: Arc<Module>,
    /// Cloned by each canister that names it.
    named: Arc<()>,
}

/// Pages of a file, and bytes that are used of it.
#[derive(Clone, Copy, Debug, Default)]
struct File {
    pages: u32,
    used: u64,
    /// A checkpoint was made that does not use it: it goes from the disk, and no other may name it. It stays open for memories that lie in it.
    gone: bool,
}

/// The index of a checkpoint, and its account of files.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Shared with the thread that writes a checkpoint, as long as it does; nothing changes meanwhile.
    canisters: Canisters,
    modules: BTreeMap<ModuleKey, HeldModule>,
    files: BTreeMap<u32, File>,
    /// The next checkpoint leaves all files.
    leave_all: bool,
}

impl Kept {
    /// Notes a file. What is used of it is counted as it is named.
    pub fn file(&mut self, number: u32, pages: u32) {
        self.files.entry(number).or_default().pages = pages;
    }

    /// All records of canisters and modules are to be kept anew; pages of memories stay where they are.
    pub fn start_over(&mut self) {
        self.canisters = Canisters::default();
        self.modules.clear();
        self.files.values_mut().for_each(|file| file.used = 0);
    }

    /// Forgets a file that does not come to exist. Nothing is named in it any more.
    pub fn forget_file(&mut self, number: u32) {
        self.files.remove(&number);
    }

    fn count(&mut self, number: u32, bytes: u64, sign: fn(u64, u64) -> u64) {
        let file = self.files.get_mut(&number).expect("what is kept is in a file that is known");
        file.used = sign(file.used, bytes);
    }

    fn count_held(&mut self, held: &Held, sign: fn(u64, u64) -> u64) {
        self.count(held.at.page.file, held.at.length, sign);
        for (file, bytes) in held.uses.iter() {
            self.count(file, bytes, sign);
        }
    }

    /// A canister is kept here from now on, and no longer where it was; or nowhere.
    pub fn canister(&mut self, id: CanisterId, held: Option<Held>) {
        if let Some(held) = &held {
            self.count_held(held, u64::saturating_add);
        }
        // Nobody writes a checkpoint now: it is not copied.
        let canisters = Arc::make_mut(&mut self.canisters);
        let before = match held {
            Some(held) => canisters.insert(id, held),
            None => canisters.remove(&id),
        };
        if let Some(before) = before {
            self.count_held(&before, u64::saturating_sub);
        }
    }

    /// The place of a module, to be named by a canister; `None` if it is to be kept first.
    pub fn name_module(&self, key: &ModuleKey, leave: &BTreeSet<u32>) -> Option<Arc<()>> {
        let module = self.modules.get(key).filter(|module| !leave.contains(&module.at.page.file))?;
        Some(Arc::clone(&module.named))
    }

    /// A module is kept here from now on.
    pub fn module(&mut self, code: &Arc<Module>, at: RecordAt) {
        self.count(at.page.file, at.length, u64::saturating_add);
        let new = || HeldModule { at, code: Arc::clone(code), named: Arc::default() };
        let module = self.modules.entry(*code.hash()).or_insert_with(new);
        let before = std::mem::replace(&mut module.at, at);
        if before != at {
            self.count(before.page.file, before.length, u64::saturating_sub);
        }
    }

    /// Lets go of modules that no canister names.
    pub fn forget_unnamed_modules(&mut self) {
        let unnamed = self.modules.extract_if(.., |_, module| Arc::strong_count(&module.named) == 1);
        for (_, module) in unnamed.collect::<Vec<_>>() {
            self.count(module.at.page.file, module.at.length, u64::saturating_sub);
        }
    }

    /// Lets the next checkpoint keep all in its own file.
    pub fn leave_all(&mut self) {
        self.leave_all = true;
    }

    /// The files that the next checkpoint should not need any more: those used by less than half, and the smallest if there are many; or all.
    pub fn files_to_leave(&mut self) -> BTreeSet<u32> {
        if std::mem::take(&mut self.leave_all) {
            return self.files.keys().copied().collect();
        }
        if self.canisters.is_empty() {
            // Nothing is known of what is used.
            return self.files.iter().filter(|(_, file)| file.gone).map(|(number, _)| *number).collect();
        }
        let bytes = |file: &File| u64::from(file.pages) * PAGE as u64;
        let half_empty =
            self.files.iter().filter(|(_, file)| file.gone || file.used == 0 || file.used * 2 < bytes(file));
        let mut leave: BTreeSet<u32> = half_empty.map(|(number, _)| *number).collect();
        if self.files.len() - leave.len() > FILES_MAX {
            let mut sizes: Vec<(u64, u32)> = self.files.iter().map(|(number, file)| (file.used, *number)).collect();
            sizes.sort_unstable();
            leave.extend(sizes.iter().take(FILES_LEFT).map(|(_, number)| *number));
        }
        leave
    }

    /// Canisters of which something is in one of these files, and modules that are.
    pub fn in_files(&self, files: &BTreeSet<u32>) -> (Vec<CanisterId>, Vec<Arc<Module>>) {
        if files.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let uses =
            |held: &Held| files.contains(&held.at.page.file) || held.uses.iter().any(|(file, _)| files.contains(&file));
        let canisters = self.canisters.iter().filter(|(_, held)| uses(held)).map(|(id, _)| *id);
        let modules = self.modules.iter().filter(|(_, module)| files.contains(&module.at.page.file));
        (canisters.collect(), modules.map(|(_, module)| Arc::clone(&module.code)).collect())
    }

    /// The files of which something is used.
    pub fn files(&self) -> Vec<FileUse> {
        let used = self.files.iter().filter(|(_, file)| file.used > 0);
        used.map(|(number, file)| FileUse { number: *number, pages: file.pages, used: file.used }).collect()
    }

    /// A checkpoint was made: forgets files of which it uses nothing, once no memory lies in them. One that was copied while a checkpoint was written lies
    /// in files as they were before, until another takes it. Returns those that stay.
    pub fn forget_unused_files(&mut self, is_held: impl Fn(u32) -> bool) -> BTreeSet<u32> {
        self.files.values_mut().for_each(|file| file.gone |= file.used == 0);
        self.files.retain(|number, file| !file.gone || is_held(*number));
        self.files.keys().copied().collect()
    }

    pub fn canisters(&self) -> &Canisters {
        &self.canisters
    }

    pub fn modules(&self) -> impl Iterator<Item = (&ModuleKey, &HeldModule)> {
        self.modules.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cyclotron_heap::PageAt;
    use cyclotron_wasm::{Engine, EngineConfig};

    fn at(file: u32, length: u64) -> RecordAt {
        RecordAt { page: PageAt { file, index: 0 }, offset: 0, length }
    }

    fn held(kept: &Kept, code: &Module, file: u32, uses: &[(u32, u64)]) -> Held {
        Held::naming(at(file, 10), Uses::of(uses.iter().copied()), kept.name_module(code.hash(), &BTreeSet::new()))
    }

    #[test]
    fn what_is_used_of_files_is_what_canisters_and_modules_name() {
        let code = Engine::new(EngineConfig::canister()).unwrap().compile(b"\0asm\x01\0\0\0").unwrap();
        let mut kept = Kept::default();
        let id = CanisterId::from_u64;
        for (number, pages) in [(1, 4), (2, 2), (3, 1)] {
            kept.file(number, pages);
        }
        kept.module(&code, at(1, 100));
        for n in 0..2 {
            let held = held(&kept, &code, 1, &[(1, 4_096), (2, 4_096)]);
            kept.canister(id(n), Some(held));
        }
        let used = |kept: &Kept| kept.files().iter().map(|file| (file.number, file.used)).collect::<Vec<_>>();
        assert_eq!(used(&kept), [(1, 100 + 2 * 4_106), (2, 8_192)]);
        assert_eq!(kept.files_to_leave(), BTreeSet::from([3]));
        // One moves on, the other goes.
        let moved = held(&kept, &code, 3, &[(3, 4_096)]);
        kept.canister(id(0), Some(moved));
        kept.canister(id(1), None);
        kept.forget_unnamed_modules();
        assert_eq!(used(&kept), [(1, 100), (3, 4_106)]);
        assert_eq!(kept.files_to_leave(), BTreeSet::from([1, 2]));
        let in_file = |kept: &Kept, number| {
            let (canisters, modules) = kept.in_files(&BTreeSet::from([number]));
            (canisters, modules.len())
        };
        assert_eq!((in_file(&kept, 1), in_file(&kept, 3)), ((vec![], 1), (vec![id(0)], 0)));
        assert_eq!(kept.forget_unused_files(|file| file == 2), BTreeSet::from([1, 2, 3]), "a memory lies in 2");
        // It is left whatever is known.
        kept.start_over();
        assert_eq!(kept.files_to_leave(), BTreeSet::from([2]));
        kept.module(&code, at(3, 100));
        let again = held(&kept, &code, 3, &[(3, 4_096)]);
        kept.canister(id(0), Some(again));
        assert_eq!(kept.files_to_leave(), BTreeSet::from([1, 2]));
        assert_eq!(kept.forget_unused_files(|file| file == 1), BTreeSet::from([1, 3]));
        assert_eq!(kept.forget_unused_files(|_| false), BTreeSet::from([3]));
        kept.canister(id(0), None);
        kept.forget_unnamed_modules();
        assert_eq!((used(&kept), kept.modules().count()), (vec![], 0));
    }

    #[test]
    fn many_files_become_fewer() {
        let mut kept = Kept::default();
        for n in 0..FILES_MAX as u32 + 1 {
            kept.file(n, 1);
            kept.canister(
                CanisterId::from_u64(u64::from(n)),
                Some(Held::naming(at(n, 3_000 + u64::from(n)), Uses::of([].into_iter()), None)),
            );
        }
        assert_eq!(kept.files_to_leave(), (0..FILES_LEFT as u32).collect());
    }
}
