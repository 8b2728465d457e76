//! One test for each MUST of JWT-SVID.md.
//!
//! | MUST | Section | Rule | Test |
//! |---|---|---|---|
//! | JWT 1 | 1 | JWS JSON Serialization MUST NOT be used | `jwt_svid_1_compact_serialization_only` |
//! | JWT 2 | 2 | other headers MUST NOT be included | `jwt_svid_2_no_other_header` |
//! | JWT 3 | 2.1 | `alg` MUST be one of the nine | `jwt_svid_2_1_algorithms` |
//! | JWT 4 | 2.1 | others MUST be rejected | same as JWT 3 |
//! | JWT 5 | 2.3 | `typ` MUST be `JWT` or `JOSE` if set | `jwt_svid_2_3_type` |
//! | JWT 6 | 3.1 | `sub` MUST be the SPIFFE ID | `jwt_svid_3_1_subject` |
//! | JWT 7 | 3.2 | `aud` MUST be present | `jwt_svid_3_2_audience` |
//! | JWT 8 | 3.2 | tokens without the validator's value MUST be rejected | same as JWT 7 |
//! | JWT 9 | 3.3 | `exp` MUST be set | `jwt_svid_3_3_expiration` |
//! | JWT 10 | 3.3 | tokens without it MUST be rejected | same as JWT 9 |
//! | JWT 11 | 4 | `alg` MUST be checked before processing | `jwt_svid_4_algorithm_comes_first` |
//! | JWT 12 | 4 | `aud` and `exp` MUST be processed as in RFC 7519 | same as JWT 7 and 9 |
//! | JWT 13 | 4 | tokens without them MUST be rejected | same as JWT 7 and 9 |
//! | JWT 14 | 5.1 | MUST be serialized in the compact serialization | same as JWT 1 |
//! | JWT 17 | 6.2 | JWT keys MUST be extracted before use | `jwt_svid_6_2_keys_of_the_trust_domain`, `tests/bundle.rs` |
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

#[path = "tokens/kit.rs"]
mod kit;

use std::sync::LazyLock;
use std::time::Duration;

use kit::{SECONDS, at, base64url, domain, keys, new_pkcs8, sign_text, with, without, workload};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use x0_identity::{
    BundleMap, JsonError, JwtAlgorithm, JwtIssueError, JwtIssuer, JwtKey, JwtKeyError, JwtSvidError,
    JwtSvidValidator, SpiffeBundle, SpiffeId, TrustBundle, TrustDomain,
};

const AUDIENCE: &str = "reports";

/// A key that the issuer and the test share, so that the test signs what the issuer never would.
static PKCS8: LazyLock<Vec<u8>> = LazyLock::new(new_pkcs8);
static ISSUER: LazyLock<JwtIssuer> =
    LazyLock::new(|| JwtIssuer::from_pkcs8(domain(), "one", JwtAlgorithm::Es256, &PKCS8).unwrap());

fn bundles_of(issuers: &[&JwtIssuer]) -> BundleMap {
    let mut map = BundleMap::new();
    for issuer in issuers {
        let domain = issuer.trust_domain();
        let mut authorities = map
            .get(domain)
            .map(|bundle: &SpiffeBundle| bundle.jwt_authorities().to_vec())
            .unwrap_or_default();
        authorities.push(issuer.authority().clone());
        let bundle = SpiffeBundle::new(TrustBundle::empty(domain.clone()));
        map.insert(bundle.with_jwt_authorities(authorities).unwrap());
    }
    map
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "one", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"sub": workload().to_string(), "aud": [AUDIENCE], "exp": SECONDS + 60})
}

fn validate_token(token: &str) -> Result<SpiffeId, JwtSvidError> {
    let validated = JwtSvidValidator::new(AUDIENCE).validate(token, &bundles_of(&[&ISSUER]), at(SECONDS));
    validated.map(|svid| svid.spiffe_id().clone())
}

/// The claims of a token with a valid signature.
fn validate(header: &Value, claims: &Value) -> Result<SpiffeId, JwtSvidError> {
    validate_token(&sign_text(&PKCS8, &header.to_string(), &claims.to_string()))
}

#[test]
fn an_issued_token_is_valid() {
    let svid =
        ISSUER.issue(&workload(), &["other", AUDIENCE], Duration::from_secs(300), at(SECONDS)).unwrap();
    let validator = JwtSvidValidator::new(AUDIENCE);
    let validated = validator.validate(svid.token(), &bundles_of(&[&ISSUER]), at(SECONDS)).unwrap();
    assert_eq!(validated, svid);
    assert_eq!(validated.audience(), ["other", AUDIENCE]);
    assert_eq!(validated.expires(), at(SECONDS + 300));
    assert_eq!(validated.claim("sub"), Some("spiffe://example.org/web"));
    assert_eq!(validated.claim("jti"), None);
    let shown = format!("{svid:?} {:?}", *ISSUER);
    assert!(!shown.contains(svid.token().rsplit('.').next().unwrap()), "{shown}");
    assert_eq!(validate(&header(), &claims()), Ok(workload()));
}

#[test]
fn jwt_svid_1_compact_serialization_only() {
    let token = sign_text(&PKCS8, &header().to_string(), &claims().to_string());
    let parts: Vec<&str> = token.split('.').collect();
    let json = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string();
    for token in [
        json,
        parts[..2].join("."),
        format!("{token}."),
        format!("{token}.{}", parts[2]),
        format!("{token}="),
        format!(" {token}"),
        String::new(),
        "..".into(),
        format!("{}.{}.", parts[0], base64url(b"[]")),
    ] {
        assert!(
            matches!(validate_token(&token), Err(JwtSvidError::Serialization | JwtSvidError::Json(_))),
            "{token}"
        );
    }
    assert_eq!(validate_token(&format!("{}.{}.", parts[0], parts[1])), Err(JwtSvidError::Signature));
    let long = "a".repeat(x0_identity::JWT_SVID_LEN_MAX + 1);
    assert_eq!(validate_token(&long), Err(JwtSvidError::Length { len: long.len() }));
}

#[test]
fn jwt_svid_2_no_other_header() {
    for name in ["crit", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "cty", "zip", "enc", "private"] {
        let refused = validate(&with(header(), name, json!("a")), &claims());
        assert_eq!(refused, Err(JwtSvidError::Header { name: name.into() }));
    }
    let refused = validate(&with(header(), "kid", json!(1)), &claims());
    assert_eq!(refused, Err(JwtSvidError::Header { name: "kid".into() }));
    // Two readers must not see two tokens.
    let twice = sign_text(&PKCS8, r#"{"alg":"ES256","alg":"none"}"#, &claims().to_string());
    assert!(matches!(validate_token(&twice), Err(JwtSvidError::Json(JsonError::DuplicateName { .. }))));
    let twice =
        sign_text(&PKCS8, &header().to_string(), r#"{"aud":"reports","exp":9000000000,"sub":"a","sub":"b"}"#);
    assert!(matches!(validate_token(&twice), Err(JwtSvidError::Json(JsonError::DuplicateName { .. }))));
}

#[test]
fn jwt_svid_2_1_algorithms() {
    for name in ["none", "None", "HS256", "HS384", "HS512", "EdDSA", "ES256K", "es256", "RS1", "RSA-OAEP", ""]
    {
        assert_eq!(
            validate(&with(header(), "alg", json!(name)), &claims()),
            Err(JwtSvidError::Algorithm),
            "{name}"
        );
    }
    assert_eq!(validate(&without(header(), "alg"), &claims()), Err(JwtSvidError::Algorithm));
    assert_eq!(validate(&with(header(), "alg", json!(1)), &claims()), Err(JwtSvidError::Algorithm));
    // A key is for its own algorithm: no other is tried with it.
    for name in ["ES384", "ES512", "RS256", "PS512"] {
        let refused = validate(&with(header(), "alg", json!(name)), &claims());
        assert!(matches!(refused, Err(JwtSvidError::Key { .. })), "{name}: {refused:?}");
    }
    for algorithm in [JwtAlgorithm::Es384, JwtAlgorithm::Es512, JwtAlgorithm::Rs256] {
        let refused = JwtIssuer::from_pkcs8(domain(), "one", algorithm, &PKCS8).unwrap_err();
        assert_eq!(refused, JwtKeyError::Key { algorithm });
    }
}

#[test]
fn jwt_svid_2_1_every_supported_algorithm() {
    let keys = keys();
    for (algorithm, pkcs8) in &keys {
        let issuer = JwtIssuer::from_pkcs8(domain(), "key", *algorithm, pkcs8).unwrap();
        let svid = issuer.issue(&workload(), &[AUDIENCE], Duration::from_secs(60), at(SECONDS)).unwrap();
        // Through the bundle's JSON, as a peer has the key.
        let json = bundles_of(&[&issuer]).to_json();
        let bundles = BundleMap::from_json(json.as_bytes()).unwrap();
        let validator = JwtSvidValidator::new(AUDIENCE);
        assert_eq!(
            validator.validate(svid.token(), &bundles, at(SECONDS)).as_ref(),
            Ok(&svid),
            "{algorithm}"
        );
        for (other, _) in &keys {
            if other != algorithm {
                let forged = svid.token().split_once('.').unwrap().1;
                let header = json!({"alg": other.name(), "kid": "key"}).to_string();
                let token = format!("{}.{forged}", base64url(header.as_bytes()));
                assert!(validator.validate(&token, &bundles, at(SECONDS)).is_err(), "{algorithm} as {other}");
            }
        }
    }
}

#[test]
fn jwt_svid_2_3_type() {
    for name in ["JWT", "JOSE"] {
        assert_eq!(validate(&with(header(), "typ", json!(name)), &claims()), Ok(workload()));
    }
    assert_eq!(validate(&without(header(), "typ"), &claims()), Ok(workload()));
    for value in [json!("jwt"), json!("at+jwt"), json!(""), json!(null), json!(1)] {
        let refused = validate(&with(header(), "typ", value), &claims());
        assert_eq!(refused, Err(JwtSvidError::Header { name: "typ".into() }));
    }
}

#[test]
fn jwt_svid_3_1_subject() {
    assert_eq!(validate(&header(), &without(claims(), "sub")), Err(JwtSvidError::Subject));
    assert_eq!(validate(&header(), &with(claims(), "sub", json!(1))), Err(JwtSvidError::Subject));
    for id in ["", "web", "https://example.org/web", "spiffe://example.org/web/", "SPIFFE://example.org/web"]
    {
        let refused = validate(&header(), &with(claims(), "sub", json!(id)));
        assert!(matches!(refused, Err(JwtSvidError::SpiffeId(_))), "{id}: {refused:?}");
    }
}

#[test]
fn jwt_svid_3_2_audience() {
    assert_eq!(validate(&header(), &with(claims(), "aud", json!(AUDIENCE))), Ok(workload()));
    assert_eq!(validate(&header(), &with(claims(), "aud", json!(["other", AUDIENCE]))), Ok(workload()));
    assert_eq!(validate(&header(), &without(claims(), "aud")), Err(JwtSvidError::NoAudience));
    for audience in [json!([]), json!(null), json!(1), json!({}), json!([1]), json!([AUDIENCE, 1])] {
        let refused = validate(&header(), &with(claims(), "aud", audience.clone()));
        assert_eq!(refused, Err(JwtSvidError::NoAudience), "{audience}");
    }
    for audience in [json!("other"), json!(["REPORTS"]), json!(["report"]), json!([""])] {
        let refused = validate(&header(), &with(claims(), "aud", audience));
        assert_eq!(refused, Err(JwtSvidError::Audience { expected: AUDIENCE.into() }));
    }
}

#[test]
fn jwt_svid_3_3_expiration() {
    assert_eq!(validate(&header(), &without(claims(), "exp")), Err(JwtSvidError::NoExpiry));
    for value in [json!("2000000060"), json!(null), json!(-1), json!(1e300)] {
        let refused = validate(&header(), &with(claims(), "exp", value.clone()));
        assert_eq!(refused, Err(JwtSvidError::NoExpiry), "{value}");
    }
    for (expires, expect) in [
        (json!(SECONDS + 1), Ok(workload())),
        (json!(2_000_000_000.5), Ok(workload())),
        (json!(SECONDS), Err(JwtSvidError::Expired)),
        (json!(0), Err(JwtSvidError::Expired)),
    ] {
        assert_eq!(validate(&header(), &with(claims(), "exp", expires.clone())), expect, "{expires}");
    }
    for (not_before, expect) in [
        (json!(SECONDS), Ok(workload())),
        (json!(SECONDS + 1), Err(JwtSvidError::NotYetValid)),
        (json!("a"), Err(JwtSvidError::NotBefore)),
    ] {
        assert_eq!(validate(&header(), &with(claims(), "nbf", not_before.clone())), expect, "{not_before}");
    }
    let token = sign_text(&PKCS8, &header().to_string(), &with(claims(), "nbf", json!(SECONDS)).to_string());
    let validator = JwtSvidValidator::new(AUDIENCE).leeway(Duration::from_secs(5));
    for (now, accept) in
        [(SECONDS - 6, false), (SECONDS - 5, true), (SECONDS + 64, true), (SECONDS + 65, false)]
    {
        assert_eq!(validator.validate(&token, &bundles_of(&[&ISSUER]), at(now)).is_ok(), accept, "{now}");
    }
}

#[test]
fn jwt_svid_4_algorithm_comes_first() {
    let token = sign_text(&PKCS8, &with(header(), "alg", json!("none")).to_string(), "not JSON");
    assert!(matches!(validate_token(&token), Err(JwtSvidError::Algorithm)));
}

#[test]
fn jwt_svid_4_signature() {
    let token = sign_text(&PKCS8, &header().to_string(), &claims().to_string());
    let other =
        sign_text(&PKCS8, &header().to_string(), &with(claims(), "exp", json!(SECONDS + 61)).to_string());
    let (signed, _) = token.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    assert_eq!(validate_token(&format!("{signed}.{signature}")), Err(JwtSvidError::Signature));
    // DER, as a certificate has it, is no signature of a JWS.
    assert_eq!(
        validate_token(&format!("{signed}.{}", base64url(&[0x30, 6, 2, 1, 1, 2, 1, 1]))),
        Err(JwtSvidError::Signature)
    );
    assert_eq!(validate_token(&format!("{signed}.{}", base64url(&[0; 64]))), Err(JwtSvidError::Signature));
}

#[test]
fn jwt_svid_6_2_keys_of_the_trust_domain() {
    // The same key id in another domain, and no key at all.
    let foreign = JwtIssuer::generate(TrustDomain::parse("example.com").unwrap(), "one").unwrap();
    let token = sign_text(&PKCS8, &header().to_string(), &claims().to_string());
    let validator = JwtSvidValidator::new(AUDIENCE);
    let validate = |bundles: &BundleMap| validator.validate(&token, bundles, at(SECONDS)).map(drop);
    assert_eq!(validate(&bundles_of(&[&foreign])), Err(JwtSvidError::TrustDomain { trust_domain: domain() }));
    assert_eq!(validate(&bundles_of(&[&foreign, &ISSUER])), Ok(()));
    let other = JwtIssuer::generate(domain(), "two").unwrap();
    let no_key = JwtSvidError::Key { trust_domain: domain(), algorithm: JwtAlgorithm::Es256 };
    assert_eq!(validate(&bundles_of(&[&other])), Err(no_key));
    // kid is optional (§2.2): then each key of the domain is tried.
    let token = sign_text(&PKCS8, &without(header(), "kid").to_string(), &claims().to_string());
    let validate = |bundles: &BundleMap| validator.validate(&token, bundles, at(SECONDS)).map(drop);
    assert_eq!(validate(&bundles_of(&[&other, &ISSUER])), Ok(()));
    assert_eq!(validate(&bundles_of(&[&other])), Err(JwtSvidError::Signature));
}

#[test]
fn an_issuer_issues_within_its_rules() {
    let minute = Duration::from_secs(60);
    let foreign = SpiffeId::parse("spiffe://example.com/web").unwrap();
    assert!(matches!(ISSUER.issue(&foreign, &["a"], minute, at(0)), Err(JwtIssueError::TrustDomain { .. })));
    for audience in [&[][..], &[""], &["a", ""]] {
        assert_eq!(ISSUER.issue(&workload(), audience, minute, at(0)), Err(JwtIssueError::Audience));
    }
    for validity in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
        assert_eq!(ISSUER.issue(&workload(), &["a"], validity, at(SECONDS)), Err(JwtIssueError::Validity));
    }
    let long = "a".repeat(x0_identity::JWT_SVID_LEN_MAX);
    assert!(matches!(ISSUER.issue(&workload(), &[&long], minute, at(0)), Err(JwtIssueError::Length { .. })));
    assert_eq!(
        JwtIssuer::from_pkcs8(domain(), "one", JwtAlgorithm::Rs256, &PKCS8).unwrap_err(),
        JwtKeyError::Key { algorithm: JwtAlgorithm::Rs256 }
    );
    assert!(matches!(JwtIssuer::generate(domain(), ""), Err(JwtKeyError::KeyId(_))));
    assert!(matches!(ISSUER.authority().key(), JwtKey::P256(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_refused_without_a_panic(token in "[A-Za-z0-9_.{}\\-]{0,200}", wild in any::<String>()) {
        prop_assert!(validate_token(&token).is_err());
        prop_assert!(validate_token(&wild).is_err());
    }

    /// Every change of a character makes a token invalid: it has one text.
    #[test]
    fn a_changed_token_is_refused(position in any::<prop::sample::Index>(), byte in b'0'..=b'z') {
        let token = sign_text(&PKCS8, &header().to_string(), &claims().to_string());
        let mut bytes = token.clone().into_bytes();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(changed == token || validate_token(&changed).is_err());
    }
}
