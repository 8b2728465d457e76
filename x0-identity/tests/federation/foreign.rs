//! Consumers that others wrote, unmodified: curl for `https_web` and `https_spiffe`, and `spiffe` 0.3 of
//! PyPI, which reads the bundle.

use std::process::Command;

use x0_identity::{Authority, AuthorityOptions, JwtIssuer, SpiffeBundle, SpiffeId};

use crate::kit::{Domain, Endpoint, HOUR, Web, domain, id};

/// Skips outside of CI without the program.
fn is_missing(program: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok() {
        return false;
    }
    assert!(std::env::var_os("X0_SPIFFE_CI").is_none(), "CI has {program}");
    println!("skipped: there is no {program}");
    true
}

/// The body that curl receives, or its message.
fn curl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "--noproxy", "*"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn curl_reads_an_endpoint_of_the_web() {
    if is_missing("curl") {
        return;
    }
    let (example, web) = (Domain::new("example.org"), Web::new());
    let endpoint = Endpoint::new(web.config("localhost"));
    endpoint.published.set("/bundle.json", &example.bundle(7)).unwrap();
    let own = format!("https://localhost:{}/bundle.json", endpoint.address().port());
    endpoint.published.redirect("/moved", crate::kit::url(&own)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    let authority = x0_identity::TrustBundle::new(domain("web"), vec![web.certificate.clone()]);
    // The authority of the web has no URI, which the bundle of a trust domain allows.
    std::fs::write(&roots, authority.unwrap().to_pem()).unwrap();
    let roots = roots.to_str().unwrap();
    for version in ["--tlsv1.3", "--tls-max"] {
        let version = if version == "--tls-max" { vec!["--tls-max", "1.2"] } else { vec![version] };
        let body = curl(&[&version[..], &["--cacert", roots, &own]].concat()).unwrap();
        assert_eq!(SpiffeBundle::from_json(example.name(), body.as_bytes()).unwrap(), example.bundle(7));
    }
    let moved = own.replace("bundle.json", "moved");
    assert_eq!(curl(&["--cacert", roots, "--location", &moved]).unwrap(), example.bundle(7).to_json());
    assert!(curl(&["--fail", "--cacert", roots, &own.replace("bundle", "no")]).unwrap_err().contains("404"));
}

#[test]
fn curl_reads_an_endpoint_of_spiffe() {
    if is_missing("curl") {
        return;
    }
    // A SPIFFE ID is not a host name: curl authenticates by the authority and by the key of the SVID.
    let example = Domain::new("example.org");
    let endpoint = Endpoint::of(&example);
    endpoint.published.set("/", &example.bundle(1)).unwrap();
    let url = format!("https://{}/", endpoint.address());
    let refused = curl(&[&url]).unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    assert_eq!(curl(&["--insecure", &url]).unwrap(), example.bundle(1).to_json());
}

#[test]
fn spiffe_of_python_reads_the_bundle() {
    let Some(python) = std::env::var_os("X0_SPIFFE_PYTHON") else {
        assert!(std::env::var_os("X0_SPIFFE_CI").is_none(), "CI names an interpreter in X0_SPIFFE_PYTHON");
        println!("skipped: X0_SPIFFE_PYTHON names no interpreter; .ci/run has one");
        return;
    };
    let web = Web::new();
    let authority = Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap();
    let jwt = JwtIssuer::generate(domain("example.org"), "key 1").unwrap();
    let bundle = SpiffeBundle::new(authority.bundle())
        .with_jwt_authorities(vec![jwt.authority().clone()])
        .unwrap()
        .with_sequence(u64::from(u32::MAX) + 1)
        .with_refresh_hint(HOUR);
    let endpoint = Endpoint::new(web.config("localhost"));
    endpoint.published.set("/bundle.json", &bundle).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    let pem = x0_identity::TrustBundle::new(domain("web"), vec![web.certificate.clone()]).unwrap().to_pem();
    std::fs::write(&roots, pem).unwrap();
    let issued: SpiffeId = id("spiffe://example.org/web");
    assert_eq!(issued.trust_domain(), authority.trust_domain());
    let output = Command::new(python)
        .arg("tests/foreign/bundle.py")
        .arg(format!("https://localhost:{}/bundle.json", endpoint.address().port()))
        .arg(roots)
        .arg("example.org")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.trim(), "example.org x509=1 jwt=key 1 sequence=4294967296 hint=3600", "{error}");
}
