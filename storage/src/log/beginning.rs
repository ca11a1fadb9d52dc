//! What a recording says of the state that it begins behind.

/// The state after the round before a recording's first batch, which a checkpoint beside the recording holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beginning {
    /// Its certified root.
    pub root: [u8; 32],
    /// Its state hash, if it was known.
    pub state_hash: Option<[u8; 32]>,
}

impl Beginning {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.root);
        out.push(u8::from(self.state_hash.is_some()));
        out.extend_from_slice(self.state_hash.as_ref().map_or(&[], |hash| &hash[..]));
    }

    /// Reads them. `None`: these are not the bytes of one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (root, rest) = bytes.split_first_chunk()?;
        let state_hash = match rest {
            [0] => None,
            [1, hash @ ..] => Some(hash.try_into().ok()?),
            _ => return None,
        };
        Some(Self { root: *root, state_hash })
    }
}
