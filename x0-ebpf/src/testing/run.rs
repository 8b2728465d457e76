//! Test runs of a program on a packet, without an interface: `BPF_PROG_TEST_RUN`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::attach::Point;
use crate::control::SLOTS;
use crate::counters::InterfaceCounters;
use crate::link::{LinkProgram, place};
use crate::program::LoadError;
use crate::sys;

/// The shortest packet on which the kernel runs a program: an Ethernet header.
pub const PACKET_LEN_MIN: usize = 14;

/// The loopback interface, on which packets of test runs arrive.
const LOOPBACK: u32 = 1;

/// The return value of a program for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The packet passes.
    Pass,
    /// The packet is dropped.
    Drop,
    /// The packet is redirected to another interface.
    Redirect,
    /// A code that the programs of this crate never return.
    Other(u32),
}

/// The result of one run, or of repeated runs on the same packet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run {
    /// The verdict of the last run.
    pub verdict: Verdict,
    /// The average duration of a run in nanoseconds, including the call of the program.
    pub duration_ns: u32,
    /// The packet after the run.
    pub packet: Vec<u8>,
}

/// The failure of a test run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The program did not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The packet has no Ethernet header, or is longer than a page allows.
    #[error(
        "a packet of {0} bytes cannot be used: the kernel runs programs on {PACKET_LEN_MIN} to about 3500 bytes"
    )]
    Length(usize),
    /// The kernel refused.
    #[error("the kernel refused the test run; it needs CAP_BPF and CAP_NET_ADMIN")]
    System(#[from] io::Error),
}

/// A loaded program that can be run on packets.
#[derive(Debug)]
pub struct Runner {
    program: OwnedFd,
    xdp: bool,
}

impl Runner {
    pub(crate) fn new(program: OwnedFd, xdp: bool) -> Self {
        Self { program, xdp }
    }

    /// Runs the program `repeat` times on `packet`, at least once. Counters count each run.
    ///
    /// # Errors
    /// [`RunError`]: the program has not run.
    pub fn run(&self, packet: &[u8], repeat: u32) -> Result<Run, RunError> {
        if packet.len() < PACKET_LEN_MIN || packet.len() > 3500 {
            return Err(RunError::Length(packet.len()));
        }
        let result = sys::program_test_run(self.program.as_fd(), packet, &[], repeat.max(1), 0)?;
        let verdict = match (self.xdp, result.returned) {
            (true, 2) => Verdict::Pass,
            (true, 1) => Verdict::Drop,
            (true, 4) | (false, 7) => Verdict::Redirect,
            // TC programs say "no opinion" (-1) when a packet may go on, and "stolen" (4) for a drop without
            // an error.
            (false, 0 | u32::MAX) => Verdict::Pass,
            (false, 2 | 4) => Verdict::Drop,
            (_, other) => Verdict::Other(other),
        };
        Ok(Run { verdict, duration_ns: result.duration_ns, packet: result.output })
    }

    /// Sends `count` copies of `packet` through the XDP program as frames that arrive on interface `index`,
    /// and lets those that pass enter its network stack. Needs Linux 5.18. How long it took on average is in
    /// the result.
    ///
    /// # Errors
    /// [`RunError`]: nothing was sent.
    pub fn live(&self, packet: &[u8], index: u32, count: u32) -> Result<u32, RunError> {
        if packet.len() < PACKET_LEN_MIN || packet.len() > 3500 {
            return Err(RunError::Length(packet.len()));
        }
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let context: Vec<u8> = [0, len, 0, index, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(sys::program_test_run(self.program.as_fd(), packet, &context, count, 2)?.duration_ns)
    }
}

impl LinkProgram {
    /// The program of a point, to be run on packets that pretend to arrive on the loopback interface.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn runner(&mut self, point: Point) -> Result<Runner, RunError> {
        let (control, _, _) = self.parts();
        let _ = control.take_slot(LOOPBACK);
        control.write()?;
        let name = match point {
            Point::Xdp => "x0_link",
            Point::Ingress => "x0_ingress",
            Point::Egress => "x0_egress",
        };
        Ok(Runner::new(self.loaded().descriptor(name)?, point == Point::Xdp))
    }

    /// An XDP program that passes everything and does nothing: what a run costs by itself.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn runner_empty(&mut self) -> Result<Runner, RunError> {
        Ok(Runner::new(self.loaded().descriptor("x0_pass")?, true))
    }

    /// The counts of test runs at a point.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn runner_counters(&mut self, point: Point) -> Result<InterfaceCounters, RunError> {
        let (control, interfaces, _) = self.parts();
        let slot = control.slot_of(LOOPBACK).unwrap_or(SLOTS);
        let value = interfaces.lookup(&place(slot, point).to_ne_bytes())?.unwrap_or_default();
        Ok(InterfaceCounters::sum(&value, interfaces.stride()))
    }
}
