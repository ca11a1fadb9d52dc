// Products modulo any prime, by Montgomery's method: a number n stands for n * 2^-260.

/// The product of a register and a number, times 2^-260. Cost: 2 * LIMBS^2 products. The lowest limb of the register comes first; each turn adds a multiple of the
/// prime that makes the lowest limb of the sum zero, and moves the sum down by it. A limb of the sum stays below 2 * LIMBS * 2^(2 BITS).
fn product(first: u32, y: Fe) -> Sum {
    var sum: Sum;
    for (var i = 0u; i < params.limbs; i++) {
        let factor = Wide(registers[place_of(first * VECTORS + i / 4u)][i % 4u]);
        let low = sum[0] + factor * Wide(y[0]);
        let multiple = (low * Wide(INVERSE)) & Wide(MASK);
        let carry = (low + multiple * Wide(PRIME[0])) >> BITS;
        sum[{i}] = sum[{i+1}] + factor * Wide(y[{i+1}]) + multiple * Wide(PRIME[{i+1}]);
        sum[LIMBS - 1u] = Wide(0u);
        sum[0] += carry;
    }
    sum[{i+1}] += sum[{i}] >> BITS; sum[{i}] &= Wide(MASK);
    return sum;
}
