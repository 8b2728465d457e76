//! The healer of links with a real kernel: the link that routes name is cut, and frames take the other one.
#![cfg(all(feature = "ebpf", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use x0_ebpf::testing::{Frame, Generator, Namespace, Receiver, VethPair};
use x0_ebpf::{PathAddresses, PathId, SteerError, SteerPath, Steering};
use x0_mapek::Mode;
use x0_mapek::ebpf::{HealerOptions, Observation, Quality, carry_out, observe};

/// The frames of a probe.
const PROBES: u32 = 10;

/// What the machine does not allow is skipped; under CI it must.
fn allowed<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(found) => Some(found),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            println!("not tested: {error}");
            None
        }
    }
}

/// Sends frames, and returns how many are there at each end.
fn probe(generator: &mut Generator, frame: &Frame, ends: &mut [Receiver; 2]) -> [u32; 2] {
    for number in 0..u64::from(PROBES) {
        // A cut link refuses them.
        let _ = generator.send(&frame.clone().number(number).build());
    }
    ends.each_mut().map(|end| {
        let mut arrived = 0;
        // The second error is not that of a link that has just been cut.
        let mut patience = 2;
        while patience > 0 {
            match end.receive() {
                Ok(Some(_)) => arrived += 1,
                Ok(None) => break,
                Err(_) => patience -= 1,
            }
        }
        arrived
    })
}

#[test]
fn a_link_that_is_cut_is_left() {
    let (Some(here), Some(there)) = (allowed(Namespace::new()), allowed(Namespace::new())) else { return };
    let Some(mut steering) = allowed(Steering::load()) else { return };
    let (mut first, second) = (VethPair::new(&here, &there).unwrap(), VethPair::new(&here, &there).unwrap());
    let (name, other) = (first.left().name().to_owned(), second.left().name().to_owned());
    let add = || -> Result<[PathId; 2], SteerError> {
        let own = steering.add_path(&SteerPath { interface: name.clone(), addresses: None })?;
        let addresses = PathAddresses { target: second.right().mac(), source: second.left().mac() };
        let detour =
            steering.add_path(&SteerPath { interface: other.clone(), addresses: Some(addresses) })?;
        steering.steer(&name, own)?;
        Ok([own, detour])
    };
    let ids = here.run(add).unwrap().unwrap();
    let paths: BTreeMap<u32, PathId> = (0..).zip(ids).collect();
    let mut generators = [&first, &second].map(|pair| Generator::open(&here, pair.left()).unwrap());
    let mut ends = [&first, &second].map(|pair| Receiver::open(&there, pair.right()).unwrap());
    let frames = [&first, &second].map(|pair| Frame::between(pair.left(), pair.right()));

    let mut healer = HealerOptions::new().mode(Mode::Active).healer();
    let (mut flips, mut events, mut after) = (0, Vec::new(), [0; 2]);
    for step in 0..150 {
        if step == 80 {
            first.cut().unwrap();
        }
        let now = Duration::from_millis(100) * step;
        let used = if steering.path_of(&name).unwrap() == ids[0] { 0 } else { 1 };
        after = probe(&mut generators[0], &frames[0], &mut ends);
        let steered = after[used];
        let [_, detour] = probe(&mut generators[1], &frames[1], &mut ends);
        let quality = |arrived: u32| Quality::new(1.0 - f64::from(arrived.min(PROBES)) / f64::from(PROBES));
        // What is sent through the steered interface says nothing of the path that it does not take.
        let own = if used == 0 { quality(steered) } else { Quality::new(1.0) };
        let qualities = [(0, own), (1, quality(detour))];
        let used = u32::try_from(used).unwrap();
        observe(&mut healer, now, &[Observation::new(&name, used, qualities)]);
        let flip = |action: &_| {
            flips += 1;
            carry_out(&mut steering, &paths, action)
        };
        events.extend(healer.drain(now, flip).unwrap());
    }
    assert_eq!((flips, after), (1, [0, PROBES]), "{events:?}");
    assert!(events.iter().any(|record| record.event.name() == "improved"), "{events:?}");
    assert!(steering.counters(ids[1]).unwrap().packets >= u64::from(PROBES) * 50);
}
