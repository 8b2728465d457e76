//! Path validation: a table of chains that keep every rule or break one, other verifiers as oracles,
//! and budgets.
#![cfg(feature = "rustls")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]
#![allow(clippy::print_stdout, reason = "what was compared is read in the log")]

#[path = "path/budgets.rs"]
mod budgets;
#[path = "path/changes.rs"]
mod changes;
#[path = "path/forge.rs"]
mod forge;
#[path = "path/generated.rs"]
mod generated;
#[path = "path/generator.rs"]
mod generator;
#[path = "path/oracles.rs"]
mod oracles;
#[path = "path/vectors.rs"]
mod vectors;

use std::time::Duration;

use pki_types::UnixTime;
use x0_identity::{SpiffeId, TrustBundle, TrustDomain, Verifier, VerifyError};

use forge::LEAF_URI;
use vectors::{Vector, vectors};

fn unix(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.unsigned_abs()))
}

/// The result of this crate's verifier for a chain as client and as server. An authority that no bundle
/// accepts is left out.
fn ours(vector: &Vector) -> [Result<SpiffeId, VerifyError>; 2] {
    let authorities = vector
        .bundle
        .iter()
        .filter(|authority| x0_identity::spiffe_id_of_signer(authority).is_ok())
        .cloned()
        .collect();
    let bundle = TrustBundle::new(TrustDomain::parse("example.org").unwrap(), authorities).unwrap();
    let verifier = Verifier::new(bundle);
    let (leaf, signers) = vector.chain.split_first().unwrap();
    [
        verifier.verify_client(leaf, signers, unix(vector.now)),
        verifier.verify_server(leaf, signers, unix(vector.now)),
    ]
}

/// Accepted in both roles. A chain that breaks a rule for one of the roles is refused by it.
fn accepts(vector: &Vector) -> bool {
    ours(vector).iter().all(Result::is_ok)
}

#[test]
fn every_vector_is_judged_as_its_section_demands() {
    let vectors = vectors();
    let mut wrong = Vec::new();
    for vector in &vectors {
        if accepts(vector) != vector.accept {
            wrong.push(format!("{} ({}): {:?}", vector.name, vector.section, ours(vector)));
        }
    }
    let accepted = vectors.iter().filter(|vector| vector.accept).count();
    println!("{} vectors, {accepted} of them accepted", vectors.len());
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
    assert!(vectors.len() >= 300);
}

/// Gap 5: an operator reads no `Debug` form of a foreign type.
#[test]
fn every_error_is_a_sentence_of_ours() {
    for vector in vectors() {
        for result in ours(&vector) {
            let Err(error) = result else { continue };
            let shown = format!("{error:?}");
            let foreign = ["Other(", "OtherError", "Error {", "webpki", "::", "BadDer"];
            assert!(foreign.iter().all(|word| !shown.contains(word)), "{}: {shown}", vector.name);
            assert!(shown.contains(": "), "{}: no remedy: {shown}", vector.name);
        }
    }
}

#[test]
fn names_of_vectors_are_unique() {
    let mut names: Vec<String> = vectors().into_iter().map(|vector| vector.name).collect();
    names.sort();
    let repeated: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    assert!(SpiffeId::parse(LEAF_URI).is_ok());
}

/// A refusal counts under the name of its rule.
#[cfg(feature = "metrics")]
#[test]
fn every_refusal_is_counted_by_its_rule() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let refused = |vectors: &[Vector]| {
        let recorder = DebuggingRecorder::new();
        let refused = metrics::with_local_recorder(&recorder, || {
            vectors.iter().flat_map(ours).filter(Result::is_err).count() as u64
        });
        let all = recorder.snapshotter().snapshot().into_vec().into_iter();
        let counted = all.filter_map(|(key, _, _, value)| {
            let reason = key.key().labels().next()?.value().to_owned();
            if let DebugValue::Counter(count @ 1..) = value { Some((reason, count)) } else { None }
        });
        (refused, counted.collect::<std::collections::BTreeMap<String, u64>>())
    };
    let vectors = vectors();
    let (refusals, reasons) = refused(&vectors);
    assert_eq!(reasons.values().sum::<u64>(), refusals);
    assert!(reasons.len() >= 38, "{} reasons: {reasons:?}", reasons.len());
    for (name, reason) in [
        ("cA is TRUE", "leaf_authority"),
        ("no key usage", "leaf_key_usage_missing"),
        ("another authority", "unknown_issuer"),
        ("a leaf valid from the next second", "not_yet_valid"),
        ("an authority valid to the last second", "expired"),
        ("a signer without key usage", "signer_key_usage_missing"),
        ("a leaf without an issuer", "certificate_issuer"),
        ("another key signed", "signature"),
    ] {
        let vector = vectors.iter().position(|vector| vector.name == name);
        let (_, reasons) = refused(&vectors[vector.unwrap()..][..1]);
        assert_eq!(reasons, [(reason.to_owned(), 2)].into(), "{name}");
    }
}
