//! Other verifiers on the same vectors. Every difference is explained by a section.

use std::fs;
use std::path::Path;
use std::process::Command;

use pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x0_identity::{LeafError, PathError, SigningError, VerifyError};

use super::vectors::{Vector, vectors};
use super::{accepts, ours, unix};

/// Whether webpki finds a path, as client and as server.
fn webpki_accepts(vector: &Vector) -> bool {
    webpki_accepts_with(
        vector,
        rustls::crypto::ring::default_provider().signature_verification_algorithms.all,
    )
}

pub(crate) fn webpki_accepts_with(
    vector: &Vector,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    let anchors: Vec<_> =
        vector.bundle.iter().filter_map(|der| Some(anchor_from_trusted_cert(der).ok()?.to_owned())).collect();
    let Ok(leaf) = EndEntityCert::try_from(&vector.chain[0]) else { return false };
    [KeyUsage::client_auth(), KeyUsage::server_auth()].into_iter().all(|usage| {
        leaf.verify_for_usage(algorithms, &anchors, &vector.chain[1..], unix(vector.now), usage, None, None)
            .is_ok()
    })
}

/// A rule of SPIFFE, which a verifier of plain X.509 does not know.
fn is_spiffe_rule(vector: &Vector) -> bool {
    ours(vector).into_iter().any(|result| match result {
        Err(VerifyError::Leaf(error)) => !matches!(error, LeafError::Encoding(_)),
        Err(VerifyError::TrustDomain { .. }) => true,
        Err(VerifyError::Path(PathError::Signer { source, .. })) => {
            !matches!(source, SigningError::Encoding(_) | SigningError::NotAuthority | SigningError::Subject)
        }
        // Only one of several authorities may be left out of a bundle.
        _ => vector.bundle.iter().any(|der| {
            matches!(
                x0_identity::spiffe_id_of_signer(der),
                Err(error) if !matches!(error, SigningError::Encoding(_) | SigningError::NotAuthority | SigningError::Subject)
            )
        }),
    })
}

/// Why a peer judges otherwise: how the vector's section begins, a part of its name, what the peer does, and
/// the reason.
struct Difference {
    section: &'static str,
    name: &'static str,
    peer_accepts: bool,
    reason: &'static str,
}

const fn differs(
    section: &'static str,
    name: &'static str,
    peer_accepts: bool,
    reason: &'static str,
) -> Difference {
    Difference { section, name, peer_accepts, reason }
}

const WEBPKI: &[Difference] = &[
    differs("X.690 §11.6", "attributes of", true, "does not read the order of the attributes of a set"),
    differs("RFC 5280 §4.1.2.4, §4.1.2.6", "without a subject", true, "takes two empty names for equal"),
    differs("RFC 5280 §6.1", "7 signers", false, "stops at 7 certificates"),
    differs("RFC 5280 §4.2.1.9", "below an authority that allows", true, "keeps no path length of an anchor"),
    differs("RFC 5280 §4.2.1.9", "a self-issued", false, "counts self-issued signers (§6.1.4 (l) does not)"),
    differs("RFC 5280 §4.2.1.9", "a path length of 2^40", false, "reads one byte of a path length"),
    differs("RFC 5280 §6.1.3 (a) (4)", "the issuer", false, "compares names byte by byte (§7.1 does not)"),
    differs("RFC 5280 §7.1", "a chain of long names", false, "compares names byte by byte (§7.1 does not)"),
    differs(
        "RFC 5280 §4.2.1.10, §7.1",
        "a long name: permits",
        false,
        "refuses every subject under constraints on directory names",
    ),
    differs("X509-SVID §4.4", "a signer for any", false, "does not know anyExtendedKeyUsage (§4.2.1.12)"),
    differs("X509-SVID §4.4", "an authority for", true, "keeps no extended key usage of an anchor"),
    differs("RFC 5280 §4.1.2.5", "an authority valid", true, "keeps no validity of an anchor"),
    differs("RFC 5280 §4.1.2.5", "valid 1950 to", false, "reads no time before 1970"),
    differs("X509-SVID §4.2", "http", false, "refuses every URI under constraints on URIs"),
    differs("X509-SVID §4.2", " the host ", false, "refuses every URI under constraints on URIs"),
    differs("X509-SVID §4.2", "not critical", false, "refuses every URI under constraints on URIs"),
    differs("X509-SVID §4.2", "@", false, "refuses every e-mail address under constraints on them"),
    differs(
        "X509-SVID §4.2",
        "a directory name",
        false,
        "refuses every directory name under constraints on them",
    ),
    differs(
        "X509-SVID §4.2",
        "a subject",
        false,
        "refuses every subject under constraints on directory names",
    ),
    differs(
        "RFC 5280 §6.1.3 (b)",
        "a self-issued signer",
        false,
        "applies constraints to self-issued signers",
    ),
    differs("RFC 5280 §4.2.1.10", "a minimum of zero", false, "refuses a default that is written out"),
    differs("RFC 5280 §4.2.1.10", "no subtrees in a list", true, "accepts a list of no subtrees"),
    differs("RFC 5280 §6.1.3 (d)", "policy twice", true, "reads no policies"),
    differs("RFC 5280 §6.1.3 (d)", "no policy in the list", true, "reads no policies"),
    differs(
        "RFC 5280 §6.1.3 (d)",
        "",
        false,
        "refuses critical policy extensions, which it does not process",
    ),
    differs("RFC 5280 §4.2,", "extension 31", true, "accepts critical distribution points and reads no list"),
    differs("RFC 5280 §4.2,", "of an authority, critical", true, "keeps no extensions of an anchor"),
    differs(
        "RFC 5280 §4.2,",
        "an unknown extension twice",
        true,
        "looks for duplicates among known extensions only",
    ),
    differs("X.690", "names:", true, "reads alternative names only under constraints"),
    differs(
        "X.690",
        "key usage:",
        true,
        "reads no key usage of a leaf, and of purposes those that it looks for",
    ),
    differs("RFC 5280 §4.1.2.4", "a subject", true, "does not read the parts of a name"),
    differs("RFC 5280 §4.1", "a serial number", true, "reads any bytes as a serial number"),
    differs(
        "RFC 5280 §4.1",
        "unique identifier",
        false,
        "refuses unique identifiers (§4.1.2.8: should be able to parse)",
    ),
];

const OPENSSL: &[Difference] = &[
    differs("X.690 §11.6", "attributes of", true, "does not read the order of the attributes of a set"),
    differs(
        "RFC 5280 §4.2.1.6, §4.2.1.10",
        "no domain",
        true,
        "compares the bytes of domain names and does not read their syntax",
    ),
    differs(
        "RFC 5280 §6.1",
        "two keys of the same name",
        false,
        "takes the first authority of a name and does not go back",
    ),
    differs(
        "RFC 5280 §6.1",
        "a self-issued signer",
        false,
        "takes the root for the signer of its name and does not go back",
    ),
    differs(
        "RFC 5280 §4.2.1.9",
        "a self-issued signer",
        false,
        "takes the signer itself for its issuer and does not go back",
    ),
    differs(
        "RFC 5280 §7.1",
        "a chain of long names",
        false,
        "takes a signer itself for its issuer and does not go back",
    ),
    differs("RFC 5280 §4.1.2.5", "this second", false, "excludes the last second (§4.1.2.5: inclusive)"),
    differs(
        "RFC 5280 §6.1.3 (a) (4)",
        "the issuer",
        true,
        "compares BMPString with other texts (§7.1 allows bytes)",
    ),
    differs(
        "X509-SVID §4.4",
        "any",
        false,
        "does not take anyExtendedKeyUsage for TLS (§4.2.1.12: MAY reject)",
    ),
    differs("RFC 5280 §4.1.2.4", "a subject of an empty set", true, "accepts an empty set of attributes"),
    differs("X509-SVID §4.2", "https://user@", false, "takes user information for the host"),
    differs("X509-SVID §4.2", "https://user@", true, "takes user information for the host"),
    differs("X509-SVID §4.2", "https://example.net?a", false, "takes the query for the host"),
    differs("X509-SVID §4.2", "https://example.net?a", true, "takes the query for the host"),
    differs(
        "X509-SVID §4.2",
        "https://127.0.0.1/",
        true,
        "accepts addresses for hosts (§4.2.1.10: MUST reject)",
    ),
    differs("X509-SVID §4.2", "https://[::1]/", true, "accepts addresses for hosts (§4.2.1.10: MUST reject)"),
    differs("X509-SVID §4.2", "@example.net", true, "accepts a mailbox without a local part"),
    differs("X509-SVID §4.2", "a wildcard: excludes", true, "compares a wildcard as a label"),
    differs(
        "X509-SVID §4.2",
        "[10, 1, 2, 3]: excludes",
        true,
        "accepts masks with gaps (§4.2.1.10: in the style of CIDR)",
    ),
    differs("RFC 5280 §4.2.1.10", "no subtrees in a list", true, "accepts a list of no subtrees"),
    differs("RFC 5280 §6.1.3 (d)", "", true, "processes policies only with -policy_check"),
    differs("RFC 5280 §4.2,", "extension 31", true, "accepts critical distribution points and reads no list"),
    differs(
        "RFC 5280 §4.2,",
        "an unknown extension twice",
        true,
        "looks for duplicates among known extensions only",
    ),
    differs("X.690", "names:", true, "reads BER, and no names but those it looks for"),
    differs("X.690", "key usage:", true, "reads BER"),
    differs("X.690", "basic constraints:", true, "reads BER"),
    differs("RFC 5280 §4.1", "version", true, "accepts extensions in any version (§4.1.2.1: MUST be 3)"),
    differs(
        "RFC 5280 §6.1.3 (a) (1)",
        "ECDSA with parameters",
        true,
        "ignores parameters (RFC 5758 §3.2: MUST omit)",
    ),
    differs("RFC 8410 §3", "Ed25519 with parameters", true, "ignores parameters (§3: MUST be absent)"),
];

const GO: &[Difference] = &[
    differs("RFC 5280 §4.1.2.4, §4.1.2.6", "without a subject", true, "takes two empty names for equal"),
    differs("X.690 §11.6", "attributes of", true, "does not read the order of the attributes of a set"),
    differs(
        "RFC 5280 §4.2.1.6, §4.2.1.10",
        "no domain",
        true,
        "reads no more of a domain name than its labels and whether its bytes can be printed",
    ),
    differs(
        "RFC 5280 §4.1.2.5",
        "UTCTime",
        true,
        "accepts a time without seconds (§4.1.2.5.1: MUST include them)",
    ),
    differs("RFC 5280 §4.1.2.5", "GeneralizedTime", true, "accepts an offset (§4.1.2.5.2: MUST be Zulu)"),
    differs("RFC 5280 §4.2.1.9", "a self-issued", false, "counts self-issued signers (§6.1.4 (l) does not)"),
    differs("RFC 5280 §4.2.1.9", "negative", true, "takes a negative path length for none"),
    differs("RFC 5280 §6.1.3 (a) (4)", "the issuer", false, "compares names byte by byte (§7.1 does not)"),
    differs("RFC 5280 §7.1", "a chain of long names", false, "compares names byte by byte (§7.1 does not)"),
    differs(
        "RFC 5280 §4.2.1.10, §7.1",
        "a long name: permits",
        false,
        "refuses constraints on directory names, which it does not process",
    ),
    differs("RFC 5280 §4.1.2.4", "a subject of an empty set", true, "accepts an empty set of attributes"),
    differs(
        "X509-SVID §4.2",
        "https:",
        true,
        "checks the names of the leaf only (§6.1.3 (b): of every certificate)",
    ),
    differs(
        "X509-SVID §4.2",
        "urn:",
        true,
        "checks the names of the leaf only (§6.1.3 (b): of every certificate)",
    ),
    differs("X509-SVID §4.2", "@", true, "takes a host for a domain (§4.2.1.10: the host itself)"),
    differs("X509-SVID §4.2", "@", false, "takes a host for a domain (§4.2.1.10: the host itself)"),
    differs("X509-SVID §4.2", "the host org", true, "takes a host for a domain (§4.2.1.10: the host itself)"),
    differs(
        "X509-SVID §4.2",
        "not critical org",
        true,
        "takes a host for a domain (§4.2.1.10: the host itself)",
    ),
    differs(
        "X509-SVID §4.2",
        "the host org",
        false,
        "takes a host for a domain (§4.2.1.10: the host itself)",
    ),
    differs("X509-SVID §4.2", "a wildcard", true, "compares a wildcard as a label"),
    differs(
        "X509-SVID §4.2",
        "a directory name",
        false,
        "refuses constraints on directory names, which it does not process",
    ),
    differs(
        "X509-SVID §4.2",
        "a subject",
        false,
        "refuses constraints on directory names, which it does not process",
    ),
    differs("RFC 5280 §4.2.1.10", "a minimum", true, "ignores minimum and maximum (MUST be zero and absent)"),
    differs("RFC 5280 §4.2.1.10", "a maximum", true, "ignores minimum and maximum (MUST be zero and absent)"),
    differs("RFC 5280 §4.2.1.10", "bytes after", true, "ignores bytes after a subtree"),
    differs(
        "RFC 5280 §4.2.1.10",
        "no list",
        false,
        "refuses constraints without subtrees (for CAs: MUST NOT issue)",
    ),
    differs(
        "RFC 5280 §6.1.3 (d)",
        "",
        false,
        "refuses critical policy constraints, which it does not process",
    ),
    differs("RFC 5280 §6.1.3 (d)", "", true, "processes no policies"),
    differs(
        "RFC 5280 §4.2,",
        "extension 14",
        true,
        "accepts critical key identifiers (§4.2.1.2: MUST be not critical)",
    ),
    differs(
        "RFC 5280 §4.2,",
        "extension 35",
        true,
        "accepts critical key identifiers (§4.2.1.1: MUST be not critical)",
    ),
    differs("RFC 5280 §4.2,", "extension 31", true, "accepts critical distribution points and reads no list"),
    differs("X.690", "names:", true, "skips names of other forms, and bytes after the list"),
    differs("X.690", "key usage:", true, "accepts encodings that are not the shortest"),
    differs("X.690", "basic constraints:", true, "ignores a further field"),
    differs(
        "RFC 5280 §6.1.3 (a) (1)",
        "ECDSA with parameters",
        true,
        "ignores parameters (RFC 5758 §3.2: MUST omit)",
    ),
];

fn compare(peer: &str, differences: &[Difference], judge: impl Fn(&Vector) -> bool) {
    let (mut same, mut spiffe, mut explained, mut unexplained) = (0, 0, 0, Vec::new());
    let mut used = vec![false; differences.len()];
    for vector in vectors() {
        let (own, other) = (accepts(&vector), judge(&vector));
        if own == other {
            same += 1;
        } else if other && is_spiffe_rule(&vector) {
            spiffe += 1;
        } else if let Some(index) = differences.iter().position(|difference| {
            vector.section.starts_with(difference.section)
                && vector.name.contains(difference.name)
                && difference.peer_accepts == other
        }) {
            used[index] = true;
            explained += 1;
            println!(
                "{peer} {} {:?}: {}",
                if other { "accepts" } else { "refuses" },
                vector.name,
                differences[index].reason
            );
        } else {
            let verb = if other { "accepts" } else { "refuses" };
            unexplained.push(format!(
                "{peer} {verb} {:?} ({}): {:?}",
                vector.name,
                vector.section,
                ours(&vector)
            ));
        }
    }
    println!("{peer}: {same} same, {spiffe} rules of SPIFFE, {explained} explained");
    assert!(unexplained.is_empty(), "{} unexplained:\n{}", unexplained.len(), unexplained.join("\n"));
    // An explanation that explains nothing is wrong.
    for (difference, used) in differences.iter().zip(used) {
        assert!(used, "{peer}: {} {:?}: {}", difference.section, difference.name, difference.reason);
    }
}

#[test]
fn webpki_differs_only_where_explained() {
    compare("webpki", WEBPKI, webpki_accepts);
}

pub(crate) fn pem(certificates: &[CertificateDer<'static>]) -> String {
    certificates
        .iter()
        .map(|der| {
            let bundle = der.chunks(48).map(base64).collect::<Vec<_>>().join("\n");
            format!("-----BEGIN CERTIFICATE-----\n{bundle}\n-----END CERTIFICATE-----\n")
        })
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3)
            .fold(0_usize, |bits, index| bits << 8 | group.get(index).map_or(0, |byte| usize::from(*byte)));
        for index in 0..4 {
            text.push(if index > group.len() {
                '='
            } else {
                char::from(ALPHABET[bits >> (18 - 6 * index) & 63])
            });
        }
    }
    text
}

/// Whether OpenSSL verifies the chain, as client and as server.
fn openssl_accepts(vector: &Vector, folder: &Path) -> bool {
    if vector.bundle.is_empty() {
        return false;
    }
    fs::write(folder.join("leaf.pem"), pem(&vector.chain[..1])).unwrap();
    fs::write(folder.join("chain.pem"), pem(&vector.chain[1..])).unwrap();
    fs::write(folder.join("bundle.pem"), pem(&vector.bundle)).unwrap();
    ["sslclient", "sslserver"].into_iter().all(|purpose| {
        let mut command = openssl_verify(folder, purpose, vector.now);
        if vector.chain.len() > 1 {
            command.args(["-untrusted", "chain.pem"]);
        }
        command.arg("leaf.pem").output().unwrap().status.success()
    })
}

/// `openssl verify` with the authorities of `bundle.pem` in the folder, without the files that it verifies.
pub(crate) fn openssl_verify(folder: &Path, purpose: &str, now: i64) -> Command {
    let mut command = Command::new("openssl");
    command.args(["verify", "-no-CApath", "-no-CAstore", "-CAfile", "bundle.pem", "-purpose", purpose]);
    command.args(["-attime", &now.to_string()]).current_dir(folder);
    command
}

/// Whether there is no `openssl`. Continuous integration installs it, so that there the comparison cannot be
/// left out unseen.
pub(crate) fn openssl_is_missing() -> bool {
    let missing = Command::new("openssl").arg("version").output().is_err();
    if missing {
        assert!(std::env::var_os("CI").is_none(), "openssl is not installed");
        println!("skipped: openssl is not installed");
    }
    missing
}

#[test]
fn openssl_differs_only_where_explained() {
    let folder = tempfile::tempdir().unwrap();
    if openssl_is_missing() {
        return;
    }
    compare("OpenSSL", OPENSSL, |vector| openssl_accepts(vector, folder.path()));
}

/// What Go's crypto/x509 with the rules of go-spiffe says of all vectors: each verdict with its reason.
fn go_verdicts(program: &Path, vectors: &[Vector]) -> Vec<String> {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    let child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let lines = vectors.iter().map(|vector| {
        let texts = |certificates: &[CertificateDer<'static>]| {
            certificates.iter().map(|der| base64(der)).collect::<Vec<_>>().join(" ")
        };
        format!("{} {} / {}\n", vector.now, texts(&vector.chain), texts(&vector.bundle))
    });
    let lines: Vec<String> = lines.collect();
    // The program answers while it reads: neither side may wait for the other.
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for line in lines {
                input.write_all(line.as_bytes()).unwrap();
            }
        });
        let verdicts: Vec<String> = output.lines().map(Result::unwrap).collect();
        assert_eq!(verdicts.len(), vectors.len());
        assert!(child.wait().unwrap().success());
        verdicts
    })
}

#[test]
fn go_differs_only_where_explained() {
    let Some(program) = std::env::var_os("X0_GO_VERIFY") else {
        assert!(std::env::var_os("X0_SPIFFE_CI").is_none(), "CI names the program in X0_GO_VERIFY");
        println!("skipped: X0_GO_VERIFY names no program; .ci/run builds it from tests/foreign/verify.go");
        return;
    };
    let all = vectors();
    let verdicts = go_verdicts(Path::new(&program), &all);
    // `compare` makes the vectors again, with other keys.
    let by_name: std::collections::BTreeMap<&str, &str> =
        all.iter().map(|vector| vector.name.as_str()).zip(verdicts.iter().map(String::as_str)).collect();
    compare("Go", GO, |vector| by_name[vector.name.as_str()] == "accept");
}
