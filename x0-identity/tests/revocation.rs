//! Revocations: views as a CRDT, what a handshake refuses, and admissions of established connections.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use common::{MINUTE, Recipe, connect, domain, root};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use x0_identity::{
    Admission, Authority, AuthorityOptions, CertificateAt, Identity, PathError, PeerRole,
    ReadRevocationsError, RevocationError, RevocationView, Revoked, SpiffeId, TrustBundle, VerifyError,
};

const END: SystemTime = SystemTime::UNIX_EPOCH;

fn authority() -> Authority {
    Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap()
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap()
}

fn identity(authority: &Authority, name: &str) -> Identity {
    Identity::new(authority.issue(&id(name), MINUTE).unwrap(), authority.bundle()).unwrap()
}

fn view(revoked: &[Revoked]) -> RevocationView {
    let mut view = RevocationView::new();
    for revoked in revoked {
        view.insert(revoked.clone(), END + MINUTE).unwrap();
    }
    view
}

struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(admission: &mut Admission, counter: &Arc<Counter>) -> Poll<VerifyError> {
    Pin::new(admission).poll(&mut Context::from_waker(&Waker::from(Arc::clone(counter))))
}

use std::future::Future;

#[test]
fn a_revoked_svid_is_refused_and_its_connection_ends() {
    let authority = authority();
    let (one, two) = (identity(&authority, "one"), identity(&authority, "two"));
    let (_, server) = connect(&one.client_config(), &two.server_config()).unwrap();
    let chain = server.peer_certificates().unwrap();
    let revocations = [
        Revoked::certificate(&chain[0]).unwrap(),
        Revoked::SpiffeId(id("one")),
        Revoked::authority(&authority.bundle().authorities()[0]).unwrap(),
    ];
    for revoked in revocations {
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let mut admission = two.admit(chain, PeerRole::Client, SystemTime::now()).unwrap();
        assert_eq!(admission.spiffe_id(), &id("one"));
        assert_eq!(admission.expires(), one.svid_expires());
        assert_eq!(poll(&mut admission, &counter), Poll::Pending);

        // Another's revocation wakes it, and it goes on.
        two.set_revocations(view(&[Revoked::SpiffeId(id("other"))]));
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&mut admission, &counter), Poll::Pending);

        two.set_revocations(view(&[Revoked::SpiffeId(id("other")), revoked.clone()]));
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
        let Poll::Ready(error) = poll(&mut admission, &counter) else {
            panic!("{revoked:?}: still admitted")
        };
        assert!(
            matches!(&error, VerifyError::Revoked { revoked: found, .. } if *found == revoked)
                || error == VerifyError::Path(PathError::Revoked { at: CertificateAt::Bundle(0) }),
            "{error:?}"
        );
        let refused = connect(&one.client_config(), &two.server_config()).unwrap_err();
        assert_eq!(refused, rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked));
        assert!(two.admit(chain, PeerRole::Client, SystemTime::now()).is_err());
        two.set_revocations(RevocationView::new());
        connect(&one.client_config(), &two.server_config()).unwrap();
    }
    // A renewed SVID is another certificate.
    two.set_revocations(view(&[Revoked::certificate(&chain[0]).unwrap()]));
    one.rotate(authority.issue(&id("one"), MINUTE).unwrap()).unwrap();
    connect(&one.client_config(), &two.server_config()).unwrap();
    assert_eq!(two.revocations().len(), 1);
}

#[test]
fn a_revoked_intermediate_is_refused() {
    let root = root();
    let signer = Recipe::signer("spiffe://example.org", "signer").signed_by(&root);
    let leaf = Recipe::leaf("spiffe://example.org/a").signed_by(&signer);
    let identity = Identity::new(leaf.svid(&[&signer]), root.bundle()).unwrap();
    let chain = leaf.chain(&[&signer]);
    for revoked in
        [Revoked::certificate(&signer.certificate).unwrap(), Revoked::authority(&signer.certificate).unwrap()]
    {
        identity.set_revocations(view(&[revoked]));
        assert_eq!(
            identity.admit(&chain, PeerRole::Server, SystemTime::now()).unwrap_err(),
            VerifyError::Path(PathError::Revoked { at: CertificateAt::Chain(1) })
        );
    }
}

#[test]
fn an_admission_ends_with_the_bundle_and_with_time() {
    let authority = authority();
    let (one, two) = (identity(&authority, "one"), identity(&authority, "two"));
    let (client, _) = connect(&one.client_config(), &two.server_config()).unwrap();
    let chain = client.peer_certificates().unwrap();
    let counter = Arc::new(Counter(AtomicUsize::new(0)));
    let mut admission = one.admit(chain, PeerRole::Server, SystemTime::now()).unwrap();
    assert_eq!(poll(&mut admission, &counter), Poll::Pending);
    one.set_bundle(TrustBundle::empty(domain("example.org"))).unwrap();
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    assert!(matches!(
        poll(&mut admission, &counter),
        Poll::Ready(VerifyError::Path(PathError::UnknownIssuer { .. }))
    ));
    one.set_bundle(authority.bundle()).unwrap();
    let admission = one.admit(chain, PeerRole::Server, SystemTime::now()).unwrap();
    assert_eq!(admission.check(admission.expires()), Ok(()));
    let after = admission.expires() + Duration::from_secs(1);
    assert!(matches!(admission.check(after), Err(VerifyError::Path(PathError::Expired { .. }))));
    assert!(matches!(one.admit(&[], PeerRole::Client, END), Err(VerifyError::ChainLength { len: 0 })));
    // One that is dropped is not woken.
    let mut dropped = one.admit(chain, PeerRole::Server, SystemTime::now()).unwrap();
    assert_eq!(poll(&mut dropped, &counter), Poll::Pending);
    drop(dropped);
    one.set_revocations(RevocationView::new());
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
}

/// A connection ends with the first certificate of its path, not with the leaf alone.
#[test]
fn an_admission_expires_with_its_path() {
    let now = SystemTime::now();
    let short = |seconds: i64| move |recipe: &mut Recipe| recipe.valid = (-60, seconds);
    // The ends of authority, intermediate and leaf.
    for ends in [[300, 600, 900], [600, 300, 900], [900, 600, 300]] {
        let root = Recipe::signer("spiffe://example.org", "root").with(short(ends[0])).self_signed();
        let signer = Recipe::signer("spiffe://example.org", "signer").with(short(ends[1])).signed_by(&root);
        let leaf = Recipe::leaf("spiffe://example.org/a").with(short(ends[2])).signed_by(&signer);
        let identity = Identity::new(leaf.svid(&[&signer]), root.bundle()).unwrap();
        for role in [PeerRole::Client, PeerRole::Server] {
            let admission = identity.admit(&leaf.chain(&[&signer]), role, now).unwrap();
            let left = admission.expires().duration_since(now).unwrap().as_secs();
            assert!((295..=301).contains(&left), "{ends:?}: {left}");
            assert_eq!(admission.check(admission.expires()), Ok(()));
            let after = admission.expires() + Duration::from_secs(1);
            assert!(matches!(admission.check(after), Err(VerifyError::Path(PathError::Expired { .. }))));
        }
    }
}

#[test]
fn a_view_is_bounded_and_expires() {
    let mut view = RevocationView::new();
    for number in 0..RevocationView::ENTRIES_MAX {
        assert_eq!(view.insert(Revoked::SpiffeId(id(&number.to_string())), END + MINUTE), Ok(true));
    }
    let one_more = Revoked::SpiffeId(id("more"));
    assert_eq!(view.insert(one_more.clone(), END), Err(RevocationError::Entries));
    assert_eq!(view.merge(&self::view(std::slice::from_ref(&one_more))), Err(RevocationError::Entries));
    assert!(!view.contains(&one_more));
    assert_eq!(RevocationView::from_bytes(&view.to_bytes()), Ok(view.clone()));
    assert_eq!(view.insert(Revoked::SpiffeId(id("0")), END + 2 * MINUTE), Ok(true));
    assert_eq!(view.insert(Revoked::SpiffeId(id("0")), END + MINUTE), Ok(false));
    assert_eq!(view.next_expiry(END), Some(MINUTE));
    view.remove_expired(END + MINUTE);
    assert_eq!(view.iter().collect::<Vec<_>>(), [(&Revoked::SpiffeId(id("0")), END + 2 * MINUTE)]);
    let long = Revoked::Authority { public_key_info: vec![0; 16_385] };
    assert_eq!(view.insert(long, END), Err(RevocationError::Length { len: 16_385 }));
    assert_eq!(RevocationView::new().next_expiry(END), None);
}

#[test]
fn damaged_views_are_refused() {
    let bytes =
        view(&[Revoked::SpiffeId(id("a")), Revoked::Authority { public_key_info: vec![1, 2] }]).to_bytes();
    assert!(RevocationView::from_bytes(&bytes).is_ok());
    for len in 0..bytes.len() {
        let cut = RevocationView::from_bytes(&bytes[..len]);
        // The first entry alone is a view as well.
        assert!(cut.as_ref().is_err() || cut.unwrap().len() < 2, "{len}");
    }
    assert_eq!(RevocationView::from_bytes(&[2]), Err(ReadRevocationsError::Version { version: 2 }));
    assert_eq!(RevocationView::from_bytes(&[]), Err(ReadRevocationsError::Malformed { position: 0 }));
    let mut twice = bytes.clone();
    twice.extend(&bytes[1..]);
    assert!(matches!(RevocationView::from_bytes(&twice), Err(ReadRevocationsError::Malformed { .. })));
    // A recorded view of version 1.
    let recorded = [1, 3, 0, 0, 0, 0, 0, 0, 0, 60, 0, 2, 1, 2];
    assert_eq!(
        RevocationView::from_bytes(&recorded),
        Ok(view(&[Revoked::Authority { public_key_info: vec![1, 2] }]))
    );
}

fn views() -> impl Strategy<Value = RevocationView> {
    let revoked = prop_oneof![
        "[a-c]".prop_map(|name| Revoked::SpiffeId(id(&name))),
        any::<[u8; 1]>().prop_map(|key| Revoked::Authority { public_key_info: key.to_vec() }),
        (any::<[u8; 1]>(), any::<[u8; 1]>()).prop_map(|(issuer, serial)| Revoked::Certificate {
            issuer: issuer.to_vec(),
            serial_number: serial.to_vec()
        }),
    ];
    proptest::collection::vec((revoked, 0..100_u64), 0..8).prop_map(|entries| {
        let mut view = RevocationView::new();
        for (revoked, seconds) in entries {
            view.insert(revoked, END + Duration::from_secs(seconds)).unwrap();
        }
        view
    })
}

fn merged(one: &RevocationView, other: &RevocationView) -> RevocationView {
    let mut merged = one.clone();
    let changed = merged.merge(other).unwrap();
    assert_eq!(changed, merged != *one);
    merged
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

    #[test]
    fn views_are_a_crdt(a in views(), b in views(), c in views()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(&merged(&a, &a), &a);
        prop_assert_eq!(RevocationView::from_bytes(&a.to_bytes()).unwrap(), a);
    }

    #[test]
    fn any_bytes_are_read_as_they_are(mut bytes in proptest::collection::vec(0..4_u8, 0..64)) {
        bytes.insert(0, 1);
        if let Ok(view) = RevocationView::from_bytes(&bytes) {
            prop_assert_eq!(view.to_bytes(), bytes);
        }
    }
}

/// What an authority signs is taken by everyone who trusts it, and nothing else is.
#[test]
#[cfg(feature = "issuer")]
fn signed_revocations_are_those_of_a_trusted_authority() {
    use x0_identity::{SignedRevocations, SignedRevocationsError};

    let (authority, other) = (authority(), authority());
    let revoked = view(&[Revoked::SpiffeId(id("stolen"))]);
    let domain = domain("example.org");
    let sign = |by: &Authority, view: &RevocationView| {
        let signature = by.sign(&SignedRevocations::to_be_signed(&domain, view)).unwrap();
        SignedRevocations::new(view.clone(), signature)
    };
    let signed = sign(&authority, &revoked);
    let bytes = signed.to_bytes();
    let read = SignedRevocations::from_bytes(&bytes).unwrap();
    assert_eq!((&read, read.to_bytes()), (&signed, bytes.clone()));
    let none = RevocationView::new();
    assert_eq!(read.verify(&authority.bundle(), &none), Ok(&revoked));
    assert_eq!(read.verify(&other.bundle(), &none), Err(SignedRevocationsError::Signature));
    // Another view, another trust domain.
    let more = view(&[Revoked::SpiffeId(id("stolen")), Revoked::SpiffeId(id("web"))]);
    let swapped = sign(&authority, &more).to_bytes();
    let head = bytes.len() - revoked.to_bytes().len();
    let forged = [&bytes[..head], &more.to_bytes()].concat();
    assert_ne!(forged, swapped);
    let forged = SignedRevocations::from_bytes(&forged).unwrap();
    assert_eq!(forged.verify(&authority.bundle(), &none), Err(SignedRevocationsError::Signature));
    let foreign = TrustBundle::new(common::domain("example.com"), authority.bundle().authorities().to_vec());
    assert_eq!(read.verify(&foreign.unwrap(), &none), Err(SignedRevocationsError::Signature));
    // A revoked authority does not revoke.
    let own = view(&[Revoked::authority(authority.certificate()).unwrap()]);
    assert_eq!(read.verify(&authority.bundle(), &own), Err(SignedRevocationsError::Signature));
    for end in 0..bytes.len() {
        let read = SignedRevocations::from_bytes(&bytes[..end]);
        assert!(read.is_err() || read.unwrap().view().is_empty(), "{end}");
    }
    assert_eq!(SignedRevocations::from_bytes(&[0xff; 70]), Err(SignedRevocationsError::Malformed));
    assert_eq!((revoked.last_expiry(), none.last_expiry()), (Some(END + MINUTE), None));
}

/// The next bundle is that of a trusted authority, and nothing else is.
#[test]
#[cfg(feature = "issuer")]
fn signed_bundles_are_those_of_a_trusted_authority() {
    use x0_identity::{SignedBundle, SignedBundleError};

    let (old, new) = (authority(), authority());
    let mut both = old.bundle();
    both.extend(&new.bundle()).unwrap();
    let sign = |by: &Authority, sequence: u64, bundle: &TrustBundle| {
        let signature = by.sign(&SignedBundle::to_be_signed(sequence, bundle)).unwrap();
        SignedBundle::new(sequence, bundle.clone(), signature)
    };
    let signed = sign(&old, 7, &both);
    let bytes = signed.to_bytes();
    let read = SignedBundle::from_bytes(domain("example.org"), &bytes).unwrap();
    assert_eq!((&read, read.to_bytes(), read.sequence()), (&signed, bytes.clone(), 7));
    let none = RevocationView::new();
    assert_eq!(read.verify(&old.bundle(), &none), Ok(&both));
    assert_eq!(read.verify(&new.bundle(), &none), Err(SignedBundleError::Signature));
    let revoked = view(&[Revoked::authority(old.certificate()).unwrap()]);
    assert_eq!(read.verify(&old.bundle(), &revoked), Err(SignedBundleError::Signature));
    // Another number, another trust domain.
    let renumbered = SignedBundle::new(8, both.clone(), bytes[2..bytes.len() - body_len(&both)].to_vec());
    assert_eq!(renumbered.verify(&old.bundle(), &none), Err(SignedBundleError::Signature));
    let foreign = TrustBundle::new(domain("example.com"), old.bundle().authorities().to_vec()).unwrap();
    assert_eq!(read.verify(&foreign, &none), Err(SignedBundleError::Signature));
    let malformed = |bytes: &[u8]| SignedBundle::from_bytes(domain("example.org"), bytes).unwrap_err();
    for end in 0..bytes.len() {
        assert_eq!(malformed(&bytes[..end]), SignedBundleError::Malformed, "{end}");
    }
    assert_eq!(malformed(&[&bytes[..], &[0]].concat()), SignedBundleError::Malformed);
    assert_eq!(malformed(&[0xff; 40]), SignedBundleError::Malformed);
    assert_eq!(malformed(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 65]), SignedBundleError::Malformed);
    let broken = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 7];
    assert!(matches!(malformed(&broken), SignedBundleError::Bundle(_)));
}

/// A statement serves its purpose, its trust domain and the workloads that trust its authority, and no other.
#[test]
#[cfg(feature = "issuer")]
fn statements_are_those_of_a_trusted_authority() {
    use x0_identity::{STATEMENT_LEN_MAX, SignedStatement, SignedStatementError};

    let (own, stranger) = (authority(), authority());
    let content = b"1: three replicas".to_vec();
    let to_be_signed = SignedStatement::to_be_signed("replicas", own.trust_domain(), &content);
    let signed = SignedStatement::new("replicas", content.clone(), own.sign(&to_be_signed).unwrap());
    let bytes = signed.to_bytes();
    let read = SignedStatement::from_bytes("replicas", &bytes).unwrap();
    assert_eq!((&read, read.to_bytes()), (&signed, bytes.clone()));
    let none = RevocationView::new();
    assert_eq!(read.verify(&own.bundle(), &none), Ok(&content[..]));
    let refused = Err(SignedStatementError::Signature);
    assert_eq!(read.verify(&stranger.bundle(), &none), refused);
    let revoked = view(&[Revoked::authority(own.certificate()).unwrap()]);
    assert_eq!(read.verify(&own.bundle(), &revoked), refused);
    let foreign = TrustBundle::new(domain("example.com"), own.bundle().authorities().to_vec()).unwrap();
    assert_eq!(read.verify(&foreign, &none), refused);
    let another = SignedStatement::from_bytes("regions", &bytes).unwrap();
    assert_eq!(another.verify(&own.bundle(), &none), refused);
    let mut changed = bytes;
    *changed.last_mut().unwrap() ^= 1;
    let changed = SignedStatement::from_bytes("replicas", &changed).unwrap();
    assert_eq!(changed.verify(&own.bundle(), &none), refused);

    // A purpose cannot run on into the trust domain.
    let to_be_signed = |purpose: &str| SignedStatement::to_be_signed(purpose, own.trust_domain(), &content);
    assert_eq!(to_be_signed("a\0b"), to_be_signed("ab"));
    let malformed = |bytes: &[u8]| SignedStatement::from_bytes("replicas", bytes).unwrap_err();
    assert_eq!(malformed(&[]), SignedStatementError::Malformed);
    assert_eq!(malformed(&[0, 2, 0]), SignedStatementError::Malformed);
    assert_eq!(malformed(&[&[4, 1][..], &[0; 2000]].concat()), SignedStatementError::Malformed);
    assert_eq!(malformed(&vec![0; STATEMENT_LEN_MAX + 3]), SignedStatementError::Malformed);
    assert!(SignedStatement::from_bytes("replicas", &vec![0; STATEMENT_LEN_MAX + 2]).is_ok());
}

/// The bytes of a signed bundle after its signature.
#[cfg(feature = "issuer")]
fn body_len(bundle: &TrustBundle) -> usize {
    9 + bundle.authorities().iter().map(|authority| 2 + authority.len()).sum::<usize>()
}
