//! Peers that break HTTP/2, and bytes that are nothing: no panic, the right error code, and bounds.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use x0_identity::workload_api::{ClientInput, ClientOptions, ClientOutput, ClientSession, ServerOptions};

use crate::kit::Domain;
use crate::raw::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PING, PREFACE, RST_STREAM, Raw,
    SETTINGS, WINDOW_UPDATE, block, call_fields, message,
};

const PATH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;

fn raw() -> Raw {
    Raw::new(Some(Domain::new("example.org").workload(&["web"])))
}

/// RFC 9113, by section: each breach ends the connection with the code that the section demands.
#[test]
fn breaches_end_the_connection() {
    let request = block(&call_fields(PATH));
    let setting = |name: u8, value: u32| [&[0, name][..], &value.to_be_bytes()].concat();
    let frame = Frame::new;
    let cases: Vec<(&str, Vec<Frame>, u32)> = vec![
        ("4.2", vec![frame(PING, 0, 0, &[0; 16_385])], FRAME_SIZE),
        ("4.3 compression", vec![frame(HEADERS, 5, 1, &[0x80])], COMPRESSION),
        ("5.1 data of an idle stream", vec![frame(DATA, 0, 1, b"x")], PROTOCOL),
        ("5.1 reset of an idle stream", vec![frame(RST_STREAM, 0, 1, &[0; 4])], PROTOCOL),
        ("5.1 window of an idle stream", vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], PROTOCOL),
        ("5.1.1 even stream", vec![frame(HEADERS, 5, 2, &request)], PROTOCOL),
        ("6.1 data of stream 0", vec![frame(DATA, 0, 0, b"x")], PROTOCOL),
        (
            "6.1 padding longer than the frame",
            vec![frame(HEADERS, 4, 1, &request), frame(DATA, 8, 1, &[5, 0])],
            PROTOCOL,
        ),
        ("6.1 no padding length", vec![frame(HEADERS, 4, 1, &request), frame(DATA, 8, 1, &[])], FRAME_SIZE),
        ("6.2 headers of stream 0", vec![frame(HEADERS, 5, 0, &request)], PROTOCOL),
        ("6.2 a short priority", vec![frame(HEADERS, 0x25, 1, &[0; 4])], FRAME_SIZE),
        (
            "6.2 another frame within a block",
            vec![frame(HEADERS, 0, 1, &request), frame(PING, 0, 0, &[0; 8])],
            PROTOCOL,
        ),
        ("6.3 priority of stream 0", vec![frame(2, 0, 0, &[0; 5])], PROTOCOL),
        ("6.3 a short priority", vec![frame(2, 0, 1, &[0; 4])], FRAME_SIZE),
        ("6.4 a short reset", vec![frame(RST_STREAM, 0, 1, &[0; 3])], FRAME_SIZE),
        ("6.4 reset of stream 0", vec![frame(RST_STREAM, 0, 0, &[0; 4])], PROTOCOL),
        ("6.5 settings of a stream", vec![frame(SETTINGS, 0, 1, &[])], PROTOCOL),
        ("6.5 settings of 5 bytes", vec![frame(SETTINGS, 0, 0, &[0; 5])], FRAME_SIZE),
        ("6.5 acknowledged settings with content", vec![frame(SETTINGS, ACK, 0, &[0; 6])], FRAME_SIZE),
        ("6.5.2 push", vec![frame(SETTINGS, 0, 0, &setting(2, 2))], PROTOCOL),
        ("6.5.2 window", vec![frame(SETTINGS, 0, 0, &setting(4, 1 << 31))], FLOW_CONTROL),
        ("6.5.2 short frames", vec![frame(SETTINGS, 0, 0, &setting(5, 16_383))], PROTOCOL),
        ("6.5.2 long frames", vec![frame(SETTINGS, 0, 0, &setting(5, 1 << 24))], PROTOCOL),
        ("6.6 push by a client", vec![frame(5, 4, 1, &[0; 4])], PROTOCOL),
        ("6.7 a short ping", vec![frame(PING, 0, 0, &[0; 7])], FRAME_SIZE),
        ("6.7 ping of a stream", vec![frame(PING, 0, 1, &[0; 8])], PROTOCOL),
        ("6.8 goaway of a stream", vec![frame(7, 0, 1, &[0; 8])], PROTOCOL),
        ("6.8 a short goaway", vec![frame(7, 0, 0, &[0; 7])], FRAME_SIZE),
        ("6.9 a short window", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], FRAME_SIZE),
        ("6.9 no increment", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])], PROTOCOL),
        (
            "6.9.1 window above 2^31 - 1",
            vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])],
            FLOW_CONTROL,
        ),
        ("6.10 continuation of nothing", vec![frame(CONTINUATION, 4, 1, &[])], PROTOCOL),
        (
            "6.10 continuation of another stream",
            vec![frame(HEADERS, 0, 1, &request), frame(CONTINUATION, 4, 3, &[])],
            PROTOCOL,
        ),
        (
            "6.9.2 a stream's window above 2^31 - 1 by settings",
            vec![
                frame(HEADERS, 4, 1, &request),
                frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0, 0]),
                frame(SETTINGS, 0, 0, &setting(4, (1 << 31) - 1)),
            ],
            FLOW_CONTROL,
        ),
        (
            "CVE-2024-27316: continuations without end",
            [vec![frame(HEADERS, 0, 1, &[])], vec![frame(CONTINUATION, 0, 1, &[]); 20]].concat(),
            CALM,
        ),
        (
            "a block longer than 32 KiB",
            [vec![frame(HEADERS, 0, 1, &[])], vec![frame(CONTINUATION, 0, 1, &[0x82; 16_384]); 3]].concat(),
            CALM,
        ),
    ];
    for (section, frames, code) in cases {
        let mut raw = raw();
        for frame in frames {
            assert_eq!(raw.go_away(), None, "{section}: before the last frame");
            raw.send(&frame.bytes());
            if raw.closed {
                break;
            }
        }
        assert_eq!((raw.go_away(), raw.closed), (Some(code), true), "{section}");
    }
}

/// Breaches of one stream: the others go on.
#[test]
fn breaches_end_the_stream() {
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("8.2.1 a capital", vec![("X-Upper", "1")]),
        ("8.2.1 a line break", vec![("x", "a\r\nb")]),
        ("8.2.1 a blank at the end", vec![("x", "a ")]),
        ("8.2.1 an empty name", vec![("", "a")]),
        ("8.2.2 connection", vec![("connection", "close")]),
        ("8.2.2 te", vec![("te", "gzip")]),
        ("8.3 a pseudo-header after the others", vec![(":authority", "a")]),
        ("8.3 an unknown pseudo-header", vec![(":protocol", "a")]),
    ];
    let mut raw = raw();
    let other = raw.call(PATH, b"");
    for (section, further) in cases {
        let mut fields = call_fields(PATH);
        if further[0].0 == "te" {
            fields.retain(|field| field.0 != "te");
        }
        fields.extend(further);
        let stream = raw.open(&fields, true);
        assert_eq!(raw.received(stream).reset, Some(PROTOCOL), "{section}");
    }
    for missing in [":method", ":scheme", ":path"] {
        let fields: Vec<_> = call_fields(PATH).into_iter().filter(|field| field.0 != missing).collect();
        let stream = raw.open(&fields, true);
        assert_eq!(raw.received(stream).reset, Some(PROTOCOL), "8.3.1 {missing}");
    }
    let mut twice = call_fields(PATH);
    twice.insert(0, (":path", "/"));
    let stream = raw.open(&twice, true);
    assert_eq!(raw.received(stream).reset, Some(PROTOCOL), "8.3 a pseudo-header twice");

    let stream = raw.open(&call_fields(PATH), true);
    raw.frame(DATA, 0, stream, b"x");
    let stream = raw.open(&call_fields(PATH), false);
    raw.frame(DATA, END_STREAM, stream, &message(b""));
    raw.frame(DATA, 0, stream, b"x");
    assert_eq!(raw.received(stream).reset, Some(STREAM_CLOSED), "5.1 data after the end");
    let stream = raw.open(&call_fields(PATH), false);
    raw.frame(HEADERS, END_HEADERS, stream, &block(&[("x", "1")]));
    assert_eq!(raw.received(stream).reset, Some(PROTOCOL), "8.1 trailers without the end");
    let stream = raw.open(&call_fields(PATH), false);
    raw.frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
    assert_eq!(raw.received(stream).reset, Some(PROTOCOL), "6.9 no increment");
    let stream = raw.open(&call_fields(PATH), false);
    raw.frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(raw.received(stream).reset, Some(FLOW_CONTROL), "6.9.1 a window above 2^31 - 1");
    // Frames of streams that are gone are dropped.
    for kind in [DATA, RST_STREAM, WINDOW_UPDATE] {
        raw.frame(kind, 0, stream, &[0, 0, 0, 1]);
    }
    raw.frame(0x77, 0xff, stream, b"an unknown type");
    raw.frame(2, 0, stream, &[0; 5]);
    // A list of fields that is too long (RFC 6585, section 5).
    let long = "v".repeat(200);
    let mut fields = call_fields(PATH);
    fields.extend([("x-long", long.as_str()); 74]);
    let stream = raw.open(&fields, true);
    assert_eq!(raw.received(stream).fields[":status"], "431");

    assert!(!raw.received(other).ended && raw.received(other).reset.is_none());
    assert_eq!(raw.go_away(), None);
}

#[test]
fn the_first_frame_is_settings() {
    let mut raw = Raw::silent(&ServerOptions::default());
    raw.send(PREFACE);
    raw.frame(PING, 0, 0, &[0; 8]);
    assert_eq!((raw.go_away(), raw.closed), (Some(PROTOCOL), true));
    let mut raw = Raw::silent(&ServerOptions::default());
    raw.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((raw.go_away(), raw.closed), (Some(PROTOCOL), true));
}

#[test]
fn streams_and_resets_are_bounded() {
    let mut raw = raw();
    let streams: Vec<u32> = (0..101).map(|_| raw.call(PATH, b"")).collect();
    assert_eq!(raw.received(streams[99]).messages.len(), 1);
    assert_eq!(raw.received(streams[100]).reset, Some(REFUSED_STREAM));
    // A refused stream does not get the table of the decoder out of step.
    raw.frame(RST_STREAM, 0, streams[0], &[0, 0, 0, 8]);
    let again = raw.call(PATH, b"");
    assert_eq!(raw.received(again).messages.len(), 1);

    // 20 per second are forgiven: a client that reads one message and cancels is not a hostile one.
    let mut raw = self::raw();
    for _ in 0..10_000 {
        let stream = raw.call(PATH, b"");
        raw.frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        raw.now += Duration::from_millis(50);
    }
    assert_eq!(raw.go_away(), None);
    // CVE-2023-44487.
    let mut resets = 0;
    while raw.go_away().is_none() {
        let stream = raw.call(PATH, b"");
        raw.frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        resets += 1;
        assert!(resets < 1000);
    }
    assert_eq!(raw.go_away(), Some(CALM));
}

#[test]
fn answers_that_are_not_read_are_bounded() {
    let mut raw = raw();
    let ping = Frame::new(PING, 0, 0, &[7; 8]).bytes();
    // In one piece, so that the driver cannot take outputs in between.
    raw.send(&ping.repeat(10_000));
    assert_eq!(raw.go_away(), Some(CALM));
    let mut raw = self::raw();
    raw.send(&ping);
    let answer = raw.control.iter().find(|frame| frame.kind == PING).unwrap();
    assert_eq!((answer.flags, &answer.payload[..]), (ACK, &[7; 8][..]));
}

#[test]
fn windows_of_what_is_received_are_kept_and_renewed() {
    let mut raw = raw();
    let stream = raw.open(&call_fields("/SpiffeWorkloadAPI/ValidateJWTSVID"), false);
    raw.frame(DATA, 0, stream, &[0, 0, 0, 0xff, 0xff]);
    for _ in 0..3 {
        raw.frame(DATA, 0, stream, &[0x0a; 16_000]);
    }
    let renewed: u32 =
        raw.control.iter().filter(|frame| frame.kind == WINDOW_UPDATE).map(Frame::number).sum();
    assert!((32_768..=48_005).contains(&renewed), "{renewed}");
    // Padding counts as well.
    let mut padded = vec![255];
    padded.resize(16_000, 0);
    raw.frame(DATA, 0x8, stream, &padded);
    assert_eq!(raw.go_away(), None);
}

/// The bytes of an honest client with several calls.
fn honest() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(Frame::new(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).bytes());
    bytes.extend(Frame::new(SETTINGS, ACK, 0, &[]).bytes());
    for (stream, path) in
        [(1, PATH), (3, "/SpiffeWorkloadAPI/FetchJWTSVID"), (5, "/SpiffeWorkloadAPI/FetchJWTBundles")]
    {
        // The first field goes into the dynamic table, and the later blocks refer to it.
        let mut fields = if stream == 1 { vec![0x40, 1, b'x', 1, b'y'] } else { vec![] };
        let mut all = block(&call_fields(path));
        if stream != 1 {
            all.push(0xbe);
        } else {
            all.append(&mut fields);
        }
        bytes.extend(Frame::new(HEADERS, END_HEADERS, stream, &all).bytes());
        bytes.extend(Frame::new(DATA, END_STREAM, stream, &message(b"\x0a\x07reports")).bytes());
    }
    bytes.extend(Frame::new(PING, 0, 0, &[7; 8]).bytes());
    bytes.extend(Frame::new(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]).bytes());
    bytes.extend(Frame::new(RST_STREAM, 0, 1, &[0, 0, 0, 8]).bytes());
    bytes
}

/// What a server of ours sends to a client.
fn honest_answer() -> Vec<u8> {
    use x0_identity::workload_api::{ServerConnection, ServerInput, ServerOutput};
    let mut client = ClientSession::new(ClientOptions::default(), "localhost", 7);
    client.handle(Duration::ZERO, ClientInput::Timeout).unwrap();
    client.handle(Duration::ZERO, ClientInput::Connected).unwrap();
    let mut server = ServerConnection::new(&ServerOptions::default(), Duration::ZERO);
    let workload = Some(std::sync::Arc::new(Domain::new("example.org").workload(&["web"])));
    server.handle(Duration::ZERO, ServerInput::Workload(workload)).unwrap();
    while let Some(output) = client.poll_output() {
        if let ClientOutput::Send(bytes) = output {
            server.handle(Duration::ZERO, ServerInput::Bytes(&bytes)).unwrap();
        }
    }
    let mut bytes = Vec::new();
    while let Some(ServerOutput::Send(sent)) = server.poll_output() {
        bytes.extend(sent);
    }
    bytes
}

fn damaged(mut bytes: Vec<u8>, damages: &[(Index, u8)], cut: Option<&Index>) -> Vec<u8> {
    for (position, byte) in damages {
        let position = position.index(bytes.len());
        bytes[position] = *byte;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes
}

proptest! {
    // The same damage each time; `fuzz/` looks for other damage.
    #![proptest_config(ProptestConfig { cases: 2000, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

    /// The pieces in which bytes arrive change nothing, and no bytes make the server panic.
    #[test]
    fn a_server_takes_any_bytes(
        damages in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        cut in proptest::option::weighted(0.1, any::<Index>()),
        piece in 1_usize..200,
    ) {
        let bytes = damaged(honest(), &damages, cut.as_ref());
        let mut whole = Raw::silent(&ServerOptions::default());
        whole.send(&bytes);
        let mut pieces = Raw::silent(&ServerOptions::default());
        for piece in bytes.chunks(piece) {
            pieces.send(piece);
        }
        if damages.is_empty() {
            prop_assert_eq!((whole.go_away(), whole.closed), (pieces.go_away(), pieces.closed));
            // The first call is cancelled by the client, at once if its bytes come in one piece.
            let status = |raw: &Raw, stream| raw.received(stream).status();
            prop_assert_eq!((status(&whole, 3), status(&whole, 5)), (status(&pieces, 3), status(&pieces, 5)));
        }
        for _ in 0..20 {
            if !pieces.wake() {
                break;
            }
        }
    }

    #[test]
    fn a_client_takes_any_bytes(
        damages in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        cut in proptest::option::weighted(0.1, any::<Index>()),
        piece in 1_usize..2000,
    ) {
        static ANSWER: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(honest_answer);
        let bytes = damaged(ANSWER.clone(), &damages, cut.as_ref());
        let mut client = ClientSession::new(ClientOptions::default(), "localhost", 7);
        client.handle(Duration::ZERO, ClientInput::Timeout).unwrap();
        client.handle(Duration::ZERO, ClientInput::Connected).unwrap();
        let mut contexts = 0;
        let mut broken = false;
        for piece in bytes.chunks(piece) {
            broken |= client.handle(Duration::ZERO, ClientInput::Bytes(piece)).is_err();
            while let Some(output) = client.poll_output() {
                contexts += usize::from(matches!(output, ClientOutput::X509Svids(_)));
            }
        }
        prop_assert!(!damages.is_empty() || cut.is_some() || contexts == 1 && !broken);
        prop_assert!(contexts <= 1);
    }
}
