//! Repeatable faults on a link:
//! `cargo run -p x0-ebpf --example chaos --features ebpf,testing -- eth0 --loss 10 --duplicate 1 --seed 7`.
//!
//! `--loss`, `--duplicate` and `--corrupt` take a percentage; `--blackhole` drops every packet;
//! `--peer ADDRESS` limits the faults to one peer. `--out` affects sent packets instead of received ones and
//! needs `--seconds`, because its filter outlives a Ctrl-C. The same seed has the same effect on the n-th
//! packet. The program prints the effects once a second until Ctrl-C or for `--seconds N` and then removes
//! the faults. `--try` runs it on a link of its own and fails if the lost packets differ from those of the
//! seed.
#![allow(clippy::print_stdout, reason = "a program with a table to print")]

use std::error::Error;
use std::net::IpAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use x0_ebpf::testing::{Frame, Generator, Namespace, Receiver, VethPair};
use x0_ebpf::{Direction, Fault, FaultCounters, FaultInjector, Outcome, Share};

const USAGE: &str = "usage: chaos LINK [--loss PERCENT] [--duplicate PERCENT] [--corrupt PERCENT] [--blackhole]\n             \
                     [--peer ADDRESS] [--out] [--seed N] [--seconds N]\n       chaos --try";

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
            eprintln!("chaos: {}", chain(error.as_ref()));
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
    let (mut fault, mut peer, mut direction, mut end) = (Fault::default(), None, Direction::In, None);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value\n{USAGE}"));
        match argument.as_str() {
            "--loss" => fault.loss = share(value()?)?,
            "--duplicate" => fault.duplicate = share(value()?)?,
            "--corrupt" => fault.corrupt = share(value()?)?,
            "--blackhole" => fault.blackhole = true,
            "--peer" => peer = Some(value()?.parse::<IpAddr>()?),
            "--out" => direction = Direction::Out,
            "--seed" => fault.seed = value()?.parse()?,
            "--seconds" => end = Some(Instant::now() + Duration::from_secs(value()?.parse()?)),
            other => return Err(format!("unknown argument {other}\n{USAGE}").into()),
        }
    }
    if fault == (Fault { seed: fault.seed, ..Fault::default() }) {
        return Err(format!("no fault was given\n{USAGE}").into());
    }
    if direction == Direction::Out && end.is_none() {
        // A TC filter, which only an orderly end removes.
        return Err(
            format!("--out needs --seconds N: a Ctrl-C would leave the fault on the link\n{USAGE}").into()
        );
    }
    let mut injector = FaultInjector::load()?;
    injector.attach(link, direction)?;
    injector.set(direction, peer, fault)?;
    println!("faults: {fault:?}");
    while end.is_none_or(|end| Instant::now() < end) {
        thread::sleep(Duration::from_secs(1));
        println!("{}", done(injector.counters(direction, peer)?.unwrap_or_default()));
    }
    Ok(())
}

/// A percentage with up to four decimal places.
fn share(percent: &str) -> Result<Share, Box<dyn Error>> {
    let refused = || {
        format!(
            "{percent} is not a percentage: write a number from 0 to 100 with at most four decimal places"
        )
    };
    let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
    if part.len() > 4 {
        return Err(refused().into());
    }
    let digits = format!("{whole}{part:0<4}");
    let millionths = digits.parse::<u32>().ok().and_then(Share::millionths);
    Ok(millionths.ok_or_else(refused)?)
}

fn done(counters: FaultCounters) -> String {
    let of = |count: u64| {
        let share = count as f64 * 100.0 / counters.packets.max(1) as f64;
        format!("{count} ({share:.2} %)")
    };
    let FaultCounters { packets, dropped, duplicated, corrupted, .. } = counters;
    format!(
        "{packets} packets: {} dropped, {} duplicated, {} corrupted",
        of(dropped),
        of(duplicated),
        of(corrupted)
    )
}

/// Loses 10 % and duplicates 2 % of 10,000 packets.
fn try_it() -> Result<(), Box<dyn Error>> {
    const PACKETS: u64 = 10_000;
    const LEN: usize = 100;
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    let pair = VethPair::new(&here, &there)?;
    let fault = Fault { seed: 7, loss: share("10")?, duplicate: share("2")?, ..Fault::default() };
    let mut injector = FaultInjector::load()?;
    there.run(|| injector.attach(pair.right().name(), Direction::In))??;
    injector.set(Direction::In, None, fault)?;
    println!("faults: {fault:?}");
    let mut generator = Generator::open(&here, pair.left())?;
    let mut receiver = Receiver::open(&there, pair.right())?;
    let mut expected = 0;
    for number in 0..PACKETS {
        let frame = Frame::between(pair.left(), pair.right()).number(number).len(LEN);
        generator.send(&frame.build())?;
        if let Outcome::Arrives { twice, .. } = fault.outcome(number, LEN as u64) {
            expected += 1 + u64::from(twice);
        }
        receiver.wait(expected, Duration::from_secs(10))?;
    }
    println!("{}", done(injector.counters(Direction::In, None)?.unwrap_or_default()));
    if receiver.receive()?.is_some() {
        return Err("more arrived than the seed says".into());
    }
    println!("{expected} arrived, as the seed says");
    Ok(())
}
