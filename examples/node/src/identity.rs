//! A node's or a client's identity, from its files.

use std::path::Path;

use anyhow::{Context, Result, bail};
use x0_identity::{Identity, TrustBundle, TrustDomain, X509Svid};

/// Reads an SVID and the bundle that it is to be verified with.
pub(crate) fn load(trust_domain: &str, svid: &Path, bundle: &Path) -> Result<Identity> {
    let trust_domain: TrustDomain =
        trust_domain.parse().with_context(|| format!("`{trust_domain}` cannot be a trust domain"))?;
    let own = load_svid(&trust_domain, svid)?;
    let trusted = TrustBundle::from_pem(trust_domain, &read(bundle)?)
        .with_context(|| format!("{} is no trust bundle", bundle.display()))?;
    if trusted.is_empty() {
        bail!("{} holds no certificate: copy the authority's bundle there", bundle.display());
    }
    Identity::new(own, trusted).with_context(|| {
        format!(
            "the identity in {} cannot be used with the bundle in {}; `x0-node issue` renews identities",
            svid.display(),
            bundle.display()
        )
    })
}

/// Reads the SVID anew, for use from the next handshake on.
pub(crate) fn reload(identity: &Identity, svid: &Path) -> Result<()> {
    let own = load_svid(identity.spiffe_id().trust_domain(), svid)?;
    identity.rotate(own).with_context(|| format!("the identity in {} cannot take over", svid.display()))
}

fn load_svid(trust_domain: &TrustDomain, path: &Path) -> Result<X509Svid> {
    let svid =
        X509Svid::from_pem(&read(path)?).with_context(|| format!("{} is no X.509-SVID", path.display()))?;
    if svid.spiffe_id().trust_domain() != trust_domain {
        bail!(
            "{} is an identity of another trust domain: it is {}, the configuration says `trust_domain = \"{trust_domain}\"`; \
             correct one or the other",
            path.display(),
            svid.spiffe_id(),
        );
    }
    Ok(svid)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
