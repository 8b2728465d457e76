//! One test for each MUST of SPIFFE-ID.md.
//!
//! | MUST | Section | Rule | Test |
//! |---|---|---|---|
//! | ID 1 | 2 | scheme MUST be `spiffe`, trust domain name non-zero | `spiffe_id_2_scheme_is_spiffe`, `spiffe_id_2_trust_domain_is_not_empty` |
//! | ID 2 | 2 | MUST NOT include a query or fragment | `spiffe_id_2_no_query`, `spiffe_id_2_no_fragment` |
//! | ID 3 | 2.1 | host MUST NOT be empty | `spiffe_id_2_1_host_is_not_empty` |
//! | ID 4 | 2.1 | userinfo and port MUST be empty | `spiffe_id_2_1_no_userinfo`, `spiffe_id_2_1_no_port` |
//! | ID 5 | 2.1 | host MUST be lowercase | `spiffe_id_2_1_trust_domain_is_lower_case` |
//! | ID 6 | 2.1 | host MUST contain only `[a-z0-9.-_]` | `spiffe_id_2_1_trust_domain_characters` |
//! | ID 7 | 2.1 | host MUST NOT be percent-encoded | `spiffe_id_2_1_trust_domain_not_percent_encoded` |
//! | ID 8 | 2.1 | MUST NOT process IP addresses and DNS names differently | `spiffe_id_2_1_addresses_and_names_alike` |
//! | ID 9 | 2.2 | path MUST NOT be percent-encoded | `spiffe_id_2_2_path_not_percent_encoded` |
//! | ID 10 | 2.2 | path MUST NOT have empty segments, `.` or `..` | `spiffe_id_2_2_no_empty_segment`, `spiffe_id_2_2_no_relative_segment` |
//! | ID 11 | 2.2 | path MUST NOT have a trailing `/` | `spiffe_id_2_2_no_trailing_slash` |
//! | ID 12 | 2.2 | segments MUST contain only `[a-zA-Z0-9.-_]` | `spiffe_id_2_2_path_characters` |
//! | ID 13 | 2.3 | MUST support IDs up to 2048 bytes | `spiffe_id_2_3_id_of_2048_bytes` |
//! | ID – | 2.3 | a trust domain has at most 255 bytes | `spiffe_id_2_3_trust_domain_of_255_bytes` |
//! | ID – | 2.4 | scheme and trust domain are case-insensitive, the path is not | `spiffe_id_2_4_case` |
//! | ID 14 | 3.1 | a signing authority MUST exist in each trust domain | `spiffe_id_3_1_authority_carries_an_svid` |
//! | ID 15 | 3.1 | it MUST carry an SVID | same as ID 14 |
//! | ID 16 | 3.2 | SPIFFE ID and public key MUST be in the signed part | `spiffe_id_3_2_id_and_key_are_signed` |
//! | ID 17 | 3.3 | an SVID MUST be of a specified document type | `spiffe_id_3_3_only_specified_documents` |
//!
//! Sections 1 and 4 have no MUST.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

use x0_identity::{NodeId, ParseSpiffeIdError, ParseTrustDomainError, SpiffeId, TrustDomain};

fn valid(text: &str) {
    assert_eq!(SpiffeId::parse(text).map(|id| id.to_string()), Ok(text.to_owned()));
}

fn invalid(text: &str, error: ParseSpiffeIdError) {
    assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
}

/// Refused both within an ID and as a name alone.
fn invalid_domain(name: &str, error: ParseTrustDomainError) {
    assert_eq!(TrustDomain::parse(name), Err(error), "{name:?}");
    assert_eq!(name.parse::<TrustDomain>(), Err(error));
    invalid(&format!("spiffe://{name}"), error.into());
    invalid(&format!("spiffe://{name}/path"), error.into());
}

#[test]
fn spiffe_id_2_scheme_is_spiffe() {
    valid("spiffe://example.org/path");
    for text in [
        "",
        "spiffe",
        "spiffe:",
        "spiffe:/example.org/path",
        "spiffe:example.org",
        "https://example.org/path",
        "spiffes://example.org/path",
        "xspiffe://example.org/path",
        " spiffe://example.org/path",
        "//example.org/path",
        "example.org/path",
        "spiffe\u{ff1a}//example.org/path",
    ] {
        invalid(text, ParseSpiffeIdError::Scheme);
    }
}

#[test]
fn spiffe_id_2_trust_domain_is_not_empty() {
    invalid("spiffe://", ParseTrustDomainError::Empty.into());
    invalid("spiffe:///", ParseTrustDomainError::Empty.into());
    invalid("spiffe:///path", ParseTrustDomainError::Empty.into());
}

#[test]
fn spiffe_id_2_no_query() {
    for text in [
        "spiffe://example.org?q",
        "spiffe://example.org/path?",
        "spiffe://example.org/path?a=b#c",
        "spiffe://example.org/?q",
    ] {
        invalid(text, ParseSpiffeIdError::Query);
    }
    invalid("spiffe://?q", ParseTrustDomainError::Empty.into());
}

#[test]
fn spiffe_id_2_no_fragment() {
    for text in [
        "spiffe://example.org#f",
        "spiffe://example.org/path#",
        "spiffe://example.org/path#a?b",
        "spiffe://example.org/#f",
    ] {
        invalid(text, ParseSpiffeIdError::Fragment);
    }
}

#[test]
fn spiffe_id_2_1_host_is_not_empty() {
    assert_eq!(TrustDomain::parse(""), Err(ParseTrustDomainError::Empty));
    invalid("spiffe://@/path", ParseTrustDomainError::UserInfo.into());
    invalid("spiffe://:80/path", ParseTrustDomainError::Port.into());
}

#[test]
fn spiffe_id_2_1_no_userinfo() {
    for name in ["user@example.org", "user:word@example.org", "@example.org", "user@example.org:80"] {
        invalid_domain(name, ParseTrustDomainError::UserInfo);
    }
}

#[test]
fn spiffe_id_2_1_no_port() {
    for name in ["example.org:80", "example.org:", "1.2.3.4:443"] {
        invalid_domain(name, ParseTrustDomainError::Port);
    }
}

#[test]
fn spiffe_id_2_1_trust_domain_is_lower_case() {
    invalid_domain("Example.org", ParseTrustDomainError::UpperCase { position: 0 });
    invalid_domain("example.orG", ParseTrustDomainError::UpperCase { position: 10 });
}

#[test]
fn spiffe_id_2_1_trust_domain_characters() {
    // Every character there is in one byte, and some that take more.
    for character in (0..=0x7f_u8).map(char::from).chain(['ä', 'е', '\u{212a}', '\u{ff0e}']) {
        let name = format!("a{character}b");
        let allowed = matches!(character, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
        assert_eq!(TrustDomain::parse(&name).is_ok(), allowed, "{character:?}");
        // Within an ID, '/' ends the name.
        let id = SpiffeId::parse(&format!("spiffe://{name}"));
        assert_eq!(id.is_ok(), allowed || character == '/', "{character:?}");
    }
    invalid_domain("[::1]", ParseTrustDomainError::Character { position: 0 });
    invalid_domain("a b", ParseTrustDomainError::Character { position: 1 });
}

#[test]
fn spiffe_id_2_1_trust_domain_not_percent_encoded() {
    invalid_domain("ex%61mple.org", ParseTrustDomainError::PercentEncoded { position: 2 });
    invalid_domain("example%2eorg", ParseTrustDomainError::PercentEncoded { position: 7 });
    invalid_domain("%", ParseTrustDomainError::PercentEncoded { position: 0 });
}

#[test]
fn spiffe_id_2_1_addresses_and_names_alike() {
    // An address, no address, a DNS name, and names that DNS does not allow: none is normalised, resolved or
    // refused.
    for name in [
        "127.0.0.1",
        "1.2.3.256",
        "01.02.03.04",
        "1.2.3",
        "example.org",
        "example.org.",
        ".",
        "..",
        "-",
        "_",
        "a..b",
        "-a-",
        "under_score",
        "2130706433",
        "0x7f.1",
        "xn--bcher-kva.example",
    ] {
        assert_eq!(TrustDomain::parse(name).map(|domain| domain.to_string()), Ok(name.to_owned()));
        valid(&format!("spiffe://{name}/path"));
    }
    assert_ne!(TrustDomain::parse("127.0.0.1"), TrustDomain::parse("127.0.0.01"));
    assert_ne!(TrustDomain::parse("example.org"), TrustDomain::parse("example.org."));
}

#[test]
fn spiffe_id_2_2_path_not_percent_encoded() {
    invalid("spiffe://example.org/p%61th", ParseSpiffeIdError::PercentEncoded { position: 22 });
    invalid("spiffe://example.org/%2e%2e", ParseSpiffeIdError::PercentEncoded { position: 21 });
    invalid("spiffe://example.org/a%2Fb", ParseSpiffeIdError::PercentEncoded { position: 22 });
}

#[test]
fn spiffe_id_2_2_no_empty_segment() {
    invalid("spiffe://example.org//path", ParseSpiffeIdError::EmptySegment { position: 21 });
    invalid("spiffe://example.org/a//b", ParseSpiffeIdError::EmptySegment { position: 23 });
    let domain = TrustDomain::parse("example.org").unwrap();
    assert_eq!(
        SpiffeId::from_segments(&domain, &["a", ""]),
        Err(ParseSpiffeIdError::EmptySegment { position: 23 })
    );
}

#[test]
fn spiffe_id_2_2_no_relative_segment() {
    invalid("spiffe://example.org/.", ParseSpiffeIdError::RelativeSegment { position: 21 });
    invalid("spiffe://example.org/a/../b", ParseSpiffeIdError::RelativeSegment { position: 23 });
    invalid("spiffe://example.org/a/..", ParseSpiffeIdError::RelativeSegment { position: 23 });
    for text in [
        "spiffe://example.org/...",
        "spiffe://example.org/.a",
        "spiffe://example.org/a..",
        "spiffe://example.org/-/_",
    ] {
        valid(text);
    }
    let domain = TrustDomain::parse("example.org").unwrap();
    assert_eq!(
        SpiffeId::from_segments(&domain, &["..", "a"]),
        Err(ParseSpiffeIdError::RelativeSegment { position: 21 })
    );
}

#[test]
fn spiffe_id_2_2_no_trailing_slash() {
    for text in [
        "spiffe://example.org/",
        "spiffe://example.org/path/",
        "spiffe://example.org//",
        "spiffe://example.org/a//",
    ] {
        invalid(text, ParseSpiffeIdError::TrailingSlash);
    }
    valid("spiffe://example.org");
}

#[test]
fn spiffe_id_2_2_path_characters() {
    let domain = TrustDomain::parse("example.org").unwrap();
    for character in (0..=0x7f_u8).map(char::from).chain(['ä', 'е', '\u{212a}', '\u{2215}']) {
        let allowed = matches!(character, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_');
        let segment = format!("a{character}b");
        // Within an ID, '/' begins another segment; where segments are given, it is a character like others.
        assert_eq!(SpiffeId::from_segments(&domain, &[&segment]).is_ok(), allowed, "{character:?}");
        let id = SpiffeId::parse(&format!("spiffe://example.org/{segment}"));
        assert_eq!(id.is_ok(), allowed || character == '/', "{character:?}");
    }
    invalid("spiffe://example.org/a b", ParseSpiffeIdError::Character { position: 22 });
    invalid("spiffe://example.org/a\0", ParseSpiffeIdError::Character { position: 22 });
}

#[test]
fn spiffe_id_2_3_id_of_2048_bytes() {
    let head = "spiffe://example.org/";
    let longest = format!("{head}{}", "p".repeat(2048 - head.len()));
    assert_eq!(longest.len(), 2048);
    valid(&longest);
    invalid(&format!("{longest}p"), ParseSpiffeIdError::Length { len: 2049 });

    // Nothing longer is made, either.
    let domain = TrustDomain::parse("example.org").unwrap();
    let segment = "p".repeat(2048 - head.len());
    assert_eq!(SpiffeId::from_segments(&domain, &[&segment]).map(|id| id.to_string().len()), Ok(2048));
    assert_eq!(
        SpiffeId::from_segments(&domain, &[&segment, "p"]),
        Err(ParseSpiffeIdError::Length { len: 2050 })
    );
    let longest_domain = TrustDomain::parse(&"d".repeat(255)).unwrap();
    let id = SpiffeId::for_node(&longest_domain, NodeId::new(u64::MAX).unwrap());
    assert!(id.to_string().len() <= SpiffeId::LEN_MAX);
    valid(&id.to_string());
}

#[test]
fn spiffe_id_2_3_trust_domain_of_255_bytes() {
    let longest = "d".repeat(255);
    valid(&format!("spiffe://{longest}/path"));
    invalid_domain(&format!("{longest}d"), ParseTrustDomainError::Length { len: 256 });
}

/// Two IDs that differ only in the case of scheme or trust domain never are two identities: one of them is
/// none.
#[test]
fn spiffe_id_2_4_case() {
    invalid("SPIFFE://example.org/path", ParseSpiffeIdError::Scheme);
    invalid("Spiffe://example.org/path", ParseSpiffeIdError::Scheme);
    invalid("spiffe://EXAMPLE.org/path", ParseTrustDomainError::UpperCase { position: 0 }.into());
    let lower = SpiffeId::parse("spiffe://example.org/path").unwrap();
    let upper = SpiffeId::parse("spiffe://example.org/PATH").unwrap();
    assert_ne!(lower, upper);
    assert_eq!(upper.path(), "/PATH");
}

#[cfg(feature = "authority")]
#[test]
fn spiffe_id_3_1_authority_carries_an_svid() {
    use x0_identity::{Authority, AuthorityOptions, spiffe_id_of_signer};

    let domain = TrustDomain::parse("example.org").unwrap();
    let authority = Authority::new(domain, &AuthorityOptions::default()).unwrap();
    let bundle = authority.bundle();
    // SHOULD reside in its trust domain, SHOULD NOT have a path.
    assert_eq!(
        spiffe_id_of_signer(&bundle.authorities()[0]),
        Ok(Some(SpiffeId::parse("spiffe://example.org").unwrap()))
    );
}

#[cfg(all(feature = "authority", feature = "rustls"))]
#[test]
fn spiffe_id_3_2_id_and_key_are_signed() {
    use pki_types::{CertificateDer, UnixTime};
    use std::time::Duration;
    use x0_identity::{Authority, AuthorityOptions, CertificateAt, PathError, Verifier, VerifyError};

    let domain = TrustDomain::parse("example.org").unwrap();
    let authority = Authority::new(domain, &AuthorityOptions::default()).unwrap();
    let id = SpiffeId::parse("spiffe://example.org/honest").unwrap();
    let leaf = authority.issue(&id, Duration::from_secs(60)).unwrap().chain()[0].to_vec();
    let verifier = Verifier::new(authority.bundle());
    let now = UnixTime::now();
    assert_eq!(verifier.verify_client(&leaf.clone().into(), &[], now), Ok(id));

    let find = |needle: &[u8]| leaf.windows(needle.len()).position(|window| window == needle).unwrap();
    // The first byte of the path, and one in the middle of the key (behind the curve's OID and the tag of the
    // point).
    let key = find(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]) + 20;
    for position in [find(b"/honest") + 1, key] {
        let mut forged = leaf.clone();
        forged[position] ^= 1;
        let error = verifier.verify_client(&CertificateDer::from(forged), &[], now).unwrap_err();
        assert_eq!(
            error,
            VerifyError::Path(PathError::Signature {
                at: CertificateAt::Chain(0),
                issuer: CertificateAt::Bundle(0)
            })
        );
    }
}

#[cfg(feature = "x509")]
#[test]
fn spiffe_id_3_3_only_specified_documents() {
    use x0_identity::{EncodingError, LeafError, spiffe_id_of};

    // A JWT-SVID is a specified document, and no certificate: each document has a decoder of its own.
    let token = b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmU6Ly9leGFtcGxlLm9yZy9hIn0.c2ln".to_vec();
    assert_eq!(spiffe_id_of(&token.into()), Err(LeafError::Encoding(EncodingError::Malformed)));
}

#[test]
fn segments_make_the_same_id_as_text() {
    let domain = TrustDomain::parse("example.org").unwrap();
    assert_eq!(
        SpiffeId::from_segments(&domain, &["ns", "staging", "sa", "default"]),
        SpiffeId::parse("spiffe://example.org/ns/staging/sa/default")
    );
    assert_eq!(SpiffeId::from_segments(&domain, &[]), SpiffeId::parse("spiffe://example.org"));
}

#[test]
fn only_the_exact_form_names_a_node() {
    let domain = TrustDomain::parse("example.org").unwrap();
    for number in [1, 0xdead_beef, u64::MAX] {
        let node = NodeId::new(number).unwrap();
        let id = SpiffeId::for_node(&domain, node);
        assert_eq!(id.node_id(), Some(node));
        assert_eq!(SpiffeId::parse(&id.to_string()), Ok(id));
    }
    for path in [
        "",
        "/node",
        "/node/1",
        "/node/0000000000000000",
        "/node/000000000000000A",
        "/node/00000000000000001",
        "/node/0000000000000001/a",
        "/a/node/0000000000000001",
        "/nodes/0000000000000001",
        "/Node/0000000000000001",
    ] {
        assert_eq!(
            SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap().node_id(),
            None,
            "{path}"
        );
    }
}
