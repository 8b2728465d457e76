//! Nodes that find each other by multicast: on the loopback, and on a bridge that joins network namespaces.
//! The latter needs root and the program `ip`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails by panicking, and says when it is skipped"
)]

#[cfg(target_os = "linux")]
mod netns_common;
mod quic_common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use quic_common::{Domain, node, soon};
use x0_mesh::discovery::{DiscoveryOptions, Multicast, MulticastOptions};
use x0_mesh::link::{Link, UdpLink, UdpLinkOptions};
use x0_mesh::liveness::LivenessState;
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort};

/// Starts a node whose only port discovers, in the realm of all tests.
fn start(domain: &Domain, number: u64, link: SocketAddr, group_port: u16) -> Mesh {
    let link = UdpLink::open(&UdpLinkOptions::new(link)).unwrap();
    let groups = Multicast::open(&MulticastOptions::new(link.local()).port(group_port)).unwrap();
    let options = DiscoveryOptions::new("mesh.test").courtesy(Duration::from_secs(2));
    let identity = domain.identity(number);
    let port = MeshPort::new(link).discover(groups, options);
    assert!(format!("{port:?}").contains("Multicast"));
    Mesh::start(MeshOptions::new(node(number), identity.server_config(), identity.client_config()).port(port))
        .unwrap()
}

/// Waits until these nodes are neighbours, and no others.
async fn are_neighbours(mesh: &Mesh, numbers: &[u64]) {
    let expected: Vec<_> = numbers.iter().map(|number| node(*number)).collect();
    soon(mesh.until(|mesh| {
        let links = mesh.links();
        let mut up: Vec<_> =
            links.iter().filter(|link| link.state == LivenessState::Up).map(|link| link.peer).collect();
        up.sort_unstable();
        up == expected
    }))
    .await;
}

#[tokio::test]
async fn nodes_on_the_loopback_find_each_other_and_a_restarted_one() {
    let domain = Domain::new("mesh.test");
    // Linux has no route for multicast over IPv6 on its loopback.
    let link: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let free = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port();
    let one = start(&domain, 1, link, free);
    let two = start(&domain, 2, link, free);
    are_neighbours(&one, &[2]).await;
    are_neighbours(&two, &[1]).await;
    let three = start(&domain, 3, link, free);
    for (mesh, others) in [(&one, [2, 3]), (&two, [1, 3]), (&three, [1, 2])] {
        are_neighbours(mesh, &others).await;
    }
    // At another port than before.
    drop(two);
    let two = start(&domain, 2, link, free);
    are_neighbours(&two, &[1, 3]).await;
    are_neighbours(&one, &[2, 3]).await;
}

#[cfg(target_os = "linux")]
mod namespaces {
    use std::time::Instant;

    use tokio::sync::Barrier;
    use x0_ebpf::testing::{Namespace, VethPair};

    use super::netns_common::{namespaces, run, sysctl};
    use super::*;

    const NODES: usize = 3;

    /// The namespaces on a bridge in `switch`. Node n has the address 10.77.0.n, and the link-local one of
    /// its interface.
    fn join(switch: &Namespace, nodes: &[Namespace]) -> Vec<VethPair> {
        run(switch, "ip link add br0 type bridge", "");
        run(switch, "ip link set br0 up", "");
        let pairs = nodes.iter().zip(1..).map(|(namespace, number)| {
            let pair = VethPair::new(switch, namespace).unwrap();
            run(switch, &format!("ip link set {} master br0", pair.left().name()), "");
            let device = pair.right().name();
            run(namespace, &format!("ip addr add 10.77.0.{number}/24 dev {device}"), "");
            let base = format!("ipv6/conf/{device}");
            // An address is used at once, without the detection of duplicates (RFC 4862 §5.4).
            sysctl(
                namespace,
                &[(&format!("{base}/accept_dad"), "0"), (&format!("{base}/disable_ipv6"), "0")],
            );
            pair
        });
        pairs.collect()
    }

    /// No node has an address of another one. A stranger announces itself in the same realm.
    #[test]
    fn nodes_on_a_bridge_find_each_other_without_addresses() {
        let Some([switch, nodes @ ..]) = namespaces::<{ NODES + 2 }>(&["ip", "nsenter"]) else { return };
        let _pairs = join(&switch, &nodes);
        let (domain, strangers) = (Domain::new("mesh.test"), Domain::new("mesh.test"));
        for link in ["0.0.0.0:7001", "[::]:7001"] {
            let link: SocketAddr = link.parse().unwrap();
            let barrier = Barrier::new(NODES + 1);
            std::thread::scope(|scope| {
                for (namespace, number) in nodes.iter().zip(1..) {
                    let (domain, strangers, barrier) = (&domain, &strangers, &barrier);
                    // The whole node runs in its namespace: its list of interfaces is that of the thread.
                    scope.spawn(move || {
                        namespace
                            .run(|| {
                                let runtime = tokio::runtime::Builder::new_current_thread()
                                    .enable_all()
                                    .build()
                                    .unwrap();
                                runtime.block_on(async {
                                    let is_stranger = number > NODES as u64;
                                    let domain = if is_stranger { strangers } else { domain };
                                    let begin = Instant::now();
                                    let mesh = start(domain, number, link, 7830);
                                    if !is_stranger {
                                        let others: Vec<u64> =
                                            (1..=NODES as u64).filter(|other| *other != number).collect();
                                        are_neighbours(&mesh, &others).await;
                                        println!(
                                            "{link}: node {number} has its neighbours after {:?}",
                                            begin.elapsed()
                                        );
                                    }
                                    soon(barrier.wait()).await;
                                    assert_eq!(mesh.links().is_empty(), is_stranger);
                                });
                            })
                            .unwrap();
                    });
                }
            });
        }
    }
}
