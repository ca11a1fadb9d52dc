// What must hold for all bytes of compiled code; shared by the fuzz target and the test that replays its corpus.

use cyclotron_wasm::code_cache::{CodeKey, Expected, decode, encode, seal, unseal};

const KEY: CodeKey = CodeKey { module: [1; 32], fingerprint: [2; 32] };

/// Takes the bytes for a file (first byte even), or for a body whose checksum is right (odd); the three after it say what the module has.
/// Nothing of it is executed. What is taken for code must be what is written for it. Tells whether it is.
pub fn check(input: &[u8]) -> bool {
    let Some(([kind, functions, imports, types], rest)) = input.split_first_chunk() else { return false };
    let canonical_types: Vec<u32> = (0..u32::from(*types)).collect();
    let expected = Expected {
        functions: usize::from(*functions),
        imports: usize::from(*imports),
        canonical_types: &canonical_types,
    };
    let sealed = if kind % 2 == 0 { rest.to_vec() } else { seal(&KEY, rest) };
    match unseal(&KEY, &sealed).and_then(|body| Ok((decode(&body, &expected)?, body))) {
        Ok((code, body)) => {
            assert_eq!(encode(&code), body);
            assert_eq!(unseal(&KEY, &seal(&KEY, &body)), Ok(body));
            true
        }
        Err(damage) => {
            assert!(!damage.to_string().is_empty() && (kind % 2 == 0 || decode(rest, &expected).is_err()));
            false
        }
    }
}
