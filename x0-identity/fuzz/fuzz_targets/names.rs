//! Names from anywhere: what is read is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_identity::{NodeId, SpiffeId, TrustDomain};

fuzz_target!(|data: &str| {
    if let Ok(id) = SpiffeId::parse(data) {
        assert_eq!(id.to_string(), data);
    }
    if let Ok(domain) = TrustDomain::parse(data) {
        assert_eq!(domain.to_string(), data);
    }
    if let Ok(node) = data.parse::<NodeId>() {
        assert_eq!(node.to_string(), data);
    }
});
