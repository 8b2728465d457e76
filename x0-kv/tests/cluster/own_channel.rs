//! A channel of an integrator shares the connections of a running cluster.

use std::future::poll_fn;
use std::task::Poll;

use x0_identity::NodeId;
use x0_kv::cluster::Node;
use x0_mesh::{Channel, ChannelOptions, Lane, Next, Transmit, Transport};

use crate::machine::{Machine, NODES, id, soon};

/// Sends a message and receives one.
async fn talk(channel: &mut Channel, peer: NodeId) -> Vec<u8> {
    let (mut is_sent, mut is_received) = (false, false);
    let mut payload = Vec::new();
    poll_fn(|cx| {
        while !is_received {
            match channel.poll_next(cx, &mut payload) {
                Poll::Ready(Ok(Next::Message(received))) => {
                    assert_eq!(received.from, peer);
                    is_received = true;
                }
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => break,
            }
        }
        // The message of the peer may come before the channel takes the own one.
        if !is_sent {
            let hello = Transmit { to: peer, lane: Lane::Ordered(0), payload: b"hello" };
            match channel.poll_send(cx, &hello) {
                Poll::Ready(Ok(())) => is_sent = true,
                // Not up yet; an event follows.
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        }
        if is_sent && is_received { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    payload
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_channel_shares_the_connections_of_a_running_cluster() {
    let mut machine = Machine::new();
    let (mut nodes, mut muxes) = (Vec::new(), Vec::new());
    for number in 1..=NODES {
        let (mux, _) = machine.mux(number);
        nodes.push(Node::start(machine.options(number), &mux).unwrap());
        muxes.push(mux);
    }
    soon("a write", nodes[0].store().put("key", "value")).await.unwrap();
    let channel = |number: usize| muxes[number].channel(ChannelOptions::new("cluster.test.chat")).unwrap();
    let (mut one, mut two) = (channel(0), channel(1));
    assert!(muxes[0].channel(ChannelOptions::new("cluster.test.chat")).is_err(), "the name is taken");
    assert!(muxes[0].channel(ChannelOptions::new("x0.kv.consensus")).is_err(), "the node holds its channels");
    let talked = async { tokio::join!(talk(&mut one, id(2)), talk(&mut two, id(1))) };
    assert_eq!(soon("the talk", talked).await, (b"hello".to_vec(), b"hello".to_vec()));
    assert_eq!(soon("a read", nodes[2].store().get("key")).await.unwrap().unwrap().value, "value");
    for node in nodes {
        node.shutdown().await.unwrap();
    }
}
