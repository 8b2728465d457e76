//! Tokens from outside: none but the one that the issuer has issued is valid.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use x0_identity::{
    BundleMap, JwtIssuer, JwtSvid, JwtSvidValidator, SpiffeBundle, SpiffeId, TrustBundle, TrustDomain,
};

static KNOWN: LazyLock<Option<(BundleMap, JwtSvid)>> = LazyLock::new(|| {
    let domain = TrustDomain::parse("example.org").ok()?;
    let issuer = JwtIssuer::generate(domain.clone(), "key").ok()?;
    let id = SpiffeId::parse("spiffe://example.org/workload").ok()?;
    let svid = issuer.issue(&id, &["audience"], Duration::from_secs(365 * 24 * 3600), SystemTime::now()).ok()?;
    let bundle = SpiffeBundle::new(TrustBundle::empty(domain));
    let mut bundles = BundleMap::new();
    bundles.insert(bundle.with_jwt_authorities(vec![issuer.authority().clone()]).ok()?);
    Some((bundles, svid))
});

// The first byte says what is done to the valid token: nothing of it stays, or position and byte in turn.
fuzz_target!(|data: &[u8]| {
    let (bundles, svid) = KNOWN.as_ref().expect("an issuer");
    let Some((how, data)) = data.split_first() else { return };
    let token = if how % 2 == 0 {
        String::from_utf8_lossy(data).into_owned()
    } else {
        let mut token = svid.token().as_bytes().to_vec();
        for damage in data.chunks_exact(3) {
            let position = usize::from(u16::from_le_bytes([damage[0], damage[1]])) % token.len();
            token[position] = damage[2];
        }
        String::from_utf8_lossy(&token).into_owned()
    };
    match JwtSvidValidator::new("audience").validate(&token, bundles, SystemTime::now()) {
        Ok(valid) => assert_eq!(valid.token(), svid.token()),
        Err(error) => drop(error.to_string()),
    }
});
