//! Trust domains, endpoints and consumers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{RootCertStore, ServerConfig};
use x0_identity::federation::{
    Client, ClientOptions, EndpointProfile, EndpointUrl, FederatedBundles, FetchError, PublishedBundles,
    Relationship, Server, ServerOptions, web_endpoint_config,
};
use x0_identity::{Authority, AuthorityOptions, Identity, SpiffeBundle, SpiffeId, TrustDomain};

pub(crate) use crate::common::domain;

/// Longer than any step takes on a machine under load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(crate) fn url(text: &str) -> EndpointUrl {
    EndpointUrl::parse(text).unwrap()
}

/// A trust domain with an authority.
pub(crate) struct Domain(pub(crate) Authority);

impl Domain {
    pub(crate) fn new(name: &str) -> Domain {
        Domain(Authority::new(domain(name), &AuthorityOptions::default()).unwrap())
    }

    pub(crate) fn name(&self) -> TrustDomain {
        self.0.trust_domain().clone()
    }

    pub(crate) fn bundle(&self, sequence: u64) -> SpiffeBundle {
        SpiffeBundle::new(self.0.bundle()).with_sequence(sequence)
    }

    pub(crate) fn identity(&self, path: &str) -> Identity {
        let id = id(&format!("spiffe://{}/{path}", self.0.trust_domain()));
        Identity::new(self.0.issue(&id, HOUR).unwrap(), self.0.bundle()).unwrap()
    }

    /// `https_spiffe`, served by the workload `endpoint` of this domain.
    pub(crate) fn profile(&self) -> EndpointProfile {
        EndpointProfile::Spiffe { endpoint: id(&format!("spiffe://{}/endpoint", self.0.trust_domain())) }
    }
}

/// A certificate authority of the web.
pub(crate) struct Web {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Web {
    pub(crate) fn new() -> Web {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Two authorities of one name would be taken for one another.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("authority {} of the web", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Web { params, key, certificate }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    pub(crate) fn config(&self, name: &str) -> Arc<ServerConfig> {
        let (chain, key) = self.issue(&[name]);
        web_endpoint_config(&ServerName::try_from(name).unwrap(), chain, key).unwrap()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }
}

/// A bundle endpoint on a port of its own.
pub(crate) struct Endpoint {
    pub(crate) published: PublishedBundles,
    pub(crate) server: Server,
}

impl Endpoint {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Endpoint {
        Endpoint::with_options(config, ServerOptions::default())
    }

    pub(crate) fn with_options(config: Arc<ServerConfig>, options: ServerOptions) -> Endpoint {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let published = PublishedBundles::new();
        let server = Server::start(listener, config, published.clone(), options).unwrap();
        Endpoint { published, server }
    }

    /// Of `https_spiffe`, with an identity of this domain.
    pub(crate) fn of(domain: &Domain) -> Endpoint {
        Endpoint::new(domain.identity("endpoint").bundle_endpoint_config().unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) fn url(&self, path: &str) -> EndpointUrl {
        url(&format!("https://{}{path}", self.address()))
    }
}

/// What a consumer reported, in order.
#[derive(Default)]
pub(crate) struct Reports(pub(crate) Mutex<Vec<Report>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    Updated(SpiffeBundle),
    Removed(TrustDomain),
}

impl FederatedBundles for Reports {
    fn updated(&self, bundle: &SpiffeBundle) {
        self.0.lock().unwrap().push(Report::Updated(bundle.clone()));
    }

    fn removed(&self, trust_domain: &TrustDomain) {
        self.0.lock().unwrap().push(Report::Removed(trust_domain.clone()));
    }
}

/// A consumer, and what it reported.
pub(crate) struct Consumer {
    pub(crate) client: Client,
    pub(crate) reports: Arc<Reports>,
}

impl Consumer {
    pub(crate) fn new(options: ClientOptions) -> Consumer {
        let reports = Arc::new(Reports::default());
        let client = Client::start(Arc::clone(&reports) as _, options).unwrap();
        Consumer { client, reports }
    }

    pub(crate) fn establish(&self, relationship: Relationship) {
        self.client.establish(relationship).unwrap();
    }

    /// Waits until the state of the client has a property.
    #[track_caller]
    pub(crate) fn until(&self, mut reached: impl FnMut(&Client) -> bool) {
        let begun = Instant::now();
        let mut seen = 0;
        while !reached(&self.client) {
            assert!(begun.elapsed() < PATIENCE, "not reached: {:?}", self.client.status());
            seen = self.client.wait_for_change(seen, Duration::from_millis(100));
        }
    }

    #[track_caller]
    pub(crate) fn until_bundle(&self, bundle: &SpiffeBundle) {
        self.until(|client| client.bundles().get(bundle.trust_domain()) == Some(bundle));
    }

    /// Fetches the bundle of the domain, and returns why that failed.
    #[track_caller]
    pub(crate) fn failure(&self, trust_domain: &TrustDomain) -> FetchError {
        let mut failure = None;
        self.until(|client| {
            let status = client.status();
            let status = status.iter().find(|status| status.relationship.trust_domain() == trust_domain);
            failure =
                status.filter(|status| status.next_fetch.is_some()).and_then(|status| status.failure.clone());
            failure.is_some()
        });
        failure.unwrap()
    }
}
