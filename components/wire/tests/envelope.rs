//! Decoding of envelopes: everything agents send passes, everything else is refused by name.

use cyclotron_wire::{
    CallContent, Content, DecodeError, Delegation, Envelope, Permissions, ReadStateContent, SenderInfo,
    SignedDelegation, Writer, limits,
};
use ic_principal::Principal;

fn call() -> CallContent<'static> {
    CallContent {
        nonce: Some(b"nonce"),
        ingress_expiry: 1_685_570_400_000_000_000,
        sender: Principal::from_slice(&[1, 2, 3]),
        canister_id: Principal::from_slice(&[0, 0, 0, 0, 0, 0, 4, 0xd2, 1, 1]),
        method_name: "hello",
        arg: b"DIDL\0\0",
        sender_info: None,
    }
}

fn envelopes() -> Vec<Envelope<'static>> {
    let bare = |content| Envelope { content, sender_pubkey: None, sender_sig: None, sender_delegation: None };
    let info = SenderInfo { info: b"info", signer: Principal::from_slice(&[9]), sig: b"sig" };
    let read = ReadStateContent {
        nonce: None,
        ingress_expiry: u64::MAX,
        sender: Principal::anonymous(),
        paths: vec![vec![b"time"], vec![], vec![b"request_status", &[7; 32], b""]],
    };
    let delegation = |targets, permissions| SignedDelegation {
        delegation: Delegation { pubkey: b"key", expiration: 3, targets, permissions },
        signature: b"signature",
    };
    vec![
        bare(Content::Call(call())),
        bare(Content::Query(CallContent { nonce: None, sender_info: Some(info), ..call() })),
        bare(Content::ReadState(read.clone())),
        bare(Content::ReadState(ReadStateContent { nonce: Some(&[]), paths: vec![], ..read })),
        Envelope {
            content: Content::Call(call()),
            sender_pubkey: Some(b"pubkey"),
            sender_sig: Some(b"sig"),
            sender_delegation: Some(vec![
                delegation(None, None),
                delegation(Some(vec![]), Some(Permissions::All)),
                delegation(Some(vec![Principal::anonymous()]), Some(Permissions::Queries)),
            ]),
        },
    ]
}

#[test]
fn envelopes_survive_a_round_trip() {
    for envelope in envelopes() {
        let bytes = envelope.encode();
        assert_eq!(Envelope::decode(&bytes).as_ref(), Ok(&envelope));
        // The tag is optional.
        assert_eq!(Envelope::decode(&bytes[3..]).as_ref(), Ok(&envelope));
    }
}

#[test]
fn what_agents_encode_decodes() {
    let content = ic_transport_types::EnvelopeContent::Call {
        nonce: Some(b"nonce".to_vec()),
        ingress_expiry: call().ingress_expiry,
        sender: call().sender,
        canister_id: call().canister_id,
        method_name: "hello".into(),
        arg: b"DIDL\0\0".to_vec(),
        sender_info: None,
    };
    let theirs = ic_transport_types::Envelope {
        content: std::borrow::Cow::Owned(content),
        sender_pubkey: Some(b"pubkey".to_vec()),
        sender_sig: None,
        sender_delegation: Some(vec![]),
    };
    let ours = Envelope {
        content: Content::Call(call()),
        sender_pubkey: Some(b"pubkey"),
        sender_sig: None,
        sender_delegation: Some(vec![]),
    };
    assert_eq!(Envelope::decode(&theirs.encode_bytes()), Ok(ours));
}

#[test]
fn every_truncation_is_refused() {
    for envelope in envelopes() {
        let bytes = envelope.encode();
        for length in 0..bytes.len() {
            assert!(Envelope::decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn every_flip_of_a_bit_is_refused_or_seen() {
    for envelope in envelopes() {
        let bytes = envelope.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Envelope::decode(&flipped) {
                assert_ne!(other, envelope, "bit {bit} changes nothing");
            }
        }
    }
}

/// Writes an item.
type Write<'f> = &'f dyn for<'w> Fn(&'w mut Writer) -> &'w mut Writer;

/// The fields of a call's content, as encoded pairs.
fn pairs() -> Vec<(&'static str, Vec<u8>)> {
    let value = |write: Write<'_>| {
        let mut writer = Writer::default();
        write(&mut writer);
        writer.finish()
    };
    vec![
        ("request_type", value(&|w| w.text("call"))),
        ("ingress_expiry", value(&|w| w.unsigned(1))),
        ("sender", value(&|w| w.bytes(&[4]))),
        ("canister_id", value(&|w| w.bytes(&[1]))),
        ("method_name", value(&|w| w.text("m"))),
        ("arg", value(&|w| w.bytes(b"a"))),
    ]
}

fn envelope_of(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::tagged();
    writer.map(1).text("content").map(pairs.len());
    for (name, value) in pairs {
        writer.text(name).raw(value);
    }
    writer.finish()
}

#[track_caller]
fn refused(body: &[u8]) -> DecodeError {
    Envelope::decode(body).expect_err("must be refused")
}

#[test]
fn each_missing_duplicate_and_foreign_field_is_named() {
    assert!(Envelope::decode(&envelope_of(&pairs())).is_ok());
    for index in 0..pairs().len() {
        let (name, _) = pairs()[index];
        let mut without = pairs();
        without.remove(index);
        assert_eq!(refused(&envelope_of(&without)), DecodeError::MissingField { map: "content", field: name });
        let mut twice = pairs();
        twice.push(pairs()[index].clone());
        assert_eq!(refused(&envelope_of(&twice)), DecodeError::DuplicateField { map: "content", field: name });
    }
    for foreign in ["paths", "Arg", "", "effective_canister_id"] {
        let mut more = pairs();
        more.push((foreign, vec![0x80]));
        let error = refused(&envelope_of(&more));
        assert_eq!(error, DecodeError::UnknownField { map: "content", name: foreign.into() });
    }
}

#[test]
fn a_value_of_another_type_is_named() {
    // One item of each kind: negative, bytes, text, array, map, tag, float, true, undefined.
    let kinds: [&[u8]; 9] =
        [&[0x20], &[0x40], &[0x60], &[0x80], &[0xa0], &[0xc0, 0x00], &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], &[0xf5], &[0xf7]];
    for index in 0..pairs().len() {
        for kind in kinds {
            let mut changed = pairs();
            if changed[index].1[0] >> 5 == kind[0] >> 5 {
                continue;
            }
            changed[index].1 = kind.to_vec();
            let error = refused(&envelope_of(&changed));
            assert!(
                matches!(error, DecodeError::WrongType { field, .. } if field == changed[index].0),
                "{}: {error}",
                changed[index].0
            );
        }
    }
}

#[test]
fn null_is_an_absent_optional_value_and_nothing_else() {
    let mut null_nonce = pairs();
    null_nonce.push(("nonce", vec![0xf6]));
    let body = envelope_of(&null_nonce);
    let Ok(Envelope { content: Content::Call(call), .. }) = Envelope::decode(&body) else { panic!("must decode") };
    assert_eq!(call.nonce, None);
    let mut null_arg = pairs();
    null_arg[5].1 = vec![0xf6];
    assert!(matches!(refused(&envelope_of(&null_arg)), DecodeError::WrongType { field: "arg", .. }));
}

#[test]
fn indefinite_maps_and_arrays_decode_as_definite_ones() {
    let mut indefinite = vec![0xd9, 0xd9, 0xf7, 0xbf, 0x67];
    indefinite.extend_from_slice(b"content");
    indefinite.push(0xbf);
    for (name, value) in pairs() {
        let mut writer = Writer::default();
        writer.text(name).raw(&value);
        indefinite.extend_from_slice(&writer.finish());
    }
    indefinite.extend_from_slice(&[0xff, 0xff]);
    assert_eq!(Envelope::decode(&indefinite), Envelope::decode(&envelope_of(&pairs())));
    // Without the closing marks it is cut off.
    assert_eq!(refused(&indefinite[..indefinite.len() - 1]), DecodeError::Truncated { at: indefinite.len() - 1 });
}

#[test]
fn strings_in_pieces_and_reserved_heads_are_refused() {
    for head in [0x5f, 0x5c, 0x5d, 0x5e] {
        let mut changed = pairs();
        changed[5].1 = vec![head, 0x41, 0, 0xff];
        assert!(matches!(refused(&envelope_of(&changed)), DecodeError::Unsupported { .. }), "{head:x}");
    }
}

#[test]
fn lengths_beyond_the_body_are_refused_without_allocating() {
    for length in [[0xff; 8], [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]] {
        let mut changed = pairs();
        changed[5].1 = [&[0x5b][..], &length].concat();
        assert!(matches!(refused(&envelope_of(&changed)), DecodeError::Truncated { .. }));
        // A map that claims 2^64 - 1 pairs.
        let body = [&[0xbb][..], &length, &envelope_of(&pairs())[4..]].concat();
        assert!(matches!(refused(&body), DecodeError::Truncated { .. }));
    }
}

#[test]
fn deep_nesting_ends_at_the_first_level_that_has_no_place() {
    let deep = vec![0x81; 5 << 20];
    assert!(matches!(refused(&deep), DecodeError::WrongType { field: "envelope", .. }));
    assert!(matches!(refused(&vec![0xd9; 5 << 20]), DecodeError::Unsupported { .. }));
    let mut paths = pairs();
    paths.push(("paths", vec![0x81; 1 << 20]));
    assert!(matches!(refused(&envelope_of(&paths)), DecodeError::WrongType { field: "label", .. }));
}

#[test]
fn trailing_bytes_and_other_tags_are_refused() {
    let mut body = envelope_of(&pairs());
    let end = body.len();
    body.push(0);
    assert_eq!(refused(&body), DecodeError::TrailingBytes { at: end });
    let untagged = envelope_of(&pairs())[3..].to_vec();
    for tag in [&[0xc1][..], &[0xd9, 0xd9, 0xf6], &[0xd9, 0xd9, 0xf7, 0xd9, 0xd9, 0xf7]] {
        assert!(Envelope::decode(&[tag, &untagged].concat()).is_err());
    }
}

#[test]
fn what_is_one_longer_than_its_limit_is_refused() {
    let long = |name: &'static str, write: Write<'_>| {
        let mut writer = Writer::default();
        write(&mut writer);
        let mut changed = pairs();
        changed.retain(|(field, _)| *field != name);
        changed.push((name, writer.finish()));
        Envelope::decode(&envelope_of(&changed)).map(drop)
    };
    let nonce = limits::NONCE_BYTES_MAX;
    assert!(long("nonce", &|w| w.bytes(&vec![0; nonce])).is_ok());
    let error = DecodeError::TooLong { field: "nonce", length: nonce as u64 + 1, max: nonce };
    assert_eq!(long("nonce", &|w| w.bytes(&vec![0; nonce + 1])), Err(error));
    for field in ["sender", "canister_id"] {
        assert!(long(field, &|w| w.bytes(&[0; 29])).is_ok());
        let error = DecodeError::TooLong { field, length: 30, max: 29 };
        assert_eq!(long(field, &|w| w.bytes(&[0; 30])), Err(error));
    }
    fn repeated(w: &mut Writer, count: usize, item: u8) -> &mut Writer {
        w.array(count).raw(&vec![item; count])
    }
    let paths = limits::PATHS_MAX;
    let error = DecodeError::TooLong { field: "paths", length: paths as u64 + 1, max: paths };
    assert_eq!(long("paths", &|w| repeated(w, paths + 1, 0x80)), Err(error));
    let labels = limits::PATH_LABELS_MAX;
    let error = DecodeError::TooLong { field: "path", length: labels as u64 + 1, max: labels };
    assert_eq!(long("paths", &|w| repeated(w.array(1), labels + 1, 0x40)), Err(error));
    // The same without a declared length.
    let error = DecodeError::TooLong { field: "path", length: labels as u64 + 1, max: labels };
    let open = [&[0x81, 0x9f][..], &vec![0x40; labels + 1], &[0xff]].concat();
    assert_eq!(long("paths", &|w| w.raw(&open)), Err(error));
}

#[test]
fn chains_and_targets_over_their_limits_are_refused() {
    let chain = |length: usize, targets: usize| {
        let delegation = Delegation {
            pubkey: b"key",
            expiration: 1,
            targets: Some(vec![Principal::anonymous(); targets]),
            permissions: None,
        };
        let signed = SignedDelegation { delegation, signature: b"" };
        let body = Envelope {
            content: Content::Call(call()),
            sender_pubkey: None,
            sender_sig: None,
            sender_delegation: Some(vec![signed; length]),
        }
        .encode();
        Envelope::decode(&body).map(drop)
    };
    assert_eq!(chain(20, 1_000), Ok(()));
    assert_eq!(chain(21, 0), Err(DecodeError::TooLong { field: "sender_delegation", length: 21, max: 20 }));
    assert_eq!(chain(1, 1_001), Err(DecodeError::TooLong { field: "targets", length: 1_001, max: 1_000 }));
}

#[test]
fn unknown_request_types_and_permissions_are_named() {
    let mut other = pairs();
    other[0].1 = [&[0x78, 200][..], &[b'x'; 200]].concat();
    assert_eq!(refused(&envelope_of(&other)), DecodeError::UnknownRequestType { found: "x".repeat(40) });
    let mut writer = Writer::default();
    writer.map(2).text("content").map(0).text("sender_delegation").array(1);
    writer.map(1).text("delegation").map(1).text("permissions").text("none");
    let body = writer.finish();
    // The content is read first; put it last so that the chain is reached.
    let split = body.iter().position(|byte| *byte == 0xa0).expect("empty map") + 1;
    let reordered = [&[0xa1][..], &body[split..]].concat();
    assert_eq!(refused(&reordered), DecodeError::UnknownPermissions { found: "none".into() });
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let mut changed = pairs();
    changed[4].1 = vec![0x61, 0xff];
    assert!(matches!(refused(&envelope_of(&changed)), DecodeError::InvalidUtf8 { field: "method_name", .. }));
}
