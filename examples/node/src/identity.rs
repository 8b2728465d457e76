//! The identity of a node or a client: loaded from its files, read again when they change, and shown by
//! `x0-node identity`.

pub(crate) mod bundle;
pub(crate) mod commands;
pub(crate) mod files;
pub(crate) mod renew;
pub(crate) mod report;
pub(crate) mod revoke;
pub(crate) mod tpm;

use std::path::Path;

use anyhow::{Context, Result, bail};
use x0_identity::{Identity, TrustBundle, TrustDomain, X509Svid};

/// Reads an SVID and the trust bundle that verifies it.
pub(crate) fn load(trust_domain: &str, svid: &Path, bundle: &Path) -> Result<Identity> {
    let trust_domain: TrustDomain =
        trust_domain.parse().with_context(|| format!("`{trust_domain}` is not a valid trust domain"))?;
    let own = load_svid(&trust_domain, svid)?;
    build(own, load_bundle(trust_domain, bundle)?, svid, bundle)
}

/// What [`reload`] has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reloaded {
    pub(crate) svid: bool,
    pub(crate) bundle: bool,
}

/// Reads the SVID and the bundle again. The next handshake uses them. Both stay in use as they are if the
/// files are not an identity together.
pub(crate) fn reload(identity: &Identity, svid: &Path, bundle: &Path) -> Result<Reloaded> {
    let trust_domain = identity.spiffe_id().trust_domain();
    let own = load_svid(trust_domain, svid)?;
    let trusted = load_bundle(trust_domain.clone(), bundle)?;
    let reloaded =
        Reloaded { svid: own.chain() != identity.svid_chain(), bundle: trusted != identity.trust_bundle() };
    // Together first: a bundle that does not trust the SVID beside it must not come into use.
    let stays = "the previous identity and bundle stay in use";
    build(own.clone(), trusted.clone(), svid, bundle).context(stays)?;
    if own.spiffe_id() != identity.spiffe_id() {
        bail!(
            "{} is the identity of {} and this process is {}: {stays}; restart it to change its identity",
            svid.display(),
            own.spiffe_id(),
            identity.spiffe_id()
        );
    }
    if reloaded.bundle {
        identity.set_bundle(trusted).context(stays)?;
    }
    if reloaded.svid {
        identity.rotate(own).context(stays)?;
    }
    Ok(reloaded)
}

fn build(own: X509Svid, trusted: TrustBundle, svid: &Path, bundle: &Path) -> Result<Identity> {
    Identity::new(own, trusted).with_context(|| {
        format!(
            "the identity in {} cannot be used with the bundle in {}; `x0-node issue` renews identities",
            svid.display(),
            bundle.display()
        )
    })
}

pub(crate) fn load_bundle(trust_domain: TrustDomain, bundle: &Path) -> Result<TrustBundle> {
    let trusted = TrustBundle::from_pem(trust_domain, &read(bundle)?)
        .with_context(|| format!("{} is not a trust bundle", bundle.display()))?;
    if trusted.is_empty() {
        bail!("{} contains no certificate: copy the bundle of the authority to it", bundle.display());
    }
    Ok(trusted)
}

pub(crate) fn load_svid(trust_domain: &TrustDomain, path: &Path) -> Result<X509Svid> {
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
