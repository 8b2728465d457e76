//! `x0-node bundle`: the bundle of a cluster, and the replacement of its authority, step by step.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use x0_identity::{Authority, NodeId, SignedBundle, TrustBundle};
use x0_kv::admin::{AdminError, MemberInfo};

use super::commands::{LIMIT, Unread, ask_all};
use super::load_bundle;
use super::report::{Report, SERVICE, fingerprint};
use crate::bundles;
use crate::cli::ValidityArgs;
use crate::client::{Connection, Services};
use crate::config::{ClientConfig, Member};
use crate::federation::commands::{FederateCommand, federate, sign_again};
use crate::init::{self, Layout};
use crate::member;
use crate::report::Asker;

/// How often the table of the members is read again while a step waits.
const TABLE_EVERY: Duration = Duration::from_secs(1);
/// The pause between two questions to a node.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// The configuration of a client or an operator
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The folder that `init` wrote; `show` asks the members of the cluster with it, and those of the
    /// configuration without
    #[arg(long, value_name = "FOLDER", global = true)]
    dir: Option<PathBuf>,
    /// The time to wait until every member has taken the step, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS", global = true)]
    wait_seconds: u64,
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Print the authorities that each node trusts, and the one that its SVID is signed by
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Publish the authorities of a file as the bundle, signed by the current authority; refused unless the
    /// bundle trusts the SVID of every member
    Set {
        /// The authorities that are trusted, PEM; the one that issues must be among them
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Step 1: create the next authority, which nobody trusts yet
    Prepare,
    /// Step 2: publish the bundle with both authorities, signed by the current one
    Publish,
    /// Step 3: issue with the next authority; refused unless every member trusts it
    Activate {
        #[command(flatten)]
        validity: ValidityArgs,
    },
    /// Step 4: publish the bundle without the old authority; refused unless no member's SVID is signed by it
    Retire,
    /// Trust clients of other trust domains, whose bundles the nodes fetch from their bundle endpoints
    Federate {
        #[command(subcommand)]
        command: FederateCommand,
    },
}

/// The members that were asked, each with its report; `None` of one that did not answer.
pub(crate) type Reports = Vec<(NodeId, Option<Report>)>;

/// Prints or takes a step.
pub(crate) async fn bundle(args: &BundleArgs) -> Result<()> {
    match &args.command {
        BundleCommand::Show { json } => show(args, *json).await,
        BundleCommand::Set { file } => set(args, &args.client()?, file).await,
        BundleCommand::Prepare => prepare(&args.layout()?),
        BundleCommand::Publish => publish(args, &args.client()?).await,
        BundleCommand::Activate { validity } => activate(args, &args.client()?, validity.validity()).await,
        BundleCommand::Retire => retire(args, &args.client()?).await,
        BundleCommand::Federate { command } => federate(args, command).await,
    }
}

impl BundleArgs {
    pub(crate) fn layout(&self) -> Result<Layout> {
        let dir = self.dir.as_ref().context("the step needs --dir FOLDER, the folder that `init` wrote")?;
        Ok(Layout::new(dir))
    }

    pub(crate) fn client(&self) -> Result<ClientConfig> {
        let path = self.config.as_ref();
        let path =
            path.context("the command needs --config FILE, the configuration of a client or an operator")?;
        Ok(ClientConfig::load(path)?)
    }
}

/// Asks each member of a configuration.
pub(crate) async fn reports(config: &ClientConfig) -> Result<Reports> {
    Members::new(config)?.reports(&mut Unread::default()).await
}

/// As [`reports`]. An error if no member answers.
pub(crate) async fn answered(config: &ClientConfig) -> Result<Reports> {
    let mut members = Members::new(config)?;
    let reports = members.reports(&mut Unread::default()).await?;
    if reports.iter().all(|(_, report)| report.is_none()) {
        return Err(members.services.unanswered(LIMIT));
    }
    Ok(reports)
}

/// The configuration with the members of the replicated table in the place of its own: with the nodes that
/// were added since it was written, and without those that were removed. The table is for operators; with the
/// configuration of a client, the operator of the folder asks for it.
pub(crate) async fn current(config: &ClientConfig, layout: &Layout) -> Result<ClientConfig> {
    let cannot = "cannot read the member table of the cluster";
    let table = match member::members(config).await {
        Err(error) if error.downcast_ref::<AdminError>() == Some(&AdminError::NotAnOperator) => {
            let operator = ClientConfig::load(&layout.operator_config())
                .context(cannot)
                .context("pass the configuration of an operator to --config")?;
            member::members(&operator).await
        }
        table => table,
    };
    with_table(config, &table.context(cannot)?)
}

/// The address in the configuration counts, for a node that both have: it may be a name, or that of another
/// network than the one of the nodes.
fn with_table(config: &ClientConfig, table: &[MemberInfo]) -> Result<ClientConfig> {
    let member = |info: &MemberInfo| {
        if let Some(known) = config.members.iter().find(|member| member.node == info.node) {
            return Ok(known.clone());
        }
        let address = info.addresses.iter().find_map(|address| address.parse().ok());
        let address = address.with_context(|| {
            format!(
                "the member table has no address of node {}: add the node to `members` of the configuration",
                info.node
            )
        })?;
        Ok(Member { node: info.node, address })
    };
    let members = table.iter().map(member).collect::<Result<_>>()?;
    Ok(ClientConfig { members, ..config.clone() })
}

async fn show(args: &BundleArgs, json: bool) -> Result<()> {
    let mut config = args.client()?;
    // Without the folder, a client may not know who is a member now.
    if args.dir.is_some() {
        config = current(&config, &args.layout()?).await?;
    }
    let reports = answered(&config).await?;
    let rows = reports.iter().map(|(node, report)| {
        let authorities = report.as_ref().map(roots);
        let signed_by = report.as_ref().and_then(|report| report.signed_by.clone());
        (node.to_string(), authorities, signed_by)
    });
    if json {
        let rows = rows.map(|(node, authorities, signed_by)| {
            serde_json::json!({ "node": node, "authorities": authorities, "signed_by": signed_by })
        });
        return say(&format!("{}\n", serde_json::to_string(&rows.collect::<Vec<_>>())?));
    }
    let mut text = format!("{:<16}  {:<16}  {}\n", "node", "SVID signed by", "authorities trusted");
    for (node, authorities, signed_by) in rows {
        let (authorities, signed_by) =
            (authorities.map(|all| all.join(" ")), signed_by.unwrap_or("-".into()));
        text.push_str(&format!(
            "{node:<16}  {signed_by:<16}  {}\n",
            authorities.as_deref().unwrap_or("no answer")
        ));
    }
    say(&text)
}

fn roots(report: &Report) -> Vec<String> {
    report.authorities.iter().map(|row| row.fingerprint.clone()).collect()
}

fn root(authority: &Authority) -> String {
    fingerprint(authority.certificate())
}

async fn set(args: &BundleArgs, config: &ClientConfig, file: &Path) -> Result<()> {
    let layout = args.layout()?;
    let issuing = init::authority(&layout)?;
    let bundle = in_order(&issuing, &load_bundle(issuing.trust_domain().clone(), file)?)
        .with_context(|| format!("cannot use the bundle in {}", file.display()))?;
    let wanted: Vec<String> = bundle.authorities().iter().map(|authority| fingerprint(authority)).collect();
    let reports = reports(&current(config, &layout).await?).await?;
    let trusts = |report: &Report| report.signed_by.as_ref().is_some_and(|by| wanted.contains(by));
    ready(&reports, &format!("have an SVID that none of {} signed", wanted.join(" ")), trusts)?;
    spread(&layout, config, &issuing, &bundle).await?;
    let what = format!("trusts {}", wanted.join(" "));
    wait(args, config, &what, |report| roots(report) == wanted).await
}

/// The bundle with the authority that issues in the first place, by which nodes know it.
fn in_order(issuing: &Authority, bundle: &TrustBundle) -> Result<TrustBundle> {
    if !bundle.authorities().contains(issuing.certificate()) {
        bail!(
            "the bundle lacks {}, the authority that issues: add it, or replace it first, beginning with `x0-node bundle prepare`",
            root(issuing)
        );
    }
    let mut ordered = issuing.bundle();
    ordered.extend(bundle)?;
    Ok(ordered)
}

fn prepare(layout: &Layout) -> Result<()> {
    let current = init::authority(layout)?;
    let path = layout.next_authority();
    if path.exists() {
        bail!("{} is prepared already: publish it, or remove the file", path.display());
    }
    let next = init::new_authority(current.trust_domain())?;
    init::write_private(&path, &next.to_pem())?;
    say(&format!("The next authority is {}. Publish it: x0-node bundle publish\n", root(&next)))
}

/// The prepared authority.
fn prepared(layout: &Layout) -> Result<Authority> {
    let path = layout.next_authority();
    let pem = std::fs::read(&path);
    let pem =
        pem.with_context(|| format!("cannot read {}: begin with `x0-node bundle prepare`", path.display()))?;
    Authority::from_pem(&pem).with_context(|| format!("cannot use the authority in {}", path.display()))
}

async fn publish(args: &BundleArgs, config: &ClientConfig) -> Result<()> {
    let layout = args.layout()?;
    let (issuing, next) = (init::authority(&layout)?, prepared(&layout)?);
    let mut both = load_bundle(issuing.trust_domain().clone(), &layout.bundle())?;
    both.extend(&next.bundle())?;
    spread(&layout, config, &issuing, &both).await?;
    let wanted = root(&next);
    wait(args, config, &format!("trusts {wanted}"), |report| roots(report).contains(&wanted)).await?;
    say("Every member trusts the next authority. Issue with it: x0-node bundle activate\n")
}

async fn activate(args: &BundleArgs, config: &ClientConfig, validity: Duration) -> Result<()> {
    let layout = args.layout()?;
    let (issuing, next) = (init::authority(&layout)?, prepared(&layout)?);
    let wanted = root(&next);
    let reports = reports(&current(config, &layout).await?).await?;
    ready(&reports, &format!("do not trust {wanted} yet"), |report| roots(report).contains(&wanted))?;
    // The one that issues is the first.
    let mut both = next.bundle();
    both.extend(&load_bundle(issuing.trust_domain().clone(), &layout.bundle())?)?;
    init::write_private(&layout.authority(), &next.to_pem())?;
    spread(&layout, config, &next, &both).await?;
    // A node that has only the next authority must be able to verify them.
    sign_again(&layout, config, &next).await?;
    init::issue_to_guests(&next, &layout, validity)?;
    std::fs::remove_file(layout.next_authority()).context("cannot remove the file of the next authority")?;
    say(&format!(
        "{wanted} issues. Nodes with [issuer] renew now; issue to the others: x0-node issue --node N\n"
    ))?;
    let signed = |report: &Report| report.signed_by.as_ref() == Some(&wanted);
    wait(args, config, &format!("has an SVID signed by {wanted}"), signed).await?;
    say("No SVID of a member is signed by the old authority. Leave it out: x0-node bundle retire\n")
}

async fn retire(args: &BundleArgs, config: &ClientConfig) -> Result<()> {
    let layout = args.layout()?;
    let authority = init::authority(&layout)?;
    let wanted = root(&authority);
    let reports = reports(&current(config, &layout).await?).await?;
    let signed = |report: &Report| report.signed_by.as_ref() == Some(&wanted);
    ready(&reports, &format!("have an SVID that is not signed by {wanted}"), signed)?;
    spread(&layout, config, &authority, &authority.bundle()).await?;
    let alone = |report: &Report| roots(report) == [wanted.clone()];
    wait(args, config, &format!("trusts {wanted} alone"), alone).await?;
    say("The old authority is not trusted any more.\n")
}

/// Writes a bundle into the folder, and stores it on any member.
async fn spread(layout: &Layout, config: &ClientConfig, by: &Authority, bundle: &TrustBundle) -> Result<()> {
    let sequence = bundles::sequence(&layout.bundle())? + 1;
    let signature = by.sign(&SignedBundle::to_be_signed(sequence, bundle))?;
    let signed = SignedBundle::new(sequence, bundle.clone(), signature);
    // First of all, so that the number is not used for another bundle.
    for path in layout.bundles() {
        bundles::write(&path, sequence, bundle)?;
    }
    let connection = Connection::open(config).await?;
    let put = async {
        let keys = bundles::keyspace(connection.store())?;
        Ok(keys.put(bundles::key(sequence), signed.to_bytes()).await?)
    };
    let put = tokio::select! {
        put = put => put,
        error = connection.refused() => Err(error),
    };
    let put = put.map_err(|error: anyhow::Error| connection.explain(error));
    connection.close().await;
    put.map(drop).context("no member has the bundle: run the command again")
}

/// An error that names the members which are not ready for a step.
fn ready(reports: &[(NodeId, Option<Report>)], what: &str, is_ready: impl Fn(&Report) -> bool) -> Result<()> {
    let open: Vec<String> = reports
        .iter()
        .filter(|(_, report)| !report.as_ref().is_some_and(&is_ready))
        .map(|(node, _)| node.to_string())
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    bail!(
        "not every member is ready: {} {what}, or do not answer; wait for them, or remove them from the cluster with `x0-node member remove`",
        open.join(", ")
    )
}

/// Waits until every member has taken a step, as the table of the members has them at that moment, and prints
/// each that has.
pub(crate) async fn wait(
    args: &BundleArgs,
    config: &ClientConfig,
    what: &str,
    is_done: impl Fn(&Report) -> bool,
) -> Result<()> {
    let (layout, limit) = (args.layout()?, Duration::from_secs(args.wait_seconds));
    let (begun, mut done, mut unread) = (Instant::now(), Vec::new(), Unread::default());
    let mut table = current(config, &layout).await?;
    while done.is_empty() || !table.members.iter().all(|member| done.contains(&member.node)) {
        let (mut members, looked) = (Members::new(&table)?, Instant::now());
        let open = loop {
            let reports = members.reports(&mut unread).await?;
            for (node, report) in &reports {
                if report.as_ref().is_some_and(&is_done) && !done.contains(node) {
                    done.push(*node);
                    say(&format!("node {node} {what} ({} of {})\n", done.len(), reports.len()))?;
                }
            }
            let open: Vec<NodeId> =
                reports.iter().map(|(node, _)| *node).filter(|node| !done.contains(node)).collect();
            if open.is_empty() || looked.elapsed() > TABLE_EVERY {
                break open;
            }
            tokio::time::sleep(POLL).await;
        };
        if !open.is_empty() && begun.elapsed() > limit {
            let open = open.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
            bail!(
                "not confirmed by {open} within {} s; `x0-node bundle show` shows the progress, and the next step is refused until then",
                limit.as_secs()
            );
        }
        // Members may have been added or removed. While some are waited for, the table may be out of reach.
        match current(config, &layout).await {
            Ok(next) => table = next,
            Err(_) if !open.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The members of a configuration, to be asked.
struct Members {
    asker: Asker,
    nodes: Vec<NodeId>,
    services: Services,
}

impl Members {
    fn new(config: &ClientConfig) -> Result<Members> {
        let services = Services::open(config)?;
        let nodes = config.members.iter().map(|member| member.node).collect();
        Ok(Members { asker: services.asker(SERVICE)?, nodes, services })
    }

    async fn reports(&mut self, unread: &mut Unread) -> Result<Reports> {
        ask_all(&mut self.asker, self.nodes.iter().copied(), unread).await
    }
}

pub(crate) fn say(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use x0_kv::admin::MemberRole;

    use super::*;

    /// The members are those of the table: one was added, one removed, and one has a name in the
    /// configuration.
    #[test]
    fn the_table_replaces_the_members_of_the_configuration() {
        let text = "trust_domain = \"example.org\"\nsvid = \"svid.pem\"\nbundle = \"bundle.pem\"\n\
             [[members]]\nnode = \"0000000000000001\"\naddress = \"x0-1.example.org:7401\"\n\
             [[members]]\nnode = \"0000000000000002\"\naddress = \"10.0.0.2:7401\"\n";
        let config: ClientConfig = toml::from_str(text).unwrap();
        let info = |number: u64, addresses: &[&str]| MemberInfo {
            node: NodeId::new(number).unwrap(),
            role: MemberRole::Learner,
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
            incarnation: 0,
            matched: 0,
            is_receiving_snapshot: false,
            is_reached: true,
        };
        let table = [info(1, &["10.0.0.1:7401"]), info(3, &["no address", "10.0.0.3:7401"])];
        let current = with_table(&config, &table).unwrap();
        let members: Vec<String> =
            current.members.iter().map(|member| format!("{} {}", member.node, member.address)).collect();
        assert_eq!(members, ["0000000000000001 x0-1.example.org:7401", "0000000000000003 10.0.0.3:7401"]);
        let error = with_table(&config, &[info(4, &[])]).unwrap_err().to_string();
        assert!(error.contains("no address of node 0000000000000004"), "{error}");
    }

    #[test]
    fn the_authority_that_issues_is_the_first() {
        let domain = || x0_identity::TrustDomain::parse("example.org").unwrap();
        let authority = || Authority::new(domain(), &x0_identity::AuthorityOptions::default()).unwrap();
        let (issuing, other) = (authority(), authority());
        let mut both = other.bundle();
        both.extend(&issuing.bundle()).unwrap();
        let ordered = in_order(&issuing, &both).unwrap();
        let expected = [issuing.certificate().clone(), other.certificate().clone()];
        assert_eq!(ordered.authorities(), expected);
        let error = in_order(&issuing, &other.bundle()).unwrap_err().to_string();
        assert!(error.contains(&root(&issuing)) && error.contains("bundle prepare"), "{error}");
    }

    #[test]
    fn every_member_of_the_table_must_be_ready() {
        let node = |number: u64| NodeId::new(number).unwrap();
        let error = ready(&[(node(1), None), (node(2), None)], "do not trust it", |_| true).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("0000000000000001, 0000000000000002 do not trust it"), "{text}");
        assert!(ready(&[], "do not trust it", |_| false).is_ok());
    }
}
