//! Replaces the authority of three nodes in its four steps, while every node connects to every other one at
//! each tick, and draws what was seen as a timeline:
//!
//! ```text
//! cargo run -p x0-identity --features authority,rustls --example root_rotation -- root-rotation.svg
//! ```
//!
//! Nothing in the picture is made up: each mark is a handshake, and each bar is read from the identities.
//! Exits with 1 when a connection failed.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};
use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain, X509Svid};

type Failure = Box<dyn Error>;

const NODES: usize = 3;
const TICKS: usize = 60;
/// The tick at which a step begins. A node takes it so many ticks later as its number is.
const STEPS: [(usize, &str); 4] = [(6, "prepare"), (14, "publish"), (28, "activate"), (44, "retire")];
const SVID_VALIDITY: Duration = Duration::from_secs(3600);

/// What one node had and did at one tick.
#[derive(Clone, Copy)]
struct Seen {
    trusts: [bool; 2],
    signed_by: usize,
    connected: usize,
    failed: usize,
}

fn main() -> Result<ExitCode, Failure> {
    let domain = TrustDomain::parse("example.org")?;
    let authorities = [new_authority(&domain)?, new_authority(&domain)?];
    let nodes = (1..=NODES).map(|number| {
        Identity::new(issue(&authorities[0], number)?, authorities[0].bundle()).map_err(Failure::from)
    });
    let nodes: Vec<Identity> = nodes.collect::<Result<_, Failure>>()?;
    let mut both = authorities[0].bundle();
    both.extend(&authorities[1].bundle())?;

    let mut signed_by = [0; NODES];
    let mut timeline: Vec<Vec<Seen>> = Vec::new();
    for tick in 0..TICKS {
        for (node, number) in nodes.iter().zip(1..) {
            let takes = |step: usize| tick == STEPS[step].0 + number;
            if takes(1) {
                node.set_bundle(both.clone())?;
            } else if takes(2) {
                node.rotate(issue(&authorities[1], number)?)?;
                signed_by[number - 1] = 1;
            } else if takes(3) {
                node.set_bundle(authorities[1].bundle())?;
            }
        }
        let seen = nodes.iter().enumerate().map(|(place, node)| {
            let trusted = node.trust_bundle();
            let trusts = |authority: &Authority| trusted.authorities().contains(authority.certificate());
            let others = nodes.iter().enumerate().filter(|(other, _)| *other != place);
            let results: Vec<bool> = others.map(|(_, other)| connects(node, other).is_ok()).collect();
            let connected = results.iter().filter(|connected| **connected).count();
            Seen {
                trusts: authorities.each_ref().map(trusts),
                signed_by: signed_by[place],
                connected,
                failed: results.len() - connected,
            }
        });
        timeline.push(seen.collect());
    }

    let all = || timeline.iter().flatten();
    let (connected, failed) =
        (all().map(|seen| seen.connected).sum::<usize>(), all().map(|seen| seen.failed).sum::<usize>());
    println!("{connected} connections, {failed} of them failed");
    if let Some(out) = std::env::args().nth(1) {
        std::fs::write(&out, draw(&timeline, connected, failed)?)?;
        println!("{out}");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn new_authority(domain: &TrustDomain) -> Result<Authority, Failure> {
    Ok(Authority::new(domain.clone(), &AuthorityOptions::default())?)
}

fn issue(authority: &Authority, number: usize) -> Result<X509Svid, Failure> {
    let node = NodeId::new(u64::try_from(number)?).ok_or("zero names no node")?;
    Ok(authority.issue(&SpiffeId::for_node(authority.trust_domain(), node), SVID_VALIDITY)?)
}

/// A full handshake in memory.
fn connects(from: &Identity, to: &Identity) -> Result<(), rustls::Error> {
    let name = ServerName::try_from("nobody.invalid").map_err(|_| rustls::Error::General("name".into()))?;
    let mut client = ClientConnection::new(from.client_config(), name)?;
    let mut server = ServerConnection::new(to.server_config())?;
    let broken = |error: std::io::Error| rustls::Error::General(error.to_string());
    // A handshake takes three flights; each round carries one each way.
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).map_err(broken)?;
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).map_err(broken)?;
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).map_err(broken)?;
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).map_err(broken)?;
            client.process_new_packets()?;
        }
    }
    if client.is_handshaking() || server.is_handshaking() {
        return Err(rustls::Error::HandshakeNotComplete);
    }
    Ok(())
}

const LEFT: usize = 130;
const TICK: usize = 11;
const ROW: usize = 22;

fn draw(timeline: &[Vec<Seen>], connected: usize, failed: usize) -> Result<String, std::fmt::Error> {
    let x = |tick: usize| LEFT + tick * TICK;
    let (width, height) = (x(TICKS) + 16, 64 + 9 * ROW + 44);
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"The replacement of an authority as a timeline\">\n\
         <!-- Written by the example root_rotation. -->\n<style>\n\
         text {{ font-family: ui-sans-serif, system-ui, sans-serif; font-size: 12px; fill: #24292f }}\n\
         .old {{ fill: #bf8700 }} .new {{ fill: #1a7f37 }} .failed {{ fill: #cf222e }}\n\
         path {{ stroke: #8c959f; stroke-dasharray: 3 3 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} }}\n</style>"
    )?;
    for (tick, name) in STEPS {
        writeln!(
            svg,
            "<path d=\"M{0} 34 V{1}\"/><text x=\"{0}\" y=\"26\" text-anchor=\"middle\">{name}</text>",
            x(tick),
            height - 40
        )?;
    }
    // A bar for each run of ticks with the same value, in rows of three nodes each.
    let mut y = 44;
    for (title, authority) in [("trusts the old one", 0), ("trusts the new one", 1)] {
        for node in 0..NODES {
            label(&mut svg, y, node, title)?;
            bars(&mut svg, timeline, y, |seen| seen[node].trusts[authority].then_some(authority))?;
            y += ROW;
        }
        y += 8;
    }
    for node in 0..NODES {
        label(&mut svg, y, node, "SVID, connections")?;
        bars(&mut svg, timeline, y, |seen| Some(seen[node].signed_by))?;
        for (tick, seen) in timeline.iter().enumerate() {
            let class = if seen[node].failed > 0 {
                "failed"
            } else if seen[node].signed_by == 0 {
                "old"
            } else {
                "new"
            };
            writeln!(
                svg,
                "<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"2\"/>",
                x(tick) + TICK / 2,
                y + 15
            )?;
        }
        y += ROW;
    }
    writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\">old authority: yellow; new authority: green. Each dot: two connections to the other nodes. \
         {connected} connections, {failed} failed.</text>\n</svg>",
        height - 14
    )?;
    Ok(svg)
}

fn label(svg: &mut String, y: usize, node: usize, title: &str) -> std::fmt::Result {
    let text = if node == 0 { title.to_string() } else { String::new() };
    writeln!(
        svg,
        "<text x=\"8\" y=\"{}\">{text}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        y + 11,
        LEFT - 6,
        y + 11,
        node + 1
    )
}

fn bars(
    svg: &mut String,
    timeline: &[Vec<Seen>],
    y: usize,
    value: impl Fn(&[Seen]) -> Option<usize>,
) -> std::fmt::Result {
    let mut begun = 0;
    for tick in 1..=timeline.len() {
        let current = value(&timeline[begun]);
        if tick < timeline.len() && value(&timeline[tick]) == current {
            continue;
        }
        if let Some(authority) = current {
            let class = ["old", "new"][authority];
            let (from, len) = (LEFT + begun * TICK, (tick - begun) * TICK - 1);
            writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{from}\" y=\"{y}\" width=\"{len}\" height=\"10\" rx=\"3\"/>"
            )?;
        }
        begun = tick;
    }
    Ok(())
}
