//! An endpoint that sends any bytes to a client of the Workload API, in pieces.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use x0_identity::workload_api::{ClientCall, ClientInput, ClientOptions, ClientOutput, ClientSession};

// The first byte says whether empty settings are sent first, and how long pieces are.
fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let options = ClientOptions::default().x509_bundles(true).jwt_bundles(true).wit_svids(true).wit_bundles(true);
    let mut session = ClientSession::new(options, "localhost", 7);
    let mut now = Duration::ZERO;
    let mut handle = |input: ClientInput<'_>| {
        now += Duration::from_millis(10);
        let _ = session.handle(now, input);
        while let Some(output) = session.poll_output() {
            if matches!(output, ClientOutput::Connect) {
                let _ = session.handle(now, ClientInput::Connected);
            }
        }
    };
    let call = ClientCall::ValidateJwtSvid { audience: "a".into(), token: "t".into() };
    handle(ClientInput::Call { id: 1, call, timeout: Duration::from_secs(1) });
    let call = ClientCall::FetchJwtSvids { audience: vec!["a".into()], spiffe_id: None };
    handle(ClientInput::Call { id: 2, call, timeout: Duration::from_secs(1) });
    if how & 1 == 0 {
        handle(ClientInput::Bytes(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"));
    }
    for piece in data.chunks(usize::from(how >> 1) + 1) {
        handle(ClientInput::Bytes(piece));
    }
    handle(ClientInput::Closed);
    handle(ClientInput::Timeout);
});
