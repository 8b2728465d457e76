//! Real nodes over QUIC: operators change the members through any node, members are dialled at their
//! replicated addresses, and the role of an identity decides which messages are accepted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "cluster/machine.rs"]
mod machine;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use x0_identity::{Identity, NodeId, SpiffeId};
use x0_kv::admin::{
    AdminError, AdminReply, AdminRequest, MemberInfo, MemberList, MemberRole, PeerRole, PeerRoles,
};
use x0_kv::cluster::{Node, NodeEvent, NodeOptions};
use x0_kv::coordinator::RequestLimits;
use x0_kv::{Client, ClientOptions, OperationError};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{
    ChannelOptions, Direction, FaultInjector, Lane, Mux, MuxOptions, Transmit, Transport, is_guest,
};

use self::machine::{any_port, id, soon, until};

const HOUR: Duration = Duration::from_secs(3600);
/// The silence of a member that is well, at most.
const REACHED: Duration = Duration::from_millis(400);

/// Members that learn each other's addresses from the member table, and guests.
struct Machine(machine::Machine);

impl Machine {
    fn new() -> Machine {
        Machine(machine::Machine::new())
    }

    fn guest_id(&self, name: &str) -> SpiffeId {
        SpiffeId::from_segments(self.0.trust_domain(), &[name, "1"]).unwrap()
    }

    /// A node that dials `peers`, and later the members at their replicated addresses.
    fn node(&self, number: u64, founders: u64, peers: &[(NodeId, SocketAddr)]) -> (Node, SocketAddr) {
        let mut quic = self.0.quic(number).guests(true);
        quic.peers = peers.to_vec();
        let transport = QuicTransport::bind(quic).unwrap();
        let address = transport.local_addr().unwrap();
        let (book, guests) = (transport.peers(), transport.peers());
        let operator = self.guest_id("operator");
        let roles = PeerRoles::new(move |peer| match guests.guest_identity(peer) {
            Some(identity) if identity == operator => PeerRole::Operator,
            _ if is_guest(peer) => PeerRole::Client,
            _ => PeerRole::Member,
        });
        let mut options = NodeOptions::new(id(number), self.0.path(number))
            .addresses([address.to_string()])
            .roles(roles)
            .observe(move |event| {
                if let NodeEvent::Members { members } = event {
                    for (node, member) in members.iter() {
                        if let Some(address) = member.addresses.first() {
                            book.set_peer(node, address.parse().unwrap());
                        }
                    }
                }
            });
        if number <= founders {
            options = options.founders((1..=founders).map(id));
        }
        (Node::start(options, &Mux::new(transport, MuxOptions::default())).unwrap(), address)
    }

    /// Three nodes. Each later one knows the addresses of the earlier ones.
    fn three(&self) -> (Vec<Node>, Vec<(NodeId, SocketAddr)>) {
        let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
        for number in 1..=3 {
            let (node, address) = self.node(number, 3, &addresses);
            nodes.push(node);
            addresses.push((id(number), address));
        }
        (nodes, addresses)
    }

    fn mux(&self, name: &str, peers: &[(NodeId, SocketAddr)]) -> Mux {
        self.mux_of(&self.0.identity(&self.guest_id(name), HOUR), peers)
    }

    fn mux_of(&self, identity: &Identity, peers: &[(NodeId, SocketAddr)]) -> Mux {
        let mut quic = QuicOptions::guest(any_port(), identity.server_config(), identity.client_config());
        quic.peers = peers.to_vec();
        Mux::new(QuicTransport::bind(quic).unwrap(), MuxOptions::default())
    }

    fn client(&self, name: &str, peers: &[(NodeId, SocketAddr)]) -> Client {
        connect(&self.mux(name, peers), peers)
    }
}

fn connect(mux: &Mux, peers: &[(NodeId, SocketAddr)]) -> Client {
    let options = ClientOptions::new(mux.local(), peers.iter().map(|(node, _)| *node));
    Client::connect(options, mux).unwrap()
}

async fn list(client: &Client) -> MemberList {
    match client.admin(AdminRequest::Members).await.unwrap() {
        AdminReply::Members(list) => list,
        other => panic!("{other:?}"),
    }
}

/// Waits until the list is as wanted.
async fn listed(client: &Client, what: &str, is_wanted: impl Fn(&MemberList) -> bool) -> MemberList {
    soon(what, async {
        loop {
            if let Ok(AdminReply::Members(list)) = client.admin(AdminRequest::Members).await
                && is_wanted(&list)
            {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Repeats a request while a change is in progress or its result is not known.
async fn change(client: &Client, request: AdminRequest) -> Result<AdminReply, AdminError> {
    soon("a change", async {
        loop {
            match client.admin(request.clone()).await {
                Err(AdminError::InProgress | AdminError::NoLeader) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                result => return result,
            }
        }
    })
    .await
}

fn find(list: &MemberList, number: u64) -> Option<&MemberInfo> {
    list.members.iter().find(|member| member.node == id(number))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_change_the_members_through_any_node() {
    let machine = Machine::new();
    let (mut nodes, addresses) = machine.three();
    // The operator knows one node, whichever part that has.
    let operator = machine.client("operator", &addresses[1..2]);
    let announced = listed(&operator, "the addresses", |list| {
        list.members.iter().all(|member| member.addresses.len() == 1 && member.is_reached)
    });
    assert_eq!(announced.await.members.len(), 3);

    // Node 4 knows nobody: it is dialled at the address of the member table.
    let (node, address) = machine.node(4, 0, &[]);
    nodes.push(node);
    let stranger = change(&operator, AdminRequest::Promote { node: id(4) }).await;
    assert_eq!(stranger, Err(AdminError::NotAMember { node: id(4) }));
    let add = AdminRequest::Add { node: id(4), addresses: vec![address.to_string()] };
    assert_eq!(change(&operator, add).await, Ok(AdminReply::Done));
    let has_caught_up = |list: &MemberList| {
        find(list, 4).is_some_and(|member| member.is_reached && member.matched + 10 > list.committed)
    };
    let learning = listed(&operator, "the learner", has_caught_up).await;
    assert_eq!(find(&learning, 4).unwrap().role, MemberRole::Learner);
    let promote = AdminRequest::Promote { node: id(4) };
    assert_eq!(change(&operator, promote.clone()).await, Ok(AdminReply::Done));
    assert_eq!(change(&operator, promote).await, Ok(AdminReply::Done), "a repetition does no harm");
    assert_eq!(find(&list(&operator).await, 4).unwrap().role, MemberRole::Voter);

    // Demoted and promoted again: the member follows all the time.
    let demote = AdminRequest::Demote { node: id(4) };
    assert_eq!(change(&operator, demote.clone()).await, Ok(AdminReply::Done));
    assert_eq!(change(&operator, demote).await, Ok(AdminReply::Done), "a repetition does no harm");
    assert_eq!(find(&list(&operator).await, 4).unwrap().role, MemberRole::Learner);
    let promote = AdminRequest::Promote { node: id(4) };
    assert_eq!(change(&operator, promote).await, Ok(AdminReply::Done));
    assert_eq!(find(&list(&operator).await, 4).unwrap().role, MemberRole::Voter);

    // The leader goes to node 2, then the request to remove it is handed over with the leadership.
    let transfer = AdminRequest::Transfer { to: Some(id(2)) };
    assert_eq!(change(&operator, transfer).await, Ok(AdminReply::Done));
    listed(&operator, "the transfer", |list| list.leader == id(2)).await;
    assert_eq!(change(&operator, AdminRequest::Remove { node: id(2) }).await, Ok(AdminReply::Done));

    // Of the three that are left one is down: the next removal would lose the quorum.
    let operator = machine.client("operator", &[addresses[0], (id(4), address)]);
    let left = listed(&operator, "the removal", |list| find(list, 2).is_none()).await;
    assert_eq!(left.members.len(), 3);
    let down = if left.leader == id(3) { 1 } else { 3 };
    let position = nodes.iter().position(|node| node.id() == id(down)).unwrap();
    nodes.remove(position).shutdown().await.unwrap();
    listed(&operator, "the silence", |list| !find(list, down).unwrap().is_reached).await;
    let other =
        left.members.iter().map(|member| member.node).find(|node| *node != left.leader && *node != id(down));
    let removed = change(&operator, AdminRequest::Remove { node: other.unwrap() }).await;
    assert_eq!(removed, Err(AdminError::QuorumLost { voters: 2, reached: 1, needed: 2 }));
    assert_eq!(change(&operator, AdminRequest::Remove { node: id(down) }).await, Ok(AdminReply::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_neither_administer_nor_speak_for_members() {
    let machine = Machine::new();
    let (nodes, addresses) = machine.three();
    let mux = machine.mux("client", &addresses);
    let mut consensus = mux.channel(ChannelOptions::new("x0.kv.consensus").ordered_lanes(1)).unwrap();
    let client = connect(&mux, &addresses);
    soon("the first write", client.store().put("key", "value")).await.unwrap();
    for request in [AdminRequest::Members, AdminRequest::Remove { node: id(2) }] {
        assert_eq!(client.admin(request).await, Err(AdminError::NotAnOperator));
    }
    // Members cannot decode such requests and would not answer: the client says what is wrong with them.
    let planned = |request| AdminRequest::Planned { voters: [id(1)].into(), request: Box::new(request) };
    let nested = soon("the nested plan", client.admin(planned(planned(AdminRequest::Members)))).await;
    assert_eq!(nested, Err(AdminError::NestedPlan));
    let voters = (1..=1_000).map(id).collect();
    let large = AdminRequest::Planned { voters, request: Box::new(AdminRequest::Members) };
    let large = soon("the large plan", client.admin(large)).await;
    assert_eq!(large, Err(AdminError::PlanTooLarge { voters: 1_000 }));
    let unreadable = AdminRequest::Add { node: id(4), addresses: vec!["two words".into()] };
    let unreadable = soon("the address", client.admin(unreadable)).await;
    assert!(matches!(unreadable, Err(AdminError::Limit(_))), "{unreadable:?}");
    let before = nodes[2].status().refused_messages;
    let transmit = Transmit { to: id(3), lane: Lane::Ordered(0), payload: b"not of a member" };
    soon("the message", poll_fn(|cx| consensus.poll_send(cx, &transmit))).await.unwrap();
    until("the refusal", || nodes[2].status().refused_messages > before).await;
    let status = nodes[2].status();
    assert!(status.refused_messages > 0 && status.decode_errors == 0, "{status:?}");
    soon("another write", client.store().put("key", "value")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_reports_silence_latencies_and_waiting_operations() {
    let machine = Machine::new();
    let (mut nodes, addresses) = machine.three();
    let client = machine.client("client", &addresses);
    soon("the first write", client.store().put("key", "value")).await.unwrap();
    // The answer may come before the count.
    until("no operation that waits", || client.waiting().calls == 0).await;
    until("the leader", || nodes.iter().all(|node| node.status().leader.is_some())).await;
    let leader = nodes[0].status().leader.unwrap();
    let heartbeats = || {
        nodes.iter().all(|node| {
            let status = node.status();
            status.is_leader() || status.last_message_ages.get(&leader).is_some_and(|age| *age < REACHED)
        })
    };
    until("the heartbeats", heartbeats).await;
    // Limits of requests change at run time: the node reports those that hold.
    let before = nodes[0].status().waiting;
    nodes[0].set_request_limits(RequestLimits::new(10, 5).unwrap());
    until("the limits", || {
        let waiting = nodes[0].status().waiting;
        (waiting.requests_max, waiting.requests_per_peer_max) == (10, 5)
    })
    .await;
    assert!(before.requests_max > 10, "{before:?}");
    // Over the wire as at the node itself.
    let status = soon("the status", client.status(leader, HOUR)).await.unwrap();
    assert!(status.write_latency.is_some() && status.apply_latency.is_some(), "{status:?}");
    // Each member registers its incarnation by a membership of its own, and followers apply them later.
    until("one membership", || {
        let indexes: BTreeSet<u64> = nodes.iter().map(|node| node.status().membership_index).collect();
        indexes.len() == 1
    })
    .await;
    let position = nodes.iter().position(|node| node.id() != leader).unwrap();
    let down = nodes.remove(position);
    let gone = down.id();
    down.shutdown().await.unwrap();
    let leader = nodes.iter().find(|node| node.id() == leader).unwrap();
    until("the silence", || {
        let ages = leader.status().last_message_ages;
        ages.iter().all(|(node, age)| (*age > 2 * REACHED) == (*node == gone)) && ages.len() == 2
    })
    .await;
}

/// A leader that a client alone does not reach: the connection is up, and the client tells the other members.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_report_a_member_that_answers_no_operation() {
    let machine = Machine::new();
    let (nodes, addresses) = machine.three();
    let identity = machine.0.identity(&machine.guest_id("client"), HOUR);
    let mut quic = QuicOptions::guest(any_port(), identity.server_config(), identity.client_config());
    quic.peers.clone_from(&addresses);
    let (transport, faults) = FaultInjector::new(QuicTransport::bind(quic).unwrap());
    let client = connect(&Mux::new(transport, MuxOptions::default()), &addresses);
    soon("the first write", client.store().put("key", "value")).await.unwrap();
    until("the connections", || client.reached().len() == 3).await;
    until("the leader", || nodes.iter().all(|node| node.status().leader.is_some())).await;
    let leader = nodes[0].status().leader.unwrap();
    assert!(nodes.iter().all(|node| node.status().reported.is_empty()));
    faults.cut(leader, Direction::Send);
    soon("a write past the leader", client.store().put("key", "value")).await.unwrap();
    until("the count of the client", || client.waiting().unanswered.contains_key(&leader)).await;
    let others: Vec<&Node> = nodes.iter().filter(|node| node.id() != leader).collect();
    until("the reports", || others.iter().all(|node| node.status().reported == [(leader, 1)].into())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_clients_with_one_identity_do_not_disturb_each_other() {
    let machine = Machine::new();
    let (nodes, addresses) = machine.three();
    let clients: Vec<Client> = (0..16).map(|_| machine.client("client", &addresses)).collect();
    for client in &clients {
        soon("the first write", client.store().put("ready", "")).await.unwrap();
    }
    let works: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(number, client)| {
            let store = client.store().clone();
            tokio::spawn(async move {
                for step in 0..50 {
                    store.put(format!("{number}/{step}"), "value").await.unwrap();
                }
            })
        })
        .collect();
    for work in works {
        soon("the writes", work).await.unwrap();
    }
    for client in &clients {
        assert_eq!(client.reached().len(), 3);
    }
    for node in &nodes {
        let guests = node.status().reached.iter().filter(|peer| is_guest(**peer)).count();
        assert_eq!(guests, 16, "each process has a connection of its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_identity_expires_gets_that_reason() {
    let machine = Machine::new();
    let (_nodes, addresses) = machine.three();
    let identity = machine.0.identity(&machine.guest_id("client"), Duration::from_secs(3));
    let client = connect(&machine.mux_of(&identity, &addresses), &addresses);
    soon("the first write", client.store().put("key", "value")).await.unwrap();
    let error = soon("the expiry", async {
        loop {
            if let Err(error) = client.store().put("key", "value").await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(matches!(error, OperationError::IdentityExpired { .. }), "{error}");
    // Renewed in place: the next handshake uses it.
    let svid = machine.0.svid(&machine.guest_id("client"), HOUR);
    identity.rotate(svid).unwrap();
    soon("the next write", async {
        while client.store().put("key", "value").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
