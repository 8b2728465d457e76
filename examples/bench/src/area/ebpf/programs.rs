//! The cost of the programs per packet.

use std::num::NonZeroU64;

use anyhow::{Context, Result, ensure};
use x0_ebpf::testing::{Runner, Verdict};
use x0_ebpf::{Action, Filter, LinkOptions, LinkProgram, PeerBy, Point, Prefix, Rate, Source};

use super::packet::udp;
use super::{Options, xdp_filter};
use crate::case::{Case, Metric};

const TIME: Metric = Metric { name: "packet", unit: "ns" };
/// The maximum time of the whole program, in times of an empty program.
const OF_EMPTY: f64 = 3.0;
/// A source that a rule blocks, and one that no rule blocks.
const BLOCKED: [u8; 4] = [192, 0, 2, 9];
const PASSED: [u8; 4] = [10, 0, 0, 1];

pub(super) fn measure(options: &Options) -> Result<Vec<Case>> {
    let rate = Rate::packets(NonZeroU64::MIN.saturating_add(999_999_999), 1_000).context("a rate")?;
    let flows = LinkOptions::default().flows_max(1024);
    let rates = LinkOptions::default().peer_rate(true);
    let mut rated = LinkProgram::load(rates)?;
    rated.set_peer_rate(Some(rate))?;
    let whole = "counters, the filter with four rules that miss, and peers (LRU)";
    let mut link = beside_empty(options, "link program", whole, LinkProgram::load(LinkOptions::default())?)?;
    let most = link.median(TIME, 1).unwrap_or(f64::NAN) * OF_EMPTY;
    link.aim("link, prefixes and peers, beside three empty passes", link.median(TIME, 0), most, "ns");
    Ok(vec![
        link,
        beside_empty(options, "with flows", "all of that and the flow table", LinkProgram::load(flows)?)?,
        beside_empty(options, "with a rate", "all of that and a rate for each peer, without flows", rated)?,
        decision(options, "blocked", BLOCKED)?,
        decision(options, "passed", PASSED)?,
    ])
}

fn beside_empty(options: &Options, name: &str, does: &str, mut program: LinkProgram) -> Result<Case> {
    let how = format!("The link program at XDP with {does}, beside an empty program.");
    let mut case = Case::new("ebpf", name, how, vec!["x0-ebpf".into(), "empty program".into()]);
    rules(&mut program.filter()?)?;
    let ours = program.runner(Point::Xdp)?;
    let empty = program.runner_empty()?;
    let packet = udp(PASSED);
    for turn in 0..options.turns {
        for place in 0..2 {
            let system = (place + turn) % 2;
            let runner = if system == 0 { &ours } else { &empty };
            case.add(TIME, system, time(runner, &packet, options, Verdict::Pass)?);
        }
    }
    Ok(case)
}

/// Blocking and passing by a list: x0-ebpf by prefixes of any length, xdp-filter by whole addresses.
fn decision(options: &Options, name: &str, source: [u8; 4]) -> Result<Case> {
    let how = format!(
        "A packet that is {name} by a list of networks (x0-ebpf: counters, filter with a /24 and three more, no peers) or of addresses\n\
         (xdp-filter's alw_ip with the same address), beside an empty program."
    );
    let mut case = Case::new(
        "ebpf",
        format!("decision, {name}"),
        how,
        vec!["x0-ebpf".into(), "xdp-filter alw_ip".into(), "empty program".into()],
    );
    let mut program = LinkProgram::load(LinkOptions::default().peer_by(PeerBy::Nothing))?;
    rules(&mut program.filter()?)?;
    let ours = program.runner(Point::Xdp)?;
    let empty = program.runner_empty()?;
    let packet = udp(source);
    let verdict = if source == BLOCKED { Verdict::Drop } else { Verdict::Pass };
    let peer = xdp_filter::Loaded::new(&packet, BLOCKED);
    if let Err(error) = &peer {
        case.miss(1, format!("{error:#}"));
    }
    for turn in 0..options.turns {
        for place in 0..3 {
            match ((place + turn) % 3, &peer) {
                (0, _) => case.add(TIME, 0, time(&ours, &packet, options, verdict)?),
                (1, Ok(peer)) => case.add(TIME, 1, peer.time(options.runs, source == BLOCKED)?),
                (1, Err(_)) => {}
                _ => case.add(TIME, 2, time(&empty, &packet, options, Verdict::Pass)?),
            }
        }
    }
    if let Some(most) = case.median(TIME, 1) {
        case.aim("decision, beside xdp-filter", case.median(TIME, 0), most, "ns");
    }
    Ok(case)
}

fn rules(filter: &mut Filter<'_>) -> Result<()> {
    for text in ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.7/32", "2001:db8:1::/48"] {
        filter.insert(Source::Network(text.parse::<Prefix>().context("a prefix")?), Action::Drop)?;
    }
    Ok(())
}

/// The time of a packet in ns. The verdict must be the expected one.
fn time(runner: &Runner, packet: &[u8], options: &Options, verdict: Verdict) -> Result<f64> {
    let run = runner.run(packet, options.runs)?;
    ensure!(run.verdict == verdict, "the program returned another verdict: {:?}", run.verdict);
    Ok(f64::from(run.duration_ns))
}
