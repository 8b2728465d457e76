//! The gauges of the links and paths of a mesh.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, counter, gauge};
use x0_identity::NodeId;

use crate::datagram::{DatagramStats, LinkFacts, PathFacts, PortId};
use crate::liveness::LivenessState;
use crate::mesh::Mesh;
use crate::router::RouterStats;

/// Links and destinations that get series of their own, the first ones that are seen.
const LINKS_MAX: usize = 512;
const DESTINATIONS_MAX: usize = 512;
/// Next hops of one destination that get a series of their own.
const HOPS_MAX: usize = 8;

/// A link by its port, its neighbour and its number.
type LinkKey = (PortId, NodeId, u8);

/// The gauges of the links and paths of a [`Mesh`], set when they are published: a node that nobody reads
/// does no work for them.
///
/// A link or path that is gone has `up` 0, an MTU of 0, and NaN for what is measured. Only the first 512
/// links, the first 512 destinations and the first 8 next hops of each have series.
#[derive(Debug, Default)]
pub struct PathGauges {
    links: BTreeMap<LinkKey, LinkGauges>,
    destinations: BTreeMap<NodeId, Destination>,
    totals: Option<Totals>,
}

#[derive(Debug)]
struct LinkGauges {
    up: Gauge,
    rtt: Gauge,
    quality: [Gauge; 2],
    /// Sent, received, and control bytes of those sent.
    bytes: [Counter; 3],
    /// What they were at the last publication.
    before: [u64; 3],
    mtu: Gauge,
}

impl LinkGauges {
    fn new((port, peer, number): LinkKey) -> LinkGauges {
        let (peer, port, link) = (peer.to_string(), port.0.to_string(), number.to_string());
        let ways = ["sent", "received"];
        let [sent, received] = ways.map(|way| {
            counter!("x0_mesh_link_bytes_total", "peer" => peer.clone(), "port" => port.clone(), "link" => link.clone(), "direction" => way)
        });
        let control = counter!("x0_mesh_link_control_bytes_total", "peer" => peer.clone(), "port" => port.clone(), "link" => link.clone());
        LinkGauges {
            up: gauge!("x0_mesh_link_up", "peer" => peer.clone(), "port" => port.clone(), "link" => link.clone()),
            rtt: gauge!("x0_mesh_link_rtt_seconds", "peer" => peer.clone(), "port" => port.clone(), "link" => link.clone()),
            quality: ways.map(|way| {
                gauge!("x0_mesh_link_quality", "peer" => peer.clone(), "port" => port.clone(), "link" => link.clone(), "direction" => way)
            }),
            bytes: [sent, received, control],
            before: [0; 3],
            mtu: gauge!("x0_mesh_link_mtu_bytes", "peer" => peer, "port" => port, "link" => link),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn set(&mut self, link: Option<&LinkFacts>) {
        let is_up = link.is_some_and(|link| link.state == LivenessState::Up);
        self.up.set(f64::from(u8::from(is_up)));
        self.mtu.set(link.map_or(0.0, |link| link.mtu as f64));
        let ratios = link.map_or([None; 2], |link| [link.send_ratio, link.receive_ratio]);
        for (gauge, ratio) in self.quality.iter().zip(ratios) {
            gauge.set(ratio.unwrap_or(f64::NAN));
        }
        let rtt = link.and_then(|link| link.rtt);
        self.rtt.set(rtt.map_or(f64::NAN, |rtt| rtt.as_secs_f64()));
        if let Some(link) = link {
            let now = [link.sent_bytes, link.received_bytes, link.control_bytes];
            for ((counter, before), now) in self.bytes.iter().zip(&mut self.before).zip(now) {
                // The counts of a link begin again when it ends and is made again.
                counter.increment(now.checked_sub(*before).unwrap_or(now));
                *before = now;
            }
        }
    }
}

#[derive(Debug)]
struct Destination {
    metric: Gauge,
    mtu: Gauge,
    backups: Gauge,
    /// 1 for the one in use.
    hops: BTreeMap<NodeId, Gauge>,
}

impl Destination {
    fn new(destination: NodeId) -> Destination {
        let peer = destination.to_string();
        Destination {
            metric: gauge!("x0_mesh_path_metric", "peer" => peer.clone()),
            mtu: gauge!("x0_mesh_path_mtu_bytes", "peer" => peer.clone()),
            backups: gauge!("x0_mesh_path_backups", "peer" => peer),
            hops: BTreeMap::new(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn set(&mut self, destination: NodeId, path: Option<&PathFacts>) {
        self.metric.set(path.map_or(f64::NAN, |path| f64::from(path.metric)));
        self.mtu.set(path.map_or(0.0, |path| path.mtu as f64));
        self.backups.set(path.map_or(0.0, |path| path.backups as f64));
        if let Some(next) = path.map(|path| path.next)
            && self.hops.len() < HOPS_MAX
        {
            self.hops.entry(next).or_insert_with(|| {
                gauge!("x0_mesh_path_next_hop", "peer" => destination.to_string(), "next" => next.to_string())
            });
        }
        for (hop, gauge) in &self.hops {
            gauge.set(f64::from(u8::from(path.is_some_and(|path| path.next == *hop))));
        }
    }
}

/// The label `cause` of failovers.
const CAUSES: [&str; 3] = ["link_down", "link_degraded", "withdrawn"];

#[derive(Debug)]
struct Totals {
    relayed_bytes: Counter,
    dropped: [Counter; 5],
    flood_too_long: Counter,
    unanswered: Counter,
    forged_seqnos: Counter,
    route_changes: Counter,
    failovers: [Counter; 3],
}

/// The label `reason` of dropped datagrams.
const REASONS: [&str; 5] = ["no_route", "relay_refused", "hop_limit", "too_long", "unlabelled"];

impl Totals {
    fn new() -> Totals {
        Totals {
            relayed_bytes: counter!("x0_mesh_relayed_bytes_total"),
            dropped: REASONS.map(|reason| counter!("x0_mesh_path_dropped_total", "reason" => reason)),
            flood_too_long: counter!("x0_mesh_flood_too_long_total"),
            unanswered: counter!("x0_mesh_unanswered_total"),
            forged_seqnos: counter!("x0_mesh_forged_seqnos_total"),
            route_changes: counter!("x0_mesh_route_changes_total"),
            failovers: CAUSES.map(|cause| counter!("x0_mesh_failovers_total", "cause" => cause)),
        }
    }

    fn set(&self, stats: &DatagramStats, router: &RouterStats) {
        self.flood_too_long.absolute(stats.flood_too_long);
        self.unanswered.absolute(stats.unanswered);
        self.forged_seqnos.absolute(router.forged_seqnos);
        self.route_changes.absolute(router.route_changes);
        let failovers =
            [router.failovers.link_down, router.failovers.link_degraded, router.failovers.withdrawn];
        for (counter, count) in self.failovers.iter().zip(failovers) {
            counter.absolute(count);
        }
        self.relayed_bytes.absolute(stats.relayed_bytes);
        let counts = [stats.no_route, stats.relay_refused, stats.hop_limit, stats.too_long, stats.unlabelled];
        for (counter, count) in self.dropped.iter().zip(counts) {
            counter.absolute(count);
        }
    }
}

impl PathGauges {
    /// Gauges of the recorder that is installed when a link or a path is first published.
    #[must_use]
    pub fn new() -> PathGauges {
        PathGauges::default()
    }

    /// Sets the gauges to the present state of a mesh, always of the same one. May be called on any thread.
    pub fn publish(&mut self, mesh: &Mesh) {
        let links: BTreeMap<_, _> =
            mesh.links().into_iter().map(|link| ((link.port, link.peer, link.number), link)).collect();
        for key in links.keys() {
            if self.links.len() < LINKS_MAX {
                self.links.entry(*key).or_insert_with(|| LinkGauges::new(*key));
            }
        }
        for (key, gauges) in &mut self.links {
            gauges.set(links.get(key));
        }
        let paths: BTreeMap<_, _> = mesh.paths().into_iter().map(|path| (path.destination, path)).collect();
        for destination in paths.keys() {
            if self.destinations.len() < DESTINATIONS_MAX {
                self.destinations.entry(*destination).or_insert_with(|| Destination::new(*destination));
            }
        }
        for (destination, gauges) in &mut self.destinations {
            gauges.set(*destination, paths.get(destination));
        }
        self.totals.get_or_insert_with(Totals::new).set(&mesh.stats(), &mesh.router_stats());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    /// Each count has a number of its own, so that no counter can have the value of another.
    #[test]
    #[allow(clippy::panic, reason = "a test fails by panicking")]
    fn each_total_has_its_counter() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let mut stats = DatagramStats {
            relayed_bytes: 1,
            no_route: 2,
            relay_refused: 3,
            hop_limit: 4,
            ..DatagramStats::default()
        };
        (stats.too_long, stats.unlabelled, stats.flood_too_long, stats.unanswered) = (5, 6, 7, 8);
        let mut router = RouterStats { forged_seqnos: 9, route_changes: 10, ..RouterStats::default() };
        router.failovers.link_down = 11;
        router.failovers.link_degraded = 12;
        router.failovers.withdrawn = 13;
        metrics::with_local_recorder(&recorder, || Totals::new().set(&stats, &router));
        let found = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
            let DebugValue::Counter(count) = value else { panic!("{key:?} is no counter") };
            let labels: String = key.key().labels().map(|label| format!(" {}", label.value())).collect();
            (count, format!("{}{labels}", key.key().name()))
        });
        let found: BTreeMap<u64, String> = found.collect();
        let names = [
            "relayed_bytes_total",
            "path_dropped_total no_route",
            "path_dropped_total relay_refused",
            "path_dropped_total hop_limit",
            "path_dropped_total too_long",
            "path_dropped_total unlabelled",
            "flood_too_long_total",
            "unanswered_total",
            "forged_seqnos_total",
            "route_changes_total",
            "failovers_total link_down",
            "failovers_total link_degraded",
            "failovers_total withdrawn",
        ];
        let expected = (1..).zip(names.map(|name| format!("x0_mesh_{name}")));
        assert_eq!(found, expected.collect());
    }
}
