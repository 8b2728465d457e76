//! `x0-node mesh routes|links|findings|trace`.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use x0_identity::NodeId;

use super::cli::{MeshArgs, MeshCommand};
use super::rows::{FindingRow, LinkRow, Report, RouteRow};
use super::service::Asker;
use crate::client::Services;
use crate::config::ClientConfig;

/// The time in which a node must answer, including the connection.
const LIMIT: Duration = Duration::from_secs(3);
const HOPS_MAX: usize = 32;

/// A row with the node that reported it.
#[derive(Debug, Serialize)]
struct Of<'a, R> {
    node: String,
    #[serde(flatten)]
    row: &'a R,
}

/// Asks the nodes of the configuration and prints what they report. An error if none answers.
pub(crate) async fn mesh(args: MeshArgs) -> Result<()> {
    let path = args.config.context("the command needs --config FILE, the configuration of a client")?;
    let config = ClientConfig::load(&path)?;
    let services = Services::open(&config)?;
    let mut asker = Asker::new(&services)?;
    let (reports, failures) =
        split(asker.reports(config.members.iter().map(|member| member.node), LIMIT).await?);
    std::io::stderr().lock().write_all(failures.as_bytes()).context("cannot write to standard error")?;
    if reports.is_empty() {
        return Err(services.unanswered(LIMIT));
    }
    let reports: BTreeMap<NodeId, Report> =
        reports.into_iter().filter_map(|(node, report)| Some((node, report?))).collect();
    if reports.is_empty() {
        bail!("no node has [[links]]: the nodes connect directly, and there is no mesh to show");
    }
    let text = match args.command {
        MeshCommand::Links => {
            let rows: Vec<Of<'_, LinkRow>> = rows(&reports, |report| &report.links);
            if args.json { json(&rows)? } else { links(&rows) }
        }
        MeshCommand::Routes => {
            let rows: Vec<Of<'_, RouteRow>> = rows(&reports, |report| &report.routes);
            if args.json { json(&rows)? } else { routes(&rows) }
        }
        MeshCommand::Findings => {
            let rows: Vec<Of<'_, FindingRow>> = rows(&reports, |report| &report.findings);
            if args.json { json(&rows)? } else { findings(&rows) }
        }
        MeshCommand::Trace { node, from } => {
            let from = from.unwrap_or(config.members[0].node);
            let rows = trace(&reports, from, node)?;
            if args.json { json(&rows)? } else { routes(&rows) }
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// The reports, and a line for each answer that is none: another version of the program may run on a node,
/// and the others have answered all the same.
fn split(answers: BTreeMap<NodeId, Result<Option<Report>>>) -> (BTreeMap<NodeId, Option<Report>>, String) {
    let (mut reports, mut failures) = (BTreeMap::new(), String::new());
    for (node, answer) in answers {
        match answer {
            Ok(report) => {
                reports.insert(node, report);
            }
            Err(error) => {
                failures.push_str(&format!("node {node} is left out, check its version: {error:#}\n"));
            }
        }
    }
    (reports, failures)
}

fn json<R: Serialize>(rows: &[R]) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string(rows)?))
}

fn rows<'a, R>(
    reports: &'a BTreeMap<NodeId, Report>,
    of: impl Fn(&'a Report) -> &'a Vec<R>,
) -> Vec<Of<'a, R>> {
    let each = |(node, report): (&NodeId, &'a Report)| {
        let node = node.to_string();
        of(report).iter().map(move |row| Of { node: node.clone(), row }).collect::<Vec<_>>()
    };
    reports.iter().flat_map(each).collect()
}

/// The routes that a datagram takes, one for each hop.
fn trace(reports: &BTreeMap<NodeId, Report>, from: NodeId, to: NodeId) -> Result<Vec<Of<'_, RouteRow>>> {
    let mut hops = Vec::new();
    let mut at = from;
    while at != to {
        if hops.len() == HOPS_MAX {
            bail!(
                "the way from {from} to {to} has more than {HOPS_MAX} hops: ask again, routes are changing"
            );
        }
        let Some(report) = reports.get(&at) else {
            bail!(
                "the way from {from} to {to} leads over {at}, which did not answer: add it to the configuration, or start it"
            );
        };
        let destination = to.to_string();
        let Some(row) = report.routes.iter().find(|row| row.destination == destination) else {
            bail!("{at} has no route to {to}: check its links with `x0-node mesh links`");
        };
        hops.push(Of { node: at.to_string(), row });
        at = row.next.parse().with_context(|| format!("{at} reports an invalid next hop"))?;
    }
    Ok(hops)
}

fn links(rows: &[Of<'_, LinkRow>]) -> String {
    let mut text = format!(
        "{:<16}  {:<16}  {:<21}  {:<8}  {:>8}  {:>8}  {:>6}  {:>5}  {:>12}  {:>12}\n",
        "node", "peer", "address", "state", "rtt us", "arrives", "metric", "mtu", "sent", "received"
    );
    for Of { node, row } in rows {
        let rtt = row.rtt_us.map_or_else(|| "-".to_owned(), |rtt| rtt.to_string());
        let arrives =
            row.receive_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.0} %", ratio * 100.0));
        text.push_str(&format!(
            "{node:<16}  {:<16}  {:<21}  {:<8}  {rtt:>8}  {arrives:>8}  {:>6}  {:>5}  {:>12}  {:>12}\n",
            row.peer, row.address, row.state, row.metric, row.mtu, row.sent_bytes, row.received_bytes
        ));
    }
    text
}

fn findings(rows: &[Of<'_, FindingRow>]) -> String {
    let mut text = format!("{:<16}  {:>6}  {:>9}  {}\n", "node", "count", "s ago", "finding");
    for Of { node, row } in rows {
        text.push_str(&format!("{node:<16}  {:>6}  {:>9}  {}\n", row.count, row.age_s, row.finding));
    }
    text
}

fn routes(rows: &[Of<'_, RouteRow>]) -> String {
    let mut text = format!(
        "{:<16}  {:<16}  {:<16}  {:<6}  {:>6}  {:>5}  {:>5}  {:>7}  {:>6}\n",
        "node", "destination", "next hop", "why", "metric", "price", "mtu", "backups", "region"
    );
    for Of { node, row } in rows {
        text.push_str(&format!(
            "{node:<16}  {:<16}  {:<16}  {:<6}  {:>6}  {:>5}  {:>5}  {:>7}  {:>6}\n",
            row.destination, row.next, row.why, row.metric, row.price, row.mtu, row.backups, row.region
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn report(ways: &[(u64, u64)]) -> Report {
        let routes = ways.iter().map(|(to, next)| RouteRow {
            destination: node(*to).to_string(),
            next: node(*next).to_string(),
            why: "best".into(),
            metric: 256,
            price: 0,
            region: 0,
            mtu: 1200,
            backups: 1,
        });
        Report { links: Vec::new(), routes: routes.collect(), relayed_bytes: 0, findings: Vec::new() }
    }

    #[test]
    fn a_node_with_another_format_is_left_out() {
        let broken =
            serde_json::from_str::<Option<Report>>("{\"links\": 7}").context("cannot parse the answer");
        let answers =
            BTreeMap::from([(node(1), Ok(None)), (node(2), broken), (node(3), Ok(Some(report(&[]))))]);
        let (reports, failures) = split(answers);
        assert_eq!(reports.keys().copied().collect::<Vec<_>>(), [node(1), node(3)]);
        assert!(failures.contains(&node(2).to_string()) && failures.contains("cannot parse"), "{failures}");
        assert_eq!(failures.lines().count(), 1);
    }

    #[test]
    fn findings_are_a_table_and_may_be_absent() {
        let old: Report = serde_json::from_str("{\"links\":[],\"routes\":[],\"relayed_bytes\":7}").unwrap();
        assert_eq!((old.relayed_bytes, old.findings.len()), (7, 0));
        let row = FindingRow { finding: "a member forges routes".into(), count: 3, age_s: 12 };
        let text = findings(&[Of { node: node(2).to_string(), row: &row }]);
        let last: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last[1..4], ["3", "12", "a"]);
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_trace_follows_the_next_hops() {
        let reports = BTreeMap::from([(node(1), report(&[(3, 2)])), (node(2), report(&[(3, 3)]))]);
        let hops = trace(&reports, node(1), node(3)).unwrap();
        assert_eq!(
            hops.iter().map(|hop| hop.node.clone()).collect::<Vec<_>>(),
            [1, 2].map(|n| node(n).to_string())
        );
        assert!(routes(&hops).lines().count() == 3 && json(&hops).unwrap().contains("\"next\""));
        let refused = |from, to| trace(&reports, node(from), node(to)).map(|_| ()).unwrap_err().to_string();
        assert!(refused(1, 9).contains("no route"));
        assert!(refused(7, 3).contains("did not answer"));
        let turning = BTreeMap::from([(node(1), report(&[(3, 2)])), (node(2), report(&[(3, 1)]))]);
        assert!(trace(&turning, node(1), node(3)).map(|_| ()).unwrap_err().to_string().contains("32 hops"));
    }
}
