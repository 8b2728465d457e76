//! Chains of an unauthenticated peer: refused, or the one SVID that the authority has issued.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pki_types::{CertificateDer, UnixTime};
use x0_identity::{Authority, AuthorityOptions, SpiffeId, TrustDomain, Verifier, X509Svid};

/// A year: longer than a run.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

static KNOWN: LazyLock<Option<(Verifier, X509Svid)>> = LazyLock::new(|| {
    let options = AuthorityOptions::default();
    let authority = Authority::new(TrustDomain::parse("example.org").ok()?, &options).ok()?;
    let svid = authority.issue(&SpiffeId::parse("spiffe://example.org/workload").ok()?, VALIDITY).ok()?;
    Some((Verifier::new(authority.bundle()), svid))
});

// The first byte says what is done to a valid chain; what follows is a certificate, or damage: position and
// byte in turn.
fuzz_target!(|data: &[u8]| {
    let (verifier, svid) = KNOWN.as_ref().expect("an authority that issues");
    let Some((how, data)) = data.split_first() else { return };
    let leaf = &svid.chain()[0];
    let damaged = || {
        let mut der = leaf.to_vec();
        for damage in data.chunks_exact(3) {
            let position = usize::from(u16::from_le_bytes([damage[0], damage[1]])) % der.len();
            der[position] = damage[2];
        }
        CertificateDer::from(der)
    };
    let foreign = CertificateDer::from(data);
    let (end_entity, intermediates) = match how % 3 {
        0 => (foreign.clone(), vec![foreign]),
        1 => (damaged(), vec![]),
        _ => (leaf.clone(), vec![foreign, damaged()]),
    };
    for verified in [
        verifier.verify_client(&end_entity, &intermediates, UnixTime::now()),
        verifier.verify_server(&end_entity, &intermediates, UnixTime::now()),
    ] {
        match verified {
            Ok(spiffe_id) => assert_eq!(&spiffe_id, svid.spiffe_id()),
            Err(error) => drop(error.to_string()),
        }
    }
});
