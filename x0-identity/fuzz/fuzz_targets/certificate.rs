//! Certificates and PEM files from anywhere: refused or read, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use x0_identity::{TrustBundle, TrustDomain, X509Svid, spiffe_id_of, spiffe_id_of_signer};

fuzz_target!(|data: &[u8]| {
    let certificate = CertificateDer::from(data);
    let _ = spiffe_id_of(&certificate);
    let _ = spiffe_id_of_signer(&certificate);
    let _ = X509Svid::from_pem(data);
    if let Ok(domain) = TrustDomain::parse("example.org") {
        let _ = TrustBundle::from_pem(domain, data);
    }
});
