//! `x0-node doctor`: the health of a cluster as findings, each with its remedy.
//!
//! The status of every member comes over QUIC, with the client's identity. Links, SVIDs and disks are in the
//! metrics of the nodes, which the doctor reads from the HTTP listeners that it is given: without TLS on the
//! loopback, and with the client's SVID elsewhere.

mod scrape;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Serialize;

use self::scrape::Scrape;
use crate::cli::DoctorArgs;
use crate::client::Connection;
use crate::config::ClientConfig;
use crate::http::client;
use crate::identity;

/// The time in which a node must answer, including the connection.
const LIMIT: Duration = Duration::from_secs(3);
/// Thresholds, as in deploy/prometheus/rules.yml.
const LAG_MAX: u64 = 10_000;
const FSYNC_MAX: f64 = 0.1;
const LOSS_MAX: f64 = 0.05;
const SVID_LEFT_MIN: f64 = 3600.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Ok,
    Warning,
    Critical,
}

/// A result of the examination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    severity: Severity,
    /// The examined property.
    what: &'static str,
    /// The result, with the node concerned.
    result: String,
    /// Empty if there is nothing to do.
    remedy: &'static str,
}

/// A member, as far as the doctor reached it.
#[derive(Debug, Clone, Default)]
struct Member {
    node: String,
    address: String,
    status: Option<Reached>,
}

#[derive(Debug, Clone, Default)]
struct Reached {
    leader: Option<String>,
    committed: u64,
    applied: u64,
    is_short_of_space: bool,
    damage: u64,
}

/// Prints the findings. Returns whether none is critical.
pub(crate) async fn doctor(args: &DoctorArgs) -> Result<bool> {
    let config = ClientConfig::load(&args.config)?;
    let connection = Connection::open(&config).await?;
    let asked = config.members.iter().map(|member| connection.client().status(member.node, LIMIT)).collect();
    let statuses = crate::status::all(asked).await;
    let members = config.members.iter().zip(statuses).map(|(member, status)| Member {
        node: member.node.to_string(),
        address: member.address.to_string(),
        status: status.map(|status| Reached {
            leader: status.leader.map(|leader| leader.to_string()),
            committed: status.committed,
            applied: status.applied,
            is_short_of_space: status.space.is_short(),
            damage: status.scrub.damaged.saturating_sub(status.scrub.repaired) + status.scrub.diverged,
        }),
    });
    let members: Vec<Member> = members.collect();
    let unreached = connection.explain(anyhow::anyhow!("no node answered"));
    connection.close().await;
    if members.iter().all(|member| member.status.is_none()) && args.http.is_empty() && args.https.is_empty() {
        return Err(unreached);
    }
    let mut scrapes = Vec::new();
    let identity = identity::load(&config.trust_domain, &config.svid, &config.bundle)?;
    let tls = crate::client::tls(&config, &identity)?;
    let plain = args.http.iter().map(|address| (address, None));
    for (address, tls) in plain.chain(args.https.iter().map(|address| (address, Some(Arc::clone(&tls))))) {
        let text = client::text(*address, "/metrics", tls).await;
        scrapes.push((address.to_string(), text.map(|text| Scrape::parse(&text)).ok()));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut findings = of_members(&members);
    findings.extend(of_scrapes(&scrapes, now));
    let text = if args.json { format!("{}\n", serde_json::to_string(&findings)?) } else { table(&findings) };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(findings.iter().all(|finding| finding.severity < Severity::Critical))
}

fn finding(severity: Severity, what: &'static str, result: String, remedy: &'static str) -> Finding {
    let remedy = if severity == Severity::Ok { "" } else { remedy };
    Finding { severity, what, result, remedy }
}

/// What the statuses show.
fn of_members(members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let reached: Vec<(&Member, &Reached)> =
        members.iter().filter_map(|member| Some((member, member.status.as_ref()?))).collect();
    let majority = members.len() / 2 + 1;
    let severity = match reached.len() {
        all if all == members.len() => Severity::Ok,
        some if some > majority => Severity::Warning,
        _ => Severity::Critical,
    };
    let lost: Vec<String> = members
        .iter()
        .filter(|member| member.status.is_none())
        .map(|member| format!("{} at {}", member.node, member.address))
        .collect();
    let mut result = format!("{} of {} members answer", reached.len(), members.len());
    if !lost.is_empty() {
        result.push_str(&format!("; not reached: {}", lost.join(", ")));
    }
    findings.push(finding(
        severity,
        "members",
        result,
        "start the members that do not answer, or repair the network to them",
    ));
    let leader = reached.iter().find_map(|(_, status)| status.leader.clone());
    findings.push(finding(
        if leader.is_some() { Severity::Ok } else { Severity::Critical },
        "leader",
        leader.map_or_else(|| "no member knows a leader".into(), |leader| format!("{leader} is the leader")),
        "bring up a majority of the members; the election follows by itself",
    ));
    let committed = reached.iter().map(|(_, status)| status.committed).max().unwrap_or(0);
    let lag = reached.iter().map(|(member, status)| (committed.saturating_sub(status.applied), &member.node));
    if let Some((lag, node)) = lag.max() {
        findings.push(finding(
            if lag > LAG_MAX { Severity::Warning } else { Severity::Ok },
            "lag",
            format!("{node} lags most, by {lag} entries"),
            "wait until it has caught up; if the number grows, look at its CPU, its disk and its link",
        ));
    }
    let short: Vec<&str> = reached
        .iter()
        .filter(|(_, status)| status.is_short_of_space)
        .map(|(member, _)| member.node.as_str())
        .collect();
    findings.push(finding(
        if short.is_empty() { Severity::Ok } else { Severity::Critical },
        "space",
        match short.is_empty() {
            true => "every member that answers has free space".into(),
            false => format!("refuse writes for lack of space: {}", short.join(", ")),
        },
        "free some space on these disks; writes succeed again by themselves",
    ));
    let damaged: Vec<String> = reached
        .iter()
        .filter(|(_, status)| status.damage > 0)
        .map(|(member, status)| format!("{} ({})", member.node, status.damage))
        .collect();
    findings.push(finding(
        if damaged.is_empty() { Severity::Ok } else { Severity::Critical },
        "data",
        match damaged.is_empty() {
            true => "no damage is left".into(),
            false => format!("damaged entries or ranges: {}", damaged.join(", ")),
        },
        "wait for the scrub, which repairs from the others; replace the member if the number stays",
    ));
    findings
}

/// What the metrics show.
fn of_scrapes(scrapes: &[(String, Option<Scrape>)], now: f64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (address, _) in scrapes.iter().filter(|(_, scrape)| scrape.is_none()) {
        findings.push(finding(
            Severity::Warning,
            "metrics",
            format!("{address} does not answer /metrics"),
            "name an [[http]] listener with the route \"metrics\": --http without TLS, --https with `tls = \"mutual\"`",
        ));
    }
    let read: Vec<(&str, &Scrape)> =
        scrapes.iter().filter_map(|(address, scrape)| Some((address.as_str(), scrape.as_ref()?))).collect();
    if read.is_empty() {
        findings.push(finding(
            Severity::Warning,
            "metrics",
            "links, SVIDs and disks were not examined".into(),
            "pass --http or --https with the address of an [[http]] listener of each node",
        ));
        return findings;
    }
    let links = read.iter().flat_map(|(address, scrape)| {
        scrape.peers.iter().map(move |(peer, link)| (link, format!("from {address} to {peer}")))
    });
    let links: Vec<_> = links.collect();
    if let Some((link, name)) = links
        .iter()
        .filter(|(link, _)| link.rtt.is_finite())
        .max_by(|(one, _), (other, _)| one.rtt.total_cmp(&other.rtt))
    {
        let text = format!("the slowest is {name}, {:.1} ms", link.rtt * 1e3);
        findings.push(finding(Severity::Ok, "links", text, ""));
    }
    for (link, name) in &links {
        if !link.is_up {
            let remedy = "start the peer, or repair the network and the identities between the two";
            findings.push(finding(Severity::Critical, "links", format!("{name} is down"), remedy));
        } else if link.loss > LOSS_MAX {
            let text = format!("{name} loses {:.0} % of the packets", link.loss * 100.0);
            let remedy = "look for the hop or the interface that drops packets";
            findings.push(finding(Severity::Warning, "links", text, remedy));
        }
    }
    let svids = read.iter().filter_map(|(address, scrape)| Some((scrape.svid_not_after? - now, *address)));
    if let Some((left, address)) = svids.min_by(|one, other| one.0.total_cmp(&other.0)) {
        findings.push(finding(
            if left < SVID_LEFT_MIN { Severity::Critical } else { Severity::Ok },
            "identity",
            match left > 0.0 {
                true => format!("the oldest SVID is that of {address}, valid for {:.0} min", left / 60.0),
                false => format!("the SVID of {address} has expired"),
            },
            "issue a new one (x0-node issue --node) into the folder of the node, which notices it",
        ));
    }
    let disks = read.iter().filter_map(|(address, scrape)| Some((scrape.fsync_p99?, *address)));
    if let Some((p99, address)) = disks.max_by(|one, other| one.0.total_cmp(&other.0)) {
        findings.push(finding(
            if p99 > FSYNC_MAX { Severity::Warning } else { Severity::Ok },
            "disk",
            format!("a durable write takes {:.1} ms (p99) on the slowest disk, that of {address}", p99 * 1e3),
            "move other writers off that disk, or transfer the leadership to a member with a faster one",
        ));
    }
    findings
}

fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let sign = match finding.severity {
            Severity::Ok => "ok      ",
            Severity::Warning => "warning ",
            Severity::Critical => "CRITICAL",
        };
        text.push_str(&format!("{sign}  {:<9}  {}\n", finding.what, finding.result));
        if !finding.remedy.is_empty() {
            text.push_str(&format!("{:21}remedy: {}\n", "", finding.remedy));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64, applied: u64) -> Member {
        let status = Reached { leader: Some("1".into()), committed: 50_000, applied, ..Reached::default() };
        Member { node: number.to_string(), address: format!("10.0.0.{number}:7"), status: Some(status) }
    }

    fn worst(findings: &[Finding], what: &str) -> Severity {
        findings.iter().filter(|finding| finding.what == what).map(|finding| finding.severity).max().unwrap()
    }

    #[test]
    fn members_are_judged() {
        let mut members = vec![member(1, 50_000), member(2, 49_900), member(3, 50_000)];
        assert!(of_members(&members).iter().all(|finding| finding.severity == Severity::Ok));
        members[1].status.as_mut().unwrap().applied = 39_999;
        members[2].status.as_mut().unwrap().is_short_of_space = true;
        let findings = of_members(&members);
        assert_eq!(worst(&findings, "lag"), Severity::Warning);
        assert_eq!(worst(&findings, "space"), Severity::Critical);
        assert!(findings.iter().all(|found| found.severity == Severity::Ok || !found.remedy.is_empty()));
        // Two of three: the next loss ends the quorum.
        members[1].status = None;
        let findings = of_members(&members);
        assert_eq!(worst(&findings, "members"), Severity::Critical);
        assert!(findings[0].result.contains("not reached: 2 at 10.0.0.2:7"), "{findings:?}");
        for member in &mut members {
            member.status = None;
        }
        assert_eq!(worst(&of_members(&members), "leader"), Severity::Critical);
        // One of five is a warning.
        let mut five: Vec<Member> = (1..=5).map(|number| member(number, 50_000)).collect();
        five[4].status = None;
        assert_eq!(worst(&of_members(&five), "members"), Severity::Warning);
        assert!(table(&of_members(&five)).contains("remedy: start the members"));
    }

    #[test]
    fn metrics_are_judged() {
        let text = "x0_mesh_peer_up{peer=\"02\"} 1\nx0_mesh_peer_rtt_seconds{peer=\"02\"} 0.2\n\
                    x0_mesh_peer_loss_ratio{peer=\"02\",direction=\"sent\"} 0.5\nx0_mesh_peer_up{peer=\"03\"} 0\n\
                    x0_mesh_peer_rtt_seconds{peer=\"03\"} NaN\nx0_identity_svid_not_after_seconds 1000\n\
                    x0_consensus_log_write_seconds_bucket{le=\"0.1\"} 50\n\
                    x0_consensus_log_write_seconds_bucket{le=\"0.2\"} 100\n\
                    x0_consensus_log_write_seconds_bucket{le=\"+Inf\"} 100\n";
        let scrapes = [("a".to_owned(), Some(Scrape::parse(text))), ("b".to_owned(), None)];
        let findings = of_scrapes(&scrapes, 900.0);
        let has = |severity, text: &str| {
            let found =
                findings.iter().any(|found| found.severity == severity && found.result.contains(text));
            assert!(found, "{text}: {findings:#?}");
        };
        has(Severity::Warning, "b does not answer");
        has(Severity::Ok, "the slowest is from a to 02, 200.0 ms");
        has(Severity::Warning, "from a to 02 loses 50 %");
        has(Severity::Critical, "from a to 03 is down");
        has(Severity::Critical, "that of a, valid for 2 min");
        has(Severity::Warning, "198.0 ms (p99)");
        assert_eq!(worst(&of_scrapes(&[], 0.0), "metrics"), Severity::Warning);
    }
}
