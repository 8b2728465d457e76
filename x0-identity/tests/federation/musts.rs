//! The rules of SPIFFE_Federation.md, section by section.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion};
use x0_identity::federation::{
    ClientOptions, EndpointProfile, EndpointUrl, EndpointUrlError, FetchError, Relationship,
    RelationshipError, WebEndpointError, web_endpoint_config,
};
use x0_identity::{Identity, SpiffeBundle};

use crate::common::{Recipe, connect, root};
use crate::kit::{Consumer, Domain, Endpoint, HOUR, Report, Web, domain, id, url};

fn consumer() -> Consumer {
    Consumer::new(ClientOptions::default())
}

#[test]
fn s4_1_a_new_key_is_served_at_once() {
    let (example, next) = (Domain::new("example.org"), Domain::new("example.org"));
    let endpoint = Endpoint::of(&example);
    let consumer = consumer();
    let relationship = Relationship::new(example.name(), endpoint.url("/"), example.profile());
    endpoint.published.set("/", &example.bundle(1)).unwrap();
    consumer.establish(relationship.with_bundle(example.bundle(0)).unwrap());
    consumer.until_bundle(&example.bundle(1));

    // The next authority is published before it signs.
    let mut both = example.0.bundle().authorities().to_vec();
    both.extend(next.0.bundle().authorities().to_vec());
    let both =
        SpiffeBundle::new(x0_identity::TrustBundle::new(example.name(), both).unwrap()).with_sequence(2);
    endpoint.published.set("/", &both).unwrap();
    consumer.client.refresh(example.name()).unwrap();
    consumer.until_bundle(&both);
}

#[test]
fn s4_2_bundles_are_never_merged() {
    let (one, two) = (Domain::new("one.example"), Domain::new("two.example"));
    let consumer = consumer();
    let endpoints = [&one, &two].map(|domain| {
        let endpoint = Endpoint::of(domain);
        endpoint.published.set("/", &domain.bundle(1)).unwrap();
        let relationship = Relationship::new(domain.name(), endpoint.url("/"), domain.profile());
        consumer.establish(relationship.with_bundle(domain.bundle(0)).unwrap());
        endpoint
    });
    consumer.until_bundle(&one.bundle(1));
    consumer.until_bundle(&two.bundle(1));
    let bundles = consumer.client.bundles();
    for domain in [&one, &two] {
        assert_eq!(bundles.get(&domain.name()).unwrap().trust_bundle(), &domain.0.bundle());
    }
    drop(endpoints);
}

#[test]
fn s5_both_profiles() {
    let (example, web) = (Domain::new("example.org"), Web::new());
    let consumer = Consumer::new(ClientOptions::default().web_roots(web.roots()));
    let of_web = Endpoint::new(web.config("localhost"));
    of_web.published.set("/b", &example.bundle(7)).unwrap();
    let location = url(&format!("https://localhost:{}/b?x=y", of_web.address().port()));
    consumer.establish(Relationship::new(example.name(), location, EndpointProfile::Web));
    consumer.until_bundle(&example.bundle(7));

    let foreign = Domain::new("example.com");
    let of_spiffe = Endpoint::of(&foreign);
    of_spiffe.published.set("/", &foreign.bundle(8)).unwrap();
    let relationship = Relationship::new(foreign.name(), of_spiffe.url("/"), foreign.profile());
    consumer.establish(relationship.with_bundle(foreign.bundle(0)).unwrap());
    consumer.until_bundle(&foreign.bundle(8));
    assert_eq!(consumer.client.bundles().iter().count(), 2);
}

/// An answer to `GET /`, over one version of TLS.
fn get(
    endpoint: &Endpoint,
    web: &Web,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<(String, rustls::CipherSuite)> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(web.roots())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tls = StreamOwned::new(connection, TcpStream::connect(endpoint.address()).unwrap());
    tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer)?;
    Ok((answer, tls.conn.negotiated_cipher_suite().unwrap().suite()))
}

#[test]
fn s5_tls_of_the_intermediate_compatibility() {
    let (example, web) = (Domain::new("example.org"), Web::new());
    let endpoint = Endpoint::new(web.config("localhost"));
    endpoint.published.set("/", &example.bundle(1)).unwrap();
    for version in [&TLS12, &TLS13] {
        let (answer, suite) = get(&endpoint, &web, version).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            format!("{suite:?}").contains("GCM") || format!("{suite:?}").contains("POLY1305"),
            "{suite:?}"
        );
    }
    // Every suite that is offered is one of Mozilla's: ephemeral keys and authenticated encryption.
    let provider = web.config("localhost").crypto_provider().clone();
    let suites = provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite()));
    assert!(suites.clone().all(|suite| suite.starts_with("TLS13_") || suite.starts_with("TLS_ECDHE_")));
}

#[test]
fn s5_1_parameters_are_explicit() {
    // The types have no default: URL, profile, trust domain, and for `https_spiffe` the SPIFFE ID.
    let endpoint = id("spiffe://example.com/bundle-server");
    let profile = EndpointProfile::Spiffe { endpoint };
    let relationship =
        Relationship::new(domain("alice"), url("https://mypage.example.com/alice"), profile.clone());
    // §7.2: the trust domain is not that of the host, nor that of the endpoint.
    assert_eq!(relationship.trust_domain(), &domain("alice"));
    assert_eq!(relationship.profile(), &profile);
    assert!(!relationship.is_self_serving());
    let foreign = Domain::new("example.com");
    assert_eq!(
        relationship.with_bundle(foreign.bundle(1)).unwrap_err(),
        RelationshipError::TrustDomain { relationship: domain("alice"), bundle: domain("example.com") }
    );
}

#[test]
fn s5_1_a_bundle_is_reported_under_its_domain() {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let endpoint = Endpoint::of(&foreign);
    endpoint.published.set("/", &foreign.bundle(1)).unwrap();
    let identity = example.identity("web");
    let peer = foreign.identity("peer");
    peer.federate(example.0.bundle()).unwrap();
    assert!(connect(&peer.client_config(), &identity.server_config()).is_err());

    let client =
        x0_identity::federation::Client::start(Arc::new(identity.clone()), ClientOptions::default()).unwrap();
    let relationship = Relationship::new(foreign.name(), endpoint.url("/"), foreign.profile());
    client.establish(relationship.with_bundle(foreign.bundle(0)).unwrap()).unwrap();
    // The workload validates identities of the foreign domain, and of no third one.
    connect(&peer.client_config(), &identity.server_config()).unwrap();
    let third = Domain::new("third.example").identity("peer");
    third.federate(example.0.bundle()).unwrap();
    assert!(connect(&third.client_config(), &identity.server_config()).is_err());

    // §6.3: the end of the relationship reaches the validators.
    client.terminate(foreign.name()).unwrap();
    assert!(connect(&peer.client_config(), &identity.server_config()).is_err());
}

#[test]
fn s5_2_1_1_urls() {
    use EndpointUrlError as Error;
    let parsed = |text: &str| EndpointUrl::parse(text).map(|url| url.to_string());
    for (text, expected) in [
        ("https://host.example.com/trust_domain", "https://host.example.com/trust_domain"),
        ("HTTPS://host.example.com", "https://host.example.com/"),
        ("https://host.example.com?a=b", "https://host.example.com/?a=b"),
        ("https://host.example.com:8443/a/b?c#d", "https://host.example.com:8443/a/b?c"),
        ("https://host.example.com:/a", "https://host.example.com:/a"),
        ("https://192.0.2.1/a", "https://192.0.2.1/a"),
        ("https://[2001:db8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
        ("https://[2001:db8::1]/a@b", "https://[2001:db8::1]/a@b"),
        ("https://host.example.com/a%20b", "https://host.example.com/a%20b"),
    ] {
        assert_eq!(parsed(text).as_deref(), Ok(expected));
    }
    let text = String::from;
    for (given, expected) in [
        ("http://host.example.com/", Error::Scheme { text: text("http://host.example.com/") }),
        ("host.example.com/", Error::Scheme { text: text("host.example.com/") }),
        ("https:/host.example.com/", Error::Scheme { text: text("https:/host.example.com/") }),
        ("https://user@host.example.com/", Error::UserInfo { text: text("https://user@host.example.com/") }),
        ("https://u:p@host.example.com/", Error::UserInfo { text: text("https://u:p@host.example.com/") }),
        ("https://@host.example.com/", Error::UserInfo { text: text("https://@host.example.com/") }),
        ("https:///a", Error::Host { text: text("https:///a") }),
        ("https://2001:db8::1/", Error::Host { text: text("https://2001:db8::1/") }),
        ("https://[host.example.com]/", Error::Host { text: text("https://[host.example.com]/") }),
        ("https://a..b/", Error::Host { text: text("https://a..b/") }),
        ("https://host%41/", Error::Host { text: text("https://host%41/") }),
        ("https://host.example.com:0/", Error::Port { text: text("https://host.example.com:0/") }),
        ("https://host.example.com:65536/", Error::Port { text: text("https://host.example.com:65536/") }),
        ("https://host.example.com:+1/", Error::Port { text: text("https://host.example.com:+1/") }),
        ("https://host.example.com/a b", Error::Character { text: text("https://host.example.com/a b") }),
        ("https://host.example.com/%4", Error::Character { text: text("https://host.example.com/%4") }),
        ("https://höst.example.com/", Error::Character { text: text("https://höst.example.com/") }),
        ("https://h/\r\nA: b", Error::Character { text: text("https://h/\r\nA: b") }),
    ] {
        assert_eq!(EndpointUrl::parse(given), Err(expected), "{given}");
    }
    let long = format!("https://h/{}", "a".repeat(2040));
    assert_eq!(EndpointUrl::parse(&long), Err(Error::Length { len: 2050 }));
}

#[test]
fn s5_2_1_2_the_web_profile_needs_no_more() {
    // Three parameters make a relationship; the certificate authorities are those of the system.
    let relationship = Relationship::new(domain("a"), url("https://localhost/"), EndpointProfile::Web);
    assert_eq!(relationship.bundle(), None);
    match x0_identity::federation::system_roots() {
        Ok(roots) => assert!(roots.len() > 10, "{}", roots.len()),
        Err(error) => println!("skipped: {error}"),
    }
}

#[test]
fn s5_2_1_3_the_certificate_names_the_host() {
    let web = Web::new();
    let (chain, key) = web.issue(&["host.example.com"]);
    let config = |host: &str| {
        web_endpoint_config(&ServerName::try_from(host).unwrap(), chain.clone(), key.clone_key())
    };
    config("host.example.com").unwrap();
    assert!(matches!(config("other.example.com"), Err(WebEndpointError::Host { .. })));
    assert!(matches!(config("192.0.2.1"), Err(WebEndpointError::Host { .. })));
    let name = ServerName::try_from("host.example.com").unwrap();
    let none = web_endpoint_config(&name, Vec::new(), key.clone_key());
    assert_eq!(none.unwrap_err(), WebEndpointError::NoCertificate);
    let (_, other_key) = web.issue(&["host.example.com"]);
    let mismatch = web_endpoint_config(&name, chain.clone(), other_key);
    assert!(matches!(mismatch, Err(WebEndpointError::Configuration { .. })));
}

#[test]
fn s5_2_1_3_no_client_authenticates() {
    let (example, web) = (Domain::new("example.org"), Web::new());
    // Without a certificate, and without fields of HTTP that authenticate.
    let of_web = Endpoint::new(web.config("localhost"));
    of_web.published.set("/", &example.bundle(1)).unwrap();
    let (answer, _) = get(&of_web, &web, &TLS13).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let config = example.identity("endpoint").bundle_endpoint_config().unwrap();
    let nobody = ClientConfig::builder_with_provider(config.crypto_provider().clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(x0_identity::Verifier::new(example.0.bundle())))
        .with_no_client_auth();
    let (client, server) = connect(&Arc::new(nobody), &config).unwrap();
    assert!(server.peer_certificates().is_none());
    assert_eq!(client.peer_certificates().unwrap().len(), 1);
}

#[test]
fn s5_2_1_3_an_answer_is_utf_8_of_type_json() {
    let (example, web) = (Domain::new("example.org"), Web::new());
    let endpoint = Endpoint::new(web.config("localhost"));
    endpoint.published.set("/", &example.bundle(1)).unwrap();
    // read_to_string is strict.
    let (answer, _) = get(&endpoint, &web, &TLS13).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
    assert_eq!(SpiffeBundle::from_json(example.name(), body.as_bytes()).unwrap(), example.bundle(1));
}

#[test]
fn s5_2_1_4_redirects_lead_to_valid_urls() {
    let base = url("https://host.example.com:8443/a/b?c=d");
    let joined = |location: &str| base.join(location).map(|url| url.to_string());
    for (location, expected) in [
        ("https://other.example.com/x", "https://other.example.com/x"),
        ("//other.example.com/x", "https://other.example.com/x"),
        ("/x?y", "https://host.example.com:8443/x?y"),
        ("x", "https://host.example.com:8443/a/x"),
        ("../x/./y/..", "https://host.example.com:8443/x/"),
        ("../../../x", "https://host.example.com:8443/x"),
        ("?y", "https://host.example.com:8443/a/b?y"),
        ("", "https://host.example.com:8443/a/b?c=d"),
        ("#f", "https://host.example.com:8443/a/b?c=d"),
        (".", "https://host.example.com:8443/a/"),
    ] {
        assert_eq!(joined(location).as_deref(), Ok(expected), "{location}");
    }
    assert!(matches!(joined("http://other.example.com/x"), Err(EndpointUrlError::Scheme { .. })));
    assert!(matches!(joined("data:x"), Err(EndpointUrlError::Scheme { .. })));
    assert!(matches!(joined("//user@other.example.com/x"), Err(EndpointUrlError::UserInfo { .. })));
    assert!(matches!(joined("/x\r\n"), Err(EndpointUrlError::Character { .. })));
}

#[test]
fn s5_2_1_4_the_web_certificate_is_validated() {
    let (example, web, other) = (Domain::new("example.org"), Web::new(), Web::new());
    let consumer = Consumer::new(ClientOptions::default().web_roots(web.roots()));
    let fetched = |endpoint: &Endpoint, host: &str| {
        endpoint.published.set("/", &example.bundle(1)).unwrap();
        let url = url(&format!("https://{host}:{}/", endpoint.address().port()));
        consumer.establish(Relationship::new(example.name(), url, EndpointProfile::Web));
    };
    // By an authority that is not trusted; and for another host.
    let untrusted = Endpoint::new(other.config("localhost"));
    fetched(&untrusted, "localhost");
    let failure = consumer.failure(&example.name());
    assert!(
        matches!(&failure, FetchError::NotAuthenticated { reason } if reason.contains("UnknownIssuer")),
        "{failure}"
    );
    let another = Endpoint::new(web.config("host.example.com"));
    fetched(&another, "localhost");
    let failure = consumer.failure(&example.name());
    assert!(
        matches!(&failure, FetchError::NotAuthenticated { reason } if reason.contains("host.example.com")),
        "{failure}"
    );
    assert!(consumer.client.bundles().get(&example.name()).is_none());
    // By its IP address.
    let by_address = Endpoint::new(web.config("127.0.0.1"));
    fetched(&by_address, "127.0.0.1");
    consumer.until_bundle(&example.bundle(1));
}

#[test]
fn s5_2_1_4_redirects_are_authenticated_alike() {
    let (example, web) = (Domain::new("example.org"), Web::new());
    let consumer = Consumer::new(ClientOptions::default().web_roots(web.roots()));
    // `https_spiffe`: the same SPIFFE ID, and no certificate of the web.
    let (first, second, impostor) = (
        Endpoint::of(&example),
        Endpoint::of(&example),
        Endpoint::new(example.identity("another").bundle_endpoint_config().unwrap()),
    );
    let of_web = Endpoint::new(web.config("127.0.0.1"));
    for endpoint in [&second, &impostor, &of_web] {
        endpoint.published.set("/moved", &example.bundle(2)).unwrap();
    }
    let relationship = || {
        let relationship = Relationship::new(example.name(), first.url("/"), example.profile());
        relationship.with_bundle(example.bundle(1)).unwrap()
    };
    for (to, reason) in [(&impostor, "spiffe://example.org/another"), (&of_web, "")] {
        first.published.redirect("/", to.url("/moved")).unwrap();
        consumer.establish(relationship());
        let failure = consumer.failure(&example.name());
        assert!(
            matches!(&failure, FetchError::NotAuthenticated { reason: text } if text.contains(reason)),
            "{failure}"
        );
    }
    first.published.redirect("/", second.url("/moved")).unwrap();
    consumer.establish(relationship());
    consumer.until_bundle(&example.bundle(2));
    // The configured URL is used again: the redirect is not stored.
    first.published.set("/", &example.bundle(3)).unwrap();
    consumer.client.refresh(example.name()).unwrap();
    consumer.until_bundle(&example.bundle(3));

    // `https_web`: the host of the new URL, by a trusted authority.
    let foreign = Domain::new("example.com");
    of_web.published.redirect("/", second.url("/foreign")).unwrap();
    second.published.set("/foreign", &foreign.bundle(1)).unwrap();
    consumer.establish(Relationship::new(foreign.name(), of_web.url("/"), EndpointProfile::Web));
    let failure = consumer.failure(&foreign.name());
    assert!(matches!(failure, FetchError::NotAuthenticated { .. }), "{failure}");
}

#[test]
fn s5_2_2_2_the_first_bundle_is_in_bundle_format() {
    let example = Domain::new("example.org");
    let endpoint = Endpoint::of(&example);
    endpoint.published.set("/", &example.bundle(1)).unwrap();
    let text = example.bundle(0).to_json();
    let first = SpiffeBundle::from_json(example.name(), text.as_bytes()).unwrap();
    let consumer = consumer();
    let relationship = Relationship::new(example.name(), endpoint.url("/"), example.profile());
    assert!(relationship.is_self_serving());
    consumer.establish(relationship.with_bundle(first).unwrap());
    consumer.until_bundle(&example.bundle(1));
}

#[test]
fn s5_2_2_2_endpoints_of_another_domain() {
    let (example, hub) = (Domain::new("example.org"), Domain::new("hub.example"));
    let endpoint = Endpoint::of(&hub);
    endpoint.published.set("/example.org", &example.bundle(1)).unwrap();
    let consumer = consumer();
    let relationship = Relationship::new(example.name(), endpoint.url("/example.org"), hub.profile());
    assert!(!relationship.is_self_serving());
    consumer.establish(relationship);
    // Its own domain is not a substitute.
    let missing = FetchError::NoBundle { trust_domain: hub.name() };
    assert_eq!(consumer.failure(&example.name()), missing);
    consumer.client.set_bundle(example.bundle(0));
    assert_eq!(consumer.failure(&example.name()), missing);
    // As soon as the bundle of the endpoint's domain is there, the fetch takes place.
    consumer.client.set_bundle(hub.bundle(1));
    consumer.until_bundle(&example.bundle(1));

    // By a relationship of its own, with another profile.
    let web = Web::new();
    let of_web = Endpoint::new(web.config("127.0.0.1"));
    of_web.published.set("/", &hub.bundle(2)).unwrap();
    let consumer = Consumer::new(ClientOptions::default().web_roots(web.roots()));
    consumer.establish(Relationship::new(example.name(), endpoint.url("/example.org"), hub.profile()));
    consumer.establish(Relationship::new(hub.name(), of_web.url("/"), EndpointProfile::Web));
    consumer.until_bundle(&example.bundle(1));
    let reports = consumer.reports.0.lock().unwrap().clone();
    assert_eq!(reports, [Report::Updated(hub.bundle(2)), Report::Updated(example.bundle(1))]);
}

#[test]
fn s5_2_2_4_the_endpoint_has_the_configured_id() {
    let example = Domain::new("example.org");
    let consumer = consumer();
    let root = root();
    let broken =
        Recipe::leaf("spiffe://example.org/endpoint").with(|leaf| leaf.key_usage = None).signed_by(&root);
    let chain = broken.chain(&[]);
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, broken.key_der())
            .unwrap();
    // Another workload of the same domain, an SVID of an authority outside of the bundle, and no SVID.
    let another = Endpoint::new(example.identity("another").bundle_endpoint_config().unwrap());
    let forged = Endpoint::of(&Domain::new("example.org"));
    let no_svid = Endpoint::new(Arc::new(config));
    for (endpoint, bundle) in [
        (another, example.bundle(0)),
        (forged, example.bundle(0)),
        (no_svid, SpiffeBundle::new(root.bundle())),
    ] {
        endpoint.published.set("/", &example.bundle(1)).unwrap();
        let relationship = Relationship::new(example.name(), endpoint.url("/"), example.profile());
        consumer.establish(relationship.with_bundle(bundle.clone()).unwrap());
        let failure = consumer.failure(&example.name());
        assert!(matches!(failure, FetchError::NotAuthenticated { .. }), "{failure}");
        assert_eq!(consumer.client.bundles().get(&example.name()), Some(&bundle));
    }
}

#[test]
fn s5_2_2_4_the_latest_bundle_validates() {
    let (old, new) = (Domain::new("example.org"), Domain::new("example.org"));
    let consumer = consumer();
    let endpoint = Endpoint::of(&old);
    endpoint.published.set("/", &new.bundle(2)).unwrap();
    let relationship = Relationship::new(old.name(), endpoint.url("/"), old.profile());
    consumer.establish(relationship.with_bundle(old.bundle(1)).unwrap());
    // Authenticated by the bundle that the operator supplied.
    consumer.until_bundle(&new.bundle(2));
    // Later connections are authenticated by the one that was fetched: the old authority is not trusted now.
    consumer.client.refresh(old.name()).unwrap();
    assert!(matches!(consumer.failure(&old.name()), FetchError::NotAuthenticated { .. }));
    let identity: Identity = new.identity("endpoint");
    endpoint.published.set("/", &new.bundle(3)).unwrap();
    endpoint.server.set_config(identity.bundle_endpoint_config().unwrap());
    consumer.client.refresh(old.name()).unwrap();
    consumer.until_bundle(&new.bundle(3));
    // A rotation of the SVID needs no new configuration.
    identity.rotate(new.0.issue(identity.spiffe_id(), HOUR).unwrap()).unwrap();
    endpoint.published.set("/", &new.bundle(4)).unwrap();
    consumer.client.refresh(old.name()).unwrap();
    consumer.until_bundle(&new.bundle(4));
}
