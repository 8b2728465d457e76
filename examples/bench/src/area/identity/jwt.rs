//! JWT-SVIDs beside `jsonwebtoken`, which knows no bundles and no SPIFFE IDs. Both sign with ES256.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::SystemTime;

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use x0_identity::{
    BundleMap, JwtAlgorithm, JwtIssuer, JwtSvidValidator, SpiffeBundle, TrustBundle, TrustDomain,
};

use super::{DAY, Options, TIME, each, id, in_turns};
use crate::case::Case;

const SYSTEMS: [&str; 2] = ["x0-identity", "jsonwebtoken 12 with p256"];

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    aud: Vec<String>,
    exp: u64,
    iat: u64,
}

/// One key for both.
struct Kit {
    issuer: JwtIssuer,
    bundles: BundleMap,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Kit {
    fn new() -> Result<Kit> {
        let domain = TrustDomain::parse("bench.example.org")?;
        let key = KeyPair::generate()?;
        let pkcs8 = key.serialize_der();
        let issuer = JwtIssuer::from_pkcs8(domain.clone(), "key", JwtAlgorithm::Es256, &pkcs8)?;
        let bundle = SpiffeBundle::new(TrustBundle::empty(domain));
        let mut bundles = BundleMap::new();
        bundles.insert(bundle.with_jwt_authorities(vec![issuer.authority().clone()])?);
        let (encoding, decoding) =
            (EncodingKey::from_ec_der(&pkcs8), DecodingKey::from_ec_der(key.der_bytes()));
        Ok(Kit { issuer, bundles, encoding, decoding })
    }

    fn claims() -> Result<Claims> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let (sub, aud) = (id("web")?.to_string(), vec!["audience".to_owned()]);
        Ok(Claims { sub, aud, exp: now + DAY.as_secs(), iat: now })
    }

    fn header() -> Header {
        Header { kid: Some("key".to_owned()), ..Header::new(Algorithm::ES256) }
    }
}

fn case(name: &str, count: u32) -> Case {
    let how = format!("{count} tokens with ES256 in each turn, one thread.");
    Case::new("identity", name, how, SYSTEMS.map(str::to_owned).to_vec())
}

fn finish(mut case: Case) -> Case {
    let ratio = case.paired_ratio(TIME, 0, 1);
    case.aim("processor time beside jsonwebtoken in the same turn", ratio, 1.0, "x");
    case
}

pub(super) fn issue(options: &Options) -> Result<Case> {
    let kit = Kit::new()?;
    let id = id("web")?;
    let count = options.count(5_000);
    let mut case = case("issue a JWT-SVID", count);
    in_turns(
        &mut case,
        TIME,
        options.turns,
        &mut [
            &mut || {
                each(count, || {
                    black_box(kit.issuer.issue(black_box(&id), &["audience"], DAY, SystemTime::now())?);
                    Ok(())
                })
            },
            &mut || {
                each(count, || {
                    black_box(jsonwebtoken::encode(&Kit::header(), &Kit::claims()?, &kit.encoding)?);
                    Ok(())
                })
            },
        ],
    )?;
    Ok(finish(case))
}

pub(super) fn validate(options: &Options) -> Result<Case> {
    let kit = Kit::new()?;
    let token = kit.issuer.issue(&id("web")?, &["audience"], DAY, SystemTime::now())?.token().to_owned();
    let validator = JwtSvidValidator::new("audience");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["audience"]);
    // As a validator of many issuers does it: the key is looked up by its id.
    let keys = BTreeMap::from([("key", &kit.decoding)]);
    let count = options.count(5_000);
    let mut case = case("validate a JWT-SVID", count);
    in_turns(
        &mut case,
        TIME,
        options.turns,
        &mut [
            &mut || {
                each(count, || {
                    black_box(validator.validate(black_box(&token), &kit.bundles, SystemTime::now())?);
                    Ok(())
                })
            },
            &mut || {
                each(count, || {
                    let header = jsonwebtoken::decode_header(black_box(&token))?;
                    let key = keys.get(header.kid.as_deref().unwrap_or_default()).context("no such key")?;
                    black_box(jsonwebtoken::decode::<Claims>(&token, key, &validation)?);
                    Ok(())
                })
            },
        ],
    )?;
    Ok(finish(case))
}
