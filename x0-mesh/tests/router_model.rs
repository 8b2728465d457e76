//! Routers in every connected network of up to five nodes, under stateright's model checker: any message in
//! flight may be delivered next, lost, or delivered twice; links are cut and healed, nodes restart without
//! their state. In each state that is reached, routes have no loop and feasibility distances fall along them.
//!
//! The search is breadth-first from converged networks and bounded: for each network `STATES_MAX` states are
//! made, and all of them are checked. `X0_MODEL_STATES=200000 cargo test --release -p x0-mesh --all-features
//! --test router_model -- --nocapture` searches deeper; it prints how many states it has seen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stateright::{Checker, Model, Property};
use x0_identity::NodeId;
use x0_mesh::router::{Input, LinkCost, LinkId, Output, Packet, Router, RouterOptions, route_faults};

const SECOND: Duration = Duration::from_secs(1);
/// States that are made of one network, unless the environment variable `X0_MODEL_STATES` has another number.
const STATES_MAX: usize = 6000;

fn states_max() -> usize {
    std::env::var("X0_MODEL_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(STATES_MAX)
}

type Pair = (usize, usize);
/// Link, receiver, bytes.
type Message = (usize, usize, Arc<[u8]>);

fn node(at: usize) -> NodeId {
    NodeId::new(at as u64 + 1).unwrap()
}

fn pairs(nodes: usize) -> Vec<Pair> {
    (0..nodes).flat_map(|one| (one + 1..nodes).map(move |other| (one, other))).collect()
}

fn is_connected(nodes: usize, links: &BTreeSet<Pair>) -> bool {
    let mut reached = BTreeSet::from([0]);
    while let Some((one, other)) =
        links.iter().find(|(one, other)| reached.contains(one) != reached.contains(other))
    {
        reached.extend([*one, *other]);
    }
    reached.len() == nodes
}

fn permutations(items: Vec<usize>) -> Vec<Vec<usize>> {
    if items.len() < 2 {
        return vec![items];
    }
    let mut all = Vec::new();
    for position in 0..items.len() {
        let mut rest = items.clone();
        let first = rest.remove(position);
        for mut tail in permutations(rest) {
            tail.insert(0, first);
            all.push(tail);
        }
    }
    all
}

/// Every connected graph of this size, once for each shape.
fn networks(nodes: usize) -> Vec<BTreeSet<Pair>> {
    let pairs = pairs(nodes);
    let orders = permutations((0..nodes).collect());
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for bits in 0_u32..1 << pairs.len() {
        let chosen = pairs.iter().zip(0..).filter(|(_, bit)| bits >> bit & 1 == 1);
        let links: BTreeSet<Pair> = chosen.map(|(pair, _)| *pair).collect();
        if !is_connected(nodes, &links) || seen.contains(&links) {
            continue;
        }
        for order in &orders {
            let renamed = links.iter().map(|(one, other)| {
                let (one, other) = (order[*one], order[*other]);
                (one.min(other), one.max(other))
            });
            seen.insert(renamed.collect::<BTreeSet<Pair>>());
        }
        found.push(links);
    }
    found
}

/// A router, and a digest of all its fields.
#[derive(Clone, Debug)]
struct Node {
    router: Router,
    digest: u64,
}

impl Node {
    fn new(router: Router) -> Arc<Node> {
        Arc::new(Node { router, digest: 0 })
    }
}

/// Hashes text without keeping it.
#[derive(Default)]
struct Digest(DefaultHasher);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct State {
    now: Duration,
    /// A node is shared with the states in which its router is the same: a message changes one of them.
    nodes: Vec<Arc<Node>>,
    /// Links that are cut.
    cut: BTreeSet<usize>,
    /// Messages in flight. A set: a message may arrive twice anyway.
    flying: BTreeSet<Message>,
    /// How many faults of each kind may still happen: cuts and heals, restarts, losses, doublings, timers.
    left: [u8; 5],
    starts: u32,
    key: u64,
}

impl State {
    fn router(&self, at: usize) -> &Router {
        &self.nodes[at].router
    }

    fn router_mut(&mut self, at: usize) -> &mut Router {
        &mut Arc::make_mut(&mut self.nodes[at]).router
    }

    fn next_timeout(&self) -> Option<Duration> {
        self.nodes.iter().filter_map(|node| node.router.poll_timeout()).min()
    }

    /// Computes the key of a state that was made from another one.
    fn set_key(&mut self, last: &State) {
        let mut hasher = DefaultHasher::new();
        for (node, last) in self.nodes.iter_mut().zip(&last.nodes) {
            if !Arc::ptr_eq(node, last) {
                let node = Arc::make_mut(node);
                let mut digest = Digest::default();
                write!(digest, "{:?}", node.router).unwrap();
                node.digest = digest.0.finish();
            }
            node.digest.hash(&mut hasher);
        }
        (&self.now, &self.cut, &self.flying, &self.left).hash(&mut hasher);
        self.key = hasher.finish();
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key.hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.key == other.key
    }
}

impl Eq for State {}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Deliver(usize),
    Double(usize),
    Lose(usize),
    Cut(usize),
    Heal(usize),
    Restart(usize),
    Tick,
}

struct Network {
    nodes: usize,
    links: Vec<Pair>,
    /// How many states are made, and how many were.
    states_max: usize,
    states: AtomicUsize,
    /// Hops of packets with a bound that were examined.
    bounded: AtomicUsize,
}

fn router(at: usize, starts: u32) -> Router {
    let options = RouterOptions::new((u64::from(starts) << 8) | at as u64)
        .seqno(1 + starts)
        // Rounds of updates do not wait: fewer timers, more orders of messages.
        .update_interval(Duration::ZERO, Duration::ZERO);
    Router::new(node(at), options)
}

impl Network {
    fn new(nodes: usize, links: BTreeSet<Pair>, states_max: usize) -> Network {
        let links = links.into_iter().collect();
        let [states, bounded] = [(); 2].map(|()| AtomicUsize::new(0));
        Network { nodes, links, states_max, states, bounded }
    }

    fn link_up(&self, state: &mut State, at: usize, link: usize) {
        let (one, other) = self.links[link];
        let peer = node(if at == one { other } else { one });
        let cost = LinkCost::new(100);
        let link = LinkId(u32::try_from(link).unwrap());
        let now = state.now;
        state.router_mut(at).handle(now, Input::LinkUp { link, peer, cost }).unwrap();
        self.drain(state, at);
    }

    fn drain(&self, state: &mut State, at: usize) {
        while let Some(output) = state.router_mut(at).poll_output() {
            if let Output::Send { link, message, .. } = output {
                let link = link.0 as usize;
                let (one, other) = self.links[link];
                if !state.cut.contains(&link) {
                    state.flying.insert((link, if at == one { other } else { one }, message.into()));
                }
            }
        }
    }

    fn deliver(&self, state: &mut State, (link, to, message): Message) {
        let link = LinkId(u32::try_from(link).unwrap());
        let now = state.now;
        let _ = state.router_mut(to).handle(now, Input::Message { link, message: &message });
        self.drain(state, to);
    }

    fn tick(&self, state: &mut State) {
        let now = state.next_timeout().unwrap_or(state.now).max(state.now);
        state.now = now;
        for at in 0..self.nodes {
            state.router_mut(at).handle(now, Input::Timeout).unwrap();
            self.drain(state, at);
        }
    }

    /// A network at rest.
    fn converged(&self) -> State {
        let mut state = State {
            now: SECOND,
            nodes: (0..self.nodes).map(|at| Node::new(router(at, 0))).collect(),
            cut: BTreeSet::new(),
            flying: BTreeSet::new(),
            left: [2, 1, 1, 1, 2],
            starts: 0,
            key: 0,
        };
        for link in 0..self.links.len() {
            let (one, other) = self.links[link];
            self.link_up(&mut state, one, link);
            self.link_up(&mut state, other, link);
        }
        loop {
            while let Some(first) = state.flying.pop_first() {
                self.deliver(&mut state, first);
            }
            if state.next_timeout().is_none_or(|at| at > SECOND * 10) {
                break;
            }
            self.tick(&mut state);
        }
        state
    }

    fn is_sound(&self, state: &State) -> bool {
        let router = |node: NodeId| Some(state.router(usize::try_from(node.get() - 1).unwrap()));
        (0..self.nodes).all(|at| {
            (0..self.nodes).all(|to| route_faults(node(at), node(to), self.nodes, router).is_empty())
        })
    }
}

/// A packet ends whatever the tables say: a bound falls at each hop, once it is there, and a path without one
/// does not return.
fn is_bounded(network: &Network, state: &State) -> bool {
    (0..network.nodes).all(|from| {
        (0..network.nodes).filter(|to| *to != from).all(|to| {
            let mut packet = Packet { destination: node(to), from: None, bound: None };
            let mut at = from;
            let mut visited = BTreeSet::new();
            loop {
                let Ok(hop) = state.router(at).forward(&packet) else { return true };
                network.bounded.fetch_add(usize::from(packet.bound.is_some()), Ordering::Relaxed);
                let falls = match (packet.bound, hop.bound) {
                    (None, _) => true,
                    (Some(before), Some(after)) => after < before,
                    (Some(_), None) => false,
                };
                // No state of a packet comes twice.
                if !falls || !visited.insert((at, packet.bound)) {
                    return false;
                }
                let next = usize::try_from(hop.peer.get() - 1).unwrap();
                // A packet of another session is refused.
                let (Some(session), Some(other)) =
                    (state.router(at).session(hop.peer), state.router(next).session(node(at)))
                else {
                    return true;
                };
                if (session.local, session.remote) != (other.remote, other.local) || next == to {
                    return true;
                }
                packet = Packet { from: Some(node(at)), bound: hop.bound, ..packet };
                at = next;
            }
        })
    })
}

impl Model for Network {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.converged()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // The checker examines a state when its turn comes to be followed: those that are left when the bound
        // is reached are examined as well, and lead nowhere.
        if self.states.load(Ordering::Relaxed) >= self.states_max {
            return;
        }
        let [changes, restarts, losses, doublings, timers] = state.left;
        for message in 0..state.flying.len() {
            actions.push(Action::Deliver(message));
            if losses > 0 {
                actions.push(Action::Lose(message));
            }
            if doublings > 0 {
                actions.push(Action::Double(message));
            }
        }
        if changes > 0 {
            for link in 0..self.links.len() {
                actions.push(if state.cut.contains(&link) { Action::Heal(link) } else { Action::Cut(link) });
            }
        }
        if restarts > 0 {
            actions.extend((0..self.nodes).map(Action::Restart));
        }
        if timers > 0 {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        self.states.fetch_add(1, Ordering::Relaxed);
        let mut state = last.clone();
        match action {
            Action::Deliver(message) => {
                let message = state.flying.iter().nth(message).cloned()?;
                state.flying.remove(&message);
                self.deliver(&mut state, message);
            }
            Action::Double(message) => {
                state.left[3] -= 1;
                let message = state.flying.iter().nth(message).cloned()?;
                self.deliver(&mut state, message);
            }
            Action::Lose(message) => {
                state.left[2] -= 1;
                let message = state.flying.iter().nth(message).cloned()?;
                state.flying.remove(&message);
            }
            Action::Cut(link) => {
                state.left[0] -= 1;
                state.cut.insert(link);
                let (one, other) = self.links[link];
                for at in [one, other] {
                    let link = LinkId(u32::try_from(link).unwrap());
                    // A node that has restarted reports no link yet.
                    let now = state.now;
                    let _ = state.router_mut(at).handle(now, Input::LinkDown { link });
                    self.drain(&mut state, at);
                }
            }
            Action::Heal(link) => {
                state.left[0] -= 1;
                state.cut.remove(&link);
                let (one, other) = self.links[link];
                self.link_up(&mut state, one, link);
                self.link_up(&mut state, other, link);
            }
            Action::Restart(at) => {
                // Its neighbours do not notice: the links stay up for them.
                state.left[1] -= 1;
                state.starts += 1;
                state.nodes[at] = Node::new(router(at, state.starts));
                for link in 0..self.links.len() {
                    let (one, other) = self.links[link];
                    if (one == at || other == at) && !state.cut.contains(&link) {
                        self.link_up(&mut state, at, link);
                    }
                }
            }
            Action::Tick => {
                state.left[4] -= 1;
                self.tick(&mut state);
            }
        }
        state.set_key(last);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "no loop, and feasibility distances fall",
                |network: &Network, state: &State| network.is_sound(state),
            ),
            Property::always("bounds of detours fall", is_bounded),
        ]
    }
}

#[test]
fn every_network_of_up_to_five_nodes() {
    let (mut count, mut states, mut bounded) = (0, 0, 0);
    for nodes in 2..=5 {
        for links in networks(nodes) {
            let network = Network::new(nodes, links, states_max());
            let converged = network.converged();
            for at in 0..nodes {
                assert_eq!(converged.router(at).routes().count(), nodes - 1);
            }
            let checker = network.checker().spawn_bfs().join();
            checker.assert_properties();
            bounded += checker.model().bounded.load(Ordering::Relaxed);
            states += checker.unique_state_count();
            count += 1;
        }
    }
    println!("{count} networks, {states} different states, {bounded} hops with a bound");
    assert!(bounded > 1000, "detours are examined");
    assert_eq!(count, 1 + 2 + 6 + 21);
}
