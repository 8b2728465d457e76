//! Links and paths as a node reports them.

use serde::{Deserialize, Serialize};
use x0_mesh::datagram::{LinkFacts, PathFacts};
use x0_mesh::liveness::LivenessState;
use x0_mesh::mesh::{Finding, Mesh};
use x0_mesh::router::RouteKind;

/// What a node reports of its mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) links: Vec<LinkRow>,
    pub(super) routes: Vec<RouteRow>,
    /// Bytes of datagrams of other nodes that this node sent on.
    pub(super) relayed_bytes: u64,
    /// Absent in the reports of older programs.
    #[serde(default)]
    pub(super) findings: Vec<FindingRow>,
}

/// What a node has found about the network: forged routes, destinations that do not answer, a full table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FindingRow {
    pub(super) finding: String,
    /// How often it was found.
    pub(super) count: u64,
    /// The time since it was found last.
    pub(super) age_s: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LinkRow {
    pub(super) peer: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) rtt_us: Option<u64>,
    pub(super) receive_ratio: Option<f64>,
    pub(super) send_ratio: Option<f64>,
    pub(super) metric: u32,
    pub(super) price: u16,
    pub(super) mtu: usize,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) control_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RouteRow {
    pub(super) destination: String,
    pub(super) next: String,
    /// Why this next hop is used: `best`, or `detour` while no route of the protocol is known.
    pub(super) why: String,
    pub(super) metric: u32,
    pub(super) price: u16,
    pub(super) region: u16,
    pub(super) mtu: usize,
    pub(super) backups: usize,
}

impl Report {
    pub(super) fn of(mesh: &Mesh) -> Report {
        let mut routes: Vec<RouteRow> = mesh.paths().iter().map(route).collect();
        routes.sort_by(|one, other| one.destination.cmp(&other.destination));
        Report {
            links: mesh.links().iter().map(link).collect(),
            routes,
            relayed_bytes: mesh.stats().relayed_bytes,
            findings: mesh.findings().iter().map(finding).collect(),
        }
    }
}

fn finding(finding: &Finding) -> FindingRow {
    FindingRow {
        finding: finding.report.to_string(),
        count: finding.count,
        age_s: finding.last_age.as_secs(),
    }
}

fn link(facts: &LinkFacts) -> LinkRow {
    let state = match facts.state {
        LivenessState::Up => "up",
        LivenessState::Degraded => "degraded",
        _ => "down",
    };
    LinkRow {
        peer: facts.peer.to_string(),
        address: facts.address.to_string(),
        state: state.into(),
        rtt_us: facts.rtt.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        receive_ratio: facts.receive_ratio,
        send_ratio: facts.send_ratio,
        metric: facts.cost.metric,
        price: facts.cost.price,
        mtu: facts.mtu,
        sent_bytes: facts.sent_bytes,
        received_bytes: facts.received_bytes,
        control_bytes: facts.control_bytes,
    }
}

fn route(facts: &PathFacts) -> RouteRow {
    let why = match facts.kind {
        RouteKind::Feasible => "best",
        _ => "detour",
    };
    RouteRow {
        destination: facts.destination.to_string(),
        next: facts.next.to_string(),
        why: why.into(),
        metric: facts.metric,
        price: facts.price,
        region: facts.region,
        mtu: facts.mtu,
        backups: facts.backups,
    }
}
