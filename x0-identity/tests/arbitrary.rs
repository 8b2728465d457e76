//! Whatever comes from outside: no panic, and what is accepted means one thing. The targets in `fuzz/` go on
//! from here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

use proptest::prelude::*;
use x0_identity::{NodeId, SpiffeId, TrustDomain};

proptest! {
    #[test]
    fn an_id_is_written_as_it_was_read(text in "spiffe://[a-z0-9._-]{1,20}(/[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,8}){0,5}") {
        let id = SpiffeId::parse(&text).unwrap();
        prop_assert_eq!(&id.to_string(), &text);
        prop_assert_eq!(&SpiffeId::parse(&id.to_string()).unwrap(), &id);
        prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
        let segments: Vec<&str> = id.path().split('/').skip(1).collect();
        prop_assert_eq!(SpiffeId::from_segments(id.trust_domain(), &segments).unwrap(), id);
    }

    #[test]
    fn any_text_is_refused_or_read_as_it_is(text in any::<String>()) {
        for text in [text.clone(), format!("spiffe://{text}"), format!("spiffe://a/{text}")] {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
        if let Ok(domain) = TrustDomain::parse(&text) {
            prop_assert_eq!(domain.to_string(), text.clone());
        }
        if let Ok(node) = text.parse::<NodeId>() {
            prop_assert_eq!(node.to_string(), text);
        }
    }

    /// From the characters that matter, where accidents are likelier.
    #[test]
    fn near_misses_are_refused_or_read_as_they_are(text in "(spiffe:/?/?)?[aA./:@%?#_\\[\\]-]{0,12}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.to_string(), text);
            prop_assert!(!id.path().ends_with('/') && !id.path().contains("//") && !id.path().contains(['%', '?', '#']));
        }
    }

    #[test]
    fn a_node_is_written_as_it_was_read(number in 1..=u64::MAX) {
        let node = NodeId::new(number).unwrap();
        prop_assert_eq!(node.to_string().parse::<NodeId>().unwrap(), node);
        let id = SpiffeId::for_node(&TrustDomain::parse("example.org").unwrap(), node);
        prop_assert_eq!(id.node_id(), Some(node));
    }
}

#[cfg(all(feature = "authority", feature = "rustls"))]
mod certificates {
    use std::sync::LazyLock;
    use std::time::Duration;

    use pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
    use proptest::prelude::*;
    use proptest::sample::Index;
    use proptest::test_runner::RngSeed;
    use x0_identity::{
        Authority, AuthorityOptions, SpiffeId, TrustBundle, TrustDomain, Verifier, X509Svid, spiffe_id_of,
        spiffe_id_of_signer,
    };

    static AUTHORITY: LazyLock<Authority> =
        LazyLock::new(|| Authority::new(domain(), &AuthorityOptions::default()).unwrap());
    static SVID: LazyLock<X509Svid> = LazyLock::new(|| {
        let id = SpiffeId::parse("spiffe://example.org/workload").unwrap();
        AUTHORITY.issue(&id, Duration::from_secs(3600)).unwrap()
    });

    fn domain() -> TrustDomain {
        TrustDomain::parse("example.org").unwrap()
    }

    /// Everything that takes a certificate.
    fn read(der: &[u8]) {
        let certificate = CertificateDer::from(der.to_vec());
        let leaf = spiffe_id_of(&certificate);
        let signer = spiffe_id_of_signer(&certificate);
        assert!(leaf.is_err() || signer.is_err(), "both a leaf and a signer");
        let key = PrivateKeyDer::Pkcs8(der.to_vec().into());
        assert_eq!(X509Svid::from_der(vec![certificate.clone()], key).is_ok(), leaf.is_ok());
        assert_eq!(TrustBundle::new(domain(), vec![certificate.clone()]).is_ok(), signer.is_ok());
        let verifier = Verifier::new(AUTHORITY.bundle());
        let verified =
            verifier.verify_client(&certificate, std::slice::from_ref(&certificate), UnixTime::now());
        // ECDSA signatures can be altered and stay valid, so ask about the signed part, by its meaning.
        if let Ok(spiffe_id) = verified {
            assert_eq!(&spiffe_id, SVID.spiffe_id());
        }
    }

    fn read_pem(pem: &[u8]) {
        let _ = X509Svid::from_pem(pem);
        let _ = TrustBundle::from_pem(domain(), pem);
        let _ = Authority::from_pem(pem);
    }

    proptest! {
        // The same damage each time, though to fresh keys; `fuzz/` looks for other damage.
        #![proptest_config(ProptestConfig { cases: 1000, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            read(&bytes);
            read_pem(&bytes);
        }

        #[test]
        fn a_damaged_certificate_is_read_without_a_panic(
            signer: bool,
            damages in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
            cut in proptest::option::weighted(0.2, any::<Index>()),
        ) {
            let bundle = AUTHORITY.bundle();
            let whole = if signer { &bundle.authorities()[0] } else { &SVID.chain()[0] };
            let mut der = whole.to_vec();
            for (position, byte) in damages {
                let position = position.index(der.len());
                der[position] = byte;
            }
            if let Some(cut) = cut {
                der.truncate(cut.index(der.len()));
            }
            read(&der);
        }

        #[test]
        fn a_damaged_pem_is_read_without_a_panic(damages in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4)) {
            for pem in [SVID.to_pem(), AUTHORITY.to_pem(), AUTHORITY.bundle().to_pem()] {
                let mut pem = pem.into_bytes();
                for (position, byte) in &damages {
                    let position = position.index(pem.len());
                    pem[position] = *byte;
                }
                read_pem(&pem);
            }
        }
    }
}
