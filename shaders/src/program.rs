//! Programs: what the host lays down for each job, and what is run on it.

use crate::field::Width;
use crate::{edwards, weierstrass};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Threads of a workgroup, in every text.
pub const WORKGROUP: u32 = 64;

/// Bytes that parameters may take.
pub const PARAMS_BYTES: usize = 256;

/// One entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Its name.
    pub entry: &'static str,
    /// Threads for each job.
    pub threads: u32,
}

/// What is made once on the device, of constants, and read by every pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What makes it, of jobs that hold the constants: a thread an entry.
    pub entry: &'static str,
    /// Bytes of an entry.
    pub entry_bytes: u64,
    /// Entries.
    pub entries: usize,
}

/// A text and what it takes.
///
/// Bindings of group 0: parameters, code, jobs, results, then each buffer of `scratch_bytes`, then the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// For messages.
    pub name: &'static str,
    /// The text, in WGSL.
    pub text: String,
    /// What it reads beside jobs, always the same.
    pub code: Vec<u32>,
    /// Bytes of a job.
    pub job_bytes: usize,
    /// Bytes of its result.
    pub result_bytes: usize,
    /// Bytes that passes leave for the next ones, by buffer, for each job.
    pub scratch_bytes: Vec<u64>,
    /// What is run for jobs, in this order.
    pub passes: &'static [Pass],
    /// What is made once.
    pub table: Option<Table>,
}

/// Parameters of programs that check signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable)]
#[repr(C)]
pub struct Params {
    /// Jobs.
    pub count: u32,
    /// Jobs that buffers have places for.
    pub places: u32,
    /// Limbs of a number. The texts know them, but compilers must not: they would unroll loops, and take minutes for it.
    pub limbs: u32,
    /// Places of four limbs that a number takes.
    pub vectors: u32,
}

impl Params {
    /// For so many jobs, in buffers for so many.
    pub fn new(width: Width, count: u32, places: u32) -> Self {
        Self { count, places, limbs: width.limbs(), vectors: width.vectors() }
    }
}

/// An Ed25519 signature: encodings of two points, and two numbers below the group's order that are more by half of each digit's range. The lowest byte first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable)]
#[repr(C)]
pub struct Ed25519Job {
    /// The key.
    pub key: [u8; 32],
    /// The first half of the signature.
    pub r: [u8; 32],
    /// The second half, `128 * (1 + 256 + 256² + ..)` more.
    pub s: [u8; 32],
    /// The hash of `r`, the key and the message, `8 * (1 + 16 + 16² + ..)` more.
    pub k: [u8; 32],
}

impl Ed25519Job {
    /// Of the numbers as they are, which are below 2^253.
    pub fn new(key: [u8; 32], r: [u8; 32], s: [u8; 32], k: [u8; 32]) -> Self {
        Self { key, r, s: plus_halves(s, 0x80).0, k: plus_halves(k, 0x88).0 }
    }
}

/// A number with as much added as makes each digit more by half of its range; `halves` is what that is in a byte. Also whether it has one bit more then.
fn plus_halves(mut number: [u8; 32], halves: u8) -> ([u8; 32], bool) {
    let mut carry = false;
    for byte in &mut number {
        (*byte, carry) = byte.carrying_add(halves, carry);
    }
    (number, carry)
}

/// Multiples of the base point in the table, zero included.
pub const BASE_MULTIPLES: usize = 129;

/// Checks Ed25519 signatures by ZIP 215. A result is [`VALID`] or [`INVALID`]. The table is made of jobs whose keys are encodings of the negatives of 0 to 128
/// times the base point.
pub fn ed25519(width: Width) -> Program {
    let (text, code) = edwards::field().text(width);
    let number_bytes = u64::from(16 * width.vectors());
    Program {
        name: "Ed25519",
        text: text + include_str!("ed25519.wgsl"),
        code,
        job_bytes: size_of::<Ed25519Job>(),
        result_bytes: size_of::<u32>(),
        scratch_bytes: vec![
            u64::from(edwards::REGISTERS) * number_bytes,
            2 * 4 * number_bytes,
            9 * 4 * number_bytes,
            4,
        ],
        passes: &[
            Pass { entry: "decompress", threads: 1 },
            Pass { entry: "tabulate", threads: 1 },
            Pass { entry: "combine", threads: 1 },
            Pass { entry: "combine", threads: 1 },
            Pass { entry: "combine", threads: 1 },
            Pass { entry: "combine", threads: 1 },
            Pass { entry: "judge", threads: 1 },
        ],
        table: Some(Table { entry: "tabulate_base", entry_bytes: 4 * number_bytes, entries: BASE_MULTIPLES }),
    }
}

/// A curve of ECDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST's P-256.
    P256,
    /// Of Bitcoin.
    Secp256k1,
}

/// An ECDSA signature, all numbers with the lowest byte first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable)]
#[repr(C)]
pub struct EcdsaJob {
    /// The key's coordinates, below the prime.
    pub x: [u8; 32],
    /// See `x`.
    pub y: [u8; 32],
    /// What the x of the sum may be, below the prime.
    pub r: [u8; 32],
    /// See `r`.
    pub other_r: [u8; 32],
    /// How often G is in the sum, `128 * (1 + 256 + .. + 256^31)` more.
    pub u1: [u32; 9],
    /// How often the key's point is in the sum, `8 * (1 + 16 + .. + 16^63)` more.
    pub u2: [u32; 9],
    /// Nothing.
    pub padding: [u32; 2],
}

impl EcdsaJob {
    /// Of the numbers as they are.
    pub fn new(x: [u8; 32], y: [u8; 32], r: [[u8; 32]; 2], u1: [u8; 32], u2: [u8; 32]) -> Self {
        let wide = |number, halves| {
            let (number, carry) = plus_halves(number, halves);
            let mut words = [0; 9];
            for (word, bytes) in words.iter_mut().zip(number.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            words[8] = carry.into();
            words
        };
        Self { x, y, r: r[0], other_r: r[1], u1: wide(u1, 0x80), u2: wide(u2, 0x88), padding: [0; 2] }
    }
}

/// Checks ECDSA signatures. A result is [`VALID`] or [`INVALID`]. The table is made of jobs with the coordinates of 0 to 128 times G, those of zero being zero.
pub fn ecdsa(curve: Curve, width: Width) -> Program {
    let (name, field) = match curve {
        Curve::P256 => ("ECDSA on P-256", weierstrass::p256()),
        Curve::Secp256k1 => ("ECDSA on secp256k1", weierstrass::secp256k1()),
    };
    let (text, code) = field.text(width);
    let number_bytes = u64::from(16 * width.vectors());
    Program {
        name,
        text: text + include_str!("ecdsa.wgsl"),
        code,
        job_bytes: size_of::<EcdsaJob>(),
        result_bytes: size_of::<u32>(),
        scratch_bytes: vec![u64::from(weierstrass::REGISTERS) * number_bytes, 9 * 3 * number_bytes, 4],
        passes: &[
            Pass { entry: "tabulate", threads: 1 },
            Pass { entry: "combine", threads: 1 },
            Pass { entry: "combine", threads: 1 },
            Pass { entry: "combine", threads: 1 },
            Pass { entry: "combine", threads: 1 },
            Pass { entry: "judge", threads: 1 },
        ],
        table: Some(Table { entry: "tabulate_base", entry_bytes: 3 * number_bytes, entries: BASE_MULTIPLES }),
    }
}

/// What a program that checks signatures says; zero, which buffers begin with, is neither.
pub const INVALID: u32 = 1;
/// See [`INVALID`].
pub const VALID: u32 = 2;

/// Parameters of a level of a Merkle tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable)]
#[repr(C)]
pub struct LevelParams {
    /// Parents.
    pub count: u32,
    /// Bytes of the prefix, 63 at most.
    pub prefix_bytes: u32,
    /// The prefix in words whose highest byte is the first, and zeros.
    pub prefix: [u32; 16],
}

/// Longest prefix of a level.
pub const PREFIX_BYTES_MAX: usize = 63;

impl LevelParams {
    /// `None`: the prefix is too long.
    pub fn new(count: u32, prefix: &[u8]) -> Option<Self> {
        if prefix.len() > PREFIX_BYTES_MAX {
            return None;
        }
        let mut words = [0; 16];
        for (at, byte) in prefix.iter().enumerate() {
            words[at / 4] |= u32::from(*byte) << (24 - 8 * (at % 4));
        }
        Some(Self { count, prefix_bytes: prefix.len() as u32, prefix: words })
    }
}

/// The two children of a node.
pub type LevelJob = [[u8; 32]; 2];

/// One level of a Merkle tree. A result is the SHA-256 of the prefix and the children.
pub fn level() -> Program {
    Program {
        name: "SHA-256 of a Merkle level",
        text: include_str!("sha256.wgsl").to_owned(),
        code: vec![0],
        job_bytes: size_of::<LevelJob>(),
        result_bytes: 32,
        scratch_bytes: Vec::new(),
        passes: &[Pass { entry: "level", threads: 1 }],
        table: None,
    }
}

const _: () = assert!(size_of::<Params>() <= PARAMS_BYTES && size_of::<LevelParams>() <= PARAMS_BYTES);
