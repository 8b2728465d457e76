//! Identities with another provider of cryptography.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Recipe, connect, root};
use pki_types::UnixTime;
use rustls::NamedGroup;
use x0_identity::{
    Authority, AuthorityOptions, Identity, SpiffeId, TrustBundleSet, TrustDomain, Verifier, graviola_provider,
};

const HOUR: Duration = Duration::from_secs(3600);

fn authority() -> Authority {
    Authority::new(TrustDomain::parse("example.org").unwrap(), &AuthorityOptions::default()).unwrap()
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/web").unwrap()
}

fn group(client: &Identity, server: &Identity) -> NamedGroup {
    let (client, server) = connect(&client.client_config(), &server.server_config()).unwrap();
    assert_eq!(
        client.negotiated_key_exchange_group().unwrap().name(),
        server.negotiated_key_exchange_group().unwrap().name()
    );
    client.negotiated_key_exchange_group().unwrap().name()
}

#[test]
fn graviola_exchanges_keys_after_the_quantum_computer_and_with_ring() {
    let authority = authority();
    let issue = || authority.issue(&id(), HOUR).unwrap();
    let graviola = Identity::new_with_provider(issue(), authority.bundle(), graviola_provider()).unwrap();
    let ring = Identity::new(issue(), authority.bundle()).unwrap();
    assert_eq!(group(&graviola, &graviola), NamedGroup::X25519MLKEM768);
    assert_eq!(group(&graviola, &ring), NamedGroup::X25519);
    assert_eq!(group(&ring, &graviola), NamedGroup::X25519);
    // A rotation keeps the provider.
    graviola.rotate(issue()).unwrap();
    assert_eq!(group(&graviola, &graviola), NamedGroup::X25519MLKEM768);
    let bundles = Arc::new(TrustBundleSet::from(authority.bundle()));
    let sourced = Identity::with_source_and_provider(issue(), bundles, graviola_provider()).unwrap();
    assert_eq!(group(&sourced, &graviola), NamedGroup::X25519MLKEM768);
}

#[test]
fn both_providers_give_the_same_verdicts() {
    let (trusted, other) = (root(), root());
    let leaf = Recipe::leaf("spiffe://example.org/web");
    let signer = Recipe::signer("spiffe://example.org", "signer").signed_by(&trusted);
    let bundles = || Arc::new(TrustBundleSet::from(trusted.bundle()));
    let verifiers =
        [Verifier::with_source(bundles()), Verifier::with_provider(bundles(), graviola_provider())];
    let chains = [
        (leaf.signed_by(&trusted).chain(&[]), true),
        (leaf.signed_by(&signer).chain(&[&signer]), true),
        (leaf.signed_by(&other).chain(&[]), false),
        (leaf.with(|leaf| leaf.valid = (-7200, -3600)).signed_by(&trusted).chain(&[]), false),
    ];
    for (chain, expected) in &chains {
        let (leaf, signers) = chain.split_first().unwrap();
        let verdicts =
            verifiers.each_ref().map(|verifier| verifier.verify_client(leaf, signers, UnixTime::now()));
        assert_eq!(verdicts[0].is_ok(), *expected);
        assert_eq!(format!("{:?}", verdicts[0]), format!("{:?}", verdicts[1]));
    }
}
