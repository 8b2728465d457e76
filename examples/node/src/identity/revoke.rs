//! `x0-node revoke`.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use x0_identity::{Authority, NodeId, RevocationView, Revoked, SignedRevocations, SpiffeId, TrustDomain};

use super::bundle;
use super::commands::ask;
use super::report::SERVICE;
use crate::causes::causes;
use crate::cli::node_id;
use crate::client::{Connection, Services};
use crate::config::ClientConfig;
use crate::init::{self, Layout};
use crate::issuer::entries::Entries;
use crate::revocations;

/// The pause between two questions to a node.
const POLL: Duration = Duration::from_millis(50);
/// The time for an answer of a node.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// A SPIFFE ID, or a node by its number or its id in 16 hexadecimal digits: every SVID of it is refused
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The folder that `init` wrote: its authority signs the revocation
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: PathBuf,
    /// The configuration of a client or an operator
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The end of the revocation, in hours from now: not before the last SVID of the ID expires. Without it,
    /// the end of the authority
    #[arg(long, value_name = "HOURS")]
    pub(crate) hours: Option<u32>,
    /// The time to wait until every member refuses the ID, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) wait_seconds: u64,
}

/// Revokes a SPIFFE ID, and reports each member that refuses it. An error if one does not in time.
pub(crate) async fn revoke(args: &RevokeArgs) -> Result<()> {
    let layout = Layout::new(&args.dir);
    let authority = init::authority(&layout)?;
    let id = workload(&args.id, authority.trust_domain())?;
    let config = ClientConfig::load(&args.config)?;
    // First of all it is not renewed any more, also if no node is reached.
    let mut entries = Entries::open(&layout)?;
    entries.registry.remove(&id);
    entries.save()?;
    let wanted = args.hours.map_or(authority.not_after(), |hours| {
        SystemTime::now() + Duration::from_secs(u64::from(hours) * 3600)
    });
    let signed = match reusable(stored(&layout)?, &id, wanted, &authority) {
        Some(signed) => signed,
        None => {
            let mut view = RevocationView::new();
            view.insert(Revoked::SpiffeId(id.clone()), wanted)?;
            let to_be_signed = SignedRevocations::to_be_signed(authority.trust_domain(), &view);
            let signed = SignedRevocations::new(view, authority.sign(&to_be_signed)?);
            let bytes = signed.to_bytes();
            init::write_secret(&layout.revoked().join(revocations::name(&bytes)), &bytes)?;
            signed
        }
    };
    drop(entries);

    let name = publish(&config, &signed).await?;
    say(&format!("{id} is revoked, as {name}.\n"))?;
    let config = members(&config, &layout).await?;
    confirm(&config, &id, &name, Duration::from_secs(args.wait_seconds)).await
}

/// What was revoked with this folder; for its issuer.
pub(crate) fn revoked(layout: &Layout) -> Result<RevocationView> {
    let mut view = RevocationView::new();
    for signed in stored(layout)? {
        view.merge(signed.view()).context("too much is revoked: rotate the authority instead")?;
    }
    Ok(view)
}

/// The revocations that were signed with this folder.
fn stored(layout: &Layout) -> Result<Vec<SignedRevocations>> {
    let folder = layout.revoked();
    let cannot = || format!("cannot read {}", folder.display());
    let files = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files.with_context(cannot)?,
    };
    let mut all = Vec::new();
    for file in files {
        let path = file.with_context(cannot)?.path();
        let bytes = std::fs::read(&path).with_context(cannot)?;
        let damaged = || format!("{} is damaged: restore it", path.display());
        all.push(SignedRevocations::from_bytes(&bytes).with_context(damaged)?);
    }
    Ok(all)
}

/// An earlier revocation of an ID that says what is wanted: it lasts until then, and is signed by the
/// authority that issues now, since nodes do not take it from another one any more. Of several, the one that
/// lasts longest.
fn reusable(
    stored: Vec<SignedRevocations>,
    id: &SpiffeId,
    wanted: SystemTime,
    authority: &Authority,
) -> Option<SignedRevocations> {
    let end = |signed: &SignedRevocations| {
        signed.verify(&authority.bundle(), &RevocationView::new()).ok()?;
        let mut entries = signed.view().iter();
        let found = entries.find(|(revoked, _)| matches!(revoked, Revoked::SpiffeId(other) if other == id));
        found.map(|(_, expires)| expires)
    };
    let lasting = stored.into_iter().filter_map(|signed| Some((end(&signed)?, signed)));
    let (end, signed) = lasting.max_by_key(|(end, _)| *end)?;
    (end >= wanted).then_some(signed)
}

fn workload(text: &str, trust_domain: &TrustDomain) -> Result<SpiffeId> {
    let id = if text.contains("://") {
        SpiffeId::parse(text).with_context(|| format!("`{text}` is not a SPIFFE ID"))?
    } else {
        SpiffeId::for_node(trust_domain, node_id(text).map_err(anyhow::Error::msg)?)
    };
    if id.trust_domain() != trust_domain {
        bail!("{id} is not of the trust domain {trust_domain} of this authority: it cannot revoke it");
    }
    Ok(id)
}

/// Stores the revocation on any member. Returns its name.
async fn publish(config: &ClientConfig, signed: &SignedRevocations) -> Result<String> {
    let connection = Connection::open(config).await?;
    let bytes = signed.to_bytes();
    let name = revocations::name(&bytes);
    let put =
        async { Ok(revocations::keyspace(connection.store())?.put(name.clone(), Bytes::from(bytes)).await?) };
    let put = tokio::select! {
        put = put => put,
        error = connection.refused() => Err(error),
    };
    let put = put.map_err(|error: anyhow::Error| connection.explain(error));
    connection.close().await;
    put.context(
        "no member has the revocation, and the entry of the issuer is removed: run the command again",
    )?;
    Ok(name)
}

/// The members of the cluster now. A revocation spreads without a quorum, and so it is confirmed without one.
async fn members(config: &ClientConfig, layout: &Layout) -> Result<ClientConfig> {
    let why = match bundle::current(config, layout).await {
        Ok(current) => return Ok(current),
        Err(error) => causes(&error),
    };
    say(&format!("{why}; asking the members of the configuration, which may lack some.\n"))?;
    Ok(config.clone())
}

/// Asks the members until each of them applies the revocation.
async fn confirm(config: &ClientConfig, id: &SpiffeId, name: &str, wait: Duration) -> Result<()> {
    let services = Services::open(config)?;
    let mut asker = services.asker(SERVICE)?;
    // The revoked node may be cut off.
    let members = config.members.iter().map(|member| member.node);
    let mut open: Vec<NodeId> = members.filter(|node| id.node_id() != Some(*node)).collect();
    let (begun, count, mut confirmed) = (Instant::now(), open.len(), 0);
    while !open.is_empty() && begun.elapsed() < wait {
        for node in std::mem::take(&mut open) {
            // A node that does not answer must not delay the others for long.
            match ask(&mut asker, node, ANSWER_LIMIT).await? {
                Some(report) if report.revocations.iter().any(|applied| applied == name) => {
                    confirmed += 1;
                    let took = begun.elapsed().as_millis();
                    say(&format!("node {node} refuses it ({confirmed} of {count}, after {took} ms)\n"))?;
                }
                _ => open.push(node),
            }
        }
        tokio::time::sleep(POLL).await;
    }
    if !open.is_empty() {
        let nodes = open.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        bail!(
            "not confirmed by {nodes} within {} s: the others pass the revocation on when they are reached; run the command again to see it",
            wait.as_secs()
        );
    }
    Ok(())
}

fn say(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use x0_identity::AuthorityOptions;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_earlier_revocation_is_used_again_only_if_it_says_as_much() {
        let domain = || TrustDomain::parse("example.org").unwrap();
        let authority = || Authority::new(domain(), &AuthorityOptions::default()).unwrap();
        let (current, retired) = (authority(), authority());
        let id = |name: &str| SpiffeId::from_segments(&domain(), &[name]).unwrap();
        // The views hold whole seconds.
        let now = SystemTime::UNIX_EPOCH + 1_000_000 * HOUR;
        let signed = |by: &Authority, name: &str, expires: SystemTime| {
            let mut view = RevocationView::new();
            view.insert(Revoked::SpiffeId(id(name)), expires).unwrap();
            let signature = by.sign(&SignedRevocations::to_be_signed(&domain(), &view)).unwrap();
            SignedRevocations::new(view, signature)
        };
        let stored = || {
            vec![
                signed(&current, "stolen", now - HOUR),
                signed(&current, "stolen", now + 2 * HOUR),
                signed(&current, "stolen", now + HOUR),
                signed(&current, "other", now + 9 * HOUR),
                signed(&retired, "stolen", now + 9 * HOUR),
            ]
        };
        let end = |wanted: SystemTime| {
            let signed = reusable(stored(), &id("stolen"), wanted, &current)?;
            signed.view().last_expiry()
        };
        assert_eq!(end(now), Some(now + 2 * HOUR));
        assert_eq!(end(now + 2 * HOUR), Some(now + 2 * HOUR));
        // One that has ended, or ends before, is not published again.
        assert_eq!(end(now + 2 * HOUR + Duration::from_secs(1)), None);
        let over = vec![signed(&current, "stolen", now - HOUR)];
        assert_eq!(reusable(over, &id("stolen"), now + HOUR, &current), None);
    }
}
