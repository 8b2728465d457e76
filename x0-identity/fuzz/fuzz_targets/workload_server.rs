//! A client that sends any bytes to a server of the Workload API, in pieces, with time between them.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use x0_identity::workload_api::{ServerConnection, ServerInput, ServerOptions, ServerOutput, Workload};
use x0_identity::{Authority, AuthorityOptions, JwtIssuer, SpiffeBundle, SpiffeId, TrustDomain};

static WORKLOAD: LazyLock<Option<Arc<Workload>>> = LazyLock::new(|| {
    let domain = TrustDomain::parse("example.org").ok()?;
    let authority = Authority::new(domain.clone(), &AuthorityOptions::default()).ok()?;
    let hour = Duration::from_secs(3600);
    let svid = authority.issue(&SpiffeId::parse("spiffe://example.org/web").ok()?, hour).ok()?;
    let workload = Workload::new(SpiffeBundle::new(authority.bundle())).with_svid(svid, "web").ok()?;
    let issuer = Arc::new(JwtIssuer::generate(domain, "key").ok()?);
    Some(Arc::new(workload.with_jwt_issuer(issuer, hour).ok()?))
});

// The first byte says whether the preface and empty settings are sent first, and how long pieces are.
fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let mut now = Duration::ZERO;
    let mut connection = ServerConnection::new(&ServerOptions::default(), now);
    let mut handle = |input: ServerInput<'_>| {
        now += Duration::from_millis(10);
        let _ = connection.handle(now, input);
        while let Some(output) = connection.poll_output() {
            if let ServerOutput::Jwt(request) = output {
                let answer = request.answer(SystemTime::now());
                let _ = connection.handle(now, ServerInput::Answer(answer));
            }
        }
    };
    handle(ServerInput::Workload(WORKLOAD.clone()));
    if how & 1 == 0 {
        handle(ServerInput::Bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"));
    }
    for (number, piece) in data.chunks(usize::from(how >> 1) + 1).enumerate() {
        handle(ServerInput::Bytes(piece));
        if number % 16 == 15 {
            handle(ServerInput::Workload(WORKLOAD.clone().filter(|_| number % 32 == 31)));
            handle(ServerInput::Timeout);
        }
    }
    handle(ServerInput::Shutdown);
});
