//! Ethernet links over veth pairs between network namespaces. Needs root and the programs `ip` and `nsenter`;
//! without them the tests say so, and pass outside of CI only.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that says what it skips, and fails by panicking"
)]

mod netns_common;
mod quic_common;

use std::future::poll_fn;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::Duration;

use netns_common::{namespaces, run};
use quic_common::{Domain, node, soon};
use x0_ebpf::testing::{Frame, Generator, Namespace, VethEnd, VethPair};
use x0_mesh::conformance::link::{LinkBench, check};
use x0_mesh::link::{
    EthernetLink, EthernetLinkError, EthernetLinkOptions, Link, LinkEvent, LinkRecvError, LinkSendError,
    MacAddress,
};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort};

const PROGRAMS: [&str; 2] = ["ip", "nsenter"];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn mac(end: &VethEnd) -> MacAddress {
    MacAddress::new(end.mac()).unwrap()
}

/// The namespace is that of the link, whichever thread uses it later.
fn open(namespace: &Namespace, end: &VethEnd) -> EthernetLink {
    let runtime = tokio::runtime::Handle::current();
    let open = || {
        let _inside = runtime.enter();
        EthernetLink::open(&EthernetLinkOptions::new(end.name())).unwrap()
    };
    namespace.run(open).unwrap()
}

struct Ethernet {
    runtime: tokio::runtime::Runtime,
    namespaces: [Namespace; 2],
    pair: VethPair,
}

impl LinkBench for Ethernet {
    fn pair(&mut self) -> [Box<dyn Link>; 2] {
        let _inside = self.runtime.enter();
        let [left, right] = &self.namespaces;
        [Box::new(open(left, self.pair.left())), Box::new(open(right, self.pair.right()))]
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        // A frame that was lost is sent again by the suite.
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(2), poll_fn(poll)).await });
    }
}

#[test]
fn an_ethernet_link_keeps_the_contract() {
    let Some(namespaces) = namespaces::<2>(&PROGRAMS) else { return };
    let pair = VethPair::new(&namespaces[0], &namespaces[1]).unwrap();
    assert_eq!(check(&mut Ethernet { runtime: runtime(), namespaces, pair }), 7);
}

#[test]
fn a_link_follows_its_interface() {
    let Some([left, right]) = namespaces::<2>(&PROGRAMS) else { return };
    let mut pair = VethPair::new(&left, &right).unwrap();
    runtime().block_on(async {
        let mut link = open(&left, pair.left());
        assert_eq!(link.local(), EthernetLink::address(mac(pair.left())));
        assert_eq!(link.mac(), mac(pair.left()));
        let (before, name) = (link.mtu(), pair.left().name().to_owned());
        run(&left, &format!("ip link set {name} mtu 1400"), "");
        let event = soon(poll_fn(|cx| link.poll_event(cx))).await;
        assert_eq!(event, LinkEvent::MtuChanged { mtu: 1397 });
        assert!(before > 1397 && link.mtu() == 1397);
        let to = EthernetLink::address(mac(pair.right()));
        let sent = poll_fn(|cx| link.poll_send(cx, to, &[1; 1398])).await;
        assert!(matches!(sent, Err(LinkSendError::TooLong { len: 1398, mtu: 1397 })), "{sent:?}");
        run(&left, &format!("ip link set {name} address 02:00:00:12:34:56"), "");
        let address = EthernetLink::address("02:00:00:12:34:56".parse().unwrap());
        assert_eq!(soon(poll_fn(|cx| link.poll_event(cx))).await, LinkEvent::AddressChanged { address });
        assert_eq!(link.local(), address);
        // Down and up again, the link goes on; frames that others send to it arrive.
        run(&left, &format!("ip link set {name} down"), "");
        run(&left, &format!("ip link set {name} up"), "");
        pair.mend().unwrap();
        let mut other = open(&right, pair.right());
        let mut frame = Vec::new();
        poll_fn(|cx| other.poll_send(cx, address, b"again")).await.unwrap();
        let from = soon(poll_fn(|cx| link.poll_recv(cx, &mut frame))).await.unwrap();
        assert_eq!((from, &frame[..]), (other.local(), &b"again"[..]));
        // Removed, it is over.
        run(&left, &format!("ip link del {name}"), "");
        let end = soon(poll_fn(|cx| {
            assert!(link.poll_event(cx).is_pending());
            link.poll_recv(cx, &mut frame)
        }));
        assert!(matches!(end.await, Err(LinkRecvError::Closed)));
        let sent = poll_fn(|cx| link.poll_send(cx, to, b"late")).await;
        assert!(matches!(sent, Err(LinkSendError::Closed)), "{sent:?}");
    });
}

/// Frames of other protocols and to other interfaces do not arrive.
#[test]
fn a_link_takes_its_own_frames_alone() {
    let Some([left, right]) = namespaces::<2>(&PROGRAMS) else { return };
    let pair = VethPair::new(&left, &right).unwrap();
    runtime().block_on(async {
        let mut link = open(&left, pair.left());
        let mut other = open(&right, pair.right());
        run(&left, &format!("ip link set {} promisc on", pair.left().name()), "");
        let mut generator = Generator::open(&right, pair.right()).unwrap();
        generator.send(&Frame::between(pair.right(), pair.left()).len(128).build()).unwrap();
        let stranger = EthernetLink::address("02:00:00:12:34:56".parse().unwrap());
        poll_fn(|cx| other.poll_send(cx, stranger, b"for a stranger")).await.unwrap();
        poll_fn(|cx| other.poll_send(cx, link.local(), b"for the link")).await.unwrap();
        let mut frame = Vec::new();
        let from = soon(poll_fn(|cx| link.poll_recv(cx, &mut frame))).await.unwrap();
        assert_eq!((from, &frame[..]), (other.local(), &b"for the link"[..]));
        let nowhere = "192.0.2.1:7".parse().unwrap();
        let sent = poll_fn(|cx| link.poll_send(cx, nowhere, b"lost")).await;
        assert!(matches!(sent, Err(LinkSendError::Failed { .. })), "{sent:?}");
    });
}

#[test]
fn errors_name_the_interface_and_the_remedy() {
    let options = EthernetLinkOptions::new("absent0");
    assert!(matches!(EthernetLink::open(&options), Err(EthernetLinkError::NoRuntime)));
    let runtime = runtime();
    let _inside = runtime.enter();
    let error = EthernetLink::open(&options).unwrap_err();
    assert!(
        matches!(&error, EthernetLinkError::NoInterface { interface } if interface == "absent0"),
        "{error}"
    );
    let error = EthernetLink::open(&EthernetLinkOptions::new("lo")).unwrap_err();
    assert!(matches!(error, EthernetLinkError::NoEthernet { .. }), "{error}");
}

/// The test program starts itself again without the capability.
#[test]
fn a_process_without_privilege_receives_a_clear_error() {
    const MARK: &str = "X0_MESH_WITHOUT_NET_RAW";
    let Some([left, right]) = namespaces::<2>(&["setpriv"]) else { return };
    let pair = VethPair::new(&left, &right).unwrap();
    if std::env::var_os(MARK).is_some() {
        runtime().block_on(async {
            let runtime = tokio::runtime::Handle::current();
            let open = || {
                let _inside = runtime.enter();
                EthernetLink::open(&EthernetLinkOptions::new(pair.left().name())).unwrap_err()
            };
            let error = left.run(open).unwrap();
            assert!(matches!(error, EthernetLinkError::Privilege { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(pair.left().name()) && text.contains("CAP_NET_RAW"), "{text}");
        });
        return;
    }
    let status = Command::new("setpriv")
        .args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_without_privilege_receives_a_clear_error"])
        .env(MARK, "1")
        .status();
    assert!(status.unwrap().success());
}

/// Three nodes in a line, without any IP address on their interfaces: the ends reach each other.
#[test]
fn nodes_on_ethernet_reach_each_other_over_a_relay() {
    let Some(namespaces) = namespaces::<3>(&PROGRAMS) else { return };
    let pairs = [0, 1].map(|at| VethPair::new(&namespaces[at], &namespaces[at + 1]).unwrap());
    runtime().block_on(async {
        let domain = Domain::new("mesh.test");
        let meshes = [0, 1, 2].map(|at: usize| {
            let identity = domain.identity(at as u64 + 1);
            let (server, client) = (identity.server_config(), identity.client_config());
            let mut options = MeshOptions::new(node(at as u64 + 1), server, client);
            if let Some(pair) = pairs.get(at) {
                let neighbour = EthernetLink::address(mac(pair.right()));
                options =
                    options.port(MeshPort::new(open(&namespaces[at], pair.left())).neighbour(neighbour));
            }
            if let Some(pair) = at.checked_sub(1).and_then(|left| pairs.get(left)) {
                options = options.port(MeshPort::new(open(&namespaces[at], pair.right())));
            }
            Mesh::start(options).unwrap()
        });
        soon(meshes[0].reached(node(3))).await;
        // 3 bytes of the link and 32 of the frame.
        assert_eq!(meshes[0].mtu(node(3)), Some(1500 - 35));
        let payload = [7; 1500 - 35];
        let arrived = soon(async {
            loop {
                // The first one announces its label.
                meshes[0].send(node(3), &payload).unwrap();
                let received = tokio::time::timeout(Duration::from_millis(200), meshes[2].recv()).await;
                if let Ok(received) = received {
                    return received;
                }
            }
        });
        assert_eq!(arrived.await, (node(1), payload.to_vec()));
    });
}
