//! `x0-node bundle federate`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use x0_identity::{Authority, SpiffeBundle, SpiffeId, TrustDomain};

use super::FederatedRow;
use super::relationships::{Relationships, Row, key, keyspace};
use crate::bundles;
use crate::client::Connection;
use crate::config::ClientConfig;
use crate::identity::bundle::{BundleArgs, Reports, answered, reports, say, wait};
use crate::identity::load_bundle;
use crate::identity::report::Report;
use crate::init::{self, Layout};

#[derive(Debug, Subcommand)]
pub(crate) enum FederateCommand {
    /// Trust clients of another trust domain on every node, and follow its bundle; again for a trust domain
    /// replaces its relationship
    Add(AddArgs),
    /// End the trust in another trust domain: its clients lose their connections
    Remove {
        /// The foreign trust domain
        trust_domain: TrustDomain,
    },
    /// Print the foreign trust domains of each node: bundle, last fetch, clients
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the bundle of this cluster as JSON, for the operator of the other trust domain
    Export,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The foreign trust domain
    trust_domain: TrustDomain,
    /// The URL of its bundle endpoint
    #[arg(long, value_name = "URL")]
    url: String,
    /// The SPIFFE ID that the endpoint proves (profile `https_spiffe`)
    #[arg(long, value_name = "SPIFFE-ID", required_unless_present = "web", conflicts_with = "web")]
    endpoint: Option<SpiffeId>,
    /// The endpoint has a certificate of the web (profile `https_web`)
    #[arg(long)]
    web: bool,
    /// The current bundle of the trust domain as JSON, which authenticates the first fetch of `https_spiffe`
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// A SPIFFE ID of the trust domain that may connect as a client; may be repeated
    #[arg(long = "client", value_name = "SPIFFE-ID", required = true)]
    clients: Vec<SpiffeId>,
}

/// Prints or changes relationships.
pub(crate) async fn federate(args: &BundleArgs, command: &FederateCommand) -> Result<()> {
    match command {
        FederateCommand::Export => export(&args.layout()?),
        FederateCommand::List { json } => list(&args.client()?, *json).await,
        FederateCommand::Add(add) => {
            let row = add.row()?;
            let domain = row.trust_domain.clone();
            let sequence = change(args, |rows| {
                rows.retain(|other| other.trust_domain != row.trust_domain);
                rows.push(row);
                Ok(())
            })
            .await?;
            let is_done = |report: &Report| {
                report.federation.sequence >= sequence
                    && federated(report, &domain).is_some_and(|row| row.is_fetched)
            };
            let (config, what) = (args.client()?, format!("follows the bundle of {domain}"));
            let Err(error) = wait(args, &config, &what, is_done).await else { return Ok(()) };
            let failures = failures(&reports(&config).await?, &domain);
            Err(error.context(format!("the relationship is set, and not every node has fetched{failures}")))
        }
        FederateCommand::Remove { trust_domain } => {
            let domain = trust_domain.as_str();
            let sequence = change(args, |rows| {
                let before = rows.len();
                rows.retain(|row| row.trust_domain != domain);
                if rows.len() == before {
                    bail!(
                        "there is no relationship with {domain}: `x0-node bundle federate list` prints all"
                    );
                }
                Ok(())
            })
            .await?;
            let what = format!("does not trust {domain} any more");
            wait(args, &args.client()?, &what, |report| report.federation.sequence >= sequence).await
        }
    }
}

impl AddArgs {
    fn row(&self) -> Result<Row> {
        let bundle = self.bundle.as_ref().map(|path| {
            let cannot = || format!("{} is not a SPIFFE bundle as JSON", path.display());
            let json = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            SpiffeBundle::from_json(self.trust_domain.clone(), &json).with_context(cannot)?;
            serde_json::from_slice(&json).with_context(cannot)
        });
        Ok(Row {
            trust_domain: self.trust_domain.to_string(),
            url: self.url.clone(),
            endpoint: self.endpoint.as_ref().map(SpiffeId::to_string),
            bundle: bundle.transpose()?,
            clients: self.clients.iter().map(SpiffeId::to_string).collect(),
        })
    }
}

fn export(layout: &Layout) -> Result<()> {
    let authority = init::authority(layout)?;
    let bundle = load_bundle(authority.trust_domain().clone(), &layout.bundle())?;
    let bundle = SpiffeBundle::new(bundle).with_sequence(bundles::sequence(&layout.bundle())?);
    say(&format!("{}\n", bundle.to_json()))
}

/// The relationships that were signed with a folder.
fn stored(layout: &Layout, own: &TrustDomain) -> Result<Relationships> {
    let path = layout.federation();
    let damaged = || format!("{} is damaged: restore it", path.display());
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Relationships::default()),
        json => Relationships::from_json(own, &json.with_context(damaged)?).with_context(damaged),
    }
}

/// Changes the relationships, signs and stores them. Returns their number.
async fn change(args: &BundleArgs, change: impl FnOnce(&mut Vec<Row>) -> Result<()>) -> Result<u64> {
    let layout = args.layout()?;
    let authority = init::authority(&layout)?;
    let mut all = stored(&layout, authority.trust_domain())?;
    change(&mut all.relationships)?;
    spread(&layout, &args.client()?, &authority, all).await
}

/// Signs the relationships again, by the authority that issues from now on. Without any, nothing is done.
pub(crate) async fn sign_again(layout: &Layout, config: &ClientConfig, by: &Authority) -> Result<()> {
    let all = stored(layout, by.trust_domain())?;
    if all.sequence > 0 {
        spread(layout, config, by, all).await?;
    }
    Ok(())
}

async fn spread(
    layout: &Layout,
    config: &ClientConfig,
    by: &Authority,
    mut all: Relationships,
) -> Result<u64> {
    all.sequence += 1;
    all.check(by.trust_domain())?;
    let signed = all.sign(by)?;
    // First of all, so that the number is not used for another statement.
    init::write_public(&layout.federation(), &all.to_json()?)?;
    let connection = Connection::open(config).await?;
    let put = async { Ok(keyspace(connection.store())?.put(key(all.sequence), signed.to_bytes()).await?) };
    let put = tokio::select! {
        put = put => put,
        error = connection.refused() => Err(error),
    };
    let put = put.map_err(|error: anyhow::Error| connection.explain(error));
    connection.close().await;
    put.context("no member has the relationships: run the command again")?;
    Ok(all.sequence)
}

fn federated<'a>(report: &'a Report, trust_domain: &str) -> Option<&'a FederatedRow> {
    report.federation.domains.iter().find(|row| row.trust_domain == trust_domain)
}

/// Why nodes have not fetched a bundle.
fn failures(reports: &Reports, trust_domain: &str) -> String {
    let mut text = String::new();
    for (node, report) in reports {
        let row = report.as_ref().and_then(|report| federated(report, trust_domain));
        if let Some(failure) = row.and_then(|row| row.failure.as_ref()) {
            text.push_str(&format!("; node {node}: {failure}"));
        }
    }
    text
}

async fn list(config: &ClientConfig, json: bool) -> Result<()> {
    let reports = answered(config).await?;
    if json {
        let rows = reports.iter().map(|(node, report)| {
            let federation = report.as_ref().map(|report| &report.federation);
            serde_json::json!({ "node": node.to_string(), "federation": federation })
        });
        return say(&format!("{}\n", serde_json::to_string(&rows.collect::<Vec<_>>())?));
    }
    say(&table(&reports))
}

fn table(reports: &Reports) -> String {
    let mut text = format!(
        "{:<16}  {:<30}  {:>8}  {:<16}  {:<40}  {}\n",
        "node", "trust domain", "sequence", "authorities", "clients", "state"
    );
    for (node, report) in reports {
        let Some(report) = report else {
            text.push_str(&format!("{:<16}  no answer\n", node.to_string()));
            continue;
        };
        for row in &report.federation.domains {
            let sequence =
                row.bundle_sequence.map_or_else(|| "-".to_owned(), |sequence| sequence.to_string());
            let state = match (&row.failure, row.is_fetched) {
                (Some(failure), _) => format!("not fetched: {failure}"),
                (None, true) => "fetched".to_owned(),
                (None, false) => "not fetched yet".to_owned(),
            };
            text.push_str(&format!(
                "{:<16}  {:<30}  {sequence:>8}  {:<16}  {:<40}  {state}\n",
                node.to_string(),
                row.trust_domain,
                row.authorities.join(" "),
                row.clients.join(" "),
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use x0_identity::NodeId;

    use super::*;
    use crate::federation::FederationReport;

    #[test]
    fn the_table_shows_what_each_node_has() {
        let row = |failure: Option<&str>, is_fetched: bool| FederatedRow {
            trust_domain: "b.example".into(),
            authorities: vec!["0011223344556677".into()],
            bundle_sequence: is_fetched.then_some(7),
            is_fetched,
            failure: failure.map(Into::into),
            clients: vec!["spiffe://b.example/client/1".into()],
        };
        let report = |row: FederatedRow| Report {
            spiffe_id: String::new(),
            valid_until: 0,
            signed_by: None,
            next_renewal: None,
            failure: None,
            authorities: Vec::new(),
            revocations: Vec::new(),
            federation: FederationReport { sequence: 1, domains: vec![row] },
        };
        let node = |number| NodeId::new(number).unwrap();
        let reports = vec![
            (node(1), Some(report(row(None, true)))),
            (node(2), Some(report(row(Some("no route"), true)))),
            (node(3), Some(report(row(None, false)))),
            (node(4), None),
        ];
        let text = table(&reports);
        let line = |number: usize| text.lines().nth(number).unwrap();
        assert!(
            line(1).contains("b.example") && line(1).contains(" 7 ") && line(1).ends_with("  fetched"),
            "{text}"
        );
        assert!(line(2).ends_with("not fetched: no route"), "{text}");
        assert!(line(3).ends_with("not fetched yet"), "{text}");
        assert!(line(4).ends_with("no answer"), "{text}");
        assert_eq!(failures(&reports, "b.example"), "; node 0000000000000002: no route");
        assert_eq!(failures(&reports, "c.example"), "");
    }
}
