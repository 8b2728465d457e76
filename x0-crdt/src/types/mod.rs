//! The replicated types. Each is a [`DotStore`](crate::store::DotStore), lives in a [`Causal`](crate::Causal), and nests in [`OrMap`].

mod flag;
mod g_counter;
mod lww_register;
mod max_min;
mod mv_register;
mod or_map;
mod or_set;
mod plain;
mod pn_counter;

pub use crate::clock::{Clock, ClockError, Observed, Stamp};
pub use flag::Flag;
pub use g_counter::GCounter;
pub use lww_register::LwwRegister;
pub use max_min::{Max, Min};
pub use mv_register::MvRegister;
pub use or_map::OrMap;
pub use or_set::OrSet;
pub use plain::Plain;
pub use pn_counter::PnCounter;
