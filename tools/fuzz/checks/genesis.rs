// What must hold for all bytes that say what a subnet is made with; shared by the fuzz target and the test that replays its corpus.

use cyclotron_subnet::Genesis;

/// What is read must be read again from what is written of it; the rest must be refused in words.
pub fn check(input: &[u8]) {
    match Genesis::decode(input) {
        Ok(genesis) => assert_eq!(Genesis::decode(&genesis.encode()), Ok(genesis)),
        Err(error) => assert!(!error.is_empty()),
    }
}
