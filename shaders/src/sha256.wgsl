// One level of a Merkle tree, a thread a parent: the SHA-256 of a prefix below 64 bytes and two children.

struct Params {
    count: u32,
    prefix_bytes: u32,
    /// Big-endian words; bytes behind the prefix are zero.
    prefix: array<u32, 16>,
}

struct Job {
    children: array<u32, 16>,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(2) var<storage, read> jobs: array<Job>;
/// Eight words each, in the order of their bytes.
@group(0) @binding(3) var<storage, read_write> results: array<u32>;

const ROUNDS: u32 = 64u;
const CONSTANTS: array<u32, ROUNDS> = array(
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
    0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
    0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
    0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
    0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
    0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
    0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u,
);

fn turn(word: u32, bits: u32) -> u32 {
    return (word >> bits) | (word << (32u - bits));
}

/// Bytes in the other order.
fn swap(word: u32) -> u32 {
    return (turn(word, 8u) & 0xff00ff00u) | (turn(word, 24u) & 0x00ff00ffu);
}

/// Word `at` of both children and the bit behind them, if they began at a word.
fn aligned(job: u32, at: i32) -> u32 {
    if at >= 0 && at < 16 {
        return swap(jobs[job].children[u32(at)]);
    }
    return select(0u, 0x80000000u, at == 16);
}

/// Word `at` of the message and the bit behind it.
fn word(job: u32, at: u32) -> u32 {
    let whole = params.prefix_bytes / 4u;
    let shift = 8u * (params.prefix_bytes % 4u);
    let behind = i32(at) - i32(whole);
    var found = 0u;
    if at < 16u {
        found = params.prefix[at];
    }
    if behind >= 0 {
        found |= aligned(job, behind) >> shift;
        if shift > 0u {
            found |= aligned(job, behind - 1) << (32u - shift);
        }
    }
    return found;
}

@compute @workgroup_size(64)
fn level(@builtin(global_invocation_id) id: vec3<u32>) {
    let job = id.x;
    if job >= params.count {
        return;
    }
    var constants = CONSTANTS;
    var state = array(
        0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u,
    );
    let bytes = params.prefix_bytes + 64u;
    // The bit behind the message, and its length in eight bytes.
    let blocks = (bytes + 9u + 63u) / 64u;
    for (var block = 0u; block < blocks; block++) {
        var words: array<u32, 16>;
        for (var n = 0u; n < 16u; n++) {
            words[n] = word(job, 16u * block + n);
        }
        if block == blocks - 1u {
            words[15] = 8u * bytes;
        }
        var s = state;
        for (var n = 0u; n < ROUNDS; n++) {
            if n >= 16u {
                let a = words[(n + 1u) % 16u];
                let b = words[(n + 14u) % 16u];
                words[n % 16u] += (turn(a, 7u) ^ turn(a, 18u) ^ (a >> 3u)) + words[(n + 9u) % 16u]
                    + (turn(b, 17u) ^ turn(b, 19u) ^ (b >> 10u));
            }
            let first = s[7] + (turn(s[4], 6u) ^ turn(s[4], 11u) ^ turn(s[4], 25u))
                + ((s[4] & s[5]) ^ (~s[4] & s[6])) + constants[n] + words[n % 16u];
            let second = (turn(s[0], 2u) ^ turn(s[0], 13u) ^ turn(s[0], 22u))
                + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
            s = array(first + second, s[0], s[1], s[2], s[3] + first, s[4], s[5], s[6]);
        }
        for (var n = 0u; n < 8u; n++) {
            state[n] += s[n];
        }
    }
    for (var n = 0u; n < 8u; n++) {
        results[8u * job + n] = swap(state[n]);
    }
}
