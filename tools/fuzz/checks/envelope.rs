// What must hold for every body; shared by the fuzz target and the test that replays its corpus.

use cyclotron_wire::{Content, Envelope};

/// Decodes `body`; what decodes must survive a round trip unchanged and hash as agents hash it.
pub fn check(body: &[u8]) {
    let Ok(envelope) = Envelope::decode(body) else { return };
    let encoded = envelope.encode();
    let again = Envelope::decode(&encoded).expect("what was encoded decodes");
    assert_eq!(envelope, again);
    assert_eq!(encoded, again.encode());
    // The agents' type knows no nonce in a read_state request.
    if matches!(&envelope.content, Content::ReadState(read) if read.nonce.is_some()) {
        return;
    }
    let oracle: ic_transport_types::Envelope<'_> =
        serde_cbor::from_slice(&encoded).expect("what was encoded, agents decode");
    assert_eq!(&envelope.content.request_id()[..], oracle.content.to_request_id().as_slice());
}
