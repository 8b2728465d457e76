//! The build without `unix-peers`: there is no connection of a process to attest. The item is that of
//! `unix_peer`.

/// Has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnixConnection {}
