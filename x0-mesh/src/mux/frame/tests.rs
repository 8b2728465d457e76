use super::*;

const CONTROL_BYTES: &[u8] = include_bytes!("../../../tests/data/mux_control_v1.bin");
const MESSAGE_BYTES: &[u8] = include_bytes!("../../../tests/data/mux_message_v1.bin");

fn recorded() -> Vec<Frame> {
    let session = 0xdead_beef;
    let channel = ChannelId::new("example.chat").unwrap();
    vec![
        Frame::Hello { version_min: 1, version_max: 1, instance: 0x0102_0304 },
        Frame::Offer(Offer {
            channel,
            version_min: 1,
            version_max: 3,
            lane_budget: 1 << 20,
            ordered_lanes: 2,
            ordered_len_max: 100_000,
            bulk_len_max: 200_000,
            datagram_len_max: 1095,
        }),
        Frame::OffersEnd,
        Frame::Withdraw { channel: ChannelId::new("example.old").unwrap() },
        Frame::Open { session, channel },
        Frame::Accept { session },
        Frame::Close { session, code: CloseCode::Budget },
        Frame::Close { session: 1, code: CloseCode::NoChannel },
        Frame::Credit { session, lane: Lane::Bulk, consumed: 123_456_789 },
        Frame::Credit { session, lane: Lane::Ordered(1), consumed: 1 },
    ]
}

fn decode(body: &[u8]) -> Result<Vec<Frame>, Violation> {
    let mut frames = Frames::new(body);
    let mut decoded = Vec::new();
    while let Some(frame) = frames.next()? {
        decoded.push(frame);
    }
    Ok(decoded)
}

#[test]
fn recorded_frames_are_read_and_written() {
    let (trailer, len) = Trailer::split(CONTROL_BYTES).unwrap();
    assert_eq!(trailer, Trailer::CONTROL);
    assert_eq!(decode(&CONTROL_BYTES[..len]), Ok(recorded()));
    let mut bytes = Vec::new();
    recorded().iter().for_each(|frame| frame.encode(&mut bytes));
    bytes.extend_from_slice(&Trailer::CONTROL.encode());
    assert_eq!(bytes, CONTROL_BYTES);
}

#[test]
fn a_recorded_message_is_read_and_written() {
    let (trailer, len) = Trailer::split(MESSAGE_BYTES).unwrap();
    assert_eq!(trailer, Trailer { session: 0xdead_beef, lane: Lane::Ordered(1) });
    assert_eq!(&MESSAGE_BYTES[..len], b"a message");
    assert_eq!([b"a message".as_slice(), &trailer.encode()].concat(), MESSAGE_BYTES);
}

#[test]
fn a_frame_that_is_cut_is_refused() {
    for frame in recorded() {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        for len in 1..bytes.len() {
            let kind = bytes[0];
            assert_eq!(
                decode(&bytes[..len]),
                Err(Violation::ControlFrame { kind }),
                "{frame:?} cut at {len}"
            );
        }
    }
}

#[test]
fn frames_against_the_format_are_refused() {
    let refused = |bytes: &[u8]| decode(bytes) == Err(Violation::ControlFrame { kind: bytes[0] });
    assert!(refused(&[0]), "an unknown kind");
    assert!(refused(&[9]), "an unknown kind");
    assert!(refused(&[4, 0]), "an empty name");
    assert!(refused(&[&[4, 48], [b'a'; 48].as_slice()].concat()), "a long name");
    assert!(refused(b"\x04\x03a b"), "a space");
    assert!(refused(&[6, 0, 0, 0, 0]), "the session of control messages");
    assert!(refused(&[7, 1, 0, 0, 0, 2]), "an unknown reason");
    assert_eq!(decode(&[]), Ok(Vec::new()));
    assert_eq!(Trailer::split(&[0; 4]), None);
    for lane in [Lane::Ordered(0), Lane::Ordered(253), Lane::Bulk, Lane::Datagram] {
        let trailer = Trailer { session: 7, lane };
        assert_eq!(Trailer::split(&trailer.encode()), Some((trailer, 0)));
    }
}
