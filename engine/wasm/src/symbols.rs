//! Names of compiled functions, for profilers: the map that `perf` reads, and what samples are explained with.
//!
//! Enters: code that has become executable, the module's names. Leaves: lines of `/tmp/perf-PID.map`; [`Symbols`] by the code's serial number.
//! Never here: anything for code that was made executable before somebody asked; anything at all while nobody has.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::code::Code;
use crate::decode::ExportKind;
use crate::runtime::ModuleShape;

/// What of a module is neither a function of it nor a function that it imports.
pub(crate) const HELPERS: &str = "[entries and helpers]";
/// Bytes of a module's hash in names.
const HASH_BYTES: usize = 4;

/// Whether anybody wants names.
static WANTED: AtomicBool = AtomicBool::new(false);
static WANTING: Mutex<Wanting> = Mutex::new(Wanting { map: None, keep: false, kept: BTreeMap::new() });

/// Who wants names, and what they got.
struct Wanting {
    map: Option<File>,
    keep: bool,
    kept: BTreeMap<u64, Arc<Symbols>>,
}

/// The names of one module's code.
#[derive(Debug)]
pub(crate) struct Symbols {
    /// The module, by its hash.
    pub(crate) module: String,
    /// First bytes, and names, sorted; each goes on to the next.
    names: Vec<(u32, String)>,
}

impl Symbols {
    fn of(code: &Code, shape: &ModuleShape, hash: &[u8; 32]) -> Symbols {
        let module = hash[..HASH_BYTES].iter().fold(String::from("module "), |mut text, byte| {
            // Writing to a string does not fail.
            let _written = write!(text, "{byte:02x}");
            text
        });
        let (wrappers, beside) = code.beside_functions();
        let exported: BTreeMap<u32, &str> = shape
            .exports
            .iter()
            .filter(|export| export.kind == ExportKind::Function)
            .map(|export| (export.index, &*export.name))
            .collect();
        let imported = shape.import_names.len() as u32;
        let functions = code.tables().functions().iter().zip(imported..).map(|(function, index)| {
            let known = shape.function_name(index).or_else(|| exported.get(&index).copied());
            (function.offset, known.map_or_else(|| format!("{module}:func[{index}]"), one_line))
        });
        let wrappers = wrappers
            .iter()
            .zip(&shape.import_names)
            .map(|(offset, (from, name))| (*offset, one_line(&format!("{from}.{name}"))));
        let beside = beside.map(|offset| (offset, HELPERS.to_owned()));
        let mut names: Vec<_> = functions.chain(wrappers).chain(beside).collect();
        names.sort();
        Symbols { module, names }
    }

    /// The name of what holds the byte at `offset`, as its number.
    pub(crate) fn at(&self, offset: u32) -> Option<u32> {
        self.names.partition_point(|(start, _)| *start <= offset).checked_sub(1).map(|at| at as u32)
    }

    /// A name by its number.
    pub(crate) fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("?", |(_, name)| name)
    }

    /// Lines of a perf map for code of `len` bytes at `start`.
    fn map_lines(&self, start: usize, len: usize) -> String {
        let ends = self.names.iter().skip(1).map(|(next, _)| *next as usize).chain([len]);
        let mut lines = String::new();
        for ((offset, name), end) in self.names.iter().zip(ends) {
            let (at, size) = (start + *offset as usize, end.saturating_sub(*offset as usize));
            let _written = writeln!(lines, "{at:x} {size:x} {name} [{}]", self.module);
        }
        lines
    }
}

/// A name as one line of text; canisters choose names.
fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn wanting() -> MutexGuard<'static, Wanting> {
    WANTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the name and place of each function that becomes executable from now on to `/tmp/perf-PID.map`, where `perf report` looks for
/// them. Returns the file.
pub fn write_perf_map() -> io::Result<PathBuf> {
    let path = PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()));
    // What another process of this number left, or somebody put there to have us write elsewhere, goes: the file must be new.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    wanting().map = Some(File::create_new(&path)?);
    WANTED.store(true, Ordering::Relaxed);
    Ok(path)
}

/// Keeps the names of code that becomes executable from now on.
pub(crate) fn keep() {
    wanting().keep = true;
    WANTED.store(true, Ordering::Relaxed);
}

/// The kept names of the code with this serial number.
pub(crate) fn kept(serial: u64) -> Option<Arc<Symbols>> {
    wanting().kept.get(&serial).cloned()
}

/// Takes note of code that has become executable, if somebody wants its names.
#[inline]
pub(crate) fn note(code: &Code, shape: &ModuleShape, hash: &[u8; 32]) {
    if WANTED.load(Ordering::Relaxed) {
        note_wanted(code, shape, hash);
    }
}

#[cold]
fn note_wanted(code: &Code, shape: &ModuleShape, hash: &[u8; 32]) {
    let symbols = Symbols::of(code, shape, hash);
    let mut wanting = wanting();
    if let Some(map) = &mut wanting.map {
        let lines = symbols.map_lines(code.tables().start(), code.tables().len());
        // A map that takes no more says nothing of what runs: the profile shows addresses then.
        if map.write_all(lines.as_bytes()).is_err() {
            wanting.map = None;
        }
    }
    if wanting.keep {
        wanting.kept.insert(code.tables().serial(), Arc::new(symbols));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_a_line_for_each_range() {
        let names = vec![(0, "first".into()), (16, "module 01020304:func[1]".into()), (48, HELPERS.into())];
        let symbols = Symbols { module: "module 01020304".into(), names };
        expect_test::expect![[r#"
            1000 10 first [module 01020304]
            1010 20 module 01020304:func[1] [module 01020304]
            1030 10 [entries and helpers] [module 01020304]
        "#]]
        .assert_eq(&symbols.map_lines(0x1000, 64));
        let found: Vec<_> = [0, 15, 16, 63].map(|offset| symbols.at(offset).map(|n| symbols.name(n))).into();
        assert_eq!(found, [Some("first"), Some("first"), Some("module 01020304:func[1]"), Some(HELPERS)]);
    }
}
