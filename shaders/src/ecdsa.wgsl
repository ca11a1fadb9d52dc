// ECDSA, a thread a signature: whether the x of u1*G + u2*Q is r modulo the group's order. Sums are complete: there is no pair of points that they are wrong for.
//
// 1. `tabulate`: 0 to 8 times the key's point Q, if it is on the curve. 2. `combine`: the sum, from the highest digits down, in several goes. 3. `judge`: the
// verdict. `tabulate_base` comes once before all: 0 to 128 times G.

struct Job {
    x: array<vec4<u32>, 2>,
    y: array<vec4<u32>, 2>,
    /// What x may be: r, and r with the order added if that is below the prime, or else r again.
    r: array<vec4<u32>, 2>,
    other_r: array<vec4<u32>, 2>,
    u1: array<u32, 9>,
    u2: array<u32, 9>,
    padding: vec2<u32>,
}

@group(0) @binding(2) var<storage, read> jobs: array<Job>;
@group(0) @binding(3) var<storage, read_write> verdicts: array<u32>;
/// X, Y and Z of each multiple, each of all signatures.
@group(0) @binding(5) var<storage, read_write> multiples: array<vec4<u32>>;
/// Turns of the sum that are done.
@group(0) @binding(6) var<storage, read_write> turns: array<u32>;
/// X, Y and Z of each multiple.
@group(0) @binding(7) var<storage, read_write> base: array<vec4<u32>>;

const POINT: u32 = 3u * VECTORS;

/// Puts a job's point in the registers of the second operand.
fn load_key() {
    store(SECOND, from_words(jobs[lane].x[0], jobs[lane].x[1]));
    store(SECOND + 1u, from_words(jobs[lane].y[0], jobs[lane].y[1]));
    store(SECOND + 2u, load(ONE));
    execute(TO_FORM, TO_FORM_END);
}

/// Makes the sum zero.
fn begin() {
    turns[lane] = 0u;
    store(X, Fe());
    store(Y, load(ONE));
    store(Z, Fe());
}

@compute @workgroup_size(64)
fn tabulate_base(@builtin(global_invocation_id) id: vec3<u32>) {
    lane = id.x;
    if lane >= params.count {
        return;
    }
    load_constants();
    load_key();
    if all(jobs[lane].y[0] == vec4(0u)) && all(jobs[lane].y[1] == vec4(0u)) {
        // Zero, which has no such coordinates.
        store(SECOND + 1u, load(ONE));
        store(SECOND + 2u, Fe());
    }
    for (var n = 0u; n < 3u * params.vectors; n++) {
        base[lane * POINT + n] = registers[place_of(SECOND * VECTORS + n)];
    }
}

const MULTIPLES: u32 = 9u;

@compute @workgroup_size(64)
fn tabulate(@builtin(global_invocation_id) id: vec3<u32>) {
    lane = id.x;
    if lane >= params.count {
        return;
    }
    load_constants();
    load_key();
    execute(ON_CURVE, ON_CURVE_END);
    if !is_zero(load(LEFT)) {
        verdicts[lane] = INVALID;
    }
    begin();
    for (var multiple = 0u; multiple < MULTIPLES; multiple++) {
        for (var n = 0u; n < 3u * params.vectors; n++) {
            multiples[place_of(multiple * POINT + n)] = registers[place_of(X * VECTORS + n)];
        }
        execute(SUM, SUM_END);
    }
    begin();
}

const DIGITS: u32 = 65u;
// For each digit of u2: four times twice the sum, a multiple of Q, and at every second a multiple of G.
const TURNS: u32 = 6u;
const TURNS_IN_ALL: u32 = TURNS * DIGITS;
// Turns of a go.
const TURNS_AT_ONCE: u32 = 98u;

/// A digit is what is read less half of what can be read, since the numbers have as much added; but for the highest, which is what was carried.
@compute @workgroup_size(64)
fn combine(@builtin(global_invocation_id) id: vec3<u32>) {
    lane = id.x;
    if lane >= params.count {
        return;
    }
    let first_turn = turns[lane];
    let end_of_all = min(first_turn + TURNS_AT_ONCE, TURNS_IN_ALL);
    turns[lane] = end_of_all;
    for (var turn = first_turn; turn < end_of_all; turn++) {
        let digit = DIGITS - 1u - turn / TURNS;
        let step = turn % TURNS;
        let is_highest = digit == DIGITS - 1u;
        var first = DOUBLE;
        var end = DOUBLE_END;
        if step >= 4u {
            let bit = 4u * digit;
            var value: i32;
            if step == 4u {
                value = i32((jobs[lane].u2[bit / 32u] >> (bit % 32u)) & 0xfu) - select(8, 0, is_highest);
                for (var n = 0u; n < 3u * params.vectors; n++) {
                    registers[place_of(SECOND * VECTORS + n)] = multiples[place_of(u32(abs(value)) * POINT + n)];
                }
            } else {
                if digit % 2u == 1u {
                    continue;
                }
                value = i32((jobs[lane].u1[bit / 32u] >> (bit % 32u)) & 0xffu) - select(128, 0, is_highest);
                for (var n = 0u; n < 3u * params.vectors; n++) {
                    registers[place_of(SECOND * VECTORS + n)] = base[u32(abs(value)) * POINT + n];
                }
            }
            // The difference ends where the sum does.
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
    store(LEFT, from_words(jobs[lane].r[0], jobs[lane].r[1]));
    store(RIGHT, from_words(jobs[lane].other_r[0], jobs[lane].other_r[1]));
    execute(COMPARE, COMPARE_END);
    let is_same = is_zero(load(LEFT)) || is_zero(load(RIGHT));
    let holds = is_same && !is_zero(load(Z));
    if verdicts[lane] != INVALID {
        verdicts[lane] = select(INVALID, VALID, holds);
    }
}
