use super::*;

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn sample() -> (Header, Vec<u32>, Vec<Entry>) {
    let advert = |metric, price, mtu, depth| Advert {
        distance: Distance { seqno: 0x0102_0304, metric },
        price,
        mtu,
        depth,
    };
    let entries = vec![
        Entry::Update { node: node(1), advert: advert(0, 0, u16::MAX, 0), region: 0 },
        Entry::Update {
            node: node(u64::MAX),
            advert: advert(u32::MAX - 1, u16::MAX, u16::MAX - 1, DEPTH_MAX),
            region: u16::MAX,
        },
        Entry::Update { node: node(7), advert: advert(300, 9, 1200, 2), region: 128 },
        Entry::Retraction { node: node(2) },
        Entry::Request { node: node(3), seqno: 9, hops: 64 },
    ];
    (Header { session: 5, to_session: 6, number: Some(7) }, vec![1, 2, u32::MAX], entries)
}

fn encode(header: Header, acks: &[u32], entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode(acks, &mut bytes);
    for entry in entries {
        entry.encode(&mut bytes);
    }
    bytes
}

#[test]
fn messages_survive_the_wire() {
    let (header, acks, entries) = sample();
    let bytes = encode(header, &acks, &entries);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(message.header, header);
    assert_eq!(message.acks().collect::<Vec<_>>(), acks);
    assert_eq!(message.entries().collect::<Vec<_>>(), entries);
    for entry in entries {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert!(bytes.len() <= ENTRY_LEN_MAX);
    }
    let longest = encode(header, &[1; 40], &[]);
    assert_eq!(longest.len(), HEADER_LEN_MAX);
    assert_eq!(Message::decode(&longest).unwrap().acks().count(), ACKS_MAX);
}

/// The bytes of version 1 do not change.
#[test]
fn the_recorded_message_decodes() {
    let (header, acks, entries) = sample();
    let recorded = include_bytes!("../../../tests/data/router_v1.bin");
    assert_eq!(encode(header, &acks, &entries), recorded);
    assert_eq!(Message::decode(recorded).unwrap().entries().count(), entries.len());
}

#[test]
fn each_rule_of_the_format_has_its_error() {
    let (header, acks, entries) = sample();
    let valid = encode(header, &acks, &entries);
    for len in 0..valid.len() {
        // A message cut between two entries is a shorter valid one.
        if let Err(error) = Message::decode(&valid[..len]) {
            assert_eq!(error, MessageError::Truncated { offset: len });
        }
    }
    let changed = |position: usize, byte: u8| {
        let mut bytes = valid.clone();
        bytes[position] = byte;
        Message::decode(&bytes).unwrap_err()
    };
    assert_eq!(changed(0, 2), MessageError::Version { version: 2 });
    assert_eq!(changed(1, 3), MessageError::Flags { flags: 3 });
    assert_eq!(changed(2, 0), MessageError::Value { field: "session", offset: 2 });
    assert_eq!(changed(10, 0), MessageError::Value { field: "number", offset: 10 });
    assert_eq!(changed(14, 17), MessageError::Value { field: "acknowledgement count", offset: 14 });
    assert_eq!(changed(27, 4), MessageError::Kind { kind: 4, offset: 27 });
    assert_eq!(changed(27, 0x12), MessageError::Kind { kind: 0x12, offset: 27 });
    assert_eq!(changed(29, 0), MessageError::Value { field: "node", offset: 29 });
    let entry = |bytes: &[u8]| Reader { bytes, len: bytes.len() }.entry();
    let refused = |bytes: &[u8], field, offset| {
        assert_eq!(entry(bytes), Err(MessageError::Value { field, offset }), "{bytes:?}");
    };
    // The bits of what a kind has not.
    for (kind, bits) in [(2, 0b1111_1000), (3, 0b1110_0000)] {
        for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
            refused(&[kind, 1 << bit, 1, 1, 1, 1, 1, 1, 1], "shape", 1);
        }
    }
    // One encoding: the shortest, and nothing that is not needed.
    assert!(entry(&[1, 0, 7, 0, 5]).is_ok());
    refused(&[1, 1, 7, 0, 1, 5], "node", 2);
    refused(&[1, 1 << 3, 7, 1, 0, 5], "seqno", 3);
    refused(&[3, 3 << 3, 7, 1, 1, 1, 0, 5], "seqno", 3);
    for (bit, field) in [(5, "price"), (6, "mtu"), (7, "region")] {
        assert!(entry(&[1, 1 << bit, 7, 0, 5, 1]).is_ok());
        refused(&[1, 1 << bit, 7, 0, 5, 0], field, 5);
    }
    refused(&[1, 1 << 6, 7, 0, 5, 0xff, 0xff, 3], "mtu", 5);

    let unnumbered = encode(Header { number: None, ..header }, &[], &entries);
    assert_eq!(Message::decode(&unnumbered).unwrap_err(), MessageError::Unnumbered { offset: 11 });
    let varint = |bytes: &[u8]| Reader { bytes, len: bytes.len() }.varint("x");
    for long in [&[0x80, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0x80, 0x80, 0x80, 0x80, 0x80]] {
        assert_eq!(varint(long), Err(MessageError::Value { field: "x", offset: 0 }));
    }
    assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
    assert!(Reader { bytes: &[0x80, 0x80, 0x04], len: 3 }.varint16("x").is_err());
    let mut infinite = encode(header, &[], &[]);
    infinite.extend_from_slice(&[1, 0, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(matches!(Message::decode(&infinite), Err(MessageError::Value { field: "metric", .. })));
}
