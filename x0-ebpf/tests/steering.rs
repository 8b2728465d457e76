//! Failover by a map flip: two links, ten thousand packets a second, one link cut.
#![cfg(all(feature = "ebpf", feature = "testing"))]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::cast_possible_truncation)]

mod common;
mod kernel;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kernel::granted;
use x0_ebpf::testing::{Frame, Generator, Receiver, VethPair};
use x0_ebpf::{PathAddresses, SteerError, SteerPath, Steering};

/// Drains a receiver: the numbers that are there.
fn drain(receiver: &mut Receiver, into: &mut BTreeSet<u64>) {
    let mut patience = 2;
    while patience > 0 {
        match receiver.receive() {
            Ok(Some(bytes)) => {
                into.insert(Frame::number_of(bytes).expect("a number"));
            }
            Ok(None) => return,
            // ENETDOWN once, when the link is cut: what arrived before it is still to be had.
            Err(_) => patience -= 1,
        }
    }
}

#[test]
fn after_the_flip_nothing_is_lost() {
    let (Some(here), Some(there)) = (common::namespace(), common::namespace()) else { return };
    let Some(mut steering) = granted(Steering::load()) else { return };
    let mut first = VethPair::new(&here, &there).expect("a pair");
    let second = VethPair::new(&here, &there).expect("a pair");
    let (name, other) = (first.left().name().to_owned(), second.left().name().to_owned());
    let (own, detour) = here
        .run(|| -> Result<_, SteerError> {
            let own = steering.add_path(&SteerPath { interface: name.clone(), addresses: None })?;
            let addresses = PathAddresses { target: second.right().mac(), source: second.left().mac() };
            let detour =
                steering.add_path(&SteerPath { interface: other.clone(), addresses: Some(addresses) })?;
            steering.steer(&name, own)?;
            Ok((own, detour))
        })
        .expect("entered")
        .expect("steered");
    let mut generator = Generator::open(&here, first.left()).expect("a generator");
    let mut on_first = Receiver::open(&there, first.right()).expect("a receiver");
    let mut on_second = Receiver::open(&there, second.right()).expect("a receiver");
    let (mut through_first, mut through_second) = (BTreeSet::new(), BTreeSet::new());
    let frame = Frame::between(first.left(), first.right());
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut flip_took = Duration::ZERO;
    let mut flipped_after = 0;
    let end = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let start = Instant::now();
            let mut number = 0u64;
            while !stop.load(Ordering::Acquire) {
                // An absolute deadline each: ten thousand a second, regardless of the duration of a send.
                let due = start + Duration::from_micros(100) * u32::try_from(number).expect("a short test");
                while Instant::now() < due {
                    std::hint::spin_loop();
                }
                // The packets that the cut link refuses before the flip are lost; after it no packet may be
                // refused.
                let _ = generator.send(&frame.clone().number(number).build());
                number += 1;
                sent.store(number, Ordering::Release);
            }
            number
        });
        let running = common::Stop(&stop);
        let wait = |number: u64, first: &mut Receiver, second: &mut Receiver, a: &mut _, b: &mut _| {
            common::until(|| {
                drain(first, a);
                drain(second, b);
                (sent.load(Ordering::Acquire) >= number).then_some(())
            });
        };
        wait(10_000, &mut on_first, &mut on_second, &mut through_first, &mut through_second);
        first.cut().expect("cut");
        wait(11_000, &mut on_first, &mut on_second, &mut through_first, &mut through_second);
        let start = Instant::now();
        steering.flip(&name, detour).expect("flipped");
        flip_took = start.elapsed();
        flipped_after = sent.load(Ordering::Acquire);
        wait(flipped_after + 20_000, &mut on_first, &mut on_second, &mut through_first, &mut through_second);
        drop(running);
        sender.join().expect("the sender")
    });
    common::until(|| {
        drain(&mut on_second, &mut through_second);
        through_second.contains(&(end - 1)).then_some(())
    });
    let lost: Vec<u64> = (flipped_after..end).filter(|number| !through_second.contains(number)).collect();
    println!(
        "flip took {flip_took:?}; of {} packets sent after it {} were lost; {} went through the first link before",
        end - flipped_after,
        lost.len(),
        through_first.len()
    );
    assert!(through_first.len() >= 9_990, "the first link carried {}", through_first.len());
    assert!(lost.len() <= 1, "lost after the flip: {lost:?}");
    assert!(steering.counters(detour).expect("read").packets >= 20_000);
    assert!(steering.counters(own).expect("read").packets >= 10_000);
}

#[test]
fn impossible_requests_are_refused_with_a_reason() {
    let (Some(here), Some(there)) = (common::namespace(), common::namespace()) else { return };
    let Some(mut steering) = granted(Steering::load()) else { return };
    let (first, second) =
        (VethPair::new(&here, &there).expect("a pair"), VethPair::new(&here, &there).expect("a pair"));
    let (a, b) = (first.left().name(), second.left().name());
    here.run(|| {
        let path = |interface: &str| SteerPath { interface: interface.to_owned(), addresses: None };
        let (to_a, to_b) =
            (steering.add_path(&path(a)).expect("a path"), steering.add_path(&path(b)).expect("a path"));
        assert!(matches!(steering.add_path(&path("nowhere")), Err(SteerError::Attach(_))));
        assert!(matches!(steering.flip(a, to_b), Err(SteerError::NotSteered(_))));
        steering.steer(a, to_b).expect("steered");
        assert!(matches!(steering.steer(a, to_a), Err(SteerError::Attach(_))));
        // a goes through b: b going through a would be a circle, and so is b being steered at all.
        assert!(matches!(steering.steer(b, to_a), Err(SteerError::Circle(_))));
        assert!(matches!(steering.steer(b, to_b), Err(SteerError::Circle(_))));
        assert_eq!(steering.path_of(a).expect("steered"), to_b);
        steering.release(a).expect("released");
        steering.steer(b, to_b).expect("steered");
        assert!(matches!(steering.steer(a, to_b), Err(SteerError::Circle(_))));
    })
    .expect("entered");
}
