//! SPIFFE bundles and bundle maps from outside: refused, or written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_identity::{BundleMap, SpiffeBundle, TrustDomain};

fuzz_target!(|data: &[u8]| {
    let domain = TrustDomain::parse("example.org").expect("a trust domain");
    if let Ok(bundle) = SpiffeBundle::from_json(domain.clone(), data) {
        let text = bundle.to_json();
        let again = SpiffeBundle::from_json(domain, text.as_bytes()).expect("a bundle that was written");
        assert_eq!(again.to_json(), text);
    }
    if let Ok(map) = BundleMap::from_json(data) {
        let text = map.to_json();
        assert_eq!(BundleMap::from_json(text.as_bytes()).expect("a map that was written").to_json(), text);
    }
});
