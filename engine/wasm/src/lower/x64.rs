//! What stock Cranelift cannot say: two sequences rewritten in the machine code of x86-64.
//!
//! Enters: the code of one function, and which ranges of it came from instrumentation (marked in their source locations). Leaves: the same
//! code, of the same length, with better instructions, and stubs after it. Never here: a guess: a range that does not decode as one
//! of the shapes below stays as it is (a charge) or makes the caller choose other IR (a card test).
//!
//! A charge, `mov r, r15; lea/add r', r, -c; mov r15, r'`, becomes `add r15, -c`, made as long by what does nothing. Both registers are
//! dead after it by construction: the IR value has no other use. A checked charge is followed by `test r', r'` and a conditional jump to a
//! `ud2`; the test goes too if it stands right behind; if other instructions came between, all stays as it is. Where the code goes on after
//! the `ud2`, [`find_checks`] says; a check without a jump of its own is a fault of ours and refuses the module.
//!
//! A card test, `movzx r, byte [base + index - d]; test r, r; jz trap`, becomes `cmp byte [base + index - d], 0; jz stub` with
//! `stub: push index; push base; call mark; jmp back`. So a test costs the code around it no block, no call and no register. (A comparison
//! with the low byte of `vmctx`, which is zero, would join the jump; tried on a Cascade Lake, it made a sort 8 % slower, and which of the two
//! registers holds `vmctx` is not certain.)

/// Source locations of charges have this bit.
pub(super) const CHARGE: u32 = 1 << 31;
/// Source locations of card tests have this bit.
pub(super) const CARD: u32 = 1 << 30;
/// Source locations of charges whose sum is tested have both.
pub(super) const CHECKED_CHARGE: u32 = CHARGE | CARD;
/// The Wasm offset in a marked location.
pub(super) const OFFSET_MASK: u32 = CARD - 1;

/// A segment override that 64-bit mode ignores; assemblers pad with it too.
const IGNORED_PREFIX: u8 = 0x2e;
/// Bytes of the longest instruction.
const INSTRUCTION_MAX: usize = 15;
/// Where each function is aligned to. Processors keep decoded instructions by lines of this many bytes. Intel's up to Cascade Lake keep none
/// in which a jump, or what they join with it, crosses or touches the end (erratum SKX102, "jump conditional code").
pub(super) const LINE: usize = 32;
/// Bytes of a conditional jump.
const JUMP_LEN: usize = 6;
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

/// Does nothing for as long as `code` is: as prefixes of the instruction behind it, which takes no operation of its own, or by itself.
fn pad(code: &mut [u8], joins: bool) {
    if joins {
        return code.fill(IGNORED_PREFIX);
    }
    for one in code.chunks_mut(INSTRUCTION_MAX) {
        let nop = NOPS[one.len().min(NOPS.len() - 1)];
        one.fill(0x66);
        let at = one.len() - nop.len();
        one[at..].copy_from_slice(nop);
    }
}

/// Replaces `code`, which begins at `at` of its function, by an instruction that sets flags for the conditional jump right behind it.
///
/// Both are one operation of the processor if nothing stands between them; but not where that would keep it from keeping the line.
fn fill_before_jump(code: &mut [u8], at: usize, instruction: &[u8]) {
    let jump = at + code.len();
    let leaves_line = |start: usize| start / LINE != (jump + JUMP_LEN) / LINE;
    if leaves_line(jump - instruction.len()) && !leaves_line(jump) {
        code[..instruction.len()].copy_from_slice(instruction);
        pad(&mut code[instruction.len()..], false);
    } else {
        let (before, last) = code.split_at_mut(code.len() - instruction.len());
        pad(before, false);
        last.copy_from_slice(instruction);
    }
}

/// Rewrites one charge at the start of `code`, which is byte `start` of its function, if it is there. Returns its length.
/// A checked charge whose test does not stand right behind it stays as it is. (A search for the test further on has taken that of another
/// charge, which the register allocator had given the same register, and left this one's reading what the rewritten code no longer makes.)
fn fuse_charge(code: &mut [u8], start: usize, checked: bool) -> Option<usize> {
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
    if checked {
        let (_, len) = test_register(&code[at..], 0x85, true).filter(|(tested, _)| *tested == sum)?;
        at += len;
    }
    let mut add = [0x49, 0x81, 0xc7, 0, 0, 0, 0];
    add[3..].copy_from_slice(&amount.to_le_bytes());
    let short = i8::try_from(amount).ok().map(|amount| [0x49, 0x83, 0xc7, amount as u8]);
    match (jump(&code[at..]), short) {
        (Some(JUMP_LEN), Some(short)) => fill_before_jump(&mut code[..at], start, &short),
        (Some(JUMP_LEN), None) if at >= add.len() => fill_before_jump(&mut code[..at], start, &add),
        _ if (add.len()..=INSTRUCTION_MAX).contains(&at) => {
            let (before, last) = code[..at].split_at_mut(at - add.len());
            pad(before, true);
            last.copy_from_slice(&add);
        }
        _ => return None,
    }
    Some(at)
}

/// Rewrites the charges that begin in `code[start..end]`, a range that holds nothing else but jumps. (The addition has no source location of
/// its own when the optimizer made it anew, so a charge may run over the end of its range.)
pub(super) fn fuse_charges(code: &mut [u8], (start, end): (usize, usize), checked: bool) {
    let mut at = start;
    while at < end {
        match fuse_charge(&mut code[at..], at, checked) {
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
        (0x0f, Some(condition)) if condition & 0xf0 == 0x80 => Some(JUMP_LEN),
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
    if rex & REX_W == 0 || byte(code, at)? != 0x0f || byte(code, at + 1)? != 0xb6 {
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

/// A card test found in machine code.
struct CardTest {
    /// Where its load begins.
    start: usize,
    /// Where its `jz` begins.
    jump: usize,
    operand: Operand,
    /// A spill of another register between load and test, which the register allocator may put there.
    spill: Vec<u8>,
}

/// `mov [rsp + displacement], r`: `(register, length)`.
fn spill(code: &[u8]) -> Option<(u8, usize)> {
    let (rex, at) = rex(code);
    let modrm = byte(code, at + 1)?;
    let plain = rex & (REX_X | REX_B) == 0 && byte(code, at)? == 0x89;
    if !plain || modrm & 7 != 4 || byte(code, at + 2)? != 0x24 {
        return None;
    }
    let len = match modrm >> 6 {
        0 => 0,
        1 => 1,
        2 => 4,
        _ => return None,
    };
    let register = (modrm >> 3 & 7) | if rex & REX_R != 0 { 8 } else { 0 };
    Some((register, at + 3 + len))
}

/// The card test in `code[start..end]`, a range that may hold moves of the register allocator too. It is found by its jump, whose
/// distance must lead to one of `traps` (sorted), and read backwards from there.
fn find_card_test(code: &[u8], start: usize, end: usize, traps: &[u32]) -> Option<CardTest> {
    let jump = (start..end.checked_sub(5)?).find(|at| {
        let to = || Some(i64::try_from(at + 6).ok()? + i64::from(int32(code, at + 2)?));
        code[*at..at + 2] == [0x0f, 0x84]
            && to().is_some_and(|to| u32::try_from(to).is_ok_and(|to| traps.binary_search(&to).is_ok()))
    })?;
    for test in [3, 2] {
        let Some(test_at) = jump.checked_sub(test) else { continue };
        let Some((tested, len)) = test_register(&code[test_at..jump], 0x84, false) else { continue };
        if len != test {
            continue;
        }
        for distance in (8..=9).chain(8 + 4..=9 + 8) {
            let Some(load_at) = test_at.checked_sub(distance) else { continue };
            if load_at < start {
                break;
            }
            let Some((register, operand, len)) = load_byte(&code[load_at..test_at]) else { continue };
            if register != tested {
                continue;
            }
            let between = &code[load_at + len..test_at];
            let harmless = between.is_empty()
                || spill(between).is_some_and(|(spilled, len)| len == between.len() && spilled != register);
            if harmless {
                let spill = between.to_vec();
                return Some(CardTest { start: load_at, jump, operand, spill });
            }
        }
    }
    None
}

/// Rewrites the card test in `code[start..end]` and appends its stub. Returns where in `code` the displacement of the stub's call to the
/// mark thunk is to be filled in; `None` if there is no card test as expected, and the code is then not to be used.
///
/// `traps` are the places that card tests jump to, sorted; `table` is the displacement of card 0 from `vmctx`.
pub(super) fn rewrite_card_test(
    code: &mut Vec<u8>,
    (start, end): (usize, usize),
    traps: &[u32],
    table: i32,
) -> Option<usize> {
    let CardTest { start, jump, operand, spill } = find_card_test(code, start, end, traps)?;
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
    if spill.len() + compare.len() > jump - start {
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
    let (moved, compared) = code[start..jump].split_at_mut(spill.len());
    moved.copy_from_slice(&spill);
    let (before, last) = compared.split_at_mut(compared.len() - compare.len());
    pad(before, true);
    last.copy_from_slice(&compare);
    let back = jump + 6;
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

/// Where in [`CHECK_THUNK`] the displacement of its call is.
pub(super) const CHECK_THUNK_CALL: usize = 1;

/// What a check that failed calls, by the signal handler's hand: a frame is there, and the place of the first parameter saved below it.
pub(super) const CHECK_THUNK: [u8; 12] = [
    0xe8, 0, 0, 0, 0, // call helper
    0x48, 0x83, 0xc4, 0x08, // add rsp, 8
    0x5f, // pop rdi
    0x5d, // pop rbp
    0xc3, // ret
];

/// Where the code goes on behind each of the checks that lead to `traps` (sorted): behind its conditional jump, which is `marked`. `None`:
/// there is not one such jump for each.
pub(super) fn find_checks(code: &[u8], traps: &[u32], marked: impl Fn(u32) -> bool) -> Option<Vec<u32>> {
    let mut resume = vec![0; traps.len()];
    let mut found = 0;
    let mut at = 0;
    while at + JUMP_LEN <= code.len() {
        let behind = at + JUMP_LEN;
        let check = (code[at] == 0x0f && code[at + 1] & 0xf0 == 0x80)
            .then(|| behind as i64 + i64::from(int32(code, at + 2).unwrap_or(0)))
            .and_then(|to| traps.binary_search(&u32::try_from(to).ok()?).ok())
            .filter(|_| marked(at as u32));
        at += 1;
        if let Some(check) = check {
            resume[check] = behind as u32;
            found += 1;
            at = behind;
        }
    }
    (found == traps.len() && !resume.contains(&0)).then_some(resume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_whose_test_stands_apart_stays_as_it_is() {
        // mov rcx, r15; add rcx, -5; mov r15, rcx; sub eax, 1; test rcx, rcx; jl
        let text = [
            0x4c, 0x89, 0xf9, 0x48, 0x83, 0xc1, 0xfb, 0x49, 0x89, 0xcf, 0x83, 0xe8, 1, 0x48, 0x85, 0xc9, 0x0f, 0x8c, 1,
            0, 0, 0,
        ];
        let mut code = text;
        fuse_charges(&mut code, (0, 10), true);
        assert_eq!(code, text);
    }

    #[test]
    fn charges_become_one_addition() {
        // mov rcx, r15; add rcx, -5; mov r15, rcx; test rcx, rcx; jl
        let mut code = vec![
            0x4c, 0x89, 0xf9, 0x48, 0x81, 0xc1, 0xfb, 0xff, 0xff, 0xff, 0x49, 0x89, 0xcf, 0x48, 0x85, 0xc9, 0x0f, 0x8c,
            1, 0, 0, 0,
        ];
        let len = code.len();
        fuse_charges(&mut code, (0, len), true);
        // At byte 0 of the function, addition and jump share a line.
        assert_eq!(code[12..18], [0x49, 0x83, 0xc7, 0xfb, 0x0f, 0x8c]);
        assert_eq!(code[..12], [0x66, 0x66, 0x66, 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_joins_a_jump_does_not_leave_the_line_with_it() {
        // An addition of 4 bytes in the place of 16, and where it goes for each place of the jump behind it.
        for at in 0..LINE {
            let mut code = vec![0; 16];
            fill_before_jump(&mut code, at, &[0x49, 0x83, 0xc7, 0xfb]);
            let jump = (at + 16) % LINE;
            // Bytes 26 to 31 are the jump's own to leave the line; at 0 to 3 only the addition is in the line before.
            let apart = jump < 4;
            assert_eq!(code[if apart { 0 } else { 12 }..][..4], [0x49, 0x83, 0xc7, 0xfb], "jump at {jump}");
        }
    }
}
