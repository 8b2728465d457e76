//! Workloads of two trust domains.

use std::sync::Arc;
use std::time::Duration;

use x0_identity::workload_api::Workload;
use x0_identity::{Authority, AuthorityOptions, JwtIssuer, SpiffeBundle, SpiffeId, TrustDomain, X509Svid};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// A trust domain with authorities for both kinds of SVIDs.
pub(crate) struct Domain {
    pub(crate) authority: Authority,
    pub(crate) jwt_issuer: Arc<JwtIssuer>,
}

impl Domain {
    pub(crate) fn new(name: &str) -> Domain {
        Domain {
            authority: Authority::new(domain(name), &AuthorityOptions::default()).unwrap(),
            jwt_issuer: Arc::new(JwtIssuer::generate(domain(name), &format!("key of {name}")).unwrap()),
        }
    }

    pub(crate) fn bundle(&self) -> SpiffeBundle {
        let authorities = vec![self.jwt_issuer.authority().clone()];
        SpiffeBundle::new(self.authority.bundle()).with_jwt_authorities(authorities).unwrap()
    }

    pub(crate) fn svid(&self, path: &str) -> X509Svid {
        let id = id(&format!("spiffe://{}/{path}", self.authority.trust_domain()));
        self.authority.issue(&id, HOUR).unwrap()
    }

    /// With an identity for each path, whose hint is the path, and an issuer of JWT-SVIDs.
    pub(crate) fn workload(&self, paths: &[&str]) -> Workload {
        let workload = Workload::new(self.bundle());
        let workload = workload.with_jwt_issuer(Arc::clone(&self.jwt_issuer), HOUR).unwrap();
        paths.iter().fold(workload, |workload, path| workload.with_svid(self.svid(path), path).unwrap())
    }
}
