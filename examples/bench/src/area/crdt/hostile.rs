//! Removals of additions that were never written: their cost for later writes.

use anyhow::{Result, ensure};
use crdts::orswot::Op;
use crdts::{CmRDT, Orswot, VClock};
use x0_crdt::{CausalMap, MapDelta, ReplicaId};

use super::systems::{self, HASH_KEY};
use super::{Work, processor_time};
use crate::case::{Case, Metric};
use crate::memory;

const BEFORE: Metric = Metric { name: "add before", unit: "us" };
const AFTER: Metric = Metric { name: "add after", unit: "us" };
const SLOWDOWN: Metric = Metric { name: "slowdown", unit: "x" };
const PENDING: Metric = Metric { name: "kept of them", unit: "B" };

pub(super) fn measure(work: &Work<'_>) -> Result<Vec<Case>> {
    let removals = work.options.keys / 5;
    let names = vec![
        format!("{} CausalMap", systems::named("x0-crdt")),
        format!("{} Orswot", systems::named("crdts")),
    ];
    let how = format!(
        "{removals} removals arrive that refer to unknown additions, then elements are added. crdts: `Op::Rm` with a clock of the\n\
         future, one each. x0: differences made for a version that the receiver has not reached; `join` refuses them whole. Add before\n\
         and after: mean of 1000 (crdts after: of 10). Kept: allocated bytes more than before they came."
    );
    let mut case = Case::new("crdt", "hostile", how, names.clone());
    work.turns("hostile", names.len(), |turn, system| {
        let (before, after, kept) = if system == 0 { x0(removals, turn)? } else { crdts(removals) };
        case.add(BEFORE, system, before * 1e6);
        case.add(AFTER, system, after * 1e6);
        case.add(SLOWDOWN, system, after / before);
        case.add(PENDING, system, kept as f64);
        Ok(())
    })?;
    case.aim("slowdown", case.median(SLOWDOWN, 0), 2.0, "x");
    Ok(vec![case])
}

/// Seconds of an addition before and after, and the bytes kept.
fn x0(removals: u32, turn: usize) -> Result<(f64, f64, usize)> {
    let mut victim = CausalMap::new(ReplicaId::new(1), HASH_KEY);
    let add = |victim: &mut CausalMap, from: u32| {
        let (done, seconds) = processor_time(|| {
            (from..from + 1_000)
                .try_for_each(|key| victim.put(format!("key-{key:06}").as_bytes(), 1, b"").map(|_| ()))
        });
        done.map(|()| seconds / 1e3)
    };
    add(&mut victim, 0)?;
    let before = add(&mut victim, 1_000)?;
    // A writer that adds and removes, and sends only the removals.
    let mut attacker = CausalMap::new(ReplicaId::new(2 + turn as u64), HASH_KEY);
    let mut messages = Vec::new();
    for key in 0..removals {
        let key = format!("key-{key:06}");
        attacker.put(key.as_bytes(), 1, b"")?;
        let since = attacker.version();
        attacker.remove(key.as_bytes());
        messages.push((since.clone(), attacker.delta(&since)?.encode(&since)));
    }
    let allocated = memory::allocated();
    let mut refused = 0;
    for (since, message) in &messages {
        let delta = MapDelta::decode(message, since)?;
        refused += u32::from(victim.join(&delta).is_err());
    }
    let kept = memory::allocated().saturating_sub(allocated);
    ensure!(refused == removals, "x0 took {} removals of what it has not seen", removals - refused);
    let after = add(&mut victim, 2_000)?;
    Ok((before, after, kept))
}

fn crdts(removals: u32) -> (f64, f64, usize) {
    let mut victim: Orswot<String, u64> = Orswot::new();
    let add = |victim: &mut Orswot<String, u64>, from: u32, count: u32| {
        let ((), seconds) = processor_time(|| {
            for key in from..from + count {
                let context = victim.read_ctx().derive_add_ctx(1);
                let op = victim.add(format!("key-{key:06}"), context);
                victim.apply(op);
            }
        });
        seconds / f64::from(count)
    };
    add(&mut victim, 0, 1_000);
    let before = add(&mut victim, 1_000, 1_000);
    let allocated = memory::allocated();
    for key in 0..removals {
        let clock: VClock<u64> = std::iter::once(crdts::Dot::new(2, u64::from(key) + 1)).collect();
        victim.apply(Op::Rm { clock, members: vec![format!("key-{key:06}")] });
    }
    let kept = memory::allocated().saturating_sub(allocated);
    let after = add(&mut victim, 2_000, 10);
    (before, after, kept)
}
