//! The memory of path validation: no vector takes more than 1 MiB. A program of its own, because its
//! allocator counts what every thread allocates.
#![cfg(feature = "rustls")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]
#![allow(clippy::print_stdout, reason = "the largest is read in the log")]

#[allow(dead_code, reason = "of the tests of path validation")]
#[path = "path/forge.rs"]
mod forge;
#[allow(dead_code, reason = "of the tests of path validation")]
#[path = "path/vectors.rs"]
mod vectors;

use std::alloc::System;
use std::time::Duration;

use pki_types::UnixTime;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use x0_identity::{TrustBundle, TrustDomain, Verifier};

use vectors::vectors;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BYTES_MAX: usize = 1 << 20;

#[test]
fn no_vector_takes_more_than_a_mebibyte() {
    let mut largest = (0, String::new());
    for vector in vectors() {
        let authorities = vector.bundle.iter().filter(|der| x0_identity::spiffe_id_of_signer(der).is_ok());
        let authorities = authorities.cloned().collect();
        let bundle = TrustBundle::new(TrustDomain::parse("example.org").unwrap(), authorities).unwrap();
        let verifier = Verifier::new(bundle);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(vector.now.unsigned_abs()));
        let (leaf, signers) = vector.chain.split_first().unwrap();
        let region = Region::new(ALLOCATOR);
        let verified = verifier.verify_client(leaf, signers, now);
        // All that was allocated, which is at least what was held at once.
        let bytes = region.change().bytes_allocated;
        drop(verified);
        if bytes > largest.0 {
            largest = (bytes, vector.name);
        }
    }
    println!("the largest: {largest:?}");
    assert!(largest.0 > 0 && largest.0 <= BYTES_MAX, "{largest:?}");
}
