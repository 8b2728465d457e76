use super::*;

const HEADER: Header = Header { from: 0x1122_3344_5566_7788, to: u64::MAX };

/// The frames of a message; a head that cannot be read is the only fault then.
fn frames(message: &Bytes) -> Vec<Result<Frame, DecodeError>> {
    match Frames::new(message) {
        Ok((_, frames)) => frames.collect(),
        Err(fault) => vec![Err(fault)],
    }
}

fn bodies() -> [Body; 9] {
    [
        Body::Propose { command: Bytes::from_static(b"command") },
        Body::Read { operation: Bytes::new() },
        Body::Answer { applied: Bytes::from(vec![7; 300]) },
        Body::NotLeader { leader: None },
        Body::NotLeader { leader: NodeId::new(u64::MAX) },
        Body::Busy,
        Body::Unknown,
        Body::Rejected,
        Body::NoSpace,
    ]
}

fn message() -> Bytes {
    let mut message = BytesMut::new();
    for (number, body) in (0..).zip(&bodies()) {
        put(&mut message, HEADER, number * 1000, body);
    }
    message.freeze()
}

fn context() -> Context {
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap()
}

/// A message of version 2: some of its frames have a context.
fn traced() -> Bytes {
    let mut message = BytesMut::new();
    for (number, body) in (0..).zip(&bodies()) {
        let trace = (number % 2 == 1).then(context);
        put_traced(&mut message, HEADER, number * 1000, body, trace.as_ref());
    }
    message.freeze()
}

#[test]
fn contexts_are_read_back_with_their_frames() {
    let message = traced();
    assert_eq!(message[0], CONTEXTS_VERSION);
    for (number, frame) in (0..).zip(frames(&message)) {
        let frame = frame.unwrap();
        assert_eq!((frame.request, frame.trace), (number * 1000, (number % 2 == 1).then(context)));
    }
    // A message of version 1 has none.
    let mut first = message.to_vec();
    first[0] = PROTOCOL_VERSION;
    assert!(frames(&Bytes::from(first)).iter().any(Result::is_err));
    // Neither two contexts of one frame, nor one of zero.
    let head = &message[..HEADER_LEN];
    let context = [&[CONTEXT_TAG][..], &context().to_bytes()].concat();
    let twice = [head, &context, &context, &[4, 0]].concat();
    let zero = [head, &[CONTEXT_TAG], &[0; Context::LEN], &[4, 0]].concat();
    for wrong in [twice, zero, [head, &context].concat()] {
        assert!(frames(&Bytes::from(wrong))[0].is_err());
    }
    // The longest with a context fits a message.
    let mut message = BytesMut::new();
    let body = Body::RelayPropose { command: Bytes::from(vec![0; COMMAND_LEN_MAX]) };
    put_traced(&mut message, HEADER, u64::MAX, &body, Some(&self::context()));
    assert!(message.len() <= MESSAGE_LEN_MAX);
}

#[test]
fn put_values_are_read_back() {
    let message = message();
    let (header, read) = Frames::new(&message).unwrap();
    assert_eq!(header, HEADER);
    let read: Vec<Frame> = read.collect::<Result<_, _>>().unwrap();
    let expected =
        (0..).zip(bodies()).map(|(number, body)| Frame { request: number * 1000, trace: None, body });
    assert_eq!(read, expected.collect::<Vec<_>>());
    for body in bodies() {
        let mut alone = BytesMut::new();
        put(&mut alone, HEADER, u64::MAX, &body);
        assert!(alone.len() <= HEADER_LEN + body.len_max(), "{body:?}");
    }
}

#[test]
fn the_longest_of_each_fits_a_message() {
    for body in [
        Body::Propose { command: Bytes::from(vec![0; COMMAND_LEN_MAX]) },
        Body::Answer { applied: Bytes::from(vec![0; OUTCOME_LEN_MAX]) },
    ] {
        let mut message = BytesMut::new();
        put(&mut message, HEADER, u64::MAX, &body);
        assert!(message.len() <= MESSAGE_LEN_MAX);
        assert!(frames(&message.freeze()).iter().all(Result::is_ok));
    }
}

#[test]
fn a_cut_message_gives_the_whole_frames_and_one_fault() {
    let message = message();
    let whole = frames(&message).len();
    for len in 0..message.len() {
        let cut = message.slice(..len);
        let frames = frames(&cut);
        let faults = frames.iter().filter(|frame| frame.is_err()).count();
        assert!(faults <= 1 && frames.len() <= whole, "{len}");
        assert!(frames.iter().rev().skip(1).all(Result::is_ok), "the fault comes last");
    }
}

/// Seeded: bytes changed, cut out and repeated. Whatever is read must be written back to the same bytes.
#[test]
fn damaged_messages_are_faults_and_nothing_worse() {
    for whole in [message(), traced()] {
        damage(&whole);
    }
}

fn damage(whole: &Bytes) {
    let mut seed = 0x0123_4567_89ab_cdef_u64;
    let mut draw = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % bound
    };
    for _ in 0..100_000 {
        let mut bytes = whole.to_vec();
        for _ in 0..=draw(3) {
            let at = draw(bytes.len());
            match draw(4) {
                0 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][draw(5)],
                1 => bytes[at] ^= 1 << draw(8),
                2 => {
                    bytes.drain(at..at + draw(bytes.len() - at).min(9));
                }
                _ => {
                    let piece = bytes[at..at + draw(bytes.len() - at).min(9)].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        let bytes = Bytes::from(bytes);
        let mut again = BytesMut::new();
        let mut is_whole = true;
        let header = Frames::new(&bytes).map(|(header, _)| header);
        for frame in frames(&bytes) {
            match (header, frame) {
                (Ok(header), Ok(frame)) => {
                    put_traced(&mut again, header, frame.request, &frame.body, frame.trace.as_ref());
                }
                _ => is_whole = false,
            }
        }
        if is_whole && bytes.len() > HEADER_LEN {
            // A message of version 2 need not have a context.
            again[0] = bytes[0];
            assert_eq!(again, bytes, "the encoding is canonical");
        }
    }
}
