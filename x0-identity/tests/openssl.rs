//! OpenSSL, asked for a second opinion on what the authority issues. Without it on the machine, nothing is
//! tested here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{MINUTE, domain};
use x0_identity::{Authority, AuthorityOptions, NodeId, SpiffeId};

fn openssl(arguments: &[&str], folder: &Path) -> Option<(bool, String)> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn openssl_verifies_what_the_authority_issues() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if openssl(&["version"], folder).is_none() {
        println!("skipped: there is no openssl on this machine");
        return;
    }
    let authority = |name| Authority::new(domain(name), &AuthorityOptions::default()).unwrap();
    let (authority, stranger) = (authority("example.org"), authority("example.org"));
    let node = NodeId::new(0x2a).unwrap();
    let svid = authority.issue(&SpiffeId::for_node(authority.trust_domain(), node), MINUTE).unwrap();
    fs::write(folder.join("svid.pem"), svid.to_pem()).unwrap();
    fs::write(folder.join("bundle.pem"), authority.bundle().to_pem()).unwrap();
    fs::write(folder.join("stranger.pem"), stranger.bundle().to_pem()).unwrap();

    for purpose in ["sslserver", "sslclient"] {
        let verify = |bundle| {
            openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", bundle, "svid.pem"], folder)
                .unwrap()
        };
        let (verified, text) = verify("bundle.pem");
        assert!(verified, "{text}");
        assert!(!verify("stranger.pem").0);
    }
    let (_, text) = openssl(&["x509", "-in", "svid.pem", "-noout", "-text"], folder).unwrap();
    for expect in [
        "URI:spiffe://example.org/node/000000000000002a",
        "X509v3 Subject Alternative Name: critical",
        "X509v3 Key Usage: critical",
        "CA:FALSE",
        "TLS Web Server Authentication, TLS Web Client Authentication",
    ] {
        assert!(text.contains(expect), "{expect}: {text}");
    }
    let (readable, text) = openssl(&["pkey", "-in", "svid.pem", "-noout", "-check"], folder).unwrap();
    assert!(readable, "{text}");
}
