//! The messages by which two equal replicas find that they are equal.

use anyhow::Result;

use super::{Work, systems};
use crate::case::{Case, Metric};

const BYTES: Metric = Metric { name: "handshake", unit: "B" };

pub(super) fn measure(work: &Work<'_>) -> Result<Vec<Case>> {
    let systems = systems::all();
    let writers = if work.options.quick { 100 } else { 1_000 };
    let how = format!(
        "Two replicas that hold the same, which {writers} writers wrote that are gone. Bytes in both directions until both know: x0 two\n\
         frontiers of two sessions; yrs and loro their state or version vectors; automerge its sync protocol with states kept from an\n\
         earlier meeting. Nothing varies, so it is done once."
    );
    let mut case = Case::new("crdt", "in sync", how, systems.iter().map(|system| system.name()).collect());
    for (at, system) in systems.iter().enumerate() {
        work.progress.set_message(format!("in sync: {}", system.name()));
        match system.handshake(writers)? {
            Some(bytes) => case.add(BYTES, at, bytes as f64),
            None => case.miss(at, "has no handshake; it sends its state"),
        }
    }
    case.aim("handshake", case.median(BYTES, 0), 64.0, "B");
    Ok(vec![case])
}
