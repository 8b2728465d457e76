//! Which workload may have which SPIFFE ID: registration entries, and how a workload proves what it is.

mod join_token;
mod registry;

pub use join_token::{JoinTokenError, JoinTokens, StoredToken};
pub use registry::{
    MemoryRegistry, RegistrationEntry, RegistrationEntryError, Registry, Selector, SelectorError,
};
