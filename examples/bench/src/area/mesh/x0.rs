//! x0-mesh: the bare transport, and a channel on it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::oneshot;
use x0_identity::{Identity, NodeId};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{
    ChannelOptions, Lane, Mux, MuxOptions, Next, PeerEventKind, Transmit, Transport, TransportExt,
};

use super::{Found, Load, Nodes, Way, count_of, end_of, mark, runtime};
use crate::statistics::Histogram;

const ORDERED: Lane = Lane::Ordered(0);

pub(super) fn transport(nodes: &Nodes, load: Load) -> Result<Found> {
    pair(nodes, load, Ok)
}

pub(super) fn channel(nodes: &Nodes, load: Load) -> Result<Found> {
    pair(nodes, load, |transport| {
        Ok(Mux::new(transport, MuxOptions::default()).channel(ChannelOptions::new("bench"))?)
    })
}

pub(super) fn bind(
    (node, identity): &(NodeId, Identity),
    peer: Option<(NodeId, SocketAddr)>,
) -> Result<QuicTransport> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut options = QuicOptions::new(*node, any, identity.server_config(), identity.client_config());
    options.peers.extend(peer);
    QuicTransport::bind(options).context("cannot bind")
}

fn pair<T: Transport>(nodes: &Nodes, load: Load, wrap: fn(QuicTransport) -> Result<T>) -> Result<Found> {
    thread::scope(|scope| {
        let (address_to, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let server = scope.spawn(move || {
            runtime()?.block_on(async {
                let transport = bind(&nodes.server, None)?;
                address_to.send(transport.local_addr()?)?;
                serve(wrap(transport)?, stopped).await
            })
        });
        let measured = runtime()?.block_on(async {
            let transport = bind(&nodes.client, Some((nodes.server.0, address.recv()?)))?;
            let mut transport = wrap(transport)?;
            while !matches!(transport.event().await.kind, PeerEventKind::Up { .. }) {}
            measure(&mut transport, nodes.server.0, load).await
        });
        let _ = stop.send(());
        server.join().map_err(|_| anyhow!("the server's thread panicked"))??;
        measured
    })
}

/// Does what the messages say until it is stopped.
async fn serve(mut transport: impl Transport, mut stopped: oneshot::Receiver<()>) -> Result<()> {
    let mut payload = Vec::new();
    let (mut count, mut end) = (0, None);
    let mut reply: Option<(NodeId, Vec<u8>)> = None;
    poll_fn(|cx| {
        if std::pin::Pin::new(&mut stopped).poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some((to, payload)) = reply.take() {
                let transmit = Transmit { to, lane: ORDERED, payload: &payload };
                if transport.poll_send(cx, &transmit)?.is_pending() {
                    reply = Some((to, payload));
                    return Poll::Pending;
                }
            }
            match transport.poll_next(cx, &mut payload)? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Next::Event(_)) => {}
                Poll::Ready(Next::Message(received)) => {
                    if payload.first() == Some(&mark::ECHO) {
                        reply = Some((received.from, std::mem::take(&mut payload)));
                        continue;
                    }
                    match count_of(&payload) {
                        Some(expected) => end = Some(expected),
                        None => count += 1,
                    }
                    if end == Some(count) {
                        (count, end) = (0, None);
                        reply = Some((received.from, vec![mark::END]));
                    }
                }
            }
        }
    })
    .await
}

async fn receive(transport: &mut impl Transport, payload: &mut Vec<u8>) -> Result<()> {
    loop {
        match transport.next(payload).await? {
            Next::Message(_) => return Ok(()),
            // The answer is lost with the connection.
            Next::Event(event) => {
                if let PeerEventKind::Down { reason, .. } = event.kind {
                    bail!("the connection was lost while measuring: {reason}");
                }
            }
        }
    }
}

async fn measure(transport: &mut impl Transport, to: NodeId, load: Load) -> Result<Found> {
    let lane = match load.way {
        Way::Ordered => ORDERED,
        Way::Bulk => Lane::Bulk,
    };
    let mut payload = Vec::new();
    if load.is_echoed {
        let message = vec![mark::ECHO; load.len];
        let mut times = Histogram::new();
        for number in 0..load.count + load.count / 10 {
            let sent = Instant::now();
            transport.send(&Transmit { to, lane, payload: &message }).await?;
            receive(transport, &mut payload).await?;
            // The first ones warm up.
            if number >= load.count / 10 {
                times.record(u64::try_from(sent.elapsed().as_nanos())?);
            }
        }
        return Ok(Found::RoundTrips(times));
    }
    let message = vec![mark::COUNT; load.len];
    let mut took = None;
    for count in [load.count / 10, load.count] {
        let started = Instant::now();
        for _ in 0..count {
            transport.send(&Transmit { to, lane, payload: &message }).await?;
        }
        transport.send(&Transmit { to, lane: ORDERED, payload: &end_of(count) }).await?;
        receive(transport, &mut payload).await?;
        took = Some(started.elapsed());
    }
    took.map(Found::Took).context("nothing was measured")
}
