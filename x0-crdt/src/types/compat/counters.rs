//! Counters.

use alloc::collections::BTreeMap;
use core::fmt::Debug;

use crdts::pncounter::{Dir, Op as TheirPnOp};
use crdts::{CmRDT, Dot as TheirDot, GCounter as TheirGCounter, PNCounter};

use super::ImportError;
use crate::dot::{Dot, ReplicaId};
use crate::types::causal::Causal;
use crate::types::context::Context;
use crate::types::store::Dots;
use crate::types::{GCounter, PnCounter};

/// Imports a counter. That crate does not list the actors of one: name all that ever counted, each with its
/// replica.
///
/// A writer's sum becomes the number of its event too, so two replicas may import their own copies of one
/// counter and still agree.
///
/// # Errors
/// An actor is missing, or a sum does not fit.
pub fn import_g_counter<A: Ord + Clone + Debug>(
    counter: &TheirGCounter<A>,
    actors: impl IntoIterator<Item = (A, ReplicaId)>,
) -> Result<Causal<GCounter>, ImportError> {
    let mut rebuilt = TheirGCounter::new();
    let mut dots = Dots::default();
    let mut context = Context::new();
    for (actor, replica) in actors {
        let total = counter.inc_many(actor, 0);
        let sum = total.counter;
        rebuilt.apply(total);
        add_sums(&mut context, &mut dots, replica, sum, sum)?;
    }
    // Read alone, a counter with too few actors may look right.
    if rebuilt != *counter {
        return Err(ImportError::UnknownActor);
    }
    Ok(Causal::from_parts(GCounter::from_dots(dots), context))
}

/// Exports a counter. A writer's sum stops at `u64::MAX`.
#[must_use]
pub fn export_g_counter<A: Ord + Clone + Debug>(
    counter: &Causal<GCounter>,
    to_actor: impl Fn(ReplicaId) -> A,
) -> TheirGCounter<A> {
    let mut sums: BTreeMap<A, u64> = BTreeMap::new();
    for (dot, more) in counter.store().dots().iter() {
        let sum = sums.entry(to_actor(dot.replica)).or_default();
        *sum = sum.saturating_add(*more);
    }
    let mut result = TheirGCounter::new();
    sums.into_iter().for_each(|(actor, sum)| result.apply(TheirDot::new(actor, sum)));
    result
}

/// Imports a counter that goes up and down. As [`import_g_counter`]; the number of a writer's event is the
/// sum of its two sums.
///
/// # Errors
/// An actor is missing, or its sums do not fit.
pub fn import_pn_counter<A: Ord + Clone + Debug>(
    counter: &PNCounter<A>,
    actors: impl IntoIterator<Item = (A, ReplicaId)>,
) -> Result<Causal<PnCounter>, ImportError> {
    let mut rebuilt = PNCounter::new();
    let mut dots = Dots::default();
    let mut context = Context::new();
    for (actor, replica) in actors {
        let (ups, downs) = (counter.inc_many(actor.clone(), 0), counter.dec_many(actor, 0));
        let (up, down) = (ups.dot.counter, downs.dot.counter);
        rebuilt.apply(ups);
        rebuilt.apply(downs);
        let seq = up.checked_add(down).ok_or(ImportError::DoesNotFit)?;
        add_sums(&mut context, &mut dots, replica, seq, (up, down))?;
    }
    if rebuilt != *counter {
        return Err(ImportError::UnknownActor);
    }
    Ok(Causal::from_parts(PnCounter::from_dots(dots), context))
}

/// Adds what a writer counted as its `seq`-th event. Nothing counted: no event.
fn add_sums<V>(
    context: &mut Context,
    dots: &mut Dots<V>,
    replica: ReplicaId,
    seq: u64,
    sums: V,
) -> Result<(), ImportError> {
    if seq == 0 {
        return Ok(());
    }
    if context.next(replica) != Some(1) {
        return Err(ImportError::DoesNotFit);
    }
    context.insert_range(replica, 1, seq);
    dots.insert(Dot::new(replica, seq), sums);
    Ok(())
}

/// Exports a counter that goes up and down. Each of a writer's two sums stops at `u64::MAX`.
#[must_use]
pub fn export_pn_counter<A: Ord + Clone + Debug>(
    counter: &Causal<PnCounter>,
    to_actor: impl Fn(ReplicaId) -> A,
) -> PNCounter<A> {
    let mut sums: BTreeMap<A, (u64, u64)> = BTreeMap::new();
    for (dot, more) in counter.store().dots().iter() {
        let (up, down) = sums.entry(to_actor(dot.replica)).or_default();
        (*up, *down) = (up.saturating_add(more.0), down.saturating_add(more.1));
    }
    let mut result = PNCounter::new();
    for (actor, (up, down)) in sums {
        result.apply(TheirPnOp { dot: TheirDot::new(actor.clone(), up), dir: Dir::Pos });
        result.apply(TheirPnOp { dot: TheirDot::new(actor, down), dir: Dir::Neg });
    }
    result
}
