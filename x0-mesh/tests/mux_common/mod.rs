//! A channel as the one transport of a node, for the conformance suite.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use x0_identity::NodeId;
use x0_mesh::{
    Channel, ChannelOptions, Mux, MuxOptions, Next, PeerEvent, Received, RecvError, SendError, Transmit,
    Transport,
};

/// The muxes of the nodes that run, so that a bench can let those work that a rule does not poll.
#[derive(Clone, Default)]
pub(crate) struct Muxes(Arc<Mutex<BTreeMap<NodeId, Mux>>>);

impl Muxes {
    pub(crate) fn start(&self, transport: impl Transport + 'static) -> Service {
        let local = transport.local();
        let mux = Mux::new(transport, MuxOptions::default().seed(local.get()));
        // Others on the same mux change nothing.
        let other = mux.channel(ChannelOptions::new("example.other")).unwrap();
        let channel = mux
            .channel(ChannelOptions::new("example.service").ordered_lanes(2).lane_budget(2 << 20))
            .unwrap();
        self.0.lock().unwrap().insert(local, mux);
        Service { muxes: self.clone(), channel, other }
    }

    /// Lets every node do what its tasks would do.
    pub(crate) fn drive(&self, cx: &mut Context<'_>) {
        for mux in self.0.lock().unwrap().values() {
            let _ = mux.poll_drive(cx);
        }
    }
}

/// A node of which one channel is used.
pub(crate) struct Service {
    muxes: Muxes,
    #[expect(
        dead_code,
        reason = "it is there, and nobody receives from it; dropped before the last one, which ends the node"
    )]
    other: Channel,
    channel: Channel,
}

impl Drop for Service {
    fn drop(&mut self) {
        // The transport goes with the last part of the mux.
        self.muxes.0.lock().unwrap().remove(&self.channel.local());
    }
}

impl Transport for Service {
    fn local(&self) -> NodeId {
        self.channel.local()
    }

    fn message_len_max(&self, lane: x0_mesh::Lane) -> usize {
        self.channel.message_len_max(lane)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        self.channel.poll_send(cx, transmit)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        self.channel.poll_recv(cx, payload)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        self.channel.poll_event(cx)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<Result<Next, RecvError>> {
        self.channel.poll_next(cx, payload)
    }
}
