//! Composable replicated types: each is a [`DotStore`], lives in a [`Causal`], and nests in an [`OrMap`].

mod causal;
mod change;
mod clock;
#[cfg(feature = "compat-crdts")]
pub mod compat;
mod context;
mod flag;
mod g_counter;
mod lattice;
mod lww_register;
mod max_min;
mod mv_register;
mod or_map;
mod or_set;
mod plain;
mod pn_counter;
mod replica;
#[cfg(feature = "serde")]
mod serde_bytes;
mod store;

pub use causal::{ApplyError, Causal, ChangeError, Delta, Transaction};
pub use change::Change;
pub use clock::{Clock, ClockError, Observed, Stamp};
pub use context::{Context, RANGES_MAX};
pub use flag::Flag;
pub use g_counter::GCounter;
pub use lattice::Lattice;
pub use lww_register::LwwRegister;
pub use max_min::{Max, Min};
pub use mv_register::MvRegister;
pub use or_map::OrMap;
pub use or_set::OrSet;
pub use plain::Plain;
pub use pn_counter::PnCounter;
pub use replica::{AdoptError, CausalReplica, StateJoined};
pub use store::{DotStore, Dots, JoinScope, StoreForm};
