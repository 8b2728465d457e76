//! Import from and export to the crate `crdts`: its flat sets, registers and counters.
//!
//! Its `Map` is not supported, because it diverges (`tests/compat/map.rs`). Needs std, as that crate does.
//!
//! Writers have names of any type there; `to_replica` and `to_actor` translate. No two actors may become one
//! replica, nor the reverse. Events are numbered by each writer on its own, so after an import or export a
//! writer goes on in one of the two only. That crate loses what arrives out of order: its copies must have
//! taken in each writer's operations in order.
//!
//! ```
//! use crdts::{CmRDT, Orswot};
//! use x0_crdt::{ReplicaId, compat};
//!
//! let mut there = Orswot::<u8, u64>::new();
//! there.apply(there.add(7, there.read_ctx().derive_add_ctx(1)));
//!
//! let mut here = compat::import_set(&there, |actor| ReplicaId::new(*actor))?;
//! here.change(ReplicaId::new(2), |set, change| set.add(change, 8))?;
//! let back = compat::export_set(&here, |replica| replica.node)?;
//! assert_eq!(back.read().val.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

extern crate std;

mod counters;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::hash::Hash;

use crdts::{CmRDT, Dot as TheirDot, MVReg, Orswot, VClock};

use crate::codec::Canonical;
use crate::dot::{Dot, ReplicaId};
use crate::types::causal::{Causal, ChangeError};
use crate::types::context::Context;
use crate::types::store::Dots;
use crate::types::{Flag, MvRegister, OrMap, OrSet};

pub use counters::{export_g_counter, export_pn_counter, import_g_counter, import_pn_counter};

/// Why a state cannot be exported: `crdts` has no counterpart of it. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The context has gaps, which the clocks of `crdts` cannot express.
    #[error(
        "events of writer {replica} are missing: take in the missing deltas or a full state, then export"
    )]
    Gap {
        /// The writer.
        replica: ReplicaId,
    },
    /// One writer has two concurrent values, which the clocks of `crdts` cannot express.
    #[error("writer {replica} has two values side by side: write one value over them, then export")]
    SameWriter {
        /// The writer.
        replica: ReplicaId,
    },
}

/// Why a state of `crdts` was not imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A counter was counted by more than the given actors.
    #[error("the counter has actors that were not named: name all that ever counted")]
    UnknownActor,
    /// A sum is more than a sum here can be, or two actors were made one replica.
    #[error("a writer's sums do not fit: name each actor once, as a replica of its own")]
    DoesNotFit,
    /// Several items of a set have one event: they were added in one operation, or two actors were made one
    /// replica.
    #[error(
        "event {dot} added several items: add them one by one there, and make each actor a replica of its own"
    )]
    AddedTogether {
        /// The event.
        dot: Dot,
    },
    /// The importing replica cannot write.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Imports a set, with its dots: two replicas may import their own copies of one set and still agree.
///
/// Removals that wait there for additions that have not arrived are not imported, because that crate does not
/// show them: let the set take in all operations first.
///
/// # Errors
/// Several items have one event, because they were added in one operation. Here an event is at one place: a
/// state without it there says that it is gone, and would take the other items with it.
pub fn import_set<M, A>(
    set: &Orswot<M, A>,
    to_replica: impl Fn(&A) -> ReplicaId,
) -> Result<Causal<OrSet<M>>, ImportError>
where
    M: Hash + Ord + Clone + Canonical + Debug,
    A: Ord + Hash + Clone + Debug,
{
    let mut context = Context::new();
    for dot in &set.clock().dots {
        context.insert_range(to_replica(dot.0), 1, *dot.1);
    }
    let mut live = Context::new();
    let mut flags = OrMap::default();
    for member in set.iter() {
        let mut dots = Dots::default();
        for (actor, counter) in &member.rm_clock.dots {
            let dot = Dot::new(to_replica(actor), *counter);
            if !live.insert(dot) {
                return Err(ImportError::AddedTogether { dot });
            }
            context.insert(dot);
            dots.insert(dot, ());
        }
        if !dots.is_empty() {
            flags.insert(member.val.clone(), Flag::from_dots(dots));
        }
    }
    Ok(Causal::from_parts(OrSet::from_flags(flags), context))
}

/// Exports a set, with its dots.
///
/// # Errors
/// What was seen has gaps.
pub fn export_set<M, A>(
    set: &Causal<OrSet<M>>,
    to_actor: impl Fn(ReplicaId) -> A,
) -> Result<Orswot<M, A>, ExportError>
where
    M: Hash + Ord + Clone + Canonical + Debug,
    A: Ord + Hash + Clone + Debug,
{
    let seen = clock(set.context())?;
    let mut adds: BTreeMap<Dot, Vec<M>> = BTreeMap::new();
    for (item, flag) in set.store().flags().iter() {
        for (dot, ()) in flag.dots().iter() {
            adds.entry(dot).or_default().push(item.clone());
        }
    }
    let mut result = Orswot::new();
    let mut add = |dot: Dot, members| {
        let dot = TheirDot::new(to_actor(dot.replica), dot.seq);
        result.apply(crdts::orswot::Op::Add { dot, members });
    };
    adds.into_iter().for_each(|(dot, members)| add(dot, members));
    // An addition of nothing brings their clock to where ours is; it is ignored if it is there.
    seen.into_iter().for_each(|(replica, seq)| add(Dot::new(replica, seq), Vec::new()));
    Ok(result)
}

/// Imports a register: its values become writes of `replica`, side by side. That crate does not say who wrote
/// which value, so only one replica may import a register; the others get it from there.
///
/// # Errors
/// The replica has no event left.
pub fn import_register<V, A>(
    reg: &MVReg<V, A>,
    replica: ReplicaId,
) -> Result<Causal<MvRegister<V>>, ImportError>
where
    V: Clone + Eq + Canonical + Debug,
    A: Ord + Clone + Debug,
{
    let mut values: Vec<(Vec<u8>, V)> =
        reg.read().val.into_iter().map(|value| (encoded(&value), value)).collect();
    // The order is that of arrival.
    values.sort_by(|a, b| a.0.cmp(&b.0));
    let mut register = Causal::new();
    register.change(replica, |_, change| {
        let mut dots = Dots::default();
        for (_, value) in values {
            dots.insert(change.dot(), value);
        }
        MvRegister::from_dots(dots)
    })?;
    Ok(register)
}

fn encoded<V: Canonical>(value: &V) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

/// Exports a register. A value's clock says that it has seen all that is gone here, but none of the values
/// beside it. What that is differs between replicas that have not seen the same, so let one of them export.
///
/// # Errors
/// What was seen has gaps, or one writer has two values side by side.
pub fn export_register<V, A>(
    register: &Causal<MvRegister<V>>,
    to_actor: impl Fn(ReplicaId) -> A,
) -> Result<MVReg<V, A>, ExportError>
where
    V: Clone + Eq + Canonical + Debug,
    A: Ord + Clone + Debug,
{
    let seen = clock(register.context())?;
    let mut result = MVReg::new();
    for (dot, value) in register.store().iter() {
        let mut clock = VClock::new();
        for (replica, seq) in &seen {
            let other = register.store().iter().find(|(other, _)| other.replica == *replica && *other != dot);
            if let Some((other, _)) = other {
                if *replica == dot.replica {
                    return Err(ExportError::SameWriter { replica: *replica });
                }
                put(&mut clock, to_actor(*replica), other.seq - 1);
            } else {
                put(&mut clock, to_actor(*replica), if *replica == dot.replica { dot.seq } else { *seq });
            }
        }
        result.apply(crdts::mvreg::Op::Put { clock, val: value.clone() });
    }
    Ok(result)
}

fn put<A: Ord>(clock: &mut VClock<A>, actor: A, seq: u64) {
    if seq > 0 {
        clock.dots.insert(actor, seq);
    }
}

/// The context as one number per writer.
fn clock(context: &Context) -> Result<Vec<(ReplicaId, u64)>, ExportError> {
    let mut seen: Vec<(ReplicaId, u64)> = Vec::new();
    for (replica, first, last) in context.ranges() {
        if first != 1 {
            return Err(ExportError::Gap { replica });
        }
        seen.push((replica, last));
    }
    Ok(seen)
}
