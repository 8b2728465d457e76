//! The identity of a node or a client, loaded from its files.

use std::path::Path;

use anyhow::{Context, Result, bail};
use x0_identity::{Identity, TrustBundle, TrustDomain, X509Svid};

/// Reads an SVID and the trust bundle that verifies it.
pub(crate) fn load(trust_domain: &str, svid: &Path, bundle: &Path) -> Result<Identity> {
    let trust_domain: TrustDomain =
        trust_domain.parse().with_context(|| format!("`{trust_domain}` is not a valid trust domain"))?;
    let own = load_svid(&trust_domain, svid)?;
    let trusted = TrustBundle::from_pem(trust_domain, &read(bundle)?)
        .with_context(|| format!("{} is not a trust bundle", bundle.display()))?;
    if trusted.is_empty() {
        bail!("{} contains no certificate: copy the bundle of the authority to it", bundle.display());
    }
    Identity::new(own, trusted).with_context(|| {
        format!(
            "the identity in {} cannot be used with the bundle in {}; `x0-node issue` renews identities",
            svid.display(),
            bundle.display()
        )
    })
}

/// Reads the SVID again. The next handshake uses it.
pub(crate) fn reload(identity: &Identity, svid: &Path) -> Result<()> {
    let own = load_svid(identity.spiffe_id().trust_domain(), svid)?;
    identity.rotate(own).with_context(|| {
        format!("the identity in {} cannot be used; the previous one stays in use", svid.display())
    })
}

fn load_svid(trust_domain: &TrustDomain, path: &Path) -> Result<X509Svid> {
    let svid = X509Svid::from_pem(&read(path)?)
        .with_context(|| format!("{} is not an X.509-SVID", path.display()))?;
    if svid.spiffe_id().trust_domain() != trust_domain {
        bail!(
            "{} holds the identity {} of another trust domain than the configuration, which has `trust_domain = \"{trust_domain}\"`: \
             correct the setting or use the identity of this cluster",
            path.display(),
            svid.spiffe_id(),
        );
    }
    Ok(svid)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
