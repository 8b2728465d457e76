//! The driver of [`Traversal`]: candidates, messages, timers, and dials.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use x0_identity::NodeId;

use super::hints::{HintDials, Outcome};
use super::node::Shared;
use crate::datagram::{LinkFacts, PortId};
use crate::traversal::{Traversal, TraversalInput, TraversalOutput};

/// Between two looks at the nodes that this node has sent to.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks at the addresses of the machine.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(10);

/// The node's view of itself: what the engine was handed last.
#[derive(Default, PartialEq, Eq)]
struct View {
    own: Vec<SocketAddr>,
    neighbours: BTreeSet<NodeId>,
}

/// The addresses of the machine, if a port is bound to all of them.
struct Host {
    ports: Vec<SocketAddr>,
    addresses: Vec<SocketAddr>,
    looked_at: Option<Instant>,
}

impl Host {
    fn new(ports: Vec<SocketAddr>) -> Host {
        Host { ports, addresses: Vec::new(), looked_at: None }
    }

    /// The addresses of the ports. Those of the interfaces change when the machine moves.
    fn addresses(&mut self) -> &[SocketAddr] {
        let is_any = self.ports.iter().any(|port| port.ip().is_unspecified());
        let is_due = self.looked_at.is_none_or(|at| is_any && at.elapsed() >= INTERFACES_INTERVAL);
        if is_due {
            self.looked_at = Some(Instant::now());
            let interfaces = if is_any { if_addrs::get_if_addrs().unwrap_or_default() } else { Vec::new() };
            let ips: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).collect();
            self.addresses = self.ports.iter().flat_map(|port| host(*port, &ips)).collect();
        }
        &self.addresses
    }
}

/// The addresses at which other machines reach a port of this one, which has these IP addresses.
fn host(port: SocketAddr, ips: &[IpAddr]) -> Vec<SocketAddr> {
    if !port.ip().is_unspecified() {
        return vec![port];
    }
    let is_wanted = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => port.is_ipv4() && !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        // An address of the link alone needs the number of an interface of the other machine.
        IpAddr::V6(ip) => {
            port.is_ipv6() && !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified()
        }
    };
    ips.iter().filter(is_wanted).map(|ip| SocketAddr::new(*ip, port.port())).collect()
}

/// Seeks direct paths to nodes that this node sends to over relays, until the mesh is dropped. `addresses`
/// are those of the configuration, and then those of the ports.
pub(super) async fn traverse_always(
    shared: Weak<Shared>,
    mut engine: Traversal,
    mut dials: HintDials,
    [configured, ports]: [Vec<SocketAddr>; 2],
) {
    let mut host = Host::new(ports);
    let dialling: Vec<PortId> = dials.diallers().iter().map(|dialler| dialler.port).collect();
    let mut view = View::default();
    let mut look_at = Instant::now();
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let (changed, wanted, origin) =
            (Arc::clone(&strong.links_changed), Arc::clone(&strong.messages), strong.origin);
        // Before the look at the state: a change in between is not missed.
        let mut changed = pin!(changed.notified());
        let mut wanted = pin!(wanted.notified());
        let now = strong.now();
        let addresses = [&configured, host.addresses()];
        let has_relayed = look(&strong, &dialling, addresses, &mut view, &mut engine, &mut look_at);
        while let Some(output) = engine.poll_output() {
            match output {
                TraversalOutput::Send { to, bytes } => strong.lock().send_message(now, to, &bytes),
                TraversalOutput::Dial { address } => dials.dial(address),
            }
        }
        drop(strong);
        let due = engine.poll_timeout().map(|at| origin + at);
        let look = has_relayed.then_some(look_at);
        let mut sleep = pin!(due.into_iter().chain(look).min().map(sleep_until));
        poll_fn(|cx| {
            let is_due = sleep.as_mut().as_pin_mut().is_some_and(|sleep| sleep.poll(cx).is_ready());
            let now = origin.elapsed();
            if is_due {
                engine.handle(now, TraversalInput::Timeout);
            }
            let mut has_inputs = is_due;
            while let Poll::Ready(outcome) = dials.poll_outcome(cx) {
                has_inputs = true;
                let input = match outcome {
                    Outcome::Reached(address) => TraversalInput::Reached { address },
                    Outcome::Ended(address) => TraversalInput::Ended { address },
                };
                engine.handle(now, input);
            }
            has_inputs |= changed.as_mut().poll(cx).is_ready() | wanted.as_mut().poll(cx).is_ready();
            if has_inputs { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Hands in what has changed: whether there are nodes to look at later.
fn look(
    shared: &Shared,
    ports: &[PortId],
    addresses: [&[SocketAddr]; 2],
    view: &mut View,
    engine: &mut Traversal,
    look_at: &mut Instant,
) -> bool {
    let now = shared.now();
    let mut core = shared.lock();
    let links: Vec<LinkFacts> = core.engine.links().filter(|link| ports.contains(&link.port)).collect();
    let next = View { own: own(&links, addresses), neighbours: core.neighbours(ports) };
    if next.own != view.own {
        engine.handle(now, TraversalInput::Addresses { own: &next.own });
    }
    if next.neighbours != view.neighbours {
        let peers: Vec<NodeId> = next.neighbours.iter().copied().collect();
        engine.handle(now, TraversalInput::Neighbours { peers: &peers });
    }
    *view = next;
    core.traversal = Some(engine.stats());
    while let Some((from, bytes)) = core.messages.pop_front() {
        engine.handle(now, TraversalInput::Message { from, bytes: &bytes });
    }
    // The set fills again with the next datagrams: emptied once a second, it costs them little.
    if Instant::now() >= *look_at && !core.relayed.is_empty() {
        *look_at = Instant::now() + LOOK_INTERVAL;
        for peer in std::mem::take(&mut core.relayed) {
            engine.handle(now, TraversalInput::Relayed { peer });
        }
    }
    !core.relayed.is_empty()
}

/// The addresses at which this node may be reachable: those of the configuration, those at which neighbours
/// see it, the most frequent first, and those of its ports.
fn own(links: &[LinkFacts], [configured, local]: [&[SocketAddr]; 2]) -> Vec<SocketAddr> {
    let mut seen: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for address in links.iter().filter_map(|link| link.seen_as) {
        *seen.entry(address).or_default() += 1;
    }
    let mut seen: Vec<(usize, SocketAddr)> =
        seen.into_iter().map(|(address, count)| (count, address)).collect();
    seen.sort_unstable_by(|one, other| other.cmp(one));
    let mut own = Vec::new();
    let seen = seen.into_iter().map(|(_, address)| address);
    for address in configured.iter().copied().chain(seen).chain(local.iter().copied()) {
        if !own.contains(&address) {
            own.push(address);
        }
    }
    own
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_all_interfaces_has_their_addresses() {
        let ips: Vec<IpAddr> = [
            "127.0.0.1",
            "192.168.1.5",
            "169.254.7.7",
            "10.8.0.2",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "2001:db8::5",
            "fd00::5",
        ]
        .iter()
        .map(|ip| ip.parse().unwrap())
        .collect();
        for (port, expected) in [
            ("0.0.0.0:7001", &["192.168.1.5:7001", "10.8.0.2:7001"][..]),
            ("[::]:7002", &["[2001:db8::5]:7002", "[fd00::5]:7002"]),
            ("127.0.0.1:7003", &["127.0.0.1:7003"]),
            ("10.9.9.9:7004", &["10.9.9.9:7004"]),
        ] {
            let found: Vec<String> =
                host(port.parse().unwrap(), &ips).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{port}");
        }
    }

    #[test]
    fn the_addresses_of_the_machine_are_looked_up_for_ports_of_all_interfaces_only() {
        let fixed: SocketAddr = "192.0.2.1:7".parse().unwrap();
        let mut host = Host::new(vec![fixed]);
        assert_eq!(host.addresses(), [fixed]);
        let mut any = Host::new(vec!["0.0.0.0:9".parse().unwrap(), fixed]);
        let machine = any.addresses().to_vec();
        assert_eq!(machine.last(), Some(&fixed));
        assert!(
            machine.iter().rev().skip(1).all(|address| address.port() == 9 && !address.ip().is_loopback())
        );
        let configured: SocketAddr = "198.51.100.1:1".parse().unwrap();
        assert_eq!(own(&[], [&[configured, fixed], &[fixed]]), [configured, fixed]);
    }
}
