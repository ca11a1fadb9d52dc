// Numbers modulo a prime, as limbs of BITS bits, the lowest first: twenty of 13 whose products add up in 32 bits, or ten of 26 for 64 bits (`Wide`); and
// what executes formulas over them.
//
// This is a template: `template.rs` says which lines it repeats for each limb. Loops are left to where their turns are few, since Mesa's software driver ends
// all loops of a thread after 65,535 turns together.
//
// The text before this one has the widths and the prime's constants; the one behind it `product`. Every number here is below 1.1 times 2^PRIME_BITS,
// every limb below 2^BITS, but the highest, which may be a little more than its share.

alias Fe = array<u32, 4u * VECTORS>;
alias Sum = array<Wide, LIMBS>;

/// Carries, and brings the value below 1.1 times 2^PRIME_BITS. The highest limb has what is above.
fn settle(sum: Sum) -> Fe {
    // What is above the prime's bits goes round.
    let top = sum[LIMBS - 1u];
    let over = top >> TOP_BITS;
    var result: Fe;
    var carry = Wide(0u);
    carry += sum[{i}] + over * Wide(AROUND[{i}]); result[{i}] = u32(carry) & MASK; carry >>= BITS;
    carry += (top & ((Wide(1u) << TOP_BITS) - Wide(1u))) + over * Wide(AROUND[LIMBS - 1u]);
    result[LIMBS - 1u] = u32(carry);
    return result;
}

/// Limbs of a number of 256 bits.
fn from_words(low: vec4<u32>, high: vec4<u32>) -> Fe {
    let w = array(low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3], 0u);
    var result: Fe;
    result[{j}] = ((w[{at}] >> {shift}u) | select(w[{at+1}] << ((32u - {shift}u) % 32u), 0u, {shift}u == 0u)) & MASK;
    return result;
}

/// The one value of this class below the prime.
fn canonical(x: Fe) -> Fe {
    // One prime less, if that is not below zero: with 2^PRIME_BITS - prime added it reaches 2^PRIME_BITS.
    var reduced: Fe;
    var carry = 0u;
    carry += x[{i}] + AROUND[{i}]; reduced[{i}] = carry & MASK; carry >>= BITS;
    carry += x[LIMBS - 1u] + AROUND[LIMBS - 1u];
    reduced[LIMBS - 1u] = carry & ((1u << TOP_BITS) - 1u);
    let is_below = (carry >> TOP_BITS) == 0u;
    var result: Fe;
    result[{j}] = select(reduced[{j}], x[{j}], is_below);
    return result;
}

fn is_zero(number: Fe) -> bool {
    let x = canonical(number);
    var any = 0u;
    any |= x[{j}];
    return any == 0u;
}

// Formulas are lists of instructions over registers, and the same loop executes all of them: compilers see one product, and need no minutes for it. Registers
// lie in a buffer, four limbs at a place, so that neighbouring threads read neighbouring places, and no thread needs more than some sixty of the processor's
// own registers.

/// This thread's place.
var<private> lane: u32;

fn place_of(index: u32) -> u32 {
    return index * params.places + lane;
}

fn load(index: u32) -> Fe {
    let four{v} = registers[place_of(index * VECTORS + {v}u)];
    var result: Fe;
    result[{j}] = four{j/4}[{j%4}];
    return result;
}

fn store(index: u32, x: Fe) {
    registers[place_of(index * VECTORS + {v}u)] = vec4(x[{4v}], x[{4v+1}], x[{4v+2}], x[{4v+3}]);
}

/// Fills the registers of constants.
fn load_constants() {
    for (var n = 0u; n < CONSTANTS * params.vectors; n++) {
        let at = CONSTANTS_AT + 4u * n;
        registers[place_of(FIRST_CONSTANT * VECTORS + n)] = vec4(code[at], code[at + 1u], code[at + 2u], code[at + 3u]);
    }
}

/// Executes the instructions from one place of the code to another. An instruction has four bytes: what to do, where the result goes, and the operands.
fn execute(begin: u32, end: u32) {
    for (var at = begin; at < end; at++) {
        let instruction = code[at];
        let first = (instruction >> 16u) & 0xffu;
        let y = load(instruction >> 24u);
        var sum: Sum;
        let kind = instruction & 0xffu;
        if kind == MULTIPLY {
            sum = product(first, y);
        } else {
            // A sum, or the difference from a multiple of the prime whose limbs are not below any of the second operand.
            let x = load(first);
            let is_sum = kind == ADD;
            sum[{j}] = Wide(x[{j}] + select(MULTIPLE[{j}] - y[{j}], y[{j}], is_sum));
        }
        store((instruction >> 8u) & 0xffu, settle(sum));
    }
}
