//! The driver of the failure detector of `x0_mapek::suspicion`: which members do not answer, by the judgement
//! of a majority.
//!
//! A task of its own keeps the detector's timers: the loop of the node may wait for a disk. The messages are
//! datagrams, which never wait for a member that does not take them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use x0_identity::NodeId;
use x0_kv::cluster::StatusHandle;
use x0_mapek::suspicion::{Detector, DetectorOptions, Input, Output, Suspect};
use x0_mesh::{Channel, ChannelOptions, Lane, Mux, Next, Received, Transmit, Transport, TransportExt};

use crate::log::Log;

const SERVICE: &str = "x0-node/suspicion";
/// The time between two looks at the membership.
const MEMBERS_EVERY: Duration = Duration::from_secs(1);

/// The judgement of the detector at its last input.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The members that do not answer, and for how long that has been known.
    pub(super) suspects: Vec<(NodeId, Duration, Vec<NodeId>)>,
    /// How long each of them has been silent.
    pub(super) silent: BTreeMap<NodeId, Duration>,
    /// The members that accuse this node.
    pub(super) accusers: Vec<NodeId>,
    /// The own timers or messages are late, so that this node accuses nobody.
    pub(super) is_starved: bool,
}

impl Known {
    /// The members that do not answer, each with those that accuse it.
    pub(super) fn accused(self) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let of =
            |(member, _, accusers): (NodeId, Duration, Vec<NodeId>)| (member, accusers.into_iter().collect());
        self.suspects.into_iter().map(of).collect()
    }
}

/// Reads what the detector knows.
#[derive(Debug, Clone)]
pub(super) struct Suspicion(Arc<Mutex<Known>>);

impl Suspicion {
    /// Registers the service and starts the task of the detector, which ends with the mux.
    pub(super) fn start(mux: &Mux, status: StatusHandle, log: &Log) -> Result<Suspicion> {
        let channel = mux
            .channel(ChannelOptions::new(SERVICE).bulk(false))
            .with_context(|| format!("cannot register the service {SERVICE}"))?;
        let known = Suspicion(Arc::default());
        tokio::spawn(run(channel, status, log.clone(), known.clone()));
        Ok(known)
    }

    /// The judgement now.
    pub(super) fn known(&self) -> Known {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, now: Duration, detector: &Detector) {
        let named = |suspect: Suspect| {
            let member = NodeId::new(suspect.member)?;
            Some((member, now.saturating_sub(suspect.since), nodes(&suspect.accusers)))
        };
        let suspects = detector.suspects();
        let silent = suspects.iter().filter_map(|suspect| {
            let silent = now.saturating_sub(suspect.silent_since);
            Some((NodeId::new(suspect.member)?, silent))
        });
        let silent = silent.collect();
        let suspects = suspects.into_iter().filter_map(named).collect();
        let accusers = nodes(&detector.accusers_of_local());
        *self.lock() = Known { suspects, silent, accusers, is_starved: !detector.may_accuse() };
    }
}

fn nodes(numbers: &[u64]) -> Vec<NodeId> {
    numbers.iter().copied().filter_map(NodeId::new).collect()
}

/// The members, voters or not.
fn members(status: &StatusHandle) -> BTreeSet<u64> {
    let membership = status.status().membership;
    let all = [membership.voters, membership.voters_outgoing, membership.learners, membership.learners_next];
    all.into_iter().flatten().map(NodeId::get).collect()
}

async fn run(mut channel: Channel, status: StatusHandle, log: Log, known: Suspicion) {
    let origin = Instant::now();
    // Differs from one start of the process to the next.
    let instance = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let instance = u64::try_from(instance & u128::from(u64::MAX)).unwrap_or_default();
    let local = channel.local().get();
    let mut detector = Detector::new(local, instance, DetectorOptions::new(), Duration::ZERO);
    let mut members_at = Duration::ZERO;
    let mut payload = Vec::new();
    loop {
        let due = origin + detector.poll_timeout().unwrap_or(MEMBERS_EVERY);
        let received = tokio::select! {
            () = tokio::time::sleep_until(due.into()) => None,
            next = channel.next(&mut payload) => match next {
                Ok(Next::Message(Received { from, .. })) => Some(from),
                Ok(_) => continue,
                // The node ends.
                Err(_) => return,
            },
        };
        let now = origin.elapsed();
        // A refused input is one of a stranger, or of a build that is not compatible.
        let _ = match received {
            Some(from) => detector.handle(now, Input::Received { from: from.get(), message: &payload }),
            None => detector.handle(now, Input::Timeout),
        };
        if now >= members_at {
            members_at = now + MEMBERS_EVERY;
            // More members than a detector watches are not watched.
            let _ = detector.handle(now, Input::Members(&members(&status)));
        }
        // Before the log: a reader of the log finds a suspect in the status as well.
        known.update(now, &detector);
        while let Some(output) = detector.poll_output() {
            carry_out(&mut channel, &log, output).await;
        }
    }
}

async fn carry_out(channel: &mut Channel, log: &Log, output: Output) {
    match output {
        Output::Send { to, message } => {
            for to in to.into_iter().filter_map(NodeId::new) {
                let transmit = Transmit { to, lane: Lane::Datagram, payload: &message };
                // A datagram is taken or dropped at once, and a later one says the same.
                poll_fn(|cx| {
                    let _ = channel.poll_send(cx, &transmit);
                    Poll::Ready(())
                })
                .await;
            }
        }
        Output::Suspect(Suspect { member, accusers, .. }) => {
            let accusers: Vec<String> = nodes(&accusers).iter().map(NodeId::to_string).collect();
            if let Some(member) = NodeId::new(member) {
                log.event("peer-suspect", format!("peer={member} accusers={}", accusers.join(",")));
            }
        }
        Output::Cleared { member } => {
            if let Some(member) = NodeId::new(member) {
                log.event("peer-cleared", format!("peer={member}"));
            }
        }
        // Of a newer x0-mapek: nothing is done.
        _ => {}
    }
}
