// Products modulo 2^255 - 19, whose limbs have 260 bits in all: 2^260 is 19 times 32.

const ROUND: u32 = 608u;

/// The product of a register and a number. Cost: LIMBS^2 products. The highest limb of the register comes first; each turn moves the sum up by one limb, and
/// what leaves it at the top goes round. A limb of the sum stays below LIMBS * 2^(2 BITS) and what goes round once.
fn product(first: u32, y: Fe) -> Sum {
    var sum: Sum;
    for (var i = 0u; i < params.limbs; i++) {
        let at = LIMBS - 1u - i;
        let factor = Wide(registers[place_of(first * VECTORS + at / 4u)][at % 4u]);
        let top = sum[LIMBS - 1u];
        sum[{h}] = sum[{h-1}] + factor * Wide(y[{h}]);
        sum[0] = (top & Wide(MASK)) * Wide(ROUND) + factor * Wide(y[0]);
        sum[1] += (top >> BITS) * Wide(ROUND);
    }
    sum[{i+1}] += sum[{i}] >> BITS; sum[{i}] &= Wide(MASK);
    return sum;
}
