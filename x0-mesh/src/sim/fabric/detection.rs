//! The production's detection of cuts on simulated links.

use std::time::Duration;

use x0_identity::NodeId;

use super::{Event, Fabric, nanoseconds};
use crate::liveness::{Liveness, LivenessInput, LivenessOutput, LivenessState};
use crate::router::{Input, LinkId};

/// One end of a link.
#[derive(Debug)]
pub(super) struct Detector {
    liveness: Liveness,
    wake: Option<Duration>,
}

impl Fabric {
    /// Begins detection at the end of a link whose node has started; ends it when the node does not run.
    pub(super) fn reset_detector(&mut self, link: LinkId, node: NodeId, runs: bool) {
        let Some(options) = self.options.liveness.clone() else { return };
        let instance = u32::try_from(self.random.next() >> 32).unwrap_or(0);
        let Some(state) = self.links.get_mut(link.0 as usize) else { return };
        let end = state.end(node);
        state.is_up[end] = false;
        let mut options = options;
        options.instance = instance;
        state.detectors[end] =
            runs.then(|| Box::new(Detector { liveness: Liveness::new(options), wake: None }));
        self.detect(link, node, LivenessInput::Timeout);
    }

    /// The time of a detector has come.
    pub(super) fn wake_detector(&mut self, link: LinkId, node: NodeId) {
        let now = self.now;
        let Some(state) = self.links.get_mut(link.0 as usize) else { return };
        let end = state.end(node);
        if let Some(detector) = state.detectors[end].as_mut().filter(|detector| detector.wake == Some(now)) {
            detector.wake = None;
            self.detect(link, node, LivenessInput::Timeout);
        }
    }

    /// Hands something that happened on a link to the detector of one end.
    pub(super) fn detect(&mut self, link: LinkId, node: NodeId, input: LivenessInput<'_>) {
        let now = self.now;
        let Some(state) = self.links.get_mut(link.0 as usize) else { return };
        let end = state.end(node);
        let (peer, cost) = (state.ends[1 - end], state.link.cost);
        let Some(detector) = state.detectors[end].as_mut() else { return };
        detector.liveness.handle(now, input);
        let mut changes = Vec::new();
        let mut probes = Vec::new();
        while let Some(output) = detector.liveness.poll_output() {
            match output {
                LivenessOutput::Probe(probe) => probes.push(probe),
                LivenessOutput::Changed { state, .. } => changes.push(state),
            }
        }
        let timeout = detector.liveness.poll_timeout().map(|at| at.max(now));
        let due = timeout.filter(|at| detector.wake.is_none_or(|wake| *at < wake));
        if due.is_some() {
            detector.wake = due;
        }
        if let Some(at) = due {
            self.enqueue(at, Event::DetectorWake { link, node });
        }
        for probe in probes {
            self.stats.probes += 1;
            self.stats.probe_bytes += probe.len() as u64;
            let Some(state) = self.links.get_mut(link.0 as usize) else { return };
            let arrivals = state.arrivals(now, node, probe.len(), &mut self.random);
            for at in arrivals.into_iter().flatten() {
                self.enqueue(at, Event::Probe { link, to: peer, probe: probe.clone() });
            }
        }
        for change in changes {
            self.record([nanoseconds(now), node.get(), u64::from(link.0), change as u64]);
            let was_up =
                std::mem::replace(&mut self.links[link.0 as usize].is_up[end], change != LivenessState::Down);
            match change {
                LivenessState::Up => self.input(node, Input::LinkUp { link, peer, cost }),
                LivenessState::Degraded => {
                    if !was_up {
                        self.input(node, Input::LinkUp { link, peer, cost });
                    }
                    self.input(node, Input::LinkDegraded { link });
                }
                LivenessState::Down => self.input(node, Input::LinkDown { link }),
            }
        }
    }
}
