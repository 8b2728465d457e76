//! A service of one's own on a channel of a mux, over QUIC: node 2 answers requests with their length, node 1
//! asks.
//!
//! `cargo run -p x0-mesh --features quic --example service`. The mux could carry other services beside this
//! one, over the same connection.

#![allow(clippy::print_stdout, reason = "an example that says what it does")]

use std::error::Error;
use std::time::Duration;

use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Channel, ChannelOptions, Lane, Mux, MuxOptions, Next, Received, Transmit, TransportExt};

type Failure = Box<dyn Error + Send + Sync>;

/// The name under which both nodes register the service, and the lane for its requests and answers.
const SERVICE: &str = "example.org/length";
const LANE: Lane = Lane::Ordered(0);

pub(crate) fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
        let answering = QuicTransport::bind(options(&authority, 2)?)?;
        let (two, address) = (node(2)?, answering.local_addr()?);
        let asking = QuicTransport::bind(options(&authority, 1)?.peer(two, address))?;

        let mux = Mux::new(answering, MuxOptions::default());
        tokio::spawn(answer(mux.channel(ChannelOptions::new(SERVICE))?));

        let mux = Mux::new(asking, MuxOptions::default());
        let mut channel = mux.channel(ChannelOptions::new(SERVICE))?;
        for request in ["a", "few", "messages"] {
            let len = ask(&mut channel, two, request).await?;
            println!("node {two} says that {request:?} is {len} bytes long");
            assert_eq!(len, request.len());
        }
        Ok(())
    })
}

fn node(number: u64) -> Result<NodeId, Failure> {
    Ok(NodeId::new(number).ok_or("zero names no node")?)
}

fn options(authority: &Authority, number: u64) -> Result<QuicOptions, Failure> {
    let spiffe_id = SpiffeId::for_node(authority.trust_domain(), node(number)?);
    let identity =
        Identity::new(authority.issue(&spiffe_id, Duration::from_secs(3600))?, authority.bundle())?;
    let any = "127.0.0.1:0".parse()?;
    Ok(QuicOptions::new(node(number)?, any, identity.server_config(), identity.client_config()))
}

/// Answers each request with its length, as 8 bytes.
async fn answer(mut channel: Channel) -> Result<(), Failure> {
    let mut request = Vec::new();
    loop {
        let Next::Message(Received { from, .. }) = channel.next(&mut request).await? else { continue };
        let len = (request.len() as u64).to_le_bytes();
        channel.send(&Transmit { to: from, lane: LANE, payload: &len }).await?;
    }
}

async fn ask(channel: &mut Channel, to: NodeId, request: &str) -> Result<usize, Failure> {
    channel.send(&Transmit { to, lane: LANE, payload: request.as_bytes() }).await?;
    let mut answer = Vec::new();
    while !matches!(channel.next(&mut answer).await?, Next::Message(_)) {}
    Ok(u64::from_le_bytes(answer.as_slice().try_into()?).try_into()?)
}
