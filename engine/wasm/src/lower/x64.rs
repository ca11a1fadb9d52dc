//! What stock Cranelift cannot say: two sequences rewritten in the machine code of x86-64.
//!
//! Enters: the code of one function, and which ranges of it came from instrumentation (marked in their source locations). Leaves: the same
//! code, of the same length, with better instructions, and stubs after it. Never here: a guess: a range that does not decode as one
//! of the shapes below stays as it is (a charge) or makes the caller choose other IR (a card test).
//!
//! A charge, `mov r, r15; lea/add r', r, -c; mov r15, r'` and perhaps `test r', r'` before a conditional jump, becomes
//! `nop; add r15, -c`. Both registers are dead after it by construction: the IR value has no other use.
//!
//! A card test, `movzx r, byte [base + index - d]; test r, r; jz trap`, becomes `nop; cmp byte [base + index - d], 0; jz stub` with
//! `stub: push index; push base; call mark; jmp back`. So a test costs the code around it no block, no call and no register.

/// Source locations of charges have this bit.
pub(super) const CHARGE: u32 = 1 << 31;
/// Source locations of card tests have this bit.
pub(super) const CARD: u32 = 1 << 30;
/// The Wasm offset in a marked location.
pub(super) const OFFSET_MASK: u32 = CARD - 1;

/// No-operation instructions by length; longer ones repeat the prefix 0x66.
const NOPS: [&[u8]; 10] = [
    &[],
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];
/// Bytes of the longest instruction.
const NOP_MAX: usize = 15;

/// The pinned register.
const R15: u8 = 15;

const REX_W: u8 = 8;
const REX_R: u8 = 4;
const REX_X: u8 = 2;
const REX_B: u8 = 1;

/// A REX prefix, if there is one.
fn rex(code: &[u8]) -> (u8, usize) {
    match code.first() {
        Some(byte) if byte & 0xf0 == 0x40 => (byte & 0xf, 1),
        _ => (0, 0),
    }
}

fn byte(code: &[u8], at: usize) -> Option<u8> {
    code.get(at).copied()
}

fn int32(code: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(code.get(at..at + 4)?.try_into().ok()?))
}

/// `mov dst, src` between 64-bit registers: `(dst, src, length)`.
fn move_registers(code: &[u8]) -> Option<(u8, u8, usize)> {
    let (rex, at) = rex(code);
    let (opcode, modrm) = (byte(code, at)?, byte(code, at + 1)?);
    if rex & REX_W == 0 || modrm >> 6 != 3 {
        return None;
    }
    let reg = (modrm >> 3 & 7) | if rex & REX_R != 0 { 8 } else { 0 };
    let rm = (modrm & 7) | if rex & REX_B != 0 { 8 } else { 0 };
    match opcode {
        0x89 => Some((rm, reg, at + 2)),
        0x8b => Some((reg, rm, at + 2)),
        _ => None,
    }
}

/// `dst = src + immediate` in 64 bits: `(dst, src, immediate, length)`.
fn add_immediate(code: &[u8]) -> Option<(u8, u8, i32, usize)> {
    let (rex, at) = rex(code);
    if rex & REX_W == 0 {
        return None;
    }
    let opcode = byte(code, at)?;
    let modrm = byte(code, at + 1)?;
    let high = |bit: u8| if rex & bit != 0 { 8 } else { 0 };
    let reg = (modrm >> 3 & 7) | high(REX_R);
    let rm = (modrm & 7) | high(REX_B);
    match (opcode, modrm >> 6, modrm >> 3 & 7) {
        (0x83, 3, 0) => Some((rm, rm, i32::from(byte(code, at + 2)? as i8), at + 3)),
        (0x81, 3, 0) => Some((rm, rm, int32(code, at + 2)?, at + 6)),
        (0x05, _, _) => Some((0, 0, int32(code, at + 1)?, at + 5)),
        (0x8d, mode @ (1 | 2), _) => {
            let mut at = at + 2;
            if rm & 7 == 4 {
                // A SIB byte that says: no index.
                if byte(code, at)? & 0x3f != 0x24 || rex & REX_X != 0 {
                    return None;
                }
                at += 1;
            }
            let (immediate, len) =
                if mode == 1 { (i32::from(byte(code, at)? as i8), 1) } else { (int32(code, at)?, 4) };
            Some((reg, rm, immediate, at + len))
        }
        _ => None,
    }
}

/// `test r, r` of this width: `(register, length)`.
fn test_register(code: &[u8], opcode: u8, wide: bool) -> Option<(u8, usize)> {
    let (rex, at) = rex(code);
    let modrm = byte(code, at + 1)?;
    let reg = (modrm >> 3 & 7) | if rex & REX_R != 0 { 8 } else { 0 };
    let rm = (modrm & 7) | if rex & REX_B != 0 { 8 } else { 0 };
    let fits = byte(code, at)? == opcode && modrm >> 6 == 3 && reg == rm && (rex & REX_W != 0) == wide;
    fits.then_some((reg, at + 2))
}

fn fill(code: &mut [u8], tail: &[u8]) {
    let pad = code.len() - tail.len();
    let mut at = 0;
    while at < pad {
        let len = (pad - at).min(NOP_MAX);
        let nop = NOPS[len.min(NOPS.len() - 1)];
        code[at..at + len].fill(0x66);
        code[at + len - nop.len()..at + len].copy_from_slice(nop);
        at += len;
    }
    code[pad..].copy_from_slice(tail);
}

/// Rewrites one charge at the start of `code`, if it is there. Returns its length.
fn fuse_charge(code: &mut [u8]) -> Option<usize> {
    let (counter, src, mut at) = move_registers(code)?;
    if src != R15 {
        return None;
    }
    let (sum, addend, amount, len) = add_immediate(&code[at..])?;
    at += len;
    let (dst, src, len) = move_registers(&code[at..])?;
    at += len;
    if addend != counter || dst != R15 || src != sum {
        return None;
    }
    if let Some((register, len)) = test_register(&code[at..], 0x85, true)
        && register == sum
    {
        at += len;
    }
    let mut add = [0x49, 0x81, 0xc7, 0, 0, 0, 0];
    let tail = match i8::try_from(amount) {
        Ok(amount) => {
            add[1] = 0x83;
            add[3] = amount as u8;
            &add[..4]
        }
        Err(_) => {
            add[3..].copy_from_slice(&amount.to_le_bytes());
            &add[..]
        }
    };
    if tail.len() > at {
        return None;
    }
    fill(&mut code[..at], tail);
    Some(at)
}

/// Rewrites the charges that begin in the first `len` bytes of `code`, a range that holds nothing else but jumps. (The addition has no
/// source location of its own when the optimizer made it anew, so a charge may run over the end of its range.)
pub(super) fn fuse_charges(code: &mut [u8], len: usize) {
    let mut at = 0;
    while at < len {
        match fuse_charge(&mut code[at..]) {
            Some(len) => at += len,
            None => return,
        }
        // The conditional jump of a check, and the jump behind it, may stand between two charges.
        while let Some(len) = jump(&code[at..]) {
            at += len;
        }
    }
}

/// Whether `code` is the trap that a card test would have jumped to.
pub(super) fn is_trap(code: &[u8]) -> bool {
    code == [0x0f, 0x0b]
}

fn jump(code: &[u8]) -> Option<usize> {
    match (byte(code, 0)?, byte(code, 1)) {
        (0x0f, Some(condition)) if condition & 0xf0 == 0x80 => Some(6),
        (0xe9, _) => Some(5),
        _ => None,
    }
}

/// A load from memory as the card test makes it.
struct Operand {
    /// ModRM (without its register field), SIB if any, displacement.
    bytes: [u8; 6],
    len: usize,
    rex: u8,
    base: u8,
    index: Option<u8>,
    displacement: i32,
}

/// `movzx r, byte [..]`: `(register, operand, length)`.
fn load_byte(code: &[u8]) -> Option<(u8, Operand, usize)> {
    let (rex, mut at) = rex(code);
    if byte(code, at)? != 0x0f || byte(code, at + 1)? != 0xb6 {
        return None;
    }
    at += 2;
    let modrm = byte(code, at)?;
    let start = at;
    let register = (modrm >> 3 & 7) | if rex & REX_R != 0 { 8 } else { 0 };
    if modrm >> 6 != 2 {
        return None;
    }
    at += 1;
    let mut base = modrm & 7;
    let mut index = None;
    if base == 4 {
        let sib = byte(code, at)?;
        at += 1;
        base = sib & 7;
        let found = (sib >> 3 & 7) | if rex & REX_X != 0 { 8 } else { 0 };
        if found != 4 {
            if sib >> 6 != 0 {
                return None;
            }
            index = Some(found);
        }
    }
    base |= if rex & REX_B != 0 { 8 } else { 0 };
    let displacement = int32(code, at)?;
    at += 4;
    let mut bytes = [0; 6];
    let len = at - start;
    bytes[..len].copy_from_slice(&code[start..at]);
    bytes[0] &= !(7 << 3);
    Some((register, Operand { bytes, len, rex, base, index, displacement }, at))
}

fn push_register(register: u8, out: &mut Vec<u8>) {
    if register >= 8 {
        out.push(0x40 | REX_B);
    }
    out.push(0x50 | (register & 7));
}

/// Rewrites the card test in `code[start..end]` and appends its stub. Returns where in `code` the displacement of the stub's call to the
/// mark thunk is to be filled in; `None` if there is no card test as expected, and the code is then not to be used.
///
/// `table` is the displacement of card 0 from `vmctx`.
pub(super) fn rewrite_card_test(code: &mut Vec<u8>, start: usize, end: usize, table: i32) -> Option<usize> {
    let range = code.get(start..end)?;
    let (register, operand, load_len) = load_byte(range)?;
    let (tested, test_len) = test_register(&range[load_len..], 0x84, false)?;
    let test_end = load_len + test_len;
    // `jz`, which ends the range.
    if tested != register || range.get(test_end..test_end + 2)? != [0x0f, 0x84] || test_end + 6 != range.len() {
        return None;
    }
    let mut compare = Vec::with_capacity(10);
    let kept = operand.rex & (REX_X | REX_B);
    if kept != 0 {
        compare.push(0x40 | kept);
    }
    compare.push(0x80);
    compare.extend_from_slice(&operand.bytes[..operand.len]);
    // /7 is the comparison; the immediate is 0.
    let modrm = compare.len() - operand.len;
    compare[modrm] |= 7 << 3;
    compare.push(0);
    if compare.len() > test_end {
        return None;
    }
    let mut stub = Vec::with_capacity(20);
    match operand.index {
        Some(index) => push_register(index, &mut stub),
        None => {
            let page = operand.displacement.checked_sub(table)?;
            stub.push(0x68);
            stub.extend_from_slice(&page.to_le_bytes());
        }
    }
    push_register(operand.base, &mut stub);
    fill(&mut code[start..start + test_end], &compare);
    let back = start + test_end + 6;
    let stub_at = code.len();
    let distance = i32::try_from(stub_at - back).ok()?;
    code[back - 4..back].copy_from_slice(&distance.to_le_bytes());
    code.extend_from_slice(&stub);
    code.push(0xe8);
    let call = code.len();
    code.extend_from_slice(&[0; 4]);
    code.push(0xe9);
    let distance = i32::try_from(back as i64 - (code.len() + 4) as i64).ok()?;
    code.extend_from_slice(&distance.to_le_bytes());
    Some(call)
}

/// Where in [`MARK_THUNK`] the displacement of its call is.
pub(super) const MARK_THUNK_CALL: usize = 17;

/// Between a stub and the helper that keeps all registers: moves what the stub pushed into the helper's two parameters.
pub(super) const MARK_THUNK: [u8; 30] = [
    0x57, // push rdi
    0x56, // push rsi
    0x48, 0x83, 0xec,
    0x08, // sub rsp, 8: the stub pushed two, the calls one each, so the helper's stack is aligned
    0x48, 0x8b, 0x7c, 0x24, 0x20, // mov rdi, [rsp + 32]: base
    0x48, 0x8b, 0x74, 0x24, 0x28, // mov rsi, [rsp + 40]: index
    0xe8, 0, 0, 0, 0, // call helper
    0x48, 0x83, 0xc4, 0x08, // add rsp, 8
    0x5e, // pop rsi
    0x5f, // pop rdi
    0xc2, 0x10, 0x00, // ret 16
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_become_one_addition() {
        // mov rcx, r15; add rcx, -5; mov r15, rcx; test rcx, rcx; jl
        let mut code = vec![
            0x4c, 0x89, 0xf9, 0x48, 0x81, 0xc1, 0xfb, 0xff, 0xff, 0xff, 0x49, 0x89, 0xcf, 0x48, 0x85, 0xc9, 0x0f, 0x8c,
            1, 0, 0, 0,
        ];
        let len = code.len();
        fuse_charges(&mut code, len);
        assert_eq!(code[12..16], [0x49, 0x83, 0xc7, 0xfb]);
        assert_eq!(code[16..18], [0x0f, 0x8c]);
    }
}
