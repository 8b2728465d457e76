//! One test for each MUST of WIT-SVID.md.
//!
//! | MUST | Section | Rule | Test |
//! |---|---|---|---|
//! | WIT 1 | 2.1 | `kid` MUST be present | `wit_svid_2_1_key_id` |
//! | WIT 2 | 2.1 | it MUST be compared as a case-sensitive string | same as WIT 1 |
//! | WIT 3 | 2.1 | it MUST be unique to each issuing key | `wit_svid_2_1_key_ids_of_issuers_differ` |
//! | WIT 4 | 2.2 | `typ` MUST be present | `wit_svid_2_2_type` |
//! | WIT 5 | 2.2 | it MUST be `wit+jwt` | same as WIT 4 |
//! | WIT 6 | 2.3 | `alg` MUST be one of the nine | `wit_svid_2_3_algorithms`, `wit_svid_2_3_every_algorithm` |
//! | WIT 7 | 2.3 | others MUST be rejected | same as WIT 6 |
//! | WIT 8 | 3.1 | `sub` MUST be present | `wit_svid_3_1_subject` |
//! | WIT 9 | 3.1 | it MUST be the SPIFFE ID | same as WIT 8 |
//! | WIT 10 | 3.2 | `cnf` MUST be present | `wit_svid_3_2_confirmation` |
//! | WIT 11 | 3.2 | tokens without it MUST be rejected | same as WIT 10 |
//! | WIT 12 | 3.2 | its structure MUST be that of RFC 7800 and WIMSE | same as WIT 10 |
//! | WIT 13 | 3.2 | `cnf.jwk.alg` MUST be one of the nine | `wit_svid_3_2_algorithm_of_the_key` |
//! | WIT 14 | 3.3 | issuers MUST use each `jti` once | `wit_svid_3_3_ids_differ` |
//! | WIT 15 | 3.3 | `jti` MUST NOT be used against replays | `wit_svid_3_3_a_token_is_presented_twice` |
//! | WIT 16 | 3.4 | `exp` MUST be present | `wit_svid_3_4_expiry` |
//! | WIT 17 | 3.4 | tokens without it MUST be rejected | same as WIT 16 |
//! | WIT 18 | 3.4 | tokens whose `exp` has passed MUST be rejected | same as WIT 16, `wit_svid_3_4_expiry_between_token_and_proof` |
//! | WIT 19 | 3.5 | tokens whose `nbf` is in the future MUST be rejected | `wit_svid_3_5_not_before` |
//! | WIT 20 | 3.6 | `iat` MUST NOT limit the validity | `wit_svid_3_6_issued_at_limits_nothing` |
//! | WIT 21 | 3.8 | `aud` MUST NOT be included | `wit_svid_3_8_no_audience` |
//! | WIT 22 | 4 | the issuer MUST sign with one of the nine | `wit_svid_2_3_every_algorithm` |
//! | WIT 23 | 4 | the issuer MUST set `alg`, `typ` and `kid` | `wit_svid_4_what_an_issuer_sets` |
//! | WIT 24 | 4 | the issuer MUST set `sub`, `exp` and `cnf` | same as WIT 23 |
//! | WIT 25 | 4 | the issuer MUST set `cnf.jwk.alg` to one of the nine | same as WIT 23 |
//! | WIT 26 | 4 | MUST NOT be accepted without proof of possession | `wit_svid_4_a_proof_is_required` |
//! | WIT 27 | 5 | protocols MUST satisfy all requirements | `wit_svid_5_the_proof_is_bound_to_the_token` |
//! | WIT 28 | 5 | the presentation MUST be bound to a proof of possession | same as WIT 27 |
//! | WIT 29 | 5 | MUST NOT be presented as a bearer token | same as WIT 26 |
//! | WIT 30 | 5 | MUST NOT be presented in the header `Authorization` | `wit_svid_5_no_bearer_token` |
//! | WIT 31 | 6.1 | `use` MUST be `wit-svid` | `wit_svid_6_1_published` |
//! | WIT 32 | 6.1 | `kid` MUST be unique in the bundle | same as WIT 31 |
//! | WIT 33 | 6.2 | keys for WIT-SVIDs MUST be extracted before use | `wit_svid_6_2_keys_of_the_trust_domain` |
//! | WIT 34 | 6.2 | their `use` MUST be `wit-svid` | same as WIT 33 |
//! | WIT 35 | 7.1 | MUST NOT be used as a bearer token | same as WIT 26 |
//! | WIT 36 | 7.1 | MUST be presented with a proof of possession | same as WIT 26 |
//! | WIT 37 | 7.1 | MUST NOT be accepted without proof of possession | same as WIT 26 |
//! | WIT 38 | 7.1 | MUST NOT be presented in the header `Authorization` | same as WIT 30 |
//! | WIT 39 | 7.2 | the lifespan of a proof MUST be limited | `wit_svid_7_2_proofs_are_short` |
//! | WIT 40 | 7.3 | MUST be sent over a secure channel: the caller's, as `WitSvid::token` says | not served, see WIT 27: the proof is bound to the token on every channel |
//! | WIT 41 | B | key of a table: what is a MUST in WIMSE as well | same as WIT 4 |
//! | WIT 42 | B | key of a table: what is a MUST NOT in WIMSE as well | same as WIT 21 |
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
    BundleMap, JsonError, JwtAlgorithm, JwtIssuer, JwtKey, JwtSvidError, JwtSvidValidator, Refusal,
    SpiffeBundle, SpiffeId, TrustBundle, TrustDomain, UnprovenWitSvid, WitAuthority, WitConfirmation,
    WitIssueError, WitIssuer, WitKey, WitKeyError, WitPresentationError, WitProofError, WitProveError,
    WitSvid, WitSvidError, WitSvidValidator,
};

const MINUTE: Duration = Duration::from_secs(60);
const TARGET: &str = "https://reports.example.org/daily";

/// Keys that issuer, workload and test share, so that the test signs what the others never would.
static ISSUER_PKCS8: LazyLock<Vec<u8>> = LazyLock::new(new_pkcs8);
static KEY_PKCS8: LazyLock<Vec<u8>> = LazyLock::new(new_pkcs8);
static ISSUER: LazyLock<WitIssuer> =
    LazyLock::new(|| WitIssuer::from_pkcs8(domain(), JwtAlgorithm::Es256, &ISSUER_PKCS8).unwrap());
static KEY: LazyLock<WitKey> = LazyLock::new(|| WitKey::from_pkcs8(JwtAlgorithm::Es256, &KEY_PKCS8).unwrap());

fn bundles_of(trust_domain: &TrustDomain, authorities: Vec<WitAuthority>) -> BundleMap {
    let mut map = BundleMap::new();
    let bundle = SpiffeBundle::new(TrustBundle::empty(trust_domain.clone()));
    map.insert(bundle.with_wit_authorities(authorities).unwrap());
    map
}

fn bundles() -> BundleMap {
    bundles_of(&domain(), vec![ISSUER.authority().clone()])
}

fn sign(header: &Value, claims: &Value) -> String {
    sign_text(&ISSUER_PKCS8, &header.to_string(), &claims.to_string())
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": ISSUER.authority().key_id(), "typ": "wit+jwt"})
}

/// The public half of the workload's key.
fn jwk() -> Value {
    let mut jwk: Value = serde_json::from_str(&KEY.to_jwk()).unwrap();
    jwk.as_object_mut().unwrap().remove("d").unwrap();
    jwk
}

fn claims() -> Value {
    json!({"sub": workload().to_string(), "cnf": {"jwk": jwk()}, "exp": SECONDS + 60})
}

fn unproven(token: &str) -> Result<UnprovenWitSvid, WitSvidError> {
    WitSvidValidator::new().validate(token, &bundles(), at(SECONDS))
}

/// The claims of a token with a valid signature.
fn validate(header: &Value, claims: &Value) -> Result<SpiffeId, WitSvidError> {
    unproven(&sign(header, claims)).map(|presented| presented.claimed_spiffe_id().clone())
}

/// The rule that a presentation breaks.
fn rule(refused: WitPresentationError) -> WitProofError {
    assert_eq!(refused.spiffe_id, workload());
    refused.source
}

fn issued() -> WitSvid {
    ISSUER.issue(&workload(), KEY.confirmation(), MINUTE, at(SECONDS)).unwrap()
}

#[test]
fn an_issued_token_with_its_proof_is_valid() {
    let svid = issued();
    let proof = KEY.prove(svid.token(), TARGET, MINUTE, at(SECONDS)).unwrap();
    let presented = unproven(svid.token()).unwrap();
    assert_eq!(presented.claimed_spiffe_id(), &workload());
    let shown = format!("{presented:?} {svid:?} {:?} {:?}", *ISSUER, *KEY);
    assert!(!shown.contains(svid.token().rsplit('.').next().unwrap()), "{shown}");
    let (accepted, proof) = presented.with_proof(&proof, TARGET, at(SECONDS)).unwrap();
    assert_eq!(accepted, svid);
    assert_eq!(accepted.spiffe_id(), &workload());
    assert_eq!(accepted.expires(), at(SECONDS + 60));
    assert_eq!(accepted.confirmation(), KEY.confirmation());
    assert_eq!(accepted.claim("sub"), Some("spiffe://example.org/web"));
    assert_eq!(accepted.claim("exp"), None);
    assert_eq!((proof.id().len(), proof.expires()), (22, at(SECONDS + 60)));
    assert_eq!(validate(&header(), &claims()), Ok(workload()));
}

#[test]
fn the_example_of_appendix_a_is_read() {
    let token = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImxRU2kzaFpGbmRhMkQtWEprajF6bDdmb0pvdWl3STRuckF5aHk0alppSmciLCJ0eXAiOiJ3\
                 aXQrand0In0.eyJjbmYiOnsiandrIjp7ImFsZyI6IkVTMjU2IiwiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJyelA3bUxDS0\
                 FIV21zTTZYMEV3VklTQ19oSTN1amN1OTVmZlVreWVER0dvIiwieSI6InVPcmZEbGp0WDltM2pZLWhzeWhMSllheHRHa3pEdjVlNWtt\
                 Q2U1OFo5N2cifX0sImV4cCI6MTc2NTQ1NjUwMywiaWF0IjoxNzY1NDUyOTAzLCJqdGkiOiIxeWoxOVY0TWNPQXpNY0ZpN3F2c2dfQWd\
                 DeGxyWTVFX3g1MDl3bEtLUXRjIiwic3ViIjoic3BpZmZlOi8vZXhhbXBsZS5jb20vbXktd29ya2xvYWQifQ.sfhEvZNdY_kWrICF08l\
                 X0u__rn39YnTavnW-VPBS20zgowDh6-X43v5eOUKZbjZf06yLBQM-Mry5w1g1QFsCkg";
    // The key of the example is not published: everything before the signature is in order.
    let validate = |now| WitSvidValidator::new().validate(token, &bundles(), at(now)).map(drop);
    let trust_domain = TrustDomain::parse("example.com").unwrap();
    assert_eq!(validate(1_765_456_502), Err(WitSvidError::TrustDomain { trust_domain }));
    assert_eq!(validate(1_765_456_503), Err(WitSvidError::Expired));
}

#[test]
fn wit_svid_1_compact_serialization_only() {
    let token = sign(&header(), &claims());
    let parts: Vec<&str> = token.split('.').collect();
    for token in [
        json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string(),
        parts[..2].join("."),
        format!("{token}."),
        format!("{token}="),
        format!(" {token}"),
        String::new(),
        "..".into(),
        format!("{}.{}.", parts[0], base64url(b"[]")),
    ] {
        let refused = unproven(&token).map(drop);
        assert!(matches!(refused, Err(WitSvidError::Serialization | WitSvidError::Json(_))), "{token}");
    }
    let long = "a".repeat(x0_identity::WIT_SVID_LEN_MAX + 1);
    assert_eq!(unproven(&long).map(drop), Err(WitSvidError::Length { len: long.len() }));
    // Two readers must not see two tokens.
    let twice = sign_text(&ISSUER_PKCS8, &header().to_string(), r#"{"sub":"a","sub":"b"}"#);
    let refused = unproven(&twice).map(drop);
    assert!(matches!(refused, Err(WitSvidError::Json(JsonError::DuplicateName { .. }))));
}

#[test]
fn wit_svid_2_1_key_id() {
    assert_eq!(validate(&without(header(), "kid"), &claims()), Err(WitSvidError::KeyId));
    assert_eq!(validate(&with(header(), "kid", json!(1)), &claims()), Err(WitSvidError::KeyId));
    let id = ISSUER.authority().key_id().to_owned();
    let other_case: String = id
        .chars()
        .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    assert_ne!(id, other_case);
    for other in [other_case, format!(" {id}"), format!("{id} "), id[1..].into(), String::new()] {
        let refused = validate(&with(header(), "kid", json!(other)), &claims());
        assert!(matches!(refused, Err(WitSvidError::Key { .. })), "{other}: {refused:?}");
    }
}

#[test]
fn wit_svid_2_1_key_ids_of_issuers_differ() {
    let issuers: Vec<WitIssuer> = (0..16).map(|_| WitIssuer::generate(domain()).unwrap()).collect();
    let ids: std::collections::BTreeSet<&str> =
        issuers.iter().map(|issuer| issuer.authority().key_id()).collect();
    assert_eq!(ids.len(), issuers.len());
    // One key has one id, wherever its issuer starts.
    let again = WitIssuer::from_pkcs8(domain(), JwtAlgorithm::Es256, &ISSUER_PKCS8).unwrap();
    assert_eq!(again.authority(), ISSUER.authority());
    assert_eq!(again.trust_domain(), &domain());
}

#[test]
fn wit_svid_2_2_type() {
    assert_eq!(validate(&without(header(), "typ"), &claims()), Err(WitSvidError::Type));
    for value in
        [json!("JWT"), json!("JOSE"), json!("WIT+JWT"), json!("wit"), json!(""), json!(null), json!(1)]
    {
        assert_eq!(validate(&with(header(), "typ", value), &claims()), Err(WitSvidError::Type));
    }
}

#[test]
fn wit_svid_2_3_algorithms() {
    for name in ["none", "None", "HS256", "HS512", "EdDSA", "ES256K", "es256", "RS1", "RSA-OAEP", ""] {
        let refused = validate(&with(header(), "alg", json!(name)), &claims());
        assert_eq!(refused, Err(WitSvidError::Algorithm), "{name}");
    }
    assert_eq!(validate(&without(header(), "alg"), &claims()), Err(WitSvidError::Algorithm));
    // A key is for its own algorithm: no other is tried with it.
    for name in ["ES384", "ES512", "RS256", "PS512"] {
        let refused = validate(&with(header(), "alg", json!(name)), &claims());
        assert!(matches!(refused, Err(WitSvidError::Key { .. })), "{name}: {refused:?}");
    }
}

/// Every algorithm signs tokens and proofs, with keys that pass through JSON.
#[test]
fn wit_svid_2_3_every_algorithm() {
    for (algorithm, pkcs8) in keys() {
        let issuer = WitIssuer::from_pkcs8(domain(), algorithm, &pkcs8).unwrap();
        let key = WitKey::from_pkcs8(algorithm, &pkcs8).unwrap();
        let again = WitKey::from_jwk(&key.to_jwk()).unwrap();
        assert_eq!(again.to_jwk(), key.to_jwk(), "{algorithm}");
        assert_eq!((again.confirmation(), key.confirmation().algorithm()), (key.confirmation(), algorithm));
        let svid = issuer.issue(&workload(), key.confirmation(), MINUTE, at(SECONDS)).unwrap();
        let json = bundles_of(&domain(), vec![issuer.authority().clone()]).to_json();
        let bundles = BundleMap::from_json(json.as_bytes()).unwrap();
        let validate = |token: &str| WitSvidValidator::new().validate(token, &bundles, at(SECONDS));
        for key in [&key, &again] {
            let proof = key.prove(svid.token(), TARGET, MINUTE, at(SECONDS)).unwrap();
            let presented = validate(svid.token()).unwrap();
            let accepted = presented.with_proof(&proof, TARGET, at(SECONDS));
            assert_eq!(accepted.unwrap().0, svid, "{algorithm}");
        }
        let (_, rest) = svid.token().split_once('.').unwrap();
        for other in ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"] {
            if other != algorithm.name() {
                let header = json!({"alg": other, "kid": issuer.authority().key_id(), "typ": "wit+jwt"});
                let token = format!("{}.{rest}", base64url(header.to_string().as_bytes()));
                assert!(validate(&token).is_err(), "{algorithm} as {other}");
            }
        }
    }
}

#[test]
fn wit_svid_2_4_further_headers() {
    for name in ["jku", "cty", "private"] {
        assert_eq!(validate(&with(header(), name, json!("a")), &claims()), Ok(workload()), "{name}");
    }
    for critical in [json!(["private"]), json!([]), json!("a"), json!(null)] {
        assert_eq!(validate(&with(header(), "crit", critical), &claims()), Err(WitSvidError::Critical));
    }
}

#[test]
fn wit_svid_3_1_subject() {
    assert_eq!(validate(&header(), &without(claims(), "sub")), Err(WitSvidError::Subject));
    assert_eq!(validate(&header(), &with(claims(), "sub", json!(1))), Err(WitSvidError::Subject));
    for id in ["", "web", "https://example.org/web", "spiffe://example.org/web/", "SPIFFE://example.org/web"]
    {
        let refused = validate(&header(), &with(claims(), "sub", json!(id)));
        assert!(matches!(refused, Err(WitSvidError::SpiffeId(_))), "{id}: {refused:?}");
    }
}

#[test]
fn wit_svid_3_2_confirmation() {
    let confirmed = |cnf: Value| validate(&header(), &with(claims(), "cnf", cnf));
    assert_eq!(validate(&header(), &without(claims(), "cnf")), Err(WitSvidError::Confirmation));
    // RFC 7800 §3.1: further members mean nothing.
    assert_eq!(confirmed(json!({"jwk": jwk(), "kid": "a"})), Ok(workload()));
    assert_eq!(confirmed(json!({"jwk": with(jwk(), "use", json!("sig"))})), Ok(workload()));
    let private: Value = serde_json::from_str(&KEY.to_jwk()).unwrap();
    for cnf in [
        json!(null),
        json!("a"),
        json!({}),
        json!([jwk()]),
        json!({"jwk": null}),
        json!({"jwk": {}}),
        json!({"jwk": jwk(), "jku": "https://example.org"}),
        json!({"jwk": jwk(), "jwe": "a"}),
        json!({"jwk": private}),
        json!({"jwk": {"kty": "oct", "alg": "HS256", "k": "AA"}}),
        json!({"jwk": without(jwk(), "x")}),
        json!({"jwk": with(jwk(), "x", json!("AA"))}),
        json!({"jwk": with(jwk(), "crv", json!("P-384"))}),
    ] {
        assert_eq!(confirmed(cnf.clone()), Err(WitSvidError::Confirmation), "{cnf}");
    }
    // A private parameter of RSA alone gives the key away.
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
        let rsa = json!({"kty": "RSA", "alg": "RS256", "n": base64url(&[0xff; 256]), "e": "AQAB"});
        assert_eq!(confirmed(json!({"jwk": rsa})), Ok(workload()));
        let private = json!({"jwk": with(rsa, name, json!("AQ"))});
        assert_eq!(confirmed(private), Err(WitSvidError::Confirmation), "{name}");
    }
    // Keys of 1024 and of 8200 bits.
    for len in [128, 1025] {
        let rsa = json!({"kty": "RSA", "alg": "RS256", "n": base64url(&vec![0xff; len]), "e": "AQAB"});
        assert_eq!(confirmed(json!({"jwk": rsa})), Err(WitSvidError::Confirmation), "{len}");
    }
}

#[test]
fn wit_svid_3_2_algorithm_of_the_key() {
    let confirmed = |jwk: Value| validate(&header(), &with(claims(), "cnf", json!({"jwk": jwk})));
    assert_eq!(confirmed(without(jwk(), "alg")), Err(WitSvidError::Confirmation));
    for name in ["none", "HS256", "EdDSA", "ES256K", "es256", "", "ES384", "RS256"] {
        assert_eq!(confirmed(with(jwk(), "alg", json!(name))), Err(WitSvidError::Confirmation), "{name}");
    }
    let key = KEY.confirmation().key().clone();
    for algorithm in [JwtAlgorithm::Es384, JwtAlgorithm::Es512, JwtAlgorithm::Rs256] {
        let refused = WitConfirmation::new(algorithm, key.clone()).unwrap_err();
        assert_eq!(refused, WitKeyError::Key { algorithm });
    }
    // The bytes of a workload that are no key of the algorithm.
    let JwtKey::P256(point) = key else { panic!("a key on P-256") };
    let compressed = [&[2][..], &point[1..33]].concat();
    let hybrid = [&[6][..], &point[1..]].concat();
    for bytes in [Vec::new(), vec![4], vec![4; 10], compressed, hybrid, point[..64].to_vec()] {
        let refused = WitConfirmation::new(JwtAlgorithm::Es256, JwtKey::P256(bytes.clone()));
        assert_eq!(refused, Err(WitKeyError::Key { algorithm: JwtAlgorithm::Es256 }), "{bytes:?}");
    }
    assert!(WitConfirmation::new(JwtAlgorithm::Es384, JwtKey::P384(point.clone())).is_err());
    assert!(WitConfirmation::new(JwtAlgorithm::Es512, JwtKey::P521(point)).is_err());
    let rsa = |modulus: Vec<u8>, exponent: &[u8]| {
        let key = JwtKey::Rsa { modulus, exponent: exponent.to_vec() };
        WitConfirmation::new(JwtAlgorithm::Ps256, key).is_ok()
    };
    let modulus = || vec![0xff; 256];
    assert!(rsa(modulus(), &[1, 0, 1]) && rsa(modulus(), &[3]) && rsa(vec![0xff; 1024], &[1; 4]));
    assert!(!rsa(vec![0xff; 255], &[1, 0, 1]) && !rsa(vec![0xff; 1025], &[1, 0, 1]));
    for exponent in [&[][..], &[0], &[1], &[2], &[0, 1, 0, 1], &[1; 5]] {
        assert!(!rsa(modulus(), exponent), "{exponent:?}");
    }
    assert!(!rsa([&[0][..], &modulus()].concat(), &[1, 0, 1]) && !rsa(vec![0xfe; 256], &[1, 0, 1]));
}

#[test]
fn wit_svid_3_3_ids_differ() {
    let ids: std::collections::BTreeSet<String> =
        (0..64).map(|_| issued().claim("jti").unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 64);
    // 128 bits.
    assert!(ids.iter().all(|id| id.len() == 22));
}

#[test]
fn wit_svid_3_3_a_token_is_presented_twice() {
    let svid = issued();
    let validator = WitSvidValidator::new();
    for _ in 0..2 {
        let proof = KEY.prove(svid.token(), TARGET, MINUTE, at(SECONDS)).unwrap();
        let presented = validator.validate(svid.token(), &bundles(), at(SECONDS)).unwrap();
        assert!(presented.with_proof(&proof, TARGET, at(SECONDS)).is_ok());
    }
}

#[test]
fn wit_svid_3_4_expiry() {
    assert_eq!(validate(&header(), &without(claims(), "exp")), Err(WitSvidError::NoExpiry));
    for value in [json!("2000000060"), json!(null), json!(-1), json!(1e300)] {
        let refused = validate(&header(), &with(claims(), "exp", value.clone()));
        assert_eq!(refused, Err(WitSvidError::NoExpiry), "{value}");
    }
    for (expires, expect) in [
        (json!(SECONDS + 1), Ok(workload())),
        (json!(2_000_000_000.5), Ok(workload())),
        (json!(SECONDS), Err(WitSvidError::Expired)),
        (json!(0), Err(WitSvidError::Expired)),
    ] {
        assert_eq!(validate(&header(), &with(claims(), "exp", expires.clone())), expect, "{expires}");
    }
    let token = sign(&header(), &with(claims(), "nbf", json!(SECONDS)));
    let validator = WitSvidValidator::new().leeway(Duration::from_secs(5));
    for (now, accept) in
        [(SECONDS - 6, false), (SECONDS - 5, true), (SECONDS + 64, true), (SECONDS + 65, false)]
    {
        assert_eq!(validator.validate(&token, &bundles(), at(now)).is_ok(), accept, "{now}");
    }
}

/// A token is valid for a minute here, and its proof for longer: the body of a request may take minutes.
#[test]
fn wit_svid_3_4_expiry_between_token_and_proof() {
    let svid = issued();
    let proof = KEY.prove(svid.token(), TARGET, MINUTE * 2, at(SECONDS)).unwrap();
    let signature = KEY.sign(b"a request").unwrap();
    let leeway = Duration::from_secs(5);
    for (validator, now, accept) in [
        (WitSvidValidator::new(), SECONDS + 59, true),
        (WitSvidValidator::new(), SECONDS + 60, false),
        (WitSvidValidator::new().leeway(leeway), SECONDS + 64, true),
        (WitSvidValidator::new().leeway(leeway), SECONDS + 65, false),
    ] {
        let expect = if accept { Ok(svid.clone()) } else { Err(WitProofError::TokenExpired) };
        let present = || validator.validate(svid.token(), &bundles(), at(SECONDS)).unwrap();
        let proved = present().with_proof(&proof, TARGET, at(now)).map(|(svid, _)| svid).map_err(rule);
        assert_eq!(proved, expect, "{now}");
        let signed = present().with_signature(b"a request", &signature, at(now)).map_err(rule);
        assert_eq!(signed, expect, "{now}");
    }
}

#[test]
fn wit_svid_3_5_not_before() {
    for (not_before, expect) in [
        (json!(SECONDS), Ok(workload())),
        (json!(SECONDS + 1), Err(WitSvidError::NotYetValid)),
        (json!("a"), Err(WitSvidError::NotBefore)),
    ] {
        assert_eq!(validate(&header(), &with(claims(), "nbf", not_before.clone())), expect, "{not_before}");
    }
    // The longest lifespan is a setting; without nbf it is not known.
    let validator = WitSvidValidator::new().lifespan_max(Duration::from_secs(70));
    let lifespan = |claims: Value| validator.validate(&sign(&header(), &claims), &bundles(), at(SECONDS));
    let long = WitSvidError::Lifespan { lifespan_max: Duration::from_secs(70) };
    assert!(lifespan(with(claims(), "nbf", json!(SECONDS - 10))).is_ok());
    assert_eq!(lifespan(with(claims(), "nbf", json!(SECONDS - 11))).map(drop), Err(long.clone()));
    assert_eq!(lifespan(claims()).map(drop), Err(WitSvidError::NoNotBefore));
    // The lifespan of this crate's issuer is known, and includes the minute before.
    let of_issuer = |validity| {
        let svid = ISSUER.issue(&workload(), KEY.confirmation(), validity, at(SECONDS)).unwrap();
        validator.validate(svid.token(), &bundles(), at(SECONDS - 60)).map(drop)
    };
    assert_eq!(of_issuer(Duration::from_secs(10)), Ok(()));
    assert_eq!(of_issuer(Duration::from_secs(11)), Err(long));
}

#[test]
fn wit_svid_3_6_issued_at_limits_nothing() {
    for issued in [json!(SECONDS + 1000), json!(0), json!("a"), json!(null)] {
        assert_eq!(validate(&header(), &with(claims(), "iat", issued)), Ok(workload()));
    }
}

#[test]
fn wit_svid_3_8_no_audience() {
    for audience in [json!("reports"), json!(["reports"]), json!([]), json!(null)] {
        assert_eq!(validate(&header(), &with(claims(), "aud", audience)), Err(WitSvidError::Audience));
    }
    assert_eq!(validate(&header(), &with(claims(), "private", json!({"a": [1]}))), Ok(workload()));
}

fn decoded(part: &str) -> Value {
    let bits = part.bytes().fold((Vec::new(), 0_u32, 0), |(mut out, value, count), byte| {
        let digit = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let sextet = u32::try_from(digit.iter().position(|known| *known == byte).unwrap()).unwrap();
        let (value, count) = ((value << 6 | sextet) & 0xffff, count + 6);
        if count >= 8 {
            out.push(u8::try_from(value >> (count - 8) & 0xff).unwrap());
            (out, value, count - 8)
        } else {
            (out, value, count)
        }
    });
    serde_json::from_slice(&bits.0).unwrap()
}

#[test]
fn wit_svid_4_what_an_issuer_sets() {
    let svid = issued();
    let parts: Vec<&str> = svid.token().split('.').collect();
    assert_eq!(decoded(parts[0]), header());
    let set = decoded(parts[1]);
    let expect = with(claims(), "jti", set["jti"].clone());
    let expect = with(expect, "nbf", json!(SECONDS - 60));
    assert_eq!(set, with(expect, "iat", json!(SECONDS)));
    // What the issuer refuses.
    let foreign = SpiffeId::parse("spiffe://example.com/web").unwrap();
    let issue =
        |id: &SpiffeId, validity| ISSUER.issue(id, KEY.confirmation(), validity, at(SECONDS)).map(drop);
    assert!(matches!(issue(&foreign, MINUTE), Err(WitIssueError::TrustDomain { .. })));
    for validity in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
        assert_eq!(issue(&workload(), validity), Err(WitIssueError::Validity));
    }
    for algorithm in [JwtAlgorithm::Rs256, JwtAlgorithm::Es384, JwtAlgorithm::Es512] {
        let refused = WitIssuer::from_pkcs8(domain(), algorithm, &ISSUER_PKCS8).map(drop);
        assert_eq!(refused, Err(WitKeyError::Key { algorithm }));
        let refused = WitKey::from_pkcs8(algorithm, &KEY_PKCS8).map(drop);
        assert_eq!(refused, Err(WitKeyError::Key { algorithm }));
    }
}

/// Presented alone, or with a signature of another key, nobody is authenticated: the type has no other way
/// out.
#[test]
fn wit_svid_4_a_proof_is_required() {
    let (svid, message) = (issued(), b"the signature base of a request");
    let present = || unproven(svid.token()).unwrap();
    let signature = KEY.sign(message).unwrap();
    assert_eq!(present().with_signature(message, &signature, at(SECONDS)).unwrap(), svid);
    let other = WitKey::generate().unwrap();
    for (message, signature) in [
        (&message[..], other.sign(message).unwrap()),
        (b"another request", signature.clone()),
        (&message[..], signature[1..].to_vec()),
        (&message[..], Vec::new()),
    ] {
        let refused = present().with_signature(message, &signature, at(SECONDS)).unwrap_err();
        assert_eq!((&refused.spiffe_id, &refused.source), (&workload(), &WitProofError::Signature));
        assert!(refused.to_string().contains("spiffe://example.org/web"), "{refused}");
    }
    // The token is no proof of itself.
    let refused = present().with_proof(svid.token(), TARGET, at(SECONDS)).map_err(rule);
    assert_eq!(refused, Err(WitProofError::Type));
}

fn proof_header() -> Value {
    json!({"alg": "ES256", "typ": "wpt+jwt"})
}

fn proof_claims(token: &str) -> Value {
    let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    json!({"aud": TARGET, "exp": SECONDS + 10, "jti": "a", "wth": base64url(hash.as_ref())})
}

#[test]
fn wit_svid_5_the_proof_is_bound_to_the_token() {
    let svid = issued();
    let prove = |header: Value, claims: Value| {
        let proof = sign_text(&KEY_PKCS8, &header.to_string(), &claims.to_string());
        let presented = unproven(svid.token()).unwrap();
        presented.with_proof(&proof, TARGET, at(SECONDS)).map(|(_, proof)| proof).map_err(rule)
    };
    let good = proof_claims(svid.token());
    assert_eq!(prove(proof_header(), good.clone()).unwrap().id(), "a");
    for name in ["JWT", "wit+jwt", "WPT+JWT", ""] {
        let refused = prove(with(proof_header(), "typ", json!(name)), good.clone());
        assert_eq!(refused, Err(WitProofError::Type), "{name}");
    }
    assert_eq!(prove(with(proof_header(), "crit", json!(["a"])), good.clone()), Err(WitProofError::Type));
    for name in ["none", "HS256", "ES384", "RS256"] {
        let refused = prove(with(proof_header(), "alg", json!(name)), good.clone());
        assert_eq!(refused, Err(WitProofError::Algorithm), "{name}");
    }
    for wth in [proof_claims(issued().token())["wth"].clone(), json!(""), json!(null), json!(svid.token())] {
        let refused = prove(proof_header(), with(good.clone(), "wth", wth));
        assert_eq!(refused, Err(WitProofError::OtherToken));
    }
    for name in ["ath", "tth", "oth"] {
        let refused = prove(proof_header(), with(good.clone(), name, json!("a")));
        assert_eq!(refused, Err(WitProofError::FurtherToken { name }));
    }
    let several = json!([TARGET, "https://example.org"]);
    for audience in [json!("https://reports.example.org"), json!(""), json!([]), several, json!(null)] {
        let refused = prove(proof_header(), with(good.clone(), "aud", audience));
        assert_eq!(refused, Err(WitProofError::Audience));
    }
    assert!(prove(proof_header(), with(good.clone(), "aud", json!([TARGET]))).is_ok());
    for (not_before, expect) in [
        (json!(SECONDS), Ok(())),
        (json!(SECONDS + 1), Err(WitProofError::NotYetValid)),
        (json!("a"), Err(WitProofError::NotBefore)),
    ] {
        let proved = prove(proof_header(), with(good.clone(), "nbf", not_before.clone()));
        assert_eq!(proved.map(drop), expect, "{not_before}");
    }
    for id in [json!(""), json!(1), json!(null)] {
        assert_eq!(prove(proof_header(), with(good.clone(), "jti", id)), Err(WitProofError::Id));
    }
    assert_eq!(prove(proof_header(), with(good.clone(), "private", json!(1))).unwrap().id(), "a");
    // Another key, and texts that are no proof.
    let with_proof = |proof: &str| {
        let presented = unproven(svid.token()).unwrap();
        presented.with_proof(proof, TARGET, at(SECONDS)).map(drop).map_err(rule)
    };
    let other = sign_text(&new_pkcs8(), &proof_header().to_string(), &good.to_string());
    assert_eq!(with_proof(&other), Err(WitProofError::Signature));
    for text in ["", "a", "a.b", "..", &"a".repeat(x0_identity::WIT_SVID_LEN_MAX + 1)] {
        let refused = with_proof(text);
        assert!(matches!(refused, Err(WitProofError::Serialization | WitProofError::Json(_))), "{refused:?}");
    }
    // A recipient without a name accepts nothing.
    let nameless =
        sign_text(&KEY_PKCS8, &proof_header().to_string(), &with(good, "aud", json!("")).to_string());
    let refused = unproven(svid.token()).unwrap().with_proof(&nameless, "", at(SECONDS));
    assert_eq!(refused.map(drop).map_err(rule), Err(WitProofError::Audience));
}

/// A WIT-SVID is no JWT-SVID, whose validators take what comes in the header `Authorization`, and the
/// reverse.
#[test]
fn wit_svid_5_no_bearer_token() {
    let issuer =
        JwtIssuer::from_pkcs8(domain(), ISSUER.authority().key_id(), JwtAlgorithm::Es256, &ISSUER_PKCS8)
            .unwrap();
    let mut jwt_bundles = BundleMap::new();
    let bundle = SpiffeBundle::new(TrustBundle::empty(domain()));
    jwt_bundles.insert(bundle.with_jwt_authorities(vec![issuer.authority().clone()]).unwrap());
    let token = sign(&header(), &with(claims(), "aud", json!("reports")));
    let refused = JwtSvidValidator::new("reports").validate(&token, &jwt_bundles, at(SECONDS));
    assert_eq!(refused, Err(JwtSvidError::Header { name: "typ".into() }));
    let token = issuer.issue(&workload(), &["reports"], MINUTE, at(SECONDS)).unwrap();
    assert_eq!(unproven(token.token()).map(drop), Err(WitSvidError::Type));
}

#[test]
fn wit_svid_6_1_published() {
    let jwt = JwtIssuer::generate(domain(), "jwt").unwrap();
    let bundle = SpiffeBundle::new(TrustBundle::empty(domain()));
    let bundle = bundle.with_jwt_authorities(vec![jwt.authority().clone()]).unwrap();
    let bundle = bundle.with_wit_authorities(vec![ISSUER.authority().clone()]).unwrap();
    let written: Value = serde_json::from_str(&bundle.to_json()).unwrap();
    let keys = written["keys"].as_array().unwrap();
    assert_eq!((&keys[0]["use"], &keys[1]["use"]), (&json!("jwt-svid"), &json!("wit-svid")));
    assert_eq!(keys[1]["kid"], json!(ISSUER.authority().key_id()));
    let read = SpiffeBundle::from_json(domain(), bundle.to_json().as_bytes()).unwrap();
    assert_eq!(read, bundle);
    assert_eq!(read.wit_authorities(), [ISSUER.authority().clone()]);
    // A key id occurs once among the keys of both kinds, in either order.
    let wit_as_jwt =
        JwtIssuer::from_pkcs8(domain(), ISSUER.authority().key_id(), JwtAlgorithm::Es256, &ISSUER_PKCS8)
            .unwrap();
    let same = vec![wit_as_jwt.authority().clone()];
    let refused = bundle.clone().with_jwt_authorities(same).unwrap_err();
    assert_eq!((refused.position, refused.source), (0, Refusal::DuplicateKeyId));
    // Of a document the key for JWT-SVIDs stays, whichever is first.
    for wit_first in [false, true] {
        let mut keys =
            vec![with(keys[0].clone(), "kid", json!("same")), with(keys[1].clone(), "kid", json!("same"))];
        if wit_first {
            keys.reverse();
        }
        // Left out for another reason.
        keys.insert(1, json!({"kty": "RSA", "use": "sig"}));
        let read = SpiffeBundle::from_json(domain(), json!({"keys": keys}).to_string().as_bytes()).unwrap();
        assert_eq!((read.jwt_authorities().len(), read.wit_authorities().len()), (1, 0));
        let refused: Vec<(usize, Refusal)> =
            read.refused().iter().map(|refused| (refused.position, refused.source.clone())).collect();
        let duplicate = (if wit_first { 0 } else { 2 }, Refusal::DuplicateKeyId);
        let mut expect = [duplicate, (1, Refusal::Use)];
        expect.sort_by_key(|(position, _)| *position);
        assert_eq!(refused, expect);
    }
    let twice = vec![ISSUER.authority().clone(), ISSUER.authority().clone()];
    let refused = bundle.clone().with_wit_authorities(twice).unwrap_err();
    assert_eq!((refused.position, refused.source), (1, Refusal::DuplicateKeyId));
    let many = (0..=SpiffeBundle::WIT_AUTHORITIES_MAX)
        .map(|_| WitIssuer::generate(domain()).unwrap().authority().clone());
    let refused = bundle.with_wit_authorities(many.collect()).unwrap_err();
    assert_eq!((refused.position, refused.source), (64, Refusal::WitAuthorities));
    let info = [
        &[0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1][..],
        &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 0x42, 0],
        match ISSUER.authority().key() {
            JwtKey::P256(point) => &point[..],
            other => panic!("{other:?}"),
        },
    ]
    .concat();
    let same = WitAuthority::from_public_key(ISSUER.authority().key_id(), &info).unwrap();
    assert_eq!(&same, ISSUER.authority());
}

#[test]
fn wit_svid_6_2_keys_of_the_trust_domain() {
    let token = sign(&header(), &claims());
    let validate =
        |bundles: &BundleMap| WitSvidValidator::new().validate(&token, bundles, at(SECONDS)).map(drop);
    let no_key = WitSvidError::Key { trust_domain: domain(), algorithm: JwtAlgorithm::Es256 };
    // The same key in another trust domain, another key, and keys of other uses.
    let foreign = TrustDomain::parse("example.com").unwrap();
    let authority = ISSUER.authority().clone();
    let unknown = WitSvidError::TrustDomain { trust_domain: domain() };
    assert_eq!(validate(&bundles_of(&foreign, vec![authority])), Err(unknown));
    let other = WitIssuer::generate(domain()).unwrap();
    assert_eq!(validate(&bundles_of(&domain(), vec![other.authority().clone()])), Err(no_key.clone()));
    let mut key: Value = serde_json::from_str(&bundles().to_json()).unwrap();
    let key = key["trust_domains"]["example.org"]["keys"][0].take();
    for (usage, expect) in [
        (json!("wit-svid"), Ok(())),
        (json!("jwt-svid"), Err(no_key.clone())),
        (json!("x509-svid"), Err(no_key.clone())),
        (json!("WIT-SVID"), Err(no_key.clone())),
        (json!(null), Err(no_key)),
    ] {
        let json = json!({"keys": [with(key.clone(), "use", usage.clone())]}).to_string();
        let mut map = BundleMap::new();
        map.insert(SpiffeBundle::from_json(domain(), json.as_bytes()).unwrap());
        assert_eq!(validate(&map), expect, "{usage}");
    }
    // The key of a WIT-SVID validates no JWT-SVID.
    let jwt =
        JwtIssuer::from_pkcs8(domain(), ISSUER.authority().key_id(), JwtAlgorithm::Es256, &ISSUER_PKCS8);
    let token = jwt.unwrap().issue(&workload(), &["a"], MINUTE, at(SECONDS)).unwrap();
    let refused = JwtSvidValidator::new("a").validate(token.token(), &bundles(), at(SECONDS));
    assert!(matches!(refused, Err(JwtSvidError::Key { .. })));
    // A signature of another key with this id.
    let forged = sign_text(&new_pkcs8(), &header().to_string(), &claims().to_string());
    assert_eq!(unproven(&forged).map(drop), Err(WitSvidError::Signature));
}

#[test]
fn wit_svid_7_2_proofs_are_short() {
    let svid = issued();
    let prove = |validator: &WitSvidValidator, expires: Value, now| {
        let claims = with(proof_claims(svid.token()), "exp", expires);
        let proof = sign_text(&KEY_PKCS8, &proof_header().to_string(), &claims.to_string());
        let presented = validator.validate(svid.token(), &bundles(), at(now)).unwrap();
        presented.with_proof(&proof, TARGET, at(now)).map(drop).map_err(rule)
    };
    let validator = WitSvidValidator::new();
    assert_eq!(prove(&validator, json!(SECONDS + 300), SECONDS), Ok(()));
    let long = || Err(WitProofError::Lifetime { lifetime_max: Duration::from_secs(300) });
    assert_eq!(prove(&validator, json!(SECONDS + 301), SECONDS), long());
    assert_eq!(prove(&validator, json!(u64::MAX / 2), SECONDS), long());
    assert_eq!(prove(&validator, json!(u64::MAX), SECONDS), Err(WitProofError::NoExpiry));
    assert_eq!(prove(&validator, json!(null), SECONDS), Err(WitProofError::NoExpiry));
    assert_eq!(prove(&validator, json!(SECONDS + 10), SECONDS + 9), Ok(()));
    assert_eq!(prove(&validator, json!(SECONDS + 10), SECONDS + 10), Err(WitProofError::Expired));
    let short =
        WitSvidValidator::new().proof_lifetime_max(Duration::from_secs(5)).leeway(Duration::from_secs(2));
    assert_eq!(prove(&short, json!(SECONDS + 7), SECONDS), Ok(()));
    let refused = Err(WitProofError::Lifetime { lifetime_max: Duration::from_secs(5) });
    assert_eq!(prove(&short, json!(SECONDS + 8), SECONDS), refused);
    assert_eq!(prove(&short, json!(SECONDS + 7), SECONDS + 8), Ok(()));
    assert_eq!(prove(&short, json!(SECONDS + 7), SECONDS + 9), Err(WitProofError::Expired));
    // An id that is remembered for so long is remembered for as long as its proof is accepted.
    let presented = short.validate(svid.token(), &bundles(), at(SECONDS)).unwrap();
    let proof = KEY.prove(svid.token(), TARGET, Duration::from_secs(7), at(SECONDS)).unwrap();
    let (_, proof) = presented.with_proof(&proof, TARGET, at(SECONDS)).unwrap();
    assert_eq!(proof.expires(), at(SECONDS + 9));
    // A leeway has a limit too, so that the end of a proof is a time.
    let lenient = WitSvidValidator::new().leeway(Duration::MAX);
    let day = 24 * 3600;
    assert_eq!(prove(&lenient, json!(SECONDS + 300 + day), SECONDS), Ok(()));
    assert_eq!(prove(&lenient, json!(SECONDS + 301 + day), SECONDS), long());
    // The limit has a limit, and a workload makes no proof that is refused.
    let unlimited = WitSvidValidator::new().proof_lifetime_max(Duration::MAX);
    assert_eq!(prove(&unlimited, json!(SECONDS + 301), SECONDS), long());
    for validity in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(301), Duration::MAX] {
        let refused = KEY.prove(svid.token(), TARGET, validity, at(SECONDS));
        assert_eq!(refused, Err(WitProveError::Validity));
    }
    assert_eq!(KEY.prove(svid.token(), "", MINUTE, at(SECONDS)), Err(WitProveError::Audience));
    let long = "a".repeat(x0_identity::WIT_SVID_LEN_MAX);
    assert_eq!(KEY.prove(svid.token(), &long, MINUTE, at(SECONDS)), Err(WitProveError::Audience));
}

/// The limits of keys that sign: the error promises no more than the provider takes. A key of 4104 bits, and
/// one with the exponent 3.
#[test]
fn an_error_about_a_private_key_has_its_limits() {
    let integer = |bytes: &[u8]| base64url(bytes);
    for (len, exponent) in [(513, &[1, 0, 1][..]), (256, &[3])] {
        let (modulus, half) = (vec![0xff; len], vec![0xff; len / 2]);
        let jwk = json!({
            "kty": "RSA", "alg": "RS256", "n": integer(&modulus), "e": integer(exponent),
            "d": integer(&modulus), "p": integer(&half), "q": integer(&half), "dp": integer(&half),
            "dq": integer(&half), "qi": integer(&half),
        });
        let refused = WitKey::from_jwk(&jwk.to_string()).map(drop).unwrap_err();
        assert_eq!(refused, WitKeyError::Key { algorithm: JwtAlgorithm::Rs256 });
        assert!(refused.to_string().contains("2048 to 4096 bits with the exponent 65537"), "{refused}");
    }
}

#[test]
fn private_keys_as_json_are_read_strictly() {
    let good: Value = serde_json::from_str(&KEY.to_jwk()).unwrap();
    let read = |jwk: &Value| WitKey::from_jwk(&jwk.to_string()).map(|key| key.to_jwk());
    assert_eq!(read(&good), Ok(KEY.to_jwk()));
    assert_eq!(read(&with(good.clone(), "kid", json!("a"))), Ok(KEY.to_jwk()));
    for name in ["alg", "kty", "crv", "x", "y", "d"] {
        assert_eq!(read(&without(good.clone(), name)), Err(WitKeyError::Jwk), "{name}");
        assert!(read(&with(good.clone(), name, json!("AA"))).is_err(), "{name}");
    }
    // The private half of another key.
    let other: Value = serde_json::from_str(&WitKey::generate().unwrap().to_jwk()).unwrap();
    assert!(read(&with(good.clone(), "d", other["d"].clone())).is_err());
    assert!(read(&with(good.clone(), "alg", json!("ES384"))).is_err());
    for text in ["", "[]", "{", &format!("{good}{}", " ".repeat(16 * 1024))] {
        assert_eq!(WitKey::from_jwk(text).map(drop), Err(WitKeyError::Jwk));
    }
    for (algorithm, pkcs8) in keys() {
        let key: Value =
            serde_json::from_str(&WitKey::from_pkcs8(algorithm, &pkcs8).unwrap().to_jwk()).unwrap();
        if key["kty"] == "RSA" {
            // The provider signs with the factors and their exponents, and not with `d`.
            assert!(
                read(&with(key.clone(), "p", key["q"].clone())).is_err(),
                "{algorithm}: one factor twice"
            );
            for name in ["dp", "dq"] {
                let mut other = key[name].as_str().unwrap().to_owned();
                let changed = if other[9..].starts_with('A') { "B" } else { "A" };
                other.replace_range(9..10, changed);
                let refused = read(&with(key.clone(), name, json!(other)));
                assert_eq!(refused, Err(WitKeyError::Sign { algorithm }), "{algorithm}: another {name}");
            }
        } else {
            // Any scalar but its own.
            assert!(read(&with(key.clone(), "d", key["x"].clone())).is_err(), "{algorithm}: another key");
        }
        for name in key.as_object().unwrap().keys() {
            assert!(read(&without(key.clone(), name)).is_err(), "{algorithm} without {name}");
        }
        assert!(read(&with(key.clone(), "d", json!("AA"))).is_err(), "{algorithm}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_refused_without_a_panic(token in "[A-Za-z0-9_.{}\\-]{0,200}", wild in any::<String>()) {
        prop_assert!(unproven(&token).is_err());
        prop_assert!(unproven(&wild).is_err());
        prop_assert!(WitKey::from_jwk(&wild).is_err());
    }

    /// Every change of a character makes a token or a proof invalid: it has one text.
    #[test]
    fn a_changed_token_is_refused(position in any::<prop::sample::Index>(), byte in b'0'..=b'z') {
        let change = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            let position = position.index(bytes.len());
            bytes[position] = byte;
            String::from_utf8(bytes).unwrap()
        };
        let svid = issued();
        let token = change(svid.token());
        prop_assert!(token == svid.token() || unproven(&token).is_err());
        let proof = KEY.prove(svid.token(), TARGET, MINUTE, at(SECONDS)).unwrap();
        let changed = change(&proof);
        let presented = unproven(svid.token()).unwrap();
        let accepted = presented.with_proof(&changed, TARGET, at(SECONDS)).is_ok();
        prop_assert!(accepted == (changed == proof));
    }
}
