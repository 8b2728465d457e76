//! Pins: a program taken over by the next process loses no packet and no count.
#![cfg(all(feature = "ebpf", feature = "testing"))]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::cast_possible_truncation)]

mod common;
mod kernel;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kernel::granted;
use x0_ebpf::testing::{Frame, Generator, Receiver, VethPair};
use x0_ebpf::{
    Action, AttachMode, AttachPolicy, LinkOptions, LinkProgram, LoadError, Peer, Point, Prefix, Source,
};

/// A bpffs of its own, unmounted in the end.
struct Mount {
    folder: tempfile::TempDir,
}

impl Mount {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            other => {
                assert!(std::env::var_os("CI").is_none(), "cannot mount a bpffs: {other:?}");
                println!("not tested: cannot mount a bpffs");
                None
            }
        }
    }

    fn pins(&self) -> PathBuf {
        self.folder.path().join("x0")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[test]
fn taken_over_without_losing_a_packet() {
    let (Some(mount), Some(here), Some(there)) = (Mount::new(), common::namespace(), common::namespace())
    else {
        return;
    };
    let pair = VethPair::new(&here, &there).expect("a pair");
    let options = || LinkOptions::default().pin(mount.pins());
    let Some(mut program) = granted(there.run(|| LinkProgram::load(options())).expect("entered")) else {
        return;
    };
    let name = pair.right().name();
    let attached = there
        .run(|| program.attach_xdp(name, AttachPolicy::NativeThenGeneric))
        .expect("entered")
        .expect("attached");
    assert!(attached.pinned && !attached.adopted);
    assert_eq!((attached.mode, attached.fallback), (Some(AttachMode::Native), None));
    let egress = there.run(|| program.attach_tc(name, Point::Egress)).expect("entered").expect("attached");
    let blocked = Source::Network("192.0.2.0/24".parse::<Prefix>().expect("a prefix"));
    program.filter().expect("a filter").insert(blocked, Action::Drop).expect("a rule");

    let mut generator = Generator::open(&here, pair.left()).expect("a generator");
    let mut receiver = Receiver::open(&there, pair.right()).expect("a receiver");
    let stop = AtomicBool::new(false);
    let mut held = Some(program);
    let restarts = 20;
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Acquire) {
                generator
                    .send_counted(&mut receiver, 1000, Duration::from_secs(10), |number| {
                        Frame::between(pair.left(), pair.right()).number(number).build()
                    })
                    .expect("none lost");
                sent += 1000;
            }
            sent
        });
        let running = common::Stop(&stop);
        for _ in 0..restarts {
            // The process ends, and the next one begins.
            drop(held.take());
            let program = there.run(|| LinkProgram::load(options())).expect("entered").expect("taken over");
            let adopted: Vec<_> = program.attachments().collect();
            assert_eq!(adopted.len(), if egress.pinned { 2 } else { 1 });
            assert!(adopted.iter().all(|attached| attached.adopted && attached.interface == name));
            held = Some(program);
        }
        drop(running);
        sender.join().expect("the sender")
    });
    let mut program = held.expect("the last one");
    let counters = program.interface(name, Point::Xdp).expect("counters");
    println!("{sent} packets over {restarts} restarts; the program counted {}", counters.packets);
    assert_eq!((counters.packets, counters.bytes, counters.dropped()), (sent, sent * 60, 0));
    let peer = program.peers().expect("peers")[&Peer::Address(pair.left().address().into())];
    assert_eq!((peer.rx_packets, peer.rx_bytes), (sent, sent * 60));

    // The rules went on, and can be changed: known to the new process, in force in the kernel.
    let blocked_frame =
        Frame::between(pair.left(), pair.right()).source("192.0.2.9".parse().expect("an address")).build();
    generator.send(&blocked_frame).expect("sent");
    let dropped = common::until(|| {
        let dropped = program.interface(name, Point::Xdp).expect("counters").dropped_rule;
        (dropped > 0).then_some(dropped)
    });
    assert_eq!(dropped, 1);
    let mut filter = program.filter().expect("a filter");
    assert_eq!(filter.rules().collect::<Vec<_>>(), [(blocked, Action::Drop)]);
    assert!(filter.remove(&blocked).expect("removed"));
    generator
        .send_counted(&mut receiver, 1, Duration::from_secs(10), |_| blocked_frame.clone())
        .expect("passed");

    // Other sizes do not fit what is pinned, and that is said before anything changes.
    let other = there.run(|| LinkProgram::load(options().rules_max(5000))).expect("entered");
    assert!(matches!(other, Err(LoadError::PinMismatch { .. })), "{other:?}");
    program.unload().expect("unloaded");
    assert!(!mount.pins().exists());
    generator
        .send_counted(&mut receiver, 1, Duration::from_secs(10), |_| blocked_frame.clone())
        .expect("passed");
}

#[test]
fn an_interface_that_went_is_forgotten() {
    let (Some(mount), Some(here), Some(there)) = (Mount::new(), common::namespace(), common::namespace())
    else {
        return;
    };
    let options = || LinkOptions::default().pin(mount.pins());
    let Some(mut program) = granted(there.run(|| LinkProgram::load(options())).expect("entered")) else {
        return;
    };
    let pair = VethPair::new(&here, &there).expect("a pair");
    let name = pair.right().name().to_owned();
    there.run(|| program.attach_xdp(&name, AttachPolicy::Native)).expect("entered").expect("attached");
    let again = there.run(|| program.attach_xdp(&name, AttachPolicy::Native)).expect("entered");
    assert!(matches!(again, Err(x0_ebpf::AttachError::Already(_))), "{again:?}");
    drop(program);
    drop(pair);
    let program = there.run(|| LinkProgram::load(options())).expect("entered").expect("taken over");
    assert_eq!(program.attachments().count(), 0);
    program.unload().expect("unloaded");
}

#[test]
fn the_policy_says_which_mode_and_why() {
    let (Some(here), Some(there)) = (common::namespace(), common::namespace()) else { return };
    let pair = VethPair::new(&here, &there).expect("a pair");
    let Some(mut program) = kernel::load(LinkOptions::default()) else { return };
    let name = pair.right().name();
    there
        .run(|| {
            // The loopback interface has no native XDP.
            let native = program.attach_xdp("lo", AttachPolicy::Native).expect_err("no native mode");
            assert!(matches!(native, x0_ebpf::AttachError::Mode { .. }), "{native}");
            let fallen = program.attach_xdp("lo", AttachPolicy::NativeThenGeneric).expect("attached");
            assert_eq!(fallen.mode, Some(AttachMode::Generic));
            assert_eq!(fallen.fallback, Some(x0_ebpf::Fallback::DriverWithout));
            let generic = program.attach_xdp(name, AttachPolicy::Generic).expect("attached");
            assert_eq!((generic.mode, generic.fallback), (Some(AttachMode::Generic), None));
            // Another attached program is an error and no reason to try the other mode.
            let mut second = LinkProgram::load(LinkOptions::default()).expect("loaded");
            let busy = second.attach_xdp(name, AttachPolicy::NativeThenGeneric).expect_err("busy");
            assert!(matches!(busy, x0_ebpf::AttachError::Busy(_)), "{busy}");
            let nowhere = second.attach_xdp("nowhere", AttachPolicy::Native).expect_err("no interface");
            assert!(matches!(nowhere, x0_ebpf::AttachError::NoInterface(_)), "{nowhere}");
            assert!(program.detach(name, Point::Xdp).expect("detached"));
            assert!(!program.detach(name, Point::Xdp).expect("nothing to detach"));
            second.attach_xdp(name, AttachPolicy::Native).expect("attached");
        })
        .expect("entered");
}
