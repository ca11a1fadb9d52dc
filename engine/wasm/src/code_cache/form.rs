//! The bytes of kept code, version 1; `storage/FORMAT.md`, "Compiled code", says each.
//!
//! Enters: compiled code and its key, or bytes. Leaves: bytes, or exactly the code that they were made of. Never here: a panic on any bytes, or an
//! offset that leads out of the code.

use std::fmt;

use sha2::{Digest, Sha256};

use super::CodeKey;
use crate::abi::{FRAME_SLOTS, TrapCode};
use crate::compiled::{CallSite, CheckSite, CompiledFunction, CompiledModule, TrapSite};

const MAGIC: [u8; 8] = *b"CYCLCOD\0";
const VERSION: u32 = 1;
/// Bytes before the packed body.
pub const HEADER_BYTES: usize = 120;
/// Bytes that the checksum begins to cover again at: it lies before them.
const CHECKSUM_AT: usize = 88;
/// Bytes of an unpacked body at most. A module's 10 MiB of Wasm code become some 100 MiB.
const BODY_BYTES_MAX: usize = 1 << 30;
/// Bytes of the whole at most: what does not become shorter by packing becomes hardly longer.
pub const SEALED_BYTES_MAX: usize = BODY_BYTES_MAX + (BODY_BYTES_MAX >> 6);
/// Counts at the beginning of the body.
const COUNTS: usize = 8;
/// Bytes of one native frame at most: far beyond what a function of the largest module makes.
const FRAME_BYTES_MAX: u32 = 1 << 30;

/// In what way bytes are not what was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage(pub &'static str);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Damage {}

/// What the code must be of, as its module says.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Defined functions.
    pub functions: usize,
    /// Imported functions.
    pub imports: usize,
    /// For each type the first type equal to it.
    pub canonical_types: &'a [u32],
}

/// Puts a body between a header that names its key and a checksum over both.
///
/// Panics: when the body is longer than a gigabyte, which no module within the limits comes near.
pub fn seal(key: &CodeKey, body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= BODY_BYTES_MAX, "compiled code of {} bytes", body.len());
    let packed = lz4_flex::block::compress(body);
    let mut out = Vec::with_capacity(HEADER_BYTES + packed.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&key.module);
    out.extend_from_slice(&key.fingerprint);
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let checksum = checksum(&out, &packed);
    out.extend_from_slice(&checksum);
    out.extend_from_slice(&packed);
    out
}

fn checksum(header: &[u8], packed: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(header).chain_update(packed).finalize().into()
}

/// The body of sealed bytes, once every one of them has been compared with the checksum.
///
/// Errors: they are of another version or key, or not whole.
pub fn unseal(key: &CodeKey, bytes: &[u8]) -> Result<Vec<u8>, Damage> {
    let Some((header, packed)) = bytes.split_at_checked(HEADER_BYTES) else { return Err(Damage("it is cut off")) };
    let (header, sum) = header.split_at(CHECKSUM_AT);
    if header[..8] != MAGIC {
        return Err(Damage("it holds something else than compiled code"));
    }
    if header[8..16] != u64::from(VERSION).to_le_bytes() {
        return Err(Damage("it is of another version"));
    }
    if checksum(header, packed) != sum {
        return Err(Damage("its checksum is wrong"));
    }
    if header[16..48] != key.module || header[48..80] != key.fingerprint {
        return Err(Damage("it is of another module or program than its name says"));
    }
    let mut length = [0; 8];
    length.copy_from_slice(&header[80..]);
    let length = usize::try_from(u64::from_le_bytes(length)).ok().filter(|length| *length <= BODY_BYTES_MAX);
    let length = length.ok_or(Damage("it is longer than any code"))?;
    match lz4_flex::block::decompress(packed, length) {
        Ok(body) if body.len() == length => Ok(body),
        _ => Err(Damage("it cannot be unpacked")),
    }
}

/// The body for compiled code: counts, the code, then its tables.
pub fn encode(compiled: &CompiledModule) -> Vec<u8> {
    let CompiledModule {
        code, functions, import_wrappers, entry_trampolines, traps, checks, check_thunk, calls, ..
    } = compiled;
    let mut out = Vec::with_capacity(body_bytes(counts_of(compiled)).unwrap_or(0));
    let mut put = |word: u32| out.extend_from_slice(&word.to_le_bytes());
    // Code is shorter than 2 GiB, and tables have an entry for some bytes of it.
    counts_of(compiled).map(|count| count as u32).into_iter().for_each(&mut put);
    put(*check_thunk);
    out.extend_from_slice(code);
    let mut row = |words: &[u32]| words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    for function in functions {
        row(&[function.offset, function.len, function.frame_bytes, function.stack_slots]);
    }
    row(import_wrappers);
    row(entry_trampolines);
    for site in traps {
        row(&[site.offset, site.code as u32, site.wasm_offset, site.pending]);
    }
    for site in checks {
        row(&[site.offset, site.resume]);
    }
    for site in calls {
        row(&[site.return_offset, site.wasm_offset]);
    }
    out
}

fn counts_of(compiled: &CompiledModule) -> [usize; COUNTS - 1] {
    [
        compiled.code.len(),
        compiled.functions.len(),
        compiled.import_wrappers.len(),
        compiled.entry_trampolines.len(),
        compiled.traps.len(),
        compiled.checks.len(),
        compiled.calls.len(),
    ]
}

/// Bytes of a body with these counts. `None`: more than there can be.
fn body_bytes(counts: [usize; COUNTS - 1]) -> Option<usize> {
    const EACH: [usize; COUNTS - 1] = [1, 16, 4, 4, 16, 8, 8];
    counts.into_iter().zip(EACH).try_fold(COUNTS * 4, |sum, (count, each)| sum.checked_add(count.checked_mul(each)?))
}

/// Words of the tables, taken from the front. Their number has been compared with the body's length.
struct Words<'a>(std::slice::Iter<'a, [u8; 4]>);

impl Words<'_> {
    fn next(&mut self) -> Result<u32, Damage> {
        self.0.next().map(|word| u32::from_le_bytes(*word)).ok_or(Damage("a table is cut off"))
    }

    fn row<const N: usize>(&mut self) -> Result<[u32; N], Damage> {
        let mut row = [0; N];
        for word in &mut row {
            *word = self.next()?;
        }
        Ok(row)
    }
}

/// The code of a body. Every offset in it lies in the code, every table is in its order, and it has what the module asks for.
///
/// Errors: it is not of such a module, or of none.
pub fn decode(body: &[u8], expected: &Expected<'_>) -> Result<CompiledModule, Damage> {
    let Some((head, rest)) = body.split_at_checked(COUNTS * 4) else { return Err(Damage("it is cut off")) };
    let mut head = Words(head.as_chunks().0.iter());
    let [code_bytes, functions, wrappers, trampolines, traps, checks, calls] = head.row()?.map(|count| count as usize);
    let check_thunk = head.next()?;
    if body_bytes([code_bytes, functions, wrappers, trampolines, traps, checks, calls]) != Some(body.len()) {
        return Err(Damage("its length is not that of its tables"));
    }
    if (functions, wrappers, trampolines) != (expected.functions, expected.imports, expected.canonical_types.len()) {
        return Err(Damage("it is of a module with other functions"));
    }
    if code_bytes > i32::MAX as usize {
        return Err(Damage("it is longer than any code"));
    }
    let (code, tables) = rest.split_at(code_bytes);
    let mut words = Words(tables.as_chunks().0.iter());
    let end = code_bytes as u32;
    let inside = |offset: u32| if offset < end { Ok(offset) } else { Err(Damage("an offset leads out of the code")) };
    let mut out = CompiledModule {
        code: code.to_vec(),
        functions: Vec::with_capacity(functions),
        traps: Vec::with_capacity(traps),
        checks: Vec::with_capacity(checks),
        check_thunk: inside(check_thunk)?,
        calls: Vec::with_capacity(calls),
        type_ids: expected.canonical_types.to_vec(),
        ..CompiledModule::default()
    };
    let mut free = 0;
    for _ in 0..functions {
        let [offset, len, frame_bytes, stack_slots] = words.row()?;
        if offset < free || offset.checked_add(len).is_none_or(|behind| behind > end) {
            return Err(Damage("a function is not where functions are"));
        }
        if stack_slots < FRAME_SLOTS || frame_bytes > FRAME_BYTES_MAX {
            return Err(Damage("a frame is smaller or larger than frames are"));
        }
        free = offset + len;
        out.functions.push(CompiledFunction { offset, len, frame_bytes, stack_slots });
    }
    out.import_wrappers = (0..wrappers).map(|_| inside(words.next()?)).collect::<Result<_, _>>()?;
    out.entry_trampolines = (0..trampolines).map(|_| inside(words.next()?)).collect::<Result<_, _>>()?;
    for _ in 0..traps {
        let [offset, code, wasm_offset, pending] = words.row()?;
        let code = u8::try_from(code).ok().and_then(TrapCode::from_u8).ok_or(Damage("a trap is of no kind"))?;
        out.traps.push(TrapSite { offset: inside(offset)?, code, wasm_offset, pending });
    }
    for _ in 0..checks {
        let [offset, resume] = words.row()?;
        out.checks.push(CheckSite { offset: inside(offset)?, resume: inside(resume)? });
    }
    for _ in 0..calls {
        let [return_offset, wasm_offset] = words.row()?;
        // A call that never returns may be the last instruction.
        if return_offset > end {
            return Err(Damage("an offset leads out of the code"));
        }
        out.calls.push(CallSite { return_offset, wasm_offset });
    }
    let sorted = out.traps.is_sorted_by_key(|site| site.offset)
        && out.checks.is_sorted_by_key(|site| site.offset)
        && out.calls.is_sorted_by_key(|site| site.return_offset);
    if sorted { Ok(out) } else { Err(Damage("a table is not in its order")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CodeKey = CodeKey { module: [3; 32], fingerprint: [4; 32] };
    const EXPECTED: Expected<'_> = Expected { functions: 2, imports: 1, canonical_types: &[0, 0] };

    fn small() -> CompiledModule {
        let trap = |offset, code| TrapSite { offset, code, wasm_offset: offset + 70, pending: 5 };
        CompiledModule {
            code: (0..100).collect(),
            functions: [0, 48]
                .map(|offset| CompiledFunction { offset, len: 30, frame_bytes: 16, stack_slots: 9 })
                .into(),
            import_wrappers: vec![80],
            entry_trampolines: vec![90, 90],
            traps: vec![trap(3, TrapCode::Unreachable), trap(50, TrapCode::Status)],
            checks: vec![CheckSite { offset: 20, resume: 8 }],
            check_thunk: 95,
            calls: vec![
                CallSite { return_offset: 9, wasm_offset: 77 },
                CallSite { return_offset: 100, wasm_offset: 78 },
            ],
            type_ids: vec![0, 0],
        }
    }

    #[test]
    fn code_comes_back_as_it_left() {
        let sealed = seal(&KEY, &encode(&small()));
        assert_eq!(unseal(&KEY, &sealed).and_then(|body| decode(&body, &EXPECTED)), Ok(small()));
        let empty = CompiledModule { code: vec![0xcc], ..CompiledModule::default() };
        let nothing = Expected { functions: 0, imports: 0, canonical_types: &[] };
        assert_eq!(decode(&encode(&empty), &nothing), Ok(empty));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage() {
        let sealed = seal(&KEY, &encode(&small()));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                assert!(unseal(&KEY, &flipped).is_err(), "bit {bit} of byte {at}");
            }
            assert!(unseal(&KEY, &sealed[..at]).is_err(), "{at} bytes");
        }
        assert!(unseal(&KEY, &[&sealed[..], &[0]].concat()).is_err(), "a byte more");
    }

    #[test]
    fn code_of_another_module_or_program_is_none() {
        let sealed = seal(&KEY, &encode(&small()));
        for other in [CodeKey { module: [5; 32], ..KEY }, CodeKey { fingerprint: [5; 32], ..KEY }] {
            assert!(unseal(&other, &sealed).is_err());
        }
        for other in [
            Expected { functions: 1, ..EXPECTED },
            Expected { imports: 0, ..EXPECTED },
            Expected { canonical_types: &[0], ..EXPECTED },
        ] {
            assert_eq!(decode(&encode(&small()), &other), Err(Damage("it is of a module with other functions")));
        }
    }

    #[test]
    fn offsets_and_orders_are_checked_even_where_the_checksum_is_right() {
        let check = |change: &dyn Fn(&mut CompiledModule), what: &'static str| {
            let mut code = small();
            change(&mut code);
            assert_eq!(decode(&encode(&code), &EXPECTED), Err(Damage(what)));
        };
        const OUT: &str = "an offset leads out of the code";
        check(&|code| code.check_thunk = 100, OUT);
        check(&|code| code.import_wrappers[0] = 100, OUT);
        check(&|code| code.entry_trampolines[1] = u32::MAX, OUT);
        check(&|code| code.traps[1].offset = 100, OUT);
        check(&|code| code.checks[0].resume = 100, OUT);
        check(&|code| code.calls[1].return_offset = 101, OUT);
        check(&|code| code.functions[1].len = 53, "a function is not where functions are");
        check(&|code| code.functions[1].offset = 29, "a function is not where functions are");
        check(&|code| code.functions[1].len = u32::MAX, "a function is not where functions are");
        check(&|code| code.functions[0].stack_slots = FRAME_SLOTS - 1, "a frame is smaller or larger than frames are");
        check(&|code| code.functions[0].frame_bytes = u32::MAX, "a frame is smaller or larger than frames are");
        check(&|code| code.traps.swap(0, 1), "a table is not in its order");
        check(&|code| code.calls.swap(0, 1), "a table is not in its order");
    }

    #[test]
    fn no_body_brings_decoding_down() {
        let body = encode(&small());
        for at in 0..body.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = body.clone();
                changed[at] = value;
                if let Ok(code) = decode(&changed, &EXPECTED) {
                    assert_eq!(encode(&code), changed, "what is taken is what was written");
                }
            }
            assert!(decode(&body[..at], &EXPECTED).is_err(), "{at} bytes");
        }
    }
}
