// Ed25519 by ZIP 215, a thread a signature: [8](s*B - k*A - R) = 0, where A and R are the points of any encodings that decompress.
//
// 1. `decompress`: -A and -R of each signature. 2. `tabulate`: 0 to 8 times -A. 3. `combine`: the sum, from the highest digits down, in several goes. 4. `judge`:
// the verdict. `tabulate_base` comes once before all: 0 to 128 times B.

struct Job {
    key: array<vec4<u32>, 2>,
    r: array<vec4<u32>, 2>,
    s: array<u32, 8>,
    k: array<u32, 8>,
}

@group(0) @binding(2) var<storage, read> jobs: array<Job>;
@group(0) @binding(3) var<storage, read_write> verdicts: array<u32>;
/// Turns of the sum that are done.
@group(0) @binding(7) var<storage, read_write> turns: array<u32>;
/// y + x, y - x, 2 and 2dxy: of all keys, then of all R.
@group(0) @binding(5) var<storage, read_write> points: array<vec4<u32>>;
/// Y + X, Y - X, 2Z and 2dT of each multiple, each of all signatures.
@group(0) @binding(6) var<storage, read_write> multiples: array<vec4<u32>>;
/// y + x, y - x, 2 and 2dxy of each multiple.
@group(0) @binding(8) var<storage, read_write> base: array<vec4<u32>>;

const POINT: u32 = 4u * VECTORS;

/// Leaves the negative of an encoding's point in the registers of the second operand. Returns whether there is one. y is taken modulo the prime, and x = 0 may
/// have its sign set.
///
/// x^2 = (y^2 - 1) / (d*y^2 + 1) = u / v; the root is u*v^3*(u*v^7)^((p-5)/8), times a root of -1 if its square is -u / v.
fn decompress_negative(encoding: array<vec4<u32>, 2>) -> bool {
    let sign = encoding[1][3] >> 31u;
    store(Y, from_words(encoding[0], encoding[1] & vec4(0xffffffffu, 0xffffffffu, 0xffffffffu, 0x7fffffffu)));
    execute(FIND_ROOT, FIND_ROOT_END);
    let is_root = is_zero(load(SQUARE_LESS_U));
    let is_other = is_zero(load(SQUARE_AND_U));
    var x = load(select(OTHER_ROOT, ROOT, is_root));
    store(X, x);
    x = canonical(x);
    // The negative of what the encoding names.
    if (x[0] & 1u) == sign {
        execute(NEGATE, NEGATE_END);
    }
    execute(FROM_AFFINE, FROM_AFFINE_END);
    return is_root || is_other;
}

@compute @workgroup_size(64)
fn decompress(@builtin(global_invocation_id) id: vec3<u32>) {
    lane = id.x;
    if lane >= params.count {
        return;
    }
    load_constants();
    for (var is_r = 0u; is_r < 2u; is_r++) {
        var encoding = jobs[lane].key;
        if is_r == 1u {
            encoding = jobs[lane].r;
        }
        if !decompress_negative(encoding) {
            verdicts[lane] = INVALID;
        }
        for (var n = 0u; n < 4u * params.vectors; n++) {
            points[place_of(is_r * POINT + n)] = registers[place_of(SECOND * VECTORS + n)];
        }
    }
}

@compute @workgroup_size(64)
fn tabulate_base(@builtin(global_invocation_id) id: vec3<u32>) {
    lane = id.x;
    if lane >= params.count {
        return;
    }
    load_constants();
    let exists = decompress_negative(jobs[lane].key);
    for (var n = 0u; n < 4u * params.vectors; n++) {
        base[lane * POINT + n] = registers[place_of(SECOND * VECTORS + n)];
    }
    verdicts[lane] = select(INVALID, VALID, exists);
}

/// A decompressed point as the second operand.
fn load_point(is_r: u32) {
    for (var n = 0u; n < 4u * params.vectors; n++) {
        registers[place_of(SECOND * VECTORS + n)] = points[place_of(is_r * POINT + n)];
    }
}

/// Makes the sum zero.
fn begin() {
    turns[lane] = 0u;
    store(X, Fe());
    store(T, Fe());
    let one = load(ONE);
    store(Y, one);
    store(Z, one);
}

const MULTIPLES: u32 = 9u;

@compute @workgroup_size(64)
fn tabulate(@builtin(global_invocation_id) id: vec3<u32>) {
    lane = id.x;
    if lane >= params.count {
        return;
    }
    load_constants();
    begin();
    for (var turn = 0u; turn < 2u * MULTIPLES; turn++) {
        var first = TO_SECOND;
        var end = TO_SECOND_END;
        if turn % 2u == 1u {
            load_point(0u);
            first = SUM;
            end = SUM_END;
        }
        execute(first, end);
        if turn % 2u == 0u {
            for (var n = 0u; n < 4u * params.vectors; n++) {
                multiples[place_of((turn / 2u) * POINT + n)] = registers[place_of(SECOND * VECTORS + n)];
            }
        }
    }
    begin();
}

const DIGITS: u32 = 64u;
// For each digit of k: four times twice the sum, a multiple of -A, and at every second a multiple of B.
const TURNS: u32 = 6u;
// Behind the last digit comes -R, and three times twice the sum: the cofactor.
const TURNS_IN_ALL: u32 = TURNS * DIGITS + 4u;
// Turns of a go.
const TURNS_AT_ONCE: u32 = 97u;

/// A digit is what is read less half of what can be read: the numbers have as much added.
@compute @workgroup_size(64)
fn combine(@builtin(global_invocation_id) id: vec3<u32>) {
    lane = id.x;
    if lane >= params.count {
        return;
    }
    let begin = turns[lane];
    let end_of_all = min(begin + TURNS_AT_ONCE, TURNS_IN_ALL);
    turns[lane] = end_of_all;
    for (var turn = begin; turn < end_of_all; turn++) {
        let digit = i32(DIGITS) - 1 - i32(turn / TURNS);
        let step = turn % TURNS;
        var first = DOUBLE;
        var end = DOUBLE_END;
        if digit < 0 {
            if step == 0u {
                load_point(1u);
                first = SUM;
                end = SUM_END;
            }
        } else if step >= 4u {
            let bit = 4u * u32(digit);
            var value: i32;
            if step == 4u {
                value = i32((jobs[lane].k[bit / 32u] >> (bit % 32u)) & 0xfu) - 8;
                for (var n = 0u; n < 4u * params.vectors; n++) {
                    registers[place_of(SECOND * VECTORS + n)] = multiples[place_of(u32(abs(value)) * POINT + n)];
                }
            } else {
                if digit % 2 == 1 {
                    continue;
                }
                value = i32((jobs[lane].s[bit / 32u] >> (bit % 32u)) & 0xffu) - 128;
                for (var n = 0u; n < 4u * params.vectors; n++) {
                    registers[place_of(SECOND * VECTORS + n)] = base[u32(abs(value)) * POINT + n];
                }
            }
            first = select(SUM, DIFFERENCE, value < 0);
            end = select(SUM_END, DIFFERENCE_END, value < 0);
        }
        execute(first, end);
    }
}

@compute @workgroup_size(64)
fn judge(@builtin(global_invocation_id) id: vec3<u32>) {
    lane = id.x;
    if lane >= params.count || turns[lane] != TURNS_IN_ALL {
        return;
    }
    execute(COMPARE, COMPARE_END);
    let holds = is_zero(load(X)) && is_zero(load(Y_LESS_Z));
    if verdicts[lane] != INVALID {
        verdicts[lane] = select(INVALID, VALID, holds);
    }
}
