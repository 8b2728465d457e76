//! Changes of the peers to dial, while the transport runs.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use x0_identity::{NodeId, SpiffeId};

use super::close::code;
use super::dial::dial_always;
use super::shared::Shared;
use crate::DownReason;

/// The peers that a [`QuicTransport`](super::QuicTransport) dials. Clones change the same transport; once it
/// is dropped they do nothing.
#[derive(Clone)]
pub struct PeerBook(Weak<Shared>);

/// The connection to a peer with an address, as [`PeerBook::links`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerLink {
    /// The peer.
    pub peer: NodeId,
    /// The time since the last message of the peer arrived; `None` before the first one.
    pub last_message_age: Option<Duration>,
    /// The connection in use; `None` while there is none.
    pub up: Option<LinkState>,
}

/// The state of a connection that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkState {
    /// The epoch.
    pub epoch: u64,
    /// The time since the epoch began.
    pub age: Duration,
    /// The smoothed round-trip time (RFC 9002 §5.3).
    pub rtt: Duration,
    /// QUIC packets sent since the epoch began. Those of the handshake do not count: it is tried while there
    /// is no path, and most of its packets are lost then.
    pub sent_packets: u64,
    /// QUIC packets of the epoch that were found lost (RFC 9002 §6).
    pub lost_packets: u64,
    /// Bytes of UDP datagrams sent since the connection was made.
    pub sent_bytes: u64,
    /// Bytes of UDP datagrams that arrived.
    pub received_bytes: u64,
    /// The longest UDP datagram that the path is known to carry, in bytes (RFC 9000 §14).
    pub mtu: u16,
}

impl PeerBook {
    pub(super) fn new(shared: &Arc<Shared>) -> PeerBook {
        PeerBook(Arc::downgrade(shared))
    }

    /// Dials the peer at this address from now on. A connection that is up is kept, also to another address.
    pub fn set_peer(&self, peer: NodeId, address: SocketAddr) {
        let Some(shared) = self.0.upgrade().filter(|shared| shared.config.local != peer) else { return };
        shared.change(|state, _| {
            if state.over.is_some() {
                return;
            }
            let entry = state.peer(peer);
            if entry.address == Some(address) {
                return;
            }
            // Messages are taken for a peer that is reached for the first time, and not for one that was down
            // before.
            entry.is_reaching |= entry.address.is_none() && entry.link.is_none();
            entry.address = Some(address);
            // The dialer holds the shared state, which ends it when the transport is dropped.
            let dialer = shared.runtime.spawn(dial_always(Arc::clone(&shared), peer, address));
            if let Some(before) = entry.dialer.replace(dialer.abort_handle()) {
                before.abort();
            }
        });
    }

    /// The connections to the peers that have an address, by id. Empty once the transport is dropped.
    #[must_use]
    pub fn links(&self) -> Vec<PeerLink> {
        let Some(shared) = self.0.upgrade() else { return Vec::new() };
        let state = shared.lock();
        let peers = state.peers.iter().filter(|(_, entry)| entry.address.is_some());
        let link = |(peer, entry): (&NodeId, &super::state::Peer)| PeerLink {
            peer: *peer,
            last_message_age: entry.heard_at.map(|at| at.elapsed()),
            up: entry.link.as_ref().map(|link| {
                let stats = link.connection.stats();
                let (sent, lost) = link.handshake_packets;
                LinkState {
                    epoch: link.epoch,
                    age: link.begun.elapsed(),
                    rtt: stats.path.rtt,
                    sent_packets: stats.path.sent_packets.saturating_sub(sent),
                    lost_packets: stats.path.lost_packets.saturating_sub(lost),
                    sent_bytes: stats.udp_tx.bytes,
                    received_bytes: stats.udp_rx.bytes,
                    mtu: stats.path.current_mtu,
                }
            }),
        };
        peers.map(link).collect()
    }

    /// The SPIFFE ID of a guest that is connected, or whose last event was not polled. `None` for a node,
    /// whose id is part of its SPIFFE ID.
    #[must_use]
    pub fn guest_identity(&self, peer: NodeId) -> Option<SpiffeId> {
        self.0.upgrade()?.lock().guests.identity(peer)
    }

    /// Closes the connection to the peer, if there is one, so that the next one uses the current identities.
    /// The side that dialled it dials again.
    pub fn reconnect(&self, peer: NodeId) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.change(|state, wakers| {
            if let Some(link) = state.peers.get(&peer).and_then(|entry| entry.link.as_ref()) {
                let epoch = link.epoch;
                link.connection.close(code::CLOSED, b"a new connection will be made");
                state.end(peer, epoch, DownReason::Local, wakers);
            }
        });
    }

    /// The peers with a connection to an address that `is_wanted`.
    #[cfg(feature = "mesh")]
    pub(crate) fn connected(&self, is_wanted: impl Fn(SocketAddr) -> bool) -> Vec<NodeId> {
        let Some(shared) = self.0.upgrade() else { return Vec::new() };
        let state = shared.lock();
        let wanted = |entry: &super::state::Peer| {
            entry.link.as_ref().is_some_and(|link| is_wanted(link.connection.remote_address()))
        };
        state.peers.iter().filter(|(_, entry)| wanted(entry)).map(|(peer, _)| *peer).collect()
    }

    /// The peers that are dialled at an address that `is_wanted`.
    #[cfg(feature = "mesh")]
    pub(crate) fn dialled(&self, is_wanted: impl Fn(SocketAddr) -> bool) -> Vec<NodeId> {
        let Some(shared) = self.0.upgrade() else { return Vec::new() };
        let state = shared.lock();
        let wanted = |entry: &super::state::Peer| entry.address.is_some_and(&is_wanted);
        state.peers.iter().filter(|(_, entry)| wanted(entry)).map(|(peer, _)| *peer).collect()
    }

    /// Ends the pause of the dialler of a peer that is not connected.
    #[cfg(feature = "mesh")]
    pub(crate) fn dial_now(&self, peer: NodeId) {
        let Some(shared) = self.0.upgrade() else { return };
        let state = shared.lock();
        if let Some(entry) = state.peers.get(&peer).filter(|entry| entry.link.is_none()) {
            // Kept for a dialler whose attempt is about to fail.
            entry.retry.notify_one();
        }
    }

    /// Whether the transport is dropped.
    #[cfg(feature = "mesh")]
    pub(crate) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }

    /// Ends the epoch of a peer that cannot be reached. The side that dialled it dials again.
    #[cfg(feature = "mesh")]
    pub(crate) fn lose(&self, peer: NodeId) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.change(|state, wakers| {
            if let Some(link) = state.peers.get(&peer).and_then(|entry| entry.link.as_ref()) {
                let epoch = link.epoch;
                // The peer receives it if there is a path again.
                link.connection.close(code::CLOSED, b"there was no path for too long");
                state.end(peer, epoch, DownReason::NoRoute, wakers);
            }
        });
    }

    /// Stops dialling the peer, and closes the connection to it. For a peer that was being reached for the
    /// first time `Down` is reported, as after an attempt that failed. The peer may still dial this node:
    /// revoke its identity to prevent that.
    pub fn remove_peer(&self, peer: NodeId) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.change(|state, wakers| {
            state.give_up(peer, DownReason::Local, wakers);
            let Some(entry) = state.peers.get_mut(&peer) else { return };
            entry.address = None;
            if let Some(dialer) = entry.dialer.take() {
                dialer.abort();
            }
            if let Some(link) = &entry.link {
                let epoch = link.epoch;
                link.connection.close(code::REMOVED, b"the peer was removed");
                state.end(peer, epoch, DownReason::Local, wakers);
            } else {
                // Messages for a first epoch that will not come.
                entry.outbox.clear(wakers);
            }
            state.forget(peer);
        });
    }
}

impl fmt::Debug for PeerBook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(shared) = self.0.upgrade() else { return formatter.write_str("{}") };
        let state = shared.lock();
        let addresses = state.peers.iter().filter_map(|(peer, entry)| Some((peer, entry.address?)));
        formatter.debug_map().entries(addresses).finish()
    }
}
