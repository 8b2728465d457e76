//! A block list on a link:
//! `cargo run -p x0-ebpf --example block --features ebpf,testing -- eth0 192.0.2.0/24 2001:db8::/32`.
//!
//! Drops packets from these networks before the network stack sees them, and prints the counters of each rule
//! once a second until Ctrl-C, which removes the list. `--allow PREFIX` is an exception from a shorter
//! prefix; `--seconds N` ends the program by itself. `--try` runs it on a link in namespaces of its own and
//! fails if a packet is dropped or passed wrongly.
#![allow(clippy::print_stdout, reason = "a program with a table to print")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use x0_ebpf::testing::{Frame, Generator, Namespace, Receiver, VethPair};
use x0_ebpf::{Action, AttachPolicy, Attached, LinkOptions, LinkProgram, Prefix, Source};

const USAGE: &str = "usage: block LINK [--seconds N] [--allow PREFIX]... PREFIX...\n       block --try";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("--help" | "-h") | None => {
            println!("{USAGE}");
            Ok(())
        }
        Some("--try") => try_it(),
        Some(link) => run(link, &arguments[1..]),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("block: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The message of an error with those of its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn run(link: &str, arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let mut rules = Vec::new();
    let mut end = None;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value\n{USAGE}"));
        match argument.as_str() {
            "--allow" => rules.push((Source::Network(value()?.parse()?), Action::Pass)),
            "--seconds" => end = Some(Instant::now() + Duration::from_secs(value()?.parse()?)),
            prefix => rules.push((Source::Network(prefix.parse()?), Action::Drop)),
        }
    }
    if rules.is_empty() {
        return Err(format!("no prefix to block was given\n{USAGE}").into());
    }
    let mut program = load(&rules)?;
    say(&program.attach_xdp(link, AttachPolicy::default())?);
    while end.is_none_or(|end| Instant::now() < end) {
        thread::sleep(Duration::from_secs(1));
        table(&mut program)?;
    }
    Ok(())
}

fn load(rules: &[(Source, Action)]) -> Result<LinkProgram, Box<dyn Error>> {
    let rules_max = u32::try_from(rules.len().max(64))?;
    let mut program = LinkProgram::load(LinkOptions::default().rules_max(rules_max))?;
    program.filter()?.insert_all(rules.iter().copied())?;
    Ok(program)
}

fn say(attached: &Attached) {
    println!("attached to {} at {:?}, mode {:?}", attached.interface, attached.point, attached.mode);
    if let Some(fallback) = attached.fallback {
        println!("not in native mode: {fallback}");
    }
}

fn table(program: &mut LinkProgram) -> Result<(), Box<dyn Error>> {
    let filter = program.filter()?;
    let rules: Vec<(Source, Action)> = filter.rules().collect();
    println!("\n{:<44}{:<8}{:>12}{:>14}", "network", "action", "packets", "bytes");
    for (source, action) in rules {
        let Source::Network(prefix) = source else { continue };
        let met = filter.counters(&source)?.unwrap_or_default();
        let does = if action == Action::Drop { "drop" } else { "pass" };
        println!("{:<44}{does:<8}{:>12}{:>14}", prefix.to_string(), met.packets, met.bytes);
    }
    Ok(())
}

/// 192.0.2.0/24 is blocked except 192.0.2.128/25; 1,000 packets each from inside, from the exception and from
/// outside.
fn try_it() -> Result<(), Box<dyn Error>> {
    const PACKETS: u64 = 1_000;
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    let pair = VethPair::new(&here, &there)?;
    let network = |text: &str| Ok::<_, Box<dyn Error>>(Source::Network(text.parse::<Prefix>()?));
    let (blocked, allowed) = (network("192.0.2.0/24")?, network("192.0.2.128/25")?);
    let mut program = load(&[(blocked, Action::Drop), (allowed, Action::Pass)])?;
    say(&there.run(|| program.attach_xdp(pair.right().name(), AttachPolicy::default()))??);
    let mut generator = Generator::open(&here, pair.left())?;
    let mut receiver = Receiver::open(&there, pair.right())?;
    let mut expected = 0;
    for (source, passes) in [
        (Ipv4Addr::new(192, 0, 2, 1), false),
        (Ipv4Addr::new(192, 0, 2, 129), true),
        (Ipv4Addr::new(198, 51, 100, 1), true),
    ] {
        for number in 0..PACKETS {
            generator
                .send(&Frame::between(pair.left(), pair.right()).source(source).number(number).build())?;
            expected += u64::from(passes);
            receiver.wait(expected, Duration::from_secs(10))?;
        }
        println!("{PACKETS} packets from {source}: {}", if passes { "passed" } else { "dropped" });
    }
    table(&mut program)?;
    let filter = program.filter()?;
    let met =
        |source| Ok::<_, Box<dyn Error>>(filter.counters(&source)?.map_or(0, |counters| counters.packets));
    let (dropped, passed) = (met(blocked)?, met(allowed)?);
    // A wrongly dropped packet would have failed the wait above; a wrongly passed one is in the receiver now.
    if (dropped, passed, receiver.receive()?.is_some()) != (PACKETS, PACKETS, false) {
        return Err(format!(
            "{dropped} packets matched the block list and {passed} the exception, of {PACKETS} each"
        )
        .into());
    }
    Ok(())
}
