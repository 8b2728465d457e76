//! Chains that would take long: each ends within 10 ms, and says why.

use std::time::{Duration, Instant};

use pki_types::CertificateDer;
use x0_identity::{EncodingError, LeafError, PathError, TrustBundle, TrustDomain, Verifier, VerifyError};

use super::forge::{Forge, LEAF_URI, NOW, sequence, tlv, uri};
use super::{unix, vectors::vectors};

const TIME_MAX: Duration = Duration::from_millis(10);

fn verifier(authorities: &[&Forge]) -> Verifier {
    let authorities = authorities.iter().map(|forge| forge.build()).collect();
    Verifier::new(TrustBundle::new(TrustDomain::parse("example.org").unwrap(), authorities).unwrap())
}

/// The shortest of up to fifty: on a busy machine a single call may wait for the processor.
fn timed(verifier: &Verifier, chain: &[CertificateDer<'static>]) -> (Duration, Result<(), VerifyError>) {
    let mut shortest = Duration::MAX;
    let mut verified = Ok(());
    for _ in 0..50 {
        let begin = Instant::now();
        verified = verifier.verify_client(&chain[0], &chain[1..], unix(NOW)).map(drop);
        shortest = shortest.min(begin.elapsed());
        if shortest < TIME_MAX {
            break;
        }
    }
    (shortest, verified)
}

fn check(verifier: &Verifier, chain: &[CertificateDer<'static>], expect: impl Fn(&VerifyError) -> bool) {
    let (time, verified) = timed(verifier, chain);
    let error = verified.unwrap_err();
    assert!(expect(&error), "{error:?}");
    assert!(time < TIME_MAX, "{time:?}: {error:?}");
}

#[test]
fn a_chain_of_a_thousand_certificates() {
    let root = Forge::root("root", 1);
    let mut chain = vec![Forge::leaf(&root).build()];
    chain.extend(vec![Forge::signer("signer", 2, &root).build(); 999]);
    check(&verifier(&[&root]), &chain, |error| matches!(error, VerifyError::ChainLength { len: 1000 }));
}

#[test]
fn a_certificate_of_sixteen_megabytes() {
    let root = Forge::root("root", 1);
    let large = Forge::leaf(&root).set(99, false, &vec![0; 16 << 20]).build();
    check(&verifier(&[&root]), &[large], |error| {
        matches!(error, VerifyError::Leaf(LeafError::Encoding(EncodingError::Length { .. })))
    });
}

#[test]
fn seven_hundred_constraints_by_seven_hundred_names() {
    let root = Forge::root("root", 1);
    let bases: Vec<u8> =
        (0..700).flat_map(|n| tlv(0x30, &tlv(0x82, format!("{n}.net").as_bytes()))).collect();
    let signer = Forge::signer("signer", 2, &root).set(30, true, &sequence(&[&tlv(0xa1, &bases)]));
    let names: Vec<u8> = (0..700).flat_map(|n| tlv(0x82, format!("{n}.org").as_bytes())).collect();
    let leaf = Forge::leaf(&signer).names(&[&uri(LEAF_URI), &names]);
    check(&verifier(&[&root]), &[leaf.build(), signer.build()], |error| {
        *error == VerifyError::Path(PathError::Comparisons)
    });
    // A domain with 100 constraints and 100 names stays far below the budget.
    let bases: Vec<u8> =
        (0..100).flat_map(|n| tlv(0x30, &tlv(0x82, format!("{n}.net").as_bytes()))).collect();
    let signer = Forge::signer("signer", 2, &root).set(30, true, &sequence(&[&tlv(0xa1, &bases)]));
    let names: Vec<u8> = (0..100).flat_map(|n| tlv(0x82, format!("{n}.org").as_bytes())).collect();
    let leaf = Forge::leaf(&signer).names(&[&uri(LEAF_URI), &names]);
    let (time, verified) = timed(&verifier(&[&root]), &[leaf.build(), signer.build()]);
    assert_eq!(verified, Ok(()));
    assert!(time < TIME_MAX, "{time:?}");
}

/// Constraints on DNS names and a certificate with names of other forms: nothing is compared, and each
/// subtree is read once for each certificate below.
#[test]
fn constraints_on_names_of_another_form() {
    let root = Forge::root("root", 1);
    let chain = |signers: u8| {
        let bases: Vec<u8> =
            (0..1200).flat_map(|n| tlv(0x30, &tlv(0x82, format!("n{n}").as_bytes()))).collect();
        let constraints = sequence(&[&tlv(0xa1, &bases)]);
        let names = tlv(0x81, b"").repeat(1500);
        let mut forges: Vec<Forge> = Vec::new();
        for index in 0..signers {
            let issuer = forges.last().unwrap_or(&root).clone();
            let signer = Forge::signer(&format!("signer {index}"), 2 + usize::from(index), &issuer);
            forges.push(signer.set(30, true, &constraints).names(&[&uri("spiffe://example.org"), &names]));
        }
        let leaf = Forge::leaf(forges.last().unwrap_or(&root)).names(&[&uri(LEAF_URI), &names]);
        [&leaf].into_iter().chain(forges.iter().rev()).map(Forge::build).collect::<Vec<_>>()
    };
    let (time, verified) = timed(&verifier(&[&root]), &chain(5));
    assert_eq!(verified, Ok(()));
    assert!(time < TIME_MAX, "{time:?}");
    check(&verifier(&[&root]), &chain(7), |error| *error == VerifyError::Path(PathError::Comparisons));
}

/// All signers have one name and different keys: any could have signed any.
#[test]
fn signers_of_one_name() {
    let root = Forge::root("same", 1);
    let signers: Vec<Forge> = (2..9).map(|key| Forge::signer("same", key, &root)).collect();
    let stranger = Forge::root("same", 11);
    let chain: Vec<_> = [Forge::leaf(&stranger)].iter().chain(&signers).map(Forge::build).collect();
    check(&verifier(&[&root]), &chain, |error| {
        matches!(
            error,
            VerifyError::Path(PathError::Signatures | PathError::Steps | PathError::Signature { .. })
        )
    });
    let roots: Vec<Forge> =
        (0..64).map(|n| Forge::root("same", 1).with(|root| root.serial = tlv(2, &[n]))).collect();
    let roots: Vec<&Forge> = roots.iter().collect();
    check(&verifier(&roots), &chain, |error| matches!(error, VerifyError::Path(_)));
}

#[test]
fn no_vector_takes_longer() {
    let mut slowest = (Duration::ZERO, String::new());
    for vector in vectors() {
        let authorities = vector.bundle.iter().filter(|der| x0_identity::spiffe_id_of_signer(der).is_ok());
        let bundle =
            TrustBundle::new(TrustDomain::parse("example.org").unwrap(), authorities.cloned().collect());
        let (time, _) = timed(&Verifier::new(bundle.unwrap()), &vector.chain);
        if time > slowest.0 {
            slowest = (time, vector.name);
        }
    }
    println!("slowest: {slowest:?}");
    assert!(slowest.0 < TIME_MAX, "{slowest:?}");
}
