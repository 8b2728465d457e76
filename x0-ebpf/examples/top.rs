//! A live table of the links and the peers of this machine:
//! `cargo run -p x0-ebpf --example top --features ebpf,netlink -- --ebpf eth0`.
//!
//! `--ebpf LINK`, once for each link, attaches the programs, which takes rights; without it the table is the
//! kernel's own counters. `--once` prints it once, `--json` for machines, `--interval SECONDS` sets the pace,
//! 1 by default. The head says which backend counts and why none that is better.
#![allow(clippy::print_stdout, reason = "a program with a table to print")]

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use x0_ebpf::LinkStats;
use x0_ebpf::stats::{
    DirectionCounters, LinkCounters, PeerCounters, ProcNetDevSource, ReadError, RtnetlinkSource, open,
};

const USAGE: &str = "usage: top [--ebpf LINK]... [--once] [--json] [--interval SECONDS]";
/// Peers shown in the live table; the JSON has them all.
const PEERS_SHOWN: usize = 30;

struct Arguments {
    ebpf: Vec<String>,
    once: bool,
    json: bool,
    interval: Duration,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed =
            Self { ebpf: Vec::new(), once: false, json: false, interval: Duration::from_secs(1) };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--ebpf" => parsed.ebpf.push(arguments.next().ok_or("--ebpf takes the name of a link")?),
                "--once" => parsed.once = true,
                "--json" => parsed.json = true,
                "--interval" => {
                    let seconds = arguments.next().and_then(|text| text.parse::<f64>().ok());
                    // Below 50 ms reading the counters would be what is counted.
                    let seconds = seconds.filter(|seconds| (0.05..=3600.0).contains(seconds));
                    parsed.interval =
                        Duration::from_secs_f64(seconds.ok_or("--interval takes 0.05 to 3600 seconds")?);
                }
                other => return Err(format!("{other}: not known; {USAGE}")),
            }
        }
        Ok(parsed)
    }
}

/// The counters at one moment.
struct Reading {
    at: Instant,
    links: Vec<LinkCounters>,
    /// Or why there are none.
    peers: Result<Vec<PeerCounters>, String>,
}

impl Reading {
    fn take(stats: &mut dyn LinkStats) -> Result<Self, ReadError> {
        let (mut links, mut peers) = (Vec::new(), Vec::new());
        stats.links(&mut links)?;
        let peers = match stats.peers(&mut peers) {
            // The first ones are there, and are better than none.
            Ok(()) | Err(ReadError::TooMany { .. }) => Ok(peers),
            Err(error) => Err(error.to_string()),
        };
        Ok(Self { at: Instant::now(), links, peers })
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the table may have closed the pipe.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("top: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    #[cfg(feature = "ebpf")]
    let ebpf = x0_ebpf::stats::EbpfSource::new(arguments.ebpf);
    #[cfg(not(feature = "ebpf"))]
    let ebpf = x0_ebpf::stats::EbpfNotAttached;
    let mut stats = open(&[&ebpf, &RtnetlinkSource, &ProcNetDevSource])?;
    let mut out = io::stdout();
    let live = out.is_terminal() && !arguments.once && !arguments.json;
    let mut before: Option<Reading> = None;
    if arguments.once && stats.backend().kind() == x0_ebpf::stats::BackendKind::Ebpf {
        // Attached this moment, the programs have seen nothing yet.
        thread::sleep(arguments.interval);
    }
    loop {
        let now = Reading::take(&mut *stats)?;
        let mut text = String::new();
        if arguments.json {
            json(&mut text, &*stats, &now)?;
        } else {
            if live {
                text.push_str("\x1b[H\x1b[2J"); // ECMA-48: home, erase the page.
            }
            table(&mut text, &*stats, &now, before.as_ref())?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if arguments.once {
            return Ok(());
        }
        before = Some(now);
        thread::sleep(arguments.interval);
    }
}

fn table(
    text: &mut String,
    stats: &dyn LinkStats,
    now: &Reading,
    before: Option<&Reading>,
) -> std::fmt::Result {
    writeln!(text, "counted by {}", stats.backend().kind())?;
    for passed in stats.backend().passed_over() {
        writeln!(text, "  {passed}")?;
    }
    let per = if before.is_some() { "/s" } else { "" };
    writeln!(
        text,
        "\n{:<16}{:>12}{:>12}{:>8}{:>8}{:>12}{:>12}{:>8}{:>8}",
        "link",
        format!("rx pkt{per}"),
        format!("rx B{per}"),
        "errors",
        "drops",
        format!("tx pkt{per}"),
        format!("tx B{per}"),
        "errors",
        "drops"
    )?;
    for link in &now.links {
        let earlier = before.and_then(|before| {
            let same = before.links.iter().find(|old| old.name == link.name && old.index == link.index)?;
            Some((same, now.at - before.at))
        });
        write!(text, "{:<16}", printable(&link.name))?;
        for (counters, old) in [
            (link.rx, earlier.map(|(old, passed)| (old.rx, passed))),
            (link.tx, earlier.map(|(old, passed)| (old.tx, passed))),
        ] {
            let (packets, bytes) = shown(counters, old);
            write!(text, "{packets:>12}{bytes:>12}{:>8}{:>8}", counters.errors, counters.drops)?;
        }
        text.push('\n');
    }
    text.push('\n');
    match &now.peers {
        Err(reason) => writeln!(text, "no peers: {reason}"),
        Ok(peers) => peer_table(text, peers),
    }
}

/// Per second if there is an earlier reading, else the sums.
fn shown(now: DirectionCounters, old: Option<(DirectionCounters, Duration)>) -> (String, String) {
    let Some((old, passed)) = old else { return (scaled(now.packets), scaled(now.bytes)) };
    let rate = |now: u64, old: u64| {
        let nanoseconds = passed.as_nanos().max(1);
        let rate = u128::from(now.saturating_sub(old)) * 1_000_000_000 / nanoseconds;
        scaled(u64::try_from(rate).unwrap_or(u64::MAX))
    };
    (rate(now.packets, old.packets), rate(now.bytes, old.bytes))
}

/// At most seven characters.
fn scaled(number: u64) -> String {
    let units =
        [(1_000_000_000_000_000, "P"), (1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M")];
    units
        .iter()
        .find(|(unit, _)| number >= unit * 10)
        .map_or_else(|| number.to_string(), |(unit, name)| format!("{} {name}", number / unit))
}

fn peer_table(text: &mut String, peers: &[PeerCounters]) -> std::fmt::Result {
    writeln!(
        text,
        "{:<40}{:>10}{:>10}{:>10}{:>10}{:>7}{:>11}{:>8}",
        "peer", "rx pkt", "rx B", "tx pkt", "tx B", "tcp", "rtt", "resent"
    )?;
    // The rates of peers would take a look-up of each in the earlier reading: sums will do.
    let bytes = |peer: &PeerCounters| {
        let ways = [peer.rx, peer.tx].map(|way| way.map_or(0, |way| way.bytes));
        let tcp = peer.tcp.map_or(0, |tcp| tcp.bytes_acknowledged.saturating_add(tcp.bytes_received));
        ways.iter().fold(tcp, |sum, bytes| sum.saturating_add(*bytes))
    };
    let mut peers: Vec<_> = peers.iter().collect();
    peers.sort_by_key(|peer| std::cmp::Reverse(bytes(peer)));
    for peer in peers.iter().take(PEERS_SHOWN) {
        write!(text, "{:<40}", peer.address.to_string())?;
        for way in [peer.rx, peer.tx] {
            let cell = |number: Option<u64>| number.map_or_else(|| "-".into(), scaled);
            write!(text, "{:>10}{:>10}", cell(way.map(|way| way.packets)), cell(way.map(|way| way.bytes)))?;
        }
        let rtt = peer.tcp.and_then(|tcp| tcp.rtt);
        let rtt = rtt.map_or_else(|| "-".into(), |rtt| format!("{:.2} ms", rtt.as_secs_f64() * 1e3));
        let cell = |number: Option<u64>| number.map_or_else(|| "-".into(), |number| number.to_string());
        let connections = cell(peer.tcp.map(|tcp| tcp.connections.into()));
        writeln!(text, "{connections:>7}{rtt:>11}{:>8}", cell(peer.tcp.map(|tcp| tcp.retransmits)))?;
    }
    if peers.len() > PEERS_SHOWN {
        writeln!(text, "and {} more", peers.len() - PEERS_SHOWN)?;
    }
    Ok(())
}

/// A link's name may hold any byte but a slash and a blank; a terminal must not obey it.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// One object on one line.
fn json(text: &mut String, stats: &dyn LinkStats, now: &Reading) -> std::fmt::Result {
    let backend = stats.backend();
    write!(text, "{{\"backend\":{},\"passed_over\":[", quoted(backend.kind().name()))?;
    for (n, passed) in backend.passed_over().iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let reason = passed.reason.to_string();
        write!(text, "{comma}{{\"backend\":{},\"reason\":{}}}", quoted(passed.kind.name()), quoted(&reason))?;
    }
    text.push_str("],\"links\":[");
    for (n, link) in now.links.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let index = link.index.map_or_else(|| "null".into(), |index| index.to_string());
        write!(text, "{comma}{{\"name\":{},\"index\":{index}", quoted(&link.name))?;
        for (way, counters) in [("rx", link.rx), ("tx", link.tx)] {
            direction(text, way, counters)?;
        }
        text.push('}');
    }
    text.push(']');
    match &now.peers {
        Err(reason) => write!(text, ",\"peers\":null,\"no_peers\":{}", quoted(reason))?,
        Ok(peers) => {
            text.push_str(",\"peers\":[");
            for (n, peer) in peers.iter().enumerate() {
                let comma = if n == 0 { "" } else { "," };
                write!(text, "{comma}{{\"address\":\"{}\"", peer.address)?;
                for (way, counters) in [("rx", peer.rx), ("tx", peer.tx)] {
                    if let Some(counters) = counters {
                        direction(text, way, counters)?;
                    }
                }
                if let Some(tcp) = peer.tcp {
                    let rtt = tcp.rtt.map_or_else(|| "null".into(), |rtt| rtt.as_micros().to_string());
                    write!(
                        text,
                        ",\"tcp\":{{\"connections\":{},\"rtt_us\":{rtt},\"retransmits\":{},\
                         \"bytes_acknowledged\":{},\"bytes_received\":{}}}",
                        tcp.connections, tcp.retransmits, tcp.bytes_acknowledged, tcp.bytes_received
                    )?;
                }
                text.push('}');
            }
            text.push(']');
        }
    }
    text.push_str("}\n");
    Ok(())
}

fn direction(text: &mut String, way: &str, counters: DirectionCounters) -> std::fmt::Result {
    write!(
        text,
        ",\"{way}\":{{\"packets\":{},\"bytes\":{},\"errors\":{},\"drops\":{}}}",
        counters.packets, counters.bytes, counters.errors, counters.drops
    )
}

/// RFC 8259 section 7.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    // Writing to a string does not fail.
                    let _ = write!(quoted, "\\u{unit:04x}");
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
