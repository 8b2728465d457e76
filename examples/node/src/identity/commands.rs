//! `x0-node identity`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use x0_identity::{NodeId, TrustDomain};

use super::report::{Report, SERVICE};
use super::{load_bundle, load_svid};
use crate::causes::causes;
use crate::client::Services;
use crate::config::ClientConfig;
use crate::log::timestamp;
use crate::report::Asker;

/// The time in which a node must answer, including the connection.
pub(super) const LIMIT: Duration = Duration::from_secs(3);
/// The time between two tables of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct IdentityArgs {
    /// The client's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Print again every two seconds, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    /// Print JSON, one line each time
    #[arg(long)]
    pub(crate) json: bool,
}

/// One process: a node that was asked, or this command.
#[derive(Debug, Serialize)]
struct Row {
    /// `None` is this command.
    node: Option<String>,
    /// `None` of a node that did not answer.
    #[serde(flatten)]
    report: Option<Report>,
}

/// Prints the identities of this command and of every node. An error if no node answers.
pub(crate) async fn identity(args: &IdentityArgs) -> Result<()> {
    let config = ClientConfig::load(&args.config)?;
    let services = Services::open(&config)?;
    let (mut asker, mut unread) = (services.asker(SERVICE)?, Unread::default());
    loop {
        let mut rows = vec![Row { node: None, report: Some(own(&config)?) }];
        let nodes = config.members.iter().map(|member| member.node);
        for (node, report) in ask_all(&mut asker, nodes, &mut unread).await? {
            rows.push(Row { node: Some(node.to_string()), report });
        }
        let text = if args.json {
            format!("{}\n", serde_json::to_string(&rows)?)
        } else {
            table(&rows, SystemTime::now())
        };
        std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
        if !args.watch {
            if rows.iter().all(|row| row.node.is_none() || row.report.is_none()) {
                return Err(services.unanswered(LIMIT));
            }
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The report of a node; `None` if it does not answer in time.
pub(super) async fn ask(asker: &mut Asker, node: NodeId, limit: Duration) -> Result<Option<Report>> {
    tokio::time::timeout(limit, asker.report(node)).await.ok().transpose()
}

/// The errors of nodes that a command has named: one that asks again and again names each once.
#[derive(Debug, Default)]
pub(super) struct Unread(BTreeSet<(NodeId, String)>);

impl Unread {
    /// The line for an error; `None` if it was named before.
    fn line(&mut self, node: NodeId, error: &anyhow::Error) -> Option<String> {
        let error = causes(error);
        let line = format!("node {node} is left out: {error}");
        self.0.insert((node, error)).then_some(line)
    }
}

/// The reports of nodes, in their order; `None` of one that does not answer in time, or whose answer cannot
/// be read, which standard error says.
pub(super) async fn ask_all(
    asker: &mut Asker,
    nodes: impl Iterator<Item = NodeId> + Clone,
    unread: &mut Unread,
) -> Result<Vec<(NodeId, Option<Report>)>> {
    let mut answers = asker.ask_all(nodes.clone(), b"", LIMIT).await?;
    let mut report = |node: NodeId| {
        let error = match answers.remove(&node)? {
            Ok(report) => return Some(report),
            Err(error) => error,
        };
        if let Some(line) = unread.line(node, &error) {
            eprintln!("{line}");
        }
        None
    };
    Ok(nodes.map(|node| (node, report(node))).collect())
}

fn own(config: &ClientConfig) -> Result<Report> {
    let trust_domain: TrustDomain = config.trust_domain.parse().context("the trust domain is not valid")?;
    let svid = load_svid(&trust_domain, &config.svid)?;
    Ok(Report::of_files(&svid, &load_bundle(trust_domain, &config.bundle)?))
}

fn table(rows: &[Row], now: SystemTime) -> String {
    let mut text = format!(
        "{:<16}  {:<50}  {:<20}  {:<16}  {:<20}  {}\n",
        "node", "SPIFFE ID", "valid until", "signed by", "next renewal", "state"
    );
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for row in rows {
        let node = row.node.as_deref().unwrap_or("this command");
        let Some(report) = &row.report else {
            text.push_str(&format!(
                "{node:<16}  {:<50}  {:<20}  {:<16}  {:<20}  no answer\n",
                "-", "-", "-", "-"
            ));
            continue;
        };
        let signed_by = report.signed_by.as_deref().unwrap_or("-");
        let next = report.next_renewal.map_or_else(|| "-".to_owned(), moment);
        text.push_str(&format!(
            "{node:<16}  {:<50}  {:<20}  {signed_by:<16}  {next:<20}  {}\n",
            report.spiffe_id,
            moment(report.valid_until),
            state(report, now)
        ));
    }
    text
}

fn state(report: &Report, now: u64) -> String {
    let left = report.valid_until.saturating_sub(now);
    match (&report.failure, &report.signed_by) {
        _ if now > report.valid_until => "expired: issue a new SVID".to_owned(),
        (Some(failure), _) => format!("not renewed: {failure}"),
        (None, None) => "signed by an authority that left the bundle: renew the SVID".to_owned(),
        (None, Some(_)) if report.next_renewal.is_none() && left < 24 * 3600 => {
            "expires within a day, and nothing renews it".to_owned()
        }
        (None, Some(_)) => "ok".to_owned(),
    }
}

/// A moment in whole seconds.
pub(crate) fn moment(seconds: u64) -> String {
    let text = timestamp(u128::from(seconds) * 1000);
    format!("{}Z", text.split_once('.').map_or(text.as_str(), |(whole, _)| whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            spiffe_id: "spiffe://example.org/node/0000000000000001".into(),
            valid_until: 2_000_000_000,
            signed_by: Some("0011223344556677".into()),
            next_renewal: Some(1_999_990_000),
            failure: None,
            authorities: Vec::new(),
            revocations: Vec::new(),
            federation: Default::default(),
        }
    }

    #[test]
    fn an_error_of_a_node_is_named_once() {
        let [one, two] = [1, 2].map(|number| NodeId::new(number).unwrap());
        let (parse, ask) = (anyhow::anyhow!("cannot parse"), anyhow::anyhow!("cannot ask"));
        let mut unread = Unread::default();
        let line = unread.line(one, &parse).unwrap();
        assert_eq!(line, format!("node {one} is left out: cannot parse"));
        assert_eq!(unread.line(one, &parse), None);
        assert!(unread.line(two, &parse).is_some() && unread.line(one, &ask).is_some());
        assert_eq!(unread.line(one, &parse), None);
    }

    #[test]
    fn each_state_has_its_words() {
        let check = |change: fn(&mut Report), now: u64, expect: &str| {
            let mut report = report();
            change(&mut report);
            let state = state(&report, now);
            assert!(state.contains(expect), "{state}");
        };
        check(|_| {}, 1_999_000_000, "ok");
        check(|_| {}, 2_000_000_000, "ok");
        check(|_| {}, 2_000_000_001, "expired");
        check(|report| report.failure = Some("no answer".into()), 1_999_000_000, "not renewed: no answer");
        check(|report| report.signed_by = None, 1_999_000_000, "left the bundle");
        check(|report| report.next_renewal = None, 1_999_950_000, "within a day");
        check(|report| report.next_renewal = None, 1_999_000_000, "ok");
    }

    #[test]
    fn the_table_has_a_line_for_each_process() {
        let rows = [
            Row { node: None, report: Some(report()) },
            Row { node: Some("0000000000000002".into()), report: None },
        ];
        let text = table(&rows, UNIX_EPOCH + Duration::from_secs(1_999_000_000));
        assert!(text.contains("this command      spiffe://example.org/node/0000000000000001"), "{text}");
        assert!(text.contains("2033-05-18T03:33:20Z  0011223344556677  2033-05-18T00:46:40Z  ok"), "{text}");
        assert!(text.lines().nth(2).unwrap().ends_with("no answer"), "{text}");
        let json = serde_json::to_string(&rows).unwrap();
        assert!(
            json.contains("\"node\":null,\"spiffe_id\"") && json.contains("{\"node\":\"0000000000000002\"}"),
            "{json}"
        );
    }
}
